//! Merges the indexes of a run of segments into one: a roll-up.
//!
//! Entries of one block come to lie side by side, whichever segments they are of, so that a lookup reads one block where it had to ask every
//! segment. Summaries and the log are taken over as they are; statuses and extents become one. Inputs may be roll-ups themselves.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::read::{Index, IndexBytes, IndexError};
use super::write::Writer;
use super::{About, BadIndex, Entry, Has, SizeChange, StatusBits, Summary};
use crate::pg::wal::Effect;
use crate::pg::{Fork, Lsn, RelFileLocator};

/// Takes pieces of an index in their order.
type Sink<'a, E> = dyn FnMut(&[u8]) -> Result<(), E> + 'a;

type Extents = BTreeMap<(RelFileLocator, Fork), SizeChange>;

/// Merges `inputs`, indexes of adjacent runs of segments of one timeline and cluster, in rising order; hands the result over piece by piece.
///
/// Memory: the fronts, the statuses, and one block of each input.
///
/// # Errors
/// Those of `inputs` and of `sink`; [`BadIndex::Damaged`] if the runs are not adjacent, or not of one cluster.
pub fn merge<B: IndexBytes>(inputs: &[Index<B>], sink: &mut Sink<'_, B::Error>) -> Result<(), IndexError<B::Error>> {
    let about = run(inputs).ok_or(BadIndex::Damaged { what: "the indexes to merge are not those of a run of segments" })?;
    let base = inputs.iter().map(Index::base).min().unwrap_or(super::WalChunk(0));
    let mut writer = Writer::new(base);
    let mut drain = |writer: &mut Writer| writer.drain().map_or(Ok(()), |bytes| sink(&bytes)).map_err(IndexError::Read);
    merge_entries(inputs, &mut |entry| {
        writer.entry(entry);
        drain(&mut writer)
    })?;
    let mut statuses: BTreeMap<u32, StatusBits> = BTreeMap::new();
    for input in inputs {
        input.statuses(&mut |number, bits| {
            let all = statuses.entry(number).or_insert([0; _]);
            all.iter_mut().zip(bits).for_each(|(all, more)| *all |= more);
        })?;
    }
    writer.statuses(&statuses);
    let mut summaries: Vec<Summary> = Vec::new();
    let mut extents = Extents::new();
    for input in inputs {
        drain(&mut writer)?;
        let drops = input.summaries().iter().any(|summary| summary.has.any(Has::DATABASE_DROP));
        input.log(Lsn(0), &mut |item| {
            writer.log(&item);
            if drops && let Ok(Some(Effect::DropDatabase { database, tablespaces })) = item.effect(about.major) {
                forget_database(&mut extents, database, &tablespaces);
            }
            true
        })?;
        summaries.extend(input.summaries());
        for (rel, fork, change) in input.extents() {
            extents.entry((*rel, *fork)).and_modify(|all: &mut SizeChange| *all = all.then(*change)).or_insert(*change);
        }
    }
    let extents = extents.into_iter().map(|((rel, fork), change)| (rel, fork, change)).collect();
    let rest = writer.finish(about, summaries, extents);
    sink(&rest.ok_or(BadIndex::Damaged { what: "it would be larger than an index can be" })?).map_err(IndexError::Read)
}

/// The same, whole.
///
/// # Errors
/// As [`merge`].
pub fn merge_in_memory<B: IndexBytes>(inputs: &[Index<B>]) -> Result<Vec<u8>, IndexError<B::Error>> {
    let mut merged = Vec::new();
    merge(inputs, &mut |bytes| {
        merged.extend_from_slice(bytes);
        Ok(())
    })?;
    Ok(merged)
}

/// A database was dropped after what `extents` tell.
fn forget_database(extents: &mut Extents, database: u32, tablespaces: &[u32]) {
    let gone = extents.iter_mut().filter(|((rel, _), _)| rel.database == database && tablespaces.contains(&rel.tablespace));
    gone.for_each(|(_, change)| *change = SizeChange::unlink());
}

/// What the merged index is about; `None` if the inputs do not follow each other.
fn run<B: IndexBytes>(inputs: &[Index<B>]) -> Option<About> {
    let (first, last) = (inputs.first()?.about(), inputs.last()?.about());
    let adjacent = inputs.windows(2).all(|pair| match pair {
        [a, b] => {
            let (a, b) = (a.about(), b.about());
            let same = (a.major, a.system_id, a.segment_size, a.first.timeline) == (b.major, b.system_id, b.segment_size, b.first.timeline);
            same && a.last_no.checked_add(1) == Some(b.first.no)
        }
        _ => true,
    });
    adjacent.then_some(About { last_no: last.last_no, ..*first })
}

/// One input, as far as it was handed over.
struct Walk<'i, B> {
    index: &'i Index<B>,
    block: Vec<Entry>,
    next_in_block: usize,
    next_block: usize,
}

impl<B: IndexBytes> Walk<'_, B> {
    fn next(&mut self) -> Result<Option<Entry>, IndexError<B::Error>> {
        while self.next_in_block >= self.block.len() {
            if self.next_block >= self.index.entry_block_count() {
                return Ok(None);
            }
            self.block = self.index.entry_block(self.next_block)?;
            self.next_block = self.next_block.saturating_add(1);
            self.next_in_block = 0;
        }
        let entry = self.block.get(self.next_in_block).copied();
        self.next_in_block = self.next_in_block.saturating_add(1);
        Ok(entry)
    }
}

/// Hands over all entries of all inputs, by block, then chunk. Two inputs may know of one chunk: it holds the records around their border.
fn merge_entries<B: IndexBytes>(
    inputs: &[Index<B>],
    each: &mut dyn FnMut(Entry) -> Result<(), IndexError<B::Error>>,
) -> Result<(), IndexError<B::Error>> {
    let mut walks: Vec<Walk<'_, B>> =
        inputs.iter().map(|index| Walk { index, block: Vec::new(), next_in_block: 0, next_block: 0 }).collect();
    let mut heap: BinaryHeap<Reverse<(Entry, usize)>> = BinaryHeap::new();
    for (number, walk) in walks.iter_mut().enumerate() {
        heap.extend(walk.next()?.map(|entry| Reverse((entry, number))));
    }
    let mut held: Option<Entry> = None;
    while let Some(Reverse((entry, number))) = heap.pop() {
        if let Some(walk) = walks.get_mut(number) {
            heap.extend(walk.next()?.map(|entry| Reverse((entry, number))));
        }
        match &mut held {
            Some(before) if (before.tag, before.chunk) == (entry.tag, entry.chunk) => before.rebuilds |= entry.rebuilds,
            _ => held.replace(entry).map_or(Ok(()), &mut *each)?,
        }
    }
    held.map_or(Ok(()), each)
}
