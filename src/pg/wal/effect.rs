//! What a record does to the cluster besides changing the blocks it refers to.
//!
//! From: the block index's log of metadata, `repo::resolve`.  To: `view`, which keeps transaction states, file lengths, counters and settings by it.
//! Every operation of every resource manager of 14 to 18 is either named here or known to do nothing but change its blocks; any other is an error,
//! never skipped. Source: the `*_redo` functions and `*_xlog.h` headers that each arm names.

use thiserror::Error;

use super::xact::{self, Finish, Prepare, counted, locator};
use super::{Record, Rmgr};
use crate::pg::checkpoint::Checkpoint;
use crate::pg::cursor::Cursor;
use crate::pg::timestamp::PgTime;
use crate::pg::{BlockNo, Fork, Lsn, Major, RelFileLocator, Timeline};

/// One effect. A record has at most one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A transaction ended: status of it and its subtransactions, commit time, files that go away.
    Finish(Finish),
    /// A transaction was prepared.
    Prepare(Prepare),
    /// Subtransactions of a transaction that has many: known to be in use.
    Assignment {
        top: u32,
        subxids: Vec<u32>,
    },
    /// `shutdown`: counters are exactly these; else they are at least these (and the next oid says nothing).
    Checkpoint {
        shutdown: bool,
        checkpoint: Checkpoint,
    },
    /// A checkpoint begins here (17 and later).
    CheckpointRedo {
        wal_level: Option<i32>,
    },
    /// Oids below this one may have been handed out.
    NextOid(u32),
    /// Nothing follows in this segment.
    Switch,
    /// A base backup that began at `start` (its redo point) is consistent from here on.
    BackupEnd {
        start: Lsn,
    },
    /// Settings that pg_control copies.
    Parameters(Parameters),
    RestorePoint {
        time: PgTime,
        name: Vec<u8>,
    },
    /// `full_page_writes` was switched.
    FullPageWrites(bool),
    /// A timeline begins.
    EndOfRecovery {
        time: PgTime,
        timeline: Timeline,
        previous: Timeline,
        wal_level: Option<i32>,
    },
    /// Stands in for the record at `lsn`, whose rest was lost.
    OverwrittenContinuation {
        lsn: Lsn,
        time: PgTime,
    },
    /// The fork's file exists from here on, empty unless it was there.
    CreateFork {
        rel: RelFileLocator,
        fork: Fork,
    },
    /// The main fork is cut to `blocks` blocks; map and free space map with it.
    Truncate {
        rel: RelFileLocator,
        blocks: BlockNo,
        main: bool,
        vm: bool,
        fsm: bool,
    },
    /// A page of `pg_xact` begins as zeros.
    ZeroXactPage(u64),
    /// Segments of `pg_xact` wholly before `page` go away.
    TruncateXact {
        page: u64,
        oldest_xid: u32,
        database: u32,
    },
    /// A page of `pg_multixact/offsets` begins as zeros.
    ZeroMultiOffsetsPage(u64),
    /// A page of `pg_multixact/members` begins as zeros.
    ZeroMultiMembersPage(u64),
    CreateMulti {
        multi: u32,
        offset: u32,
        members: Vec<MultiMember>,
    },
    TruncateMulti(MultiTruncation),
    /// A page of `pg_commit_ts` begins as zeros.
    ZeroCommitTsPage(u64),
    TruncateCommitTs {
        page: u64,
        oldest_xid: u32,
    },
    /// All files of one database directory become those of another.
    CopyDatabase {
        to: DatabaseDir,
        from: DatabaseDir,
    },
    /// An empty database directory; its relations follow as records of their own (15 and later).
    CreateDatabase(DatabaseDir),
    DropDatabase {
        database: u32,
        tablespaces: Vec<u32>,
    },
    CreateTablespace {
        oid: u32,
        path: Vec<u8>,
    },
    DropTablespace {
        oid: u32,
    },
    /// `pg_filenode.map` of the directory is `bytes` from here on; database 0 is `global`.
    RelationMap {
        dir: DatabaseDir,
        bytes: Vec<u8>,
    },
    RunningXacts {
        next_xid: u32,
        oldest_running_xid: u32,
        latest_completed_xid: u32,
        xids: Vec<u32>,
    },
    /// Progress of a replication origin.
    OriginSet {
        id: u16,
        remote_lsn: Lsn,
    },
    OriginDrop {
        id: u16,
    },
    /// A record of an extension that refers to no block: only the extension knows what it does.
    Opaque {
        rmgr: Rmgr,
    },
}

/// A database's directory in one tablespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DatabaseDir {
    pub database: u32,
    pub tablespace: u32,
}

