//! The header of a WAL page.
//!
//! ```text
//! short, 24 bytes: magic u16 | info u16 | timeline u32 | address u64 | rem_len u32 | pad
//! long, 40 bytes:  short | system identifier u64 | segment size u32 | page size u32      (first page of every segment)
//! ```
//! Source: xlog_internal.h, xlogreader.c `XLogReaderValidatePageHeader` (14 to 18).

use std::fmt;

use crate::pg::cursor::Cursor;
use crate::pg::{Lsn, Major, SegmentSize, Timeline};

/// Bytes in a WAL page (`XLOG_BLCKSZ`). Other sizes are refused.
pub const PAGE_BYTES: usize = 8192;

const FIRST_IS_CONTINUATION: u16 = 0x0001;
const LONG_HEADER: u16 = 0x0002;
const FIRST_OVERWRITES_CONTINUATION: u16 = 0x0008;
const ALL_FLAGS: u16 = 0x000F;

const SHORT_BYTES: usize = 24;
const LONG_BYTES: usize = 40;

/// The header of one page, as it stands there: nothing is checked yet but that it has that many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageHeader {
    pub magic: u16,
    pub info: u16,
    /// Timeline of the first record that starts on the page.
    pub timeline: Timeline,
    /// Position of the page's first byte.
    pub address: Lsn,
    /// Bytes of a record begun on an earlier page that are still to come, this page's included.
    pub rem_len: u32,
    /// Present on the first page of a segment.
    pub long: Option<LongHeader>,
}

/// What the first page of a segment says of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongHeader {
    pub system_id: u64,
    pub segment_bytes: u32,
    pub page_bytes: u32,
}

/// What every page of one cluster's WAL has in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    pub major: Major,
    pub segment_size: SegmentSize,
    /// Pages that name another cluster are refused; `None` where it is not known.
    pub system_id: Option<u64>,
}

/// Why a page is not the one that belongs there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadPage {
    /// Its first bytes are zero: never written.
    Zero,
    /// It belongs to an earlier use of a recycled segment.
    Stale { address: Lsn },
    /// Not a WAL page of this major version.
    Magic { found: u16, expected: u16 },
    /// Flags that no version has, or a first page without the long header.
    Flags { info: u16 },
    /// Another cluster's.
    SystemId { found: u64, expected: u64 },
    /// The segment or page size it states is not the one expected.
    Size { segment_bytes: u32, page_bytes: u32 },
    /// Its timeline is not on the path, or lower than that of the page before.
    Timeline { found: Timeline },
}

impl fmt::Display for BadPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadPage::Zero => write!(f, "the page is all zeros"),
            BadPage::Stale { address } => write!(f, "the page states address {address}, left over from an earlier use of the file"),
            BadPage::Magic { found, expected } => write!(f, "page magic is {found:04X}, expected {expected:04X}"),
            BadPage::Flags { info } => write!(f, "page flags are {info:04X}"),
            BadPage::SystemId { found, expected } => write!(f, "page of cluster {found}, expected {expected}"),
            BadPage::Size { segment_bytes, page_bytes } => {
                write!(f, "page states segments of {segment_bytes} and pages of {page_bytes} bytes")
            }
            BadPage::Timeline { found } => write!(f, "page of timeline {found}, which does not belong there"),
        }
    }
}

impl PageHeader {
    /// Reads the header at the start of `page`. `None` if the bytes end inside it.
    #[must_use]
    pub fn parse(page: &[u8]) -> Option<PageHeader> {
        let mut c = Cursor::new(page);
        let (magic, info) = (c.u16()?, c.u16()?);
        let timeline = Timeline(c.u32()?);
        let address = Lsn(c.u64()?);
        let rem_len = c.u32()?;
        c.skip(4)?;
        let long = if info & LONG_HEADER == 0 {
            None
        } else {
            Some(LongHeader { system_id: c.u64()?, segment_bytes: c.u32()?, page_bytes: c.u32()? })
        };
        Some(PageHeader { magic, info, timeline, address, rem_len, long })
    }

