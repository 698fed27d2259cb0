//! Removes what interrupted backups left: objects of labels that have no manifest.
//!
//! From: `archive::backup`, which holds the cluster's backup lock; without it the objects of a running backup would look just the same.
//! What cannot be removed (an object lock, a missing permission) does no harm, and only costs space.

use crate::repo::layout::ClusterFolder;
use crate::repo::{RepoError, Repository};

/// Removes the objects of every backup without a manifest. Returns how many there were.
///
/// # Errors
/// Of listing. One that cannot be deleted is only logged.
pub(super) fn remove_unfinished(repository: &Repository, folder: &ClusterFolder) -> Result<u64, RepoError> {
    let mut removed = 0;
    for name in repository.store().list_dir(&folder.backups())? {
        let label = name.trim_end_matches('/');
        if !repository.has_object(&folder.manifest(label))? {
            removed += remove(repository, &folder.backup(label))?;
        }
    }
    Ok(removed)
}

/// Removes everything below `prefix`, which ends in a slash.
///
/// # Errors
/// Of listing.
pub(super) fn remove(repository: &Repository, prefix: &str) -> Result<u64, RepoError> {
    let mut keys = Vec::new();
    repository.store().list(prefix, None, &mut |meta| {
        keys.push(meta.key);
        true
    })?;
    let mut removed = 0;
    for key in keys {
        match repository.store().delete(&key) {
            Ok(()) => removed += 1,
            Err(error) => tracing::warn!(%error, key, "an object of an unfinished backup stays"),
        }
    }
    Ok(removed)
}
