//! Numbers for people: few digits, a unit, the same width wherever they stand.

/// Nanoseconds with a unit, three digits: `812ns`, `45.2µs`, `1.20ms`, `3.00s`, `12m`.
pub fn duration(ns: u64) -> String {
    const MINUTE: f64 = 60e9;
    let value = ns as f64;
    match ns {
        0..=999 => format!("{ns}ns"),
        1_000..=999_499 => scaled(value / 1e3, "µs"),
        999_500..=999_499_999 => scaled(value / 1e6, "ms"),
        999_500_000..=59_949_999_999 => scaled(value / 1e9, "s"),
        _ if value < 60.0 * MINUTE => format!("{:.1}m", value / MINUTE),
        _ => format!("{:.1}h", value / (60.0 * MINUTE)),
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
            (45_200, "45.2µs"),
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
