//! Keys: one table of what can be asked for and by which key, from which the footer, the help, the
//! configuration file and its defaults are made.

use std::fmt;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::state::Screen;

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Quit,
    Leave,
    Help,
    Close,
    Open,
    Up,
    Down,
    Left,
    Right,
    PageUp,
    PageDown,
    First,
    Last,
    NextScreen,
    PreviousScreen,
    Go(Screen),
    NextOrder,
    PreviousOrder,
    Reverse,
    Filter,
    Columns,
    Group,
    Preview,
    Mark,
    Copy,
    Pause,
    Threshold,
    Faster,
    Slower,
    ZoomIn,
    ZoomOut,
    Wakeups,
    BpfTime,
    Suspend,
}

/// A key, with Ctrl or without. Shift is part of the character that it makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    code: KeyCode,
    control: bool,
}

/// Where the footer has it.
#[derive(Clone, Copy)]
pub(super) enum Footer {
    Nowhere,
    /// On these screens, by this word, which neighbours may share.
    On(&'static [Screen], &'static str),
}

/// What does what.
pub(super) struct Binding {
    pub(super) action: Action,
    /// In the configuration file.
    pub(super) name: &'static str,
    /// Unless the configuration says otherwise.
    pub(super) keys: &'static [Key],
    pub(super) footer: Footer,
    pub(super) description: &'static str,
}

const fn plain(code: KeyCode) -> Key {
    Key { code, control: false }
}

const fn character(character: char) -> Key {
    plain(KeyCode::Char(character))
}

const fn control(character: char) -> Key {
    Key { code: KeyCode::Char(character), control: true }
}

macro_rules! bindings {
    ($($action:expr, $name:literal, [$($key:expr),+], $footer:expr, $description:literal;)+) => {
        &[$(Binding {
            action: $action, name: $name, keys: &[$($key),+], footer: $footer, description: $description,
        }),+]
    };
}

const ALL: &[Screen] = &Screen::ALL;
const LOOPS: &[Screen] = &[Screen::Loops];
const TIMELINE: &[Screen] = &[Screen::Timeline];
const LISTS: &[Screen] = &[Screen::Loops, Screen::Timeline, Screen::Stalls];
const BEYOND_LOOPS: &[Screen] = &[Screen::Detail, Screen::Timeline, Screen::Stalls, Screen::Compare];
const MARKING: &[Screen] = &[Screen::Loops, Screen::Compare];
use Footer::{Nowhere, On};

