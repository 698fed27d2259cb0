//! A server that starts on a moment's last checkpoint and replays the rest by itself ends where one does that recovers from the backup.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bygone::archive::incarnation::read_control;
use bygone::pg::control::{ClusterState, ControlFile};
use bygone::pg::wal::effect::{Effect, effect};
use bygone::pg::{Lsn, Major};

use super::super::harness::clones::Clones;
use super::super::harness::mount::MountGuard;
use super::super::harness::repository::TestRepository;
use super::super::harness::tools::{fuse_is_missing, is_missing, server_headers};
use super::super::harness::{Runner, TestCluster, World, postgres_is_missing, wait_until};
use super::oracle::{Oracle, Recovered, mend_unlogged_sequences};
use super::storm::restore_command;
use super::{AFTER, BEFORE, Past, check_server, compare, past, run_all};

/// As far as the next record begins.
const CHECKPOINT_RECORD_BYTES: u64 = 120;

const EXTENSION: &str = include_str!("opaque.c");

/// Where the server on a mount begins to replay.
fn redo_of(data: &Path) -> Lsn {
    let control = read_control(data).expect("pg_control of the mount");
    assert_eq!(control.state, ClusterState::ShutDownInRecovery);
    control.checkpoint.redo
}

/// Mounts the moment before `lsn` for a server.
fn mount(past: &Past, name: &str, lsn: Lsn, replay: &str) -> MountGuard {
    let dir = past.world.dir(&format!("mnt-{name}"));
    let runner =
        past.world.bygone(["mount", "--foreground", "--exclusive", "--replay", replay, "--at", &format!("lsn:{lsn}"), "--overlay"]);
    MountGuard::start(&runner.arg(past.world.join(&format!("overlay-{name}"))).arg(&dir).by_root(), &dir)
}

/// A server on a mount that nobody ever connects to.
fn server(past: &Past, mount: &MountGuard, name: &str) -> TestCluster {
    let server = TestCluster::existing(&past.world, past.cluster.major(), name, mount.dir());
    server.configure(&["hot_standby = off", "autovacuum = off"]);
    server
}

/// Lets a server replay, and stops it.
fn finish(server: &TestCluster) {
    server.start();
    let state = || read_control(server.data()).expect("pg_control of the mount").state;
    wait_until("the end of recovery", Duration::from_secs(120), || {
        assert!(server.is_running(), "{}", server.log_text());
        // A server that crashed behind the end of recovery was in production before it is again.
        let pid_file = fs_err::read_to_string(server.data().join("postmaster.pid")).unwrap_or_default();
        state() == ClusterState::InProduction && pid_file.lines().nth(7).is_some_and(|status| status.trim() == "ready")
    });
    server.stop();
}

/// Where a log says that redo started, the first time.
fn redo_started(log: &str) -> Option<Lsn> {
    let (_, lsn) = log.lines().find_map(|line| line.split_once("redo starts at "))?;
    Some(lsn.parse().expect("an Lsn"))
}

/// Lets a server replay, which begins at the checkpoint and not before it.
fn replay(past: &Past, mount: &MountGuard, name: &str) {
    let redo = redo_of(mount.dir());
    let checkpoint = read_control(mount.dir()).expect("pg_control of the mount").checkpoint_lsn;
    // A shutdown checkpoint is its own redo point, and need not be replayed.
    let first = if checkpoint == redo { Lsn(redo.0 + CHECKPOINT_RECORD_BYTES) } else { redo };
    let server = server(past, mount, name);
    finish(&server);
    assert_eq!(redo_started(&server.log_text()), Some(first), "{}", server.log_text());
}

/// What comes next. The oldest of each is taken from a checkpoint where recovery begins rather than from one that it comes by.
fn next_counters(control: &ControlFile) -> [u64; 4] {
    let c = control.checkpoint;
    [c.next_xid, c.next_oid.into(), c.next_multi.into(), c.next_multi_offset.into()]
}

