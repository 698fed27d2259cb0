//! A file that is not an object yet.
//!
//! Held under an exclusive `flock` while its writer lives, so that what a dead one left can be told apart and removed.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, FlockOperation, RenameFlags};
use rustix::io::Errno;

use super::{directory, parent};

/// A temporary file younger than this is left alone even if nobody holds it: its writer may be about to lock it.
const STALE_AFTER: Duration = Duration::from_secs(3600);

/// How often the folder of an object may vanish under us (a concurrent delete removes emptied folders) before we give up.
const FOLDER_RACES: usize = 16;

pub(super) struct Temporary {
    file: File,
    path: PathBuf,
}

impl Temporary {
    pub(super) fn create(folder: &Path) -> io::Result<Self> {
        let mut random = [0_u8; 16];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let path = folder.join(hex::encode(random));
        let file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        let temporary = Temporary { file, path };
        rustix::fs::flock(&temporary.file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(temporary)
    }

    pub(super) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Makes the file durable and gives it its name, if that is free.
    ///
    /// # Errors
    /// `AlreadyExists` if the name is taken; the temporary file is removed then as after every error.
    pub(super) fn publish(self, target: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        for _ in 0..FOLDER_RACES {
            directory::make_durable(parent(target))?;
            match rename_new(&self.path, target) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => (),
                done => {
                    done?;
                    return directory::sync(parent(target));
                }
            }
        }
        Err(io::Error::new(io::ErrorKind::NotFound, "its folder keeps vanishing"))
    }
}

impl Write for Temporary {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Temporary {
    /// After a rename the name is gone already; whoever else bears it later has another random name.
    fn drop(&mut self) {
        let _gone = fs_err::remove_file(&self.path);
    }
}

/// Renames without replacing; where the file system cannot (NFS), a hard link does the same in two steps.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => fs_err::hard_link(from, to),
        done => Ok(done?),
    }
}

/// Removes what writers that died have left. What cannot be removed is left for the next one.
pub(super) fn sweep(folder: &Path) {
    let Ok(entries) = fs_err::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if is_stale(&entry.path()).unwrap_or(false) {
            tracing::debug!(path = %entry.path().display(), "removing what an interrupted writer left");
            let _gone = fs_err::remove_file(entry.path());
        }
    }
}

fn is_stale(path: &Path) -> io::Result<bool> {
    let age = SystemTime::now().duration_since(fs_err::metadata(path)?.modified()?).unwrap_or_default();
    if age < STALE_AFTER {
        return Ok(false);
    }
    let file = fs_err::File::open(path)?;
    Ok(rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok())
}
