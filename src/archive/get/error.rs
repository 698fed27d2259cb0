//! Why a WAL file could not be fetched, though it may well be in the archive.

use thiserror::Error;

use crate::advice::Advice;
use crate::archive::incarnation::IncarnationError;
use crate::pg::lsn::NotParsed;
use crate::repo::RepoError;

/// Recovery must stop: this is not the end of the archive.
#[derive(Debug, Error)]
pub enum GetError {
    #[error(transparent)]
    Name(#[from] NotParsed),
    #[error(transparent)]
    Incarnation(#[from] IncarnationError),
    #[error(transparent)]
    Repo(#[from] RepoError),
    #[error("{path} cannot be written")]
    Write {
        path: String,
        #[source]
        source: std::io::Error,
    },
    /// The others have not got the file, this one was not asked.
    #[error("a repository that may have the file cannot be used")]
    RepositoryLeftOut,
}

impl Advice for GetError {
    fn detail(&self) -> Option<String> {
        match self {
            GetError::Incarnation(e) => e.detail(),
            GetError::Repo(e) => e.detail(),
            _ => None,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            GetError::Incarnation(e) => e.hint(),
            GetError::Repo(e) => e.hint(),
            GetError::Name(_) => Some("restore_command should be 'bygone archive-get %f %p'.".to_owned()),
            GetError::RepositoryLeftOut => Some("The warnings above say why. Use --repo to rely on one repository alone.".to_owned()),
            GetError::Write { .. } => None,
        }
    }
}
