//! Names and stacks of real programs, built in many ways. The second source is gdb.

mod cost;
mod gdb;
mod processes;
mod programs;
mod runtimes;

use std::fs;
use std::path::Path;

use gdb::Snapshot;
use ioscope::symbols::{End, Frame, Origin, Resolver, Stack};
use programs::{Running, Workshop, skip};

/// What spins, and who called it, in `spin.c`.
const SPIN: [&str; 8] =
    ["spin_known", "inner_layer", "outer_layer", "recurse", "recurse", "recurse", "recurse", "main"];

/// Whether there is a gdb, and whether it may look at processes that it has not started.
fn have_gdb() -> bool {
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    let may = rustix::process::geteuid().is_root() || ["", "0"].contains(&scope.trim());
    if !gdb::is_there() {
        skip("this machine lacks gdb");
    } else if !may {
        skip("gdb may not attach (kernel.yama.ptrace_scope)");
    } else {
        return true;
    }
    false
}

fn names(stack: &Stack) -> Vec<&str> {
    stack.frames.iter().map(|frame| &*frame.name).collect()
}

/// Unwinds and names what gdb saw.
fn resolve(resolver: &mut Resolver, pid: u32, seen: &Snapshot) -> (Stack, End) {
    let found = resolver.unwind(pid, &seen.registers, &seen.stack);
    assert_eq!(found.addresses[0], seen.registers.ip);
    (resolver.resolve(pid, &[], &found.addresses), found.end)
}

/// The function's name without its arguments, `??` where there is only an offset: as gdb has it.
fn as_gdb_has_it(frame: &Frame) -> String {
    if frame.name.contains("+0x") {
        return "??".to_owned();
    }
    match frame.name.split('(').next().unwrap_or_default() {
        // Two names of one address: in a static program its symbol table has both.
        "__libc_start_main" => "__libc_start_main_impl".to_owned(),
        name => name.to_owned(),
    }
}

/// The whole stack, down to where the program starts, is the same as gdb's.
#[track_caller]
fn same_as_gdb(stack: &Stack, seen: &Snapshot) {
    let ours: Vec<_> = stack.frames.iter().map(as_gdb_has_it).collect();
    assert_eq!(ours, seen.backtrace, "{stack:#?}");
}

/// Builds `spin.c`, runs it, and expects the known stack, equal to gdb's.
#[track_caller]
fn expect_spin(flags: &[&str]) {
    let workshop = Workshop::new();
    let Some(program) = workshop.build("spin.c", flags) else { return };
    expect_spinning(&program);
}

#[track_caller]
fn expect_spinning(program: &Path) {
    let running = Running::start(program);
    let seen = gdb::snapshot(running.pid);
    let (stack, end) = resolve(&mut Resolver::new(), running.pid, &seen);
    assert_eq!(names(&stack)[..SPIN.len()], SPIN);
    assert_eq!(end, End::Bottom);
    same_as_gdb(&stack, &seen);
    let module = program.to_str().expect("a plain path");
    for frame in &stack.frames[..SPIN.len()] {
        assert_eq!((frame.module.as_deref(), frame.origin), (Some(module), Origin::User), "{frame:?}");
    }
}

#[test]
fn with_frame_pointers() {
    if have_gdb() {
        expect_spin(&["-O2", "-fno-omit-frame-pointer"]);
    }
}

#[test]
fn without_frame_pointers() {
    if have_gdb() {
        expect_spin(&["-O2", "-fomit-frame-pointer"]);
    }
}

/// A thread's stack ends where threads begin.
#[test]
fn in_a_thread() {
    let workshop = Workshop::new();
    if !have_gdb() {
        return;
    }
    let Some(program) = workshop.build("spin.c", &["-O2", "-fomit-frame-pointer", "-pthread", "-DTHREAD"])
    else {
        return;
    };
    let running = Running::start(&program);
    let seen = gdb::snapshot_of_second_thread(running.pid, 3000);
    let (stack, end) = resolve(&mut Resolver::new(), running.pid, &seen);
    assert_eq!(names(&stack)[..7], SPIN[..7]);
    assert_eq!(names(&stack)[7], "thread_main");
    same_as_gdb(&stack, &seen);
    assert_eq!(end, End::Bottom);
}

