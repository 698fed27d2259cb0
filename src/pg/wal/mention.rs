//! Which blocks a record touches: those it refers to, and the pages of the visibility map that it changes without a word.
//!
//! From: the block index, `view::scan`: both ask here, so that they always give the same answer.  To: `pg::wal::vm`.
//! Follows what redo reads and makes (`XLogReadBufferExtended`): a page that a record rebuilds, or a map page that it clears or sets, exists from then on.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::{Record, Rmgr, vm};
use crate::pg::{BlockTag, Fork};

/// HEAP2 VISIBLE, which makes its page of the map if that does not exist (`RBM_ZERO_ON_ERROR`).
const VISIBLE: (Rmgr, u8) = (Rmgr::HEAP2, 0x40);

/// One block that a record touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mention {
    pub tag: BlockTag,
    pub how: How,
    /// The record alone rebuilds the page, whatever stood there before.
    pub rebuilds: bool,
    /// The fork reaches at least to this block afterwards.
    pub extends: bool,
}

/// How a record names a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// By the reference with this id.
    Reference(u8),
    /// Not at all: it clears bits of this page of the map, which only its heap block tells.
    MapClear,
}

/// Hands over each block that `record` touches: references in their order, then map pages that it does not refer to.
pub fn mentions(record: &Record<'_>, mut each: impl FnMut(Mention)) {
    let visible = (record.rmgr, record.op()) == VISIBLE;
    for block in &record.blocks {
        let rebuilds = block.is_self_contained();
        let extends = rebuilds || (visible && block.tag.fork == Fork::Vm);
        each(Mention { tag: block.tag, how: How::Reference(block.id), rebuilds, extends });
    }
    if matches!(record.rmgr, Rmgr::HEAP | Rmgr::HEAP2) {
        let mut last = None;
        for tag in vm::unregistered_clears(record).map(|clear| clear.tag()) {
            if last.replace(tag) != Some(tag) {
                each(Mention { tag, how: How::MapClear, rebuilds: false, extends: true });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::wal::BlockRef;
    use crate::pg::{Lsn, RelFileLocator};

    const REL: RelFileLocator = RelFileLocator { tablespace: 1663, database: 5, relation: 16_384 };

    fn reference(id: u8, fork: Fork, block: u32) -> BlockRef<'static> {
        BlockRef { id, tag: BlockTag { rel: REL, fork, block }, will_init: false, image: None, data: None }
    }

    /// With `full_page_writes = off` the map's new page comes without an image, and with it the file of the map.
    #[test]
    fn map_page_exists_from_the_record_on_that_sets_bits_in_it_even_without_an_image() {
        let record = Record {
            lsn: Lsn(0x1000),
            end: Lsn(0x1040),
            prev: Lsn(0xF00),
            total_len: 64,
            xid: 0,
            rmgr: VISIBLE.0,
            info: VISIBLE.1,
            origin: None,
            toplevel_xid: None,
            blocks: vec![reference(0, Fork::Vm, 0), reference(1, Fork::Main, 3)],
            main_data: &[0; 5],
        };
        let mut extending = Vec::new();
        mentions(&record, |mention| extending.extend(mention.extends.then_some((mention.tag.fork, mention.rebuilds))));
        assert_eq!(extending, [(Fork::Vm, false)]);
    }
}
