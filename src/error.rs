//! The errors of the crate.

use std::any::Any;
use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::io;
use std::panic::{Location, resume_unwind};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::util::unwind::panic_message;

/// The error that broke a pool, shared by its handles.
///
/// A thin pointer, because every job reserves space for a [`JoinError`].
pub(crate) type Cause = Arc<BoxError>;

/// Any error, as an initializer returns it.
pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// The error returned when a job has no result, or when a wait for it ended early.
///
/// [`is_cancelled`](Self::is_cancelled), [`is_panic`](Self::is_panic),
/// [`is_expired`](Self::is_expired), [`is_shutdown`](Self::is_shutdown),
/// [`is_broken`](Self::is_broken) and [`is_spawn_failed`](Self::is_spawn_failed) describe the job.
/// [`is_timeout`](Self::is_timeout) and [`is_deadlock`](Self::is_deadlock) describe only the wait.
///
/// Tasks can end in further ways. Of a worker process: [`is_crashed`](Self::is_crashed),
/// [`is_time_limit`](Self::is_time_limit), [`is_memory_limit`](Self::is_memory_limit),
/// [`is_codec`](Self::is_codec) and [`is_unknown_task`](Self::is_unknown_task). Of any executor:
/// [`is_refused`](Self::is_refused). Of an executor on other machines: [`is_lost`](Self::is_lost),
/// [`is_disconnected`](Self::is_disconnected) and [`is_duplicate_key`](Self::is_duplicate_key).
/// [`may_have_run`](Self::may_have_run) tells whether the job can have had effects.
///
/// The `?` operator converts it into an [`io::Error`], which keeps it as the inner error. The kind
/// of a timeout and of a time limit is [`io::ErrorKind::TimedOut`].
///
/// # Examples
///
/// ```
/// let pool = futurepool::ThreadPool::new(1);
/// let error = pool.submit(|| panic!("no such luck")).join().unwrap_err();
/// assert!(error.is_panic());
/// assert!(error.to_string().contains("no such luck"));
/// assert_eq!(error.into_panic().downcast_ref(), Some(&"no such luck"));
/// ```
///
/// Choosing the status code of a web service:
///
/// ```
/// use futurepool::{JoinError, ThreadPool};
///
/// fn status(error: &JoinError) -> u16 {
///     if error.is_timeout() {
///         504 // the wait timed out; the job continues
///     } else if error.may_have_run() || error.is_broken() {
///         500 // a panic, a deadlock or a broken pool; the message has the details
///     } else {
///         503 // expired, cancelled or shut down: the job never ran, and the client can retry
///     }
/// }
///
/// let pool = ThreadPool::new(1);
/// let late = pool.job(|| 7).expires_in(std::time::Duration::ZERO).submit();
/// assert_eq!(status(&late.join().unwrap_err()), 503);
/// assert_eq!(status(&pool.submit(|| panic!("no such luck")).join().unwrap_err()), 500);
/// assert_eq!(status(&JoinError::shutdown()), 503);
/// ```
#[doc(alias = "CancelledError")]
#[doc(alias = "BrokenExecutor")]
pub struct JoinError(Kind);

/// Why a wait could never have ended, by the places where the jobs were submitted.
///
/// Boxed, because every job reserves space for a [`JoinError`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Deadlock {
    /// Each job waits for the next one, and the last for the first.
    Cycle(Vec<Origin>),
    /// A job is queued, and all workers that could run it wait for each other or for queued jobs.
    NoWorker {
        /// The job that waits, if it is a job that does.
        waiting: Option<Origin>,
        queued: Origin,
    },
    /// An initializer waits for a job of its own pool.
    Initializer,
}

enum Kind {
    Cancelled(Option<Origin>),
    Panic(Box<Panic>),
    Shutdown(Option<Origin>),
    Broken(Cause),
    SpawnFailed(Arc<io::Error>),
    Timeout(Option<Origin>),
    Deadlock(Box<Deadlock>),
    #[cfg_attr(not(feature = "task"), allow(dead_code))]
    Failed(Box<Failure>),
}

/// A job that was accepted and has no result, for a reason that only tasks have.
#[derive(Clone)]
#[cfg_attr(not(all(unix, feature = "process")), allow(dead_code))]
pub(crate) struct Failure {
    pub(crate) cause: FailureCause,
    /// The name of the task, if the error is about a task.
    pub(crate) task: Option<Box<str>>,
    /// The worker that the job was sent to.
    pub(crate) worker: Option<WorkerName>,
    /// How that process ended.
    pub(crate) status: Option<ExitStatus>,
    /// The last lines that it has written to stderr.
    pub(crate) output: Option<Box<str>>,
    pub(crate) may_have_run: bool,
    pub(crate) origin: Option<Origin>,
}

#[derive(Clone)]
#[cfg_attr(not(all(unix, feature = "process")), allow(dead_code))]
pub(crate) enum FailureCause {
    /// The worker ended by itself. The text says how.
    Crashed(Box<str>),
    /// The job was cancelled while it ran, and its worker was killed.
    Killed,
    /// The job was cancelled when it may have run already. Nothing was killed for it.
    CancelledRunning,
    TimeLimit(Duration),
    MemoryLimit {
        limit: u64,
        seen: u64,
    },
    Codec(Box<str>),
    UnknownTask(Box<str>),
    Refused(Box<str>),
    Expired,
    /// The worker is gone, or there is no news of the job. The text says how that is known.
    Lost(Box<str>),
    /// The server of the executor is away. The text says how that is known.
    Disconnected(Box<str>),
    /// The text is the key.
    DuplicateKey(Box<str>),
    /// A cause that this version of the crate does not know.
    Other(Box<str>),
}

impl Failure {
    #[cfg_attr(not(feature = "task"), allow(dead_code))]
    pub(crate) fn new(cause: FailureCause) -> Self {
        Self {
            cause,
            task: None,
            worker: None,
            status: None,
            output: None,
            may_have_run: false,
            origin: None,
        }
    }

    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(task) = &self.task {
            write!(f, "task {task}: ")?;
        }
        let worker = Worker(self.worker.as_ref());
        match &self.cause {
            FailureCause::Crashed(how) => write!(f, "{worker} {how}")?,
            FailureCause::Killed => {
                f.write_str("the job was cancelled while it ran, and ")?;
                match self.worker {
                    Some(_) => write!(f, "{worker} was killed")?,
                    // It ended by itself.
                    None => f.write_str("its result was dropped")?,
                }
            }
            FailureCause::TimeLimit(limit) => {
                write!(
                    f,
                    "{worker} was killed: the job exceeded its time limit of {limit:?}"
                )?;
            }
            FailureCause::MemoryLimit { limit, seen } => write!(
                f,
                "{worker} was killed: the job exceeded the memory limit of {limit} bytes \
                 ({seen} bytes were resident)"
            )?,
            FailureCause::Codec(text)
            | FailureCause::UnknownTask(text)
            | FailureCause::Refused(text)
            | FailureCause::Other(text) => f.write_str(text)?,
            FailureCause::Expired if self.may_have_run => {
                f.write_str("the deadline passed before the job started again")?;
            }
            FailureCause::Expired => f.write_str("the deadline passed before the job started")?,
            FailureCause::CancelledRunning => {
                f.write_str("the job was cancelled, and may have run")?;
                if self.worker.is_some() {
                    write!(f, " in {worker}")?;
                }
            }
            FailureCause::Lost(text) => {
                f.write_str("the job was lost")?;
                if self.worker.is_some() {
                    write!(f, " with {worker}")?;
                }
                write!(f, ": {text}")?;
            }
            FailureCause::Disconnected(text) => {
                write!(
                    f,
                    "the server of the executor was away for too long: {text}"
                )?;
            }
            FailureCause::DuplicateKey(key) => {
                write!(f, "a detached job with the key {key:?} exists")?;
            }
        }
        if let Some(origin) = self.origin {
            write!(f, " (submitted at {origin})")?;
        }
        write!(f, "{}", LastOutput(self.output.as_deref()))
    }
}

