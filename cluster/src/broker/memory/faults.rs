//! Faults of the network and of the server, from a seed. Only for tests.
//!
//! Each operation is carried by a task of its own, so that it can take place after its caller has
//! given up, as what a client has buffered does.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::watch;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::space::{Arrivals, Kind, Link, Space, Wakes};
use super::{Memory, MemoryBroker, Shared, lock};
use crate::broker::{BrokerError, Outgoing, Store};

/// How bad a network is. Each number is a probability.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Params {
    /// What a message takes at most.
    pub(crate) delay: Duration,
    /// A message takes up to `long_delay` instead.
    pub(crate) is_slow: f64,
    pub(crate) long_delay: Duration,
    pub(crate) lose_request: f64,
    pub(crate) lose_answer: f64,
    pub(crate) lose_notice: f64,
    /// A delivery comes twice.
    pub(crate) duplicate: f64,
    /// What is under way when a connection breaks arrives after the reconnect.
    pub(crate) is_late: f64,
    /// So long after it, at most.
    pub(crate) late: Duration,
}

/// What a link does now.
#[derive(Debug, Clone, Copy)]
struct State {
    /// Whether anything passes.
    up: bool,
    /// How often it broke. What was under way then does not arrive, or late.
    breaks: u64,
}

#[derive(Debug)]
struct Inner {
    name: String,
    rng: Mutex<fastrand::Rng>,
    params: Mutex<Params>,
    state: watch::Sender<State>,
    /// The peer is killed: what it has buffered is never sent.
    dead: AtomicBool,
}

/// The link between a peer and the server.
#[derive(Debug, Clone)]
pub(crate) struct Faults(Arc<Inner>);

impl Faults {
    fn new(name: &str, seed: u64, params: Params, up: bool) -> Self {
        Self(Arc::new(Inner {
            name: name.to_owned(),
            rng: Mutex::new(fastrand::Rng::with_seed(seed)),
            params: Mutex::new(params),
            state: watch::Sender::new(State { up, breaks: 0 }),
            dead: AtomicBool::new(false),
        }))
    }

    fn draw<T>(&self, draw: impl FnOnce(&mut fastrand::Rng, &Params) -> T) -> T {
        let params = *lock(&self.0.params);
        draw(&mut lock(&self.0.rng), &params)
    }

    fn chance(&self, probability: impl FnOnce(&Params) -> f64) -> bool {
        self.draw(|rng, params| rng.f64() < probability(params))
    }

