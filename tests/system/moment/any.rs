//! Any moment of a mixed load equals what Postgres recovers to it.
//!
//! `BYGONE_TEST_MOMENTS=200` compares that many moments of each cluster instead of a few, `BYGONE_TEST_SEED` repeats a run,
//! `BYGONE_TEST_REGRESS` adds the SQL of Postgres's own suite.

use std::time::{Duration, Instant, SystemTime};

use bygone::archive::incarnation::read_control;
use bygone::pg::control::ControlFile;
use bygone::pg::wal::TimelinePath;
use bygone::pg::{Lsn, Timeline};

use super::super::harness::mount::MountGuard;
use super::super::harness::repository::TestRepository;
use super::super::harness::tools::fuse_is_missing;
use super::super::harness::{TestCluster, World, postgres_is_missing, wait_until};
use super::hybrid::replayed_equals;
use super::oracle::{Halt, Notable, Oracle, Recovered};
use super::storm::{Dice, ENOUGH, Storm, restore_command};
use super::{BEFORE, Past, aged, compare, dump, run_all};

/// A cluster to let the storm loose on.
struct Row {
    major: u16,
    segment_mb: u32,
    checksums: bool,
    /// The cluster is promoted now and then, and once set back to an earlier moment.
    timelines: bool,
    /// Its counters begin anew while the storm rages.
    aged: bool,
    conf: &'static [&'static str],
}

/// Moments that are compared of each cluster.
fn moments(few: usize) -> usize {
    std::env::var("BYGONE_TEST_MOMENTS").map_or(few, |text| text.parse().expect("BYGONE_TEST_MOMENTS is a number"))
}

fn seed() -> u64 {
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
    std::env::var("BYGONE_TEST_SEED").map_or_else(|_| now(), |text| text.parse().expect("BYGONE_TEST_SEED is a number"))
}

/// Seconds of storm for so many moments.
fn duration(moments: usize) -> Duration {
    Duration::from_secs(6 + moments as u64 / 4)
}

fn stormy_past(row: &Row, dice: &mut Dice, rage: Duration) -> Past {
    let world = World::new();
    let mut builder = TestCluster::builder(row.major).archiving(&world).checksums(row.checksums).wal_segment_mb(row.segment_mb);
    let origins = if row.major >= 18 { "max_active_replication_origins = 60" } else { "max_replication_slots = 60" };
    let common = [
        "max_prepared_transactions = 50",
        "allow_in_place_tablespaces = on",
        "min_wal_size = 128MB",
        "autovacuum_naptime = 1",
        "checkpoint_timeout = 30",
        origins,
    ];
    for line in common.iter().chain(row.conf) {
        builder = builder.conf(line);
    }
    let mut cluster = builder.tablespace("extra").tablespace("spare").start(&world);
    if row.aged {
        aged::age(&cluster);
    }
    let repository = TestRepository::init(&world, 1, &cluster);
    run_all(&cluster, BEFORE);
    let mut storm = Storm::gather(&world, &cluster, dice.roll(usize::MAX) as u64);
    storm.rage(Duration::from_secs(1), false);
    storm.during_backup = true;
    let label = std::thread::scope(|threads| {
        let backup = threads.spawn(|| {
            let report: serde_json::Value = serde_json::from_str(&world.bygone(["backup", "--json"]).ok()).expect("one JSON object");
            report["label"].as_str().expect("a label").to_owned()
        });
        storm.rage(Duration::from_secs(1), false);
        backup.join().expect("the backup is taken")
    });
    storm.during_backup = false;
    let seed = dice.roll(usize::MAX) as u64;
    if row.timelines {
        storm.rage(rage / 4, false);
        storm.promotions = true;
        storm.rage(rage / 4, false);
        let back_to = cluster.current_lsn();
        storm.rage(Duration::from_secs(2), false);
        let run = storm.run;
        drop(storm);
        cluster = set_back(&world, cluster, &repository, &label, &back_to);
        let mut storm = Storm::resume(&world, &cluster, seed, run);
        storm.promotions = true;
        storm.rage(rage / 2, true);
    } else {
        storm.rage(rage, true);
        while row.aged && !aged::began_anew(&cluster) {
            storm.rage(Duration::from_secs(1), false);
        }
        drop(storm);
    }
    Past { world, cluster, repository, label }
}