/// One member of a multixact; `status` is its `MultiXactStatus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MultiMember {
    pub xid: u32,
    pub status: u32,
}

/// Ranges (half-open) of offsets and members that go away; the end of the first is the oldest multixact that is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MultiTruncation {
    pub oldest_multi_database: u32,
    pub offsets_start: u32,
    pub offsets_end: u32,
    pub members_start: u32,
    pub members_end: u32,
}

/// [`Parameters::wal_level`] `minimal` (`WalLevel`, xlog.h).
pub const WAL_LEVEL_MINIMAL: i32 = 0;

/// `xl_parameter_change`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameters {
    pub max_connections: i32,
    pub max_worker_processes: i32,
    pub max_wal_senders: i32,
    pub max_prepared_xacts: i32,
    pub max_locks_per_xact: i32,
    pub wal_level: i32,
    pub wal_log_hints: bool,
    pub track_commit_timestamp: bool,
}

/// Why an effect is not known.
#[derive(Debug, Clone, Copy, Error, PartialEq, Eq)]
pub enum EffectError {
    /// No operation of this number in this version.
    #[error("record at {lsn}: resource manager {} has no operation {op:02X} in Postgres {major}", rmgr.0)]
    Unknown { lsn: Lsn, rmgr: Rmgr, op: u8, major: Major },
    /// The record ends before its contents do, or contradicts itself.
    #[error("record at {lsn}: contents of resource manager {} operation {op:02X} are cut short", rmgr.0)]
    Short { lsn: Lsn, rmgr: Rmgr, op: u8 },
}

/// What a record's operation means here.
enum Known {
    /// It does something, unless its contents are cut short (`None`).
    Does(Option<Effect>),
    /// It does nothing outside its blocks.
    Nothing,
    /// There is no such operation.
    Unknown,
}

/// What `record` does besides changing its blocks; `None` if nothing.
///
/// # Errors
/// [`EffectError`].
pub fn effect(record: &Record<'_>, major: Major) -> Result<Option<Effect>, EffectError> {
    let (lsn, rmgr, op) = (record.lsn, record.rmgr, record.op());
    match known(record, major) {
        Known::Does(effect) => effect.map(Some).ok_or(EffectError::Short { lsn, rmgr, op }),
        Known::Nothing => Ok(None),
        Known::Unknown => Err(EffectError::Unknown { lsn, rmgr, op, major }),
    }
}

fn known(record: &Record<'_>, major: Major) -> Known {
    let mut c = Cursor::new(record.main_data);
    match record.rmgr {
        Rmgr::XLOG => xlog(record, &mut c, major),
        Rmgr::TRANSACTION => transaction(record, major),
        Rmgr::STORAGE => storage(record.op(), &mut c),
        Rmgr::CLOG => clog(record.op(), &mut c, major),
        Rmgr::DATABASE => database(record.op(), &mut c, major),
        Rmgr::TABLESPACE => tablespace(record.op(), &mut c),
        Rmgr::MULTIXACT => multixact(record.op(), &mut c, major),
        Rmgr::RELMAP if record.op() == 0x00 => Known::Does(relation_map(&mut c)),
        Rmgr::STANDBY => standby(record.op(), &mut c),
        Rmgr::COMMIT_TS => commit_ts(record.op(), &mut c, major),
        Rmgr::REPLICATION_ORIGIN => origin(record.op(), &mut c),
        Rmgr::LOGICAL_MESSAGE if record.op() == 0x00 => Known::Nothing,
        // These change nothing but the blocks they refer to; redo knows their operations.
        Rmgr::HEAP2
        | Rmgr::HEAP
        | Rmgr::BTREE
        | Rmgr::HASH
        | Rmgr::GIN
        | Rmgr::GIST
        | Rmgr::SEQUENCE
        | Rmgr::SPGIST
        | Rmgr::BRIN
        | Rmgr::GENERIC => Known::Nothing,
        rmgr if rmgr.is_custom() && record.blocks.is_empty() => Known::Does(Some(Effect::Opaque { rmgr })),
        rmgr if rmgr.is_custom() => Known::Nothing,
        _ => Known::Unknown,
    }
}

