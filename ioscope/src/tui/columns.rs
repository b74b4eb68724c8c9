//! The columns of the table of loops: one registry, from which the screen is laid out, drawn and sorted, the
//! chooser made and the configuration read.
//!
//! Columns stand in the order of [`COLUMNS`]. A terminal that has no room for all of them shows what
//! [`PLAN`] gives room to first: a column leaves, or becomes narrower, from the end of that list.

use std::cmp::Ordering;

use ioscope_common::WaitCall;
use ratatui::text::Line;
use unicode_width::UnicodeWidthStr as _;

use super::{
    cells::{self, PERCENT, STATE_LETTER, STATE_NAME},
    rows::Row,
    state::App,
};
use crate::output::numbers::rate;

/// Which column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ColumnId {
    Pid,
    Tid,
    Name,
    Runtime,
    WaitCall,
    State,
    SleepsIn,
    Utilisation,
    Load,
    Iterations,
    Events,
    LoopP50,
    LoopP99,
    WakeP50,
    WakeP99,
    DelayP99,
    Stalls,
    Findings,
}

/// What a cell may need beside its row.
#[derive(Clone, Copy)]
pub(super) struct Look<'a> {
    pub(super) app: &'a App,
    /// The column's width.
    pub(super) width: u16,
}

/// A column.
pub(super) struct Column {
    pub(super) id: ColumnId,
    /// In the configuration file.
    pub(super) key: &'static str,
    /// In a sentence: "by utilisation".
    pub(super) name: &'static str,
    /// Two lines.
    pub(super) heading: [&'static str; 2],
    /// One line.
    pub(super) short_heading: &'static str,
    /// Aligned to the left; numbers are not.
    pub(super) left: bool,
    pub(super) cell: fn(&Row, Look<'_>) -> Line<'static>,
    /// Ascending.
    pub(super) order: fn(&Row, &Row) -> Ordering,
    /// Whether a reader wants the largest first.
    pub(super) largest_first: bool,
}

impl Column {
    /// The index of a column in [`COLUMNS`].
    fn index(id: ColumnId) -> usize {
        COLUMNS.iter().position(|column| column.id == id).unwrap_or(0)
    }

    pub(super) fn of(id: ColumnId) -> &'static Self {
        &COLUMNS[Self::index(id)]
    }
}

/// A column of words: its cell is its text, by which it is sorted from A to Z.
macro_rules! words {
    ($id:ident, $key:literal, $name:literal, $heading:literal, $left:literal, $cell:expr, $order:expr) => {
        Column {
            id: ColumnId::$id,
            key: $key,
            name: $name,
            heading: ["", $heading],
            short_heading: $heading,
            left: $left,
            cell: $cell,
            order: $order,
            largest_first: false,
        }
    };
}

/// A column of numbers, of which the largest is wanted first.
macro_rules! numbers {
    ($id:ident, $key:literal, $name:literal, $heading:expr, $short:literal, $cell:expr, $order:expr) => {
        Column {
            id: ColumnId::$id,
            key: $key,
            name: $name,
            heading: $heading,
            short_heading: $short,
            left: false,
            cell: $cell,
            order: $order,
            largest_first: true,
        }
    };
}

/// All columns, from left to right.
pub(super) static COLUMNS: &[Column] = &[
    words!(Pid, "pid", "process", "PID", false, |row, _| Line::from(row.identity.pid.to_string()), |a, b| a
        .identity
        .pid
        .cmp(&b.identity.pid)),
    words!(Tid, "tid", "thread", "TID", false, cells::tid, |a, b| a.identity.tid.cmp(&b.identity.tid)),
    words!(Name, "name", "name", "NAME", true, cells::name, |a, b| a.identity.comm.cmp(&b.identity.comm)),
    words!(
        Runtime,
        "runtime",
        "runtime",
        "RUNTIME",
        true,
        |row, _| Line::from(row.identity.runtime.unwrap_or("-")),
        |a, b| a.identity.runtime.cmp(&b.identity.runtime)
    ),
    words!(
        WaitCall,
        "wait-call",
        "wait call",
        "WAIT CALL",
        true,
        |row, _| Line::from(row.wait_call.map_or("-", WaitCall::name)),
        |a, b| a.wait_call.map(WaitCall::name).cmp(&b.wait_call.map(WaitCall::name))
    ),
    Column {
        id: ColumnId::State,
        key: "state",
        name: "state",
        heading: ["", "STATE"],
        short_heading: "STATE",
        left: true,
        cell: cells::state,
        // Stalls last, hence first when turned round; then by state, then by how long.
        order: |a, b| cells::state_key(a).cmp(&cells::state_key(b)),
        largest_first: true,
    },
    words!(
        SleepsIn,
        "sleeps-in",
        "system call",
        "SLEEPS IN",
        true,
        |row, _| Line::from(cells::sleeps_in(row)),
        |a, b| cells::sleeps_in(a).cmp(&cells::sleeps_in(b))
    ),
    numbers!(Utilisation, "utilisation", "utilisation", ["", "UTIL"], "UTIL", cells::utilisation, |a, b| a
        .utilisation
        .total_cmp(&b.utilisation)),
    Column {
        id: ColumnId::Load,
        key: "load",
        name: "utilisation",
        heading: ["", "LOAD"],
        short_heading: "LOAD",
        left: true,
        cell: cells::load,
        order: |a, b| a.utilisation.total_cmp(&b.utilisation),
        largest_first: true,
    },
    numbers!(
        Iterations,
        "iterations",
        "iterations/s",
        ["ITER", "/S"],
        "ITER",
        |row, _| Line::from(rate(row.iterations_per_s)),
        |a, b| a.iterations_per_s.total_cmp(&b.iterations_per_s)
    ),
    numbers!(
        Events,
        "events",
        "events per wakeup",
        ["EV", "/WAKE"],
        "EV/WK",
        |row, look| cells::or_nothing(row.events_per_wakeup().map(rate), look),
        |a, b| {
            let key = |row: &Row| row.events_per_wakeup().unwrap_or(-1.0);
            key(a).total_cmp(&key(b))
        }
    ),
    numbers!(
        LoopP50,
        "loop-p50",
        "median loop duration",
        ["LOOP", "P50"],
        "LOOP50",
        |row, look| cells::loop_duration(row.loop_duration.p50, look),
        |a, b| a.loop_duration.p50.cmp(&b.loop_duration.p50)
    ),
    numbers!(
        LoopP99,
        "loop-p99",
        "loop duration p99",
        ["LOOP", "P99"],
        "LOOP99",
        |row, look| cells::loop_duration(row.loop_duration.p99, look),
        |a, b| a.loop_duration.p99.cmp(&b.loop_duration.p99)
    ),
    numbers!(
        WakeP50,
        "wake-p50",
        "median wakeup latency",
        ["WAKE", "P50"],
        "WAKE50",
        |row, look| cells::latency(row.wakeup_latency.p50, look),
        |a, b| a.wakeup_latency.p50.cmp(&b.wakeup_latency.p50)
    ),
    numbers!(
        WakeP99,
        "wake-p99",
        "wakeup latency p99",
        ["WAKE", "P99"],
        "WAKE99",
        |row, look| cells::latency(row.wakeup_latency.p99, look),
        |a, b| a.wakeup_latency.p99.cmp(&b.wakeup_latency.p99)
    ),
    numbers!(
        DelayP99,
        "delay-p99",
        "ready delay p99",
        ["DELAY", "P99"],
        "DELAY9",
        |row, look| cells::latency(row.ready_delay.p99, look),
        |a, b| a.ready_delay.p99.cmp(&b.ready_delay.p99)
    ),
    numbers!(Stalls, "stalls", "stalls", ["", "STALLS"], "STALLS", cells::stalls, |a, b| (
        a.stalls,
        a.ongoing_stall
    )
        .cmp(&(b.stalls, b.ongoing_stall))),
    numbers!(Findings, "findings", "findings", ["FIND", "INGS"], "FIND", cells::findings, |a, b| a
        .findings
        .cmp(&b.findings)),
];

/// How wide a column is to be.
#[derive(Clone, Copy)]
enum Width {
    Cells(u16),
    /// As wide as its widest cell, up to this.
    Content(u16),
}

/// What gets room, the most important first. A column that comes again gets wider.
static PLAN: &[(ColumnId, Width)] = &[
    (ColumnId::Tid, Width::Content(10)),
    (ColumnId::State, Width::Cells(STATE_LETTER)),
    (ColumnId::Utilisation, Width::Cells(PERCENT)),
    (ColumnId::Name, Width::Content(15)),
    (ColumnId::Stalls, Width::Cells(6)),
    (ColumnId::LoopP99, Width::Cells(6)),
    (ColumnId::Iterations, Width::Cells(5)),
    (ColumnId::WakeP99, Width::Cells(6)),
    (ColumnId::Load, Width::Cells(6)),
    (ColumnId::Events, Width::Cells(5)),
    (ColumnId::DelayP99, Width::Cells(6)),
    (ColumnId::Findings, Width::Cells(4)),
    (ColumnId::LoopP50, Width::Cells(6)),
    (ColumnId::Utilisation, Width::Cells(PERCENT + 7)),
    (ColumnId::Runtime, Width::Content(12)),
    (ColumnId::WaitCall, Width::Content(14)),
    (ColumnId::WakeP50, Width::Cells(6)),
    (ColumnId::State, Width::Cells(STATE_NAME)),
    (ColumnId::Pid, Width::Content(10)),
    (ColumnId::SleepsIn, Width::Cells(15)),
    (ColumnId::Load, Width::Cells(20)),
    (ColumnId::Utilisation, Width::Cells(PERCENT + 15)),
    (ColumnId::Load, Width::Cells(40)),
];

/// A column in its place on the screen.
#[derive(Clone, Copy)]
pub(super) struct Placed {
    pub(super) column: &'static Column,
    pub(super) x: u16,
    pub(super) width: u16,
}

/// How wide each column's widest cell is, by its index in [`COLUMNS`]; 0 where it does not matter.
#[derive(Clone, Debug)]
pub(super) struct ContentWidths([u16; COLUMNS.len()]);

impl ContentWidths {
    pub(super) fn of(rows: &[Row]) -> Self {
        let mut widths = Self([0; COLUMNS.len()]);
        for (id, wanted) in PLAN {
            if let Width::Content(most) = wanted {
                let column = Column::index(*id);
                let text = |row: &Row| match id {
                    ColumnId::Pid => digits(row.identity.pid),
                    // A process has its fold before its number.
                    ColumnId::Tid => digits(row.identity.tid) + if row.is_process() { 2 } else { 0 },
                    ColumnId::Name => row.identity.comm.width(),
                    ColumnId::Runtime => row.identity.runtime.map_or(1, str::len),
                    _ => row.wait_call.map_or(1, |call| call.name().len()),
                };
                let widest = rows.iter().map(text).max().unwrap_or(0).max(COLUMNS[column].heading[1].len());
                widths.0[column] = u16::try_from(widest).unwrap_or(u16::MAX).min(*most);
            }
        }
        widths
    }
}

impl Default for ContentWidths {
    fn default() -> Self {
        Self::of(&[])
    }
}

/// How many digits a number has.
fn digits(number: u32) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

/// The columns that have room on a screen of this width, of those that are `wanted`, with a blank before
/// each.
pub(super) fn place(width: u16, content: &ContentWidths, wanted: impl Fn(ColumnId) -> bool) -> Vec<Placed> {
    let mut widths = [0; COLUMNS.len()];
    let mut room = width;
    for (id, wanted) in PLAN.iter().filter(|(id, _)| wanted(*id)) {
        let column = Column::index(*id);
        let wanted = match wanted {
            Width::Cells(cells) => *cells,
            Width::Content(_) => content.0[column],
        };
        let blank = u16::from(widths[column] == 0);
        let more = wanted.saturating_sub(widths[column]) + blank;
        if more > room {
            break;
        }
        room -= more;
        widths[column] = wanted;
    }
    let mut x = 0;
    let mut placed = Vec::with_capacity(COLUMNS.len());
    for (column, width) in COLUMNS.iter().zip(widths).filter(|(_, width)| *width > 0) {
        placed.push(Placed { column, x: x + 1, width });
        x += width + 1;
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_has_its_place_in_the_plan_and_says_what_it_is() {
        for column in COLUMNS {
            assert!(PLAN.iter().any(|(id, _)| *id == column.id), "{}", column.name);
            assert!(!column.heading[1].is_empty());
            assert_eq!(COLUMNS.iter().filter(|other| other.id == column.id).count(), 1);
            assert_eq!(COLUMNS.iter().filter(|other| other.key == column.key).count(), 1);
        }
    }

    #[test]
    fn columns_leave_from_the_end_of_the_plan_and_never_overlap() {
        let content = ContentWidths::default();
        let mut before = 0;
        for width in 0..300 {
            let placed = place(width, &content, |_| true);
            assert!(placed.iter().all(|place| place.x + place.width <= width), "{width}");
            assert!(placed.windows(2).all(|pair| pair[0].x + pair[0].width < pair[1].x), "{width}");
            assert!(placed.len() >= before, "{width}");
            before = placed.len();
        }
        assert_eq!(before, COLUMNS.len());
    }

    #[test]
    fn only_wanted_columns_get_room() {
        let placed = place(200, &ContentWidths::default(), |id| matches!(id, ColumnId::Tid | ColumnId::Load));
        let ids: Vec<ColumnId> = placed.iter().map(|place| place.column.id).collect();
        assert_eq!(ids, [ColumnId::Tid, ColumnId::Load]);
    }
}
