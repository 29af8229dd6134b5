//! A broker that fails as a test asks for it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use crate::watch;
use bytes::Bytes;

use crate::broker::memory::Memory;
use crate::broker::{
    Ack, BlobInfo, Broker, BrokerError, Connection, Consumer, ConsumerInfo, Outgoing, PublishError,
    Pulled, Puller, Store, StoreInfo, Stored, Token, Watch,
};
use crate::protocol::settings::Settings;

/// What happens to a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is not stored, and the answer is lost.
    Lost,
    /// It is stored, and the answer is lost.
    AnswerLost,
    Full,
    /// It is stored after the next reconnect, and the answer is lost.
    Late,
    /// The server does not take it.
    Refused,
}

/// A connection whose operations fail on demand.
#[derive(Debug, Clone)]
pub(crate) struct Breakable {
    inner: Memory,
    state: Rc<State>,
}

#[derive(Debug)]
struct State {
    connection: watch::Sender<Connection>,
    /// For the next publishes to a store, in this order.
    faults: RefCell<Vec<(Store, VecDeque<Fault>)>>,
    late: RefCell<Vec<(Store, Outgoing)>>,
    /// No answer comes although there is a connection.
    is_mute: Cell<bool>,
    /// Outcomes are not delivered.
    withhold: watch::Sender<bool>,
    publishes: Cell<u64>,
    epoch: Cell<u64>,
    /// Publishes of jobs wait.
    blocked: watch::Sender<bool>,
}

impl Breakable {
    pub(crate) fn new(inner: Memory) -> Self {
        let connection = watch::Sender::new(Connection {
            generation: 1,
            connected: true,
            error: None,
        });
        let state = State {
            connection,
            faults: RefCell::default(),
            late: RefCell::default(),
            is_mute: Cell::new(false),
            withhold: watch::Sender::new(false),
            publishes: Cell::new(0),
            epoch: Cell::new(0),
            blocked: watch::Sender::new(false),
        };
        Self {
            inner,
            state: Rc::new(state),
        }
    }

    pub(crate) fn fail(&self, store: Store, faults: &[Fault]) {
        let faults = faults.iter().copied().collect();
        self.state.faults.borrow_mut().push((store, faults));
    }

    pub(crate) fn mute(&self, mute: bool) {
        self.state.is_mute.set(mute);
    }

    /// Keeps outcomes from the consumer.
    pub(crate) fn withhold_outcomes(&self, withhold: bool) {
        self.state.withhold.send_replace(withhold);
    }

    /// Lets publishes of jobs, and blobs, wait.
    pub(crate) fn block_jobs(&self, block: bool) {
        self.state.blocked.send_replace(block);
    }

    pub(crate) fn disconnect(&self) {
        self.state.connection.send_modify(|state| {
            state.connected = false;
            state.error = Some("connection refused".into());
        });
    }

    pub(crate) async fn reconnect(&self) {
        let late = self.state.late.take();
        for (store, message) in late {
            let _ = self.inner.publish(store, message).await;
        }
        self.state.connection.send_modify(|state| {
            state.connected = true;
            state.generation += 1;
            state.error = None;
        });
    }

    /// Lets the store of jobs look as if it had been deleted and made again.
    pub(crate) fn roll_back(&self) {
        self.state.epoch.set(self.state.epoch.get() + 1);
    }

    /// How many jobs were handed over.
    pub(crate) fn job_publishes(&self) -> u64 {
        self.state.publishes.get()
    }

    fn check(&self) -> Result<(), BrokerError> {
        let connected = self.state.connection.borrow().connected;
        match connected && !self.state.is_mute.get() {
            true => Ok(()),
            false => Err(BrokerError::Unreachable("no answer".into())),
        }
    }

    fn next_fault(&self, store: Store) -> Option<Fault> {
        let mut faults = self.state.faults.borrow_mut();
        let mut of_store = faults.iter_mut().filter(|(other, _)| *other == store);
        of_store.find_map(|(_, faults)| faults.pop_front())
    }
}

impl Broker for Breakable {
    type Puller = BreakablePuller;
    type Watch = BreakableWatch;
    type Inbox = <Memory as Broker>::Inbox;

    fn connection(&self) -> watch::Receiver<Connection> {
        self.state.connection.subscribe()
    }

    fn max_payload(&self) -> usize {
        self.inner.max_payload()
    }

    async fn ensure_stores(
        &self,
        wanted: &Settings,
        create: bool,
    ) -> Result<Settings, BrokerError> {
        self.check()?;
        self.inner.ensure_stores(wanted, create).await
    }

    async fn ensure_consumer(&self, consumer: &Consumer) -> Result<(), BrokerError> {
        self.check()?;
        self.inner.ensure_consumer(consumer).await
    }

    async fn delete_consumer(&self, consumer: &Consumer) -> Result<(), BrokerError> {
        self.check()?;
        self.inner.delete_consumer(consumer).await
    }

    async fn consumers(&self) -> Result<Vec<ConsumerInfo>, BrokerError> {
        self.check()?;
        self.inner.consumers().await
    }

