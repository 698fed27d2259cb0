//! Takes in all WAL from the backup to the moment: by index where there is one, record by record at both ends.
//!
//! From: `build`.  To: `view::indexes`, `view::scan`; `view::fold`, which becomes the cluster at the moment.
//! Record by record: the segment that holds the backup's redo point, since an index tells only what all of its segments come to; the one that holds
//! the moment; and segments in which the order of events matters ([`IN_ORDER`](crate::repo::indexes::IN_ORDER)).

use std::sync::Arc;

use super::error::BuildError;
use super::read::CopiedSlrus;
use super::references::{Records, References, Stretch};
use super::target::Target;
use crate::format::index::{Has, LogItem};
use crate::pg::{Lsn, Major};
use crate::repo::RepoError;
use crate::repo::indexes::StoredIndex;
use crate::view::fold::{At, Cluster};
use crate::view::index_memory::Known;
use crate::view::indexes::{Piece, WalIndexes};
use crate::view::scan::{ScanError, scan};

/// Bytes of the header of a segment's first page (`SizeOfXLogLongPHD`).
const LONG_HEADER_BYTES: u64 = 40;

/// Brings `cluster` from the backup's redo point to the moment. Gives what is known of the records, and where the last one begins.
pub(super) fn gather(target: &Target<'_>, major: Major, cluster: &mut Cluster<CopiedSlrus>) -> Result<(References, Lsn), BuildError> {
    let size = target.wal.layout.segment_size;
    let redo_start = target.manifest.header.start_lsn;
    let first = size.segment_no(redo_start);
    // A position in the header of a segment belongs to the one before: the last one must hold a record.
    let last = size.segment_no(Lsn(target.until.0.saturating_sub(LONG_HEADER_BYTES + 1)));
    let mut gathering = Gathering { target, major, cluster, next: redo_start, last_record: Lsn::INVALID, stretches: Vec::new() };
    if first < last {
        gathering.scan(size.start(first + 1))?;
        let (files, wal, memory) = (&target.files, &target.wal, target.memory.indexes());
        let indexes = WalIndexes { files, wal, catalog: target.catalog, listed: target.indexes, memory };
        for piece in indexes.pieces(first + 1..last)? {
            match piece {
                Piece::Scan(no) => gathering.scan(size.start(no + 1))?,
                Piece::Index(index) => gathering.index(index)?,
            }
        }
    }
    gathering.scan(target.until)?;
    Ok((References::new(gathering.stretches, target.wal.path.newest(), &target.memory), gathering.last_record))
}

struct Gathering<'a> {
    target: &'a Target<'a>,
    major: Major,
    cluster: &'a mut Cluster<CopiedSlrus>,
    /// Where the first record begins that was not taken in.
    next: Lsn,
    last_record: Lsn,
    stretches: Vec<Stretch>,
}

impl Gathering<'_> {
    /// Takes in the records that end at or before `until`, one by one.
    fn scan(&mut self, until: Lsn) -> Result<(), BuildError> {
        let mut reader = self.target.wal.reader(self.next);
        let scanned = scan(&mut reader, until, self.major, self.cluster)?;
        if scanned.last_record.is_valid() {
            self.last_record = scanned.last_record;
        }
        self.went_to(scanned.next, Records::Scanned(scanned));
        Ok(())
    }

    /// Takes in what an index tells.
    fn index(&mut self, index: Arc<Known>) -> Result<(), BuildError> {
        let about = *index.about();
        let tracked = self.cluster.settings.track_commit_timestamp;
        if tracked && index.summaries().iter().any(|summary| !summary.has.any(Has::COMMIT_TIMES)) {
            // It left out the times of commits.
            let size = self.target.wal.layout.segment_size;
            return (about.first.no..=about.last_no).try_for_each(|no| self.scan(size.start(no + 1)));
        }
        fold(&index, self.major, self.cluster)?;
        let end = self.target.wal.layout.segment_size.start(about.last_no + 1);
        let next = index.summaries().last().and_then(|summary| summary.tail).unwrap_or(end);
        self.went_to(next, Records::Indexed(index));
        Ok(())
    }

    fn went_to(&mut self, next: Lsn, records: Records) {
        self.stretches.push(Stretch { begin: self.next..next, records });
        self.next = next;
    }
}

/// What all the segments of an index come to: their log, in order; how transactions ended; how long files are at its end.
fn fold(index: &StoredIndex, major: Major, cluster: &mut Cluster<CopiedSlrus>) -> Result<(), BuildError> {
    let length = |cluster: &Cluster<CopiedSlrus>, rel, fork| cluster.relations.fork(rel, fork).map(|fork| fork.blocks);
    let lengths: Vec<_> = index.extents().iter().map(|(rel, fork, change)| change.apply(length(cluster, *rel, *fork))).collect();
    let mut result = Ok(());
    index.log(Lsn::INVALID, &mut |item| {
        result = take_in(&item, major, cluster);
        result.is_ok()
    })?;
    result?;
    let mut result = Ok(());
    index.statuses(&mut |number, bits| {
        if result.is_ok() {
            result = cluster.slrus.set_statuses(number, bits);
        }
    })?;
    result?;
    for xid in index.summaries().iter().filter_map(|summary| summary.newest_xid) {
        cluster.saw_xid(xid);
    }
    for ((rel, fork, _), blocks) in index.extents().iter().zip(lengths) {
        cluster.relations.set_length(*rel, *fork, blocks);
    }
    Ok(())
}

fn take_in(item: &LogItem, major: Major, cluster: &mut Cluster<CopiedSlrus>) -> Result<(), BuildError> {
    let at = At { lsn: item.lsn, end: item.end, xid: item.xid };
    if item.rmgr.is_custom() {
        return Err(ScanError::Opaque { lsn: item.lsn, rmgr: item.rmgr.0 }.into());
    }
    if let Some(effect) = item.effect(major).map_err(ScanError::<RepoError>::from)? {
        cluster.apply(at, &effect)?;
    }
    Ok(())
}
