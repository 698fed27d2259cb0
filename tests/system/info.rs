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

#[test]
fn info_says_what_is_in_no_repository_and_whose_archiving_it_does_not_know() {
    if postgres_is_missing(15) {
        return;
    }
    let world = World::new();
    let cluster = TestCluster::builder(15).archiving(&world).start(&world);
    let _repository = TestRepository::init(&world, 1, &cluster);
    let json = |ran: &str| serde_json::from_str::<serde_json::Value>(ran).expect("one JSON object");
    cluster.wait_archived(&cluster.switch_wal());
    assert_eq!(json(&world.bygone(["info", "--json"]).ok())["archiver"]["last_archived_stored"], true);
    assert!(!world.bygone(["info"]).ok().contains("is in no repository"));
    cluster.configure(&["archive_command = 'true archive-push'"]);
    cluster.reload();
    super::harness::wait_until("the reload", std::time::Duration::from_secs(10), || {
        cluster.psql("show archive_command").starts_with("true")
    });
    let lost = cluster.switch_wal();
    cluster.wait_archived(&lost);
    // The archiver may have taken its first look at the new command only after that.
    let lost = if world.bygone(["info"]).ok().contains("is in no repository") { lost } else { cluster.switch_wal() };
    cluster.wait_archived(&lost);
    assert_eq!(json(&world.bygone(["info", "--json"]).ok())["archiver"]["last_archived_stored"], false);
    assert!(world.bygone(["info"]).ok().contains(&format!("{lost}, which is in no repository: archive_command does not store it")));

    let other = TestCluster::builder(15).name("other").start(&world);
    let elsewhere = |args: &[&str]| world.bygone(args).env("BYGONE_CLUSTER_MAIN_CONNECTION", other.connection()).ok();
    assert!(elsewhere(&["info"]).contains("archiving: not known, since the connection leads to another cluster"));
    assert!(json(&elsewhere(&["info", "--json"]))["archiver"]["error"].is_string());

    let config = fs_err::read_to_string(world.config()).expect("the configuration") + "[cluster.unknown]\ndata-directory = \"/nowhere\"\n";
    world.file("bygone.toml", config);
    world.bygone(["info", "--cluster", "unknown"]).fails().exits(1).says("knows no cluster \"unknown\"").says("it knows main");
}

/// Reading, archiving and backing up with a repository that is gone, and another one that is not.
#[test]
fn a_dead_repository_keeps_nothing_from_the_others_and_is_named() {
    if postgres_is_missing(15) {
        return;
    }
    let world = World::new();
    let cluster = TestCluster::builder(15).archiving(&world).wal_segment_mb(1).start(&world);
    let (healthy, dead) = (TestRepository::init(&world, 1, &cluster), TestRepository::init(&world, 2, &cluster));
    cluster.wait_archived(&cluster.switch_wal());
    fs_err::rename(&dead.path, world.join("away")).expect("moved");
    let made: Vec<String> = (0..3).map(|_| cluster.switch_wal()).collect();
    let push = |name: &str| world.bygone(["archive-push", &format!("pg_wal/{name}")]).current_dir(cluster.data());
    push(&made[0]).fails().says("repository 2");
    let folder = super::harness::repository::folder(&cluster);
    let has = |name: &str| healthy.open().has_object(&folder.segment_file(name)).expect("it answers");
    assert!(made.iter().all(|name| has(name)), "Postgres has the same file asked for again and again");

    let json = |ran: &super::harness::run::Ran| serde_json::from_str::<serde_json::Value>(&ran.stdout).expect("one JSON value");
    let backup = world.bygone(["backup", "--json"]).run().exits(2).says("repository 2");
    assert_eq!(healthy.backups(&cluster), [json(&backup)["label"].as_str().expect("a label")]);
    assert_eq!(json(&backup)["failed"][0]["repository"], "repository 2");
    let info = json(&world.bygone(["info", "--json"]).run().exits(1).says("repository 2"));
    assert_eq!(info["repositories"][0]["backups"].as_array().map(Vec::len), Some(1));
    assert_eq!(info["repositories"][1]["repository"], 2);
    assert!(info["repositories"][1]["error"].is_string());
    let check = json(&world.bygone(["check", "--json"]).run().exits(1).says("repository 2"));
    assert_eq!(check["read_back"][0]["compared"], true, "{check}");
    let index = json(&world.bygone(["index", "--json"]).run().exits(1).says("repository 2"));
    assert!(index[0]["indexed"].is_number() && index[1]["error"].is_string(), "{index}");

    let optional = |args: &[&str]| world.bygone(args).env("BYGONE_REPO_2_REQUIRED", "false");
    optional(&["archive-push", &format!("pg_wal/{}", made[0])]).current_dir(cluster.data()).run().exits(0).says("not archived there");
    optional(&["backup"]).run().exits(0).says("repository 2");
    assert_eq!(healthy.backups(&cluster).len(), 2);
}
