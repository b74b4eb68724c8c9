//! The `ioscope` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    ioscope::commands::run(ioscope::cli::Cli::read())
}
