//! Where a file's bytes come from, and how they are got.
//!
//! From: `view::read`, which has a [`Content`] and a byte range.  To: `view::stored` (copied bytes, WAL segments), `view::moment` (rebuilt pages).
//! Objects are opened when first read, so that a view of 100,000 files opens none.

use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use crate::advice::Advice;
use crate::pg::{Fork, SegmentSize, WalSegment};
use crate::repo::layout::ClusterFolder;
use crate::repo::manifest::Place;
use crate::repo::{ObjectKind, RepoError};
use crate::view::file_class::{RelationFile, Slru};
use crate::view::moment::MomentError;
use crate::view::stored::{StoredObjects, StoredStream};
use crate::view::synth::segment::CraftedSegment;

/// Where the bytes of one file come from.
#[derive(Debug, Clone)]
pub enum Content {
    /// Made by us: settings, labels.
    Made(Bytes),
    /// As the backup copied it; `None` for an empty file.
    Copied(Option<Place>),
    /// An archived WAL segment, by its file name (`.partial` ones too).
    Segment(Arc<str>),
    /// The segment that a server starts from: bytes of the archived `parent`, then ours.
    Crafted { segment: Arc<CraftedSegment>, parent: Arc<str> },
    /// Pages of a relation at a moment.
    Relation(RelationContent),
    /// Pages of an SLRU at a moment.
    Slru { slru: Slru, segment: u64 },
}

/// A file of relation pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelationContent {
    pub file: RelationFile,
    /// The fork whose pages it shows: an unlogged relation's main fork shows its init fork.
    pub shows: Fork,
}

/// Bytes of a file that could not be had.
#[derive(Debug, Error)]
pub enum ReadError {
    #[error(transparent)]
    Repo(#[from] RepoError),
    #[error(transparent)]
    Moment(#[from] MomentError),
}

impl Advice for ReadError {
    fn detail(&self) -> Option<String> {
        match self {
            ReadError::Repo(e) => e.detail(),
            ReadError::Moment(e) => e.detail(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            ReadError::Repo(e) => e.hint(),
            ReadError::Moment(e) => e.hint(),
        }
    }
}

/// The stored side of a view: one backup's data and the cluster's WAL.
#[derive(Debug, Clone)]
pub struct StoredFiles {
    pub shared: Arc<StoredObjects>,
    pub folder: ClusterFolder,
    /// Label of the backup that [`Content::Copied`] means.
    pub label: String,
}

impl StoredFiles {
    /// Fills `buf` with the bytes of `content` from `offset` on; the caller has cut it to the file's length. Pages of a moment are not stored: see
    /// [`crate::view::read::View`].
    ///
    /// # Errors
    /// Those of the repository.
    pub fn read_stored(&self, content: &Content, offset: u64, buf: &mut [u8]) -> Result<(), RepoError> {
        match content {
            Content::Made(bytes) => copy_made(bytes, offset, buf),
            Content::Copied(Some(place)) => self.copied(place.object)?.read(place.offset.saturating_add(offset), buf)?,
            Content::Segment(file) => self.segment(file)?.read(offset, buf)?,
            Content::Crafted { segment, parent } => segment.read(offset, buf, |at, kept| self.segment(parent)?.read(at, kept))?,
            Content::Copied(None) | Content::Relation(_) | Content::Slru { .. } => buf.fill(0),
        }
        Ok(())
    }

    /// Like [`StoredFiles::read_stored`] if no byte must be fetched; else `false`.
    pub fn read_ready(&self, content: &Content, offset: u64, buf: &mut [u8]) -> bool {
        match content {
            Content::Made(bytes) => {
                copy_made(bytes, offset, buf);
                true
            }
            Content::Copied(None) => true,
            Content::Crafted { .. } | Content::Relation(_) | Content::Slru { .. } => false,
            Content::Copied(Some(place)) => {
                let key = self.folder.backup_data(&self.label, place.object);
                self.shared.read_ready(&key, place.offset.saturating_add(offset), buf)
            }
            Content::Segment(file) => self.shared.read_ready(&self.folder.segment_file(file), offset, buf),
        }
    }

    /// The main stream of one of the backup's objects.
    ///
    /// # Errors
    /// Those of the repository.
    pub fn copied(&self, object: u32) -> Result<StoredStream, RepoError> {
        self.shared.open(&self.folder.backup_data(&self.label, object), ObjectKind::BackupData)
    }

    /// The main stream of an archived segment.
    ///
    /// # Errors
    /// Those of the repository.
    pub fn segment(&self, file: &str) -> Result<StoredStream, RepoError> {
        self.shared.open(&self.folder.segment_file(file), ObjectKind::WalSegment)
    }

    /// The same by number.
    ///
    /// # Errors
    /// Those of the repository.
    pub fn wal_segment(&self, segment: WalSegment, size: SegmentSize) -> Result<StoredStream, RepoError> {
        self.segment(&segment.name(size))
    }
}

fn copy_made(bytes: &Bytes, offset: u64, buf: &mut [u8]) {
    let rest = usize::try_from(offset).ok().and_then(|from| bytes.get(from..)).unwrap_or_default();
    let len = rest.len().min(buf.len());
    buf[..len].copy_from_slice(&rest[..len]);
    buf[len..].fill(0);
}
