//! Carries a [`Recipe`] out: the base page, then one record after another.
//!
//! From: `view::moment`, with a Recipe of `view::locate`.  To: `redo`; the copied pages and the records behind two traits.
//! What always holds: the page's own Lsn is not past the moment, and its checksum is right where the cluster has them; else there is an error.

use thiserror::Error;

use crate::advice::Advice;
use crate::pg::page::Page;
use crate::pg::wal::Record;
use crate::pg::wal::vm::HEAP_BLOCKS_PER_PAGE;
use crate::pg::{BlockTag, Fork, Lsn, Major};
use crate::redo::{self, Context, RedoError};
use crate::view::locate::{Base, Recipe, Step};

/// Where the parts of a page come from.
pub trait Parts {
    type Error;

    /// A page as the backup copied it.
    ///
    /// # Errors
    /// Whatever keeps it from being read.
    fn copied(&self, tag: BlockTag) -> Result<Page, Self::Error>;

    /// Told which records are wanted next, in rising order; may get some of them together. Gives how many it did.
    fn ahead(&self, lsns: &mut dyn Iterator<Item = Lsn>) -> usize;

    /// The record that begins at `lsn`: hands it, decoded, to `apply`.
    ///
    /// # Errors
    /// Whatever keeps it from being read.
    fn record<T>(&self, lsn: Lsn, apply: impl FnOnce(&Record<'_>) -> T) -> Result<T, Self::Error>;
}

/// Why a page could not be rebuilt.
#[derive(Debug, Error)]
pub enum PageError<E: std::error::Error + 'static> {
    #[error("{tag} cannot be rebuilt")]
    Redo {
        tag: BlockTag,
        #[source]
        source: RedoError,
    },
    #[error("{tag} would carry Lsn {lsn}, which is past the moment {until}")]
    Future { tag: BlockTag, lsn: Lsn, until: Lsn },
    #[error("{tag} was damaged when the backup copied it")]
    BadChecksum { tag: BlockTag, stored: u16, computed: u16 },
    #[error("{tag} cannot be rebuilt as of {until}")]
    Part {
        tag: BlockTag,
        until: Lsn,
        #[source]
        source: E,
    },
}

impl<E: std::error::Error + Advice + 'static> Advice for PageError<E> {
    fn detail(&self) -> Option<String> {
        match self {
            PageError::BadChecksum { stored, computed, .. } => Some(format!("checksum says {stored:04x}, contents give {computed:04x}")),
            PageError::Part { source, .. } => source.detail(),
            _ => None,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            PageError::Redo { .. } | PageError::Future { .. } => {
                Some("--replay=postgres lets Postgres itself replay the WAL; please report this.".to_owned())
            }
            PageError::BadChecksum { .. } => Some("An older backup may hold the page intact.".to_owned()),
            PageError::Part { source, .. } => source.hint(),
        }
    }
}

/// What all pages of a moment share.
#[derive(Debug, Clone, Copy)]
pub struct PageRules {
    pub major: Major,
    pub hint_bits_logged: bool,
    /// The cluster has page checksums.
    pub checksums: bool,
    /// The moment.
    pub until: Lsn,
}

/// Rebuilds the page that `recipe` describes.
///
/// # Errors
/// [`PageError`]; a page that cannot be had exactly is never served.
pub fn rebuild<P: Parts>(parts: &P, recipe: &Recipe, rules: &PageRules) -> Result<Page, PageError<P::Error>>
where
    P::Error: std::error::Error + 'static,
{
    let page = run(parts, recipe, rules)?;
    finish(page, recipe.tag, rules)
}

fn run<P: Parts>(parts: &P, recipe: &Recipe, rules: &PageRules) -> Result<Page, PageError<P::Error>>
where
    P::Error: std::error::Error + 'static,
{
    let mut page = base(parts, &recipe.base, rules)?;
    lead_on(parts, &mut [(recipe.tag, &mut page, &recipe.steps)], rules)?;
    Ok(page)
}

