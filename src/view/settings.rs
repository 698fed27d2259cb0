//! The settings of a server that runs on a view: isolated from production, whatever production's own files say.
//!
//! In: the copied `postgresql.auto.conf`, and how the server reaches its state.  Out: the text of the file that the view shows in its place,
//! which Postgres reads last, so that what stands here wins over `postgresql.conf` and its includes.
//! Source: guc_tables.c, and what each setting would do if it were left alone.

use std::fmt::Write;

use crate::pg::Major;

/// How the server gets from the files to the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// The files are those of the moment: nothing to replay.
    Cold,
    /// Postgres replays WAL from `wal_directory` (absolute, readable by the server) up to `target`.
    Replay { wal_directory: String, target: Target },
}

/// Where Postgres's own recovery stops (`recovery_target*`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The setting and its value: `("recovery_target_lsn", "0/3A0002F8")`; `None` replays to the end of the WAL.
    pub setting: Option<(&'static str, String)>,
    /// `recovery_target_inclusive`.
    pub inclusive: bool,
    /// `recovery_target_timeline`: a number or `latest`.
    pub timeline: String,
}

/// What every server on a view gets. Value by value the reason, since each is an override of what somebody chose for production.
const ISOLATION: [(&str, &str, &str); 20] = [
    ("archive_mode", "off", "its WAL is not production's"),
    ("archive_command", "''", "and must never be pushed beside it"),
    ("archive_cleanup_command", "''", "it would remove WAL from production's archive"),
    ("recovery_end_command", "''", "production has not been promoted"),
    ("recovery_min_apply_delay", "0", "the moment is wanted now"),
    ("primary_conninfo", "''", "it follows nobody"),
    ("primary_slot_name", "''", "and holds no slot on the primary"),
    ("synchronous_standby_names", "''", "a commit would wait for standbys that never come"),
    ("max_logical_replication_workers", "0", "a subscription would take changes from the real publisher"),
    ("autovacuum", "off", "it would read the whole cluster through the mount"),
    ("listen_addresses", "'localhost'", "clients of production must not find it"),
    ("logging_collector", "off", "its log goes where it was started from, not into production's files"),
    ("log_destination", "'stderr'", "nor into this host's syslog"),
    ("syslog_ident", "'bygone'", "and never under production's name"),
    ("event_source", "'bygone'", "nor here"),
    ("unix_socket_group", "''", "the group may not exist here, and the server's user need not be in it"),
    ("external_pid_file", "'bygone_server.pid'", "production's own must not be overwritten"),
    ("ssl", "off", "its key and certificate may lie outside the data directory"),
    ("shared_buffers", "'128MB'", "sized for a guest on this machine; raise it if the clone is to work hard"),
    ("huge_pages", "try", "may not be reserved here"),
];

/// Recovery takes one target: what is left in production's files of its own past recoveries must be gone before ours is set.
const OTHER_TARGETS: [&str; 5] =
    ["recovery_target", "recovery_target_name", "recovery_target_time", "recovery_target_xid", "recovery_target_lsn"];

/// Text of `postgresql.auto.conf` in a view.
///
/// Settings of `copied` that `ISOLATION` or recovery decides are dropped, all others stay, ours follow.
#[must_use]
pub fn auto_conf(major: Major, copied: &str, start: &Start, own: &[(String, String)]) -> String {
    let recovery = recovery_settings(start);
    let decided = |name: &str| {
        name.starts_with("recovery_target")
            || ISOLATION.iter().any(|(n, ..)| *n == name)
            || recovery.iter().any(|(n, _)| *n == name)
            || own.iter().any(|(n, _)| n == name)
    };
    let mut text = String::new();
    for line in copied.lines().filter(|line| !decided(setting_name(line))) {
        let _infallible = writeln!(text, "{line}");
    }
    text.push_str("\n# Bygone: this server runs on a past moment, isolated from production.\n");
    // 15 keeps statistics in memory, and does not know the setting any more.
    let statistics =
        (major < Major::V15).then_some(&("stats_temp_directory", "'pg_stat_tmp'", "production's may lie outside the data directory"));
    for (name, value, reason) in ISOLATION.iter().chain(statistics).filter(|(name, ..)| !own.iter().any(|(n, _)| n == name)) {
        let _infallible = writeln!(text, "{name} = {value}  # {reason}");
    }
    for (name, value) in recovery.iter().map(|(n, v)| (*n, v)).chain(own.iter().map(|(n, v)| (n.as_str(), v))) {
        let _infallible = writeln!(text, "{name} = {}", quoted(value));
    }
    text
}

