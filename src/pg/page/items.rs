//! Line pointers, and adding, deleting and replacing one item.

use super::{BLCKSZ, HAS_FREE_LINES, HEADER_LEN, Page, PageError, max_align};

/// Bytes of a line pointer.
const LINE_LEN: usize = 4;
/// `MaxHeapTuplesPerPage`: (8192 - 24) / (24 + 4).
pub const MAX_HEAP_TUPLES: u16 = 291;

/// A line pointer (`ItemIdData`): offset 15 bits, state 2, length 15.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ItemId(u32);

const UNUSED: u32 = 0;
const NORMAL: u32 = 1;
const REDIRECT: u32 = 2;
const DEAD: u32 = 3;
const MASK_15: u32 = 0x7FFF;

impl ItemId {
    /// `ItemIdSetUnused`.
    pub const UNUSED: ItemId = ItemId(0);
    /// `ItemIdSetDead`: dead, and without storage.
    pub const DEAD: ItemId = ItemId(DEAD << 15);

    /// Points at `len` bytes at `offset` (`ItemIdSetNormal`); both are cut to 15 bits, as in C.
    #[must_use]
    pub fn normal(offset: usize, len: usize) -> ItemId {
        ItemId(cut(offset) | NORMAL << 15 | cut(len) << 17)
    }

    /// Leads on to another line pointer (`ItemIdSetRedirect`).
    #[must_use]
    pub fn redirect(to: u16) -> ItemId {
        ItemId(cut(usize::from(to)) | REDIRECT << 15)
    }

    /// From the four bytes on the page.
    #[must_use]
    pub fn from_raw(raw: u32) -> ItemId {
        ItemId(raw)
    }

    /// The four bytes on the page.
    #[must_use]
    pub fn raw(self) -> u32 {
        self.0
    }

    /// Where the item lies; for a redirect the line pointer it leads to.
    #[must_use]
    pub fn offset(self) -> usize {
        (self.0 & MASK_15) as usize
    }

    /// Bytes of the item, not aligned.
    #[must_use]
    pub fn len(self) -> usize {
        (self.0 >> 17) as usize
    }

    /// No bytes: the opposite of [`ItemId::has_storage`].
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// `lp_flags`.
    #[must_use]
    pub fn state(self) -> u8 {
        u8::try_from(self.0 >> 15 & 3).unwrap_or_default()
    }

    /// The same item with other `lp_flags` (two bits).
    #[must_use]
    pub fn with_state(self, state: u8) -> ItemId {
        ItemId(self.0 & !(3 << 15) | u32::from(state & 3) << 15)
    }

    /// Not `LP_UNUSED`.
    #[must_use]
    pub fn is_used(self) -> bool {
        u32::from(self.state()) != UNUSED
    }

    /// `LP_NORMAL`.
    #[must_use]
    pub fn is_normal(self) -> bool {
        u32::from(self.state()) == NORMAL
    }

    /// `LP_REDIRECT`.
    #[must_use]
    pub fn is_redirected(self) -> bool {
        u32::from(self.state()) == REDIRECT
    }

    /// `LP_DEAD`.
    #[must_use]
    pub fn is_dead(self) -> bool {
        u32::from(self.state()) == DEAD
    }

    /// Has a length (`ItemIdHasStorage`).
    #[must_use]
    pub fn has_storage(self) -> bool {
        !self.is_empty()
    }

    /// The same, lying elsewhere.
    #[must_use]
    pub(super) fn moved_to(self, offset: usize) -> ItemId {
        ItemId(self.0 & !MASK_15 | cut(offset))
    }

    fn resized(self, len: usize) -> ItemId {
        ItemId(self.0 & !(MASK_15 << 17) | cut(len) << 17)
    }
}

fn cut(value: usize) -> u32 {
    u32::try_from(value & MASK_15 as usize).unwrap_or_default()
}

/// How [`Page::add_item`] treats a line pointer number that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// Line pointers from there on move up by one (an index keeps its order).
    Shift,
    /// It must be unused (`PAI_OVERWRITE`).
    Overwrite,
    /// The same, and at most [`MAX_HEAP_TUPLES`] (`PAI_OVERWRITE | PAI_IS_HEAP`).
    Heap,
}

