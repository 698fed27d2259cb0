//! Applies one WAL record to one page, as Postgres's own redo would.
//!
//! From: `view::page`, which holds a Recipe and the page so far.  To: a file per resource manager below `redo/`.
//! In: a [`Record`], which of its blocks is meant, the page before it.  Out: the page after it, its Lsn set to the record's end.
//! Pure: no IO, no other page is looked at. What cannot be applied exactly is an error, never a guess. Checksums are the caller's.
//!
//! What is common to all pages is here and follows `XLogReadBufferForRedoExtended` (xlogutils.c): a full-page image replaces the
//! page, `WILL_INIT` starts from zeroes, a page that carries a later Lsn is left alone, a page that is not there is skipped.

mod brin;
mod btree;
mod change;
mod data;
mod fault;
mod generic;
mod gin;
mod gist;
mod hash;
mod heap;
mod heap2;
mod index;
pub mod mask;
mod sequence;
mod spgist;
#[cfg(test)]
mod tests;
mod tuple;
mod vm;
mod xlog;

use thiserror::Error;

use crate::pg::page::Page;
use crate::pg::wal::{Record, Rmgr};
use crate::pg::{BlockNo, BlockTag, Fork, Lsn, Major, RelFileLocator};

use change::{Change, Stamp};
use fault::Fault;

/// What redo must know of the cluster besides the record.
#[derive(Debug, Clone, Copy)]
pub struct Context {
    /// Major version that wrote the record.
    pub major: Major,
    /// `data_checksum_version` or `wal_log_hints` is on: HEAP2 VISIBLE then bumps the heap page's Lsn.
    pub hint_bits_logged: bool,
}

/// Which of a record's effects is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The block reference with this id.
    Block(u8),
    /// This block of the visibility map, in which a heap record clears bits though it has no reference to it
    /// (14 to 16, 17.0 to 17.10 and 18.0 to 18.4 never have one).
    UnregisteredVm(BlockNo),
}

/// What became of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It is as the record left it.
    Applied,
    /// Its Lsn says that it had this change already; nothing was done.
    AlreadyApplied,
    /// It was never initialised and the record does not do so; nothing was done. Postgres expects a truncation or drop later in the WAL.
    NoPage,
}

/// Why a record could not be applied.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum RedoError {
    /// No routine for this operation.
    #[error("no redo for resource manager {rmgr} operation {op:02X} of Postgres {major} (record at {lsn})")]
    Unsupported { rmgr: u8, op: u8, major: Major, lsn: Lsn },
    /// The record contradicts itself or the page.
    #[error("record at {lsn} does not fit {tag}: {what}")]
    Damaged { lsn: Lsn, tag: BlockTag, what: &'static str },
}

/// Applies `record` to `page`, which is the block that `target` says.
///
/// On success the page carries the record's end as its Lsn wherever native redo would set it. The page's checksum is not touched.
///
/// # Errors
/// `Unsupported` for an operation without a routine, `Damaged` if the record does not fit the page. The page may be half changed then: throw it away.
pub fn apply(context: &Context, record: &Record<'_>, target: Target, page: &mut Page) -> Result<Effect, RedoError> {
    match target {
        Target::Block(id) => apply_block(context, record, id, page),
        Target::UnregisteredVm(block) => Ok(vm::clear_unregistered(record, block, page)),
    }
}

fn apply_block(context: &Context, record: &Record<'_>, id: u8, page: &mut Page) -> Result<Effect, RedoError> {
    let Some(block) = record.block(id) else {
        let tag = record.blocks.first().map_or(NOWHERE, |b| b.tag);
        return Err(RedoError::Damaged { lsn: record.lsn, tag, what: "record has no such block reference" });
    };
    let explain = |fault: Fault| match fault {
        Fault::Damaged(what) => RedoError::Damaged { lsn: record.lsn, tag: block.tag, what },
        Fault::Unsupported => RedoError::Unsupported { rmgr: record.rmgr.0, op: record.op(), major: context.major, lsn: record.lsn },
    };
    if let Some(image) = block.image.as_ref().filter(|image| image.apply) {
        change::restore_image(image, page).map_err(explain)?;
        if !page.is_new() {
            page.set_lsn(record.end);
        }
        if !changes_restored_page(record, id) {
            return Ok(Effect::Applied);
        }
    } else if block.will_init {
        page.0.fill(0);
    } else if page.is_new() && !(record.rmgr == Rmgr::HEAP2 && heap2::creates_missing_page(record, block)) {
        return Ok(Effect::NoPage);
    } else if page.lsn() >= record.end {
        return Ok(Effect::AlreadyApplied);
    }
    let change = Change { major: context.major, hint_bits_logged: context.hint_bits_logged, record, block };
    if dispatch(&change, page).map_err(explain)? == Stamp::Lsn {
        page.set_lsn(record.end);
    }
    Ok(Effect::Applied)
}

/// The one place that knows which file redoes which resource manager.
fn dispatch(change: &Change<'_, '_>, page: &mut Page) -> Result<Stamp, Fault> {
    match change.record.rmgr {
        Rmgr::XLOG => xlog::redo(change, page),
        Rmgr::HEAP => heap::redo(change, page),
        Rmgr::HEAP2 => heap2::redo(change, page),
        Rmgr::BTREE => btree::redo(change, page),
        Rmgr::SEQUENCE => sequence::redo(change, page),
        Rmgr::GENERIC => generic::redo(change, page),
        Rmgr::BRIN => brin::redo(change, page),
        Rmgr::GIN => gin::redo(change, page),
        Rmgr::GIST => gist::redo(change, page),
        Rmgr::HASH => hash::redo(change, page),
        Rmgr::SPGIST => spgist::redo(change, page),
        _ => Err(Fault::Unsupported),
    }
}

/// Does native redo change this block even after it restored it from an image? (`BLK_RESTORED` is not enough for a few.)
fn changes_restored_page(record: &Record<'_>, id: u8) -> bool {
    match record.rmgr {
        Rmgr::GIST => gist::changes_restored_page(record, id),
        Rmgr::HASH => hash::changes_restored_page(record, id),
        _ => false,
    }
}

/// Stands in for the address of a block when a record has none at all.
const NOWHERE: BlockTag =
    BlockTag { rel: RelFileLocator { tablespace: 0, database: 0, relation: 0 }, fork: Fork::Main, block: BlockNo::MAX };
