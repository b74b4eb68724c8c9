//! From measurements to a table for people and JSON for programs.

use std::{fmt, fs};

use anyhow::Result;
use serde::Serialize;

use super::{
    scenario::{Budget, Measured, Scenario},
    tracer::{BARE, FLOOR, Tracer},
};

/// Everything that a run found.
#[derive(Serialize)]
pub(super) struct Report {
    /// Of this document; fields are only ever added.
    schema: u32,
    kernel: String,
    cpus: usize,
    /// Runnable processes over the minute before: what else the machine was doing.
    load_average: f64,
    rounds: u32,
    rows: Vec<Row>,
}

/// One tracer in one scenario.
#[derive(Serialize)]
pub(super) struct Row {
    scenario: &'static str,
    tracer: &'static str,
    unit: &'static str,
    outcome: Outcome,
    /// Why it was skipped or failed.
    cause: Option<String>,
    /// One a round.
    values: Vec<f64>,
    median: Option<f64>,
    /// What the tracer adds to the bare call; the median of the rounds' differences.
    added: Option<f64>,
    /// That, over what the empty pair adds; the median of the rounds' ratios.
    times_floor: Option<f64>,
    /// The whole, over that of the row that it is judged by; the median of the rounds' ratios.
    times_other: Option<f64>,
    budget: Option<String>,
    within_budget: Option<bool>,
    note: Option<String>,
    #[serde(skip)]
    source: &'static Tracer,
    #[serde(skip)]
    limit: Budget,
    #[serde(skip)]
    title: &'static str,
}

#[derive(Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Measured,
    Skipped,
    Failed,
}

impl Report {
    pub(super) fn new(rounds: u32) -> Result<Self> {
        let load = fs::read_to_string("/proc/loadavg")?;
        Ok(Self {
            schema: 1,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            cpus: std::thread::available_parallelism()?.get(),
            load_average: load.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(f64::NAN),
            rounds,
            rows: Vec::new(),
        })
    }

    /// Adds the scenario's rows: all, or those of the named tracers and the two that they are
    /// compared with.
    pub(super) fn add(&mut self, scenario: &Scenario, tracers: &[String]) {
        for (tracer, budget) in scenario.rows {
            let judges =
                |(_, budget): &(_, Budget)| matches!(budget, Budget::TimesRow(_, of) if of == tracer);
            let reference = **tracer == BARE || **tracer == FLOOR || scenario.rows.iter().any(judges);
            if tracers.is_empty() || reference || tracers.iter().any(|name| name == tracer.name) {
                self.rows.push(Row::new(scenario, tracer, *budget));
            }
        }
    }

    /// The scenario's rows.
    pub(super) fn rows_of(&mut self, scenario: &Scenario) -> &mut [Row] {
        let is_of = |row: &Row| row.scenario == scenario.name;
        let start = self.rows.iter().position(is_of).unwrap_or(self.rows.len());
        let count = self.rows.iter().filter(|row| is_of(row)).count();
        &mut self.rows[start..start + count]
    }

    /// Works out what the measurements say, after the last of them.
    pub(super) fn conclude(&mut self) {
        let values_of = |rows: &[Row], scenario: &str, tracer: &Tracer| -> Vec<f64> {
            let row = rows.iter().find(|row| row.scenario == scenario && row.source == tracer);
            row.map(|row| row.values.clone()).unwrap_or_default()
        };
        for index in 0..self.rows.len() {
            let scenario = self.rows[index].scenario;
            let bare = values_of(&self.rows, scenario, &BARE);
            let floor = added(&values_of(&self.rows, scenario, &FLOOR), &bare);
            if let Budget::TimesRow(_, of) = self.rows[index].limit {
                let other = values_of(&self.rows, scenario, of);
                let ratios: Vec<f64> =
                    self.rows[index].values.iter().zip(&other).map(|(value, other)| value / other).collect();
                self.rows[index].times_other = median(&ratios);
            }
            self.rows[index].conclude(&bare, &floor);
        }
    }
}

