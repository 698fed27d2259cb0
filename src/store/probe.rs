//! Finds out whether a store keeps the one promise on which nothing being overwritten rests.
//!
//! Some services that speak S3 take `If-None-Match: *` and overwrite all the same. `init` and `check` ask before anything is entrusted to them.

use bytes::Bytes;

use super::{Store, StoreError};

/// Writes a key twice and makes sure that the second write is refused and the first one's bytes stay. The key is removed again where the
/// store lets us; it is `probe/<random>`.
///
/// # Errors
/// [`StoreError::Refused`] if the store overwrites, or gives back other bytes than it took; else what goes wrong with writing and reading.
pub fn probe(store: &dyn Store) -> Result<(), StoreError> {
    let mut random = [0_u8; 16];
    getrandom::fill(&mut random)
        .map_err(|error| StoreError::Unavailable { store: store.describe(), what: format!("no random bytes: {error}") })?;
    let key = format!("probe/{}", hex::encode(random));
    store.put_new(&key, Bytes::from_static(b"first"))?;
    let checked = overwrite(store, &key);
    if let Err(error) = store.delete(&key) {
        tracing::debug!(key, %error, "the probe cannot be removed");
    }
    checked
}

fn overwrite(store: &dyn Store, key: &str) -> Result<(), StoreError> {
    match store.put_new(key, Bytes::from_static(b"other")) {
        Err(StoreError::Exists { .. }) => (),
        Err(error) => return Err(error),
        Ok(()) => return Err(refused(store, "it overwrites an object although it is told not to (If-None-Match: *)")),
    }
    match store.get(key)?.as_ref() {
        b"first" => Ok(()),
        _ => Err(refused(store, "it gives back other bytes than it took")),
    }
}

fn refused(store: &dyn Store, what: &str) -> StoreError {
    StoreError::Refused {
        store: store.describe(),
        what: what.to_owned(),
        setting: "repo.N.endpoint",
        hint: "Two hosts could destroy each other's backups there. Use a service that knows conditional writes, as AWS, SeaweedFS, MinIO and Ceph do."
            .to_owned(),
    }
}
