//! What a mount is to be like: plain values, made by the caller.

use std::path::PathBuf;
use std::time::Duration;

use crate::overlay::Owner;

/// Where local writes go.
#[derive(Debug, Clone)]
pub struct OverlayOptions {
    /// A directory of the overlay's own; made (0700) if it is not there.
    pub path: PathBuf,
    /// What the source is, in words: an overlay that was made for another one is refused with both.
    pub identity: String,
}

/// How to mount.
#[derive(Debug, Clone)]
pub struct Options {
    /// An empty directory.
    pub mountpoint: PathBuf,
    /// Whether other users than the one who mounts may look inside. Ordinary users need `user_allow_other` in /etc/fuse.conf for it.
    pub allow_other: bool,
    /// Whom the source's files are shown to belong to, if not to whom the source says.
    pub owner: Option<Owner>,
    /// Where writes go; without it the mount is read-only.
    pub overlay: Option<OverlayOptions>,
    /// A read or look-up that the source has not answered by then ends in EIO.
    pub deadline: Duration,
    /// So many reads and look-ups may wait for the source at once.
    pub fetchers: usize,
    /// The kernel reads ahead this far (KiB) where it may be told (as root).
    pub read_ahead_kib: u32,
    /// Lets the kernel collect writes. Faster for bulk loads; turns `passthrough` off.
    pub writeback: bool,
    /// Lets the kernel read and write files that are wholly local by itself, where it is able to.
    pub passthrough: bool,
}

impl Options {
    /// A read-only mount for the user who mounts.
    pub fn new(mountpoint: impl Into<PathBuf>) -> Self {
        Self {
            mountpoint: mountpoint.into(),
            allow_other: false,
            owner: None,
            overlay: None,
            deadline: Duration::from_secs(60),
            fetchers: 32,
            read_ahead_kib: 4096,
            writeback: false,
            passthrough: true,
        }
    }
}
