//! Loops that run together: started, let go, stopped, and reported on as one.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::mm::{MlockAllFlags, mlockall};

use super::DemoError;
use super::driver::{self, Driver};
use super::fdset::new_epoll;
use super::looping::{Looping, Station};
use super::poller::{EventFd, Sources};
use super::report::{Report, ThreadReport};
use super::spec::{Pattern, Spec, Start};
use super::sys;
use super::turns::Turns;

/// How long a loop may take until it sleeps in its wait call.
const SETTLING: Duration = Duration::from_secs(10);

/// The loops of one spec.
struct Group {
    spec: Arc<Spec>,
    stations: Vec<Arc<Station>>,
    /// Not started yet.
    waiting: Vec<Looping>,
    /// Started.
    running: Vec<JoinHandle<Result<ThreadReport, DemoError>>>,
}

/// Loops that were prepared, and run once told to [`go`](Self::go).
///
/// Dropped without [`join`](Self::join), the loops stop on their own time.
pub struct Fleet {
    groups: Vec<Group>,
    drivers: Vec<Driver>,
    stop: Arc<AtomicBool>,
    started: Option<Instant>,
}

/// Runs one spec, which must end by itself, from start to report.
pub fn run(spec: &Spec) -> Result<Report, DemoError> {
    if !spec.is_bounded() {
        return Err(DemoError::Spec("neither iterations nor duration_ns: it would never end".to_owned()));
    }
    let mut fleet = Fleet::prepare(std::slice::from_ref(spec))?;
    fleet.go()?;
    fleet.join()
}

impl Fleet {
    /// Checks the specs, and starts the threads that are to sleep in their wait call before "go": when this
    /// returns, they do.
    pub fn prepare(specs: &[Spec]) -> Result<Self, DemoError> {
        let mut fleet = Self {
            groups: Vec::new(),
            drivers: Vec::new(),
            stop: Arc::new(AtomicBool::new(false)),
            started: None,
        };
        if specs.iter().any(|spec| spec.count_sleeps) {
            // A page of the program that is not there when its first wait call needs it may make the thread sleep
            // before the call. Where this is not allowed, it is rare all the same.
            let _ = mlockall(MlockAllFlags::CURRENT);
        }
        for spec in specs {
            spec.check()?;
            let group = fleet.group(spec)?;
            fleet.groups.push(group);
        }
        for index in 0..fleet.groups.len() {
            if fleet.groups[index].spec.start == Start::BeforeGo {
                fleet.start(index)?;
            }
        }
        fleet.settle()?;
        Ok(fleet)
    }

    fn group(&self, spec: &Spec) -> Result<Group, DemoError> {
        let spec = Arc::new(spec.clone());
        let is_shared = spec.is_shared();
        // Sharing threads each take one token at "go"; otherwise a read is to empty the source.
        let is_semaphore = is_shared && spec.pattern != Pattern::TakeTurns;
        let sources = || -> Result<Sources, DemoError> {
            (0..spec.fds).map(|_| EventFd::nonblocking(is_semaphore)).collect()
        };
        let common = if is_shared { Some(sources()?) } else { None };
        let epoll = match &common {
            Some(sources) => Some(Arc::new(new_epoll(sources)?)),
            None => None,
        };
        let turns = (spec.pattern == Pattern::TakeTurns).then(|| Arc::new(Turns::default()));
        let meeting = is_shared.then(|| Arc::new(Barrier::new(spec.threads as usize)));
        let (mut stations, mut waiting) = (Vec::new(), Vec::new());
        for index in 0..spec.threads {
            let own = match &common {
                Some(sources) => Arc::clone(sources),
                None => sources()?,
            };
            let station = Arc::new(Station::new(&spec, own)?);
            stations.push(Arc::clone(&station));
            waiting.push(Looping {
                spec: Arc::clone(&spec),
                index,
                station,
                stop: Arc::clone(&self.stop),
                epoll: epoll.clone(),
                turns: turns.clone(),
                meeting: meeting.clone(),
            });
        }
        Ok(Group { spec, stations, waiting, running: Vec::new() })
    }

    /// Starts the loops of a group.
    fn start(&mut self, index: usize) -> Result<(), DemoError> {
        for looping in std::mem::take(&mut self.groups[index].waiting) {
            let handle = thread::Builder::new()
                .name(looping.spec.comm(looping.index))
                .spawn(move || looping.run())
                .map_err(DemoError::io("start a thread"))?;
            self.groups[index].running.push(handle);
        }
        Ok(())
    }

