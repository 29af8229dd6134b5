//! A pool of worker processes as an executor of any task.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::call::CallInfo;
use crate::call::executor::{TaskExecutor, TaskJob};
use crate::error::{Closed, JoinError, Refusal, SubmitError};
use crate::pool::job::JobOptions;
use crate::pool::{Submission, enqueue_with};
use crate::process::pool::{ProcessPool, Target};
use crate::task::cancel_handle::CancelHandle;
use crate::task::cell::{JobClosure, catch};
use crate::task::context::current_task;
use crate::task::join_handle::JoinHandle;
use crate::task::state::Origin;
use crate::util::sealed::Private;

impl TaskExecutor for ProcessPool {
    fn execute_task(&self, job: TaskJob) {
        if let Some(error) = self.forked() {
            job.fail(error);
            return;
        }
        let options = self.options(&job);
        self.threads().acquire_permit(&options);
        if let Err((closed, job)) = self.forward(job, &options) {
            job.fail(closed.into());
        }
    }

    fn try_execute_task(&self, job: TaskJob) -> Result<(), SubmitError<TaskJob>> {
        if let Some(error) = self.forked() {
            return Err(SubmitError::because(error, job));
        }
        let options = self.options(&job);
        let acquired = (self.threads()).try_acquire_permit(&options, job.location());
        if let Err(refusal) = acquired {
            return Err(SubmitError::new(refusal, job));
        }
        let forwarded = self.forward(job, &options);
        forwarded.map_err(|(closed, job)| SubmitError::new(Refusal::Closed(closed), job))
    }

    fn as_process_pool(&self, _: Private) -> Option<&ProcessPool> {
        Some(self)
    }
}

impl ProcessPool {
    /// Returns the options of a job of the pool that runs `job`, and is submitted now.
    fn options(&self, job: &TaskJob) -> JobOptions {
        (job.info().job_options()).submitted_now(&self.threads().inner())
    }

    /// Queues a job of the pool that runs `job` and has its permit.
    fn forward(&self, job: TaskJob, options: &JobOptions) -> Result<(), (Closed, TaskJob)> {
        let (origin, span) = (job.location(), job.span());
        let submitter = self.submitter();
        let target = submitter.target();
        let scheduler = submitter.scheduler(&target);
        // A cancel of the task's handle also takes the job out of the queue.
        let queued = Arc::new(OnceLock::<CancelHandle>::new());
        let hook = Arc::clone(&queued);
        job.on_cancel(move || hook.get().is_some_and(CancelHandle::cancel));
        let info = job.info().clone();
        // Not only in the closure: if the pool does not run it, the job needs the reason.
        let slot = Slot::new(job);
        let forward = Forward {
            slot: slot.clone(),
            info,
            target,
        };
        let submission = Submission {
            origin,
            span,
            options,
        };
        let pool = self.threads().inner();
        match enqueue_with(&pool, scheduler, forward, submission) {
            Ok(task) => {
                let _ = queued.set(CancelHandle::new(task.clone()));
                JoinHandle::new(task as _).add_done_callback(move |outcome| {
                    if let (Some(job), Err(error)) = (slot.take(), outcome) {
                        job.fail(error.replicate());
                    }
                });
                Ok(())
            }
            Err((closed, forward)) => {
                drop(forward);
                match slot.take() {
                    Some(job) => Err((closed, job)),
                    None => Ok(()),
                }
            }
        }
    }
}

/// Where the job is until it starts.
#[derive(Clone)]
struct Slot(Arc<Mutex<Option<TaskJob>>>);

impl Slot {
    fn new(job: TaskJob) -> Self {
        Self(Arc::new(Mutex::new(Some(job))))
    }

    fn take(&self) -> Option<TaskJob> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The pool's job for the job of a task that was made for any executor.
struct Forward {
    slot: Slot,
    info: CallInfo,
    target: Target,
}

impl JobClosure<()> for Forward {
    fn call(self, origin: Origin) -> Result<(), JoinError> {
        // A panic of the pool itself drops the task, which cancels it.
        catch(origin, move || self.run(origin)).and_then(|outcome| outcome)
    }
}

impl Forward {
    fn run(self, origin: Origin) -> Result<(), JoinError> {
        let Self { slot, info, target } = self;
        let job = slot.take().ok_or_else(JoinError::cancelled)?;
        // Before the job is running, so that each cancel of the running job kills it.
        if let Some(own) = current_task().map(CancelHandle::new) {
            job.on_cancel(move || own.cancel());
        }
        if !job.set_running() {
            return Err(JoinError::cancelled());
        }
        let outcome = job.encode_once().and_then(|call| {
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
