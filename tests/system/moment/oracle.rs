//! Postgres itself recovers to a moment: what everything of ours is compared with.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bygone::archive::incarnation::read_control;
use bygone::pg::control::{ClusterState, ControlFile};
use bygone::pg::wal::effect::{Effect, effect};
use bygone::pg::wal::{Layout, Reader, Record, Rmgr, TimelinePath};
use bygone::pg::{Lsn, Major, SegmentSize, Timeline};
use bygone::repo::ObjectKind;
use bygone::repo::layout::segment_of_key;

use super::super::harness::repository::{TestRepository, folder, segment_size};
use super::super::harness::{Runner, TestCluster, World, wait_for, wait_until};
use super::super::wal_records::WalDir;

/// A backup and its WAL, unpacked once.
pub(super) struct Oracle<'a> {
    world: &'a World,
    cluster: &'a TestCluster,
    repository: &'a TestRepository,
    label: String,
    wal: PathBuf,
    size: SegmentSize,
}

/// A cluster that was recovered, promoted and stopped, and was never connected to.
pub(super) struct Recovered {
    pub(super) cluster: TestCluster,
    /// Where the new timeline begins.
    pub(super) stopped_at: Lsn,
    pub(super) control: ControlFile,
}

/// A recovery that has halted somewhere on its way, from where others go on: the same as from the backup, but for the time that it takes.
pub(super) struct Halt {
    data: PathBuf,
}

/// Settings of a server that recovers.
const STANDBY: [&str; 4] = ["autovacuum = off", "hot_standby = off", "max_prepared_transactions = 50", "allow_in_place_tablespaces = on"];

/// A position in the WAL worth looking at.
#[derive(Debug, Clone)]
pub(super) struct Notable {
    pub(super) start: Lsn,
    pub(super) end: Lsn,
    /// Are commit times kept from here on?
    pub(super) tracks_commit_times: Option<bool>,
    /// The oldest xid whose status is kept from here on, and its database.
    pub(super) oldest_status: Option<(u32, u32)>,
}

