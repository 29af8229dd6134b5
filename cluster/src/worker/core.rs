//! What the parts of a worker share, and the loop that polls them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::watch;
use futurepool::TaskEntry;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep};

use super::control::{Control, Phase, add};
use super::held::Held;
use super::intake::Intake;
use super::nursery::{Nursery, Spawner};
use super::runner::Runner;
use super::{Failure, Options};
use super::{connection, drain, housekeeping, inbox, lease, living, pulls, releases};
use crate::broker::{Broker, BrokerError, Connection, Consumer};
use crate::protocol::live::{Judgement, Live};
use crate::protocol::names;
use crate::protocol::server_clock::ServerClock;

/// A worker. Dropping it, or the future of [`run`](Self::run), is as if the process was killed:
/// nothing is given back, and running tasks go on in their executor.
pub(crate) struct Core<B: Broker> {
    shared: Rc<Shared<B>>,
    nursery: Nursery,
}

impl<B: Broker> Core<B> {
    /// Makes a worker over a connection of its own, for a namespace whose stores exist.
    pub(crate) fn new(broker: B, options: Options, runner: Rc<dyn Runner>) -> (Self, Control) {
        let nursery = Nursery::default();
        let control = Control::new();
        let shared = Shared::new(broker, options, runner, nursery.spawner(), control.clone());
        let core = Self {
            shared: Rc::new(shared),
            nursery,
        };
        (core, control)
    }

    /// Takes jobs until the worker was drained, or broke. Closes the connection.
    pub(crate) async fn run(mut self) -> Result<(), Failure> {
        let shared = Rc::clone(&self.shared);
        let spawner = self.nursery.spawner();
        spawner.spawn(connection::keep(Rc::clone(&shared)));
        spawner.spawn(living::write(Rc::clone(&shared)));
        spawner.spawn(living::watch(Rc::clone(&shared)));
        spawner.spawn(inbox::listen(Rc::clone(&shared)));
        spawner.spawn(lease::extend(Rc::clone(&shared)));
        spawner.spawn(pulls::pull(Rc::clone(&shared)));
        spawner.spawn(releases::release(Rc::clone(&shared)));
        spawner.spawn(housekeeping::keep_clean(Rc::clone(&shared)));
        let result = tokio::select! {
            biased;
            result = drain::until_done(&shared) => result,
            () = self.nursery.run() => unreachable!("a nursery runs for ever"),
        };
        // Nothing may write the own key after the farewell.
        drop(self.nursery);
        living::farewell(&shared).await;
        shared.broker.close().await;
        result
    }
}

/// What the parts of a worker share.
pub(super) struct Shared<B: Broker> {
    pub(super) broker: B,
    pub(super) options: Options,
    /// The worker's key in the store of the living.
    pub(super) key: String,
    /// The tasks, in the order of the intake's consumers.
    pub(super) consumers: Vec<(Consumer, TaskEntry)>,
    pub(super) runner: Rc<dyn Runner>,
    pub(super) spawner: Spawner,
    pub(super) control: Control,
    pub(super) live: RefCell<Live>,
    pub(super) clock: RefCell<ServerClock>,
    rng: RefCell<fastrand::Rng>,
    pub(super) intake: RefCell<Intake>,
    /// Deliveries that wait for a slot, or are about to.
    pub(super) waiting: Cell<usize>,
    /// One permit for each slot. Closed when the worker takes no more jobs.
    pub(super) slots: Arc<Semaphore>,
    /// The deliveries that this worker holds, by the ids of their jobs.
    pub(super) held: RefCell<BTreeMap<String, Rc<Held>>>,
    pub(super) releases: releases::Releases,
    /// The intake or a slot has changed, so that more may be asked for.
    pub(super) changed: Notify,
    /// The generation for which stores are there and the own key is written.
    pub(super) ready: watch::Sender<Option<u64>>,
    connection: watch::Receiver<Connection>,
    /// Failures of the executor in a row.
    failures: Cell<u32>,
    /// Until then nothing is taken, because the executor failed.
    pub(super) paused_until: Cell<Option<Instant>>,
    /// Why the worker cannot go on.
    pub(super) failure: watch::Sender<Option<Failure>>,
    /// Nothing is asked for, nor ever will be.
    pub(super) pulls_ended: Cell<bool>,
    /// Lives of deliveries that have not ended.
    pub(super) lives: Cell<usize>,
    /// A life has ended, or the pulls have.
    pub(super) settled: Notify,
    /// When the own key was sent that was confirmed last.
    pub(super) confirmed: Cell<Option<Instant>>,
    complained: Cell<Option<Instant>>,
}

