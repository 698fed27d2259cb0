//! Decides what rebuilds one block: a base, and the records to apply to it.
//!
//! From: `view::moment`, which knows the relation's history.  To: `view::page`, which carries the [`Recipe`] out; `explain`, which prints it.
//! In: a block, how far back it reaches, the moment's Lsn.  Out: a Recipe: one base, then steps in rising Lsn order, none past the Lsn.
//! Reads the index, never the bytes it points at: same index, same question, same Recipe. Knows nothing of stores, FUSE or redo routines.

use crate::pg::wal::vm::HEAP_BLOCKS_PER_PAGE;
use crate::pg::wal::{How, Mention};
use crate::pg::{BlockTag, Fork as ForkName, Lsn};
use crate::redo::Target;
use crate::view::relations::{Below, Fork, PageHistory};

/// One mention of a block in the WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reference {
    /// Where the record begins.
    pub lsn: Lsn,
    pub target: Target,
    /// The record alone rebuilds the page: an image to apply, or `WILL_INIT`.
    pub self_contained: bool,
}

impl Reference {
    /// What the record at `lsn` says of a block.
    #[must_use]
    pub fn from_mention(lsn: Lsn, mention: &Mention) -> Reference {
        let target = match mention.how {
            How::Reference(id) => Target::Block(id),
            How::MapClear => Target::UnregisteredVm(mention.tag.block),
        };
        Reference { lsn, target, self_contained: mention.rebuilds }
    }
}

/// Which records touch a block.
pub trait BlockIndex: Send + Sync {
    type Error;

    /// The references to `tag` in records that begin at or after `from` and before `until`, in rising order. Those before the last self-contained
    /// one may be left out.
    ///
    /// # Errors
    /// Whatever keeps the index from being read; an index with a gap is an error, never a short answer.
    fn references(&self, tag: BlockTag, from: Lsn, until: Lsn) -> Result<Vec<Reference>, Self::Error>;
}

/// How to rebuild one block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    pub tag: BlockTag,
    pub base: Base,
    /// In rising Lsn order.
    pub steps: Vec<Step>,
}

impl Recipe {
    /// Is it the page as it was copied?
    #[must_use]
    pub fn is_plain(&self) -> bool {
        matches!(self.base, Base::Copied(_)) && self.steps.is_empty()
    }
}

/// What the steps start from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// A page of zeroes. Also where the first step rebuilds the page by itself.
    Zeroes,
    /// The page as the backup copied it.
    Copied(BlockTag),
    /// A page of another relation, as that stood when its database was copied.
    Of(Box<Recipe>),
}

/// One change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Apply the record that begins at `lsn`.
    Record { lsn: Lsn, target: Target },
    /// Clear the bits of heap blocks from `heap_blocks` on: the heap was cut by the record that ends at `end`.
    CutMap { end: Lsn, heap_blocks: u32 },
}

impl Step {
    /// Where it stands in the order of steps: a record by its first byte, a cut by its record's end.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        match self {
            Step::Record { lsn, .. } => *lsn,
            Step::CutMap { end, .. } => *end,
        }
    }
}

/// The Recipe of block `tag` of `fork` at `until` (a record boundary: records that end at or before it count).
///
/// # Errors
/// Those of the index.
pub fn locate<I: BlockIndex + ?Sized>(index: &I, tag: BlockTag, fork: &Fork, until: Lsn, redo_start: Lsn) -> Result<Recipe, I::Error> {
    let floor = fork.history_of(tag.block).floor;
    begin(index, tag, fork, &index.references(tag, floor.max(redo_start), until)?, until, redo_start)
}

/// The same with the references at hand: those that [`BlockIndex::references`] gives. The index is asked only for a page that this one was copied from.
///
/// # Errors
/// Those of the index.
pub fn begin<I: BlockIndex + ?Sized>(
    index: &I,
    tag: BlockTag,
    fork: &Fork,
    references: &[Reference],
    until: Lsn,
    redo_start: Lsn,
) -> Result<Recipe, I::Error> {
    let PageHistory { floor, below } = fork.history_of(tag.block);
    let (rebuilds, steps) = go_on(tag, fork, references, floor, until);
    let base = match (rebuilds, below) {
        (true, _) | (false, Below::Nothing) => Base::Zeroes,
        (false, Below::Copied { .. }) => Base::Copied(tag),
        (false, Below::CopyOf { rel, at, source }) => Base::Of(Box::new(locate(index, BlockTag { rel, ..tag }, &source, at, redo_start)?)),
    };
    Ok(Recipe { tag, base, steps })
}

