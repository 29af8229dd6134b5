//! A job with options: a label, a priority, a deadline.

use std::fmt;
use std::panic::Location;
use std::time::Duration;

use crate::error::SubmitError;
use crate::pool::inner::PoolInner;
use crate::pool::submit::SubmitAsync;
use crate::pool::{GlobalPool, ThreadPool};
use crate::task::join_handle::JoinHandle;
use crate::task::span::{self, Span};
use crate::task::state::Origin;
use crate::util::sync::{Instant, from_std};

/// The priority of a job: see [`JobBuilder::priority`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Priority {
    /// Starts before the others, but leaves them a share.
    High,
    /// The priority of jobs that have no other one.
    #[default]
    Normal,
    /// Starts after the others, but has a share.
    Low,
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

    /// Returns whether the job needs nothing that a plain one does not. A name alone is never used.
    pub(crate) fn is_plain(&self) -> bool {
        self.label.is_none() && self.deadline.is_none() && self.priority == Priority::Normal
    }

    /// Returns the options of a job that is submitted to `pool` now: it has the pool's
    /// [timeout](crate::ThreadPoolBuilder::queue_timeout), too. If the pool observes its jobs, a call
    /// without a label has the name of its task.
    pub(crate) fn submitted_now(&self, pool: &PoolInner) -> Self {
        let name = self.task.filter(|_| pool.observer().is_some());
        let deadline = match pool.queue_timeout() {
            None => self.deadline,
            Some(timeout) => earliest(self.deadline, Instant::now().checked_add(timeout)),
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

/// A job that is not submitted yet: see [`ThreadPool::job`].
///
/// **Dropping it submits nothing.** The closure is dropped.
#[must_use = "nothing is submitted unless one of the methods of submission is called"]
pub struct JobBuilder<'a, F> {
    pool: &'a ThreadPool,
    closure: F,
    options: JobOptions,
    /// Counts from the call of `submit`.
    expires_in: Option<Duration>,
}

impl<'a, F> JobBuilder<'a, F> {
    pub(crate) fn new(pool: &'a ThreadPool, closure: F) -> Self {
        Self {
            pool,
            closure,
            options: JobOptions::default(),
            expires_in: None,
        }
    }

    /// Sets what the job is called in metrics, events and errors.
    pub fn label(mut self, label: &'static str) -> Self {
        self.options.label = Some(label);
        self
    }

    /// Sets the priority of the job.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.options.priority = priority;
        self
    }

    /// Sets the latest time at which the job can start.
    pub fn deadline(mut self, at: std::time::Instant) -> Self {
        self.options.deadline = Some(from_std(at));
        self
    }

    /// Sets how long after the call of `submit` the job can start at the latest.
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
    #[track_caller]
    pub fn submit<T>(self) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let submission = Submission {
            origin: Location::caller(),
            span: span::current(),
            options: &self.options(),
        };
        self.pool.submit_from(self.closure, submission)
    }

    /// Queues the job if the queue has room now: see [`ThreadPool::try_submit`].
    #[track_caller]
    pub fn try_submit<T>(self) -> Result<JoinHandle<T>, SubmitError<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let options = self.options();
        self.pool
            .try_submit_from(self.closure, Location::caller(), &options)
    }

    /// Queues the job as soon as the queue has room, without blocking the thread: see
    /// [`ThreadPool::submit_async`].
    #[track_caller]
    pub fn submit_async<T>(self) -> SubmitAsync<F, T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let options = self.options();
        let acquire = self.pool.acquire();
        SubmitAsync::new(acquire, self.closure, Location::caller(), &options)
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
    pub fn job<F>(&self, closure: F) -> JobBuilder<'_, F> {
        JobBuilder::new(self, closure)
    }
}

impl GlobalPool {
    /// Returns a builder for a job with options: see [`ThreadPool::job`].
    pub fn job<F>(&self, closure: F) -> JobBuilder<'_, F> {
        self.pool.job(closure)
    }
}
