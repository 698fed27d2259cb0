//! Ranges of objects that were fetched once, kept on disk.
//!
//! From: readers of a store, through [`Cached`].  To: `DIR/<shard>/<name>`, one file a range, mode 0600 in folders of mode 0700.
//! Holds exactly what the store gave: where the repository is encrypted, so is the cache. Many processes of one user share it. Anything in it
//! may vanish or be damaged at any moment: an entry counts only if it says that it is the range asked for and its checksum is right.
//!
//! ```text
//! magic 8 | crc32c of the rest, 4 | length of the identity, 4 | identity: repository NUL key NUL start NUL end | the bytes
//! ```
//!
//! Bounded without any shared book-keeping: entries fall into 16 shards by hash, each with a sixteenth of the room. Now and then (on average
//! each time a thirty-second of that has been written, whoever wrote it) a writer counts the shard and removes what was used longest ago.
//! So the cache may grow some per cent past its size, never without end.

mod shard;

use std::fs::File;
use std::io::{Read, Write};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{Meta, Store, StoreError, Upload};

const MAGIC: &[u8; 8] = b"BYGRNG01";
const SHARDS: u64 = 16;

/// Counts take turns by chance: this many on average while a shard's room is written once.
const COUNTS_PER_ROOM: u64 = 32;

/// The time of last use is set anew when it is older than this; oftener would cost a write per read.
const USE_RESOLUTION: Duration = Duration::from_secs(60);

/// A size is eight bytes.
const SIZE_RANGE: Range<u64> = 0..8;

/// A cache directory.
#[derive(Debug)]
pub struct RangeCache {
    dir: PathBuf,
    /// Room of one shard, bytes.
    shard_bytes: u64,
}

impl RangeCache {
    /// Opens a cache of about `max_bytes`, making the directory if there is none.
    ///
    /// # Errors
    /// Those of the file system, with the path.
    pub fn open(dir: impl Into<PathBuf>, max_bytes: u64) -> std::io::Result<Self> {
        let cache = RangeCache { dir: dir.into(), shard_bytes: max_bytes / SHARDS };
        for number in 0..SHARDS {
            let shard = cache.dir.join(format!("{number:x}"));
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&shard);
            made.map_err(|error| std::io::Error::new(error.kind(), format!("{}: {error}", shard.display())))?;
        }
        Ok(cache)
    }

    /// The bytes of a range, if they are here and sound. Never an error: what cannot be read is not here.
    #[must_use]
    pub fn get(&self, repository: &str, key: &str, range: &Range<u64>) -> Option<Bytes> {
        let identity = identity(repository, key, range);
        let path = self.path(&identity);
        let entry = read(&path).ok()?;
        let bytes = unseal(&entry, &identity, range);
        if bytes.is_none() {
            tracing::debug!(path = %path.display(), key, "removing a damaged entry of the cache");
            let _gone = fs_err::remove_file(&path);
        }
        bytes
    }

    /// Keeps the bytes of a range. If that fails (a full disk), or they are much for this cache, nothing is kept.
    pub fn put(&self, repository: &str, key: &str, range: &Range<u64>, bytes: &[u8]) {
        if bytes.len() as u64 > self.most_bytes() {
            return;
        }
        let identity = identity(repository, key, range);
        let path = self.path(&identity);
        if let Err(error) = write(&path, &[&head(&identity, bytes), bytes]) {
            tracing::debug!(key, %error, "a range cannot be cached");
        }
        if self.is_time_to_count(bytes.len() as u64) {
            shard::shrink(path.parent().unwrap_or(&self.dir), self.shard_bytes);
        }
    }

    /// Keeps a range no longer.
    pub fn remove(&self, repository: &str, key: &str, range: &Range<u64>) {
        let _gone = fs_err::remove_file(self.path(&identity(repository, key, range)));
    }

    /// A range of more than this would push out too much else.
    fn most_bytes(&self) -> u64 {
        self.shard_bytes / 4
    }

    fn path(&self, identity: &[u8]) -> PathBuf {
        let name = hex::encode(Sha256::digest(identity));
        let (shard, name) = name.split_at(1);
        self.dir.join(shard).join(name)
    }

    fn is_time_to_count(&self, written: u64) -> bool {
        let chance = (written * COUNTS_PER_ROOM).saturating_mul(u64::from(u32::MAX)) / self.shard_bytes.max(1);
        u64::from(getrandom::u32().unwrap_or(0)) <= chance
    }
}

