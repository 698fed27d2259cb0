//! Index tuples as B-trees use them (itup.h, nbtree.h): 6 bytes of heap address, 2 of length and flags, then the key.
//!
//! With `ALT_TID` set the address means something else: a downlink, or where a posting list begins and how long it is.

use crate::pg::page::max_align;
use crate::redo::data::Data;
use crate::redo::fault::Fault;

/// `sizeof(IndexTupleData)`.
const HEADER_LEN: usize = 8;
/// `sizeof(ItemPointerData)`.
pub(super) const TID_LEN: usize = 6;
const INFO: usize = 6;
/// `INDEX_SIZE_MASK`.
const SIZE_MASK: u16 = 0x1FFF;
/// `INDEX_ALT_TID_MASK`.
const ALT_TID: u16 = 0x2000;
/// `BT_IS_POSTING`, in the address's line pointer number.
const IS_POSTING: u16 = 0x2000;
/// `BT_OFFSET_MASK`: the number of addresses in a posting list.
const COUNT_MASK: u16 = 0x0FFF;

const SHORT: Fault = Fault::Damaged("index tuple is shorter than it says");

fn u16_at(tuple: &[u8], at: usize) -> Result<u16, Fault> {
    tuple.get(at..at + 2).map(|b| u16::from_le_bytes([b[0], b[1]])).ok_or(SHORT)
}

fn info(tuple: &[u8]) -> Result<u16, Fault> {
    u16_at(tuple, INFO)
}

/// `IndexTupleSize`: bytes of the tuple that begins here, by its own word.
pub(super) fn len(tuple: &[u8]) -> Result<usize, Fault> {
    Ok(usize::from(info(tuple)? & SIZE_MASK))
}

/// The tuple that begins here, cut to its length.
pub(super) fn cut(bytes: &[u8]) -> Result<&[u8], Fault> {
    bytes.get(..len(bytes)?).filter(|tuple| tuple.len() >= HEADER_LEN).ok_or(SHORT)
}

/// Takes the next tuple off a record's data, with its padding to 8 bytes.
pub(super) fn take<'a>(data: &mut Data<'a>) -> Result<&'a [u8], Fault> {
    let tuple = max_align(len(data.rest())?);
    if tuple < HEADER_LEN {
        return Err(SHORT);
    }
    data.take(tuple)
}

/// `BTreeTupleGetDownLink`.
pub(super) fn downlink(tuple: &[u8]) -> Result<u32, Fault> {
    Ok(u32::from(u16_at(tuple, 0)?) << 16 | u32::from(u16_at(tuple, 2)?))
}

fn block_bytes(block: u32) -> [u8; 4] {
    let [a, b, c, d] = block.to_le_bytes();
    [c, d, a, b]
}

/// `BTreeTupleSetDownLink`.
pub(super) fn set_downlink(tuple: &mut [u8], block: u32) -> Result<(), Fault> {
    tuple.get_mut(..4).ok_or(SHORT)?.copy_from_slice(&block_bytes(block));
    Ok(())
}

/// The high key of a half-dead leaf: no key, only the block of the topmost page that goes with it (`BTreeTupleSetTopParent`).
pub(super) fn top_parent_link(block: u32) -> [u8; HEADER_LEN] {
    let [a, b, c, d] = block_bytes(block);
    let [e, f] = (8 | ALT_TID).to_le_bytes();
    [a, b, c, d, 0, 0, e, f]
}

/// Where a posting list lies in its tuple.
#[derive(Debug, Clone, Copy)]
pub(super) struct Posting {
    pub(super) offset: usize,
    pub(super) count: usize,
}

impl Posting {
    /// `None` for a tuple with one heap address.
    pub(super) fn of(tuple: &[u8]) -> Result<Option<Posting>, Fault> {
        let number = u16_at(tuple, 4)?;
        if info(tuple)? & ALT_TID == 0 || number & IS_POSTING == 0 {
            return Ok(None);
        }
        let posting = Posting { offset: downlink(tuple)? as usize, count: usize::from(number & COUNT_MASK) };
        let fits = posting.offset >= HEADER_LEN && posting.end() <= tuple.len() && posting.count > 0;
        if fits { Ok(Some(posting)) } else { Err(Fault::Damaged("posting list lies outside its tuple")) }
    }

    fn end(self) -> usize {
        self.offset.saturating_add(self.count * TID_LEN)
    }

    /// Where address `n`, from 0, lies; `n` may equal the count.
    pub(super) fn at(self, n: usize) -> usize {
        self.offset + n * TID_LEN
    }
}

/// The heap addresses of a tuple, 6 bytes each.
pub(super) fn tids(tuple: &[u8]) -> Result<&[u8], Fault> {
    Ok(match Posting::of(tuple)? {
        Some(posting) => &tuple[posting.offset..posting.end()],
        None => tuple.get(..TID_LEN).ok_or(SHORT)?,
    })
}

/// The bytes of a tuple before its posting list.
pub(super) fn key(tuple: &[u8]) -> Result<&[u8], Fault> {
    Ok(match Posting::of(tuple)? {
        Some(posting) => &tuple[..posting.offset],
        None => tuple,
    })
}

/// Builds a tuple with the key of `base` and these heap addresses, a plain one if there is only one (`_bt_form_posting`).
pub(super) fn form_posting(base: &[u8], tids: &[u8]) -> Result<Vec<u8>, Fault> {
    let key = key(base)?;
    let count = tids.len() / TID_LEN;
    let len = if count > 1 { max_align(key.len() + tids.len()) } else { key.len() };
    let size = u16::try_from(len).ok().filter(|size| *size <= SIZE_MASK && count <= usize::from(COUNT_MASK));
    let size = size.ok_or(Fault::Damaged("posting list is too long"))?;
    let mut tuple = vec![0; len];
    tuple[..key.len()].copy_from_slice(key);
    let flags = info(base)? & !SIZE_MASK;
    let flags = if count > 1 {
        let offset = u32::try_from(key.len()).map_err(|_| SHORT)?;
        let number = u16::try_from(count).map_err(|_| SHORT)? | IS_POSTING;
        tuple[..4].copy_from_slice(&block_bytes(offset));
        tuple[4..6].copy_from_slice(&number.to_le_bytes());
        tuple[key.len()..key.len() + tids.len()].copy_from_slice(tids);
        flags | ALT_TID
    } else {
        tuple[..TID_LEN].copy_from_slice(tids.get(..TID_LEN).ok_or(Fault::Damaged("posting list would be empty"))?);
        flags & !ALT_TID
    };
    tuple[INFO..HEADER_LEN].copy_from_slice(&(flags | size).to_le_bytes());
    Ok(tuple)
}
