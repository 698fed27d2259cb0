//! A mounted moment is the cluster as it was: file by file what Postgres itself recovers to the same Lsn, and a server starts on it without recovery.

mod aged;
mod any;
mod compare;
mod forked;
mod hybrid;
mod minimal;
mod moved;
mod oracle;
mod storm;
mod targets;

use std::path::PathBuf;
use std::time::Duration;

use bygone::archive::incarnation::read_control;
use bygone::pg::Lsn;
use bygone::pg::control::ClusterState;

use super::harness::mount::MountGuard;
use super::harness::repository::TestRepository;
use super::harness::tools::fuse_is_missing;
use super::harness::{MAJORS, TestCluster, World, postgres_is_missing, wait_until};

const BEFORE: &str = include_str!("moment/before.sql");
const AFTER: &str = include_str!("moment/after.sql");

/// A cluster that was backed up in the middle of its life, its archive, and a position after all of it.
struct Past {
    world: World,
    cluster: TestCluster,
    repository: TestRepository,
    label: String,
}

fn run_all(cluster: &TestCluster, sql: &str) {
    cluster.client("psql").args(["-X", "-q", "-v", "ON_ERROR_STOP=1"]).run_with_input(sql).ok();
}

fn past(major: u16, segment_mb: u32, checksums: bool) -> Past {
    let world = World::new();
    let builder = TestCluster::builder(major).archiving(&world).checksums(checksums).wal_segment_mb(segment_mb).tablespace("extra");
    let cluster = builder.conf("max_prepared_transactions = 10").conf("min_wal_size = 64MB").conf("autovacuum = off").start(&world);
    let repository = TestRepository::init(&world, 1, &cluster);
    run_all(&cluster, BEFORE);
    let report: serde_json::Value = serde_json::from_str(&world.bygone(["backup", "--json"]).ok()).expect("one JSON object");
    let label = report["label"].as_str().expect("a label").to_owned();
    run_all(&cluster, AFTER);
    Past { world, cluster, repository, label }
}

impl Past {
    /// The position now; everything up to it is archived when this returns.
    fn here(&self) -> String {
        let lsn = self.cluster.psql("select pg_current_wal_insert_lsn()");
        self.cluster.psql("create table if not exists after_it (a int); insert into after_it values (1)");
        let segment = self.cluster.switch_wal();
        self.cluster.wait_archived(&segment);
        lsn
    }

    fn mount(&self, at: &str, replay: &str) -> MountGuard {
        let dir = self.world.dir(&format!("mnt-{replay}"));
        let overlay = self.world.join(&format!("overlay-{replay}"));
        let args = ["mount", "--foreground", "--exclusive", "--at", at, "--replay", replay, "--overlay"];
        let runner = self.world.bygone(args).arg(&overlay).arg(&dir).by_root();
        MountGuard::start(&runner, &dir)
    }

    /// What Postgres recovers to `lsn`, promoted and stopped, never connected to.
    fn recovered(&self, lsn: &str) -> PathBuf {
        let restored = self.repository.restore(&self.world, &self.cluster, &self.label, "native", &storm::restore_command(&self.world));
        let target = format!("recovery_target_lsn = '{lsn}'");
        restored.configure(&[&target, "recovery_target_inclusive = off", "autovacuum = off", "hot_standby = off"]);
        restored.start();
        // Asking a client would set hint bits, and with checksums log them: pages would be newer than the moment.
        let state = || read_control(restored.data()).expect("pg_control of the recovered cluster").state;
        wait_until("the end of recovery", Duration::from_secs(60), || state() == ClusterState::InProduction);
        restored.stop();
        restored.data().to_owned()
    }
}

fn dump(cluster: &TestCluster) -> Vec<String> {
    let text = cluster.client("pg_dumpall").ok();
    let equal = |line: &&str| !line.contains("restrict") && !line.starts_with("CREATE TABLESPACE");
    text.lines().filter(equal).map(str::to_owned).collect()
}

