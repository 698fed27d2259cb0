//! Blocks of an index: runs of entries, of statuses and of log items that can be read alone.
//!
//! ```text
//! group of entries: (block number minus the one before) x 2 + (more than one entry); 0 and 1: relation, fork and the block number follow
//!                   | count, if more than one | count x entry
//! entry:            (chunk, from the first of the index; then from the entry before it in the group) x 2 + rebuilds
//! status:           xid / 1024, from the one before | 256 bytes
//! log item:         kind u8 | end, in 8 bytes from the item before (from the first chunk of the index) | by kind, see `put_item`
//! ```

use super::front::{at_units, get_rel, put_rel, units};
use super::{Entry, LogItem, STATUS_XIDS, StatusBits, WalChunk};
use crate::format::varint::{get, get_signed, get_u32, put, put_signed};
use crate::pg::cursor::Cursor;
use crate::pg::wal::Rmgr;
use crate::pg::{BlockTag, Lsn};

const RAW: u8 = 0;
const RAW_WITH_ORIGIN: u8 = 1;
/// A commit or rollback that is nothing but its time, in a record of 34 bytes.
const PLAIN_COMMIT: u8 = 2;
const PLAIN_ABORT: u8 = 3;

const PLAIN_UNITS: u64 = 5;
const XACT_ABORT: u8 = 0x20;

/// Appends a group: entries of one block, in rising order.
pub(super) fn put_group(out: &mut Vec<u8>, base: WalChunk, before: Option<BlockTag>, tag: BlockTag, entries: &[Entry]) {
    let step = before.filter(|b| (b.rel, b.fork) == (tag.rel, tag.fork)).map_or(0, |b| tag.block.saturating_sub(b.block));
    let several = entries.len() > 1;
    put(out, u64::from(step) << 1 | u64::from(several));
    if step == 0 {
        put_rel(out, tag.rel, tag.fork);
        put(out, tag.block.into());
    }
    if several {
        put(out, entries.len() as u64);
    }
    let mut last = base;
    for entry in entries {
        put(out, entry.chunk.0.saturating_sub(last.0) << 1 | u64::from(entry.rebuilds));
        last = entry.chunk;
    }
}

/// Reads a block of entries, handing each over; `each` may stop by returning `false`. `None` if the bytes make no sense.
pub fn read_entries(bytes: &[u8], base: WalChunk, each: &mut dyn FnMut(Entry) -> bool) -> Option<()> {
    let mut c = Cursor::new(bytes);
    let mut before: Option<BlockTag> = None;
    while !c.is_empty() {
        let head = get(&mut c)?;
        let step = u32::try_from(head >> 1).ok()?;
        let tag = if step == 0 {
            let (rel, fork) = get_rel(&mut c)?;
            BlockTag { rel, fork, block: get_u32(&mut c)? }
        } else {
            let before = before?;
            BlockTag { block: before.block.checked_add(step)?, ..before }
        };
        before = Some(tag);
        let mut chunk = base;
        let count = if head & 1 == 0 { 1 } else { get(&mut c)? };
        for _ in 0..count {
            let next = get(&mut c)?;
            chunk = WalChunk(chunk.0.checked_add(next >> 1)?);
            if !each(Entry { tag, chunk, rebuilds: next & 1 != 0 }) {
                return Some(());
            }
        }
    }
    Some(())
}

/// Appends the status of 1024 transactions; `before` is the number of those before them in the block.
pub(super) fn put_status(out: &mut Vec<u8>, before: u32, number: u32, bits: &StatusBits) {
    put(out, number.wrapping_sub(before).into());
    out.extend(bits);
}

/// Reads a block of statuses, handing each over. `None` if the bytes make no sense.
pub fn read_statuses(bytes: &[u8], each: &mut dyn FnMut(u32, &StatusBits)) -> Option<()> {
    let mut c = Cursor::new(bytes);
    let mut number = 0u32;
    while !c.is_empty() {
        number = number.checked_add(get_u32(&mut c)?).filter(|n| *n <= u32::MAX / STATUS_XIDS)?;
        each(number, c.take(size_of::<StatusBits>())?.try_into().ok()?);
    }
    Some(())
}

