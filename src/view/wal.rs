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
#[derive(Debug, Clone)]
pub struct Segments {
    files: StoredFiles,
    layout: Layout,
    opened: Arc<Mutex<HashMap<WalSegment, StoredStream>>>,
}

impl Segments {
    /// Segments of one cluster.
    #[must_use]
    pub fn new(files: StoredFiles, layout: Layout) -> Segments {
        Segments { files, layout, opened: Arc::default() }
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

impl WalBytes for Segments {
    type Error = RepoError;

    fn read(&mut self, segment: WalSegment, offset: u64) -> Result<Option<Bytes>, RepoError> {
        let Some(stream) = self.stream(segment)? else { return Ok(None) };
        if offset >= stream.object().main_len() {
            return Ok(Some(Bytes::new()));
        }
        let chunk = Bytes::from_owner(stream.chunk(offset / stream.chunk_bytes())?);
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
