//! `info`: what the repositories hold of a cluster.

mod archiving;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use indicatif::HumanBytes;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Context;
use super::report::{self, in_a_line, print};
use crate::pg::SegmentSize;
use crate::repo::Repository;
use crate::repo::catalog::Catalog;
use crate::repo::cluster::{ClusterError, incarnations, names};
use crate::repo::layout::ClusterFolder;
use crate::repo::minimal::logged_minimally;
use crate::repo::window::{Stranded, Window, WindowEnd, windows};

use archiving::Seen;

#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_args: &Args, context: &Context) -> anyhow::Result<ExitCode> {
    let cluster = context.cluster()?;
    let (mut documents, mut text, mut all) = (Vec::new(), String::new(), true);
    let mut seen = Vec::new();
    for (repo, opened) in context.open_all() {
        match opened.and_then(|repository| of_repository(repo.number, repository, &cluster.name)) {
            Ok(held) => {
                text += &held.text;
                documents.extend(held.documents);
                seen.extend(held.folders.into_iter().map(|(folder, size)| Seen { repository: held.repository.clone(), folder, size }));
            }
            Err(error) => {
                documents.push(report::of_repository(repo.number, error, context.json));
                all = false;
            }
        }
    }
    let archiving = archiving::of(&cluster.connection, &seen, all);
    text += &archiving.to_string();
    print(&if context.json { format!("{}\n", json!({ "repositories": documents, "archiver": archiving.as_json() })) } else { text });
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What one repository holds of the cluster.
struct Held {
    repository: Arc<Repository>,
    folders: Vec<(ClusterFolder, SegmentSize)>,
    documents: Vec<Value>,
    text: String,
}

fn of_repository(number: u32, repository: Repository, cluster: &str) -> anyhow::Result<Held> {
    let (mut folders, mut documents, mut text) = (Vec::new(), Vec::new(), String::new());
    for folder in known(&repository, cluster)? {
        let catalog = Catalog::read(&repository, &folder)?;
        let key = repository.key_generation().map_or("not encrypted".to_owned(), |generation| format!("key generation {generation}"));
        text += &format!("repository {number} ({}), {key}\n", repository.store().describe());
        let (reachable, stranded) = windows(&catalog, &logged_minimally(&repository, &catalog)?);
        text += &as_text(cluster, &catalog, &reachable, &stranded);
        let mut document = as_json(cluster, &catalog, &reachable);
        document["repository"] = json!(number);
        document["key_generation"] = json!(repository.key_generation());
        documents.push(document);
        folders.push((folder, catalog.identity.wal_segment_size));
    }
    Ok(Held { repository: Arc::new(repository), folders, documents, text })
}

/// The cluster's incarnations.
///
/// # Errors
/// [`ClusterError::Unknown`] if there is none; store errors.
fn known(repository: &Repository, name: &str) -> Result<Vec<ClusterFolder>, ClusterError> {
    let folders = incarnations(repository, name)?;
    if folders.is_empty() {
        let (store, known) = (repository.store().describe(), names(repository)?);
        return Err(ClusterError::Unknown { store, name: name.to_owned(), known });
    }
    Ok(folders)
}

