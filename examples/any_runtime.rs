//! Awaits the same handles on tokio, smol, futures, pollster and without a runtime.
//! Run with: `cargo run --example any_runtime`

use std::error::Error;

use futurepool::{JoinError, ThreadPool};

async fn add(pool: &ThreadPool) -> Result<u64, JoinError> {
    let left = pool.submit(|| (1..=10).sum::<u64>());
    let right = pool.submit(|| (11..=20).sum::<u64>());
    Ok(left.await? + right.await?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let pool = ThreadPool::new(2);

    let tokio = tokio::runtime::Runtime::new()?;
    assert_eq!(tokio.block_on(add(&pool))?, 210);
    assert_eq!(smol::block_on(add(&pool))?, 210);
    assert_eq!(futures::executor::block_on(add(&pool))?, 210);
    assert_eq!(pollster::block_on(add(&pool))?, 210);

    // A program without a runtime needs none.
    assert_eq!(futurepool::block_on(add(&pool))?, 210);
    Ok(())
}
