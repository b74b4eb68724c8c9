//! The `ioscope` command.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = ioscope::cli::Cli::parse();
    match ioscope::commands::run(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ioscope: {error:#}");
            ExitCode::FAILURE
        }
    }
}
