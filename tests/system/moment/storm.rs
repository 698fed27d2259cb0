//! A mixed load on a cluster: everything at once that leaves traces in WAL, with crashes and restarts in between.

use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::super::harness::{TestCluster, World};

const ACTS: &str = include_str!("storm.sql");
const BEFORE: &str = include_str!("storm-before.sql");
const LOAD: &str = include_str!("storm-load.sql");

/// Settings that differ from one restart to the next; all matter to recovery.
const RESTARTS: [[&str; 2]; 5] = [
    ["track_commit_timestamp = on", "max_connections = 110"],
    ["wal_log_hints = on", "max_worker_processes = 12"],
    ["track_commit_timestamp = off", "max_locks_per_transaction = 80"],
    ["track_commit_timestamp = on", "wal_level = logical"],
    ["full_page_writes = on", "max_wal_senders = 6"],
];

/// What a standby needs to replay WAL from before and after any of them.
pub(super) const ENOUGH: [&str; 4] =
    ["max_connections = 110", "max_worker_processes = 12", "max_locks_per_transaction = 80", "max_wal_senders = 6"];

/// Numbers that look random and are the same for the same seed (splitmix64).
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((z ^ (z >> 31)) % sides as u64).expect("less than a usize")
    }
}

struct Act {
    name: &'static str,
    sql: String,
}

/// The storm over one cluster.
pub(super) struct Storm<'a> {
    cluster: &'a TestCluster,
    world: &'a World,
    dice: Dice,
    acts: Vec<Act>,
    /// Number of the next act.
    pub(super) run: usize,
    /// How often each act was run and how often it went through.
    tally: BTreeMap<&'static str, (u32, u32)>,
    last_failure: BTreeMap<&'static str, String>,
    loads: Vec<Child>,
    /// A backup is being taken: no restarts, and no database is copied or moved file by file, which Postgres itself cannot recover from such a backup
    /// (the source may change, or go away, before the backup comes to it).
    pub(super) during_backup: bool,
    /// Some interruptions end in a promotion, on a timeline of its own.
    pub(super) promotions: bool,
}

