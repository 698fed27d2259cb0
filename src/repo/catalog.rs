//! What a repository holds of one cluster: its backups, and its WAL with the holes in it.
//!
//! From: `cli::info`, `repo::resolve`.  To: `store` (listings), and the first bytes of each manifest.
//! In: a cluster's folder.  Out: [`Catalog`]. Segments are kept as runs of adjacent numbers, so that a year of WAL takes a few lines.
//! A backup exists if it has a manifest; one whose manifest cannot be read is listed as such, not left out.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::cluster::{self, ClusterIdentity};
use super::indexes::Indexes;
use super::layout::{ClusterFolder, segment_of_key};
use super::manifest::Header;
use super::{ObjectKind, RepoError, Repository};
use crate::format::manifest::ManifestError;
use crate::parallel;
use crate::pg::wal::history::{BadHistory, TimelinePath};
use crate::pg::{Lsn, SegmentSize, Timeline, WalSegment};

/// First bytes of a manifest that are read to find its header.
const HEADER_BYTES: u64 = 64 << 10;

/// All that is known without reading any data.
#[derive(Debug)]
pub struct Catalog {
    pub folder: ClusterFolder,
    pub identity: ClusterIdentity,
    /// By label, which is by time.
    pub backups: Vec<Header>,
    /// Backups that exist but cannot be used, and why.
    pub unusable: Vec<UnusableBackup>,
    /// By timeline, then by number. Never adjacent: between two of a timeline something is missing.
    pub wal: Vec<WalRun>,
    /// The way to each timeline that has WAL or a history file.
    pub paths: BTreeMap<Timeline, TimelinePath>,
    /// History files that cannot be used, and why: their timelines have no path.
    pub bad_histories: Vec<(Timeline, HistoryError)>,
    /// Which indexes of its WAL there are.
    pub indexes: Indexes,
}

/// A backup whose manifest is there but does not help.
#[derive(Debug)]
pub struct UnusableBackup {
    pub label: String,
    pub error: BackupError,
}

/// Why a manifest's header was not had.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error(transparent)]
    Repo(#[from] RepoError),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// It is the manifest of another backup or cluster.
    #[error("its manifest is that of {found}")]
    Another { found: String },
}

/// Why a history file was not had.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    #[error(transparent)]
    Repo(#[from] RepoError),
    #[error(transparent)]
    Bad(#[from] BadHistory),
}

/// Segments of one timeline with adjacent numbers, all of them stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalRun {
    pub timeline: Timeline,
    /// Number of the first one.
    pub first: u64,
    /// Number of the last one, included.
    pub last: u64,
    /// What they take in the store.
    pub stored_bytes: u64,
    /// When the last one was stored.
    pub archived: SystemTime,
}

impl WalRun {
    /// How many segments it has; never 0.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.last - self.first + 1
    }

    fn holds(&self, segment: WalSegment) -> bool {
        self.timeline == segment.timeline && (self.first..=self.last).contains(&segment.no)
    }
}

/// Segments that are missing between two that are there, `first` to `last`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    pub timeline: Timeline,
    pub first: u64,
    pub last: u64,
}

impl Catalog {
    /// Reads the catalog of a cluster's folder.
    ///
    /// # Errors
    /// Those of the store, and of the cluster's identity. A damaged manifest or history file is no error: it is listed.
    ///
    /// Cost: the listings (one request for each thousand segments), and two small reads for each backup.
    pub fn read(repository: &Repository, folder: &ClusterFolder) -> Result<Catalog, RepoError> {
        let identity = cluster::read(repository, folder)?;
        let size = identity.wal_segment_size;
        // A timeline's history is archived before its WAL, so it is listed after that: WAL without its history would seem to come from nowhere.
        let (wal, histories, backups, indexes) = std::thread::scope(|threads| {
            let backups = threads.spawn(|| headers(repository, folder));
            let indexes = threads.spawn(|| Indexes::list(repository, folder, size));
            let wal = wal_runs(repository, folder, size);
            let join = "reading does not panic";
            (wal, histories(repository, folder), backups.join().expect(join), indexes.join().expect(join))
        });
        let mut catalog = Catalog {
            folder: folder.clone(),
            identity,
            backups: Vec::new(),
            unusable: Vec::new(),
            wal: wal?,
            paths: BTreeMap::new(),
            bad_histories: Vec::new(),
            indexes: indexes?,
        };
        catalog.take_backups(backups?)?;
        catalog.take_histories(histories?)?;
        Ok(catalog)
    }