/// Adds what a worker process has written last to a message.
#[cfg_attr(not(all(unix, feature = "process")), allow(dead_code))]
pub(crate) struct LastOutput<'a>(pub(crate) Option<&'a str>);

impl fmt::Display for LastOutput<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A panic begins with an empty line.
        match self.0.map(|text| text.trim_start_matches('\n').trim_end()) {
            None | Some("") => Ok(()),
            // Continuation lines are indented, so that the output cannot pose as lines of a log.
            Some(output) => write!(f, "; its last output: {}", output.replace('\n', "\n    ")),
        }
    }
}

/// The worker that a job was sent to.
#[derive(Clone)]
#[cfg_attr(not(all(unix, feature = "process")), allow(dead_code))]
pub(crate) enum WorkerName {
    /// A process of a pool.
    Pid(u32),
    /// What its executor calls it.
    Text(Box<str>),
}

impl fmt::Display for WorkerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pid(pid) => pid.fmt(f),
            Self::Text(name) => name.fmt(f),
        }
    }
}

/// Names a worker in a message.
struct Worker<'a>(Option<&'a WorkerName>);

impl fmt::Display for Worker<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(name) => write!(f, "worker {name}"),
            None => f.write_str("its worker"),
        }
    }
}

/// Why a worker process did not start: the inner error of an [`io::Error`].
#[derive(Debug)]
#[cfg_attr(not(feature = "process"), allow(dead_code))]
pub(crate) struct StartFailed(pub(crate) String);

impl fmt::Display for StartFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for StartFailed {}

/// The place where the job was submitted.
type Origin = &'static Location<'static>;

struct Panic {
    /// Never locked. The mutex makes the error `Sync` although the payload may not be.
    payload: Mutex<Box<dyn Any + Send>>,
    /// The payload's text, if it is a `&str` or a `String`.
    message: Option<Box<str>>,
    origin: Origin,
    /// Only for a panic in another process.
    remote: Option<Box<RemotePanic>>,
}

/// What is known of a panic in another process.
#[derive(Clone)]
#[cfg_attr(not(feature = "task"), allow(dead_code))]
pub(crate) struct RemotePanic {
    /// The file, line and column of the panic.
    pub(crate) location: Option<Box<str>>,
    pub(crate) task: Box<str>,
    pub(crate) worker: Option<WorkerName>,
    /// How the process ended. `None` if it lives on.
    pub(crate) status: Option<ExitStatus>,
    pub(crate) output: Option<Box<str>>,
}

impl JoinError {
    pub(crate) fn panicked(payload: Box<dyn Any + Send>, origin: Origin) -> Self {
        Self(Kind::Panic(Box::new(Panic {
            message: panic_message(&*payload).map(Box::from),
            payload: Mutex::new(payload),
            origin,
            remote: None,
        })))
    }

    /// Creates the error of a job that panicked in another process. The payload is a `String`.
    ///
    /// [`submitted_at`](Self::submitted_at) sets the place.
    #[cfg(feature = "task")]
    #[track_caller]
    pub(crate) fn panicked_in_worker(message: String, remote: RemotePanic) -> Self {
        let mut error = Self::panicked(Box::new(message), Location::caller());
        if let Kind::Panic(panic) = &mut error.0 {
            panic.remote = Some(Box::new(remote));
        }
        error
    }

    pub(crate) fn failed(failure: Failure) -> Self {
        Self(Kind::Failed(Box::new(failure)))
    }

    /// Returns whether the job expired, or has no result for a reason that only tasks have.
    pub(crate) fn is_failure(&self) -> bool {
        self.failure().is_some()
    }

    pub(crate) fn failure(&self) -> Option<&Failure> {
        match &self.0 {
            Kind::Failed(failure) => Some(failure),
            _ => None,
        }
    }

    fn cause(&self) -> Option<&FailureCause> {
        self.failure().map(|failure| &failure.cause)
    }

    pub(crate) fn remote_panic(&self) -> Option<&RemotePanic> {
        match &self.0 {
            Kind::Panic(panic) => panic.remote.as_deref(),
            _ => None,
        }
    }

    pub(crate) fn broken_by(cause: Cause) -> Self {
        Self(Kind::Broken(cause))
    }

    pub(crate) fn spawn_failed(error: Arc<io::Error>) -> Self {
        Self(Kind::SpawnFailed(error))
    }

    /// Returns whether it was a worker process that did not start.
    pub(crate) fn is_start_failed(&self) -> bool {
        let Kind::SpawnFailed(error) = &self.0 else {
            return false;
        };
        error
            .get_ref()
            .is_some_and(|error| error.is::<StartFailed>())
    }

    pub(crate) fn timeout() -> Self {
        Self(Kind::Timeout(None))
    }

    /// Adds the place where the job was submitted, if the error has room for it and does not know
    /// it.
    pub(crate) fn submitted_at(mut self, origin: Origin) -> Self {
        match &mut self.0 {
            Kind::Cancelled(at) | Kind::Shutdown(at) | Kind::Timeout(at) => {
                at.get_or_insert(origin);
            }
            Kind::Failed(failure) => {
                failure.origin.get_or_insert(origin);
            }
            Kind::Panic(panic) if panic.remote.is_some() => panic.origin = origin,
            Kind::Panic(_) | Kind::Broken(_) | Kind::SpawnFailed(_) | Kind::Deadlock(_) => {}
        }
        self
    }

    /// Creates the error of a wait that could never end.
    pub(crate) fn deadlock(deadlock: Deadlock) -> Self {
        Self(Kind::Deadlock(Box::new(deadlock)))
    }

    /// Copies the error for another job that did not run either.
    ///
    /// The payload of a panic in this process cannot be copied: the copy is `Cancelled`.
    pub(crate) fn replicate(&self) -> Self {
        Self(match &self.0 {
            Kind::Shutdown(_) => Kind::Shutdown(None),
            Kind::Broken(cause) => Kind::Broken(Arc::clone(cause)),
            Kind::SpawnFailed(error) => Kind::SpawnFailed(Arc::clone(error)),
            Kind::Timeout(_) => Kind::Timeout(None),
            Kind::Deadlock(deadlock) => Kind::Deadlock(deadlock.clone()),
            Kind::Failed(failure) => Kind::Failed(Box::new(Failure {
                origin: None,
                ..Failure::clone(failure)
            })),
            Kind::Panic(panic) if panic.remote.is_some() => Kind::Panic(Box::new(Panic {
                payload: Mutex::new(Box::new(
                    panic.message.as_deref().unwrap_or_default().to_owned(),
                )),
                message: panic.message.clone(),
                origin: panic.origin,
                remote: panic.remote.clone(),
            })),
            Kind::Cancelled(_) | Kind::Panic(_) => Kind::Cancelled(None),
        })
    }

