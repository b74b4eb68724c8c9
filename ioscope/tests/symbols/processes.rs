//! Processes that are elsewhere, become another, lose their files, or end.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use ioscope::symbols::{End, ProcessError, Resolver};

use crate::programs::{Running, Workshop, skip};
use crate::{SPIN, gdb, have_gdb, names, resolve, same_as_gdb};

/// In namespaces of its own, where `/tmp`, the program's path and its number are others.
#[cfg(target_arch = "x86_64")]
#[test]
fn a_process_in_other_namespaces_is_seen_as_it_sees_itself() {
    let workshop = Workshop::new();
    if !have_gdb() {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        return skip("making namespaces takes root");
    }
    if workshop.build("spin_jit.c", &["-O2", "-fomit-frame-pointer"]).is_none() {
        return;
    }
    let script = format!(
        "mount -t tmpfs none /tmp && mount -t tmpfs none /mnt && cp /proc/self/fd/9 /mnt/inside && exec /mnt/inside \
         9<&- < /dev/null # {}",
        workshop.path("program").display()
    );
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "sh",
        "-c",
        &format!("exec 9< \"$0\"; {script}"),
    ]);
    command.arg(workshop.path("program"));
    let running = Running::command(&mut command);
    // unshare forks: the program is its child.
    let children = format!("/proc/{0}/task/{0}/children", running.pid);
    let pid: u32 = fs::read_to_string(children).unwrap().trim().parse().unwrap();
    let seen = gdb::snapshot(pid);
    let mut resolver = Resolver::new();
    let (stack, end) = resolve(&mut resolver, pid, &seen);
    assert_eq!(names(&stack)[..3], ["JS:*spinKnown", "call", "main"], "{stack:#?}");
    assert_eq!((stack.frames[2].module.as_deref(), end), (Some("/mnt/inside"), End::Bottom));
    assert!(!Path::new("/mnt/inside").exists(), "it is not to be seen from here");
}

