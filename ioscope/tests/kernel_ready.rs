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
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::io::{read, write};
use rustix::pipe::pipe;

use support::expect::brief;
use support::helper::{Helper, is_helper, listen, speak};
use support::tracer::Tracer;

/// How often an event comes while the loop is busy.
const TURNS: u64 = 20;
/// How long it is busy.
const BUSY: Duration = Duration::from_millis(24);
/// When the event comes in that time.
const AFTER: Duration = Duration::from_millis(6);

/// What a loop says of its events: how many came while it was busy, and how long they waited in all.
#[derive(Debug)]
struct Told {
    events: u64,
    waited_ns: u64,
    /// Of events that came in the course of a system call: no longer than it took to the return of the wait call.
    more_ns: u64,
}

/// Makes a file ready when it is told to, and says when it did.
struct Partner {
    begin: Sender<()>,
    done: Receiver<Instant>,
}

impl Partner {
    fn start(mut make_ready: impl FnMut() + Send + 'static) -> Self {
        let (begin, told) = channel();
        let (tell, done) = channel();
        std::thread::spawn(move || {
            while told.recv().is_ok() {
                std::thread::sleep(AFTER);
                let at = Instant::now();
                make_ready();
                if tell.send(at).is_err() {
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
/// event comes then: older kernels have the loop's own thread post a completion, at the next occasion.
fn be_busy_or_look(partner: &Partner, mut is_there: Option<impl FnMut() -> bool>, mut wait: impl FnMut()) {
    let (mut waited, mut more) = (Duration::ZERO, Duration::ZERO);
    // The first is before the first wait call, when nobody knows yet that this is a loop.
    for turn in 0..=TURNS {
        partner.begin.send(()).expect("it listens");
        let start = Instant::now();
        let mut seen = None;
        while start.elapsed() < BUSY {
            std::hint::spin_loop();
            if seen.is_none() && is_there.as_mut().is_some_and(|is_there| is_there()) {
                seen = Some(Instant::now());
            }
        }
        // Any system call is an occasion.
        let began = Instant::now();
        let made_ready = partner.done.recv().expect("it answers");
        wait();
        if turn > 0 {
            match (is_there.is_some(), seen) {
                (true, None) => more += began.elapsed(),
                (_, seen) => waited += seen.unwrap_or(made_ready).elapsed(),
            }
        }
    }
    speak(&format!("{} {}", waited.as_nanos(), more.as_nanos()));
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

/// Has a helper's loop traced; `None` where this kernel does not tell what is needed, or nothing may be traced.
fn run(helper: &str, is_told: impl Fn(&Tracer) -> bool) -> Option<(LoopModel, Told)> {
    let mut helper = Helper::start(helper);
    let mut tracer = Tracer::of(&[helper.id()])?;
    if !is_told(&tracer) {
        support::ioscope::say("SKIPPED: no hook of this kernel tells when such a file becomes ready");
        return None;
    }
    helper.say();
    let answer = helper.answer();
    let mut numbers = answer.split_whitespace().map(|number| number.parse().expect("nanoseconds"));
    let (waited_ns, more_ns) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    tracer.finish();
    let model = tracer.model.loops().max_by_key(|model| model.stats.iterations()).expect("a loop").clone();
    helper.say();
    helper.end();
    Some((model, Told { events: TURNS, waited_ns, more_ns }))
}

/// How often a comparison is tried that another process can spoil: the two clocks are not read at one moment.
const TRIES: u32 = 3;

/// The delays that were measured are those that the loop has seen.
fn compare(helper: &str, is_told: impl Fn(&Tracer) -> bool) {
    for last in 1..=TRIES {
        let Some((model, told)) = run(helper, &is_told) else { return };
        let delay = &model.stats.ready_delay;
        // The first event came before the loop was known to be one; older kernels post its completion late.
        let unknown = model.stats.counters.ready_unknown;
        assert!(unknown <= 1 && delay.count() + unknown == told.events + 1, "{}", brief(&model));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a sum of nanoseconds")]
        let measured = (delay.mean() * delay.count() as f64) as u64;
        let nearest = measured.clamp(told.waited_ns, told.waited_ns + told.more_ns);
        if measured.abs_diff(nearest) * 50 <= nearest {
            return;
        }
        assert!(last < TRIES, "traced {measured}, truth {told:?}\n{}", brief(&model));
    }
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
    for last in 1..=TRIES {
        let Some((model, _)) = run("asleep_on_a_socket", &is_told) else { return };
        let stats = &model.stats;
        assert_eq!(stats.ready_delay.count(), TURNS, "{}", brief(&model));
        // Where all takes long, an event may be there before the loop sleeps.
        if stats.wakeup_latency.count() == TURNS {
            assert!(
                (stats.ready_delay.mean() - stats.wakeup_latency.mean()).abs() < 1.0,
                "{}",
                brief(&model)
            );
            return;
        }
        assert!(last < TRIES, "it was not asleep each time: {}", brief(&model));
    }
}

/// A file that stays ready because it is not read is reported again and again, and nothing new has become ready.
#[test]
fn what_is_ready_all_along_has_no_delay() {
    let Some((model, _)) = run("never_reads", by(EPOLL_READINESS, &["fentry", "tracepoint"])) else { return };
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
