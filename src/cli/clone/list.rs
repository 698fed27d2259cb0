//! `clone list`.

use std::process::ExitCode;

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use indicatif::HumanBytes;
use serde_json::{Value, json};

use super::super::Context;
use super::super::report::print;
use crate::clone::{Clones, ThinClone};
use crate::view::open::{Pinned, Replay};

pub(super) fn run(clones: &Clones, context: &Context) -> anyhow::Result<ExitCode> {
    let found = clones.names()?.iter().map(|name| clones.find(name)).collect::<Result<Vec<_>, _>>()?;
    if context.json {
        print(&format!("{}\n", Value::Array(found.iter().map(as_json).collect())));
    } else if found.is_empty() {
        print("no clones\n");
    } else {
        print(&format!("{}\n", as_table(&found)));
    }
    Ok(ExitCode::SUCCESS)
}

fn as_table(clones: &[ThinClone]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header([
        "clone",
        "moment",
        "cluster",
        "replayed by",
        "port",
        "local",
        "fetched",
        "pages rebuilt",
        "state",
    ]);
    for clone in clones {
        let Ok(record) = clone.record() else {
            table.add_row([clone.name(), "", "", "", "", "", "", "", "clone.json cannot be read"]);
            continue;
        };
        let asked = record.wanted.moment.to_string();
        let moment = record.pinned.as_ref().map_or(asked.clone(), |pinned| format!("{} ({asked})", pinned.point.lsn));
        let replayed = record.pinned.as_ref().map(replayed_by).unwrap_or_default();
        let status = clone.status().unwrap_or_default();
        let (fetched, rebuilt) = (HumanBytes(status.fetched_bytes).to_string(), status.rebuilt_pages.to_string());
        let local = HumanBytes(clone.local_bytes()).to_string();
        let (port, state) = (record.port.to_string(), clone.state().to_string());
        table.add_row([clone.name(), &moment, &record.cluster, &replayed, &port, &local, &fetched, &rebuilt, &state]);
    }
    table
}

/// Who replayed the WAL that leads to the clone's moment.
pub(super) fn replayed_by(pinned: &Pinned) -> String {
    match (pinned.replay, pinned.checkpoint) {
        (Replay::Postgres, _) => format!("Postgres from backup {}", pinned.backup),
        (_, Some(checkpoint)) => format!("Postgres from the checkpoint at {checkpoint}"),
        _ => "Bygone".to_owned(),
    }
}

/// All that is known of a clone.
pub(super) fn as_json(clone: &ThinClone) -> Value {
    let status = clone.status().unwrap_or_default();
    let mut document = json!({
        "name": clone.name(),
        "state": clone.state().to_string(),
        "data_directory": clone.data(),
        "socket_directory": clone.server_dir(),
        "local_bytes": clone.local_bytes(),
        "last_commit": status.last_commit,
        "fell_back": status.fell_back,
        "fetched_bytes": status.fetched_bytes,
        "fetched_chunks": status.fetched_chunks,
        "rebuilt_pages": status.rebuilt_pages,
        "applied_records": status.applied_records,
        "timed_out": status.timed_out,
    });
    match clone.record() {
        Ok(record) => {
            let pinned = record.pinned.as_ref();
            document["cluster"] = json!(record.cluster);
            document["major"] = json!(record.major.map(|major| major.number()));
            document["created"] = json!(record.created.to_string());
            document["moment"] = json!(record.wanted.moment.to_string());
            document["lsn"] = json!(pinned.map(|pinned| pinned.point.lsn.to_string()));
            document["timeline"] = json!(pinned.map(|pinned| pinned.point.timeline.0));
            document["backup"] = json!(pinned.map(|pinned| pinned.backup.to_string()));
            document["replay"] = json!(pinned.map(|pinned| pinned.replay.word()));
            document["checkpoint"] = json!(pinned.and_then(|pinned| pinned.checkpoint).map(|lsn| lsn.to_string()));
            document["port"] = json!(record.port);
            document["user"] = json!(record.user.name);
        }
        Err(error) => document["error"] = json!(error.to_string()),
    }
    document
}
