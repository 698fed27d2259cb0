//! Commands refuse what is not theirs to touch, before they touch anything, and say why.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::super::harness::mount::{MountGuard, is_mounted};
use super::super::harness::run::{Runner, is_root};
use super::super::harness::tools::required_program;
use super::super::harness::{World, wait_until};
use super::{Past, cannot_run};

fn one_value(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("not one JSON value ({error}): {text:?}"))
}

#[test]
fn umount_leaves_alone_what_bygone_has_not_mounted() {
    if !is_root() {
        eprintln!("NOT RUN: only root mounts a tmpfs");
        return;
    }
    let world = World::new();
    let dir = world.dir("other");
    Runner::new("mount").by_root().args(["-t", "tmpfs", "other"]).arg(&dir).ok();
    let _guard = MountGuard::watch(&dir);
    let umount = |path: &Path| world.bygone(["umount"]).arg(path).by_root().fails();
    umount(&dir).says("is not ours but tmpfs (other)");
    assert!(is_mounted(&dir));
    umount(Path::new("/")).says("is not ours but");
    umount(world.path()).says("nothing is mounted");
}

#[test]
fn mount_says_what_is_in_its_way() {
    if cannot_run(15) {
        return;
    }
    let past = Past::new(15);
    let dir = past.world.dir("mnt");
    let mount = |args: &[&str]| past.world.bygone(["mount"]).arg(&dir).args(args).by_root();
    let nosuch = past.world.join("nosuch");
    past.world.bygone(["mount", "--at", "latest"]).arg(&nosuch).fails().says("nosuch does not exist").says("hint: ");
    for overlay in [dir.clone(), dir.join("inside"), past.world.path().to_owned()] {
        let overlay = overlay.to_str().expect("a path of a test");
        mount(&["--at", "latest", "--overlay", overlay]).fails().says("lie one in the other");
    }
    assert_eq!(fs_err::read_dir(&dir).expect("the mount point is there").count(), 0);

    let guard = MountGuard::watch(&dir);
    // What it leaves in the background keeps standard error.
    let json = |args: &[&str]| {
        let mut command = mount(args).arg("--json").command();
        let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().expect("bygone can be run");
        one_value(&String::from_utf8(output.stdout).expect("text"))
    };
    let said = json(&["--at", "latest"]);
    assert_eq!(said["directory"].as_str(), dir.to_str());
    assert_eq!(said["replay"], "bygone");
    past.world.bygone(["umount"]).arg(&dir).by_root().ok();
    assert_eq!(json(&[])["directory"].as_str(), dir.to_str());

    past.world.bygone(["umount"]).arg(&dir).by_root().ok();

    let mut serving = mount(&["--foreground"]).command().stdout(Stdio::null()).spawn().expect("bygone can be run");
    wait_until("it to be mounted", Duration::from_secs(60), || is_mounted(&dir));
    serving.kill().expect("a child can be killed");
    serving.wait().expect("a child can be waited for");
    mount(&["--at", "latest"]).fails().says("has died").says(&format!("bygone umount {}", dir.display()));
    past.world.bygone(["umount"]).arg(&dir).by_root().ok();
    assert!(!is_mounted(&dir));
    drop(guard);
}

#[test]
fn clone_of_another_user_is_neither_stopped_nor_destroyed() {
    if cannot_run(15) {
        return;
    }
    if !is_root() {
        eprintln!("NOT RUN: only root can be two users");
        return;
    }
    let past = Past::new(15);
    let said = past.create("then").ok();
    assert!(said.contains("runuser -u postgres -- psql -h"), "{said}");
    for command in ["stop", "start", "destroy"] {
        let ran = past.clones().run_by_postgres(&[command, "then"]).fails().says("belongs to root").says("or as root");
        assert!(!ran.stderr.contains("destroy"), "{ran}");
    }
    for command in [&["list"][..], &["create", "other", "--at", "latest"]] {
        past.clones()
            .run_by_postgres(command)
            .fails()
            .says(past.clones().dir().to_str().expect("a path of a test"))
            .says("clone.directory");
    }
    assert_eq!(past.psql("then", "select count(*) from t"), "2000");
}

#[test]
fn clone_commands_print_one_json_value_and_take_no_port_twice() {
    if cannot_run(16) {
        return;
    }
    let past = Past::new(16);
    past.clone(&["destroy", "nope"]).fails().says("there is no clone nope").says("bygone clone list");
    let created = one_value(&past.create("then").arg("--json").ok());
    let json = |args: &[&str]| one_value(&past.clone(args).arg("--json").ok());
    assert_eq!(json(&["start", "then"])["state"], "running");
    assert_eq!(json(&["stop", "then"])["state"], "stopped");
    let port = created["port"].to_string();
    past.create("beside").args(["--port", &port]).fails().says(&format!("port {port} is that of clone then"));
    assert_eq!(json(&["start", "then", "--port", &port])["state"], "running");
    assert_eq!(json(&["destroy", "then", "--dry-run"])["removed"], false);
    assert_eq!(json(&["destroy", "then"])["removed"], true);
    assert!(past.list().is_empty());
}

/// As on Debian, where they lie in `/etc/postgresql`.
#[test]
fn clone_without_productions_rules_lets_its_owner_be_anybody_and_nobody_else() {
    if cannot_run(14) || !is_root() {
        return;
    }
    let past = Past::new(14);
    past.cluster.psql("create role app login");
    fs_err::remove_file(past.cluster.data().join("pg_hba.conf")).expect("pg_hba.conf was there");
    past.world.bygone(["backup"]).ok();
    past.cluster.switch_wal();
    past.clone(&["create", "then", "--at", "latest"]).ok();
    past.clone(&["stop", "then"]).ok();
    past.clone(&["start", "then"]).ok();
    let clone = past.one("then");
    let (directory, port) = (clone["socket_directory"].as_str().expect("a text").to_owned(), clone["port"].to_string());
    let psql = |user: &str| {
        let mut command = Command::new("runuser");
        command.args(["-u", user, "--"]).arg(required_program(14, "psql"));
        command.args(["-X", "-A", "-t", "-h", &directory, "-p", &port, "-U", "app", "-d", "postgres", "-c", "select current_user"]);
        let output = command.current_dir("/").output().expect("psql can be run");
        (String::from_utf8_lossy(&output.stdout).trim().to_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(psql("postgres").0, "app");
    let (said, error) = psql("nobody");
    assert!(said.is_empty() && error.contains("Permission denied"), "{said}{error}");
}
