//! Ready delay: events that come while the loop is busy, for a time that the loop itself measures.
//!
//! The loop is a process of its own. A second thread of it makes a file ready at a moment that it notes, while the loop
//! spins; the loop notes when the wait call that returns the event has returned.

mod support;

use std::cell::RefCell;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use io_uring::{IoUring, opcode, types};
use ioscope::model::LoopModel;
use ioscope::probe::hooks::{EPOLL_READINESS, FENTRY, RING_READINESS};
use ioscope_common::{Iteration, NO_WAKEUP};
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::io::{read, write};
use rustix::pipe::pipe;

use support::expect::brief;
use support::helper::{Helper, is_helper, listen, speak};
use support::tracer::{Tracer, streaming};

/// How often an event comes while the loop is busy.
const TURNS: u64 = 20;
/// How long it is busy.
const BUSY: Duration = Duration::from_millis(24);
/// When the event comes in that time.
const AFTER: Duration = Duration::from_millis(6);
/// Room for the iterations of all turns.
const STREAM_BYTES: u32 = 64 << 10;

/// What a loop says of its events: for how long they waited in all. A moment can be noted only before and after it, and
/// where much else runs, time passes between: so it says what it was at least and at most.
#[derive(Debug)]
struct Told {
    at_least: Duration,
    at_most: Duration,
    /// The first event, which came when nobody knew yet that this is a loop: at most.
    first: Duration,
}

/// Between which moments a file became ready.
struct Became {
    not_before: Instant,
    not_after: Instant,
}

/// Makes a file ready when it is told to, and says when it did.
struct Partner {
    begin: Sender<()>,
    done: Receiver<Became>,
}

impl Partner {
    fn start(mut make_ready: impl FnMut() + Send + 'static) -> Self {
        let (begin, told) = channel();
        let (tell, done) = channel();
        std::thread::spawn(move || {
            while told.recv().is_ok() {
                std::thread::sleep(AFTER);
                let not_before = Instant::now();
                make_ready();
                if tell.send(Became { not_before, not_after: Instant::now() }).is_err() {
                    return;
                }
            }
        });
        Self { begin, done }
    }
}

/// In the helper: the loop. `wait` is its wait call, which returns with the event, and takes it.
fn be_busy(partner: &Partner, wait: impl FnMut()) {
    be_busy_or_look(partner, None::<fn() -> bool>, wait);
}

/// The same, of a loop that can see for itself when its event is there. If it has not seen it when it begins to wait, the
/// event comes then: older kernels have the loop's own thread post a completion, at the next occasion, which any system
/// call is.
fn be_busy_or_look(partner: &Partner, mut is_there: Option<impl FnMut() -> bool>, mut wait: impl FnMut()) {
    let (mut at_least, mut at_most, mut first) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    for turn in 0..=TURNS {
        partner.begin.send(()).expect("it listens");
        let start = Instant::now();
        let (mut not_before, mut not_after) = (start, None);
        let mut now = start;
        while now - start < BUSY {
            std::hint::spin_loop();
            if not_after.is_none() && is_there.as_mut().is_some_and(|is_there| is_there()) {
                not_after = Some(Instant::now());
            }
            if not_after.is_none() {
                not_before = now;
            }
            now = Instant::now();
        }
        let made_ready = partner.done.recv().expect("it answers");
        if is_there.is_none() {
            (not_before, not_after) = (made_ready.not_before, Some(made_ready.not_after));
        }
        let began = Instant::now();
        wait();
        if turn == 0 {
            // Before the first wait call.
            first = not_before.elapsed();
        } else {
            at_least += not_after.map_or(Duration::ZERO, |at| began - at);
            at_most += not_before.elapsed();
        }
    }
    speak(&format!("{} {} {}", at_least.as_nanos(), at_most.as_nanos(), first.as_nanos()));
    listen();
}

/// In the helper: a loop on an epoll instance that watches a file.
fn be_busy_on_epoll(file: impl AsFd, make_ready: impl FnMut() + Send + 'static, mut take: impl FnMut()) {
    let poller = epoll::create(epoll::CreateFlags::CLOEXEC).expect("an epoll instance");
    epoll::add(&poller, file, epoll::EventData::new_u64(0), epoll::EventFlags::IN).expect("it is watched");
    be_busy(&Partner::start(make_ready), || {
        wait_on(&poller);
        take();
    });
}

fn wait_on(poller: &OwnedFd) {
    let mut events = Vec::with_capacity(4);
    epoll::wait(poller, rustix::buffer::spare_capacity(&mut events), None).expect("an event comes");
    assert_eq!(events.len(), 1);
}

/// What came of a helper's loop.
struct Run {
    model: LoopModel,
    iterations: Vec<Iteration>,
    told: Told,
}

