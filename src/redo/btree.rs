//! B-tree indexes (nbtxlog.c `btree_redo`).
//!
//! All operations of 14 to 18 are laid out alike as far as redo reads them (16 appends a field to DELETE and REUSE_PAGE).
//! Splits are in `split`, everything about posting lists (deduplication) in `posting`.

mod posting;
mod split;
mod tuple;

use crate::pg::Major;
use crate::pg::page::{HEADER_LEN, Page, Placement};

use super::change::{Change, Stamp};
use super::data::Data;
use super::fault::Fault;

const INSERT_LEAF: u8 = 0x00;
const INSERT_UPPER: u8 = 0x10;
const INSERT_META: u8 = 0x20;
const SPLIT_L: u8 = 0x30;
const SPLIT_R: u8 = 0x40;
const INSERT_POST: u8 = 0x50;
const DEDUP: u8 = 0x60;
const DELETE: u8 = 0x70;
const UNLINK_PAGE: u8 = 0x80;
const UNLINK_PAGE_META: u8 = 0x90;
const NEWROOT: u8 = 0xA0;
const MARK_PAGE_HALFDEAD: u8 = 0xB0;
const VACUUM: u8 = 0xC0;
const META_CLEANUP: u8 = 0xE0;

const LEAF: u16 = 0x0001;
const ROOT: u16 = 0x0002;
const DELETED: u16 = 0x0004;
const META: u16 = 0x0008;
const HALF_DEAD: u16 = 0x0010;
const HAS_GARBAGE: u16 = 0x0040;
const INCOMPLETE_SPLIT: u16 = 0x0080;
const HAS_FULL_XID: u16 = 0x0100;

/// `P_NONE`: no sibling.
const NO_BLOCK: u32 = 0;
/// `P_HIKEY`: where the high key is, on every page but the rightmost of its level.
const HIGH_KEY: u16 = 1;

pub(super) fn redo(change: &Change<'_, '_>, page: &mut Page) -> Result<Stamp, Fault> {
    match (change.record.op(), change.block.id) {
        (INSERT_LEAF | INSERT_UPPER | INSERT_META, 0) => insert(change, page),
        (INSERT_POST, 0) => posting::insert(change, page),
        (INSERT_UPPER | INSERT_META, 1) | (SPLIT_L | SPLIT_R, 3) | (NEWROOT, 1) => clear_incomplete_split(page),
        (SPLIT_L | SPLIT_R, 0) => split::left(change, change.record.op() == SPLIT_L, page),
        (SPLIT_L | SPLIT_R, 1) => split::right(change, page),
        (SPLIT_L | SPLIT_R, 2) => {
            let right = change.block_no(1).ok_or(Fault::Damaged("split without a right page"))?;
            set_opaque(page, PREV, &right.to_le_bytes())
        }
        (DEDUP, 0) => posting::dedup(change, page),
        (DELETE | VACUUM, 0) => delete(change, page),
        (UNLINK_PAGE | UNLINK_PAGE_META, id @ 0..=3) => unlink(change, id, page),
        (MARK_PAGE_HALFDEAD, 0) => half_dead_leaf(change, page),
        (MARK_PAGE_HALFDEAD, 1) => half_dead_parent(change, page),
        (NEWROOT, 0) => new_root(change, page),
        (INSERT_META | NEWROOT, 2) | (UNLINK_PAGE_META, 4) | (META_CLEANUP, 0) => meta(change, page),
        _ => return Err(Fault::Unsupported),
    }?;
    Ok(Stamp::Lsn)
}

/// Fields of the special space (`BTPageOpaqueData`).
const PREV: usize = 0;
const NEXT: usize = 4;
const LEVEL: usize = 8;
const FLAGS: usize = 12;
const CYCLE_ID: usize = 14;
const OPAQUE_LEN: usize = 16;

fn opaque_field<const N: usize>(page: &Page, at: usize) -> Result<[u8; N], Fault> {
    let field = page.special()?.get(at..at + N).and_then(|bytes| bytes.try_into().ok());
    field.ok_or(Fault::Damaged("not a page of a B-tree"))
}

fn set_opaque(page: &mut Page, at: usize, value: &[u8]) -> Result<(), Fault> {
    let field = page.special_mut()?.get_mut(at..at + value.len());
    field.ok_or(Fault::Damaged("not a page of a B-tree"))?.copy_from_slice(value);
    Ok(())
}

fn flags(page: &Page) -> Result<u16, Fault> {
    opaque_field(page, FLAGS).map(u16::from_le_bytes)
}

fn set_flags(page: &mut Page, flags: u16) -> Result<(), Fault> {
    set_opaque(page, FLAGS, &flags.to_le_bytes())
}

/// `P_FIRSTDATAKEY`: after the high key, if the page has a right sibling.
fn first_data_key(page: &Page) -> Result<u16, Fault> {
    let next: [u8; 4] = opaque_field(page, NEXT)?;
    Ok(if u32::from_le_bytes(next) == NO_BLOCK { HIGH_KEY } else { HIGH_KEY + 1 })
}

/// Makes an empty page of the tree (`_bt_pageinit`, then the opaque fields).
fn init(page: &mut Page, prev: u32, next: u32, level: u32, flags: u16) -> Result<(), Fault> {
    page.init(OPAQUE_LEN)?;
    set_opaque(page, PREV, &prev.to_le_bytes())?;
    set_opaque(page, NEXT, &next.to_le_bytes())?;
    set_opaque(page, LEVEL, &level.to_le_bytes())?;
    set_flags(page, flags)
}

