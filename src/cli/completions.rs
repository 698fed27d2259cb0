//! `completions`: what a shell needs to complete our command line.

use std::process::ExitCode;

use clap::CommandFactory as _;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The shell
    shell: clap_complete::Shell,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), "bygone", &mut script);
    super::report::print(&String::from_utf8(script)?);
    Ok(ExitCode::SUCCESS)
}
