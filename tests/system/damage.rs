//! Whatever is damaged, missing, full or busy is named, nothing is lost by it, and no page is ever made up.

pub(crate) mod proxy;

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bygone::pg::{Lsn, Timeline};
use bygone::repo::manifest::{EntryKind, Manifest};
use bygone::repo::{ObjectKind, Stream};

use super::harness::mount::MountGuard;
use super::harness::repository::{TestRepository, folder};
use super::harness::run::is_root;
use super::harness::tools::fuse_is_missing;
use super::harness::{Runner, TestCluster, World, postgres_is_missing, wait_until};
use proxy::Proxy;

/// A cluster of 15 with a table that was copied and then changed, and its archive.
struct Past {
    world: World,
    cluster: TestCluster,
    repository: TestRepository,
    label: String,
    /// The table's first file.
    table: String,
    /// Segments that were filled since the backup, in order.
    segments: Vec<String>,
    /// A position after each of them.
    lsns: Vec<String>,
}

impl Past {
    fn new() -> Past {
        let world = World::new();
        let cluster = TestCluster::builder(15).archiving(&world).checksums(true).conf("autovacuum = off").start(&world);
        let repository = TestRepository::init(&world, 1, &cluster);
        cluster.psql("create table t as select n, repeat(md5(n::text), 4) v from generate_series(1, 20000) n");
        cluster.psql("create table other as select * from t; checkpoint");
        let table = cluster.psql("select pg_relation_filepath('t')");
        let report: serde_json::Value = serde_json::from_str(&world.bygone(["backup", "--json"]).ok()).expect("one JSON object");
        let label = report["label"].as_str().expect("a label").to_owned();
        let (mut segments, mut lsns) = (Vec::new(), Vec::new());
        for round in 0..4 {
            cluster.psql(&format!("update t set v = '{round}' where n <= 100; create table r{round} (n int); checkpoint"));
            lsns.push(cluster.current_lsn());
            segments.push(cluster.switch_wal());
        }
        cluster.wait_archived(segments.last().expect("there are some"));
        Past { world, cluster, repository, label, table, segments, lsns }
    }

    fn ls(&self, at: &str) -> Runner {
        self.world.bygone(["ls", "--exclusive", "--at", &format!("lsn:{at}")])
    }

    fn cat(&self, args: &[&str]) -> Runner {
        self.world.bygone(["cat"]).args(args)
    }

    fn object(&self, key: &str) -> PathBuf {
        self.repository.path.join(key)
    }

    fn segment(&self, index: usize) -> PathBuf {
        self.object(&folder(&self.cluster).segment_file(&self.segments[index]))
    }

    fn manifest(&self) -> PathBuf {
        self.object(&folder(&self.cluster).manifest(&self.label))
    }

    /// Where the stored bytes lie from which a block of the table is read: the object's key, its file, and a byte in the middle of the chunk.
    fn copied_block(&self, block: u64) -> (String, PathBuf, u64) {
        let manifest = self.repository.manifest(&self.cluster, &self.label);
        let EntryKind::File(data) = &manifest.find(self.table.as_ref()).expect("the table was copied").kind else { panic!("a file") };
        let place = data.place.expect("it is not empty");
        let key = folder(&self.cluster).backup_data(&self.label, place.object);
        let object = self.repository.open().open_object(&key, ObjectKind::BackupData).expect("the object opens");
        let from = place.offset + block * 8192;
        let stored = object.stored_range(Stream::Main, from..from + 8192).expect("the block is in it");
        (key.clone(), self.object(&key), u64::midpoint(stored.start, stored.end))
    }

    fn mount(&self, name: &str) -> MountGuard {
        let dir = self.world.dir(name);
        let at = format!("lsn:{}", self.lsns[3]);
        let runner = self.world.bygone(["mount", "--foreground", "--exclusive", "--at", &at, "--overlay"]);
        MountGuard::start(&runner.arg(self.world.join(&format!("{name}.overlay"))).arg(&dir).by_root(), &dir)
    }
}

fn cannot_run() -> bool {
    postgres_is_missing(15) || fuse_is_missing()
}

/// Changes bytes of a file, and gives the old ones, to be written back.
fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let before = fs_err::read(path).expect("an object");
    let mut bytes = before.clone();
    change(&mut bytes);
    fs_err::write(path, bytes).expect("an object that may be written, by root at least");
    before
}