    fn take_backups(&mut self, found: Vec<(String, Result<Header, BackupError>)>) -> Result<(), RepoError> {
        for (label, header) in found {
            match header {
                Ok(header) => self.backups.push(header),
                // Its manifest is written last: this backup is under way, or was interrupted.
                Err(BackupError::Repo(error)) if error.is_not_found() => {}
                Err(BackupError::Repo(error)) if !error.is_damage() && !matches!(error, RepoError::Sealed { .. }) => return Err(error),
                Err(error) => self.unusable.push(UnusableBackup { label, error }),
            }
        }
        Ok(())
    }

    fn take_histories(&mut self, found: Vec<(Timeline, Result<TimelinePath, HistoryError>)>) -> Result<(), RepoError> {
        for run in &self.wal {
            self.paths.entry(run.timeline).or_insert_with(|| TimelinePath::single(run.timeline));
        }
        for (timeline, path) in found {
            match path {
                Ok(path) => {
                    self.paths.insert(timeline, path);
                }
                Err(HistoryError::Repo(error)) if !error.is_damage() && !matches!(error, RepoError::Sealed { .. }) => return Err(error),
                Err(error) => {
                    self.paths.remove(&timeline);
                    self.bad_histories.push((timeline, error));
                }
            }
        }
        Ok(())
    }

    /// Timelines with WAL here whose history file is missing: nobody knows where they come from.
    pub fn without_history(&self) -> impl Iterator<Item = Timeline> + '_ {
        let is_without = |(timeline, path): &(&Timeline, &TimelinePath)| **timeline > Timeline(1) && path.stretches().len() == 1;
        self.paths.iter().filter(is_without).map(|(timeline, _)| *timeline)
    }

    /// The newest timeline that can be followed, as recovery finds it: WAL alone, without the history that leads to it, makes none.
    #[must_use]
    pub fn newest_timeline(&self) -> Option<Timeline> {
        let without: Vec<Timeline> = self.without_history().collect();
        let known = self.paths.keys().copied().filter(|timeline| !without.contains(timeline));
        known.chain(self.backups.iter().map(|backup| backup.timeline)).max()
    }

    /// Is this segment stored?
    #[must_use]
    pub fn has(&self, segment: WalSegment) -> bool {
        let after = self.wal.partition_point(|run| (run.timeline, run.first) <= (segment.timeline, segment.no));
        after.checked_sub(1).and_then(|at| self.wal.get(at)).is_some_and(|run| run.holds(segment))
    }

    /// What is missing between the first and the last segment of each timeline.
    #[must_use]
    pub fn gaps(&self) -> Vec<Gap> {
        let pairs = self.wal.iter().zip(self.wal.iter().skip(1)).filter(|(before, after)| before.timeline == after.timeline);
        pairs.map(|(before, after)| Gap { timeline: before.timeline, first: before.last + 1, last: after.first - 1 }).collect()
    }

    /// The position behind the last segment that is stored for segment number `no` and all that follow it without a hole on `path`; `None` if `no` is missing.
    #[must_use]
    pub fn end_of_run(&self, path: &TimelinePath, no: u64) -> Option<(Lsn, &WalRun)> {
        let size = self.identity.wal_segment_size;
        let mut no = no;
        let mut end = None;
        // From run to run: the next segment may be on a newer timeline.
        while let Some(run) = path.candidates(no, size).find_map(|segment| self.wal.iter().find(|run| run.holds(segment))) {
            let fork = path.stretch(run.timeline).and_then(|stretch| stretch.end);
            let last = match fork.map(|at| (at, size.segment_no(at))) {
                // Nobody has the newer timeline's file of the segment in which it forks off, so that nothing leads on to it.
                Some((at, forked)) if forked == no => return Some((at, run)),
                // Up to that segment: there, the newer one's file comes first.
                Some((_, forked)) => run.last.min(forked - 1),
                None => run.last,
            };
            end = Some((size.start(last + 1), run));
            no = last + 1;
        }
        end
    }
}

