//! `archive-push` and `archive-get` as Postgres calls them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use super::harness::repository::{TestRepository, folder};
use super::harness::{Runner, TestCluster, World, postgres_is_missing, wait_until};

fn push_command(world: &World) -> String {
    format!("archive_command = '{} --config {} archive-push %p'", world.program().display(), world.config().display())
}

/// Runs `bygone` as Postgres does: inside the data directory.
fn inside(world: &World, cluster: &TestCluster, args: &[&str]) -> Runner {
    world.bygone(args).current_dir(cluster.data())
}

fn segments(repository: &TestRepository, cluster: &TestCluster) -> Vec<String> {
    let mut names = Vec::new();
    let listed = repository.open().store().list(&folder(cluster).wal(), None, &mut |meta| {
        names.extend(meta.key.rsplit('/').next().map(str::to_owned));
        true
    });
    listed.expect("the repository can be listed");
    names
}

#[test]
fn backlog_is_drained_without_a_gap() {
    if postgres_is_missing(15) {
        return;
    }
    let world = World::new();
    let builder = TestCluster::builder(15).wal_segment_mb(1).conf("wal_keep_size = 100MB");
    let cluster = builder.conf("archive_mode = on").conf("archive_command = 'false'").start(&world);
    let repository = TestRepository::init(&world, 1, &cluster);
    let made: Vec<String> = (0..40).map(|_| cluster.switch_wal()).collect();
    cluster.configure(&[&push_command(&world)]);
    cluster.reload();
    cluster.wait_archived(made.last().expect("there are some"));
    let stored = segments(&repository, &cluster);
    assert!(made.iter().all(|name| stored.contains(name)), "{stored:?}");
    wait_until("Postgres to mark all done", Duration::from_secs(30), || {
        let status = fs_err::read_dir(cluster.wal_dir().join("archive_status")).expect("archive_status");
        !status.filter_map(Result::ok).any(|e| e.file_name().to_string_lossy().ends_with(".ready"))
    });
    // What came back is what went in.
    let name = &made[20];
    let dest = world.join("fetched");
    inside(&world, &cluster, &["archive-get", name, dest.to_str().expect("UTF-8")]).ok();
    let original = fs_err::read(cluster.wal_dir().join(name)).expect("segment");
    assert!(fs_err::read(dest).expect("fetched") == original, "{name} differs");
}

#[test]
fn other_content_other_cluster_and_a_clone_are_refused_by_name() {
    if postgres_is_missing(15) {
        return;
    }
    let world = World::new();
    let cluster = TestCluster::builder(15).archiving(&world).start(&world);
    let repository = TestRepository::init(&world, 1, &cluster);
    let name = cluster.switch_wal();
    cluster.wait_archived(&name);
    let path = format!("pg_wal/{name}");
    inside(&world, &cluster, &["archive-push", &path]).ok();
    let mut bytes = fs_err::read(cluster.data().join(&path)).expect("segment");
    bytes[1_000_000] ^= 1;
    world.file(&format!("main/{path}"), bytes);
    inside(&world, &cluster, &["archive-push", &path]).fails().says(&name).says("with other content");

    let other = TestCluster::builder(15).name("other").archiving(&world).start(&world);
    let name = other.switch_wal();
    let refused = inside(&world, &other, &["archive-push", &format!("pg_wal/{name}")]).fails();
    refused.says("knows no cluster").says("Is this a copy of another cluster");
    let before = segments(&repository, &cluster).len();
    world.file("main/bygone.clone", "");
    let name = cluster.switch_wal();
    inside(&world, &cluster, &["archive-push", &format!("pg_wal/{name}")]).fails().says("belongs to a clone");
    assert_eq!(segments(&repository, &cluster).len(), before);
}

#[test]
fn a_fetch_that_cannot_say_why_it_failed_fails_all_the_same() {
    let world = World::new();
    let run = |env: &[u8], to: &str| {
        let mut command = std::process::Command::new("sh");
        command.arg("-c").arg(format!("{} archive-get 000000010000000000000001 there 2>{to}", world.program().display()));
        command.env("BYGONE_CONFIG", "/nowhere.toml").env("BYGONE_LOG", "trace");
        command.env("SAID", OsStr::from_bytes(env));
        command.status().expect("sh runs").code()
    };
    assert_eq!(run(b"text", "/dev/full"), Some(130));
    assert_eq!(run(b"caf\xE9", "/dev/null"), Some(130));
}

#[test]
fn only_a_file_that_is_not_there_exits_with_one() {
    if postgres_is_missing(15) {
        return;
    }
    let world = World::new();
    let cluster = TestCluster::builder(15).archiving(&world).start(&world);
    let repository = TestRepository::init(&world, 1, &cluster);
    let name = cluster.switch_wal();
    cluster.wait_archived(&name);
    let dest = world.join("fetched");
    let get = |name: &str| inside(&world, &cluster, &["archive-get", name, dest.to_str().expect("UTF-8")]).run();
    get(&name).exits(0);
    get("000000010000000900000000").exits(1);
    get("0000000A.history").exits(1);
    get("nonsense").exits(130);
    // A wrong key.
    let key = fs_err::read_to_string(world.join("repo1.key")).expect("key");
    world.file("repo1.key", key.replace("3f3f", "4e4e"));
    get(&name).exits(130).says("the secret does not fit");
    world.file("repo1.key", key);
    // A damaged object.
    let object = repository.path.join(folder(&cluster).segment_file(&name));
    let mut bytes = fs_err::read(&object).expect("object");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    super::harness::world::set_mode(&object, 0o600);
    fs_err::write(&object, bytes).expect("damaged");
    get(&name).exits(130).says(&name);
    // No repository at all.
    fs_err::rename(&repository.path, world.join("away")).expect("moved");
    get(&name).exits(130);
}
