//! One allocation for a task: its state, its closure, then its outcome. The executor's half
//! ([`Job`](crate::Job)) and the caller's half ([`JoinHandle`](crate::JoinHandle)) share it.
//!
//! Every change is made under the cell's lock. What must be called or dropped because of a change
//! (closure, callback, waker, outcome) is taken out under the lock and called or dropped after it.

use std::borrow::Borrow;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

use crate::error::JoinError;
use crate::pool::PoolInner;
use crate::pool::expiry::ExpiryGuard;
use crate::pool::observer::{JobInfo, Observation, Observer};
use crate::task::context::{CancellingFrame, RunningFrame, ThreadId, current_task};
use crate::task::span::{EnteredSpan, SUBSCRIBER, Span};
use crate::task::stamp::{Resolved, Stamp};
use crate::task::state::{Cancel, Lend, Origin, OutcomeKind, Stage, Start, State, Take};
use crate::util::fault::fault_or;
use crate::util::sync::{Arc, Instant, Mutex, MutexGuard};
use crate::util::unwind::{
    catch_panic, drop_catching, drop_waker, emit, panic_message, wake, wake_all,
};

/// A task. `S` is how it reaches the pool that it is queued in.
pub(crate) struct TaskCell<F, T, S> {
    scheduler: S,
    /// Whether the outcome is visible. Set by the thread that ends the task, after it has released
    /// the lock. So a thread that spins until the end neither takes that lock, nor finds it taken
    /// then. Only a hint: what is true of the task is in its state.
    ///
    /// It also holds the stamp of a job that is observed.
    resolved: Resolved,
    inner: Mutex<Inner<F, T>>,
}

struct Inner<F, T> {
    state: State,
    payload: Payload<F, T>,
    /// Rarely needed, so boxed to keep the task small.
    extras: Option<Box<Extras<T>>>,
}

enum Payload<F, T> {
    /// While the state is `Queued`, and while it is `Cancelling` until the cancelling thread takes
    /// the closure out.
    Closure(F),
    /// While the state is `Finished`.
    Outcome(Result<T, JoinError>),
    Empty,
}

pub(crate) type Callback<T> = Box<dyn FnOnce(Result<&T, &JoinError>) + Send>;

/// Callbacks run on one thread at a time. Of a job that ran they run in [`TaskCell::resolve`],
/// before the outcome is visible. Of a job that never ran they run in [`RawTask::run_callbacks`],
/// after that. One that is added later runs in [`TaskCell::lend_to_callbacks`], with those that are
/// added meanwhile.
struct Extras<T> {
    /// Not run yet, in the order added.
    callbacks: Vec<Callback<T>>,
    /// A thread runs callbacks of a task that is finished, and takes those added meanwhile.
    draining: bool,
    rare: Rare,
}

/// What a job has that is not a plain one. It does not depend on the job's types, and what is done
/// with it is not part of the code of each job.
#[derive(Default)]
struct Rare {
    /// The span that was current at `submit`. Only while the task is queued.
    span: Option<Span>,
    /// Has the job refused at its deadline. Only while the task is queued.
    expiry: Option<ExpiryGuard>,
    details: Details,
}

/// What only some jobs have. It is written before the job is queued.
#[derive(Debug, Clone, Default)]
pub(crate) struct Details {
    /// 0 unless events tell of the job.
    pub(crate) id: u64,
    pub(crate) label: Option<&'static str>,
    /// The name of the task that the job calls, for the error of a job that expires.
    pub(crate) task: Option<&'static str>,
    /// The latest time at which the job can start.
    pub(crate) deadline: Option<Instant>,
}

impl Details {
    const NONE: Self = Self {
        id: 0,
        label: None,
        task: None,
        deadline: None,
    };

    fn is_some(&self) -> bool {
        self.id != 0 || self.label.is_some() || self.deadline.is_some()
    }
}

impl<T> Default for Extras<T> {
    fn default() -> Self {
        Self {
            callbacks: Vec::new(),
            draining: false,
            rare: Rare::default(),
        }
    }
}

