//! Globs over thread names, compiled so that the kernel can match them in sixteen straight steps.
//!
//! All patterns together are one non-deterministic automaton of at most 64 positions, a bit each
//! (the bit-parallel "shift-and" method). For every byte, a mask says which positions accept it.

/// Bytes of a thread's name with its terminator: `TASK_COMM_LEN` in the kernel's `sched.h`.
pub const COMM_LEN: usize = 16;

/// Compiled patterns. As a value of all zeroes it matches nothing.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct CommPatterns {
    /// Per byte: the positions that a name moves on from when it reads this byte.
    accept: [u64; 256],
    /// Positions at which a pattern starts.
    start: u64,
    /// Positions that stand at a `*`: they stay, and the next position is reached without a byte.
    star: u64,
    /// Positions behind the last character of a pattern.
    end: u64,
}

/// Why a list of patterns cannot be compiled.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "user"), derive(Debug))]
pub enum PatternError {
    /// All patterns together have more than 63 characters.
    TooLong,
    /// A `[` without its `]`, or with nothing in between.
    Class,
}

impl CommPatterns {
    /// Matches nothing.
    pub const NONE: Self = Self { accept: [0; 256], start: 0, star: 0, end: 0 };

    /// Adds a glob: `*` any bytes, `?` one byte, `[abc]` or `[a-z]` one of these, `\` takes the next
    /// character as it is.
    ///
    /// # Errors
    /// When the patterns so far and this one take more than 64 positions, or a class is not closed.
    pub fn add(&mut self, glob: &[u8]) -> Result<(), PatternError> {
        let mut at = if self.end == 0 { 0 } else { 64 - self.end.leading_zeros() };
        let mut next = Self { ..*self };
        let bit = |at: u32| if at < 64 { Ok(1u64 << at) } else { Err(PatternError::TooLong) };
        next.start |= bit(at)?;
        let mut rest = glob;
        while let Some((&first, tail)) = rest.split_first() {
            rest = tail;
            let here = bit(at)?;
            match first {
                b'*' => next.star |= here,
                b'?' => next.accept.iter_mut().skip(1).for_each(|mask| *mask |= here),
                b'[' => {
                    let close = rest.iter().position(|&b| b == b']').ok_or(PatternError::Class)?;
                    let class = rest.get(..close).unwrap_or_default();
                    if class.is_empty() {
                        return Err(PatternError::Class);
                    }
                    for (byte, mask) in (0u8..=255).zip(next.accept.iter_mut()).skip(1) {
                        if in_class(class, byte) {
                            *mask |= here;
                        }
                    }
                    rest = rest.get(close + 1..).unwrap_or_default();
                }
                byte => {
                    let literal = match (byte, rest.split_first()) {
                        (b'\\', Some((&escaped, tail))) => {
                            rest = tail;
                            escaped
                        }
                        _ => byte,
                    };
                    if let Some(mask) = next.accept.get_mut(usize::from(literal)) {
                        *mask |= here;
                    }
                }
            }
            at += 1;
        }
        next.end |= bit(at)?;
        *self = next;
        Ok(())
    }

    /// Whether a name, up to its first zero byte, matches one of the patterns.
    #[inline(always)]
    #[must_use]
    pub fn matches(&self, comm: &[u8; COMM_LEN]) -> bool {
        let mut at = self.skip_stars(self.start);
        for &byte in comm {
            if byte == 0 {
                break;
            }
            let accept = self.accept.get(usize::from(byte)).copied().unwrap_or(0);
            at = self.skip_stars(((at & accept) << 1) | (at & self.star));
        }
        at & self.end != 0
    }

    /// Adds the positions that are reached over `*` without reading. A run of stars is one star to
    /// the reader, so four in a row are followed and more would be a strange thing to write.
    #[inline(always)]
    const fn skip_stars(&self, mut at: u64) -> u64 {
        at |= (at & self.star) << 1;
        at |= (at & self.star) << 1;
        at |= (at & self.star) << 1;
        at |= (at & self.star) << 1;
        at
    }
}

fn in_class(class: &[u8], byte: u8) -> bool {
    let mut rest = class;
    while let Some((&low, tail)) = rest.split_first() {
        if let [b'-', high, after @ ..] = tail {
            if (low..=*high).contains(&byte) {
                return true;
            }
            rest = after;
        } else {
            if low == byte {
                return true;
            }
            rest = tail;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn comm(name: &str) -> [u8; COMM_LEN] {
        let mut comm = [0; COMM_LEN];
        comm[..name.len()].copy_from_slice(name.as_bytes());
        comm
    }

    fn matches(globs: &[&str], name: &str) -> bool {
        let mut patterns = CommPatterns::NONE;
        for glob in globs {
            patterns.add(glob.as_bytes()).expect("a valid glob");
        }
        patterns.matches(&comm(name))
    }

    #[test]
    fn globs_match_as_in_a_shell() {
        for (glob, name, expected) in [
            ("nginx", "nginx", true),
            ("nginx", "nginx2", false),
            ("nginx", "ngin", false),
            ("redis-*", "redis-server", true),
            ("redis-*", "redis-", true),
            ("redis-*", "redis", false),
            ("*server", "redis-server", true),
            ("*", "", true),
            ("*", "anything", true),
            ("**a**", "banana", true),
            ("?ode", "node", true),
            ("?ode", "ode", false),
            ("worker[0-9]", "worker7", true),
            ("worker[0-9]", "workerx", false),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("*a*a*a", "banana", true),
            ("abcdefghijklmno", "abcdefghijklmno", true),
        ] {
            assert_eq!(matches(&[glob], name), expected, "{glob} on {name}");
        }
    }

    #[test]
    fn several_patterns_do_not_run_into_each_other() {
        assert!(matches(&["node", "redis*"], "node"));
        assert!(matches(&["node", "redis*"], "redis-server"));
        assert!(!matches(&["node", "redis*"], "nodered"));
        assert!(!matches(&["no", "de"], "node"));
        assert!(!CommPatterns::NONE.matches(&comm("")));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut patterns = CommPatterns::NONE;
        assert_eq!(patterns.add(&[b'x'; 64]), Err(PatternError::TooLong));
        assert_eq!(patterns.add(b"[abc"), Err(PatternError::Class));
        assert!(!patterns.matches(&comm("x")));
    }

    /// The textbook definition, for comparison.
    fn reference(glob: &[u8], name: &[u8]) -> bool {
        match (glob.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => {
                reference(rest, name) || name.split_first().is_some_and(|(_, tail)| reference(glob, tail))
            }
            (Some((b'?', rest)), Some((_, tail))) => reference(rest, tail),
            (Some((a, rest)), Some((b, tail))) if a == b => reference(rest, tail),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(glob in "[ab?]{0,4}[*]?[ab?]{0,4}[*]?[ab]{0,3}", name in "[ab]{0,15}") {
            prop_assert_eq!(matches(&[&glob], &name), reference(glob.as_bytes(), name.as_bytes()));
        }
    }
}
