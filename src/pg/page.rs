//! A page of a relation: header, line pointers, and the operations of bufpage.c that redo is made of.
//!
//! From: `redo` (which changes pages), `archive` and `view` (which check and stamp them).
//! Every operation places bytes exactly where Postgres places them; only the hole between `lower` and `upper` may differ.
//! A page may hold any bytes: whatever does not fit is a [`PageError`], never a panic and never a write outside the page.
//!
//! Source: bufpage.h, bufpage.c, itemid.h, checksum_impl.h (14 to 18 agree).
//!
//! ```text
//! 0   lsn 8 | checksum 2 | flags 2 | lower 2 | upper 2 | special 2 | size+version 2 | prune xid 4
//! 24  line pointers ->   lower .. hole .. upper   <- items   special .. 8192
//! ```
#![warn(clippy::indexing_slicing)]

mod checksum;
mod compact;
mod items;
#[cfg(test)]
mod tests;

use thiserror::Error;

use crate::pg::Lsn;
use crate::pg::relation::BLCKSZ;

pub use items::{ItemId, MAX_HEAP_TUPLES, Placement};

/// `SizeOfPageHeaderData`: where the line pointers begin.
pub const HEADER_LEN: usize = 24;
/// `PD_HAS_FREE_LINES`: a hint that some line pointer is unused.
pub const HAS_FREE_LINES: u16 = 0x0001;
/// `PD_PAGE_FULL`: a hint that an update found no room.
pub const PAGE_FULL: u16 = 0x0002;
/// `PD_ALL_VISIBLE`: every tuple on the page is visible to everyone.
pub const ALL_VISIBLE: u16 = 0x0004;

/// `PageSetPageSizeAndVersion(BLCKSZ, PG_PAGE_LAYOUT_VERSION)`: 8192 and layout 4.
const SIZE_AND_VERSION: u16 = 8192 | 4;

const CHECKSUM: usize = 8;
const FLAGS: usize = 10;
const LOWER: usize = 12;
const UPPER: usize = 14;
const SPECIAL: usize = 16;
const PAGE_SIZE_VERSION: usize = 18;
const PRUNE_XID: usize = 20;

/// What is wrong with a page, or with what somebody wants to do to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct PageError(pub &'static str);

/// `MAXALIGN`: the next multiple of 8.
#[must_use]
pub fn max_align(len: usize) -> usize {
    len.next_multiple_of(8)
}

/// The 8 KiB of one page.
#[derive(Clone, PartialEq, Eq)]
pub struct Page(pub Box<[u8; BLCKSZ]>);

impl Page {
    /// A page of zeros: what `PageIsNew` calls new.
    #[must_use]
    pub fn zeroed() -> Page {
        Page(Box::new([0; BLCKSZ]))
    }

    /// Zeroes the page and writes the header of an empty one with `special_len` bytes of special space, rounded up to 8 (`PageInit`).
    ///
    /// # Errors
    /// If so much special space does not fit.
    pub fn init(&mut self, special_len: usize) -> Result<(), PageError> {
        let special = BLCKSZ.checked_sub(max_align(special_len)).filter(|at| *at > HEADER_LEN);
        let special = special.and_then(|at| u16::try_from(at).ok()).ok_or(PageError("special space does not fit"))?;
        self.0.fill(0);
        self.put_header(LOWER, 24);
        self.put_header(UPPER, special);
        self.put_header(SPECIAL, special);
        self.put_header(PAGE_SIZE_VERSION, SIZE_AND_VERSION);
        Ok(())
    }

