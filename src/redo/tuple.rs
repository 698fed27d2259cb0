//! The header of a heap tuple (htup_details.h): 23 bytes, at whatever address the line pointer says.

use crate::pg::BlockNo;
use crate::pg::page::{Page, Placement};

use super::data::Data;
use super::fault::Fault;

/// `SizeofHeapTupleHeader`.
pub(super) const HEADER_LEN: usize = 23;
/// `MaxHeapTupleSize`: 8192 - MAXALIGN(24 + 4).
const MAX_LEN: usize = 8160;

const XMIN: usize = 0;
const XMAX: usize = 4;
const CID: usize = 8;
const CTID: usize = 12;
const INFOMASK2: usize = 18;
const INFOMASK: usize = 20;
const HOFF: usize = 22;

const XMAX_KEYSHR_LOCK: u16 = 0x0010;
const COMBO_CID: u16 = 0x0020;
const XMAX_EXCL_LOCK: u16 = 0x0040;
const XMAX_LOCK_ONLY: u16 = 0x0080;
const XMAX_COMMITTED: u16 = 0x0400;
const XMAX_INVALID: u16 = 0x0800;
const XMAX_IS_MULTI: u16 = 0x1000;
const MOVED: u16 = 0xC000;
const LOCK_MASK: u16 = XMAX_EXCL_LOCK | XMAX_KEYSHR_LOCK;
const XMAX_BITS: u16 = XMAX_COMMITTED | XMAX_INVALID | XMAX_IS_MULTI | LOCK_MASK | XMAX_LOCK_ONLY;

const KEYS_UPDATED: u16 = 0x2000;
const HOT_UPDATED: u16 = 0x4000;

/// A tuple on a page.
pub(super) struct Tuple<'p>(&'p mut [u8]);

impl<'p> Tuple<'p> {
    /// The tuple that line pointer `number` points at, which must be `LP_NORMAL`.
    pub(super) fn of(page: &'p mut Page, number: u16) -> Result<Tuple<'p>, Fault> {
        if !page.item_id(number)?.is_normal() {
            return Err(Fault::Damaged("line pointer is not normal"));
        }
        let bytes = page.item_mut(number)?;
        if bytes.len() < HEADER_LEN {
            return Err(Fault::Damaged("heap tuple is shorter than its header"));
        }
        Ok(Tuple(bytes))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.0
    }

    /// `t_hoff`: where the tuple's own data begin.
    pub(super) fn data_offset(&self) -> usize {
        usize::from(self.0[HOFF])
    }

    /// The tuple's own data, after header and null bitmap.
    pub(super) fn data_mut(&mut self) -> Result<&mut [u8], Fault> {
        let at = self.data_offset();
        self.0.get_mut(at..).ok_or(Fault::Damaged("heap tuple is shorter than its header says"))
    }

    fn u16_at(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.0[at], self.0[at + 1]])
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub(super) fn infomask(&self) -> u16 {
        self.u16_at(INFOMASK)
    }

    pub(super) fn set_infomask(&mut self, bits: u16) {
        self.put(INFOMASK, &bits.to_le_bytes());
    }

    pub(super) fn infomask2(&self) -> u16 {
        self.u16_at(INFOMASK2)
    }

    pub(super) fn set_infomask2(&mut self, bits: u16) {
        self.put(INFOMASK2, &bits.to_le_bytes());
    }

    pub(super) fn set_xmin(&mut self, xid: u32) {
        self.put(XMIN, &xid.to_le_bytes());
    }

    pub(super) fn set_xmax(&mut self, xid: u32) {
        self.put(XMAX, &xid.to_le_bytes());
    }

    /// `t_xvac`, which shares its place with the command id.
    pub(super) fn set_xvac(&mut self, xid: u32) {
        self.put(CID, &xid.to_le_bytes());
    }