/// Puts the cluster back to an earlier moment, as an administrator would after an accident: another timeline begins there, and the rest of the old one
/// stays in the archive.
fn set_back(world: &World, cluster: TestCluster, repository: &TestRepository, label: &str, lsn: &str) -> TestCluster {
    let segment = cluster.switch_wal();
    cluster.wait_archived(&segment);
    let restored = repository.restore(world, &cluster, label, "set-back", &restore_command(world));
    cluster.stop();
    let (major, data, backup) = (cluster.major(), cluster.data().to_owned(), restored.data().to_owned());
    drop((cluster, restored));
    fs_err::remove_dir_all(&data).expect("the data directory can be removed");
    fs_err::rename(&backup, &data).expect("a directory can be renamed");
    let cluster = TestCluster::existing(world, major, "main", &data);
    cluster.configure(&[&format!("recovery_target_lsn = '{lsn}'"), "hot_standby = off", "archive_mode = on"]);
    cluster.configure(&ENOUGH);
    cluster.start();
    cluster.configure(&["recovery_target_lsn = ''", "hot_standby = on"]);
    cluster
}

/// Start of the stretch in which moments can be compared: where the backup is consistent.
fn consistent(past: &Past) -> Lsn {
    past.repository.manifest(&past.cluster, &past.label).header.stop_lsn
}

/// A timeline and what happened on the way to it.
struct Way {
    /// What has to be asked for to get there; `None` for the newest.
    timeline: Option<Timeline>,
    notable: Vec<Notable>,
    /// See [`Oracle::announced`].
    announced: Vec<(Lsn, Option<u32>)>,
}

impl Way {
    fn new(oracle: &Oracle<'_>, from: Lsn, path: TimelinePath, timeline: Option<Timeline>) -> Way {
        Way { timeline, notable: oracle.notable(from, path.clone()), announced: oracle.announced(from, path) }
    }

    /// The next xid of a recovery that did not listen, had it listened.
    fn next_xid(&self, native: &Recovered) -> u64 {
        let heard: Vec<Option<u32>> = self.announced.iter().take_while(|(end, _)| *end <= native.stopped_at).map(|(_, xid)| *xid).collect();
        let since = heard.rsplit(Option::is_none).next().unwrap_or_default();
        let next = |next: u64, xid: &u32| {
            let further = xid.wrapping_add(1).max(FIRST_NORMAL_XID).wrapping_sub((next & 0xFFFF_FFFF) as u32);
            if further < 1 << 31 { next + u64::from(further) } else { next }
        };
        since.iter().flatten().fold(native.control.checkpoint.next_xid, next)
    }
}

/// Xids below it are special (`FirstNormalTransactionId`).
const FIRST_NORMAL_XID: u32 = 3;

struct Moment {
    lsn: Lsn,
    exclusive: bool,
    timeline: Option<Timeline>,
    tracks_commit_times: bool,
}

impl Moment {
    /// What `bygone` is asked for.
    fn args(&self) -> Vec<String> {
        let mut args = vec!["--at".to_owned(), format!("lsn:{}", self.lsn)];
        args.extend(self.exclusive.then(|| "--exclusive".to_owned()));
        args.extend(self.timeline.into_iter().flat_map(|timeline| ["--timeline".to_owned(), timeline.to_string()]));
        args
    }

    fn recovery_timeline(&self) -> String {
        self.timeline.map_or("latest".to_owned(), |timeline| timeline.to_string())
    }

    /// What Postgres is asked for.
    fn conf(&self) -> Vec<String> {
        let on_off = |on: bool| if on { "on" } else { "off" };
        vec![
            format!("recovery_target_lsn = '{}'", self.lsn),
            format!("recovery_target_inclusive = {}", on_off(!self.exclusive)),
            format!("recovery_target_timeline = '{}'", self.recovery_timeline()),
            format!("track_commit_timestamp = {}", on_off(self.tracks_commit_times)),
        ]
    }
}

