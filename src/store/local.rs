//! Objects as files below one directory.
//!
//! In: keys and bytes.  Out: `ROOT/<key>`, mode 0600, in folders of mode 0700.
//!
//! The order that makes a crash safe:
//!
//! ```text
//! write ROOT/.bygone-tmp/<unique>  ->  fsync it  ->  make missing folders, fsync their parents
//!       ->  rename without replacing  ->  fsync the folder  ->  say so
//! ```
//!
//! A writer that finds the name taken fsyncs file and folder before it says so: the other one may have died behind the rename.
//! A crash leaves at worst a temporary file, which no listing shows and a later writer removes. Nothing is ever replaced: the
//! rename itself fails where the name is taken, so two writers cannot both win.

mod directory;
mod temporary;
mod walk;

use std::fs::File;
use std::io::{BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Once;

use bytes::Bytes;

use super::{Meta, Store, StoreError, Upload, key};
use temporary::Temporary;

/// Bytes gathered before a write of a streamed object; callers write chunks of some ten KiB.
const UPLOAD_BUFFER: usize = 256 * 1024;

/// A repository in a directory: a disk, NFS, whatever the operating system mounts.
#[derive(Debug)]
pub struct LocalStore {
    root: PathBuf,
    swept: Once,
}

impl LocalStore {
    /// A store below `root`, which need not exist until something is written: the first write makes it, private to its user.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        LocalStore { root: root.into(), swept: Once::new() }
    }

    fn path(&self, key: &str) -> Result<PathBuf, StoreError> {
        key::check(&self.describe(), key)?;
        Ok(self.root.join(key))
    }

    /// Opens an object; its size comes with it, so that a reader need not ask twice.
    fn open(&self, key: &str) -> Result<(File, u64), StoreError> {
        let path = self.path(key)?;
        let file = fs_err::File::open(path).map_err(|error| self.read_error(key, error))?.into_file();
        let meta = file.metadata().map_err(|error| self.read_error(key, error))?;
        if meta.is_file() { Ok((file, meta.len())) } else { Err(self.not_found(key)) }
    }

    fn not_found(&self, key: &str) -> StoreError {
        StoreError::NotFound { store: self.describe(), key: key.to_owned() }
    }

    fn exists(&self, key: &str) -> StoreError {
        StoreError::Exists { store: self.describe(), key: key.to_owned() }
    }

    /// "No such file" is an answer only while the root is there: a repository that is not mounted must not look like an empty one.
    fn read_error(&self, key: &str, error: std::io::Error) -> StoreError {
        if !is_absent(&error) {
            return self.io_error(key, error);
        }
        match fs_err::metadata(&self.root) {
            Ok(meta) if meta.is_dir() => self.not_found(key),
            Ok(_) => self.refused("it is no directory", "A repository of type posix is a directory."),
            Err(error) if is_absent(&error) => {
                self.refused("it does not exist", "Is its file system mounted? `init` makes a new repository.")
            }
            Err(error) => self.io_error(key, error),
        }
    }

    fn io_error(&self, key: &str, source: std::io::Error) -> StoreError {
        match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreError::Full { store: self.describe(), key: key.to_owned() },
            ErrorKind::PermissionDenied => {
                self.refused(&format!("access to {key} is denied"), "Does it belong to the user that runs this command?")
            }
            ErrorKind::ReadOnlyFilesystem => self.refused("it is read-only", "Is its file system mounted read-only?"),
            _ => StoreError::Io { store: self.describe(), key: key.to_owned(), source },
        }
    }

    fn refused(&self, what: &str, hint: &str) -> StoreError {
        StoreError::Refused { store: self.describe(), what: what.to_owned(), setting: "repo.N.path", hint: hint.to_owned() }
    }

    fn begin(&self, key: &str) -> Result<Temporary, StoreError> {
        if self.path(key)?.symlink_metadata().is_ok() {
            return self.settle(key).and_then(|()| Err(self.exists(key)));
        }
        let begin = || {
            let folder = self.root.join(key::TEMPORARY);
            directory::make_durable(&folder)?;
            self.swept.call_once(|| temporary::sweep(&folder));
            Temporary::create(&folder)
        };
        begin().map_err(|error| self.io_error(key, error))
    }

    fn publish(&self, key: &str, temporary: Temporary) -> Result<(), StoreError> {
        let path = self.path(key)?;
        match temporary.publish(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => self.settle(key).and_then(|()| Err(self.exists(key))),
            done => done.map_err(|error| self.io_error(key, error)),
        }
    }

    fn read(&self, key: &str, file: &mut File, range: Range<u64>) -> Result<Bytes, StoreError> {
        let len = range.end.saturating_sub(range.start);
        let read = |file: &mut File| {
            let mut bytes = Vec::with_capacity(usize::try_from(len).map_err(std::io::Error::other)?);
            file.seek(SeekFrom::Start(range.start))?;
            file.take(len).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read(file).map_err(|error| self.io_error(key, error))?;
        if bytes.len() as u64 == len { Ok(bytes.into()) } else { Err(self.out_of_range(key, range.start + bytes.len() as u64, range)) }
    }

    fn out_of_range(&self, key: &str, size: u64, range: Range<u64>) -> StoreError {
        StoreError::OutOfRange { store: self.describe(), key: key.to_owned(), size, range }
    }
}

