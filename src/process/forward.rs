//! A pool of worker processes as an executor of any task.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use crate::call::CallInfo;
use crate::call::executor::{TaskExecutor, TaskJob};
use crate::error::{Closed, JoinError, Refusal, SubmitError};
use crate::pool::enqueue_with;
use crate::pool::expiry::{self, ExpiryGuard};
use crate::process::pool::{ProcessPool, Target};
use crate::task::cancel_handle::CancelHandle;
use crate::task::cell::{JobClosure, RawTask, StartBy, catch};
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
        self.threads().acquire_permit();
        if let Err((closed, job)) = self.forward(job) {
            job.fail(closed.into());
        }
    }

    fn try_execute_task(&self, job: TaskJob) -> Result<(), SubmitError<TaskJob>> {
        if let Some(error) = self.forked() {
            return Err(SubmitError::because(error, job));
        }
        if let Err(refusal) = self.threads().try_acquire_permit() {
            return Err(SubmitError::new(refusal, job));
        }
        let forwarded = self.forward(job);
        forwarded.map_err(|(closed, job)| SubmitError::new(Refusal::Closed(closed), job))
    }

    fn as_process_pool(&self, _: Private) -> Option<&ProcessPool> {
        Some(self)
    }
}

impl ProcessPool {
    /// Queues a job of the pool that runs `job` and has its permit.
    fn forward(&self, job: TaskJob) -> Result<(), (Closed, TaskJob)> {
        let (origin, span) = (job.location(), job.span());
        let submitter = self.submitter();
        let target = submitter.target();
        let scheduler = submitter.scheduler(&target);
        // A cancel of the task's handle also takes the job out of the queue.
        let queued = Arc::new(OnceLock::<CancelHandle>::new());
        let hook = Arc::clone(&queued);
        job.on_cancel(move || hook.get().is_some_and(CancelHandle::cancel));
        let info = job.info().clone();
        let expiry = info
            .deadline
            .map(|at| ExpiryGuard::new(at, JoinError::expired(info.name)));
        let key = expiry.as_ref().map(ExpiryGuard::key);
        // Not only in the closure: if the pool does not run it, the job needs the reason.
        let slot = Slot::new(job);
        let forward = Forward {
            slot: slot.clone(),
            info,
            target,
            expiry,
        };
        let pool = self.threads().inner();
        match enqueue_with(&pool, scheduler, forward, origin, span) {
            Ok(task) => {
                let _ = queued.set(CancelHandle::new(task.clone()));
                let raw: Arc<dyn RawTask> = task.clone();
                let raw: Weak<dyn RawTask> = Arc::downgrade(&raw);
                JoinHandle::new(task as _).add_done_callback(move |outcome| {
                    if let (Some(job), Err(error)) = (slot.take(), outcome) {
                        job.fail(error.replicate());
                    }
                });
                if let Some(key) = key {
                    expiry::queued(key, raw);
                }
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
    /// Ends the deadline of the call when the job starts or is cancelled.
    expiry: Option<ExpiryGuard>,
}

impl JobClosure<()> for Forward {
    fn call(self, origin: Origin) -> Result<(), JoinError> {
        // A panic of the pool itself drops the task, which cancels it.
        catch(origin, move || self.run(origin)).and_then(|outcome| outcome)
    }

    fn start_by(&self) -> Option<StartBy> {
        self.info.start_by()
    }
}

impl Forward {
    fn run(self, origin: Origin) -> Result<(), JoinError> {
        let Self {
            slot,
            info,
            target,
            expiry,
        } = self;
        drop(expiry);
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
