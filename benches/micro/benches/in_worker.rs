//! A job that joins a job, in a pool with one worker.
//!
//! The joining worker runs the inner job itself, so no job moves to another thread.

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
                    assert_eq!(pool.submit(move || i).join().expect("the job ran"), i);
                })
            })
        });
    });
    // Here the callback is always added before the job runs.
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

/// Runs `measure` as a job of `pool`, and joins it from outside the pool.
fn in_the_worker(pool: &ThreadPool, measure: impl FnOnce() -> Duration + Send) -> Duration {
    pool.scope(|scope| scope.submit(measure).join())
        .expect("the job does not panic")
}
