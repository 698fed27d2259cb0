//! What pages are made of: copied pages and records, fetched together where more of them are wanted.
//!
//! From: `pages` and `together`.  To: `stored`, which fetches and decodes; `page`, which asks for the parts one by one.
//! Memory: 4 MiB of chunks fetched ahead, besides the memory that all views share.

use std::cell::RefCell;
use std::sync::atomic::Ordering;

use super::error::{MomentError, PartError};
use super::read::Moment;
use crate::format::index::WalChunk;
use crate::parallel;
use crate::pg::page::Page;
use crate::pg::wal::{Reader, Record};
use crate::pg::{BlockTag, Lsn};
use crate::view::locate::{Base, Recipe};
use crate::view::page::{Parts, rebuild};
use crate::view::wal::Segments;

/// Chunks of WAL that are fetched and decoded together: 4 MiB. They stay in memory, beside those of other reads, until their records are applied.
pub(super) const CHUNKS_OF_A_WINDOW: usize = 32;

/// What one thread rebuilds pages with.
pub(super) struct PageParts<'a> {
    pub(super) moment: &'a Moment,
    /// Where the record applied last was found: the next one may lie near it.
    reader: RefCell<Reader<Segments>>,
}

impl<'a> PageParts<'a> {
    pub(super) fn new(moment: &'a Moment) -> PageParts<'a> {
        PageParts { moment, reader: RefCell::new(moment.wal.reader(moment.redo_start)) }
    }

    /// Fetches the copied pages that pages begin with. What cannot be had is found out, and told, when the page is rebuilt.
    pub(super) fn bring_bases<'b>(&self, bases: impl Iterator<Item = &'b Base>) {
        let place = |mut base: &'b Base| {
            while let Base::Of(source) = base {
                base = &source.base;
            }
            let Base::Copied(tag) = base else { return None };
            let place = self.moment.copied_at(*tag)?;
            let stream = self.moment.files.copied(place.object).ok()?;
            let chunk = place.offset / stream.chunk_bytes();
            Some((stream, chunk))
        };
        self.moment.files.shared.bring(bases.filter_map(place).collect());
    }

    /// Fetches chunks of WAL, rising ones.
    pub(super) fn bring_wal(&self, chunks: &[WalChunk]) {
        let size = self.moment.wal.layout.segment_size;
        let mut segments: Vec<u64> = chunks.iter().map(|chunk| size.segment_no(chunk.start())).collect();
        segments.dedup();
        let shared = &self.moment.files.shared;
        // Opened together, and stay so; an error is met again by whoever reads the segment.
        parallel::for_each(shared.threads(segments.len()), &segments, |no| drop(self.moment.wal.stored_at(size.start(*no))));
        let place = |chunk: &WalChunk| {
            let (stream, offset) = self.moment.wal.stored_at(chunk.start()).ok()??;
            let number = offset / stream.chunk_bytes();
            Some((stream, number))
        };
        shared.bring(chunks.iter().filter_map(place).collect());
    }

    /// One page by itself.
    pub(super) fn rebuild(&self, recipe: &Recipe) -> Result<Page, MomentError> {
        let page = rebuild(self, recipe, &self.moment.rules).map_err(Box::new)?;
        self.moment.rebuilt_pages.fetch_add(1, Ordering::Relaxed);
        self.moment.applied_records.fetch_add(recipe.steps.len() as u64, Ordering::Relaxed);
        Ok(page)
    }
}

impl Parts for PageParts<'_> {
    type Error = PartError;

    fn ahead(&self, lsns: &mut dyn Iterator<Item = Lsn>) -> usize {
        let (mut chunks, mut count) = (Vec::new(), 0);
        for lsn in lsns {
            let here = WalChunk::of(lsn);
            if chunks.last() != Some(&here) {
                if chunks.len() >= CHUNKS_OF_A_WINDOW {
                    break;
                }
                chunks.push(here);
            }
            count += 1;
        }
        self.bring_wal(&chunks);
        count
    }

    fn copied(&self, tag: BlockTag) -> Result<Page, PartError> {
        let place = self.moment.copied_at(tag).ok_or(PartError::NotCopied { tag })?;
        let mut page = Page::zeroed();
        self.moment.files.copied(place.object)?.read(place.offset, &mut page.0[..])?;
        Ok(page)
    }

    fn record<T>(&self, lsn: Lsn, apply: impl FnOnce(&Record<'_>) -> T) -> Result<T, PartError> {
        let mut reader = self.reader.borrow_mut();
        reader.seek(lsn);
        let found = reader.next().map_err(|source| PartError::Wal { lsn, source: Box::new(source) })?;
        let raw = found.filter(|raw| raw.lsn == lsn).ok_or(PartError::NoRecord { lsn })?;
        Ok(apply(&raw.decode(self.moment.rules.major)?))
    }
}
