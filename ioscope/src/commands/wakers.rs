//! The names of threads that wake loops, from /proc.

use std::{
    collections::HashMap,
    fs,
    time::{Duration, Instant},
};

use crate::source::printable;

/// A name is read again after this time: numbers are given out anew, and threads change their names.
const FRESH: Duration = Duration::from_secs(5);
/// With more names than this all are forgotten, and those that matter read again.
const MOST: usize = 16_384;

/// Names by thread, as they were lately.
#[derive(Default)]
pub(super) struct Wakers {
    names: HashMap<u32, (Option<String>, Instant)>,
}

impl Wakers {
    /// Reads a thread's name unless it is known; `now` is the same for a whole batch.
    pub(super) fn look_up(&mut self, tid: u32, now: Instant) {
        if tid == 0 || self.names.get(&tid).is_some_and(|(_, read_at)| now - *read_at < FRESH) {
            return;
        }
        if self.names.len() >= MOST {
            self.names.clear();
        }
        let name = fs::read_to_string(format!("/proc/{tid}/comm")).ok();
        match (name, self.names.get_mut(&tid)) {
            // A thread that has ended keeps the name that it had.
            (None, Some((_, read_at))) => *read_at = now,
            (name, _) => {
                let name = name.map(|name| printable(name.trim_end()));
                self.names.insert(tid, (name, now));
            }
        }
    }

    /// A thread's name, if one was found.
    pub(super) fn name(&self, tid: u32) -> Option<&str> {
        self.names.get(&tid)?.0.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_once_and_the_dead_have_none() {
        let (mut wakers, now) = (Wakers::default(), Instant::now());
        let own = std::process::id();
        for tid in [0, own, u32::MAX] {
            wakers.look_up(tid, now);
        }
        assert_eq!(wakers.name(0), None);
        assert_eq!(wakers.name(u32::MAX), None);
        let name = fs::read_to_string("/proc/self/comm").unwrap();
        assert_eq!(wakers.name(own), Some(name.trim_end()));
        assert_eq!(wakers.names.len(), 2);
    }
}
