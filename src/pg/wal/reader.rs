//! Reads records one after another out of WAL pages.
//!
//! From: whoever holds segments, through [`WalBytes`].  To: the block index, `repo::resolve`, `view::page`, `explain`.
//! In: bytes of segments, a [`TimelinePath`], where to begin.  Out: [`RawRecord`]s in rising Lsn order, each whole and with a right CRC, then [`End`].
//! A record that lies on one page is borrowed, one that crosses pages is joined. Memory: what the source hands out, and the longest record.
//! Reading always ends, and says why as a value: that a segment is not there, that the WAL was never written further, and that bytes are damaged
//! are different things to different callers. Source: xlogreader.c `XLogDecodeNextRecord`, `ValidXLogRecord` (14 to 18).

use std::fmt;
use std::ops::Range;

use bytes::Bytes;

use super::history::TimelinePath;
use super::page::{BadPage, Layout, PAGE_BYTES, PageHeader};
use super::record::{DecodeError, HEADER_BYTES, Record, Rmgr};
use crate::pg::{Lsn, Major, Timeline, WalSegment};

/// Where segments' bytes come from.
pub trait WalBytes {
    /// Why bytes could not be had. That a segment does not exist is not an error.
    type Error;

    /// The bytes of `segment` from `offset` on (a multiple of 8192): as many as are convenient, at least one page.
    /// Empty where the file ends; `None` if there is no such segment.
    ///
    /// # Errors
    /// Whatever keeps bytes that exist from being read.
    fn read(&mut self, segment: WalSegment, offset: u64) -> Result<Option<Bytes>, Self::Error>;
}

/// One record as it lies in the WAL, joined across pages; its CRC was right.
#[derive(Debug, Clone, Copy)]
pub struct RawRecord<'r> {
    /// Where its first byte lies.
    pub lsn: Lsn,
    /// Its exclusive end, aligned to 8 bytes; for a segment switch the end of the segment, as in redo.
    pub end: Lsn,
    /// The timeline in the name of the segment in which it begins.
    pub timeline: Timeline,
    /// `xl_tot_len` bytes, header included, page headers left out.
    pub bytes: &'r [u8],
}

impl<'r> RawRecord<'r> {
    /// Takes the record apart.
    ///
    /// # Errors
    /// [`DecodeError`]: the CRC was right, so this is a record that `major` does not write.
    pub fn decode(&self, major: Major) -> Result<Record<'r>, DecodeError> {
        Record::decode(major, self.lsn, self.end, self.bytes)
    }
}

/// Where and why reading ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Where the next record begins, or would begin.
    pub at: Lsn,
    /// Why there is none, or not all of it.
    pub reason: EndReason,
}

/// Why reading ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// The source has no such segment.
    Missing(WalSegment),
    /// The file ends before the segment does.
    Short(WalSegment),
    /// Zeros where a record would begin: nothing was written there.
    Zero,
    /// The page that belongs there does not stand there.
    Page { at: Lsn, why: BadPage },
    /// A length that no record has.
    Length { total_len: u32 },
    /// The record names another predecessor than the record before it: left over from an earlier use of the file.
    Prev { found: Lsn, expected: Option<Lsn> },
    /// No such resource manager.
    Rmgr(u8),
    /// The page after the record's beginning does not carry on with it.
    Continuation { page: Lsn, rem_len: u32, expected: u32 },
    /// The position is the middle of a record or of a page header.
    NotARecord,
    /// The contents do not have the CRC that the record states.
    Crc { stated: u32, computed: u32 },
}

