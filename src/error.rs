//! All the errors of the crate.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::io;
use std::panic::Location;
use std::sync::{Arc, Mutex, PoisonError};

use crate::util::unwind::panic_message;

/// Why a pool broke: shared by all its handles. A thin pointer, since every job has room for a [`JoinError`].
pub(crate) type Cause = Arc<Box<dyn Error + Send + Sync>>;

/// Why a job has no result, or why a wait for it ended without one.
///
/// Of the job itself speak [`is_cancelled`](Self::is_cancelled), [`is_panic`](Self::is_panic),
/// [`is_shutdown`](Self::is_shutdown), [`is_broken`](Self::is_broken) and [`is_spawn_failed`](Self::is_spawn_failed);
/// only of the wait speak [`is_timeout`](Self::is_timeout) and [`is_deadlock`](Self::is_deadlock).
///
/// It turns into an [`io::Error`] by `?` (and stays in there as the inner error; a timeout gets
/// [`io::ErrorKind::TimedOut`]).
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
/// What a web service answers:
///
/// ```
/// use futurepool::JoinError;
///
/// fn status(error: &JoinError) -> u16 {
///     if error.is_timeout() {
///         504 // the job goes on
///     } else if error.is_cancelled() || error.is_shutdown() || error.is_spawn_failed() {
///         503 // the job never ran: later, or on another machine
///     } else {
///         500 // `is_panic`, `is_broken` or `is_deadlock`: the text says more
///     }
/// }
///
/// assert_eq!(status(&JoinError::shutdown()), 503);
/// ```
#[doc(alias = "CancelledError")]
#[doc(alias = "BrokenExecutor")]
pub struct JoinError(Kind);

/// A thin pointer to it, since every job has room for a [`JoinError`].
#[derive(Clone)]
struct Circle(Vec<&'static Location<'static>>);

enum Kind {
    Cancelled,
    Panic(Box<Panic>),
    Shutdown,
    Broken(Cause),
    SpawnFailed(Arc<io::Error>),
    Timeout,
    /// Where the jobs were submitted: each waits for the next one, and the last for the first.
    Deadlock(Box<Circle>),
}

struct Panic {
    /// A mutex only because a payload need not be `Sync` and an error should be; it is never locked.
    payload: Mutex<Box<dyn Any + Send>>,
    /// What the payload says, if it is text.
    message: Option<Box<str>>,
    /// Where the job was submitted.
    origin: &'static Location<'static>,
}

impl JoinError {
    pub(crate) fn cancelled() -> Self {
        Self(Kind::Cancelled)
    }

    pub(crate) fn panicked(
        payload: Box<dyn Any + Send>,
        origin: &'static Location<'static>,
    ) -> Self {
        Self(Kind::Panic(Box::new(Panic {
            message: panic_message(&*payload).map(Box::from),
            payload: Mutex::new(payload),
            origin,
        })))
    }

    pub(crate) fn broken_by(cause: Cause) -> Self {
        Self(Kind::Broken(cause))
    }

    pub(crate) fn spawn_failed(refusal: Arc<io::Error>) -> Self {
        Self(Kind::SpawnFailed(refusal))
    }

    pub(crate) fn timeout() -> Self {
        Self(Kind::Timeout)
    }

    /// Where the jobs of a circle were submitted, each of which waits for the next one, and the last for the first.
    pub(crate) fn deadlock(circle: Vec<&'static Location<'static>>) -> Self {
        Self(Kind::Deadlock(Box::new(Circle(circle))))
    }

    /// The same error for another job, save what only one can have: of a panic the others only know that they did not
    /// run.
    pub(crate) fn again(&self) -> Self {
        Self(match &self.0 {
            Kind::Shutdown => Kind::Shutdown,
            Kind::Broken(cause) => Kind::Broken(Arc::clone(cause)),
            Kind::SpawnFailed(refusal) => Kind::SpawnFailed(Arc::clone(refusal)),
            Kind::Timeout => Kind::Timeout,
            Kind::Deadlock(circle) => Kind::Deadlock(circle.clone()),
            Kind::Cancelled | Kind::Panic(_) => Kind::Cancelled,
        })
    }

