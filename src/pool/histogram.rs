//! Durations by size, in buckets that are fine enough for 5 % of error: [`Histogram`] to read, and
//! [`AtomicHistogram`] to write.
//!
//! The buckets are log-linear. Each power of two is divided into [`PARTS`] buckets of the same
//! width, so the width of a bucket is at most 1 / [`PARTS`] of what is in it. A value is taken for
//! the middle of its bucket: that is wrong by half of the width at most, some 3 %.

use std::array;
use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use crate::util::sync::{AtomicU64, Ordering};

/// Into how many buckets each power of two is divided.
const PARTS: usize = 1 << PART_BITS;
const PART_BITS: u32 = 4;

/// The values below `PARTS` have a bucket each, the other 60 powers of two have `PARTS` each.
const BUCKETS: usize = PARTS * (u64::BITS - PART_BITS + 1) as usize;

/// Returns the bucket of a value.
fn bucket(nanoseconds: u64) -> usize {
    let Some(shift) = (nanoseconds | 1).ilog2().checked_sub(PART_BITS) else {
        return nanoseconds as usize;
    };
    // The leading bit of the quotient is always set, and so counts as one more `PARTS`.
    shift as usize * PARTS + (nanoseconds >> shift) as usize
}

/// Returns the least value of a bucket, and the width of the bucket.
fn bounds(bucket: usize) -> (u64, u64) {
    let shift = (bucket / PARTS).saturating_sub(1);
    (((bucket - shift * PARTS) as u64) << shift, 1 << shift)
}

fn nanoseconds(duration: Duration) -> u64 {
    duration.as_nanos().try_into().unwrap_or(u64::MAX)
}

fn duration(nanoseconds: u128) -> Duration {
    const SECOND: u128 = 1_000_000_000;
    let seconds = (nanoseconds / SECOND).try_into().unwrap_or(u64::MAX);
    Duration::new(seconds, (nanoseconds % SECOND) as u32)
}

/// How long something took, over many times: the number, the sum, the maximum and the quantiles.
///
/// A pool with [`timings`](crate::ThreadPoolBuilder::timings) makes two of them for each label, and
/// two for all jobs: see [`Metrics::queue_wait`](crate::Metrics::queue_wait).
///
/// This is a copy: the pool does not change it.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// let pool = futurepool::ThreadPool::new(2);
/// let run_time = pool.metrics().run_time;
/// assert_eq!(run_time.count(), 0, "this pool measures no jobs");
/// assert_eq!(run_time.quantile(0.99), Duration::ZERO);
/// ```
#[doc(alias = "percentile")]
#[doc(alias = "latency")]
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    /// How many values are in each bucket. The last bucket is not empty, so equal contents are
    /// equal.
    buckets: Vec<u64>,
    sum: Duration,
    max: Duration,
}

impl Histogram {
    /// Returns how many durations were recorded.
    #[doc(alias = "len")]
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Returns the sum of the durations. It is exact.
    #[must_use]
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// Returns the longest duration. It is exact. Zero if nothing was recorded.
    #[must_use]
    pub fn max(&self) -> Duration {
        self.max
    }

    /// Returns the sum divided by the count. Zero if nothing was recorded.
    #[doc(alias = "average")]
    #[must_use]
    pub fn mean(&self) -> Duration {
        let mean = self.sum.as_nanos().checked_div(self.count().into());
        // While the pool writes, the sum may be of more durations than the count.
        duration(mean.unwrap_or(0)).min(self.max)
    }

