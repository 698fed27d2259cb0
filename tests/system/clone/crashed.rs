//! A clone starts again whatever its server left when it was killed.

use std::process::{Command, Stdio};
use std::time::Duration;

use super::super::harness::run::{Runner, is_root};
use super::super::harness::wait_until;
use super::super::harness::world::set_mode;
use super::{Past, cannot_run};

#[test]
fn clone_starts_beside_the_lock_that_a_killed_server_has_left() {
    if cannot_run(15) {
        return;
    }
    let past = Past::new(15);
    past.create("then").ok();
    past.psql("then", "create table mine as select generate_series(1, 100) as a");
    let server = past.clones().dir().join("then/server");
    past.clones().kill_mount("then");
    past.clone(&["stop", "then"]).ok();
    // A process of the same user has the number now.
    let mut other = Runner::new("sleep").arg("600").command().stdin(Stdio::null()).spawn().expect("sleep can be run");
    let pid = || Command::new("pgrep").args(["-P", &other.id().to_string()]).output().expect("pgrep can be run").stdout;
    wait_until("sleep to run", Duration::from_secs(10), || !is_root() || !pid().is_empty());
    let pid = String::from_utf8(pid()).expect("a number");
    let pid = if pid.is_empty() { other.id().to_string() } else { pid.trim().to_owned() };
    let port = past.one("then")["port"].to_string();
    for name in [format!(".s.PGSQL.{port}.lock"), "pid".to_owned()] {
        let data = past.clones().dir().join("then/data");
        let text = format!("{pid}\n{}\n0\n{port}\n{}\n", data.display(), server.display());
        let path = server.join(name);
        fs_err::write(&path, text).expect("file of a test");
        set_mode(&path, 0o600);
        past.world.give_to_postgres(&path);
    }
    let started = past.clone(&["start", "then"]).run();
    Runner::new("kill").by_root().arg(&pid).run();
    other.wait().expect("a child can be waited for");
    started.ok();
    assert_eq!(past.psql("then", "select count(*) from mine"), "100");
}

#[test]
fn clone_waits_for_the_server_that_still_dies() {
    if cannot_run(15) {
        return;
    }
    let past = Past::new(15);
    past.create("then").ok();
    past.psql("then", "create table mine as select generate_series(1, 100) as a");
    let pid_file = past.clones().dir().join("then/server/pid");
    let pid = fs_err::read_to_string(&pid_file).expect("the server has a pid").trim().to_owned();
    Runner::new("kill").by_root().args(["-STOP", &pid]).ok();
    past.clones().kill_mount("then");
    // It goes first when a server ends.
    fs_err::remove_file(pid_file).expect("the server had a pid");
    std::thread::scope(|threads| {
        threads.spawn(|| {
            std::thread::sleep(Duration::from_secs(2));
            Runner::new("kill").by_root().args(["-CONT", &pid]).run();
        });
        past.clone(&["start", "then"]).ok();
    });
    assert_eq!(past.psql("then", "select count(*) from mine"), "100");
}

#[test]
fn clone_starts_although_its_servers_first_process_was_killed() {
    if cannot_run(15) {
        return;
    }
    let past = Past::new(15);
    past.create("then").ok();
    past.psql("then", "create table mine as select generate_series(1, 100) as a");
    let clone = past.one("then");
    let socket = clone["socket_directory"].as_str().expect("a text").to_owned();
    let busy = past.cluster.client("psql").env("PGHOST", &socket).env("PGPORT", clone["port"].to_string());
    // It does not look whether the first process lives.
    let mut busy = busy.args(["-c", "select count(*) from generate_series(1, 2000000000)"]).command();
    let mut busy = busy.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("psql can be run");
    let is_busy = || past.psql("then", "select count(*) from pg_stat_activity where query like '%2000000000)'") == "1";
    wait_until("the query to run", Duration::from_secs(10), is_busy);
    let pid = fs_err::read_to_string(past.clones().dir().join("then/server/pid")).expect("the server has a pid");
    Runner::new("kill").by_root().args(["-KILL", pid.trim()]).ok();
    wait_until("the server to be gone", Duration::from_secs(10), || past.one("then")["state"] == "mounted");
    past.clone(&["start", "then"]).ok();
    busy.wait().expect("a child can be waited for");
    assert_eq!(past.psql("then", "select count(*) from mine"), "100");
}