impl<'a> Oracle<'a> {
    /// Unpacks all archived segments and history files of the cluster, which must be running.
    pub(super) fn new(world: &'a World, cluster: &'a TestCluster, repository: &'a TestRepository, label: &str) -> Oracle<'a> {
        let (wal, size, folder, opened) = (world.dir("unpacked"), segment_size(cluster), folder(cluster), repository.open());
        let mut keys = Vec::new();
        opened
            .store()
            .list(&folder.wal(), None, &mut |meta| {
                keys.push(meta.key.clone());
                true
            })
            .expect("the repository can be listed");
        for (key, segment) in keys.iter().filter_map(|key| Some((key, segment_of_key(key, size)?))) {
            let object = opened.open_object(key, ObjectKind::WalSegment).expect("a segment");
            let bytes = object.read_main(0..object.main_len()).expect("its bytes");
            fs_err::write(wal.join(segment.name(size)), bytes).expect("a file of the test");
        }
        for name in opened.store().list_dir(&folder.histories()).expect("the repository can be listed") {
            let timeline = name.strip_suffix(".history").and_then(|hex| u32::from_str_radix(hex, 16).ok()).expect("a history file");
            let bytes = opened.read_object(&folder.history(Timeline(timeline)), ObjectKind::TimelineHistory).expect("a history file");
            fs_err::write(wal.join(name), bytes).expect("a file of the test");
        }
        Oracle { world, cluster, repository, label: label.to_owned(), wal, size }
    }

    /// The way to the newest timeline of the archive.
    pub(super) fn newest_path(&self) -> TimelinePath {
        let names = fs_err::read_dir(&self.wal).expect("a directory").map(|entry| entry.expect("an entry").file_name());
        let names = names.filter_map(|name| name.to_str()?.strip_suffix(".history").map(str::to_owned));
        let Some(newest) = names.max() else { return TimelinePath::single(Timeline(1)) };
        let text = fs_err::read_to_string(self.wal.join(format!("{newest}.history"))).expect("a history file");
        TimelinePath::parse(Timeline(u32::from_str_radix(&newest, 16).expect("hex digits")), &text).expect("a sound history")
    }

    /// Records from `from` on that do more than change pages, up to the end of the archive.
    pub(super) fn notable(&self, from: Lsn, path: TimelinePath) -> Vec<Notable> {
        let major = Major::from_number(self.cluster.major().into()).expect("known");
        let mut list = Vec::new();
        self.records(from, path, |record| {
            let ordinary = matches!(record.rmgr, Rmgr::STANDBY | Rmgr::TRANSACTION | Rmgr::LOGICAL_MESSAGE);
            let effect = effect(record, major).expect("known");
            if let Some(effect) =
                effect.filter(|e| !ordinary || matches!(e, Effect::Prepare(_)) || matches!(e, Effect::Finish(f) if f.prepared))
            {
                let tracks_commit_times = match effect {
                    Effect::Parameters(parameters) => Some(parameters.track_commit_timestamp),
                    _ => None,
                };
                let oldest_status = match effect {
                    Effect::TruncateXact { oldest_xid, database, .. } => Some((oldest_xid, database)),
                    _ => None,
                };
                list.push(Notable { start: record.lsn, end: record.end, tracks_commit_times, oldest_status });
            }
        });
        list
    }

    /// Xids that records only tell of, without being theirs, with where those end; `None` at a shutdown checkpoint, which says exactly what comes next.
    ///
    /// A standby goes by them (`ProcArrayApplyRecoveryInfo`, `ProcArrayApplyXidAssignment`), and so do we; recovery with `hot_standby = off` does not.
    pub(super) fn announced(&self, from: Lsn, path: TimelinePath) -> Vec<(Lsn, Option<u32>)> {
        let major = Major::from_number(self.cluster.major().into()).expect("known");
        let mut list = Vec::new();
        self.records(from, path, |record| match effect(record, major).expect("known") {
            Some(Effect::RunningXacts { next_xid, .. }) => list.push((record.end, Some(next_xid.wrapping_sub(1)))),
            Some(Effect::Assignment { subxids, .. }) => list.extend(subxids.iter().map(|xid| (record.end, Some(*xid)))),
            Some(Effect::Checkpoint { shutdown: true, .. }) => list.push((record.end, None)),
            _ => {}
        });
        list
    }

    /// Hands over every archived record from `from` on; returns where they end.
    pub(super) fn records(&self, from: Lsn, path: TimelinePath, mut each: impl FnMut(&Record<'_>)) -> Lsn {
        let major = Major::from_number(self.cluster.major().into()).expect("known");
        let layout = Layout { major, segment_size: self.size, system_id: None };
        let mut reader = Reader::at_record(WalDir::new(self.wal.clone(), self.size), layout, path, from);
        while let Some(raw) = reader.next().expect("readable") {
            each(&raw.decode(major).expect("decodes"));
        }
        reader.position()
    }

    /// Recovers from the backup to a target, given as lines of `postgresql.conf`, or gives the log of the server that could not.
    pub(super) fn try_recover(&self, target: &[&str]) -> Result<Recovered, String> {
        self.try_recover_from(&self.template(), target)
    }

    /// The same from where a halt stands, which is at most a checkpoint away from it.
    pub(super) fn try_recover_further(&self, halt: &Halt, target: &[&str]) -> Result<Recovered, String> {
        self.try_recover_from(&halt.data, target)
    }

    fn try_recover_from(&self, data: &Path, target: &[&str]) -> Result<Recovered, String> {
        let restored = self.restored(data, target);
        let started = restored.try_start();
        let state = || read_control(restored.data()).map(|control| control.state);
        // Asking a client would set hint bits, and with checksums log them: pages would be newer than the moment.
        let ended = wait_for("the end of recovery", Duration::from_secs(60), || match restored.is_running() {
            false => Some(false),
            true => matches!(state(), Ok(ClusterState::InProduction)).then_some(true),
        });
        if !ended {
            remove_cluster(restored.data());
            return Err(format!("{started}\n{}", restored.log_text()));
        }
        restored.stop();
        mend_unlogged_sequences(restored.data());
        Ok(self.recovered(restored))
    }

    /// A recovery that has not gone anywhere yet.
    pub(super) fn halt(&self) -> Halt {
        let data = self.world.join("halted");
        remove_cluster(&data);
        copy_cluster(&self.template(), &data);
        Halt { data }
    }

    /// Lets a halted recovery go on to just before `lsn` on the way to a timeline, and halt there. What it has replayed since the last checkpoint is lost again.
    ///
    /// Gives nothing if it ended in another way: its files may then be newer than where it would go on, and a database that is copied anew from one of
    /// them (`dbase_redo`) gets pages that it never had.
    pub(super) fn advance(&self, halt: Halt, lsn: Lsn, timeline: &str) -> Option<Halt> {
        drop(fs_err::remove_file(self.world.join("halted.log")));
        let cluster = TestCluster::existing(self.world, self.cluster.major(), "halted", &halt.data);
        cluster.configure(&STANDBY);
        cluster.configure(&[
            &format!("recovery_target_lsn = '{lsn}'"),
            "recovery_target_inclusive = off",
            &format!("recovery_target_timeline = '{timeline}'"),
            "recovery_target_action = shutdown",
        ]);
        let started = cluster.try_start();
        wait_until("recovery to halt", Duration::from_secs(60), || !cluster.is_running());
        let state = read_control(&halt.data).expect("pg_control of the halted recovery").state;
        let halted = state == ClusterState::ShutDownInRecovery;
        if !halted {
            eprintln!("recovery did not halt before {lsn}, {state:?}: {started}\n{}", cluster.log_text());
        }
        halted.then_some(halt)
    }

    /// The backup's files, ready for recovery.
    fn template(&self) -> PathBuf {
        let template = self.world.join("template");
        if !template.exists() {
            let command = format!("cp {}/%f %p", self.wal.display());
            self.repository.restore(self.world, self.cluster, &self.label, "template", &command);
        }
        template
    }

    fn restored(&self, from: &Path, target: &[&str]) -> TestCluster {
        drop(fs_err::remove_file(self.world.join("native.log")));
        let data = self.world.join("native");
        copy_cluster(from, &data);
        let restored = TestCluster::existing(self.world, self.cluster.major(), "native", &data);
        restored.configure(&STANDBY);
        restored.configure(&["recovery_target_action = promote"]);
        restored.configure(target);
        restored
    }

    fn recovered(&self, cluster: TestCluster) -> Recovered {
        let control = read_control(cluster.data()).expect("pg_control of the recovered cluster");
        let history = cluster.wal_dir().join(format!("{:08X}.history", control.checkpoint.timeline));
        let text = fs_err::read_to_string(history).expect("history of the new timeline");
        let last = text.lines().rfind(|line| !line.is_empty()).expect("a line");
        let stopped_at = last.split_whitespace().nth(1).expect("a position").parse().expect("a position");
        Recovered { cluster, stopped_at, control }
    }

    pub(super) fn size(&self) -> SegmentSize {
        self.size
    }

    /// A position as Postgres and we both write it: behind a page header rather than before it.
    pub(super) fn behind_header(&self, lsn: Lsn) -> Lsn {
        let header = match (self.size.offset(lsn), lsn.0 % 8192) {
            (0, _) => 40,
            (_, 0) => 24,
            _ => 0,
        };
        Lsn(lsn.0 + header)
    }
}

/// Copies a data directory with its tablespaces, which lie beside it.
fn copy_cluster(from: &Path, to: &Path) {
    copy(from, to);
    for oid in tablespaces(to) {
        copy(&from.with_extension(&oid), &to.with_extension(&oid));
        let link = to.join("pg_tblspc").join(&oid);
        fs_err::remove_file(&link).expect("a link");
        fs_err::os::unix::fs::symlink(to.with_extension(&oid), link).expect("a link");
    }
}

fn copy(from: &Path, to: &Path) {
    Runner::new("cp").by_root().arg("-a").arg(from).arg(to).ok();
}

/// Oids of the tablespaces that lie elsewhere.
fn tablespaces(data: &Path) -> Vec<String> {
    let entries = fs_err::read_dir(data.join("pg_tblspc")).expect("pg_tblspc").map(|entry| entry.expect("an entry"));
    entries.filter(|entry| entry.path().is_symlink()).map(|entry| entry.file_name().into_string().expect("digits")).collect()
}

/// Until mid-2026 recovery made an unlogged sequence from the file of its init fork before that was written: zeroes, on which the sequence is broken.
/// Later minor releases write it first (`XLogFlushBufferForRedoIfInit`).
pub(super) fn mend_unlogged_sequences(dir: &Path) {
    for entry in fs_err::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry")) {
        let path = entry.path();
        if path.is_dir() {
            mend_unlogged_sequences(&path);
        }
        let Some(main) = path.to_str().and_then(|path| path.strip_suffix("_init")) else { continue };
        let (is, should_be) = (fs_err::read(main).expect("the main fork"), fs_err::read(&path).expect("the init fork"));
        if is.len() == should_be.len() && is.iter().all(|byte| *byte == 0) {
            fs_err::write(main, should_be).expect("the main fork can be written");
        }
    }
}

/// Removes a data directory, if it is there, and the tablespaces beside it: those that it had at first, and may have dropped since.
fn remove_cluster(data: &Path) {
    let name = data.file_name().and_then(|name| name.to_str()).expect("a name");
    for entry in fs_err::read_dir(data.parent().expect("a world")).expect("a world").map(|entry| entry.expect("an entry")) {
        let file_name = entry.file_name();
        let rest = file_name.to_str().and_then(|found| found.strip_prefix(name));
        if rest.is_some_and(|rest| rest.is_empty() || rest.strip_prefix('.').is_some_and(|oid| oid.parse::<u32>().is_ok())) {
            fs_err::remove_dir_all(entry.path()).expect("a directory of the test can be removed");
        }
    }
}

impl Drop for Recovered {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            remove_cluster(self.cluster.data());
        }
    }
}
