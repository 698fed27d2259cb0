//! Which files a view has: a tree of named nodes, each with what `stat` shows and where its bytes come from.
//!
//! Built once by `view::native` or `view::moment`, then only read. Generic over the content, so that it can be tested without any.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Index of a node in its [`Tree`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeNo(pub u32);

/// The top directory of every tree.
pub const ROOT: NodeNo = NodeNo(0);

/// What `stat` shows besides the kind and the length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Permission bits.
    pub mode: u32,
    pub modified: SystemTime,
}

/// What a node is.
#[derive(Debug, Clone)]
pub enum Kind<C> {
    Directory(BTreeMap<OsString, NodeNo>),
    /// Length in bytes, and where they come from.
    File {
        len_bytes: u64,
        content: C,
    },
    Symlink(PathBuf),
}

/// One file, directory or link.
#[derive(Debug, Clone)]
pub struct Node<C> {
    pub stat: Stat,
    pub kind: Kind<C>,
}

/// A tree of nodes; node 0 is the top directory.
#[derive(Debug, Clone)]
pub struct Tree<C> {
    nodes: Vec<Node<C>>,
}

impl<C> Tree<C> {
    /// A tree that holds only its top directory.
    #[must_use]
    pub fn new(top: Stat) -> Tree<C> {
        Tree { nodes: vec![Node { stat: top, kind: Kind::Directory(BTreeMap::new()) }] }
    }

    /// The node with this number, if there is one.
    #[must_use]
    pub fn node(&self, no: NodeNo) -> Option<&Node<C>> {
        self.nodes.get(no.0 as usize)
    }

    /// The entry `name` of directory `dir`.
    #[must_use]
    pub fn child(&self, dir: NodeNo, name: &OsStr) -> Option<NodeNo> {
        match &self.node(dir)?.kind {
            Kind::Directory(entries) => entries.get(name).copied(),
            _ => None,
        }
    }

    /// The node at a path relative to the top (empty: the top itself).
    #[must_use]
    pub fn find(&self, path: impl AsRef<Path>) -> Option<NodeNo> {
        path.as_ref().iter().try_fold(ROOT, |dir, name| self.child(dir, name))
    }

    /// Puts a node at `path`, in place of what stood there. Directories on the way that do not exist are made like the top one.
    ///
    /// A directory put over a directory keeps its entries and takes the new `stat`.
    pub fn put(&mut self, path: impl AsRef<Path>, stat: Stat, kind: Kind<C>) -> NodeNo {
        let (parent, name) = parent_and_name(path.as_ref());
        let dir = self.make_directories(parent);
        match (self.child(dir, name), &kind) {
            (Some(old), Kind::Directory(_)) if matches!(self.nodes[old.0 as usize].kind, Kind::Directory(_)) => {
                self.nodes[old.0 as usize].stat = stat;
                old
            }
            _ => self.add(dir, name, Node { stat, kind }),
        }
    }

    /// Takes the entry at `path` out of its directory; no error if there is none.
    pub fn remove(&mut self, path: impl AsRef<Path>) {
        let (parent, name) = parent_and_name(path.as_ref());
        if let Some(NodeNo(dir)) = self.find(parent)
            && let Some(Node { kind: Kind::Directory(entries), .. }) = self.nodes.get_mut(dir as usize)
        {
            entries.remove(name);
        }
    }

    /// Everything below the top with its path, each directory before its entries, names in byte order.
    pub fn walk(&self, each: &mut impl FnMut(&Path, NodeNo, &Node<C>)) {
        self.walk_below(ROOT, &mut PathBuf::new(), each);
    }

    fn walk_below(&self, dir: NodeNo, path: &mut PathBuf, each: &mut impl FnMut(&Path, NodeNo, &Node<C>)) {
        let Some(Node { kind: Kind::Directory(entries), .. }) = self.node(dir) else { return };
        for (name, &no) in entries {
            let Some(node) = self.node(no) else { continue };
            path.push(name);
            each(path, no, node);
            self.walk_below(no, path, each);
            path.pop();
        }
    }

    fn make_directories(&mut self, path: &Path) -> NodeNo {
        let stat = self.nodes[0].stat;
        path.iter().fold(ROOT, |dir, name| {
            self.child(dir, name).unwrap_or_else(|| self.add(dir, name, Node { stat, kind: Kind::Directory(BTreeMap::new()) }))
        })
    }

    fn add(&mut self, dir: NodeNo, name: &OsStr, node: Node<C>) -> NodeNo {
        let no = NodeNo(u32::try_from(self.nodes.len()).expect("a tree of four billion nodes does not fit in memory"));
        self.nodes.push(node);
        if let Some(Node { kind: Kind::Directory(entries), .. }) = self.nodes.get_mut(dir.0 as usize) {
            entries.insert(name.to_owned(), no);
        }
        no
    }
}

/// A path with no last name (empty, `/`) stands for the top directory itself, which has no entry to put or remove.
fn parent_and_name(path: &Path) -> (&Path, &OsStr) {
    (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: Stat = Stat { mode: 0o700, modified: SystemTime::UNIX_EPOCH };

    fn file(content: u8) -> Kind<u8> {
        Kind::File { len_bytes: 1, content }
    }

    #[test]
    fn what_was_put_is_found_by_path() {
        let mut tree = Tree::new(STAT);
        let no = tree.put("base/5/16384", STAT, file(1));
        assert_eq!(tree.find("base/5/16384"), Some(no));
        assert_eq!(tree.find(""), Some(ROOT));
        assert_eq!(tree.find("base/6"), None);
        tree.remove("base/5/16384");
        assert_eq!(tree.find("base/5/16384"), None);
    }

    #[test]
    fn a_directory_put_again_keeps_its_entries() {
        let mut tree = Tree::new(STAT);
        tree.put("base/5/16384", STAT, file(1));
        tree.put("base/5", Stat { mode: 0o750, ..STAT }, Kind::Directory(BTreeMap::new()));
        assert!(tree.find("base/5/16384").is_some());
    }

    #[test]
    fn walking_gives_whole_paths_in_order() {
        let mut tree = Tree::new(STAT);
        for path in ["b", "a/2", "a/1"] {
            tree.put(path, STAT, file(0));
        }
        let mut seen = Vec::new();
        tree.walk(&mut |path, _, _| seen.push(path.to_owned()));
        assert_eq!(seen, ["a", "a/1", "a/2", "b"].map(PathBuf::from));
    }
}
