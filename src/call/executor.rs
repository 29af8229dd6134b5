//! What can run tasks: the trait, its implementations for threads, and the methods that every one
//! has.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::panic::Location;
use std::time::{Duration, Instant};

use crate::call::codec::{CodecError, Payload};
use crate::call::{Call, CallInfo, Task, decode_output};
use crate::combine::map::{
    Map, MapUnordered, map_calls, map_calls_on_pool, map_calls_on_pool_unordered,
    map_calls_unordered,
};
use crate::error::{JoinError, Refusal, SubmitError};
use crate::executor::{InlineExecutor, deferred};
use crate::pool::Submission;
use crate::pool::job::JobOptions;
use crate::pool::{GlobalPool, ThreadPool};
#[cfg(feature = "process")]
use crate::process::ProcessPool;
use crate::task::cancel_handle::CancelHandle;
use crate::task::cell::{JobClosure, catch};
use crate::task::join_handle::JoinHandle;
use crate::task::promise::{Promise, promise_at};
use crate::task::span::{self, Span};
use crate::task::state::Origin;
use crate::util::sealed::{PRIVATE, Private};
use crate::util::sync::{Arc, Mutex};
use crate::util::unwind::drop_catching;

/// An object-safe trait for everything that runs tasks, in this process or in another one.
///
/// It is implemented for [`ThreadPool`], [`GlobalPool`](crate::GlobalPool),
/// [`InlineExecutor`](crate::InlineExecutor), for pools of worker processes, and for `&E`, `Box<E>`
/// and `Arc<E>` of an executor `E`. So a program chooses by its configuration where its tasks run.
///
/// [`TaskExecutorExt`] adds [`submit_task`](TaskExecutorExt::submit_task),
/// [`try_submit_task`](TaskExecutorExt::try_submit_task) and
/// [`map_tasks`](TaskExecutorExt::map_tasks) to every executor, `dyn TaskExecutor` included. All of
/// them return the same [`JoinHandle`].
///
/// # Limits in threads
///
/// A thread cannot be stopped. So an executor that runs tasks in threads of this process refuses a
/// call with a [`time_limit`](Call::time_limit): the handle returns an error that
/// [`is_refused`](JoinError::is_refused). A [`deadline`](Call::deadline) works everywhere.
///
/// # Examples
///
/// ```
/// use futurepool::{InlineExecutor, TaskExecutor, TaskExecutorExt, ThreadPool, task};
///
/// /// Counts the words of a text.
/// #[task]
/// fn count(text: String) -> usize {
///     text.split_whitespace().count()
/// }
///
/// fn executor(name: &str) -> Box<dyn TaskExecutor> {
///     match name {
///         "threads" => Box::new(ThreadPool::new(2)),
///         _ => Box::new(InlineExecutor),
///     }
/// }
///
/// for name in ["threads", "here"] {
///     let handle = executor(name).submit_task(count::call("spam and eggs".to_owned()));
///     assert_eq!(handle.join()?, 3);
/// }
/// # Ok::<(), futurepool::JoinError>(())
/// ```
///
/// An executor of your own implements [`execute_task`](Self::execute_task). [`TaskJob`] has an
/// example.
#[doc(alias = "Executor")]
pub trait TaskExecutor: Send + Sync {
    /// Takes a job, and runs its task somewhere, now or later.
    ///
    /// An executor that is full may block here. One that cannot run the job [fails](TaskJob::fail)
    /// it. Dropping the job cancels it. So the job's handle always resolves.
    fn execute_task(&self, job: TaskJob);

    /// Takes a job like [`execute_task`](Self::execute_task), but only if there is room now.
    ///
    /// [`try_submit_task`](TaskExecutorExt::try_submit_task) calls it. The default calls
    /// `execute_task`, which suits an executor that is never full. Any other one implements this
    /// method, and never blocks in it.
    ///
    /// # Errors
    ///
    /// Returns the job with the reason, so that the caller gets its call back:
    /// [`SubmitError::full`] or [`SubmitError::because`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
    /// use std::thread;
    ///
    /// use futurepool::{
    ///     JoinError, SubmitError, TaskExecutor, TaskExecutorExt, TaskJob, task,
    /// };
    ///
    /// /// An executor whose queue has room for one job.
    /// struct OneThread {
    ///     jobs: SyncSender<TaskJob>,
    /// }
    ///
    /// impl TaskExecutor for OneThread {
    ///     fn execute_task(&self, job: TaskJob) {
    ///         if let Err(error) = self.jobs.send(job) {
    ///             error.0.fail(JoinError::shutdown());
    ///         }
    ///     }
    ///
    ///     fn try_execute_task(&self, job: TaskJob) -> Result<(), SubmitError<TaskJob>> {
    ///         self.jobs.try_send(job).map_err(|error| match error {
    ///             TrySendError::Full(job) => SubmitError::full(job),
    ///             TrySendError::Disconnected(job) => {
    ///                 SubmitError::because(JoinError::shutdown(), job)
    ///             }
    ///         })
    ///     }
    /// }
    ///
    /// #[task]
    /// fn double(n: u32) -> u32 {
    ///     2 * n
    /// }
    ///
    /// let (jobs, queue) = sync_channel::<TaskJob>(1);
    /// let executor = OneThread { jobs };
    /// let first = executor.try_submit_task(double::call(1)).unwrap();
    /// let error = executor.try_submit_task(double::call(21)).unwrap_err();
    /// assert!(error.is_full());
    /// assert_eq!(error.into_inner().run(), 42); // then this thread does it
    ///
    /// thread::spawn(move || queue.into_iter().for_each(TaskJob::run_here));
    /// assert_eq!(first.join()?, 2);
    /// # Ok::<(), JoinError>(())
    /// ```
    #[doc(alias = "offer")]
    fn try_execute_task(&self, job: TaskJob) -> Result<(), SubmitError<TaskJob>> {
        self.execute_task(job);
        Ok(())
    }

