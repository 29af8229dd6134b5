//! The executor of the feature `tokio`.

use tokio::runtime::Handle;

use crate::executor::Executor;
use crate::task::job::Job;
use crate::util::unwind::catch_panic;

/// Runs jobs on the runtime's blocking pool, like `spawn_blocking`.
///
/// Jobs are cancelled if the runtime is shut down, or if it fails to spawn a thread for them.
impl Executor for Handle {
    fn execute(&self, job: Job) {
        // It panics if the system refuses a thread; the job is dropped then, which resolves it.
        catch_panic("tokio's spawn_blocking", || {
            self.spawn_blocking(move || job.run());
        });
    }
}
