//! How archiving goes: what the server says, held against what the repositories have.

use std::fmt;
use std::sync::Arc;

use serde_json::{Value, json};

use super::super::report::in_a_line;
use crate::archive::archiver::{ArchiverState, archiver};
use crate::archive::wal_file::WalFile;
use crate::pg::{SegmentSize, Timeline};
use crate::repo::layout::ClusterFolder;
use crate::repo::{RepoError, Repository};

/// One incarnation of the cluster in a repository that could be read.
pub(super) struct Seen {
    pub(super) repository: Arc<Repository>,
    pub(super) folder: ClusterFolder,
    pub(super) size: SegmentSize,
}

/// What is to be said.
pub(super) enum Archiving {
    /// `stored`: is the last segment that the server calls archived in any of the repositories? `None` where that cannot be said.
    Known {
        state: ArchiverState,
        stored: Option<bool>,
    },
    /// The connection leads to another cluster, whose archiving is not the question.
    OtherServer {
        served: u64,
        expected: Vec<u64>,
    },
    NotAsked(String),
}

/// Asks the server, then the repositories for what it calls archived. `all`: could every repository be read?
pub(super) fn of(connection: &str, seen: &[Seen], all: bool) -> Archiving {
    let state = match archiver(connection) {
        Ok(state) => state,
        Err(error) => return Archiving::NotAsked(in_a_line(&error)),
    };
    let own: Vec<&Seen> = seen.iter().filter(|seen| seen.folder.system_id == state.system_id).collect();
    if own.is_empty() && !seen.is_empty() {
        let mut expected: Vec<u64> = seen.iter().map(|seen| seen.folder.system_id).collect();
        expected.sort_unstable();
        expected.dedup();
        return Archiving::OtherServer { served: state.system_id, expected };
    }
    // One that could not be read may have it.
    let stored = state.last_archived.as_deref().and_then(|name| is_stored(name, &own)).filter(|stored| *stored || all);
    Archiving::Known { state, stored }
}

/// Is the segment of this name in any of them? `None` if it is no segment, or if none can say.
fn is_stored(name: &str, own: &[&Seen]) -> Option<bool> {
    let mut stored = None;
    for seen in own {
        let Ok(WalFile::Segment(segment)) = WalFile::parse(name, seen.size) else { continue };
        match seen.repository.has_object(&seen.folder.segment(segment, seen.size)) {
            Ok(true) => return Some(true),
            // What was set aside for a timeline that was left is passed over by archive-push.
            Ok(false) if stored.is_none() && !was_left(seen, segment.timeline).unwrap_or(true) => stored = Some(false),
            Ok(false) | Err(_) => {}
        }
    }
    stored
}

/// Does the repository have a newer timeline?
fn was_left(seen: &Seen, timeline: Timeline) -> Result<bool, RepoError> {
    let histories = seen.repository.store().list_dir(&seen.folder.histories())?;
    let own = format!("{timeline:08X}.history");
    Ok(histories.iter().any(|history| *history > own))
}

impl Archiving {
    pub(super) fn as_json(&self) -> Value {
        match self {
            Archiving::Known { state, stored } => json!({
                "last_archived": state.last_archived,
                "last_archived_time": state.last_archived_time,
                "last_archived_stored": stored,
                "last_failed": state.last_failed,
                "last_failed_time": state.last_failed_time,
                "failed_count": state.failed_count,
                "failing": state.is_failing(),
            }),
            Archiving::OtherServer { served, .. } => {
                json!({ "error": "the connection leads to another cluster", "system_id": served.to_string() })
            }
            Archiving::NotAsked(error) => json!({ "error": error }),
        }
    }
}

impl fmt::Display for Archiving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Archiving::Known { state, stored: Some(false) } => {
                let last = state.last_archived.as_deref().unwrap_or_default();
                write!(f, "{state}")?;
                writeln!(f, "WAL IS LOST: Postgres has archived {last}, which is in no repository: archive_command does not store it")
            }
            Archiving::Known { state, .. } => write!(f, "{state}"),
            Archiving::OtherServer { served, expected } => {
                let expected = expected.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
                writeln!(
                    f,
                    "archiving: not known, since the connection leads to another cluster (system identifier {served}, the repositories have {expected})"
                )
            }
            Archiving::NotAsked(error) => writeln!(f, "archiving: not known, since the server cannot be asked ({error})"),
        }
    }
}
