//! Which facts prove which runtime: one table, [`RULES`], from the most specific rule to the least. The
//! first rule that holds wins. Pure: facts in, judgement out.
//!
//! A new runtime is a new row, and a made-up process in the tests for each of its proofs.

use std::time::Duration;

use ioscope_common::WaitCall::{self, EpollPwait, EpollPwait2, EpollWait, IoUringEnter, Poll, Ppoll};

use super::executable::{Crate, Marker};
use super::facts::{ProcessFacts, file_name};

/// Whether threads of one process wait on the same poller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PollerSharing {
    /// Never: each loop owns its poller. A futex sleep outside a wait call is a lock wait.
    Private,
    /// By design: one thread waits on the poller for all, and the others sleep in futex meanwhile.
    Shared,
    /// As the program is set up (tokio's current-thread or multi-thread runtime): only watching tells.
    Either,
}

/// From when on the loops of a runtime are stalled, where the runtime itself says so: the loop duration at which its own watch
/// over its loop speaks up. A runtime that says nothing has none, and the general threshold holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StallPreset {
    /// A loop duration from here on is a stall.
    pub threshold: Duration,
    /// The runtime's own setting that has this number, for people.
    pub source: &'static str,
}

/// A recognised runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runtime {
    /// Its name in JSON: short, stable.
    pub name: &'static str,
    /// Its name for people.
    pub label: &'static str,
    /// The calls that its loops sleep in. aarch64 has no `epoll_wait` and no `poll`, so the C library makes
    /// `epoll_pwait` and `ppoll` of them there, and both are listed.
    pub wait_calls: &'static [WaitCall],
    /// Whether its threads share a poller.
    pub poller_sharing: PollerSharing,
    /// From when on its loops are stalled, if it has a number of its own.
    pub stall_preset: Option<StallPreset>,
    /// Why it was recognised, for people: `maps libuv.so.1`.
    pub evidence: String,
}

/// One row of the table: `kind` is recognised where all of `given` hold and one of `proofs` does.
pub(super) struct Rule {
    pub(super) kind: &'static Kind,
    given: &'static [Proof],
    proofs: &'static [Proof],
}

/// A runtime as the table knows it; see [`Runtime`].
pub(super) struct Kind {
    pub(super) name: &'static str,
    label: &'static str,
    wait_calls: &'static [WaitCall],
    poller_sharing: PollerSharing,
    stall_preset: Option<StallPreset>,
}

impl Kind {
    /// With the number at which the runtime's own watch speaks up.
    const fn stalls_at(self, milliseconds: u64, source: &'static str) -> Self {
        let threshold = Duration::from_millis(milliseconds);
        Self { stall_preset: Some(StallPreset { threshold, source }), ..self }
    }
}

