//! A view as `bygone_mount` sees it: a tree of files whose bytes are got when they are read.
//!
//! From: the mount's threads.  To: `view::tree` (names, lengths), `view::content` (bytes).

use std::ffi::{OsStr, OsString};

use bygone_mount::{Attr, Entry, FileId, Keep, Kind as FileKind, Source, SourceError};

use crate::view::content::{Content, ReadError, StoredFiles};
use crate::view::file_class::{FileClass, classify};
use crate::view::moment::Moment;
use crate::view::tree::{Kind, NodeNo, ROOT, Tree};

/// Files up to this size are kept whole when they are written to (`Keep::Whole`), bytes.
const WHOLE_UP_TO: u64 = 64 << 10;

/// A file with how writes to it are kept.
#[derive(Debug, Clone)]
pub struct FileContent {
    pub content: Content,
    pub keep: Keep,
}

impl FileContent {
    /// Decides from the path how writes are kept: relation files block by block, all else (WAL segments above all) whole.
    #[must_use]
    pub fn at(path: &str, len_bytes: u64, content: Content) -> FileContent {
        let blocks = matches!(classify(path), FileClass::Relation(_)) && len_bytes > WHOLE_UP_TO;
        FileContent { content, keep: if blocks { Keep::Blocks } else { Keep::Whole } }
    }
}

/// A read-only data directory.
#[derive(Debug)]
pub struct View {
    pub tree: Tree<FileContent>,
    pub files: StoredFiles,
    /// What rebuilds pages; a view of copied files has none.
    pub moment: Option<Moment>,
    /// User and group that everything belongs to.
    pub owner: (u32, u32),
}

fn node_no(id: FileId) -> NodeNo {
    NodeNo(u32::try_from(id.0).unwrap_or(u32::MAX))
}

fn file_id(no: NodeNo) -> FileId {
    FileId(u64::from(no.0))
}

fn file_kind(kind: &Kind<FileContent>) -> FileKind {
    match kind {
        Kind::Directory(_) => FileKind::Directory,
        Kind::File { .. } => FileKind::File,
        Kind::Symlink(_) => FileKind::Symlink,
    }
}

impl View {
    fn file(&self, id: FileId) -> Option<(u64, &FileContent)> {
        match &self.tree.node(node_no(id))?.kind {
            Kind::File { len_bytes, content } => Some((*len_bytes, content)),
            _ => None,
        }
    }

    fn read_content(&self, content: &Content, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        match (content, &self.moment) {
            (Content::Relation(relation), Some(moment)) => moment.read_relation(relation, offset, buf)?,
            (Content::Slru { slru, segment }, Some(moment)) => moment.read_slru(*slru, *segment, offset, buf)?,
            _ => self.files.read_stored(content, offset, buf)?,
        }
        Ok(())
    }

    /// Cuts a request to the file's length.
    fn cut(len_bytes: u64, offset: u64, wanted: usize) -> usize {
        usize::try_from(len_bytes.saturating_sub(offset)).unwrap_or(usize::MAX).min(wanted)
    }
}

impl Source for View {
    fn root(&self) -> FileId {
        file_id(ROOT)
    }

    fn attr(&self, id: FileId) -> Result<Attr, SourceError> {
        let node = self.tree.node(node_no(id)).ok_or(SourceError::NotFound)?;
        let (size, keep) = match &node.kind {
            Kind::File { len_bytes, content } => (*len_bytes, content.keep),
            Kind::Symlink(target) => (target.as_os_str().len() as u64, Keep::Whole),
            Kind::Directory(_) => (0, Keep::Whole),
        };
        let (uid, gid) = self.owner;
        Ok(Attr { kind: file_kind(&node.kind), size, mode: node.stat.mode, uid, gid, modified: node.stat.modified, keep })
    }

    fn lookup(&self, dir: FileId, name: &OsStr) -> Result<FileId, SourceError> {
        self.tree.child(node_no(dir), name).map(file_id).ok_or(SourceError::NotFound)
    }

    fn lookup_ready(&self, dir: FileId, name: &OsStr) -> Option<Result<FileId, SourceError>> {
        Some(self.lookup(dir, name))
    }

    fn list(&self, dir: FileId) -> Result<Vec<Entry>, SourceError> {
        let Some(Kind::Directory(entries)) = self.tree.node(node_no(dir)).map(|node| &node.kind) else {
            return Err(SourceError::NotFound);
        };
        let entry = |(name, &no): (&OsString, &NodeNo)| {
            let node = self.tree.node(no)?;
            Some(Entry { name: name.clone(), id: file_id(no), kind: file_kind(&node.kind) })
        };
        Ok(entries.iter().filter_map(entry).collect())
    }

    fn read_link(&self, id: FileId) -> Result<OsString, SourceError> {
        match self.tree.node(node_no(id)).map(|node| &node.kind) {
            Some(Kind::Symlink(target)) => Ok(target.clone().into_os_string()),
            _ => Err(SourceError::NotFound),
        }
    }

    fn read(&self, id: FileId, offset: u64, buf: &mut [u8]) -> Result<usize, SourceError> {
        let (len_bytes, file) = self.file(id).ok_or(SourceError::NotFound)?;
        let len = Self::cut(len_bytes, offset, buf.len());
        self.read_content(&file.content, offset, &mut buf[..len]).map_err(|e| SourceError::Unreadable(Box::new(e)))?;
        Ok(len)
    }

    fn read_ready(&self, id: FileId, offset: u64, buf: &mut [u8]) -> Option<usize> {
        let (len_bytes, file) = self.file(id)?;
        let len = Self::cut(len_bytes, offset, buf.len());
        self.files.read_ready(&file.content, offset, &mut buf[..len]).then_some(len)
    }
}
