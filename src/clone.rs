//! Clones: a moment as a writable data directory with Postgres running on it, each in a folder of its own.
//!
//! From: `cli::clone`.  To: the folder below `clone.directory`, and Postgres's own programs ([`server`]).
//! The mount is served by a process of its own, which knows its clone by the folder and tells what it does in `status.json`.
//!
//! ```text
//! DIR/.lock           held while a name and a port are taken
//! DIR/NAME/           of who made the clone; others may pass through
//!     .lock           held while its server is started
//!     clone.json      what it is: record.rs
//!     status.json     what its mount has done so far: status.rs
//!     data/           the mount point, and the server's data directory
//!     overlay/        local writes, private
//!     server/         of the server's user: its socket, log and pid
//!     mount.log       what the process that serves the mount had to say
//! ```

pub mod error;
mod files;
pub mod port;
pub mod preload;
pub mod record;
pub mod server;
pub mod status;
pub mod user;
pub mod warm;

use std::fs::File;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

pub use error::CloneError;
pub use record::Record;
pub use status::Status;
pub use user::User;

/// Longest name, bytes: it becomes part of a socket's path, of which Linux takes 107.
const NAME_BYTES: usize = 40;

/// The directory of all clones.
#[derive(Debug, Clone)]
pub struct Clones {
    dir: PathBuf,
}

/// One clone's folder.
#[derive(Debug, Clone)]
pub struct ThinClone {
    name: String,
    folder: PathBuf,
}

/// What a clone is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its server runs.
    Running,
    /// It is mounted, without a server.
    Mounted,
    /// It is not mounted.
    Stopped,
    /// The process that served the mount has died. `start` carries on with what was synced.
    Dead,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            State::Running => "running",
            State::Mounted => "mounted",
            State::Stopped => "stopped",
            State::Dead => "dead",
        })
    }
}

/// Keeps others from what it was taken for, a name and a port or the start of a server; ends on drop.
#[derive(Debug)]
pub struct Claim {
    _lock: File,
}

impl Clones {
    /// The clones below `dir`, which need not exist yet.
    #[must_use]
    pub fn below(dir: &Path) -> Clones {
        Clones { dir: dir.to_owned() }
    }

    /// Makes the directory if there is none, and waits for the right to take names and ports in it.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn claim(&self) -> Result<Claim, CloneError> {
        // Others may pass through but not look around: the server's user must get to its data directory.
        let failed = |error| files::in_directory(&self.dir, &self.dir, error);
        std::fs::DirBuilder::new().recursive(true).mode(0o711).create(&self.dir).map_err(failed)?;
        let path = self.dir.join(".lock");
        let lock = files::private(&path).map_err(|error| files::in_directory(&self.dir, &path, error))?;
        lock.lock().map_err(|error| files::at(&self.dir, error))?;
        Ok(Claim { _lock: lock })
    }

    /// Names of all clones, sorted.
    ///
    /// # Errors
    /// Those of the file system; no directory means no clones.
    pub fn names(&self) -> Result<Vec<String>, CloneError> {
        let entries = match fs_err::read_dir(&self.dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| files::in_directory(&self.dir, &self.dir, error))?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_name(&name) && entry.file_type()?.is_dir() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// The clone of this name.
    ///
    /// # Errors
    /// [`CloneError::Unknown`] with those that there are.
    pub fn find(&self, name: &str) -> Result<ThinClone, CloneError> {
        let clone = self.at(name)?;
        if clone.folder.is_dir() {
            return Ok(clone);
        }
        Err(CloneError::Unknown { name: name.to_owned(), known: self.names()? })
    }

    fn at(&self, name: &str) -> Result<ThinClone, CloneError> {
        if !is_name(name) {
            return Err(CloneError::BadName { name: name.to_owned() });
        }
        Ok(ThinClone { name: name.to_owned(), folder: self.dir.join(name) })
    }

    /// Makes the folder of a new clone, whose server will run as `user`.
    ///
    /// # Errors
    /// [`CloneError::Exists`]; [`CloneError::OutOfReach`] if that user cannot get there; [`CloneError::SocketPath`].
    pub fn make(&self, _claim: &Claim, name: &str, user: &User) -> Result<ThinClone, CloneError> {
        let clone = self.at(name)?;
        check_socket_path(&clone.server_dir())?;
        user::check_reach(&self.dir, user)?;
        let make = |path: &Path, mode| std::fs::DirBuilder::new().mode(mode).create(path).map_err(|error| files::at(path, error));
        match make(&clone.folder, 0o711) {
            Err(CloneError::Io(error)) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(CloneError::Exists { name: name.to_owned() });
            }
            made => made?,
        }
        make(&clone.data(), 0o700)?;
        make(&clone.overlay(), 0o700)?;
        make(&clone.server_dir(), 0o755)?;
        if rustix::process::geteuid().is_root() {
            for path in [clone.server_dir(), clone.data()] {
                std::os::unix::fs::chown(&path, Some(user.uid), Some(user.gid)).map_err(|error| files::at(&path, error))?;
            }
        }
        Ok(clone)
    }
}

