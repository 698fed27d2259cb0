//! One WAL record, decoded: header, block references, images and data, all borrowed from the record's bytes.
//!
//! From: `pg::wal::reader`, which joins a record's pieces across pages and segments.  To: `redo`, the block index, `explain`.
//! Knows nothing of what a record means. Source: xlogrecord.h, xlogreader.c `DecodeXLogRecord` (14 to 18; 14 numbers the image bits differently).

use thiserror::Error;

use crate::pg::cursor::Cursor;
use crate::pg::relation::BLCKSZ;
use crate::pg::{BlockTag, Fork, Lsn, Major, RelFileLocator};

/// Bytes of a record's header (`SizeOfXLogRecord`).
pub const HEADER_BYTES: usize = 24;

/// The operation of an [`Rmgr::XLOG`] record after which the rest of the segment is empty.
pub const XLOG_SWITCH: u8 = 0x40;

// Ids of the chunk headers that are no block references (xlogrecord.h).
const MAX_BLOCK_ID: u8 = 32;
const MAX_BLOCKS: usize = MAX_BLOCK_ID as usize + 1;
const MAIN_DATA_SHORT: u8 = 255;
const MAIN_DATA_LONG: u8 = 254;
const ORIGIN: u8 = 253;
const TOPLEVEL_XID: u8 = 252;

// `fork_flags` of a block reference.
const FORK_MASK: u8 = 0x0F;
const HAS_IMAGE: u8 = 0x10;
const HAS_DATA: u8 = 0x20;
const WILL_INIT: u8 = 0x40;
const SAME_REL: u8 = 0x80;

/// A record whose contents contradict its own header, though its CRC is right.
#[derive(Debug, Clone, Copy, Error, PartialEq, Eq)]
#[error("record at {lsn} cannot be taken apart: {what}")]
pub struct DecodeError {
    pub lsn: Lsn,
    pub what: &'static str,
}

/// A resource manager's number (rmgrlist.h; 14 to 18 agree). Numbers from 128 are extensions' own (15 and later).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rmgr(pub u8);

impl Rmgr {
    pub const XLOG: Rmgr = Rmgr(0);
    pub const TRANSACTION: Rmgr = Rmgr(1);
    pub const STORAGE: Rmgr = Rmgr(2);
    pub const CLOG: Rmgr = Rmgr(3);
    pub const DATABASE: Rmgr = Rmgr(4);
    pub const TABLESPACE: Rmgr = Rmgr(5);
    pub const MULTIXACT: Rmgr = Rmgr(6);
    pub const RELMAP: Rmgr = Rmgr(7);
    pub const STANDBY: Rmgr = Rmgr(8);
    pub const HEAP2: Rmgr = Rmgr(9);
    pub const HEAP: Rmgr = Rmgr(10);
    pub const BTREE: Rmgr = Rmgr(11);
    pub const HASH: Rmgr = Rmgr(12);
    pub const GIN: Rmgr = Rmgr(13);
    pub const GIST: Rmgr = Rmgr(14);
    pub const SEQUENCE: Rmgr = Rmgr(15);
    pub const SPGIST: Rmgr = Rmgr(16);
    pub const BRIN: Rmgr = Rmgr(17);
    pub const COMMIT_TS: Rmgr = Rmgr(18);
    pub const REPLICATION_ORIGIN: Rmgr = Rmgr(19);
    pub const GENERIC: Rmgr = Rmgr(20);
    pub const LOGICAL_MESSAGE: Rmgr = Rmgr(21);

    /// Its name as pg_waldump prints it; `None` for a number that no core resource manager has.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        const NAMES: [&str; 22] = [
            "XLOG",
            "Transaction",
            "Storage",
            "CLOG",
            "Database",
            "Tablespace",
            "MultiXact",
            "RelMap",
            "Standby",
            "Heap2",
            "Heap",
            "Btree",
            "Hash",
            "Gin",
            "Gist",
            "Sequence",
            "SPGist",
            "BRIN",
            "CommitTs",
            "ReplicationOrigin",
            "Generic",
            "LogicalMessage",
        ];
        NAMES.get(usize::from(self.0)).copied()
    }

    /// Can a record of `major` carry this number (`RmgrIdIsValid`; 14 has no extensions' resource managers)?
    #[must_use]
    pub fn is_known(self, major: Major) -> bool {
        self.0 <= Rmgr::LOGICAL_MESSAGE.0 || (self.is_custom() && major > Major::V14)
    }

    /// Does it belong to an extension?
    #[must_use]
    pub fn is_custom(self) -> bool {
        self.0 >= 128
    }
}

