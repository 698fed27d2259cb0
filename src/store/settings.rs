//! Which store, and how to reach it.
//!
//! From: `cli`, which makes these from the configuration.  To: [`open`].
//! Plain values; secrets do not show in `Debug`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::local::LocalStore;
use super::s3::S3Store;
pub use super::s3::settings::{AccessKey, S3Settings, Timeouts};
use super::{Store, StoreError};

/// A store to open.
#[derive(Debug, Clone)]
pub enum Settings {
    /// A directory.
    Posix(PathBuf),
    /// A bucket of an S3 service.
    S3(Box<S3Settings>),
}

impl Settings {
    /// Do both mean the same place, however it is written?
    #[must_use]
    pub fn is_same_place(&self, other: &Settings) -> bool {
        match (self, other) {
            (Settings::Posix(one), Settings::Posix(other)) => canonical(one) == canonical(other),
            (Settings::S3(one), Settings::S3(other)) => one.place() == other.place(),
            _ => false,
        }
    }
}

/// Behind all links, as far as the path exists.
fn canonical(path: &Path) -> PathBuf {
    match (path.canonicalize(), path.parent(), path.file_name()) {
        (Ok(canonical), _, _) => canonical,
        (Err(_), Some(above), Some(name)) => canonical(above).join(name),
        _ => path.to_owned(),
    }
}

/// Opens a store. Nothing is asked of it yet, but its settings are looked at (a CA file is read, a region looked up).
///
/// Threads are started for S3: a process that is going to fork does so before.
///
/// # Errors
/// [`StoreError::Refused`] with the setting that cannot be right.
pub fn open(settings: &Settings) -> Result<Arc<dyn Store>, StoreError> {
    Ok(match settings {
        Settings::Posix(path) => Arc::new(LocalStore::new(path)),
        Settings::S3(settings) => Arc::new(S3Store::open(settings)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_the_same_however_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        fs_err::os::unix::fs::symlink(dir.path(), &link).unwrap();
        let posix = |path: PathBuf| Settings::Posix(path);
        assert!(posix(link.join("not yet/repo")).is_same_place(&posix(dir.path().join("./not yet/repo/"))));
        assert!(!posix(link.join("a")).is_same_place(&posix(link.join("b"))));
        let s3 = |endpoint: Option<&str>, prefix: &str| {
            let settings = S3Settings { endpoint: endpoint.map(str::to_owned), prefix: prefix.to_owned(), ..S3Settings::new("bucket") };
            Settings::S3(Box::new(settings))
        };
        assert!(s3(Some("Minio:9000"), "a/").is_same_place(&s3(Some("https://minio:9000/"), "/a")));
        assert!(s3(None, "").is_same_place(&s3(None, "/")));
        assert!(!s3(None, "a").is_same_place(&s3(None, "b")) && !s3(None, "a").is_same_place(&s3(Some("minio"), "a")));
    }

    #[test]
    fn the_secret_of_an_access_key_does_not_show() {
        let mut settings = S3Settings::new("bucket");
        settings.access_key = Some(AccessKey { id: "AKIA".to_owned(), secret: "hunter2".into() });
        let shown = format!("{:?}", Settings::S3(Box::new(settings)));
        assert!(shown.contains("AKIA") && !shown.contains("hunter2"), "{shown}");
    }
}
