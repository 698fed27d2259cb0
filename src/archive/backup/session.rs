//! The one connection over which a backup is begun and ended.
//!
//! From: `archive::backup`.  Out: [`Facts`] about the server, and where the backup began and ended.
//! The session is kept for the whole backup: Postgres ends a backup by itself when its session goes, so nothing is owed after a crash of ours.
//! Versions: 15 renamed `pg_start_backup(label, fast, exclusive)` to `pg_backup_start(label, fast)`, and `pg_stop_backup` likewise.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use postgres::{Client, NoTls, Row};
use thiserror::Error;

use crate::advice::Advice;
use crate::archive::connection;
use crate::pg::{Lsn, Major, SegmentSize, Timeline};

/// What can go wrong between us and the server.
#[derive(Debug, Error)]
pub enum SessionError {
    #[error("no connection to the server")]
    Connect(#[source] postgres::Error),
    #[error("the server refused: {doing}")]
    Query {
        doing: &'static str,
        #[source]
        source: postgres::Error,
    },
    /// The server answered something that we do not understand.
    #[error("the server says {what} = {value:?}")]
    Unexpected { what: &'static str, value: String },
    #[error("Postgres {0} is not supported")]
    Version(u32),
    #[error("the server is a standby")]
    Standby,
    #[error("the server's block size is {0} bytes, only 8192 are supported")]
    BlockSize(i32),
}

impl Advice for SessionError {
    fn detail(&self) -> Option<String> {
        match self {
            SessionError::Connect(e) | SessionError::Query { source: e, .. } => e.as_db_error().and_then(|d| d.detail()).map(str::to_owned),
            _ => None,
        }
    }

    fn hint(&self) -> Option<String> {
        let hint = match self {
            SessionError::Connect(_) => {
                "Look at `connection` of the cluster in the configuration. Passwords may also come from PGPASSWORD or ~/.pgpass; TLS is not used."
            }
            SessionError::Query { .. } => {
                "The user needs to be a superuser, or a member of pg_monitor with EXECUTE on the backup functions."
            }
            SessionError::Version(_) => "Postgres 14 to 18 are supported.",
            SessionError::Standby => "Take the backup from the primary.",
            SessionError::Unexpected { .. } | SessionError::BlockSize(_) => return None,
        };
        Some(hint.to_owned())
    }
}

/// What the server says of itself.
#[derive(Debug, Clone)]
pub struct Facts {
    pub major: Major,
    pub server_version_num: u32,
    pub system_id: u64,
    pub control_version: u32,
    pub catalog_version: u32,
    pub segment_size: SegmentSize,
    /// Page checksums on?
    pub checksums: bool,
    /// `data_directory`, as the server sees it.
    pub data_directory: PathBuf,
    pub port: u16,
    /// `off`, `on` or `always`.
    pub archive_mode: String,
    pub archive_command: String,
    pub log_directory: Option<String>,
    /// 14 only.
    pub stats_temp_directory: Option<String>,
    /// Oid and name of every tablespace.
    pub tablespaces: Vec<(u32, String)>,
}

/// A backup that was begun.
#[derive(Debug, Clone, Copy)]
pub(super) struct Started {
    pub(super) lsn: Lsn,
}

/// A backup that was ended.
#[derive(Debug, Clone)]
pub(super) struct Stopped {
    pub(super) lsn: Lsn,
    pub(super) backup_label: String,
    pub(super) tablespace_map: String,
    pub(super) timeline: Timeline,
    pub(super) checkpoint_lsn: Lsn,
}

/// How archiving goes, for the message when it does not.
#[derive(Debug, Clone, Default)]
pub(in crate::archive) struct ArchiverState {
    pub(in crate::archive) last_archived: Option<String>,
    pub(in crate::archive) last_failed: Option<String>,
}

/// The connection.
pub struct Session {
    client: Client,
    pub facts: Facts,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("facts", &self.facts).finish_non_exhaustive()
    }
}

const FACTS: &str = "SELECT current_setting('server_version_num')::int, pg_is_in_recovery(), current_setting('data_directory'),
    current_setting('port')::int, current_setting('archive_mode'), current_setting('archive_command'),
    current_setting('log_directory', true), current_setting('stats_temp_directory', true), current_setting('block_size')::int,
    s.system_identifier::text, s.pg_control_version, s.catalog_version_no, i.bytes_per_wal_segment, i.data_page_checksum_version
  FROM pg_control_system() s, pg_control_init() i";

impl Session {
    /// Connects (`connection` as libpq writes it: `host=/run/postgresql port=5432 user=postgres`) and asks what server this is.
    ///
    /// # Errors
    /// [`SessionError::Connect`]; [`SessionError::Version`] for a server that we cannot back up.
    pub fn connect(connection: &str) -> Result<Session, SessionError> {
        let mut config = connection::config(connection).map_err(SessionError::Connect)?;
        if config.get_application_name().is_none() {
            config.application_name("bygone");
        }
        let mut client = config.connect(NoTls).map_err(SessionError::Connect)?;
        let quiet = "SET search_path = pg_catalog; SET statement_timeout = 0; SET lock_timeout = 0; SET idle_session_timeout = 0;
            SET client_min_messages = warning";
        client.batch_execute(quiet).map_err(|source| SessionError::Query { doing: "settings of the session", source })?;
        let facts = ask_facts(&mut client)?;
        Ok(Session { client, facts })
    }

