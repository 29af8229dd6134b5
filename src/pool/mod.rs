//! Where jobs wait and threads run them.
//!
//! ```text
//!   ThreadPool ─► submit ─► queue ─► worker ─► Job::run ─► the handle's waiter
//!      │            │                 ▲  │
//!      │        semaphore             │  └─► idle: which worker searches, which is parked
//!      │                              │
//!      ├─► shutdown ─► registry ◄── spawn: when a worker is notified or spawned
//!      │                              │
//!      ├─► wait_idle: no job left      └─► blocked: when all workers wait
//!      ├─► control: resizing, and the mailboxes that broadcast fills
//!      ├─► expiry: the deadlines of queued jobs
//!      ├─► observer: events of jobs, and timings: histograms by label
//!      └─► builder, global, metrics
//! ```
//!
//! [`PoolInner`] holds the parts: queue, semaphore, idle, blocked, registry, counters, control,
//! idle waiters. None of them knows another one. `submit`, `broadcast`, `spawn`, `worker` and
//! `shutdown` work on a `PoolInner`.
//!
//! # The way of a job
//!
//! 1. `ThreadPool::submit` acquires a permit, if the queue is bounded. `enqueue` in `submit.rs`
//!    makes the task and pushes it to the queue.
//! 2. `notify_work` in `spawn.rs` ensures that a worker takes it.
//! 3. `next_job` in `worker.rs` pops it, and the worker's loop runs it.
//! 4. `TaskCell::run` in `task/cell.rs` calls the closure. `TaskCell::resolve` makes the outcome
//!    visible, and wakes what waits for the handle.
//!
//! A job that will not run ends in `task/cell.rs`, too: by `cancel`, by `refuse`, or by `expire`,
//! which `expiry.rs` calls at the job's deadline.

mod auto_size;
pub(crate) mod blocked;
mod broadcast;
mod builder;
pub(crate) mod control;
mod events;
pub(crate) mod expiry;
#[cfg(feature = "metrics")]
mod exported;
mod global;
mod histogram;
mod idle;
mod inner;
pub(crate) mod job;
pub(crate) mod labels;
mod metrics;
#[cfg(all(test, loom))]
mod model;
pub(crate) mod observer;
mod queue;
mod registry;
mod semaphore;
mod shutdown;
mod spawn;
mod submit;
mod timings;
mod wait_idle;
mod worker;
pub(crate) mod worker_state;

use std::fmt;
use std::panic::{Location, RefUnwindSafe, UnwindSafe};

#[cfg(feature = "console")]
pub(crate) use self::auto_size::AutoSizer;
pub use self::auto_size::{AutoSize, AutoSizeReason};
use self::broadcast::broadcast;
pub use self::builder::{InitializerOutput, ThreadPoolBuilder};
pub use self::events::{JobEvent, JobOutcome};
pub use self::global::{GlobalPool, global, submit};
pub use self::histogram::Histogram;
pub(crate) use self::inner::PoolInner;
#[cfg(feature = "process")]
pub(crate) use self::inner::PoolRef;
pub(crate) use self::inner::PoolRefs;
pub use self::job::{JobBuilder, Priority};
pub(crate) use self::job::{JobOptions, Submission};
pub use self::metrics::{LabelMetrics, Metrics};
pub use self::shutdown::Shutdown;
pub(crate) use self::spawn::TlsDropFlag;
use self::spawn::prestart;
#[cfg(feature = "process")]
pub(crate) use self::submit::AcquireInTime;
pub use self::submit::SubmitAsync;
#[cfg(feature = "process")]
pub(crate) use self::submit::enqueue_with;
pub(crate) use self::submit::{Acquire, PoolSubmitter};
use self::submit::{acquire_blocking, enqueue, enqueue_job};
pub use self::wait_idle::WaitIdle;
#[cfg(feature = "process")]
pub(crate) use self::worker::WorkerHooks;
use crate::error::{JoinError, Refusal, ResizeError, SubmitError};
#[cfg(feature = "task")]
use crate::task::cell::NoClosure;
use crate::task::cell::{JobClosure, TaskCell};
use crate::task::job::Job;
use crate::task::join_handle::JoinHandle;
use crate::task::span::{self, Span};
use crate::task::state::Origin;
use crate::util::sync::{Arc, thread};
use crate::util::unwind::drop_catching;

