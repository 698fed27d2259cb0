//! The way between: everything is rebuilt as of a checkpoint's redo point, and Postgres replays only what follows (`--replay=hybrid`).
//!
//! From: `view::open`, where WAL before the moment holds a record that we cannot replay, or by wish.  To: `view::wal`.
//! In: the WAL that leads to the moment.  Out: [`Takeover`], the newest checkpoint that will do; `moment` is then built at its redo point.
//! A checkpoint will do if
//! - its record ends before the moment: a server must not stop before the checkpoint that it started from, and needs a record to stop at;
//! - its redo point does not lie before the end of the backup: copied pages may be newer than that;
//! - its redo point does not lie behind the first record that we cannot replay.
//!
//! The last holds for any record of an extension, whatever blocks it names and even if it brings images of all of them: nobody but the extension
//! knows whether that is all that it does. Being that strict costs little, since a page that an extension changes all the time is in a state that
//! only the extension can make at nearly every redo point.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::format::index::{Has, Head, Summary};
use crate::pg::Lsn;
use crate::pg::checkpoint::Checkpoint;
use crate::pg::relation::BLCKSZ;
use crate::pg::wal::Record;
use crate::pg::wal::effect::{Effect, effect};
use crate::repo::RepoError;
use crate::view::wal::ArchivedWal;

/// Where Postgres takes over from us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Takeover {
    /// Where the checkpoint's record begins: what `pg_control` names.
    pub lsn: Lsn,
    pub checkpoint: Checkpoint,
}

impl Takeover {
    /// Everything is rebuilt as of here, and replay begins here.
    #[must_use]
    pub fn redo(&self) -> Lsn {
        self.checkpoint.redo
    }

    /// The checkpoint whose record begins at `lsn`; `None` if there is none.
    ///
    /// # Errors
    /// Those of the repository.
    pub fn at(wal: &ArchivedWal, lsn: Lsn) -> Result<Option<Takeover>, RepoError> {
        Ok(wal.checkpoint(lsn)?.map(|checkpoint| Takeover { lsn, checkpoint }))
    }
}

/// The WAL before a moment, searched for single records.
#[derive(Debug)]
pub struct Search<'a> {
    pub wal: &'a ArchivedWal,
    /// By segment number: segments that have no such record are not read.
    pub summaries: &'a BTreeMap<u64, Summary>,
    /// The moment.
    pub until: Lsn,
}

