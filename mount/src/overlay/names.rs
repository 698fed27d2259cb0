//! Names: what a directory shows, and every change of it.
//!
//! What the source has under a name never changes, so it is asked before any lock is taken and stays right.
//! Every change is one frame of the journal, appended under the namespace's lock together with the change in memory: atomic, and in order.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use super::format::{Meta, NodeKind, OnDiskRecord as Record};
use super::node::{Node, Stat};
use super::{Change, Namespace, Overlay, Owner, Point, Result, Upper, fresh_meta};
use crate::error::FsError;
use crate::source::{FileId, SourceError};

const MAX_NAME: usize = 255;

/// One entry of a directory as it is shown.
pub(crate) struct Listed {
    pub(crate) name: OsString,
    pub(crate) kind: NodeKind,
    target: Target,
}

#[derive(Clone, Copy)]
enum Target {
    Node(u64),
    Base(FileId),
}

/// What to make.
pub(crate) struct Creation {
    pub(crate) kind: NodeKind,
    pub(crate) mode: u32,
    pub(crate) owner: Owner,
    /// Where a symbolic link points.
    pub(crate) target: Option<OsString>,
}

/// Attributes to change.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SetAttr {
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) modified: Option<SystemTime>,
}

impl Overlay {
    /// What `name` leads to, if that is known without waiting. The inode counts as told to the kernel.
    pub(crate) fn lookup_ready(&self, dir: u64, name: &OsStr) -> Option<Result<Arc<Node>>> {
        match self.known(dir, name) {
            Err(error) => Some(Err(error)),
            Ok(Known::Node(node)) => Some(Ok(node)),
            Ok(Known::Ask(dir, id)) => match self.source.lookup_ready(id, name)? {
                Ok(found) => Some(self.intern(&dir, name, found)),
                Err(error) => Some(Err(error.into())),
            },
        }
    }

    /// What `name` leads to. May wait for the source. The inode counts as told to the kernel.
    pub(crate) fn lookup(&self, dir: u64, name: &OsStr) -> Result<Arc<Node>> {
        match self.known(dir, name)? {
            Known::Node(node) => Ok(node),
            Known::Ask(dir, id) => self.intern(&dir, name, self.source.lookup(id, name)?),
        }
    }

    fn known(&self, dir: u64, name: &OsStr) -> Result<Known> {
        if name.len() > MAX_NAME {
            return Err(FsError::NameTooLong);
        }
        let names = self.names.read();
        let dir = names.directory(dir)?;
        match (names.change(dir.ino, name), &dir.base) {
            (Some(Change::Entry { ino, .. }), _) => {
                let node = names.nodes.get(ino).ok_or(FsError::Stale)?;
                node.lookups.fetch_add(1, Ordering::AcqRel);
                Ok(Known::Node(Arc::clone(node)))
            }
            (Some(Change::Gone), _) | (None, None) => Err(FsError::NotFound),
            (None, Some(base)) => {
                let id = base.id;
                Ok(Known::Ask(dir, id))
            }
        }
    }

    /// What a directory shows. May wait for the source.
    pub(crate) fn list(&self, dir: u64) -> Result<Vec<Listed>> {
        let node = self.names.read().directory(dir)?;
        let base = match &node.base {
            Some(base) => self.source.list(base.id)?,
            None => Vec::new(),
        };
        let names = self.names.read();
        let none = BTreeMap::new();
        let changes = names.changes.get(&dir).unwrap_or(&none);
        let of_base = base.into_iter().filter(|entry| !changes.contains_key(&entry.name));
        let mut listed: Vec<Listed> =
            of_base.map(|entry| Listed { name: entry.name, kind: entry.kind.into(), target: Target::Base(entry.id) }).collect();
        for (name, change) in changes {
            if let Change::Entry { ino, .. } = change
                && let Some(node) = names.nodes.get(ino)
            {
                listed.push(Listed { name: name.clone(), kind: node.kind, target: Target::Node(*ino) });
            }
        }
        Ok(listed)
    }