/// xlog.c `xlog_redo`.
fn xlog(record: &Record<'_>, c: &mut Cursor<'_>, major: Major) -> Known {
    Known::Does(match record.op() {
        op @ (0x00 | 0x10) => {
            Checkpoint::decode(record.main_data, major).map(|checkpoint| Effect::Checkpoint { shutdown: op == 0x00, checkpoint })
        }
        0x20 | 0xA0 | 0xB0 => return Known::Nothing,
        0x30 => c.u32().map(Effect::NextOid),
        super::record::XLOG_SWITCH => Some(Effect::Switch),
        0x50 => c.u64().map(|start| Effect::BackupEnd { start: Lsn(start) }),
        0x60 => parameters(c).map(Effect::Parameters),
        0x70 => restore_point(c),
        0x80 => c.u8().map(|on| Effect::FullPageWrites(on != 0)),
        0x90 => end_of_recovery(c, major),
        0xD0 => overwritten(c),
        0xE0 if major >= Major::V17 => Some(Effect::CheckpointRedo { wal_level: c.i32() }),
        _ => return Known::Unknown,
    })
}

fn parameters(c: &mut Cursor<'_>) -> Option<Parameters> {
    Some(Parameters {
        max_connections: c.i32()?,
        max_worker_processes: c.i32()?,
        max_wal_senders: c.i32()?,
        max_prepared_xacts: c.i32()?,
        max_locks_per_xact: c.i32()?,
        wal_level: c.i32()?,
        wal_log_hints: c.u8()? != 0,
        track_commit_timestamp: c.u8()? != 0,
    })
}

fn restore_point(c: &mut Cursor<'_>) -> Option<Effect> {
    let time = PgTime(c.i64()?);
    let name = c.take(64)?.split(|b| *b == 0).next()?.to_vec();
    Some(Effect::RestorePoint { time, name })
}

fn end_of_recovery(c: &mut Cursor<'_>, major: Major) -> Option<Effect> {
    let time = PgTime(c.i64()?);
    let (timeline, previous) = (Timeline(c.u32()?), Timeline(c.u32()?));
    let wal_level = if major >= Major::V17 { Some(c.i32()?) } else { None };
    Some(Effect::EndOfRecovery { time, timeline, previous, wal_level })
}

fn overwritten(c: &mut Cursor<'_>) -> Option<Effect> {
    Some(Effect::OverwrittenContinuation { lsn: Lsn(c.u64()?), time: PgTime(c.i64()?) })
}

/// xact.c `xact_redo`.
fn transaction(record: &Record<'_>, major: Major) -> Known {
    Known::Does(match record.info & xact::OP_MASK {
        xact::COMMIT | xact::ABORT | xact::COMMIT_PREPARED | xact::ABORT_PREPARED => xact::finish(record, major).map(Effect::Finish),
        xact::PREPARE => xact::prepare(record, major).map(Effect::Prepare),
        xact::ASSIGNMENT => xact::assignment(record).map(|(top, subxids)| Effect::Assignment { top, subxids }),
        xact::INVALIDATIONS => return Known::Nothing,
        _ => return Known::Unknown,
    })
}

/// storage.c `smgr_redo`.
fn storage(op: u8, c: &mut Cursor<'_>) -> Known {
    Known::Does(match op {
        0x10 => create_fork(c),
        0x20 => truncate(c),
        _ => return Known::Unknown,
    })
}

fn create_fork(c: &mut Cursor<'_>) -> Option<Effect> {
    let rel = locator(c)?;
    let fork = Fork::from_number(u8::try_from(c.u32()?).ok()?)?;
    Some(Effect::CreateFork { rel, fork })
}

fn truncate(c: &mut Cursor<'_>) -> Option<Effect> {
    let blocks = c.u32()?;
    let rel = locator(c)?;
    let flags = c.u32()?;
    Some(Effect::Truncate { rel, blocks, main: flags & 1 != 0, vm: flags & 2 != 0, fsm: flags & 4 != 0 })
}

/// A page number of an SLRU: `int` before 17, `int64` since.
fn slru_page(c: &mut Cursor<'_>, major: Major) -> Option<u64> {
    if major.facts().wide_slru_page { u64::try_from(c.i64()?).ok() } else { u64::try_from(c.i32()?).ok() }
}

/// clog.c `clog_redo`.
fn clog(op: u8, c: &mut Cursor<'_>, major: Major) -> Known {
    let mut truncate = || Some(Effect::TruncateXact { page: slru_page(c, major)?, oldest_xid: c.u32()?, database: c.u32()? });
    Known::Does(match op {
        0x10 => truncate(),
        0x00 => slru_page(c, major).map(Effect::ZeroXactPage),
        _ => return Known::Unknown,
    })
}

/// commit_ts.c `commit_ts_redo`.
fn commit_ts(op: u8, c: &mut Cursor<'_>, major: Major) -> Known {
    let mut truncate = || Some(Effect::TruncateCommitTs { page: slru_page(c, major)?, oldest_xid: c.u32()? });
    Known::Does(match op {
        0x10 => truncate(),
        0x00 => slru_page(c, major).map(Effect::ZeroCommitTsPage),
        _ => return Known::Unknown,
    })
}

