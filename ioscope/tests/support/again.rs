//! Tests that a machine can spoil when it holds a program up at the wrong moment: what they see then is true, and not
//! what they are about. A fault of ioscope's own fails them each time.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::ioscope::say;

/// So often such a test is tried.
const TRIES: u32 = 3;

/// Runs a test until it passes, three times at most. What it failed of before is told, aloud.
pub(crate) fn up_to_three_times(test: impl Fn()) {
    for _ in 1..TRIES {
        let Err(reason) = catch_unwind(AssertUnwindSafe(&test)) else { return };
        let reason = reason
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| reason.downcast_ref::<&str>().copied())
            .and_then(|text| text.lines().next())
            .unwrap_or_default();
        let thread = std::thread::current();
        say(&format!("TRIED AGAIN {}: {reason}", thread.name().unwrap_or_default()));
    }
    test();
}
