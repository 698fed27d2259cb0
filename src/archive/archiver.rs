//! How archiving goes, as the server sees it (`pg_stat_archiver`), and which server that is.
//!
//! From: `cli::info`.  To: the server, one query.

use std::fmt;
use std::time::Duration;

use postgres::{Error, NoTls};

use crate::archive::connection;

/// `info` must not hang on a server that does not answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// One row of `pg_stat_archiver`; times as the server prints them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiverState {
    /// The server's.
    pub system_id: u64,
    pub last_archived: Option<String>,
    pub last_archived_time: Option<String>,
    pub last_failed: Option<String>,
    pub last_failed_time: Option<String>,
    pub failed_count: i64,
    /// The newest failure is younger than the newest success.
    failing: bool,
}

impl ArchiverState {
    /// Is the newest attempt a failure?
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.failing
    }
}

impl fmt::Display for ArchiverState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "never".to_owned());
        if self.failing {
            writeln!(
                f,
                "ARCHIVING FAILS: {} at {}, {} failures",
                text(&self.last_failed),
                text(&self.last_failed_time),
                self.failed_count
            )?;
        }
        match &self.last_archived {
            Some(file) => writeln!(f, "archiving: last {file} at {}", text(&self.last_archived_time)),
            None => writeln!(f, "archiving: nothing yet"),
        }
    }
}

/// Asks the server.
///
/// # Errors
/// Those of the connection.
pub fn archiver(connection: &str) -> Result<ArchiverState, Error> {
    let mut client = connection::config(connection)?.connect_timeout(CONNECT_TIMEOUT).application_name("bygone info").connect(NoTls)?;
    let row = client.query_one(
        "SELECT last_archived_wal, last_archived_time::text, last_failed_wal, last_failed_time::text, failed_count,
                coalesce(last_failed_time > last_archived_time, last_failed_time IS NOT NULL),
                system_identifier
         FROM pg_catalog.pg_stat_archiver, pg_catalog.pg_control_system()",
        &[],
    )?;
    Ok(ArchiverState {
        // Shown as a signed number.
        system_id: row.try_get::<_, i64>(6)?.cast_unsigned(),
        last_archived: row.try_get(0)?,
        last_archived_time: row.try_get(1)?,
        last_failed: row.try_get(2)?,
        last_failed_time: row.try_get(3)?,
        failed_count: row.try_get(4)?,
        failing: row.try_get(5)?,
    })
}
