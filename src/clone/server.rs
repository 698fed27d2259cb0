//! Postgres on a clone: finds its programs, starts and stops it as its user, and knows whether it runs.
//!
//! From: `cli::clone`, once the data directory is there.  To: `pg_ctl` and `postgres` of the cluster's version.
//! Port and data directory are given on the command line, where nothing that production's files say can override them.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::{CloneError, ThinClone, User, preload};
use crate::pg::Major;
use crate::view::settings::HBA;

/// Lines of the server's log that an error quotes.
const QUOTED_LINES: usize = 12;

/// Postgres may be replaying WAL for as long as this before it answers, seconds.
const START_TIMEOUT_S: u32 = 86_400;

/// How long processes get to end once they were told to.
const PATIENCE: Duration = Duration::from_secs(20);

/// The programs of one major version.
#[derive(Debug, Clone)]
pub struct Programs {
    bin: PathBuf,
}

impl Programs {
    /// Looks in `configured`, or else in the usual places, then along `search_path` (the value of `PATH`).
    ///
    /// # Errors
    /// [`CloneError::NoPrograms`] with every place that was looked in, and what was found there.
    pub fn find(major: Major, configured: Option<&Path>, search_path: &OsStr) -> Result<Programs, CloneError> {
        let mut places: Vec<PathBuf> = match configured {
            Some(only) => vec![only.to_owned()],
            None => vec![format!("/usr/lib/postgresql/{major}/bin").into(), format!("/usr/pgsql-{major}/bin").into()],
        };
        if configured.is_none() {
            places.extend(std::env::split_paths(search_path));
        }
        let mut looked = Vec::new();
        for bin in places {
            match version_in(&bin) {
                Some(found) if found == major.number() => return Ok(Programs { bin }),
                Some(found) => looked.push(format!("{} (Postgres {found})", bin.display())),
                None => looked.push(bin.display().to_string()),
            }
        }
        Err(CloneError::NoPrograms { major, looked })
    }

    fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }
}

