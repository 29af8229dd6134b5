//! Extends what this worker holds, and looks after jobs whose submitter is gone.

use std::rc::Rc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, sleep};

use super::core::Shared;
use super::held::Held;
use crate::broker::{Ack, Broker};
use crate::protocol::live::Judgement;
use crate::protocol::names;

/// Extends the leases of all that is held, three times in each.
///
/// It does so whatever the lives of the deliveries wait for: a slot, the server, a run.
pub(super) async fn extend<B: Broker>(shared: Rc<Shared<B>>) {
    let period = shared.options.settings.extend_period();
    let mut next = Instant::now() + period;
    loop {
        tokio::time::sleep_until(next).await;
        next = Instant::now() + period;
        stop_orphans(&shared);
        // An extension is not confirmed, but it may wait for a connection.
        tokio::select! {
            biased;
            () = extend_all(&shared) => {}
            () = sleep(period) => {}
        }
    }
}

/// Extends the leases of all that is held now.
pub(super) async fn extend_all<B: Broker>(shared: &Shared<B>) {
    let tokens: Vec<_> = {
        let held = shared.held.borrow();
        held.values().map(|held| held.token()).collect()
    };
    let extensions = tokens
        .iter()
        .map(|token| shared.broker.ack(token, Ack::Extend));
    // What is not extended is delivered again, here or elsewhere.
    join_all(extensions).await;
}

/// Asks running jobs to end whose submitter is dead, and would not want their outcome.
fn stop_orphans<B: Broker>(shared: &Shared<B>) {
    let running: Vec<Rc<Held>> = {
        let held = shared.held.borrow();
        let running = held.values().filter(|held| held.run.borrow().is_some());
        running
            .filter(|held| !held.detached)
            .map(Rc::clone)
            .collect()
    };
    let now = Instant::now();
    for held in running {
        let key = names::live_client(&held.client);
        if shared.judge(&key) != Judgement::Dead {
            held.orphan_since.set(None);
            continue;
        }
        let since = held.orphan_since.get().unwrap_or(now);
        held.orphan_since.set(Some(since));
        let Some(limit) = disconnect_limit(shared, &key) else {
            continue;
        };
        if now - since >= limit && !held.cancelled.get() {
            tracing::info!(
                job = held.id,
                "the submitter is gone: asking its job to end"
            );
            held.cancel();
        }
    }
}

/// Of a submitter that has said nothing.
const DISCONNECT_LIMIT: Duration = Duration::from_secs(5 * 60);

/// Returns for how long a submitter that lost its server still waits for its jobs. `None`: for
/// ever.
fn disconnect_limit<B: Broker>(shared: &Shared<B>, key: &str) -> Option<Duration> {
    let live = shared.live.borrow();
    if live.has_left(key) {
        return Some(Duration::ZERO);
    }
    match live.value(key).and_then(|value| value.client.as_ref()) {
        Some(client) => client.disconnect_limit_ms.map(Duration::from_millis),
        None => Some(DISCONNECT_LIMIT),
    }
}
