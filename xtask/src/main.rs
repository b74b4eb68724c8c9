//! Every command that a maintainer of ioscope runs: `cargo xtask COMMAND`.
//!
//! One file per command. What they share is small: where the workspace is and how to start another
//! program ([`workspace`]), and how to get a missing Debian package ([`packages`]).

mod bench;
mod build_ebpf;
mod healthy;
mod packages;
mod pictures;
mod test;
mod vm_test;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Bench(bench::Args),
    #[command(hide = true)]
    BenchWorker(bench::WorkerArgs),
    BuildEbpf(build_ebpf::Args),
    Healthy(healthy::Args),
    Pictures(pictures::Args),
    Test(test::Args),
    #[command(hide = true)]
    VmGuest(vm_test::GuestArgs),
    VmTest(vm_test::Args),
    #[command(hide = true)]
    VmUntraced(vm_test::UntracedArgs),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Bench(args) => bench::run_command(&args),
        Command::BenchWorker(args) => bench::run_worker(&args),
        Command::BuildEbpf(args) => build_ebpf::run_command(&args),
        Command::Healthy(args) => healthy::run_command(&args),
        Command::Pictures(args) => pictures::run_command(&args),
        Command::Test(args) => test::run_command(&args),
        Command::VmGuest(args) => vm_test::run_guest(&args),
        Command::VmUntraced(args) => vm_test::run_untraced(&args),
        // The one command whose exit code is not its own.
        Command::VmTest(args) => match vm_test::run_command(&args) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
    };
    // Not `fn main() -> Result`: that prints a backtrace where one is asked for, below a message that
    // says it all.
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
