//! An engine in this process: for tests and examples without a server.
//!
//! ```text
//!   MemoryBroker ── namespace ──► Space (mutex): stores, consumers, receivers
//!        ▲                          ▲
//!        └── Memory (connection) ───┘   one for each submitter and worker, on any runtime
//! ```
//!
//! It has the semantics of a JetStream server, with its weaknesses: late acknowledgements count,
//! ids are remembered for two minutes, notices are lost if nothing listens. Timers are lazy: a
//! receiver that waits computes when the next lease or request ends and sleeps until then.
//!
//! Nothing is woken while the mutex is held, and no other lock is taken under it.

#[cfg(test)]
pub(crate) mod faults;
mod lease;
mod log;
mod space;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::watch;
use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

pub(crate) use self::space::Space;
use self::space::{Link, Next, Wakes};
use crate::broker::{
    Ack, BlobInfo, Broker, BrokerError, Connection, Consumer, ConsumerInfo, Inbox, Notice,
    Outgoing, PublishError, Pulled, Puller, Store, StoreInfo, Stored, Token, Watch,
};
use crate::protocol::settings::Settings;

/// The size of the largest message, as a server has it by default.
const MAX_PAYLOAD: usize = 1 << 20;

/// Runs the tasks of a cluster without a server: submitters and workers of one process share it.
///
/// A clone is the same broker. What it stores lives until the last clone and the last connection
/// are dropped. It keeps everything in memory, and nothing of it survives the process.
///
/// Use it in tests and examples. It does what a NATS server does, except that it never fails.
#[derive(Debug, Clone, Default)]
#[doc(alias("always_eager", "local_mode", "LocalCluster"))]
pub struct MemoryBroker {
    spaces: Arc<Mutex<BTreeMap<String, Arc<Mutex<Space>>>>>,
}

impl MemoryBroker {
    /// Creates a broker that stores nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a connection for a namespace.
    pub(crate) fn connect(&self, namespace: &str) -> Memory {
        Memory::new(self.space(namespace), Link::default())
    }

    fn space(&self, namespace: &str) -> Arc<Mutex<Space>> {
        let mut spaces = lock(&self.spaces);
        let space = spaces
            .entry(namespace.to_owned())
            .or_insert_with(|| Arc::new(Mutex::new(Space::new())));
        Arc::clone(space)
    }
}

/// A connection to a [`MemoryBroker`]. A clone is the same connection.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    space: Arc<Mutex<Space>>,
    link: Link,
    connection: watch::Sender<Connection>,
    /// How long a question waits for its answer. It follows from the namespace's lease.
    request_timeout: Mutex<Duration>,
}

impl Memory {
    fn new(space: Arc<Mutex<Space>>, link: Link) -> Self {
        let (connection, _) = watch::channel(Connection {
            generation: 1,
            connected: true,
            error: None,
        });
        Self {
            shared: Arc::new(Shared {
                space,
                link,
                connection,
                request_timeout: Mutex::new(Settings::default().request_timeout()),
            }),
        }
    }

    /// Runs an operation on the server and returns its answer.
    async fn call<T, F>(&self, operation: F) -> Result<T, BrokerError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Space, Instant, &mut Wakes) -> T + Send + 'static,
    {
        #[cfg(test)]
        if let Some(faults) = &self.shared.link.faults {
            return faults.call(&self.shared, operation).await;
        }
        if !self.shared.connection.borrow().connected {
            return Err(closed());
        }
        Ok(self.shared.apply(operation))
    }

    fn request_timeout(&self) -> Duration {
        *lock(&self.shared.request_timeout)
    }
}

impl Shared {
    /// Runs an operation under the lock, and wakes afterwards.
    fn apply<T>(&self, operation: impl FnOnce(&mut Space, Instant, &mut Wakes) -> T) -> T {
        let mut wakes = Wakes::default();
        let mut space = lock(&self.space);
        let result = operation(&mut space, Instant::now(), &mut wakes);
        // Lock order: waking runs code of the runtime, so no lock may be held.
        drop(space);
        wakes.wake();
        result
    }
}

#[cfg(test)]
impl Shared {
    /// Waits while nothing passes. Returns whether the connection has changed.
    async fn wait_for_link(&self, connection: &mut watch::Receiver<Connection>) -> bool {
        let Some(faults) = self.link.faults.as_ref().filter(|faults| !faults.is_up()) else {
            return false;
        };
        tokio::select! {
            biased;
            _ = connection.changed() => true,
            () = faults.until_up() => true,
        }
    }

