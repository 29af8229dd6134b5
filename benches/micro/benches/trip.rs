//! The round trip of one job through an idle pool.

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
                assert_eq!(pool.submit(move || i).join().expect("the job ran"), i);
            })
        });
    });
    // `join` spins before it parks, and `block_on` does not. So this benchmark includes the cost
    // of the wake-ups.
    group.bench_function("block_on", |bencher| {
        bencher.iter_custom(|times| {
            timed(times, |i| {
                let back = block_on(async { pool.submit(move || i).await });
                assert_eq!(back.expect("the job ran"), i);
            })
        });
    });
    // If the job finishes before the callback is added, the callback runs in this thread.
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