impl EndReason {
    /// Is this how WAL ends that was simply not written further (or not archived further)?
    ///
    /// A crash may leave any of the others as well. In a segment that was archived whole, and that has a successor, each of them is damage.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        matches!(
            self,
            EndReason::Missing(_)
                | EndReason::Short(_)
                | EndReason::Zero
                | EndReason::Prev { .. }
                | EndReason::Page { why: BadPage::Zero | BadPage::Stale { .. }, .. }
        )
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EndReason::Missing(segment) => write!(f, "segment {} of timeline {} is missing", segment.no, segment.timeline),
            EndReason::Short(segment) => write!(f, "the file of segment {} of timeline {} ends early", segment.no, segment.timeline),
            EndReason::Zero => f.write_str("nothing was written there"),
            EndReason::Page { at, why } => write!(f, "page at {at}: {why}"),
            EndReason::Length { total_len } => write!(f, "the record states a length of {total_len} bytes"),
            EndReason::Prev { found, expected: Some(expected) } => {
                write!(f, "the record names {found} as the one before it, which is {expected}")
            }
            EndReason::Prev { found, expected: None } => write!(f, "the record names {found} as the one before it"),
            EndReason::Rmgr(id) => write!(f, "the record states resource manager {id}"),
            EndReason::Continuation { page, rem_len, expected } => {
                write!(f, "page at {page} carries on with {rem_len} bytes, {expected} are to come")
            }
            EndReason::NotARecord => f.write_str("no record begins there"),
            EndReason::Crc { stated, computed } => write!(f, "CRC says {stated:08x}, contents give {computed:08x}"),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WAL ends at {}: {}", self.at, self.reason)
    }
}

/// Why the next record cannot be had: the end, or the source's own error.
enum Stop<E> {
    End(EndReason),
    Source(E),
}

impl<E> From<EndReason> for Stop<E> {
    fn from(reason: EndReason) -> Self {
        Stop::End(reason)
    }
}

/// Reads records in order.
#[derive(Debug)]
pub struct Reader<S> {
    source: S,
    layout: Layout,
    path: TimelinePath,
    /// Where the next record is looked for: a record's start, or a page's start.
    at: Lsn,
    /// Start of the record returned last: what the next one must name as its predecessor.
    prev: Option<Lsn>,
    /// Reading began at a page, which may begin with the rest of a record that is not wanted.
    skip_continuation: bool,
    /// Pages of timelines that are not on the path are refused.
    checks_path: bool,
    segment: Option<WalSegment>,
    window: Window,
    page: LoadedPage,
    joined: Vec<u8>,
    /// Where the record begins whose first bytes are in `joined`, while the rest is looked for.
    joining: Option<Lsn>,
    end: Option<End>,
}

/// What the source handed out last.
#[derive(Debug, Default)]
struct Window {
    start: Lsn,
    bytes: Bytes,
}

#[derive(Debug)]
struct LoadedPage {
    at: Option<Lsn>,
    header: PageHeader,
    bytes: Bytes,
}

/// Where a record was found.
struct Found {
    lsn: Lsn,
    end: Lsn,
    timeline: Timeline,
    place: Place,
}

enum Place {
    OnPage(Range<usize>),
    Joined,
}

fn page_of(lsn: Lsn) -> Lsn {
    Lsn(lsn.0 & !(PAGE_BYTES as u64 - 1))
}

#[expect(clippy::cast_possible_truncation, reason = "below 8192")]
fn page_offset(lsn: Lsn) -> usize {
    (lsn.0 & (PAGE_BYTES as u64 - 1)) as usize
}

fn plus(lsn: Lsn, bytes: usize) -> Lsn {
    Lsn(lsn.0.saturating_add(bytes as u64))
}

fn align8(len: usize) -> usize {
    len.saturating_add(7) & !7
}

impl<S: WalBytes> Reader<S> {
    /// Begins with the record that starts at `lsn`. A position where a page starts means the first byte after its header, as in Postgres.
    #[must_use]
    pub fn at_record(source: S, layout: Layout, path: TimelinePath, lsn: Lsn) -> Reader<S> {
        let header = PageHeader { magic: 0, info: 0, timeline: Timeline(0), address: Lsn::INVALID, rem_len: 0, long: None };
        Reader {
            source,
            layout,
            path,
            at: lsn,
            prev: None,
            skip_continuation: false,
            checks_path: true,
            segment: None,
            window: Window::default(),
            page: LoadedPage { at: None, header, bytes: Bytes::new() },
            joined: Vec::new(),
            joining: None,
            end: None,
        }
    }

    /// Goes on with the record that starts at `lsn`, as [`Reader::at_record`] begins with one. What was read last stays at hand.
    pub fn seek(&mut self, lsn: Lsn) {
        (self.at, self.prev, self.skip_continuation, self.joining, self.end) = (lsn, None, false, None, None);
    }

