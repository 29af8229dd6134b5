//! The connection: requests with their answers, and what is known of the server.
//!
//! All requests of a connection share one inbox. A task takes the answers from it and hands each to
//! its request. The same task fails the requests whose connection broke, and those without answer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::watch;
use async_nats::client::traits::Publisher;
use async_nats::connection::State;
use async_nats::message::OutboundMessage;
use async_nats::{
    Client, Event, HeaderMap, Message, PublishErrorKind, ServerError, StatusCode, Subject,
    Subscriber,
};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::broker::{BrokerError, Connection};

/// How often requests without an answer are looked for.
const SWEEP_PERIOD: Duration = Duration::from_millis(100);

/// How many answers are taken before anything else is looked at.
const MAX_BURST: usize = 128;

/// Why a request failed.
#[derive(Debug, Clone)]
pub(super) enum CallError {
    /// Nothing listens on the subject.
    NoResponder,
    /// The message is larger than the server takes.
    TooLarge,
    Broker(BrokerError),
}

impl From<CallError> for BrokerError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::NoResponder => Self::Missing("nothing answers on the server".into()),
            CallError::TooLarge => {
                Self::Refused("the message is larger than the server takes".into())
            }
            CallError::Broker(error) => error,
        }
    }
}

fn unreachable(text: &str) -> CallError {
    CallError::Broker(BrokerError::Unreachable(text.into()))
}

/// A request that waits for its answer.
struct Call {
    /// The connection that it was sent over.
    generation: u64,
    subject: Subject,
    deadline: Instant,
    answer: oneshot::Sender<Result<Message, CallError>>,
}

#[derive(Default)]
struct Calls {
    next: u64,
    waiting: HashMap<u64, Call>,
    closed: bool,
}

/// What the client's callbacks, the task and the requests share.
pub(super) struct Shared {
    calls: Mutex<Calls>,
    connection: watch::Sender<Connection>,
    error: Mutex<Option<Arc<str>>>,
    /// What the server has last said that this peer may not do.
    forbidden: Mutex<Option<Arc<str>>>,
    changed: Notify,
    timeout_millis: AtomicU64,
    /// Whether the server remembers deletes after it was killed: see [`Link::notes_deletes`].
    notes_deletes: AtomicBool,
    /// Whether the server knows how large a message is: see [`Link::measures`].
    measures: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(timeout: Duration) -> Arc<Self> {
        let connection = Connection {
            generation: 0,
            connected: false,
            error: None,
        };
        let shared = Self {
            calls: Mutex::default(),
            connection: watch::Sender::new(connection),
            error: Mutex::default(),
            forbidden: Mutex::default(),
            changed: Notify::new(),
            timeout_millis: AtomicU64::new(0),
            notes_deletes: AtomicBool::new(false),
            measures: AtomicBool::new(false),
        };
        shared.set_timeout(timeout);
        Arc::new(shared)
    }

    fn set_timeout(&self, timeout: Duration) {
        let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        self.timeout_millis.store(millis, Ordering::Relaxed);
    }

    fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_millis.load(Ordering::Relaxed))
    }

    /// Takes in what the client tells of the connection.
    pub(super) fn event(&self, event: Event) {
        match event {
            Event::ServerError(ServerError::Other(text)) => {
                if text.contains("Permissions Violation") {
                    *lock(&self.forbidden) = Some(text.as_str().into());
                }
                if let Some(subject) = violation(&text) {
                    self.refuse(subject, &text);
                }
                self.failed(&text);
            }
            Event::ServerError(error) => self.failed(&error.to_string()),
            Event::ClientError(error) => self.failed(&error.to_string()),
            _ => {}
        }
        self.changed.notify_one();
    }

    fn failed(&self, text: &str) {
        *lock(&self.error) = Some(text.into());
    }

    /// Fails the requests on a subject that this peer may not publish to.
    fn refuse(&self, subject: &str, text: &str) {
        let refused = BrokerError::Refused(text.into());
        self.fail(&CallError::Broker(refused), |call| {
            call.subject.as_str() == subject
        });
    }

    fn fail(&self, error: &CallError, which: impl Fn(&Call) -> bool) {
        let failed: Vec<Call> = {
            let mut calls = lock(&self.calls);
            let failed = calls.waiting.extract_if(|_, call| which(call));
            failed.map(|(_, call)| call).collect()
        };
        for call in failed {
            _ = call.answer.send(Err(error.clone()));
        }
    }

    fn answer(&self, prefix: &str, message: Message) {
        let token = message.subject.strip_prefix(prefix);
        let Some(token) = token.and_then(|token| token.parse::<u64>().ok()) else {
            return;
        };
        let call = lock(&self.calls).waiting.remove(&token);
        let Some(call) = call else { return };
        let answer = if message.status == Some(StatusCode::NO_RESPONDERS) {
            Err(CallError::NoResponder)
        } else {
            Ok(message)
        };
        _ = call.answer.send(answer);
    }

    /// Takes over the state of the client, and fails what cannot get an answer.
    fn refresh(&self, client: &Client) {
        let (generation, connected) = state(client);
        let error = if connected {
            *lock(&self.error) = None;
            None
        } else {
            lock(&self.error).clone()
        };
        let now = Connection {
            generation,
            connected,
            error,
        };
        let replaced = self.connection.borrow().generation != generation;
        if replaced {
            let notes = client.is_server_compatible(2, 10, 0);
            self.notes_deletes.store(notes, Ordering::Relaxed);
            let measures = client.is_server_compatible(2, 10, 5);
            self.measures.store(measures, Ordering::Relaxed);
        }
        self.connection.send_if_modified(|known| {
            let changed = *known != now;
            *known = now;
            changed
        });
        self.fail(&unreachable("the connection broke"), |call| {
            !connected || call.generation != generation
        });
    }

    fn expire(&self) {
        let now = Instant::now();
        self.fail(&unreachable("no answer came in time"), |call| {
            call.deadline <= now
        });
    }

    fn close(&self) {
        lock(&self.calls).closed = true;
        self.connection.send_modify(|known| known.connected = false);
        self.fail(&unreachable("the connection is closed"), |_| true);
    }
}

