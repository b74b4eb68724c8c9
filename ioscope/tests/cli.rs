//! The command line for real: what can be named, what is refused, and how it exits.

mod support;

use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::ioscope::{
    IOSCOPE, Tracing, Worker, can_trace, copy_program, documents, expiring, output, run, say, text, wait,
    wait_for_sleeps,
};

/// Runs what is refused, and checks the exit code and the one line that says why.
#[track_caller]
fn expect_refusal<const N: usize>(arguments: [&str; N], code: i32, says: &[&str]) {
    let refused = run(arguments);
    let stderr = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(code), "{arguments:?}: {stderr}");
    assert!(refused.stdout.is_empty(), "{arguments:?}: {}", text(&refused.stdout));
    for part in says {
        assert!(stderr.contains(part), "{arguments:?}: no {part:?} in {stderr}");
    }
    if code == 1 {
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

/// A `stat --json` of these arguments, for half a second.
fn stat<S: Into<OsString>>(arguments: impl IntoIterator<Item = S>) -> Value {
    let stat = ["stat", "--json", "--duration", "500ms"].map(OsString::from);
    let stat = run(stat.into_iter().chain(arguments.into_iter().map(Into::into)));
    assert_eq!(stat.status.code(), Some(0), "{}", text(&stat.stderr));
    documents(&stat.stdout).remove(0)
}

/// The processes of the loops that were seen, without repetition.
fn pids(summary: &Value) -> Vec<u64> {
    let loops = summary["loops"].as_array().expect("a list").iter();
    let mut pids: Vec<u64> = loops
        .filter(|entry| entry["iterations"].as_u64() > Some(0))
        .map(|entry| entry["pid"].as_u64().expect("a number"))
        .collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

fn sorted<const N: usize>(workers: [&Worker; N]) -> Vec<u64> {
    let mut pids = workers.map(|worker| u64::from(worker.pid())).to_vec();
    pids.sort_unstable();
    pids
}

#[test]
fn what_makes_no_sense_is_refused_as_usage() {
    expect_refusal(["stat"], 2, &["nothing to trace", "--pid"]);
    expect_refusal(["trace", "--json"], 2, &["nothing to trace"]);
    expect_refusal(["stat", "--pid", "1", "--duration", "0"], 2, &["longer than nothing"]);
    expect_refusal(["stat", "--pid", "1", "--duration", "fast"], 2, &["250ms"]);
    expect_refusal(["stat", "--pid", "one"], 2, &["--pid"]);
    expect_refusal(["stat", "--all", "--pid", "1"], 2, &["--all"]);
    expect_refusal(["stat", "--pid", "1", "--buffer", "3"], 2, &["power of two"]);
    expect_refusal(["explain"], 2, &["explain"]);
}

/// A thread of a process that is not its first; it may be about to start.
fn thread_of(pid: u32) -> u32 {
    for _ in 0..200 {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it is running");
        let mut threads = threads.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        if let Some(thread) = threads.find(|tid| *tid != pid) {
            return thread;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("process {pid} starts no thread");
}

#[test]
fn what_is_no_process_is_refused_by_name() {
    // Beyond the largest pid that a kernel gives out.
    expect_refusal(["stat", "--pid", "4194305"], 1, &["there is no process 4194305"]);
    let worker = Worker::start(&expiring("cli-thread"));
    let thread = thread_of(worker.pid());
    let advice = format!("--pid {}", worker.pid());
    expect_refusal(["stat", "--pid", &thread.to_string()], 1, &["is a thread of process", &advice]);
    let kthreadd = std::fs::read_to_string("/proc/2/comm").unwrap_or_default();
    if kthreadd.trim() == "kthreadd" {
        expect_refusal(["stat", "--pid", "2"], 1, &["kthreadd", "a thread of the kernel"]);
    } else {
        say("SKIPPED: process 2 is no thread of the kernel in this pid namespace");
    }
    expect_refusal(["stat", "--cgroup", "/no/such/group"], 1, &["cgroup"]);
    expect_refusal(["stat", "--comm", "redis-["], 1, &["redis-["]);
}

#[test]
fn processes_are_named_by_number_and_by_name() {
    if !can_trace("processes_are_named_by_number_and_by_name") {
        return;
    }
    let spec = expiring("cli-loop");
    let [first, second, third] = [(); 3].map(|()| Worker::start(&spec));
    let list = format!("{},{}", first.pid(), second.pid());
    assert_eq!(pids(&stat(["--pid", &list])), sorted([&first, &second]));
    let repeated =
        ["--pid".to_owned(), second.pid().to_string(), "--pid".to_owned(), third.pid().to_string()];
    assert_eq!(pids(&stat(repeated)), sorted([&second, &third]));
    // By the process's name, which a thread's is not.
    let directory = tempfile::tempdir().expect("it can be made");
    let renamed = directory.path().join("cli-by-name");
    copy_program(Path::new(IOSCOPE), &renamed);
    let named = Worker::start_with(&spec, |command| {
        let arguments: Vec<OsString> = command.get_args().map(Into::into).collect();
        *command = Command::new(&renamed);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    });
    assert_eq!(pids(&stat(["--comm", "cli-by-?ame"])), sorted([&named]));
    named.end();
}

#[test]
fn a_cgroup_is_all_that_is_in_it() {
    if !can_trace("a_cgroup_is_all_that_is_in_it") {
        return;
    }
    let Some(group) = Cgroup::make() else {
        return say("SKIPPED a_cgroup_is_all_that_is_in_it: no cgroup2 file system that can be written");
    };
    let [inside, outside] = [(); 2].map(|()| Worker::start(&expiring("cli-cgroup")));
    std::fs::write(group.0.join("cgroup.procs"), inside.pid().to_string()).expect("it can be moved");
    let seen = pids(&stat([OsString::from("--cgroup"), group.0.clone().into()]));
    assert_eq!(seen, sorted([&inside]));
    inside.end();
    outside.end();
}

/// A cgroup of version 2; removed in the end, when its processes are gone.
struct Cgroup(PathBuf);

impl Cgroup {
    fn make() -> Option<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
        let root = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (point, kind) = (fields.next()?, fields.next()?);
            (kind == "cgroup2").then_some(point)
        })?;
        let path = Path::new(root).join(format!("ioscope-test-{}", std::process::id()));
        std::fs::create_dir(&path).ok()?;
        Some(Self(path))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A process that has ended leaves it a moment later.
        for _ in 0..100 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A shell that starts a loop as its child once it is told to; the second argument is the worker's.
const SHELL: &str = r#"read go; "$0" __worker "$1"; true"#;

#[test]
fn children_are_followed_on_demand() {
    if !can_trace("children_are_followed_on_demand") {
        return;
    }
    let spec =
        r#"{"call":"poll","pattern":"expire","timeout_ns":2000000,"iterations":50,"comm":"cli-child"}"#;
    for (follow, expected) in [(true, true), (false, false)] {
        let mut shell = Command::new("sh")
            .args(["-c", SHELL, IOSCOPE, spec])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("there is a shell");
        let mut command = Command::new(IOSCOPE);
        command.args(["stat", "--json", "--pid", &shell.id().to_string()]);
        if follow {
            command.arg("--follow");
        }
        let tracing = Tracing::start(command);
        // Its end is what the child's end waits for.
        let mut input = shell.stdin.take().expect("it is piped");
        std::io::Write::write_all(&mut input, b"go\ngo\n").expect("it listens");
        drop(input);
        assert!(wait(&mut shell).expect("it ends").success());
        let (code, documents) = tracing.end();
        assert_eq!(code, Some(0), "the run ends with its target");
        let iterations: Vec<_> = documents[0]["loops"]
            .as_array()
            .expect("a list")
            .iter()
            .filter(|entry| entry["comm"] == "cli-child")
            .map(|entry| entry["iterations"].as_u64())
            .collect();
        assert_eq!(iterations, if expected { vec![Some(50)] } else { vec![] }, "follow: {follow}");
    }
}

#[test]
fn a_run_ends_with_its_target_and_tells_what_was_seen() {
    if !can_trace("a_run_ends_with_its_target_and_tells_what_was_seen") {
        return;
    }
    for verb in ["stat", "trace"] {
        let worker = Worker::start(&expiring("cli-ends"));
        let mut command = Command::new(IOSCOPE);
        command.args([verb, "--json", "--pid", &worker.pid().to_string()]);
        let tracing = Tracing::start(command);
        wait_for_sleeps(worker.pid(), "cli-ends", 20);
        worker.end();
        let (code, documents) = tracing.end();
        assert_eq!(code, Some(0));
        if verb == "stat" {
            assert!(documents[0]["loops"][0]["iterations"].as_u64() > Some(5), "{documents:?}");
        } else {
            let (last, lines) = documents.split_last().expect("some lines");
            assert_eq!(last["dropped"]["ring_full"], 0, "{last}");
            let iterations: Vec<_> = lines.iter().filter(|line| line["type"] == "iteration").collect();
            assert!(iterations.len() > 5, "{lines:?}");
            for line in &iterations {
                assert_eq!((&line["call"], &line["timeout_ns"]), (&"epoll_pwait".into(), &2_000_000.into()));
                assert_eq!((&line["comm"], &line["result"]), (&"cli-ends".into(), &0.into()), "{line}");
            }
        }
    }
}

#[test]
fn what_finds_no_room_is_counted_and_the_probes_say_so_on_demand() {
    if !can_trace("what_finds_no_room_is_counted_and_the_probes_say_so_on_demand") {
        return;
    }
    let workers = [(); 3].map(|()| Worker::start(&expiring("cli-no-room")));
    let pids = workers.iter().map(|worker| worker.pid().to_string()).collect::<Vec<_>>().join(",");
    for verbose in [false, true] {
        let mut command = Command::new(IOSCOPE);
        command.args(["trace", "--json", "--duration", "300ms", "--max-loops", "1", "--pid", &pids]);
        if verbose {
            command.arg("--verbose");
        }
        let done = output(command);
        let stderr = text(&done.stderr);
        let documents = documents(&done.stdout);
        let dropped = &documents.last().expect("some lines")["dropped"];
        assert!(dropped["loops_full"].as_u64() > Some(1), "{dropped}");
        assert!(stderr.contains("no room for more loops (--max-loops makes more)"), "{stderr}");
        // Once on each CPU.
        let said = stderr.matches("ioscope: probes: no room for thread").count();
        let most = if verbose { std::thread::available_parallelism().map_or(1, usize::from) } else { 0 };
        assert!((usize::from(verbose)..=most).contains(&said), "{stderr}");
    }
}

#[test]
fn a_pipe_that_nobody_reads_any_more_is_no_error() {
    if !can_trace("a_pipe_that_nobody_reads_any_more_is_no_error") {
        return;
    }
    let worker = Worker::start(&expiring("cli-pipe"));
    for arguments in [&["trace"][..], &["trace", "--json"], &["stat", "--interval", "50ms"]] {
        let mut child = Command::new(IOSCOPE)
            .args(arguments)
            .args(["--pid", &worker.pid().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it can be run");
        let mut first = [0; 16];
        child.stdout.take().expect("it is piped").read_exact(&mut first).expect("it says something");
        let status = wait(&mut child).expect("it ends");
        let mut stderr = String::new();
        child.stderr.take().expect("it is piped").read_to_string(&mut stderr).expect("it is text");
        assert_eq!((status.code(), stderr.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn a_commands_own_exit_code_passes_through() {
    if !can_trace("a_commands_own_exit_code_passes_through") {
        return;
    }
    for (script, code) in
        [("exit 7", 7), ("exit 0", 0), ("kill -KILL $$", 128 + 9), ("kill -TERM $$", 128 + 15)]
    {
        for verb in ["stat", "trace"] {
            let done = run([verb, "--", "sh", "-c", script]);
            assert_eq!(done.status.code(), Some(code), "{verb} {script}: {}", text(&done.stderr));
        }
    }
    expect_refusal(
        ["stat", "--", "no-such-command-anywhere"],
        127,
        &["no-such-command-anywhere cannot be run"],
    );
    expect_refusal(["stat", "--", "/etc/passwd"], 126, &["/etc/passwd cannot be run"]);
}

#[test]
fn a_command_does_not_outlive_the_run() {
    if !can_trace("a_command_does_not_outlive_the_run") {
        return;
    }
    let mut command = Command::new(IOSCOPE);
    command.args(["stat", "--duration", "300ms", "--", "sh", "-c", "echo $$; exec sleep 1000"]);
    let done = output(command);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    let pid = text(&done.stdout).lines().next().expect("it says its number").to_owned();
    let gone = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        !Path::new("/proc").join(&pid).join("exe").exists()
    });
    assert!(gone, "process {pid} still runs");
}

/// A 32-bit program for x86: sleeps a second, by `int 0x80`, for ever.
fn thirty_two_bit_program() -> Vec<u8> {
    const BASE: u32 = 0x0804_8000;
    const HEADERS: u32 = 52 + 32;
    const TIME: u32 = BASE + HEADERS + 16;
    let mut code = vec![0xb8, 162, 0, 0, 0, 0xbb]; // mov eax, nanosleep; mov ebx,
    code.extend(TIME.to_le_bytes()); //              the time
    code.extend([0x31, 0xc9, 0xcd, 0x80, 0xeb, 0xf0]); // xor ecx, ecx; int 0x80; jmp to the start
    code.extend([1_u32, 0].map(u32::to_le_bytes).concat());
    let size = HEADERS + u32::try_from(code.len()).expect("it is short");
    let mut program = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0".to_vec(); // ELF32, executable, i386
    program.extend([1, BASE + HEADERS, 52, 0, 0].map(u32::to_le_bytes).concat());
    program.extend([52, 32, 1, 0, 0, 0].map(u16::to_le_bytes).concat());
    program.extend([1, 0, BASE, BASE, size, size, 5, 4096].map(u32::to_le_bytes).concat());
    program.extend(code);
    program
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_32_bit_program_is_refused_by_name() {
    use std::os::unix::fs::PermissionsExt as _;

    let directory = tempfile::tempdir().expect("it can be made");
    let path = directory.path().join("old-server");
    let written = directory.path().join("written");
    std::fs::write(&written, thirty_two_bit_program()).expect("it can be written");
    std::fs::set_permissions(&written, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    copy_program(&written, &path);
    let mut child = match Command::new(&path).spawn() {
        Ok(child) => child,
        Err(error) => {
            return say(&format!(
                "SKIPPED a_32_bit_program_is_refused_by_name: this kernel runs none: {error}"
            ));
        }
    };
    let pid = child.id().to_string();
    // The kernel lets go of the parent before it gives the child its new name.
    let name = || std::fs::read_to_string(format!("/proc/{pid}/comm")).expect("it is running");
    for _ in 0..1000 {
        if name().trim_end() == "old-server" {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let refused = run(["stat", "--duration", "100ms", "--pid", &pid]);
    child.kill().expect("it is our child");
    child.wait().expect("it is our child");
    let stderr = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("old-server") && stderr.contains("32-bit"), "{stderr}");
}
