//! Rebuilds the pages that one read wants.
//!
//! From: `view::read`, with a file of a relation and a byte range.  To: `locate` (what each page needs), `stored` (fetches it), `page` (replays it).
//! A long read is shared out among the cores. Each share goes on in steps: Recipes for as many blocks as need [`CHUNKS_AHEAD`] chunks, those chunks
//! fetched together, then page after page. Pages that nothing has changed since the backup are copied in one go, straight to where they are wanted.
//! Memory: the chunks of a step for each core. No lock is held over a fetch.

use std::cell::RefCell;
use std::sync::atomic::Ordering;

use super::error::{MomentError, PartError};
use super::read::Moment;
use crate::pg::page::Page;
use crate::pg::relation::BLCKSZ;
use crate::pg::wal::{Reader, Record};
use crate::pg::{BlockTag, Lsn};
use crate::view::content::RelationContent;
use crate::view::file_class::RelationFile;
use crate::view::locate::{Base, Recipe, Step};
use crate::view::page::{PageError, Parts, rebuild};
use crate::view::stored::{CORES, StoredStream};
use crate::view::wal::Segments;

/// So many pages are worth another thread's start.
const PAGES_PER_THREAD: usize = 16;

/// Pages looked at to see whether a range has changed.
const SAMPLES: usize = 4;

/// Chunks fetched together for one thread: 4 MiB at most.
const CHUNKS_AHEAD: usize = 32;

impl Moment {
    /// The page as it stood.
    ///
    /// # Errors
    /// [`MomentError`].
    pub fn page(&self, tag: BlockTag) -> Result<Page, MomentError> {
        let recipe = self.recipe(tag)?;
        let pages = Pages::new(self);
        let mut chunks = Vec::new();
        pages.needs(&recipe, &mut chunks);
        self.files.shared.bring(chunks);
        pages.rebuild(&recipe)
    }

    /// Fills `buf` with bytes of a relation file from `offset` on; the range lies inside the file.
    ///
    /// # Errors
    /// [`MomentError`].
    pub fn read_relation(&self, content: &RelationContent, offset: u64, buf: &mut [u8]) -> Result<(), MomentError> {
        let file = RelationFile { fork: content.shows, ..content.file };
        let threads = (buf.len() / BLCKSZ / PAGES_PER_THREAD).clamp(1, *CORES);
        if threads == 1 || self.seems_unchanged(file, offset, buf.len())? {
            return self.fill(file, offset, buf);
        }
        // Shares begin where pages do; the first may be shorter.
        let share = (buf.len() / threads).next_multiple_of(BLCKSZ);
        let (mine, rest) = buf.split_at_mut(share - inside_page(offset));
        let second = offset + mine.len() as u64;
        std::thread::scope(|scope| {
            let shares = (second..).step_by(share).zip(rest.chunks_mut(share));
            let others: Vec<_> = shares.map(|(at, part)| scope.spawn(move || self.fill(file, at, part))).collect();
            let first = self.fill(file, offset, mine);
            others.into_iter().map(|other| other.join().expect("replaying does not panic")).fold(first, Result::and)
        })
    }

