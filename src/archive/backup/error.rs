//! Why there is no backup.

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use super::session::SessionError;
use crate::advice::Advice;
use crate::archive::incarnation::IncarnationError;
use crate::repo::RepoError;
use crate::repo::lock::LockError;

/// What ends a backup.
#[derive(Debug, Error)]
pub enum BackupError {
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    Repo(#[from] RepoError),
    #[error(transparent)]
    Lock(#[from] LockError),
    /// We were silent for so long that another backup took over.
    #[error("the lock of this backup was taken over by another")]
    LockLost,
    #[error(transparent)]
    Incarnation(#[from] IncarnationError),
    /// A file of the data directory, by name.
    #[error("the data directory cannot be read")]
    Read(#[from] std::io::Error),
    #[error("{} belongs to a clone", data_directory.display())]
    IsClone { data_directory: PathBuf },
    #[error("{} is not the directory of the server that was asked", data_directory.display())]
    OtherServer { data_directory: PathBuf, what: String },
    #[error("the server does not archive its WAL: a backup without WAL cannot be restored")]
    ArchivingOff,
    #[error("WAL segment {segment} did not arrive in {repository}")]
    WalMissing { repository: String, segment: String, waited: Duration, last_failed: Option<String>, last_archived: Option<String> },
    /// Every repository has failed; its own error is told instead where it is known.
    #[error("no repository is left to write to")]
    NoRepositoryLeft,
    #[error("the backup was interrupted")]
    Interrupted,
}

impl Advice for BackupError {
    fn detail(&self) -> Option<String> {
        match self {
            BackupError::Session(e) => e.detail(),
            BackupError::Repo(e) => e.detail(),
            BackupError::Lock(e) => e.detail(),
            BackupError::Incarnation(e) => e.detail(),
            BackupError::OtherServer { what, .. } => Some(what.clone()),
            BackupError::WalMissing { waited, last_failed, last_archived, .. } => {
                let name = |wal: &Option<String>| wal.clone().unwrap_or_else(|| "none".to_owned());
                let seconds = waited.as_secs();
                Some(format!("waited {seconds} s; archived last: {}, failed last: {}", name(last_archived), name(last_failed)))
            }
            _ => None,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            BackupError::Session(e) => return e.hint(),
            BackupError::Repo(e) => return e.hint(),
            BackupError::Lock(e) => return e.hint(),
            BackupError::LockLost => "Was this process stopped, or the repository out of reach for a while? Start the backup again.",
            BackupError::Incarnation(e) => return e.hint(),
            BackupError::Read(_) => "May this user read all of the data directory? Run the backup as the user that Postgres runs as.",
            BackupError::IsClone { .. } => "Promote the clone to a cluster of its own first.",
            BackupError::OtherServer { .. } => "Look at data-directory and connection of this cluster: they must mean the same server.",
            BackupError::ArchivingOff => "Set archive_mode = on and archive_command = 'bygone archive-push %p', and restart the server.",
            BackupError::WalMissing { .. } => "Does archive_command work? The server's log says why it fails; `bygone check` tests it.",
            BackupError::Interrupted => "Nothing of it is left in the repository, and the server has ended it too.",
            BackupError::NoRepositoryLeft => return None,
        };
        Some(hint.to_owned())
    }
}
