//! Jobs that borrow.
//!
//! ```text
//!   mod.rs       ThreadPool::scope, Scope, ScopedJoinHandle
//!    │ │  ▲      (stateful/scope.rs: StatefulPool::scope, StatefulScope)
//!    │ │  │ with_scope creates the StatefulScope, and the Scope in it
//!    │ ▼  │
//!    │ erased.rs   hides the lifetime of a job; counts the jobs; waits for them
//!    │ │
//!    │ │ a job failed; no job is pending; help or sleep
//!    ▼ ▼
//!   state.rs     failures, detached handles, helping at the end of the scope
//! ```
//!
//! `Scope::map` creates a map of `combine/map`, which submits its jobs by `Scope::submit_acquired`.
//!
//! A job lives in a packet with two halves. The pool gets one half, as an ordinary `'static` job.
//! The [`ScopedJoinHandle`] has the other half, which receives the result. To check that no borrow
//! dangles, `erased.rs` is enough.

mod erased;
mod state;

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::{Location, resume_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::future::FusedFuture;

use crate::combine::map::{JobKind, Map, MapUnordered, Submitter};
use crate::error::{Closed, JoinError};
use crate::pool::{Acquire, PoolSubmitter, Submission, ThreadPool};
use crate::scope::erased::{ResultSlot, ScopeJobs, with_scope};
use crate::scope::state::{DetachOnDrop, Failure, ScopeData};
pub(crate) use crate::scope::state::{ItemFailures, RefusedJob};
use crate::stateful::StatefulScope;
use crate::task::context::{current_worker, may_be_waited_for};
use crate::task::span::{self, Span};
use crate::task::state::{Cancel, Origin};
use crate::util::sync::Arc;
use crate::util::unwind::drop_catching;

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
    /// On a worker of another pool, the end of the scope can be part of a deadlock: all workers of
    /// this pool wait for that other pool, so that none can reach the jobs that are queued. If no
    /// `join` in the deadlock can get the error, `scope` cancels the queued jobs, and panics as for
    /// any job that did not run.
    ///
    /// `scope` blocks its caller. In async code, call it inside a job:
    /// `pool.submit(move || shared.scope(…)).await`.
    ///
    /// # Panics
    ///
    /// A job *fails* if its outcome was not taken, and the job
    ///
    /// - panicked, or
    /// - did not run, for any reason except a [`cancel`](ScopedJoinHandle::cancel) through its own
    ///   handle. So no work is skipped silently.
    ///
    /// [`ScopedJoinHandle::join`] takes the outcome, and so does a poll that returns `Ready`.
    ///
    /// `scope` resumes a panic of the closure. Otherwise it panics if a job failed: with the
    /// payload of the job's own panic, or with a message if the job did not run. If several jobs
    /// failed, `scope` panics for the one that was submitted first. It reports the other failures
    /// through `tracing`.
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
        self.scope_with_state::<(), _, _>(|scope| f(scope.without_state()))
    }

    /// Runs a closure with a scope whose jobs can use the state `S` of a worker, if the workers own
    /// one.
    #[track_caller]
    pub(crate) fn scope_with_state<'env, S, F, R>(&self, f: F) -> R
    where
        F: for<'scope> FnOnce(&'scope StatefulScope<'scope, 'env, S>) -> R,
    {
        let tracks_jobs = may_be_waited_for() || current_worker().is_some();
        let data = Arc::new(ScopeData::new(tracks_jobs));
        let result = with_scope(self, &data, f);
        data.join_detached();
        let mut failures = data.take_failures();
        match result {
            Err(payload) => {
                failures.for_each(Failure::report);
                resume_unwind(payload);
            }
            Ok(result) => {
                let Some(first) = failures.next() else {
                    return result;
                };
                failures.for_each(Failure::report);
                drop_catching("the destructor of a scope's result", result);
                first.resume()
            }
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
        self.submit_at(closure, Location::caller())
    }

    /// Submits a job as [`submit`](Self::submit) does.
    pub(crate) fn submit_at<F, T>(
        &'scope self,
        closure: F,
        origin: Origin,
    ) -> ScopedJoinHandle<'scope, T>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        let number = self.data.next_number();
        let (erased, result) = self.jobs.erase(closure, number, origin);
        let submission = Submission::plain(origin, span::current());
        let handle = (self.pool).submit_from(move || erased.run(), submission);
        self.data.track(&handle);
        let handle = DetachOnDrop::new(handle, Arc::clone(&self.data), number);
        ScopedJoinHandle { result, handle }
    }

    /// Calls `f` on each item in jobs that may borrow from outside the scope, and yields the
    /// results in input order: see [`ThreadPool::map`].
    ///
    /// Items, function and results need to live as long as the scope only. The map must not leave
    /// the scope. It is **lazy**: a map that is never started runs nothing, and that is no failure.
    ///
    /// What the map itself cancels is no failure either: at its drop, after its timeout, or after
    /// the first error of a [`join`](Map::join). But the scope panics if
    ///
    /// - an item panicked whose result the map has not yielded, or
    /// - the pool refused a job or cancelled one, and the map has not yielded that error.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = futurepool::ThreadPool::new(4);
    /// let text = String::from("spam ham eggs");
    /// let lengths = pool.scope(|scope| scope.map(text.split(' '), str::len).join());
    /// assert_eq!(lengths?, [4, 3, 4]);
    ///
    /// // Each job changes a part of its own.
    /// let mut numbers = [1, 2, 3, 4];
    /// pool.scope(|scope| {
    ///     scope.map(numbers.chunks_mut(2), |part| part.reverse()).detach();
    /// });
    /// assert_eq!(numbers, [2, 1, 4, 3]);
    /// # Ok::<(), futurepool::JoinError>(())
    /// ```
    #[doc(alias = "par_iter")]
    #[track_caller]
    pub fn map<I, F, U>(&'scope self, items: I, f: F) -> Map<'scope, U>
    where
        I: IntoIterator<IntoIter: Send + 'scope>,
        I::Item: Send + 'scope,
        F: Fn(I::Item) -> U + Send + Sync + 'scope,
        U: Send + 'scope,
    {
        Map::new(Submitter::in_scope(self, items.into_iter(), f))
    }

    /// Calls `f` on each item in jobs that may borrow from outside the scope, and yields the
    /// results in completion order: see [`map`](Self::map) and [`ThreadPool::map_unordered`].
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = futurepool::ThreadPool::new(4);
    /// let words = [String::from("spam"), String::from("eggs")];
    /// let longest = pool.scope(|scope| {
    ///     let lengths = scope.map_unordered(&words, |word| word.len());
    ///     lengths.into_iter().map(Result::unwrap).max()
    /// });
    /// assert_eq!(longest, Some(4));
    /// ```
    #[track_caller]
    pub fn map_unordered<I, F, U>(&'scope self, items: I, f: F) -> MapUnordered<'scope, U>
    where
        I: IntoIterator<IntoIter: Send + 'scope>,
        I::Item: Send + 'scope,
        F: Fn(I::Item) -> U + Send + Sync + 'scope,
        U: Send + 'scope,
    {
        MapUnordered::new(Submitter::in_scope(self, items.into_iter(), f))
    }

    /// Starts to acquire a permit of the pool without blocking.
    pub(crate) fn acquire(&self) -> Acquire {
        self.pool.acquire()
    }

    /// Submits a job that has its permit. The closure gets the place where it records the panics of
    /// its items.
    pub(crate) fn submit_acquired<F, T>(
        &'scope self,
        pool: &PoolSubmitter,
        closure: F,
        origin: Origin,
        span: Option<Span>,
        kind: JobKind,
    ) -> Result<ScopedJoinHandle<'scope, T>, (Closed, RefusedJob)>
    where
        F: FnOnce(&ItemFailures) -> T + Send + 'scope,
        T: Send + 'scope,
    {
        let number = match kind {
            JobKind::Items => self.data.next_number(),
            JobKind::Helper => self.data.next_helper_number(),
        };
        let failures = ItemFailures::new(Arc::clone(&self.data), number);
        let (erased, result) = (self.jobs).erase(move || closure(&failures), number, origin);
        match pool.enqueue(move || erased.run(), origin, span) {
            Ok(handle) => {
                self.data.track(&handle);
                let handle = DetachOnDrop::new(handle, Arc::clone(&self.data), number);
                Ok(ScopedJoinHandle { result, handle })
            }
            Err((closed, erased)) => {
                // This records that the job did not run.
                drop_catching("the destructor of a job's closure", erased);
                let refused = RefusedJob::new(Arc::clone(&self.data), number);
                Err((closed, refused))
            }
        }
    }

    /// Records that items of a map will not run, as the failure of a job.
    pub(crate) fn record_unrun(&self, origin: Origin) {
        self.data.record_unrun(self.data.next_number(), origin);
    }
}

impl fmt::Debug for Scope<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope")
            .field("unfinished", &self.jobs.pending())
            .finish_non_exhaustive()
    }
}

