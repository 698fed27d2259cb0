//! The append-only log of an overlay: which inodes, names and granules it holds.
//!
//! From: every change of `overlay`, as records that already describe the state after it.  To: `replay`, after a restart.
//! A frame that is appended is in memory; [`Journal::sync`] makes everything appended so far durable, once for all who wait.
//! Room on the disk is taken ahead, so that a full disk is an error of the change that needs more room and never of a sync.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::disk::{Disk, DiskFile};
use super::format::{Damage, JOURNAL_HEADER, OnDiskRecord, decode_frame, decode_journal_header, encode_frame, encode_journal_header};
use crate::error::FsError;
use crate::stats::Counters;

const NAME: &str = "journal";
const NEW_NAME: &str = "journal.new";
/// Taken from the disk at a time.
const CHUNK: u64 = 1 << 20;
/// Kept for the records of syncs when the disk is full: names may not use it.
const RESERVE: u64 = 128 << 10;

/// How many bytes have been appended, ever: a point in the order of changes.
pub(crate) type Point = u64;

struct Tail {
    file: Arc<dyn DiskFile>,
    /// Appended, not yet written; ends at `end`.
    buffer: Vec<u8>,
    end: u64,
    allocated: u64,
    durable: u64,
    appended: Point,
}

/// See the module.
pub(crate) struct Journal {
    disk: Arc<dyn Disk>,
    id: u64,
    counters: Arc<Counters>,
    tail: Mutex<Tail>,
    /// Held over a sync; taken before `tail`.
    sync: Mutex<()>,
    appended: AtomicU64,
    synced: AtomicU64,
    failed: AtomicBool,
    compact_len: AtomicU64,
}

/// Where the journal stops making sense although it had been kept.
#[derive(Debug)]
pub(crate) struct Hole {
    pub(crate) position: u64,
    pub(crate) durable: u64,
}

