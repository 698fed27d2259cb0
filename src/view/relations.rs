//! Which relations exist at a moment, how long each fork is, and which bytes of the past may still show through.
//!
//! From: `view::fold`, which hands over events in WAL order, from the backup's redo point on.  To: the tree (files and lengths), `view::locate` (how
//! far back a page's records count).
//! In: sizes of the copied files, then events.  Out: a [`Fork`] for each fork that exists.
//! Follows what redo does with files: smgr_redo, xact_redo, dbase_redo, `XLogReadBufferExtended` (14 to 18). FSM forks are not tracked: views have none.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::pg::relation::Fork as ForkName;
use crate::pg::wal::vm::HEAP_BLOCKS_PER_PAGE as HEAP_BLOCKS_PER_VM_PAGE;
use crate::pg::{BlockNo, Lsn, RelFileLocator};

/// One fork of a relation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fork {
    /// Length.
    pub blocks: BlockNo,
    /// Records that end at or before this belong to something older that had the same name.
    pub floor: Lsn,
    /// What lies below the records.
    pub below: Below,
    /// Cuts: records of a page at or past the block that end at or before the Lsn no longer count.
    pub truncations: Vec<Truncation>,
    /// For a visibility map: heap lengths that ended in the middle of one of its pages, whose bits past them were cleared then.
    pub map_cuts: Vec<MapCut>,
}

/// A visibility map's last kept page lost the bits of heap blocks from `heap_blocks` on (`visibilitymap_prepare_truncate`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapCut {
    /// End of the record.
    pub end: Lsn,
    pub heap_blocks: BlockNo,
}

/// Where a page comes from if no record since [`Fork::floor`] rebuilds it whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Below {
    /// The backup's copy, as long as that was.
    Copied { blocks: BlockNo },
    /// The page of another relation as it stood at an Lsn, and what that relation's fork was then: the database was copied file by file.
    CopyOf { rel: RelFileLocator, at: Lsn, source: Arc<Fork> },
    /// Nothing.
    Nothing,
}

/// One cut of a fork.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truncation {
    /// End of the record.
    pub end: Lsn,
    /// The new length.
    pub blocks: BlockNo,
}

/// What a page may be built from, as far as files are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageHistory {
    /// Only records that end after this count.
    pub floor: Lsn,
    pub below: Below,
}

impl Fork {
    fn new(blocks: BlockNo, floor: Lsn, below: Below) -> Fork {
        Fork { blocks, floor, below, truncations: Vec::new(), map_cuts: Vec::new() }
    }

    /// How far back the history of `block` reaches: to the last cut before it, or to the fork's beginning.
    #[must_use]
    pub fn history_of(&self, block: BlockNo) -> PageHistory {
        match self.truncations.iter().rev().find(|cut| cut.blocks <= block) {
            Some(cut) => PageHistory { floor: cut.end, below: Below::Nothing },
            None => {
                let below = match &self.below {
                    Below::Copied { blocks } if block >= *blocks => Below::Nothing,
                    below => below.clone(),
                };
                PageHistory { floor: self.floor, below }
            }
        }
    }
}

/// All relations at a moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Relations {
    forks: BTreeMap<(RelFileLocator, ForkName), Fork>,
    /// Ends of the records that dropped a relation: what it was before must never show through a later one of its name.
    dropped: HashMap<RelFileLocator, Lsn>,
    /// Cuts of visibility maps that did not exist then, as far as anybody has said. They mean nothing to a map that is made later; but an index tells
    /// only after all events of its segments that one was made.
    cuts_of_no_map: HashMap<RelFileLocator, (Vec<Truncation>, Vec<MapCut>)>,
}

