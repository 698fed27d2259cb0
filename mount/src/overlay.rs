//! The tree that is shown: the source's, with local changes laid over it if there is an [`Upper`].
//!
//! From: `fuse` (inode numbers and names) and `mount` (opening, the clock, closing).  To: the [`Source`], and local files through `disk`.
//! In: a change.  Out: the state after it in memory, its record in the `journal`; what was synced is there again after a crash.
//!
//! ```text
//! names, read      what is there, piece by piece: local, of the source, or zero
//! names, write     change memory and the data file, note what the journal does not know yet
//! sync             data file durable -> record appended -> journal durable, in this order and never another
//! replay, compact  the journal read back; rewritten when it has grown
//! ```
//! Methods that say so may wait for the source; all others answer from memory and local files and may run on threads that must not wait.

pub(crate) mod blockmap;
mod compact;
pub(crate) mod disk;
pub(crate) mod format;
mod journal;
mod local;
mod names;
mod node;
mod read;
mod replay;
mod sweep;
mod sync;
mod write;

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use parking_lot::{Mutex, RwLock};

use self::disk::{Disk, Space};
use self::format::{Meta, NodeKind};
use self::journal::{Journal, Point};
use self::local::{Local, LocalFiles};
pub(crate) use self::names::{Creation, Listed, SetAttr};
use self::node::{Base, Data};
pub(crate) use self::node::{Node, Stat};
pub(crate) use self::replay::OpenError;
use self::sweep::Sweep;
use crate::error::FsError;
use crate::source::{FileId, Keep, Source};
use crate::stats::Counters;

/// The root's inode number.
pub(crate) const ROOT: u64 = 1;
/// Files up to this length are copied whole at the first write, whatever the source says: their maps would cost more.
const SMALL: u64 = 64 << 10;

type Result<T> = std::result::Result<T, FsError>;

/// Whom the source's files are shown to belong to, if not to whom the source says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What the overlay says of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Change {
    /// It leads here; `hides`: and the source has this name too.
    Entry { ino: u64, hides: bool },
    /// The source has it, but it was removed.
    Gone,
}

#[derive(Default)]
struct Namespace {
    nodes: HashMap<u64, Arc<Node>>,
    by_base: HashMap<FileId, u64>,
    changes: HashMap<u64, BTreeMap<OsString, Change>>,
}

/// The writable part.
struct Upper {
    disk: Arc<dyn Disk>,
    files: Arc<LocalFiles>,
    journal: Journal,
    /// Data files to remove once the journal is durable up to a point.
    graveyard: Mutex<Vec<(Point, u64)>>,
}

/// See the module.
pub(crate) struct Overlay {
    source: Arc<dyn Source>,
    owner: Option<Owner>,
    upper: Option<Upper>,
    names: RwLock<Namespace>,
    next_ino: AtomicU64,
    counters: Arc<Counters>,
}

impl Overlay {
    /// Shows the source as it is; every change is refused.
    pub(crate) fn read_only(source: Arc<dyn Source>, owner: Option<Owner>, counters: Arc<Counters>) -> Result<Self> {
        Self::with(source, owner, counters, None)
    }

    fn with(source: Arc<dyn Source>, owner: Option<Owner>, counters: Arc<Counters>, upper: Option<Upper>) -> Result<Self> {
        let base = Base::root(source.root());
        let this = Self { source, owner, upper, names: RwLock::default(), next_ino: AtomicU64::new(ROOT + 1), counters };
        let root = this.node_of_base(ROOT, base)?;
        root.lookups.store(1, Ordering::Relaxed);
        this.names.write().add(root);
        Ok(this)
    }

    /// The inode that the kernel calls `ino`.
    pub(crate) fn node(&self, ino: u64) -> Result<Arc<Node>> {
        self.names.read().nodes.get(&ino).cloned().ok_or(FsError::Stale)
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.upper.is_some()
    }

    /// Room where local writes go; nothing is free on a read-only mount.
    pub(crate) fn space(&self) -> Result<Space> {
        match &self.upper {
            Some(upper) => Ok(upper.disk.space()?),
            None => Ok(Space { block_size: 4096, ..Space::default() }),
        }
    }

    /// The writable part, if there is one and it has not failed.
    fn upper(&self) -> Result<&Upper> {
        let upper = self.upper.as_ref().ok_or(FsError::ReadOnly)?;
        if upper.journal.has_failed() { Err(FsError::Failed) } else { Ok(upper) }
    }

    fn new_ino(&self) -> u64 {
        self.next_ino.fetch_add(1, Ordering::Relaxed)
    }

    fn local(&self, ino: u64) -> Local {
        Local::new(self.upper.as_ref().map(|upper| Arc::clone(&upper.files)), ino)
    }

