//! The block index of WAL: for one segment, or (a roll-up) for a run of them.
//!
//! From: `archive`, which builds one as it stores a segment; `repo`, which merges them.  To: `repo::locate`, `repo::resolve`, `view`.
//! In it, sorted by block: in which chunks of WAL records begin that touch the block, and whether one of them alone rebuilds the page. In WAL order:
//! the log of metadata, the records that do more than change their blocks. Beside it the status of the transactions that ended, a summary of each
//! segment, and what happened to each file's length.
//!
//! ```text
//! blocks of entries | blocks of statuses | blocks of the log | filter | front: summaries, extents, three directories | trailer, 64 bytes
//! ```
//! A reader takes trailer and front (one read, and it comes along when the object is opened), then a block of about 4 KiB per question: a day of WAL
//! is never loaded whole.
//! A record belongs to the segment in which it **ends**: only then is all of it there. Derived data: it can be rebuilt from the segments at any
//! time. Not compressed here: it becomes the aux stream of a sealed object, which is. docs/format.md has every byte.

#[doc(hidden)]
pub mod blocks;
mod build;
mod extent;
mod filter;
mod front;
mod merge;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use build::{Built, InMemory, Subject, build};
pub use extent::SizeChange;
pub use front::INDEX_VERSION;
pub use merge::{merge, merge_in_memory};
pub use read::{Index, IndexBytes, IndexError};
#[doc(hidden)]
pub use write::Writer;

use thiserror::Error;

use crate::pg::timestamp::PgTime;
use crate::pg::wal::{Effect, EffectError, Record, Rmgr, effect};
use crate::pg::{BlockTag, Lsn, Major, SegmentSize, WalSegment};

/// That records which begin in one chunk of WAL touch one block.
///
/// Which records these are is found by reading the chunk: it must be fetched for them anyway. A record that changes a block a hundred times in a
/// chunk costs the index as much as one that changes it once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub tag: BlockTag,
    pub chunk: WalChunk,
    /// At least one of the records alone rebuilds the page: an image to apply, or it starts from a page of zeros.
    pub rebuilds: bool,
}

/// 128 KiB of WAL, counted from Lsn 0: one chunk of a stored segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WalChunk(pub u64);

impl WalChunk {
    pub const BYTES: u64 = 128 << 10;

    /// The chunk that holds `lsn`.
    #[must_use]
    pub fn of(lsn: Lsn) -> WalChunk {
        WalChunk(lsn.0 / WalChunk::BYTES)
    }

    /// Its first byte.
    #[must_use]
    pub fn start(self) -> Lsn {
        Lsn(self.0.saturating_mul(WalChunk::BYTES))
    }

    /// The first byte after it.
    #[must_use]
    pub fn end(self) -> Lsn {
        Lsn(self.start().0.saturating_add(WalChunk::BYTES))
    }
}

/// One item of the log of metadata: a record that does more than change its blocks, without its header and without block references.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogItem {
    pub lsn: Lsn,
    /// Exclusive end of the record: it is in force at every Lsn from here on.
    pub end: Lsn,
    pub xid: u32,
    pub rmgr: Rmgr,
    pub info: u8,
    pub origin: Option<u16>,
    pub main_data: Vec<u8>,
}

impl LogItem {
    /// What the record does; `None` if nothing but change its blocks.
    ///
    /// # Errors
    /// [`EffectError`]: the log keeps records that this program does not know, so that nobody guesses.
    pub fn effect(&self, major: Major) -> Result<Option<Effect>, EffectError> {
        effect::effect(&self.as_record(), major)
    }

    /// The record without header fields that the log leaves out (predecessor, length, top-level xid).
    fn as_record(&self) -> Record<'_> {
        Record {
            lsn: self.lsn,
            end: self.end,
            prev: Lsn::INVALID,
            total_len: 0,
            xid: self.xid,
            rmgr: self.rmgr,
            info: self.info,
            origin: self.origin,
            toplevel_xid: None,
            blocks: Vec::new(),
            main_data: &self.main_data,
        }
    }
}

/// How [`STATUS_XIDS`] transactions ended, as a part of a page of `pg_xact` has it: two bits each, 1 committed, 2 rolled back, 0 not said here.
pub type StatusBits = [u8; STATUS_XIDS as usize / 4];

