//! Where the programs of each Postgres version are.

use std::path::{Path, PathBuf};

/// The major versions that Bygone serves, all of which the tests run on.
pub(crate) const MAJORS: [u16; 5] = [14, 15, 16, 17, 18];

fn tools_dir() -> PathBuf {
    std::env::var_os("BYGONE_TEST_TOOLS").map_or_else(|| PathBuf::from("/opt/bygone-test"), PathBuf::from)
}

/// The directory of one major version: `bin`, `lib`, `share`.
pub(crate) fn postgres_dir(major: u16) -> PathBuf {
    tools_dir().join("postgres").join(major.to_string())
}

/// A program of one major version; `None` if that version's package comes without it.
///
/// Client programs (`psql`, `pg_dump`, `pgbench`, `pg_amcheck`) exist for all: the installer lends newer ones where the package has none.
/// What reads files of a cluster (`pg_waldump`, `pg_controldata`, `pg_checksums`) must be of the cluster's own version; 14 has none of those.
pub(crate) fn program(major: u16, name: &str) -> Option<PathBuf> {
    let path = postgres_dir(major).join("bin").join(name);
    path.exists().then_some(path)
}

/// Like [`program`], for one that every version has.
pub(crate) fn required_program(major: u16, name: &str) -> PathBuf {
    program(major, name).unwrap_or_else(|| panic!("{name} of Postgres {major} is not in {}", postgres_dir(major).display()))
}

/// Is this version not installed? Says so aloud, and panics where `CI=true`: a test must not pass there without having run.
pub(crate) fn postgres_is_missing(major: u16) -> bool {
    is_missing(&format!("Postgres {major}"), &postgres_dir(major).join("bin/postgres"), "scripts/install-postgres")
}

/// Can nothing be mounted here? As loud as [`postgres_is_missing`].
pub(crate) fn fuse_is_missing() -> bool {
    is_missing("FUSE", Path::new("/dev/fuse"), "apt-get install fuse3, and in a container --device /dev/fuse --cap-add SYS_ADMIN")
}

/// Is there no `path`? Prints what is missing and what would bring it.
pub(crate) fn is_missing(what: &str, path: &Path, remedy: &str) -> bool {
    if path.exists() {
        return false;
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{what} is missing ({}), run {remedy}", path.display());
    eprintln!("NOT RUN: {what} is missing ({}), run {remedy}", path.display());
    true
}

/// The headers of one major version's server; `None` where no package has them.
pub(crate) fn server_headers(major: u16) -> Option<PathBuf> {
    let home = postgres_dir(major).join("include");
    let places = [home.join("server"), home.join("postgresql/server"), tools_dir().join("headers").join(major.to_string())];
    places.into_iter().find(|place| place.join("postgres.h").exists())
}
