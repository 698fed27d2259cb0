//! The one WAL segment of a view: the parent's bytes up to the moment, then a shutdown checkpoint.
//!
//! In: where the moment is and what the checkpoint says.  Out: [`CraftedSegment`]: its name, where the record lies, and the patches over the parent.
//! The parent's bytes are kept, not zeroes: a later point-in-time recovery over this branch reads them (a zero prefix makes it end silently before).
//! Source: xlog_internal.h page headers, xlogrecord.h, xlog.c `CreateCheckPoint`.

use crate::pg::bytes::put;
use crate::pg::checkpoint::{CHECKPOINT_BYTES, Checkpoint};
use crate::pg::{Lsn, Major, SegmentSize, WalSegment};

const PAGE: u64 = 8192;
const SHORT_HEADER: u64 = 24;
const LONG_HEADER: u64 = 40;
const RECORD_HEADER: usize = 24;
/// Record header, a chunk header of two bytes, the checkpoint.
pub const RECORD_BYTES: usize = RECORD_HEADER + 2 + CHECKPOINT_BYTES;
const FIRST_IS_CONTRECORD: u16 = 1;
const IS_LONG_HEADER: u16 = 2;

/// What every page header repeats.
#[derive(Debug, Clone, Copy)]
pub struct Stream {
    pub major: Major,
    pub system_id: u64,
    pub segment_size: SegmentSize,
}

/// A segment made of its parent's bytes and patches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CraftedSegment {
    pub segment: WalSegment,
    /// Where the checkpoint record begins: what `pg_control` must say.
    pub checkpoint_lsn: Lsn,
    /// Bytes of the parent's segment that are kept, from its start; after them come patches and zeroes.
    pub kept_bytes: u64,
    /// (offset in the segment, bytes), rising and disjoint.
    pub patches: Vec<(u64, Vec<u8>)>,
}

/// Where a record may begin at or after `at` so that it ends inside the same segment.
fn place(at: Lsn, size: SegmentSize) -> Lsn {
    let offset = size.offset(at);
    let start = match offset % PAGE {
        0 => at.0 + header_bytes(offset),
        inside if inside < header_bytes(offset - inside) => at.0 - inside + header_bytes(offset - inside),
        _ => at.0.next_multiple_of(8),
    };
    let left_in_segment = size.bytes() - size.offset(Lsn(start));
    // The record and one short header, should it straddle a page.
    let needed = RECORD_BYTES as u64 + SHORT_HEADER;
    if size.segment_no(Lsn(start)) == size.segment_no(at) && left_in_segment >= needed {
        Lsn(start)
    } else {
        Lsn(size.start(size.segment_no(at) + 1).0 + LONG_HEADER)
    }
}

fn header_bytes(page_offset_in_segment: u64) -> u64 {
    if page_offset_in_segment == 0 { LONG_HEADER } else { SHORT_HEADER }
}

/// Places a shutdown checkpoint at the first possible position from `at` on. Its `redo` is overwritten with that position.
///
/// `previous` is the start of the last record before `at`.
#[must_use]
pub fn craft(stream: Stream, at: Lsn, previous: Lsn, checkpoint: &Checkpoint) -> (CraftedSegment, Checkpoint) {
    let size = stream.segment_size;
    let start = place(at, size);
    let checkpoint = Checkpoint { redo: start, ..*checkpoint };
    let segment = WalSegment::holding(checkpoint.timeline, start, size);
    let record = record(previous, &checkpoint);
    let offset = size.offset(start);
    let page = offset - offset % PAGE;
    let mut patches = Vec::new();
    if offset == page + header_bytes(page) {
        patches.push((page, page_header(stream, &checkpoint, Lsn(start.0 - offset + page), 0)));
    }
    let room = usize::try_from(page + PAGE - offset).unwrap_or(RECORD_BYTES).min(RECORD_BYTES);
    patches.push((offset, record[..room].to_vec()));
    if room < RECORD_BYTES {
        let next = page + PAGE;
        let rest = &record[room..];
        let mut bytes = page_header(stream, &checkpoint, Lsn(start.0 - offset + next), rest.len());
        bytes.extend_from_slice(rest);
        patches.push((next, bytes));
    }
    let kept_bytes = if size.segment_no(at) == segment.no { size.offset(at).min(patches[0].0) } else { 0 };
    (CraftedSegment { segment, checkpoint_lsn: start, kept_bytes, patches }, checkpoint)
}

fn record(previous: Lsn, checkpoint: &Checkpoint) -> [u8; RECORD_BYTES] {
    let mut bytes = [0; RECORD_BYTES];
    put(&mut bytes, 0, u32::try_from(RECORD_BYTES).unwrap_or(0));
    put(&mut bytes, 8, previous.0);
    // xl_info 0 and xl_rmid 0: XLOG_CHECKPOINT_SHUTDOWN. Then one short chunk of main data.
    bytes[RECORD_HEADER] = 255;
    bytes[RECORD_HEADER + 1] = u8::try_from(CHECKPOINT_BYTES).unwrap_or(0);
    bytes[RECORD_HEADER + 2..].copy_from_slice(&checkpoint.encode());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[RECORD_HEADER..]), &bytes[..20]);
    put(&mut bytes, 20, crc);
    bytes
}

