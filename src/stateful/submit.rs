//! A job with a state that waits for room in the queue.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::future::FusedFuture;

use super::job::StatefulJob;
use crate::error::{Refusal, SubmitError};
use crate::pool::Acquire;
use crate::task::join_handle::JoinHandle;
use crate::task::span::{self, Span};
use crate::task::state::Origin;

/// A job that waits for room in the queue of a [`StatefulPool`](crate::StatefulPool): see
/// [`submit_async`](crate::StatefulPool::submit_async).
///
/// **Dropping it before it is ready submits nothing.** Its turn passes to the next submitter.
///
/// It does nothing until it is polled.
#[must_use = "nothing is submitted unless it is awaited"]
pub struct StatefulSubmitAsync<S, F, T> {
    acquire: Acquire,
    /// `None` once it was ready.
    job: Option<StatefulJob<S, F>>,
    origin: Origin,
    span: Option<Span>,
    result: PhantomData<fn() -> T>,
}

impl<S, F, T> StatefulSubmitAsync<S, F, T> {
    pub(super) fn new(acquire: Acquire, job: StatefulJob<S, F>, origin: Origin) -> Self {
        Self {
            acquire,
            job: Some(job),
            origin,
            span: span::current(),
            result: PhantomData,
        }
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
        let this = &mut *self;
        assert!(
            this.job.is_some(),
            "StatefulSubmitAsync was polled after it was ready"
        );
        ready!(this.acquire.poll(context));
        let job = this.job.take().expect("it was looked for above");
        let submitter = this.acquire.submitter();
        Poll::Ready(
            submitter
                .enqueue(job, this.origin, this.span.take())
                .map_err(|(closed, job)| {
                    SubmitError::new(Refusal::Closed(closed), job.into_closure())
                }),
        )
    }
}

impl<S, F, T> FusedFuture for StatefulSubmitAsync<S, F, T>
where
    S: 'static,
    F: FnOnce(&mut S) -> T + Send + 'static,
    T: Send + 'static,
{
    fn is_terminated(&self) -> bool {
        self.job.is_none()
    }
}

impl<S, F, T> fmt::Debug for StatefulSubmitAsync<S, F, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatefulSubmitAsync")
            .field("done", &self.job.is_none())
            .finish_non_exhaustive()
    }
}
