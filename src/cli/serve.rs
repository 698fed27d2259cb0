//! Serves a mount in this process until it is unmounted, and starts a process in the background that does.

use std::io::{BufRead as _, BufReader};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use bygone_mount::{Mount, MountHandle, Options, Source};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use super::report::print;

/// What a process in the background says on its standard output once the files are there, before a line for the user. A line of JSON stands alone.
const READY: &str = "ready";

/// How often a watch ticks.
const TICK: Duration = Duration::from_secs(1);

/// Somebody who wants to know how a mount is doing.
pub(super) trait Watch: Sync {
    /// The files are there. Returns a line for the user.
    fn ready(&self, mount: &MountHandle) -> anyhow::Result<String>;

    /// A second has passed, or somebody asked with SIGUSR1.
    fn tick(&self, _mount: &MountHandle, _asked: bool) {}

    /// It has been unmounted.
    fn ended(&self, _mount: &MountHandle) {}
}

/// Mounts, and returns once it has been unmounted: by SIGTERM or SIGINT to this process, or by anybody else.
pub(super) fn serve(source: Arc<dyn Source>, options: &Options, watch: &impl Watch) -> anyhow::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGUSR1]).context("catch signals")?;
    let control = signals.handle();
    let mount = Mount::start(source, options)?;
    let line = watch.ready(&mount)?;
    print(&if is_json(&line) { format!("{line}\n") } else { format!("{READY}\n{line}\n") });
    let ended = AtomicBool::new(false);
    let result = std::thread::scope(|threads| {
        threads.spawn(|| {
            for signal in signals.forever() {
                match signal {
                    SIGUSR1 => watch.tick(&mount, true),
                    // The terminal that it was started from has gone: no reason to go too, where a server may be running.
                    SIGHUP => {}
                    _ => unmount(&mount),
                }
            }
        });
        let ticker = threads.spawn(|| {
            while !ended.load(Ordering::Acquire) {
                std::thread::park_timeout(TICK);
                watch.tick(&mount, false);
            }
        });
        let result = mount.wait();
        ended.store(true, Ordering::Release);
        ticker.thread().unpark();
        control.close();
        result
    });
    watch.ended(&mount);
    Ok(result?)
}

fn is_json(line: &str) -> bool {
    line.starts_with('{')
}

fn unmount(mount: &MountHandle) {
    if let Err(error) = mount.unmount() {
        tracing::error!(hint = error.hint(), "still mounted: {error}");
    }
}

/// Whoever reads a pipe waits until nobody can write to it any more: a process in the background must not keep it.
fn is_pipe(file: impl AsFd) -> bool {
    rustix::fs::fstat(file).is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Fifo)
}

/// Starts a command that [`serve`]s, in a process group of its own, and returns when its files are there: the line for the user, or the code that
/// it ended with, its error having been printed.
pub(super) fn in_background(mut command: Command) -> anyhow::Result<Result<String, ExitCode>> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
    if is_pipe(std::io::stderr()) {
        command.stderr(Stdio::piped());
    }
    let mut child = command.spawn().context("start the mount in the background")?;
    let told = child.stderr.take().map(|mut err| std::thread::spawn(move || std::io::copy(&mut err, &mut std::io::stderr())));
    let out = child.stdout.take().context("read what the mount says")?;
    let mut lines = BufReader::new(out).lines();
    let ready = lines.next().transpose().context("read what the mount says")?;
    if let Some(line) = ready.as_ref().filter(|line| is_json(line)) {
        return Ok(Ok(line.clone()));
    }
    if ready.as_deref() != Some(READY) {
        drop(told.map(JoinHandle::join));
        let code = child.wait().context("wait for the mount")?.code().and_then(|code| u8::try_from(code).ok());
        return Ok(Err(ExitCode::from(code.filter(|code| *code != 0).unwrap_or(1))));
    }
    Ok(Ok(lines.next().transpose().context("read what the mount says")?.unwrap_or_default()))
}
