//! `cargo xtask test`: every test of the workspace, with what the tests need.

use std::process::Command;

use anyhow::Result;

use crate::{
    packages::{self, Package},
    workspace::{cargo, root, run},
};

/// What tests start or compare with. A test that misses one says so and is skipped.
const NEEDED: &[Package] = &[
    Package { name: "strace", provides: "strace", why: "a second opinion on what a process called" },
    Package { name: "bpftrace", provides: "bpftrace", why: "a second opinion on what a process called" },
    Package { name: "gdb", provides: "gdb", why: "a second opinion on stacks" },
];

/// Servers that the tests trace. Debian starts a server when it installs it, so that only a build machine
/// gets them unasked; elsewhere a test that misses one says so and is skipped. The other programs that the
/// tests know (node, Go, Java, haproxy) are traced where they happen to be.
const SERVERS: &[Package] = &[
    Package {
        name: "redis-server",
        provides: "redis-server",
        why: "a loop with a timer, under redis-benchmark",
    },
    Package { name: "nginx-light", provides: "/usr/sbin/nginx", why: "a loop in each of several processes" },
    Package { name: "memcached", provides: "memcached", why: "libevent's loops, in several threads" },
    Package { name: "wrk", provides: "wrk", why: "nginx's load" },
];

/// Run every test of the workspace
///
/// As root the tests on the real kernel are real: they load the probes and trace processes of their
/// own. Otherwise they are skipped, and say so. As root on Debian, what tests need and the machine
/// lacks is installed first.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Install nothing, even where that is possible
    #[arg(long)]
    no_install: bool,
    /// Handed to `cargo test --workspace`: `cargo xtask test --package ioscope`
    #[arg(allow_hyphen_values = true, value_name = "CARGO_TEST_ARGUMENT")]
    for_cargo: Vec<String>,
    /// Handed to the test programs: `cargo xtask test -- --nocapture`
    #[arg(last = true, value_name = "TEST_ARGUMENT")]
    for_tests: Vec<String>,
}

/// Installs what is missing if that is possible, says what stays missing, and runs the tests.
pub(crate) fn run_command(args: &Args) -> Result<()> {
    prepare(args.no_install);
    let mut command = Command::new(cargo());
    command.args(["test", "--workspace", "--locked"]).args(&args.for_cargo).current_dir(root());
    if !args.for_tests.is_empty() {
        command.arg("--").args(&args.for_tests);
    }
    run(&mut command)
}

fn prepare(no_install: bool) {
    let install = |wanted: &[Package]| {
        if let Err(error) = packages::install(&wanted.iter().collect::<Vec<_>>()) {
            eprintln!("{error:#}");
        }
    };
    if !no_install && packages::can_install() {
        install(NEEDED);
    }
    if !no_install && packages::may_install_unasked() {
        install(SERVERS);
    }
    for package in NEEDED.iter().chain(SERVERS).filter(|package| !package.is_there()) {
        eprintln!("{} is missing ({}): tests that need it are skipped", package.name, package.why);
    }
    if !packages::is_root() {
        eprintln!("not root: tests that load the probes are skipped; `sudo -E cargo xtask test` runs them");
    }
}
