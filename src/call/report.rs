//! An error of a job, as it travels to the program that has submitted the job.

use std::error::Error;
use std::io;
#[cfg(unix)]
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::call::codec::{self, CodecError, Payload};
use crate::error::{Failure, FailureCause, JoinError, RemotePanic, StartFailed, WorkerName};

/// The most bytes of each text. A report must fit in a message.
const MAX_TEXT: usize = 64 << 10;

/// The most bytes of what a worker has written last.
const MAX_OUTPUT: usize = 16 << 10;

/// The most bytes of a name.
const MAX_NAME: usize = 4 << 10;

/// A [`JoinError`] as a value that can be sent, for executors that run tasks in other programs.
///
/// The program that ran the job makes a report of the error. The one that submitted it converts the
/// report into an error again, and passes that to [`TaskJob::fail`](crate::TaskJob::fail). The
/// error answers as before: which of its predicates are true, whether the job
/// [may have run](JoinError::may_have_run), the message and the place of a panic, the exit status
/// and the last output of a process. The payload of a panic becomes a `String`.
///
/// A report of a later version of this crate may have another kind of error. It becomes an error of
/// which no predicate is true, with the text of the original. Texts longer than 64 KiB are cut.
///
/// # Examples
///
/// ```
/// use futurepool::{ErrorReport, JoinError, ThreadPool};
///
/// let pool = ThreadPool::new(1);
/// let error = pool.submit(|| panic!("no such luck")).join().unwrap_err();
/// let message = ErrorReport::new("draw", &error).at_worker("build-7/4711").to_bytes();
///
/// let error = JoinError::from(ErrorReport::from_bytes(&message)?);
/// assert!(error.is_panic() && error.may_have_run());
/// assert_eq!(error.panic_message(), Some("no such luck"));
/// assert_eq!(error.worker().unwrap(), "build-7/4711");
/// # Ok::<(), futurepool::CodecError>(())
/// ```
#[doc(alias = "RemoteException")]
#[doc(alias = "RayTaskError")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorReport {
    kind: String,
    task: String,
    may_have_run: bool,
    /// The reason, the message of a panic, the cause or the key: whatever the kind has.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker: Option<String>,
    /// Whether `worker` names a process of a pool, which has ended or been killed.
    #[serde(skip)]
    is_process: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    panic_location: Option<String>,
    /// How the process ended, as Unix encodes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    wait_status: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_limit_nanos: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_seen: Option<u64>,
}

impl Default for ErrorReport {
    fn default() -> Self {
        Self {
            kind: String::new(),
            task: String::new(),
            // What is unknown may have happened.
            may_have_run: true,
            text: None,
            worker: None,
            is_process: false,
            panic_location: None,
            wait_status: None,
            output: None,
            time_limit_nanos: None,
            memory_limit: None,
            memory_seen: None,
        }
    }
}

/// The kinds, as they travel. Never change one.
mod kind {
    pub(super) const CANCELLED: &str = "cancelled";
    pub(super) const CANCELLED_RUNNING: &str = "cancelled_running";
    pub(super) const KILLED: &str = "killed";
    pub(super) const PANIC: &str = "panic";
    pub(super) const SHUTDOWN: &str = "shutdown";
    pub(super) const BROKEN: &str = "broken";
    /// A thread.
    pub(super) const SPAWN_FAILED: &str = "spawn_failed";
    /// A process.
    pub(super) const START_FAILED: &str = "start_failed";
    pub(super) const TIMEOUT: &str = "timeout";
    pub(super) const CRASHED: &str = "crashed";
    pub(super) const TIME_LIMIT: &str = "time_limit";
    pub(super) const MEMORY_LIMIT: &str = "memory_limit";
    pub(super) const CODEC: &str = "codec";
    pub(super) const UNKNOWN_TASK: &str = "unknown_task";
    pub(super) const REFUSED: &str = "refused";
    pub(super) const EXPIRED: &str = "expired";
    pub(super) const LOST: &str = "lost";
    pub(super) const DISCONNECTED: &str = "disconnected";
    pub(super) const DUPLICATE_KEY: &str = "duplicate_key";
    pub(super) const OTHER: &str = "other";
}

