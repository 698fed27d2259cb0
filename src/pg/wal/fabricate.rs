//! WAL written by hand, for tests: records laid out on pages and segments as Postgres lays them out.

use std::collections::BTreeMap;
use std::convert::Infallible;

use bytes::Bytes;

use super::page::{Layout, PAGE_BYTES};
use super::reader::WalBytes;
use super::record::Rmgr;
use crate::pg::{BlockTag, Lsn, Major, SegmentSize, Timeline, WalSegment};

/// 1 MiB segments of one cluster.
pub(crate) fn layout(major: Major) -> Layout {
    Layout { major, segment_size: SegmentSize::new(1 << 20).unwrap(), system_id: Some(42) }
}

/// Segments in memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Segments(pub(crate) BTreeMap<WalSegment, Vec<u8>>);

impl WalBytes for Segments {
    type Error = Infallible;

    fn read(&mut self, segment: WalSegment, offset: u64) -> Result<Option<Bytes>, Infallible> {
        let offset = usize::try_from(offset).unwrap();
        // Three pages at a time: windows must not matter.
        Ok(self.0.get(&segment).map(|s| Bytes::copy_from_slice(&s[offset.min(s.len())..s.len().min(offset + 3 * PAGE_BYTES)])))
    }
}

/// Everything of a record but its place.
#[derive(Debug, Clone, Default)]
pub(crate) struct Draft {
    pub(crate) rmgr: u8,
    pub(crate) info: u8,
    pub(crate) xid: u32,
    /// Id, block, whether redo starts from zeros, data.
    pub(crate) blocks: Vec<(u8, BlockTag, bool, Vec<u8>)>,
    pub(crate) main: Vec<u8>,
}

impl Draft {
    pub(crate) fn new(rmgr: Rmgr, info: u8, xid: u32, main: Vec<u8>) -> Draft {
        Draft { rmgr: rmgr.0, info, xid, blocks: Vec::new(), main }
    }

    pub(crate) fn block(mut self, id: u8, tag: BlockTag, will_init: bool, data: &[u8]) -> Draft {
        self.blocks.push((id, tag, will_init, data.to_vec()));
        self
    }

    fn body(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (id, tag, will_init, data) in &self.blocks {
            let flags = tag.fork as u8 | if data.is_empty() { 0 } else { 0x20 } | if *will_init { 0x40 } else { 0 };
            out.extend([*id, flags]);
            out.extend(u16::try_from(data.len()).unwrap().to_le_bytes());
            for oid in [tag.rel.tablespace, tag.rel.database, tag.rel.relation, tag.block] {
                out.extend(oid.to_le_bytes());
            }
        }
        match u8::try_from(self.main.len()) {
            Ok(0) => {}
            Ok(len) => out.extend([255, len]),
            Err(_) => {
                out.push(254);
                out.extend(u32::try_from(self.main.len()).unwrap().to_le_bytes());
            }
        }
        for (_, _, _, data) in &self.blocks {
            out.extend(data);
        }
        out.extend(&self.main);
        out
    }

    /// The record's bytes, with its CRC.
    pub(crate) fn bytes(&self, prev: Lsn) -> Vec<u8> {
        let body = self.body();
        let mut out = Vec::new();
        out.extend(u32::try_from(body.len() + 24).unwrap().to_le_bytes());
        out.extend(self.xid.to_le_bytes());
        out.extend(prev.0.to_le_bytes());
        out.extend([self.info, self.rmgr, 0, 0]);
        let crc = crc32c::crc32c_append(crc32c::crc32c(&body), &out);
        out.extend(crc.to_le_bytes());
        out.extend(body);
        out
    }
}

/// Writes records one after another.
pub(crate) struct Writer {
    pub(crate) layout: Layout,
    pub(crate) timeline: Timeline,
    pub(crate) segments: Segments,
    at: Lsn,
    prev: Lsn,
}