/// What log items are written relative to. Starts anew with each block.
#[derive(Debug)]
pub(super) struct LogState {
    end: Lsn,
    xid: u32,
    time: i64,
}

impl LogState {
    pub(super) fn new(base: Lsn) -> LogState {
        LogState { end: base, xid: 0, time: 0 }
    }

    fn put_xid(&mut self, out: &mut Vec<u8>, xid: u32) {
        put_signed(out, i64::from(xid).wrapping_sub(self.xid.into()));
        self.xid = xid;
    }

    fn get_xid(&mut self, c: &mut Cursor<'_>) -> Option<u32> {
        self.xid = u32::try_from(get_signed(c)?.checked_add(self.xid.into())?).ok()?;
        Some(self.xid)
    }

    /// Appends an item.
    pub(super) fn put_item(&mut self, out: &mut Vec<u8>, item: &LogItem) {
        let step = units(self.end, item.end);
        self.end = item.end;
        let len = units(item.lsn, item.end);
        if let Some((kind, time)) = plain(item, len) {
            out.push(kind);
            put(out, step);
            self.put_xid(out, item.xid);
            put_signed(out, time.wrapping_sub(self.time));
            self.time = time;
            return;
        }
        out.push(if item.origin.is_some() { RAW_WITH_ORIGIN } else { RAW });
        put(out, step);
        put(out, len);
        self.put_xid(out, item.xid);
        out.extend([item.rmgr.0, item.info]);
        out.extend(item.origin.iter().flat_map(|o| o.to_le_bytes()));
        put(out, item.main_data.len() as u64);
        out.extend(&item.main_data);
    }

    fn get_item(&mut self, c: &mut Cursor<'_>) -> Option<LogItem> {
        let kind = c.u8()?;
        let end = at_units(self.end, get(c)?)?;
        self.end = end;
        match kind {
            PLAIN_COMMIT | PLAIN_ABORT => {
                let xid = self.get_xid(c)?;
                self.time = self.time.wrapping_add(get_signed(c)?);
                let info = if kind == PLAIN_ABORT { XACT_ABORT } else { 0 };
                let lsn = back(end, PLAIN_UNITS)?;
                let main_data = self.time.to_le_bytes().to_vec();
                Some(LogItem { lsn, end, xid, rmgr: Rmgr::TRANSACTION, info, origin: None, main_data })
            }
            RAW | RAW_WITH_ORIGIN => {
                let lsn = back(end, get(c)?)?;
                let xid = self.get_xid(c)?;
                let (rmgr, info) = (Rmgr(c.u8()?), c.u8()?);
                let origin = if kind == RAW_WITH_ORIGIN { Some(c.u16()?) } else { None };
                let len = usize::try_from(get(c)?).ok()?;
                Some(LogItem { lsn, end, xid, rmgr, info, origin, main_data: c.take(len)?.to_vec() })
            }
            _ => None,
        }
    }
}

fn back(end: Lsn, units: u64) -> Option<Lsn> {
    Some(Lsn(end.0.checked_sub(units.checked_mul(8)?)?))
}

/// Kind and time of a plain commit or rollback.
fn plain(record: &LogItem, len: u64) -> Option<(u8, i64)> {
    let kind = match (record.rmgr, record.info) {
        (Rmgr::TRANSACTION, 0) => PLAIN_COMMIT,
        (Rmgr::TRANSACTION, XACT_ABORT) => PLAIN_ABORT,
        _ => return None,
    };
    let time: [u8; 8] = record.main_data.as_slice().try_into().ok()?;
    (record.origin.is_none() && len == PLAIN_UNITS).then_some((kind, i64::from_le_bytes(time)))
}

/// Reads a block of the log, handing each item over; `each` may stop by returning `false`. `None` if the bytes make no sense.
pub fn read_log(bytes: &[u8], base: Lsn, each: &mut dyn FnMut(LogItem) -> bool) -> Option<()> {
    let mut c = Cursor::new(bytes);
    let mut state = LogState::new(base);
    while !c.is_empty() {
        if !each(state.get_item(&mut c)?) {
            return Some(());
        }
    }
    Some(())
}
