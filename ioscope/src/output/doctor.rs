//! What `doctor` found, as text for 80 columns and as JSON.

use std::{collections::BTreeMap, io};

use serde::Serialize;
use unicode_width::UnicodeWidthStr as _;

/// All that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The version of the format: fields are added, never changed or taken away.
    pub schema: u32,
    /// ioscope's version.
    pub ioscope: &'static str,
    /// Whether ioscope can trace here, by this process.
    pub works: bool,
    /// How long it took to load all probes, attach them and take them away again, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attached_in_ms: Option<u64>,
    /// How much of that it took to take them away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detached_in_ms: Option<u64>,
    /// If not, why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// And what to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// Facts of the machine and the process, by name.
    pub machine: Vec<Fact>,
    /// What the process may do.
    pub privileges: Vec<Item>,
    /// What the kernel offers.
    pub features: Vec<Item>,
    /// What became of each hook when it was attached.
    pub hooks: Vec<Item>,
    /// The command that lets ioscope trace without sudo.
    pub setcap: String,
}

/// A fact.
#[derive(Clone, Debug, Serialize)]
pub struct Fact {
    /// What it is about.
    pub name: &'static str,
    /// What it is.
    pub value: String,
}

/// Something that is there, or not.
#[derive(Clone, Debug, Serialize)]
pub struct Item {
    /// What it is called.
    pub name: &'static str,
    /// Whether there is no tracing without it.
    pub essential: bool,
    /// Whether it is there; null for what was not tried.
    pub works: Option<bool>,
    /// In which form it is there, or what is missing.
    pub detail: String,
    /// What is lost without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<String>,
    /// How to get it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub how: Option<String>,
    /// The first version of Linux that has it, on this architecture; of hooks, that has the way in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Of hooks: ways that were tried in vain.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<Refused>,
    /// Of hooks: `fentry`, `tracepoint` or `iterator`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub way: Option<&'static str>,
    /// Of hooks: the programs, and how many instructions the verifier went through to accept each (null before
    /// Linux 5.16).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub programs: BTreeMap<&'static str, Option<u32>>,
}

/// A way to hook that did not work.
#[derive(Clone, Debug, Serialize)]
pub struct Refused {
    /// `fentry`, `tracepoint` or `iterator`.
    pub way: &'static str,
    /// The first version of Linux in which it works, on this architecture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Why it did not.
    pub why: String,
}

impl Item {
    /// With what every item has.
    pub fn new(name: &'static str, essential: bool, works: Option<bool>, detail: String) -> Self {
        Self {
            name,
            essential,
            works,
            detail,
            lost: None,
            how: None,
            since: None,
            refused: Vec::new(),
            way: None,
            programs: BTreeMap::new(),
        }
    }
}

/// Writes it as JSON.
pub fn write_json(out: &mut impl io::Write, report: &Report) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, report)?;
    writeln!(out)
}

/// Writes it as text.
pub fn write_text(out: &mut impl io::Write, report: &Report) -> io::Result<()> {
    writeln!(out, "Machine")?;
    for Fact { name, value } in &report.machine {
        write_wrapped(out, &format!("  {name}"), value)?;
    }
    for (heading, items) in [
        ("Privileges", &report.privileges),
        ("Kernel features", &report.features),
        ("Hooks, attached just now", &report.hooks),
    ] {
        writeln!(out, "\n{heading}")?;
        for item in items {
            write_item(out, item)?;
        }
    }
    writeln!(out)?;
    if let Some(problem) = &report.problem {
        write_paragraph(out, &format!("Tracing does not work: {problem}."))?;
        if let Some(remedy) = &report.remedy {
            write_command(out, "What helps:", remedy)?;
        }
        return Ok(());
    }
    match (report.attached_in_ms, report.detached_in_ms) {
        (Some(all), Some(detaching)) => writeln!(
            out,
            "Tracing works: the probes were attached in {} ms, and taken away in {detaching} ms.",
            all.saturating_sub(detaching)
        )?,
        _ => writeln!(out, "Tracing works.")?,
    }
    write_command(out, "To trace without sudo from now on:", &report.setcap)
}