/// A pool of threads for blocking work.
///
/// [`submit`](Self::submit) queues a job and returns its [`JoinHandle`], which async code awaits
/// and sync code joins. Worker threads start on demand, up to a limit.
///
/// # In which order jobs start
///
/// Jobs that are submitted outside of the pool's workers start in the order of acceptance. So do
/// the jobs that one worker submits, among themselves. Between the two there is no order: a worker
/// prefers the jobs that it has submitted itself. No job waits forever behind later ones, because a
/// worker regularly takes the oldest job of each of the others first.
///
/// That is the order among jobs of normal priority. Jobs can have a higher or lower one: see
/// [`Priority`].
///
/// Jobs that a waiting worker runs are an exception: see [below](#waits-in-a-worker).
///
/// A pool is not `Clone`. Share it as `&ThreadPool` or `Arc<ThreadPool>`.
///
/// # What dropping it does
///
/// Dropping the pool is `shutdown().join()`, like the end of Python's `with` block. The pool
/// accepts no more jobs, queued jobs still run, and the drop **blocks** until the threads have
/// exited.
///
/// The drop does not wait in one of the pool's own workers, or while the thread is panicking.
/// Queued jobs then still run in the background.
///
/// In async code, a drop with unfinished jobs blocks the executor's thread. Call
/// `pool.shutdown().await` first, and the drop returns immediately.
///
/// The drop does not wait either after a [`Shutdown::join_timeout`] that returned an error: the
/// caller has decided not to wait. Running jobs go on until the process exits. The latest
/// `join_timeout` to return counts. An `Ok`, a completed [`join`](Shutdown::join) or a completed
/// `.await` resets that.
///
/// ```
/// use std::time::Duration;
///
/// let pool = futurepool::ThreadPool::new(1);
/// let _endless = pool.submit(|| loop { std::thread::park() });
/// assert!(pool.shutdown().join_timeout(Duration::from_millis(10)).is_err());
/// drop(pool); // returns at once
/// ```
///
/// # Waits in a worker
///
/// Jobs can wait for jobs of their own pool, even in a pool with one worker. The waiting worker can
/// run the queued jobs that it waits for, on its own stack:
///
/// - **A wait for one known job** runs that job at once. These are [`JoinHandle::join`] and the
///   next item of an ordered [`map`](Self::map).
/// - **A wait for all jobs of a set** runs them at once, one after the other. These are [`wait`]
///   with `AllCompleted` and the end of a [`scope`](Self::scope).
/// - **A wait for any of several** runs a job only while no worker of the pool can, and then the
///   one of them that was submitted first. These are [`as_completed`], [`map_unordered`], [`wait`]
///   for the first, and [`block_on`] of any future, a single handle included.
/// - **A wait with a timeout** runs no job.
///
/// A waiting worker never runs an unrelated job. While every worker is blocked, it may wake futures
/// that wait for queued jobs.
///
/// A worker in a wait with a timeout counts as able to run jobs. So a wait for any of several can
/// last until the timeout of another worker ends.
///
/// A job can also wait for jobs of another pool. The worker then runs none of them. If the workers
/// of several pools all wait for jobs that are queued in each other, in a
/// [`join`](JoinHandle::join) or at the end of a [`scope`](Self::scope), and no more workers can be
/// started, that is a deadlock. One `join` in it returns an error that
/// [`is_deadlock`](JoinError::is_deadlock). If all of them are at the ends of scopes, one scope
/// [panics](Self::scope). A queued job with a deadline expires instead. A pool with
/// [`auto_size`](ThreadPoolBuilder::auto_size) reports no deadlock while it allows itself to grow.
///
/// [`as_completed`]: crate::as_completed
/// [`block_on`]: crate::block_on
/// [`map_unordered`]: Self::map_unordered
/// [`wait`]: crate::wait()
///
/// # CPU time
///
/// An idle pool uses no CPU time. A worker that runs out of jobs spins for up to 60 µs before it
/// parks, and so does a thread in [`join`](JoinHandle::join) or [`block_on`](crate::block_on). At
/// most one worker of a pool, and one such thread of the process, spins at a time. A thread spins
/// less often after spins that found nothing.
///
/// # After `fork`
///
/// Dropping a pool of the parent in the child does not hang. Everything else about the parent's
/// pools, the [process-wide pool](global()) included, is undefined in the child. Make a new pool
/// there.
///
/// # Examples
///
/// ```
/// use futurepool::ThreadPool;
///
/// let pool = ThreadPool::new(4);
/// let handle = pool.submit(|| std::fs::read_to_string("Cargo.toml"));
/// let text = handle.join().unwrap()?;
/// assert!(text.contains("futurepool"));
/// # Ok::<(), std::io::Error>(())
/// ```
#[doc(alias = "__enter__")]
#[doc(alias = "ThreadPoolExecutor")]
pub struct ThreadPool {
    inner: Arc<PoolInner>,
    refs: Arc<PoolRefs>,
}

