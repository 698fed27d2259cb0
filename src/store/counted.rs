//! Counts what is read from a store, and how long that takes.
//!
//! From: `repo`, which puts it around the store that it is opened on, below any cache.  To: that store.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Meta, Store, StoreError, Upload};

/// What was read. Cheap to clone, and clones are one count.
#[derive(Debug, Clone, Default)]
pub struct Count(Arc<Numbers>);

#[derive(Debug, Default)]
struct Numbers {
    bytes: AtomicU64,
    reads: AtomicU64,
    /// A moving average.
    latency_us: AtomicU64,
}

impl Count {
    /// Bytes so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Requests that gave them.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.0.reads.load(Ordering::Relaxed)
    }

    /// How long a request takes, about: microseconds, 0 before the first.
    #[must_use]
    pub fn latency_us(&self) -> u64 {
        self.0.latency_us.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: &Bytes, took: Duration) {
        let first = self.0.reads.fetch_add(1, Ordering::Relaxed) == 0;
        self.0.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let (before, took) = (self.latency_us(), u64::try_from(took.as_micros()).unwrap_or(u64::MAX).min(1_000_000));
        self.0.latency_us.store(if first { took } else { before - before / 8 + took / 8 }, Ordering::Relaxed);
    }
}

/// A store whose reads are counted.
#[derive(Debug)]
pub struct Counted {
    inner: Arc<dyn Store>,
    count: Count,
}

impl Counted {
    /// Counts what is read from `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, count: Count) -> Counted {
        Counted { inner, count }
    }
}

impl Store for Counted {
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
        let begun = Instant::now();
        self.inner.get_range(key, range).inspect(|bytes| self.count.add(bytes, begun.elapsed()))
    }

    fn get_pieces(&self, key: &str, pieces: &[Range<u64>]) -> Result<Bytes, StoreError> {
        let begun = Instant::now();
        self.inner.get_pieces(key, pieces).inspect(|bytes| self.count.add(bytes, begun.elapsed()))
    }

    fn forget(&self, key: &str, pieces: &[Range<u64>]) {
        self.inner.forget(key, pieces);
    }

    fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        let begun = Instant::now();
        self.inner.get(key).inspect(|bytes| self.count.add(bytes, begun.elapsed()))
    }

    fn get_tail(&self, key: &str, len: u64) -> Result<(Bytes, u64), StoreError> {
        let begun = Instant::now();
        self.inner.get_tail(key, len).inspect(|(bytes, _)| self.count.add(bytes, begun.elapsed()))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;

    #[test]
    fn whatever_is_read_is_counted_and_nothing_else() {
        let (count, memory) = (Count::default(), MemoryStore::default());
        let store = Counted::new(Arc::new(memory), count.clone());
        store.put_new("a", Bytes::from_static(b"0123456789")).unwrap();
        assert!(store.head("a").unwrap().is_some() && store.get_range("b", 0..1).is_err());
        assert_eq!(count.bytes(), 0);
        store.get_range("a", 2..5).unwrap();
        store.get_tail("a", 4).unwrap();
        store.get_pieces("a", &[1..2, 3..6]).unwrap();
        store.get("a").unwrap();
        assert_eq!((count.bytes(), count.reads()), (3 + 4 + 5 + 10, 4));
    }
}
