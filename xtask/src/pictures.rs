//! `cargo xtask pictures`: draws the README's pictures from the real views of fixed states.
//!
//! The drawing itself is a test of ioscope's (`tui::tests::pictures`), so that every test run notices when
//! they are stale.

use std::process::Command;

use anyhow::Result;

use crate::workspace::{cargo, root, run};

/// Draw the README's pictures anew
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only tell whether they are what would be drawn
    #[arg(long)]
    check: bool,
}

pub(crate) fn run_command(args: &Args) -> Result<()> {
    let mut command = Command::new(cargo());
    command
        .args(["test", "--locked", "--quiet", "--package", "ioscope", "--lib", "tui::tests::pictures"])
        .current_dir(root());
    if args.check {
        command.env_remove("IOSCOPE_BLESS");
    } else {
        command.env("IOSCOPE_BLESS", "1");
    }
    run(&mut command)
}
