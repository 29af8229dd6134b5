//! The pool of worker processes: a pool of threads, each of which owns a worker process.
//!
//! ```text
//!   ProcessPool::submit ─► the queue of a ThreadPool ─► an exchange thread ─► Link ─► its worker process
//!        │                                                    ▲
//!        └─► JoinHandle::cancel ─► ProcessRef ─► Control ─────┴─► kills the worker
//! ```
//!
//! Queue, permits, counts, shutdown and waits are those of the [`ThreadPool`].

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Instant;

use futures::future::FusedFuture;

use crate::call::codec::{CodecError, Payload};
use crate::call::{Call, CallInfo, Task, decode_output};
use crate::error::{BuildError, Failure, FailureCause, JoinError, Refusal, SubmitError};
use crate::pool::job::JobOptions;
use crate::pool::{
    AcquireInTime, Metrics, PoolInner, PoolRef, Shutdown, Submission, ThreadPool,
    ThreadPoolBuilder, WaitIdle, WorkerHooks,
};
use crate::process::builder::{Config, ProcessPoolBuilder};
use crate::process::calls::Calls;
use crate::process::exchange::{Link, Outcome, Shared, Want};
use crate::process::worker::{Activity, Control, Worker};
use crate::task::cell::{JobClosure, Scheduler, TaskCell, catch};
use crate::task::context::current_pool;
use crate::task::join_handle::JoinHandle;
use crate::task::span::{self, Span};
use crate::task::state::{Cancel, Origin};
use crate::util::unwind::drop_catching;

/// A pool of worker processes, whose jobs can be killed.
///
/// [`submit`](Self::submit) takes a [`Call`] of a [`task`](macro@crate::task) and returns the same
/// [`JoinHandle`] as a [`ThreadPool`]. What a job does to its process harms no other job: a crash,
/// an endless loop, or a leak ends with the process, and the pool replaces it.
///
/// # What dropping it does
///
/// Dropping the pool is `shutdown().join()`, as for a
/// [`ThreadPool`](ThreadPool#what-dropping-it-does): queued jobs still run, and the drop **blocks**
/// until all worker processes have ended.
///
/// If this process ends in any other way, by a signal too, its workers are killed within a moment.
///
/// # What differs from threads
///
/// - A job is a named function with its arguments, not a closure. Arguments and result are copied
///   to the other process and back.
/// - [`cancel`](JoinHandle::cancel) of a running job kills it and returns `true`. So do
///   [`shutdown_now`](Self::shutdown_now), [`cancel_on_drop`](JoinHandle::cancel_on_drop),
///   [`first_ok`](crate::first_ok) and the timeout of a map.
/// - A job that waits for another one of its pool cannot exist: a job has no access to the pool
///   that runs it. A pool that is built in a job is a nested one. It has one worker by default.
///
/// # Examples
///
/// ```standalone_crate
/// use std::time::Duration;
///
/// use futurepool::{ProcessPool, process, task};
///
/// /// A search that may never end.
/// #[task]
/// fn search(from: u64) -> u64 {
///     (from..).find(|n| n % 7 == 0 && n % 11 == 3).expect("it is there")
/// }
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     process::init(); // in a worker process this runs tasks, and does not return
///     let pool = ProcessPool::builder()
///         .max_workers(2)
///         .time_limit(Duration::from_secs(10))
///         .build()?;
///     assert_eq!(pool.submit(search::call(1)).join()?, 14);
///     Ok(())
/// }
/// ```
///
/// # A picture
///
/// `cargo run --release --features process --example timeline -- --processes` draws what happens
/// when jobs are killed, and when they crash. Other workers go on, and a killed one is replaced:
#[cfg_attr(doc, doc = concat!("<div>", include_str!("../../docs/timeline-processes.svg"), "</div>"))]
#[doc(alias = "ProcessPoolExecutor")]
#[doc(alias = "multiprocessing.Pool")]
#[doc(alias = "loky")]
#[doc(alias = "pebble")]
pub struct ProcessPool {
    // Dropped first: its threads let the workers go.
    threads: ThreadPool,
    shared: Arc<Shared>,
}

impl ProcessPool {
    /// Returns a builder, which sets the options of a new pool.
    ///
    /// See [`ProcessPoolBuilder`] for an example.
    pub fn builder() -> ProcessPoolBuilder {
        ProcessPoolBuilder::new()
    }

