//! Uses tokio inside jobs, and tokio's own blocking threads as an executor.
//! Run with: `cargo run --example tokio_runtime`

use std::error::Error;

use futurepool::{ExecutorExt, ThreadPool};
use futures::TryStreamExt;
use tokio::runtime::Handle;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Jobs run inside the runtime that was current when the pool was built. (A builder can name
    // another one.)
    let pool = ThreadPool::new(4);
    let task = pool.submit(|| tokio::spawn(async { 42 })).await?;
    assert_eq!(task.await?, 42);

    // A job may block on async code of that runtime.
    let waited = pool.submit(|| Handle::current().block_on(async { "done" }));
    assert_eq!(waited.await?, "done");

    // The runtime's blocking threads are an executor: the same handles, without a pool.
    let runtime = Handle::current();
    assert_eq!(runtime.submit(|| 6 * 7).await?, 42);
    let squares: Vec<u32> = runtime.map([1, 2, 3], |n| n * n).try_collect().await?;
    assert_eq!(squares, [1, 4, 9]);

    pool.shutdown().await;
    Ok(())
}