    /// Begins a backup. `fast`: checkpoint at once, instead of spread over `checkpoint_completion_target`, which may take minutes; `stop` ends the
    /// wait.
    ///
    /// # Errors
    /// [`SessionError::Query`].
    pub(super) fn start_backup(&mut self, label: &str, fast: bool, stop: &AtomicBool) -> Result<Started, SessionError> {
        let cancel = self.client.cancel_token();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(50));
                    if stop.load(Ordering::Relaxed) && !done.load(Ordering::Relaxed) {
                        // If the server does not hear it, the checkpoint is waited for after all.
                        return drop(cancel.cancel_query(NoTls));
                    }
                }
            });
            let started = self.ask_start(label, fast);
            done.store(true, Ordering::Relaxed);
            started
        })
    }

    fn ask_start(&mut self, label: &str, fast: bool) -> Result<Started, SessionError> {
        let start = match self.facts.major {
            Major::V14 => "SELECT pg_start_backup($1, $2, false)::text",
            _ => "SELECT pg_backup_start($1, $2)::text",
        };
        let row =
            self.client.query_one(start, &[&label, &fast]).map_err(|source| SessionError::Query { doing: "start of backup", source })?;
        Ok(Started { lsn: lsn(&row, 0, "start of backup")? })
    }

    /// Ends the backup and switches to a new WAL segment. Does not wait for archiving: `wait` does, at the repositories.
    ///
    /// # Errors
    /// [`SessionError::Query`]; [`SessionError::Unexpected`] for a `backup_label` without the lines that we need.
    pub(super) fn stop_backup(&mut self) -> Result<Stopped, SessionError> {
        let stop = match self.facts.major {
            Major::V14 => "SELECT lsn::text, labelfile, spcmapfile FROM pg_stop_backup(false, false)",
            _ => "SELECT lsn::text, labelfile, spcmapfile FROM pg_backup_stop(false)",
        };
        let row = self.client.query_one(stop, &[]).map_err(|source| SessionError::Query { doing: "end of backup", source })?;
        let backup_label: String = row.get(1);
        let tablespace_map: Option<String> = row.get(2);
        Ok(Stopped {
            lsn: lsn(&row, 0, "end of backup")?,
            timeline: label_line(&backup_label, "START TIMELINE: ", |t| t.parse().ok().map(Timeline))?,
            checkpoint_lsn: label_line(&backup_label, "CHECKPOINT LOCATION: ", |t| t.parse().ok())?,
            tablespace_map: tablespace_map.unwrap_or_default(),
            backup_label,
        })
    }

    /// Is the connection alive? Asked now and then during a long copy, so that a lost session is noticed before the end.
    ///
    /// # Errors
    /// [`SessionError::Query`].
    pub(super) fn ping(&mut self) -> Result<(), SessionError> {
        self.client.batch_execute("SELECT 1").map_err(|source| SessionError::Query { doing: "keeping the backup's session", source })
    }

    /// Writes a restore point and ends the present WAL segment. Returns the name of that segment, which Postgres archives next.
    ///
    /// # Errors
    /// [`SessionError::Query`].
    pub(in crate::archive) fn force_segment(&mut self, restore_point: &str) -> Result<String, SessionError> {
        let refused = |source| SessionError::Query { doing: "switching to a new WAL segment", source };
        // Without a record in it, a segment is not ended.
        self.client.query_one("SELECT pg_create_restore_point($1)", &[&restore_point]).map_err(refused)?;
        let row = self.client.query_one("SELECT pg_walfile_name(pg_switch_wal())", &[]).map_err(refused)?;
        Ok(row.get(0))
    }

    /// What archives instead of `archive_command`, if anything does (`archive_library`, 15 and later).
    ///
    /// # Errors
    /// [`SessionError::Query`].
    pub(in crate::archive) fn archive_library(&mut self) -> Result<Option<String>, SessionError> {
        let ask = "SELECT nullif(current_setting('archive_library', true), '')";
        let row = self.client.query_one(ask, &[]).map_err(|source| SessionError::Query { doing: "archive_library", source })?;
        Ok(row.get(0))
    }

    /// What `pg_stat_archiver` says.
    ///
    /// # Errors
    /// [`SessionError::Query`].
    pub(in crate::archive) fn archiver(&mut self) -> Result<ArchiverState, SessionError> {
        let ask = "SELECT last_archived_wal, last_failed_wal FROM pg_stat_archiver";
        let row = self.client.query_one(ask, &[]).map_err(|source| SessionError::Query { doing: "state of archiving", source })?;
        Ok(ArchiverState { last_archived: row.get(0), last_failed: row.get(1) })
    }
}

