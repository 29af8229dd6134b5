//! Waits for a place in a bounded queue without blocking a thread, on tokio.
//! Run with: `cargo run --example bounded_queue_async`

use std::error::Error;
use std::sync::mpsc;

use futurepool::ThreadPool;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let pool = ThreadPool::builder()
        .max_workers(1)
        .queue_capacity(1) // counts queued jobs, not running ones
        .build()?;
    let (go, signal) = mpsc::channel::<()>();

    // The first await waits for a permit and returns the handle. The second waits for the result.
    let running = pool.submit_async(move || signal.recv().is_ok()).await?;
    let queued = pool.submit_async(|| "second").await?; // ready once the first job runs

    // The queue is full. The error returns the closure.
    let error = pool.try_submit(|| "third").unwrap_err();
    assert!(error.is_full());
    let third = error.into_inner();

    // A plain `submit` would block this thread. Dropping a `SubmitAsync` submits nothing.
    let (third, ()) = futures::join!(pool.submit_async(third), async {
        go.send(()).expect("the first job waits for it");
    });
    let third = third?;

    assert!(running.await?);
    assert_eq!(queued.await?, "second");
    assert_eq!(third.await?, "third");
    pool.shutdown().await;
    Ok(())
}
