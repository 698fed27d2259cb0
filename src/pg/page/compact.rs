//! Operations that move many items at once: they close every gap and order the items by line pointer, the first one last in the page.

use super::items::line_at;
use super::{HAS_FREE_LINES, ItemId, Page, PageError, max_align};

impl Page {
    /// Closes the gaps of a heap page after pruning (`PageRepairFragmentation`). Since 15 this also cuts off trailing unused line pointers.
    ///
    /// # Errors
    /// If page or line pointers are corrupted; the page may then be half changed.
    pub fn repair_fragmentation(&mut self, cuts_line_pointers: bool) -> Result<(), PageError> {
        self.check_aligned_pointers()?;
        let lines = self.max_offset();
        let mut last_used = 0;
        let mut unused = 0_u16;
        let mut kept = Vec::with_capacity(usize::from(lines));
        for number in 1..=lines {
            let id = self.item_id(number)?;
            if !id.is_used() {
                self.set_item_id(number, ItemId::UNUSED)?;
                unused = unused.saturating_add(1);
                continue;
            }
            last_used = number;
            if id.has_storage() {
                if id.offset() < self.upper() || id.offset() >= self.special_offset() {
                    return Err(PageError("line pointer is corrupted"));
                }
                kept.push((number, id));
            }
        }
        self.compactify(&kept)?;
        let kept = if cuts_line_pointers { last_used } else { lines };
        self.set_lower(line_at(kept.saturating_add(1)))?;
        self.set_flag(HAS_FREE_LINES, unused > lines.saturating_sub(kept));
        Ok(())
    }

    /// Removes many items of an index page; `numbers` must rise (`PageIndexMultiDelete`).
    ///
    /// # Errors
    /// If page or line pointers are corrupted, or the numbers do not rise or name no item.
    pub fn index_multi_delete(&mut self, numbers: &[u16]) -> Result<(), PageError> {
        if numbers.len() <= 2 {
            // Few enough that Postgres takes the other way, which leaves the items in another order.
            return numbers.iter().rev().try_for_each(|number| self.index_tuple_delete(*number));
        }
        self.check_aligned_pointers()?;
        let mut doomed = numbers.iter().peekable();
        let mut kept = Vec::with_capacity(usize::from(self.max_offset()));
        for number in 1..=self.max_offset() {
            let id = self.item_id(number)?;
            self.check_index_item(id)?;
            if doomed.next_if(|n| **n == number).is_none() {
                kept.push((u16::try_from(kept.len()).unwrap_or(u16::MAX).saturating_add(1), id));
            }
        }
        if doomed.next().is_some() {
            return Err(PageError("items to delete do not rise, or are not there"));
        }
        self.check_total(&kept)?;
        let next = u16::try_from(kept.len()).unwrap_or(u16::MAX).saturating_add(1);
        self.set_lower(line_at(next))?;
        self.compactify(&kept)
    }

    /// Cuts off trailing unused line pointers but the first (`PageTruncateLinePointerArray`), which VACUUM's second pass does.
    ///
    /// # Errors
    /// If the page has no sound line pointers.
    pub fn truncate_line_pointer_array(&mut self) -> Result<(), PageError> {
        let lines = self.max_offset();
        let mut kept = lines;
        while kept > 1 && !self.item_id(kept)?.is_used() {
            kept = kept.saturating_sub(1);
        }
        if kept < lines {
            self.set_lower(line_at(kept.saturating_add(1)))?;
        }
        let mut has_unused = false;
        for number in 1..=kept {
            has_unused |= !self.item_id(number)?.is_used();
        }
        self.set_flag(HAS_FREE_LINES, has_unused);
        Ok(())
    }

    fn check_total(&self, kept: &[(u16, ItemId)]) -> Result<(), PageError> {
        let total: usize = kept.iter().map(|(_, id)| max_align(id.len())).sum();
        let room = self.special_offset().saturating_sub(self.lower());
        if total > room { Err(PageError("items are longer than the page")) } else { Ok(()) }
    }

    /// Packs the items against the special space in the order given, and points line pointer `number` of each there (`compactify_tuples`).
    fn compactify(&mut self, kept: &[(u16, ItemId)]) -> Result<(), PageError> {
        self.check_total(kept)?;
        let before = *self.0;
        let mut upper = self.special_offset();
        for (number, id) in kept {
            let len = max_align(id.len());
            let end = id.offset().saturating_add(len);
            let item = before.get(id.offset()..end).ok_or(PageError("line pointer is corrupted"))?;
            upper = upper.saturating_sub(len);
            self.put(upper, item)?;
            self.set_item_id(*number, id.moved_to(upper))?;
        }
        self.set_upper(upper)
    }
}
