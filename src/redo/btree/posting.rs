//! Posting lists: one key with many heap addresses (nbtdedup.c).

use crate::pg::page::{Page, Placement};
use crate::redo::change::Change;
use crate::redo::fault::Fault;

use super::tuple::{self, Posting, TID_LEN};
use super::{HIGH_KEY, OPAQUE_LEN, first_data_key, flags, set_flags};

/// Puts the address of `new` into `posting` at place `at` and hands the list's last address to `new`, so that the list
/// keeps its length and the order stays right (`_bt_swap_posting`).
pub(super) fn swap(new: &mut [u8], posting: &mut [u8], at: usize) -> Result<(), Fault> {
    let list = Posting::of(posting)?.ok_or(Fault::Damaged("item to split has no posting list"))?;
    if at == 0 || at >= list.count {
        return Err(Fault::Damaged("posting list cannot be split there"));
    }
    let tid = new.get_mut(..TID_LEN).ok_or(Fault::Damaged("index tuple is shorter than it says"))?;
    let last = list.at(list.count - 1);
    let max: [u8; TID_LEN] = std::array::from_fn(|i| posting[last + i]);
    posting.copy_within(list.at(at)..last, list.at(at + 1));
    posting[list.at(at)..list.at(at + 1)].copy_from_slice(tid);
    tid.copy_from_slice(&max);
    Ok(())
}

/// INSERT_POST: the new item falls into the range of the posting list before it.
pub(super) fn insert(change: &Change<'_, '_>, page: &mut Page) -> Result<(), Fault> {
    let number = change.main().u16()?;
    let mut data = change.data();
    let at = usize::from(data.u16()?);
    let mut new = data.rest().to_vec();
    let before = number.checked_sub(1).ok_or(Fault::Damaged("no item before the new one"))?;
    swap(&mut new, page.item_mut(before)?, at)?;
    page.add_item(&new, number, Placement::Shift)?;
    Ok(())
}

/// Takes addresses, by their place in the list, out of item `number` (`_bt_update_posting`).
pub(super) fn remove_tids(page: &mut Page, number: u16, gone: &[u16]) -> Result<(), Fault> {
    let old = tuple::cut(page.item(number)?)?;
    if Posting::of(old)?.is_none() {
        return Err(Fault::Damaged("item to shorten has no posting list"));
    }
    let mut gone = gone.iter().peekable();
    let mut left = Vec::with_capacity(old.len());
    for (place, tid) in tuple::tids(old)?.chunks_exact(TID_LEN).enumerate() {
        if gone.next_if(|g| usize::from(**g) == place).is_none() {
            left.extend_from_slice(tid);
        }
    }
    let new = tuple::form_posting(old, &left)?;
    page.index_tuple_overwrite(number, &new)?;
    Ok(())
}

/// Items that will become one.
struct Pending<'p> {
    base: &'p [u8],
    base_number: u16,
    items: u16,
    tids: Vec<u8>,
}

impl<'p> Pending<'p> {
    fn start(base: &'p [u8], base_number: u16) -> Result<Pending<'p>, Fault> {
        Ok(Pending { base, base_number, items: 1, tids: tuple::tids(base)?.to_vec() })
    }

    /// Adds the result to the new page; says whether items were merged.
    fn finish(&self, page: &mut Page) -> Result<bool, Fault> {
        let number = page.max_offset() + 1;
        if self.items == 1 {
            page.add_item(self.base, number, Placement::Shift)?;
        } else {
            page.add_item(&tuple::form_posting(self.base, &self.tids)?, number, Placement::Shift)?;
        }
        Ok(self.items > 1)
    }
}

/// DEDUP: rebuilds the page, merging the runs of items that the record lists as (first item, how many).
pub(super) fn dedup(change: &Change<'_, '_>, page: &mut Page) -> Result<(), Fault> {
    let count = usize::from(change.main().u16()?);
    let intervals = change.data().offsets(count * 2)?;
    let mut intervals = intervals.chunks_exact(2).map(|pair| (pair[0], pair[1])).peekable();
    let first = first_data_key(page)?;
    let mut new = empty_copy(page)?;
    if first > HIGH_KEY {
        new.add_item(page.item(HIGH_KEY)?, HIGH_KEY, Placement::Shift)?;
    }
    let mut pending: Option<Pending<'_>> = None;
    for number in first..=page.max_offset() {
        let item = tuple::cut(page.item(number)?)?;
        match &mut pending {
            Some(open) if intervals.peek().is_some_and(|(base, items)| *base == open.base_number && open.items < *items) => {
                open.tids.extend_from_slice(tuple::tids(item)?);
                open.items += 1;
            }
            Some(done) => {
                if done.finish(&mut new)? {
                    intervals.next();
                }
                pending = Some(Pending::start(item, number)?);
            }
            None => pending = Some(Pending::start(item, number)?),
        }
    }
    if let Some(last) = pending {
        last.finish(&mut new)?;
    }
    let garbage_free = flags(page)? & !super::HAS_GARBAGE;
    set_flags(&mut new, garbage_free)?;
    *page = new;
    Ok(())
}

/// An empty page with the special space of another (`PageGetTempPageCopySpecial`).
pub(super) fn empty_copy(page: &Page) -> Result<Page, Fault> {
    let special = page.special()?;
    if special.len() != OPAQUE_LEN {
        return Err(Fault::Damaged("not a page of a B-tree"));
    }
    let mut new = Page::zeroed();
    new.init(OPAQUE_LEN)?;
    new.special_mut()?.copy_from_slice(special);
    Ok(new)
}
