//! Remembers which files a call has taken along, so that the call for each of them need not read it again.
//!
//! From: `push`.  To: one small file each in a folder of the user's cache, of the WAL file's name.
//! In a backlog Postgres calls for every file that was taken along, one after the other, and comparing 16 MB each time would take longer than archiving
//! them. A note says that this very file (its inode, size, and times to the nanosecond) was durable in these very repositories; whoever believes it
//! still asks each of them whether the object is there. A note that is lost, torn or of another file says nothing: the file is read and compared.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use fs_err::os::unix::fs::OpenOptionsExt;

use super::Session;
use crate::archive::wal_file::WalFile;

/// The notes of one user; without a folder nothing is remembered.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    folder: Option<PathBuf>,
}

/// What a note says of a file as it is now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Note(String);

impl Note {
    /// Of the file at `path`, in all repositories of `session`. `None` if it cannot be looked at.
    pub(super) fn of(session: &Session, file: &WalFile, path: &Path) -> Option<Note> {
        let meta = fs_err::metadata(path).ok()?;
        let when = [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()];
        let mut text = format!("file {} {} {} {when:?}\n", meta.dev(), meta.ino(), meta.len());
        for (destination, folder) in &session.destinations {
            text += &format!("{} {}\n", destination.repository.id(), file.key(folder, session.control.wal_segment_size));
        }
        Some(Note(text))
    }
}

impl Known {
    /// Notes in `folder`, which need not exist.
    pub(super) fn new(folder: Option<PathBuf>) -> Known {
        Known { folder }
    }

    fn path(&self, of: &Path) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(of.file_name()?))
    }

    /// Does a note say just this?
    pub(super) fn says(&self, of: &Path, note: &Note) -> bool {
        self.path(of).and_then(|path| fs_err::read(path).ok()).is_some_and(|bytes| bytes == note.0.as_bytes())
    }

    /// How many of these files have a note, whatever it says.
    pub(super) fn count(&self, of: &[PathBuf]) -> usize {
        let Some(entries) = self.folder.as_ref().and_then(|folder| fs_err::read_dir(folder).ok()) else { return 0 };
        let names: HashSet<OsString> = entries.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
        of.iter().filter(|path| path.file_name().is_some_and(|name| names.contains(name))).count()
    }

    /// Makes a note. If that fails, the file will be read once more: no harm.
    pub(super) fn add(&self, of: &Path, note: &Note) {
        let (Some(folder), Some(path)) = (&self.folder, self.path(of)) else { return };
        let write = || -> std::io::Result<()> {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            let mut file = fs_err::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
            file.write_all(note.0.as_bytes())
        };
        if let Err(error) = write() {
            tracing::debug!(%error, "not noted");
        }
    }

    /// Forgets a file that Postgres has heard about.
    pub(super) fn forget(&self, of: &Path) {
        if let Some(path) = self.path(of) {
            let _gone = fs_err::remove_file(path);
        }
    }

    /// Forgets every file that Postgres will not ask for any more: all but `waiting`.
    pub(super) fn keep_only(&self, waiting: &[PathBuf]) {
        let Some(entries) = self.folder.as_ref().and_then(|folder| fs_err::read_dir(folder).ok()) else { return };
        let waiting: HashSet<&OsStr> = waiting.iter().filter_map(|path| path.file_name()).collect();
        for entry in entries.flatten() {
            if !waiting.contains(entry.file_name().as_os_str()) {
                let _gone = fs_err::remove_file(entry.path());
            }
        }
    }
}