impl ThreadPool {
    /// Creates a pool of at most `max_workers` threads, with the defaults for all other options.
    ///
    /// # Panics
    ///
    /// Panics if `max_workers` is 0.
    ///
    /// # Examples
    ///
    /// See [`submit`](Self::submit) for an example.
    #[must_use]
    #[track_caller]
    pub fn new(max_workers: usize) -> Self {
        // Not `unwrap_or_else`: in a closure the location would be this line.
        match ThreadPoolBuilder::with_max_workers(max_workers).build() {
            Ok(pool) => pool,
            Err(error) => panic!("ThreadPool::new: {error}"),
        }
    }

    /// Returns a builder, which sets the options of a new pool.
    ///
    /// See [`ThreadPoolBuilder`] for an example.
    pub fn builder() -> ThreadPoolBuilder {
        ThreadPoolBuilder::new()
    }

    /// Queues a job and returns its handle.
    ///
    /// On a pool without a [queue capacity](ThreadPoolBuilder::queue_capacity), `submit` never
    /// blocks. On a full bounded pool it **blocks the calling thread** until the queue has room,
    /// after the submitters that already wait. Async code should use
    /// [`submit_async`](Self::submit_async) there.
    ///
    /// In one of the pool's own workers, `submit` never blocks. If the queue is full, it exceeds
    /// the capacity by this job.
    ///
    /// Jobs start in the order of acceptance, but those that workers submit are apart from the
    /// others: see [`ThreadPool`](Self#in-which-order-jobs-start).
    ///
    /// Dropping the handle detaches the job, which still runs.
    ///
    /// A job is a closure, not a future. To wait for a future in it, use
    /// [`block_on`](crate::block_on).
    ///
    /// # Errors
    ///
    /// Errors are returned through the handle. On a pool that is shut down or broken, the handle is
    /// already resolved with that error.
    ///
    /// # Examples
    ///
    /// ```
    /// use futurepool::ThreadPool;
    ///
    /// let pool = ThreadPool::new(4);
    /// let paths = ["Cargo.toml", "Cargo.lock"];
    /// let reads = paths.map(|path| pool.submit(move || std::fs::read(path)));
    /// for (path, read) in paths.iter().zip(reads) {
    ///     println!("{path}: {} bytes", read.join()??.len());
    /// }
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[doc(alias = "spawn")]
    #[doc(alias = "unblock")]
    #[doc(alias = "apply_async")]
    #[doc(alias = "run_in_executor")]
    #[doc(alias = "spawn_blocking")]
    #[doc(alias = "execute")]
    #[track_caller]
    pub fn submit<F, T>(&self, closure: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.submit_from(
            closure,
            Submission::plain(Location::caller(), span::current()),
        )
    }