impl Page {
    /// The number of line pointers (`PageGetMaxOffsetNumber`), which is the highest number of one, for they count from 1.
    #[must_use]
    pub fn max_offset(&self) -> u16 {
        let lines = self.lower().min(BLCKSZ).saturating_sub(HEADER_LEN) / LINE_LEN;
        u16::try_from(lines).unwrap_or_default()
    }

    /// Line pointer `number`, from 1.
    ///
    /// # Errors
    /// If the page has no such line pointer.
    pub fn item_id(&self, number: u16) -> Result<ItemId, PageError> {
        if number == 0 || number > self.max_offset() {
            return Err(PageError("no such line pointer on the page"));
        }
        self.u32_at(line_at(number)).map(ItemId)
    }

    /// Overwrites line pointer `number`, from 1.
    ///
    /// # Errors
    /// If the page has no such line pointer.
    pub fn set_item_id(&mut self, number: u16, id: ItemId) -> Result<(), PageError> {
        self.item_id(number)?;
        self.put_line(number, id)
    }

    fn put_line(&mut self, number: u16, id: ItemId) -> Result<(), PageError> {
        self.put(line_at(number), &id.0.to_le_bytes())
    }

    /// The bytes of item `number`.
    ///
    /// # Errors
    /// If there is no such line pointer, it has no storage, or it points into the header or outside the page.
    pub fn item(&self, number: u16) -> Result<&[u8], PageError> {
        let (at, len) = self.item_place(number)?;
        self.slice(at, len)
    }

    /// The bytes of item `number`, to be changed.
    ///
    /// # Errors
    /// As [`Page::item`].
    pub fn item_mut(&mut self, number: u16) -> Result<&mut [u8], PageError> {
        let (at, len) = self.item_place(number)?;
        self.slice_mut(at, len)
    }

    fn item_place(&self, number: u16) -> Result<(usize, usize), PageError> {
        let id = self.item_id(number)?;
        if !id.has_storage() {
            return Err(PageError("line pointer without storage"));
        }
        if id.offset() < HEADER_LEN {
            return Err(PageError("line pointer into the page header"));
        }
        Ok((id.offset(), id.len()))
    }

    /// Adds an item as line pointer `number`; 0 takes the first free one (`PageAddItemExtended`). Returns the number taken.
    ///
    /// # Errors
    /// If the pointers of the page are corrupted, the number is taken or lies past the end, or there is no room.
    pub fn add_item(&mut self, item: &[u8], number: u16, placement: Placement) -> Result<u16, PageError> {
        self.check_pointers()?;
        let limit = self.max_offset().saturating_add(1);
        let number = if number == 0 { self.free_line(limit) } else { number };
        if number > limit {
            return Err(PageError("line pointer past the end"));
        }
        let shift = number < limit && placement == Placement::Shift;
        if number < limit && !shift {
            let id = self.item_id(number)?;
            if id.is_used() || id.has_storage() {
                return Err(PageError("line pointer is taken"));
            }
        }
        if placement == Placement::Heap && number > MAX_HEAP_TUPLES {
            return Err(PageError("more tuples than a heap page can have"));
        }
        let grows = number == limit || shift;
        let lower = if grows { self.lower().saturating_add(LINE_LEN) } else { self.lower() };
        let upper = self.upper().checked_sub(max_align(item.len())).filter(|upper| lower <= *upper);
        let upper = upper.ok_or(PageError("no room for the item"))?;
        if shift {
            let tail = usize::from(limit.saturating_sub(number)).saturating_mul(LINE_LEN);
            self.shift(line_at(number), line_at(number.saturating_add(1)), tail)?;
        }
        self.put_line(number, ItemId::normal(upper, item.len()))?;
        self.put(upper, item)?;
        self.set_lower(lower)?;
        self.set_upper(upper)?;
        Ok(number)
    }

    /// The first unused line pointer, or `limit`; a hint that promises one in vain is cleared.
    fn free_line(&mut self, limit: u16) -> u16 {
        if self.flags() & HAS_FREE_LINES == 0 {
            return limit;
        }
        let free = |id: ItemId| !id.is_used() && !id.has_storage();
        let found = (1..limit).find(|number| self.item_id(*number).is_ok_and(free));
        if found.is_none() {
            self.set_flag(HAS_FREE_LINES, false);
        }
        found.unwrap_or(limit)
    }