fn insert(change: &Change<'_, '_>, page: &mut Page) -> Result<(), Fault> {
    let number = change.main().u16()?;
    page.add_item(change.data().rest(), number, Placement::Shift)?;
    Ok(())
}

fn clear_incomplete_split(page: &mut Page) -> Result<(), Fault> {
    set_flags(page, flags(page)? & !INCOMPLETE_SPLIT)
}

/// DELETE and VACUUM: shortens posting lists, then removes whole items.
fn delete(change: &Change<'_, '_>, page: &mut Page) -> Result<(), Fault> {
    let is_vacuum = change.record.op() == VACUUM;
    let mut main = change.main();
    if !is_vacuum {
        main.skip(4)?; // the horizon, for standbys
    }
    let (deleted, updated) = (usize::from(main.u16()?), usize::from(main.u16()?));
    let mut data = change.data();
    let deleted = data.offsets(deleted)?;
    for number in data.offsets(updated)? {
        let gone = usize::from(data.u16()?);
        posting::remove_tids(page, number, &data.offsets(gone)?)?;
    }
    if !deleted.is_empty() {
        page.index_multi_delete(&deleted)?;
    }
    if is_vacuum && change.major >= Major::V18 {
        set_opaque(page, CYCLE_ID, &[0; 2])?; // earlier versions leave it; nobody reads it after recovery
    }
    set_flags(page, flags(page)? & !HAS_GARBAGE)
}

/// The page loses its items and its place under the parent, but not yet its siblings.
fn half_dead_leaf(change: &Change<'_, '_>, page: &mut Page) -> Result<(), Fault> {
    let mut main = change.main();
    main.skip(8)?; // the parent's line pointer and this block
    let (left, right, top_parent) = (main.u32()?, main.u32()?, main.u32()?);
    half_dead(page, left, right, top_parent)
}

fn half_dead(page: &mut Page, left: u32, right: u32, top_parent: u32) -> Result<(), Fault> {
    init(page, left, right, 0, HALF_DEAD | LEAF)?;
    page.add_item(&tuple::top_parent_link(top_parent), HIGH_KEY, Placement::Shift)?;
    Ok(())
}

/// The parent forgets the page: its downlink takes over the next one's target, and the next one goes.
fn half_dead_parent(change: &Change<'_, '_>, page: &mut Page) -> Result<(), Fault> {
    let number = change.main().u16()?;
    let next = number.checked_add(1).ok_or(Fault::Damaged("no such line pointer on the page"))?;
    let right = tuple::downlink(page.item(next)?)?;
    tuple::set_downlink(page.item_mut(number)?, right)?;
    page.index_tuple_delete(next)?;
    Ok(())
}

/// `xl_btree_unlink_page`: 0 the page itself, 1 and 2 its siblings, 3 the leaf below it if it is an inner page.
fn unlink(change: &Change<'_, '_>, id: u8, page: &mut Page) -> Result<(), Fault> {
    let mut main = change.main();
    let (left, right, level) = (main.u32()?, main.u32()?, main.u32()?);
    main.skip(4)?;
    let safe_xid = main.take(8)?;
    let (leaf_left, leaf_right, leaf_top_parent) = (main.u32()?, main.u32()?, main.u32()?);
    match id {
        0 => {
            let leaf = if level == 0 { LEAF } else { 0 };
            init(page, left, right, level, DELETED | HAS_FULL_XID | leaf)?;
            page.put(HEADER_LEN, safe_xid)?;
            page.set_lower(HEADER_LEN + safe_xid.len())?;
            Ok(())
        }
        1 => set_opaque(page, NEXT, &right.to_le_bytes()),
        2 => set_opaque(page, PREV, &left.to_le_bytes()),
        _ => half_dead(page, leaf_left, leaf_right, leaf_top_parent),
    }
}

fn new_root(change: &Change<'_, '_>, page: &mut Page) -> Result<(), Fault> {
    let mut main = change.main();
    main.skip(4)?; // the block number, which the reference has too
    let level = main.u32()?;
    init(page, NO_BLOCK, NO_BLOCK, level, if level == 0 { ROOT | LEAF } else { ROOT })?;
    if level == 0 { Ok(()) } else { split::restore_items(change.data(), page) }
}

/// Rewrites the meta page from `xl_btree_metadata` (`_bt_restore_meta`).
fn meta(change: &Change<'_, '_>, page: &mut Page) -> Result<(), Fault> {
    const MAGIC: u32 = 0x0005_3162;
    const LEN: usize = 48;
    let mut data: Data<'_> = change.data();
    let fields = data.take(24)?; // version to last_cleanup_num_delpages, in the order of the page
    let all_equal_image = data.u8()?;
    init(page, NO_BLOCK, NO_BLOCK, 0, META)?;
    page.put(HEADER_LEN, &MAGIC.to_le_bytes())?;
    page.put(HEADER_LEN + 4, fields)?;
    page.put(HEADER_LEN + 32, &(-1.0_f64).to_le_bytes())?; // last_cleanup_num_heap_tuples, no longer used
    page.put(HEADER_LEN + 40, &[all_equal_image])?;
    page.set_lower(HEADER_LEN + LEN)?;
    Ok(())
}
