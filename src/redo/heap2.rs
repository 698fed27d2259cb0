//! Heap2: pruning, freezing, the visibility map, multi-insert, locking of updated versions (heapam_xlog.c `heap2_redo`).
//!
//! 17 merged pruning, vacuum's second pass and freezing into one format under the same three opcodes; 16 packs freeze plans as 17 does.

use crate::pg::page::{ALL_VISIBLE, ItemId, Page};
use crate::pg::wal::{BlockRef, Record, vm as map};
use crate::pg::{Fork, Major};

use super::change::{Change, Stamp};
use super::data::Data;
use super::fault::Fault;
use super::heap::{INIT_PAGE, VISIBLE_CLEARED};
use super::tuple::{NewHeader, Tuple};
use super::vm;

const PRUNE: u8 = 0x10;
const VACUUM: u8 = 0x20;
const FREEZE_PAGE: u8 = 0x30;
const VISIBLE: u8 = 0x40;
const MULTI_INSERT: u8 = 0x50;
const LOCK_UPDATED: u8 = 0x60;
const OP_MASK: u8 = 0x70;

/// `XLH_INSERT_ALL_FROZEN_SET`.
const ALL_FROZEN_SET: u8 = 0x20;

/// 17+: flags of a prune record (`XLHP_*`).
const CLEANUP_LOCK: u8 = 0x04;
const HAS_FREEZE_PLANS: u8 = 0x10;
const HAS_REDIRECTIONS: u8 = 0x20;
const HAS_DEAD_ITEMS: u8 = 0x40;
const HAS_NOW_UNUSED_ITEMS: u8 = 0x80;

/// Does redo make the page if it is not there? HEAP2 VISIBLE reads the map page with `RBM_ZERO_ON_ERROR`.
pub(super) fn creates_missing_page(record: &Record<'_>, block: &BlockRef<'_>) -> bool {
    record.op() & OP_MASK == VISIBLE && block.tag.fork == Fork::Vm
}

pub(super) fn redo(change: &Change<'_, '_>, page: &mut Page) -> Result<Stamp, Fault> {
    let op = change.record.op() & OP_MASK;
    match (op, change.block.id) {
        (VISIBLE, 0) => return set_map_bits(change, page),
        (VISIBLE, 1) => return Ok(set_all_visible(change, page)),
        _ if change.block.tag.fork == Fork::Vm => return vm::clear_registered(change, page),
        (PRUNE | VACUUM | FREEZE_PAGE, 0) if change.major >= Major::V17 => prune_and_freeze(change, page),
        (PRUNE, 0) => prune(change, page),
        (VACUUM, 0) => vacuum(change, page),
        (FREEZE_PAGE, 0) if change.major == Major::V16 => freeze_by_plan(change, page),
        (FREEZE_PAGE, 0) => freeze_by_tuple(change, page),
        (MULTI_INSERT, 0) => multi_insert(change, page),
        (LOCK_UPDATED, 0) => lock_updated(change, page),
        _ => Err(Fault::Unsupported),
    }?;
    Ok(Stamp::Lsn)
}

/// The record's horizon (4 bytes) comes before the flags; bits beyond the two of the map only concern standbys.
fn set_map_bits(change: &Change<'_, '_>, page: &mut Page) -> Result<Stamp, Fault> {
    let mut main = change.main();
    main.skip(4)?;
    let bits = main.u8()? & map::VALID_BITS;
    let heap_block = change.block_no(1).ok_or(Fault::Damaged("visibility record without a heap page"))?;
    vm::set(page, heap_block, bits)
}

fn set_all_visible(change: &Change<'_, '_>, page: &mut Page) -> Stamp {
    page.set_flag(ALL_VISIBLE, true);
    if change.hint_bits_logged { Stamp::Lsn } else { Stamp::Keep }
}

/// 14 to 16: redirected pairs, dead, and for the rest of the data unused line pointers.
fn prune(change: &Change<'_, '_>, page: &mut Page) -> Result<(), Fault> {
    let mut main = change.main();
    main.skip(4)?;
    let (redirected, dead) = (usize::from(main.u16()?), usize::from(main.u16()?));
    let mut data = change.data();
    let items = PruneItems { redirected: data.offsets(redirected * 2)?, dead: data.offsets(dead)?, unused: data.offsets(data.len() / 2)? };
    items.execute(page)?;
    page.repair_fragmentation(change.major > Major::V14)?;
    Ok(())
}

/// 14 to 16: vacuum's second pass. Nothing moves.
fn vacuum(change: &Change<'_, '_>, page: &mut Page) -> Result<(), Fault> {
    let mut data = change.data();
    let unused = data.offsets(data.len() / 2)?;
    PruneItems { redirected: Vec::new(), dead: Vec::new(), unused }.execute(page)?;
    page.truncate_line_pointer_array()?;
    Ok(())
}

/// What pruning does to line pointers.
struct PruneItems {
    /// Pairs: from, to.
    redirected: Vec<u16>,
    dead: Vec<u16>,
    unused: Vec<u16>,
}

impl PruneItems {
    /// Changes the line pointers; the caller compacts the page or cuts its line pointer array (`heap_page_prune_execute`).
    fn execute(&self, page: &mut Page) -> Result<(), Fault> {
        for pair in self.redirected.chunks_exact(2) {
            page.set_item_id(pair[0], ItemId::redirect(pair[1]))?;
        }
        for number in &self.dead {
            page.set_item_id(*number, ItemId::DEAD)?;
        }
        for number in &self.unused {
            page.set_item_id(*number, ItemId::UNUSED)?;
        }
        Ok(())
    }
}

