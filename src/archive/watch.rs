//! How long work tells how far it is. `cli` draws a bar from it; tests and library callers use [`Silent`].

/// Where a backup stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase<'a> {
    /// Connecting, locking, tidying up after earlier runs.
    Preparing,
    /// Waiting for the server's checkpoint.
    Checkpoint,
    /// Copying `bytes` in `files`.
    Copying { bytes: u64, files: u64 },
    /// Waiting until this WAL segment is in the repositories.
    WaitingForWal { segment: &'a str },
    /// Writing the manifest.
    Finishing,
}

/// Somebody who looks on. Called from many threads.
pub trait Watch: Sync {
    /// A new phase has begun.
    fn phase(&self, phase: Phase<'_>);
    /// So many more bytes are copied (bytes of files, before compression).
    fn copied(&self, bytes: u64);
    /// Something that a person should know, and that does not end the work.
    fn warn(&self, message: &str);
}

/// Nobody looks on.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl Watch for Silent {
    fn phase(&self, _: Phase<'_>) {}
    fn copied(&self, _: u64) {}
    fn warn(&self, _: &str) {}
}
