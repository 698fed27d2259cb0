//! A mount from start to end.
//!
//! From: the caller's [`Options`].  To: `overlay` (opened first: a mount that cannot keep its promises does not start), then `fuse`.
//! What keeps it from starting or ending is a [`MountError`] that says what to do about it.

mod check;
mod error;
mod table;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use fs_err as fs;
use parking_lot::{Condvar, Mutex};
use rustix::mount::UnmountFlags;

pub use self::check::check_mountpoint;
pub use self::error::MountError;
pub use self::table::Mounted;
use crate::fuse::{Session, Tuning};
use crate::options::Options;
use crate::overlay::disk::Folder;
use crate::overlay::{OpenError, Overlay};
use crate::source::Source;
use crate::stats::{Counters, Stats};

/// How often an overlay tidies up.
const TICK: Duration = Duration::from_secs(1);
const SYNC_THREADS: usize = 8;

/// Starts mounts.
#[derive(Debug)]
pub struct Mount;

impl Mount {
    /// Mounts `source`. When this returns the files are there.
    ///
    /// # Errors
    /// [`MountError`]; its `hint` says what to do. Nothing is left mounted.
    pub fn start(source: Arc<dyn Source>, options: &Options) -> Result<MountHandle, MountError> {
        let mountpoint = check_mountpoint(&options.mountpoint)?;
        if let Some(overlay) = &options.overlay {
            check::overlay(&overlay.path, &mountpoint)?;
        }
        check::device()?;
        raise_file_limit();
        let counters = Arc::new(Counters::default());
        let overlay = Arc::new(open_overlay(source, options, Arc::clone(&counters))?);
        let tuning = Tuning {
            ttl: Duration::from_secs(3600),
            max_background: 64,
            writeback: options.writeback,
            passthrough: options.passthrough && !options.writeback,
        };
        let start = Session::start(Arc::clone(&overlay), options, tuning, SYNC_THREADS, Arc::clone(&counters));
        let session = start.map_err(|error| MountError::of_start(&options.mountpoint, options.allow_other, error))?;
        let ended = Arc::new(Ended::default());
        let thread = spawn_session(session, Arc::clone(&overlay), Arc::clone(&ended)).map_err(MountError::Thread)?;
        set_read_ahead(&options.mountpoint, options.read_ahead_kib);
        let ticker = spawn_ticker(overlay, Arc::clone(&ended)).map_err(MountError::Thread)?;
        Ok(MountHandle { mountpoint: options.mountpoint.clone(), counters, ended, threads: Mutex::new(vec![thread, ticker]) })
    }
}

fn open_overlay(source: Arc<dyn Source>, options: &Options, counters: Arc<Counters>) -> Result<Overlay, MountError> {
    let Some(overlay) = &options.overlay else {
        return Overlay::read_only(source, options.owner, counters).map_err(|error| MountError::Source(error.to_string()));
    };
    let path = overlay.path.clone();
    let folder = match Folder::open(&path) {
        Ok(Some(folder)) => folder,
        Ok(None) => return Err(MountError::OverlayInUse { path }),
        Err(error) => return Err(MountError::Overlay { path, source: Box::new(OpenError::Io(error)) }),
    };
    Overlay::open(source, options.owner, Arc::new(folder), &overlay.identity, counters)
        .map_err(|error| MountError::Overlay { path, source: Box::new(error) })
}

/// How a mount ended, once it has.
#[derive(Default)]
struct Ended {
    result: Mutex<Option<Result<(), String>>>,
    changed: Condvar,
}

fn spawn_session(session: Session, overlay: Arc<Overlay>, ended: Arc<Ended>) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("mount-session".to_owned()).spawn(move || {
        let ran = session.run().map_err(|error| error.to_string());
        let closed = overlay.close().map_err(|error| format!("overlay: {error}"));
        // The overlay's lock is given back before anybody is told that the mount has ended.
        drop(overlay);
        *ended.result.lock() = Some(ran.and(closed));
        ended.changed.notify_all();
    })
}

