//! Reads pages of relation files.
//!
//! From: `view::read`, with a file of a relation and a byte range.  To: `together`, which rebuilds the pages; `stored`, which fetches what they are made of.
//! Pages that nothing has changed since the backup are copied in one go, straight to where they are wanted.
//! Memory: 1 MiB of pages and the chunks fetched ahead, besides the memory that all views share. No lock is held over a fetch.

use std::cell::RefCell;
use std::sync::atomic::Ordering;

use super::error::{MomentError, PartError};
use super::read::Moment;
use super::together::{CHUNKS_OF_A_WINDOW, Rebuilt};
use crate::format::index::WalChunk;
use crate::pg::page::Page;
use crate::pg::relation::BLCKSZ;
use crate::pg::wal::{Reader, Record};
use crate::pg::{BlockTag, Lsn};
use crate::view::content::RelationContent;
use crate::view::file_class::RelationFile;
use crate::view::locate::{Base, Recipe};
use crate::view::page::{PageError, Parts, rebuild};
use crate::view::stored::side_by_side;
use crate::view::wal::Segments;

/// 1 MiB: what the kernel asks for at most.
const PAGES_TOGETHER: usize = 128;

impl Moment {
    /// The page as it stood.
    ///
    /// # Errors
    /// [`MomentError`].
    pub fn page(&self, tag: BlockTag) -> Result<Page, MomentError> {
        let pages = Pages::new(self);
        match pages.together(&[tag])?.remove(0) {
            Rebuilt::Page(page) => Ok(page),
            Rebuilt::Plain(recipe) => pages.rebuild(&recipe),
        }
    }

    /// Fills `buf` with bytes of a relation file from `offset` on; the range lies inside the file.
    ///
    /// # Errors
    /// [`MomentError`].
    pub fn read_relation(&self, content: &RelationContent, offset: u64, buf: &mut [u8]) -> Result<(), MomentError> {
        let file = RelationFile { fork: content.shows, ..content.file };
        let pages = Pages::new(self);
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            done += pages.fill(file, at, buf.get_mut(done..).unwrap_or_default())?;
        }
        Ok(())
    }
}

fn inside_page(offset: u64) -> usize {
    usize::try_from(offset % BLCKSZ as u64).unwrap_or(0)
}

/// What one thread rebuilds pages with.
pub(super) struct Pages<'a> {
    pub(super) moment: &'a Moment,
    /// Where the record applied last was found: the next one may lie near it.
    reader: RefCell<Reader<Segments>>,
}

impl<'a> Pages<'a> {
    fn new(moment: &'a Moment) -> Pages<'a> {
        Pages { moment, reader: RefCell::new(moment.wal.reader(moment.redo_start)) }
    }

    /// Fills the beginning of `buf`, whose first byte is byte `offset` of the file; gives how much.
    fn fill(&self, file: RelationFile, offset: u64, buf: &mut [u8]) -> Result<usize, MomentError> {
        let count = (inside_page(offset) + buf.len()).div_ceil(BLCKSZ).min(PAGES_TOGETHER);
        let tag = |at| file.block_at(at).ok_or(MomentError::NoBlock { offset: at });
        let tags = (offset..).step_by(BLCKSZ).take(count).map(tag).collect::<Result<Vec<_>, _>>()?;
        let rebuilt = self.together(&tags)?;
        let mut done = 0;
        for alike in rebuilt.chunk_by(|a, b| matches!((a, b), (Rebuilt::Plain(_), Rebuilt::Plain(_)))) {
            let rest = buf.get_mut(done..).unwrap_or_default();
            let wanted = alike.len() * BLCKSZ;
            let plain: Vec<&Recipe> = alike.iter().filter_map(Rebuilt::plain).collect();
            if plain.len() == alike.len() && inside_page(offset + done as u64) == 0 && wanted <= rest.len() {
                self.copy(&plain, rest.get_mut(..wanted).unwrap_or_default())?;
                done += wanted;
                continue;
            }
            for one in alike {
                let inside = inside_page(offset + done as u64);
                let rest = buf.get_mut(done..).unwrap_or_default();
                let len = (BLCKSZ - inside).min(rest.len());
                match one {
                    Rebuilt::Page(page) => rest[..len].copy_from_slice(&page.0[inside..inside + len]),
                    Rebuilt::Plain(recipe) => rest[..len].copy_from_slice(&self.rebuild(recipe)?.0[inside..inside + len]),
                }
                done += len;
            }
        }
        Ok(done)
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
        side_by_side(shared.threads(segments.len()), &segments, |no| drop(self.moment.wal.stored_at(size.start(*no))));
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

    /// Copies neighbouring pages that nothing has changed; `buf` has room for exactly them. One that does not pass is looked at by itself.
    fn copy(&self, recipes: &[&Recipe], buf: &mut [u8]) -> Result<(), MomentError> {
        let first = recipes.first().and_then(|recipe| self.moment.copied_at(recipe.tag));
        let all_there = recipes.last().is_some_and(|recipe| self.moment.copied_at(recipe.tag).is_some());
        let Some(place) = first.filter(|_| all_there) else { return self.copy_each(recipes, buf) };
        let copied = self.moment.files.copied(place.object).and_then(|stream| stream.read(place.offset, buf));
        match (copied, recipes.first()) {
            // Which of them is it? A store that does not answer is not asked for each.
            (Err(error), _) if error.is_damage() => return self.copy_each(recipes, buf),
            (Err(error), Some(Recipe { tag, .. })) => {
                let source = PartError::Repo(error);
                return Err(Box::new(PageError::Part { tag: *tag, until: self.moment.rules.until, source }).into());
            }
            _ => {}
        }
        let rules = &self.moment.rules;
        let mut page = Page::zeroed();
        for (recipe, bytes) in recipes.iter().zip(buf.chunks_exact_mut(BLCKSZ)) {
            page.0.copy_from_slice(bytes);
            let sound = !rules.checksums || page.is_new() || page.checksum_is_valid(recipe.tag.block);
            if !sound || page.lsn() > rules.until {
                bytes.copy_from_slice(&self.rebuild(recipe)?.0[..]);
            }
        }
        self.moment.rebuilt_pages.fetch_add(recipes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// The same page by page.
    fn copy_each(&self, recipes: &[&Recipe], buf: &mut [u8]) -> Result<(), MomentError> {
        for (recipe, bytes) in recipes.iter().zip(buf.chunks_exact_mut(BLCKSZ)) {
            bytes.copy_from_slice(&self.rebuild(recipe)?.0[..]);
        }
        Ok(())
    }
}

impl Parts for Pages<'_> {
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
