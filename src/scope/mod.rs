//! Jobs that borrow.
//!
//! ```text
//!   mod.rs       ThreadPool::scope, Scope, ScopedJoinHandle
//!    │ │  ▲
//!    │ │  │ with_scope creates the Scope
//!    │ ▼  │
//!    │ erased.rs   hides the lifetime of a job; counts the jobs; waits for them
//!    │ │
//!    │ │ a job failed; no job is pending; help or sleep
//!    ▼ ▼
//!   state.rs     failures, detached handles, helping at the end of the scope
//! ```
//!
//! A job lives in a packet with two halves. The pool gets one half, as an ordinary `'static` job.
//! The [`ScopedJoinHandle`] has the other half, which receives the result. To check that no borrow
//! dangles, `erased.rs` is enough.

mod erased;
mod state;

use std::fmt;
use std::marker::PhantomData;
use std::panic::{Location, resume_unwind};

use crate::error::JoinError;
use crate::pool::ThreadPool;
use crate::scope::erased::{ResultSlot, ScopeJobs, with_scope};
use crate::scope::state::{DetachOnDrop, ScopeData};
use crate::task::context::{current_worker, may_be_waited_for};
use crate::task::span;
use crate::task::state::Cancel;
use crate::util::sync::Arc;

impl ThreadPool {
    /// Runs a closure whose jobs may borrow local variables, as in [`std::thread::scope`], and
    /// blocks until all of these jobs have ended.
    ///
    /// The closure receives a [`Scope`] and submits jobs with [`Scope::submit`]. A job may borrow
    /// anything that outlives this call, and may submit further jobs. `scope` waits for every job,
    /// joined or not, even if the closure panics.
    ///
    /// On a worker of this pool, `scope` runs those jobs itself that are still queued when the
    /// closure returns. So scopes can nest, down to a pool of one worker.
    ///
    /// `scope` blocks its caller. In async code, call it inside a job:
    /// `pool.submit(move || shared.scope(…)).await`.
    ///
    /// # Panics
    ///
    /// `scope` resumes a panic of the closure. Otherwise it panics if a job whose handle was not
    /// joined
    ///
    /// - panicked, or
    /// - did not run, for any reason except a [`cancel`](ScopedJoinHandle::cancel) through its own
    ///   handle. So no work is skipped silently.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = futurepool::ThreadPool::new(2);
    /// let mut numbers = vec![1, 2, 3, 4];
    /// let (left, right) = numbers.split_at_mut(2);
    /// pool.scope(|scope| {
    ///     scope.submit(|| left.iter_mut().for_each(|n| *n *= 10));
    ///     let sum = scope.submit(|| right.iter().sum::<i32>());
    ///     assert_eq!(sum.join().unwrap(), 7);
    /// });
    /// assert_eq!(numbers, [10, 20, 3, 4]);
    /// ```
    #[track_caller]
    pub fn scope<'env, F, R>(&self, f: F) -> R
    where
        F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> R,
    {
        let tracks_jobs = may_be_waited_for() || current_worker().is_some();
        let data = Arc::new(ScopeData::new(tracks_jobs));
        let result = with_scope(self, &data, f);
        data.join_detached();
        let failures = data.take_failures();
        match (result, failures.as_slice()) {
            (Err(payload), _) => resume_unwind(payload),
            (Ok(result), []) => result,
            (Ok(_), [only]) => panic!("{only}"),
            (Ok(_), [first, rest @ ..]) => panic!("{first} (and {} more)", rest.len()),
        }
    }
}

/// Submits jobs that may borrow local variables. Created by [`ThreadPool::scope`].
///
/// `'scope` is the lifetime of the scope: it ends inside [`ThreadPool::scope`], after the last job.
/// `'env` is the lifetime of what the jobs borrow from outside: it is at least as long as the call.
pub struct Scope<'scope, 'env: 'scope> {
    pool: &'scope ThreadPool,
    data: Arc<ScopeData>,
    /// Creates and counts the jobs.
    jobs: ScopeJobs<'scope>,
    /// Makes the type invariant in `'env`, as [`std::thread::Scope`] is. `jobs` makes it invariant
    /// in `'scope`.
    env: PhantomData<&'env mut &'env ()>,
}

impl<'scope> Scope<'scope, '_> {
    /// Submits a job that may borrow from outside the scope: see [`ThreadPool::submit`].
    ///
    /// Dropping the handle detaches the job. The scope still waits for the job.
    ///
    /// # Examples
    ///
    /// Jobs that submit jobs:
    ///
    /// ```
    /// use std::sync::atomic::{AtomicU64, Ordering};
    ///
    /// use futurepool::{Scope, ThreadPool};
    ///
    /// struct Tree {
    ///     value: u64,
    ///     branches: Vec<Tree>,
    /// }
    ///
    /// fn add<'scope>(
    ///     scope: &'scope Scope<'scope, '_>,
    ///     tree: &'scope Tree,
    ///     sum: &'scope AtomicU64,
    /// ) {
    ///     sum.fetch_add(tree.value, Ordering::Relaxed);
    ///     for branch in &tree.branches {
    ///         drop(scope.submit(move || add(scope, branch, sum)));
    ///     }
    /// }
    ///
    /// let leaves = [2, 3].map(|value| Tree { value, branches: Vec::new() });
    /// let tree = Tree { value: 1, branches: leaves.into() };
    /// let sum = AtomicU64::new(0);
    /// ThreadPool::new(2).scope(|scope| add(scope, &tree, &sum));
    /// assert_eq!(sum.into_inner(), 6);
    /// ```
    #[track_caller]
    pub fn submit<F, T>(&'scope self, closure: F) -> ScopedJoinHandle<'scope, T>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        let origin = Location::caller();
        let (erased, result, number) = self.jobs.erase(closure, origin);
        let handle = (self.pool).submit_from(move || erased.run(), origin, span::current());
        self.data.track(&handle);
        let handle = DetachOnDrop::new(handle, Arc::clone(&self.data), number);
        ScopedJoinHandle { result, handle }
    }
}