    /// The job was cancelled before it started: by its handle, by
    /// [`cancel_pending`](crate::ThreadPool::cancel_pending) or [`shutdown_now`](crate::ThreadPool::shutdown_now), by the
    /// end of the map that it belongs to, or because its executor dropped it.
    ///
    /// See [`JoinHandle::cancel`](crate::JoinHandle::cancel) for an example.
    #[doc(alias = "CancelledError")]
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        matches!(self.0, Kind::Cancelled)
    }

    /// The job panicked; [`into_panic`](Self::into_panic) gives the payload.
    #[must_use]
    pub fn is_panic(&self) -> bool {
        matches!(self.0, Kind::Panic(_))
    }

    /// The pool, or another executor, was shut down and did not accept the job.
    ///
    /// See [`ThreadPool::shutdown`](crate::ThreadPool::shutdown) for an example.
    #[doc(alias = "RuntimeError")]
    #[must_use]
    pub fn is_shutdown(&self) -> bool {
        matches!(self.0, Kind::Shutdown)
    }

    /// An initializer failed and broke the pool before the job started, or another executor cannot work any more;
    /// [`source`](Error::source) is the cause, which the text of this error shows already.
    ///
    /// See [`ThreadPoolBuilder::initializer`](crate::ThreadPoolBuilder::initializer) for an example.
    #[doc(alias = "BrokenThreadPool")]
    #[doc(alias = "BrokenExecutor")]
    #[must_use]
    pub fn is_broken(&self) -> bool {
        matches!(self.0, Kind::Broken(_))
    }

    /// The system refused to start a thread while the pool had none; [`source`](Error::source) is the system's error.
    ///
    /// The pool is not broken by it: the next submit tries again.
    #[must_use]
    pub fn is_spawn_failed(&self) -> bool {
        matches!(self.0, Kind::SpawnFailed(_))
    }

    /// The wait ended by its time limit; of the job it says nothing.
    ///
    /// See [`JoinHandle::join_timeout`](crate::JoinHandle::join_timeout) for an example.
    #[doc(alias = "TimeoutError")]
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self.0, Kind::Timeout)
    }

    /// The wait could never have ended: a job waited for itself, or for one that waits for it, and so on round a circle.
    ///
    /// The text names the jobs by where they were submitted, and says who waits for whom.
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
    ///     tell.send(own.join()).unwrap(); // it waits for itself
    /// });
    /// give.send(handle).unwrap();
    /// assert!(told.recv().unwrap().unwrap_err().is_deadlock());
    /// ```
    #[must_use]
    pub fn is_deadlock(&self) -> bool {
        matches!(self.0, Kind::Deadlock(_))
    }

    /// The payload of the job's panic, to be looked into or passed on with [`std::panic::resume_unwind`].
    ///
    /// A message is a `&'static str` or a `String`, depending on how it was made: try both.
    ///
    /// # Panics
    ///
    /// If the job did not panic: see [`try_into_panic`](Self::try_into_panic).
    #[doc(alias = "exception")]
    #[must_use]
    #[track_caller]
    pub fn into_panic(self) -> Box<dyn Any + Send> {
        self.try_into_panic()
            .unwrap_or_else(|error| panic!("into_panic of an error that is no panic: {error}"))
    }

    /// The payload of the job's panic.
    ///
    /// # Errors
    ///
    /// The error itself, if the job did not panic.
    ///
    /// # Examples
    ///
    /// ```
    /// use futurepool::{JoinError, ThreadPool};
    ///
    /// /// A job's panic goes on here, as if the job had been called in this thread.
    /// fn value_or_error<T>(outcome: Result<T, JoinError>) -> Result<T, JoinError> {
    ///     match outcome.map_err(JoinError::try_into_panic) {
    ///         Ok(value) => Ok(value),
    ///         Err(Ok(payload)) => std::panic::resume_unwind(payload),
    ///         Err(Err(error)) => Err(error),
    ///     }
    /// }
    ///
    /// let pool = ThreadPool::new(1);
    /// assert_eq!(value_or_error(pool.submit(|| 7).join()).unwrap(), 7);
    /// pool.shutdown();
    /// assert!(value_or_error(pool.submit(|| 7).join()).is_err());
    /// ```
    pub fn try_into_panic(self) -> Result<Box<dyn Any + Send>, Self> {
        match self.0 {
            Kind::Panic(panic) => Ok(panic
                .payload
                .into_inner()
                .unwrap_or_else(PoisonError::into_inner)),
            other => Err(Self(other)),
        }
    }

    /// For an [`Executor`](crate::Executor) that takes no more jobs: see [`Job::refuse`](crate::Job::refuse).
    #[must_use]
    pub fn shutdown() -> Self {
        Self(Kind::Shutdown)
    }

    /// For an [`Executor`](crate::Executor) that cannot work any more: see [`Job::refuse`](crate::Job::refuse).
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

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Cancelled => f.write_str("the job was cancelled before it started"),
            Kind::Panic(panic) => {
                match &panic.message {
                    Some(message) => write!(f, "the job panicked: {message}")?,
                    None => f.write_str("the job panicked")?,
                }
                write!(f, " (submitted at {})", panic.origin)
            }
            Kind::Shutdown => f.write_str("the pool is shut down and takes no more jobs"),
            Kind::Broken(cause) => write!(f, "the pool is broken: {cause}"),
            Kind::SpawnFailed(refusal) => {
                write!(f, "no worker thread could be started: {refusal}")
            }
            Kind::Timeout => f.write_str("the time limit passed before the job was done"),
            Kind::Deadlock(circle) => {
                let Circle(circle) = &**circle;
                let [first, rest @ ..] = &circle[..] else {
                    return f.write_str("deadlock: the job waits for itself");
                };
                write!(f, "deadlock: the job submitted at {first} waits for ")?;
                if rest.is_empty() {
                    return f.write_str("itself");
                }
                for next in rest {
                    write!(f, "the one submitted at {next}, which waits for ")?;
                }
                f.write_str("the first")
            }
        }
    }
}

impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.0 {
            Kind::Cancelled => "Cancelled",
            Kind::Panic(_) => "Panic",
            Kind::Shutdown => "Shutdown",
            Kind::Broken(_) => "Broken",
            Kind::SpawnFailed(_) => "SpawnFailed",
            Kind::Timeout => "Timeout",
            Kind::Deadlock(_) => "Deadlock",
        };
        write!(f, "JoinError::{kind}({:?})", self.to_string())
    }
}

impl Error for JoinError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.0 {
            Kind::Broken(cause) => Some(&***cause),
            Kind::SpawnFailed(refusal) => Some(&**refusal),
            _ => None,
        }
    }
}

impl From<JoinError> for io::Error {
    fn from(error: JoinError) -> Self {
        let kind = match &error.0 {
            Kind::Timeout => io::ErrorKind::TimedOut,
            Kind::Deadlock(_) => io::ErrorKind::Deadlock,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

/// Why a pool takes no more jobs.
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

/// A job that was not accepted: says why, and gives the closure back.
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
pub struct SubmitError<F> {
    why: Refusal,
    /// A mutex only because a closure need not be `Sync` and an error should be; it is never locked.
    job: Mutex<F>,
}

pub(crate) enum Refusal {
    Full,
    Closed(Closed),
}

impl<F> SubmitError<F> {
    pub(crate) fn new(why: Refusal, job: F) -> Self {
        let job = Mutex::new(job);
        Self { why, job }
    }

    /// The queue has no room at present, or others have waited for it longer.
    ///
    /// See [`ThreadPool::try_submit`](crate::ThreadPool::try_submit) for an example.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self.why, Refusal::Full)
    }

    /// The pool is shut down.
    #[must_use]
    pub fn is_shutdown(&self) -> bool {
        matches!(self.why, Refusal::Closed(Closed::Shutdown))
    }

    /// An initializer failed and broke the pool; [`source`](Error::source) is its error.
    ///
    /// See [`ThreadPoolBuilder::initializer`](crate::ThreadPoolBuilder::initializer) for an example.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        matches!(self.why, Refusal::Closed(Closed::Broken(_)))
    }

    /// The closure that was not accepted.
    #[must_use]
    pub fn into_inner(self) -> F {
        self.job
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F> fmt::Display for SubmitError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.why {
            Refusal::Full => f.write_str("the pool's queue is full"),
            Refusal::Closed(closed) => JoinError::from(closed.clone()).fmt(f),
        }
    }
}

impl<F> fmt::Debug for SubmitError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.why {
            Refusal::Full => "Full",
            Refusal::Closed(Closed::Shutdown) => "Shutdown",
            Refusal::Closed(Closed::Broken(_)) => "Broken",
        };
        write!(f, "SubmitError::{kind}({:?})", self.to_string())
    }
}

impl<F> Error for SubmitError<F> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.why {
            Refusal::Closed(Closed::Broken(cause)) => Some(&***cause),
            _ => None,
        }
    }
}

/// An option of [`ThreadPoolBuilder`](crate::ThreadPoolBuilder) that cannot be: names it and says how to mend it.
///
/// # Examples
///
/// ```
/// let error = futurepool::ThreadPool::builder().max_workers(0).build().unwrap_err();
/// assert_eq!(error.field(), "max_workers");
/// assert_eq!(error.to_string(), "max_workers: a pool needs at least 1 worker, not 0");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildError {
    field: &'static str,
    problem: &'static str,
}

impl BuildError {
    pub(crate) fn new(field: &'static str, problem: &'static str) -> Self {
        Self { field, problem }
    }

    /// The name of the builder's method that was given the wrong value.
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

/// A wait for several things that ended by its time limit: says how many were not done.
///
/// For [`Shutdown::join_timeout`](crate::Shutdown::join_timeout) it counts workers.
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeoutError {
    pending: usize,
    total: usize,
    what: &'static str,
}

impl TimeoutError {
    pub(crate) fn of_workers(pending: usize, total: usize) -> Self {
        let what = "workers";
        Self {
            pending,
            total,
            what,
        }
    }

    pub(crate) fn of_futures(pending: usize, total: usize) -> Self {
        let what = "futures";
        Self {
            pending,
            total,
            what,
        }
    }

    /// How many were not done.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// How many there were.
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
            self.pending, self.total, self.what
        )
    }
}

impl Error for TimeoutError {}

impl From<TimeoutError> for io::Error {
    fn from(error: TimeoutError) -> Self {
        io::Error::new(io::ErrorKind::TimedOut, error)
    }
}
