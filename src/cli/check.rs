//! `check`: does WAL arrive, from the server into every repository and back?

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use indicatif::HumanBytes;
use serde_json::json;

use super::Context;
use super::report::print;
use crate::archive::check::{ReadBack, Report, Request, check};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Seconds within which the forced WAL segment must be in every repository
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
}

pub(super) fn run(args: &Args, context: &Context) -> anyhow::Result<ExitCode> {
    let cluster = context.cluster()?;
    let open = |repo| context.open(repo).with_context(|| format!("open repository {}", repo.number));
    let repositories = context.repos().map(open).collect::<anyhow::Result<Vec<_>>>()?;
    let report = check(&Request {
        cluster: &cluster.name,
        connection: &cluster.connection,
        data_directory: &cluster.data_directory,
        repositories: &repositories.iter().collect::<Vec<_>>(),
        timeout: Duration::from_secs(args.timeout),
    })?;
    print(&if context.json { as_json(&report) } else { as_text(&cluster.name, &report) });
    Ok(ExitCode::SUCCESS)
}

fn as_text(cluster: &str, report: &Report) -> String {
    let (major, minor) = (report.server_version_num / 10_000, report.server_version_num % 10_000);
    let mut text = format!("cluster {cluster}: Postgres {major}.{minor}, system identifier {}\n", report.system_id);
    text += &format!("archive_command: {}\n", report.archive_command);
    text += &format!("WAL segment {} was forced and archived within {:.1} s\n", report.segment, report.waited.as_secs_f64());
    for back in &report.read_back {
        text += &format!(
            "{}: {} read back ({} stored), {}\n",
            back.repository,
            HumanBytes(back.bytes),
            HumanBytes(back.stored_bytes),
            judged(back)
        );
    }
    text
}

fn judged(back: &ReadBack) -> &'static str {
    if back.compared { "the same as in pg_wal" } else { "its checksums are right; not compared, pg_wal has it no more" }
}

fn as_json(report: &Report) -> String {
    let read_back = report.read_back.iter().map(
        |back| json!({ "repository": back.repository, "bytes": back.bytes, "stored_bytes": back.stored_bytes, "compared": back.compared }),
    );
    let value = json!({
        "server_version_num": report.server_version_num,
        "system_id": report.system_id.to_string(),
        "archive_command": report.archive_command,
        "segment": report.segment,
        "waited_ms": report.waited.as_millis(),
        "read_back": read_back.collect::<Vec<_>>(),
    });
    format!("{value}\n")
}
