//! The body of a checkpoint record, which `pg_control` holds a copy of.
//!
//! Source: pg_control.h `CheckPoint`: 88 bytes with the same offsets in 14 to 18 (`wal_level` is padding before 17).
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::pg::bytes::{get, put};
use crate::pg::{Lsn, Major, Timeline};

/// Bytes of a [`Checkpoint`] in 14 to 18.
pub const CHECKPOINT_BYTES: usize = 88;

/// What a checkpoint says of the whole cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// Redo starts here.
    pub redo: Lsn,
    pub timeline: Timeline,
    /// The timeline before, where this one begins; else the same.
    pub previous_timeline: Timeline,
    pub full_page_writes: bool,
    /// `wal_level` as a number; 17 and later.
    pub wal_level: Option<i32>,
    /// Next transaction id with its epoch (`FullTransactionId`).
    pub next_xid: u64,
    pub next_oid: u32,
    pub next_multi: u32,
    pub next_multi_offset: u32,
    pub oldest_xid: u32,
    pub oldest_xid_database: u32,
    pub oldest_multi: u32,
    pub oldest_multi_database: u32,
    /// Seconds since 1970.
    pub time: i64,
    pub oldest_commit_ts_xid: u32,
    pub newest_commit_ts_xid: u32,
    /// 0 in a shutdown checkpoint.
    pub oldest_active_xid: u32,
}

impl Checkpoint {
    /// Reads the first 88 bytes; `None` if there are fewer.
    #[must_use]
    pub fn decode(bytes: &[u8], major: Major) -> Option<Checkpoint> {
        Some(Checkpoint {
            redo: Lsn(get(bytes, 0)?),
            timeline: Timeline(get(bytes, 8)?),
            previous_timeline: Timeline(get(bytes, 12)?),
            full_page_writes: get::<u8>(bytes, 16)? != 0,
            wal_level: if major >= Major::V17 { Some(get(bytes, 20)?) } else { None },
            next_xid: get(bytes, 24)?,
            next_oid: get(bytes, 32)?,
            next_multi: get(bytes, 36)?,
            next_multi_offset: get(bytes, 40)?,
            oldest_xid: get(bytes, 44)?,
            oldest_xid_database: get(bytes, 48)?,
            oldest_multi: get(bytes, 52)?,
            oldest_multi_database: get(bytes, 56)?,
            time: get(bytes, 64)?,
            oldest_commit_ts_xid: get(bytes, 72)?,
            newest_commit_ts_xid: get(bytes, 76)?,
            oldest_active_xid: get(bytes, 80)?,
        })
    }

    /// The 88 bytes, padding zero.
    #[must_use]
    pub fn encode(&self) -> [u8; CHECKPOINT_BYTES] {
        let mut bytes = [0; CHECKPOINT_BYTES];
        put(&mut bytes, 0, self.redo.0);
        put(&mut bytes, 8, self.timeline.0);
        put(&mut bytes, 12, self.previous_timeline.0);
        put(&mut bytes, 16, u8::from(self.full_page_writes));
        put(&mut bytes, 20, self.wal_level.unwrap_or(0));
        put(&mut bytes, 24, self.next_xid);
        put(&mut bytes, 32, self.next_oid);
        put(&mut bytes, 36, self.next_multi);
        put(&mut bytes, 40, self.next_multi_offset);
        put(&mut bytes, 44, self.oldest_xid);
        put(&mut bytes, 48, self.oldest_xid_database);
        put(&mut bytes, 52, self.oldest_multi);
        put(&mut bytes, 56, self.oldest_multi_database);
        put(&mut bytes, 64, self.time);
        put(&mut bytes, 72, self.oldest_commit_ts_xid);
        put(&mut bytes, 76, self.newest_commit_ts_xid);
        put(&mut bytes, 80, self.oldest_active_xid);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_goes_both_ways() {
        let bytes: Vec<u8> = (1..=88).collect();
        let decoded = Checkpoint::decode(&bytes, Major::V17).unwrap();
        let again = Checkpoint::decode(&decoded.encode(), Major::V17).unwrap();
        assert_eq!(decoded, again);
        assert_eq!(decoded.next_oid, u32::from_le_bytes([33, 34, 35, 36]));
        assert!(Checkpoint::decode(&bytes[..83], Major::V17).is_none());
    }
}
