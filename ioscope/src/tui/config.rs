//! The configuration file: keys, theme and defaults, in TOML. It is read by hand from the parsed
//! document, so that whatever is wrong is told with its line and its key.

mod default;

use std::{path::Path, str::FromStr as _, time::Duration};

use ratatui::style::Color;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    bindings::{BINDINGS, Key, KeyMap},
    columns::{COLUMNS, ColumnId},
    state::{Grouping, Screen},
    theme::{Palette, Role},
};
use crate::cli::duration;

/// The least and the longest time between two refreshes.
pub(super) const REFRESH: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(10)];

/// What can be configured.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own, by its name in the file")]
pub struct Config {
    palette: Option<Palette>,
    colours: Vec<(Role, Color)>,
    pub(super) keys: KeyMap,
    pub(super) screen: Screen,
    pub(super) refresh: Duration,
    /// From which loop duration on it is a stall, where the command line does not say.
    pub stall_threshold: Option<Duration>,
    pub(super) sort: ColumnId,
    pub(super) reverse: bool,
    pub(super) group: Grouping,
    /// The columns that may be shown; all, if it is not said.
    pub(super) columns: Option<Vec<ColumnId>>,
    /// Whether Loops shows more of the selected row, where there is room.
    pub(super) preview: bool,
    /// Whether the mouse is ioscope's.
    pub mouse: bool,
    /// Whether the kernel measures the probes' own time.
    pub bpf_time: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            palette: None,
            colours: Vec::new(),
            keys: KeyMap::default(),
            screen: Screen::Loops,
            refresh: Duration::from_millis(250),
            stall_threshold: None,
            sort: ColumnId::Utilisation,
            reverse: false,
            group: Grouping::Auto,
            columns: None,
            preview: true,
            mouse: true,
            bpf_time: true,
        }
    }
}

/// What is wrong with a configuration, and where.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {}{problem}", if .key.is_empty() { String::new() } else { format!("{key}: ") })]
pub struct ConfigError {
    /// Counted from 1.
    pub line: usize,
    /// As `table.key`; empty where the file is no TOML.
    pub key: String,
    /// What is wrong, and what would not be.
    pub problem: String,
}

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFileError {
    /// It cannot be read.
    #[error("{path} cannot be read: {error}")]
    Io {
        /// The file.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// Something in it is wrong.
    #[error("{path}: {error}")]
    Content {
        /// The file.
        path: String,
        /// What.
        error: ConfigError,
    },
}

/// A value in its place: which key, for an error.
struct Entry<'a> {
    text: &'a str,
    table: &'a str,
    key: &'a str,
    value: &'a Spanned<DeValue<'a>>,
}

impl Entry<'_> {
    fn wrong(&self, problem: impl Into<String>) -> ConfigError {
        ConfigError {
            line: line(self.text, self.value.span().start),
            key: format!("{}.{}", self.table, self.key),
            problem: problem.into(),
        }
    }

    fn string(&self) -> Result<&str, ConfigError> {
        self.value.get_ref().as_str().ok_or_else(|| self.wrong("a text in quotes is wanted"))
    }

    fn boolean(&self) -> Result<bool, ConfigError> {
        self.value.get_ref().as_bool().ok_or_else(|| self.wrong("`true` or `false` is wanted"))
    }

    fn duration(&self) -> Result<Duration, ConfigError> {
        duration(self.string()?).map_err(|problem| self.wrong(problem))
    }

    /// A list of texts, or one.
    fn strings(&self) -> Result<Vec<&str>, ConfigError> {
        let wrong = || self.wrong("a list of texts in quotes is wanted");
        match self.value.get_ref() {
            DeValue::String(text) => Ok(vec![text.as_ref()]),
            DeValue::Array(values) => {
                values.iter().map(|value| value.get_ref().as_str().ok_or_else(wrong)).collect()
            }
            _ => Err(wrong()),
        }
    }

    /// One of some values that have names.
    fn one_of<T: Copy>(&self, what: &str, known: &[(&str, T)]) -> Result<T, ConfigError> {
        self.named(what, self.string()?, known)
    }

    fn named<T: Copy>(&self, what: &str, name: &str, known: &[(&str, T)]) -> Result<T, ConfigError> {
        known.iter().find(|(known, _)| *known == name).map(|(_, value)| *value).ok_or_else(|| {
            let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            self.wrong(format!("there is no {what} `{name}`: {}", names.join(", ")))
        })
    }
}

