//! What a user asks for: a [`Moment`], read from text.
//!
//! From: `cli` (`--at`), the names below `at/` of a mount.  To: `repo::resolve`, which finds the point in the WAL.
//! Pure: the current time is handed in. Nothing here knows whether a moment can be reached.

use std::fmt;
use std::str::FromStr;

use jiff::fmt::temporal::Pieces;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use jiff::{Span, Timestamp, Unit};
use thiserror::Error;

use crate::advice::Advice;
use crate::pg::{Lsn, Timeline};
use crate::repo::label::BackupLabel;

/// Where to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moment {
    /// The end of the WAL.
    Latest,
    /// Before the first commit that is later.
    Time(Timestamp),
    /// Behind the first record that begins at or after it.
    Lsn(Lsn),
    /// Behind the end of this transaction.
    Xid(u32),
    /// Behind this restore point.
    Name(String),
    /// Where this backup is consistent.
    Backup(BackupLabel),
}

/// Which timeline to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimelineChoice {
    /// The newest one that the archive knows.
    #[default]
    Latest,
    /// The one that the backup was taken on.
    Current,
    /// This one.
    This(Timeline),
}

/// A moment with how it is to be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub moment: Moment,
    /// Stop before what the moment names, not behind it (`recovery_target_inclusive = off`).
    pub exclusive: bool,
    pub timeline: TimelineChoice,
}

/// Text that names no moment.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum MomentError {
    #[error("{text:?} is not a moment")]
    Unknown { text: String },
    #[error("{text:?} has no time zone")]
    NoZone { text: String },
    #[error("{zone:?} is not a time zone")]
    UnknownZone { zone: String },
    /// When clocks are set back.
    #[error("{civil} was there twice, with offset {before} and with {after}")]
    Twice { civil: String, before: Offset, after: Offset },
    #[error("{text:?} is not a timeline")]
    Timeline { text: String },
}

impl Advice for MomentError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            MomentError::Unknown { .. } => {
                "Write '2026-04-30 14:30:00 UTC', '10 minutes ago', lsn:0/3A0002F8, xid:1234, name:RESTORE_POINT, backup:LABEL or latest."
                    .to_owned()
            }
            MomentError::NoZone { text } => format!("Which one is meant? Write '{text} UTC', '{text}+02' or '{text} Europe/Berlin'."),
            MomentError::UnknownZone { .. } => "Write UTC, an offset such as +02, or a name such as Europe/Berlin.".to_owned(),
            MomentError::Twice { civil, before, after } => format!("Which one is meant? Write '{civil}{before}' or '{civil}{after}'."),
            MomentError::Timeline { .. } => "Write latest, current, or a number.".to_owned(),
        })
    }
}

impl Moment {
    /// Reads a moment. `now` is what "ago" counts from.
    ///
    /// # Errors
    /// [`MomentError`] with the text.
    pub fn parse(text: &str, now: Timestamp) -> Result<Moment, MomentError> {
        // All of a restore point's name counts.
        if let Some(name) = text.trim_start().strip_prefix("name:").filter(|name| !name.is_empty()) {
            return Ok(Moment::Name(name.to_owned()));
        }
        let text = text.trim();
        let unknown = || MomentError::Unknown { text: text.to_owned() };
        if text == "latest" {
            return Ok(Moment::Latest);
        }
        if let Some((kind, value)) = text.split_once(':').filter(|(kind, _)| kind.bytes().all(|b| b.is_ascii_lowercase())) {
            return match kind {
                "lsn" => value.parse().map(Moment::Lsn).map_err(|_| unknown()),
                "xid" if value.bytes().all(|b| b.is_ascii_digit()) => value.parse().map(Moment::Xid).map_err(|_| unknown()),
                "backup" => value.parse().map(Moment::Backup).map_err(|_| unknown()),
                _ => Err(unknown()),
            };
        }
        if text.ends_with(" ago") {
            let back: Span = text.parse().map_err(|_| unknown())?;
            let then = now.to_zoned_datetime(TimeZone::UTC).checked_add(back).map_err(|_| unknown())?;
            return Ok(Moment::Time(then.timestamp()));
        }
        time(text).map(Moment::Time)
    }
}