    /// How many bytes the header takes: records and continuations start there.
    #[must_use]
    pub fn header_bytes(&self) -> usize {
        if self.long.is_some() { LONG_BYTES } else { SHORT_BYTES }
    }

    /// Does the page begin with the rest of a record from an earlier page?
    #[must_use]
    pub fn continues_record(&self) -> bool {
        self.info & FIRST_IS_CONTINUATION != 0
    }

    /// Does the page begin with the record that stands in for one whose rest was lost (14.1 and later)?
    #[must_use]
    pub fn overwrites_continuation(&self) -> bool {
        self.info & FIRST_OVERWRITES_CONTINUATION != 0
    }

    /// Checks that this is the page which belongs at `at`, a multiple of [`PAGE_BYTES`].
    ///
    /// # Errors
    /// The first thing that is wrong. Timelines are the reader's to check: it knows the path.
    pub fn check(&self, at: Lsn, layout: &Layout) -> Result<(), BadPage> {
        let expected = layout.major.facts().wal_page_magic;
        if self.magic != expected {
            return Err(if self.magic == 0 { BadPage::Zero } else { BadPage::Magic { found: self.magic, expected } });
        }
        if self.info & !ALL_FLAGS != 0 || (self.long.is_none() && layout.segment_size.offset(at) == 0) {
            return Err(BadPage::Flags { info: self.info });
        }
        if let Some(long) = &self.long {
            long.check(layout)?;
        }
        if self.address != at {
            return Err(BadPage::Stale { address: self.address });
        }
        Ok(())
    }
}

impl LongHeader {
    fn check(&self, layout: &Layout) -> Result<(), BadPage> {
        if let Some(expected) = layout.system_id.filter(|id| *id != self.system_id) {
            return Err(BadPage::SystemId { found: self.system_id, expected });
        }
        if u64::from(self.segment_bytes) != layout.segment_size.bytes() || self.page_bytes != 8192 {
            return Err(BadPage::Size { segment_bytes: self.segment_bytes, page_bytes: self.page_bytes });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: Layout = Layout { major: Major::V15, segment_size: SegmentSize::DEFAULT, system_id: Some(7) };

    fn first_page(at: Lsn) -> Vec<u8> {
        let mut page = Vec::new();
        page.extend(0xD110u16.to_le_bytes());
        page.extend(LONG_HEADER.to_le_bytes());
        page.extend(1u32.to_le_bytes());
        page.extend(at.0.to_le_bytes());
        page.extend([0; 8]);
        page.extend(7u64.to_le_bytes());
        page.extend((16u32 << 20).to_le_bytes());
        page.extend(8192u32.to_le_bytes());
        page
    }

    #[test]
    fn a_first_page_in_its_place_is_accepted() {
        let at = Lsn(32 << 20);
        let header = PageHeader::parse(&first_page(at)).unwrap();
        assert_eq!(header.check(at, &LAYOUT), Ok(()));
        assert_eq!(header.header_bytes(), 40);
    }

    #[test]
    fn a_page_that_does_not_belong_there_says_why() {
        let at = Lsn(32 << 20);
        let refuse = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut page = first_page(at);
            change(&mut page);
            PageHeader::parse(&page).unwrap().check(at, &LAYOUT).unwrap_err()
        };
        assert_eq!(refuse(&|p| p.fill(0)), BadPage::Zero);
        assert_eq!(refuse(&|p| p[11] = 9), BadPage::Stale { address: Lsn(at.0 & 0xFF_FFFF | 9 << 24) });
        assert_eq!(refuse(&|p| p[0] = 0x13), BadPage::Magic { found: 0xD113, expected: 0xD110 });
        assert_eq!(refuse(&|p| p[2] = 0), BadPage::Flags { info: 0 });
        assert_eq!(refuse(&|p| p[24] = 8), BadPage::SystemId { found: 8, expected: 7 });
        assert_eq!(refuse(&|p| p[35] = 0), BadPage::Size { segment_bytes: 0, page_bytes: 8192 });
        assert!(PageHeader::parse(&first_page(at)[..39]).is_none());
    }
}
