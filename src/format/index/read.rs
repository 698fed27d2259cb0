//! Answers questions from an index, reading only what they need.

use std::ops::Range;

use thiserror::Error;

use super::blocks::{read_entries, read_log, read_statuses};
use super::filter::Filter;
use super::front::{Front, Place, TRAILER_BYTES, Trailer};
use super::{About, BadIndex, Entry, LogItem, SizeChange, StatusBits, Summary, WalChunk};
use crate::pg::{BlockTag, Fork, Lsn, RelFileLocator};

/// The index's last chunk of this size is read before the length of the front is known: that of an aux stream.
const FIRST_READ: u64 = 64 << 10;

/// So much of statuses, log and filter is read together.
const HELD_AT_MOST: u64 = 4 << 20;

/// Where an index's bytes are.
pub trait IndexBytes {
    type Error;

    /// How many there are.
    fn len(&self) -> u64;

    /// Bytes `range` (half-open), all of them.
    ///
    /// # Errors
    /// Whatever keeps them from being read.
    fn read(&self, range: Range<u64>) -> Result<Vec<u8>, Self::Error>;

    /// What they take in memory.
    fn memory_bytes(&self) -> usize;

    /// Is there nothing?
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl IndexBytes for Vec<u8> {
    type Error = std::convert::Infallible;

    fn memory_bytes(&self) -> usize {
        self.capacity()
    }

    fn len(&self) -> u64 {
        self.as_slice().len() as u64
    }

    fn read(&self, range: Range<u64>) -> Result<Vec<u8>, Self::Error> {
        let range = usize::try_from(range.start).unwrap_or(usize::MAX)..usize::try_from(range.end).unwrap_or(usize::MAX);
        Ok(self.get(range).unwrap_or_default().to_vec())
    }
}

/// Why an index gives no answer.
#[derive(Debug, Error)]
pub enum IndexError<E> {
    /// Its bytes cannot be had.
    #[error(transparent)]
    Read(E),
    /// They make no sense.
    #[error(transparent)]
    Bad(#[from] BadIndex),
}

/// An open index: its front in memory, the rest where it is.
#[derive(Debug)]
pub struct Index<B> {
    bytes: B,
    front: Front,
    /// Where the blocks end.
    front_at: u64,
    filter: Option<Filter>,
    /// Bytes that were read already, and where they begin: statuses and log.
    held: (u64, Vec<u8>),
}

impl<B: IndexBytes> Index<B> {
    /// Reads trailer and front. Cost: one read, two if the front is longer than the last chunk.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn open(bytes: B) -> Result<Index<B>, IndexError<B::Error>> {
        const SHORT: BadIndex = BadIndex::Damaged { what: "it is shorter than its front" };
        let len = bytes.len();
        let first = len.saturating_sub(1) & !FIRST_READ.saturating_sub(1);
        let last = bytes.read(first.min(len.saturating_sub(TRAILER_BYTES as u64))..len).map_err(IndexError::Read)?;
        let (blocks_and_front, trailer) = last.split_at_checked(last.len().saturating_sub(TRAILER_BYTES)).unwrap_or_default();
        let trailer = Trailer::decode(trailer)?;
        let front_end = len.saturating_sub(TRAILER_BYTES as u64);
        let front_at = front_end.checked_sub(trailer.front_len.into()).ok_or(SHORT)?;
        let front_len = usize::try_from(trailer.front_len).map_err(|_| SHORT)?;
        let front = match blocks_and_front.len().checked_sub(front_len).and_then(|at| blocks_and_front.get(at..)) {
            Some(front) => Front::decode(&trailer, front)?,
            None => Front::decode(&trailer, &bytes.read(front_at..front_end).map_err(IndexError::Read)?)?,
        };
        Ok(Index { bytes, front, front_at, filter: None, held: (0, Vec::new()) })
    }

