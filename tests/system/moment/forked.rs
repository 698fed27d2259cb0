//! Moments just before a promotion: the WAL segment in which a timeline ends is archived as part of the next one only.

use super::{Past, TestRepository, World, wait_until};
use crate::harness::mount::MountGuard;
use crate::harness::tools::fuse_is_missing;
use crate::harness::{MAJORS, TestCluster, postgres_is_missing};
use crate::moment::storm::restore_command;

use std::time::Duration;

/// Starts the cluster anew as a standby of its own archive and promotes it: another timeline begins. A clean stop would end the WAL segment first.
fn promote(world: &World, cluster: &TestCluster) {
    cluster.crash();
    cluster.configure(&[&format!("restore_command = '{}'", restore_command(world))]);
    fs_err::write(cluster.data().join("standby.signal"), "").expect("standby.signal");
    cluster.start();
    cluster.promote();
    wait_until("the end of recovery", Duration::from_secs(120), || cluster.try_psql("select pg_is_in_recovery()").stdout.trim() == "f");
}

fn counted(past: &Past, mount: &MountGuard, name: &str) -> String {
    let clone = TestCluster::existing(&past.world, past.cluster.major(), name, mount.dir());
    clone.start();
    let count = clone.psql("select count(*) from t");
    clone.stop();
    count
}

fn server_starts_before_and_at_the_fork(major: u16) {
    let world = World::new();
    let cluster = TestCluster::builder(major).archiving(&world).conf("autovacuum = off").start(&world);
    let repository = TestRepository::init(&world, 1, &cluster);
    let report: serde_json::Value = serde_json::from_str(&world.bygone(["backup", "--json"]).ok()).expect("one JSON object");
    let label = report["label"].as_str().expect("a label").to_owned();
    cluster.psql("create table t as select generate_series(1, 10) a");
    let before = cluster.current_lsn();
    cluster.psql("insert into t values (11)");
    promote(&world, &cluster);
    cluster.psql("insert into t values (12)");
    let history = fs_err::read_to_string(cluster.wal_dir().join("00000002.history")).expect("history of the new timeline");
    let fork = history.split_whitespace().nth(1).expect("a position").to_owned();
    let past = Past { world, cluster, repository, label };
    past.here();
    let ended = past.cluster.psql(&format!("select '00000001' || substr(pg_walfile_name('{before}'), 9)"));
    assert!(past.cluster.data().join("pg_wal").join(format!("archive_status/{ended}.partial.done")).exists(), "{ended} was not cut short");
    for (name, lsn, rows) in [("before", &before, "10"), ("fork", &fork, "11")] {
        let mount = past.mount(&format!("lsn:{lsn}"), "bygone");
        assert_eq!(counted(&past, &mount, name), rows, "Postgres {major}, {name}");
        assert_eq!(mount.log_text(), "");
        assert_eq!(mount.terminate(), Some(0));
        fs_err::remove_dir_all(past.world.join("overlay-bygone")).expect("the overlay can be removed");
    }
}

#[test]
fn server_starts_on_a_moment_just_before_a_promotion() {
    if fuse_is_missing() {
        return;
    }
    for major in MAJORS {
        if !postgres_is_missing(major) {
            server_starts_before_and_at_the_fork(major);
        }
    }
}