/// Transactions whose status is written side by side.
pub const STATUS_XIDS: u32 = 1024;

/// What an index is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct About {
    pub major: Major,
    pub system_id: u64,
    pub segment_size: SegmentSize,
    /// The first segment.
    pub first: WalSegment,
    /// Number of the last segment, on the same timeline.
    pub last_no: u64,
}

/// What is known of one segment without looking at its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    pub segment: WalSegment,
    /// What became of the record that reaches in from the segment before.
    pub head: Head,
    /// End of the last record that ends here; the segment's start if none does.
    pub end: Lsn,
    /// Start of the record that reaches into the next segment.
    pub tail: Option<Lsn>,
    /// All of the segment was read. Else its WAL ends at [`Summary::end`], as in a `.partial` file.
    pub is_whole: bool,
    /// Records that end here.
    pub records: u64,
    /// Lowest and highest time of a commit or rollback. Times need not rise with the Lsn.
    pub times: Option<(PgTime, PgTime)>,
    /// Oldest and newest xid (by age, xids wrap around) among transactions that ended here.
    pub finished: Option<(u32, u32)>,
    /// Newest xid (by age) of any record, and of any transaction that ended.
    pub newest_xid: Option<u32>,
    pub has: Has,
}

/// The record that reaches into a segment from the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// There is none, or it does not end here either.
    None,
    /// It begins at this Lsn; its entries are here.
    Included(Lsn),
    /// Its beginning was not at hand when the index was built: **its entries are missing**.
    Missing,
}

/// Kinds of events that a segment has at least one of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Has(pub u32);

impl Has {
    pub const CHECKPOINT: Has = Has(1);
    pub const RESTORE_POINT: Has = Has(1 << 1);
    pub const BACKUP_END: Has = Has(1 << 2);
    /// A timeline begins here.
    pub const TIMELINE: Has = Has(1 << 3);
    /// Databases copied file by file: the copies are not in the extents.
    pub const DATABASE_COPY: Has = Has(1 << 4);
    pub const TABLESPACE: Has = Has(1 << 5);
    pub const TWO_PHASE: Has = Has(1 << 6);
    /// Relation files created, truncated or unlinked.
    pub const FILES: Has = Has(1 << 7);
    pub const RELATION_MAP: Has = Has(1 << 8);
    /// A record of an extension that refers to no block.
    pub const OPAQUE: Has = Has(1 << 9);
    /// A record of an extension that changes blocks.
    pub const CUSTOM_BLOCKS: Has = Has(1 << 10);
    /// A record that this program does not know.
    pub const UNKNOWN: Has = Has(1 << 11);
    /// `full_page_writes` was switched off.
    pub const FULL_PAGE_WRITES_OFF: Has = Has(1 << 12);
    /// A part of `pg_xact` or `pg_commit_ts` was cut off, which must be seen in its order among the transactions that ended.
    pub const XACT_CUT: Has = Has(1 << 13);
    /// Settings that `pg_control` copies were changed, `track_commit_timestamp` perhaps.
    pub const PARAMETERS: Has = Has(1 << 14);
    /// Every transaction that ended is in the log, with its time. Else those of which only the status matters are in the statuses alone.
    pub const COMMIT_TIMES: Has = Has(1 << 15);
    /// Databases dropped whole.
    pub const DATABASE_DROP: Has = Has(1 << 16);

    /// Is any of `other` here?
    #[must_use]
    pub fn any(self, other: Has) -> bool {
        self.0 & other.0 != 0
    }

    fn add(&mut self, other: Has) {
        self.0 |= other.0;
    }
}

/// An index that cannot be read.
#[derive(Debug, Clone, Copy, Error, PartialEq, Eq)]
pub enum BadIndex {
    #[error("this is not a WAL index")]
    Magic,
    #[error("WAL index of format version {found}, this program reads up to {newest}")]
    Version { found: u16, newest: u16 },
    #[error("the WAL index is damaged: {what}")]
    Damaged { what: &'static str },
}

/// Is xid `a` newer than `b`? Xids wrap around (`TransactionIdFollows`).
#[must_use]
pub(crate) fn is_newer(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() > 0
}