impl ErrorReport {
    /// Creates the report of the error of a job that ran `task`.
    #[must_use]
    pub fn new(task: &str, error: &JoinError) -> Self {
        let mut report = Self {
            task: head(task, MAX_NAME),
            may_have_run: error.may_have_run(),
            wait_status: error.exit_status().and_then(wait_status),
            output: error.worker_output().map(|text| tail(text, MAX_OUTPUT)),
            panic_location: error.panic_location().map(|place| head(place, MAX_NAME)),
            worker: error.worker().map(|name| head(&name, MAX_NAME)),
            ..Self::default()
        };
        let (kind, text) = match error.failure() {
            Some(failure) => report.add_failure(failure),
            None => outcome_of(error),
        };
        report.kind = kind.to_owned();
        report.text = text.map(|text| head(&text, MAX_TEXT));
        report.is_process = is_process(error);
        report
    }

    fn add_failure(&mut self, failure: &Failure) -> (&'static str, Option<String>) {
        let (kind, text) = match &failure.cause {
            FailureCause::Crashed(how) => (kind::CRASHED, Some(how)),
            // Its process ended by itself.
            FailureCause::Killed if failure.worker.is_none() => (kind::CANCELLED_RUNNING, None),
            FailureCause::Killed => (kind::KILLED, None),
            FailureCause::CancelledRunning => (kind::CANCELLED_RUNNING, None),
            FailureCause::TimeLimit(limit) => {
                self.time_limit_nanos = Some(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX));
                (kind::TIME_LIMIT, None)
            }
            FailureCause::MemoryLimit { limit, seen } => {
                (self.memory_limit, self.memory_seen) = (Some(*limit), Some(*seen));
                (kind::MEMORY_LIMIT, None)
            }
            FailureCause::Codec(text) => (kind::CODEC, Some(text)),
            FailureCause::UnknownTask(text) => (kind::UNKNOWN_TASK, Some(text)),
            FailureCause::Refused(text) => (kind::REFUSED, Some(text)),
            FailureCause::Expired => (kind::EXPIRED, None),
            FailureCause::Lost(text) => (kind::LOST, Some(text)),
            FailureCause::Disconnected(text) => (kind::DISCONNECTED, Some(text)),
            FailureCause::DuplicateKey(key) => (kind::DUPLICATE_KEY, Some(key)),
            FailureCause::Other(text) => (kind::OTHER, Some(text)),
        };
        (kind, text.map(|text| text.to_string()))
    }

    /// Names the worker that had the job, such as `build-7/4711`.
    ///
    /// If the error is about a worker process of a pool, the name becomes `4713 of build-7/4711`.
    #[must_use]
    pub fn at_worker(mut self, name: &str) -> Self {
        let name = head(name, MAX_NAME);
        self.worker = Some(match self.worker {
            Some(process) if self.is_process => format!("{process} of {name}"),
            _ => name,
        });
        self.is_process = false;
        self
    }

    /// Returns the name of the job's task.
    #[must_use]
    pub fn task(&self) -> &str {
        &self.task
    }

    /// Returns whether the job may have run: see [`JoinError::may_have_run`].
    #[must_use]
    pub fn may_have_run(&self) -> bool {
        self.may_have_run
    }

    /// Encodes the report in MessagePack with the names of fields. It is smaller than 256 KiB.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // Texts and numbers can always be encoded.
        codec::encode(self).unwrap_or_default().body
    }

    /// Decodes the report that [`to_bytes`](Self::to_bytes) has encoded elsewhere.
    ///
    /// Fields that are missing have defaults, and unknown ones are ignored.
    ///
    /// # Errors
    ///
    /// Returns an error if the bytes are no report.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(Payload::from_parts(bytes.to_vec(), Vec::new()))
    }

    fn cause(&self) -> FailureCause {
        let text = || {
            self.text
                .as_deref()
                .unwrap_or("the reason is unknown")
                .into()
        };
        match &*self.kind {
            kind::CANCELLED_RUNNING => FailureCause::CancelledRunning,
            kind::KILLED => FailureCause::Killed,
            kind::CRASHED => FailureCause::Crashed(text()),
            kind::TIME_LIMIT => FailureCause::TimeLimit(Duration::from_nanos(
                self.time_limit_nanos.unwrap_or_default(),
            )),
            kind::MEMORY_LIMIT => FailureCause::MemoryLimit {
                limit: self.memory_limit.unwrap_or_default(),
                seen: self.memory_seen.unwrap_or_default(),
            },
            kind::CODEC => FailureCause::Codec(text()),
            kind::UNKNOWN_TASK => FailureCause::UnknownTask(text()),
            kind::REFUSED => FailureCause::Refused(text()),
            kind::EXPIRED => FailureCause::Expired,
            kind::LOST => FailureCause::Lost(text()),
            kind::DISCONNECTED => FailureCause::Disconnected(text()),
            kind::DUPLICATE_KEY => FailureCause::DuplicateKey(text()),
            _ => FailureCause::Other(match &self.text {
                Some(text) => text.as_str().into(),
                None => format!("the job failed: {:?}", self.kind).into(),
            }),
        }
    }

    /// Returns the error, if it is of a kind that a job without a task can have, too.
    fn plain(&self) -> Option<JoinError> {
        let text = || self.text.clone().unwrap_or_default();
        Some(match &*self.kind {
            kind::CANCELLED => JoinError::cancelled(),
            kind::SHUTDOWN => JoinError::shutdown(),
            kind::BROKEN => JoinError::broken(text()),
            kind::SPAWN_FAILED => JoinError::spawn_failed(Arc::new(io::Error::other(text()))),
            kind::START_FAILED => {
                let failed = StartFailed(text());
                JoinError::spawn_failed(Arc::new(io::Error::other(failed)))
            }
            kind::TIMEOUT => JoinError::timeout(),
            _ => return None,
        })
    }
}

