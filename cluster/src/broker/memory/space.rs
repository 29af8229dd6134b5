//! A namespace: its stores, its consumers, and what each receiver waits for.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::lease::{Leases, Pull};
use super::log::{Limits, Log};
use crate::broker::{
    Ack, BlobInfo, BrokerError, Consumer, ConsumerInfo, Delivery, Notice, Outgoing, PublishError,
    Pulled, ServerTime, Store, StoreInfo, Stored, Token,
};
use crate::protocol::settings::Settings;

/// A receiver that holds so many notices loses the next ones.
const INBOX_NOTICES: usize = 1 << 16;

/// How long outcomes wait for their submitter.
const RESULTS_AGE: Duration = Duration::from_secs(3600);

pub(super) const STORES: [Store; 5] = [
    Store::Jobs,
    Store::Results,
    Store::Claims,
    Store::Live,
    Store::Kept,
];

/// Whom to wake once the lock is released.
#[derive(Debug, Default)]
pub(super) struct Wakes {
    notifies: Vec<Arc<Notify>>,
    /// Answers of [`Space::reply`].
    answers: Vec<(oneshot::Sender<Bytes>, Bytes)>,
}

impl Wakes {
    pub(super) fn add(&mut self, notify: &Arc<Notify>) {
        self.notifies.push(Arc::clone(notify));
    }

    /// Wakes them. The caller must hold no lock.
    pub(super) fn wake(self) {
        for notify in self.notifies {
            // It stores a permit, so a waiter that is about to sleep does not miss it.
            notify.notify_one();
        }
        for (sender, answer) in self.answers {
            // The caller of `ask` has given up if this fails.
            let _ = sender.send(answer);
        }
    }
}

/// How deliveries reach a receiver. Without faults: at once.
#[derive(Debug, Clone, Default)]
pub(super) struct Link {
    #[cfg(test)]
    pub(super) faults: Option<super::faults::Faults>,
}

impl Link {
    #[cfg(test)]
    fn name(&self) -> &str {
        self.faults.as_ref().map_or("", |faults| faults.name())
    }

    /// Returns when each copy of a delivery arrives. None: it is lost.
    fn arrivals(&self, now: Instant, kind: Kind) -> Arrivals {
        #[cfg(test)]
        if let Some(faults) = &self.faults {
            return faults.arrivals(now, kind);
        }
        let _ = kind;
        [Some(now), None]
    }
}

/// What is under way to a receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Delivery,
    Notice,
}

pub(super) type Arrivals = [Option<Instant>; 2];

#[derive(Debug)]
struct PullerState {
    link: Link,
    notify: Arc<Notify>,
    mailbox: VecDeque<(Instant, Pulled)>,
    /// How many of its requests wait at each consumer.
    requests: BTreeMap<Consumer, usize>,
    /// Until when its owner sleeps. `None`: for ever, or it does not wait at all.
    sleeps_until: Option<Instant>,
}

#[derive(Debug)]
struct InboxState {
    link: Link,
    subjects: Vec<String>,
    notify: Arc<Notify>,
    notices: VecDeque<(Instant, Notice)>,
}

#[derive(Debug)]
struct WatchState {
    store: Store,
    incarnation: u64,
    /// The sequence from which on messages are to come.
    next: u64,
    notify: Arc<Notify>,
    is_ended: bool,
}

#[derive(Debug)]
struct Blob {
    data: Bytes,
    time: ServerTime,
}

/// What a receiver finds.
#[derive(Debug)]
pub(super) enum Next<T> {
    Ready(T),
    /// Nothing yet. Something may happen at this time, or after a notification.
    Wait(Option<Instant>),
}

/// Everything about a namespace, behind its mutex.
#[derive(Debug)]
pub(crate) struct Space {
    start: Instant,
    epoch: u64,
    settings: Option<Settings>,
    stores: BTreeMap<Store, Log>,
    jobs: BTreeMap<Arc<str>, Leases>,
    results: BTreeMap<Arc<str>, Leases>,
    blobs: BTreeMap<String, Blob>,
    pullers: BTreeMap<u64, PullerState>,
    inboxes: BTreeMap<u64, InboxState>,
    watches: BTreeMap<u64, WatchState>,
    asks: BTreeMap<String, oneshot::Sender<Bytes>>,
    next_id: u64,
}