    /// An inode for something of the source, as yet unknown to the namespace.
    fn node_of_base(&self, ino: u64, base: Arc<Base>) -> Result<Arc<Node>> {
        let attr = self.source.attr(base.id)?;
        let kind = NodeKind::from(attr.kind);
        let nlink = if kind == NodeKind::Directory { 2 } else { 1 };
        let owner = self.owner.unwrap_or(Owner { uid: attr.uid, gid: attr.gid });
        let mode = attr.mode & 0o7777;
        Ok(Arc::new(Node {
            ino,
            kind,
            volatile: self.source.volatile(base.id),
            base: Some(base),
            keep: if attr.size <= SMALL { Keep::Whole } else { attr.keep },
            base_size: attr.size,
            target: None,
            local: self.local(ino),
            meta: Mutex::new(Meta { mode, uid: owner.uid, gid: owner.gid, nlink, modified: attr.modified }),
            data: RwLock::new(Data::Base),
            syncing: Mutex::new(()),
            recorded: AtomicBool::new(false),
            lookups: AtomicU64::new(0),
            sweep: Sweep::default(),
        }))
    }

    /// A new inode of the overlay's own.
    fn node_of_ours(&self, ino: u64, kind: NodeKind, meta: Meta, target: Option<OsString>) -> Arc<Node> {
        Arc::new(Node {
            ino,
            kind,
            base: None,
            volatile: false,
            keep: Keep::Whole,
            base_size: 0,
            target,
            local: self.local(ino),
            meta: Mutex::new(meta),
            data: RwLock::new(if kind == NodeKind::File { Data::Whole { durable: false } } else { Data::Base }),
            syncing: Mutex::new(()),
            recorded: AtomicBool::new(true),
            lookups: AtomicU64::new(0),
            sweep: Sweep::default(),
        })
    }

    /// The inode for what the source calls `id`, counted as told to the kernel.
    fn intern(&self, parent: &Node, name: &OsStr, id: FileId) -> Result<Arc<Node>> {
        if let Some(node) = self.names.read().of_base(id) {
            node.lookups.fetch_add(1, Ordering::AcqRel);
            return Ok(node);
        }
        let parent = parent.base.as_ref().ok_or(FsError::Stale)?;
        let node = self.node_of_base(self.new_ino(), Base::child(parent, id, name))?;
        let mut names = self.names.write();
        let node = names.of_base(id).unwrap_or_else(|| names.add(node));
        node.lookups.fetch_add(1, Ordering::AcqRel);
        Ok(node)
    }

    /// The kernel forgets `count` of the times it was told of an inode.
    pub(crate) fn forget(&self, ino: u64, count: u64) {
        if ino == ROOT {
            return;
        }
        let mut names = self.names.write();
        let Some(node) = names.nodes.get(&ino).cloned() else { return };
        if node.lookups.fetch_sub(count, Ordering::AcqRel) != count {
            return;
        }
        if node.is_unlinked() {
            names.remove(&node);
            self.bury(&node);
        } else if node.is_untouched() && !node.recorded.load(Ordering::Acquire) {
            names.remove(&node);
        } else if !matches!(&*node.data.read(), Data::Blocks(blocks) if !blocks.dirty.is_empty()) {
            node.local.release();
        }
    }

    /// Removes the data file of an inode that is gone, once the journal says so durably.
    fn bury(&self, node: &Node) {
        if let Some(upper) = &self.upper
            && !node.is_untouched()
        {
            node.local.release();
            upper.graveyard.lock().push((upper.journal.appended(), node.ino));
        }
    }
}

impl Namespace {
    fn add(&mut self, node: Arc<Node>) -> Arc<Node> {
        if let Some(base) = &node.base {
            self.by_base.insert(base.id, node.ino);
        }
        self.nodes.insert(node.ino, Arc::clone(&node));
        node
    }

    fn remove(&mut self, node: &Node) {
        self.nodes.remove(&node.ino);
        self.changes.remove(&node.ino);
        self.forget_base(node);
    }

    /// The source's file may be met again (by another name of it): then as itself.
    fn forget_base(&mut self, node: &Node) {
        if let Some(base) = &node.base
            && self.by_base.get(&base.id) == Some(&node.ino)
        {
            self.by_base.remove(&base.id);
        }
    }

    fn of_base(&self, id: FileId) -> Option<Arc<Node>> {
        self.nodes.get(self.by_base.get(&id)?).cloned()
    }

    fn change(&self, dir: u64, name: &OsStr) -> Option<&Change> {
        self.changes.get(&dir)?.get(name)
    }

    fn set(&mut self, dir: u64, name: &OsStr, change: Change) {
        self.changes.entry(dir).or_default().insert(name.to_owned(), change);
    }

    fn unset(&mut self, dir: u64, name: &OsStr) {
        if let Some(changes) = self.changes.get_mut(&dir) {
            changes.remove(name);
        }
    }
}

/// The attributes of something made now.
fn fresh_meta(mode: u32, owner: Owner, kind: NodeKind) -> Meta {
    let nlink = if kind == NodeKind::Directory { 2 } else { 1 };
    Meta { mode: mode & 0o7777, uid: owner.uid, gid: owner.gid, nlink, modified: SystemTime::now() }
}

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;
