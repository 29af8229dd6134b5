//! A rayon pool as an executor.

use rayon_core::ThreadPool;

use crate::executor::Executor;
use crate::task::job::Job;

/// Runs jobs on rayon's threads, first come first served: for work that keeps the processor busy. Jobs that block keep
/// its threads from other work.
impl Executor for ThreadPool {
    fn execute(&self, job: Job) {
        self.spawn_fifo(move || job.run());
    }
}
