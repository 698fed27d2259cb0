//! Which records touch a block, asked of all that is known of the WAL that leads to a moment.
//!
//! From: `locate`, through [`BlockIndex`](crate::view::locate::BlockIndex).  To: `format::index`, which says in which chunks of WAL; those chunks, which say which records exactly.
//! Looks from the newest stretch back, and stops at a record that rebuilds the page.

use std::ops::Range;
use std::sync::Arc;

use super::error::MomentError;
use super::mentions::{Extent, Mentioned, of_chunk};
use crate::format::index::{Entry, WalChunk};
use crate::parallel;
use crate::pg::{BlockTag, Lsn, Timeline};
use crate::view::chunks::{Chunk, ChunkCache};
use crate::view::index_memory::{IndexMemory, Known};
use crate::view::locate::Reference;
use crate::view::scan::ScannedIndex;
use crate::view::stored::decoders;
use crate::view::wal::ArchivedWal;

/// Memory for what chunks of WAL mention: some 40 KiB for each.
const MENTIONS_BYTES: usize = 24 << 20;
/// Memory for decoded blocks of indexes: some 40 KiB for each.
const BLOCKS_BYTES: usize = 8 << 20;

/// What was decoded of WAL and indexes lately: one memory for all moments of an archive. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ReferenceMemory(Arc<Decoded>);

#[derive(Debug)]
struct Decoded {
    /// By the newest timeline of the path, which decides what a chunk holds.
    mentions: ChunkCache<(Timeline, WalChunk, Extent), Mentioned>,
    /// By the number of the index, and of the block in it.
    blocks: ChunkCache<(u64, usize), Entry>,
    indexes: IndexMemory,
}

impl Default for ReferenceMemory {
    fn default() -> ReferenceMemory {
        let (mentions, blocks) = (ChunkCache::new(MENTIONS_BYTES), ChunkCache::new(BLOCKS_BYTES));
        ReferenceMemory(Arc::new(Decoded { mentions, blocks, indexes: IndexMemory::default() }))
    }
}

impl ReferenceMemory {
    /// Indexes that were opened.
    #[must_use]
    pub fn indexes(&self) -> &IndexMemory {
        &self.0.indexes
    }
}

/// All that is known of the records from the backup on.
#[derive(Debug)]
pub(super) struct References {
    /// In WAL order, without a hole.
    stretches: Vec<Stretch>,
    timeline: Timeline,
    memory: ReferenceMemory,
}

/// Records that begin in a range of the WAL.
#[derive(Debug)]
pub(super) struct Stretch {
    pub(super) begin: Range<Lsn>,
    pub(super) records: Records,
}

/// What is known of them.
#[derive(Debug)]
pub(super) enum Records {
    Scanned(ScannedIndex),
    Indexed(Arc<Known>),
}

/// What is known of the references to a block before any chunk is looked into.
#[derive(Debug)]
pub(super) struct LookedUp {
    pub(super) tag: BlockTag,
    /// In rising order.
    pub(super) known: Vec<Reference>,
    /// Chunks that have more of them, rising, each with the part of the WAL for which it is asked.
    pub(super) entries: Vec<(WalChunk, Range<Lsn>)>,
    /// None before this one counts.
    pub(super) starts: Lsn,
    /// An entry says that a record in the first chunk rebuilds the page by itself. It may lie outside of the part that is asked for.
    pub(super) promised: bool,
}

impl References {
    /// Of stretches along a path that ends on `timeline`.
    pub(super) fn new(stretches: Vec<Stretch>, timeline: Timeline, memory: &ReferenceMemory) -> References {
        References { stretches, timeline, memory: memory.clone() }
    }

    /// The references to `tag` in records that begin in `begin`, in rising order, from the last one that rebuilds the page on.
    pub(super) fn find(&self, wal: &ArchivedWal, tag: BlockTag, begin: Range<Lsn>) -> Result<Vec<Reference>, MomentError> {
        let mut newest_first: Vec<Reference> = Vec::new();
        self.each_source(tag, &begin, &mut |source, begin| {
            let before = newest_first.len();
            match source {
                Source::Scanned(index) => {
                    newest_first.extend(index.references(tag, begin.start, begin.end));
                    newest_first[before..].reverse();
                }
                Source::Chunk(entry) => {
                    let of_tag = self.in_chunk(wal, tag, entry.chunk)?;
                    newest_first.extend(of_tag.into_iter().rev().filter(|r| begin.contains(&r.lsn)));
                }
            }
            Ok(!newest_first[before..].iter().any(|reference| reference.self_contained))
        })?;
        newest_first.reverse();
        Ok(newest_first)
    }

    /// Where [`References::find`] looks for the references to a block in records that begin in `begin`.
    pub(super) fn look_up(&self, tag: BlockTag, begin: &Range<Lsn>) -> Result<LookedUp, MomentError> {
        let mut found = LookedUp { tag, known: Vec::new(), entries: Vec::new(), starts: begin.start, promised: false };
        self.each_source(tag, begin, &mut |source, begin| {
            Ok(match source {
                Source::Scanned(index) => {
                    let here: Vec<Reference> = index.references(tag, begin.start, begin.end).collect();
                    let last = here.iter().rfind(|reference| reference.self_contained);
                    found.starts = last.map_or(found.starts, |reference| reference.lsn);
                    found.known.extend(here.iter());
                    last.is_none()
                }
                Source::Chunk(entry) => {
                    found.entries.push((entry.chunk, begin.clone()));
                    if entry.rebuilds {
                        (found.starts, found.promised) = (entry.chunk.start().max(begin.start), true);
                    }
                    !entry.rebuilds
                }
            })
        })?;
        found.known.sort_by_key(|reference| reference.lsn);
        found.entries.sort_unstable_by_key(|(chunk, _)| *chunk);
        Ok(found)
    }

