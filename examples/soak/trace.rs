//! One job, and how it may end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use futurepool::{JoinError, JoinHandle, Tagged};

use crate::cargo::{Parcel, open};
use crate::count::{Count, add, count};
use crate::random::Random;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Short,
    Compute,
    Sleep,
    Panic,
    /// Submits jobs to its own pool and waits for them, so deep.
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

/// What is known of a job, to its driver and to itself.
#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) seed: u64,
    pub(crate) kind: Kind,
    /// Its pool may be shut down, or break, at any time.
    pub(crate) brief: bool,
    pub(crate) runs: AtomicU64,
    /// It must not run any more.
    pub(crate) withdrawn: AtomicBool,
}

impl Trace {
    pub(crate) fn begin(&self) {
        count(Count::Jobs);
        assert_eq!(add(&self.runs), 0, "it ran twice: {self:?}");
        assert!(!self.withdrawn.load(SeqCst), "it must not run: {self:?}");
    }

    pub(crate) fn withdraw(&self) {
        self.withdrawn.store(true, SeqCst);
        assert_eq!(self.runs.load(SeqCst), 0, "it ran, and did not: {self:?}");
    }

    /// Looks whether the job may end so.
    pub(crate) fn settle(&self, outcome: Result<Parcel, JoinError>) {
        let ran = outcome.as_ref().err().is_none_or(JoinError::is_panic);
        let may_be = match &outcome {
            Ok(_) => self.kind != Kind::Panic,
            Err(error) if error.is_panic() => self.kind == Kind::Panic,
            Err(error) if error.is_cancelled() => self.brief || self.withdrawn.load(SeqCst),
            Err(error) => self.brief && (error.is_shutdown() || error.is_broken()),
        };
        let error = outcome.as_ref().err();
        assert!(may_be, "it ended by {error:?}: {self:?}");
        let runs = self.runs.load(SeqCst);
        assert_eq!(runs, ran.into(), "it ended by {error:?}: {self:?}");
        assert!(!ran || open(outcome) == self.seed, "another's: {self:?}");
    }
}

pub(crate) type Task = Tagged<Arc<Trace>, JoinHandle<Parcel>>;

pub(crate) fn join(task: Task) {
    let (trace, handle) = task.into_inner();
    trace.settle(handle.join());
}

/// If it is cancelled it never runs, and nothing is left of its closure.
pub(crate) fn cancel(task: &Task) {
    let (trace, handle) = (task.key(), task.get_ref());
    if handle.cancel() {
        count(Count::Cancels);
        trace.withdraw();
        assert!(handle.is_cancelled() && handle.cancel(), "{handle:?}");
        // The closure captured another.
        assert_eq!(Arc::strong_count(trace), 1, "the closure lives: {trace:?}");
    }
}
