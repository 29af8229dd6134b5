//! A thread that waits for one thing, and the waker that ends the wait. Every wait for a job, a permit
//! or a future parks here. (Workers without a job park in `pool/idle.rs`.)
//!
//! A worker that parks without a timeout tells its pool, before and after ([`PoolInner`]): it may be
//! the last one that could run what is queued. The pool may give it something to do first
//! ([`Deferred`]). User code may run in that, so the worker does it while it is awake, and outside
//! of the pool's list of blocked workers.
//!
//! While a pool waits for threads that the system refuses, and no timer thread could be had, a thread
//! parks in slices and retries between them: see `util/timer.rs`.

use std::cell::{Cell, RefCell};
use std::task::{Wake, Waker};
use std::time::Duration;

use crate::pool::PoolInner;
use crate::task::context::{Context, current_pool};
use crate::util::sync::thread::{self, Thread};
use crate::util::sync::{Arc, AtomicBool, Instant, Ordering};
use crate::util::timer;

/// How long a thread parks at most while no thread serves the retries of refused spawns.
const RETRY_SLICE: Duration = Duration::from_millis(100);

/// A thread that waits. A wait inside a wait (a future that calls `block_on`) has a parker of its
/// own, or it would take the notification of the outer one.
pub(crate) struct Parker {
    /// `None` only in `drop`.
    parts: Option<(Arc<Unparker>, Waker)>,
    /// What became due during the last park.
    deferred: Cell<Option<Deferred>>,
    /// The last park ended because retries may be due.
    retries_are_due: Cell<bool>,
}

/// What the waker notifies.
pub(crate) struct Unparker {
    thread: Thread,
    /// Set by the waker, reset by the parker. The token of `unpark` alone would not do: user code
    /// that this thread runs between two waits may park, too, and consume it.
    notified: AtomicBool,
}

/// What a worker must do for its pool before it can park for good, and from when on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deferred {
    /// All workers are blocked, and one more may be started.
    SpawnWorker(Instant),
    /// All workers are blocked while jobs are queued: one of the workers may have to run one.
    Probe(Instant),
}

/// Parkers of a thread that are not in use: a waker is made once and used for the next wait.
pub(crate) struct ParkerCache(RefCell<Vec<(Arc<Unparker>, Waker)>>);

/// More than two waits inside each other are rare.
const MAX_CACHED: usize = 2;

impl ParkerCache {
    pub(crate) const fn new() -> Self {
        Self(RefCell::new(Vec::new()))
    }
}

impl Parker {
    pub(crate) fn new() -> Self {
        let cached = Context::with(|context| context.parkers.0.borrow_mut().pop());
        Self {
            parts: Some(cached.flatten().unwrap_or_else(new_unparker)),
            deferred: Cell::new(None),
            retries_are_due: Cell::new(false),
        }
    }

    fn parts(&self) -> &(Arc<Unparker>, Waker) {
        self.parts.as_ref().expect("it is there until the drop")
    }

    pub(crate) fn waker(&self) -> &Waker {
        let (_, waker) = self.parts();
        waker
    }

    fn unparker(&self) -> &Arc<Unparker> {
        let (unparker, _) = self.parts();
        unparker
    }

    /// Returns the data pointer of the waker.
    pub(crate) fn address(&self) -> usize {
        self.waker().data().addr()
    }

    /// Returns whether the next park would end at once.
    pub(crate) fn is_notified(&self) -> bool {
        // Ordering: what the waker wrote before the notification is visible after it.
        self.unparker().notified.load(Ordering::Acquire)
    }

    /// Parks until the waker was called since the last park, or `deadline` has passed. Returns
    /// whether it was notified. Notifications may be spurious, as those of every waker.
    ///
    /// Without a deadline the pool counts this thread as blocked, if it is a worker.
    pub(crate) fn park(&self, deadline: Option<Instant>) -> bool {
        let notified = self.park_only(deadline);
        self.run_deferred();
        notified
    }