/// The major version of the server in a directory: `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
fn version_in(bin: &Path) -> Option<u32> {
    if !bin.join("pg_ctl").exists() {
        return None;
    }
    let output = Command::new(bin.join("postgres")).arg("--version").stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.split("(PostgreSQL) ").nth(1)?;
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The server of one clone.
#[derive(Debug, Clone)]
pub struct Server {
    pub programs: Programs,
    pub user: User,
    pub port: u16,
    pub clone: ThinClone,
}

impl Server {
    /// The settings that make a view this clone's: they go into its `postgresql.auto.conf`, so that a start by hand finds them too.
    #[must_use]
    pub fn settings(clone: &ThinClone, port: u16) -> Vec<(String, String)> {
        let directory = clone.server_dir().display().to_string();
        [
            ("port", port.to_string()),
            ("unix_socket_directories", quoted_list_item(&directory)),
            ("external_pid_file", format!("{directory}/pid")),
            ("cluster_name", format!("bygone {}", clone.name())),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.clone.server_dir().join("log")
    }

    /// Leaves out of `shared_preload_libraries` what must not or cannot be loaded, and says what that was. Asks Postgres what the setting is, for
    /// it may stand in any of several files; but not where none of them can have it.
    ///
    /// # Errors
    /// [`CloneError::Server`] with what Postgres said, [`CloneError::Program`].
    pub fn trim_preloaded(&self) -> Result<Vec<preload::LeftOut>, CloneError> {
        let files = ["postgresql.conf", "postgresql.auto.conf"].map(|name| fs_err::read_to_string(self.clone.data().join(name)));
        if files.iter().all(|text| text.as_ref().is_ok_and(|text| !preload::may_be_set(text))) {
            return Ok(Vec::new());
        }
        let output = self.run(self.command("postgres").args(["-C", "shared_preload_libraries", "-D"]).arg(self.clone.data()))?;
        if !output.status.success() {
            return Err(self.failed("read its configuration", &output, 0));
        }
        let value = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let trimmed = preload::trim(&value, &preload::library_directories(&self.programs.bin));
        if !trimmed.left_out.is_empty() {
            self.append_setting("shared_preload_libraries", &trimmed.kept)?;
        }
        for (name, value) in trimmed.settings {
            self.append_setting(name, value)?;
        }
        Ok(trimmed.left_out)
    }

    /// Lets the server's user connect as anybody, where production's rules are not part of the backup: nobody else gets to the socket. Only those of the
    /// view that are ours are replaced.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn open_to_owner(&self) -> Result<(), CloneError> {
        use std::io::Write as _;
        use std::os::unix::fs::PermissionsExt as _;
        let rules = self.clone.data().join("pg_hba.conf");
        if fs_err::read_to_string(&rules)? != HBA {
            return Ok(());
        }
        fs_err::set_permissions(self.clone.server_dir(), std::fs::Permissions::from_mode(0o700))?;
        self.append_setting("unix_socket_permissions", "0700")?;
        let mut file = fs_err::OpenOptions::new().write(true).truncate(true).open(rules)?;
        file.write_all(HBA.replace("local all all peer", "local all all trust").as_bytes())?;
        Ok(file.sync_all()?)
    }

    /// The last line of a name wins in `postgresql.auto.conf`. Synced, as `ALTER SYSTEM` does: a mount that dies keeps what was.
    fn append_setting(&self, name: &str, value: &str) -> Result<(), CloneError> {
        use std::io::Write as _;
        let mut conf = fs_err::OpenOptions::new().append(true).open(self.clone.data().join("postgresql.auto.conf"))?;
        writeln!(conf, "{name} = '{}'", value.replace('\\', r"\\").replace('\'', "''"))?;
        Ok(conf.sync_all()?)
    }

    /// Starts it, and returns when it takes connections.
    ///
    /// # Errors
    /// [`CloneError::Server`] with the end of its log.
    pub fn start(&self) -> Result<(), CloneError> {
        let options = format!("-p {} -c data_directory={}", self.port, shell_quoted(&self.clone.data().display().to_string()));
        let log_before = fs_err::metadata(self.log()).map_or(0, |meta| meta.len());
        let mut command = self.command("pg_ctl");
        command.arg("-D").arg(self.clone.data()).arg("-l").arg(self.log()).args(["-w", "-t", &START_TIMEOUT_S.to_string(), "-o", &options]);
        let output = self.run(command.arg("start"))?;
        if output.status.success() && self.is_ready() { Ok(()) } else { Err(self.failed("start", &output, log_before)) }
    }

    /// Waits until `postmaster.pid` says that connections are taken, in its eighth line (`LOCK_FILE_LINE_PM_STATUS`, pidfile.h); `false` if the
    /// server ends before. `pg_ctl` is content as soon as a server replays WAL.
    fn is_ready(&self) -> bool {
        while let Some(_running) = pid(&self.clone) {
            let file = fs_err::read_to_string(self.clone.data().join("postmaster.pid")).unwrap_or_default();
            if file.lines().nth(7).is_some_and(|status| status.trim() == "ready") {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    /// Stops it: with a checkpoint, or (`immediate`) without one.
    ///
    /// # Errors
    /// [`CloneError::Server`].
    pub fn stop(&self, immediate: bool) -> Result<(), CloneError> {
        let log_before = fs_err::metadata(self.log()).map_or(0, |meta| meta.len());
        let mode = if immediate { "immediate" } else { "fast" };
        let output = self.run(self.command("pg_ctl").arg("-D").arg(self.clone.data()).args(["-w", "-t", "3600", "-m", mode, "stop"]))?;
        if output.status.success() || pid(&self.clone).is_none() { Ok(()) } else { Err(self.failed("stop", &output, log_before)) }
    }

    /// A program as the server's user, with nothing of the caller's own Postgres settings.
    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.program(name));
        if rustix::process::geteuid().is_root() {
            command.uid(self.user.uid).gid(self.user.gid);
        }
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PG")) {
            command.env_remove(name);
        }
        command.current_dir("/").stdin(Stdio::null());
        command
    }

    fn run(&self, command: &mut Command) -> Result<Output, CloneError> {
        command.output().map_err(|source| CloneError::Program { program: command.get_program().into(), source })
    }

    /// What went wrong, in the server's own words: the end of its log, or else what the program printed.
    fn failed(&self, what: &'static str, output: &Output, log_from: u64) -> CloneError {
        let log = fs_err::read(self.log()).unwrap_or_default();
        let new = usize::try_from(log_from).ok().and_then(|from| log.get(from..)).unwrap_or_default();
        let source = if new.is_empty() { &output.stderr } else { new };
        let text = String::from_utf8_lossy(source);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let said = lines[lines.len().saturating_sub(QUOTED_LINES)..].join("\n");
        CloneError::Server { what, said, log: Some(self.log()) }
    }
}

/// One item of a list setting, in double quotes, so that a comma in it does not split it.
fn quoted_list_item(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// `pg_ctl` hands its options to a shell.
fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The server's process, if it runs. Knows it also where the mount has died, and is not fooled by a number that another process has now.
#[must_use]
pub fn pid(clone: &ThinClone) -> Option<u32> {
    let pid = fs_err::read_to_string(clone.server_dir().join("pid")).ok()?.trim().parse().ok()?;
    is_process_of(pid, clone).then_some(pid)
}

/// Does the command line of a process name the clone's data directory?
fn is_process_of(pid: u32, clone: &ThinClone) -> bool {
    let data = clone.data();
    let wanted = data.as_os_str().as_encoded_bytes();
    fs_err::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.windows(wanted.len()).any(|part| part == wanted))
}

/// Ends all that is left of a server which is no longer known to run: its data directory has gone, or its first process was killed. As an immediate stop
/// does, by force where that does not help. A server that is just being started ends as well.
///
/// # Errors
/// [`CloneError::Undying`].
pub fn end_leftovers(clone: &ThinClone) -> Result<(), CloneError> {
    let mut left = processes(clone);
    for signal in [Signal::QUIT, Signal::KILL] {
        for process in left.iter().filter_map(|pid| Pid::from_raw(i32::try_from(*pid).ok()?)) {
            // It may have ended by itself meanwhile.
            let _gone = rustix::process::kill_process(process, signal);
        }
        let deadline = Instant::now() + PATIENCE;
        left.retain(|pid| !has_ended(*pid, deadline.saturating_duration_since(Instant::now())));
    }
    left.first().map_or(Ok(()), |pid| Err(CloneError::Undying { pid: *pid }))
}

/// The processes of a clone's server, the first one or not: they work in its data directory, or were started on it. One that has ended and that nobody
/// has waited for has neither, nor has another process that got its number.
fn processes(clone: &ThinClone) -> Vec<u32> {
    let data = clone.data();
    let real = fs_err::canonicalize(&clone.folder).map_or_else(|_| data.clone(), |folder| folder.join("data"));
    let names = fs_err::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.file_name());
    let is_of_server = |pid: &u32| {
        let process = Path::new("/proc").join(pid.to_string());
        let is_postgres = || fs_err::read_to_string(process.join("comm")).is_ok_and(|name| name.trim_end() == "postgres");
        let works_there = || fs_err::read_link(process.join("cwd")).is_ok_and(|directory| directory == real);
        let started_there = || fs_err::read(process.join("cmdline")).is_ok_and(|line| has_data_directory(&line, &data));
        is_postgres() && (works_there() || started_there())
    };
    names.filter_map(|name| name.to_str()?.parse().ok()).filter(is_of_server).collect()
}

