//! Builds a moment: the state of the backup's checkpoint, then every record up to the point.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::AtomicU64;

use crate::pg::checkpoint::Checkpoint;
use crate::pg::control::ControlFile;
use crate::pg::relation::BLCKSZ;
use crate::pg::relation::{GLOBAL_TABLESPACE, RELSEG_BLOCKS};
use crate::pg::relation_file::database_directory;
use crate::pg::wal::effect::DatabaseDir;
use crate::pg::{BlockNo, Lsn, RelFileLocator};
use crate::repo::manifest::{EntryKind, FileData, Manifest};
use crate::view::file_class::{FileClass, classify};
use crate::view::fold::{Cluster, MapSource, TwoPhase};
use crate::view::moment::error::BuildError;
use crate::view::moment::gather::gather;
use crate::view::moment::read::{CopiedRelations, CopiedSlruFiles, CopiedSlrus, Moment};
use crate::view::moment::target::{Target, read_copied};
use crate::view::moment::tree;
use crate::view::page::PageRules;
use crate::view::read::FileContent;
use crate::view::relations::Relations;
use crate::view::slru::Slrus;
use crate::view::synth;
use crate::view::tree::Tree;

/// Everything that the manifest says of files whose contents are rebuilt.
#[derive(Debug, Default)]
struct Copied {
    relations: CopiedRelations,
    lengths: BTreeMap<(RelFileLocator, crate::pg::Fork), BlockNo>,
    slrus: CopiedSlruFiles,
    databases: BTreeSet<DatabaseDir>,
    homes: BTreeSet<DatabaseDir>,
    maps: HashMap<DatabaseDir, MapSource>,
    prepared: BTreeMap<u32, TwoPhase>,
}

/// Builds the moment and the tree that shows it.
///
/// # Errors
/// [`BuildError`]: nothing that could not be rebuilt is left to be found out by a server.
pub fn build(target: &Target<'_>) -> Result<(Tree<FileContent>, Moment), BuildError> {
    let control = read_control(target)?;
    let copied = Copied::from(target.manifest);
    let mut relations = Relations::default();
    for (&(rel, fork), &blocks) in &copied.lengths {
        relations.copied(rel, fork, blocks);
    }
    let base = CopiedSlrus { files: target.files.clone(), segments: copied.slrus.clone() };
    let mut cluster = Cluster {
        relations,
        slrus: Slrus::new(base, copied.slrus.iter().map(|(&(slru, segment), &(_, len))| (slru, segment, len))),
        databases: copied.databases,
        homes: copied.homes,
        maps: copied.maps,
        tablespaces: target.manifest.header.tablespaces.iter().map(|t| t.oid).collect(),
        prepared: copied.prepared,
        counters: backup_checkpoint(target)?,
        settings: control.settings,
        origins: copied_origins(target)?,
        logged_minimally: None,
    };
    let redo_start = target.manifest.header.start_lsn;
    let (references, last_record) = gather(target, control.major, &mut cluster)?;
    if let Some(lsn) = cluster.logged_minimally {
        return Err(BuildError::LoggedMinimally { lsn });
    }
    cluster.complete_slrus();
    let rules = PageRules {
        major: control.major,
        hint_bits_logged: control.hint_bits_logged(),
        checksums: control.checksum_version != 0,
        until: target.until,
    };
    let moment = Moment {
        files: target.files.clone(),
        wal: target.wal.clone(),
        cluster,
        references,
        last_record,
        relations: copied.relations,
        rules,
        redo_start,
        rebuilt_pages: AtomicU64::new(0),
        applied_records: AtomicU64::new(0),
    };
    let tree = tree::tree(target, &moment, &control)?;
    Ok((tree, moment))
}

fn read_control(target: &Target<'_>) -> Result<ControlFile, BuildError> {
    let bytes = read_copied(target, "global/pg_control")?.ok_or(BuildError::NoControl)?;
    Ok(ControlFile::decode(&bytes)?)
}

/// What the backup's own checkpoint, or a later one, wrote of replication origins.
fn copied_origins(target: &Target<'_>) -> Result<BTreeMap<u16, Lsn>, BuildError> {
    let Some(bytes) = read_copied(target, synth::ORIGINS)? else { return Ok(BTreeMap::new()) };
    synth::read_replication_origins(&bytes).ok_or(BuildError::Origins)
}

/// The backup's own checkpoint. `pg_control` may be of a later one.
fn backup_checkpoint(target: &Target<'_>) -> Result<Checkpoint, BuildError> {
    let lsn = target.manifest.header.checkpoint_lsn;
    target.wal.checkpoint(lsn)?.ok_or(BuildError::NoCheckpoint { lsn })
}

impl Copied {
    fn from(manifest: &Manifest) -> Copied {
        let mut copied = Copied::default();
        for entry in &manifest.entries {
            let Some(path) = entry.path.to_str() else { continue };
            match &entry.kind {
                EntryKind::File(data) => copied.file(path, data),
                EntryKind::Directory => copied.directory(path),
                EntryKind::Symlink { .. } => {}
            }
        }
        copied
    }

    fn file(&mut self, path: &str, data: &FileData) {
        match classify(path) {
            FileClass::Relation(file) => {
                self.relations.insert(file, (data.place, data.size));
                let blocks = u32::try_from(data.size / BLCKSZ as u64).unwrap_or(RELSEG_BLOCKS).min(RELSEG_BLOCKS);
                let length = self.lengths.entry((file.rel, file.fork)).or_default();
                *length = (*length).max(file.segment.saturating_mul(RELSEG_BLOCKS).saturating_add(blocks));
            }
            FileClass::Slru { slru, segment } => {
                self.slrus.insert((slru, segment), (data.place, data.size));
            }
            FileClass::RelationMap { tablespace, database } => {
                let dir = DatabaseDir { database, tablespace };
                self.maps.insert(dir, MapSource::Copied(dir));
            }
            FileClass::TwoPhase => {
                let name = path.rsplit('/').next().unwrap_or_default();
                let low_half = name.get(name.len().saturating_sub(8)..).unwrap_or_default();
                if let Ok(xid) = u32::from_str_radix(low_half, 16) {
                    self.prepared.insert(xid, TwoPhase::Copied);
                }
            }
            FileClass::Other => {
                let home = path.strip_suffix("/PG_VERSION").and_then(database_directory);
                self.homes.extend(home.map(|(tablespace, database)| DatabaseDir { database, tablespace }));
            }
            _ => {}
        }
    }

    fn directory(&mut self, path: &str) {
        // `database_directory` asks for the directory of a file in it.
        if let Some((tablespace, database)) = database_directory(path).filter(|(tablespace, _)| *tablespace != GLOBAL_TABLESPACE) {
            self.databases.insert(DatabaseDir { database, tablespace });
        }
    }
}
