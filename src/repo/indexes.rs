//! The block indexes that a repository has: of single segments, in their objects or beside them, and roll-ups of runs.
//!
//! From: `archive::index`, which makes them; `view::indexes` and `repo::resolve`, which ask them.  To: `format::index`, `store`.
//! An index is derived data: one that is damaged, or about something else, counts as not there, and the log says so. A store that does not answer is
//! an error.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::layout::{ClusterFolder, SegmentRun, run_of_key, segment_of_key};
use super::{Object, ObjectKind, RepoError, Repository, Stream};
use crate::format::index::{Has, Head, Index, IndexBytes, IndexError};
use crate::pg::{SegmentSize, WalSegment};

/// Where an index's bytes are.
#[derive(Debug, Clone)]
pub enum IndexSource {
    Memory(Vec<u8>),
    /// A stream of an object.
    Object(Object, Stream),
}

/// An index in a segment's object that is longer stays there: those of ordinary segments are a few tens of KiB, and come with the object's end.
const IN_MEMORY_AT_MOST: u64 = 1 << 20;

impl IndexBytes for IndexSource {
    type Error = RepoError;

    fn len(&self) -> u64 {
        match self {
            IndexSource::Memory(bytes) => bytes.as_slice().len() as u64,
            IndexSource::Object(object, Stream::Main) => object.main_len(),
            IndexSource::Object(object, Stream::Aux) => object.aux_len(),
        }
    }

    fn memory_bytes(&self) -> usize {
        match self {
            IndexSource::Memory(bytes) => bytes.capacity(),
            IndexSource::Object(..) => 0,
        }
    }

    fn read(&self, range: Range<u64>) -> Result<Vec<u8>, RepoError> {
        match self {
            IndexSource::Memory(bytes) => {
                let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
                Ok(bytes.get(at(range.start)..at(range.end)).unwrap_or_default().to_vec())
            }
            IndexSource::Object(object, Stream::Main) => object.read_main(range),
            IndexSource::Object(object, Stream::Aux) => object.read_aux(range),
        }
    }
}

/// An opened index.
pub type StoredIndex = Index<IndexSource>;

/// Which indexes there are, those in segments' own objects aside.
#[derive(Debug, Clone)]
pub struct Indexes {
    folder: ClusterFolder,
    size: SegmentSize,
    /// Runs by their first segment, the longest last.
    rollups: BTreeMap<WalSegment, Vec<SegmentRun>>,
    separate: BTreeSet<WalSegment>,
}

impl Indexes {
    /// Lists them. Cost: one request for each thousand.
    ///
    /// # Errors
    /// Those of the store.
    pub fn list(repository: &Repository, folder: &ClusterFolder, size: SegmentSize) -> Result<Indexes, RepoError> {
        let mut indexes = Indexes::unlisted(folder, size);
        repository.store().list(&folder.index(), None, &mut |meta| {
            if let Some(run) = run_of_key(&meta.key, size) {
                indexes.rollups.entry(run.first_segment()).or_default().push(run);
            } else if let Some(segment) = segment_of_key(&meta.key, size) {
                indexes.separate.insert(segment);
            }
            true
        })?;
        indexes.rollups.values_mut().for_each(|runs| runs.sort_unstable());
        Ok(indexes)
    }

    /// None, as far as is known: for whoever wants those in segments' own objects.
    #[must_use]
    pub fn unlisted(folder: &ClusterFolder, size: SegmentSize) -> Indexes {
        Indexes { folder: folder.clone(), size, rollups: BTreeMap::new(), separate: BTreeSet::new() }
    }

    /// One more was made.
    pub fn add(&mut self, run: SegmentRun) {
        let runs = self.rollups.entry(run.first_segment()).or_default();
        runs.push(run);
        runs.sort_unstable();
    }