    pub(crate) fn with_threads(
        threads: ThreadPoolBuilder,
        config: Config,
        prestart: usize,
    ) -> Result<Self, BuildError> {
        let shared = Arc::new(Shared::new(config));
        let hooks = Arc::new(Hooks(Arc::downgrade(&shared)));
        let threads = threads.hooks(hooks).build()?;
        #[cfg(all(unix, feature = "console"))]
        crate::console::registry::set_processes(threads.inner().id(), shared.supervisor.list());
        threads.prestart(prestart);
        Ok(Self { threads, shared })
    }

    /// Queues a call and returns the handle of its job.
    ///
    /// It does what [`ThreadPool::submit`] does. On a full bounded pool it **blocks the calling
    /// thread** until the queue has room.
    ///
    /// Dropping the handle detaches the job, which still runs.
    ///
    /// # Errors
    ///
    /// Errors are returned through the handle. Besides those of any job:
    ///
    /// - [`is_crashed`](JoinError::is_crashed): the worker process ended before the job did.
    /// - [`is_time_limit`](JoinError::is_time_limit),
    ///   [`is_memory_limit`](JoinError::is_memory_limit): the job exceeded a limit, and was killed.
    /// - [`is_codec`](JoinError::is_codec): the arguments or the result could not be encoded or
    ///   decoded.
    /// - [`is_unknown_task`](JoinError::is_unknown_task): the worker's program does not have the
    ///   task.
    /// - [`is_expired`](JoinError::is_expired): the job did not start before its deadline.
    ///
    /// # Examples
    ///
    /// See [`ProcessPool`] for an example.
    #[doc(alias = "apply_async")]
    #[doc(alias = "schedule")]
    #[track_caller]
    pub fn submit<T: Task>(&self, call: Call<T>) -> JoinHandle<T::Output> {
        self.submit_from(call, Location::caller(), span::current())
    }

    pub(crate) fn submit_from<T: Task>(
        &self,
        call: Call<T>,
        origin: Origin,
        span: Option<Span>,
    ) -> JoinHandle<T::Output> {
        if let Some(error) = self.forked() {
            return self.refused(call, error, origin);
        }
        let submitter = self.submitter();
        let options = submitter.options(&call);
        self.threads.acquire_permit(&options);
        let submission = Submission {
            origin,
            span,
            options: &options,
        };
        let submitted = submitter.enqueue(call, submission);
        submitted.unwrap_or_else(|(error, call)| self.refused(call, error, origin))
    }

    fn refused<T: Task>(
        &self,
        call: Call<T>,
        error: JoinError,
        origin: Origin,
    ) -> JoinHandle<T::Output> {
        drop_catching("the destructor of a call's arguments", call);
        let scheduler = self.threads.pool_ref();
        let task = TaskCell::<Remote<T>, T::Output, _>::refused(error, origin, scheduler);
        JoinHandle::new(Arc::new(task))
    }

    /// Queues a call if the queue has room now. Never blocks.
    ///
    /// # Errors
    ///
    /// Returns a [`SubmitError`] with the call if the queue is full, if the pool is shut down or
    /// broken, or if the [deadline](Call::deadline) of the call has passed.
    #[track_caller]
    pub fn try_submit<T: Task>(
        &self,
        call: Call<T>,
    ) -> Result<JoinHandle<T::Output>, SubmitError<Call<T>>> {
        let origin = Location::caller();
        if let Some(error) = self.forked() {
            return Err(SubmitError::new(Refusal::Unable(Box::new(error)), call));
        }
        let submitter = self.submitter();
        let options = submitter.options(&call);
        if let Err(refusal) = self.threads.try_acquire_permit(&options, origin) {
            return Err(SubmitError::new(refusal, call));
        }
        let submission = Submission {
            origin,
            span: span::current(),
            options: &options,
        };
        let submitted = submitter.enqueue_or_closed(call, submission);
        submitted.map_err(|(closed, call)| SubmitError::new(Refusal::Closed(closed), call))
    }

