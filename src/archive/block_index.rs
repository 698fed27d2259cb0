//! Makes the block index of a segment that is being stored, or was stored without one.
//!
//! From: `push`, `archive::index`.  To: `format::index`, and WAL: in memory, in a directory, in a repository.
//! In: a segment.  Out: the bytes of its index, or [`NoIndex`]: then the segment is stored without, and whoever reads it scans its records.
//! A beginning of the first record that is nowhere at hand is no error: the index says that it is missing.

use std::convert::Infallible;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use bytes::Bytes;
use thiserror::Error;

use crate::format::index::{self, Subject};
use crate::pg::wal::record::DecodeError;
use crate::pg::wal::{End, WalBytes};
use crate::pg::{SegmentSize, WalSegment};
use crate::repo::layout::ClusterFolder;
use crate::repo::{ObjectKind, RepoError, Repository};

/// Bytes of a segment that are read at a time: one chunk of a stored one.
const WINDOW_BYTES: u64 = 128 << 10;

/// Why a segment has no index.
#[derive(Debug, Error)]
pub enum NoIndex {
    #[error("the segment does not begin with a page of this cluster's WAL")]
    NotWal,
    #[error("not all of the segment is WAL that can be read: {0}")]
    EndsEarly(End),
    #[error("the segment has a record that cannot be taken apart")]
    Undecoded(#[source] DecodeError),
}

/// Builds the index of a segment, or says why there is none: an index of less than the whole segment is not worth storing. `wal` gives the segment, and
/// those before it as far as they are at hand.
///
/// # Errors
/// Those of `wal`.
pub fn build<W: WalBytes>(subject: Subject, wal: &mut W) -> Result<Result<Vec<u8>, NoIndex>, W::Error> {
    let Some(built) = index::build(subject, wal)? else { return Ok(Err(NoIndex::NotWal)) };
    Ok(match built.undecoded {
        Some(error) => Err(NoIndex::Undecoded(error)),
        None if built.summary.is_whole => Ok(built.bytes),
        None => Err(NoIndex::EndsEarly(built.end)),
    })
}

/// Segments in a directory, or else in repositories. What cannot be read counts as not there.
#[derive(Debug)]
pub struct AtHand<'a> {
    pub directory: Option<&'a Path>,
    pub repositories: Vec<(&'a Repository, &'a ClusterFolder)>,
    pub size: SegmentSize,
}

impl AtHand<'_> {
    fn in_directory(&self, segment: WalSegment, offset: u64) -> Option<Bytes> {
        let path = self.directory?.join(segment.name(self.size));
        let mut file = fs_err::File::open(path).ok()?;
        if file.metadata().ok()?.len() != self.size.bytes() {
            return None;
        }
        file.seek(SeekFrom::Start(offset)).ok()?;
        let mut bytes = Vec::new();
        file.take(window_end(offset, self.size.bytes()) - offset).read_to_end(&mut bytes).ok()?;
        Some(bytes.into())
    }

    fn in_repositories(&self, segment: WalSegment, offset: u64) -> Option<Bytes> {
        self.repositories.iter().find_map(|(repository, folder)| {
            let key = folder.segment(segment, self.size);
            match stored(repository, &key, offset) {
                Ok(bytes) => Some(bytes),
                Err(error) => {
                    if !error.is_not_found() {
                        tracing::info!(%error, key, "the segment before cannot be read");
                    }
                    None
                }
            }
        })
    }
}

/// The segments of one repository.
#[derive(Debug)]
pub struct Archived<'a> {
    pub repository: &'a Repository,
    pub folder: &'a ClusterFolder,
    pub size: SegmentSize,
}

impl WalBytes for Archived<'_> {
    type Error = RepoError;

    fn read(&mut self, segment: WalSegment, offset: u64) -> Result<Option<Bytes>, RepoError> {
        match stored(self.repository, &self.folder.segment(segment, self.size), offset) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn stored(repository: &Repository, key: &str, offset: u64) -> Result<Bytes, RepoError> {
    let object = repository.open_object(key, ObjectKind::WalSegment)?;
    let end = window_end(offset, object.main_len());
    Ok(object.read_main(offset.min(end)..end)?.into())
}

fn window_end(offset: u64, len: u64) -> u64 {
    (offset / WINDOW_BYTES + 1).saturating_mul(WINDOW_BYTES).min(len)
}

impl WalBytes for AtHand<'_> {
    type Error = Infallible;

    fn read(&mut self, segment: WalSegment, offset: u64) -> Result<Option<Bytes>, Infallible> {
        Ok(self.in_directory(segment, offset).or_else(|| self.in_repositories(segment, offset)))
    }
}
