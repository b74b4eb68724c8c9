//! A distribution as a picture: bars over a logarithmic axis, with its quantiles marked below.

use ratatui::{
    style::Style,
    text::{Line, Span},
};

use super::canvas::Canvas;
use crate::{
    model::Distribution,
    tui::{cells::eighths_high, theme::Theme},
};

/// What is narrower is no picture.
const LEAST_WIDTH: usize = 8;
/// Rows of bars.
const HEIGHT: usize = 4;
/// What is marked: by these names, at these shares.
const MARKS: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)];

/// What a picture is of.
pub(super) struct Picture<'a> {
    pub(super) distribution: &'a Distribution,
    /// In words, of a value.
    pub(super) format: fn(u64) -> String,
    pub(super) style: Style,
    pub(super) width: usize,
}

/// The quantiles in words: `p50 25.6µs  p90 …`.
pub(super) fn quantiles(picture: &Picture<'_>, theme: &Theme) -> Line<'static> {
    let mut line = Line::default();
    let gap = if picture.width >= 56 { "  " } else { " " };
    let p999 = (picture.width >= 56).then_some(("p99.9", 0.999));
    for (name, share) in MARKS[..3].iter().copied().chain(p999).chain([MARKS[3]]) {
        if !line.spans.is_empty() {
            line.push_span(Span::raw(gap));
        }
        line.push_span(Span::styled(format!("{name} "), theme.secondary));
        line.push_span(Span::styled(
            (picture.format)(value(picture.distribution, name, share)),
            theme.strong,
        ));
    }
    line
}

fn value(distribution: &Distribution, name: &str, share: f64) -> u64 {
    if name == "max" { distribution.max() } else { distribution.quantile(share) }
}

/// The picture: bars, axis and marks; nothing without values.
pub(super) fn lines(picture: &Picture<'_>, theme: &Theme) -> Vec<Line<'static>> {
    let Picture { distribution, format, style, width } = picture;
    let width = *width;
    if width < LEAST_WIDTH {
        return Vec::new();
    }
    let mut buckets = distribution.buckets();
    let Some((first, ..)) = buckets.next() else { return Vec::new() };
    let last = distribution.buckets().last().map_or(first + 1, |(_, high, _)| high);
    // An octave at least, so that a single bucket is no wall.
    let low = (first.max(1) as f64).ln();
    let high = (last as f64).ln().max(low + std::f64::consts::LN_2);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the width")]
    let column = |value: u64| {
        let share = ((value.max(1) as f64).ln() - low) / (high - low);
        ((share * width as f64).floor().max(0.0) as usize).min(width - 1)
    };
    let mut heights = vec![0.0_f64; width];
    for (from, to, count) in distribution.buckets() {
        let range = column(from)..=column(to.saturating_sub(1).max(from));
        let cells = range.clone().count() as f64;
        for at in range {
            heights[at] += count as f64 / cells;
        }
    }
    let tallest = heights.iter().copied().fold(0.0, f64::max);
    let mut canvas = Canvas::new(width, HEIGHT + 2);
    for (x, height) in heights.iter().enumerate().filter(|(_, height)| **height > 0.0) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few eighths")]
        let eighths = ((height / tallest * (HEIGHT * 8) as f64).round() as usize).max(1);
        for row in 0..HEIGHT {
            let part = eighths.saturating_sub((HEIGHT - 1 - row) * 8).min(8);
            if part > 0 {
                canvas.put(x, row, eighths_high(part), *style);
            }
        }
    }
    canvas.put(0, HEIGHT, &"─".repeat(width), theme.secondary);
    // The ends of the axis in words, then the marks where they do not overlap.
    let mut taken = Vec::new();
    let mut put = |canvas: &mut Canvas, x: usize, text: &str, style| {
        let range = x..x + text.chars().count();
        if range.end <= width
            && taken
                .iter()
                .all(|other: &std::ops::Range<usize>| range.end < other.start || other.end < range.start)
        {
            canvas.put(x, HEIGHT + 1, text, style);
            taken.push(range);
        }
    };
    for (name, share) in MARKS {
        let at = column(value(distribution, name, share));
        canvas.put(at, HEIGHT, "┴", theme.strong);
        put(&mut canvas, at.saturating_sub(1).min(width.saturating_sub(name.len())), name, theme.strong);
    }
    let (left, right) = (format(first), format(last.saturating_sub(1)));
    put(&mut canvas, 0, &left, theme.secondary);
    put(&mut canvas, width.saturating_sub(right.chars().count()), &right, theme.secondary);
    canvas.lines()
}