fn spawn_ticker(overlay: Arc<Overlay>, ended: Arc<Ended>) -> io::Result<JoinHandle<()>> {
    let overlay = Arc::downgrade(&overlay);
    thread::Builder::new().name("mount-tick".to_owned()).spawn(move || {
        let mut result = ended.result.lock();
        while result.is_none() {
            ended.changed.wait_for(&mut result, TICK);
            let Some(overlay) = overlay.upgrade() else { return };
            if result.is_none()
                && let Err(error) = parking_lot::MutexGuard::unlocked(&mut result, || overlay.tick())
            {
                tracing::error!(%error, "overlay cannot be synced: it takes no more writes");
            }
        }
    })
}

/// A running mount. Dropping it unmounts, if need be while files are still open.
pub struct MountHandle {
    mountpoint: PathBuf,
    counters: Arc<Counters>,
    ended: Arc<Ended>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl MountHandle {
    /// Where it is mounted.
    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// What it has done so far.
    pub fn stats(&self) -> Stats {
        self.counters.get()
    }

    /// Unmounts, makes everything durable and returns when that is done.
    ///
    /// # Errors
    /// [`MountError::Busy`] while somebody has a file open: nothing has happened then. [`MountError::Ended`] if the overlay could not be synced.
    pub fn unmount(&self) -> Result<(), MountError> {
        if self.ended.result.lock().is_none() {
            match unmount(&self.mountpoint, false) {
                Ok(()) | Err(MountError::NotMounted { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.wait()
    }

    /// Returns when the mount has ended, whoever unmounted it.
    ///
    /// # Errors
    /// [`MountError::Ended`] if the overlay could not be synced or the kernel gave up on us.
    pub fn wait(&self) -> Result<(), MountError> {
        let mut result = self.ended.result.lock();
        while result.is_none() {
            self.ended.changed.wait(&mut result);
        }
        let ended = result.clone().unwrap_or(Ok(()));
        drop(result);
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                return Err(MountError::Ended("a thread panicked".to_owned()));
            }
        }
        ended.map_err(MountError::Ended)
    }
}

impl std::fmt::Debug for MountHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MountHandle").field("mountpoint", &self.mountpoint).finish_non_exhaustive()
    }
}

impl Drop for MountHandle {
    fn drop(&mut self) {
        if self.ended.result.lock().is_some() {
            return;
        }
        let unmounted = match self.unmount() {
            // Whoever still has files open keeps them until they are closed; the name is free at once.
            Err(MountError::Busy { .. }) => unmount(&self.mountpoint, true),
            result => result,
        };
        if let Err(error) = unmounted {
            tracing::error!(%error, "not unmounted");
        }
    }
}

/// Unmounts a mount of ours, also one whose daemon has died. `lazy`: at once, though files are open there.
///
/// # Errors
/// [`MountError::Busy`], [`MountError::NotMounted`], [`MountError::NotOurs`], [`MountError::OfAnother`], or the system's.
pub fn unmount(path: &Path, lazy: bool) -> Result<(), MountError> {
    let path = check::unmountable(path)?.path;
    let mut flags = UnmountFlags::NOFOLLOW;
    if lazy {
        flags |= UnmountFlags::DETACH;
    }
    match rustix::mount::unmount(&path, flags) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::BUSY) => Err(MountError::Busy { path }),
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Err(MountError::NotMounted { path }),
        Err(rustix::io::Errno::PERM) => check::unmount_by_helper(path, lazy),
        Err(errno) => Err(MountError::Unmount { path, source: errno.into() }),
    }
}

/// An overlay keeps many local files open: take as many as the system allows.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::debug!(%error, "limit of open files stays as it is");
    }
}

/// The kernel offers FUSE 128 KiB of read-ahead and takes no more in the handshake; root may ask for more here. A long read of a slow source wants it.
fn set_read_ahead(mountpoint: &Path, kib: u32) {
    let set = || -> io::Result<()> {
        let device = rustix::fs::stat(mountpoint)?.st_dev;
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        fs::write(format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb"), kib.to_string())
    };
    if let Err(error) = set() {
        tracing::debug!(%error, "read-ahead stays as the kernel has it");
    }
}