/// Compares what a server makes of a checkpoint and the rest of the WAL with what one recovers from the backup; `false` if there is no checkpoint.
/// `args` are ours, `conf` tells the recovered server of the moment.
pub(super) fn replayed_equals(past: &Past, native: &Recovered, args: &[String], conf: &[String]) -> bool {
    let (dir, overlay) = (past.world.dir("mnt-replayed"), past.world.join("overlay-replayed"));
    let runner =
        past.world.bygone(["mount", "--foreground", "--replay", "hybrid", "--overlay"]).arg(&overlay).args(args).arg(&dir).by_root();
    let mount = match MountGuard::try_start(&runner, &dir) {
        Ok(mount) => mount,
        Err(log) if log.contains("there is no checkpoint") => return false,
        Err(log) => panic!("{log}"),
    };
    let server = server(past, &mount, "replayed");
    // Whether commit times are kept behind the end of recovery is up to the server's own setting.
    let tracks = conf.iter().find(|line| line.starts_with("track_commit_timestamp")).expect("a setting");
    server.configure(&[tracks]);
    finish(&server);
    mend_unlogged_sequences(mount.dir());
    assert_eq!(next_counters(&read_control(mount.dir()).expect("pg_control of the mount")), next_counters(&native.control));
    compare::assert_same_end(mount.dir(), native.cluster.data());
    assert_eq!(mount.log_text(), "", "nothing to complain about");
    assert_eq!(mount.terminate(), Some(0));
    fs_err::remove_dir_all(overlay).expect("an overlay can be removed");
    true
}

/// Transactions of every kind that a checkpoint falls into. Returns a position before it.
fn live_through_a_checkpoint(past: &Past) -> Lsn {
    past.cluster.psql("create table across (a int primary key, b text); create unlogged table fleeting_too (a int primary key)");
    let [mut ends, mut stays] = [past.cluster.connect(), past.cluster.connect()];
    let run = |session: &mut postgres::Client, sql: &str| session.batch_execute(sql).expect("SQL of the test");
    run(&mut ends, "begin; create table begun (a int primary key); insert into begun values (-1)");
    run(&mut stays, "begin; create table never_there (a int); insert into across values (-2); insert into never_there values (1)");
    for i in 0..70 {
        run(&mut ends, &format!("savepoint s{i}; insert into begun values ({i}); insert into across values ({i})"));
    }
    past.cluster.psql(
        "begin; insert into across values (1000); prepare transaction 'across';
         begin; insert into across values (1001); prepare transaction 'across too';
         insert into fleeting_too values (1); select a from across where a = 1 for share",
    );
    let before = past.cluster.current_lsn().parse().expect("an Lsn");
    past.cluster.psql("checkpoint");
    past.cluster.psql(
        "commit prepared 'across'; rollback prepared 'across too'; insert into across select a from generate_series(2000, 5000) a;
         update heap set v = 'later' where id % 50 = 1; create table born_after as select 1 as a; create index on many (t);
         delete from to_cut where a > 500; vacuum to_cut; alter table pairs set tablespace extra; drop table to_empty;
         create unlogged table fleeting_after (a int); insert into fleeting_after values (1)",
    );
    for i in 70..80 {
        run(&mut ends, &format!("savepoint s{i}; insert into begun values ({i})"));
    }
    run(&mut ends, "rollback to s75; commit");
    run(&mut stays, "insert into across values (-3)");
    before
}

fn replay_from_a_checkpoint_equals_replay_from_the_backup(major: u16) {
    if postgres_is_missing(major) || fuse_is_missing() {
        return;
    }
    let past = past(major, 16, major % 2 == 1);
    let before = live_through_a_checkpoint(&past);
    let lsn = past.here();
    let mount = mount(&past, "hybrid", lsn.parse().expect("an Lsn"), "hybrid");
    assert!(redo_of(mount.dir()) >= before, "it begins at the newest checkpoint");
    replay(&past, &mount, "hybrid");
    compare::assert_same_end(mount.dir(), &past.recovered(&lsn));
    check_server(&past, &mount, "hybrid");
    assert_eq!(mount.terminate(), Some(0));
}

