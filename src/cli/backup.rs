//! `backup`: takes a full backup.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context as _;
use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::report::{Told, print};
use super::{Context, index};
use crate::advice::Advice as _;
use crate::archive::backup::{Report, Request};
use crate::archive::watch::{Phase, Watch};
use crate::config::RepoConfig;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How much is copied
    #[arg(long = "type", value_enum, value_name = "TYPE", default_value_t = BackupType::Full)]
    kind: BackupType,
    /// Let the checkpoint at the start take its time (checkpoint_completion_target) instead of doing it at once
    #[arg(long)]
    spread_checkpoint: bool,
    /// Files copied at a time [default: backup.parallel]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    parallel: Option<u16>,
    /// Seconds to wait for a WAL segment to be archived at the end
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    archive_timeout: u64,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum BackupType {
    Full,
}

/// Exit code where some repositories hold the backup and others do not.
const PARTLY: u8 = 2;

pub(super) fn run(args: &Args, context: &Context) -> anyhow::Result<ExitCode> {
    let BackupType::Full = args.kind;
    let cluster = context.cluster()?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The second signal ends the program at once; nothing is lost by that but tidiness.
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, stop.clone()).context("catch signals")?;
        signal_hook::flag::register(signal, stop.clone()).context("catch signals")?;
    }
    let (mut repositories, mut unopened) = (Vec::new(), Vec::new());
    for (repo, opened) in context.open_all() {
        match opened {
            Ok(repository) => repositories.push((repo, repository)),
            Err(error) => unopened.push((repo, error)),
        }
    }
    if repositories.is_empty()
        && let Some((_, error)) = unopened.pop()
    {
        return Err(error);
    }
    for (repo, error) in &unopened {
        tracing::warn!("repository {} is left out: {error:#}", repo.number);
    }
    let bar = Bar::new();
    let report = Request {
        cluster: &cluster.name,
        connection: &cluster.connection,
        data_directory: &cluster.data_directory,
        repositories: &repositories.iter().map(|(_, repository)| repository).collect::<Vec<_>>(),
        fast: !args.spread_checkpoint,
        threads: args.parallel.map_or(context.config.backup_parallel, usize::from),
        archive_timeout: Duration::from_secs(args.archive_timeout),
        stop: &stop,
        watch: &bar,
    }
    .run();
    bar.0.finish_and_clear();
    let report = report?;
    let failed = failures(unopened, &report);
    print(&if context.json { as_json(&report, &failed) } else { as_text(&report) });
    for (repo, _) in &repositories {
        // The backup is complete without; a view only takes longer to open.
        if let Err(error) = index::in_repository(context, repo, &cluster.name, false) {
            tracing::warn!("indexes of the WAL were not completed: {error:#}");
        }
    }
    for Failure { repository, error, hint, counts } in &failed {
        if *counts {
            tracing::error!(hint, "{repository} does not hold this backup: {error}");
        } else {
            tracing::warn!(hint, "{repository} does not hold this backup: {error}");
        }
    }
    let partly = failed.iter().any(|failure| failure.counts);
    Ok(if partly { ExitCode::from(PARTLY) } else { ExitCode::SUCCESS })
}

/// A repository that does not hold the backup.
struct Failure {
    repository: String,
    error: String,
    hint: Option<String>,
    /// Does it make the command fail? One that is not required may be out of reach; one that took part and failed never goes unnoticed.
    counts: bool,
}

fn failures(unopened: Vec<(&RepoConfig, anyhow::Error)>, report: &Report) -> Vec<Failure> {
    let unopened = unopened.into_iter().map(|(repo, error)| {
        let told = Told::of(&error);
        Failure { repository: format!("repository {}", repo.number), error: told.message, hint: told.hint, counts: repo.required }
    });
    let failed = report.failed.iter().map(|(repository, error)| Failure {
        repository: repository.clone(),
        error: error.to_string(),
        hint: error.hint(),
        counts: true,
    });
    unopened.chain(failed).collect()
}

fn as_text(report: &Report) -> String {
    let header = &report.header;
    let seconds = header.stop_time.duration_since(header.start_time).as_secs().unsigned_abs();
    let bad = match header.bad_pages {
        0 => String::new(),
        n => format!("; {n} pages have wrong checksums (listed above and in the manifest)"),
    };
    format!(
        "backup {} of {}: {} in {}, stored in {}; WAL {} to {}{bad}\n",
        header.label,
        header.cluster,
        HumanBytes(header.database_bytes),
        HumanDuration(Duration::from_secs(seconds)),
        HumanBytes(header.stored_bytes),
        header.start_lsn,
        header.stop_lsn,
    )
}

fn as_json(report: &Report, failed: &[Failure]) -> String {
    let header = &report.header;
    let failed = failed.iter().map(|failure| json!({ "repository": failure.repository, "error": failure.error }));
    let value = json!({
        "label": header.label.as_str(),
        "type": "full",
        "cluster": header.cluster,
        "system_id": header.system_id.to_string(),
        "start_time": header.start_time.to_string(),
        "stop_time": header.stop_time.to_string(),
        "start_lsn": header.start_lsn.to_string(),
        "stop_lsn": header.stop_lsn.to_string(),
        "timeline": header.timeline.0,
        "database_bytes": header.database_bytes,
        "stored_bytes": header.stored_bytes,
        "bad_pages": header.bad_pages,
        "warnings": header.warnings,
        "stored_in": report.stored_in,
        "failed": failed.collect::<Vec<_>>(),
    });
    format!("{value}\n")
}

/// A progress bar on a terminal, nothing elsewhere.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Bar {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if !std::io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        bar.set_style(ProgressStyle::with_template("{spinner} {msg}").expect("the template is well-formed"));
        Bar(bar)
    }
}

impl Watch for Bar {
    fn phase(&self, phase: Phase<'_>) {
        tracing::info!(?phase, "backup");
        match phase {
            Phase::Preparing => self.0.set_message("preparing"),
            Phase::Checkpoint => self.0.set_message("waiting for the server's checkpoint"),
            Phase::Copying { bytes, files } => {
                let template = "{spinner} {msg} [{bar:30}] {bytes}/{total_bytes} {binary_bytes_per_sec} ETA {eta}";
                self.0.set_style(ProgressStyle::with_template(template).expect("the template is well-formed"));
                self.0.set_length(bytes);
                self.0.reset_elapsed();
                self.0.set_message(format!("copying {files} files"));
            }
            Phase::WaitingForWal { segment } => self.0.set_message(format!("waiting for WAL segment {segment}")),
            Phase::Finishing => self.0.set_message("writing the manifest"),
        }
    }

    fn copied(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    fn warn(&self, message: &str) {
        self.0.suspend(|| tracing::warn!("{message}"));
    }
}
