//! What the index access methods share: item pointers, index tuples, and lists of them.
//!
//! Source: itemptr.h, block.h, itup.h (14 to 18 agree).

use crate::pg::BlockNo;
use crate::pg::page::{Page, Placement};

use super::data::Data;
use super::fault::Fault;

/// `InvalidBlockNumber`.
pub(super) const NO_BLOCK: BlockNo = BlockNo::MAX;
/// What `ItemPointerSetInvalid` writes.
pub(super) const NO_POINTER: [u8; 6] = [0xFF, 0xFF, 0xFF, 0xFF, 0, 0];
/// `sizeof(IndexTupleData)`: item pointer, then `t_info`.
const TUPLE_HEADER_LEN: usize = 8;
/// `INDEX_SIZE_MASK`: the length in `t_info`, bytes.
const TUPLE_LEN_MASK: u16 = 0x1FFF;

/// The four bytes of a `BlockIdData`: two 16-bit halves, the high one first.
pub(super) fn block_id(block: BlockNo) -> [u8; 4] {
    block.rotate_left(16).to_le_bytes()
}

/// The six bytes of an `ItemPointerData`.
pub(super) fn item_pointer(block: BlockNo, number: u16) -> [u8; 6] {
    let ([a, b, c, d], [e, f]) = (block_id(block), number.to_le_bytes());
    [a, b, c, d, e, f]
}

/// Bytes of the index tuple that begins with `header` (`IndexTupleSize`).
pub(super) fn tuple_len(header: &[u8]) -> Result<usize, Fault> {
    let header = header.first_chunk::<TUPLE_HEADER_LEN>().ok_or(Fault::Damaged("index tuple is cut short"))?;
    let len = usize::from(u16::from_le_bytes([header[6], header[7]]) & TUPLE_LEN_MASK);
    if len < TUPLE_HEADER_LEN { Err(Fault::Damaged("index tuple is shorter than its header")) } else { Ok(len) }
}

/// Takes the next index tuple, its header included.
pub(super) fn take_tuple<'a>(data: &mut Data<'a>) -> Result<&'a [u8], Fault> {
    data.take(tuple_len(data.rest())?)
}

/// Adds every index tuple of `data` behind the items that are there.
pub(super) fn append_tuples(page: &mut Page, mut data: Data<'_>) -> Result<(), Fault> {
    while data.len() > 0 {
        let tuple = take_tuple(&mut data)?;
        page.add_item(tuple, page.max_offset() + 1, Placement::Shift)?;
    }
    Ok(())
}

/// Refuses a page whose special space does not begin at `at`: it is not of the access method that asks.
pub(super) fn check_special(page: &Page, at: usize) -> Result<(), Fault> {
    if page.special_offset() == at { Ok(()) } else { Err(Fault::Damaged("the page is of another kind of relation")) }
}

/// Sets `set` and clears `clear` in the 16 flag bits at `at`.
pub(super) fn change_flags(page: &mut Page, at: usize, set: u16, clear: u16) -> Result<(), Fault> {
    let flags = page.u16_at(at)? & !clear | set;
    Ok(page.put(at, &flags.to_le_bytes())?)
}

#[cfg(test)]
mod tests;
