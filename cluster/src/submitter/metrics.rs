//! What a submitter counts.

use std::sync::{Mutex, PoisonError};

use futurepool::JoinError;

/// The books. At any moment `submitted` is the sum of the ends and of `pending`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) submitted: u64,
    /// Jobs that returned, a function's own error included.
    pub(crate) completed: u64,
    pub(crate) panicked: u64,
    pub(crate) cancelled: u64,
    /// Lost, or reported as disconnected.
    pub(crate) lost: u64,
    /// All other ends: expired, refused by a worker, not decoded, killed for a limit.
    pub(crate) failed: u64,
    pub(crate) pending: u64,
    /// Not accepted, so not submitted.
    pub(crate) rejected: u64,
    /// How often the server has lost what it had confirmed.
    pub(crate) rollbacks: u64,
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndKind {
    Completed,
    Panicked,
    Cancelled,
    Lost,
    Failed,
}

impl EndKind {
    pub(crate) fn of(error: &JoinError) -> Self {
        if error.is_panic() {
            Self::Panicked
        } else if error.is_cancelled() || error.is_shutdown() || error.is_broken() {
            Self::Cancelled
        } else if error.is_lost() || error.is_disconnected() {
            Self::Lost
        } else {
            Self::Failed
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counters(Mutex<Counts>);

impl Counters {
    pub(crate) fn snapshot(&self) -> Counts {
        self.with(|counts| counts.clone())
    }

    pub(crate) fn on_submit(&self) {
        self.with(|counts| {
            counts.submitted += 1;
            counts.pending += 1;
        });
    }

    /// Called before the end is visible.
    pub(crate) fn on_end(&self, kind: EndKind) {
        self.with(|counts| {
            counts.pending -= 1;
            *match kind {
                EndKind::Completed => &mut counts.completed,
                EndKind::Panicked => &mut counts.panicked,
                EndKind::Cancelled => &mut counts.cancelled,
                EndKind::Lost => &mut counts.lost,
                EndKind::Failed => &mut counts.failed,
            } += 1;
        });
    }

    /// A job goes back to its submitter: it was never accepted.
    pub(crate) fn on_give_back(&self) {
        self.with(|counts| {
            counts.submitted -= 1;
            counts.pending -= 1;
            counts.rejected += 1;
        });
    }

    pub(crate) fn on_reject(&self) {
        self.with(|counts| counts.rejected += 1);
    }

    pub(crate) fn on_rollback(&self) {
        self.with(|counts| counts.rollbacks += 1);
    }

    fn with<R>(&self, f: impl FnOnce(&mut Counts) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Counts {
    /// Returns whether the books add up.
    #[cfg(test)]
    pub(crate) fn add_up(&self) -> bool {
        let ends = self.completed + self.panicked + self.cancelled + self.lost + self.failed;
        self.submitted == ends + self.pending
    }
}
