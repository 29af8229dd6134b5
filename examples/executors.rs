//! Writes code that does not depend on a particular pool, and tests it without threads.
//! Run with: `cargo run --example executors`

use std::error::Error;
use std::thread;

use futurepool::{Executor, ExecutorExt, InlineExecutor, JoinError, ThreadPool};
use futures::TryStreamExt;

fn sum_of_squares(executor: &dyn Executor) -> Result<u32, JoinError> {
    executor.map([1, 2, 3], |n| n * n).into_iter().sum()
}

async fn sum_of_squares_async(executor: &dyn Executor) -> Result<u32, JoinError> {
    let squares: Vec<u32> = executor.map([1, 2, 3], |n| n * n).try_collect().await?;
    Ok(squares.iter().sum())
}

fn main() -> Result<(), Box<dyn Error>> {
    let pool = ThreadPool::new(4);
    assert_eq!(sum_of_squares(&pool)?, 14);
    assert_eq!(futurepool::block_on(sum_of_squares_async(&pool))?, 14);

    // `global` returns the pool that the whole process shares.
    assert_eq!(sum_of_squares(futurepool::global())?, 14);

    // `InlineExecutor` runs each job at once, in the submitting thread. That suits tests.
    assert_eq!(sum_of_squares(&InlineExecutor)?, 14);
    let handle = InlineExecutor.submit(|| thread::current().id());
    assert!(handle.is_finished());
    assert_eq!(handle.join()?, thread::current().id());
    Ok(())
}
