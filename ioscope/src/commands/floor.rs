//! `ioscope __floor`: attaches empty probes and waits for the end of standard input.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::{Context as _, Result};

use crate::probe::Floor;

/// Runs the command.
pub(super) fn run(clock: bool) -> Result<ExitCode> {
    let _floor = Floor::attach(clock).map_err(super::run::with_advice)?;
    let mut out = io::stdout().lock();
    writeln!(out, "ready").and_then(|()| out.flush()).context("standard output cannot be written")?;
    io::copy(&mut io::stdin().lock(), &mut io::sink()).context("standard input cannot be read")?;
    Ok(ExitCode::SUCCESS)
}
