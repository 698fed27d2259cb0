//! A moment is the same whether its WAL has its indexes, merged ones, or none that can be used.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bygone::repo::{ObjectKind, Stream};
use fs_err::os::unix::fs::FileExt as _;

use super::harness::mount::MountGuard;
use super::harness::repository::{TestRepository, folder};
use super::harness::tools::fuse_is_missing;
use super::harness::{TestCluster, World, postgres_is_missing};

const LOAD: &str = "
    create table pages as select g, repeat(md5(g::text), 3) v from generate_series(1, 60000) g;
    create index on pages (v);
    update pages set v = md5(v) where g % 3 = 0;
    vacuum pages;
    delete from pages where g > 40000;
    vacuum (truncate) pages;
    begin; savepoint a; insert into pages values (0, 'a'); rollback to a; insert into pages values (0, 'b'); commit;
    begin; insert into pages values (-1, 'never'); rollback;
    drop table if exists gone; create table gone as select * from pages limit 2000;
    truncate gone; alter table pages rename to pages_old; drop table if exists older; alter table pages_old rename to older;";

/// Every file whose contents the moment decides, by path.
fn contents(world: &World, at: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let (dir, overlay) = (world.dir("mnt"), world.join("overlay"));
    let runner = world.bygone(["mount", "--foreground", "--exclusive", "--replay=bygone", "--at", at, "--overlay"]);
    let mount = MountGuard::start(&runner.arg(&overlay).arg(&dir).by_root(), &dir);
    let mut all = BTreeMap::new();
    for part in ["base", "global", "pg_xact", "pg_multixact", "pg_subtrans"] {
        read_all(&mount.dir().join(part), &mut all);
    }
    all.retain(|path, _| !path.ends_with("pg_control"));
    assert_eq!(mount.terminate(), Some(0));
    fs_err::remove_dir_all(overlay).expect("the overlay");
    all
}

fn read_all(dir: &Path, all: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs_err::read_dir(dir).expect("a directory of the mount") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            read_all(&path, all);
        } else {
            let bytes = fs_err::read(&path).expect("a file of the mount");
            all.insert(path, bytes);
        }
    }
}

fn assert_same(found: &BTreeMap<PathBuf, Vec<u8>>, expected: &BTreeMap<PathBuf, Vec<u8>>) {
    assert!(found.keys().eq(expected.keys()), "not the same files");
    let differing: Vec<_> = found.iter().filter(|(path, bytes)| expected[*path] != **bytes).map(|(path, _)| path).collect();
    assert!(differing.is_empty(), "{differing:?}");
}

fn objects(dir: &Path) -> Vec<PathBuf> {
    let mut all = BTreeMap::new();
    if dir.exists() {
        read_all(dir, &mut all);
    }
    all.into_keys().collect()
}

/// Flips a bit in the index of each of these segments: their WAL is sound.
fn break_indexes(repository: &TestRepository, cluster: &TestCluster, segments: &[String]) {
    let opened = repository.open();
    for segment in segments {
        let key = folder(cluster).segment_file(segment);
        let object = opened.open_object(&key, ObjectKind::WalSegment).expect("the segment opens");
        let stored = object.stored_range(Stream::Aux, 0..object.aux_len()).expect("it has an index");
        let path = repository.path.join(&key);
        let mut bytes = fs_err::read(&path).expect("the object");
        bytes[usize::try_from(stored.end - 40).expect("fits")] ^= 1;
        let file = fs_err::OpenOptions::new().write(true).open(&path).expect("the object can be opened");
        file.write_all_at(&bytes, 0).expect("the object can be written");
    }
}

#[test]
fn moment_is_the_same_by_indexes_roll_ups_and_record_by_record() {
    if postgres_is_missing(17) || fuse_is_missing() {
        return;
    }
    let world = World::new();
    let cluster =
        TestCluster::builder(17).archiving(&world).wal_segment_mb(1).conf("min_wal_size = 32MB").conf("autovacuum = off").start(&world);
    let repository = TestRepository::init(&world, 1, &cluster);
    world.bygone(["backup"]).ok();
    let (mut moments, mut walfiles) = (Vec::new(), Vec::new());
    for _ in 0..7 {
        cluster.client("psql").args(["-X", "-q", "-v", "ON_ERROR_STOP=1"]).run_with_input(LOAD).ok();
        moments.push(format!("lsn:{}", cluster.psql("select pg_current_wal_insert_lsn()")));
        walfiles.push(cluster.psql("select pg_walfile_name(pg_current_wal_insert_lsn())"));
        cluster.psql("insert into older values (7, 'later')");
    }
    cluster.psql("select pg_create_restore_point('end')");
    let segment = cluster.switch_wal();
    cluster.wait_archived(&segment);
    // archive-push has put each 64 of them together; first without that.
    let below = repository.path.join(folder(&cluster).index());
    let pushed = objects(&below).len() as u64;
    fs_err::remove_dir_all(&below).expect("the roll-ups");
    let expected: Vec<_> = moments.iter().map(|at| contents(&world, at)).collect();

    let said: serde_json::Value = serde_json::from_str(&world.bygone(["index", "--json"]).ok()).expect("JSON");
    let rollups = said[0]["rollups"].as_u64().expect("a number");
    assert!(rollups >= 2 && pushed == rollups, "{pushed} by archive-push, {said}");
    let beside = repository.path.join(folder(&cluster).index()).join("segment");
    assert_eq!(said[0]["indexed"], 0, "archive-push has indexed each: {:?}", objects(&beside));
    let again: serde_json::Value = serde_json::from_str(&world.bygone(["index", "--json"]).ok()).expect("JSON");
    assert_eq!(again[0]["rollups"], 0, "{again}");
    assert_eq!(objects(&below).len() as u64, rollups);
    for (at, expected) in moments.iter().zip(&expected) {
        assert_same(&contents(&world, at), expected);
    }

    // A roll-up that is damaged does not matter.
    for object in objects(&below) {
        let len = fs_err::metadata(&object).expect("a roll-up").len();
        let file = fs_err::OpenOptions::new().write(true).open(&object).expect("a roll-up");
        file.set_len(len / 2).expect("it can be cut");
    }
    assert_same(&contents(&world, &moments[3]), &expected[3]);
    let rebuilt: serde_json::Value = serde_json::from_str(&world.bygone(["index", "--rebuild", "--json"]).ok()).expect("JSON");
    assert_eq!((rebuilt[0]["rollups"].as_u64(), rebuilt[0]["removed"].as_u64()), (Some(rollups), Some(rollups)), "{rebuilt}");
    assert_same(&contents(&world, &moments[2]), &expected[2]);

    // Nor does an index in a segment's object: another is made, for the moment in memory, by `index` beside it.
    break_indexes(&repository, &cluster, &walfiles);
    assert_same(&contents(&world, &moments[3]), &expected[3]);
    let beside: serde_json::Value = serde_json::from_str(&world.bygone(["index", "--rebuild", "--json"]).ok()).expect("JSON");
    assert_eq!(beside[0]["indexed"].as_u64(), Some(walfiles.len() as u64), "{beside}");
    assert_same(&contents(&world, &moments[1]), &expected[1]);
}
