//! What answers the kernel's requests: the overlay, the threads for what may wait, and how answers are put together.
//!
//! From: `requests`, one method a request.  To: `overlay`; `pool`.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use fuser::{FileHandle, INodeNo, InitFlags, KernelConfig, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, Request};
use parking_lot::Mutex;

use super::awake::Awake;
use super::buffers::Buffers;
use super::convert::{GENERATION, file_attr, missing_attr};
use super::passthrough::Opens;
use super::replies::Asked;
use super::{Result, SYNCING_THREADS, Tuning};
use crate::error::FsError;
use crate::overlay::format::NodeKind;
use crate::overlay::{Creation, Listed, Node, Overlay, Owner};
use crate::pool::{Deadlines, Pool, Refuse, Slots};

/// Bytes in one write of the kernel, and in one read.
const MAX_WRITE: u32 = 1 << 20;

/// See the module.
pub(super) struct Adapter {
    pub(super) overlay: Arc<Overlay>,
    fetch: Arc<Deadlines>,
    sync: Pool,
    /// Session threads that may still begin to wait for the disk.
    may_sync: Slots,
    pub(super) tuning: Tuning,
    pub(super) listings: Arc<Mutex<HashMap<u64, Arc<Vec<Listed>>>>>,
    pub(super) next_handle: Arc<AtomicU64>,
    pub(super) opens: Arc<Opens>,
    buffers: Arc<Buffers>,
    awake: Awake,
}

impl Adapter {
    pub(super) fn new(overlay: Arc<Overlay>, fetch: Arc<Deadlines>, sync: Pool, tuning: Tuning) -> Self {
        let opens = Arc::new(Opens::new(tuning.passthrough && overlay.is_writable()));
        let may_sync = Slots::new(SYNCING_THREADS);
        let (listings, next_handle) = (Arc::default(), Arc::new(AtomicU64::new(1)));
        Self { overlay, fetch, sync, may_sync, tuning, listings, next_handle, opens, buffers: Arc::default(), awake: Awake::new() }
    }

    /// A request and what it asks for: every one passes here.
    pub(super) fn asked<R>(&self, reply: R, operation: &'static str, inode: u64) -> Asked<R> {
        self.awake.note();
        Asked::new(reply, operation, inode)
    }

    pub(super) fn ttl(&self, volatile: bool) -> Duration {
        if volatile { Duration::ZERO } else { self.tuning.ttl }
    }

    /// Runs `job` where it may wait and answers with what it returns.
    pub(super) fn later<R, T>(
        &self,
        asked: Asked<R>,
        job: impl FnOnce(&Overlay) -> Result<T> + Send + 'static,
        answer: impl FnOnce(Asked<R>, T) + Send + 'static,
    ) where
        Asked<R>: Refuse,
    {
        let overlay = Arc::clone(&self.overlay);
        self.fetch.run(asked, move || job(&overlay), answer);
    }

    pub(super) fn answer_empty(&self, asked: Asked<ReplyEmpty>, job: impl FnOnce(&Overlay) -> Result<()> + Send + 'static) {
        self.later(asked, job, |asked, ()| asked.reply.ok());
    }

    pub(super) fn answer_entry(
        &self,
        asked: Asked<ReplyEntry>,
        dir: u64,
        job: impl FnOnce(&Overlay) -> Result<Arc<Node>> + Send + 'static,
    ) {
        let (ttl, overlay) = (self.tuning.ttl, Arc::clone(&self.overlay));
        let answer = move |asked: Asked<ReplyEntry>, found: Result<Arc<Node>>| reply_entry(&overlay, ttl, asked, dir, found);
        // A name that is missing is an answer, which the kernel may keep, and not an error.
        self.later(asked, move |overlay| Ok(job(overlay)), answer);
    }

    pub(super) fn make(&self, req: &Request, dir: INodeNo, name: &OsStr, creation: (NodeKind, u32, Option<&Path>), reply: ReplyEntry) {
        let (kind, mode, target) = creation;
        let owner = Owner { uid: req.uid(), gid: req.gid() };
        let creation = Creation { kind, mode, owner, target: target.map(|target| target.as_os_str().to_owned()) };
        let (dir, name) = (dir.0, name.to_owned());
        self.answer_entry(self.asked(reply, "create", dir), dir, move |overlay| overlay.create(dir, &name, creation));
    }

