//! A job with options: a label, a priority, a deadline.

use std::fmt;
use std::panic::Location;
use std::time::Duration;

use crate::error::SubmitError;
use crate::pool::inner::PoolInner;
use crate::pool::submit::SubmitAsync;
use crate::pool::{GlobalPool, ThreadPool};
use crate::task::cell::JobClosure;
use crate::task::join_handle::JoinHandle;
use crate::task::span::{self, Span};
use crate::task::state::Origin;
use crate::util::sync::{Instant, from_std};

/// The priority of a job: see [`JobBuilder::priority`].
///
/// A worker takes the job of the highest priority first. A lower priority still has a share, so it
/// never starves:
///
/// - Over any 16 starts by workers, [`Normal`](Self::Normal) gets at least 4 while jobs of it wait.
/// - Over any 16 starts by workers, [`Low`](Self::Low) gets at least 1 while jobs of it wait.
///
/// A start is the moment when a worker takes the job out of the queue. A job that runs in a worker
/// that waits for it runs at once, whatever its priority, and does not count.
///
/// A higher priority is greater than a lower one.
///
/// # Examples
///
/// ```
/// use std::sync::mpsc::channel;
///
/// use futurepool::{Priority, ThreadPool};
///
/// let pool = ThreadPool::new(1);
/// let (open, gate) = channel::<()>();
/// let busy = pool.submit(move || gate.recv());
/// let (started, starts) = channel();
/// for priority in [Priority::Low, Priority::Normal, Priority::High] {
///     let started = started.clone();
///     let job = pool.job(move || started.send(priority));
///     drop(job.priority(priority).submit()); // detached, it still runs
/// }
/// open.send(()).unwrap();
/// let order: Vec<_> = starts.iter().take(3).collect();
/// assert_eq!(order, [Priority::High, Priority::Normal, Priority::Low]);
/// # drop(busy);
/// ```
#[doc(alias = "nice")]
#[doc(alias = "QoS")]
#[doc(alias = "PriorityQueue")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Priority {
    /// Starts after the others, but has a share.
    Low,
    /// The priority of jobs that have no other one.
    #[default]
    Normal,
    /// Starts before the others, but leaves them a share.
    High,
}

/// What a job has besides its closure. Most have the default: nothing.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct JobOptions {
    pub(crate) label: Option<&'static str>,
    /// The name of the task that the job calls, for the error of a job that expires.
    pub(crate) task: Option<&'static str>,
    pub(crate) priority: Priority,
    /// The latest time at which the job can start.
    pub(crate) deadline: Option<Instant>,
}

impl JobOptions {
    pub(crate) const PLAIN: Self = Self {
        label: None,
        task: None,
        priority: Priority::Normal,
        deadline: None,
    };

    /// Returns whether the job needs nothing that a plain one does not. A name alone is never used,
    /// and the queue is told the priority in any case.
    pub(crate) fn is_plain(&self) -> bool {
        self.label.is_none() && self.deadline.is_none()
    }

    /// Returns the options of a job that is submitted to `pool` now: it has the pool's
    /// [timeout](crate::ThreadPoolBuilder::queue_timeout), too. If the pool observes its jobs, a
    /// call without a label has the name of its task.
    pub(crate) fn submitted_now(&self, pool: &PoolInner) -> Self {
        self.submitted_at(pool, Instant::now)
    }

    /// The same for a time that the caller knows, or may have to read.
    pub(crate) fn submitted_at(&self, pool: &PoolInner, now: impl FnOnce() -> Instant) -> Self {
        let name = self.task.filter(|_| pool.observes_all());
        let deadline = match pool.queue_timeout() {
            None => self.deadline,
            Some(timeout) => earliest(self.deadline, now().checked_add(timeout)),
        };
        Self {
            label: self.label.or(name),
            deadline,
            ..*self
        }
    }

    /// Returns whether it is too late for the job to start.
    pub(crate) fn is_late(&self) -> bool {
        self.deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// `None` is a deadline that never passes.
fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Where a job comes from, and what it has besides its closure.
pub(crate) struct Submission<'a> {
    pub(crate) origin: Origin,
    pub(crate) span: Option<Span>,
    // A reference, so that a plain job copies none of it.
    pub(crate) options: &'a JobOptions,
}

impl Submission<'_> {
    pub(crate) fn plain(origin: Origin, span: Option<Span>) -> Self {
        let options = &JobOptions::PLAIN;
        Self {
            origin,
            span,
            options,
        }
    }
}

