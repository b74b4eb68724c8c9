//! A distribution of values, as the kernel's histograms add up to.

use ioscope_common::{Histogram, bucket_high, bucket_low};

/// A distribution of nanoseconds or of counts.
///
/// Only the buckets from the first that holds a value to the last that does are kept: a loop has six distributions, each
/// is kept several times over, and there may be thousands of loops whose values lie within a few decades.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    count: u64,
    sum: u64,
    max: u64,
    /// The bucket of the first of `counts`.
    first: usize,
    /// Neither the first nor the last is 0.
    counts: Vec<u64>,
}

impl Distribution {
    /// Adds what a kernel-side histogram has counted since `earlier`, a copy of the same histogram.
    pub fn add_since<const N: usize>(&mut self, now: &Histogram<N>, earlier: Option<&Histogram<N>>) {
        let added = |at: usize| {
            let before = earlier.map_or(0, |earlier| earlier.buckets[at]);
            u64::from(now.buckets[at].wrapping_sub(before))
        };
        if let Some(first) = (0..N).find(|at| added(*at) > 0) {
            let last = (first..N).rfind(|at| added(*at) > 0).unwrap_or(first);
            self.make_room(first, last);
            for at in first..=last {
                self.counts[at - self.first] += added(at);
                self.count += added(at);
            }
        }
        self.sum = self.sum.wrapping_add(now.sum.wrapping_sub(earlier.map_or(0, |earlier| earlier.sum)));
        self.max = self.max.max(now.max);
    }

    /// Makes room for the values of these buckets, both of which are about to get some.
    fn make_room(&mut self, first: usize, last: usize) {
        let held = self.held();
        if held.contains(&first) && held.contains(&last) {
            return;
        }
        let (from, to) =
            if held.is_empty() { (first, last + 1) } else { (first.min(held.start), held.end.max(last + 1)) };
        let mut counts = vec![0; to - from];
        counts[held.start.saturating_sub(from)..][..held.len()].copy_from_slice(&self.counts);
        (self.first, self.counts) = (from, counts);
    }

    /// The buckets that are kept.
    const fn held(&self) -> std::ops::Range<usize> {
        self.first..self.first + self.counts.len()
    }

    /// How many values a bucket holds.
    fn of_bucket(&self, bucket: usize) -> u64 {
        bucket.checked_sub(self.first).and_then(|at| self.counts.get(at)).copied().unwrap_or(0)
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
        for (bucket, count) in self.held().zip(&self.counts) {
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
        let added = |bucket: usize| self.of_bucket(bucket) - earlier.of_bucket(bucket);
        let first = self.held().find(|bucket| added(*bucket) > 0).unwrap_or(0);
        let end = self.held().rfind(|bucket| added(*bucket) > 0).map_or(first, |last| last + 1);
        let max = if self.max > earlier.max {
            self.max
        } else if first < end {
            (bucket_high(end - 1) - 1).min(self.max)
        } else {
            0
        };
        Self {
            count: self.count - earlier.count,
            sum: self.sum.wrapping_sub(earlier.sum),
            max,
            first,
            counts: (first..end).map(added).collect(),
        }
    }

    /// Adds another distribution of the same kind.
    pub fn merge(&mut self, other: &Self) {
        let held = other.held();
        if !held.is_empty() {
            self.make_room(held.start, held.end - 1);
            for (bucket, count) in held.zip(&other.counts) {
                self.counts[bucket - self.first] += count;
            }
        }
        self.count += other.count;
        self.sum = self.sum.wrapping_add(other.sum);
        self.max = self.max.max(other.max);
    }

    /// The buckets that hold values: smallest value, one more than the largest, count.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64, u64)> {
        self.held()
            .zip(&self.counts)
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
