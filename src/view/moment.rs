//! A data directory as it stood at a RecoveryPoint: pages rebuilt when they are read, everything else made beforehand.
//!
//! From: `view::open`, which has decided on backup and point.  To: `fold` and `scan` (what exists), `locate` and `page` (pages), `synth` (crafted files).
//! Built once; then only read, from any number of threads. What cannot be rebuilt exactly is refused here, before a server starts, where it can be
//! known, and is an IO error where it cannot.

mod build;
mod error;
mod gather;
mod mentions;
mod pages;
mod parts;
mod read;
mod references;
mod target;
mod together;
mod tree;

pub use build::build;
pub use error::{BuildError, MomentError};
pub use read::Moment;
pub use references::ReferenceMemory;
pub use target::{Startup, Target};
