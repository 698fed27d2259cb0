//! Opens the view of a moment: chooses repository and backup, resolves the point, and decides who replays the WAL.
//!
//! From: `cli` (mount, clone, ls, cat, explain).  To: `repo` (catalog, resolve), `replay` (carries out who replays).

mod error;
mod replay;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

pub use self::error::OpenError;
use self::replay::Opening;
use crate::format::index::Summary;
use crate::pg::wal::{Layout, TimelinePath};
use crate::pg::{Lsn, Timeline};
use crate::repo::catalog::Catalog;
use crate::repo::label::BackupLabel;
use crate::repo::layout::ClusterFolder;
use crate::repo::manifest::Manifest;
use crate::repo::minimal::logged_minimally;
use crate::repo::moment::Wanted;
use crate::repo::resolve::{RecoveryPoint, Resolved, SearchedWal, resolve};
use crate::repo::{ObjectKind, RepoError};
use crate::view::content::StoredFiles;
use crate::view::hybrid::Takeover;
use crate::view::indexes::WalIndexes;
use crate::view::moment::ReferenceMemory;
use crate::view::native::copied_tree;
use crate::view::read::View;
use crate::view::stored::StoredObjects;
use crate::view::wal::{ArchivedWal, Segments};

/// Who replays the WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Replay {
    /// We do; where we cannot, Postgres does from the last possible checkpoint on, or from the backup on.
    #[default]
    Auto,
    /// We do, or nobody.
    Bygone,
    /// We do up to a checkpoint, Postgres does from there on.
    Hybrid,
    /// Postgres does, from the backup on.
    Postgres,
}

impl Replay {
    pub const ALL: [Replay; 4] = [Replay::Auto, Replay::Bygone, Replay::Hybrid, Replay::Postgres];

    /// The word for it, as a user writes it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Replay::Auto => "auto",
            Replay::Bygone => "bygone",
            Replay::Hybrid => "hybrid",
            Replay::Postgres => "postgres",
        }
    }
}

/// How a view is to be set up.
#[derive(Debug, Clone)]
pub struct ViewOptions {
    pub replay: Replay,
    /// User and group that everything belongs to.
    pub owner: (u32, u32),
    /// Where the view will be mounted: a `restore_command` names files in it.
    pub mountpoint: Option<String>,
    /// Settings of whoever mounts.
    pub own_settings: Vec<(String, String)>,
}

/// One cluster in one repository, ready to be looked into. Cheap to share; all its views share decoded chunks.
#[derive(Debug)]
pub struct Archive {
    pub shared: Arc<StoredObjects>,
    pub folder: ClusterFolder,
    memory: ReferenceMemory,
}

/// A view, and how it came about.
#[derive(Debug)]
pub struct Opened {
    pub view: View,
    pub resolved: Resolved,
    /// Who replays.
    pub replay: Replay,
    /// Where Postgres takes over from us, if both replay.
    pub takeover: Option<Takeover>,
    /// Why Postgres replays although it was not asked to.
    pub fell_back: Option<String>,
    /// The timeline that a server on the view writes.
    pub new_timeline: Timeline,
}

/// What was decided when a view was opened, so that the same view can be opened again, whatever the archive has got since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    pub point: RecoveryPoint,
    /// The timeline whose history leads there.
    pub follows: Timeline,
    pub backup: BackupLabel,
    pub new_timeline: Timeline,
    /// `Auto` only if it is to be decided anew.
    pub replay: Replay,
    /// Where the checkpoint's record begins that a hybrid starts from: what was written on the view stands on the pages of that one.
    pub checkpoint: Option<Lsn>,
}

impl Opened {
    /// What [`Archive::reopen`] needs.
    #[must_use]
    pub fn pinned(&self) -> Pinned {
        let resolved = &self.resolved;
        let (follows, backup) = (resolved.path.newest(), resolved.backup.clone());
        let checkpoint = self.takeover.map(|takeover| takeover.lsn);
        Pinned { point: resolved.point, follows, backup, new_timeline: self.new_timeline, replay: self.replay, checkpoint }
    }
}

impl Archive {
    /// A cluster's folder, read through `shared`.
    #[must_use]
    pub fn new(shared: Arc<StoredObjects>, folder: ClusterFolder) -> Archive {
        Archive { shared, folder, memory: ReferenceMemory::default() }
    }

    /// What the repository holds of the cluster now.
    ///
    /// # Errors
    /// As [`Catalog::read`].
    pub fn catalog(&self) -> Result<Catalog, RepoError> {
        Catalog::read(self.shared.repository(), &self.folder)
    }

    /// The stored side of views that stand on a backup; of the WAL alone, if `label` is empty.
    pub(super) fn files(&self, label: &str) -> StoredFiles {
        StoredFiles { shared: self.shared.clone(), folder: self.folder.clone(), label: label.to_owned() }
    }

