//! Folders that survive a power cut, and their removal once empty.

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::{is_absent, parent};

/// A folder this young may have been made by a writer that has not fsynced its parent yet: then we do it too, since our own
/// object must not vanish with it.
const YOUNG: Duration = Duration::from_secs(60);

/// Young folders whose parents this process has fsynced since they were there: once is enough. By device, inode and birth, so that a folder that
/// was removed and made again counts as another one.
static SETTLED: Mutex<Option<HashSet<Identity>>> = Mutex::new(None);

type Identity = (u64, u64, Option<SystemTime>);

fn identity(meta: &std::fs::Metadata) -> Identity {
    (meta.dev(), meta.ino(), meta.created().ok())
}

/// Makes a folder, mode 0700, and those above it; on return the entries of new ones are durable.
pub(super) fn make_durable(folder: &Path) -> io::Result<()> {
    let there = match fs_err::metadata(folder) {
        Ok(meta) if is_old(&meta) || SETTLED.lock().as_ref().is_some_and(|settled| settled.contains(&identity(&meta))) => return Ok(()),
        Ok(meta) => Some(meta),
        Err(error) if is_absent(&error) => {
            make(folder)?;
            fs_err::metadata(folder).ok()
        }
        Err(error) => return Err(error),
    };
    sync(parent(folder))?;
    SETTLED.lock().get_or_insert_default().extend(there.as_ref().map(identity));
    Ok(())
}

/// Without a birth time (some network file systems have none) every folder counts as young: an fsync too many.
fn is_old(meta: &std::fs::Metadata) -> bool {
    let age = |born| SystemTime::now().duration_since(born).unwrap_or_default();
    meta.created().is_ok_and(|born| age(born) > YOUNG)
}

fn make(folder: &Path) -> io::Result<()> {
    if let Some(above) = folder.parent().filter(|above| !above.as_os_str().is_empty()) {
        make_durable(above)?;
    }
    match std::fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Makes the entries of a folder durable, or the bytes of a file.
pub(super) fn sync(path: &Path) -> io::Result<()> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    #[cfg(test)]
    SYNCED.with_borrow_mut(|synced| synced.push(path.to_owned()));
    fs_err::File::open(path)?.sync_all()
}

#[cfg(test)]
thread_local! {
    /// What this thread has made durable.
    pub(super) static SYNCED: std::cell::RefCell<Vec<std::path::PathBuf>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Removes a file and the folders above it that this leaves empty, up to `root`, which stays.
pub(super) fn remove(path: &Path, root: &Path) -> io::Result<()> {
    fs_err::remove_file(path)?;
    let mut folder = parent(path);
    sync(folder)?;
    while folder != root && std::fs::remove_dir(folder).is_ok() {
        folder = parent(folder);
    }
    Ok(())
}