    /// Begins with the first record that starts on the page holding `lsn` or after it (`XLogFindNextRecord`, for a page's start).
    #[must_use]
    pub fn at_page(source: S, layout: Layout, path: TimelinePath, lsn: Lsn) -> Reader<S> {
        Reader { skip_continuation: true, ..Reader::at_record(source, layout, path, page_of(lsn)) }
    }

    /// Takes pages of any ancestor timeline: for one file alone, whose history is not at hand.
    #[must_use]
    pub fn of_any_ancestor(self) -> Reader<S> {
        Reader { checks_path: false, ..self }
    }

    /// The next record, or `None`: [`Reader::end`] then tells why, and every further call gives `None` again.
    ///
    /// # Errors
    /// Those of the source. The call may be repeated.
    #[expect(clippy::should_implement_trait, reason = "it lends: the record borrows from the reader")]
    pub fn next(&mut self) -> Result<Option<RawRecord<'_>>, S::Error> {
        if self.end.is_some() {
            return Ok(None);
        }
        match self.advance() {
            Ok(found) => {
                self.at = found.end;
                self.prev = Some(found.lsn);
                let bytes = match found.place {
                    Place::OnPage(range) => self.page.bytes.get(range).unwrap_or_default(),
                    Place::Joined => &self.joined,
                };
                Ok(Some(RawRecord { lsn: found.lsn, end: found.end, timeline: found.timeline, bytes }))
            }
            Err(Stop::End(reason)) => {
                self.end = Some(End { at: self.at, reason });
                Ok(None)
            }
            Err(Stop::Source(error)) => Err(error),
        }
    }

    /// Why there are no more records; `None` while there may be.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// Where reading ended inside a record: its beginning, and its bytes as far as they are there. Whether it goes on at all is not known.
    #[must_use]
    pub fn unfinished(&self) -> Option<(Lsn, &[u8])> {
        let cut = matches!(self.end?.reason, EndReason::Missing(_) | EndReason::Short(_));
        self.joining.filter(|_| cut).map(|lsn| (lsn, self.joined.as_slice()))
    }

    /// Where the next record is looked for: the end of the one returned last.
    #[must_use]
    pub fn position(&self) -> Lsn {
        self.at
    }

    /// The source, for callers that keep something in it.
    #[must_use]
    pub fn source(&self) -> &S {
        &self.source
    }

    fn advance(&mut self) -> Result<Found, Stop<S::Error>> {
        if self.skip_continuation {
            self.skip_to_record()?;
        }
        loop {
            let lsn = self.record_start()?;
            self.check_reach(lsn)?;
            let offset = page_offset(lsn);
            let total_len = u32_at(&self.page.bytes, offset).ok_or(EndReason::NotARecord)?;
            if total_len == 0 {
                return Err(EndReason::Zero.into());
            }
            let len = usize::try_from(total_len).map_err(|_| EndReason::Length { total_len })?;
            if len < HEADER_BYTES {
                return Err(EndReason::Length { total_len }.into());
            }
            let timeline = self.segment.map_or(Timeline(0), |s| s.timeline);
            let on_page = offset..offset.saturating_add(len);
            if on_page.end <= PAGE_BYTES {
                let bytes = self.page.bytes.get(on_page.clone()).unwrap_or_default();
                self.check_header(lsn, bytes)?;
                check_crc(bytes)?;
                let end = self.end_of(plus(lsn, align8(len)), bytes);
                return Ok(Found { lsn, end, timeline, place: Place::OnPage(on_page) });
            }
            if let Some(end) = self.join(lsn, len)? {
                check_crc(&self.joined)?;
                let end = self.end_of(end, &self.joined);
                return Ok(Found { lsn, end, timeline, place: Place::Joined });
            }
        }
    }

    /// Loads the page that holds `self.at` and moves past its header if it stands there.
    fn record_start(&mut self) -> Result<Lsn, Stop<S::Error>> {
        let page = page_of(self.at);
        self.load(page)?;
        let header_len = self.page.header.header_bytes();
        let offset = page_offset(self.at);
        let begins_page = offset == 0 || offset == header_len;
        if (begins_page && self.page.header.continues_record()) || (offset != 0 && offset < header_len) || !offset.is_multiple_of(8) {
            return Err(EndReason::NotARecord.into());
        }
        Ok(if offset == 0 { plus(page, header_len) } else { self.at })
    }

    /// Steps over the rest of a record that began before the page where reading begins.
    fn skip_to_record(&mut self) -> Result<(), Stop<S::Error>> {
        loop {
            let page = page_of(self.at);
            self.load(page)?;
            let header = &self.page.header;
            let skip = if header.continues_record() { align8(usize::try_from(header.rem_len).unwrap_or(PAGE_BYTES)) } else { 0 };
            if header.header_bytes().saturating_add(skip) < PAGE_BYTES {
                self.at = plus(page, header.header_bytes().saturating_add(skip));
                self.skip_continuation = false;
                return Ok(());
            }
            self.at = plus(page, PAGE_BYTES);
        }
    }

    /// Joins the record that begins at `lsn` and does not fit its page; gives its end. `None` if its rest was lost and another record stands in its place:
    /// `self.at` is then that place.
    fn join(&mut self, lsn: Lsn, total_len: usize) -> Result<Option<Lsn>, Stop<S::Error>> {
        self.joining = Some(lsn);
        self.joined.clear();
        self.joined.extend_from_slice(self.page.bytes.get(page_offset(lsn)..).unwrap_or_default());
        let mut checked = self.joined.len() >= HEADER_BYTES;
        if checked {
            self.check_header(lsn, &self.joined)?;
        }
        let mut page = page_of(lsn);
        loop {
            page = plus(page, PAGE_BYTES);
            self.load(page)?;
            let header = self.page.header;
            if header.overwrites_continuation() {
                (self.at, self.joining) = (page, None);
                return Ok(None);
            }
            let expected = total_len.saturating_sub(self.joined.len());
            let rem = usize::try_from(header.rem_len).unwrap_or(usize::MAX);
            if !header.continues_record() || rem != expected {
                let expected = u32::try_from(expected).unwrap_or(u32::MAX);
                return Err(EndReason::Continuation { page, rem_len: header.rem_len, expected }.into());
            }
            let rest = self.page.bytes.get(header.header_bytes()..).unwrap_or_default();
            self.joined.extend_from_slice(rest.get(..rem).unwrap_or(rest));
            if !checked {
                self.check_header(lsn, &self.joined)?;
                checked = true;
            }
            if rem <= rest.len() {
                self.joining = None;
                return Ok(Some(plus(page, header.header_bytes().saturating_add(align8(rem)))));
            }
        }
    }

    /// What can be told of a record before all of it was read.
    fn check_header(&self, lsn: Lsn, bytes: &[u8]) -> Result<(), EndReason> {
        let header = Header::parse(bytes).ok_or(EndReason::NotARecord)?;
        if !header.rmgr.is_known(self.layout.major) {
            return Err(EndReason::Rmgr(header.rmgr.0));
        }
        let fits = self.prev.map_or(header.prev < lsn, |prev| header.prev == prev);
        if fits { Ok(()) } else { Err(EndReason::Prev { found: header.prev, expected: self.prev }) }
    }

    /// A switch record takes up the rest of its segment.
    fn end_of(&self, end: Lsn, bytes: &[u8]) -> Lsn {
        let is_switch = Header::parse(bytes).is_some_and(|h| h.rmgr == Rmgr::XLOG && h.info & 0xF0 == super::record::XLOG_SWITCH);
        let offset = self.layout.segment_size.offset(end);
        if is_switch && offset != 0 { Lsn(end.0.saturating_add(self.layout.segment_size.bytes().saturating_sub(offset))) } else { end }
    }

    /// Puts the page at `at` into `self.page`, checked.
    fn load(&mut self, at: Lsn) -> Result<(), Stop<S::Error>> {
        if self.page.at == Some(at) {
            return Ok(());
        }
        let before = self.page.at.filter(|before| *before < at).map(|_| self.page.header.timeline);
        self.check_reach(at)?;
        let bytes = self.page_bytes(at)?;
        let header = PageHeader::parse(&bytes).ok_or(EndReason::NotARecord)?;
        header.check(at, &self.layout).map_err(|why| EndReason::Page { at, why })?;
        let found = header.timeline;
        let named = self.segment.map_or(found, |s| s.timeline);
        let off_path = self.checks_path && self.path.stretch(found).is_none();
        if found > named || before.is_some_and(|before| found < before) || off_path {
            return Err(EndReason::Page { at, why: BadPage::Timeline { found } }.into());
        }
        self.page = LoadedPage { at: Some(at), header, bytes };
        Ok(())
    }

    /// Refuses what a timeline wrote after the point where the path leaves it: its file was read only because the newer one is missing.
    fn check_reach(&self, at: Lsn) -> Result<(), EndReason> {
        let Some(segment) = self.segment.filter(|s| s.no == self.layout.segment_size.segment_no(at)) else { return Ok(()) };
        let left = self.path.stretch(segment.timeline).and_then(|s| s.end).is_some_and(|end| at >= end);
        if left { Err(EndReason::Missing(WalSegment { timeline: self.path.timeline_at(at), no: segment.no })) } else { Ok(()) }
    }

    fn page_bytes(&mut self, at: Lsn) -> Result<Bytes, Stop<S::Error>> {
        let size = self.layout.segment_size;
        let no = size.segment_no(at);
        if self.segment.is_none_or(|s| s.no != no) || self.window.page(at).is_none() {
            self.window = Window { start: at, bytes: self.fetch(no, size.offset(at))? };
        }
        let segment = self.segment.unwrap_or(WalSegment { timeline: Timeline(0), no });
        Ok(self.window.page(at).ok_or(EndReason::Short(segment))?)
    }

    /// Asks for the segment chosen before, or chooses the first candidate that exists.
    fn fetch(&mut self, no: u64, offset: u64) -> Result<Bytes, Stop<S::Error>> {
        if let Some(segment) = self.segment.filter(|s| s.no == no) {
            return self.source.read(segment, offset).map_err(Stop::Source)?.ok_or(EndReason::Missing(segment).into());
        }
        let newest = WalSegment { timeline: self.path.timeline_at(self.layout.segment_size.start(no)), no };
        let mut missing = None;
        for segment in self.path.candidates(no, self.layout.segment_size) {
            if let Some(bytes) = self.source.read(segment, offset).map_err(Stop::Source)? {
                self.segment = Some(segment);
                return Ok(bytes);
            }
            missing = missing.or(Some(segment));
        }
        Err(EndReason::Missing(missing.unwrap_or(newest)).into())
    }
}