/// What steps start from.
///
/// # Errors
/// As [`rebuild`].
pub fn base<P: Parts>(parts: &P, base: &Base, rules: &PageRules) -> Result<Page, PageError<P::Error>>
where
    P::Error: std::error::Error + 'static,
{
    match base {
        Base::Zeroes => Ok(Page::zeroed()),
        Base::Copied(tag) => copied(parts, *tag, rules),
        Base::Of(source) => run(parts, source, rules),
    }
}

/// Takes the steps of several pages, in one way through the WAL: what holds records of several of them is looked at once.
///
/// # Errors
/// As [`rebuild`].
pub fn lead_on<P: Parts>(parts: &P, pages: &mut [(BlockTag, &mut Page, &[Step])], rules: &PageRules) -> Result<(), PageError<P::Error>>
where
    P::Error: std::error::Error + 'static,
{
    let mut steps: Vec<(Step, usize)> = Vec::new();
    for (of, (_, _, of_page)) in pages.iter().enumerate() {
        steps.extend(of_page.iter().map(|step| (*step, of)));
    }
    // Steps of one page at one position stay in their order.
    steps.sort_by_key(|(step, of)| (step.lsn(), *of));
    let context = Context { major: rules.major, hint_bits_logged: rules.hint_bits_logged };
    let mut brought = 0;
    for (i, (step, of)) in steps.iter().enumerate() {
        if i == brought {
            brought += parts.ahead(&mut steps[i..].iter().map(|(step, _)| step.lsn())).max(1);
        }
        let (tag, page, _) = &mut pages[*of];
        match *step {
            Step::Record { lsn, target } => {
                parts
                    .record(lsn, |record| redo::apply(&context, record, target, page))
                    .map_err(|source| PageError::Part { tag: *tag, until: rules.until, source })?
                    .map_err(|source| PageError::Redo { tag: *tag, source })?;
            }
            Step::CutMap { heap_blocks, .. } => cut_map(page, heap_blocks),
        }
    }
    Ok(())
}

/// A page whose steps are taken, as it is served.
///
/// # Errors
/// [`PageError::Future`].
pub fn finish<E: std::error::Error + 'static>(mut page: Page, tag: BlockTag, rules: &PageRules) -> Result<Page, PageError<E>> {
    if page.lsn() > rules.until {
        return Err(PageError::Future { tag, lsn: page.lsn(), until: rules.until });
    }
    if rules.checksums && !page.is_new() {
        page.stamp_checksum(tag.block);
    }
    Ok(page)
}

/// A copied page. No record since the backup's start rebuilds it, so it cannot be one that was torn while it was copied.
///
/// Except in a visibility map, whose changes were not always logged with images: there redo reads a damaged page as zeroes (`vm_readbuf`).
fn copied<P: Parts>(parts: &P, tag: BlockTag, rules: &PageRules) -> Result<Page, PageError<P::Error>>
where
    P::Error: std::error::Error + 'static,
{
    let page = parts.copied(tag).map_err(|source| PageError::Part { tag, until: rules.until, source })?;
    if !rules.checksums || page.is_new() || page.checksum_is_valid(tag.block) {
        return Ok(page);
    }
    if tag.fork == Fork::Vm {
        return Ok(Page::zeroed());
    }
    Err(PageError::BadChecksum { tag, stored: page.stored_checksum(), computed: page.checksum(tag.block) })
}

/// Clears the bits of heap blocks from `heap_blocks` on, two bits each after the 24 bytes of the page header (visibilitymap.c).
fn cut_map(page: &mut Page, heap_blocks: u32) {
    if page.is_new() {
        return;
    }
    let inside = (heap_blocks % HEAP_BLOCKS_PER_PAGE) as usize;
    let at = 24 + inside / 4;
    page.0[at] &= (1u8 << (inside % 4 * 2)) - 1;
    page.0[at + 1..].fill(0);
}
