//! The files that Postgres archives, by name.
//!
//! From: `push`, `get`.  Out: [`WalFile`], and the key and kind under which a repository keeps it.
//! A name that is none of these is refused: nothing else may become part of a key. Source: xlog_internal.h `IsXLogFileName` and its neighbours.

use crate::pg::lsn::NotParsed;
use crate::pg::{SegmentSize, Timeline, WalSegment};
use crate::repo::ObjectKind;
use crate::repo::layout::ClusterFolder;

/// One archived file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WalFile {
    /// `00000001000000000000003A`
    Segment(WalSegment),
    /// `00000001000000000000003A.partial`: the last segment of a timeline that was left. Never given for the complete one.
    Partial(WalSegment),
    /// `00000002.history`
    History(Timeline),
    /// `00000001000000000000003A.00000028.backup`
    Backup(String),
}

impl WalFile {
    /// Reads a file name.
    ///
    /// # Errors
    /// [`NotParsed`] with the name.
    pub fn parse(name: &str, size: SegmentSize) -> Result<WalFile, NotParsed> {
        let refused = || NotParsed {
            text: name.to_owned(),
            expected: "the name of a file that Postgres archives, such as 00000001000000000000003A or 00000002.history",
        };
        let (stem, rest) = name.split_once('.').unwrap_or((name, ""));
        match rest {
            "" if !name.ends_with('.') => WalSegment::parse(stem, size).map(WalFile::Segment),
            "partial" => WalSegment::parse(stem, size).map(WalFile::Partial).map_err(|_| refused()),
            "history" => hex8(stem).filter(|t| *t > 0).map(|t| WalFile::History(Timeline(t))).ok_or_else(refused),
            _ => {
                let offset = rest.strip_suffix(".backup").and_then(hex8);
                let valid = offset.is_some() && WalSegment::parse(stem, size).is_ok();
                if valid { Ok(WalFile::Backup(name.to_owned())) } else { Err(refused()) }
            }
        }
    }

    /// Where it lies in a repository.
    #[must_use]
    pub fn key(&self, folder: &ClusterFolder, size: SegmentSize) -> String {
        match self {
            WalFile::Segment(segment) => folder.segment(*segment, size),
            WalFile::Partial(segment) => folder.segment_file(&format!("{}.partial", segment.name(size))),
            WalFile::History(timeline) => folder.history(*timeline),
            WalFile::Backup(name) => folder.backup_history(name),
        }
    }

    /// What kind of object it is.
    #[must_use]
    pub fn kind(&self) -> ObjectKind {
        match self {
            WalFile::Segment(_) | WalFile::Partial(_) => ObjectKind::WalSegment,
            WalFile::History(_) => ObjectKind::TimelineHistory,
            WalFile::Backup(_) => ObjectKind::BackupHistory,
        }
    }
}

/// Eight upper-case hex digits.
fn hex8(text: &str) -> Option<u32> {
    let plain = text.len() == 8 && text.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
    plain.then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::Major;

    #[test]
    fn names_become_keys() {
        let size = SegmentSize::DEFAULT;
        let folder = ClusterFolder::new("main", Major::V15, 7);
        let key = |name: &str| WalFile::parse(name, size).map(|file| file.key(&folder, size));
        let top = "cluster/main/15-7";
        let segment = "00000001000000020000003A";
        assert_eq!(key(segment), Ok(format!("{top}/wal/00000001/00000002/{segment}")));
        assert_eq!(key(&format!("{segment}.partial")), Ok(format!("{top}/wal/00000001/00000002/{segment}.partial")));
        assert_eq!(key("00000002.history"), Ok(format!("{top}/history/00000002.history")));
        assert_eq!(key(&format!("{segment}.00000028.backup")), Ok(format!("{top}/backup-history/{segment}.00000028.backup")));
    }

    #[test]
    fn other_names_are_refused() {
        let bad = [
            "",
            "RECOVERYXLOG",
            "000000010000000200000100",
            "00000001000000020000003A.",
            "00000001000000020000003A.done",
            "00000000.history",
            "0000000g.history",
            "00000002.history.backup",
            "00000001000000020000003A.28.backup",
            "../../etc/passwd",
        ];
        for name in bad {
            assert!(WalFile::parse(name, SegmentSize::DEFAULT).is_err(), "{name}");
        }
    }
}
