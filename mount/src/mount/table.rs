//! What the kernel lists as mounted at a directory.
//!
//! Source: `/proc/self/mountinfo` (proc_pid_mountinfo(5)). The directory is opened without asking the file system that is there (`O_PATH`), so that a dead
//! mount, and one that lets only its own user in, are found as well.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::MountError;
use crate::fuse::NAME;

/// A file system that is mounted somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// Where, symbolic links resolved.
    pub path: PathBuf,
    /// `ext4`, `tmpfs`, `fuse.bygone`.
    pub kind: String,
    /// The device, or what stands for one.
    pub source: String,
    /// Who mounted it, where the kernel says so: of FUSE.
    pub user: Option<u32>,
}

impl Mounted {
    /// What is mounted at exactly this directory; of several, the one on top. `None` if nothing is, or if there is no such directory.
    ///
    /// # Errors
    /// Those of the system.
    pub fn at(directory: &Path) -> io::Result<Option<Mounted>> {
        let opened = match rustix::fs::open(directory, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
            Ok(opened) => opened,
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let path = fs_err::read_link(format!("/proc/self/fd/{}", opened.as_raw_fd()))?;
        let info = fs_err::read_to_string(format!("/proc/self/fdinfo/{}", opened.as_raw_fd()))?;
        let id = info.lines().find_map(|line| line.strip_prefix("mnt_id:")).unwrap_or_default().trim().to_owned();
        let table = fs_err::read("/proc/self/mountinfo")?;
        let table = String::from_utf8_lossy(&table);
        let line = table.lines().find(|line| line.split(' ').next() == Some(&id));
        Ok(line.and_then(of_line).filter(|mounted| mounted.path == path))
    }

    /// Is it a mount that this crate has made? `fusermount3` tells the kernel our kind; root, who mounts without it, only the device.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.kind.strip_prefix("fuse.") == Some(NAME) || (self.kind == "fuse" && self.source == NAME)
    }

    /// May this user unmount it with [`unmount`](super::unmount)?
    ///
    /// # Errors
    /// [`MountError::NotOurs`], [`MountError::OfAnother`].
    pub fn check_unmountable(&self) -> Result<(), MountError> {
        let (path, me) = (self.path.clone(), rustix::process::geteuid());
        match self.user {
            _ if !self.is_ours() => Err(MountError::NotOurs { path, kind: self.kind.clone(), source_name: self.source.clone() }),
            Some(user) if !me.is_root() && user != me.as_raw() => Err(MountError::OfAnother { path, user }),
            _ => Ok(()),
        }
    }
}

/// `36 35 98:0 / /mnt rw,noatime shared:1 - fuse.bygone bygone rw,user_id=0,group_id=0`; so many optional fields stand before the dash as there are.
fn of_line(line: &str) -> Option<Mounted> {
    let (front, back) = line.split_once(" - ")?;
    let mut back = back.split(' ');
    let (kind, source) = (back.next()?.to_owned(), back.next()?.to_owned());
    let user = back.next().and_then(|options| options.split(',').find_map(|option| option.strip_prefix("user_id=")?.parse().ok()));
    Some(Mounted { path: unescaped(front.split(' ').nth(4)?), kind, source, user })
}

/// Blank, tab, line feed and backslash are written as a backslash and three octal digits.
fn unescaped(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let octal = after.get(..3).and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match (first, octal) {
            (b'\\', Some(byte)) => {
                bytes.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_what_is_mounted_and_by_whom() {
        let line = r"36 35 0:98 / /mnt/a\040b rw,noatime shared:1 master:2 - fuse.bygone bygone rw,user_id=1000,group_id=1000";
        let ours = of_line(line).unwrap();
        assert_eq!((ours.path.as_path(), ours.user, ours.is_ours()), (Path::new("/mnt/a b"), Some(1000), true));
        let other = of_line("25 24 0:23 / /dev/shm rw - tmpfs tmpfs rw,size=1k").unwrap();
        assert!(!other.is_ours() && other.user.is_none());
        assert!(of_line("25 24 0:23 / /x rw - fuse bygone rw,user_id=0").unwrap().is_ours());
        assert!(!of_line("25 24 0:23 / /x rw - fuse other rw,user_id=0").unwrap().is_ours());
        assert!(!of_line("25 24 0:23 / /x rw - ext4 bygone rw").unwrap().is_ours());
    }

    #[test]
    fn only_a_mount_point_itself_is_one() {
        assert_eq!(Mounted::at(Path::new("/proc")).unwrap().unwrap().kind, "proc");
        assert!(Mounted::at(Path::new("/proc/self")).unwrap().is_none());
        assert!(Mounted::at(Path::new("/no/such/directory")).unwrap().is_none());
        assert!(Mounted::at(Path::new("/")).unwrap().is_some_and(|root| !root.is_ours()));
    }
}
