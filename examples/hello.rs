//! Submits jobs to a pool and joins their handles.
//! Run with: `cargo run --example hello`

use std::error::Error;
use std::num::ParseIntError;
use std::thread;

use futurepool::ThreadPool;

fn main() -> Result<(), Box<dyn Error>> {
    let pool = ThreadPool::new(4);

    // The job may start at once. The handle returns its result.
    let handle = pool.submit(|| 6 * 7);
    assert_eq!(handle.join()?, 42);

    // Two things can fail: the job, which may panic, and the work that it does.
    let handle = pool.submit(|| "6 * 7".parse::<i32>());
    let parsed: Result<i32, ParseIntError> = handle.join()?;
    assert!(parsed.is_err());

    // So `??` returns the value, or either error.
    let number = pool.submit(|| "42".parse::<i32>()).join()??;
    assert_eq!(number, 42);

    // Dropping a handle detaches its job, which still runs.
    drop(pool.submit(|| println!("hello from {:?}", thread::current().name())));

    // For an occasional job, the process has a global pool.
    assert_eq!(futurepool::submit(|| 6 * 7).join()?, 42);

    // Dropping the pool waits for its jobs.
    Ok(())
}
