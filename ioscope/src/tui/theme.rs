//! Colours, and never as the only sign: whatever has a colour has a letter, a word or a number too.
//!
//! The palette `terminal` takes the terminal's own 16 colours, so that they fit its background whatever
//! that is. `dark` and `light` are of true colour, for backgrounds of that kind.

use std::time::Duration;

use ioscope_common::State;
use ratatui::style::{Color, Modifier, Style};

use crate::model::findings::Severity;

/// From this loop duration on a percentile is worth a look, below the threshold of a stall.
const SLOW_LOOP: Duration = Duration::from_millis(10);
/// From these utilisations on a loop has little room left, or none.
const BUSY: f64 = 0.7;
const SATURATED: f64 = 0.9;

/// What has a colour of its own, by its name in the configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    State(State),
    Bad,
    Warning,
    Good,
    Accent,
    Secondary,
    Selected,
}

impl Role {
    pub(super) const ALL: [(&'static str, Self); 12] = [
        ("waiting", Self::State(State::Waiting)),
        ("polling", Self::State(State::Polling)),
        ("ready", Self::State(State::Ready)),
        ("running", Self::State(State::Running)),
        ("blocked", Self::State(State::Blocked)),
        ("parked", Self::State(State::Parked)),
        ("bad", Self::Bad),
        ("warning", Self::Warning),
        ("good", Self::Good),
        ("accent", Self::Accent),
        ("secondary", Self::Secondary),
        ("selected", Self::Selected),
    ];

    const fn index(self) -> usize {
        match self {
            Self::State(state) => state as usize,
            Self::Bad => 6,
            Self::Warning => 7,
            Self::Good => 8,
            Self::Accent => 9,
            Self::Secondary => 10,
            Self::Selected => 11,
        }
    }
}

/// A colour for each [`Role`], by its index; `Reset` leaves it to bold, dim and reversed text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Palette {
    colours: [Color; Role::ALL.len()],
}

const fn rgb(hex: u32) -> Color {
    #[expect(clippy::cast_possible_truncation, reason = "a byte each")]
    Color::Rgb((hex >> 16) as u8, (hex >> 8) as u8, hex as u8)
}

impl Palette {
    /// No colour: for `NO_COLOR`.
    pub const NONE: Self = Self { colours: [Color::Reset; Role::ALL.len()] };

    /// The terminal's own 16. Idle states are quiet, work is green, what keeps a loop from its work stands
    /// out.
    pub const TERMINAL: Self = Self {
        colours: [
            Color::LightBlue,
            Color::Cyan,
            Color::Yellow,
            Color::Green,
            Color::Magenta,
            Color::Reset,
            Color::Red,
            Color::Yellow,
            Color::Green,
            Color::Cyan,
            Color::Reset,
            Color::Reset,
        ],
    };

    /// True colour on a dark background.
    pub const DARK: Self = Self {
        colours: [
            rgb(0x006e_a8fe),
            rgb(0x0056_c8d8),
            rgb(0x00f2_c94c),
            rgb(0x006f_cf7c),
            rgb(0x00d7_8bf0),
            rgb(0x008a_93a6),
            rgb(0x00ff_6b6b),
            rgb(0x00f2_b35c),
            rgb(0x006f_cf7c),
            rgb(0x0056_c8d8),
            rgb(0x0096_9fb2),
            rgb(0x0031_3c5e),
        ],
    };

    /// True colour on a light background.
    pub const LIGHT: Self = Self {
        colours: [
            rgb(0x001f_5fbf),
            rgb(0x000b_7285),
            rgb(0x009a_6700),
            rgb(0x001a_7f37),
            rgb(0x0082_50df),
            rgb(0x006e_7781),
            rgb(0x00cf_222e),
            rgb(0x009a_6700),
            rgb(0x001a_7f37),
            rgb(0x0005_50ae),
            rgb(0x0059_636e),
            rgb(0x00cf_e4ff),
        ],
    };

    /// By their names in the configuration file.
    pub(super) const NAMED: [(&'static str, Self); 4] =
        [("terminal", Self::TERMINAL), ("dark", Self::DARK), ("light", Self::LIGHT), ("none", Self::NONE)];

    pub(super) const fn get(&self, role: Role) -> Color {
        self.colours[role.index()]
    }

    pub(super) const fn set(&mut self, role: Role, colour: Color) {
        self.colours[role.index()] = colour;
    }
}

/// How things look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    states: [Style; State::COUNT],
    /// There are no colours: where a letter says the same, it is to be shown.
    pub(super) colourless: bool,
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
    /// The tab of the screen that is shown.
    pub(super) tab: Style,
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
    /// Of a palette.
    pub fn new(palette: &Palette) -> Self {
        let plain = Style::new();
        let of = |role| match palette.get(role) {
            Color::Reset => plain,
            colour => plain.fg(colour),
        };
        let quiet = |role| match palette.get(role) {
            Color::Reset => plain.add_modifier(Modifier::DIM),
            colour => plain.fg(colour),
        };
        let mark = Modifier::BOLD | Modifier::REVERSED;
        let accent = of(Role::Accent).add_modifier(Modifier::BOLD);
        Self {
            states: State::ALL.map(|state| match state {
                State::Parked => quiet(Role::State(state)),
                state => of(Role::State(state)),
            }),
            colourless: *palette == Palette::NONE,
            alarm: of(Role::Bad).add_modifier(mark),
            bad: of(Role::Bad).add_modifier(Modifier::BOLD),
            warning: of(Role::Warning),
            good: of(Role::Good),
            strong: plain.add_modifier(Modifier::BOLD),
            secondary: quiet(Role::Secondary),
            accent,
            badge: of(Role::Warning).add_modifier(mark),
            heading: plain.add_modifier(Modifier::BOLD),
            sorted_heading: accent.add_modifier(Modifier::UNDERLINED),
            selected: match palette.get(Role::Selected) {
                // All of it in one colour: coloured text reversed would be a patchwork.
                Color::Reset => {
                    plain.fg(Color::Reset).remove_modifier(Modifier::DIM).add_modifier(Modifier::REVERSED)
                }
                colour => plain.bg(colour).add_modifier(Modifier::BOLD),
            },
            tab: accent.add_modifier(Modifier::REVERSED),
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

    /// What is wrong, by how bad it is.
    pub(super) const fn severity(&self, severity: Severity) -> Style {
        match severity {
            Severity::Info => self.secondary,
            Severity::Warn => self.warning,
            Severity::Critical => self.bad,
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
