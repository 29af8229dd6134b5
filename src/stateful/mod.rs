//! A pool whose workers each own a state that the jobs use.
//!
//! ```text
//!   StatefulPool ─► ThreadPool ─► worker: makes its state, then runs jobs (pool/worker_state.rs)
//!        │                                                  ▲
//!        ├─► StatefulJob: a closure that gets the state ────┤
//!        └─► StatefulScope ─► Scope: jobs that borrow, too ─┘
//! ```

mod builder;
mod job;
mod map;
mod scope;
mod submit;

use std::error::Error;
use std::fmt;
use std::marker::PhantomData;
use std::panic::{Location, RefUnwindSafe, UnwindSafe};

pub use self::builder::StatefulPoolBuilder;
use self::job::StatefulJob;
pub use self::scope::StatefulScope;
pub use self::submit::{StatefulJobBuilder, StatefulSubmitAsync};
use crate::error::{ResizeError, SubmitError};
use crate::pool::{JobOptions, Metrics, Shutdown, Submission, SubmitAsync, ThreadPool, WaitIdle};
use crate::task::join_handle::JoinHandle;
use crate::task::span;
use crate::util::sync::Arc;

/// A pool of threads that each own a state `S`, which every job gets as `&mut S`.
///
/// The state is a database connection, a parser, a model, a scratch buffer: something that is
/// costly to make, and that a job needs for itself. Each worker makes its own, before its first
/// job. So `S` need not be `Send`: a worker makes, uses and drops its state on its own thread.
///
/// Everything else is as on a [`ThreadPool`]: handles, cancelling, bounded queues, maps,
/// [scopes](Self::scope), shutdown and metrics. The differences are below.
///
/// **Dropping the pool** blocks until the queued jobs have run and the threads have exited, as
/// dropping a [`ThreadPool`](ThreadPool#what-dropping-it-does) does. The states are dropped then,
/// too.
///
/// # The life of a state
///
/// 1. A worker starts on demand. It runs the [initializer](StatefulPoolBuilder::initializer) if
///    there is one, and then makes its state.
/// 2. A job gets the state for as long as it runs. The next job of that worker finds what the last
///    one has left there.
/// 3. A job that **panics** costs the state, which may be half changed. The worker drops the state
///    before the panic becomes visible, and makes another one before its next job.
/// 4. The worker drops the state on its thread after the worker's last job: at the end of the pool,
///    or when an idle worker exits ([`keep_alive`](StatefulPoolBuilder::keep_alive)). Then
///    [`on_exit`](StatefulPoolBuilder::on_exit) runs.
///
/// Making a state that fails or panics **breaks the pool** with that cause, as an
/// [initializer](StatefulPoolBuilder::initializer) does. The same holds when a lost state is made
/// again. A connection that may fail while the program runs is better repaired by the jobs: let `S`
/// be an `Option`, or a type that connects again.
///
/// A panic in the destructor of a state is reported through `tracing` and affects nothing else.
///
/// A worker counts until it has dropped its state. So there are never more states than workers are
/// allowed, and a [shutdown](Self::shutdown) is complete only when all states are dropped. While a
/// destructor blocks, the pool starts another worker for a queued job if the maximum allows one.
/// After [`set_max_workers`](Self::set_max_workers) with a lower maximum, the surplus states are
/// dropped as their workers exit.
///
/// # Waits in a worker
///
/// A worker that waits in a job runs no other job, because the waiting job has the state. So waits
/// that a [`ThreadPool`](ThreadPool#waits-in-a-worker) allows can be impossible here. With one
/// worker, a job cannot wait for a job that it submits to its own pool.
///
/// A [`join`](JoinHandle::join) for a queued job that no worker can reach returns an error that
/// [`is_deadlock`](crate::JoinError::is_deadlock): all workers of the pool wait for each other or
/// for queued jobs, and no more can be started. Of several workers that wait like this, one gets
/// the error and can go on, and then the others can.
///
/// In [`block_on`](crate::block_on), and so in [`wait`](crate::wait()), [`as_completed`] and maps,
/// the handle of such a job resolves to that error, too. ([`wait`](crate::wait()) returns the
/// handle in `not_done`.) A future there that also waits for something else gets the error although
/// that would have come.
///
/// The end of a [`scope`](Self::scope) has no handle that could get the error. If no worker can
/// reach its queued jobs, and no `join` is part of that deadlock, the scope [cancels them and
/// panics](Self::scope).
///
/// The waits can lead through the queue of a [`ThreadPool`](crate::ThreadPool#waits-in-a-worker)
/// whose workers all wait in a `join` or at the end of a `scope`. A wait with a timeout never ends
/// with that error.
///
/// [`as_completed`]: crate::as_completed
///
/// # Examples
///
/// ```
/// use futurepool::StatefulPool;
///
/// /// Stands for a connection to a database.
/// struct Connection {
///     path: &'static str,
///     queries: u32,
/// }
///
/// impl Connection {
///     fn open(path: &'static str) -> std::io::Result<Self> {
///         Ok(Self { path, queries: 0 })
///     }
///
///     fn count(&mut self, table: &str) -> String {
///         self.queries += 1;
///         format!("{}/{table}: query {}", self.path, self.queries)
///     }
/// }
///
/// let pool = StatefulPool::builder(|| Connection::open("shop.db")).max_workers(1).build()?;
/// let orders = pool.submit(|connection| connection.count("orders"));
/// let items = pool.submit(|connection| connection.count("items"));
/// assert_eq!(orders.join()?, "shop.db/orders: query 1");
/// assert_eq!(items.join()?, "shop.db/items: query 2"); // the same connection
/// # Ok::<(), std::io::Error>(())
/// ```
#[doc(alias = "r2d2")]
#[doc(alias = "deadpool")]
#[doc(alias = "connection pool")]
#[doc(alias = "thread_local")]
#[doc(alias = "threading.local")]
#[doc(alias = "initializer")]
#[doc(alias = "worker state")]
pub struct StatefulPool<S> {
    threads: ThreadPool,
    state: PhantomData<fn() -> S>,
}

