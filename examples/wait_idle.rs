//! Waits until a pool has nothing left to do, and keeps it open. Shows the hooks of its workers.
//! Run with: `cargo run --example wait_idle`

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futurepool::ThreadPool;

fn main() -> Result<(), Box<dyn Error>> {
    let exited = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&exited);
    let pool = ThreadPool::builder()
        .max_workers(2)
        .thread_name(|n| format!("batch {n}"))
        .on_exit(move || {
            count.fetch_add(1, Ordering::SeqCst);
        })
        .build()?;

    // Starts the threads now instead of at the first jobs.
    pool.prestart(2);
    assert_eq!(pool.metrics().workers, 2);

    let done = Arc::new(AtomicUsize::new(0));
    for batch in 1..=3 {
        for _ in 0..100 {
            let done = Arc::clone(&done);
            // The handles are dropped, so nothing joins these jobs.
            drop(pool.submit(move || done.fetch_add(1, Ordering::SeqCst)));
        }
        // Async code awaits it.
        pool.wait_idle().join();
        assert_eq!(done.load(Ordering::SeqCst), 100 * batch);
    }

    // A wait with a timeout says how many jobs are left.
    let handle = pool.submit(|| std::thread::sleep(Duration::from_millis(100)));
    if let Err(error) = pool.wait_idle().join_timeout(Duration::from_millis(1)) {
        println!("{error}");
    }
    handle.join()?;

    pool.shutdown().join();
    assert_eq!(exited.load(Ordering::SeqCst), 2);
    Ok(())
}
