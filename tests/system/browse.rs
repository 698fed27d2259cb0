//! `bygone mount DIR` shows every moment, backup and WAL segment by name.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::harness::mount::MountGuard;
use super::harness::repository::TestRepository;
use super::harness::tools::fuse_is_missing;
use super::harness::{TestCluster, World, postgres_is_missing, wait_until};

fn names(dir: &Path) -> Vec<String> {
    let entries = fs_err::read_dir(dir).expect("a directory of the mount");
    let mut names: Vec<String> = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    names
}

#[test]
fn browsing_mount_shows_moments_backups_and_wal() {
    if postgres_is_missing(16) || fuse_is_missing() {
        return;
    }
    let world = World::new();
    let cluster = TestCluster::builder(16).archiving(&world).conf("autovacuum = off").tablespace("extra").start(&world);
    TestRepository::init(&world, 1, &cluster);
    cluster
        .psql("create table t as select generate_series(1, 1000) as id; create table far tablespace extra as select 1 as id; checkpoint");
    let far = cluster.psql("select pg_relation_filepath('far')");
    let far_page = fs_err::read(cluster.data().join(&far)).expect("a page of production");
    let label = |report: String| {
        let report: Value = serde_json::from_str(&report).expect("one JSON object");
        report["label"].as_str().expect("a label").to_owned()
    };
    let first = label(world.bygone(["backup", "--json"]).ok());
    cluster.psql("update t set id = -id; update far set id = 2; checkpoint");
    let lsn = cluster.psql("select pg_create_restore_point('here')").replace('/', "-");
    let time = cluster.psql("select to_char(now() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')");
    // The first commit after the time ends its view: it must not be the deletion, whose traces would lie before that.
    cluster.psql("create table between_them (a int)");
    cluster.psql("delete from t; checkpoint");
    let file = cluster.psql("select pg_relation_filepath('t')");
    let segment = cluster.switch_wal();
    cluster.wait_archived(&segment);

    let dir = world.dir("mnt");
    let mount = MountGuard::start(&world.bygone(["mount", "--foreground"]).arg(&dir).by_root(), &dir);
    assert_eq!(names(&dir), [".bygone", "at", "backup", "latest", "wal"]);
    assert_eq!(names(&dir.join("at")), Vec::<String>::new());

    let at = |name: &str| dir.join("at").join(name);
    let page = fs_err::read(at("name:here").join(&file)).expect("a page of a moment");
    let catted = world.bygone(["cat", "--at", "name:here"]).arg(&file).command().output().expect("cat runs").stdout;
    assert!(page == catted && !page.is_empty());
    assert!(fs_err::read(at(&time).join(&file)).expect("a page of a moment") == page);
    assert!(fs_err::read(dir.join("latest").join(&file)).expect("a page of the newest moment") != page);
    assert!(fs_err::read(dir.join("backup").join(&first).join(&file)).expect("a page of a backup") != page);
    assert_eq!(names(&dir.join("at")), [time.as_str(), "name:here"]);

    // What lies in a tablespace is that of the backup, and not production's.
    let backup = dir.join("backup").join(&first);
    assert!(fs_err::read(backup.join(&far)).expect("a page of a backup") == far_page);
    assert!(fs_err::canonicalize(backup.join(&far)).expect("a file").starts_with(&backup) && !backup.join("tablespace_map").exists());
    let catted = world.bygone(["cat", "--backup", &first, &far]).command().output().expect("cat runs").stdout;
    assert!(catted == far_page);
    let listed: Value = serde_json::from_str(&world.bygone(["ls", "--json", "--at", "name:here", &far]).ok()).expect("one JSON value");
    assert_eq!((&listed[0]["type"], &listed[0]["size"]), (&Value::from("file"), &Value::from(8192)));
    assert!(at(&format!("lsn:{lsn}")).join("PG_VERSION").is_file());

    let wal = dir.join("wal/00000001");
    assert!(names(&wal).contains(&segment));
    let archived = fs_err::read(wal.join(&segment)).expect("a segment of the mount");
    world.bygone(["archive-get", &segment]).arg(world.join("got")).ok();
    assert!(archived == fs_err::read(world.join("got")).expect("a segment of the archive"));
    assert_eq!(fs_err::metadata(wal.join(segment.to_lowercase() + "x")).expect_err("no such segment").kind(), ErrorKind::NotFound);

    for name in ["yesterday", "lsn:F-0", "name:nobody", "2001-01-01T00:00:00Z"] {
        assert_eq!(fs_err::metadata(at(name)).expect_err("no such moment").kind(), ErrorKind::NotFound, "{name}");
        assert_eq!(fs_err::metadata(at(name)).expect_err("no such moment").kind(), ErrorKind::NotFound, "{name}");
        assert_eq!(mount.log_text().matches(&format!("{name} does not exist: ")).count(), 1, "{}", mount.log_text());
    }
    let error = fs_err::write(dir.join("latest/new"), "x").expect_err("a read-only mount");
    assert_eq!(error.kind(), ErrorKind::ReadOnlyFilesystem);

    let status: Value = serde_json::from_slice(&fs_err::read(dir.join(".bygone/status.json")).expect("the status")).expect("JSON");
    assert!(status["fetched_bytes"].as_u64() > Some(0), "{status}");
    assert!(status["moments"].as_array().is_some_and(|moments| moments.iter().any(|m| m["rebuilt_pages"].as_u64() > Some(0))), "{status}");

    let second = label(world.bygone(["backup", "--json"]).ok());
    wait_until("the new backup to show", Duration::from_secs(20), || names(&dir.join("backup")).contains(&second));
    assert_eq!(fs_err::read(dir.join("backup").join(&second).join("PG_VERSION")).expect("a file of it"), b"16\n");
    assert_eq!(mount.terminate(), Some(0));

    // In the background it lets go of the pipes that this reads to their end.
    let _guard = MountGuard::watch(&dir);
    let said = world.bygone(["mount"]).arg(&dir).by_root().ok();
    assert!(said.starts_with("mounted cluster/main/"), "{said}");
    assert!(names(&dir.join("backup")).contains(&second));
    world.bygone(["umount"]).arg(&dir).by_root().ok();
}
