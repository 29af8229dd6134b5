//! Collects a [`Snapshot`] from any [`Broker`].
//!
//! ```text
//!   follow: watch of the living ──► peers ─┐
//!   beat:   its own key, whose echo ───────┼─► State ──► snapshot(), history()
//!           tells the server's time        │
//!   sample: infos, consumers, oldest jobs ─┘   each second while snapshots are asked for
//! ```
//!
//! The observer changes nothing on the server, except its own key in the store of the living. A
//! login that cannot even write this key sees the same, with ages that are lower bounds.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{join, join_all, join3};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use crate::broker::{
    BlobInfo, Broker, BrokerError, Connection, ConsumerInfo, PublishError, ServerTime, Store,
    StoreInfo, Stored, Watch,
};
use crate::protocol::live::{Judgement, Live, LiveValue};
use crate::protocol::names;
use crate::protocol::server_clock::ServerClock;
use crate::protocol::settings::Settings;
use crate::status::snapshot::{
    ConnectionView, Life, Point, QueueView, Rates, RunView, SettingsView, Snapshot, StoreView,
    SubmitterView, TaskView, Totals, WorkerView,
};
use crate::status::text::clip;

/// How often the stores are read while snapshots are asked for, and while none is.
const PERIOD: Duration = Duration::from_secs(1);
const IDLE_PERIOD: Duration = Duration::from_secs(5);

/// How long after the last snapshot the observer counts as idle.
const LOOKED_AT: Duration = Duration::from_secs(15);

/// How far back the graph reaches.
const HISTORY: Duration = Duration::from_secs(300);

/// How long workers that are gone, and submitters that are gone, are shown.
const SHOW_WORKER: Duration = Duration::from_secs(600);
const SHOW_SUBMITTER: Duration = Duration::from_secs(60);

// Bounds of what untrusted peers can make the observer keep.
const MAX_PEERS: usize = 4096;
const MAX_TASKS: usize = 64;
const MAX_RUNNING: usize = 1024;
const MAX_QUEUES: usize = 1024;

/// How many queues are asked for their oldest job in one sample.
const OLDEST_PER_SAMPLE: usize = 64;
const OLDEST_PERIOD: Duration = Duration::from_secs(2);
const BLOBS_PERIOD: Duration = Duration::from_secs(10);

const STORES: [(Store, &str); 5] = [
    (Store::Jobs, "jobs"),
    (Store::Results, "results"),
    (Store::Claims, "claims"),
    (Store::Live, "live"),
    (Store::Kept, "kept"),
];

/// Collects what can be seen of a namespace. Dropping it stops the collection.
pub(crate) struct Observer<B> {
    broker: B,
    namespace: String,
    server: String,
    /// Its own key in the store of the living.
    key: String,
    state: RefCell<State>,
    /// When a snapshot was last asked for.
    looked_at: Cell<Option<Instant>>,
    /// A snapshot was asked for while the figures were old.
    wanted: Notify,
    /// A watch of the living was opened.
    opened: Notify,
    /// Something new is known.
    news: Notify,
}

#[derive(Default)]
struct State {
    settings: Option<Settings>,
    live: Option<Live>,
    clock: ServerClock,
    /// The connection to which `clock` belongs.
    generation: u64,
    /// The observer's own key has come since the connection was made.
    echoed: bool,
    /// Its own key cannot be written.
    read_only: bool,
    watch_since: Option<Instant>,
    peers: BTreeMap<String, Peer>,
    /// Peers were refused because there are too many.
    too_many: bool,
    stores: BTreeMap<&'static str, StoreView>,
    jobs: Option<(StoreInfo, Instant)>,
    consumers: Vec<ConsumerInfo>,
    oldest: BTreeMap<Arc<str>, Oldest>,
    blobs_at: Option<Instant>,
    submitted: Option<f64>,
    ended: Option<f64>,
    history: VecDeque<(Instant, Point)>,
    /// What could not be read, by what it was.
    problems: BTreeMap<&'static str, String>,
    rolled_back: Option<Instant>,
    /// When the store of jobs was last read.
    sampled: Option<Instant>,
    /// The last picture while there was a connection.
    last: Option<Snapshot>,
}

