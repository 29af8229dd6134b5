//! Requests for jobs, and what they bring.

use std::future::pending;
use std::rc::Rc;

use futures::stream::{self, StreamExt};
use tokio::time::{Instant, sleep_until};

use super::Failure;
use super::core::{Backoff, Shared};
use super::job;
use crate::broker::{Broker, BrokerError, Consumer, Pulled, Puller};

/// Asks for jobs while there are slots, and starts the life of each delivery.
///
/// When the worker ends, it goes on until all requests have ended: what they still bring is given
/// back, instead of being left to its lease.
pub(super) async fn pull<B: Broker>(shared: Rc<Shared<B>>) {
    pull_until_ended(&shared).await;
    shared.pulls_ended.set(true);
    shared.settled.notify_one();
}

async fn pull_until_ended<B: Broker>(shared: &Rc<Shared<B>>) {
    loop {
        let opened = tokio::select! {
            biased;
            () = shared.ending() => None,
            puller = open(shared) => Some(puller),
        };
        let Some(mut puller) = opened else {
            return;
        };
        if !use_puller(shared, &mut puller).await {
            return;
        }
        shared.intake.borrow_mut().on_break();
    }
}

/// Waits until the worker is connected and its key is written, and opens a puller.
async fn open<B: Broker>(shared: &Shared<B>) -> B::Puller {
    let mut ready = shared.ready.subscribe();
    loop {
        let generation = shared.generation();
        // The sender lives as long as `shared`.
        let _ = ready
            .wait_for(|ready| *ready == Some(shared.generation()))
            .await;
        let consumers = stream::iter(&shared.consumers);
        let made = consumers.for_each_concurrent(8, |(consumer, _)| ensure(shared, consumer));
        made.await;
        let puller = async || shared.broker.puller().await;
        let puller = shared.until_known("ask for jobs", puller).await;
        if shared.generation() == generation || shared.connection().borrow().connected {
            return puller;
        }
    }
}

/// Makes a consumer. A server that refuses the first time always will.
async fn ensure<B: Broker>(shared: &Shared<B>, consumer: &Consumer) {
    let mut backoff = Backoff::default();
    loop {
        match shared.broker.ensure_consumer(consumer).await {
            Ok(()) => return,
            Err(BrokerError::Refused(text)) => {
                let text = format!("cannot take jobs of {}: {text}", consumer.subject());
                shared.fail(Failure::Refused(text.into()));
                return;
            }
            Err(error) => {
                let what = "make a consumer";
                shared.after_error(what, &error, &mut backoff).await;
            }
        }
    }
}

/// Returns `false` when the worker ends and nothing is asked for.
async fn use_puller<B: Broker>(shared: &Rc<Shared<B>>, puller: &mut B::Puller) -> bool {
    let expires = shared.options.settings.live_period();
    let patience = expires + shared.options.settings.request_timeout() * 2;
    let mut is_stopped = false;
    loop {
        let now = Instant::now();
        let overdue_at = shared.intake.borrow_mut().drop_overdue(now);
        if shared.is_ending() {
            if !shared.intake.borrow().is_asking() {
                return false;
            }
            if !is_stopped {
                puller.stop();
                is_stopped = true;
            }
        } else if shared.takes_jobs() && shared.is_known_alive(2) {
            let free = shared.free_slots();
            let requests = shared.intake.borrow_mut().requests(free, now, patience);
            for (index, batch) in requests {
                puller.request(&shared.consumers[index].0, batch, expires);
            }
        }
        let paused_until = shared.paused_until.get().filter(|until| *until > now);
        let timer = async {
            match [paused_until, overdue_at].into_iter().flatten().min() {
                Some(at) => sleep_until(at).await,
                None => pending().await,
            }
        };
        let pulled = tokio::select! {
            biased;
            pulled = puller.next() => pulled,
            () = shared.changed.notified() => continue,
            () = timer => continue,
        };
        match pulled {
            Pulled::Delivery(delivery) => {
                let Some(index) = index_of(shared, &delivery.consumer) else {
                    continue;
                };
                shared
                    .intake
                    .borrow_mut()
                    .on_delivery(index, Instant::now());
                job::take(shared, delivery, index);
            }
            Pulled::Ended { consumer, wanted } => {
                if let Some(index) = index_of(shared, &consumer) {
                    shared.intake.borrow_mut().on_end(index, wanted);
                }
            }
            Pulled::Gone(consumer) => {
                if let Some(index) = index_of(shared, &consumer) {
                    tracing::warn!(
                        consumer = consumer.subject(),
                        "a consumer is gone: making it"
                    );
                    tokio::select! {
                        biased;
                        () = shared.ending() => {}
                        () = ensure(shared, &consumer) => {}
                    }
                    shared.intake.borrow_mut().on_end(index, 1);
                }
            }
            Pulled::Broken => {
                return !shared.is_ending();
            }
        }
    }
}

fn index_of<B: Broker>(shared: &Shared<B>, consumer: &Consumer) -> Option<usize> {
    // At most 64, and most of them differ at the end of a long text.
    let mut consumers = shared.consumers.iter();
    consumers.position(|(known, _)| known == consumer)
}
