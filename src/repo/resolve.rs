//! Finds the point in the WAL that a moment means: exactly where Postgres's own recovery would stop.
//!
//! From: `view::open`.  To: the catalog (what is there), and a [`SearchedWal`]: segments whose summary says that recovery does not stop in them are
//! passed over, the records of the others are read.
//! In: what is wanted.  Out: [`Resolved`]: timeline and Lsn (a record boundary: what ends at or before it counts) and the backup to stand on.
//! A moment that cannot be reached is refused here, with the windows that can. Source: xlogrecovery.c `recoveryStopsBefore`, `recoveryStopsAfter` (14 to 18).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::{ControlFlow, Range};

use thiserror::Error;

use super::catalog::Catalog;
use super::label::BackupLabel;
use super::manifest::Header;
use super::moment::{Moment, TimelineChoice, Wanted};
use super::window::{Window, WindowEnd, missing_behind, windows};
use crate::advice::Advice;
use crate::format::index::{Has, Head, Summary, is_newer};
use crate::pg::timestamp::PgTime;
use crate::pg::wal::effect::{Effect, EffectError, effect};
use crate::pg::wal::record::DecodeError;
use crate::pg::wal::{End, EndReason, Layout, Reader, Record, Rmgr, TimelinePath, WalBytes};
use crate::pg::{Lsn, SegmentSize, Timeline, WalSegment};

/// A point in the WAL of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecoveryPoint {
    pub timeline: Timeline,
    /// A record boundary: records that end at or before it count, none that begins at or after it.
    pub lsn: Lsn,
}

impl fmt::Display for RecoveryPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on timeline {}", self.lsn, self.timeline)
    }
}

/// Where a moment is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    pub point: RecoveryPoint,
    /// The way there.
    pub path: TimelinePath,
    /// The newest backup that is consistent at the point.
    pub backup: BackupLabel,
    /// The newest commit before the point that was read on the way here, if any was.
    pub last_commit: Option<PgTime>,
    /// The newest moment was asked for, and WAL goes on behind this segment, which is missing.
    pub cut_short: Option<WalSegment>,
}

/// The WAL that is searched.
pub trait SearchedWal {
    type Bytes: WalBytes;

    /// Reads it.
    fn bytes(&self) -> Self::Bytes;

    /// Summaries by segment number, where there are any: of the segments `numbers` of `path`, perhaps of others.
    ///
    /// # Errors
    /// Whatever keeps them from being read.
    fn summaries(&self, path: &TimelinePath, numbers: Range<u64>) -> Result<BTreeMap<u64, Summary>, <Self::Bytes as WalBytes>::Error>;

    /// Where not all was logged from: see [`super::minimal`].
    ///
    /// # Errors
    /// Whatever keeps it from being found out.
    fn logged_minimally(&self) -> Result<Vec<(Timeline, Lsn)>, <Self::Bytes as WalBytes>::Error>;
}

/// So many summaries are asked for at first, then twice as many each time: the moment may be near, or far.
const SUMMARIES_AT_FIRST: u64 = 64;

/// Why a moment has no point.
#[derive(Debug, Error)]
pub enum ResolveError<E: std::error::Error + 'static> {
    /// With the labels of those that cannot be used.
    #[error("the repository has no backup of this cluster{}", if unusable.is_empty() { "" } else { " that can be used" })]
    NoBackup { unusable: Vec<String> },
    #[error("{moment} cannot be reached: {why}")]
    OutOfReach { moment: String, why: String, reachable: Vec<String> },
    #[error("there is no timeline {timeline} in the archive")]
    NoTimeline { timeline: Timeline, known: Vec<Timeline> },
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Effect(#[from] EffectError),
    #[error(transparent)]
    Source(E),
}

