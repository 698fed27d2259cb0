//! Where the WAL stops to say all that happens: `wal_level = minimal` leaves out what is written into files that a transaction has just made.
//!
//! From: `cli::info`, and whoever must tell a user which moments can be reached.  To: `repo::indexes`.
//! Known from indexes, roll-ups first; a segment without one counts as sound here, and is found out when a moment behind it is opened.

use super::catalog::Catalog;
use super::indexes::{Indexes, StoredIndex};
use super::layout::SegmentRun;
use super::{RepoError, Repository};
use crate::format::index::{Has, IndexError};
use crate::parallel;
use crate::pg::wal::effect::{Effect, WAL_LEVEL_MINIMAL};
use crate::pg::{Lsn, Major, Timeline, WalSegment};

/// Where the records begin from which on not all is logged, by timeline and position, as far as a backup could lead to them.
///
/// # Errors
/// Those of the store. Cost: two small reads for each roll-up, and for each segment that is in none.
pub fn logged_minimally(repository: &Repository, catalog: &Catalog) -> Result<Vec<(Timeline, Lsn)>, RepoError> {
    let size = catalog.identity.wal_segment_size;
    let Some(first) = catalog.backups.iter().map(|backup| size.segment_no(backup.start_lsn)).min() else { return Ok(Vec::new()) };
    let indexes = &catalog.indexes;
    let units = units(catalog, indexes, first);
    let opened = parallel::map(parallel::MAX_REQUESTS, &units, |run| {
        let index = match run.count() {
            1 => indexes.of_segment(repository, run.first_segment())?,
            _ => indexes.rollup(repository, *run)?,
        };
        index.map_or(Ok(Vec::new()), |index| positions(&index, catalog.identity.major))
    });
    let mut found = Vec::new();
    for (run, positions) in units.iter().zip(opened) {
        found.extend(positions?.into_iter().map(|lsn| (run.timeline, lsn)));
    }
    Ok(found)
}

/// The longest roll-ups, and the single segments between them, from segment `first` on.
fn units(catalog: &Catalog, indexes: &Indexes, first: u64) -> Vec<SegmentRun> {
    let mut units = Vec::new();
    for run in &catalog.wal {
        let mut no = run.first.max(first);
        while no <= run.last {
            let segment = WalSegment { timeline: run.timeline, no };
            let single = SegmentRun { timeline: run.timeline, first: no, last: no };
            let unit = indexes.rollups_from(segment, run.last).next().unwrap_or(single);
            no = unit.last.saturating_add(1);
            units.push(unit);
        }
    }
    units
}

fn positions(index: &StoredIndex, major: Major) -> Result<Vec<Lsn>, RepoError> {
    let mut found = Vec::new();
    if !index.summaries().iter().any(|summary| summary.has.any(Has::PARAMETERS)) {
        return Ok(found);
    }
    let read = index.log(Lsn::INVALID, &mut |item| {
        if matches!(item.effect(major), Ok(Some(Effect::Parameters(parameters))) if parameters.wal_level == WAL_LEVEL_MINIMAL) {
            found.push(item.lsn);
        }
        true
    });
    match read {
        Err(IndexError::Read(error)) => Err(error),
        // A damaged index counts as not there.
        Ok(()) | Err(IndexError::Bad(_)) => Ok(found),
    }
}