/// The pool of a task, which counts what happens to the task, and knows its own workers. By default
/// everything is passed on to an [inner](Self::inner) scheduler, and without that nothing is
/// counted.
pub(crate) trait Scheduler: Send + Sync + 'static {
    /// Returns the scheduler that the default methods pass on to.
    fn inner(&self) -> Option<&dyn Scheduler> {
        None
    }
    /// The task is about to be visible as running. Called under the task's lock: only counts.
    fn on_start(&self, runner: Runner) {
        self.inner().inspect(|inner| inner.on_start(runner));
    }
    /// The task has left the queue, or leaves a tombstone in it.
    fn on_dequeue(&self, runner: Runner) {
        self.inner().inspect(|inner| inner.on_dequeue(runner));
    }
    /// The outcome is about to be visible. `wakes`: this thread will run a user's waker next.
    /// Called under the task's lock: counts, and may make the worker the one that searches.
    fn on_finish(&self, runner: Runner, kind: OutcomeKind, wakes: bool) {
        self.inner()
            .inspect(|inner| inner.on_finish(runner, kind, wakes));
    }
    /// The user's waker has returned.
    fn on_woken(&self, runner: Runner) {
        self.inner().inspect(|inner| inner.on_woken(runner));
    }
    /// The task will never start. Called under the task's lock: only counts.
    fn on_cancelling(&self) {
        self.inner().inspect(|inner| inner.on_cancelling());
    }
    /// Its closure is dropped.
    fn on_closure_dropped(&self, place: JobPlace) {
        self.inner()
            .inspect(|inner| inner.on_closure_dropped(place));
    }
    /// The error is about to be visible. Called under the task's lock: only counts.
    fn on_not_run(&self, kind: OutcomeKind) {
        self.inner().inspect(|inner| inner.on_not_run(kind));
    }
    /// Returns what the pool observes its jobs with, if it does.
    fn observer(&self) -> Option<&Observer> {
        self.inner()?.observer()
    }
    /// The handle has cancelled the task: its error is visible, or its cancel request is set.
    /// Returns the answer for the handle. May run user code.
    fn on_cancel(&self, cancel: Cancel) -> Cancel {
        cancel
    }
    /// A cancel request was set, of a task whose executor must not stop it. Calls of a chunk that
    /// have not begun need not run. No lock is held.
    fn on_request(&self) {}
    /// The outcome is visible, of a task that `runner` has run or that did not run. Wakes what
    /// waits for an idle pool, so no lock may be held.
    fn on_published(&self, runner: Option<Runner>) {
        self.inner().inspect(|inner| inner.on_published(runner));
    }
    /// Calls `f` on a worker that has taken the task out of the queue and does not run it. `f` runs
    /// user code, so meanwhile nothing may count on this worker.
    fn while_unavailable(&self, f: &mut dyn FnMut()) {
        match self.inner() {
            Some(inner) => inner.while_unavailable(f),
            None => f(),
        }
    }
    /// Returns whether all running jobs are asked to end.
    fn is_stopping(&self) -> bool {
        self.inner().is_some_and(|inner| inner.is_stopping())
    }
    /// Returns this thread's relation to the pool.
    fn role(&self) -> Role {
        self.inner().map_or(Role::Outside, |inner| inner.role())
    }
    /// Returns the only thread that may run the task, if there is just one.
    fn assigned_thread(&self) -> Option<ThreadId> {
        self.inner().and_then(|inner| inner.assigned_thread())
    }
    /// Returns the pool of threads that has the task in its queue, or had it there.
    fn pool(&self) -> Option<&PoolInner> {
        self.inner().and_then(|inner| inner.pool())
    }
    /// Returns whether the pool has more than one job queued, as far as can be seen without a lock.
    fn has_backlog(&self) -> bool {
        self.inner().is_some_and(|inner| inner.has_backlog())
    }
    /// A task made for any executor has reached a pool. Called under the task's lock.
    fn attach(&self, scheduler: Arc<dyn Scheduler>) {
        let _ = scheduler;
    }
}

/// What a thread is to the pool of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// A worker in its loop: it may run the pool's jobs.
    Worker,
    /// A worker in its loop that owns a state: its waits run no jobs.
    StatefulWorker,
    /// A worker that is in its initializer.
    Initializing,
    Outside,
}

/// Where the executor's half of a task is when the task turns out not to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobPlace {
    /// Still in its queue, where it leaves a tombstone.
    InQueue,
    /// Its executor has taken it out.
    TakenOut,
}

/// Which thread runs a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runner {
    /// The thread that took the job out of its queue.
    Executor,
    /// A worker that waits for the task, and so runs it inline.
    Waiter,
}