/// Has a helper's loop traced; `None` where this kernel does not tell what is needed, or nothing may be traced.
fn run(helper: &str, is_told: impl Fn(&Tracer) -> bool) -> Option<Run> {
    let mut helper = Helper::start(helper);
    let mut tracer = Tracer::start(&streaming(&[helper.id()], STREAM_BYTES))?;
    if !is_told(&tracer) {
        support::ioscope::say("SKIPPED: no hook of this kernel tells when such a file becomes ready");
        return None;
    }
    helper.say();
    let answer = helper.answer();
    let mut numbers = answer.split_whitespace().map(|number| number.parse().expect("nanoseconds"));
    let mut next = || Duration::from_nanos(numbers.next().unwrap_or(0));
    let told = Told { at_least: next(), at_most: next(), first: next() };
    tracer.finish();
    let model = tracer.model.loops().max_by_key(|model| model.stats.iterations()).expect("a loop").clone();
    helper.say();
    helper.end();
    let iterations = tracer.iterations.remove(&model.id).unwrap_or_default();
    Some(Run { model, iterations, told })
}

/// The delays that were measured are those that the loop has seen.
fn compare(helper: &str, is_told: impl Fn(&Tracer) -> bool) {
    let Some(Run { model, told, .. }) = run(helper, &is_told) else { return };
    let delay = &model.stats.ready_delay;
    // The first event came before the loop was known to be one; older kernels post its completion late.
    let unknown = model.stats.counters.ready_unknown;
    assert!(unknown <= 1 && delay.count() + unknown == TURNS + 1, "{}", brief(&model));
    let at_most = told.at_most + if unknown == 0 { told.first } else { Duration::ZERO };
    let measured = Duration::from_nanos(delay.sum());
    assert!(
        (told.at_least..=at_most).contains(&measured),
        "traced {measured:?}, truth {told:?}\n{}",
        brief(&model)
    );
}

