//! Identity and keys of a repository: made by `create`, read by `open`.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{RepoError, layout};
use crate::format::document::{self, Document, DocumentError};
use crate::format::keys::{DataKey, Kdf, KeyError, Secret, WrappedKey, random};
use crate::format::{Cipher, RepositoryId};
use crate::store::{Store, StoreError};

#[derive(Serialize, Deserialize)]
struct OnDiskRepository {
    repository: String,
    cipher: String,
}

impl Document for OnDiskRepository {
    const WHAT: &'static str = "repository";
}

#[derive(Serialize, Deserialize)]
struct OnDiskKey {
    repository: String,
    generation: u32,
    number: u32,
    kdf: OnDiskKdf,
    salt: String,
    check: String,
    wrapped: String,
    tag: String,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case")]
enum OnDiskKdf {
    HkdfSha256,
    Argon2id { memory_kib: u32, passes: u32, lanes: u32 },
}

impl Document for OnDiskKey {
    const WHAT: &'static str = "wrapped-key";
}

impl OnDiskKey {
    fn from(key: &WrappedKey) -> OnDiskKey {
        OnDiskKey {
            repository: key.repository.to_string(),
            generation: key.generation,
            number: key.number,
            kdf: match key.kdf {
                Kdf::Hkdf => OnDiskKdf::HkdfSha256,
                Kdf::Argon2id { memory_kib, passes, lanes } => OnDiskKdf::Argon2id { memory_kib, passes, lanes },
            },
            salt: hex::encode(key.salt),
            check: hex::encode(key.check),
            wrapped: hex::encode(key.wrapped),
            tag: hex::encode(key.tag),
        }
    }

    /// `None` if a field is no hex of its length.
    fn into_wrapped(self) -> Option<WrappedKey> {
        fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
            let mut out = [0; N];
            hex::decode_to_slice(text, &mut out).ok().map(|()| out)
        }
        Some(WrappedKey {
            repository: RepositoryId::parse(&self.repository)?,
            generation: self.generation,
            number: self.number,
            kdf: match self.kdf {
                OnDiskKdf::HkdfSha256 => Kdf::Hkdf,
                OnDiskKdf::Argon2id { memory_kib, passes, lanes } => Kdf::Argon2id { memory_kib, passes, lanes },
            },
            salt: bytes(&self.salt)?,
            check: bytes(&self.check)?,
            wrapped: bytes(&self.wrapped)?,
            tag: bytes(&self.tag)?,
        })
    }
}

/// Writes a document under a key of its own.
pub(super) fn put_document<T: Document>(store: &dyn Store, key: &str, body: &T) -> Result<(), RepoError> {
    let bytes = document::encode(body).map_err(|e| {
        let source = DocumentError::NotThis { expected: T::WHAT, what: e.to_string() };
        RepoError::Document { store: store.describe(), key: key.to_owned(), source }
    })?;
    Ok(store.put_new(key, Bytes::from(bytes))?)
}

/// Reads a document.
pub(super) fn get_document<T: Document>(store: &dyn Store, key: &str) -> Result<T, RepoError> {
    let bad = |source| RepoError::Document { store: store.describe(), key: key.to_owned(), source };
    let (bytes, size) = store.get_tail(key, document::MAX_DOCUMENT_BYTES)?;
    if size > document::MAX_DOCUMENT_BYTES {
        return Err(bad(DocumentError::Damaged { expected: T::WHAT, what: format!("it has {size} bytes") }));
    }
    document::decode(&bytes).map_err(bad)
}

/// Does a secret come with an encrypted repository, and only then?
pub(super) fn check_secret(store: &dyn Store, cipher: Cipher, secret: Option<&Secret>) -> Result<(), RepoError> {
    let store = || store.describe();
    match (cipher, secret) {
        (Cipher::None, Some(_)) => Err(RepoError::SecretUnused { store: store() }),
        (Cipher::Aes256CbcHmacSha256, None) => Err(RepoError::SecretMissing { store: store() }),
        (_, Some(secret)) if secret.is_empty() => Err(RepoError::SecretEmpty { store: store() }),
        _ => Ok(()),
    }
}

/// Refuses what is left of a repository that has lost its identity, or all of its wrapped keys: with new ones, what is stored there could not be read any
/// more once the right ones are back, or what is stored from now on.
pub(super) fn refuse_remains(store: &dyn Store) -> Result<(), RepoError> {
    let remains = |missing: String| RepoError::Remains { store: store.describe(), missing };
    let is_used = || Ok::<_, RepoError>(!store.list_dir(layout::CLUSTERS)?.is_empty());
    match read_identity(store) {
        Err(RepoError::NoRepository { .. }) if is_used()? || !list_wrapped(store)?.is_empty() => Err(remains(layout::IDENTITY.to_owned())),
        Err(RepoError::NoRepository { .. }) | Ok((_, Cipher::None)) => Ok(()),
        Err(error) => Err(error),
        Ok(_) if list_wrapped(store)?.is_empty() && is_used()? => Err(remains(format!("the wrapped key below {}", layout::KEYS))),
        Ok(_) => Ok(()),
    }
}

