//! Writes an index from sorted entries, statuses, and a log in WAL order.

use std::collections::BTreeMap;

use super::blocks::{LogState, put_group, put_status};
use super::filter::Hashes;
use super::front::{EntryBlock, Front, LogBlock, Place};
use super::{About, Entry, LogItem, SizeChange, StatusBits, Summary, WalChunk};
use crate::pg::{BlockTag, Fork, Lsn, RelFileLocator};

/// A block of entries is closed once it has this many bytes: a question decodes one, some 10 microseconds.
const ENTRY_BLOCK_BYTES: usize = 4 << 10;

/// A block of statuses or of the log, which are read from end to end.
const LONG_BLOCK_BYTES: usize = 64 << 10;

/// So many bytes of blocks are handed on together.
const DRAIN_BYTES: usize = 1 << 20;

/// Entries of one block number are written as groups of at most this many, so that hot blocks do not grow one index block without bound.
const GROUP_ENTRIES: usize = 1024;

/// Writes an index from its beginning to its end: entries, statuses, the log, then the front.
#[derive(Debug)]
pub struct Writer {
    base: WalChunk,
    /// What is not drained yet.
    out: Vec<u8>,
    /// Where the block begins that is being written.
    start: usize,
    entry_blocks: Vec<EntryBlock>,
    block_first: Option<(BlockTag, WalChunk)>,
    before: Option<BlockTag>,
    group: Vec<Entry>,
    status_blocks: Vec<Place>,
    log_blocks: Vec<LogBlock>,
    log_first: Option<Lsn>,
    log_state: LogState,
    hashes: Hashes,
}

impl Writer {
    /// Positions are written from `base` on: no record begins before it.
    #[must_use]
    pub fn new(base: WalChunk) -> Writer {
        Writer {
            base,
            out: Vec::new(),
            start: 0,
            entry_blocks: Vec::new(),
            block_first: None,
            before: None,
            group: Vec::new(),
            status_blocks: Vec::new(),
            log_blocks: Vec::new(),
            log_first: None,
            log_state: LogState::new(base.start()),
            hashes: Hashes::default(),
        }
    }

    /// Takes out the blocks that are done, once there is much of them.
    pub fn drain(&mut self) -> Option<Vec<u8>> {
        if self.start < DRAIN_BYTES {
            return None;
        }
        let open = self.out.split_off(self.start);
        self.start = 0;
        Some(std::mem::replace(&mut self.out, open))
    }

    /// Adds an entry; they come first, sorted by block, then chunk.
    pub fn entry(&mut self, entry: Entry) {
        if self.group.first().is_some_and(|first| first.tag != entry.tag) || self.group.len() >= GROUP_ENTRIES {
            self.close_group();
        }
        self.group.push(entry);
    }

    fn close_group(&mut self) {
        let Some(first) = self.group.first() else { return };
        let (tag, chunk) = (first.tag, first.chunk);
        self.block_first.get_or_insert((tag, chunk));
        put_group(&mut self.out, self.base, self.before, tag, &self.group);
        if self.before != Some(tag) {
            self.hashes.add(tag);
        }
        self.before = Some(tag);
        self.group.clear();
        if self.open_bytes() >= ENTRY_BLOCK_BYTES {
            self.close_entries();
        }
    }

    fn close_entries(&mut self) {
        if let Some(first) = self.block_first.take() {
            let place = self.close_block();
            self.entry_blocks.push(EntryBlock { first, place });
        }
        self.before = None;
    }

    /// Adds the statuses, after all entries.
    pub fn statuses(&mut self, statuses: &BTreeMap<u32, StatusBits>) {
        self.close_group();
        self.close_entries();
        let mut before = 0;
        for (number, bits) in statuses {
            put_status(&mut self.out, before, *number, bits);
            before = *number;
            if self.open_bytes() >= LONG_BLOCK_BYTES {
                let place = self.close_block();
                self.status_blocks.push(place);
                before = 0;
            }
        }
        if self.open_bytes() > 0 {
            let place = self.close_block();
            self.status_blocks.push(place);
        }
    }

    /// Adds a log item, after the statuses; they come in rising order of their ends.
    pub fn log(&mut self, item: &LogItem) {
        self.log_first.get_or_insert(item.end);
        self.log_state.put_item(&mut self.out, item);
        if self.open_bytes() >= LONG_BLOCK_BYTES {
            self.close_log();
        }
    }

    /// Takes over the log that another writer of the same base was given, and nothing else; after the statuses, instead of [`Writer::log`].
    pub(super) fn take_log(&mut self, mut from: Writer) {
        from.close_log();
        self.out.append(&mut from.out);
        self.start = self.out.len();
        self.log_blocks = from.log_blocks;
    }

    fn close_log(&mut self) {
        if let Some(first_end) = self.log_first.take() {
            let place = self.close_block();
            self.log_blocks.push(LogBlock { first_end, place });
        }
        self.log_state = LogState::new(self.base.start());
    }

    fn open_bytes(&self) -> usize {
        self.out.len().saturating_sub(self.start)
    }

    /// The open bytes become a block. Offsets are filled in by the reader.
    fn close_block(&mut self) -> Place {
        let block = self.out.get(self.start..).unwrap_or_default();
        let place = Place { offset: 0, len: u32::try_from(block.len()).unwrap_or(u32::MAX), crc: crc32c::crc32c(block) };
        self.start = self.out.len();
        place
    }

    /// What was not drained, and the front; `None` if the index is larger than one can be (its front would pass 4 GiB).
    ///
    /// `extents` are sorted.
    #[must_use]
    pub fn finish(mut self, about: About, summaries: Vec<Summary>, extents: Vec<(RelFileLocator, Fork, SizeChange)>) -> Option<Vec<u8>> {
        self.close_group();
        self.close_entries();
        self.close_log();
        self.out.extend(self.hashes.filter());
        let filter = self.close_block();
        let (entries, statuses, log) = (self.entry_blocks, self.status_blocks, self.log_blocks);
        let front = Front { about, base: self.base, summaries, extents, entries, statuses, log, filter };
        self.out.append(&mut front.encode()?);
        Some(self.out)
    }
}