fn flip(at: u64) -> impl FnOnce(&mut Vec<u8>) {
    move |bytes| bytes[usize::try_from(at).expect("small")] ^= 1
}

#[test]
fn wrong_key_missing_key_and_missing_repository_are_told_apart() {
    if postgres_is_missing(15) {
        return;
    }
    let world = World::new();
    let cluster = TestCluster::builder(15).archiving(&world).start(&world);
    let repository = TestRepository::init(&world, 1, &cluster);
    for command in [&["info"][..], &["ls"], &["backup"], &["check"]] {
        let run = || world.bygone(command);
        run().env("BYGONE_REPO_1_KEY", "another passphrase").fails().says("the secret does not fit").says("hint:");
        run().env("BYGONE_REPO_1_KEY_FILE", "/nowhere.key").fails().says("key file /nowhere.key cannot be read").says("hint:");
        run().env("BYGONE_REPO_1_PATH", world.join("nowhere").to_str().expect("UTF-8")).fails().says("does not exist").says("hint:");
    }
    // No key is configured at all.
    let config = fs_err::read_to_string(world.config()).expect("the configuration");
    let without: Vec<&str> = config.lines().filter(|line| !line.starts_with("key-file")).collect();
    world.file("bygone.toml", without.join("\n"));
    world.bygone(["info"]).fails().says("key").says("hint:");
    world.file("bygone.toml", config);
    // The key itself is damaged, which is not the secret's fault.
    let key = repository.path.join("key/1-1.json");
    let before = change(&key, |bytes| {
        let at = bytes.windows(6).position(|w| w == b"\"tag\":").expect("a wrapped key has a tag") + 10;
        bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
    });
    let said = world.bygone(["info"]).fails().says("key/1-1.json");
    assert!(!said.stderr.contains("0123456789abcdef"), "the secret shows: {said}");
    fs_err::write(key, before).expect("mended");
    world.bygone(["info"]).ok();
}

#[test]
fn flipped_bit_and_a_cut_are_named_whatever_the_object() {
    if postgres_is_missing(15) {
        return;
    }
    let past = Past::new();
    let newest = past.lsns[3].clone();
    past.ls(&newest).ok();
    // A backup's data: the chunk is named, the rest is readable.
    let (key, path, at) = past.copied_block(200);
    let cat = || past.cat(&["--backup", &past.label, &past.table]);
    let before = change(&path, flip(at));
    cat().fails().says(&key).says("chunk").says("is damaged");
    past.cat(&["--backup", &past.label, "PG_VERSION"]).ok();
    fs_err::write(&path, &before[..before.len() - 1000]).expect("cut");
    cat().fails().says(&key);
    fs_err::write(&path, before).expect("mended");
    cat().ok();
    // A segment that the moment needs.
    let path = past.segment(1);
    let cut = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 2);
    let before = change(&path, cut);
    past.ls(&newest).fails().says(&past.segments[1]).says("hint:");
    past.ls(&past.lsns[0]).ok();
    fs_err::write(&path, before).expect("mended");
    // The manifest: the backup is no more, and says so.
    let path = past.manifest();
    for damage in [Box::new(flip(300)) as Box<dyn FnOnce(&mut Vec<u8>)>, Box::new(cut)] {
        let before = change(&path, damage);
        let said = past.world.bygone(["info"]).ok();
        assert!(said.contains(&format!("backup {} cannot be used", past.label)) && said.contains("damaged"), "{said}");
        past.world.bygone(["ls", "--backup", &past.label]).fails().says("manifest").says("damaged");
        past.ls(&newest).fails().says("no backup of this cluster that can be used").says(&past.label).says("hint:");
        fs_err::write(&path, before).expect("mended");
    }
    past.ls(&newest).ok();
    damaged_history(&past);
    damaged_papers(&past);
}

/// The documents without which nothing is found: each says its own name, damaged or cut.
fn damaged_papers(past: &Past) {
    let identity = folder(&past.cluster).identity();
    for key in ["bygone.json", "key/1-1.json", &identity] {
        let path = past.object(key);
        for damage in [Box::new(flip(40)) as Box<dyn FnOnce(&mut Vec<u8>)>, Box::new(|bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 2))]
        {
            let before = change(&path, damage);
            past.ls(&past.lsns[3]).fails().says(key);
            past.world.bygone(["info"]).fails().says(key);
            fs_err::write(&path, before).expect("mended");
        }
    }
    past.ls(&past.lsns[3]).ok();
}