    /// Command id 0 and no combo: what redo always writes (`HeapTupleHeaderSetCmax(tup, FirstCommandId, false)`).
    pub(super) fn reset_command_id(&mut self) {
        self.put(CID, &[0; 4]);
        self.set_infomask(self.infomask() & !COMBO_CID);
    }

    pub(super) fn set_ctid(&mut self, block: BlockNo, number: u16) {
        self.put(CTID, &ctid(block, number));
    }

    /// Forgets every xmax bit and takes those of a record's `infobits_set` (`fix_infomask_from_infobits`).
    pub(super) fn set_xmax_infobits(&mut self, infobits: u8) {
        let mut mask = self.infomask() & !(XMAX_BITS | MOVED);
        for (infobit, bit) in [(1, XMAX_IS_MULTI), (2, XMAX_LOCK_ONLY), (4, XMAX_EXCL_LOCK), (8, XMAX_KEYSHR_LOCK)] {
            if infobits & infobit != 0 {
                mask |= bit;
            }
        }
        self.set_infomask(mask);
        let keys = if infobits & 0x10 != 0 { KEYS_UPDATED } else { 0 };
        self.set_infomask2(self.infomask2() & !KEYS_UPDATED | keys);
    }

    pub(super) fn set_hot_updated(&mut self, on: bool) {
        let bit = if on { HOT_UPDATED } else { 0 };
        self.set_infomask2(self.infomask2() & !HOT_UPDATED | bit);
    }

    /// `HEAP_XMAX_IS_LOCKED_ONLY`: xmax locks and does not delete.
    pub(super) fn is_locked_only(&self) -> bool {
        let mask = self.infomask();
        mask & XMAX_LOCK_ONLY != 0 || mask & (XMAX_IS_MULTI | LOCK_MASK) == XMAX_EXCL_LOCK
    }
}

/// `ItemPointerData`: the block number's high half first.
pub(super) fn ctid(block: BlockNo, number: u16) -> [u8; 6] {
    let ([a, b, c, d], [e, f]) = (block.to_le_bytes(), number.to_le_bytes());
    [c, d, a, b, e, f]
}

/// `xl_heap_header`: what a record says of a tuple's header. The rest is known.
pub(super) struct NewHeader {
    infomask2: u16,
    infomask: u16,
    hoff: u8,
}

impl NewHeader {
    pub(super) fn read(data: &mut Data<'_>) -> Result<NewHeader, Fault> {
        Ok(NewHeader { infomask2: data.u16()?, infomask: data.u16()?, hoff: data.u8()? })
    }

    /// Bytes of null bitmap and padding between header and data.
    pub(super) fn bitmap_len(&self) -> Result<usize, Fault> {
        usize::from(self.hoff).checked_sub(HEADER_LEN).ok_or(Fault::Damaged("tuple data would begin inside the tuple header"))
    }

    /// Adds the tuple whose bytes after the header are `body` as line pointer `number`; `block` is the page's own address.
    pub(super) fn add(&self, body: &[&[u8]], xmin: u32, xmax: u32, (block, number): (BlockNo, u16), page: &mut Page) -> Result<(), Fault> {
        let len = HEADER_LEN + body.iter().map(|part| part.len()).sum::<usize>();
        if len > MAX_LEN {
            return Err(Fault::Damaged("heap tuple is longer than a page allows"));
        }
        let mut bytes = [0; MAX_LEN];
        let mut at = HEADER_LEN;
        for part in body {
            bytes[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        let mut tuple = Tuple(&mut bytes[..len]);
        tuple.set_infomask2(self.infomask2);
        tuple.set_infomask(self.infomask & !COMBO_CID);
        tuple.put(HOFF, &[self.hoff]);
        tuple.set_xmin(xmin);
        tuple.set_xmax(xmax);
        tuple.set_ctid(block, number);
        if number == 0 {
            return Err(Fault::Damaged("line pointer number 0"));
        }
        page.add_item(&bytes[..len], number, Placement::Heap)?;
        Ok(())
    }
}
