//! Tuples of an SP-GiST page: leaf, inner and dead ones, and putting them where a record says (spgist_private.h).
//!
//! All begin with a state in the lowest two bits. Leaf and dead tuples have their length in the 30 bits above it, then 2 bytes of
//! flags and next number, then an item pointer; inner tuples have the number of nodes, the length of the prefix, and their length.

use crate::pg::BlockNo;
use crate::pg::page::{Page, Placement};

use super::super::data::Data;
use super::super::fault::Fault;
use super::super::index::{NO_POINTER, item_pointer, tuple_len};
use super::{PAGE_ID, PLACEHOLDERS, REDIRECTS, SPGIST_PAGE_ID, State};

/// The bits of a tuple's state.
pub(super) const STATE_MASK: u8 = 3;
const REDIRECT: u8 = 1;
const DEAD: u8 = 2;
pub(super) const PLACEHOLDER: u8 = 3;

/// `SGDTSIZE`: bytes of a dead tuple; no leaf tuple is shorter.
pub(super) const DEAD_LEN: usize = 16;
/// `SGITHDRSZ`: bytes before an inner tuple's prefix.
const INNER_HEADER_LEN: usize = 8;
/// The bits of a leaf tuple's `t_info` that hold the number of the next in its chain.
const NEXT_MASK: u16 = 0x3FFF;

/// What takes the place of a tuple that is gone.
#[derive(Clone, Copy)]
pub(super) enum Stub {
    /// Leads on to where it went, and says who moved it.
    Redirect { to: (BlockNo, u16), xid: u32 },
    /// Cannot go, because links lead to it.
    Dead,
    /// Keeps the numbers of the others.
    Placeholder,
}

impl Stub {
    /// A redirect, or a placeholder where the index is just being built.
    pub(super) fn moved(to: (BlockNo, u16), state: State) -> Stub {
        if state.is_build { Stub::Placeholder } else { Stub::Redirect { to, xid: state.xid } }
    }

    /// `spgFormDeadTuple`.
    fn tuple(self) -> [u8; DEAD_LEN] {
        let (state, pointer, xid) = match self {
            Stub::Redirect { to: (block, number), xid } => (REDIRECT, item_pointer(block, number), xid),
            Stub::Dead => (DEAD, NO_POINTER, 0),
            Stub::Placeholder => (PLACEHOLDER, NO_POINTER, 0),
        };
        let mut tuple = [0; DEAD_LEN];
        tuple[0] = state | 16 << 2;
        tuple[6..12].copy_from_slice(&pointer);
        tuple[12..].copy_from_slice(&xid.to_le_bytes());
        tuple
    }

    /// Adds it as item `number`, and counts it.
    pub(super) fn add(self, page: &mut Page, number: u16) -> Result<(), Fault> {
        page.add_item(&self.tuple(), number, Placement::Shift)?;
        match self {
            Stub::Redirect { .. } => count(page, REDIRECTS, 1),
            Stub::Dead => Ok(()),
            Stub::Placeholder => count(page, PLACEHOLDERS, 1),
        }
    }

    /// Puts one in the place of each of `numbers`, in any order.
    pub(super) fn replace(self, page: &mut Page, numbers: &[u16]) -> Result<(), Fault> {
        replace(page, numbers, self, self)
    }
}

/// Puts `first` in the place of the first of `numbers` and `rest` in that of the others (`spgPageIndexMultiDelete`).
pub(super) fn replace(page: &mut Page, numbers: &[u16], first: Stub, rest: Stub) -> Result<(), Fault> {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable();
    page.index_multi_delete(&sorted)?;
    for number in sorted {
        let dead = if Some(&number) == numbers.first() { first } else { rest };
        dead.add(page, number)?;
    }
    Ok(())
}

/// Adds to a count in the special space.
pub(super) fn count(page: &mut Page, at: usize, added: u16) -> Result<(), Fault> {
    let sum = page.u16_at(at)?.wrapping_add(added);
    Ok(page.put(at, &sum.to_le_bytes())?)
}