    /// Returns whether the server does not notice that a receiver is gone.
    fn is_silent(&self) -> bool {
        let faults = self.link.faults.as_ref();
        faults.is_some_and(|faults| !faults.is_up())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that can panic half-way changes what the mutexes guard.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn closed() -> BrokerError {
    BrokerError::Unreachable("the connection is closed".into())
}

impl Broker for Memory {
    type Puller = MemoryPuller;
    type Watch = MemoryWatch;
    type Inbox = MemoryInbox;

    fn connection(&self) -> watch::Receiver<Connection> {
        self.shared.connection.subscribe()
    }

    fn max_payload(&self) -> usize {
        MAX_PAYLOAD
    }

    async fn ensure_stores(
        &self,
        wanted: &Settings,
        create: bool,
    ) -> Result<Settings, BrokerError> {
        let wanted = wanted.clone();
        let settings = self
            .call(move |space, now, _| space.ensure_stores(&wanted, create, now))
            .await??;
        *lock(&self.shared.request_timeout) = settings.request_timeout();
        Ok(settings)
    }

    async fn ensure_consumer(&self, consumer: &Consumer) -> Result<(), BrokerError> {
        let consumer = consumer.clone();
        self.call(move |space, now, wakes| space.ensure_consumer(&consumer, now, wakes))
            .await?
    }

    async fn delete_consumer(&self, consumer: &Consumer) -> Result<(), BrokerError> {
        let consumer = consumer.clone();
        self.call(move |space, _, wakes| space.delete_consumer(&consumer, wakes))
            .await
    }

    async fn consumers(&self) -> Result<Vec<ConsumerInfo>, BrokerError> {
        self.call(|space, now, _| space.consumers(now)).await?
    }

    async fn publish(&self, store: Store, message: Outgoing) -> Result<u64, PublishError> {
        if log::size(&message) > MAX_PAYLOAD {
            return Err(PublishError::TooLarge);
        }
        self.call(move |space, now, wakes| space.publish(store, message, now, wakes))
            .await
            .map_err(PublishError::Other)?
    }

    async fn get(&self, store: Store, seq: u64) -> Result<Option<Stored>, BrokerError> {
        self.call(move |space, now, _| space.get(store, seq, now))
            .await?
    }

    async fn last(&self, store: Store, subject: &str) -> Result<Option<Stored>, BrokerError> {
        let subject = subject.to_owned();
        self.call(move |space, now, _| space.last(store, &subject, now))
            .await?
    }

    async fn next(&self, store: Store, seq: u64) -> Result<Option<Stored>, BrokerError> {
        self.call(move |space, now, _| space.next(store, seq, now))
            .await?
    }

    async fn delete(&self, store: Store, seq: u64) -> Result<bool, BrokerError> {
        self.call(move |space, now, _| space.delete(store, seq, now))
            .await?
    }

    async fn info(&self, store: Store) -> Result<StoreInfo, BrokerError> {
        self.call(move |space, now, _| space.info(store, now))
            .await?
    }

    async fn ack(&self, token: &Token, ack: Ack) -> Result<(), BrokerError> {
        let token = token.clone();
        self.call(move |space, now, wakes| space.ack(&token, ack, now, wakes))
            .await?
    }

    async fn puller(&self) -> Result<Self::Puller, BrokerError> {
        if !self.shared.connection.borrow().connected {
            return Err(closed());
        }
        let notify = Arc::new(Notify::new());
        let (link, on_message) = (self.shared.link.clone(), Arc::clone(&notify));
        let id = self
            .shared
            .apply(|space, _, _| space.open_puller(link, on_message));
        Ok(MemoryPuller {
            generation: self.shared.connection.borrow().generation,
            connection: self.shared.connection.subscribe(),
            shared: Arc::clone(&self.shared),
            id,
            notify,
        })
    }

    async fn watch(&self, store: Store, all: bool) -> Result<Self::Watch, BrokerError> {
        let notify = Arc::new(Notify::new());
        let on_message = Arc::clone(&notify);
        let generation = self.shared.connection.borrow().generation;
        let id = self
            .call(move |space, now, _| space.open_watch(store, all, on_message, now))
            .await??;
        Ok(MemoryWatch {
            generation,
            connection: self.shared.connection.subscribe(),
            shared: Arc::clone(&self.shared),
            id,
            notify,
            #[cfg(test)]
            delayed: None,
        })
    }

    async fn inbox(&self, subjects: &[String]) -> Result<Self::Inbox, BrokerError> {
        if !self.shared.connection.borrow().connected {
            return Err(closed());
        }
        let notify = Arc::new(Notify::new());
        let (link, on_message) = (self.shared.link.clone(), Arc::clone(&notify));
        let id = self
            .shared
            .apply(|space, _, _| space.open_inbox(link, subjects, on_message));
        Ok(MemoryInbox {
            shared: Arc::clone(&self.shared),
            id,
            notify,
        })
    }

    async fn notify(&self, subject: &str, payload: Bytes) -> Result<(), BrokerError> {
        let notice = Notice {
            subject: subject.to_owned(),
            payload,
            reply: None,
        };
        self.call(move |space, now, wakes| {
            space.notify(&notice, now, wakes);
        })
        .await
    }

    async fn notify_reply(&self, reply: &str, payload: Bytes) -> Result<(), BrokerError> {
        let reply = reply.to_owned();
        self.call(move |space, _, wakes| space.reply(&reply, payload, wakes))
            .await
    }

    async fn ask(&self, subject: &str, payload: Bytes) -> Result<Option<Bytes>, BrokerError> {
        /// Forgets the question, also if the caller gives up.
        struct Question<'a>(&'a Shared, String);

        impl Drop for Question<'_> {
            fn drop(&mut self) {
                // The sender is dropped outside the lock: that wakes its receiver.
                drop(self.0.apply(|space, _, _| space.forget_ask(&self.1)));
            }
        }

        let subject = subject.to_owned();
        let asked = self
            .call(move |space, now, wakes| space.ask(&subject, payload, now, wakes))
            .await?;
        let Some((reply, answer)) = asked else {
            return Ok(None);
        };
        let _question = Question(&self.shared, reply);
        match tokio::time::timeout(self.request_timeout(), answer).await {
            Ok(Ok(answer)) => Ok(Some(answer)),
            _ => Err(BrokerError::Unreachable("no answer came in time".into())),
        }
    }