impl Space {
    pub(super) fn new() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        let since_epoch = since_epoch.unwrap_or_default().as_nanos();
        Self {
            start: Instant::now(),
            epoch: u64::try_from(since_epoch).unwrap_or(u64::MAX / 2),
            settings: None,
            stores: BTreeMap::new(),
            jobs: BTreeMap::new(),
            results: BTreeMap::new(),
            blobs: BTreeMap::new(),
            pullers: BTreeMap::new(),
            inboxes: BTreeMap::new(),
            watches: BTreeMap::new(),
            asks: BTreeMap::new(),
            next_id: 0,
        }
    }

    fn time(&self, now: Instant) -> ServerTime {
        let passed = now.saturating_duration_since(self.start).as_nanos();
        ServerTime(self.epoch + u64::try_from(passed).unwrap_or(u64::MAX / 2))
    }

    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    // Stores

    pub(super) fn ensure_stores(
        &mut self,
        wanted: &Settings,
        create: bool,
        now: Instant,
    ) -> Result<Settings, BrokerError> {
        let is_complete = STORES.iter().all(|store| self.stores.contains_key(store));
        if !create && !is_complete {
            return Err(BrokerError::Missing("the namespace does not exist".into()));
        }
        // The settings are a property of the store of jobs.
        if !self.stores.contains_key(&Store::Jobs) {
            self.settings = None;
        }
        let settings = self.settings.get_or_insert_with(|| wanted.clone()).clone();
        for store in STORES {
            if self.stores.contains_key(&store) {
                continue;
            }
            let limits = Limits {
                bytes: (store == Store::Jobs).then_some(settings.queue_bytes),
                age: match store {
                    Store::Live => Some(settings.live_ttl()),
                    Store::Results => Some(RESULTS_AGE),
                    Store::Jobs | Store::Claims | Store::Kept => None,
                },
                one_each: !matches!(store, Store::Jobs | Store::Results),
            };
            let incarnation = self.new_id();
            let log = Log::new(limits, self.time(now), incarnation);
            self.stores.insert(store, log);
        }
        Ok(settings)
    }

    fn log(&mut self, store: Store, now: Instant) -> Result<&mut Log, BrokerError> {
        let log = self.stores.get_mut(&store).ok_or_else(|| missing(store))?;
        log.expire(now);
        Ok(log)
    }

    pub(super) fn publish(
        &mut self,
        store: Store,
        message: Outgoing,
        now: Instant,
        wakes: &mut Wakes,
    ) -> Result<u64, PublishError> {
        let time = self.time(now);
        let log = self.log(store, now).map_err(PublishError::Other)?;
        let subject = message.subject.clone();
        #[cfg(test)]
        let line = super::faults::describe(&message);
        let published = log.publish(message, time, now);
        #[cfg(test)]
        super::faults::trace(format_args!("publish {store:?} {line}: {published:?}"));
        let (seq, is_new) = published?;
        if is_new {
            for watch in self.watches.values() {
                if watch.store == store {
                    wakes.add(&watch.notify);
                }
            }
            self.pump_subject(store, &subject, now, wakes);
        }
        Ok(seq)
    }

    pub(super) fn get(
        &mut self,
        store: Store,
        seq: u64,
        now: Instant,
    ) -> Result<Option<Stored>, BrokerError> {
        Ok(self
            .log(store, now)?
            .get(seq)
            .map(|stored| Stored::clone(stored)))
    }

    pub(super) fn last(
        &mut self,
        store: Store,
        subject: &str,
        now: Instant,
    ) -> Result<Option<Stored>, BrokerError> {
        let log = self.log(store, now)?;
        Ok(log.last_of(subject).map(|stored| Stored::clone(stored)))
    }

    pub(super) fn next(
        &mut self,
        store: Store,
        seq: u64,
        now: Instant,
    ) -> Result<Option<Stored>, BrokerError> {
        Ok(self
            .log(store, now)?
            .next(seq)
            .map(|stored| Stored::clone(stored)))
    }

    pub(super) fn delete(
        &mut self,
        store: Store,
        seq: u64,
        now: Instant,
    ) -> Result<bool, BrokerError> {
        let log = self.log(store, now)?;
        let found = log.get(seq).cloned();
        #[cfg(test)]
        super::faults::trace(format_args!("delete {store:?} {seq}: {}", found.is_some()));
        let Some(stored) = found else {
            return Ok(false);
        };
        log.remove(seq);
        if let Some(leases) = self
            .consumers_of(store)
            .and_then(|map| map.get_mut(&*stored.subject))
        {
            leases.removed(seq);
        }
        Ok(true)
    }

    pub(super) fn info(&mut self, store: Store, now: Instant) -> Result<StoreInfo, BrokerError> {
        Ok(self.log(store, now)?.info())
    }

    // Consumers

    fn consumers_of(&mut self, store: Store) -> Option<&mut BTreeMap<Arc<str>, Leases>> {
        match store {
            Store::Jobs => Some(&mut self.jobs),
            Store::Results => Some(&mut self.results),
            Store::Claims | Store::Live | Store::Kept => None,
        }
    }

    pub(super) fn ensure_consumer(
        &mut self,
        consumer: &Consumer,
        now: Instant,
        wakes: &mut Wakes,
    ) -> Result<(), BrokerError> {
        let store = store_of(consumer);
        self.log(store, now)?;
        let lease = self
            .settings
            .as_ref()
            .map_or(Duration::ZERO, |settings| settings.lease);
        let (consumers, log) = match store {
            Store::Jobs => (&mut self.jobs, &self.stores[&Store::Jobs]),
            _ => (&mut self.results, &self.stores[&Store::Results]),
        };
        let is_ahead = |leases: &Leases| leases.is_ahead_of(log);
        match consumers.get(consumer.subject()).map(is_ahead) {
            Some(false) => return Ok(()),
            Some(true) => self.delete_consumer(consumer, wakes),
            None => {}
        }
        let subject = match consumer {
            Consumer::Jobs(subject) | Consumer::Results(subject) => subject,
        };
        let leases = Leases::new(subject, lease);
        if let Some(consumers) = self.consumers_of(store) {
            consumers.insert(Arc::clone(subject), leases);
        }
        Ok(())
    }

    pub(super) fn delete_consumer(&mut self, consumer: &Consumer, wakes: &mut Wakes) {
        let consumers = self.consumers_of(store_of(consumer));
        let leases = consumers.and_then(|map| map.remove(consumer.subject()));
        let now = Instant::now();
        for pull in leases
            .map(|mut leases| leases.take_pulls())
            .unwrap_or_default()
        {
            self.gone(pull.puller, consumer, now, wakes);
        }
    }

    /// Tells a puller that a consumer is gone: once, whatever it has requested.
    fn gone(&mut self, puller: u64, consumer: &Consumer, now: Instant, wakes: &mut Wakes) {
        if let Some(puller) = self.pullers.get_mut(&puller)
            && puller.requests.remove(consumer).is_some()
        {
            puller
                .mailbox
                .push_back((now, Pulled::Gone(consumer.clone())));
            wakes.add(&puller.notify);
        }
    }

    pub(super) fn consumers(&mut self, now: Instant) -> Result<Vec<ConsumerInfo>, BrokerError> {
        self.log(Store::Jobs, now)?;
        let log = &self.stores[&Store::Jobs];
        let info = |(subject, leases): (&Arc<str>, &Leases)| {
            let (waiting, delivered, pulls) = leases.counts(log);
            ConsumerInfo {
                consumer: Consumer::Jobs(Arc::clone(subject)),
                waiting,
                delivered,
                pulls,
            }
        };
        Ok(self.jobs.iter().map(info).collect())
    }

    /// Hands out what the consumer of this subject can hand out.
    fn pump_subject(&mut self, store: Store, subject: &str, now: Instant, wakes: &mut Wakes) {
        let key = match self.consumers_of(store) {
            Some(consumers) => consumers
                .get_key_value(subject)
                .map(|(key, _)| Arc::clone(key)),
            None => None,
        };
        match (key, store) {
            (Some(key), Store::Jobs) => self.pump(&Consumer::Jobs(key), now, wakes),
            (Some(key), _) => self.pump(&Consumer::Results(key), now, wakes),
            (None, _) => {}
        }
    }

    /// Ends requests whose time is over, hands out what can be handed out, and wakes those that
    /// now sleep too long.
    fn pump(&mut self, consumer: &Consumer, now: Instant, wakes: &mut Wakes) {
        let (consumers, store) = match consumer {
            Consumer::Jobs(_) => (&mut self.jobs, Store::Jobs),
            Consumer::Results(_) => (&mut self.results, Store::Results),
        };
        let Some(leases) = consumers.get_mut(consumer.subject()) else {
            return;
        };
        let Some(log) = self.stores.get_mut(&store) else {
            return;
        };
        log.expire(now);
        for pull in leases.ended_pulls(now) {
            if let Some(puller) = self.pullers.get_mut(&pull.puller) {
                puller.ended(consumer, pull.wanted, now, wakes);
            }
        }
        while let Some(handout) = leases.hand_out(log, now) {
            let Some(puller) = self.pullers.get_mut(&handout.puller) else {
                continue;
            };
            let Some(message) = log.get(handout.seq) else {
                continue;
            };
            let delivery = Delivery {
                consumer: consumer.clone(),
                message: Stored::clone(message),
                count: handout.count,
                token: token(consumer, handout.seq, handout.count),
            };
            for at in puller
                .link
                .arrivals(now, Kind::Delivery)
                .into_iter()
                .flatten()
            {
                let pulled = Pulled::Delivery(delivery.clone());
                puller.mailbox.push_back((at, pulled));
            }
            wakes.add(&puller.notify);
            #[cfg(test)]
            super::faults::trace(format_args!(
                "hand out {} to {}",
                delivery.token.0,
                puller.link.name()
            ));
            if handout.is_last {
                puller.ended(consumer, 0, now, wakes);
            }
        }
        // Each of those that wait here looks after the leases of all.
        let Some(event) = leases.next_event() else {
            return;
        };
        for puller in self.pullers.values() {
            let sleeps_longer = puller.sleeps_until.is_none_or(|until| until > event);
            if sleeps_longer && puller.requests.contains_key(consumer) {
                wakes.add(&puller.notify);
            }
        }
    }

    pub(super) fn ack(
        &mut self,
        token: &Token,
        ack: Ack,
        now: Instant,
        wakes: &mut Wakes,
    ) -> Result<(), BrokerError> {
        let refused = || BrokerError::Refused("not a token".into());
        let (consumer, seq) = parse_token(token).ok_or_else(refused)?;
        let store = store_of(&consumer);
        #[cfg(test)]
        super::faults::trace(format_args!("ack {} {ack:?}", token.0));
        let leases = self
            .consumers_of(store)
            .and_then(|map| map.get_mut(consumer.subject()))
            .ok_or_else(|| BrokerError::Missing("the consumer does not exist".into()))?;
        match ack {
            Ack::Done | Ack::Seen => {
                leases.removed(seq);
                // Whatever message has this sequence now, as on the server.
                self.log(store, now)?.remove(seq);
            }
            Ack::Extend => leases.extend(seq, now),
            Ack::Back(delay) => {
                leases.give_back(seq, delay, now);
                self.pump(&consumer, now, wakes);
            }
        }
        Ok(())
    }

    // Receivers

    pub(super) fn open_puller(&mut self, link: Link, notify: Arc<Notify>) -> u64 {
        let id = self.new_id();
        let puller = PullerState {
            link,
            notify,
            mailbox: VecDeque::new(),
            requests: BTreeMap::new(),
            sleeps_until: None,
        };
        self.pullers.insert(id, puller);
        id
    }

    pub(super) fn close_puller(&mut self, id: u64) {
        self.drop_requests(id);
        self.pullers.remove(&id);
    }

    /// Removes the requests of a puller without a word.
    fn drop_requests(&mut self, id: u64) {
        let Some(puller) = self.pullers.get_mut(&id) else {
            return;
        };
        for consumer in std::mem::take(&mut puller.requests).into_keys() {
            let consumers = match consumer {
                Consumer::Jobs(_) => &mut self.jobs,
                Consumer::Results(_) => &mut self.results,
            };
            if let Some(leases) = consumers.get_mut(consumer.subject()) {
                leases.take_pulls_of(id);
            }
        }
    }

    /// Ends the requests of a puller, after what is under way to it.
    pub(super) fn stop_puller(&mut self, id: u64, now: Instant, wakes: &mut Wakes) {
        let Some(puller) = self.pullers.get_mut(&id) else {
            return;
        };
        for consumer in puller.requests.keys().cloned().collect::<Vec<_>>() {
            let consumers = match consumer {
                Consumer::Jobs(_) => &mut self.jobs,
                Consumer::Results(_) => &mut self.results,
            };
            if let Some(leases) = consumers.get_mut(consumer.subject()) {
                for pull in leases.take_pulls_of(id) {
                    puller.ended(&consumer, pull.wanted, now, wakes);
                }
            }
        }
    }

    pub(super) fn request(
        &mut self,
        puller: u64,
        consumer: &Consumer,
        batch: usize,
        expires: Duration,
        now: Instant,
        wakes: &mut Wakes,
    ) {
        let Some(state) = self.pullers.get_mut(&puller) else {
            return;
        };
        if batch == 0 {
            let ended = Pulled::Ended {
                consumer: consumer.clone(),
                wanted: 0,
            };
            state.mailbox.push_back((now, ended));
            wakes.add(&state.notify);
            return;
        }
        *state.requests.entry(consumer.clone()).or_default() += 1;
        let consumers = match consumer {
            Consumer::Jobs(_) => &mut self.jobs,
            Consumer::Results(_) => &mut self.results,
        };
        let Some(leases) = consumers.get_mut(consumer.subject()) else {
            self.gone(puller, consumer, now, wakes);
            return;
        };
        leases.pull(Pull {
            puller,
            wanted: batch,
            expires: now + expires,
        });
        self.pump(consumer, now, wakes);
        // Its owner may have begun to wait before this request.
        if let Some(state) = self.pullers.get(&puller) {
            wakes.add(&state.notify);
        }
    }

    /// Returns what comes next to a puller.
    pub(super) fn poll_puller(&mut self, id: u64, now: Instant, wakes: &mut Wakes) -> Next<Pulled> {
        let Some(puller) = self.pullers.get(&id) else {
            return Next::Wait(None);
        };
        // It does not sleep now, so it needs no wake-up.
        let consumers: Vec<_> = puller.requests.keys().cloned().collect();
        for consumer in &consumers {
            self.pump(consumer, now, wakes);
        }
        let events = consumers.iter().filter_map(|consumer| {
            let consumers = match consumer {
                Consumer::Jobs(_) => &self.jobs,
                Consumer::Results(_) => &self.results,
            };
            consumers.get(consumer.subject())?.next_event()
        });
        let event = events.min();
        let Some(puller) = self.pullers.get_mut(&id) else {
            return Next::Wait(None);
        };
        match take_arrived(&mut puller.mailbox, now) {
            Next::Ready(pulled) => Next::Ready(pulled),
            Next::Wait(arrival) => {
                let until = earliest(arrival, event);
                puller.sleeps_until = until;
                Next::Wait(until)
            }
        }
    }

    pub(super) fn open_inbox(
        &mut self,
        link: Link,
        subjects: &[String],
        notify: Arc<Notify>,
    ) -> u64 {
        let id = self.new_id();
        let inbox = InboxState {
            link,
            subjects: subjects.to_vec(),
            notify,
            notices: VecDeque::new(),
        };
        self.inboxes.insert(id, inbox);
        id
    }

    pub(super) fn close_inbox(&mut self, id: u64) {
        self.inboxes.remove(&id);
    }

    pub(super) fn poll_inbox(&mut self, id: u64, now: Instant) -> Next<Notice> {
        match self.inboxes.get_mut(&id) {
            Some(inbox) => take_arrived(&mut inbox.notices, now),
            None => Next::Wait(None),
        }
    }

    /// Sends a notice. Returns whether anything listens.
    pub(super) fn notify(&mut self, notice: &Notice, now: Instant, wakes: &mut Wakes) -> bool {
        let mut is_heard = false;
        for inbox in self.inboxes.values_mut() {
            if !inbox.subjects.contains(&notice.subject) {
                continue;
            }
            is_heard = true;
            for at in inbox.link.arrivals(now, Kind::Notice).into_iter().flatten() {
                if inbox.notices.len() < INBOX_NOTICES {
                    inbox.notices.push_back((at, notice.clone()));
                    wakes.add(&inbox.notify);
                }
            }
        }
        is_heard
    }

    /// Sends a notice that can be answered. `None`: nothing listens.
    pub(super) fn ask(
        &mut self,
        subject: &str,
        payload: Bytes,
        now: Instant,
        wakes: &mut Wakes,
    ) -> Option<(String, oneshot::Receiver<Bytes>)> {
        let reply = format!("reply.{}", self.new_id());
        let notice = Notice {
            subject: subject.to_owned(),
            payload,
            reply: Some(reply.clone()),
        };
        if !self.notify(&notice, now, wakes) {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        self.asks.insert(reply.clone(), sender);
        Some((reply, receiver))
    }

    /// Answers a notice.
    pub(super) fn reply(&mut self, reply: &str, payload: Bytes, wakes: &mut Wakes) {
        if let Some(sender) = self.asks.remove(reply) {
            wakes.answers.push((sender, payload));
        }
    }

    /// Forgets a question whose answer is no longer awaited.
    pub(super) fn forget_ask(&mut self, reply: &str) -> Option<oneshot::Sender<Bytes>> {
        self.asks.remove(reply)
    }

    pub(super) fn open_watch(
        &mut self,
        store: Store,
        all: bool,
        notify: Arc<Notify>,
        now: Instant,
    ) -> Result<u64, BrokerError> {
        let log = self.log(store, now)?;
        let (incarnation, next) = (log.incarnation, if all { 0 } else { log.last() + 1 });
        let id = self.new_id();
        let watch = WatchState {
            store,
            incarnation,
            next,
            notify,
            is_ended: false,
        };
        self.watches.insert(id, watch);
        Ok(id)
    }

    pub(super) fn close_watch(&mut self, id: u64) {
        self.watches.remove(&id);
    }

    /// Returns the next message of a watch and when it was stored. `None`: the watch has ended.
    pub(super) fn poll_watch(&mut self, id: u64, now: Instant) -> Next<Option<Stored>> {
        let Some(watch) = self.watches.get_mut(&id) else {
            return Next::Ready(None);
        };
        let log = self.stores.get_mut(&watch.store);
        let Some(log) = log.filter(|log| log.incarnation == watch.incarnation && !watch.is_ended)
        else {
            return Next::Ready(None);
        };
        log.expire(now);
        match log.next(watch.next) {
            Some(stored) => {
                watch.next = stored.seq + 1;
                Next::Ready(Some(Stored::clone(stored)))
            }
            None => Next::Wait(None),
        }
    }

    /// Returns whether no question waits for its answer.
    #[cfg(test)]
    pub(super) fn is_quiet(&self) -> bool {
        self.asks.is_empty()
    }

    // Blobs

    pub(super) fn put_blob(&mut self, name: &str, data: Bytes, now: Instant) {
        let time = self.time(now);
        self.blobs.insert(name.to_owned(), Blob { data, time });
    }

    pub(super) fn get_blob(&self, name: &str, max: usize) -> Result<Option<Bytes>, BrokerError> {
        match self.blobs.get(name) {
            Some(blob) if blob.data.len() > max => {
                Err(BrokerError::Refused("the blob is too large".into()))
            }
            blob => Ok(blob.map(|blob| blob.data.clone())),
        }
    }

    pub(super) fn delete_blob(&mut self, name: &str) {
        self.blobs.remove(name);
    }

    pub(super) fn blobs(&self) -> Vec<BlobInfo> {
        let info = |(name, blob): (&String, &Blob)| BlobInfo {
            name: name.clone(),
            size: blob.data.len() as u64,
            time: blob.time,
        };
        self.blobs.iter().map(info).collect()
    }
}