/// multixact.c `multixact_redo`.
fn multixact(op: u8, c: &mut Cursor<'_>, major: Major) -> Known {
    Known::Does(match op {
        0x00 => slru_page(c, major).map(Effect::ZeroMultiOffsetsPage),
        0x10 => slru_page(c, major).map(Effect::ZeroMultiMembersPage),
        0x20 => create_multi(c),
        0x30 => truncate_multi(c).map(Effect::TruncateMulti),
        _ => return Known::Unknown,
    })
}

fn create_multi(c: &mut Cursor<'_>) -> Option<Effect> {
    let (multi, offset) = (c.u32()?, c.u32()?);
    let members = counted(c, 8)?.u32s();
    let (pairs, _) = members.as_chunks::<2>();
    let members = pairs.iter().map(|&[xid, status]| MultiMember { xid, status }).collect();
    Some(Effect::CreateMulti { multi, offset, members })
}

fn truncate_multi(c: &mut Cursor<'_>) -> Option<MultiTruncation> {
    Some(MultiTruncation {
        oldest_multi_database: c.u32()?,
        offsets_start: c.u32()?,
        offsets_end: c.u32()?,
        members_start: c.u32()?,
        members_end: c.u32()?,
    })
}

/// dbcommands.c `dbase_redo`. 14 has only the copy, and numbers DROP differently.
fn database(op: u8, c: &mut Cursor<'_>, major: Major) -> Known {
    Known::Does(match (op, major) {
        (0x00, _) => copy_database(c),
        (0x10, Major::V14) => drop_database(c),
        (0x10, _) => database_dir(c).map(Effect::CreateDatabase),
        (0x20, Major::V15 | Major::V16 | Major::V17 | Major::V18) => drop_database(c),
        _ => return Known::Unknown,
    })
}

fn database_dir(c: &mut Cursor<'_>) -> Option<DatabaseDir> {
    Some(DatabaseDir { database: c.u32()?, tablespace: c.u32()? })
}

fn copy_database(c: &mut Cursor<'_>) -> Option<Effect> {
    Some(Effect::CopyDatabase { to: database_dir(c)?, from: database_dir(c)? })
}

fn drop_database(c: &mut Cursor<'_>) -> Option<Effect> {
    Some(Effect::DropDatabase { database: c.u32()?, tablespaces: counted(c, 4)?.u32s() })
}

/// tablespace.c `tblspc_redo`.
fn tablespace(op: u8, c: &mut Cursor<'_>) -> Known {
    let mut create = || Some(Effect::CreateTablespace { oid: c.u32()?, path: c.c_string()?.to_vec() });
    Known::Does(match op {
        0x00 => create(),
        0x10 => c.u32().map(|oid| Effect::DropTablespace { oid }),
        _ => return Known::Unknown,
    })
}

/// relmapper.c `relmap_redo`.
fn relation_map(c: &mut Cursor<'_>) -> Option<Effect> {
    let dir = database_dir(c)?;
    let len = usize::try_from(c.i32()?).ok()?;
    Some(Effect::RelationMap { dir, bytes: c.take(len)?.to_vec() })
}

/// standby.c `standby_redo`.
fn standby(op: u8, c: &mut Cursor<'_>) -> Known {
    match op {
        0x00 | 0x20 => Known::Nothing,
        0x10 => Known::Does(running_xacts(c)),
        _ => Known::Unknown,
    }
}

fn running_xacts(c: &mut Cursor<'_>) -> Option<Effect> {
    let (top, sub) = (usize::try_from(c.i32()?).ok()?, usize::try_from(c.i32()?).ok()?);
    c.skip(4)?;
    let (next_xid, oldest_running_xid, latest_completed_xid) = (c.u32()?, c.u32()?, c.u32()?);
    let bytes = c.take(top.checked_add(sub)?.checked_mul(4)?)?;
    let (xids, _) = bytes.as_chunks::<4>();
    let xids = xids.iter().copied().map(u32::from_le_bytes).collect();
    Some(Effect::RunningXacts { next_xid, oldest_running_xid, latest_completed_xid, xids })
}

/// origin.c `replorigin_redo`.
fn origin(op: u8, c: &mut Cursor<'_>) -> Known {
    let mut set = || Some(Effect::OriginSet { remote_lsn: Lsn(c.u64()?), id: c.u16()? });
    Known::Does(match op {
        0x00 => set(),
        0x10 => c.u16().map(|id| Effect::OriginDrop { id }),
        _ => return Known::Unknown,
    })
}

#[cfg(test)]
mod tests;