impl Store for LocalStore {
    fn describe(&self) -> String {
        format!("directory {}", self.root.display())
    }

    fn put_new(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        let mut temporary = self.begin(key)?;
        temporary.file().write_all(&body).map_err(|error| self.io_error(key, error))?;
        self.publish(key, temporary)
    }

    fn upload_new(&self, key: &str) -> Result<Box<dyn Upload>, StoreError> {
        let file = BufWriter::with_capacity(UPLOAD_BUFFER, self.begin(key)?);
        Ok(Box::new(LocalUpload { store: LocalStore::new(&self.root), key: key.to_owned(), file }))
    }

    fn settle(&self, key: &str) -> Result<(), StoreError> {
        let path = self.path(key)?;
        let settle = || {
            directory::sync(&path)?;
            directory::make_durable(parent(&path))?;
            directory::sync(parent(&path))
        };
        settle().map_err(|error| self.read_error(key, error))
    }

    fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let (mut file, size) = self.open(key)?;
        if range.start > range.end || range.end > size {
            return Err(self.out_of_range(key, size, range));
        }
        self.read(key, &mut file, range)
    }

    fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        let (mut file, size) = self.open(key)?;
        self.read(key, &mut file, 0..size)
    }

    fn get_tail(&self, key: &str, len: u64) -> Result<(Bytes, u64), StoreError> {
        let (mut file, size) = self.open(key)?;
        Ok((self.read(key, &mut file, size.saturating_sub(len)..size)?, size))
    }

    fn head(&self, key: &str) -> Result<Option<Meta>, StoreError> {
        let path = self.path(key)?;
        match fs_err::metadata(&path).and_then(|meta| Ok((meta.is_file(), meta.len(), meta.modified()?))) {
            Ok((true, size, modified)) => Ok(Some(Meta { key: key.to_owned(), size, modified })),
            Ok(_) => Ok(None),
            Err(error) => match self.read_error(key, error) {
                StoreError::NotFound { .. } => Ok(None),
                error => Err(error),
            },
        }
    }

    fn list(&self, prefix: &str, after: Option<&str>, each: &mut dyn FnMut(Meta) -> bool) -> Result<(), StoreError> {
        key::check_prefix(&self.describe(), prefix)?;
        self.missing_folder_is_empty(prefix, walk::objects(&self.root, prefix, after, each))
    }

    fn list_dir(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        key::check_prefix(&self.describe(), prefix)?;
        self.missing_folder_is_empty(prefix, walk::names(&self.root, prefix))
    }

    fn delete(&self, key: &str) -> Result<(), StoreError> {
        let path = self.path(key)?;
        match directory::remove(&path, &self.root).map_err(|error| self.read_error(key, error)) {
            Err(StoreError::NotFound { .. }) => Ok(()),
            other => other,
        }
    }
}

impl LocalStore {
    fn missing_folder_is_empty<T: Default>(&self, prefix: &str, listed: std::io::Result<T>) -> Result<T, StoreError> {
        match listed.map_err(|error| self.read_error(prefix, error)) {
            Err(StoreError::NotFound { .. }) => Ok(T::default()),
            other => other,
        }
    }
}

/// A streamed object: a temporary file until it is finished. Dropping it removes the file.
struct LocalUpload {
    store: LocalStore,
    key: String,
    file: BufWriter<Temporary>,
}

impl Upload for LocalUpload {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file.write_all(bytes).map_err(|error| self.store.io_error(&self.key, error))
    }

    fn finish(self: Box<Self>) -> Result<(), StoreError> {
        let LocalUpload { store, key, file } = *self;
        let temporary = file.into_inner().map_err(|error| store.io_error(&key, error.into_error()))?;
        store.publish(&key, temporary)
    }
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// The folder that holds `path`. Every path here has one: it is the root joined with a key.
fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

#[cfg(test)]
mod tests;
