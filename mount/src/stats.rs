//! What a mount has done so far, for the caller to show.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of one mount since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes asked of the source and got.
    pub source_bytes: u64,
    /// Reads of the source.
    pub source_reads: u64,
    /// Reads and look-ups of the source that have not come back yet.
    pub waiting: u64,
    /// Requests answered with EIO because the source took longer than the deadline.
    pub timed_out: u64,
    /// Bytes written into the overlay.
    pub written_bytes: u64,
    /// Syncs of overlay data that the kernel asked for.
    pub syncs: u64,
    /// Syncs of the overlay's journal.
    pub journal_syncs: u64,
}

/// The live form of [`Stats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) source_bytes: AtomicU64,
    pub(crate) source_reads: AtomicU64,
    pub(crate) waiting: AtomicU64,
    pub(crate) timed_out: AtomicU64,
    pub(crate) written_bytes: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) journal_syncs: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, amount: usize) {
        counter.fetch_add(amount as u64, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> Stats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            source_bytes: get(&self.source_bytes),
            source_reads: get(&self.source_reads),
            waiting: get(&self.waiting),
            timed_out: get(&self.timed_out),
            written_bytes: get(&self.written_bytes),
            syncs: get(&self.syncs),
            journal_syncs: get(&self.journal_syncs),
        }
    }
}
