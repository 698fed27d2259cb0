//! `index`: completes the block indexes of the archived WAL.

use std::process::ExitCode;

use anyhow::Context as _;
use indicatif::HumanBytes;
use serde_json::{Value, json};

use super::Context;
use super::report::{self, print};
use crate::archive::index::{Report, complete};
use crate::config::RepoConfig;
use crate::repo::cluster::incarnations;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Remove the indexes beside the segments and all roll-ups first, and make them anew
    #[arg(long)]
    rebuild: bool,
}

pub(super) fn run(args: &Args, context: &Context) -> anyhow::Result<ExitCode> {
    let cluster = context.cluster()?;
    let (mut documents, mut text, mut code) = (Vec::new(), String::new(), ExitCode::SUCCESS);
    for repo in context.repos() {
        match in_repository(context, repo, &cluster.name, args.rebuild) {
            Ok(reports) => {
                for (folder, report) in reports {
                    text += &as_text(repo.number, &folder, &report);
                    documents.push(as_json(repo.number, &report));
                }
            }
            Err(error) => {
                documents.push(report::of_repository(repo.number, error, context.json));
                code = ExitCode::FAILURE;
            }
        }
    }
    print(&if context.json { format!("{}\n", json!(documents)) } else { text });
    Ok(code)
}

/// Completes the indexes of a cluster in one repository.
pub(super) fn in_repository(context: &Context, repo: &RepoConfig, cluster: &str, rebuild: bool) -> anyhow::Result<Vec<(String, Report)>> {
    let repository = context.open(repo)?;
    let complete = |folder| -> anyhow::Result<(String, Report)> {
        let report = complete(&repository, &folder, rebuild).context("index the WAL")?;
        Ok((format!("Postgres {}, system identifier {}", folder.major, folder.system_id), report))
    };
    incarnations(&repository, cluster)?.into_iter().map(complete).collect()
}

fn as_text(repo: u32, folder: &str, report: &Report) -> String {
    let Report { indexed, rollups, stored_bytes, removed, without } = report;
    let mut text =
        format!("repository {repo}, {folder}: {indexed} segments indexed, {rollups} roll-ups made, {} stored", HumanBytes(*stored_bytes));
    text += &if *removed == 0 { "\n".to_owned() } else { format!("; {removed} objects removed first\n") };
    for (segment, why) in without {
        text += &format!("segment {segment} has no index, views read it record by record: {why}\n");
    }
    text
}

fn as_json(repo: u32, report: &Report) -> Value {
    json!({
        "repository": repo,
        "indexed": report.indexed,
        "without_index": report.without.iter().map(|(segment, why)| json!({ "segment": segment, "why": why })).collect::<Vec<_>>(),
        "rollups": report.rollups,
        "stored_bytes": report.stored_bytes,
        "removed": report.removed,
    })
}