    /// Returns `true` if the job was cancelled before it started, or killed by a cancel.
    ///
    /// Only executors with worker processes kill running jobs. If the job was killed, or if it is
    /// unknown whether it had started, [`may_have_run`](Self::may_have_run) returns `true`. A job
    /// is cancelled by:
    ///
    /// - its handle,
    /// - [`cancel_queued`](crate::ThreadPool::cancel_queued) or
    ///   [`shutdown_now`](crate::ThreadPool::shutdown_now),
    /// - the end of the map that it belongs to,
    /// - an executor, or a [`Promise`](crate::Promise), that drops it.
    ///
    /// See [`JoinHandle::cancel`](crate::JoinHandle::cancel) for an example.
    #[doc(alias = "CancelledError")]
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        matches!(self.0, Kind::Cancelled(_))
            || matches!(
                self.cause(),
                Some(FailureCause::Killed | FailureCause::CancelledRunning)
            )
    }

    /// Returns `true` if the job panicked.
    ///
    /// [`into_panic`](Self::into_panic) returns the panic payload. See [`JoinError`] for an
    /// example.
    #[must_use]
    pub fn is_panic(&self) -> bool {
        matches!(self.0, Kind::Panic(_))
    }

    /// Returns `true` if the pool, or another executor, was shut down and did not accept the job.
    ///
    /// See [`ThreadPool::shutdown`](crate::ThreadPool::shutdown) for an example.
    #[doc(alias = "RuntimeError")]
    #[must_use]
    pub fn is_shutdown(&self) -> bool {
        matches!(self.0, Kind::Shutdown(_))
    }

    /// Returns `true` if the pool broke before the job started.
    ///
    /// An initializer that fails or panics breaks its pool. Executors outside this crate report
    /// with it that they no longer work. [`source`](Error::source) returns the cause, which
    /// `Display` shows too.
    ///
    /// See [`ThreadPoolBuilder::initializer`](crate::ThreadPoolBuilder::initializer) for an
    /// example.
    #[doc(alias = "BrokenThreadPool")]
    #[doc(alias = "BrokenExecutor")]
    #[must_use]
    pub fn is_broken(&self) -> bool {
        matches!(self.0, Kind::Broken(_))
    }

    /// Returns `true` if the pool had no worker and failed to spawn one, or if it failed to start
    /// the worker process of the job.
    ///
    /// [`source`](Error::source) returns the system's error. The spawn failure does not break the
    /// pool: the next `submit` tries to spawn a worker again.
    #[doc(alias = "ThreadSpawnError")]
    #[must_use]
    pub fn is_spawn_failed(&self) -> bool {
        matches!(self.0, Kind::SpawnFailed(_))
    }

    /// Returns `true` if the wait timed out. The job is not affected.
    ///
    /// See [`JoinHandle::join_timeout`](crate::JoinHandle::join_timeout) for an example.
    #[doc(alias = "TimeoutError")]
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self.0, Kind::Timeout(_))
    }

    /// Returns `true` if the wait could never have ended.
    ///
    /// That is a job that joins itself, or a job that joins one which waits for it, directly or
    /// through other jobs. `Display` names the jobs of that cycle by the places where they were
    /// submitted. A `join` in an initializer for a job of its own pool returns this error, too.
    ///
    /// So does a `join` for a queued job that no worker can reach: all workers of its pool wait for
    /// each other or for queued jobs, perhaps of other pools, and no more can be started. In a
    /// [`ThreadPool`](crate::ThreadPool#waits-in-a-worker) that takes several pools. In a
    /// [`StatefulPool`](crate::StatefulPool#waits-in-a-worker), whose waiting workers run no jobs,
    /// one is enough.
    ///
    /// The error describes the wait: the job that was waited for is not affected.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::mpsc::channel;
    ///
    /// use futurepool::{JoinHandle, ThreadPool};
    ///
    /// let pool = ThreadPool::new(1);
    /// let (give, take) = channel::<JoinHandle<()>>();
    /// let (tell, told) = channel();
    /// let handle = pool.submit(move || {
    ///     let own = take.recv().unwrap();
    ///     tell.send(own.join()).unwrap(); // the job joins itself
    /// });
    /// give.send(handle).unwrap();
    /// assert!(told.recv().unwrap().unwrap_err().is_deadlock());
    /// ```
    #[must_use]
    pub fn is_deadlock(&self) -> bool {
        matches!(self.0, Kind::Deadlock(_))
    }

    /// Returns `true` if the worker process of the job ended before the job did.
    ///
    /// The job has ended it: by a signal, such as that of an invalid memory access, by an abort or
    /// by an exit. Or something else has killed it. [`exit_status`](Self::exit_status) and
    /// [`worker_output`](Self::worker_output) tell more, as does `Display`. The pool lives on.
    #[doc(alias = "BrokenProcessPool")]
    #[doc(alias = "ProcessExpired")]
    #[doc(alias = "TerminatedWorkerError")]
    #[must_use]
    pub fn is_crashed(&self) -> bool {
        matches!(self.cause(), Some(FailureCause::Crashed(_)))
    }

    /// Returns `true` if the job exceeded its time limit, and its worker process was killed.
    ///
    /// Unlike [`is_timeout`](Self::is_timeout), this describes the job, not a wait for it.
    #[doc(alias = "TimeoutError")]
    #[must_use]
    pub fn is_time_limit(&self) -> bool {
        matches!(self.cause(), Some(FailureCause::TimeLimit(_)))
    }

    /// Returns `true` if the job exceeded the memory limit, and its worker process was killed.
    #[doc(alias = "MemoryError")]
    #[must_use]
    pub fn is_memory_limit(&self) -> bool {
        matches!(self.cause(), Some(FailureCause::MemoryLimit { .. }))
    }

    /// Returns `true` if the arguments or the result could not be encoded or decoded.
    ///
    /// If the result is what failed, [`may_have_run`](Self::may_have_run) returns `true`.
    #[doc(alias = "PicklingError")]
    #[must_use]
    pub fn is_codec(&self) -> bool {
        matches!(self.cause(), Some(FailureCause::Codec(_)))
    }

    /// Returns `true` if the worker process does not have the task, or has another version of it.
    #[doc(alias = "AttributeError")]
    #[must_use]
    pub fn is_unknown_task(&self) -> bool {
        matches!(self.cause(), Some(FailureCause::UnknownTask(_)))
    }

    /// Returns `true` if the executor cannot do what the call asks for.
    ///
    /// An example is a time limit in a thread, which cannot be killed.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(self.cause(), Some(FailureCause::Refused(_)))
    }

    /// Returns `true` if the deadline of the job passed before the job started.
    ///
    /// The deadline is that of the job or the
    /// [`queue_timeout`](crate::ThreadPoolBuilder::queue_timeout) of its pool. The job never ran.
    /// See [`JobBuilder::deadline`](crate::JobBuilder::deadline) for an example.
    #[doc(alias = "DeadlineExceeded")]
    #[must_use]
    pub fn is_expired(&self) -> bool {
        matches!(self.cause(), Some(FailureCause::Expired))
    }

    /// Returns `true` if the worker died while the job was with it, or if it is unknown what became
    /// of the job.
    ///
    /// Only executors on other machines lose jobs: a pool of worker processes
    /// [knows](Self::is_crashed) how a worker ended. [`worker`](Self::worker) names the worker.
    ///
    /// [`may_have_run`](Self::may_have_run) tells whether the job may have started. It can return
    /// `true` while the job still runs, on a machine that cannot be reached.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "task")] {
    /// use futurepool::JoinError;
    ///
    /// let worker = Some("build-7/4711");
    /// let error = JoinError::lost("order.checksum", worker, "its lease has expired", true);
    /// assert!(error.is_lost() && error.may_have_run());
    /// assert_eq!(
    ///     error.to_string(),
    ///     "task order.checksum: the job was lost with worker build-7/4711: its lease has expired"
    /// );
    /// # }
    /// ```
    #[doc(alias = "WorkerLostError")]
    #[doc(alias = "KilledWorker")]
    #[doc(alias = "WorkerCrashedError")]
    #[doc(alias = "NodeDiedError")]
    #[must_use]
    pub fn is_lost(&self) -> bool {
        matches!(self.cause(), Some(FailureCause::Lost(_)))
    }

    /// Returns `true` if the server of the executor could not be reached for too long.
    ///
    /// If the job was never sent, [`may_have_run`](Self::may_have_run) returns `false`.
    #[doc(alias = "OperationalError")]
    #[doc(alias = "CommClosedError")]
    #[doc(alias = "ConnectionError")]
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        matches!(self.cause(), Some(FailureCause::Disconnected(_)))
    }

    /// Returns `true` if a detached job with the same key exists. The job was not submitted.
    #[doc(alias = "DuplicateTask")]
    #[must_use]
    pub fn is_duplicate_key(&self) -> bool {
        matches!(self.cause(), Some(FailureCause::DuplicateKey(_)))
    }

    /// Returns the name of the worker that the job was with, if the error knows it.
    ///
    /// It is the number of a worker process, or what the executor calls the worker, such as
    /// `build-7/4711`.
    #[must_use]
    pub fn worker(&self) -> Option<Cow<'_, str>> {
        let worker = match self.remote_panic() {
            Some(remote) => remote.worker.as_ref(),
            None => self.failure()?.worker.as_ref(),
        };
        Some(match worker? {
            WorkerName::Pid(pid) => Cow::Owned(pid.to_string()),
            WorkerName::Text(name) => Cow::Borrowed(name),
        })
    }

    /// Returns how the worker process of the job ended, if it ended and its status is known.
    #[doc(alias = "exitcode")]
    #[must_use]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        match self.remote_panic() {
            Some(remote) => remote.status,
            None => self.failure()?.status,
        }
    }

    /// Returns the last lines that the worker process wrote to its stderr before it ended.
    ///
    /// `None` if the process did not end, or if its stderr is not read by the pool.
    #[must_use]
    pub fn worker_output(&self) -> Option<&str> {
        match self.remote_panic() {
            Some(remote) => remote.output.as_deref(),
            None => self.failure()?.output.as_deref(),
        }
    }

    /// Returns the file, line and column of a panic in a worker process.
    ///
    /// [`location`](Self::location) stays the place where the job was submitted. For a panic in a
    /// thread this returns `None`: the panic hook has printed the place.
    #[must_use]
    pub fn panic_location(&self) -> Option<&str> {
        self.remote_panic()?.location.as_deref()
    }

    /// Returns whether the job may have run, wholly or in part.
    ///
    /// `false` is certain: the job never started, so running it again does nothing twice. The
    /// errors of a wait, such as [`is_timeout`](Self::is_timeout), return `true`: the job can still
    /// run.
    #[must_use]
    pub fn may_have_run(&self) -> bool {
        match &self.0 {
            Kind::Cancelled(_) | Kind::Shutdown(_) | Kind::Broken(_) | Kind::SpawnFailed(_) => {
                false
            }
            Kind::Panic(_) | Kind::Timeout(_) | Kind::Deadlock(_) => true,
            Kind::Failed(failure) => failure.may_have_run,
        }
    }

    /// Returns the panic payload of the job.
    ///
    /// Inspect the payload, or pass it to [`std::panic::resume_unwind`]. A payload with a message
    /// is either a `&'static str` or a `String`, so try both. See [`JoinError`] for an example.
    ///
    /// # Panics
    ///
    /// Panics if the job did not panic. [`try_into_panic`](Self::try_into_panic) does not.
    #[doc(alias = "exception")]
    #[must_use]
    #[track_caller]
    pub fn into_panic(self) -> Box<dyn Any + Send> {
        self.try_into_panic().unwrap_or_else(|error| {
            panic!("`into_panic` called on an error that is not a panic: {error}")
        })
    }

    /// Returns the panic payload of the job, if it panicked.
    ///
    /// # Errors
    ///
    /// Returns the error itself if the job did not panic.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = futurepool::ThreadPool::new(1);
    /// let error = pool.submit(|| std::panic::panic_any(7)).join().unwrap_err();
    /// let payload = error.try_into_panic().unwrap();
    /// assert_eq!(payload.downcast_ref(), Some(&7));
    ///
    /// pool.shutdown();
    /// let error = pool.submit(|| 7).join().unwrap_err();
    /// assert!(error.try_into_panic().unwrap_err().is_shutdown());
    /// ```
    #[doc(alias = "exception")]
    pub fn try_into_panic(self) -> Result<Box<dyn Any + Send>, Self> {
        match self.0 {
            Kind::Panic(panic) => Ok(panic
                .payload
                .into_inner()
                .unwrap_or_else(PoisonError::into_inner)),
            other => Err(Self(other)),
        }
    }

    /// Resumes the panic of the job on the calling thread. Returns any other error.
    ///
    /// This passes a panic on as if the job's closure had been called here. The panic hook does not
    /// run again.
    ///
    /// # Panics
    ///
    /// Panics with the job's panic payload if the job panicked.
    ///
    /// # Examples
    ///
    /// ```
    /// use futurepool::{JoinError, ThreadPool};
    ///
    /// let pool = ThreadPool::new(1);
    /// let seven = pool.submit(|| 7).join().map_err(JoinError::resume_panic)?;
    /// assert_eq!(seven, 7);
    /// # Ok::<(), JoinError>(())
    /// ```
    #[doc(alias = "resume_unwind")]
    #[must_use = "the error is not a panic, and may need handling"]
    pub fn resume_panic(self) -> Self {
        match self.try_into_panic() {
            Ok(payload) => resume_unwind(payload),
            Err(error) => error,
        }
    }

    /// Returns the message of the panic, if the job panicked with a message.
    ///
    /// `panic!` makes such a payload. [`into_panic`](Self::into_panic) returns any payload.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = futurepool::ThreadPool::new(1);
    /// let error = pool.submit(|| panic!("no such luck")).join().unwrap_err();
    /// assert_eq!(error.panic_message(), Some("no such luck"));
    /// ```
    #[must_use]
    pub fn panic_message(&self) -> Option<&str> {
        match &self.0 {
            Kind::Panic(panic) => panic.message.as_deref(),
            _ => None,
        }
    }

    /// Returns where the job was submitted, if the error knows it.
    ///
    /// The handle of a job that panicked, was cancelled or was refused by a pool that is shut down
    /// returns an error with the location. So does a wait with a timeout. The errors of a broken
    /// pool, of a failed thread spawn and of a deadlock have none. Nor has an error that was made
    /// by one of the public constructors and belongs to no job yet.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = futurepool::ThreadPool::new(1);
    /// let error = pool.submit(|| panic!("no such luck")).join().unwrap_err();
    /// assert!(error.location().unwrap().file().ends_with(".rs"));
    /// ```
    #[must_use]
    pub fn location(&self) -> Option<&'static Location<'static>> {
        match &self.0 {
            Kind::Cancelled(at) | Kind::Shutdown(at) | Kind::Timeout(at) => *at,
            Kind::Panic(panic) => Some(panic.origin),
            Kind::Failed(failure) => failure.origin,
            Kind::Broken(_) | Kind::SpawnFailed(_) | Kind::Deadlock(_) => None,
        }
    }

    /// Creates the error of a job that was cancelled before it started.
    ///
    /// An [`Executor`](crate::Executor) passes it to [`Job::refuse`](crate::Job::refuse), or to
    /// [`Promise::fail`](crate::Promise::fail).
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(futurepool::JoinError::cancelled().is_cancelled());
    /// ```
    #[must_use]
    pub fn cancelled() -> Self {
        Self(Kind::Cancelled(None))
    }

    /// Creates the error of an [`Executor`](crate::Executor) that accepts no more jobs.
    ///
    /// Pass it to [`Job::refuse`](crate::Job::refuse). See [`Executor`](crate::Executor) for an
    /// example.
    #[must_use]
    pub fn shutdown() -> Self {
        Self(Kind::Shutdown(None))
    }

    /// Creates the error of an [`Executor`](crate::Executor) that no longer works because of
    /// `cause`.
    ///
    /// Pass it to [`Job::refuse`](crate::Job::refuse).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::error::Error;
    ///
    /// let error = futurepool::JoinError::broken("the disk is gone");
    /// assert!(error.is_broken());
    /// assert_eq!(error.source().unwrap().to_string(), "the disk is gone");
    /// ```
    #[must_use]
    pub fn broken(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::broken_by(Arc::new(cause.into()))
    }
}

