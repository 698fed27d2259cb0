//! `check`: does WAL arrive, from the server into every repository and back?

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use indicatif::HumanBytes;
use serde_json::json;

use super::Context;
use super::report::{self, Told, print};
use crate::archive::check::{ReadBack, Report, Request, check};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Seconds within which the forced WAL segment must be in every repository
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
}

pub(super) fn run(args: &Args, context: &Context) -> anyhow::Result<ExitCode> {
    let cluster = context.cluster()?;
    let (mut repositories, mut failed) = (Vec::new(), Vec::new());
    for (repo, opened) in context.open_all() {
        match opened.with_context(|| format!("open repository {}", repo.number)) {
            Ok(repository) => repositories.push(repository),
            Err(error) => failed.push(error),
        }
    }
    if repositories.is_empty() && !failed.is_empty() {
        return Err(failed.swap_remove(0));
    }
    let checked = check(&Request {
        cluster: &cluster.name,
        connection: &cluster.connection,
        data_directory: &cluster.data_directory,
        repositories: &repositories.iter().collect::<Vec<_>>(),
        timeout: Duration::from_secs(args.timeout),
    });
    let mut report = match checked {
        Ok(report) => report,
        Err(error) => {
            failed.iter().for_each(|error| report::error(error, context.json));
            return Err(error.into());
        }
    };
    failed.extend(std::mem::take(&mut report.failed).into_iter().map(anyhow::Error::new));
    print(&if context.json { as_json(&report, &failed) } else { as_text(&cluster.name, &report) });
    failed.iter().for_each(|error| report::error(error, context.json));
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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

fn as_json(report: &Report, failed: &[anyhow::Error]) -> String {
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
        "failed": failed.iter().map(|error| Told::of(error).message).collect::<Vec<_>>(),
    });
    format!("{value}\n")
}
