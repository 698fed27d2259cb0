//! A running Postgres of any major version.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::run::{Ran, Runner};
use super::tools::{program, required_program};
use super::wait_until;
use super::world::World;

/// A cluster inside a [`World`], listening on a socket in the world's directory and nowhere else. Stopped on drop.
pub(crate) struct TestCluster {
    major: u16,
    data: PathBuf,
    socket_dir: PathBuf,
    log: PathBuf,
}

/// What a cluster shall be like.
#[derive(Clone)]
pub(crate) struct Builder {
    major: u16,
    name: String,
    wal_segment_mb: u32,
    checksums: bool,
    tablespaces: Vec<String>,
    conf: Vec<String>,
}

impl TestCluster {
    /// Begins a cluster of this major version. It is called `main`, and logs WAL as `replica` with 16 MB segments and no checksums unless told otherwise.
    pub(crate) fn builder(major: u16) -> Builder {
        Builder { major, name: "main".to_owned(), wal_segment_mb: 16, checksums: false, tablespaces: Vec::new(), conf: Vec::new() }
    }

    /// A handle for a data directory that exists already: a restored one, or a mounted one. Nothing is started.
    pub(crate) fn existing(world: &World, major: u16, name: &str, data: &Path) -> Self {
        Self { major, data: data.to_owned(), socket_dir: world.dir(&format!("{name}.socket")), log: world.join(&format!("{name}.log")) }
    }

    pub(crate) fn major(&self) -> u16 {
        self.major
    }

    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    pub(crate) fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    /// A libpq connection string, as the configuration of Bygone wants it.
    pub(crate) fn connection(&self) -> String {
        format!("host={} user=postgres dbname=postgres", self.socket_dir.display())
    }

    /// A program of this cluster's version with `PGHOST`, `PGUSER`, `PGDATABASE` set.
    pub(crate) fn client(&self, name: &str) -> Runner {
        Runner::new(required_program(self.major, name))
            .env("PGHOST", &self.socket_dir)
            .env("PGUSER", "postgres")
            .env("PGDATABASE", "postgres")
            .env("PGAPPNAME", "bygone-test")
    }

    /// Runs SQL and returns what it printed: unaligned, tuples only, without the last line feed.
    pub(crate) fn psql(&self, sql: &str) -> String {
        self.try_psql(sql).ok().trim_end_matches('\n').to_owned()
    }

    /// Runs SQL that may fail.
    pub(crate) fn try_psql(&self, sql: &str) -> Ran {
        self.client("psql").args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-f", "-"]).run_with_input(sql)
    }

    /// A connection from inside the test, for sessions that stay open.
    pub(crate) fn connect(&self) -> postgres::Client {
        postgres::Client::connect(&self.connection(), postgres::NoTls).expect("the cluster takes connections")
    }

    /// `pg_waldump` of this version; 14 has none.
    pub(crate) fn pg_waldump(&self) -> Option<Runner> {
        program(self.major, "pg_waldump").map(Runner::new)
    }

    pub(crate) fn wal_dir(&self) -> PathBuf {
        self.data.join("pg_wal")
    }

    /// Where WAL stands now, for example `0/3A0002F8`.
    pub(crate) fn current_lsn(&self) -> String {
        self.psql("select pg_current_wal_insert_lsn()")
    }

    /// Ends the present WAL segment and returns its name.
    pub(crate) fn switch_wal(&self) -> String {
        self.psql("select pg_logical_emit_message(false, 'bygone', 'x'); select pg_walfile_name(pg_switch_wal())")
            .lines()
            .last()
            .expect("a name")
            .to_owned()
    }

    /// Waits until the archiver has archived this segment.
    pub(crate) fn wait_archived(&self, segment: &str) {
        let state = "select coalesce(last_archived_wal, ''), failed_count, coalesce(last_failed_wal, '') from pg_stat_archiver";
        let mut told = String::new();
        wait_until(&format!("{segment} to be archived"), Duration::from_secs(300), || {
            let now = self.psql(state);
            // One that fails is tried again, three times in a row and then once a minute.
            if now.split('|').skip(1).ne(told.split('|').skip(1)) && now.split('|').nth(1) != Some("0") {
                eprintln!("archiving fails (last archived, failures, last failed): {now}");
            }
            let archived = now.split('|').next().is_some_and(|last| last >= segment);
            told = now;
            archived
        });
    }

    /// Appends lines to `postgresql.conf`.
    pub(crate) fn configure(&self, lines: &[&str]) {
        append_conf(&self.data, lines);
    }

    pub(crate) fn reload(&self) {
        self.psql("select pg_reload_conf()");
    }

    pub(crate) fn start(&self) {
        let ran = self.try_start();
        assert!(ran.code == Some(0), "Postgres {} did not start: {ran}\n{}", self.major, self.log_text());
    }

    /// Starts it, if it can be started.
    pub(crate) fn try_start(&self) -> Ran {
        self.pg_ctl(&["-w", "-t", "600", "-l"]).arg(&self.log).arg("start").run()
    }