/// Writes the identity, or finds that of an interrupted `create` (same cipher, no key yet, nothing stored).
pub(super) fn create_identity(store: &dyn Store, cipher: Cipher) -> Result<RepositoryId, RepoError> {
    let id = RepositoryId(random().map_err(|source| RepoError::Key { store: store.describe(), source })?);
    let body = OnDiskRepository { repository: id.to_string(), cipher: cipher.name().to_owned() };
    match put_document(store, layout::IDENTITY, &body) {
        Ok(()) => Ok(id),
        Err(RepoError::Store(StoreError::Exists { .. })) => {
            let (id, there) = read_identity(store)?;
            let begun = there == cipher && cipher != Cipher::None && list_wrapped(store)?.is_empty();
            begun.then_some(id).ok_or_else(|| RepoError::AlreadyThere { store: store.describe(), id: id.to_string() })
        }
        Err(other) => Err(other),
    }
}

/// Reads who a repository is.
pub(super) fn read_identity(store: &dyn Store) -> Result<(RepositoryId, Cipher), RepoError> {
    let body: OnDiskRepository = match get_document(store, layout::IDENTITY) {
        Err(e) if e.is_not_found() => return Err(RepoError::NoRepository { store: store.describe() }),
        other => other?,
    };
    let parsed = RepositoryId::parse(&body.repository).zip(Cipher::from_name(&body.cipher));
    parsed.ok_or_else(|| {
        let what = format!("id {:?} with cipher {:?} is none that this version knows", body.repository, body.cipher);
        let source = DocumentError::NotThis { expected: OnDiskRepository::WHAT, what };
        RepoError::Document { store: store.describe(), key: layout::IDENTITY.to_owned(), source }
    })
}

/// Makes generation 1 and wraps it.
pub(super) fn create_first_key(store: &dyn Store, id: RepositoryId, secret: &Secret) -> Result<(), RepoError> {
    let wrap = || WrappedKey::wrap(&DataKey::generate(1)?, id, 1, secret, secret.suggested_kdf());
    let wrapped = wrap().map_err(|source| RepoError::Key { store: store.describe(), source })?;
    match put_document(store, &layout::wrapped_key(1, 1), &OnDiskKey::from(&wrapped)) {
        Err(RepoError::Store(StoreError::Exists { store, .. })) => Err(RepoError::AlreadyThere { store, id: id.to_string() }),
        other => other,
    }
}

/// The wrapped keys that there are: generation and number, rising.
pub(super) fn list_wrapped(store: &dyn Store) -> Result<Vec<(u32, u32)>, RepoError> {
    let mut found = Vec::new();
    store.list(layout::KEYS, None, &mut |meta| {
        found.extend(layout::parse_wrapped_key(&meta.key));
        true
    })?;
    found.sort_unstable();
    Ok(found)
}

/// Opens one wrap of each generation that `secret` opens. A generation of which no wrap fits is left out: its objects say so when they are read.
pub(super) fn open_keys(store: &dyn Store, id: RepositoryId, secret: &Secret, wrapped: &[(u32, u32)]) -> Result<Vec<DataKey>, RepoError> {
    let mut keys: Vec<DataKey> = Vec::new();
    let mut failed = None;
    for &(generation, number) in wrapped {
        if keys.iter().any(|key| key.generation == generation) {
            continue;
        }
        match open_key(store, id, generation, number, secret) {
            Ok(key) => keys.push(key),
            Err(e @ RepoError::Store(_)) => return Err(e),
            // Damage says more than "does not fit", which is what every other wrap of a rotated secret says.
            Err(e) if failed.is_none() || e.is_damage() => failed = Some(e),
            Err(_) => {}
        }
    }
    match (keys.is_empty(), failed) {
        (true, Some(error)) => Err(error),
        (true, None) => Err(RepoError::NoWrappedKey { store: store.describe(), prefix: layout::KEYS }),
        _ => Ok(keys),
    }
}

fn open_key(store: &dyn Store, id: RepositoryId, generation: u32, number: u32, secret: &Secret) -> Result<DataKey, RepoError> {
    let name = layout::wrapped_key(generation, number);
    let document: OnDiskKey = get_document(store, &name)?;
    let not_this = |what: &str| RepoError::Document {
        store: store.describe(),
        key: name.clone(),
        source: DocumentError::NotThis { expected: OnDiskKey::WHAT, what: what.to_owned() },
    };
    let wrapped = document.into_wrapped().ok_or_else(|| not_this("a field has the wrong length"))?;
    if (wrapped.repository, wrapped.generation, wrapped.number) != (id, generation, number) {
        return Err(not_this("it belongs to another repository or has another number"));
    }
    wrapped.unwrap(secret).map_err(|source: KeyError| RepoError::Key { store: store.describe(), source })
}
