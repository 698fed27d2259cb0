//! Files whose bytes are all local, read and written by the kernel past us.
//!
//! An inode has one mode as long as anybody has it open: the kernel refuses a mix. Names, lengths and syncs still come to us.
//! Needs CAP_SYS_ADMIN, and an overlay that is not itself stacked; where the kernel says no, once, everything goes through us.

use std::collections::HashMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fuser::BackingId;
use parking_lot::Mutex;
use rustix::fs::OFlags;

use crate::overlay::{Node, Overlay};

/// How a file was opened.
pub(super) enum Backing {
    Through(Arc<BackingId>),
    Plain { keep_cache: bool },
}

struct Open {
    count: u64,
    backing: Option<Arc<BackingId>>,
}

/// Who has what open, and how.
pub(super) struct Opens {
    /// Fixed from the start, so that every open that is counted is also released.
    counts: bool,
    enabled: AtomicBool,
    open: Mutex<HashMap<u64, Open>>,
}

impl Opens {
    pub(super) fn new(enabled: bool) -> Self {
        Self { counts: enabled, enabled: AtomicBool::new(enabled), open: Mutex::default() }
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }

    /// Settles how a file is opened; `register` makes a local file known to the kernel.
    pub(super) fn open(
        &self,
        overlay: &Overlay,
        node: &Node,
        flags: i32,
        register: impl FnOnce(BorrowedFd<'_>) -> io::Result<BackingId>,
    ) -> Backing {
        if !self.counts {
            return Backing::Plain { keep_cache: true };
        }
        let mut open = self.open.lock();
        let entry = open.entry(node.ino).or_insert_with(|| Open { count: 0, backing: None });
        if entry.count == 0 && self.is_enabled() {
            // A write that is durable by itself must bring the journal along, unless the journal knows the file already.
            let writes_sync = OFlags::from_bits_retain(flags.cast_unsigned()).intersects(OFlags::SYNC | OFlags::DSYNC);
            entry.backing = overlay.whole_file(node, writes_sync).and_then(|file| self.try_register(file.as_fd()?, register));
        }
        entry.count += 1;
        match &entry.backing {
            Some(id) => Backing::Through(Arc::clone(id)),
            // The kernel's pages of the mount know nothing of what was written past it before.
            None => Backing::Plain { keep_cache: overlay.whole_file(node, false).is_none() },
        }
    }

    fn try_register(&self, file: BorrowedFd<'_>, register: impl FnOnce(BorrowedFd<'_>) -> io::Result<BackingId>) -> Option<Arc<BackingId>> {
        match register(file) {
            Ok(id) => Some(Arc::new(id)),
            Err(error) => {
                tracing::debug!(%error, "the kernel takes no backing files here: all reads and writes come to us");
                self.enabled.store(false, Ordering::Relaxed);
                None
            }
        }
    }

    pub(super) fn release(&self, ino: u64) {
        let mut open = self.open.lock();
        if let Some(entry) = open.get_mut(&ino) {
            entry.count -= 1;
            if entry.count == 0 {
                open.remove(&ino);
            }
        }
    }
}