fn recovery_settings(start: &Start) -> Vec<(&'static str, String)> {
    let Start::Replay { wal_directory, target } = start else {
        return vec![("restore_command", String::new())];
    };
    let on_off = if target.inclusive { "on" } else { "off" };
    let ours = target.setting.clone();
    let others = OTHER_TARGETS.into_iter().filter(|name| ours.as_ref().is_none_or(|(target, _)| target != name));
    let mut settings: Vec<(&str, String)> = others.map(|name| (name, String::new())).collect();
    settings.extend([
        ("restore_command", restore_command(wal_directory)),
        ("recovery_target_timeline", target.timeline.clone()),
        ("recovery_target_inclusive", on_off.to_owned()),
        ("recovery_target_action", "promote".to_owned()),
        // Until it has replayed, nobody shall see an earlier moment.
        ("hot_standby", "off".to_owned()),
    ]);
    settings.extend(ours);
    settings
}

/// Copies a segment out of the mount. A segment that the mount does not list is not in the archive (exit 1); one that is listed but cannot be
/// read must stop recovery, so its exit code is above 125.
fn restore_command(wal_directory: &str) -> String {
    let shell_quoted = format!("'{}'", wal_directory.replace('\'', r"'\''").replace('%', "%%"));
    format!("if test -e {shell_quoted}/%f; then cp {shell_quoted}/%f %p || exit 200; else exit 1; fi")
}

/// A value in single quotes, as guc-file.l reads it: backslash and quote are escaped.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', r"\\").replace('\'', "''"))
}

fn setting_name(line: &str) -> &str {
    line.trim_start().split(['=', ' ', '\t']).next().unwrap_or("")
}

/// `pg_hba.conf` where production keeps its own outside the data directory: only the operating system's user of that name, over the socket.
pub const HBA: &str = "# Bygone: production's pg_hba.conf lies outside the data directory and is not part of the backup.\n\
                       local all all peer\nhost all all 127.0.0.1/32 scram-sha-256\nhost all all ::1/128 scram-sha-256\n";

/// `postgresql.conf` for the same case; `pg_control` knows the values that recovery insists on.
#[must_use]
pub fn postgresql_conf(required: &[(&str, u64)]) -> String {
    let mut text = "# Bygone: production's postgresql.conf lies outside the data directory and is not part of the backup.\n".to_owned();
    for (name, value) in required {
        let _infallible = writeln!(text, "{name} = {value}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_touch_production_is_overridden_and_the_rest_stays() {
        let copied = "work_mem = '64MB'\narchive_command = 'bygone archive-push %p'\n  archive_mode=on\nrecovery_target_xid = '7'\n";
        let text = auto_conf(Major::V14, copied, &Start::Cold, &[]);
        assert!(text.contains("work_mem = '64MB'\n") && text.contains("stats_temp_directory = 'pg_stat_tmp'"));
        assert!(!text.contains("archive-push") && !text.contains("archive_mode=on") && !text.contains("recovery_target_xid"));
        for ours in ["log_destination = 'stderr'", "logging_collector = off", "syslog_ident = 'bygone'", "unix_socket_group = ''"] {
            assert!(text.contains(ours), "{ours}: {text}");
        }
        assert!(text.contains("archive_mode = off") && text.contains("archive_command = ''") && text.contains("restore_command = ''"));
    }

    #[test]
    fn the_owner_of_a_clone_may_decide_otherwise() {
        let text = auto_conf(Major::V15, "", &Start::Cold, &[("shared_buffers".to_owned(), "1GB".to_owned())]);
        assert!(text.contains("shared_buffers = '1GB'") && !text.contains("128MB"));
    }

    #[test]
    fn replay_takes_segments_from_the_mount_and_stops_at_the_target() {
        let target = Target { setting: Some(("recovery_target_lsn", "0/3000028".to_owned())), inclusive: false, timeline: "1".to_owned() };
        let text = auto_conf(Major::V15, "", &Start::Replay { wal_directory: "/mnt/it's 5%".to_owned(), target }, &[]);
        assert!(text.find("recovery_target_time = ''\n") < text.find("recovery_target_lsn = '0/3000028'\n"), "{text}");
        assert!(text.contains("recovery_target_lsn = '0/3000028'\n") && text.contains("recovery_target_inclusive = 'off'\n"));
        assert!(text.contains(r"if test -e ''/mnt/it''\\''''s 5%%''/%f; then cp"), "{text}");
    }
}
