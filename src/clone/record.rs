//! `clone.json`: what a clone is.
//!
//! In: [`Record`].  Out: JSON that is read again by whoever starts, lists or removes the clone. Says its version; another one is refused.

use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{CloneError, User};
use crate::pg::{Lsn, Major, Timeline};
use crate::repo::moment::{Moment, TimelineChoice, Wanted};
use crate::repo::resolve::RecoveryPoint;
use crate::view::open::{Pinned, Replay};

const VERSION: u32 = 1;

/// What a clone is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Name of the cluster in the repository.
    pub cluster: String,
    /// Its version.
    pub major: Option<Major>,
    pub created: Timestamp,
    /// What was asked for.
    pub wanted: Wanted,
    /// Who shall replay, as asked for.
    pub replay: Replay,
    /// What that came to; `None` until it is first mounted.
    pub pinned: Option<Pinned>,
    /// Whom the server runs as.
    pub user: User,
    pub port: u16,
}

#[derive(Debug, Serialize, Deserialize)]
struct OnDiskRecord {
    version: u32,
    cluster: String,
    major: Option<u32>,
    created: String,
    moment: String,
    exclusive: bool,
    timeline: String,
    replay: String,
    pinned: Option<OnDiskPinned>,
    user: String,
    uid: u32,
    gid: u32,
    port: u16,
}

#[derive(Debug, Serialize, Deserialize)]
struct OnDiskPinned {
    lsn: String,
    timeline: u32,
    follows: u32,
    backup: String,
    new_timeline: u32,
    replay: String,
    /// Of a hybrid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    checkpoint: Option<String>,
}

impl Record {
    pub(super) fn encode(&self) -> Vec<u8> {
        let pinned = self.pinned.as_ref().map(|pinned| OnDiskPinned {
            lsn: pinned.point.lsn.to_string(),
            timeline: pinned.point.timeline.0,
            follows: pinned.follows.0,
            backup: pinned.backup.to_string(),
            new_timeline: pinned.new_timeline.0,
            replay: pinned.replay.word().to_owned(),
            checkpoint: pinned.checkpoint.map(|lsn| lsn.to_string()),
        });
        let stored = OnDiskRecord {
            version: VERSION,
            cluster: self.cluster.clone(),
            major: self.major.map(Major::number),
            created: self.created.to_string(),
            moment: self.wanted.moment.to_string(),
            exclusive: self.wanted.exclusive,
            timeline: self.wanted.timeline.to_string(),
            replay: self.replay.word().to_owned(),
            pinned,
            user: self.user.name.clone(),
            uid: self.user.uid,
            gid: self.user.gid,
            port: self.port,
        };
        let mut bytes = serde_json::to_vec_pretty(&stored).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    pub(super) fn read(path: &Path) -> Result<Record, CloneError> {
        let bad = |what: String| CloneError::Record { path: path.to_owned(), what };
        let bytes = fs_err::read(path).map_err(|error| bad(error.to_string()))?;
        let version: serde_json::Value = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
        if version["version"] != VERSION {
            return Err(bad(format!("it is of version {}, this program knows version {VERSION}", version["version"])));
        }
        let stored: OnDiskRecord = serde_json::from_value(version).map_err(|error| bad(error.to_string()))?;
        Record::from_disk(stored).ok_or_else(|| bad("a value in it is none that this program writes".to_owned()))
    }

    fn from_disk(stored: OnDiskRecord) -> Option<Record> {
        let pinned = |pinned: OnDiskPinned| {
            let checkpoint = match pinned.checkpoint {
                Some(lsn) => Some(lsn.parse::<Lsn>().ok()?),
                None => None,
            };
            Some(Pinned {
                point: RecoveryPoint { timeline: Timeline(pinned.timeline), lsn: pinned.lsn.parse::<Lsn>().ok()? },
                follows: Timeline(pinned.follows),
                backup: pinned.backup.parse().ok()?,
                new_timeline: Timeline(pinned.new_timeline),
                replay: replay_of(&pinned.replay).filter(|replay| (*replay == Replay::Hybrid) == checkpoint.is_some())?,
                checkpoint,
            })
        };
        let created: Timestamp = stored.created.parse().ok()?;
        Some(Record {
            cluster: stored.cluster,
            major: stored.major.and_then(Major::from_number),
            created,
            wanted: Wanted {
                moment: Moment::parse(&stored.moment, created).ok()?,
                exclusive: stored.exclusive,
                timeline: stored.timeline.parse::<TimelineChoice>().ok()?,
            },
            replay: replay_of(&stored.replay)?,
            pinned: match stored.pinned {
                Some(stored) => Some(pinned(stored)?),
                None => None,
            },
            user: User { name: stored.user, uid: stored.uid, gid: stored.gid },
            port: stored.port,
        })
    }
}

fn replay_of(word: &str) -> Option<Replay> {
    Replay::ALL.into_iter().find(|replay| replay.word() == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(pinned: Option<Pinned>) -> Record {
        Record {
            cluster: "main".to_owned(),
            major: Some(Major::V17),
            created: "2026-11-25T12:00:00Z".parse().unwrap(),
            wanted: Wanted {
                moment: Moment::Time("2026-11-25T11:00:00.25Z".parse().unwrap()),
                exclusive: true,
                timeline: TimelineChoice::This(Timeline(3)),
            },
            replay: Replay::Auto,
            pinned,
            user: User { name: "postgres".to_owned(), uid: 100, gid: 102 },
            port: 15_432,
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("clone.json");
        let pinned = Pinned {
            point: RecoveryPoint { timeline: Timeline(2), lsn: Lsn(0x3A00_02F8) },
            follows: Timeline(3),
            backup: "20261125-101500F".parse().unwrap(),
            new_timeline: Timeline(4),
            replay: Replay::Postgres,
            checkpoint: None,
        };
        let hybrid = Pinned { replay: Replay::Hybrid, checkpoint: Some(Lsn(0x3900_0028)), ..pinned.clone() };
        for record in [record(None), record(Some(pinned)), record(Some(hybrid))] {
            fs_err::write(&path, record.encode()).unwrap();
            assert_eq!(Record::read(&path).unwrap(), record);
        }
    }

    #[test]
    fn a_record_of_another_version_is_refused_with_both() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("clone.json");
        fs_err::write(&path, r#"{"version": 2}"#).unwrap();
        let error = Record::read(&path).unwrap_err();
        assert!(matches!(&error, CloneError::Record { what, .. } if what.contains("version 2") && what.contains("version 1")), "{error:?}");
        fs_err::write(&path, "{").unwrap();
        assert!(matches!(Record::read(&path), Err(CloneError::Record { .. })));
    }
}
