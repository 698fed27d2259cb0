//! What `backup` takes is a cluster that Postgres starts on, equal to the original; whatever disturbs it leaves nothing behind.

use std::os::unix::fs::FileExt as _;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bygone::repo::manifest::EntryKind;

use super::harness::cluster::Builder;
use super::harness::repository::{TestRepository, folder};
use super::harness::{MAJORS, TestCluster, World, postgres_is_missing, wait_until};

/// A restored cluster after recovery, on which everything is checked that can be.
fn check_restored(original: &TestCluster, restored: &TestCluster) {
    restored.start();
    wait_until("the end of recovery", Duration::from_secs(60), || restored.psql("select pg_is_in_recovery()") == "f");
    let dump = |cluster: &TestCluster| {
        let text = cluster.client("pg_dumpall").ok();
        // The last minor releases write a random word against injection; tablespaces have moved.
        let equal = |line: &&str| !line.contains("restrict") && !line.starts_with("CREATE TABLESPACE");
        text.lines().filter(equal).map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(dump(original) == dump(restored), "pg_dumpall differs");
    check_sound(restored);
}

fn check_sound(restored: &TestCluster) {
    restored.psql("create extension amcheck");
    restored.client("pg_amcheck").args(["--all", "--heapallindexed", "--parent-check"]).ok();
}

fn restore_command(world: &World) -> String {
    format!("{} --config {} archive-get %f %p", world.program().display(), world.config().display())
}

/// Takes a backup and returns what it printed.
fn back_up(world: &World) -> serde_json::Value {
    serde_json::from_str(&world.bygone(["backup", "--type=full", "--json"]).ok()).expect("one JSON object")
}

fn label(report: &serde_json::Value) -> &str {
    report["label"].as_str().expect("a label")
}

/// Backs the cluster up, changes it, restores it, and compares.
fn there_and_back(world: &World, cluster: &TestCluster) {
    let repository = TestRepository::init(world, 1, cluster);
    cluster.psql("create table t as select n, repeat('x', n % 500) v from generate_series(1, 20000) n; create index on t (n)");
    cluster.psql("create table far (n int primary key) tablespace extra; insert into far select generate_series(1, 1000)");
    cluster.psql("create unlogged table fleeting (n int)");
    let report = back_up(world);
    assert_eq!(repository.backups(cluster), [label(&report)]);
    assert_eq!(report["bad_pages"], 0);

    cluster.psql("delete from t where n % 3 = 0; insert into far select generate_series(1001, 1100)");
    let last = cluster.switch_wal();
    cluster.wait_archived(&last);
    let restored = repository.restore(world, cluster, label(&report), "restored", &restore_command(world));
    check_restored(cluster, &restored);
    assert_eq!(restored.psql("select count(*) from fleeting"), "0");
}

#[test]
fn backup_of_every_version_restores_to_an_equal_cluster() {
    for major in MAJORS.into_iter().filter(|major| !postgres_is_missing(*major)) {
        let world = World::new();
        let cluster = TestCluster::builder(major).archiving(&world).checksums(major % 2 == 0).tablespace("extra").start(&world);
        there_and_back(&world, &cluster);
    }
}

#[test]
fn backups_with_small_and_large_wal_segments_restore_to_equal_clusters() {
    for (major, segment_mb) in [(15, 1), (17, 64)] {
        if postgres_is_missing(major) {
            continue;
        }
        let world = World::new();
        let builder = TestCluster::builder(major).archiving(&world).wal_segment_mb(segment_mb).conf("min_wal_size = 128MB");
        let cluster = builder.conf("max_wal_size = 256MB").tablespace("extra").start(&world);
        there_and_back(&world, &cluster);
    }
}

/// A cluster of 15 that archives, and a repository for it.
fn started(world: &World, change: impl FnOnce(Builder) -> Builder) -> Option<(TestCluster, TestRepository)> {
    if postgres_is_missing(15) {
        return None;
    }
    let cluster = change(TestCluster::builder(15).archiving(world)).start(world);
    let repository = TestRepository::init(world, 1, &cluster);
    Some((cluster, repository))
}

#[test]
fn in_place_tablespace_and_linked_pg_wal_are_backed_up() {
    let world = World::new();
    let Some((cluster, repository)) = started(&world, |b| b) else { return };
    cluster.psql("set allow_in_place_tablespaces = on; create tablespace here location ''");
    cluster.psql("create table there (n int) tablespace here; insert into there values (7)");
    cluster.stop();
    let moved = world.dir("moved_wal");
    std::fs::remove_dir(&moved).expect("an empty directory");
    fs_err::rename(cluster.wal_dir(), &moved).expect("same file system");
    fs_err::os::unix::fs::symlink(&moved, cluster.wal_dir()).expect("link");
    cluster.start();
    let report = back_up(&world);
    assert_eq!(report["warnings"], serde_json::json!([]));
    let manifest = repository.manifest(&cluster, label(&report));
    assert!(manifest.header.tablespaces.iter().any(|t| t.in_place && t.name == "here"));
    assert_eq!(manifest.find("pg_wal".as_ref()).expect("pg_wal").kind, EntryKind::Directory);
    let restored = repository.restore(&world, &cluster, label(&report), "restored", &restore_command(&world));
    restored.configure(&["allow_in_place_tablespaces = on"]);
    restored.start();
    wait_until("the end of recovery", Duration::from_secs(60), || restored.psql("select pg_is_in_recovery()") == "f");
    assert_eq!(restored.psql("select n from there"), "7");
}

/// Tells others to end when it goes away, a panic included: a scope waits for its threads.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn backup_of_a_busy_cluster_is_sound() {
    let world = World::new();
    let Some((cluster, repository)) = started(&world, |b| b.checksums(true).conf("autovacuum_naptime = 1")) else { return };
    cluster.client("pgbench").args(["-i", "-q", "-s", "5"]).ok();
    let done = AtomicBool::new(false);
    let report = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                cluster.psql("create table if not exists gone as select generate_series(1, 3000) n; truncate gone; drop table gone");
            }
        });
        scope.spawn(|| cluster.client("pgbench").args(["-n", "-c", "2", "-T", "4"]).ok());
        std::thread::sleep(Duration::from_millis(500));
        let _ends = Ends(&done);
        back_up(&world)
    });
    assert_eq!(report["bad_pages"], 0, "torn pages are no bad pages");
    cluster.wait_archived(&cluster.switch_wal());
    let restored = repository.restore(&world, &cluster, label(&report), "restored", &restore_command(&world));
    check_restored(&cluster, &restored);
}

