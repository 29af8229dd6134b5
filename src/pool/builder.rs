//! The options of a pool, and what the pool keeps of them.

use std::any::Any;
use std::fmt;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::error::{BoxError, BuildError};
use crate::pool::ThreadPool;
use crate::pool::auto_size::AutoSizer;
use crate::pool::events::JobEvent;
use crate::pool::inner::{PoolInner, PoolRefs, next_id};
use crate::pool::observer::{Observer, OnJob};
use crate::pool::timings::Timings;
#[cfg(feature = "process")]
use crate::pool::worker::WorkerHooks;
use crate::pool::worker_state::{MakeState, put};
use crate::util::sealed::{PRIVATE, Private};
use crate::util::sync::{Arc, thread};
use crate::util::unwind::{drop_catching, drop_payload, emit, panic_message};

type Initializer = Box<dyn Fn() -> Result<(), BoxError> + Send + Sync>;
type NameThread = Box<dyn Fn(usize) -> String + Send + Sync>;
type OnExit = Box<dyn Fn() + Send + Sync>;

/// The options of a new [`ThreadPool`]: see [`ThreadPool::builder`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// let pool = futurepool::ThreadPool::builder()
///     .max_workers(8)
///     .thread_name_prefix("hash")
///     .keep_alive(Duration::from_secs(10))
///     .queue_capacity(1_000)
///     .build()?;
/// assert_eq!(pool.max_workers(), 8);
/// # Ok::<(), futurepool::BuildError>(())
/// ```
#[doc(alias = "Builder")]
#[must_use = "a builder does nothing until `build` is called"]
pub struct ThreadPoolBuilder {
    max_workers: usize,
    /// Instead of `max_workers`.
    auto_size: Option<RangeInclusive<usize>>,
    queue_capacity: Option<usize>,
    /// `None` for the default.
    thread_name_prefix: Option<String>,
    thread_name: Option<NameThread>,
    stack_size: Option<usize>,
    keep_alive: Option<Duration>,
    initializer: Option<Initializer>,
    on_exit: Option<OnExit>,
    timings: bool,
    on_job: Option<OnJob>,
    queue_timeout: Option<Duration>,
    make_state: Option<MakeState>,
    #[cfg(feature = "process")]
    hooks: Option<Arc<dyn WorkerHooks>>,
    #[cfg(feature = "tokio")]
    runtime: Runtime,
}

/// The tokio runtime that the workers enter.
#[cfg(feature = "tokio")]
#[derive(Debug)]
enum Runtime {
    /// The runtime that is current at `build`, if any.
    Current,
    Given(tokio::runtime::Handle),
    None,
}

impl ThreadPoolBuilder {
    pub(crate) fn new() -> Self {
        Self::with_max_workers(default_workers())
    }

    /// Unlike [`new`](Self::new) this does not ask the system for the number of processors.
    pub(crate) fn with_max_workers(max_workers: usize) -> Self {
        Self {
            max_workers,
            auto_size: None,
            queue_capacity: None,
            thread_name_prefix: None,
            thread_name: None,
            stack_size: None,
            keep_alive: None,
            initializer: None,
            on_exit: None,
            timings: false,
            on_job: None,
            queue_timeout: None,
            make_state: None,
            #[cfg(feature = "process")]
            hooks: None,
            #[cfg(feature = "tokio")]
            runtime: Runtime::Current,
        }
    }

    /// Sets the maximum number of workers, at least 1.
    ///
    /// The default is the number of available processors plus 4, and 32 at most. Workers start on
    /// demand: the pool spawns no worker while another worker is idle.
    /// The last call of `max_workers` and [`auto_size`](Self::auto_size) counts.
    #[doc(alias = "max_blocking_threads")]
    #[doc(alias = "num_threads")]
    #[doc(alias = "ThreadPoolExecutor")]
    pub fn max_workers(mut self, workers: usize) -> Self {
        self.max_workers = workers;
        self.auto_size = None;
        self
    }

