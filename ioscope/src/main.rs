//! The `ioscope` command.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    ioscope::commands::run(ioscope::cli::Cli::parse())
}