    /// Never initialised (`PageIsNew`): `upper` is 0.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.header(UPPER) == 0
    }

    /// `pd_lsn`: two 32-bit halves, the high one first.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        let [a, b, c, d, e, f, g, h, ..] = *self.0;
        Lsn(u64::from_le_bytes([a, b, c, d, e, f, g, h]).rotate_left(32))
    }

    /// Sets `pd_lsn`.
    pub fn set_lsn(&mut self, lsn: Lsn) {
        let bytes = lsn.0.rotate_left(32).to_le_bytes();
        for (to, from) in self.0.iter_mut().zip(bytes) {
            *to = from;
        }
    }

    /// `pd_checksum` as stored.
    #[must_use]
    pub fn stored_checksum(&self) -> u16 {
        self.header(CHECKSUM)
    }

    /// Sets `pd_checksum`.
    pub fn set_stored_checksum(&mut self, checksum: u16) {
        self.put_header(CHECKSUM, checksum);
    }

    /// `pd_flags`.
    #[must_use]
    pub fn flags(&self) -> u16 {
        self.header(FLAGS)
    }

    /// Sets `pd_flags`.
    pub fn set_flags(&mut self, flags: u16) {
        self.put_header(FLAGS, flags);
    }

    /// Sets or clears one bit of `pd_flags`.
    pub fn set_flag(&mut self, bit: u16, on: bool) {
        let flags = if on { self.flags() | bit } else { self.flags() & !bit };
        self.set_flags(flags);
    }

    /// `pd_lower`: where the line pointers end. Not checked.
    #[must_use]
    pub fn lower(&self) -> usize {
        usize::from(self.header(LOWER))
    }

    /// Sets `pd_lower`.
    ///
    /// # Errors
    /// If it lies outside the page.
    pub fn set_lower(&mut self, lower: usize) -> Result<(), PageError> {
        self.put_position(LOWER, lower)
    }

    /// `pd_upper`: where the items begin. Not checked.
    #[must_use]
    pub fn upper(&self) -> usize {
        usize::from(self.header(UPPER))
    }

    /// Sets `pd_upper`.
    ///
    /// # Errors
    /// If it lies outside the page.
    pub fn set_upper(&mut self, upper: usize) -> Result<(), PageError> {
        self.put_position(UPPER, upper)
    }

    /// `pd_special`: where the special space begins. Not checked.
    #[must_use]
    pub fn special_offset(&self) -> usize {
        usize::from(self.header(SPECIAL))
    }

    /// The special space: an index's own trailer.
    ///
    /// # Errors
    /// If `pd_special` lies in the header or outside the page.
    pub fn special(&self) -> Result<&[u8], PageError> {
        self.0.get(self.checked_special()?..).ok_or(PageError("special space lies outside the page"))
    }

    /// The special space, to be changed.
    ///
    /// # Errors
    /// As [`Page::special`].
    pub fn special_mut(&mut self) -> Result<&mut [u8], PageError> {
        let at = self.checked_special()?;
        self.0.get_mut(at..).ok_or(PageError("special space lies outside the page"))
    }

    fn checked_special(&self) -> Result<usize, PageError> {
        let at = self.special_offset();
        if at < HEADER_LEN { Err(PageError("special space lies in the page header")) } else { Ok(at) }
    }

    /// `pd_prune_xid`.
    #[must_use]
    pub fn prune_xid(&self) -> u32 {
        self.u32_at(PRUNE_XID).unwrap_or_default()
    }

    /// Sets `pd_prune_xid`.
    pub fn set_prune_xid(&mut self, xid: u32) {
        if let Some(field) = self.0.get_mut(PRUNE_XID..HEADER_LEN) {
            field.copy_from_slice(&xid.to_le_bytes());
        }
    }

    /// `len` bytes from `at`, anywhere in the page.
    ///
    /// # Errors
    /// If they lie outside.
    pub fn slice(&self, at: usize, len: usize) -> Result<&[u8], PageError> {
        at.checked_add(len).and_then(|end| self.0.get(at..end)).ok_or(PageError("read outside the page"))
    }

    /// `len` bytes from `at`, to be changed.
    ///
    /// # Errors
    /// If they lie outside.
    pub fn slice_mut(&mut self, at: usize, len: usize) -> Result<&mut [u8], PageError> {
        at.checked_add(len).and_then(|end| self.0.get_mut(at..end)).ok_or(PageError("write outside the page"))
    }

    /// Writes `bytes` at `at`.
    ///
    /// # Errors
    /// If they do not fit there; nothing is written then.
    pub fn put(&mut self, at: usize, bytes: &[u8]) -> Result<(), PageError> {
        self.slice_mut(at, bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    /// Moves `len` bytes from `from` to `to`; the two may overlap (`memmove`).
    ///
    /// # Errors
    /// If either lies outside.
    pub fn shift(&mut self, from: usize, to: usize, len: usize) -> Result<(), PageError> {
        self.slice(from, len)?;
        self.slice(to, len)?;
        let end = from.saturating_add(len);
        self.0.copy_within(from..end, to);
        Ok(())
    }

    /// The little-endian `u16` at `at`.
    ///
    /// # Errors
    /// If it lies outside.
    pub fn u16_at(&self, at: usize) -> Result<u16, PageError> {
        let bytes = self.slice(at, 2)?.try_into();
        bytes.map(u16::from_le_bytes).map_err(|_| PageError("read outside the page"))
    }

    /// The little-endian `u32` at `at`.
    ///
    /// # Errors
    /// If it lies outside.
    pub fn u32_at(&self, at: usize) -> Result<u32, PageError> {
        let bytes = self.slice(at, 4)?.try_into();
        bytes.map(u32::from_le_bytes).map_err(|_| PageError("read outside the page"))
    }

    /// The little-endian `u64` at `at`.
    ///
    /// # Errors
    /// If it lies outside.
    pub fn u64_at(&self, at: usize) -> Result<u64, PageError> {
        let bytes = self.slice(at, 8)?.try_into();
        bytes.map(u64::from_le_bytes).map_err(|_| PageError("read outside the page"))
    }

    fn header(&self, at: usize) -> u16 {
        self.u16_at(at).unwrap_or_default()
    }

    fn put_header(&mut self, at: usize, value: u16) {
        if let Some(field) = self.0.get_mut(at..at.saturating_add(2)) {
            field.copy_from_slice(&value.to_le_bytes());
        }
    }

    fn put_position(&mut self, field: usize, at: usize) -> Result<(), PageError> {
        let value = u16::try_from(at).ok().filter(|_| at <= BLCKSZ).ok_or(PageError("position outside the page"))?;
        self.put_header(field, value);
        Ok(())
    }

    /// `header <= lower <= upper <= special <= 8192`: what bufpage.c asks before it moves anything.
    fn check_pointers(&self) -> Result<(), PageError> {
        let (lower, upper, special) = (self.lower(), self.upper(), self.special_offset());
        let sound = HEADER_LEN <= lower && lower <= upper && upper <= special && special <= BLCKSZ;
        if sound { Ok(()) } else { Err(PageError("page pointers are corrupted")) }
    }

    /// The same, and the special space is aligned.
    fn check_aligned_pointers(&self) -> Result<(), PageError> {
        self.check_pointers()?;
        let special = self.special_offset();
        if special == max_align(special) { Ok(()) } else { Err(PageError("special space is not aligned")) }
    }
}

impl std::fmt::Debug for Page {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Page(lsn {})", self.lsn())
    }
}