    /// Lets the pool find the maximum number of workers by itself, within `bounds`.
    ///
    /// Jobs that compute need as many workers as there are processors. Jobs that wait for a disk, a
    /// server or a lock need more. The pool measures the CPU time and the wall time of its jobs,
    /// and aims at `processors × (1 + waiting / computing)` workers. So it need not be told what
    /// its jobs do.
    ///
    /// # How the pool decides
    ///
    /// - It starts with the number of processors, or with the bound that is nearest to it. It never
    ///   goes below that number, since no job can do more than compute.
    /// - While all workers are busy, jobs are queued and processors are free, it tries more
    ///   workers. If the jobs then use hardly more CPU time, it takes the growth back: the
    ///   processors are busy with something else, or all jobs wait for the same thing.
    /// - While the jobs use all processors, it tries fewer workers, as few as do the same work.
    /// - Otherwise it keeps the number until the load changes. It settles within a minute of load.
    ///
    /// The pool decides only while it has jobs. An idle pool uses no CPU time.
    ///
    /// Workers still start on demand: the number is a maximum, which [`ThreadPool::max_workers`]
    /// returns. [`ThreadPool::set_max_workers`] returns an error. The latest decision and its
    /// reason are in [`Metrics::auto_size`](crate::Metrics::auto_size). A `tracing` event reports
    /// each change.
    ///
    /// # When to use it
    ///
    /// It suits a queue of many jobs that are alike, or whose mix changes within minutes instead of
    /// seconds. It does not know how many connections a server accepts, or how much memory a job
    /// needs: jobs that hardly compute get as many workers as the upper bound allows. If the right
    /// number is known, [`max_workers`](Self::max_workers) is better. Jobs that wait for each other
    /// by other means than the waits of this crate can need more workers than the pool gives them.
    ///
    /// CPU time that a job spends in threads or processes of its own is not counted. The CPU time
    /// of a job that runs for many seconds is known only when it ends. Until then the pool
    /// estimates it from the CPU time of the whole process.
    ///
    /// The last call of `auto_size` and [`max_workers`](Self::max_workers) counts.
    ///
    /// # Errors
    ///
    /// [`build`](Self::build) returns an error if `bounds` is empty or begins with 0, and on
    /// systems that do not tell the CPU time of a thread. Linux, Android, macOS, iOS, FreeBSD,
    /// DragonFly BSD and OpenBSD tell it. Windows is not supported.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), futurepool::BuildError> {
    /// # if !cfg!(any(target_os = "linux", target_vendor = "apple")) { return Ok(()); }
    /// let pool = futurepool::ThreadPool::builder().auto_size(4..=64).build()?;
    /// assert!((4..=64).contains(&pool.max_workers()));
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias = "adaptive")]
    #[doc(alias = "autoscale")]
    #[doc(alias = "dynamic")]
    #[doc(alias = "elastic")]
    #[doc(alias = "hill_climbing")]
    pub fn auto_size(mut self, bounds: RangeInclusive<usize>) -> Self {
        self.auto_size = Some(bounds);
        self
    }

    /// Names worker threads `{prefix}-{n}`.
    ///
    /// For the prefix `hash` the names are `hash-0`, `hash-1` and so on. The number `n` of a worker
    /// that has exited is used again. The default prefix is `futurepool-{id}`, with an `id` that is
    /// unique for each pool.
    ///
    /// Some systems show only the first bytes of a thread name, Linux for example 15.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = futurepool::ThreadPool::builder().thread_name_prefix("hash").build()?;
    /// let name = pool.submit(|| std::thread::current().name().map(String::from));
    /// assert_eq!(name.join()?.as_deref(), Some("hash-0"));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[doc(alias = "thread_name")]
    pub fn thread_name_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.thread_name_prefix = Some(prefix.into());
        self
    }

    /// Names each worker thread `name(n)`, instead of by the [prefix](Self::thread_name_prefix).
    ///
    /// The numbers are those that the prefix would get: below the maximum number of workers, and
    /// each used by one worker at a time. The pool calls `name` on the thread that spawns the
    /// worker, for example in `submit`. After the system has refused a thread, and with
    /// [`auto_size`](Self::auto_size), that can be the crate's timer thread, where a slow function
    /// delays the timeouts of the process.
    ///
    /// If `name` panics, or returns a name with a NUL character, that worker gets its default name
    /// and a `tracing` event reports it. `tracing` events name the pool by its prefix in any case.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = futurepool::ThreadPool::builder()
    ///     .thread_name(|n| format!("hash worker {n}"))
    ///     .build()?;
    /// let name = pool.submit(|| std::thread::current().name().map(String::from));
    /// assert_eq!(name.join()?.as_deref(), Some("hash worker 0"));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[doc(alias = "thread_name_fn")]
    pub fn thread_name(mut self, name: impl Fn(usize) -> String + Send + Sync + 'static) -> Self {
        self.thread_name = Some(Box::new(name));
        self
    }

    /// Sets the stack size of each worker in bytes, at least 1.
    ///
    /// The default is that of [`std::thread`].
    ///
    /// A job that overflows its stack **aborts the process**, as on any thread. That is not a
    /// panic, and no handle reports it. A job that waits for other jobs can need a larger stack,
    /// because those may run on the stack of the waiting worker.
    ///
    /// # Examples
    ///
    /// ```
    /// fn depth(list: &[u8]) -> usize {
    ///     list.split_first().map_or(0, |(_, rest)| 1 + depth(rest))
    /// }
    ///
    /// let pool = futurepool::ThreadPool::builder().stack_size(64 * 1024 * 1024).build()?;
    /// let depth = pool.submit(|| depth(&[0; 50_000]));
    /// assert_eq!(depth.join()?, 50_000);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[doc(alias = "thread_stack_size")]
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack_size = Some(bytes);
        self
    }

    /// Sets how long an idle worker waits before it exits. By default idle workers never exit.
    ///
    /// The pool spawns a new worker when it needs one again.
    #[doc(alias = "thread_keep_alive")]
    pub fn keep_alive(mut self, timeout: Duration) -> Self {
        self.keep_alive = Some(timeout);
        self
    }

    /// Runs `initializer` once on each worker, before its first job.
    ///
    /// The initializer returns nothing, or a `Result<(), E>`.
    ///
    /// An initializer that fails or panics **breaks the pool** for good. Each queued job and each
    /// later job then gets an error that [`is_broken`](crate::JoinError::is_broken) and shows the
    /// cause. Jobs that are running finish as usual.
    ///
    /// An initializer must not wait for jobs of its own pool: that is not supported. A
    /// [`join`](crate::JoinHandle::join) there returns an error that
    /// [`is_deadlock`](crate::JoinError::is_deadlock).
    ///
    /// If each worker needs a value of its own for its jobs, such as a connection, a
    /// [`StatefulPool`](crate::StatefulPool) is simpler.
    ///
    /// Thread-locals that the initializer sets are dropped when the worker's thread exits. Dropping
    /// the pool, or [joining](crate::Shutdown::join) its shutdown, waits for that. Awaiting the
    /// shutdown does not.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::cell::Cell;
    ///
    /// thread_local! {
    ///     static CONNECTION: Cell<u32> = const { Cell::new(0) };
    /// }
    ///
    /// let pool = futurepool::ThreadPool::builder()
    ///     .initializer(|| CONNECTION.set(7))
    ///     .build()?;
    /// assert_eq!(pool.submit(|| CONNECTION.get()).join().unwrap(), 7);
    /// # Ok::<(), futurepool::BuildError>(())
    /// ```
    ///
    /// An initializer that fails:
    ///
    /// ```
    /// let pool = futurepool::ThreadPool::builder()
    ///     .initializer(|| Err::<(), _>("no database"))
    ///     .build()?;
    /// let error = pool.submit(|| 7).join().unwrap_err();
    /// assert!(error.is_broken());
    /// assert_eq!(error.to_string(), "the pool is broken: no database");
    /// assert!(pool.try_submit(|| 7).unwrap_err().is_broken());
    /// # Ok::<(), futurepool::BuildError>(())
    /// ```
    #[doc(alias = "initargs")]
    #[doc(alias = "on_thread_start")]
    #[doc(alias = "start_handler")]
    pub fn initializer<I, R>(mut self, initializer: I) -> Self
    where
        I: Fn() -> R + Send + Sync + 'static,
        R: InitializerOutput,
    {
        self.initializer = Some(Box::new(move || initializer().into_result(PRIVATE)));
        self
    }

    /// Runs `hook` on each worker that exits, after its last job.
    ///
    /// It undoes what the [initializer](Self::initializer) did. It does not run on a worker whose
    /// initializer failed or panicked. Thread-locals are dropped after it. A panic in it is
    /// reported through `tracing` and affects nothing else.
    ///
    /// The worker no longer counts when the hook runs. Dropping the pool, or
    /// [joining](crate::Shutdown::join) its shutdown, waits for the hook. Awaiting the shutdown
    /// does not. In the hook, a wait for the pool's own shutdown returns at once.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicUsize, Ordering};
    ///
    /// let exited = Arc::new(AtomicUsize::new(0));
    /// let count = Arc::clone(&exited);
    /// let pool = futurepool::ThreadPool::builder()
    ///     .on_exit(move || {
    ///         count.fetch_add(1, Ordering::Relaxed);
    ///     })
    ///     .build()?;
    /// pool.submit(|| ()).join().unwrap();
    /// drop(pool);
    /// assert_eq!(exited.load(Ordering::Relaxed), 1);
    /// # Ok::<(), futurepool::BuildError>(())
    /// ```
    #[doc(alias = "on_thread_stop")]
    #[doc(alias = "exit_handler")]
    pub fn on_exit(mut self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.on_exit = Some(Box::new(hook));
        self
    }

    /// Limits the number of queued jobs to `jobs`, at least 1. By default there is no limit.
    ///
    /// On a full queue [`submit`](ThreadPool::submit) blocks,
    /// [`try_submit`](ThreadPool::try_submit) returns an error, and
    /// [`submit_async`](ThreadPool::submit_async) waits without blocking.
    #[doc(alias = "maxsize")]
    #[doc(alias = "bounded")]
    pub fn queue_capacity(mut self, jobs: usize) -> Self {
        self.queue_capacity = Some(jobs);
        self
    }

    /// Limits how long a job can wait for its start. By default there is no limit.
    ///
    /// A job that has not started by then [expires](crate::JobBuilder::deadline). That holds for
    /// all jobs of the pool, those of maps and scopes included, unless they have an earlier
    /// deadline.
    ///
    /// The time counts from the call that submits the job, and includes the wait for room in a
    /// bounded queue. For a job of a map it counts from the moment when that job is queued. A
    /// timeout too long for the clock sets no limit.
    ///
    /// Each job of such a pool costs one more heap allocation. A [`scope`](ThreadPool::scope)
    /// panics if one of its jobs has expired, and a map yields that error, as for any job that did
    /// not run. If a job of a detached map expires, the items that the map has not queued by then
    /// do not run. A `tracing` event tells how many these are.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::mpsc::channel;
    /// use std::time::Duration;
    ///
    /// let pool = futurepool::ThreadPool::builder()
    ///     .max_workers(1)
    ///     .queue_timeout(Duration::from_millis(20))
    ///     .build()?;
    /// let (release, wait) = channel::<()>();
    /// let busy = pool.submit(move || wait.recv());
    /// # while pool.metrics().running == 0 {}
    /// let stale = pool.submit(|| "this is no longer wanted");
    /// assert!(stale.join().unwrap_err().is_expired());
    /// assert_eq!(pool.metrics().expired, 1);
    /// drop(release);
    /// # busy.join().unwrap().unwrap_err();
    /// # Ok::<(), futurepool::BuildError>(())
    /// ```
    #[doc(alias = "timeout")]
    #[doc(alias = "max_wait")]
    #[doc(alias = "acquire_timeout")]
    pub fn queue_timeout(mut self, timeout: Duration) -> Self {
        self.queue_timeout = Some(timeout);
        self
    }

    /// Sets whether the pool measures how long jobs wait and run. By default it does not.
    ///
    /// The measurements are in [`Metrics`](crate::Metrics): for all jobs in
    /// [`queue_wait`](crate::Metrics::queue_wait) and [`run_time`](crate::Metrics::run_time), and
    /// by [label](crate::JobBuilder::label) in [`by_label`](crate::Metrics::by_label). A label
    /// takes a few kilobytes for each thread that runs its jobs.
    ///
    /// At the end of each job the pool also emits a `tracing` event of the level `TRACE` and the
    /// target `futurepool::job`. Its fields are `pool`, `label`, `worker`, `queue_wait`, `run_time`
    /// and `outcome`. With the feature `metrics` the pool reports each job through the facade of
    /// the crate `metrics`, too: see `ThreadPool::report_metrics`.
    ///
    /// Measuring a job takes three reads of the clock, and no memory. A label takes one allocation.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let pool = futurepool::ThreadPool::builder().max_workers(2).timings(true).build()?;
    /// let image = pool.job(|| std::thread::sleep(Duration::from_millis(5))).label("resize").submit();
    /// image.join()?;
    /// let metrics = pool.metrics();
    /// let resize = &metrics.by_label()["resize"];
    /// assert_eq!((resize.completed, resize.run_time.count()), (1, 1));
    /// assert!(resize.run_time.quantile(0.99) >= Duration::from_millis(4));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "histogram")]
    #[doc(alias = "latency")]
    #[doc(alias = "instrumentation")]
    pub fn timings(mut self, timings: bool) -> Self {
        self.timings = timings;
        self
    }

    /// Calls `hook` with each [event](JobEvent) of a job: submitted, started, finished.
    ///
    /// The pool calls the hook on the thread that submits, runs, cancels or expires the job, with
    /// no lock held. The hook delays that thread, which can be one of an async runtime. A panic in
    /// it is reported through `tracing` and affects nothing else.
    ///
    /// An event does not name its pool: for several pools, make a hook for each. A refused
    /// submission causes no event.
    ///
    /// Each accepted job has one `Submitted` and one `Finished`, and in between one `Started` if it
    /// starts. `Finished` is delivered before the job's handle resolves, and before its callbacks
    /// run. `Submitted` may be delivered after the other two: sort the events by
    /// [time](JobEvent::at).
    ///
    /// A hook that submits a job to the same pool for each event never ends, since that job has
    /// events, too. The hook must not wait for the job of the event, nor for a shutdown of the
    /// pool: the job resolves only after the hook has returned. On a thread that is no worker, that
    /// includes dropping the pool.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::mpsc::channel;
    ///
    /// use futurepool::JobOutcome;
    ///
    /// let (tell, told) = channel();
    /// let pool = futurepool::ThreadPool::builder()
    ///     .max_workers(1)
    ///     .on_job(move |event| {
    ///         let _ = tell.send((event.label(), event.outcome()));
    ///     })
    ///     .build()?;
    /// pool.job(|| 2 + 2).label("sum").submit().join().unwrap();
    /// drop(pool);
    /// let events: Vec<_> = told.iter().collect();
    /// assert_eq!(events.len(), 3);
    /// assert!(events.contains(&(Some("sum"), Some(JobOutcome::Completed))));
    /// # Ok::<(), futurepool::BuildError>(())
    /// ```
    #[doc(alias = "hook")]
    #[doc(alias = "tracing")]
    #[doc(alias = "on_task_spawn")]
    #[doc(alias = "on_task_terminate")]
    #[doc(alias = "beforeExecute")]
    #[doc(alias = "afterExecute")]
    #[doc(alias = "listener")]
    pub fn on_job(mut self, hook: impl Fn(&JobEvent) + Send + Sync + 'static) -> Self {
        self.on_job = Some(Box::new(hook));
        self
    }

    /// Sets the tokio runtime that jobs run inside.
    ///
    /// `tokio::spawn` and `Handle::current` then work in jobs. The default is the runtime that is
    /// current at [`build`](Self::build), if any. The pool does not keep the runtime alive.
    ///
    /// The last call of `tokio_handle` and [`no_tokio`](Self::no_tokio) counts.
    ///
    /// # Examples
    ///
    /// ```
    /// use futurepool::ThreadPool;
    ///
    /// let runtime = tokio::runtime::Runtime::new()?;
    /// let pool = ThreadPool::builder().tokio_handle(runtime.handle().clone()).build()?;
    /// let task = pool.submit(|| tokio::spawn(async { 6 * 7 })).join()?;
    /// assert_eq!(runtime.block_on(task)?, 42);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[doc(alias = "enter")]
    #[cfg(feature = "tokio")]
    pub fn tokio_handle(mut self, handle: tokio::runtime::Handle) -> Self {
        self.runtime = Runtime::Given(handle);
        self
    }

    /// Runs jobs outside of any tokio runtime.
    ///
    /// By default jobs run inside the runtime that is current at [`build`](Self::build). For a pool
    /// in a `static` that is the runtime of its first caller, which may end long before the pool.
    ///
    /// Without feature `tokio` this is always so, and the method changes nothing. With it, the last
    /// call of `tokio_handle` and `no_tokio` counts.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::LazyLock;
    ///
    /// use futurepool::ThreadPool;
    ///
    /// static POOL: LazyLock<ThreadPool> = LazyLock::new(|| {
    ///     let pool = ThreadPool::builder().max_workers(2).no_tokio().build();
    ///     pool.expect("the options are valid")
    /// });
    ///
    /// assert_eq!(POOL.submit(|| 6 * 7).join().unwrap(), 42);
    /// ```
    pub fn no_tokio(self) -> Self {
        #[cfg(feature = "tokio")]
        let this = Self {
            runtime: Runtime::None,
            ..self
        };
        #[cfg(not(feature = "tokio"))]
        let this = self;
        this
    }

    /// Runs jobs outside of the runtime that is current at `build`, but inside one that was given.
    pub(super) fn ignore_current_runtime(self) -> Self {
        #[cfg(feature = "tokio")]
        if let Runtime::Current = self.runtime {
            return self.no_tokio();
        }
        self
    }

    /// Sets what the workers do besides running jobs.
    #[cfg(feature = "process")]
    pub(crate) fn hooks(mut self, hooks: Arc<dyn WorkerHooks>) -> Self {
        self.hooks = Some(hooks);
        self
    }

    /// Makes a state on each worker, which the jobs use.
    pub(crate) fn make_state(mut self, make: MakeState) -> Self {
        self.make_state = Some(make);
        self
    }

    /// Sets the prefix if none was set.
    pub(super) fn default_prefix(mut self, prefix: &str) -> Self {
        self.thread_name_prefix
            .get_or_insert_with(|| prefix.to_owned());
        self
    }

    /// Creates the pool. No worker is spawned yet.
    ///
    /// # Errors
    ///
    /// Returns a [`BuildError`] that names an invalid option:
    ///
    /// - `max_workers`, `queue_capacity` or `stack_size` is 0,
    /// - `stack_size` exceeds `isize::MAX`,
    /// - the bounds of `auto_size` are empty or begin with 0, or the system does not support it,
    /// - `thread_name_prefix` contains a NUL character.
    pub fn build(self) -> Result<ThreadPool, BuildError> {
        let auto_sizer = self.auto_size.as_ref().map(AutoSizer::new);
        let auto_sizer = auto_sizer.transpose()?.map(Box::new);
        let max_workers = match &auto_sizer {
            Some(sizer) => sizer.limit(),
            None => self.max_workers,
        };
        if max_workers == 0 {
            let problem = "a pool needs at least 1 worker, not 0";
            return Err(BuildError::new("max_workers", problem));
        }
        if self.queue_capacity == Some(0) {
            let problem = "must be at least 1; omit it for an unbounded queue";
            return Err(BuildError::new("queue_capacity", problem));
        }
        match self.stack_size {
            Some(0) => {
                let problem = "must be at least 1 byte; omit it for the default";
                return Err(BuildError::new("stack_size", problem));
            }
            // std panics on a size that it cannot round up to whole pages.
            Some(size) if size > isize::MAX as usize => {
                let problem = "exceeds isize::MAX bytes";
                return Err(BuildError::new("stack_size", problem));
            }
            _ => {}
        }
        let id = next_id();
        let prefix = self.thread_name_prefix;
        let prefix = prefix.unwrap_or_else(|| format!("futurepool-{id}"));
        if prefix.contains('\0') {
            let problem = "a thread name cannot contain a NUL character";
            return Err(BuildError::new("thread_name_prefix", problem));
        }
        let config = Config {
            thread_name_prefix: prefix,
            thread_name: self.thread_name,
            stack_size: self.stack_size,
            keep_alive: self.keep_alive,
            initializer: self.initializer,
            on_exit: self.on_exit,
            auto_sizer,
            make_state: self.make_state,
            #[cfg(feature = "process")]
            hooks: self.hooks,
            #[cfg(feature = "tokio")]
            runtime: match self.runtime {
                Runtime::Current => tokio::runtime::Handle::try_current().ok(),
                Runtime::Given(handle) => Some(handle),
                Runtime::None => None,
            },
        };
        let timings = self
            .timings
            .then(|| Timings::new(&config.thread_name_prefix));
        let observer = Observer::new(self.on_job, timings);
        let inner = PoolInner::new(
            id,
            config,
            max_workers,
            self.queue_capacity,
            observer,
            self.queue_timeout,
        );
        let refs = Arc::new(PoolRefs::new(&inner));
        #[cfg(feature = "console")]
        crate::console::registry::add_pool(&inner, &refs);
        Ok(ThreadPool { inner, refs })
    }
}

