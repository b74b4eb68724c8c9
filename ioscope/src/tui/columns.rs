//! The columns of the table of loops: one registry, from which the screen is laid out, drawn and sorted.
//!
//! Columns stand in the order of [`COLUMNS`]. A terminal that has no room for all of them shows what
//! [`PLAN`] gives room to first: a column leaves, or becomes narrower, from the end of that list.

use std::cmp::Ordering;

use ioscope_common::WaitCall;
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr as _;

use super::{
    rows::Row,
    theme::{Theme, letter},
};
use crate::output::{
    json::syscall_name,
    numbers::{count, duration, percent, rate},
};

/// Which column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ColumnId {
    Pid,
    Tid,
    Name,
    Runtime,
    WaitCall,
    State,
    BlockedIn,
    Utilisation,
    Iterations,
    Events,
    LoopP50,
    LoopP99,
    WakeP50,
    WakeP99,
    Stalls,
}

/// What a cell may need beside its row.
#[derive(Clone, Copy)]
pub(super) struct Look<'a> {
    pub(super) theme: &'a Theme,
    pub(super) stall_threshold: std::time::Duration,
    /// The column's width.
    pub(super) width: u16,
}

/// A column.
pub(super) struct Column {
    pub(super) id: ColumnId,
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
    pub(super) fn index(id: ColumnId) -> usize {
        COLUMNS.iter().position(|column| column.id == id).unwrap_or(0)
    }
}