/// The same number, another program: names of the old one would be wrong.
#[cfg(target_arch = "x86_64")]
#[test]
fn another_program_in_the_same_process_is_noticed() {
    let (workshop, next) = (Workshop::new(), Workshop::new());
    if !have_gdb() {
        return;
    }
    let flags = ["-O2", "-no-pie"];
    let (Some(first), Some(second)) = (workshop.build("spin_jit.c", &flags), next.build("spin.c", &flags))
    else {
        return;
    };
    let running = Running::command(Command::new(first).arg(&second));
    let pid = running.pid;
    let mut resolver = Resolver::new();
    let before = gdb::snapshot(pid);
    let (stack, _) = resolve(&mut resolver, pid, &before);
    assert_eq!(names(&stack)[..3], ["JS:*spinKnown", "call", "main"], "{stack:#?}");
    fs::remove_file(format!("/tmp/perf-{pid}.map")).unwrap();

    let number = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(number, rustix::process::Signal::USR1).unwrap();
    let exe = format!("/proc/{pid}/exe");
    while fs::read_link(&exe).unwrap_or_default() != second {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    std::thread::sleep(std::time::Duration::from_millis(300));
    let (stack, _) = resolve(&mut resolver, pid, &gdb::snapshot(pid));
    assert_eq!(names(&stack)[..SPIN.len()], SPIN, "{stack:#?}");
}

/// Replaced on disk while it runs, as an upgrade does.
#[test]
fn a_program_whose_file_was_deleted_keeps_its_names() {
    let workshop = Workshop::new();
    if !have_gdb() {
        return;
    }
    let Some(program) = workshop.build("spin.c", &["-O2", "-fomit-frame-pointer"]) else { return };
    let running = Running::start(&program);
    let seen = gdb::snapshot(running.pid);
    fs::remove_file(&program).unwrap();
    fs::write(&program, "something else").unwrap();
    let (stack, end) = resolve(&mut Resolver::new(), running.pid, &seen);
    assert_eq!(names(&stack)[..SPIN.len()], SPIN, "{stack:#?}");
    assert_eq!(end, End::Bottom);
}

/// With no more rights than ioscope keeps once it traces, `CAP_SYS_ADMIN` and `CAP_SYSLOG` not among them, a
/// library that was replaced has names; and without what that takes, everything else has.
#[test]
fn the_rights_that_ioscope_keeps_are_enough() {
    let workshop = Workshop::new();
    if !have_gdb() {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        return skip("only root has rights to give up");
    }
    let shared =
        ["-O2", "-fomit-frame-pointer", "-fPIC", "-fvisibility=protected", "-shared", "-Dmain=library_main"];
    let Some(library) = workshop.build("spin.c", &shared) else { return };
    let moved = workshop.path("libspin.so");
    fs::rename(library, &moved).unwrap();
    fs::write(
        workshop.path("main.c"),
        "int library_main(void); int main(void) { return library_main() + 1; }",
    )
    .unwrap();
    let program = workshop.path("uses");
    let rpath = format!("-Wl,-rpath,{}", moved.parent().unwrap().display());
    workshop.tool("cc", &[&"-O2", &"-o", &program, &"main.c", &moved, &rpath]);
    let running = Running::command(Command::new(&program).uid(1));
    let seen = gdb::snapshot(running.pid);
    fs::remove_file(&program).unwrap();
    fs::remove_file(&moved).unwrap();
    for may_reach_deleted in [true, false] {
        // Rights belong to a thread.
        let look = || {
            let mut resolver = Resolver::new();
            ioscope::probe::privileges::keep_what_reading_takes().unwrap();
            if !may_reach_deleted {
                let set = caps::CapSet::Effective;
                caps::drop(None, set, caps::Capability::CAP_CHECKPOINT_RESTORE).unwrap();
            }
            let (stack, end) = resolve(&mut resolver, running.pid, &seen);
            let found = names(&stack);
            if may_reach_deleted {
                assert_eq!(found[..SPIN.len() - 1], SPIN[..SPIN.len() - 1], "{stack:#?}");
                assert_eq!((found[SPIN.len() - 1], found[SPIN.len()]), ("library_main", "main"));
                same_as_gdb(&stack, &seen);
                assert_eq!(end, End::Bottom);
            } else {
                assert!(found[0].starts_with("libspin.so+0x"), "{stack:#?}");
                let main = resolver.resolve(running.pid, &[], &[main_of(&program, running.pid)]);
                assert_eq!(names(&main), ["main"], "the executable itself is always reached");
            }
            if let Err(error) = resolver.kernel_symbols() {
                skip(&error.to_string());
            }
        };
        std::thread::scope(|scope| scope.spawn(look).join().unwrap());
    }
}

/// The address of `main`, from the symbol table of the program that the process runs.
fn main_of(program: &Path, pid: u32) -> u64 {
    let number = |digits| u64::from_str_radix(digits, 16).expect("a number");
    let output = Command::new("nm").arg(format!("/proc/{pid}/exe")).output().expect("nm runs");
    let symbols = String::from_utf8_lossy(&output.stdout);
    let offset = symbols.lines().find_map(|line| line.strip_suffix(" T main")).expect("it has a main");
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("it is running");
    let name = program.to_str().expect("a plain path");
    let first = maps.lines().find(|line| line.contains(name)).expect("it is mapped");
    number(first.split('-').next().unwrap_or_default()) + number(offset)
}

#[test]
fn a_process_that_has_ended_keeps_its_names_until_it_is_forgotten() {
    let workshop = Workshop::new();
    if !have_gdb() {
        return;
    }
    let Some(program) = workshop.build("spin.c", &["-O2", "-fomit-frame-pointer"]) else { return };
    let running = Running::start(&program);
    let pid = running.pid;
    let seen = gdb::snapshot(pid);
    let mut resolver = Resolver::new();
    resolver.prepare(pid).unwrap();
    running.kill();
    std::thread::sleep(std::time::Duration::from_millis(300));

    let (stack, end) = resolve(&mut resolver, pid, &seen);
    assert_eq!(names(&stack)[..SPIN.len()], SPIN, "{stack:#?}");
    assert_eq!(end, End::Bottom);

    resolver.forget(pid);
    assert!(matches!(resolver.prepare(pid), Err(ProcessError::Gone(gone)) if gone == pid));
    let found = resolver.unwind(pid, &seen.registers, &seen.stack);
    assert_eq!((found.addresses.as_slice(), found.end), (&[seen.registers.ip][..], End::Cut));
    let stack = resolver.resolve(pid, &[], &found.addresses);
    assert_eq!(names(&stack), [format!("{:#x}", seen.registers.ip)]);
    assert_eq!(stack.frames[0].module, None);
}