    /// Returns the duration that the share `q` of all durations does not exceed: `0.5` for the
    /// median, `0.99` for the 99th percentile. Zero if nothing was recorded.
    ///
    /// The result differs from the exact duration by 5 % at most. `q` is limited to `0.0..=1.0`,
    /// and `quantile(1.0)` is [`max`](Self::max).
    ///
    /// # Examples
    ///
    /// ```
    /// # let pool = futurepool::ThreadPool::new(1);
    /// let queue_wait = pool.metrics().queue_wait;
    /// println!("99 % of the jobs waited {:?} at most", queue_wait.quantile(0.99));
    /// ```
    #[doc(alias = "percentile")]
    #[doc(alias = "p99")]
    #[must_use]
    pub fn quantile(&self, q: f64) -> Duration {
        let count = self.count();
        // The first value has rank 1. A cast to an integer saturates, and takes NaN for 0.
        let rank = ((q * count as f64).ceil() as u64).clamp(1, count.max(1));
        if rank >= count {
            return self.max;
        }
        let mut up_to_here = 0;
        for (bucket, values) in self.buckets.iter().enumerate() {
            up_to_here += values;
            if up_to_here >= rank {
                let (least, width) = bounds(bucket);
                return Duration::from_nanos(least + (width - 1) / 2).min(self.max);
            }
        }
        self.max
    }

    /// Returns how many durations are `limit` or shorter, for exporters that count by fixed limits.
    ///
    /// The counts are cumulative, as the buckets of Prometheus: the bucket `+Inf` is
    /// [`count`](Self::count). A duration that differs from `limit` by less than 7 % may be on the
    /// wrong side. The [cookbook](crate::guide::cookbook#export-metrics-to-prometheus) has a whole
    /// page for Prometheus.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// # let pool = futurepool::ThreadPool::new(1);
    /// let run_time = pool.metrics().run_time;
    /// for limit in [1, 10, 100, 1000].map(Duration::from_millis) {
    ///     println!("le={} {}", limit.as_secs_f64(), run_time.count_up_to(limit));
    /// }
    /// ```
    #[doc(alias = "buckets")]
    #[doc(alias = "cumulative")]
    #[doc(alias = "prometheus")]
    #[must_use]
    pub fn count_up_to(&self, limit: Duration) -> u64 {
        if limit >= self.max {
            return self.count();
        }
        let buckets = bucket(nanoseconds(limit)) + 1;
        self.buckets.iter().take(buckets).sum()
    }

    /// Adds what another histogram holds, so that this histogram is of both.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, &values) in other.buckets.iter().enumerate() {
            self.add(bucket, values);
        }
        self.sum = self.sum.saturating_add(other.sum);
        self.max = self.max.max(other.max);
    }

    fn add(&mut self, bucket: usize, values: u64) {
        if values == 0 {
            return;
        }
        if bucket >= self.buckets.len() {
            self.buckets.resize(bucket + 1, 0);
        }
        self.buckets[bucket] += values;
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histogram")
            .field("count", &self.count())
            .field("mean", &self.mean())
            .field("p50", &self.quantile(0.5))
            .field("p99", &self.quantile(0.99))
            .field("max", &self.max)
            .finish_non_exhaustive()
    }
}

/// Buckets that are allocated together, when the first value falls into one of them: four powers of
/// two. The durations of similar jobs need two or three of these blocks.
type Block = [AtomicU64; BLOCK];
const BLOCK: usize = 4 * PARTS;

/// A histogram that many threads write at the same time. No write takes a lock, and none allocates
/// except the first in each block of buckets.
#[derive(Debug, Default)]
pub(crate) struct AtomicHistogram {
    blocks: [OnceLock<Box<Block>>; BUCKETS.div_ceil(BLOCK)],
    /// The sum in nanoseconds, modulo 2⁶⁴, and how often that has overflowed.
    sum: AtomicU64,
    overflows: AtomicU64,
    max: AtomicU64,
}

impl AtomicHistogram {
    pub(crate) fn record(&self, duration: Duration) {
        let nanoseconds = nanoseconds(duration);
        // It seldom changes, and then only grows: most threads only read it.
        if nanoseconds > self.max.load(Ordering::Relaxed) {
            self.max.fetch_max(nanoseconds, Ordering::Relaxed);
        }
        let sum = self.sum.fetch_add(nanoseconds, Ordering::Relaxed);
        if sum.checked_add(nanoseconds).is_none() {
            self.overflows.fetch_add(1, Ordering::Relaxed);
        }
        let bucket = bucket(nanoseconds);
        let block = self.blocks[bucket / BLOCK]
            .get_or_init(|| Box::new(array::from_fn(|_| AtomicU64::default())));
        // Ordering: last, so that a reader that counts the value finds it in the sum and the
        // maximum.
        block[bucket % BLOCK].fetch_add(1, Ordering::Release);
    }

