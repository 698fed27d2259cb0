//! Names to objects: a repository on any [`Store`].
//!
//! From: `archive` (puts) and `view` (reads).  To: `store` (bytes by key), `format` (what the bytes mean).
//! What always holds: append-only, every key is written once; an object that is read is exactly the one that was written under its key, or there is an
//! error that names it. Knows nothing of WAL records or of manifests' contents.

pub mod catalog;
pub mod cluster;
pub mod error;
pub mod indexes;
mod keyring;
pub mod label;
pub mod layout;
pub mod lock;
pub mod manifest;
pub mod marker;
pub mod minimal;
pub mod moment;
pub mod object;
pub mod resolve;
#[cfg(test)]
mod tests;
pub mod window;
mod writer;

pub use error::RepoError;
pub use object::Object;
pub use writer::{ObjectSummary, ObjectWriter};

use std::sync::Arc;

use bytes::Bytes;
use rayon::prelude::*;

pub use crate::format::keys::Secret;
pub use crate::format::sealed::{ObjectKind, Stream};
pub use crate::format::{Cipher, RepositoryId};

use crate::format::keys::DataKey;
use crate::format::sealed::{Expected, Header, Sealed, Sealer, TailBuilder};
use crate::store::counted::{Count, Counted};
use crate::store::{Store, StoreError};

/// zstd's own default: level 1 stores up to 31 % more, level 6 takes 2.5 to 6 times the CPU for a few percent.
pub const DEFAULT_LEVEL: i32 = 3;

/// Memory for opened chunk tables.
const OPENED_BYTES: usize = 32 << 20;

/// An opened repository. Cheap to share (`Arc`); every method may be called from many threads.
#[derive(Debug)]
pub struct Repository {
    store: Arc<dyn Store>,
    id: RepositoryId,
    cipher: Cipher,
    keys: Vec<DataKey>,
    level: i32,
    opened: object::Opened,
    /// Read from the store that it was opened on.
    read: Count,
}

impl Repository {
    /// Makes a new repository: its identity and, if encrypted, the first data key wrapped by `secret`.
    ///
    /// Finishes what an interrupted call began. Probes first that the store refuses to overwrite.
    ///
    /// # Errors
    /// [`RepoError::AlreadyThere`] if there is one already, [`RepoError::Remains`] if most of one is; [`StoreError::Refused`] if the store does not honour conditional writes;
    /// [`RepoError::SecretMissing`] or [`RepoError::SecretUnused`] if `secret` does not go with `cipher`; store errors.
    pub fn create(store: Arc<dyn Store>, cipher: Cipher, secret: Option<&Secret>) -> Result<Repository, RepoError> {
        keyring::check_secret(store.as_ref(), cipher, secret)?;
        keyring::refuse_remains(store.as_ref())?;
        crate::store::probe(store.as_ref())?;
        let id = keyring::create_identity(store.as_ref(), cipher)?;
        if let Some(secret) = secret {
            keyring::create_first_key(store.as_ref(), id, secret)?;
        }
        Repository::open(store, secret)
    }

    /// Opens an existing repository.
    ///
    /// # Errors
    /// [`RepoError::NoRepository`]; [`RepoError::Key`] for a wrong secret or a damaged key; [`RepoError::SecretMissing`] and
    /// [`RepoError::SecretUnused`]; [`RepoError::Document`] for a damaged identity or one from the future; store errors.
    ///
    /// Cost: two or three small reads, and 0.1 s of CPU if the secret is a passphrase.
    pub fn open(store: Arc<dyn Store>, secret: Option<&Secret>) -> Result<Repository, RepoError> {
        let read = Count::default();
        let store: Arc<dyn Store> = Arc::new(Counted::new(store, read.clone()));
        let (identity, wrapped) = std::thread::scope(|threads| {
            let wrapped = secret.map(|_| threads.spawn(|| keyring::list_wrapped(store.as_ref())));
            let identity = keyring::read_identity(store.as_ref());
            (identity, wrapped.map(|list| list.join().expect("listing does not panic")))
        });
        let (id, cipher) = identity?;
        keyring::check_secret(store.as_ref(), cipher, secret)?;
        let keys = match secret.zip(wrapped) {
            Some((secret, wrapped)) => keyring::open_keys(store.as_ref(), id, secret, &wrapped?)?,
            None => Vec::new(),
        };
        Ok(Repository { store, id, cipher, keys, level: DEFAULT_LEVEL, opened: object::Opened::new(OPENED_BYTES), read })
    }

    /// The same repository, compressing new objects at this zstd level.
    #[must_use]
    pub fn with_level(mut self, level: i32) -> Repository {
        self.level = level;
        self
    }

    /// The same repository's objects in another store: a local copy of some of them.
    #[must_use]
    pub fn with_store(&self, store: Arc<dyn Store>) -> Repository {
        let (keys, opened, read) = (self.keys.clone(), object::Opened::new(OPENED_BYTES), self.read.clone());
        Repository { store, id: self.id, cipher: self.cipher, keys, level: self.level, opened, read }
    }

    /// The store below.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// What was read from the store that it was opened on; what a cache above that gave is not in it.
    #[must_use]
    pub fn read(&self) -> &Count {
        &self.read
    }

    /// Its random name.
    #[must_use]
    pub fn id(&self) -> RepositoryId {
        self.id
    }

    /// How its objects are protected.
    #[must_use]
    pub fn cipher(&self) -> Cipher {
        self.cipher
    }

