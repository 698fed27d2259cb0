//! Points in time as Postgres stores them.
//!
//! Source: timestamp.h `TimestampTz`, `POSTGRES_EPOCH_JDATE` (14 to 18).

use std::fmt;

/// Microseconds from 1970-01-01 to 2000-01-01, both at 00:00 UTC.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// `TimestampTz`: microseconds since 2000-01-01 00:00 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PgTime(pub i64);

impl PgTime {
    /// From microseconds since 1970; clamped at the ends of what 64 bits hold.
    #[must_use]
    pub fn from_unix_micros(micros: i64) -> PgTime {
        PgTime(micros.saturating_sub(EPOCH_MICROS))
    }

    /// Microseconds since 1970.
    #[must_use]
    pub fn unix_micros(self) -> i64 {
        self.0.saturating_add(EPOCH_MICROS)
    }
}

impl From<jiff::Timestamp> for PgTime {
    fn from(time: jiff::Timestamp) -> PgTime {
        PgTime::from_unix_micros(time.as_microsecond())
    }
}

impl fmt::Display for PgTime {
    /// `2026-11-25T10:15:00.123456Z`; the bare number for what no calendar holds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.unix_micros()) {
            Ok(time) => time.fmt(f),
            Err(_) => write!(f, "{} us since 2000", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_count_from_the_year_2000() {
        assert_eq!(PgTime(0).to_string(), "2000-01-01T00:00:00Z");
        let time: jiff::Timestamp = "2026-11-25T10:15:00.123456Z".parse().unwrap();
        assert_eq!(PgTime::from(time).to_string(), time.to_string());
        assert_eq!(PgTime(i64::MAX).to_string(), format!("{} us since 2000", i64::MAX));
    }
}
