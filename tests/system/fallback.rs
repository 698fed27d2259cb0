//! What one repository has lost is read from the next.

use std::io::Read as _;
use std::path::Path;

use super::harness::mount::MountGuard;
use super::harness::repository::TestRepository;
use super::harness::tools::fuse_is_missing;
use super::harness::{Runner, TestCluster, World, postgres_is_missing};

/// Files below `dir` whose path has `part` in it.
fn objects(dir: &Path, part: &str) -> Vec<String> {
    let listed = Runner::new("find").by_root().arg(dir).args(["-type", "f", "-path", &format!("*{part}*")]).ok();
    listed.lines().map(str::to_owned).collect()
}

#[test]
fn lost_objects_are_read_from_the_next_repository_and_so_is_a_lost_repository() {
    if postgres_is_missing(15) {
        return;
    }
    let world = World::new();
    let cluster = TestCluster::builder(15).archiving(&world).checksums(true).conf("autovacuum = off").start(&world);
    let first = TestRepository::init(&world, 1, &cluster);
    TestRepository::init_with(&world, 2, &cluster, None);
    cluster.psql("create table t as select generate_series(1, 30000) as id; create table still as select 1 as a");
    world.bygone(["backup"]).ok();
    cluster.psql("update t set id = -id");
    let lsn = cluster.psql("select pg_current_wal_insert_lsn()");
    let (t, still) = (cluster.psql("select pg_relation_filepath('t')"), cluster.psql("select pg_relation_filepath('still')"));
    cluster.psql("create table after_it (a int)");
    let segment = cluster.switch_wal();
    cluster.wait_archived(&segment);

    let at = format!("lsn:{lsn}");
    let cat = |file: &str, repos: &[&str]| {
        let runner = world.bygone(["cat", "--exclusive", "--at", &at]).args(repos).arg(file);
        let output = runner.command().output().expect("cat runs");
        (output.status.success(), output.stdout, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let whole = |file: &str| cat(file, &[]).1;
    let (t_before, still_before) = (whole(&t), whole(&still));
    assert!(!t_before.is_empty() && !still_before.is_empty());

    for object in objects(&first.path, "/data/") {
        Runner::new("truncate").by_root().args(["-s", "100", &object]).ok();
    }
    assert!(!cat(&still, &["--repo", "1"]).0, "repository 1 alone");
    let (done, bytes, said) = cat(&still, &[]);
    assert!(done && bytes == still_before, "{said}");
    assert!(said.contains("repository 2"), "{said}");

    for segment in objects(&first.path, "/wal/") {
        Runner::new("dd").by_root().args(["if=/dev/zero", "conv=notrunc", "bs=1000", "count=1", "seek=1", &format!("of={segment}")]).ok();
    }
    let (done, bytes, said) = cat(&t, &[]);
    assert!(done && bytes == t_before, "{said}");

    fs_err::rename(&first.path, world.join("lost")).expect("a repository can be moved");
    let (done, bytes, said) = cat(&t, &[]);
    assert!(done && bytes == t_before, "{said}");
    assert!(said.contains("reading from repository 2, since repository 1 does not do"), "{said}");
}

#[test]
fn mount_goes_on_with_the_next_repository_and_says_so_once() {
    if postgres_is_missing(15) || fuse_is_missing() {
        return;
    }
    let world = World::new();
    let cluster = TestCluster::builder(15).archiving(&world).checksums(true).conf("autovacuum = off").start(&world);
    let first = TestRepository::init(&world, 1, &cluster);
    let second = TestRepository::init_with(&world, 2, &cluster, None);
    for table in ["a", "b", "c", "d"] {
        cluster.psql(&format!("create table {table} as select n, md5(n::text) from generate_series(1, 30000) n"));
    }
    world.bygone(["backup"]).ok();
    let path = |table: &str| cluster.psql(&format!("select pg_relation_filepath('{table}')"));
    let files = ["a", "b", "c", "d"].map(path);
    cluster.psql("update a set n = -n where n < 1000");
    cluster.wait_archived(&cluster.switch_wal());
    let expected = files.clone().map(|file| world.bygone(["cat", "--at", "latest", &file]).command().output().expect("cat runs").stdout);

    let dir = world.dir("mnt");
    let mount = MountGuard::start(&world.bygone(["mount", "--foreground", "--at", "latest"]).arg(&dir).by_root(), &dir);
    let read = |number: usize| {
        let mut file = fs_err::File::open(dir.join(&files[number])).expect("a table on the mount").into_parts().0;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map(|_| bytes)
    };
    let same = |number: usize| assert!(read(number).expect("a table on the mount") == expected[number], "table {number}");
    same(0);
    assert_eq!(mount.log_text(), "");
    for object in objects(&first.path, "/data/") {
        fs_err::remove_file(object).expect("an object of repository 1");
    }
    same(1);
    same(2);
    assert_eq!(mount.log_text().matches("reading from repository 2").count(), 1, "{}", mount.log_text());

    for object in objects(&second.path, "/data/") {
        fs_err::remove_file(object).expect("an object of repository 2");
    }
    let error = read(3).expect_err("nobody has it");
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
    let log = mount.log_text();
    let line = log.lines().find(|line| line.contains("ERROR")).unwrap_or_else(|| panic!("an error is logged: {log}"));
    for part in [first.path.to_str(), second.path.to_str(), Some("repository 2: ")] {
        assert!(line.contains(part.expect("UTF-8")), "{part:?}: {line}");
    }
    assert_eq!(mount.terminate(), Some(0));
}