/// `SpGistInitPage`.
pub(super) fn init(page: &mut Page, flags: u16) -> Result<(), Fault> {
    page.init(8)?;
    page.put(super::FLAGS, &flags.to_le_bytes())?;
    Ok(page.put(PAGE_ID, &SPGIST_PAGE_ID.to_le_bytes())?)
}

/// Adds a tuple as item `number`; one that is there must be a placeholder, which it replaces (`addOrReplaceTuple`).
pub(super) fn add_or_replace(page: &mut Page, tuple: &[u8], number: u16) -> Result<(), Fault> {
    if number == 0 {
        return Err(Fault::Damaged("tuple without a number"));
    }
    if number <= page.max_offset() {
        if page.item(number)?[0] & STATE_MASK != PLACEHOLDER {
            return Err(Fault::Damaged("the tuple to be replaced is not a placeholder"));
        }
        count(page, PLACEHOLDERS, u16::MAX)?; // one less
        page.index_tuple_delete(number)?;
    }
    page.add_item(tuple, number, Placement::Shift)?;
    Ok(())
}

/// Puts an inner tuple in the place of item `number`, whatever is there.
pub(super) fn replace_inner(page: &mut Page, tuple: &[u8], number: u16) -> Result<(), Fault> {
    page.index_tuple_delete(number)?;
    page.add_item(tuple, number, Placement::Shift)?;
    Ok(())
}

/// Takes the next leaf tuple, which is not aligned.
pub(super) fn take_leaf<'a>(data: &mut Data<'a>) -> Result<&'a [u8], Fault> {
    let header = *data.rest().first_chunk().ok_or(Fault::Damaged("leaf tuple is cut short"))?;
    let len = (u32::from_le_bytes(header) >> 2) as usize;
    if len < DEAD_LEN { Err(Fault::Damaged("leaf tuple is shorter than a dead one")) } else { data.take(len) }
}

/// Takes the next inner tuple, which is not aligned.
pub(super) fn take_inner<'a>(data: &mut Data<'a>) -> Result<&'a [u8], Fault> {
    let header = *data.rest().first_chunk::<6>().ok_or(Fault::Damaged("inner tuple is cut short"))?;
    let len = usize::from(u16::from_le_bytes([header[4], header[5]]));
    if len < INNER_HEADER_LEN { Err(Fault::Damaged("inner tuple is shorter than its header")) } else { data.take(len) }
}

/// Links the leaf tuple `number` to `next` (`SGLT_SET_NEXTOFFSET`).
pub(super) fn set_next_offset(page: &mut Page, number: u16, next: u16) -> Result<(), Fault> {
    let info = page.item_mut(number)?.get_mut(4..6).ok_or(Fault::Damaged("leaf tuple is cut short"))?;
    let linked = u16::from_le_bytes([info[0], info[1]]) & !NEXT_MASK | next & NEXT_MASK;
    info.copy_from_slice(&linked.to_le_bytes());
    Ok(())
}

/// Makes node `node`, from 0, of the inner tuple `number` lead to `to` (`spgUpdateNodeLink`).
pub(super) fn update_node_link(page: &mut Page, number: u16, node: u16, to: (BlockNo, u16)) -> Result<(), Fault> {
    let tuple = page.item_mut(number)?;
    let [a, b, c, d] = *tuple.first_chunk().ok_or(Fault::Damaged("inner tuple is cut short"))?;
    let nodes = u16::from_le_bytes([a, b]) >> 3;
    if node >= nodes {
        return Err(Fault::Damaged("no such node in an inner tuple"));
    }
    let mut at = INNER_HEADER_LEN + usize::from(u16::from_le_bytes([c, d]));
    for _ in 0..node {
        at += tuple_len(tuple.get(at..).unwrap_or_default())?;
    }
    let link = tuple.get_mut(at..).and_then(|rest| rest.first_chunk_mut()).ok_or(Fault::Damaged("inner tuple is cut short"))?;
    *link = item_pointer(to.0, to.1);
    Ok(())
}
