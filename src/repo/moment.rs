//! What a user asks for: a [`Moment`], read from text.
//!
//! From: `cli` (`--at`), the names below `at/` of a mount.  To: `repo::resolve`, which finds the point in the WAL.
//! Pure: the current time is handed in. Nothing here knows whether a moment can be reached.

use std::fmt;
use std::str::FromStr;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
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
        let text = text.trim();
        let unknown = || MomentError::Unknown { text: text.to_owned() };
        if text == "latest" {
            return Ok(Moment::Latest);
        }
        if let Some((kind, value)) = text.split_once(':').filter(|(kind, _)| kind.bytes().all(|b| b.is_ascii_lowercase())) {
            return match kind {
                "lsn" => value.parse().map(Moment::Lsn).map_err(|_| unknown()),
                "xid" => value.parse().map(Moment::Xid).map_err(|_| unknown()),
                "name" if !value.is_empty() => Ok(Moment::Name(value.to_owned())),
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

fn time(text: &str) -> Result<Timestamp, MomentError> {
    if let Ok(timestamp) = Timestamp::from_str(text) {
        return Ok(timestamp);
    }
    if DateTime::from_str(text).is_ok() {
        return Err(MomentError::NoZone { text: text.to_owned() });
    }
    let unknown = || MomentError::Unknown { text: text.to_owned() };
    let (civil, zone) = text.rsplit_once(' ').ok_or_else(unknown)?;
    let civil = DateTime::from_str(civil).map_err(|_| unknown())?;
    let zone = match zone {
        "UTC" | "GMT" | "Z" => TimeZone::UTC,
        name => TimeZone::get(name).map_err(|_| MomentError::UnknownZone { zone: name.to_owned() })?,
    };
    zone.to_timestamp(civil).map_err(|_| unknown())
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
        assert_eq!("3".parse(), Ok(TimelineChoice::This(Timeline(3))));
    }

    #[test]
    fn anything_else_is_refused_with_the_ways_to_say_it() {
        for text in ["", "yesterday", "lsn:x", "xid:-1", "name:", "foo:bar", "ago", "-5 minutes ago", "5 ago", "5 parsecs ago", "14:30"] {
            let error = parse(text).unwrap_err();
            assert!(matches!(error, MomentError::Unknown { .. }) && error.hint().is_some(), "{text}");
        }
    }
}