/// Half of them where something happened, half anywhere; a quarter on the timeline that was given up, if there is one. In the order in which recovery
/// comes by them, way after way.
fn choose(dice: &mut Dice, past: &Past, row: &Row, ways: &[Way], count: usize) -> Vec<Moment> {
    let from = consistent(past);
    // Little may have happened on a timeline before it was given up.
    let ways: Vec<&Way> = ways.iter().filter(|way| way.notable.iter().filter(|n| n.start >= from).count() > 1).collect();
    let mut moments: Vec<Moment> = (0..count)
        .map(|i| {
            let way = ways[usize::from(ways.len() > 1 && dice.roll(4) == 0)];
            let usable: Vec<&Notable> = way.notable.iter().filter(|n| n.start >= from).collect();
            let last = usable.last().expect("something happened").start;
            let lsn = match i % 4 {
                0 => usable[dice.roll(usable.len() - 1)].end,
                1 => usable[dice.roll(usable.len() - 1)].start,
                _ => Lsn(from.0 + dice.roll(usize::try_from(last.0 - from.0).expect("64 bits")) as u64),
            };
            let exclusive = dice.roll(3) != 0;
            let replayed = |n: &&Notable| if exclusive { n.end <= lsn } else { n.start <= lsn };
            let before = way.notable.iter().take_while(replayed).filter_map(|n| n.tracks_commit_times);
            let tracks_commit_times = before.last().unwrap_or(row.conf.contains(&"track_commit_timestamp = on"));
            Moment { lsn, exclusive, timeline: way.timeline, tracks_commit_times }
        })
        .collect();
    moments.sort_by_key(|moment| (moment.timeline, moment.lsn, !moment.exclusive));
    moments
}

/// `full_page_writes` is not among them: the recovered server has already gone over to its own setting. What recovery takes from a checkpoint where it
/// begins and not from one that it comes by (`xlog_redo`) is compared only if it began where ours did, `at_one_go`. When transaction status goes away,
/// recovery leaves the oldest xid as it is until the next checkpoint (`clog_redo`), where the primary's moves, and ours. The next xid is ours and a
/// standby's ([`Oracle::announced`]).
fn assert_same_counters(ours: &ControlFile, recovered: &Recovered, way: &Way, at_one_go: bool) {
    let mut native = recovered.control.clone();
    let replayed = way.notable.iter().filter(|n| n.end <= recovered.stopped_at);
    let oldest_status = replayed.filter_map(|n| n.oldest_status).next_back();
    native.checkpoint.next_xid = way.next_xid(recovered);
    if let Some((xid, database)) = oldest_status.filter(|(xid, _)| (1..1 << 31).contains(&xid.wrapping_sub(native.checkpoint.oldest_xid))) {
        (native.checkpoint.oldest_xid, native.checkpoint.oldest_xid_database) = (xid, database);
    }
    let counters = |control: &ControlFile| {
        let c = control.checkpoint;
        let from_start = at_one_go.then_some([
            ("database of the oldest xid", c.oldest_xid_database),
            ("database of the oldest multixact", c.oldest_multi_database),
            ("oldest xid with a commit time", c.oldest_commit_ts_xid),
        ]);
        let always = [
            ("next xid", c.next_xid),
            ("next oid", c.next_oid.into()),
            ("next multixact", c.next_multi.into()),
            ("next multixact offset", c.next_multi_offset.into()),
            ("oldest xid", c.oldest_xid.into()),
            ("oldest multixact", c.oldest_multi.into()),
            ("newest xid with a commit time", c.newest_commit_ts_xid.into()),
        ];
        (always, from_start)
    };
    assert_eq!(counters(ours), counters(&native));
}

/// Mounts a moment read-only and compares all of it.
fn compare_files(past: &Past, oracle: &Oracle<'_>, way: &Way, native: &Recovered, at_one_go: bool, args: &[String], checksums: bool) {
    let dir = past.world.dir("mnt-compared");
    let runner = past.world.bygone(["mount", "--foreground", "--replay", "bygone"]).args(args).arg(&dir).by_root();
    let ours = MountGuard::start(&runner, &dir);
    let control = read_control(ours.dir()).expect("pg_control of the mount");
    let history = ours.dir().join(format!("pg_wal/{:08X}.history", control.checkpoint.timeline));
    let history = fs_err::read_to_string(history).expect("history of the mount's timeline");
    let branched: Lsn =
        history.lines().last().and_then(|line| line.split_whitespace().nth(1)).expect("a position").parse().expect("a position");
    assert_eq!(oracle.behind_header(branched), oracle.behind_header(native.stopped_at), "where recovery stops");
    assert_same_counters(&control, native, way, at_one_go);
    compare::assert_same(ours.dir(), native.cluster.data());
    // There is no pg_checksums of 14 here, and no other version takes its clusters.
    if checksums && past.cluster.major() > 14 {
        past.cluster.client("pg_checksums").args(["--check", "-D"]).arg(ours.dir()).ok();
    }
    assert_eq!(ours.log_text(), "", "nothing to complain about");
    assert_eq!(ours.terminate(), Some(0));
}