impl Default for ThreadPoolBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ThreadPoolBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("ThreadPoolBuilder");
        fields
            .field("max_workers", &self.max_workers)
            .field("auto_size", &self.auto_size)
            .field("queue_capacity", &self.queue_capacity)
            .field("thread_name_prefix", &self.thread_name_prefix)
            .field("thread_name", &self.thread_name.is_some())
            .field("stack_size", &self.stack_size)
            .field("keep_alive", &self.keep_alive)
            .field("initializer", &self.initializer.is_some())
            .field("on_exit", &self.on_exit.is_some())
            .field("timings", &self.timings)
            .field("on_job", &self.on_job.is_some())
            .field("queue_timeout", &self.queue_timeout);
        #[cfg(feature = "tokio")]
        fields.field("runtime", &self.runtime);
        fields.finish()
    }
}

/// Returns the default of Python's `ThreadPoolExecutor`.
fn default_workers() -> usize {
    let processors = thread::available_parallelism().map_or(1, |n| n.get());
    (processors + 4).min(32)
}

/// The options that workers read.
pub(crate) struct Config {
    pub(crate) thread_name_prefix: String,
    pub(crate) thread_name: Option<NameThread>,
    pub(crate) stack_size: Option<usize>,
    pub(crate) keep_alive: Option<Duration>,
    pub(crate) initializer: Option<Initializer>,
    pub(crate) on_exit: Option<OnExit>,
    pub(crate) auto_sizer: Option<Box<AutoSizer>>,
    /// Only in a stateful pool.
    pub(crate) make_state: Option<MakeState>,
    #[cfg(feature = "process")]
    pub(crate) hooks: Option<Arc<dyn WorkerHooks>>,
    #[cfg(feature = "tokio")]
    pub(crate) runtime: Option<tokio::runtime::Handle>,
}

