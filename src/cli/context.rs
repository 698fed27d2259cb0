//! What a command works with: the checked configuration, and what the global options chose from it.

use std::ffi::OsStr;
use std::sync::Arc;

use secrecy::ExposeSecret as _;

use crate::config::{CacheConfig, ClusterConfig, Config, ConfigError, Place, RepoConfig};
use crate::parallel;
use crate::repo::{Repository, Secret};
use crate::store::cache::{Cached, RangeCache};

use super::Global;

/// The configuration of one run.
pub struct Context {
    pub config: Config,
    /// `--json`
    pub json: bool,
    global: Global,
}

impl Context {
    /// Loads file and environment.
    ///
    /// # Errors
    /// Those of [`Config::load`]; a repository that `--repo` names must be configured.
    pub fn load(global: &Global) -> Result<Context, ConfigError> {
        let config = Config::load(global.config.as_deref(), environment()?)?;
        if let Some(number) = global.repo {
            config.repo(number)?;
        }
        Ok(Context { config, json: global.json, global: global.clone() })
    }

    /// The cluster that `--cluster` names, or the only one.
    ///
    /// # Errors
    /// See [`Config::cluster`].
    pub fn cluster(&self) -> Result<&ClusterConfig, ConfigError> {
        self.config.cluster(self.global.cluster.as_deref())
    }

    /// The repositories to work on, by number: the one that `--repo` names, or all. Never empty.
    pub fn repos(&self) -> impl Iterator<Item = &RepoConfig> {
        self.config.repos.iter().filter(|repo| self.global.repo.is_none_or(|only| repo.number == only))
    }

    /// This program again with the same global options but for the cluster, for work in the background.
    ///
    /// # Errors
    /// If the system does not say where this program is.
    pub fn command(&self, cluster: &str) -> std::io::Result<std::process::Command> {
        let mut command = std::process::Command::new(std::env::current_exe()?);
        let Global { config, cluster: _, repo, json, verbose } = &self.global;
        command.args(config.iter().flat_map(|file| [OsStr::new("--config"), file.as_os_str()]));
        command.args(["--cluster", cluster]);
        command.args(repo.iter().flat_map(|number| ["--repo".to_owned(), number.to_string()]));
        command.args(json.then_some("--json")).args((0..*verbose).map(|_| "--verbose"));
        Ok(command)
    }

    /// Opens a repository: its store, with its key.
    ///
    /// # Errors
    /// Of the key's source, the store, or the repository itself.
    pub fn open(&self, repo: &RepoConfig) -> anyhow::Result<Repository> {
        Ok(open(repo)?.with_level(self.config.compress_level))
    }

    /// Opens the repositories side by side: one that does not answer keeps nobody from the others.
    pub fn open_all(&self) -> Vec<(&RepoConfig, anyhow::Result<Repository>)> {
        let repos: Vec<&RepoConfig> = self.repos().collect();
        let opened = parallel::map(repos.len(), &repos, |repo| self.open(repo));
        repos.into_iter().zip(opened).collect()
    }

    /// What [`Context::open`] does, for reading, and whenever it is called: what is fetched from an object store is kept in the cache.
    pub fn reading(&self, repo: &RepoConfig) -> impl Fn() -> anyhow::Result<Arc<Repository>> + Send + Sync + 'static + use<> {
        let (mut repo, cache) = (repo.clone(), self.config.cache.clone());
        if let Place::S3(s3) = &mut repo.place
            && self.repos().count() > 1
        {
            // There must be time left to ask the others.
            s3.timeouts.total = s3.timeouts.total.min(self.config.mount_read_timeout / 4);
        }
        move || Ok(Arc::new(cached(&repo, &cache, open(&repo)?)))
    }
}

/// All variables that are UTF-8; ours must be.
fn environment() -> Result<impl Iterator<Item = (String, String)>, ConfigError> {
    let mut variables = Vec::new();
    for (name, value) in std::env::vars_os() {
        match (name.into_string(), value.into_string()) {
            (Ok(name), Ok(value)) => variables.push((name, value)),
            (Ok(name), Err(_)) if name.starts_with("BYGONE_") => return Err(ConfigError::NotUtf8 { name }),
            _ => {}
        }
    }
    Ok(variables.into_iter())
}

fn open(repo: &RepoConfig) -> anyhow::Result<Repository> {
    let store = crate::store::open(&repo.place)?;
    let secret = repo.key.read(repo.number)?.map(|secret| Secret::new(secret.expose_secret().as_bytes().to_vec()));
    Ok(Repository::open(store, secret.as_ref())?)
}

/// A directory is its own cache. Without a cache everything still works, so that one which cannot be had is no error.
fn cached(repo: &RepoConfig, cache: &CacheConfig, repository: Repository) -> Repository {
    if matches!(repo.place, Place::Posix(_)) {
        return repository;
    }
    match RangeCache::open(&cache.directory, cache.size_bytes) {
        Ok(ranges) => {
            let store = Cached::new(repository.store().clone(), Arc::new(ranges), &repository.id().to_string());
            repository.with_store(Arc::new(store))
        }
        Err(error) => {
            tracing::warn!(hint = "look at cache.directory", "nothing is cached: {error}");
            repository
        }
    }
}
