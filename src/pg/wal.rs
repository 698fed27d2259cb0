//! The write-ahead log: its records, and how they lie on pages and in segments.

pub mod effect;
#[cfg(test)]
pub(crate) mod fabricate;
pub mod history;
pub mod image;
pub mod mention;
pub mod names;
pub mod page;
pub mod reader;
pub mod record;
pub mod vm;
pub mod xact;

pub use effect::{Effect, EffectError};
pub use history::TimelinePath;
pub use mention::{How, Mention, mentions};
pub use page::Layout;
pub use reader::{End, EndReason, RawRecord, Reader, WalBytes};
pub use record::{BlockRef, Image, ImageCompression, Record, Rmgr};
