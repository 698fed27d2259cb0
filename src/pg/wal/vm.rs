//! Which bits of the visibility map a heap record clears, and whether the record has a reference to the map's page.
//!
//! From: the block index (which must file a record under map pages it does not name), `redo::vm`.
//! Until the minor releases of July 2026 (17.11, 18.5), and in 14 to 16 for good, a heap record says in a flag of its main data that the
//! bits of its heap block were cleared, and has no reference to the map. Later releases register the map's page where a bit was set.
//! HEAP2 VISIBLE, which sets bits, always has a reference and is not listed here.
//!
//! Source: heapam_xlog.h, heapam_xlog.c, visibilitymap.c.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::pg::{BlockNo, BlockTag, Fork, RelFileLocator};

use super::{Record, Rmgr};

/// `VISIBILITYMAP_ALL_FROZEN`.
const ALL_FROZEN: u8 = 2;
/// `VISIBILITYMAP_VALID_BITS`: all-visible and all-frozen.
pub const VALID_BITS: u8 = 3;
/// Heap blocks that one page of the map stands for: (8192 - 24) bytes of four blocks each.
pub const HEAP_BLOCKS_PER_PAGE: u32 = 32_672;

/// Bits of one heap block to clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VmClear {
    /// The relation of both heap and map.
    pub rel: RelFileLocator,
    /// The heap block that they speak of.
    pub heap_block: BlockNo,
    /// Which of its two bits: 2 (all-frozen) or 3 (both).
    pub bits: u8,
}

impl VmClear {
    /// The page of the map that holds the bits.
    #[must_use]
    pub fn tag(&self) -> BlockTag {
        BlockTag { rel: self.rel, fork: Fork::Vm, block: self.heap_block / HEAP_BLOCKS_PER_PAGE }
    }
}

/// Everything that `record` clears in the visibility map, registered or not: for an update up to two heap blocks, for others one.
pub fn clears(record: &Record<'_>) -> impl Iterator<Item = VmClear> {
    let [first, second] = list(record);
    first.into_iter().chain(second)
}

/// What `record` clears without a reference to the map: the pages that an index must file it under by itself.
pub fn unregistered_clears(record: &Record<'_>) -> impl Iterator<Item = VmClear> {
    let registered = record.blocks.iter().any(|block| block.tag.fork == Fork::Vm);
    clears(record).filter(move |_| !registered)
}

const INSERT: (Rmgr, u8) = (Rmgr::HEAP, 0x00);
const DELETE: (Rmgr, u8) = (Rmgr::HEAP, 0x10);
const UPDATE: (Rmgr, u8) = (Rmgr::HEAP, 0x20);
const HOT_UPDATE: (Rmgr, u8) = (Rmgr::HEAP, 0x40);
const LOCK: (Rmgr, u8) = (Rmgr::HEAP, 0x60);
const MULTI_INSERT: (Rmgr, u8) = (Rmgr::HEAP2, 0x50);
const LOCK_UPDATED: (Rmgr, u8) = (Rmgr::HEAP2, 0x60);

fn list(record: &Record<'_>) -> [Option<VmClear>; 2] {
    let heap_block = |id: u8| record.block(id).map(|block| block.tag);
    let flags_at = |at: usize| record.main_data.get(at).copied().unwrap_or_default();
    let clear = |tag: Option<BlockTag>, bits: u8| tag.map(|tag| VmClear { rel: tag.rel, heap_block: tag.block, bits });
    let one = |flags: u8, bits: u8| [clear(heap_block(0).filter(|_| flags & 1 != 0), bits), None];
    match (record.rmgr, record.op() & 0x70) {
        INSERT => one(flags_at(2), VALID_BITS),
        MULTI_INSERT => one(flags_at(0), VALID_BITS),
        DELETE => one(flags_at(7), VALID_BITS),
        LOCK | LOCK_UPDATED => one(flags_at(7), ALL_FROZEN),
        UPDATE | HOT_UPDATE => {
            let flags = flags_at(7);
            let old = heap_block(1).or(heap_block(0));
            [clear(old.filter(|_| flags & 1 != 0), VALID_BITS), clear(heap_block(0).filter(|_| flags & 2 != 0), VALID_BITS)]
        }
        _ => [None, None],
    }
}
