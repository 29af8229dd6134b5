//! What the protocol needs of an engine: stores of messages, leases, notices and blobs.
//!
//! ```text
//!   submitter ─┐                    ┌─► nats: a JetStream server
//!              ├─► Broker (trait) ──┤
//!   worker ────┘                    └─► memory: in this process, with faults for tests
//! ```
//!
//! The trait has the engine's operations and none of the protocol's. Both implementations pass the
//! same conformance tests, so that what the model proves on the one holds on the other.

#[cfg(test)]
mod conformance;
pub(crate) mod memory;
pub(crate) mod nats;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::protocol::settings::Settings;

/// The stores of a namespace. Each is one stream of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Store {
    /// Jobs that wait or run: `queue.task.version`. A work queue; refuses when full.
    Jobs,
    /// Outcomes for submitters, one subject for each submitter. A work queue.
    Results,
    /// Which worker runs a default job, or that it must never run: one key for each job.
    Claims,
    /// Which workers and submitters live: keys that the server forgets.
    Live,
    /// Detached jobs and their outcomes: one key for each.
    Kept,
}

/// Headers, as text. Values contain no line breaks.
pub(crate) type Headers = Vec<(String, String)>;

/// A message for a store.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outgoing {
    /// The subject in its store, without the store's prefix: tokens joined by dots.
    pub(crate) subject: String,
    pub(crate) headers: Headers,
    pub(crate) payload: Bytes,
    /// The sequence of the last message of this subject must be this one; 0: there is none.
    pub(crate) expect: Option<u64>,
    /// The server ignores a second message of the same id for some time, and answers with the
    /// sequence of the first.
    pub(crate) id: Option<String>,
}

/// Nanoseconds since the epoch, of the server's clock. Never compared with a clock of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct ServerTime(pub(crate) u64);

/// A message in a store.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) subject: String,
    pub(crate) seq: u64,
    pub(crate) time: ServerTime,
    pub(crate) headers: Headers,
    pub(crate) payload: Bytes,
}

impl Stored {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Returns whether the message is the mark of a deleted key.
    pub(crate) fn is_deletion(&self) -> bool {
        self.header(OPERATION).is_some()
    }
}

/// The header by which a key is deleted. A message with it has no payload.
pub(crate) const OPERATION: &str = "KV-Operation";

/// The state of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoreInfo {
    /// When the store was made: it tells a store from one that was deleted and made again.
    pub(crate) created: ServerTime,
    /// The sequence of the first message. `last + 1` if there is none.
    pub(crate) first: u64,
    /// The sequence that was given last.
    pub(crate) last: u64,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

/// The consumer that hands out the jobs of one queue, task and version, or a submitter's outcomes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Consumer {
    /// The subject in [`Store::Jobs`].
    Jobs(Arc<str>),
    /// The submitter, which is the subject in [`Store::Results`].
    Results(Arc<str>),
}

impl Consumer {
    pub(crate) fn subject(&self) -> &str {
        match self {
            Self::Jobs(subject) | Self::Results(subject) => subject,
        }
    }
}

/// What is known of a consumer.
#[derive(Debug, Clone)]
pub(crate) struct ConsumerInfo {
    pub(crate) consumer: Consumer,
    /// Messages that were never delivered.
    pub(crate) waiting: u64,
    /// Messages that are delivered and not acknowledged.
    pub(crate) delivered: u64,
    /// Requests for messages that wait: 0 if nothing pulls.
    pub(crate) pulls: u64,
}

/// A message that a consumer has delivered under a lease.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    pub(crate) consumer: Consumer,
    pub(crate) message: Stored,
    /// How often the message was delivered, this time included.
    pub(crate) count: u64,
    pub(crate) token: Token,
}

/// Names a delivery to the server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Token(pub(crate) Arc<str>);

/// What a holder says of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ack {
    /// The message is done: it leaves its store. The call returns when the server has confirmed it.
    Done,
    /// The message is done, as for `Done`. Not confirmed: if this is lost, the message comes again.
    Seen,
    /// The lease begins anew. Not confirmed.
    Extend,
    /// Deliver it again after this time. Not confirmed.
    Back(Duration),
}