impl Config {
    /// Returns the name of the worker with this number. A name that the user's function fails to
    /// give is the default one.
    pub(crate) fn thread_name(&self, number: usize) -> String {
        let prefix = &self.thread_name_prefix;
        let default = || format!("{prefix}-{number}");
        let Some(name) = &self.thread_name else {
            return default();
        };
        let problem = match catch_unwind(AssertUnwindSafe(|| name(number))) {
            Ok(name) if !name.contains('\0') => return name,
            Ok(_) => "it contains a NUL character".to_owned(),
            Err(payload) => {
                let problem = match panic_message(&*payload) {
                    Some(message) => format!("the function panicked: {message}"),
                    None => "the function panicked".to_owned(),
                };
                drop_payload(payload);
                problem
            }
        };
        emit(|| {
            tracing::warn!(
                pool = %prefix, worker = number, %problem,
                "a worker has no name of its own: {problem}",
            );
        });
        default()
    }

    /// Returns whether workers that search spin only for a moment. A job of a worker process takes
    /// longer than a spin, and the process may need the processor of the thread that spins.
    pub(crate) fn spins_shortly(&self) -> bool {
        #[cfg(feature = "process")]
        let shortly = self.hooks.is_some();
        #[cfg(not(feature = "process"))]
        let shortly = false;
        shortly
    }

