//! Bytes that Postgres defines: pure functions over slices. No IO, no async, no clock, and none of our own formats.

pub mod bytes;
pub mod checkpoint;
pub mod control;
pub mod cursor;
pub mod lsn;
pub mod page;
pub mod pglz;
pub mod relation;
pub mod relation_file;
pub mod timestamp;
pub mod version;
pub mod wal;

pub use lsn::{Lsn, SegmentSize, Timeline, WalSegment};
pub use relation::{BlockNo, BlockTag, Fork, RelFileLocator};
pub use version::Major;
