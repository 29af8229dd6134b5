//! Limits how long a task waits for a job, with tokio's timer and without.
//! Run with: `cargo run --example timeout_async`

use std::error::Error;
use std::sync::mpsc;
use std::time::Duration;

use futurepool::{ReturnWhen, ThreadPool, wait};

const LIMIT: Duration = Duration::from_millis(10);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let pool = ThreadPool::new(1);
    let (go, signal) = mpsc::channel();
    let mut handle = pool.submit(move || signal.recv());

    // Through `&mut` the handle survives the timeout, and the job goes on.
    let result = tokio::time::timeout(LIMIT, &mut handle).await;
    assert!(result.is_err());

    // The timeout of `wait` works in any runtime.
    let mut waited = wait([handle], ReturnWhen::AllCompleted)
        .timeout(LIMIT)
        .await;
    let handle = waited.not_done.remove(0);

    // Here the timeout drops the handle, which cancels the job: it is still queued.
    let queued = pool.submit(|| unreachable!()).cancel_on_drop();
    let result = tokio::time::timeout(LIMIT, queued).await;
    assert!(result.is_err());
    assert_eq!(pool.metrics().cancelled, 1);

    go.send("late")?;
    assert_eq!(handle.await??, "late");
    pool.shutdown().await;
    Ok(())
}