    async fn put_blob(&self, name: &str, data: Bytes) -> Result<(), BrokerError> {
        let name = name.to_owned();
        self.call(move |space, now, _| space.put_blob(&name, data, now))
            .await
    }

    async fn get_blob(&self, name: &str, max: usize) -> Result<Option<Bytes>, BrokerError> {
        let name = name.to_owned();
        self.call(move |space, _, _| space.get_blob(&name, max))
            .await?
    }

    async fn delete_blob(&self, name: &str) -> Result<(), BrokerError> {
        let name = name.to_owned();
        self.call(move |space, _, _| space.delete_blob(&name)).await
    }

    async fn blobs(&self) -> Result<Vec<BlobInfo>, BrokerError> {
        self.call(|space, _, _| space.blobs()).await
    }

    async fn close(&self) {
        self.shared.connection.send_modify(|connection| {
            connection.generation += 1;
            connection.connected = false;
            connection.error = Some("the connection is closed".into());
        });
    }
}

/// Takes deliveries from a [`Memory`].
#[derive(Debug)]
pub(crate) struct MemoryPuller {
    shared: Arc<Shared>,
    id: u64,
    notify: Arc<Notify>,
    connection: watch::Receiver<Connection>,
    /// The connection on which the requests were made.
    generation: u64,
}

impl Puller for MemoryPuller {
    fn request(&mut self, consumer: &Consumer, batch: usize, expires: Duration) {
        let (id, consumer) = (self.id, consumer.clone());
        let operation = move |space: &mut Space, now: Instant, wakes: &mut Wakes| {
            space.request(id, &consumer, batch, expires, now, wakes);
        };
        #[cfg(test)]
        if let Some(faults) = &self.shared.link.faults {
            return faults.send(&self.shared, operation);
        }
        self.shared.apply(operation);
    }

    fn stop(&mut self) {
        let id = self.id;
        let operation = move |space: &mut Space, now: Instant, wakes: &mut Wakes| {
            space.stop_puller(id, now, wakes);
        };
        #[cfg(test)]
        if let Some(faults) = &self.shared.link.faults {
            return faults.send(&self.shared, operation);
        }
        self.shared.apply(operation);
    }

