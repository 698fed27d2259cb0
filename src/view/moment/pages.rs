//! Rebuilds the pages that one read wants.
//!
//! From: `view::read`, with a file of a relation and a byte range.  To: `locate` (what each page needs), `stored` (fetches it), `page` (replays it).
//! Up to [`PAGES_TOGETHER`] pages are rebuilt in one way through the WAL: a chunk of it that changes several of them is decoded once, and the next ones are
//! fetched and decoded on all cores meanwhile. Pages that nothing has changed since the backup are copied in one go, straight to where they are wanted.
//! Memory: those pages and the chunks fetched ahead, besides the memory that all views share. No lock is held over a fetch.

use std::cell::RefCell;
use std::sync::atomic::Ordering;

use super::error::{MomentError, PartError};
use super::read::Moment;
use crate::format::index::WalChunk;
use crate::pg::page::Page;
use crate::pg::relation::BLCKSZ;
use crate::pg::wal::{Reader, Record};
use crate::pg::{BlockTag, Lsn};
use crate::view::content::RelationContent;
use crate::view::file_class::RelationFile;
use crate::view::locate::{Base, Recipe};
use crate::view::page::{PageError, Parts, rebuild};
use crate::view::wal::Segments;

/// 1 MiB: what the kernel asks for at most.
const PAGES_TOGETHER: usize = 128;

/// Chunks fetched together: 4 MiB at most.
const CHUNKS_AHEAD: usize = 32;

impl Moment {
    /// The page as it stood.
    ///
    /// # Errors
    /// [`MomentError`].
    pub fn page(&self, tag: BlockTag) -> Result<Page, MomentError> {
        let recipe = self.recipe(tag)?;
        let pages = Pages::new(self);
        pages.bring_bases(&[&recipe]);
        pages.rebuild_one(&recipe)
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

    /// Fills the beginning of `buf`, whose first byte is byte `offset` of the file; gives how much.
    fn fill(&self, file: RelationFile, offset: u64, buf: &mut [u8]) -> Result<usize, MomentError> {
        let count = (inside_page(offset) + buf.len()).div_ceil(BLCKSZ).min(PAGES_TOGETHER);
        let tag = |at| file.block_at(at).ok_or(MomentError::NoBlock { offset: at });
        let tags = (offset..).step_by(BLCKSZ).take(count).map(tag).collect::<Result<Vec<_>, _>>()?;
        let recipes = self.moment.recipes(&tags)?;
        let changed: Vec<&Recipe> = recipes.iter().filter(|recipe| !is_plain(recipe)).collect();
        self.bring_bases(&changed);
        let mut rebuilt = self.rebuild(&changed)?.into_iter();
        let mut done = 0;
        for alike in recipes.chunk_by(|a, b| is_plain(a) && is_plain(b)) {
            let inside = inside_page(offset + done as u64);
            let rest = buf.get_mut(done..).unwrap_or_default();
            let wanted = alike.len() * BLCKSZ;
            if alike.iter().all(is_plain) && inside == 0 && wanted <= rest.len() {
                self.copy(alike, rest.get_mut(..wanted).unwrap_or_default())?;
                done += wanted;
                continue;
            }
            for recipe in alike {
                let page = if is_plain(recipe) { self.rebuild_one(recipe)? } else { rebuilt.next().expect("a page for each Recipe") };
                let inside = inside_page(offset + done as u64);
                let rest = buf.get_mut(done..).unwrap_or_default();
                let len = (BLCKSZ - inside).min(rest.len());
                rest[..len].copy_from_slice(&page.0[inside..inside + len]);
                done += len;
            }
        }
        Ok(done)
    }

    /// Fetches the copied pages that Recipes begin with. What cannot be had is found out, and told, when the page is rebuilt.
    fn bring_bases(&self, recipes: &[&Recipe]) {
        let base = |recipe: &&Recipe| {
            let mut base = &recipe.base;
            while let Base::Of(source) = base {
                base = &source.base;
            }
            let Base::Copied(tag) = base else { return None };
            let place = self.moment.copied_at(*tag)?;
            let stream = self.moment.files.copied(place.object).ok()?;
            let chunk = place.offset / stream.chunk_bytes();
            Some((stream, chunk))
        };
        self.moment.files.shared.bring(recipes.iter().filter_map(base).collect());
    }

    fn rebuild(&self, recipes: &[&Recipe]) -> Result<Vec<Page>, MomentError> {
        let pages = rebuild(self, recipes, &self.moment.rules).map_err(Box::new)?;
        let records = recipes.iter().map(|recipe| recipe.steps.len() as u64).sum();
        self.moment.rebuilt_pages.fetch_add(recipes.len() as u64, Ordering::Relaxed);
        self.moment.applied_records.fetch_add(records, Ordering::Relaxed);
        Ok(pages)
    }

    fn rebuild_one(&self, recipe: &Recipe) -> Result<Page, MomentError> {
        Ok(self.rebuild(&[recipe])?.remove(0))
    }

    /// Copies neighbouring pages that nothing has changed; `buf` has room for exactly them. One that does not pass is looked at by itself.
    fn copy(&self, recipes: &[Recipe], buf: &mut [u8]) -> Result<(), MomentError> {
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
                bytes.copy_from_slice(&self.rebuild_one(recipe)?.0[..]);
            }
        }
        self.moment.rebuilt_pages.fetch_add(recipes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// The same page by page.
    fn copy_each(&self, recipes: &[Recipe], buf: &mut [u8]) -> Result<(), MomentError> {
        for (recipe, bytes) in recipes.iter().zip(buf.chunks_exact_mut(BLCKSZ)) {
            bytes.copy_from_slice(&self.rebuild_one(recipe)?.0[..]);
        }
        Ok(())
    }
}

impl Parts for Pages<'_> {
    type Error = PartError;

    fn ahead(&self, lsns: &mut dyn Iterator<Item = Lsn>) -> usize {
        let (mut chunks, mut last, mut count) = (Vec::new(), None, 0);
        for lsn in lsns {
            let here = Some(WalChunk::of(lsn));
            if here != last && chunks.len() >= CHUNKS_AHEAD {
                break;
            }
            count += 1;
            if here == last {
                continue;
            }
            last = here;
            let Ok(Some((stream, offset))) = self.moment.wal.stored_at(lsn) else { continue };
            let number = offset / stream.chunk_bytes();
            chunks.push((stream, number));
        }
        self.moment.files.shared.bring(chunks);
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
