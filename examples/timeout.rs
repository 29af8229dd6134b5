//! Limits how long a thread waits for a job. The job itself goes on.
//! Run with: `cargo run --example timeout`

use std::error::Error;
use std::sync::mpsc;
use std::time::Duration;

use futurepool::{ReturnWhen, ThreadPool, wait};

const LIMIT: Duration = Duration::from_millis(10);

fn main() -> Result<(), Box<dyn Error>> {
    let pool = ThreadPool::new(1);
    let (go, signal) = mpsc::channel();
    let mut handle = pool.submit(move || signal.recv());

    let error = handle.join_timeout(LIMIT).unwrap_err();
    assert!(error.is_timeout());

    // `wait` takes several handles and returns all of them. Here a timeout is no error.
    let mut waited = wait([handle], ReturnWhen::AllCompleted)
        .timeout(LIMIT)
        .join();
    assert!(waited.done.is_empty());
    let handle = waited.not_done.remove(0);

    // The job still runs, and the handle still returns its result.
    go.send("late")?;
    assert_eq!(handle.join()??, "late");
    Ok(())
}
