//! What can be known to be wrong before mounting, so that it can be said plainly.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::MountError;

/// What `statfs` says of a FUSE file system.
const FUSE_SUPER_MAGIC: i64 = 0x6573_5546;

/// The mount point must be an empty directory, and not a mount of ours already.
pub(super) fn mountpoint(path: &Path) -> Result<(), MountError> {
    let of = |error: rustix::io::Errno| MountError::of_mountpoint(path, error.into());
    let stat = rustix::fs::stat(path).map_err(of)?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::Directory {
        return Err(MountError::NotADirectory { path: path.to_owned() });
    }
    if rustix::fs::statfs(path).map_err(of)?.f_type == FUSE_SUPER_MAGIC && is_mount_root(path, stat.st_dev) {
        return Err(MountError::InUse { path: path.to_owned() });
    }
    let mut entries = std::fs::read_dir(path).map_err(|error| MountError::of_mountpoint(path, error))?;
    match entries.next() {
        Some(_) => Err(MountError::NotEmpty { path: path.to_owned() }),
        None => Ok(()),
    }
}

fn is_mount_root(path: &Path, device: u64) -> bool {
    rustix::fs::stat(path.join("..")).is_ok_and(|parent| parent.st_dev != device)
}

/// FUSE must be there and open to us: an ordinary user needs it too, for `fusermount3` opens it as that user.
pub(super) fn device() -> Result<(), MountError> {
    match std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        Ok(_) => Ok(()),
        Err(source) => Err(MountError::Device { source }),
    }
}

/// Unmounts as an ordinary user must: through the helper that mounted.
pub(super) fn unmount_by_helper(path: PathBuf, lazy: bool) -> Result<(), MountError> {
    let mut command = Command::new("fusermount3");
    command.arg("-u").args(lazy.then_some("-z")).arg("--").arg(&path);
    let output = match command.output() {
        Ok(output) => output,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(MountError::NoHelper),
        Err(source) => return Err(MountError::Unmount { path, source }),
    };
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    match output.status.success() {
        true => Ok(()),
        false if said.contains("busy") => Err(MountError::Busy { path }),
        false if said.contains("not found") || said.contains("not mounted") => Err(MountError::NotMounted { path }),
        false => Err(MountError::Unmount { path, source: io::Error::other(said) }),
    }
}