    /// Adds what was recorded to `histogram`.
    pub(crate) fn add_to(&self, histogram: &mut Histogram) {
        for (number, block) in self.blocks.iter().enumerate() {
            let buckets = block.get().into_iter().flat_map(|block| block.iter());
            for (bucket, values) in buckets.enumerate() {
                // Ordering: pairs with the last write of `record`.
                histogram.add(number * BLOCK + bucket, values.load(Ordering::Acquire));
            }
        }
        let overflows = u128::from(self.overflows.load(Ordering::Relaxed));
        let sum = (overflows << u64::BITS) + u128::from(self.sum.load(Ordering::Relaxed));
        histogram.sum = histogram.sum.saturating_add(duration(sum));
        let max = Duration::from_nanos(self.max.load(Ordering::Relaxed));
        histogram.max = histogram.max.max(max);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::HashSet;
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    fn read(atomic: &AtomicHistogram) -> Histogram {
        let mut histogram = Histogram::default();
        atomic.add_to(&mut histogram);
        histogram
    }

    fn of(nanoseconds: impl IntoIterator<Item = u64>) -> Histogram {
        let atomic = AtomicHistogram::default();
        for value in nanoseconds {
            atomic.record(Duration::from_nanos(value));
        }
        read(&atomic)
    }

    /// Returns values of all sizes. Those near the bounds of the buckets are among them.
    fn values() -> impl Iterator<Item = u64> {
        let mut random = 7_u64;
        let mut sized = move |bits: u32| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (1 << bits) | (random.rotate_left(32) & ((1 << bits) - 1))
        };
        let random = (0..64).flat_map(move |bits| [(); 500].map(|()| sized(bits)));
        let bounds = (0..BUCKETS).flat_map(|bucket| {
            let (least, width) = bounds(bucket);
            [least, least + (width - 1), least.saturating_sub(1)]
        });
        bounds.chain(random).chain([0, 1, u64::MAX])
    }

    #[test]
    fn each_value_is_within_the_bounds_of_its_bucket() {
        let mut seen = HashSet::new();
        for value in values() {
            let bucket = bucket(value);
            let (least, width) = bounds(bucket);
            assert!(least <= value && value - least < width, "{value}: {bucket}");
            seen.insert(bucket);
        }
        assert_eq!(seen.len(), BUCKETS);
    }

    #[test]
    fn quantiles_are_wrong_by_5_percent_at_most() {
        for value in values() {
            // The maximum is known exactly, so it must be another value.
            let histogram = of([value, u64::MAX]);
            let found = histogram.quantile(0.5).as_nanos() as u64;
            let error = found.abs_diff(value) as f64 / value.max(1) as f64;
            assert!(error <= 0.05, "{found} for {value}");
        }
    }

    #[test]
    fn quantiles_of_many_values_are_those_of_the_sorted_list() {
        let mut sorted: Vec<_> = values().collect();
        let histogram = of(sorted.iter().copied());
        sorted.sort_unstable();
        for q in [0.0, 0.001, 0.1, 0.25, 0.5, 0.9, 0.99, 0.999, 1.0] {
            let rank = ((q * sorted.len() as f64).ceil() as usize).max(1);
            let exact = sorted[rank - 1] as f64;
            let found = histogram.quantile(q).as_nanos() as f64;
            assert!(
                (found - exact).abs() <= 0.05 * exact,
                "{q}: {found}, {exact}"
            );
        }
        let sum = sorted.iter().map(|value| u128::from(*value)).sum::<u128>();
        assert_eq!(histogram.sum().as_nanos(), sum);
        assert_eq!(histogram.count(), sorted.len() as u64);
        assert_eq!(histogram.max().as_nanos(), u128::from(u64::MAX));
    }

