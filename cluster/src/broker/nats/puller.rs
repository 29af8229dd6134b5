//! Requests for messages, and the deliveries that answer them.
//!
//! All requests of a puller share one inbox. A delivery does not say which request it answers, but
//! which consumer it comes from: so the books are kept for each consumer. The server tells when a
//! request has ended by its time. If it does not, the consumer is taken for gone.
//!
//! A request cannot be taken back. So a long one is made of short ones, one after the other: to stop
//! is not to make the next.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::watch;
use async_nats::client::traits::Publisher;
use async_nats::message::OutboundMessage;
use async_nats::{Message, StatusCode, Subject, Subscriber};
use futures::{FutureExt, StreamExt};
use serde::Serialize;
use tokio::task::unconstrained;
use tokio::time::Instant;

use super::link::Link;
use super::messages;
use super::names::Names;
use super::token;
use crate::broker::{
    BrokerError, Connection, Consumer, Delivery, Pulled, Puller, Store, Stored, Token,
};

/// How long after its end a request waits for the server to say so.
const GRACE: Duration = Duration::from_millis(300);

/// How long the server keeps a request. A longer one is made again.
const SLICE: Duration = Duration::from_secs(1);

/// A request that would end sooner is not made again.
const SHORTEST: Duration = Duration::from_millis(20);

/// How long a request that the server has turned down counts as open, so that it is not made again
/// at once.
const REFUSED_PAUSE: Duration = Duration::from_millis(250);

/// Lists how many messages of a request did not come.
const PENDING_MESSAGES: &str = "Nats-Pending-Messages";

#[derive(Serialize)]
struct NextRequest {
    batch: usize,
    /// In nanoseconds.
    expires: u64,
}

/// A request that has not ended.
struct Request {
    token: u64,
    /// How many messages the server was asked for last.
    batch: usize,
    /// When the request ends.
    until: Instant,
    /// When the server should have ended its part.
    deadline: Instant,
    /// The server has turned it down, or was heard of since: so the consumer is there.
    known: bool,
    /// The server has said nothing of the part before this one.
    silent: bool,
}

/// What is asked of one consumer.
struct Asked {
    consumer: Consumer,
    /// Where the consumer takes requests.
    subject: Subject,
    requests: VecDeque<Request>,
    /// Deliveries that answer the requests that have not ended.
    received: usize,
}

impl Asked {
    /// Returns how many deliveries the open requests asked for.
    fn wanted(&self) -> usize {
        self.requests.iter().map(|request| request.batch).sum()
    }

    /// Closes the books of a request of which `missing` messages did not come, if that is known.
    /// Returns when it should end, and how many messages did not come.
    fn close(&mut self, index: usize, missing: Option<usize>) -> Option<(Instant, usize)> {
        let request = self.requests.remove(index)?;
        let unanswered = request.batch.saturating_sub(self.received);
        let wanted = missing.unwrap_or(unanswered).min(request.batch);
        self.received = self.received.saturating_sub(request.batch - wanted);
        Some((request.until, wanted))
    }

    fn ended(&self, wanted: usize) -> Pulled {
        Pulled::Ended {
            consumer: self.consumer.clone(),
            wanted,
        }
    }
}

/// Takes deliveries over a connection.
pub(crate) struct NatsPuller {
    link: Arc<Link>,
    names: Names,
    inbox: Subscriber,
    /// What the requests' inboxes begin with.
    prefix: String,
    next_token: u64,
    asked: BTreeMap<Consumer, Asked>,
    ready: VecDeque<Pulled>,
    /// Requests that the client could not take at once.
    unsent: VecDeque<OutboundMessage>,
    connection: watch::Receiver<Connection>,
    /// The connection that the requests were made on.
    generation: u64,
    /// Whether the loss of that connection was reported.
    broken: bool,
    /// Requests end with the part that the server has.
    stopped: bool,
}

impl std::fmt::Debug for NatsPuller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NatsPuller").finish_non_exhaustive()
    }
}

impl NatsPuller {
    pub(super) async fn open(link: Arc<Link>, names: Names) -> Result<Self, BrokerError> {
        let prefix = format!("{}.", link.client().new_inbox());
        let connection = link.connection();
        let generation = connection.borrow().generation;
        let inbox = link.subscribe(format!("{prefix}*")).await?;
        Ok(Self {
            link,
            names,
            inbox,
            prefix,
            next_token: 0,
            asked: BTreeMap::new(),
            ready: VecDeque::new(),
            unsent: VecDeque::new(),
            connection,
            generation,
            broken: false,
            stopped: false,
        })
    }

