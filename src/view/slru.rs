//! The simple LRUs (`pg_xact`, `pg_multixact`, `pg_commit_ts`) at a moment: the backup's pages, and what WAL wrote over them.
//!
//! From: `view::fold`, which hands over every record's effect in WAL order, from the backup's redo point on.  To: `view::read`, which asks for pages.
//! Only touched pages are held, 8 KiB each: 32,768 transactions share one page of `pg_xact`. These pages carry neither an Lsn nor a checksum, so
//! replay starts from the copied bytes and repeats everything; that is idempotent (the copy may be newer than the redo point).
//! Source: clog.c, multixact.c, commit_ts.c, slru.c (14 to 18).

use std::collections::{BTreeMap, HashMap};

use crate::format::index::{STATUS_XIDS, StatusBits};
use crate::pg::relation::BLCKSZ;
use crate::view::file_class::Slru;

/// Pages in one segment file (`SLRU_PAGES_PER_SEGMENT`).
pub const PAGES_PER_SEGMENT: u64 = 32;

const XIDS_PER_XACT_PAGE: u32 = 32_768;
const OFFSETS_PER_PAGE: u32 = 2048;
const MEMBERS_PER_PAGE: u32 = 1636;
const MEMBERS_PER_GROUP: u32 = 4;
const GROUP_BYTES: u32 = 20;
const COMMIT_TS_BYTES: u32 = 10;
const COMMIT_TS_PER_PAGE: u32 = 819;
const FIRST_NORMAL_XID: u32 = 3;

type SlruPage = Box<[u8; BLCKSZ]>;

/// How a transaction ended, as `pg_xact` stores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XactStatus {
    Committed = 1,
    Aborted = 2,
}

/// The copied pages.
pub trait BasePages {
    type Error;

    /// Page `page` of an SLRU as it was copied; `None` if the backup has no such page.
    ///
    /// # Errors
    /// Whatever keeps it from being read.
    fn page(&self, slru: Slru, page: u64) -> Result<Option<SlruPage>, Self::Error>;
}

/// The SLRUs at a moment.
#[derive(Debug)]
pub struct Slrus<B> {
    base: B,
    /// Length in pages of every segment file that exists.
    segments: BTreeMap<(Slru, u64), u64>,
    /// Segments whose copied bytes were truncated away.
    forgotten: std::collections::HashSet<(Slru, u64)>,
    written: HashMap<(Slru, u64), SlruPage>,
    /// The offsets page that CREATE_ID made before its ZERO_OFF_PAGE came, which must then not wipe it.
    made_early: Option<u64>,
}

impl<B: BasePages> Slrus<B> {
    /// Starts from the copied files: each with its length in bytes.
    pub fn new(base: B, files: impl IntoIterator<Item = (Slru, u64, u64)>) -> Slrus<B> {
        let segments = files.into_iter().map(|(slru, segment, bytes)| ((slru, segment), bytes / BLCKSZ as u64)).collect();
        Slrus { base, segments, forgotten: std::collections::HashSet::new(), written: HashMap::new(), made_early: None }
    }

