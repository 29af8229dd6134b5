//! What a running job can ask: was I cancelled, am I this job, whose worker runs me.

use std::cell::{Cell, RefCell};

use crate::sync::Arc;
use crate::task::cell::Runnable;

thread_local! {
    /// The innermost job that this thread runs.
    static JOB: RefCell<Option<Arc<dyn Runnable>>> = const { RefCell::new(None) };

    /// What this thread is a worker of. Plain numbers, which need no destructor: the destructors of other
    /// thread-locals can still ask.
    static BADGE: Cell<Option<Badge>> = const { Cell::new(None) };
}

/// Says that a thread is a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Badge {
    /// The number of the pool.
    pub(crate) pool: u64,
    /// The number of the worker in its pool while it is in its loop; `None` once it has left.
    pub(crate) worker: Option<u64>,
}

/// Runs `run` with `job` for the innermost job of this thread.
pub(crate) fn run_inside<R>(job: Arc<dyn Runnable>, run: impl FnOnce() -> R) -> R {
    let outer = JOB.try_with(|innermost| innermost.replace(Some(job)));
    let result = run();
    if let Ok(outer) = outer {
        // The job comes out before it is dropped: its destructor may ask, too.
        let job = JOB.try_with(|innermost| innermost.replace(outer));
        drop(job);
    }
    result
}

/// Whether the cell at this address is the innermost job of this thread.
pub(crate) fn is_current(cell: *const ()) -> bool {
    with_job(|job| std::ptr::eq(Arc::as_ptr(job).cast(), cell))
}

/// Whether the job that calls this was asked to end early: by [`cancel`](crate::JoinHandle::cancel) on its handle, or
/// by [`shutdown_now`](crate::ThreadPool::shutdown_now).
///
/// A job that runs for long may look now and then and return early; nothing else stops it. It speaks of the innermost
/// job that the calling thread runs, and is false outside a job.
///
/// # Examples
///
/// ```
/// let pool = futurepool::ThreadPool::new(1);
/// let (started, wait) = std::sync::mpsc::channel();
/// let handle = pool.submit(move || {
///     started.send(()).unwrap();
///     let mut rounds = 0_u64;
///     while !futurepool::cancel_requested() {
///         rounds += 1;
///     }
///     rounds
/// });
/// wait.recv().unwrap();
/// assert!(!handle.cancel()); // too late to cancel it: the job is asked to end
/// assert!(handle.join().is_ok());
/// ```
#[must_use]
pub fn cancel_requested() -> bool {
    with_job(|job| job.cancel_requested())
}

fn with_job(ask: impl FnOnce(&Arc<dyn Runnable>) -> bool) -> bool {
    JOB.try_with(|innermost| innermost.borrow().as_ref().is_some_and(ask))
        .unwrap_or(false)
}

pub(crate) fn badge() -> Option<Badge> {
    BADGE.try_with(Cell::get).ok().flatten()
}

pub(crate) fn set_badge(badge: Badge) {
    let _ = BADGE.try_with(|mine| mine.set(Some(badge)));
}