/// The errors of executors that run tasks elsewhere: see [`TaskJob::fail`](crate::TaskJob::fail).
///
/// Each names the task. [`with_earlier_start`](Self::with_earlier_start) is for a job that starts
/// more than once.
#[cfg(feature = "task")]
impl JoinError {
    /// Creates the error of a job that its executor cannot run, for the reason in `text`.
    ///
    /// # Examples
    ///
    /// ```
    /// let error = futurepool::JoinError::refused("images.scale", "the queue has no such worker");
    /// assert!(error.is_refused() && !error.may_have_run());
    /// assert_eq!(error.to_string(), "task images.scale: the queue has no such worker");
    /// ```
    #[must_use]
    pub fn refused(task: &str, text: impl Into<Box<str>>) -> Self {
        Self::of_task(task, FailureCause::Refused(text.into()), false)
    }

    /// Creates the error of a job whose deadline passed before it started.
    #[must_use]
    pub fn expired(task: &str) -> Self {
        Self::expired_job(Some(task))
    }

    /// Creates the error of a job whose arguments or result could not be encoded or decoded.
    ///
    /// `may_have_run` is `true` if the result is what failed.
    #[must_use]
    pub fn codec(task: &str, text: impl Into<Box<str>>, may_have_run: bool) -> Self {
        Self::of_task(task, FailureCause::Codec(text.into()), may_have_run)
    }

