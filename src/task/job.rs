//! The executor's reference to a job.

use std::fmt;
use std::task::Waker;

use crate::error::JoinError;
use crate::task::cell::{Details, RawTask, Runner, Scheduler, mark_refused, refuse};
use crate::task::stamp::Stamp;
use crate::util::sync::{Arc, Instant};
use crate::util::unwind::wake;

/// A queued job, as an [`Executor`](crate::Executor) gets it.
///
/// **Dropping a job cancels it.** An executor either [`run`](Self::run)s the job, on any thread, or
/// [`refuse`](Self::refuse)s it. So its [`JoinHandle`](crate::JoinHandle) always resolves.
///
/// A job runs at most once. If it was cancelled through its handle, `run` and `refuse` do nothing.
///
/// # Examples
///
/// ```
/// use std::sync::mpsc::{Sender, channel};
///
/// use futurepool::{Executor, ExecutorExt, Job};
///
/// /// Sends jobs to a thread that has other work, for example the event loop of a window.
/// struct Later(Sender<Job>);
///
/// impl Executor for Later {
///     fn execute(&self, job: Job) {
///         let _ = self.0.send(job); // if that thread is gone the job is dropped, which cancels it
///     }
/// }
///
/// let (jobs, queue) = channel();
/// let later = Later(jobs);
/// let title = later.submit(|| "ready");
/// // In that thread, whenever it has time:
/// queue.try_iter().for_each(Job::run);
/// assert_eq!(title.join().unwrap(), "ready");
/// ```
#[doc(alias = "InvalidStateError")]
#[doc(alias = "_WorkItem")]
#[must_use = "dropping a job cancels it"]
pub struct Job {
    /// `None` once it was run, refused or disarmed.
    task: Option<Arc<dyn RawTask>>,
}

impl Job {
    pub(crate) fn new(task: Arc<dyn RawTask>) -> Self {
        Self { task: Some(task) }
    }

    /// Runs the job on the calling thread.
    ///
    /// This calls the closure and the job's callbacks, and wakes its waiters. It never unwinds: a
    /// panic of the closure becomes the outcome of the job.
    #[doc(alias = "set_result")]
    #[doc(alias = "set_running_or_notify_cancel")]
    pub fn run(self) {
        self.run_if_queued();
    }

    /// Resolves the job with `error`, without running it.
    ///
    /// Executors use [`JoinError::shutdown`] and [`JoinError::broken`]. The closure is dropped
    /// first.
    ///
    /// See [`Executor`](crate::Executor) for an example.
    #[doc(alias = "set_exception")]
    pub fn refuse(mut self, error: JoinError) {
        if let Some(task) = self.task.take() {
            refuse(&*task, &error);
        }
    }

    /// Runs the job. Returns false if it was cancelled before, or run by a worker that waits for
    /// it.
    pub(crate) fn run_if_queued(mut self) -> bool {
        let task = self.task.take();
        task.is_some_and(|task| task.run(Runner::Executor))
    }

    /// Attaches a job that was made for any executor to the pool that has accepted it. Returns
    /// false if it is no longer queued.
    pub(crate) fn attach(&self, scheduler: Arc<dyn Scheduler>, order: u32) -> bool {
        let Some(task) = &self.task else {
            return false;
        };
        task.state(|state| {
            let queued = state.is_queued();
            if queued {
                state.set_order(order);
                task.scheduler().attach(scheduler);
            }
            queued
        })
    }

    /// Gives the job what only some jobs have, before it is visible in a queue. Returns false if it
    /// is no longer queued.
    pub(crate) fn prepare(&self, details: Details, stamp: Stamp) -> bool {
        (self.task.as_ref()).is_some_and(|task| task.prepare(details, stamp))
    }

    /// Returns the task, if the job was not run, refused or disarmed.
    pub(crate) fn task(&self) -> Option<Arc<dyn RawTask>> {
        self.task.clone()
    }

    /// Returns a function that wakes the waiter, for it to look at the job again.
    pub(crate) fn rewake(&self) -> impl FnOnce() + use<> {
        let task = self.task.clone();
        move || {
            let waker = task.and_then(|task| task.state(|state| state.waker_to_rewake()));
            if let Some(waker) = waker {
                wake(waker);
            }
        }
    }

    /// The first phase of a refusal: the job can no longer start. Returns the task, for the phases
    /// that follow; `None` if it is no longer queued.
    pub(crate) fn mark_refused(mut self, error: &JoinError) -> Option<Arc<dyn RawTask>> {
        let task = self.task.take();
        task.filter(|task| mark_refused(&**task, error))
    }

    /// Takes the waker of a future that waits for the job: see
    /// [`State::take_future_waker`](crate::task::state::State::take_future_waker).
    pub(crate) fn take_future_waker(&self) -> Option<Waker> {
        self.task.as_ref()?.state(|state| state.take_future_waker())
    }

    /// Returns the place in the order of submission, modulo 2³², if the job is queued.
    pub(crate) fn order(&self) -> Option<u32> {
        self.task.as_ref()?.state(|state| state.order())
    }

    /// Returns whether the job is no longer queued: it was cancelled, or run by a waiter.
    pub(crate) fn is_tombstone(&self) -> bool {
        let task = self.task.as_ref();
        task.is_none_or(|task| task.state(|state| !state.is_queued()))
    }

    /// Returns whether the job is queued, and its deadline has not passed at `now`.
    pub(crate) fn can_start(&self, now: Option<Instant>) -> bool {
        (self.task.as_ref()).is_some_and(|task| task.can_start(now))
    }

    /// Drops a job that was not accepted, without resolving it.
    pub(crate) fn disarm(mut self) {
        self.task = None;
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            refuse(&*task, &JoinError::cancelled());
        }
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").finish_non_exhaustive()
    }
}
