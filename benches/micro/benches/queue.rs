//! Operations of one thread on the queue, while no worker takes a job.

use std::hint::black_box;

use criterion::Criterion;
use futurepool::ThreadPool;

use crate::WORKERS;
use crate::blocked::BlockedPool;
use crate::timed::{timed, timed_in_batches};

/// The maximum number of queued jobs.
const BATCH: u64 = 1_000;

pub(crate) fn all(criterion: &mut Criterion) {
    submit(criterion);
    try_submit(criterion);
    cancel(criterion);
}

/// The first submits of a batch also grow the queue again, as after each `cancel_queued`.
fn submit(criterion: &mut Criterion) {
    let blocked = BlockedPool::new(ThreadPool::builder().max_workers(WORKERS));
    let pool = &blocked.pool;
    let mut group = criterion.benchmark_group("submit");
    group.bench_function("detached", |bencher| {
        bencher.iter_custom(|times| {
            timed_in_batches(times, BATCH, |jobs| {
                let time = timed(jobs, |i| drop(pool.submit(move || i)));
                assert_eq!(pool.cancel_queued() as u64, jobs);
                time
            })
        });
    });
    group.bench_function("kept", |bencher| {
        let mut handles = Vec::with_capacity(BATCH as usize);
        bencher.iter_custom(|times| {
            timed_in_batches(times, BATCH, |jobs| {
                let time = timed(jobs, |i| handles.push(pool.submit(move || i)));
                assert_eq!(pool.cancel_queued() as u64, jobs);
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
    let queued = pool
        .try_submit(|| ())
        .expect("the queue has room for one job");
    criterion.bench_function("try_submit/refused", |bencher| {
        bencher.iter(|| {
            let number = black_box(7_u64);
            let refused = pool
                .try_submit(move || number)
                .expect_err("the queue is full");
            assert!(refused.is_full());
            assert_eq!(refused.into_inner()(), number);
        });
    });
    assert!(queued.cancel());
}

/// Cancels jobs in the order in which they were submitted.
///
/// The measured time includes the occasional removal of tombstones from the queue.
fn cancel(criterion: &mut Criterion) {
    let blocked = BlockedPool::new(ThreadPool::builder().max_workers(WORKERS));
    let pool = &blocked.pool;
    criterion.bench_function("cancel/queued", |bencher| {
        bencher.iter_custom(|times| {
            timed_in_batches(times, BATCH, |jobs| {
                let handles: Vec<_> = (0..jobs).map(|i| pool.submit(move || i)).collect();
                let time = timed(jobs, |i| assert!(handles[i as usize].cancel()));
                assert_eq!(pool.cancel_queued(), 0);
                time
            })
        });
    });
}
