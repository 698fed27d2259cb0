//! A mount that never outlives its test.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::run::{Ran, Runner};
use super::wait_for;

/// A process that serves a mount, and the mount itself. Both are gone after drop, whatever the test did.
pub(crate) struct MountGuard {
    dir: PathBuf,
    child: Option<Child>,
    stderr: PathBuf,
}

impl MountGuard {
    /// Guards a mount point that something else mounts.
    pub(crate) fn watch(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), child: None, stderr: PathBuf::new() }
    }

    /// Starts a program that mounts `dir` and stays in the foreground; returns once the mount is there. What it logs goes to `<dir>.log`.
    pub(crate) fn start(runner: &Runner, dir: &Path) -> Self {
        Self::try_start(runner, dir).unwrap_or_else(|log| panic!("the mount ended before it was there:\n{log}"))
    }

    /// Like [`MountGuard::start`]; gives what the program logged if it ends before the mount is there.
    pub(crate) fn try_start(runner: &Runner, dir: &Path) -> Result<Self, String> {
        let stderr = dir.with_extension("log");
        let log = fs_err::File::create(&stderr).expect("log of a mount").into_parts().0;
        let mut command = runner.command();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().expect("the program can be run");
        let mut guard = Self { dir: dir.to_owned(), child: Some(child), stderr };
        let mounted = wait_for(&format!("{} to be mounted", dir.display()), Duration::from_secs(60), || {
            let ended = guard.child.as_mut().and_then(|child| child.try_wait().expect("a child can be waited for"));
            if ended.is_some() { Some(false) } else { is_mounted(dir).then_some(true) }
        });
        if mounted { Ok(guard) } else { Err(guard.log_text()) }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// What the serving process has logged.
    pub(crate) fn log_text(&self) -> String {
        fs_err::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// Asks the serving process to unmount, with SIGTERM, and returns its exit code.
    pub(crate) fn terminate(mut self) -> Option<i32> {
        let child = self.child.as_mut().expect("a mount that this guard started");
        signal(child, "-TERM");
        let ended = || child.try_wait().expect("a child can be waited for");
        let status = wait_for("the mount to end after SIGTERM", Duration::from_secs(20), ended);
        assert!(!is_mounted(&self.dir), "{} is still mounted after SIGTERM", self.dir.display());
        self.child = None;
        status.code()
    }

    /// Kills the serving process, as the kernel's OOM killer would; the dead mount point is cleared.
    pub(crate) fn kill(mut self) {
        let child = self.child.as_mut().expect("a mount that this guard started");
        signal(child, "-KILL");
        child.wait().expect("a killed child can be waited for");
        self.child = None;
        unmount(&self.dir);
    }
}

impl Drop for MountGuard {
    fn drop(&mut self) {
        unmount(&self.dir);
        if let Some(mut child) = self.child.take() {
            signal(&child, "-KILL");
            drop(child.wait());
        }
        if std::thread::panicking() {
            eprintln!("--- log of the mount at {}\n{}", self.dir.display(), self.log_text());
        }
    }
}

/// Signals a child and, where `runuser` stands between us and it, the program itself: `runuser` passes no SIGKILL on.
pub(crate) fn signal(child: &Child, signal: &str) {
    let pid = child.id().to_string();
    let grandchildren =
        Command::new("ps").args(["-o", "pid=", "--ppid", &pid]).output().map(|out| String::from_utf8_lossy(&out.stdout).into_owned());
    let targets = grandchildren.unwrap_or_default();
    let mut pids: Vec<&str> = targets.split_whitespace().collect();
    if pids.is_empty() {
        pids.push(&pid);
    }
    // A process that has just ended cannot be signalled, which is as good.
    let _status = Command::new("kill").arg(signal).args(pids).stderr(Stdio::null()).status();
}

/// Is something mounted at `dir`?
pub(crate) fn is_mounted(dir: &Path) -> bool {
    let wanted = dir.to_str().expect("test paths are UTF-8");
    let mounts = fs_err::read_to_string("/proc/self/mounts").expect("/proc is there");
    mounts.lines().any(|line| line.split(' ').nth(1) == Some(wanted))
}

fn unmount(dir: &Path) {
    if !is_mounted(dir) {
        return;
    }
    let lazily: Ran = Runner::new("umount").by_root().arg("-l").arg(dir).run();
    if lazily.code != Some(0) {
        Runner::new("fusermount3").args(["-u", "-z"]).arg(dir).run();
    }
}