fn as_text(name: &str, catalog: &Catalog, reachable: &[Window], stranded: &[Stranded]) -> String {
    let identity = &catalog.identity;
    let size = identity.wal_segment_size;
    let mut text = format!("cluster {name}: system identifier {}, Postgres {}\n", identity.system_id, identity.major);
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["backup", "ended", "timeline", "database", "stored", "consistent at", ""]);
    for backup in &catalog.backups {
        let bad = if backup.bad_pages > 0 { format!("{} bad pages", backup.bad_pages) } else { String::new() };
        let (database, stored) = (HumanBytes(backup.database_bytes).to_string(), HumanBytes(backup.stored_bytes).to_string());
        let ended = seconds(backup.stop_time);
        table.add_row([backup.label.to_string(), ended, backup.timeline.to_string(), database, stored, backup.stop_lsn.to_string(), bad]);
    }
    text += &if catalog.backups.is_empty() { "no backups\n".to_owned() } else { format!("{table}\n") };
    for unusable in &catalog.unusable {
        text += &format!("backup {} cannot be used: {}\n", unusable.label, in_a_line(&unusable.error));
    }
    for (timeline, error) in &catalog.bad_histories {
        text += &format!("{timeline:08X}.history cannot be used, so timeline {timeline} cannot be followed: {}\n", in_a_line(error));
    }
    for timeline in catalog.without_history() {
        text += &format!("timeline {timeline} cannot be followed: {timeline:08X}.history is missing\n");
    }
    for run in &catalog.wal {
        let name = |no| crate::pg::WalSegment { timeline: run.timeline, no }.name(size);
        text +=
            &format!("WAL {} to {}: {} segments, {} stored\n", name(run.first), name(run.last), run.count(), HumanBytes(run.stored_bytes));
    }
    for gap in catalog.gaps() {
        let name = |no| crate::pg::WalSegment { timeline: gap.timeline, no }.name(size);
        text += &format!("WAL MISSING: {} to {}\n", name(gap.first), name(gap.last));
    }
    for window in reachable {
        let Window { from, to, timeline, .. } = window;
        let end = match window.end {
            WindowEnd::Archive { archived } | WindowEnd::Missing { archived, .. } => {
                format!("what was archived by {} ({to})", stored(archived))
            }
            WindowEnd::LoggedMinimally => format!("{to}, where wal_level = minimal began,"),
        };
        text += &format!("reachable: {} ({from}) to {end} on timeline {timeline}\n", seconds(window.from_time));
    }
    for stranded in stranded {
        text += &format!("backup {} is of no use: WAL segment {} is missing\n", stranded.backup, stranded.missing.name(size));
    }
    text
}

/// A time as a DBA writes it, and as `--at` takes it.
fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

fn stored(time: SystemTime) -> String {
    Timestamp::try_from(time).map_or_else(|_| "an unknown time".to_owned(), seconds)
}

fn as_json(name: &str, catalog: &Catalog, reachable: &[Window]) -> Value {
    let size = catalog.identity.wal_segment_size;
    let segment = |timeline, no| crate::pg::WalSegment { timeline, no }.name(size);
    let backups = catalog.backups.iter().map(|b| {
        json!({
            "label": b.label.as_str(), "type": "full", "start_time": b.start_time.to_string(), "stop_time": b.stop_time.to_string(),
            "start_lsn": b.start_lsn.to_string(), "stop_lsn": b.stop_lsn.to_string(), "timeline": b.timeline.0,
            "database_bytes": b.database_bytes, "stored_bytes": b.stored_bytes, "bad_pages": b.bad_pages,
        })
    });
    let unusable = catalog.unusable.iter().map(|u| json!({ "label": u.label, "error": in_a_line(&u.error) }));
    let bad_histories = catalog.bad_histories.iter().map(|(timeline, e)| json!({ "timeline": timeline.0, "error": in_a_line(e) }));
    let wal = catalog.wal.iter().map(|run| {
        json!({ "timeline": run.timeline.0, "first": segment(run.timeline, run.first), "last": segment(run.timeline, run.last), "segments": run.count(), "stored_bytes": run.stored_bytes })
    });
    let gaps = catalog.gaps();
    let gaps = gaps.iter().map(|gap| json!({ "first": segment(gap.timeline, gap.first), "last": segment(gap.timeline, gap.last) }));
    let reachable = reachable.iter().map(|w| {
        let (end, archived) = match w.end {
            WindowEnd::Archive { archived } => ("archive", Some(stored(archived))),
            WindowEnd::Missing { archived, .. } => ("missing", Some(stored(archived))),
            WindowEnd::LoggedMinimally => ("minimal", None),
        };
        json!({
            "timeline": w.timeline.0, "from": w.from.to_string(), "from_time": w.from_time.to_string(), "to": w.to.to_string(), "end": end,
            "archived": archived,
        })
    });
    json!({
        "cluster": name,
        "system_id": catalog.identity.system_id.to_string(),
        "major": catalog.identity.major.number(),
        "wal_segment_size": size.bytes(),
        "backups": backups.collect::<Vec<_>>(),
        "unusable": unusable.collect::<Vec<_>>(),
        "bad_histories": bad_histories.collect::<Vec<_>>(),
        "wal": wal.collect::<Vec<_>>(),
        "gaps": gaps.collect::<Vec<_>>(),
        "reachable": reachable.collect::<Vec<_>>(),
    })
}
