//! Limits the queue: `submit` blocks while it is full, `try_submit` returns the closure.
//! Run with: `cargo run --example bounded_queue`

use std::error::Error;
use std::sync::mpsc;
use std::thread;

use futurepool::ThreadPool;

fn main() -> Result<(), Box<dyn Error>> {
    let pool = ThreadPool::builder()
        .max_workers(1)
        .queue_capacity(1) // counts queued jobs, not running ones
        .build()?;
    let (go, signal) = mpsc::channel::<()>();
    let running = pool.submit(move || signal.recv().is_ok());
    let queued = pool.submit(|| "second"); // returns once the first job has left the queue

    // The queue is full. The error returns the closure.
    let error = pool.try_submit(|| "third").unwrap_err();
    assert!(error.is_full());
    let third = error.into_inner();

    // `submit` blocks until a permit is free, so that a slow pool slows its submitters down.
    let third = thread::scope(|threads| {
        let submitter = threads.spawn(|| pool.submit(third));
        go.send(()).expect("the first job waits for it");
        submitter.join().expect("submit does not panic")
    });
    assert!(running.join()?);
    assert_eq!(queued.join()?, "second");
    assert_eq!(third.join()?, "third");
    assert_eq!(pool.metrics().rejected, 1);
    Ok(())
}
