//! Page splits: the left half is rebuilt from the old page, the right one from the record (nbtxlog.c `btree_xlog_split`).

use crate::pg::page::{Page, Placement};
use crate::redo::change::Change;
use crate::redo::data::Data;
use crate::redo::fault::Fault;

use super::posting::{empty_copy, swap};
use super::{CYCLE_ID, HIGH_KEY, INCOMPLETE_SPLIT, LEAF, NEXT, NO_BLOCK, first_data_key, init, set_flags, set_opaque, tuple};

/// `xl_btree_split`.
struct Split {
    level: u32,
    /// The first of the old page's items that goes right.
    first_right: u16,
    /// Line pointer number of the new item, on the old page.
    new_number: u16,
    /// Where in the posting list before it the new item falls; 0 if in none.
    posting_at: usize,
}

impl Split {
    fn read(main: &mut Data<'_>) -> Result<Split, Fault> {
        Ok(Split { level: main.u32()?, first_right: main.u16()?, new_number: main.u16()?, posting_at: usize::from(main.u16()?) })
    }

    fn leaf_flag(&self) -> u16 {
        if self.level == 0 { LEAF } else { 0 }
    }
}

/// Adds at the end.
fn push(page: &mut Page, item: &[u8]) -> Result<(), Fault> {
    page.add_item(item, page.max_offset() + 1, Placement::Shift)?;
    Ok(())
}

/// The left page takes the record's high key, then the old page's items up to the split point, with the new one if it goes here.
pub(super) fn left(change: &Change<'_, '_>, new_goes_left: bool, page: &mut Page) -> Result<(), Fault> {
    let split = Split::read(&mut change.main())?;
    let right = change.block_no(1).ok_or(Fault::Damaged("split without a right page"))?;
    let mut data = change.data();
    let has_new = new_goes_left || split.posting_at != 0;
    let mut new = if has_new { tuple::take(&mut data)?.to_vec() } else { Vec::new() };
    let before_new = split.new_number.checked_sub(1).ok_or(Fault::Damaged("no item before the new one"));
    let replaced = if split.posting_at == 0 {
        None
    } else {
        let number = before_new?;
        let mut posting = page.item(number)?.to_vec();
        swap(&mut new, &mut posting, split.posting_at)?;
        Some((number, posting))
    };
    let high_key = tuple::take(&mut data)?;

    let mut left = empty_copy(page)?;
    left.add_item(high_key, HIGH_KEY, Placement::Shift)?;
    let first = first_data_key(page)?;
    for number in first..split.first_right {
        if let Some((_, posting)) = replaced.as_ref().filter(|(old, _)| *old == number) {
            push(&mut left, posting)?;
            continue;
        }
        if new_goes_left && number == split.new_number {
            push(&mut left, &new)?;
        }
        push(&mut left, page.item(number)?)?;
    }
    if new_goes_left && split.new_number == split.first_right.max(first) {
        push(&mut left, &new)?;
    }
    set_flags(&mut left, INCOMPLETE_SPLIT | split.leaf_flag())?;
    set_opaque(&mut left, NEXT, &right.to_le_bytes())?;
    set_opaque(&mut left, CYCLE_ID, &[0; 2])?;
    *page = left;
    Ok(())
}

pub(super) fn right(change: &Change<'_, '_>, page: &mut Page) -> Result<(), Fault> {
    let split = Split::read(&mut change.main())?;
    let left = change.block_no(0).ok_or(Fault::Damaged("split without a left page"))?;
    let next = change.block_no(2).unwrap_or(NO_BLOCK);
    init(page, left, next, split.level, split.leaf_flag())?;
    restore_items(change.data(), page)
}

/// Adds the items of a page whose upper part was logged as it was, the last item first (`_bt_restore_page`).
pub(super) fn restore_items(mut data: Data<'_>, page: &mut Page) -> Result<(), Fault> {
    let mut items = Vec::new();
    while data.len() > 0 {
        items.push(tuple::take(&mut data)?);
    }
    items.iter().rev().try_for_each(|item| push(page, item))
}