    /// The references of each of several blocks of one fork in records that begin in `begin`, in rising order. Their entries there are of `chunks` only;
    /// each is decoded once. `bring` is told which are wanted next.
    pub(super) fn read(
        &self,
        wal: &ArchivedWal,
        blocks: &[LookedUp],
        chunks: &[WalChunk],
        begin: &Range<Lsn>,
        bring: &dyn Fn(&[WalChunk]),
    ) -> Result<Vec<Vec<Reference>>, MomentError> {
        let extent = blocks.first().map_or(Extent::Inside, |block| Extent::for_fork(block.tag.fork));
        let missing: Vec<WalChunk> = chunks.iter().copied().filter(|chunk| !self.has_mentions(*chunk, extent)).collect();
        match extent {
            Extent::Inside => bring(&missing),
            Extent::Whole => bring(&missing.iter().flat_map(|chunk| [*chunk, WalChunk(chunk.0 + 1)]).collect::<Vec<_>>()),
        }
        // What cannot be read is met again below.
        parallel::for_each(decoders(missing.len()), &missing, |chunk| drop(self.mentions(wal, *chunk, extent)));
        let of_block = |block: &LookedUp| {
            let before = |lsn: Lsn| block.known.partition_point(|reference| reference.lsn < lsn);
            let mut references = block.known[before(begin.start)..before(begin.end)].to_vec();
            let (first, end) = (WalChunk::of(begin.start), begin.end);
            let from = block.entries.partition_point(|(chunk, _)| *chunk < first);
            for (chunk, here) in block.entries[from..].iter().take_while(|(chunk, _)| chunk.start() < end) {
                let of_tag = self.in_chunk(wal, block.tag, *chunk)?;
                references.extend(of_tag.into_iter().filter(|reference| here.contains(&reference.lsn) && begin.contains(&reference.lsn)));
            }
            references.sort_by_key(|reference| reference.lsn);
            Ok(references)
        };
        blocks.iter().map(of_block).collect()
    }

    /// The chunks of WAL that [`References::find`] reads, as far as indexes know; perhaps one or two more.
    pub(super) fn chunks(&self, tag: BlockTag, begin: Range<Lsn>) -> Result<Vec<WalChunk>, MomentError> {
        let mut chunks = Vec::new();
        self.each_source(tag, &begin, &mut |source, _| match source {
            Source::Scanned(_) => Ok(true),
            Source::Chunk(entry) => {
                if !self.has_mentions(entry.chunk, Extent::for_fork(tag.fork)) {
                    chunks.push(entry.chunk);
                }
                Ok(!entry.rebuilds)
            }
        })?;
        Ok(chunks)
    }

    /// Goes from source to source of references, newest first, until `each` says that it has enough.
    fn each_source(&self, tag: BlockTag, begin: &Range<Lsn>, each: &mut Each<'_>) -> Result<(), MomentError> {
        for stretch in self.stretches.iter().rev() {
            let here = stretch.begin.start.max(begin.start)..stretch.begin.end.min(begin.end);
            if here.is_empty() {
                continue;
            }
            match &stretch.records {
                Records::Scanned(index) => {
                    if !each(Source::Scanned(index), &here)? {
                        return Ok(());
                    }
                }
                Records::Indexed(index) if !index.may_have(tag) => {}
                Records::Indexed(index) => {
                    let chunks = WalChunk::of(here.start)..WalChunk(WalChunk::of(Lsn(here.end.0 - 1)).0 + 1);
                    let block = |block: usize| self.memory.0.blocks.get_or_load(&(index.number, block), || index.entry_block(block));
                    for entry in index.lookup_in(tag, chunks, block)?.iter().rev() {
                        if !each(Source::Chunk(entry), &here)? {
                            return Ok(());
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// The references to `tag` in records that begin in a chunk which has some.
    fn in_chunk(&self, wal: &ArchivedWal, tag: BlockTag, chunk: WalChunk) -> Result<Vec<Reference>, MomentError> {
        let mut extent = Extent::for_fork(tag.fork);
        loop {
            let all = self.mentions(wal, chunk, extent)?;
            let of_tag = &all[all.partition_point(|mentioned| mentioned.tag < tag)..];
            let of_tag = &of_tag[..of_tag.partition_point(|mentioned| mentioned.tag == tag)];
            if !of_tag.is_empty() && of_tag.iter().all(|mentioned| mentioned.is_whole) {
                return Ok(of_tag.iter().map(|mentioned| mentioned.reference).collect());
            }
            match extent {
                // The record that goes on behind the chunk counts if it does go on there: another one may stand in its place.
                Extent::Inside => extent = Extent::Whole,
                Extent::Whole => return Err(MomentError::Index { tag, at: chunk.start() }),
            }
        }
    }

    fn has_mentions(&self, chunk: WalChunk, extent: Extent) -> bool {
        self.memory.0.mentions.has(&(self.timeline, chunk, extent))
    }

    /// What the records that begin in a chunk touch, by block, then Lsn.
    fn mentions(&self, wal: &ArchivedWal, chunk: WalChunk, extent: Extent) -> Result<Chunk<Mentioned>, MomentError> {
        self.memory.0.mentions.get_or_load(&(self.timeline, chunk, extent), || of_chunk(wal, chunk, extent))
    }
}

/// Takes a source and the range of the WAL for which it is asked; says whether to go on.
type Each<'a> = dyn FnMut(Source<'_>, &Range<Lsn>) -> Result<bool, MomentError> + 'a;

/// Something that knows of references.
enum Source<'a> {
    Scanned(&'a ScannedIndex),
    /// A chunk of WAL that an index names.
    Chunk(&'a Entry),
}
