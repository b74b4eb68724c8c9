//! Stalls: what a slice at or over the threshold was spent on, where, and which ones there were.
//!
//! Pure data and arithmetic, as all of the model. Stacks come with the names of their functions: they are
//! asked for while the process lives, and a recording has nobody to ask.

mod account;
mod log;
mod stacks;
#[cfg(test)]
mod tests;

pub use account::{Account, BlockedIn, Cause, OTHER_SYSCALLS};
pub(super) use log::Moment;
pub use log::StallLog;
pub use stacks::{Capture, RawStack, STACKS, Stack, StackCopy, Stacks, WeightedStack};

use super::LoopId;

/// How many stalls of a loop are kept, the latest; what had to go is counted.
pub const PAST_STALLS: usize = 32;

/// A stall, past or still going on. Times are in nanoseconds of `CLOCK_MONOTONIC`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stall {
    /// Whose it is.
    pub loop_id: LoopId,
    /// When it began: when the wait call returned, or when the loop was last PARKED. With the loop, it names the
    /// stall.
    pub began_at: u64,
    /// When it was found to be a stall, while it went on; `None` when it had ended by then.
    pub found_at: Option<u64>,
    /// When it ended; `None` while it goes on.
    pub ended_at: Option<u64>,
    /// How it is cut up: the parts add up to [`Self::duration_ns`].
    pub account: Account,
    /// Where its time went, as far as was seen, the heaviest first.
    pub stacks: Stacks,
}

impl Stall {
    /// How long it lasted, or has lasted, in nanoseconds.
    pub const fn duration_ns(&self) -> u64 {
        self.account.duration_ns
    }

    /// Whether it goes on.
    pub const fn is_ongoing(&self) -> bool {
        self.ended_at.is_none()
    }
}