    async fn next(&mut self) -> Pulled {
        loop {
            if is_broken(&self.connection, self.generation) {
                self.generation = self.connection.borrow().generation;
                let (id, link) = (self.id, self.shared.link.clone());
                let notify = Arc::clone(&self.notify);
                self.id = self.shared.apply(|space, _, _| {
                    space.close_puller(id);
                    space.open_puller(link, notify)
                });
                return Pulled::Broken;
            }
            #[cfg(test)]
            if self.shared.wait_for_link(&mut self.connection).await {
                continue;
            }
            let id = self.id;
            let next = self
                .shared
                .apply(|space, now, wakes| space.poll_puller(id, now, wakes));
            match next {
                Next::Ready(pulled) => return pulled,
                Next::Wait(until) => wait(&self.notify, until, Some(&mut self.connection)).await,
            }
        }
    }
}

impl Drop for MemoryPuller {
    fn drop(&mut self) {
        let id = self.id;
        #[cfg(test)]
        if self.shared.is_silent() {
            return;
        }
        self.shared.apply(|space, _, _| space.close_puller(id));
    }
}

/// Follows a store of a [`Memory`].
#[derive(Debug)]
pub(crate) struct MemoryWatch {
    shared: Arc<Shared>,
    id: u64,
    notify: Arc<Notify>,
    connection: watch::Receiver<Connection>,
    generation: u64,
    /// The next message is under way until then.
    #[cfg(test)]
    delayed: Option<(Instant, Stored)>,
}

impl Watch for MemoryWatch {
    async fn next(&mut self) -> Option<Stored> {
        loop {
            if is_broken(&self.connection, self.generation) {
                return None;
            }
            #[cfg(test)]
            if self.shared.wait_for_link(&mut self.connection).await {
                continue;
            }
            #[cfg(test)]
            if let Some((at, _)) = self.delayed {
                wait(&Notify::new(), Some(at), Some(&mut self.connection)).await;
                if at > Instant::now() {
                    continue;
                }
                return self.delayed.take().map(|(_, stored)| stored);
            }
            let id = self.id;
            let next = self.shared.apply(|space, now, _| space.poll_watch(id, now));
            match next {
                #[cfg(test)]
                Next::Ready(Some(stored)) if let Some(faults) = &self.shared.link.faults => {
                    self.delayed = Some((faults.arrival(Instant::now()), stored));
                }
                Next::Ready(stored) => return stored,
                Next::Wait(until) => wait(&self.notify, until, Some(&mut self.connection)).await,
            }
        }
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        let id = self.id;
        #[cfg(test)]
        if self.shared.is_silent() {
            return;
        }
        self.shared.apply(|space, _, _| space.close_watch(id));
    }
}

/// Receives notices from a [`Memory`].
#[derive(Debug)]
pub(crate) struct MemoryInbox {
    shared: Arc<Shared>,
    id: u64,
    notify: Arc<Notify>,
}

impl Inbox for MemoryInbox {
    async fn next(&mut self) -> Notice {
        loop {
            #[cfg(test)]
            if let Some(faults) = &self.shared.link.faults {
                faults.until_up().await;
            }
            let id = self.id;
            let next = self.shared.apply(|space, now, _| space.poll_inbox(id, now));
            match next {
                Next::Ready(notice) => return notice,
                Next::Wait(until) => wait(&self.notify, until, None).await,
            }
        }
    }
}

impl Drop for MemoryInbox {
    fn drop(&mut self) {
        let id = self.id;
        #[cfg(test)]
        if self.shared.is_silent() {
            return;
        }
        self.shared.apply(|space, _, _| space.close_inbox(id));
    }
}

fn is_broken(connection: &watch::Receiver<Connection>, generation: u64) -> bool {
    connection.borrow().generation != generation
}

/// Waits for a notification, this time, or a change of the connection. Spurious returns happen.
async fn wait(
    notify: &Notify,
    until: Option<Instant>,
    connection: Option<&mut watch::Receiver<Connection>>,
) {
    let timer = async {
        match until {
            Some(until) => tokio::time::sleep_until(until).await,
            None => std::future::pending().await,
        }
    };
    let change = async {
        let changed = match connection {
            Some(connection) => connection.changed().await.is_ok(),
            None => false,
        };
        if !changed {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        biased;
        () = notify.notified() => {}
        () = change => {}
        () = timer => {}
    }
}
