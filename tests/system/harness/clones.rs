//! Clones that never outlive their test.

use std::path::PathBuf;

use serde_json::Value;

use super::cluster::TestCluster;
use super::mount::MountGuard;
use super::run::Runner;
use super::tools::required_program;
use super::world::World;

/// The clones of a world's cluster. Dropped, no mount and no server of one is left.
#[derive(Clone, Copy)]
pub(crate) struct Clones<'a> {
    pub(crate) world: &'a World,
    pub(crate) cluster: &'a TestCluster,
}

impl Clones<'_> {
    pub(crate) fn dir(&self) -> PathBuf {
        self.world.join("clones")
    }

    /// `bygone clone …` as whoever runs the tests, root as a rule.
    pub(crate) fn run(&self, args: &[&str]) -> Runner {
        self.run_by_postgres(args).by_root()
    }

    pub(crate) fn run_by_postgres(&self, args: &[&str]) -> Runner {
        let bin = required_program(self.cluster.major(), "postgres");
        self.world
            .bygone(["clone"])
            .args(args)
            .env("BYGONE_CLONE_DIRECTORY", self.dir())
            .env("BYGONE_CLUSTER_MAIN_BIN_DIRECTORY", bin.parent().expect("a program is in a directory"))
    }

    pub(crate) fn list(&self) -> Vec<Value> {
        serde_json::from_str(&self.run(&["list", "--json"]).ok()).expect("a JSON array")
    }

    pub(crate) fn one(&self, name: &str) -> Value {
        self.list().into_iter().find(|clone| clone["name"] == name).expect("the clone is listed")
    }

    pub(crate) fn psql(&self, name: &str, sql: &str) -> String {
        let clone = self.one(name);
        let text = |field: &str| clone[field].as_str().expect("a text").to_owned();
        let psql = self.cluster.client("psql").env("PGHOST", text("socket_directory")).env("PGPORT", clone["port"].to_string());
        psql.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c", sql]).ok().trim_end().to_owned()
    }

    /// Kills the process behind a clone's mount.
    pub(crate) fn kill_mount(&self, name: &str) {
        let status = fs_err::read_to_string(self.dir().join(name).join("status.json")).expect("status.json is there");
        let status: Value = serde_json::from_str(&status).expect("status.json is JSON");
        Runner::new("kill").by_root().args(["-KILL", &status["pid"].to_string()]).ok();
        super::wait_until("the mount to be dead", std::time::Duration::from_secs(10), || self.one(name)["state"] == "dead");
    }

    /// The log of a clone's server.
    pub(crate) fn log(&self, name: &str) -> String {
        fs_err::read_to_string(self.dir().join(name).join("server/log")).expect("the server has a log")
    }

    /// Ends everything that runs, whatever the test did.
    pub(crate) fn clear(&self) {
        let Ok(entries) = fs_err::read_dir(self.dir()) else { return };
        for folder in entries.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| path.is_dir()) {
            if std::thread::panicking() {
                for log in ["server/log", "mount.log"] {
                    eprintln!("--- {log} of {}\n{}", folder.display(), fs_err::read_to_string(folder.join(log)).unwrap_or_default());
                }
            }
            if let Ok(pid) = fs_err::read_to_string(folder.join("server/pid")) {
                Runner::new("kill").by_root().args(["-QUIT", pid.trim()]).run();
            }
            drop(MountGuard::watch(&folder.join("data")));
        }
    }
}