#[test]
fn segment_with_any_part_damaged_stops_recovery_and_no_moment_behind_it_is_made_up() {
    if postgres_is_missing(15) {
        return;
    }
    let past = Past::new();
    let (name, path) = (&past.segments[1], past.segment(1));
    let fetched = past.world.join("fetched");
    let get = || past.world.bygone(["archive-get", name, fetched.to_str().expect("UTF-8")]).current_dir(past.cluster.data()).run();
    let len = fs_err::metadata(&path).expect("the segment").len();
    // From the header over the WAL and its index to the chunk table and the footer.
    let places = (0..16).map(|part| part * len / 16).chain([len - 1]).map(|at| Box::new(flip(at)) as Box<dyn FnOnce(&mut Vec<u8>)>);
    let cuts = [0, 10, len / 2, len - 1].map(|to| {
        let to = usize::try_from(to).expect("small");
        Box::new(move |bytes: &mut Vec<u8>| bytes.truncate(to)) as Box<dyn FnOnce(&mut Vec<u8>)>
    });
    let expected = {
        get().exits(0);
        fs_err::read(&fetched).expect("fetched")
    };
    for (round, damage) in places.chain(cuts).enumerate() {
        let before = change(&path, damage);
        fs_err::remove_file(&fetched).expect("the last one");
        // What lies in the index alone is no part of the segment.
        let got = get();
        if got.code == Some(0) {
            assert!(fs_err::read(&fetched).expect("fetched") == expected, "round {round}: another segment was given out");
        } else {
            got.exits(130).says(name);
            fs_err::write(&fetched, "").expect("a file to remove");
        }
        let listed = past.ls(&past.lsns[3]).run();
        if listed.code != Some(0) {
            listed.says(name).says("hint:");
        }
        past.ls(&past.lsns[0]).ok();
        fs_err::write(&path, before).expect("mended");
    }
    past.ls(&past.lsns[3]).ok();
}

#[test]
fn repository_of_another_cluster_is_refused_by_name_and_not_written_to() {
    if cannot_run() {
        return;
    }
    let past = Past::new();
    let other = TestCluster::builder(15).name("other").archiving(&past.world).start(&past.world);
    let before = objects(&past.repository.path);
    // The other cluster's own configuration, with our repository in it.
    let config = past.world.file(
        "other.toml",
        fs_err::read_to_string(past.world.config())
            .expect("the configuration")
            .replace(past.cluster.data().to_str().expect("UTF-8"), other.data().to_str().expect("UTF-8"))
            .replace(&past.cluster.connection(), &other.connection()),
    );
    let bygone = |args: &[&str]| past.world.bygone(args).env("BYGONE_CONFIG", &config).current_dir(other.data());
    let segment = other.switch_wal();
    for args in [&["backup"][..], &["check"], &["init"], &["archive-push", &format!("pg_wal/{segment}")]] {
        let ran = bygone(args).fails();
        assert!(ran.stderr.contains("cluster \"main\"") || ran.stderr.contains("another cluster as \"main\""), "{ran}");
        ran.says("system identifier").says("hint:");
    }
    let fetched = past.world.join("fetched");
    bygone(&["archive-get", &past.segments[0], fetched.to_str().expect("UTF-8")]).run().exits(130).says("system identifier");
    assert!(!fetched.exists(), "recovery would take another cluster's WAL");
    assert_eq!(objects(&past.repository.path), before);
}

/// Every file below a directory, in order.
fn objects(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for entry in fs_err::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        found.extend(if path.is_dir() { objects(&path) } else { vec![path] });
    }
    found.sort();
    found
}

/// A timeline whose history is damaged is told of and not followed; recovery that asks for the file is stopped.
fn damaged_history(past: &Past) {
    let history = past.world.file("main/pg_wal/00000002.history", "1\t0/3000000\tno recovery target specified\n");
    let inside = |args: &[&str]| past.world.bygone(args).current_dir(past.cluster.data());
    inside(&["archive-push", history.to_str().expect("UTF-8")]).ok();
    let path = past.object(&folder(&past.cluster).history(Timeline(2)));
    change(&path, flip(130));
    let said = past.world.bygone(["info"]).ok();
    assert!(said.contains("00000002.history"), "{said}");
    let fetched = past.world.join("fetched");
    inside(&["archive-get", "00000002.history", fetched.to_str().expect("UTF-8")]).run().exits(130).says("00000002.history");
    past.ls(&past.lsns[3]).ok();
    fs_err::remove_file(history).expect("it was there");
}