/// The line that a byte is in.
fn line(text: &str, at: usize) -> usize {
    1 + text.get(..at).unwrap_or(text).matches('\n').count()
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, or something in it is wrong.
    pub fn read(file: &Path) -> Result<Self, ConfigFileError> {
        let path = file.display().to_string();
        match std::fs::read_to_string(file) {
            Ok(text) => Self::parse(&text).map_err(|error| ConfigFileError::Content { path, error }),
            Err(error) => Err(ConfigFileError::Io { path, error }),
        }
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let document = DeTable::parse(text).map_err(|error| ConfigError {
            line: line(text, error.span().map_or(0, |span| span.start)),
            key: String::new(),
            problem: error.message().to_owned(),
        })?;
        let mut config = Self::default();
        for (table, value) in in_order(document.get_ref()) {
            let entry = |problem: &str| ConfigError {
                line: line(text, table.span().start),
                key: table.get_ref().to_string(),
                problem: problem.to_owned(),
            };
            let name = table.get_ref().as_ref();
            let take = match name {
                "defaults" => Self::take_default,
                "theme" => Self::take_theme,
                "keys" => Self::take_keys,
                _ => return Err(entry("there is no such table: defaults, theme, keys")),
            };
            let values = value.get_ref().as_table().ok_or_else(|| entry("a table is wanted"))?;
            for (key, value) in in_order(values) {
                take(&mut config, &Entry { text, table: name, key: key.get_ref(), value })?;
            }
        }
        if let Some((key, [first, second])) = config.keys.conflict() {
            // Named where it was configured: one of the two is.
            let at = document.get_ref().get("keys").and_then(|keys| keys.get_ref().as_table());
            let find = |name: &str| at.and_then(|keys| keys.get_key_value(name));
            let (name, other) = if find(second).is_some() { (second, first) } else { (first, second) };
            let start = find(name).map_or(0, |(key, _)| key.span().start);
            return Err(ConfigError {
                line: line(text, start),
                key: format!("keys.{name}"),
                problem: format!("the key `{key}` is that of `{other}` too: give that another one"),
            });
        }
        Ok(config)
    }

    fn take_default(&mut self, entry: &Entry<'_>) -> Result<(), ConfigError> {
        let columns: Vec<(&str, ColumnId)> = COLUMNS.iter().map(|column| (column.key, column.id)).collect();
        match entry.key {
            "screen" => self.screen = entry.one_of("screen", &Screen::ALL.map(|s| (s.key(), s)))?,
            "refresh" => {
                let refresh = entry.duration()?;
                if refresh < REFRESH[0] || refresh > REFRESH[1] {
                    return Err(entry.wrong("it has to be from 100ms to 10s"));
                }
                self.refresh = refresh;
            }
            "stall-threshold" => self.stall_threshold = Some(entry.duration()?),
            "sort" => self.sort = entry.one_of("column", &columns)?,
            "reverse" => self.reverse = entry.boolean()?,
            "group" => self.group = entry.one_of("way to group", &Grouping::NAMED)?,
            "columns" => {
                let names = entry.strings()?;
                let chosen: Result<Vec<ColumnId>, ConfigError> =
                    names.into_iter().map(|name| entry.named("column", name, &columns)).collect();
                let chosen = chosen?;
                if chosen.is_empty() {
                    return Err(entry.wrong("at least one column is wanted"));
                }
                self.columns = Some(chosen);
            }
            "preview" => self.preview = entry.boolean()?,
            "mouse" => self.mouse = entry.boolean()?,
            "bpf-time" => self.bpf_time = entry.boolean()?,
            _ => {
                return Err(entry.wrong(
                    "there is no such default: screen, refresh, stall-threshold, sort, reverse, group, columns, \
                     preview, mouse, bpf-time",
                ));
            }
        }
        Ok(())
    }

    fn take_theme(&mut self, entry: &Entry<'_>) -> Result<(), ConfigError> {
        if entry.key == "palette" {
            self.palette = Some(entry.one_of("palette", &Palette::NAMED)?);
            return Ok(());
        }
        let Some((_, role)) = Role::ALL.iter().find(|(name, _)| *name == entry.key) else {
            let names: Vec<&str> = Role::ALL.iter().map(|(name, _)| *name).collect();
            return Err(entry.wrong(format!("there is no such colour: palette, {}", names.join(", "))));
        };
        let colour = entry.string()?;
        let colour = Color::from_str(colour).map_err(|_| {
            entry.wrong(format!(
                "`{colour}` is no colour: a name such as `light-blue`, a number from 0 to 255, or `#rrggbb`"
            ))
        })?;
        self.colours.push((*role, colour));
        Ok(())
    }

    fn take_keys(&mut self, entry: &Entry<'_>) -> Result<(), ConfigError> {
        let Some(binding) = BINDINGS.iter().position(|binding| binding.name == entry.key) else {
            let names: Vec<&str> = BINDINGS.iter().map(|binding| binding.name).collect();
            return Err(entry.wrong(format!("there is no such action: {}", names.join(", "))));
        };
        let keys: Result<Vec<Key>, ConfigError> = entry
            .strings()?
            .into_iter()
            .map(|text| {
                Key::parse(text).ok_or_else(|| {
                    entry.wrong(format!(
                        "`{text}` is no key: a character, or enter, esc, tab, shift-tab, space, backspace, delete, \
                         insert, up, down, left, right, page-up, page-down, home, end, f1 to f12; ctrl- before it \
                         if wanted"
                    ))
                })
            })
            .collect();
        self.keys.set(binding, keys?);
        Ok(())
    }

    /// The palette, with the configured colours in it. Without one, it is the terminal's own; a palette of
    /// true colour is left to terminals that have it. Without colours at all, as `NO_COLOR` wants it, there
    /// are none.
    pub fn palette(&self, colour: bool, true_colour: bool) -> Palette {
        if !colour {
            return Palette::NONE;
        }
        let mut palette = match self.palette {
            Some(palette @ (Palette::DARK | Palette::LIGHT)) if !true_colour => {
                let _ = palette;
                Palette::TERMINAL
            }
            Some(palette) => palette,
            None => Palette::TERMINAL,
        };
        for (role, colour) in &self.colours {
            palette.set(*role, *colour);
        }
        palette
    }

    /// The default configuration as a file that says what each entry means.
    pub fn default_text() -> String {
        default::text()
    }
}

