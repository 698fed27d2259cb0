//! Why a view cannot be opened.

use thiserror::Error;

use crate::advice::Advice;
use crate::format::manifest::ManifestError;
use crate::pg::Lsn;
use crate::pg::control::ControlError;
use crate::repo::RepoError;
use crate::repo::moment::MomentError;
use crate::repo::resolve::ResolveError;
use crate::view::moment::BuildError;

/// Why a view cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    #[error(transparent)]
    Repo(#[from] RepoError),
    #[error(transparent)]
    Resolve(#[from] ResolveError<RepoError>),
    #[error("manifest of backup {label} cannot be used")]
    Manifest {
        label: String,
        #[source]
        source: ManifestError,
    },
    #[error("this moment cannot be rebuilt")]
    Build(#[from] BuildError),
    #[error("pg_control of backup {label} cannot be used")]
    Control {
        label: String,
        #[source]
        source: ControlError,
    },
    #[error("there is no backup {label}")]
    NoBackup { label: String, known: Vec<String> },
    /// `why`: why Postgres is to replay, if nobody asked for that.
    #[error("only a server can get to this moment, on a directory that is mounted for it")]
    NoMountpoint { why: Option<String> },
    #[error("there is no checkpoint from which Postgres could replay the rest")]
    NoCheckpoint { from: Lsn, to: Lsn },
    #[error("the WAL record at {lsn} makes a tablespace at {path}, which Postgres would do there")]
    Tablespace { lsn: Lsn, path: String },
    #[error("the checkpoint at {lsn} is not there any more")]
    LostCheckpoint { lsn: Lsn },
    #[error(transparent)]
    Moment(#[from] MomentError),
    #[error("there is no WAL of timeline {name}")]
    NoTimeline { name: String },
}

impl OpenError {
    /// Is what was asked for not to be had, as opposed to something having gone wrong?
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            OpenError::NoBackup { .. } | OpenError::Moment(_) | OpenError::NoTimeline { .. } => true,
            OpenError::Resolve(error) => {
                matches!(error, ResolveError::NoBackup { .. } | ResolveError::OutOfReach { .. } | ResolveError::NoTimeline { .. })
            }
            _ => false,
        }
    }
}

impl Advice for OpenError {
    fn detail(&self) -> Option<String> {
        match self {
            OpenError::Repo(e) => e.detail(),
            OpenError::Resolve(e) => e.detail(),
            OpenError::Manifest { source, .. } => source.detail(),
            OpenError::Build(e) => e.detail(),
            OpenError::Control { source, .. } => source.detail(),
            OpenError::NoBackup { known, .. } => Some(format!("there are: {}", known.join(", "))),
            OpenError::Moment(e) => e.detail(),
            OpenError::NoMountpoint { why } => why.clone(),
            OpenError::NoCheckpoint { from, to } => Some(format!(
                "it would have to lie between the end of the backup at {from} and the moment at {to}, before any record of an extension"
            )),
            OpenError::Tablespace { .. } => Some("that is outside of the view, and production's files may be there".to_owned()),
            OpenError::LostCheckpoint { .. } | OpenError::NoTimeline { .. } => None,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            OpenError::Repo(e) => e.hint(),
            OpenError::Resolve(e) => e.hint(),
            OpenError::Manifest { source, .. } => source.hint(),
            OpenError::Build(e) => e.hint(),
            OpenError::Control { source, .. } => source.hint(),
            OpenError::NoBackup { .. } => Some("`bygone info` lists the backups.".to_owned()),
            OpenError::Moment(e) => e.hint(),
            OpenError::NoTimeline { .. } => Some("`bygone info` lists the WAL.".to_owned()),
            OpenError::NoMountpoint { .. } => Some(
                "`bygone clone create NAME --at MOMENT`, or `bygone mount DIR --at MOMENT --overlay DIR` and a server on it.".to_owned(),
            ),
            OpenError::NoCheckpoint { .. } => Some("--replay=postgres replays everything from the backup on.".to_owned()),
            OpenError::Tablespace { .. } => {
                Some("Postgres can replay to moments before it, or to those that a newer checkpoint or backup leads to.".to_owned())
            }
            OpenError::LostCheckpoint { .. } => Some("Its WAL may have expired: `bygone info` shows what there is.".to_owned()),
        }
    }
}
