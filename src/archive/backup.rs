//! Takes a full backup of a running cluster into one or several repositories, from one reading of its files.
//!
//! From: `cli::backup`.  To: `data/<n>` objects, then the manifest, written last: before it the backup does not exist.
//! In: [`Request`].  Out: [`Report`].
//!
//! ```text
//! lock -> tidy up -> pg_backup_start -> scan -> plan -> copy (threads) -> pg_control -> pg_backup_stop -> wait for WAL -> manifest
//! ```
//!
//! Whatever ends it early leaves nothing behind that `info` would show: the server ends the backup by itself when our session goes, objects without
//! a manifest are removed by us or by the next backup. Knows nothing of what the files hold but pages and `pg_control`.

mod clean;
mod copy;
mod error;
mod exclude;
mod plan;
mod read;
mod scan;
pub mod session;
mod target;
mod wal;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;

pub use error::BackupError;

use crate::archive::incarnation::{self, Identity};
use crate::archive::watch::{Phase, Watch};
use crate::pg::BlockNo;
use crate::repo::label::BackupLabel;
use crate::repo::layout::ClusterFolder;
use crate::repo::lock::{self, Lock, LockError};
use crate::repo::manifest::{BackupKind, EntryKind, FileData, Header, Manifest, Options, Place, Tablespace};
use crate::repo::{ObjectKind, Repository, marker};
use copy::{Copied, Copier};
use exclude::Rules;
use scan::Found;
use session::{Session, Started, Stopped};
use target::{Sinks, Target};

/// What to back up, and how.
pub struct Request<'a> {
    /// The cluster's configured name.
    pub cluster: &'a str,
    /// libpq connection string.
    pub connection: &'a str,
    pub data_directory: &'a Path,
    /// All that shall hold the backup. At least one.
    pub repositories: &'a [&'a Repository],
    /// Checkpoint at once.
    pub fast: bool,
    /// Threads that copy.
    pub threads: usize,
    /// How long to wait for each WAL segment at the end.
    pub archive_timeout: Duration,
    /// Set from outside to end it early.
    pub stop: &'a AtomicBool,
    pub watch: &'a dyn Watch,
}

/// What was achieved.
#[derive(Debug)]
pub struct Report {
    /// As stored in the first repository that holds it.
    pub header: Header,
    /// The repositories that hold the backup.
    pub stored_in: Vec<String>,
    /// Those that should and do not.
    pub failed: Vec<(String, BackupError)>,
}

/// The repositories that take part, with the cluster's folder in each.
type Folders<'r> = Vec<(&'r Repository, ClusterFolder)>;

