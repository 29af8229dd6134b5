//! Shuts pools down: gracefully, at once, with a timeout, and in async code.
//! Run with: `cargo run --example shutdown`

use std::error::Error;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use futurepool::{JoinHandle, ThreadPool};

fn main() -> Result<(), Box<dyn Error>> {
    // `shutdown` runs the accepted jobs and rejects later ones. Dropping a pool does the same.
    let pool = ThreadPool::new(1);
    let accepted = pool.submit(|| "still runs");
    pool.shutdown().join();
    assert_eq!(accepted.join()?, "still runs");
    let error = pool.submit(|| "too late").join().unwrap_err();
    assert!(error.is_shutdown());

    // `shutdown_now` cancels queued jobs and asks running ones to stop.
    let pool = ThreadPool::new(1);
    let running = submit_endless(&pool);
    let queued = pool.submit(|| unreachable!());
    pool.shutdown_now().join();
    assert_eq!(running.join()?, "stopped");
    assert!(queued.join().unwrap_err().is_cancelled());

    // This gives jobs a grace period, then asks the rest to stop.
    let pool = ThreadPool::new(1);
    let running = submit_endless(&pool);
    let error = pool.shutdown().join_timeout(Duration::from_millis(50));
    println!("{}", error.unwrap_err()); // says how many workers have not finished
    pool.shutdown_now().join();
    assert!(running.is_finished());

    // Async code awaits the shutdown, so that dropping the pool does not block the thread.
    futurepool::block_on(async {
        let pool = ThreadPool::new(1);
        let accepted = pool.submit(|| "still runs");
        pool.shutdown().await;
        assert_eq!(accepted.await.unwrap(), "still runs");
    });
    Ok(())
}

/// Submits a job that runs until it is asked to stop. Returns once the job runs.
fn submit_endless(pool: &ThreadPool) -> JoinHandle<&'static str> {
    let (started, has_started) = mpsc::channel();
    let handle = pool.submit(move || {
        let _ = started.send(());
        while !futurepool::cancel_requested() {
            thread::sleep(Duration::from_millis(1));
        }
        "stopped"
    });
    has_started.recv().expect("the job sends it");
    handle
}
