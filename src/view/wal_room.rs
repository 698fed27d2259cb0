//! `wal/<timeline>/`: the archived segments of one timeline, decoded, and its history file.
//!
//! From: `view::browse`.  To: `view::content`. Runs of segments stay runs: a year of WAL takes no more memory than an hour.

use std::ffi::{OsStr, OsString};
use std::time::SystemTime;

use bygone_mount::{Attr, Entry, FileId, Keep, Kind, Source, SourceError};

use crate::pg::{SegmentSize, Timeline, WalSegment};
use crate::repo::catalog::WalRun;
use crate::view::content::StoredFiles;

/// The segments of a timeline as a directory. Node 0 is the directory, 1 the history file; then the segments, run after run.
#[derive(Debug)]
pub struct WalRoom {
    pub files: StoredFiles,
    pub timeline: Timeline,
    pub segment_size: SegmentSize,
    /// Those of `timeline`, in rising order.
    pub runs: Vec<WalRun>,
    /// Text of the history file; empty if there is none.
    pub history: String,
    pub owner: (u32, u32),
}

const ROOT: u64 = 0;
const HISTORY: u64 = 1;
const FIRST_SEGMENT: u64 = 2;

impl WalRoom {
    fn history_name(&self) -> String {
        format!("{:08X}.history", self.timeline)
    }

    fn id_of(&self, no: u64) -> Option<FileId> {
        let mut before = FIRST_SEGMENT;
        for run in &self.runs {
            if (run.first..=run.last).contains(&no) {
                return Some(FileId(before + no - run.first));
            }
            before += run.count();
        }
        None
    }

    fn segment_of(&self, id: FileId) -> Option<(WalSegment, SystemTime)> {
        let mut index = id.0.checked_sub(FIRST_SEGMENT)?;
        for run in &self.runs {
            if index < run.count() {
                return Some((WalSegment { timeline: self.timeline, no: run.first + index }, run.archived));
            }
            index -= run.count();
        }
        None
    }
}

impl Source for WalRoom {
    fn root(&self) -> FileId {
        FileId(ROOT)
    }

    fn attr(&self, id: FileId) -> Result<Attr, SourceError> {
        let newest = self.runs.last().map_or(SystemTime::UNIX_EPOCH, |run| run.archived);
        let (kind, size, mode, modified) = match id.0 {
            ROOT => (Kind::Directory, 0, 0o500, newest),
            HISTORY => (Kind::File, self.history.len() as u64, 0o400, newest),
            _ => {
                let (_, archived) = self.segment_of(id).ok_or(SourceError::NotFound)?;
                (Kind::File, self.segment_size.bytes(), 0o400, archived)
            }
        };
        let (uid, gid) = self.owner;
        Ok(Attr { kind, size, mode, uid, gid, modified, keep: Keep::Whole })
    }

    fn lookup(&self, _dir: FileId, name: &OsStr) -> Result<FileId, SourceError> {
        let name = name.to_str().ok_or(SourceError::NotFound)?;
        if !self.history.is_empty() && name == self.history_name() {
            return Ok(FileId(HISTORY));
        }
        let segment = WalSegment::parse(name, self.segment_size).map_err(|_| SourceError::NotFound)?;
        // Only the name that Postgres writes leads here: in lower case it is another one.
        let found = (segment.timeline == self.timeline && segment.name(self.segment_size) == name).then(|| self.id_of(segment.no));
        found.flatten().ok_or(SourceError::NotFound)
    }

    fn lookup_ready(&self, dir: FileId, name: &OsStr) -> Option<Result<FileId, SourceError>> {
        Some(self.lookup(dir, name))
    }

    fn list(&self, _dir: FileId) -> Result<Vec<Entry>, SourceError> {
        let entry = |name: String, id| Entry { name: OsString::from(name), id: FileId(id), kind: Kind::File };
        let history = (!self.history.is_empty()).then(|| entry(self.history_name(), HISTORY));
        let numbers = self.runs.iter().flat_map(|run| run.first..=run.last);
        let segments = numbers.zip(FIRST_SEGMENT..);
        let name = |no| WalSegment { timeline: self.timeline, no }.name(self.segment_size);
        Ok(history.into_iter().chain(segments.map(|(no, id)| entry(name(no), id))).collect())
    }

    fn read_link(&self, _id: FileId) -> Result<OsString, SourceError> {
        Err(SourceError::NotFound)
    }

    fn read(&self, id: FileId, offset: u64, buf: &mut [u8]) -> Result<usize, SourceError> {
        let size = self.attr(id)?.size;
        let len = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX).min(buf.len());
        if id.0 == HISTORY {
            let from = usize::try_from(offset).unwrap_or(usize::MAX);
            buf[..len].copy_from_slice(self.history.as_bytes().get(from..from.saturating_add(len)).unwrap_or_default());
            return Ok(len);
        }
        let (segment, _) = self.segment_of(id).ok_or(SourceError::NotFound)?;
        let mut read = || self.files.wal_segment(segment, self.segment_size)?.read(offset, &mut buf[..len]);
        read().map_err(|error| SourceError::Unreadable(Box::new(error)))?;
        Ok(len)
    }
}
