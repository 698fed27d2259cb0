//! The local files under an overlay: just the calls whose order makes a crash safe.
//!
//! From: `journal`, `upper`, `file`.  The real one is [`Folder`]; the tests put one in its place that loses what was not synced.
//! Names are relative to the overlay's directory; those of block data start with `data/`.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustix::fs::{FallocateFlags, FlockOperation, Timespec, Timestamps};

/// Room on the disk that holds the overlay.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Space {
    pub(crate) block_size: u64,
    pub(crate) blocks: u64,
    pub(crate) free: u64,
    pub(crate) available: u64,
    pub(crate) files: u64,
    pub(crate) files_free: u64,
}

/// A directory of local files.
pub(crate) trait Disk: Send + Sync {
    /// Opens a file for reading and writing; with `create` an empty one is made where there is none.
    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn DiskFile>>;
    fn remove(&self, name: &str) -> io::Result<()>;
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// The names in `data/`, without that prefix.
    fn data_names(&self) -> io::Result<Vec<String>>;
    /// Makes the names at the top (`journal`, `format`) durable.
    fn sync_top(&self) -> io::Result<()>;
    /// Makes the names in `data/` durable.
    fn sync_data_names(&self) -> io::Result<()>;
    fn space(&self) -> io::Result<Space>;
}

/// One local file. All calls may come from many threads.
pub(crate) trait DiskFile: Send + Sync {
    /// Fills `buf` as far as the file goes and returns how far that was.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    fn len(&self) -> io::Result<u64>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Takes real disk space for a range; the length grows to its end unless `keep_len`.
    fn allocate(&self, offset: u64, len: u64, keep_len: bool) -> io::Result<()>;
    fn modified(&self) -> io::Result<SystemTime>;
    fn set_modified(&self, time: SystemTime) -> io::Result<()>;
    /// Makes data and length durable.
    fn sync(&self) -> io::Result<()>;
    /// Lets the disk begin to write a range, and does not wait for it. Promises nothing: only a sync does.
    fn begin_writing(&self, range: Range<u64>);
    /// The file itself, for the kernel to read and write past us.
    fn as_fd(&self) -> Option<BorrowedFd<'_>>;
}

/// A directory of the local file system, locked against a second user.
pub(crate) struct Folder {
    path: PathBuf,
    top: std::fs::File,
    data: std::fs::File,
    _lock: std::fs::File,
}

impl Folder {
    /// Makes the directory if needed (0700: it holds what the source holds) and locks it.
    ///
    /// Returns `None` if somebody else holds the lock.
    pub(crate) fn open(path: &Path) -> io::Result<Option<Self>> {
        let mut make = std::fs::DirBuilder::new();
        make.recursive(true).mode(0o700).create(path).map_err(|error| at(path, error))?;
        let data = path.join("data");
        make.create(&data).map_err(|error| at(&data, error))?;
        let lock = open(&path.join("lock"), true)?;
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(None);
        }
        let open_dir = |path: &Path| std::fs::OpenOptions::new().read(true).open(path).map_err(|error| at(path, error));
        Ok(Some(Self { top: open_dir(path)?, data: open_dir(&data)?, path: path.to_owned(), _lock: lock }))
    }
}

/// Puts the path into the message and keeps the kind, which decides the errno.
fn at(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn open(path: &Path, create: bool) -> io::Result<std::fs::File> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create(create).truncate(false).mode(0o600);
    options.open(path).map_err(|error| at(path, error))
}

impl Disk for Folder {
    fn open(&self, name: &str, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(LocalFile(open(&self.path.join(name), create)?)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs_err::remove_file(self.path.join(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs_err::rename(self.path.join(from), self.path.join(to))
    }

    fn data_names(&self) -> io::Result<Vec<String>> {
        fs_err::read_dir(self.path.join("data"))?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn sync_top(&self) -> io::Result<()> {
        self.top.sync_all()
    }

    fn sync_data_names(&self) -> io::Result<()> {
        self.data.sync_all()
    }

    fn space(&self) -> io::Result<Space> {
        let space = rustix::fs::fstatvfs(&self.top)?;
        Ok(Space {
            block_size: space.f_frsize,
            blocks: space.f_blocks,
            free: space.f_bfree,
            available: space.f_bavail,
            files: space.f_files,
            files_free: space.f_ffree,
        })
    }
}

struct LocalFile(std::fs::File);

impl DiskFile for LocalFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.0.read_at(rest, offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn allocate(&self, offset: u64, len: u64, keep_len: bool) -> io::Result<()> {
        let flags = if keep_len { FallocateFlags::KEEP_SIZE } else { FallocateFlags::empty() };
        Ok(rustix::fs::fallocate(&self.0, flags, offset, len)?)
    }

    fn modified(&self) -> io::Result<SystemTime> {
        self.0.metadata()?.modified()
    }

    fn set_modified(&self, time: SystemTime) -> io::Result<()> {
        let spec = match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => Timespec { tv_sec: since.as_secs().cast_signed(), tv_nsec: since.subsec_nanos().into() },
            Err(before) => Timespec { tv_sec: -before.duration().as_secs().cast_signed(), tv_nsec: 0 },
        };
        Ok(rustix::fs::futimens(&self.0, &Timestamps { last_access: spec, last_modification: spec })?)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn begin_writing(&self, range: Range<u64>) {
        let (Ok(start), Ok(len)) = (i64::try_from(range.start), i64::try_from(range.end.saturating_sub(range.start))) else { return };
        // An error of the disk is kept for the next sync, which is who must hear of it; of this call's own there is nothing to say.
        #[expect(unsafe_code, reason = "a system call that no library wraps")]
        // SAFETY: takes numbers by value, and the descriptor is open as long as `self` is.
        unsafe {
            libc::sync_file_range(self.0.as_raw_fd(), start, len, libc::SYNC_FILE_RANGE_WRITE);
        }
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }
}
