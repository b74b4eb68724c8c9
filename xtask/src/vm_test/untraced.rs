//! What tracing costs a process that nobody traces, in instructions: `getppid` in this process, while ioscope traces
//! another one.
//!
//! For a machine whose clock counts instructions: there, time is a number of instructions, and the same on every run.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::bench;

/// How long one way is measured, by the machine's clock.
const TIME: Duration = Duration::from_millis(300);

/// What is measured in a guest, which starts it itself
#[derive(clap::Args)]
pub(crate) struct UntracedArgs {
    /// The ioscope to trace with
    ioscope: String,
    /// The ways to hook the wait calls
    ways: Vec<String>,
}

/// Nanoseconds of the machine's clock per call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Untraced {
    pub(super) bare: f64,
    /// By the name of the way; none where ioscope cannot go it.
    pub(super) traced: BTreeMap<String, Option<f64>>,
}

/// Measures, and prints what it found as JSON.
pub(crate) fn run_untraced(args: &UntracedArgs) -> Result<()> {
    // Whoever has just started is still about to come to rest.
    bench::nanoseconds_per_getppid(TIME);
    let mut found = Untraced { bare: bench::nanoseconds_per_getppid(TIME), traced: BTreeMap::new() };
    for way in &args.ways {
        let target = Process(Command::new("sleep").arg("1000").spawn().context("cannot start sleep")?);
        let cost = match trace(&args.ioscope, way, &target) {
            Ok(_tracer) => Some(bench::nanoseconds_per_getppid(TIME)),
            Err(error) => {
                eprintln!("{way}: {error:#}");
                None
            }
        };
        found.traced.insert(way.clone(), cost);
    }
    println!("{}", serde_json::to_string(&found)?);
    Ok(())
}

/// Starts ioscope on the target, and waits until its probes are attached.
fn trace(ioscope: &str, way: &str, target: &Process) -> Result<Process> {
    let child = Command::new(ioscope)
        .args(["stat", "--hooks", way, "--pid", &target.0.id().to_string()])
        .env("IOSCOPE_READY", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut tracer = Process(child.context("cannot start ioscope")?);
    let stderr = tracer.0.stderr.take().context("ioscope's stderr")?;
    let mut said = String::new();
    for line in BufReader::new(stderr).lines() {
        let line = line?;
        if line == "ioscope: ready" {
            return Ok(tracer);
        }
        said.push_str(&line);
    }
    bail!("ioscope does not trace: {said}")
}

/// A process that ends with its owner.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