/// A server on the moment says what the recovered one says, finds nothing wrong, and survives a crash.
fn compare_servers(past: &Past, native: &Recovered, args: &[String]) {
    let dir = past.world.dir("mnt-served");
    let overlay = past.world.join("overlay-served");
    drop(fs_err::remove_dir_all(&overlay));
    let runner =
        past.world.bygone(["mount", "--foreground", "--replay", "bygone", "--overlay"]).arg(&overlay).args(args).arg(&dir).by_root();
    let mount = MountGuard::start(&runner, &dir);
    let clone = TestCluster::existing(&past.world, past.cluster.major(), "served", mount.dir());
    clone.configure(&["autovacuum = off", "track_commit_timestamp = off"]);
    clone.start();
    native.cluster.start();
    let open = |cluster: &TestCluster| {
        wait_until("a server to be writable", Duration::from_secs(60), || {
            cluster.try_psql("select pg_is_in_recovery()").stdout.trim() == "f"
        })
    };
    open(&clone);
    open(&native.cluster);
    let (ours, theirs) = (dump(&clone), dump(&native.cluster));
    let different = ours.iter().zip(&theirs).find(|(a, b)| a != b);
    assert!(ours == theirs, "pg_dumpall differs: {different:?}");
    let seen = "select xid_text from (select transaction::text || gid xid_text from pg_prepared_xacts) x union all select external_id || remote_lsn from pg_replication_origin_status order by 1";
    assert_eq!(clone.psql(seen), native.cluster.psql(seen));
    clone.client("pg_amcheck").args(["--all", "--heapallindexed", "--parent-check"]).ok();
    clone.psql("create table after_start as select generate_series(1, 1000) a; update heap set v = v || 'x'; checkpoint; delete from heap where id % 2 = 0");
    clone.crash();
    clone.start();
    assert_eq!(clone.psql("select count(*) from after_start"), "1000");
    clone.psql("vacuum (freeze)");
    clone.stop();
    native.cluster.stop();
    assert_eq!(mount.terminate(), Some(0));
}

fn every_moment_equals_recovery(row: &Row, count: usize) {
    if postgres_is_missing(row.major) || fuse_is_missing() {
        return;
    }
    let seed = seed();
    eprintln!("Postgres {}, {} MB segments: BYGONE_TEST_SEED={seed}", row.major, row.segment_mb);
    let mut dice = Dice(seed);
    let past = stormy_past(row, &mut dice, duration(count));
    let since = Instant::now();
    past.here();
    eprintln!("archived in {:.1?}", since.elapsed());
    let oracle = Oracle::new(&past.world, &past.cluster, &past.repository, &past.label);
    eprintln!("unpacked, {:.1?} since the storm", since.elapsed());
    let start = past.repository.manifest(&past.cluster, &past.label).header.start_lsn;
    let newest = oracle.newest_path();
    let mut ways = vec![Way::new(&oracle, start, newest.clone(), None)];
    if newest != TimelinePath::single(Timeline(1)) {
        ways.push(Way::new(&oracle, start, TimelinePath::single(Timeline(1)), Some(Timeline(1))));
    }
    let mut judge = Judge { oracle: &oracle, halt: None };
    let mut equal = 0;
    for (i, moment) in choose(&mut dice, &past, row, &ways, count).iter().enumerate() {
        eprintln!("moment {i}: {:?}", moment.args());
        let since = Instant::now();
        // Some from the backup at one go: that recovery may halt on its way is Postgres's promise, and not ours.
        let at_one_go = i % AT_ONE_GO == 0;
        let native = match judge.recover(moment, at_one_go) {
            Ok(native) => native,
            // It wants the parent's file of the segment in which a timeline forks off, to read its last record again; the archive has only the newer one's.
            Err(log) if log.contains("has already been removed") => {
                eprintln!("Postgres itself cannot stop at the end of a timeline");
                continue;
            }
            Err(log) => panic!("recovery failed:\n{log}"),
        };
        let recovered = since.elapsed();
        let way = ways.iter().find(|way| way.timeline == moment.timeline).expect("a way");
        compare_files(&past, &oracle, way, &native, at_one_go, &moment.args(), row.checksums && i % 4 == 0);
        eprintln!("recovered in {recovered:.1?}, compared in {:.1?}", since.elapsed() - recovered);
        if !replayed_equals(&past, &native, &moment.args(), &moment.conf()) {
            eprintln!("no checkpoint lies between the backup and this moment");
        }
        if i % SERVED == 0 {
            compare_servers(&past, &native, &moment.args());
            eprintln!("served too, {:.1?} in all", since.elapsed());
        }
        equal += 1;
    }
    eprintln!("Postgres {}, {} MB segments, seed {seed}: {equal} of {count} moments compared, all equal", row.major, row.segment_mb);
}

