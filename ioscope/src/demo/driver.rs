//! The threads that keep loops busy: they wake, answer, interrupt and feed them.
//!
//! None of them makes a wait call: they sleep in `clock_nanosleep` and in blocking reads, so that no tracer
//! takes them for loops.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::io::Errno;

use super::DemoError;
use super::looping::Station;
use super::report::DriverReport;
use super::spec::{Pattern, Spec};
use super::sys;

/// A driver that is running.
pub(super) type Driver = JoinHandle<Result<DriverReport, DemoError>>;

/// Starts the drivers that the loops of `spec` need. They end when the loops have.
pub(super) fn start(spec: &Spec, stations: &[Arc<Station>]) -> Result<Vec<Driver>, DemoError> {
    let period = Duration::from_nanos(spec.period_ns);
    let mut drivers = Vec::new();
    let all = stations.to_vec();
    match spec.pattern {
        Pattern::PingPong => {
            for station in stations {
                let station = Arc::clone(station);
                drivers.push(spawn("demo-pong", move || answer(&station, period))?);
            }
        }
        // One set of sources for all.
        Pattern::Ticker if spec.is_shared() => {
            drivers.push(spawn("demo-ticker", move || tick(&all, &all[..1], period))?);
        }
        Pattern::Ticker => drivers.push(spawn("demo-ticker", move || tick(&all, &all, period))?),
        // One set of sources for all.
        Pattern::TakeTurns => drivers.push(spawn("demo-ticker", move || tick(&all, &all[..1], period))?),
        Pattern::Interrupted => {
            sys::install_handler().map_err(DemoError::system("sigaction"))?;
            drivers.push(spawn("demo-signals", move || interrupt(&all, period))?);
        }
        _ => {}
    }
    for station in stations.iter().filter(|station| station.feed.is_some()) {
        let station = Arc::clone(station);
        drivers.push(spawn("demo-feeder", move || feed(&station))?);
    }
    Ok(drivers)
}

fn spawn(
    comm: &'static str,
    drive: impl FnOnce() -> Result<(), DemoError> + Send + 'static,
) -> Result<Driver, DemoError> {
    thread::Builder::new()
        .name(comm.to_owned())
        .spawn(move || {
            let tid = rustix::thread::gettid().as_raw_nonzero().get();
            drive().map(|()| DriverReport { tid, comm: comm.to_owned() })
        })
        .map_err(DemoError::io("start a thread"))
}

fn are_done(stations: &[Arc<Station>]) -> bool {
    stations.iter().all(|station| station.is_done.load(Ordering::Acquire))
}

/// Makes all sources of `ticked` ready each `period`.
fn tick(stations: &[Arc<Station>], ticked: &[Arc<Station>], period: Duration) -> Result<(), DemoError> {
    while !are_done(stations) {
        thread::sleep(period);
        for source in ticked.iter().flat_map(|station| station.sources.iter()) {
            source.add(1)?;
        }
    }
    Ok(())
}

/// Answers each request, `delay` later.
fn answer(station: &Station, delay: Duration) -> Result<(), DemoError> {
    loop {
        station.request.take()?;
        if station.is_done.load(Ordering::Acquire) {
            return Ok(());
        }
        thread::sleep(delay);
        station.sources[0].add(1)?;
    }
}

/// Sends each loop a signal each `period`.
fn interrupt(stations: &[Arc<Station>], period: Duration) -> Result<(), DemoError> {
    while !are_done(stations) {
        thread::sleep(period);
        for station in stations {
            let is_under_way = station.is_under_way.load(Ordering::Acquire);
            if !is_under_way || station.is_done.load(Ordering::Acquire) {
                continue;
            }
            match sys::interrupt(station.tid.load(Ordering::Acquire)) {
                // It may have ended since.
                Ok(()) | Err(Errno::SRCH) => {}
                Err(errno) => return Err(DemoError::system("tgkill")(errno)),
            }
        }
    }
    Ok(())
}

/// Writes a byte to the loop's pipe, as late as it asked for.
fn feed(station: &Station) -> Result<(), DemoError> {
    let Some(feed) = &station.feed else { return Ok(()) };
    loop {
        let delay = feed.request.take()?.unwrap_or(0);
        if station.is_done.load(Ordering::Acquire) {
            return Ok(());
        }
        thread::sleep(Duration::from_nanos(delay));
        rustix::io::write(&feed.writer, b"x").map_err(DemoError::system("write to a pipe"))?;
    }
}