/// Lower-case letters, digits, `-` and `_`, a letter or digit first.
fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    name.len() <= NAME_BYTES && name.bytes().next().is_some_and(plain) && name.bytes().all(|b| plain(b) || b == b'-' || b == b'_')
}

/// `sun_path` holds 107 bytes, and the server adds `/.s.PGSQL.NNNNN.lock` only to a plain file's name.
fn check_socket_path(directory: &Path) -> Result<(), CloneError> {
    let longest = directory.join(".s.PGSQL.65535");
    if longest.as_os_str().len() > 107 {
        return Err(CloneError::SocketPath { path: longest });
    }
    Ok(())
}

impl ThinClone {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The mount point: the server's data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Where local writes go.
    #[must_use]
    pub fn overlay(&self) -> PathBuf {
        self.folder.join("overlay")
    }

    /// Where the server keeps socket, log and pid.
    #[must_use]
    pub fn server_dir(&self) -> PathBuf {
        self.folder.join("server")
    }

    /// What the process that serves the mount logs.
    #[must_use]
    pub fn mount_log(&self) -> PathBuf {
        self.folder.join("mount.log")
    }

    fn lock_file(&self) -> PathBuf {
        self.folder.join(".lock")
    }

    fn status_file(&self) -> PathBuf {
        self.folder.join("status.json")
    }

    fn record_file(&self) -> PathBuf {
        self.folder.join("clone.json")
    }

    /// Refuses whoever could not stop it, start it and remove it: neither who made it nor root. Nothing has been touched then.
    ///
    /// # Errors
    /// [`CloneError::OfAnother`], [`CloneError::Closed`]; [`MountError::OfAnother`](bygone_mount::MountError) where root has mounted it.
    pub fn check_access(&self) -> Result<(), CloneError> {
        use rustix::fs::Access;
        for path in [self.folder.clone(), self.record_file(), self.status_file(), self.overlay()] {
            files::check_owner(&path)?;
        }
        let directory = self.folder.parent().unwrap_or(&self.folder);
        rustix::fs::access(directory, Access::WRITE_OK | Access::EXEC_OK)
            .map_err(|errno| files::in_directory(directory, directory, errno.into()))?;
        match bygone_mount::Mounted::at(&self.data())? {
            Some(mounted) => Ok(mounted.check_unmountable()?),
            None => Ok(()),
        }
    }

    /// Keeps others from starting its server; ends on drop.
    ///
    /// # Errors
    /// [`CloneError::Starting`] if another process has it; those of the file system.
    pub fn begin_start(&self) -> Result<Claim, CloneError> {
        let path = self.lock_file();
        let lock = files::private(&path).map_err(|error| files::at(&path, error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Claim { _lock: lock }),
            Err(std::fs::TryLockError::WouldBlock) => Err(CloneError::Starting { name: self.name.clone() }),
            Err(std::fs::TryLockError::Error(error)) => Err(files::at(&path, error)),
        }
    }