impl Row {
    fn new(scenario: &Scenario, tracer: &'static Tracer, limit: Budget) -> Self {
        Self {
            scenario: scenario.name,
            tracer: tracer.name,
            unit: scenario.unit,
            outcome: Outcome::Measured,
            cause: None,
            values: Vec::new(),
            median: None,
            added: None,
            times_floor: None,
            times_other: None,
            budget: match limit {
                Budget::None => None,
                Budget::TimesFloor(times) => Some(format!("≤ {times} × floor")),
                Budget::AtMost(most) => Some(format!("≤ {most}")),
                Budget::TimesRow(times, of) => Some(format!("≤ {times} × {}", of.name)),
            },
            within_budget: None,
            note: None,
            source: tracer,
            limit,
            title: scenario.title,
        }
    }

    pub(super) fn tracer(&self) -> &'static Tracer {
        self.source
    }

    /// Whether there is no use in measuring it again.
    pub(super) fn is_over(&self) -> bool {
        self.outcome != Outcome::Measured
    }

    pub(super) fn push(&mut self, measured: Measured) {
        self.values.push(measured.value);
        self.note = measured.note;
    }

    pub(super) fn skip(&mut self, cause: String) {
        self.outcome = Outcome::Skipped;
        self.cause = Some(cause);
    }

    pub(super) fn fail(&mut self, cause: String) {
        self.outcome = Outcome::Failed;
        self.cause = Some(cause);
    }

    /// `bare` and `floor` are by round: the bare call, and what the empty pair adds to it.
    fn conclude(&mut self, bare: &[f64], floor: &[f64]) {
        self.median = median(&self.values);
        if self.source != &BARE {
            let added = added(&self.values, bare);
            self.added = median(&added);
            let ratios: Vec<f64> = added.iter().zip(floor).map(|(added, floor)| added / floor).collect();
            self.times_floor = median(&ratios);
        }
        self.within_budget = match self.limit {
            Budget::None => None,
            Budget::TimesFloor(times) => self.times_floor.map(|value| value <= times),
            Budget::AtMost(most) => self.median.map(|value| value <= most),
            Budget::TimesRow(times, _) => self.times_other.map(|value| value <= times),
        };
    }

    fn cells(&self) -> [String; 7] {
        let number = |value: Option<f64>| value.map(shown).unwrap_or_default();
        let spread = match (min(&self.values), max(&self.values)) {
            (Some(min), Some(max)) => format!("{} … {}", shown(min), shown(max)),
            _ => String::new(),
        };
        let verdict = match self.outcome {
            Outcome::Skipped => "skipped: ",
            Outcome::Failed => "failed: ",
            Outcome::Measured => match self.within_budget {
                Some(true) => "within",
                Some(false) => "OVER",
                None => "",
            },
        };
        let mut remark = verdict.to_owned() + self.cause.as_deref().unwrap_or_default();
        if let Some(times) = self.times_other {
            remark = format!("{times:.3} × {remark}");
        }
        if let Some(note) = &self.note {
            remark = if remark.is_empty() { note.clone() } else { format!("{remark}, {note}") };
        }
        [
            self.tracer.to_owned(),
            number(self.median),
            spread,
            number(self.added),
            self.times_floor.map(|times| format!("{times:.2}")).unwrap_or_default(),
            self.budget.clone().unwrap_or_default(),
            remark,
        ]
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "kernel {}, {} CPUs, load average {} before, {} rounds",
            self.kernel, self.cpus, self.load_average, self.rounds
        )?;
        if self.load_average > self.cpus as f64 / 4.0 {
            writeln!(f, "the machine was busy with other things: take these numbers for rough")?;
        }
        for rows in self.rows.chunk_by(|one, next| one.scenario == next.scenario) {
            let Some(first) = rows.first() else { continue };
            writeln!(f, "\n{}: {}, {}", first.scenario, first.title, first.unit)?;
            let header = ["", "median", "least … most", "added", "× floor", "budget", ""].map(str::to_owned);
            let table: Vec<[String; 7]> =
                std::iter::once(header).chain(rows.iter().map(Row::cells)).collect();
            let widths: [usize; 7] = std::array::from_fn(|column| {
                table.iter().map(|line| line[column].chars().count()).max().unwrap_or(0)
            });
            for line in &table {
                let cells = line.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
                    // Numbers to the right, words to the left.
                    if (1..=4).contains(&column) {
                        format!("{cell:>width$}")
                    } else {
                        format!("{cell:<width$}")
                    }
                });
                writeln!(f, "  {}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
            }
        }
        Ok(())
    }
}