    /// The inode of an entry, counted as told to the kernel.
    pub(crate) fn listed_node(&self, dir: u64, entry: &Listed) -> Result<Arc<Node>> {
        match entry.target {
            Target::Base(id) => self.intern(&*self.node(dir)?, &entry.name, id),
            Target::Node(ino) => {
                let names = self.names.read();
                let node = names.nodes.get(&ino).ok_or(FsError::NotFound)?;
                node.lookups.fetch_add(1, Ordering::AcqRel);
                Ok(Arc::clone(node))
            }
        }
    }

    /// The number of an entry's inode, if it has one yet.
    pub(crate) fn listed_ino(&self, entry: &Listed) -> Option<u64> {
        match entry.target {
            Target::Node(ino) => Some(ino),
            Target::Base(id) => self.names.read().by_base.get(&id).copied(),
        }
    }

    /// Where a symbolic link points. May wait for the source.
    pub(crate) fn read_link(&self, node: &Node) -> Result<OsString> {
        match (&node.target, &node.base) {
            (Some(target), _) => Ok(target.clone()),
            (None, Some(base)) if node.kind == NodeKind::Symlink => Ok(self.source.read_link(base.id)?),
            _ => Err(FsError::Invalid),
        }
    }

    /// What the source has under a name of this directory. May wait.
    fn base_entry(&self, dir: &Node, name: &OsStr) -> Result<Option<FileId>> {
        if name.len() > MAX_NAME {
            return Err(FsError::NameTooLong);
        }
        if dir.volatile {
            return Err(FsError::NotPermitted);
        }
        let Some(base) = &dir.base else { return Ok(None) };
        match self.source.lookup_ready(base.id, name).unwrap_or_else(|| self.source.lookup(base.id, name)) {
            Ok(id) => Ok(Some(id)),
            Err(SourceError::NotFound) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes something new. May wait for the source. The inode counts as told to the kernel.
    pub(crate) fn create(&self, dir: u64, name: &OsStr, creation: Creation) -> Result<Arc<Node>> {
        let upper = self.upper()?;
        let dir = self.node(dir)?;
        let base = self.base_entry(&dir, name)?;
        let kind = creation.kind;
        let node = self.node_of_ours(self.new_ino(), kind, fresh_meta(creation.mode, creation.owner, kind), creation.target);
        if kind == NodeKind::File {
            drop(node.local.get()?);
        }
        let added = self.add_new(upper, &dir, name, base, &node);
        if added.is_err() && kind == NodeKind::File {
            self.bury(&node);
        }
        added.map(|()| node)
    }

    fn add_new(&self, upper: &Upper, dir: &Arc<Node>, name: &OsStr, base: Option<FileId>, node: &Arc<Node>) -> Result<()> {
        let mut names = self.names.write();
        names.must_be_free(dir, name, base)?;
        let mut frame = Frame::default();
        frame.adopt(dir);
        frame.records.push(node_record(node));
        frame.name(dir, name, node.ino, base.is_some());
        frame.append(upper)?;
        node.lookups.fetch_add(1, Ordering::AcqRel);
        names.add(Arc::clone(node));
        names.set(dir.ino, name, Change::Entry { ino: node.ino, hides: base.is_some() });
        dir.touch();
        Ok(())
    }

    /// Gives a file one more name. May wait for the source. The inode counts as told to the kernel.
    pub(crate) fn link(&self, ino: u64, dir: u64, name: &OsStr) -> Result<Arc<Node>> {
        let upper = self.upper()?;
        let (node, dir) = (self.node(ino)?, self.node(dir)?);
        let base = self.base_entry(&dir, name)?;
        let mut names = self.names.write();
        if node.volatile || node.kind == NodeKind::Directory {
            return Err(FsError::NotPermitted);
        }
        if node.is_unlinked() {
            return Err(FsError::NotFound);
        }
        names.must_be_free(&dir, name, base)?;
        let mut frame = Frame::default();
        frame.adopt(&dir);
        frame.adopt(&node);
        frame.name(&dir, name, ino, base.is_some());
        let old = *node.meta.lock();
        let meta = Meta { nlink: old.nlink + 1, ..old };
        frame.records.push(Record::Attr { ino, meta });
        frame.append(upper)?;
        *node.meta.lock() = meta;
        names.set(dir.ino, name, Change::Entry { ino, hides: base.is_some() });
        node.lookups.fetch_add(1, Ordering::AcqRel);
        Ok(Arc::clone(&node))
    }

    /// Removes a name; `directory` says what it must lead to. May wait for the source.
    pub(crate) fn unlink(&self, dir: u64, name: &OsStr, directory: bool) -> Result<()> {
        let upper = self.upper()?;
        let dir = self.node(dir)?;
        let base = self.base_entry(&dir, name)?;
        let inside = if directory { self.base_names(&dir, name, base)? } else { Vec::new() };
        let mut names = self.names.write();
        let found = names.visible(&dir, name, base)?.ok_or(FsError::NotFound)?;
        let node = self.removable(&names, found, directory, &inside)?;
        let mut frame = Frame::default();
        frame.adopt(&dir);
        frame.remove_name(&dir, name, base.is_some());
        frame.unlink(node.as_deref());
        frame.append(upper)?;
        names.remove_name(&dir, name, base.is_some());
        self.unlinked(&mut names, node);
        dir.touch();
        Ok(())
    }

    /// Moves a name, over another if there is one and `replace` allows it. May wait for the source.
    pub(crate) fn rename(&self, from: (u64, &OsStr), to: (u64, &OsStr), replace: bool) -> Result<()> {
        let upper = self.upper()?;
        let (from_dir, to_dir) = (self.node(from.0)?, self.node(to.0)?);
        let (from_base, to_base) = (self.base_entry(&from_dir, from.1)?, self.base_entry(&to_dir, to.1)?);
        let inside = self.base_names(&to_dir, to.1, to_base)?;
        let moved = self.lookup_uncounted(&from_dir, from.1, from_base)?;
        let mut names = self.names.write();
        let found = names.visible(&from_dir, from.1, from_base)?.ok_or(FsError::NotFound)?;
        if names.node_of(found).is_none_or(|node| node.ino != moved.ino) {
            return Err(FsError::NotFound);
        }
        if moved.volatile {
            return Err(FsError::NotPermitted);
        }
        let target = names.visible(&to_dir, to.1, to_base)?;
        let replaced = match target {
            Some(_) if !replace => return Err(FsError::Exists),
            Some(target) if names.node_of(target).is_some_and(|node| node.ino == moved.ino) => return Ok(()),
            Some(target) => self.removable(&names, target, moved.kind == NodeKind::Directory, &inside)?,
            None => None,
        };
        let mut frame = Frame::default();
        frame.adopt(&from_dir);
        frame.adopt(&to_dir);
        frame.adopt(&moved);
        frame.remove_name(&from_dir, from.1, from_base.is_some());
        frame.name(&to_dir, to.1, moved.ino, to_base.is_some());
        frame.unlink(replaced.as_deref());
        frame.append(upper)?;
        names.remove_name(&from_dir, from.1, from_base.is_some());
        names.set(to_dir.ino, to.1, Change::Entry { ino: moved.ino, hides: to_base.is_some() });
        self.unlinked(&mut names, replaced);
        from_dir.touch();
        to_dir.touch();
        Ok(())
    }

    /// The node behind a visible name, made if the kernel did not ask for it yet.
    fn lookup_uncounted(&self, dir: &Arc<Node>, name: &OsStr, base: Option<FileId>) -> Result<Arc<Node>> {
        let found = self.names.read().visible(dir, name, base)?.ok_or(FsError::NotFound)?;
        let known = self.names.read().node_of(found);
        match (known, found) {
            (Some(node), _) => Ok(node),
            (None, Target::Base(id)) => {
                let node = self.intern(dir, name, id)?;
                node.lookups.fetch_sub(1, Ordering::AcqRel);
                Ok(node)
            }
            (None, Target::Node(_)) => Err(FsError::Stale),
        }
    }

    /// What the source has in the directory that `name` leads to: all of it must be hidden before that may go. May wait.
    fn base_names(&self, dir: &Arc<Node>, name: &OsStr, base: Option<FileId>) -> Result<Vec<OsString>> {
        let found = self.names.read().visible(dir, name, base)?;
        let id = match found {
            Some(Target::Base(id)) => Some(id),
            Some(Target::Node(ino)) => self.node(ino)?.base.as_ref().map(|base| base.id),
            None => None,
        };
        match id {
            Some(id) if self.source.attr(id)?.kind == crate::source::Kind::Directory => {
                Ok(self.source.list(id)?.into_iter().map(|entry| entry.name).collect())
            }
            _ => Ok(Vec::new()),
        }
    }

    /// The node behind `found`, if it is one, provided that it may be removed.
    fn removable(&self, names: &Namespace, found: Target, directory: bool, inside: &[OsString]) -> Result<Option<Arc<Node>>> {
        let node = names.node_of(found);
        let (kind, volatile) = match (&node, found) {
            (Some(node), _) => (node.kind, node.volatile),
            (None, Target::Base(id)) => (self.source.attr(id)?.kind.into(), self.source.volatile(id)),
            (None, Target::Node(_)) => return Err(FsError::Stale),
        };
        let none = BTreeMap::new();
        let changes = node.as_ref().and_then(|node| names.changes.get(&node.ino)).unwrap_or(&none);
        match (kind == NodeKind::Directory, directory) {
            _ if volatile => Err(FsError::NotPermitted),
            (true, false) => Err(FsError::IsADirectory),
            (false, true) => Err(FsError::NotADirectory),
            (true, true) if changes.values().any(|change| *change != Change::Gone) => Err(FsError::NotEmpty),
            (true, true) if inside.iter().any(|name| !changes.contains_key(name)) => Err(FsError::NotEmpty),
            _ => Ok(node),
        }
    }

    /// Takes one link off a node whose name is gone, and the node away if it was the last and the kernel does not hold it.
    fn unlinked(&self, names: &mut Namespace, node: Option<Arc<Node>>) {
        let Some(node) = node else { return };
        let left = {
            let mut meta = node.meta.lock();
            meta.nlink = links_after_unlink(&node, meta.nlink);
            meta.nlink
        };
        if left > 0 {
            return;
        }
        names.forget_base(&node);
        if node.lookups.load(Ordering::Acquire) == 0 {
            names.remove(&node);
            self.bury(&node);
        }
    }

    /// Changes attributes other than the length.
    pub(crate) fn set_attr(&self, node: &Node, set: &SetAttr) -> Result<Stat> {
        let upper = self.upper()?;
        if node.volatile {
            return Err(FsError::NotPermitted);
        }
        let has_file = !node.is_untouched() && node.kind == NodeKind::File;
        if let Some(time) = set.modified
            && has_file
        {
            node.local.get()?.set_modified(time)?;
        }
        let only_time = set.mode.is_none() && set.uid.is_none() && set.gid.is_none();
        let names = self.names.write();
        let mut meta = *node.meta.lock();
        meta.mode = set.mode.map_or(meta.mode, |mode| mode & 0o7777);
        meta.uid = set.uid.unwrap_or(meta.uid);
        meta.gid = set.gid.unwrap_or(meta.gid);
        meta.modified = set.modified.unwrap_or(meta.modified);
        // The time of a file with a data file is that file's own: no record, and so no second sync, for a time alone.
        if !(only_time && has_file) && meta.nlink > 0 {
            let mut frame = Frame::default();
            frame.adopt(node);
            frame.records.push(Record::Attr { ino: node.ino, meta });
            frame.append(upper)?;
        }
        *node.meta.lock() = meta;
        drop(names);
        Ok(node.stat()?)
    }
}

impl SetAttr {
    /// Whether it changes anything.
    pub(crate) fn is_some(&self) -> bool {
        self.mode.is_some() || self.uid.is_some() || self.gid.is_some() || self.modified.is_some()
    }
}

enum Known {
    Node(Arc<Node>),
    Ask(Arc<Node>, FileId),
}

impl Namespace {
    fn directory(&self, ino: u64) -> Result<Arc<Node>> {
        let node = self.nodes.get(&ino).ok_or(FsError::Stale)?;
        if node.kind == NodeKind::Directory { Ok(Arc::clone(node)) } else { Err(FsError::NotADirectory) }
    }

    /// What a name leads to, given what the source has under it.
    fn visible(&self, dir: &Node, name: &OsStr, base: Option<FileId>) -> Result<Option<Target>> {
        if dir.kind != NodeKind::Directory {
            return Err(FsError::NotADirectory);
        }
        Ok(match self.change(dir.ino, name) {
            Some(Change::Entry { ino, .. }) => Some(Target::Node(*ino)),
            Some(Change::Gone) => None,
            None => base.map(Target::Base),
        })
    }

    fn node_of(&self, target: Target) -> Option<Arc<Node>> {
        match target {
            Target::Node(ino) => self.nodes.get(&ino).cloned(),
            Target::Base(id) => self.of_base(id),
        }
    }

    fn must_be_free(&self, dir: &Node, name: &OsStr, base: Option<FileId>) -> Result<()> {
        if dir.is_unlinked() {
            return Err(FsError::NotFound);
        }
        if self.visible(dir, name, base)?.is_some() { Err(FsError::Exists) } else { Ok(()) }
    }

    fn remove_name(&mut self, dir: &Node, name: &OsStr, in_base: bool) {
        if in_base {
            self.set(dir.ino, name, Change::Gone);
        } else {
            self.unset(dir.ino, name);
        }
    }
}

fn links_after_unlink(node: &Node, nlink: u32) -> u32 {
    if node.kind == NodeKind::Directory { 0 } else { nlink.saturating_sub(1) }
}

/// The record that makes an inode known to the journal.
pub(super) fn node_record(node: &Node) -> Record {
    let base = node.base.as_ref().map(|base| base.path());
    Record::Node { ino: node.ino, kind: node.kind, meta: *node.meta.lock(), base, target: node.target.clone() }
}

/// The records of one change, and the nodes that they make known.
#[derive(Default)]
pub(super) struct Frame<'a> {
    pub(super) records: Vec<Record>,
    adopted: Vec<&'a Node>,
}

impl<'a> Frame<'a> {
    /// Makes sure that the journal knows the node before something is said of it.
    pub(super) fn adopt(&mut self, node: &'a Node) {
        let known = node.recorded.load(Ordering::Acquire) || self.adopted.iter().any(|adopted| adopted.ino == node.ino);
        if !known {
            self.records.push(node_record(node));
            self.adopted.push(node);
        }
    }

