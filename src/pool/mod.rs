//! Where jobs wait and threads run them.
//!
//! ```text
//!  submit ──► queue ──► worker ──► Job::run ──► the handle's waiter
//!    │          ▲          │
//!    │ announce │ room     │ idle: who sleeps, who is called
//!    └──────────┴──────────┘ roster: how many there are, who waits for their end
//! ```
//!
//! Each file uses only those after it: `global`, `builder`, this one, `submit`, `shutdown`, `worker`, `shared`;
//! and then `queue`, `room`, `idle`, `dozing`, `roster`, `metrics` and `config`, of which each is for itself (but a queue
//! has its room). `dozing` is for jobs that wait for jobs.

pub(crate) mod blocked;
mod builder;
mod config;
mod global;
mod idle;
mod inner;
mod metrics;
#[cfg(all(test, loom))]
mod model;
mod queue;
mod registry;
mod semaphore;
mod shutdown;
mod submit;
mod worker;

use std::fmt;
use std::panic::{Location, RefUnwindSafe, UnwindSafe};

pub use self::builder::ThreadPoolBuilder;
pub use self::config::InitializerOutput;
pub use self::global::{GlobalPool, global, submit};
use self::inner::{Homes, Shared};
pub use self::metrics::Metrics;
use self::queue::Verdict;
pub use self::shutdown::Shutdown;
pub(crate) use self::submit::Line;
pub use self::submit::SubmitAsync;
use self::submit::{enqueue, enqueue_job, wait_for_place};
use crate::error::{Closed, Refusal, SubmitError};
use crate::task::cell::Cell;
use crate::task::job::Job;
use crate::task::join_handle::JoinHandle;
use crate::task::span::{self, Span};
use crate::util::sync::{Arc, thread};

/// A pool of threads for work that blocks.
///
/// A job goes in by [`submit`](Self::submit), and comes out through a [`JoinHandle`] that async code awaits and sync
/// code joins. Threads start when they are needed, up to a limit, and jobs start in the order in which they were
/// submitted.
///
/// It is not `Clone`: share it as `&ThreadPool` or `Arc<ThreadPool>`.
///
/// # What dropping it does
///
/// As the end of Python's `with` block: no more jobs are accepted, those that are queued still run, and the drop
/// **blocks** until the threads are gone. It does not wait in one of the pool's own workers, nor while the thread is
/// panicking; the queue still runs then, in the background.
///
/// In async code a drop with unfinished jobs blocks the executor's thread. `pool.shutdown().await` before it makes it
/// instant. A shutdown that was given up after a time limit does not: the drop waits for what still runs, as long as that
/// takes. A program that will not wait for a job that never ends has to end the process, or [forget](std::mem::forget) the
/// pool.
///
/// # Processor time
///
/// An idle pool uses none. A worker that has just run out of jobs looks for the next one before it sleeps, for up to
/// 60 µs, and so does a thread that [`join`](JoinHandle::join)s or is in [`block_on`](crate::block_on): one worker of a pool and
/// one such thread of the process at a time, and the more seldom the longer it was in vain.
///
/// # After `fork`
///
/// A process that is made by copying another one has that one's pools, but none of their threads. There a pool may be
/// dropped, which does nothing; jobs given to it, and waits for jobs it had, may never end. Make a new one there. (The
/// same goes for the process-wide pool, of which there is no new one.) That works if no thread of the first process was about
/// to start or to end at that moment: otherwise the standard library starts no threads in the new one. The process that was
/// copied goes on as before.
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
    shared: Arc<Shared>,
    homes: Arc<Homes>,
}

impl ThreadPool {
    /// A pool of at most `max_workers` threads, with the other options at their defaults.
    ///
    /// # Panics
    ///
    /// If `max_workers` is 0.
    ///
    /// # Examples
    ///
    /// See [`submit`](Self::submit) for an example.
    #[must_use]
    #[track_caller]
    pub fn new(max_workers: usize) -> Self {
        let pool = Self::builder().max_workers(max_workers).build();
        pool.unwrap_or_else(|error| panic!("ThreadPool::new: {error}"))
    }

