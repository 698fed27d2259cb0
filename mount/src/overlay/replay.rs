//! An overlay opened: who it is, and the state that its journal leads to.
//!
//! The journal names the source's files by their paths there; they are looked up once more, so a source may number its files as it likes.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use thiserror::Error;

use super::disk::Disk;
use super::format::{Damage, Meta, NodeKind, OnDiskRecord as Record, decode_identity, encode_identity};
use super::journal::{self, Hole, Journal};
use super::local::{LocalFiles, data_name};
use super::node::{Base, Blocks, Data, Node};
use super::{Change, Overlay, Owner, ROOT, Upper};
use crate::error::FsError;
use crate::source::{Source, SourceError};
use crate::stats::Counters;

const FORMAT: &str = "format";
const FORMAT_NEW: &str = "format.new";
/// A journal longer than this is rewritten when it is opened.
const COMPACT_AT_OPEN: u64 = 1 << 20;

/// Why an overlay cannot be used.
#[derive(Debug, Error)]
pub(crate) enum OpenError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it was made for {found}, not for {expected}")]
    OtherSource { found: String, expected: String },
    #[error("{file} is damaged: {damage}")]
    Damaged { file: &'static str, damage: Damage },
    #[error("journal is damaged at offset {position}, although it had been kept up to {durable}")]
    Hole { position: u64, durable: u64 },
    #[error("journal belongs to another overlay")]
    OtherJournal,
    #[error("it changes {path}, which the source does not have")]
    Missing { path: String },
    #[error("data file of inode {ino} is gone, although it had been kept")]
    DataGone { ino: u64 },
    #[error("journal speaks of inode {ino} before it is introduced")]
    Unknown { ino: u64 },
    #[error("source: {0}")]
    Source(#[source] FsError),
}

impl From<journal::OpenError> for OpenError {
    fn from(error: journal::OpenError) -> Self {
        match error {
            journal::OpenError::Io(error) => Self::Io(error),
            journal::OpenError::Header(damage) => Self::Damaged { file: "journal", damage },
            journal::OpenError::OtherOverlay => Self::OtherJournal,
            journal::OpenError::Hole(Hole { position, durable }) => Self::Hole { position, durable },
        }
    }
}

impl Overlay {
    /// Opens the overlay on `disk`, or makes one there, for the source that calls itself `identity`.
    pub(crate) fn open(
        source: Arc<dyn Source>,
        owner: Option<Owner>,
        disk: Arc<dyn Disk>,
        identity: &str,
        counters: Arc<Counters>,
    ) -> Result<Self, OpenError> {
        let id = read_or_make_identity(&*disk, identity)?;
        let (journal, changes) = Journal::open(Arc::clone(&disk), id, Arc::clone(&counters))?;
        let files = Arc::new(LocalFiles::new(Arc::clone(&disk)));
        let upper = Upper { disk: Arc::clone(&disk), files, journal, graveyard: Mutex::default() };
        let this = Self::with(source, owner, counters, Some(upper)).map_err(OpenError::Source)?;
        for record in changes.into_iter().flatten() {
            this.replay(record)?;
        }
        this.settle(&*disk)?;
        if let Some(upper) = &this.upper
            && upper.journal.is_bloated(COMPACT_AT_OPEN)
        {
            this.compact().map_err(OpenError::Source)?;
        }
        Ok(this)
    }

    fn replay(&self, record: Record) -> Result<(), OpenError> {
        match record {
            Record::Node { ino, kind, meta, base, target } => self.replay_node(ino, kind, meta, base, target)?,
            Record::Name { dir, name, ino, hides } => {
                self.introduced(ino)?;
                self.introduced(dir)?;
                self.names.write().set(dir, &name, Change::Entry { ino, hides });
            }
            Record::Gone { dir, name } => self.names.write().set(dir, &name, Change::Gone),
            Record::Drop { dir, name } => self.names.write().unset(dir, &name),
            Record::Attr { ino, meta } => {
                let node = self.introduced(ino)?;
                *node.meta.lock() = meta;
            }
            Record::Whole { ino } => *self.introduced(ino)?.data.write() = Data::Whole { durable: true },
            Record::Blocks { ino, size, base_valid, runs } => {
                let node = self.introduced(ino)?;
                let mut data = node.data.write();
                let mut blocks = match std::mem::replace(&mut *data, Data::Base) {
                    Data::Blocks(blocks) => blocks,
                    _ => Blocks::new(node.base_size),
                };
                for run in runs.0 {
                    blocks.map.insert_all(run);
                }
                *data = Data::Blocks(Blocks { size, base_valid, recorded: Some((size, base_valid)), name_durable: true, ..blocks });
            }
            Record::Truncate { ino, size } => {
                let node = self.introduced(ino)?;
                if let Data::Blocks(blocks) = &mut *node.data.write() {
                    blocks.map.truncate(size.div_ceil(super::blockmap::GRANULE));
                    blocks.base_valid = blocks.base_valid.min(size);
                    blocks.size = size;
                    blocks.recorded = Some((size, blocks.base_valid));
                }
            }
        }
        Ok(())
    }

    fn introduced(&self, ino: u64) -> Result<Arc<Node>, OpenError> {
        self.node(ino).map_err(|_| OpenError::Unknown { ino })
    }

    fn replay_node(&self, ino: u64, kind: NodeKind, meta: Meta, base: Option<Vec<u8>>, target: Option<OsString>) -> Result<(), OpenError> {
        self.next_ino.fetch_max(ino + 1, Ordering::Relaxed);
        if let Ok(node) = self.node(ino) {
            *node.meta.lock() = meta;
            node.recorded.store(true, Ordering::Release);
            return Ok(());
        }
        let node = match base {
            Some(path) => {
                let missing = || OpenError::Missing { path: String::from_utf8_lossy(&path).into_owned() };
                let base = self.walk(&path).map_err(|error| if is_missing(&error) { missing() } else { OpenError::Source(error) })?;
                let node = self.node_of_base(ino, base).map_err(OpenError::Source)?;
                if node.kind != kind {
                    return Err(missing());
                }
                *node.meta.lock() = meta;
                node.recorded.store(true, Ordering::Release);
                node
            }
            None => self.node_of_ours(ino, kind, meta, target),
        };
        self.names.write().add(node);
        Ok(())
    }

    fn walk(&self, path: &[u8]) -> super::Result<Arc<Base>> {
        let mut base = Base::root(self.source.root());
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            let name = OsStr::from_bytes(name);
            let id = self.source.lookup(base.id, name)?;
            base = Base::child(&base, id, name);
        }
        Ok(base)
    }

    /// Brings the data files in line with the journal: leftovers go, what was kept must be there.
    fn settle(&self, disk: &dyn Disk) -> Result<(), OpenError> {
        let mut names = self.names.write();
        let dead: Vec<_> = names.nodes.values().filter(|node| node.ino != ROOT && node.is_unlinked()).cloned().collect();
        for node in dead {
            names.remove(&node);
        }
        let present: HashSet<String> = disk.data_names()?.into_iter().collect();
        let mut wanted = HashSet::new();
        for node in names.nodes.values().filter(|node| node.kind == NodeKind::File) {
            let name = data_name(node.ino);
            let is_there = present.contains(&name);
            match &*node.data.read() {
                Data::Base => continue,
                Data::Whole { durable: true } | Data::Blocks(_) if !is_there => return Err(OpenError::DataGone { ino: node.ino }),
                Data::Whole { .. } => {}
                Data::Blocks(blocks) => {
                    // Bytes past the end are of writes that were never synced, or of a cut that the journal knows and the file does not.
                    let file = node.local.get()?;
                    if file.len()? > blocks.size {
                        file.set_len(blocks.size)?;
                    }
                    node.meta.lock().modified = file.modified()?;
                    node.local.release();
                }
            }
            wanted.insert(name);
        }
        for name in present.difference(&wanted) {
            disk.remove(&format!("data/{name}"))?;
        }
        Ok(())
    }
}

fn is_missing(error: &FsError) -> bool {
    matches!(error, FsError::Source(SourceError::NotFound))
}

/// The overlay's id, after making sure that it belongs to this source.
fn read_or_make_identity(disk: &dyn Disk, identity: &str) -> Result<u64, OpenError> {
    let file = disk.open(FORMAT, true)?;
    let mut bytes = vec![0; usize::try_from(file.len()?).unwrap_or(0)];
    let filled = file.read_at(&mut bytes, 0)?;
    bytes.truncate(filled);
    if bytes.is_empty() {
        let id = RandomState::new().build_hasher().finish();
        let file = disk.open(FORMAT_NEW, true)?;
        file.set_len(0)?;
        file.write_at(&encode_identity(id, identity), 0)?;
        file.sync()?;
        disk.rename(FORMAT_NEW, FORMAT)?;
        disk.sync_top()?;
        return Ok(id);
    }
    let (id, found) = decode_identity(&bytes).map_err(|damage| OpenError::Damaged { file: FORMAT, damage })?;
    if found == identity { Ok(id) } else { Err(OpenError::OtherSource { found, expected: identity.to_owned() }) }
}
