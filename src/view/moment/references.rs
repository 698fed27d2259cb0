//! Which records touch a block, asked of all that is known of the WAL that leads to a moment.
//!
//! From: `locate`, through [`BlockIndex`](crate::view::locate::BlockIndex).  To: `format::index`, which says in which chunks of WAL; those chunks, which say which records exactly.
//! Looks from the newest stretch back, and stops at a record that rebuilds the page.

use std::ops::Range;
use std::sync::Arc;

use super::error::MomentError;
use crate::format::index::{Entry, WalChunk};
use crate::pg::wal::mentions;
use crate::pg::{BlockTag, Lsn, Timeline};
use crate::view::chunks::ChunkCache;
use crate::view::index_memory::{IndexMemory, Known};
use crate::view::locate::Reference;
use crate::view::scan::ScannedIndex;
use crate::view::stored::{decoders, side_by_side};
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
    mentions: ChunkCache<(Timeline, WalChunk), (BlockTag, Reference)>,
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

/// Of so many chunks what they mention is found out together.
const CHUNKS_TOGETHER: usize = 32;
/// So many entries of blocks in chunks are looked into together: some MB of references at worst.
const MAX_ENTRIES: usize = 4096;

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
                    let all = self.mentions(wal, entry.chunk)?;
                    let of_tag = mentions_of(&all, tag, entry.chunk)?;
                    newest_first.extend(of_tag.iter().rev().map(|(_, reference)| *reference).filter(|r| begin.contains(&r.lsn)));
                }
            }
            Ok(!newest_first[before..].iter().any(|reference| reference.self_contained))
        })?;
        newest_first.reverse();
        Ok(newest_first)
    }

    /// [`References::find`] for several blocks in one way through the WAL: a chunk that speaks of many of them is decoded once. Of so many of the first ones
    /// (at least one) as have entries for some [`MAX_ENTRIES`] chunks. `bring` is told which chunks are wanted next.
    pub(super) fn find_all(
        &self,
        wal: &ArchivedWal,
        asked: &[(BlockTag, Range<Lsn>)],
        bring: &dyn Fn(&[WalChunk]),
    ) -> Result<Vec<Vec<Reference>>, MomentError> {
        let (mut found, mut promised): (Vec<Vec<Reference>>, Vec<bool>) = (Vec::new(), Vec::new());
        let mut wanted: Vec<(WalChunk, usize, Range<Lsn>)> = Vec::new();
        for (of, (tag, begin)) in asked.iter().enumerate() {
            let (mut here, mut rebuilds): (Vec<Reference>, bool) = (Vec::new(), false);
            self.each_source(*tag, begin, &mut |source, begin| {
                Ok(match source {
                    Source::Scanned(index) => {
                        let before = here.len();
                        here.extend(index.references(*tag, begin.start, begin.end));
                        !here[before..].iter().any(|reference| reference.self_contained)
                    }
                    Source::Chunk(entry) => {
                        wanted.push((entry.chunk, of, begin.clone()));
                        rebuilds = entry.rebuilds;
                        !rebuilds
                    }
                })
            })?;
            found.push(here);
            promised.push(rebuilds);
            if wanted.len() >= MAX_ENTRIES {
                break;
            }
        }
        wanted.sort_unstable_by_key(|(chunk, of, _)| (*chunk, *of));
        let by_chunk: Vec<_> = wanted.chunk_by(|a, b| a.0 == b.0).collect();
        for some in by_chunk.chunks(CHUNKS_TOGETHER) {
            let mut missing: Vec<WalChunk> = some.iter().map(|entries| entries[0].0).collect();
            missing.retain(|chunk| !self.memory.0.mentions.has(&(self.timeline, *chunk)));
            bring(&missing);
            // What cannot be read is met again below.
            side_by_side(decoders(missing.len()), &missing, |chunk| drop(self.mentions(wal, *chunk)));
            for (chunk, of, begin) in some.iter().copied().flatten() {
                let all = self.mentions(wal, *chunk)?;
                let of_tag = mentions_of(&all, asked[*of].0, *chunk)?;
                found[*of].extend(of_tag.iter().map(|(_, reference)| *reference).filter(|r| begin.contains(&r.lsn)));
            }
        }
        for ((references, promised), (tag, begin)) in found.iter_mut().zip(promised).zip(asked) {
            references.sort_by_key(|reference| reference.lsn);
            // The record that an entry promises to rebuild the page may lie outside of the range.
            if promised && !references.iter().any(|reference| reference.self_contained) {
                *references = self.find(wal, *tag, begin.clone())?;
            }
        }
        Ok(found)
    }

    /// The chunks of WAL that [`References::find`] reads, as far as indexes know; perhaps one or two more.
    pub(super) fn chunks(&self, tag: BlockTag, begin: Range<Lsn>) -> Result<Vec<WalChunk>, MomentError> {
        let mut chunks = Vec::new();
        self.each_source(tag, &begin, &mut |source, _| match source {
            Source::Scanned(_) => Ok(true),
            Source::Chunk(entry) => {
                if !self.memory.0.mentions.has(&(self.timeline, entry.chunk)) {
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

    /// What the records that begin in a chunk touch, by block, then Lsn.
    fn mentions(&self, wal: &ArchivedWal, chunk: WalChunk) -> Result<Arc<[(BlockTag, Reference)]>, MomentError> {
        self.memory.0.mentions.get_or_load(&(self.timeline, chunk), || {
            let mut all = Vec::new();
            let mut reader = wal.reader_from_page(chunk.start());
            while reader.position() < chunk.end() {
                let Some(raw) = reader.next()? else { break };
                if raw.lsn >= chunk.end() {
                    break;
                }
                let lsn = raw.lsn;
                // What cannot be taken apart was found when the moment was built, if it lies before the moment.
                let Ok(record) = raw.decode(wal.layout.major) else { break };
                mentions(&record, |mention| all.push((mention.tag, Reference::from_mention(lsn, &mention))));
            }
            all.sort_by_key(|(tag, reference)| (*tag, reference.lsn));
            Ok(all)
        })
    }
}

/// The part about one block of what the records of a chunk mention.
fn mentions_of(all: &[(BlockTag, Reference)], tag: BlockTag, chunk: WalChunk) -> Result<&[(BlockTag, Reference)], MomentError> {
    let of_tag = &all[all.partition_point(|(t, _)| *t < tag)..];
    let of_tag = &of_tag[..of_tag.partition_point(|(t, _)| *t == tag)];
    if of_tag.is_empty() { Err(MomentError::Index { tag, at: chunk.start() }) } else { Ok(of_tag) }
}

/// Takes a source and the range of the WAL for which it is asked; says whether to go on.
type Each<'a> = dyn FnMut(Source<'_>, &Range<Lsn>) -> Result<bool, MomentError> + 'a;

/// Something that knows of references.
enum Source<'a> {
    Scanned(&'a ScannedIndex),
    /// A chunk of WAL that an index names.
    Chunk(&'a Entry),
}
