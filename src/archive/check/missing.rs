//! Which WAL is missing between the newest backup and a segment that has just arrived.
//!
//! From: `check`, for one repository.  To: its catalog.
//! A segment that Postgres still means to archive is waited for: segments do not arrive in order.

use std::path::Path;
use std::time::Instant;

use super::PAUSE;
use crate::pg::{SegmentSize, WalSegment};
use crate::repo::catalog::Catalog;
use crate::repo::layout::ClusterFolder;
use crate::repo::{RepoError, Repository};

/// The segments that lead from the newest backup of this timeline to `last` and are not there, as names or ranges of names. None where there is no
/// backup yet.
///
/// # Errors
/// Those of the repository.
pub(super) fn behind_the_newest_backup(
    repository: &Repository,
    folder: &ClusterFolder,
    last: WalSegment,
    data_directory: &Path,
    deadline: Instant,
) -> Result<Vec<String>, RepoError> {
    let catalog = Catalog::read(repository, folder)?;
    let size = catalog.identity.wal_segment_size;
    let mut missing = missing(&catalog, last);
    loop {
        let mut still = Vec::new();
        let mut comes = false;
        for segment in missing {
            // Looked at before the repository is asked: the mark goes when the segment is there.
            let is_ready = data_directory.join(format!("pg_wal/archive_status/{}.ready", segment.name(size))).exists();
            if !repository.has_object(&folder.segment(segment, size))? {
                comes |= is_ready;
                still.push(segment);
            }
        }
        missing = still;
        if !comes || Instant::now() >= deadline {
            return Ok(ranges(&missing, size));
        }
        std::thread::sleep(PAUSE);
    }
}

fn missing(catalog: &Catalog, last: WalSegment) -> Vec<WalSegment> {
    let size = catalog.identity.wal_segment_size;
    let Some(path) = catalog.paths.get(&last.timeline) else { return Vec::new() };
    let Some(backup) = catalog.backups.iter().rev().find(|backup| path.covers(backup.timeline, backup.stop_lsn)) else { return Vec::new() };
    // In the segment of a fork the newer timeline's file leads on.
    let needed = (size.segment_no(backup.start_lsn)..=last.no).filter_map(|no| path.candidates(no, size).next());
    needed.filter(|segment| !catalog.has(*segment)).collect()
}

/// `A to B` for neighbours, in order.
fn ranges(segments: &[WalSegment], size: SegmentSize) -> Vec<String> {
    let follow = |a: &WalSegment, b: &WalSegment| a.timeline == b.timeline && a.no.checked_add(1) == Some(b.no);
    let named = |run: &[WalSegment]| match run {
        [] => None,
        [only] => Some(only.name(size)),
        [first, .., last] => Some(format!("{} to {}", first.name(size), last.name(size))),
    };
    segments.chunk_by(follow).filter_map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::Timeline;

    #[test]
    fn neighbours_are_named_together() {
        let segment = |timeline, no| WalSegment { timeline: Timeline(timeline), no };
        let name = |timeline, no: u64| segment(timeline, no).name(SegmentSize::DEFAULT);
        let missing = [segment(1, 3), segment(1, 4), segment(2, 5), segment(2, 7)];
        let expected = [format!("{} to {}", name(1, 3), name(1, 4)), name(2, 5), name(2, 7)];
        assert_eq!(ranges(&missing, SegmentSize::DEFAULT), expected);
    }
}
