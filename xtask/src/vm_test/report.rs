//! The matrix: what came of every kernel, as tables, and what of it is not as it should be.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use serde::Deserialize as _;

use super::{
    Setting,
    arch::Arch,
    console::Outcome,
    doctor::Doctor,
    kernels::Kernel,
    machine::Run,
    programs,
    steps::{self, Kind, UNTRACED, WAYS},
    untraced::Untraced,
};

/// The most instructions that a kernel's verifier may go through for one program: a quarter of what kernels allow
/// (`BPF_COMPLEXITY_LIMIT_INSNS`, `include/linux/bpf_verifier.h`: a million since 5.2). Verifiers differ, and what
/// one goes through in 100,000 steps has cost another twice as many: the rest is for kernels that nobody tried.
const BUDGET: u64 = 250_000;

/// All that is known of a kernel.
struct Column {
    kernel: Kernel,
    runs: BTreeMap<Kind, Run>,
}

/// What came of a run of the command.
pub(super) struct Report {
    arch: Arch,
    qemu: String,
    /// In which way this is less than everything.
    limits: Vec<String>,
    columns: Vec<Column>,
    wall: Duration,
}

impl Report {
    pub(super) fn new(
        setting: &Setting,
        limits: Vec<String>,
        mut runs: BTreeMap<(usize, Kind), Run>,
        wall: Duration,
    ) -> Self {
        let columns = setting.kernels.iter().enumerate().map(|(place, kernel)| Column {
            kernel: kernel.clone(),
            runs: Kind::ALL
                .into_iter()
                .filter_map(|kind| Some((kind, runs.remove(&(place, kind))?)))
                .collect(),
        });
        Self {
            arch: setting.arch,
            qemu: setting.qemu.version.clone(),
            limits,
            columns: columns.collect(),
            wall,
        }
    }

    /// What is not as it should be.
    pub(super) fn problems(&self) -> Vec<String> {
        self.columns.iter().flat_map(Column::problems).collect()
    }

    /// A table with a column for each kernel.
    fn table(&self, corner: &str, rows: &[(String, Vec<String>)]) -> String {
        let mut lines = vec![vec![corner.to_owned()]];
        lines[0].extend(self.columns.iter().map(|column| column.kernel.series.clone()));
        for (name, cells) in rows {
            let mut line = vec![name.clone()];
            line.extend(cells.iter().cloned());
            lines.push(line);
        }
        table(&lines)
    }

    /// A row for every name that any kernel knows, in the order in which they come.
    fn rows(
        &self,
        names: impl Fn(&Column) -> Vec<String>,
        cell: impl Fn(&Column, &str) -> Option<String>,
    ) -> Vec<(String, Vec<String>)> {
        let mut known = BTreeSet::new();
        let all = self.columns.iter().flat_map(names);
        all.filter(|name| known.insert(name.clone()))
            .map(|name| {
                let cells =
                    self.columns.iter().map(|column| cell(column, &name).unwrap_or_else(|| "–".to_owned()));
                let cells = cells.collect();
                (name, cells)
            })
            .collect()
    }