    /// Runs the initializer on this worker, and makes the worker's state. A panic becomes an error.
    pub(crate) fn initialize(&self) -> Result<(), BoxError> {
        if let Some(initializer) = &self.initializer {
            catch_as_error("the initializer", initializer)?;
        }
        if let Some(state) = self.make_state()? {
            put(state);
        }
        Ok(())
    }

    /// Makes the state of this worker, in a stateful pool. A panic becomes an error.
    pub(crate) fn make_state(&self) -> Result<Option<Box<dyn Any>>, BoxError> {
        let make_state = self.make_state.as_ref();
        let made = make_state.map(|make| catch_as_error("the function that makes the state", make));
        made.transpose()
    }
}

fn catch_as_error<T>(
    what: &'static str,
    user_code: impl FnOnce() -> Result<T, BoxError>,
) -> Result<T, BoxError> {
    catch_unwind(AssertUnwindSafe(user_code)).unwrap_or_else(|payload| {
        let error = match panic_message(&*payload) {
            Some(message) => format!("{what} panicked: {message}"),
            None => format!("{what} panicked"),
        };
        drop_payload(payload);
        Err(error.into())
    })
}

impl Drop for Config {
    fn drop(&mut self) {
        // The pool is dropped by whatever holds it last, maybe a handle. A panic must not come out
        // there.
        drop_catching("the destructor of an initializer", self.initializer.take());
        drop_catching("the destructor of an exit hook", self.on_exit.take());
        let make_state = self.make_state.take();
        drop_catching("the destructor of a function that makes states", make_state);
        let thread_name = self.thread_name.take();
        drop_catching(
            "the destructor of a function that names threads",
            thread_name,
        );
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("thread_name_prefix", &self.thread_name_prefix)
            .field("stack_size", &self.stack_size)
            .field("keep_alive", &self.keep_alive)
            .field("initializer", &self.initializer.is_some())
            .field("on_exit", &self.on_exit.is_some())
            .finish_non_exhaustive()
    }
}

