//! GIN: a tree of keys, a tree of heap positions for each frequent key, and a list of pending entries.
//!
//! Leaves of a posting tree hold compressed segments (`gin::recompress`, `gin::posting`), its inner pages an array of posting
//! items; everything else holds index tuples.
//! Source: ginxlog.c, ginxlog.h, ginblock.h, gindatapage.c, ginutil.c (14 to 18 agree).

mod posting;
mod recompress;

use crate::pg::BlockNo;
use crate::pg::page::{HEADER_LEN, Page, Placement};

use super::change::{Change, Stamp};
use super::data::Data;
use super::fault::Fault;
use super::index::{NO_BLOCK, append_tuples, block_id, change_flags, check_special, item_pointer, take_tuple};

const CREATE_PTREE: u8 = 0x10;
const INSERT: u8 = 0x20;
const SPLIT: u8 = 0x30;
const VACUUM_PAGE: u8 = 0x40;
const DELETE_PAGE: u8 = 0x50;
const UPDATE_META_PAGE: u8 = 0x60;
const INSERT_LISTPAGE: u8 = 0x70;
const DELETE_LISTPAGE: u8 = 0x80;
const VACUUM_DATA_LEAF_PAGE: u8 = 0x90;

/// Flags of INSERT and SPLIT.
const IS_DATA: u16 = 0x01;
const IS_LEAF: u16 = 0x02;

/// `GinPageOpaqueData`: right link 4, `maxoff` 2 (posting items of an inner page, heap tuples of a list page), flags 2.
const SPECIAL: usize = 8192 - 8;
const RIGHT_LINK: usize = SPECIAL;
const MAX_OFF: usize = SPECIAL + 4;
const FLAGS: usize = SPECIAL + 6;

const DATA: u16 = 1 << 0;
const LEAF: u16 = 1 << 1;
const DELETED: u16 = 1 << 2;
const META: u16 = 1 << 3;
const LIST: u16 = 1 << 4;
const LIST_FULL_ROW: u16 = 1 << 5;
const INCOMPLETE_SPLIT: u16 = 1 << 6;
const COMPRESSED: u16 = 1 << 7;

/// `sizeof(GinMetaPageData)`, padding included: it is copied from record to page as it is.
const META_LEN: usize = 56;
/// Where a posting tree's page begins its data: behind the right bound.
const CONTENT: usize = HEADER_LEN + 8;
/// `sizeof(PostingItem)`: child block number 4, key 6.
const POSTING_ITEM_LEN: usize = 10;

pub(super) fn redo(change: &Change<'_, '_>, page: &mut Page) -> Result<Stamp, Fault> {
    match (change.record.op(), change.block.id) {
        (CREATE_PTREE, 0) => create_posting_tree(change.main(), page)?,
        (INSERT, _) => insert(change, page)?,
        (SPLIT, 3) => end_split(page)?,
        (SPLIT, 0..=2) | (VACUUM_PAGE, 0) => return Err(Fault::Damaged("the image of the page is missing")),
        (VACUUM_DATA_LEAF_PAGE, 0) => recompress::redo(page, change.data())?,
        (DELETE_PAGE, 0..=2) => delete_page(change, page)?,
        (UPDATE_META_PAGE, 0) => {
            let mut main = change.main();
            main.skip(16)?; // the locator, padded to 8
            set_meta(page, main.take(META_LEN)?)?;
        }
        (UPDATE_META_PAGE, 1) => append_pending(change, page)?,
        (INSERT_LISTPAGE, 0) => new_list_page(change, page)?,
        (DELETE_LISTPAGE, 0) => set_meta(page, change.main().take(META_LEN)?)?,
        (DELETE_LISTPAGE, _) => init(page, DELETED)?,
        _ => return Err(Fault::Unsupported),
    }
    Ok(Stamp::Lsn)
}

/// The root of a new posting tree, still a leaf: length 4, then its segments.
fn create_posting_tree(mut main: Data<'_>, page: &mut Page) -> Result<(), Fault> {
    init(page, DATA | LEAF | COMPRESSED)?;
    let len = main.u32()? as usize;
    set_content(page, main.take(len)?)
}

/// Into block 0; on an inner page this ends the split of a child (block 1), whose right half the main data name.
fn insert(change: &Change<'_, '_>, page: &mut Page) -> Result<(), Fault> {
    let mut main = change.main();
    let flags = main.u16()?;
    let is_leaf = flags & IS_LEAF != 0;
    let right_child = if is_leaf {
        NO_BLOCK
    } else {
        main.skip(4)?; // the left one
        BlockNo::from(main.u16()?) << 16 | BlockNo::from(main.u16()?)
    };
    match change.block.id {
        0 if flags & IS_DATA == 0 => insert_entry(change.data(), right_child, page),
        0 if is_leaf => recompress::redo(page, change.data()),
        0 => insert_posting_item(change.data(), right_child, page),
        1 if !is_leaf => end_split(page),
        _ => Err(Fault::Unsupported),
    }
}

/// Into the tree of keys: number 2, whether it replaces the tuple there 1, padding 1, the tuple (`ginRedoInsertEntry`).
fn insert_entry(mut data: Data<'_>, right_child: BlockNo, page: &mut Page) -> Result<(), Fault> {
    let (number, replaces) = (data.u16()?, data.u8()? != 0);
    data.skip(1)?;
    if right_child != NO_BLOCK {
        let downlink = page.item_mut(number)?.first_chunk_mut().ok_or(Fault::Damaged("downlink is cut short"))?;
        *downlink = item_pointer(right_child, 0);
    }
    if replaces {
        page.index_tuple_delete(number)?;
    }
    page.add_item(take_tuple(&mut data)?, number, Placement::Shift)?;
    Ok(())
}

