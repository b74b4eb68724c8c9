//! Log-linear histograms: every power of two is cut into eight buckets of equal width, so that a
//! bucket's width is at most 12.5 % of its lower bound, whatever the magnitude.
//!
//! The kernel only adds; buckets are 32 bits wide and wrap. The collector reads them often enough
//! (a bucket that takes a million values a second wraps after 71 minutes) and adds up differences.

/// Buckets per power of two, as a power of two.
const SUB_BITS: u32 = 3;
const SUB: u32 = 1 << SUB_BITS;

/// Buckets of a histogram of nanoseconds: exact below 8 ns, the last one takes all from
/// 2^40 − 2^37 ns (about 16 minutes).
pub const DURATION_BUCKETS: usize = 304;

/// Buckets of a histogram of counts: exact below 16, the last one takes all from 61,440.
pub const COUNT_BUCKETS: usize = 112;

/// The bucket that a value falls into, not yet clamped to a histogram's length.
#[inline(always)]
#[must_use]
pub const fn bucket_of(value: u64) -> usize {
    if value < SUB as u64 {
        return value as usize;
    }
    let exponent = floor_log2(value);
    let sub = (value >> (exponent - SUB_BITS)) as u32 & (SUB - 1);
    ((exponent - SUB_BITS + 1) * SUB + sub) as usize
}

/// The smallest value of a bucket.
#[must_use]
pub const fn bucket_low(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let sub = SUB as u64;
    if bucket < sub {
        return bucket;
    }
    (sub + bucket % sub) << (bucket / sub - 1)
}

/// One more than the largest value of a bucket (the last bucket of a histogram is open above).
#[must_use]
pub const fn bucket_high(bucket: usize) -> u64 {
    bucket_low(bucket + 1)
}

/// The product of this with a number that is all ones from some bit down has that bit's number, in the order of
/// [`LOGS`], in its upper six bits: a de Bruijn sequence.
const SEQUENCE: u64 = 0x03f7_9d71_b4cb_0a89;
static LOGS: [u8; 64] = logs();

const fn logs() -> [u8; 64] {
    const NONE: u8 = u8::MAX;
    let mut logs = [NONE; 64];
    let mut log = 0;
    while log < 64 {
        let place = (u64::MAX >> (63 - log)).wrapping_mul(SEQUENCE) >> 58;
        assert!(logs[place as usize] == NONE, "each has a place of its own");
        logs[place as usize] = log;
        log += 1;
    }
    logs
}

/// `floor(log2(value))` of a value that is not 0. Without a branch: the BPF instruction set has no count of leading zeros,
/// what the compiler makes of one is long, and the verifier would go down both sides of each branch of a search.
#[inline(always)]
const fn floor_log2(mut value: u64) -> u32 {
    value |= value >> 1;
    value |= value >> 2;
    value |= value >> 4;
    value |= value >> 8;
    value |= value >> 16;
    value |= value >> 32;
    LOGS[(value.wrapping_mul(SEQUENCE) >> 58) as usize] as u32
}

/// A histogram as the kernel keeps it: buckets, the values' sum and the largest value.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "user"), derive(Debug))]
#[repr(C)]
pub struct Histogram<const N: usize> {
    /// The sum of all values.
    pub sum: u64,
    /// The largest value.
    pub max: u64,
    /// How many values fell into each bucket; wraps at 2^32.
    pub buckets: [u32; N],
}

/// A histogram of nanoseconds.
pub type Durations = Histogram<DURATION_BUCKETS>;
/// A histogram of counts.
pub type Counts = Histogram<COUNT_BUCKETS>;

impl<const N: usize> Histogram<N> {
    /// A histogram without values.
    pub const EMPTY: Self = Self { sum: 0, max: 0, buckets: [0; N] };

    /// Adds one value.
    #[inline(always)]
    pub fn record(&mut self, value: u64) {
        self.sum = self.sum.wrapping_add(value);
        if value > self.max {
            self.max = value;
        }
        // The compiler would prove the bound by what it knows of the value and leave the check out;
        // the verifier knows less, and wants to see it.
        let mut bucket = core::hint::black_box(bucket_of(value));
        if bucket >= N {
            bucket = N - 1;
        }
        if let Some(count) = self.buckets.get_mut(bucket) {
            *count = count.wrapping_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn small_values_have_a_bucket_each() {
        for value in 0..16 {
            assert_eq!(bucket_of(value), usize::try_from(value).expect("small"));
            assert_eq!(bucket_low(bucket_of(value)), value);
            assert_eq!(bucket_high(bucket_of(value)), value + 1);
        }
    }

    #[test]
    fn the_last_buckets_are_where_the_documentation_says() {
        assert_eq!(bucket_low(DURATION_BUCKETS - 1), (1 << 40) - (1 << 36));
        assert_eq!(bucket_low(COUNT_BUCKETS - 1), 61_440);
    }

    #[test]
    fn what_is_too_large_goes_into_the_last_bucket() {
        let mut counts = Counts::EMPTY;
        counts.record(u64::MAX);
        counts.record(1 << 20);
        assert_eq!(counts.buckets[COUNT_BUCKETS - 1], 2);
        assert_eq!(counts.max, u64::MAX);
    }

    #[test]
    fn logarithms_are_those_of_the_standard_library() {
        for bit in 0..64 {
            for value in [1_u64 << bit, (1 << bit) + (1 << bit) / 2, u64::MAX >> (63 - bit)] {
                assert_eq!(floor_log2(value), value.ilog2(), "{value}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_value_lies_in_its_bucket_and_the_bucket_is_narrow(value in 0..1u64 << 41) {
            let bucket = bucket_of(value);
            let (low, high) = (bucket_low(bucket), bucket_high(bucket));
            prop_assert!(low <= value && value < high);
            prop_assert!(high - low == 1 || (high - low) * 8 <= low);
        }

        #[test]
        fn nothing_is_lost(values in prop::collection::vec(0..1u64 << 44, 0..200)) {
            let mut durations = Durations::EMPTY;
            for &value in &values {
                durations.record(value);
            }
            let count: u64 = durations.buckets.iter().map(|&n| u64::from(n)).sum();
            prop_assert_eq!(count, values.len() as u64);
            prop_assert_eq!(durations.sum, values.iter().sum::<u64>());
            prop_assert_eq!(durations.max, values.iter().copied().max().unwrap_or(0));
        }
    }
}