/// A peer's latest words.
struct Peer {
    value: Option<Arc<LiveValue>>,
    time: ServerTime,
    /// When they came.
    at: Instant,
    left: bool,
    /// The counts from which the next rates are computed, and when they held.
    base: Option<(ServerTime, Totals)>,
    rates: Option<[f64; 4]>,
}

/// The oldest message of a subject.
#[derive(Clone, Copy)]
struct Oldest {
    found: Option<(u64, ServerTime)>,
    at: Instant,
}

impl<B: Broker> Observer<B> {
    /// `server` is what is shown: without secrets. `identity` begins the observer's id, where
    /// permissions tell peers apart.
    pub(crate) fn new(broker: B, namespace: &str, server: &str, identity: Option<&str>) -> Self {
        let random = std::iter::repeat_with(fastrand::alphanumeric).take(16);
        let identity = identity.map(|identity| format!("{identity}."));
        let id: String = identity.into_iter().chain([random.collect()]).collect();
        Self {
            broker,
            namespace: namespace.to_owned(),
            server: server.to_owned(),
            key: format!("s.{id}"),
            state: RefCell::default(),
            looked_at: Cell::new(None),
            wanted: Notify::new(),
            opened: Notify::new(),
            news: Notify::new(),
        }
    }

    /// Collects for ever.
    pub(crate) async fn run(&self) -> Infallible {
        let collect = async {
            let settings = self.learn_settings().await;
            let (never, _, _) =
                join3(self.sample_always(), self.follow(), self.beat(&settings)).await;
            never
        };
        join(collect, self.follow_connection()).await.0
    }

    /// Waits until there is a first complete picture. Returns `false` if the namespace cannot be
    /// read, or if it takes longer than `limit`.
    pub(crate) async fn wait_complete(&self, limit: Duration) -> bool {
        let complete = async {
            loop {
                let news = self.news.notified();
                if self.is_complete() {
                    return true;
                }
                if self.state.borrow().problems.contains_key("namespace") {
                    return false;
                }
                // Without the right to write a key, nothing says that all keys have come.
                let _ = timeout(Duration::from_millis(100), news).await;
            }
        };
        timeout(limit, complete).await.unwrap_or(false)
    }

    /// Waits until rates are known, or until `limit`.
    pub(crate) async fn wait_rates(&self, limit: Duration) {
        let known = async {
            while self.snapshot().rates.submitted.is_none() {
                let _ = timeout(Duration::from_millis(100), self.news.notified()).await;
            }
        };
        let _ = timeout(limit, known).await;
    }

    fn is_complete(&self) -> bool {
        let state = self.state.borrow();
        let settled = |since: Instant| since.elapsed() > Duration::from_millis(500);
        let all_keys = match state.read_only {
            true => state.watch_since.is_some_and(settled),
            false => state.echoed,
        };
        all_keys && state.sampled.is_some()
    }

    /// Says goodbye, so that its key does not stay until the server forgets it.
    pub(crate) async fn farewell(&self) {
        if !self.state.borrow().read_only {
            let farewell = LiveValue::farewell(&self.key);
            let _ = self.broker.publish(Store::Live, farewell).await;
        }
    }

