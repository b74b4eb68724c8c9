//! One file a command: each wires a source, the model and an output together.

mod demo;
mod doctor;
mod floor;
mod run;
mod stat;
mod trace;
mod ui;
mod wakers;

use std::process::ExitCode;

use anyhow::Result;

use crate::cli::{Cli, Verb};

/// Does what the command line says. The exit code is 0, or a traced command's own.
pub fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        None => ui::run(&cli.ui),
        Some(Verb::Stat(args)) => stat::run(&args),
        Some(Verb::Trace(args)) => trace::run(&args),
        Some(Verb::Doctor(args)) => doctor::run(args),
        Some(Verb::Demo(args)) => demo::run(&args),
        Some(Verb::Floor { clock }) => floor::run(clock),
        Some(Verb::Worker { arguments }) => {
            crate::demo::worker_main(arguments.into_iter())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
