//! Which store, and how to reach it.
//!
//! From: `cli`, which makes these from the configuration.  To: [`open`].
//! Plain values; secrets do not show in `Debug`.

use std::path::PathBuf;
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
    fn the_secret_of_an_access_key_does_not_show() {
        let mut settings = S3Settings::new("bucket");
        settings.access_key = Some(AccessKey { id: "AKIA".to_owned(), secret: "hunter2".into() });
        let shown = format!("{:?}", Settings::S3(Box::new(settings)));
        assert!(shown.contains("AKIA") && !shown.contains("hunter2"), "{shown}");
    }
}