#[test]
fn missing_wal_and_a_missing_manifest_bound_what_can_be_reached() {
    if postgres_is_missing(15) {
        return;
    }
    let past = Past::new();
    let path = past.segment(2);
    let segment = fs_err::read(&path).expect("the segment");
    fs_err::remove_file(&path).expect("it was there");
    let said = past.world.bygone(["info"]).ok();
    assert!(said.contains("WAL MISSING") && said.contains(&past.segments[2]), "{said}");
    past.ls(&past.lsns[1]).ok();
    past.ls(&past.lsns[3]).fails().says("cannot be reached").says("reachable:").says("hint:");
    fs_err::write(&path, segment).expect("back again");
    past.ls(&past.lsns[3]).ok();

    let path = past.manifest();
    let manifest = fs_err::read(&path).expect("the manifest");
    fs_err::remove_file(&path).expect("it was there");
    assert!(past.world.bygone(["info"]).ok().contains("no backups"));
    past.ls(&past.lsns[3]).fails().says("has no backup").says("hint:");
    past.world.bygone(["ls", "--backup", &past.label]).fails().says("there is no backup");
    fs_err::write(&path, manifest).expect("back again");
    past.ls(&past.lsns[3]).ok();
}

#[test]
fn manifest_of_a_newer_format_is_refused_naming_both_versions_and_touched_by_nobody() {
    if postgres_is_missing(15) {
        return;
    }
    let past = Past::new();
    let path = past.manifest();
    let repository = past.repository.open();
    let key = folder(&past.cluster).manifest(&past.label);
    let text = repository.read_object(&key, ObjectKind::Manifest).expect("the manifest is sound");
    assert!(Manifest::decode(&text).is_ok());
    let newer = String::from_utf8(text).expect("JSON").replacen("\"version\":1", "\"version\":9", 1);
    fs_err::remove_file(&path).expect("it was there");
    past.repository.open().put_object(&key, ObjectKind::Manifest, newer.as_bytes(), None).expect("written");
    Runner::new("chown").by_root().args(["postgres:postgres"]).arg(&path).ok();
    let written = fs_err::read(&path).expect("it is there");
    for args in [&["ls", "--backup", &past.label][..], &["cat", "--backup", &past.label, "PG_VERSION"]] {
        past.world.bygone(args).fails().says("version 9").says("hint:");
    }
    let said = past.world.bygone(["info"]).ok();
    assert!(said.contains("cannot be used") && said.contains("version 9"), "{said}");
    // Another backup tidies up after interrupted ones: this one is none.
    past.world.bygone(["backup"]).ok();
    assert_eq!(fs_err::read(&path).expect("still there"), written);
}

#[test]
fn page_that_cannot_be_had_is_an_error_and_a_line_in_the_log() {
    if cannot_run() {
        return;
    }
    let past = Past::new();
    let (key, path, at) = past.copied_block(200);
    let file = past.cluster.data().join(&past.table);
    past.cluster.stop();
    let expected = fs_err::read(file).expect("the table");
    let mount = past.mount("mnt");
    let before = change(&path, flip(at));
    let shown = fs_err::File::open(mount.dir().join(&past.table)).expect("the table on the mount").into_parts().0;
    let mut page = [0; 8192];
    let error = shown.read_exact_at(&mut page, 200 * 8192).expect_err("damage is never zeroes");
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
    let log = mount.log_text();
    let line = log.lines().find(|line| line.contains("ERROR")).unwrap_or_else(|| panic!("nothing is logged:\n{log}"));
    let until = past.lsns[3].parse::<Lsn>().expect("an Lsn").to_string();
    for part in [key.as_str(), "from byte", "is damaged", "block 200", &until] {
        assert!(line.contains(part), "{part:?} is not in {line}");
    }
    // The rest is there, and so is this page once it can be had.
    shown.read_exact_at(&mut page, 0).expect("another chunk");
    shown.read_exact_at(&mut page, 300 * 8192).expect("another chunk");
    assert!(page[..] == expected[300 * 8192..301 * 8192]);
    fs_err::write(&path, before).expect("mended");
    shown.read_exact_at(&mut page, 200 * 8192).expect("mended");
    assert!(page[..] == expected[200 * 8192..201 * 8192]);
    drop(shown);
    assert_eq!(mount.terminate(), Some(0));
}

