//! The block indexes of a stretch of WAL: the longest roll-ups that fit, and the segments' own between them.
//!
//! From: `view::moment`, `view::open`.  To: `repo::indexes`, and `format::index` for segments that were stored without one.
//! In: segments by number, along a path.  Out: [`Piece`]s in WAL order: an index, or a segment that must be read record by record.
//! Nothing is merged: a page asks one piece after the other, and their filters keep that short. Memory: 10 to 20 KiB for each segment that is in no
//! roll-up; of a roll-up its front and filter.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::format::index::{self, Index, IndexError, Subject, Summary};
use crate::pg::WalSegment;
use crate::repo::RepoError;
use crate::repo::catalog::Catalog;
use crate::repo::indexes::{IN_ORDER, IndexSource, Indexes, StoredIndex};
use crate::repo::layout::SegmentRun;
use crate::view::content::StoredFiles;
use crate::view::index_memory::{IndexMemory, Known};
use crate::view::wal::ArchivedWal;

/// A part of a stretch of WAL.
#[derive(Debug)]
pub enum Piece {
    /// What these segments hold. No event in it has to be seen in its order among other records than those of the log.
    Index(Arc<Known>),
    /// The segment of this number must be read record by record.
    Scan(u64),
}

/// The indexes of one cluster's WAL along one path.
#[derive(Debug)]
pub struct WalIndexes<'a> {
    pub files: &'a StoredFiles,
    pub wal: &'a ArchivedWal,
    pub catalog: &'a Catalog,
    pub listed: &'a Indexes,
    pub memory: &'a IndexMemory,
}

/// What is opened as one.
#[derive(Debug, Clone, Copy)]
enum Unit {
    Rollup(SegmentRun),
    Segment(WalSegment),
    /// Nobody has it.
    Missing(u64),
}

impl WalIndexes<'_> {
    /// The pieces that make up the segments `numbers`.
    ///
    /// # Errors
    /// Those of the store. A segment that is missing or cannot be indexed becomes a [`Piece::Scan`], and whoever scans it hears why.
    pub fn pieces(&self, numbers: Range<u64>) -> Result<Vec<Piece>, IndexError<RepoError>> {
        let mut pieces = Vec::new();
        self.collect(numbers, u64::MAX, &mut pieces)?;
        Ok(pieces)
    }

    fn collect(&self, numbers: Range<u64>, longest: u64, pieces: &mut Vec<Piece>) -> Result<(), IndexError<RepoError>> {
        let last = numbers.end.saturating_sub(1);
        let units = self.units(numbers, longest, last);
        let opened = self.files.shared.each(&units, |unit| self.open(*unit));
        for (unit, index) in units.into_iter().zip(opened) {
            let usable = index.map_err(IndexError::Read)?.filter(|index| index.summaries().iter().all(|s| !s.has.any(IN_ORDER)));
            match (unit, usable) {
                (_, Some(index)) => pieces.push(Piece::Index(index)),
                (Unit::Rollup(run), None) => self.collect(run.first..run.last + 1, run.count() - 1, pieces)?,
                (Unit::Segment(WalSegment { no, .. }) | Unit::Missing(no), None) => pieces.push(Piece::Scan(no)),
            }
        }
        Ok(())
    }

    /// Cuts a stretch into roll-ups of at most `longest` segments, the longest that do not go past segment `last`, and single segments.
    fn units(&self, numbers: Range<u64>, longest: u64, last: u64) -> Vec<Unit> {
        let mut units = Vec::new();
        let mut no = numbers.start;
        while no < numbers.end {
            let unit = match self.segment(no) {
                None => Unit::Missing(no),
                Some(segment) => {
                    let fits =
                        |run: &SegmentRun| run.count() <= longest && self.segment(run.last).map(|s| s.timeline) == Some(run.timeline);
                    let rollup = self.listed.rollups_from(segment, last).find(fits);
                    rollup.map_or(Unit::Segment(segment), Unit::Rollup)
                }
            };
            no = if let Unit::Rollup(run) = unit { run.last } else { no } + 1;
            units.push(unit);
        }
        units
    }

    /// The segment that the path means by a number.
    fn segment(&self, no: u64) -> Option<WalSegment> {
        self.wal.path.candidates(no, self.wal.layout.segment_size).find(|segment| self.catalog.has(*segment))
    }

    fn open(&self, unit: Unit) -> Result<Option<Arc<Known>>, RepoError> {
        match (self.stored(unit)?, unit) {
            (None, Unit::Segment(segment)) => self.memory.get_or_open(run_of(segment), || self.build(segment)),
            (stored, _) => Ok(stored),
        }
    }

    /// What the repository has.
    fn stored(&self, unit: Unit) -> Result<Option<Arc<Known>>, RepoError> {
        let repository = self.files.shared.repository();
        match unit {
            Unit::Rollup(run) => self.memory.get_or_open(run, || self.listed.rollup(repository, run)),
            Unit::Segment(segment) => self.memory.get_or_open(run_of(segment), || self.listed.of_segment(repository, segment)),
            Unit::Missing(_) => Ok(None),
        }
    }

    /// Makes the index of a segment that was stored without one.
    fn build(&self, segment: WalSegment) -> Result<Option<StoredIndex>, RepoError> {
        let subject = Subject { layout: self.wal.layout, segment, commit_times: true };
        let built = index::build(subject, &mut self.wal.segments())?;
        let whole = built.filter(|built| built.summary.is_whole && built.summary.head != index::Head::Missing);
        Ok(whole.and_then(|built| Index::open(IndexSource::Memory(built.bytes)).ok()))
    }

    /// Summaries of segments, where there are any: those of `numbers` at least. A roll-up that goes on behind them is better than many single segments.
    ///
    /// # Errors
    /// Those of the store.
    pub fn summaries(&self, numbers: Range<u64>) -> Result<BTreeMap<u64, Summary>, RepoError> {
        let mut units = self.units(numbers, u64::MAX, u64::MAX);
        units.retain(|unit| !matches!(unit, Unit::Missing(_)));
        let mut all = BTreeMap::new();
        for index in self.files.shared.each(&units, |unit| self.stored(*unit)) {
            all.extend(index?.iter().flat_map(|index| index.summaries()).map(|summary| (summary.segment.no, *summary)));
        }
        Ok(all)
    }
}

fn run_of(segment: WalSegment) -> SegmentRun {
    SegmentRun { timeline: segment.timeline, first: segment.no, last: segment.no }
}