/// All bindings, the most wanted first: a narrow footer shows those.
pub(super) static BINDINGS: &[Binding] = bindings![
    Action::Leave, "quit", [character('q')], On(ALL, "quit"), "quit, or close what is open";
    Action::Help, "help", [character('?'), plain(KeyCode::F(1))], On(ALL, "help"), "this help";
    Action::Close, "close", [plain(KeyCode::Esc)], On(BEYOND_LOOPS, "back"), "close what is open, clear the filter, go back";
    Action::Open, "open", [plain(KeyCode::Enter)], On(LISTS, "open"),
        "open the loop; fold or unfold the process";
    Action::Pause, "pause", [character(' ')], On(ALL, "pause"), "hold the screen still, or let it go on";
    Action::Left, "left", [plain(KeyCode::Left), character('h')], On(TIMELINE, "move"),
        "Loops: fold; Timeline: cursor back";
    Action::Right, "right", [plain(KeyCode::Right), character('l')], On(TIMELINE, "move"),
        "Loops: unfold; Timeline: cursor forward";
    Action::ZoomIn, "zoom-in", [character('z'), character('i')], On(TIMELINE, "zoom"), "Timeline: less time on the screen";
    Action::ZoomOut, "zoom-out", [character('Z'), character('o')], On(TIMELINE, "zoom"), "Timeline: more time on the screen";
    Action::Wakeups, "wakeups", [character('w')], On(TIMELINE, "wakeups"),
        "Timeline: wakeups of one loop, all, or none";
    Action::Filter, "filter", [character('/')], On(LISTS, "filter"), "show only what has this text in it";
    Action::NextOrder, "sort", [character('s')], On(LOOPS, "sort"), "sort by the next column";
    Action::PreviousOrder, "sort-back", [character('S')], Nowhere, "sort by the column before";
    Action::Reverse, "reverse", [character('r')], On(LOOPS, "reverse"), "sort the other way round";
    Action::Mark, "mark", [character('m')], On(MARKING, "mark"), "mark the selected process to compare it";
    Action::Copy, "copy", [character('y')], On(ALL, "copy"), "copy what is selected as text";
    Action::Columns, "columns", [character('c')], On(LOOPS, "columns"), "choose the columns of Loops";
    Action::Preview, "preview", [character('p')], Nowhere, "Loops: what the selected row did lately, below, or not";
    Action::Group, "group", [character('v')], Nowhere, "group loops by process, or do not";
    Action::Threshold, "threshold", [character('t')], On(&[Screen::Stalls], "threshold"),
        "from which loop duration on it is a stall";
    Action::Faster, "faster", [character('+'), character('=')], Nowhere, "refresh the screen more often";
    Action::Slower, "slower", [character('-')], Nowhere, "refresh the screen less often";
    Action::BpfTime, "bpf-time", [character('b')], Nowhere, "measure the probes' own time no longer";
    Action::Up, "up", [plain(KeyCode::Up), character('k')], Nowhere, "select what is above";
    Action::Down, "down", [plain(KeyCode::Down), character('j')], Nowhere, "select what is below";
    Action::PageUp, "page-up", [plain(KeyCode::PageUp)], Nowhere, "a screen up";
    Action::PageDown, "page-down", [plain(KeyCode::PageDown)], Nowhere, "a screen down";
    Action::First, "first", [plain(KeyCode::Home), character('g')], Nowhere, "the first";
    Action::Last, "last", [plain(KeyCode::End), character('G')], Nowhere, "the last";
    Action::NextScreen, "next-screen", [plain(KeyCode::Tab)], Nowhere, "the next screen";
    Action::PreviousScreen, "previous-screen", [plain(KeyCode::BackTab)], Nowhere, "the screen before";
    Action::Go(Screen::Loops), "loops", [character('1')], Nowhere, "Loops: all of them in a table";
    Action::Go(Screen::Detail), "detail", [character('2')], Nowhere, "Detail: the selected loop in full";
    Action::Go(Screen::Timeline), "timeline", [character('3')], Nowhere, "Timeline: what happens when";
    Action::Go(Screen::Stalls), "stalls", [character('4')], Nowhere, "Stalls: those that go on, and those before";
    Action::Go(Screen::Compare), "compare", [character('5')], Nowhere, "Compare: processes side by side";
    Action::Suspend, "suspend", [control('z')], Nowhere, "back to the shell; fg comes back";
    Action::Quit, "quit-now", [control('c')], Nowhere, "quit";
];

/// Keys that have a name of their own in the configuration and on the screen.
const NAMED: &[(&str, &str, KeyCode)] = &[
    ("space", "Space", KeyCode::Char(' ')),
    ("enter", "↵", KeyCode::Enter),
    ("esc", "Esc", KeyCode::Esc),
    ("tab", "Tab", KeyCode::Tab),
    ("shift-tab", "S-Tab", KeyCode::BackTab),
    ("backspace", "⌫", KeyCode::Backspace),
    ("delete", "Del", KeyCode::Delete),
    ("insert", "Ins", KeyCode::Insert),
    ("up", "↑", KeyCode::Up),
    ("down", "↓", KeyCode::Down),
    ("left", "←", KeyCode::Left),
    ("right", "→", KeyCode::Right),
    ("page-up", "PgUp", KeyCode::PageUp),
    ("page-down", "PgDn", KeyCode::PageDown),
    ("home", "Home", KeyCode::Home),
    ("end", "End", KeyCode::End),
];

impl Key {
    fn matches(self, event: &KeyEvent) -> bool {
        let others = event.modifiers - KeyModifiers::SHIFT - KeyModifiers::CONTROL;
        self.code == event.code
            && self.control == event.modifiers.contains(KeyModifiers::CONTROL)
            && others.is_empty()
    }

