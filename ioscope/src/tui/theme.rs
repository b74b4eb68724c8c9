//! Colours. The terminal's own 16 only, so that they fit its background; and never as the only sign:
//! whatever has a colour has a letter, a word or a number too.

use std::time::Duration;

use ioscope_common::State;
use ratatui::style::{Color, Modifier, Style};

/// From this loop duration on a percentile is worth a look, below the threshold of a stall.
const SLOW_LOOP: Duration = Duration::from_millis(10);
/// From these utilisations on a loop has little room left, or none.
const BUSY: f64 = 0.7;
const SATURATED: f64 = 0.9;

/// How things look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    states: [Style; State::COUNT],
    /// The mark of a stall that goes on, and of what else must not be missed.
    pub(super) alarm: Style,
    /// A number that says that something is wrong.
    pub(super) bad: Style,
    /// A number that is worth a look.
    pub(super) warning: Style,
    /// A number that is as it should be.
    pub(super) good: Style,
    /// What is there to be read first.
    pub(super) strong: Style,
    /// What is there to be read second.
    pub(super) secondary: Style,
    /// The program's name, and keys.
    pub(super) accent: Style,
    /// A word about the whole screen: paused, target ended.
    pub(super) badge: Style,
    /// The table's headings.
    pub(super) heading: Style,
    /// The heading of the column by which the table is sorted.
    pub(super) sorted_heading: Style,
    /// The selected row, on top of its own colours.
    pub(super) selected: Style,
}

/// A state's letter: unlike every other's, and one of its name's.
pub(super) const fn letter(state: State) -> char {
    match state {
        State::Waiting => 'W',
        State::Polling => 'P',
        State::Ready => 'Y',
        State::Running => 'R',
        State::Blocked => 'B',
        State::Parked => 'K',
    }
}

/// What a state means, in the words of the help.
pub(super) const fn meaning(state: State) -> &'static str {
    match state {
        State::Waiting => "asleep in a wait call",
        State::Polling => "in a wait call, not asleep",
        State::Ready => "runnable, not on a CPU",
        State::Running => "outside a wait call, on a CPU",
        State::Blocked => "outside a wait call, asleep",
        State::Parked => "idle: another thread holds the poller",
    }
}

impl Theme {
    /// With colours, or with bold, dim and reversed text only.
    pub fn new(colour: bool) -> Self {
        let plain = Style::new();
        let of = |colour_of_it| if colour { plain.fg(colour_of_it) } else { plain };
        let secondary = plain.add_modifier(Modifier::DIM);
        let mark = Modifier::BOLD | Modifier::REVERSED;
        let accent = of(Color::Cyan).add_modifier(Modifier::BOLD);
        Self {
            // Idle ones are quiet, work is green, what keeps a loop from its work stands out.
            states: State::ALL.map(|state| match state {
                State::Waiting => of(Color::LightBlue),
                State::Polling => of(Color::Cyan),
                State::Ready => of(Color::Yellow),
                State::Running => of(Color::Green),
                State::Blocked => of(Color::Magenta),
                State::Parked => secondary,
            }),
            alarm: of(Color::Red).add_modifier(mark),
            bad: of(Color::Red).add_modifier(Modifier::BOLD),
            warning: of(Color::Yellow),
            good: of(Color::Green),
            strong: plain.add_modifier(Modifier::BOLD),
            secondary,
            accent,
            badge: of(Color::Yellow).add_modifier(mark),
            heading: plain.add_modifier(Modifier::BOLD),
            sorted_heading: accent.add_modifier(Modifier::UNDERLINED),
            selected: plain.add_modifier(Modifier::REVERSED),
        }
    }

    /// A state.
    pub(super) const fn state(&self, state: State) -> Style {
        self.states[state as usize]
    }

    /// A utilisation, 0 to 1.
    pub(super) fn utilisation(&self, share: f64) -> Style {
        if share >= SATURATED {
            self.bad
        } else if share >= BUSY {
            self.warning
        } else {
            self.good
        }
    }

    /// A loop duration in nanoseconds.
    pub(super) fn loop_duration(&self, ns: u64, stall_threshold: Duration) -> Style {
        let duration = Duration::from_nanos(ns);
        if duration >= stall_threshold {
            self.bad
        } else if duration >= SLOW_LOOP {
            self.warning
        } else {
            Style::new()
        }
    }
}
