//! The table, row by row, on made-up processes.

use std::collections::{BTreeMap, BTreeSet};

use super::executable::{Crate, ElfClass, ExecutableFacts, Marker, Strings};
use super::facts::ProcessFacts;
use super::table::{PollerSharing, RULES, recognise, recognise_thread, strings_could_matter};

/// A made-up process: what is not said of it is not so.
#[derive(Clone, Copy, Default)]
struct Made<'a> {
    executable: &'a str,
    libraries: &'a [&'a str],
    threads: &'a [&'a str],
    archives: &'a [&'a str],
    epoll: bool,
    go: Option<&'static str>,
    crates: &'a [(Crate, Option<&'a str>)],
    markers: &'a [Marker],
}

impl Made<'_> {
    fn facts(&self) -> ProcessFacts {
        let set = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<BTreeSet<_>>();
        let version = |&(name, version): &(Crate, Option<&str>)| (name, version.map(str::to_owned));
        let crates: BTreeMap<_, _> = self.crates.iter().map(version).collect();
        ProcessFacts {
            executable: (!self.executable.is_empty()).then(|| self.executable.to_owned()),
            libraries: set(self.libraries),
            thread_names: set(self.threads),
            archives: set(self.archives),
            has_epoll: self.epoll,
            executable_facts: ExecutableFacts {
                class: Some(ElfClass::Elf64),
                go_section: self.go,
                strings: Some(Strings { crates, markers: self.markers.to_vec() }),
            },
        }
    }

    #[track_caller]
    fn is(&self, name: &str, evidence: &str) {
        let found = recognise(&self.facts()).unwrap_or_else(|| panic!("not recognised; expected {name}"));
        assert_eq!((found.name, found.evidence.as_str()), (name, evidence));
    }

    #[track_caller]
    fn is_nothing(&self) {
        assert_eq!(recognise(&self.facts()), None);
    }
}

const PYTHON: Made<'_> = Made {
    executable: "/usr/bin/python3.11",
    libraries: &[],
    threads: &[],
    archives: &[],
    epoll: true,
    go: None,
    crates: &[],
    markers: &[],
};
const JAVA: Made<'_> = Made {
    executable: "/usr/lib/jvm/java-17/bin/java",
    libraries: &["/j/libjvm.so", "/j/libnio.so"],
    ..PYTHON
};
const NATIVE: Made<'_> = Made { executable: "/usr/bin/server", libraries: &["/usr/lib/libc.so.6"], ..PYTHON };

const ASYNCIO: &str = "/usr/lib/python3.11/lib-dynload/_asyncio.cpython-311-x86_64-linux-gnu.so";
const UVLOOP: &str = "/venv/lib/python3.11/site-packages/uvloop/loop.cpython-311-x86_64-linux-gnu.so";
const GEVENT: &str = "/venv/site-packages/gevent/libev/corecext.cpython-311-x86_64-linux-gnu.so";

#[test]
fn python_by_the_loop_it_imported() {
    Made { libraries: &[ASYNCIO], ..PYTHON }
        .is("asyncio", "executable named python3.11, maps _asyncio.cpython-311-x86_64-linux-gnu.so");
    Made { libraries: &[ASYNCIO, UVLOOP], ..PYTHON }
        .is("uvloop", "executable named python3.11, maps loop.cpython-311-x86_64-linux-gnu.so of uvloop");
    Made { libraries: &[ASYNCIO, GEVENT], ..PYTHON }
        .is("gevent", "executable named python3.11, maps corecext.cpython-311-x86_64-linux-gnu.so of gevent");
}

#[test]
fn python_embedded_in_another_program() {
    let uwsgi = Made {
        executable: "/usr/bin/uwsgi",
        libraries: &[ASYNCIO, "/usr/lib/libpython3.11.so.1.0"],
        ..PYTHON
    };
    uwsgi.is("asyncio", "maps libpython3.11.so.1.0, maps _asyncio.cpython-311-x86_64-linux-gnu.so");
    Made { executable: "/usr/bin/uwsgi", libraries: &[ASYNCIO], ..PYTHON }.is_nothing();
}