/// What a server has stored.
#[cfg(test)]
#[derive(Debug, Clone)]
pub(crate) struct Picture {
    stores: BTreeMap<Store, Log>,
    jobs: BTreeMap<Arc<str>, Leases>,
    results: BTreeMap<Arc<str>, Leases>,
}

#[cfg(test)]
impl Picture {
    pub(super) fn last(&self, store: Store) -> u64 {
        self.stores.get(&store).map_or(0, Log::last)
    }
}

/// What befalls a server.
#[cfg(test)]
impl Space {
    pub(crate) fn set_epoch(&mut self, epoch: u64) {
        self.epoch = epoch;
    }

    /// The server restarts: requests and ids of removed messages are forgotten.
    pub(crate) fn restart(&mut self) {
        for leases in self.jobs.values_mut().chain(self.results.values_mut()) {
            leases.take_pulls();
        }
        for puller in self.pullers.values_mut() {
            puller.mailbox.clear();
        }
        for log in self.stores.values_mut() {
            log.forget_ids_of_removed();
        }
        self.asks.clear();
    }

    pub(crate) fn snapshot(&self) -> super::faults::Snapshot {
        super::faults::Snapshot(Picture {
            stores: self.stores.clone(),
            jobs: self.jobs.clone(),
            results: self.results.clone(),
        })
    }

