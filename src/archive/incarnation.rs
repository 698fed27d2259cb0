//! Which folder of a repository belongs to a data directory.
//!
//! From: `backup`, `push`, `get`.  In: the cluster's configured name and what `pg_control` or the server says of it.  Out: its [`ClusterFolder`].
//! A name may have several incarnations (`pg_upgrade` makes a new one); the system identifier and major version decide, never the newest.

use std::path::Path;

use thiserror::Error;

use crate::advice::Advice;
use crate::pg::Major;
use crate::pg::control::{ControlError, ControlFile};
use crate::repo::layout::ClusterFolder;
use crate::repo::{RepoError, Repository};

/// Why a data directory has no folder in a repository.
#[derive(Debug, Error)]
pub enum IncarnationError {
    #[error(transparent)]
    Repo(#[from] RepoError),
    /// `init` was not run for it, or it is another cluster.
    #[error("{repository} knows no cluster {cluster:?} with system identifier {system_id} of Postgres {major}")]
    Unknown { repository: String, cluster: String, system_id: u64, major: Major, known: Vec<ClusterFolder> },
    #[error("{path} cannot be read")]
    Unreadable {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} cannot be used")]
    Control {
        path: String,
        #[source]
        source: ControlError,
    },
}

impl Advice for IncarnationError {
    fn detail(&self) -> Option<String> {
        match self {
            IncarnationError::Unknown { known, .. } if known.is_empty() => Some("it knows no cluster of that name at all".to_owned()),
            IncarnationError::Unknown { known, .. } => {
                let each = known.iter().map(|f| format!("system identifier {} of Postgres {}", f.system_id, f.major));
                Some(format!("it knows {}", each.collect::<Vec<_>>().join(", ")))
            }
            IncarnationError::Control { source, .. } => source.detail(),
            IncarnationError::Repo(e) => e.detail(),
            IncarnationError::Unreadable { .. } => None,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            IncarnationError::Unknown { known, .. } if known.is_empty() => Some("Run `bygone init` for this cluster first.".to_owned()),
            IncarnationError::Unknown { .. } => Some(
                "Is this a copy of another cluster that kept its configuration? Give it a name of its own. After pg_upgrade or a new initdb, run `bygone init` again.".to_owned(),
            ),
            IncarnationError::Control { source, .. } => source.hint(),
            IncarnationError::Repo(e) => e.hint(),
            IncarnationError::Unreadable { .. } => Some("Is data-directory right, and may this user read it?".to_owned()),
        }
    }
}

/// Who a cluster is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    pub major: Major,
    pub system_id: u64,
}

/// The folder of the cluster called `cluster` that is `identity`.
///
/// # Errors
/// [`IncarnationError::Unknown`] with what the repository knows by that name instead; store errors.
pub fn find(repository: &Repository, cluster: &str, identity: Identity) -> Result<ClusterFolder, IncarnationError> {
    let folder = ClusterFolder::new(cluster, identity.major, identity.system_id);
    if repository.has_object(&folder.identity())? {
        return Ok(folder);
    }
    let (system_id, major) = (identity.system_id, identity.major);
    let known = known(repository, cluster)?;
    Err(IncarnationError::Unknown { repository: repository.store().describe(), cluster: cluster.to_owned(), system_id, major, known })
}

/// All incarnations of a name.
///
/// # Errors
/// Store errors.
pub fn known(repository: &Repository, cluster: &str) -> Result<Vec<ClusterFolder>, RepoError> {
    let names = repository.store().list_dir(&ClusterFolder::parent(cluster))?;
    Ok(names.iter().filter_map(|name| ClusterFolder::parse(cluster, name)).collect())
}

/// Reads `global/pg_control` of a data directory. A running server may be writing it: a checksum that does not match is tried again.
///
/// # Errors
/// [`IncarnationError::Unreadable`]; [`IncarnationError::Control`].
pub fn read_control(data_directory: &Path) -> Result<ControlFile, IncarnationError> {
    read_control_bytes(data_directory).map(|(control, _)| control)
}

/// As [`read_control`], with the bytes.
///
/// # Errors
/// As [`read_control`].
pub fn read_control_bytes(data_directory: &Path) -> Result<(ControlFile, Vec<u8>), IncarnationError> {
    let path = data_directory.join("global/pg_control");
    let name = || path.display().to_string();
    for _ in 0..50 {
        let bytes = fs_err::read(&path).map_err(|source| IncarnationError::Unreadable { path: name(), source })?;
        match ControlFile::decode(&bytes) {
            Ok(control) => return Ok((control, bytes)),
            Err(ControlError::Checksum { .. }) => std::thread::sleep(std::time::Duration::from_millis(10)),
            Err(source) => return Err(IncarnationError::Control { path: name(), source }),
        }
    }
    let bytes = fs_err::read(&path).map_err(|source| IncarnationError::Unreadable { path: name(), source })?;
    match ControlFile::decode(&bytes) {
        Ok(control) => Ok((control, bytes)),
        Err(source) => Err(IncarnationError::Control { path: name(), source }),
    }
}
