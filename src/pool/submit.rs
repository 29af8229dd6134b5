//! How a job gets into the queue, and how a submitter waits for a permit.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::future::FusedFuture;

use crate::error::{Closed, JoinError, Refusal, SubmitError};
use crate::park::helping::in_block_on;
use crate::park::parker::Parker;
use crate::pool::expiry;
use crate::pool::inner::{PoolInner, PoolRefs};
use crate::pool::job::{JobOptions, Priority, Submission};
use crate::pool::observer::{JobInfo, Observer};
use crate::pool::queue::Push;
use crate::pool::semaphore::{Semaphore, Ticket};
use crate::pool::spawn::notify_work;
use crate::task::cell::{Details, JobClosure, RawTask, Scheduler, TaskCell};
use crate::task::job::Job;
use crate::task::join_handle::JoinHandle;
use crate::task::span::{self, Span};
use crate::task::stamp::Stamp;
use crate::task::state::Origin;
use crate::util::sync::{Arc, Instant};
use crate::util::timer::Deadline;
use crate::util::unwind::wake;

/// Queues a job that has its permit, and ensures that a worker takes it. The closure comes back if
/// the pool accepts no more jobs.
#[inline]
pub(crate) fn enqueue<F, T>(
    pool: &Arc<PoolInner>,
    refs: &PoolRefs,
    closure: F,
    submission: Submission<'_>,
) -> Result<JoinHandle<T>, (Closed, F)>
where
    F: JobClosure<T>,
    T: Send + 'static,
{
    let task = enqueue_with(pool, refs.get(), closure, submission)?;
    Ok(JoinHandle::new(task))
}

/// Why a job was not queued, and its closure.
pub(crate) type NotQueued<F> = (Closed, F);

/// Queues a job with a scheduler of its own, and returns its task: see [`enqueue`].
#[inline]
pub(crate) fn enqueue_with<S, F, T>(
    pool: &Arc<PoolInner>,
    scheduler: S,
    closure: F,
    submission: Submission<'_>,
) -> Result<Arc<TaskCell<F, T, S>>, NotQueued<F>>
where
    S: Scheduler,
    F: JobClosure<T>,
    T: Send + 'static,
{
    // Approximate: it only ranks the candidates of a probe. The queue has its own order.
    let order = pool.counters().next_order();
    let Submission {
        origin,
        span,
        options,
    } = submission;
    let task = Arc::new(TaskCell::queued(closure, origin, span, order, scheduler));
    let job = Job::new(Arc::clone(&task) as _);
    let queued = match pool.is_plain(order) && options.is_plain() {
        true => enqueue_plain(pool, job, options.priority, || ()),
        false => enqueue_special(pool, job, options, order),
    };
    match queued {
        Ok(()) => Ok(task),
        Err(closed) => {
            let closure = task.reclaim().expect("no other thread has seen this job");
            Err((closed, closure))
        }
    }
}

/// The part of [`enqueue`] that does not depend on the types of closure and result.
///
/// `added`: see [`PoolInner::push`].
fn enqueue_plain(
    pool: &Arc<PoolInner>,
    job: Job,
    priority: Priority,
    added: impl FnOnce(),
) -> Result<(), Closed> {
    match pool.push(job, priority, |_| true, added) {
        Ok(_) => {
            // After the push, outside the queue's lock: spawning a thread is a system call.
            notify_work(pool);
            Ok(())
        }
        Err((job, closed)) => {
            // The closure goes back to the caller instead of being cancelled.
            job.disarm();
            Err(closed)
        }
    }
}

/// Does what [`enqueue_plain`] does for a job that is not a plain one.
#[cold]
fn enqueue_special(
    pool: &Arc<PoolInner>,
    job: Job,
    options: &JobOptions,
    order: u32,
) -> Result<(), Closed> {
    let special = Special::new(pool, &job, options, order, Instant::now());
    special.prepare(&job);
    enqueue_plain(pool, job, options.priority, || special.set_deadline())?;
    special.tell(pool);
    Ok(())
}

