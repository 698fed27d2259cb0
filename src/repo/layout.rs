//! Every key of a repository, in one place. Pure: names to keys and back.
//!
//! From: everything that stores or finds an object.  To: `store`, which knows keys only as text.
//!
//! ```text
//! bygone.json                                     who the repository is, its cipher
//! key/<generation>-<number>.json                  the data key of a generation, wrapped by one secret
//! cluster/<name>/<major>-<system id>/             one folder per incarnation of a cluster
//!     identity.json
//!     wal/<timeline>/<high 8 digits>/<24 digits>  segments (and `.partial`), each with its block index
//!     history/<timeline>.history
//!     backup-history/<segment>.<offset>.backup
//!     index/…                                     indexes of segments stored without one, and roll-ups
//!     backup/<label>/manifest                     written last: a backup without one does not exist
//!     backup/<label>/data/<number>
//!     lock/<what>/…
//! ```

use std::fmt;

use thiserror::Error;

use crate::pg::{Major, SegmentSize, Timeline, WalSegment};

/// The repository's identity document.
pub const IDENTITY: &str = "bygone.json";
/// Where the wrapped keys are.
pub const KEYS: &str = "key/";
/// Where the clusters are.
pub const CLUSTERS: &str = "cluster/";

/// The key of a wrapped data key.
#[must_use]
pub fn wrapped_key(generation: u32, number: u32) -> String {
    format!("{KEYS}{generation}-{number}.json")
}

/// Reads what [`wrapped_key`] wrote: generation and number.
#[must_use]
pub fn parse_wrapped_key(key: &str) -> Option<(u32, u32)> {
    let (generation, number) = key.strip_prefix(KEYS)?.strip_suffix(".json")?.split_once('-')?;
    Some((generation.parse().ok()?, number.parse().ok()?))
}

/// A cluster's name that cannot be one.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0:?} cannot be the name of a cluster: letters, digits, '-', '_' and '.', at most 64, not beginning with '.' or '-'")]
pub struct BadClusterName(pub String);

/// Checks a cluster's name: it becomes part of keys and paths.
///
/// # Errors
/// [`BadClusterName`].
pub fn check_cluster_name(name: &str) -> Result<(), BadClusterName> {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    let good = plain && (1..=64).contains(&name.len()) && !name.starts_with(['.', '-']);
    good.then_some(()).ok_or_else(|| BadClusterName(name.to_owned()))
}

/// One incarnation of a cluster: the folder that everything of it lies in. `pg_upgrade` and `initdb` make a new one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterFolder {
    /// What the configuration calls it.
    pub name: String,
    /// Postgres's major version, as a number, so that a folder of a version that we do not know can still be named.
    pub major: u32,
    /// The system identifier.
    pub system_id: u64,
}

impl fmt::Display for ClusterFolder {
    /// The folder's key without the slash at its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{CLUSTERS}{}/{}-{}", self.name, self.major, self.system_id)
    }
}

impl ClusterFolder {
    /// The folder of a cluster of a version that we know.
    #[must_use]
    pub fn new(name: &str, major: Major, system_id: u64) -> ClusterFolder {
        ClusterFolder { name: name.to_owned(), major: major.number(), system_id }
    }

    /// Where the incarnations of a cluster are.
    #[must_use]
    pub fn parent(name: &str) -> String {
        format!("{CLUSTERS}{name}/")
    }

    /// Reads the last part of a folder's key, `18-7412345678901234567` with or without a slash at its end.
    #[must_use]
    pub fn parse(name: &str, folder: &str) -> Option<ClusterFolder> {
        let (major, system_id) = folder.trim_end_matches('/').split_once('-')?;
        Some(ClusterFolder { name: name.to_owned(), major: major.parse().ok()?, system_id: system_id.parse().ok()? })
    }

    /// `identity.json`.
    #[must_use]
    pub fn identity(&self) -> String {
        format!("{self}/identity.json")
    }

    /// Where all WAL segments are.
    #[must_use]
    pub fn wal(&self) -> String {
        format!("{self}/wal/")
    }

    /// Where the segments of one timeline are.
    #[must_use]
    pub fn wal_timeline(&self, timeline: Timeline) -> String {
        format!("{self}/wal/{timeline:08X}/")
    }

    /// A complete segment.
    #[must_use]
    pub fn segment(&self, segment: WalSegment, size: SegmentSize) -> String {
        self.segment_file(&segment.name(size))
    }

    /// A segment by its file name (24 digits, perhaps with `.partial` behind).
    #[must_use]
    pub fn segment_file(&self, file: &str) -> String {
        let part = |range: std::ops::Range<usize>| file.get(range).unwrap_or_default();
        format!("{self}/wal/{}/{}/{file}", part(0..8), part(8..16))
    }

    /// Where the timeline history files are.
    #[must_use]
    pub fn histories(&self) -> String {
        format!("{self}/history/")
    }

    /// A timeline history file.
    #[must_use]
    pub fn history(&self, timeline: Timeline) -> String {
        format!("{self}/history/{timeline:08X}.history")
    }

    /// A backup history file by its name, `<segment>.<offset>.backup`.
    #[must_use]
    pub fn backup_history(&self, file: &str) -> String {
        format!("{self}/backup-history/{file}")
    }

