//! Blanks what redo cannot know of a page, so that two pages can be compared byte for byte.
//!
//! A server changes hints (who committed, which line pointer is dead) without WAL, and what lies in a page's hole is nobody's business.
//! Meant for proofs: `wal_consistency_checking` images against our redo, a mounted page against a recovered one.
//! Follows the `rm_mask` functions (bufmask.c, heapam_xlog.c, nbtxlog.c and others), except that the visibility map is compared whole.

use crate::pg::page::{ALL_VISIBLE, HAS_FREE_LINES, HEADER_LEN, ItemId, PAGE_FULL, Page};
use crate::pg::wal::Rmgr;
use crate::pg::{BlockTag, Fork, Lsn};

/// Blanks in `page`, which is the block `tag`, what `rmgr` says may differ. Both pages of a comparison want the same treatment.
pub fn mask(rmgr: Rmgr, tag: BlockTag, page: &mut Page) {
    page.set_lsn(Lsn::INVALID);
    page.set_stored_checksum(0);
    if !matches!(rmgr, Rmgr::SEQUENCE | Rmgr::GENERIC) {
        page.set_prune_xid(0);
        page.set_flags(page.flags() & !(PAGE_FULL | HAS_FREE_LINES | ALL_VISIBLE));
    }
    if tag.fork == Fork::Vm {
        return;
    }
    match rmgr {
        Rmgr::HEAP | Rmgr::HEAP2 => mask_heap(tag, page),
        Rmgr::BTREE => mask_btree(page),
        Rmgr::HASH => mask_hash(page),
        Rmgr::GIN => mask_gin(page),
        Rmgr::GIST => mask_gist(page),
        Rmgr::BRIN => mask_brin(page),
        _ => {}
    }
    if has_hole(rmgr, page) {
        mask_hole(page);
    }
}

/// May what lies between `lower` and `upper` differ? A revmap page is full there; GIN pages and old meta pages may not have set `lower`.
fn has_hole(rmgr: Rmgr, page: &mut Page) -> bool {
    let lower_is_set = page.lower() > HEADER_LEN;
    match rmgr {
        Rmgr::GIN => lower_is_set,
        Rmgr::BRIN => match special_u16(page, BRIN_PAGE_TYPE, |kind| kind) {
            BRIN_REGULAR => true,
            BRIN_REVMAP => false,
            _ => lower_is_set,
        },
        _ => true,
    }
}

/// Zeroes what lies between line pointers and items.
pub fn mask_hole(page: &mut Page) {
    let (lower, upper) = (page.lower(), page.upper());
    if let Some(hole) = page.0.get_mut(lower.max(HEADER_LEN)..upper) {
        hole.fill(0);
    }
}

fn mask_content(page: &mut Page) {
    page.0[HEADER_LEN..].fill(0);
    page.0[12..16].fill(0); // lower and upper
}

fn mask_line_pointer_states(page: &mut Page) {
    for number in 1..=page.max_offset() {
        if let Ok(id) = page.item_id(number) {
            let _fits = page.set_item_id(number, id.with_state(0));
        }
    }
}

fn special_u16(page: &mut Page, at: usize, change: impl FnOnce(u16) -> u16) -> u16 {
    let Some(field) = page.special_mut().ok().and_then(|special| special.get_mut(at..at + 2)) else { return 0 };
    let before = u16::from_le_bytes([field[0], field[1]]);
    field.copy_from_slice(&change(before).to_le_bytes());
    before
}

/// Hints of a tuple's transaction status: all of them, or for a frozen xmin only those of xmax.
fn mask_heap(tag: BlockTag, page: &mut Page) {
    const XACT_MASK: u16 = 0xFFF0;
    const XMIN_FROZEN: u16 = 0x0300;
    const XMAX_HINTS: u16 = 0x0C00;
    const SPECULATIVE_TOKEN: u16 = 0xFFFE;
    for number in 1..=page.max_offset() {
        let Ok(id) = page.item_id(number) else { continue };
        if let (true, Ok(tuple)) = (id.is_normal(), page.item_mut(number))
            && tuple.len() >= 23
        {
            let mask = u16::from_le_bytes([tuple[20], tuple[21]]);
            let frozen = mask & XMIN_FROZEN == XMIN_FROZEN;
            tuple[20..22].copy_from_slice(&(mask & !if frozen { XMAX_HINTS } else { XACT_MASK }).to_le_bytes());
            tuple[8..12].fill(0); // command id
            if u16::from_le_bytes([tuple[16], tuple[17]]) == SPECULATIVE_TOKEN {
                tuple[12..18].copy_from_slice(&super::tuple::ctid(tag.block, number));
            }
        }
        mask_padding(id, page);
    }
}

fn mask_padding(id: ItemId, page: &mut Page) {
    let end = id.offset() + id.len();
    if id.has_storage()
        && let Some(padding) = page.0.get_mut(end..end.next_multiple_of(8))
    {
        padding.fill(0);
    }
}

fn mask_btree(page: &mut Page) {
    const LEAF: u16 = 0x01;
    const SPLIT_END_OR_GARBAGE: u16 = 0x60;
    let flags = special_u16(page, 12, |flags| flags & !SPLIT_END_OR_GARBAGE);
    special_u16(page, 14, |_cycle_id| 0);
    if flags & LEAF != 0 {
        mask_line_pointer_states(page);
    }
}

fn mask_hash(page: &mut Page) {
    const BUCKET_OR_OVERFLOW: u16 = 0x03;
    const PAGE_TYPE: u16 = 0x0F;
    const HAS_DEAD_TUPLES: u16 = 0x80;
    let flags = special_u16(page, 12, |flags| flags & !HAS_DEAD_TUPLES);
    if flags & PAGE_TYPE == 0 {
        mask_content(page);
    } else if flags & BUCKET_OR_OVERFLOW != 0 {
        mask_line_pointer_states(page);
    }
}

fn mask_gin(page: &mut Page) {
    const DELETED: u16 = 0x04;
    if special_u16(page, 6, |flags| flags) & DELETED != 0 {
        mask_content(page);
    }
}

/// `TUPLES_DELETED` is blanked too, which Postgres does not: redo of DELETE sets it in 14.23, 16.14, 17.10 and 18.6 though the primary does not
/// (such a server stops at its own check), 15.20 sets it nowhere, and nothing reads it.
fn mask_gist(page: &mut Page) {
    const LEAF: u16 = 0x01;
    const TUPLES_DELETED: u16 = 0x04;
    const FOLLOW_RIGHT: u16 = 0x08;
    const HAS_GARBAGE: u16 = 0x10;
    let flags = special_u16(page, 12, |flags| (flags | FOLLOW_RIGHT) & !(HAS_GARBAGE | TUPLES_DELETED));
    if let Some(nsn) = page.special_mut().ok().and_then(|special| special.get_mut(..8)) {
        nsn.fill(0);
    }
    if flags & LEAF != 0 {
        mask_line_pointer_states(page);
    }
}

/// Where a BRIN page says what it is, in its special space.
const BRIN_PAGE_TYPE: usize = 6;
const BRIN_REVMAP: u16 = 0xF092;
const BRIN_REGULAR: u16 = 0xF093;

fn mask_brin(page: &mut Page) {
    const EVACUATE: u16 = 0x01;
    special_u16(page, 4, |flags| flags & !EVACUATE);
}