    fn delay(&self) -> Duration {
        self.draw(|rng, params| match rng.f64() < params.is_slow {
            true => params.long_delay.mul_f64(rng.f64()),
            false => params.delay.mul_f64(rng.f64()),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.0.name
    }

    fn state(&self) -> State {
        *self.0.state.borrow()
    }

    pub(super) fn is_up(&self) -> bool {
        self.state().up
    }

    /// Waits until something passes again.
    pub(super) async fn until_up(&self) {
        // The sender is ours, so it is never closed.
        let _ = self.0.state.subscribe().wait_for(|state| state.up).await;
    }

    pub(super) fn arrivals(&self, now: Instant, kind: Kind) -> Arrivals {
        let is_lost = kind == Kind::Notice && !self.is_up();
        if is_lost || kind == Kind::Notice && self.chance(|params| params.lose_notice) {
            return [None, None];
        }
        let again = self.chance(|params| params.duplicate);
        let second = again.then(|| now + self.delay() * 2);
        [Some(now + self.delay()), second]
    }

    /// Returns when a message of a watch arrives.
    pub(super) fn arrival(&self, now: Instant) -> Instant {
        now + self.delay()
    }

    pub(super) async fn call<T, F>(
        &self,
        shared: &Arc<Shared>,
        operation: F,
    ) -> Result<T, BrokerError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Space, Instant, &mut Wakes) -> T + Send + 'static,
    {
        let (sender, answer) = oneshot::channel();
        let timeout = *lock(&shared.request_timeout);
        let (carried, link) = (Arc::clone(shared), self.clone());
        tokio::spawn(async move { link.carry(&carried, operation, sender).await });
        match tokio::time::timeout(timeout, answer).await {
            Ok(Ok(answer)) => return Ok(answer),
            // Nothing tells the caller that its request or the answer is lost.
            Ok(Err(_)) => {}
            Err(_) => return Err(BrokerError::Unreachable("no answer in time".into())),
        }
        // The time that is left is not known here: up to twice the timeout, which is allowed to be
        // slow.
        sleep(timeout).await;
        Err(BrokerError::Unreachable("no answer in time".into()))
    }

    /// Sends an operation without an answer.
    pub(super) fn send<F>(&self, shared: &Arc<Shared>, operation: F)
    where
        F: FnOnce(&mut Space, Instant, &mut Wakes) + Send + 'static,
    {
        let (carried, link) = (Arc::clone(shared), self.clone());
        let (sender, _) = oneshot::channel();
        tokio::spawn(async move { link.carry(&carried, operation, sender).await });
    }

    /// Carries an operation to the server, and its answer back.
    async fn carry<T, F>(&self, shared: &Shared, operation: F, answer: oneshot::Sender<T>)
    where
        F: FnOnce(&mut Space, Instant, &mut Wakes) -> T,
    {
        let sent = self.state();
        sleep(self.delay()).await;
        if self.chance(|params| params.lose_request) {
            return;
        }
        loop {
            let state = self.state();
            if state.up && state.breaks == sent.breaks {
                break;
            }
            if state.up {
                // It was under way when the connection broke.
                if !self.chance(|params| params.is_late) {
                    return;
                }
                sleep(self.draw(|rng, params| params.late.mul_f64(rng.f64()))).await;
                if self.is_up() && !self.0.dead.load(Ordering::Relaxed) {
                    break;
                }
            }
            self.until_up().await;
            if self.0.dead.load(Ordering::Relaxed) {
                return;
            }
        }
        let result = {
            let _peer = Peer::enter(&self.0.name);
            shared.apply(operation)
        };
        if self.chance(|params| params.lose_answer) {
            return;
        }
        sleep(self.delay()).await;
        while !self.is_up() {
            self.until_up().await;
        }
        if self.state().breaks == sent.breaks {
            // The caller may have given up.
            let _ = answer.send(result);
        }
    }
}

impl MemoryBroker {
    /// Makes a connection whose link fails as `params` says. `up`: the server can be reached now.
    pub(crate) fn connect_with_faults(
        &self,
        namespace: &str,
        name: &str,
        seed: u64,
        params: Params,
        up: bool,
    ) -> Memory {
        let link = Link {
            faults: Some(Faults::new(name, seed, params, up)),
        };
        let memory = Memory::new(self.space(namespace), link);
        if !up {
            memory.set_connected(false);
        }
        memory
    }

    /// Changes or looks at the server.
    pub(crate) fn with_space<T>(&self, namespace: &str, f: impl FnOnce(&mut Space) -> T) -> T {
        f(&mut lock(&self.space(namespace)))
    }
}

/// What befalls a link. The harness keeps a clone of each peer's connection.
impl Memory {
    fn faults(&self) -> &Faults {
        let faults = &self.shared.link.faults;
        faults
            .as_ref()
            .expect("the connection was made with faults")
    }

    fn set_connected(&self, connected: bool) {
        self.shared.connection.send_modify(|connection| {
            if connected && !connection.connected {
                connection.generation += 1;
            }
            connection.connected = connected;
            connection.error = (!connected).then(|| "the link is down".into());
        });
    }

    /// Nothing more passes. The peer notices if `notices`.
    pub(crate) fn cut(&self, notices: bool) {
        self.faults().0.state.send_modify(|state| {
            state.up = false;
            state.breaks += u64::from(notices);
        });
        if notices {
            self.set_connected(false);
        }
    }

    /// Messages pass again. A peer that did not notice goes on with its connection.
    pub(crate) fn heal(&self) {
        self.faults().0.state.send_modify(|state| state.up = true);
        self.set_connected(true);
    }

    pub(crate) fn is_cut(&self) -> bool {
        !self.faults().is_up()
    }

    /// From now on the network is like this.
    pub(crate) fn set_params(&self, params: Params) {
        *lock(&self.faults().0.params) = params;
    }

