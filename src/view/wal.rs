//! The archived WAL as bytes: for the record reader, and for single records by their Lsn.
//!
//! From: `view::scan`, `view::moment`.  To: `view::stored`, segment by segment through the shared chunk memory.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::pg::checkpoint::Checkpoint;
use crate::pg::wal::effect::{Effect, effect};
use crate::pg::wal::reader::WalBytes;
use crate::pg::wal::{Layout, Reader, TimelinePath};
use crate::pg::{Lsn, WalSegment};
use crate::repo::RepoError;
use crate::store::StoreError;
use crate::view::content::StoredFiles;
use crate::view::stored::StoredStream;

/// So many chunks are fetched ahead at most: 4 MiB.
const MAX_AHEAD: u64 = 32;

/// So many opened segments are kept.
const MAX_OPENED: usize = 256;

/// The archive of one cluster, read along one timeline path.
#[derive(Debug, Clone)]
pub struct ArchivedWal {
    pub layout: Layout,
    pub path: TimelinePath,
    segments: Segments,
}

impl ArchivedWal {
    /// The segments of `files` along `path`.
    #[must_use]
    pub fn new(files: StoredFiles, layout: Layout, path: TimelinePath) -> ArchivedWal {
        ArchivedWal { layout, path, segments: Segments::new(files, layout) }
    }

    /// Reads records from the one that begins at `lsn` on.
    #[must_use]
    pub fn reader(&self, lsn: Lsn) -> Reader<Segments> {
        Reader::at_record(self.segments.clone(), self.layout, self.path.clone(), lsn)
    }

    /// Reads records from the first one that begins on the page at `lsn` or after it.
    #[must_use]
    pub fn reader_from_page(&self, lsn: Lsn) -> Reader<Segments> {
        Reader::at_page(self.segments.clone(), self.layout, self.path.clone(), lsn)
    }

    /// The same of a range of the WAL only, which begins and ends where pages do: as if its file ended there.
    #[must_use]
    pub fn reader_within(&self, range: Range<Lsn>) -> Reader<Within> {
        let within = Within { segments: self.segments.clone(), end: range.end };
        Reader::at_page(within, self.layout, self.path.clone(), range.start)
    }

    /// What the checkpoint says whose record begins at `lsn`; `None` if there is none.
    ///
    /// # Errors
    /// Those of the repository.
    pub fn checkpoint(&self, lsn: Lsn) -> Result<Option<Checkpoint>, RepoError> {
        let mut reader = self.reader(lsn);
        let Some(record) = reader.next()?.filter(|raw| raw.lsn == lsn).and_then(|raw| raw.decode(self.layout.major).ok()) else {
            return Ok(None);
        };
        Ok(match effect(&record, self.layout.major) {
            Ok(Some(Effect::Checkpoint { checkpoint, .. })) => Some(checkpoint),
            _ => None,
        })
    }

    /// The segments below.
    #[must_use]
    pub fn segments(&self) -> Segments {
        self.segments.clone()
    }

    /// The stored segment that holds `lsn`, and how far into it that lies. `None` if the archive does not have it (yet).
    ///
    /// # Errors
    /// Those of the repository.
    pub fn stored_at(&self, lsn: Lsn) -> Result<Option<(StoredStream, u64)>, RepoError> {
        let size = self.layout.segment_size;
        for segment in self.path.candidates(size.segment_no(lsn), size) {
            if let Some(stream) = self.segments.stream(segment)? {
                return Ok(Some((stream, size.offset(lsn))));
            }
        }
        Ok(None)
    }
}

/// Segments by number; keeps those opened lately open. Cheap to clone, and clones share that.
///
/// Whoever reads chunk after chunk gets more and more of them fetched ahead, where a request takes longer than decoding chunks that are not wanted.
#[derive(Debug, Clone)]
pub struct Segments {
    files: StoredFiles,
    layout: Layout,
    opened: Arc<Mutex<HashMap<WalSegment, StoredStream>>>,
    /// Chunk read last: the stream's number, its own, and so many are fetched together.
    last: (u32, u64, u64),
}

impl Segments {
    /// Segments of one cluster.
    #[must_use]
    pub fn new(files: StoredFiles, layout: Layout) -> Segments {
        Segments { files, layout, opened: Arc::default(), last: (u32::MAX, 0, 1) }
    }