    /// Returns how many calls [`map_tasks`](TaskExecutorExt::map_tasks) submits ahead of its
    /// results by default.
    ///
    /// `None`, the default, means as many as the executor takes. An executor that blocks while it
    /// is full returns a smaller number than it can hold: then a map that is awaited does not block
    /// its thread. The map's [`buffer_size`](Map::buffer_size) overrides the number.
    #[doc(alias = "parallelism")]
    fn max_in_flight(&self) -> Option<usize> {
        None
    }

    /// Returns the thread pool behind this executor, if there is one.
    ///
    /// The provided methods of `TaskExecutorExt` then use the pool's own, faster methods.
    #[doc(hidden)]
    fn as_thread_pool(&self, _: Private) -> Option<&ThreadPool> {
        None
    }

    /// Returns the process pool behind this executor, if there is one.
    #[cfg(feature = "process")]
    #[doc(hidden)]
    fn as_process_pool(&self, _: Private) -> Option<&ProcessPool> {
        None
    }

    /// Returns whether the executor runs tasks in threads of this process, which cannot be stopped.
    #[doc(hidden)]
    fn runs_in_threads(&self, _: Private) -> bool {
        false
    }
}

impl TaskExecutor for ThreadPool {
    fn execute_task(&self, job: TaskJob) {
        run_in_pool(self, job);
    }

    fn try_execute_task(&self, job: TaskJob) -> Result<(), SubmitError<TaskJob>> {
        try_run_in_pool(self, job)
    }

    fn as_thread_pool(&self, _: Private) -> Option<&ThreadPool> {
        Some(self)
    }

    fn runs_in_threads(&self, _: Private) -> bool {
        true
    }
}

impl TaskExecutor for GlobalPool {
    fn execute_task(&self, job: TaskJob) {
        run_in_pool(&self.pool, job);
    }

    fn try_execute_task(&self, job: TaskJob) -> Result<(), SubmitError<TaskJob>> {
        try_run_in_pool(&self.pool, job)
    }

    fn as_thread_pool(&self, _: Private) -> Option<&ThreadPool> {
        Some(&self.pool)
    }

    fn runs_in_threads(&self, _: Private) -> bool {
        true
    }
}

impl TaskExecutor for InlineExecutor {
    fn execute_task(&self, job: TaskJob) {
        job.run_here();
    }

    fn runs_in_threads(&self, _: Private) -> bool {
        true
    }
}

macro_rules! forward {
    ($($pointer:ty),*) => {$(
        impl<E: TaskExecutor + ?Sized> TaskExecutor for $pointer {
            fn execute_task(&self, job: TaskJob) {
                (**self).execute_task(job);
            }

            fn try_execute_task(&self, job: TaskJob) -> Result<(), SubmitError<TaskJob>> {
                (**self).try_execute_task(job)
            }

            fn max_in_flight(&self) -> Option<usize> {
                (**self).max_in_flight()
            }

            fn as_thread_pool(&self, _: Private) -> Option<&ThreadPool> {
                (**self).as_thread_pool(PRIVATE)
            }

            #[cfg(feature = "process")]
            fn as_process_pool(&self, _: Private) -> Option<&ProcessPool> {
                (**self).as_process_pool(PRIVATE)
            }

            fn runs_in_threads(&self, _: Private) -> bool {
                (**self).runs_in_threads(PRIVATE)
            }
        }
    )*};
}

forward!(&E, Box<E>, Arc<E>);

/// Adds `submit_task`, `try_submit_task` and `map_tasks` to every [`TaskExecutor`].
///
/// It is implemented for every executor, `dyn TaskExecutor` included, and cannot be implemented
/// outside this crate.
///
/// On a [`ThreadPool`] a task is a job like any other. It can wait for further jobs of its pool,
/// its [`cancel_requested`](crate::cancel_requested) works, and the pool's metrics count it.
/// Nothing is encoded there.
///
/// # Examples
///
/// See [`TaskExecutor`].
pub trait TaskExecutorExt: TaskExecutor {
    /// Submits a call of a task and returns its handle.
    ///
    /// It blocks where [`ThreadPool::submit`] would: while the queue of a bounded pool is full.
    /// Dropping the handle detaches the job, which still runs.
    ///
    /// # Errors
    ///
    /// Errors are returned through the handle. Besides those of any job:
    ///
    /// - [`is_refused`](JoinError::is_refused): the executor cannot keep a limit of the call.
    /// - [`is_expired`](JoinError::is_expired): the job did not start before its deadline.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use futurepool::{TaskExecutorExt, ThreadPool, task};
    ///
    /// #[task]
    /// fn double(n: u32) -> u32 {
    ///     2 * n
    /// }
    ///
    /// let pool = ThreadPool::new(1);
    /// assert_eq!(pool.submit_task(double::call(21)).join().unwrap(), 42);
    ///
    /// // A thread cannot be killed.
    /// let limited = double::call(21).time_limit(Duration::from_secs(1));
    /// assert!(pool.submit_task(limited).join().unwrap_err().is_refused());
    /// ```
    #[doc(alias = "submit")]
    #[doc(alias = "apply_async")]
    #[doc(alias = "schedule")]
    #[track_caller]
    fn submit_task<T: Task>(&self, call: Call<T>) -> JoinHandle<T::Output> {
        submit(self, call, Location::caller(), span::current())
    }

