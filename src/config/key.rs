//! Where a repository's passphrase comes from: a file, a command, or the environment. Never the configuration file, never a log.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use super::ConfigError;

/// The source of a passphrase. `Debug` shows no secret.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// None is configured.
    None,
    /// The first line of a file.
    File(PathBuf),
    /// The first line that a program prints.
    Command(Vec<String>),
    /// Given outright, by the environment.
    Value(SecretString),
}

impl KeySource {
    /// Fetches the passphrase; `None` if no source is configured. `repo` is the number of the repository, for messages.
    ///
    /// # Errors
    /// [`ConfigError::Key`] if the source has none: a file that cannot be read, a command that fails, an empty passphrase.
    pub fn read(&self, repo: u32) -> Result<Option<SecretString>, ConfigError> {
        let passphrase = match self {
            KeySource::None => return Ok(None),
            KeySource::Value(secret) => secret.clone(),
            KeySource::File(path) => {
                let io = |source| key_error(repo, format!("key file {} cannot be read", path.display()), Some(source));
                warn_if_open(path).map_err(io)?;
                first_line(&Zeroizing::new(fs_err::read(path).map_err(io)?))
            }
            KeySource::Command(words) => first_line(&run(repo, words)?),
        };
        if passphrase.expose_secret().is_empty() {
            return Err(key_error(repo, format!("{} gives an empty passphrase", self.describe()), None));
        }
        Ok(Some(passphrase))
    }

    /// What the source is, without what it holds: `key file /etc/bygone/repo1.key`.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            KeySource::None => "no key".to_owned(),
            KeySource::File(path) => format!("key file {}", path.display()),
            KeySource::Command(words) => format!("key command {}", words.first().map_or("", String::as_str)),
            KeySource::Value(_) => "key from the environment".to_owned(),
        }
    }
}

fn key_error(repo: u32, what: String, source: Option<std::io::Error>) -> ConfigError {
    ConfigError::Key { repo, what, source }
}

fn warn_if_open(path: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = fs_err::metadata(path)?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!(path = %path.display(), mode = format!("{:o}", mode & 0o777), "others can read this key file, its mode should be 600");
    }
    Ok(())
}

fn run(repo: u32, words: &[String]) -> Result<Zeroizing<Vec<u8>>, ConfigError> {
    let (program, args) = words.split_first().ok_or_else(|| key_error(repo, "key command is empty".to_owned(), None))?;
    let cannot_run = |source| key_error(repo, format!("key command {program} cannot be run"), Some(source));
    let output = Command::new(program).args(args).stdin(Stdio::null()).stderr(Stdio::inherit()).output().map_err(cannot_run)?;
    let printed = Zeroizing::new(output.stdout);
    if output.status.success() {
        Ok(printed)
    } else {
        Err(key_error(repo, format!("key command {program} failed ({})", output.status), None))
    }
}

/// The first line; text that is not UTF-8 counts as what it can be read as, so that any bytes make one and the same passphrase.
fn first_line(bytes: &[u8]) -> SecretString {
    let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
    SecretString::from(String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)).into_owned())
}