/// Queues a job that was made for any executor, and that has its permit.
pub(crate) fn enqueue_job(pool: &Arc<PoolInner>, refs: &PoolRefs, job: Job, options: &JobOptions) {
    let rewake = job.rewake();
    let order = pool.counters().next_order();
    let special = match pool.is_plain(order) && options.is_plain() {
        true => None,
        false => Some(Special::new(pool, &job, options, order, Instant::now())),
    };
    let accept = |job: &Job| {
        // Before the job has a pool. If it is cancelled in between, it is not accepted, and nothing
        // tells of it.
        if let Some(special) = &special {
            special.prepare(job);
        }
        job.attach(Arc::new(refs.get()), order)
    };
    let added = || special.iter().for_each(Special::set_deadline);
    match pool.push(job, options.priority, accept, added) {
        Ok(Push::Accepted) => {
            notify_work(pool);
            // A worker may wait for it already. It could not help before, as the job had no pool.
            rewake();
            if let Some(special) = special {
                special.tell(pool);
            }
        }
        Ok(Push::AlreadyCancelled) => {}
        Err((job, closed)) => job.refuse(closed.into()),
    }
}

/// What is done for a job that has options, or whose pool has some for it:
///
/// 1. [`new`](Self::new), then [`prepare`](Self::prepare), before another thread can start the job.
/// 2. [`set_deadline`](Self::set_deadline) when it is in the queue, before any user code is called.
/// 3. [`tell`](Self::tell), which calls user code.
pub(super) struct Special {
    task: Arc<dyn RawTask>,
    details: Details,
    origin: Origin,
    stamp: Stamp,
    /// When the job was accepted.
    at: Instant,
}

impl Special {
    #[cold]
    pub(super) fn new(
        pool: &PoolInner,
        job: &Job,
        options: &JobOptions,
        order: u32,
        at: Instant,
    ) -> Self {
        let options = options.submitted_at(pool, || at);
        if options.deadline.is_some() {
            pool.note_deadline();
        }
        let (stamp, id) = match pool.samples(order) {
            true => (Stamp::at(at), pool.observer().map_or(0, Observer::next_id)),
            false => (Stamp::NONE, 0),
        };
        let task = job.task().expect("the job was not queued before");
        let origin = task.state(|state| state.origin());
        Self {
            task,
            details: Details {
                id,
                label: options.label,
                task: options.task,
                deadline: options.deadline,
            },
            origin,
            stamp,
            at,
        }
    }

    /// Before the job is visible in the queue. Does nothing if it was cancelled before that.
    pub(super) fn prepare(&self, job: &Job) {
        job.prepare(self.details.clone(), self.stamp);
    }

    /// Ensures that the job, which is in the queue or was there, expires at its deadline. No lock
    /// is held.
    pub(super) fn set_deadline(&self) {
        if let Some(deadline) = self.details.deadline {
            expiry::expire_at(&self.task, deadline);
        }
    }

    /// Tells the pool's observer that the job was accepted. No lock is held.
    #[cold]
    pub(super) fn tell(self, pool: &PoolInner) {
        if let (true, Some(observer)) = (self.stamp.is_some(), pool.observer()) {
            observer.accepted(&JobInfo::new(&self.details, self.origin), self.at);
        }
    }
}

/// Acquires a permit, blocking this thread until the deadline. Returns false if that has passed.
#[must_use]
pub(crate) fn acquire_blocking(semaphore: &Semaphore, deadline: Option<Instant>) -> bool {
    if semaphore.try_acquire() {
        return true;
    }
    let parker = Parker::new();
    let mut ticket = None;
    while semaphore
        .poll_acquire(&mut ticket, parker.waker())
        .is_pending()
    {
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            if let Some(waker) = ticket.and_then(|ticket| semaphore.cancel(ticket)) {
                wake(waker);
            }
            return false;
        }
        parker.park(deadline);
    }
    true
}

/// A submitter that acquires a permit without blocking. Dropping it gives up its position.
pub(crate) struct Acquire {
    submitter: PoolSubmitter,
    ticket: Option<Ticket>,
}

impl Acquire {
    pub(crate) fn new(pool: Arc<PoolInner>, refs: Arc<PoolRefs>) -> Self {
        PoolSubmitter { pool, refs }.acquire()
    }

