//! The default configuration as text, made from the tables that it is about.

use std::fmt::Write as _;

use super::Config;
use crate::tui::{
    bindings::BINDINGS,
    columns::{COLUMNS, Column},
    state::{Grouping, Screen},
    theme::{Palette, Role},
};

/// The text. Writing to a `String` does not fail.
pub(super) fn text() -> String {
    let config = Config::default();
    let names = |names: &[&str]| names.join(", ");
    let columns: Vec<&str> = COLUMNS.iter().map(|column| column.key).collect();
    let mut text = String::from(
        "# ioscope's configuration, as it is without one. What is left out keeps its default.\n\
         # It is read from --config FILE, else from $XDG_CONFIG_HOME/ioscope/config.toml\n\
         # (~/.config/ioscope/config.toml), if that is there.\n\n[defaults]\n",
    );
    let mut entry = |comment: &str, line: String| {
        let _ = writeln!(text, "# {comment}\n{line}");
    };
    entry(
        &format!("the first screen: {}", names(&Screen::ALL.map(Screen::key))),
        format!("screen = \"{}\"", config.screen.key()),
    );
    entry(
        "how often the screen is made anew, 100ms to 10s",
        format!("refresh = \"{}\"", humantime::format_duration(config.refresh)),
    );
    entry(
        "from this loop duration on it is a stall; --stall-threshold has the last word",
        "stall-threshold = \"100ms\"".to_owned(),
    );
    entry(
        &format!("the order of Loops, by one of {}", names(&columns)),
        format!("sort = \"{}\"\nreverse = {}", Column::of(config.sort).key, config.reverse),
    );
    entry(
        &format!(
            "rows for processes in Loops: {} (with more than one)",
            names(&Grouping::NAMED.map(|g| g.0))
        ),
        "group = \"auto\"".to_owned(),
    );
    entry(
        "only these columns, of those that have room (without the entry: all)",
        format!("# columns = [\"{}\"]", columns.join("\", \"")),
    );
    entry(
        "below Loops, where there is room: what the selected row did in the last two minutes",
        format!("preview = {}", config.preview),
    );
    entry(
        "wheel and clicks; to mark text with the mouse, hold Shift, or turn this off",
        format!("mouse = {}", config.mouse),
    );
    entry(
        "let the kernel measure the probes' own time for the header: some ten nanoseconds a probe",
        format!("bpf-time = {}", config.bpf_time),
    );
    let palettes = Palette::NAMED.map(|(name, _)| name);
    let _ = write!(
        text,
        "\n[theme]\n# {}: the terminal's own 16 colours, true colour for a dark or light\n\
         # background, or no colour (as with NO_COLOR)\npalette = \"terminal\"\n\
         # single colours: a name such as \"light-blue\", a number from 0 to 255, or \"#rrggbb\"\n",
        names(&palettes)
    );
    for (name, role) in Role::ALL {
        let _ = writeln!(text, "# {name} = \"{}\"", colour(Palette::TERMINAL.get(role)));
    }
    text.push_str(
        "\n[keys]\n# characters, or enter, esc, tab, shift-tab, space, backspace, delete, insert, up, down, left,\n\
         # right, page-up, page-down, home, end, f1 to f12; ctrl- before it if wanted\n",
    );
    for binding in BINDINGS {
        let keys: Vec<String> = binding.keys.iter().map(|key| format!("\"{key}\"")).collect();
        let _ = writeln!(text, "# {}\n{} = [{}]", binding.description, binding.name, keys.join(", "));
    }
    text
}

/// As it is read; `reset` is the terminal's own foreground.
fn colour(colour: ratatui::style::Color) -> String {
    colour.to_string().to_lowercase()
}