#[test]
fn static_and_position_independent() {
    if have_gdb() {
        expect_spin(&["-O2", "-fomit-frame-pointer", "-static-pie"]);
    }
}

#[test]
fn not_position_independent() {
    if have_gdb() {
        expect_spin(&["-O2", "-fomit-frame-pointer", "-no-pie"]);
    }
}

#[test]
fn without_an_index_of_the_unwind_tables() {
    if have_gdb() {
        expect_spin(&["-O2", "-fomit-frame-pointer", "-Wl,--no-eh-frame-hdr"]);
    }
}

/// From a handler to what the signal interrupted.
#[test]
fn signal_handlers_have_the_interrupted_code_below_them() {
    if !have_gdb() {
        return;
    }
    let workshop = Workshop::new();
    let flags = ["-O2", "-fomit-frame-pointer", "-DSIGNAL"];
    let Some(program) = workshop.build("spin.c", &flags) else { return };
    let running = Running::start(&program);
    let mut seen = gdb::snapshot(running.pid);
    let (stack, end) = resolve(&mut Resolver::new(), running.pid, &seen);
    assert_eq!(seen.backtrace[1], "<signal handler called>");
    let returns = stack.frames[1].name.to_string();
    assert!(
        ["__restore_rt", "__kernel_rt_sigreturn"].contains(&&*returns) || returns.contains("+0x"),
        "{returns}"
    );
    seen.backtrace[1] = as_gdb_has_it(&stack.frames[1]);
    same_as_gdb(&stack, &seen);
    assert_eq!(end, End::Bottom);
    let found = names(&stack);
    assert!(found.contains(&"inner_layer") && found.contains(&"main"), "{found:?}");
}

/// Functions that are compiled into their caller are frames of their own, with the lines of the calls.
#[test]
fn inlined_functions_have_frames_and_lines() {
    if !have_gdb() {
        return;
    }
    let workshop = Workshop::new();
    let flags = ["-O2", "-g", "-fomit-frame-pointer", "-DINLINED"];
    let Some(program) = workshop.build("spin.c", &flags) else { return };
    let running = Running::start(&program);
    let seen = gdb::snapshot(running.pid);
    let (stack, end) = resolve(&mut Resolver::new(), running.pid, &seen);
    same_as_gdb(&stack, &seen);
    assert_eq!(end, End::Bottom);
    assert_eq!(names(&stack)[..4], SPIN[..4]);
    let inlined: Vec<_> = stack.frames.iter().map(|frame| frame.inlined).collect();
    assert_eq!(inlined[..5], [false, true, true, false, false]);

    let source =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/spin.c")).unwrap();
    let line_of = |text: &str| source.lines().position(|line| line.contains(text)).unwrap() + 1;
    let calls =
        ["    spin_known(depth);", "return inner_layer", "? recurse(depth - 1)", "? recurse(depth - 1)"];
    for (frame, call) in stack.frames[1..].iter().zip(calls) {
        let location = frame.location.as_ref().unwrap_or_else(|| panic!("{frame:?}"));
        assert!(location.file.ends_with("tests/programs/spin.c"), "{location}");
        assert_eq!(location.line.map(|line| line as usize), Some(line_of(call)), "{frame:?}");
    }
}

