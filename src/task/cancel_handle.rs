//! A handle that can only cancel.

use std::fmt;

use crate::task::cell::{RawTask, cancel, state_of};
use crate::task::state::{Cancel, OutcomeKind};
use crate::util::sync::Arc;

/// Cancels a job whose [`JoinHandle`](crate::JoinHandle) is elsewhere: see
/// [`JoinHandle::cancel_handle`](crate::JoinHandle::cancel_handle).
///
/// **Dropping it has no effect on the job.** Clones refer to the same job. It keeps the memory block
/// of the job, but neither what the closure captured nor the result.
#[doc(alias = "AbortHandle")]
#[derive(Clone)]
pub struct CancelHandle {
    target: Target,
}

#[derive(Clone)]
enum Target {
    Task(Arc<dyn RawTask>),
    /// The result was taken before, and the task released.
    Consumed(OutcomeKind),
}

impl CancelHandle {
    pub(crate) fn new(task: Arc<dyn RawTask>) -> Self {
        let target = Target::Task(task);
        Self { target }
    }

    pub(crate) fn of_consumed(kind: OutcomeKind) -> Self {
        let target = Target::Consumed(kind);
        Self { target }
    }

    /// Cancels the job if it has not started, and returns whether the job is cancelled: see
    /// [`JoinHandle::cancel`](crate::JoinHandle::cancel).
    #[doc(alias = "abort")]
    pub fn cancel(&self) -> bool {
        let cancel = match &self.target {
            Target::Task(task) => cancel(&**task),
            Target::Consumed(kind) => Cancel::of_finished(*kind),
        };
        cancel.is_cancelled()
    }

    /// Returns `true` once the outcome of the job is visible: see
    /// [`JoinHandle::is_finished`](crate::JoinHandle::is_finished).
    #[doc(alias = "done")]
    #[must_use]
    pub fn is_finished(&self) -> bool {
        match &self.target {
            Target::Task(task) => state_of(&**task, |state| !state.is_unfinished()),
            Target::Consumed(_) => true,
        }
    }
}

impl fmt::Debug for CancelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelHandle")
            .field("finished", &self.is_finished())
            .finish_non_exhaustive()
    }
}
