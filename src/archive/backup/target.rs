//! A repository that a backup is being written to, and the object that a thread is writing in all of them.
//!
//! From: `copy`.  To: `repo::Repository`, `data/<n>` of one backup.
//! A repository that fails once is given up for this backup; the others go on. Objects have the same number and the same main stream in every
//! repository, so one list of places serves them all.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::BackupError;
use crate::repo::label::BackupLabel;
use crate::repo::layout::ClusterFolder;
use crate::repo::manifest::Place;
use crate::repo::{ObjectKind, ObjectWriter, Repository};

/// One repository.
#[derive(Debug)]
pub(super) struct Target<'a> {
    pub(super) repository: &'a Repository,
    pub(super) folder: &'a ClusterFolder,
    pub(super) label: BackupLabel,
    stored_bytes: AtomicU64,
    failure: Mutex<Option<BackupError>>,
}

impl<'a> Target<'a> {
    pub(super) fn new(repository: &'a Repository, folder: &'a ClusterFolder, label: BackupLabel) -> Target<'a> {
        Target { repository, folder, label, stored_bytes: AtomicU64::new(0), failure: Mutex::new(None) }
    }

    /// Its name for messages.
    pub(super) fn describe(&self) -> String {
        self.repository.store().describe()
    }

    /// Gives it up. The first reason is kept.
    pub(super) fn fail(&self, error: impl Into<BackupError>) {
        let error = error.into();
        tracing::warn!(repository = %self.describe(), %error, "repository given up for this backup");
        self.failure.lock().get_or_insert(error);
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failure.lock().is_some()
    }

    pub(super) fn take_failure(&self) -> Option<BackupError> {
        self.failure.lock().take()
    }

    /// Bytes of the data objects, as stored.
    pub(super) fn stored_bytes(&self) -> u64 {
        self.stored_bytes.load(Ordering::Relaxed)
    }

    fn data_key(&self, object: u32) -> String {
        self.folder.backup_data(self.label.as_str(), object)
    }
}

/// The object that one thread is writing, in every repository that still takes part. Dropped unfinished, it leaves no trace.
pub(super) struct Sinks<'a> {
    targets: &'a [Target<'a>],
    numbers: &'a AtomicU32,
    open: Option<Open>,
}

struct Open {
    object: u32,
    len: u64,
    /// One for each target, `None` once that target has failed.
    writers: Vec<Option<ObjectWriter>>,
}

impl<'a> Sinks<'a> {
    /// Nothing is created, and no number taken, before the first byte.
    pub(super) fn new(targets: &'a [Target<'a>], numbers: &'a AtomicU32) -> Sinks<'a> {
        Sinks { targets, numbers, open: None }
    }

    /// Where a file that is written now begins: at a multiple of `align` bytes, zeros before it as needed.
    pub(super) fn begin_file(&mut self, align: u64) -> Result<Place, BackupError> {
        if self.open.is_none() {
            self.open = Some(self.begin_object()?);
        }
        let padding = self.open.as_ref().map_or(0, |open| open.len.next_multiple_of(align) - open.len);
        const ZEROS: [u8; 8192] = [0; 8192];
        let padding = ZEROS.get(..usize::try_from(padding).unwrap_or(usize::MAX)).expect("files are aligned to pages at most");
        self.write(padding)?;
        let open = self.open.as_ref().expect("it was opened above");
        Ok(Place { object: open.object, offset: open.len })
    }

    fn begin_object(&self) -> Result<Open, BackupError> {
        let object = self.numbers.fetch_add(1, Ordering::Relaxed);
        let begin = |target: &Target<'_>| {
            let writer = (!target.has_failed()).then(|| target.repository.writer(&target.data_key(object), ObjectKind::BackupData));
            writer.and_then(|w| w.map_err(|e| target.fail(e)).ok())
        };
        let open = Open { object, len: 0, writers: self.targets.iter().map(begin).collect() };
        some_left(self.targets)?;
        Ok(open)
    }

    /// Appends to the object in every repository.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        let Some(open) = self.open.as_mut().filter(|_| !bytes.is_empty()) else { return Ok(()) };
        open.len += bytes.len() as u64;
        for (target, slot) in self.targets.iter().zip(&mut open.writers) {
            if let Some(Err(e)) = slot.as_mut().map(|writer| writer.write(bytes)) {
                *slot = None;
                target.fail(e);
            }
        }
        some_left(self.targets)
    }

    /// Makes the object durable and visible.
    pub(super) fn finish(self) -> Result<(), BackupError> {
        let Some(open) = self.open else { return Ok(()) };
        for (target, writer) in self.targets.iter().zip(open.writers) {
            match writer.map(ObjectWriter::finish) {
                Some(Ok(summary)) => drop(target.stored_bytes.fetch_add(summary.stored_len, Ordering::Relaxed)),
                Some(Err(e)) => target.fail(e),
                None => {}
            }
        }
        some_left(self.targets)
    }
}

/// Is there a repository left to write to?
pub(super) fn some_left(targets: &[Target<'_>]) -> Result<(), BackupError> {
    if targets.iter().any(|t| !t.has_failed()) { Ok(()) } else { Err(BackupError::NoRepositoryLeft) }
}
