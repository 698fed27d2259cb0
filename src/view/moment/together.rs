//! Rebuilds neighbouring pages in one way through the WAL.
//!
//! From: `pages`, with the blocks of one read.  To: `references` (in which chunks of WAL their records are, then which), `locate`, `page`.
//! Goes from window to window of [`CHUNKS_OF_A_WINDOW`] chunks: each is decoded once, however many of the pages it changes, and its records are applied
//! before the next window is looked at. So the memory that a page takes does not grow with the records that change it.

use std::ops::Range;
use std::sync::atomic::Ordering;

use super::error::MomentError;
use super::parts::{CHUNKS_OF_A_WINDOW, PageParts};
use super::references::LookedUp;
use crate::format::index::WalChunk;
use crate::pg::page::Page;
use crate::pg::{BlockTag, Lsn};
use crate::view::locate::{Base, Recipe, Step, begin, go_on};
use crate::view::page::{base, finish, lead_on};

/// Pages that have entries for more chunks than this are not rebuilt with others: 40 bytes for each.
const MAX_ENTRIES: usize = 1 << 16;

/// A page on its way.
enum Draft {
    /// What counts comes later in the WAL.
    Waiting,
    /// All steps so far are taken.
    Begun(Page),
    Done(Rebuilt),
}

/// How a page turned out.
pub(super) enum Rebuilt {
    /// As the backup copied it: this is its Recipe.
    Plain(Recipe),
    Page(Page),
}

impl Rebuilt {
    /// The Recipe of a page that is to be copied.
    pub(super) fn plain(&self) -> Option<&Recipe> {
        match self {
            Rebuilt::Plain(recipe) => Some(recipe),
            Rebuilt::Page(_) => None,
        }
    }
}

impl PageParts<'_> {
    /// The first of these blocks of one fork (at least one), as they stood.
    pub(super) fn together(&self, tags: &[BlockTag]) -> Result<Vec<Rebuilt>, MomentError> {
        let blocks = self.look_up(tags)?;
        let mut chunks: Vec<WalChunk> = blocks.iter().flat_map(|block| block.entries.iter().map(|(chunk, _)| *chunk)).collect();
        chunks.sort_unstable();
        chunks.dedup();
        let mut drafts = self.drafts(&blocks)?;
        let (mut rest, mut since) = (chunks.as_slice(), Lsn(0));
        loop {
            let (window, later) = rest.split_at(rest.len().min(CHUNKS_OF_A_WINDOW));
            let until = later.first().map_or(self.moment.rules.until, |chunk| chunk.start());
            self.window(&blocks, window, since..until, &mut drafts)?;
            if later.is_empty() {
                break;
            }
            (rest, since) = (later, until);
        }
        drafts.into_iter().zip(&blocks).map(|(draft, block)| self.done(draft, block.tag)).collect()
    }

    fn look_up(&self, tags: &[BlockTag]) -> Result<Vec<LookedUp>, MomentError> {
        let (mut blocks, mut entries) = (Vec::new(), 0);
        for tag in tags {
            let from = self.moment.fork(*tag)?.history_of(tag.block).floor.max(self.moment.redo_start);
            let block = self.moment.references.look_up(*tag, &(from..self.moment.rules.until))?;
            entries += block.entries.len();
            blocks.push(block);
            if entries > MAX_ENTRIES {
                break;
            }
        }
        Ok(blocks)
    }

    /// Drafts of pages, of which those are done already that no record speaks of.
    fn drafts(&self, blocks: &[LookedUp]) -> Result<Vec<Draft>, MomentError> {
        let moment = self.moment;
        let recipe = |block: &LookedUp| {
            let untouched = block.entries.is_empty() && block.known.is_empty();
            untouched.then(|| begin(moment, block.tag, moment.fork(block.tag)?, &[], moment.rules.until, moment.redo_start)).transpose()
        };
        let recipes = blocks.iter().map(recipe).collect::<Result<Vec<_>, MomentError>>()?;
        self.bring_bases(recipes.iter().flatten().filter(|recipe| !recipe.is_plain()).map(|recipe| &recipe.base));
        let draft = |recipe: Option<Recipe>| {
            Ok(match recipe {
                None => Draft::Waiting,
                Some(recipe) if recipe.is_plain() => Draft::Done(Rebuilt::Plain(recipe)),
                Some(recipe) => Draft::Done(Rebuilt::Page(self.rebuild(&recipe)?)),
            })
        };
        recipes.into_iter().map(draft).collect()
    }

    /// Takes the steps that records of a window are.
    fn window(&self, blocks: &[LookedUp], chunks: &[WalChunk], range: Range<Lsn>, drafts: &mut [Draft]) -> Result<(), MomentError> {
        let moment = self.moment;
        let references = moment.references.read(&moment.wal, blocks, chunks, &range, &|chunks| self.bring_wal(chunks))?;
        let (mut steps, mut bases): (Vec<Vec<Step>>, Vec<Option<Base>>) = (Vec::new(), Vec::new());
        for ((block, draft), references) in blocks.iter().zip(drafts.iter_mut()).zip(&references) {
            let fork = moment.fork(block.tag)?;
            let (base, of_page) = match draft {
                Draft::Waiting if block.starts < range.end => {
                    if block.promised && !references.iter().any(|reference| reference.self_contained) {
                        *draft = Draft::Done(Rebuilt::Page(self.rebuild(&moment.recipe(block.tag)?)?));
                        (None, Vec::new())
                    } else {
                        let recipe = begin(moment, block.tag, fork, references, range.end, moment.redo_start)?;
                        (Some(recipe.base), recipe.steps)
                    }
                }
                Draft::Begun(_) => {
                    let (rebuilds, of_page) = go_on(block.tag, fork, references, range.start, range.end);
                    (rebuilds.then_some(Base::Zeroes), of_page)
                }
                Draft::Waiting | Draft::Done(_) => (None, Vec::new()),
            };
            steps.push(of_page);
            bases.push(base);
        }
        self.bring_bases(bases.iter().flatten());
        for (draft, of_page) in drafts.iter_mut().zip(bases) {
            if let Some(of_page) = of_page {
                *draft = Draft::Begun(base(self, &of_page, &moment.rules).map_err(Box::new)?);
            }
        }
        let count: usize = steps.iter().map(Vec::len).sum();
        moment.applied_records.fetch_add(count as u64, Ordering::Relaxed);
        let pages = drafts.iter_mut().zip(blocks).zip(&steps).filter_map(|((draft, block), of_page)| match draft {
            Draft::Begun(page) => Some((block.tag, page, of_page.as_slice())),
            _ => None,
        });
        Ok(lead_on(self, &mut pages.collect::<Vec<_>>(), &moment.rules).map_err(Box::new)?)
    }

    fn done(&self, draft: Draft, tag: BlockTag) -> Result<Rebuilt, MomentError> {
        match draft {
            Draft::Done(rebuilt) => Ok(rebuilt),
            Draft::Begun(page) => {
                self.moment.rebuilt_pages.fetch_add(1, Ordering::Relaxed);
                Ok(Rebuilt::Page(finish(page, tag, &self.moment.rules).map_err(Box::new)?))
            }
            Draft::Waiting => Ok(Rebuilt::Page(self.rebuild(&self.moment.recipe(tag)?)?)),
        }
    }
}