/// A job with options that is not submitted yet: see [`ThreadPool::job`].
///
/// **Dropping it submits nothing.** The closure is dropped.
///
/// A label, a priority and a deadline cost nothing for the jobs that have none of them. A label or
/// a deadline costs its job one more heap allocation.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use futurepool::{Priority, ThreadPool};
///
/// let pool = ThreadPool::new(2);
/// let thumbnail = pool
///     .job(|| "a small picture")
///     .label("thumbnail")
///     .priority(Priority::Low)
///     .expires_in(Duration::from_secs(10))
///     .submit();
/// assert_eq!(thumbnail.join()?, "a small picture");
/// # Ok::<(), futurepool::JoinError>(())
/// ```
#[doc(alias = "JobOptions")]
#[doc(alias = "TaskBuilder")]
#[must_use = "nothing is submitted until `submit`, `try_submit` or `submit_async` is called"]
pub struct JobBuilder<'a, F> {
    pool: &'a ThreadPool,
    closure: F,
    options: JobOptions,
    /// Counts from the call that submits the job.
    expires_in: Option<Duration>,
}

impl<'a, F> JobBuilder<'a, F> {
    pub(crate) fn new(pool: &'a ThreadPool, closure: F) -> Self {
        Self {
            pool,
            closure,
            options: JobOptions::PLAIN,
            expires_in: None,
        }
    }

    /// Sets a name for the kind of job, for metrics and events.
    ///
    /// Many jobs should share a label: [metrics](crate::Metrics::by_label) keep figures for each of
    /// them. The default is none.
    #[doc(alias = "name")]
    #[doc(alias = "tag")]
    pub fn label(mut self, label: &'static str) -> Self {
        self.options.label = Some(label);
        self
    }

    /// Sets the priority of the job. The default is [`Priority::Normal`].
    ///
    /// Higher priorities start first, and the lower ones keep a share of the starts: see
    /// [`Priority`].
    ///
    /// Jobs of high priority start in the order of acceptance, whatever thread submits them. So do
    /// jobs of low priority. For jobs of normal priority see
    /// [`ThreadPool`](ThreadPool#in-which-order-jobs-start).
    ///
    /// The priority decides which *queued* job starts. On a full bounded pool, submitters get room
    /// first come, first served, whatever the priority of their jobs. A running job is never
    /// interrupted.
    #[doc(alias = "nice")]
    pub fn priority(mut self, priority: Priority) -> Self {
        self.options.priority = priority;
        self
    }

    /// Sets the latest time at which the job can start. The default is none.
    ///
    /// A job that has not started by then *expires* at that moment. It never runs, its closure is
    /// dropped, and its place in a bounded queue becomes free. Its handle resolves with an error
    /// that [`is_expired`](crate::JoinError::is_expired). The job counts in
    /// [`expired`](crate::Metrics::expired) and in [`cancelled`](crate::Metrics::cancelled).
    ///
    /// A job that has started is not affected: it runs to its end.
    ///
    /// If several limits are set, the earliest counts: this one, [`expires_in`](Self::expires_in),
    /// and the pool's [`queue_timeout`](crate::ThreadPoolBuilder::queue_timeout).
    ///
    /// Destructors, callbacks and wakers of expired jobs run on threads of their own, called
    /// `futurepool-expiry`. Slow ones delay no other job while fewer than 32 of them run at the
    /// same time. If the system refuses these threads, a job expires when a worker reaches it. A
    /// job whose deadline has passed before it is queued expires on the thread that submits it.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::mpsc::channel;
    /// use std::time::{Duration, Instant};
    ///
    /// let pool = futurepool::ThreadPool::new(1);
    /// let (release, wait) = channel::<()>();
    /// let busy = pool.submit(move || wait.recv());
    /// let deadline = Instant::now() + Duration::from_millis(20);
    /// let late = pool.job(|| unreachable!("it is too late")).deadline(deadline).submit();
    /// assert!(late.join().unwrap_err().is_expired()); // although the only worker is busy
    /// drop(release);
    /// # busy.join().unwrap().unwrap_err();
    /// ```
    #[doc(alias = "timeout")]
    #[doc(alias = "expires_at")]
    #[doc(alias = "start_by")]
    pub fn deadline(mut self, at: std::time::Instant) -> Self {
        self.options.deadline = Some(from_std(at));
        self
    }

    /// Sets how long the job can wait for its start, from the call that submits it. By default
    /// there is no limit.
    ///
    /// The time includes the wait for room in a bounded queue. The job then
    /// [expires](Self::deadline). A timeout too long for the clock sets no limit.
    #[doc(alias = "timeout")]
    #[doc(alias = "ttl")]
    pub fn expires_in(mut self, timeout: Duration) -> Self {
        self.expires_in = Some(timeout);
        self
    }

