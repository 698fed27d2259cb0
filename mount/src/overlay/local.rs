//! The local data files, of which a bounded number is open at a time.
//!
//! From: `node`, `write`, `read`, `sync`, which ask for a file each time they need it.  To: `disk`.
//! A file that was written and not yet synced may be closed: a sync opens it again, and the kernel tells that one of writes that failed meanwhile.

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

use super::disk::{Disk, DiskFile};

/// Files open at a time, unless the process may not have twice as many: a server's working set, so that few are opened anew. The random operations and
/// crashes of the tests close files all the time.
const MOST_OPEN: usize = if cfg!(test) { 2 } else { 8192 };

/// The name of an inode's data file.
pub(crate) fn data_name(ino: u64) -> String {
    format!("{ino:016x}")
}

/// Opens data files when they are needed, and closes the one that was used longest ago.
pub(crate) struct LocalFiles {
    disk: Arc<dyn Disk>,
    open: Mutex<LruCache<u64, Arc<dyn DiskFile>>>,
}

impl LocalFiles {
    pub(crate) fn new(disk: Arc<dyn Disk>) -> Self {
        let allowed = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let half = allowed.map_or(MOST_OPEN, |limit| usize::try_from(limit / 2).unwrap_or(MOST_OPEN));
        Self { disk, open: Mutex::new(LruCache::new(NonZeroUsize::new(half.min(MOST_OPEN)).unwrap_or(NonZeroUsize::MIN))) }
    }

    fn get(&self, ino: u64) -> io::Result<Arc<dyn DiskFile>> {
        if let Some(file) = self.open.lock().get(&ino) {
            return Ok(Arc::clone(file));
        }
        // Not under the lock: the disk may be slow. Who comes second keeps what the first one opened.
        let file = self.disk.open(&format!("data/{}", data_name(ino)), true)?;
        let mut open = self.open.lock();
        if let Some(first) = open.get(&ino) {
            return Ok(Arc::clone(first));
        }
        let closed = open.push(ino, Arc::clone(&file));
        drop(open);
        drop(closed);
        Ok(file)
    }
}

/// The data file of one inode.
pub(crate) struct Local {
    files: Option<Arc<LocalFiles>>,
    ino: u64,
}

impl Local {
    /// Without `files` the mount is read-only.
    pub(crate) fn new(files: Option<Arc<LocalFiles>>, ino: u64) -> Self {
        Self { files, ino }
    }

    /// The data file, made if it is not there.
    pub(crate) fn get(&self) -> io::Result<Arc<dyn DiskFile>> {
        self.files.as_ref().ok_or_else(|| io::Error::from(io::ErrorKind::ReadOnlyFilesystem))?.get(self.ino)
    }

    /// Closes the file until it is needed again.
    pub(crate) fn release(&self) {
        let closed = self.files.as_ref().and_then(|files| files.open.lock().pop(&self.ino));
        drop(closed);
    }
}