/// What comes out of a [`Puller`].
#[derive(Debug, Clone)]
pub(crate) enum Pulled {
    Delivery(Delivery),
    /// A request has ended, by its time or because it is filled: `wanted` messages did not come.
    Ended {
        consumer: Consumer,
        wanted: usize,
    },
    /// The consumer is gone: [`Broker::ensure_consumer`] makes it anew. Its requests have ended.
    Gone(Consumer),
    /// The connection broke: all requests have ended.
    Broken,
}

/// Takes deliveries of consumers. Dropping it gives nothing back: leases run out.
pub(crate) trait Puller {
    /// Asks for up to `batch` messages. The request ends by itself after `expires`. Never waits.
    fn request(&mut self, consumer: &Consumer, batch: usize, expires: Duration);

    /// Ends all requests. What is under way still comes, then [`Pulled::Ended`] for each request.
    fn stop(&mut self) {}

    /// Returns what comes next. Waits for ever if nothing is requested. Cancel safe.
    async fn next(&mut self) -> Pulled;
}

/// Follows the keys of a store: first the last message of each subject, then each new message.
pub(crate) trait Watch {
    /// Returns the next message. `None`: messages may have been missed, so open another watch.
    /// Cancel safe.
    async fn next(&mut self) -> Option<Stored>;
}

/// A notice on a subject that nothing stores.
#[derive(Debug, Clone)]
pub(crate) struct Notice {
    pub(crate) subject: String,
    pub(crate) payload: Bytes,
    /// Where the sender waits for an answer: a subject for [`Broker::notify_reply`].
    pub(crate) reply: Option<String>,
}

/// Receives notices. They can be lost: at a reconnect, or if the receiver is slow.
pub(crate) trait Inbox {
    /// Returns the next notice. Waits for ever once the connection is closed. Cancel safe.
    async fn next(&mut self) -> Notice;
}

/// Whether the server can be reached. A change of `generation` means that another connection was
/// made, so that whatever was in flight may be lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Connection {
    pub(crate) generation: u64,
    pub(crate) connected: bool,
    /// The last error, if it is known.
    pub(crate) error: Option<Arc<str>>,
}

/// Why an operation failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BrokerError {
    /// The connection is not there, or broke, or no answer came in time: whether the operation
    /// took place is unknown. Trying again makes sense.
    Unreachable(Arc<str>),
    /// The store or consumer does not exist.
    Missing(Arc<str>),
    /// The server refuses: permissions, or a request that it does not understand.
    Refused(Arc<str>),
}

impl fmt::Display for BrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Unreachable(text) | Self::Missing(text) | Self::Refused(text)) = self;
        f.write_str(text)
    }
}

/// Why a message was not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PublishError {
    /// The store is full. Certainly not stored.
    Full,
    /// `expect` does not hold. Certainly not stored.
    Conflict,
    /// It is larger than [`Broker::max_payload`]. Certainly not stored.
    TooLarge,
    /// Certainly not stored if it is `Missing` or `Refused`; unknown if it is `Unreachable`.
    Other(BrokerError),
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the store is full"),
            Self::Conflict => f.write_str("another message came first"),
            Self::TooLarge => f.write_str("the message is larger than the server takes"),
            Self::Other(error) => error.fmt(f),
        }
    }
}

/// A blob, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BlobInfo {
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) time: ServerTime,
}

