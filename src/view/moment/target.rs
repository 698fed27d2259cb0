//! What a moment is built from.

use std::path::Path;

use crate::pg::relation::{DEFAULT_TABLESPACE, GLOBAL_TABLESPACE};
use crate::pg::wal::effect::DatabaseDir;
use crate::pg::{Lsn, Timeline};
use crate::repo::RepoError;
use crate::repo::catalog::Catalog;
use crate::repo::indexes::Indexes;
use crate::repo::manifest::{EntryKind, Manifest};
use crate::view::content::{Content, StoredFiles};
use crate::view::hybrid::Takeover;
use crate::view::moment::references::ReferenceMemory;
use crate::view::native::WalFile;
use crate::view::settings::Start;
use crate::view::wal::ArchivedWal;

/// What is to be built.
#[derive(Debug, Clone)]
pub struct Target<'a> {
    /// The backup to stand on: its stop Lsn is not after `until`, its timeline an ancestor.
    pub manifest: &'a Manifest,
    pub files: StoredFiles,
    pub wal: ArchivedWal,
    pub catalog: &'a Catalog,
    pub indexes: &'a Indexes,
    pub memory: ReferenceMemory,
    /// The moment: a record boundary.
    pub until: Lsn,
    pub startup: Startup,
    /// Settings of whoever mounts.
    pub own_settings: Vec<(String, String)>,
}

/// What a server finds that starts on the view.
#[derive(Debug, Clone)]
pub enum Startup {
    /// A cluster that was shut down at the moment.
    Cold {
        /// The timeline that it writes.
        new_timeline: Timeline,
        /// The timeline that the moment is on: where another one forks off at the very moment, the older.
        timeline: Timeline,
        /// Text of that timeline's history file; empty for timeline 1.
        parent_history: String,
    },
    /// A standby that was shut down right after a restartpoint. `until` is the redo point of that checkpoint, and the server replays on from there.
    Recovery {
        takeover: Takeover,
        /// The timeline of the last byte before the redo point.
        timeline: Timeline,
        /// The WAL that it will ask for.
        wal: Vec<WalFile>,
        /// Where that is, and how far to go.
        start: Start,
    },
}

/// A small file as it was copied.
pub(super) fn read_copied(target: &Target<'_>, path: &str) -> Result<Option<Vec<u8>>, RepoError> {
    let Some(EntryKind::File(data)) = target.manifest.find(Path::new(path)).map(|entry| &entry.kind) else { return Ok(None) };
    let mut bytes = vec![0; usize::try_from(data.size).unwrap_or(0)];
    target.files.read_stored(&Content::Copied(data.place), 0, &mut bytes)?;
    Ok(Some(bytes))
}

/// The directory of a database, relative to the data directory; tablespaces as `pg_tblspc` has them.
pub(super) fn directory_of(dir: DatabaseDir, version_directory: &str) -> String {
    match dir.tablespace {
        GLOBAL_TABLESPACE => "global".to_owned(),
        DEFAULT_TABLESPACE => format!("base/{}", dir.database),
        tablespace => format!("pg_tblspc/{tablespace}/{version_directory}/{}", dir.database),
    }
}
