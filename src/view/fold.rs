//! The whole cluster at a moment, except its pages: what all records since the backup's redo point add up to.
//!
//! From: `view::moment`, which hands over the effects of records in WAL order.  To: the tree, the SLRUs, the crafted checkpoint.
//! In: the state of the backup's checkpoint, then effects and block lengths.  Out: [`Cluster`].
//! Follows the `*_redo` routines of xlog.c, xact.c, multixact.c, commit_ts.c, dbcommands.c, tablespace.c, relmapper.c (14 to 18).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::pg::checkpoint::Checkpoint;
use crate::pg::control::ControlSettings;
use crate::pg::wal::effect::{DatabaseDir, Effect, MultiTruncation, Parameters};
use crate::pg::wal::xact::{Finish, Prepare};
use crate::pg::{Lsn, Timeline};
use crate::view::file_class::Slru;
use crate::view::relations::Relations;
use crate::view::slru::{BasePages, Slrus, XactStatus, page_of};

/// Transaction ids below this are special (`FirstNormalTransactionId`).
const FIRST_NORMAL_XID: u32 = 3;

/// `WAL_LEVEL_MINIMAL` (xlog.h).
const WAL_LEVEL_MINIMAL: i32 = 0;

/// Origins whose progress is not kept (`InvalidRepOriginId`, `DoNotReplicateId`).
const NO_ORIGIN: [u16; 2] = [0, u16::MAX];

/// Where `pg_filenode.map` of a database directory comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MapSource {
    /// The backup's copy in this directory.
    Copied(DatabaseDir),
    /// A record has all of it.
    Logged(Arc<[u8]>),
}

/// The state of a prepared transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TwoPhase {
    /// The file is in the backup.
    Copied,
    /// The file is this, and its CRC.
    Logged(Vec<u8>),
}

/// Where a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    pub lsn: Lsn,
    pub end: Lsn,
    /// 0 if it has none.
    pub xid: u32,
}

/// The cluster so far.
#[derive(Debug)]
pub struct Cluster<B> {
    pub relations: Relations,
    pub slrus: Slrus<B>,
    /// Database directories, `global` not among them.
    pub databases: BTreeSet<DatabaseDir>,
    /// Those of them that hold a `PG_VERSION`: each database's own, but not the ones that single relations of it have in other tablespaces.
    pub homes: BTreeSet<DatabaseDir>,
    pub maps: HashMap<DatabaseDir, MapSource>,
    pub tablespaces: BTreeSet<u32>,
    /// By xid.
    pub prepared: BTreeMap<u32, TwoPhase>,
    /// What a checkpoint taken now would say (its position aside).
    pub counters: Checkpoint,
    pub settings: ControlSettings,
    /// Replication origins and how far each has come.
    pub origins: BTreeMap<u16, Lsn>,
    /// Where `wal_level` was first set to `minimal`: what changed from there on is not all in the WAL.
    pub logged_minimally: Option<Lsn>,
}

