//! A database that is moved to a tablespace and back, on versions whose own recovery may lose its rows (14): the primary is the judge.

use super::{TestCluster, TestRepository, World};
use crate::harness::mount::MountGuard;
use crate::harness::tools::fuse_is_missing;
use crate::harness::{MAJORS, postgres_is_missing};

const ROWS: &str = "select string_agg(g::text, ' ' order by g) from t";

fn rows_survive(major: u16) {
    let world = World::new();
    let cluster = TestCluster::builder(major).archiving(&world).tablespace("extra").conf("autovacuum = off").start(&world);
    TestRepository::init(&world, 1, &cluster);
    let run = |sql: &str| drop(cluster.client("psql").args(["-X", "-q", "-v", "ON_ERROR_STOP=1"]).run_with_input(sql).ok());
    run("create database d;\n\\c d\ncreate table t as select g from generate_series(1, 3) g;");
    world.bygone(["backup"]).ok();
    for n in 1..=3 {
        run(&format!(
            "\\c d\ninsert into t values (1{n});\n\\c postgres\nalter database d set tablespace extra;\n\\c d\ninsert into t values (2{n});\n\
             \\c postgres\nalter database d set tablespace pg_default;\n\\c d\ninsert into t values (3{n});"
        ));
    }
    let ask = |cluster: &TestCluster| cluster.client("psql").args(["-X", "-A", "-t", "-q", "-d", "d", "-c", ROWS]).ok();
    let expected = ask(&cluster);
    assert_eq!(expected.trim(), "1 2 3 11 12 13 21 22 23 31 32 33");
    cluster.psql("select pg_create_restore_point('moved')");
    cluster.wait_archived(&cluster.switch_wal());
    let (dir, overlay) = (world.dir("mnt"), world.join("overlay"));
    let runner = world.bygone(["mount", "--foreground", "--at", "name:moved", "--replay=bygone", "--overlay"]);
    let mount = MountGuard::start(&runner.arg(&overlay).arg(&dir).by_root(), &dir);
    let clone = TestCluster::existing(&world, major, "clone", mount.dir());
    clone.start();
    assert_eq!(ask(&clone), expected, "Postgres {major}");
    clone.stop();
    assert_eq!(mount.terminate(), Some(0));
}

#[test]
fn rows_of_a_database_moved_away_and_back_are_those_of_the_primary() {
    if fuse_is_missing() {
        return;
    }
    for major in MAJORS {
        if !postgres_is_missing(major) {
            rows_survive(major);
        }
    }
}