    /// Queues a call as soon as the queue has room, without blocking the thread.
    ///
    /// See [`ThreadPool::submit_async`] for the order of waiting submitters.
    ///
    /// # Errors
    ///
    /// Returns a [`SubmitError`] with the call if the pool is shut down or broken, or becomes so
    /// while the future waits. The same happens if the [deadline](Call::deadline) of the call has
    /// passed before there is room.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future before it is ready submits nothing.
    ///
    /// # Panics
    ///
    /// The future panics if it is polled after completion.
    #[track_caller]
    pub fn submit_async<T: Task>(&self, call: Call<T>) -> SubmitCall<T> {
        let options = call.info().job_options();
        SubmitCall {
            acquire: AcquireInTime::new(self.threads.acquire(), &options),
            submitter: self.submitter(),
            call: Some(call),
            origin: Location::caller(),
            span: span::current(),
        }
    }

    pub(crate) fn submitter(&self) -> CallSubmitter {
        CallSubmitter {
            pool: self.threads.inner(),
            scheduler: self.threads.pool_ref(),
            shared: Arc::clone(&self.shared),
        }
    }

    pub(crate) fn forked(&self) -> Option<JoinError> {
        forked(self.threads.is_forked())
    }

    /// Waits until no accepted job is unresolved: see [`ThreadPool::wait_idle`].
    pub fn wait_idle(&self) -> WaitIdle {
        self.threads.wait_idle()
    }

    /// Cancels every queued job and returns how many: see [`ThreadPool::cancel_queued`].
    ///
    /// Running jobs are not killed.
    pub fn cancel_queued(&self) -> usize {
        self.threads.cancel_queued()
    }

    /// Stops accepting jobs immediately. Queued jobs still run: see [`ThreadPool::shutdown`].
    ///
    /// The shutdown is complete when all worker processes have ended.
    pub fn shutdown(&self) -> Shutdown {
        self.threads.shutdown()
    }

    /// Stops accepting jobs immediately, cancels every queued job, and kills the running ones.
    ///
    /// With a [grace](ProcessPoolBuilder::cancel_grace), running jobs are killed after that.
    #[doc(alias = "terminate_workers")]
    #[doc(alias = "kill_workers")]
    #[doc(alias = "stop")]
    pub fn shutdown_now(&self) -> Shutdown {
        let shutdown = self.threads.shutdown_now();
        for worker in self.shared.supervisor.workers() {
            if let Some(control) = worker.current_control() {
                cancel(&control, &Arc::downgrade(&self.shared));
            }
        }
        shutdown
    }

    /// Returns `true` once the pool was shut down: see [`ThreadPool::is_shutdown`].
    #[must_use]
    pub fn is_shutdown(&self) -> bool {
        self.threads.is_shutdown()
    }

    /// Returns the maximum number of worker processes.
    #[must_use]
    pub fn max_workers(&self) -> usize {
        self.threads.max_workers()
    }

    /// Returns the current metrics of the pool.
    ///
    /// `workers` and `idle` count the threads of this process that each own a worker process.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.threads.metrics()
    }

    /// Reports the workers and the queue of the pool through the facade of the crate `metrics`: see
    /// [`ThreadPool::report_metrics`].
    #[cfg(feature = "metrics")]
    pub fn report_metrics(&self) {
        self.threads.report_metrics();
    }

    /// Returns what the worker processes are doing now, in the order of their start.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerInfo> {
        let mut workers = self.shared.supervisor.workers();
        workers.sort_by_key(|worker| worker.generation());
        workers.iter().filter_map(WorkerInfo::of).collect()
    }

    pub(crate) fn threads(&self) -> &ThreadPool {
        &self.threads
    }
}

/// A child process made by `fork` has none of the threads.
fn forked(is_forked: bool) -> Option<JoinError> {
    is_forked
        .then(|| JoinError::broken("the pool belongs to the process that this one was forked from"))
}

impl fmt::Debug for ProcessPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessPool")
            .field("max_workers", &self.max_workers())
            .field("metrics", &self.metrics())
            .finish_non_exhaustive()
    }
}

/// What a worker process is doing: see [`ProcessPool::workers`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WorkerInfo {
    /// The process's number.
    pub pid: u32,
    /// What the process is doing.
    pub state: WorkerState,
    /// How many jobs it has finished.
    pub jobs_done: u64,
    /// Its resident memory in bytes, without what it shares with other processes. 0 if it is
    /// unknown, as it is on systems other than Linux.
    pub resident_memory: u64,
    /// The name of the task that it runs.
    pub task: Option<Cow<'static, str>>,
    /// The label of the call that it runs.
    pub label: Option<Cow<'static, str>>,
    /// Since when it runs that.
    pub since: Option<Instant>,
}

