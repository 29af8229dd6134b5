//! Waits for the first of several jobs, for all of them, or for the first failure.
//! Run with: `cargo run --example wait`

use std::error::Error;
use std::sync::mpsc;

use futurepool::{ReturnWhen, ThreadPool, wait, wait_results};

fn main() -> Result<(), Box<dyn Error>> {
    let pool = ThreadPool::new(4);
    blocking(&pool)?;
    futurepool::block_on(asynchronous(&pool))
}

fn blocking(pool: &ThreadPool) -> Result<(), Box<dyn Error>> {
    let (go, signal) = mpsc::channel();
    let slow = pool.submit(move || signal.recv().is_ok());
    let fast = pool.submit(|| true);

    // The handles come back in two lists. They still hold their results.
    let waited = wait([slow, fast], ReturnWhen::FirstCompleted).join();
    assert_eq!((waited.done.len(), waited.not_done.len()), (1, 1));

    go.send(())?;
    let waited = wait(waited.not_done, ReturnWhen::AllCompleted).join();
    for handle in waited.done {
        assert!(handle.join()?);
    }

    // A loop waits for what is left: the handles of finished jobs would end each wait at once.
    let mut pending: Vec<_> = (1..=3).map(|n| pool.submit(move || n)).collect();
    let mut sum = 0;
    while !pending.is_empty() {
        let waited = wait(pending, ReturnWhen::FirstCompleted).join();
        for handle in waited.done {
            sum += handle.join()?;
        }
        pending = waited.not_done;
    }
    assert_eq!(sum, 6);

    // This wait ends when all jobs have finished, or with the first failure. For `wait` a failure
    // is a panic; for `wait_results` it is also an `Err` that the job returned.
    let (_never, signal) = mpsc::channel::<()>();
    let stuck = pool.submit(move || signal.recv().map_err(drop));
    let failing = pool.submit(|| Err(()));
    let waited = wait_results([stuck, failing], ReturnWhen::FirstException).join();
    assert_eq!((waited.done.len(), waited.not_done.len()), (1, 1));
    Ok(())
}

async fn asynchronous(pool: &ThreadPool) -> Result<(), Box<dyn Error>> {
    let (go, signal) = mpsc::channel();
    let slow = pool.submit(move || signal.recv().is_ok());
    let fast = pool.submit(|| true);

    let waited = wait([slow, fast], ReturnWhen::FirstCompleted).await;
    assert_eq!((waited.done.len(), waited.not_done.len()), (1, 1));

    go.send(())?;
    let waited = wait(waited.not_done, ReturnWhen::AllCompleted).await;
    for handle in waited.done {
        assert!(handle.await?);
    }
    Ok(())
}