/// Returns the subject that the server's complaint is about.
fn violation(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("Permissions Violation for Publish to \"")?;
    rest.split_once('"').map(|(subject, _)| subject)
}

/// Returns the number of the connection, and whether it is there.
fn state(client: &Client) -> (u64, bool) {
    // Ordering: the client counts a connection before it says that it is connected.
    let generation = client.statistics().connects.load(Ordering::Acquire);
    (generation, client.connection_state() == State::Connected)
}

/// A connection. Closed when it is dropped.
pub(super) struct Link {
    client: Client,
    shared: Arc<Shared>,
    /// The inbox of this connection's requests, up to and with the last dot.
    prefix: Arc<str>,
    /// The task ends when it is dropped.
    _alive: oneshot::Sender<()>,
}

impl Link {
    /// Takes over a connected client, whose events go to `shared`.
    pub(super) async fn new(client: Client, shared: Arc<Shared>) -> Result<Self, BrokerError> {
        let prefix: Arc<str> = format!("{}.", client.new_inbox()).into();
        let inbox = client
            .subscribe(format!("{prefix}*"))
            .await
            .map_err(|error| BrokerError::Refused(error.to_string().into()))?;
        shared.refresh(&client);
        let (_alive, dropped) = oneshot::channel();
        tokio::spawn(serve(
            inbox,
            client.clone(),
            Arc::clone(&shared),
            Arc::clone(&prefix),
            dropped,
        ));
        let link = Self {
            client,
            shared,
            prefix,
            _alive,
        };
        // Shows whether this peer may publish and subscribe at all.
        match link.round_trip().await {
            Err(BrokerError::Unreachable(text)) => Err(link.explain(text)),
            other => other.map(|()| link),
        }
    }

    /// Says that the server forbids something, if that is known to be the reason of a silence.
    fn explain(&self, text: Arc<str>) -> BrokerError {
        let forbidden = lock(&self.shared.forbidden).take();
        forbidden.map_or(BrokerError::Unreachable(text), BrokerError::Refused)
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn connection(&self) -> watch::Receiver<Connection> {
        self.shared.connection.subscribe()
    }

    /// Returns whether the server remembers what was deleted when it is killed, even if it does not
    /// overwrite it.
    pub(super) fn notes_deletes(&self) -> bool {
        self.shared.notes_deletes.load(Ordering::Relaxed)
    }

    /// Returns whether the server counts all of a message when it decides that a stream is full.
    pub(super) fn measures(&self) -> bool {
        self.shared.measures.load(Ordering::Relaxed)
    }

    /// Returns how many requests wait for their answers.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        lock(&self.shared.calls).waiting.len()
    }

    pub(super) fn set_timeout(&self, timeout: Duration) {
        self.shared.set_timeout(timeout);
    }

    /// Returns the number of the connection, or fails if there is none.
    pub(super) fn connected(&self) -> Result<u64, BrokerError> {
        let (generation, connected) = state(&self.client);
        if connected {
            return Ok(generation);
        }
        let error = lock(&self.shared.error).clone();
        let text = error.unwrap_or_else(|| "not connected".into());
        Err(BrokerError::Unreachable(text))
    }

    /// Sends a request and waits for the answer.
    pub(super) async fn call(
        &self,
        subject: Subject,
        headers: Option<HeaderMap>,
        payload: Bytes,
    ) -> Result<Message, CallError> {
        self.exchange(Some(subject), headers, payload).await
    }

