//! Functions that can run in any executor: in a thread, or in another process.
//!
//! ```text
//!   #[task] ─► Task ◄── Call: arguments and limits
//!                │        │ submit_task
//!                │        ▼
//!                │   TaskExecutor ─► a pool of this crate: a closure that calls `Call::run`
//!                │        └────────► any other: a TaskJob ─► codec ─► elsewhere ─► registry
//!                └─► TaskEntry ─► registry: which function a name means
//! ```
//!
//! - [`codec`] turns arguments and outputs into a [`Payload`](codec::Payload), [`bytes`] keeps
//!   large buffers out of it.
//! - [`registry`] finds a task by its name, where it runs.
//! - [`encoded`] is a call of a task whose types are not known, [`report`] an error that travels.

pub(crate) mod bytes;
pub(crate) mod codec;
pub(crate) mod encoded;
pub(crate) mod executor;
pub(crate) mod registry;
pub(crate) mod report;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::ser::Serialize;

use self::codec::{CodecError, Payload};
use crate::pool::Priority;

/// A function that can run in any executor, in this process or in another one.
///
/// The attribute [`#[task]`](macro@crate::task) makes a type that implements this trait from a
/// function. A generic function needs a type and an implementation by hand.
///
/// The type only names the function. No value of it is ever made.
///
/// # Examples
///
/// ```
/// use std::marker::PhantomData;
///
/// use futurepool::{Call, Task};
///
/// trait Pixel: Send + 'static {
///     const NAME: &'static str;
/// }
///
/// struct Rgb;
///
/// impl Pixel for Rgb {
///     const NAME: &'static str = "resize rgb";
/// }
///
/// /// Counts the pixels of a resized image.
/// struct Resize<P>(PhantomData<P>);
///
/// impl<P: Pixel> Task for Resize<P> {
///     const NAME: &'static str = P::NAME;
///     type Args = (u32, u32);
///     type Output = u32;
///
///     fn run((width, height): (u32, u32)) -> u32 {
///         width * height
///     }
/// }
///
/// assert_eq!(Call::<Resize<Rgb>>::new((4, 3)).run(), 12);
/// ```
#[doc(alias = "Callable")]
pub trait Task: Send + 'static {
    /// The name by which another process finds the function. Two tasks of one name and version are
    /// an error.
    const NAME: &'static str;

    /// The version of the function. Another process must have the same one.
    const VERSION: u32 = 1;

    /// A number that changes with the types of arguments and output. 0 means unchecked.
    ///
    /// `#[task]` computes it from the parameters' names and types and the return type, as written.
    const SIGNATURE: u64 = 0;

    /// Whether the function may run again if it is unknown whether it has run.
    const IDEMPOTENT: bool = false;

    /// How often a call may start in all, if the worker that ran it has crashed.
    ///
    /// It only has an effect if the task is [idempotent](Self::IDEMPOTENT).
    const ATTEMPTS: u32 = 3;

    /// Whether the source names the task. Otherwise `NAME` is the path of the function.
    #[doc(hidden)]
    const NAMED: bool = true;

    /// The file and the line of the task.
    #[doc(hidden)]
    const LOCATION: &'static str = "";

    /// The arguments. They need `serde` so that they can be sent to another process.
    type Args: Serialize + DeserializeOwned + Send + 'static;

    /// What the function returns.
    type Output: Serialize + DeserializeOwned + Send + 'static;

    /// Calls the function.
    fn run(args: Self::Args) -> Self::Output;

    /// Encodes the output of the function. `#[task]` overrides it for outputs with `Vec<u8>`.
    ///
    /// # Errors
    ///
    /// Those of the output's `Serialize`.
    #[doc(hidden)]
    fn encode_output(output: Self::Output) -> Result<Payload, CodecError> {
        codec::encode(&output)
    }

    /// Decodes the output of the function.
    ///
    /// # Errors
    ///
    /// Those of the output's `Deserialize`.
    #[doc(hidden)]
    fn decode_output(payload: Payload) -> Result<Self::Output, CodecError> {
        codec::decode(payload)
    }
}

/// A task with its arguments and limits, which is not submitted yet.
///
/// **Dropping it drops the arguments, and runs nothing.** Pass it to
/// an executor, or [`run`](Self::run) it here.
///
/// A function with [`#[task]`](macro@crate::task) has a method `call` that makes one. It can be
/// cloned if the arguments can.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use futurepool::task;
///
/// #[task]
/// fn power(base: u64, exponent: u32) -> u64 {
///     base.pow(exponent)
/// }
///
/// let call = power::call(2, 10).label("2^10");
/// assert_eq!(call.run(), 1024);
/// ```
#[doc(alias = "partial")]
#[doc(alias = "_CallItem")]
#[must_use = "a call runs nothing unless it is submitted"]
pub struct Call<T: Task> {
    args: T::Args,
    info: CallInfo,
}

