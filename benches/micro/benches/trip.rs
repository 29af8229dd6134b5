//! One job, to an idle pool and back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use criterion::Criterion;
use futurepool::{ThreadPool, block_on};

use crate::WORKERS;
use crate::timed::{timed, trips_with_callback};

pub(crate) fn all(criterion: &mut Criterion) {
    let pool = ThreadPool::new(WORKERS);
    let mut group = criterion.benchmark_group("trip");
    group.bench_function("join", |bencher| {
        bencher.iter_custom(|times| {
            timed(times, |i| {
                assert_eq!(pool.submit(move || i).join().expect("it ran"), i);
            })
        });
    });
    // `join` looks for a while before it parks, which this does not: so here is the price of the wake-ups.
    group.bench_function("block_on", |bencher| {
        bencher.iter_custom(|times| {
            timed(times, |i| {
                let back = block_on(async { pool.submit(move || i).await });
                assert_eq!(back.expect("it ran"), i);
            })
        });
    });
    // A worker may be done with the job before the callback is added, which then runs in this thread.
    group.bench_function("callback", |bencher| {
        let called = Arc::new(AtomicU64::new(0));
        bencher.iter_custom(|times| {
            let before = called.load(Ordering::Relaxed);
            let time = trips_with_callback(&pool, times, &called);
            assert_eq!(called.load(Ordering::Relaxed) - before, times);
            time
        });
    });
    group.finish();
}