    /// Puts the stores back to an older state. `consumers`: also the consumers; otherwise they are
    /// ahead of their stores.
    pub(crate) fn roll_back(&mut self, snapshot: &super::faults::Snapshot, consumers: bool) {
        let picture = snapshot.0.clone();
        self.stores = picture.stores;
        let mut incarnation = self.next_id;
        for log in self.stores.values_mut() {
            incarnation += 1;
            log.incarnation = incarnation;
        }
        self.next_id = incarnation;
        if consumers {
            self.jobs = picture.jobs;
            self.results = picture.results;
        }
    }

    /// Deletes a store, and its consumers.
    pub(crate) fn delete_store(&mut self, store: Store) {
        self.stores.remove(&store);
        if let Some(consumers) = self.consumers_of(store) {
            consumers.clear();
        }
    }

    /// A full store refuses every message.
    pub(crate) fn set_full(&mut self, store: Store, is_full: bool) {
        if let Some(log) = self.stores.get_mut(&store) {
            log.is_full = is_full;
        }
    }

    /// Returns the messages of a store.
    pub(crate) fn messages(&mut self, store: Store) -> Vec<Stored> {
        let mut messages = Vec::new();
        let mut next = 0;
        while let Some(stored) = self.stores.get(&store).and_then(|log| log.next(next)) {
            next = stored.seq + 1;
            messages.push(Stored::clone(stored));
        }
        messages
    }
}

