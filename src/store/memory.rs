//! Objects in memory, for tests: the plainest thing that keeps the promises of [`Store`].

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Meta, Store, StoreError, Upload, key};

type Objects = Arc<Mutex<BTreeMap<String, (Bytes, SystemTime)>>>;

/// A store that dies with the process.
#[derive(Debug, Default, Clone)]
pub struct MemoryStore {
    objects: Objects,
}

impl MemoryStore {
    /// Replaces an object's bytes: how a test damages what is stored.
    pub fn tamper(&self, key: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut objects = self.objects.lock();
        if let Some((body, _)) = objects.get_mut(key) {
            let mut bytes = body.to_vec();
            change(&mut bytes);
            *body = bytes.into();
        }
    }

    fn not_found(&self, key: &str) -> StoreError {
        StoreError::NotFound { store: self.describe(), key: key.to_owned() }
    }
}

fn insert_new(objects: &Objects, store: String, key: &str, body: Bytes) -> Result<(), StoreError> {
    key::check(&store, key)?;
    let mut objects = objects.lock();
    if objects.contains_key(key) {
        return Err(StoreError::Exists { store, key: key.to_owned() });
    }
    objects.insert(key.to_owned(), (body, SystemTime::now()));
    Ok(())
}

impl Store for MemoryStore {
    fn describe(&self) -> String {
        "memory".to_owned()
    }

    fn put_new(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        insert_new(&self.objects, self.describe(), key, body)
    }

    fn upload_new(&self, key: &str) -> Result<Box<dyn Upload>, StoreError> {
        key::check(&self.describe(), key)?;
        Ok(Box::new(MemoryUpload { objects: self.objects.clone(), key: key.to_owned(), body: Vec::new() }))
    }

    fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let body = self.get(key)?;
        let size = body.len() as u64;
        let inside = range.start <= range.end && range.end <= size;
        let out_of_range = || StoreError::OutOfRange { store: self.describe(), key: key.to_owned(), size, range: range.clone() };
        let cut = |at: u64| usize::try_from(at).map_err(|_| out_of_range());
        if !inside {
            return Err(out_of_range());
        }
        Ok(body.slice(cut(range.start)?..cut(range.end)?))
    }

    fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        key::check(&self.describe(), key)?;
        self.objects.lock().get(key).map(|(body, _)| body.clone()).ok_or_else(|| self.not_found(key))
    }

    fn get_tail(&self, key: &str, len: u64) -> Result<(Bytes, u64), StoreError> {
        let body = self.get(key)?;
        let from = body.len().saturating_sub(usize::try_from(len).unwrap_or(usize::MAX));
        Ok((body.slice(from..), body.len() as u64))
    }

    fn head(&self, key: &str) -> Result<Option<Meta>, StoreError> {
        key::check(&self.describe(), key)?;
        let objects = self.objects.lock();
        Ok(objects.get(key).map(|(body, modified)| Meta { key: key.to_owned(), size: body.len() as u64, modified: *modified }))
    }

    fn list(&self, prefix: &str, after: Option<&str>, each: &mut dyn FnMut(Meta) -> bool) -> Result<(), StoreError> {
        key::check_prefix(&self.describe(), prefix)?;
        let found: Vec<Meta> = {
            let objects = self.objects.lock();
            let matching = objects.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
            matching
                .filter(|(key, _)| after.is_none_or(|after| key.as_str() > after))
                .map(|(key, (body, modified))| Meta { key: key.clone(), size: body.len() as u64, modified: *modified })
                .collect()
        };
        let _stopped = found.into_iter().try_for_each(|meta| each(meta).then_some(()));
        Ok(())
    }

    fn list_dir(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let mut names = Vec::new();
        self.list(prefix, None, &mut |meta| {
            let rest = &meta.key[prefix.len()..];
            let name = rest.find('/').map_or(rest, |slash| &rest[..=slash]);
            if names.last().is_none_or(|last: &String| last != name) {
                names.push(name.to_owned());
            }
            true
        })?;
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    fn delete(&self, key: &str) -> Result<(), StoreError> {
        key::check(&self.describe(), key)?;
        self.objects.lock().remove(key);
        Ok(())
    }
}

struct MemoryUpload {
    objects: Objects,
    key: String,
    body: Vec<u8>,
}

impl Upload for MemoryUpload {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.body.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), StoreError> {
        insert_new(&self.objects, "memory".to_owned(), &self.key, self.body.into())
    }
}