/// Returns the kind and the text of an error that a job without a task can have, too.
fn outcome_of(error: &JoinError) -> (&'static str, Option<String>) {
    let cause = || error.source().map(ToString::to_string);
    if error.is_panic() {
        let message = error.panic_message().unwrap_or("(no text)");
        (kind::PANIC, Some(message.to_owned()))
    } else if error.is_cancelled() {
        (kind::CANCELLED, None)
    } else if error.is_shutdown() {
        (kind::SHUTDOWN, None)
    } else if error.is_broken() {
        (kind::BROKEN, cause())
    } else if error.is_spawn_failed() {
        match error.is_start_failed() {
            true => (kind::START_FAILED, cause()),
            false => (kind::SPAWN_FAILED, cause()),
        }
    } else if error.is_timeout() {
        (kind::TIMEOUT, None)
    } else {
        // A deadlock of a wait is no outcome of a job.
        (kind::OTHER, Some(error.to_string()))
    }
}

impl From<ErrorReport> for JoinError {
    fn from(report: ErrorReport) -> Self {
        if let Some(error) = report.plain() {
            // Invariant: what the report says of a start is never made less.
            return match report.may_have_run && !error.may_have_run() {
                true => error.with_earlier_start(&report.task),
                false => error,
            };
        }
        let cause = report.cause();
        let ErrorReport {
            task,
            may_have_run,
            text,
            worker,
            ..
        } = report;
        let worker = worker.map(|name| WorkerName::Text(name.into()));
        let status = report.wait_status.and_then(exit_status);
        let output = report.output.map(String::into_boxed_str);
        if report.kind == kind::PANIC {
            let remote = RemotePanic {
                location: report.panic_location.map(String::into_boxed_str),
                task: task.into(),
                worker,
                status,
                output,
            };
            return JoinError::panicked_in_worker(text.unwrap_or_default(), remote);
        }
        JoinError::failed(Failure {
            cause,
            task: Some(task.into()),
            worker,
            status,
            output,
            may_have_run,
            origin: None,
        })
    }
}

/// Returns whether the error is about a worker process of a pool.
fn is_process(error: &JoinError) -> bool {
    let worker = match error.remote_panic() {
        Some(remote) => remote.worker.as_ref(),
        None => error.failure().and_then(|failure| failure.worker.as_ref()),
    };
    matches!(worker, Some(WorkerName::Pid(_)))
}

#[cfg(unix)]
fn wait_status(status: ExitStatus) -> Option<i32> {
    Some(status.into_raw())
}

#[cfg(not(unix))]
fn wait_status(_: ExitStatus) -> Option<i32> {
    None
}

#[cfg(unix)]
fn exit_status(wait_status: i32) -> Option<ExitStatus> {
    Some(ExitStatus::from_raw(wait_status))
}

#[cfg(not(unix))]
fn exit_status(_: i32) -> Option<ExitStatus> {
    None
}

/// Returns the start of a text, at most `max` bytes of it.
fn head(text: &str, max: usize) -> String {
    let end = (0..=max.min(text.len())).rev();
    let end = end.into_iter().find(|at| text.is_char_boundary(*at));
    text[..end.unwrap_or_default()].to_owned()
}

/// Returns the end of a text, at most `max` bytes of it.
fn tail(text: &str, max: usize) -> String {
    let start = text.len().saturating_sub(max)..=text.len();
    let start = start.into_iter().find(|at| text.is_char_boundary(*at));
    text[start.unwrap_or_default()..].to_owned()
}