/// A handle of a job of a [`Scope`]: sync code joins it, async code awaits it.
///
/// **Dropping it detaches the job**: the job still runs, and the scope waits for it. If the job
/// panics or does not run, `scope` then panics: see [`ThreadPool::scope`].
///
/// The handle is a [`Future`]. A poll that returns `Ready` takes the outcome, as
/// [`join`](Self::join) does.
///
/// # Examples
///
/// ```
/// let pool = futurepool::ThreadPool::new(2);
/// let text = String::from("spam");
/// let lengths = pool.scope(|scope| {
///     let joined = scope.submit(|| text.len());
///     let awaited = scope.submit(|| text.len() + 1);
///     let awaited = futurepool::block_on(async { awaited.await });
///     (joined.join().unwrap(), awaited.unwrap())
/// });
/// assert_eq!(lengths, (4, 5));
/// ```
pub struct ScopedJoinHandle<'scope, T> {
    // Dropped first: the result of a job that has returned is gone before its handle is detached.
    result: ResultSlot<'scope, T>,
    handle: DetachOnDrop,
}

const STORED: &str = "a job that returned has stored its result";

impl<T> ScopedJoinHandle<'_, T> {
    /// Blocks until the job has ended, and returns its result: see [`JoinHandle::join`].
    ///
    /// # Errors
    ///
    /// Those of [`JoinHandle::join`].
    ///
    /// # Panics
    ///
    /// Panics if a poll has taken the outcome.
    ///
    /// [`JoinHandle::join`]: crate::JoinHandle::join
    #[track_caller]
    pub fn join(self) -> Result<T, JoinError> {
        let Self { result, handle } = self;
        handle.join().map(|()| result.take().expect(STORED))
    }

    /// Returns whether the job is finished, even if it was cancelled or could not run: see
    /// [`JoinHandle::is_finished`](crate::JoinHandle::is_finished).
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.handle.get().is_finished()
    }

    /// Cancels the job if it is queued, and returns whether it was cancelled: see
    /// [`JoinHandle::cancel`](crate::JoinHandle::cancel).
    ///
    /// A job that this call cancels does not make the scope panic.
    pub fn cancel(&self) -> bool {
        matches!(
            self.handle.cancel(),
            Cancel::DropClosure | Cancel::AlreadyCancelled
        )
    }

    /// Cancels the job if it is queued. A running one gets no cancel request.
    pub(crate) fn cancel_if_queued(&self) {
        self.handle.cancel_if_queued();
    }

    /// Runs the job here if it is queued in a pool of which this thread is a worker.
    pub(crate) fn help(&self) {
        self.handle.get().help();
    }

    /// Returns where the panics of the job's items are recorded.
    pub(crate) fn item_failures(&self) -> ItemFailures {
        self.handle.item_failures()
    }
}