    /// Stops it with a shutdown checkpoint.
    pub(crate) fn stop(&self) {
        self.pg_ctl(&["-w", "-t", "600", "-m", "fast", "stop"]).ok();
    }

    /// Stops it as a power cut would, without a checkpoint.
    pub(crate) fn crash(&self) {
        self.pg_ctl(&["-w", "-t", "600", "-m", "immediate", "stop"]).ok();
    }

    /// Ends the recovery of a standby: a new timeline begins.
    pub(crate) fn promote(&self) {
        self.pg_ctl(&["-w", "-t", "600", "promote"]).ok();
    }

    pub(crate) fn is_running(&self) -> bool {
        let pid = fs_err::read_to_string(self.data.join("postmaster.pid")).unwrap_or_default();
        pid.lines().next().is_some_and(|pid| !pid.is_empty() && Path::new("/proc").join(pid).exists())
    }

    /// The server's log.
    pub(crate) fn log_text(&self) -> String {
        fs_err::read_to_string(&self.log).unwrap_or_default()
    }

    fn pg_ctl(&self, args: &[&str]) -> Runner {
        // The socket directory is given on the command line, so that a copy of the data directory can run beside the original.
        let options = format!("-k {} -c listen_addresses=", self.socket_dir.display());
        Runner::new(required_program(self.major, "pg_ctl")).arg("-D").arg(&self.data).args(["-o", &options]).args(args)
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        if self.data.join("postmaster.pid").exists() {
            self.pg_ctl(&["-w", "-t", "20", "-m", "immediate", "stop"]).run();
        }
        if std::thread::panicking() {
            let log = self.log_text();
            let from = log.lines().count().saturating_sub(60);
            let tail: Vec<&str> = log.lines().skip(from).collect();
            eprintln!("--- end of {}\n{}", self.log.display(), tail.join("\n"));
        }
    }
}

impl Builder {
    /// Another name than `main`: that of the data directory below the world's.
    pub(crate) fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Size of a WAL segment in MB.
    pub(crate) fn wal_segment_mb(mut self, size: u32) -> Self {
        self.wal_segment_mb = size;
        self
    }

    pub(crate) fn checksums(mut self, on: bool) -> Self {
        self.checksums = on;
        self
    }

    /// Makes a tablespace of this name, in a directory of the world.
    pub(crate) fn tablespace(mut self, name: &str) -> Self {
        self.tablespaces.push(name.to_owned());
        self
    }

    /// A line of `postgresql.conf`.
    pub(crate) fn conf(mut self, line: &str) -> Self {
        self.conf.push(line.to_owned());
        self
    }

    /// `archive_mode` on, with the world's `bygone archive-push` as the command.
    pub(crate) fn archiving(self, world: &World) -> Self {
        let command = format!("{} --config {} archive-push %p", world.program().display(), world.config().display());
        self.conf("archive_mode = on").conf(&format!("archive_command = '{command}'"))
    }

    /// Runs `initdb`, without starting anything.
    pub(crate) fn init(&self, world: &World) -> TestCluster {
        let data = world.join(&self.name);
        let mut initdb = Runner::new(required_program(self.major, "initdb"))
            .args(["-U", "postgres", "-A", "trust", "-N", "-E", "UTF8", "--locale=C", &format!("--wal-segsize={}", self.wal_segment_mb)])
            .arg("-D")
            .arg(&data);
        // 18 has them on by default, and only 18 knows the word for off.
        match (self.checksums, self.major) {
            (true, _) => initdb = initdb.arg("--data-checksums"),
            (false, 18..) => initdb = initdb.arg("--no-data-checksums"),
            (false, _) => {}
        }
        initdb.ok();
        append_conf(
            &data,
            &[
                "fsync = off",
                "log_checkpoints = on",
                "timezone = 'UTC'",
                "log_timezone = 'UTC'",
                "max_wal_senders = 4",
                "shared_buffers = 32MB",
            ],
        );
        append_conf(&data, &self.conf.iter().map(String::as_str).collect::<Vec<_>>());
        TestCluster::existing(world, self.major, &self.name, &data)
    }

    /// Runs `initdb`, starts Postgres and makes the tablespaces.
    pub(crate) fn start(&self, world: &World) -> TestCluster {
        let cluster = self.init(world);
        cluster.start();
        for name in &self.tablespaces {
            let location = world.dir(&format!("{}.{name}", self.name));
            cluster.psql(&format!("create tablespace {name} location '{}'", location.display()));
        }
        cluster
    }
}

fn append_conf(data: &Path, lines: &[&str]) {
    use std::io::Write as _;
    let mut conf =
        fs_err::OpenOptions::new().append(true).open(data.join("postgresql.conf")).expect("a data directory has a postgresql.conf");
    for line in lines {
        writeln!(conf, "{line}").expect("postgresql.conf is writable");
    }
}
