//! How a job gets into the queue, and how one waits for room there.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::future::FusedFuture;

use crate::block_on::{Sleeper, blocks_here};
use crate::error::{Closed, Refusal, SubmitError};
use crate::pool::room::{Room, Ticket};
use crate::pool::roster::wake_all;
use crate::pool::shared::Shared;
use crate::pool::worker::announce;
use crate::sync::Arc;
use crate::task::handle::JoinHandle;
use crate::task::job::Job;

/// Queues a job that has a place, and sees to it that a worker takes it. The closure comes back if the pool takes no
/// more jobs.
pub(crate) fn enqueue<F, T>(
    shared: &Arc<Shared>,
    closure: F,
    origin: &'static Location<'static>,
) -> Result<JoinHandle<T>, (Closed, F)>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let cell = shared.cell(closure, origin);
    let job = Job::new(Arc::clone(&cell) as _);
    match shared.queue.push(job, || shared.counters.submitted()) {
        Ok(()) => {
            let handle = JoinHandle::new(cell);
            announce(shared);
            Ok(handle)
        }
        Err((job, closed)) => {
            job.disarm();
            shared.give_back_place();
            shared.counters.rejected();
            let closure = cell.reclaim().expect("nobody else has seen this job");
            Err((closed, closure))
        }
    }
}

/// Waits for a place, blocking this thread.
pub(crate) fn wait_for_place(room: &Room) {
    if room.try_take() {
        return;
    }
    let sleeper = Sleeper::new();
    let mut ticket = None;
    while room.poll(&mut ticket, sleeper.waker()).is_pending() {
        sleeper.sleep(None);
    }
}

/// A job on its way into the queue: see [`ThreadPool::submit_async`](crate::ThreadPool::submit_async).
///
/// It does nothing until it is polled. Dropped before it is ready, it has submitted nothing, and its place in the line
/// goes to the next one.
#[must_use = "nothing is submitted unless it is awaited"]
pub struct SubmitAsync<F, T> {
    shared: Arc<Shared>,
    /// `None` once it was ready.
    closure: Option<F>,
    origin: &'static Location<'static>,
    ticket: Option<Ticket>,
    result: PhantomData<fn() -> T>,
}

impl<F, T> SubmitAsync<F, T> {
    pub(crate) fn new(shared: Arc<Shared>, closure: F, origin: &'static Location<'static>) -> Self {
        Self {
            shared,
            closure: Some(closure),
            origin,
            ticket: None,
            result: PhantomData,
        }
    }
}

// The closure is moved, never pinned.
impl<F, T> Unpin for SubmitAsync<F, T> {}

impl<F, T> Future for SubmitAsync<F, T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    type Output = Result<JoinHandle<T>, SubmitError<F>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        assert!(
            this.closure.is_some(),
            "SubmitAsync was polled after it was ready"
        );
        if let Some(room) = &this.shared.queue.room {
            if room.poll(&mut this.ticket, context.waker()).is_pending() {
                if !blocks_here() || this.shared.own_badge().is_none() {
                    return Poll::Pending;
                }
                // The thread that waits would be missing where room is made.
                wake_all(this.ticket.take().and_then(|ticket| room.give_up(ticket)));
                room.take_anyway();
            }
        }
        let closure = this.closure.take().expect("it was looked for above");
        Poll::Ready(
            enqueue(&this.shared, closure, this.origin)
                .map_err(|(closed, closure)| SubmitError::new(Refusal::Closed(closed), closure)),
        )
    }
}

impl<F, T> FusedFuture for SubmitAsync<F, T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    fn is_terminated(&self) -> bool {
        self.closure.is_none()
    }
}

impl<F, T> Drop for SubmitAsync<F, T> {
    fn drop(&mut self) {
        if let (Some(room), Some(ticket)) = (&self.shared.queue.room, self.ticket.take()) {
            wake_all(room.give_up(ticket));
        }
    }
}

impl<F, T> fmt::Debug for SubmitAsync<F, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match (&self.closure, &self.ticket) {
            (None, _) => "done",
            (Some(_), None) => "not waiting",
            (Some(_), Some(_)) => "waiting for room",
        };
        f.debug_tuple("SubmitAsync")
            .field(&format_args!("{state}"))
            .finish()
    }
}