    /// Parks, and runs no user code. The caller must call [`run_deferred`](Self::run_deferred).
    pub(crate) fn park_only(&self, deadline: Option<Instant>) -> bool {
        let unparker = self.unparker();
        if unparker.take_notification() {
            return true;
        }
        let retry_at = timer::has_unserved_retries().then(|| Instant::now() + RETRY_SLICE);
        match (deadline, current_pool()) {
            (None, Some(pool)) => self.park_as_worker(&pool, retry_at),
            (None, None) => {
                let notified = unparker.park_until(retry_at);
                self.retries_are_due.set(!notified);
            }
            (Some(deadline), _) => {
                let slice = retry_at.filter(|retry_at| *retry_at < deadline);
                if !unparker.park_until(slice.or(Some(deadline))) {
                    self.retries_are_due.set(slice.is_some());
                    return slice.is_some();
                }
            }
        }
        true
    }

    fn park_as_worker(&self, pool: &Arc<PoolInner>, retry_at: Option<Instant>) {
        let unparker = self.unparker();
        // From here to `after_block` the pool counts this worker as blocked, and no user code runs.
        let deferred = pool.before_block(unparker);
        let run_at = deferred.map(|(Deferred::SpawnWorker(at) | Deferred::Probe(at))| at);
        if !unparker.park_until(earlier(run_at, retry_at)) {
            // Not here: this worker is still in the list.
            let now = Instant::now();
            self.deferred
                .set(deferred.filter(|_| run_at.is_some_and(|at| at <= now)));
            self.retries_are_due
                .set(retry_at.is_some_and(|at| at <= now));
        }
        let all_blocked = pool.after_block(unparker);
        if !all_blocked && matches!(deferred, Some(Deferred::Probe(_))) {
            // Another worker woke up since. It checks again if it blocks last.
            self.deferred.set(None);
        }
    }

    /// Does what became due during the last park. The caller then checks what it waits for, and parks
    /// again.
    pub(crate) fn run_deferred(&self) {
        if let (Some(deferred), Some(pool)) = (self.deferred.take(), current_pool()) {
            pool.run_deferred(deferred);
        }
        if self.retries_are_due.take() {
            timer::run_due_retries();
        }
    }
}

impl Drop for Parker {
    fn drop(&mut self) {
        let Some(parts) = self.parts.take() else {
            return;
        };
        Context::with(|context| {
            let mut cached = context.parkers.0.borrow_mut();
            if cached.len() < MAX_CACHED {
                cached.push(parts);
            }
        });
    }
}

impl Unparker {
    #[cfg(all(test, not(loom)))]
    pub(crate) fn of_this_thread() -> Arc<Self> {
        let (unparker, _) = new_unparker();
        unparker
    }

    #[cfg(all(test, not(loom)))]
    pub(crate) fn is_notified(&self) -> bool {
        self.notified.load(Ordering::Acquire)
    }

    fn take_notification(&self) -> bool {
        // Ordering: as in `is_notified`.
        self.notified.swap(false, Ordering::Acquire)
    }

    /// Parks until there is a notification, and takes it. Returns false if `until` has passed before.
    fn park_until(&self, until: Option<Instant>) -> bool {
        // A park may end spuriously.
        while !self.take_notification() {
            let Some(until) = until else {
                thread::park();
                continue;
            };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            thread::park_timeout(left);
        }
        true
    }

    pub(crate) fn unpark(&self) {
        // Ordering: what this thread wrote is visible to the parker. Only the first notification
        // since the last park unparks: the parker is awake for the others.
        if !self.notified.swap(true, Ordering::Release) {
            self.thread.unpark();
        }
    }
}

impl Wake for Unparker {
    fn wake(self: Arc<Self>) {
        self.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.unpark();
    }
}

fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        _ => a.or(b),
    }
}

fn new_unparker() -> (Arc<Unparker>, Waker) {
    let unparker = Arc::new(Unparker {
        thread: thread::current(),
        notified: AtomicBool::new(false),
    });
    let waker = Waker::from(Arc::clone(&unparker));
    (unparker, waker)
}
