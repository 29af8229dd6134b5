//! Implements `Executor` for a custom type: one method, and it has the same handles as a pool.
//! Run with: `cargo run --example custom_executor`

use std::error::Error;
use std::sync::mpsc::{self, Sender};
use std::thread;

use futurepool::{Executor, ExecutorExt, Job, JoinError, as_completed};

/// One thread that runs one job after the other.
struct OneThread {
    jobs: Sender<Job>,
}

impl OneThread {
    fn new() -> Self {
        let (jobs, queue) = mpsc::channel::<Job>();
        thread::spawn(move || queue.into_iter().for_each(Job::run));
        Self { jobs }
    }
}

impl Executor for OneThread {
    fn execute(&self, job: Job) {
        if let Err(error) = self.jobs.send(job) {
            // The thread is gone. The handle returns this error.
            error.0.refuse(JoinError::shutdown());
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let executor = OneThread::new();
    assert_eq!(executor.submit(|| 6 * 7).join()?, 42);

    let lengths: Result<Vec<_>, _> = executor.map(["a", "bc"], str::len).into_iter().collect();
    assert_eq!(lengths?, [1, 2]);

    let jobs = [3, 4].map(|n| executor.submit(move || n * n));
    let sum: i32 = as_completed(jobs).into_iter().sum::<Result<_, _>>()?;
    assert_eq!(sum, 25);
    Ok(())
}
