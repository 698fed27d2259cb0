//! `clone create|list|start|stop|destroy`: Postgres on past moments, each with its own writes.

mod create;
mod list;
mod serve;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bygone_mount::MountError;
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

use super::Context;
use super::moment::MomentArgs;
use super::report::print;
use crate::clone::server::{self, Programs, Server};
use crate::clone::{CloneError, Clones, Record, State, Status, ThinClone, port, warm};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a clone of a moment, and start Postgres on it
    Create(CreateArgs),
    /// Show all clones
    List,
    /// Start a clone that was stopped, or whose mount has died, with all that had been written to it
    Start(StartArgs),
    /// Stop a clone's server and unmount it; its writes are kept
    Stop(NameArgs),
    /// Remove a clone with all that was written to it
    Destroy(DestroyArgs),
    /// Serve the mount of a clone
    #[command(hide = true)]
    Serve(NameArgs),
}

#[derive(Debug, clap::Args)]
struct CreateArgs {
    /// What it shall be called
    name: String,
    #[command(flatten)]
    moment: MomentArgs,
    /// Port of its server, on localhost and its socket [default: a free one]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Whom the server runs as if this is root [default: clone.user, the owner of the cluster's data directory, or postgres]
    #[arg(long, value_name = "USER")]
    owner: Option<String>,
}

#[derive(Debug, clap::Args)]
struct NameArgs {
    /// Which clone
    name: String,
}

#[derive(Debug, clap::Args)]
struct StartArgs {
    /// Which clone
    name: String,
    /// Another port than before
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
}

