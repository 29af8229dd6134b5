//! The options of a pool.

use std::time::Duration;

use crate::error::BuildError;
use crate::pool::ThreadPool;
use crate::pool::config::{Config, InitializerOutput};
use crate::pool::inner::{Homes, Shared, next_id};
use crate::util::sync::{Arc, thread};

/// The options of a [`ThreadPool`]: see [`ThreadPool::builder`].
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
#[derive(Debug)]
#[must_use = "it does nothing until `build`"]
pub struct ThreadPoolBuilder {
    max_workers: usize,
    queue_capacity: Option<usize>,
    thread_name_prefix: Option<String>,
    stack_size: Option<usize>,
    config: Config,
    #[cfg(feature = "tokio")]
    runtime: Runtime,
}

/// Which runtime the workers enter.
#[cfg(feature = "tokio")]
#[derive(Debug)]
enum Runtime {
    /// The one that is current at `build`, if any.
    Current,
    Given(tokio::runtime::Handle),
    None,
}

impl ThreadPoolBuilder {
    pub(crate) fn new() -> Self {
        Self {
            max_workers: default_workers(),
            queue_capacity: None,
            thread_name_prefix: None,
            stack_size: None,
            config: Config::default(),
            #[cfg(feature = "tokio")]
            runtime: Runtime::Current,
        }
    }

    /// How many threads there may be at once; at least 1. The default is the number of processors that this process may
    /// use and 4 more, but 32 at most.
    ///
    /// They start when they are needed, and no thread is started while another one is free.
    #[doc(alias = "ThreadPoolExecutor")]
    pub fn max_workers(mut self, workers: usize) -> Self {
        self.max_workers = workers;
        self
    }

    /// The threads are called by this and a number: `hash-0`, `hash-1` and so on for `hash`. The number of a thread
    /// that has left goes to the next one that starts. The default is unique for each pool.
    ///
    /// Some systems show the first bytes only (Linux: 15).
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = futurepool::ThreadPool::builder().thread_name_prefix("hash").build()?;
    /// let name = pool.submit(|| std::thread::current().name().map(String::from));
    /// assert_eq!(name.join()?.as_deref(), Some("hash-0"));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn thread_name_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.thread_name_prefix = Some(prefix.into());
        self
    }

    /// The stack of each thread, in bytes; not 0. The default is that of [`std::thread`].
    ///
    /// A job that needs more **ends the whole process**, as it would in any thread: that is no panic, and no handle can
    /// tell of it. Jobs that wait for jobs may need more, as those may run on the waiter's stack.
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
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack_size = Some(bytes);
        self
    }

    /// A thread that had no job for so long ends; a new one is started when it is needed. By default they stay.
    pub fn keep_alive(mut self, limit: Duration) -> Self {
        self.config.keep_alive = Some(limit);
        self
    }

    /// Runs in each thread once, before its first job. It returns nothing, or a `Result<(), E>`.
    ///
    /// If it fails or panics, the pool is **broken** for good: every queued and every later job gets an error that
    /// [`is_broken`](crate::JoinError::is_broken) and shows the cause. Jobs that run by then end as they would.
    ///
    /// What it puts into thread-locals is dropped when the thread ends. Dropping the pool, or
    /// [joining](crate::Shutdown::join) its shutdown, waits for that; awaiting the shutdown does not.
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
    /// One that fails:
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
    pub fn initializer<I, R>(mut self, initializer: I) -> Self
    where
        I: Fn() -> R + Send + Sync + 'static,
        R: InitializerOutput,
    {
        self.config.initializer = Some(Box::new(move || initializer().into_result()));
        self
    }

    /// How many jobs may wait for a worker; at least 1. By default any number may.
    ///
    /// What happens when it is full: [`submit`](ThreadPool::submit) blocks, [`try_submit`](ThreadPool::try_submit)
    /// refuses, [`submit_async`](ThreadPool::submit_async) waits.
    pub fn queue_capacity(mut self, jobs: usize) -> Self {
        self.queue_capacity = Some(jobs);
        self
    }

    /// The runtime that jobs run inside, so that `tokio::spawn` and `Handle::current` work in them. By default that is
    /// the one that is current at [`build`](Self::build), if there is one.
    ///
    /// The pool does not keep the runtime alive.
    ///
    /// # Examples
    ///
    /// ```
    /// # use futurepool::ThreadPool;
    /// let runtime = tokio::runtime::Runtime::new()?;
    /// let pool = ThreadPool::builder().tokio_handle(runtime.handle().clone()).build()?;
    /// let task = pool.submit(|| tokio::spawn(async { 6 * 7 })).join()?;
    /// assert_eq!(runtime.block_on(task)?, 42);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[cfg(feature = "tokio")]
    pub fn tokio_handle(mut self, handle: tokio::runtime::Handle) -> Self {
        self.runtime = Runtime::Given(handle);
        self
    }

    /// Jobs run inside no runtime.
    pub(crate) fn without_runtime(self) -> Self {
        #[cfg(feature = "tokio")]
        let this = Self {
            runtime: Runtime::None,
            ..self
        };
        #[cfg(not(feature = "tokio"))]
        let this = self;
        this
    }

    /// Makes the pool. No thread is started yet.
    ///
    /// # Errors
    ///
    /// A [`BuildError`] that names the option that cannot be: `max_workers`, `queue_capacity` or `stack_size` of 0, a
    /// `stack_size` that no address space holds, a `thread_name_prefix` with a NUL character.
    pub fn build(self) -> Result<ThreadPool, BuildError> {
        if self.max_workers == 0 {
            let problem = "a pool needs at least 1 worker, not 0";
            return Err(BuildError::new("max_workers", problem));
        }
        if self.queue_capacity == Some(0) {
            let problem =
                "a queue needs room for at least 1 job, not 0; leave it out for any number";
            return Err(BuildError::new("queue_capacity", problem));
        }
        match self.stack_size {
            Some(0) => {
                let problem = "a stack needs some bytes, not 0; leave it out for the default";
                return Err(BuildError::new("stack_size", problem));
            }
            // The standard library panics if it cannot round it up to a page.
            Some(size) if size > isize::MAX as usize => {
                let problem = "no address space holds a stack of more than isize::MAX bytes";
                return Err(BuildError::new("stack_size", problem));
            }
            _ => {}
        }
        let id = next_id();
        let prefix = self.thread_name_prefix;
        if prefix.as_ref().is_some_and(|name| name.contains('\0')) {
            let problem = "the name of a thread cannot hold a NUL character";
            return Err(BuildError::new("thread_name_prefix", problem));
        }
        let config = Config {
            thread_name_prefix: prefix.unwrap_or_else(|| format!("pool-{id}")),
            stack_size: self.stack_size,
            #[cfg(feature = "tokio")]
            runtime: match self.runtime {
                Runtime::Current => tokio::runtime::Handle::try_current().ok(),
                Runtime::Given(handle) => Some(handle),
                Runtime::None => None,
            },
            ..self.config
        };
        let shared = Shared::new(id, config, self.max_workers, self.queue_capacity);
        let homes = Arc::new(Homes::new(&shared));
        Ok(ThreadPool { shared, homes })
    }
}

impl Default for ThreadPoolBuilder {
    fn default() -> Self {
        Self::new()
    }
}

/// As Python has it.
fn default_workers() -> usize {
    let processors = thread::available_parallelism().map_or(1, |n| n.get());
    (processors + 4).min(32)
}
