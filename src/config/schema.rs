//! Every setting there is, one row each: its name in the file, its kind, its default, and what it means.
//!
//! The file, the environment and docs/configuration.md all follow this table. `*` stands for the number of a repository or the name of a cluster.

/// What a setting may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text that is not empty.
    Text,
    /// An absolute path.
    Path,
    /// `true` or `false`.
    Bool,
    /// A whole number from `min` to `max`, both included.
    Number { min: i64, max: i64 },
    /// One of these words.
    Word(&'static [&'static str]),
    /// A program and its arguments.
    Command,
    /// Text that is never shown, and that the file may not hold: it comes from the environment.
    Secret,
}

/// One row.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Dotted name; one part may be `*`.
    pub name: &'static str,
    pub kind: Kind,
    /// What it is when nobody says otherwise, as docs/configuration.md prints it.
    pub default: Option<&'static str>,
    /// One or two sentences for docs/configuration.md.
    pub about: &'static str,
}

const fn row(name: &'static str, kind: Kind, default: Option<&'static str>, about: &'static str) -> Setting {
    Setting { name, kind, default, about }
}

/// The table, in the order of docs/configuration.md.
pub const SETTINGS: &[Setting] = &[
    row("repo.*.type", Kind::Word(&["posix", "s3"]), Some("posix"), "Where the repository is: a directory, or a bucket of an S3 service."),
    row("repo.*.path", Kind::Path, None, "`posix`: the directory. `s3`: what all keys in the bucket begin with; the default is `/`."),
    row(
        "repo.*.required",
        Kind::Bool,
        Some("true"),
        "Must a WAL segment be durable here before `archive-push` tells Postgres that it is archived, and must `backup` find it? With `false`, a failure is a warning.",
    ),
    row(
        "repo.*.cipher",
        Kind::Word(&["aes-256-cbc", "none"]),
        Some("aes-256-cbc"),
        "Encryption of everything stored. Fixed when `init` makes the repository.",
    ),
    row("repo.*.key-file", Kind::Path, None, "A file whose first line is the passphrase. It should be readable by its owner alone."),
    row(
        "repo.*.key-command",
        Kind::Command,
        None,
        "A program that prints the passphrase, for example `[\"vault\", \"kv\", \"get\", \"...\"]`.",
    ),
    row("repo.*.key", Kind::Secret, None, "The passphrase itself. Environment only."),
    row("repo.*.bucket", Kind::Text, None, "`s3`: the bucket."),
    row(
        "repo.*.endpoint",
        Kind::Text,
        None,
        "`s3`: the service, for example `https://s3.example.com:9000`. The default is that of AWS for the region.",
    ),
    row("repo.*.region", Kind::Text, None, "`s3`: the region. The default is what the AWS profile or the environment says."),
    row(
        "repo.*.path-style",
        Kind::Bool,
        Some("false"),
        "`s3`: put the bucket into the path instead of the host name, as most services other than AWS want it.",
    ),
    row("repo.*.ca-file", Kind::Path, None, "`s3`: certificates (PEM) to trust instead of the system's."),
    row("repo.*.profile", Kind::Text, None, "`s3`: the AWS profile to take credentials and region from."),
    row(
        "repo.*.access-key-id",
        Kind::Text,
        None,
        "`s3`: a fixed access key. The default is AWS's own search: environment, profile, web identity, instance.",
    ),
    row("repo.*.secret-access-key", Kind::Secret, None, "`s3`: the secret of that access key. Environment only."),
    row(
        "repo.*.timeout-s",
        Kind::Number { min: 1, max: 3600 },
        Some("60"),
        "`s3`: seconds in which a request must succeed, its repetitions included; after this the service counts as dead.",
    ),
    row("cluster.*.data-directory", Kind::Path, None, "The data directory, as `SHOW data_directory` prints it."),
    row(
        "cluster.*.connection",
        Kind::Text,
        Some("host=/var/run/postgresql user=postgres dbname=postgres"),
        "How to connect, as a libpq connection string. A password may also come from PGPASSWORD, PGPASSFILE or ~/.pgpass.",
    ),
    row(
        "cluster.*.bin-directory",
        Kind::Path,
        None,
        "Where `postgres` and `pg_ctl` of the cluster's version are. The default is `/usr/lib/postgresql/<major>/bin`, then the search path.",
    ),
    row("compress.level", Kind::Number { min: 1, max: 19 }, Some("3"), "zstd level of what is stored."),
    row(
        "archive.parallel",
        Kind::Number { min: 1, max: 64 },
        Some("2"),
        "WAL segments that one `archive-push` compresses, or one `archive-get` fetches, at a time; twice as many may be on their way to the store.",
    ),
    row(
        "archive.batch",
        Kind::Number { min: 1, max: 1024 },
        Some("64"),
        "Most WAL segments that one `archive-push` takes along, or that `archive-get` fetches ahead.",
    ),
    row(
        "archive.timeout-s",
        Kind::Number { min: 1, max: 86_400 },
        Some("60"),
        "Seconds after which `archive-push` gives up; Postgres tries again by itself.",
    ),
    row("backup.parallel", Kind::Number { min: 1, max: 64 }, Some("2"), "Files that `backup` copies at a time."),
    row(
        "cache.directory",
        Kind::Path,
        None,
        "Where fetched chunks are kept, still encrypted. The default is `bygone` below `$XDG_CACHE_HOME`, or `~/.cache`.",
    ),
    row("cache.size-mb", Kind::Number { min: 16, max: 1 << 24 }, Some("4096"), "Size of that cache; the oldest chunks make room."),
    row(
        "mount.read-timeout-s",
        Kind::Number { min: 1, max: 3600 },
        Some("60"),
        "Seconds after which a read from a mount that cannot be had ends in an IO error.",
    ),
    row(
        "clone.directory",
        Kind::Path,
        None,
        "Where clones are. The default is `bygone/clones` below `$XDG_STATE_HOME`, or `~/.local/state`; for root `/var/lib/bygone/clones`.",
    ),
    row(
        "clone.user",
        Kind::Text,
        None,
        "Whom the servers of clones run as if root makes them. The default is the owner of the cluster's data directory, or else `postgres`.",
    ),
];

