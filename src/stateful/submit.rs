//! Jobs with a state that have options, or that wait for room in the queue.

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::FusedFuture;

use super::StatefulPool;
use super::job::StatefulJob;
use crate::error::SubmitError;
use crate::pool::{JobBuilder, Priority, SubmitAsync};
use crate::task::join_handle::JoinHandle;

/// A job that waits for room in the queue of a [`StatefulPool`]: see
/// [`submit_async`](StatefulPool::submit_async).
///
/// **Dropping it before it is ready submits nothing.** Its turn passes to the next submitter.
///
/// It does nothing until it is polled.
#[must_use = "nothing is submitted unless it is awaited"]
pub struct StatefulSubmitAsync<S, F, T>(SubmitAsync<StatefulJob<S, F>, T>);

impl<S, F, T> StatefulSubmitAsync<S, F, T> {
    pub(super) fn new(inner: SubmitAsync<StatefulJob<S, F>, T>) -> Self {
        Self(inner)
    }
}

// The closure is moved, never pinned.
impl<S, F, T> Unpin for StatefulSubmitAsync<S, F, T> {}

impl<S, F, T> Future for StatefulSubmitAsync<S, F, T>
where
    S: 'static,
    F: FnOnce(&mut S) -> T + Send + 'static,
    T: Send + 'static,
{
    type Output = Result<JoinHandle<T>, SubmitError<F>>;

    #[track_caller]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let submitted = self.0.poll_submit(context);
        submitted.map_err(|refused| refused.map_job(StatefulJob::into_closure))
    }
}

impl<S, F, T> FusedFuture for StatefulSubmitAsync<S, F, T>
where
    S: 'static,
    F: FnOnce(&mut S) -> T + Send + 'static,
    T: Send + 'static,
{
    fn is_terminated(&self) -> bool {
        self.0.is_done()
    }
}

impl<S, F, T> fmt::Debug for StatefulSubmitAsync<S, F, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StatefulSubmitAsync").field(&self.0).finish()
    }
}

/// A job with options that is not submitted yet: see [`StatefulPool::job`].
///
/// **Dropping it submits nothing.** The closure is dropped.
#[must_use = "nothing is submitted until `submit`, `try_submit` or `submit_async` is called"]
pub struct StatefulJobBuilder<'a, S, F>(JobBuilder<'a, StatefulJob<S, F>>);

impl<S: 'static> StatefulPool<S> {
    /// Returns a builder for a job with options: a label, a priority, a deadline.
    ///
    /// See [`ThreadPool::job`](crate::ThreadPool::job). `submit(f)` is `job(f).submit()`.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use futurepool::{Priority, StatefulPool};
    ///
    /// let pool = StatefulPool::builder_with(|| 7).max_workers(2).build()?;
    /// let seven = pool
    ///     .job(|seven: &mut i32| *seven)
    ///     .label("orders")
    ///     .priority(Priority::High)
    ///     .expires_in(Duration::from_secs(60))
    ///     .submit();
    /// assert_eq!(seven.join()?, 7);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn job<F, T>(&self, closure: F) -> StatefulJobBuilder<'_, S, F>
    where
        F: FnOnce(&mut S) -> T + Send + 'static,
        T: Send + 'static,
    {
        StatefulJobBuilder(self.threads.job(StatefulJob::new(closure)))
    }
}

impl<S: 'static, F> StatefulJobBuilder<'_, S, F> {
    /// Names the job in metrics, events and errors: see [`JobBuilder::label`].
    pub fn label(self, label: &'static str) -> Self {
        Self(self.0.label(label))
    }

    /// Sets the priority of the job: see [`JobBuilder::priority`].
    pub fn priority(self, priority: Priority) -> Self {
        Self(self.0.priority(priority))
    }

    /// Sets the latest time at which the job can start: see [`JobBuilder::deadline`].
    pub fn deadline(self, at: std::time::Instant) -> Self {
        Self(self.0.deadline(at))
    }

    /// Sets how long after its submission the job can start at the latest: see
    /// [`JobBuilder::expires_in`].
    pub fn expires_in(self, timeout: Duration) -> Self {
        Self(self.0.expires_in(timeout))
    }

    /// Queues the job and returns its handle: see [`StatefulPool::submit`].
    ///
    /// Dropping the handle detaches the job, which still runs.
    ///
    /// # Errors
    ///
    /// Errors are returned through the handle: see [`JobBuilder::submit`].
    #[track_caller]
    pub fn submit<T>(self) -> JoinHandle<T>
    where
        F: FnOnce(&mut S) -> T + Send + 'static,
        T: Send + 'static,
    {
        self.0.submit_as(Location::caller())
    }

    /// Queues the job if the queue has room now: see [`StatefulPool::try_submit`].
    ///
    /// # Errors
    ///
    /// Returns a [`SubmitError`] with the closure for the reasons of [`JobBuilder::try_submit`].
    #[track_caller]
    pub fn try_submit<T>(self) -> Result<JoinHandle<T>, SubmitError<F>>
    where
        F: FnOnce(&mut S) -> T + Send + 'static,
        T: Send + 'static,
    {
        let submitted = self.0.try_submit_as(Location::caller());
        submitted.map_err(|refused| refused.map_job(StatefulJob::into_closure))
    }

    /// Queues the job as soon as the queue has room, without blocking the thread: see
    /// [`StatefulPool::submit_async`].
    ///
    /// # Errors
    ///
    /// Returns a [`SubmitError`] with the closure for the reasons of [`JobBuilder::submit_async`].
    ///
    /// # Panics
    ///
    /// The future panics if it is polled after completion.
    #[track_caller]
    pub fn submit_async<T>(self) -> StatefulSubmitAsync<S, F, T>
    where
        F: FnOnce(&mut S) -> T + Send + 'static,
        T: Send + 'static,
    {
        StatefulSubmitAsync::new(self.0.submit_async_as(Location::caller()))
    }
}

impl<S, F> fmt::Debug for StatefulJobBuilder<'_, S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StatefulJobBuilder").field(&self.0).finish()
    }
}