    /// Takes in the state of the connection. A loss ends all requests.
    fn look_at_connection(&mut self) {
        let (generation, connected) = {
            let now = self.connection.borrow_and_update();
            (now.generation, now.connected)
        };
        let replaced = generation != self.generation;
        if replaced || !connected {
            // Requests made after the loss was reported wait for the next connection. They were
            // not sent, or are lost, so the next connection ends them.
            let lost = !self.broken || (replaced && !self.asked.is_empty());
            if lost {
                self.asked.clear();
                self.unsent.clear();
                self.ready.push_back(Pulled::Broken);
            }
            self.broken = !connected;
            self.generation = generation;
        }
    }

    fn take(&mut self, message: Message) {
        match message.status {
            None | Some(StatusCode::OK) => self.take_delivery(message),
            Some(status) => self.take_status(status, &message),
        }
    }

    fn take_delivery(&mut self, message: Message) {
        let Some(reply) = &message.reply else { return };
        let Some(token) = token::parse(reply) else {
            return;
        };
        let store = if token.stream == self.names.stream(Store::Jobs) {
            Store::Jobs
        } else {
            Store::Results
        };
        let Some(subject) = message.subject.strip_prefix(self.names.prefix(store)) else {
            return;
        };
        // The consumer's name is that of its subject, and so is the subject of what it delivers.
        let subject: Arc<str> = subject.into();
        let consumer = match store {
            Store::Jobs => Consumer::Jobs(Arc::clone(&subject)),
            _ => Consumer::Results(Arc::clone(&subject)),
        };
        let delivery = Delivery {
            consumer,
            count: token.count,
            token: Token(reply.as_str().into()),
            message: Stored {
                subject: subject.as_ref().to_owned(),
                seq: token.seq,
                time: token.time,
                headers: messages::headers(message.headers),
                payload: message.payload,
            },
        };
        let filled = self.count(&delivery.consumer);
        self.ready.push_back(Pulled::Delivery(delivery));
        self.ready.extend(filled);
    }

    /// Counts a delivery, and returns the requests that are filled by it.
    fn count(&mut self, consumer: &Consumer) -> Vec<Pulled> {
        let Some(asked) = self.asked.get_mut(consumer) else {
            return Vec::new();
        };
        asked.received += 1;
        for request in &mut asked.requests {
            request.known = true;
        }
        if asked.received < asked.wanted() {
            return Vec::new();
        }
        let filled = asked.requests.iter().map(|_| asked.ended(0)).collect();
        self.asked.remove(consumer);
        filled
    }

    fn take_status(&mut self, status: StatusCode, message: &Message) {
        let token = message.subject.strip_prefix(self.prefix.as_str());
        let Some(token) = token.and_then(|token| token.parse::<u64>().ok()) else {
            return;
        };
        let found = self.asked.values_mut().find_map(|asked| {
            let mut requests = asked.requests.iter();
            let index = requests.position(|request| request.token == token)?;
            Some((asked, index))
        });
        let Some((asked, index)) = found else { return };
        let description = message.description.as_deref().unwrap_or_default();
        match status.as_u16() {
            100 => return,
            404 | 408 => {
                let header = message.headers.as_ref();
                let missing = header
                    .and_then(|headers| headers.get(PENDING_MESSAGES))
                    .and_then(|missing| missing.as_str().parse().ok());
                let consumer = asked.consumer.clone();
                if let Some((until, wanted)) = asked.close(index, missing) {
                    self.go_on(&consumer, until, wanted, false);
                }
            }
            503 => {
                let gone = Pulled::Gone(asked.consumer.clone());
                asked.requests.clear();
                self.ready.push_back(gone);
            }
            409 if description.contains("Deleted") => {
                let gone = Pulled::Gone(asked.consumer.clone());
                asked.requests.clear();
                self.ready.push_back(gone);
            }
            // The server turns the request down for now: too many wait, or the leader changes.
            _ => {
                if let Some(request) = asked.requests.get_mut(index) {
                    request.deadline = request.deadline.min(Instant::now() + REFUSED_PAUSE);
                    request.known = true;
                }
            }
        }
        self.asked.retain(|_, asked| !asked.requests.is_empty());
    }

