//! A process of loops under the control of another: what `ioscope __worker` runs.
//!
//! The protocol, a line at a time:
//!
//! | direction | line | meaning |
//! | --- | --- | --- |
//! | stdout | `{"ready":true,"pid":…,"tids":[…]}` | prepared; `tids` are the loops that sleep in their wait call already |
//! | stdin | any | go |
//! | stdin | any, or its end | stop: only read if a spec does not end by itself |
//! | stdout | a [`Report`](super::Report) | all loops have ended; the main thread has not |
//! | stdin | any, or its end | exit |
//!
//! The main thread makes no wait call of its own, but Rust's start-up does before `main`: one `poll` on the
//! standard fds, with a zero timeout.

use std::io::{self, BufRead, Write};

use serde_json::json;

use super::DemoError;
use super::fleet::Fleet;
use super::scenarios::scenarios;
use super::spec::Spec;

/// The argument that stands for [`scenarios`].
const SCENARIOS: &str = "scenarios";

/// Runs the loops that the first argument describes: the JSON of a [`Spec`] or of an array of them, or the
/// word `scenarios`. Returns when told to over stdin, or when stdin ends.
pub fn worker_main(mut arguments: impl Iterator<Item = String>) -> Result<(), DemoError> {
    let argument = arguments.next().unwrap_or_default();
    let specs = if argument == SCENARIOS {
        // Started as /proc/self/exe, its name would be `exe`. It is a name: should it not be taken, so be it.
        let _ = rustix::thread::set_name(c"ioscope-demo");
        scenarios()
    } else {
        parse(&argument)?
    };
    serve(&specs, &mut io::stdin().lock(), &mut io::stdout().lock())
}

fn parse(json: &str) -> Result<Vec<Spec>, DemoError> {
    if json.trim_start().starts_with('[') {
        Ok(serde_json::from_str(json)?)
    } else {
        Ok(vec![serde_json::from_str(json)?])
    }
}

pub(super) fn serve(
    specs: &[Spec],
    input: &mut dyn BufRead,
    output: &mut dyn Write,
) -> Result<(), DemoError> {
    let mut fleet = Fleet::prepare(specs)?;
    say(output, &json!({ "ready": true, "pid": std::process::id(), "tids": fleet.tids() }).to_string())?;
    if !hear(input)? {
        // Whoever was to say "go" has gone.
        return Ok(());
    }
    fleet.go()?;
    if !specs.iter().all(Spec::is_bounded) {
        hear(input)?;
        fleet.stop();
    }
    let report = fleet.join()?;
    say(output, &serde_json::to_string(&report)?)?;
    hear(input)?;
    Ok(())
}

fn say(output: &mut dyn Write, line: &str) -> Result<(), DemoError> {
    match writeln!(output, "{line}").and_then(|()| output.flush()) {
        // Nobody reads any more: no error, and no reason to stay either, as stdin tells.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(DemoError::io("write to stdout")),
    }
}

/// Whether there was another line.
fn hear(input: &mut dyn BufRead) -> Result<bool, DemoError> {
    let mut line = Vec::new();
    input.read_until(b'\n', &mut line).map(|length| length > 0).map_err(DemoError::io("read stdin"))
}
