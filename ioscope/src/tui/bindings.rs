//! Keys: one table of what each does, from which the footer and the help are made.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Quit,
    Leave,
    Help,
    Close,
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
    NextOrder,
    Reverse,
    Pause,
    Suspend,
}

/// A key, with Ctrl or without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    code: KeyCode,
    control: bool,
}

/// What does what.
pub(super) struct Binding {
    pub(super) action: Action,
    pub(super) keys: &'static [Key],
    /// A word for the footer, where neighbours of the same word share it; without it, only the help has it.
    pub(super) footer: Option<&'static str>,
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

/// All bindings, the most wanted first: a narrow footer shows those.
pub(super) static BINDINGS: &[Binding] = &[
    Binding {
        action: Action::Leave,
        keys: &[character('q')],
        footer: Some("quit"),
        description: "quit, or close this help",
    },
    Binding {
        action: Action::Help,
        keys: &[character('?'), plain(KeyCode::F(1))],
        footer: Some("help"),
        description: "this help",
    },
    Binding {
        action: Action::Pause,
        keys: &[character(' ')],
        footer: Some("pause"),
        description: "hold the screen still, or go on; tracing goes on",
    },
    Binding {
        action: Action::NextOrder,
        keys: &[character('s')],
        footer: Some("sort"),
        description: "sort by the next column",
    },
    Binding {
        action: Action::Reverse,
        keys: &[character('r')],
        footer: Some("reverse"),
        description: "sort the other way round",
    },
    Binding {
        action: Action::Up,
        keys: &[plain(KeyCode::Up), character('k')],
        footer: Some("select"),
        description: "select the loop above",
    },
    Binding {
        action: Action::Down,
        keys: &[plain(KeyCode::Down), character('j')],
        footer: Some("select"),
        description: "select the loop below",
    },
    Binding {
        action: Action::PageUp,
        keys: &[plain(KeyCode::PageUp)],
        footer: None,
        description: "a screen up",
    },
    Binding {
        action: Action::PageDown,
        keys: &[plain(KeyCode::PageDown)],
        footer: None,
        description: "a screen down",
    },
    Binding {
        action: Action::First,
        keys: &[plain(KeyCode::Home), character('g')],
        footer: None,
        description: "the first loop",
    },
    Binding {
        action: Action::Last,
        keys: &[plain(KeyCode::End), character('G')],
        footer: None,
        description: "the last loop",
    },
    Binding {
        action: Action::Close,
        keys: &[plain(KeyCode::Esc)],
        footer: None,
        description: "close this help, or select nothing",
    },
    Binding {
        action: Action::Suspend,
        keys: &[control('z')],
        footer: None,
        description: "back to the shell; fg comes back",
    },
    Binding { action: Action::Quit, keys: &[control('c')], footer: None, description: "quit" },
];

impl Key {
    /// Shift is part of the character that it makes.
    fn matches(self, event: &KeyEvent) -> bool {
        let others = event.modifiers - KeyModifiers::SHIFT - KeyModifiers::CONTROL;
        self.code == event.code
            && self.control == event.modifiers.contains(KeyModifiers::CONTROL)
            && others.is_empty()
    }

    /// As on a screen.
    pub(super) fn label(self) -> String {
        let name = match self.code {
            KeyCode::Char(' ') => "Space".to_owned(),
            KeyCode::Char(character) if self.control => character.to_ascii_uppercase().to_string(),
            KeyCode::Char(character) => character.to_string(),
            KeyCode::Up => "↑".to_owned(),
            KeyCode::Down => "↓".to_owned(),
            KeyCode::PageUp => "PgUp".to_owned(),
            KeyCode::PageDown => "PgDn".to_owned(),
            KeyCode::F(number) => format!("F{number}"),
            code => format!("{code:?}"),
        };
        if self.control { format!("Ctrl-{name}") } else { name }
    }
}

/// What this key asks for.
pub(super) fn action(event: &KeyEvent) -> Option<Action> {
    BINDINGS
        .iter()
        .find(|binding| binding.keys.iter().any(|key| key.matches(event)))
        .map(|binding| binding.action)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_does_two_things_and_no_action_is_bound_twice() {
        let keys: Vec<Key> = BINDINGS.iter().flat_map(|binding| binding.keys).copied().collect();
        for key in &keys {
            assert_eq!(keys.iter().filter(|other| *other == key).count(), 1, "{}", key.label());
        }
        for binding in BINDINGS {
            assert_eq!(BINDINGS.iter().filter(|other| other.action == binding.action).count(), 1);
            assert!(!binding.keys.is_empty() && !binding.description.is_empty());
        }
    }

    #[test]
    fn shift_is_part_of_the_character() {
        let key = |code, modifiers| action(&KeyEvent::new(code, modifiers));
        assert_eq!(key(KeyCode::Char('?'), KeyModifiers::SHIFT), Some(Action::Help));
        assert_eq!(key(KeyCode::Char('G'), KeyModifiers::SHIFT), Some(Action::Last));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Action::Quit));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::NONE), None);
        assert_eq!(key(KeyCode::Char('q'), KeyModifiers::ALT), None);
    }
}
