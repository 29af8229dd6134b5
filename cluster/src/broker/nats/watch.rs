//! Follows the keys of a store.

use std::sync::Arc;
use std::time::Duration;

use crate::watch;
use async_nats::{HeaderMap, Message, Subscriber};
use bytes::Bytes;
use futures::StreamExt;
use tokio::time::Instant;

use super::api::ConsumerConfig;
use super::link::Link;
use super::names::Names;
use super::{consumers, messages, stores, token};
use crate::broker::{BrokerError, Connection, Store, Stored, Watch};

/// Says which delivery was the last.
const LAST_DELIVERY: &str = "Nats-Last-Consumer";
/// Says where the server waits for a sign that the reader keeps up.
const STALLED: &str = "Nats-Consumer-Stalled";

/// A watch through a consumer of its own, without acknowledgements. Deliveries are numbered, so
/// that a gap shows. The consumer vanishes soon after the watch.
pub(crate) struct NatsWatch {
    link: Arc<Link>,
    inbox: Subscriber,
    prefix: Arc<str>,
    /// The number of the last delivery.
    delivered: u64,
    connection: watch::Receiver<Connection>,
    generation: u64,
    /// Without a sign of the server until then, the consumer may be gone.
    silent: Instant,
    silence: Duration,
    ended: bool,
}

impl std::fmt::Debug for NatsWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NatsWatch").finish_non_exhaustive()
    }
}

impl NatsWatch {
    pub(super) async fn open(
        link: Arc<Link>,
        names: &Names,
        store: Store,
        all: bool,
        heartbeat: Duration,
    ) -> Result<Self, BrokerError> {
        let stream = names.stream(store);
        let prefix = names.prefix(store);
        let inbox_subject = link.client().new_inbox();
        let connection = link.connection();
        let generation = link.connected()?;
        let inbox = link.subscribe(inbox_subject.clone()).await?;
        let name = inbox_subject.rsplit('.').next().unwrap_or_default();
        let policy = if all { "last_per_subject" } else { "new" };
        let config = ConsumerConfig {
            name: Some(name.to_owned()),
            deliver_subject: Some(inbox_subject.clone()),
            deliver_policy: policy.into(),
            ack_policy: "none".into(),
            max_deliver: 1,
            filter_subject: format!("{prefix}>"),
            replay_policy: "instant".into(),
            idle_heartbeat: u64::try_from(heartbeat.as_nanos()).unwrap_or(u64::MAX),
            inactive_threshold: 5_000_000_000,
            flow_control: true,
            num_replicas: 1,
            mem_storage: true,
            ..ConsumerConfig::default()
        };
        consumers::make(&link, stream, &config)
            .await
            .map_err(|error| stores::failed(&link, error, stream))?;
        let silence = heartbeat * 3;
        Ok(Self {
            link,
            inbox,
            prefix: prefix.into(),
            delivered: 0,
            connection,
            generation,
            silent: Instant::now() + silence,
            silence,
            ended: false,
        })
    }

    /// Takes in what the server says between the messages. Returns `false` if something is missed.
    async fn take_status(&mut self, message: &Message) -> bool {
        if message.status.is_none_or(|status| status.as_u16() != 100) {
            return false;
        }
        let header = |name: &str| {
            let headers: Option<&HeaderMap> = message.headers.as_ref();
            headers.and_then(|headers| headers.get(name))
        };
        if let Some(last) = header(LAST_DELIVERY)
            && last.as_str() != self.delivered.to_string()
        {
            return false;
        }
        let asked = message.reply.clone();
        let asked = asked.or_else(|| header(STALLED).map(|subject| subject.as_str().into()));
        match asked {
            Some(reply) => self.link.send(reply, None, Bytes::new()).await.is_ok(),
            None => true,
        }
    }

    /// Returns a message, if it is the next.
    fn take(&mut self, message: Message) -> Option<Stored> {
        let reply = message.reply.as_deref()?;
        let token = token::parse(reply)?;
        if token.delivery != self.delivered + 1 {
            return None;
        }
        self.delivered = token.delivery;
        Some(Stored {
            subject: message.subject.strip_prefix(&*self.prefix)?.to_owned(),
            seq: token.seq,
            time: token.time,
            headers: messages::headers(message.headers),
            payload: message.payload,
        })
    }

    /// Waits for what comes next. `None`: the server was silent, or the connection broke.
    async fn receive(&mut self) -> Option<Message> {
        loop {
            tokio::select! {
                biased;
                message = self.inbox.next() => {
                    self.silent = Instant::now() + self.silence;
                    return message;
                }
                changed = self.connection.changed() => {
                    changed.ok()?;
                    let now = self.connection.borrow_and_update();
                    if !now.connected || now.generation != self.generation {
                        return None;
                    }
                }
                () = tokio::time::sleep_until(self.silent) => return None,
            }
        }
    }
}

impl Watch for NatsWatch {
    async fn next(&mut self) -> Option<Stored> {
        while !self.ended {
            let Some(message) = self.receive().await else {
                break;
            };
            if message.status.is_some() {
                // Cancel safe: a sign that is not sent makes the server wait until it asks again.
                if !self.take_status(&message).await {
                    break;
                }
                continue;
            }
            match self.take(message) {
                Some(stored) => return Some(stored),
                None => break,
            }
        }
        self.ended = true;
        None
    }
}