/// After so many failures of its executor in a row a worker is broken.
const MAX_FAILURES: u32 = 5;

impl<B: Broker> Shared<B> {
    fn new(
        broker: B,
        options: Options,
        runner: Rc<dyn Runner>,
        spawner: Spawner,
        control: Control,
    ) -> Self {
        let key = names::live_worker(&options.id);
        let consumers = options.tasks.iter().map(|entry| {
            let subject = names::job_subject(&options.queue, entry.name(), entry.version());
            (Consumer::Jobs(subject.into()), *entry)
        });
        let consumers: Vec<_> = consumers.collect();
        Self {
            live: RefCell::new(Live::new(key.clone(), &options.settings)),
            clock: RefCell::default(),
            rng: RefCell::new(fastrand::Rng::with_seed(options.seed)),
            intake: RefCell::new(Intake::new(options.slots, consumers.len())),
            slots: Arc::new(Semaphore::new(options.slots.max(1))),
            waiting: Cell::new(0),
            held: RefCell::default(),
            releases: releases::Releases::default(),
            changed: Notify::new(),
            ready: watch::Sender::new(None),
            connection: broker.connection(),
            failures: Cell::new(0),
            paused_until: Cell::new(None),
            failure: watch::Sender::new(None),
            pulls_ended: Cell::new(false),
            lives: Cell::new(0),
            settled: Notify::new(),
            confirmed: Cell::new(None),
            complained: Cell::new(None),
            broker,
            options,
            key,
            consumers,
            runner,
            spawner,
            control,
        }
    }

    pub(super) fn lease(&self) -> Duration {
        self.options.settings.lease
    }

    /// Returns whether jobs may be taken and started.
    pub(super) fn takes_jobs(&self) -> bool {
        !self.is_ending() && !self.is_paused()
    }

    /// Returns whether no job will ever be taken again.
    pub(super) fn is_ending(&self) -> bool {
        self.control.is_draining() || self.failure.borrow().is_some()
    }

    /// Returns how many slots have no job, nor one that waits for them.
    pub(super) fn free_slots(&self) -> usize {
        let free = self.slots.available_permits();
        free.saturating_sub(self.waiting.get())
    }

    /// Returns whether the own key was written within so many periods.
    ///
    /// After four others judge this worker dead, and declare its jobs lost.
    pub(super) fn is_known_alive(&self, periods: u32) -> bool {
        let limit = self.options.settings.live_period() * periods;
        let confirmed = self.confirmed.get();
        confirmed.is_some_and(|at| at.elapsed() <= limit)
    }

    fn is_paused(&self) -> bool {
        let until = self.paused_until.get();
        until.is_some_and(|until| Instant::now() < until)
    }

    /// Returns how long a delivery stays away that this worker does not start.
    pub(super) fn return_delay(&self) -> Duration {
        match self.is_paused() {
            // It would come back at once, if nothing else asks for it.
            true => self.lease() / 100,
            false => Duration::ZERO,
        }
    }

    /// Waits until no job will ever be taken again.
    pub(super) async fn ending(&self) {
        let mut failure = self.failure.subscribe();
        tokio::select! {
            biased;
            () = self.control.reached(Phase::Drain) => {}
            _ = failure.wait_for(Option::is_some) => {}
        }
    }

    pub(super) fn connection(&self) -> watch::Receiver<Connection> {
        self.connection.clone()
    }

    pub(super) fn generation(&self) -> u64 {
        self.connection.borrow().generation
    }

    pub(super) fn random(&self) -> u64 {
        // JSON of other languages has no larger integers.
        self.rng.borrow_mut().u64(1..1 << 53)
    }

    pub(super) fn judge(&self, key: &str) -> Judgement {
        self.live.borrow_mut().judge(key, Instant::now())
    }

    /// Does a step of the protocol until its result is known. `what` is for a warning.
    pub(super) async fn until_known<T>(
        &self,
        what: &'static str,
        operation: impl AsyncFn() -> Result<T, BrokerError>,
    ) -> T {
        let mut backoff = Backoff::default();
        loop {
            match operation().await {
                Ok(value) => return value,
                Err(error) => self.after_error(what, &error, &mut backoff).await,
            }
        }
    }

