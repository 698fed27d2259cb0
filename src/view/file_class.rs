//! Decides what a path of a data directory is.
//!
//! In: a path relative to the data directory, `/` between components.  Out: a [`FileClass`].
//! The one place that knows file names. Looks at the name only: whether such a file exists is the tree's business.
//! Source: relpath.c, basebackup.c `excludeFiles` and `excludeDirContents`, slru.c `SlruFileName`, twophase.c (14 to 18).

use crate::pg::relation::{BLCKSZ, BlockTag, RELSEG_BLOCKS};
use crate::pg::relation_file::{self, database_directory};
use crate::pg::{Fork, RelFileLocator};

/// What a file of a data directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileClass {
    /// One file (1 GiB at most) of one fork of a relation.
    Relation(RelationFile),
    /// A file of temporary relations or of a sort: never kept.
    Temporary,
    /// `pg_filenode.map` of a database; database 0 is `global/`.
    RelationMap { tablespace: u32, database: u32 },
    /// `pg_internal.init`: a cache, never kept.
    InitCache,
    /// A segment (32 pages) of an SLRU.
    Slru { slru: Slru, segment: u64 },
    /// The state of a prepared transaction.
    TwoPhase,
    /// `global/pg_control`.
    Control,
    /// Something in `pg_wal`.
    Wal,
    /// A file that Postgres removes, or makes anew, at start: `postmaster.pid` and the like.
    Volatile,
    /// Inside a directory whose contents no backup keeps (`pg_replslot`, `pg_notify`, …).
    Emptied,
    /// `backup_label` and `tablespace_map`.
    BackupLabel,
    /// Anything else: configuration, certificates, `PG_VERSION`: as it was copied.
    Other,
}

/// One file of a relation fork.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RelationFile {
    pub rel: RelFileLocator,
    pub fork: Fork,
    /// 0 for the first GiB, 1 for `.1`, …
    pub segment: u32,
}

impl RelationFile {
    /// The block at `offset_bytes` of this file; `None` where the address space ends.
    #[must_use]
    pub fn block_at(&self, offset_bytes: u64) -> Option<BlockTag> {
        let inside = u32::try_from(offset_bytes / BLCKSZ as u64).ok().filter(|b| *b < RELSEG_BLOCKS)?;
        let block = self.segment.checked_mul(RELSEG_BLOCKS)?.checked_add(inside)?;
        Some(BlockTag { rel: self.rel, fork: self.fork, block })
    }

    /// The file's name without its directory.
    #[must_use]
    pub fn name(&self) -> String {
        let number = self.rel.relation;
        let suffix = self.fork.suffix();
        if self.segment == 0 { format!("{number}{suffix}") } else { format!("{number}{suffix}.{}", self.segment) }
    }
}

/// The simple LRUs that are files of the data directory and whose contents come from WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slru {
    Xact,
    MultiXactOffsets,
    MultiXactMembers,
    CommitTs,
}

impl Slru {
    /// All of them.
    pub const ALL: [Slru; 4] = [Slru::Xact, Slru::MultiXactOffsets, Slru::MultiXactMembers, Slru::CommitTs];

    /// Its directory.
    #[must_use]
    pub fn directory(self) -> &'static str {
        match self {
            Slru::Xact => "pg_xact",
            Slru::MultiXactOffsets => "pg_multixact/offsets",
            Slru::MultiXactMembers => "pg_multixact/members",
            Slru::CommitTs => "pg_commit_ts",
        }
    }
}

/// Directories that exist in every view but are empty (basebackup.c `excludeDirContents`, and `pg_wal`).
pub const EMPTIED_DIRECTORIES: [&str; 8] =
    ["pg_wal", "pg_replslot", "pg_dynshmem", "pg_notify", "pg_serial", "pg_snapshots", "pg_stat_tmp", "pg_subtrans"];

/// Classifies a path relative to the data directory.
#[must_use]
pub fn classify(path: &str) -> FileClass {
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
    let below = |top: &str| directory == top || directory.strip_prefix(top).is_some_and(|rest| rest.starts_with('/'));
    if path == "global/pg_control" {
        return FileClass::Control;
    }
    if below("pg_wal") {
        return FileClass::Wal;
    }
    if EMPTIED_DIRECTORIES.iter().any(|emptied| below(emptied)) {
        return FileClass::Emptied;
    }
    if path.split('/').any(|part| part.starts_with("pgsql_tmp")) {
        return FileClass::Temporary;
    }
    if let Some(slru) = Slru::ALL.into_iter().find(|slru| slru.directory() == directory) {
        return slru_segment(name).map_or(FileClass::Other, |segment| FileClass::Slru { slru, segment });
    }
    match (directory, database_directory(directory)) {
        ("pg_twophase", _) => FileClass::TwoPhase,
        ("", _) => top_level(name),
        (_, Some((tablespace, database))) => in_database(name, tablespace, database),
        (_, None) => FileClass::Other,
    }
}

