//! What is done to the queue by one thread, while no worker takes anything out.

use std::hint::black_box;

use criterion::Criterion;
use futurepool::ThreadPool;

use crate::WORKERS;
use crate::blocked::BlockedPool;
use crate::timed::{timed, timed_in_batches};

/// So many jobs are queued at most.
const BATCH: u64 = 1_000;

pub(crate) fn all(criterion: &mut Criterion) {
    submit(criterion);
    try_submit(criterion);
    cancel(criterion);
}

/// The first of a thousand jobs find the memory of the queue not grown yet, as after each `cancel_pending`.
fn submit(criterion: &mut Criterion) {
    let blocked = BlockedPool::new(ThreadPool::builder().max_workers(WORKERS));
    let pool = &blocked.pool;
    let mut group = criterion.benchmark_group("submit");
    group.bench_function("detached", |bencher| {
        bencher.iter_custom(|times| {
            timed_in_batches(times, BATCH, |jobs| {
                let time = timed(jobs, |i| drop(pool.submit(move || i)));
                assert_eq!(pool.cancel_pending() as u64, jobs);
                time
            })
        });
    });
    group.bench_function("kept", |bencher| {
        let mut handles = Vec::with_capacity(BATCH as usize);
        bencher.iter_custom(|times| {
            timed_in_batches(times, BATCH, |jobs| {
                let time = timed(jobs, |i| handles.push(pool.submit(move || i)));
                assert_eq!(pool.cancel_pending() as u64, jobs);
                for handle in handles.drain(..) {
                    assert!(handle.join().is_err_and(|error| error.is_cancelled()));
                }
                time
            })
        });
    });
    group.finish();
}

fn try_submit(criterion: &mut Criterion) {
    let options = ThreadPool::builder().max_workers(WORKERS).queue_capacity(1);
    let blocked = BlockedPool::new(options);
    let pool = &blocked.pool;
    let queued = pool.try_submit(|| ()).expect("there is room for one");
    criterion.bench_function("try_submit/refused", |bencher| {
        bencher.iter(|| {
            let number = black_box(7_u64);
            let refused = pool.try_submit(move || number).expect_err("it is full");
            assert!(refused.is_full());
            assert_eq!(refused.into_inner()(), number);
        });
    });
    assert!(queued.cancel());
}

/// In the order in which they were submitted. What the cancelled leave in the queue is swept out now and then, which is
/// part of the price.
fn cancel(criterion: &mut Criterion) {
    let blocked = BlockedPool::new(ThreadPool::builder().max_workers(WORKERS));
    let pool = &blocked.pool;
    criterion.bench_function("cancel/queued", |bencher| {
        bencher.iter_custom(|times| {
            timed_in_batches(times, BATCH, |jobs| {
                let handles: Vec<_> = (0..jobs).map(|i| pool.submit(move || i)).collect();
                let time = timed(jobs, |i| assert!(handles[i as usize].cancel()));
                assert_eq!(pool.cancel_pending(), 0);
                time
            })
        });
    });
}