fn ask_facts(client: &mut Client) -> Result<Facts, SessionError> {
    let refused = |source| SessionError::Query { doing: "facts about the server", source };
    let row = client.query_one(FACTS, &[]).map_err(refused)?;
    let number = |at: usize, what| {
        let value: i32 = row.get(at);
        u32::try_from(value).map_err(|_| SessionError::Unexpected { what, value: value.to_string() })
    };
    let server_version_num = number(0, "server_version_num")?;
    let major = Major::from_number(server_version_num / 10_000).ok_or(SessionError::Version(server_version_num / 10_000))?;
    if row.get(1) {
        return Err(SessionError::Standby);
    }
    let block_size: i32 = row.get(8);
    if block_size != 8192 {
        return Err(SessionError::BlockSize(block_size));
    }
    let system_id: String = row.get(9);
    let segment = number(12, "bytes_per_wal_segment")?;
    let tablespaces = client.query("SELECT oid, spcname::text FROM pg_tablespace", &[]).map_err(refused)?;
    Ok(Facts {
        major,
        server_version_num,
        system_id: parse_system_id(&system_id)?,
        control_version: number(10, "pg_control_version")?,
        catalog_version: number(11, "catalog_version_no")?,
        segment_size: SegmentSize::new(segment)
            .ok_or_else(|| SessionError::Unexpected { what: "bytes_per_wal_segment", value: segment.to_string() })?,
        checksums: number(13, "data_page_checksum_version")? != 0,
        data_directory: PathBuf::from(row.get::<_, String>(2)),
        port: u16::try_from(number(3, "port")?).unwrap_or_default(),
        archive_mode: row.get(4),
        archive_command: row.get(5),
        log_directory: row.get(6),
        stats_temp_directory: row.get(7),
        tablespaces: tablespaces.iter().map(|r| (r.get(0), r.get(1))).collect(),
    })
}

/// `pg_control_system` shows the identifier as a signed number.
fn parse_system_id(text: &str) -> Result<u64, SessionError> {
    let signed = text.parse::<i64>().map(i64::cast_unsigned);
    signed.map_err(|_| SessionError::Unexpected { what: "system_identifier", value: text.to_owned() })
}

fn lsn(row: &Row, at: usize, what: &'static str) -> Result<Lsn, SessionError> {
    let text: String = row.get(at);
    text.parse().map_err(|_| SessionError::Unexpected { what, value: text.clone() })
}

/// The value after `key` in a `backup_label`, up to the end of the line.
fn label_line<T>(label: &str, key: &'static str, parse: impl Fn(&str) -> Option<T>) -> Result<T, SessionError> {
    let line = label.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|value| parse(value.trim())).ok_or_else(|| SessionError::Unexpected { what: "backup_label", value: label.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backup_label_tells_timeline_and_checkpoint() {
        let label = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nCHECKPOINT LOCATION: 0/2000060\nSTART TIMELINE: 1\n";
        assert_eq!(label_line(label, "CHECKPOINT LOCATION: ", |t| t.parse::<Lsn>().ok()).unwrap(), Lsn(0x0200_0060));
        assert_eq!(label_line(label, "START TIMELINE: ", |t| t.parse::<u32>().ok()).unwrap(), 1);
        let missing = label_line("", "START TIMELINE: ", |t| t.parse::<u32>().ok());
        assert!(matches!(missing, Err(SessionError::Unexpected { what: "backup_label", .. })));
    }

    #[test]
    fn system_identifier_keeps_its_sixty_fourth_bit() {
        assert_eq!(parse_system_id("-1").unwrap(), u64::MAX);
        assert_eq!(parse_system_id("7711940346348827306").unwrap(), 7_711_940_346_348_827_306);
    }
}
