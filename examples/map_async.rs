//! Uses a map as a stream, on tokio.
//! Run with: `cargo run --example map_async`

use std::error::Error;

use futurepool::ThreadPool;
use futures::{StreamExt, TryStreamExt};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let pool = ThreadPool::new(4);

    // Gathers all results, in the order of the items.
    let squares: Vec<u64> = pool.map(1..=5, |n| n * n).await?;
    assert_eq!(squares, [1, 4, 9, 16, 25]);

    // Results come in completion order.
    let mut squares = pool.map_unordered(1..=5_u64, |n| (n, n * n));
    while let Some(result) = squares.next().await {
        let (number, square) = result?;
        assert_eq!(square, number * number);
    }

    // These items never end: at most 8 are ahead of the loop.
    let mut squares = pool.map(1.., |n: u64| n * n).buffer_size(8);
    let mut found = None;
    while let Some(square) = squares.try_next().await? {
        if square > 1_000 {
            found = Some(square);
            break;
        }
    }
    drop(squares); // cancels the queued jobs; otherwise the map would live to the end of `main`
    assert_eq!(found, Some(1_024));

    // A job costs about a microsecond. If an item costs less, run many items in one job.
    let mut squares = pool
        .map_unordered(1..=10_000_u64, |n| n * n)
        .chunk_size(500);
    let mut sum = 0;
    while let Some(square) = squares.try_next().await? {
        sum += square;
    }
    assert_eq!(sum, 333_383_335_000);

    pool.shutdown().await;
    Ok(())
}
