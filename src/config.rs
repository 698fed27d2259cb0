//! The configuration: file and environment, checked once, as one value that the commands work from.
//!
//! From: `cli`, with the name of the file.  To: every command.
//! In: TOML (by default `/etc/bygone/bygone.toml`) and `BYGONE_*` variables, which win.  Out: [`Config`], in which every value is of the right kind and fits the others.
//! Nothing below `cli` reads the environment. Secrets are held so that `Debug` does not show them.

mod key;
mod schema;
mod values;

use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use crate::advice::Advice;
use crate::store::settings::{AccessKey, S3Settings};
use values::Values;

/// Where a repository lies, as `store::open` takes it.
pub use crate::store::Settings as Place;
pub use key::KeySource;
pub use schema::{Kind, SETTINGS, Setting};

/// Where the configuration is when nobody says otherwise.
pub const DEFAULT_FILE: &str = "/etc/bygone/bygone.toml";

/// Everything that is configured.
#[derive(Debug, Clone)]
pub struct Config {
    /// By number. At least one.
    pub repos: Vec<RepoConfig>,
    /// By name. May be empty: reading a repository needs none.
    pub clusters: Vec<ClusterConfig>,
    /// zstd level, 1 to 19.
    pub compress_level: i32,
    pub archive: ArchiveConfig,
    /// Files that `backup` copies at a time.
    pub backup_parallel: usize,
    pub cache: CacheConfig,
    /// After this a read from a mount ends in an IO error.
    pub mount_read_timeout: Duration,
    /// Where clones keep their writes.
    pub clone_directory: PathBuf,
    /// Whom the servers of clones run as where root makes them.
    pub clone_user: Option<String>,
}

/// One `[repo.N]`.
#[derive(Debug, Clone)]
pub struct RepoConfig {
    /// The N of `[repo.N]`.
    pub number: u32,
    pub place: Place,
    /// Must WAL be durable here before Postgres is told that it is archived?
    pub required: bool,
    /// Is what is stored to be encrypted? Counts when `init` makes the repository; later the repository itself knows.
    pub encrypt: bool,
    pub key: KeySource,
}

/// One `[cluster.NAME]`.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// The NAME: lower-case letters, digits, `-` and `_`.
    pub name: String,
    pub data_directory: PathBuf,
    /// A libpq connection string.
    pub connection: String,
    /// Where the programs of its Postgres are, if that was said.
    pub bin_directory: Option<PathBuf>,
}

/// `[archive]`.
#[derive(Debug, Clone)]
pub struct ArchiveConfig {
    /// WAL segments moved at a time.
    pub parallel: usize,
    /// Most WAL segments that one call takes along or fetches ahead.
    pub batch: usize,
    /// After this `archive-push` gives up.
    pub timeout: Duration,
}

/// `[cache]`.
#[derive(Debug, Clone)]
pub struct CacheConfig {
    pub directory: PathBuf,
    pub size_bytes: u64,
}

