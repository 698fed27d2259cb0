//! A cluster on paper, for unit tests: a data directory with a `pg_control`, WAL segments that carry its identity, a repository in memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::pg::control::ControlFile;
use crate::pg::{Lsn, Major, SegmentSize};
use crate::repo::layout::ClusterFolder;
use crate::repo::{Cipher, Repository, Secret};
use crate::store::memory::MemoryStore;
use crate::store::{Store, StoreError};

pub(crate) const SYSTEM_ID: u64 = 7_711_940_346_348_827_306;

pub(crate) struct Paper {
    pub(crate) data: tempfile::TempDir,
}

impl Paper {
    pub(crate) fn new() -> Paper {
        let data = tempfile::tempdir().unwrap();
        for dir in ["global", "pg_wal/archive_status"] {
            fs_err::create_dir_all(data.path().join(dir)).unwrap();
        }
        let control = crate::pg::control::tests::sample(Major::V15);
        assert_eq!(ControlFile::decode(&control).unwrap().system_id, SYSTEM_ID);
        fs_err::write(data.path().join("global/pg_control"), control).unwrap();
        Paper { data }
    }

    pub(crate) fn wal(&self, name: &str) -> PathBuf {
        self.data.path().join("pg_wal").join(name)
    }

    /// Writes segment `no` of timeline 1, marked ready.
    pub(crate) fn ready_segment(&self, no: u64) -> PathBuf {
        let path = self.wal(&name(no));
        fs_err::write(&path, segment(no, SYSTEM_ID)).unwrap();
        fs_err::write(self.data.path().join(format!("pg_wal/archive_status/{}.ready", name(no))), "").unwrap();
        path
    }

    pub(crate) fn path(&self) -> &Path {
        self.data.path()
    }
}

pub(crate) fn folder() -> ClusterFolder {
    ClusterFolder::new("main", Major::V15, SYSTEM_ID)
}

pub(crate) fn name(no: u64) -> String {
    format!("0000000100000000{no:08X}")
}

/// A segment of 16 MiB: a first page with its long header, then bytes that differ from segment to segment.
pub(crate) fn segment(no: u64, system_id: u64) -> Vec<u8> {
    let size = SegmentSize::DEFAULT;
    let Lsn(start) = size.start(no);
    let mut bytes = Vec::new();
    bytes.extend(0xD110u16.to_le_bytes());
    bytes.extend(2u16.to_le_bytes());
    bytes.extend(1u32.to_le_bytes());
    bytes.extend(start.to_le_bytes());
    bytes.extend([0; 8]);
    bytes.extend(system_id.to_le_bytes());
    bytes.extend((16u32 << 20).to_le_bytes());
    bytes.extend(8192u32.to_le_bytes());
    bytes.extend(no.to_le_bytes());
    bytes.resize(16 << 20, 0);
    bytes
}

/// A repository in memory that knows the cluster.
pub(crate) fn repository(store: impl Store + 'static) -> Arc<Repository> {
    let secret = Secret::new(b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef".to_vec());
    let repository = Repository::create(Arc::new(store), Cipher::Aes256CbcHmacSha256, Some(&secret)).unwrap();
    repository.store().put_new(&folder().identity(), bytes::Bytes::from_static(b"{}")).unwrap();
    Arc::new(repository)
}

/// A store whose every call takes this long, and then fails if told so.
#[derive(Debug, Default, Clone)]
pub(crate) struct Ailing {
    pub(crate) inner: MemoryStore,
    pub(crate) dead: Arc<std::sync::atomic::AtomicBool>,
    pub(crate) hung: Arc<std::sync::atomic::AtomicBool>,
    /// What it was asked to settle.
    pub(crate) settled: Arc<parking_lot::Mutex<Vec<String>>>,
    /// Takes nothing new.
    pub(crate) full: Arc<std::sync::atomic::AtomicBool>,
}

impl Ailing {
    fn ask(&self) -> Result<(), StoreError> {
        use std::sync::atomic::Ordering::Relaxed;
        while self.hung.load(Relaxed) {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let gone = || StoreError::Unavailable { store: self.describe(), what: "it is dead".to_owned() };
        if self.dead.load(Relaxed) { Err(gone()) } else { Ok(()) }
    }

    fn ask_for_room(&self, key: &str) -> Result<(), StoreError> {
        let full = self.full.load(std::sync::atomic::Ordering::Relaxed);
        let is_full = || StoreError::Full { store: self.describe(), key: key.to_owned() };
        self.ask().and_then(|()| if full { Err(is_full()) } else { Ok(()) })
    }
}

impl Store for Ailing {
    fn describe(&self) -> String {
        "ailing memory".to_owned()
    }

    fn put_new(&self, key: &str, body: bytes::Bytes) -> Result<(), StoreError> {
        self.ask_for_room(key).and_then(|()| self.inner.put_new(key, body))
    }

    fn upload_new(&self, key: &str) -> Result<Box<dyn crate::store::Upload>, StoreError> {
        self.ask_for_room(key).and_then(|()| self.inner.upload_new(key))
    }

    fn settle(&self, key: &str) -> Result<(), StoreError> {
        self.settled.lock().push(key.to_owned());
        self.ask().and_then(|()| self.inner.settle(key))
    }

    fn get_range(&self, key: &str, range: std::ops::Range<u64>) -> Result<bytes::Bytes, StoreError> {
        self.ask().and_then(|()| self.inner.get_range(key, range))
    }

    fn get(&self, key: &str) -> Result<bytes::Bytes, StoreError> {
        self.ask().and_then(|()| self.inner.get(key))
    }

    fn get_tail(&self, key: &str, len: u64) -> Result<(bytes::Bytes, u64), StoreError> {
        self.ask().and_then(|()| self.inner.get_tail(key, len))
    }

    fn head(&self, key: &str) -> Result<Option<crate::store::Meta>, StoreError> {
        self.ask().and_then(|()| self.inner.head(key))
    }

    fn list(&self, prefix: &str, after: Option<&str>, each: &mut dyn FnMut(crate::store::Meta) -> bool) -> Result<(), StoreError> {
        self.ask().and_then(|()| self.inner.list(prefix, after, each))
    }

    fn list_dir(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.ask().and_then(|()| self.inner.list_dir(prefix))
    }

    fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.ask().and_then(|()| self.inner.delete(key))
    }
}