impl Window {
    fn page(&self, at: Lsn) -> Option<Bytes> {
        let from = usize::try_from(at.0.checked_sub(self.start.0)?).ok()?;
        let to = from.checked_add(PAGE_BYTES)?;
        (to <= self.bytes.len()).then(|| self.bytes.slice(from..to))
    }
}

/// The fields of a record's header that the reader looks at.
struct Header {
    prev: Lsn,
    info: u8,
    rmgr: Rmgr,
    crc: u32,
}

impl Header {
    fn parse(bytes: &[u8]) -> Option<Header> {
        let header = bytes.first_chunk::<HEADER_BYTES>()?;
        let [_, _, _, _, _, _, _, _, prev @ .., info, rmgr, _, _, c0, c1, c2, c3] = *header;
        Some(Header { prev: Lsn(u64::from_le_bytes(prev)), info, rmgr: Rmgr(rmgr), crc: u32::from_le_bytes([c0, c1, c2, c3]) })
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

/// CRC-32C over everything after the header, then the header up to the CRC itself (`ValidXLogRecord`).
fn check_crc(record: &[u8]) -> Result<(), EndReason> {
    let (Some(header), Some((head, body))) = (Header::parse(record), record.split_first_chunk::<HEADER_BYTES>()) else {
        return Err(EndReason::NotARecord);
    };
    let computed = crc32c::crc32c_append(crc32c::crc32c(body), head.get(..20).unwrap_or_default());
    if computed == header.crc { Ok(()) } else { Err(EndReason::Crc { stated: header.crc, computed }) }
}

#[cfg(test)]
mod tests;