    /// Creates the error of a job whose worker does not have the task, or has another version of
    /// it.
    #[must_use]
    pub fn unknown_task(task: &str, text: impl Into<Box<str>>) -> Self {
        Self::of_task(task, FailureCause::UnknownTask(text.into()), false)
    }

    /// Creates the error of a job that was lost with its worker, or of which there is no news.
    ///
    /// `text` says how that is known. See [`is_lost`](Self::is_lost) for an example.
    #[must_use]
    pub fn lost(
        task: &str,
        worker: Option<&str>,
        text: impl Into<Box<str>>,
        may_have_run: bool,
    ) -> Self {
        Self::failed(Failure {
            task: Some(task.into()),
            worker: worker.map(|name| WorkerName::Text(name.into())),
            may_have_run,
            ..Failure::new(FailureCause::Lost(text.into()))
        })
    }

    /// Creates the error of a job whose executor has lost its server for too long.
    ///
    /// `text` says for how long, or names the last error. `may_have_run` is `false` if the job was
    /// never sent.
    ///
    /// # Examples
    ///
    /// ```
    /// let text = "no connection for 300 s: connection refused";
    /// let error = futurepool::JoinError::disconnected("images.scale", text, false);
    /// assert!(error.is_disconnected() && !error.may_have_run());
    /// ```
    #[must_use]
    pub fn disconnected(task: &str, text: impl Into<Box<str>>, may_have_run: bool) -> Self {
        Self::of_task(task, FailureCause::Disconnected(text.into()), may_have_run)
    }

    /// Creates the error of a job that was cancelled when it may have run already.
    ///
    /// [`cancelled`](Self::cancelled) is for a job that never started.
    ///
    /// # Examples
    ///
    /// ```
    /// let error = futurepool::JoinError::cancelled_running("images.scale");
    /// assert!(error.is_cancelled() && error.may_have_run());
    /// ```
    #[must_use]
    pub fn cancelled_running(task: &str) -> Self {
        Self::of_task(task, FailureCause::CancelledRunning, true)
    }

    /// Creates the error of a detached job that was not submitted, because its key is taken.
    ///
    /// # Examples
    ///
    /// ```
    /// let error = futurepool::JoinError::duplicate_key("order.checksum", "order-17");
    /// assert!(error.is_duplicate_key() && !error.may_have_run());
    /// ```
    #[must_use]
    pub fn duplicate_key(task: &str, key: &str) -> Self {
        Self::of_task(task, FailureCause::DuplicateKey(key.into()), false)
    }

