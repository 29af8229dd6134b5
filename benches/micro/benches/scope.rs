//! Scoped jobs, which borrow from the stack.

use criterion::{Criterion, Throughput};
use futurepool::ThreadPool;

use crate::WORKERS;

const JOBS: usize = 100;

pub(crate) fn all(criterion: &mut Criterion) {
    let pool = ThreadPool::new(WORKERS);
    let mut group = criterion.benchmark_group("scope");
    group.throughput(Throughput::Elements(JOBS as u64));
    group.bench_function("100", |bencher| {
        bencher.iter(|| {
            let mut numbers = [0_usize; JOBS];
            pool.scope(|scope| {
                for (i, number) in numbers.iter_mut().enumerate() {
                    drop(scope.submit(move || *number = i));
                }
            });
            assert_eq!(numbers.iter().sum::<usize>(), JOBS * (JOBS - 1) / 2);
        });
    });
    group.finish();
}