/// The state of a worker process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkerState {
    /// It has not said yet that it can run jobs, or it runs the initializer.
    Starting,
    /// It waits for a job.
    Idle,
    /// It runs a job.
    Running,
    /// It ends, or was killed and has not ended yet.
    Leaving,
}

impl fmt::Display for WorkerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Idle => "idle",
            Self::Running => "running",
            Self::Leaving => "leaving",
        })
    }
}

impl WorkerInfo {
    pub(crate) fn of(worker: &Arc<Worker>) -> Option<Self> {
        let (state, running) = match worker.activity() {
            Activity::Starting => (WorkerState::Starting, None),
            Activity::Idle => (WorkerState::Idle, None),
            Activity::Running(running) => (WorkerState::Running, Some(running)),
            Activity::Leaving => (WorkerState::Leaving, None),
            Activity::Ended => return None,
        };
        let (task, label, since) = match running {
            Some(running) => (
                Some(running.task.into()),
                running.label,
                Some(running.since),
            ),
            None => (None, None, None),
        };
        Some(Self {
            pid: worker.pid(),
            state,
            jobs_done: worker.jobs_done(),
            resident_memory: worker.sample(false),
            task,
            label,
            since,
        })
    }
}

/// Queues calls without borrowing the pool. It does not keep the pool open.
#[derive(Clone)]
pub(crate) struct CallSubmitter {
    pool: Arc<PoolInner>,
    scheduler: PoolRef,
    shared: Arc<Shared>,
}

impl CallSubmitter {
    /// Queues a call that has its permit.
    fn enqueue_or_closed<T: Task>(
        &self,
        call: Call<T>,
        submission: Submission<'_>,
    ) -> Result<JoinHandle<T::Output>, (crate::error::Closed, Call<T>)> {
        let target = self.target();
        let scheduler = self.scheduler(&target);
        let remote = Remote { call, target };
        let task = crate::pool::enqueue_with(&self.pool, scheduler, remote, submission)
            .map_err(|(closed, remote)| (closed, remote.call))?;
        Ok(JoinHandle::new(task))
    }

    /// Returns the options of the job of a call that is submitted now.
    fn options<T: Task>(&self, call: &Call<T>) -> JobOptions {
        call.info().job_options().submitted_now(&self.pool)
    }

    fn enqueue<T: Task>(
        &self,
        call: Call<T>,
        submission: Submission<'_>,
    ) -> Result<JoinHandle<T::Output>, (JoinError, Call<T>)> {
        let queued = self.enqueue_or_closed(call, submission);
        queued.map_err(|(closed, call)| (closed.into(), call))
    }

    pub(crate) fn pool(&self) -> &Arc<PoolInner> {
        &self.pool
    }

    pub(crate) fn forked(&self) -> Option<JoinError> {
        forked(self.pool.is_forked())
    }

    /// Makes what a job needs to reach a worker.
    pub(crate) fn target(&self) -> Target {
        Target {
            shared: Arc::clone(&self.shared),
            control: Arc::default(),
            keeps_outcome: Cell::new(false),
        }
    }

    /// Makes the scheduler of a job that uses `target`.
    pub(crate) fn scheduler(&self, target: &Target) -> ProcessRef {
        ProcessRef {
            pool: self.scheduler.clone(),
            shared: Arc::downgrade(&target.shared),
            control: Arc::clone(&target.control),
        }
    }
}

/// The job of a call.
struct Remote<T: Task> {
    call: Call<T>,
    target: Target,
}

/// What a job needs to reach a worker.
pub(crate) struct Target {
    shared: Arc<Shared>,
    control: Arc<Control>,
    keeps_outcome: Cell<bool>,
}

impl<T: Task> JobClosure<T::Output> for Remote<T> {
    fn call(self, origin: Origin) -> Result<T::Output, JoinError> {
        let Self { call, target } = self;
        // User code is contained in what this calls. A panic of the pool itself must be an error,
        // too.
        let run = catch(origin, move || {
            let outcome = target.run_call(call, origin);
            let output = target.decide(T::NAME, outcome, origin)?;
            decode::<T>(output, origin)
        });
        run.and_then(|outcome| outcome)
    }
}