#[test]
fn python_by_every_name_of_its_interpreter() {
    for name in ["python", "python3", "python3.13t", "python3.7m", "python3.11-dbg", "pypy3", "pypy3.10-c"] {
        let found = recognise(&Made { executable: name, libraries: &[ASYNCIO], ..PYTHON }.facts());
        assert_eq!(found.map(|found| found.name), Some("asyncio"), "{name}");
    }
    for name in ["pythonista", "python-server", "cpython3"] {
        Made { executable: name, libraries: &[ASYNCIO], ..PYTHON }.is_nothing();
    }
}

#[test]
fn python_with_a_loop_of_its_own_is_just_python() {
    let evidence = "executable named python3.11, has an epoll instance open";
    PYTHON.is("python", evidence);
    Made { libraries: &["/venv/site-packages/notuvloop/loop.so", "/x/my_asyncio.so"], ..PYTHON }
        .is("python", evidence);
    Made { epoll: false, ..PYTHON }.is_nothing();
    Made { libraries: &["/usr/lib/libglib-2.0.so.0"], ..PYTHON }.is("glib", "maps libglib-2.0.so.0");
}

#[test]
fn java_by_its_selector_and_netty_over_it() {
    JAVA.is("java-nio", "executable named java, has an epoll instance open");
    Made { epoll: false, ..JAVA }.is_nothing();
    Made { archives: &["/app/lib/netty-transport-4.1.48.Final.jar"], ..JAVA }.is(
        "netty",
        "executable named java, has an epoll instance open, has netty-transport-4.1.48.Final.jar open",
    );
    Made { archives: &["/app/lib/netty-transport-4.1.48.Final.jar"], epoll: false, ..JAVA }.is_nothing();
    Made { archives: &["/app/lib/guava.jar", "/app/netty-/x.jar"], ..JAVA }
        .is("java-nio", "executable named java, has an epoll instance open");
    Made { libraries: &["/tmp/libnetty_transport_native_epoll_x86_641.so"], ..JAVA }
        .is("netty", "executable named java, maps libnetty_transport_native_epoll_x86_641.so");
    Made { executable: "/usr/bin/jsvc", threads: &["nioEven..up-2-1"], ..JAVA }
        .is("netty", "maps libjvm.so, thread named nioEven..up-2-1");
    for thread in [
        "nioEventLoopGro",
        "epollEventLoopG",
        "epollEv..up-2-1",
        "multiThreadIoEv",
        "reactor-http-ep",
        "vert.x-eventloo",
    ] {
        Made { threads: &["java", thread], ..JAVA }
            .is("netty", &format!("executable named java, thread named {thread}"));
        Made { threads: &[thread], ..NATIVE }.is_nothing();
    }
}

#[test]
fn programs_by_the_name_of_their_executable() {
    for (executable, name) in [
        ("node", "libuv"),
        ("nodejs", "libuv"),
        ("bun", "bun"),
        ("nginx", "nginx"),
        ("openresty", "nginx"),
        ("angie", "nginx"),
        ("redis-server", "redis"),
        ("redis-sentinel", "redis"),
        ("redis-benchmark", "redis"),
        ("valkey-server", "redis"),
        ("valkey-sentinel", "redis"),
        ("valkey-benchmark", "redis"),
        ("haproxy", "haproxy"),
    ] {
        let path = format!("/opt/bin/{executable}");
        Made { executable: &path, ..NATIVE }.is(name, &format!("executable named {executable}"));
        Made { executable: &format!("{path}_exporter"), ..NATIVE }.is_nothing();
        Made { executable: &format!("/opt/{executable}/other"), ..NATIVE }.is_nothing();
    }
    Made { executable: "/usr/bin/electron", libraries: &["/usr/lib/libnode.so.108"], ..NATIVE }
        .is("libuv", "maps libnode.so.108");
}

#[test]
fn redis_under_the_name_of_its_tool() {
    for (executable, thread) in [("redis-check-rdb", "redis-server"), ("valkey-check-rdb", "valkey-sentinel")]
    {
        let tool = Made { executable, threads: &[executable], ..NATIVE };
        tool.is_nothing();
        Made { threads: &[thread], ..tool }
            .is("redis", &format!("executable named {executable}, thread named {thread}"));
        Made { threads: &[thread], ..NATIVE }.is_nothing();
    }
}

