//! The visibility map: two bits for each heap block, cleared by heap records and set by HEAP2 VISIBLE (visibilitymap.c).
//!
//! Old minor versions clear bits without a block reference to the map's page (`pg::wal::vm`): then the page's Lsn neither
//! decides nor changes. With a reference both hold, as for any page.

use crate::pg::BlockNo;
use crate::pg::page::{HEADER_LEN, Page};
use crate::pg::wal::Record;
use crate::pg::wal::vm::{self, VmClear};

use super::Effect;
use super::change::{Change, Stamp};
use super::fault::Fault;

/// Where the two bits of a heap block lie in its map page: byte, and shift inside it.
fn place(heap_block: BlockNo) -> (usize, u32) {
    let within = heap_block % vm::HEAP_BLOCKS_PER_PAGE;
    (HEADER_LEN + within as usize / 4, within % 4 * 2)
}

/// Clears `bits` of a heap block; says whether one was set.
fn clear(page: &mut Page, clear: &VmClear) -> bool {
    let (byte, shift) = place(clear.heap_block);
    let mask = clear.bits << shift;
    let Some(byte) = page.0.get_mut(byte) else { return false };
    let was_set = *byte & mask != 0;
    *byte &= !mask;
    was_set
}

/// Clears the bits that a record clears in this map page without a reference to it. A page that is not there has none to clear.
pub(super) fn clear_unregistered(record: &Record<'_>, block: BlockNo, page: &mut Page) -> Effect {
    for bits in vm::unregistered_clears(record).filter(|c| c.tag().block == block) {
        clear(page, &bits);
    }
    Effect::Applied
}

/// Clears the bits of a registered map page; the Lsn moves only if one was set.
pub(super) fn clear_registered(change: &Change<'_, '_>, page: &mut Page) -> Result<Stamp, Fault> {
    let mut stamp = Stamp::Keep;
    for bits in vm::clears(change.record).filter(|c| c.tag().block == change.block.tag.block) {
        if clear(page, &bits) {
            stamp = Stamp::Lsn;
        }
    }
    Ok(stamp)
}

/// Sets the bits of a heap block (`visibilitymap_set`), on a page that may be new; the Lsn moves only if they changed.
pub(super) fn set(page: &mut Page, heap_block: BlockNo, bits: u8) -> Result<Stamp, Fault> {
    if page.is_new() {
        page.init(0)?;
    }
    let (byte, shift) = place(heap_block);
    let byte = page.0.get_mut(byte).ok_or(Fault::Damaged("no such heap block in a visibility map page"))?;
    let before = *byte >> shift & vm::VALID_BITS;
    if before == bits {
        return Ok(Stamp::Keep);
    }
    *byte |= bits << shift;
    Ok(Stamp::Lsn)
}