#[derive(Debug, clap::Args)]
struct DestroyArgs {
    /// Which clone
    name: String,
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(args: &Args, context: &Context) -> anyhow::Result<ExitCode> {
    let clones = Clones::below(&context.config.clone_directory);
    match &args.command {
        Command::Create(args) => create::run(args, &clones, context),
        Command::List => list::run(&clones, context),
        Command::Start(args) => start(args, &clones, context),
        Command::Stop(args) => stop(&clones.find(&args.name)?, context),
        Command::Destroy(args) => destroy(args, &clones.find(&args.name)?, context),
        Command::Serve(args) => serve::run(&clones.find(&args.name)?, context),
    }
}

/// The server of a clone that has been mounted.
fn server_of(clone: &ThinClone, record: &Record, context: &Context) -> anyhow::Result<Server> {
    let major = record.major.ok_or_else(|| CloneError::NeverMounted { name: clone.name().to_owned() })?;
    // A clone outlives the entry of its cluster in the configuration.
    let configured = context.config.cluster(Some(&record.cluster)).ok().and_then(|cluster| cluster.bin_directory.as_deref());
    let programs = Programs::find(major, configured, &std::env::var_os("PATH").unwrap_or_default())?;
    Ok(Server { programs, user: record.user.clone(), port: record.port, clone: clone.clone() })
}

/// Mounts a clone in the background.
fn mount(clone: &ThinClone, record: &Record, context: &Context) -> anyhow::Result<Result<(), ExitCode>> {
    let mut command = context.command(&record.cluster).context("find this program")?;
    command.args(["clone", "serve", clone.name()]).env("NO_COLOR", "1");
    Ok(super::serve::in_background(command)?.map(drop))
}

fn start(args: &StartArgs, clones: &Clones, context: &Context) -> anyhow::Result<ExitCode> {
    let clone = clones.find(&args.name)?;
    clone.check_access()?;
    let mut record = clone.record()?;
    let _starting = (clone.state() != State::Running).then(|| clone.begin_start()).transpose()?;
    let state = clone.state();
    if state == State::Running {
        let text = || format!("clone {} is running already: {}", clone.name(), how_to_connect(&clone, &record));
        print_either(context, || list::as_json(&clone), text);
        return Ok(ExitCode::SUCCESS);
    }
    let began = Instant::now();
    if state != State::Mounted {
        clear(&clone)?;
    }
    server::end_leftovers(&clone)?;
    if let Some(wanted) = args.port {
        let claim = clones.claim()?;
        port::check_wanted(clones, &claim, wanted, Some(clone.name()))?;
        record.port = wanted;
        clone.put_record(&record)?;
    }
    port::check(record.port)?;
    if state != State::Mounted
        && let Err(code) = mount(&clone, &record, context)?
    {
        return Ok(code);
    }
    let mounted = began.elapsed();
    let warming = warm::begin(&clone);
    server::remove_stale_files(&clone)?;
    let server = server_of(&clone, &record, context)?;
    if let Err(error) = server.start() {
        // What it reads keeps the mount busy.
        drop(warming);
        if let Err(error) = unmount(&clone) {
            tracing::warn!("clone {} stays mounted: {error:#}", clone.name());
        }
        return Err(error.into());
    }
    warming.wait_for_first(WARMING);
    report(&clone, &record, &Took { mount: mounted, server: began.elapsed().saturating_sub(mounted) }, context);
    Ok(ExitCode::SUCCESS)
}

/// Ends what a process that served the mount and died has left: a server without files, and a dead mount point.
fn clear(clone: &ThinClone) -> anyhow::Result<()> {
    server::end_leftovers(clone)?;
    if clone.state() == State::Dead {
        bygone_mount::unmount(&clone.data(), true)?;
    }
    Ok(())
}

fn stop(clone: &ThinClone, context: &Context) -> anyhow::Result<ExitCode> {
    clone.check_access()?;
    match clone.state() {
        State::Stopped | State::Dead => clear(clone)?,
        State::Running => {
            server_of(clone, &clone.record()?, context)?.stop(false)?;
            unmount(clone)?;
        }
        State::Mounted => {
            server::end_leftovers(clone)?;
            unmount(clone)?;
        }
    }
    print_either(context, || list::as_json(clone), || format!("clone {} is stopped", clone.name()));
    Ok(ExitCode::SUCCESS)
}

/// So long may a mount take to bring to the disk what was written last, as long as `pg_ctl` waits for a server.
const LAST_WRITES: Duration = Duration::from_secs(3600);

/// So long may it take until the last process of a server that has stopped is gone.
const LAST_PROCESS: Duration = Duration::from_secs(20);

/// Unmounts, and returns when the process that served the mount has made everything durable and ended.
fn unmount(clone: &ThinClone) -> anyhow::Result<()> {
    let pid = clone.status().map(|status| status.pid);
    let deadline = Instant::now() + LAST_PROCESS;
    while let Err(error) = bygone_mount::unmount(&clone.data(), false) {
        if !matches!(error, MountError::Busy { .. }) || Instant::now() > deadline {
            return Err(error.into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    match pid.filter(|pid| !server::has_ended(*pid, LAST_WRITES)) {
        Some(pid) => Err(CloneError::Undying { pid }.into()),
        None => Ok(()),
    }
}

fn destroy(args: &DestroyArgs, clone: &ThinClone, context: &Context) -> anyhow::Result<ExitCode> {
    clone.check_access()?;
    let (name, bytes, state) = (clone.name(), clone.local_bytes(), clone.state());
    let local = indicatif::HumanBytes(bytes);
    if !args.dry_run {
        tear_down(clone, context)?;
    }
    let document = || json!({ "name": name, "removed": !args.dry_run, "state": state.to_string(), "local_bytes": bytes });
    print_either(context, document, || match args.dry_run {
        true => format!("would remove clone {name}, which is {state}, and {local} of local writes"),
        false => format!("clone {name} and {local} of local writes are removed"),
    });
    Ok(ExitCode::SUCCESS)
}

/// Stops and removes everything, whatever state it is in.
fn tear_down(clone: &ThinClone, context: &Context) -> anyhow::Result<()> {
    if clone.state() == State::Running {
        let stop = || -> anyhow::Result<()> { Ok(server_of(clone, &clone.record()?, context)?.stop(true)?) };
        if let Err(error) = stop() {
            tracing::warn!("the server of clone {} is ended by force: {error:#}", clone.name());
        }
    }
    clear(clone)?;
    if clone.state() == State::Mounted {
        unmount(clone)?;
    }
    Ok(clone.remove()?)
}

/// So long may catalogs still be read once the server has started.
const WARMING: Duration = Duration::from_secs(2);

/// How long it took until a clone could be used.
struct Took {
    mount: Duration,
    server: Duration,
}

/// Tells a user where his clone is, and what it took.
fn report(clone: &ThinClone, record: &Record, took: &Took, context: &Context) {
    let status = fresh_status(clone);
    if context.json {
        let mut document = list::as_json(clone);
        document["mount_seconds"] = took.mount.as_secs_f64().into();
        document["server_seconds"] = took.server.as_secs_f64().into();
        print(&format!("{document}\n"));
        return;
    }
    let all = took.mount + took.server;
    print(&format!(
        "Postgres {} is running on it: {}\nready in {:.2} s: mount {:.2} s, Postgres {:.2} s; {} fetched, {} pages rebuilt from {} WAL records\n",
        record.major.map(|major| major.to_string()).unwrap_or_default(),
        how_to_connect(clone, record),
        all.as_secs_f64(),
        took.mount.as_secs_f64(),
        took.server.as_secs_f64(),
        indicatif::HumanBytes(status.fetched_bytes),
        status.rebuilt_pages,
        status.applied_records,
    ));
}

/// One JSON value for programs, or a line for people.
fn print_either(context: &Context, document: impl FnOnce() -> Value, text: impl FnOnce() -> String) {
    print(&format!("{}\n", if context.json { document().to_string() } else { text() }));
}

/// As whom Postgres trusts, whatever the rules of production are: root is nobody to it.
fn how_to_connect(clone: &ThinClone, record: &Record) -> String {
    let psql = format!("psql -h {} -p {}", clone.server_dir().display(), record.port);
    let user = &record.user;
    // A user that this host does not know has a number for a name.
    let is_other = user.uid != rustix::process::geteuid().as_raw() && user.name != user.uid.to_string();
    if is_other { format!("runuser -u {} -- {psql}", user.name) } else { psql }
}

/// Asks the process that serves the mount for its present figures; those of the last second, if it does not answer soon.
fn fresh_status(clone: &ThinClone) -> Status {
    let known = clone.status().unwrap_or_default();
    let process = i32::try_from(known.pid).ok().and_then(Pid::from_raw);
    if known.ended || process.is_none_or(|process| rustix::process::kill_process(process, Signal::USR1).is_err()) {
        return known;
    }
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        match clone.status() {
            Some(status) if status.sequence > known.sequence => return status,
            _ if Instant::now() > deadline => return known,
            _ => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}
