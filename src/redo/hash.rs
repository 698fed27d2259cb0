//! Hash: bucket pages with chains of overflow pages, bitmaps of free overflow pages, and a metapage (`hash::meta`).
//!
//! A record that only wants the primary bucket's cleanup lock has block 0 for it and does not change it.
//! Source: hash_xlog.c, hash_xlog.h, hash.h, hashpage.c, hashovfl.c (14 to 18; 16 shortened the count in VACUUM_ONE_PAGE,
//! 17 leaves an untouched page in SQUEEZE_PAGE its Lsn).

mod meta;

use crate::pg::page::{HEADER_LEN, Page, Placement, max_align};
use crate::pg::wal::Record;
use crate::pg::{BlockNo, Major};

use super::change::{Change, Stamp};
use super::data::Data;
use super::fault::Fault;
use super::index::{NO_BLOCK, change_flags, check_special, tuple_len};

const INIT_META_PAGE: u8 = 0x00;
const INIT_BITMAP_PAGE: u8 = 0x10;
const INSERT: u8 = 0x20;
const ADD_OVFL_PAGE: u8 = 0x30;
const SPLIT_ALLOCATE_PAGE: u8 = 0x40;
const SPLIT_PAGE: u8 = 0x50;
const SPLIT_COMPLETE: u8 = 0x60;
const MOVE_PAGE_CONTENTS: u8 = 0x70;
const SQUEEZE_PAGE: u8 = 0x80;
const DELETE: u8 = 0x90;
const SPLIT_CLEANUP: u8 = 0xA0;
const UPDATE_META_PAGE: u8 = 0xB0;
const VACUUM_ONE_PAGE: u8 = 0xC0;

/// `HashPageOpaqueData`: previous block 4, next block 4, bucket 4, flags 2, page id 2.
const SPECIAL: usize = 8192 - 16;
const PREVIOUS: usize = SPECIAL;
const NEXT: usize = SPECIAL + 4;
const BUCKET: usize = SPECIAL + 8;
const FLAGS: usize = SPECIAL + 12;
const PAGE_ID: usize = SPECIAL + 14;
const HASHO_PAGE_ID: u16 = 0xFF80;
/// `InvalidBucket`.
const NO_BUCKET: u32 = u32::MAX;

const UNUSED: u16 = 0;
const OVERFLOW: u16 = 1 << 0;
const BITMAP: u16 = 1 << 2;
const META: u16 = 1 << 3;
const NEEDS_SPLIT_CLEANUP: u16 = 1 << 6;
const HAS_DEAD_TUPLES: u16 = 1 << 7;

/// Are these the buckets of a split, whose flags native redo sets even after it restored the page from an image?
pub(super) fn changes_restored_page(record: &Record<'_>, id: u8) -> bool {
    matches!((record.op(), id), (SPLIT_ALLOCATE_PAGE, 0) | (SPLIT_COMPLETE, 0 | 1))
}

