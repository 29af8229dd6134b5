//! The options of a stateful pool: those of a thread pool, and how states are made.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::StatefulPool;
use crate::error::BuildError;
use crate::pool::{InitializerOutput, JobEvent, ThreadPoolBuilder};

/// The options of a new [`StatefulPool`]: see [`StatefulPool::builder`].
///
/// They are those of a [`ThreadPoolBuilder`], with the same names and defaults.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use futurepool::StatefulPool;
///
/// let pool = StatefulPool::builder_with(String::new)
///     .max_workers(2)
///     .thread_name_prefix("parser")
///     .keep_alive(Duration::from_secs(10))
///     .queue_capacity(100)
///     .build()?;
/// assert_eq!(pool.max_workers(), 2);
/// # Ok::<(), futurepool::BuildError>(())
/// ```
#[must_use = "a builder does nothing until `build` is called"]
pub struct StatefulPoolBuilder<S> {
    threads: ThreadPoolBuilder,
    state: PhantomData<fn() -> S>,
}

impl<S: 'static> StatefulPoolBuilder<S> {
    pub(super) fn new<M, E>(make: M) -> Self
    where
        M: Fn() -> Result<S, E> + Send + Sync + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let make = move || match make() {
            Ok(state) => Ok(Box::new(state) as Box<dyn Any>),
            Err(error) => Err(error.into()),
        };
        Self {
            threads: ThreadPoolBuilder::new().make_state(Box::new(make)),
            state: PhantomData,
        }
    }

    fn with(mut self, set: impl FnOnce(ThreadPoolBuilder) -> ThreadPoolBuilder) -> Self {
        self.threads = set(self.threads);
        self
    }

    /// Sets the maximum number of workers, and so of states: see
    /// [`ThreadPoolBuilder::max_workers`].
    ///
    /// The default is that of a thread pool, up to 32. For connections, set what the other side
    /// accepts.
    #[doc(alias = "max_size")]
    #[doc(alias = "num_threads")]
    pub fn max_workers(self, workers: usize) -> Self {
        self.with(|threads| threads.max_workers(workers))
    }

    /// Lets the pool find the maximum number of workers by itself, within `bounds`: see
    /// [`ThreadPoolBuilder::auto_size`].
    ///
    /// A change of the number makes states, or drops some. So states that are costly to make suit a
    /// fixed number better.
    pub fn auto_size(self, bounds: RangeInclusive<usize>) -> Self {
        self.with(|threads| threads.auto_size(bounds))
    }

    /// Names worker threads `{prefix}-{n}`: see [`ThreadPoolBuilder::thread_name_prefix`].
    pub fn thread_name_prefix(self, prefix: impl Into<String>) -> Self {
        self.with(|threads| threads.thread_name_prefix(prefix))
    }

    /// Names each worker thread `name(n)`: see [`ThreadPoolBuilder::thread_name`].
    pub fn thread_name(self, name: impl Fn(usize) -> String + Send + Sync + 'static) -> Self {
        self.with(|threads| threads.thread_name(name))
    }

    /// Sets the stack size of each worker in bytes: see [`ThreadPoolBuilder::stack_size`].
    pub fn stack_size(self, bytes: usize) -> Self {
        self.with(|threads| threads.stack_size(bytes))
    }

    /// Sets how long an idle worker waits before it exits and drops its state.
    ///
    /// By default idle workers never exit. See [`ThreadPoolBuilder::keep_alive`].
    #[doc(alias = "idle_timeout")]
    pub fn keep_alive(self, timeout: Duration) -> Self {
        self.with(|threads| threads.keep_alive(timeout))
    }

    /// Runs `initializer` once on each worker, before the worker makes its state.
    ///
    /// It does not run again when a lost state is made anew. See
    /// [`ThreadPoolBuilder::initializer`].
    pub fn initializer<I, R>(self, initializer: I) -> Self
    where
        I: Fn() -> R + Send + Sync + 'static,
        R: InitializerOutput,
    {
        self.with(|threads| threads.initializer(initializer))
    }

    /// Runs `hook` on each worker that exits, after the worker has dropped its state.
    ///
    /// It does not run on a worker whose first state could not be made. See
    /// [`ThreadPoolBuilder::on_exit`].
    pub fn on_exit(self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.with(|threads| threads.on_exit(hook))
    }

    /// Limits the number of queued jobs to `jobs`: see [`ThreadPoolBuilder::queue_capacity`].
    #[doc(alias = "maxsize")]
    pub fn queue_capacity(self, jobs: usize) -> Self {
        self.with(|threads| threads.queue_capacity(jobs))
    }

    /// Limits how long a job can be queued: see [`ThreadPoolBuilder::queue_timeout`].
    pub fn queue_timeout(self, timeout: Duration) -> Self {
        self.with(|threads| threads.queue_timeout(timeout))
    }

    /// Sets whether the pool measures how long jobs wait and run: see
    /// [`ThreadPoolBuilder::timings`].
    pub fn timings(self, timings: bool) -> Self {
        self.with(|threads| threads.timings(timings))
    }

    /// Calls `hook` with each event of a job: see [`ThreadPoolBuilder::on_job`].
    pub fn on_job(self, hook: impl Fn(&JobEvent) + Send + Sync + 'static) -> Self {
        self.with(|threads| threads.on_job(hook))
    }

    /// Sets the tokio runtime that jobs run inside: see [`ThreadPoolBuilder::tokio_handle`].
    ///
    /// States are made and dropped inside it, too.
    #[cfg(feature = "tokio")]
    pub fn tokio_handle(self, handle: tokio::runtime::Handle) -> Self {
        self.with(|threads| threads.tokio_handle(handle))
    }

    /// Runs jobs outside of any tokio runtime: see [`ThreadPoolBuilder::no_tokio`].
    pub fn no_tokio(self) -> Self {
        self.with(ThreadPoolBuilder::no_tokio)
    }

    /// Creates the pool. No worker is spawned yet, and no state is made.
    ///
    /// # Errors
    ///
    /// Returns a [`BuildError`] that names an invalid option: see [`ThreadPoolBuilder::build`].
    pub fn build(self) -> Result<StatefulPool<S>, BuildError> {
        Ok(StatefulPool {
            threads: self.threads.build()?,
            state: PhantomData,
        })
    }
}

impl<S> fmt::Debug for StatefulPoolBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StatefulPoolBuilder")
            .field(&self.threads)
            .finish()
    }
}
