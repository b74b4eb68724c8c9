//! Runtimes that interpret, or compile at run time.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use ioscope::symbols::{End, Origin, Resolver};

use crate::programs::{Running, Workshop, skip};
use crate::{gdb, have_gdb, names, resolve, same_as_gdb};

/// The second one makes interpreted functions frames of their own.
const NODE_FLAGS: [&str; 2] = ["--perf-basic-prof", "--interpreted-frames-native-stack"];

/// A node that spins in a function of the script.
pub(crate) fn node(script: &Path) -> Option<Running> {
    if Command::new("node").arg("--version").output().is_err() {
        skip("this machine lacks node");
        return None;
    }
    let text = "\
function spinKnown(n) { let x = n; for (;;) { x = (x * 31 + 7) % 1000003; } }
function callsIt(n) { return spinKnown(n) + 1; }
setTimeout(() => { console.log('ready'); callsIt(5); }, 1);
";
    fs::write(script, text).expect("there is room");
    let mut command = Command::new("node");
    // It leaves a log where it runs.
    let directory = script.parent().expect("it is in a directory");
    command.args(NODE_FLAGS).arg(script).current_dir(directory).process_group(0);
    let running = Running::command(&mut command);
    // Until it is compiled.
    std::thread::sleep(std::time::Duration::from_millis(500));
    Some(running)
}

/// node tells of the functions that it compiles; the stack goes through them into node itself, down to its start.
#[test]
fn functions_of_node_have_names() {
    if !have_gdb() {
        return;
    }
    let workshop = Workshop::new();
    let script = workshop.path("stall.js");
    let Some(running) = node(&script) else { return };
    let seen = gdb::snapshot(running.pid);
    let mut resolver = Resolver::new();
    let (stack, end) = resolve(&mut resolver, running.pid, &seen);
    fs::remove_file(format!("/tmp/perf-{}.map", running.pid)).unwrap();
    let found = names(&stack);
    let spins = stack
        .frames
        .iter()
        .find(|frame| frame.name.ends_with("spinKnown"))
        .unwrap_or_else(|| panic!("{stack:#?}"));
    assert_eq!(spins.origin, Origin::Jit);
    let location = spins.location.as_ref().unwrap();
    assert_eq!((&*location.file, location.line), (script.to_str().unwrap(), Some(1)));
    let place = |name: &str| {
        found.iter().position(|found| found.contains(name)).unwrap_or_else(|| panic!("{name}: {found:#?}"))
    };
    let order = ["spinKnown", "callsIt", "uv_run", "node::Start", "main"].map(place);
    assert!(order.is_sorted(), "{found:#?}");
    assert_eq!(end, End::Bottom);
}

/// The interpreter's own functions, with the call of the sleep innermost: a thread that is asleep has a stack as
/// well. From Python 3.12 on, with `-X perf`, there are Python's functions too.
#[test]
fn a_sleeping_python_shows_the_interpreter() {
    if !have_gdb() {
        return;
    }
    if Command::new("python3").arg("--version").output().is_err() {
        return skip("this machine lacks python3");
    }
    let script = "\
import time
def blocks(): time.sleep(1000)
print('ready', flush=True)
blocks()
";
    let running = Running::command(Command::new("python3").args(["-X", "perf", "-c", script]));
    let seen = gdb::snapshot(running.pid);
    let (stack, end) = resolve(&mut Resolver::new(), running.pid, &seen);
    assert_eq!(end, End::Bottom);
    let found = names(&stack);
    assert!(found.iter().any(|name| name.contains("sleep")), "{found:#?}");
    assert!(found.iter().any(|name| name.contains("Eval")), "{found:#?}");

    let knows = "import sys; sys.exit(not hasattr(sys, 'is_stack_trampoline_active'))";
    if !Command::new("python3").args(["-c", knows]).status().is_ok_and(|status| status.success()) {
        same_as_gdb(&stack, &seen);
        return skip("this python3 is older than 3.12: it has no names of Python's functions");
    }
    fs::remove_file(format!("/tmp/perf-{}.map", running.pid)).unwrap();
    let place = |name: &str| {
        found.iter().position(|found| *found == name).unwrap_or_else(|| panic!("{name}: {found:#?}"))
    };
    let (blocks, module) = (place("py::blocks"), place("py::<module>"));
    assert!(blocks < module, "{found:#?}");
    let location = stack.frames[blocks].location.as_ref().map(ToString::to_string);
    assert_eq!((stack.frames[blocks].origin, location.as_deref()), (Origin::Jit, Some("<string>")));
}
