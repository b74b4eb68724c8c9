//! What the terminal UI costs: a frame with a thousand loops, and the time to the first screen.

use std::{
    io::Read as _,
    process::{Command, Stdio},
    thread::Builder,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::event::{PollFd, PollFlags, poll};
use serde_json::Value;

use super::Bench;
use crate::workspace::{cargo, output, root};

/// On the command line.
pub(super) const NAME: &str = "frames";

/// DESIGN's budgets: milliseconds of a frame, MiB of memory, milliseconds to the first screen.
const FRAME_MS: f64 = 5.0;
const MEMORY_MIB: f64 = 60.0;
const FIRST_SCREEN_MS: f64 = 300.0;
/// How often the first screen is waited for; the middle one counts.
const STARTS: usize = 11;
/// The loop that the first screen is to show: a thread of this process that sleeps in `poll`.
const SLEEPER: &str = "sleeping-loop";

/// Measures and prints.
pub(super) fn run(bench: &Bench) -> Result<()> {
    println!("\nthe terminal UI with 1,000 loops, 200×50: milliseconds, median (worst) of 100");
    let text = output(
        Command::new(cargo())
            .args(["run", "--release", "--locked", "--quiet", "--package", "ioscope", "--example", "frames"])
            .current_dir(root()),
    )?;
    let measured: Value = serde_json::from_str(&text).context("what examples/frames.rs printed")?;
    let screens = measured["screens"].as_object().context("it measured no screen")?;
    println!("  {:<10} {:>18} {:>18}", "screen", "a frame", "a batch taken in");
    for (name, times) in screens {
        let pair = |what: &str| {
            let number = |which: &str| times[what][which].as_f64().unwrap_or(f64::NAN);
            (number("median_ms"), number("worst_ms"))
        };
        let ((frame, worst_frame), (batch, worst_batch)) = (pair("frame"), pair("batch"));
        println!(
            "  {name:<10} {:>18} {:>18}{}",
            format!("{frame:.2} ({worst_frame:.2})"),
            format!("{batch:.2} ({worst_batch:.2})"),
            mark(frame, FRAME_MS)
        );
    }
    let kib = |field: &str| measured[field].as_f64().unwrap_or(f64::NAN);
    let memory = (kib("rss_kib") - kib("made_up_kib")) / 1024.0;
    println!("  memory     {memory:.1} MiB{}", mark(memory, MEMORY_MIB));
    let (reader, writer) = std::io::pipe()?;
    let sleeper = Builder::new().name(SLEEPER.to_owned()).spawn(move || {
        let mut fds = [PollFd::new(&reader, PollFlags::IN)];
        poll(&mut fds, None)
    })?;
    let mut times = Vec::new();
    for _ in 0..STARTS {
        times.push(first_screen(bench)?.as_secs_f64() * 1e3);
    }
    drop(writer);
    // A `poll` that fails would be no loop, and the first screen would not have come.
    let _ = sleeper.join();
    times.sort_by(f64::total_cmp);
    let median = times[STARTS / 2];
    println!(
        "  --pid to the first screen with its loop: {median:.0} ms (of {STARTS}: {:.0} to {:.0}){}",
        times[0],
        times[STARTS - 1],
        mark(median, FIRST_SCREEN_MS)
    );
    Ok(())
}

fn mark(value: f64, budget: f64) -> String {
    if value <= budget { format!("   ≤ {budget}") } else { format!("   OVER {budget}") }
}

/// From the start of `ioscope --pid` to the frame that has the sleeping loop's row, on a terminal of `script`'s;
/// the start of `script`, a shell and `stty` is part of it.
fn first_screen(bench: &Bench) -> Result<Duration> {
    let command =
        format!("stty rows 40 cols 120; exec {} --pid {}", bench.ioscope.display(), std::process::id());
    let start = Instant::now();
    let mut child = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("script (of bsdutils) is wanted for a terminal")?;
    let mut out = child.stdout.take().context("piped")?;
    let (mut seen, mut bytes) = (Vec::new(), [0; 4096]);
    let elapsed = loop {
        let read = out.read(&mut bytes)?;
        if read == 0 {
            bail!("no screen came: {}", String::from_utf8_lossy(&seen));
        }
        seen.extend_from_slice(&bytes[..read]);
        if String::from_utf8_lossy(&seen).contains(SLEEPER) {
            break start.elapsed();
        }
    };
    let input = child.stdin.take().context("piped")?;
    std::io::Write::write_all(&mut &input, b"q")?;
    std::thread::spawn(move || out.read_to_end(&mut Vec::new()));
    child.wait()?;
    Ok(elapsed)
}