fn by(job: &'static str, ways: &'static [&'static str]) -> impl Fn(&Tracer) -> bool {
    move |tracer| tracer.way_of(job).is_some_and(|way| ways.contains(&way))
}

#[test]
fn a_socket_becomes_ready_while_its_loop_is_busy() {
    compare("busy_on_a_socket", by(EPOLL_READINESS, &["fentry", "tracepoint"]));
}

#[test]
fn a_completion_is_posted_while_its_loop_is_busy() {
    compare("busy_on_a_ring", by(RING_READINESS, &["tracepoint"]));
}

#[test]
fn an_eventfd_becomes_ready_while_its_loop_is_busy() {
    compare("busy_on_an_eventfd", by(EPOLL_READINESS, &[FENTRY]));
}

#[test]
fn a_pipe_becomes_ready_while_its_loop_is_busy() {
    compare("busy_on_a_pipe", by(EPOLL_READINESS, &[FENTRY]));
}

#[test]
fn an_epoll_instance_in_an_epoll_instance_becomes_ready() {
    compare("busy_on_a_nested_epoll", by(EPOLL_READINESS, &[FENTRY]));
}

/// What became ready is what woke it: the delay is the wakeup latency.
#[test]
fn a_sleeping_loop_is_as_late_as_its_wakeup() {
    let is_told = by(EPOLL_READINESS, &["fentry", "tracepoint"]);
    let Some(Run { model, iterations, .. }) = run("asleep_on_a_socket", is_told) else { return };
    let stats = &model.stats;
    // The first event may have come before the loop was known to be one.
    let unknown = stats.counters.ready_unknown;
    assert!(unknown <= 1 && stats.ready_delay.count() + unknown == TURNS, "{}", brief(&model));
    // Where all takes long, an event may be there before the loop sleeps.
    let asleep: Vec<&Iteration> =
        iterations.iter().filter(|iteration| iteration.wakeup_ns != NO_WAKEUP).collect();
    assert!(asleep.len() as u64 > TURNS / 2, "it was seldom asleep: {}", brief(&model));
    for iteration in asleep {
        assert_eq!(u64::from(iteration.ready_ns), iteration.wakeup_ns, "{iteration:?}\n{}", brief(&model));
    }
}

/// A file that stays ready because it is not read is reported again and again, and nothing new has become ready.
#[test]
fn what_is_ready_all_along_has_no_delay() {
    let Some(Run { model, .. }) = run("never_reads", by(EPOLL_READINESS, &["fentry", "tracepoint"])) else {
        return;
    };
    let stats = &model.stats;
    assert_eq!((stats.ready_delay.count(), stats.counters.ready_unknown), (0, TURNS), "{}", brief(&model));
}

#[test]
#[ignore = "a helper of other tests"]
fn busy_on_a_socket() {
    if !is_helper() {
        return;
    }
    let (mut ours, mut theirs) = UnixStream::pair().expect("sockets");
    let file = ours.try_clone().expect("a descriptor");
    be_busy_on_epoll(
        file,
        move || theirs.write_all(&[1]).expect("it is open"),
        move || ours.read_exact(&mut [0]).expect("it is there"),
    );
}

#[test]
#[ignore = "a helper of other tests"]
fn busy_on_an_eventfd() {
    if !is_helper() {
        return;
    }
    let file = eventfd(0, EventfdFlags::empty()).expect("an eventfd");
    let (make, take) = (file.try_clone().expect("a descriptor"), file.try_clone().expect("a descriptor"));
    be_busy_on_epoll(
        file,
        move || assert_eq!(write(&make, &1_u64.to_ne_bytes()), Ok(8)),
        move || assert_eq!(read(&take, &mut [0_u8; 8][..]), Ok(8)),
    );
}

#[test]
#[ignore = "a helper of other tests"]
fn busy_on_a_pipe() {
    if !is_helper() {
        return;
    }
    let (ours, theirs) = pipe().expect("a pipe");
    let take = ours.try_clone().expect("a descriptor");
    be_busy_on_epoll(
        ours,
        move || assert_eq!(write(&theirs, &[1]), Ok(1)),
        move || assert_eq!(read(&take, &mut [0_u8; 1][..]), Ok(1)),
    );
}

#[test]
#[ignore = "a helper of other tests"]
fn busy_on_a_nested_epoll() {
    if !is_helper() {
        return;
    }
    let (ours, theirs) = pipe().expect("a pipe");
    let inner = epoll::create(epoll::CreateFlags::CLOEXEC).expect("an epoll instance");
    epoll::add(&inner, &ours, epoll::EventData::new_u64(0), epoll::EventFlags::IN).expect("it is watched");
    // What is closed is watched no more.
    let open = inner.try_clone().expect("a descriptor");
    be_busy_on_epoll(
        inner,
        move || assert_eq!(write(&theirs, &[1]), Ok(1)),
        move || {
            assert_eq!(read(&ours, &mut [0_u8; 1][..]), Ok(1));
            let _ = &open;
        },
    );
}

#[test]
#[ignore = "a helper of other tests"]
fn busy_on_a_ring() {
    if !is_helper() {
        return;
    }
    let mut ring = IoUring::new(8).expect("a ring");
    let (ours, theirs) = pipe().expect("a pipe");
    let mut byte = Box::new([0_u8; 1]);
    let request = opcode::Read::new(types::Fd(ours.as_raw_fd()), byte.as_mut_ptr(), 1).build();
    submit(&mut ring, &request);
    let partner = Partner::start(move || assert_eq!(write(&theirs, &[1]), Ok(1)));
    let ring = RefCell::new(ring);
    let is_there = || !ring.borrow_mut().completion().is_empty();
    be_busy_or_look(&partner, Some(is_there), || {
        let mut ring = ring.borrow_mut();
        ring.submit_and_wait(1).expect("a completion comes");
        assert_eq!(ring.completion().count(), 1);
        submit(&mut ring, &request);
    });
}

/// Submits a request in a call that does not wait.
#[expect(unsafe_code, reason = "the ring's interface asks for a promise")]
fn submit(ring: &mut IoUring, request: &io_uring::squeue::Entry) {
    // SAFETY: what the request points to lives longer than the ring.
    unsafe { ring.submission().push(request) }.expect("there is room");
    ring.submit().expect("it is taken");
}

#[test]
#[ignore = "a helper of other tests"]
fn asleep_on_a_socket() {
    if !is_helper() {
        return;
    }
    let (mut ours, mut theirs) = UnixStream::pair().expect("sockets");
    let poller = epoll::create(epoll::CreateFlags::CLOEXEC).expect("an epoll instance");
    epoll::add(&poller, &ours, epoll::EventData::new_u64(0), epoll::EventFlags::IN).expect("it is watched");
    let partner = Partner::start(move || theirs.write_all(&[1]).expect("it is open"));
    for _ in 0..TURNS {
        partner.begin.send(()).expect("it listens");
        wait_on(&poller);
        ours.read_exact(&mut [0]).expect("it is there");
    }
    speak("0");
    listen();
}

#[test]
#[ignore = "a helper of other tests"]
fn never_reads() {
    let (ours, mut theirs) = UnixStream::pair().expect("sockets");
    // Before anything looks.
    theirs.write_all(&[1]).expect("it is open");
    if !is_helper() {
        return;
    }
    let poller = epoll::create(epoll::CreateFlags::CLOEXEC).expect("an epoll instance");
    epoll::add(&poller, &ours, epoll::EventData::new_u64(0), epoll::EventFlags::IN).expect("it is watched");
    for _ in 0..TURNS {
        wait_on(&poller);
    }
    speak("0");
    listen();
}
