//! How the jobs of an [`Unblock`](super::Unblock) reach its pool.
//!
//! A full bounded pool makes a job wait for room. The consumer may stop polling in the meantime, so
//! the wait must not depend on its polls: a permit that is granted to a future that is never polled
//! again would be lost for the other submitters. A [`RoomWait`] is therefore its own waker, and
//! queues the job on the thread that grants the permit.

use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll, Wake, Waker};

use crate::error::JoinError;
use crate::executor::{Executor, submit_to};
use crate::pool::{Acquire, PoolSubmitter, ThreadPool, global};
use crate::task::job::Job;
use crate::task::join_handle::JoinHandle;
use crate::task::span;
use crate::task::state::Origin;
use crate::util::sync::{Arc, Mutex};
use crate::util::unwind::drop_catching;

/// The pool that an `Unblock` submits its jobs to.
pub(super) struct Target {
    /// `None`: the process-wide pool, which is created by the first job.
    pool: Option<PoolSubmitter>,
    /// Where the `Unblock` was created: errors of its jobs show this place.
    origin: Origin,
}

impl Target {
    #[track_caller]
    pub(super) fn global() -> Self {
        Self {
            pool: None,
            origin: Location::caller(),
        }
    }

    #[track_caller]
    pub(super) fn pool(pool: &ThreadPool) -> Self {
        Self {
            pool: Some(pool.acquire().submitter()),
            origin: Location::caller(),
        }
    }

    fn acquire(&self) -> Acquire {
        match &self.pool {
            Some(pool) => pool.acquire(),
            None => global().pool.acquire(),
        }
    }

    /// Returns a copy, for a job that submits its successor.
    pub(super) fn copy(&self) -> Self {
        Self {
            pool: self.pool.clone(),
            origin: self.origin,
        }
    }

    /// Queues a job, or lets it wait for room.
    ///
    /// # Errors
    ///
    /// Returns the reason if the pool accepts no more jobs. The closure is then dropped.
    pub(super) fn submit<F, R>(&self, closure: F) -> Result<Submission<R>, JoinError>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        let acquire = self.acquire();
        if acquire.try_acquire() {
            return self.enqueue(&acquire, closure);
        }
        let wait = Arc::new(RoomWait::default());
        let handle = submit_to(&*wait, closure, self.origin, span::current());
        wait.begin(acquire);
        let wait = Some(wait);
        Ok(Submission { handle, wait })
    }

    /// Queues a job without waiting for room: for a job that runs in the pool and submits its
    /// successor, and must not block the worker.
    pub(super) fn submit_in_job<F, R>(&self, closure: F) -> Result<Submission<R>, JoinError>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        let acquire = self.acquire();
        acquire.submitter().force_acquire();
        self.enqueue(&acquire, closure)
    }

    fn enqueue<F, R>(&self, acquire: &Acquire, closure: F) -> Result<Submission<R>, JoinError>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        match acquire
            .submitter()
            .enqueue(closure, self.origin, span::current())
        {
            Ok(handle) => Ok(Submission { handle, wait: None }),
            Err((closed, closure)) => {
                drop_catching("the destructor of a job's closure", closure);
                Err(closed.into())
            }
        }
    }
}

/// A job that is queued, or waits for room in the queue. Dropping it detaches the job.
pub(super) struct Submission<R> {
    handle: JoinHandle<R>,
    wait: Option<Arc<RoomWait>>,
}

impl<R> Submission<R> {
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<R, JoinError>> {
        if let Some(wait) = &self.wait {
            // In a worker that blocks, this poll exceeds the capacity instead of waiting.
            wait.poll();
        }
        Pin::new(&mut self.handle).poll(context)
    }

    /// Takes the outcome if the job has finished.
    pub(super) fn try_take(&mut self) -> Option<Result<R, JoinError>> {
        self.handle.try_join()
    }

    /// Cancels the job if it has not started. Returns whether it is cancelled.
    pub(super) fn cancel(&self) -> bool {
        let cancelled = self.handle.cancel();
        if let (true, Some(wait)) = (cancelled, &self.wait) {
            wait.give_up();
        }
        cancelled
    }
}

/// A job that waits for room, and queues itself.
#[derive(Default)]
struct RoomWait {
    state: Mutex<RoomState>,
}

#[derive(Default)]
struct RoomState {
    /// The job, until the wait begins.
    job: Option<Job>,
    /// The job and its position in the queue for permits. `None` while a thread polls, and once the
    /// job is queued.
    waiting: Option<(Acquire, Job)>,
    /// Whether the waker was called while a thread polled: that thread polls again.
    woken: bool,
}

/// The "executor" that a waiting job is created for. It only keeps the job.
impl Executor for RoomWait {
    fn execute(&self, job: Job) {
        self.state.lock().job = Some(job);
    }
}

impl RoomWait {
    fn begin(self: &Arc<Self>, acquire: Acquire) {
        let mut state = self.state.lock();
        state.waiting = state.job.take().map(|job| (acquire, job));
        drop(state);
        self.poll();
    }

    fn poll(self: &Arc<Self>) {
        let waker = Waker::from(Arc::clone(self));
        loop {
            let mut state = self.state.lock();
            let Some((mut acquire, job)) = state.waiting.take() else {
                // Another thread polls, or the job is queued.
                state.woken = true;
                return;
            };
            state.woken = false;
            drop(state);
            if acquire.poll(&mut Context::from_waker(&waker)).is_ready() {
                acquire.submitter().enqueue_job(job);
                return;
            }
            let mut state = self.state.lock();
            state.waiting = Some((acquire, job));
            if !state.woken {
                return;
            }
        }
    }

    /// Gives up the position in the queue for permits, of a job that is cancelled.
    fn give_up(&self) {
        // The guard is dropped within this statement: dropping the position may wake a submitter.
        let waiting = self.state.lock().waiting.take();
        drop(waiting);
    }
}

impl Wake for RoomWait {
    fn wake(self: Arc<Self>) {
        self.poll();
    }
}
