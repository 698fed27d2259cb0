//! The whole line on a real S3 service, over TLS with an authority of its own, encrypted: archive, back up, mount the past, start on it.

use std::time::Duration;

use super::harness::mount::MountGuard;
use super::harness::run::Runner;
use super::harness::tools::fuse_is_missing;
use super::harness::{MAJORS, TestCluster, World, postgres_is_missing, wait_until};

mod identity;

#[expect(clippy::unwrap_used, reason = "made for the tests of the store, where it is allowed")]
#[path = "../store/seaweed.rs"]
pub(crate) mod seaweed;

/// The variable that carries the secret half of the access key: no file does.
pub(crate) const SECRET: (&str, &str) = ("BYGONE_REPO_1_SECRET_ACCESS_KEY", seaweed::SECRET_KEY);

fn configure(world: &World, cluster: &TestCluster) {
    let server = seaweed::seaweed();
    let ca = world.file("ca.pem", fs_err::read(&server.ca_file).expect("the authority's certificate"));
    configure_at(world, cluster, &format!("endpoint = {:?}\nca-file = {ca:?}", server.https));
}

/// Configures a bucket as repository 1; `endpoint` is the lines that say where and how.
pub(crate) fn configure_at(world: &World, cluster: &TestCluster, endpoint: &str) {
    let key = world.file("repo1.key", "correct horse battery staple");
    let prefix = seaweed::settings("system").prefix;
    let text = format!(
        "[repo.1]\ntype = \"s3\"\nbucket = {:?}\npath = \"/{prefix}\"\n{endpoint}\npath-style = true\n\
         access-key-id = {:?}\nkey-file = {key:?}\n[cluster.main]\ndata-directory = {:?}\nconnection = {:?}\n",
        seaweed::BUCKET,
        seaweed::ACCESS_KEY,
        cluster.data(),
        cluster.connection(),
    );
    world.file("bygone.toml", text);
}

fn bygone(world: &World, args: &[&str]) -> Runner {
    world.bygone(args).env(SECRET.0, SECRET.1)
}

#[test]
fn moment_is_mounted_from_an_encrypted_bucket() {
    let major = MAJORS[3];
    if postgres_is_missing(major) || fuse_is_missing() {
        return;
    }
    let world = World::new();
    let push = format!("{}={} {} --config {} archive-push %p", SECRET.0, SECRET.1, world.program().display(), world.config().display());
    let builder = TestCluster::builder(major).archiving(&world).checksums(true);
    let cluster = builder.conf(&format!("archive_command = '{push}'")).start(&world);
    configure(&world, &cluster);
    bygone(&world, &["init"]).ok();
    bygone(&world, &["check"]).ok();
    bygone(&world, &["backup"]).ok();
    cluster.psql("create table t as select generate_series(1, 30000) n; create index on t (n)");
    let lsn = cluster.psql("select pg_current_wal_insert_lsn()");
    cluster.psql("drop table t");
    let segment = cluster.switch_wal();
    cluster.wait_archived(&segment);

    let dir = world.dir("mnt");
    let overlay = world.join("overlay");
    let at = format!("lsn:{lsn}");
    let mount = bygone(&world, &["mount", "--foreground", "--exclusive", "--at", &at, "--overlay"]).arg(&overlay).arg(&dir).by_root();
    let mount = MountGuard::start(&mount, &dir);
    let clone = TestCluster::existing(&world, major, "clone", mount.dir());
    clone.start();
    wait_until("an answer", Duration::from_secs(30), || clone.try_psql("select 1").code == Some(0));
    assert_eq!(clone.psql("select count(*), sum(n) from t"), "30000|450015000");
    clone.psql("create extension amcheck");
    assert_eq!(clone.psql("select bt_index_check('t_n_idx', true)"), "");
    clone.stop();
    assert_eq!(mount.terminate(), Some(0));

    // What was fetched is kept for the next mount, by this user alone, and as it is stored.
    let cache = world.join("cache/bygone");
    let mode = fs_err::metadata(&cache).expect("a cache").permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o700);
    let kept = Runner::new("find").by_root().arg(&cache).args(["-type", "f"]).ok().lines().count();
    assert!(kept > 10, "{kept} ranges are kept");
}

#[test]
fn dead_service_fails_archiving_in_the_time_set_and_says_which_setting() {
    let world = World::new();
    let key = world.file("repo1.key", "correct horse battery staple");
    world.file(
        "bygone.toml",
        format!(
            "[repo.1]\ntype = \"s3\"\nbucket = \"b\"\nendpoint = \"http://127.0.0.1:9\"\nregion = \"x\"\npath-style = true\ntimeout-s = 5\n\
             access-key-id = \"k\"\nkey-file = {key:?}\n[cluster.main]\ndata-directory = {:?}\n",
            world.path()
        ),
    );
    let started = std::time::Instant::now();
    bygone(&world, &["info"]).fails().says("does not answer").says("hint:");
    assert!(started.elapsed() < Duration::from_secs(55), "the default of repo.N.timeout-s is 60");
}
