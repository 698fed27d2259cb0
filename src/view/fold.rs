//! The whole cluster at a moment, except its pages: what all records since the backup's redo point add up to.
//!
//! From: `view::moment`, which hands over the effects of records in WAL order.  To: the tree, the SLRUs, the crafted checkpoint.
//! In: the state of the backup's checkpoint, then effects and block lengths.  Out: [`Cluster`].
//! Follows the `*_redo` routines of xlog.c, xact.c, multixact.c, commit_ts.c, dbcommands.c, tablespace.c, relmapper.c (14 to 18).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::pg::checkpoint::Checkpoint;
use crate::pg::control::ControlSettings;
use crate::pg::wal::effect::{DatabaseDir, Effect, MultiTruncation, Parameters, WAL_LEVEL_MINIMAL};
use crate::pg::wal::xact::{Finish, Prepare};
use crate::pg::{Lsn, Timeline};
use crate::view::file_class::Slru;
use crate::view::relations::Relations;
use crate::view::slru::{BasePages, Slrus, XactStatus, page_of};

/// Transaction ids below this are special (`FirstNormalTransactionId`).
const FIRST_NORMAL_XID: u32 = 3;

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
mod tests;
