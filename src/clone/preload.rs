//! Which of production's `shared_preload_libraries` a clone's server loads.
//!
//! Left out are libraries that act by themselves on what they find in the database (run jobs, send requests, replicate to or from other hosts, read
//! everything into memory), because a clone holds production's jobs and production's connections; and libraries that this host does not have,
//! because Postgres would not start. All others stay: tables and functions may need them.

use std::path::{Path, PathBuf};

/// Libraries that act by themselves, and how.
const ACTING: [(&str, &str); 14] = [
    ("pg_cron", "it would run production's jobs"),
    ("pg_partman_bgw", "it would run partition maintenance"),
    ("pg_squeeze", "it would rewrite tables"),
    ("pg_net", "it would send production's queued requests"),
    ("pg_task", "it would run production's jobs"),
    ("pglogical", "it would replicate from production's providers"),
    ("spock", "it would replicate with production's nodes"),
    ("bdr", "it would replicate with production's nodes"),
    ("pg_failover_slots", "it would connect to production's primary"),
    ("pgautofailover", "it would join production's cluster"),
    ("repmgr", "it would join production's cluster"),
    ("citus", "it would write to production's other nodes"),
    ("pg_prewarm", "it would read everything that production had in memory"),
    ("powa", "it would take snapshots of statistics"),
];

/// TimescaleDB's tables cannot be read without it, so it stays, without the workers that would run its jobs.
const SILENCED: [(&str, &str, &str); 1] = [("timescaledb", "timescaledb.max_background_workers", "0")];

/// A library that is not loaded, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    pub library: String,
    pub why: &'static str,
}

/// What is left of the setting.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trimmed {
    /// The setting as it shall be.
    pub kept: String,
    pub left_out: Vec<LeftOut>,
    /// Settings that keep what stays from acting.
    pub settings: Vec<(&'static str, &'static str)>,
}

/// Goes through the setting's value. A library that is given without a directory is looked for in `directories`; if there are none, it counts as there.
#[must_use]
pub fn trim(value: &str, directories: &[PathBuf]) -> Trimmed {
    let mut trimmed = Trimmed::default();
    let mut kept = Vec::new();
    for library in value.split(',').map(|item| item.trim().trim_matches('"')).filter(|item| !item.is_empty()) {
        let name = library.rsplit('/').next().unwrap_or(library).trim_end_matches(".so");
        let acting = ACTING.iter().find(|(known, _)| *known == name).map(|(_, why)| *why);
        let why = acting.or_else(|| (!is_installed(library, directories)).then_some("it is not installed on this host"));
        match why {
            Some(why) => trimmed.left_out.push(LeftOut { library: name.to_owned(), why }),
            None => {
                kept.push(library);
                trimmed.settings.extend(SILENCED.iter().filter(|(known, ..)| *known == name).map(|(_, setting, value)| (*setting, *value)));
            }
        }
    }
    trimmed.kept = kept.join(",");
    trimmed
}

/// May a configuration file set the setting, or name another file that does?
#[must_use]
pub fn may_be_set(conf: &str) -> bool {
    let line = |line: &str| line.trim_start().to_ascii_lowercase();
    conf.lines().map(line).any(|line| line.starts_with("shared_preload_libraries") || line.starts_with("include"))
}

fn is_installed(library: &str, directories: &[PathBuf]) -> bool {
    let there = |path: PathBuf| path.exists() || path.with_extension("so").exists();
    if library.starts_with('/') {
        return there(PathBuf::from(library));
    }
    let relative = library.strip_prefix("$libdir/").unwrap_or(library);
    directories.is_empty() || directories.iter().any(|directory| there(directory.join(relative)))
}

/// Where a Postgres whose programs are in `bin` keeps its libraries (`$libdir`): beside them, in one of the ways that it is installed.
#[must_use]
pub fn library_directories(bin: &Path) -> Vec<PathBuf> {
    let real = fs_err::canonicalize(bin).unwrap_or_else(|_| bin.to_owned());
    let Some(prefix) = real.parent() else { return Vec::new() };
    // Every build has this one: it tells the library directory from a directory that is merely called so.
    let holds_libraries = |directory: &PathBuf| directory.join("plpgsql.so").exists();
    ["lib", "lib/postgresql", "lib64", "lib64/postgresql", "lib64/pgsql"]
        .map(|name| prefix.join(name))
        .into_iter()
        .filter(holds_libraries)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installed(names: &[&str]) -> (tempfile::TempDir, Vec<PathBuf>) {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            fs_err::write(dir.path().join(format!("{name}.so")), "").unwrap();
        }
        let directories = vec![dir.path().to_owned()];
        (dir, directories)
    }

    #[test]
    fn what_acts_by_itself_or_is_not_there_is_left_out() {
        let (_dir, directories) = installed(&["pg_stat_statements", "pg_cron"]);
        let trimmed = trim("pg_stat_statements, \"pg_cron\",$libdir/auto_explain", &directories);
        assert_eq!(trimmed.kept, "pg_stat_statements");
        let left_out: Vec<&str> = trimmed.left_out.iter().map(|left| left.library.as_str()).collect();
        assert_eq!(left_out, ["pg_cron", "auto_explain"]);
        assert_eq!(trim("", &directories), Trimmed::default());
    }

    #[test]
    fn timescaledb_stays_without_its_workers() {
        let (_dir, directories) = installed(&["timescaledb"]);
        let trimmed = trim("timescaledb", &directories);
        assert_eq!((trimmed.kept.as_str(), trimmed.left_out.len()), ("timescaledb", 0));
        assert_eq!(trimmed.settings, [("timescaledb.max_background_workers", "0")]);
    }

    #[test]
    fn a_file_without_the_setting_is_told_from_one_that_may_have_it() {
        assert!(!may_be_set("#shared_preload_libraries = ''\nport = 5432\n# include 'more.conf'\n"));
        for conf in ["port = 1\n  Shared_Preload_Libraries 'a'", "include_dir 'conf.d'", "INCLUDE_if_exists = 'x'"] {
            assert!(may_be_set(conf), "{conf}");
        }
    }

    #[test]
    fn where_the_libraries_are_is_not_known_all_count_as_there() {
        assert_eq!(trim("anything", &[]).kept, "anything");
    }
}
