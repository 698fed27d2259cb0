//! The file system under a clone's folder.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::CloneError;

/// An error with its path.
pub(super) fn at(path: &Path, error: std::io::Error) -> CloneError {
    CloneError::Io(std::io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// Opens a file for writing, made with mode 0600 if there is none.
pub(super) fn private(path: &Path) -> Result<File, CloneError> {
    File::options().create(true).append(true).mode(0o600).open(path).map_err(|error| at(path, error))
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
    match rustix::fs::statfs(dir) {
        Err(rustix::io::Errno::NOTCONN | rustix::io::Errno::CONNABORTED) => Mounted::Dead,
        Err(_) => Mounted::No,
        Ok(_) if is_listed(dir) => Mounted::Yes,
        Ok(_) => Mounted::No,
    }
}

/// Does the kernel list a mount at exactly this directory?
fn is_listed(dir: &Path) -> bool {
    let Ok(real) = fs_err::canonicalize(dir) else { return false };
    let mounts = fs_err::read_to_string("/proc/self/mounts").unwrap_or_default();
    // The kernel writes blanks and the like as octal escapes; a path of ours has none but in the directory that the user chose.
    let written = real.to_string_lossy().replace('\\', "\\134").replace(' ', "\\040").replace('\t', "\\011").replace('\n', "\\012");
    mounts.lines().any(|line| line.split(' ').nth(1) == Some(&written))
}