    /// Submits a call of a task if the queue has room now. Never blocks on a pool of this crate.
    ///
    /// An executor outside this crate decides in
    /// [`try_execute_task`](TaskExecutor::try_execute_task).
    ///
    /// # Errors
    ///
    /// Returns a [`SubmitError`] with the call, for the reasons of [`ThreadPool::try_submit`], and:
    ///
    /// - [`is_refused`](SubmitError::is_refused): the executor cannot keep a limit of the call.
    /// - [`is_expired`](SubmitError::is_expired): the deadline of the call has passed.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use futurepool::{TaskExecutorExt, ThreadPool, task};
    ///
    /// #[task]
    /// fn double(n: u32) -> u32 {
    ///     2 * n
    /// }
    ///
    /// let pool = ThreadPool::new(1);
    /// let limited = double::call(21).time_limit(Duration::from_secs(1));
    /// let error = pool.try_submit_task(limited).unwrap_err();
    /// assert!(error.is_refused());
    /// assert_eq!(error.into_inner().run(), 42); // then this thread does it
    /// ```
    #[doc(alias = "offer")]
    #[track_caller]
    fn try_submit_task<T: Task>(
        &self,
        call: Call<T>,
    ) -> Result<JoinHandle<T::Output>, SubmitError<Call<T>>> {
        try_submit(self, call)
    }

    /// Submits each call of an iterator, and yields the outputs in the order of the calls.
    ///
    /// The map behaves like that of [`ThreadPool::map`]: it is lazy, and has the same methods. On a
    /// thread pool, calls that take microseconds share a job. On other executors, each call is a
    /// job of its own, and [`chunk_size`](Map::chunk_size) has no effect. An executor may limit how
    /// many calls are [submitted ahead](TaskExecutor::max_in_flight).
    ///
    /// A call that fails, is refused or expires yields an `Err` in its place, and the others go on.
    ///
    /// # Examples
    ///
    /// ```
    /// use futurepool::{TaskExecutorExt, ThreadPool, task};
    ///
    /// #[task]
    /// fn double(n: u32) -> u32 {
    ///     2 * n
    /// }
    ///
    /// let pool = ThreadPool::new(2);
    /// let outputs = pool.map_tasks((1..=3).map(double::call));
    /// assert_eq!(outputs.join()?, [2, 4, 6]);
    /// # Ok::<(), futurepool::JoinError>(())
    /// ```
    #[doc(alias = "starmap")]
    #[doc(alias = "imap")]
    #[track_caller]
    fn map_tasks<'a, T, I>(&'a self, calls: I) -> Map<'a, T::Output>
    where
        T: Task,
        I: IntoIterator<Item = Call<T>, IntoIter: Send + 'a>,
    {
        let calls = calls.into_iter();
        if let Some(pool) = self.as_thread_pool(PRIVATE) {
            return map_calls_on_pool(pool, calls, run_item::<T>);
        }
        #[cfg(feature = "process")]
        if let Some(pool) = self.as_process_pool(PRIVATE) {
            return pool.map(calls);
        }
        let origin = Location::caller();
        let map = map_calls(calls, submit_each(self, origin), origin);
        match self.max_in_flight() {
            Some(calls) => map.buffer_size(calls.max(1)),
            None => map,
        }
    }

    /// Submits each call of an iterator, and yields the outputs in completion order.
    ///
    /// An output does not tell which call it belongs to: return what tells that from the task. In
    /// every other way this method behaves like [`map_tasks`](Self::map_tasks).
    ///
    /// # Examples
    ///
    /// ```
    /// use futurepool::{TaskExecutorExt, ThreadPool, task};
    ///
    /// #[task]
    /// fn double(n: u32) -> u32 {
    ///     2 * n
    /// }
    ///
    /// let pool = ThreadPool::new(2);
    /// let mut outputs = pool.map_tasks_unordered((1..=3).map(double::call)).join()?;
    /// outputs.sort();
    /// assert_eq!(outputs, [2, 4, 6]);
    /// # Ok::<(), futurepool::JoinError>(())
    /// ```
    #[doc(alias = "imap_unordered")]
    #[track_caller]
    fn map_tasks_unordered<'a, T, I>(&'a self, calls: I) -> MapUnordered<'a, T::Output>
    where
        T: Task,
        I: IntoIterator<Item = Call<T>, IntoIter: Send + 'a>,
    {
        let calls = calls.into_iter();
        if let Some(pool) = self.as_thread_pool(PRIVATE) {
            return map_calls_on_pool_unordered(pool, calls, run_item::<T>);
        }
        #[cfg(feature = "process")]
        if let Some(pool) = self.as_process_pool(PRIVATE) {
            return pool.map_unordered(calls);
        }
        let origin = Location::caller();
        let map = map_calls_unordered(calls, submit_each(self, origin), origin);
        match self.max_in_flight() {
            Some(calls) => map.buffer_size(calls.max(1)),
            None => map,
        }
    }
}

/// Returns what submits the calls of a map, from this place and in the current span.
fn submit_each<'a, E, T>(
    executor: &'a E,
    origin: Origin,
) -> impl Fn(Call<T>) -> JoinHandle<T::Output> + Send + 'a
where
    E: TaskExecutor + ?Sized,
    T: Task,
{
    let span = span::current();
    move |call| submit(executor, call, origin, span::clone(&span))
}