#[test]
fn page_with_a_wrong_checksum_is_listed_and_the_backup_is_taken() {
    let world = World::new();
    let Some((cluster, repository)) = started(&world, |b| b.checksums(true)) else { return };
    cluster.psql("create table t as select generate_series(1, 20000) n; checkpoint");
    let path = cluster.psql("select pg_relation_filepath('t')");
    let file = fs_err::OpenOptions::new().write(true).open(cluster.data().join(&path)).expect("the table's file");
    file.file().write_all_at(b"damage", 3 * 8192 + 4000).expect("written");
    let ran = world.bygone(["backup", "--json"]).run().says(&format!("{path} has pages with wrong checksums: block 3")).exits(0);
    let report: serde_json::Value = serde_json::from_str(&ran.ok()).expect("one JSON object");
    assert_eq!(report["bad_pages"], 1);
    let manifest = repository.manifest(&cluster, label(&report));
    let EntryKind::File(data) = &manifest.find(path.as_ref()).expect("the table's file").kind else { panic!("{path} is a file") };
    assert_eq!(data.bad_pages, [3]);
}

/// Starts a backup that cannot end, because no WAL is archived, and returns once its data is in the repository.
fn endless_backup(world: &World, cluster: &TestCluster, repository: &TestRepository) -> Child {
    cluster.configure(&["archive_command = 'false'"]);
    cluster.reload();
    let mut command = world.bygone(["backup", "--archive-timeout", "600"]).command();
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program can be run");
    wait_until("the copy", Duration::from_secs(60), || {
        objects(repository, cluster) > 0 && cluster.log_text().contains("checkpoint complete")
    });
    wait_until("the end of the copy", Duration::from_secs(60), || {
        cluster.psql("select count(*) from pg_stat_activity where application_name = 'bygone' and query like '%stop%'") == "1"
    });
    child
}

/// Data objects in the repository.
fn objects(repository: &TestRepository, cluster: &TestCluster) -> usize {
    let mut count = 0;
    let prefix = folder(cluster).backups();
    let listed = repository.open().store().list(&prefix, None, &mut |meta| {
        count += usize::from(meta.key.contains("/data/"));
        true
    });
    listed.expect("the repository can be listed");
    count
}

#[test]
fn interrupted_backup_leaves_no_trace_and_owes_nothing() {
    let world = World::new();
    let Some((cluster, repository)) = started(&world, |b| b) else { return };
    let mut child = endless_backup(&world, &cluster, &repository);
    super::harness::mount::signal(&child, "-TERM");
    let status = child.wait().expect("the child can be waited for");
    assert_eq!(status.code(), Some(1));
    assert_eq!(objects(&repository, &cluster), 0);
    assert_eq!(repository.backups(&cluster), Vec::<String>::new());
    cluster.configure(&[&format!(
        "archive_command = '{} --config {} archive-push %p'",
        world.program().display(),
        world.config().display()
    )]);
    cluster.reload();
    let report = back_up(&world);
    assert_eq!(repository.backups(&cluster), [label(&report)]);
}