#[test]
fn mount_point_that_is_in_use_or_not_empty_is_refused() {
    if cannot_run() {
        return;
    }
    let past = Past::new();
    let mount = past.mount("mnt");
    let at = format!("lsn:{}", past.lsns[3]);
    let again = |dir: &Path, overlay: &str| {
        let args = ["mount", "--foreground", "--exclusive", "--at", &at, "--overlay"];
        past.world.bygone(args).arg(past.world.join(overlay)).arg(dir).by_root()
    };
    again(mount.dir(), "another").fails().says("is in use").says("hint:");
    let full = past.world.dir("full");
    fs_err::write(full.join("precious"), "x").expect("a file");
    again(&full, "another").fails().says("is not empty").says("hint:");
    let free = past.world.dir("free");
    again(&free, "mnt.overlay").fails().says("is in use by another mount").says("hint:");
    again(&past.world.join("nowhere"), "another").fails().says("nowhere");
    assert_eq!(fs_err::read_to_string(full.join("precious")).expect("untouched"), "x");
    assert_eq!(mount.terminate(), Some(0));
}

/// A small file system of its own, unmounted on drop.
struct Small(PathBuf);

impl Small {
    /// `None` if we may not mount.
    fn new(world: &World, name: &str, mb: u32) -> Option<Small> {
        if !is_root() {
            eprintln!("NOT RUN: only root may mount a small file system");
            return None;
        }
        let dir = world.dir(name);
        let owner = super::harness::world::postgres_user();
        let options = format!("size={mb}m,mode=0700,uid={},gid={}", owner.0, owner.1);
        Runner::new("mount").by_root().args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&dir).ok();
        Some(Small(dir))
    }

    fn grow(&self, mb: u32) {
        Runner::new("mount").by_root().args(["-o", &format!("remount,size={mb}m")]).arg(&self.0).ok();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        Runner::new("umount").by_root().arg("-l").arg(&self.0).run();
    }
}

#[test]
fn full_disk_below_a_clone_is_a_full_disk_to_postgres_and_corrupts_nothing() {
    if cannot_run() {
        return;
    }
    let past = Past::new();
    let Some(small) = Small::new(&past.world, "small", 48) else { return };
    let dir = past.world.dir("mnt");
    let at = format!("lsn:{}", past.lsns[3]);
    let runner = past.world.bygone(["mount", "--foreground", "--exclusive", "--at", &at, "--overlay"]);
    let mount = MountGuard::start(&runner.arg(small.0.join("overlay")).arg(&dir).by_root(), &dir);
    let clone = TestCluster::existing(&past.world, 15, "clone", &dir);
    clone.configure(&["max_wal_size = 64MB", "min_wal_size = 32MB", "autovacuum = off"]);
    clone.start();
    clone.psql("create table kept (n int primary key)");
    let mut kept = 0;
    let full = loop {
        // Each of these is committed before the next begins.
        let ran = clone.try_psql(&format!("insert into kept values ({kept})"));
        let grown = if ran.code == Some(0) {
            kept += 1;
            clone.try_psql(&format!("create table filler{kept} as select repeat('x', 1000) v from generate_series(1, 3000)"))
        } else {
            ran
        };
        if grown.code != Some(0) {
            break grown;
        }
        assert!(kept < 100, "the disk never fills");
    };
    assert!(full.stderr.contains("No space left on device") || clone.log_text().contains("No space left on device"), "{full}");
    small.grow(400);
    if clone.is_running() {
        clone.crash();
    }
    // A sync that failed leaves the overlay uncertain until it is mounted anew.
    assert_eq!(mount.terminate(), Some(0), "what could be kept was kept");
    let runner = past.world.bygone(["mount", "--foreground", "--exclusive", "--at", &at, "--overlay"]);
    let mount = MountGuard::start(&runner.arg(small.0.join("overlay")).arg(&dir).by_root(), &dir);
    clone.start();
    wait_until("the end of recovery", Duration::from_secs(60), || clone.try_psql("select 1").code == Some(0));
    let rows: u32 = clone.psql("select count(*) from kept").parse().expect("a number");
    assert!(rows >= kept, "{rows} of {kept} committed rows are there");
    clone.client("pg_amcheck").args(["--all", "--install-missing", "--heapallindexed"]).ok();
    clone.psql("vacuum; checkpoint");
    clone.stop();
    assert_eq!(mount.terminate(), Some(0));
}