    /// Waits before a step is tried again. Makes stores that are missing.
    pub(super) async fn after_error(
        &self,
        what: &'static str,
        error: &BrokerError,
        backoff: &mut Backoff,
    ) {
        match error {
            BrokerError::Unreachable(_) => {}
            BrokerError::Missing(_) => {
                let settings = &self.options.settings;
                let _ = self.broker.ensure_stores(settings, true).await;
            }
            BrokerError::Refused(text) => self.complain(what, text),
        }
        self.pause(backoff).await;
    }

    /// Waits for a while, longer each time, or until another connection is made.
    pub(super) async fn pause(&self, backoff: &mut Backoff) {
        let delay = backoff.next(&mut self.rng.borrow_mut());
        let mut connection = self.connection();
        let generation = connection.borrow().generation;
        tokio::select! {
            biased;
            _ = connection.wait_for(|now| now.generation != generation) => {}
            () = sleep(delay) => {}
        }
    }

    /// Reports what goes wrong on and on, but not each time.
    pub(super) fn complain(&self, what: &str, error: &str) {
        let now = Instant::now();
        let last = self.complained.get();
        if last.is_some_and(|last| now - last < Duration::from_secs(5)) {
            return;
        }
        self.complained.set(Some(now));
        let worker = &self.options.name;
        tracing::warn!(%worker, error, "cannot {what}, and will try again");
    }

    /// Notes that the executor could not start a job. Returns after which time the job may come
    /// back.
    pub(super) fn note_own_failure(&self, text: &str) -> Duration {
        let unit = self.lease() / 100;
        if !self.is_paused() {
            // Jobs that fail together are one failure.
            let failures = self.failures.get() + 1;
            self.failures.set(failures);
            let delay = unit * 2_u32.pow(failures.min(5));
            self.paused_until.set(Some(Instant::now() + delay));
            tracing::warn!(
                worker = %self.options.name,
                failures,
                error = text,
                "the executor cannot start a task"
            );
            if failures >= MAX_FAILURES {
                self.fail(Failure::Broken(text.into()));
            }
            self.changed.notify_one();
        }
        unit
    }

    /// Notes that the executor has run a task.
    pub(super) fn note_start(&self) {
        self.failures.set(0);
    }

    /// Ends the worker. The first reason counts.
    pub(super) fn fail(&self, failure: Failure) {
        if self.failure.borrow().is_none() {
            tracing::error!(worker = %self.options.name, "{failure}");
            self.failure.send_replace(Some(failure));
        }
    }

    /// Drops a delivery from the table, and from what is counted as held.
    pub(super) fn forget(&self, held: &Held) {
        if held.listed.replace(false) {
            self.held.borrow_mut().remove(&held.id);
        }
        if held.admitted.replace(false) {
            self.intake.borrow_mut().release();
            self.changed.notify_one();
        }
        self.count_held();
    }

    pub(super) fn count_held(&self) {
        let intake = self.intake.borrow();
        let counters = self.control.counters();
        // Ordering: only for readers of the counters.
        let held = intake.held() as u64;
        counters.held.store(held, Ordering::Relaxed);
        let most = intake.most_held() as u64;
        counters.most_held.store(most, Ordering::Relaxed);
    }

    pub(super) fn count(&self, counter: impl Fn(&super::control::Counters) -> &AtomicU64) {
        add(counter(self.control.counters()));
    }

    /// Tells tests that a step is done.
    pub(super) async fn reached(&self, step: &'static str, job: &str) {
        let Some(hook) = &self.options.steps else {
            return;
        };
        hook(step, job);
        // What polls the core may drop it here, or poll it no more.
        self.spawner.pause().await;
    }
}

/// How long to wait before a step is tried again.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    tries: u32,
}

impl Backoff {
    /// From 100 ms on, doubling to 1 s, and up to half of it less.
    fn next(&mut self, rng: &mut fastrand::Rng) -> Duration {
        let millis = (100_u64 << self.tries.min(4)).min(1000);
        self.tries += 1;
        Duration::from_millis(rng.u64(millis / 2..=millis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_second() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut backoff = Backoff::default();
        for limit in [100, 200, 400, 800, 1000, 1000] {
            let limit = Duration::from_millis(limit);
            let delay = backoff.next(&mut rng);
            assert!(delay >= limit / 2 && delay <= limit, "{delay:?}");
        }
    }
}