pub(super) fn redo(change: &Change<'_, '_>, page: &mut Page) -> Result<Stamp, Fault> {
    let mut main = change.main();
    match (change.record.op(), change.block.id) {
        (INIT_META_PAGE, 0) => meta::init(page, f64::from_bits(main.u64()?), main.u32()?, main.u16()?)?,
        (INIT_BITMAP_PAGE, 0) => init_bitmap(page, main.u16()?)?,
        (INIT_BITMAP_PAGE, 1) => meta::add_first_bitmap(page)?,
        (INSERT, 0) => {
            page.add_item(change.data().rest(), main.u16()?, Placement::Shift)?;
        }
        (INSERT, 1) => meta::change_tuples(page, |count| count + 1.0)?,
        (ADD_OVFL_PAGE, _) => add_overflow(change, page)?,
        (SPLIT_ALLOCATE_PAGE, _) => split_allocate(change, page)?,
        (SPLIT_PAGE, _) => return Err(Fault::Damaged("split without the image of its page")),
        (SPLIT_COMPLETE, 0) => set_flags(page, main.u16()?)?,
        (SPLIT_COMPLETE, 1) => {
            main.skip(2)?;
            set_flags(page, main.u16()?)?;
        }
        (MOVE_PAGE_CONTENTS | SQUEEZE_PAGE | DELETE, 0) => return Ok(Stamp::Keep),
        (MOVE_PAGE_CONTENTS, 1) => add_tuples(change.data(), main.u16()?, page)?,
        (MOVE_PAGE_CONTENTS, 2) => delete_all(change.data(), page)?,
        (SQUEEZE_PAGE, _) => return squeeze(change, page),
        (DELETE, 1) => {
            delete_all(change.data(), page)?;
            if main.u8()? != 0 {
                clear_flag(page, HAS_DEAD_TUPLES)?;
            }
        }
        (SPLIT_CLEANUP, 0) => clear_flag(page, NEEDS_SPLIT_CLEANUP)?,
        (UPDATE_META_PAGE, 0) => {
            let count = f64::from_bits(main.u64()?);
            meta::change_tuples(page, |_| count)?;
        }
        (VACUUM_ONE_PAGE, 0 | 1) => vacuum_one_page(change, page)?,
        _ => return Err(Fault::Unsupported),
    }
    Ok(Stamp::Lsn)
}

/// A new overflow page (0) behind the left page (1), marked in a bitmap (2) that may be new (3), counted in the metapage (4).
fn add_overflow(change: &Change<'_, '_>, page: &mut Page) -> Result<(), Fault> {
    let (mut main, mut data) = (change.main(), change.data());
    let bitmap_len = main.u16()?;
    let bit_found = main.u8()? != 0;
    let neighbour = |id: u8| change.block_no(id).ok_or(Fault::Damaged("overflow page without its neighbour"));
    match change.block.id {
        0 => init_page(page, neighbour(1)?, data.u32()?, OVERFLOW),
        1 => set_link(page, NEXT, neighbour(0)?),
        2 => set_bit(page, data.u32()?, true),
        3 => init_bitmap(page, bitmap_len),
        4 => meta::add_overflow(page, data.u32()?, bit_found, change.block_no(3)),
        _ => Err(Fault::Unsupported),
    }
}

/// The old bucket (0) and the new one (1) of a split that begins, and the metapage (2).
fn split_allocate(change: &Change<'_, '_>, page: &mut Page) -> Result<(), Fault> {
    let mut main = change.main();
    let (new_bucket, old_flags, new_flags, meta_changes) = (main.u32()?, main.u16()?, main.u16()?, main.u8()?);
    match change.block.id {
        0 => {
            set_flags(page, old_flags)?;
            set_link(page, PREVIOUS, new_bucket)
        }
        1 => init_page(page, new_bucket, new_bucket, new_flags),
        2 => meta::begin_split(page, new_bucket, meta_changes, change.data()),
        _ => Err(Fault::Unsupported),
    }
}

/// Tuples of an overflow page (2) move to an earlier page of the chain (1); it is freed and unlinked between its neighbours (3, 4),
/// in its bitmap (5) and, where it is the first free one, in the metapage (6).
fn squeeze(change: &Change<'_, '_>, page: &mut Page) -> Result<Stamp, Fault> {
    let (mut main, mut data) = (change.main(), change.data());
    let (previous, next, tuples) = (main.u32()?, main.u32()?, main.u16()?);
    main.skip(1)?; // whether the write page is the primary bucket
    let writes_previous = main.u8()? != 0;
    match change.block.id {
        1 => {
            add_tuples(data, tuples, page)?;
            if writes_previous {
                set_link(page, NEXT, next)?;
            } else if tuples == 0 && change.major >= Major::V17 {
                return Ok(Stamp::Keep);
            }
        }
        2 => {
            init_page(page, NO_BLOCK, NO_BUCKET, UNUSED)?;
        }
        3 => set_link(page, NEXT, next)?,
        4 => set_link(page, PREVIOUS, previous)?,
        5 => set_bit(page, data.u32()?, false)?,
        6 => meta::set_first_free(page, data.u32()?)?,
        _ => return Err(Fault::Unsupported),
    }
    Ok(Stamp::Lsn)
}

