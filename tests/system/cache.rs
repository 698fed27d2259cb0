//! What was fetched from an object store is kept on disk, for every process of the user, within its bounds, and believed only if it is sound.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::damage::proxy::Proxy;
use super::harness::mount::MountGuard;
use super::harness::tools::fuse_is_missing;
use super::harness::{Runner, TestCluster, World, postgres_is_missing};
use super::s3::{SECRET, configure_at, seaweed};

/// A cluster whose archive is in a bucket behind a proxy that counts.
struct Bucket {
    world: World,
    proxy: Proxy,
    /// A table's first file.
    table: String,
    /// Name of the WAL segment that is not archived yet, in lower case.
    next_segment: String,
    /// What the table's file is at `latest`.
    expected: Vec<u8>,
}

impl Bucket {
    /// `rows` rows of a kilobyte that hardly compresses, some of them changed since the backup.
    fn new(rows: u32) -> Bucket {
        let world = World::new();
        let proxy = Proxy::start(&seaweed::seaweed().http);
        let push = format!("{}={} {} --config {} archive-push %p", SECRET.0, SECRET.1, world.program().display(), world.config().display());
        let builder = TestCluster::builder(15).archiving(&world).checksums(true).conf("autovacuum = off");
        let cluster = builder.conf(&format!("archive_command = '{push}'")).start(&world);
        configure_at(&world, &cluster, &format!("endpoint = {:?}", proxy.url()));
        let bygone = |args: &[&str]| world.bygone(args).env(SECRET.0, SECRET.1).by_root();
        bygone(&["init"]).ok();
        let text = "(select string_agg(md5(random()::text || n || g), '') from generate_series(1, 30) g)";
        cluster.psql(&format!(
            "create table t as select n, {text} v from generate_series(1, {rows}) n; alter table t alter v set storage plain"
        ));
        cluster.psql("vacuum (freeze) t; checkpoint");
        bygone(&["backup"]).ok();
        cluster.psql("update t set n = -n where n < 100");
        cluster.wait_archived(&cluster.switch_wal());
        let table = cluster.psql("select pg_relation_filepath('t')");
        let next_segment = cluster.psql("select pg_walfile_name(pg_current_wal_insert_lsn())").to_lowercase();
        let bucket = Bucket { world, proxy, table, next_segment, expected: Vec::new() };
        let expected = bucket.cat(&[]);
        assert!(expected.len() > 1 << 20);
        Bucket { expected, ..bucket }
    }

    fn bygone(&self, args: &[&str]) -> Runner {
        self.world.bygone(args).env(SECRET.0, SECRET.1).by_root()
    }

    fn cat_of(&self, settings: &[(&str, &str)]) -> Runner {
        settings.iter().fold(self.bygone(&["cat", "--at", "latest", &self.table]), |runner, (name, value)| runner.env(name, value))
    }

    fn cat(&self, settings: &[(&str, &str)]) -> Vec<u8> {
        let output = self.cat_of(settings).command().output().expect("cat runs");
        assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// What the service was asked for to get the table, which must be as it should be.
    fn requests(&self, settings: &[(&str, &str)]) -> Vec<String> {
        drop(self.proxy.take_ranges());
        let found = self.cat(settings);
        assert!(found == self.expected, "another table of {} bytes instead of {}", found.len(), self.expected.len());
        let asked = self.proxy.take_ranges().into_iter();
        // Keys may be changed and WAL may be added at any time: these are always asked for.
        asked.filter(|request| !["/bygone.json", "/key/", self.next_segment.as_str()].iter().any(|part| request.contains(part))).collect()
    }

    fn cache(&self) -> PathBuf {
        self.world.join("cache/bygone")
    }
}

const NONE: [&str; 0] = [];

fn files(dir: &Path) -> Vec<PathBuf> {
    let shards = fs_err::read_dir(dir).expect("a cache").map(|shard| shard.expect("a shard").path());
    shards.flat_map(|shard| fs_err::read_dir(shard).expect("a shard").map(|file| file.expect("a file").path())).collect()
}

fn cannot_run() -> bool {
    postgres_is_missing(15) || fuse_is_missing()
}

#[test]
fn what_was_fetched_once_is_not_fetched_again_and_damage_in_the_cache_does_not_matter() {
    if cannot_run() {
        return;
    }
    let bucket = Bucket::new(3000);
    assert_eq!(bucket.requests(&[]), NONE, "the cache has it");
    for (number, file) in files(&bucket.cache()).into_iter().enumerate() {
        let mut bytes = fs_err::read(&file).expect("a cached range");
        match number % 3 {
            0 => bytes.truncate(number % bytes.len()),
            1 => bytes.clear(),
            _ => {
                let at = number * 37 % bytes.len();
                bytes[at] ^= 0x10;
            }
        }
        fs_err::write(file, bytes).expect("a cached range");
    }
    assert!(bucket.requests(&[]).len() > 10, "nothing damaged is believed");
    assert_eq!(bucket.requests(&[]), NONE, "it was replaced");

    // A directory of one's own, made by several processes at a time.
    let other = bucket.world.join("other");
    let settings = [("BYGONE_CACHE_DIRECTORY", other.to_str().expect("UTF-8"))];
    let spawn = || bucket.cat_of(&settings).command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("cat runs");
    for child in [spawn(), spawn(), spawn()] {
        let output = child.wait_with_output().expect("it ends");
        assert!(output.stdout == bucket.expected, "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(bucket.requests(&settings), NONE);
}

#[test]
fn cache_survives_the_death_of_a_mount_that_fills_it() {
    if cannot_run() {
        return;
    }
    let bucket = Bucket::new(3000);
    let cache = bucket.cache();
    for after in [1, 20, 40] {
        fs_err::remove_dir_all(&cache).expect("a cache may be deleted at any moment");
        let dir = bucket.world.dir(&format!("mnt{after}"));
        let mount = MountGuard::start(&bucket.bygone(&["mount", "--foreground", "--at", "latest"]).arg(&dir), &dir);
        let file = dir.join(&bucket.table);
        let reader = std::thread::spawn(move || drop(fs_err::read(file)));
        super::harness::wait_until("the cache to fill", std::time::Duration::from_secs(30), || files(&cache).len() > after);
        mount.kill();
        reader.join().expect("the reader does not panic");
        drop(bucket.requests(&[]));
        assert_eq!(bucket.requests(&[]), NONE);
    }
}

#[test]
fn cache_stays_as_small_as_it_is_told_to() {
    if cannot_run() {
        return;
    }
    let bucket = Bucket::new(40_000);
    fs_err::remove_dir_all(bucket.cache()).expect("a cache may be deleted at any moment");
    let small = [("BYGONE_CACHE_SIZE_MB", "16")];
    for _ in 0..2 {
        assert!(bucket.requests(&small).len() > 10, "it does not fit");
        let bytes: u64 = files(&bucket.cache()).iter().map(|file| fs_err::metadata(file).expect("a cached range").len()).sum();
        assert!((8 << 20..20 << 20).contains(&bytes), "{bytes} bytes");
    }
}