    /// Waits until every loop that runs sleeps in its wait call (of those that take turns: or in futex).
    fn settle(&mut self) -> Result<(), DemoError> {
        let deadline = Instant::now() + SETTLING;
        while !self.groups.iter().all(Group::is_settled) {
            let mut running = self.groups.iter().flat_map(|group| &group.running);
            if running.any(JoinHandle::is_finished) || Instant::now() >= deadline {
                self.release();
                for group in &mut self.groups {
                    for handle in group.running.extract_if(.., |handle| handle.is_finished()) {
                        handle.join().map_err(|_| DemoError::Panicked)??;
                    }
                }
                return Err(DemoError::Spec("a loop did not come to sleep in its wait call".to_owned()));
            }
            thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    /// The loop threads that run already.
    pub fn tids(&self) -> Vec<i32> {
        let stations = self.groups.iter().flat_map(|group| &group.stations);
        stations.map(|station| station.tid.load(Ordering::Acquire)).filter(|&tid| tid != 0).collect()
    }

    /// Starts the loops, and the threads that drive them.
    pub fn go(&mut self) -> Result<(), DemoError> {
        self.started = Some(Instant::now());
        for index in 0..self.groups.len() {
            // Those that take turns wait for their ticker.
            if self.groups[index].spec.pattern != Pattern::TakeTurns {
                self.groups[index].open()?;
            }
            self.start(index)?;
            let group = &self.groups[index];
            let drivers = driver::start(&group.spec, &group.stations)?;
            self.drivers.extend(drivers);
        }
        Ok(())
    }

    /// Tells the loops to end after the wait call that they are in.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Stops, and lets go those that have not been yet.
    fn release(&self) {
        self.stop();
        if self.started.is_none() {
            // A gate that cannot be opened leaves a thread asleep: nothing more can be done for it.
            self.groups.iter().for_each(|group| drop(group.open()));
        }
    }

    /// Waits for the loops to end, and reports.
    pub fn join(mut self) -> Result<Report, DemoError> {
        if self.started.is_none() {
            self.release();
        }
        let started = self.started.unwrap_or_else(Instant::now);
        let mut threads = Vec::new();
        let mut failure = None;
        for handle in std::mem::take(&mut self.groups).into_iter().flat_map(|group| group.running) {
            match handle.join().map_err(|_| DemoError::Panicked).flatten() {
                Ok(report) => threads.push(report),
                Err(error) => {
                    self.stop();
                    failure = failure.or(Some(error));
                }
            }
        }
        let wall_ns = sys::nanoseconds(started.elapsed());
        let mut drivers = Vec::new();
        for handle in std::mem::take(&mut self.drivers) {
            match handle.join().map_err(|_| DemoError::Panicked).flatten() {
                Ok(report) => drivers.push(report),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(Report { pid: std::process::id(), wall_ns, threads, drivers }),
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.release();
    }
}

impl Group {
    /// Ends the sleep of the loops that were started before "go".
    fn open(&self) -> Result<(), DemoError> {
        if self.spec.start == Start::AfterGo {
            return Ok(());
        }
        if self.spec.is_shared() {
            // All tokens at once: one after the other, a thread could be woken by a token that is gone by the
            // time it reads, and return twice.
            return match self.stations.first() {
                Some(station) => station.sources[0].add(u64::from(self.spec.threads)),
                None => Ok(()),
            };
        }
        self.stations.iter().try_for_each(|station| station.sources[0].add(1))
    }

    fn is_settled(&self) -> bool {
        let call = sys::number(self.spec.call);
        let park = (self.spec.pattern == Pattern::TakeTurns).then_some(libc::SYS_futex);
        self.spec.start == Start::AfterGo
            || self.stations.iter().all(|station| match station.tid.load(Ordering::Acquire) {
                0 => false,
                tid => sleeping_in(tid).is_some_and(|number| Some(number) == call || Some(number) == park),
            })
    }
}

/// The number of the system call that a thread of this process sleeps in.
fn sleeping_in(tid: i32) -> Option<i64> {
    let line = fs::read_to_string(format!("/proc/self/task/{tid}/syscall")).ok()?;
    line.split_whitespace().next()?.parse().ok()
}
