//! Why an operation failed, and the one table from that to what the kernel is told.
//!
//! From: `overlay`, `pool`.  To: `fuse`, which logs what deserves it and replies with [`FsError::errno`].
//! What keeps a mount from starting or ending is [`crate::MountError`], told to the caller and not to the kernel.

use std::io;

use rustix::io::Errno;
use thiserror::Error;

use crate::source::SourceError;

/// Why an operation on the mounted tree failed.
#[derive(Debug, Error)]
pub(crate) enum FsError {
    #[error("no such file or directory")]
    NotFound,
    #[error("the inode is not known any more")]
    Stale,
    #[error("the name is taken")]
    Exists,
    #[error("directory not empty")]
    NotEmpty,
    #[error("not a directory")]
    NotADirectory,
    #[error("is a directory")]
    IsADirectory,
    #[error("the mount is read-only")]
    ReadOnly,
    #[error("this cannot be changed through an overlay")]
    NotPermitted,
    #[error("the name is longer than 255 bytes")]
    NameTooLong,
    #[error("not supported")]
    NotSupported,
    #[error("argument out of range")]
    Invalid,
    #[error("no answer within {0:?}")]
    TimedOut(std::time::Duration),
    /// A sync of the overlay failed before: what it holds after that is uncertain, so nothing is acknowledged any more.
    #[error("the overlay failed before and takes no more writes until it is mounted anew")]
    Failed,
    #[error("overlay: {0}")]
    Local(#[from] io::Error),
    #[error(transparent)]
    Source(#[from] SourceError),
}

impl FsError {
    /// The number the kernel gets.
    pub(crate) fn errno(&self) -> i32 {
        let errno = match self {
            Self::NotFound | Self::Source(SourceError::NotFound) => Errno::NOENT,
            Self::Stale => Errno::STALE,
            Self::Exists => Errno::EXIST,
            Self::NotEmpty => Errno::NOTEMPTY,
            Self::NotADirectory => Errno::NOTDIR,
            Self::IsADirectory => Errno::ISDIR,
            Self::ReadOnly => Errno::ROFS,
            Self::NotPermitted => Errno::PERM,
            Self::NameTooLong => Errno::NAMETOOLONG,
            Self::NotSupported => Errno::OPNOTSUPP,
            Self::Invalid => Errno::INVAL,
            Self::TimedOut(_) | Self::Failed | Self::Source(SourceError::Unreadable(_)) => Errno::IO,
            Self::Local(error) => match error.kind() {
                io::ErrorKind::StorageFull => Errno::NOSPC,
                io::ErrorKind::QuotaExceeded => Errno::DQUOT,
                io::ErrorKind::FileTooLarge => Errno::FBIG,
                _ => Errno::IO,
            },
        };
        errno.raw_os_error()
    }

    /// The error and its causes, for the log: an answer to the kernel is but a number.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let next = error.to_string();
            if !text.ends_with(&next) {
                text += &format!(": {next}");
            }
            cause = error.source();
        }
        text
    }

    /// Whether somebody should look: bytes could not be had or kept. The rest is an everyday answer.
    pub(crate) fn is_failure(&self) -> bool {
        matches!(self, Self::TimedOut(_) | Self::Failed | Self::Local(_) | Self::Source(SourceError::Unreadable(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_stays_a_full_disk_and_a_broken_one_is_an_io_error() {
        let full = FsError::Local(io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(full.errno(), Errno::NOSPC.raw_os_error());
        let broken = FsError::Local(io::Error::from_raw_os_error(Errno::IO.raw_os_error()));
        assert_eq!(broken.errno(), Errno::IO.raw_os_error());
    }

    #[test]
    fn the_log_gets_every_cause_once() {
        let inner = io::Error::other("chunk 3 is damaged");
        let error = FsError::from(SourceError::Unreadable(Box::new(FsError::from(inner))));
        assert_eq!(error.chain(), "overlay: chunk 3 is damaged");
        assert_eq!(FsError::from(SourceError::Unreadable("object gone".into())).chain(), "object gone");
    }

    #[test]
    fn a_name_that_is_missing_is_not_a_failure_but_bytes_that_are_missing_are() {
        assert!(!FsError::from(SourceError::NotFound).is_failure());
        assert!(FsError::from(SourceError::Unreadable("object gone".into())).is_failure());
    }
}
