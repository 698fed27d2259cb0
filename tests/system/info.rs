//! `info` says what there is, what is missing, and what was not looked at.

use super::harness::repository::TestRepository;
use super::harness::{TestCluster, World, postgres_is_missing};

#[test]
fn info_shows_backups_wal_gaps_and_how_archiving_goes() {
    if postgres_is_missing(15) {
        return;
    }
    let world = World::new();
    let cluster = TestCluster::builder(15).archiving(&world).start(&world);
    let repository = TestRepository::init(&world, 1, &cluster);
    let empty = world.bygone(["info"]).ok();
    assert!(empty.contains("no backups"), "{empty}");
    world.bygone(["backup"]).ok();
    for _ in 0..3 {
        cluster.psql("create table if not exists t (a int); insert into t values (1)");
        cluster.wait_archived(&cluster.switch_wal());
    }
    let json = || serde_json::from_str::<serde_json::Value>(&world.bygone(["info", "--json"]).ok()).expect("one JSON object");
    let whole = json();
    let repo = &whole["repositories"][0];
    assert_eq!(repo["backups"][0]["label"].as_str(), repository.backups(&cluster).first().map(String::as_str));
    assert_eq!(repo["gaps"], serde_json::json!([]));
    assert_eq!(repo["reachable"].as_array().map(Vec::len), Some(1));
    assert_eq!(whole["archiver"]["failing"], false);

    let last = repo["wal"][0]["last"].as_str().expect("a segment").to_owned();
    let number = u64::from_str_radix(&last[16..], 16).expect("hex");
    let missing = format!("{}{:08X}", &last[..16], number - 1);
    repository.remove_segment(&cluster, &missing);
    let with_gap = json();
    assert_eq!(with_gap["repositories"][0]["gaps"], serde_json::json!([{ "first": missing, "last": missing }]));
    assert!(world.bygone(["info"]).ok().contains(&format!("WAL MISSING: {missing} to {missing}")));
    // The newest moment is an older one now, which is said; and one behind the hole is refused with the name of what is missing.
    world.bygone(["ls", "--at", "latest"]).run().exits(0).says(&missing);
    world.bygone(["ls", "--at", "lsn:F/0"]).fails().says(&format!("(then {missing} is missing)"));

    cluster.stop();
    assert!(world.bygone(["info"]).ok().contains("archiving: not known"), "info works without the server, and says so");
    cluster.start();
}
