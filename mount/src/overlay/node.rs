//! One inode of the mounted tree.
//!
//! Lock order: namespace, then [`Node::data`], then [`Node::meta`], then the journal. Nothing is read from the source under any of them.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::SystemTime;

use parking_lot::{Mutex, RwLock};

use super::blockmap::{BlockMap, GRANULE, Runs, touched};
use super::format::{Meta, NodeKind};
use super::local::Local;
use super::sweep::Sweep;
use crate::source::{FileId, Keep, Kind};

/// Where something of the source hangs in the source's own tree, whatever the overlay has renamed.
#[derive(Debug)]
pub(crate) struct Base {
    pub(crate) id: FileId,
    parent: Option<Arc<Base>>,
    name: OsString,
}

impl Base {
    pub(crate) fn root(id: FileId) -> Arc<Self> {
        Arc::new(Self { id, parent: None, name: OsString::new() })
    }

    pub(crate) fn child(parent: &Arc<Self>, id: FileId, name: &OsStr) -> Arc<Self> {
        Arc::new(Self { id, parent: Some(Arc::clone(parent)), name: name.to_owned() })
    }

    /// The path from the source's root, without a leading slash; empty for the root.
    pub(crate) fn path(&self) -> Vec<u8> {
        let Some(parent) = &self.parent else { return Vec::new() };
        let mut path = parent.path();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend(self.name.as_bytes());
        path
    }
}

impl From<Kind> for NodeKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::File => Self::File,
            Kind::Directory => Self::Directory,
            Kind::Symlink => Self::Symlink,
        }
    }
}

/// A file of which the overlay holds some granules.
#[derive(Debug, Clone, Default)]
pub(crate) struct Blocks {
    /// Granules in the data file.
    pub(crate) map: BlockMap,
    /// Where `map` has no granule, the source's bytes show below this and zeroes from here on.
    pub(crate) base_valid: u64,
    pub(crate) size: u64,
    /// In `map` but not yet in the journal.
    pub(crate) dirty: Runs,
    /// Taken from `dirty` by a sync that is under way.
    pub(crate) in_flight: Runs,
    /// `size` and `base_valid` as the journal has them; `None` before the first record.
    pub(crate) recorded: Option<(u64, u64)>,
    /// The data file's name is durable.
    pub(crate) name_durable: bool,
}

/// What a piece of a file is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    Local,
    Base,
    Zero,
}

impl Blocks {
    pub(crate) fn new(size: u64) -> Self {
        Self { base_valid: size, size, ..Self::default() }
    }

    /// Cuts `bytes` into pieces, in order.
    pub(crate) fn pieces(&self, bytes: std::ops::Range<u64>) -> Vec<(Piece, std::ops::Range<u64>)> {
        let mut pieces: Vec<(Piece, std::ops::Range<u64>)> = Vec::new();
        let mut add = |piece: Piece, start: u64, end: u64| match pieces.last_mut() {
            Some((last, range)) if *last == piece => range.end = end,
            _ if start < end => pieces.push((piece, start..end)),
            _ => {}
        };
        for granule in touched(&bytes) {
            let (start, end) = ((granule * GRANULE).max(bytes.start), ((granule + 1) * GRANULE).min(bytes.end));
            if self.map.contains(granule) {
                add(Piece::Local, start, end);
            } else {
                let border = self.base_valid.clamp(start, end);
                add(Piece::Base, start, border);
                add(Piece::Zero, border, end);
            }
        }
        pieces
    }

    /// The source's bytes that a write of `bytes` needs besides its own: the rest of the granules at its two ends.
    pub(crate) fn missing(&self, bytes: &std::ops::Range<u64>) -> Vec<std::ops::Range<u64>> {
        let head = bytes.start / GRANULE * GRANULE..bytes.start;
        let tail = bytes.end..bytes.end.next_multiple_of(GRANULE);
        let of_base = |rest: std::ops::Range<u64>| rest.start..rest.end.min(self.base_valid);
        let unmapped = |rest: &std::ops::Range<u64>| !rest.is_empty() && !self.map.contains(rest.start / GRANULE);
        [head, tail].into_iter().map(of_base).filter(unmapped).collect()
    }
}

/// Where the bytes of a file are.
pub(crate) enum Data {
    /// In the source.
    Base,
    /// In the data file, whose own length and time count. `durable`: and the journal knows it.
    Whole { durable: bool },
    /// In both.
    Blocks(Blocks),
}

/// See the module.
pub(crate) struct Node {
    pub(crate) ino: u64,
    pub(crate) kind: NodeKind,
    pub(crate) base: Option<Arc<Base>>,
    pub(crate) volatile: bool,
    pub(crate) keep: Keep,
    pub(crate) base_size: u64,
    /// Where a symbolic link made in the overlay points.
    pub(crate) target: Option<OsString>,
    pub(crate) local: Local,
    pub(crate) meta: Mutex<Meta>,
    pub(crate) data: RwLock<Data>,
    /// Held by whoever syncs, copies or cuts the file: one at a time.
    pub(crate) syncing: Mutex<()>,
    /// The journal has a record of this inode.
    pub(crate) recorded: AtomicBool,
    /// How often the kernel was told of it and has not forgotten.
    pub(crate) lookups: AtomicU64,
    pub(crate) sweep: Sweep,
}

/// What `stat` shows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stat {
    pub(crate) ino: u64,
    pub(crate) kind: NodeKind,
    pub(crate) size: u64,
    pub(crate) meta: Meta,
    pub(crate) volatile: bool,
}

impl Node {
    pub(crate) fn stat(&self) -> io::Result<Stat> {
        let data = self.data.read();
        let size = match &*data {
            Data::Base if self.kind == NodeKind::Symlink => self.target.as_ref().map_or(self.base_size, |target| target.len() as u64),
            Data::Base => self.base_size,
            Data::Whole { .. } => self.local.get()?.len()?,
            Data::Blocks(blocks) => blocks.size,
        };
        let mut meta = *self.meta.lock();
        if matches!(*data, Data::Whole { .. }) {
            meta.modified = self.local.get()?.modified()?;
        }
        Ok(Stat { ino: self.ino, kind: self.kind, size, meta, volatile: self.volatile })
    }

    pub(crate) fn touch(&self) {
        self.meta.lock().modified = SystemTime::now();
    }

    pub(crate) fn is_unlinked(&self) -> bool {
        self.meta.lock().nlink == 0
    }

    /// Whether all its bytes are the source's, so that forgetting it loses nothing.
    pub(crate) fn is_untouched(&self) -> bool {
        matches!(*self.data.read(), Data::Base)
    }
}