impl Target {
    /// Runs a call in the worker of this thread. The caller [decides](Self::decide) between the
    /// outcome and a cancel.
    pub(crate) fn run_call<T: Task>(&self, call: Call<T>, origin: Origin) -> Outcome {
        let info = call.info().clone();
        let encoded = call.encode();
        drop_catching("the destructor of a call's arguments", call);
        match encoded {
            Ok(payload) => self.run_one(&info, payload, origin),
            Err(error) => Err(unencodable(info.name, &error, origin)),
        }
    }
}

/// The error of a call that could not be encoded.
pub(crate) fn unencodable(task: &'static str, error: &CodecError, origin: Origin) -> JoinError {
    let text = format!("the arguments could not be encoded: {error}");
    JoinError::codec(task, text, false).submitted_at(origin)
}

/// Decodes a result in this process.
pub(crate) fn decode<T: Task>(output: Payload, origin: Origin) -> Result<T::Output, JoinError> {
    decode_output::<T>(output).map_err(|error| {
        let text = format!("the result could not be decoded: {error}");
        JoinError::codec(T::NAME, text, true).submitted_at(origin)
    })
}

impl Target {
    pub(crate) fn run_one(&self, info: &CallInfo, payload: Payload, origin: Origin) -> Outcome {
        let mut outcome = None;
        self.run(info, &Calls::from(payload), origin, &mut |result| {
            outcome = Some(result);
        });
        // There is one result for each call.
        outcome.unwrap_or_else(|| Err(JoinError::cancelled()))
    }

    /// Runs calls in the worker of this thread.
    pub(crate) fn run(
        &self,
        info: &CallInfo,
        calls: &Calls,
        origin: Origin,
        sink: &mut dyn FnMut(Outcome),
    ) {
        // A job that runs inside of another one, in a destructor or a callback, has a worker of its
        // own.
        let own = LINK.with(|link| link.borrow_mut().take());
        let mut link = own.unwrap_or_else(|| Link::new(Arc::clone(&self.shared)));
        let pool = current_pool();
        link.run(info, calls, &self.control, pool.as_ref(), origin, sink);
        let mut unused = LINK.with(|own| own.borrow_mut().replace(link));
        if let Some(link) = &mut unused {
            link.close(false, "its job ran inside of another one");
        }
    }

    /// Returns whether the job was cancelled. It may still be.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.control.is_cancelled()
    }

    /// The outcome stands although the job was cancelled: it contains what became of each call.
    pub(crate) fn keep_outcome(&self) {
        self.keeps_outcome.set(true);
    }

    /// Decides between the outcome and a cancel.
    pub(crate) fn decide<V>(
        &self,
        task: &'static str,
        outcome: Result<V, JoinError>,
        origin: Origin,
    ) -> Result<V, JoinError> {
        if self.control.decide() {
            return outcome;
        }
        match outcome {
            Ok(value) if self.keeps_outcome.get() => Ok(value),
            Err(error) if error.is_cancelled() || !error.may_have_run() => {
                Err(match error.is_cancelled() {
                    true => error,
                    false => JoinError::cancelled(),
                })
            }
            // It ended in its grace, or in the moment of the cancel.
            outcome => {
                drop_catching("the destructor of a job's result", outcome);
                Err(JoinError::failed(Failure {
                    task: Some(task.into()),
                    may_have_run: true,
                    origin: Some(origin),
                    ..Failure::new(FailureCause::Killed)
                }))
            }
        }
    }
}

/// A job's reference to its pool, which passes a cancel on to the worker.
pub(crate) struct ProcessRef {
    pool: PoolRef,
    /// A handle keeps neither the threads nor the descriptors of a pool.
    shared: Weak<Shared>,
    control: Arc<Control>,
}

impl Scheduler for ProcessRef {
    fn inner(&self) -> Option<&dyn Scheduler> {
        Some(&self.pool)
    }

    fn has_backlog(&self) -> bool {
        // So waits spin only for a moment: see `Config::spins_shortly`.
        true
    }

    fn on_cancel(&self, cancelled: Cancel) -> Cancel {
        match cancelled {
            Cancel::Requested if cancel(&self.control, &self.shared) => Cancel::Stopping,
            other => other,
        }
    }

