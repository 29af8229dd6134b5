//! Calls of tasks whose types are not known here: what an executor gets from elsewhere.

use std::borrow::Cow;
use std::fmt;
use std::panic::Location;
use std::time::{Duration, Instant};

use crate::call::CallInfo;
use crate::call::codec::{CodecError, Payload};
use crate::call::executor::{JobCall, TaskJob};
use crate::call::registry::{RunError, TaskEntry};
use crate::error::JoinError;
use crate::pool::Priority;
use crate::task::cell::catch;
use crate::task::join_handle::JoinHandle;
use crate::task::span;
use crate::task::state::Origin;

/// A call of a task with encoded arguments, whose output stays encoded, too.
///
/// **Dropping it drops the arguments, and runs nothing.**
///
/// A program that runs tasks for others makes it with [`TaskEntry::call`], and
/// [`into_job`](Self::into_job) makes a job of it that any [`TaskExecutor`](crate::TaskExecutor)
/// takes. So the program needs none of the types.
///
/// A process pool starts such a call once, whatever its task's [attempts](TaskEntry::attempts) are:
/// the sender of the arguments counts the starts.
///
/// # Examples
///
/// ```
/// use futurepool::{Payload, TaskExecutor, TaskJob, ThreadPool, task, tasks};
///
/// #[task(name = "double")]
/// fn double(n: u32) -> u32 {
///     2 * n
/// }
///
/// // The sender.
/// let (job, answer) = TaskJob::new(double::call(21));
/// let message = job.encode()?.to_bytes();
///
/// // The receiver.
/// let pool = ThreadPool::new(1);
/// let tasks = tasks![double];
/// let entry = tasks.get("double", 1).expect("a known task");
/// let arguments = Payload::from_bytes(&message).expect("a payload");
/// let (received, handle) = entry.call(arguments).into_job();
/// pool.execute_task(received);
/// let message = handle.join()?.to_bytes();
///
/// // The sender again.
/// job.resolve(Payload::from_bytes(&message).expect("a payload"));
/// assert_eq!(answer.join()?, 42);
/// # Ok::<(), futurepool::JoinError>(())
/// ```
#[doc(alias = "Request")]
#[doc(alias = "Message")]
#[must_use = "a call runs nothing unless it is made a job"]
pub struct EncodedCall {
    entry: TaskEntry,
    arguments: Payload,
    info: CallInfo,
}

impl EncodedCall {
    pub(crate) fn new(entry: TaskEntry, arguments: Payload) -> Self {
        let info = CallInfo {
            name: entry.name,
            version: entry.version,
            signature: entry.signature,
            is_named: entry.is_named(),
            idempotent: entry.is_idempotent(),
            attempts: 1,
            time_limit: None,
            deadline: None,
            priority: Priority::Normal,
            label: None,
        };
        Self {
            entry,
            arguments,
            info,
        }
    }

    /// Limits how long the task may run: see [`Call::time_limit`](crate::Call::time_limit).
    #[doc(alias = "timeout")]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.info.time_limit = Some(limit);
        self
    }

    /// Sets the latest time at which the task may start: see
    /// [`Call::deadline`](crate::Call::deadline).
    pub fn deadline(mut self, at: Instant) -> Self {
        self.info.deadline = Some(at);
        self
    }

    /// Sets the priority of the job: see [`Call::priority`](crate::Call::priority).
    pub fn priority(mut self, priority: Priority) -> Self {
        self.info.priority = priority;
        self
    }

    /// Sets a text that names this call: see [`Call::label`](crate::Call::label).
    pub fn label(mut self, label: impl Into<Cow<'static, str>>) -> Self {
        self.info.label = Some(label.into());
        self
    }

    /// Returns the job of this call and its handle, which resolves with the encoded output.
    ///
    /// Pass the job to [`execute_task`](crate::TaskExecutor::execute_task) of an executor, or
    /// [run it here](TaskJob::run_here). Dropping the handle detaches the job.
    ///
    /// # Errors
    ///
    /// Errors are returned through the handle. If the arguments could not be decoded, the error
    /// [`is_codec`](JoinError::is_codec) and the task [has not run](JoinError::may_have_run). If
    /// the output could not be encoded, it `is_codec` and the task has run.
    #[track_caller]
    pub fn into_job(self) -> (TaskJob, JoinHandle<Payload>) {
        TaskJob::of(self, Location::caller(), span::current())
    }
}

impl JobCall for EncodedCall {
    type Output = Payload;

    fn info(&self) -> &CallInfo {
        &self.info
    }

    fn encode(&self) -> Result<Payload, CodecError> {
        Ok(self.arguments.clone())
    }

    #[cfg(feature = "process")]
    fn into_encoded(self) -> Result<Payload, CodecError> {
        Ok(self.arguments)
    }

    fn run_at(self, origin: Origin) -> Result<Payload, JoinError> {
        let Self {
            entry, arguments, ..
        } = self;
        let failed = match catch(origin, || (entry.run)(arguments))? {
            Ok(output) => return Ok(output),
            Err(RunError::Arguments(text)) => {
                let text = format!("the arguments could not be decoded: {text}");
                JoinError::codec(entry.name, text, false)
            }
            Err(RunError::Output(text)) => {
                let text = format!("the output could not be encoded: {text}");
                JoinError::codec(entry.name, text, true)
            }
        };
        Err(failed.submitted_at(origin))
    }

    fn decode_output(output: Payload) -> Result<Payload, CodecError> {
        Ok(output)
    }
}

impl fmt::Debug for EncodedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncodedCall")
            .field("task", &self.entry)
            .field("arguments", &self.arguments)
            .finish_non_exhaustive()
    }
}