impl<S: 'static> StatefulPool<S> {
    /// Returns a builder of a pool whose workers make their states with `make`, which can fail.
    ///
    /// For a `make` that cannot fail, use [`builder_with`](Self::builder_with).
    ///
    /// Each worker calls `make` on its own thread: see [the life of a
    /// state](Self#the-life-of-a-state). A `make` that fails or panics breaks the pool.
    ///
    /// `make` must not wait for jobs of its own pool: a [`join`](JoinHandle::join) there returns an
    /// error that [`is_deadlock`](crate::JoinError::is_deadlock).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::fs::File;
    /// use std::io::{Read, Seek};
    ///
    /// use futurepool::StatefulPool;
    ///
    /// let pool = StatefulPool::builder(|| File::open("Cargo.toml")).max_workers(2).build()?;
    /// let text = pool.submit(|file: &mut File| {
    ///     let mut text = String::new();
    ///     file.rewind()?; // the last job has read it to the end
    ///     file.read_to_string(&mut text)?;
    ///     Ok::<_, std::io::Error>(text)
    /// });
    /// assert!(text.join()??.contains("futurepool"));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// A state that cannot be made:
    ///
    /// ```
    /// use futurepool::StatefulPool;
    ///
    /// let pool = StatefulPool::builder(|| Err::<(), _>("no database")).build()?;
    /// let error = pool.submit(|_| ()).join().unwrap_err();
    /// assert!(error.is_broken());
    /// assert_eq!(error.to_string(), "the pool is broken: no database");
    /// # Ok::<(), futurepool::BuildError>(())
    /// ```
    pub fn builder<M, E>(make: M) -> StatefulPoolBuilder<S>
    where
        M: Fn() -> Result<S, E> + Send + Sync + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        StatefulPoolBuilder::new(make)
    }

    /// Returns a builder of a pool whose workers make their states with `make`, which cannot fail.
    ///
    /// In every other way this function behaves like [`builder`](Self::builder).
    ///
    /// # Examples
    ///
    /// ```
    /// use futurepool::StatefulPool;
    ///
    /// let pool = StatefulPool::builder_with(Vec::<u8>::new).max_workers(2).build()?;
    /// let length = pool.submit(|buffer| {
    ///     buffer.clear(); // what the last job has left
    ///     buffer.extend(b"hello");
    ///     buffer.len()
    /// });
    /// assert_eq!(length.join()?, 5);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn builder_with<M>(make: M) -> StatefulPoolBuilder<S>
    where
        M: Fn() -> S + Send + Sync + 'static,
    {
        StatefulPoolBuilder::new(move || Ok::<_, std::convert::Infallible>(make()))
    }

    /// Queues a job, which gets the state of its worker, and returns the job's handle.
    ///
    /// Waits for room in a bounded queue as [`ThreadPool::submit`] does. Dropping the handle
    /// detaches the job, which still runs.
    ///
    /// A result cannot borrow from the state: return an owned value. A closure that is in a
    /// variable needs the type of its parameter: `|connection: &mut Connection| …`.
    ///
    /// # Errors
    ///
    /// Errors are returned through the handle: see [`ThreadPool::submit`].
    ///
    /// # Examples
    ///
    /// See [`StatefulPool`] for an example.
    #[doc(alias = "execute")]
    #[doc(alias = "interact")]
    #[track_caller]
    pub fn submit<F, T>(&self, closure: F) -> JoinHandle<T>
    where
        F: FnOnce(&mut S) -> T + Send + 'static,
        T: Send + 'static,
    {
        let submission = Submission::plain(Location::caller(), span::current());
        self.threads
            .submit_from(StatefulJob::new(closure), submission)
    }

    /// Queues a job if the queue has room now. Never blocks.
    ///
    /// # Errors
    ///
    /// Returns a [`SubmitError`] with the closure if the queue is full, or if the pool is shut down
    /// or broken.
    ///
    /// # Examples
    ///
    /// ```
    /// use futurepool::StatefulPool;
    ///
    /// let pool = StatefulPool::builder_with(|| 7).queue_capacity(1).build()?;
    /// match pool.try_submit(|seven: &mut i32| *seven) {
    ///     Ok(handle) => assert_eq!(handle.join()?, 7),
    ///     Err(refused) if refused.is_full() => println!("try again later"),
    ///     Err(refused) => panic!("{refused}"),
    /// }
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[track_caller]
    pub fn try_submit<F, T>(&self, closure: F) -> Result<JoinHandle<T>, SubmitError<F>>
    where
        F: FnOnce(&mut S) -> T + Send + 'static,
        T: Send + 'static,
    {
        let job = StatefulJob::new(closure);
        let submitted = (self.threads).try_submit_from(job, Location::caller(), &JobOptions::PLAIN);
        submitted.map_err(|refused| refused.map_job(StatefulJob::into_closure))
    }

    /// Queues a job as soon as the queue has room, without blocking the thread.
    ///
    /// The future does nothing until it is polled. It waits for room as that of
    /// [`ThreadPool::submit_async`] does.
    ///
    /// # Errors
    ///
    /// Returns a [`SubmitError`] with the closure if the pool is shut down or broken, or becomes so
    /// while the future waits. The same happens if the pool's
    /// [`queue_timeout`](StatefulPoolBuilder::queue_timeout) passes before there is room.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future before it is ready submits nothing.
    ///
    /// # Panics
    ///
    /// The future panics if it is polled after completion.
    ///
    /// # Examples
    ///
    /// ```
    /// # futurepool::block_on(async {
    /// let pool = futurepool::StatefulPool::builder_with(|| 7).queue_capacity(2).build()?;
    /// let handle = pool.submit_async(|seven| *seven * 6).await.expect("the pool is open");
    /// assert_eq!(handle.await.unwrap(), 42);
    /// # Ok::<(), futurepool::BuildError>(())
    /// # }).unwrap();
    /// ```
    #[track_caller]
    pub fn submit_async<F, T>(&self, closure: F) -> StatefulSubmitAsync<S, F, T>
    where
        F: FnOnce(&mut S) -> T + Send + 'static,
        T: Send + 'static,
    {
        let (job, origin) = (StatefulJob::new(closure), Location::caller());
        let acquire = self.threads.acquire();
        StatefulSubmitAsync::new(SubmitAsync::new(acquire, job, origin, &JobOptions::PLAIN))
    }

    /// Runs `f` once on each worker that there is, with the worker's state, ahead of the queue.
    ///
    /// Returns a handle for each worker: see [`ThreadPool::broadcast`]. It suits what each state
    /// needs once, such as a reload of settings. A job that waits for the handle of its own worker
    /// gets an error that [`is_deadlock`](crate::JoinError::is_deadlock), because it has the state.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = futurepool::StatefulPool::builder_with(|| vec![1, 2, 3]).max_workers(2).build()?;
    /// pool.prestart(2);
    /// for cleared in pool.broadcast(|buffer| buffer.clear()) {
    ///     cleared.join()?;
    /// }
    /// assert!(pool.submit(|buffer| buffer.is_empty()).join()?);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[doc(alias = "for_each_worker")]
    #[track_caller]
    pub fn broadcast<F, T>(&self, f: F) -> Vec<JoinHandle<T>>
    where
        F: Fn(&mut S) -> T + Send + Sync + 'static,
        T: Send + 'static,
    {
        let f = Arc::new(f);
        let job = move || {
            let f = Arc::clone(&f);
            StatefulJob::new(move |state: &mut S| f(state))
        };
        self.threads
            .broadcast_jobs(job, Location::caller(), span::current())
    }

    /// Changes the maximum number of workers, and so of states, while the pool runs.
    ///
    /// Surplus workers exit after their job, and drop their states: see
    /// [`ThreadPool::set_max_workers`].
    ///
    /// # Errors
    ///
    /// Returns a [`ResizeError`] if the pool finds its number of workers by itself.
    ///
    /// # Panics
    ///
    /// Panics if `max_workers` is 0.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = futurepool::StatefulPool::builder_with(|| 7).max_workers(8).build()?;
    /// pool.set_max_workers(2)?;
    /// assert_eq!(pool.max_workers(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "resize")]
    #[track_caller]
    pub fn set_max_workers(&self, max_workers: usize) -> Result<(), ResizeError> {
        self.threads.set_max_workers(max_workers)
    }

    /// Stops accepting jobs immediately. Queued jobs still run: see [`ThreadPool::shutdown`].
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = futurepool::StatefulPool::builder_with(|| 7).build()?;
    /// let seven = pool.submit(|seven| *seven);
    /// pool.shutdown().join(); // the states are dropped, too
    /// assert_eq!(seven.join()?, 7);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn shutdown(&self) -> Shutdown {
        self.threads.shutdown()
    }

    /// Stops accepting jobs immediately, and cancels every queued job: see
    /// [`ThreadPool::shutdown_now`].
    #[doc(alias = "cancel_futures")]
    pub fn shutdown_now(&self) -> Shutdown {
        self.threads.shutdown_now()
    }

    /// Cancels every queued job and returns how many: see [`ThreadPool::cancel_queued`].
    #[doc(alias = "purge")]
    pub fn cancel_queued(&self) -> usize {
        self.threads.cancel_queued()
    }

    /// Cancels every queued job: another name of [`cancel_queued`](Self::cancel_queued).
    #[doc(alias = "cancel_queued")]
    pub fn cancel_pending(&self) -> usize {
        self.cancel_queued()
    }

    /// Waits until no accepted job is unresolved: see [`ThreadPool::wait_idle`].
    pub fn wait_idle(&self) -> WaitIdle {
        self.threads.wait_idle()
    }

    /// Starts as many workers as are missing now to `workers`, up to the maximum.
    ///
    /// Each of them makes its state, so that the first jobs need not wait for that: see
    /// [`ThreadPool::prestart`].
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = futurepool::StatefulPool::builder_with(|| 7).max_workers(4).build()?;
    /// pool.prestart(2);
    /// assert_eq!(pool.metrics().workers, 2);
    /// # Ok::<(), futurepool::BuildError>(())
    /// ```
    #[doc(alias = "min_idle")]
    pub fn prestart(&self, workers: usize) {
        self.threads.prestart(workers);
    }

    /// Returns `true` once [`shutdown`](Self::shutdown) or [`shutdown_now`](Self::shutdown_now) was
    /// called.
    #[must_use]
    pub fn is_shutdown(&self) -> bool {
        self.threads.is_shutdown()
    }

    /// Returns the maximum number of workers, and so of states.
    #[must_use]
    pub fn max_workers(&self) -> usize {
        self.threads.max_workers()
    }

    /// Returns the current metrics of the pool: see [`ThreadPool::metrics`].
    #[doc(alias = "stats")]
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.threads.metrics()
    }

    /// Reports the workers and the queue of the pool through the facade of the crate `metrics`: see
    /// [`ThreadPool::report_metrics`].
    #[cfg(feature = "metrics")]
    pub fn report_metrics(&self) {
        self.threads.report_metrics();
    }
}

// As for a `ThreadPool`. The states are not in it.
impl<S> UnwindSafe for StatefulPool<S> {}
impl<S> RefUnwindSafe for StatefulPool<S> {}

impl<S> fmt::Debug for StatefulPool<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatefulPool")
            .field("max_workers", &self.threads.max_workers())
            .field("metrics", &self.threads.metrics())
            .finish_non_exhaustive()
    }
}
