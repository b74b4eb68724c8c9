//! Debian's order of package versions: deb-version(7).

use std::cmp::Ordering;

/// Which of two versions is the newer one.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let ((epoch_a, rest_a), (epoch_b, rest_b)) = (split_epoch(a), split_epoch(b));
    let ((upstream_a, revision_a), (upstream_b, revision_b)) =
        (split_revision(rest_a), split_revision(rest_b));
    epoch_a
        .cmp(&epoch_b)
        .then_with(|| compare_part(upstream_a, upstream_b))
        .then_with(|| compare_part(revision_a, revision_b))
}

fn split_epoch(version: &str) -> (u64, &str) {
    match version.split_once(':') {
        Some((epoch, rest)) => (epoch.parse().unwrap_or(0), rest),
        None => (0, version),
    }
}

fn split_revision(version: &str) -> (&str, &str) {
    version.rsplit_once('-').unwrap_or((version, ""))
}

/// Text and numbers in turn, text first.
fn compare_part(mut a: &str, mut b: &str) -> Ordering {
    while !(a.is_empty() && b.is_empty()) {
        let (text_a, rest_a) = split_while(a, |c| !c.is_ascii_digit());
        let (text_b, rest_b) = split_while(b, |c| !c.is_ascii_digit());
        let (number_a, rest_a) = split_while(rest_a, |c| c.is_ascii_digit());
        let (number_b, rest_b) = split_while(rest_b, |c| c.is_ascii_digit());
        let order = compare_text(text_a, text_b).then_with(|| number(number_a).cmp(&number(number_b)));
        if order.is_ne() {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
    Ordering::Equal
}

fn split_while(text: &str, is_part: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !is_part(c)).unwrap_or(text.len()))
}

fn number(digits: &str) -> u128 {
    digits.parse().unwrap_or(0)
}

/// A tilde sorts before the end, the end before letters, letters before everything else.
fn compare_text(a: &str, b: &str) -> Ordering {
    let weight = |c: char| match c {
        '~' => -1,
        c if c.is_ascii_alphabetic() => i64::from(u32::from(c)),
        c => 256 + i64::from(u32::from(c)),
    };
    let weights = |text: &str, length: usize| -> Vec<i64> {
        text.chars().map(weight).chain(std::iter::repeat(0)).take(length).collect()
    };
    let length = a.chars().count().max(b.chars().count());
    weights(a, length).cmp(&weights(b, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_dpkg_does() {
        let ascending = [
            "1.0~rc1-1",
            "1.0-1",
            "1.0-1+b1",
            "1.0.1-1",
            "6.1.9-1",
            "6.1.99-1~deb11u1",
            "6.1.99-1",
            "6.1.187-1",
            "6.12.43-1~bpo12+1",
            "6.12.43-1",
            "6.12.117-1",
            "1:0.5",
        ];
        let dpkg = |older: &str, newer: &str| {
            let mut command = std::process::Command::new("dpkg");
            let status = command.args(["--compare-versions", older, "lt", newer]).status();
            status.map_or(true, |status| status.success())
        };
        for pair in ascending.windows(2) {
            assert!(dpkg(pair[0], pair[1]), "dpkg thinks otherwise: {pair:?}");
        }
        for (place, older) in ascending.iter().enumerate() {
            assert_eq!(compare(older, older), Ordering::Equal, "{older}");
            for newer in &ascending[place + 1..] {
                assert_eq!(compare(older, newer), Ordering::Less, "{older} {newer}");
                assert_eq!(compare(newer, older), Ordering::Greater, "{newer} {older}");
            }
        }
        assert_eq!(compare("1.0", "1.00"), Ordering::Equal);
    }
}
