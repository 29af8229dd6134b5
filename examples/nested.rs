//! Jobs that wait for other jobs of their own pool, on a pool with ONE worker.
//!
//! ```text
//! cargo run --example nested
//! ```
//!
//! In Python this hangs: the only worker waits for a job that no worker is left to run. Here a worker that waits for
//! jobs of its own pool runs them itself. What nobody can run, two jobs that wait for each other, is an error.
//!
//! It checks itself: the exit status is 1 if a result is not what it has to be.

use std::error::Error;
use std::fmt::Debug;
use std::sync::{Arc, mpsc};

use futurepool::{JoinError, JoinHandle, ThreadPool, as_completed};

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    // Jobs that submit need the pool, too.
    let pool = Arc::new(ThreadPool::new(1));

    let shared = Arc::clone(&pool);
    let job = pool.submit(move || fibonacci(&shared, 15));
    check("join in a job", job.join()??, 610)?; // the job's error, then the one of its own jobs

    let shared = Arc::clone(&pool);
    let job = pool.submit(move || sum_as_completed(&shared));
    check("as_completed in a job", job.join()??, 55)?;

    let shared = Arc::clone(&pool);
    let job = pool.submit(move || sum_of_squares(&shared));
    check("map in a job", job.join()??, 385)?;

    let shared = Arc::clone(&pool);
    let job = pool.submit(move || sum_by_halves(&shared, &[1, 2, 3, 4, 5, 6, 7]));
    check("scope in a job", job.join()??, 28)?;

    let mut errors = Vec::new();
    for result in circle(&pool) {
        match result {
            Ok(()) => println!("a circle of two joins: this one got its result"),
            Err(error) => {
                println!("a circle of two joins: {error}");
                errors.push(error.is_deadlock());
            }
        }
    }
    check("joins that reported a deadlock", errors, [true])
}

/// Each call is a job that waits for another one. What a worker runs while it waits is on its stack, above the job that
/// waits: for a deep recursion, give the pool a larger `stack_size`.
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

fn sum_as_completed(pool: &ThreadPool) -> Result<u64, JoinError> {
    let jobs = (1..=10).map(|n| pool.submit(move || n));
    as_completed(jobs).into_iter().sum()
}

fn sum_of_squares(pool: &ThreadPool) -> Result<u64, JoinError> {
    pool.map(1..=10, |n| n * n).into_iter().sum()
}

/// The jobs of a scope may borrow, here a part of a slice: all of them have ended when `scope` returns.
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

/// What two jobs get that join each other: one of them an error, so that both can end.
fn circle(pool: &ThreadPool) -> impl Iterator<Item = Result<(), JoinError>> {
    let (report, reports) = mpsc::channel();
    let submit = || {
        let (sender, handle_of_the_other) = mpsc::channel::<JoinHandle<()>>();
        let report = report.clone();
        let job = pool.submit(move || {
            if let Ok(other) = handle_of_the_other.recv() {
                let _ = report.send(other.join());
            }
        });
        (sender, job)
    };
    let ((to_first, first), (to_second, second)) = (submit(), submit());
    // A job has to run, or to be gone, for this to fail.
    let _ = to_first.send(second);
    let _ = to_second.send(first);
    // Ends when both jobs have dropped their `report`, as this function does.
    reports.into_iter()
}

fn check<T: PartialEq<U> + Debug, U: Debug>(
    what: &str,
    got: T,
    expected: U,
) -> Result<(), Failure> {
    if got != expected {
        return Err(format!("{what}: {got:?} instead of {expected:?}").into());
    }
    println!("{what}: {got:?}");
    Ok(())
}
