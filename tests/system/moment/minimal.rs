//! WAL that was written with `wal_level = minimal` does not hold all that changed: no moment behind it is shown.

use bygone::pg::Lsn;

use super::{TestCluster, TestRepository, World};
use crate::harness::{MAJORS, postgres_is_missing};

fn nothing_behind_it_is_shown(major: u16) {
    let world = World::new();
    let cluster = TestCluster::builder(major).archiving(&world).conf("autovacuum = off").start(&world);
    TestRepository::init(&world, 1, &cluster);
    world.bygone(["backup"]).ok();
    cluster.psql("select pg_create_restore_point('before')");
    let restart = |lines: &[&str]| {
        cluster.stop();
        cluster.configure(lines);
        cluster.start();
    };
    restart(&["wal_level = minimal", "max_wal_senders = 0", "archive_mode = off"]);
    cluster.psql("begin; create table t (n int); copy t from program 'seq 1 1000'; commit");
    restart(&["wal_level = replica", "max_wal_senders = 4", "archive_mode = on"]);
    cluster.psql("select pg_create_restore_point('after')");
    let behind = cluster.switch_wal();
    cluster.psql("create table later (n int)");
    let filler = cluster.switch_wal();
    cluster.wait_archived(&filler);
    world.bygone(["ls", "--at", "name:before"]).ok();
    // The first lies in the segment that says so, the second behind it: record by record, and by index.
    for moment in ["name:after", "latest"] {
        for replay in ["auto", "bygone"] {
            world.bygone(["ls", "--at", moment, "--replay", replay]).fails().says("wal_level = minimal").says("hint:");
        }
    }
    assert_ne!(behind, filler);
    // They say how far it goes: as far as everything was logged.
    let reachable = |end: &str| {
        let document: serde_json::Value = serde_json::from_str(&world.bygone(["info", "--json"]).ok()).expect("one JSON object");
        let windows = document["repositories"][0]["reachable"].as_array().expect("windows").clone();
        let window = windows.into_iter().find(|window| window["end"] == end).expect("a window that ends so");
        let lsn = |name: &str| window[name].as_str().expect("an Lsn").parse::<Lsn>().expect("an Lsn");
        (lsn("from"), lsn("to"))
    };
    let (from, to) = reachable("minimal");
    let last = Lsn(to.0 - 1);
    world.bygone(["ls", "--at", &format!("lsn:{from}")]).ok();
    world.bygone(["ls", "--at", &format!("lsn:{last}"), "--exclusive"]).ok();
    world.bygone(["ls", "--at", &format!("lsn:{to}")]).fails().says("wal_level = minimal");
    assert!(world.bygone(["info"]).ok().contains(&format!("to {to}, where wal_level = minimal began, on timeline 1")));
    world.bygone(["ls", "--at", "lsn:F/0"]).fails().says("(then WAL was written with wal_level = minimal)");
    world.bygone(["backup"]).ok();
    cluster.wait_archived(&cluster.switch_wal());
    assert!(reachable("minimal") == (from, to) && reachable("archive").0 > to);
    let table = cluster.psql("select pg_relation_filepath('t')");
    assert_eq!(world.bygone(["ls", "--at", "latest", &table]).ok().split_whitespace().next(), Some("40960"));
}

#[test]
fn moments_behind_wal_that_was_logged_minimally_are_refused_until_the_next_backup() {
    for major in MAJORS {
        if !postgres_is_missing(major) {
            nothing_behind_it_is_shown(major);
        }
    }
}