impl Request<'_> {
    /// Takes the backup.
    ///
    /// # Errors
    /// [`BackupError`], if no repository holds it afterwards. Where some do, [`Report::failed`] names the others.
    pub fn run(&self) -> Result<Report, BackupError> {
        self.watch.phase(Phase::Preparing);
        let mut session = Session::connect(self.connection)?;
        self.check_directory(&session)?;
        let identity = Identity { major: session.facts.major, system_id: session.facts.system_id };
        let mut folders = Vec::new();
        let mut failed = Vec::new();
        for repository in self.repositories {
            match incarnation::find(repository, self.cluster, identity) {
                Ok(folder) => folders.push((*repository, folder)),
                Err(e) if self.repositories.len() > 1 => failed.push((repository.store().describe(), e.into())),
                Err(e) => return Err(e.into()),
            }
        }
        if folders.is_empty() {
            return Err(failed.into_iter().next().map_or(BackupError::NoRepositoryLeft, |(_, e)| e));
        }
        let (locks, label) = self.lock_and_name(&mut folders, &mut failed)?;
        let targets: Vec<Target<'_>> = folders.iter().map(|(r, folder)| Target::new(r, folder, label.clone())).collect();
        let done = self.copy_and_finish(&mut session, &targets, &label, &locks);
        if done.is_err() {
            remove_traces(&targets);
        }
        let mut report = done.map_err(|e| explain(e, &targets))?;
        report.failed.extend(failed);
        Ok(report)
    }

    /// Is this the directory of the server that we talk to, and may it be backed up?
    fn check_directory(&self, session: &Session) -> Result<(), BackupError> {
        if marker::is_clone(self.data_directory) {
            return Err(BackupError::IsClone { data_directory: self.data_directory.to_owned() });
        }
        let facts = &session.facts;
        let control = incarnation::read_control(self.data_directory)?;
        if control.system_id != facts.system_id {
            return Err(BackupError::OtherServer {
                data_directory: self.data_directory.to_owned(),
                what: format!("its system identifier is {}, the server's is {}", control.system_id, facts.system_id),
            });
        }
        // A restored copy has the same identifier: postmaster.pid says which server runs in here (directory and port as that server sees them).
        let running = fs_err::read_to_string(self.data_directory.join("postmaster.pid")).unwrap_or_default();
        let mut lines = running.lines().skip(1);
        let (directory, _started, port) = (lines.next().unwrap_or_default(), lines.next(), lines.next().unwrap_or_default());
        if Path::new(directory) != facts.data_directory || port.trim() != facts.port.to_string() {
            let what = format!(
                "postmaster.pid names {directory:?} port {port:?}, the server runs in {:?} on port {}",
                facts.data_directory, facts.port
            );
            return Err(BackupError::OtherServer { data_directory: self.data_directory.to_owned(), what });
        }
        if facts.archive_mode == "off" {
            return Err(BackupError::ArchivingOff);
        }
        Ok(())
    }

    /// Takes the lock of every repository, removes what earlier backups left there, and picks a label that is free. A repository that cannot be worked
    /// on is left out; one in which another backup is under way ends it all.
    fn lock_and_name(
        &self,
        folders: &mut Folders<'_>,
        failed: &mut Vec<(String, BackupError)>,
    ) -> Result<(Vec<Lock>, BackupLabel), BackupError> {
        let mut locks = Vec::new();
        for (repository, folder) in std::mem::take(folders) {
            match self.lock_and_tidy(repository, &folder) {
                Ok(lock) => {
                    locks.push(lock);
                    folders.push((repository, folder));
                }
                Err(held @ BackupError::Lock(LockError::Held { .. })) => return Err(held),
                Err(error) => failed.push((repository.store().describe(), error)),
            }
        }
        if folders.is_empty() {
            return Err(failed.pop().map_or(BackupError::NoRepositoryLeft, |(_, error)| error));
        }
        loop {
            let label = BackupLabel::full(Timestamp::now());
            let taken = |(r, folder): &(&Repository, ClusterFolder)| r.has_object(&folder.manifest(label.as_str()));
            if !folders.iter().map(taken).collect::<Result<Vec<_>, _>>()?.contains(&true) {
                return Ok((locks, label));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn lock_and_tidy(&self, repository: &Repository, folder: &ClusterFolder) -> Result<Lock, BackupError> {
        let lock = lock::acquire(repository.store(), &folder.lock("backup"), "backup")?;
        let removed = clean::remove_unfinished(repository, folder)?;
        if removed > 0 {
            self.watch.warn(&format!("{removed} objects of an interrupted backup were removed from {}", repository.store().describe()));
        }
        Ok(lock)
    }

    fn copy_and_finish(
        &self,
        session: &mut Session,
        targets: &[Target<'_>],
        label: &BackupLabel,
        locks: &[Lock],
    ) -> Result<Report, BackupError> {
        let start_time = Timestamp::now();
        self.watch.phase(Phase::Checkpoint);
        let started = session.start_backup(&format!("bygone {label}"), self.fast, self.stop)?;
        self.check_stop()?;
        let copied = self.copy(session, targets)?;
        let stopped = session.stop_backup()?;
        let stop_time = Timestamp::now();
        self.wait_for_wal(session, targets, started, &stopped)?;
        self.watch.phase(Phase::Finishing);
        if locks.iter().any(Lock::is_lost) {
            // Another backup took us for dead, and may have removed our objects.
            return Err(BackupError::LockLost);
        }
        let mut manifest = self.manifest(session, label, &copied, started, &stopped)?;
        (manifest.header.start_time, manifest.header.stop_time) = (start_time, stop_time);
        self.place(manifest, copied, started, &stopped, targets)
    }

    fn check_stop(&self) -> Result<(), BackupError> {
        if self.stop.load(Ordering::Relaxed) { Err(BackupError::Interrupted) } else { Ok(()) }
    }

    /// Copies everything, `pg_control` last: on it depends where replay must get to.
    fn copy(&self, session: &mut Session, targets: &[Target<'_>]) -> Result<Copy, BackupError> {
        let facts = session.facts.clone();
        let rules = Rules::new(facts.log_directory.as_deref(), facts.stats_temp_directory.as_deref());
        let ask =
            scan::Ask { data_directory: self.data_directory, rules: &rules, major: facts.major, catalog_version: facts.catalog_version };
        let mut found = scan::scan(&ask)?;
        let files = std::mem::take(&mut found.files);
        let bytes = files.iter().map(|f| f.size).sum();
        self.watch.phase(Phase::Copying { bytes, files: files.len() as u64 });
        let jobs = plan::plan(files, self.threads);
        let copier = Copier::new(self.data_directory, facts.checksums, targets, self.stop, self.watch);
        let mut done = copier.run(&jobs, self.threads, &mut || Ok(session.ping()?))?;
        let unlogged = scan::Unlogged::look(self.data_directory, done.iter().map(|copied| copied.entry.path.as_path()))?;
        done.retain(|copied| !unlogged.has(&copied.entry.path));
        done.push(self.copy_control(targets, &copier)?);
        Ok(Copy { found, done, objects: copier.objects() })
    }

    fn copy_control(&self, targets: &[Target<'_>], copier: &Copier<'_>) -> Result<Copied, BackupError> {
        let file = scan::control_file(self.data_directory)?;
        let (_, bytes) = incarnation::read_control_bytes(self.data_directory)?;
        let mut sinks = Sinks::new(targets, copier.numbers());
        let place: Place = sinks.begin_file(1)?;
        sinks.write(&bytes)?;
        sinks.finish()?;
        let contents = read::Contents { size: bytes.len() as u64, crc32c: crc32c::crc32c(&bytes), suspects: Vec::new() };
        Ok(copy::copied(&file, contents, Some(place)))
    }

    fn wait_for_wal(&self, session: &mut Session, targets: &[Target<'_>], started: Started, stopped: &Stopped) -> Result<(), BackupError> {
        wal::archive_history(stopped.timeline, self.data_directory, targets, self.watch);
        let size = session.facts.segment_size;
        let needed = wal::Needed { timeline: stopped.timeline, start: started.lsn, stop: stopped.lsn, size };
        wal::wait(needed, targets, self.archive_timeout, session, self.stop, self.watch)
    }

    /// The manifest without its files.
    fn manifest(
        &self,
        session: &Session,
        label: &BackupLabel,
        copy: &Copy,
        started: Started,
        stopped: &Stopped,
    ) -> Result<Manifest, BackupError> {
        let facts = &session.facts;
        let (data_directory_mode, owner) = scan::data_directory(self.data_directory)?;
        let name = |oid: u32| facts.tablespaces.iter().find(|t| t.0 == oid).map_or_else(|| oid.to_string(), |t| t.1.clone());
        let tablespaces = copy.found.tablespaces.iter();
        let header = Header {
            label: label.clone(),
            kind: BackupKind::Full,
            cluster: self.cluster.to_owned(),
            system_id: facts.system_id,
            major: facts.major,
            server_version_num: facts.server_version_num,
            control_version: facts.control_version,
            catalog_version: facts.catalog_version,
            segment_size: facts.segment_size,
            checksums: facts.checksums,
            timeline: stopped.timeline,
            start_lsn: started.lsn,
            stop_lsn: stopped.lsn,
            checkpoint_lsn: stopped.checkpoint_lsn,
            start_time: Timestamp::UNIX_EPOCH,
            stop_time: Timestamp::UNIX_EPOCH,
            backup_label: stopped.backup_label.clone(),
            tablespace_map: stopped.tablespace_map.clone(),
            tablespaces: tablespaces
                .map(|(oid, path, in_place)| Tablespace { oid: *oid, name: name(*oid), path: path.clone(), in_place: *in_place })
                .collect(),
            data_directory: self.data_directory.to_owned(),
            data_directory_mode,
            owner,
            host: host_name(),
            database_bytes: 0,
            stored_bytes: 0,
            bad_pages: 0,
            options: Options {
                fast_checkpoint: self.fast,
                processes: u32::try_from(self.threads).unwrap_or(u32::MAX),
                page_checksums_verified: facts.checksums,
            },
            objects: copy.objects,
            warnings: copy.found.warnings.clone(),
            taken_by: env!("CARGO_PKG_VERSION").to_owned(),
        };
        Ok(Manifest { header, entries: copy.found.entries.clone() })
    }

    /// Completes the manifest and writes it: now the backup exists.
    fn place(
        &self,
        mut manifest: Manifest,
        copy: Copy,
        started: Started,
        stopped: &Stopped,
        targets: &[Target<'_>],
    ) -> Result<Report, BackupError> {
        for mut copied in copy.done {
            if let EntryKind::File(data) = &mut copied.entry.kind {
                let bad = copied.suspects.iter().filter(|s| s.is_bad(started.lsn, stopped.lsn));
                data.bad_pages = bad.map(|s| s.block).collect();
                manifest.header.database_bytes += data.size;
                note_bad_pages(&mut manifest.header, &copied.entry.path, data);
            }
            manifest.entries.push(copied.entry);
        }
        for warning in &manifest.header.warnings {
            self.watch.warn(warning);
        }
        let usual = &manifest.header.owner;
        for entry in manifest.entries.iter_mut().filter(|e| e.owner.as_ref() == Some(usual)) {
            entry.owner = None;
        }
        manifest.sort();
        let mut stored_in: Vec<(String, u64)> = Vec::new();
        for target in targets.iter().filter(|t| !t.has_failed()) {
            manifest.header.stored_bytes = target.stored_bytes();
            let key = target.folder.manifest(manifest.header.label.as_str());
            self.check_stop()?;
            match target.repository.put_object(&key, ObjectKind::Manifest, &manifest.encode(), None) {
                Ok(_) => stored_in.push((target.describe(), target.stored_bytes())),
                Err(e) => target.fail(e),
            }
        }
        let Some((_, stored_bytes)) = stored_in.first() else { return Err(BackupError::NoRepositoryLeft) };
        manifest.header.stored_bytes = *stored_bytes;
        let failed = targets.iter().filter_map(|t| Some((t.describe(), t.take_failure()?))).collect();
        Ok(Report { header: manifest.header, stored_in: stored_in.into_iter().map(|(name, _)| name).collect(), failed })
    }
}

fn host_name() -> String {
    fs_err::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned()).unwrap_or_default()
}

/// What copying came to.
struct Copy {
    found: Found,
    done: Vec<Copied>,
    objects: u32,
}

fn note_bad_pages(header: &mut Header, path: &Path, data: &FileData) {
    if data.bad_pages.is_empty() {
        return;
    }
    header.bad_pages += data.bad_pages.len() as u64;
    let list = |blocks: &[BlockNo]| blocks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let shown = data.bad_pages.get(..10).unwrap_or(&data.bad_pages);
    let more = if shown.len() < data.bad_pages.len() { format!(" and {} more", data.bad_pages.len() - shown.len()) } else { String::new() };
    header.warnings.push(format!("{} has pages with wrong checksums: block {}{more}", path.display(), list(shown)));
}

/// Removes what an unsuccessful backup has written. The next backup would do so too.
fn remove_traces(targets: &[Target<'_>]) {
    for target in targets {
        if let Err(error) = clean::remove(target.repository, &target.folder.backup(target.label.as_str())) {
            tracing::warn!(%error, repository = %target.describe(), "objects of the interrupted backup stay until the next backup");
        }
    }
}

/// Where no repository is left, the reason of the first stands for all.
fn explain(error: BackupError, targets: &[Target<'_>]) -> BackupError {
    match error {
        BackupError::NoRepositoryLeft => targets.iter().find_map(Target::take_failure).unwrap_or(error),
        other => other,
    }
}
