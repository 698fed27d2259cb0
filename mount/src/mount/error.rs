//! Why a mount did not start or end, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why a mount did not start or end. [`MountError::hint`] says what to do about it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MountError {
    /// There is nothing to mount on.
    #[error("mount point {} does not exist", path.display())]
    Missing {
        /// The mount point.
        path: PathBuf,
    },
    /// The mount point is a file.
    #[error("mount point {} is not a directory", path.display())]
    NotADirectory {
        /// The mount point.
        path: PathBuf,
    },
    /// Mounting would hide files.
    #[error("mount point {} is not empty", path.display())]
    NotEmpty {
        /// The mount point.
        path: PathBuf,
    },
    /// Something is mounted there already.
    #[error("mount point {} is in use", path.display())]
    InUse {
        /// The mount point.
        path: PathBuf,
    },
    /// A mount whose daemon has died is in the way.
    #[error("the process of the mount at {} has died", path.display())]
    Dead {
        /// The mount point.
        path: PathBuf,
    },
    /// The mount point could not be looked at.
    #[error("mount point {}", path.display())]
    Unreadable {
        /// The mount point.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system has no FUSE, or does not let us use it.
    #[error("/dev/fuse cannot be opened")]
    Device {
        /// What the system said.
        source: io::Error,
    },
    /// Ordinary users may not let others in here.
    #[error("other users may not be let into the mount")]
    AllowOther,
    /// `fusermount3` is not installed, and only it may mount for an ordinary user.
    #[error("fusermount3 cannot be run")]
    NoHelper,
    /// The system refused the mount.
    #[error("{} cannot be mounted on", path.display())]
    Refused {
        /// The mount point.
        path: PathBuf,
        /// What the system, or its helper, said.
        source: io::Error,
    },
    /// The source could not show its top directory.
    #[error("the source has no top directory: {0}")]
    Source(String),
    /// Another daemon uses the overlay.
    #[error("overlay {} is in use by another mount", path.display())]
    OverlayInUse {
        /// The overlay's directory.
        path: PathBuf,
    },
    /// The overlay cannot be used: damaged, of another source, not readable.
    #[error("overlay {}", path.display())]
    Overlay {
        /// The overlay's directory.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The overlay's files would be hidden by the mount, or the mount stand among them.
    #[error("overlay {} and mount point {} lie one in the other", path.display(), mountpoint.display())]
    OverlayAtMountpoint {
        /// The overlay's directory.
        path: PathBuf,
        /// The mount point.
        mountpoint: PathBuf,
    },
    /// No thread could be started.
    #[error("no thread for the mount")]
    Thread(#[source] io::Error),
    /// Files are open, so it stays mounted.
    #[error("{} is in use", path.display())]
    Busy {
        /// The mount point.
        path: PathBuf,
    },
    /// There is nothing to unmount.
    #[error("nothing is mounted at {}", path.display())]
    NotMounted {
        /// The path given.
        path: PathBuf,
    },
    /// Something else is mounted there.
    #[error("what is mounted at {} is not ours but {kind} ({source_name})", path.display())]
    NotOurs {
        /// The path given.
        path: PathBuf,
        /// The kind of file system.
        kind: String,
        /// What it is a mount of.
        source_name: String,
    },
    /// Another user mounted it, and only he and root may unmount it.
    #[error("{} was mounted by user {user}", path.display())]
    OfAnother {
        /// The path given.
        path: PathBuf,
        /// His number.
        user: u32,
    },
    /// The system refused to unmount.
    #[error("{} cannot be unmounted", path.display())]
    Unmount {
        /// The mount point.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The mount ended otherwise than by being unmounted, or could not make its last changes durable.
    #[error("the mount ended badly: {0}")]
    Ended(String),
}

impl MountError {
    /// What to do about it, as a sentence.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Missing { path } => format!("Make the directory first: mkdir {}", path.display()),
            Self::NotEmpty { .. } => "Give an empty directory: what is in it would be hidden.".to_owned(),
            Self::InUse { path } => format!("Is it mounted already? Unmount it first: bygone umount {}", path.display()),
            Self::Dead { path } => {
                format!("Clear what is left of it: bygone umount {}", path.display())
            }
            Self::Device { source } if source.kind() == io::ErrorKind::NotFound => {
                "Load the kernel module (modprobe fuse); in a container, pass the device in (--device /dev/fuse --cap-add SYS_ADMIN)."
                    .to_owned()
            }
            Self::Device { .. } => {
                "Run as root, or let your user open /dev/fuse (usually mode 0666; in a container: chmod 666 /dev/fuse as root).".to_owned()
            }
            Self::AllowOther => {
                "Add the line user_allow_other to /etc/fuse.conf, or run the daemon as the user who reads the mount.".to_owned()
            }
            Self::NoHelper => "Install the package fuse3, or mount as root.".to_owned(),
            Self::OverlayAtMountpoint { .. } => "Give an overlay directory elsewhere: only its own files are in it.".to_owned(),
            Self::OfAnother { .. } => "Unmount it as that user, or as root.".to_owned(),
            Self::OverlayInUse { .. } => "Unmount it there first, or give another overlay directory.".to_owned(),
            Self::Busy { .. } => {
                "Somebody has a file open there or works in it (fuser -vm shows who). Stop them, or unmount lazily.".to_owned()
            }
            _ => return None,
        })
    }

    pub(super) fn of_start(mountpoint: &Path, allow_other: bool, error: io::Error) -> Self {
        let text = error.to_string();
        match error.kind() {
            io::ErrorKind::PermissionDenied if text.contains("user_allow_other") => Self::AllowOther,
            _ if allow_other && text.contains("user_allow_other") => Self::AllowOther,
            io::ErrorKind::PermissionDenied => Self::Device { source: error },
            io::ErrorKind::NotFound => Self::NoHelper,
            _ => Self::Refused { path: mountpoint.to_owned(), source: error },
        }
    }

    pub(super) fn of_mountpoint(path: &Path, error: io::Error) -> Self {
        let path = path.to_owned();
        match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
            Some(rustix::io::Errno::NOTCONN | rustix::io::Errno::CONNABORTED) => Self::Dead { path },
            Some(rustix::io::Errno::NOENT) => Self::Missing { path },
            Some(rustix::io::Errno::NOTDIR) => Self::NotADirectory { path },
            _ => Self::Unreadable { path, source: error },
        }
    }
}
