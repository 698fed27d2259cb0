//! A moment that is ready to be read: what it knows of its pages, and why one could not be had.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::MomentError;
use super::references::References;
use crate::format::index::WalChunk;
use crate::pg::relation::{BLCKSZ, RELSEG_BLOCKS};
use crate::pg::{BlockTag, Lsn};
use crate::repo::RepoError;
use crate::repo::manifest::Place;
use crate::view::content::{Content, StoredFiles};
use crate::view::file_class::{RelationFile, Slru};
use crate::view::fold::Cluster;
use crate::view::locate::{BlockIndex, Recipe, Reference, locate};
use crate::view::page::PageRules;
use crate::view::relations::Fork;
use crate::view::slru::{BasePages, PAGES_PER_SEGMENT};
use crate::view::wal::ArchivedWal;

/// Copied relation files: where each lies, and how long it is.
pub(super) type CopiedRelations = HashMap<RelationFile, (Option<Place>, u64)>;

/// Copied SLRU segments, likewise.
pub(super) type CopiedSlruFiles = HashMap<(Slru, u64), (Option<Place>, u64)>;

/// A moment, ready to be read.
#[derive(Debug)]
pub struct Moment {
    pub(super) files: StoredFiles,
    pub(super) wal: ArchivedWal,
    pub(super) cluster: Cluster<CopiedSlrus>,
    pub(super) references: References,
    /// Where the last record before the moment begins.
    pub(super) last_record: Lsn,
    pub(super) relations: CopiedRelations,
    pub(super) rules: PageRules,
    /// Redo of the backup begins here: nothing older is needed.
    pub(super) redo_start: Lsn,
    pub(super) rebuilt_pages: AtomicU64,
    pub(super) applied_records: AtomicU64,
}

impl Moment {
    /// How a page is rebuilt.
    ///
    /// # Errors
    /// [`MomentError::BeyondEnd`] if the relation is shorter; those of the index.
    pub fn recipe(&self, tag: BlockTag) -> Result<Recipe, MomentError> {
        locate(self, tag, self.fork(tag)?, self.rules.until, self.redo_start)
    }

    /// The fork that a page belongs to.
    pub(super) fn fork(&self, tag: BlockTag) -> Result<&Fork, MomentError> {
        let fork = self.cluster.relations.fork(tag.rel, tag.fork).filter(|fork| tag.block < fork.blocks);
        fork.ok_or(MomentError::BeyondEnd { tag })
    }

    /// The chunks of WAL that [`Moment::recipe`] reads to find a page's records; not those of databases it was copied from.
    ///
    /// # Errors
    /// [`MomentError`]: an index cannot be read.
    pub fn record_chunks(&self, tag: BlockTag) -> Result<Vec<WalChunk>, MomentError> {
        let Some(fork) = self.cluster.relations.fork(tag.rel, tag.fork) else { return Ok(Vec::new()) };
        let from = fork.history_of(tag.block).floor.max(self.redo_start);
        self.references.chunks(tag, from..self.rules.until)
    }

    /// The stored side: the backup's data and the WAL.
    #[must_use]
    pub fn files(&self) -> &StoredFiles {
        &self.files
    }

    /// Where the WAL begins that counts: the backup's redo point.
    #[must_use]
    pub fn redo_start(&self) -> Lsn {
        self.redo_start
    }

    /// The WAL that leads here.
    #[must_use]
    pub fn wal(&self) -> &ArchivedWal {
        &self.wal
    }

    /// Where the backup keeps the copy of a page: its place in an object's main stream. `None` if it has no copy.
    #[must_use]
    pub fn copied_at(&self, tag: BlockTag) -> Option<Place> {
        let file = RelationFile { rel: tag.rel, fork: tag.fork, segment: tag.block / RELSEG_BLOCKS };
        let offset = u64::from(tag.block % RELSEG_BLOCKS) * BLCKSZ as u64;
        let (place, len) = self.relations.get(&file)?;
        let place = place.filter(|_| offset + BLCKSZ as u64 <= *len)?;
        Some(Place { offset: place.offset.saturating_add(offset), ..place })
    }

    /// Pages rebuilt and records applied so far.
    pub fn counts(&self) -> (u64, u64) {
        (self.rebuilt_pages.load(Ordering::Relaxed), self.applied_records.load(Ordering::Relaxed))
    }

    /// Fills `buf` with bytes of an SLRU segment file from `offset` on.
    ///
    /// # Errors
    /// Those of the repository.
    pub fn read_slru(&self, slru: Slru, segment: u64, offset: u64, buf: &mut [u8]) -> Result<(), MomentError> {
        let mut at = offset;
        let mut rest = buf;
        while !rest.is_empty() {
            let inside = usize::try_from(at % BLCKSZ as u64).unwrap_or(0);
            let len = (BLCKSZ - inside).min(rest.len());
            let (here, after) = rest.split_at_mut(len);
            let page = self.cluster.slrus.page(slru, segment * PAGES_PER_SEGMENT + at / BLCKSZ as u64)?;
            here.copy_from_slice(&page[inside..inside + len]);
            at += len as u64;
            rest = after;
        }
        Ok(())
    }
}

impl BlockIndex for Moment {
    type Error = MomentError;

    fn references(&self, tag: BlockTag, from: Lsn, until: Lsn) -> Result<Vec<Reference>, MomentError> {
        self.references.find(&self.wal, tag, from..until)
    }
}

/// The SLRU pages of a backup.
#[derive(Debug)]
pub(super) struct CopiedSlrus {
    pub(super) files: StoredFiles,
    pub(super) segments: CopiedSlruFiles,
}

impl BasePages for CopiedSlrus {
    type Error = RepoError;

    fn page(&self, slru: Slru, page: u64) -> Result<Option<Box<[u8; BLCKSZ]>>, RepoError> {
        let offset = page % PAGES_PER_SEGMENT * BLCKSZ as u64;
        match self.segments.get(&(slru, page / PAGES_PER_SEGMENT)) {
            Some((place, len)) if offset + BLCKSZ as u64 <= *len => {
                let mut bytes = Box::new([0; BLCKSZ]);
                self.files.read_stored(&Content::Copied(*place), offset, &mut bytes[..])?;
                Ok(Some(bytes))
            }
            _ => Ok(None),
        }
    }
}