    /// Acquires a permit, or waits for one. In one of the pool's own workers a wait that blocks the
    /// thread exceeds the capacity instead.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(semaphore) = self.submitter.pool.semaphore() else {
            return Poll::Ready(());
        };
        let acquired = semaphore.poll_acquire(&mut self.ticket, context.waker());
        if acquired.is_pending() {
            if !in_block_on() || self.submitter.pool.current_worker().is_none() {
                return Poll::Pending;
            }
            // Permits are released when workers start jobs. If all of them waited here, none would
            // be.
            self.cancel();
            self.submitter.force_acquire();
        }
        Poll::Ready(())
    }

    /// Acquires a permit if one is free and nothing waits for it.
    pub(crate) fn try_acquire(&self) -> bool {
        self.ticket.is_none() && self.submitter.try_acquire()
    }

    /// Returns a way to queue jobs in the same pool.
    pub(crate) fn submitter(&self) -> PoolSubmitter {
        self.submitter.clone()
    }

    fn is_waiting(&self) -> bool {
        self.ticket.is_some()
    }

    /// Stops waiting. A permit that was granted meanwhile is passed on.
    pub(crate) fn cancel(&mut self) {
        if let (Some(semaphore), Some(ticket)) =
            (self.submitter.pool.semaphore(), self.ticket.take())
        {
            if let Some(waker) = semaphore.cancel(ticket) {
                wake(waker);
            }
        }
    }
}

impl Drop for Acquire {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// An [`Acquire`] that ends at the deadline of its job.
pub(crate) struct AcquireInTime {
    acquire: Acquire,
    options: JobOptions,
    /// Wakes the task at the deadline, while it waits.
    deadline: Option<Deadline>,
}

impl AcquireInTime {
    pub(crate) fn new(acquire: Acquire, options: &JobOptions) -> Self {
        Self {
            options: options.submitted_now(&acquire.submitter.pool),
            acquire,
            deadline: None,
        }
    }

    pub(crate) fn options(&self) -> &JobOptions {
        &self.options
    }

    /// Acquires a permit, as [`Acquire::poll`] does. At the deadline it returns the error of the
    /// job, which counts as rejected.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), JoinError>> {
        if self.options.is_late() {
            return Poll::Ready(Err(self.expire()));
        }
        if self.acquire.poll(context).is_ready() {
            self.deadline = None;
            return Poll::Ready(Ok(()));
        }
        let Some(at) = self.options.deadline else {
            return Poll::Pending;
        };
        let deadline = self.deadline.get_or_insert_with(|| Deadline::at(at));
        ready!(deadline.poll(context));
        Poll::Ready(Err(self.expire()))
    }

    fn expire(&mut self) -> JoinError {
        self.deadline = None;
        self.acquire.cancel();
        self.acquire.submitter.pool.counters().rejected();
        JoinError::expired_job(self.options.task)
    }
}

/// Queues jobs in a pool without borrowing the [`ThreadPool`](crate::ThreadPool), and without
/// waiting for permits. It does not keep the pool open.
#[derive(Clone)]
pub(crate) struct PoolSubmitter {
    pool: Arc<PoolInner>,
    refs: Arc<PoolRefs>,
}

impl PoolSubmitter {
    /// Starts to acquire a permit without blocking.
    pub(crate) fn acquire(&self) -> Acquire {
        Acquire {
            submitter: self.clone(),
            ticket: None,
        }
    }

    /// Returns whether jobs need permits.
    pub(crate) fn is_bounded(&self) -> bool {
        self.pool.semaphore().is_some()
    }

    /// Acquires a permit if one is free and nothing waits for it.
    pub(crate) fn try_acquire(&self) -> bool {
        self.pool.semaphore().is_none_or(Semaphore::try_acquire)
    }

    /// Acquires a permit, above the capacity if necessary.
    pub(crate) fn force_acquire(&self) {
        if let Some(semaphore) = self.pool.semaphore() {
            semaphore.force_acquire();
        }
    }

    /// Returns the reason why the pool accepts no more jobs, if it does not.
    pub(crate) fn closed(&self) -> Option<Closed> {
        self.pool.closed()
    }

