//! BRIN: summaries of block ranges, and the map from a range to its summary.
//!
//! An index has a metapage (block 0), map pages (an array of 1360 item pointers each), and regular pages of summaries whose
//! line pointer numbers never change, because the map points at them.
//! Source: brin_xlog.c, brin_xlog.h, brin_page.h, brin_pageops.c, brin_revmap.c (14 to 18 agree).

use crate::pg::page::{HEADER_LEN, Page, Placement};

use super::change::{Change, Stamp};
use super::data::Data;
use super::fault::Fault;
use super::index::{NO_POINTER, item_pointer};

/// The opcode; the bit above it says that the regular page is made anew.
const OP_MASK: u8 = 0x70;
const INIT_PAGE: u8 = 0x80;

const CREATE_INDEX: u8 = 0x00;
const INSERT: u8 = 0x10;
const UPDATE: u8 = 0x20;
const SAMEPAGE_UPDATE: u8 = 0x30;
const REVMAP_EXTEND: u8 = 0x40;
const DESUMMARIZE: u8 = 0x50;

/// `BrinSpecialSpace`: four 16-bit words, the third flags, the last the page's type.
const SPECIAL_LEN: usize = 8;
const PAGE_TYPE: usize = 8192 - 2;

const TYPE_META: u16 = 0xF091;
const TYPE_REVMAP: u16 = 0xF092;
const TYPE_REGULAR: u16 = 0xF093;

/// `BRIN_META_MAGIC`.
const META_MAGIC: u32 = 0xA810_9CFA;
/// Where `BrinMetaPageData` ends: magic, version, pages per range, last map page.
const META_END: usize = HEADER_LEN + 16;
const META_LAST_REVMAP: usize = HEADER_LEN + 12;
/// `REVMAP_PAGE_MAXITEMS`: item pointers on a map page.
const REVMAP_ITEMS: u32 = 1360;

pub(super) fn redo(change: &Change<'_, '_>, page: &mut Page) -> Result<Stamp, Fault> {
    let mut main = change.main();
    match (change.record.op() & OP_MASK, change.block.id) {
        (CREATE_INDEX, 0) => init_meta(page, main.u32()?, main.u16()?)?,
        (INSERT, 0 | 1) => insert(change, main, page)?,
        (UPDATE, 0 | 1) => {
            main.skip(4)?;
            insert(change, main, page)?;
        }
        (UPDATE, 2) => page.index_tuple_delete_no_compact(main.u16()?)?,
        (SAMEPAGE_UPDATE, 0) => page.index_tuple_overwrite(main.u16()?, change.data().rest())?,
        (REVMAP_EXTEND, 0) => {
            page.put(META_LAST_REVMAP, &main.u32()?.to_le_bytes())?;
            page.set_lower(META_END)?;
        }
        (REVMAP_EXTEND, 1) => init(page, TYPE_REVMAP)?,
        (DESUMMARIZE, 0) => point(page, main.u32()?, main.u32()?, NO_POINTER)?,
        (DESUMMARIZE, 1) => {
            main.skip(8)?;
            page.index_tuple_delete_no_compact(main.u16()?)?;
        }
        _ => return Err(Fault::Unsupported),
    }
    Ok(Stamp::Lsn)
}

/// `brin_xlog_insert_update`: block 0 takes the summary, the map page 1 points at it.
fn insert(change: &Change<'_, '_>, mut main: Data<'_>, page: &mut Page) -> Result<(), Fault> {
    let (heap_block, pages_per_range, number) = (main.u32()?, main.u32()?, main.u16()?);
    if change.block.id == 1 {
        let summary_page = change.block_no(0).ok_or(Fault::Damaged("summary without its page"))?;
        return point(page, pages_per_range, heap_block, item_pointer(summary_page, number));
    }
    if change.record.info & INIT_PAGE != 0 {
        init(page, TYPE_REGULAR)?;
    }
    page.add_item(change.data().rest(), number, Placement::Overwrite)?;
    Ok(())
}

/// `brin_page_init`.
fn init(page: &mut Page, page_type: u16) -> Result<(), Fault> {
    page.init(SPECIAL_LEN)?;
    Ok(page.put(PAGE_TYPE, &page_type.to_le_bytes())?)
}

/// `brin_metapage_init`.
fn init_meta(page: &mut Page, pages_per_range: u32, version: u16) -> Result<(), Fault> {
    init(page, TYPE_META)?;
    let fields = [META_MAGIC, u32::from(version), pages_per_range, 0];
    for (at, value) in (HEADER_LEN..META_END).step_by(4).zip(fields) {
        page.put(at, &value.to_le_bytes())?;
    }
    Ok(page.set_lower(META_END)?)
}

/// Makes the map page point the range of `heap_block` at `summary` (`brinSetHeapBlockItemptr`).
fn point(page: &mut Page, pages_per_range: u32, heap_block: u32, summary: [u8; 6]) -> Result<(), Fault> {
    let range = heap_block.checked_div(pages_per_range).ok_or(Fault::Damaged("a range of no pages"))?;
    Ok(page.put(HEADER_LEN + 6 * (range % REVMAP_ITEMS) as usize, &summary)?)
}