/// The untyped view of a task: for its executor, for the wait graph, and for a worker that waits.
pub(crate) trait RawTask: Send + Sync {
    fn scheduler(&self) -> &dyn Scheduler;
    /// Calls `f` with the state, under the task's lock. See [`state_of`].
    fn with_state(&self, f: &mut dyn FnMut(&mut State));
    /// Gives a queued task what only some jobs have. Returns false if it is no longer queued.
    fn prepare(&self, details: Details, stamp: Stamp) -> bool;
    /// Sets what ends the deadline of a task, made by `guard` under the task's lock. Does nothing
    /// if the task is no longer queued.
    fn set_expiry(&self, guard: &mut dyn FnMut() -> ExpiryGuard);
    /// Returns whether the task is queued, and its deadline has not passed at `now`. Without `now`,
    /// only whether it is queued.
    fn can_start(&self, now: Option<Instant>) -> bool;
    /// Returns the error of the task, should it expire.
    fn expiry_error(&self) -> JoinError;
    /// Returns the label of the task.
    fn label(&self) -> Option<&'static str>;
    /// Returns whether the task expires if it is queued for too long.
    fn has_deadline(&self) -> bool;
    /// Returns whether the end of the task can be seen without its lock. May be true a moment later
    /// than the state is.
    fn is_resolved(&self) -> bool;
    /// Runs the closure and resolves the task. Returns false if it was not queued. Never unwinds.
    fn run(self: Arc<Self>, runner: Runner) -> bool;
    /// Cancels a queued task up to the drop of its closure; the caller then
    /// [publishes](publish) the error.
    ///
    /// `only_queued`: sets no cancel request if it runs, and returns `Finished` then.
    fn begin_cancel(&self, only_queued: bool) -> Cancel;
    /// Drops the closure of a task that this thread is cancelling.
    fn drop_closure(&self, place: JobPlace);
    /// Makes the error visible. Returns the waker to wake, and whether there are callbacks to run.
    fn publish_error(&self, error: JoinError) -> (Option<Waker>, bool);
    /// Runs the callbacks of a task whose error is visible.
    fn run_callbacks(&self, error: &JoinError);
}

impl<'a> dyn RawTask + 'a {
    /// Calls `f` with the state, under the task's lock: `f` runs no user code.
    pub(crate) fn state<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        state_of(self, f)
    }
}

/// Calls `f` with the state of `task`, under the task's lock: `f` runs no user code.
pub(crate) fn state_of<K: RawTask + ?Sized, R>(task: &K, f: impl FnOnce(&mut State) -> R) -> R {
    let (mut f, mut result) = (Some(f), None);
    task.with_state(&mut |state| {
        result = f.take().map(|f| f(state));
    });
    result.expect("with_state calls its function once")
}

/// The typed view of a task: for its handle.
pub(crate) trait JoinTask<T>: RawTask {
    /// Takes the outcome, if it is there.
    fn take(&self) -> Taken<T>;
    /// The handle goes away.
    fn detach(&self);
    /// Runs `callback` now if the outcome is there. Returns false if the outcome was taken.
    fn add_callback(&self, callback: Callback<T>) -> bool;
    /// Returns how the task ended, and what `test` says of its value. `test` is no user code.
    fn inspect(&self, test: fn(&T) -> bool) -> Option<(OutcomeKind, bool)>;
    fn into_raw(self: Arc<Self>) -> Arc<dyn RawTask>;
}

/// The answer to [`JoinTask::take`].
pub(crate) enum Taken<T> {
    /// `has_callbacks`: some still run, so `add_done_callback` is still possible.
    Outcome {
        outcome: Result<T, JoinError>,
        has_callbacks: bool,
    },
    NotYet,
    /// This thread is cancelling the task.
    CancelledHere,
    /// It was taken before.
    Nothing,
}

impl<F, T, S: Scheduler> TaskCell<F, T, S> {
    /// `order` is the place in the order of submission, modulo 2³².
    pub(crate) fn queued(
        closure: F,
        origin: Origin,
        span: Option<Span>,
        order: u32,
        scheduler: S,
    ) -> Self {
        let extras = span.map(|span| {
            Box::new(Extras {
                rare: Rare {
                    span: Some(span),
                    ..Rare::default()
                },
                ..Extras::default()
            })
        });
        let mut state = State::queued(origin);
        state.set_order(order);
        Self {
            scheduler,
            resolved: Resolved::new(false),
            inner: Mutex::new(Inner {
                state,
                payload: Payload::Closure(closure),
                extras,
            }),
        }
    }

    /// Returns the scheduler, with its type.
    pub(crate) fn scheduler_ref(&self) -> &S {
        &self.scheduler
    }

    /// Makes a task that was refused before it was queued.
    pub(crate) fn refused(error: JoinError, origin: Origin, scheduler: S) -> Self {
        Self {
            scheduler,
            resolved: Resolved::new(true),
            inner: Mutex::new(Inner {
                state: State::refused(origin),
                payload: Payload::Outcome(Err(error.submitted_at(origin))),
                extras: None,
            }),
        }
    }

    /// Takes the closure back out of a task that no executor accepted.
    pub(crate) fn reclaim(&self) -> Option<F> {
        // No other thread has seen the task, so the lock is free and the state is `Queued`.
        let mut inner = self.inner.lock();
        inner.state.reclaim();
        let closure = inner.take_closure();
        let extras = inner.extras.take();
        drop(inner);
        drop_rare(extras.map(|extras| extras.rare));
        closure
    }