impl<E: TaskExecutor + ?Sized> TaskExecutorExt for E {}

fn submit<E, T>(
    executor: &E,
    call: Call<T>,
    origin: Origin,
    span: Option<Span>,
) -> JoinHandle<T::Output>
where
    E: TaskExecutor + ?Sized,
    T: Task,
{
    if let Some(pool) = executor.as_thread_pool(PRIVATE) {
        return match refused_by_threads(call.info()) {
            None => {
                let submission = Submission {
                    origin,
                    span,
                    options: &call.info().job_options(),
                };
                pool.submit_from(RunCall(call), submission)
            }
            Some(error) => {
                drop_catching("the destructor of a call", call);
                pool.refuse(error, origin)
            }
        };
    }
    #[cfg(feature = "process")]
    if let Some(pool) = executor.as_process_pool(PRIVATE) {
        return pool.submit_from(call, origin, span);
    }
    let (job, handle) = TaskJob::of(call, origin, span);
    executor.execute_task(job);
    handle
}

#[track_caller]
fn try_submit<E, T>(
    executor: &E,
    call: Call<T>,
) -> Result<JoinHandle<T::Output>, SubmitError<Call<T>>>
where
    E: TaskExecutor + ?Sized,
    T: Task,
{
    let origin = Location::caller();
    #[cfg(feature = "process")]
    if let Some(pool) = executor.as_process_pool(PRIVATE) {
        return pool.try_submit(call);
    }
    let refused = match executor.runs_in_threads(PRIVATE) {
        true => refused_by_threads(call.info()),
        false => None,
    };
    let pool = executor.as_thread_pool(PRIVATE);
    if let Some(error) = refused.or_else(|| call.info().expired()) {
        if let Some(pool) = pool {
            pool.count_rejected();
        }
        let error = Box::new(error.submitted_at(origin));
        return Err(SubmitError::new(Refusal::Unable(error), call));
    }
    match pool {
        Some(pool) => {
            let options = call.info().job_options();
            pool.try_submit_from(RunCall(call), origin, &options)
                .map_err(|error| error.map(|RunCall(call)| call))
        }
        None => {
            let (job, handle) = TaskJob::of(call, origin, span::current());
            match executor.try_execute_task(job) {
                Ok(()) => Ok(handle),
                Err(error) => give_back(error, handle),
            }
        }
    }
}

/// Returns the call of a job that an executor did not take.
fn give_back<T: Task>(
    error: SubmitError<TaskJob>,
    handle: JoinHandle<T::Output>,
) -> Result<JoinHandle<T::Output>, SubmitError<Call<T>>> {
    let (mut reason, job) = error.into_parts();
    if let Refusal::Unable(error) = reason {
        reason = Refusal::Unable(Box::new(error.submitted_at(job.location())));
    }
    match job.into_call() {
        Ok(call) => Err(SubmitError::new(reason, call)),
        // The executor has started it, or has returned another job: its handle has the reason.
        Err(job) => {
            let name = job.name();
            let error = match reason {
                Refusal::Full => JoinError::refused(name, "the executor is full"),
                Refusal::Closed(closed) => closed.into(),
                Refusal::Unable(error) => *error,
            };
            job.fail(error.with_earlier_start(name));
            Ok(handle)
        }
    }
}

/// Returns the error of a call that threads cannot run.
fn refused_by_threads(info: &CallInfo) -> Option<JoinError> {
    info.time_limit.map(|_| {
        JoinError::refused(
            info.name,
            "a thread cannot be stopped, so it cannot keep a time limit: use a pool of worker \
             processes, or remove the limit",
        )
    })
}

/// Runs a call as an item of a map on a thread pool.
fn run_item<T: Task>(call: Call<T>) -> Result<T::Output, JoinError> {
    let error = refused_by_threads(call.info()).or_else(|| call.info().expired());
    match error {
        None => Ok(call.run()),
        Some(error) => {
            drop_catching("the destructor of a call", call);
            Err(error)
        }
    }
}

/// What a job does: a call of a task whose types are known, or of one that has only a name.
pub(crate) trait JobCall: Send + 'static {
    type Output: Send + 'static;

    fn info(&self) -> &CallInfo;

    /// Encodes the arguments. May be called again.
    fn encode(&self) -> Result<Payload, CodecError>;

    /// Encodes the arguments, and drops them.
    #[cfg(feature = "process")]
    fn into_encoded(self) -> Result<Payload, CodecError>;

    /// Runs the task on this thread. Never unwinds.
    fn run_at(self, origin: Origin) -> Result<Self::Output, JoinError>;

    fn decode_output(output: Payload) -> Result<Self::Output, CodecError>;
}

impl<T: Task> JobCall for Call<T> {
    type Output = T::Output;

    fn info(&self) -> &CallInfo {
        self.info()
    }

    fn encode(&self) -> Result<Payload, CodecError> {
        self.encode()
    }

    #[cfg(feature = "process")]
    fn into_encoded(self) -> Result<Payload, CodecError> {
        let encoded = self.encode();
        drop_catching("the destructor of a call", self);
        encoded
    }

    fn run_at(self, origin: Origin) -> Result<T::Output, JoinError> {
        catch(origin, || self.run())
    }

    fn decode_output(output: Payload) -> Result<T::Output, CodecError> {
        decode_output::<T>(output)
    }
}

