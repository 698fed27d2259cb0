//! Completes the block indexes of a cluster in one repository: of segments that were stored without one, then roll-ups of runs.
//!
//! From: `cli::index`, and `cli::backup` when a backup is done; `push`, with every 64th segment.  To: `block_index`, `format::index` (merge), objects
//! below `index/`.
//! All of it is made from the WAL and may be deleted at any time. A roll-up covers [`TIERS`] segments, begins at a multiple of that, and is never
//! changed; segments in one are not looked at again.
//! Memory: what it takes to build one index, or 64 opened indexes.

use std::collections::BTreeSet;

use thiserror::Error;

use crate::advice::Advice;
use crate::archive::block_index::{self, Archived};
use crate::format::index::{Index, IndexError, Subject, merge};
use crate::parallel;
use crate::pg::wal::Layout;
use crate::pg::{SegmentSize, Timeline, WalSegment};
use crate::repo::catalog::{Catalog, WalRun};
use crate::repo::indexes::{IndexSource, Indexes, StoredIndex, is_complete};
use crate::repo::layout::{ClusterFolder, SegmentRun};
use crate::repo::lock::{self, LockError};
use crate::repo::{ObjectKind, ObjectSummary, RepoError, Repository, is_taken};

/// Segments in a roll-up, the smaller first. The larger is merged from the smaller.
pub const TIERS: [u64; 2] = [64, 4096];