impl PullerState {
    /// Notes that a request has ended.
    fn ended(&mut self, consumer: &Consumer, wanted: usize, now: Instant, wakes: &mut Wakes) {
        if let Some(count) = self.requests.get_mut(consumer) {
            *count -= 1;
            if *count == 0 {
                self.requests.remove(consumer);
            }
        }
        // Not before the deliveries of the request.
        let arrivals = self.mailbox.iter().map(|(at, _)| *at);
        let at = arrivals.fold(now, Instant::max);
        let consumer = consumer.clone();
        self.mailbox
            .push_back((at, Pulled::Ended { consumer, wanted }));
        wakes.add(&self.notify);
    }
}

/// Takes the first entry that has arrived.
fn take_arrived<T>(mailbox: &mut VecDeque<(Instant, T)>, now: Instant) -> Next<T> {
    let arrived = mailbox.iter().position(|(at, _)| *at <= now);
    match arrived.and_then(|index| mailbox.remove(index)) {
        Some((_, entry)) => Next::Ready(entry),
        None => Next::Wait(mailbox.iter().map(|(at, _)| *at).min()),
    }
}

fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

fn missing(store: Store) -> BrokerError {
    BrokerError::Missing(format!("the store {store:?} does not exist").into())
}

fn store_of(consumer: &Consumer) -> Store {
    match consumer {
        Consumer::Jobs(_) => Store::Jobs,
        Consumer::Results(_) => Store::Results,
    }
}

/// Names a delivery as the server does: by its sequence, which a roll-back lets it use again.
fn token(consumer: &Consumer, seq: u64, count: u64) -> Token {
    let kind = match consumer {
        Consumer::Jobs(_) => 'j',
        Consumer::Results(_) => 'r',
    };
    Token(format!("{kind} {seq} {count} {}", consumer.subject()).into())
}

fn parse_token(token: &Token) -> Option<(Consumer, u64)> {
    let mut parts = token.0.splitn(4, ' ');
    let kind = parts.next()?;
    let seq = parts.next()?.parse().ok()?;
    parts.next()?;
    let subject = Arc::from(parts.next()?);
    match kind {
        "j" => Some((Consumer::Jobs(subject), seq)),
        "r" => Some((Consumer::Results(subject), seq)),
        _ => None,
    }
}