    /// Returns the options of a job that is submitted now.
    fn options(&self) -> JobOptions {
        let expires_in = self.expires_in;
        let in_time = expires_in.and_then(|timeout| Instant::now().checked_add(timeout));
        JobOptions {
            deadline: earliest(self.options.deadline, in_time),
            ..self.options
        }
    }

    /// Queues the job and returns its handle: see [`ThreadPool::submit`].
    ///
    /// On a full bounded pool it **blocks the calling thread** until the queue has room, but not
    /// beyond the deadline of the job.
    ///
    /// Dropping the handle detaches the job, which still runs.
    ///
    /// # Errors
    ///
    /// Errors are returned through the handle. If the deadline passes while the call waits for
    /// room, the job expires at once.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let pool = futurepool::ThreadPool::new(1);
    /// let stale = pool.job(|| 1).expires_in(Duration::ZERO).submit();
    /// assert!(stale.join().unwrap_err().is_expired());
    /// ```
    #[doc(alias = "spawn")]
    #[track_caller]
    pub fn submit<T>(self) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.submit_as(Location::caller())
    }

    /// Queues the job if the queue has room now: see [`ThreadPool::try_submit`]. Never blocks.
    ///
    /// # Errors
    ///
    /// Returns a [`SubmitError`] with the closure if the queue is full, if the pool is shut down or
    /// broken, or if the deadline of the job [has passed](SubmitError::is_expired). Each of them
    /// counts in [`rejected`](crate::Metrics::rejected).
    #[doc(alias = "offer")]
    #[track_caller]
    pub fn try_submit<T>(self) -> Result<JoinHandle<T>, SubmitError<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.try_submit_as(Location::caller())
    }

    /// Queues the job as soon as the queue has room, without blocking the thread: see
    /// [`ThreadPool::submit_async`].
    ///
    /// [`expires_in`](Self::expires_in) counts from this call, not from the first poll.
    ///
    /// # Errors
    ///
    /// Returns a [`SubmitError`] with the closure if the pool is shut down or broken, or becomes so
    /// while the future waits. The same happens if the deadline of the job [has
    /// passed](SubmitError::is_expired) before there is room.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future before it is ready submits nothing. Its turn passes to the next
    /// submitter.
    ///
    /// # Panics
    ///
    /// The future panics if it is polled after completion.
    #[doc(alias = "put")]
    #[track_caller]
    pub fn submit_async<T>(self) -> SubmitAsync<F, T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.submit_async_as(Location::caller())
    }
}

/// The same for any kind of job.
impl<F> JobBuilder<'_, F> {
    pub(crate) fn submit_as<T>(self, origin: Origin) -> JoinHandle<T>
    where
        F: JobClosure<T>,
        T: Send + 'static,
    {
        let submission = Submission {
            origin,
            span: span::current(),
            options: &self.options(),
        };
        self.pool.submit_from(self.closure, submission)
    }

    pub(crate) fn try_submit_as<T>(self, origin: Origin) -> Result<JoinHandle<T>, SubmitError<F>>
    where
        F: JobClosure<T>,
        T: Send + 'static,
    {
        let options = self.options();
        self.pool.try_submit_from(self.closure, origin, &options)
    }

    pub(crate) fn submit_async_as<T>(self, origin: Origin) -> SubmitAsync<F, T> {
        let options = self.options();
        let acquire = self.pool.acquire();
        SubmitAsync::new(acquire, self.closure, origin, &options)
    }
}

impl<F> fmt::Debug for JobBuilder<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobBuilder")
            .field("label", &self.options.label)
            .field("priority", &self.options.priority)
            .field("deadline", &self.options.deadline)
            .field("expires_in", &self.expires_in)
            .finish_non_exhaustive()
    }
}

impl ThreadPool {
    /// Returns a builder for a job with options: a label, a priority, a deadline.
    ///
    /// `pool.job(f).submit()` does what [`submit`](Self::submit) does.
    ///
    /// # Examples
    ///
    /// See [`JobBuilder`] for an example.
    #[doc(alias = "spawn_builder")]
    #[doc(alias = "submit_with")]
    #[doc(alias = "with_options")]
    pub fn job<F>(&self, closure: F) -> JobBuilder<'_, F> {
        JobBuilder::new(self, closure)
    }
}

impl GlobalPool {
    /// Returns a builder for a job with options: see [`ThreadPool::job`].
    ///
    /// # Examples
    ///
    /// ```
    /// let job = futurepool::global().job(|| 2 + 2).label("sum");
    /// assert_eq!(job.submit().join().unwrap(), 4);
    /// ```
    pub fn job<F>(&self, closure: F) -> JobBuilder<'_, F> {
        self.pool.job(closure)
    }
}
