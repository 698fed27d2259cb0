//! Other repositories that hold the same objects: where one cannot be read, the next is.
//!
//! From: `view::stored`, with an object that could not be read.  To: the same key in the other repositories, opened when first needed.
//! What always holds: nothing is read elsewhere before it was shown to be the same. A backup of a label is if one run of `backup` wrote both, which
//! their manifests tell; WAL is if later WAL of the timeline is ([`same_wal`]). Compared and given are decoded bytes: each repository has its own
//! key, and may have cut its objects differently.

mod same_wal;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use thiserror::Error;

use crate::advice::chain;
use crate::format::manifest::ManifestError;
use crate::repo::layout::ClusterFolder;
use crate::repo::manifest::Manifest;
use crate::repo::{Object, ObjectKind, RepoError, Repository};

/// What did not work is tried again after this.
const RETRY: Duration = Duration::from_secs(60);

type AnyError = Box<dyn std::error::Error + Send + Sync>;
type OpenRepository = Box<dyn Fn() -> Result<Arc<Repository>, AnyError> + Send + Sync>;

/// Another repository, not opened yet.
pub struct Spare {
    name: String,
    open: OpenRepository,
    opened: Mutex<Opened>,
    known: Mutex<Known>,
    /// Held while WAL is compared: one comparison answers for all who wait.
    comparing: Mutex<()>,
    told: AtomicBool,
}

#[derive(Default)]
enum Opened {
    #[default]
    NotYet,
    Yes(Arc<Repository>),
    Failed(String, Instant),
}

/// What was found out about it.
#[derive(Default)]
struct Known {
    /// By the folder of a backup: is it the same as in the first repository?
    same_backup: HashMap<String, bool>,
    /// By the folder of a timeline's WAL: the key of the segment up to which it is the same.
    same_wal: HashMap<String, String>,
    /// Segments that could not be shown to be the same, why, and when.
    doubtful: HashMap<String, (String, Instant)>,
}

/// A backup that is being read.
#[derive(Debug, Clone)]
struct Backup {
    folder: ClusterFolder,
    label: String,
    /// [`Manifest::identity`].
    identity: [u8; 32],
}

/// All other repositories, the preferred ones first.
#[derive(Debug, Default)]
pub struct Spares {
    all: Vec<Spare>,
    /// By their folder.
    backups: Mutex<HashMap<String, Backup>>,
}

/// An object that the first repository could not give.
#[derive(Debug, Clone, Copy)]
pub struct Lost<'a> {
    /// The first repository.
    pub repository: &'a Repository,
    pub key: &'a str,
    pub kind: ObjectKind,
}