    /// Returns this error for a job that has started before, so that
    /// [`may_have_run`](Self::may_have_run) returns `true`.
    ///
    /// An executor that starts an idempotent task again needs it: the job may have run although
    /// its last start failed. A job that was [cancelled](Self::is_cancelled) stays so. If the last
    /// executor was [shut down](Self::is_shutdown), [broken](Self::is_broken) or
    /// [without a worker](Self::is_spawn_failed), the job [is lost](Self::is_lost). Other errors
    /// stay what they are.
    ///
    /// # Examples
    ///
    /// ```
    /// use futurepool::JoinError;
    ///
    /// let error = JoinError::expired("images.scale").with_earlier_start("images.scale");
    /// assert!(error.is_expired() && error.may_have_run());
    ///
    /// let error = JoinError::shutdown().with_earlier_start("images.scale");
    /// assert!(error.is_lost() && error.may_have_run());
    /// ```
    #[must_use]
    pub fn with_earlier_start(mut self, task: &str) -> Self {
        let cause = match &mut self.0 {
            Kind::Failed(failure) => {
                failure.may_have_run = true;
                return self;
            }
            Kind::Panic(_) | Kind::Timeout(_) | Kind::Deadlock(_) => return self,
            Kind::Cancelled(_) => FailureCause::CancelledRunning,
            Kind::Shutdown(_) | Kind::Broken(_) | Kind::SpawnFailed(_) => {
                FailureCause::Lost(format!("it could not start again: {self}").into())
            }
        };
        let origin = self.location();
        Self::failed(Failure {
            task: Some(task.into()),
            may_have_run: true,
            origin,
            ..Failure::new(cause)
        })
    }

    fn of_task(task: &str, cause: FailureCause, may_have_run: bool) -> Self {
        Self::failed(Failure {
            task: Some(task.into()),
            may_have_run,
            ..Failure::new(cause)
        })
    }
}

impl JoinError {
    /// Creates the error of a job whose deadline passed before it started. `task`: the name of the
    /// task that it calls, if it calls one.
    pub(crate) fn expired_job(task: Option<&str>) -> Self {
        Self::failed(Failure {
            task: task.map(Into::into),
            ..Failure::new(FailureCause::Expired)
        })
    }
}

// Every job reserves space for an error.
const _: () = assert!(size_of::<JoinError>() <= 2 * size_of::<usize>());

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Cancelled(_) => f.write_str("the job was cancelled before it started"),
            Kind::Panic(panic) => {
                match &panic.remote {
                    None => f.write_str("the job panicked")?,
                    Some(remote) => {
                        let RemotePanic { task, worker, .. } = &**remote;
                        write!(f, "task {task}: the job panicked")?;
                        if let Some(worker) = worker {
                            write!(f, " in worker {worker}")?;
                        }
                        if let Some(location) = &remote.location {
                            write!(f, " at {location}")?;
                        }
                    }
                }
                if let Some(message) = &panic.message {
                    write!(f, ": {message}")?;
                }
                write!(f, " (submitted at {})", panic.origin)
            }
            Kind::Failed(failure) => failure.fmt(f),
            Kind::Shutdown(_) => f.write_str("the pool is shut down and accepts no more jobs"),
            Kind::Broken(cause) => write!(f, "the pool is broken: {cause}"),
            Kind::SpawnFailed(error) => {
                let what = if self.is_start_failed() {
                    "start a worker process"
                } else {
                    "spawn a worker thread"
                };
                write!(f, "failed to {what}: {error}")
            }
            Kind::Timeout(Some(_)) => f.write_str("timed out before the job finished"),
            Kind::Timeout(None) => f.write_str("timed out before all jobs finished"),
            Kind::Deadlock(deadlock) => deadlock.fmt(f),
        }
    }
}

impl fmt::Display for Deadlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("deadlock: ")?;
        match self {
            Self::Cycle(jobs) => {
                let mut jobs = jobs.iter();
                if let Some(first) = jobs.next() {
                    write!(f, "the job submitted at {first} waits for ")?;
                }
                if jobs.len() == 0 {
                    return f.write_str("itself");
                }
                for next in jobs {
                    write!(f, "the one submitted at {next}, which waits for ")?;
                }
                f.write_str("the first")
            }
            Self::NoWorker { waiting, queued } => {
                match waiting {
                    Some(waiting) => write!(f, "the job submitted at {waiting} waits for ")?,
                    None => f.write_str("a thread waits for ")?,
                }
                write!(
                    f,
                    "the one submitted at {queued}, which is queued while all workers of its pool wait"
                )
            }
            Self::Initializer => f.write_str("an initializer waits for a job of its own pool"),
        }
    }
}

impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.0 {
            Kind::Cancelled(_) => "Cancelled",
            Kind::Panic(_) => "Panic",
            Kind::Shutdown(_) => "Shutdown",
            Kind::Broken(_) => "Broken",
            Kind::SpawnFailed(_) => "SpawnFailed",
            Kind::Timeout(_) => "Timeout",
            Kind::Deadlock(_) => "Deadlock",
            Kind::Failed(ref failure) => match failure.cause {
                FailureCause::Crashed(_) => "Crashed",
                FailureCause::Killed | FailureCause::CancelledRunning => "Cancelled",
                FailureCause::TimeLimit(_) => "TimeLimit",
                FailureCause::MemoryLimit { .. } => "MemoryLimit",
                FailureCause::Codec(_) => "Codec",
                FailureCause::UnknownTask(_) => "UnknownTask",
                FailureCause::Refused(_) => "Refused",
                FailureCause::Expired => "Expired",
                FailureCause::Lost(_) => "Lost",
                FailureCause::Disconnected(_) => "Disconnected",
                FailureCause::DuplicateKey(_) => "DuplicateKey",
                FailureCause::Other(_) => "Other",
            },
        };
        write!(f, "JoinError::{kind}({:?})", self.to_string())
    }
}

impl Error for JoinError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.0 {
            Kind::Broken(cause) => Some(&***cause),
            Kind::SpawnFailed(error) => Some(&**error),
            _ => None,
        }
    }
}

impl JoinError {
    /// Returns the kind of the [`io::Error`] that this error becomes.
    fn io_kind(&self) -> io::ErrorKind {
        match &self.0 {
            Kind::Timeout(_) => io::ErrorKind::TimedOut,
            Kind::Deadlock(_) => io::ErrorKind::Deadlock,
            Kind::Failed(failure) => match failure.cause {
                FailureCause::TimeLimit(_) | FailureCause::Expired => io::ErrorKind::TimedOut,
                FailureCause::MemoryLimit { .. } => io::ErrorKind::OutOfMemory,
                FailureCause::Codec(_) => io::ErrorKind::InvalidData,
                FailureCause::Refused(_) => io::ErrorKind::Unsupported,
                FailureCause::Disconnected(_) => io::ErrorKind::NotConnected,
                FailureCause::DuplicateKey(_) => io::ErrorKind::AlreadyExists,
                FailureCause::Crashed(_)
                | FailureCause::Killed
                | FailureCause::CancelledRunning
                | FailureCause::UnknownTask(_)
                | FailureCause::Lost(_)
                | FailureCause::Other(_) => io::ErrorKind::Other,
            },
            _ => io::ErrorKind::Other,
        }
    }
}

impl From<JoinError> for io::Error {
    fn from(error: JoinError) -> Self {
        io::Error::new(error.io_kind(), error)
    }
}

/// The reason why a pool accepts no more jobs.
#[derive(Clone)]
pub(crate) enum Closed {
    Shutdown,
    Broken(Cause),
}