    /// The options of a pool, to be set one by one.
    ///
    /// See [`ThreadPoolBuilder`] for an example.
    pub fn builder() -> ThreadPoolBuilder {
        ThreadPoolBuilder::new()
    }

    /// Queues a job, and gives the handle that its result comes through.
    ///
    /// On a pool without a [capacity](ThreadPoolBuilder::queue_capacity) it never blocks. With one, and when that is
    /// full, it **blocks this thread** until there is room, after those who wait already; but never in one of this
    /// pool's own workers: there it goes over the capacity by that job. In async code use
    /// [`submit_async`](Self::submit_async) then.
    ///
    /// # Errors
    ///
    /// They come through the handle. On a pool that is shut down or broken it is resolved already, with that error.
    ///
    /// # Examples
    ///
    /// ```
    /// use futurepool::ThreadPool;
    ///
    /// let pool = ThreadPool::new(4);
    /// let paths = ["Cargo.toml", "README.md"];
    /// let reads = paths.map(|path| pool.submit(move || std::fs::read(path)));
    /// for (path, read) in paths.iter().zip(reads) {
    ///     println!("{path}: {} bytes", read.join()??.len());
    /// }
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[doc(alias = "run_in_executor")]
    #[doc(alias = "spawn_blocking")]
    #[track_caller]
    pub fn submit<F, T>(&self, closure: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.submit_from(closure, Location::caller(), span::current())
    }