#[test]
fn replay_from_a_checkpoint_equals_replay_from_the_backup_on_14() {
    replay_from_a_checkpoint_equals_replay_from_the_backup(14);
}

#[test]
fn replay_from_a_checkpoint_equals_replay_from_the_backup_on_15() {
    replay_from_a_checkpoint_equals_replay_from_the_backup(15);
}

#[test]
fn replay_from_a_checkpoint_equals_replay_from_the_backup_on_16() {
    replay_from_a_checkpoint_equals_replay_from_the_backup(16);
}

#[test]
fn replay_from_a_checkpoint_equals_replay_from_the_backup_on_17() {
    replay_from_a_checkpoint_equals_replay_from_the_backup(17);
}

#[test]
fn replay_from_a_checkpoint_equals_replay_from_the_backup_on_18() {
    replay_from_a_checkpoint_equals_replay_from_the_backup(18);
}

/// Goes on as a standby would that becomes the primary: on a timeline of its own.
fn promote(past: &Past) {
    past.cluster.stop();
    past.cluster.configure(&[&format!("restore_command = '{}'", restore_command(&past.world))]);
    fs_err::write(past.cluster.data().join("standby.signal"), "").expect("standby.signal");
    past.cluster.start();
    past.cluster.promote();
    wait_until("the cluster to be promoted", Duration::from_secs(60), || {
        past.cluster.try_psql("select pg_is_in_recovery()").stdout.trim() == "f"
    });
}

/// The position behind the record that begins the newest timeline.
fn promoted_at(past: &Past, oracle: &Oracle<'_>, from: Lsn) -> Lsn {
    let major = Major::from_number(past.cluster.major().into()).expect("known");
    let mut found = None;
    oracle.records(from, oracle.newest_path(), |record| {
        if let Ok(Some(Effect::EndOfRecovery { .. })) = effect(record, major) {
            found = Some(record.end);
        }
    });
    found.expect("the cluster was promoted")
}

#[test]
fn timelines_may_fork_off_before_the_checkpoint_and_behind_it() {
    if postgres_is_missing(17) || fuse_is_missing() {
        return;
    }
    let past = past(17, 1, true);
    promote(&past);
    let before = live_through_a_checkpoint(&past);
    let forked_before: Lsn = past.cluster.current_lsn().parse().expect("an Lsn");
    promote(&past);
    past.cluster.psql("update heap set v = 'on the third timeline'");
    past.here();
    let oracle = Oracle::new(&past.world, &past.cluster, &past.repository, &past.label);
    let forks_behind = promoted_at(&past, &oracle, before);
    for (name, lsn, timelines) in [("before", forked_before, [2, 2]), ("behind", forks_behind, [2, 3])] {
        let mount = mount(&past, name, lsn, "hybrid");
        assert!(redo_of(mount.dir()) >= before);
        let starts = read_control(mount.dir()).expect("pg_control of the mount").checkpoint.timeline.0;
        replay(&past, &mount, name);
        let ends = oracle.newest_path().timeline_at(Lsn(lsn.0 - 1)).0;
        assert_eq!([starts, ends], timelines);
        let target = [format!("recovery_target_lsn = '{lsn}'"), "recovery_target_inclusive = off".to_owned()];
        let native = oracle.try_recover(&target.each_ref().map(String::as_str)).expect("Postgres recovers");
        compare::assert_same_end(mount.dir(), native.cluster.data());
        assert_eq!(mount.terminate(), Some(0));
    }
}

/// Compiles the extension, or says aloud why it cannot be.
fn extension(world: &World, major: u16) -> Option<PathBuf> {
    let Some(headers) = server_headers(major) else {
        is_missing(&format!("the headers of Postgres {major}"), Path::new("postgres.h"), "scripts/install-headers");
        return None;
    };
    let library = world.join("opaque.so");
    let cc = Runner::new("cc").args(["-O1", "-shared", "-fPIC", "-I"]).arg(headers);
    cc.arg("-o").arg(&library).arg(world.file("opaque.c", EXTENSION)).by_root().ok();
    Some(library)
}

