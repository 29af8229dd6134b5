//! The cost of a job with options, and of a job in a pool that measures its jobs or calls a hook for them.

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use futurepool::{JoinHandle, Priority, ThreadPool, ThreadPoolBuilder};

use crate::WORKERS;

const JOBS: u64 = 20_000;

/// Long enough that no job is late.
const HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn all(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("options");
    group.throughput(Throughput::Elements(JOBS));
    let mut bench = |name, pool: ThreadPoolBuilder, submit: fn(&ThreadPool, u64) -> _| {
        let pool = pool
            .max_workers(WORKERS)
            .build()
            .expect("the options are valid");
        group.bench_function(name, |bencher| bencher.iter(|| burst(&pool, submit)));
    };
    let plain = |pool: &ThreadPool, n| pool.submit(move || n);
    bench("none", ThreadPool::builder(), plain);
    bench("timings", ThreadPool::builder().timings(true), plain);
    bench(
        "timings_and_label",
        ThreadPool::builder().timings(true),
        |pool, n| pool.job(move || n).label("a job").submit(),
    );
    bench("on_job", ThreadPool::builder().on_job(|_| ()), plain);
    bench("priority", ThreadPool::builder(), |pool, n| {
        let priority = if n % 2 == 0 {
            Priority::High
        } else {
            Priority::Low
        };
        pool.job(move || n).priority(priority).submit()
    });
    bench(
        "queue_timeout",
        ThreadPool::builder().queue_timeout(HOUR),
        plain,
    );
    bench("deadline", ThreadPool::builder(), |pool, n| {
        pool.job(move || n).deadline(Instant::now() + HOUR).submit()
    });
    group.finish();
}

fn burst(pool: &ThreadPool, submit: fn(&ThreadPool, u64) -> JoinHandle<u64>) {
    let handles: Vec<_> = (0..JOBS).map(|n| submit(pool, n)).collect();
    for (n, handle) in (0..JOBS).zip(handles) {
        assert_eq!(handle.join().expect("the job ran"), n);
    }
}
