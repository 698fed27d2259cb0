//! Positions in the WAL: [`Lsn`], [`Timeline`], [`SegmentSize`] and the names of WAL segments.
//!
//! Source: xlogdefs.h, xlog_internal.h (the same in 14 to 18).

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A byte position in the WAL of one cluster. Prints as Postgres 19 prints it: `0/3A0002F8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Position 0, which no record has (`InvalidXLogRecPtr`).
    pub const INVALID: Lsn = Lsn(0);

    /// The position `bytes` further on; `None` past the end of the 64-bit space.
    #[must_use]
    pub fn checked_add(self, bytes: u64) -> Option<Lsn> {
        self.0.checked_add(bytes).map(Lsn)
    }

    /// Is this a position at all?
    #[must_use]
    pub fn is_valid(self) -> bool {
        self.0 != 0
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:08X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// Text that is none of what this module parses.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{text:?} is not {expected}")]
pub struct NotParsed {
    /// What was given.
    pub text: String,
    /// What it should have been, with an example.
    pub expected: &'static str,
}

fn not_parsed(text: &str, expected: &'static str) -> NotParsed {
    NotParsed { text: text.to_owned(), expected }
}

fn hex<T>(text: &str, width: std::ops::RangeInclusive<usize>, parse: fn(&str, u32) -> Result<T, std::num::ParseIntError>) -> Option<T> {
    let plain = width.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
    plain.then(|| parse(text, 16).ok()).flatten()
}

impl FromStr for Lsn {
    type Err = NotParsed;

    /// Reads `H/L`, padded or not; `H-L` too, since a file name cannot hold a slash.
    fn from_str(text: &str) -> Result<Self, NotParsed> {
        let parse = || {
            let (high, low) = text.split_once(['/', '-'])?;
            let high = hex(high, 1..=8, u32::from_str_radix)?;
            let low = hex(low, 1..=8, u32::from_str_radix)?;
            Some(Lsn(u64::from(high) << 32 | u64::from(low)))
        };
        parse().ok_or_else(|| not_parsed(text, "an LSN such as 0/3A0002F8"))
    }
}

/// A timeline. Decimal in messages ([`fmt::Display`]), eight hex digits in file names ([`fmt::UpperHex`] with `{:08X}`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timeline(pub u32);

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::UpperHex for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::UpperHex::fmt(&self.0, f)
    }
}

/// The size of a WAL segment: a power of two from 1 MiB to 1 GiB (`IsValidWalSegSize`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SegmentSize(u32);

impl SegmentSize {
    /// 16 MiB, what `initdb` takes when nobody says otherwise.
    pub const DEFAULT: SegmentSize = SegmentSize(16 << 20);

    /// `None` unless `bytes` is a power of two from 1 MiB to 1 GiB.
    #[must_use]
    pub fn new(bytes: u32) -> Option<SegmentSize> {
        (bytes.is_power_of_two() && (1 << 20..=1 << 30).contains(&bytes)).then_some(SegmentSize(bytes))
    }

    /// Bytes in a segment.
    #[must_use]
    pub fn bytes(self) -> u64 {
        u64::from(self.0)
    }

    /// The number of the segment that holds `lsn`.
    #[must_use]
    pub fn segment_no(self, lsn: Lsn) -> u64 {
        lsn.0 >> self.0.trailing_zeros()
    }

    /// Where `lsn` lies inside its segment, in bytes.
    #[must_use]
    pub fn offset(self, lsn: Lsn) -> u64 {
        lsn.0 & (self.bytes() - 1)
    }

    /// The first position of segment number `no`.
    #[must_use]
    pub fn start(self, no: u64) -> Lsn {
        Lsn(no << self.0.trailing_zeros())
    }
}

/// One WAL segment by timeline and number; [`WalSegment::name`] gives the file name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WalSegment {
    /// The timeline in its name (the bytes inside may begin on an older one).
    pub timeline: Timeline,
    /// Its number: the position of its first byte divided by the segment size.
    pub no: u64,
}

impl WalSegment {
    /// The segment of `timeline` that holds `lsn`.
    #[must_use]
    pub fn holding(timeline: Timeline, lsn: Lsn, size: SegmentSize) -> WalSegment {
        WalSegment { timeline, no: size.segment_no(lsn) }
    }

    /// The 24 hex digits of its file name (`XLogFileName`).
    #[must_use]
    pub fn name(self, size: SegmentSize) -> String {
        let per_4g = (1u64 << 32) / size.bytes();
        format!("{:08X}{:08X}{:08X}", self.timeline, self.no / per_4g, self.no % per_4g)
    }

    /// Reads a file name of exactly 24 hex digits. The last eight must be below 4 GiB / segment size.
    ///
    /// # Errors
    /// [`NotParsed`] with the text.
    pub fn parse(name: &str, size: SegmentSize) -> Result<WalSegment, NotParsed> {
        let per_4g = (1u64 << 32) / size.bytes();
        let parse = || {
            if name.len() != 24 || !name.is_ascii() {
                return None;
            }
            let part = |at: usize| hex(&name[at..at + 8], 8..=8, u32::from_str_radix);
            let (timeline, high, low) = (part(0)?, u64::from(part(8)?), u64::from(part(16)?));
            (timeline != 0 && low < per_4g).then_some(WalSegment { timeline: Timeline(timeline), no: high * per_4g + low })
        };
        parse().ok_or_else(|| not_parsed(name, "the name of a WAL segment, such as 00000001000000000000003A"))
    }

    /// The position of its first byte.
    #[must_use]
    pub fn start(self, size: SegmentSize) -> Lsn {
        size.start(self.no)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lsn_text_goes_both_ways() {
        assert_eq!("0/3A0002F8".parse(), Ok(Lsn(0x3A00_02F8)));
        assert_eq!("1-2".parse(), Ok(Lsn(0x1_0000_0002)));
        assert_eq!(Lsn(0x1_0000_0002).to_string(), "1/00000002");
        for bad in ["", "0", "0/", "/1", "0/+1", "0/123456789", "g/1"] {
            assert!(bad.parse::<Lsn>().is_err(), "{bad}");
        }
    }

    #[test]
    fn segment_names_follow_the_segment_size() {
        let one = SegmentSize::new(1 << 20).expect("valid");
        let seg = WalSegment::holding(Timeline(1), Lsn(0x1_0010_0000), one);
        assert_eq!(seg.name(one), "000000010000000100000001");
        assert_eq!(WalSegment::parse("000000010000000100000001", one), Ok(seg));
        assert!(WalSegment::parse("000000010000000000000100", SegmentSize::DEFAULT).is_err());
        assert!(WalSegment::parse("00000001000000000000003a.partial", SegmentSize::DEFAULT).is_err());
    }
}