impl fmt::Debug for Scope<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope")
            .field("unfinished", &self.jobs.pending())
            .finish_non_exhaustive()
    }
}

/// A handle of a job of a [`Scope`]. **Dropping it detaches the job**: the job still runs, and the
/// scope waits for it.
///
/// See [`ThreadPool::scope`] for an example.
#[must_use = "if the result is not needed, `drop` the handle: a panic then comes out of the scope"]
pub struct ScopedJoinHandle<'scope, T> {
    // Dropped first: the result of a job that has returned is gone before its handle is detached.
    result: ResultSlot<'scope, T>,
    handle: DetachOnDrop,
}

impl<T> ScopedJoinHandle<'_, T> {
    /// Blocks until the job has ended, and returns its result: see [`JoinHandle::join`].
    ///
    /// # Errors
    ///
    /// Those of [`JoinHandle::join`].
    ///
    /// [`JoinHandle::join`]: crate::JoinHandle::join
    pub fn join(self) -> Result<T, JoinError> {
        let Self { result, mut handle } = self;
        match handle.take().join() {
            Ok(()) => Ok(result
                .take()
                .expect("a job that returned has stored its result")),
            Err(error) => {
                // A deadlock is an error of this `join`. The outcome of the job was not observed.
                if !error.is_deadlock() {
                    handle.mark_observed();
                }
                Err(error)
            }
        }
    }

    /// Returns whether the job is finished, even if it was cancelled or could not run: see
    /// [`JoinHandle::is_finished`](crate::JoinHandle::is_finished).
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.handle.get().is_finished()
    }

    /// Cancels the job if it is queued, and returns whether it was cancelled: see
    /// [`JoinHandle::cancel`](crate::JoinHandle::cancel).
    pub fn cancel(&self) -> bool {
        let cancel = self.handle.get().try_cancel();
        if cancel == Cancel::DropClosure {
            self.handle.mark_observed();
        }
        matches!(cancel, Cancel::DropClosure | Cancel::AlreadyCancelled)
    }
}

impl<T> fmt::Debug for ScopedJoinHandle<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ScopedJoinHandle")
            .field(self.handle.get())
            .finish()
    }
}

/// Programs that must not compile, each next to one that does.
///
/// A job may borrow a value that outlives the scope.
///
/// ```
/// let pool = futurepool::ThreadPool::new(1);
/// let mut text = String::new();
/// pool.scope(|scope| drop(scope.submit(|| text.push('a'))));
/// assert_eq!(text, "a");
/// ```
///
/// A job must not borrow a value that the scope outlives.
///
/// ```compile_fail,E0373
/// let pool = futurepool::ThreadPool::new(1);
/// pool.scope(|scope| {
///     let mut text = String::new();
///     drop(scope.submit(|| text.push('a')));
/// });
/// ```
///
/// ```compile_fail,E0597
/// let pool = futurepool::ThreadPool::new(1);
/// pool.scope(|scope| {
///     let text = String::new();
///     let text = &text;
///     drop(scope.submit(move || text.len()));
/// });
/// ```
///
/// Two jobs must not borrow the same value mutably.
///
/// ```compile_fail,E0499
/// let pool = futurepool::ThreadPool::new(1);
/// let mut text = String::new();
/// pool.scope(|scope| {
///     drop(scope.submit(|| text.push('a')));
///     drop(scope.submit(|| text.push('b')));
/// });
/// ```
///
/// A result may borrow a value that outlives the scope, and leave the scope.
///
/// ```
/// let pool = futurepool::ThreadPool::new(1);
/// let text = String::from("a b");
/// let word = pool.scope(|scope| scope.submit(|| text.split(' ').next()).join().unwrap());
/// assert_eq!(word, Some("a"));
/// ```
///
/// A handle must not leave the scope.
///
/// ```compile_fail
/// let pool = futurepool::ThreadPool::new(1);
/// let handle = pool.scope(|scope| scope.submit(|| 7));
/// handle.join();
/// ```
///
/// A reference to the scope must not leave the scope.
///
/// ```compile_fail,E0521
/// let pool = futurepool::ThreadPool::new(1);
/// let mut outside = None;
/// pool.scope(|scope| outside = Some(scope));
/// outside.unwrap().submit(|| 7);
/// ```
///
/// The scope's closure must not use a value that a job borrows mutably.
///
/// ```compile_fail,E0502
/// let pool = futurepool::ThreadPool::new(1);
/// let mut text = String::new();
/// pool.scope(|scope| {
///     drop(scope.submit(|| text.push('a')));
///     println!("{text}");
/// });
/// ```
///
/// A job must be `Send`.
///
/// ```compile_fail,E0277
/// let pool = futurepool::ThreadPool::new(1);
/// let shared = std::rc::Rc::new(7);
/// pool.scope(|scope| drop(scope.submit(|| *shared)));
/// ```
///
/// A job outside a scope must not borrow.
///
/// ```compile_fail,E0597
/// let pool = futurepool::ThreadPool::new(1);
/// let text = String::new();
/// let text = &text;
/// let handle = pool.submit(move || text.len());
/// ```
#[cfg(doctest)]
struct MustNotCompile;