    /// Reads the filter too, if there is one, and what lies beside it, unless that is much: for whoever opens many indexes, asks them all for statuses and
    /// log, and then for one block after the other. Cost: one read.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn with_filter(mut self) -> Result<Index<B>, IndexError<B::Error>> {
        let behind = self.front.behind_entries();
        let is_short = behind.end.saturating_sub(behind.start) <= HELD_AT_MOST && behind.end <= self.front_at;
        if is_short && self.bytes.memory_bytes() == 0 {
            self.held = (behind.start, self.bytes.read(behind).map_err(IndexError::Read)?);
        }
        if self.front.filter.len > 0 {
            let mut filter = None;
            self.read_block(self.front.filter, &mut |bytes| {
                filter = Some(Filter::decode(bytes)?);
                Some(())
            })?;
            self.filter = filter;
        }
        let (start, bytes) = &mut self.held;
        bytes.truncate(usize::try_from(self.front.filter.offset.saturating_sub(*start)).unwrap_or(usize::MAX));
        bytes.shrink_to_fit();
        Ok(self)
    }

    /// `false`: it has no entry of this block. Costs next to nothing, and tells of few blocks that are not there, if the filter was read.
    #[must_use]
    pub fn may_have(&self, tag: BlockTag) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.may_have(tag))
    }

    /// What is in memory of it, about.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let filter = self.filter.as_ref().map_or(0, Filter::memory_bytes);
        [self.bytes.memory_bytes(), self.held.1.capacity(), filter].into_iter().fold(self.front.memory_bytes(), usize::saturating_add)
    }

    /// What it is about. The caller compares it with what was asked for.
    #[must_use]
    pub fn about(&self) -> &About {
        &self.front.about
    }

    /// One summary for each segment, in rising order.
    #[must_use]
    pub fn summaries(&self) -> &[Summary] {
        &self.front.summaries
    }

    /// How the run of WAL changed the files' lengths, sorted by relation and fork. Databases copied or dropped whole are not in it: see
    /// [`super::Has::DATABASE_COPY`] and [`super::Has::DATABASE_DROP`].
    #[must_use]
    pub fn extents(&self) -> &[(RelFileLocator, Fork, SizeChange)] {
        &self.front.extents
    }

    /// How one fork's length changed; `None` if nothing touched it.
    #[must_use]
    pub fn extent(&self, rel: RelFileLocator, fork: Fork) -> Option<SizeChange> {
        let at = self.front.extents.binary_search_by_key(&(rel, fork), |(rel, fork, _)| (*rel, *fork)).ok()?;
        self.front.extents.get(at).map(|(_, _, change)| *change)
    }

    /// The chunks of `range` (half-open) in which records begin that touch `tag`, in rising order.
    ///
    /// Cost: one block of about 4 KiB is read, more for a block of a relation with thousands of chunks.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn lookup(&self, tag: BlockTag, range: Range<WalChunk>) -> Result<Vec<Entry>, IndexError<B::Error>> {
        self.lookup_in(tag, range, |number| self.entry_block(number))
    }

    /// The same, with blocks of entries from `block`, which may remember them: it is given the number of one and gives what
    /// [`Index::entry_block`] does.
    ///
    /// # Errors
    /// Those of `block`.
    pub fn lookup_in<E, T: AsRef<[Entry]>>(
        &self,
        tag: BlockTag,
        range: Range<WalChunk>,
        mut block: impl FnMut(usize) -> Result<T, E>,
    ) -> Result<Vec<Entry>, E> {
        let mut found = Vec::new();
        let from = (tag, range.start);
        for number in self.first_block(from)..self.entry_block_count() {
            let block = block(number)?;
            let block = block.as_ref();
            let first = block.partition_point(|entry| (entry.tag, entry.chunk) < from);
            let wanted = |entry: &&Entry| entry.tag == tag && entry.chunk < range.end;
            let before = found.len();
            found.extend(block.get(first..).unwrap_or_default().iter().take_while(wanted));
            let taken = found.len().saturating_sub(before);
            if first.saturating_add(taken) < block.len() {
                break;
            }
        }
        Ok(found)
    }

    /// All entries of one fork, by block, then chunk. `each` may stop by returning `false`.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn fork(&self, rel: RelFileLocator, fork: Fork, each: &mut dyn FnMut(Entry) -> bool) -> Result<(), IndexError<B::Error>> {
        let first = BlockTag { rel, fork, block: 0 };
        self.entry_blocks(self.first_block((first, WalChunk(0))), &mut |entry| {
            let here = (entry.tag.rel, entry.tag.fork) == (rel, fork);
            if here { each(entry) } else { entry.tag < first }
        })
    }

    /// All entries, by block, then chunk. `each` may stop by returning `false`.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn entries(&self, each: &mut dyn FnMut(Entry) -> bool) -> Result<(), IndexError<B::Error>> {
        self.entry_blocks(0, each)
    }

    /// The first chunk.
    pub(super) fn base(&self) -> WalChunk {
        self.front.base
    }

    /// The block that the first entry from `from` on is in, or the one before.
    fn first_block(&self, from: (BlockTag, WalChunk)) -> usize {
        // A long group is split, so the block before the first one past `from` may hold it.
        self.front.entries.partition_point(|block| block.first <= from).saturating_sub(1)
    }

    /// Number of blocks of entries, for callers that walk several indexes side by side.
    pub(super) fn entry_block_count(&self) -> usize {
        self.front.entries.len()
    }

    /// All entries of block `number` of them, sorted; nothing if there is no such block.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn entry_block(&self, number: usize) -> Result<Vec<Entry>, IndexError<B::Error>> {
        let mut all = Vec::new();
        if let Some(block) = self.front.entries.get(number) {
            self.read_block(block.place, &mut |bytes| {
                read_entries(bytes, self.front.base, &mut |entry| {
                    all.push(entry);
                    true
                })
            })?;
        }
        Ok(all)
    }

    fn entry_blocks(&self, first: usize, each: &mut dyn FnMut(Entry) -> bool) -> Result<(), IndexError<B::Error>> {
        let mut going = true;
        for block in self.front.entries.get(first..).unwrap_or_default() {
            self.read_block(block.place, &mut |bytes| {
                read_entries(bytes, self.front.base, &mut |entry| {
                    going = each(entry);
                    going
                })
            })?;
            if !going {
                break;
            }
        }
        Ok(())
    }

    /// The log of metadata from the first item that ends after `after`, in rising order. `each` may stop by returning `false`.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn log(&self, after: Lsn, each: &mut dyn FnMut(LogItem) -> bool) -> Result<(), IndexError<B::Error>> {
        let first = self.front.log.partition_point(|block| block.first_end <= after).saturating_sub(1);
        let mut going = true;
        for block in self.front.log.get(first..).unwrap_or_default() {
            self.read_block(block.place, &mut |bytes| {
                read_log(bytes, self.front.base.start(), &mut |item| {
                    going = item.end <= after || each(item);
                    going
                })
            })?;
            if !going {
                break;
            }
        }
        Ok(())
    }

    /// How transactions ended, 1024 at a time: those from `number` x 1024 on.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn statuses(&self, each: &mut dyn FnMut(u32, &StatusBits)) -> Result<(), IndexError<B::Error>> {
        self.front.statuses.iter().try_for_each(|place| self.read_block(*place, &mut |bytes| read_statuses(bytes, each)))
    }

    fn read_block(&self, place: Place, decode: &mut dyn FnMut(&[u8]) -> Option<()>) -> Result<(), IndexError<B::Error>> {
        let end = place.offset.saturating_add(place.len.into());
        if end > self.front_at {
            return Err(BadIndex::Damaged { what: "a block would end behind them all" }.into());
        }
        let read;
        let bytes = match self.held_part(place.offset..end) {
            Some(held) => held,
            None => {
                read = self.bytes.read(place.offset..end).map_err(IndexError::Read)?;
                &read
            }
        };
        if crc32c::crc32c(bytes) != place.crc {
            return Err(BadIndex::Damaged { what: "a block does not have the CRC that the front states" }.into());
        }
        Ok(decode(bytes).ok_or(BadIndex::Damaged { what: "a block makes no sense" })?)
    }

    fn held_part(&self, range: Range<u64>) -> Option<&[u8]> {
        let (start, held) = &self.held;
        let at = |offset: u64| usize::try_from(offset.checked_sub(*start)?).ok();
        held.get(at(range.start)?..at(range.end)?)
    }
}