    /// Every segment file that exists, with its length in pages.
    pub fn segments(&self) -> impl Iterator<Item = (Slru, u64, u64)> + '_ {
        self.segments.iter().map(|(&(slru, segment), &pages)| (slru, segment, pages))
    }

    /// A page as it stands now; zeroes where Postgres's redo would see zeroes (a page below the end that nobody wrote).
    ///
    /// # Errors
    /// Those of the copied pages.
    pub fn page(&self, slru: Slru, page: u64) -> Result<SlruPage, B::Error> {
        if let Some(written) = self.written.get(&(slru, page)) {
            return Ok(written.clone());
        }
        if self.forgotten.contains(&(slru, page / PAGES_PER_SEGMENT)) {
            return Ok(zeroes());
        }
        Ok(self.base.page(slru, page)?.unwrap_or_else(zeroes))
    }

    /// Does the page lie inside an existing file?
    #[must_use]
    pub fn has_page(&self, slru: Slru, page: u64) -> bool {
        self.segments.get(&(slru, page / PAGES_PER_SEGMENT)).is_some_and(|pages| page % PAGES_PER_SEGMENT < *pages)
    }

    /// A record zeroed a page (CLOG, MULTIXACT, COMMIT_TS ZEROPAGE).
    pub fn zero_page(&mut self, slru: Slru, page: u64) {
        if slru == Slru::MultiXactOffsets && self.made_early.take() == Some(page) {
            return;
        }
        self.put(slru, page, zeroes());
    }

    /// A transaction or subtransaction ended.
    ///
    /// # Errors
    /// Those of the copied pages.
    pub fn set_status(&mut self, xid: u32, status: XactStatus) -> Result<(), B::Error> {
        let page = self.writable(Slru::Xact, u64::from(xid / XIDS_PER_XACT_PAGE))?;
        let entry = xid % XIDS_PER_XACT_PAGE;
        let (byte, shift) = ((entry / 4) as usize, (entry % 4) * 2);
        page[byte] = page[byte] & !(3 << shift) | (status as u8) << shift;
        Ok(())
    }

    /// Transactions from `number` x 1024 on ended, as far as `bits` tell.
    ///
    /// # Errors
    /// Those of the copied pages.
    pub fn set_statuses(&mut self, number: u32, bits: &StatusBits) -> Result<(), B::Error> {
        let per_page = XIDS_PER_XACT_PAGE / STATUS_XIDS;
        let page = self.writable(Slru::Xact, u64::from(number / per_page))?;
        let at = (number % per_page) as usize * bits.len();
        for (byte, said) in page[at..at + bits.len()].iter_mut().zip(bits) {
            // Both bits of each pair that says something.
            let mask = (said | said >> 1) & 0x55;
            *byte = *byte & !(mask | mask << 1) | said;
        }
        Ok(())
    }

    /// A commit time was recorded (with `track_commit_timestamp`). `time` in Postgres's microseconds since 2000.
    ///
    /// # Errors
    /// Those of the copied pages.
    pub fn set_commit_time(&mut self, xid: u32, time: i64, origin: u16) -> Result<(), B::Error> {
        let page = self.writable(Slru::CommitTs, u64::from(xid / COMMIT_TS_PER_PAGE))?;
        let at = (xid % COMMIT_TS_PER_PAGE * COMMIT_TS_BYTES) as usize;
        page[at..at + 8].copy_from_slice(&time.to_le_bytes());
        page[at + 8..at + 10].copy_from_slice(&origin.to_le_bytes());
        Ok(())
    }

    /// A multixact was made. Writes the offset of the next one too, as minors since December 2025 do and need.
    ///
    /// # Errors
    /// Those of the copied pages.
    pub fn create_multixact(&mut self, multi: u32, offset: u32, members: &[(u32, u8)]) -> Result<(), B::Error> {
        let next = if multi == u32::MAX { 1 } else { multi + 1 };
        let (page, next_page) = (u64::from(multi / OFFSETS_PER_PAGE), u64::from(next / OFFSETS_PER_PAGE));
        if next_page != page && !self.has_page(Slru::MultiXactOffsets, next_page) {
            self.put(Slru::MultiXactOffsets, next_page, zeroes());
            self.made_early = Some(next_page);
        }
        // Offset 0 means "not set", so the counter steps over it when it wraps.
        let count = u32::try_from(members.len()).unwrap_or(u32::MAX);
        let end = match offset.wrapping_add(count) {
            0 => 1,
            end => end,
        };
        self.set_offset(multi, offset)?;
        self.set_offset(next, end)?;
        let mut at = offset;
        for &(xid, status) in members {
            self.set_member(at, xid, status)?;
            at = at.wrapping_add(1);
        }
        Ok(())
    }

    fn set_offset(&mut self, multi: u32, offset: u32) -> Result<(), B::Error> {
        let page = self.writable(Slru::MultiXactOffsets, u64::from(multi / OFFSETS_PER_PAGE))?;
        let at = (multi % OFFSETS_PER_PAGE * 4) as usize;
        page[at..at + 4].copy_from_slice(&offset.to_le_bytes());
        Ok(())
    }

    fn set_member(&mut self, offset: u32, xid: u32, status: u8) -> Result<(), B::Error> {
        let page = self.writable(Slru::MultiXactMembers, u64::from(offset / MEMBERS_PER_PAGE))?;
        let inside = offset % MEMBERS_PER_PAGE;
        let group = (inside / MEMBERS_PER_GROUP * GROUP_BYTES) as usize;
        let member = (inside % MEMBERS_PER_GROUP) as usize;
        page[group + member] = status;
        let at = group + 4 + member * 4;
        page[at..at + 4].copy_from_slice(&xid.to_le_bytes());
        Ok(())
    }

    /// `pg_xact`, `pg_commit_ts` or multixact offsets were cut: whole segments before page `cutoff` are gone (`SimpleLruTruncate`).
    pub fn truncate_before(&mut self, slru: Slru, cutoff: u64) {
        let gone = |segment: u64| {
            let first = segment * PAGES_PER_SEGMENT;
            precedes(slru, first, cutoff) && precedes(slru, first + PAGES_PER_SEGMENT - 1, cutoff)
        };
        let segments: Vec<u64> = self.segments.keys().filter(|(s, n)| *s == slru && gone(*n)).map(|(_, n)| *n).collect();
        for segment in segments {
            self.forget(slru, segment);
        }
    }

    /// Multixacts before `end_multi` were cut, and with them the members' segments from `start_member` up to, not including, that of `end_member`.
    pub fn truncate_multixact(&mut self, end_multi: u32, start_member: u32, end_member: u32) {
        let segment_of = |offset: u32| u64::from(offset / MEMBERS_PER_PAGE) / PAGES_PER_SEGMENT;
        let (mut segment, end, last) = (segment_of(start_member), segment_of(end_member), segment_of(u32::MAX));
        while segment != end {
            self.forget(Slru::MultiXactMembers, segment);
            segment = if segment == last { 0 } else { segment + 1 };
        }
        let before = if end_multi <= 1 { u32::MAX } else { end_multi - 1 };
        self.truncate_before(Slru::MultiXactOffsets, u64::from(before / OFFSETS_PER_PAGE));
    }

    /// Commit times are no longer tracked: the directory was emptied (`DeactivateCommitTs`).
    pub fn forget_commit_times(&mut self) {
        let segments: Vec<u64> = self.segments.keys().filter(|(s, _)| *s == Slru::CommitTs).map(|(_, n)| *n).collect();
        for segment in segments {
            self.forget(Slru::CommitTs, segment);
        }
    }

    /// The page that will hold the next entry must exist, or the server does not start: made if WAL did not come that far.
    pub fn ensure_page(&mut self, slru: Slru, page: u64) {
        if !self.has_page(slru, page) {
            self.put(slru, page, zeroes());
        }
    }

    fn forget(&mut self, slru: Slru, segment: u64) {
        self.segments.remove(&(slru, segment));
        self.forgotten.insert((slru, segment));
        self.written.retain(|(s, page), _| *s != slru || page / PAGES_PER_SEGMENT != segment);
    }

    fn writable(&mut self, slru: Slru, page: u64) -> Result<&mut SlruPage, B::Error> {
        if !self.written.contains_key(&(slru, page)) {
            let bytes = self.page(slru, page)?;
            self.put(slru, page, bytes);
        }
        Ok(self.written.entry((slru, page)).or_insert_with(zeroes))
    }

    fn put(&mut self, slru: Slru, page: u64, bytes: SlruPage) {
        let pages = self.segments.entry((slru, page / PAGES_PER_SEGMENT)).or_default();
        *pages = (*pages).max(page % PAGES_PER_SEGMENT + 1);
        self.written.insert((slru, page), bytes);
    }
}

