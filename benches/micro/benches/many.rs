//! Operations on many jobs at once.

use criterion::{BatchSize, Criterion, Throughput};
use futurepool::{JoinHandle, ReturnWhen, ThreadPool, as_completed, wait};

use crate::WORKERS;

const JOBS: u64 = 1_000;
const ITEMS: u64 = 100_000;

pub(crate) fn all(criterion: &mut Criterion) {
    let pool = ThreadPool::new(WORKERS);
    handles(criterion, &pool);
    map(criterion, &pool);
}

/// Measures `as_completed` and `wait`.
///
/// - `done`: all jobs have finished beforehand, so a single thread does the work.
/// - `submitted`: from the first submit to the end of the last job.
fn handles(criterion: &mut Criterion, pool: &ThreadPool) {
    let submitted = || -> Vec<_> { (0..JOBS).map(|i| pool.submit(move || i)).collect() };
    let done = || all_completed(submitted());

    let mut group = criterion.benchmark_group("as_completed");
    group.throughput(Throughput::Elements(JOBS));
    group.bench_function("done", |bencher| {
        let check = |handles| assert_eq!(sum_as_completed(handles), sum_below(JOBS));
        bencher.iter_batched(done, check, BatchSize::PerIteration);
    });
    group.bench_function("submitted", |bencher| {
        bencher.iter(|| assert_eq!(sum_as_completed(submitted()), sum_below(JOBS)));
    });
    group.finish();

    let mut group = criterion.benchmark_group("wait");
    group.throughput(Throughput::Elements(JOBS));
    // Criterion drops the returned handles outside the measured part.
    group.bench_function("done", |bencher| {
        bencher.iter_batched(done, all_completed, BatchSize::PerIteration);
    });
    group.bench_function("submitted", |bencher| {
        bencher.iter(|| {
            let handles = all_completed(submitted());
            let results = handles.into_iter().map(JoinHandle::join);
            let sum: u64 = results.map(|result| result.expect("the job ran")).sum();
            assert_eq!(sum, sum_below(JOBS));
        });
    });
    group.finish();
}

fn map(criterion: &mut Criterion, pool: &ThreadPool) {
    let mut group = criterion.benchmark_group("map");
    group.throughput(Throughput::Elements(JOBS));
    group.bench_function("1000", |bencher| {
        bencher.iter(|| {
            let results = pool.map(0..JOBS, |n| n).into_iter();
            let sum: u64 = results.map(|result| result.expect("the job ran")).sum();
            assert_eq!(sum, sum_below(JOBS));
        });
    });
    group.throughput(Throughput::Elements(ITEMS));
    group.bench_function("100000 by 1024", |bencher| {
        bencher.iter(|| {
            let results = pool.map(0..ITEMS, |n| n).chunk_size(1_024).into_iter();
            let sum: u64 = results.map(|result| result.expect("the job ran")).sum();
            assert_eq!(sum, sum_below(ITEMS));
        });
    });
    group.finish();
}

fn sum_as_completed(handles: Vec<JoinHandle<u64>>) -> u64 {
    let results = as_completed(handles).into_iter();
    results.map(|result| result.expect("the job ran")).sum()
}

fn all_completed(handles: Vec<JoinHandle<u64>>) -> Vec<JoinHandle<u64>> {
    let waited = wait(handles, ReturnWhen::AllCompleted).join();
    assert_eq!(waited.done.len() as u64, JOBS);
    waited.done
}

fn sum_below(n: u64) -> u64 {
    n * (n - 1) / 2
}