    /// What the peer has buffered is never sent: it is killed.
    pub(crate) fn kill(&self) {
        self.faults().0.dead.store(true, Ordering::Relaxed);
    }
}

/// A picture of what a server has stored.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot(pub(super) super::space::Picture);

impl Snapshot {
    /// Returns the sequence that was given last in this store.
    pub(crate) fn last(&self, store: Store) -> u64 {
        self.0.last(store)
    }
}

/// A full store, for [`Space::set_full`].
pub(crate) const ALL_STORES: [Store; 5] = super::space::STORES;

// Trace

thread_local! {
    static TRACE: RefCell<Option<Trace>> = const { RefCell::new(None) };
    static PEER: RefCell<String> = const { RefCell::new(String::new()) };
}

#[derive(Debug)]
struct Trace {
    /// When the first line came.
    start: Option<Instant>,
    lines: VecDeque<String>,
    limit: usize,
}

/// Begins a trace of this thread, of at most so many lines.
pub(crate) fn start_trace(limit: usize) {
    TRACE.with_borrow_mut(|trace| {
        *trace = Some(Trace {
            start: None,
            lines: VecDeque::new(),
            limit,
        });
    });
}

/// Ends the trace and returns its last lines.
pub(crate) fn take_trace() -> Vec<String> {
    let trace = TRACE.take();
    trace.map_or_else(Vec::new, |trace| trace.lines.into())
}

/// Adds a line to the trace, if there is one.
pub(crate) fn trace(line: fmt::Arguments<'_>) {
    TRACE.with_borrow_mut(|trace| {
        let Some(trace) = trace else { return };
        let at = trace.start.get_or_insert_with(Instant::now).elapsed();
        let peer = PEER.with_borrow(String::clone);
        if trace.lines.len() == trace.limit {
            trace.lines.pop_front();
        }
        let line = format!("{:>9.3} {peer:<4} {line}", at.as_secs_f64());
        trace.lines.push_back(line);
    });
}

/// Describes a message for the trace. Empty if there is none.
pub(super) fn describe(message: &Outgoing) -> String {
    if TRACE.with_borrow(Option::is_none) {
        return String::new();
    }
    let headers = message.headers.iter();
    let headers: Vec<_> = headers
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let payload = String::from_utf8_lossy(&message.payload);
    let (subject, expect) = (&message.subject, message.expect);
    format!("{subject} {headers:?} {payload:?} expect {expect:?}")
}

/// Names the peer in the trace, while it lives.
pub(crate) struct Peer(String);

impl Peer {
    pub(crate) fn enter(name: &str) -> Self {
        Self(PEER.with_borrow_mut(|peer| std::mem::replace(peer, name.to_owned())))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let before = std::mem::take(&mut self.0);
        PEER.with_borrow_mut(|peer| *peer = before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{Ack, Broker, Consumer, Pulled, Puller, Watch};
    use crate::protocol::settings::Settings;

    const LEASE: Duration = Duration::from_secs(30);

    fn run<F: Future<Output = ()>>(test: impl FnOnce(MemoryBroker) -> F) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let broker = MemoryBroker::new();
            let calm = broker.connect("test");
            let made = calm.ensure_stores(&Settings::default(), true).await;
            made.unwrap();
            let hour = Duration::from_secs(3600);
            tokio::time::timeout(hour, test(broker)).await.unwrap();
        });
    }

    fn job(text: &str) -> Outgoing {
        Outgoing {
            subject: "q.t.1".to_owned(),
            payload: bytes::Bytes::copy_from_slice(text.as_bytes()),
            id: Some(text.to_owned()),
            ..Outgoing::default()
        }
    }

    fn queue() -> Consumer {
        Consumer::Jobs("q.t.1".into())
    }

    fn is_unreachable<T>(result: Result<T, crate::broker::PublishError>) -> bool {
        use crate::broker::PublishError::Other;
        matches!(result, Err(Other(BrokerError::Unreachable(_))))
    }

    #[test]
    fn a_lost_answer_leaves_the_caller_in_doubt() {
        run(|broker| async move {
            let params = Params {
                lose_answer: 1.0,
                ..Params::default()
            };
            let memory = broker.connect_with_faults("test", "p", 1, params, true);
            let start = Instant::now();
            assert!(is_unreachable(memory.publish(Store::Jobs, job("a")).await));
            assert!(start.elapsed() >= Settings::default().request_timeout());
            let jobs = broker.with_space("test", |space| space.messages(Store::Jobs));
            assert_eq!(jobs.len(), 1);

            memory.set_params(Params {
                lose_request: 1.0,
                ..Params::default()
            });
            assert!(is_unreachable(memory.publish(Store::Jobs, job("b")).await));
            let jobs = broker.with_space("test", |space| space.messages(Store::Jobs));
            assert_eq!(jobs.len(), 1);
        });
    }

