//! What a running job can ask: was I cancelled, whose worker runs me, in which thread.

use std::cell::{Cell, RefCell};
use std::panic::Location;
// Not the model checker's: numbers tell apart, and order nothing.
use std::sync::atomic::{AtomicU64, Ordering};

use crate::park::helping::Inside;
use crate::util::sync::{Arc, local};

/// Where a job was submitted.
pub(crate) type Origin = &'static Location<'static>;

/// A running job, as far as it can be asked from inside.
pub(crate) trait Current: Send + Sync {
    fn cancel_requested(&self) -> bool;
    fn origin(&self) -> Option<Origin>;
}

local! {
    /// The jobs that this thread runs, each in a wait of the one before.
    static JOBS: RefCell<Vec<Arc<dyn Current>>> = const { RefCell::new(Vec::new()) };

    /// What this thread is a worker of. Plain numbers, which need no destructor: the destructors of other
    /// thread-locals can still ask.
    static BADGE: Cell<Option<Badge>> = const { Cell::new(None) };

    /// This thread's number; 0 before somebody asked.
    static NUMBER: Cell<u64> = const { Cell::new(0) };
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
pub(crate) fn run_inside<R>(job: Arc<dyn Current>, run: impl FnOnce() -> R) -> R {
    let frame = Inside::job();
    let there = JOBS.try_with(|jobs| jobs.borrow_mut().push(job));
    let result = run();
    if there.is_ok() {
        // The job comes out before it is dropped: its destructor may ask, too.
        let job = JOBS.try_with(|jobs| jobs.borrow_mut().pop());
        drop(job);
    }
    drop(frame);
    result
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
    with_job(|job| job.is_some_and(|job| job.cancel_requested()))
}

/// Whether this thread runs a job.
pub(crate) fn in_job() -> bool {
    with_job(|job| job.is_some())
}

fn with_job(ask: impl FnOnce(Option<&Arc<dyn Current>>) -> bool) -> bool {
    JOBS.try_with(|jobs| ask(jobs.borrow().last()))
        .unwrap_or(false)
}

/// A job that a thread runs: where its cell is, and where it was submitted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OnStack {
    /// An address to compare.
    pub(crate) cell: usize,
    pub(crate) origin: Origin,
}

/// The jobs that this thread runs, outermost first.
pub(crate) fn stack() -> Vec<OnStack> {
    let on_stack = |job: &Arc<dyn Current>| {
        Some(OnStack {
            cell: Arc::as_ptr(job).cast::<()>().addr(),
            origin: job.origin()?,
        })
    };
    JOBS.try_with(|jobs| jobs.borrow().iter().filter_map(on_stack).collect())
        .unwrap_or_default()
}

pub(crate) fn badge() -> Option<Badge> {
    BADGE.try_with(Cell::get).ok().flatten()
}

pub(crate) fn set_badge(badge: Badge) {
    let _ = BADGE.try_with(|mine| mine.set(Some(badge)));
}

/// The number of this thread, never 0, and no other's in this process.
pub(crate) fn thread_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NUMBER.with(|mine| {
        if mine.get() == 0 {
            mine.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        mine.get()
    })
}
