//! A clone is the past with a server on it: its own writes, its own port, and nothing of it touches production.

mod careful;
mod crashed;

use bygone::pg::Lsn;
use serde_json::Value;

use super::harness::clones::Clones;
use super::harness::cluster::TestCluster;
use super::harness::repository::TestRepository;
use super::harness::tools::fuse_is_missing;
use super::harness::{Runner, World, postgres_is_missing};

/// A cluster with an archive, rows at a known position that are gone now, and room for clones. Dropped, no mount and no server is left.
struct Past {
    world: World,
    cluster: TestCluster,
    lsn: String,
}

impl Past {
    fn new(major: u16) -> Past {
        let world = World::new();
        let cluster = TestCluster::builder(major).archiving(&world).conf("fsync = on").start(&world);
        TestRepository::init(&world, 1, &cluster);
        cluster.configure(&["shared_preload_libraries = 'pg_cron, pg_stat_statements, surely_missing'"]);
        cluster.configure(&["unix_socket_group = 'surely_missing'", "log_destination = 'syslog'", "syslog_ident = 'production'"]);
        // What production's own recoveries have left in its files.
        let touch = format!("'touch {}'", world.join("touched").display());
        cluster.configure(&[&format!("archive_cleanup_command = {touch}"), &format!("recovery_end_command = {touch}")]);
        cluster.configure(&["recovery_target_time = '2020-01-01 00:00:00+00'", "recovery_min_apply_delay = '1h'"]);
        cluster.psql("create table t as select generate_series(1, 1000) as id");
        world.bygone(["backup"]).ok();
        cluster.psql("insert into t select generate_series(1001, 2000)");
        let lsn = cluster.psql("select pg_current_wal_insert_lsn()");
        cluster.psql("delete from t");
        let segment = cluster.switch_wal();
        cluster.wait_archived(&segment);
        Past { world, cluster, lsn }
    }

    fn clones(&self) -> Clones<'_> {
        Clones { world: &self.world, cluster: &self.cluster }
    }

    fn clone(&self, args: &[&str]) -> Runner {
        self.clones().run(args)
    }

    fn create(&self, name: &str) -> Runner {
        self.clone(&["create", name, "--exclusive", "--at", &format!("lsn:{}", self.lsn)])
    }

    fn list(&self) -> Vec<Value> {
        self.clones().list()
    }

    fn one(&self, name: &str) -> Value {
        self.clones().one(name)
    }

    fn psql(&self, name: &str, sql: &str) -> String {
        self.clones().psql(name, sql)
    }
}

impl Drop for Past {
    fn drop(&mut self) {
        self.clones().clear();
    }
}

fn cannot_run(major: u16) -> bool {
    postgres_is_missing(major) || fuse_is_missing()
}

#[test]
fn clone_shows_the_past_and_keeps_its_writes_until_it_is_destroyed() {
    if cannot_run(16) {
        return;
    }
    let past = Past::new(16);
    let said = past.create("then").ok();
    for part in
        ["clone then is the cluster at", "pg_cron is not loaded: it would run", "surely_missing is not loaded", "pages rebuilt from"]
    {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
    assert_eq!(past.psql("then", "select count(*) from t"), "2000");
    assert_eq!(past.cluster.psql("select count(*) from t"), "0");
    let settings = "select string_agg(current_setting(name), ' ' order by name) from pg_settings \
                    where name in ('archive_mode', 'shared_preload_libraries', 'listen_addresses', 'log_destination', 'syslog_ident', 'unix_socket_group')";
    assert_eq!(past.psql("then", settings), "off localhost stderr pg_stat_statements bygone");
    past.psql("then", "create table mine as select 1 as a; delete from t where id <= 500; checkpoint");
    let running = past.one("then");
    assert_eq!(running["state"], "running");
    let lsn = |text: &str| text.parse::<Lsn>().expect("an Lsn");
    assert_eq!(lsn(running["lsn"].as_str().expect("a text")), lsn(&past.lsn));
    assert!(running["local_bytes"].as_u64() > Some(0) && running["fetched_bytes"].as_u64() > Some(0), "{running}");

    past.clone(&["stop", "then"]).ok();
    assert_eq!(past.one("then")["state"], "stopped");
    past.clone(&["start", "then"]).ok();
    assert_eq!(past.psql("then", "select count(*) from t, mine"), "1500");
    assert!(past.clone(&["start", "then"]).ok().contains("running already"));

    past.create("then").fails().says("there is a clone then already");
    past.create("beside").ok();
    assert_eq!(past.psql("beside", "select count(*) from t"), "2000");
    assert_ne!(past.one("then")["port"], past.one("beside")["port"]);
    assert!(past.clone(&["destroy", "then", "--dry-run"]).ok().contains("would remove clone then"));
    for name in ["then", "beside"] {
        past.clone(&["destroy", name]).ok();
        assert!(!past.clones().dir().join(name).exists());
    }
    assert_eq!(past.clone(&["list"]).ok(), "no clones\n");
}

#[test]
fn clone_whose_mount_was_killed_starts_again_with_all_that_was_committed() {
    if cannot_run(15) {
        return;
    }
    let past = Past::new(15);
    past.create("then").ok();
    past.psql("then", "create table mine as select generate_series(1, 10000) as a; update t set id = -id");
    past.clones().kill_mount("then");
    past.clone(&["start", "then"]).ok();
    assert_eq!(past.psql("then", "select count(*) from mine"), "10000");
    assert_eq!(past.psql("then", "select count(*) from t where id < 0"), "2000");
    let log = past.clones().log("then");
    assert!(log.contains("redo starts at"), "it recovered from its own crash: {log}");
    past.clone(&["destroy", "then"]).ok();
}

/// May others than root mount here? Where not (many containers), says so aloud.
fn ordinary_users_may_mount() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let open = fs_err::metadata("/dev/fuse").is_ok_and(|meta| meta.mode() & 0o006 == 0o006);
    if !open {
        eprintln!("NOT RUN as an ordinary user but as root: /dev/fuse is closed to others");
    }
    open
}

