//! Threads that take turns at one poller, as the workers of multi-thread tokio do.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Thread};

/// Who may wait on the shared poller.
#[derive(Default)]
pub(super) struct Turns {
    is_taken: AtomicBool,
    threads: Mutex<Vec<Thread>>,
}

/// A thread's place among those that take turns; given up when dropped.
pub(super) struct Seat<'a>(&'a Turns);

impl Turns {
    /// Lets the calling thread take part.
    pub(super) fn join(&self) -> Seat<'_> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread::current());
        Seat(self)
    }
}

impl Seat<'_> {
    /// Takes the turn, if no other thread has it.
    pub(super) fn take(&self) -> bool {
        !self.0.is_taken.swap(true, Ordering::Acquire)
    }

    /// Ends the turn and wakes the others: one of them takes it, the rest park again.
    pub(super) fn hand_over(&self) {
        self.0.is_taken.store(false, Ordering::Release);
        self.wake_others();
    }

    fn wake_others(&self) {
        let own = thread::current().id();
        let threads = self.0.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.iter().filter(|thread| thread.id() != own).for_each(Thread::unpark);
    }
}

impl Drop for Seat<'_> {
    /// A thread that leaves holds no turn unless it failed in it.
    fn drop(&mut self) {
        self.wake_others();
    }
}