/// One record. `'a` borrows the record's own bytes, joined across pages.
#[derive(Debug, Clone)]
pub struct Record<'a> {
    /// Where its first byte lies.
    pub lsn: Lsn,
    /// Its exclusive end, aligned to 8 bytes: what redo writes into a page's Lsn field.
    pub end: Lsn,
    /// Start of the record before it (`xl_prev`).
    pub prev: Lsn,
    /// `xl_tot_len`, bytes.
    pub total_len: u32,
    /// `xl_xid`; 0 if it has none.
    pub xid: u32,
    /// The resource manager.
    pub rmgr: Rmgr,
    /// `xl_info`, all eight bits: operation in the high nibble.
    pub info: u8,
    /// Replication origin, if one was set.
    pub origin: Option<u16>,
    /// Top-level xid of a subtransaction's first record, if logged.
    pub toplevel_xid: Option<u32>,
    /// Block references in the order they appear (ids rise, but need not be dense).
    pub blocks: Vec<BlockRef<'a>>,
    /// The record's own data.
    pub main_data: &'a [u8],
}

impl<'a> Record<'a> {
    /// Takes `bytes` (`xl_tot_len` of them, header included) apart.
    ///
    /// # Errors
    /// [`DecodeError`] naming what contradicts what. Follows `DecodeXLogRecord` (xlogreader.c).
    pub fn decode(major: Major, lsn: Lsn, end: Lsn, bytes: &'a [u8]) -> Result<Record<'a>, DecodeError> {
        Self::take_apart(major, lsn, end, bytes).map_err(|what| DecodeError { lsn, what })
    }

    /// What the first bytes of a record tell: all but the bytes of its blocks and its main data, which are empty. `None` if its headers go on beyond them
    /// or make no sense; nothing vouches for them, as the CRC is of the whole record.
    #[must_use]
    pub fn decode_beginning(major: Major, lsn: Lsn, bytes: &'a [u8]) -> Option<Record<'a>> {
        let total_len = usize::try_from(u32::from_le_bytes(*bytes.first_chunk()?)).ok()?;
        let missing = total_len.checked_sub(bytes.len())?;
        Self::headers(&mut Cursor::new(bytes), major, lsn, lsn, missing, &mut Lens::none()).map(|(record, _)| record).ok()
    }

    fn take_apart(major: Major, lsn: Lsn, end: Lsn, bytes: &'a [u8]) -> Result<Record<'a>, &'static str> {
        let mut c = Cursor::new(bytes);
        let stated = bytes.first_chunk().map(|len| u32::from_le_bytes(*len));
        if bytes.len() >= HEADER_BYTES && stated.and_then(|len| usize::try_from(len).ok()) != Some(bytes.len()) {
            return Err("its length is not the one it states");
        }
        let mut lens = Lens::none();
        let (mut record, main_len) = Self::headers(&mut c, major, lsn, end, 0, &mut lens)?;
        for (block, len) in record.blocks.iter_mut().zip(lens) {
            block.fill(&mut c, len).ok_or("a block's bytes are missing")?;
        }
        record.main_data = c.take(main_len).ok_or("main data is missing")?;
        Ok(record)
    }

    /// Reads all headers of a record, of whose end `missing` bytes are not there. Gives how long the parts are that follow: those of the blocks in `lens`,
    /// which is lent since there are many records, and few of them name more than two blocks.
    fn headers(
        c: &mut Cursor<'a>,
        major: Major,
        lsn: Lsn,
        end: Lsn,
        missing: usize,
        lens: &mut [Lens; MAX_BLOCKS],
    ) -> Result<(Record<'a>, usize), &'static str> {
        const SHORT: &str = "it ends inside a header";
        let (total_len, xid) = (c.u32().ok_or(SHORT)?, c.u32().ok_or(SHORT)?);
        let prev = Lsn(c.u64().ok_or(SHORT)?);
        let (info, rmgr) = (c.u8().ok_or(SHORT)?, Rmgr(c.u8().ok_or(SHORT)?));
        c.skip(6).ok_or(SHORT)?;
        let mut record =
            Record { lsn, end, prev, total_len, xid, rmgr, info, origin: None, toplevel_xid: None, blocks: Vec::new(), main_data: &[] };
        let mut main_len = 0usize;
        let mut payload = 0usize;
        let mut same_rel = None;
        // Headers go on until what is left is exactly what they announced.
        while c.remaining().saturating_add(missing) > payload {
            let id = c.u8().ok_or(SHORT)?;
            match id {
                MAIN_DATA_SHORT | MAIN_DATA_LONG => {
                    let len = if id == MAIN_DATA_SHORT { c.u8().map(u32::from) } else { c.u32() };
                    main_len = usize::try_from(len.ok_or(SHORT)?).map_err(|_| "its main data is too long")?;
                    payload = payload.checked_add(main_len).ok_or("its main data is too long")?;
                    break;
                }
                ORIGIN => record.origin = Some(c.u16().ok_or(SHORT)?),
                TOPLEVEL_XID => record.toplevel_xid = Some(c.u32().ok_or(SHORT)?),
                0..=MAX_BLOCK_ID => {
                    if record.blocks.last().is_some_and(|b| b.id >= id) {
                        return Err("block references are out of order");
                    }
                    let (block, len) = BlockRef::header(c, id, major, &mut same_rel)?;
                    payload = payload.saturating_add(len.image.into()).saturating_add(len.data.into());
                    if let Some(place) = lens.get_mut(record.blocks.len()) {
                        *place = len;
                    }
                    record.blocks.push(block);
                }
                _ => return Err("a chunk has an id that none has"),
            }
        }
        if c.remaining().saturating_add(missing) != payload {
            return Err("its parts are not as long as they say");
        }
        Ok((record, main_len))
    }

    /// The operation: the high nibble of `xl_info` (the low one belongs to the WAL machinery).
    #[must_use]
    pub fn op(&self) -> u8 {
        self.info & 0xF0
    }

    /// The reference with this id, if the record has one.
    #[must_use]
    pub fn block(&self, id: u8) -> Option<&BlockRef<'a>> {
        self.blocks.iter().find(|b| b.id == id)
    }
}

/// One block that a record changes.
#[derive(Debug, Clone)]
pub struct BlockRef<'a> {
    /// The number under which the resource manager registered it.
    pub id: u8,
    /// Which block.
    pub tag: BlockTag,
    /// `BKPBLOCK_WILL_INIT`: redo starts from a zero page and never reads the old one.
    pub will_init: bool,
    /// The full-page image, if there is one.
    pub image: Option<Image<'a>>,
    /// Data registered for this block; `None` where `BKPBLOCK_HAS_DATA` is not set.
    pub data: Option<&'a [u8]>,
}

/// How many bytes of image and data a block reference announces.
#[derive(Debug, Clone, Copy, Default)]
struct Lens {
    image: u16,
    data: u16,
}

impl Lens {
    fn none() -> [Lens; MAX_BLOCKS] {
        [Lens::default(); MAX_BLOCKS]
    }
}

impl<'a> BlockRef<'a> {
    /// Reads the header of one reference, whose id is read already; its bytes come later, see [`BlockRef::fill`].
    fn header(
        c: &mut Cursor<'a>,
        id: u8,
        major: Major,
        same_rel: &mut Option<RelFileLocator>,
    ) -> Result<(BlockRef<'a>, Lens), &'static str> {
        const SHORT: &str = "it ends inside a block's header";
        let flags = c.u8().ok_or(SHORT)?;
        let fork = Fork::from_number(flags & FORK_MASK).ok_or("a block has a fork number that no fork has")?;
        let data_len = c.u16().ok_or(SHORT)?;
        if (flags & HAS_DATA != 0) != (data_len != 0) {
            return Err("a block's data flag and data length disagree");
        }
        let (image, image_len) = if flags & HAS_IMAGE == 0 {
            (None, 0)
        } else {
            let (image, len) = Image::header(c, major)?;
            (Some(image), len)
        };
        if flags & SAME_REL == 0 {
            let mut oid = || c.u32().ok_or(SHORT);
            *same_rel = Some(RelFileLocator { tablespace: oid()?, database: oid()?, relation: oid()? });
        }
        let rel = same_rel.ok_or("a block refers to the relation before it, and there is none")?;
        let block = c.u32().ok_or(SHORT)?;
        let tag = BlockTag { rel, fork, block };
        let data: Option<&[u8]> = (flags & HAS_DATA != 0).then_some(&[]);
        let lens = Lens { image: image_len, data: data_len };
        Ok((BlockRef { id, tag, will_init: flags & WILL_INIT != 0, image, data }, lens))
    }

    fn fill(&mut self, c: &mut Cursor<'a>, len: Lens) -> Option<()> {
        if let Some(image) = &mut self.image {
            image.bytes = c.take(len.image.into())?;
        }
        if let Some(data) = &mut self.data {
            *data = c.take(len.data.into())?;
        }
        Some(())
    }
}

impl BlockRef<'_> {
    /// Does this reference alone rebuild the page, whatever stood there before?
    #[must_use]
    pub fn is_self_contained(&self) -> bool {
        self.will_init || self.image.as_ref().is_some_and(|i| i.apply)
    }
}

/// A full-page image, as stored: perhaps compressed, and without the hole.
#[derive(Debug, Clone)]
pub struct Image<'a> {
    /// Redo restores it. If not set it is only there for `wal_consistency_checking`, and redo of the record must still run.
    pub apply: bool,
    /// Where the hole begins, bytes from the page's start; 0 if there is none.
    pub hole_offset: u16,
    /// Bytes of the hole (zeros that were left out).
    pub hole_len: u16,
    /// How `bytes` are compressed.
    pub compression: Option<ImageCompression>,
    /// The stored bytes.
    pub bytes: &'a [u8],
}