/// A connection to an engine, for one namespace. A clone is the same connection.
///
/// All methods may be called at any time, and concurrently. Each returns within a bounded time
/// ([`Settings::request_timeout`]), except those that say otherwise. Dropping a future at any point
/// is safe, and leaves open whether the operation takes place.
pub(crate) trait Broker: Clone + 'static {
    type Puller: Puller;
    type Watch: Watch;
    type Inbox: Inbox;

    /// Returns the state of the connection, and waits for changes of it.
    fn connection(&self) -> crate::watch::Receiver<Connection>;

    /// Returns the size of the largest message, headers included, that the server takes.
    fn max_payload(&self) -> usize;

    /// Makes the stores that are missing, if `create`, and returns the namespace's settings: those
    /// of its first maker, which may differ from `wanted`.
    async fn ensure_stores(&self, wanted: &Settings, create: bool)
    -> Result<Settings, BrokerError>;

    /// Makes the consumer if it is missing. A consumer that is ahead of its store, because the
    /// store was rolled back, is made anew.
    async fn ensure_consumer(&self, consumer: &Consumer) -> Result<(), BrokerError>;

    /// Removes a consumer.
    async fn delete_consumer(&self, consumer: &Consumer) -> Result<(), BrokerError>;

    /// Lists the consumers of [`Store::Jobs`].
    async fn consumers(&self) -> Result<Vec<ConsumerInfo>, BrokerError>;

    /// Stores a message and returns its sequence, once the server has confirmed it.
    async fn publish(&self, store: Store, message: Outgoing) -> Result<u64, PublishError>;

    /// Returns the message with this sequence. Asks the leader: never an older state.
    async fn get(&self, store: Store, seq: u64) -> Result<Option<Stored>, BrokerError>;

    /// Returns the last message of this subject. Asks the leader.
    async fn last(&self, store: Store, subject: &str) -> Result<Option<Stored>, BrokerError>;

    /// Returns the first message from `seq` on, of any subject.
    async fn next(&self, store: Store, seq: u64) -> Result<Option<Stored>, BrokerError>;

    /// Returns the first message of this subject from `seq` on.
    ///
    /// A broker that cannot ask for it walks from message to message, but not far: it may find none
    /// although there is one. Only what is shown to people rests on it.
    #[cfg_attr(not(feature = "cli"), allow(dead_code))]
    async fn next_of(
        &self,
        store: Store,
        subject: &str,
        seq: u64,
    ) -> Result<Option<Stored>, BrokerError> {
        let mut seq = seq;
        for _ in 0..64 {
            match self.next(store, seq).await? {
                Some(message) if message.subject == subject => return Ok(Some(message)),
                Some(message) => seq = message.seq + 1,
                None => break,
            }
        }
        Ok(None)
    }

    /// Removes a message. Returns `false` if it was not there. It is gone when this returns.
    async fn delete(&self, store: Store, seq: u64) -> Result<bool, BrokerError>;

    /// Returns the state of a store.
    async fn info(&self, store: Store) -> Result<StoreInfo, BrokerError>;

    /// Acknowledges a delivery.
    async fn ack(&self, token: &Token, ack: Ack) -> Result<(), BrokerError>;

    /// Opens a source of deliveries.
    async fn puller(&self) -> Result<Self::Puller, BrokerError>;

    /// Follows a store of keys. `all`: the last message of each subject comes first.
    async fn watch(&self, store: Store, all: bool) -> Result<Self::Watch, BrokerError>;

    /// Receives notices on these subjects.
    async fn inbox(&self, subjects: &[String]) -> Result<Self::Inbox, BrokerError>;

    /// Sends a notice. It can be lost.
    async fn notify(&self, subject: &str, payload: Bytes) -> Result<(), BrokerError>;

    /// Answers a notice that has a `reply`.
    async fn notify_reply(&self, reply: &str, payload: Bytes) -> Result<(), BrokerError>;

    /// Sends a notice and waits for the answer. `None`: nothing listens there.
    async fn ask(&self, subject: &str, payload: Bytes) -> Result<Option<Bytes>, BrokerError>;

    /// Stores a blob. May take as long as it makes progress.
    async fn put_blob(&self, name: &str, data: Bytes) -> Result<(), BrokerError>;

    /// Returns a blob. May take as long as it makes progress. A blob larger than `max` is `Refused`.
    async fn get_blob(&self, name: &str, max: usize) -> Result<Option<Bytes>, BrokerError>;

    /// Removes a blob, if it is there.
    async fn delete_blob(&self, name: &str) -> Result<(), BrokerError>;

    /// Lists all blobs.
    async fn blobs(&self) -> Result<Vec<BlobInfo>, BrokerError>;

    /// Sends what is buffered, then closes the connection.
    async fn close(&self);
}
