//! `ioscope stat --folded` and `--flamegraph`: the stacks of stalls as files that other tools read.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ioscope::demo::{Pattern, Slice, Spec, Work};
use ioscope_common::WaitCall;

use support::again::up_to_three_times;
use support::ioscope::{IOSCOPE, can_trace, output, text};

const MS: u64 = 1_000_000;

/// Runs a loop whose slices do this to its end under `ioscope stat` with these arguments.
fn stat(iterations: u64, work: Work, arguments: &[&str]) -> Output {
    let spec = Spec {
        iterations: Some(iterations),
        work: vec![Slice::always(work)],
        ..Spec::new(WaitCall::EpollPwait, Pattern::AlwaysReady)
    };
    let mut command = Command::new(IOSCOPE);
    command.arg("stat").args(arguments).args([
        "--",
        "sh",
        "-c",
        "printf '\\n\\n' | exec \"$0\" __worker \"$1\" > /dev/null",
    ]);
    command.arg(IOSCOPE).arg(serde_json::to_string(&[spec]).expect("it is JSON"));
    output(command)
}

/// Each line's functions, the outermost first, and its nanoseconds.
fn folded(text: &str) -> Vec<(Vec<&str>, u64)> {
    text.lines()
        .map(|line| {
            let (stack, weight) = line.rsplit_once(' ').expect("a weight");
            (stack.split(';').collect(), weight.parse().expect("a number"))
        })
        .collect()
}

/// The share of the time that the lines have that this holds for.
fn share(lines: &[(Vec<&str>, u64)], holds: impl Fn(&[&str]) -> bool) -> f64 {
    let sum =
        |lines: &mut dyn Iterator<Item = &(Vec<&str>, u64)>| lines.map(|line| line.1).sum::<u64>() as f64;
    sum(&mut lines.iter().filter(|line| holds(&line.0))) / sum(&mut lines.iter())
}

/// Fails unless each element of the document is closed, in order: what an XML reader refuses first.
fn check_well_formed(document: &str) {
    let mut open = Vec::new();
    let mut rest = document;
    while let Some(start) = rest.find('<') {
        rest = &rest[start..];
        let end = match () {
            () if rest.starts_with("<!--") => rest.find("-->").map(|at| at + 3),
            () if rest.starts_with("<![CDATA[") => rest.find("]]>").map(|at| at + 3),
            () => rest.find('>').map(|at| at + 1),
        };
        let (tag, after) = rest.split_at(end.unwrap_or_else(|| panic!("it is not closed: {rest}")));
        rest = after;
        let name = tag.trim_matches(['<', '>', '/', '?', '!']).split_whitespace().next().unwrap_or_default();
        if let Some(closed) = tag.strip_prefix("</") {
            assert_eq!(open.pop(), Some(closed.trim_end_matches('>').trim()), "in {tag}");
        } else if !(tag.ends_with("/>") || tag.starts_with("<?") || tag.starts_with("<!")) {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "not closed: {open:?}");
}

fn written(directory: &Path, name: &str) -> (PathBuf, String) {
    let path = directory.join(name);
    let shown = path.to_str().expect("it is text").to_owned();
    (path, shown)
}

#[test]
fn a_spin_is_on_top_of_both_files() {
    if !can_trace("a_spin_is_on_top_of_both_files") {
        return;
    }
    up_to_three_times(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let (folded_path, folded_file) = written(directory.path(), "stalls.folded");
        let (svg_path, svg_file) = written(directory.path(), "stalls.svg");
        let traced =
            stat(4, Work::ParseJson { ns: 200 * MS }, &["--folded", &folded_file, "--flamegraph", &svg_file]);
        assert_eq!(traced.status.code(), Some(0), "{}", text(&traced.stderr));
        assert!(text(&traced.stdout).contains("stall of"), "the summary is there, too");
        let content = std::fs::read_to_string(folded_path).expect("it was written");
        let lines = folded(&content);
        // It looks at its thread's clock now and then, which is a system call, and takes longer where others want the CPU.
        let spins = |function: &&str| function.contains("demo_parse_large_json");
        let spinning = share(&lines, |stack| stack.iter().any(spins));
        let on_top = share(&lines, |stack| stack.iter().rev().take(2).any(spins));
        assert!(spinning >= 0.95 && on_top >= 0.6, "{spinning}, {on_top}: {content}");
        // Below the name of its loop's thread, which each stack begins with.
        let names: std::collections::BTreeSet<_> = lines.iter().map(|line| line.0[0]).collect();
        assert_eq!(names.len(), 1, "{names:?}");
        let seen: u64 = lines.iter().map(|line| line.1).sum();
        // From the warning threshold on, of three slices at least; the fourth ends with its thread.
        assert!((300 * MS..=900 * MS).contains(&seen), "{seen} ns");
        let graph = std::fs::read_to_string(svg_path).expect("it was written");
        check_well_formed(&graph);
        assert!(graph.contains("<svg") && graph.contains("demo_parse_large_json"), "{graph}");
    });
}

/// Both are in one file: they are told apart.
#[test]
fn a_sleep_says_what_it_was_in() {
    if !can_trace("a_sleep_says_what_it_was_in") {
        return;
    }
    up_to_three_times(|| {
        let traced = stat(3, Work::SleepInHandler { ns: 200 * MS }, &["--folded", "-"]);
        let content = text(&traced.stdout);
        let lines = folded(&content);
        let asleep = share(&lines, |stack| {
            stack.last() == Some(&"[blocked in nanosleep]")
                && stack.iter().any(|function| function.contains("demo_sleep_in_handler"))
        });
        assert!(asleep >= 0.9, "{content}");
    });
}

#[test]
fn what_cannot_be_written_is_told_in_a_line() {
    if !can_trace("what_cannot_be_written_is_told_in_a_line") {
        return;
    }
    let line = |arguments: &[&str]| {
        let traced = stat(2, Work::ParseJson { ns: 150 * MS }, arguments);
        (traced.status.code(), text(&traced.stderr), text(&traced.stdout))
    };
    // Before anything is traced.
    let (code, errors, printed) = line(&["--folded", "/nowhere/stalls.folded"]);
    let expected =
        "ioscope: /nowhere/stalls.folded cannot be written: No such file or directory (os error 2)\n";
    assert_eq!((code, errors.as_str(), printed.as_str()), (Some(1), expected, ""));
    // When all was traced: the summary is there.
    for option in ["--folded", "--flamegraph"] {
        let (code, errors, printed) = line(&[option, "/dev/full"]);
        let expected = "ioscope: /dev/full cannot be written: No space left on device (os error 28)\n";
        assert_eq!((code, errors.as_str()), (Some(1), expected), "{option}");
        assert!(printed.contains("stall of"), "{printed}");
    }
    let (code, errors, _) = line(&["--folded", "-", "--flamegraph", "-"]);
    assert_eq!((code, errors.lines().count()), (Some(2), 1), "{errors}");
}

/// A picture all the same, that says so.
#[test]
fn without_a_stall_there_is_nothing_to_draw() {
    if !can_trace("without_a_stall_there_is_nothing_to_draw") {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let (folded_path, folded_file) = written(directory.path(), "stalls.folded");
    let traced = stat(20, Work::Burn { ns: 1000 }, &["--folded", &folded_file, "--flamegraph", "-"]);
    let graph = text(&traced.stdout);
    check_well_formed(&graph);
    assert!(graph.contains("no stall was seen"), "{graph}");
    assert_eq!(std::fs::read_to_string(folded_path).expect("it was written"), "");
    assert_eq!(traced.status.code(), Some(0));
}
