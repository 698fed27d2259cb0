//! What a base backup leaves out, decided by path alone.
//!
//! From: `scan`, which walks the data directory.  Out: a [`Verdict`] for each directory and file.
//! Everything unknown is taken. Unlogged relations are `scan`'s business: only a whole directory tells which they are.
//! Source: basebackup.c `excludeDirContents` and `excludeFiles`; beyond it the leftovers of an earlier restore and the server's logs.

use std::path::{Path, PathBuf};

use crate::pg::relation_file::{database_directory, is_temporary_relation};

/// What becomes of one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Take,
    /// A directory that is kept without what is in it.
    Empty,
    Leave,
}

/// Top-level directories whose contents a starting server removes, rebuilds, or must not inherit.
const EMPTIED: [&str; 8] = ["pg_wal", "pg_stat_tmp", "pg_replslot", "pg_dynshmem", "pg_notify", "pg_serial", "pg_snapshots", "pg_subtrans"];

/// Files left out wherever they lie.
const LEFT_ANYWHERE: [&str; 7] = [
    "postgresql.auto.conf.tmp",
    "current_logfiles.tmp",
    "backup_label",
    "tablespace_map",
    "backup_manifest",
    "postmaster.pid",
    "postmaster.opts",
];

/// Files left out at the top: they would steer the start of a restored server, or speak of this one's past.
const LEFT_AT_TOP: [&str; 6] =
    ["recovery.signal", "standby.signal", "backup_label.old", "tablespace_map.old", "current_logfiles", "recovery.conf"];

/// Directories that Postgres itself fills: never mistaken for a log directory, whatever the setting says.
const OWNED_BY_POSTGRES: [&str; 8] =
    ["base", "global", "pg_tblspc", "pg_xact", "pg_multixact", "pg_commit_ts", "pg_twophase", "pg_logical"];

/// The fixed lists, and what the server's settings add to them.
#[derive(Debug, Default, Clone)]
pub(super) struct Rules {
    /// Directories below the data directory whose contents are left out.
    emptied: Vec<PathBuf>,
}

impl Rules {
    /// `log_directory` and (14) `stats_temp_directory` as the server shows them; those outside the data directory do not matter.
    pub(super) fn new(log_directory: Option<&str>, stats_temp_directory: Option<&str>) -> Rules {
        let inside = |setting: &str| {
            let path = Path::new(setting);
            let first = path.components().next()?.as_os_str().to_str()?;
            let plain = path.components().all(|c| matches!(c, std::path::Component::Normal(_)));
            (plain && !OWNED_BY_POSTGRES.contains(&first)).then(|| path.to_owned())
        };
        Rules { emptied: [log_directory, stats_temp_directory].into_iter().flatten().filter_map(inside).collect() }
    }

    /// A directory, relative to the data directory.
    pub(super) fn directory(&self, path: &Path) -> Verdict {
        let emptied = EMPTIED.iter().any(|name| path == Path::new(name)) || self.emptied.iter().any(|e| e == path);
        match file_name(path) {
            _ if emptied => Verdict::Empty,
            name if name.starts_with("pgsql_tmp") => Verdict::Leave,
            _ => Verdict::Take,
        }
    }

    /// A file, relative to the data directory.
    pub(super) fn file(&self, path: &Path) -> Verdict {
        let name = file_name(path);
        let parent = path.parent().and_then(Path::to_str).unwrap_or_default();
        let left = LEFT_ANYWHERE.contains(&name)
            || (parent.is_empty() && LEFT_AT_TOP.contains(&name))
            || name.starts_with("pg_internal.init")
            || name.starts_with("pgsql_tmp")
            || (is_temporary_relation(name) && database_directory(parent).is_some());
        if left { Verdict::Leave } else { Verdict::Take }
    }
}

fn file_name(path: &Path) -> &str {
    path.file_name().and_then(|n| n.to_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> Verdict {
        Rules::default().file(Path::new(path))
    }

    #[test]
    fn files_that_would_harm_a_restored_server_are_left_out() {
        let left = [
            "postmaster.pid",
            "postmaster.opts",
            "backup_label",
            "tablespace_map",
            "backup_manifest",
            "backup_label.old",
            "recovery.signal",
            "standby.signal",
            "postgresql.auto.conf.tmp",
            "current_logfiles",
            "global/pg_internal.init",
            "base/5/pg_internal.init.123",
            "base/5/t3_16385",
            "base/pgsql_tmp123.0",
        ];
        for path in left {
            assert_eq!(file(path), Verdict::Leave, "{path}");
        }
    }

    #[test]
    fn everything_else_is_taken() {
        let taken = [
            "PG_VERSION",
            "global/pg_control",
            "base/5/16385_init",
            "base/5/pg_filenode.map",
            "pg_xact/0000",
            "postgresql.auto.conf",
            "server.key",
            "mydir/standby.signal",
            "mydir/t3_16385",
            "pg_logical/replorigin_checkpoint",
        ];
        for path in taken {
            assert_eq!(file(path), Verdict::Take, "{path}");
        }
    }

    #[test]
    fn directories_that_a_start_rebuilds_are_kept_empty() {
        let rules = Rules::new(Some("log"), Some("pg_stat_tmp"));
        for path in ["pg_wal", "pg_replslot", "pg_subtrans", "pg_notify", "log"] {
            assert_eq!(rules.directory(Path::new(path)), Verdict::Empty, "{path}");
        }
        assert_eq!(rules.directory(Path::new("base/pgsql_tmp")), Verdict::Leave);
        for path in ["base", "base/5", "pg_xact", "mydir/pg_wal", "pg_stat"] {
            assert_eq!(rules.directory(Path::new(path)), Verdict::Take, "{path}");
        }
    }

    #[test]
    fn log_directory_setting_cannot_empty_a_directory_of_data() {
        let rules = Rules::new(Some("base/5"), Some("../x"));
        assert_eq!(rules.directory(Path::new("base/5")), Verdict::Take);
        assert!(Rules::new(Some("/var/log/postgresql"), Some(".")).emptied.is_empty());
    }
}