impl<'a> Image<'a> {
    /// Reads an image's header; gives the image, still without its bytes, and how many they are.
    fn header(c: &mut Cursor<'a>, major: Major) -> Result<(Image<'a>, u16), &'static str> {
        const SHORT: &str = "it ends inside an image's header";
        #[expect(clippy::cast_possible_truncation, reason = "8192")]
        const PAGE: u16 = BLCKSZ as u16;
        let (len, hole_offset) = (c.u16().ok_or(SHORT)?, c.u16().ok_or(SHORT)?);
        let flags = ImageFlags::parse(c.u8().ok_or(SHORT)?, major)?;
        let hole_len = match (flags.has_hole, flags.compression.is_some()) {
            (true, true) => c.u16().ok_or(SHORT)?,
            (true, false) => PAGE.saturating_sub(len),
            (false, _) => 0,
        };
        let right = match (flags.has_hole, flags.compression.is_some()) {
            (true, _) => hole_offset > 0 && hole_len > 0 && len < PAGE && hole_offset.saturating_add(hole_len) <= PAGE,
            (false, true) => hole_offset == 0 && len < PAGE,
            (false, false) => hole_offset == 0 && len == PAGE,
        };
        if !right {
            return Err("an image's hole, length and flags disagree");
        }
        Ok((Image { apply: flags.apply, hole_offset, hole_len, compression: flags.compression, bytes: &[] }, len))
    }
}