    /// Goes on with the requests whose part is over although the server has not said so. Servers
    /// before 2.10 say nothing if a message comes at that moment, and nothing of consumers that do
    /// not exist: so two parts without any sign mean that the consumer is gone.
    fn expire(&mut self) {
        let now = Instant::now();
        if self.next_deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        // What has come counts, also if this task has used up its turn.
        while let Some(Some(message)) = unconstrained(self.inbox.next()).now_or_never() {
            self.take(message);
        }
        let overdue = |request: &Request| request.deadline <= now;
        let consumers: Vec<_> = self
            .asked
            .values()
            .filter(|asked| asked.requests.iter().any(overdue))
            .map(|asked| asked.consumer.clone())
            .collect();
        for consumer in consumers {
            let Some(mut asked) = self.asked.remove(&consumer) else {
                continue;
            };
            let mut parts = Vec::new();
            let mut gone = false;
            while let Some(index) = asked.requests.iter().position(overdue) {
                let request = &asked.requests[index];
                let known = request.known;
                let last = request.silent || now + SHORTEST >= request.until;
                // The server says nothing of a part that it has filled, either.
                let filled = request.batch <= asked.received;
                gone |= !known && !filled && last && !self.stopped;
                if let Some((until, wanted)) = asked.close(index, None) {
                    parts.push((until, wanted, !known));
                }
            }
            if gone {
                self.ready.push_back(Pulled::Gone(consumer));
                continue;
            }
            if !asked.requests.is_empty() {
                self.asked.insert(consumer.clone(), asked);
            }
            for (until, wanted, silent) in parts {
                self.go_on(&consumer, until, wanted, silent);
            }
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let requests = self.asked.values().flat_map(|asked| &asked.requests);
        requests.map(|request| request.deadline).min()
    }
}

impl Puller for NatsPuller {
    fn request(&mut self, consumer: &Consumer, batch: usize, expires: Duration) {
        if batch == 0 {
            self.ready.push_back(Pulled::Ended {
                consumer: consumer.clone(),
                wanted: 0,
            });
            return;
        }
        self.stopped = false;
        self.ask(consumer, Instant::now() + expires, batch, false);
    }

    fn stop(&mut self) {
        self.stopped = true;
    }

    async fn next(&mut self) -> Pulled {
        loop {
            if let Some(pulled) = self.ready.pop_front() {
                return pulled;
            }
            if let Some(Some(message)) = self.inbox.next().now_or_never() {
                self.take(message);
                continue;
            }
            self.look_at_connection();
            self.expire();
            if !self.ready.is_empty() {
                continue;
            }
            let deadline = self.next_deadline();
            let far = Instant::now() + Duration::from_secs(3600);
            let unsent = self.unsent.front().cloned();
            let client = self.link.client();
            tokio::select! {
                biased;
                message = self.inbox.next() => match message {
                    Some(message) => self.take(message),
                    // The client has ended for good, so nothing comes.
                    None => std::future::pending().await,
                },
                changed = self.connection.changed() => {
                    if changed.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
                sent = async { client.publish_message(unsent.expect("checked")).await },
                    if unsent.is_some() => {
                    _ = sent;
                    self.unsent.pop_front();
                }
                () = tokio::time::sleep_until(deadline.unwrap_or(far)) => {}
            }
        }
    }
}

impl NatsPuller {
    /// Goes on with a request of which the server has ended a part, or ends it.
    fn go_on(&mut self, consumer: &Consumer, until: Instant, wanted: usize, silent: bool) {
        let over = self.stopped || wanted == 0 || Instant::now() + SHORTEST >= until;
        if over {
            self.ready.push_back(Pulled::Ended {
                consumer: consumer.clone(),
                wanted,
            });
        } else {
            self.ask(consumer, until, wanted, silent);
        }
    }

    /// Asks the server for messages.
    fn ask(&mut self, consumer: &Consumer, until: Instant, batch: usize, silent: bool) {
        let now = Instant::now();
        let expires = until.saturating_duration_since(now).min(SLICE);
        self.next_token += 1;
        let token = self.next_token;
        let names = &self.names;
        let asked = self.asked.entry(consumer.clone()).or_insert_with(|| {
            let (stream, name) = names.consumer(consumer);
            Asked {
                consumer: consumer.clone(),
                subject: format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}").into(),
                requests: VecDeque::new(),
                received: 0,
            }
        });
        asked.requests.push_back(Request {
            token,
            batch,
            until,
            deadline: now + expires + GRACE,
            known: false,
            silent,
        });
        let body = NextRequest {
            batch,
            expires: u64::try_from(expires.as_nanos()).unwrap_or(u64::MAX),
        };
        let message = OutboundMessage {
            subject: asked.subject.clone(),
            reply: Some(Subject::from(format!("{}{token}", self.prefix))),
            payload: serde_json::to_vec(&body).expect("plain data").into(),
            headers: None,
        };
        self.send(message);
    }

    /// Sends a request at once if the client takes it.
    fn send(&mut self, message: OutboundMessage) {
        if self.broken {
            // Nothing is handed to a client that is not connected.
            return;
        }
        if self.unsent.is_empty() {
            let sending = self.link.client().publish_message(message.clone());
            if sending.now_or_never().is_some() {
                return;
            }
        }
        self.unsent.push_back(message);
    }
}