    /// `None` if the archive does not have it (yet).
    fn stream(&self, segment: WalSegment) -> Result<Option<StoredStream>, RepoError> {
        if let Some(stream) = self.opened.lock().get(&segment) {
            return Ok(Some(stream.clone()));
        }
        match self.files.wal_segment(segment, self.layout.segment_size) {
            Ok(stream) => {
                let mut opened = self.opened.lock();
                if opened.len() >= MAX_OPENED {
                    opened.clear();
                }
                opened.insert(segment, stream.clone());
                Ok(Some(stream))
            }
            Err(RepoError::Store(StoreError::NotFound { .. })) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Segments {
    /// Fetches a chunk together with those behind it if it is read after the one before it.
    fn look_ahead(&mut self, stream: &StoredStream, number: u64) {
        let (last_stream, last, together) = self.last;
        if (stream.number(), number) == (last_stream, last) {
            return;
        }
        let follows = number == 0 || (stream.number(), number) == (last_stream, last + 1);
        self.last = (stream.number(), number, if follows { together } else { 1 });
        if !follows || !self.files.shared.is_slow() || self.files.shared.has(stream, number) {
            return;
        }
        let together = (together * 2).min(MAX_AHEAD);
        self.last.2 = together;
        let end = stream.object().main_len().div_ceil(stream.chunk_bytes()).min(number + together);
        self.files.shared.bring((number..end).map(|number| (stream.clone(), number)).collect());
    }
}

impl WalBytes for Segments {
    type Error = RepoError;

    fn read(&mut self, segment: WalSegment, offset: u64) -> Result<Option<Bytes>, RepoError> {
        let Some(stream) = self.stream(segment)? else { return Ok(None) };
        if offset >= stream.object().main_len() {
            return Ok(Some(Bytes::new()));
        }
        let number = offset / stream.chunk_bytes();
        self.look_ahead(&stream, number);
        let chunk = Bytes::from_owner(stream.chunk(number)?);
        let inside = usize::try_from(offset % stream.chunk_bytes()).unwrap_or(usize::MAX).min(chunk.len());
        Ok(Some(chunk.slice(inside..)))
    }
}

/// Segments up to an Lsn, where their file seems to end.
#[derive(Debug)]
pub struct Within {
    segments: Segments,
    end: Lsn,
}

impl WalBytes for Within {
    type Error = RepoError;

    fn read(&mut self, segment: WalSegment, offset: u64) -> Result<Option<Bytes>, RepoError> {
        let at = self.segments.layout.segment_size.start(segment.no).0.saturating_add(offset);
        let Some(left) = self.end.0.checked_sub(at).filter(|left| *left > 0) else { return Ok(Some(Bytes::new())) };
        let bytes = self.segments.read(segment, offset)?;
        Ok(bytes.map(|bytes| bytes.slice(..usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len()))))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::pg::{Major, SegmentSize, Timeline};
    use crate::repo::layout::ClusterFolder;
    use crate::repo::{Cipher, ObjectKind, Repository};
    use crate::store::fault::{Call, Fault, FaultStore};
    use crate::store::memory::MemoryStore;
    use crate::view::stored::StoredObjects;

    const SIZE: SegmentSize = SegmentSize::DEFAULT;
    const SEGMENT: WalSegment = WalSegment { timeline: Timeline(1), no: 3 };

    /// Bytes of the segment, and reads that it took to read it from chunk to chunk where each read takes so long.
    fn read_through(latency: Duration) -> (Vec<u8>, Vec<u8>, u64) {
        let body: Vec<u8> = (0..SIZE.bytes() / 8).flat_map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes()).collect();
        let store = FaultStore::new(Arc::new(MemoryStore::default()));
        let repository = Repository::create(Arc::new(store.clone()), Cipher::None, None).unwrap();
        let folder = ClusterFolder::new("main", Major::V15, 42);
        repository.put_object(&folder.segment(SEGMENT, SIZE), ObjectKind::WalSegment, &body, None).unwrap();
        store.plan(Call::Read, "wal", 0..u64::MAX, Fault::Delay(latency));
        let shared = StoredObjects::new(Arc::new(repository), 64 << 20);
        let files = StoredFiles { shared, folder, label: String::new() };
        let layout = Layout { major: Major::V15, segment_size: SIZE, system_id: None };
        let (mut segments, mut found) = (Segments::new(files, layout), Vec::new());
        let before = store.calls(Call::Read);
        while let Some(part) = segments.read(SEGMENT, found.len() as u64).unwrap().filter(|part| !part.is_empty()) {
            found.extend(part);
        }
        (body, found, store.calls(Call::Read) - before)
    }

    #[test]
    fn a_slow_store_is_asked_for_more_and_more_at_a_time_and_a_fast_one_for_what_is_wanted() {
        let (body, found, of_slow) = read_through(Duration::from_millis(6));
        assert!(body == found && of_slow < 16, "{of_slow} reads");
        // 128, unless the machine stood still meanwhile.
        let (body, found, of_fast) = read_through(Duration::ZERO);
        assert!(body == found && of_fast > of_slow, "{of_fast} reads");
    }
}