    /// The page for docs/, with its date.
    pub(super) fn page(&self) -> String {
        let series: Vec<&str> = self.columns.iter().map(|column| column.kernel.series.as_str()).collect();
        let limits = match self.limits.as_slice() {
            [] => String::new(),
            limits => format!("This is not all of it: {}.\n\n", limits.join("; ")),
        };
        let left_out: Vec<String> = programs::left_out().map(|line| format!("- {line}\n")).collect();
        let left_out = left_out.concat();
        format!(
            "# Kernels\n\n\
             What ioscope can do on Debian's kernels, and that it does it: the kernel tests and `ioscope doctor` in \
             virtual machines. Written on {} by `cargo xtask vm-test --write`: Linux {} on {}, emulated by QEMU {}. \
             Emulation is slow, and its times say nothing of real machines; counts and states are exact all the \
             same.\n\n{limits}{self}\n## Not run\n\n{left_out}",
            today(),
            series.join(", "),
            self.arch,
            self.qemu,
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |cells: fn(&Column) -> String| -> Vec<String> { self.columns.iter().map(cells).collect() };
        let rows = [
            ("kernel".to_owned(), text(Column::release)),
            ("Debian's package".to_owned(), text(|column| column.kernel.version.clone())),
            ("boots in".to_owned(), text(Column::boot)),
            ("by fentry, probes come and go in".to_owned(), text(|column| column.attached(WAYS[0]))),
            ("by tracepoint".to_owned(), text(|column| column.attached(WAYS[1]))),
            ("takes, in all".to_owned(), text(Column::wall)),
            ("CPU time of it".to_owned(), text(Column::cpu)),
            ("result".to_owned(), text(Column::result)),
        ];
        writeln!(f, "## Result\n\n{}", self.table("", &rows))?;

        let rows = self.rows(Column::tests, |column, name| Some(cell_of(column.outcome(name)?)));
        writeln!(
            f,
            "## Tests\n\nTests that passed, and how long they took. A test of the probes is run by each \
            way to hook the wait calls.\n\n{}",
            self.table("test program/way", &rows)
        )?;

        // Of the ways, the best that works.
        let doctor = |column: &Column| {
            let doctors = WAYS.map(|way| column.doctor(way));
            let working = doctors.iter().flatten().find(|doctor| doctor.problem.is_none()).cloned();
            working.or_else(|| doctors.into_iter().flatten().next())
        };
        let names = |column: &Column| {
            let doctor = doctor(column);
            doctor.map_or_else(Vec::new, |doctor| doctor.features.into_iter().map(|item| item.name).collect())
        };
        let rows = self.rows(names, |column, name| {
            let item = doctor(column)?.features.into_iter().find(|item| item.name == name)?;
            Some(said(item.works).to_owned())
        });
        writeln!(f, "## Features\n\n{}", self.table("feature", &rows))?;

        let names = |column: &Column| {
            let doctor = doctor(column);
            doctor.map_or_else(Vec::new, |doctor| doctor.hooks.into_iter().map(|item| item.name).collect())
        };
        let rows = self.rows(names, |column, name| {
            let item = doctor(column)?.hooks.into_iter().find(|item| item.name == name)?;
            Some(item.way.unwrap_or_else(|| said(item.works).to_owned()))
        });
        writeln!(f, "## Hooks\n\nThe best way that works.\n\n{}", self.table("what for", &rows))?;

        let names = |column: &Column| column.verified().into_keys().collect();
        let rows = self.rows(names, |column, name| {
            Some(column.verified().get(name)?.map_or_else(|| "not told".to_owned(), grouped))
        });
        writeln!(
            f,
            "## Instructions verified\n\nHow many instructions the kernel's verifier goes through to accept each \
             program. At most {} are allowed here, and 1,000,000 by kernels; kernels before 5.16 do not \
             tell.\n\n{}",
            grouped(BUDGET),
            self.table("program", &rows)
        )?;

        if self.columns.iter().any(|column| column.untraced().is_some()) {
            let bare = self.columns.iter().map(|column| instructions(Some(column.untraced()?.bare)));
            let mut rows = vec![("bare".to_owned(), bare.map(Option::unwrap_or_default).collect())];
            for way in WAYS {
                let traced = self
                    .columns
                    .iter()
                    .map(|column| instructions(column.untraced()?.traced.get(way).copied().flatten()));
                let traced = traced.map(|cell| cell.unwrap_or_else(|| "–".to_owned()));
                rows.push((format!("while another is traced by {way}"), traced.collect()));
            }
            writeln!(
                f,
                "## What an untraced process pays\n\nInstructions that a `getppid` takes in a process that nobody \
                 traces, user space included. Counted by the emulator's clock, which moves with every \
                 instruction and with nothing else.\n\n{}",
                self.table("", &rows)
            )?;
        }

        let skipped: BTreeSet<String> = self.columns.iter().flat_map(Column::skipped).collect();
        if !skipped.is_empty() {
            writeln!(f, "## Skipped\n")?;
            skipped.iter().try_for_each(|line| writeln!(f, "- {line}"))?;
            writeln!(f)?;
        }
        writeln!(f, "All of it took {:.0} s.", self.wall.as_secs_f64())
    }
}

impl Column {
    fn outcomes(&self) -> impl Iterator<Item = &Outcome> {
        self.runs.values().flat_map(|run| &run.transcript.outcomes)
    }