/// The header of the page at `address`; `rest` bytes of a record begun before it follow.
fn page_header(stream: Stream, checkpoint: &Checkpoint, address: Lsn, rest: usize) -> Vec<u8> {
    let long = stream.segment_size.offset(address) == 0;
    let mut bytes = vec![0; usize::try_from(if long { LONG_HEADER } else { SHORT_HEADER }).unwrap_or(0)];
    let info = if long { IS_LONG_HEADER } else { 0 } | if rest > 0 { FIRST_IS_CONTRECORD } else { 0 };
    put(&mut bytes, 0, stream.major.facts().wal_page_magic);
    put(&mut bytes, 2, info);
    put(&mut bytes, 4, checkpoint.timeline.0);
    put(&mut bytes, 8, address.0);
    put(&mut bytes, 16, u32::try_from(rest).unwrap_or(0));
    if long {
        put(&mut bytes, 24, stream.system_id);
        put(&mut bytes, 32, u32::try_from(stream.segment_size.bytes()).unwrap_or(0));
        put(&mut bytes, 36, 8192u32);
    }
    bytes
}

impl CraftedSegment {
    /// Fills `buf` with the segment's bytes from `offset` on. `parent` fills a buffer with the parent segment's bytes from an offset on, and is
    /// only asked for bytes before `kept_bytes`.
    ///
    /// # Errors
    /// Those of `parent`.
    pub fn read<E>(&self, offset: u64, buf: &mut [u8], parent: impl FnOnce(u64, &mut [u8]) -> Result<(), E>) -> Result<(), E> {
        buf.fill(0);
        let end = offset + buf.len() as u64;
        if offset < self.kept_bytes {
            let kept = usize::try_from(self.kept_bytes.min(end) - offset).unwrap_or(buf.len());
            parent(offset, &mut buf[..kept])?;
        }
        for (at, bytes) in &self.patches {
            let (from, to) = ((*at).max(offset), (at + bytes.len() as u64).min(end));
            if from < to {
                let index = |position: u64, base: u64| usize::try_from(position - base).unwrap_or(0);
                buf[index(from, offset)..index(to, offset)].copy_from_slice(&bytes[index(from, *at)..index(to, *at)]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::pg::Timeline;

    const STREAM: Stream = Stream { major: Major::V15, system_id: 77, segment_size: SegmentSize::DEFAULT };
    const SEGMENT: u64 = 16 << 20;

    fn checkpoint() -> Checkpoint {
        let mut zero = Checkpoint::decode(&[0; 88], Major::V15).unwrap();
        zero.timeline = Timeline(2);
        zero
    }

    fn crafted(at: u64) -> CraftedSegment {
        craft(STREAM, Lsn(at), Lsn(at - 8), &checkpoint()).0
    }

    fn bytes_of(segment: &CraftedSegment) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(SEGMENT).unwrap()];
        segment
            .read(0, &mut bytes, |_, kept| {
                kept.fill(0xEE);
                Ok::<_, Infallible>(())
            })
            .unwrap();
        bytes
    }

    #[test]
    fn the_record_follows_the_parents_bytes() {
        let segment = crafted(3 * SEGMENT + 8192 + 400);
        assert_eq!((segment.checkpoint_lsn, segment.kept_bytes), (Lsn(3 * SEGMENT + 8592), 8592));
        assert_eq!(segment.segment.name(SegmentSize::DEFAULT), "000000020000000000000003");
        let bytes = bytes_of(&segment);
        assert_eq!(bytes[8591..8596], [0xEE, 114, 0, 0, 0]);
        assert!(bytes[8592 + 114..].iter().all(|b| *b == 0));
    }

    #[test]
    fn at_the_start_of_a_page_or_segment_the_header_is_made_too() {
        let page = crafted(3 * SEGMENT + 2 * 8192);
        assert_eq!((page.checkpoint_lsn, page.kept_bytes), (Lsn(3 * SEGMENT + 2 * 8192 + 24), 2 * 8192));
        assert_eq!(bytes_of(&page)[16384..16386], [0x10, 0xD1]);
        let segment = crafted(3 * SEGMENT);
        assert_eq!((segment.checkpoint_lsn, segment.kept_bytes), (Lsn(3 * SEGMENT + 40), 0));
        assert_eq!(bytes_of(&segment)[24..32], 77u64.to_le_bytes());
    }

    #[test]
    fn a_record_straddles_a_page_but_never_a_segment() {
        let segment = crafted(3 * SEGMENT + 2 * 8192 - 24);
        let bytes = bytes_of(&segment);
        assert_eq!(bytes[16384 + 2], 1, "the next page says that a record goes on");
        assert_eq!(bytes[16384 + 16], 90, "with as many bytes as are left");
        let moved = crafted(4 * SEGMENT - 24);
        assert_eq!((moved.checkpoint_lsn, moved.kept_bytes, moved.segment.no), (Lsn(4 * SEGMENT + 40), 0, 4));
    }

    #[test]
    fn reading_in_pieces_gives_the_same_bytes() {
        let segment = crafted(3 * SEGMENT + 2 * 8192 - 24);
        let whole = bytes_of(&segment);
        for step in [1000usize, 4096] {
            for from in (0..20_000).step_by(step) {
                let mut piece = vec![1; step];
                segment
                    .read(from as u64, &mut piece, |_, kept| {
                        kept.fill(0xEE);
                        Ok::<_, Infallible>(())
                    })
                    .unwrap();
                assert_eq!(piece, whole[from..from + step]);
            }
        }
    }
}