    fn on_request(&self) {
        self.control.skip_rest();
    }
}

/// Cancels a running job. Returns false if its outcome is decided already.
fn cancel(control: &Arc<Control>, shared: &Weak<Shared>) -> bool {
    let (cancelled, worker) = control.cancel();
    // A job that runs keeps what its pool's threads share.
    if let (Some(worker), Some(shared)) = (worker, shared.upgrade()) {
        if let Some(at) = worker.cancel_job(control, shared.config.cancel_grace) {
            shared.supervisor.look_at(at);
        }
    }
    cancelled
}

thread_local! {
    /// The worker process of this thread.
    static LINK: RefCell<Option<Link>> = const { RefCell::new(None) };
}

/// What the threads do besides running jobs: each owns a worker process.
///
/// A handle keeps the pool's queue, and so these. What is shared belongs to the pool, its threads
/// and its queued jobs.
struct Hooks(Weak<Shared>);

impl WorkerHooks for Hooks {
    fn started(&self, pool: &Arc<PoolInner>) {
        let Some(shared) = self.0.upgrade() else {
            return;
        };
        let mut link = Link::new(shared);
        if !pool.is_closed_and_empty() {
            link.prepare(&Want::of_pool(pool));
        }
        LINK.with(|own| own.borrow_mut().replace(link));
    }

    fn between_jobs(&self, pool: &Arc<PoolInner>) {
        let own = LINK.with(|own| own.borrow_mut().take());
        let Some(mut link) = own else {
            return;
        };
        if link.needs_worker() && !pool.is_closed_and_empty() {
            // It takes a while. Meanwhile nothing may count on this thread.
            pool.while_unavailable(|| link.prepare(&Want::of_pool(pool)));
        }
        LINK.with(|own| own.borrow_mut().replace(link));
    }

    fn ending(&self, pool: &Arc<PoolInner>) {
        let own = LINK.with(|own| own.borrow_mut().take());
        if let Some(mut link) = own {
            match pool.closed() {
                Some(_) => link.close(true, "its pool is shut down"),
                None => {
                    link.close(false, "it was idle for too long");
                    // Another thread may start now, with a worker of its own. There must not be too
                    // many. Meanwhile nothing may count on this one.
                    pool.while_unavailable(|| link.wait_for_left());
                }
            }
        }
    }
}

/// A call that waits for room in the queue: see [`ProcessPool::submit_async`].
///
/// **Dropping it before it is ready submits nothing.** Its turn passes to the next submitter.
#[must_use = "nothing is submitted unless it is awaited"]
pub struct SubmitCall<T: Task> {
    acquire: AcquireInTime,
    submitter: CallSubmitter,
    /// `None` once it was ready.
    call: Option<Call<T>>,
    origin: Origin,
    span: Option<Span>,
}

// The call is moved, never pinned.
impl<T: Task> Unpin for SubmitCall<T> {}

impl<T: Task> Future for SubmitCall<T> {
    type Output = Result<JoinHandle<T::Output>, SubmitError<Call<T>>>;

    #[track_caller]
    fn poll(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        assert!(
            this.call.is_some(),
            "SubmitCall was polled after it was ready"
        );
        let mut refused = this.submitter.forked();
        if refused.is_none() {
            refused = ready!(this.acquire.poll(context)).err();
        }
        let call = this.call.take().expect("it was looked for above");
        if let Some(error) = refused {
            let reason = Refusal::Unable(Box::new(error.submitted_at(this.origin)));
            return Poll::Ready(Err(SubmitError::new(reason, call)));
        }
        let submission = Submission {
            origin: this.origin,
            span: this.span.take(),
            options: this.acquire.options(),
        };
        let submitted = this.submitter.enqueue_or_closed(call, submission);
        Poll::Ready(
            submitted.map_err(|(closed, call)| SubmitError::new(Refusal::Closed(closed), call)),
        )
    }
}

impl<T: Task> FusedFuture for SubmitCall<T> {
    fn is_terminated(&self) -> bool {
        self.call.is_none()
    }
}

impl<T: Task> fmt::Debug for SubmitCall<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubmitCall")
            .field("call", &self.call)
            .finish_non_exhaustive()
    }
}
