//! Bytes by key. The trait, and what every store promises.
//!
//! From: `repo`.  To: a directory, S3, or memory.
//! Blocking on purpose: callers run on threads of their own; async stays inside `store::s3`.
//! Objects are immutable: a key is written once, whole, and never overwritten. Knows nothing of what the bytes mean.

pub mod cache;
pub mod counted;
pub mod fault;
mod key;
pub mod local;
pub mod memory;
mod probe;
pub mod s3;
pub mod settings;

use std::ops::Range;
use std::time::SystemTime;

use bytes::Bytes;
use thiserror::Error;

use crate::advice::Advice;

pub use probe::probe;
pub use settings::{Settings, open};

/// A place that keeps objects.
///
/// Every implementation passes the conformance suite (tests/store/conformance.rs). All calls may block; all may be made from many
/// threads at once. A key that is not a plain relative path (`..`, an empty component, a NUL) is refused as invalid input by each of them.
pub trait Store: Send + Sync + std::fmt::Debug {
    /// Names the place for messages: `directory /var/lib/bygone`, `s3://bucket/prefix at https://…`. Nothing secret.
    fn describe(&self) -> String;

    /// Writes a whole object if the key is free, durably, and visible only when complete.
    ///
    /// # Errors
    /// [`StoreError::Exists`] if the key holds an object already (whoever wrote it, unless it was this very call, retried).
    fn put_new(&self, key: &str, body: Bytes) -> Result<(), StoreError>;

    /// Begins an object of unknown length. Nothing is visible until [`Upload::finish`]; dropping it leaves no trace.
    ///
    /// # Errors
    /// As [`Store::put_new`]; an existing key may be noticed only at `finish`.
    fn upload_new(&self, key: &str) -> Result<Box<dyn Upload>, StoreError>;

    /// Sees to it that an object which is there is durable: its writer may have died before it could say so. Whoever takes "it is there" for an answer
    /// asks for this first; `Exists` and `put_new` include it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; those of the store.
    fn settle(&self, _key: &str) -> Result<(), StoreError> {
        Ok(())
    }

    /// The bytes `range` (half-open) of an object, all of them: shorter is an error, never a short answer.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::OutOfRange`] if the object ends before the range does.
    fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError>;

    /// The bytes from the first piece's beginning to the last one's end, in one request. The pieces rise and do not overlap; what lies between them is
    /// not wanted and may come as zeroes. A cache keeps each piece by itself, however they were asked for.
    ///
    /// # Errors
    /// As [`Store::get_range`].
    fn get_pieces(&self, key: &str, pieces: &[Range<u64>]) -> Result<Bytes, StoreError> {
        match (pieces.first(), pieces.last()) {
            (Some(first), Some(last)) => self.get_range(key, first.start..last.end),
            _ => Ok(Bytes::new()),
        }
    }

    /// Says that what was given of these pieces, or how long the object is, makes no sense: a cache does not give it again.
    fn forget(&self, _key: &str, _pieces: &[Range<u64>]) {}

    /// The whole object.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    fn get(&self, key: &str) -> Result<Bytes, StoreError>;

    /// The last `len` bytes of an object (all of it if shorter) and its total size: how a footer is found in one request.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    fn get_tail(&self, key: &str, len: u64) -> Result<(Bytes, u64), StoreError>;

    /// Size and time of an object, `None` if there is none.
    ///
    /// # Errors
    /// Only of the store itself.
    fn head(&self, key: &str) -> Result<Option<Meta>, StoreError>;

    /// All keys that begin with `prefix` and, where given, sort after `after`; in byte order, handed over page by page.
    ///
    /// `each` may stop the listing by returning `false`. Some S3 services (SeaweedFS) list folder by folder: to them the order, and so `after`, is
    /// byte order only among names that do not extend one another with a character below `/` (as `b/…` and `b-c` do).
    ///
    /// # Errors
    /// Only of the store itself: an empty listing is not one.
    fn list(&self, prefix: &str, after: Option<&str>, each: &mut dyn FnMut(Meta) -> bool) -> Result<(), StoreError>;

    /// What stands directly below `prefix` (which ends in `/` or is empty): the next path components, those of common prefixes ending in `/`. Sorted.
    /// A folder whose last object was just deleted may still show.
    ///
    /// # Errors
    /// As [`Store::list`].
    fn list_dir(&self, prefix: &str) -> Result<Vec<String>, StoreError>;

    /// Removes an object. One that is not there is no error. Only `expire`, unlocking, clean-up of unreferenced objects and the rebuilding
    /// of derived ones call this.
    ///
    /// # Errors
    /// Only of the store itself.
    fn delete(&self, key: &str) -> Result<(), StoreError>;
}

/// An object being written.
pub trait Upload: Send {
    /// Appends bytes. Memory is bounded by a few parts.
    ///
    /// # Errors
    /// Those of the store; the upload is dead then.
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError>;

    /// Makes it durable and visible under its key.
    ///
    /// # Errors
    /// [`StoreError::Exists`] if somebody else has taken the key.
    fn finish(self: Box<Self>) -> Result<(), StoreError>;
}

/// What a listing tells of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    pub key: String,
    /// Stored size, bytes.
    pub size: u64,
    /// When it was written, by the store's clock.
    pub modified: SystemTime,
}

/// What can go wrong with a store. Variants exist because callers act on them.
#[derive(Debug, Error)]
pub enum StoreError {
    #[error("{key} is not in {store}")]
    NotFound { store: String, key: String },
    #[error("{key} exists already in {store}")]
    Exists { store: String, key: String },
    #[error("{key} in {store} ends at byte {size}, bytes {} to {} were asked for", range.start, range.end)]
    OutOfRange { store: String, key: String, size: u64, range: Range<u64> },
    /// The store answers, but a setting is wrong: no retry helps. `setting` names it.
    #[error("{store} refused: {what}")]
    Refused { store: String, what: String, setting: &'static str, hint: String },
    /// The store cannot be reached or keeps failing, retries included.
    #[error("{store} does not answer: {what}")]
    Unavailable { store: String, what: String },
    /// No room.
    #[error("{store} is full, {key} was not written")]
    Full { store: String, key: String },
    /// Anything else that the operating system says.
    #[error("{key} in {store}")]
    Io {
        store: String,
        key: String,
        #[source]
        source: std::io::Error,
    },
}

impl StoreError {
    /// Could the same call succeed a little later?
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, StoreError::Unavailable { .. })
    }
}

impl Advice for StoreError {
    fn hint(&self) -> Option<String> {
        match self {
            StoreError::Refused { setting, hint, .. } => Some(format!("Look at {setting}. {hint}")),
            StoreError::Unavailable { .. } => Some("Is repo.N.endpoint right, and reachable from this host?".to_owned()),
            StoreError::Full { .. } => Some("Free some space, or expire old backups; nothing half-written was left.".to_owned()),
            _ => None,
        }
    }
}