impl<E: std::error::Error + Advice + 'static> Advice for ResolveError<E> {
    fn detail(&self) -> Option<String> {
        match self {
            ResolveError::NoBackup { unusable } if !unusable.is_empty() => Some(format!("damaged or unknown: {}", unusable.join(", "))),
            ResolveError::Source(e) => e.detail(),
            ResolveError::OutOfReach { reachable, .. } if reachable.is_empty() => Some("no moment can be reached".to_owned()),
            ResolveError::OutOfReach { reachable, .. } => Some(format!("reachable: {}", reachable.join("; "))),
            ResolveError::NoTimeline { known, .. } => {
                Some(format!("known: {}", known.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")))
            }
            _ => None,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            ResolveError::NoBackup { unusable } if !unusable.is_empty() => {
                Some("`bygone info` says what is wrong with them; another repository may have a good copy.".to_owned())
            }
            ResolveError::NoBackup { .. } => Some("Take one with `bygone backup`.".to_owned()),
            ResolveError::Source(e) => e.hint(),
            ResolveError::OutOfReach { .. } => Some(
                "`bygone info` shows backups, WAL and gaps. What was not archived yet comes with the next segment: SELECT pg_switch_wal()."
                    .to_owned(),
            ),
            ResolveError::NoTimeline { .. } => Some("Leave --timeline away to follow the newest.".to_owned()),
            _ => None,
        }
    }
}

fn describe(window: &Window, size: SegmentSize) -> String {
    let then = match window.end {
        WindowEnd::Archive { .. } => String::new(),
        WindowEnd::Missing { segment, .. } => format!(" (then {} is missing)", segment.name(size)),
        WindowEnd::LoggedMinimally => " (then WAL was written with wal_level = minimal)".to_owned(),
    };
    format!("{} ({}) to {} on timeline {}{then}", window.from, window.from_time, window.to, window.timeline)
}

fn no_backup<E: std::error::Error>(catalog: &Catalog) -> ResolveError<E> {
    ResolveError::NoBackup { unusable: catalog.unusable.iter().map(|backup| backup.label.clone()).collect() }
}

/// What the search found in the WAL.
enum Stop {
    /// The point.
    At(Lsn),
    /// The WAL ended there first.
    Ended(End),
}

/// The error of the bytes of a searched WAL.
type BytesError<W> = <<W as SearchedWal>::Bytes as WalBytes>::Error;

/// Resolves a moment.
///
/// # Errors
/// [`ResolveError`].
///
/// Cost: a single segment for `lsn`, `latest` and `backup`; else the summaries from the chosen backup on, and the segments that they do not rule out.
pub fn resolve<W>(catalog: &Catalog, wanted: &Wanted, wal: &W) -> Result<Resolved, ResolveError<BytesError<W>>>
where
    W: SearchedWal,
    BytesError<W>: std::error::Error + 'static,
{
    if catalog.backups.is_empty() {
        return Err(no_backup(catalog));
    }
    let path = choose_path(catalog, wanted)?;
    let search = Search { catalog, wanted, path: &path, wal, summaries: RefCell::default() };
    let mut why = None;
    for backup in search.candidates() {
        match search.by_way_of(backup)? {
            Ok((lsn, last_commit)) => {
                let timeline = path.timeline_at(Lsn(lsn.0.saturating_sub(1)));
                let point = RecoveryPoint { timeline, lsn };
                let cut_short = (wanted.moment == Moment::Latest).then(|| missing_behind(catalog, &path, backup)).flatten();
                return Ok(Resolved { point, backup: backup.label.clone(), path: path.clone(), last_commit, cut_short });
            }
            Err(reason) => why = why.or(Some(reason)),
        }
    }
    let why = why.unwrap_or_else(|| "no backup on its timeline was complete by then".to_owned());
    Err(search.out_of_reach(why))
}

fn choose_path<E: std::error::Error>(catalog: &Catalog, wanted: &Wanted) -> Result<TimelinePath, ResolveError<E>> {
    let newest_backup = catalog.backups.last().map(|b| b.timeline);
    let timeline = match wanted.timeline {
        TimelineChoice::This(timeline) => Some(timeline),
        TimelineChoice::Latest => catalog.newest_timeline(),
        TimelineChoice::Current => match &wanted.moment {
            Moment::Backup(label) => catalog.backups.iter().find(|b| b.label == *label).map(|b| b.timeline),
            _ => newest_backup,
        },
    };
    let timeline = timeline.ok_or_else(|| no_backup(catalog))?;
    match catalog.paths.get(&timeline) {
        Some(path) => Ok(path.clone()),
        None if Some(timeline) == newest_backup => Ok(TimelinePath::single(timeline)),
        None => Err(ResolveError::NoTimeline { timeline, known: catalog.paths.keys().copied().collect() }),
    }
}

struct Search<'a, W> {
    catalog: &'a Catalog,
    wanted: &'a Wanted,
    path: &'a TimelinePath,
    wal: &'a W,
    summaries: RefCell<Summaries>,
}

