//! From the probes' clock to the one on the wall.
#![expect(unsafe_code, reason = "the time zone is known to the C library")]

use rustix::time::{ClockId, clock_gettime};

/// How far the wall's clock is from the probes', at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WallClock {
    /// What to add to `CLOCK_MONOTONIC` for nanoseconds since 1970, UTC.
    pub offset_ns: i64,
    /// What to add to UTC for local time, in seconds.
    pub zone_s: i64,
}

impl WallClock {
    /// As both clocks and the time zone are now.
    pub fn now() -> Self {
        let wall = clock_gettime(ClockId::Realtime);
        let monotonic = clock_gettime(ClockId::Monotonic);
        let offset_ns = (wall.tv_sec - monotonic.tv_sec) * 1_000_000_000 + (wall.tv_nsec - monotonic.tv_nsec);
        Self { offset_ns, zone_s: zone(wall.tv_sec) }
    }

    /// Nanoseconds since 1970, UTC, of a moment of the probes' clock.
    pub const fn unix_ns(self, monotonic_ns: u64) -> u64 {
        monotonic_ns.saturating_add_signed(self.offset_ns)
    }

    /// Nanoseconds since the last midnight, local time.
    pub const fn time_of_day_ns(self, monotonic_ns: u64) -> u64 {
        const DAY: u64 = 86_400_000_000_000;
        self.unix_ns(monotonic_ns).saturating_add_signed(self.zone_s * 1_000_000_000) % DAY
    }
}

/// Seconds east of UTC at this moment; 0 if that cannot be told.
fn zone(unix_s: i64) -> i64 {
    let mut local = std::mem::MaybeUninit::<libc::tm>::uninit();
    // SAFETY: both pointers are valid; the function is the one that threads may call at the same time,
    // and nothing here changes the environment, which it reads. It fills in all of `local`, or returns
    // null.
    unsafe {
        if libc::localtime_r(&raw const unix_s, local.as_mut_ptr()).is_null() {
            return 0;
        }
        local.assume_init().tm_gmtoff
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_day_is_local() {
        let clock = WallClock { offset_ns: 86_400_000_000_000, zone_s: 7_200 };
        assert_eq!(clock.unix_ns(5), 86_400_000_000_005);
        assert_eq!(clock.time_of_day_ns(5), 7_200_000_000_005);
        let west = WallClock { zone_s: -3_600, ..clock };
        assert_eq!(west.time_of_day_ns(0), 23 * 3_600_000_000_000);
    }

    #[test]
    fn now_is_now() {
        let clock = WallClock::now();
        let monotonic = clock_gettime(ClockId::Monotonic);
        let unix = clock.unix_ns(u64::try_from(monotonic.tv_sec).unwrap() * 1_000_000_000) / 1_000_000_000;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        assert!(now.abs_diff(unix) <= 2, "{now} {unix}");
        assert!(clock.zone_s.abs() <= 14 * 3_600);
    }
}
