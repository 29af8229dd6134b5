//! Timing helpers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futurepool::ThreadPool;

/// Calls `f` with each number below `times`, and returns the total time.
pub(crate) fn timed(times: u64, f: impl FnMut(u64)) -> Duration {
    let start = Instant::now();
    (0..times).for_each(f);
    start.elapsed()
}

/// Splits `times` calls into batches of at most `largest` calls, and returns the total time.
///
/// `batch` receives the size of a batch. It may do unmeasured work, and returns the measured time.
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

/// Submits and joins `times` jobs, each with a callback that increments `called`.
pub(crate) fn trips_with_callback(
    pool: &ThreadPool,
    times: u64,
    called: &Arc<AtomicU64>,
) -> Duration {
    timed(times, |i| {
        let handle = pool.submit(move || i);
        let called = Arc::clone(called);
        handle.add_done_callback(move |outcome| {
            assert!(outcome.is_ok_and(|&back| back == i));
            called.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(handle.join().expect("the job ran"), i);
    })
}
