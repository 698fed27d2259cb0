//! The names of operations, as `pg_waldump` prints them.
//!
//! Source: the `*_identify` functions below rmgrdesc/ (14 to 18).

use super::{Record, Rmgr};
use crate::pg::Major;

/// The operation's name; `None` for a number that no operation of this version has, and for extensions' resource managers.
#[must_use]
pub fn operation(record: &Record<'_>, major: Major) -> Option<&'static str> {
    name(record.rmgr, record.op(), major)
}

/// The name of operation `op` (the high nibble of `xl_info`) of a resource manager.
#[must_use]
pub fn name(rmgr: Rmgr, op: u8, major: Major) -> Option<&'static str> {
    let table: &[(u8, &str)] = match rmgr {
        Rmgr::XLOG => &XLOG,
        Rmgr::TRANSACTION => return find(&TRANSACTION, op & super::xact::OP_MASK),
        Rmgr::STORAGE => &[(0x10, "CREATE"), (0x20, "TRUNCATE")],
        Rmgr::CLOG | Rmgr::COMMIT_TS => &[(0x00, "ZEROPAGE"), (0x10, "TRUNCATE")],
        Rmgr::DATABASE if major == Major::V14 => &[(0x00, "CREATE"), (0x10, "DROP")],
        Rmgr::DATABASE => &[(0x00, "CREATE_FILE_COPY"), (0x10, "CREATE_WAL_LOG"), (0x20, "DROP")],
        Rmgr::TABLESPACE => &[(0x00, "CREATE"), (0x10, "DROP")],
        Rmgr::MULTIXACT => &[(0x00, "ZERO_OFF_PAGE"), (0x10, "ZERO_MEM_PAGE"), (0x20, "CREATE_ID"), (0x30, "TRUNCATE_ID")],
        Rmgr::RELMAP => &[(0x00, "UPDATE")],
        Rmgr::STANDBY => &[(0x00, "LOCK"), (0x10, "RUNNING_XACTS"), (0x20, "INVALIDATIONS")],
        Rmgr::HEAP2 if (0x10..=0x30).contains(&op) => {
            if major >= Major::V17 {
                &PRUNE_17
            } else {
                &PRUNE_14
            }
        }
        Rmgr::HEAP2 => &HEAP2,
        Rmgr::HEAP => &HEAP,
        Rmgr::BTREE => &BTREE,
        Rmgr::HASH => &HASH,
        Rmgr::GIN => &GIN,
        Rmgr::GIST => &GIST,
        Rmgr::SEQUENCE => &[(0x00, "LOG")],
        Rmgr::SPGIST => &SPGIST,
        Rmgr::BRIN => &BRIN,
        Rmgr::REPLICATION_ORIGIN => &[(0x00, "SET"), (0x10, "DROP")],
        Rmgr::GENERIC => &[(0x00, "Generic")],
        Rmgr::LOGICAL_MESSAGE => &[(0x00, "MESSAGE")],
        _ => &[],
    };
    find(table, op)
}