/// Does a command line say `-D` and this directory?
fn has_data_directory(line: &[u8], data: &Path) -> bool {
    let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    words.windows(2).any(|pair| matches!(pair, [b"-D", directory] if *directory == data.as_os_str().as_encoded_bytes()))
}

/// Removes what a server that was killed, or whose data directory had gone, has left: `postmaster.pid`, its socket and the socket's lock. Postgres would
/// take any process that has its number now for it. To be called once [`end_leftovers`] has, by whoever keeps others from starting the server.
///
/// # Errors
/// Those of the file system.
pub fn remove_stale_files(clone: &ThinClone) -> Result<(), CloneError> {
    let remove = |path: PathBuf| match fs_err::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    remove(clone.data().join("postmaster.pid"))?;
    remove(clone.server_dir().join("pid"))?;
    for entry in fs_err::read_dir(clone.server_dir())? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(b".s.PGSQL.") {
            remove(entry.path())?;
        }
    }
    Ok(())
}

/// Waits for a process to end; `false` if it does not in time.
#[must_use]
pub fn has_ended(pid: u32, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    let lives = || {
        // One that has ended and that nobody has waited for still has a folder.
        let stat = fs_err::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next()).is_some_and(|state| state != "Z" && state != "X")
    };
    while lives() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_another_version_are_not_taken() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let script = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs_err::write(&path, text).unwrap();
            fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        };
        let find = |major| Programs::find(major, None, dir.path().as_os_str());
        assert!(matches!(Programs::find(Major::V16, Some(dir.path()), OsStr::new("")), Err(CloneError::NoPrograms { .. })));
        script("pg_ctl", "#!/bin/sh\n");
        script("postgres", "#!/bin/sh\necho 'postgres (PostgreSQL) 17.6 (Debian 17.6-1)'\n");
        let error = Programs::find(Major::V16, Some(dir.path()), OsStr::new("")).unwrap_err();
        assert!(matches!(&error, CloneError::NoPrograms { looked, .. } if looked[0].ends_with("(Postgres 17)")), "{error:?}");
        if !Path::new("/usr/lib/postgresql/17/bin").exists() {
            assert_eq!(find(Major::V17).unwrap().bin, dir.path());
        }
    }

    #[test]
    fn a_command_line_names_its_data_directory_in_full() {
        let data = Path::new("/clones/one/data");
        assert!(has_data_directory(b"/bin/postgres\0-D\0/clones/one/data\0-p\x001\0", data));
        assert!(!has_data_directory(b"/bin/postgres\0-D\0/clones/one/data2\0", data));
        assert!(!has_data_directory(b"vi\0/clones/one/data\0", data));
        assert!(!has_data_directory(b"", data));
    }

    #[test]
    fn the_rules_of_a_view_let_nobody_in_but_where_they_are_made_for_a_clone() {
        assert_eq!(HBA.matches("local all all peer").count(), 1);
    }

    #[test]
    fn a_process_that_does_not_exist_has_ended() {
        assert!(has_ended(u32::MAX, PATIENCE));
        let mut child = Command::new("true").spawn().unwrap();
        assert!(has_ended(child.id(), PATIENCE));
        child.wait().unwrap();
    }
}
