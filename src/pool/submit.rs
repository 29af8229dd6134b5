//! How a job gets into the queue, and how one waits for room there.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::future::FusedFuture;

use crate::error::{Closed, Refusal, SubmitError};
use crate::park::helping::blocks_here;
use crate::park::parker::Sleeper;
use crate::pool::inner::{Homes, Shared};
use crate::pool::queue::Pushed;
use crate::pool::registry::wake_all;
use crate::pool::semaphore::{Room, Ticket};
use crate::pool::worker::announce;
use crate::task::cell::Cell;
use crate::task::job::Job;
use crate::task::join_handle::JoinHandle;
use crate::task::span::{self, Span};
use crate::util::sync::Arc;

/// Queues a job that has a place, and sees to it that a worker takes it. The closure comes back if the pool takes no
/// more jobs.
pub(crate) fn enqueue<F, T>(
    shared: &Arc<Shared>,
    homes: &Homes,
    closure: F,
    origin: &'static Location<'static>,
    span: Option<Span>,
) -> Result<JoinHandle<T>, (Closed, F)>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let cell = Arc::new(Cell::queued(closure, origin, span, homes.mine()));
    let job = Job::new(Arc::clone(&cell) as _);
    let accept = |_: &Job| {
        shared.counters.submitted();
        true
    };
    match shared.queue.push(job, accept) {
        Ok(_) => {
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

/// As [`enqueue`], for a job that was made elsewhere.
pub(crate) fn enqueue_job(shared: &Arc<Shared>, homes: &Homes, job: Job) {
    let accept = |job: &Job| {
        let accepted = job.settle(Arc::new(homes.mine()));
        if accepted {
            shared.counters.submitted();
        }
        accepted
    };
    let nudge = job.nudge();
    match shared.queue.push(job, accept) {
        Ok(Pushed::Yes) => {
            announce(shared);
            // Somebody may wait for it already, in a worker, who had no pool to help so far.
            nudge();
        }
        Ok(Pushed::Not) => shared.give_back_place(),
        Err((job, closed)) => {
            shared.give_back_place();
            shared.counters.rejected();
            job.refuse(closed.into());
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

/// Someone who waits for a place without blocking. Dropping it leaves the line.
pub(crate) struct Line {
    shared: Arc<Shared>,
    homes: Arc<Homes>,
    ticket: Option<Ticket>,
}

impl Line {
    pub(crate) fn new(shared: Arc<Shared>, homes: Arc<Homes>) -> Self {
        let ticket = None;
        Self {
            shared,
            homes,
            ticket,
        }
    }

    /// Takes a place, or stands in line for one. In one of the pool's own workers a wait that blocks the thread goes over
    /// the capacity.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(room) = &self.shared.queue.room else {
            return Poll::Ready(());
        };
        if room.poll(&mut self.ticket, context.waker()).is_pending() {
            if !blocks_here() || self.shared.own_badge().is_none() {
                return Poll::Pending;
            }
            // The thread that waits would be missing where room is made.
            wake_all(self.ticket.take().and_then(|ticket| room.give_up(ticket)));
            room.take_anyway();
        }
        Poll::Ready(())
    }

    /// Takes a place if there is one now and nobody waits for it.
    pub(crate) fn try_take(&self) -> bool {
        let room = self.shared.queue.room.as_ref();
        self.ticket.is_none() && room.is_none_or(Room::try_take)
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.ticket.is_some()
    }

    /// As [`enqueue`].
    pub(crate) fn enqueue<F, T>(
        &self,
        closure: F,
        origin: &'static Location<'static>,
        span: Option<Span>,
    ) -> Result<JoinHandle<T>, (Closed, F)>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        enqueue(&self.shared, &self.homes, closure, origin, span)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let (Some(room), Some(ticket)) = (&self.shared.queue.room, self.ticket.take()) {
            wake_all(room.give_up(ticket));
        }
    }
}

/// A job on its way into the queue: see [`ThreadPool::submit_async`](crate::ThreadPool::submit_async).
///
/// It does nothing until it is polled. Dropped before it is ready, it has submitted nothing, and its place in the line
/// goes to the next one.
#[must_use = "nothing is submitted unless it is awaited"]
pub struct SubmitAsync<F, T> {
    line: Line,
    /// `None` once it was ready.
    closure: Option<F>,
    origin: &'static Location<'static>,
    span: Option<Span>,
    result: PhantomData<fn() -> T>,
}

impl<F, T> SubmitAsync<F, T> {
    pub(crate) fn new(line: Line, closure: F, origin: &'static Location<'static>) -> Self {
        Self {
            line,
            closure: Some(closure),
            origin,
            span: span::current(),
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
        ready!(this.line.poll(context));
        let closure = this.closure.take().expect("it was looked for above");
        Poll::Ready(
            (this.line)
                .enqueue(closure, this.origin, this.span.take())
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

impl<F, T> fmt::Debug for SubmitAsync<F, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match (&self.closure, self.line.is_waiting()) {
            (None, _) => "done",
            (Some(_), false) => "not waiting",
            (Some(_), true) => "waiting for room",
        };
        f.debug_tuple("SubmitAsync")
            .field(&format_args!("{state}"))
            .finish()
    }
}