/// What was added to the bare call, round by round.
fn added(values: &[f64], bare: &[f64]) -> Vec<f64> {
    values.iter().zip(bare).map(|(value, bare)| value - bare).collect()
}

/// The value that a quarter of them are below.
pub(super) fn lower_quartile(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 4).copied()
}

/// The middle value, or the mean of the two in the middle.
fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(sorted[sorted.len() / 2 - 1], upper))
}

fn min(values: &[f64]) -> Option<f64> {
    values.iter().copied().min_by(f64::total_cmp)
}

fn max(values: &[f64]) -> Option<f64> {
    values.iter().copied().max_by(f64::total_cmp)
}

/// As many digits as mean something.
fn shown(value: f64) -> String {
    if value.abs() < 100.0 && value.fract() != 0.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

#[cfg(test)]
mod tests {
    use super::{super::scenario::SCENARIOS, *};

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(lower_quartile(&[4.0, 1.0, 2.0, 3.0]), Some(2.0));
    }

    #[test]
    fn a_budget_is_a_ratio_of_what_is_added() {
        let mut report = Report::new(2).unwrap();
        report.add(&SCENARIOS[0], &["stat".to_owned()]);
        let rows = report.rows_of(&SCENARIOS[0]);
        for (row, values) in rows.iter_mut().zip([[400.0, 500.0], [600.0, 700.0], [640.0, 760.0]]) {
            for value in values {
                row.push(Measured { value, note: None });
            }
        }
        report.conclude();
        let stat = &report.rows[2];
        assert_eq!((stat.tracer, stat.added), ("stat", Some(250.0)));
        assert_eq!((stat.times_floor, stat.within_budget), (Some(1.25), Some(true)));
        assert_eq!(report.rows[0].added, None);
    }

    #[test]
    fn a_budget_can_be_a_ratio_to_another_row() {
        let scenario = SCENARIOS.iter().find(|scenario| scenario.name == "stalls").unwrap();
        let mut report = Report::new(3).unwrap();
        report.add(scenario, &["stat".to_owned()]);
        let rows = report.rows_of(scenario);
        let names: Vec<_> = rows.iter().map(|row| row.tracer).collect();
        assert_eq!(names, ["stat, no stalls", "stat"]);
        // A round in which the machine was slow does not count more than another.
        for (row, values) in rows.iter_mut().zip([[500.0, 1000.0, 500.0], [510.0, 1070.0, 540.0]]) {
            for value in values {
                row.push(Measured { value, note: None });
            }
        }
        report.conclude();
        let stat = &report.rows[1];
        assert_eq!((stat.times_other, stat.within_budget), (Some(1.07), Some(false)));
        assert!(report.to_string().contains("1.070 × OVER"), "{report}");
    }

    #[test]
    fn every_scenario_is_named_once_and_has_rows() {
        for (index, scenario) in SCENARIOS.iter().enumerate() {
            assert!(!scenario.rows.is_empty(), "{}", scenario.name);
            assert!(SCENARIOS[..index].iter().all(|other| other.name != scenario.name), "{}", scenario.name);
        }
    }

    #[test]
    fn a_row_that_failed_says_why() {
        let mut report = Report::new(1).unwrap();
        report.add(&SCENARIOS[0], &["stat".to_owned()]);
        report.rows_of(&SCENARIOS[0])[2].fail("exit status: 2".to_owned());
        report.conclude();
        assert!(report.to_string().contains("failed: exit status: 2"), "{report}");
    }
}
