//! Pools in workers of pools.

use std::sync::OnceLock;

use futurepool::{ProcessPool, task};

use crate::common::{LONG, within};

/// Returns how many levels there are, and why the last one has none below it.
#[task]
fn descend() -> (u32, String) {
    match ProcessPool::builder().build() {
        Ok(pool) => {
            assert_eq!(pool.max_workers(), 1, "the default of a nested pool");
            let (levels, why) = pool.submit(descend::call()).join().unwrap();
            (levels + 1, why)
        }
        Err(error) => (1, error.to_string()),
    }
}

#[task]
fn inner(n: u64) -> u64 {
    n * n
}

#[task]
fn sum_of_squares(n: u64) -> u64 {
    let pool = ProcessPool::builder().max_workers(2).build().unwrap();
    assert_eq!(pool.max_workers(), 2);
    let jobs: Vec<_> = (1..=n).map(|n| pool.submit(inner::call(n))).collect();
    jobs.into_iter().map(|job| job.join().unwrap()).sum()
}

#[test]
fn promise_22_pools_can_be_nested_ten_deep() {
    within(2 * LONG, "nested", || {
        let pool = ProcessPool::builder().max_workers(1).build().unwrap();
        let (levels, why) = pool.submit(descend::call()).join().unwrap();
        assert_eq!(levels, 10);
        assert!(why.contains("10 deep"), "{why}");
        let squares = pool.submit(sum_of_squares::call(5)).join().unwrap();
        assert_eq!(squares, 55);
    });
}

/// A pool of the whole process. In a worker it is another pool, which is a nested one.
fn shared() -> Result<&'static ProcessPool, String> {
    static POOL: OnceLock<Result<ProcessPool, String>> = OnceLock::new();
    let build = || {
        ProcessPool::builder()
            .build()
            .map_err(|error| error.to_string())
    };
    POOL.get_or_init(build).as_ref().map_err(Clone::clone)
}

#[task]
fn submit_to_own(depth: u32) -> Result<u32, String> {
    if depth == 0 {
        return Ok(0);
    }
    let below = shared()?.submit(submit_to_own::call(depth - 1)).join();
    below
        .map_err(|error| error.to_string())?
        .map(|depth| depth + 1)
}

#[test]
fn promise_22_a_submit_to_the_own_pool_in_a_worker_does_not_hang() {
    within(2 * LONG, "own pool", || {
        let pool = ProcessPool::builder().max_workers(1).build().unwrap();
        assert_eq!(pool.submit(submit_to_own::call(2)).join().unwrap(), Ok(2));
        // Too deep: an error, and not a hang.
        let error = pool.submit(submit_to_own::call(20)).join().unwrap();
        let error = error.unwrap_err();
        assert!(error.contains("10 deep"), "{error}");
    });
}
