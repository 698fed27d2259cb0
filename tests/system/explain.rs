//! `explain` names the stored bytes and the records that a page is rebuilt from.

use serde_json::Value;

use super::harness::repository::TestRepository;
use super::harness::{TestCluster, World, postgres_is_missing};

#[test]
fn explain_names_base_records_and_what_is_fetched() {
    if postgres_is_missing(17) {
        return;
    }
    let world = World::new();
    let cluster = TestCluster::builder(17).archiving(&world).conf("autovacuum = off").start(&world);
    TestRepository::init(&world, 1, &cluster);
    cluster.psql("create table t (id int, v text); insert into t select g, repeat('x', 100) from generate_series(1, 200) g; checkpoint");
    world.bygone(["backup"]).ok();
    cluster.psql("checkpoint; create table new (id int); insert into new values (1)");
    cluster.psql("update t set v = 'y' where id = 1; update t set v = 'z' where id = 1; checkpoint");
    let lsn = cluster.psql("select pg_current_wal_insert_lsn()");
    cluster.psql("update t set v = 'w' where id = 1");
    let path = |table: &str| cluster.psql(&format!("select pg_relation_filepath('{table}')"));
    let (t, new) = (path("t"), path("new"));
    let segment = cluster.switch_wal();
    cluster.wait_archived(&segment);

    let at = format!("lsn:{lsn}");
    let explain = |args: &[&str]| world.bygone(["explain", "--exclusive", "--at", &at]).args(args);
    let json = |args: &[&str]| serde_json::from_str::<Value>(&explain(args).arg("--json").ok()).expect("one JSON object");
    let operations = |value: &Value| -> Vec<String> {
        let records = value["records"].as_array().expect("a list of records");
        records.iter().map(|r| format!("{} {} {}", r["rmgr"], r["operation"], r["page"]).replace('"', "")).collect()
    };

    let untouched = json(&[&t, "1"]);
    assert_eq!(untouched["base"]["kind"], "copied");
    assert_eq!(operations(&untouched), Vec::<String>::new());
    assert_eq!(untouched["to_fetch"].as_array().map(Vec::len), Some(1));

    let changed = json(&[&t, "0"]);
    assert_eq!(operations(&changed), ["Heap HOT_UPDATE image", "Heap2 PRUNE_ON_ACCESS change", "Heap HOT_UPDATE change"], "{changed}");
    assert_eq!(changed["base"]["kind"], "zeroes");
    assert!(changed["to_fetch"][0]["object"].as_str().is_some_and(|key| key.contains("/wal/")), "{changed}");
    assert!(changed["to_fetch"][0]["bytes"].as_u64() > Some(0), "{changed}");

    let oids =
        cluster.psql("select '1663/' || d.oid || '/' || pg_relation_filenode('new') from pg_database d where datname = current_database()");
    assert_eq!(json(&[&oids, "0"]), json(&[&new, "0"]));
    assert_eq!(operations(&json(&[&oids, "0"])), ["Heap INSERT+INIT init"]);
    let text = explain(&[&oids, "0"]).ok();
    for part in ["base: zeroes, the first record makes the page", "Heap INSERT+INIT", "to fetch: "] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }

    explain(&[&t, "100000"]).fails().says("does not exist at this moment").says("bygone ls");
    explain(&["global/pg_control", "0"]).fails().says("is no relation").says("pg_relation_filepath");
    explain(&[&t, "0", "--replay", "postgres"]).fails();
}