impl Search<'_> {
    /// The newest checkpoint whose record ends before the moment, and whose redo point is in `redo`.
    ///
    /// # Errors
    /// Those of the repository.
    pub fn newest_checkpoint(&self, redo: &RangeInclusive<Lsn>) -> Result<Option<Takeover>, RepoError> {
        let size = self.wal.layout.segment_size;
        let [first, limit, last] = [*redo.start(), *redo.end(), self.until].map(|lsn| size.segment_no(lsn));
        // A checkpoint's record follows its redo point at any distance: look on until a redo point lies too far. They rise with the records.
        let mut found = None;
        'ahead: for no in limit..=last {
            for takeover in self.checkpoints(no)? {
                if takeover.redo() > *redo.end() {
                    break 'ahead;
                }
                found = Some(takeover);
            }
        }
        for no in (first..limit).rev() {
            if found.is_some() {
                break;
            }
            found = self.checkpoints(no)?.pop();
        }
        Ok(found.filter(|takeover| redo.contains(&takeover.redo())))
    }

    fn checkpoints(&self, no: u64) -> Result<Vec<Takeover>, RepoError> {
        self.segment(no, Has::CHECKPOINT, |record, effect| match effect {
            Effect::Checkpoint { checkpoint, .. } if record.end < self.until => Some(Takeover { lsn: record.lsn, checkpoint }),
            _ => None,
        })
    }

    /// The first tablespace that is made between `from` and the moment elsewhere than inside the data directory: where its record begins, and where
    /// its files lie in production.
    ///
    /// # Errors
    /// Those of the repository.
    pub fn new_tablespace(&self, from: Lsn) -> Result<Option<(Lsn, String)>, RepoError> {
        let size = self.wal.layout.segment_size;
        for no in size.segment_no(from)..=size.segment_no(self.until) {
            let found = self.segment(no, Has::TABLESPACE, |record, effect| match effect {
                Effect::CreateTablespace { path, .. } if record.lsn >= from && !path.is_empty() => {
                    Some((record.lsn, String::from_utf8_lossy(&path).into_owned()))
                }
                _ => None,
            })?;
            if let Some(first) = found.into_iter().next() {
                return Ok(Some(first));
            }
        }
        Ok(None)
    }

    /// What `pick` makes of the effects of records that end in a segment, and not behind the moment, in WAL order; perhaps of some of the segment
    /// before. `kind` is what summaries call such records.
    fn segment<T>(&self, no: u64, kind: Has, mut pick: impl FnMut(&Record<'_>, Effect) -> Option<T>) -> Result<Vec<T>, RepoError> {
        let has_none = |summary: &Summary| summary.is_whole && summary.head != Head::Missing && !summary.has.any(kind);
        let mut found = Vec::new();
        if self.summaries.get(&no).is_some_and(has_none) {
            return Ok(found);
        }
        let layout = self.wal.layout;
        let end = layout.segment_size.start(no + 1);
        let mut reader = self.wal.reader_from_page(self.before(layout.segment_size.start(no))?);
        while let Some(raw) = reader.next()?.filter(|raw| raw.lsn < end && raw.end <= self.until) {
            // One that cannot be taken apart is none of those that are looked for.
            let Ok(record) = raw.decode(layout.major) else { continue };
            if let Ok(Some(effect)) = effect(&record, layout.major) {
                found.extend(pick(&record, effect));
            }
        }
        Ok(found)
    }

    /// From where on a segment is to be read: records that are looked for are shorter than a page, so one that ends in it begins on the page before at
    /// the earliest, unless nothing was written there.
    fn before(&self, start: Lsn) -> Result<Lsn, RepoError> {
        let page = Lsn(start.0.saturating_sub(BLCKSZ as u64));
        Ok(if self.wal.reader_from_page(page).next()?.is_some() { page } else { start })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::format::index::Summary;
    use crate::pg::wal::fabricate::{Draft, Writer, layout};
    use crate::pg::wal::{Rmgr, TimelinePath};
    use crate::pg::{Major, Timeline, WalSegment};
    use crate::repo::layout::ClusterFolder;
    use crate::repo::{Cipher, ObjectKind, Repository};
    use crate::store::memory::MemoryStore;
    use crate::view::content::StoredFiles;
    use crate::view::stored::StoredObjects;

    const FIRST: u64 = 3;
    const CHECKPOINT_ONLINE: u8 = 0x10;
    const SWITCH: u8 = 0x40;
    const CREATE_TABLESPACE: u8 = 0x00;

    /// WAL in an archive, and its checkpoints with where each record ends.
    struct Past {
        wal: ArchivedWal,
        checkpoints: Vec<(Takeover, Lsn)>,
        tablespaces: Vec<Lsn>,
        end: Lsn,
        summaries: BTreeMap<u64, Summary>,
    }

    fn filler(bytes: usize) -> Draft {
        Draft::new(Rmgr::XLOG, 0x20, 0, vec![7; bytes])
    }

    fn checkpoint(redo: Lsn) -> Checkpoint {
        Checkpoint { redo, ..Checkpoint::decode(&[0; 88], Major::V16).unwrap() }
    }

    /// Checkpoints at all distances from their redo points and from the ends of segments, some of which end early.
    fn past() -> Past {
        let mut w = Writer::new(layout(Major::V16), FIRST);
        let (mut checkpoints, mut tablespaces, mut end) = (Vec::new(), Vec::new(), Lsn::INVALID);
        for round in 0..30usize {
            let redo = w.next_lsn();
            for i in 0..round * 7 % 11 {
                w.push(&filler(20_000 + i * 8));
            }
            if round % 9 == 4 {
                // The record of the checkpoint straddles two segments.
                let left = usize::try_from((1 << 20) - w.next_lsn().0 % (1 << 20)).unwrap();
                let pages = left / 8192;
                w.push(&filler(left - 24 * pages - 24 - 5 - 64));
            }
            let said = checkpoint(redo);
            let (lsn, after) = w.push(&Draft::new(Rmgr::XLOG, CHECKPOINT_ONLINE, 0, said.encode().to_vec()));
            checkpoints.push((Takeover { lsn, checkpoint: said }, after));
            if round % 5 == 3 {
                w.push(&Draft::new(Rmgr::XLOG, SWITCH, 0, Vec::new()));
            }
            if round % 10 == 6 {
                let place: &[u8] = if round % 20 == 6 { b"/production\0" } else { b"\0" };
                let made = w.push(&Draft::new(Rmgr::TABLESPACE, CREATE_TABLESPACE, 0, [&77u32.to_le_bytes()[..], place].concat()));
                tablespaces.extend((place.len() > 1).then_some(made.0));
            }
            end = w.push(&filler(100)).1;
        }
        let repository = Repository::create(Arc::new(MemoryStore::default()), Cipher::None, None).unwrap();
        let folder = ClusterFolder::new("main", Major::V16, 42);
        let size = w.layout.segment_size;
        for (segment, bytes) in &w.segments.0 {
            repository.put_object(&folder.segment(*segment, size), ObjectKind::WalSegment, bytes, None).unwrap();
        }
        let files = StoredFiles { shared: StoredObjects::new(Arc::new(repository), 64 << 20), folder, label: String::new() };
        let wal = ArchivedWal::new(files, w.layout, TimelinePath::single(Timeline(1)));
        let mut summaries: BTreeMap<u64, Summary> = w.segments.0.keys().map(|segment| (segment.no, summary(*segment))).collect();
        let mut has = |end: Lsn, kind: Has| {
            let no = size.segment_no(Lsn(end.0 - 41));
            summaries.entry(no).and_modify(|summary| summary.has = Has(summary.has.0 | kind.0));
        };
        checkpoints.iter().for_each(|(_, end)| has(*end, Has::CHECKPOINT));
        tablespaces.iter().for_each(|lsn| has(Lsn(lsn.0 + 64), Has::TABLESPACE));
        Past { wal, checkpoints, tablespaces, end, summaries }
    }

    fn summary(segment: WalSegment) -> Summary {
        Summary {
            segment,
            head: Head::None,
            end: Lsn::INVALID,
            tail: None,
            is_whole: true,
            records: 1,
            times: None,
            finished: None,
            newest_xid: None,
            has: Has::default(),
        }
    }

    #[test]
    fn the_newest_checkpoint_that_will_do_is_found_with_summaries_and_without() {
        let past = past();
        let straddles = |(takeover, end): &&(Takeover, Lsn)| takeover.lsn.0 >> 20 != end.0 >> 20;
        assert!(past.checkpoints.iter().filter(straddles).count() > 1, "some straddle segments");
        let none = BTreeMap::new();
        let positions: Vec<Lsn> = past.checkpoints.iter().flat_map(|(t, end)| [t.redo(), Lsn(t.lsn.0 + 1), *end, Lsn(end.0 + 1)]).collect();
        for (i, &until) in positions.iter().enumerate().step_by(7) {
            for &limit in positions[..=i].iter().rev().step_by(11) {
                for from in [positions[0], positions[i / 2], limit] {
                    let does = |(t, end): &&(Takeover, Lsn)| *end < until && (from..=limit).contains(&t.redo());
                    let expected = past.checkpoints.iter().rfind(does).map(|(takeover, _)| *takeover);
                    for summaries in [&none, &past.summaries] {
                        let search = Search { wal: &past.wal, summaries, until };
                        assert_eq!(search.newest_checkpoint(&(from..=limit)).unwrap(), expected, "{from} to {limit} before {until}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_first_tablespace_outside_of_the_data_directory_is_found() {
        let past = past();
        let [first, .., last] = past.tablespaces[..] else { panic!("there are several") };
        let search = Search { wal: &past.wal, summaries: &past.summaries, until: past.end };
        let outside = |lsn| Some((lsn, "/production".to_owned()));
        assert_eq!(search.new_tablespace(past.checkpoints[0].0.lsn).unwrap(), outside(first));
        assert_eq!(search.new_tablespace(last).unwrap(), outside(last));
        assert_eq!(search.new_tablespace(Lsn(last.0 + 1)).unwrap(), None);
        assert_eq!(Search { until: first, ..search }.new_tablespace(past.checkpoints[0].0.lsn).unwrap(), None);
    }
}