fn zeroes() -> SlruPage {
    Box::new([0; BLCKSZ])
}

/// The pages that a server needs at start: those of the next xid, the next multixact, its members, and the next commit time.
#[must_use]
pub fn page_of(slru: Slru, counter: u32) -> u64 {
    u64::from(match slru {
        Slru::Xact => counter / XIDS_PER_XACT_PAGE,
        Slru::MultiXactOffsets => counter / OFFSETS_PER_PAGE,
        Slru::MultiXactMembers => counter / MEMBERS_PER_PAGE,
        Slru::CommitTs => counter / COMMIT_TS_PER_PAGE,
    })
}

/// Is page `a` older than page `b`, in the circle of 32-bit counters? (`CLOGPagePrecedes`, `CommitTsPagePrecedes`, `MultiXactOffsetPagePrecedes`)
fn precedes(slru: Slru, a: u64, b: u64) -> bool {
    let (per_page, first) = match slru {
        Slru::Xact => (XIDS_PER_XACT_PAGE, FIRST_NORMAL_XID),
        Slru::CommitTs => (COMMIT_TS_PER_PAGE, FIRST_NORMAL_XID + 1),
        Slru::MultiXactOffsets => (OFFSETS_PER_PAGE, 2),
        Slru::MultiXactMembers => (MEMBERS_PER_PAGE, 0),
    };
    // Page numbers come from 32-bit counters, so the product is meant to wrap with them.
    let counter = |page: u64| u32::try_from(page & 0xFFFF_FFFF).unwrap_or(0).wrapping_mul(per_page).wrapping_add(first);
    let before = |x: u32, y: u32| x.wrapping_sub(y) > u32::MAX / 2;
    let (a, b) = (counter(a), counter(b));
    before(a, b) && before(a, b.wrapping_add(per_page - 1))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// A backup whose pages are filled with one byte.
    struct Filled(u8);

    impl BasePages for Filled {
        type Error = Infallible;

        fn page(&self, _: Slru, _: u64) -> Result<Option<SlruPage>, Infallible> {
            Ok(Some(Box::new([self.0; BLCKSZ])))
        }
    }

    fn slrus(files: &[(Slru, u64, u64)]) -> Slrus<Filled> {
        Slrus::new(Filled(0), files.iter().copied())
    }

    #[test]
    fn a_commit_sets_two_bits_of_its_xid() {
        let mut slrus = slrus(&[(Slru::Xact, 0, 8192)]);
        slrus.set_status(5, XactStatus::Committed).unwrap();
        slrus.set_status(6, XactStatus::Aborted).unwrap();
        assert_eq!(slrus.page(Slru::Xact, 0).unwrap()[1], 0b10_01_00);
        slrus.set_status(32_768, XactStatus::Committed).unwrap();
        assert_eq!(slrus.segments().collect::<Vec<_>>(), [(Slru::Xact, 0, 2)]);
    }

    #[test]
    fn many_statuses_at_once_are_those_one_by_one() {
        let mut one_by_one = slrus(&[(Slru::Xact, 0, 8192)]);
        let mut bits = [0; 256];
        for (xid, status) in [(40_960, XactStatus::Aborted), (40_961, XactStatus::Committed), (41_983, XactStatus::Committed)] {
            one_by_one.set_status(xid, status).unwrap();
            bits[(xid % 1024 / 4) as usize] |= (status as u8) << (xid % 4 * 2);
        }
        let mut at_once = slrus(&[(Slru::Xact, 0, 8192)]);
        at_once.set_status(40_962, XactStatus::Committed).unwrap();
        one_by_one.set_status(40_962, XactStatus::Committed).unwrap();
        at_once.set_statuses(40, &bits).unwrap();
        assert_eq!(at_once.page(Slru::Xact, 1).unwrap(), one_by_one.page(Slru::Xact, 1).unwrap());
    }

    #[test]
    fn members_lie_in_groups_of_four_behind_their_flags() {
        let mut slrus = slrus(&[]);
        slrus.create_multixact(1, 5, &[(700, 1), (701, 5)]).unwrap();
        let members = slrus.page(Slru::MultiXactMembers, 0).unwrap();
        assert_eq!(members[21..23], [1, 5]);
        assert_eq!(members[28..32], 700u32.to_le_bytes());
        assert_eq!(members[32..36], 701u32.to_le_bytes());
        let offsets = slrus.page(Slru::MultiXactOffsets, 0).unwrap();
        assert_eq!(offsets[4..12], [5, 0, 0, 0, 7, 0, 0, 0]);
    }

    #[test]
    fn an_offsets_page_made_early_is_not_wiped_by_its_own_zero_record() {
        let mut slrus = slrus(&[(Slru::MultiXactOffsets, 0, 8192)]);
        slrus.create_multixact(2047, 9, &[(3, 0)]).unwrap();
        slrus.zero_page(Slru::MultiXactOffsets, 1);
        assert_eq!(slrus.page(Slru::MultiXactOffsets, 1).unwrap()[..4], [10, 0, 0, 0]);
    }

    #[test]
    fn truncation_removes_whole_segments_and_their_copied_bytes() {
        let mut slrus = Slrus::new(Filled(9), [(Slru::Xact, 0, 1 << 18), (Slru::Xact, 1, 1 << 18), (Slru::Xact, 2, 8192)]);
        slrus.truncate_before(Slru::Xact, 2 * PAGES_PER_SEGMENT - 1);
        assert_eq!(slrus.segments().map(|(_, n, _)| n).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(slrus.page(Slru::Xact, 3).unwrap()[0], 0);
        assert_eq!(slrus.page(Slru::Xact, 40).unwrap()[0], 9);
    }

    #[test]
    fn truncation_of_members_goes_around_the_end_of_the_circle() {
        let last = u64::from(u32::MAX / MEMBERS_PER_PAGE) / PAGES_PER_SEGMENT;
        let mut slrus =
            slrus(&[(Slru::MultiXactMembers, last, 8192), (Slru::MultiXactMembers, 0, 8192), (Slru::MultiXactMembers, 1, 8192)]);
        slrus.truncate_multixact(100, u32::MAX - 10, MEMBERS_PER_PAGE * 32);
        assert_eq!(slrus.segments().map(|(_, n, _)| n).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn pages_compare_in_the_circle_of_xids() {
        assert!(precedes(Slru::Xact, 0, 1) && !precedes(Slru::Xact, 1, 0) && !precedes(Slru::Xact, 1, 1));
        let last = u64::from(u32::MAX / XIDS_PER_XACT_PAGE);
        assert!(precedes(Slru::Xact, last - 2, 3));
    }
}