fn find(table: &[(u8, &'static str)], op: u8) -> Option<&'static str> {
    table.iter().find(|(number, _)| *number == op).map(|(_, name)| *name)
}

const XLOG: [(u8, &str); 14] = [
    (0x00, "CHECKPOINT_SHUTDOWN"),
    (0x10, "CHECKPOINT_ONLINE"),
    (0x20, "NOOP"),
    (0x30, "NEXTOID"),
    (0x40, "SWITCH"),
    (0x50, "BACKUP_END"),
    (0x60, "PARAMETER_CHANGE"),
    (0x70, "RESTORE_POINT"),
    (0x80, "FPW_CHANGE"),
    (0x90, "END_OF_RECOVERY"),
    (0xA0, "FPI_FOR_HINT"),
    (0xB0, "FPI"),
    (0xD0, "OVERWRITE_CONTRECORD"),
    (0xE0, "CHECKPOINT_REDO"),
];

const TRANSACTION: [(u8, &str); 7] = [
    (0x00, "COMMIT"),
    (0x10, "PREPARE"),
    (0x20, "ABORT"),
    (0x30, "COMMIT_PREPARED"),
    (0x40, "ABORT_PREPARED"),
    (0x50, "ASSIGNMENT"),
    (0x60, "INVALIDATION"),
];

const PRUNE_14: [(u8, &str); 3] = [(0x10, "PRUNE"), (0x20, "VACUUM"), (0x30, "FREEZE_PAGE")];
const PRUNE_17: [(u8, &str); 3] = [(0x10, "PRUNE_ON_ACCESS"), (0x20, "PRUNE_VACUUM_SCAN"), (0x30, "PRUNE_VACUUM_CLEANUP")];

const HEAP2: [(u8, &str); 6] =
    [(0x00, "REWRITE"), (0x40, "VISIBLE"), (0x50, "MULTI_INSERT"), (0xD0, "MULTI_INSERT+INIT"), (0x60, "LOCK_UPDATED"), (0x70, "NEW_CID")];

const HEAP: [(u8, &str); 11] = [
    (0x00, "INSERT"),
    (0x80, "INSERT+INIT"),
    (0x10, "DELETE"),
    (0x20, "UPDATE"),
    (0xA0, "UPDATE+INIT"),
    (0x30, "TRUNCATE"),
    (0x40, "HOT_UPDATE"),
    (0xC0, "HOT_UPDATE+INIT"),
    (0x50, "HEAP_CONFIRM"),
    (0x60, "LOCK"),
    (0x70, "INPLACE"),
];

const BTREE: [(u8, &str); 15] = [
    (0x00, "INSERT_LEAF"),
    (0x10, "INSERT_UPPER"),
    (0x20, "INSERT_META"),
    (0x30, "SPLIT_L"),
    (0x40, "SPLIT_R"),
    (0x50, "INSERT_POST"),
    (0x60, "DEDUP"),
    (0x70, "DELETE"),
    (0x80, "UNLINK_PAGE"),
    (0x90, "UNLINK_PAGE_META"),
    (0xA0, "NEWROOT"),
    (0xB0, "MARK_PAGE_HALFDEAD"),
    (0xC0, "VACUUM"),
    (0xD0, "REUSE_PAGE"),
    (0xE0, "META_CLEANUP"),
];

const HASH: [(u8, &str); 13] = [
    (0x00, "INIT_META_PAGE"),
    (0x10, "INIT_BITMAP_PAGE"),
    (0x20, "INSERT"),
    (0x30, "ADD_OVFL_PAGE"),
    (0x40, "SPLIT_ALLOCATE_PAGE"),
    (0x50, "SPLIT_PAGE"),
    (0x60, "SPLIT_COMPLETE"),
    (0x70, "MOVE_PAGE_CONTENTS"),
    (0x80, "SQUEEZE_PAGE"),
    (0x90, "DELETE"),
    (0xA0, "SPLIT_CLEANUP"),
    (0xB0, "UPDATE_META_PAGE"),
    (0xC0, "VACUUM_ONE_PAGE"),
];

const GIN: [(u8, &str); 9] = [
    (0x10, "CREATE_PTREE"),
    (0x20, "INSERT"),
    (0x30, "SPLIT"),
    (0x40, "VACUUM_PAGE"),
    (0x50, "DELETE_PAGE"),
    (0x60, "UPDATE_META_PAGE"),
    (0x70, "INSERT_LISTPAGE"),
    (0x80, "DELETE_LISTPAGE"),
    (0x90, "VACUUM_DATA_LEAF_PAGE"),
];

const GIST: [(u8, &str); 6] =
    [(0x00, "PAGE_UPDATE"), (0x10, "DELETE"), (0x20, "PAGE_REUSE"), (0x30, "PAGE_SPLIT"), (0x60, "PAGE_DELETE"), (0x70, "ASSIGN_LSN")];

const SPGIST: [(u8, &str); 8] = [
    (0x10, "ADD_LEAF"),
    (0x20, "MOVE_LEAFS"),
    (0x30, "ADD_NODE"),
    (0x40, "SPLIT_TUPLE"),
    (0x50, "PICKSPLIT"),
    (0x60, "VACUUM_LEAF"),
    (0x70, "VACUUM_ROOT"),
    (0x80, "VACUUM_REDIRECT"),
];

const BRIN: [(u8, &str); 8] = [
    (0x00, "CREATE_INDEX"),
    (0x10, "INSERT"),
    (0x90, "INSERT+INIT"),
    (0x20, "UPDATE"),
    (0xA0, "UPDATE+INIT"),
    (0x30, "SAMEPAGE_UPDATE"),
    (0x40, "REVMAP_EXTEND"),
    (0x50, "DESUMMARIZE"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_version() {
        assert_eq!(name(Rmgr::HEAP2, 0x20, Major::V16), Some("VACUUM"));
        assert_eq!(name(Rmgr::HEAP2, 0x20, Major::V17), Some("PRUNE_VACUUM_SCAN"));
        assert_eq!(name(Rmgr::DATABASE, 0x10, Major::V14), Some("DROP"));
        assert_eq!(name(Rmgr::DATABASE, 0x10, Major::V15), Some("CREATE_WAL_LOG"));
        assert_eq!(name(Rmgr::TRANSACTION, 0x80, Major::V18), Some("COMMIT"));
        assert_eq!(name(Rmgr::XLOG, 0xF0, Major::V18), None);
        assert_eq!(name(Rmgr(200), 0x00, Major::V18), None);
    }
}
