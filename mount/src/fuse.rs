//! The kernel's requests, answered from an [`Overlay`]. The only place that knows fuser.
//!
//! From: the kernel, on a few session threads.  To: `overlay`; `pool` for everything that may wait.
//! A session thread never waits for the source: it answers what is in memory or in a local file and hands on the rest. Two of them may wait for the
//! disk, in a sync or when it is given something to write, since there are two more than work for: the hop to another thread would cost a commit as
//! much as the disk does.
//! Each request that fails for a reason that somebody should see is logged here, once.

mod adapter;
mod awake;
mod buffers;
mod convert;
mod passthrough;
mod replies;
mod requests;

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use fuser::{MountOption, SessionACL};

use self::adapter::Adapter;
use crate::error::FsError;
use crate::options::Options;
use crate::overlay::Overlay;
use crate::pool::{Deadlines, Pool};
use crate::stats::Counters;

/// By which the kernel lists a mount as ours: as the device, and as the kind of FUSE.
pub(crate) const NAME: &str = "bygone";

const MAX_SESSION_THREADS: usize = 4;
/// So many session threads more, which may wait in a sync.
const SYNCING_THREADS: usize = 2;

type Result<T> = std::result::Result<T, FsError>;

/// How the kernel is to treat the mount.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tuning {
    /// For how long the kernel may keep what does not change by itself.
    pub(crate) ttl: Duration,
    pub(crate) max_background: u16,
    pub(crate) writeback: bool,
    pub(crate) passthrough: bool,
}

/// A mounted file system whose requests are not answered yet.
pub(crate) struct Session {
    session: fuser::Session<Adapter>,
    fetch: Arc<Deadlines>,
    sync: Pool,
}

impl Session {
    /// Mounts and shakes hands with the kernel.
    pub(crate) fn start(
        overlay: Arc<Overlay>,
        options: &Options,
        tuning: Tuning,
        sync_threads: usize,
        counters: Arc<Counters>,
    ) -> io::Result<Self> {
        let fetch = Deadlines::new(options.fetchers, options.deadline, counters)?;
        let sync = Pool::new("mount-sync", sync_threads);
        let mut config = fuser::Config::default();
        config.mount_options = vec![
            MountOption::FSName(NAME.to_owned()),
            MountOption::Subtype(NAME.to_owned()),
            MountOption::DefaultPermissions,
            MountOption::NoSuid,
            MountOption::NoDev,
            MountOption::NoAtime,
            if overlay.is_writable() { MountOption::RW } else { MountOption::RO },
        ];
        config.acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
        config.n_threads = Some(thread::available_parallelism().map_or(2, usize::from).min(MAX_SESSION_THREADS) + SYNCING_THREADS);
        config.clone_fd = true;
        let adapter = Adapter::new(overlay, Arc::clone(&fetch), sync.clone(), tuning);
        match fuser::Session::new(adapter, &options.mountpoint, &config) {
            Ok(session) => Ok(Self { session, fetch, sync }),
            Err(error) => {
                fetch.close();
                Err(error)
            }
        }
    }

    /// Answers until the file system is unmounted.
    pub(crate) fn run(self) -> io::Result<()> {
        let result = self.session.run();
        self.fetch.close();
        self.sync.close();
        result
    }
}
