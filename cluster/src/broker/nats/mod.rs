//! A JetStream server.
//!
//! ```text
//!   mod (Broker) ─► stores, consumers, messages, blobs ─► api (JSON) ─► link ─► the client
//!                └► puller, watch, inbox: subscriptions of their own ────┘
//! ```
//!
//! The client keeps the connection; all requests are made here. Reads go to the leader of a stream.

mod api;
mod blobs;
mod connect;
mod consumers;
mod inbox;
mod link;
mod messages;
mod names;
pub(crate) mod options;
mod padding;
#[cfg(any(feature = "cli", test))]
pub(crate) mod permissions;
mod puller;
mod stores;
#[cfg(test)]
mod tests;
mod time;
mod token;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::Subject;
use bytes::Bytes;

use self::inbox::NatsInbox;
use self::link::{CallError, Link};
use self::messages::Look;
use self::names::Names;
use self::options::NatsOptions;
use self::puller::NatsPuller;
use self::watch::NatsWatch;
use super::{
    Ack, BlobInfo, Broker, BrokerError, Connection, Consumer, ConsumerInfo, Outgoing, PublishError,
    Store, StoreInfo, Stored, Token,
};
use crate::protocol::settings::Settings;

/// A connection to a JetStream server, for one namespace. Closed when the last clone is dropped.
#[derive(Clone)]
pub(crate) struct Nats {
    link: Arc<Link>,
    names: Names,
    identities: Arc<[String]>,
    /// The lease of the namespace in milliseconds, once it is known.
    lease: Arc<AtomicU64>,
}

impl std::fmt::Debug for Nats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nats").finish_non_exhaustive()
    }
}

impl Nats {
    /// Connects. Fails if no server can be reached in time, or if one refuses.
    pub(crate) async fn connect(options: &NatsOptions) -> Result<Self, BrokerError> {
        let link = connect::connect(options).await?;
        let nats = Self {
            link: Arc::new(link),
            names: Names::new(&options.namespace, options.identity.as_deref()),
            identities: options.identities.as_slice().into(),
            lease: Arc::new(AtomicU64::new(0)),
        };
        nats.learn(&Settings::default());
        Ok(nats)
    }

    fn learn(&self, settings: &Settings) {
        let lease = u64::try_from(settings.lease.as_millis()).unwrap_or(u64::MAX);
        self.lease.store(lease, Ordering::Relaxed);
    }

    fn lease(&self) -> Duration {
        Duration::from_millis(self.lease.load(Ordering::Relaxed))
    }

    fn notice(&self, subject: &str) -> Subject {
        format!("{}{subject}", self.names.notices).into()
    }
}

impl Broker for Nats {
    type Puller = NatsPuller;
    type Watch = NatsWatch;
    type Inbox = NatsInbox;

    fn connection(&self) -> crate::watch::Receiver<Connection> {
        self.link.connection()
    }

    fn max_payload(&self) -> usize {
        self.link.client().max_payload()
    }

    async fn ensure_stores(
        &self,
        wanted: &Settings,
        create: bool,
    ) -> Result<Settings, BrokerError> {
        let settings =
            stores::ensure(&self.link, &self.names, &self.identities, wanted, create).await?;
        self.learn(&settings);
        self.link.set_timeout(settings.request_timeout());
        Ok(settings)
    }

    async fn ensure_consumer(&self, consumer: &Consumer) -> Result<(), BrokerError> {
        consumers::ensure(&self.link, &self.names, consumer, self.lease()).await
    }

    async fn delete_consumer(&self, consumer: &Consumer) -> Result<(), BrokerError> {
        consumers::delete(&self.link, &self.names, consumer).await
    }

    async fn consumers(&self) -> Result<Vec<ConsumerInfo>, BrokerError> {
        consumers::list(&self.link, &self.names).await
    }

    async fn publish(&self, store: Store, message: Outgoing) -> Result<u64, PublishError> {
        messages::publish(&self.link, &self.names, store, message).await
    }

    async fn get(&self, store: Store, seq: u64) -> Result<Option<Stored>, BrokerError> {
        messages::look_in(&self.link, &self.names, store, Look::At(seq)).await
    }