impl<B: BasePages> Cluster<B> {
    /// Takes one record's effect in.
    ///
    /// # Errors
    /// Those of the copied SLRU pages.
    pub fn apply(&mut self, at: At, effect: &Effect) -> Result<(), B::Error> {
        match effect {
            Effect::Finish(finish) => self.finish(at, finish)?,
            Effect::Prepare(prepare) => self.prepare(prepare),
            Effect::Assignment { subxids, .. } => subxids.iter().for_each(|xid| self.saw_xid(*xid)),
            Effect::Checkpoint { shutdown, checkpoint } => self.checkpoint(*shutdown, checkpoint),
            Effect::CheckpointRedo { wal_level } | Effect::EndOfRecovery { wal_level, .. } => {
                self.counters.wal_level = wal_level.or(self.counters.wal_level);
                if let Effect::EndOfRecovery { timeline, .. } = effect {
                    self.counters.timeline = *timeline;
                }
            }
            Effect::NextOid(oid) => self.counters.next_oid = *oid,
            Effect::Parameters(parameters) => self.parameters(at, parameters),
            Effect::FullPageWrites(on) => self.counters.full_page_writes = *on,
            Effect::CreateFork { rel, fork } => self.relations.create(*rel, *fork),
            Effect::Truncate { rel, blocks, main, vm, .. } => self.relations.truncate(*rel, at.end, *blocks, *main, *vm),
            Effect::ZeroXactPage(page) => self.slrus.zero_page(Slru::Xact, *page),
            Effect::TruncateXact { page, oldest_xid, database } => {
                self.advance_oldest_xid(*oldest_xid, *database);
                self.slrus.truncate_before(Slru::Xact, *page);
            }
            Effect::ZeroMultiOffsetsPage(page) => self.slrus.zero_page(Slru::MultiXactOffsets, *page),
            Effect::ZeroMultiMembersPage(page) => self.slrus.zero_page(Slru::MultiXactMembers, *page),
            Effect::CreateMulti { multi, offset, members } => {
                let members: Vec<(u32, u8)> = members.iter().map(|m| (m.xid, u8::try_from(m.status & 0xFF).unwrap_or(0))).collect();
                self.create_multixact(*multi, *offset, &members)?;
            }
            Effect::TruncateMulti(truncation) => self.truncate_multixact(truncation),
            Effect::ZeroCommitTsPage(page) => self.slrus.zero_page(Slru::CommitTs, *page),
            Effect::TruncateCommitTs { page, oldest_xid } => {
                if precedes(self.counters.oldest_commit_ts_xid, *oldest_xid) {
                    self.counters.oldest_commit_ts_xid = *oldest_xid;
                }
                self.slrus.truncate_before(Slru::CommitTs, *page);
            }
            Effect::CopyDatabase { to, from } => self.copy_database(at, *from, *to),
            Effect::CreateDatabase(dir) => {
                self.databases.insert(*dir);
                self.homes.insert(*dir);
            }
            Effect::DropDatabase { database, tablespaces } => self.drop_database(at, *database, tablespaces),
            Effect::CreateTablespace { oid, .. } => {
                self.tablespaces.insert(*oid);
            }
            Effect::DropTablespace { oid } => {
                self.tablespaces.remove(oid);
            }
            Effect::RelationMap { dir, bytes } => {
                self.maps.insert(*dir, MapSource::Logged(bytes.as_slice().into()));
            }
            Effect::RunningXacts { next_xid, .. } => self.saw_xid(next_xid.wrapping_sub(1)),
            Effect::OriginSet { id, remote_lsn } => {
                self.origins.insert(*id, *remote_lsn);
            }
            Effect::OriginDrop { id } => {
                self.origins.remove(id);
            }
            // Nobody comes this far with a record of an extension (`ScanError::Opaque`).
            Effect::Opaque { .. }
            | Effect::Switch
            | Effect::BackupEnd { .. }
            | Effect::RestorePoint { .. }
            | Effect::OverwrittenContinuation { .. } => {}
        }
        self.saw_xid(at.xid);
        Ok(())
    }

    /// An xid was seen in use: the next one to hand out lies past it (`AdvanceNextFullTransactionIdPastXid`).
    pub fn saw_xid(&mut self, xid: u32) {
        if xid < FIRST_NORMAL_XID {
            return;
        }
        let next = low(self.counters.next_xid);
        if precedes(xid, next) {
            return;
        }
        let mut epoch = self.counters.next_xid >> 32;
        let following = match xid.wrapping_add(1) {
            special if special < FIRST_NORMAL_XID => FIRST_NORMAL_XID,
            normal => normal,
        };
        if following < next {
            epoch += 1;
        }
        self.counters.next_xid = epoch << 32 | u64::from(following);
    }

    /// The 64-bit form of an xid that was in use lately.
    #[must_use]
    pub fn full_xid(&self, xid: u32) -> u64 {
        let epoch = self.counters.next_xid >> 32;
        let epoch = if xid >= low(self.counters.next_xid) { epoch.saturating_sub(1) } else { epoch };
        epoch << 32 | u64::from(xid)
    }

    /// The pages of the next counters must be there when a server starts, except where a counter is the first of its page: then the server makes the page
    /// when it starts or comes to use it (`TrimCLOG`, `TrimMultiXact`, `ActivateCommitTs`). Recovery itself leaves behind that of multixact offsets.
    pub fn complete_slrus(&mut self) {
        let counters = self.counters;
        let next_xid = low(counters.next_xid);
        let commit_times = self.settings.track_commit_timestamp.then_some((Slru::CommitTs, next_xid));
        for (slru, counter) in
            [(Slru::Xact, next_xid), (Slru::MultiXactMembers, counters.next_multi_offset)].into_iter().chain(commit_times)
        {
            let page = page_of(slru, counter);
            if counter > 0 && page_of(slru, counter - 1) == page {
                self.slrus.ensure_page(slru, page);
            }
        }
        self.slrus.ensure_page(Slru::MultiXactOffsets, page_of(Slru::MultiXactOffsets, counters.next_multi));
    }