    pub(crate) fn submit_from<F, T>(
        &self,
        closure: F,
        origin: &'static Location<'static>,
        span: Option<Span>,
    ) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.take_place();
        enqueue(&self.shared, &self.homes, closure, origin, span).unwrap_or_else(
            |(closed, closure)| {
                Shared::drop_closure(closure);
                let home = self.homes.mine();
                let refused = Cell::<F, T, _>::failed(closed.into(), home);
                JoinHandle::new(Arc::new(refused))
            },
        )
    }

    /// Takes a place in the queue, if they are counted, as [`submit`](Self::submit) does.
    fn take_place(&self) {
        let shared = &self.shared;
        if let Some(room) = &shared.queue.room {
            match shared.own_badge() {
                Some(_) => room.take_anyway(),
                None => wait_for_place(room),
            }
        }
    }

    /// As [`submit`](Self::submit), for a job that was made elsewhere.
    pub(crate) fn submit_job(&self, job: Job) {
        self.take_place();
        enqueue_job(&self.shared, &self.homes, job);
    }

    /// Where one waits for a place without blocking.
    pub(crate) fn line(&self) -> Line {
        Line::new(Arc::clone(&self.shared), Arc::clone(&self.homes))
    }

    /// Queues a job if there is room for it now. Never blocks.
    ///
    /// # Errors
    ///
    /// A [`SubmitError`] that says why the job was not accepted, and gives the closure back: the queue is full, the
    /// pool is shut down, or it is broken.
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
    #[track_caller]
    pub fn try_submit<F, T>(&self, closure: F) -> Result<JoinHandle<T>, SubmitError<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let origin = Location::caller();
        let shared = &self.shared;
        if shared
            .queue
            .room
            .as_ref()
            .is_some_and(|room| !room.try_take())
        {
            shared.counters.rejected();
            let why = shared.queue.closed().map_or(Refusal::Full, Refusal::Closed);
            return Err(SubmitError::new(why, closure));
        }
        enqueue(shared, &self.homes, closure, origin, span::current())
            .map_err(|(closed, closure)| SubmitError::new(Refusal::Closed(closed), closure))
    }

    /// Queues a job as soon as there is room for it, without blocking a thread. It takes a closure, not a future.
    ///
    /// The future it gives does nothing until it is polled. Who polled first is served first: places are given in that
    /// order, and while somebody waits for one neither [`submit`](Self::submit) nor [`try_submit`](Self::try_submit)
    /// takes it. A place that was given stays with its future until that is polled again, or dropped. In one of this pool's
    /// own workers, under this crate's [`block_on`](crate::block_on), it goes over the capacity instead of waiting.
    ///
    /// # Errors
    ///
    /// A [`SubmitError`] that gives the closure back, if the pool is shut down or broken, or is so while this waits.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, it has submitted nothing, and nobody's place is lost.
    ///
    /// # Panics
    ///
    /// If it is polled after it was ready.
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
        SubmitAsync::new(self.line(), closure, Location::caller())
    }

    /// Stops accepting jobs, at once; those that are queued still run.
    ///
    /// What comes back is a future and has a blocking [`join`](Shutdown::join), for those who want to wait for the end.
    /// The shutdown goes on without it. It may be called any number of times, from any thread, jobs included. Whoever
    /// waits for room is released, with an error.
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
        self.shared.close(Closed::Shutdown);
        Shutdown::new(Arc::clone(&self.shared))
    }

    /// As [`shutdown`](Self::shutdown), but every queued job is cancelled, and those that run are asked to end: see
    /// [`cancel_requested`](crate::cancel_requested).
    ///
    /// # Examples
    ///
    /// ```
    /// use futurepool::{ThreadPool, cancel_requested};
    ///
    /// # let (tell, told) = std::sync::mpsc::channel();
    /// let pool = ThreadPool::new(1);
    /// let running = pool.submit(move || {
    ///     # tell.send(()).unwrap();
    ///     while !cancel_requested() {}
    ///     "ended early"
    /// });
    /// let queued = pool.submit(|| "never starts");
    /// # told.recv().unwrap();
    /// pool.shutdown_now().join();
    /// assert_eq!(running.join().unwrap(), "ended early");
    /// assert!(queued.join().unwrap_err().is_cancelled());
    /// ```
    #[doc(alias = "cancel_futures")]
    #[doc(alias = "terminate_workers")]
    #[doc(alias = "kill_workers")]
    pub fn shutdown_now(&self) -> Shutdown {
        self.shared.stop();
        Shutdown::new(Arc::clone(&self.shared))
    }

    /// Cancels every job that is queued now, and says how many. The pool stays open.
    ///
    /// Each is cancelled as by [`JoinHandle::cancel`], callbacks and all, before this returns; but one that some other
    /// thread comes to wait for meanwhile is cancelled by that thread.
    ///
    /// # Examples
    ///
    /// ```
    /// # let (tell, told) = std::sync::mpsc::channel();
    /// # let (go, wait) = std::sync::mpsc::channel::<()>();
    /// let pool = futurepool::ThreadPool::new(1);
    /// # let busy = pool.submit(move || { tell.send(()).unwrap(); wait.recv() });
    /// # told.recv().unwrap();
    /// // The one worker is busy, and what was asked for is out of date.
    /// let old = ["spam", "ham"].map(|word| pool.submit(move || word.len()));
    /// assert_eq!(pool.cancel_pending(), 2);
    /// let new = pool.submit(|| "eggs".len());
    /// # drop((go, old, busy));
    /// assert_eq!(new.join().unwrap(), 4);
    /// ```
    pub fn cancel_pending(&self) -> usize {
        self.shared.refuse_queued(Verdict::Cancelled)
    }

    /// How many threads there may be at once.
    ///
    /// See [`ThreadPoolBuilder`] for an example.
    #[must_use]
    pub fn max_workers(&self) -> usize {
        self.shared.roster.max_workers()
    }

    /// What the pool has done so far, and what it does at present.
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
    /// # drop(numbers);
    /// ```
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.shared.metrics()
    }
}

// Its state is changed under locks, which no panic of foreign code leaves half-way through a change.
impl UnwindSafe for ThreadPool {}
impl RefUnwindSafe for ThreadPool {}

impl Default for ThreadPool {
    /// A pool with the default options: as many threads as this process may use processors and 4 more, but 32 at most.
    fn default() -> Self {
        Self::builder().build().expect("the options are in order")
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        if self.shared.is_forked() {
            // The threads are not here, and one of them may have held any lock when the copy was made.
            return;
        }
        let shutdown = self.shutdown();
        if self.shared.own_badge().is_none() && !thread::panicking() {
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