#[test]
fn envoy_needs_more_than_its_name() {
    let envoy = Made { executable: "/usr/local/bin/envoy", ..NATIVE };
    envoy.is("envoy", "executable named envoy, has an epoll instance open");
    Made { threads: &["wrk:worker_0"], ..envoy }
        .is("envoy", "executable named envoy, thread named wrk:worker_0");
    Made { epoll: false, ..envoy }.is_nothing();
    Made { threads: &["wrk:worker_0"], ..NATIVE }.is_nothing();
}

#[test]
fn go_by_either_section_and_before_any_name() {
    Made { go: Some(".go.buildinfo"), ..NATIVE }.is("go", ".go.buildinfo section");
    Made { go: Some(".note.go.buildid"), ..NATIVE }.is("go", ".note.go.buildid section");
    Made { go: Some(".go.buildinfo"), executable: "/usr/bin/node", ..NATIVE }
        .is("go", ".go.buildinfo section");
}

#[test]
fn libraries_mapped() {
    for (library, name) in [
        ("libuv.so.1.0.0", "libuv"),
        ("libevent-2.1.so.7.0.1", "libevent"),
        ("libevent_core-2.1.so.7", "libevent"),
        ("libevent.so.2", "libevent"),
        ("libev.so.4.0.0", "libev"),
        ("libQt6Core.so.6", "qt"),
        ("libQt5Core.so.5.15.8", "qt"),
        ("libglib-2.0.so.0.7400.6", "glib"),
    ] {
        Made { libraries: &["/usr/lib/libc.so.6", &format!("/usr/lib/{library}")], ..NATIVE }
            .is(name, &format!("maps {library}"));
        Made { libraries: &[&format!("/usr/lib/my{library}"), &format!("/{library}/x.so")], ..NATIVE }
            .is_nothing();
    }
    // An input library of the kernel's, not libev.
    Made { libraries: &["/usr/lib/libevdev.so.2", "/usr/lib/libeventlog.so.0"], ..NATIVE }.is_nothing();
}

#[test]
fn threads_named() {
    for (thread, name) in [
        ("tokio-rt-worker", "tokio"),
        ("tokio-runtime-w", "tokio"),
        ("libuv-worker", "libuv"),
        ("gmain", "glib"),
        ("gdbus", "glib"),
    ] {
        Made { threads: &["server", thread], ..NATIVE }.is(name, &format!("thread named {thread}"));
        Made { threads: &[&format!("x{thread}")], ..NATIVE }.is_nothing();
    }
}

#[test]
fn strings_in_the_executable() {
    for (name, runtime) in [
        (Crate::Tokio, "tokio"),
        (Crate::Monoio, "monoio"),
        (Crate::AsyncIo, "async-io"),
        (Crate::Mio, "mio"),
    ] {
        Made { crates: &[(name, Some("1.2.3"))], ..NATIVE }
            .is(runtime, &format!("executable contains {} 1.2.3", name.name()));
        Made { crates: &[(name, None)], ..NATIVE }
            .is(runtime, &format!("executable contains {} of unknown version", name.name()));
    }
    for (marker, runtime) in [
        (Marker::Asio, "asio"),
        (Marker::Libuv, "libuv"),
        (Marker::Libevent, "libevent"),
        (Marker::Libev, "libev"),
    ] {
        Made { markers: &[marker], ..NATIVE }.is(runtime, &format!("executable contains {}", marker.text()));
    }
    NATIVE.is_nothing();
}

#[test]
fn the_more_specific_rule_wins() {
    let tokio = (Crate::Tokio, Some("1.54.1"));
    let mio = (Crate::Mio, Some("1.2.5"));
    // tokio stands on mio; a program on monoio may use parts of tokio; Rust links C libraries.
    Made { crates: &[tokio, mio], ..NATIVE }.is("tokio", "executable contains tokio 1.54.1");
    Made { crates: &[tokio, (Crate::Monoio, None)], ..NATIVE }
        .is("monoio", "executable contains monoio of unknown version");
    Made { crates: &[tokio], markers: &[Marker::Libuv], ..NATIVE }
        .is("tokio", "executable contains tokio 1.54.1");
    // An addon of Node's, or a module of Python's, brings tokio with it: the program's own loop stays what it was.
    let tokio_thread = &["tokio-rt-worker"];
    Made { executable: "/usr/bin/node", threads: tokio_thread, ..NATIVE }
        .is("libuv", "executable named node");
    Made { libraries: &[ASYNCIO], threads: tokio_thread, ..PYTHON }
        .is("asyncio", "executable named python3.11, maps _asyncio.cpython-311-x86_64-linux-gnu.so");
    // Qt's loop is GLib's underneath; a program that maps GLib may have a loop of its own.
    let glib = "/usr/lib/libglib-2.0.so.0";
    Made { libraries: &[glib, "/usr/lib/libQt6Core.so.6"], ..NATIVE }.is("qt", "maps libQt6Core.so.6");
    Made { libraries: &[glib, "/usr/lib/libuv.so.1"], ..NATIVE }.is("libuv", "maps libuv.so.1");
    Made { libraries: &[glib], crates: &[tokio], ..NATIVE }.is("tokio", "executable contains tokio 1.54.1");
}

