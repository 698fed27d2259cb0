//! GiST: inner and leaf pages of index tuples, and the marks that let a scan notice a split.
//!
//! Source: gistxlog.c, gistxlog.h, gist.h, gistutil.c (14 to 18; 16 added a flag to DELETE).

use crate::pg::page::{HEADER_LEN, Page};
use crate::pg::wal::Record;
use crate::pg::{BlockNo, Lsn, Major};

use super::change::{Change, Stamp};
use super::fault::Fault;
use super::index::{NO_BLOCK, append_tuples, change_flags, check_special, take_tuple};

const PAGE_UPDATE: u8 = 0x00;
const DELETE: u8 = 0x10;
const PAGE_SPLIT: u8 = 0x30;
const PAGE_DELETE: u8 = 0x60;

/// `GIST_ROOT_BLKNO`.
const ROOT: BlockNo = 0;

/// `GISTPageOpaqueData`: NSN 8, right link 4, flags 2, page id 2.
const SPECIAL: usize = 8192 - 16;
const RIGHT_LINK: usize = SPECIAL + 8;
const FLAGS: usize = SPECIAL + 12;
const PAGE_ID: usize = SPECIAL + 14;
const GIST_PAGE_ID: u16 = 0xFF81;

const LEAF: u16 = 1 << 0;
const DELETED: u16 = 1 << 1;
/// Says that a leaf lost tuples. Nothing in Postgres reads it. 14.23, 16.14, 17.10 and 18.6 set it, 15.20 no longer does, and no record tells
/// which server wrote it, so we set it and comparisons mask it.
const TUPLES_DELETED: u16 = 1 << 2;
const FOLLOW_RIGHT: u16 = 1 << 3;
const HAS_GARBAGE: u16 = 1 << 4;

/// Is this the left child of a split, whose marks change even where the record restored it from an image? The image was taken before they did.
pub(super) fn changes_restored_page(record: &Record<'_>, id: u8) -> bool {
    matches!((record.op(), id), (PAGE_UPDATE, 1) | (PAGE_SPLIT, 0))
}

pub(super) fn redo(change: &Change<'_, '_>, page: &mut Page) -> Result<Stamp, Fault> {
    match (change.record.op(), change.block.id) {
        (PAGE_UPDATE, 0) => update(change, page)?,
        (PAGE_UPDATE, 1) | (PAGE_SPLIT, 0) => clear_follow_right(change, page)?,
        (DELETE, 0) => delete(change, page)?,
        (PAGE_SPLIT, _) => split(change, page)?,
        (PAGE_DELETE, 0) => delete_page(page, change.main().u64()?)?,
        (PAGE_DELETE, 1) => {
            let mut main = change.main();
            main.skip(8)?;
            page.index_tuple_delete(main.u16()?)?;
        }
        _ => return Err(Fault::Unsupported),
    }
    Ok(Stamp::Lsn)
}

/// Replaces one tuple in place, or deletes some and adds others (`gistRedoPageUpdateRecord`).
fn update(change: &Change<'_, '_>, page: &mut Page) -> Result<(), Fault> {
    let (mut main, mut data) = (change.main(), change.data());
    let doomed = usize::from(main.u16()?);
    let added = main.u16()?;
    if doomed == 1 && added == 1 {
        let number = data.u16()?;
        page.index_tuple_overwrite(number, take_tuple(&mut data)?)?;
    } else if doomed > 0 {
        page.index_multi_delete(&data.offsets(doomed)?)?;
        check_special(page, SPECIAL)?;
        if page.u16_at(FLAGS)? & LEAF != 0 {
            change_flags(page, FLAGS, TUPLES_DELETED, 0)?;
        }
    }
    append_tuples(page, data)
}

/// Deletes tuples that an insertion found dead (`gistRedoDeleteRecord`): horizon 4, count 2, (16+) catalog flag 1 and padding 1, numbers.
fn delete(change: &Change<'_, '_>, page: &mut Page) -> Result<(), Fault> {
    check_special(page, SPECIAL)?;
    let mut main = change.main();
    main.skip(4)?;
    let count = usize::from(main.u16()?);
    if change.major >= Major::V16 {
        main.skip(2)?;
    }
    page.index_multi_delete(&main.offsets(count)?)?;
    change_flags(page, FLAGS, TUPLES_DELETED, HAS_GARBAGE)
}

/// One page of a split (`gistRedoPageSplitRecord`). Block references 1 to n are the pages from left to right, and each carries its tuples.
fn split(change: &Change<'_, '_>, page: &mut Page) -> Result<(), Fault> {
    let mut main = change.main();
    let old_right_link = main.u32()?;
    main.skip(4)?;
    let old_nsn = Lsn(main.u64()?);
    let was_leaf = main.u8()? != 0;
    main.skip(1)?;
    let pages = main.u16()?;
    let mark_follow_right = main.u8()? != 0;

    let id = change.block.id;
    let is_root = change.block.tag.block == ROOT;
    let is_last = u16::from(id) >= pages;
    let right_link = match change.block_no(id.wrapping_add(1)) {
        _ if is_root => NO_BLOCK,
        _ if is_last => old_right_link,
        next => next.ok_or(Fault::Damaged("page split without the next page"))?,
    };
    let splits_root = change.block_no(1) == Some(ROOT);
    let mut flags = if was_leaf && !is_root { LEAF } else { 0 };
    if !is_root && !is_last && !splits_root && mark_follow_right {
        flags |= FOLLOW_RIGHT;
    }

    page.init(16)?;
    set_nsn(page, old_nsn)?;
    page.put(RIGHT_LINK, &right_link.to_le_bytes())?;
    page.put(FLAGS, &flags.to_le_bytes())?;
    page.put(PAGE_ID, &GIST_PAGE_ID.to_le_bytes())?;
    let mut tuples = change.data();
    tuples.skip(4)?; // their number, which their lengths tell as well
    append_tuples(page, tuples)
}

/// The parent knows the right half of a split now (`gistRedoClearFollowRight`).
fn clear_follow_right(change: &Change<'_, '_>, page: &mut Page) -> Result<(), Fault> {
    check_special(page, SPECIAL)?;
    set_nsn(page, change.record.end)?;
    change_flags(page, FLAGS, 0, FOLLOW_RIGHT)
}

/// `GistPageSetDeleted`: the full xid lies where line pointers would.
fn delete_page(page: &mut Page, xid: u64) -> Result<(), Fault> {
    check_special(page, SPECIAL)?;
    change_flags(page, FLAGS, DELETED, 0)?;
    page.set_lower(HEADER_LEN + 8)?;
    Ok(page.put(HEADER_LEN, &xid.to_le_bytes())?)
}

/// Stored as an Lsn is: two 32-bit halves, the high one first.
fn set_nsn(page: &mut Page, nsn: Lsn) -> Result<(), Fault> {
    Ok(page.put(SPECIAL, &nsn.0.rotate_left(32).to_le_bytes())?)
}
