//! What a pool was built with.

use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::util::unwind::panic_message;

pub(crate) type BoxError = Box<dyn Error + Send + Sync>;
type Initializer = Box<dyn Fn() -> Result<(), BoxError> + Send + Sync>;

#[derive(Default)]
pub(crate) struct Config {
    pub(crate) thread_name_prefix: String,
    pub(crate) stack_size: Option<usize>,
    pub(crate) keep_alive: Option<Duration>,
    pub(crate) initializer: Option<Initializer>,
    #[cfg(feature = "tokio")]
    pub(crate) runtime: Option<tokio::runtime::Handle>,
}

impl Config {
    /// Runs the initializer in this worker. Its panic is an error as any other.
    pub(crate) fn initialize(&self) -> Result<(), BoxError> {
        let Some(initializer) = &self.initializer else {
            return Ok(());
        };
        catch_unwind(AssertUnwindSafe(initializer)).unwrap_or_else(|payload| {
            let message = panic_message(&*payload).unwrap_or("(no text)");
            let error = format!("the initializer panicked: {message}").into();
            crate::util::unwind::drop_payload(payload);
            Err(error)
        })
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("thread_name_prefix", &self.thread_name_prefix)
            .field("stack_size", &self.stack_size)
            .field("keep_alive", &self.keep_alive)
            .field("initializer", &self.initializer.is_some())
            .finish_non_exhaustive()
    }
}

/// What an [initializer](crate::ThreadPoolBuilder::initializer) may return: nothing, or a `Result<(), E>` whose error
/// turns into a boxed one.
///
/// It cannot be implemented outside this crate.
pub trait InitializerOutput: sealed::Sealed {
    #[doc(hidden)]
    fn into_result(self) -> Result<(), BoxError>;
}

mod sealed {
    pub trait Sealed {}
}

impl sealed::Sealed for () {}
impl InitializerOutput for () {
    fn into_result(self) -> Result<(), BoxError> {
        Ok(())
    }
}

impl<E: Into<BoxError>> sealed::Sealed for Result<(), E> {}
impl<E: Into<BoxError>> InitializerOutput for Result<(), E> {
    fn into_result(self) -> Result<(), BoxError> {
        self.map_err(Into::into)
    }
}

/// The type `!`, which stable Rust can only name as what such a function returns.
type Never = <fn() -> ! as Returns>::Output;

/// What a function returns.
pub trait Returns {
    /// Its type.
    type Output;
}

impl<R> Returns for fn() -> R {
    type Output = R;
}

// So that an initializer may be one that only panics.
impl sealed::Sealed for Never {}
impl InitializerOutput for Never {
    fn into_result(self) -> Result<(), BoxError> {
        self
    }
}
