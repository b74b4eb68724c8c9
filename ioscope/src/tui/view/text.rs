//! Small pieces of lines that several screens have.

use ratatui::{
    style::Style,
    text::{Line, Span},
};

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::tui::theme::Theme;

/// With commas between.
pub(super) fn joined(parts: &[String]) -> String {
    parts.join(", ")
}

/// Numbers with their words: `  12 stalls  3 errors`.
pub(super) fn numbers_line(numbers: &[(String, &str)], theme: &Theme) -> Line<'static> {
    let mut line = Line::default();
    for (number, word) in numbers {
        line.push_span(Span::raw("  "));
        line.push_span(Span::styled(number.clone(), theme.strong));
        line.push_span(Span::raw(format!(" {word}")));
    }
    line
}

/// A bar of parts, each as long as its share and with its letter in it where there is room. What is not
/// nothing has a cell at least, as far as there are some.
pub(super) fn stacked(parts: &[(char, f64, Style)], width: usize) -> Line<'static> {
    let there: Vec<&(char, f64, Style)> = parts.iter().filter(|(_, share, _)| *share > 0.0005).collect();
    let mut line = Line::default();
    let mut left = width;
    let mut share_left: f64 = there.iter().map(|(_, share, _)| share).sum();
    for (at, (letter, share, style)) in there.iter().enumerate() {
        let after = there.len() - 1 - at;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the width")]
        let wanted = (share / share_left.max(f64::EPSILON) * left as f64).round() as usize;
        let cells = wanted.max(1).min(left.saturating_sub(after));
        left -= cells;
        share_left -= share;
        let bar = match cells {
            0 => continue,
            1 => letter.to_string(),
            cells => format!("{letter}{}", " ".repeat(cells - 1)),
        };
        line.push_span(Span::styled(bar, style.add_modifier(ratatui::style::Modifier::REVERSED)));
    }
    line
}

/// A text on as many lines as it takes, broken between words; a word that is longer than a line is cut.
pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace().map(|word| cut(word, width)) {
        match lines.last_mut() {
            Some(line) if line.width() + 1 + word.width() <= width => {
                line.push(' ');
                line.push_str(&word);
            }
            _ => lines.push(word),
        }
    }
    lines
}

/// A text cut to a width, with an ellipsis where something is missing.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut room = width.saturating_sub(1);
    let mut kept = String::new();
    for character in text.chars() {
        let cells = character.width().unwrap_or(0);
        if cells > room {
            break;
        }
        room -= cells;
        kept.push(character);
    }
    if width > 0 { kept + "…" } else { kept }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words_and_long_words_are_cut() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("größe 日本 x", 8), ["größe", "日本 x"]);
        assert_eq!(wrapped("abcdefgh i", 4), ["abc…", "i"]);
        assert_eq!(wrapped("", 4), Vec::<String>::new());
        assert!(wrapped("a b", 0).iter().all(String::is_empty));
    }
}