    /// As in the configuration file: a character, or one of [`NAMED`], `f1` to `f12`, each with `ctrl-`
    /// before it or without.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (control, name) = match text.strip_prefix("ctrl-") {
            Some(name) => (true, name),
            None => (false, text),
        };
        let mut characters = name.chars();
        let code = match (characters.next(), characters.next()) {
            (Some(character), None) if !character.is_control() => KeyCode::Char(character),
            _ => match NAMED.iter().find(|(known, ..)| *known == name) {
                Some((.., code)) => *code,
                None => name
                    .strip_prefix('f')
                    .and_then(|number| number.parse().ok())
                    .filter(|number| (1..=12).contains(number))
                    .map(KeyCode::F)?,
            },
        };
        Some(Self { code, control })
    }

    /// As on a screen.
    pub(super) fn label(self) -> String {
        let named = NAMED.iter().find(|(.., code)| *code == self.code);
        let name = match (named, self.code) {
            (Some((_, label, _)), _) => (*label).to_owned(),
            (None, KeyCode::Char(character)) if self.control => character.to_ascii_uppercase().to_string(),
            (None, KeyCode::F(number)) => format!("F{number}"),
            _ => self.to_string(),
        };
        if self.control { format!("Ctrl-{name}") } else { name }
    }
}

/// As in the configuration file.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.control {
            f.write_str("ctrl-")?;
        }
        match (NAMED.iter().find(|(.., code)| *code == self.code), self.code) {
            (Some((name, ..)), _) => f.write_str(name),
            (None, KeyCode::Char(character)) => write!(f, "{character}"),
            (None, KeyCode::F(number)) => write!(f, "f{number}"),
            (None, code) => write!(f, "{code:?}"),
        }
    }
}

/// Which keys ask for what: the table's, or the configuration's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyMap(Vec<Vec<Key>>);

impl Default for KeyMap {
    fn default() -> Self {
        Self(BINDINGS.iter().map(|binding| binding.keys.to_vec()).collect())
    }
}

impl KeyMap {
    /// Gives an action, by its index in [`BINDINGS`], other keys.
    pub(super) fn set(&mut self, binding: usize, keys: Vec<Key>) {
        self.0[binding] = keys;
    }

    /// The keys of the table's bindings, in its order.
    pub(super) fn bindings(&self) -> impl Iterator<Item = (&'static Binding, &[Key])> {
        BINDINGS.iter().zip(self.0.iter().map(Vec::as_slice))
    }

    /// What this key asks for.
    pub(super) fn action(&self, event: &KeyEvent) -> Option<Action> {
        self.bindings()
            .find(|(_, keys)| keys.iter().any(|key| key.matches(event)))
            .map(|(binding, _)| binding.action)
    }

    /// A key that two actions have, and their names, if there is one.
    pub(super) fn conflict(&self) -> Option<(Key, [&'static str; 2])> {
        let all: Vec<(Key, &'static str)> =
            self.bindings().flat_map(|(binding, keys)| keys.iter().map(|key| (*key, binding.name))).collect();
        all.iter().enumerate().find_map(|(at, (key, name))| {
            all[..at].iter().find(|(other, _)| other == key).map(|(_, first)| (*key, [*first, *name]))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_does_two_things_and_no_action_is_bound_twice() {
        assert_eq!(KeyMap::default().conflict(), None);
        for binding in BINDINGS {
            assert_eq!(BINDINGS.iter().filter(|other| other.action == binding.action).count(), 1);
            assert_eq!(BINDINGS.iter().filter(|other| other.name == binding.name).count(), 1);
            assert!(!binding.keys.is_empty() && !binding.description.is_empty());
        }
    }

    #[test]
    fn shift_is_part_of_the_character() {
        let map = KeyMap::default();
        let key = |code, modifiers| map.action(&KeyEvent::new(code, modifiers));
        assert_eq!(key(KeyCode::Char('?'), KeyModifiers::SHIFT), Some(Action::Help));
        assert_eq!(key(KeyCode::Char('G'), KeyModifiers::SHIFT), Some(Action::Last));
        assert_eq!(key(KeyCode::BackTab, KeyModifiers::SHIFT), Some(Action::PreviousScreen));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Action::Quit));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::NONE), Some(Action::Columns));
        assert_eq!(key(KeyCode::Char('q'), KeyModifiers::ALT), None);
    }

    #[test]
    fn keys_are_read_as_they_are_written() {
        for key in BINDINGS.iter().flat_map(|binding| binding.keys) {
            assert_eq!(Key::parse(&key.to_string()), Some(*key), "{key}");
        }
        for text in ["a", "ü", "-", "ctrl--", "ctrl-space", "f12", "page-down"] {
            assert_eq!(Key::parse(text).map(|key| key.to_string()).as_deref(), Some(text));
        }
        for text in ["", "ctrl-", "f13", "f0", "alt-x", "Space", "ab", "\u{7f}"] {
            assert_eq!(Key::parse(text), None, "{text}");
        }
    }
}
