//! WAL pages, records, and redo.

use std::convert::Infallible;

use bygone::format::index::{self, Index, Subject};
use bygone::pg::page::Page;
use bygone::pg::wal::{Layout, Reader, Record, TimelinePath, WalBytes, effect, mention, names, vm};
use bygone::pg::{Lsn, Major, SegmentSize, Timeline, WalSegment};
use bygone::redo::{self, Context, Target, mask};
use bytes::Bytes;

use super::{Choices, put, u32_at};

const PAGE: usize = 8192;
const RECORD_HEADER: usize = 24;
/// The segment that the pages of `wal` stand for.
const SEGMENT: WalSegment = WalSegment { timeline: Timeline(1), no: 3 };
const SIZE: u32 = 1 << 20;

/// A segment of 1 MB that the pages begin, and nothing before or after it.
struct OneSegment(Bytes);

impl WalBytes for OneSegment {
    type Error = Infallible;

    fn read(&mut self, segment: WalSegment, offset: u64) -> Result<Option<Bytes>, Infallible> {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX).min(self.0.len());
        Ok((segment == SEGMENT).then(|| self.0.slice(offset..)))
    }
}

/// The choice is the major version; then WAL pages from the start of a segment of 1 MB. Reads every record, and builds and reads the block index.
pub fn wal(data: &[u8]) {
    let Some(choices) = Choices::of(data) else { return };
    let mut pages = choices.rest[..choices.rest.len().min(SIZE as usize)].to_vec();
    let size = SegmentSize::new(SIZE).expect("a power of two");
    let layout = Layout { major: choices.major(), segment_size: size, system_id: None };
    if choices.mend {
        mend_pages(&mut pages, layout);
    }
    pages.resize(SIZE as usize, 0);
    let file = Bytes::from(pages);
    let start = SEGMENT.start(size);
    let mut reader = Reader::at_page(OneSegment(file.clone()), layout, TimelinePath::single(SEGMENT.timeline), start);
    let mut last = start;
    while let Ok(Some(raw)) = reader.next() {
        assert!(last <= raw.lsn && raw.lsn < raw.end, "records rise: {last}, then {} to {}", raw.lsn, raw.end);
        last = raw.end;
        if let Ok(record) = raw.decode(layout.major) {
            inspect(&record, layout.major);
        }
    }
    assert!(reader.end().is_some(), "reading ends with a reason");
    let subject = Subject { layout, segment: SEGMENT, commit_times: choices.choice & 0x40 != 0 };
    let Ok(built) = index::build(subject, &mut OneSegment(file));
    if let Some(built) = built {
        let index = Index::open(built.bytes).expect("what was built can be opened");
        let mut before = None;
        let whole = index.entries(&mut |entry| {
            let at = (entry.tag, entry.chunk);
            assert!(before.is_none_or(|before| before < at), "entries rise: {before:?}, then {at:?}");
            before = Some(at);
            true
        });
        whole.expect("what was built can be read");
        index.log(Lsn(0), &mut |item| item.effect(layout.major).is_ok()).expect("what was built can be read");
        index.statuses(&mut |_, _| {}).expect("what was built can be read");
    }
}

/// Gives every page the header that belongs there, and records that end on their page their CRC.
fn mend_pages(pages: &mut [u8], layout: Layout) {
    let start = SEGMENT.start(layout.segment_size);
    for (number, page) in pages.chunks_mut(PAGE).enumerate() {
        let long = number == 0;
        put(page, 0, &layout.major.facts().wal_page_magic.to_le_bytes());
        if let Some(info) = page.get_mut(2..4) {
            info[0] = if long { info[0] & 0x0F | 0x02 } else { info[0] & 0x0D };
            info[1] = 0;
        }
        put(page, 4, &SEGMENT.timeline.0.to_le_bytes());
        put(page, 8, &(start.0 + (number * PAGE) as u64).to_le_bytes());
        if long {
            put(page, 32, &SIZE.to_le_bytes());
            put(page, 36, &8192_u32.to_le_bytes());
        }
        let rest = if page.get(2).is_some_and(|info| info & 1 != 0) { u32_at(page, 16).unwrap_or(0) as usize } else { 0 };
        let mut at = (if long { 40_usize } else { 24 }).saturating_add(rest.saturating_add(7) & !7);
        while let Some(len) = u32_at(page, at).map(|len| len as usize).filter(|len| *len >= RECORD_HEADER) {
            let Some(record) = at.checked_add(len).and_then(|end| page.get_mut(at..end)) else { break };
            mend_record(record);
            at += len.saturating_add(7) & !7;
        }
    }
}

fn mend_record(record: &mut [u8]) {
    let (Some(header), Some(rest)) = (record.get(..20), record.get(RECORD_HEADER..)) else { return };
    let crc = crc32c::crc32c_append(crc32c::crc32c(rest), header);
    put(record, 20, &crc.to_le_bytes());
}

/// The choice is the major version; then one record.
pub fn record(data: &[u8]) {
    let Some(choices) = Choices::of(data) else { return };
    let bytes = with_length(choices.rest, choices.mend);
    if let Ok(record) = decode(choices.major(), &bytes) {
        inspect(&record, choices.major());
    }
}

/// The record with its own length in front.
fn with_length(bytes: &[u8], mend: bool) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    if mend {
        put(&mut bytes, 0, &len.to_le_bytes());
    }
    bytes
}

fn decode(major: Major, bytes: &[u8]) -> Result<Record<'_>, bygone::pg::wal::record::DecodeError> {
    Record::decode(major, Lsn(0x4000_0028), Lsn(0x4000_0028 + (bytes.len() as u64).next_multiple_of(8)), bytes)
}

/// Everything that is asked of a record without a page.
fn inspect(record: &Record<'_>, major: Major) {
    drop(format!("{:?} {:?}", effect::effect(record, major), names::operation(record, major)));
    vm::clears(record).chain(vm::unregistered_clears(record)).for_each(|clear| drop(clear.tag().to_string()));
    mention::mentions(record, |mention| drop(mention.tag.to_string()));
    for block in &record.blocks {
        if let Some(image) = &block.image {
            let _pages = (image.restore(record.end), image.restore_as_stored());
        }
    }
}

/// The choice is the major version; then the record's length (2 bytes), the record, and the page. Applies each of the record's effects to the page.
pub fn redo(data: &[u8]) {
    let Some(choices) = Choices::of(data) else { return };
    let Some((len, rest)) = choices.rest.split_first_chunk() else { return };
    let (bytes, page_bytes) = rest.split_at(usize::from(u16::from_le_bytes(*len)).min(rest.len()));
    let bytes = with_length(bytes, choices.mend);
    let Ok(record) = decode(choices.major(), &bytes) else { return };
    let mut page = Page::zeroed();
    put(&mut page.0[..], 0, &page_bytes[..page_bytes.len().min(PAGE)]);
    let targets = record.blocks.iter().map(|block| (Target::Block(block.id), block.tag));
    let clears = vm::unregistered_clears(&record).map(|clear| (Target::UnregisteredVm(clear.tag().block), clear.tag()));
    for (target, tag) in targets.chain(clears) {
        for hint_bits_logged in [false, true] {
            let mut page = page.clone();
            let context = Context { major: choices.major(), hint_bits_logged };
            let _outcome = redo::apply(&context, &record, target, &mut page);
            mask::mask(record.rmgr, tag, &mut page);
        }
    }
}