impl<'a> Storm<'a> {
    /// Makes what the acts need. The tables of `moment/before.sql` are there already.
    pub(super) fn gather(world: &'a World, cluster: &'a TestCluster, seed: u64) -> Storm<'a> {
        cluster.client("psql").args(["-X", "-q", "-v", "ON_ERROR_STOP=1"]).run_with_input(BEFORE).ok();
        cluster.client("pgbench").args(["-i", "-q", "-s", "1"]).ok();
        world.file("load.sql", LOAD);
        Storm::resume(world, cluster, seed, 1)
    }

    /// Goes on where a storm over this cluster, or over an earlier life of it, ended.
    pub(super) fn resume(world: &'a World, cluster: &'a TestCluster, seed: u64, run: usize) -> Storm<'a> {
        Storm {
            cluster,
            world,
            dice: Dice(seed),
            acts: acts(cluster.major()),
            run,
            tally: BTreeMap::new(),
            last_failure: BTreeMap::new(),
            loads: Vec::new(),
            during_backup: false,
            promotions: false,
        }
    }

    /// Rages for at least this long, and until every act has gone through once if `all`.
    pub(super) fn rage(&mut self, at_least: Duration, all: bool) {
        let (since, limit) = (Instant::now(), at_least + Duration::from_secs(900));
        let mut order: Vec<usize> = Vec::new();
        self.start_load();
        let done = |storm: &Self| !all || storm.acts.iter().all(|act| storm.tally.get(act.name).is_some_and(|(_, good)| *good > 0));
        while since.elapsed() < at_least || !done(self) {
            assert!(since.elapsed() < limit, "some acts never go through: {:#?}", self.last_failure);
            if order.is_empty() {
                order = (0..self.acts.len()).collect();
                for i in (1..order.len()).rev() {
                    order.swap(i, self.dice.roll(i + 1));
                }
                if self.run > 1 && !self.during_backup {
                    self.interrupt();
                }
            }
            let act = order.pop().expect("not empty");
            if !self.during_backup || !self.acts[act].name.starts_with("database-") {
                self.act(act);
            }
        }
        self.stop_load();
        let failed: Vec<_> = self.tally.iter().filter(|(_, (runs, good))| runs != good).collect();
        eprintln!("storm: {} acts in {:.1?}; failed (of): {failed:?}", self.run, since.elapsed());
    }

    fn act(&mut self, number: usize) {
        let act = &self.acts[number];
        let earlier = self.run.saturating_sub(1 + self.dice.roll(60));
        let sql = act.sql.replace("{r}", &self.run.to_string()).replace("{p}", &earlier.to_string());
        let psql = self.cluster.client("psql").env("PGOPTIONS", "-c lock_timeout=2s -c statement_timeout=20s");
        let ran = psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]).run_with_input(&sql);
        let (runs, good) = self.tally.entry(act.name).or_default();
        *runs += 1;
        if ran.code == Some(0) {
            *good += 1;
        } else {
            self.last_failure.insert(act.name, ran.stderr);
        }
        self.run += 1;
    }

    /// A crash, or a restart with other settings; after either a promotion, perhaps.
    fn interrupt(&mut self) {
        let settings = RESTARTS[self.dice.roll(RESTARTS.len())];
        if self.dice.roll(2) == 0 {
            self.cluster.crash();
            self.stop_load();
        } else {
            self.stop_load();
            self.cluster.configure(&settings);
            self.cluster.stop();
        }
        let promoted = self.promotions && self.dice.roll(2) == 0;
        if promoted {
            self.cluster.configure(&[&format!("restore_command = '{}'", restore_command(self.world))]);
            fs_err::write(self.cluster.data().join("standby.signal"), "").expect("standby.signal");
        }
        self.cluster.start();
        if promoted {
            self.cluster.promote();
        }
        let ready = || self.cluster.try_psql("select pg_is_in_recovery()").stdout.trim() == "f";
        super::super::harness::wait_until("the cluster to be back", Duration::from_secs(60), ready);
        self.start_load();
    }

    fn start_load(&mut self) {
        let script = self.world.join("load.sql");
        let builtin = self.cluster.client("pgbench").args(["-n", "-c", "2", "-R", "150", "-T", "3600", "-b", "tpcb-like"]);
        let ours = self.cluster.client("pgbench").args(["-n", "-c", "5", "-R", "400", "-T", "3600", "--max-tries=10", "-f"]).arg(&script);
        for load in [builtin, ours] {
            let mut command = load.command();
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            self.loads.push(command.spawn().expect("pgbench starts"));
        }
        self.start_regression_suite();
    }

    /// With `BYGONE_TEST_REGRESS=DIR`, `src/test/regress` of a Postgres source tree: its SQL too, in another order each time. Much of it fails without the
    /// suite's C library, with another version's grammar, and after an earlier run; no matter. Left out: prepared transactions would block `pg_dump`, and subscriptions make a recovered server write.
    fn start_regression_suite(&mut self) {
        let Some(dir) = std::env::var_os("BYGONE_TEST_REGRESS") else { return };
        let dir = dir.to_str().expect("UTF-8");
        drop(self.cluster.try_psql("create database regression"));
        let schedule = fs_err::read_to_string(format!("{dir}/parallel_schedule")).expect("the suite's schedule");
        let mut tests: Vec<&str> =
            schedule.lines().filter_map(|line| line.strip_prefix("test: ")).flat_map(str::split_whitespace).collect();
        tests.retain(|test| !["test_setup", "prepared_xacts", "subscription"].contains(test));
        let first = self.dice.roll(tests.len());
        tests.rotate_left(first);
        let mut suite = self.cluster.client("psql").args(["-X", "-q", "-d", "regression"]).env("PG_ABS_SRCDIR", dir);
        suite = suite.env("PG_ABS_BUILDDIR", "/tmp").env("PG_DLSUFFIX", ".so").env("PG_LIBDIR", "/nonexistent");
        suite = suite.env("PGOPTIONS", "-c statement_timeout=20s -c lock_timeout=2s");
        for test in ["test_setup"].iter().chain(&tests) {
            suite = suite.arg("-f").arg(format!("{dir}/sql/{test}.sql"));
        }
        let mut command = suite.command();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.loads.push(command.spawn().expect("psql starts"));
    }

    fn stop_load(&mut self) {
        for mut load in self.loads.drain(..) {
            super::super::harness::mount::signal(&load, "-TERM");
            load.wait().expect("a child can be waited for");
        }
    }
}

impl Drop for Storm<'_> {
    fn drop(&mut self) {
        self.stop_load();
    }
}

/// How a server gets WAL back from the archive.
pub(super) fn restore_command(world: &World) -> String {
    format!("{} --config {} archive-get %f %p", world.program().display(), world.config().display())
}

fn acts(major: u16) -> Vec<Act> {
    let strategy = |name: &str| if major >= 15 { format!("strategy {name}") } else { String::new() };
    let (copy, log) = (strategy("file_copy"), strategy("wal_log"));
    let blocks = ACTS.split("\n-- act ").skip(1);
    blocks
        .filter_map(|block| {
            let (title, sql) = block.split_once('\n')?;
            let (name, since) = title.split_once(' ').unwrap_or((title, "0"));
            let since: u16 = since.parse().expect("a major version");
            let sql = sql.replace("{file_copy}", &copy).replace("{wal_log}", &log);
            (since <= major).then_some(Act { name, sql })
        })
        .collect()
}
