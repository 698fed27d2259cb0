//! Heap: insert, delete, update, lock and their kin (heapam_xlog.c `heap_redo`; in heapam.c before 18).
//!
//! The routines are the same in 14 to 18. A reference to the visibility map's fork, which newer minor releases add, goes to `vm`.

use crate::pg::page::{ALL_VISIBLE, Page};
use crate::pg::{BlockNo, Fork};

use super::change::{Change, Stamp};
use super::data::Data;
use super::fault::Fault;
use super::tuple::{NewHeader, Tuple};
use super::vm;

const INSERT: u8 = 0x00;
const DELETE: u8 = 0x10;
const UPDATE: u8 = 0x20;
const HOT_UPDATE: u8 = 0x40;
const CONFIRM: u8 = 0x50;
const LOCK: u8 = 0x60;
const INPLACE: u8 = 0x70;
/// `XLOG_HEAP_INIT_PAGE`: the page is made anew for its first tuple.
pub(super) const INIT_PAGE: u8 = 0x80;
const OP_MASK: u8 = 0x70;

/// `XLH_INSERT_ALL_VISIBLE_CLEARED` and its namesakes of delete and of update's old page.
pub(super) const VISIBLE_CLEARED: u8 = 0x01;
const NEW_VISIBLE_CLEARED: u8 = 0x02;
const PREFIX_FROM_OLD: u8 = 0x20;
const SUFFIX_FROM_OLD: u8 = 0x40;
const DELETE_IS_SUPER: u8 = 0x08;
const DELETE_IS_PARTITION_MOVE: u8 = 0x10;
/// `MovedPartitionsOffsetNumber`; the block is `InvalidBlockNumber`.
const MOVED_PARTITIONS: (BlockNo, u16) = (BlockNo::MAX, 0xFFFD);

pub(super) fn redo(change: &Change<'_, '_>, page: &mut Page) -> Result<Stamp, Fault> {
    if change.block.tag.fork == Fork::Vm {
        return vm::clear_registered(change, page);
    }
    if change.record.op() & INIT_PAGE != 0 && change.block.id == 0 {
        page.init(0)?;
    }
    match (change.record.op() & OP_MASK, change.block.id) {
        (INSERT, 0) => insert(change, page),
        (DELETE, 0) => delete(change, page),
        (op @ (UPDATE | HOT_UPDATE), 0 | 1) => update(change, op == HOT_UPDATE, page),
        (CONFIRM, 0) => confirm(change, page),
        (LOCK, 0) => lock(change, page),
        (INPLACE, 0) => inplace(change, page),
        _ => return Err(Fault::Unsupported),
    }?;
    Ok(Stamp::Lsn)
}

fn insert(change: &Change<'_, '_>, page: &mut Page) -> Result<(), Fault> {
    let mut main = change.main();
    let (number, flags) = (main.u16()?, main.u8()?);
    let mut data = change.data();
    let header = NewHeader::read(&mut data)?;
    header.add(&[data.rest()], change.record.xid, 0, (change.block.tag.block, number), page)?;
    if flags & VISIBLE_CLEARED != 0 {
        page.set_flag(ALL_VISIBLE, false);
    }
    Ok(())
}

fn delete(change: &Change<'_, '_>, page: &mut Page) -> Result<(), Fault> {
    let mut main = change.main();
    let (xmax, number, infobits, flags) = (main.u32()?, main.u16()?, main.u8()?, main.u8()?);
    let mut tuple = Tuple::of(page, number)?;
    tuple.set_xmax_infobits(infobits);
    tuple.set_hot_updated(false);
    if flags & DELETE_IS_SUPER == 0 {
        tuple.set_xmax(xmax);
    } else {
        tuple.set_xmin(0);
    }
    tuple.reset_command_id();
    if flags & DELETE_IS_PARTITION_MOVE == 0 {
        tuple.set_ctid(change.block.tag.block, number);
    } else {
        tuple.set_ctid(MOVED_PARTITIONS.0, MOVED_PARTITIONS.1);
    }
    set_prunable(page, change.record.xid);
    if flags & VISIBLE_CLEARED != 0 {
        page.set_flag(ALL_VISIBLE, false);
    }
    Ok(())
}

/// `PageSetPrunable`: the oldest xid whose end may free a tuple here.
fn set_prunable(page: &mut Page, xid: u32) {
    let before = page.prune_xid();
    if before == 0 || precedes(xid, before) {
        page.set_prune_xid(xid);
    }
}

/// `TransactionIdPrecedes`: on the circle, except for the special xids below 3.
fn precedes(a: u32, b: u32) -> bool {
    if a < 3 || b < 3 { a < b } else { a.wrapping_sub(b) > u32::MAX / 2 }
}

