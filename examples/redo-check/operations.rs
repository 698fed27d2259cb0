//! Every operation of 14 to 18 that concerns a page, and what a proof of it looks like: the rows of docs/redo-coverage.md.

use bygone::pg::wal::Rmgr;

/// How a block reference is redone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// A routine of ours changes the page: each wants a comparison.
    Redo,
    /// The server always writes a full-page image: nothing is computed.
    Image,
}

/// One operation of a resource manager.
pub(crate) struct Operation {
    pub(crate) rmgr: Rmgr,
    /// The high nibble of `xl_info`.
    pub(crate) op: u8,
    /// As pg_waldump prints it.
    pub(crate) name: &'static str,
    pub(crate) way: Way,
    /// The block references that redo has a routine for, or images for.
    pub(crate) blocks: &'static [u8],
}

const fn redo(rmgr: Rmgr, op: u8, name: &'static str, blocks: &'static [u8]) -> Operation {
    Operation { rmgr, op, name, way: Way::Redo, blocks }
}

const fn image(rmgr: Rmgr, op: u8, name: &'static str, blocks: &'static [u8]) -> Operation {
    Operation { rmgr, op, name, way: Way::Image, blocks }
}

/// Names are those of 16 and earlier where 17 renamed (PRUNE, VACUUM, FREEZE_PAGE became PRUNE_ON_ACCESS, PRUNE_VACUUM_SCAN, PRUNE_VACUUM_CLEANUP).
pub(crate) const OPERATIONS: &[Operation] = &[
    image(Rmgr::XLOG, 0xA0, "FPI_FOR_HINT", &[0]),
    image(Rmgr::XLOG, 0xB0, "FPI", &[0]),
    redo(Rmgr::HEAP2, 0x10, "PRUNE", &[0]),
    redo(Rmgr::HEAP2, 0x20, "VACUUM", &[0]),
    redo(Rmgr::HEAP2, 0x30, "FREEZE_PAGE", &[0]),
    redo(Rmgr::HEAP2, 0x40, "VISIBLE", &[0, 1]),
    redo(Rmgr::HEAP2, 0x50, "MULTI_INSERT", &[0]),
    redo(Rmgr::HEAP2, 0xD0, "MULTI_INSERT+INIT", &[0]),
    redo(Rmgr::HEAP2, 0x60, "LOCK_UPDATED", &[0]),
    redo(Rmgr::HEAP, 0x00, "INSERT", &[0]),
    redo(Rmgr::HEAP, 0x80, "INSERT+INIT", &[0]),
    redo(Rmgr::HEAP, 0x10, "DELETE", &[0]),
    redo(Rmgr::HEAP, 0x20, "UPDATE", &[0, 1]),
    redo(Rmgr::HEAP, 0xA0, "UPDATE+INIT", &[0, 1]),
    redo(Rmgr::HEAP, 0x40, "HOT_UPDATE", &[0]),
    redo(Rmgr::HEAP, 0x50, "HEAP_CONFIRM", &[0]),
    redo(Rmgr::HEAP, 0x60, "LOCK", &[0]),
    redo(Rmgr::HEAP, 0x70, "INPLACE", &[0]),
    redo(Rmgr::BTREE, 0x00, "INSERT_LEAF", &[0]),
    redo(Rmgr::BTREE, 0x10, "INSERT_UPPER", &[0, 1]),
    redo(Rmgr::BTREE, 0x20, "INSERT_META", &[0, 1, 2]),
    redo(Rmgr::BTREE, 0x30, "SPLIT_L", &[0, 1, 2, 3]),
    redo(Rmgr::BTREE, 0x40, "SPLIT_R", &[0, 1, 2, 3]),
    redo(Rmgr::BTREE, 0x50, "INSERT_POST", &[0]),
    redo(Rmgr::BTREE, 0x60, "DEDUP", &[0]),
    redo(Rmgr::BTREE, 0x70, "DELETE", &[0]),
    redo(Rmgr::BTREE, 0x80, "UNLINK_PAGE", &[0, 1, 2, 3]),
    // The fast root only moves when the page that goes has no left sibling.
    redo(Rmgr::BTREE, 0x90, "UNLINK_PAGE_META", &[0, 2, 3, 4]),
    redo(Rmgr::BTREE, 0xA0, "NEWROOT", &[0, 1, 2]),
    redo(Rmgr::BTREE, 0xB0, "MARK_PAGE_HALFDEAD", &[0, 1]),
    redo(Rmgr::BTREE, 0xC0, "VACUUM", &[0]),
    redo(Rmgr::BTREE, 0xE0, "META_CLEANUP", &[0]),
    redo(Rmgr::HASH, 0x00, "INIT_META_PAGE", &[0]),
    redo(Rmgr::HASH, 0x10, "INIT_BITMAP_PAGE", &[0, 1]),
    redo(Rmgr::HASH, 0x20, "INSERT", &[0, 1]),
    // Block 3, a second bitmap, comes with the 32,769th overflow page (13 million entries): left to a unit test.
    redo(Rmgr::HASH, 0x30, "ADD_OVFL_PAGE", &[0, 1, 2, 4]),
    redo(Rmgr::HASH, 0x40, "SPLIT_ALLOCATE_PAGE", &[0, 1, 2]),
    image(Rmgr::HASH, 0x50, "SPLIT_PAGE", &[0]),
    redo(Rmgr::HASH, 0x60, "SPLIT_COMPLETE", &[0, 1]),
    redo(Rmgr::HASH, 0x70, "MOVE_PAGE_CONTENTS", &[0, 1, 2]),
    // Block 4, the page after the freed one, never occurs: a squeeze always frees the last of a chain.
    redo(Rmgr::HASH, 0x80, "SQUEEZE_PAGE", &[0, 1, 2, 3, 5, 6]),
    redo(Rmgr::HASH, 0x90, "DELETE", &[0, 1]),
    redo(Rmgr::HASH, 0xA0, "SPLIT_CLEANUP", &[0]),
    redo(Rmgr::HASH, 0xB0, "UPDATE_META_PAGE", &[0]),
    redo(Rmgr::HASH, 0xC0, "VACUUM_ONE_PAGE", &[0, 1]),
    redo(Rmgr::GIN, 0x10, "CREATE_PTREE", &[0]),
    redo(Rmgr::GIN, 0x20, "INSERT", &[0, 1]),
    image(Rmgr::GIN, 0x30, "SPLIT", &[0, 1, 2]),
    redo(Rmgr::GIN, 0x30, "SPLIT", &[3]),
    image(Rmgr::GIN, 0x40, "VACUUM_PAGE", &[0]),
    redo(Rmgr::GIN, 0x50, "DELETE_PAGE", &[0, 1, 2]),
    redo(Rmgr::GIN, 0x60, "UPDATE_META_PAGE", &[0, 1]),
    redo(Rmgr::GIN, 0x70, "INSERT_LISTPAGE", &[0]),
    redo(Rmgr::GIN, 0x80, "DELETE_LISTPAGE", &[0, 1]),
    redo(Rmgr::GIN, 0x90, "VACUUM_DATA_LEAF_PAGE", &[0]),
    redo(Rmgr::GIST, 0x00, "PAGE_UPDATE", &[0, 1]),
    redo(Rmgr::GIST, 0x10, "DELETE", &[0]),
    redo(Rmgr::GIST, 0x30, "PAGE_SPLIT", &[0, 1, 2]),
    redo(Rmgr::GIST, 0x60, "PAGE_DELETE", &[0, 1]),
    redo(Rmgr::SEQUENCE, 0x00, "LOG", &[0]),
    redo(Rmgr::SPGIST, 0x10, "ADD_LEAF", &[0, 1]),
    redo(Rmgr::SPGIST, 0x20, "MOVE_LEAFS", &[0, 1, 2]),
    redo(Rmgr::SPGIST, 0x30, "ADD_NODE", &[0, 1, 2]),
    redo(Rmgr::SPGIST, 0x40, "SPLIT_TUPLE", &[0, 1]),
    redo(Rmgr::SPGIST, 0x50, "PICKSPLIT", &[0, 1, 2, 3]),
    redo(Rmgr::SPGIST, 0x60, "VACUUM_LEAF", &[0]),
    redo(Rmgr::SPGIST, 0x70, "VACUUM_ROOT", &[0]),
    redo(Rmgr::SPGIST, 0x80, "VACUUM_REDIRECT", &[0]),
    redo(Rmgr::BRIN, 0x00, "CREATE_INDEX", &[0]),
    redo(Rmgr::BRIN, 0x10, "INSERT", &[0, 1]),
    redo(Rmgr::BRIN, 0x90, "INSERT+INIT", &[0, 1]),
    redo(Rmgr::BRIN, 0x20, "UPDATE", &[0, 1, 2]),
    redo(Rmgr::BRIN, 0xA0, "UPDATE+INIT", &[0, 1, 2]),
    redo(Rmgr::BRIN, 0x30, "SAMEPAGE_UPDATE", &[0]),
    redo(Rmgr::BRIN, 0x40, "REVMAP_EXTEND", &[0, 1]),
    redo(Rmgr::BRIN, 0x50, "DESUMMARIZE", &[0, 1]),
    redo(Rmgr::GENERIC, 0x00, "Generic", &[0, 1]),
];

/// The operation's row; `None` for one that is not in the table.
pub(crate) fn find(rmgr: Rmgr, op: u8) -> Option<&'static Operation> {
    OPERATIONS.iter().find(|row| row.rmgr == rmgr && row.op == op)
}