    fn name(&mut self, dir: &Node, name: &OsStr, ino: u64, hides: bool) {
        self.records.push(Record::Name { dir: dir.ino, name: name.to_owned(), ino, hides });
    }

    fn remove_name(&mut self, dir: &Node, name: &OsStr, in_base: bool) {
        let (dir, name) = (dir.ino, name.to_owned());
        self.records.push(if in_base { Record::Gone { dir, name } } else { Record::Drop { dir, name } });
    }

    fn unlink(&mut self, node: Option<&Node>) {
        if let Some(node) = node
            && node.recorded.load(Ordering::Acquire)
        {
            let meta = *node.meta.lock();
            self.records.push(Record::Attr { ino: node.ino, meta: Meta { nlink: links_after_unlink(node, meta.nlink), ..meta } });
        }
    }

    fn append(self, upper: &Upper) -> Result<()> {
        self.append_as(upper, false).map(drop)
    }

    pub(super) fn append_for_sync(self, upper: &Upper) -> Result<Point> {
        self.append_as(upper, true)
    }

    fn append_as(self, upper: &Upper, for_sync: bool) -> Result<Point> {
        let point = upper.journal.append(&self.records, for_sync)?;
        for node in self.adopted {
            node.recorded.store(true, Ordering::Release);
        }
        Ok(point)
    }
}