/// The steps that lead a page from `since` to `until`, both record boundaries, with the references between them. Do they begin with one that rebuilds the
/// page, whatever it was?
#[must_use]
pub fn go_on(tag: BlockTag, fork: &Fork, references: &[Reference], since: Lsn, until: Lsn) -> (bool, Vec<Step>) {
    let first = references.iter().rposition(|r| r.self_contained);
    let kept = &references[first.unwrap_or(0)..];
    let mut steps: Vec<Step> = kept.iter().map(|r| Step::Record { lsn: r.lsn, target: r.target }).collect();
    let since = steps.first().filter(|_| first.is_some()).map_or(since, Step::lsn);
    if tag.fork == ForkName::Vm {
        let here = |blocks: u32| blocks / HEAP_BLOCKS_PER_PAGE == tag.block;
        let cuts = fork.map_cuts.iter().filter(|cut| here(cut.heap_blocks) && cut.end > since && cut.end <= until);
        steps.extend(cuts.map(|cut| Step::CutMap { end: cut.end, heap_blocks: cut.heap_blocks }));
        steps.sort_by_key(Step::lsn);
    }
    (first.is_some(), steps)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::pg::RelFileLocator;
    use crate::view::relations::Relations;

    const REL: RelFileLocator = RelFileLocator { tablespace: 1663, database: 5, relation: 16384 };
    const START: Lsn = Lsn(10);

    fn tag(fork: ForkName, block: u32) -> BlockTag {
        BlockTag { rel: REL, fork, block }
    }

    struct Index(Vec<(BlockTag, u64, bool)>);

    impl BlockIndex for Index {
        type Error = Infallible;

        fn references(&self, tag: BlockTag, from: Lsn, until: Lsn) -> Result<Vec<Reference>, Infallible> {
            let inside = |lsn: u64| from.0 <= lsn && lsn < until.0;
            let found = self.0.iter().filter(|(t, lsn, _)| *t == tag && inside(*lsn));
            Ok(found.map(|&(_, lsn, self_contained)| Reference { lsn: Lsn(lsn), target: Target::Block(0), self_contained }).collect())
        }
    }

    fn recipe(index: &[(BlockTag, u64, bool)], relations: &Relations, tag: BlockTag, until: u64) -> Recipe {
        let fork = relations.fork(tag.rel, tag.fork).unwrap();
        locate(&Index(index.to_vec()), tag, fork, Lsn(until), START).unwrap()
    }

    fn lsns(recipe: &Recipe) -> Vec<u64> {
        recipe.steps.iter().map(|step| step.lsn().0).collect()
    }

    #[test]
    fn the_newest_self_contained_record_begins_the_steps() {
        let mut relations = Relations::default();
        relations.copied(REL, ForkName::Main, 4);
        let t = tag(ForkName::Main, 1);
        let index = [(t, 20, true), (t, 30, false), (t, 40, true), (t, 50, false), (t, 60, false)];
        let at_60 = recipe(&index, &relations, t, 60);
        assert_eq!((lsns(&at_60), at_60.base), (vec![40, 50], Base::Zeroes));
        let at_40 = recipe(&index, &relations, t, 40);
        assert_eq!((lsns(&at_40), at_40.base), (vec![20, 30], Base::Zeroes));
        let before = recipe(&index, &relations, t, 15);
        assert_eq!((lsns(&before), before.base), (vec![], Base::Copied(t)));
    }

    #[test]
    fn nothing_from_before_a_cut_counts() {
        let mut relations = Relations::default();
        relations.copied(REL, ForkName::Main, 4);
        relations.truncate(REL, Lsn(45), 1, true, false);
        relations.extend(REL, ForkName::Main, 2);
        let t = tag(ForkName::Main, 1);
        let recipe = recipe(&[(t, 20, true), (t, 30, false)], &relations, t, 100);
        assert_eq!((lsns(&recipe), recipe.base), (vec![], Base::Zeroes));
    }

    #[test]
    fn a_copied_database_stands_on_its_source_as_it_was_then() {
        let mut relations = Relations::default();
        relations.copied(REL, ForkName::Main, 4);
        relations.copy_database((1663, 5), (1663, 9), Lsn(45));
        let source = tag(ForkName::Main, 1);
        let copy = BlockTag { rel: RelFileLocator { database: 9, ..REL }, ..source };
        let recipe = recipe(&[(source, 20, false), (source, 50, true), (copy, 60, false)], &relations, copy, 100);
        assert_eq!(lsns(&recipe), [60]);
        let Base::Of(inner) = recipe.base else { panic!("{recipe:?}") };
        assert_eq!((lsns(&inner), inner.base), (vec![20], Base::Copied(source)));
    }

    #[test]
    fn a_page_that_is_led_on_ends_where_one_led_at_once_does() {
        let mut relations = Relations::default();
        relations.copied(REL, ForkName::Main, 100);
        relations.copied(REL, ForkName::Vm, 1);
        relations.truncate(REL, Lsn(45), 10, true, true);
        let t = tag(ForkName::Vm, 0);
        let fork = relations.fork(REL, ForkName::Vm).unwrap();
        let all = Index([(20, false), (30, true), (40, false), (50, false)].map(|(lsn, rebuilds)| (t, lsn, rebuilds)).to_vec());
        let at_once = locate(&all, t, fork, Lsn(100), START).unwrap();
        for cut in 11..100 {
            let before = locate(&all, t, fork, Lsn(cut), START).unwrap();
            let (rebuilds, steps) = go_on(t, fork, &all.references(t, Lsn(cut), Lsn(100)).unwrap(), Lsn(cut), Lsn(100));
            let first = if rebuilds { &[][..] } else { &before.steps };
            assert_eq!([first, &steps].concat(), at_once.steps, "{cut}");
        }
    }

    #[test]
    fn a_cut_heap_clears_the_rest_of_its_maps_last_page() {
        let mut relations = Relations::default();
        relations.copied(REL, ForkName::Main, 100);
        relations.copied(REL, ForkName::Vm, 1);
        relations.truncate(REL, Lsn(45), 10, true, true);
        let t = tag(ForkName::Vm, 0);
        let recipe = recipe(&[(t, 20, false), (t, 50, false)], &relations, t, 100);
        assert_eq!(lsns(&recipe), [20, 45, 50]);
    }
}
