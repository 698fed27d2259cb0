//! How we connect to the server: as libpq would, but for TLS.
//!
//! From: `backup::session`, `archiver`.  In: a connection string.  Out: a configuration with a database and, if there is one, a password.
//! The password is that of the string, else that of `PGPASSWORD`, else that of the first line in the password file (`PGPASSFILE`, or `~/.pgpass`) that
//! fits. Source: `passwordFromFile` in Postgres's fe-connect.c, 14 to 18.

use std::env;
use std::iter::Peekable;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::Chars;

use postgres::config::Host;
use postgres::{Config, Error};

/// Postgres's own port, where the connection names none.
const DEFAULT_PORT: u16 = 5432;
/// Where servers have their sockets unless told otherwise: upstream's place and that of the distributions. The password file calls them `localhost`.
const USUAL_SOCKETS: [&str; 3] = ["/tmp", "/run/postgresql", "/var/run/postgresql"];

/// What a line of the password file is compared with.
#[derive(Debug)]
struct Wanted {
    host: String,
    port: String,
    database: String,
    user: String,
}

/// Takes a connection string apart (`host=/run/postgresql port=5432 user=postgres`, or a URL). The database is `postgres` unless it says otherwise.
///
/// # Errors
/// If it is none.
pub fn config(connection: &str) -> Result<Config, Error> {
    let mut config: Config = connection.parse()?;
    if config.get_dbname().is_none() {
        config.dbname("postgres");
    }
    if config.get_password().is_none() {
        if let Some(password) = env::var_os("PGPASSWORD").filter(|password| !password.is_empty()) {
            config.password(password.as_encoded_bytes());
        } else if let Some(password) = password_file().and_then(|file| wanted(&config).iter().find_map(|wanted| find(&file, wanted))) {
            config.password(password);
        }
    }
    Ok(config)
}

/// Every host of the connection, in the order in which they are tried.
fn wanted(config: &Config) -> Vec<Wanted> {
    let user = config.get_user().map(str::to_owned).or_else(|| whoami::username().ok()).unwrap_or_default();
    let of_host = |(place, host): (usize, &Host)| Wanted {
        host: match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(dir) if USUAL_SOCKETS.iter().any(|usual| Path::new(usual) == dir) => "localhost".to_owned(),
            Host::Unix(dir) => dir.display().to_string(),
        },
        port: config.get_ports().get(place).or(config.get_ports().first()).unwrap_or(&DEFAULT_PORT).to_string(),
        database: config.get_dbname().unwrap_or_default().to_owned(),
        user: user.clone(),
    };
    config.get_hosts().iter().enumerate().map(of_host).collect()
}

/// What is in the password file. One that others may read is left alone, and that is said.
fn password_file() -> Option<String> {
    let path = env::var_os("PGPASSFILE").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".pgpass")))?;
    let meta = fs_err::metadata(&path).ok()?;
    if !meta.is_file() || meta.mode() & 0o077 != 0 {
        tracing::warn!("password file {} is left alone: it must be a file that only its owner can read (chmod 0600)", path.display());
        return None;
    }
    fs_err::read_to_string(&path).inspect_err(|error| tracing::warn!(%error, "password file is left alone")).ok()
}

/// The password of the first line that fits.
fn find(file: &str, wanted: &Wanted) -> Option<String> {
    file.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut rest = line.chars().peekable();
        let fits = [&wanted.host, &wanted.port, &wanted.database, &wanted.user].into_iter().all(|wanted| {
            let any = rest.peek() == Some(&'*');
            let field = field(&mut rest, Some(':'));
            any && field == "*" || field == *wanted
        });
        let password = field(&mut rest, None);
        (fits && !password.is_empty()).then_some(password)
    })
}

/// The next field, up to `end`: a backslash takes the meaning from what follows it.
fn field(rest: &mut Peekable<Chars<'_>>, end: Option<char>) -> String {
    let mut field = String::new();
    while let Some(next) = rest.next() {
        match next {
            '\\' => field.extend(rest.next()),
            _ if Some(next) == end => break,
            _ => field.push(next),
        }
    }
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted_of(connection: &str) -> Vec<Wanted> {
        wanted(&connection.parse().unwrap())
    }

    #[test]
    fn the_first_line_that_fits_counts() {
        let file =
            "# a remark\nelsewhere:*:*:*:no\nlocalhost:5433:*:dba:port\nlocalhost:*:sales:dba:sales\n*:*:*:dba:any\n*:*:*:dba:later\n";
        let found = |connection: &str| wanted_of(connection).iter().find_map(|wanted| find(file, wanted));
        assert_eq!(found("host=localhost port=5433 user=dba dbname=sales").as_deref(), Some("port"));
        assert_eq!(found("host=/run/postgresql user=dba dbname=sales").as_deref(), Some("sales"));
        assert_eq!(found("host=/elsewhere user=dba dbname=sales").as_deref(), Some("any"));
        assert_eq!(found("host=localhost user=another dbname=sales"), None);
        // The second host's.
        assert_eq!(found("host=there,localhost port=1,5433 user=dba dbname=x").as_deref(), Some("any"));
    }

    #[test]
    fn backslashes_colons_and_stars() {
        let wanted = Wanted { host: "a:b".into(), port: "1".into(), database: "*".into(), user: "c\\d".into() };
        assert_eq!(find("a\\:b:1:\\*:c\\\\d:p\\:a\\\\s:s", &wanted).as_deref(), Some("p:a\\s:s"));
        assert_eq!(find("*:*:*:*:", &wanted), None, "an empty password is none");
        let other = Wanted { database: "sales".into(), ..wanted };
        assert_eq!(find("a\\:b:1:\\*:c\\\\d:secret", &other), None, "an escaped star is a name");
        assert_eq!(find("a\\:b:1", &other), None, "a line that ends early");
    }
}
