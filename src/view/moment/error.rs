//! Why a moment cannot be built, and why a part of one cannot be had.

use thiserror::Error;

use crate::advice::Advice;
use crate::format::index::IndexError;
use crate::pg::control::ControlError;
use crate::pg::wal::record::DecodeError;
use crate::pg::{BlockTag, Lsn};
use crate::repo::RepoError;
use crate::view::page::PageError;
use crate::view::scan::ScanError;
use crate::view::synth;

/// What to do about a damaged index.
const REBUILD: &str = "Indexes are made from the WAL: `bygone index --rebuild` makes them anew.";

/// Why a moment cannot be built.
#[derive(Debug, Error)]
pub enum BuildError {
    #[error(transparent)]
    Scan(#[from] ScanError<RepoError>),
    #[error(transparent)]
    Index(#[from] IndexError<RepoError>),
    #[error(transparent)]
    Repo(#[from] RepoError),
    #[error("the backup's pg_control cannot be used")]
    Control(#[from] ControlError),
    #[error("the backup has no global/pg_control")]
    NoControl,
    #[error("there is no checkpoint record at {lsn}, where the backup's label says it is")]
    NoCheckpoint { lsn: Lsn },
    #[error("the backup's {} cannot be used", synth::ORIGINS)]
    Origins,
    #[error("from {lsn} on, the WAL was written with wal_level = minimal: what changed since then is not all in it")]
    LoggedMinimally { lsn: Lsn },
}

impl Advice for BuildError {
    fn detail(&self) -> Option<String> {
        match self {
            BuildError::Scan(e) => e.detail(),
            BuildError::Index(IndexError::Read(e)) | BuildError::Repo(e) => e.detail(),
            BuildError::Control(e) => e.detail(),
            BuildError::Index(IndexError::Bad(_))
            | BuildError::NoControl
            | BuildError::NoCheckpoint { .. }
            | BuildError::Origins
            | BuildError::LoggedMinimally { .. } => None,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            BuildError::Scan(e) => e.hint(),
            BuildError::Index(IndexError::Read(e)) | BuildError::Repo(e) => e.hint(),
            BuildError::Index(IndexError::Bad(_)) => Some(REBUILD.to_owned()),
            BuildError::Control(e) => e.hint(),
            BuildError::LoggedMinimally { .. } => {
                Some("Moments before that can be reached, and those after the next backup that was taken since.".to_owned())
            }
            BuildError::NoControl | BuildError::NoCheckpoint { .. } | BuildError::Origins => {
                Some("An older backup, or another repository (`--repo N`), may be sound.".to_owned())
            }
        }
    }
}

/// Why bytes of a moment could not be had.
#[derive(Debug, Error)]
pub enum MomentError {
    #[error(transparent)]
    Page(#[from] Box<PageError<PartError>>),
    #[error(transparent)]
    Repo(#[from] RepoError),
    #[error(transparent)]
    BadIndex(#[from] IndexError<RepoError>),
    #[error("the index of the WAL names records of {tag} from {at} on, where there are none")]
    Index { tag: BlockTag, at: Lsn },
    #[error("{tag} does not exist at this moment")]
    BeyondEnd { tag: BlockTag },
    #[error("no file of a relation has a byte {offset}")]
    NoBlock { offset: u64 },
}

impl Advice for MomentError {
    fn detail(&self) -> Option<String> {
        match self {
            MomentError::Page(e) => e.detail(),
            MomentError::BadIndex(IndexError::Read(e)) | MomentError::Repo(e) => e.detail(),
            MomentError::BadIndex(IndexError::Bad(_))
            | MomentError::Index { .. }
            | MomentError::BeyondEnd { .. }
            | MomentError::NoBlock { .. } => None,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            MomentError::Page(e) => e.hint(),
            MomentError::BadIndex(IndexError::Read(e)) | MomentError::Repo(e) => e.hint(),
            MomentError::BadIndex(IndexError::Bad(_)) | MomentError::Index { .. } => Some(REBUILD.to_owned()),
            MomentError::BeyondEnd { .. } | MomentError::NoBlock { .. } => None,
        }
    }
}

/// Why a part of a page could not be had.
#[derive(Debug, Error)]
pub enum PartError {
    #[error(transparent)]
    Repo(#[from] RepoError),
    #[error("the WAL record at {lsn} cannot be had")]
    Wal {
        lsn: Lsn,
        #[source]
        source: Box<RepoError>,
    },
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("the WAL has no record at {lsn}, though its index names one")]
    NoRecord { lsn: Lsn },
    #[error("{tag} is not in the backup")]
    NotCopied { tag: BlockTag },
}

impl Advice for PartError {
    fn detail(&self) -> Option<String> {
        match self {
            PartError::Repo(e) => e.detail(),
            PartError::Wal { source, .. } => source.detail(),
            PartError::Decode(_) | PartError::NoRecord { .. } | PartError::NotCopied { .. } => None,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            PartError::Repo(e) => e.hint(),
            PartError::Wal { source, .. } => source.hint(),
            PartError::Decode(_) => Some("--replay=postgres lets Postgres itself replay the WAL; please report this.".to_owned()),
            PartError::NoRecord { .. } | PartError::NotCopied { .. } => {
                Some("An older backup, or another repository (`--repo N`), may be sound.".to_owned())
            }
        }
    }
}
