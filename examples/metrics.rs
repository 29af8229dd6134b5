//! Reads the metrics of a pool: its workers, its queue, and how its jobs ended.
//! Run with: `cargo run --example metrics` (it prints a panic "on purpose")

use std::error::Error;
use std::sync::mpsc;

use futurepool::ThreadPool;

fn main() -> Result<(), Box<dyn Error>> {
    let pool = ThreadPool::builder()
        .max_workers(1)
        .queue_capacity(2)
        .build()?;
    assert_eq!(pool.metrics().workers, 0); // threads start when they are needed

    let (started, has_started) = mpsc::channel();
    let (go, signal) = mpsc::channel::<()>();
    let running = pool.submit(move || started.send(()).is_ok() && signal.recv().is_ok());
    has_started.recv()?;
    let panicking = pool.submit(|| panic!("on purpose"));
    let cancelled = pool.submit(|| unreachable!());
    pool.try_submit(|| ()).unwrap_err(); // the queue is full

    let metrics = pool.metrics();
    println!("{metrics:?}");
    assert_eq!((metrics.workers, metrics.idle), (1, 0));
    assert_eq!((metrics.running, metrics.queued), (1, 2));
    assert_eq!((metrics.submitted, metrics.rejected), (3, 1));

    cancelled.cancel();
    go.send(())?;
    assert!(running.join()?);
    assert!(panicking.join().unwrap_err().is_panic());
    pool.shutdown().join();

    // The counts are read one by one while the pool works. Now that no job is left, they add up.
    let metrics = pool.metrics();
    println!("{metrics:?}");
    let done = metrics.completed + metrics.panicked + metrics.cancelled;
    assert_eq!(metrics.submitted, done);
    let counts = (metrics.completed, metrics.panicked, metrics.cancelled);
    assert_eq!(counts, (1, 1, 1));
    assert_eq!(metrics.workers, 0);
    Ok(())
}