/// Into an inner page of a posting tree: number 2, the item. What was there now leads to the right half of the split.
fn insert_posting_item(mut data: Data<'_>, right_child: BlockNo, page: &mut Page) -> Result<(), Fault> {
    let number = data.u16()?;
    let count = posting_items(page, number)?;
    let at = posting_item_at(number);
    page.put(at, &block_id(right_child))?;
    let tail = posting_item_at(count + 1) - at;
    if at + tail + POSTING_ITEM_LEN > SPECIAL {
        return Err(Fault::Damaged("no room for the posting item"));
    }
    page.shift(at, at + POSTING_ITEM_LEN, tail)?;
    page.put(at, data.take(POSTING_ITEM_LEN)?)?;
    set_posting_items(page, count + 1)
}

/// A page of a posting tree (0) goes, from its parent (1) and its left neighbour (2).
fn delete_page(change: &Change<'_, '_>, page: &mut Page) -> Result<(), Fault> {
    check_special(page, SPECIAL)?;
    let mut main = change.main();
    let number = main.u16()?;
    main.skip(2)?;
    let (right_link, xid) = (main.u32()?, main.u32()?);
    match change.block.id {
        0 => {
            change_flags(page, FLAGS, DELETED, 0)?;
            page.set_prune_xid(xid);
            Ok(())
        }
        1 => delete_posting_item(page, number),
        _ => Ok(page.put(RIGHT_LINK, &right_link.to_le_bytes())?),
    }
}

fn delete_posting_item(page: &mut Page, number: u16) -> Result<(), Fault> {
    let count = posting_items(page, number)?;
    let (at, next) = (posting_item_at(number), posting_item_at(number + 1));
    page.shift(next, at, posting_item_at(count + 1) - next)?;
    set_posting_items(page, count - 1)
}

/// How many posting items an inner page has, `number` among them.
fn posting_items(page: &Page, number: u16) -> Result<u16, Fault> {
    check_special(page, SPECIAL)?;
    let count = page.u16_at(MAX_OFF)?;
    let sound = number != 0 && number <= count && posting_item_at(count) + POSTING_ITEM_LEN <= SPECIAL;
    if sound { Ok(count) } else { Err(Fault::Damaged("no such posting item")) }
}

fn set_posting_items(page: &mut Page, count: u16) -> Result<(), Fault> {
    page.put(MAX_OFF, &count.to_le_bytes())?;
    Ok(page.set_lower(posting_item_at(count) + POSTING_ITEM_LEN)?)
}

/// Where posting item `number`, from 1, lies; for 0 one item before the first.
fn posting_item_at(number: u16) -> usize {
    CONTENT + usize::from(number) * POSTING_ITEM_LEN - POSTING_ITEM_LEN
}

/// The tail of the pending list: more tuples, or a link to the sublist behind it (`ginRedoUpdateMetapage`).
fn append_pending(change: &Change<'_, '_>, page: &mut Page) -> Result<(), Fault> {
    check_special(page, SPECIAL)?;
    let mut main = change.main();
    main.skip(16 + META_LEN + 4)?;
    let (new_right_link, tuples) = (main.u32()?, main.u32()?.cast_signed());
    if tuples <= 0 {
        return Ok(page.put(RIGHT_LINK, &new_right_link.to_le_bytes())?);
    }
    append_tuples(page, change.data())?;
    let rows = page.u16_at(MAX_OFF)?.wrapping_add(1);
    Ok(page.put(MAX_OFF, &rows.to_le_bytes())?)
}

/// A page of a new sublist of pending entries; the last one ends with a whole heap tuple's entries.
fn new_list_page(change: &Change<'_, '_>, page: &mut Page) -> Result<(), Fault> {
    let right_link = change.main().u32()?;
    let is_tail = right_link == NO_BLOCK;
    init(page, if is_tail { LIST | LIST_FULL_ROW } else { LIST })?;
    page.put(RIGHT_LINK, &right_link.to_le_bytes())?;
    page.put(MAX_OFF, &u16::from(is_tail).to_le_bytes())?;
    append_tuples(page, change.data())
}

/// A metapage is always written whole.
fn set_meta(page: &mut Page, meta: &[u8]) -> Result<(), Fault> {
    init(page, META)?;
    page.put(HEADER_LEN, meta)?;
    Ok(page.set_lower(HEADER_LEN + META_LEN)?)
}

/// `ginRedoClearIncompleteSplit`.
fn end_split(page: &mut Page) -> Result<(), Fault> {
    check_special(page, SPECIAL)?;
    change_flags(page, FLAGS, 0, INCOMPLETE_SPLIT)
}

/// `GinInitPage`.
fn init(page: &mut Page, flags: u16) -> Result<(), Fault> {
    page.init(8)?;
    page.put(RIGHT_LINK, &NO_BLOCK.to_le_bytes())?;
    Ok(page.put(FLAGS, &flags.to_le_bytes())?)
}

/// Replaces all segments of a posting tree's leaf; what lay behind them stays in the hole.
fn set_content(page: &mut Page, segments: &[u8]) -> Result<(), Fault> {
    if CONTENT + segments.len() > SPECIAL {
        return Err(Fault::Damaged("segments are longer than the page"));
    }
    page.put(CONTENT, segments)?;
    Ok(page.set_lower(CONTENT + segments.len())?)
}
