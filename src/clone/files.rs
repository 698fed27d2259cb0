//! The file system under a clone's folder.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::{CloneError, User};

/// An error with its path.
pub(super) fn at(path: &Path, error: std::io::Error) -> CloneError {
    CloneError::Io(std::io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// Opens a file for writing, made with mode 0600 if there is none.
pub(super) fn private(path: &Path) -> std::io::Result<File> {
    File::options().create(true).append(true).mode(0o600).open(path)
}

/// Puts a file in place of the one of that name, if there is any. A reader sees the old one or the new one, also after a crash.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), CloneError> {
    let beside = path.with_extension(format!("{:08x}.new", getrandom::u32().map_err(|error| at(path, std::io::Error::other(error)))?));
    let write = || -> std::io::Result<()> {
        let mut file = File::options().create_new(true).write(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs_err::rename(&beside, path)
    };
    write().map_err(|error| {
        let _gone = fs_err::remove_file(&beside);
        at(path, error)
    })
}

/// Bytes that a directory takes on the disk. What vanishes meanwhile does not count.
pub(super) fn disk_usage(dir: &Path) -> u64 {
    let Ok(entries) = fs_err::read_dir(dir) else { return 0 };
    entries
        .filter_map(Result::ok)
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => disk_usage(&entry.path()),
            Ok(meta) => meta.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

/// Is something mounted at a directory?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mounted {
    No,
    Yes,
    /// The process behind it has gone.
    Dead,
}

/// Asks the process behind the mount how full it is: that the kernel never answers from memory.
pub(super) fn mounted(dir: &Path) -> Mounted {
    let is_listed = || bygone_mount::Mounted::at(dir).is_ok_and(|mounted| mounted.is_some());
    match rustix::fs::statfs(dir) {
        Err(rustix::io::Errno::NOTCONN | rustix::io::Errno::CONNABORTED) => Mounted::Dead,
        // A mount of an ordinary user is closed to root too.
        Ok(_) | Err(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) if is_listed() => Mounted::Yes,
        _ => Mounted::No,
    }
}

/// An error in the directory of clones, or in what is at its top.
pub(super) fn in_directory(directory: &Path, path: &Path, error: std::io::Error) -> CloneError {
    if error.kind() == std::io::ErrorKind::PermissionDenied {
        return CloneError::Closed { directory: directory.to_owned(), source: error };
    }
    at(path, error)
}

/// Refuses whoever may not change a file, or what is in a directory: neither its owner nor root.
pub(super) fn check_owner(path: &Path) -> Result<(), CloneError> {
    let me = rustix::process::geteuid();
    if me.is_root() {
        return Ok(());
    }
    match fs_err::symlink_metadata(path) {
        Ok(meta) if meta.uid() != me.as_raw() => {
            let number = meta.uid().to_string();
            let owner = User::find(&number).map_or(number, |user| user.name);
            Err(CloneError::OfAnother { path: path.to_owned(), owner })
        }
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