/// A call as the closure of a job.
struct RunCall<C>(C);

impl<C: JobCall> JobClosure<C::Output> for RunCall<C> {
    fn call(self, origin: Origin) -> Result<C::Output, JoinError> {
        self.0.run_at(origin)
    }
}

impl CallInfo {
    /// Returns the options of a job that runs the call.
    pub(crate) fn job_options(&self) -> JobOptions {
        let label = match &self.label {
            Some(Cow::Borrowed(label)) => Some(*label),
            // There could be another text for each call.
            _ => None,
        };
        JobOptions {
            label,
            task: Some(self.name),
            priority: self.priority,
            deadline: self.deadline,
        }
    }

    /// Returns the error of a call whose deadline has passed.
    pub(crate) fn expired(&self) -> Option<JoinError> {
        (self.deadline?.le(&Instant::now())).then(|| JoinError::expired(self.name))
    }
}

/// Runs a job that was made for any executor in a thread pool.
fn run_in_pool(pool: &ThreadPool, job: TaskJob) {
    if let Some(error) = refused_by_threads(job.info()) {
        pool.count_rejected();
        job.fail(error);
        return;
    }
    let (origin, options) = (job.location(), job.info().job_options());
    let relay = Relay::new(job);
    let submission = Submission {
        origin,
        span: None,
        options: &options,
    };
    let handle = pool.submit_from(relay.closure(), submission);
    relay.connect(handle);
}

/// Does what [`run_in_pool`] does, if the pool has room now.
fn try_run_in_pool(pool: &ThreadPool, job: TaskJob) -> Result<(), SubmitError<TaskJob>> {
    if let Some(error) = refused_by_threads(job.info()) {
        pool.count_rejected();
        let error = error.submitted_at(job.location());
        return Err(SubmitError::because(error, job));
    }
    let (origin, options) = (job.location(), job.info().job_options());
    if let Err(refusal) = pool.try_acquire_permit(&options, origin) {
        return Err(SubmitError::new(refusal, job));
    }
    let relay = Relay::new(job);
    let submission = Submission {
        origin,
        span: None,
        options: &options,
    };
    match pool.enqueue_acquired(relay.closure(), submission) {
        Ok(handle) => {
            relay.connect(handle);
            Ok(())
        }
        Err(closed) => match relay.take() {
            Some(job) => Err(SubmitError::new(Refusal::Closed(closed), job)),
            // It was cancelled meanwhile.
            None => Ok(()),
        },
    }
}

/// A job that was made for any executor, and the job of a pool that runs it.
pub(crate) struct Relay {
    // Not only in the closure: if the pool does not run it, the job needs the reason.
    slot: Arc<Mutex<Option<TaskJob>>>,
    link: Arc<Mutex<Link>>,
}

impl Relay {
    fn new(job: TaskJob) -> Self {
        let link = Arc::new(Mutex::new(Link::default()));
        let link_of_hook = Arc::clone(&link);
        job.on_cancel(move || {
            let mut link = link_of_hook.lock();
            link.cancelled = true;
            let in_pool = link.in_pool.take();
            drop(link);
            if let Some(in_pool) = in_pool {
                in_pool.cancel();
            }
            // A task that runs goes on until it looks at the request.
            false
        });
        let slot = Arc::new(Mutex::new(Some(job)));
        Self { slot, link }
    }

    fn take(&self) -> Option<TaskJob> {
        self.slot.lock().take()
    }

    /// Returns what the pool runs.
    fn closure(&self) -> impl FnOnce() + Send + 'static {
        let slot = Arc::clone(&self.slot);
        move || {
            let job = slot.lock().take();
            if let Some(job) = job {
                job.run_here();
            }
        }
    }

    /// Connects the pool's job with the other one.
    fn connect(self, handle: JoinHandle<()>) {
        let Self { slot, link } = self;
        handle.add_done_callback(move |outcome| {
            let job = slot.lock().take();
            if let (Some(job), Err(error)) = (job, outcome) {
                job.fail(error.replicate());
            }
        });
        let in_pool = handle.cancel_handle();
        let mut link = link.lock();
        if link.cancelled {
            drop(link);
            in_pool.cancel();
        } else {
            link.in_pool = Some(in_pool);
        }
    }
}

/// Connects the cancel of a job with the job of the pool that runs it.
#[derive(Default)]
struct Link {
    in_pool: Option<CancelHandle>,
    /// The cancel has come. It may come before the pool's job is there.
    cancelled: bool,
}

/// A call with the handle of its caller, as a [`TaskExecutor`] gets it.
///
/// **Dropping a job cancels it.** An executor resolves it in one of these ways, on any thread:
///
/// - [`run_here`](Self::run_here) runs the task in this process.
/// - [`encode`](Self::encode) returns the arguments for another process, which sends the output
///   back for [`resolve`](Self::resolve).
/// - [`fail`](Self::fail) resolves it with an error.
///
/// So the [`JoinHandle`](crate::JoinHandle) always resolves.
///
/// # Examples
///
/// An executor that runs tasks in a thread apart, one after the other:
///
/// ```
/// use std::sync::mpsc::{Sender, channel};
/// use std::thread;
///
/// use futurepool::{JoinError, TaskExecutor, TaskExecutorExt, TaskJob, task};
///
/// struct OneThread {
///     jobs: Sender<TaskJob>,
/// }
///
/// impl OneThread {
///     fn new() -> Self {
///         let (jobs, queue) = channel::<TaskJob>();
///         thread::spawn(move || queue.into_iter().for_each(TaskJob::run_here));
///         Self { jobs }
///     }
/// }
///
/// impl TaskExecutor for OneThread {
///     fn execute_task(&self, job: TaskJob) {
///         if let Err(error) = self.jobs.send(job) {
///             error.0.fail(JoinError::shutdown()); // the thread is gone
///         }
///     }
/// }
///
/// #[task]
/// fn double(n: u32) -> u32 {
///     2 * n
/// }
///
/// assert_eq!(OneThread::new().submit_task(double::call(21)).join()?, 42);
/// # Ok::<(), JoinError>(())
/// ```
#[doc(alias = "_WorkItem")]
#[must_use = "dropping a job cancels it"]
pub struct TaskJob {
    job: Box<dyn ErasedJob>,
}