#[test]
fn clone_writes_more_files_than_its_mount_may_have_open() {
    if postgres_is_missing(15) || fuse_is_missing() {
        return;
    }
    let past = Past::new(15);
    past.create("many").open_files(300).ok();
    past.psql("many", "do $$ begin for i in 1..1000 loop execute format('create table t%s as select %s as n', i, i); end loop; end $$");
    let sum = "select sum((xpath('/row/n/text()', query_to_xml('select n from ' || relname, false, true, '')))[1]::text::int)
         from pg_class where relname ~ '^t[0-9]+$'";
    assert_eq!(past.psql("many", sum), "500500");
    past.clone(&["stop", "many"]).ok();
    past.clone(&["start", "many"]).open_files(300).ok();
    assert_eq!(past.psql("many", sum), "500500");
    past.clone(&["destroy", "many"]).ok();
}

#[test]
fn clone_may_be_replayed_by_postgres_and_belong_to_an_ordinary_user() {
    if cannot_run(17) {
        return;
    }
    let past = Past::new(17);
    let by_postgres = ordinary_users_may_mount();
    let clone = |args: &[&str]| if by_postgres { past.clones().run_by_postgres(args) } else { past.clone(args) };
    let at = format!("lsn:{}", past.lsn);
    clone(&["create", "then", "--exclusive", "--at", &at, "--replay", "postgres"]).ok();
    assert_eq!(past.psql("then", "select count(*) from t"), "2000");
    assert_eq!(past.psql("then", "select pg_is_in_recovery()"), "f");
    clone(&["stop", "then"]).ok();
    clone(&["start", "then", "--port", "15999"]).ok();
    assert_eq!(past.one("then")["port"], 15_999);
    assert_eq!(past.psql("then", "select count(*) from t"), "2000");
    // Root may, though it cannot look into a user's mount.
    past.clone(&["destroy", "then"]).ok();
    assert!(!past.clones().dir().join("then").exists());
    assert!(!past.world.join("touched").exists(), "a command of production was run");
}

#[test]
fn clone_that_cannot_be_made_leaves_nothing() {
    if cannot_run(15) {
        return;
    }
    let past = Past::new(15);
    past.clone(&["create", "then", "--at", "lsn:F/0"]).fails().says("cannot be reached").says("reachable:");
    past.create("../then").fails().says("cannot be called");
    past.create("then")
        .env("BYGONE_CLUSTER_MAIN_BIN_DIRECTORY", "/nowhere")
        .fails()
        .says("Postgres 15 are not on this host")
        .says("/nowhere");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("it has a number").port().to_string();
    past.create("then").args(["--port", &port]).fails().says("is in use");
    past.create("then").args(["--owner", "nobody-of-this-name"]).fails().says("there is no user");
    past.clone(&["start", "then"]).fails().says("there is no clone then").says("there are none");
    assert!(past.list().is_empty());
    let closed = past.world.dir("closed");
    fs_err::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("mode of a test's directory");
    past.create("then").args(["--owner", "nobody"]).env("BYGONE_CLONE_DIRECTORY", closed.join("clones")).fails().says("cannot get to");
    past.cluster.configure(&["no_such_setting = 1"]);
    past.world.bygone(["backup"]).ok();
    past.cluster.switch_wal();
    let ran = past.clone(&["create", "then", "--at", "latest"]).fails().says("no_such_setting");
    assert!(!ran.stderr.contains("server/log"), "the log is not there any more: {ran}");
    assert!(past.list().is_empty());
}
