//! `init`: makes the repositories, and the cluster known in them.

use std::process::ExitCode;

use anyhow::Context as _;
use secrecy::ExposeSecret as _;

use super::Context;
use super::report::print;
use crate::archive::incarnation::read_control;
use crate::format::Cipher;
use crate::repo::cluster::{ClusterIdentity, Registered, register};
use crate::repo::{RepoError, Repository, Secret};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The name stood for another cluster before: this is what pg_upgrade or a new initdb made of it
    #[arg(long)]
    upgraded: bool,
}

pub(super) fn run(args: &Args, context: &Context) -> anyhow::Result<ExitCode> {
    let cluster = context.cluster()?;
    let identity = ClusterIdentity::of(&read_control(&cluster.data_directory)?);
    for repo in context.repos() {
        let cipher = if repo.encrypt { Cipher::Aes256CbcHmacSha256 } else { Cipher::None };
        let secret = repo.key.read(repo.number)?.map(|secret| Secret::new(secret.expose_secret().as_bytes().to_vec()));
        let store = crate::store::open(&repo.place)?;
        let (repository, made) = match Repository::create(store, cipher, secret.as_ref()) {
            Ok(repository) => (repository, "made"),
            Err(RepoError::AlreadyThere { .. }) => (context.open(repo)?, "was there already"),
            Err(error) => return Err(error).with_context(|| format!("make repository {}", repo.number)),
        };
        let known = match register(&repository, &cluster.name, &identity, args.upgraded)? {
            Registered::Now => "is known now",
            Registered::Before => "was known already",
        };
        print(&format!(
            "repository {} ({}) {made}; cluster {} (system identifier {}, Postgres {}) {known}\n",
            repo.number,
            repository.store().describe(),
            cluster.name,
            identity.system_id,
            identity.major,
        ));
    }
    Ok(ExitCode::SUCCESS)
}
