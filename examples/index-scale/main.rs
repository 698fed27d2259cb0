//! Makes a repository look like that of a very large database, and measures the block index on it. `scripts/bench index` runs it.
//!
//! `index-scale fill REPOSITORY KEY-FILE CLUSTER` takes a real repository whose WAL has one gap (the server was stopped, and `pg_resetwal -l` moved it
//! on), fills the gap with segments that consist of an index alone, and adds to the backup's manifest the files of a database of 10 TB.
//! `index-scale measure REPOSITORY KEY-FILE CLUSTER` opens the newest moment and looks blocks up in it: requests, times, memory.

mod database;
mod fill;
mod measure;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use bygone::repo::cluster::incarnations;
use bygone::repo::layout::ClusterFolder;
use bygone::repo::{Repository, Secret};
use bygone::store::local::LocalStore;

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [command, repository, key, cluster] = words.as_slice() else {
        bail!("usage: index-scale fill|measure REPOSITORY KEY-FILE CLUSTER")
    };
    let secret = Secret::new(fs_err::read_to_string(key)?.trim().as_bytes().to_vec());
    let repository = Arc::new(Repository::open(Arc::new(LocalStore::new(Path::new(repository))), Some(&secret))?);
    let folder = one_folder(&repository, cluster)?;
    match command.as_str() {
        "fill" => fill::fill(&repository, &folder),
        "measure" => measure::measure(repository, folder),
        other => bail!("there is no {other}"),
    }
}

fn one_folder(repository: &Repository, cluster: &str) -> anyhow::Result<ClusterFolder> {
    let folders = incarnations(repository, cluster)?;
    folders.into_iter().next().with_context(|| format!("there is no cluster {cluster}"))
}