/// What is wrong with the configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("there is no configuration: {} does not exist", file.display())]
    NoFile { file: PathBuf },
    #[error("configuration {} cannot be read", file.display())]
    Unreadable {
        file: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("configuration {file} is not TOML")]
    NotToml {
        file: String,
        #[source]
        source: Box<toml::de::Error>,
    },
    #[error("unknown setting {name} in {origin}")]
    Unknown { name: String, origin: String, suggestion: Option<String> },
    #[error("setting {name} in {origin} must be {wanted}")]
    WrongKind { name: String, origin: String, wanted: String },
    #[error("the variable {name} is not UTF-8")]
    NotUtf8 { name: String },
    #[error("secret {name} stands in {file}")]
    SecretInFile { name: String, file: String, variable: String },
    #[error("setting {name} is missing")]
    Missing { name: String, why: &'static str },
    #[error("settings {first} and {second} exclude each other")]
    Both { first: String, second: String },
    #[error("repositories {first} and {second} are the same place")]
    SamePlace { first: u32, second: u32 },
    #[error("{what} cannot be called {name:?}")]
    BadName { what: &'static str, name: String, wanted: &'static str },
    #[error("{what}")]
    Key {
        repo: u32,
        what: String,
        #[source]
        source: Option<std::io::Error>,
    },
    #[error("there is no {what} {name} in the configuration")]
    NotConfigured { what: &'static str, name: String, configured: Vec<String> },
    #[error("which cluster? the configuration has {}", configured.join(", "))]
    WhichCluster { configured: Vec<String> },
}

impl Advice for ConfigError {
    fn detail(&self) -> Option<String> {
        match self {
            ConfigError::Missing { why, .. } => Some((*why).to_owned()),
            ConfigError::BadName { wanted, .. } => Some((*wanted).to_owned()),
            ConfigError::NotConfigured { configured, .. } if !configured.is_empty() => Some(format!("it has {}", configured.join(", "))),
            _ => None,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            ConfigError::NoFile { .. } => {
                Some("Write one (docs/configuration.md has an example), or name it with --config or BYGONE_CONFIG.".to_owned())
            }
            ConfigError::Unknown { suggestion: Some(known), .. } => Some(format!("Did you mean {known}?")),
            ConfigError::Unknown { .. } => Some("docs/configuration.md lists every setting.".to_owned()),
            ConfigError::SecretInFile { variable, name, .. } if name.ends_with(".key") => {
                Some(format!("Put it into a file of its own and name that with key-file, or use key-command, or the variable {variable}."))
            }
            ConfigError::SecretInFile { variable, .. } => Some(format!("Set it with the variable {variable}, or use an AWS profile.")),
            ConfigError::SamePlace { .. } => {
                Some("Two copies in one place are one copy. Remove one of them, or give it a place of its own.".to_owned())
            }
            ConfigError::Both { .. } => Some("Remove one of them.".to_owned()),
            ConfigError::Key { repo, .. } => {
                Some(format!("Look at repo.{repo}.key-file, repo.{repo}.key-command or BYGONE_REPO_{repo}_KEY."))
            }
            ConfigError::WhichCluster { .. } => Some("Name one with --cluster.".to_owned()),
            _ => None,
        }
    }
}

impl Config {
    /// Reads the file and the environment. A missing file is an error only if it was asked for, or if the environment does not say everything either.
    ///
    /// # Errors
    /// Any [`ConfigError`] but those of keys, which are read when they are needed.
    pub fn load(file: Option<&Path>, environment: impl Iterator<Item = (String, String)>) -> Result<Config, ConfigError> {
        let path = file.unwrap_or(Path::new(DEFAULT_FILE));
        let text = match fs_err::read_to_string(path) {
            Ok(text) => Some(text),
            Err(source) if source.kind() == std::io::ErrorKind::NotFound && file.is_none() => None,
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Err(ConfigError::NoFile { file: path.to_owned() }),
            Err(source) => return Err(ConfigError::Unreadable { file: path.to_owned(), source }),
        };
        let environment: Vec<(String, String)> = environment.collect();
        let mut values = Values::default();
        if let Some(text) = &text {
            values.add_file(&path.display().to_string(), text)?;
        }
        values.add_environment(environment.iter().cloned())?;
        if text.is_none() && values.parts("repo").is_empty() {
            return Err(ConfigError::NoFile { file: path.to_owned() });
        }
        build(&values, &environment)
    }

    /// The cluster of this name; without a name, the only one that is configured.
    ///
    /// # Errors
    /// [`ConfigError::NotConfigured`] and [`ConfigError::WhichCluster`].
    pub fn cluster(&self, name: Option<&str>) -> Result<&ClusterConfig, ConfigError> {
        let configured = || self.clusters.iter().map(|cluster| cluster.name.clone()).collect();
        match (name, self.clusters.as_slice()) {
            (None, [only]) => Ok(only),
            (None, []) => Err(ConfigError::Missing { name: "cluster.NAME.data-directory".to_owned(), why: "no cluster is configured" }),
            (None, _) => Err(ConfigError::WhichCluster { configured: configured() }),
            (Some(name), clusters) => {
                let not_configured = || ConfigError::NotConfigured { what: "cluster", name: name.to_owned(), configured: configured() };
                clusters.iter().find(|cluster| cluster.name == name).ok_or_else(not_configured)
            }
        }
    }

    /// The repository of this number.
    ///
    /// # Errors
    /// [`ConfigError::NotConfigured`].
    pub fn repo(&self, number: u32) -> Result<&RepoConfig, ConfigError> {
        let not_configured = || ConfigError::NotConfigured {
            what: "repository",
            name: number.to_string(),
            configured: self.repos.iter().map(|repo| repo.number.to_string()).collect(),
        };
        self.repos.iter().find(|repo| repo.number == number).ok_or_else(not_configured)
    }
}

fn build(values: &Values, environment: &[(String, String)]) -> Result<Config, ConfigError> {
    let mut repos = values.parts("repo").iter().map(|part| repo(values, part)).collect::<Result<Vec<_>, _>>()?;
    repos.sort_by_key(|repo| repo.number);
    if repos.is_empty() {
        return Err(ConfigError::Missing { name: "repo.1.path".to_owned(), why: "no repository is configured" });
    }
    let pairs = repos.iter().enumerate().flat_map(|(at, first)| repos.iter().skip(at + 1).map(move |second| (first, second)));
    for (first, second) in pairs {
        if first.place.is_same_place(&second.place) {
            return Err(ConfigError::SamePlace { first: first.number, second: second.number });
        }
    }
    let base = |variable: &str, below_home: &str| {
        let of = |name: &str| {
            environment.iter().find(|(known, value)| known == name && value.starts_with('/')).map(|(_, value)| PathBuf::from(value))
        };
        of(variable).unwrap_or_else(|| of("HOME").unwrap_or_else(|| PathBuf::from("/var/lib")).join(below_home))
    };
    Ok(Config {
        repos,
        clusters: values.parts("cluster").iter().map(|part| cluster(values, part)).collect::<Result<Vec<_>, _>>()?,
        compress_level: values.number("compress.level"),
        archive: ArchiveConfig {
            parallel: values.number("archive.parallel"),
            batch: values.number("archive.batch"),
            timeout: Duration::from_secs(values.number("archive.timeout-s")),
        },
        backup_parallel: values.number("backup.parallel"),
        cache: CacheConfig {
            directory: values.path("cache.directory").unwrap_or_else(|| base("XDG_CACHE_HOME", ".cache").join("bygone")),
            size_bytes: values.number::<u64>("cache.size-mb") << 20,
        },
        mount_read_timeout: Duration::from_secs(values.number("mount.read-timeout-s")),
        clone_directory: values.path("clone.directory").unwrap_or_else(|| {
            // The server of a clone runs as another user, who cannot get into root's home.
            let of_root = rustix::process::geteuid().is_root() && !environment.iter().any(|(name, _)| name == "XDG_STATE_HOME");
            if of_root { "/var/lib/bygone/clones".into() } else { base("XDG_STATE_HOME", ".local/state").join("bygone/clones") }
        }),
        clone_user: values.text("clone.user").map(str::to_owned),
    })
}

fn repo(values: &Values, part: &str) -> Result<RepoConfig, ConfigError> {
    let bad_name =
        || ConfigError::BadName { what: "a repository", name: part.to_owned(), wanted: "repositories are numbered from 1: [repo.1]" };
    let number = part.parse().ok().filter(|number| *number > 0).ok_or_else(bad_name)?;
    let name = |setting: &str| format!("repo.{part}.{setting}");
    let place = match values.text(&name("type")) {
        Some("s3") => Place::S3(Box::new(s3(values, &name)?)),
        _ => {
            let why = "a repository of type posix needs its directory";
            Place::Posix(values.path(&name("path")).ok_or_else(|| ConfigError::Missing { name: name("path"), why })?)
        }
    };
    Ok(RepoConfig {
        number,
        place,
        required: values.boolean(&name("required")).unwrap_or(true),
        encrypt: values.text(&name("cipher")) != Some("none"),
        key: key_source(values, &name)?,
    })
}

/// The environment may replace the key of the file, but one source may not hold two.
fn key_source(values: &Values, name: &dyn Fn(&str) -> String) -> Result<KeySource, ConfigError> {
    let sources = ["key", "key-file", "key-command"].map(name);
    let mut given: Vec<&String> = sources.iter().filter(|setting| values.origin(setting).is_some()).collect();
    let from_environment = |setting: &String| values.origin(setting).is_some_and(|origin| origin.starts_with("BYGONE_"));
    if given.iter().any(|setting| from_environment(setting)) {
        given.retain(|setting| from_environment(setting));
    }
    if let [first, second, ..] = given.as_slice() {
        return Err(ConfigError::Both { first: (*first).clone(), second: (*second).clone() });
    }
    let Some(setting) = given.first() else {
        return Ok(KeySource::None);
    };
    let value = values.secret(setting).cloned().map(KeySource::Value);
    let file = || values.path(setting).map(KeySource::File);
    let command = || values.words(setting).map(|words| KeySource::Command(words.to_vec()));
    Ok(value.or_else(file).or_else(command).unwrap_or(KeySource::None))
}

fn s3(values: &Values, name: &dyn Fn(&str) -> String) -> Result<S3Settings, ConfigError> {
    let text = |setting: &str| values.text(&name(setting)).map(str::to_owned);
    let missing = |setting: &str, why| ConfigError::Missing { name: name(setting), why };
    let mut s3 = S3Settings::new(text("bucket").ok_or_else(|| missing("bucket", "a repository of type s3 needs a bucket"))?);
    s3.access_key = match (text("access-key-id"), values.secret(&name("secret-access-key"))) {
        (Some(id), Some(secret)) => Some(AccessKey { id, secret: secret.clone() }),
        (None, None) => None,
        (Some(_), None) => return Err(missing("secret-access-key", "an access key id is of no use without its secret")),
        (None, Some(_)) => return Err(missing("access-key-id", "a secret access key is of no use without its id")),
    };
    s3.prefix = text("path").unwrap_or_default().trim_matches('/').to_owned();
    s3.endpoint = text("endpoint");
    s3.region = text("region");
    s3.path_style = values.boolean(&name("path-style")).unwrap_or(false);
    s3.ca_file = values.path(&name("ca-file"));
    s3.profile = text("profile");
    s3.timeouts.total = Duration::from_secs(values.number(&name("timeout-s")));
    Ok(s3)
}

fn cluster(values: &Values, part: &str) -> Result<ClusterConfig, ConfigError> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    if !part.bytes().all(plain) {
        return Err(ConfigError::BadName {
            what: "a cluster",
            name: part.to_owned(),
            wanted: "it may have lower-case letters, digits, - and _",
        });
    }
    let name = |setting: &str| format!("cluster.{part}.{setting}");
    let why = "bygone reads the files of the cluster where they lie";
    let default_connection = || schema::find(&name("connection")).and_then(|setting| setting.default).unwrap_or_default();
    Ok(ClusterConfig {
        name: part.to_owned(),
        data_directory: values.path(&name("data-directory")).ok_or_else(|| ConfigError::Missing { name: name("data-directory"), why })?,
        connection: values.text(&name("connection")).unwrap_or_else(default_connection).to_owned(),
        bin_directory: values.path(&name("bin-directory")),
    })
}

#[cfg(test)]
mod tests;
