//! The worker's own key in the store of the living, and those of others.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::core::{Backoff, Shared};
use crate::broker::{Broker, BrokerError, PublishError, Store, Watch};
use crate::protocol::live::{LiveValue, RunningValue, WorkerValue};

/// A value has no more running jobs than this: it must stay small.
const MAX_RUNNING: usize = 64;

/// Writes the own key in each period.
pub(super) async fn write<B: Broker>(shared: Rc<Shared<B>>) {
    let period = shared.options.settings.live_period();
    let mut backoff = Backoff::default();
    loop {
        // The first one is written before the first pull.
        sleep(period).await;
        while let Err(error) = put_key(&shared).await {
            let what = "write its own key";
            shared.after_error(what, &error, &mut backoff).await;
        }
        backoff = Backoff::default();
    }
}

/// Writes the own key once.
pub(super) async fn put_key<B: Broker>(shared: &Shared<B>) -> Result<(), BrokerError> {
    let sent = Instant::now();
    let message = value(shared).to_outgoing(&shared.key);
    match shared.broker.publish(Store::Live, message).await {
        Ok(_) => {
            shared.confirmed.set(Some(sent));
            // What may be taken depends on it.
            shared.changed.notify_one();
            Ok(())
        }
        Err(PublishError::Other(error)) => Err(error),
        Err(error) => Err(BrokerError::Unreachable(error.to_string().into())),
    }
}

/// Deletes the own key, so that nothing waits until it runs out. If that fails, it runs out.
pub(super) async fn farewell<B: Broker>(shared: &Shared<B>) {
    let message = LiveValue::farewell(&shared.key);
    let limit = Duration::from_secs(2);
    let _ = timeout(limit, shared.broker.publish(Store::Live, message)).await;
}

/// Follows the keys of all peers.
pub(super) async fn watch<B: Broker>(shared: Rc<Shared<B>>) {
    loop {
        let open = async || shared.broker.watch(Store::Live, true).await;
        let mut watch = shared.until_known("follow the living", open).await;
        follow(&shared, &mut watch).await;
        shared.live.borrow_mut().on_break();
        shared.pause(&mut Backoff::default()).await;
    }
}

/// Returns when messages may have been missed.
async fn follow<B: Broker>(shared: &Shared<B>, watch: &mut B::Watch) {
    let patience = shared.options.settings.live_period() * 3;
    let mut echo = Instant::now();
    loop {
        // The own key comes in each period. A watch without it has stalled, although nothing says so:
        // then no peer would ever be judged dead.
        let Ok(message) = timeout_at(echo + patience, watch.next()).await else {
            if shared.is_known_alive(2) {
                return;
            }
            echo = Instant::now();
            continue;
        };
        let Some(message) = message else {
            return;
        };
        let now = Instant::now();
        shared.clock.borrow_mut().learn(message.time, now);
        let mut live = shared.live.borrow_mut();
        live.on_message(&message, now);
        if message.subject == shared.key {
            echo = now;
            live.forget_old(now);
        }
    }
}

/// Returns the begin of a text that came from elsewhere. The value must stay small, or the server
/// refuses it, and the worker seems dead.
fn shorten(text: &str) -> String {
    const MOST: usize = 256;
    match text.char_indices().nth(MOST) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

fn value<B: Broker>(shared: &Shared<B>) -> LiveValue {
    let options = &shared.options;
    let stats = shared.control.stats();
    let failure = shared.failure.borrow().clone();
    let state = match () {
        () if failure.is_some() => "broken",
        () if shared.is_ending() => "draining",
        () => "running",
    };
    let held = shared.held.borrow();
    let running = held.values().filter_map(|held| {
        let since = held.run.borrow().as_ref()?.since;
        Some(RunningValue {
            job: held.id.clone(),
            task: held.task.to_owned(),
            label: held.label.as_deref().map(shorten),
            millis: u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX),
        })
    });
    let tasks = options.tasks.iter();
    let worker = WorkerValue {
        queue: options.queue.clone(),
        tasks: tasks
            .map(|task| (task.name().to_owned(), task.version()))
            .collect(),
        slots: options.slots,
        state: state.to_owned(),
        console: options.console.clone(),
        problem: failure.map(|failure| shorten(&failure.to_string())),
        held: held.len(),
        running: running.take(MAX_RUNNING).collect(),
        done: stats.done,
        failed: stats.failed,
        lost: stats.lost,
        retried: stats.retried,
    };
    LiveValue {
        name: options.name.clone(),
        worker: Some(worker),
        client: None,
    }
}
