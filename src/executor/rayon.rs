//! The executor of the feature `rayon`.

use rayon_core::ThreadPool;

use crate::executor::Executor;
use crate::task::job::Job;

/// Runs jobs on rayon's threads in FIFO order, for work that is bound by the CPU.
///
/// A job that blocks keeps a rayon thread from its other work.
impl Executor for ThreadPool {
    fn execute(&self, job: Job) {
        self.spawn_fifo(move || job.run());
    }
}
