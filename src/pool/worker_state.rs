//! The state that each worker of a stateful pool owns, for the jobs that it runs.
//!
//! ```text
//!   worker starts ─► initializer ─► make ─► the worker's Context ◄─► a job borrows it
//!                                    ▲              │                     │ panics
//!                                    └── before the next job ◄── dropped ◄┘
//!                                                   └─► dropped when the worker has left its loop, but still counts
//! ```
//!
//! The state is in the [`Context`] of its thread, except while a job has it. It is never sent to
//! another thread, so it need not be `Send`.
//!
//! Invariant: there are no more states than workers are allowed. So a worker that exits counts
//! until its state is dropped.
//!
//! Invariant: at most one job of a worker borrows the state, because waits in such a worker run no
//! jobs.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::error::{BoxError, JoinError};
use crate::pool::inner::PoolInner;
use crate::pool::queue::PopOrder;
use crate::pool::spawn::notify_work;
use crate::task::context::{Context, WorkerPhase, current_pool};
use crate::task::job::Job;
use crate::util::sync::Arc;
use crate::util::unwind::drop_catching;

/// Makes the state of a worker, on that worker.
pub(crate) type MakeState = Box<dyn Fn() -> Result<Box<dyn Any>, BoxError> + Send + Sync>;

const DESTRUCTOR: &str = "the destructor of a worker's state";

fn replace(state: Option<Box<dyn Any>>) -> Option<Box<dyn Any>> {
    Context::with(|context| context.state.replace(state)).flatten()
}

/// Puts the state of this worker where its jobs find it.
pub(crate) fn put(state: Box<dyn Any>) {
    drop_catching(DESTRUCTOR, replace(Some(state)));
}

/// Drops the state of this worker, if it has one. The worker runs no more jobs.
pub(crate) fn drop_state() {
    drop_catching(DESTRUCTOR, replace(None));
}

fn is_there() -> bool {
    let state = replace(None);
    let is_there = state.is_some();
    let _none = replace(state);
    is_there
}

/// Calls `f` with the state of this worker. A panic in `f` costs the state, and goes on.
///
/// # Errors
///
/// Returns an error if the state was lost and cannot be made. The pool is broken then.
pub(crate) fn with_state<S: 'static, R>(f: impl FnOnce(&mut S) -> R) -> Result<R, JoinError> {
    let mut state = match replace(None) {
        Some(state) => state,
        // An earlier item of this job has panicked.
        None => current_pool()
            .expect("a job that uses a state runs on a worker")
            .make_state()?,
    };
    let typed = state.downcast_mut();
    let typed = typed.expect("the jobs of a pool know the type of its states");
    let outcome = catch_unwind(AssertUnwindSafe(|| f(typed)));
    Context::with(|context| context.block_on.forget_awaited());
    match outcome {
        Ok(result) => {
            put(state);
            Ok(result)
        }
        Err(payload) => {
            // Not by the unwinding: a second panic would abort the process.
            drop_catching(DESTRUCTOR, state);
            resume_unwind(payload)
        }
    }
}

impl PoolInner {
    /// Returns whether the workers own states, so that waits in them run no jobs.
    pub(crate) fn is_stateful(&self) -> bool {
        self.config().make_state.is_some()
    }

    /// Makes the state of this worker. A failure breaks the pool.
    fn make_state(&self) -> Result<Box<dyn Any>, JoinError> {
        // A job that this waits for could need the state.
        self.set_phase(WorkerPhase::Initializing);
        let made = self.config().make_state();
        let made = made.transpose().expect("the pool has states");
        let made = made.map_err(|cause| {
            let cause = Arc::new(cause);
            self.mark_broken(Arc::clone(&cause));
            JoinError::broken_by(cause)
        });
        self.set_phase(WorkerPhase::InLoop);
        made
    }

    /// Takes the next job out of the queue, as [`pop`](Self::pop) does. If a panic has cost the
    /// state of this worker, it takes none before another state is made, and makes that only if a
    /// job is queued.
    ///
    /// `searching`: whether this worker searches. It does not while it makes a state. Returns
    /// whether it still does.
    #[inline(never)]
    pub(crate) fn pop_with_state(
        self: &Arc<Self>,
        order: &mut PopOrder,
        searching: bool,
    ) -> (Option<Job>, bool) {
        if is_there() {
            return (self.pop(order), searching);
        }
        if !self.has_queued_hint() {
            return (None, searching);
        }
        if searching {
            self.idle().stop_searching();
        }
        // To make a state may take long. So an idle worker, if there is one, takes the job.
        notify_work(self);
        let made = self.make_state().map(put);
        (made.ok().and_then(|()| self.pop(order)), false)
    }
}