impl From<Closed> for JoinError {
    fn from(closed: Closed) -> Self {
        match closed {
            Closed::Shutdown => Self::shutdown(),
            Closed::Broken(cause) => Self::broken_by(cause),
        }
    }
}

/// The error returned when a pool does not accept a job. Returns the closure.
///
/// **Dropping it drops the closure.** [`into_inner`](Self::into_inner) returns the closure instead.
///
/// The `?` operator converts it into an [`io::Error`] and drops the closure. The inner error is
/// then a `SubmitError<()>`, since the type of a closure has no name. The kind is
/// [`io::ErrorKind::WouldBlock`] if the queue is full. For any other reason it is the kind that the
/// [`JoinError`] of that reason has.
///
/// # Examples
///
/// ```
/// let pool = futurepool::ThreadPool::new(1);
/// pool.shutdown();
/// let error = pool.try_submit(|| 7).unwrap_err();
/// assert!(error.is_shutdown());
/// assert_eq!(error.into_inner()(), 7);
/// ```
///
/// In a function that returns an [`io::Result`]:
///
/// ```
/// use std::io;
///
/// use futurepool::ThreadPool;
///
/// async fn size(pool: &ThreadPool, path: &'static str) -> io::Result<u64> {
///     let job = pool.submit_async(move || std::fs::metadata(path)).await?;
///     Ok(job.await??.len())
/// }
///
/// let pool = ThreadPool::builder().queue_capacity(10).build()?;
/// assert!(futurepool::block_on(size(&pool, "Cargo.toml"))? > 0);
/// # Ok::<(), io::Error>(())
/// ```
#[doc(alias = "TrySendError")]
#[doc(alias = "RejectedExecutionException")]
#[doc(alias = "Full")]
pub struct SubmitError<F> {
    reason: Refusal,
    /// Never locked. The mutex makes the error `Sync` although the closure may not be.
    job: Mutex<F>,
}

/// The reason why a job was not accepted.
pub(crate) enum Refusal {
    Full,
    Closed(Closed),
    /// The executor does not take this call, for a reason that is neither of the others.
    #[cfg_attr(not(feature = "task"), allow(dead_code))]
    Unable(Box<JoinError>),
}

impl<F> SubmitError<F> {
    pub(crate) fn new(reason: Refusal, job: F) -> Self {
        let job = Mutex::new(job);
        Self { reason, job }
    }

    /// Returns `true` if the queue had no room, or if other submitters were already waiting for
    /// room.
    ///
    /// See [`ThreadPool::try_submit`](crate::ThreadPool::try_submit) for an example.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self.reason, Refusal::Full)
    }

    /// Returns `true` if the pool is shut down.
    #[must_use]
    pub fn is_shutdown(&self) -> bool {
        matches!(self.reason, Refusal::Closed(Closed::Shutdown))
    }

    /// Returns `true` if an initializer failed or panicked and broke the pool.
    ///
    /// [`source`](Error::source) returns the cause.
    ///
    /// See [`ThreadPoolBuilder::initializer`](crate::ThreadPoolBuilder::initializer) for an
    /// example.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        matches!(self.reason, Refusal::Closed(Closed::Broken(_)))
    }

    /// Returns `true` if the executor cannot do what the call asks for: see
    /// [`JoinError::is_refused`].
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(&self.reason, Refusal::Unable(error) if error.is_refused())
    }

    /// Returns `true` if the deadline of the job has passed: see [`JoinError::is_expired`].
    #[must_use]
    pub fn is_expired(&self) -> bool {
        matches!(&self.reason, Refusal::Unable(error) if error.is_expired())
    }

    /// Returns `true` if a detached job with the same key exists: see
    /// [`JoinError::is_duplicate_key`].
    #[must_use]
    pub fn is_duplicate_key(&self) -> bool {
        matches!(&self.reason, Refusal::Unable(error) if error.is_duplicate_key())
    }

    /// Creates the error of an executor whose queue has no room for `job`.
    ///
    /// An executor outside this crate returns it from
    /// [`try_execute_task`](crate::TaskExecutor::try_execute_task), or from methods of its own.
    ///
    /// # Examples
    ///
    /// ```
    /// let error = futurepool::SubmitError::full("the job");
    /// assert!(error.is_full());
    /// assert_eq!(error.into_inner(), "the job");
    /// ```
    #[cfg(feature = "task")]
    pub fn full(job: F) -> Self {
        Self::new(Refusal::Full, job)
    }

    /// Creates the error of an executor that does not take `job`, for the reason that `error` has.
    ///
    /// # Examples
    ///
    /// ```
    /// use futurepool::{JoinError, SubmitError};
    ///
    /// let error = SubmitError::because(JoinError::shutdown(), "the job");
    /// assert!(error.is_shutdown());
    /// let error = SubmitError::because(JoinError::duplicate_key("checksum", "order-17"), "the job");
    /// assert!(error.is_duplicate_key());
    /// ```
    #[cfg(feature = "task")]
    pub fn because(error: JoinError, job: F) -> Self {
        let reason = match error.0 {
            Kind::Shutdown(_) => Refusal::Closed(Closed::Shutdown),
            Kind::Broken(cause) => Refusal::Closed(Closed::Broken(cause)),
            kind => Refusal::Unable(Box::new(JoinError(kind))),
        };
        Self::new(reason, job)
    }

    /// Returns the reason and the job.
    pub(crate) fn into_parts(self) -> (Refusal, F) {
        let job = self.job.into_inner();
        (self.reason, job.unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the same error with what `f` makes of the job.
    pub(crate) fn map_job<G>(self, f: impl FnOnce(F) -> G) -> SubmitError<G> {
        let (reason, job) = self.into_parts();
        SubmitError::new(reason, f(job))
    }

    /// Returns the same error with what `f` makes of the job.
    ///
    /// # Examples
    ///
    /// ```
    /// let error = futurepool::SubmitError::full("job").map(str::len);
    /// assert!(error.is_full());
    /// assert_eq!(error.into_inner(), 3);
    /// ```
    #[cfg(feature = "task")]
    pub fn map<G>(self, f: impl FnOnce(F) -> G) -> SubmitError<G> {
        self.map_job(f)
    }

    /// Returns the closure, or the call, that was not accepted.
    #[must_use]
    pub fn into_inner(self) -> F {
        self.job
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F> fmt::Display for SubmitError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Refusal::Full => f.write_str("the pool's queue is full"),
            Refusal::Closed(closed) => JoinError::from(closed.clone()).fmt(f),
            Refusal::Unable(error) => error.fmt(f),
        }
    }
}

impl<F> fmt::Debug for SubmitError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.reason {
            Refusal::Full => "Full",
            Refusal::Closed(Closed::Shutdown) => "Shutdown",
            Refusal::Closed(Closed::Broken(_)) => "Broken",
            Refusal::Unable(_) if self.is_expired() => "Expired",
            Refusal::Unable(_) if self.is_duplicate_key() => "DuplicateKey",
            Refusal::Unable(_) => "Refused",
        };
        write!(f, "SubmitError::{kind}({:?})", self.to_string())
    }
}