fn identity(repository: &str, key: &str, range: &Range<u64>) -> Vec<u8> {
    format!("{repository}\0{key}\0{}\0{}", range.start, range.end).into_bytes()
}

/// What stands before the bytes of an entry.
fn head(identity: &[u8], bytes: &[u8]) -> Vec<u8> {
    let len = u32::try_from(identity.len()).unwrap_or(u32::MAX).to_le_bytes();
    let checksum = [&len, identity, bytes].into_iter().fold(0, crc32c::crc32c_append);
    [&MAGIC[..], &checksum.to_le_bytes(), &len, identity].concat()
}

/// The bytes of an entry, if it is what it should be from its first byte to its last.
fn unseal(entry: &Bytes, identity: &[u8], range: &Range<u64>) -> Option<Bytes> {
    let head_len = MAGIC.len() + 8 + identity.len();
    let bytes = entry.get(head_len..)?;
    let sound = entry.starts_with(&head(identity, bytes)) && bytes.len() as u64 == range.end.checked_sub(range.start)?;
    sound.then(|| entry.slice(head_len..))
}

/// Reads an entry and notes that it was used.
fn read(path: &Path) -> std::io::Result<Bytes> {
    let mut file = File::options().read(true).open(path)?;
    let meta = file.metadata()?;
    let mut entry = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or_default());
    file.read_to_end(&mut entry)?;
    let now = SystemTime::now();
    if now.duration_since(meta.modified()?).is_ok_and(|age| age > USE_RESOLUTION) {
        file.set_modified(now)?;
    }
    Ok(entry.into())
}

/// Writes beside and renames. No fsync: what a crash makes of it, the checksum tells.
fn write(path: &Path, parts: &[&[u8]]) -> std::io::Result<()> {
    let temporary = path.with_extension(format!("{:016x}{}", getrandom::u64().map_err(std::io::Error::other)?, shard::TEMPORARY));
    let written = || {
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
        parts.iter().try_for_each(|part| file.write_all(part))?;
        fs_err::rename(&temporary, path)
    };
    written().inspect_err(|_error| {
        let _gone = fs_err::remove_file(&temporary);
    })
}

/// A store whose ranges come from a cache where they are in it.
#[derive(Debug, Clone)]
pub struct Cached {
    inner: Arc<dyn Store>,
    cache: Arc<RangeCache>,
    repository: String,
}

impl Cached {
    /// `repository` tells apart the objects of different repositories: its id. Objects are immutable, so what was fetched once stays right.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, cache: Arc<RangeCache>, repository: &str) -> Self {
        Cached { inner, cache, repository: repository.to_owned() }
    }
}

impl Store for Cached {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn put_new(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        self.inner.put_new(key, body)
    }

    fn upload_new(&self, key: &str) -> Result<Box<dyn Upload>, StoreError> {
        self.inner.upload_new(key)
    }

    fn settle(&self, key: &str) -> Result<(), StoreError> {
        self.inner.settle(key)
    }

    fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        if let Some(bytes) = self.cache.get(&self.repository, key, &range) {
            return Ok(bytes);
        }
        let bytes = self.inner.get_range(key, range.clone())?;
        if !bytes.is_empty() {
            self.cache.put(&self.repository, key, &range, &bytes);
        }
        Ok(bytes)
    }

    fn get_pieces(&self, key: &str, pieces: &[Range<u64>]) -> Result<Bytes, StoreError> {
        let (Some(first), Some(last)) = (pieces.first(), pieces.last()) else { return Ok(Bytes::new()) };
        let kept: Vec<Option<Bytes>> = pieces.iter().map(|piece| self.cache.get(&self.repository, key, piece)).collect();
        let here = || pieces.iter().zip(&kept).filter_map(|(piece, bytes)| Some((piece.start, bytes.as_ref()?)));
        let mut missing = pieces.iter().zip(&kept).filter(|(_, bytes)| bytes.is_none()).map(|(piece, _)| piece);
        let Some(first_missing) = missing.next() else { return Ok(joined(first.start..last.end, here())) };
        let (start, end) = (first_missing.start, missing.last().unwrap_or(first_missing).end);
        let fetched = self.inner.get_range(key, start..end)?;
        for (piece, _) in pieces.iter().zip(&kept).filter(|(_, bytes)| bytes.is_none()) {
            if let Some(bytes) = part(&fetched, start, piece) {
                self.cache.put(&self.repository, key, piece, bytes);
            }
        }
        if start == first.start && end == last.end {
            return Ok(fetched);
        }
        Ok(joined(first.start..last.end, here().chain([(start, &fetched)])))
    }

    fn forget(&self, key: &str, pieces: &[Range<u64>]) {
        self.cache.remove(&self.repository, &size_key(key), &SIZE_RANGE);
        pieces.iter().for_each(|piece| self.cache.remove(&self.repository, key, piece));
    }

    fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        self.inner.get(key)
    }

    /// The size is kept under a name that no object has; with it a tail is a range.
    fn get_tail(&self, key: &str, len: u64) -> Result<(Bytes, u64), StoreError> {
        let kept = || {
            let size = self.cache.get(&self.repository, &size_key(key), &SIZE_RANGE)?;
            let size = u64::from_le_bytes(size.as_ref().try_into().ok()?);
            Some((self.cache.get(&self.repository, key, &(size.saturating_sub(len)..size))?, size))
        };
        if let Some(tail_and_size) = kept() {
            return Ok(tail_and_size);
        }
        let (tail, size) = self.inner.get_tail(key, len)?;
        if !tail.is_empty() {
            self.cache.put(&self.repository, &size_key(key), &SIZE_RANGE, &size.to_le_bytes());
            self.cache.put(&self.repository, key, &(size.saturating_sub(len)..size), &tail);
        }
        Ok((tail, size))
    }

    fn head(&self, key: &str) -> Result<Option<Meta>, StoreError> {
        self.inner.head(key)
    }

    fn list(&self, prefix: &str, after: Option<&str>, each: &mut dyn FnMut(Meta) -> bool) -> Result<(), StoreError> {
        self.inner.list(prefix, after, each)
    }

    fn list_dir(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.inner.list_dir(prefix)
    }

    fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.inner.delete(key)
    }
}

/// What the size of an object is kept under.
fn size_key(key: &str) -> String {
    format!("{key}\0size")
}

/// The bytes of `range`, each part put where it belongs; zeroes where there is none.
fn joined<'a>(range: Range<u64>, parts: impl Iterator<Item = (u64, &'a Bytes)>) -> Bytes {
    let mut all = vec![0; usize::try_from(range.end - range.start).unwrap_or_default()];
    for (start, bytes) in parts {
        let at = usize::try_from(start - range.start).unwrap_or(usize::MAX);
        if let Some(place) = at.checked_add(bytes.len()).and_then(|end| all.get_mut(at..end)) {
            place.copy_from_slice(bytes);
        }
    }
    all.into()
}

/// What `bytes`, which begin at `start`, hold of a piece.
fn part<'a>(bytes: &'a Bytes, start: u64, piece: &Range<u64>) -> Option<&'a [u8]> {
    let at = |position: u64| usize::try_from(position.checked_sub(start)?).ok();
    bytes.get(at(piece.start)?..at(piece.end)?)
}

#[cfg(test)]
mod tests;
