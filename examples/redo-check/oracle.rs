//! Applies each record to the page as the WAL last showed it, and compares the result with the record's own after-image.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::{Duration, Instant};

use bygone::pg::page::Page;
use bygone::pg::wal::{BlockRef, Record, Rmgr, vm};
use bygone::pg::{BlockTag, Fork, Major};
use bygone::redo::{self, Context, Effect, Target, mask};

use crate::corpus::Corpus;
use crate::mutate::{self, Dice};
use crate::segments;

/// Which effect of which operation was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) rmgr: Rmgr,
    pub(crate) op: u8,
    pub(crate) block: Reference,
}

/// The effect's place in the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reference {
    Id(u8),
    /// The visibility map, by reference.
    Map(u8),
    /// The visibility map, without a reference: compared when the map's page is next seen.
    UnregisteredMap,
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Count {
    /// Redone and equal to the after-image.
    pub(crate) equal: u64,
    /// Redone and different.
    pub(crate) different: u64,
    /// Refused by redo.
    pub(crate) refused: u64,
    /// Restored from an image: nothing to compare.
    pub(crate) images: u64,
    /// The page before was not known, or carried the change already.
    pub(crate) untried: u64,
}

/// The result for one cluster.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) counts: BTreeMap<Key, Count>,
    pub(crate) records: u64,
    pub(crate) redo_time: Duration,
    pub(crate) redone: u64,
    /// The first differences and refusals, in words.
    pub(crate) complaints: Vec<String>,
    pub(crate) end: String,
}

impl Tally {
    fn at(&mut self, record: &Record<'_>, block: Reference) -> &mut Count {
        self.counts.entry(Key { rmgr: record.rmgr, op: record.op(), block }).or_default()
    }

    fn complain(&mut self, words: impl FnOnce() -> String) {
        const MOST: usize = 40;
        if self.complaints.len() < MOST {
            self.complaints.push(words());
        }
    }
}

/// Pages as the WAL last showed them.
struct Oracle<'c> {
    corpus: Option<&'c mut Corpus>,
    context: Context,
    pages: HashMap<BlockTag, Page>,
    /// Unregistered clears of map pages that no comparison has confirmed yet.
    unconfirmed: HashMap<BlockTag, Vec<Key>>,
    tally: Tally,
    dice: Dice,
    mutations: usize,
}

/// Reads all WAL in `dir`; each change is tried with `mutations` damaged versions too. A corpus gets inputs of every kind.
pub(crate) fn run(major: Major, dir: &Path, mutations: usize, mut corpus: Option<&mut Corpus>) -> anyhow::Result<Tally> {
    if let Some(corpus) = corpus.as_deref_mut() {
        corpus.segments(major, dir)?;
    }
    let mut reader = segments::reader(major, dir)?;
    // The servers of scripts/redo-check have no checksums; with them the one flag that this decides is masked anyway.
    let context = Context { major, hint_bits_logged: false };
    let mut oracle = Oracle {
        corpus,
        context,
        pages: HashMap::new(),
        unconfirmed: HashMap::new(),
        tally: Tally::default(),
        dice: Dice::new(),
        mutations,
    };
    while let Ok(Some(raw)) = reader.next() {
        oracle.tally.records += 1;
        let record = raw.decode(major)?;
        oracle.remember(&record, raw.bytes)?;
        oracle.take(&record);
    }
    oracle.tally.end = reader.end().map(|end| end.to_string()).unwrap_or_default();
    Ok(oracle.tally)
}

