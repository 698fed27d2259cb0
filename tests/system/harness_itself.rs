//! The harness keeps its own promises: each version runs, and nothing is left behind.

use std::path::PathBuf;

use crate::harness::{MAJORS, TestCluster, World, postgres_is_missing};

#[test]
fn every_major_version_runs_with_what_was_asked_for() {
    for major in MAJORS {
        if postgres_is_missing(major) {
            continue;
        }
        let world = World::new();
        let cluster =
            TestCluster::builder(major).wal_segment_mb(1).checksums(true).tablespace("extra").conf("work_mem = '1234kB'").start(&world);
        let shown = cluster.psql(
            "select current_setting('server_version_num')::int / 10000, current_setting('wal_segment_size'),
                    current_setting('data_checksums'), current_setting('work_mem'), (select count(*) from pg_tablespace where spcname = 'extra')",
        );
        assert_eq!(shown, format!("{major}|1MB|on|1234kB|1"));
    }
}

#[test]
fn a_cluster_is_stopped_and_removed_with_its_world() {
    if postgres_is_missing(15) {
        return;
    }
    let (dir, pid): (PathBuf, String) = {
        let world = World::new();
        let cluster = TestCluster::builder(15).start(&world);
        let pid_file = fs_err::read_to_string(cluster.data().join("postmaster.pid")).unwrap();
        (world.path().to_owned(), pid_file.lines().next().unwrap().to_owned())
    };
    assert!(!dir.exists(), "{} is still there", dir.display());
    // A zombie that nobody has reaped yet has no command line any more.
    let command = fs_err::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    assert!(command.is_empty(), "postmaster {pid} still runs: {}", String::from_utf8_lossy(&command));
}