/// All columns, from left to right.
pub(super) static COLUMNS: &[Column] = &[
    Column {
        id: ColumnId::Pid,
        name: "process",
        heading: ["", "PID"],
        short_heading: "PID",
        left: false,
        cell: |row, _| Line::from(row.identity.pid.to_string()),
        order: |a, b| a.identity.pid.cmp(&b.identity.pid),
        largest_first: false,
    },
    Column {
        id: ColumnId::Tid,
        name: "thread",
        heading: ["", "TID"],
        short_heading: "TID",
        left: false,
        cell: |row, _| Line::from(row.identity.tid.to_string()),
        order: |a, b| a.identity.tid.cmp(&b.identity.tid),
        largest_first: false,
    },
    Column {
        id: ColumnId::Name,
        name: "name",
        heading: ["", "NAME"],
        short_heading: "NAME",
        left: true,
        cell: |row, _| Line::from(row.identity.comm.clone()),
        order: |a, b| a.identity.comm.cmp(&b.identity.comm),
        largest_first: false,
    },
    Column {
        id: ColumnId::Runtime,
        name: "runtime",
        heading: ["", "RUNTIME"],
        short_heading: "RUNTIME",
        left: true,
        cell: |row, _| Line::from(row.identity.runtime.unwrap_or("-")),
        order: |a, b| a.identity.runtime.cmp(&b.identity.runtime),
        largest_first: false,
    },
    Column {
        id: ColumnId::WaitCall,
        name: "wait call",
        heading: ["", "WAIT CALL"],
        short_heading: "WAIT CALL",
        left: true,
        cell: |row, _| Line::from(row.wait_call.map_or("-", WaitCall::name)),
        order: |a, b| a.wait_call.map(WaitCall::name).cmp(&b.wait_call.map(WaitCall::name)),
        largest_first: false,
    },
    Column {
        id: ColumnId::State,
        name: "state",
        heading: ["", "STATE"],
        short_heading: "STATE",
        left: true,
        cell: state,
        // Stalls last, hence first when turned round; then by state, then by how long.
        order: |a, b| state_key(a).cmp(&state_key(b)),
        largest_first: true,
    },
    Column {
        id: ColumnId::BlockedIn,
        name: "system call",
        heading: ["", "SLEEPS IN"],
        short_heading: "SLEEPS IN",
        left: true,
        cell: |row, _| Line::from(sleeps_in(row)),
        order: |a, b| sleeps_in(a).cmp(&sleeps_in(b)),
        largest_first: true,
    },
    Column {
        id: ColumnId::Utilisation,
        name: "utilisation",
        heading: ["", "UTIL"],
        short_heading: "UTIL",
        left: false,
        cell: utilisation,
        order: |a, b| a.utilisation.total_cmp(&b.utilisation),
        largest_first: true,
    },
    Column {
        id: ColumnId::Iterations,
        name: "iterations/s",
        heading: ["ITER", "/S"],
        short_heading: "ITER",
        left: false,
        cell: |row, _| Line::from(rate(row.iterations_per_s)),
        order: |a, b| a.iterations_per_s.total_cmp(&b.iterations_per_s),
        largest_first: true,
    },
    Column {
        id: ColumnId::Events,
        name: "events per wakeup",
        heading: ["EV", "/WAKE"],
        short_heading: "EV/WK",
        left: false,
        cell: |row, look| row.events_per_wakeup.map_or_else(|| nothing(look), |mean| Line::from(rate(mean))),
        order: |a, b| {
            let key = |row: &Row| row.events_per_wakeup.unwrap_or(-1.0);
            key(a).total_cmp(&key(b))
        },
        largest_first: true,
    },
    Column {
        id: ColumnId::LoopP50,
        name: "median loop duration",
        heading: ["LOOP", "P50"],
        short_heading: "LOOP50",
        left: false,
        cell: |row, look| loop_duration(row.loop_duration.p50, look),
        order: |a, b| a.loop_duration.p50.cmp(&b.loop_duration.p50),
        largest_first: true,
    },
    Column {
        id: ColumnId::LoopP99,
        name: "loop duration p99",
        heading: ["LOOP", "P99"],
        short_heading: "LOOP99",
        left: false,
        cell: |row, look| loop_duration(row.loop_duration.p99, look),
        order: |a, b| a.loop_duration.p99.cmp(&b.loop_duration.p99),
        largest_first: true,
    },
    Column {
        id: ColumnId::WakeP50,
        name: "median wakeup latency",
        heading: ["WAKE", "P50"],
        short_heading: "WAKE50",
        left: false,
        cell: |row, look| latency(row.wakeup_latency.p50, look),
        order: |a, b| a.wakeup_latency.p50.cmp(&b.wakeup_latency.p50),
        largest_first: true,
    },
    Column {
        id: ColumnId::WakeP99,
        name: "wakeup latency p99",
        heading: ["WAKE", "P99"],
        short_heading: "WAKE99",
        left: false,
        cell: |row, look| latency(row.wakeup_latency.p99, look),
        order: |a, b| a.wakeup_latency.p99.cmp(&b.wakeup_latency.p99),
        largest_first: true,
    },
    Column {
        id: ColumnId::Stalls,
        name: "stalls",
        heading: ["", "STALLS"],
        short_heading: "STALLS",
        left: false,
        cell: stalls,
        order: |a, b| (a.stalls, a.ongoing_stall).cmp(&(b.stalls, b.ongoing_stall)),
        largest_first: true,
    },
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
    (ColumnId::Utilisation, Width::Cells(PERCENT + 7)),
    (ColumnId::Events, Width::Cells(5)),
    (ColumnId::LoopP50, Width::Cells(6)),
    (ColumnId::WakeP50, Width::Cells(6)),
    (ColumnId::Runtime, Width::Content(12)),
    (ColumnId::WaitCall, Width::Content(14)),
    (ColumnId::State, Width::Cells(STATE_NAME)),
    (ColumnId::Pid, Width::Content(10)),
    (ColumnId::BlockedIn, Width::Cells(15)),
    (ColumnId::Utilisation, Width::Cells(PERCENT + 21)),
];

/// `100.0%`.
const PERCENT: u16 = 6;
/// `W 12.3ms`.
const STATE_LETTER: u16 = 8;
/// `B! STALL 300ms`, `RUNNING 12.3ms`.
const STATE_NAME: u16 = 15;

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
                    ColumnId::Tid => digits(row.identity.tid),
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