/// Why a journal could not be opened.
#[derive(Debug)]
pub(crate) enum OpenError {
    Io(io::Error),
    Header(Damage),
    OtherOverlay,
    Hole(Hole),
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Journal {
    /// Opens or makes the journal and returns the changes it holds, in order. A torn tail is cut off.
    pub(crate) fn open(disk: Arc<dyn Disk>, id: u64, counters: Arc<Counters>) -> Result<(Self, Vec<Vec<OnDiskRecord>>), OpenError> {
        let file = disk.open(NAME, true)?;
        let len = file.len()?;
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        let filled = file.read_at(&mut bytes, 0)?;
        bytes.truncate(filled);
        // A journal without a whole header was never synced: its directory entry may come first.
        if bytes.len() < usize::try_from(JOURNAL_HEADER).unwrap_or(usize::MAX) || bytes.iter().all(|byte| *byte == 0) {
            bytes = encode_journal_header(id);
            file.set_len(0)?;
            file.write_at(&bytes, 0)?;
            file.sync()?;
            disk.sync_top()?;
        }
        let (header, frames) = bytes.split_at(usize::try_from(JOURNAL_HEADER).unwrap_or(usize::MAX));
        if decode_journal_header(header).map_err(OpenError::Header)? != id {
            return Err(OpenError::OtherOverlay);
        }
        let (changes, end) = read_frames(frames).map_err(OpenError::Hole)?;
        if end < bytes.len() as u64 {
            // What follows must not be taken for a continuation of what will be written here.
            file.set_len(end)?;
            file.sync()?;
        }
        let tail = Tail { file, buffer: Vec::new(), end, allocated: end, durable: end, appended: 0 };
        let journal = Self {
            disk,
            id,
            counters,
            tail: Mutex::new(tail),
            sync: Mutex::new(()),
            appended: AtomicU64::new(0),
            synced: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            compact_len: AtomicU64::new(0),
        };
        Ok((journal, changes))
    }

    /// Adds one change. `for_sync`: it may use the reserve.
    ///
    /// # Errors
    /// No room on the disk; nothing is added then.
    pub(crate) fn append(&self, records: &[OnDiskRecord], for_sync: bool) -> Result<Point, FsError> {
        let mut tail = self.tail.lock();
        let frame = encode_frame(records, tail.end, tail.durable);
        let needed = tail.end + frame.len() as u64 + if for_sync { 0 } else { RESERVE };
        if needed > tail.allocated {
            match tail.file.allocate(tail.allocated, needed - tail.allocated + CHUNK, true) {
                Ok(()) => tail.allocated = needed + CHUNK,
                Err(error) if error.kind() == io::ErrorKind::Unsupported => tail.allocated = u64::MAX / 2,
                Err(error) => return Err(error.into()),
            }
        }
        tail.end += frame.len() as u64;
        tail.appended += frame.len() as u64;
        tail.buffer.extend(frame);
        self.appended.store(tail.appended, Ordering::Release);
        Ok(tail.appended)
    }

    /// Where the last change ended.
    pub(crate) fn appended(&self) -> Point {
        self.appended.load(Ordering::Acquire)
    }

    /// Up to where changes are durable.
    pub(crate) fn synced(&self) -> Point {
        self.synced.load(Ordering::Acquire)
    }

    /// Whether a sync failed, of the journal or (told by [`Journal::fail`]) of data.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Lets every later sync fail: after a failed one nobody knows what the disk holds.
    pub(crate) fn fail(&self) {
        self.failed.store(true, Ordering::Release);
    }

    /// Makes everything up to `point` durable.
    ///
    /// # Errors
    /// The disk's; from then on [`FsError::Failed`].
    pub(crate) fn sync(&self, point: Point) -> Result<(), FsError> {
        if self.synced() >= point && !self.has_failed() {
            return Ok(());
        }
        let _turn = self.sync.lock();
        if self.has_failed() {
            return Err(FsError::Failed);
        }
        if self.synced() >= point {
            return Ok(());
        }
        let (file, bytes, end, appended) = {
            let mut tail = self.tail.lock();
            (Arc::clone(&tail.file), std::mem::take(&mut tail.buffer), tail.end, tail.appended)
        };
        if let Err(error) = file.write_at(&bytes, end - bytes.len() as u64).and_then(|()| file.sync()) {
            self.fail();
            return Err(error.into());
        }
        Counters::add(&self.counters.journal_syncs, 1);
        self.tail.lock().durable = end;
        self.synced.store(appended, Ordering::Release);
        Ok(())
    }

    /// Whether the journal has grown enough since it was last rewritten to be worth rewriting.
    pub(crate) fn is_bloated(&self, floor: u64) -> bool {
        self.tail.lock().end > floor.max(self.compact_len.load(Ordering::Relaxed).saturating_mul(4))
    }

    /// Puts a journal that holds just these changes in the place of this one. The caller keeps the state from changing meanwhile.
    ///
    /// # Errors
    /// The disk's. Before the switch nothing has changed; after it the journal has failed.
    pub(crate) fn replace(&self, changes: &[Vec<OnDiskRecord>]) -> Result<(), FsError> {
        let _turn = self.sync.lock();
        let mut tail = self.tail.lock();
        if self.has_failed() {
            return Err(FsError::Failed);
        }
        let mut bytes = encode_journal_header(self.id);
        for records in changes {
            let frame = encode_frame(records, bytes.len() as u64, 0);
            bytes.extend(frame);
        }
        let file = self.disk.open(NEW_NAME, true)?;
        file.set_len(0)?;
        file.write_at(&bytes, 0)?;
        file.sync()?;
        self.disk.rename(NEW_NAME, NAME)?;
        if let Err(error) = self.disk.sync_top() {
            self.fail();
            return Err(error.into());
        }
        let end = bytes.len() as u64;
        *tail = Tail { file, buffer: Vec::new(), end, allocated: end, durable: end, appended: tail.appended };
        self.synced.store(tail.appended, Ordering::Release);
        self.compact_len.store(end, Ordering::Relaxed);
        Ok(())
    }
}

/// The changes in `bytes`, which follow the header, and where they end in the file.
fn read_frames(bytes: &[u8]) -> Result<(Vec<Vec<OnDiskRecord>>, u64), Hole> {
    let mut changes = Vec::new();
    let mut at = 0;
    while let Some(frame) = bytes.get(at..).and_then(|rest| decode_frame(rest, JOURNAL_HEADER + at as u64)) {
        at += frame.len;
        changes.push(frame.records);
    }
    let position = JOURNAL_HEADER + at as u64;
    let later = (at + 8..bytes.len()).step_by(8);
    let durable = later.filter_map(|at| decode_frame(&bytes[at..], JOURNAL_HEADER + at as u64)).map(|frame| frame.durable).max();
    match durable {
        Some(durable) if durable > position => Err(Hole { position, durable }),
        _ => Ok((changes, position)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::OnDiskRecord::Whole;
    use super::*;

    fn frames(durables: &[bool]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (ino, durable) in (0..).zip(durables) {
            let position = JOURNAL_HEADER + bytes.len() as u64;
            let durable = if *durable { position } else { JOURNAL_HEADER };
            bytes.extend(encode_frame(&[Whole { ino }], position, durable));
        }
        bytes
    }

    #[test]
    fn a_torn_tail_is_cut_even_if_a_later_piece_of_it_arrived() {
        let mut bytes = frames(&[false, false, false]);
        let len = bytes.len() / 3;
        bytes[len + 9] ^= 1;
        let (changes, end) = read_frames(&bytes).unwrap();
        assert_eq!(changes, vec![vec![Whole { ino: 0 }]]);
        assert_eq!(end, JOURNAL_HEADER + len as u64);
    }

    #[test]
    fn a_frame_that_had_been_kept_and_is_damaged_is_not_cut_but_reported() {
        let mut bytes = frames(&[false, false, true]);
        let len = bytes.len() / 3;
        bytes[len + 9] ^= 1;
        let hole = read_frames(&bytes).unwrap_err();
        assert_eq!(hole.position, JOURNAL_HEADER + len as u64);
    }
}