/// `xl_heap_update`.
struct Update {
    old_xmax: u32,
    old_number: u16,
    old_infobits: u8,
    flags: u8,
    new_xmax: u32,
    new_number: u16,
}

impl Update {
    fn read(main: &mut Data<'_>) -> Result<Update, Fault> {
        Ok(Update {
            old_xmax: main.u32()?,
            old_number: main.u16()?,
            old_infobits: main.u8()?,
            flags: main.u8()?,
            new_xmax: main.u32()?,
            new_number: main.u16()?,
        })
    }
}

/// Reference 0 is the page of the new tuple, 1 that of the old one; if there is no 1, both live on 0.
fn update(change: &Change<'_, '_>, hot: bool, page: &mut Page) -> Result<(), Fault> {
    let update = Update::read(&mut change.main())?;
    let same_page = !change.has_block(1);
    if same_page || change.block.id == 1 {
        update_old(change, &update, hot, page)?;
    }
    if change.block.id == 0 {
        update_new(change, &update, same_page, page)?;
    }
    Ok(())
}

fn update_old(change: &Change<'_, '_>, update: &Update, hot: bool, page: &mut Page) -> Result<(), Fault> {
    let new_block = change.block_no(0).ok_or(Fault::Damaged("update without a new page"))?;
    let mut tuple = Tuple::of(page, update.old_number)?;
    tuple.set_hot_updated(hot);
    tuple.set_xmax_infobits(update.old_infobits);
    tuple.set_xmax(update.old_xmax);
    tuple.reset_command_id();
    tuple.set_ctid(new_block, update.new_number);
    set_prunable(page, change.record.xid);
    if update.flags & VISIBLE_CLEARED != 0 {
        page.set_flag(ALL_VISIBLE, false);
    }
    Ok(())
}

fn update_new(change: &Change<'_, '_>, update: &Update, same_page: bool, page: &mut Page) -> Result<(), Fault> {
    let mut data = change.data();
    let prefix_len = if update.flags & PREFIX_FROM_OLD != 0 { usize::from(data.u16()?) } else { 0 };
    let suffix_len = if update.flags & SUFFIX_FROM_OLD != 0 { usize::from(data.u16()?) } else { 0 };
    let header = NewHeader::read(&mut data)?;
    let at = (change.block.tag.block, update.new_number);
    if prefix_len == 0 && suffix_len == 0 {
        header.add(&[data.rest()], change.record.xid, update.new_xmax, at, page)?;
    } else {
        if !same_page {
            return Err(Fault::Damaged("tuple refers to an old one on another page"));
        }
        let old = Tuple::of(page, update.old_number)?;
        let short = Fault::Damaged("old tuple is shorter than what the new one takes of it");
        let prefix = old.bytes().get(old.data_offset()..old.data_offset() + prefix_len).ok_or(short)?.to_vec();
        let suffix_at = old.bytes().len().checked_sub(suffix_len).ok_or(short)?;
        let suffix = old.bytes()[suffix_at..].to_vec();
        // Without a prefix the record gives bitmap and data in one run, which is the same bytes in the same order.
        let bitmap = if prefix_len > 0 { data.take(header.bitmap_len()?)? } else { &[] };
        header.add(&[bitmap, &prefix, data.rest(), &suffix], change.record.xid, update.new_xmax, at, page)?;
    }
    if update.flags & NEW_VISIBLE_CLEARED != 0 {
        page.set_flag(ALL_VISIBLE, false);
    }
    Ok(())
}

fn confirm(change: &Change<'_, '_>, page: &mut Page) -> Result<(), Fault> {
    let number = change.main().u16()?;
    Tuple::of(page, number)?.set_ctid(change.block.tag.block, number);
    Ok(())
}

fn lock(change: &Change<'_, '_>, page: &mut Page) -> Result<(), Fault> {
    let mut main = change.main();
    let (xmax, number, infobits) = (main.u32()?, main.u16()?, main.u8()?);
    let mut tuple = Tuple::of(page, number)?;
    tuple.set_xmax_infobits(infobits);
    if tuple.is_locked_only() {
        tuple.set_hot_updated(false);
        tuple.set_ctid(change.block.tag.block, number);
    }
    tuple.set_xmax(xmax);
    tuple.reset_command_id();
    Ok(())
}

/// Overwrites a tuple's data with as many bytes (system catalogs: relfrozenxid and the like).
fn inplace(change: &Change<'_, '_>, page: &mut Page) -> Result<(), Fault> {
    let number = change.main().u16()?;
    let new = change.data().rest();
    let mut tuple = Tuple::of(page, number)?;
    let old = tuple.data_mut()?;
    if old.len() != new.len() {
        return Err(Fault::Damaged("in-place update changes the tuple's length"));
    }
    old.copy_from_slice(new);
    Ok(())
}