/// Dead tuples go from the page of an insertion (0) and from the count in the metapage (1).
fn vacuum_one_page(change: &Change<'_, '_>, page: &mut Page) -> Result<(), Fault> {
    let mut main = change.main();
    main.skip(4)?;
    // An int before 16, then a u16, a catalog flag and padding: the numbers follow at the same place.
    let count = main.u16()?;
    main.skip(2)?;
    if change.block.id == 1 {
        return meta::change_tuples(page, |tuples| tuples - f64::from(count));
    }
    page.index_multi_delete(&main.offsets(usize::from(count))?)?;
    clear_flag(page, HAS_DEAD_TUPLES)
}

/// `count` line pointer numbers, then as many tuples to add there, each padded to 8 bytes.
fn add_tuples(mut data: Data<'_>, count: u16, page: &mut Page) -> Result<(), Fault> {
    if count == 0 {
        return Ok(());
    }
    for number in data.offsets(usize::from(count))? {
        let len = max_align(tuple_len(data.rest())?);
        page.add_item(data.take(len)?, number, Placement::Shift)?;
    }
    Ok(())
}

/// Deletes the items whose numbers `data` lists.
fn delete_all(mut data: Data<'_>, page: &mut Page) -> Result<(), Fault> {
    let numbers = data.offsets(data.len() / 2)?;
    Ok(page.index_multi_delete(&numbers)?)
}

/// `_hash_initbuf`; the next page is never known yet.
fn init_page(page: &mut Page, previous: BlockNo, bucket: u32, flags: u16) -> Result<(), Fault> {
    page.init(16)?;
    page.put(PREVIOUS, &previous.to_le_bytes())?;
    page.put(NEXT, &NO_BLOCK.to_le_bytes())?;
    page.put(BUCKET, &bucket.to_le_bytes())?;
    page.put(FLAGS, &flags.to_le_bytes())?;
    Ok(page.put(PAGE_ID, &HASHO_PAGE_ID.to_le_bytes())?)
}

/// `_hash_initbitmapbuffer`: every overflow page counts as in use until it exists.
fn init_bitmap(page: &mut Page, len: u16) -> Result<(), Fault> {
    let len = usize::from(len);
    if HEADER_LEN + len > SPECIAL {
        return Err(Fault::Damaged("bitmap is longer than the page"));
    }
    init_page(page, NO_BLOCK, NO_BUCKET, BITMAP)?;
    page.slice_mut(HEADER_LEN, len)?.fill(0xFF);
    Ok(page.set_lower(HEADER_LEN + len)?)
}

fn set_bit(page: &mut Page, bit: u32, on: bool) -> Result<(), Fault> {
    check_special(page, SPECIAL)?;
    let bits = page.slice_mut(HEADER_LEN, SPECIAL - HEADER_LEN)?;
    let byte = bits.get_mut(bit as usize / 8).ok_or(Fault::Damaged("no such bit in a bitmap"))?;
    let mask = 1 << (bit % 8);
    *byte = if on { *byte | mask } else { *byte & !mask };
    Ok(())
}

fn set_link(page: &mut Page, at: usize, block: BlockNo) -> Result<(), Fault> {
    check_special(page, SPECIAL)?;
    Ok(page.put(at, &block.to_le_bytes())?)
}

fn set_flags(page: &mut Page, flags: u16) -> Result<(), Fault> {
    check_special(page, SPECIAL)?;
    Ok(page.put(FLAGS, &flags.to_le_bytes())?)
}

fn clear_flag(page: &mut Page, flag: u16) -> Result<(), Fault> {
    check_special(page, SPECIAL)?;
    change_flags(page, FLAGS, 0, flag)
}
