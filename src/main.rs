//! The `bygone` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    bygone::cli::main()
}