    /// A backup's manifest.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn manifest(&self, label: &str) -> Result<Manifest, OpenError> {
        let bytes = self.shared.repository().read_object(&self.folder.manifest(label), ObjectKind::Manifest)?;
        let manifest = Manifest::decode(&bytes).map_err(|source| OpenError::Manifest { label: label.to_owned(), source })?;
        self.shared.spares().expect_backup(&self.folder, &manifest);
        Ok(manifest)
    }

    /// The files of a backup as they were copied.
    ///
    /// # Errors
    /// [`OpenError::NoBackup`] with those that there are.
    pub fn backup(&self, label: &str, owner: (u32, u32)) -> Result<View, OpenError> {
        match self.manifest(label) {
            Ok(manifest) => Ok(View { tree: copied_tree(&manifest), files: self.files(label), moment: None, owner }),
            Err(OpenError::Repo(error)) if error.is_not_found() => {
                let known = self.catalog()?.backups.iter().map(|b| b.label.to_string()).collect();
                Err(OpenError::NoBackup { label: label.to_owned(), known })
            }
            Err(error) => Err(error),
        }
    }

    /// Finds the point that a moment means.
    ///
    /// # Errors
    /// [`OpenError::Resolve`].
    pub fn resolve(&self, catalog: &Catalog, wanted: &Wanted) -> Result<Resolved, OpenError> {
        Ok(resolve(catalog, wanted, &ArchiveWal { archive: self, catalog })?)
    }

    /// Opens the view of a moment.
    ///
    /// # Errors
    /// [`OpenError`]: nothing was fetched if the moment is out of reach.
    pub fn open(&self, wanted: &Wanted, options: &ViewOptions) -> Result<Opened, OpenError> {
        let catalog = self.catalog()?;
        let resolved = self.resolve(&catalog, wanted)?;
        if let Some(segment) = resolved.cut_short {
            let missing = segment.name(catalog.identity.wal_segment_size);
            let hint = "`bygone info` shows what is missing; another repository (--repo N) may have it";
            tracing::warn!(%missing, hint, "this is not the newest moment that was archived: WAL goes on behind a segment that is missing");
        }
        self.open_resolved(&catalog, resolved, options)
    }

    /// Opens the view of a point that was found already.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_resolved(&self, catalog: &Catalog, resolved: Resolved, options: &ViewOptions) -> Result<Opened, OpenError> {
        let (manifest, new_timeline) = (self.manifest(resolved.backup.as_str())?, next_timeline(catalog, &resolved));
        Opening { archive: self, catalog, resolved, manifest, new_timeline, options, checkpoint: None }.open()
    }

    /// Opens a view again that was opened before; `pinned` decides who replays, not `options`.
    ///
    /// # Errors
    /// [`OpenError`], above all if its backup or its WAL has expired.
    pub fn reopen(&self, pinned: &Pinned, options: &ViewOptions) -> Result<Opened, OpenError> {
        let catalog = self.catalog()?;
        let path = catalog.paths.get(&pinned.follows).cloned().unwrap_or_else(|| TimelinePath::single(pinned.follows));
        let resolved = Resolved { point: pinned.point, path, backup: pinned.backup.clone(), last_commit: None, cut_short: None };
        let (manifest, new_timeline) = (self.manifest(resolved.backup.as_str())?, pinned.new_timeline);
        let options = &ViewOptions { replay: pinned.replay, ..options.clone() };
        Opening { archive: self, catalog: &catalog, resolved, manifest, new_timeline, options, checkpoint: pinned.checkpoint }.open()
    }

    /// Text of a timeline's history file; empty for the first one, which has none.
    pub(super) fn history(&self, timeline: Timeline) -> Result<String, OpenError> {
        if timeline == Timeline(1) {
            return Ok(String::new());
        }
        let bytes = self.shared.repository().read_object(&self.folder.history(timeline), ObjectKind::TimelineHistory)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// An archive's WAL as `resolve` searches it.
struct ArchiveWal<'a> {
    archive: &'a Archive,
    catalog: &'a Catalog,
}

impl SearchedWal for ArchiveWal<'_> {
    type Bytes = Segments;

    fn bytes(&self) -> Segments {
        Segments::new(self.archive.files(""), layout_of(self.catalog))
    }

    fn summaries(&self, path: &TimelinePath, numbers: Range<u64>) -> Result<BTreeMap<u64, Summary>, RepoError> {
        let files = self.archive.files("");
        let wal = ArchivedWal::new(files.clone(), layout_of(self.catalog), path.clone());
        let memory = self.archive.memory.indexes();
        let listed = &self.catalog.indexes;
        WalIndexes { files: &files, wal: &wal, catalog: self.catalog, listed, memory }.summaries(numbers)
    }

    fn logged_minimally(&self) -> Result<Vec<(Timeline, Lsn)>, RepoError> {
        logged_minimally(self.archive.shared.repository(), self.catalog)
    }
}

fn layout_of(catalog: &Catalog) -> Layout {
    Layout { major: catalog.identity.major, segment_size: catalog.identity.wal_segment_size, system_id: Some(catalog.identity.system_id) }
}

/// The first timeline that nobody in the archive uses.
fn next_timeline(catalog: &Catalog, resolved: &Resolved) -> Timeline {
    let known = catalog.paths.keys().copied().chain(catalog.bad_histories.iter().map(|(timeline, _)| *timeline));
    Timeline(known.chain([resolved.path.newest()]).map(|t| t.0).max().unwrap_or(1).saturating_add(1))
}
