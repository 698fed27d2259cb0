//! Which moments can be reached: from the end of a backup as far as the WAL goes without a hole.
//!
//! From: `cli::info`, and whoever must tell a user that a moment is out of reach.  Out: [`Window`]s. Pure.
//! In: a [`Catalog`], and what [`logged_minimally`](super::minimal::logged_minimally) found.

use std::collections::BTreeMap;
use std::time::SystemTime;

use jiff::Timestamp;

use super::catalog::Catalog;
use super::label::BackupLabel;
use super::manifest::Header;
use crate::pg::wal::history::TimelinePath;
use crate::pg::{Lsn, Timeline, WalSegment};

/// An unbroken stretch of reachable positions on the way to one timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The newest timeline that it reaches.
    pub timeline: Timeline,
    /// The backups that it can be reached from; the first one opens it.
    pub backups: Vec<BackupLabel>,
    /// Where the first backup is consistent.
    pub from: Lsn,
    /// When that backup ended.
    pub from_time: Timestamp,
    /// Behind the last byte of WAL.
    pub to: Lsn,
    pub end: WindowEnd,
}

/// Why a window does not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowEnd {
    /// No more was archived. `archived`: when the last segment was stored; what committed before, and is in it, is reachable.
    Archive { archived: SystemTime },
    /// The first segment that is missing although later ones are there, and when the one before it was stored.
    Missing { segment: WalSegment, archived: SystemTime },
    /// From here on the WAL was written with `wal_level = minimal`.
    LoggedMinimally,
}

/// A backup that is of no use, because WAL that it needs to be consistent is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranded {
    pub backup: BackupLabel,
    pub missing: WalSegment,
}

/// All windows, by timeline and position, and the backups that open none.
#[must_use]
pub fn windows(catalog: &Catalog, minimal: &[(Timeline, Lsn)]) -> (Vec<Window>, Vec<Stranded>) {
    let mut found: Vec<Window> = Vec::new();
    let mut stranded: BTreeMap<BackupLabel, WalSegment> = BTreeMap::new();
    let mut anchored: Vec<&BackupLabel> = Vec::new();
    for (timeline, path) in &catalog.paths {
        let forked = path.stretch(*timeline).map_or(Lsn::INVALID, |stretch| stretch.begin);
        let first_of_path = found.len();
        for backup in catalog.backups.iter().filter(|backup| path.covers(backup.timeline, backup.stop_lsn)) {
            match reach(catalog, path, backup).map(|window| window.cut(path, minimal)) {
                Err(missing) => {
                    stranded.entry(backup.label.clone()).or_insert(missing);
                }
                // What ends before the timeline forks off belongs to its parent.
                Ok(window) if window.to <= forked => {}
                Ok(window) => {
                    anchored.push(&backup.label);
                    match found.get_mut(first_of_path..).and_then(|own| own.last_mut()).filter(|before| before.to == window.to) {
                        Some(before) => before.backups.push(backup.label.clone()),
                        None => found.push(window),
                    }
                }
            }
        }
    }
    stranded.retain(|label, _| !anchored.contains(&label));
    (found, stranded.into_iter().map(|(backup, missing)| Stranded { backup, missing }).collect())
}

/// How far one backup reaches on a path; else the segment that it lacks.
fn reach(catalog: &Catalog, path: &TimelinePath, backup: &Header) -> Result<Window, WalSegment> {
    let size = catalog.identity.wal_segment_size;
    let first = size.segment_no(backup.start_lsn);
    let (to, run) = catalog.end_of_run(path, first).ok_or(WalSegment { timeline: path.timeline_at(backup.start_lsn), no: first })?;
    let at_end = WalSegment { timeline: path.timeline_at(to), no: size.segment_no(to) };
    if to < backup.stop_lsn {
        return Err(at_end);
    }
    let goes_on = catalog.wal.iter().any(|run| {
        path.stretch(run.timeline).is_some_and(|stretch| stretch.end.is_none_or(|end| size.start(run.first) < end)) && run.first > at_end.no
    });
    Ok(Window {
        timeline: path.timeline_at(Lsn(to.0.saturating_sub(1))),
        backups: vec![backup.label.clone()],
        from: backup.stop_lsn,
        from_time: backup.stop_time,
        to,
        end: match goes_on {
            true => WindowEnd::Missing { segment: at_end, archived: run.archived },
            false => WindowEnd::Archive { archived: run.archived },
        },
    })
}

/// The segment that is missing although WAL goes on behind it.
#[must_use]
pub fn missing_behind(catalog: &Catalog, path: &TimelinePath, backup: &Header) -> Option<WalSegment> {
    match reach(catalog, path, backup).ok()?.end {
        WindowEnd::Missing { segment, .. } => Some(segment),
        WindowEnd::Archive { .. } | WindowEnd::LoggedMinimally => None,
    }
}

impl Window {
    /// As far as all was logged.
    fn cut(self, path: &TimelinePath, minimal: &[(Timeline, Lsn)]) -> Window {
        let on_path = |(timeline, lsn): &&(Timeline, Lsn)| path.stretch(*timeline).is_some_and(|s| s.end.is_none_or(|end| *lsn < end));
        let behind = minimal.iter().filter(on_path).map(|(_, lsn)| *lsn).filter(|lsn| (self.from..self.to).contains(lsn));
        match behind.min() {
            Some(to) => Window { timeline: path.timeline_at(Lsn(to.0.saturating_sub(1))), to, end: WindowEnd::LoggedMinimally, ..self },
            None => self,
        }
    }
}