    /// Returns whether `shutdown_now` was called.
    pub(crate) fn is_stopping(&self) -> bool {
        self.pool.is_stopping()
    }

    /// Queues a job with an acquired permit: see [`enqueue`].
    pub(crate) fn enqueue<F, T>(
        &self,
        closure: F,
        origin: Origin,
        span: Option<Span>,
    ) -> Result<JoinHandle<T>, (Closed, F)>
    where
        F: JobClosure<T>,
        T: Send + 'static,
    {
        self.enqueue_as(closure, Submission::plain(origin, span))
    }

    /// Queues a job that has options, with an acquired permit: see [`enqueue`].
    pub(crate) fn enqueue_as<F, T>(
        &self,
        closure: F,
        submission: Submission<'_>,
    ) -> Result<JoinHandle<T>, (Closed, F)>
    where
        F: JobClosure<T>,
        T: Send + 'static,
    {
        enqueue(&self.pool, &self.refs, closure, submission)
    }

    /// Queues a job that was made for any executor, with an acquired permit: see [`enqueue_job`].
    pub(crate) fn enqueue_job(&self, job: Job) {
        enqueue_job(&self.pool, &self.refs, job, &JobOptions::PLAIN);
    }
}

/// A job that waits for room in the queue: see
/// [`ThreadPool::submit_async`](crate::ThreadPool::submit_async).
///
/// **Dropping it before it is ready submits nothing.** Its turn passes to the next submitter.
///
/// It does nothing until it is polled.
#[must_use = "nothing is submitted unless it is awaited"]
pub struct SubmitAsync<F, T> {
    acquire: AcquireInTime,
    /// `None` once it was ready.
    closure: Option<F>,
    origin: Origin,
    span: Option<Span>,
    result: PhantomData<fn() -> T>,
}

impl<F, T> SubmitAsync<F, T> {
    pub(crate) fn new(acquire: Acquire, closure: F, origin: Origin, options: &JobOptions) -> Self {
        Self {
            acquire: AcquireInTime::new(acquire, options),
            closure: Some(closure),
            origin,
            span: span::current(),
            result: PhantomData,
        }
    }
}

// The closure is moved, never pinned.
impl<F, T> Unpin for SubmitAsync<F, T> {}

impl<F, T> SubmitAsync<F, T> {
    /// Polls as [`poll`](Future::poll) does, for any kind of job.
    #[track_caller]
    pub(crate) fn poll_submit(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<JoinHandle<T>, SubmitError<F>>>
    where
        F: JobClosure<T>,
        T: Send + 'static,
    {
        assert!(
            self.closure.is_some(),
            "SubmitAsync was polled after it was ready"
        );
        let acquired = ready!(self.acquire.poll(context));
        let closure = self.closure.take().expect("it was looked for above");
        if let Err(expired) = acquired {
            let expired = Box::new(expired.submitted_at(self.origin));
            return Poll::Ready(Err(SubmitError::new(Refusal::Unable(expired), closure)));
        }
        let submission = Submission {
            origin: self.origin,
            span: self.span.take(),
            options: self.acquire.options(),
        };
        Poll::Ready(
            (self.acquire.acquire.submitter)
                .enqueue_as(closure, submission)
                .map_err(|(closed, closure)| SubmitError::new(Refusal::Closed(closed), closure)),
        )
    }

    /// Returns whether the future was ready.
    pub(crate) fn is_done(&self) -> bool {
        self.closure.is_none()
    }
}

impl<F, T> Future for SubmitAsync<F, T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    type Output = Result<JoinHandle<T>, SubmitError<F>>;

    #[track_caller]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_submit(context)
    }
}

impl<F, T> FusedFuture for SubmitAsync<F, T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    fn is_terminated(&self) -> bool {
        self.is_done()
    }
}

impl<F, T> fmt::Debug for SubmitAsync<F, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match (&self.closure, self.acquire.acquire.is_waiting()) {
            (None, _) => "done",
            (Some(_), false) => "not waiting",
            (Some(_), true) => "waiting for room",
        };
        f.debug_tuple("SubmitAsync")
            .field(&format_args!("{state}"))
            .finish()
    }
}