impl TaskJob {
    /// Creates the job of a call, and its handle, for an executor with methods of its own.
    ///
    /// Dropping the handle detaches the job. The methods of [`TaskExecutorExt`] call this
    /// themselves, so an executor needs it only beside them. [`into_call`](Self::into_call) returns
    /// the call again.
    ///
    /// # Examples
    ///
    /// ```
    /// use futurepool::{Call, JoinError, JoinHandle, Task, TaskJob, task};
    ///
    /// struct Service;
    ///
    /// impl Service {
    ///     #[track_caller]
    ///     fn submit_detached<T: Task>(&self, key: &str, call: Call<T>) -> JoinHandle<T::Output> {
    ///         let (job, handle) = TaskJob::new(call);
    ///         match key {
    ///             "taken" => job.fail(JoinError::duplicate_key(T::NAME, key)),
    ///             _ => job.fail(JoinError::refused(T::NAME, "there is no worker")),
    ///         };
    ///         handle
    ///     }
    /// }
    ///
    /// #[task]
    /// fn double(n: u32) -> u32 {
    ///     2 * n
    /// }
    ///
    /// let handle = Service.submit_detached("taken", double::call(21));
    /// assert!(handle.join().unwrap_err().is_duplicate_key());
    /// ```
    #[track_caller]
    pub fn new<T: Task>(call: Call<T>) -> (Self, JoinHandle<T::Output>) {
        Self::of(call, Location::caller(), span::current())
    }

    pub(crate) fn of<C: JobCall>(
        call: C,
        origin: Origin,
        span: Option<Span>,
    ) -> (Self, JoinHandle<C::Output>) {
        let (promise, handle) = promise_at(origin);
        let info = call.info().clone();
        let slot = Arc::new(Mutex::new(Slot {
            call: Some(call),
            stage: SlotStage::Queued,
        }));
        let slot_of_hook = Arc::clone(&slot);
        // A cancelled job keeps no arguments, wherever its executor has it.
        promise.on_cancel(move || {
            let mut slot = slot_of_hook.lock();
            let mut call = None;
            if slot.stage == SlotStage::Queued {
                slot.stage = SlotStage::Cancelled;
                call = slot.call.take();
            }
            drop(slot);
            drop_catching("the destructor of a call", call);
            false
        });
        let job = TypedJob {
            info,
            slot: OwnedSlot(slot),
            promise,
            origin,
            span,
        };
        (Self { job: Box::new(job) }, handle)
    }

    /// Returns the call of a job that has not started, and drops the job.
    ///
    /// The job's handle resolves with an error that [`is_cancelled`](JoinError::is_cancelled).
    ///
    /// # Errors
    ///
    /// Returns the job itself if its call is of another type, or if it is
    /// [running](Self::set_running) or cancelled.
    ///
    /// # Examples
    ///
    /// ```
    /// use futurepool::{TaskJob, task};
    ///
    /// #[task]
    /// fn double(n: u32) -> u32 {
    ///     2 * n
    /// }
    ///
    /// let (job, handle) = TaskJob::new(double::call(21));
    /// let call = job.into_call::<double>().unwrap();
    /// assert!(handle.join().unwrap_err().is_cancelled());
    /// assert_eq!(call.run(), 42);
    /// ```
    pub fn into_call<T: Task>(self) -> Result<Call<T>, Self> {
        let mut call = None::<Call<T>>;
        self.job.take_call(&mut call);
        call.ok_or(self)
    }

    pub(crate) fn info(&self) -> &CallInfo {
        self.job.info()
    }

