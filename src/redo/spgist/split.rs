//! Records that rearrange an SP-GiST tree: leaves that move, inner tuples that grow or are split, leaf chains that become a subtree.

use crate::pg::BlockNo;
use crate::pg::page::Page;

use super::super::change::Change;
use super::super::data::Data;
use super::super::fault::Fault;
use super::tuple::{Stub, add_or_replace, init, replace, replace_inner, take_inner, take_leaf, update_node_link};
use super::{NULLS, State, leaf_flags};

fn block_no(change: &Change<'_, '_>, id: u8) -> Result<BlockNo, Fault> {
    change.block_no(id).ok_or(Fault::Damaged("link to a page that the record does not name"))
}

/// A chain moves from its leaf page (0) to another (1), where a tuple joins it; the parent (2) follows (`spgRedoMoveLeafs`).
pub(super) fn move_leaves(change: &Change<'_, '_>, page: &mut Page) -> Result<(), Fault> {
    let mut main = change.main();
    let moves = usize::from(main.u16()?);
    let (new_page, replaces_dead, stores_nulls) = (main.u8()? != 0, main.u8()? != 0, main.u8()? != 0);
    main.skip(1)?;
    let (parent, node) = (main.u16()?, main.u16()?);
    main.skip(2)?;
    let state = State::take(&mut main)?;
    let doomed = main.offsets(moves)?;
    // A lone dead tuple is not copied.
    let added = main.offsets(if replaces_dead { 1 } else { moves + 1 })?;
    let head = *added.last().ok_or(Fault::Damaged("a chain of no tuples"))?;
    let to = (block_no(change, 1)?, head);
    match change.block.id {
        0 => replace(page, &doomed, Stub::moved(to, state), Stub::Placeholder),
        1 => {
            if new_page {
                init(page, leaf_flags(stores_nulls))?;
            }
            added.iter().try_for_each(|number| add_or_replace(page, take_leaf(&mut main)?, *number))
        }
        2 => update_node_link(page, parent, node, to),
        _ => Err(Fault::Unsupported),
    }
}

/// An inner tuple (page 0) gains a node; if it outgrows its page it moves to another (1). The parent may be on either, or on a third
/// page (2) (`spgRedoAddNode`).
pub(super) fn add_node(change: &Change<'_, '_>, page: &mut Page) -> Result<(), Fault> {
    let mut main = change.main();
    let (number, new_number) = (main.u16()?, main.u16()?);
    let (new_page, parent_block) = (main.u8()? != 0, main.u8()?);
    let (parent, node) = (main.u16()?, main.u16()?);
    main.skip(2)?;
    let state = State::take(&mut main)?;
    let tuple = take_inner(&mut main)?;
    let id = change.block.id;
    if id == 0 && !change.has_block(1) {
        return replace_inner(page, tuple, number);
    }
    let to = (block_no(change, 1)?, new_number);
    match id {
        0 => {
            page.index_tuple_delete(number)?;
            Stub::moved(to, state).add(page, number)?;
        }
        1 => {
            if new_page {
                init(page, 0)?;
            }
            add_or_replace(page, tuple, new_number)?;
        }
        2 if parent_block == 2 => (),
        _ => return Err(Fault::Unsupported),
    }
    if parent_block == id { update_node_link(page, parent, node, to) } else { Ok(()) }
}

/// An inner tuple (page 0) keeps the beginning of its prefix and leads to a new one with the end of it, on the same page or another (1)
/// (`spgRedoSplitTuple`).
pub(super) fn split_tuple(change: &Change<'_, '_>, page: &mut Page) -> Result<(), Fault> {
    let mut main = change.main();
    let (prefix_number, postfix_number) = (main.u16()?, main.u16()?);
    let (new_page, same_page) = (main.u8()? != 0, main.u8()? != 0);
    let prefix = take_inner(&mut main)?;
    let postfix = take_inner(&mut main)?;
    if change.block.id == 0 {
        replace_inner(page, prefix, prefix_number)?;
    } else if new_page {
        init(page, 0)?;
    }
    if change.block.id == 1 || same_page { add_or_replace(page, postfix, postfix_number) } else { Ok(()) }
}

/// The fixed part of `spgxlogPickSplit`.
struct PickSplit {
    delete_count: usize,
    insert_count: usize,
    init_source: bool,
    init_destination: bool,
    /// Where the new inner tuple goes.
    inner: u16,
    init_inner: bool,
    stores_nulls: bool,
    inner_is_parent: bool,
    parent: u16,
    node: u16,
    state: State,
}

impl PickSplit {
    fn take(main: &mut Data<'_>) -> Result<PickSplit, Fault> {
        main.skip(2)?; // whether the root is split; it then has no source page
        let (delete_count, insert_count) = (usize::from(main.u16()?), usize::from(main.u16()?));
        let (init_source, init_destination) = (main.u8()? != 0, main.u8()? != 0);
        let inner = main.u16()?;
        let (init_inner, stores_nulls, inner_is_parent) = (main.u8()? != 0, main.u8()? != 0, main.u8()? != 0);
        main.skip(1)?;
        let (parent, node) = (main.u16()?, main.u16()?);
        main.skip(2)?;
        let state = State::take(main)?;
        Ok(PickSplit {
            delete_count,
            insert_count,
            init_source,
            init_destination,
            inner,
            init_inner,
            stores_nulls,
            inner_is_parent,
            parent,
            node,
            state,
        })
    }
}

/// A chain of leaves on a page (0) becomes an inner tuple (page 2) and shorter chains, on the same page or another (1); the parent (3)
/// leads to it (`spgRedoPickSplit`).
pub(super) fn pick_split(change: &Change<'_, '_>, page: &mut Page) -> Result<(), Fault> {
    let mut main = change.main();
    let split = PickSplit::take(&mut main)?;
    let doomed = main.offsets(split.delete_count)?;
    let added = main.offsets(split.insert_count)?;
    let selectors = main.take(split.insert_count)?;
    let inner_tuple = take_inner(&mut main)?;
    let to = (block_no(change, 2)?, split.inner);
    let mut add_leaves = |page: &mut Page, to_destination: bool| {
        added.iter().zip(selectors).try_for_each(|(number, selector)| {
            let tuple = take_leaf(&mut main)?;
            if (*selector != 0) == to_destination { add_or_replace(page, tuple, *number) } else { Ok(()) }
        })
    };
    match change.block.id {
        0 => {
            if split.init_source {
                init(page, leaf_flags(split.stores_nulls))?;
            } else {
                replace(page, &doomed, Stub::moved(to, split.state), Stub::Placeholder)?;
            }
            add_leaves(page, false)
        }
        1 => {
            if split.init_destination {
                init(page, leaf_flags(split.stores_nulls))?;
            }
            add_leaves(page, true)
        }
        2 => {
            if split.init_inner {
                init(page, if split.stores_nulls { NULLS } else { 0 })?;
            }
            add_or_replace(page, inner_tuple, split.inner)?;
            if split.inner_is_parent { update_node_link(page, split.parent, split.node, to) } else { Ok(()) }
        }
        3 => update_node_link(page, split.parent, split.node, to),
        _ => Err(Fault::Unsupported),
    }
}
