//! Front and trailer of an index: what is read first, and once. They stand at its end, which comes along when the object that holds it is opened.

use std::ops::Range;

use super::{About, BadIndex, Has, Head, SizeChange, Summary, WalChunk};
use crate::format::varint::{get, get_signed, get_u32, put, put_signed};
use crate::format::{u32_at, u64_at};
use crate::pg::cursor::Cursor;
use crate::pg::timestamp::PgTime;
use crate::pg::{BlockTag, Fork, Lsn, Major, RelFileLocator, SegmentSize, Timeline, WalSegment};

/// The version that this code writes, and the newest that it reads.
pub const INDEX_VERSION: u16 = 2;
/// From this version on there is a filter.
const WITH_FILTER: u16 = 2;

pub(super) const TRAILER_BYTES: usize = 64;
const MAGIC: [u8; 8] = *b"BYGINDEX";

/// Everything behind the blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Front {
    pub(super) about: About,
    /// The first chunk: what entries' chunks count from, and, by its start, positions in the log (in units of 8 bytes).
    pub(super) base: WalChunk,
    pub(super) summaries: Vec<Summary>,
    /// Sorted by relation and fork.
    pub(super) extents: Vec<(RelFileLocator, Fork, SizeChange)>,
    pub(super) entries: Vec<EntryBlock>,
    pub(super) statuses: Vec<Place>,
    pub(super) log: Vec<LogBlock>,
    /// Of no bytes if there is none.
    pub(super) filter: Place,
}

/// Where a block of entries lies, and what it begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EntryBlock {
    pub(super) first: (BlockTag, WalChunk),
    pub(super) place: Place,
}

/// Where a block of the log lies, and the end of its first item's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LogBlock {
    pub(super) first_end: Lsn,
    pub(super) place: Place,
}

/// Bytes of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) offset: u64,
    pub(super) len: u32,
    pub(super) crc: u32,
}

/// The fixed trailer, as far as it is needed to read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trailer {
    version: u16,
    pub(super) about: About,
    pub(super) front_len: u32,
    front_crc: u32,
}

impl Trailer {
    pub(super) fn decode(bytes: &[u8]) -> Result<Trailer, BadIndex> {
        const SHORT: BadIndex = BadIndex::Damaged { what: "it is shorter than its trailer" };
        if bytes.get(..8) != Some(&MAGIC) {
            return Err(BadIndex::Magic);
        }
        let found = u16::from_le_bytes(crate::format::bytes_at(bytes, 8).ok_or(SHORT)?);
        if found > INDEX_VERSION {
            return Err(BadIndex::Version { found, newest: INDEX_VERSION });
        }
        let crc = u32_at(bytes, 60).ok_or(SHORT)?;
        if crc32c::crc32c(bytes.get(..60).ok_or(SHORT)?) != crc {
            return Err(BadIndex::Damaged { what: "its trailer does not have the CRC that it states" });
        }
        Trailer::fields(found, bytes).ok_or(BadIndex::Damaged { what: "its trailer has fields that make no sense" })
    }

    fn fields(version: u16, bytes: &[u8]) -> Option<Trailer> {
        let major = u16::from_le_bytes(crate::format::bytes_at(bytes, 10)?);
        let about = About {
            major: Major::from_number(major.into())?,
            system_id: u64_at(bytes, 16)?,
            segment_size: SegmentSize::new(u32_at(bytes, 24)?)?,
            first: WalSegment { timeline: Timeline(u32_at(bytes, 28)?), no: u64_at(bytes, 32)? },
            last_no: u64_at(bytes, 40)?,
        };
        let reserved = u32_at(bytes, 12)? == 0 && u32_at(bytes, 56)? == 0;
        (reserved && about.first.no <= about.last_no).then_some(Trailer {
            version,
            about,
            front_len: u32_at(bytes, 48)?,
            front_crc: u32_at(bytes, 52)?,
        })
    }

