//! SP-GiST: inner tuples whose nodes lead to further tuples, and chains of leaf tuples.
//!
//! A tuple keeps its line pointer number for life; where one went, a redirect, dead or placeholder tuple stays behind, and the
//! special space counts redirects and placeholders. Records are read in `spgist::split` (what rearranges a tree) and here.
//! Source: spgxlog.c, spgxlog.h, spgist_private.h, spgdoinsert.c, spgutils.c (14 to 18; 16 added a flag to VACUUM_REDIRECT).

mod split;
mod tuple;

use crate::pg::Major;
use crate::pg::page::{Page, Placement};

use super::change::{Change, Stamp};
use super::data::Data;
use super::fault::Fault;
use super::index::{NO_POINTER, check_special};
use tuple::{Stub, add_or_replace, init, set_next_offset, take_leaf, update_node_link};

const ADD_LEAF: u8 = 0x10;
const MOVE_LEAFS: u8 = 0x20;
const ADD_NODE: u8 = 0x30;
const SPLIT_TUPLE: u8 = 0x40;
const PICKSPLIT: u8 = 0x50;
const VACUUM_LEAF: u8 = 0x60;
const VACUUM_ROOT: u8 = 0x70;
const VACUUM_REDIRECT: u8 = 0x80;

/// `SpGistPageOpaqueData`: flags 2, redirects 2, placeholders 2, page id 2.
const SPECIAL: usize = 8192 - 8;
const FLAGS: usize = SPECIAL;
const REDIRECTS: usize = SPECIAL + 2;
const PLACEHOLDERS: usize = SPECIAL + 4;
const PAGE_ID: usize = SPECIAL + 6;
const SPGIST_PAGE_ID: u16 = 0xFF82;

const LEAF: u16 = 1 << 2;
const NULLS: u16 = 1 << 3;

/// `spgxlogState`: who rearranges the tree.
#[derive(Clone, Copy)]
struct State {
    /// Goes into redirect tuples.
    xid: u32,
    /// An index being built leaves no redirects, for nobody scans it.
    is_build: bool,
}

impl State {
    /// Reads 8 bytes, three of them padding.
    fn take(data: &mut Data<'_>) -> Result<State, Fault> {
        let state = State { xid: data.u32()?, is_build: data.u8()? != 0 };
        data.skip(3)?;
        Ok(state)
    }
}

pub(super) fn redo(change: &Change<'_, '_>, page: &mut Page) -> Result<Stamp, Fault> {
    if !change.block.will_init {
        check_special(page, SPECIAL)?;
    }
    match (change.record.op(), change.block.id) {
        (ADD_LEAF, 0 | 1) => add_leaf(change, page)?,
        (MOVE_LEAFS, _) => split::move_leaves(change, page)?,
        (ADD_NODE, _) => split::add_node(change, page)?,
        (SPLIT_TUPLE, 0 | 1) => split::split_tuple(change, page)?,
        (PICKSPLIT, _) => split::pick_split(change, page)?,
        (VACUUM_LEAF, 0) => vacuum_leaf(change.main(), page)?,
        (VACUUM_ROOT, 0) => {
            let mut main = change.main();
            let count = usize::from(main.u16()?);
            main.skip(10)?;
            page.index_multi_delete(&main.offsets(count)?)?;
        }
        (VACUUM_REDIRECT, 0) => vacuum_redirect(change, page)?,
        _ => return Err(Fault::Unsupported),
    }
    Ok(Stamp::Lsn)
}

/// Flags of a leaf page in the tree of nulls or in the other.
fn leaf_flags(stores_nulls: bool) -> u16 {
    if stores_nulls { LEAF | NULLS } else { LEAF }
}

/// A leaf tuple (page 0), and the downlink to it in the parent (page 1) if it heads its chain.
fn add_leaf(change: &Change<'_, '_>, page: &mut Page) -> Result<(), Fault> {
    let mut main = change.main();
    let (new_page, stores_nulls) = (main.u8()? != 0, main.u8()? != 0);
    let (leaf, head, parent, node) = (main.u16()?, main.u16()?, main.u16()?, main.u16()?);
    if change.block.id == 1 {
        let leaf_page = change.block_no(0).ok_or(Fault::Damaged("leaf tuple without its page"))?;
        return update_node_link(page, parent, node, (leaf_page, leaf));
    }
    if new_page {
        init(page, leaf_flags(stores_nulls))?;
    }
    let tuple = take_leaf(&mut main)?;
    if leaf == head {
        page.index_tuple_delete(leaf)?; // a dead tuple
        page.add_item(tuple, leaf, Placement::Shift)?;
        return Ok(());
    }
    add_or_replace(page, tuple, leaf)?;
    if head == 0 { Ok(()) } else { set_next_offset(page, head, leaf) }
}

/// VACUUM on a leaf page: tuples die or give up their place, some move to the place of others, chains are mended.
fn vacuum_leaf(mut main: Data<'_>, page: &mut Page) -> Result<(), Fault> {
    let mut count = || main.u16().map(usize::from);
    let (dead, placeholders, moves, chains) = (count()?, count()?, count()?, count()?);
    State::take(&mut main)?;
    let mut numbers = |count| main.offsets(count);
    let (dead, placeholders) = (numbers(dead)?, numbers(placeholders)?);
    let (sources, destinations) = (numbers(moves)?, numbers(moves)?);
    let (links, targets) = (numbers(chains)?, numbers(chains)?);

    Stub::Dead.replace(page, &dead)?;
    Stub::Placeholder.replace(page, &placeholders)?;
    for (source, destination) in sources.iter().zip(destinations) {
        let (one, other) = (page.item_id(*source)?, page.item_id(destination)?);
        page.set_item_id(*source, other)?;
        page.set_item_id(destination, one)?;
    }
    Stub::Placeholder.replace(page, &sources)?;
    links.iter().zip(targets).try_for_each(|(link, target)| set_next_offset(page, *link, target))
}

/// Redirects that nobody follows any more become placeholders, and placeholders at the end go.
fn vacuum_redirect(change: &Change<'_, '_>, page: &mut Page) -> Result<(), Fault> {
    let mut main = change.main();
    let (count, first_placeholder) = (main.u16()?, main.u16()?);
    main.skip(if change.major >= Major::V16 { 6 } else { 4 })?; // horizon, and from 16 on a catalog flag with padding
    for number in main.offsets(usize::from(count))? {
        let tuple = page.item_mut(number)?.first_chunk_mut::<{ tuple::DEAD_LEN }>().ok_or(Fault::Damaged("redirect is cut short"))?;
        tuple[0] = tuple[0] & !tuple::STATE_MASK | tuple::PLACEHOLDER;
        tuple[6..12].copy_from_slice(&NO_POINTER);
    }
    tuple::count(page, REDIRECTS, 0_u16.wrapping_sub(count))?;
    tuple::count(page, PLACEHOLDERS, count)?;
    if first_placeholder == 0 {
        return Ok(());
    }
    let last: Vec<u16> = (first_placeholder..=page.max_offset()).collect();
    tuple::count(page, PLACEHOLDERS, 0_u16.wrapping_sub(u16::try_from(last.len()).unwrap_or_default()))?;
    Ok(page.index_multi_delete(&last)?)
}
