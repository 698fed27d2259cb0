//! Reads pages of relation files.
//!
//! From: `view::read`, with a file of a relation and a byte range.  To: `together`, which rebuilds the pages.
//! Pages that nothing has changed since the backup are copied in one go, straight to where they are wanted.
//! Memory: 1 MiB of pages, besides what `parts` fetches ahead. No lock is held over a fetch.

use std::sync::atomic::Ordering;

use super::error::{MomentError, PartError};
use super::parts::PageParts;
use super::read::Moment;
use super::together::Rebuilt;
use crate::pg::BlockTag;
use crate::pg::page::Page;
use crate::pg::relation::BLCKSZ;
use crate::view::content::RelationContent;
use crate::view::file_class::RelationFile;
use crate::view::locate::Recipe;
use crate::view::page::PageError;

/// 1 MiB: what the kernel asks for at most.
const PAGES_TOGETHER: usize = 128;

impl Moment {
    /// The page as it stood.
    ///
    /// # Errors
    /// [`MomentError`].
    pub fn page(&self, tag: BlockTag) -> Result<Page, MomentError> {
        let pages = PageParts::new(self);
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
        let pages = PageParts::new(self);
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

impl PageParts<'_> {
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