#[test]
fn a_thread_is_what_its_own_name_proves() {
    let node = Made { executable: "/usr/bin/node", threads: &["node", "tokio-rt-worker"], ..NATIVE }.facts();
    let name = |thread| recognise_thread(&node, thread).map(|found| (found.name, found.evidence));
    assert_eq!(name("node"), Some(("libuv", "executable named node".to_owned())));
    assert_eq!(name("tokio-rt-worker"), Some(("tokio", "thread named tokio-rt-worker".to_owned())));
    // What the rule takes as given must hold for a thread too.
    assert_eq!(name("nioEventLoopGro"), Some(("libuv", "executable named node".to_owned())));
    assert_eq!(recognise_thread(&NATIVE.facts(), "server"), None);
}

#[test]
fn strings_are_read_only_where_they_could_matter() {
    let unread = |made: Made<'_>| {
        let mut facts = made.facts();
        facts.executable_facts.strings = None;
        facts
    };
    assert!(strings_could_matter(&unread(NATIVE)));
    assert!(strings_could_matter(&unread(Made { libraries: &["/usr/lib/libglib-2.0.so.0"], ..NATIVE })));
    assert!(!strings_could_matter(&unread(Made { executable: "/usr/bin/node", ..NATIVE })));
    assert!(!strings_could_matter(&unread(JAVA)));
    assert!(!strings_could_matter(&unread(Made { threads: &["tokio-rt-worker"], ..NATIVE })));
    assert!(!strings_could_matter(&ProcessFacts::default()));
}

#[test]
fn only_runtimes_that_share_by_design_say_so() {
    let sharing = |facts: ProcessFacts| recognise(&facts).unwrap().poller_sharing;
    assert_eq!(sharing(Made { go: Some(".go.buildinfo"), ..NATIVE }.facts()), PollerSharing::Shared);
    assert_eq!(sharing(Made { threads: &["tokio-rt-worker"], ..NATIVE }.facts()), PollerSharing::Either);
    for private in ["node", "redis-server", "nginx"] {
        assert_eq!(sharing(Made { executable: private, ..NATIVE }.facts()), PollerSharing::Private);
    }
    assert_eq!(sharing(Made { libraries: &[ASYNCIO], ..PYTHON }.facts()), PollerSharing::Private);
}

/// The numbers are the runtimes' own settings: a runtime that has none is judged by the general threshold.
#[test]
fn the_presets_are_the_runtimes_own_numbers() {
    let threshold = |made: Made<'_>| {
        let preset = recognise(&made.facts()).unwrap().stall_preset;
        preset.map(|preset| (preset.threshold.as_millis(), preset.source))
    };
    assert_eq!(
        threshold(Made { libraries: &[ASYNCIO], ..PYTHON }),
        Some((100, "loop.slow_callback_duration"))
    );
    let of = |executable| threshold(Made { executable, epoll: true, ..NATIVE });
    assert_eq!(of("redis-server"), Some((10, "slowlog-log-slower-than")));
    assert_eq!(of("haproxy"), Some((100, "warn-blocked-traffic-after")));
    assert_eq!(of("envoy"), Some((200, "watchdog miss_timeout")));
    for silent in ["node", "nginx", "bun"] {
        assert_eq!(of(silent), None, "{silent}");
    }
    assert_eq!(threshold(Made { threads: &["tokio-rt-worker"], ..NATIVE }), None);
}

#[test]
fn names_are_short_and_fit_for_json() {
    for rule in RULES {
        let name = rule.kind.name;
        assert!(name.len() <= 10 && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{name}");
    }
}
