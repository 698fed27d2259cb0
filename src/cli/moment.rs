//! What the commands that look at a moment share: their options, and the archive that they open.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use jiff::Timestamp;

use super::Context;
use crate::config::RepoConfig;
use crate::repo::Repository;
use crate::repo::catalog::Catalog;
use crate::repo::cluster::incarnations;
use crate::repo::moment::{Moment, TimelineChoice, Wanted};
use crate::view::open::{Archive, Replay, ViewOptions};
use crate::view::spare::{Spare, Spares};
use crate::view::stored::{CHUNK_MEMORY_BYTES, StoredObjects};

/// Which moment.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct MomentArgs {
    /// '2026-04-30 14:30:00 UTC', '10 minutes ago', lsn:0/3A0002F8, xid:1234, name:RESTORE_POINT, backup:LABEL, latest
    #[arg(long, value_name = "MOMENT")]
    pub(super) at: Option<String>,
    /// Stop before what the moment names, not behind it
    #[arg(long, requires = "at")]
    pub(super) exclusive: bool,
    /// Timeline to follow: latest, current, or a number
    #[arg(long, value_name = "TIMELINE", default_value = "latest")]
    pub(super) timeline: TimelineChoice,
    /// Who replays the WAL: bygone (each page when it is read), postgres (at its start, from the backup on), hybrid (bygone up to a checkpoint,
    /// postgres from there on), or auto: the first of bygone, hybrid and postgres that can
    #[arg(long, value_name = "WHO", default_value = "auto", value_enum)]
    pub(super) replay: ReplayArg,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(super) enum ReplayArg {
    Auto,
    Bygone,
    Hybrid,
    Postgres,
}

impl MomentArgs {
    /// The moment that was asked for, `latest` if none was.
    pub(super) fn wanted(&self) -> anyhow::Result<Wanted> {
        let moment = Moment::parse(self.at.as_deref().unwrap_or("latest"), Timestamp::now())?;
        Ok(Wanted { moment, exclusive: self.exclusive, timeline: self.timeline })
    }

    /// Who was asked to replay.
    pub(super) fn replay(&self) -> Replay {
        match self.replay {
            ReplayArg::Auto => Replay::Auto,
            ReplayArg::Bygone => Replay::Bygone,
            ReplayArg::Hybrid => Replay::Hybrid,
            ReplayArg::Postgres => Replay::Postgres,
        }
    }

    pub(super) fn options(&self, owner: (u32, u32), mountpoint: Option<String>) -> ViewOptions {
        ViewOptions { replay: self.replay(), owner, mountpoint, own_settings: Vec::new() }
    }
}

/// Opens something of the cluster meant, in the first repository that has it: `open` says what. What this repository cannot give later, the others do.
///
/// # Errors
/// That of the first repository, if none has it.
pub(super) fn open_first<T>(context: &Context, open: impl Fn(&Archive) -> anyhow::Result<T>) -> anyhow::Result<(Archive, T)> {
    let cluster = context.cluster()?;
    let mut failed: Option<(u32, anyhow::Error)> = None;
    for repo in context.repos() {
        let archive = context.reading(repo)().and_then(|repository| archive_in(repository, &cluster.name, spares(context, repo)));
        match archive.and_then(|archive| open(&archive).map(|opened| (archive, opened))) {
            Ok(opened) => {
                if let Some((number, error)) = failed {
                    tracing::warn!("reading from repository {}, since repository {number} does not do: {error:#}", repo.number);
                }
                return Ok(opened);
            }
            Err(error) => {
                if failed.is_some() {
                    tracing::warn!("repository {} does not do either: {error:#}", repo.number);
                }
                failed = failed.or(Some((repo.number, error)));
            }
        }
    }
    Err(failed.context("no repository is configured")?.1)
}

/// All repositories but one.
fn spares(context: &Context, but: &RepoConfig) -> Spares {
    let others = context.repos().filter(|repo| repo.number != but.number);
    Spares::new(others.map(|repo| Spare::new(format!("repository {}", repo.number), context.reading(repo))).collect())
}

/// If the name has had several incarnations, the one with the newest backup.
fn archive_in(repository: Arc<Repository>, cluster: &str, spares: Spares) -> anyhow::Result<Archive> {
    let mut folders = incarnations(&repository, cluster)?;
    let newest = match folders.len() {
        0 | 1 => folders.pop(),
        _ => {
            let mut newest = None;
            for folder in folders {
                let time = Catalog::read(&repository, &folder)?.backups.last().map(|backup| backup.stop_time);
                newest = match newest {
                    Some((old, old_time)) if time < old_time => Some((old, old_time)),
                    _ => Some((folder, time)),
                };
            }
            newest.map(|(folder, _)| folder)
        }
    };
    let Some(folder) = newest else {
        bail!("{} knows no cluster {cluster:?}: run `bygone init` first", repository.store().describe());
    };
    Ok(Archive::new(StoredObjects::with_spares(repository, CHUNK_MEMORY_BYTES, spares), folder))
}