impl<T> Future for ScopedJoinHandle<'_, T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = ready!(self.handle.poll(context));
        Poll::Ready(outcome.map(|()| self.result.take().expect(STORED)))
    }
}

impl<T> FusedFuture for ScopedJoinHandle<'_, T> {
    fn is_terminated(&self) -> bool {
        self.handle.is_taken()
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
/// The items of a map may borrow a value that outlives the scope, and so may its results.
///
/// ```
/// let pool = futurepool::ThreadPool::new(1);
/// let text = String::from("a b");
/// let words = pool.scope(|scope| scope.map([&text], |text| text.split(' ').next()).join());
/// assert_eq!(words.unwrap(), [Some("a")]);
/// ```
///
/// They must not borrow a value that the scope outlives.
///
/// ```compile_fail,E0597
/// let pool = futurepool::ThreadPool::new(1);
/// pool.scope(|scope| {
///     let text = String::new();
///     scope.map([&text], |text| text.len()).detach();
/// });
/// ```
///
/// Nor must the function of a map.
///
/// ```compile_fail,E0373
/// let pool = futurepool::ThreadPool::new(1);
/// pool.scope(|scope| {
///     let text = String::new();
///     scope.map([1, 2], |n| text.len() + n).detach();
/// });
/// ```
///
/// A map must not leave the scope.
///
/// ```compile_fail
/// let pool = futurepool::ThreadPool::new(1);
/// let map = pool.scope(|scope| scope.map([1, 2], |n| n));
/// map.join();
/// ```
///
/// The scope's closure must not use a value that the items of a map borrow mutably.
///
/// ```compile_fail,E0499
/// let pool = futurepool::ThreadPool::new(1);
/// let mut numbers = [1, 2];
/// pool.scope(|scope| {
///     scope.map(&mut numbers, |n| *n += 1).detach();
///     scope.map(&mut numbers, |n| *n += 1).detach();
/// });
/// ```
///
/// The function of a map must be `Sync`.
///
/// ```compile_fail,E0277
/// let pool = futurepool::ThreadPool::new(1);
/// let cell = std::cell::Cell::new(7);
/// pool.scope(|scope| scope.map([1, 2], |n| cell.set(n)).detach());
/// ```
///
/// A map outside a scope must not borrow what its function uses.
///
/// ```compile_fail,E0597
/// let pool = futurepool::ThreadPool::new(1);
/// let text = String::new();
/// let text = &text;
/// pool.map([1, 2], move |n| text.len() + n).detach();
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