impl Setting {
    /// If `name` is this setting's: what stands in place of `*` (empty if there is none).
    #[must_use]
    pub fn matches<'n>(&self, name: &'n str) -> Option<&'n str> {
        match self.name.split_once('*') {
            None => (name == self.name).then_some(""),
            Some((before, after)) => {
                let which = name.strip_prefix(before)?.strip_suffix(after)?;
                (!which.is_empty() && !which.contains('.')).then_some(which)
            }
        }
    }

    /// The environment variable, with `*` where the name has it: `BYGONE_REPO_*_KEY_FILE`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("BYGONE_{}", env_form(self.name))
    }
}

/// The row of a full name such as `repo.1.path`.
#[must_use]
pub(super) fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.matches(name).is_some())
}

/// The known name that is most like `name`, if one is like it at all. The parts in place of `*` are kept.
#[must_use]
pub(super) fn suggestion(name: &str) -> Option<String> {
    let which = name.split('.').nth(1).unwrap_or("1");
    let known = SETTINGS.iter().map(|setting| setting.name.replace('*', which));
    known.map(|known| (distance(name, &known), known)).filter(|(far, known)| *far <= 1 + known.len() / 4).min().map(|(_, known)| known)
}

/// `data-directory` as an environment variable has it: `DATA_DIRECTORY`.
#[must_use]
pub(super) fn env_form(name: &str) -> String {
    name.to_uppercase().replace(['.', '-'], "_")
}

/// Letters to insert, drop or replace to get from one text to the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        for (j, to) in b.iter().enumerate() {
            let replaced = row[j] + usize::from(from != *to);
            next.push(replaced.min(row[j + 1] + 1).min(next[j] + 1));
        }
        row = next;
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_a_star_match_any_one_part() {
        assert_eq!(find("repo.12.key-file").map(|setting| setting.name), Some("repo.*.key-file"));
        assert_eq!(find("cluster.main.connection").and_then(|setting| setting.matches("cluster.main.connection")), Some("main"));
        assert!(find("cluster.a.b.connection").is_none());
        assert!(find("repo..path").is_none());
    }

    #[test]
    fn a_slip_of_the_pen_gets_a_suggestion() {
        assert_eq!(suggestion("repo.2.key_file").as_deref(), Some("repo.2.key-file"));
        assert_eq!(suggestion("compress.levl").as_deref(), Some("compress.level"));
        assert_eq!(suggestion("something.else").as_deref(), None);
    }
}