    /// Releases the lock under which the task has ended.
    fn release(&self, ended: MutexGuard<'_, Inner<F, T>>) {
        drop(ended);
        self.resolved.set();
    }

    /// Ends a task that ran, in this order: callbacks; an outcome without a handle is dropped;
    /// counters; the outcome is visible; the waiter is woken.
    pub(crate) fn resolve(&self, outcome: Result<T, JoinError>, runner: Runner) {
        let kind = OutcomeKind::of(&outcome);
        if fault_or!("a_task_seems_resolved_too_early": true; false) {
            self.resolved.set();
        }
        let mut inner = self.inner.lock();
        // Callbacks run outside the lock, and more may be added meanwhile.
        while let Some(extras) = inner.extras.take() {
            drop(inner);
            call_all(extras.callbacks, outcome.as_ref());
            inner = self.inner.lock();
            if fault_or!("callbacks_are_run_once": true; false) {
                break;
            }
        }
        if !inner.state.has_join_interest() {
            // The destructor of the outcome is user code. It runs before the job counts as
            // finished, so that a quiet pool holds nothing of the user's.
            drop(inner);
            drop_catching("the destructor of a job's result", outcome);
            // Invariant: counted under the lock under which the end becomes visible. So a thread
            // that finds the pool idle sees each of its jobs as finished, by any reference.
            let mut inner = self.inner.lock();
            self.scheduler.on_finish(runner, kind, false);
            // The handle is gone, so no callback and no waker can arrive.
            let waker = inner.state.finish(kind);
            drop(inner);
            debug_assert!(waker.is_none(), "a detached task keeps no waker");
            self.scheduler.on_published(Some(runner));
            return;
        }
        // From here on the lock is held until the outcome is visible: the handle could be dropped,
        // or another waker registered, in between.
        let wakes = inner.state.wakes_user_code();
        // Invariant: a job is counted as ended before its outcome is visible. From then on its
        // worker counts as idle, unless it must run a user's waker, or waits for the job itself.
        self.scheduler.on_finish(runner, kind, wakes);
        inner.payload = Payload::Outcome(outcome);
        let waker = inner.state.finish(kind);
        self.release(inner);
        // After the lock: a waker may poll the handle at once, on this very thread.
        let wake_waiter = |waker: Option<Waker>| {
            if let Some(waker) = waker {
                fault_or!("the_end_wakes_nobody": drop(waker); wake(waker));
            }
        };
        // A waker of this crate comes first. One of the user takes its time, as may those of an
        // idle pool.
        if wakes {
            self.scheduler.on_published(Some(runner));
            wake_waiter(waker);
            self.scheduler.on_woken(runner);
        } else {
            wake_waiter(waker);
            self.scheduler.on_published(Some(runner));
        }
    }
}

/// The task of a [`Promise`](crate::Promise): nothing runs it, and it has no closure.
impl<T, S: Scheduler> TaskCell<NoClosure<T>, T, S> {
    /// Marks a queued task as running. Returns whether it is running now.
    pub(crate) fn start_by_hand(&self) -> bool {
        let mut inner = self.inner.lock();
        if inner.state.start(ThreadId::UNKNOWN) == Start::Run {
            inner.payload = Payload::Empty;
        }
        matches!(inner.state.stage(), Stage::Running { .. })
    }
}

/// The closure type of a task that is resolved by hand.
pub(crate) type NoClosure<T> = fn() -> T;

impl<F, T> Inner<F, T> {
    fn take_closure(&mut self) -> Option<F> {
        match mem::replace(&mut self.payload, Payload::Empty) {
            Payload::Closure(closure) => Some(closure),
            other => {
                self.payload = other;
                None
            }
        }
    }

    fn take_outcome(&mut self) -> Result<T, JoinError> {
        match mem::replace(&mut self.payload, Payload::Empty) {
            Payload::Outcome(outcome) => outcome,
            _ => unreachable!("a finished task holds its outcome"),
        }
    }

    fn rare(&self) -> Option<&Rare> {
        self.extras.as_deref().map(|extras| &extras.rare)
    }

    /// Takes what only a queued task has.
    fn take_rare(&mut self) -> Option<Rare> {
        Some(self.extras.as_deref_mut()?.rare.take())
    }

    /// Returns the latest time at which the task can start, if there is one.
    fn deadline(&self) -> Option<Instant> {
        self.rare()?.details.deadline
    }

    fn info(&self) -> JobInfo {
        let details = self.rare().map(|rare| &rare.details);
        JobInfo::new(details.unwrap_or(&Details::NONE), self.state.origin())
    }

