//! How many items a job gets, if the map chooses that itself.

use std::time::Duration;

use crate::util::sync::{AtomicU64, AtomicUsize, Instant, Ordering};

/// How long the items of a job should take together. Each job may wake the thread that waits for its
/// results, which costs the workers some 10 µs where they share all processors with it.
const TARGET: u64 = 200_000;

/// The most items in a job.
const MOST: usize = 2_048;

/// The first jobs have one item each, so that a short input is as parallel as it can be.
const SINGLES: usize = 128;

/// While the pace is unknown, the chunks grow after each so many jobs, up to [`MOST_UNPACED`].
const JOBS_PER_STEP: usize = 64;

const MOST_UNPACED: usize = 1_024;

/// Returns the time that has passed since `start`.
pub(super) fn since(start: Instant) -> Duration {
    Instant::now().saturating_duration_since(start)
}

/// Estimates the time per item from finished jobs.
#[derive(Debug)]
pub(super) struct Pace {
    /// The time per item in 1/16 ns. 0 until the first sample.
    estimate: AtomicU64,
    /// Counts the jobs that were formed.
    jobs: AtomicUsize,
    /// The limit on the items of a job: [`MOST`], or less in a buffer.
    most: usize,
}

impl Pace {
    /// `buffer_size` is the limit on items that were taken and not yielded. A job gets an eighth of
    /// it at most, so that several jobs fit.
    pub(super) fn new(buffer_size: Option<usize>) -> Self {
        let most = buffer_size.map_or(MOST, |buffer| (buffer / 8).clamp(1, MOST));
        Self {
            estimate: AtomicU64::new(0),
            jobs: AtomicUsize::new(0),
            most,
        }
    }

    /// Adds a sample: `items` items took `elapsed`.
    ///
    /// A sample at most doubles or halves the estimate, because the thread may have been preempted.
    pub(super) fn record(&self, items: usize, elapsed: Duration) {
        if items == 0 {
            return;
        }
        let nanos = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let sample = (nanos.saturating_mul(16) / items as u64).max(1);
        // Relaxed: an estimate. A sample that is lost between the load and the store is no loss.
        let old = self.estimate.load(Ordering::Relaxed);
        let new = match old {
            0 => sample,
            old => sample.clamp((old / 2).max(1), old.saturating_mul(2)),
        };
        self.estimate.store(new, Ordering::Relaxed);
    }

    /// Calls `f` for one item, and adds the sample.
    pub(super) fn measure<T>(&self, f: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = f();
        self.record(1, since(start));
        result
    }

    /// Returns how many items the next job should have.
    pub(super) fn chunk_size(&self) -> usize {
        let jobs = self.jobs.load(Ordering::Relaxed);
        let Some(grown) = jobs.checked_sub(SINGLES) else {
            return 1;
        };
        let items = match self.estimate.load(Ordering::Relaxed) {
            0 => 2_usize << (grown / JOBS_PER_STEP).min(16),
            estimate => usize::try_from(TARGET * 16 / estimate).unwrap_or(MOST),
        };
        let most = match self.estimate.load(Ordering::Relaxed) {
            0 => self.most.min(MOST_UNPACED),
            _ => self.most,
        };
        items.clamp(1, most)
    }

    /// Returns how long `items` items probably take, or the longest time if that is unknown.
    pub(super) fn estimate(&self, items: usize) -> Duration {
        match self.estimate.load(Ordering::Relaxed) {
            0 if items > 0 => Duration::MAX,
            estimate => Duration::from_nanos(estimate.saturating_mul(items as u64) / 16),
        }
    }

    /// Counts a job that was formed.
    pub(super) fn count_job(&self) {
        self.jobs.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn after_singles(buffer_size: Option<usize>) -> Pace {
        let pace = Pace::new(buffer_size);
        (0..SINGLES).for_each(|_| pace.count_job());
        pace
    }

    #[test]
    fn the_first_jobs_have_one_item_whatever_the_pace() {
        let pace = Pace::new(None);
        pace.record(1, Duration::from_nanos(1));
        for _ in 0..SINGLES {
            assert_eq!(pace.chunk_size(), 1);
            pace.count_job();
        }
        assert_eq!(pace.chunk_size(), MOST);
    }

    #[test]
    fn chunks_grow_slowly_while_the_pace_is_unknown() {
        let pace = after_singles(None);
        let mut sizes = Vec::new();
        for _ in 0..10_000 {
            sizes.push(pace.chunk_size());
            pace.count_job();
        }
        assert!(sizes.is_sorted());
        sizes.dedup();
        assert_eq!(sizes, [2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024]);
    }

    #[test]
    fn a_chunk_takes_the_target_time() {
        for (nanos, chunk) in [
            (1, MOST),
            (100, 2_000),
            (1_000, 200),
            (10_000, 20),
            (200_000, 1),
        ] {
            let pace = after_singles(None);
            pace.record(10, Duration::from_nanos(10 * nanos));
            assert_eq!(pace.chunk_size(), chunk, "{nanos} ns");
        }
        let pace = after_singles(None);
        pace.record(1, Duration::MAX);
        assert_eq!(pace.chunk_size(), 1);
    }

    #[test]
    fn a_chunk_is_an_eighth_of_the_buffer_at_most() {
        for (buffer, chunk) in [(1, 1), (7, 1), (16, 2), (800, 100), (1_000_000, MOST)] {
            let pace = after_singles(Some(buffer));
            pace.record(1, Duration::from_nanos(1));
            assert_eq!(pace.chunk_size(), chunk, "{buffer}");
        }
    }

    #[test]
    fn a_sample_changes_the_estimate_by_a_factor_of_two_at_most() {
        let pace = after_singles(None);
        pace.record(1, Duration::from_nanos(1_000));
        pace.record(1, Duration::from_secs(1));
        assert_eq!(pace.chunk_size(), 100);
        (0..3).for_each(|_| pace.record(1, Duration::from_nanos(1)));
        assert_eq!(pace.chunk_size(), 800);
        pace.record(0, Duration::from_secs(1));
        assert_eq!(pace.chunk_size(), 800);
    }
}
