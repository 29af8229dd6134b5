//! The process-wide pool.

use std::panic::Location;
use std::sync::OnceLock;

use crate::error::{InitError, SubmitError};
use crate::pool::{Metrics, Submission, SubmitAsync, ThreadPool, ThreadPoolBuilder, WaitIdle};
use crate::scope::Scope;
use crate::task::join_handle::JoinHandle;
use crate::task::span;

/// The type of the process-wide pool: see [`global`].
///
/// The pool is never dropped, and it cannot be shut down.
#[doc(alias = "commonPool")]
#[derive(Debug)]
pub struct GlobalPool {
    pub(crate) pool: ThreadPool,
}

static GLOBAL: OnceLock<GlobalPool> = OnceLock::new();

/// The prefix of the names of threads, unless the builder has another one.
const PREFIX: &str = "global";

/// Returns the process-wide pool, which is created at the first call.
///
/// The pool has the default size, unless [`GlobalPool::init`] was called before. It cannot be shut
/// down, is never dropped, and captures no runtime. **Jobs that are unfinished at the end of `main`
/// are lost**: wait for your handles.
///
/// # Examples
///
/// ```
/// let handle = futurepool::global().submit(|| 2 + 2);
/// assert_eq!(handle.join().unwrap(), 4);
/// ```
#[doc(alias = "commonPool")]
pub fn global() -> &'static GlobalPool {
    GLOBAL.get_or_init(|| {
        let builder = ThreadPool::builder().thread_name_prefix(PREFIX);
        let pool = builder.no_tokio().build();
        GlobalPool {
            pool: pool.expect("the options are in order"),
        }
    })
}

/// Queues a job on the [process-wide pool](global) and returns its handle.
///
/// Dropping the handle detaches the job, which still runs unless `main` ends before.
///
/// # Examples
///
/// ```
/// # futures::executor::block_on(async {
/// let sum = futurepool::submit(|| (1..=100).sum::<u32>()).await;
/// assert_eq!(sum.unwrap(), 5050);
/// # });
/// ```
#[doc(alias = "to_thread")]
#[doc(alias = "spawn_blocking")]
#[doc(alias = "unblock")]
#[track_caller]
pub fn submit<F, T>(closure: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    global().submit(closure)
}

impl GlobalPool {
    /// Creates the process-wide pool with the options of `builder`, before its first use.
    ///
    /// Call it at the start of `main`. A library should not call it.
    ///
    /// The pool captures the runtime that was given with
    /// `ThreadPoolBuilder::tokio_handle`, and no other. The default prefix of its
    /// threads' names is `global`.
    ///
    /// # Errors
    ///
    /// Returns an [`InitError`] if the pool exists already, or if an option is invalid.
    ///
    /// # Examples
    ///
    /// ```
    /// use futurepool::{GlobalPool, ThreadPool};
    ///
    /// let pool = GlobalPool::init(ThreadPool::builder().max_workers(2))?;
    /// assert_eq!(pool.max_workers(), 2);
    /// assert_eq!(futurepool::submit(|| 2 + 2).join()?, 4);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[doc(alias = "build_global")]
    pub fn init(builder: ThreadPoolBuilder) -> Result<&'static Self, InitError> {
        if GLOBAL.get().is_some() {
            return Err(InitError::already_initialized());
        }
        let builder = builder.default_prefix(PREFIX).ignore_current_runtime();
        let pool = builder.build()?;
        match GLOBAL.set(Self { pool }) {
            Ok(()) => Ok(global()),
            // Another thread was faster. The pool has no threads yet, so its drop does not block.
            Err(_) => Err(InitError::already_initialized()),
        }
    }

    /// Queues a job and returns its handle: see [`ThreadPool::submit`].
    ///
    /// The queue is unbounded, so this never blocks, unless [`init`](Self::init) set a
    /// [capacity](ThreadPoolBuilder::queue_capacity).
    #[track_caller]
    pub fn submit<F, T>(&self, closure: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let submission = Submission::plain(Location::caller(), span::current());
        self.pool.submit_from(closure, submission)
    }

    /// Queues a job if the queue has room now: see [`ThreadPool::try_submit`].
    ///
    /// # Errors
    ///
    /// Returns a [`SubmitError`] with the closure if the queue is full, or if the pool is broken.
    /// That cannot happen unless [`init`](Self::init) set a capacity or an initializer.
    ///
    /// # Examples
    ///
    /// ```
    /// let handle = futurepool::global().try_submit(|| 2 + 2).expect("the queue is unbounded");
    /// assert_eq!(handle.join().unwrap(), 4);
    /// ```
    #[track_caller]
    pub fn try_submit<F, T>(&self, closure: F) -> Result<JoinHandle<T>, SubmitError<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.pool.try_submit(closure)
    }

    /// Queues a job as soon as the queue has room, without blocking the thread: see
    /// [`ThreadPool::submit_async`].
    #[track_caller]
    pub fn submit_async<F, T>(&self, closure: F) -> SubmitAsync<F, T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.pool.submit_async(closure)
    }

    /// Runs `f` once on each worker that there is: see [`ThreadPool::broadcast`].
    #[track_caller]
    pub fn broadcast<F, T>(&self, f: F) -> Vec<JoinHandle<T>>
    where
        F: Fn() -> T + Send + Sync + 'static,
        T: Send + 'static,
    {
        self.pool.broadcast(f)
    }

    /// Waits until every accepted job is resolved: see [`ThreadPool::wait_idle`].
    ///
    /// At the end of `main` this keeps detached jobs and maps from being lost.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = futurepool::global();
    /// pool.map(["spam", "ham"], |word| println!("{word}")).detach();
    /// pool.wait_idle().join();
    /// ```
    pub fn wait_idle(&self) -> WaitIdle {
        self.pool.wait_idle()
    }

    /// Returns the maximum number of workers.
    #[doc(alias = "current_num_threads")]
    #[must_use]
    pub fn max_workers(&self) -> usize {
        self.pool.max_workers()
    }

    /// Runs a closure whose jobs may borrow local variables, and blocks until all of these jobs
    /// have ended: see [`ThreadPool::scope`].
    ///
    /// # Panics
    ///
    /// Those of [`ThreadPool::scope`].
    ///
    /// # Examples
    ///
    /// ```
    /// let words = [String::from("spam"), String::from("ham")];
    /// let lengths = futurepool::global().scope(|scope| scope.map(&words, |word| word.len()).join());
    /// assert_eq!(lengths.unwrap(), [4, 3]);
    /// ```
    #[track_caller]
    pub fn scope<'env, F, R>(&self, f: F) -> R
    where
        F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> R,
    {
        self.pool.scope(f)
    }

    /// Returns the current metrics of the pool: see [`ThreadPool::metrics`].
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.pool.metrics()
    }

    /// Reports the workers and the queue of the pool through the facade of the crate `metrics`: see
    /// [`ThreadPool::report_metrics`].
    #[cfg(feature = "metrics")]
    pub fn report_metrics(&self) {
        self.pool.report_metrics();
    }
}
