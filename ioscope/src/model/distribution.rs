//! A distribution of values, as the kernel's histograms add up to.

use ioscope_common::{Histogram, bucket_high, bucket_low};

/// A distribution of nanoseconds or of counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    count: u64,
    sum: u64,
    max: u64,
    buckets: Vec<u64>,
}

impl Distribution {
    /// Adds what a kernel-side histogram has counted since `earlier`, a copy of the same histogram.
    pub fn add_since<const N: usize>(&mut self, now: &Histogram<N>, earlier: Option<&Histogram<N>>) {
        self.buckets.resize(self.buckets.len().max(N), 0);
        for (at, (total, &count)) in self.buckets.iter_mut().zip(&now.buckets).enumerate() {
            let before = earlier.and_then(|earlier| earlier.buckets.get(at)).copied().unwrap_or(0);
            let added = u64::from(count.wrapping_sub(before));
            *total += added;
            self.count += added;
        }
        self.sum = self.sum.wrapping_add(now.sum.wrapping_sub(earlier.map_or(0, |earlier| earlier.sum)));
        self.max = self.max.max(now.max);
    }

    /// How many values.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Their sum.
    pub const fn sum(&self) -> u64 {
        self.sum
    }

    /// The largest, exactly; 0 without values. Of a difference ([`Self::since`]), the largest that its
    /// buckets allow.
    pub const fn max(&self) -> u64 {
        self.max
    }

    /// The mean, exactly; 0 without values.
    pub fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum as f64 / self.count as f64 }
    }

    /// The value below which this share of the values lies: the middle of its bucket, so at most
    /// 6.25 % off. 0 without values.
    pub fn quantile(&self, share: f64) -> u64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank is a count")]
        let rank = ((self.count as f64 * share).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                let (low, high) = (bucket_low(bucket), bucket_high(bucket));
                return (low + (high - 1 - low) / 2).min(self.max);
            }
        }
        0
    }

    /// What was added after `earlier`, a former state of this distribution.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let buckets: Vec<u64> = self
            .buckets
            .iter()
            .enumerate()
            .map(|(at, count)| count - earlier.buckets.get(at).copied().unwrap_or(0))
            .collect();
        let max = if self.max > earlier.max {
            self.max
        } else {
            buckets.iter().rposition(|count| *count > 0).map_or(0, |at| (bucket_high(at) - 1).min(self.max))
        };
        Self { count: self.count - earlier.count, sum: self.sum.wrapping_sub(earlier.sum), max, buckets }
    }

    /// Adds another distribution of the same kind.
    pub fn merge(&mut self, other: &Self) {
        self.buckets.resize(self.buckets.len().max(other.buckets.len()), 0);
        for (total, count) in self.buckets.iter_mut().zip(&other.buckets) {
            *total += count;
        }
        self.count += other.count;
        self.sum = self.sum.wrapping_add(other.sum);
        self.max = self.max.max(other.max);
    }

    /// The buckets that hold values: smallest value, one more than the largest, count.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64, u64)> {
        self.buckets
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
            .map(|(at, count)| (bucket_low(at), bucket_high(at), *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ioscope_common::Durations;
    use proptest::prelude::*;

    fn of(values: &[u64]) -> (Distribution, Durations) {
        let mut histogram = Durations::EMPTY;
        for &value in values {
            histogram.record(value);
        }
        let mut distribution = Distribution::default();
        distribution.add_since(&histogram, None);
        (distribution, histogram)
    }

    #[test]
    fn without_values_everything_is_zero() {
        let empty = Distribution::default();
        assert_eq!((empty.count(), empty.max(), empty.quantile(0.5)), (0, 0, 0));
        assert!(empty.mean().abs() < f64::EPSILON);
    }

    #[test]
    fn a_bucket_that_wraps_is_counted_on() {
        let mut before = Durations::EMPTY;
        before.buckets[3] = u32::MAX - 1;
        let mut after = before;
        for _ in 0..5 {
            after.record(3);
        }
        let mut distribution = Distribution::default();
        distribution.add_since(&before, None);
        distribution.add_since(&after, Some(&before));
        assert_eq!(distribution.count(), u64::from(u32::MAX - 1) + 5);
    }

    proptest! {
        #[test]
        fn quantiles_are_near_the_true_ones(
            mut values in prop::collection::vec(0..1u64 << 36, 1..300),
            share in 0.0..=1.0f64,
        ) {
            let (distribution, _) = of(&values);
            values.sort_unstable();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
            let rank = ((values.len() as f64 * share).ceil() as usize).clamp(1, values.len());
            let (truth, found) = (values[rank - 1], distribution.quantile(share));
            prop_assert!(truth.abs_diff(found) as f64 <= truth as f64 * 0.0626, "{truth} {found}");
            prop_assert_eq!(distribution.max(), *values.last().expect("not empty"));
        }

        #[test]
        fn a_difference_is_what_came_after(
            first in prop::collection::vec(0..1u64 << 36, 0..50),
            second in prop::collection::vec(0..1u64 << 36, 0..50),
        ) {
            let (earlier, histogram) = of(&first);
            let mut later = histogram;
            for &value in &second {
                later.record(value);
            }
            let mut all = earlier.clone();
            all.add_since(&later, Some(&histogram));
            let difference = all.since(&earlier);
            let (expected, _) = of(&second);
            prop_assert_eq!(difference.count(), expected.count());
            prop_assert_eq!(difference.sum(), expected.sum());
            prop_assert!(difference.max() >= expected.max());
            let mut merged = earlier;
            merged.merge(&expected);
            prop_assert_eq!(merged, all);
        }
    }
}
