//! Runs the janitor now and then.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::core::Shared;
use crate::broker::{Broker, ServerTime};
use crate::janitor::{Janitor, View};
use crate::protocol::live::Judgement;

/// Of the passes of workers that are not the first, all but each of this number are left out.
const SELDOM: u32 = 10;

/// Passes each two leases, and at another moment than other workers.
///
/// Only one worker does so, unless workers see different peers. That is no more than a waste.
pub(super) async fn keep_clean<B: Broker>(shared: Rc<Shared<B>>) {
    let settings = &shared.options.settings;
    let mut janitor = Janitor::new(shared.broker.clone(), settings);
    let millis = u64::try_from(settings.lease.as_millis()).unwrap_or(u64::MAX);
    let mut turn = 0;
    loop {
        turn += 1;
        let jitter = Duration::from_millis(shared.random() % millis.max(1));
        sleep(settings.lease * 3 / 2 + jitter).await;
        for (consumer, _) in &shared.consumers {
            // It may not know of messages that the server has brought back.
            let _ = shared.broker.ensure_consumer(consumer).await;
        }
        if !is_first(&shared) && turn % SELDOM != 0 {
            continue;
        }
        if let Err(error) = janitor.pass(&*shared).await {
            // The next pass goes on. A janitor needs more rights than a worker may have.
            tracing::debug!(%error, "the janitor could not finish a pass");
        }
    }
}

/// Returns whether this worker's key is the first of those that live.
fn is_first<B: Broker>(shared: &Shared<B>) -> bool {
    let live = shared.live.borrow();
    let mut keys = live.alive(Instant::now()).map(|(key, _)| key);
    keys.find(|key| key.starts_with("w."))
        .is_some_and(|first| first == shared.key)
}

impl<B: Broker> View for Shared<B> {
    fn key(&self) -> &str {
        &self.key
    }

    fn holds(&self, job: &str) -> bool {
        self.held.borrow().contains_key(job)
    }

    fn judge(&self, key: &str) -> Judgement {
        Shared::judge(self, key)
    }

    fn age(&self, time: ServerTime) -> Duration {
        self.clock.borrow().age(time, Instant::now())
    }

    fn generation(&self) -> u64 {
        Shared::generation(self)
    }
}