/// To the microsecond, as Postgres keeps time and rounds what it is given.
fn time(text: &str) -> Result<Timestamp, MomentError> {
    let unknown = || MomentError::Unknown { text: text.to_owned() };
    let (pieces, word) = match (Pieces::parse(text), text.rsplit_once(' ')) {
        (Ok(pieces), _) => (pieces, None),
        (Err(_), Some((before, word))) => (Pieces::parse(before).map_err(|_| unknown())?, Some(word)),
        (Err(_), None) => return Err(unknown()),
    };
    let civil = pieces.date().to_datetime(pieces.time().ok_or_else(unknown)?);
    let zone = match (pieces.offset(), pieces.time_zone_annotation(), word) {
        (Some(offset), _, None) => whole_offset(offset.to_numeric_offset()).ok_or_else(unknown)?,
        (None, Some(zone), None) => zone.to_time_zone().map_err(|_| MomentError::UnknownZone { zone: text.to_owned() })?,
        (None, None, Some(word)) => zone_of(word)?,
        (None, None, None) => return Err(MomentError::NoZone { text: text.to_owned() }),
        // Two zones.
        (_, _, Some(_)) => return Err(unknown()),
    };
    // jiff takes the second before for a leap second.
    if text.contains(":60") {
        return Err(unknown());
    }
    let ambiguous = zone.to_ambiguous_timestamp(civil);
    if let AmbiguousOffset::Fold { before, after } = ambiguous.offset() {
        return Err(MomentError::Twice { civil: civil.to_string(), before, after });
    }
    let timestamp = ambiguous.compatible().map_err(|_| unknown())?;
    timestamp.round(Unit::Microsecond).map_err(|_| unknown())
}

/// The hours that Postgres takes (`MAX_TZDISP_HOUR`).
fn whole_offset(offset: Offset) -> Option<TimeZone> {
    (offset.seconds().abs() < 16 * 3600).then(|| offset.to_time_zone())
}

/// Abbreviations mean what they mean to Postgres, winter and summer (`timezonesets/Default`): the zones of these names have a summer time.
fn zone_of(word: &str) -> Result<TimeZone, MomentError> {
    let hours = match word {
        "UTC" | "GMT" | "Z" | "WET" => 0,
        "CET" | "MET" => 1,
        "EET" => 2,
        name => return TimeZone::get(name).map_err(|_| MomentError::UnknownZone { zone: name.to_owned() }),
    };
    Ok(jiff::tz::offset(hours).to_time_zone())
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Moment::Latest => f.write_str("latest"),
            Moment::Time(time) => time.round(Unit::Microsecond).unwrap_or(*time).fmt(f),
            Moment::Lsn(lsn) => write!(f, "lsn:{lsn}"),
            Moment::Xid(xid) => write!(f, "xid:{xid}"),
            Moment::Name(name) => write!(f, "name:{name}"),
            Moment::Backup(label) => write!(f, "backup:{label}"),
        }
    }
}

impl fmt::Display for TimelineChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TimelineChoice::Latest => f.write_str("latest"),
            TimelineChoice::Current => f.write_str("current"),
            TimelineChoice::This(timeline) => timeline.fmt(f),
        }
    }
}

impl FromStr for TimelineChoice {
    type Err = MomentError;