    pub(crate) fn submit_from<F, T>(&self, closure: F, submission: Submission<'_>) -> JoinHandle<T>
    where
        F: JobClosure<T>,
        T: Send + 'static,
    {
        let origin = submission.origin;
        let options;
        let mut submission = submission;
        if self.inner.limits_wait() {
            // The limit counts from here on.
            options = submission.options.submitted_now(&self.inner);
            submission.options = &options;
        }
        self.acquire_permit(submission.options);
        let queued = enqueue(&self.inner, &self.refs, closure, submission);
        queued.unwrap_or_else(|(closed, closure)| {
            drop_catching("the destructor of a job's closure", closure);
            let refused = TaskCell::<F, T, _>::refused(closed.into(), origin, self.refs.get());
            JoinHandle::new(Arc::new(refused))
        })
    }

    /// Acquires a permit of a bounded queue, as [`submit`](Self::submit) does. At the deadline it
    /// waits no longer: the job then exceeds the capacity until it expires, which is when it is
    /// queued.
    pub(crate) fn acquire_permit(&self, options: &JobOptions) {
        let Some(semaphore) = self.inner.semaphore() else {
            return;
        };
        if self.inner.current_worker().is_some() || !acquire_blocking(semaphore, options.deadline) {
            semaphore.force_acquire();
        }
    }

    /// Acquires a permit of a bounded queue, as [`try_submit`](Self::try_submit) does. Refuses a
    /// job whose deadline has passed.
    pub(crate) fn try_acquire_permit(
        &self,
        options: &JobOptions,
        origin: Origin,
    ) -> Result<(), Refusal> {
        if options.is_late() {
            self.inner.counters().rejected();
            let expired = JoinError::expired_job(options.task).submitted_at(origin);
            return Err(Refusal::Unable(Box::new(expired)));
        }
        let semaphore = self.inner.semaphore();
        if semaphore.is_some_and(|semaphore| !semaphore.try_acquire()) {
            self.inner.counters().rejected();
            let closed = self.inner.closed();
            return Err(closed.map_or(Refusal::Full, Refusal::Closed));
        }
        Ok(())
    }

    #[cfg(any(feature = "process", all(test, not(loom))))]
    pub(crate) fn inner(&self) -> Arc<PoolInner> {
        Arc::clone(&self.inner)
    }

    #[cfg(feature = "process")]
    pub(crate) fn pool_ref(&self) -> PoolRef {
        self.refs.get()
    }

    #[cfg(feature = "process")]
    pub(crate) fn is_forked(&self) -> bool {
        self.inner.is_forked()
    }

    /// Queues a job that was made for any executor, as [`submit`](Self::submit) does.
    pub(crate) fn submit_job(&self, job: Job) {
        let options = JobOptions::PLAIN.submitted_now(&self.inner);
        self.acquire_permit(&options);
        enqueue_job(&self.inner, &self.refs, job, &options);
    }

    /// Starts to acquire a permit without blocking.
    pub(crate) fn acquire(&self) -> Acquire {
        Acquire::new(Arc::clone(&self.inner), Arc::clone(&self.refs))
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
    /// let pool = futurepool::ThreadPool::builder().queue_capacity(1).build()?;
    /// let sum = match pool.try_submit(|| (1..=100).sum::<u32>()) {
    ///     Ok(handle) => handle.join()?,
    ///     Err(refused) if refused.is_full() => refused.into_inner()(), // then this thread does it
    ///     Err(refused) => panic!("{refused}"),
    /// };
    /// assert_eq!(sum, 5050);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[doc(alias = "offer")]
    #[track_caller]
    pub fn try_submit<F, T>(&self, closure: F) -> Result<JoinHandle<T>, SubmitError<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.try_submit_from(closure, Location::caller(), &JobOptions::PLAIN)
    }

    pub(crate) fn try_submit_from<F, T>(
        &self,
        closure: F,
        origin: Origin,
        options: &JobOptions,
    ) -> Result<JoinHandle<T>, SubmitError<F>>
    where
        F: JobClosure<T>,
        T: Send + 'static,
    {
        if let Err(refusal) = self.try_acquire_permit(options, origin) {
            return Err(SubmitError::new(refusal, closure));
        }
        let submission = Submission {
            origin,
            span: span::current(),
            options,
        };
        enqueue(&self.inner, &self.refs, closure, submission)
            .map_err(|(closed, closure)| SubmitError::new(Refusal::Closed(closed), closure))
    }

    /// Queues a job that has its permit.
    #[cfg(feature = "task")]
    pub(crate) fn enqueue_acquired<F, T>(
        &self,
        closure: F,
        submission: Submission<'_>,
    ) -> Result<JoinHandle<T>, crate::error::Closed>
    where
        F: JobClosure<T>,
        T: Send + 'static,
    {
        let queued = enqueue(&self.inner, &self.refs, closure, submission);
        queued.map_err(|(closed, closure)| {
            drop_catching("the destructor of a job", closure);
            closed
        })
    }

    /// Returns the handle of a job that the pool cannot run because of what the caller asks for.
    #[cfg(feature = "task")]
    pub(crate) fn refuse<T: Send + 'static>(
        &self,
        error: JoinError,
        origin: Origin,
    ) -> JoinHandle<T> {
        self.count_rejected();
        let refused = TaskCell::<NoClosure<T>, T, _>::refused(error, origin, self.refs.get());
        JoinHandle::new(Arc::new(refused))
    }

    /// Counts a job that the pool cannot run because of what the caller asks for.
    #[cfg(feature = "task")]
    pub(crate) fn count_rejected(&self) {
        self.inner.counters().rejected();
    }

