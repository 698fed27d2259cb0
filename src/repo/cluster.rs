//! Which clusters a repository knows: registered by `init`, asked for by everything that stores or finds an object of one.
//!
//! From: `cli::init`, `archive`, `view`.  To: `identity.json` in the cluster's folder.
//! A name may have several incarnations (`pg_upgrade` and `initdb` make a new one), each in a folder of its own; one is never changed.

use thiserror::Error;

use super::layout::{BadClusterName, CLUSTERS, ClusterFolder, check_cluster_name};
use super::{RepoError, Repository, is_taken, keyring};
use crate::advice::Advice;
use crate::format::cluster::OnDiskCluster;
use crate::format::document::{Document as _, DocumentError};
use crate::pg::control::ControlFile;
use crate::pg::{Major, SegmentSize};

/// What never changes in the life of one incarnation of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterIdentity {
    pub system_id: u64,
    pub major: Major,
    pub catalog_version: u32,
    pub wal_segment_size: SegmentSize,
    /// Did pages have checksums when it was registered? Not part of who it is: `pg_checksums` may switch them.
    pub checksums: bool,
}

/// Why a cluster was not registered or not found.
#[derive(Debug, Error)]
pub enum ClusterError {
    #[error(transparent)]
    Repo(#[from] RepoError),
    #[error(transparent)]
    Name(#[from] BadClusterName),
    /// The name stands for another cluster.
    #[error("{store} knows another cluster as {name:?}")]
    Another { store: String, name: String, system_id: u64, major: Major, known: Vec<ClusterFolder> },
    /// The same system identifier with other properties, which Postgres never does.
    #[error("{key} in {store} says something else of this cluster than its pg_control")]
    Contradiction { store: String, key: String, stored: Box<ClusterIdentity>, found: Box<ClusterIdentity> },
    #[error("{store} knows no cluster {name:?}")]
    Unknown { store: String, name: String, known: Vec<String> },
}

impl Advice for ClusterError {
    fn detail(&self) -> Option<String> {
        match self {
            ClusterError::Another { system_id, major, known, .. } => {
                let known: Vec<String> = known.iter().map(|folder| format!("{} of Postgres {}", folder.system_id, folder.major)).collect();
                Some(format!("this one has system identifier {system_id} of Postgres {major}, the repository has {}", known.join(" and ")))
            }
            ClusterError::Contradiction { stored, found, .. } => Some(format!("stored is {stored:?}, pg_control says {found:?}")),
            ClusterError::Unknown { known, .. } if known.is_empty() => Some("it knows no cluster at all".to_owned()),
            ClusterError::Unknown { known, .. } => Some(format!("it knows {}", known.join(", "))),
            ClusterError::Repo(error) => error.detail(),
            ClusterError::Name(_) => None,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            ClusterError::Another { .. } => Some(
                "Is this a copy of the other cluster, or another one? Give it a name of its own. If it is the same one after pg_upgrade or a new initdb, run `bygone init --upgraded`.".to_owned(),
            ),
            ClusterError::Unknown { .. } => Some("Run `bygone init` for it, or name another with --cluster.".to_owned()),
            ClusterError::Repo(error) => error.hint(),
            ClusterError::Name(_) | ClusterError::Contradiction { .. } => None,
        }
    }
}

impl ClusterIdentity {
    /// Who the cluster of this `pg_control` is.
    #[must_use]
    pub fn of(control: &ControlFile) -> ClusterIdentity {
        ClusterIdentity {
            system_id: control.system_id,
            major: control.major,
            catalog_version: control.catalog_version,
            wal_segment_size: control.wal_segment_size,
            checksums: control.checksum_version != 0,
        }
    }

    /// Its folder under a name.
    #[must_use]
    pub fn folder(&self, name: &str) -> ClusterFolder {
        ClusterFolder::new(name, self.major, self.system_id)
    }

    fn is_same(&self, other: &ClusterIdentity) -> bool {
        let fixed = |identity: &ClusterIdentity| ClusterIdentity { checksums: false, ..identity.clone() };
        fixed(self) == fixed(other)
    }

    fn to_disk(&self, name: &str) -> OnDiskCluster {
        OnDiskCluster {
            cluster: name.to_owned(),
            system_id: self.system_id.to_string(),
            major: self.major.number(),
            catalog_version: self.catalog_version,
            wal_segment_size: u32::try_from(self.wal_segment_size.bytes()).expect("a WAL segment has at most 1 GiB"),
            checksums: self.checksums,
        }
    }

    fn from_disk(stored: &OnDiskCluster) -> Option<ClusterIdentity> {
        Some(ClusterIdentity {
            system_id: stored.system_id.parse().ok()?,
            major: Major::from_number(stored.major)?,
            catalog_version: stored.catalog_version,
            wal_segment_size: SegmentSize::new(stored.wal_segment_size)?,
            checksums: stored.checksums,
        })
    }
}

/// What [`register`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registered {
    /// The repository knew this cluster already.
    Before,
    /// It knows it now.
    Now,
}

/// Makes a cluster known under `name`. Doing so again is fine. `upgraded`: the name may stand for other incarnations already, and this is the newest.
///
/// # Errors
/// [`ClusterError::Another`] if the name stands for another cluster and `upgraded` was not said; [`ClusterError::Contradiction`]; store errors.
pub fn register(repository: &Repository, name: &str, identity: &ClusterIdentity, upgraded: bool) -> Result<Registered, ClusterError> {
    check_cluster_name(name)?;
    let folder = identity.folder(name);
    let known = incarnations(repository, name)?;
    if known.contains(&folder) {
        return same_or_contradiction(repository, &folder, identity);
    }
    if !known.is_empty() && !upgraded {
        let (system_id, major) = (identity.system_id, identity.major);
        return Err(ClusterError::Another { store: repository.store().describe(), name: name.to_owned(), system_id, major, known });
    }
    match keyring::put_document(repository.store().as_ref(), &folder.identity(), &identity.to_disk(name)) {
        Ok(()) => Ok(Registered::Now),
        // Somebody else has just registered it.
        Err(error) if is_taken(&error) => same_or_contradiction(repository, &folder, identity),
        Err(error) => Err(error.into()),
    }
}

fn same_or_contradiction(repository: &Repository, folder: &ClusterFolder, identity: &ClusterIdentity) -> Result<Registered, ClusterError> {
    let stored = read(repository, folder)?;
    if stored.is_same(identity) {
        return Ok(Registered::Before);
    }
    let (stored, found) = (Box::new(stored), Box::new(identity.clone()));
    Err(ClusterError::Contradiction { store: repository.store().describe(), key: folder.identity(), stored, found })
}

/// Reads who the cluster of a folder is.
///
/// # Errors
/// [`RepoError::Document`] for a damaged identity, one of another cluster, or of a Postgres that we do not know; store errors.
pub fn read(repository: &Repository, folder: &ClusterFolder) -> Result<ClusterIdentity, RepoError> {
    let key = folder.identity();
    let stored: OnDiskCluster = keyring::get_document(repository.store().as_ref(), &key)?;
    let bad = |what: String| RepoError::Document {
        store: repository.store().describe(),
        key: key.clone(),
        source: DocumentError::NotThis { expected: OnDiskCluster::WHAT, what },
    };
    let identity = ClusterIdentity::from_disk(&stored).ok_or_else(|| bad(format!("it says {stored:?}")))?;
    let is_here = identity.folder(&stored.cluster) == *folder;
    is_here
        .then_some(identity)
        .ok_or_else(|| bad(format!("it is that of cluster {} with system identifier {}", stored.cluster, stored.system_id)))
}

/// The folders of a name that have an identity, by major version and system identifier.
///
/// # Errors
/// Store errors.
pub fn incarnations(repository: &Repository, name: &str) -> Result<Vec<ClusterFolder>, RepoError> {
    let names = repository.store().list_dir(&ClusterFolder::parent(name))?;
    let mut folders: Vec<ClusterFolder> = names.iter().filter_map(|folder| ClusterFolder::parse(name, folder)).collect();
    folders.sort_unstable();
    Ok(folders)
}

/// The names of all clusters, sorted.
///
/// # Errors
/// Store errors.
pub fn names(repository: &Repository) -> Result<Vec<String>, RepoError> {
    let names = repository.store().list_dir(CLUSTERS)?;
    Ok(names.iter().filter_map(|name| name.strip_suffix('/')).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::format::Cipher;
    use crate::store::memory::MemoryStore;

    fn repository() -> (MemoryStore, Repository) {
        let store = MemoryStore::default();
        let repository = Repository::create(Arc::new(store.clone()), Cipher::None, None).unwrap();
        (store, repository)
    }

    fn identity(system_id: u64, major: Major) -> ClusterIdentity {
        let catalog_version = major.facts().catalog_version;
        ClusterIdentity { system_id, major, catalog_version, wal_segment_size: SegmentSize::DEFAULT, checksums: false }
    }

    #[test]
    fn registering_twice_is_once() {
        let (_, repository) = repository();
        let main = identity(7_412_345_678_901_234_567, Major::V17);
        assert_eq!(register(&repository, "main", &main, false).unwrap(), Registered::Now);
        assert_eq!(register(&repository, "main", &main, false).unwrap(), Registered::Before);
        let checksums_enabled = ClusterIdentity { checksums: true, ..main.clone() };
        assert_eq!(register(&repository, "main", &checksums_enabled, false).unwrap(), Registered::Before);
        assert_eq!(read(&repository, &main.folder("main")).unwrap(), main);
        assert_eq!(names(&repository).unwrap(), ["main"]);
    }

    #[test]
    fn another_cluster_of_the_same_name_is_refused_unless_it_was_upgraded() {
        let (_, repository) = repository();
        register(&repository, "main", &identity(1, Major::V17), false).unwrap();
        let error = register(&repository, "main", &identity(2, Major::V18), false).unwrap_err();
        assert!(matches!(&error, ClusterError::Another { known, .. } if known == &[identity(1, Major::V17).folder("main")]), "{error}");
        assert_eq!(register(&repository, "main", &identity(2, Major::V18), true).unwrap(), Registered::Now);
        assert_eq!(incarnations(&repository, "main").unwrap().len(), 2);
    }

    #[test]
    fn the_same_system_identifier_with_another_segment_size_is_a_contradiction() {
        let (_, repository) = repository();
        let main = identity(1, Major::V17);
        register(&repository, "main", &main, false).unwrap();
        let other = ClusterIdentity { wal_segment_size: SegmentSize::new(1 << 20).unwrap(), ..main };
        assert!(matches!(register(&repository, "main", &other, false), Err(ClusterError::Contradiction { .. })));
    }

    #[test]
    fn an_identity_in_the_folder_of_another_is_refused() {
        let (store, repository) = repository();
        register(&repository, "main", &identity(1, Major::V17), false).unwrap();
        register(&repository, "other", &identity(1, Major::V17), false).unwrap();
        let theirs = crate::store::Store::get(&store, &identity(1, Major::V17).folder("other").identity()).unwrap();
        store.tamper(&identity(1, Major::V17).folder("main").identity(), |bytes| *bytes = theirs.to_vec());
        assert!(matches!(read(&repository, &identity(1, Major::V17).folder("main")), Err(RepoError::Document { .. })));
    }
}