/// Summaries that were asked for last, and those that came along.
#[derive(Default)]
struct Summaries {
    asked: Range<u64>,
    known: BTreeMap<u64, Summary>,
}

/// A point and the newest commit before it, or why this backup does not lead there.
type Found = Result<(Lsn, Option<PgTime>), String>;

impl<W> Search<'_, W>
where
    W: SearchedWal,
    BytesError<W>: std::error::Error + 'static,
{
    /// Backups that may lead to the moment, newest first.
    fn candidates(&self) -> impl Iterator<Item = &Header> {
        let early_enough = |backup: &&Header| match &self.wanted.moment {
            Moment::Time(time) => backup.stop_time <= *time,
            Moment::Lsn(lsn) => backup.stop_lsn <= *lsn || (!self.wanted.exclusive && backup.stop_lsn == *lsn),
            Moment::Backup(label) => backup.label == *label,
            Moment::Latest | Moment::Xid(_) | Moment::Name(_) => true,
        };
        self.catalog.backups.iter().rev().filter(|b| self.path.covers(b.timeline, b.stop_lsn)).filter(early_enough)
    }

    fn by_way_of(&self, backup: &Header) -> Result<Found, ResolveError<BytesError<W>>> {
        let size = self.catalog.identity.wal_segment_size;
        let Some((reach, _)) = self.catalog.end_of_run(self.path, size.segment_no(backup.start_lsn)) else {
            return Ok(Err(format!("the WAL of backup {} is missing", backup.label)));
        };
        if reach < backup.stop_lsn {
            return Ok(Err(format!("the WAL of backup {} is not complete", backup.label)));
        }
        match &self.wanted.moment {
            Moment::Backup(_) => Ok(Ok((backup.stop_lsn, None))),
            Moment::Lsn(lsn) if *lsn >= reach => Ok(Err(format!("the archive without a gap ends at {reach}"))),
            Moment::Lsn(lsn) => {
                let from = size.start(size.segment_no(*lsn)).max(backup.start_lsn);
                self.search(backup, from, reach)
            }
            Moment::Latest => self.end_of_wal(backup, reach),
            Moment::Time(_) | Moment::Xid(_) | Moment::Name(_) => self.search(backup, backup.start_lsn, reach),
        }
    }

    /// Where the last record ends of which all is there. A record may have begun many segments before the last one, and go on behind it.
    fn end_of_wal(&self, backup: &Header, reach: Lsn) -> Result<Found, ResolveError<BytesError<W>>> {
        let (layout, size) = (self.layout(), self.catalog.identity.wal_segment_size);
        let (mut no, mut back) = (size.segment_no(Lsn(reach.0.saturating_sub(1))), 1);
        loop {
            let from = size.start(no).max(backup.start_lsn);
            let is_first = from == backup.start_lsn;
            let begin = if is_first { Reader::at_record } else { Reader::at_page };
            let mut reader = begin(self.wal.bytes(), layout, self.path.clone(), from);
            let (mut any, mut last_commit) = (is_first, None);
            while let Some(raw) = reader.next().map_err(ResolveError::Source)? {
                any = true;
                let _goes_on = self.stops(&raw.decode(layout.major)?, &mut last_commit)?;
            }
            if any {
                let end = reader.end().unwrap_or(End { at: reader.position(), reason: EndReason::Zero });
                let is_it = end.at >= backup.stop_lsn && is_end(&end, reach);
                return Ok(if is_it { Ok((end.at, last_commit)) } else { Err(ends_before(&end, last_commit)) });
            }
            no = no.saturating_sub(back);
            back *= 2;
        }
    }

    fn layout(&self) -> Layout {
        let identity = &self.catalog.identity;
        Layout { major: identity.major, segment_size: identity.wal_segment_size, system_id: Some(identity.system_id) }
    }

    /// Reads records from `from` (the backup's redo point, or a segment's start) until one says stop.
    fn search(&self, backup: &Header, from: Lsn, reach: Lsn) -> Result<Found, ResolveError<BytesError<W>>> {
        let identity = &self.catalog.identity;
        let layout = self.layout();
        let begin = |lsn: Lsn| Reader::at_record(self.wal.bytes(), layout, self.path.clone(), lsn);
        let size = layout.segment_size;
        let last = size.segment_no(Lsn(reach.0.saturating_sub(1)));
        let mut last_commit = None;
        let mut no = size.segment_no(from);
        let mut reader = match self.pass_over(no..last, &mut last_commit)? {
            Some((to, lsn)) => {
                no = to;
                begin(lsn)
            }
            None if from == backup.start_lsn => begin(from),
            None => Reader::at_page(self.wal.bytes(), layout, self.path.clone(), from),
        };
        let stop = loop {
            let Some(raw) = reader.next().map_err(ResolveError::Source)? else {
                break Stop::Ended(reader.end().unwrap_or(End { at: reader.position(), reason: EndReason::Zero }));
            };
            let within = size.segment_no(Lsn(raw.end.0.saturating_sub(1)));
            if within > no {
                no = within;
                if let Some((to, lsn)) = self.pass_over(no..last, &mut last_commit)? {
                    no = to;
                    reader = begin(lsn);
                    continue;
                }
            }
            let record = raw.decode(identity.major)?;
            if let ControlFlow::Break(lsn) = self.stops(&record, &mut last_commit)? {
                break Stop::At(lsn);
            }
        };
        Ok(match stop {
            Stop::At(lsn) if lsn < backup.stop_lsn => {
                Err(format!("it is before backup {} was consistent, at {}", backup.label, backup.stop_lsn))
            }
            Stop::At(lsn) => Ok((lsn, last_commit)),
            Stop::Ended(end) => Err(match (&self.wanted.moment, ends_before(&end, last_commit)) {
                (Moment::Xid(_) | Moment::Name(_), ends) => format!("it is not in the WAL from {} on, and {ends}", backup.start_lsn),
                (_, ends) => ends,
            }),
        })
    }

    /// The first of these segments in which recovery may stop, and where the first record begins that ends in it; `None` if it is the first one. A record
    /// belongs to the segment in which it ends.
    fn pass_over(&self, numbers: Range<u64>, last_commit: &mut Option<PgTime>) -> Result<Option<(u64, Lsn)>, ResolveError<BytesError<W>>> {
        let mut passed = None;
        for no in numbers {
            let Some(summary) = self.summary(no)?.filter(|summary| self.goes_past(summary)) else { break };
            *last_commit = summary.times.map(|(_, high)| high).or(*last_commit);
            passed = Some((no + 1, summary.tail.unwrap_or(self.catalog.identity.wal_segment_size.start(no + 1))));
        }
        Ok(passed)
    }

    fn summary(&self, no: u64) -> Result<Option<Summary>, ResolveError<BytesError<W>>> {
        if matches!(self.wanted.moment, Moment::Latest | Moment::Lsn(_) | Moment::Backup(_)) {
            return Ok(None);
        }
        let mut summaries = self.summaries.borrow_mut();
        let Summaries { asked, known } = &mut *summaries;
        if !asked.contains(&no) && !known.contains_key(&no) {
            let count = (asked.end - asked.start).saturating_mul(2).max(SUMMARIES_AT_FIRST);
            *asked = no..no.saturating_add(count);
            *known = self.wal.summaries(self.path, asked.clone()).map_err(ResolveError::Source)?;
        }
        Ok(known.get(&no).copied())
    }

    /// Is it certain that recovery stops at no record that ends in this segment?
    fn goes_past(&self, summary: &Summary) -> bool {
        let complete = summary.is_whole && summary.head != Head::Missing;
        complete
            && match &self.wanted.moment {
                Moment::Time(time) => {
                    let time = PgTime::from(*time);
                    summary.times.is_none_or(|(_, newest)| newest < time || (newest == time && !self.wanted.exclusive))
                }
                Moment::Xid(xid) => summary.finished.is_none_or(|(oldest, newest)| is_newer(oldest, *xid) || is_newer(*xid, newest)),
                Moment::Name(_) => !summary.has.any(Has::RESTORE_POINT),
                Moment::Latest | Moment::Lsn(_) | Moment::Backup(_) => false,
            }
    }

    /// Does recovery stop at this record, and where?
    fn stops(&self, record: &Record<'_>, last_commit: &mut Option<PgTime>) -> Result<ControlFlow<Lsn>, ResolveError<BytesError<W>>> {
        let exclusive = self.wanted.exclusive;
        if let Moment::Lsn(lsn) = &self.wanted.moment {
            let reached = record.lsn >= *lsn;
            return Ok(if reached {
                ControlFlow::Break(if exclusive { record.lsn } else { record.end })
            } else {
                ControlFlow::Continue(())
            });
        }
        if !matches!(record.rmgr, Rmgr::TRANSACTION | Rmgr::XLOG) {
            return Ok(ControlFlow::Continue(()));
        }
        Ok(match (effect(record, self.catalog.identity.major)?, &self.wanted.moment) {
            (Some(Effect::Finish(finish)), Moment::Time(time)) => {
                let time = PgTime::from(*time);
                if finish.time > time || (exclusive && finish.time == time) {
                    return Ok(ControlFlow::Break(record.lsn));
                }
                *last_commit = Some(finish.time);
                ControlFlow::Continue(())
            }
            (Some(Effect::Finish(finish)), Moment::Xid(xid)) if finish.xid == *xid => {
                ControlFlow::Break(if exclusive { record.lsn } else { record.end })
            }
            (Some(Effect::RestorePoint { name, .. }), Moment::Name(wanted)) if name == wanted.as_bytes() => ControlFlow::Break(record.end),
            (Some(Effect::Finish(finish)), _) => {
                *last_commit = Some(finish.time);
                ControlFlow::Continue(())
            }
            _ => ControlFlow::Continue(()),
        })
    }

    fn out_of_reach(&self, why: String) -> ResolveError<BytesError<W>> {
        let minimal = match self.wal.logged_minimally() {
            Ok(minimal) => minimal,
            Err(error) => return ResolveError::Source(error),
        };
        let size = self.catalog.identity.wal_segment_size;
        let reachable = windows(self.catalog, &minimal).0.iter().map(|window| describe(window, size)).collect();
        let backups = self.catalog.unusable.iter().map(|backup| format!("backup {}", backup.label));
        let histories = self.catalog.bad_histories.iter().map(|(timeline, _)| format!("{timeline:08X}.history"));
        let damaged: Vec<String> = backups.chain(histories).collect();
        let why = if damaged.is_empty() { why } else { format!("{why} (damaged or unknown: {})", damaged.join(", ")) };
        ResolveError::OutOfReach { moment: self.wanted.moment.to_string(), why, reachable }
    }
}

fn ends_before(end: &End, last_commit: Option<PgTime>) -> String {
    match last_commit {
        Some(time) => format!("the archived WAL ends before it, at {}; its last commit is of {time}", end.at),
        None => format!("the archived WAL ends before it, at {}", end.at),
    }
}

/// Does the WAL end where the archive does, and not at damage in the middle of it?
fn is_end(end: &End, reach: Lsn) -> bool {
    end.at >= reach || end.reason.is_plain()
}
