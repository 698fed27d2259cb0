//! The tree under the mount: what a caller implements.

use std::ffi::{OsStr, OsString};
use std::time::SystemTime;

use thiserror::Error;

/// Names a file or directory of a [`Source`]. Chosen by the source; never reused for something else while the source lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u64);

/// What kind of thing a [`FileId`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
}

/// How local writes to a file are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Copied whole into a plain local file at the first write.
    Whole,
    /// Block by block, the rest still read from the source.
    Blocks,
}

/// What `stat` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    /// File, directory or link.
    pub kind: Kind,
    /// Length in bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of last change.
    pub modified: SystemTime,
    /// How writes to it are kept.
    pub keep: Keep,
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name, without a slash.
    pub name: OsString,
    /// What it leads to.
    pub id: FileId,
    /// What kind of thing that is.
    pub kind: Kind,
}

/// A read-only tree. All calls may come from many threads at once.
pub trait Source: Send + Sync + 'static {
    /// The top directory.
    fn root(&self) -> FileId;

    /// What `stat` shows. Answers from memory: it is called on the threads that must never wait.
    ///
    /// # Errors
    /// [`SourceError::NotFound`] for an id that the source never gave out.
    fn attr(&self, id: FileId) -> Result<Attr, SourceError>;

    /// The entry `name` of a directory. May take its time (a name can be a question: it is called on the worker pool).
    ///
    /// # Errors
    /// [`SourceError::NotFound`].
    fn lookup(&self, dir: FileId, name: &OsStr) -> Result<FileId, SourceError>;

    /// Like [`Source::lookup`] if the answer is in memory, `None` if getting it could take long. Called on threads that must never wait.
    fn lookup_ready(&self, _dir: FileId, _name: &OsStr) -> Option<Result<FileId, SourceError>> {
        None
    }

    /// Whether what is known of `id` may change while the source lives, so that nobody may keep it.
    ///
    /// A volatile directory is asked for every name, every time: a name that was missing may lead somewhere a moment later. A volatile file is
    /// read anew by every `read`, up to where the source ends it, whatever [`Attr::size`] says. Neither can be changed through an overlay.
    /// Everything else is asked once and kept by the kernel for as long as it likes.
    fn volatile(&self, _id: FileId) -> bool {
        false
    }

    /// All entries of a directory, without `.` and `..`. May take its time.
    ///
    /// # Errors
    /// Whatever keeps it from being known.
    fn list(&self, dir: FileId) -> Result<Vec<Entry>, SourceError>;

    /// Where a symbolic link points.
    ///
    /// # Errors
    /// [`SourceError::NotFound`] if it is not a link.
    fn read_link(&self, id: FileId) -> Result<OsString, SourceError>;

    /// Fills `buf` from byte `offset` on and returns how many bytes were filled: fewer than asked only at the end of the file. Blocks as long as it takes.
    ///
    /// # Errors
    /// Bytes that cannot be had are an error, never zeroes.
    fn read(&self, id: FileId, offset: u64, buf: &mut [u8]) -> Result<usize, SourceError>;

    /// Like [`Source::read`] if the bytes are in memory or in a local file, `None` if getting them could take long. Called on threads that must never wait.
    fn read_ready(&self, _id: FileId, _offset: u64, _buf: &mut [u8]) -> Option<usize> {
        None
    }
}

/// Why a source could not answer. `mount::error` turns each into an errno.
#[derive(Debug, Error)]
pub enum SourceError {
    /// ENOENT.
    #[error("no such file or directory")]
    NotFound,
    /// EIO: the bytes cannot be had. The message is logged, once, by who replies to the kernel.
    #[error("{0}")]
    Unreadable(#[source] Box<dyn std::error::Error + Send + Sync>),
}