impl Writer {
    /// Begins at the start of a segment.
    pub(crate) fn new(layout: Layout, segment_no: u64) -> Writer {
        let at = layout.segment_size.start(segment_no);
        Writer { layout, timeline: Timeline(1), segments: Segments::default(), at, prev: Lsn(at.0 - 64) }
    }

    /// Where the next record goes.
    pub(crate) fn next_lsn(&mut self) -> Lsn {
        self.page_header(0, 0);
        self.at
    }

    /// Appends a record; gives its start and end.
    pub(crate) fn push(&mut self, draft: &Draft) -> (Lsn, Lsn) {
        let bytes = draft.bytes(self.prev);
        let start = self.next_lsn();
        self.put(&bytes);
        self.prev = start;
        self.at = Lsn(self.at.0.next_multiple_of(8));
        if draft.rmgr == 0 && draft.info == 0x40 {
            self.at = Lsn(self.at.0.next_multiple_of(self.layout.segment_size.bytes()));
        }
        (start, self.at)
    }

    /// Appends only the part of a record that fits the page, as a crash may leave it; gives its start. What follows overwrites its rest.
    pub(crate) fn push_torn(&mut self, draft: &Draft) -> Lsn {
        let bytes = draft.bytes(self.prev);
        let start = self.next_lsn();
        let room = PAGE_BYTES - usize::try_from(start.0).unwrap() % PAGE_BYTES;
        assert!(bytes.len() > room, "does not cross a page");
        self.put(&bytes[..room]);
        self.page_header(0x8, 0);
        start
    }

    /// Goes on, on a new timeline, in a copy of the segment.
    pub(crate) fn fork(&mut self, timeline: Timeline) -> Lsn {
        let size = self.layout.segment_size;
        let old = WalSegment::holding(self.timeline, self.at, size);
        let copy = self.segments.0.get(&old).map(|bytes| {
            let mut copy = bytes.clone();
            copy[usize::try_from(size.offset(self.at)).unwrap()..].fill(0);
            copy
        });
        self.timeline = timeline;
        if let Some(copy) = copy {
            self.segments.0.insert(WalSegment { timeline, no: old.no }, copy);
        }
        self.at
    }

    fn put(&mut self, mut bytes: &[u8]) {
        loop {
            let offset = usize::try_from(self.at.0).unwrap() % PAGE_BYTES;
            let (now, later) = bytes.split_at(bytes.len().min(PAGE_BYTES - offset));
            self.write(now);
            bytes = later;
            if bytes.is_empty() {
                return;
            }
            self.page_header(0x1, u32::try_from(bytes.len()).unwrap());
        }
    }

    /// Writes a page's header if `at` is where a page starts.
    fn page_header(&mut self, flags: u16, rem_len: u32) {
        if !self.at.0.is_multiple_of(PAGE_BYTES as u64) {
            return;
        }
        let long = self.layout.segment_size.offset(self.at) == 0;
        let mut out = Vec::new();
        out.extend(self.layout.major.facts().wal_page_magic.to_le_bytes());
        out.extend((flags | if long { 2 } else { 0 }).to_le_bytes());
        out.extend(self.timeline.0.to_le_bytes());
        out.extend(self.at.0.to_le_bytes());
        out.extend(rem_len.to_le_bytes());
        out.extend([0; 4]);
        if long {
            out.extend(self.layout.system_id.unwrap().to_le_bytes());
            out.extend(u32::try_from(self.layout.segment_size.bytes()).unwrap().to_le_bytes());
            out.extend(8192u32.to_le_bytes());
        }
        self.write(&out);
    }

    fn write(&mut self, bytes: &[u8]) {
        let size = self.layout.segment_size;
        let segment = WalSegment::holding(self.timeline, self.at, size);
        let len = usize::try_from(size.bytes()).unwrap();
        let offset = usize::try_from(size.offset(self.at)).unwrap();
        let file = self.segments.0.entry(segment).or_insert_with(|| vec![0; len]);
        file[offset..offset + bytes.len()].copy_from_slice(bytes);
        self.at = Lsn(self.at.0 + bytes.len() as u64);
    }
}
