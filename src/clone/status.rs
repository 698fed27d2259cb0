//! `status.json`: what a clone's mount has done so far.
//!
//! Written by the process that serves the mount, every second in which something changed, and when somebody asks (SIGUSR1). Sums go on where an
//! earlier process left off, so that they count from the clone's first day.

use serde::{Deserialize, Serialize};

/// See the module. Fields may be added.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The process that serves the mount, or served it last.
    pub pid: u32,
    /// Rises each time that the file is written.
    pub sequence: u64,
    /// Has the process unmounted and ended?
    pub ended: bool,
    /// Newest commit at the moment, where that was found out.
    pub last_commit: Option<String>,
    /// Why Postgres replays although it was not asked to.
    pub fell_back: Option<String>,
    /// Bytes read from the repository, as stored: chunks, and what it takes to find them.
    pub fetched_bytes: u64,
    /// Chunks fetched, checked and decoded.
    pub fetched_chunks: u64,
    pub rebuilt_pages: u64,
    /// Records applied to them.
    pub applied_records: u64,
    /// Bytes written into the overlay.
    pub written_bytes: u64,
    /// Reads that are waiting for the repository.
    pub waiting: u64,
    /// Reads that ended in an IO error because the repository took too long.
    pub timed_out: u64,
}

impl Status {
    /// The same with the sums of an earlier process added.
    #[must_use]
    pub fn after(mut self, earlier: &Status) -> Status {
        self.sequence += earlier.sequence;
        self.fetched_bytes += earlier.fetched_bytes;
        self.fetched_chunks += earlier.fetched_chunks;
        self.rebuilt_pages += earlier.rebuilt_pages;
        self.applied_records += earlier.applied_records;
        self.written_bytes += earlier.written_bytes;
        self.timed_out += earlier.timed_out;
        self.last_commit = self.last_commit.or_else(|| earlier.last_commit.clone());
        self.fell_back = self.fell_back.or_else(|| earlier.fell_back.clone());
        self
    }
}