    pub(super) fn answer_attr(&self, asked: Asked<ReplyAttr>, node: Result<Arc<Node>>) {
        match node.and_then(|node| Ok(node.stat()?)) {
            Ok(stat) => asked.reply.attr(&self.ttl(stat.volatile), &file_attr(&stat)),
            Err(error) => asked.refuse(&error),
        }
    }

    pub(super) fn run_sync(&self, asked: Asked<ReplyEmpty>, job: impl FnOnce(&Overlay) -> Result<()> + Send + 'static) {
        let answer = |asked: Asked<ReplyEmpty>, done: Result<()>| match done {
            Ok(()) => asked.reply.ok(),
            Err(error) => asked.refuse(&error),
        };
        if let Some(_slot) = self.may_sync.take() {
            return answer(asked, job(&self.overlay));
        }
        let overlay = Arc::clone(&self.overlay);
        self.sync.run(move || answer(asked, job(&overlay)));
    }

    /// After a write was answered: lets the disk begin with what was written in order, unless threads enough wait for it already.
    pub(super) fn wrote(&self, node: &Node, written: Range<u64>) {
        if let Some(range) = node.sweep.note(&written)
            && let Some(_slot) = self.may_sync.take()
        {
            Overlay::begin_writing(node, range);
        }
    }

    /// Tells the kernel what is wanted of it; what it does not have is done without.
    pub(super) fn agree(&self, config: &mut KernelConfig) {
        let mut wanted = vec![
            InitFlags::FUSE_EXPLICIT_INVAL_DATA,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_ASYNC_DIO,
        ];
        if self.tuning.writeback && self.overlay.is_writable() {
            wanted.push(InitFlags::FUSE_WRITEBACK_CACHE);
        }
        if self.opens.is_enabled() && config.set_max_stack_depth(1).is_ok() {
            wanted.push(InitFlags::FUSE_PASSTHROUGH);
        }
        for flag in wanted {
            if config.add_capabilities(flag).is_err() {
                tracing::debug!(?flag, "the kernel does not have it");
            }
        }
        for nearest in [config.set_max_write(MAX_WRITE).err()].into_iter().flatten() {
            tracing::debug!(nearest, "max_write refused");
        }
        if config.set_max_background(self.tuning.max_background).is_err() {
            tracing::debug!("max_background refused");
        }
    }

    /// Answers with bytes of a file, at once if they are at hand.
    pub(super) fn answer_read(&self, asked: Asked<ReplyData>, node: Arc<Node>, offset: u64, len: usize) {
        let mut buffer = Buffers::take(&self.buffers, len);
        match self.overlay.read_ready(&node, offset, buffer.bytes()) {
            Ok(Some(filled)) => asked.reply.data(buffer.filled(filled)),
            Ok(None) => {
                let job = move |overlay: &Overlay| overlay.read(&node, offset, buffer.bytes()).map(|filled| (buffer, filled));
                self.later(asked, job, |asked, (buffer, filled)| asked.reply.data(buffer.filled(filled)));
            }
            Err(error) => asked.refuse(&error),
        }
    }

    pub(super) fn listing(&self, handle: FileHandle) -> Option<Arc<Vec<Listed>>> {
        self.listings.lock().get(&handle.0).cloned()
    }
}

pub(super) fn reply_entry(overlay: &Overlay, ttl: Duration, asked: Asked<ReplyEntry>, dir: u64, found: Result<Arc<Node>>) {
    let dir_is_volatile = overlay.node(dir).is_ok_and(|dir| dir.volatile);
    let ttl_if = |volatile: bool| if volatile { Duration::ZERO } else { ttl };
    match found {
        Ok(node) => match node.stat() {
            Ok(stat) => {
                let (attr_ttl, entry_ttl) = (ttl_if(stat.volatile), ttl_if(stat.volatile || dir_is_volatile));
                asked.reply.entry_with_ttls(&attr_ttl, &entry_ttl, &file_attr(&stat), GENERATION);
            }
            Err(error) => asked.refuse(&error.into()),
        },
        Err(error) if error.errno() == FsError::NotFound.errno() && !dir_is_volatile => {
            asked.reply.entry(&ttl, &missing_attr(), GENERATION);
        }
        Err(error) => asked.refuse(&error),
    }
}
