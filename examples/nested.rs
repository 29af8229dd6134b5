//! Runs jobs that wait for other jobs of their own pool, on a pool with one worker.
//! Run with: `cargo run --example nested`

// In Python this deadlocks: the only worker waits for a job that no worker is left to run. Here a
// worker that waits for a queued job of its own pool runs that job itself.

use std::error::Error;
use std::sync::Arc;

use futurepool::{JoinError, ThreadPool, as_completed};

fn main() -> Result<(), Box<dyn Error>> {
    // A job that submits needs the pool, hence the `Arc`.
    let pool = Arc::new(ThreadPool::new(1));

    let shared = Arc::clone(&pool);
    let outer = pool.submit(move || shared.submit(|| 6 * 7).join());
    assert_eq!(outer.join()??, 42); // the errors of the outer and of the inner job

    let shared = Arc::clone(&pool);
    let job = pool.submit(move || fibonacci(&shared, 15));
    assert_eq!(job.join()??, 610);

    let shared = Arc::clone(&pool);
    let job = pool.submit(move || {
        let jobs = (1..=10).map(|n| shared.submit(move || n));
        as_completed(jobs).into_iter().sum::<Result<u64, _>>()
    });
    assert_eq!(job.join()??, 55);

    let shared = Arc::clone(&pool);
    let job = pool.submit(move || {
        let squares = shared.map(1..=10, |n| n * n);
        squares.into_iter().sum::<Result<u64, _>>()
    });
    assert_eq!(job.join()??, 385);

    let shared = Arc::clone(&pool);
    let job = pool.submit(move || sum_by_halves(&shared, &[1, 2, 3, 4, 5, 6, 7]));
    assert_eq!(job.join()??, 28);
    Ok(())
}

/// Each call waits for two jobs. The jobs that a worker runs while it waits are on its stack: for
/// a deep recursion, give the pool a larger `stack_size`.
fn fibonacci(pool: &Arc<ThreadPool>, n: u64) -> Result<u64, JoinError> {
    if n < 2 {
        return Ok(n);
    }
    let submit = |n| {
        let shared = Arc::clone(pool);
        pool.submit(move || fibonacci(&shared, n))
    };
    let (larger, smaller) = (submit(n - 1), submit(n - 2));
    Ok(larger.join()?? + smaller.join()??)
}

/// The jobs of a scope borrow, so this needs no `Arc`.
fn sum_by_halves(pool: &ThreadPool, numbers: &[u64]) -> Result<u64, JoinError> {
    if let [number] = numbers {
        return Ok(*number);
    }
    let (left, right) = numbers.split_at(numbers.len() / 2);
    pool.scope(|scope| {
        let left = scope.submit(|| sum_by_halves(pool, left));
        let right = scope.submit(|| sum_by_halves(pool, right));
        Ok(left.join()?? + right.join()??)
    })
}