/// Starts a server on the mount and checks what a client can see.
fn check_server(past: &Past, mount: &MountGuard, name: &str) -> Vec<String> {
    let clone = TestCluster::existing(&past.world, past.cluster.major(), name, mount.dir());
    let start = || {
        clone.start();
        let open = "select pg_is_in_recovery()";
        wait_until("the server to be writable", Duration::from_secs(60), || clone.try_psql(open).stdout.trim() == "f");
    };
    start();
    assert_eq!(clone.psql("select gid from pg_prepared_xacts"), "open");
    assert_eq!(clone.psql("select count(*) from fleeting"), "0");
    let dumped = dump(&clone);
    clone.client("pg_amcheck").args(["--all", "--heapallindexed", "--parent-check"]).ok();
    clone.psql("commit prepared 'open'");
    assert_eq!(clone.psql("select string_agg(id::text, ' ' order by id) from late"), "1 2 4 100 200");
    clone.psql("insert into fleeting values (1); update heap set v = 'new'");
    clone.psql("checkpoint");
    clone.crash();
    start();
    assert_eq!(clone.psql("select count(*) from heap where v <> 'new'"), "0");
    clone.stop();
    dumped
}

fn moment_equals_recovery(major: u16, segment_mb: u32, checksums: bool) {
    if postgres_is_missing(major) || fuse_is_missing() {
        return;
    }
    let past = past(major, segment_mb, checksums);
    let lsn = past.here();
    let ours = past.mount(&format!("lsn:{lsn}"), "bygone");
    compare::assert_same(ours.dir(), &past.recovered(&lsn));
    let rebuilt = check_server(&past, &ours, "clone");
    let log = fs_err::read_to_string(past.world.join("clone.log")).expect("the server's log");
    let first_start = log.split("ready to accept connections").next().unwrap_or_default();
    assert!(first_start.contains("database system was shut down at") && !first_start.contains("redo starts"), "{log}");
    let native = past.mount(&format!("lsn:{lsn}"), "postgres");
    assert!(check_server(&past, &native, "native-clone") == rebuilt, "pg_dumpall differs between the two ways to replay");
    assert_eq!(native.terminate(), Some(0));
    assert_eq!(ours.terminate(), Some(0));
}

#[test]
fn moment_of_every_version_equals_what_postgres_recovers() {
    for major in MAJORS {
        moment_equals_recovery(major, 16, major % 2 == 0);
    }
}

#[test]
fn moment_with_small_wal_segments_equals_what_postgres_recovers() {
    moment_equals_recovery(15, 1, true);
}

#[test]
fn moment_out_of_reach_is_refused_with_the_windows_that_are_not() {
    if postgres_is_missing(15) {
        return;
    }
    let past = past(15, 16, true);
    past.here();
    let ls = |at: &str| past.world.bygone(["ls", "--at", at]);
    ls("lsn:F/0").fails().says("cannot be reached").says("reachable:");
    ls("2001-01-01 00:00:00 UTC").fails().says("cannot be reached").says("reachable:");
    ls("2101-01-01 00:00:00 UTC").fails().says("the archived WAL ends before it");
    ls("name:nobody").fails().says("cannot be reached");
    ls("2026-01-01 00:00:00").fails().says("has no time zone");
}

#[test]
fn latest_is_before_a_record_whose_end_is_not_archived() {
    if postgres_is_missing(15) {
        return;
    }
    let past = past(15, 1, true);
    // It begins many segments before the last one that is complete.
    past.cluster.psql("checkpoint; select pg_logical_emit_message(true, 'long', repeat('q', 5300000))");
    let begun = past.cluster.psql("select pg_walfile_name(pg_current_wal_insert_lsn() - 1100000)");
    past.cluster.wait_archived(&begun);
    let info: serde_json::Value = serde_json::from_str(&past.world.bygone(["info", "--json"]).ok()).expect("one JSON object");
    let archived: Lsn = info["repositories"][0]["reachable"][0]["to"].as_str().expect("an Lsn").parse().expect("an Lsn");
    let explained = past.world.bygone(["explain", "--json", "--at", "latest", "1664/0/1262", "0"]).ok();
    let explained: serde_json::Value = serde_json::from_str(&explained).expect("one JSON object");
    let latest: Lsn = explained["lsn"].as_str().expect("an Lsn").parse().expect("an Lsn");
    assert!(latest < archived && archived.0 - latest.0 > 3 << 20, "{latest} {archived}");
    past.world.bygone(["ls", "--at", "latest"]).ok();
}