/// What an executor has to know of a call, apart from its arguments.
#[derive(Debug, Clone)]
pub(crate) struct CallInfo {
    pub(crate) name: &'static str,
    pub(crate) version: u32,
    pub(crate) signature: u64,
    pub(crate) is_named: bool,
    pub(crate) idempotent: bool,
    pub(crate) attempts: u32,
    pub(crate) time_limit: Option<Duration>,
    pub(crate) deadline: Option<Instant>,
    pub(crate) priority: Priority,
    pub(crate) label: Option<Cow<'static, str>>,
}

#[cfg(feature = "process")]
impl CallInfo {
    /// Returns whether the calls, of the same task, have the same limits and the same label.
    pub(crate) fn has_limits_of(&self, other: &Self) -> bool {
        self.time_limit == other.time_limit
            && self.deadline == other.deadline
            && self.label == other.label
    }
}

impl<T: Task> Call<T> {
    /// Creates a call of the task with these arguments, and without limits.
    ///
    /// For a function with [`#[task]`](macro@crate::task), use its method `call` instead. See
    /// [`Task`] for an example.
    pub fn new(args: T::Args) -> Self {
        let info = CallInfo {
            name: T::NAME,
            version: T::VERSION,
            signature: T::SIGNATURE,
            is_named: T::NAMED,
            idempotent: T::IDEMPOTENT,
            attempts: if T::IDEMPOTENT { T::ATTEMPTS } else { 1 },
            time_limit: None,
            deadline: None,
            priority: Priority::Normal,
            label: None,
        };
        Self { args, info }
    }

    /// Limits how long the function may run. Then its process is killed.
    ///
    /// The time starts when the function does, so it includes neither the time in the queue nor the
    /// sending of the arguments. It includes the sending of the result. An executor that cannot
    /// stop a function refuses the call, for example a thread pool: see
    /// [`is_refused`](crate::JoinError::is_refused). A limit of the pool applies too: the shorter
    /// one counts.
    #[doc(alias = "timeout")]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.info.time_limit = Some(limit);
        self
    }

    /// Sets the latest time at which the function may start.
    ///
    /// A call that has not started by then is not run: see
    /// [`is_expired`](crate::JoinError::is_expired).
    pub fn deadline(mut self, at: Instant) -> Self {
        self.info.deadline = Some(at);
        self
    }

    /// Sets the priority of the job that calls the function, in the queue of a pool of this crate.
    ///
    /// Other executors ignore it. See [`JobBuilder::priority`](crate::JobBuilder::priority).
    pub fn priority(mut self, priority: Priority) -> Self {
        self.info.priority = priority;
        self
    }

    /// Sets a text that names this call, for example in the output of workers.
    ///
    /// If it is a `&'static str`, it is also the label of the job, in
    /// [`Metrics::by_label`](crate::Metrics::by_label) and in events. Otherwise the job has the
    /// name of the task there, since texts that differ for each call would be as many labels.
    pub fn label(mut self, label: impl Into<Cow<'static, str>>) -> Self {
        self.info.label = Some(label.into());
        self
    }

    /// Calls the function on this thread. Its limits have no effect.
    ///
    /// # Panics
    ///
    /// Panics if the function does.
    pub fn run(self) -> T::Output {
        T::run(self.args)
    }

    pub(crate) fn info(&self) -> &CallInfo {
        &self.info
    }

    #[cfg(feature = "process")]
    pub(crate) fn args(&self) -> &T::Args {
        &self.args
    }

    /// Encodes the arguments. May be called again.
    pub(crate) fn encode(&self) -> Result<Payload, CodecError> {
        codec::encode(&self.args)
    }
}

/// Decodes the output of a task, which another process has sent.
pub(crate) fn decode_output<T: Task>(payload: Payload) -> Result<T::Output, CodecError> {
    codec::contained("the output", || {
        T::decode_output(payload).map_err(CodecError::into_text)
    })
}

impl<T: Task<Args: Clone>> Clone for Call<T> {
    fn clone(&self) -> Self {
        Self {
            args: self.args.clone(),
            info: self.info.clone(),
        }
    }
}

impl<T: Task> fmt::Debug for Call<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CallInfo {
            name,
            time_limit,
            deadline,
            label,
            ..
        } = &self.info;
        let mut debug = f.debug_struct("Call");
        debug.field("task", name);
        if let Some(label) = label {
            debug.field("label", label);
        }
        if let Some(time_limit) = time_limit {
            debug.field("time_limit", time_limit);
        }
        if let Some(deadline) = deadline {
            debug.field("deadline", deadline);
        }
        debug.finish_non_exhaustive()
    }
}