    /// Returns the [name](Task::NAME) of the task.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.info().name
    }

    /// Returns the [version](Task::VERSION) of the task.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.info().version
    }

    /// Returns the [signature](Task::SIGNATURE) of the task.
    #[must_use]
    pub fn signature(&self) -> u64 {
        self.info().signature
    }

    /// Returns whether the source names the task: see
    /// [`TaskEntry::is_named`](crate::TaskEntry::is_named).
    #[must_use]
    pub fn is_named(&self) -> bool {
        self.info().is_named
    }

    /// Returns whether the task may run again if it is unknown whether it has run.
    #[must_use]
    pub fn is_idempotent(&self) -> bool {
        self.info().idempotent
    }

    /// Returns how often the task may start in all. It is 1 unless the task is
    /// [idempotent](Self::is_idempotent).
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.info().attempts
    }

    /// Returns the [label](Call::label) of the call.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        self.info().label.as_deref()
    }

    /// Returns how long the task may run. An executor that cannot stop it must refuse the job.
    #[must_use]
    pub fn time_limit(&self) -> Option<Duration> {
        self.info().time_limit
    }

    /// Returns the latest time at which the task may start.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.info().deadline
    }

    /// Returns where the call was submitted.
    #[must_use]
    pub fn location(&self) -> &'static Location<'static> {
        self.job.origin()
    }

    /// Encodes the arguments, for a process that has the same task. May be called again.
    ///
    /// # Errors
    ///
    /// Returns an error that [`is_codec`](JoinError::is_codec) if the arguments fail to serialize,
    /// or panic. Pass it to [`fail`](Self::fail). Returns one that
    /// [`is_cancelled`](JoinError::is_cancelled) if the job was cancelled.
    ///
    /// # Examples
    ///
    /// ```
    /// use futurepool::{JoinError, Payload, TaskExecutor, TaskExecutorExt, TaskJob, task};
    ///
    /// /// Sends jobs to a service that answers at once.
    /// struct Service;
    ///
    /// fn ask(task: &str, arguments: Payload) -> Payload {
    ///     assert!(task.ends_with("double"));
    ///     Payload::from_parts(vec![42], Vec::new()) // the number 42, in MessagePack
    /// }
    ///
    /// impl TaskExecutor for Service {
    ///     fn execute_task(&self, job: TaskJob) {
    ///         if !job.set_running() {
    ///             return; // it was cancelled
    ///         }
    ///         match job.encode() {
    ///             Ok(arguments) => {
    ///                 let output = ask(job.name(), arguments);
    ///                 job.resolve(output);
    ///             }
    ///             Err(error) => {
    ///                 job.fail(error);
    ///             }
    ///         }
    ///     }
    /// }
    ///
    /// #[task]
    /// fn double(n: u32) -> u32 {
    ///     2 * n
    /// }
    ///
    /// assert_eq!(Service.submit_task(double::call(21)).join()?, 42);
    /// # Ok::<(), JoinError>(())
    /// ```
    pub fn encode(&self) -> Result<Payload, JoinError> {
        self.job.encode()
    }

    /// Encodes the arguments, and drops them. The task can no longer run here.
    #[cfg(feature = "process")]
    pub(crate) fn encode_once(&self) -> Result<Payload, JoinError> {
        self.job.encode_once()
    }

    /// Returns the span that was current at the submit.
    #[cfg(feature = "process")]
    pub(crate) fn span(&self) -> Option<Span> {
        self.job.span()
    }

    /// Marks the job as running. Returns `false` if it was cancelled: see
    /// [`Promise::set_running`](crate::Promise::set_running).
    pub fn set_running(&self) -> bool {
        self.job.set_running()
    }

    /// Returns `true` if the job was cancelled before it was running.
    ///
    /// Then its handle has resolved, its arguments are dropped, and there is nothing left to do.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.job.is_cancelled()
    }

    /// Adds a hook that the handle's `cancel` calls: see
    /// [`Promise::on_cancel`](crate::Promise::on_cancel).
    pub fn on_cancel<F>(&self, hook: F)
    where
        F: FnOnce() -> bool + Send + 'static,
    {
        self.job.on_cancel(Box::new(hook));
    }

    /// Runs the task on this thread, and resolves the job. Never unwinds.
    ///
    /// It runs like any job: in the `tracing` span of the submit, and with
    /// [`cancel_requested`](crate::cancel_requested). Nothing is encoded.
    ///
    /// A job with a [time limit](Self::time_limit) is refused instead, because a thread cannot be
    /// stopped. A job whose [deadline](Self::deadline) has passed expires.
    pub fn run_here(self) {
        match refused_by_threads(self.info()) {
            Some(error) => {
                self.fail(error);
            }
            None => self.job.run_here(),
        }
    }

    /// Resolves the job with the output that the other process has sent.
    ///
    /// If the output cannot be decoded, the job fails with an error that
    /// [`is_codec`](JoinError::is_codec). If the job was cancelled, this has no effect.
    pub fn resolve(self, output: Payload) {
        self.job.resolve(output);
    }

    /// Resolves the job with `error`. Returns `false` if the job was cancelled: see
    /// [`Promise::fail`](crate::Promise::fail).
    pub fn fail(self, error: JoinError) -> bool {
        self.job.fail(error)
    }
}

impl fmt::Debug for TaskJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("TaskJob");
        debug.field("task", &self.name());
        if let Some(label) = self.label() {
            debug.field("label", &label);
        }
        debug.finish_non_exhaustive()
    }
}

/// A [`TypedJob`] without its type.
trait ErasedJob: Send {
    fn info(&self) -> &CallInfo;
    fn origin(&self) -> Origin;
    fn encode(&self) -> Result<Payload, JoinError>;
    #[cfg(feature = "process")]
    fn encode_once(&self) -> Result<Payload, JoinError>;
    #[cfg(feature = "process")]
    fn span(&self) -> Option<Span>;
    /// Moves the call to `place`, an `Option` of its type, if the job has not started.
    fn take_call(&self, place: &mut dyn Any);
    fn set_running(&self) -> bool;
    fn is_cancelled(&self) -> bool;
    fn on_cancel(&self, hook: Box<dyn FnOnce() -> bool + Send>);
    fn run_here(self: Box<Self>);
    fn resolve(self: Box<Self>, output: Payload);
    fn fail(self: Box<Self>, error: JoinError) -> bool;
}

struct TypedJob<C: JobCall> {
    info: CallInfo,
    // Before the promise: the call is dropped before the job's end is visible.
    slot: OwnedSlot<C>,
    promise: Promise<C::Output>,
    origin: Origin,
    /// The span that was current at `submit`.
    span: Option<Span>,
}