impl Relations {
    /// Every fork that exists.
    pub fn iter(&self) -> impl Iterator<Item = (RelFileLocator, ForkName, &Fork)> + '_ {
        self.forks.iter().map(|((rel, name), fork)| (*rel, *name, fork))
    }

    /// A fork, if it exists.
    #[must_use]
    pub fn fork(&self, rel: RelFileLocator, name: ForkName) -> Option<&Fork> {
        self.forks.get(&(rel, name))
    }

    /// Is the relation unlogged? Its init fork says so.
    #[must_use]
    pub fn is_unlogged(&self, rel: RelFileLocator) -> bool {
        self.forks.contains_key(&(rel, ForkName::Init))
    }

    /// A fork that the backup holds, `blocks` long.
    pub fn copied(&mut self, rel: RelFileLocator, name: ForkName, blocks: BlockNo) {
        if name != ForkName::Fsm {
            self.forks.insert((rel, name), Fork::new(blocks, Lsn::INVALID, Below::Copied { blocks }));
        }
    }

    /// A record created the fork, or touches one that must be there.
    pub fn create(&mut self, rel: RelFileLocator, name: ForkName) {
        if name != ForkName::Fsm {
            let floor = self.dropped.get(&rel).copied().unwrap_or(Lsn::INVALID);
            let cuts = &mut self.cuts_of_no_map;
            self.forks.entry((rel, name)).or_insert_with(|| {
                let (truncations, map_cuts) = if name == ForkName::Vm { cuts.remove(&rel).unwrap_or_default() } else { Default::default() };
                Fork { truncations, map_cuts, ..Fork::new(0, floor, Below::Nothing) }
            });
        }
    }

    /// A record rebuilt `block` whole, so that the fork reaches at least that far.
    pub fn extend(&mut self, rel: RelFileLocator, name: ForkName, block: BlockNo) {
        self.create(rel, name);
        if let Some(fork) = self.forks.get_mut(&(rel, name)) {
            fork.blocks = fork.blocks.max(block.saturating_add(1));
        }
    }

    /// A record (ending at `end`) cut the relation's main fork, its visibility map, or both, to `blocks` heap blocks.
    pub fn truncate(&mut self, rel: RelFileLocator, end: Lsn, blocks: BlockNo, main: bool, map: bool) {
        self.create(rel, ForkName::Main);
        if main {
            self.cut(rel, ForkName::Main, Truncation { end, blocks });
        }
        if map {
            let (truncations, map_cuts) = match self.forks.get_mut(&(rel, ForkName::Vm)) {
                Some(fork) => (&mut fork.truncations, &mut fork.map_cuts),
                None => {
                    let (truncations, map_cuts) = self.cuts_of_no_map.entry(rel).or_default();
                    (truncations, map_cuts)
                }
            };
            if !blocks.is_multiple_of(HEAP_BLOCKS_PER_VM_PAGE) {
                map_cuts.push(MapCut { end, heap_blocks: blocks });
            }
            let cut = Truncation { end, blocks: blocks.div_ceil(HEAP_BLOCKS_PER_VM_PAGE) };
            push_cut(truncations, cut);
            if let Some(fork) = self.forks.get_mut(&(rel, ForkName::Vm)) {
                fork.blocks = fork.blocks.min(cut.blocks);
            }
        }
    }

    fn cut(&mut self, rel: RelFileLocator, name: ForkName, cut: Truncation) {
        if let Some(fork) = self.forks.get_mut(&(rel, name)) {
            fork.blocks = fork.blocks.min(cut.blocks);
            push_cut(&mut fork.truncations, cut);
        }
    }

    /// A fork is that long now, or gone: what an index says of many records at once, after their events were taken in.
    pub fn set_length(&mut self, rel: RelFileLocator, name: ForkName, blocks: Option<BlockNo>) {
        match blocks {
            None => drop(self.forks.remove(&(rel, name))),
            Some(blocks) => {
                self.create(rel, name);
                if let Some(fork) = self.forks.get_mut(&(rel, name)) {
                    fork.blocks = blocks;
                }
            }
        }
    }

    /// A record (ending at `end`) dropped the relation with all its forks.
    pub fn drop_relation(&mut self, rel: RelFileLocator, end: Lsn) {
        for name in [ForkName::Main, ForkName::Vm, ForkName::Init] {
            self.forks.remove(&(rel, name));
        }
        self.cuts_of_no_map.remove(&rel);
        self.dropped.insert(rel, end);
    }

    /// A record (ending at `end`) removed a database's directory in one tablespace.
    pub fn drop_database(&mut self, tablespace: u32, database: u32, end: Lsn) {
        let gone: Vec<RelFileLocator> = self.of_database(tablespace, database).map(|(rel, ..)| rel).collect();
        for rel in gone {
            self.drop_relation(rel, end);
        }
    }

    /// A record (ending at `end`) copied a database's directory, file by file, over whatever stood at the target.
    pub fn copy_database(&mut self, source: (u32, u32), target: (u32, u32), end: Lsn) {
        self.drop_database(target.0, target.1, end);
        let copies: Vec<_> = self
            .of_database(source.0, source.1)
            .map(|(rel, name, fork)| {
                let copy = RelFileLocator { tablespace: target.0, database: target.1, relation: rel.relation };
                ((copy, name), Fork::new(fork.blocks, end, Below::CopyOf { rel, at: end, source: Arc::new(fork.clone()) }))
            })
            .collect();
        self.forks.extend(copies);
    }

    fn of_database(&self, tablespace: u32, database: u32) -> impl Iterator<Item = (RelFileLocator, ForkName, &Fork)> + '_ {
        let first = (RelFileLocator { tablespace, database, relation: 0 }, ForkName::Main);
        self.forks
            .range(first..)
            .take_while(move |((rel, _), _)| rel.tablespace == tablespace && rel.database == database)
            .map(|((rel, name), fork)| (*rel, *name, fork))
    }
}

