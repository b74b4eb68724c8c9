//! One file a command: each wires a source, the model and an output together.

mod config;
mod demo;
mod doctor;
mod failure;
mod floor;
mod logging;
mod run;
mod stack_files;
mod stat;
mod trace;
mod ui;
mod wakers;

use std::process::ExitCode;

use anyhow::Result;

use crate::cli::{Cli, Verb};

/// Does what the command line says, and tells on standard error what went wrong. The exit code is
///
/// - 0 when all was done, or a traced command's own: its status, or 128 and the signal that ended it;
/// - 1 when ioscope failed;
/// - 2 when the command line makes no sense;
/// - 126 when a command to be traced cannot be run, 127 when it is not there.
pub fn run(cli: Cli) -> ExitCode {
    dispatch(cli).unwrap_or_else(|error| {
        eprintln!("ioscope: {}", failure::message(&error));
        failure::exit_code(&error)
    })
}

fn dispatch(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        None => ui::run(&cli.ui),
        Some(Verb::Stat(args)) => stat::run(&args),
        Some(Verb::Trace(args)) => trace::run(&args),
        Some(Verb::Doctor(args)) => doctor::run(args),
        Some(Verb::Demo(args)) => demo::run(&args),
        Some(Verb::Config(args)) => config::run(&args),
        Some(Verb::Floor { clock }) => floor::run(clock),
        Some(Verb::Worker { arguments }) => {
            crate::demo::worker_main(arguments.into_iter())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
