//! Block indexes that were opened lately: one memory for all moments of an archive, and for finding the point that a moment means.
//!
//! From: `view::indexes`.  To: `repo::indexes`, through whoever opens one.
//! Sound because an index is of segments that never change. Bounded; a moment keeps its own indexes beyond that.

use std::ops::Deref;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

use crate::repo::indexes::StoredIndex;
use crate::repo::layout::SegmentRun;

/// Memory for them: those of 1000 segments, or the fronts and filters of 100 roll-ups.
const BYTES: usize = 32 << 20;

/// An opened index. Its number tells it apart from all others of the archive.
#[derive(Debug)]
pub struct Known {
    pub number: u64,
    index: StoredIndex,
}

impl Deref for Known {
    type Target = StoredIndex;

    fn deref(&self) -> &StoredIndex {
        &self.index
    }
}

/// The memory. Cheap to clone.
#[derive(Debug, Clone)]
pub struct IndexMemory(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    opened: LruCache<SegmentRun, Arc<Known>>,
    bytes: usize,
    next: u64,
}

impl Default for IndexMemory {
    fn default() -> IndexMemory {
        IndexMemory(Arc::new(Mutex::new(State { opened: LruCache::unbounded(), bytes: 0, next: 0 })))
    }
}

impl IndexMemory {
    /// The index of a run: from here, or else as `open` gives it.
    ///
    /// # Errors
    /// Those of `open`. That there is none is not remembered.
    pub fn get_or_open<E>(&self, run: SegmentRun, open: impl FnOnce() -> Result<Option<StoredIndex>, E>) -> Result<Option<Arc<Known>>, E> {
        if let Some(known) = self.0.lock().opened.get(&run) {
            return Ok(Some(known.clone()));
        }
        Ok(open()?.map(|index| self.keep(run, index)))
    }

    fn keep(&self, run: SegmentRun, index: StoredIndex) -> Arc<Known> {
        let mut state = self.0.lock();
        let known = Arc::new(Known { number: state.next, index });
        state.next += 1;
        state.bytes += known.memory_bytes();
        if let Some(before) = state.opened.put(run, known.clone()) {
            state.bytes -= before.memory_bytes();
        }
        while state.bytes > BYTES && state.opened.len() > 1 {
            let Some((_, oldest)) = state.opened.pop_lru() else { break };
            state.bytes -= oldest.memory_bytes();
        }
        known
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::format::index::{About, Index, WalChunk, Writer};
    use crate::pg::{Major, SegmentSize, Timeline, WalSegment};
    use crate::repo::indexes::IndexSource;

    fn run(no: u64) -> SegmentRun {
        SegmentRun { timeline: Timeline(1), first: no, last: no }
    }

    /// An index that says nothing, with room for so many bytes.
    fn index(no: u64, room: usize) -> StoredIndex {
        let first = WalSegment { timeline: Timeline(1), no };
        let about = About { major: Major::V15, system_id: 42, segment_size: SegmentSize::DEFAULT, first, last_no: no };
        let mut bytes = Writer::new(WalChunk(0)).finish(about, Vec::new(), Vec::new()).unwrap();
        bytes.reserve(room);
        Index::open(IndexSource::Memory(bytes)).unwrap()
    }

    #[test]
    fn an_index_is_opened_once_and_one_that_is_not_there_each_time() {
        let memory = IndexMemory::default();
        let open = |found: Option<StoredIndex>| memory.get_or_open(run(3), || Ok::<_, Infallible>(found)).unwrap();
        assert!(open(None).is_none());
        let first = open(Some(index(3, 0))).unwrap();
        assert!(Arc::ptr_eq(&first, &open(None).unwrap()));
    }

    #[test]
    fn the_oldest_go_when_the_bound_is_reached() {
        let memory = IndexMemory::default();
        for no in 0..4 {
            memory.get_or_open(run(no), || Ok::<_, Infallible>(Some(index(no, BYTES / 3)))).unwrap();
        }
        let has = |no| memory.get_or_open(run(no), || Ok::<_, Infallible>(None)).unwrap().is_some();
        assert_eq!([0, 1, 2, 3].map(has), [false, false, true, true]);
    }
}
