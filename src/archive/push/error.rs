//! Why a WAL file was not archived.

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use crate::advice::Advice;
use crate::archive::incarnation::IncarnationError;
use crate::pg::lsn::NotParsed;
use crate::pg::{Lsn, Timeline};
use crate::repo::RepoError;

/// The file stays with Postgres, which tries again.
#[derive(Debug, Error)]
pub enum PushError {
    #[error(transparent)]
    Name(#[from] NotParsed),
    #[error(transparent)]
    Incarnation(#[from] IncarnationError),
    #[error(transparent)]
    Repo(#[from] RepoError),
    #[error("{path} cannot be read")]
    Read {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{name} is not archived: {} belongs to a clone", data_directory.display())]
    IsClone { data_directory: PathBuf, name: String },
    /// The file is not what its name says, or another cluster's.
    #[error("{name} is refused: {what}")]
    Foreign { name: String, what: String },
    /// No page of the file holds WAL, though there was some.
    #[error("{name} is refused: it holds no WAL, but timeline {timeline} was written to up to {to}")]
    Lost { name: String, timeline: Timeline, to: Lsn },
    /// The repository holds other bytes under this name.
    #[error("{name} is in {repository} already, with other content")]
    Different { name: String, repository: String },
    #[error("{name} was not archived within {} s", limit.as_secs())]
    TimedOut { name: String, limit: Duration },
    #[error("no repository can be used")]
    NoRepository,
}

impl Advice for PushError {
    fn detail(&self) -> Option<String> {
        match self {
            PushError::Incarnation(e) => e.detail(),
            PushError::Repo(e) => e.detail(),
            _ => None,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            PushError::Incarnation(e) => return e.hint(),
            PushError::Repo(e) => return e.hint(),
            PushError::Name(_) => "archive_command should be 'bygone archive-push %p'.",
            PushError::Read { .. } => "archive-push wants the path as Postgres gives it: %p.",
            PushError::IsClone { .. } => "Turn archive_mode off in the clone, or promote it to a cluster of its own.",
            PushError::Foreign { .. } => "Does this server have another cluster's configuration? Give each its own name.",
            PushError::Lost { .. } => {
                "Another server of this timeline may have the segment. Without it no moment behind it can be reached from a backup before it: take a new backup."
            }
            PushError::Different { .. } => {
                "Two servers archive as one cluster, or the server was restored and went on in its old timeline. Nothing was overwritten; `bygone check` tells more."
            }
            PushError::TimedOut { .. } => {
                "Postgres tries again by itself. Is the repository slow, or out of reach? archive.timeout-s sets the limit."
            }
            PushError::NoRepository => return None,
        };
        Some(hint.to_owned())
    }
}