/// The return types of an [initializer](ThreadPoolBuilder::initializer): `()`, or a `Result<(), E>`
/// whose error converts into a boxed one.
///
/// The trait is sealed and cannot be implemented outside this crate.
pub trait InitializerOutput: sealed::Sealed {
    #[doc(hidden)]
    fn into_result(self, _: Private) -> Result<(), BoxError>;
}

mod sealed {
    pub trait Sealed {}
}

impl sealed::Sealed for () {}
impl InitializerOutput for () {
    fn into_result(self, _: Private) -> Result<(), BoxError> {
        Ok(())
    }
}

impl<E: Into<BoxError>> sealed::Sealed for Result<(), E> {}
impl<E: Into<BoxError>> InitializerOutput for Result<(), E> {
    fn into_result(self, _: Private) -> Result<(), BoxError> {
        self.map_err(Into::into)
    }
}

/// The type `!`, which an initializer that only panics returns. Stable Rust can name it only as the
/// output of a function type, so [`Returns`] projects it out of one.
type Never = <fn() -> ! as Returns>::Output;

/// Projects a function type to its return type.
pub trait Returns {
    /// The return type.
    type Output;
}

impl<R> Returns for fn() -> R {
    type Output = R;
}

impl sealed::Sealed for Never {}
impl InitializerOutput for Never {
    fn into_result(self, _: Private) -> Result<(), BoxError> {
        self
    }
}
