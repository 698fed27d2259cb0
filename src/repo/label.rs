//! Names of backups: `20261125-101500F`, the time (UTC) at which it was begun and its type.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;

use crate::pg::lsn::NotParsed;

/// The name of one backup. Sorts by time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupLabel(String);

impl BackupLabel {
    /// The label of a full backup begun at `time`.
    #[must_use]
    pub fn full(time: Timestamp) -> BackupLabel {
        BackupLabel(format!("{}F", time.strftime("%Y%m%d-%H%M%S")))
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BackupLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for BackupLabel {
    type Err = NotParsed;

    /// Reads `YYYYMMDD-HHMMSSF`. Nothing else can become part of a key.
    fn from_str(text: &str) -> Result<Self, NotParsed> {
        let shape = |(at, byte): (usize, u8)| match at {
            8 => byte == b'-',
            15 => byte == b'F',
            _ => byte.is_ascii_digit(),
        };
        if text.len() == 16 && text.bytes().enumerate().all(shape) {
            return Ok(BackupLabel(text.to_owned()));
        }
        Err(NotParsed { text: text.to_owned(), expected: "the label of a backup, such as 20261125-101500F" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_names_the_second_in_utc() {
        let label = BackupLabel::full("2026-11-25T10:15:00Z".parse().unwrap());
        assert_eq!(label.as_str(), "20261125-101500F");
        assert_eq!(label.as_str().parse(), Ok(label));
    }

    #[test]
    fn text_that_is_no_label_is_refused() {
        for bad in ["", "20261125-101500", "20261125-101500X", "../../../../../x", "20261125-101500F/", "2026112é-10150F"] {
            assert!(bad.parse::<BackupLabel>().is_err(), "{bad}");
        }
    }
}
