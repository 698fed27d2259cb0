use std::os::unix::fs::symlink;

use super::*;

struct Tree(tempfile::TempDir);

impl Tree {
    /// A data directory with what every one has.
    fn new() -> Tree {
        let tree = Tree(tempfile::tempdir().unwrap());
        for dir in ["base/5", "global", "pg_wal/archive_status", "pg_tblspc", "pg_replslot/slot", "pg_xact"] {
            fs_err::create_dir_all(tree.path().join(dir)).unwrap();
        }
        for file in ["PG_VERSION", "global/pg_control", "base/5/1259", "pg_wal/000000010000000000000001", "pg_replslot/slot/state"] {
            tree.write(file);
        }
        tree
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, path: &str) {
        let path = self.path().join(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, "content").unwrap();
    }

    fn scan(&self) -> Found {
        let rules = Rules::default();
        let ask = Ask { data_directory: self.path(), rules: &rules, major: Major::V15, catalog_version: 202_209_061 };
        scan(&ask).unwrap()
    }
}

fn files(found: &Found) -> Vec<&str> {
    let mut names: Vec<_> = found.files.iter().map(|f| f.path.to_str().unwrap()).collect();
    names.sort_unstable();
    names
}

fn entry<'a>(found: &'a Found, path: &str) -> Option<&'a EntryKind> {
    found.entries.iter().find(|e| e.path == Path::new(path)).map(|e| &e.kind)
}

#[test]
fn wal_and_slots_keep_their_directories_only_and_the_control_file_comes_later() {
    let found = Tree::new().scan();
    assert_eq!(files(&found), ["PG_VERSION", "base/5/1259"]);
    for dir in ["base", "base/5", "pg_wal", "pg_wal/archive_status", "pg_replslot", "pg_tblspc", "pg_xact"] {
        assert_eq!(entry(&found, dir), Some(&EntryKind::Directory), "{dir}");
    }
    assert_eq!(entry(&found, "pg_replslot/slot"), None);
    assert!(found.warnings.is_empty());
}

#[test]
fn only_the_init_fork_of_an_unlogged_relation_is_taken() {
    let tree = Tree::new();
    for file in ["base/5/16390", "base/5/16390.1", "base/5/16390_fsm", "base/5/16390_init", "base/5/16391", "mydir/1", "mydir/1_init"] {
        tree.write(file);
    }
    let found = tree.scan();
    assert_eq!(files(&found), ["PG_VERSION", "base/5/1259", "base/5/16390_init", "base/5/16391", "mydir/1", "mydir/1_init"]);
}

#[test]
fn relation_that_gets_its_init_fork_behind_the_scan_is_found_out_before_the_backup_ends() {
    let tree = Tree::new();
    for file in ["base/5/16390", "base/5/16390_fsm", "base/5/16391", "base/6/16390"] {
        tree.write(file);
    }
    let found = tree.scan();
    tree.write("base/5/16390_init");
    fs_err::remove_dir_all(tree.path().join("base/6")).unwrap();
    let unlogged = Unlogged::look(tree.path(), found.files.iter().map(|file| file.path.as_path())).unwrap();
    let lost: Vec<_> = files(&found).into_iter().filter(|file| unlogged.has(Path::new(file))).collect();
    assert_eq!(lost, ["base/5/16390", "base/5/16390_fsm"]);
    assert!(!unlogged.has(Path::new("base/5/16390_init")));
}

#[test]
fn tablespace_is_walked_once_and_only_in_the_directory_of_this_version() {
    let tree = Tree::new();
    let outside = tempfile::tempdir().unwrap();
    fs_err::create_dir_all(outside.path().join("PG_15_202209061/5")).unwrap();
    fs_err::create_dir_all(outside.path().join("PG_14_202107181/5")).unwrap();
    fs_err::write(outside.path().join("PG_15_202209061/5/7"), "x").unwrap();
    fs_err::write(outside.path().join("PG_14_202107181/5/7"), "x").unwrap();
    symlink(outside.path(), tree.path().join("pg_tblspc/100")).unwrap();
    tree.write("inside/PG_15_202209061/5/8");
    symlink(tree.path().join("inside"), tree.path().join("pg_tblspc/101")).unwrap();
    tree.write("pg_tblspc/102/PG_15_202209061/5/9");

    let found = tree.scan();
    let expected = [
        "PG_VERSION",
        "base/5/1259",
        "pg_tblspc/100/PG_15_202209061/5/7",
        "pg_tblspc/101/PG_15_202209061/5/8",
        "pg_tblspc/102/PG_15_202209061/5/9",
    ];
    assert_eq!(files(&found), expected);
    assert_eq!(entry(&found, "pg_tblspc/100"), Some(&EntryKind::Symlink { target: outside.path().to_owned() }));
    assert_eq!(entry(&found, "pg_tblspc/102"), Some(&EntryKind::Directory));
    assert_eq!(entry(&found, "inside"), None);
    let mut in_place: Vec<_> = found.tablespaces.iter().map(|t| (t.0, t.2)).collect();
    in_place.sort_unstable();
    assert_eq!(in_place, [(100, false), (101, false), (102, true)]);
    let relation = found.files.iter().find(|f| f.path.ends_with("5/7")).unwrap().relation;
    assert_eq!(relation.map(|r| r.relation), Some(7));
}

#[test]
fn links_are_followed_with_a_warning_and_a_loop_is_left_out() {
    let tree = Tree::new();
    let outside = tempfile::tempdir().unwrap();
    fs_err::write(outside.path().join("server.key"), "k").unwrap();
    symlink(outside.path().join("server.key"), tree.path().join("server.key")).unwrap();
    symlink(outside.path(), tree.path().join("certs")).unwrap();
    symlink("nowhere", tree.path().join("dangling")).unwrap();
    symlink("itself", tree.path().join("itself")).unwrap();
    symlink("..", tree.path().join("base/up")).unwrap();

    let found = tree.scan();
    assert_eq!(files(&found), ["PG_VERSION", "base/5/1259", "certs/server.key", "server.key"]);
    assert_eq!(found.warnings.len(), 5, "{:?}", found.warnings);
}

#[test]
fn linked_pg_wal_becomes_an_empty_directory() {
    let tree = Tree::new();
    let outside = tempfile::tempdir().unwrap();
    fs_err::write(outside.path().join("000000010000000000000001"), "x").unwrap();
    std::fs::remove_dir_all(tree.path().join("pg_wal")).unwrap();
    symlink(outside.path(), tree.path().join("pg_wal")).unwrap();

    let found = tree.scan();
    assert_eq!(entry(&found, "pg_wal"), Some(&EntryKind::Directory));
    assert_eq!(files(&found), ["PG_VERSION", "base/5/1259"]);
    assert!(found.warnings.is_empty(), "{:?}", found.warnings);
}