#[test]
fn killed_backup_is_tidied_up_by_the_next_one() {
    let world = World::new();
    let Some((cluster, repository)) = started(&world, |b| b) else { return };
    let mut child = endless_backup(&world, &cluster, &repository);
    world.bygone(["backup"]).fails().says("another backup is under way").says("detail: process ");
    super::harness::mount::signal(&child, "-KILL");
    child.wait().expect("the child can be waited for");
    assert!(objects(&repository, &cluster) > 0);
    assert_eq!(repository.backups(&cluster), Vec::<String>::new());
    archive_again(&world, &cluster);
    let report = back_up(&world);
    assert_eq!(repository.backups(&cluster), [label(&report)]);
    let objects_of_it = repository.manifest(&cluster, label(&report)).header.objects;
    assert_eq!(objects(&repository, &cluster), usize::try_from(objects_of_it).expect("few"), "those of the killed one are gone");
}

fn archive_again(world: &World, cluster: &TestCluster) {
    cluster.configure(&[&format!(
        "archive_command = '{} --config {} archive-push %p'",
        world.program().display(),
        world.config().display()
    )]);
    cluster.reload();
}

#[test]
fn backup_whose_wal_does_not_arrive_is_no_backup() {
    let world = World::new();
    let Some((cluster, repository)) = started(&world, |b| b) else { return };
    cluster.configure(&["archive_command = 'false'"]);
    cluster.reload();
    world.bygone(["backup", "--archive-timeout", "1"]).fails().says("did not arrive").says("archive_command");
    assert_eq!(objects(&repository, &cluster), 0);
}

#[test]
fn backup_of_something_else_than_the_configured_cluster_is_refused() {
    let world = World::new();
    let Some((cluster, repository)) = started(&world, |b| b) else { return };
    // A clone, by its marker.
    world.file("main/bygone.clone", "");
    world.bygone(["backup"]).fails().says("belongs to a clone");
    fs_err::remove_file(cluster.data().join("bygone.clone")).expect("the marker");
    // A running copy of the cluster, which has the same identifier: the directory is the copy's, the connection the original's.
    let config = fs_err::read_to_string(world.config()).expect("configuration");
    let report = back_up(&world);
    let copy = repository.restore(&world, &cluster, label(&report), "copy", &restore_command(&world));
    copy.start();
    world.file(
        "bygone.toml",
        config.replace(&format!("data-directory = {:?}", cluster.data()), &format!("data-directory = {:?}", copy.data())),
    );
    world.bygone(["backup"]).fails().says("is not the directory of the server");
    // Another cluster under the same name.
    let other = TestCluster::builder(15).name("other").archiving(&world).start(&world);
    let other_config = config.replace(&format!("{:?}", cluster.data()), &format!("{:?}", other.data()));
    world.file("bygone.toml", other_config.replace(&cluster.connection(), &other.connection()));
    world.bygone(["backup"]).fails().says("knows no cluster").says("Is this a copy of another cluster");
}

#[test]
fn one_run_fills_all_repositories_and_names_the_one_that_fails() {
    let world = World::new();
    let Some((cluster, first)) = started(&world, |b| b) else { return };
    let second = TestRepository::init(&world, 2, &cluster);
    let report = back_up(&world);
    let stored = (first.backups(&cluster), second.backups(&cluster));
    assert_eq!(stored, (vec![label(&report).to_owned()], vec![label(&report).to_owned()]));
    let (one, two) = (first.manifest(&cluster, label(&report)), second.manifest(&cluster, label(&report)));
    assert_eq!(one.entries, two.entries);
    // The second becomes read-only: the first still gets its backup, and the exit code tells.
    let config = fs_err::read_to_string(world.config()).expect("configuration");
    world.file("bygone.toml", config.replace("[repo.2]\n", "[repo.2]\nrequired = false\n"));
    let backups = second.path.join(folder(&cluster).backups());
    super::harness::Runner::new("chmod").by_root().args(["-R", "a-w"]).arg(&backups).ok();
    let ran = world.bygone(["backup", "--json"]).run();
    let ran = ran.says("repo2").exits(2);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).expect("one JSON object");
    assert_eq!(first.backups(&cluster).len(), 2);
    assert_eq!(second.backups(&cluster).len(), 1);
    assert_eq!(report["failed"].as_array().map(Vec::len), Some(1));
}
