//! The executor's half of a job.

use std::fmt;
use std::task::Waker;

use crate::error::JoinError;
use crate::task::cell::{Home, Runnable, Sentence, Watch};
use crate::util::sync::Arc;

/// A job that waits to be run: what an [`Executor`](crate::Executor) is given.
///
/// It is to be [run](Self::run), in whatever thread, or to be [refused](Self::refuse). One that is **dropped** is
/// cancelled. So its [`JoinHandle`](crate::JoinHandle) resolves whatever an executor does, and never hangs.
///
/// A job runs once: both methods take it by value. If its handle has cancelled it they do nothing.
///
/// # Examples
///
/// ```
/// use std::sync::mpsc::{Sender, channel};
///
/// use futurepool::{Executor, ExecutorExt, Job};
///
/// /// Jobs for a thread that has other things to do, too: that of a window, for instance.
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
    cell: Option<Arc<dyn Runnable>>,
}

/// Nobody counts this job.
struct Unwatched;

impl Watch for Unwatched {}

impl Job {
    pub(crate) fn new(cell: Arc<dyn Runnable>) -> Self {
        Self { cell: Some(cell) }
    }

    /// Runs it in this thread: the closure, the callbacks and the wakers of whoever waits for it.
    ///
    /// It never unwinds: a panic of the closure is the job's outcome.
    #[doc(alias = "set_result")]
    #[doc(alias = "set_running_or_notify_cancel")]
    pub fn run(self) {
        self.run_watched(&mut Unwatched);
    }

    /// Resolves it with an error, without running it: [`JoinError::shutdown`] and [`JoinError::broken`] are made for
    /// this.
    ///
    /// See [`Executor`](crate::Executor) for an example.
    #[doc(alias = "set_exception")]
    pub fn refuse(mut self, error: JoinError) {
        if let Some(cell) = self.cell.take() {
            cell.refuse(error);
        }
    }

    /// As [`run`](Self::run); false if it was cancelled before.
    pub(crate) fn run_watched(mut self, watch: &mut dyn Watch) -> bool {
        self.cell.take().is_some_and(|cell| cell.run(watch))
    }

    /// Wakes whoever waits for it, for nothing.
    pub(crate) fn nudge(&self) -> impl FnOnce() + use<> {
        let cell = self.cell.clone();
        move || {
            if let Some(cell) = cell {
                cell.nudge();
            }
        }
    }

    /// It belongs to that pool now; false if it was cancelled before.
    pub(crate) fn settle(&self, home: Arc<dyn Home>) -> bool {
        self.cell.as_ref().is_some_and(|cell| cell.settle(home))
    }

    /// It is about to be refused; false if it was cancelled before.
    pub(crate) fn condemn(&self, sentence: Sentence) -> bool {
        let cell = self.cell.as_ref();
        cell.is_some_and(|cell| cell.condemn(sentence))
    }

    /// Refuses a condemned one; false if it is not queued any more.
    pub(crate) fn execute_sentence(mut self) -> bool {
        let cell = self.cell.take();
        cell.is_some_and(|cell| cell.execute_sentence())
    }

    /// The waker of whoever waits for it. If that is foreign code it will register again when it is woken.
    pub(crate) fn waker(&self) -> Option<Waker> {
        self.cell.as_ref()?.waker()
    }

    /// The waker of whoever awaits it, if that is foreign code, which will register again when it is woken.
    pub(crate) fn take_waker(&self) -> Option<Waker> {
        self.cell.as_ref()?.take_waker()
    }

    /// Whether it was cancelled, or run by somebody who waits for it.
    pub(crate) fn is_husk(&self) -> bool {
        self.cell.as_ref().is_none_or(|cell| cell.is_husk())
    }

    /// Lets go of a job that was not accepted, without resolving it.
    pub(crate) fn disarm(mut self) {
        self.cell = None;
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if let Some(cell) = self.cell.take() {
            cell.refuse(JoinError::cancelled());
        }
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").finish_non_exhaustive()
    }
}