/// The stack is found all the same; instead of names there are offsets, from which the names can be had where the
/// symbols are.
#[test]
fn stripped() {
    if !have_gdb() {
        return;
    }
    let workshop = Workshop::new();
    let Some(program) = workshop.build("spin.c", &["-O2", "-fomit-frame-pointer"]) else { return };
    let stripped = workshop.path("stripped");
    workshop.tool("strip", &[&"-o", &stripped, &program]);
    let running = Running::start(&stripped);
    let seen = gdb::snapshot(running.pid);
    let (stack, end) = resolve(&mut Resolver::new(), running.pid, &seen);
    assert_eq!(end, End::Bottom);
    assert_eq!(stack.frames.len(), seen.backtrace.len(), "{stack:#?}\n{seen:#?}");
    for (depth, (frame, name)) in stack.frames.iter().zip(SPIN).enumerate() {
        let offset = frame.name.strip_prefix("stripped+0x").unwrap_or_else(|| panic!("{frame:?}"));
        // Of a call, the offset is that of the return address.
        let address = u64::from_str_radix(offset, 16).unwrap() - u64::from(depth > 0);
        let named = workshop.tool("addr2line", &[&"-f", &"-e", &program, &format!("{address:#x}")]);
        assert_eq!(named.lines().next(), Some(name), "{frame:?}");
    }
}

/// Splits the debug information off `spin.c`'s program, and gives both.
fn split(workshop: &Workshop, flags: &[&str]) -> Option<()> {
    workshop.build("spin.c", flags)?;
    workshop.tool("objcopy", &[&"--only-keep-debug", &"program", &"program.debug"]);
    workshop.tool("strip", &[&"program"]);
    workshop.tool("objcopy", &[&"--add-gnu-debuglink=program.debug", &"program"]);
    Some(())
}

#[test]
fn stripped_with_a_separate_debug_file() {
    let flags = ["-O2", "-g", "-fomit-frame-pointer"];
    for place in ["program.debug", ".debug/program.debug"] {
        // By checksum: without a build-id on either side.
        for build_id in ["-Wl,--build-id=sha1", "-Wl,--build-id=none"] {
            let workshop = Workshop::new();
            if !have_gdb() || split(&workshop, &[&flags[..], &[build_id]].concat()).is_none() {
                return;
            }
            fs::create_dir(workshop.path(".debug")).unwrap();
            fs::rename(workshop.path("program.debug"), workshop.path(place)).unwrap();
            expect_spinning(&workshop.path("program"));
        }
    }
}

/// Debug information of another build would give wrong names: none are better.
#[test]
fn a_debug_file_of_another_build_is_not_believed() {
    for build_id in ["-Wl,--build-id=sha1", "-Wl,--build-id=none"] {
        let (workshop, other) = (Workshop::new(), Workshop::new());
        let flags = ["-O2", "-g", build_id];
        if !have_gdb()
            || split(&workshop, &flags).is_none()
            || split(&other, &[&flags[..], &["-DINLINED", "-O1"]].concat()).is_none()
        {
            return;
        }
        fs::copy(other.path("program.debug"), workshop.path("program.debug")).unwrap();
        let running = Running::start(workshop.path("program"));
        let seen = gdb::snapshot(running.pid);
        let (stack, _) = resolve(&mut Resolver::new(), running.pid, &seen);
        assert!(names(&stack)[..6].iter().all(|name| name.starts_with("program+0x")), "{stack:#?}");
    }
}

#[test]
fn names_of_cpp_are_demangled() {
    for flags in [["-O2", "-g"], ["-O2", "-g0"]] {
        let workshop = Workshop::new();
        if !have_gdb() {
            return;
        }
        let Some(program) = workshop.build("spin.cpp", &flags) else { return };
        let running = Running::start(&program);
        let seen = gdb::snapshot(running.pid);
        let (stack, end) = resolve(&mut Resolver::new(), running.pid, &seen);
        let expected =
            ["layers::Spinner<int>::spin_known(int)", "layers::turn(layers::Spinner<int>&, int)", "main"];
        for (name, expected) in names(&stack).iter().zip(expected) {
            // What the compiler made of it may be named behind: `[clone .isra.0]`.
            assert!(name.starts_with(expected), "{name} is not {expected}");
        }
        assert_eq!((stack.frames.len(), end), (seen.backtrace.len(), End::Bottom), "{stack:#?}\n{seen:#?}");
    }
}

