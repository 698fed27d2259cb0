//! What Bygone stored, `scripts/rescue.py` brings back without Bygone, from docs/format.md alone, and Postgres starts on it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::harness::repository::TestRepository;
use super::harness::tools::is_missing;
use super::harness::{Runner, TestCluster, World, postgres_is_missing, wait_until};

const PYTHON: &str = "/usr/bin/python3";

/// Puts the script where user `postgres` can run it. `None` (said aloud) without the Python packages that it needs.
fn script(world: &World) -> Option<PathBuf> {
    let imported = Runner::new(PYTHON).args(["-c", "import zstandard, cryptography, argon2, crc32c"]).run();
    if imported.code != Some(0) {
        is_missing("what rescue.py imports", Path::new("/missing"), "scripts/install-rescue");
        return None;
    }
    let script = fs_err::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/rescue.py")).expect("the script");
    Some(world.file("rescue.py", script))
}

/// One row: a version, the size of its WAL segments, and the repository's secret.
fn there_and_back_without_bygone(major: u16, segment_mb: u32, secret: Option<&str>) {
    let world = World::new();
    let Some(script) = script(&world).filter(|_| !postgres_is_missing(major)) else { return };
    let rescue = |command: &str| Runner::new(PYTHON).arg(&script).arg(command).env("BYGONE_KEY", secret.unwrap_or_default());
    let builder = TestCluster::builder(major).archiving(&world).wal_segment_mb(segment_mb).conf("min_wal_size = 128MB");
    let cluster = builder.conf("max_wal_size = 256MB").tablespace("extra").start(&world);
    let repository = TestRepository::init_with(&world, 1, &cluster, secret);
    cluster.psql("create table t as select n, md5(n::text) v from generate_series(1, 5000) n; create index on t (n)");
    cluster.psql("create table far (n int primary key) tablespace extra; insert into far select generate_series(1, 1000)");
    let report: serde_json::Value = serde_json::from_str(&world.bygone(["backup", "--json"]).ok()).expect("one JSON object");
    cluster.psql("delete from t where n % 3 = 0; insert into far select generate_series(1001, 1100)");
    let last = cluster.switch_wal();
    cluster.wait_archived(&last);

    let listed = rescue("list").arg(&repository.path).ok();
    assert!(listed.contains(report["label"].as_str().expect("a label")) && listed.contains(&last), "{listed}");
    let (data, wal, spaces) = (world.join("rescued"), world.join("rescued_wal"), world.join("rescued_spaces"));
    let to = [Path::new("--to"), &data, Path::new("--wal-to"), &wal, Path::new("--tablespaces-to"), &spaces];
    rescue("restore").arg(&repository.path).args(to).ok();

    let rescued = TestCluster::existing(&world, major, "rescued", &data);
    rescued.start();
    wait_until("the end of recovery", Duration::from_secs(60), || rescued.psql("select pg_is_in_recovery()") == "f");
    for sum in ["select count(*), sum(hashtext(v)) from t", "select count(*), sum(n) from far"] {
        assert_eq!(rescued.psql(sum), cluster.psql(sum), "{sum}");
    }
    assert_eq!(rescued.psql("show archive_mode"), "off");
    rescued.psql("create extension amcheck");
    rescued.client("pg_amcheck").args(["--all", "--heapallindexed"]).ok();
}

#[test]
fn rescue_restores_an_unencrypted_repository() {
    there_and_back_without_bygone(14, 16, None);
}

#[test]
fn rescue_restores_a_repository_that_is_encrypted_with_a_random_key() {
    there_and_back_without_bygone(16, 64, Some("3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f0123456789abcdef01234567"));
}

#[test]
fn rescue_restores_a_repository_that_is_encrypted_with_a_passphrase() {
    there_and_back_without_bygone(18, 1, Some("correct horse battery staple"));
}

#[test]
fn rescue_names_what_is_wrong_and_writes_nothing_over() {
    let world = World::new();
    let Some(script) = script(&world).filter(|_| !postgres_is_missing(15)) else { return };
    let rescue = |command: &str, secret: &str| Runner::new(PYTHON).arg(&script).arg(command).env("BYGONE_KEY", secret);
    let cluster = TestCluster::builder(15).archiving(&world).start(&world);
    let right = "3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f3f0123456789abcdef01234567";
    let repository = TestRepository::init_with(&world, 1, &cluster, Some(right));
    world.bygone(["backup"]).ok();

    let refused = |ran: super::harness::Ran, what: &str| assert!(ran.code == Some(1) && ran.stderr.contains(what), "{ran}");
    refused(rescue("list", "wrong").arg(&repository.path).run(), "the secret does not fit");
    refused(rescue("list", "").arg(&repository.path).run(), "give --key-file");
    refused(rescue("list", right).arg(world.path()).run(), "there is no repository");
    let restore = || rescue("restore", right).arg(&repository.path).arg("--wal-to").arg(world.join("wal")).arg("--to");
    refused(restore().arg(cluster.data()).run(), "is not empty");

    let labels = repository.backups(&cluster);
    let label = labels.first().expect("one backup");
    let data = super::harness::repository::folder(&cluster).backup_data(label, 0);
    let stored = repository.path.join(&data);
    let mut bytes = fs_err::read(&stored).expect("a data object");
    bytes[200] ^= 1;
    fs_err::remove_file(&stored).expect("the tests may");
    fs_err::write(&stored, bytes).expect("the tests may");
    refused(restore().arg(world.join("damaged")).run(), &format!("{data}: chunk 0 is damaged"));
}