/// A cluster with an extension, on which things happened that only it can replay; between them, positions.
struct Extended {
    past: Past,
    /// Such a record lies between the backup and here, and no checkpoint before it.
    behind_the_first: Lsn,
    /// None does: there is a newer backup.
    before_the_second: Lsn,
    /// One lies behind the last checkpoint.
    behind_the_second: Lsn,
    /// One lies between the last two checkpoints.
    behind_a_checkpoint: Lsn,
    /// The first of these is behind this, and the checkpoint before it, before.
    second: Lsn,
}

impl Extended {
    fn clones(&self) -> Clones<'_> {
        Clones { world: &self.past.world, cluster: &self.past.cluster }
    }
}

impl Drop for Extended {
    fn drop(&mut self) {
        self.clones().clear();
    }
}

fn extended(major: u16) -> Option<Extended> {
    let world = World::new();
    let library = extension(&world, major)?;
    let builder = TestCluster::builder(major).archiving(&world).checksums(major > 15).tablespace("extra").conf("autovacuum = off");
    let builder = builder
        .conf("fsync = on")
        .conf("max_prepared_transactions = 10")
        .conf(&format!("shared_preload_libraries = '{}'", library.display()));
    let cluster = builder.start(&world);
    let repository = TestRepository::init(&world, 1, &cluster);
    run_all(&cluster, BEFORE);
    let library = library.display();
    cluster.psql(&format!(
        "create function note(text) returns void as '{library}', 'opaque_note' language c;
         create function stamp(regclass, int, int) returns void as '{library}', 'opaque_stamp' language c;
         create table ours as select 0 as a, g as b from generate_series(1, 3000) g"
    ));
    let backup = || {
        let report: serde_json::Value = serde_json::from_str(&world.bygone(["backup", "--json"]).ok()).expect("one JSON object");
        report["label"].as_str().expect("a label").to_owned()
    };
    let here = || cluster.current_lsn().parse::<Lsn>().expect("an Lsn");
    backup();
    cluster.psql("select note('first'); checkpoint; select stamp('ours', 1, 10)");
    let behind_the_first = here();
    let label = backup();
    run_all(&cluster, AFTER);
    let before_the_second = here();
    let past = Past { world, cluster, repository, label };
    live_through_a_checkpoint(&past);
    let here = || past.cluster.current_lsn().parse::<Lsn>().expect("an Lsn");
    let second = here();
    past.cluster.psql("select note('second'), stamp('ours', 2, 20); update ours set b = -b where b % 9 = 0; select stamp('ours', 2, 21)");
    let behind_the_second = here();
    past.cluster.psql("checkpoint; update heap set v = 'behind it all'; select note('third'), stamp('ours', 3, 30)");
    let behind_a_checkpoint = here();
    past.here();
    Some(Extended { past, behind_the_first, before_the_second, behind_the_second, behind_a_checkpoint, second })
}

fn refusals_say_why(extended: &Extended) {
    let world = &extended.past.world;
    let at = format!("lsn:{}", extended.behind_the_second);
    let why = "belongs to an extension (resource manager 142), which alone can replay it";
    for replay in ["auto", "bygone"] {
        world.bygone(["ls", "--exclusive", "--at", &at, "--replay", replay]).fails().says(why).says("bygone clone create");
    }
    let dir = world.dir("mnt-refused");
    world.bygone(["mount", "--exclusive", "--at", &at]).arg(&dir).by_root().fails().says("only a server can get to this moment").says(why);
    let browsed = MountGuard::start(&world.bygone(["mount", "--foreground"]).arg(&dir).by_root(), &dir);
    let name = at.replace('/', "-");
    assert!(fs_err::read_dir(dir.join("at").join(&name)).is_err(), "it is not shown as something else");
    let status = fs_err::read_to_string(dir.join(".bygone/status.json")).expect("status.json");
    let status: serde_json::Value = serde_json::from_str(&status).expect("status.json is JSON");
    assert!(status["refused"][&name].as_str().expect("a text").contains(why), "{status}");
    assert!(browsed.log_text().contains(why));
    assert_eq!(browsed.terminate(), Some(0));
}