/// 17+: everything that pruning, vacuum and freezing do, in one format; opcodes are only labels.
fn prune_and_freeze(change: &Change<'_, '_>, page: &mut Page) -> Result<(), Fault> {
    let mut main = change.main();
    main.skip(1)?;
    let flags = main.u8()?;
    let mut data = change.data();
    let plans = if flags & HAS_FREEZE_PLANS != 0 {
        let count = usize::from(data.u16()?);
        data.skip(2)?;
        data.take(count * FreezePlan::LEN)?
    } else {
        &[]
    };
    let mut list = |flag: u8, width: usize| -> Result<Vec<u16>, Fault> {
        if flags & flag == 0 {
            return Ok(Vec::new());
        }
        let count = usize::from(data.u16()?);
        data.offsets(count * width)
    };
    let items =
        PruneItems { redirected: list(HAS_REDIRECTIONS, 2)?, dead: list(HAS_DEAD_ITEMS, 1)?, unused: list(HAS_NOW_UNUSED_ITEMS, 1)? };
    if !(items.redirected.is_empty() && items.dead.is_empty() && items.unused.is_empty()) {
        items.execute(page)?;
        if flags & CLEANUP_LOCK != 0 {
            page.repair_fragmentation(true)?;
        } else {
            page.truncate_line_pointer_array()?;
        }
    }
    freeze(plans, &mut data, page)
}

/// 16: plans, then the line pointers of each.
fn freeze_by_plan(change: &Change<'_, '_>, page: &mut Page) -> Result<(), Fault> {
    let mut main = change.main();
    main.skip(4)?;
    let count = usize::from(main.u16()?);
    let mut data = change.data();
    let plans = data.take(count * FreezePlan::LEN)?;
    freeze(plans, &mut data, page)
}

fn freeze(plans: &[u8], offsets: &mut Data<'_>, page: &mut Page) -> Result<(), Fault> {
    for plan in plans.chunks_exact(FreezePlan::LEN) {
        let mut plan = Data::new(plan);
        let xmax = plan.u32()?;
        let (infomask2, infomask, flags) = (plan.u16()?, plan.u16()?, plan.u8()?);
        plan.skip(1)?;
        let tuples = usize::from(plan.u16()?);
        let plan = FreezePlan { xmax, infomask2, infomask, flags };
        for number in offsets.offsets(tuples)? {
            plan.execute(number, page)?;
        }
    }
    Ok(())
}

/// 14 and 15: one entry of 12 bytes for each tuple.
fn freeze_by_tuple(change: &Change<'_, '_>, page: &mut Page) -> Result<(), Fault> {
    for entry in change.data().rest().chunks_exact(FreezePlan::LEN) {
        let mut entry = Data::new(entry);
        let (xmax, number) = (entry.u32()?, entry.u16()?);
        let plan = FreezePlan { xmax, infomask2: entry.u16()?, infomask: entry.u16()?, flags: entry.u8()? };
        plan.execute(number, page)?;
    }
    Ok(())
}

/// What freezing writes into a tuple's header.
struct FreezePlan {
    xmax: u32,
    infomask2: u16,
    infomask: u16,
    flags: u8,
}

impl FreezePlan {
    /// Bytes of one in a record: `sizeof(xlhp_freeze_plan)`, and of 14's `xl_heap_freeze_tuple`.
    const LEN: usize = 12;
    const FREEZE_XVAC: u8 = 0x02;
    const INVALID_XVAC: u8 = 0x04;
    /// `FrozenTransactionId`.
    const FROZEN: u32 = 2;

    /// `heap_execute_freeze_tuple`.
    fn execute(&self, number: u16, page: &mut Page) -> Result<(), Fault> {
        let mut tuple = Tuple::of(page, number)?;
        tuple.set_xmax(self.xmax);
        if self.flags & Self::FREEZE_XVAC != 0 {
            tuple.set_xvac(Self::FROZEN);
        }
        if self.flags & Self::INVALID_XVAC != 0 {
            tuple.set_xvac(0);
        }
        tuple.set_infomask(self.infomask);
        tuple.set_infomask2(self.infomask2);
        Ok(())
    }
}

/// Tuples lie in the block's data one after another, each aligned to 2 bytes; their numbers are listed unless the page is new.
fn multi_insert(change: &Change<'_, '_>, page: &mut Page) -> Result<(), Fault> {
    let is_init = change.record.op() & INIT_PAGE != 0;
    if is_init {
        page.init(0)?;
    }
    let mut main = change.main();
    let flags = main.u8()?;
    main.skip(1)?;
    let count = main.u16()?;
    let all = change.data();
    let mut data = all;
    for index in 0..count {
        let number = if is_init { index.saturating_add(1) } else { main.u16()? };
        data.skip((all.len() - data.len()) % 2)?;
        let len = usize::from(data.u16()?);
        let header = NewHeader::read(&mut data)?;
        header.add(&[data.take(len)?], change.record.xid, 0, (change.block.tag.block, number), page)?;
    }
    if data.len() > 0 {
        return Err(Fault::Damaged("data are left after the last tuple"));
    }
    if flags & VISIBLE_CLEARED != 0 {
        page.set_flag(ALL_VISIBLE, false);
    }
    if flags & ALL_FROZEN_SET != 0 {
        page.set_flag(ALL_VISIBLE, true);
    }
    Ok(())
}

fn lock_updated(change: &Change<'_, '_>, page: &mut Page) -> Result<(), Fault> {
    let mut main = change.main();
    let (xmax, number, infobits) = (main.u32()?, main.u16()?, main.u8()?);
    let mut tuple = Tuple::of(page, number)?;
    tuple.set_xmax_infobits(infobits);
    tuple.set_xmax(xmax);
    Ok(())
}