    /// Reads what it is.
    ///
    /// # Errors
    /// [`CloneError::Record`], [`CloneError::OfAnother`].
    pub fn record(&self) -> Result<Record, CloneError> {
        files::check_owner(&self.record_file())?;
        Record::read(&self.record_file())
    }

    /// Writes what it is: whole or not at all.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn put_record(&self, record: &Record) -> Result<(), CloneError> {
        files::replace(&self.record_file(), &record.encode())
    }

    /// What its mount has done so far, as of the last second; `None` before it was first mounted.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        serde_json::from_slice(&fs_err::read(self.status_file()).ok()?).ok()
    }

    /// Writes what its mount has done so far.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn put_status(&self, status: &Status) -> Result<(), CloneError> {
        files::replace(&self.status_file(), &serde_json::to_vec(status).unwrap_or_default())
    }

    /// Bytes that local writes take on the disk.
    #[must_use]
    pub fn local_bytes(&self) -> u64 {
        files::disk_usage(&self.overlay())
    }

    /// What it is doing.
    #[must_use]
    pub fn state(&self) -> State {
        match files::mounted(&self.data()) {
            files::Mounted::No => State::Stopped,
            files::Mounted::Dead => State::Dead,
            files::Mounted::Yes if server::pid(self).is_some() => State::Running,
            files::Mounted::Yes => State::Mounted,
        }
    }

    /// Removes its folder, with all local writes.
    ///
    /// # Errors
    /// [`CloneError::StillMounted`]; those of the file system.
    pub fn remove(&self) -> Result<(), CloneError> {
        if files::mounted(&self.data()) != files::Mounted::No {
            return Err(CloneError::StillMounted { path: self.data() });
        }
        Ok(fs_err::remove_dir_all(&self.folder)?)
    }

    /// Whom its folder for the server belongs to.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn owner(&self) -> Result<(u32, u32), CloneError> {
        let meta = fs_err::metadata(self.server_dir())?;
        Ok((meta.uid(), meta.gid()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me() -> User {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        User { name: "me".to_owned(), uid, gid }
    }

    #[test]
    fn a_name_is_taken_once() {
        let dir = tempfile::tempdir().unwrap();
        let clones = Clones::below(&dir.path().join("clones"));
        assert_eq!(clones.names().unwrap(), Vec::<String>::new());
        let claim = clones.claim().unwrap();
        clones.make(&claim, "one", &me()).unwrap();
        assert!(matches!(clones.make(&claim, "one", &me()), Err(CloneError::Exists { .. })));
        assert_eq!(clones.names().unwrap(), ["one"]);
        assert!(matches!(clones.find("two"), Err(CloneError::Unknown { known, .. }) if known == ["one"]));
        let one = clones.find("one").unwrap();
        assert_eq!(one.state(), State::Stopped);
        one.remove().unwrap();
        assert_eq!(clones.names().unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_name_that_is_a_path_is_refused() {
        let clones = Clones::below(Path::new("/nowhere"));
        for name in ["", "..", "a/b", "A", "-x", ".lock", &"x".repeat(41)] {
            assert!(matches!(clones.find(name), Err(CloneError::BadName { .. })), "{name}");
        }
    }

    #[test]
    fn a_socket_whose_path_is_too_long_is_refused_before_anything_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("x".repeat(100));
        let clones = Clones::below(&deep);
        let claim = clones.claim().unwrap();
        assert!(matches!(clones.make(&claim, "one", &me()), Err(CloneError::SocketPath { .. })));
        assert_eq!(clones.names().unwrap(), Vec::<String>::new());
    }
}
