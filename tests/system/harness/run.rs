//! Runs programs as user `postgres`, and says everything about one that failed.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Is this process root? Postgres is not allowed to be.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A program to run, by default as user `postgres` (if the tests run as root; as themselves otherwise).
pub(crate) struct Runner {
    program: String,
    args: Vec<String>,
    envs: Vec<(String, String)>,
    by_root: bool,
    dir: Option<String>,
}

/// What a program did.
#[derive(Debug)]
pub(crate) struct Ran {
    /// The command line.
    pub(crate) line: String,
    /// Exit code; `None` if a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Runner {
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        let program = program.as_ref().to_str().expect("test paths are UTF-8").to_owned();
        Self { program, args: Vec::new(), envs: Vec::new(), by_root: false, dir: None }
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_str().expect("test arguments are UTF-8").to_owned());
        self
    }

    pub(crate) fn args<I: IntoIterator<Item: AsRef<OsStr>>>(self, args: I) -> Self {
        args.into_iter().fold(self, Runner::arg)
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.envs.push((name.to_owned(), value.as_ref().to_str().expect("test values are UTF-8").to_owned()));
        self
    }

    /// Runs it as the user that runs the tests, `root` as a rule.
    pub(crate) fn by_root(mut self) -> Self {
        self.by_root = true;
        self
    }

    /// Lets it, and what it starts, have so many files open.
    pub(crate) fn open_files(mut self, most: u32) -> Self {
        let program = std::mem::replace(&mut self.program, "prlimit".to_owned());
        self.args.splice(0..0, [format!("--nofile={most}:{most}"), program]);
        self
    }

    pub(crate) fn current_dir(mut self, dir: &Path) -> Self {
        self.dir = Some(dir.to_str().expect("test paths are UTF-8").to_owned());
        self
    }

    /// The command, not yet run. Its environment holds nothing of the caller's Postgres or Bygone settings.
    pub(crate) fn command(&self) -> Command {
        let mut command = if is_root() && !self.by_root {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(&self.program);
            command
        } else {
            Command::new(&self.program)
        };
        let foreign = |name: &str| name.starts_with("PG") || name.starts_with("BYGONE_") || name.starts_with("AWS_");
        for (name, _) in std::env::vars().filter(|(name, _)| foreign(name)) {
            command.env_remove(name);
        }
        command.args(&self.args).env("TZ", "UTC").env("LC_ALL", "C").current_dir(self.dir.as_deref().unwrap_or("/"));
        command.envs(self.envs.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs it to its end.
    pub(crate) fn run(&self) -> Ran {
        let mut command = self.command();
        command.stdin(Stdio::null());
        let output = command.output().unwrap_or_else(|error| panic!("{} cannot be run: {error}", self.line()));
        self.ran(&output)
    }

    /// Runs it with `stdin`.
    pub(crate) fn run_with_input(&self, stdin: &str) -> Ran {
        use std::io::Write as _;
        let mut command = self.command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{} cannot be run: {error}", self.line()));
        let mut pipe = child.stdin.take().expect("stdin is piped");
        let input = stdin.to_owned();
        let writer = std::thread::spawn(move || pipe.write_all(input.as_bytes()));
        let output = child.wait_with_output().expect("the child can be waited for");
        // A program that fails early may not have read all: its exit code tells.
        let _written = writer.join().expect("the writer does not panic");
        self.ran(&output)
    }

    /// Runs it and returns what it printed; panics if it failed.
    pub(crate) fn ok(&self) -> String {
        self.run().ok()
    }

    /// Runs it and panics if it succeeded.
    pub(crate) fn fails(&self) -> Ran {
        let ran = self.run();
        assert!(ran.code != Some(0), "should have failed: {ran}");
        ran
    }

    fn line(&self) -> String {
        std::iter::once(self.program.as_str()).chain(self.args.iter().map(String::as_str)).collect::<Vec<_>>().join(" ")
    }

    fn ran(&self, output: &Output) -> Ran {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ran { line: self.line(), code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }
}

impl Ran {
    /// Standard output of a program that must have succeeded.
    pub(crate) fn ok(self) -> String {
        assert!(self.code == Some(0), "should have succeeded: {self}");
        self.stdout
    }

    /// Panics unless standard error has `text` in it.
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "should have said {text:?}: {self}");
        self
    }

    /// Panics unless the exit code is this.
    pub(crate) fn exits(self, code: i32) -> Self {
        assert!(self.code == Some(code), "should have exited with {code}: {self}");
        self
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\nexit code {:?}\n--- stdout\n{}\n--- stderr\n{}", self.line, self.code, self.stdout, self.stderr)
    }
}