    /// Queues a job as soon as the queue has room, without blocking the thread.
    ///
    /// `submit_async` takes a closure, not a future. The future that it returns does nothing until
    /// it is polled.
    ///
    /// Waiting submitters get room in the order of their first poll. [`submit`](Self::submit) and
    /// [`try_submit`](Self::try_submit) do not overtake them. Room that was given to a future stays
    /// reserved until the future is polled again or dropped.
    ///
    /// In one of the pool's own workers, under a blocking wait of this crate such as
    /// [`block_on`](crate::block_on), the future exceeds the capacity instead of waiting.
    ///
    /// # Errors
    ///
    /// Returns a [`SubmitError`] with the closure if the pool is shut down or broken, or becomes so
    /// while the future waits, or if the pool's
    /// [`queue_timeout`](ThreadPoolBuilder::queue_timeout) passes before there is room.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future before it is ready submits nothing. Its turn passes to the next
    /// submitter.
    ///
    /// # Panics
    ///
    /// The future panics if it is polled after completion.
    ///
    /// # Examples
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// let pool = futurepool::ThreadPool::builder().queue_capacity(2).build()?;
    /// let handle = pool.submit_async(|| 1 + 1).await.expect("the pool is open");
    /// assert_eq!(handle.await.unwrap(), 2);
    /// # Ok::<(), futurepool::BuildError>(())
    /// # }).unwrap();
    /// ```
    #[track_caller]
    pub fn submit_async<F, T>(&self, closure: F) -> SubmitAsync<F, T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        SubmitAsync::new(
            self.acquire(),
            closure,
            Location::caller(),
            &JobOptions::PLAIN,
        )
    }

    /// Runs `f` once on each worker that there is, and returns the handles of these jobs.
    ///
    /// The handles are in the order in which the workers were started. Workers that are starting
    /// run `f` after their [initializer](ThreadPoolBuilder::initializer). On a pool without workers
    /// the vector is empty: workers start on demand, or by [`prestart`](Self::prestart). Use it to
    /// clear a cache in each thread, or to flush what each thread has gathered.
    ///
    /// Each job runs on its own worker, ahead of the queue: an idle worker runs it at once, another
    /// one after its current job. A worker that waits inside of a job does not run it meanwhile,
    /// with one exception. If the worker waits for this very job, the worker runs it at once,
    /// because no other thread can. A worker that exits first cancels its job. An idle worker does
    /// not exit because of [`keep_alive`](ThreadPoolBuilder::keep_alive) before it has run its job.
    ///
    /// In every other respect these are jobs as those of [`submit`](Self::submit). They count in
    /// the [`metrics`](Self::metrics), and [`cancel_queued`](Self::cancel_queued) and
    /// [`shutdown_now`](Self::shutdown_now) cancel them. A [queue
    /// timeout](ThreadPoolBuilder::queue_timeout) of the pool applies to them. `broadcast` never
    /// blocks: it exceeds a [queue capacity](ThreadPoolBuilder::queue_capacity) if necessary.
    ///
    /// Dropping a handle detaches its job, which still runs.
    ///
    /// # Errors
    ///
    /// Errors are returned through the handles. On a pool that is shut down or broken, there is a
    /// handle for each worker that has not exited, and it is already resolved with that error.
    ///
    /// If two jobs [join](JoinHandle::join) broadcast jobs of each other's workers, one join
    /// returns an error that [`is_deadlock`](JoinError::is_deadlock).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::cell::RefCell;
    ///
    /// thread_local! {
    ///     static CACHE: RefCell<Vec<u8>> = RefCell::default();
    /// }
    ///
    /// let pool = futurepool::ThreadPool::new(2);
    /// pool.prestart(2);
    /// let cleared = pool.broadcast(|| CACHE.with(|cache| cache.borrow_mut().clear()));
    /// assert_eq!(cleared.len(), 2);
    /// for handle in cleared {
    ///     handle.join()?;
    /// }
    /// # Ok::<(), futurepool::JoinError>(())
    /// ```
    #[doc(alias = "spawn_broadcast")]
    #[doc(alias = "for_each_worker")]
    #[track_caller]
    pub fn broadcast<F, T>(&self, f: F) -> Vec<JoinHandle<T>>
    where
        F: Fn() -> T + Send + Sync + 'static,
        T: Send + 'static,
    {
        let f = Arc::new(f);
        let job = move || {
            let f = Arc::clone(&f);
            move || f()
        };
        self.broadcast_jobs(job, Location::caller(), span::current())
    }

    /// Puts a job that `job` makes into the mailbox of each worker.
    pub(crate) fn broadcast_jobs<C, T>(
        &self,
        job: impl Fn() -> C,
        origin: Origin,
        span: Option<Span>,
    ) -> Vec<JoinHandle<T>>
    where
        C: JobClosure<T>,
        T: Send + 'static,
    {
        broadcast(&self.inner, &self.refs, job, origin, span)
    }

    /// Stops accepting jobs immediately. Queued jobs still run.
    ///
    /// The shutdown proceeds whether or not the caller waits for it. To wait, await the returned
    /// [`Shutdown`] or [`join`](Shutdown::join) it; dropping it does not wait.
    ///
    /// `shutdown` can be called any number of times and from any thread, also in jobs. Submitters
    /// that wait for room get an error that `is_shutdown`.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = futurepool::ThreadPool::new(2);
    /// let handle = pool.submit(|| "still runs");
    /// pool.shutdown().join();
    /// assert_eq!(handle.join().unwrap(), "still runs");
    /// assert!(pool.submit(|| "too late").join().unwrap_err().is_shutdown());
    /// ```
    #[doc(alias = "__exit__")]
    pub fn shutdown(&self) -> Shutdown {
        self.inner.shut_down();
        Shutdown::new(Arc::clone(&self.inner), 0)
    }

    /// Stops accepting jobs immediately, and cancels every queued job.
    ///
    /// Queued jobs are cancelled as by [`cancel_queued`](Self::cancel_queued), before
    /// `shutdown_now` returns. Running jobs are not stopped. They see the request through
    /// [`cancel_requested`](crate::cancel_requested). See [`shutdown`](Self::shutdown) for the
    /// rest.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::mpsc::channel;
    ///
    /// use futurepool::{ThreadPool, cancel_requested};
    ///
    /// let pool = ThreadPool::new(1);
    /// let (started, wait_for_start) = channel();
    /// let running = pool.submit(move || {
    ///     started.send(()).unwrap();
    ///     while !cancel_requested() {}
    ///     "ended early"
    /// });
    /// wait_for_start.recv().unwrap(); // the only worker is busy from here on
    /// let queued = pool.submit(|| "never starts");
    /// pool.shutdown_now().join();
    /// assert_eq!(running.join().unwrap(), "ended early");
    /// assert!(queued.join().unwrap_err().is_cancelled());
    /// ```
    #[doc(alias = "cancel_futures")]
    #[doc(alias = "terminate_workers")]
    #[doc(alias = "kill_workers")]
    pub fn shutdown_now(&self) -> Shutdown {
        let cancelled = self.inner.stop();
        Shutdown::new(Arc::clone(&self.inner), cancelled)
    }

    /// Cancels every queued job and returns how many. The pool stays open.
    ///
    /// Each job is cancelled as by [`JoinHandle::cancel`] before `cancel_queued` returns, its
    /// callbacks included. A job that another thread starts or cancels first is not counted.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::mpsc::channel;
    ///
    /// let pool = futurepool::ThreadPool::new(1);
    /// let (started, wait_for_start) = channel();
    /// let (finish, wait_for_finish) = channel::<()>();
    /// let busy = pool.submit(move || {
    ///     started.send(()).unwrap();
    ///     wait_for_finish.recv()
    /// });
    /// wait_for_start.recv().unwrap(); // the only worker is busy from here on
    /// let old = ["spam", "ham"].map(|word| pool.submit(move || word.len()));
    /// assert_eq!(pool.cancel_queued(), 2);
    /// assert!(old.iter().all(|handle| handle.is_cancelled()));
    /// let new = pool.submit(|| "eggs".len());
    /// finish.send(()).unwrap();
    /// assert!(busy.join().is_ok());
    /// assert_eq!(new.join().unwrap(), 4);
    /// ```
    #[doc(alias = "cancel_futures")]
    #[doc(alias = "purge")]
    pub fn cancel_queued(&self) -> usize {
        self.inner.refuse_queued(&JoinError::cancelled())
    }

    /// Cancels every queued job: another name of [`cancel_queued`](Self::cancel_queued).
    #[doc(alias = "cancel_queued")]
    pub fn cancel_pending(&self) -> usize {
        self.cancel_queued()
    }

    /// Waits until no accepted job is unresolved. The pool stays open.
    ///
    /// The returned [`WaitIdle`] is awaited or [joined](WaitIdle::join). It resolves if at some
    /// moment since this call no accepted job was unresolved. Jobs that are submitted after that
    /// moment do not undo it. Submitters that wait for room do not count, and neither do wakers
    /// that still run.
    ///
    /// Every job that was accepted before is then finished, as its handle shows. Any number of
    /// threads and tasks can wait at the same time.
    ///
    /// In one of the pool's own workers the wait ends at once, because a job cannot wait for its
    /// own end. A wait for an idle pool runs no jobs.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future only ends the wait.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicU32, Ordering};
    ///
    /// let pool = futurepool::ThreadPool::new(4);
    /// let sum = Arc::new(AtomicU32::new(0));
    /// for n in 1..=10 {
    ///     let sum = Arc::clone(&sum);
    ///     drop(pool.submit(move || sum.fetch_add(n, Ordering::Relaxed))); // detached, it still runs
    /// }
    /// pool.wait_idle().join();
    /// assert_eq!(sum.load(Ordering::Relaxed), 55);
    /// assert_eq!(pool.submit(|| "still open").join().unwrap(), "still open");
    /// ```
    #[doc(alias = "join")]
    #[doc(alias = "awaitQuiescence")]
    pub fn wait_idle(&self) -> WaitIdle {
        WaitIdle::new(Arc::clone(&self.inner))
    }

    /// Starts as many workers as are missing now to `workers`, up to the maximum.
    ///
    /// By default workers start on demand, so the first jobs wait for the start of a thread and for
    /// the [initializer](ThreadPoolBuilder::initializer). `prestart` does not wait for the workers
    /// to be ready. Workers that it starts exit after
    /// [`keep_alive`](ThreadPoolBuilder::keep_alive), as others do.
    ///
    /// A thread that the system refuses to start counts in
    /// [`spawn_failures`](Metrics::spawn_failures). The call then starts no more. On a pool that is
    /// shut down or broken the call does nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = futurepool::ThreadPool::new(4);
    /// pool.prestart(2);
    /// assert_eq!(pool.metrics().workers, 2);
    /// ```
    #[doc(alias = "prestartAllCoreThreads")]
    #[doc(alias = "prestartCoreThread")]
    pub fn prestart(&self, workers: usize) {
        prestart(&self.inner, workers);
    }

    /// Returns `true` once [`shutdown`](Self::shutdown) or [`shutdown_now`](Self::shutdown_now) was
    /// called.
    ///
    /// Jobs can still be queued or running. A pool that is broken is not shut down by that.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = futurepool::ThreadPool::new(1);
    /// assert!(!pool.is_shutdown());
    /// pool.shutdown();
    /// assert!(pool.is_shutdown());
    /// ```
    #[doc(alias = "isShutdown")]
    #[must_use]
    pub fn is_shutdown(&self) -> bool {
        self.inner.is_shut_down()
    }

    /// Sets the maximum number of workers, while the pool runs.
    ///
    /// [`max_workers`](Self::max_workers) returns the new value at once. If there are more workers
    /// than that, the surplus exits: idle workers at once, the others after the job that they run.
    /// They run the [exit hook](ThreadPoolBuilder::on_exit) and the destructors of their
    /// thread-locals, as every worker that exits. If a higher maximum allows more workers than
    /// there are, the workers that the queued jobs need start before the call returns.
    ///
    /// A worker that waits inside of a job exits after that job. It runs the queued jobs that it
    /// waits for, as before: see [Waits in a worker](Self#waits-in-a-worker). So a lower maximum
    /// does not stop jobs that wait for each other with the waits of this crate. Jobs that wait for
    /// each other by other means, such as channels, need a worker each.
    ///
    /// If several threads set the maximum at the same time, the last one counts. After a
    /// [`shutdown`](Self::shutdown) the call has the same effect on the jobs that are still queued.
    /// On a pool that is broken, or whose workers have exited, it changes nothing but the value.
    ///
    /// # Errors
    ///
    /// Returns a [`ResizeError`](crate::ResizeError) if the pool was built with `auto_size`, and so
    /// finds its number of workers by itself.
    ///
    /// # Panics
    ///
    /// Panics if `max_workers` is 0.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = futurepool::ThreadPool::new(8);
    /// pool.set_max_workers(2)?;
    /// assert_eq!(pool.max_workers(), 2);
    /// # Ok::<(), futurepool::ResizeError>(())
    /// ```
    #[doc(alias = "resize")]
    #[doc(alias = "set_num_threads")]
    #[doc(alias = "setMaximumPoolSize")]
    #[doc(alias = "setCorePoolSize")]
    #[track_caller]
    pub fn set_max_workers(&self, max_workers: usize) -> Result<(), ResizeError> {
        assert!(
            max_workers > 0,
            "set_max_workers: a pool needs at least 1 worker, not 0"
        );
        self.inner.check_resizable()?;
        self.inner.resize(max_workers);
        Ok(())
    }

    /// Returns the maximum number of workers.
    ///
    /// It is the number that the pool currently allows itself, if the pool was built with
    /// [`auto_size`](ThreadPoolBuilder::auto_size).
    ///
    /// See [`ThreadPoolBuilder`] for an example.
    #[doc(alias = "current_num_threads")]
    #[must_use]
    pub fn max_workers(&self) -> usize {
        self.inner.registry().max_workers()
    }

    /// Returns the current metrics of the pool.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = futurepool::ThreadPool::new(2);
    /// let numbers = ["1", "2", "three"].map(|text| pool.submit(move || text.parse::<u8>().unwrap()));
    /// pool.shutdown().join();
    /// let metrics = pool.metrics();
    /// assert_eq!((metrics.submitted, metrics.queued, metrics.workers), (3, 0, 0));
    /// assert_eq!((metrics.completed, metrics.panicked, metrics.cancelled), (2, 1, 0));
    /// drop(numbers);
    /// ```
    #[doc(alias = "stats")]
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.inner.metrics()
    }

    /// Reports the workers and the queue of the pool through the facade of the crate
    /// [`metrics`](https://docs.rs/metrics), to the recorder that the program has installed
    /// (feature `metrics`).
    ///
    /// Call it now and then, for example each time when the exporter is asked. A pool with
    /// [`timings`](ThreadPoolBuilder::timings) reports its jobs by itself, at the end of each.
    ///
    /// | metric | kind | labels | meaning |
    /// |---|---|---|---|
    /// | `futurepool_jobs_total` | counter | `pool`, `label`, `outcome` | jobs that have ended |
    /// | `futurepool_queue_wait_seconds` | histogram | `pool`, `label` | [`Metrics::queue_wait`] |
    /// | `futurepool_run_time_seconds` | histogram | `pool`, `label` | [`Metrics::run_time`] |
    /// | `futurepool_workers` | gauge | `pool` | [`Metrics::workers`] |
    /// | `futurepool_peak_workers` | gauge | `pool` | [`Metrics::peak_workers`] |
    /// | `futurepool_idle_workers` | gauge | `pool` | [`Metrics::idle`] |
    /// | `futurepool_queued_jobs` | gauge | `pool` | [`Metrics::queued`] |
    /// | `futurepool_running_jobs` | gauge | `pool` | [`Metrics::running`] |
    /// | `futurepool_submitted_jobs_total` | counter | `pool` | [`Metrics::submitted`] |
    /// | `futurepool_rejected_jobs_total` | counter | `pool` | [`Metrics::rejected`] |
    /// | `futurepool_spawn_failures_total` | counter | `pool` | [`Metrics::spawn_failures`] |
    ///
    /// The first three are reported without a call, and the others by this function. `pool` is the
    /// [prefix](ThreadPoolBuilder::thread_name_prefix) of the thread names, so give each pool its
    /// own. For a `ProcessPool` it is the `name`. `label` is the label of the job, and empty for a
    /// job without one. `outcome` is `completed`, `panicked`, `cancelled`, `expired`, `failed` or
    /// `not_run`: see [`JobOutcome`](crate::JobOutcome). After the first job of a label has run,
    /// there is a counter for each outcome, at 0 or more.
    ///
    /// Without timings this function reports the jobs, too: not by label, without the histograms,
    /// and with what is `not_run` among the `cancelled`.
    ///
    /// A worker calls the recorder before the result of its job is visible, so the recorder should
    /// be fast. A panic of the recorder is caught, and goes to `tracing`. Jobs that ended before
    /// the recorder was installed are not reported.
    ///
    /// Some exporters turn histograms into quantiles, which cannot be added up. For
    /// `metrics-exporter-prometheus`, set buckets to prevent that.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = futurepool::ThreadPool::builder()
    ///     .thread_name_prefix("hash")
    ///     .timings(true)
    ///     .build()?;
    /// // The program has installed its exporter.
    /// pool.submit(|| 6 * 7).join()?;
    /// pool.report_metrics();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(feature = "metrics")]
    #[doc(alias = "prometheus")]
    #[doc(alias = "exporter")]
    pub fn report_metrics(&self) {
        let pool = &self.inner.config().thread_name_prefix;
        let has_timings = (self.inner.observer()).is_some_and(|it| it.timings().is_some());
        exported::report(pool, &self.metrics(), has_timings);
    }
}

// Its state is changed under locks, which no panic of foreign code leaves half-way through a
// change.
impl UnwindSafe for ThreadPool {}
impl RefUnwindSafe for ThreadPool {}

impl Default for ThreadPool {
    /// Creates a pool with the default options.
    ///
    /// Its maximum number of workers is the number of available processors plus 4, and 32 at most.
    fn default() -> Self {
        Self::builder().build().expect("the options are in order")
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        if self.inner.is_forked() {
            // The child has no copies of the threads, and one of them may have held any lock at the
            // fork.
            return;
        }
        let shutdown = self.shutdown();
        let may_wait = !thread::panicking() && !self.inner.is_given_up();
        if self.inner.current_worker().is_none() && may_wait {
            shutdown.join();
        }
    }
}

impl fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadPool")
            .field("max_workers", &self.max_workers())
            .field("metrics", &self.metrics())
            .finish_non_exhaustive()
    }
}