    /// Generation of the data key that new objects are sealed with; `None` if not encrypted.
    #[must_use]
    pub fn key_generation(&self) -> Option<u32> {
        self.newest_key().map(|key| key.generation)
    }

    fn newest_key(&self) -> Option<&DataKey> {
        self.keys.iter().max_by_key(|key| key.generation)
    }

    /// Seals and writes an object in one conditional put. Chunks are sealed in parallel.
    ///
    /// # Errors
    /// [`RepoError::Store`] with [`StoreError::Exists`] if the key is taken; store errors.
    pub fn put_object(&self, key: &str, kind: ObjectKind, main: &[u8], aux: Option<&[u8]>) -> Result<ObjectSummary, RepoError> {
        let sealer = self.sealer(key, kind)?;
        let header = sealer.header();
        let chunks: Vec<(Stream, Sealed)> =
            [(Stream::Main, main, header.main_chunk), (Stream::Aux, aux.unwrap_or_default(), header.aux_chunk)]
                .into_iter()
                .map(|(stream, bytes, chunk)| {
                    seal_all(&sealer, stream, bytes, chunk).map(|all| all.into_iter().map(move |one| (stream, one)))
                })
                .collect::<Result<Vec<_>, _>>()
                .map_err(|source| self.sealed_error(key, source))?
                .into_iter()
                .flatten()
                .collect();
        let mut tail = TailBuilder::default();
        // Each chunk takes 8 bytes of the tail at most (docs/format.md), beside its frame and the footer.
        let stored: usize = chunks.iter().map(|(_, sealed)| sealed.bytes.len() + 8).sum();
        let mut body = Vec::with_capacity(stored + 512);
        body.extend_from_slice(sealer.header_bytes());
        // By value: each chunk's own memory goes as soon as it is in the body.
        for (stream, sealed) in chunks {
            tail.push(&sealer, stream, &sealed).map_err(|source| self.sealed_error(key, source))?;
            body.extend_from_slice(&sealed.bytes);
        }
        let (tail, footer) = tail.finish(&sealer).map_err(|source| self.sealed_error(key, source))?;
        body.extend_from_slice(&tail);
        let summary = ObjectSummary { main_len: footer.main_len, stored_len: body.len() as u64 };
        self.store.put_new(key, Bytes::from(body))?;
        Ok(summary)
    }

    /// Begins an object of unknown length: bounded memory, visible only after [`ObjectWriter::finish`].
    ///
    /// # Errors
    /// Store errors; an existing key may be noticed only at `finish`.
    pub fn writer(&self, key: &str, kind: ObjectKind) -> Result<ObjectWriter, RepoError> {
        let sealer = self.sealer(key, kind)?;
        ObjectWriter::begin(self.store.describe(), key, sealer, self.store.upload_new(key)?)
    }

    /// Opens an object for reading: one read of its tail (two if its table is large), none if it was opened lately.
    ///
    /// # Errors
    /// [`RepoError::Store`] with [`StoreError::NotFound`]; [`RepoError::Sealed`] for a damaged object, another one, one from the future, or a missing key.
    pub fn open_object(&self, key: &str, kind: ObjectKind) -> Result<Object, RepoError> {
        if let Some(object) = self.opened.get(key, kind) {
            return Ok(object);
        }
        let expected = Expected { repository: self.id, key, kind, keys: &self.keys, encrypted: self.cipher != Cipher::None };
        let object = Object::open(self.store.clone(), &expected)?;
        self.opened.put(&object);
        Ok(object)
    }

    /// Opens and reads a whole small object: its main stream.
    ///
    /// # Errors
    /// As [`Repository::open_object`] and [`Object::read_main`].
    pub fn read_object(&self, key: &str, kind: ObjectKind) -> Result<Vec<u8>, RepoError> {
        let object = self.open_object(key, kind)?;
        object.read_main(0..object.main_len())
    }

    /// Does an object exist under this key? Asks the store, opens nothing.
    ///
    /// # Errors
    /// Store errors.
    pub fn has_object(&self, key: &str) -> Result<bool, RepoError> {
        Ok(self.store.head(key)?.is_some())
    }

    fn sealer(&self, key: &str, kind: ObjectKind) -> Result<Sealer, RepoError> {
        let header = Header {
            cipher: self.cipher,
            kind,
            main_chunk: kind.chunk_bytes(),
            aux_chunk: 64 << 10,
            generation: 0,
            repository: self.id,
            salt: [0; 32],
            key_digest: Header::digest_of_key(key),
            has_digest: kind.has_digest(),
        };
        Sealer::new(header, self.newest_key(), self.level).map_err(|source| self.sealed_error(key, source))
    }

    fn sealed_error(&self, key: &str, source: crate::format::sealed::SealError) -> RepoError {
        RepoError::Sealed { store: self.store.describe(), key: key.to_owned(), source }
    }
}

/// Seals a whole stream, in parallel once it is worth it.
fn seal_all(sealer: &Sealer, stream: Stream, bytes: &[u8], chunk: u32) -> Result<Vec<Sealed>, crate::format::sealed::SealError> {
    let chunk = chunk as usize;
    let count = bytes.len().div_ceil(chunk);
    let seal = |(number, part): (usize, &[u8])| sealer.seal(stream, number as u64, number + 1 == count, part);
    if count < 4 {
        return bytes.chunks(chunk).enumerate().map(seal).collect();
    }
    bytes.par_chunks(chunk).enumerate().map(seal).collect()
}

/// Is this error the store's word that the key is taken?
#[must_use]
pub fn is_taken(error: &RepoError) -> bool {
    matches!(error, RepoError::Store(StoreError::Exists { .. }))
}