    fn outcome(&self, step: &str) -> Option<&Outcome> {
        self.outcomes().find(|outcome| outcome.step == step)
    }

    /// The steps that are tests.
    fn tests(&self) -> Vec<String> {
        let all = self.outcomes().map(|outcome| outcome.step.clone());
        all.filter(|step| !step.starts_with("doctor/") && step != UNTRACED).collect()
    }

    /// What `doctor` found, by a way.
    fn doctor(&self, way: &str) -> Option<Doctor> {
        let name = steps::doctor(way);
        let mut reports = self.runs.values().filter_map(|run| run.transcript.reports.get(&name));
        Doctor::parse(reports.next()?)
    }

    fn untraced(&self) -> Option<Untraced> {
        let mut reports = self.runs.values().filter_map(|run| run.transcript.reports.get(UNTRACED));
        Untraced::deserialize(reports.next()?).ok()
    }

    /// Every program that was loaded by any way, with the verifier's count.
    fn verified(&self) -> BTreeMap<String, Option<u64>> {
        let mut all = BTreeMap::new();
        for doctor in WAYS.iter().filter_map(|way| self.doctor(way)) {
            all.extend(doctor.programs().map(|(name, count)| (name.to_owned(), count)));
        }
        all
    }

    fn release(&self) -> String {
        let release = self.runs.values().find_map(|run| run.transcript.release.clone());
        release.unwrap_or_else(|| "did not boot".to_owned())
    }

    fn boot(&self) -> String {
        let parallel = self.runs.get(&Kind::Parallel).or_else(|| self.runs.values().next());
        parallel.map_or_else(String::new, |run| format!("{:.1} s", run.transcript.boot_seconds))
    }

    fn wall(&self) -> String {
        let seconds: f64 = self.runs.values().map(|run| run.wall.as_secs_f64()).sum();
        format!("{seconds:.0} s")
    }

    fn cpu(&self) -> String {
        let seconds: f64 = self.runs.values().map(|run| run.cpu.as_secs_f64()).sum();
        format!("{seconds:.0} s")
    }

    fn result(&self) -> String {
        match self.problems().len() {
            0 => "good".to_owned(),
            1 => "**1 problem**".to_owned(),
            count => format!("**{count} problems**"),
        }
    }

    fn skipped(&self) -> Vec<String> {
        let line = |what: &String| format!("{}: {what}", self.kernel.series);
        self.outcomes().flat_map(|outcome| outcome.skipped.iter().map(line)).collect()
    }

    /// How long it takes to load and attach all probes by a way, and to take them away.
    fn attached(&self, way: &str) -> String {
        let times = self.doctor(way).and_then(|doctor| {
            let detached = doctor.detached_in_ms?;
            Some(format!("{} and {detached} ms", doctor.attached_in_ms?.checked_sub(detached)?))
        });
        times.unwrap_or_else(|| "–".to_owned())
    }

