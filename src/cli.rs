//! The command line: one file a command, each with its `Args` and a thin `run`.
//!
//! The only part of Bygone that prints, exits, reads the environment, picks a store or uses anyhow.
//! A command gets a [`Context`] (the checked configuration and the global options) and returns its exit code; errors end in [`report`].
//!
//! A new command: a file below `cli/` with `pub(super) struct Args` and `pub(super) fn run(args: &Args, context: &Context) -> anyhow::Result<ExitCode>`,
//! a variant of [`Command`] with one line of help, an arm in [`Command::run`], and its error types in `report::advice_of`.

mod archive_get;
mod archive_push;
mod backup;
mod check;
mod clone;
mod completions;
mod context;
#[cfg(test)]
mod docs;
mod explain;
mod heap;
mod index;
mod info;
mod init;
mod look;
mod moment;
mod mount;
mod report;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

pub use context::Context;

/// What every command takes.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Configuration file [default: /etc/bygone/bygone.toml]
    #[arg(long, global = true, env = "BYGONE_CONFIG", hide_env_values = true, value_name = "FILE", help_heading = "Global options")]
    pub config: Option<PathBuf>,
    /// The cluster meant; not needed where only one is configured
    #[arg(long, global = true, env = "BYGONE_CLUSTER", hide_env_values = true, value_name = "NAME", help_heading = "Global options")]
    pub cluster: Option<String>,
    /// Use only the repository of this number [default: all that are configured]
    #[arg(long, global = true, env = "BYGONE_REPO", hide_env_values = true, value_name = "N", help_heading = "Global options")]
    pub repo: Option<u32>,
    /// Print JSON for programs instead of text for people
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,
    /// Say more on standard error: -v what changes, -vv each request, -vvv each block
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Global options")]
    pub verbose: u8,
}

/// Postgres backups that you can mount at any past second.
#[derive(Debug, Parser)]
#[command(name = "bygone", version, max_term_width = 120, propagate_version = true)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the repositories, and the cluster known in them
    Init(init::Args),
    /// Show backups, WAL and reachable moments
    Info(info::Args),
    /// Show a past moment as a data directory; without --at and --overlay, all moments, backups and WAL to look into
    Mount(mount::Args),
    /// End a mount
    Umount(mount::UmountArgs),
    /// Run Postgres on past moments, each with its own writes
    Clone(clone::Args),
    /// List a directory of a moment or a backup
    Ls(look::Args),
    /// Print a file of a moment or a backup
    Cat(look::Args),
    /// Say how a page of a moment is rebuilt: from which stored bytes, by which records
    Explain(explain::Args),
    /// Complete the indexes of the archived WAL, from which moments are opened fast
    Index(index::Args),
    /// Take a full backup of the running cluster
    Backup(backup::Args),
    /// Force a WAL segment through archive_command and read it back from every repository
    Check(check::Args),
    /// Archive a WAL file: for archive_command
    ArchivePush(archive_push::Args),
    /// Fetch a WAL file from the archive: for restore_command
    ArchiveGet(archive_get::Args),
    /// Print the completions of a shell, to be sourced by it
    Completions(completions::Args),
}

impl Command {
    fn run(&self, global: &Global) -> anyhow::Result<ExitCode> {
        match self {
            Command::Init(args) => init::run(args, &Context::load(global)?),
            Command::Info(args) => info::run(args, &Context::load(global)?),
            Command::Mount(args) => mount::run(args, &Context::load(global)?),
            Command::Umount(args) => mount::umount(args),
            Command::Clone(args) => clone::run(args, &Context::load(global)?),
            Command::Ls(args) => look::ls(args, &Context::load(global)?),
            Command::Cat(args) => look::cat(args, &Context::load(global)?),
            Command::Explain(args) => explain::run(args, &Context::load(global)?),
            Command::Index(args) => index::run(args, &Context::load(global)?),
            Command::Backup(args) => backup::run(args, &Context::load(global)?),
            Command::Check(args) => check::run(args, &Context::load(global)?),
            Command::ArchivePush(args) => archive_push::run(args, &Context::load(global)?),
            Command::ArchiveGet(args) => archive_get::run(args, &Context::load(global)?),
            Command::Completions(args) => completions::run(args),
        }
    }

    /// The exit code of a run that failed. Postgres takes 1 from a `restore_command` for "not in the archive" and carries on without
    /// the segment; only a code above 125 stops its recovery (`RestoreArchivedFile`, xlogarchive.c).
    fn failure_code(&self) -> u8 {
        match self {
            Command::ArchiveGet(_) => archive_get::FAILURE,
            _ => 1,
        }
    }
}

/// Exit code of a command line that cannot be understood. Above 125, because it may stand in a `restore_command`: a slip of the pen
/// there must stop recovery and not look like the end of the archive.
const USAGE: u8 = 127;

/// Runs the program.
pub fn main() -> ExitCode {
    heap::bound();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(said) => {
            // Help and version go to standard output and are no failure.
            let failed = said.use_stderr();
            return if said.print().is_ok() && !failed { ExitCode::SUCCESS } else { ExitCode::from(USAGE) };
        }
    };
    report::start_logging(cli.global.verbose);
    // A panic would end with 101, which tells a recovering Postgres that the archive ends here.
    let ran = std::panic::catch_unwind(|| cli.command.run(&cli.global));
    ran.unwrap_or_else(|_| Err(anyhow::anyhow!("this is a fault in bygone itself: please report it"))).unwrap_or_else(|error| {
        report::error(&error, cli.global.json);
        ExitCode::from(cli.command.failure_code())
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