#[test]
fn names_of_rust_are_demangled() {
    let workshop = Workshop::new();
    if !have_gdb() {
        return;
    }
    let flags = ["--edition=2024", "-O", "-Cforce-frame-pointers=no", "-g"];
    let Some(program) = workshop.build("spin.rs", &flags) else { return };
    let running = Running::start(&program);
    let seen = gdb::snapshot(running.pid);
    let (stack, end) = resolve(&mut Resolver::new(), running.pid, &seen);
    let plain: Vec<_> = names(&stack).iter().map(|name| name.replace("::<usize>", "")).collect();
    assert_eq!(
        plain[..3],
        ["spin::layers::spin_known", "spin::layers::Turn::run", "spin::main"].map(str::to_owned),
        "{stack:#?}"
    );
    assert_eq!((stack.frames.len(), end), (seen.backtrace.len(), End::Bottom), "{stack:#?}\n{seen:#?}");
    let location = stack.frames[1].location.as_ref().unwrap();
    assert!(location.file.ends_with("spin.rs") && location.line.is_some(), "{location}");
}

/// A function that was made at run time has no tables: frame pointers lead out of it, tables on.
#[cfg(target_arch = "x86_64")]
#[test]
fn functions_made_at_run_time_have_the_names_of_the_perf_map() {
    let workshop = Workshop::new();
    if !have_gdb() {
        return;
    }
    let Some(program) = workshop.build("spin_jit.c", &["-O2", "-fomit-frame-pointer"]) else { return };
    let running = Running::start(&program);
    let seen = gdb::snapshot(running.pid);
    let mut resolver = Resolver::new();
    let (stack, end) = resolve(&mut resolver, running.pid, &seen);
    assert_eq!(names(&stack)[..3], ["JS:*spinKnown", "call", "main"], "{stack:#?}");
    assert_eq!(end, End::Bottom);
    let made = &stack.frames[0];
    assert_eq!((made.origin, made.module.as_deref()), (Origin::Jit, None));
    assert_eq!(made.location.as_ref().unwrap().to_string(), "/srv/app.js:3");
    fs::remove_file(format!("/tmp/perf-{}.map", running.pid)).unwrap();
}

/// However little of the stack was copied, what was found is the beginning of the whole, and it is said to be cut.
#[test]
fn a_short_copy_gives_a_short_stack() {
    let workshop = Workshop::new();
    if !have_gdb() {
        return;
    }
    let Some(program) = workshop.build("spin.c", &["-O2", "-fomit-frame-pointer"]) else { return };
    let running = Running::start(&program);
    let seen = gdb::snapshot(running.pid);
    let mut resolver = Resolver::new();
    let whole = resolver.unwind(running.pid, &seen.registers, &seen.stack);
    let mut before = 0;
    for length in (0..2048).step_by(7) {
        let found = resolver.unwind(running.pid, &seen.registers, &seen.stack[..length]);
        assert!(whole.addresses.starts_with(&found.addresses), "{length}: {found:x?}");
        assert!(found.addresses.len() >= before && found.end == End::Cut || found == whole, "{length}");
        before = found.addresses.len();
    }
    assert!(before >= SPIN.len());
}

/// The kernel's functions by its own list, and a thread's place in it.
#[test]
fn kernel_addresses_have_names() {
    let mut resolver = Resolver::new();
    if let Err(error) = resolver.kernel_symbols() {
        return skip(&error.to_string());
    }
    let listing = fs::read_to_string("/proc/kallsyms").unwrap();
    let line = listing.lines().find(|line| line.ends_with(" T schedule")).unwrap();
    let schedule = u64::from_str_radix(&line[..16], 16).unwrap();
    let stack = resolver.resolve(std::process::id(), &[schedule, schedule + 1, 1], &[2]);
    assert_eq!(names(&stack), ["schedule", "schedule", "0x1", "0x2"]);
    let origins: Vec<_> = stack.frames.iter().map(|frame| frame.origin).collect();
    assert_eq!(origins, [Origin::Kernel, Origin::Kernel, Origin::Kernel, Origin::User]);
}
