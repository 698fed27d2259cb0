//! `check` follows one WAL segment all the way, and says what is wrong when it does not arrive.

use crate::harness::repository::TestRepository;
use crate::harness::{MAJORS, TestCluster, World, postgres_is_missing};

/// A cluster that archives into an encrypted repository.
fn archiving(major: u16) -> (World, TestCluster, TestRepository) {
    let world = World::new();
    let cluster = TestCluster::builder(major).archiving(&world).wal_segment_mb(1).start(&world);
    let repository = TestRepository::init(&world, 1, &cluster);
    (world, cluster, repository)
}

#[test]
fn check_reads_a_forced_segment_back_on_every_version() {
    for major in MAJORS.into_iter().filter(|major| !postgres_is_missing(*major)) {
        let (world, cluster, _repository) = archiving(major);
        let said: serde_json::Value = serde_json::from_str(&world.bygone(["check", "--json"]).ok()).unwrap();
        assert_eq!(said["read_back"][0]["compared"], true, "{said}");
        assert_eq!(said["read_back"][0]["bytes"], 1 << 20);
        cluster.wait_archived(said["segment"].as_str().unwrap());
        assert!(world.bygone(["check"]).ok().contains("the same as in pg_wal"));
    }
}

#[test]
fn check_says_which_setting_keeps_wal_from_being_archived() {
    if postgres_is_missing(15) {
        return;
    }
    let (world, cluster, _repository) = archiving(15);
    let check = || world.bygone(["check", "--timeout", "2"]).fails().exits(1);
    cluster.configure(&["archive_command = ''"]);
    cluster.reload();
    // A session sees the new value only after the reload has reached it.
    crate::harness::wait_until("the reload", std::time::Duration::from_secs(10), || cluster.psql("show archive_command").is_empty());
    check().says("no archive_command is set").says("archive-push %p");
    cluster.configure(&["archive_command = 'cp %p /dev/null'"]);
    cluster.reload();
    crate::harness::wait_until("the reload", std::time::Duration::from_secs(10), || !cluster.psql("show archive_command").is_empty());
    check().says("archived by something else").says("cp %p /dev/null");
    cluster.configure(&["archive_command = 'false archive-push'"]);
    cluster.reload();
    crate::harness::wait_until("the reload", std::time::Duration::from_secs(10), || {
        cluster.psql("show archive_command").starts_with("false")
    });
    check().says("was not archived within 2 s").says("last failed 0000");
    cluster.configure(&["archive_command = 'true archive-push'"]);
    cluster.reload();
    crate::harness::wait_until("the reload", std::time::Duration::from_secs(10), || {
        cluster.psql("show archive_command").starts_with("true")
    });
    check().says("Postgres has archived WAL segment").says("another configuration");
    cluster.configure(&["archive_mode = off"]);
    cluster.stop();
    cluster.start();
    check().says("archive_mode is off");
}

#[test]
fn check_says_what_is_wrong_with_cluster_key_and_repository() {
    if postgres_is_missing(15) {
        return;
    }
    let (world, _cluster, repository) = archiving(15);
    let other = TestCluster::builder(15).name("other").start(&world);
    let check = || world.bygone(["check", "--timeout", "2"]);
    let wrong = |name: &str, value: &str, says: &str| {
        check().env(name, value).fails().exits(1).says(says);
    };
    wrong("BYGONE_CLUSTER_MAIN_CONNECTION", &other.connection(), "leads to another cluster");
    wrong("BYGONE_CLUSTER_MAIN_CONNECTION", "host=/nowhere user=postgres", "no connection to the server");
    wrong("BYGONE_CLUSTER_MAIN_DATA_DIRECTORY", other.data().to_str().unwrap(), "system identifier");
    wrong("BYGONE_REPO_1_KEY", "another passphrase", "key");
    wrong("BYGONE_REPO_1_PATH", world.dir("empty").to_str().unwrap(), "there is no repository");
    wrong("BYGONE_REPO_1_KEY_FILE", "/nowhere.key", "key file /nowhere.key cannot be read");
    // Root may write anywhere, user postgres may not.
    crate::harness::world::set_mode(&repository.path, 0o500);
    let ran = check().fails().exits(1);
    crate::harness::world::set_mode(&repository.path, 0o700);
    ran.says("is denied");
}

#[test]
fn a_password_comes_from_the_password_file_as_libpq_has_it() {
    if postgres_is_missing(15) {
        return;
    }
    let (world, cluster, _repository) = archiving(15);
    cluster.psql("create role guarded superuser login password 'correct:horse'");
    let hba = cluster.data().join("pg_hba.conf");
    let rules = fs_err::read_to_string(&hba).unwrap();
    fs_err::write(&hba, format!("local all guarded scram-sha-256\n{rules}")).unwrap();
    cluster.reload();
    let file = world.join("passwords");
    fs_err::write(&file, "*:*:*:another:no\n*:*:postgres:guarded:correct\\:horse\n").unwrap();
    crate::harness::world::set_mode(&file, 0o600);
    let check = |file: &std::path::Path| {
        let connection = format!("host={} user=guarded", cluster.socket_dir().display());
        world.bygone(["check"]).by_root().env("PGPASSFILE", file.to_str().unwrap()).env("BYGONE_CLUSTER_MAIN_CONNECTION", &connection)
    };
    crate::harness::wait_until("the new rule", std::time::Duration::from_secs(10), || check(&world.join("none")).run().code != Some(0));
    check(&world.join("none")).fails().exits(1).says("no connection to the server").says("~/.pgpass");
    assert!(check(&file).ok().contains("the same as in pg_wal"));
    check(&world.join("none")).env("PGPASSWORD", "correct:horse").ok();
    crate::harness::world::set_mode(&file, 0o644);
    check(&file).fails().exits(1).says("chmod 0600");
}

#[test]
fn check_fails_for_wal_that_is_missing_behind_the_newest_backup() {
    if postgres_is_missing(15) {
        return;
    }
    let (world, cluster, repository) = archiving(15);
    world.bygone(["backup"]).ok();
    let made: Vec<String> = (0..4).map(|_| cluster.switch_wal()).collect();
    cluster.wait_archived(&made[3]);
    world.bygone(["check"]).ok();
    made[1..3].iter().for_each(|name| repository.remove_segment(&cluster, name));
    let ran = world.bygone(["check", "--json"]).fails().exits(1);
    let ran = ran.says(&format!("missing from directory {}: {} to {}", repository.path.display(), made[1], made[2])).says("take a backup");
    assert!(ran.stdout.contains("\"compared\":true"), "the rest is told all the same: {ran}");
    world.bygone(["backup"]).ok();
    world.bygone(["check"]).ok();
}
