//! What a loop does between two wait calls: a known amount of CPU, or a sleep in a known system call.

use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::thread::{NanosleepRelativeResult, Timespec, futex};

use super::DemoError;
use super::poller::EventFd;
use super::spec::{Slice, Spec, Work};
use super::sys::{ColdFile, SlowPage};
use super::tally::{Tally, thread_cpu};

/// A pipe, and the way to ask its feeder for a byte: so many nanoseconds from now.
pub(super) struct Feed {
    pub(super) request: EventFd,
    pub(super) reader: OwnedFd,
    pub(super) writer: OwnedFd,
}

impl Feed {
    /// None if `spec` has no work that reads from a pipe.
    pub(super) fn new(spec: &Spec) -> Result<Option<Self>, DemoError> {
        if !spec.work.iter().any(|slice| matches!(slice.work, Work::PipeRead { .. })) {
            return Ok(None);
        }
        let (reader, writer) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(DemoError::system("pipe2"))?;
        Ok(Some(Self { request: EventFd::blocking()?, reader, writer }))
    }
}

/// One loop's work.
pub(super) struct Worker<'a> {
    slices: Vec<(Slice, Option<Instant>)>,
    turn: u64,
    feed: Option<&'a Feed>,
    file: Option<TemporaryFile>,
    cold: Option<ColdFile>,
}

impl<'a> Worker<'a> {
    pub(super) fn new(spec: &Spec, feed: Option<&'a Feed>) -> Result<Self, DemoError> {
        let writes = spec.work.iter().any(|slice| matches!(slice.work, Work::Fsync { .. }));
        let file = if writes { Some(TemporaryFile::new()?) } else { None };
        let most_pages = spec.work.iter().filter_map(|slice| match slice.work {
            Work::PageStorm { pages } => Some(pages),
            _ => None,
        });
        let cold = most_pages.max().map(cold_file).transpose()?;
        // What happens each so often does not happen at once.
        let now = Instant::now();
        let slices = spec.work.iter().map(|&slice| (slice, (slice.every_ns > 0).then_some(now))).collect();
        Ok(Self { slices, turn: 0, feed, file, cold })
    }

    /// Does what is due after this return of the wait call.
    pub(super) fn run(&mut self, tally: &mut Tally) -> Result<(), DemoError> {
        self.turn += 1;
        for index in 0..self.slices.len() {
            let (slice, last) = &mut self.slices[index];
            if !self.turn.is_multiple_of(slice.every) {
                continue;
            }
            let work = slice.work;
            if let Some(last) = last {
                if last.elapsed() < Duration::from_nanos(slice.every_ns) {
                    continue;
                }
                *last = Instant::now();
            }
            self.perform(work, tally)?;
        }
        Ok(())
    }

    fn perform(&mut self, work: Work, tally: &mut Tally) -> Result<(), DemoError> {
        match work {
            Work::Burn { ns } => {
                tally.burn(|| burn(Duration::from_nanos(ns)));
                Ok(())
            }
            Work::ParseJson { ns } => {
                tally.burn(|| {
                    black_box(demo_parse_large_json(Duration::from_nanos(ns)));
                });
                Ok(())
            }
            Work::Nanosleep { ns } => {
                tally.block("nanosleep", || nanosleep(Duration::from_nanos(ns)));
                Ok(())
            }
            Work::SleepInHandler { ns } => {
                tally.block("nanosleep", || demo_sleep_in_handler(Duration::from_nanos(ns)));
                Ok(())
            }
            Work::Fsync { bytes } => match &mut self.file {
                Some(file) => file.write_and_sync(bytes, tally),
                None => Ok(()),
            },
            Work::Futex { ns } => tally.block("futex", || futex_wait(Duration::from_nanos(ns))),
            Work::Mutex { ns } => wait_for_mutex(Duration::from_nanos(ns), tally),
            Work::PageFault { ns } => wait_for_page(Duration::from_nanos(ns), tally),
            Work::PageStorm { .. } => match &self.cold {
                Some(cold) => {
                    cold.evict().map_err(DemoError::system("posix_fadvise"))?;
                    tally.block("page fault", || black_box(cold.demo_touch_pages()));
                    Ok(())
                }
                None => Ok(()),
            },
            Work::PipeRead { ns } => match self.feed {
                Some(feed) => {
                    feed.request.add(ns.max(1))?;
                    tally.block("read", || read_byte(&feed.reader))
                }
                None => Ok(()),
            },
        }
    }
}

/// A file with no name left, in the directory for temporary files.
struct TemporaryFile(File);

impl TemporaryFile {
    fn new() -> Result<Self, DemoError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("ioscope-demo-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        let file = File::create_new(&path).map_err(DemoError::io("create a temporary file"))?;
        std::fs::remove_file(&path).map_err(DemoError::io("unlink a temporary file"))?;
        Ok(Self(file))
    }

    fn write_and_sync(&mut self, bytes: u32, tally: &mut Tally) -> Result<(), DemoError> {
        let content = vec![b'x'; bytes as usize];
        self.0.write_all(&content).map_err(DemoError::io("write a temporary file"))?;
        tally.block("fsync", || self.0.sync_all()).map_err(DemoError::io("fsync"))
    }
}

