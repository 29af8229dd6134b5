//! What the test knows of one job, and how that job may end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use futurepool::{JoinError, JoinHandle, Tagged};

use crate::count::{Count, count, increment};
use crate::random::Random;
use crate::tracked::{Output, seed_of};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Short,
    Compute,
    Sleep,
    Panic,
    /// Submits jobs to its own pool and waits for them. Holds the nesting depth.
    Nested(u64),
}

impl Kind {
    pub(crate) fn draw(random: &mut Random, depth: u64) -> Self {
        match random.below(32) {
            0 | 1 => Self::Panic,
            2..=5 => Self::Compute,
            6 | 7 => Self::Sleep,
            8 | 9 if depth < 3 => Self::Nested(depth + 1),
            _ => Self::Short,
        }
    }
}

/// Shared by a job and its driver.
#[derive(Debug)]
pub(crate) struct JobRecord {
    pub(crate) seed: u64,
    pub(crate) kind: Kind,
    /// Its pool may be shut down, or break, at any time.
    pub(crate) short_lived: bool,
    pub(crate) runs: AtomicU64,
    /// It was cancelled while queued, and must not run.
    pub(crate) cancelled: AtomicBool,
}

impl JobRecord {
    pub(crate) fn start(&self) {
        count(Count::Jobs);
        assert_eq!(increment(&self.runs), 0, "the job ran twice: {self:?}");
        assert!(
            !self.cancelled.load(SeqCst),
            "a cancelled job ran: {self:?}"
        );
    }

    pub(crate) fn mark_cancelled(&self) {
        self.cancelled.store(true, SeqCst);
        let runs = self.runs.load(SeqCst);
        assert_eq!(runs, 0, "a job that ran was cancelled: {self:?}");
    }

    /// Checks that the job may end with this outcome.
    pub(crate) fn check_outcome(&self, outcome: Result<Output, JoinError>) {
        let ran = outcome.as_ref().err().is_none_or(JoinError::is_panic);
        let is_allowed = match &outcome {
            Ok(_) => self.kind != Kind::Panic,
            Err(error) if error.is_panic() => self.kind == Kind::Panic,
            Err(error) if error.is_cancelled() => self.short_lived || self.cancelled.load(SeqCst),
            Err(error) => self.short_lived && (error.is_shutdown() || error.is_broken()),
        };
        let error = outcome.as_ref().err();
        assert!(is_allowed, "outcome {error:?} of {self:?}");
        let runs = self.runs.load(SeqCst);
        assert_eq!(runs, ran.into(), "runs, with {error:?} of {self:?}");
        let is_own = !ran || seed_of(outcome) == self.seed;
        assert!(is_own, "the outcome of another job: {self:?}");
    }
}

pub(crate) type Task = Tagged<Arc<JobRecord>, JoinHandle<Output>>;

pub(crate) fn join(task: Task) {
    let (record, handle) = task.into_inner();
    record.check_outcome(handle.join());
}

/// Cancels the job. If it was still queued, it never runs, and its closure has been dropped.
pub(crate) fn cancel(task: &Task) {
    let (record, handle) = (task.key(), task.get_ref());
    if handle.cancel() {
        count(Count::Cancels);
        record.mark_cancelled();
        assert!(handle.is_cancelled() && handle.cancel(), "{handle:?}");
        // The closure captured the other reference.
        let references = Arc::strong_count(record);
        assert_eq!(references, 1, "the closure was not dropped: {record:?}");
    }
}