    fn from_str(text: &str) -> Result<Self, MomentError> {
        match text {
            "latest" => Ok(TimelineChoice::Latest),
            "current" => Ok(TimelineChoice::Current),
            number => match number.parse() {
                Ok(number) if number > 0 => Ok(TimelineChoice::This(Timeline(number))),
                _ => Err(MomentError::Timeline { text: text.to_owned() }),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Moment, MomentError> {
        Moment::parse(text, "2026-04-30T15:00:00Z".parse().unwrap())
    }

    fn time(text: &str) -> Result<Moment, MomentError> {
        Ok(Moment::Time(text.parse().unwrap()))
    }

    #[test]
    fn times_are_read_with_their_zone() {
        assert_eq!(parse("2026-04-30 14:30:00 UTC"), time("2026-04-30T14:30:00Z"));
        assert_eq!(parse("2026-04-30T14:30:00Z"), time("2026-04-30T14:30:00Z"));
        assert_eq!(parse("2026-04-30 14:30:00.25+02"), time("2026-04-30T12:30:00.25Z"));
        assert_eq!(parse("2026-04-30 14:30:00 Europe/Berlin"), time("2026-04-30T12:30:00Z"));
        assert_eq!(parse("2026-04-30 14:30 UTC"), time("2026-04-30T14:30:00Z"));
        assert_eq!(parse("2026-07-01T12:00:00[Europe/Berlin]"), time("2026-07-01T10:00:00Z"));
        assert_eq!(parse("2026-07-01 12:00:00 CET"), time("2026-07-01T11:00:00Z"));
        assert_eq!(parse("2026-07-01 12:00:00 EST"), time("2026-07-01T17:00:00Z"));
        assert_eq!(parse("2026-07-01 12:00:00 EST5EDT"), time("2026-07-01T16:00:00Z"));
        assert_eq!(parse("2026-03-29 02:30:00 Europe/Berlin"), time("2026-03-29T01:30:00Z"));
    }

    #[test]
    fn a_time_is_rounded_as_postgres_rounds_it() {
        assert_eq!(parse("2026-04-30 14:30:00.7675207 UTC"), time("2026-04-30T14:30:00.767521Z"));
        assert_eq!(parse("2026-04-30 14:30:00.7675203+00"), time("2026-04-30T14:30:00.76752Z"));
    }

    #[test]
    fn a_time_that_was_there_twice_is_asked_back() {
        let error = parse("2026-10-25 02:30:00 Europe/Berlin").unwrap_err();
        let hint = error.hint().unwrap();
        let said: Vec<&str> = hint.split('\'').filter(|part| part.starts_with('2')).collect();
        assert_eq!((parse(said[0]), parse(said[1])), (time("2026-10-25T00:30:00Z"), time("2026-10-25T01:30:00Z")));
    }

    #[test]
    fn a_time_without_a_zone_is_asked_back() {
        assert!(matches!(parse("2026-04-30 14:30:00"), Err(MomentError::NoZone { .. })));
        assert!(matches!(parse("2026-04-30 14:30:00 XYZT"), Err(MomentError::UnknownZone { .. })));
    }

    #[test]
    fn ago_counts_from_now() {
        assert_eq!(parse("10 minutes ago"), time("2026-04-30T14:50:00Z"));
        assert_eq!(parse("1 h 30 min ago"), time("2026-04-30T13:30:00Z"));
        assert_eq!(parse("2 days ago"), time("2026-04-28T15:00:00Z"));
        assert_eq!(parse("5m ago"), time("2026-04-30T14:55:00Z"));
        assert_eq!(parse("1h30m ago"), time("2026-04-30T13:30:00Z"));
        assert_eq!(parse("1 week ago"), time("2026-04-23T15:00:00Z"));
    }

    #[test]
    fn positions_and_names_are_read() {
        assert_eq!(parse("lsn:0/3A0002F8"), Ok(Moment::Lsn(Lsn(0x3A00_02F8))));
        assert_eq!(parse("lsn:0-3A0002F8"), Ok(Moment::Lsn(Lsn(0x3A00_02F8))));
        assert_eq!(parse("xid:1234"), Ok(Moment::Xid(1234)));
        assert_eq!(parse("name:before migration"), Ok(Moment::Name("before migration".to_owned())));
        assert_eq!(parse("latest"), Ok(Moment::Latest));
        assert_eq!(parse("name:abc "), Ok(Moment::Name("abc ".to_owned())));
        assert_eq!(parse("name: "), Ok(Moment::Name(" ".to_owned())));
        assert_eq!("3".parse(), Ok(TimelineChoice::This(Timeline(3))));
    }

    #[test]
    fn anything_else_is_refused_with_the_ways_to_say_it() {
        let two_zones = ["2026-04-30 14:30:00+05:00 UTC", "2026-04-30 14:30:00-08 Europe/Berlin", "2026-04-30T14:30:00[Asia/Karachi] UTC"];
        let no_such = ["2026-04-30 14:30:60 UTC", "2026-04-30T14:30:00+25", "2026-04-30 UTC", "xid:+5"];
        let odd = ["", "yesterday", "lsn:x", "xid:-1", "name:", "foo:bar", "ago", "-5 minutes ago", "5 ago", "5 parsecs ago", "14:30"];
        for text in two_zones.into_iter().chain(no_such).chain(odd) {
            let error = parse(text).unwrap_err();
            assert!(matches!(error, MomentError::Unknown { .. }) && error.hint().is_some(), "{text}");
        }
    }
}
