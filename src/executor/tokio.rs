//! tokio's blocking pool as an executor.

use tokio::runtime::Handle;

use crate::executor::Executor;
use crate::task::job::Job;
use crate::util::unwind::catch_panic;

/// Runs jobs on the runtime's blocking pool, as `spawn_blocking` does. Once the runtime is shut down, jobs are
/// cancelled; so are those for which it gets no thread.
impl Executor for Handle {
    fn execute(&self, job: Job) {
        // It panics if the system refuses a thread; the job is dropped then, which resolves it.
        catch_panic("tokio's spawn_blocking", || {
            self.spawn_blocking(move || job.run());
        });
    }
}