    /// Returns whether a thread runs the callbacks of the finished task, or is about to.
    fn is_draining_callbacks(&self) -> bool {
        self.extras.as_ref().is_some_and(|extras| extras.draining)
    }
}

impl OutcomeKind {
    pub(crate) fn of<T>(outcome: &Result<T, impl Borrow<JoinError>>) -> Self {
        match outcome {
            Ok(_) => Self::Returned,
            Err(error) => Self::of_error(error.borrow()),
        }
    }

    pub(crate) fn of_error(error: &JoinError) -> Self {
        if error.is_cancelled() {
            Self::Cancelled
        } else if error.is_panic() {
            Self::Panicked
        } else if error.is_expired() {
            Self::Expired
        } else if error.is_failure() {
            Self::Failed
        } else {
            Self::NotRun
        }
    }
}

fn call_all<T>(callbacks: Vec<Callback<T>>, outcome: Result<&T, &JoinError>) {
    for callback in callbacks {
        catch_panic("a done callback", || callback(outcome));
    }
}

impl Rare {
    /// Takes what only a queued task has, and copies the rest.
    fn take(&mut self) -> Self {
        Self {
            span: self.span.take(),
            expiry: self.expiry.take(),
            details: self.details.clone(),
        }
    }

    /// The job starts on this thread. No lock is held.
    #[inline(never)]
    fn start(self, scheduler: &dyn Scheduler, origin: Origin, stamp: Stamp) -> Started<'_> {
        let Self {
            span,
            expiry,
            details,
        } = self;
        drop(expiry);
        let observer = scheduler.observer().filter(|_| stamp.is_some());
        let start = |observer| Observation::start(observer, JobInfo::new(&details, origin), stamp);
        Started {
            observation: observer.map(start),
            span: EnteredSpan::enter(span),
        }
    }
}

/// A job that is not a plain one, while its closure runs.
struct Started<'a> {
    span: EnteredSpan,
    observation: Option<Observation<'a>>,
}

impl Started<'_> {
    #[inline(never)]
    fn end(self, kind: OutcomeKind) {
        let Self { span, observation } = self;
        drop(span);
        if let Some(observation) = observation {
            observation.finish(kind);
        }
    }
}

/// Drops what was [taken](Rare::take) out of a task that does not run. No lock is held.
fn drop_rare(rare: Option<Rare>) {
    if let Some(Rare { span, expiry, .. }) = rare {
        drop(expiry);
        if span.is_some() {
            drop_catching(SUBSCRIBER, span);
        }
    }
}

/// What a job does.
pub(crate) trait JobClosure<T>: Send + 'static {
    /// Runs the job, which was submitted at `origin`. Never unwinds.
    fn call(self, origin: Origin) -> Result<T, JoinError>;
}

impl<F, T> JobClosure<T> for F
where
    F: FnOnce() -> T + Send + 'static,
{
    fn call(self, origin: Origin) -> Result<T, JoinError> {
        catch(origin, self)
    }
}

/// Runs a job's closure. A panic in it becomes an error, and an event.
pub(crate) fn catch<T>(origin: Origin, closure: impl FnOnce() -> T) -> Result<T, JoinError> {
    catch_unwind(AssertUnwindSafe(closure)).map_err(|payload| panicked(payload, origin))
}

fn panicked(payload: Box<dyn std::any::Any + Send>, origin: Origin) -> JoinError {
    // The job itself is still on the stack of this thread.
    let label = current_task().and_then(|task| task.label());
    emit(|| {
        let panic = panic_message(&*payload).unwrap_or("(no text)");
        tracing::error!(
            panic, label, job = %origin, "the job submitted at {origin} panicked: {panic}"
        );
    });
    #[cfg(feature = "console")]
    crate::console::registry::job_panicked(origin, label, panic_message(&*payload));
    JoinError::panicked(payload, origin)
}

