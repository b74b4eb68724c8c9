//! Numbers for people: few digits, a unit, the same width wherever they stand.

use std::fmt;

/// Nanoseconds with a unit, three digits: `812ns`, `45.2µs`, `1.20ms`, `3.00s`, `12m`.
pub fn duration(ns: u64) -> String {
    Nanoseconds(ns).to_string()
}

/// The same, to be written without a string of its own; `{:>6}` aligns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nanoseconds(pub u64);

impl fmt::Display for Nanoseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MINUTE: f64 = 60e9;
        let ns = self.0;
        match ns {
            0..=999 => Short::new(ns, 1, 0, "ns").pad(f),
            1_000..=999_499 => Short::of(ns, 1_000, "µs").pad(f),
            999_500..=999_499_999 => Short::of(ns, 1_000_000, "ms").pad(f),
            999_500_000..=59_949_999_999 => Short::of(ns, 1_000_000_000, "s").pad(f),
            _ if (ns as f64) < 60.0 * MINUTE => f.pad(&format!("{:.1}m", ns as f64 / MINUTE)),
            _ => f.pad(&format!("{:.1}h", ns as f64 / (60.0 * MINUTE))),
        }
    }
}

/// Rounds to the nearest, and from the middle to the even one, as floats are printed.
const fn divide(value: u64, by: u64) -> u64 {
    let (whole, rest) = (value / by, value % by);
    let up = rest * 2 > by || (rest * 2 == by && whole % 2 == 1);
    if up { whole + 1 } else { whole }
}

/// At most `999.5` and a unit, as text: whole numbers only, because `trace` writes millions of them.
struct Short {
    text: [u8; 8],
    length: usize,
}

impl Short {
    /// `value` in `unit`s, in three digits.
    fn of(value: u64, unit: u64, name: &str) -> Self {
        let hundredths = divide(value * 100, unit);
        if hundredths < 1_000 {
            return Self::new(hundredths, 100, 2, name);
        }
        let tenths = divide(value * 10, unit);
        if tenths < 1_000 {
            return Self::new(tenths, 10, 1, name);
        }
        Self::new(divide(value, unit), 1, 0, name)
    }

    /// `value` parts of a whole, of which it takes `parts` and which have `digits` digits.
    fn new(value: u64, parts: u64, digits: usize, name: &str) -> Self {
        let mut short = Self { text: [0; 8], length: 0 };
        let whole = value / parts;
        for place in [100, 10, 1] {
            if whole >= place || place == 1 {
                short.push_digit(whole / place);
            }
        }
        if digits > 0 {
            short.push(b'.');
            let part = value % parts;
            if digits > 1 {
                short.push_digit(part / 10);
            }
            short.push_digit(part);
        }
        name.bytes().for_each(|byte| short.push(byte));
        short
    }

    fn push_digit(&mut self, number: u64) {
        self.push(b"0123456789"[(number % 10) as usize]);
    }

    fn push(&mut self, byte: u8) {
        if let Some(place) = self.text.get_mut(self.length) {
            *place = byte;
            self.length += 1;
        }
    }

    fn pad(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(std::str::from_utf8(&self.text[..self.length]).unwrap_or_default())
    }
}

/// A rate or a mean, three digits: `0`, `0.42`, `12.3`, `456`, `78.9k`, `1.20M`.
pub fn rate(value: f64) -> String {
    if value < 0.005 {
        "0".to_owned()
    } else if value < 999.5 {
        scaled(value, "")
    } else if value < 999_500.0 {
        scaled(value / 1e3, "k")
    } else if value < 999.5e6 {
        scaled(value / 1e6, "M")
    } else {
        scaled(value / 1e9, "G")
    }
}

/// A share as percent, a digit behind the point: `0.0%` to `100.0%`.
pub fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

/// A count with its thousands apart: `1,234,567`.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

fn scaled(value: f64, unit: &str) -> String {
    if value < 9.995 {
        format!("{value:.2}{unit}")
    } else if value < 99.95 {
        format!("{value:.1}{unit}")
    } else {
        format!("{value:.0}{unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_digits_and_a_unit() {
        for (ns, text) in [
            (0, "0ns"),
            (999, "999ns"),
            (1_000, "1.00µs"),
            (7, "7ns"),
            (70, "70ns"),
            (9_994, "9.99µs"),
            (9_996, "10.0µs"),
            (45_200, "45.2µs"),
            (99_960, "100µs"),
            (1_050_000, "1.05ms"),
            (180_500_000, "180ms"),
            (181_500_000, "182ms"),
            (999_499, "999µs"),
            (999_500, "1.00ms"),
            (1_200_000, "1.20ms"),
            (999_600_000, "1.00s"),
            (3_000_000_000, "3.00s"),
            (59_940_000_000, "59.9s"),
            (60_000_000_000, "1.0m"),
            (7_200_000_000_000, "2.0h"),
        ] {
            assert_eq!(duration(ns), text);
            assert_eq!(format!("{:>8}", Nanoseconds(ns)), format!("{text:>8}"));
        }
    }

    #[test]
    fn rates_and_counts_stay_short() {
        for (value, text) in [
            (0.0, "0"),
            (0.42, "0.42"),
            (12.34, "12.3"),
            (999.4, "999"),
            (999.6, "1.00k"),
            (78_900.0, "78.9k"),
            (1_200_000.0, "1.20M"),
        ] {
            assert_eq!(rate(value), text);
        }
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(percent(0.4214), "42.1%");
    }
}
