//! A job that waits for a job, in the only worker there is: who joins runs it, so nothing is handed to another thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use criterion::Criterion;
use futurepool::ThreadPool;

use crate::timed::{timed, trips_with_callback};

pub(crate) fn all(criterion: &mut Criterion) {
    let pool = ThreadPool::new(1);
    let mut group = criterion.benchmark_group("in_worker");
    group.bench_function("join", |bencher| {
        bencher.iter_custom(|times| {
            in_the_worker(&pool, || {
                timed(times, |i| {
                    assert_eq!(pool.submit(move || i).join().expect("it ran"), i);
                })
            })
        });
    });
    // Here the callback is added before the job runs, always.
    group.bench_function("callback", |bencher| {
        let called = Arc::new(AtomicU64::new(0));
        bencher.iter_custom(|times| {
            let before = called.load(Ordering::Relaxed);
            let time = in_the_worker(&pool, || trips_with_callback(&pool, times, &called));
            assert_eq!(called.load(Ordering::Relaxed) - before, times);
            time
        });
    });
    group.finish();
}

/// Runs it as a job, and waits for it outside.
fn in_the_worker(pool: &ThreadPool, measure: impl FnOnce() -> Duration + Send) -> Duration {
    pool.scope(|scope| scope.submit(measure).join())
        .expect("no panic")
}