impl<F> Error for SubmitError<F> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.reason {
            Refusal::Closed(Closed::Broken(cause)) => Some(&***cause),
            _ => None,
        }
    }
}

/// Drops the job.
impl<F> From<SubmitError<F>> for io::Error {
    fn from(error: SubmitError<F>) -> Self {
        // What the job has captured must not live as long as an error that is logged later.
        let error = error.map_job(drop);
        let kind = match &error.reason {
            Refusal::Full => io::ErrorKind::WouldBlock,
            Refusal::Closed(closed) => JoinError::from(closed.clone()).io_kind(),
            Refusal::Unable(error) => error.io_kind(),
        };
        io::Error::new(kind, error)
    }
}

/// The error returned by [`build`](crate::ThreadPoolBuilder::build) for an invalid option.
///
/// `Display` names the option and the fix. The `?` operator converts the error into an
/// [`io::Error`] of the kind [`io::ErrorKind::InvalidInput`].
///
/// # Examples
///
/// ```
/// let error = futurepool::ThreadPool::builder().max_workers(0).build().unwrap_err();
/// assert_eq!(error.field(), "max_workers");
/// assert_eq!(error.to_string(), "max_workers: a pool needs at least 1 worker, not 0");
/// ```
#[doc(alias = "ThreadPoolBuildError")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildError {
    field: &'static str,
    problem: Cow<'static, str>,
}

impl BuildError {
    pub(crate) fn new(field: &'static str, problem: impl Into<Cow<'static, str>>) -> Self {
        let problem = problem.into();
        Self { field, problem }
    }

    /// Returns the name of the builder method that set the invalid value.
    #[must_use]
    pub fn field(&self) -> &'static str {
        self.field
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

impl Error for BuildError {}

impl From<BuildError> for io::Error {
    fn from(error: BuildError) -> Self {
        io::Error::new(io::ErrorKind::InvalidInput, error)
    }
}

/// The error returned by [`ThreadPool::set_max_workers`](crate::ThreadPool::set_max_workers).
///
/// The pool finds its number of workers by itself, because it was built with `auto_size`. The `?`
/// operator converts the error into an [`io::Error`] of the kind [`io::ErrorKind::InvalidInput`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResizeError(());

impl ResizeError {
    pub(crate) fn auto_sized() -> Self {
        Self(())
    }
}

impl fmt::Display for ResizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "set_max_workers: the pool was built with auto_size, and sets its number of workers itself",
        )
    }
}

impl Error for ResizeError {}

impl From<ResizeError> for io::Error {
    fn from(error: ResizeError) -> Self {
        io::Error::new(io::ErrorKind::InvalidInput, error)
    }
}

/// The error returned by [`GlobalPool::init`](crate::GlobalPool::init).
///
/// The `?` operator converts it into an [`io::Error`]. Its kind is
/// [`io::ErrorKind::AlreadyExists`], or [`io::ErrorKind::InvalidInput`] for an invalid option.
///
/// # Examples
///
/// ```
/// use futurepool::{GlobalPool, ThreadPool};
///
/// let invalid = GlobalPool::init(ThreadPool::builder().max_workers(0)).unwrap_err();
/// assert_eq!(invalid.build_error().unwrap().field(), "max_workers");
///
/// GlobalPool::init(ThreadPool::builder().max_workers(2)).unwrap();
/// let late = GlobalPool::init(ThreadPool::builder().max_workers(2)).unwrap_err();
/// assert!(late.is_already_initialized());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitError(InitErrorKind);

#[derive(Debug, Clone, PartialEq, Eq)]
enum InitErrorKind {
    AlreadyInitialized,
    Build(BuildError),
}

impl InitError {
    pub(crate) fn already_initialized() -> Self {
        Self(InitErrorKind::AlreadyInitialized)
    }

    /// Returns `true` if the process-wide pool exists already.
    ///
    /// An earlier `init` or the first use of the pool has created it.
    #[must_use]
    pub fn is_already_initialized(&self) -> bool {
        self.0 == InitErrorKind::AlreadyInitialized
    }

    /// Returns the error of the builder, if an option is invalid.
    #[must_use]
    pub fn build_error(&self) -> Option<&BuildError> {
        match &self.0 {
            InitErrorKind::AlreadyInitialized => None,
            InitErrorKind::Build(error) => Some(error),
        }
    }
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            InitErrorKind::AlreadyInitialized => {
                f.write_str("the process-wide pool is already initialized")
            }
            InitErrorKind::Build(error) => {
                write!(f, "the process-wide pool could not be built: {error}")
            }
        }
    }
}

impl Error for InitError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.build_error().map(|error| error as _)
    }
}

impl From<BuildError> for InitError {
    fn from(error: BuildError) -> Self {
        Self(InitErrorKind::Build(error))
    }
}

impl From<InitError> for io::Error {
    fn from(error: InitError) -> Self {
        let kind = match error.0 {
            InitErrorKind::AlreadyInitialized => io::ErrorKind::AlreadyExists,
            InitErrorKind::Build(_) => io::ErrorKind::InvalidInput,
        };
        io::Error::new(kind, error)
    }
}

/// The error returned when a wait for several futures, for a shutdown or for an idle pool timed
/// out.
///
/// It counts the futures that are unfinished. The error of
/// [`Shutdown::join_timeout`](crate::Shutdown::join_timeout) counts workers instead, and that of
/// [`WaitIdle::join_timeout`](crate::WaitIdle::join_timeout) counts jobs. The `?`
/// operator converts it into an [`io::Error`] of the kind [`io::ErrorKind::TimedOut`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use futurepool::as_completed;
///
/// let never = [std::future::pending::<()>(), std::future::pending()];
/// let mut outputs = as_completed(never).timeout(Duration::from_millis(1));
/// let error = outputs.wait_next().unwrap().unwrap_err();
/// assert_eq!((error.pending(), error.total()), (2, 2));
/// assert_eq!(error.to_string(), "2 (of 2) futures unfinished");
/// ```
#[doc(alias = "Elapsed")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeoutError {
    pending: usize,
    total: usize,
    /// What is counted: futures, workers or jobs.
    noun: &'static str,
}

impl TimeoutError {
    pub(crate) fn of_workers(pending: usize, total: usize) -> Self {
        let noun = "workers";
        Self {
            pending,
            total,
            noun,
        }
    }

    pub(crate) fn of_jobs(pending: usize, total: usize) -> Self {
        let noun = "jobs";
        Self {
            pending,
            total,
            noun,
        }
    }

    pub(crate) fn of_futures(pending: usize, total: usize) -> Self {
        let noun = "futures";
        Self {
            pending,
            total,
            noun,
        }
    }

    /// Returns how many futures, workers or jobs were unfinished.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// Returns how many futures, workers or jobs there were in total.
    #[must_use]
    pub fn total(&self) -> usize {
        self.total
    }
}

impl fmt::Display for TimeoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} (of {}) {} unfinished",
            self.pending, self.total, self.noun
        )
    }
}

impl Error for TimeoutError {}

impl From<TimeoutError> for io::Error {
    fn from(error: TimeoutError) -> Self {
        io::Error::new(io::ErrorKind::TimedOut, error)
    }
}