impl<F, T, S> RawTask for TaskCell<F, T, S>
where
    F: JobClosure<T>,
    T: Send + 'static,
    S: Scheduler,
{
    fn scheduler(&self) -> &dyn Scheduler {
        &self.scheduler
    }

    fn with_state(&self, f: &mut dyn FnMut(&mut State)) {
        f(&mut self.inner.lock().state);
    }

    fn prepare(&self, details: Details, stamp: Stamp) -> bool {
        let mut inner = self.inner.lock();
        let queued = inner.state.is_queued();
        if queued {
            if details.is_some() {
                inner.extras.get_or_insert_default().rare.details = details;
            }
            if stamp.is_some() {
                self.resolved.set_stamp(stamp);
            }
        }
        queued
    }

    fn set_expiry(&self, guard: &mut dyn FnMut() -> ExpiryGuard) {
        let mut inner = self.inner.lock();
        if inner.state.is_queued() {
            inner.extras.get_or_insert_default().rare.expiry = Some(guard());
        }
    }

    fn can_start(&self, now: Option<Instant>) -> bool {
        let inner = self.inner.lock();
        let is_late = |now| inner.deadline().is_some_and(|deadline| deadline <= now);
        inner.state.is_queued() && !now.is_some_and(is_late)
    }

    fn expiry_error(&self) -> JoinError {
        let task = self.inner.lock().rare().and_then(|rare| rare.details.task);
        JoinError::expired_job(task)
    }

    fn label(&self) -> Option<&'static str> {
        self.inner.lock().rare().and_then(|rare| rare.details.label)
    }

    fn has_deadline(&self) -> bool {
        self.inner.lock().deadline().is_some()
    }

    fn is_resolved(&self) -> bool {
        self.resolved.get()
    }

    fn run(self: Arc<Self>, runner: Runner) -> bool {
        let mut inner = self.inner.lock();
        if let Some(deadline) = inner.deadline() {
            // Asking for the time is a system call.
            drop(inner);
            if Instant::now() >= deadline {
                return self.expire(runner);
            }
            inner = self.inner.lock();
        }
        if inner.state.start(ThreadId::current()) == Start::NotQueued {
            return false;
        }
        let closure = inner.take_closure().expect("a queued task has its closure");
        let origin = inner.state.origin();
        let stamp = self.resolved.stamp();
        let rare = match inner.take_rare() {
            None if stamp.is_some() => Some(Rare::default()),
            rare => rare,
        };
        #[cfg(feature = "console")]
        let label = rare.as_ref().and_then(|rare| rare.details.label);
        // Invariant: a job is counted as started before it is visible as running.
        self.scheduler.on_start(runner);
        drop(inner);
        // After the lock: the permit may go to a submitter, whose waker is user code.
        self.scheduler.on_dequeue(runner);

        // Until the waker has returned: callbacks and wakers are part of the job, too.
        let frame = RunningFrame::enter(Arc::clone(&self) as _);
        let started = rare.map(|rare| rare.start(&self.scheduler, origin, stamp));
        #[cfg(feature = "console")]
        let job = crate::console::watch::RunningJob::start(origin, label, stamp.is_some());
        let outcome = closure.call(origin);
        #[cfg(feature = "console")]
        job.closure_ended(&outcome, stamp);
        if let Some(started) = started {
            started.end(OutcomeKind::of(&outcome));
        }
        self.resolve(outcome, runner);
        #[cfg(feature = "console")]
        job.end();
        drop(frame);
        true
    }

    fn begin_cancel(&self, only_queued: bool) -> Cancel {
        let mut inner = self.inner.lock();
        if only_queued && !inner.state.is_queued() {
            return Cancel::Finished;
        }
        let cancel = inner.state.cancel(ThreadId::current());
        if cancel != Cancel::DropClosure {
            return cancel;
        }
        let closure = inner.take_closure();
        let rare = inner.take_rare();
        // Invariant: from here on the job is counted as one that will not start, so no worker is
        // spawned for it.
        self.scheduler.on_cancelling();
        drop(inner);
        // A destructor of the captures may join other jobs, and so be part of a cycle.
        let _frame = CancellingFrame::enter();
        drop_catching("the destructor of a job's closure", closure);
        drop_rare(rare);
        self.scheduler.on_closure_dropped(JobPlace::InQueue);
        self.observe_not_run();
        cancel
    }

    fn drop_closure(&self, place: JobPlace) {
        let mut inner = self.inner.lock();
        let closure = inner.take_closure();
        let rare = inner.take_rare();
        drop(inner);
        let _frame = CancellingFrame::enter();
        drop_catching("the destructor of a job's closure", closure);
        drop_rare(rare);
        self.scheduler.on_closure_dropped(place);
        self.observe_not_run();
    }

    fn publish_error(&self, error: JoinError) -> (Option<Waker>, bool) {
        let kind = OutcomeKind::of_error(&error);
        let mut inner = self.inner.lock();
        let error = error.submitted_at(inner.state.origin());
        // Callbacks stay in the task, marked, so that `add_callback` can still add to them. Without
        // any, one that is added from here on runs on the thread that adds it.
        let spent = match &mut inner.extras {
            Some(extras) if !extras.callbacks.is_empty() => {
                extras.draining = true;
                None
            }
            extras => extras.take(),
        };
        let has_callbacks = inner.is_draining_callbacks();
        // Invariant: a job is counted before its error is visible.
        self.scheduler.on_not_run(kind);
        let mut unwanted = None;
        if inner.state.has_join_interest() {
            inner.payload = Payload::Outcome(Err(error));
        } else {
            unwanted = Some(error);
        }
        let waker = inner.state.finish(kind);
        self.release(inner);
        drop_rare(spent.map(|extras| extras.rare));
        // It may hold the last reference to the cause of a broken pool.
        drop_catching("the destructor of an error", unwanted);
        (waker, has_callbacks)
    }

    fn run_callbacks(&self, error: &JoinError) {
        loop {
            let mut inner = self.inner.lock();
            let Some(extras) = &mut inner.extras else {
                return;
            };
            let callbacks = mem::take(&mut extras.callbacks);
            // Invariant: the mark is removed under the lock that found no more callbacks. So one
            // that is added later sees a task without a mark, and runs on the thread that adds it.
            if callbacks.is_empty() {
                inner.extras = None;
                return;
            }
            drop(inner);
            call_all(callbacks, Err(error));
        }
    }
}