/// Why another repository does not help.
#[derive(Debug, Error)]
enum SpareError {
    #[error("it cannot be opened: {0}")]
    Closed(String),
    #[error(transparent)]
    Repo(#[from] RepoError),
    #[error("the manifest there cannot be used")]
    Manifest(#[from] ManifestError),
    #[error("its backup {label} is another one")]
    OtherBackup { label: String },
    /// Nobody has said which backup is meant.
    #[error("nothing says which backup this belongs to")]
    NoBackup,
    #[error("{0}")]
    Doubtful(String),
}

impl std::fmt::Debug for Spare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spare").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Spare {
    /// A repository that messages call `name`, and how to open it.
    pub fn new<E: Into<AnyError>>(name: String, open: impl Fn() -> Result<Arc<Repository>, E> + Send + Sync + 'static) -> Spare {
        Spare {
            name,
            open: Box::new(move || open().map_err(Into::into)),
            opened: Mutex::default(),
            known: Mutex::default(),
            comparing: Mutex::default(),
            told: AtomicBool::new(false),
        }
    }

    fn repository(&self) -> Result<Arc<Repository>, SpareError> {
        let mut opened = self.opened.lock();
        match &*opened {
            Opened::Yes(repository) => return Ok(repository.clone()),
            Opened::Failed(why, when) if when.elapsed() < RETRY => return Err(SpareError::Closed(why.clone())),
            Opened::NotYet | Opened::Failed(..) => {}
        }
        match (self.open)() {
            Ok(repository) => {
                *opened = Opened::Yes(repository.clone());
                Ok(repository)
            }
            Err(error) => {
                let why = chain(error.as_ref());
                *opened = Opened::Failed(why.clone(), Instant::now());
                Err(SpareError::Closed(why))
            }
        }
    }

    /// Does with its object under the same key what could not be done with the first repository's.
    fn read<T>(
        &self,
        lost: &Lost<'_>,
        backup: Option<&Backup>,
        read: &mut impl FnMut(&Object) -> Result<T, RepoError>,
    ) -> Result<T, SpareError> {
        let repository = self.repository()?;
        match lost.kind {
            ObjectKind::WalSegment => self.check_wal(lost, &repository)?,
            _ => self.check_backup(backup.ok_or(SpareError::NoBackup)?, &repository)?,
        }
        let object = repository.open_object(lost.key, lost.kind)?;
        Ok(read(&object)?)
    }

    /// Is this the backup that is meant?
    fn check_backup(&self, backup: &Backup, repository: &Repository) -> Result<(), SpareError> {
        let folder = backup.folder.backup(&backup.label);
        let known = self.known.lock().same_backup.get(&folder).copied();
        let same = match known {
            Some(same) => same,
            None => {
                let bytes = repository.read_object(&backup.folder.manifest(&backup.label), ObjectKind::Manifest)?;
                let same = Manifest::decode(&bytes)?.identity() == backup.identity;
                self.known.lock().same_backup.insert(folder, same);
                same
            }
        };
        if same { Ok(()) } else { Err(SpareError::OtherBackup { label: backup.label.clone() }) }
    }

    /// Is this the same WAL?
    fn check_wal(&self, lost: &Lost<'_>, repository: &Repository) -> Result<(), SpareError> {
        let _one_at_a_time = self.comparing.lock();
        let timeline = same_wal::timeline_of(lost.key);
        {
            let known = self.known.lock();
            if known.same_wal.get(timeline).is_some_and(|until| lost.key <= until.as_str()) {
                return Ok(());
            }
            if let Some((why, _)) = known.doubtful.get(lost.key).filter(|(_, when)| when.elapsed() < RETRY) {
                return Err(SpareError::Doubtful(why.clone()));
            }
        }
        match same_wal::same_until(lost.repository, repository, lost.key) {
            Ok(until) => {
                self.known.lock().same_wal.insert(timeline.to_owned(), until);
                Ok(())
            }
            Err(doubt) => {
                let why = chain(&doubt);
                self.known.lock().doubtful.insert(lost.key.to_owned(), (why.clone(), Instant::now()));
                Err(SpareError::Doubtful(why))
            }
        }
    }
}

impl Spares {
    /// These repositories, in this order.
    #[must_use]
    pub fn new(all: Vec<Spare>) -> Spares {
        Spares { all, backups: Mutex::default() }
    }

    /// Is there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Says which backup a label means, so that no other of that name is read in its place.
    pub fn expect_backup(&self, folder: &ClusterFolder, manifest: &Manifest) {
        if !self.all.is_empty() {
            let label = manifest.header.label.to_string();
            let backup = Backup { folder: folder.clone(), label: label.clone(), identity: manifest.identity() };
            self.backups.lock().insert(folder.backup(&label), backup);
        }
    }

    /// Does with an object what could not be done with the first repository's; `error` says why not.
    ///
    /// # Errors
    /// `error` if there is no other repository, or it would be no better there; [`RepoError::Everywhere`] if no other can do it.
    pub fn read<T>(
        &self,
        lost: &Lost<'_>,
        error: RepoError,
        mut read: impl FnMut(&Object) -> Result<T, RepoError>,
    ) -> Result<T, RepoError> {
        let is_stored_elsewhere = matches!(lost.kind, ObjectKind::WalSegment | ObjectKind::BackupData);
        if self.all.is_empty() || !is_stored_elsewhere || !matches!(error, RepoError::Store(_) | RepoError::Sealed { .. }) {
            return Err(error);
        }
        let backup = self.backups.lock().iter().find(|(folder, _)| lost.key.starts_with(folder.as_str())).map(|(_, known)| known.clone());
        let mut elsewhere = Vec::new();
        for spare in &self.all {
            match spare.read(lost, backup.as_ref(), &mut read) {
                Ok(result) => {
                    let why = chain(&error);
                    if spare.told.swap(true, Ordering::Relaxed) {
                        tracing::debug!(key = lost.key, "read from {}: {why}", spare.name);
                    } else {
                        tracing::warn!("reading from {} what cannot be read where it should be: {why}", spare.name);
                    }
                    return Ok(result);
                }
                Err(why) => elsewhere.push(format!("{}: {}", spare.name, chain(&why))),
            }
        }
        let here = chain(&error);
        Err(RepoError::Everywhere { first: Box::new(error), here, elsewhere: elsewhere.join("; ") })
    }
}

#[cfg(test)]
mod tests;
