//! A pool of worker processes as an executor of any task.

use std::panic::Location;
use std::sync::{Arc, OnceLock};

use crate::call::executor::{TaskExecutor, TaskJob};
use crate::error::JoinError;
use crate::pool::enqueue_with;
use crate::process::pool::{ProcessPool, Target};
use crate::task::cancel_handle::CancelHandle;
use crate::task::cell::{JobClosure, StartBy, catch};
use crate::task::context::current_task;
use crate::task::span;
use crate::task::state::Origin;
use crate::util::sealed::Private;

impl TaskExecutor for ProcessPool {
    #[track_caller]
    fn execute_task(&self, job: TaskJob) {
        let origin = Location::caller();
        if let Some(error) = self.forked() {
            job.fail(error);
            return;
        }
        self.threads().acquire_permit();
        let submitter = self.submitter();
        let target = submitter.target();
        let scheduler = submitter.scheduler(&target);
        // A cancel of the task's handle also takes the job out of the queue.
        let queued = Arc::new(OnceLock::<CancelHandle>::new());
        let hook = Arc::clone(&queued);
        job.on_cancel(move || hook.get().is_some_and(CancelHandle::cancel));
        let forward = Forward { job, target };
        let pool = self.threads().inner();
        match enqueue_with(&pool, scheduler, forward, origin, span::current()) {
            Ok(task) => {
                let _ = queued.set(CancelHandle::new(task));
            }
            Err((closed, forward)) => {
                forward.job.fail(closed.into());
            }
        }
    }

    fn as_process_pool(&self, _: Private) -> Option<&ProcessPool> {
        Some(self)
    }
}

/// The job of a task that was made for any executor.
struct Forward {
    job: TaskJob,
    target: Target,
}

impl JobClosure<()> for Forward {
    fn call(self, origin: Origin) -> Result<(), JoinError> {
        // A panic of the pool itself drops the task, which cancels it.
        catch(origin, move || self.run(origin)).and_then(|outcome| outcome)
    }

    fn start_by(&self) -> Option<StartBy> {
        self.job.info().start_by()
    }
}

impl Forward {
    fn run(self, origin: Origin) -> Result<(), JoinError> {
        let Self { job, target } = self;
        if !job.set_running() {
            // It was cancelled.
            return Err(JoinError::cancelled());
        }
        if let Some(own) = current_task().map(CancelHandle::new) {
            job.on_cancel(move || own.cancel());
        }
        let info = job.info().clone();
        let outcome = job.encode().and_then(|call| {
            let outcome = target.run_one(&info, call, origin);
            target.decide(info.name, outcome, origin)
        });
        match outcome {
            Ok(output) => {
                job.resolve(output);
                Ok(())
            }
            Err(error) => {
                let copy = error.replicate();
                job.fail(error);
                Err(copy)
            }
        }
    }
}