/// Uses so much CPU time of the calling thread. The clock is a system call, so it is read only now and then.
#[inline(never)]
fn burn(cpu: Duration) {
    let start = thread_cpu();
    let mut state = 1_u64;
    while thread_cpu().saturating_sub(start) < cpu {
        for _ in 0..2_000 {
            state = black_box(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
    }
}

/// A stall by computing, to be found by name in a stall's stack: scans one JSON document over and over until
/// it has used `cpu` of CPU time. The depth of the document.
#[inline(never)]
pub fn demo_parse_large_json(cpu: Duration) -> u32 {
    const DOCUMENT: &[u8] =
        br#"{"items":[{"id":1,"name":"a \"quoted\" name","tags":["x","y",{"z":[1,2,3]}],"price":1.25}]}"#;
    let start = thread_cpu();
    let mut deepest = 0;
    while thread_cpu().saturating_sub(start) < cpu {
        for _ in 0..50 {
            let document = black_box(DOCUMENT);
            let (mut depth, mut index, mut in_string) = (0_u32, 0, false);
            // One flat loop: wherever a sample lands, it lands in this function.
            while index < document.len() {
                match (document[index], in_string) {
                    (b'\\', true) => index += 1,
                    (b'"', _) => in_string = !in_string,
                    (b'{' | b'[', false) => depth += 1,
                    (b'}' | b']', false) => depth -= 1,
                    _ => {}
                }
                if depth > deepest {
                    deepest = depth;
                }
                index += 1;
            }
        }
    }
    deepest
}

/// A stall in a blocking call, to be found by name in a stall's stack: sleeps in `nanosleep`.
#[inline(never)]
pub fn demo_sleep_in_handler(duration: Duration) {
    nanosleep(duration);
    // Keeps the call above from becoming a jump, which would leave no frame of this function.
    black_box(());
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

/// Sleeps in `nanosleep`: std's sleep is `clock_nanosleep`.
fn nanosleep(duration: Duration) {
    let mut rest = timespec(duration);
    while let NanosleepRelativeResult::Interrupted(left) = rustix::thread::nanosleep(&rest) {
        rest = left;
    }
}

fn futex_wait(duration: Duration) -> Result<(), DemoError> {
    let word = AtomicU32::new(0);
    let until = Instant::now() + duration;
    loop {
        let rest = timespec(until.saturating_duration_since(Instant::now()));
        match futex::wait(&word, futex::Flags::PRIVATE, 0, Some(&rest)) {
            Err(Errno::TIMEDOUT) => return Ok(()),
            Ok(()) | Err(Errno::INTR | Errno::AGAIN) => {}
            Err(errno) => return Err(DemoError::system("futex")(errno)),
        }
    }
}

/// Has another thread take a mutex, and waits until it gives it back.
fn wait_for_mutex(held: Duration, tally: &mut Tally) -> Result<(), DemoError> {
    let mutex = Mutex::new(());
    let is_held = AtomicBool::new(false);
    thread::scope(|scope| {
        thread::Builder::new()
            .name("demo-holder".to_owned())
            .spawn_scoped(scope, || {
                let guard = mutex.lock();
                is_held.store(true, Ordering::Release);
                thread::sleep(held);
                drop(guard);
            })
            .map_err(DemoError::io("start a thread"))?;
        while !is_held.load(Ordering::Acquire) {
            thread::yield_now();
        }
        tally.block("futex", || demo_lock(&mutex));
        Ok(())
    })
}

/// A stall by a lock, to be found by name in a stall's stack.
#[inline(never)]
fn demo_lock(mutex: &Mutex<()>) {
    drop(mutex.lock());
    black_box(());
}

/// Touches a page that another thread hands over later.
fn wait_for_page(after: Duration, tally: &mut Tally) -> Result<(), DemoError> {
    let page = SlowPage::new().map_err(DemoError::system("userfaultfd"))?;
    thread::scope(|scope| {
        let giver = thread::Builder::new()
            .name("demo-pages".to_owned())
            .spawn_scoped(scope, || page.hand_over(after))
            .map_err(DemoError::io("start a thread"))?;
        tally.block("page fault", || black_box(page.touch()));
        giver.join().map_err(|_| DemoError::Panicked)?.map_err(DemoError::system("ioctl of userfaultfd"))
    })
}

/// A mapped file of so many pages.
fn cold_file(pages: u32) -> Result<ColdFile, DemoError> {
    let TemporaryFile(mut file) = TemporaryFile::new()?;
    let page = vec![b'x'; rustix::param::page_size()];
    for _ in 0..pages {
        file.write_all(&page).map_err(DemoError::io("write a temporary file"))?;
    }
    file.sync_all().map_err(DemoError::io("fsync"))?;
    ColdFile::new(file, pages).map_err(DemoError::system("mmap"))
}

fn read_byte(reader: &OwnedFd) -> Result<(), DemoError> {
    let mut byte = [0];
    loop {
        match rustix::io::read(reader, &mut byte) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(DemoError::system("read of a pipe")(errno)),
        }
    }
}
