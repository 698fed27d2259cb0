//! `clone serve`: the process behind a clone's mount. Users do not call it.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use bygone_mount::{MountHandle, OverlayOptions};
use parking_lot::Mutex;

use super::super::Context;
use super::super::moment::open_first;
use super::super::mount::{identity, mount_options};
use super::super::serve::{Watch, serve};
use crate::clone::server::Server;
use crate::clone::{Record, Status, ThinClone};
use crate::pg::Major;
use crate::view::open::{Archive, Opened, ViewOptions};
use crate::view::read::View;

pub(super) fn run(clone: &ThinClone, context: &Context) -> anyhow::Result<ExitCode> {
    let mut record = clone.record()?;
    let (archive, opened) = open_first(context, |archive| open(clone, &record, archive))?;
    record.major = Major::from_number(archive.folder.major);
    record.pinned = Some(opened.pinned());
    clone.put_record(&record)?;
    let mut options = mount_options(&clone.data(), (record.user.uid, record.user.gid), context);
    options.overlay = Some(OverlayOptions { path: clone.overlay(), identity: identity(&archive, &opened) });
    let (last_commit, fell_back) = (opened.resolved.last_commit.map(|time| time.to_string()), opened.fell_back);
    let view = Arc::new(opened.view);
    let earlier = clone.status().unwrap_or_default();
    let first = Status { pid: std::process::id(), last_commit, fell_back, ..Status::default() };
    let watch = Teller { clone, archive: &archive, view: view.clone(), earlier, told: Mutex::new(first) };
    serve(view, &options, &watch)?;
    Ok(ExitCode::SUCCESS)
}

fn open(clone: &ThinClone, record: &Record, archive: &Archive) -> anyhow::Result<Opened> {
    let options = ViewOptions {
        replay: record.replay,
        owner: (record.user.uid, record.user.gid),
        mountpoint: Some(clone.data().display().to_string()),
        own_settings: Server::settings(clone, record.port),
    };
    Ok(match &record.pinned {
        Some(pinned) => archive.reopen(pinned, &options)?,
        None => archive.open(&record.wanted, &options)?,
    })
}

/// Tells in `status.json` what the mount has done.
struct Teller<'a> {
    clone: &'a ThinClone,
    archive: &'a Archive,
    view: Arc<View>,
    /// The sums of the processes before this one.
    earlier: Status,
    /// What was written last, without `earlier`.
    told: Mutex<Status>,
}

impl Teller<'_> {
    fn tell(&self, mount: &MountHandle, always: bool, ended: bool) -> anyhow::Result<()> {
        let mut told = self.told.lock();
        let now = self.status(mount, &told, ended);
        if now == *told && !always {
            return Ok(());
        }
        *told = Status { sequence: told.sequence + 1, ..now };
        Ok(self.clone.put_status(&told.clone().after(&self.earlier))?)
    }

    fn status(&self, mount: &MountHandle, told: &Status, ended: bool) -> Status {
        let (fetched, stats) = (self.archive.shared.fetched(), mount.stats());
        let (rebuilt_pages, applied_records) = self.view.moment.as_ref().map_or((0, 0), |moment| moment.counts());
        Status {
            fetched_bytes: fetched.bytes,
            fetched_chunks: fetched.chunks,
            rebuilt_pages,
            applied_records,
            written_bytes: stats.written_bytes,
            waiting: stats.waiting,
            timed_out: stats.timed_out,
            ended,
            ..told.clone()
        }
    }
}

impl Watch for Teller<'_> {
    /// From here on nobody reads what this process prints: it goes to the clone's log, so that the terminal, or the pipe, that it was started from
    /// is not held open.
    fn ready(&self, mount: &MountHandle) -> anyhow::Result<String> {
        self.tell(mount, true, false)?;
        let path = self.clone.mount_log();
        let log = File::options().create(true).append(true).mode(0o600).open(&path).with_context(|| path.display().to_string())?;
        rustix::stdio::dup2_stderr(&log).context("redirect standard error")?;
        Ok(String::new())
    }

    fn tick(&self, mount: &MountHandle, asked: bool) {
        if let Err(error) = self.tell(mount, asked, false) {
            tracing::warn!("status.json is out of date: {error:#}");
        }
    }

    fn ended(&self, mount: &MountHandle) {
        if let Err(error) = self.tell(mount, true, true) {
            tracing::warn!("status.json is out of date: {error:#}");
        }
    }
}