    /// All roll-ups.
    pub fn rollups(&self) -> impl Iterator<Item = SegmentRun> + '_ {
        self.rollups.values().flatten().copied()
    }

    /// Roll-ups that begin with `first` and do not go past segment `last`, the longest first.
    pub fn rollups_from(&self, first: WalSegment, last: u64) -> impl Iterator<Item = SegmentRun> + '_ {
        self.rollups.get(&first).into_iter().flatten().rev().copied().filter(move |run| run.last <= last)
    }

    /// Opens a roll-up; `None` if it cannot be used.
    ///
    /// # Errors
    /// Those of the store.
    pub fn rollup(&self, repository: &Repository, run: SegmentRun) -> Result<Option<StoredIndex>, RepoError> {
        let key = self.folder.rollup(run, self.size);
        let opened = repository.open_object(&key, ObjectKind::WalIndex).map(|object| IndexSource::Object(object, Stream::Main));
        self.open(opened, &key, run)
    }

    /// The index of one segment, in memory unless it is long; `None` if there is none that can be used.
    ///
    /// # Errors
    /// Those of the store; that there is no such segment is no error.
    pub fn of_segment(&self, repository: &Repository, segment: WalSegment) -> Result<Option<StoredIndex>, RepoError> {
        let run = SegmentRun { timeline: segment.timeline, first: segment.no, last: segment.no };
        let key = self.folder.segment(segment, self.size);
        let own = repository.open_object(&key, ObjectKind::WalSegment).and_then(|object| match object.aux_len() {
            0..=IN_MEMORY_AT_MOST => object.read_aux(0..object.aux_len()).map(IndexSource::Memory),
            _ => Ok(IndexSource::Object(object, Stream::Aux)),
        });
        if !matches!(&own, Ok(bytes) if bytes.is_empty())
            && let Some(index) = self.open(own, &key, run)?.filter(is_complete)
        {
            return Ok(Some(index));
        }
        if !self.separate.contains(&segment) {
            return Ok(None);
        }
        let key = self.folder.segment_index(segment, self.size);
        let bytes = repository.read_object(&key, ObjectKind::WalIndex);
        Ok(self.open(bytes.map(IndexSource::Memory), &key, run)?.filter(is_complete))
    }

    fn open(&self, bytes: Result<IndexSource, RepoError>, key: &str, about: SegmentRun) -> Result<Option<StoredIndex>, RepoError> {
        match bytes.map_err(IndexError::Read).and_then(Index::open).and_then(Index::with_filter) {
            Ok(index) => {
                let found = index.about();
                let is_it = (found.system_id, found.segment_size) == (self.folder.system_id, self.size)
                    && (found.first, found.last_no) == (about.first_segment(), about.last);
                if !is_it {
                    tracing::warn!(key, "the index is about something else and is not used");
                }
                Ok(is_it.then_some(index))
            }
            Err(IndexError::Bad(error)) => {
                tracing::warn!(key, %error, "the index is not used");
                Ok(None)
            }
            Err(IndexError::Read(error)) if error.is_not_found() => Ok(None),
            Err(IndexError::Read(error)) if error.is_damage() => {
                tracing::warn!(key, error = &error as &dyn std::error::Error, "the index is not used");
                Ok(None)
            }
            Err(IndexError::Read(error)) => Err(error),
        }
    }
}

/// Does it hold all records that end in its segments?
#[must_use]
pub fn is_complete(index: &StoredIndex) -> bool {
    index.summaries().iter().all(|summary| summary.is_whole && summary.head != Head::Missing)
}

/// Events that must be seen in their order among records that an index only counts: such a segment is read record by record.
pub const IN_ORDER: Has =
    Has(Has::XACT_CUT.0 | Has::DATABASE_COPY.0 | Has::OPAQUE.0 | Has::CUSTOM_BLOCKS.0 | Has::UNKNOWN.0 | Has::PARAMETERS.0);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::format::index::{About, Entry, LogItem, WalChunk, Writer};
    use crate::pg::wal::Rmgr;
    use crate::pg::{BlockTag, Fork, Lsn, Major, RelFileLocator, Timeline};
    use crate::repo::Cipher;
    use crate::store::memory::MemoryStore;

    /// 20,000 blocks, in about 20 blocks of entries.
    fn index() -> Vec<u8> {
        let rel = RelFileLocator { tablespace: 1663, database: 5, relation: 16384 };
        let mut writer = Writer::new(WalChunk(1000));
        for block in 0..20_000 {
            let tag = BlockTag { rel, fork: Fork::Main, block: block * 7 };
            writer.entry(Entry { tag, chunk: WalChunk(1000 + u64::from(block % 100)), rebuilds: true });
        }
        writer.statuses(&BTreeMap::from([(3, [0x55; 256]), (9, [0xAA; 256])]));
        let (lsn, rmgr) = (WalChunk(1001).start(), Rmgr::XLOG);
        writer.log(&LogItem { lsn, end: Lsn(lsn.0 + 64), xid: 7, rmgr, info: 0x30, origin: None, main_data: vec![1; 8] });
        let first = WalSegment { timeline: Timeline(1), no: 7 };
        let about = About { major: Major::V15, system_id: 42, segment_size: SegmentSize::DEFAULT, first, last_no: 70 };
        writer.finish(about, Vec::new(), Vec::new()).unwrap()
    }

    #[test]
    fn what_an_index_says_of_all_its_wal_comes_with_its_filter() {
        let repository = Repository::create(Arc::new(MemoryStore::default()), Cipher::None, None).unwrap();
        repository.put_object("i", ObjectKind::WalIndex, &index(), None).unwrap();
        let object = repository.open_object("i", ObjectKind::WalIndex).unwrap();
        let opened = Index::open(IndexSource::Object(object, Stream::Main)).and_then(Index::with_filter).unwrap();
        let before = repository.read().reads();
        let (mut statuses, mut log) = (Vec::new(), Vec::new());
        opened.statuses(&mut |number, bits| statuses.push((number, *bits))).unwrap();
        let gather = &mut |item: LogItem| {
            log.push((item.xid, item.main_data));
            true
        };
        opened.log(Lsn(0), gather).unwrap();
        assert_eq!(statuses, [(3, [0x55; 256]), (9, [0xAA; 256])]);
        assert_eq!(log, [(7, vec![1; 8])]);
        assert_eq!(repository.read().reads(), before);
        let tag = |block| BlockTag { rel: RelFileLocator { tablespace: 1663, database: 5, relation: 16384 }, fork: Fork::Main, block };
        assert!(opened.may_have(tag(700)) && !opened.may_have(tag(701)));
        assert_eq!(opened.lookup(tag(700), WalChunk(0)..WalChunk(5000)).unwrap().len(), 1);
    }
}