/// `bimg_info`, told apart by version: 15 made room for more compression methods.
struct ImageFlags {
    has_hole: bool,
    apply: bool,
    compression: Option<ImageCompression>,
}

impl ImageFlags {
    fn parse(bits: u8, major: Major) -> Result<ImageFlags, &'static str> {
        let has_hole = bits & 0x01 != 0;
        if major == Major::V14 {
            let compression = (bits & 0x02 != 0).then_some(ImageCompression::Pglz);
            return Ok(ImageFlags { has_hole, apply: bits & 0x04 != 0, compression });
        }
        let compression = match bits & 0x1C {
            0 => None,
            0x04 => Some(ImageCompression::Pglz),
            0x08 => Some(ImageCompression::Lz4),
            0x10 => Some(ImageCompression::Zstd),
            _ => return Err("an image is compressed in two ways"),
        };
        Ok(ImageFlags { has_hole, apply: bits & 0x02 != 0, compression })
    }
}

/// How a full-page image is compressed (14 knows only pglz).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ImageCompression {
    Pglz,
    Lz4,
    Zstd,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record with these bytes behind its header.
    fn record(body: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(body.len() + 24).unwrap().to_le_bytes().to_vec();
        bytes.extend(7u32.to_le_bytes());
        bytes.extend(0x28u64.to_le_bytes());
        bytes.extend([0x80, 10, 0, 0, 0, 0, 0, 0]);
        bytes.extend(body);
        bytes
    }

    fn oids(oids: &[u32]) -> Vec<u8> {
        oids.iter().flat_map(|o| o.to_le_bytes()).collect()
    }

    /// Block 0 with image (bits as given, 100 bytes, hole at 24) and data, block 3 of the same relation to be initialised, an origin, main data.
    fn body(image_bits: u8, hole_len: Option<u16>) -> Vec<u8> {
        let mut body = vec![0, 0x31, 2, 0, 100, 0, 24, 0, image_bits];
        body.extend(hole_len.iter().flat_map(|l| l.to_le_bytes()));
        body.extend(oids(&[1663, 5, 16384, 77]));
        body.extend([3, 0xC0, 0, 0]);
        body.extend(oids(&[78]));
        body.extend([253, 9, 0, 252]);
        body.extend(oids(&[1000]));
        body.extend([255, 3]);
        body.extend([0xAA; 100]);
        body.extend(b"hiabc");
        body
    }

    #[test]
    fn blocks_images_and_data_are_found() {
        let bytes = record(&body(0x07, Some(8000)));
        let record = Record::decode(Major::V15, Lsn(0x40), Lsn(0x148), &bytes).unwrap();
        assert_eq!((record.xid, record.prev, record.rmgr, record.op()), (7, Lsn(0x28), Rmgr::HEAP, 0x80));
        assert_eq!((record.origin, record.toplevel_xid, record.main_data), (Some(9), Some(1000), &b"abc"[..]));
        let first = record.block(0).unwrap();
        let image = first.image.as_ref().unwrap();
        assert_eq!((image.apply, image.compression, image.hole_len, image.bytes.len()), (true, Some(ImageCompression::Pglz), 8000, 100));
        assert_eq!((first.tag.fork, first.tag.block, first.data), (Fork::Fsm, 77, Some(&b"hi"[..])));
        let third = record.block(3).unwrap();
        assert_eq!((third.tag.rel, third.will_init, third.data), (first.tag.rel, true, None));
        assert!(third.is_self_contained() && first.is_self_contained());
    }

    #[test]
    fn version_14_numbers_the_image_bits_differently() {
        let decode = |major, bits| {
            let bytes = record(&body(bits, (bits & if major == Major::V14 { 2 } else { 4 } != 0).then_some(8000)));
            let image = Record::decode(major, Lsn(0x40), Lsn(0x148), &bytes).unwrap().blocks.remove(0).image.unwrap();
            (image.apply, image.compression, image.hole_len)
        };
        assert_eq!(decode(Major::V14, 0x03), (false, Some(ImageCompression::Pglz), 8000));
        assert_eq!(decode(Major::V14, 0x05), (true, None, 8092));
        assert_eq!(decode(Major::V18, 0x03), (true, None, 8092));
        assert_eq!(decode(Major::V18, 0x05), (false, Some(ImageCompression::Pglz), 8000));
    }

    #[test]
    fn the_beginning_of_a_record_tells_its_blocks_as_soon_as_all_headers_are_there() {
        let bytes = record(&body(0x07, Some(8000)));
        let headers = bytes.len() - 100 - b"hiabc".len();
        let whole = Record::decode(Major::V15, Lsn(0x40), Lsn(0x148), &bytes).unwrap();
        for len in 0..bytes.len() {
            let beginning = Record::decode_beginning(Major::V15, Lsn(0x40), &bytes[..len]);
            assert_eq!(beginning.is_some(), len >= headers, "{len}");
            let Some(beginning) = beginning else { continue };
            let told = |record: &Record<'_>| record.blocks.iter().map(|b| (b.id, b.tag, b.is_self_contained())).collect::<Vec<_>>();
            assert_eq!((told(&beginning), beginning.main_data), (told(&whole), &[][..]));
        }
    }

    #[test]
    fn contradictions_are_refused_by_name() {
        let whole = body(0x07, Some(8000));
        let refuse = |body: &[u8]| Record::decode(Major::V15, Lsn(0x40), Lsn(0x148), &record(body)).unwrap_err().what;
        let change = |at: usize, to: u8| {
            let mut body = whole.clone();
            body[at] = to;
            refuse(&body)
        };
        assert_eq!(change(0, 40), "a chunk has an id that none has");
        assert_eq!(change(1, 0x34), "a block has a fork number that no fork has");
        assert_eq!(change(2, 0), "a block's data flag and data length disagree");
        assert_eq!(change(6, 0), "an image's hole, length and flags disagree");
        assert_eq!(change(8, 0x0F), "an image is compressed in two ways");
        assert_eq!(change(27, 0), "block references are out of order");
        assert_eq!(change(2, 9), "its parts are not as long as they say");
        assert_eq!(change(1, 0xB1), "a block refers to the relation before it, and there is none");
        assert_eq!(
            Record::decode(Major::V15, Lsn(0x40), Lsn(0x148), &record(&whole)[..90]).unwrap_err().what,
            "its length is not the one it states"
        );
    }
}