impl<F, T, S> JoinTask<T> for TaskCell<F, T, S>
where
    F: JobClosure<T>,
    T: Send + 'static,
    S: Scheduler,
{
    fn take(&self) -> Taken<T> {
        let mut inner = self.inner.lock();
        match inner.state.take(ThreadId::current) {
            Take::Outcome => Taken::Outcome {
                outcome: inner.take_outcome(),
                has_callbacks: inner.is_draining_callbacks(),
            },
            Take::NotYet => Taken::NotYet,
            Take::CancelledHere => Taken::CancelledHere,
            Take::AlreadyTaken => Taken::Nothing,
        }
    }

    fn detach(&self) {
        let mut inner = self.inner.lock();
        let (has_outcome, waker) = inner.state.detach();
        let outcome = has_outcome.then(|| inner.take_outcome());
        // What is dropped below is user data.
        drop(inner);
        if outcome.is_some() {
            drop_catching("the destructor of a job's result", outcome);
        }
        drop_waker(waker);
    }

    fn add_callback(&self, callback: Callback<T>) -> bool {
        let mut inner = self.inner.lock();
        if !inner.is_draining_callbacks() {
            match inner.state.lend() {
                Lend::AlreadyTaken => {
                    drop(inner);
                    drop_catching("the destructor of a done callback", callback);
                    return false;
                }
                Lend::Later => {}
                Lend::Outcome => {
                    // The mark makes callbacks that are added meanwhile wait for their turn.
                    inner.extras.get_or_insert_default().draining = true;
                    let outcome = inner.take_outcome();
                    drop(inner);
                    self.lend_to_callbacks(callback, outcome);
                    return true;
                }
            }
        }
        let extras = inner.extras.get_or_insert_default();
        extras.callbacks.push(callback);
        true
    }

    fn inspect(&self, test: fn(&T) -> bool) -> Option<(OutcomeKind, bool)> {
        let inner = self.inner.lock();
        match (inner.state.stage(), &inner.payload) {
            (Stage::Finished(kind), Payload::Outcome(Ok(value))) => Some((kind, test(value))),
            (Stage::Finished(kind) | Stage::Consumed(kind), _) => Some((kind, false)),
            _ => None,
        }
    }

    fn into_raw(self: Arc<Self>) -> Arc<dyn RawTask> {
        self
    }
}

impl<F, T, S> TaskCell<F, T, S>
where
    F: JobClosure<T>,
    T: Send + 'static,
    S: Scheduler,
{
    /// Resolves the task as expired instead of running it. Returns false if it was not queued.
    #[cold]
    fn expire(&self, runner: Runner) -> bool {
        let error = self.expiry_error();
        if runner == Runner::Waiter {
            return refuse_at(self, &error, JobPlace::InQueue);
        }
        let refused = mark_refused(self, &error);
        if refused {
            // Destructors, callbacks and wakers take their time, and this worker no longer counts
            // as one that has a job.
            self.scheduler
                .while_unavailable(&mut || finish_refusal(self, &error, JobPlace::TakenOut));
        }
        refused
    }

    /// Tells the pool's observer that the task will not run: its closure is dropped, and its error
    /// is not visible yet.
    #[inline]
    fn observe_not_run(&self) {
        let stamp = self.resolved.stamp();
        if stamp.is_some() {
            self.observe_stamped_not_run(stamp);
        }
    }

    #[cold]
    fn observe_stamped_not_run(&self, stamp: Stamp) {
        let inner = self.inner.lock();
        let (job, stage) = (inner.info(), inner.state.stage());
        drop(inner);
        if let (Some(observer), Stage::Cancelling(kind)) = (self.scheduler.observer(), stage) {
            observer.not_run(&job, stamp, kind);
        }
    }
}