/// What was read of each of several files, by their names.
type Each<K, T, E> = Result<Vec<(K, Result<T, E>)>, RepoError>;

/// The headers of all backups' manifests, by label.
fn headers(repository: &Repository, folder: &ClusterFolder) -> Each<String, Header, BackupError> {
    let names = repository.store().list_dir(&folder.backups())?;
    let labels: Vec<&str> = names.iter().map(|name| name.trim_end_matches('/')).collect();
    let read = |label: &&str| ((*label).to_owned(), read_header(repository, folder, label));
    Ok(parallel::map(parallel::MAX_REQUESTS, &labels, read))
}

/// All timeline history files.
fn histories(repository: &Repository, folder: &ClusterFolder) -> Each<Timeline, TimelinePath, HistoryError> {
    let names = repository.store().list_dir(&folder.histories())?;
    let digits = names.iter().filter_map(|name| name.strip_suffix(".history"));
    let timelines: Vec<Timeline> = digits.filter_map(|digits| u32::from_str_radix(digits, 16).ok()).map(Timeline).collect();
    let read = |timeline: &Timeline| (*timeline, read_history(repository, folder, *timeline));
    Ok(parallel::map(parallel::MAX_REQUESTS, &timelines, read))
}

/// The header of a backup's manifest.
fn read_header(repository: &Repository, folder: &ClusterFolder, label: &str) -> Result<Header, BackupError> {
    let object = repository.open_object(&folder.manifest(label), ObjectKind::Manifest)?;
    let mut bytes = object.read_main(0..object.main_len().min(HEADER_BYTES))?;
    if !bytes.contains(&b'\n') {
        bytes = object.read_main(0..object.main_len())?;
    }
    let header = Header::decode(&bytes)?;
    let is_it = header.label.as_str() == label && header.system_id == folder.system_id;
    is_it
        .then_some(())
        .ok_or_else(|| BackupError::Another { found: format!("{} of system identifier {}", header.label, header.system_id) })?;
    Ok(header)
}

/// Reads a timeline history file.
///
/// # Errors
/// [`HistoryError`].
fn read_history(repository: &Repository, folder: &ClusterFolder, timeline: Timeline) -> Result<TimelinePath, HistoryError> {
    let text = repository.read_object(&folder.history(timeline), ObjectKind::TimelineHistory)?;
    Ok(TimelinePath::parse(timeline, &String::from_utf8_lossy(&text))?)
}

/// All complete segments, as runs. Keys sort by timeline and number, so that one pass is enough.
fn wal_runs(repository: &Repository, folder: &ClusterFolder, size: SegmentSize) -> Result<Vec<WalRun>, RepoError> {
    let mut runs: Vec<WalRun> = Vec::new();
    repository.store().list(&folder.wal(), None, &mut |meta| {
        let Some(segment) = segment_of_key(&meta.key, size) else {
            return true;
        };
        match runs.last_mut().filter(|run| run.timeline == segment.timeline && run.last + 1 == segment.no) {
            Some(run) => {
                run.last = segment.no;
                run.stored_bytes += meta.size;
                run.archived = meta.modified;
            }
            None => runs.push(WalRun {
                timeline: segment.timeline,
                first: segment.no,
                last: segment.no,
                stored_bytes: meta.size,
                archived: meta.modified,
            }),
        }
        true
    })?;
    Ok(runs)
}

#[cfg(test)]
mod tests;
