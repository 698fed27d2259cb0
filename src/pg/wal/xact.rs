//! Records that end a transaction or prepare it.
//!
//! Source: xact.h, xactdesc.c `ParseCommitRecord`, `ParseAbortRecord`, `ParsePrepareRecord`, twophase.c `StartPrepare`. The items of dropped statistics
//! came with 15 (12 bytes each) and grew with 18 (16 bytes).

use super::Record;
use crate::pg::cursor::Cursor;
use crate::pg::timestamp::PgTime;
use crate::pg::{Lsn, Major, RelFileLocator};

pub(crate) const COMMIT: u8 = 0x00;
pub(crate) const PREPARE: u8 = 0x10;
pub(crate) const ABORT: u8 = 0x20;
pub(crate) const COMMIT_PREPARED: u8 = 0x30;
pub(crate) const ABORT_PREPARED: u8 = 0x40;
pub(crate) const ASSIGNMENT: u8 = 0x50;
pub(crate) const INVALIDATIONS: u8 = 0x60;

/// `XLOG_XACT_OPMASK`: the top bit says whether `xinfo` is there.
pub(crate) const OP_MASK: u8 = 0x70;
const HAS_INFO: u8 = 0x80;

const INFO_DATABASE: u32 = 1;
const INFO_SUBXACTS: u32 = 1 << 1;
const INFO_RELATIONS: u32 = 1 << 2;
const INFO_INVALIDATIONS: u32 = 1 << 3;
const INFO_TWO_PHASE: u32 = 1 << 4;
const INFO_ORIGIN: u32 = 1 << 5;
const INFO_GID: u32 = 1 << 7;
const INFO_DROPPED_STATS: u32 = 1 << 8;

const INVALIDATION_BYTES: usize = 16;

/// The end of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finish {
    /// It committed; else it was rolled back.
    pub committed: bool,
    /// The top-level transaction: for a prepared one the xid that was prepared, not that of the record.
    pub xid: u32,
    /// Its subtransactions that had an xid.
    pub subxids: Vec<u32>,
    /// When, by the clock of the server that wrote the record: what a recovery target is compared with.
    pub time: PgTime,
    /// Relations whose files go away with it, all forks.
    pub unlinked: Vec<RelFileLocator>,
    /// It had been prepared: its two-phase file goes away.
    pub prepared: bool,
    /// Where it came from, if it was replicated from elsewhere.
    pub origin: Option<Origin>,
}

/// A replicated transaction's place in the stream it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    pub id: u16,
    pub lsn: Lsn,
    pub time: PgTime,
}

/// A transaction that was prepared for two-phase commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepare {
    pub xid: u32,
    pub database: u32,
    pub time: PgTime,
    pub gid: Vec<u8>,
    pub subxids: Vec<u32>,
    /// What its file in `pg_twophase` holds before the CRC: the record's main data.
    pub state: Vec<u8>,
}

/// Reads a commit or abort, prepared or not. `None` if the record ends early.
pub(crate) fn finish(record: &Record<'_>, major: Major) -> Option<Finish> {
    let op = record.info & OP_MASK;
    let committed = op == COMMIT || op == COMMIT_PREPARED;
    let mut c = Cursor::new(record.main_data);
    let time = PgTime(c.i64()?);
    let info = if record.info & HAS_INFO != 0 { c.u32()? } else { 0 };
    let has = |bit: u32| info & bit != 0;
    let mut finish = Finish {
        committed,
        xid: record.xid,
        subxids: Vec::new(),
        time,
        unlinked: Vec::new(),
        prepared: op == COMMIT_PREPARED || op == ABORT_PREPARED,
        origin: None,
    };
    if has(INFO_DATABASE) {
        c.skip(8)?;
    }
    if has(INFO_SUBXACTS) {
        finish.subxids = counted(&mut c, 4)?.u32s();
    }
    if has(INFO_RELATIONS) {
        finish.unlinked = counted(&mut c, 12)?.locators();
    }
    if has(INFO_DROPPED_STATS) {
        counted(&mut c, if major >= Major::V18 { 16 } else { 12 })?;
    }
    if has(INFO_INVALIDATIONS) && committed {
        counted(&mut c, INVALIDATION_BYTES)?;
    }
    if has(INFO_TWO_PHASE) {
        finish.xid = c.u32()?;
        if has(INFO_GID) {
            c.c_string()?;
        }
    }
    if has(INFO_ORIGIN) {
        finish.origin = Some(Origin { id: record.origin.unwrap_or(0), lsn: Lsn(c.u64()?), time: PgTime(c.i64()?) });
    }
    Some(finish)
}

/// Reads a PREPARE. `None` if the record ends early.
pub(crate) fn prepare(record: &Record<'_>, major: Major) -> Option<Prepare> {
    let mut c = Cursor::new(record.main_data);
    c.skip(8)?;
    let (xid, database) = (c.u32()?, c.u32()?);
    let time = PgTime(c.i64()?);
    c.skip(4)?;
    let subxid_count = usize::try_from(c.u32()?).ok()?;
    // Counts of relations, statistics (15 and later) and invalidations, then a flag.
    c.skip(if major >= Major::V15 { 20 } else { 12 })?;
    c.skip(2)?;
    let gid_len = usize::from(c.u16()?);
    c.skip(16)?;
    let gid = c.take(gid_len.checked_next_multiple_of(8)?)?.get(..gid_len)?;
    let gid = gid.split(|b| *b == 0).next().unwrap_or_default().to_vec();
    let subxids = Items { bytes: c.take(subxid_count.checked_mul(4)?)? }.u32s();
    Some(Prepare { xid, database, time, gid, subxids, state: record.main_data.to_vec() })
}

/// The xids of an ASSIGNMENT: subtransactions of a transaction that has many. `None` if the record ends early.
pub(crate) fn assignment(record: &Record<'_>) -> Option<(u32, Vec<u32>)> {
    let mut c = Cursor::new(record.main_data);
    let top = c.u32()?;
    Some((top, counted(&mut c, 4)?.u32s()))
}

/// Items of equal size.
pub(crate) struct Items<'a> {
    bytes: &'a [u8],
}

/// Reads a count (`int`) and that many items.
pub(crate) fn counted<'a>(c: &mut Cursor<'a>, item_bytes: usize) -> Option<Items<'a>> {
    let count = usize::try_from(c.i32()?).ok()?;
    Some(Items { bytes: c.take(count.checked_mul(item_bytes)?)? })
}

impl Items<'_> {
    pub(crate) fn u32s(&self) -> Vec<u32> {
        let (numbers, _) = self.bytes.as_chunks::<4>();
        numbers.iter().copied().map(u32::from_le_bytes).collect()
    }

    fn locators(&self) -> Vec<RelFileLocator> {
        self.bytes.chunks_exact(12).filter_map(|item| locator(&mut Cursor::new(item))).collect()
    }
}

/// Reads a relation's address.
pub(crate) fn locator(c: &mut Cursor<'_>) -> Option<RelFileLocator> {
    Some(RelFileLocator { tablespace: c.u32()?, database: c.u32()?, relation: c.u32()? })
}