/// A fact that proves something. Names are compared as far as they are given: a prefix, unless it says otherwise.
enum Proof {
    /// The executable's file name is exactly this.
    Executable(&'static str),
    /// The executable's file name is this and perhaps a version: `python`, `python3`, `python3.13t`.
    Interpreter(&'static str),
    /// A shared library of this file name is mapped.
    Library(&'static str),
    /// A shared library is mapped from a directory of exactly this name: a package of Python's.
    Package(&'static str),
    /// A thread has this name.
    Thread(&'static str),
    /// A Java archive of this file name is open.
    Archive(&'static str),
    /// A descriptor is an epoll instance.
    Epoll,
    /// The executable has Go's build information.
    Go,
    /// The executable has this crate compiled in.
    Crate(Crate),
    /// The executable contains this string.
    Marker(Marker),
    /// One of these holds.
    Any(&'static [Proof]),
}

use PollerSharing::{Either, Private, Shared};
use Proof::{Any, Archive, Epoll, Executable, Go, Interpreter, Library, Package, Thread};

const EPOLL_WAIT: &[WaitCall] = &[EpollWait, EpollPwait];

const fn kind(
    name: &'static str,
    label: &'static str,
    wait_calls: &'static [WaitCall],
    poller_sharing: PollerSharing,
) -> Kind {
    Kind { name, label, wait_calls, poller_sharing, stall_preset: None }
}

const fn rule(kind: &'static Kind, given: &'static [Proof], proofs: &'static [Proof]) -> Rule {
    Rule { kind, given, proofs }
}

const PYTHON: Proof = Any(&[Interpreter("python"), Interpreter("pypy"), Library("libpython")]);
const JAVA: Proof = Any(&[Executable("java"), Library("libjvm.so")]);

const ASIO: Kind = kind("asio", "Asio (C++)", EPOLL_WAIT, Either);
const ASYNCIO: Kind = kind("asyncio", "Python asyncio", EPOLL_WAIT, Private)
    // In debug mode, callbacks from here on are logged as slow: docs.python.org, asyncio-eventloop.
    .stalls_at(100, "loop.slow_callback_duration");
// Its worker threads and its blocking pool have one name, and a binary has both schedulers compiled in.
const TOKIO: Kind = kind("tokio", "tokio (Rust)", EPOLL_WAIT, Either);
const ASYNC_IO: Kind =
    kind("async-io", "async-io: smol, async-std (Rust)", &[EpollPwait, EpollPwait2, EpollWait], Either);
const BUN: Kind = kind("bun", "Bun", &[EpollPwait2, EpollPwait], Private);
const ENVOY: Kind = kind("envoy", "Envoy", EPOLL_WAIT, Private)
    // From here on its watchdog counts a miss: envoy.config.bootstrap.v3.Watchdog.
    .stalls_at(200, "watchdog miss_timeout");
const GEVENT: Kind = kind("gevent", "Python gevent", EPOLL_WAIT, Private)
    // From here on its monitor thread reports that the hub is blocked: gevent's configuration.
    .stalls_at(100, "max_blocking_time");
const GLIB: Kind = kind("glib", "GLib main loop", &[Poll, Ppoll], Private);
const GO: Kind = kind("go", "Go netpoller", &[EpollPwait], Shared);
const HAPROXY: Kind = kind("haproxy", "HAProxy", EPOLL_WAIT, Private)
    // From here on it warns of a thread that blocks the traffic, if it is new enough: `src/wdt.c`.
    .stalls_at(100, "warn-blocked-traffic-after");
const JAVA_NIO: Kind = kind("java-nio", "Java NIO selector", EPOLL_WAIT, Private);
const LIBEV: Kind = kind("libev", "libev", EPOLL_WAIT, Private);
const LIBEVENT: Kind = kind("libevent", "libevent", &[EpollWait, EpollPwait, EpollPwait2], Private);
// Older ones (1.44) call epoll_wait where they have no signals to block.
const LIBUV: Kind = kind("libuv", "libuv", &[EpollPwait, EpollWait], Private);
const MIO: Kind = kind("mio", "mio (Rust)", EPOLL_WAIT, Private);
const MONOIO: Kind = kind("monoio", "monoio (Rust)", &[IoUringEnter, EpollWait, EpollPwait], Private);
const NETTY: Kind = kind("netty", "Netty (Java)", &[EpollWait, EpollPwait, EpollPwait2], Private);
const NGINX: Kind = kind("nginx", "nginx", EPOLL_WAIT, Private);
const NODE: Kind = kind("libuv", "Node.js (libuv)", &[EpollPwait, EpollWait], Private);
const PLAIN_PYTHON: Kind = kind("python", "Python", EPOLL_WAIT, Private);
const QT: Kind = kind("qt", "Qt event loop", &[Poll, Ppoll], Private);
const REDIS: Kind = kind("redis", "Redis", EPOLL_WAIT, Private)
    // Commands from here on get into its slow log, of 10,000 µs: redis.conf.
    .stalls_at(10, "slowlog-log-slower-than");
// It stands in for asyncio's own loop, and warns as that does.
const UVLOOP: Kind = kind("uvloop", "Python uvloop (libuv)", &[EpollPwait, EpollWait], Private)
    .stalls_at(100, "loop.slow_callback_duration");

/// The table. Why it is in this order:
///
/// - Python packages before asyncio, which uvloop imports too, and Netty before the selectors it stands on.
/// - What the executable is (Go, Node, nginx) before what it maps or links.
/// - Libraries mapped and threads named before strings in the executable, which cost a read of it; and
///   strings of Rust crates before those of C libraries that a Rust program can have linked in.
/// - `GLib` late: half of what runs on a desktop maps it for its strings and lists. Plain Python last.
pub(super) const RULES: &[Rule] = &[
    rule(&UVLOOP, &[PYTHON], &[Package("uvloop")]),
    rule(&GEVENT, &[PYTHON], &[Package("gevent")]),
    rule(&ASYNCIO, &[PYTHON], &[Library("_asyncio.")]),
    rule(
        &NETTY,
        &[JAVA],
        &[
            // A JVM cuts a name at 15 bytes or, the newer ones, out of its middle.
            Thread("nioEventLoopGro"),
            Thread("nioEven.."),
            Thread("epollEventLoopG"),
            Thread("epollEv.."),
            Thread("multiThreadIoEv"),
            Thread("reactor-http-"),
            Thread("vert.x-eventloo"),
            Library("libnetty_transport_native_"),
        ],
    ),
    rule(&NETTY, &[JAVA, Epoll], &[Archive("netty-")]),
    rule(&JAVA_NIO, &[JAVA], &[Epoll]),
    rule(&GO, &[], &[Go]),
    rule(&NODE, &[], &[Executable("node"), Executable("nodejs"), Library("libnode.so")]),
    rule(&BUN, &[], &[Executable("bun")]),
    rule(&NGINX, &[], &[Executable("nginx"), Executable("openresty"), Executable("angie")]),
    rule(
        &REDIS,
        &[],
        &[
            Executable("redis-server"),
            Executable("redis-sentinel"),
            Executable("redis-benchmark"),
            Executable("valkey-server"),
            Executable("valkey-sentinel"),
            Executable("valkey-benchmark"),
        ],
    ),
    // One file under several names, of which Debian keeps a tool's: what it was called as is the name of its thread.
    rule(
        &REDIS,
        &[Any(&[Executable("redis-check-rdb"), Executable("valkey-check-rdb")])],
        &[
            Thread("redis-server"),
            Thread("redis-sentinel"),
            Thread("valkey-server"),
            Thread("valkey-sentinel"),
        ],
    ),
    rule(&HAPROXY, &[], &[Executable("haproxy")]),
    rule(&ENVOY, &[Executable("envoy")], &[Thread("wrk:worker_"), Epoll]),
    rule(&LIBUV, &[], &[Library("libuv.so"), Thread("libuv-worker")]),
    rule(&LIBEVENT, &[], &[Library("libevent-"), Library("libevent_core-"), Library("libevent.so")]),
    rule(&LIBEV, &[], &[Library("libev.so")]),
    rule(&TOKIO, &[], &[Thread("tokio-rt-worker"), Thread("tokio-runtime-w")]),
    rule(&MONOIO, &[], &[Proof::Crate(Crate::Monoio)]),
    rule(&TOKIO, &[], &[Proof::Crate(Crate::Tokio)]),
    rule(&ASYNC_IO, &[], &[Proof::Crate(Crate::AsyncIo)]),
    rule(&MIO, &[], &[Proof::Crate(Crate::Mio)]),
    rule(&ASIO, &[], &[Proof::Marker(Marker::Asio)]),
    rule(&LIBUV, &[], &[Proof::Marker(Marker::Libuv)]),
    rule(&LIBEVENT, &[], &[Proof::Marker(Marker::Libevent)]),
    rule(&LIBEV, &[], &[Proof::Marker(Marker::Libev)]),
    rule(&QT, &[], &[Library("libQt6Core.so"), Library("libQt5Core.so")]),
    rule(&GLIB, &[], &[Thread("gmain"), Thread("gdbus"), Library("libglib-2.0.so")]),
    // Another library's loop, or asyncio compiled into the interpreter.
    rule(&PLAIN_PYTHON, &[PYTHON], &[Epoll]),
];

/// The runtime of a process: that of the first rule that holds.
pub fn recognise(facts: &ProcessFacts) -> Option<Runtime> {
    RULES.iter().find_map(|rule| rule.judge(facts))
}

/// The runtime of one thread of a process: that which the thread's own name proves (a tokio worker inside
/// a Node.js process), else that of the process.
pub fn recognise_thread(facts: &ProcessFacts, name: &str) -> Option<Runtime> {
    let of_name = |proof: &Proof| matches!(proof, Thread(thread) if name.starts_with(thread));
    let named = RULES.iter().filter(|rule| rule.proofs.iter().any(of_name));
    let this = |rule: &Rule| {
        let evidence = rule.given_by(facts)?;
        Some(rule.runtime(evidence, format!("thread named {name}")))
    };
    named.into_iter().find_map(this).or_else(|| recognise(facts))
}

/// Whether reading the executable's strings could change what [`recognise`] says.
pub(super) fn strings_could_matter(facts: &ProcessFacts) -> bool {
    facts.executable_facts.class.is_some()
        && RULES.iter().take_while(|rule| rule.judge(facts).is_none()).any(Rule::reads_strings)
}

impl Rule {
    fn judge(&self, facts: &ProcessFacts) -> Option<Runtime> {
        let given = self.given_by(facts)?;
        let proof = self.proofs.iter().find_map(|proof| proof.evidence(facts))?;
        Some(self.runtime(given, proof))
    }

    /// The evidence for what the rule takes as given; `None` where it does not hold.
    fn given_by(&self, facts: &ProcessFacts) -> Option<Vec<String>> {
        self.given.iter().map(|proof| proof.evidence(facts)).collect()
    }

    fn runtime(&self, mut evidence: Vec<String>, proof: String) -> Runtime {
        let Kind { name, label, wait_calls, poller_sharing, stall_preset } = *self.kind;
        evidence.push(proof);
        Runtime { name, label, wait_calls, poller_sharing, stall_preset, evidence: evidence.join(", ") }
    }

    fn reads_strings(&self) -> bool {
        self.proofs.iter().any(|proof| matches!(proof, Proof::Crate(_) | Proof::Marker(_)))
    }
}

impl Proof {
    /// What in the facts makes it hold, for people; `None` where it does not.
    fn evidence(&self, facts: &ProcessFacts) -> Option<String> {
        let executable = facts.executable_name();
        let strings = facts.executable_facts.strings.as_ref();
        match *self {
            Self::Executable(name) => (executable? == name).then(|| format!("executable named {name}")),
            Self::Interpreter(name) => {
                let version = executable?.strip_prefix(name)?;
                is_interpreter_version(version).then(|| format!("executable named {name}{version}"))
            }
            Self::Library(prefix) => Some(format!("maps {}", first_named(&facts.libraries, prefix)?)),
            Self::Package(directory) => {
                let path = facts
                    .libraries
                    .iter()
                    .find(|path| path.split('/').rev().skip(1).any(|part| part == directory))?;
                Some(format!("maps {} of {directory}", file_name(path)))
            }
            Self::Thread(prefix) => {
                let name = facts.thread_names.iter().find(|name| name.starts_with(prefix))?;
                Some(format!("thread named {name}"))
            }
            Self::Archive(prefix) => Some(format!("has {} open", first_named(&facts.archives, prefix)?)),
            Self::Epoll => facts.has_epoll.then(|| "has an epoll instance open".to_owned()),
            Self::Go => Some(format!("{} section", facts.executable_facts.go_section?)),
            Self::Crate(name) => {
                let version = strings?.crates.get(&name)?.as_deref().unwrap_or("of unknown version");
                Some(format!("executable contains {} {version}", name.name()))
            }
            Self::Marker(marker) => {
                strings?.markers.contains(&marker).then(|| format!("executable contains {}", marker.text()))
            }
            Self::Any(proofs) => proofs.iter().find_map(|proof| proof.evidence(facts)),
        }
    }
}

/// The file name of the first path whose file name begins so.
fn first_named<'a>(paths: &'a std::collections::BTreeSet<String>, prefix: &str) -> Option<&'a str> {
    paths.iter().map(|path| file_name(path)).find(|name| name.starts_with(prefix))
}

/// Nothing, or `3`, `3.11`, `3.13t` (without the global lock), `3.7m`, `3-dbg`.
fn is_interpreter_version(text: &str) -> bool {
    let rest = text.trim_start_matches(|digit: char| digit.is_ascii_digit() || digit == '.');
    matches!(rest, "" | "t" | "d" | "m" | "-dbg" | "-c")
}