    /// Are some pages of a range as they were copied? Then most are, and copying takes less time than starting a thread does: who reads on at that
    /// speed has asked for the next range already, on another thread.
    fn seems_unchanged(&self, file: RelationFile, offset: u64, len: usize) -> Result<bool, MomentError> {
        for at in (offset..).step_by(len / SAMPLES).take(SAMPLES) {
            let tag = file.block_at(at).ok_or(MomentError::NoBlock { offset: at })?;
            if !is_plain(&self.recipe(tag)?) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Does one thread's share.
    fn fill(&self, file: RelationFile, offset: u64, buf: &mut [u8]) -> Result<(), MomentError> {
        let pages = Pages::new(self);
        let mut done = 0;
        while done < buf.len() {
            let recipes = pages.plan(file, offset + done as u64, buf.len() - done)?;
            for alike in recipes.chunk_by(|a, b| is_plain(a) && is_plain(b)) {
                let at = offset + done as u64;
                let rest = buf.get_mut(done..).unwrap_or_default();
                let wanted = alike.len() * BLCKSZ;
                done += match (alike, inside_page(at)) {
                    ([first, ..], 0) if is_plain(first) && wanted <= rest.len() => {
                        pages.copy(alike, rest.get_mut(..wanted).unwrap_or_default())?;
                        wanted
                    }
                    _ => pages.rebuild_each(alike, at, rest)?,
                };
            }
        }
        Ok(())
    }
}

/// Is it the page as it was copied?
fn is_plain(recipe: &Recipe) -> bool {
    matches!(recipe.base, Base::Copied(_)) && recipe.steps.is_empty()
}

fn inside_page(offset: u64) -> usize {
    usize::try_from(offset % BLCKSZ as u64).unwrap_or(0)
}

/// What one thread rebuilds pages with.
struct Pages<'a> {
    moment: &'a Moment,
    /// Where the record applied last was found: the next one may lie near it.
    reader: RefCell<Reader<Segments>>,
}

impl<'a> Pages<'a> {
    fn new(moment: &'a Moment) -> Pages<'a> {
        Pages { moment, reader: RefCell::new(moment.wal.reader(moment.redo_start)) }
    }

    /// Recipes for the blocks from `offset` of a file on, as many as are rebuilt together, and fetches what they need.
    fn plan(&self, file: RelationFile, offset: u64, len: usize) -> Result<Vec<Recipe>, MomentError> {
        let count = (inside_page(offset) + len).div_ceil(BLCKSZ);
        let (mut recipes, mut chunks) = (Vec::new(), Vec::new());
        self.bring_records(file, offset, count)?;
        for at in (offset..).step_by(BLCKSZ).take(count) {
            let tag = file.block_at(at).ok_or(MomentError::NoBlock { offset: at })?;
            let recipe = self.moment.recipe(tag)?;
            if !is_plain(&recipe) {
                self.needs(&recipe, &mut chunks);
            }
            recipes.push(recipe);
            if chunks.len() >= CHUNKS_AHEAD {
                break;
            }
        }
        self.moment.files.shared.bring(chunks);
        Ok(recipes)
    }

    /// Fetches what Recipes are made from: the chunks of WAL that speak of these blocks.
    fn bring_records(&self, file: RelationFile, offset: u64, count: usize) -> Result<(), MomentError> {
        let mut chunks = Vec::new();
        for at in (offset..).step_by(BLCKSZ).take(count) {
            let tag = file.block_at(at).ok_or(MomentError::NoBlock { offset: at })?;
            for chunk in self.moment.record_chunks(tag)? {
                let Ok(Some((stream, offset))) = self.moment.wal.stored_at(chunk.start()) else { continue };
                let number = offset / stream.chunk_bytes();
                chunks.push((stream, number));
            }
            if chunks.len() >= CHUNKS_AHEAD {
                break;
            }
        }
        self.moment.files.shared.bring(chunks);
        Ok(())
    }

    /// Adds the chunks that a Recipe takes. What cannot be had is found out, and told, when the page is rebuilt.
    fn needs(&self, recipe: &Recipe, chunks: &mut Vec<(StoredStream, u64)>) {
        match &recipe.base {
            Base::Zeroes => {}
            Base::Of(source) => self.needs(source, chunks),
            Base::Copied(tag) => {
                let stream = self.moment.copied_at(*tag).and_then(|place| {
                    let stream = self.moment.files.copied(place.object).ok()?;
                    let chunk = place.offset / stream.chunk_bytes();
                    Some((stream, chunk))
                });
                chunks.extend(stream);
            }
        }
        for step in &recipe.steps {
            let Step::Record { lsn, .. } = step else { continue };
            let Ok(Some((stream, offset))) = self.moment.wal.stored_at(*lsn) else { continue };
            let chunk = offset / stream.chunk_bytes();
            if chunks.last().is_none_or(|(last, before)| (last.number(), *before) != (stream.number(), chunk)) {
                chunks.push((stream, chunk));
            }
        }
    }

    fn rebuild(&self, recipe: &Recipe) -> Result<Page, MomentError> {
        let page = rebuild(self, recipe, &self.moment.rules).map_err(Box::new)?;
        self.moment.rebuilt_pages.fetch_add(1, Ordering::Relaxed);
        self.moment.applied_records.fetch_add(recipe.steps.len() as u64, Ordering::Relaxed);
        Ok(page)
    }

    /// Rebuilds page after page into `buf`, whose first byte is byte `offset` of the file. Gives how much was filled.
    fn rebuild_each(&self, recipes: &[Recipe], offset: u64, buf: &mut [u8]) -> Result<usize, MomentError> {
        let mut done = 0;
        for recipe in recipes {
            let inside = inside_page(offset + done as u64);
            let rest = buf.get_mut(done..).unwrap_or_default();
            let len = (BLCKSZ - inside).min(rest.len());
            let page = self.rebuild(recipe)?;
            rest[..len].copy_from_slice(&page.0[inside..inside + len]);
            done += len;
        }
        Ok(done)
    }

    /// Copies neighbouring pages that nothing has changed; `buf` has room for exactly them. One that does not pass is looked at by itself.
    fn copy(&self, recipes: &[Recipe], buf: &mut [u8]) -> Result<(), MomentError> {
        let first = recipes.first().and_then(|recipe| self.moment.copied_at(recipe.tag));
        let all_there = recipes.last().is_some_and(|recipe| self.moment.copied_at(recipe.tag).is_some());
        let Some(place) = first.filter(|_| all_there) else { return self.rebuild_each(recipes, 0, buf).map(drop) };
        let copied = self.moment.files.copied(place.object).and_then(|stream| stream.read(place.offset, buf));
        match (copied, recipes.first()) {
            // Which of them is it? A store that does not answer is not asked for each.
            (Err(error), _) if error.is_damage() => return self.rebuild_each(recipes, 0, buf).map(drop),
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
}

impl Parts for Pages<'_> {
    type Error = PartError;

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