/// Why indexes cannot be completed.
#[derive(Debug, Error)]
pub enum IndexingError {
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Repo(#[from] RepoError),
    #[error("the indexes of segments {first} to {last} cannot be merged")]
    Merge {
        first: String,
        last: String,
        #[source]
        source: Box<IndexError<RepoError>>,
    },
}

impl Advice for IndexingError {
    fn detail(&self) -> Option<String> {
        match self {
            IndexingError::Lock(e) => e.detail(),
            IndexingError::Repo(e) => e.detail(),
            IndexingError::Merge { source, .. } => match &**source {
                IndexError::Read(e) => e.detail(),
                IndexError::Bad(_) => None,
            },
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            IndexingError::Lock(e) => e.hint(),
            IndexingError::Repo(e) => e.hint(),
            IndexingError::Merge { source, .. } => match &**source {
                IndexError::Read(e) => e.hint(),
                IndexError::Bad(_) => Some("`bygone index --rebuild` makes all indexes anew.".to_owned()),
            },
        }
    }
}

/// What was done.
#[derive(Debug, Default)]
pub struct Report {
    /// Segments that got an index.
    pub indexed: u64,
    /// Segments that have none still, and why: views read them record by record.
    pub without: Vec<(String, String)>,
    /// Roll-ups made.
    pub rollups: u64,
    /// Bytes that all of these take in the store.
    pub stored_bytes: u64,
    /// Objects removed, to be made anew.
    pub removed: u64,
}

/// Completes the indexes of one cluster's folder. With `rebuild`, removes what was made before, first.
///
/// # Errors
/// [`IndexingError`]. A segment that cannot be indexed is no error.
pub fn complete(repository: &Repository, folder: &ClusterFolder, rebuild: bool) -> Result<Report, IndexingError> {
    let _lock = lock::acquire(repository.store(), &folder.lock("index"), "indexing of WAL")?;
    let mut report = Report::default();
    if rebuild {
        report.removed = remove(repository, folder)?;
    }
    let catalog = Catalog::read(repository, folder)?;
    let indexes = Indexes::list(repository, folder, catalog.identity.wal_segment_size)?;
    let known = indexes.rollups().collect();
    let mut work = Work { repository, folder, catalog: &catalog, indexes, known, report };
    for run in &catalog.wal {
        work.segments(run)?;
        for longer in TIERS {
            work.rollups(run, longer)?;
        }
    }
    Ok(work.report)
}

/// Makes the smaller roll-up that ends with `segment`, if one does and every segment has its index in its object. `true` if it was made.
///
/// Cost: one request where there is nothing to do; else a read of each segment's end, 16 at a time.
///
/// # Errors
/// [`IndexingError`]. There is no harm in it: [`complete`] makes what is missing.
pub fn roll_up_to(repository: &Repository, folder: &ClusterFolder, size: SegmentSize, segment: WalSegment) -> Result<bool, IndexingError> {
    let wanted = around(segment.timeline, segment.no, TIERS[0]);
    if segment.no != wanted.last || repository.has_object(&folder.rollup(wanted, size))? {
        return Ok(false);
    }
    let indexes = Indexes::unlisted(folder, size);
    let numbers: Vec<u64> = (wanted.first..=wanted.last).collect();
    let open = |no: &u64| indexes.of_segment(repository, WalSegment { no: *no, ..segment });
    let parts: Result<Option<Vec<StoredIndex>>, RepoError> = parallel::map(parallel::MAX_REQUESTS, &numbers, open).into_iter().collect();
    let Some(parts) = parts? else { return Ok(false) };
    Ok(merge_to(repository, folder, size, wanted, &parts)?.is_some())
}

/// The roll-up of `longer` segments that holds segment `no`.
fn around(timeline: Timeline, no: u64, longer: u64) -> SegmentRun {
    let first = no - no % longer;
    SegmentRun { timeline, first, last: first + longer - 1 }
}

/// Stores what the indexes of a run come to; `None` if somebody else was faster.
fn merge_to(
    repository: &Repository,
    folder: &ClusterFolder,
    size: SegmentSize,
    wanted: SegmentRun,
    parts: &[StoredIndex],
) -> Result<Option<ObjectSummary>, IndexingError> {
    let mut writer = repository.writer(&folder.rollup(wanted, size), ObjectKind::WalIndex)?;
    let name = |no| WalSegment { timeline: wanted.timeline, no }.name(size);
    merge(parts, &mut |bytes| writer.write(bytes)).map_err(|source| IndexingError::Merge {
        first: name(wanted.first),
        last: name(wanted.last),
        source: Box::new(source),
    })?;
    match writer.finish() {
        Ok(stored) => Ok(Some(stored)),
        Err(error) if is_taken(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn remove(repository: &Repository, folder: &ClusterFolder) -> Result<u64, RepoError> {
    let mut keys = Vec::new();
    repository.store().list(&folder.index(), None, &mut |meta| {
        keys.push(meta.key);
        true
    })?;
    for key in &keys {
        repository.store().delete(key)?;
    }
    Ok(keys.len() as u64)
}

/// Does an index hold every record that ends in its segment?
fn holds_all(index: &[u8]) -> bool {
    Index::open(IndexSource::Memory(index.to_vec())).is_ok_and(|index| is_complete(&index))
}

struct Work<'a> {
    repository: &'a Repository,
    folder: &'a ClusterFolder,
    catalog: &'a Catalog,
    indexes: Indexes,
    /// Roll-ups that there are.
    known: BTreeSet<SegmentRun>,
    report: Report,
}

impl Work<'_> {
    fn size(&self) -> SegmentSize {
        self.catalog.identity.wal_segment_size
    }

    /// Gives an index to each segment of a run that has none.
    fn segments(&mut self, run: &WalRun) -> Result<(), IndexingError> {
        for no in run.first..=run.last {
            let segment = WalSegment { timeline: run.timeline, no };
            if self.known.contains(&around(run.timeline, no, TIERS[0])) || self.indexes.of_segment(self.repository, segment)?.is_some() {
                continue;
            }
            match self.build(segment)? {
                // What reaches into the first one begins in a segment that is not there.
                Ok(index) if no == run.first && !holds_all(&index) => {}
                Ok(index) if !holds_all(&index) => {
                    let why = "the record that reaches into it has no beginning in the segment before".to_owned();
                    self.report.without.push((segment.name(self.size()), why));
                }
                Ok(index) => {
                    let key = self.folder.segment_index(segment, self.size());
                    // One that cannot be used may stand there.
                    self.repository.store().delete(&key).map_err(RepoError::from)?;
                    self.report.stored_bytes += self.repository.put_object(&key, ObjectKind::WalIndex, &index, None)?.stored_len;
                    self.report.indexed += 1;
                }
                Err(why) => self.report.without.push((segment.name(self.size()), why)),
            }
        }
        self.indexes = Indexes::list(self.repository, self.folder, self.size())?;
        Ok(())
    }

    fn build(&self, segment: WalSegment) -> Result<Result<Vec<u8>, String>, RepoError> {
        let identity = &self.catalog.identity;
        let layout = Layout { major: identity.major, segment_size: self.size(), system_id: Some(identity.system_id) };
        let mut wal = Archived { repository: self.repository, folder: self.folder, size: self.size() };
        // Whether the cluster kept commit times then is not known.
        match block_index::build(Subject { layout, segment, commit_times: true }, &mut wal) {
            Ok(built) => Ok(built.map_err(|error| error.to_string())),
            Err(error) if error.is_damage() => Ok(Err(error.to_string())),
            Err(error) => Err(error),
        }
    }

    /// Makes the roll-ups of `longer` segments that lie in a run and are not there.
    fn rollups(&mut self, run: &WalRun, longer: u64) -> Result<(), IndexingError> {
        let mut no = run.first.next_multiple_of(longer);
        while no + longer - 1 <= run.last {
            let wanted = around(run.timeline, no, longer);
            if !self.known.contains(&wanted)
                && let Some(parts) = self.parts(wanted)?
            {
                self.merge(wanted, &parts)?;
            }
            no += longer;
        }
        Ok(())
    }

    /// The indexes that a roll-up is merged from; `None` if one is missing.
    fn parts(&self, wanted: SegmentRun) -> Result<Option<Vec<StoredIndex>>, RepoError> {
        let numbers = wanted.first..=wanted.last;
        if wanted.count() == TIERS[0] {
            return numbers.map(|no| self.indexes.of_segment(self.repository, WalSegment { timeline: wanted.timeline, no })).collect();
        }
        let smaller = usize::try_from(TIERS[0]).unwrap_or(usize::MAX);
        let parts = numbers.step_by(smaller).map(|no| around(wanted.timeline, no, TIERS[0]));
        parts.map(|part| if self.known.contains(&part) { self.indexes.rollup(self.repository, part) } else { Ok(None) }).collect()
    }

    fn merge(&mut self, wanted: SegmentRun, parts: &[StoredIndex]) -> Result<(), IndexingError> {
        if let Some(stored) = merge_to(self.repository, self.folder, self.size(), wanted, parts)? {
            self.report.stored_bytes += stored.stored_len;
            self.report.rollups += 1;
        }
        self.known.insert(wanted);
        // The next tier is merged from it.
        self.indexes.add(wanted);
        Ok(())
    }
}