    async fn publish(&self, store: Store, message: Outgoing) -> Result<u64, PublishError> {
        if store == Store::Jobs {
            self.state.publishes.set(self.state.publishes.get() + 1);
            let mut blocked = self.state.blocked.subscribe();
            let _ = blocked.wait_for(|blocked| !blocked).await;
        }
        self.check().map_err(PublishError::Other)?;
        let lost = PublishError::Other(BrokerError::Unreachable("no answer".into()));
        match self.next_fault(store) {
            None => self.inner.publish(store, message).await,
            Some(Fault::Lost) => Err(lost),
            Some(Fault::AnswerLost) => {
                self.inner.publish(store, message).await?;
                Err(lost)
            }
            Some(Fault::Late) => {
                self.state.late.borrow_mut().push((store, message));
                Err(lost)
            }
            Some(Fault::Full) => Err(PublishError::Full),
            Some(Fault::Refused) => Err(PublishError::Other(BrokerError::Refused(
                "permissions".into(),
            ))),
        }
    }

    async fn get(&self, store: Store, seq: u64) -> Result<Option<Stored>, BrokerError> {
        self.check()?;
        self.inner.get(store, seq).await
    }

    async fn last(&self, store: Store, subject: &str) -> Result<Option<Stored>, BrokerError> {
        self.check()?;
        self.inner.last(store, subject).await
    }

    async fn next(&self, store: Store, seq: u64) -> Result<Option<Stored>, BrokerError> {
        self.check()?;
        self.inner.next(store, seq).await
    }

    async fn delete(&self, store: Store, seq: u64) -> Result<bool, BrokerError> {
        self.check()?;
        self.inner.delete(store, seq).await
    }

    async fn info(&self, store: Store) -> Result<StoreInfo, BrokerError> {
        self.check()?;
        let mut info = self.inner.info(store).await?;
        info.created.0 += self.state.epoch.get();
        Ok(info)
    }

    async fn ack(&self, token: &Token, ack: Ack) -> Result<(), BrokerError> {
        self.check()?;
        self.inner.ack(token, ack).await
    }

    async fn puller(&self) -> Result<BreakablePuller, BrokerError> {
        self.check()?;
        Ok(BreakablePuller {
            inner: self.inner.puller().await?,
            connection: self.state.connection.subscribe(),
            withhold: self.state.withhold.subscribe(),
        })
    }

    async fn watch(&self, store: Store, all: bool) -> Result<BreakableWatch, BrokerError> {
        self.check()?;
        Ok(BreakableWatch {
            inner: self.inner.watch(store, all).await?,
            connection: self.state.connection.subscribe(),
        })
    }

    async fn inbox(&self, subjects: &[String]) -> Result<Self::Inbox, BrokerError> {
        self.check()?;
        self.inner.inbox(subjects).await
    }

    async fn notify(&self, subject: &str, payload: Bytes) -> Result<(), BrokerError> {
        self.check()?;
        self.inner.notify(subject, payload).await
    }

    async fn notify_reply(&self, reply: &str, payload: Bytes) -> Result<(), BrokerError> {
        self.check()?;
        self.inner.notify_reply(reply, payload).await
    }

    async fn ask(&self, subject: &str, payload: Bytes) -> Result<Option<Bytes>, BrokerError> {
        self.check()?;
        self.inner.ask(subject, payload).await
    }

    async fn put_blob(&self, name: &str, data: Bytes) -> Result<(), BrokerError> {
        let mut blocked = self.state.blocked.subscribe();
        let _ = blocked.wait_for(|blocked| !blocked).await;
        self.check()?;
        self.inner.put_blob(name, data).await
    }

    async fn get_blob(&self, name: &str, max: usize) -> Result<Option<Bytes>, BrokerError> {
        let mut blocked = self.state.blocked.subscribe();
        let _ = blocked.wait_for(|blocked| !blocked).await;
        self.check()?;
        self.inner.get_blob(name, max).await
    }

    async fn delete_blob(&self, name: &str) -> Result<(), BrokerError> {
        self.check()?;
        self.inner.delete_blob(name).await
    }

    async fn blobs(&self) -> Result<Vec<BlobInfo>, BrokerError> {
        self.check()?;
        self.inner.blobs().await
    }

    async fn close(&self) {
        // As over a network, where tests can do something meanwhile.
        tokio::time::sleep(Duration::from_millis(50)).await;
        self.inner.close().await;
    }
}

#[derive(Debug)]
pub(crate) struct BreakablePuller {
    inner: <Memory as Broker>::Puller,
    connection: watch::Receiver<Connection>,
    withhold: watch::Receiver<bool>,
}

impl Puller for BreakablePuller {
    fn request(&mut self, consumer: &Consumer, batch: usize, expires: std::time::Duration) {
        self.inner.request(consumer, batch, expires);
    }

    fn stop(&mut self) {
        self.inner.stop();
    }

    async fn next(&mut self) -> Pulled {
        loop {
            let withhold = *self.withhold.borrow_and_update();
            tokio::select! { biased;
                _ = self.connection.wait_for(|state| !state.connected) => return Pulled::Broken,
                _ = self.withhold.changed() => {}
                pulled = self.inner.next(), if !withhold => return pulled,
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct BreakableWatch {
    inner: <Memory as Broker>::Watch,
    connection: watch::Receiver<Connection>,
}

impl Watch for BreakableWatch {
    async fn next(&mut self) -> Option<Stored> {
        tokio::select! { biased;
            _ = self.connection.wait_for(|state| !state.connected) => None,
            message = self.inner.next() => message,
        }
    }
}