    fn problems(&self) -> Vec<String> {
        let series = &self.kernel.series;
        let mut found = Vec::new();
        for (kind, run) in &self.runs {
            if let Some(death) = &run.death {
                found.push(format!("{series}: the {} machine died twice: {death}", kind.name()));
            }
            for outcome in run.transcript.outcomes.iter().filter(|outcome| !outcome.is_good()) {
                // A way that does not work is for the table to know.
                if outcome.step.starts_with("doctor/") && outcome.step != steps::doctor(WAYS[1]) {
                    continue;
                }
                let how = match (outcome.too_long, outcome.code) {
                    (true, _) => "took too long".to_owned(),
                    (_, Some(code)) => format!("ended with {code}"),
                    (_, None) => "did not come to its end".to_owned(),
                };
                let which = outcome.failures.join(", ");
                found.push(format!("{series}: {} {how} {which}", outcome.step).trim_end().to_owned());
            }
        }
        for way in WAYS {
            let Some(doctor) = self.doctor(way) else { continue };
            found.extend(
                doctor.contradictions(&self.release()).into_iter().map(|what| format!("{way}: {what}")),
            );
            if let Some(problem) = &doctor.problem
                && !doctor.is_known_not_to_work(&self.release())
            {
                found.push(format!("{series}: by {way} ioscope cannot trace: {problem}"));
            }
        }
        for (name, count) in self.verified() {
            if let Some(count) = count.filter(|count| *count > BUDGET) {
                found.push(format!(
                    "{series}: {name} costs the verifier {} instructions, and {} are allowed",
                    grouped(count),
                    grouped(BUDGET)
                ));
            }
        }
        if let Some(untraced) = self.untraced()
            && let Some(Some(fentry)) = untraced.traced.get(WAYS[0])
            && (fentry - untraced.bare).abs() > 0.01 * untraced.bare
        {
            found.push(format!(
                "{series}: by fentry an untraced getppid takes {fentry:.1} ns, and {:.1} ns without tracing",
                untraced.bare
            ));
        }
        found
    }
}

/// How a test program's end is shown.
fn cell_of(outcome: &Outcome) -> String {
    let all = outcome.passed + outcome.failed;
    let count = if outcome.is_good() {
        outcome.passed.to_string()
    } else if outcome.failed > 0 {
        format!("**{} of {all}**", outcome.passed)
    } else {
        format!("**{} and no end**", outcome.passed)
    };
    format!("{count}, {:.0} s", outcome.seconds)
}

fn said(works: Option<bool>) -> &'static str {
    match works {
        Some(true) => "yes",
        Some(false) => "no",
        None => "not tried",
    }
}

/// An instruction takes two nanoseconds of a counted machine's clock.
fn instructions(nanoseconds: Option<f64>) -> Option<String> {
    Some(format!("{:.1}", nanoseconds? / 2.0))
}

/// With a comma between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A table in Markdown; the first line is its head.
fn table(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0).max(3)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let padded = |cells: &Vec<String>| {
        let cells = widths.iter().enumerate().map(|(column, width)| {
            let cell = cells.get(column).map_or("", String::as_str);
            format!("{cell}{}", " ".repeat(width - cell.chars().count()))
        });
        line(&cells.collect::<Vec<_>>())
    };
    let mut text: Vec<String> = lines.iter().map(padded).collect();
    text.insert(1, line(&widths.iter().map(|width| "-".repeat(*width)).collect::<Vec<_>>()));
    text.concat()
}

/// The date in UTC, from the system's clock.
fn today() -> String {
    let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    date(seconds.map_or(0, |since| since.as_secs() / 86_400))
}

/// The date of a day, counted from 1970.
fn date(mut day: u64) -> String {
    let is_leap =
        |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while day >= 365 + u64::from(is_leap(year)) {
        day -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let mut month = 1;
    for length in [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    format!("{year}-{month:02}-{:02}", day + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_dates() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(59), "1970-03-01");
        assert_eq!(date(19_782), "2024-02-29");
        assert_eq!(date(20_786), "2026-11-29");
    }

    #[test]
    fn tables_are_aligned() {
        let lines = [["", "6.1"], ["a name", "yes"]].map(|line| line.map(str::to_owned).to_vec());
        assert_eq!(table(&lines), "|        | 6.1 |\n| ------ | --- |\n| a name | yes |\n");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(999), "999");
    }
}
