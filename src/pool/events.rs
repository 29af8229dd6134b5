//! What a pool tells of its jobs.

use std::panic::Location;
use std::time::{Duration, Instant};

use crate::task::state::OutcomeKind;

/// What happened to a job: see [`ThreadPoolBuilder::on_job`](crate::ThreadPoolBuilder::on_job).
///
/// # Examples
///
/// ```
/// use std::sync::mpsc::channel;
///
/// let (tell, told) = channel();
/// let pool = futurepool::ThreadPool::builder()
///     .on_job(move |event| {
///         let _ = tell.send(event.clone());
///     })
///     .build()?;
/// pool.job(|| 2 + 2).label("sum").submit().join()?;
/// drop(pool);
///
/// let finished = told.iter().find(|event| event.outcome().is_some()).unwrap();
/// println!("{:?} ran for {:?}", finished.label(), finished.run_time());
/// assert!(finished.run_time().is_some() && finished.queue_wait().is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[doc(alias = "hook")]
#[doc(alias = "TaskMeta")]
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum JobEvent {
    /// The pool has accepted the job.
    #[non_exhaustive]
    Submitted {
        /// The number of the job, unique in its pool.
        id: u64,
        /// The label of the job.
        label: Option<&'static str>,
        /// Where the job was submitted.
        location: &'static Location<'static>,
        /// When the pool accepted the job.
        at: Instant,
    },
    /// A worker has started the job.
    #[non_exhaustive]
    Started {
        /// The number of the job.
        id: u64,
        /// The label of the job.
        label: Option<&'static str>,
        /// Where the job was submitted.
        location: &'static Location<'static>,
        /// When the job started.
        at: Instant,
        /// The number of the worker, which is in the default name of its thread.
        worker: usize,
        /// How long the job was queued.
        queue_wait: Duration,
    },
    /// The job has ended, or will never start.
    #[non_exhaustive]
    Finished {
        /// The number of the job.
        id: u64,
        /// The label of the job.
        label: Option<&'static str>,
        /// Where the job was submitted.
        location: &'static Location<'static>,
        /// When the job ended.
        at: Instant,
        /// The number of the worker. `None` if the job did not start.
        worker: Option<usize>,
        /// How long the job was queued.
        queue_wait: Duration,
        /// How long the closure ran. `None` if the job did not start.
        run_time: Option<Duration>,
        /// How the job ended.
        outcome: JobOutcome,
    },
}

impl JobEvent {
    /// Returns the number of the job, unique in its pool. All events of the job have it.
    #[must_use]
    pub fn id(&self) -> u64 {
        match self {
            Self::Submitted { id, .. } | Self::Started { id, .. } | Self::Finished { id, .. } => {
                *id
            }
        }
    }

    /// Returns the [label](crate::JobBuilder::label) of the job.
    #[must_use]
    pub fn label(&self) -> Option<&'static str> {
        match self {
            Self::Submitted { label, .. }
            | Self::Started { label, .. }
            | Self::Finished { label, .. } => *label,
        }
    }

    /// Returns where the job was submitted.
    #[must_use]
    pub fn location(&self) -> &'static Location<'static> {
        match self {
            Self::Submitted { location, .. }
            | Self::Started { location, .. }
            | Self::Finished { location, .. } => location,
        }
    }

    /// Returns when it happened. Events of a job can arrive out of order, so sort them by this.
    #[must_use]
    pub fn at(&self) -> Instant {
        match self {
            Self::Submitted { at, .. } | Self::Started { at, .. } | Self::Finished { at, .. } => {
                *at
            }
        }
    }

    /// Returns the number of the worker. `None` if no worker has started the job.
    #[must_use]
    pub fn worker(&self) -> Option<usize> {
        match self {
            Self::Submitted { .. } => None,
            Self::Started { worker, .. } => Some(*worker),
            Self::Finished { worker, .. } => *worker,
        }
    }

    /// Returns how long the job was queued. `None` if it has just been submitted.
    #[must_use]
    pub fn queue_wait(&self) -> Option<Duration> {
        match self {
            Self::Submitted { .. } => None,
            Self::Started { queue_wait, .. } | Self::Finished { queue_wait, .. } => {
                Some(*queue_wait)
            }
        }
    }

    /// Returns how long the closure ran. `None` if it has not ended, or never started.
    #[must_use]
    pub fn run_time(&self) -> Option<Duration> {
        match self {
            Self::Submitted { .. } | Self::Started { .. } => None,
            Self::Finished { run_time, .. } => *run_time,
        }
    }

    /// Returns how the job ended. `None` if it has not.
    #[must_use]
    pub fn outcome(&self) -> Option<JobOutcome> {
        match self {
            Self::Submitted { .. } | Self::Started { .. } => None,
            Self::Finished { outcome, .. } => Some(*outcome),
        }
    }
}

/// How a job ended.
#[doc(alias = "status")]
#[doc(alias = "result")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JobOutcome {
    /// The closure returned.
    Completed,
    /// The closure panicked.
    Panicked,
    /// The job was cancelled before it started, or was killed by a cancel.
    Cancelled,
    /// The job did not start before its deadline.
    Expired,
    /// The job of a worker process has no result for another reason.
    Failed,
    /// The job did not start for another reason, such as a broken pool or a failed thread spawn.
    NotRun,
}

impl From<OutcomeKind> for JobOutcome {
    fn from(kind: OutcomeKind) -> Self {
        match kind {
            OutcomeKind::Returned => Self::Completed,
            OutcomeKind::Panicked => Self::Panicked,
            OutcomeKind::Cancelled => Self::Cancelled,
            OutcomeKind::Expired => Self::Expired,
            OutcomeKind::Failed => Self::Failed,
            OutcomeKind::NotRun => Self::NotRun,
        }
    }
}