impl Oracle<'_> {
    /// Gives the corpus the record, with the pages that it changes as they are before it.
    fn remember(&mut self, record: &Record<'_>, bytes: &[u8]) -> anyhow::Result<()> {
        let Some(corpus) = self.corpus.as_deref_mut() else { return Ok(()) };
        corpus.record(self.context.major, record, bytes)?;
        for block in record.blocks.iter().filter(|block| !block.image.as_ref().is_some_and(|image| image.apply)) {
            if let Some(page) = self.pages.get(&block.tag) {
                corpus.redo(self.context.major, record, bytes, block.id, page)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, record: &Record<'_>) {
        self.forget_truncated(record);
        self.clear_unregistered(record);
        for block in &record.blocks {
            self.take_block(record, block);
        }
    }

    /// `xl_smgr_truncate`: block number, then the relation.
    fn forget_truncated(&mut self, record: &Record<'_>) {
        const TRUNCATE: u8 = 0x20;
        if record.rmgr != Rmgr::STORAGE || record.op() != TRUNCATE {
            return;
        }
        let word = |at: usize| record.main_data.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let (len, database, relation) = (word(0), word(8), word(12));
        self.pages.retain(|tag, _| {
            let same = tag.rel.database == database && tag.rel.relation == relation;
            !same || (tag.fork == Fork::Main && tag.block < len)
        });
    }

    fn clear_unregistered(&mut self, record: &Record<'_>) {
        let mut tags: Vec<BlockTag> = vm::unregistered_clears(record).map(|clear| clear.tag()).collect();
        tags.dedup();
        for tag in tags {
            let key = Key { rmgr: record.rmgr, op: record.op(), block: Reference::UnregisteredMap };
            let Some(page) = self.pages.get_mut(&tag) else {
                self.tally.at(record, key.block).untried += 1;
                continue;
            };
            match redo::apply(&self.context, record, Target::UnregisteredVm(tag.block), page) {
                Ok(_) => self.unconfirmed.entry(tag).or_default().push(key),
                Err(error) => self.tally.complain(|| error.to_string()),
            }
        }
    }

    fn take_block(&mut self, record: &Record<'_>, block: &BlockRef<'_>) {
        let id = if block.tag.fork == Fork::Vm && record.rmgr == Rmgr::HEAP { Reference::Map(block.id) } else { Reference::Id(block.id) };
        let known = self.pages.get(&block.tag).cloned();
        let mut page = known.clone().unwrap_or_else(Page::zeroed);
        let is_image = block.image.as_ref().is_some_and(|image| image.apply);
        if !is_image {
            mutate::run(&mut self.dice, self.mutations, &self.context, record, block, &page);
        }
        let start = Instant::now();
        let result = redo::apply(&self.context, record, Target::Block(block.id), &mut page);
        if !is_image {
            self.tally.redo_time += start.elapsed();
            self.tally.redone += 1;
        }
        let image = block.image.as_ref().and_then(|image| image.restore(record.end).ok());
        match (&result, &image) {
            (Ok(_), _) if is_image => self.tally.at(record, id).images += 1,
            (Ok(Effect::Applied), Some(image)) if known.is_some() || block.will_init => self.compare(record, block, id, &page, image),
            (Ok(_), _) => self.tally.at(record, id).untried += 1,
            (Err(error), _) => {
                self.tally.at(record, id).refused += 1;
                self.tally.complain(|| error.to_string());
            }
        }
        // CREATE DATABASE logs map pages as if they had a hole, so the primary's bits are not in the WAL and recovery clears them.
        if block.tag.fork == Fork::Vm && block.image.as_ref().is_some_and(|image| image.hole_len > 0) {
            self.pages.remove(&block.tag);
        } else {
            self.pages.insert(block.tag, image.unwrap_or(page));
        }
    }

    fn compare(&mut self, record: &Record<'_>, block: &BlockRef<'_>, id: Reference, ours: &Page, image: &Page) {
        let (mut ours, mut theirs) = (ours.clone(), image.clone());
        mask::mask(record.rmgr, block.tag, &mut ours);
        mask::mask(record.rmgr, block.tag, &mut theirs);
        let confirmed = self.unconfirmed.remove(&block.tag).unwrap_or_default();
        if ours == theirs {
            self.tally.at(record, id).equal += 1;
            for key in confirmed {
                self.tally.counts.entry(key).or_default().equal += 1;
            }
            return;
        }
        self.tally.at(record, id).different += 1;
        self.tally.complain(|| describe(record, block, &ours, &theirs));
    }
}

/// Where two pages differ, and how.
fn describe(record: &Record<'_>, block: &BlockRef<'_>, ours: &Page, theirs: &Page) -> String {
    let places: Vec<usize> = (0..ours.0.len()).filter(|at| ours.0[*at] != theirs.0[*at]).collect();
    let first = places.first().copied().unwrap_or_default();
    let window = |page: &Page| hex::encode(&page.0[first..(first + 16).min(page.0.len())]);
    format!(
        "{} {:02X} at {} block {} ({}): {} bytes differ, the first at {first} of {}..{}/{}: ours {} theirs {}",
        record.rmgr.name().unwrap_or("?"),
        record.op(),
        record.lsn,
        block.id,
        block.tag,
        places.len(),
        theirs.lower(),
        theirs.upper(),
        theirs.special_offset(),
        window(ours),
        window(theirs),
    )
}