/// Makes a clone, lets Bygone choose who replays, and looks at what is in it.
fn clone(extended: &Extended, name: &str, lsn: Lsn, replay: &str, stamps: &str, notes: &str) -> serde_json::Value {
    let clones = extended.clones();
    let said = clones.run(&["create", name, "--exclusive", "--at", &format!("lsn:{lsn}")]).ok();
    let listed = clones.one(name);
    assert_eq!(listed["replay"], replay, "{listed}");
    let why = listed["fell_back"].as_str();
    assert_eq!(why.is_none(), replay == "bygone", "{listed}");
    assert!(why.is_none_or(|why| said.contains(why) && why.contains("resource manager 142")), "{said}");
    assert_eq!(clones.psql(name, "select string_agg(a::text, ' ' order by a) from ours where a <> 0"), stamps);
    let data = clones.dir().join(name).join("data");
    assert_eq!(fs_err::read_to_string(data.join("opaque_notes")).expect("the extension's file"), notes);
    listed
}

fn clone_is_opened_on_the_same_checkpoint_again(extended: &Extended, name: &str) {
    let clones = extended.clones();
    let before = clones.one(name);
    clones.psql(name, "create table mine as select generate_series(1, 10000) a; update heap set v = 'mine' where id < 100");
    clones.kill_mount(name);
    clones.run(&["start", name]).ok();
    assert_eq!(clones.psql(name, "select count(*) from mine"), "10000");
    assert_eq!(clones.psql(name, "select count(*) from heap where v = 'mine' and id >= 100"), "0");
    for field in ["replay", "checkpoint", "fell_back"] {
        assert_eq!(clones.one(name)[field], before[field]);
    }
    let amcheck = extended.past.cluster.client("pg_amcheck").args(["--all", "--heapallindexed", "--parent-check"]);
    let text = |field: &str| before[field].as_str().expect("a text").to_owned();
    amcheck.env("PGHOST", text("socket_directory")).env("PGPORT", before["port"].to_string()).ok();
}

/// A server that is torn from its replay, and the process behind its mount as well, replays again to the same end.
fn replay_may_be_interrupted(extended: &Extended, name: &str, lsn: Lsn) -> MountGuard {
    let first = mount(&extended.past, name, lsn, "auto");
    let server = server(&extended.past, &first, name);
    server.start();
    server.crash();
    first.kill();
    let again = mount(&extended.past, name, lsn, "auto");
    // It may be there or not: that of a process that is gone, but perhaps a zombie of the test's.
    drop(fs_err::remove_file(again.dir().join("postmaster.pid")));
    finish(&server);
    again
}