    async fn last(&self, store: Store, subject: &str) -> Result<Option<Stored>, BrokerError> {
        let subject = self.names.subject(store, subject);
        messages::look_in(&self.link, &self.names, store, Look::Last(&subject)).await
    }

    async fn next(&self, store: Store, seq: u64) -> Result<Option<Stored>, BrokerError> {
        let all = self.names.subject(store, ">");
        messages::look_in(&self.link, &self.names, store, Look::Next(seq, &all)).await
    }

    async fn next_of(
        &self,
        store: Store,
        subject: &str,
        seq: u64,
    ) -> Result<Option<Stored>, BrokerError> {
        let subject = self.names.subject(store, subject);
        messages::look_in(&self.link, &self.names, store, Look::Next(seq, &subject)).await
    }

    async fn delete(&self, store: Store, seq: u64) -> Result<bool, BrokerError> {
        let lasting = store == Store::Jobs;
        messages::delete(&self.link, self.names.stream(store), seq, lasting).await
    }

    async fn info(&self, store: Store) -> Result<StoreInfo, BrokerError> {
        stores::state(&self.link, self.names.stream(store)).await
    }

    async fn ack(&self, token: &Token, ack: Ack) -> Result<(), BrokerError> {
        let subject = Subject::from(&*token.0);
        let payload = match ack {
            Ack::Done => {
                let confirmed = self.link.call(subject, None, Bytes::from_static(b"+ACK"));
                return match confirmed.await {
                    Ok(_) => Ok(()),
                    Err(CallError::NoResponder) => {
                        Err(BrokerError::Missing("the consumer is gone".into()))
                    }
                    Err(error) => Err(error.into()),
                };
            }
            Ack::Seen => Bytes::from_static(b"+ACK"),
            Ack::Extend => Bytes::from_static(b"+WPI"),
            Ack::Back(delay) if delay.is_zero() => Bytes::from_static(b"-NAK"),
            Ack::Back(delay) => format!("-NAK {{\"delay\":{}}}", delay.as_nanos()).into(),
        };
        self.link.send(subject, None, payload).await
    }

    async fn puller(&self) -> Result<Self::Puller, BrokerError> {
        NatsPuller::open(Arc::clone(&self.link), self.names.clone()).await
    }

    async fn watch(&self, store: Store, all: bool) -> Result<Self::Watch, BrokerError> {
        // Three of them without a sign end the watch, well before a peer is called dead.
        let heartbeat = self.lease() / 30;
        let heartbeat = heartbeat.clamp(Duration::from_millis(200), Duration::from_secs(1));
        NatsWatch::open(Arc::clone(&self.link), &self.names, store, all, heartbeat).await
    }

    async fn inbox(&self, subjects: &[String]) -> Result<Self::Inbox, BrokerError> {
        NatsInbox::open(&self.link, &self.names.notices, subjects).await
    }

    async fn notify(&self, subject: &str, payload: Bytes) -> Result<(), BrokerError> {
        let subject = self.notice(subject);
        self.link.send(subject, None, payload).await
    }

    async fn notify_reply(&self, reply: &str, payload: Bytes) -> Result<(), BrokerError> {
        self.link.send(reply.into(), None, payload).await
    }

    async fn ask(&self, subject: &str, payload: Bytes) -> Result<Option<Bytes>, BrokerError> {
        match self.link.call(self.notice(subject), None, payload).await {
            Ok(answer) => Ok(Some(answer.payload)),
            Err(CallError::NoResponder) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn put_blob(&self, name: &str, data: Bytes) -> Result<(), BrokerError> {
        blobs::put(&self.link, &self.names, name, data).await
    }

    async fn get_blob(&self, name: &str, max: usize) -> Result<Option<Bytes>, BrokerError> {
        blobs::get(&self.link, &self.names, name, max).await
    }

    async fn delete_blob(&self, name: &str) -> Result<(), BrokerError> {
        blobs::delete(&self.link, &self.names, name).await
    }

    async fn blobs(&self) -> Result<Vec<BlobInfo>, BrokerError> {
        blobs::list(&self.link, &self.names).await
    }

    async fn close(&self) {
        self.link.close().await;
    }
}