    fn finish(&mut self, at: At, finish: &Finish) -> Result<(), B::Error> {
        let status = if finish.committed { XactStatus::Committed } else { XactStatus::Aborted };
        let (time, origin) = finish.origin.map_or((finish.time, 0), |o| (o.time, o.id));
        for xid in finish.subxids.iter().chain([&finish.xid]).copied().filter(|xid| *xid >= FIRST_NORMAL_XID) {
            self.saw_xid(xid);
            self.slrus.set_status(xid, status)?;
            if finish.committed && self.settings.track_commit_timestamp {
                self.slrus.set_commit_time(xid, time.0, origin)?;
                if precedes(self.counters.newest_commit_ts_xid, xid) {
                    self.counters.newest_commit_ts_xid = xid;
                }
            }
        }
        for rel in &finish.unlinked {
            self.relations.drop_relation(*rel, at.end);
        }
        if finish.prepared {
            self.prepared.remove(&finish.xid);
        }
        // An abort tells of progress as well.
        if let Some(origin) = finish.origin.filter(|origin| !NO_ORIGIN.contains(&origin.id)) {
            let progress = self.origins.entry(origin.id).or_default();
            *progress = (*progress).max(origin.lsn);
        }
        Ok(())
    }

    fn prepare(&mut self, prepare: &Prepare) {
        prepare.subxids.iter().for_each(|xid| self.saw_xid(*xid));
        self.saw_xid(prepare.xid);
        self.prepared.insert(prepare.xid, TwoPhase::Logged(prepare.state.clone()));
    }

    fn checkpoint(&mut self, shutdown: bool, said: &Checkpoint) {
        let now = &mut self.counters;
        now.full_page_writes = said.full_page_writes;
        now.wal_level = said.wal_level;
        now.timeline = said.timeline;
        if shutdown {
            now.next_xid = said.next_xid;
            now.next_oid = said.next_oid;
            now.next_multi = said.next_multi;
            now.next_multi_offset = said.next_multi_offset;
        } else {
            now.next_xid = now.next_xid.max(said.next_xid);
            advance(&mut now.next_multi, said.next_multi);
            advance(&mut now.next_multi_offset, said.next_multi_offset);
        }
        if precedes(now.oldest_multi, said.oldest_multi) {
            (now.oldest_multi, now.oldest_multi_database) = (said.oldest_multi, said.oldest_multi_database);
        }
        if shutdown || precedes(now.oldest_xid, said.oldest_xid) {
            (now.oldest_xid, now.oldest_xid_database) = (said.oldest_xid, said.oldest_xid_database);
        }
        now.time = said.time;
    }

    fn advance_oldest_xid(&mut self, xid: u32, database: u32) {
        if precedes(self.counters.oldest_xid, xid) {
            self.counters.oldest_xid = xid;
            self.counters.oldest_xid_database = database;
        }
    }

    fn create_multixact(&mut self, multi: u32, offset: u32, members: &[(u32, u8)]) -> Result<(), B::Error> {
        self.slrus.create_multixact(multi, offset, members)?;
        let count = u32::try_from(members.len()).unwrap_or(u32::MAX);
        let next = if multi == u32::MAX { 1 } else { multi + 1 };
        advance(&mut self.counters.next_multi, next);
        advance(&mut self.counters.next_multi_offset, offset.wrapping_add(count));
        members.iter().for_each(|(xid, _)| self.saw_xid(*xid));
        Ok(())
    }

    fn truncate_multixact(&mut self, cut: &MultiTruncation) {
        if precedes(self.counters.oldest_multi, cut.offsets_end) {
            self.counters.oldest_multi = cut.offsets_end;
            self.counters.oldest_multi_database = cut.oldest_multi_database;
        }
        self.slrus.truncate_multixact(cut.offsets_end, cut.members_start, cut.members_end);
    }

