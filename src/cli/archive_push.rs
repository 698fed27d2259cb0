//! `archive-push`: what `archive_command` runs.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;

use super::{Context, heap};
use crate::archive::push::{Destination, Request, push};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The WAL file, as Postgres gives it: archive_command = 'bygone archive-push %p'
    path: PathBuf,
}

pub(super) fn run(args: &Args, context: &Context) -> anyhow::Result<ExitCode> {
    heap::keep();
    let cluster = context.cluster()?;
    let (mut repositories, mut lacking) = (Vec::new(), None);
    for (repo, opened) in context.open_all() {
        match opened {
            Ok(repository) => repositories.push(Destination { repository: Arc::new(repository), required: repo.required }),
            Err(error) if !repo.required => tracing::warn!(repo = repo.number, "not archived there: {error:#}"),
            Err(error) => drop(lacking.get_or_insert(error.context(format!("not archived in repository {}", repo.number)))),
        }
    }
    if repositories.is_empty()
        && let Some(error) = lacking
    {
        return Err(error);
    }
    let request = Request {
        cluster: cluster.name.clone(),
        data_directory: data_directory(&cluster.data_directory)?,
        repositories,
        incomplete: lacking.is_some(),
        parallel: context.config.archive.parallel,
        batch: context.config.archive.batch,
        timeout: context.config.archive.timeout,
        notes: Some(context.config.cache.directory.join("archive-push").join(&cluster.name)),
    };
    let pushed = push(&request, &args.path)?;
    // What could be had has the file; Postgres keeps it for the others.
    if let Some(error) = lacking {
        return Err(error);
    }
    tracing::info!(path = %args.path.display(), was_there = pushed.was_there, others = pushed.others, "archived");
    if context.json {
        super::report::print(&format!("{}\n", serde_json::json!({ "was_there": pushed.was_there, "others": pushed.others })));
    }
    Ok(ExitCode::SUCCESS)
}

/// Postgres runs `archive_command` and `restore_command` inside its data directory. That one counts, so that a copy of the server which kept the
/// configuration is recognised; called from elsewhere, it is the configured one.
pub(super) fn data_directory(configured: &Path) -> anyhow::Result<PathBuf> {
    let here = std::env::current_dir().context("find the working directory")?;
    Ok(if here.join("global/pg_control").exists() { here } else { configured.to_owned() })
}