    /// Removes item `number` of an index page, its line pointer and its bytes (`PageIndexTupleDelete`).
    ///
    /// # Errors
    /// If the pointers of the page are corrupted or there is no such item.
    pub fn index_tuple_delete(&mut self, number: u16) -> Result<(), PageError> {
        let (offset, len) = self.checked_index_item(number)?;
        let after = line_at(number).saturating_add(LINE_LEN);
        self.shift(after, line_at(number), self.lower().saturating_sub(after))?;
        self.set_lower(self.lower().saturating_sub(LINE_LEN))?;
        self.close_gap(offset, max_align(len), false)
    }

    /// Removes the bytes of item `number`; its line pointer stays, unused, unless it is the last (`PageIndexTupleDeleteNoCompact`).
    ///
    /// # Errors
    /// As [`Page::index_tuple_delete`].
    pub fn index_tuple_delete_no_compact(&mut self, number: u16) -> Result<(), PageError> {
        let (offset, len) = self.checked_index_item(number)?;
        if number < self.max_offset() {
            self.put_line(number, ItemId::UNUSED)?;
        } else {
            self.set_lower(self.lower().saturating_sub(LINE_LEN))?;
        }
        self.close_gap(offset, max_align(len), true)
    }

    /// Replaces item `number` in place; items before it in the page move (`PageIndexTupleOverwrite`). `lp_flags` stays.
    ///
    /// # Errors
    /// As [`Page::index_tuple_delete`], and if there is no room.
    pub fn index_tuple_overwrite(&mut self, number: u16, item: &[u8]) -> Result<(), PageError> {
        let (offset, old_len) = self.checked_index_item(number)?;
        let (old, new) = (max_align(old_len), max_align(item.len()));
        let (lower, upper) = (self.lower(), self.upper());
        let room = old.saturating_add(upper).saturating_sub(lower);
        if new > room {
            return Err(PageError("no room for the item"));
        }
        let target = offset.saturating_add(old).checked_sub(new).ok_or(PageError("no room for the item"))?;
        if old != new {
            let moved = |at: usize| at.saturating_add(old).saturating_sub(new);
            self.shift(upper, moved(upper), offset.saturating_sub(upper))?;
            self.set_upper(moved(upper))?;
            for line in 1..=self.max_offset() {
                let id = self.item_id(line)?;
                if id.has_storage() && id.offset() <= offset {
                    self.put_line(line, id.moved_to(moved(id.offset())))?;
                }
            }
        }
        self.put_line(number, self.item_id(number)?.moved_to(target).resized(item.len()))?;
        self.put(target, item)
    }

    /// Offset and length of an item that bufpage.c would agree to move.
    fn checked_index_item(&self, number: u16) -> Result<(usize, usize), PageError> {
        self.check_aligned_pointers()?;
        let id = self.item_id(number)?;
        self.check_index_item(id)?;
        Ok((id.offset(), id.len()))
    }

    pub(super) fn check_index_item(&self, id: ItemId) -> Result<(), PageError> {
        let (offset, end) = (id.offset(), id.offset().saturating_add(id.len()));
        let sound = offset >= self.upper() && end <= self.special_offset() && offset == max_align(offset);
        if sound { Ok(()) } else { Err(PageError("line pointer is corrupted")) }
    }

    /// Moves what lies before `offset` up by `len`, and the line pointers with it; `stored_only` spares those without storage.
    fn close_gap(&mut self, offset: usize, len: usize, stored_only: bool) -> Result<(), PageError> {
        let upper = self.upper();
        if offset > upper {
            self.shift(upper, upper.saturating_add(len), offset.saturating_sub(upper))?;
        }
        self.set_upper(upper.saturating_add(len))?;
        for line in 1..=self.max_offset() {
            let id = self.item_id(line)?;
            if id.offset() <= offset && (id.has_storage() || !stored_only) {
                self.put_line(line, id.moved_to(id.offset().saturating_add(len)))?;
            }
        }
        Ok(())
    }
}

/// Where line pointer `number`, from 1, lies.
pub(super) fn line_at(number: u16) -> usize {
    HEADER_LEN.saturating_add(usize::from(number.saturating_sub(1)).saturating_mul(LINE_LEN))
}