/// Where the call of a job is.
struct Slot<C> {
    /// `None` while it is encoded, and once it runs or is cancelled.
    call: Option<C>,
    stage: SlotStage,
}

#[derive(PartialEq, Eq)]
enum SlotStage {
    /// A cancel takes the call.
    Queued,
    /// The job runs, or is about to: a cancel leaves the call alone.
    Running,
    /// Nothing needs the call.
    Cancelled,
}

/// The slot, which the job shares with the hook of a cancel. Dropping it drops the call.
struct OwnedSlot<C>(Arc<Mutex<Slot<C>>>);

impl<C> OwnedSlot<C> {
    fn take(&self) -> Option<C> {
        self.0.lock().call.take()
    }

    /// Puts the call back, unless the job was cancelled meanwhile.
    fn put_back(&self, call: C) {
        let mut slot = self.0.lock();
        let unwanted = match slot.stage {
            SlotStage::Cancelled => Some(call),
            SlotStage::Queued | SlotStage::Running => slot.call.replace(call),
        };
        drop(slot);
        drop_catching("the destructor of a call", unwanted);
    }

    /// Takes the call, if the job has not started.
    fn take_queued(&self) -> Option<C> {
        let mut slot = self.0.lock();
        match slot.stage {
            SlotStage::Queued => slot.call.take(),
            SlotStage::Running | SlotStage::Cancelled => None,
        }
    }

    /// Keeps the call from a cancel.
    fn set_running(&self) {
        let mut slot = self.0.lock();
        if slot.stage == SlotStage::Queued {
            slot.stage = SlotStage::Running;
        }
    }

    /// Drops the call.
    fn clear(&self) {
        let mut slot = self.0.lock();
        slot.stage = SlotStage::Cancelled;
        let call = slot.call.take();
        drop(slot);
        drop_catching("the destructor of a call", call);
    }
}

impl<C> Drop for OwnedSlot<C> {
    fn drop(&mut self) {
        self.clear();
    }
}

impl<C: JobCall> TypedJob<C> {
    fn unencodable(&self, error: &CodecError) -> JoinError {
        let text = format!("the arguments could not be encoded: {error}");
        JoinError::codec(self.info.name, text, false)
    }
}

impl<C: JobCall> ErasedJob for TypedJob<C> {
    fn info(&self) -> &CallInfo {
        &self.info
    }

    fn origin(&self) -> Origin {
        self.origin
    }

    fn encode(&self) -> Result<Payload, JoinError> {
        // Not under the lock: a serializer is user code.
        let Some(call) = self.slot.take() else {
            return Err(JoinError::cancelled());
        };
        let encoded = call.encode();
        self.slot.put_back(call);
        encoded.map_err(|error| self.unencodable(&error))
    }

    #[cfg(feature = "process")]
    fn encode_once(&self) -> Result<Payload, JoinError> {
        let call = self.slot.take().ok_or_else(JoinError::cancelled)?;
        let encoded = call.into_encoded();
        encoded.map_err(|error| self.unencodable(&error))
    }

    #[cfg(feature = "process")]
    fn span(&self) -> Option<Span> {
        span::clone(&self.span)
    }

    fn take_call(&self, place: &mut dyn Any) {
        if let Some(place) = place.downcast_mut::<Option<C>>() {
            *place = self.slot.take_queued();
        }
    }

    fn set_running(&self) -> bool {
        // Invariant: before the promise is running. So a cancel that finds the promise running
        // leaves the call alone.
        self.slot.set_running();
        let running = self.promise.set_running();
        if !running {
            // The cancel may have come in between, and left the call.
            self.slot.clear();
        }
        running
    }

    fn is_cancelled(&self) -> bool {
        self.promise.is_cancelled()
    }

    fn on_cancel(&self, hook: Box<dyn FnOnce() -> bool + Send>) {
        self.promise.on_cancel(hook);
    }

    fn run_here(self: Box<Self>) {
        if let Some(error) = self.info.expired() {
            self.fail(error);
            return;
        }
        let this = *self;
        let Some(call) = this.slot.take() else {
            return;
        };
        // A job of its own gives the task the context of one, and the outcome of a panic.
        let (job, mut handle) = deferred(RunCall(call), this.origin, this.span);
        let inner = handle.cancel_handle();
        // The answer is `true` if the cancel came before the task has started.
        this.promise.on_cancel(move || inner.cancel());
        if !this.promise.set_running() {
            return;
        }
        job.run();
        let outcome = handle.try_join();
        match outcome.unwrap_or_else(|| Err(JoinError::cancelled())) {
            Ok(output) => complete(this.promise, output),
            Err(error) => {
                this.promise.fail(error);
            }
        }
    }

    fn resolve(self: Box<Self>, output: Payload) {
        self.slot.clear();
        match C::decode_output(output) {
            Ok(output) => complete(self.promise, output),
            Err(error) => {
                let text = format!("the output could not be decoded: {error}");
                let error = JoinError::codec(self.info.name, text, true);
                self.fail(error);
            }
        }
    }

    fn fail(self: Box<Self>, error: JoinError) -> bool {
        self.slot.clear();
        self.promise.fail(error.submitted_at(self.origin))
    }
}

/// Resolves a job. An output that comes after a cancel is dropped.
fn complete<T: Send + 'static>(promise: Promise<T>, output: T) {
    if let Err(output) = promise.complete(output) {
        drop_catching("the destructor of a job's result", output);
    }
}
