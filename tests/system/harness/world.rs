//! A temporary directory of user `postgres`, and the `bygone` program inside it.

use std::path::{Path, PathBuf};

use super::run::{Runner, is_root};

const KEEP: &str = "BYGONE_TEST_KEEP";
const FAILED: &str = "failed";

/// Where one test lives: below `BYGONE_TEST_DIR`, or `/tmp`. The directory goes away with it, unless `BYGONE_TEST_KEEP` is set: `failed` keeps
/// those of tests that fail, anything else all.
pub(crate) struct World {
    dir: tempfile::TempDir,
    program: PathBuf,
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os(KEEP).is_some_and(|what| what == FAILED) {
            self.dir.disable_cleanup(true);
            eprintln!("kept: {}", self.dir.path().display());
        }
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let below = std::env::var_os("BYGONE_TEST_DIR").unwrap_or_else(|| "/tmp".into());
        let mut dir = tempfile::Builder::new().prefix("bygone-").tempdir_in(below).expect("the directory for tests is writable");
        dir.disable_cleanup(std::env::var_os(KEEP).is_some_and(|what| what != FAILED));
        let world = Self { program: dir.path().join("bygone"), dir };
        set_mode(world.dir.path(), 0o755);
        world.give_to_postgres(world.dir.path());
        world.bring_program();
        world
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The `bygone` program where user `postgres` can run it (for `archive_command` and the like).
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// Where the configuration is: `BYGONE_CONFIG` of every [`World::bygone`].
    pub(crate) fn config(&self) -> PathBuf {
        self.join("bygone.toml")
    }

    /// Makes a directory that belongs to user `postgres`, mode 0700.
    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        let path = self.join(name);
        fs_err::create_dir_all(&path).expect("directory of a test");
        set_mode(&path, 0o700);
        self.give_to_postgres(&path);
        path
    }

    /// Writes a file that belongs to user `postgres`, mode 0600.
    pub(crate) fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        fs_err::write(&path, contents).expect("file of a test");
        set_mode(&path, 0o600);
        self.give_to_postgres(&path);
        path
    }

    /// A run of `bygone`, as user `postgres`, with this world's configuration and cache.
    pub(crate) fn bygone<I: IntoIterator<Item: AsRef<std::ffi::OsStr>>>(&self, args: I) -> Runner {
        Runner::new(&self.program)
            .env("BYGONE_CONFIG", self.config())
            .env("XDG_CACHE_HOME", self.join("cache"))
            .env("HOME", self.path())
            .args(args)
    }

    /// Gives a path (not what is below it) to user `postgres`.
    pub(crate) fn give_to_postgres(&self, path: &Path) {
        if is_root() {
            let (uid, gid) = postgres_user();
            std::os::unix::fs::lchown(path, Some(uid), Some(gid)).expect("root may chown");
        }
    }

    /// The directory of `cargo build` may be out of reach for user `postgres`, so that the program is linked (or copied) into the world.
    fn bring_program(&self) {
        let built = Path::new(env!("CARGO_BIN_EXE_bygone"));
        if fs_err::hard_link(built, &self.program).is_err() {
            fs_err::copy(built, &self.program).expect("the program can be copied");
        }
        set_mode(&self.program, 0o755);
    }
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    fs_err::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("mode of a test's file");
}

/// Uid and gid of user `postgres`.
pub(crate) fn postgres_user() -> (u32, u32) {
    let users = fs_err::read_to_string("/etc/passwd").expect("/etc/passwd is readable");
    let line = users.lines().find(|line| line.starts_with("postgres:")).expect("there is a user postgres");
    let mut numbers = line.split(':').skip(2).map(|number| number.parse().expect("uid and gid are numbers"));
    (numbers.next().expect("a uid"), numbers.next().expect("a gid"))
}