/// A line has this many columns at most; only a command may be longer, to be copied whole.
const COLUMNS: usize = 80;
/// Where what is said of a name begins.
const DETAIL: usize = 32;

fn write_item(out: &mut impl io::Write, item: &Item) -> io::Result<()> {
    let mark = match item.works {
        Some(true) => "works  ",
        Some(false) => "MISSING",
        None => "unknown",
    };
    write_wrapped(out, &format!("  {mark}  {}", item.name), &item.detail)?;
    if let Some(lost) = &item.lost {
        write_wrapped(out, "", &format!("lost: {lost}"))?;
    }
    if let Some(how) = &item.how {
        write_wrapped(out, "", &format!("to get it: {how}"))?;
    }
    Ok(())
}

/// A name, and a text beside it in as many lines as it takes.
fn write_wrapped(out: &mut impl io::Write, name: &str, text: &str) -> io::Result<()> {
    let mut label = name;
    for line in wrap(text, COLUMNS - DETAIL) {
        let blanks = DETAIL.saturating_sub(label.width()).max(1);
        writeln!(out, "{label}{}{line}", " ".repeat(blanks))?;
        label = "";
    }
    Ok(())
}

fn write_paragraph(out: &mut impl io::Write, text: &str) -> io::Result<()> {
    wrap(text, COLUMNS).iter().try_for_each(|line| writeln!(out, "{line}"))
}

fn write_command(out: &mut impl io::Write, what: &str, command: &str) -> io::Result<()> {
    writeln!(out, "{what}\n  {command}")
}

/// Lines of at most `width` columns, broken at blanks.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && line.width() + 1 + word.width() > width {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let detail = "every process's system calls take the slower path meanwhile, and more";
        let item = |works, lost: Option<&str>| Item {
            lost: lost.map(Into::into),
            how: lost.map(|_| "Linux 5.5 or newer".into()),
            ..Item::new("syscall hooks", true, works, detail.into())
        };
        Report {
            schema: 1,
            ioscope: "0.1.0",
            works: true,
            attached_in_ms: Some(180),
            detached_in_ms: Some(20),
            problem: None,
            remedy: None,
            machine: vec![Fact { name: "kernel", value: "6.12".into() }],
            privileges: vec![item(Some(true), None)],
            features: vec![item(Some(false), Some("everything"))],
            hooks: vec![item(None, None)],
            setcap: "sudo setcap cap_bpf+ep /a/very/long/path".into(),
        }
    }

    fn text(report: &Report) -> String {
        let mut out = Vec::new();
        write_text(&mut out, report).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_stays_within_80_columns() {
        let text = text(&report());
        assert!(text.lines().all(|line| line.width() <= COLUMNS), "{text}");
        assert!(text.contains("  MISSING  syscall hooks        every process's"), "{text}");
        assert!(text.contains("lost: everything\n") && text.contains("to get it: Linux 5.5"), "{text}");
        assert!(text.ends_with(
            "Tracing works: the probes were attached in 160 ms, and taken away in 20 ms.\n\
             To trace without sudo from now on:\n  sudo setcap cap_bpf+ep /a/very/long/path\n"
        ));
    }

    #[test]
    fn what_does_not_work_is_the_last_word() {
        let report = Report {
            works: false,
            problem: Some("tracing needs CAP_BPF".into()),
            remedy: Some("run it by sudo".into()),
            ..report()
        };
        assert!(
            text(&report)
                .ends_with("Tracing does not work: tracing needs CAP_BPF.\nWhat helps:\n  run it by sudo\n")
        );
        let mut out = Vec::new();
        write_json(&mut out, &report).unwrap();
        let object: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(object["works"], false);
        assert_eq!(object["features"][0]["works"], false);
        assert_eq!(object["hooks"][0]["works"], serde_json::Value::Null);
    }
}
