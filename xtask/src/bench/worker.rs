//! The process that is measured: this program again, as a hidden subcommand that makes one system
//! call in a loop when it is told to.
//!
//! The parent writes a line, the worker works and answers with a line:
//!
//! | asked | answered |
//! | --- | --- |
//! | `time MILLISECONDS` | nanoseconds per call, the lower quartile of its batches |
//! | `pace CALLS_PER_SECOND MILLISECONDS` | calls per second as reached, calls made |

use std::{
    env,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{report::lower_quartile, sys};

/// Calls in one timed batch: long enough that reading the clock is nothing, short enough that most
/// batches pass without another process on their CPU.
const BATCH: u32 = 1000;
/// At least so many batches, however slow the call is made.
const LEAST_BATCHES: usize = 5;

/// What the worker calls.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum Call {
    /// `epoll_wait` on a descriptor that is always ready
    EpollWait,
    /// `getppid`
    Getppid,
    /// `getppid`, in a thread that makes an `epoll_wait` now and then: in the slices of a loop
    GetppidOfLoop,
}

/// The process that the benchmark measures; it starts it itself
#[derive(clap::Args)]
pub(crate) struct WorkerArgs {
    call: Call,
    /// The CPU to stay on
    cpu: usize,
}

/// The worker's side: serves its parent until stdin ends.
pub(crate) fn run_worker(args: &WorkerArgs) -> Result<()> {
    sys::pin_to_cpu(args.cpu).with_context(|| format!("cannot stay on CPU {}", args.cpu))?;
    let ready = sys::AlwaysReady::new()?;
    match args.call {
        Call::EpollWait => serve(|| ready.wait()),
        Call::Getppid => serve(sys::getppid),
        Call::GetppidOfLoop => {
            let calls = std::cell::Cell::new(0_u32);
            serve(|| {
                if calls.get().is_multiple_of(BATCH) {
                    ready.wait();
                }
                calls.set(calls.get().wrapping_add(1));
                sys::getppid();
            })
        }
    }
}

/// Nanoseconds that a `getppid` of this process takes, measured for about so long.
pub(crate) fn nanoseconds_per_getppid(total: Duration) -> f64 {
    time(&sys::getppid, total)
}

fn serve(call: impl Fn()) -> Result<()> {
    time(&call, Duration::from_millis(50));
    println!("ready");
    for line in std::io::stdin().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["time", milliseconds] => {
                println!("{}", time(&call, Duration::from_millis(milliseconds.parse()?)));
            }
            ["pace", rate, milliseconds] => {
                let (reached, calls) =
                    pace(&call, rate.parse()?, Duration::from_millis(milliseconds.parse()?));
                println!("{reached} {calls}");
            }
            _ => bail!("what is `{line}`?"),
        }
    }
    Ok(())
}

/// Nanoseconds per call: the lower quartile of batches, which run for about `total`. Not their median:
/// on a machine that does other things as well, more than half of them may have shared the CPU.
fn time(call: &impl Fn(), total: Duration) -> f64 {
    let mut batches = Vec::new();
    let start = Instant::now();
    while batches.len() < LEAST_BATCHES || start.elapsed() < total {
        let batch = Instant::now();
        let mut left = BATCH;
        while left > 0 {
            call();
            left -= 1;
        }
        batches.push(batch.elapsed().as_nanos() as f64 / f64::from(BATCH));
    }
    lower_quartile(&batches).unwrap_or(f64::NAN)
}

/// Makes calls at a steady rate, spinning between them. Returns the calls per second that came of
/// it, and the calls.
fn pace(call: &impl Fn(), rate: u32, total: Duration) -> (f64, u64) {
    let gap = 1_000_000_000 / u64::from(rate.max(1));
    let start = Instant::now();
    let nanoseconds = || u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let end = u64::try_from(total.as_nanos()).unwrap_or(u64::MAX);
    let mut calls = 0;
    let mut due = 0;
    loop {
        let mut now = nanoseconds();
        while now < due {
            std::hint::spin_loop();
            now = nanoseconds();
        }
        if now >= end {
            return (calls as f64 / start.elapsed().as_secs_f64(), calls);
        }
        call();
        calls += 1;
        due += gap;
    }
}

/// The parent's side. Dropping it ends the process.
pub(super) struct Worker {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Worker {
    pub(super) fn start(call: Call, cpu: usize) -> Result<Self> {
        let name = match call {
            Call::EpollWait => "epoll-wait",
            Call::Getppid => "getppid",
            Call::GetppidOfLoop => "getppid-of-loop",
        };
        let mut child = Command::new(env::current_exe()?)
            .args(["bench-worker", name, &cpu.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the worker")?;
        let requests = child.stdin.take().context("the worker's stdin")?;
        let answers = BufReader::new(child.stdout.take().context("the worker's stdout")?);
        let mut worker = Self { child, requests, answers };
        let first = worker.answer()?;
        if first != "ready" {
            bail!("the worker said `{first}`");
        }
        Ok(worker)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Nanoseconds per call, measured for about so long.
    pub(super) fn time(&mut self, total: Duration) -> Result<f64> {
        writeln!(self.requests, "time {}", total.as_millis())?;
        Ok(self.answer()?.parse()?)
    }

    /// Calls at a steady rate for so long: calls per second as reached, and calls.
    pub(super) fn pace(&mut self, rate: u32, total: Duration) -> Result<(f64, u64)> {
        writeln!(self.requests, "pace {rate} {}", total.as_millis())?;
        let answer = self.answer()?;
        let (reached, calls) = answer.split_once(' ').context("the worker's answer")?;
        Ok((reached.parse()?, calls.parse()?))
    }

    fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            bail!("the worker ended: {}", self.child.wait()?);
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It would end by itself, its stdin closed; but not while it works.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
