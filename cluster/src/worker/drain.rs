//! How a worker ends.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Failure;
use super::control::Phase;
use super::core::Shared;
use crate::broker::Broker;

/// Waits until the worker must end, and then until it has nothing left.
///
/// 1. Nothing more is asked for. What still comes, and what has not started, is given back.
/// 2. What runs may end within the grace. Then it is asked to end.
/// 3. What still runs a moment later is left to its lease.
///
/// Outcomes are stored, and messages removed, within the same times.
pub(super) async fn until_done<B: Broker>(shared: &Shared<B>) -> Result<(), Failure> {
    shared.ending().await;
    let began = Instant::now();
    // Deliveries that wait for a slot are given back.
    shared.slots.close();
    shared.changed.notify_one();
    let (worker, held) = (&shared.options.name, shared.control.stats().held);
    tracing::info!(%worker, held, "draining");

    let graceful = async {
        tokio::select! {
            biased;
            () = shared.control.reached(Phase::Stop) => {}
            () = until_idle(shared) => {}
        }
    };
    let grace_over = timeout_at(after(began, shared.options.grace), graceful)
        .await
        .is_err();
    if !is_idle(shared) {
        if grace_over {
            tracing::warn!(%worker, "the grace is over: asking running jobs to end");
        }
        let held: Vec<_> = shared.held.borrow().values().cloned().collect();
        held.iter()
            .filter(|held| held.run.borrow().is_some())
            .for_each(|held| held.abandon());
        let moment = Instant::now() + shared.lease() / 15;
        let _ = timeout_at(moment, until_idle(shared)).await;
    }
    let left = shared.lives.get();
    if left > 0 {
        tracing::warn!(%worker, left, "jobs are left to their leases");
    }
    let stats = shared.control.stats();
    tracing::info!(%worker, done = stats.done, failed = stats.failed, "drained");
    match shared.failure.borrow().clone() {
        None => Ok(()),
        Some(failure) => Err(failure),
    }
}

/// Returns a time in the future, at most some years from now.
fn after(now: Instant, time: Duration) -> Instant {
    now + time.min(Duration::from_secs(1 << 30))
}

async fn until_idle<B: Broker>(shared: &Shared<B>) {
    while !is_idle(shared) {
        shared.settled.notified().await;
    }
}

fn is_idle<B: Broker>(shared: &Shared<B>) -> bool {
    shared.pulls_ended.get() && shared.lives.get() == 0
}