/// The columns that have room on a screen of this width, with a blank before each.
pub(super) fn place(width: u16, content: &ContentWidths) -> Vec<Placed> {
    let mut widths = [0; COLUMNS.len()];
    let mut room = width;
    for (id, wanted) in PLAN {
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

fn nothing(look: Look<'_>) -> Line<'static> {
    Line::styled("-", look.theme.secondary)
}

/// A duration on a present state: below a millisecond it is over before anybody has read it.
fn lasting(ns: u64) -> String {
    if ns < 1_000_000 { "<1ms".to_owned() } else { duration(ns) }
}

fn state_key(row: &Row) -> (bool, Option<u64>, u8, u64) {
    (!row.ended, row.ongoing_stall, row.present.state as u8, row.present.for_ns)
}

fn state(row: &Row, look: Look<'_>) -> Line<'static> {
    if row.ended {
        return Line::styled("ended", look.theme.secondary);
    }
    let state = row.present.state;
    let letter = letter(state);
    let named = look.width >= STATE_NAME;
    if let Some(ns) = row.ongoing_stall {
        let word = if named { "! STALL " } else { "!" };
        let room = usize::from(look.width).saturating_sub(1 + word.len());
        return Line::styled(format!("{letter}{word}{:>room$}", duration(ns)), look.theme.alarm);
    }
    let word = if named { state.name().to_owned() } else { letter.to_string() };
    let room = usize::from(look.width).saturating_sub(word.len());
    Line::from(vec![
        Span::styled(word, look.theme.state(state)),
        Span::raw(format!("{:>room$}", lasting(row.present.for_ns))),
    ])
}

fn sleeps_in(row: &Row) -> String {
    match row.present.syscall {
        Some(number) if !row.ended => syscall_name(number),
        _ => String::new(),
    }
}

fn utilisation(row: &Row, look: Look<'_>) -> Line<'static> {
    let number = percent(row.utilisation);
    let style = look.theme.utilisation(row.utilisation);
    if look.width <= PERCENT {
        return Line::styled(number, style);
    }
    let (filled, rest) = bar(row.utilisation, look.width - PERCENT - 1);
    Line::from(vec![
        Span::styled(filled, style),
        Span::styled(rest, look.theme.secondary),
        Span::styled(format!(" {number:>6}"), style),
    ])
}

/// A bar of so many cells, to an eighth of a cell, and what is left of it.
fn bar(share: f64, cells: u16) -> (String, String) {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let cells = usize::from(cells);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to a few cells")]
    let eighths = (share.clamp(0.0, 1.0) * cells as f64 * 8.0).round() as usize;
    let (whole, part) = (eighths / 8, EIGHTHS[eighths % 8]);
    let filled = format!("{}{part}", "█".repeat(whole));
    let rest = cells - whole - usize::from(!part.is_empty());
    (filled, "·".repeat(rest))
}

fn loop_duration(ns: Option<u64>, look: Look<'_>) -> Line<'static> {
    ns.map_or_else(
        || nothing(look),
        |ns| Line::styled(duration(ns), look.theme.loop_duration(ns, look.stall_threshold)),
    )
}

fn latency(ns: Option<u64>, look: Look<'_>) -> Line<'static> {
    ns.map_or_else(|| nothing(look), |ns| Line::from(duration(ns)))
}

fn stalls(row: &Row, look: Look<'_>) -> Line<'static> {
    let text = count(row.stalls);
    let text = if text.len() > usize::from(look.width) { rate(row.stalls as f64) } else { text };
    if row.recent_stalls > 0 {
        Line::styled(text, look.theme.bad)
    } else if row.stalls > 0 {
        Line::styled(text, look.theme.warning)
    } else {
        Line::styled(text, look.theme.secondary)
    }
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
        }
    }

    #[test]
    fn columns_leave_from_the_end_of_the_plan_and_never_overlap() {
        let content = ContentWidths::of(&[]);
        let mut before = 0;
        for width in 0..300 {
            let placed = place(width, &content);
            assert!(placed.iter().all(|place| place.x + place.width <= width), "{width}");
            assert!(placed.windows(2).all(|pair| pair[0].x + pair[0].width < pair[1].x), "{width}");
            assert!(placed.len() >= before, "{width}");
            before = placed.len();
        }
        assert_eq!(before, COLUMNS.len());
    }

    #[test]
    fn bars_fill_to_an_eighth_of_a_cell() {
        assert_eq!(bar(0.0, 4), (String::new(), "····".to_owned()));
        assert_eq!(bar(0.5, 4), ("██".to_owned(), "··".to_owned()));
        assert_eq!(bar(0.53, 4), ("██▏".to_owned(), "·".to_owned()));
        assert_eq!(bar(1.0, 4), ("████".to_owned(), String::new()));
        assert_eq!(bar(7.0, 4), ("████".to_owned(), String::new()));
    }
}
