//! `archive-get`: what `restore_command` runs.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use super::Context;
use super::archive_push::data_directory;
use crate::archive::get::{Ahead, Request, get};
use crate::config::Place;
use crate::store::local::LocalStore;

/// Exit code of a failure. Only above 125 does it stop recovery: anything less would be taken for the end of the archive.
pub(super) const FAILURE: u8 = 130;

/// Exit code for a file that is not in the archive.
const NOT_THERE: u8 = 1;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Name of the WAL file: restore_command = 'bygone archive-get %f %p'
    name: String,
    /// Where to write it
    dest: PathBuf,
}

pub(super) fn run(args: &Args, context: &Context) -> anyhow::Result<ExitCode> {
    let cluster = context.cluster()?;
    let (mut repositories, mut failed) = (Vec::new(), None);
    for repo in context.repos() {
        match context.open(repo) {
            Ok(repository) => repositories.push(Arc::new(repository)),
            Err(error) => {
                tracing::warn!(repo = repo.number, "cannot be used: {error:#}");
                failed.get_or_insert(error);
            }
        }
    }
    if let (Some(_), true) = (&failed, repositories.is_empty()) {
        return failed.map_or(Ok(ExitCode::from(FAILURE)), Err);
    }
    let remote = context.repos().any(|repo| matches!(repo.place, Place::S3(_)));
    let ahead = remote.then(|| Ahead {
        spool: Arc::new(LocalStore::new(context.config.cache.directory.join("archive-get"))),
        window: context.config.archive.batch.min(context.config.archive.parallel * 4),
        parallel: context.config.archive.parallel,
    });
    let data_directory = data_directory(&cluster.data_directory)?;
    let request = Request { cluster: cluster.name.clone(), data_directory, repositories, ahead };
    let found = get(&request, &args.name, &args.dest)?;
    match failed {
        // One repository could not be asked.
        Some(error) if !found => Err(error),
        _ => Ok(if found { ExitCode::SUCCESS } else { ExitCode::from(NOT_THERE) }),
    }
}