    fn parameters(&mut self, at: At, said: &Parameters) {
        if said.wal_level == WAL_LEVEL_MINIMAL {
            self.logged_minimally.get_or_insert(at.lsn);
        }
        let tracked = self.settings.track_commit_timestamp;
        self.settings = ControlSettings {
            wal_level: said.wal_level,
            wal_log_hints: said.wal_log_hints,
            max_connections: said.max_connections,
            max_worker_processes: said.max_worker_processes,
            max_wal_senders: said.max_wal_senders,
            max_prepared_transactions: said.max_prepared_xacts,
            max_locks_per_transaction: said.max_locks_per_xact,
            track_commit_timestamp: said.track_commit_timestamp,
        };
        match (tracked, said.track_commit_timestamp) {
            (false, true) => self.begin_commit_times(),
            (true, false) => {
                self.counters.oldest_commit_ts_xid = 0;
                self.counters.newest_commit_ts_xid = 0;
                self.slrus.forget_commit_times();
            }
            _ => {}
        }
    }

    fn begin_commit_times(&mut self) {
        let next = low(self.counters.next_xid);
        if self.counters.oldest_commit_ts_xid == 0 {
            self.counters.oldest_commit_ts_xid = next;
            self.counters.newest_commit_ts_xid = next;
        }
        self.slrus.ensure_page(Slru::CommitTs, page_of(Slru::CommitTs, next));
    }

    fn copy_database(&mut self, at: At, from: DatabaseDir, to: DatabaseDir) {
        self.databases.insert(to);
        if self.homes.contains(&from) {
            self.homes.insert(to);
        } else {
            self.homes.remove(&to);
        }
        self.relations.copy_database((from.tablespace, from.database), (to.tablespace, to.database), at.end);
        match self.maps.get(&from).cloned() {
            Some(map) => self.maps.insert(to, map),
            None => self.maps.remove(&to),
        };
    }

    fn drop_database(&mut self, at: At, database: u32, tablespaces: &[u32]) {
        for &tablespace in tablespaces {
            let dir = DatabaseDir { database, tablespace };
            self.databases.remove(&dir);
            self.homes.remove(&dir);
            self.maps.remove(&dir);
            self.relations.drop_database(tablespace, database, at.end);
        }
    }

    /// The timeline that the newest record belongs to.
    #[must_use]
    pub fn timeline(&self) -> Timeline {
        self.counters.timeline
    }
}

fn low(full: u64) -> u32 {
    u32::try_from(full & 0xFFFF_FFFF).unwrap_or(0)
}

/// Is `a` older than `b` in the circle of 32-bit counters? Special xids are older than all others (`TransactionIdPrecedes`).
fn precedes(a: u32, b: u32) -> bool {
    if a < FIRST_NORMAL_XID || b < FIRST_NORMAL_XID { a < b } else { a.wrapping_sub(b) > u32::MAX / 2 }
}