/// Of so many moments one is recovered from the backup at one go, and with one a server runs.
const AT_ONE_GO: usize = 5;
const SERVED: usize = 10;

/// Recovers to moment after moment, each from a halt at most a few behind it rather than from the backup.
struct Judge<'a> {
    oracle: &'a Oracle<'a>,
    /// Where it stands, on the way to which timeline.
    halt: Option<(Halt, Option<Timeline>)>,
}

impl Judge<'_> {
    fn recover(&mut self, moment: &Moment, at_one_go: bool) -> Result<Recovered, String> {
        let conf = moment.conf();
        let conf: Vec<&str> = conf.iter().map(String::as_str).collect();
        if at_one_go {
            return self.oracle.try_recover(&conf);
        }
        let halt = match self.halt.take() {
            Some((halt, timeline)) if timeline == moment.timeline => halt,
            _ => self.oracle.halt(),
        };
        let Some(halt) = self.oracle.advance(halt, moment.lsn, &moment.recovery_timeline()) else {
            return self.oracle.try_recover(&conf);
        };
        let native = self.oracle.try_recover_further(&halt, &conf);
        self.halt = Some((halt, moment.timeline));
        native
    }
}

const ROWS: [Row; 8] = [
    Row { major: 15, segment_mb: 16, checksums: false, timelines: false, aged: true, conf: &["wal_compression = zstd"] },
    Row { major: 18, segment_mb: 1, checksums: true, timelines: true, aged: false, conf: &[] },
    Row {
        major: 14,
        segment_mb: 1,
        checksums: true,
        timelines: false,
        aged: false,
        conf: &["wal_compression = on", "track_commit_timestamp = on"],
    },
    Row {
        major: 16,
        segment_mb: 64,
        checksums: false,
        timelines: false,
        aged: false,
        conf: &["wal_log_hints = on", "wal_level = logical"],
    },
    Row { major: 17, segment_mb: 16, checksums: true, timelines: true, aged: false, conf: &["wal_compression = lz4"] },
    Row {
        major: 15,
        segment_mb: 1,
        checksums: true,
        timelines: true,
        aged: false,
        conf: &["wal_compression = lz4", "full_page_writes = off"],
    },
    Row { major: 18, segment_mb: 16, checksums: true, timelines: false, aged: true, conf: &["track_commit_timestamp = on"] },
    Row { major: 14, segment_mb: 16, checksums: false, timelines: true, aged: false, conf: &[] },
];

/// All rows of the kind in the long form, else the first one.
fn rows(timelines: bool) {
    let count = if std::env::var_os("BYGONE_TEST_MOMENTS").is_some() { ROWS.len() } else { 1 };
    for row in ROWS.iter().filter(|row| row.timelines == timelines && chosen(row.major, row.segment_mb)).take(count) {
        every_moment_equals_recovery(row, moments(3));
    }
}

#[test]
fn any_moment_of_a_storm_equals_what_postgres_recovers() {
    rows(false);
}

#[test]
fn any_moment_of_a_storm_with_promotions_equals_what_postgres_recovers() {
    rows(true);
}

/// `BYGONE_TEST_ROWS=14/1,18/16` leaves the other rows of the matrix away.
pub(super) fn chosen(major: u16, segment_mb: u32) -> bool {
    let name = format!("{major}/{segment_mb}");
    std::env::var("BYGONE_TEST_ROWS").map_or(true, |names| names.split(',').any(|n| n == name))
}