fn what_only_an_extension_can_replay_is_left_to_it(major: u16) {
    if postgres_is_missing(major) || fuse_is_missing() {
        return;
    }
    let Some(extended) = extended(major) else { return };
    refusals_say_why(&extended);
    let first = clone(&extended, "first", extended.behind_the_first, "postgres", "10", "first\n");
    assert!(first["fell_back"].as_str().expect("a text").ends_with("there is no checkpoint between the backup and it"));
    clone(&extended, "before", extended.before_the_second, "bygone", "10", "first\n");
    let second = clone(&extended, "second", extended.behind_the_second, "hybrid", "10 21", "first\nsecond\n");
    let third = clone(&extended, "third", extended.behind_a_checkpoint, "hybrid", "10 21 30", "first\nsecond\nthird\n");
    assert_eq!(second["checkpoint"], third["checkpoint"], "a record of an extension lies before the newer one");
    clone_is_opened_on_the_same_checkpoint_again(&extended, "third");

    let past = &extended.past;
    let oracle = Oracle::new(&past.world, &past.cluster, &past.repository, &past.label);
    for (name, lsn) in [("second", extended.behind_the_second), ("third", extended.behind_a_checkpoint)] {
        let mount = if name == "third" {
            replay_may_be_interrupted(&extended, name, lsn)
        } else {
            let mount = mount(past, name, lsn, "auto");
            let redo = redo_of(mount.dir());
            assert!(redo > extended.before_the_second && redo < extended.second);
            assert_eq!(redo_started(&extended.clones().log(name)), Some(redo), "the clone began to replay at the checkpoint");
            replay(past, &mount, name);
            mount
        };
        let target = [format!("recovery_target_lsn = '{lsn}'"), "recovery_target_inclusive = off".to_owned()];
        let native = oracle.try_recover(&target.each_ref().map(String::as_str)).expect("Postgres recovers");
        compare::assert_same_end(mount.dir(), native.cluster.data());
        let notes = |data: &Path| fs_err::read_to_string(data.join("opaque_notes")).expect("the extension's file");
        assert_eq!(notes(mount.dir()), notes(native.cluster.data()));
        assert_eq!(mount.terminate(), Some(0));
    }
}

#[test]
fn what_only_an_extension_can_replay_is_left_to_it_on_15() {
    what_only_an_extension_can_replay_is_left_to_it(15);
}

#[test]
fn what_only_an_extension_can_replay_is_left_to_it_on_16() {
    what_only_an_extension_can_replay_is_left_to_it(16);
}

#[test]
fn what_only_an_extension_can_replay_is_left_to_it_on_18() {
    what_only_an_extension_can_replay_is_left_to_it(18);
}

#[test]
fn postgres_replays_to_the_end_of_the_archive_too() {
    if postgres_is_missing(16) || fuse_is_missing() {
        return;
    }
    let past = past(16, 1, false);
    past.cluster.psql("checkpoint; create table last_of_all as select 1 as a");
    past.here();
    let clones = Clones { world: &past.world, cluster: &past.cluster };
    for replay in ["hybrid", "postgres"] {
        let created = clones.run(&["create", replay, "--at", "latest", "--replay", replay]).run();
        if created.code != Some(0) {
            clones.clear();
        }
        created.ok();
        assert_eq!(clones.psql(replay, "select count(*) from last_of_all, after_it"), "1");
        clones.run(&["destroy", replay]).ok();
    }
}

#[test]
fn postgres_makes_no_tablespace_outside_of_the_view() {
    if postgres_is_missing(15) {
        return;
    }
    let past = past(15, 1, false);
    past.cluster.psql("checkpoint");
    let place = past.world.dir("place");
    past.cluster.psql(&format!("create tablespace added location '{}'", place.display()));
    past.cluster.psql("create table in_it tablespace added as select 1 as a");
    let lsn = past.cluster.current_lsn();
    past.cluster.psql("checkpoint; create table after_it (a int)");
    let later = past.here();
    let refused = |lsn: &str, replay: &str| {
        let runner =
            past.world.bygone(["mount", "--foreground", "--exclusive", "--at", &format!("lsn:{lsn}"), "--replay", replay, "--overlay"]);
        let ran = runner.arg(past.world.join("overlay")).arg(past.world.dir("mnt")).by_root().fails();
        ran.says("makes a tablespace at").says(place.to_str().expect("UTF-8")).says("production's files");
    };
    refused(&lsn, "hybrid");
    refused(&lsn, "postgres");
    refused(&later, "postgres");
    past.world.bygone(["ls", "--exclusive", "--at", &format!("lsn:{lsn}")]).ok();
    if !fuse_is_missing() {
        let mount = mount(&past, "later", later.parse().expect("an Lsn"), "hybrid");
        assert!(mount.dir().join("pg_tblspc").read_dir().expect("a directory").count() == 2, "it is in the view");
        assert_eq!(mount.terminate(), Some(0));
    }
}