    #[test]
    fn what_was_buffered_arrives_after_the_reconnect() {
        run(|broker| async move {
            let params = Params {
                is_late: 1.0,
                late: Duration::from_secs(9),
                ..Params::default()
            };
            let memory = broker.connect_with_faults("test", "p", 1, params, true);
            memory.cut(true);
            assert!(!memory.connection().borrow().connected);
            assert!(is_unreachable(memory.publish(Store::Jobs, job("a")).await));
            let count = || broker.with_space("test", |space| space.messages(Store::Jobs).len());
            assert_eq!(count(), 0);
            memory.heal();
            assert_eq!(memory.connection().borrow().generation, 2);
            sleep(Duration::from_secs(10)).await;
            assert_eq!(count(), 1);

            // What a killed peer has buffered is lost.
            memory.cut(true);
            assert!(is_unreachable(memory.publish(Store::Jobs, job("b")).await));
            memory.kill();
            memory.heal();
            sleep(Duration::from_secs(10)).await;
            assert_eq!(count(), 1);
        });
    }

    #[test]
    fn receivers_learn_that_the_connection_broke() {
        run(|broker| async move {
            let memory = broker.connect_with_faults("test", "p", 1, Params::default(), true);
            memory.ensure_consumer(&queue()).await.unwrap();
            let mut puller = memory.puller().await.unwrap();
            let mut watch = memory.watch(Store::Live, true).await.unwrap();
            puller.request(&queue(), 1, LEASE);
            sleep(Duration::from_secs(1)).await;
            memory.cut(true);
            // It is handed out, and never arrives.
            broker
                .connect("test")
                .publish(Store::Jobs, job("a"))
                .await
                .unwrap();
            memory.heal();
            assert!(matches!(puller.next().await, Pulled::Broken));
            assert!(watch.next().await.is_none());
            puller.request(&queue(), 1, LEASE * 2);
            let Pulled::Delivery(delivery) = puller.next().await else {
                panic!("a delivery comes again");
            };
            assert_eq!(delivery.count, 2);
            memory.ack(&delivery.token, Ack::Done).await.unwrap();
        });
    }

    #[test]
    fn a_cut_that_is_not_noticed_delays() {
        run(|broker| async move {
            let memory = broker.connect_with_faults("test", "p", 1, Params::default(), true);
            let mut watch = memory.watch(Store::Live, true).await.unwrap();
            memory.cut(false);
            assert!(is_unreachable(memory.publish(Store::Live, job("k")).await));
            assert!(memory.connection().borrow().connected);
            memory.heal();
            assert_eq!(&*watch.next().await.unwrap().payload, b"k");
            assert_eq!(memory.connection().borrow().generation, 1);
        });
    }

    #[test]
    fn a_restart_forgets_requests_and_the_ids_of_removed_messages() {
        run(|broker| async move {
            let memory = broker.connect("test");
            memory.ensure_consumer(&queue()).await.unwrap();
            let mut puller = memory.puller().await.unwrap();
            puller.request(&queue(), 2, LEASE * 9);
            memory.publish(Store::Jobs, job("a")).await.unwrap();
            memory.delete(Store::Jobs, 1).await.unwrap();
            memory.publish(Store::Jobs, job("b")).await.unwrap();
            broker.with_space("test", Space::restart);
            assert_eq!(memory.publish(Store::Jobs, job("b")).await, Ok(2));
            assert_eq!(memory.publish(Store::Jobs, job("a")).await, Ok(3));
            assert_eq!(memory.consumers().await.unwrap()[0].pulls, 0);
        });
    }

    #[test]
    fn a_roll_back_reuses_sequences_and_leaves_consumers_ahead() {
        run(|broker| async move {
            let memory = broker.connect("test");
            memory.ensure_consumer(&queue()).await.unwrap();
            let snapshot = broker.with_space("test", |space| space.snapshot());
            let mut watch = memory.watch(Store::Jobs, false).await.unwrap();
            let mut puller = memory.puller().await.unwrap();
            memory.publish(Store::Jobs, job("a")).await.unwrap();
            memory.publish(Store::Jobs, job("b")).await.unwrap();
            puller.request(&queue(), 2, LEASE);
            assert!(matches!(puller.next().await, Pulled::Delivery(_)));
            broker.with_space("test", |space| space.roll_back(&snapshot, false));
            assert!(watch.next().await.is_none());
            assert_eq!(memory.info(Store::Jobs).await.unwrap().last, 0);
            assert_eq!(memory.publish(Store::Jobs, job("c")).await, Ok(1));
            // The consumer is ahead of its store, so it is made anew.
            let mut puller = memory.puller().await.unwrap();
            memory.ensure_consumer(&queue()).await.unwrap();
            puller.request(&queue(), 1, LEASE);
            let Pulled::Delivery(delivery) = puller.next().await else {
                panic!("the job is delivered");
            };
            assert_eq!(&*delivery.message.payload, b"c");
        });
    }
}
