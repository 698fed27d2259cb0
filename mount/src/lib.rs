//! FUSE and copy-on-write for any [`Source`].
//!
//! A [`Source`] is a read-only tree of files whose bytes may be slow to get. This crate shows it through FUSE, and lays an overlay of local
//! writes over it: block by block for big files, whole for small ones. Nothing here knows what the files mean.

#![warn(missing_docs)]

mod error;
mod fuse;
mod mount;
mod options;
mod overlay;
mod pool;
mod source;
mod stats;

pub use mount::{Mount, MountError, MountHandle, Mounted, check_mountpoint, unmount};
pub use options::{Options, OverlayOptions};
pub use overlay::Owner;
pub use source::{Attr, Entry, FileId, Keep, Kind, Source, SourceError};
pub use stats::Stats;