#[test]
fn full_disk_below_the_repository_keeps_wal_with_postgres_and_leaves_no_half_backup() {
    if postgres_is_missing(15) {
        return;
    }
    let world = World::new();
    let Some(small) = Small::new(&world, "repo1", 4) else { return };
    let cluster = TestCluster::builder(15).archiving(&world).start(&world);
    let repository = TestRepository::init(&world, 1, &cluster);
    cluster.psql("create table t as select n, sha512(n::text::bytea) v from generate_series(1, 60000) n");
    let segment = cluster.switch_wal();
    let inside = |args: &[&str]| world.bygone(args).current_dir(cluster.data());
    let path = format!("pg_wal/{segment}");
    wait_until("the disk to be full", Duration::from_secs(60), || inside(&["archive-push", &path]).run().code != Some(0));
    inside(&["archive-push", &path]).fails().says("is full").says("hint:");
    world.bygone(["backup"]).fails().says("is full");
    assert_eq!(repository.backups(&cluster), Vec::<String>::new());
    let mut temporary = fs_err::read_dir(small.0.join(".bygone-tmp")).expect("the folder of temporary files");
    assert!(temporary.next().is_none(), "something half written was left");
    small.grow(200);
    cluster.wait_archived(&segment);
    world.bygone(["backup"]).ok();
    let fetched = world.join("fetched");
    inside(&["archive-get", &segment, fetched.to_str().expect("UTF-8")]).ok();
    let original = cluster.data().join(&path);
    if original.exists() {
        assert!(fs_err::read(fetched).expect("fetched") == fs_err::read(original).expect("segment"), "{segment} differs");
    }
}

/// Seconds after which a request is given up: enough for a service on a machine with much else to do.
const PATIENCE_S: u64 = 10;

#[test]
fn service_that_answers_503_for_a_while_is_an_io_error_and_then_works_again() {
    if cannot_run() {
        return;
    }
    let world = World::new();
    let proxy = Proxy::start(&super::s3::seaweed::seaweed().http);
    let secret = super::s3::SECRET;
    let push = format!("{}={} {} --config {} archive-push %p", secret.0, secret.1, world.program().display(), world.config().display());
    let builder = TestCluster::builder(15).archiving(&world).checksums(true).conf("autovacuum = off");
    let cluster = builder.conf(&format!("archive_command = '{push}'")).start(&world);
    super::s3::configure_at(&world, &cluster, &format!("endpoint = {:?}\ntimeout-s = {PATIENCE_S}", proxy.url()));
    let bygone = |args: &[&str]| world.bygone(args).env(secret.0, secret.1);
    bygone(&["init"]).ok();
    cluster.psql("create table t as select n, repeat(md5(n::text), 4) v from generate_series(1, 20000) n; checkpoint");
    let table = cluster.psql("select pg_relation_filepath('t')");
    bygone(&["backup"]).ok();
    cluster.wait_archived(&cluster.switch_wal());
    let dir = world.dir("mnt");
    let mount = MountGuard::start(&bygone(&["mount", "--foreground", "--at", "latest"]).arg(&dir).by_root(), &dir);
    let expected = fs_err::read(cluster.data().join(&table)).expect("the table");
    let shown = fs_err::File::open(dir.join(&table)).expect("the table on the mount").into_parts().0;
    let mut page = [0; 8192];
    shown.read_exact_at(&mut page, 0).expect("the service answers");

    proxy.refuse(true);
    let segment = cluster.switch_wal();
    let error = shown.read_exact_at(&mut page, 300 * 8192).expect_err("the service refuses");
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
    assert!(mount.log_text().contains("does not answer") && mount.log_text().contains("503"), "{}", mount.log_text());
    let inside = bygone(&["archive-push", &format!("pg_wal/{segment}")]).current_dir(cluster.data());
    inside.fails().says("does not answer").says("hint:");
    assert!(cluster.wal_dir().join(&segment).exists(), "Postgres keeps it");

    proxy.refuse(false);
    shown.read_exact_at(&mut page, 300 * 8192).expect("the service answers again");
    assert!(page[..] == expected[300 * 8192..301 * 8192]);
    drop(shown);
    cluster.wait_archived(&segment);
    assert_eq!(mount.terminate(), Some(0));
}