    /// Returns when the server has processed all that was sent before.
    pub(super) async fn round_trip(&self) -> Result<(), BrokerError> {
        // The server sends straight back what is published to the request's own inbox.
        let back = self.exchange(None, None, Bytes::new()).await;
        back.map(drop).map_err(BrokerError::from)
    }

    async fn exchange(
        &self,
        subject: Option<Subject>,
        headers: Option<HeaderMap>,
        payload: Bytes,
    ) -> Result<Message, CallError> {
        let generation = self.connected().map_err(CallError::Broker)?;
        let (answer, mut receiver) = oneshot::channel();
        let deadline = Instant::now() + self.shared.timeout();
        let token = {
            let mut calls = lock(&self.shared.calls);
            calls.next += 1;
            calls.next
        };
        let reply = Subject::from(format!("{}{token}", self.prefix));
        let subject = subject.unwrap_or_else(|| reply.clone());
        let call = Call {
            generation,
            subject: subject.clone(),
            deadline,
            answer,
        };
        {
            let mut calls = lock(&self.shared.calls);
            if calls.closed {
                return Err(unreachable("the connection is closed"));
            }
            calls.waiting.insert(token, call);
        }
        let _forget = Forget {
            shared: &self.shared,
            token,
        };
        let message = OutboundMessage {
            subject,
            reply: Some(reply),
            payload,
            headers,
        };
        // Handing over waits while the client is busy with a new connection.
        tokio::select! {
            biased;
            sent = self.client.publish_message(message) => sent.map_err(not_sent)?,
            answer = &mut receiver => return answered(answer),
        }
        answered(receiver.await)
    }

    /// Sends a message that has no answer.
    pub(super) async fn send(
        &self,
        subject: Subject,
        reply: Option<Subject>,
        payload: Bytes,
    ) -> Result<(), BrokerError> {
        self.connected()?;
        let message = OutboundMessage {
            subject,
            reply,
            payload,
            headers: None,
        };
        let sending = self.client.publish_message(message);
        match tokio::time::timeout(self.shared.timeout(), sending).await {
            Ok(sent) => sent.map_err(|error| not_sent(error).into()),
            Err(_) => Err(unreachable("the connection takes nothing").into()),
        }
    }

    /// Subscribes. The subscription is known to the server when this returns.
    pub(super) async fn subscribe(&self, subject: String) -> Result<Subscriber, BrokerError> {
        self.connected()?;
        let subscribing = async {
            let subscriber = self.client.subscribe(subject).await;
            subscriber.map_err(|error| BrokerError::Refused(error.to_string().into()))
        };
        match tokio::time::timeout(self.shared.timeout(), subscribing).await {
            Ok(subscriber) => subscriber,
            Err(_) => Err(unreachable("the connection takes nothing").into()),
        }
    }

    /// Sends what is buffered, then closes the connection.
    pub(super) async fn close(&self) {
        let closing = async {
            if self.connected().is_ok() {
                _ = self.round_trip().await;
            }
            _ = self.client.drain().await;
        };
        _ = tokio::time::timeout(self.shared.timeout(), closing).await;
        self.shared.close();
    }
}

fn not_sent(error: async_nats::PublishError) -> CallError {
    match error.kind() {
        PublishErrorKind::MaxPayloadExceeded => CallError::TooLarge,
        PublishErrorKind::InvalidSubject => {
            CallError::Broker(BrokerError::Refused("the subject is invalid".into()))
        }
        PublishErrorKind::Send => unreachable("the connection is closed"),
    }
}

fn answered(
    answer: Result<Result<Message, CallError>, oneshot::error::RecvError>,
) -> Result<Message, CallError> {
    answer.unwrap_or_else(|_| Err(unreachable("the connection is closed")))
}

/// Forgets a request at its end.
struct Forget<'a> {
    shared: &'a Shared,
    token: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        let call = lock(&self.shared.calls).waiting.remove(&self.token);
        drop(call);
    }
}

async fn serve(
    mut inbox: Subscriber,
    client: Client,
    shared: Arc<Shared>,
    prefix: Arc<str>,
    mut dropped: oneshot::Receiver<()>,
) {
    let mut sweep = tokio::time::interval(SWEEP_PERIOD);
    sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            message = inbox.next() => match message {
                Some(message) => {
                    shared.answer(&prefix, message);
                    for _ in 0..MAX_BURST {
                        let Some(Some(message)) = inbox.next().now_or_never() else { break };
                        shared.answer(&prefix, message);
                    }
                }
                None => break,
            },
            () = shared.changed.notified() => shared.refresh(&client),
            _ = sweep.tick() => {
                shared.refresh(&client);
                shared.expire();
            }
            _ = &mut dropped => break,
        }
    }
    shared.close();
}