/// A cut hides older ones that kept more.
fn push_cut(cuts: &mut Vec<Truncation>, cut: Truncation) {
    cuts.retain(|older| older.blocks < cut.blocks);
    cuts.push(cut);
}

#[cfg(test)]
mod tests {
    use super::*;

    const REL: RelFileLocator = RelFileLocator { tablespace: 1663, database: 5, relation: 16384 };

    fn main_fork(relations: &Relations) -> &Fork {
        relations.fork(REL, ForkName::Main).unwrap()
    }

    #[test]
    fn what_was_dropped_never_shows_through_what_is_created_later() {
        let mut relations = Relations::default();
        relations.copied(REL, ForkName::Main, 10);
        relations.drop_relation(REL, Lsn(100));
        assert!(relations.fork(REL, ForkName::Main).is_none());
        relations.extend(REL, ForkName::Main, 0);
        assert_eq!(main_fork(&relations).history_of(0), PageHistory { floor: Lsn(100), below: Below::Nothing });
    }

    #[test]
    fn a_page_past_a_cut_begins_anew_and_one_before_it_does_not() {
        let mut relations = Relations::default();
        relations.copied(REL, ForkName::Main, 10);
        relations.truncate(REL, Lsn(50), 4, true, true);
        assert_eq!(main_fork(&relations).blocks, 4);
        relations.extend(REL, ForkName::Main, 6);
        assert_eq!(main_fork(&relations).blocks, 7);
        assert_eq!(main_fork(&relations).history_of(3), PageHistory { floor: Lsn::INVALID, below: Below::Copied { blocks: 10 } });
        assert_eq!(main_fork(&relations).history_of(4), PageHistory { floor: Lsn(50), below: Below::Nothing });
    }

    #[test]
    fn a_deeper_cut_does_not_hide_a_later_shallower_one() {
        let mut relations = Relations::default();
        relations.copied(REL, ForkName::Main, 10);
        relations.truncate(REL, Lsn(50), 2, true, false);
        relations.extend(REL, ForkName::Main, 8);
        relations.truncate(REL, Lsn(90), 6, true, false);
        let fork = main_fork(&relations);
        assert_eq!((fork.history_of(7).floor, fork.history_of(3).floor, fork.history_of(1).floor), (Lsn(90), Lsn(50), Lsn::INVALID));
    }

    #[test]
    fn the_map_is_cut_to_the_pages_that_its_heap_still_needs() {
        let mut relations = Relations::default();
        relations.copied(REL, ForkName::Main, 70_000);
        relations.copied(REL, ForkName::Vm, 3);
        relations.truncate(REL, Lsn(50), HEAP_BLOCKS_PER_VM_PAGE + 1, true, true);
        assert_eq!(relations.fork(REL, ForkName::Vm).unwrap().blocks, 2);
    }

    #[test]
    fn a_copied_database_is_its_source_at_that_moment() {
        let mut relations = Relations::default();
        relations.copied(REL, ForkName::Main, 10);
        relations.copy_database((1663, 5), (1663, 9), Lsn(70));
        let copy = RelFileLocator { database: 9, ..REL };
        let fork = relations.fork(copy, ForkName::Main).unwrap().clone();
        assert_eq!(fork.blocks, 10);
        relations.drop_relation(REL, Lsn(75));
        let PageHistory { floor: Lsn(70), below: Below::CopyOf { rel: REL, at: Lsn(70), source } } = fork.history_of(3) else {
            panic!("{fork:?}");
        };
        assert_eq!(source.history_of(3).below, Below::Copied { blocks: 10 });
        relations.drop_database(1663, 9, Lsn(80));
        assert!(relations.fork(copy, ForkName::Main).is_none());
    }
}