impl<F, T, S> TaskCell<F, T, S> {
    /// Runs a callback that was added after the end, and those added meanwhile; then gives the
    /// outcome back.
    fn lend_to_callbacks(&self, callback: Callback<T>, outcome: Result<T, JoinError>) {
        let mut callbacks = vec![callback];
        loop {
            call_all(callbacks, outcome.as_ref());
            let mut inner = self.inner.lock();
            callbacks = match &mut inner.extras {
                Some(extras) => mem::take(&mut extras.callbacks),
                None => Vec::new(),
            };
            if fault_or!("a_late_callback_looks_for_no_other": true; callbacks.is_empty()) {
                inner.extras = None;
                inner.payload = Payload::Outcome(outcome);
                inner.state.give_back();
                return;
            }
        }
    }
}

/// Cancels a task for its handle. Returns the result of the attempt.
pub(crate) fn cancel<K: RawTask + ?Sized>(task: &K) -> Cancel {
    cancel_if(task, false)
}

/// Cancels a queued task for its handle. A running one gets a cancel request, and is not stopped by
/// any executor.
pub(crate) fn request_cancel<K: RawTask + ?Sized>(task: &K) {
    match task.begin_cancel(false) {
        Cancel::Requested => task.scheduler().on_request(),
        cancel => {
            let _ = finish_cancel(task, cancel);
        }
    }
}

/// Cancels a task if it is queued, and returns whether this call has. A running one gets no cancel
/// request.
pub(crate) fn cancel_if_queued<K: RawTask + ?Sized>(task: &K) -> bool {
    cancel_if(task, true) == Cancel::DropClosure
}

fn cancel_if<K: RawTask + ?Sized>(task: &K, only_queued: bool) -> Cancel {
    finish_cancel(task, task.begin_cancel(only_queued))
}

fn finish_cancel<K: RawTask + ?Sized>(task: &K, cancel: Cancel) -> Cancel {
    match cancel {
        Cancel::DropClosure => {
            publish(task, &JoinError::cancelled());
            task.scheduler().on_cancel(cancel)
        }
        Cancel::Requested => task.scheduler().on_cancel(cancel),
        Cancel::AlreadyCancelled | Cancel::Stopping | Cancel::Finished => cancel,
    }
}

/// Resolves a queued task that its executor will not run. Returns false if it was not queued.
pub(crate) fn refuse(task: &dyn RawTask, error: &JoinError) -> bool {
    refuse_at(task, error, JobPlace::TakenOut)
}

fn refuse_at(task: &dyn RawTask, error: &JoinError, place: JobPlace) -> bool {
    let refused = mark_refused(task, error);
    if refused {
        finish_refusal(task, error, place);
    }
    refused
}

/// Resolves a task that was [marked](mark_refused).
fn finish_refusal(task: &dyn RawTask, error: &JoinError, place: JobPlace) {
    task.drop_closure(place);
    publish(task, error);
}

/// Resolves a task that is still in its queue as expired. Returns false if it was not queued.
pub(crate) fn expire(task: &dyn RawTask) -> bool {
    refuse_at(task, &task.expiry_error(), JobPlace::InQueue)
}

/// The last phases of a cancel: the error becomes visible, the waiter is woken, the callbacks run.
fn publish<K: RawTask + ?Sized>(task: &K, error: &JoinError) {
    let (waker, has_callbacks) = task.publish_error(error.replicate());
    task.scheduler().on_published(None);
    if let Some(waker) = waker {
        wake(waker);
    }
    if has_callbacks {
        task.run_callbacks(error);
    }
}

/// The first phase for each of many tasks that will not run: from here on the task cannot start.
pub(crate) fn mark_refused(task: &dyn RawTask, error: &JoinError) -> bool {
    let (kind, thread) = (OutcomeKind::of_error(error), ThreadId::current());
    task.state(|state| {
        let marked = state.refuse(kind, thread);
        if marked {
            task.scheduler().on_cancelling();
        }
        marked
    })
}

/// Resolves many tasks that were [marked](mark_refused): all closures are dropped, then all errors
/// become visible, then the waiters are woken, then the callbacks run.
pub(crate) fn refuse_marked(tasks: &[Arc<dyn RawTask>], error: &JoinError) {
    for task in tasks {
        task.drop_closure(JobPlace::TakenOut);
    }
    let (mut wakers, mut with_callbacks) = (Vec::new(), Vec::new());
    for task in tasks {
        let (waker, has_callbacks) = task.publish_error(error.replicate());
        wakers.extend(waker);
        if has_callbacks {
            with_callbacks.push(task);
        }
    }
    for task in tasks {
        task.scheduler().on_published(None);
    }
    wake_all(wakers);
    for task in with_callbacks {
        task.run_callbacks(error);
    }
}