    fn encode(about: &About, front: &[u8]) -> Option<Vec<u8>> {
        let mut out = MAGIC.to_vec();
        out.extend(INDEX_VERSION.to_le_bytes());
        out.extend(u16::try_from(about.major.number()).ok()?.to_le_bytes());
        out.extend([0; 4]);
        out.extend(about.system_id.to_le_bytes());
        out.extend(u32::try_from(about.segment_size.bytes()).ok()?.to_le_bytes());
        out.extend(about.first.timeline.0.to_le_bytes());
        out.extend(about.first.no.to_le_bytes());
        out.extend(about.last_no.to_le_bytes());
        out.extend(u32::try_from(front.len()).ok()?.to_le_bytes());
        out.extend(crc32c::crc32c(front).to_le_bytes());
        out.extend([0; 4]);
        let crc = crc32c::crc32c(&out);
        out.extend(crc.to_le_bytes());
        Some(out)
    }
}

impl Front {
    /// Where the blocks behind those of entries lie, the filter among them.
    pub(super) fn behind_entries(&self) -> Range<u64> {
        let end = |place: &Place| place.offset.saturating_add(place.len.into());
        self.entries.last().map_or(0, |block| end(&block.place))..end(&self.filter)
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let lists = size_of_val(self.summaries.as_slice()).saturating_add(size_of_val(self.extents.as_slice()));
        let directories = size_of_val(self.entries.as_slice()).saturating_add(size_of_val(self.log.as_slice()));
        lists.saturating_add(directories).saturating_add(size_of_val(self.statuses.as_slice())).saturating_add(size_of::<Front>())
    }

    /// Front and trailer; `None` if the front does not fit its 4 GiB.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let mut front = Vec::new();
        put(&mut front, self.base.0);
        put(&mut front, self.summaries.len() as u64);
        for summary in &self.summaries {
            put_summary(&mut front, summary);
        }
        put(&mut front, self.extents.len() as u64);
        for (rel, fork, change) in &self.extents {
            put_rel(&mut front, *rel, *fork);
            put_change(&mut front, *change);
        }
        put(&mut front, self.entries.len() as u64);
        for block in &self.entries {
            put_rel(&mut front, block.first.0.rel, block.first.0.fork);
            put(&mut front, block.first.0.block.into());
            put(&mut front, block.first.1.0.saturating_sub(self.base.0));
            put_place(&mut front, block.place);
        }
        put(&mut front, self.statuses.len() as u64);
        for place in &self.statuses {
            put_place(&mut front, *place);
        }
        put(&mut front, self.log.len() as u64);
        for block in &self.log {
            put(&mut front, units(self.base.start(), block.first_end));
            put_place(&mut front, block.place);
        }
        put_place(&mut front, self.filter);
        let trailer = Trailer::encode(&self.about, &front)?;
        front.extend(trailer);
        Some(front)
    }

    /// Reads the front that belongs to `trailer`.
    pub(super) fn decode(trailer: &Trailer, bytes: &[u8]) -> Result<Front, BadIndex> {
        if crc32c::crc32c(bytes) != trailer.front_crc {
            return Err(BadIndex::Damaged { what: "its front does not have the CRC that the trailer states" });
        }
        Front::fields(trailer, &mut Cursor::new(bytes)).ok_or(BadIndex::Damaged { what: "its front makes no sense" })
    }

    fn fields(trailer: &Trailer, c: &mut Cursor<'_>) -> Option<Front> {
        let about = trailer.about;
        let base = WalChunk(get(c)?);
        let summaries = many(c, |c| get_summary(c))?;
        let extents = many(c, |c| {
            let (rel, fork) = get_rel(c)?;
            Some((rel, fork, get_change(c)?))
        })?;
        let mut offset = 0;
        let entries = many(c, |c| {
            let (rel, fork) = get_rel(c)?;
            let tag = BlockTag { rel, fork, block: get_u32(c)? };
            let chunk = WalChunk(base.0.checked_add(get(c)?)?);
            Some(EntryBlock { first: (tag, chunk), place: get_place(c, &mut offset)? })
        })?;
        let statuses = many(c, |c| get_place(c, &mut offset))?;
        let log = many(c, |c| Some(LogBlock { first_end: at_units(base.start(), get(c)?)?, place: get_place(c, &mut offset)? }))?;
        let filter = if trailer.version >= WITH_FILTER { get_place(c, &mut offset)? } else { Place { offset, len: 0, crc: 0 } };
        Some(Front { about, base, summaries, extents, entries, statuses, log, filter })
    }
}

/// Distance from `base` in units of 8 bytes: every record begins and ends at a multiple of 8.
pub(super) fn units(base: Lsn, lsn: Lsn) -> u64 {
    lsn.0.saturating_sub(base.0) >> 3
}