/// In the order of the file.
fn in_order<'a>(
    table: &'a DeTable<'a>,
) -> Vec<(&'a Spanned<std::borrow::Cow<'a, str>>, &'a Spanned<DeValue<'a>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> (usize, String, String) {
        let error = Config::parse(text).expect_err("it is wrong");
        (error.line, error.key, error.problem)
    }

    #[test]
    fn the_printed_default_is_the_default() {
        let text = Config::default_text();
        let parsed = Config::parse(&text).expect("it is valid");
        assert_eq!(
            parsed,
            Config {
                palette: Some(Palette::TERMINAL),
                stall_threshold: parsed.stall_threshold,
                ..Config::default()
            }
        );
        assert_eq!(parsed.stall_threshold, Some(Duration::from_millis(100)));
        assert_eq!(Config::parse(""), Ok(Config::default()));
    }

    #[test]
    fn what_is_configured_is_taken() {
        let config = Config::parse(
            "[defaults]\nscreen = 'timeline'\nrefresh = '1s'\nsort = 'stalls'\nreverse = true\n\
             group = 'always'\ncolumns = ['tid', 'name']\npreview = false\nmouse = false\nbpf-time = false\n\
             [theme]\npalette = 'dark'\nready = '#ff8800'\nbad = 'light-red'\n\
             [keys]\nquit = ['x', 'ctrl-q']\ncolumns = 'C'\n",
        )
        .expect("it is valid");
        assert_eq!((config.screen, config.refresh), (Screen::Timeline, Duration::from_secs(1)));
        assert_eq!((config.sort, config.reverse, config.group), (ColumnId::Stalls, true, Grouping::Always));
        assert_eq!(config.columns, Some(vec![ColumnId::Tid, ColumnId::Name]));
        assert!(!config.mouse && !config.bpf_time && !config.preview);
        let palette = config.palette(true, true);
        assert_eq!(palette.get(Role::State(ioscope_common::State::Ready)), Color::Rgb(255, 136, 0));
        assert_eq!(palette.get(Role::Bad), Color::LightRed);
        assert_eq!(palette.get(Role::Good), Palette::DARK.get(Role::Good));
        let few = config.palette(true, false);
        assert_eq!(few.get(Role::Good), Palette::TERMINAL.get(Role::Good), "it has no true colour");
        assert_eq!(config.palette(false, true), Palette::NONE);
        let labels: Vec<String> = config
            .keys
            .bindings()
            .filter(|(binding, _)| ["quit", "columns"].contains(&binding.name))
            .flat_map(|(_, keys)| keys.iter().map(|key| key.label()))
            .collect();
        assert_eq!(labels, ["x", "Ctrl-Q", "C"]);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_key() {
        for (text, line, key, problem) in [
            ("[defaults\n", 1, "", "table"),
            ("\n[keys]\nquit = ['x'\n", 3, "", "array"),
            ("[what]\n", 1, "what", "no such table"),
            ("defaults = 3\n", 1, "defaults", "a table is wanted"),
            ("[defaults]\n\nwhat = 3\n", 3, "defaults.what", "no such default"),
            ("[defaults]\nmouse = 1\n", 2, "defaults.mouse", "`true` or `false`"),
            ("[defaults]\nrefresh = '1ms'\n", 2, "defaults.refresh", "100ms to 10s"),
            ("[defaults]\nrefresh = 'soon'\n", 2, "defaults.refresh", "5s, 250ms"),
            ("[defaults]\nrefresh = 5\n", 2, "defaults.refresh", "in quotes"),
            ("[defaults]\nsort = 'size'\n", 2, "defaults.sort", "no column `size`: pid"),
            ("[defaults]\ncolumns = []\n", 2, "defaults.columns", "at least one"),
            ("[defaults]\nscreen = 'x'\n", 2, "defaults.screen", "loops, detail, timeline"),
            ("[theme]\npalette = 'pink'\n", 2, "theme.palette", "terminal, dark, light, none"),
            ("[theme]\nwaiting = 'mauve'\n", 2, "theme.waiting", "#rrggbb"),
            ("[theme]\nwaitin = 'red'\n", 2, "theme.waitin", "no such colour"),
            ("# x\n[keys]\nquit = ['qq']\n", 3, "keys.quit", "`qq` is no key"),
            ("[keys]\nquit = 3\n", 2, "keys.quit", "a list of texts"),
            ("[keys]\nleap = ['x']\n", 2, "keys.leap", "no such action"),
            ("[keys]\nsort = ['q']\n", 2, "keys.sort", "the key `q` is that of `quit` too"),
            ("[keys]\nquit = ['s']\n", 2, "keys.quit", "the key `s` is that of `sort` too"),
        ] {
            let (found_line, found_key, found) = wrong(text);
            assert_eq!((found_line, found_key.as_str()), (line, key), "{text}: {found}");
            assert!(found.contains(problem), "{text}: {found}");
        }
    }
}