/// Moves a multixact counter on, never back (`MultiXactAdvanceNextMXact`).
fn advance(counter: &mut u32, to: u32) {
    if counter.wrapping_sub(to) > u32::MAX / 2 {
        *counter = to;
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::pg::timestamp::PgTime;
    use crate::pg::{Major, RelFileLocator};

    #[derive(Debug)]
    struct NoPages;

    impl BasePages for NoPages {
        type Error = Infallible;

        fn page(&self, _: Slru, _: u64) -> Result<Option<Box<[u8; 8192]>>, Infallible> {
            Ok(None)
        }
    }

    fn cluster(next_xid: u64) -> Cluster<NoPages> {
        let mut counters = Checkpoint::decode(&[0; 88], Major::V17).unwrap();
        counters.next_xid = next_xid;
        let settings = ControlSettings {
            wal_level: 1,
            wal_log_hints: false,
            max_connections: 100,
            max_worker_processes: 8,
            max_wal_senders: 10,
            max_prepared_transactions: 0,
            max_locks_per_transaction: 64,
            track_commit_timestamp: false,
        };
        Cluster {
            relations: Relations::default(),
            slrus: Slrus::new(NoPages, []),
            databases: BTreeSet::new(),
            homes: BTreeSet::new(),
            maps: HashMap::new(),
            tablespaces: BTreeSet::new(),
            prepared: BTreeMap::new(),
            counters,
            settings,
            origins: BTreeMap::new(),
            logged_minimally: None,
        }
    }

    const AT: At = At { lsn: Lsn(100), end: Lsn(200), xid: 0 };

    fn finish(xid: u32) -> Finish {
        Finish { committed: true, xid, subxids: Vec::new(), time: PgTime(7), unlinked: Vec::new(), prepared: false, origin: None }
    }

    #[test]
    fn the_next_xid_lies_past_every_xid_that_was_seen_and_never_goes_back() {
        let mut cluster = cluster(1000);
        cluster.saw_xid(1500);
        cluster.saw_xid(1200);
        assert_eq!(cluster.counters.next_xid, 1501);
        cluster.apply(AT, &Effect::Finish(Finish { subxids: vec![1700], ..finish(1600) })).unwrap();
        assert_eq!(cluster.counters.next_xid, 1701);
    }

    #[test]
    fn the_epoch_turns_when_xids_wrap() {
        let mut cluster = cluster(0x5_FFFF_FFF0);
        cluster.saw_xid(0xFFFF_FFFF);
        assert_eq!(cluster.counters.next_xid, 0x6_0000_0003, "special xids are stepped over");
        assert_eq!(cluster.full_xid(0xFFFF_FFFE), 0x5_FFFF_FFFE);
    }

    #[test]
    fn a_shutdown_checkpoint_sets_counters_and_an_online_one_only_raises_them() {
        let mut cluster = cluster(1000);
        let said = Checkpoint { next_xid: 900, next_oid: 50, ..cluster.counters };
        cluster.apply(AT, &Effect::Checkpoint { shutdown: false, checkpoint: said }).unwrap();
        assert_eq!((cluster.counters.next_xid, cluster.counters.next_oid), (1000, 0));
        cluster.apply(AT, &Effect::Checkpoint { shutdown: true, checkpoint: said }).unwrap();
        assert_eq!((cluster.counters.next_xid, cluster.counters.next_oid), (900, 50));
    }

    #[test]
    fn oldest_xid_moves_when_status_goes_away_with_the_database_that_holds_it_back() {
        let mut cluster = cluster(0x1_0000_0100);
        (cluster.counters.oldest_xid, cluster.counters.oldest_xid_database) = (4_000_000_000, 1);
        cluster.apply(AT, &Effect::TruncateXact { page: 0, oldest_xid: 50, database: 5 }).unwrap();
        assert_eq!((cluster.counters.oldest_xid, cluster.counters.oldest_xid_database), (50, 5));
        cluster.apply(AT, &Effect::TruncateXact { page: 0, oldest_xid: 4_100_000_000, database: 6 }).unwrap();
        assert_eq!((cluster.counters.oldest_xid, cluster.counters.oldest_xid_database), (50, 5), "it never goes back");
    }

    #[test]
    fn a_prepared_transaction_is_kept_until_it_ends() {
        let mut cluster = cluster(1000);
        let prepare = Prepare { xid: 1100, database: 5, time: PgTime(0), gid: b"g".to_vec(), subxids: vec![1101], state: vec![1, 2] };
        cluster.apply(AT, &Effect::Prepare(prepare)).unwrap();
        assert_eq!(cluster.prepared.get(&1100), Some(&TwoPhase::Logged(vec![1, 2])));
        assert_eq!(cluster.counters.next_xid, 1102);
        cluster.apply(AT, &Effect::Finish(Finish { prepared: true, ..finish(1100) })).unwrap();
        assert!(cluster.prepared.is_empty());
    }

    #[test]
    fn a_copied_database_takes_the_map_that_its_source_has_then() {
        let mut cluster = cluster(1000);
        let (from, to) = (DatabaseDir { database: 5, tablespace: 1663 }, DatabaseDir { database: 9, tablespace: 1663 });
        cluster.maps.insert(from, MapSource::Copied(from));
        cluster.apply(AT, &Effect::CopyDatabase { to, from }).unwrap();
        cluster.apply(AT, &Effect::RelationMap { dir: from, bytes: vec![1] }).unwrap();
        assert_eq!(cluster.maps.get(&to), Some(&MapSource::Copied(from)));
        cluster.apply(AT, &Effect::DropDatabase { database: 9, tablespaces: vec![1663] }).unwrap();
        assert!(!cluster.databases.contains(&to) && !cluster.maps.contains_key(&to));
    }

    #[test]
    fn only_a_databases_own_directory_is_copied_as_such() {
        let mut cluster = cluster(1000);
        let dir = |database, tablespace| DatabaseDir { database, tablespace };
        cluster.apply(AT, &Effect::CreateDatabase(dir(5, 1663))).unwrap();
        cluster.apply(AT, &Effect::CopyDatabase { from: dir(5, 1663), to: dir(9, 1663) }).unwrap();
        cluster.apply(AT, &Effect::CopyDatabase { from: dir(5, 16400), to: dir(9, 16400) }).unwrap();
        assert_eq!(cluster.homes, BTreeSet::from([dir(5, 1663), dir(9, 1663)]));
        cluster.apply(AT, &Effect::DropDatabase { database: 9, tablespaces: vec![1663, 16400] }).unwrap();
        assert_eq!(cluster.homes, BTreeSet::from([dir(5, 1663)]));
    }

    #[test]
    fn progress_of_an_origin_only_rises_with_transactions_committed_or_not() {
        let mut cluster = cluster(1000);
        let from = |id, lsn| Some(crate::pg::wal::xact::Origin { id, lsn: Lsn(lsn), time: PgTime(0) });
        cluster.apply(AT, &Effect::OriginSet { id: 7, remote_lsn: Lsn(50) }).unwrap();
        cluster.apply(AT, &Effect::Finish(Finish { origin: from(7, 40), ..finish(1000) })).unwrap();
        assert_eq!(cluster.origins.get(&7), Some(&Lsn(50)));
        cluster.apply(AT, &Effect::Finish(Finish { origin: from(7, 60), committed: false, ..finish(1001) })).unwrap();
        cluster.apply(AT, &Effect::Finish(Finish { origin: from(u16::MAX, 60), ..finish(1002) })).unwrap();
        assert_eq!(cluster.origins, BTreeMap::from([(7, Lsn(60))]));
        cluster.apply(AT, &Effect::OriginSet { id: 7, remote_lsn: Lsn(20) }).unwrap();
        assert_eq!(cluster.origins.get(&7), Some(&Lsn(20)), "an administrator may set it back");
    }

    #[test]
    fn files_of_a_finished_transaction_go_away_with_it() {
        let mut cluster = cluster(1000);
        let rel = RelFileLocator { tablespace: 1663, database: 5, relation: 16384 };
        cluster.apply(AT, &Effect::CreateFork { rel, fork: crate::pg::Fork::Main }).unwrap();
        cluster.apply(AT, &Effect::Finish(Finish { committed: false, unlinked: vec![rel], ..finish(1001) })).unwrap();
        assert!(cluster.relations.fork(rel, crate::pg::Fork::Main).is_none());
    }

    #[test]
    fn switching_commit_times_on_and_off_begins_and_forgets_them() {
        let mut cluster = cluster(1000);
        let said = |track_commit_timestamp| Parameters {
            max_connections: 100,
            max_worker_processes: 8,
            max_wal_senders: 10,
            max_prepared_xacts: 0,
            max_locks_per_xact: 64,
            wal_level: 1,
            wal_log_hints: false,
            track_commit_timestamp,
        };
        cluster.apply(AT, &Effect::Parameters(said(true))).unwrap();
        cluster.apply(AT, &Effect::Finish(finish(1000))).unwrap();
        assert_eq!((cluster.counters.oldest_commit_ts_xid, cluster.counters.newest_commit_ts_xid), (1000, 1000));
        assert_eq!(cluster.slrus.page(Slru::CommitTs, 1).unwrap()[1810..1818], 7i64.to_le_bytes());
        cluster.apply(AT, &Effect::Parameters(said(false))).unwrap();
        assert_eq!(cluster.counters.newest_commit_ts_xid, 0);
        assert!(!cluster.slrus.has_page(Slru::CommitTs, 1));
    }

    #[test]
    fn page_of_a_counter_is_there_at_start_unless_the_counter_begins_it() {
        let shown = |next_xid: u64, next_multi_offset: u32| {
            let mut cluster = cluster(next_xid);
            (cluster.counters.next_multi, cluster.counters.next_multi_offset) = (2048, next_multi_offset);
            cluster.complete_slrus();
            let has = |slru, page| cluster.slrus.has_page(slru, page);
            (has(Slru::Xact, 1), has(Slru::MultiXactOffsets, 1), has(Slru::MultiXactMembers, 1))
        };
        assert_eq!(shown(32_768, 1636), (false, true, false));
        assert_eq!(shown(32_769, 1637), (true, true, true));
        let commit_times = |next_xid| {
            let mut cluster = cluster(next_xid);
            cluster.settings.track_commit_timestamp = true;
            cluster.complete_slrus();
            cluster.slrus.has_page(Slru::CommitTs, 10)
        };
        assert!(!commit_times(8190) && commit_times(8191));
    }
}
