//! Timeline history files, and the path of timelines that leads to a point in the WAL.
//!
//! Source: timeline.c `readTimeLineHistory`, `tliOfPointInHistory` (14 to 18).

use thiserror::Error;

use crate::pg::{Lsn, SegmentSize, Timeline, WalSegment};

/// One stretch of a [`TimelinePath`]: the WAL from `begin` up to `end` (exclusive) was written on `timeline`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    pub timeline: Timeline,
    pub begin: Lsn,
    /// `None` for the newest: it has no end yet.
    pub end: Option<Lsn>,
}

/// The timelines that lead to the newest one of them, oldest first. Stretches are adjacent and never empty of meaning: each begins where the one before ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelinePath {
    stretches: Vec<Stretch>,
}

/// A history file that cannot be what Postgres wrote.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BadHistory {
    #[error("line {line} of the history file of timeline {timeline} is not `timeline, position, reason`: {text:?}")]
    Line { timeline: Timeline, line: usize, text: String },
    #[error("line {line} of the history file of timeline {timeline}: timelines and positions must rise")]
    Order { timeline: Timeline, line: usize },
}

impl TimelinePath {
    /// A timeline without ancestors.
    #[must_use]
    pub fn single(timeline: Timeline) -> TimelinePath {
        TimelinePath { stretches: vec![Stretch { timeline, begin: Lsn::INVALID, end: None }] }
    }

    /// The path that the history file `text` of `timeline` states.
    ///
    /// # Errors
    /// [`BadHistory`] with the line.
    pub fn parse(timeline: Timeline, text: &str) -> Result<TimelinePath, BadHistory> {
        let mut stretches: Vec<Stretch> = Vec::new();
        let mut begin = Lsn::INVALID;
        for (index, text) in text.lines().enumerate() {
            let content = text.trim_start();
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            let line = index.saturating_add(1);
            let (parent, end) =
                parse_line(content).ok_or_else(|| BadHistory::Line { timeline, line, text: content.chars().take(80).collect() })?;
            let rises = stretches.last().is_none_or(|s| s.timeline < parent) && parent < timeline && begin <= end;
            if !rises {
                return Err(BadHistory::Order { timeline, line });
            }
            stretches.push(Stretch { timeline: parent, begin, end: Some(end) });
            begin = end;
        }
        stretches.push(Stretch { timeline, begin, end: None });
        Ok(TimelinePath { stretches })
    }

    /// Oldest first.
    #[must_use]
    pub fn stretches(&self) -> &[Stretch] {
        &self.stretches
    }

    /// The newest timeline of the path.
    #[must_use]
    pub fn newest(&self) -> Timeline {
        self.stretches.last().map_or(Timeline(0), |s| s.timeline)
    }

    /// On which timeline the byte at `lsn` was written: at a fork, the newer one.
    #[must_use]
    pub fn timeline_at(&self, lsn: Lsn) -> Timeline {
        self.stretches.iter().rev().find(|s| s.begin <= lsn).map_or(Timeline(0), |s| s.timeline)
    }

    /// The stretch of `timeline`, if the path goes over it.
    #[must_use]
    pub fn stretch(&self, timeline: Timeline) -> Option<&Stretch> {
        self.stretches.iter().find(|s| s.timeline == timeline)
    }

    /// Is `timeline` at `lsn` on the path: is what was written there up to `lsn` (exclusive) part of it?
    #[must_use]
    pub fn covers(&self, timeline: Timeline, lsn: Lsn) -> bool {
        self.stretch(timeline).is_some_and(|s| s.end.is_none_or(|end| lsn <= end))
    }

    /// The segments that may hold segment number `no`, in the order in which Postgres looks for them: newest timeline first.
    /// The segment in which a timeline forks is on both; the newer file begins with a copy of the older one's bytes.
    pub fn candidates(&self, no: u64, size: SegmentSize) -> impl Iterator<Item = WalSegment> + '_ {
        self.stretches
            .iter()
            .rev()
            .filter(move |s| size.segment_no(s.begin) <= no && s.end.is_none_or(|end| size.start(no) < end))
            .map(move |s| WalSegment { timeline: s.timeline, no })
    }
}

fn parse_line(content: &str) -> Option<(Timeline, Lsn)> {
    let mut words = content.split_whitespace();
    let timeline = Timeline(words.next()?.parse().ok()?);
    let at = words.next()?.parse().ok()?;
    Some((timeline, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# a comment\n1\t0/3000110\tno recovery target specified\n\n2\t0/5000000\tbefore 2026-01-01\n";

    #[test]
    fn history_gives_the_path() {
        let path = TimelinePath::parse(Timeline(4), TEXT).unwrap();
        assert_eq!(path.newest(), Timeline(4));
        assert_eq!(path.timeline_at(Lsn(0x300_0100)), Timeline(1));
        assert_eq!(path.timeline_at(Lsn(0x300_0110)), Timeline(2));
        assert_eq!(path.timeline_at(Lsn(0x500_0000)), Timeline(4));
        assert!(path.covers(Timeline(1), Lsn(0x300_0110)) && !path.covers(Timeline(1), Lsn(0x300_0118)));
        assert!(!path.covers(Timeline(3), Lsn(0x300_0110)));
    }

    #[test]
    fn the_segment_of_a_fork_is_looked_for_on_the_newer_timeline_first() {
        let path = TimelinePath::parse(Timeline(4), TEXT).unwrap();
        let timelines = |no| path.candidates(no, SegmentSize::DEFAULT).map(|s| s.timeline.0).collect::<Vec<_>>();
        assert_eq!(timelines(2), [1]);
        assert_eq!(timelines(3), [2, 1]);
        assert_eq!(timelines(4), [2]);
        assert_eq!(timelines(5), [4], "a timeline that ends where the segment begins has none of it");
    }

    #[test]
    fn damaged_history_names_the_line() {
        assert_eq!(
            TimelinePath::parse(Timeline(3), "1\tno lsn\n"),
            Err(BadHistory::Line { timeline: Timeline(3), line: 1, text: "1\tno lsn".into() })
        );
        assert_eq!(TimelinePath::parse(Timeline(3), "2\t0/2\n1\t0/3\n"), Err(BadHistory::Order { timeline: Timeline(3), line: 2 }));
        assert_eq!(TimelinePath::parse(Timeline(2), "2\t0/2\n"), Err(BadHistory::Order { timeline: Timeline(2), line: 1 }));
    }
}
