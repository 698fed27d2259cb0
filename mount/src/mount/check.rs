//! What can be known to be wrong before mounting, so that it can be said plainly.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{MountError, Mounted};

/// What `statfs` says of a FUSE file system.
const FUSE_SUPER_MAGIC: i64 = 0x6573_5546;

/// Resolves a mount point, which must be an empty directory, and not a mount of ours already.
///
/// # Errors
/// [`MountError`] with what it is instead.
pub fn check_mountpoint(path: &Path) -> Result<PathBuf, MountError> {
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
        None => std::fs::canonicalize(path).map_err(|error| MountError::of_mountpoint(path, error)),
    }
}

/// The overlay must not lie in the mount point, which would hide it, nor around it: all that is in it is its own. It need not exist yet.
pub(super) fn overlay(path: &Path, mountpoint: &Path) -> Result<(), MountError> {
    let unusable = |source: io::Error| MountError::Overlay { path: path.to_owned(), source: Box::new(source) };
    let absolute = std::path::absolute(path).map_err(unusable)?;
    let real = absolute.ancestors().find_map(|there| Some((there, std::fs::canonicalize(there).ok()?)));
    let resolved = real.map_or_else(|| absolute.clone(), |(there, real)| real.join(absolute.strip_prefix(there).unwrap_or(Path::new(""))));
    if resolved.starts_with(mountpoint) || mountpoint.starts_with(&resolved) {
        return Err(MountError::OverlayAtMountpoint { path: path.to_owned(), mountpoint: mountpoint.to_owned() });
    }
    Ok(())
}

/// What is mounted at a directory, if it is ours and this user may unmount it.
pub(super) fn unmountable(path: &Path) -> Result<Mounted, MountError> {
    let path = path.to_owned();
    match Mounted::at(&path) {
        Ok(Some(mounted)) => mounted.check_unmountable().map(|()| mounted),
        Ok(None) => Err(MountError::NotMounted { path }),
        Err(source) => Err(MountError::Unmount { path, source }),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_ours_is_not_unmounted() {
        let error = super::super::unmount(Path::new("/proc"), true).unwrap_err();
        assert!(matches!(&error, MountError::NotOurs { kind, .. } if kind == "proc"), "{error:?}");
        assert!(matches!(super::super::unmount(Path::new("/"), true), Err(MountError::NotOurs { .. })));
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(super::super::unmount(dir.path(), true), Err(MountError::NotMounted { .. })));
    }

    #[test]
    fn an_overlay_in_its_mount_point_or_around_it_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        let mountpoint = top.join("around/mnt");
        fs_err::create_dir_all(&mountpoint).unwrap();
        std::os::unix::fs::symlink(&mountpoint, top.join("link")).unwrap();
        for path in ["around/mnt", "around/mnt/new/overlay", "around", "link/overlay"] {
            let refused = overlay(&top.join(path), &mountpoint);
            assert!(matches!(refused, Err(MountError::OverlayAtMountpoint { .. })), "{path}");
        }
        for path in ["around/overlay", "around/mnt2", "new"] {
            overlay(&top.join(path), &mountpoint).unwrap();
        }
    }
}
