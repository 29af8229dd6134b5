//! A line that a worker process wrote, as the user's code gets it.

use std::borrow::Cow;
use std::fmt::{self, Display, Formatter};

/// Names an output stream of a worker process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Holds one line that a worker process wrote to stdout or stderr.
///
/// `Display` shows the [text](Self::text).
#[derive(Clone, Copy, Debug)]
pub struct OutputLine<'a> {
    pub(super) pid: u32,
    pub(super) stream: OutputStream,
    pub(super) text: &'a str,
    pub(super) job: Option<&'a JobName>,
}

impl OutputLine<'_> {
    /// Returns the process id of the worker.
    #[doc(alias = "pid")]
    pub fn worker_pid(&self) -> u32 {
        self.pid
    }

    /// Returns the stream that the worker wrote the line to.
    pub fn stream(&self) -> OutputStream {
        self.stream
    }

    /// Returns the line without its end.
    ///
    /// Bytes that are not UTF-8 are replaced by U+FFFD. A line of more than 64 KiB is given in
    /// several pieces.
    pub fn text(&self) -> &str {
        self.text
    }

    /// Returns the name of the task that ran in the worker when the line was read.
    ///
    /// A job that has just written a line may already have ended by then. So this can be `None`, or
    /// the next job's task.
    pub fn task(&self) -> Option<&str> {
        self.job.map(|job| &*job.task)
    }

    /// Returns the label of the job that ran in the worker when the line was read.
    pub fn label(&self) -> Option<&str> {
        self.job.and_then(|job| job.label.as_deref())
    }
}

impl Display for OutputLine<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.text)
    }
}

/// Names the job that a worker runs.
#[derive(Clone, Debug)]
pub(crate) struct JobName {
    pub(crate) task: Cow<'static, str>,
    pub(crate) label: Option<Cow<'static, str>>,
}