/// The inverse of [`units`].
pub(super) fn at_units(base: Lsn, units: u64) -> Option<Lsn> {
    base.checked_add(units.checked_mul(8)?)
}

/// A count and that many items. What is announced but not there ends the bytes, so nothing is allocated for it.
fn many<'a, T>(c: &mut Cursor<'a>, mut item: impl FnMut(&mut Cursor<'a>) -> Option<T>) -> Option<Vec<T>> {
    let count = get(c)?;
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(item(c)?);
    }
    Some(all)
}

pub(super) fn put_rel(out: &mut Vec<u8>, rel: RelFileLocator, fork: Fork) {
    for oid in [rel.tablespace, rel.database, rel.relation] {
        put(out, oid.into());
    }
    out.push(fork as u8);
}

pub(super) fn get_rel(c: &mut Cursor<'_>) -> Option<(RelFileLocator, Fork)> {
    let rel = RelFileLocator { tablespace: get_u32(c)?, database: get_u32(c)?, relation: get_u32(c)? };
    Some((rel, Fork::from_number(c.u8()?)?))
}

fn put_place(out: &mut Vec<u8>, place: Place) {
    put(out, place.len.into());
    out.extend(place.crc.to_le_bytes());
}

fn get_place(c: &mut Cursor<'_>, offset: &mut u64) -> Option<Place> {
    let place = Place { offset: *offset, len: get_u32(c)?, crc: c.u32()? };
    *offset = offset.checked_add(place.len.into())?;
    Some(place)
}

fn put_change(out: &mut Vec<u8>, change: SizeChange) {
    out.push(u8::from(change.unlinked) | u8::from(change.cap.is_some()) << 1 | u8::from(change.floor.is_some()) << 2);
    for blocks in change.cap.into_iter().chain(change.floor) {
        put(out, blocks.into());
    }
}

fn get_change(c: &mut Cursor<'_>) -> Option<SizeChange> {
    let bits = c.u8().filter(|bits| *bits < 8)?;
    let cap = if bits & 2 != 0 { Some(get_u32(c)?) } else { None };
    let floor = if bits & 4 != 0 { Some(get_u32(c)?) } else { None };
    Some(SizeChange { unlinked: bits & 1 != 0, cap, floor })
}

fn put_summary(out: &mut Vec<u8>, s: &Summary) {
    let (head, head_lsn) = match s.head {
        Head::None => (0, None),
        Head::Included(lsn) => (1, Some(lsn)),
        Head::Missing => (2, None),
    };
    out.push(
        head | u8::from(s.tail.is_some()) << 2
            | u8::from(s.is_whole) << 3
            | u8::from(s.times.is_some()) << 4
            | u8::from(s.finished.is_some()) << 5
            | u8::from(s.newest_xid.is_some()) << 6,
    );
    for number in [s.segment.timeline.0.into(), s.segment.no, s.end.0, s.records, s.has.0.into()] {
        put(out, number);
    }
    for lsn in head_lsn.into_iter().chain(s.tail) {
        put(out, lsn.0);
    }
    for time in s.times.iter().flat_map(|(low, high)| [low, high]) {
        put_signed(out, time.0);
    }
    for xid in s.finished.iter().flat_map(|(old, new)| [old, new]).chain(&s.newest_xid) {
        put(out, (*xid).into());
    }
}

fn get_summary(c: &mut Cursor<'_>) -> Option<Summary> {
    let bits = c.u8().filter(|bits| *bits < 128)?;
    let segment = WalSegment { timeline: Timeline(get_u32(c)?), no: get(c)? };
    let (end, records, has) = (Lsn(get(c)?), get(c)?, Has(get_u32(c)?));
    let head = match bits & 3 {
        0 => Head::None,
        1 => Head::Included(Lsn(get(c)?)),
        2 => Head::Missing,
        _ => return None,
    };
    let tail = if bits & 4 != 0 { Some(Lsn(get(c)?)) } else { None };
    let times = if bits & 16 != 0 { Some((PgTime(get_signed(c)?), PgTime(get_signed(c)?))) } else { None };
    let finished = if bits & 32 != 0 { Some((get_u32(c)?, get_u32(c)?)) } else { None };
    let newest_xid = if bits & 64 != 0 { Some(get_u32(c)?) } else { None };
    Some(Summary { segment, head, end, tail, is_whole: bits & 8 != 0, records, times, finished, newest_xid, has })
}
