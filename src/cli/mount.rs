//! `mount` and `umount`: a past moment as a data directory.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bygone_mount::{MountError, MountHandle, Options, OverlayOptions, Owner};
use serde_json::{Value, json};

use super::Context;
use super::moment::{MomentArgs, open_first};
use super::report::print;
use super::serve::{Watch, in_background, serve};
use crate::advice::Advice;
use crate::clone::User;
use crate::view::browse::Browser;
use crate::view::house::House;
use crate::view::open::{Archive, OpenError, Opened, Replay};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// An empty directory
    directory: PathBuf,
    #[command(flatten)]
    moment: MomentArgs,
    /// Keep writes in this directory, so that a server can run on the mount; without it the mount is read-only
    #[arg(long, value_name = "DIR")]
    overlay: Option<PathBuf>,
    /// Whom the files belong to (user name or number) [default: the owner of the mount point]
    #[arg(long, value_name = "USER")]
    owner: Option<String>,
    /// Stay in the foreground; else the command returns once the files are there
    #[arg(long)]
    foreground: bool,
}

pub(super) fn run(args: &Args, context: &Context) -> anyhow::Result<ExitCode> {
    let mountpoint = bygone_mount::check_mountpoint(&args.directory)?;
    if !args.foreground {
        let mut command = std::process::Command::new(std::env::current_exe().context("find this program")?);
        command.args(std::env::args_os().skip(1)).arg("--foreground");
        return Ok(match in_background(command)? {
            Ok(text) => {
                print(&format!("{text}\n"));
                ExitCode::SUCCESS
            }
            Err(code) => code,
        });
    }
    let owner = owner(args.owner.as_deref(), &mountpoint)?;
    let started = Instant::now();
    if args.moment.at.is_none() && args.overlay.is_none() {
        let (archive, _catalog) = open_first(context, |archive| Ok(archive.catalog()?))?;
        let text = match context.json {
            true => json!({ "directory": mountpoint, "cluster": archive.folder.to_string() }).to_string(),
            false => format!("mounted {}: at/MOMENT latest/ backup/ wal/ .bygone/", archive.folder),
        };
        let house = House::new(Browser::new(archive, args.moment.timeline, owner), owner);
        serve(Arc::new(house), &mount_options(&mountpoint, owner, context), &Quiet(text))?;
        return Ok(ExitCode::SUCCESS);
    }
    let (wanted, options) = (args.moment.wanted()?, args.moment.options(owner, Some(mountpoint.display().to_string())));
    let (archive, opened) = open_first(context, |archive| Ok(archive.open(&wanted, &options)?))?;
    if let (Some(why), None) = (&opened.fell_back, &args.overlay) {
        // Nobody could make the files those of the moment.
        return Err(OpenError::NoMountpoint { why: Some(why.clone()) }.into());
    }
    let text = match context.json {
        true => as_json(&archive, &opened, &mountpoint, started.elapsed()).to_string(),
        false => format!("mounted {}; ready in {:.2} s", describe_point(&opened), started.elapsed().as_secs_f64()),
    };
    let mut mount = mount_options(&mountpoint, owner, context);
    mount.overlay = args.overlay.clone().map(|path| OverlayOptions { path, identity: identity(&archive, &opened) });
    serve(Arc::new(opened.view), &mount, &Quiet(text))?;
    Ok(ExitCode::SUCCESS)
}

/// Nobody watches.
struct Quiet(String);

impl Watch for Quiet {
    fn ready(&self, _mount: &MountHandle) -> anyhow::Result<String> {
        Ok(self.0.clone())
    }
}

/// How a view is mounted for a server, or a user, that is not the one who mounts.
pub(super) fn mount_options(mountpoint: &Path, owner: (u32, u32), context: &Context) -> Options {
    let mut mount = Options::new(mountpoint);
    mount.allow_other = rustix::process::geteuid().is_root();
    mount.owner = Some(Owner { uid: owner.0, gid: owner.1 });
    mount.deadline = context.config.mount_read_timeout;
    mount
}

/// What an overlay was made for: what is in it stands on these files and no others.
pub(super) fn identity(archive: &Archive, opened: &Opened) -> String {
    let from = match (opened.replay, opened.takeover) {
        (Replay::Postgres, _) => format!(", replayed from backup {}", opened.resolved.backup),
        (_, Some(takeover)) => format!(", replayed from {}", takeover.redo()),
        _ => String::new(),
    };
    format!("{} at {}{from}", archive.folder, opened.resolved.point)
}

/// What was opened, and who replays.
pub(super) fn describe_point(opened: &Opened) -> String {
    let since = opened.fell_back.as_ref().map(|why| format!(", since {why}")).unwrap_or_default();
    let who = match (opened.replay, opened.takeover) {
        (Replay::Postgres, _) => format!("Postgres will replay the WAL at its start{since}"),
        (_, Some(takeover)) => {
            format!(
                "pages are rebuilt as of {} when they are read, and Postgres will replay the WAL from there at its start{since}",
                takeover.redo()
            )
        }
        _ => "pages are rebuilt when they are read".to_owned(),
    };
    let commit = opened.resolved.last_commit.map(|time| format!(", last commit {time}")).unwrap_or_default();
    format!("{}{commit}; backup {}; {who}", opened.resolved.point, opened.resolved.backup)
}

fn as_json(archive: &Archive, opened: &Opened, mountpoint: &Path, took: Duration) -> Value {
    let point = &opened.resolved.point;
    json!({
        "directory": mountpoint,
        "cluster": archive.folder.to_string(),
        "lsn": point.lsn.to_string(),
        "timeline": point.timeline.0,
        "last_commit": opened.resolved.last_commit.map(|time| time.to_string()),
        "backup": opened.resolved.backup.to_string(),
        "replay": opened.replay.word(),
        "checkpoint": opened.pinned().checkpoint.map(|lsn| lsn.to_string()),
        "fell_back": opened.fell_back,
        "seconds": took.as_secs_f64(),
    })
}

/// User and group that the files belong to: a server insists on owning its data directory.
fn owner(name: Option<&str>, mountpoint: &Path) -> anyhow::Result<(u32, u32)> {
    let Some(name) = name else {
        let meta = fs_err::metadata(mountpoint)?;
        return Ok((meta.uid(), meta.gid()));
    };
    let user = User::find(name)?;
    Ok((user.uid, user.gid))
}

impl Advice for MountError {
    fn hint(&self) -> Option<String> {
        MountError::hint(self)
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct UmountArgs {
    /// Where it is mounted
    directory: PathBuf,
    /// At once, though files are open there
    #[arg(long)]
    lazy: bool,
}

pub(super) fn umount(args: &UmountArgs) -> anyhow::Result<ExitCode> {
    bygone_mount::unmount(&args.directory, args.lazy)?;
    Ok(ExitCode::SUCCESS)
}
