//! The handle by which other threads reach a worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::watch;

/// Drains or stops a worker, and reads its counters. A clone controls the same worker.
///
/// Dropping it changes nothing.
#[derive(Debug, Clone)]
pub(crate) struct Control {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    phase: watch::Sender<Phase>,
    counters: Counters,
}

/// What a worker is asked to do. It never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Run,
    /// Take nothing more, and end once what runs has ended, or the grace is over.
    Drain,
    /// As a drain whose grace is over.
    Stop,
}

/// What a worker counts. Each is written by the worker only, and only for its readers.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Runs that returned.
    pub(super) done: AtomicU64,
    /// Jobs with another outcome that this worker has told.
    pub(super) failed: AtomicU64,
    /// Jobs that this worker has declared lost.
    pub(super) lost: AtomicU64,
    /// Deliveries of jobs that were delivered before.
    pub(super) retried: AtomicU64,
    /// Deliveries that were given back without a start.
    pub(super) returned: AtomicU64,
    /// Jobs whose submitter was gone.
    pub(super) dropped: AtomicU64,
    /// Deliveries that are held now.
    pub(super) held: AtomicU64,
    /// The most that were held at once.
    pub(super) most_held: AtomicU64,
    /// Jobs that run now.
    pub(super) running: AtomicU64,
}

/// The counters of a worker at one moment. See [`Counters`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stats {
    pub(crate) done: u64,
    pub(crate) failed: u64,
    pub(crate) lost: u64,
    pub(crate) retried: u64,
    pub(crate) returned: u64,
    pub(crate) dropped: u64,
    pub(crate) held: u64,
    pub(crate) most_held: u64,
    pub(crate) running: u64,
}

impl Control {
    pub(super) fn new() -> Self {
        let inner = Inner {
            phase: watch::Sender::new(Phase::Run),
            counters: Counters::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Asks the worker to take nothing more, and to end once it has nothing left.
    pub(crate) fn drain(&self) {
        self.advance(Phase::Drain);
    }

    /// Asks the worker to end now. Running jobs are asked to end, and are left to their leases.
    pub(crate) fn stop(&self) {
        self.advance(Phase::Stop);
    }

    /// Returns whether the worker was asked to drain or to stop.
    pub(crate) fn is_draining(&self) -> bool {
        self.phase() > Phase::Run
    }

    pub(crate) fn stats(&self) -> Stats {
        // Ordering: each counter is for itself.
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = self.counters();
        Stats {
            done: get(&counters.done),
            failed: get(&counters.failed),
            lost: get(&counters.lost),
            retried: get(&counters.retried),
            returned: get(&counters.returned),
            dropped: get(&counters.dropped),
            held: get(&counters.held),
            most_held: get(&counters.most_held),
            running: get(&counters.running),
        }
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.inner.counters
    }

    pub(super) fn phase(&self) -> Phase {
        *self.inner.phase.borrow()
    }

    /// Waits until the worker was asked for at least `phase`.
    pub(super) async fn reached(&self, phase: Phase) {
        let mut receiver = self.inner.phase.subscribe();
        // The sender lives as long as `self`.
        let _ = receiver.wait_for(|now| *now >= phase).await;
    }

    fn advance(&self, phase: Phase) {
        self.inner.phase.send_if_modified(|now| {
            let later = phase > *now;
            *now = phase.max(*now);
            later
        });
    }
}

/// Adds one. Ordering: only for readers of the counters.
pub(super) fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
