//! How long something takes.

use std::time::{Duration, Instant};

/// Calls it so many times, each with its number.
pub(crate) fn timed(times: u64, f: impl FnMut(u64)) -> Duration {
    let start = Instant::now();
    (0..times).for_each(f);
    start.elapsed()
}

/// As [`timed`], but a batch after another: each gets its size, does what need not be measured, and gives its time.
pub(crate) fn timed_in_batches(
    mut times: u64,
    largest: u64,
    mut batch: impl FnMut(u64) -> Duration,
) -> Duration {
    let mut total = Duration::ZERO;
    while times > 0 {
        let size = times.min(largest);
        total += batch(size);
        times -= size;
    }
    total
}