    /// Where derived indexes are: of single segments below `segment/`, merged ones below `rollup/`.
    #[must_use]
    pub fn index(&self) -> String {
        format!("{self}/index/")
    }

    /// The index of a segment that was stored without one.
    #[must_use]
    pub fn segment_index(&self, segment: WalSegment, size: SegmentSize) -> String {
        let name = segment.name(size);
        format!("{self}/index/segment/{:08X}/{name}", segment.timeline)
    }

    /// The merged index of a run of segments.
    #[must_use]
    pub fn rollup(&self, run: SegmentRun, size: SegmentSize) -> String {
        let (first, last) = (run.first_segment(), WalSegment { timeline: run.timeline, no: run.last });
        format!("{self}/index/rollup/{:08X}/{}-{}", run.timeline, first.name(size), last.name(size))
    }

    /// Where the backups are.
    #[must_use]
    pub fn backups(&self) -> String {
        format!("{self}/backup/")
    }

    /// A backup's folder, a slash at its end.
    #[must_use]
    pub fn backup(&self, label: &str) -> String {
        format!("{self}/backup/{label}/")
    }

    /// A backup's manifest.
    #[must_use]
    pub fn manifest(&self, label: &str) -> String {
        format!("{self}/backup/{label}/manifest")
    }

    /// Object `number` of a backup's data.
    #[must_use]
    pub fn backup_data(&self, label: &str, number: u32) -> String {
        format!("{self}/backup/{label}/data/{number}")
    }

    /// Where the entries of a lock are.
    #[must_use]
    pub fn lock(&self, what: &str) -> String {
        format!("{self}/lock/{what}/")
    }
}

/// Segments of one timeline with adjacent numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentRun {
    pub timeline: Timeline,
    /// Number of the first one.
    pub first: u64,
    /// Number of the last one, included.
    pub last: u64,
}

impl SegmentRun {
    /// The first one.
    #[must_use]
    pub fn first_segment(self) -> WalSegment {
        WalSegment { timeline: self.timeline, no: self.first }
    }

    /// How many there are.
    #[must_use]
    pub fn count(self) -> u64 {
        self.last.saturating_sub(self.first).saturating_add(1)
    }
}

/// Reads what [`ClusterFolder::rollup`] wrote.
#[must_use]
pub fn run_of_key(key: &str, size: SegmentSize) -> Option<SegmentRun> {
    let (first, last) = key.rsplit_once('/')?.1.split_once('-')?;
    let (first, last) = (WalSegment::parse(first, size).ok()?, WalSegment::parse(last, size).ok()?);
    let is_run = first.timeline == last.timeline && first.no <= last.no;
    is_run.then_some(SegmentRun { timeline: first.timeline, first: first.no, last: last.no })
}

/// What the last part of a key below `wal/` names.
#[must_use]
pub fn segment_of_key(key: &str, size: SegmentSize) -> Option<WalSegment> {
    let (_, file) = key.rsplit_once('/')?;
    WalSegment::parse(file, size).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> ClusterFolder {
        ClusterFolder::new("main", Major::V18, 7_412_345_678_901_234_567)
    }

    #[test]
    fn keys_are_as_documented() {
        let size = SegmentSize::DEFAULT;
        let segment = WalSegment::parse("00000002000000010000003A", size).unwrap();
        let folder = folder();
        assert_eq!(folder.identity(), "cluster/main/18-7412345678901234567/identity.json");
        assert_eq!(folder.segment(segment, size), "cluster/main/18-7412345678901234567/wal/00000002/00000001/00000002000000010000003A");
        assert_eq!(folder.history(Timeline(2)), "cluster/main/18-7412345678901234567/history/00000002.history");
        assert_eq!(folder.manifest("20261125-101500F"), "cluster/main/18-7412345678901234567/backup/20261125-101500F/manifest");
        assert_eq!(wrapped_key(1, 2), "key/1-2.json");
    }

    #[test]
    fn keys_are_read_back() {
        assert_eq!(ClusterFolder::parse("main", "18-7412345678901234567/"), Some(folder()));
        assert_eq!(ClusterFolder::parse("main", "lost+found/"), None);
        assert_eq!(parse_wrapped_key("key/12-3.json"), Some((12, 3)));
        assert_eq!(parse_wrapped_key("key/12.json"), None);
        let size = SegmentSize::DEFAULT;
        let segment = WalSegment::parse("00000002000000010000003A", size).unwrap();
        assert_eq!(segment_of_key(&folder().segment(segment, size), size), Some(segment));
        assert_eq!(segment_of_key("x/00000002000000010000003A.partial", size), None);
        let run = SegmentRun { timeline: Timeline(2), first: 64, last: 127 };
        assert_eq!(run_of_key(&folder().rollup(run, size), size), Some(run));
        assert_eq!(run_of_key(&folder().rollup(SegmentRun { first: 128, ..run }, size), size), None);
    }

    #[test]
    fn a_name_that_would_leave_its_folder_is_no_cluster_name() {
        for bad in ["", ".", "..", "a/b", "-x", "ä", "a b", &"x".repeat(65)] {
            assert_eq!(check_cluster_name(bad), Err(BadClusterName(bad.to_owned())));
        }
        assert_eq!(check_cluster_name("prod-1.eu_west"), Ok(()));
    }
}