    /// Returns what is known now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let now = Instant::now();
        self.looked_at.set(Some(now));
        let connection = self.broker.connection().borrow().clone();
        let mut state = self.state.borrow_mut();
        if state
            .sampled
            .is_none_or(|at| now.duration_since(at) > PERIOD)
        {
            self.wanted.notify_one();
        }
        if connection.connected {
            let snapshot = state.snapshot(&connection, now);
            state.last = Some(snapshot);
        }
        // Without a connection the picture stays as it was when there was one.
        let mut snapshot = match &state.last {
            Some(last) => Snapshot {
                connection: view(&connection),
                age_ms: state.age(now),
                problems: state.problems(now),
                ..last.clone()
            },
            None => state.snapshot(&connection, now),
        };
        snapshot.namespace.clone_from(&self.namespace);
        snapshot.server.clone_from(&self.server);
        snapshot
    }

    /// Returns the points of the graph, the oldest first.
    pub(crate) fn history(&self) -> Vec<Point> {
        let now = Instant::now();
        let state = self.state.borrow();
        let points = state.history.iter().map(|(at, point)| Point {
            ago_ms: millis(now.saturating_duration_since(*at)),
            ..*point
        });
        points.collect()
    }

    /// Changes what is known. The state is never borrowed while something is awaited.
    fn edit<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.borrow_mut())
    }

    async fn learn_settings(&self) -> Settings {
        loop {
            let wanted = Settings::default();
            match self.broker.ensure_stores(&wanted, false).await {
                Ok(settings) => {
                    self.edit(|state| {
                        state.problems.remove("namespace");
                        state.live = Some(Live::new(self.key.clone(), &settings));
                        state.settings = Some(settings.clone());
                    });
                    return settings;
                }
                Err(error) => {
                    let text = match error {
                        BrokerError::Missing(_) => format!(
                            "the namespace `{}` has no stores yet: start a worker with the right \
                             to make them, or run `futurepool-cluster setup`",
                            self.namespace
                        ),
                        error => format!("cannot read the namespace: {error}"),
                    };
                    self.edit(|state| state.note("namespace", &text));
                }
            }
            self.news.notify_waiters();
            sleep(PERIOD).await;
        }
    }

    async fn follow_connection(&self) -> Infallible {
        let mut receiver = self.broker.connection();
        loop {
            let connection = receiver.borrow_and_update().clone();
            self.edit(|state| state.on_connection(&connection));
            self.news.notify_waiters();
            if receiver.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    async fn follow(&self) -> Infallible {
        loop {
            match self.broker.watch(Store::Live, true).await {
                Ok(mut watch) => {
                    self.edit(|state| {
                        state.problems.remove("workers");
                        state.watch_since = Some(Instant::now());
                    });
                    self.opened.notify_one();
                    while let Some(message) = watch.next().await {
                        self.edit(|state| state.on_live(&self.key, &message));
                        self.news.notify_waiters();
                    }
                }
                Err(error) => {
                    self.edit(|state| {
                        state.note_error("workers", "cannot read which peers live", &error)
                    });
                    sleep(PERIOD).await;
                }
            }
            self.edit(|state| {
                state.watch_since = None;
                if let Some(live) = &mut state.live {
                    live.on_break();
                }
            });
        }
    }

    async fn beat(&self, settings: &Settings) -> Infallible {
        let value = LiveValue {
            name: format!("status/{}", std::process::id()),
            ..LiveValue::default()
        };
        let mut pause = settings.live_period();
        let mut failures = 0;
        loop {
            // A watch that has just been opened needs the key to know that it has all of them.
            let _ = timeout(pause, self.opened.notified()).await;
            let message = value.to_outgoing(&self.key);
            let result = self.broker.publish(Store::Live, message).await;
            let refused = matches!(result, Err(PublishError::Other(BrokerError::Refused(_))));
            failures = match result {
                Ok(_) => 0,
                Err(_) => failures + 1,
            };
            // A server may stay silent instead of refusing.
            let read_only = refused || failures >= 2;
            self.edit(|state| state.read_only = read_only);
            pause = match (read_only, failures) {
                (_, 0) => settings.live_period(),
                (true, _) => settings.live_period() * 4,
                (false, _) => Duration::from_millis(500),
            };
            self.news.notify_waiters();
        }
    }

    async fn sample_always(&self) -> Infallible {
        loop {
            let start = Instant::now();
            self.sample().await;
            self.keep_picture();
            self.news.notify_waiters();
            let looked_at = self.looked_at.get();
            let pause = match looked_at.is_some_and(|at| at.elapsed() < LOOKED_AT) {
                true => PERIOD.saturating_sub(start.elapsed()),
                false => {
                    let _ = timeout(IDLE_PERIOD, self.wanted.notified()).await;
                    (PERIOD / 2).saturating_sub(start.elapsed())
                }
            };
            sleep(pause.max(Duration::from_millis(100))).await;
        }
    }

    /// Makes the picture that stays if the connection breaks.
    fn keep_picture(&self) {
        let connection = self.broker.connection().borrow().clone();
        if connection.connected {
            let mut state = self.state.borrow_mut();
            let snapshot = state.snapshot(&connection, Instant::now());
            state.last = Some(snapshot);
        }
    }

    async fn sample(&self) {
        let infos = join_all(STORES.map(|(store, _)| self.broker.info(store)));
        let (infos, consumers) = join(infos, self.broker.consumers()).await;
        let now = Instant::now();
        let (ask, blobs) = self.edit(|state| {
            for ((store, name), info) in STORES.into_iter().zip(infos) {
                match info {
                    Ok(info) => state.on_info(store, name, info, now),
                    // A login with an identity has results of its own only if it submits.
                    Err(BrokerError::Missing(_)) if store == Store::Results => {}
                    Err(error) => {
                        state.note_error(name, &format!("cannot read the store `{name}`"), &error);
                    }
                }
            }
            state.on_consumers(consumers);
            state.forget_old(now);
            let is_due = |at: Instant| now.saturating_duration_since(at) > BLOBS_PERIOD;
            (state.which_oldest(now), state.blobs_at.is_none_or(is_due))
        });
        let oldest = join_all(ask.into_iter().map(|(subject, from)| async move {
            let found = self.broker.next_of(Store::Jobs, &subject, from).await;
            (subject, found)
        }));
        let blobs = async {
            match blobs {
                true => Some(self.broker.blobs().await),
                false => None,
            }
        };
        let (oldest, blobs) = join(oldest, blobs).await;
        self.edit(|state| {
            for (subject, found) in oldest {
                if let Ok(found) = found {
                    let found = found.map(|message| (message.seq, message.time));
                    state.oldest.insert(subject, Oldest { found, at: now });
                }
            }
            if let Some(blobs) = blobs {
                state.on_blobs(blobs, now);
            }
        });
    }
}

impl State {
    fn note(&mut self, what: &'static str, text: &str) {
        self.problems.insert(what, clip(text));
    }

    /// Notes that something cannot be read. Without the server nothing can: this is told once, by
    /// the age of the figures.
    fn note_error(&mut self, what: &'static str, text: &str, error: &BrokerError) {
        if !matches!(error, BrokerError::Unreachable(_)) {
            self.note(what, &format!("{text}: {error}"));
        }
    }

    fn on_connection(&mut self, connection: &Connection) {
        if self.generation != connection.generation {
            self.generation = connection.generation;
            // The server's clock may have been set back.
            self.clock.reset();
            self.echoed = false;
        }
    }

    fn on_live(&mut self, me: &str, message: &Stored) {
        let now = Instant::now();
        self.clock.learn(message.time, now);
        if message.subject == me {
            self.echoed = true;
            self.read_only = false;
        }
        let is_new = !self.peers.contains_key(&message.subject);
        if is_new && self.peers.len() >= MAX_PEERS {
            self.too_many = true;
            return;
        }
        if let Some(live) = &mut self.live {
            live.on_message(message, now);
        }
        if !message.subject.starts_with("w.") && !message.subject.starts_with("c.") {
            return;
        }
        let left = message.is_deletion();
        let earlier = self.peers.remove(&message.subject);
        let value = match left {
            // What it said last is still of interest.
            true => earlier.as_ref().and_then(|peer| peer.value.clone()),
            false => serde_json::from_slice(&message.payload).ok().map(Arc::new),
        };
        let mut peer = Peer {
            value,
            time: message.time,
            at: now,
            left,
            base: earlier.as_ref().and_then(|peer| peer.base),
            rates: earlier.as_ref().and_then(|peer| peer.rates),
        };
        if let Some(value) = peer.value.clone() {
            peer.count(totals_of(&value));
        }
        self.peers.insert(message.subject.clone(), peer);
    }

    fn on_info(&mut self, store: Store, name: &'static str, info: StoreInfo, now: Instant) {
        self.problems.remove(name);
        let view = StoreView {
            name: name.to_owned(),
            messages: info.messages,
            bytes: info.bytes,
            limit: match (&self.settings, store) {
                (Some(settings), Store::Jobs) => Some(settings.queue_bytes),
                _ => None,
            },
        };
        self.stores.insert(name, view);
        if store != Store::Jobs {
            return;
        }
        self.sampled = Some(now);
        let before = self.jobs.replace((info, now));
        let Some((before, at)) = before else {
            return;
        };
        if before.created != info.created || info.last < before.last {
            self.rolled_back = Some(now);
            self.oldest.clear();
            self.submitted = None;
            self.ended = None;
            return;
        }
        let seconds = now.saturating_duration_since(at).as_secs_f64();
        if seconds < 0.05 {
            self.jobs = Some((before, at));
            return;
        }
        let came = info.last - before.last;
        let went = (came + before.messages).saturating_sub(info.messages);
        self.submitted = Some(came as f64 / seconds);
        self.ended = Some(went as f64 / seconds);
        let lost = self.reported_rates(now).map_or(0.0, |rates| rates[2]);
        let point = Point {
            ago_ms: 0,
            submitted: came as f64 / seconds,
            ended: went as f64 / seconds,
            lost,
            queued: info.messages,
        };
        self.history.push_back((now, point));
        while let Some((at, _)) = self.history.front()
            && now.saturating_duration_since(*at) > HISTORY
        {
            self.history.pop_front();
        }
    }

    fn on_consumers(&mut self, consumers: Result<Vec<ConsumerInfo>, BrokerError>) {
        match consumers {
            Ok(mut consumers) => {
                self.problems.remove("queues");
                consumers.sort_by(|a, b| a.consumer.cmp(&b.consumer));
                consumers.truncate(MAX_QUEUES);
                self.consumers = consumers;
            }
            Err(error) => self.note_error("queues", "cannot read the queues", &error),
        }
    }

    fn on_blobs(&mut self, blobs: Result<Vec<BlobInfo>, BrokerError>, now: Instant) {
        match blobs {
            Ok(blobs) => {
                self.problems.remove("blobs");
                self.blobs_at = Some(now);
                let view = StoreView {
                    name: "blobs".to_owned(),
                    messages: blobs.len() as u64,
                    bytes: blobs
                        .iter()
                        .fold(0, |sum, blob| sum.saturating_add(blob.size)),
                    limit: None,
                };
                self.stores.insert("blobs", view);
            }
            Err(error) => self.note_error("blobs", "cannot list the blobs", &error),
        }
    }

    /// Returns the subjects whose oldest job must be looked for, and from where on.
    fn which_oldest(&mut self, now: Instant) -> Vec<(Arc<str>, u64)> {
        let Some((info, _)) = self.jobs else {
            return Vec::new();
        };
        let mut subjects = BTreeMap::new();
        for consumer in &self.consumers {
            if consumer.waiting > 0 || consumer.delivered > 0 {
                let subject: Arc<str> = consumer.consumer.subject().into();
                let known = self.oldest.get(&subject).copied();
                subjects.insert(subject, known);
            }
        }
        self.oldest
            .retain(|subject, _| subjects.contains_key(subject));
        let is_due = |known: &Option<Oldest>| match known {
            None => true,
            Some(known) => now.saturating_duration_since(known.at) >= OLDEST_PERIOD,
        };
        let mut due: Vec<_> = subjects
            .into_iter()
            .filter(|(_, known)| is_due(known))
            .collect();
        due.sort_by_key(|(_, known)| known.map(|known| known.at));
        due.truncate(OLDEST_PER_SAMPLE);
        let from = |known: Option<Oldest>| {
            let found = known.and_then(|known| known.found);
            found.map_or(info.first, |(seq, _)| seq.max(info.first))
        };
        due.into_iter()
            .map(|(subject, known)| (subject, from(known)))
            .collect()
    }

    fn forget_old(&mut self, now: Instant) {
        if let Some(live) = &mut self.live {
            live.forget_old(now);
        }
        let is_shown = |key: &str, peer: &Peer| {
            let limit = match key.starts_with("w.") {
                true => SHOW_WORKER,
                false => SHOW_SUBMITTER,
            };
            now.saturating_duration_since(peer.at) < limit
        };
        self.peers.retain(|key, peer| is_shown(key, peer));
        if self.peers.len() < MAX_PEERS {
            self.too_many = false;
        }
    }

    /// Returns done, failed, lost and retried jobs a second. `None` until a peer wrote twice.
    fn reported_rates(&self, now: Instant) -> Option<[f64; 4]> {
        let period = self.settings.as_ref()?.live_period();
        let (mut workers, mut submitters) = ([0.0; 4], [0.0; 4]);
        let mut known = false;
        for (key, peer) in &self.peers {
            let Some(rates) = peer.rates else {
                continue;
            };
            known = true;
            // The rate of a peer that says nothing more is not that of now.
            if now.saturating_duration_since(peer.at) < period * 2 && !peer.left {
                let sum = match key.starts_with("w.") {
                    true => &mut workers,
                    false => &mut submitters,
                };
                for (sum, rate) in sum.iter_mut().zip(rates) {
                    *sum += rate;
                }
            }
        }
        // Both sides count a job that a worker reports as lost.
        workers[2] = workers[2].max(submitters[2]);
        known.then_some(workers)
    }

    fn snapshot(&mut self, connection: &Connection, now: Instant) -> Snapshot {
        let mut snapshot = Snapshot {
            format: Snapshot::FORMAT,
            connection: view(connection),
            age_ms: self.age(now),
            exact_ages: self.echoed,
            problems: self.problems(now),
            stores: self.stores.values().cloned().collect(),
            detached: self.stores.get("kept").map(|store| store.messages),
            settings: self.settings.as_ref().map(|settings| SettingsView {
                lease_ms: millis(settings.lease),
                replicas: settings.replicas,
                queue_bytes: settings.queue_bytes,
            }),
            ..Snapshot::default()
        };
        self.show_peers(&mut snapshot, now);
        self.show_queues(&mut snapshot, now);
        for worker in &snapshot.workers {
            snapshot.totals.add(&worker.totals);
        }
        let submitters = snapshot.submitters.iter().map(|submitter| submitter.lost);
        let lost = submitters.fold(0, u64::saturating_add);
        snapshot.totals.lost = snapshot.totals.lost.max(lost);
        let reported = self.reported_rates(now);
        let rate = |index: usize| reported.map(|rates| rates[index]);
        snapshot.rates = Rates {
            submitted: self.submitted,
            ended: self.ended,
            done: rate(0),
            failed: rate(1),
            lost: rate(2),
            retried: rate(3),
        };
        snapshot
    }

    /// Returns how old the figures are.
    fn age(&self, now: Instant) -> Option<u64> {
        let at = self.sampled?;
        Some(millis(now.saturating_duration_since(at)))
    }

    fn problems(&self, now: Instant) -> Vec<String> {
        let mut problems: Vec<_> = self.problems.values().cloned().collect();
        if let Some(at) = self.rolled_back {
            let ago = now.saturating_duration_since(at);
            if ago < SHOW_WORKER {
                problems.push(format!(
                    "the store of jobs was rolled back or made anew {} ago: submitters submit again what it lost",
                    crate::status::text::duration(millis(ago))
                ));
            }
        }
        if self.too_many {
            problems.push(format!(
                "more than {MAX_PEERS} peers: the rest is not shown"
            ));
        }
        problems
    }

    fn show_peers(&mut self, snapshot: &mut Snapshot, now: Instant) {
        let (Some(live), Some(settings)) = (&mut self.live, &self.settings) else {
            return;
        };
        let overdue = settings.live_period() * 2;
        for (key, peer) in &self.peers {
            let Some(value) = &peer.value else {
                continue;
            };
            let age = self.clock.age(peer.time, now);
            let silent = age.max(now.saturating_duration_since(peer.at));
            let life = match live.judge(key, now) {
                _ if peer.left => Life::Left,
                Judgement::Dead => Life::Dead,
                _ if silent > overdue => Life::Silent,
                Judgement::Alive => Life::Alive,
                Judgement::Unknown => Life::Silent,
            };
            let id = clip(key.get(2..).unwrap_or_default());
            let silent_ms = millis(silent);
            if let Some(worker) = &value.worker {
                let gone = matches!(life, Life::Dead | Life::Left);
                let running = worker.running.iter().take(MAX_RUNNING);
                let running: Vec<_> = running
                    .filter(|_| !gone)
                    .map(|run| RunView {
                        job: clip(&run.job),
                        task: clip(&run.task),
                        label: run.label.as_deref().map(clip),
                        for_ms: run.millis.saturating_add(millis(age)),
                    })
                    .collect();
                let tasks = worker.tasks.iter().take(MAX_TASKS);
                snapshot.workers.push(WorkerView {
                    id,
                    name: clip(&value.name),
                    life,
                    silent_ms,
                    state: clip(&worker.state),
                    problem: worker.problem.as_deref().map(clip),
                    console: worker.console.as_deref().map(clip),
                    queue: clip(&worker.queue),
                    tasks: tasks
                        .map(|(name, version)| TaskView {
                            name: clip(name),
                            version: *version,
                        })
                        .collect(),
                    slots: worker.slots,
                    busy: running.len(),
                    held: if gone { 0 } else { worker.held },
                    running,
                    totals: totals_of(value),
                });
            } else if let Some(client) = &value.client {
                snapshot.submitters.push(SubmitterView {
                    id,
                    name: clip(&value.name),
                    life,
                    silent_ms,
                    pending: client.pending,
                    window: client.window,
                    submitted: client.submitted,
                    lost: client.lost,
                });
            }
        }
        // Those that can take jobs come first; the order of equals does not change.
        let rank = |life: Life| matches!(life, Life::Dead | Life::Left);
        snapshot.workers.sort_by_key(|worker| rank(worker.life));
        snapshot
            .submitters
            .sort_by_key(|submitter| rank(submitter.life));
    }

    fn show_queues(&self, snapshot: &mut Snapshot, now: Instant) {
        let mut seen = 0u64;
        for info in &self.consumers {
            seen = seen
                .saturating_add(info.waiting)
                .saturating_add(info.delivered);
            let subject = info.consumer.subject();
            let parsed = names::parse_job_subject(subject);
            let (queue, task, version) = parsed.unwrap_or((String::new(), subject.to_owned(), 0));
            let has_it = |worker: &&WorkerView| {
                let mut tasks = worker.tasks.iter();
                worker.life == Life::Alive
                    && worker.queue == clip(&queue)
                    && tasks.any(|t| t.version == version && t.name == clip(&task))
            };
            let oldest = self.oldest.get(subject).and_then(|oldest| oldest.found);
            snapshot.queues.push(QueueView {
                workers: snapshot.workers.iter().filter(has_it).count(),
                queue: clip(&queue),
                task: clip(&task),
                version,
                waiting: info.waiting,
                delivered: info.delivered,
                oldest_ms: oldest
                    .filter(|_| info.waiting > 0 || info.delivered > 0)
                    .map(|(_, time)| millis(self.clock.age(time, now))),
                pulls: info.pulls,
            });
        }
        if !self.problems.contains_key("queues") {
            snapshot.jobs_without_consumer = snapshot.jobs().saturating_sub(seen);
        }
    }
}

impl Peer {
    /// Computes the rates from the counts before. Two counts that are too close tell nothing.
    fn count(&mut self, totals: Totals) {
        let Some((time, before)) = self.base else {
            self.base = Some((self.time, totals));
            return;
        };
        let seconds = self.time.0.saturating_sub(time.0) as f64 / 1e9;
        if seconds < 0.2 {
            return;
        }
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        self.rates = Some([
            rate(totals.done, before.done),
            rate(totals.failed, before.failed),
            rate(totals.lost, before.lost),
            rate(totals.retried, before.retried),
        ]);
        self.base = Some((self.time, totals));
    }
}

impl Totals {
    fn add(&mut self, other: &Self) {
        self.done = self.done.saturating_add(other.done);
        self.failed = self.failed.saturating_add(other.failed);
        self.lost = self.lost.saturating_add(other.lost);
        self.retried = self.retried.saturating_add(other.retried);
    }
}

fn view(connection: &Connection) -> ConnectionView {
    ConnectionView {
        connected: connection.connected,
        error: connection.error.as_deref().map(clip),
        connections: connection.generation,
    }
}

fn totals_of(value: &LiveValue) -> Totals {
    match (&value.worker, &value.client) {
        (Some(worker), _) => Totals {
            done: worker.done,
            failed: worker.failed,
            lost: worker.lost,
            retried: worker.retried,
        },
        (None, Some(client)) => Totals {
            lost: client.lost,
            ..Totals::default()
        },
        (None, None) => Totals::default(),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "observer_tests.rs"]
mod tests;
