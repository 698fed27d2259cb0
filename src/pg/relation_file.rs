//! File names of relations, and the directories that hold them.
//!
//! Source: relpath.c `GetRelationPath`, reinit.c `parse_filename_for_nontemp_relation`, fd.c `looks_like_temp_rel_name` (14 to 18 agree).
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::pg::Fork;
use crate::pg::relation::{DEFAULT_TABLESPACE, GLOBAL_TABLESPACE};

/// One file of one fork: `16385`, `16385.1`, `16385_vm`, `16385_init`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelationFile {
    pub relation: u32,
    pub fork: Fork,
    /// Number of the relation segment: block 0 of the file is block `segment * RELSEG_BLOCKS` of the fork.
    pub segment: u32,
}

impl RelationFile {
    /// `None` for any other name, temporary relations included.
    #[must_use]
    pub fn parse(name: &str) -> Option<RelationFile> {
        let (stem, segment) = match name.split_once('.') {
            Some((stem, segment)) => (stem, number(segment).filter(|n| *n > 0)?),
            None => (name, 0),
        };
        let (relation, fork) = match stem.split_once('_') {
            Some((relation, fork)) => (relation, fork_named(fork)?),
            None => (stem, Fork::Main),
        };
        Some(RelationFile { relation: number(relation).filter(|n| *n > 0)?, fork, segment })
    }
}

/// Is this the file of a temporary relation: `t3_16385`, `t3_16385_fsm.1`?
#[must_use]
pub fn is_temporary_relation(name: &str) -> bool {
    let backend_and_file = name.strip_prefix('t').and_then(|rest| rest.split_once('_'));
    backend_and_file.is_some_and(|(backend, file)| number(backend).is_some() && RelationFile::parse(file).is_some())
}

/// The tablespace and database whose relations lie in a directory, given relative to the data directory.
///
/// `base/5`, `pg_tblspc/16385/PG_15_202209061/5`, and `global`, whose database is 0.
#[must_use]
pub fn database_directory(path: &str) -> Option<(u32, u32)> {
    let mut names = path.split('/');
    let found = match (names.next()?, names.next(), names.next(), names.next()) {
        ("global", None, None, None) => (GLOBAL_TABLESPACE, 0),
        ("base", Some(database), None, None) => (DEFAULT_TABLESPACE, number(database)?),
        ("pg_tblspc", Some(tablespace), Some(version), Some(database)) if version.starts_with("PG_") => {
            (number(tablespace)?, number(database)?)
        }
        _ => return None,
    };
    names.next().is_none().then_some(found)
}

/// Decimal digits without a leading zero (or `0` itself), as Postgres writes them.
fn number(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}

fn fork_named(name: &str) -> Option<Fork> {
    [Fork::Fsm, Fork::Vm, Fork::Init].into_iter().find(|f| f.suffix().strip_prefix('_') == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relation_file_names_are_told_from_others() {
        let file = |relation, fork, segment| Some(RelationFile { relation, fork, segment });
        assert_eq!(RelationFile::parse("16385"), file(16385, Fork::Main, 0));
        assert_eq!(RelationFile::parse("16385.12"), file(16385, Fork::Main, 12));
        assert_eq!(RelationFile::parse("16385_vm.1"), file(16385, Fork::Vm, 1));
        assert_eq!(RelationFile::parse("1_init"), file(1, Fork::Init, 0));
        for other in ["", "0", "016", "16385.", "16385.0", "16385.01", "16385_", "16385_x", "_vm", "PG_VERSION", "t3_16385", "99999999999"]
        {
            assert_eq!(RelationFile::parse(other), None, "{other}");
        }
    }

    #[test]
    fn temporary_relations_are_known_by_name() {
        assert!(is_temporary_relation("t3_16385"));
        assert!(is_temporary_relation("t12_16385_fsm.1"));
        for other in ["t_1", "t3", "t3_", "3_16385", "t3_x", "16385"] {
            assert!(!is_temporary_relation(other), "{other}");
        }
    }

    #[test]
    fn database_directories_are_told_from_others() {
        assert_eq!(database_directory("global"), Some((GLOBAL_TABLESPACE, 0)));
        assert_eq!(database_directory("base/5"), Some((DEFAULT_TABLESPACE, 5)));
        assert_eq!(database_directory("pg_tblspc/16385/PG_15_202209061/5"), Some((16385, 5)));
        for other in ["base", "base/x", "base/5/6", "global/1", "pg_tblspc/16385", "pg_tblspc/1/PG_15/5/6", "pg_tblspc/1/x/5", ""] {
            assert_eq!(database_directory(other), None, "{other}");
        }
    }
}
