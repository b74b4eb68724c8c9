//! The state machine of a loop, drawn: its six states with their shares of the time, and on each way how
//! often it is gone per second.

use ioscope_common::State;
use ratatui::{style::Modifier, text::Line};

use super::canvas::Canvas;
use crate::{
    model::Stats,
    output::numbers::{percent, rate},
    tui::theme::{Theme, letter},
};

/// How wide the drawing is.
pub(super) const WIDTH: usize = 71;
const HEIGHT: usize = 17;
const BOX: usize = 13;
/// Where the three columns of boxes begin.
const LEFT: usize = 0;
const MIDDLE: usize = 32;
const RIGHT: usize = 58;

/// Draws it: `recent` gives the shares and rates, and `now` is lit.
pub(super) fn lines(recent: &Stats, now: Option<State>, theme: &Theme) -> Vec<Line<'static>> {
    let mut canvas = Canvas::new(WIDTH, HEIGHT);
    let per_second = |from, to| format!("{}/s", rate(recent.per_second(recent.changes(from, to))));
    let line = theme.secondary;
    for (state, x, y, height) in [
        (State::Polling, LEFT, 1, 4),
        (State::Running, LEFT, 6, 11),
        (State::Waiting, MIDDLE, 1, 4),
        (State::Blocked, MIDDLE, 6, 4),
        (State::Parked, MIDDLE, 10, 4),
        (State::Ready, RIGHT, 1, 16),
    ] {
        draw_box(&mut canvas, (state, x, y, height), recent, now == Some(state), theme);
    }
    let mut arrow = |from: usize, to: usize, y: usize, label: &str, right: bool| {
        let length = to - from;
        let label: String = format!(" {label} ").chars().take(length.saturating_sub(2)).collect();
        let blank = length - 1 - label.chars().count();
        let (before, after) = ("─".repeat(blank / 2), "─".repeat(blank - blank / 2));
        let (start, end) = if right { ("", "▶") } else { ("◀", "") };
        canvas.put(from, y, &format!("{start}{before}"), line);
        let x = from + start.chars().count() + blank / 2;
        canvas.put(x, y, &label, theme.strong);
        canvas.put(x + label.chars().count(), y, &format!("{after}{end}"), line);
    };
    let gap = LEFT + BOX;
    arrow(gap, MIDDLE, 2, &per_second(State::Polling, State::Waiting), true);
    arrow(MIDDLE + BOX, RIGHT, 2, &per_second(State::Waiting, State::Ready), true);
    arrow(gap, MIDDLE, 7, &per_second(State::Running, State::Blocked), true);
    arrow(MIDDLE + BOX, RIGHT, 7, &per_second(State::Blocked, State::Ready), true);
    arrow(gap, MIDDLE, 11, &per_second(State::Running, State::Parked), true);
    arrow(MIDDLE + BOX, RIGHT, 11, &per_second(State::Parked, State::Ready), true);
    arrow(gap, RIGHT, 14, &format!("{} on a CPU", per_second(State::Ready, State::Running)), false);
    arrow(gap, RIGHT, 15, &format!("{} preempted", per_second(State::Running, State::Ready)), true);
    // From READY over the top to POLLING.
    let back = format!(" {} on a CPU ", per_second(State::Ready, State::Polling));
    let (from, to) = (LEFT + 2, RIGHT + 10);
    canvas.put(from, 0, &format!("┌{}┐", "─".repeat(to - from - 1)), line);
    canvas.put(from + (to - from - back.chars().count()) / 2, 0, &back, theme.strong);
    canvas.put(from, 1, "▼", line);
    canvas.put(to, 1, "┴", line);
    // Between POLLING and RUNNING: the wait call returns, and is entered.
    for (x, top, bottom, changes) in [
        (LEFT + 2, "┬", "▼", per_second(State::Polling, State::Running)),
        (LEFT + 10, "▲", "┴", per_second(State::Running, State::Polling)),
    ] {
        canvas.put(x, 4, top, line);
        canvas.put(x, 5, "│", line);
        canvas.put(x + 1, 5, &changes, theme.strong);
        canvas.put(x, 6, bottom, line);
    }
    for (x, y, word) in [
        (gap + 4, 3, "falls asleep"),
        (MIDDLE + BOX + 4, 3, "woken"),
        (gap + 4, 8, "falls asleep"),
        (MIDDLE + BOX + 4, 8, "woken"),
        (gap + 4, 12, "hands over"),
        (MIDDLE + BOX + 4, 12, "woken"),
    ] {
        canvas.put(x, y, word, line);
    }
    let preempted = recent.changes(State::Polling, State::Ready);
    if preempted > 0 {
        let text = format!("{} preempted in POLLING", per_second(State::Polling, State::Ready));
        canvas.put(gap + 10, 5, &text, line);
    }
    canvas.lines()
}

fn draw_box(
    canvas: &mut Canvas,
    (state, x, y, height): (State, usize, usize, usize),
    recent: &Stats,
    lit: bool,
    theme: &Theme,
) {
    let [top, side, bottom] =
        if lit { ["┏━┓", "┃", "┗━┛"] } else { ["┌─┐", "│", "└─┘"] };
    let border = if lit { theme.state(state).add_modifier(Modifier::BOLD) } else { theme.secondary };
    let edge = |of: &str| {
        let mut parts = of.chars();
        let mut part = || parts.next().map(String::from).unwrap_or_default();
        let (left, middle, right) = (part(), part(), part());
        format!("{left}{}{right}", middle.repeat(BOX - 2))
    };
    canvas.put(x, y, &edge(top), border);
    for row in y + 1..y + height - 1 {
        canvas.put(x, row, side, border);
        canvas.put(x + BOX - 1, row, side, border);
    }
    canvas.put(x, y + height - 1, &edge(bottom), border);
    let style = theme.state(state).add_modifier(Modifier::BOLD);
    let style = if lit { style.add_modifier(Modifier::REVERSED) } else { style };
    canvas.put(x + 1, y + 1, &format!(" {} {:<8}", letter(state), state.name()), style);
    let share = recent.time_in(state) as f64 / recent.elapsed_ns().max(1) as f64;
    canvas.put(x + 2, y + 2, &format!("{:>9}", percent(share)), theme.strong);
}