    #[test]
    fn of_nothing_all_is_zero() {
        let histogram = Histogram::default();
        for q in [0.0, 0.5, 1.0, f64::NAN] {
            assert_eq!(histogram.quantile(q), Duration::ZERO);
        }
        assert_eq!((histogram.count(), histogram.sum()), (0, Duration::ZERO));
        assert_eq!(
            (histogram.max(), histogram.mean()),
            (Duration::ZERO, Duration::ZERO)
        );
        assert_eq!(histogram.count_up_to(Duration::MAX), 0);
    }

    #[test]
    fn a_quantile_out_of_range_is_the_nearest() {
        let histogram = of([1, 2, 3]);
        assert_eq!(histogram.quantile(-1.0), Duration::from_nanos(1));
        assert_eq!(histogram.quantile(f64::NAN), Duration::from_nanos(1));
        assert_eq!(histogram.quantile(7.0), Duration::from_nanos(3));
        assert_eq!(histogram.mean(), Duration::from_nanos(2));
    }

    #[test]
    fn durations_are_counted_up_to_a_limit() {
        let histogram = of((1..=1000).map(|micros| micros * 1000));
        assert_eq!(histogram.count_up_to(Duration::ZERO), 0);
        assert_eq!(histogram.count_up_to(Duration::from_millis(1)), 1000);
        let half = histogram.count_up_to(Duration::from_micros(500));
        assert!((465..=535).contains(&half), "{half}");
        let less = of([100, 200]).count_up_to(Duration::from_nanos(100));
        assert_eq!(less, 1);
    }

    #[test]
    fn what_does_not_fit_is_the_largest_value() {
        let atomic = AtomicHistogram::default();
        atomic.record(Duration::MAX);
        atomic.record(Duration::MAX);
        let histogram = read(&atomic);
        let largest = Duration::from_nanos(u64::MAX);
        assert_eq!(histogram.max(), largest);
        assert_eq!(histogram.sum(), 2 * largest, "the sum has no such limit");
        assert!(histogram.mean() <= histogram.max());
    }

    #[test]
    fn merged_histograms_are_as_if_all_was_recorded_in_one() {
        let mut merged = of(values().step_by(2));
        merged.merge(&of(values().skip(1).step_by(2)));
        assert_eq!(merged, of(values()));
        merged.merge(&Histogram::default());
        assert_eq!(merged, of(values()));
    }

    #[test]
    fn writers_at_the_same_time_lose_nothing() {
        const WRITERS: u64 = 4;
        const VALUES: u64 = 300_000;
        let (atomic, start) = (AtomicHistogram::default(), Barrier::new(WRITERS as usize));
        let written = |writer| (0..VALUES).map(move |n| 1000 + n % 2 * WRITERS + writer);
        thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (atomic, start) = (&atomic, &start);
                scope.spawn(move || {
                    start.wait();
                    for value in written(writer) {
                        atomic.record(Duration::from_nanos(value));
                    }
                });
            }
            // What a reader sees meanwhile makes sense, too.
            for _ in 0..100 {
                let seen = read(&atomic);
                assert!(seen.mean() <= seen.max() && seen.quantile(0.99) <= seen.max());
            }
        });
        assert_eq!(read(&atomic), of((0..WRITERS).flat_map(written)));
    }

    #[test]
    fn the_maximum_never_falls() {
        let (atomic, start) = (AtomicHistogram::default(), Barrier::new(2));
        let record_all = || {
            start.wait();
            for value in 0..300_000 {
                atomic.record(Duration::from_nanos(value));
                assert!(atomic.max.load(Ordering::Relaxed) >= value);
            }
        };
        thread::scope(|scope| {
            scope.spawn(record_all);
            record_all();
        });
    }
}