fn top_level(name: &str) -> FileClass {
    match name {
        "backup_label" | "tablespace_map" => FileClass::BackupLabel,
        "postmaster.pid"
        | "postmaster.opts"
        | "postgresql.auto.conf.tmp"
        | "current_logfiles"
        | "current_logfiles.tmp"
        | "backup_manifest"
        | "recovery.signal"
        | "standby.signal"
        | "backup_label.old"
        | "tablespace_map.old" => FileClass::Volatile,
        _ => FileClass::Other,
    }
}

fn in_database(name: &str, tablespace: u32, database: u32) -> FileClass {
    if name == "pg_filenode.map" {
        return FileClass::RelationMap { tablespace, database };
    }
    if name.starts_with("pg_internal.init") {
        return FileClass::InitCache;
    }
    if relation_file::is_temporary_relation(name) {
        return FileClass::Temporary;
    }
    relation_file::RelationFile::parse(name).map_or(FileClass::Other, |file| {
        let rel = RelFileLocator { tablespace, database, relation: file.relation };
        FileClass::Relation(RelationFile { rel, fork: file.fork, segment: file.segment })
    })
}

/// Segment names of 4 to 6 hex digits, or 15 (17 and later with long names).
fn slru_segment(name: &str) -> Option<u64> {
    let plain = matches!(name.len(), 4..=6 | 15) && name.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
    plain.then(|| u64::from_str_radix(name, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relation(tablespace: u32, database: u32, relation: u32, fork: Fork, segment: u32) -> FileClass {
        FileClass::Relation(RelationFile { rel: RelFileLocator { tablespace, database, relation }, fork, segment })
    }

    #[test]
    fn relation_files_are_known_by_name() {
        assert_eq!(classify("base/5/16384"), relation(1663, 5, 16384, Fork::Main, 0));
        assert_eq!(classify("base/5/16384_vm.2"), relation(1663, 5, 16384, Fork::Vm, 2));
        assert_eq!(classify("global/1262"), relation(1664, 0, 1262, Fork::Main, 0));
        assert_eq!(classify("pg_tblspc/16400/PG_15_202209061/5/16401_init"), relation(16400, 5, 16401, Fork::Init, 0));
        assert_eq!(classify("base/5/t0_16384_fsm"), FileClass::Temporary);
        assert_eq!(classify("base/pgsql_tmp/pgsql_tmp12.0"), FileClass::Temporary);
    }

    #[test]
    fn names_that_only_resemble_a_relation_are_other_files() {
        for path in ["base/5/016384", "base/5/16384_old", "base/5/16384.0", "base/5/PG_VERSION", "extra/16384", "base/5/x/16384"] {
            assert_eq!(classify(path), FileClass::Other, "{path}");
        }
    }

    #[test]
    fn everything_else_has_its_class() {
        assert_eq!(classify("global/pg_control"), FileClass::Control);
        assert_eq!(classify("base/5/pg_filenode.map"), FileClass::RelationMap { tablespace: 1663, database: 5 });
        assert_eq!(classify("global/pg_internal.init"), FileClass::InitCache);
        assert_eq!(classify("pg_xact/000A"), FileClass::Slru { slru: Slru::Xact, segment: 10 });
        assert_eq!(classify("pg_multixact/members/0000"), FileClass::Slru { slru: Slru::MultiXactMembers, segment: 0 });
        assert_eq!(classify("pg_wal/000000010000000000000001"), FileClass::Wal);
        assert_eq!(classify("pg_replslot/a/state"), FileClass::Emptied);
        assert_eq!(classify("postmaster.pid"), FileClass::Volatile);
        assert_eq!(classify("backup_label"), FileClass::BackupLabel);
        assert_eq!(classify("postgresql.conf"), FileClass::Other);
    }

    #[test]
    fn a_file_offset_is_a_block_of_the_whole_relation() {
        let file = RelationFile { rel: RelFileLocator { tablespace: 1663, database: 5, relation: 9 }, fork: Fork::Main, segment: 2 };
        assert_eq!(file.block_at(8192 * 3 + 5).map(|t| t.block), Some(2 * RELSEG_BLOCKS + 3));
        assert_eq!(file.block_at(1 << 30), None);
    }
}
