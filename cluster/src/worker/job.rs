//! The life of one delivery, from its arrival to the removal of its message.
//!
//! A default job: slot, **claim**, **look**, checks, run, outcome, removal, release of the claim.
//!
//! - The claim is created before the look, and deleted after the message. So a worker that was
//!   stopped anywhere finds the claim of another one, or no message.
//! - The message leaves only after the outcome is stored. So whatever dies, the job is delivered
//!   again, to a worker that finds the claim and says what became of it.
//! - It is never acknowledged, but deleted by its sequence: a late acknowledgement could hit a
//!   delivery of another worker.
//!
//! An idempotent job: slot, count, checks, run, outcome, acknowledgement. Nothing forbids another
//! start.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futurepool::{EncodedCall, ErrorReport, JoinError, Payload, TaskEntry};
use tokio::sync::{Notify, OwnedSemaphorePermit as Slot};
use tokio::time::{Instant, sleep, timeout};

use super::control::add;
use super::core::{Backoff, Shared};
use super::held::{Held, Run};
use super::releases::Release;
use super::runner::{drop_error, is_own_failure};
use crate::broker::{Ack, Broker, BrokerError, Delivery, ServerTime, Store, Stored, Token};
use crate::protocol::MAX_PAYLOAD;
use crate::protocol::job::{Body, JobMessage, Mode};
use crate::protocol::live::Judgement;
use crate::protocol::names;
use crate::protocol::notice::{Event, encode};
use crate::protocol::outcome::Verdict;
use crate::trace;

/// Takes a delivery of the consumer with this index.
pub(super) fn take<B: Broker>(shared: &Rc<Shared<B>>, delivery: Delivery, index: usize) {
    let message = &delivery.message;
    shared
        .clock
        .borrow_mut()
        .learn(message.time, Instant::now());
    let ids = JobMessage::id_of(message).zip(JobMessage::client_of(message));
    let Some((id, client)) = ids.filter(|(id, client)| is_id(id) && is_id(client)) else {
        tracing::error!(seq = message.seq, "removing a message that names no job");
        spawn_done(shared, delivery.token);
        return;
    };
    let known = shared.held.borrow().get(id).map(Rc::clone);
    if let Some(held) = known {
        again(shared, held, delivery);
        return;
    }
    let entry = shared.consumers[index].1;
    let (job, problem) = match JobMessage::from_stored(message) {
        Ok(job) => (job, None),
        Err(header) => (unreadable(id, client, message), Some(header)),
    };
    // What comes when nothing is taken goes back at once.
    let admitted = shared.takes_jobs() && shared.intake.borrow_mut().admit();
    shared.count_held();
    let held = Rc::new(Held {
        id: job.id.clone(),
        client: job.client.clone(),
        detached: job.key.is_some(),
        idempotent: job.mode != Mode::Once,
        task: entry.name(),
        label: job.label.clone(),
        seq: message.seq,
        count: delivery.count,
        nonce: shared.random(),
        token: RefCell::new(delivery.token),
        admitted: Cell::new(admitted),
        listed: Cell::new(true),
        seen_in: Cell::new(shared.generation()),
        cancelled: Cell::new(false),
        abandoned: Cell::new(false),
        counted: Cell::new(false),
        newest: Cell::new(delivery.count),
        counting: Cell::new(0),
        counted_all: Notify::new(),
        run: RefCell::new(None),
        orphan_since: Cell::new(None),
    });
    let listed = Rc::clone(&held);
    shared.held.borrow_mut().insert(job.id.clone(), listed);
    let job = Job::new(shared, held, job, entry, problem, message.time);
    shared.spawner.spawn(async move { job.live().await });
}

/// Takes a message of a job that is held already.
fn again<B: Broker>(shared: &Rc<Shared<B>>, held: Rc<Held>, delivery: Delivery) {
    if held.seq != delivery.message.seq {
        // Another copy: its submitter did not know whether it had published the first.
        spawn_done(shared, delivery.token);
        return;
    }
    // The lease ran out. Else the network has doubled the delivery.
    if delivery.count <= held.newest.get() {
        return;
    }
    held.adopt(delivery);
    if held.idempotent {
        // This delivery leads to no start of its own.
        let shared_too = Rc::clone(shared);
        held.counting.set(held.counting.get() + 1);
        shared.spawner.spawn(async move {
            shared_too.count_return(&held).await;
            held.counting.set(held.counting.get() - 1);
            held.counted_all.notify_one();
        });
    }
}

/// Confirms a message that must leave the queue, whatever else happens.
fn spawn_done<B: Broker>(shared: &Rc<Shared<B>>, token: Token) {
    let shared_too = Rc::clone(shared);
    shared.spawner.spawn(async move {
        // If this fails, it comes again.
        let _ = shared_too.broker.ack(&token, Ack::Done).await;
    });
}

/// Returns a job whose message has an id and a submitter, and is malformed otherwise.
fn unreadable(id: &str, client: &str, message: &Stored) -> JobMessage {
    JobMessage {
        id: id.to_owned(),
        client: client.to_owned(),
        // It never runs, but its submitter may have claims of it.
        mode: Mode::Once,
        signature: 0,
        deadline: None,
        time_limit: None,
        label: None,
        key: None,
        traceparent: None,
        body: Body::Inline(message.payload.clone()),
    }
}

/// Returns whether a text can be the id of a job or a submitter. It becomes part of subjects.
fn is_id(text: &str) -> bool {
    let is_token = |token: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_=".contains(&byte);
        !token.is_empty() && token.bytes().all(allowed)
    };
    text.len() <= 256 && text.split('.').all(is_token)
}

/// How a run ended.
enum Ran {
    Ended(Verdict),
    /// It certainly never started. It may come again after this time.
    GiveBack(Duration),
    /// It was killed because the worker ends, and may start elsewhere.
    Killed,
}

/// A delivery, and what to do about it.
pub(super) struct Job<B: Broker> {
    pub(super) shared: Rc<Shared<B>>,
    pub(super) held: Rc<Held>,
    pub(super) message: JobMessage,
    pub(super) entry: TaskEntry,
    /// What is malformed in the message.
    problem: Option<&'static str>,
    /// When the server stored the message.
    time: ServerTime,
    /// The sequence of its claim, once this worker has it.
    pub(super) claimed: Cell<Option<u64>>,
    /// It is counted as one that waits for a slot.
    waits: Cell<bool>,
    /// Its outcome is that it is lost.
    pub(super) is_lost: Cell<bool>,
}

impl<B: Broker> Job<B> {
    fn new(
        shared: &Rc<Shared<B>>,
        held: Rc<Held>,
        message: JobMessage,
        entry: TaskEntry,
        problem: Option<&'static str>,
        time: ServerTime,
    ) -> Self {
        shared.lives.set(shared.lives.get() + 1);
        let waits = held.admitted.get();
        if waits {
            shared.waiting.set(shared.waiting.get() + 1);
        }
        Self {
            shared: Rc::clone(shared),
            held,
            message,
            entry,
            problem,
            time,
            claimed: Cell::new(None),
            waits: Cell::new(waits),
            is_lost: Cell::new(false),
        }
    }

    async fn live(self) {
        self.reached("delivered").await;
        let slot = match self.held.admitted.get() {
            true => self.slot().await,
            false => None,
        };
        self.stop_waiting();
        let Some(slot) = slot else {
            let delay = self.shared.return_delay();
            return self.give_back(delay).await;
        };
        match self.message.mode {
            Mode::Once => self.once(slot).await,
            Mode::Idempotent { attempts } => self.idempotent(slot, attempts).await,
        }
    }

    /// It has a slot, or gives up.
    fn stop_waiting(&self) {
        if self.waits.replace(false) {
            let waiting = &self.shared.waiting;
            waiting.set(waiting.get() - 1);
        }
    }

    async fn reached(&self, step: &'static str) {
        self.shared.reached(step, &self.held.id).await;
    }

    /// Waits a little for a slot. `None`: there is none, or the worker ends.
    pub(super) async fn slot(&self) -> Option<Slot> {
        let permit = Arc::clone(&self.shared.slots).acquire_owned();
        let waited = timeout(self.shared.lease() / 300, permit).await;
        waited.ok()?.ok()
    }

    async fn once(&self, slot: Slot) {
        // No other worker starts the job from here on.
        let Some((claim, slot)) = self.claim(slot).await else {
            return;
        };
        self.reached("claimed").await;
        // The claim may be new because the job was done, and its claim deleted, long ago. A
        // message leaves before its claim does.
        if !self.look().await {
            drop(slot);
            self.delete_claim(claim).await;
            self.shared.forget(&self.held);
            return;
        }
        self.reached("looked").await;
        let verdict = match self.run(slot, false).await {
            Ran::Ended(verdict) => verdict,
            Ran::GiveBack(delay) => return self.give_back(delay).await,
            Ran::Killed => {
                let text = "it was shut down while the job ran";
                Verdict::Failed(self.lost(Some(&self.shared.options.name), text))
            }
        };
        // Whatever dies from here on finds an outcome or the claim.
        self.settle(verdict).await;
        self.reached("stored").await;
        self.remove_message().await;
        self.reached("removed").await;
        self.shared.forget(&self.held);
        self.delete_arguments().await;
        self.release(claim).await;
        self.reached("released").await;
    }

    async fn idempotent(&self, slot: Slot, attempts: u32) {
        let deliveries = self.held.count;
        let mut starts = 1;
        if deliveries > 1 {
            self.shared.count(|counters| &counters.retried);
            starts = deliveries.saturating_sub(self.shared.returns(&self.held).await);
        }
        let ran = if starts > u64::from(attempts) {
            drop(slot);
            let times = starts - 1;
            let text = format!("its workers died each of the {times} times that it started");
            Ran::Ended(Verdict::Failed(self.lost(None, &text)))
        } else {
            self.run(slot, starts > 1).await
        };
        let verdict = match ran {
            Ran::Ended(verdict) => verdict,
            Ran::GiveBack(delay) => return self.give_back(delay).await,
            Ran::Killed => {
                // It has started, so this delivery counts.
                let token = self.held.token();
                self.shared.forget(&self.held);
                let back = Ack::Back(Duration::ZERO);
                let _ = self.shared.broker.ack(&token, back).await;
                return;
            }
        };
        self.settle(verdict).await;
        self.reached("stored").await;
        let token = self.held.token();
        if self.shared.broker.ack(&token, Ack::Done).await.is_err() {
            // The delivery may be forgotten, together with its consumer.
            self.remove_message().await;
        }
        self.reached("removed").await;
        self.shared.forget(&self.held);
        self.delete_arguments().await;
        // A count that ends later would leave a claim behind.
        while self.held.counting.get() > 0 {
            self.held.counted_all.notified().await;
        }
        if (deliveries > 1 || self.held.counted.get())
            && let Some((seq, _)) = self.shared.read_claim(&self.held.id).await
        {
            self.delete_claim(seq).await;
        }
        self.reached("released").await;
    }

    /// Returns whether the message was stored lately.
    pub(super) fn is_young(&self) -> bool {
        let age = self.shared.clock.borrow().age(self.time, Instant::now());
        age < self.shared.options.settings.look_period()
    }

    /// Returns whether the message is still there. Asks for the newest state.
    async fn look(&self) -> bool {
        let generation = self.shared.generation();
        let get = async || self.shared.broker.get(Store::Jobs, self.held.seq).await;
        let found = self.shared.until_known("look for a job", get).await;
        // Sequences are used again after the server lost some.
        let is_there = found.is_some_and(|found| JobMessage::id_of(&found) == Some(&self.held.id));
        if is_there {
            self.held.seen_in.set(generation);
        }
        is_there
    }

    /// Removes the message from the queue, and returns when it is gone.
    pub(super) async fn remove_message(&self) {
        let mut backoff = Backoff::default();
        loop {
            // Invariant: a delete by sequence follows a look in the same connection. The server may
            // have lost messages before a reconnect, and have used the sequence again.
            if self.held.seen_in.get() != self.shared.generation() && !self.look().await {
                return;
            }
            match self.shared.broker.delete(Store::Jobs, self.held.seq).await {
                Ok(_) => return,
                Err(error) => {
                    let what = "remove a job that is done";
                    self.shared.after_error(what, &error, &mut backoff).await;
                }
            }
        }
    }

    /// Removes arguments that travelled as a blob. The janitor removes what this misses.
    pub(super) async fn delete_arguments(&self) {
        if let Body::Blob(name) = &self.message.body {
            let _ = self.shared.broker.delete_blob(name).await;
        }
    }

    pub(super) async fn delete_claim(&self, seq: u64) {
        let delete = async || self.shared.broker.delete(Store::Claims, seq).await;
        self.shared.until_known("delete a claim", delete).await;
    }

    /// Deletes the claim of a job that has ended, once no server shows its message.
    pub(super) async fn release(&self, claim: u64) {
        let grace = self.shared.options.settings.claim_grace();
        if grace.is_zero() {
            return self.delete_claim(claim).await;
        }
        let (id, seq) = (&self.held.id, self.held.seq);
        let generation = self.held.seen_in.get();
        self.shared
            .release_later(Release::new(id, seq, claim, generation));
    }

    /// Gives the message back. The job has not started, and this delivery will never start it.
    pub(super) async fn give_back(&self, delay: Duration) {
        if self.held.idempotent {
            // It must not count as a start.
            self.shared.count_return(&self.held).await;
        } else if let Some(claim) = self.claimed.get() {
            // Else the next worker finds the claim of one that is gone.
            self.delete_claim(claim).await;
        }
        let token = self.held.token();
        self.shared.forget(&self.held);
        self.shared.count(|counters| &counters.returned);
        // If it is not heard, the lease runs out.
        let _ = self.shared.broker.ack(&token, Ack::Back(delay)).await;
    }

    /// Tells the submitter that the job is lost with the holder of the claim that was `found`.
    pub(super) async fn lose(&self, found: super::claim::Found, by: Option<&str>) {
        let name = by.map(|by| self.name_of(by));
        let text = "the worker died, or lost track of the job, after it had taken it";
        let report = self.lost(name.as_deref(), text);
        self.settle(Verdict::Failed(report)).await;
        self.remove_message().await;
        self.shared.forget(&self.held);
        if let Some((seq, _)) = found {
            self.release(seq).await;
        }
        self.delete_arguments().await;
    }

    /// Returns the name of a peer for people, if it is known.
    fn name_of(&self, key: &str) -> String {
        let live = self.shared.live.borrow();
        let name = live.value(key).map(|value| value.name.clone());
        let id = key.split_once('.').map_or(key, |(_, id)| id);
        name.filter(|name| !name.is_empty())
            .unwrap_or_else(|| id.to_owned())
    }

    /// Makes the report of a job that may have run, and of which nothing is known.
    fn lost(&self, holder: Option<&str>, text: &str) -> ErrorReport {
        let task = self.held.task;
        self.is_lost.set(true);
        tracing::warn!(job = self.held.id, task, holder, "a job is lost: {text}");
        ErrorReport::new(task, &JoinError::lost(task, holder, text, true))
    }

    /// Makes the verdict of an error. `earlier`: another delivery may have started the job.
    fn failed(&self, error: JoinError, earlier: bool) -> Verdict {
        let task = self.held.task;
        let error = match earlier {
            true => error.with_earlier_start(task),
            false => error,
        };
        let report = ErrorReport::new(task, &error).at_worker(&self.shared.options.name);
        drop_error(error);
        Verdict::Failed(report)
    }

    /// Returns the call of the job, unless it cannot run here.
    async fn check(&self) -> Result<EncodedCall, Result<JoinError, Verdict>> {
        let task = self.held.task;
        if let Some(header) = self.problem {
            let text = format!("the message of the job is malformed: {header}");
            return Err(Ok(JoinError::codec(task, text, false)));
        }
        let (theirs, ours) = (self.message.signature, self.entry.signature());
        if theirs != 0 && ours != 0 && theirs != ours {
            let text = "the worker has this version of the task with another signature";
            return Err(Ok(JoinError::refused(task, text)));
        }
        let client = names::live_client(&self.held.client);
        if !self.held.detached && self.shared.judge(&client) == Judgement::Dead {
            self.shared.count(|counters| &counters.dropped);
            tracing::info!(
                job = self.held.id,
                task,
                "dropping a job: its submitter is gone"
            );
            return Err(Err(Verdict::Dropped));
        }
        let fetched;
        let bytes: &[u8] = match &self.message.body {
            Body::Inline(bytes) => bytes,
            Body::Blob(name) => {
                let get = async || match self.shared.broker.get_blob(name, MAX_PAYLOAD).await {
                    Ok(found) => Ok(found.ok_or_else(|| "they are no longer there".into())),
                    Err(BrokerError::Refused(text)) => Ok(Err(text)),
                    Err(error) => Err(error),
                };
                match self.shared.until_known("fetch arguments", get).await {
                    Ok(data) => fetched = data,
                    Err(text) => {
                        let text = format!("the arguments could not be fetched: {text}");
                        return Err(Ok(JoinError::codec(task, text, false)));
                    }
                }
                &fetched
            }
        };
        let arguments = match Payload::from_bytes(bytes) {
            Ok(arguments) => arguments,
            Err(error) => {
                let text = format!("the arguments could not be decoded: {error}");
                return Err(Ok(JoinError::codec(task, text, false)));
            }
        };
        let mut call = self.entry.call(arguments);
        if let Some(limit) = self.message.time_limit {
            call = call.time_limit(limit);
        }
        if let Some(label) = &self.message.label {
            call = call.label(label.clone());
        }
        Ok(call)
    }

    /// Runs the job, or finds out why it cannot run. `earlier`: it may have started before.
    async fn run(&self, slot: Slot, earlier: bool) -> Ran {
        let shared = &self.shared;
        let call = match self.check().await {
            Ok(call) => call,
            Err(Ok(error)) => return Ran::Ended(self.failed(error, earlier)),
            Err(Err(verdict)) => return Ran::Ended(verdict),
        };
        self.reached("started").await;
        // Nothing below waits until the job has started.
        let age = shared.clock.borrow().age(self.time, Instant::now());
        if self.message.deadline.is_some_and(|left| age >= left) {
            return Ran::Ended(self.failed(JoinError::expired(self.held.task), earlier));
        }
        if self.held.cancelled.get() {
            return Ran::Ended(self.failed(JoinError::cancelled(), earlier));
        }
        // Others may have declared its jobs lost, if this worker was stopped.
        if !shared.takes_jobs() || !shared.is_known_alive(3) {
            return Ran::GiveBack(shared.return_delay());
        }
        let span = tracing::info_span!(
            "task",
            task = self.held.task,
            job = self.held.id,
            label = self.held.label,
            queue_ms = millis(age),
            run_ms = tracing::field::Empty,
        );
        trace::adopt(&span, self.message.traceparent.as_deref());
        let since = Instant::now();
        let running = span.in_scope(|| shared.runner.start(&self.held.id, call));
        let cancel = running.canceller();
        *self.held.run.borrow_mut() = Some(Run { since, cancel });
        // Ordering: only for readers of the counters.
        add(&shared.control.counters().running);
        let result = self.end_of(running).await;
        let took = since.elapsed();
        span.record("run_ms", millis(took));
        drop(span);
        shared
            .control
            .counters()
            .running
            .fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
        *self.held.run.borrow_mut() = None;
        drop(slot);
        let ran = match result {
            Err(error) if is_own_failure(&error) => {
                let delay = shared.note_own_failure(&error.to_string());
                match self.held.cancelled.get() {
                    true => Ran::Ended(self.failed(JoinError::cancelled(), earlier)),
                    false => Ran::GiveBack(delay),
                }
            }
            Err(error) if error.is_cancelled() && self.is_only_abandoned() => {
                let started = error.may_have_run();
                drop_error(error);
                match started {
                    true => Ran::Killed,
                    false => Ran::GiveBack(Duration::ZERO),
                }
            }
            Err(error) => Ran::Ended(self.failed(error, earlier)),
            Ok(output) => Ran::Ended(self.returned(&output)),
        };
        if !matches!(ran, Ran::GiveBack(_)) {
            shared.note_start();
            shared.intake.borrow_mut().note_run(took);
        }
        shared.changed.notify_one();
        self.reached("ran").await;
        ran
    }

    /// Waits for the end of a run. Tells the submitter if it takes a while.
    async fn end_of(&self, mut running: super::Running) -> Result<Payload, JoinError> {
        tokio::select! {
            biased;
            result = &mut running => return result,
            () = sleep(self.shared.lease() / 600) => {}
        }
        let job = self.held.id.clone();
        let worker = self.shared.options.id.clone();
        let event = encode(&Event::Started { job, worker });
        let subject = names::events(&self.held.client);
        let notify = async {
            let _ = self.shared.broker.notify(&subject, event).await;
        };
        // The end of the run does not wait for the notice.
        let ((), result) = futures::join!(notify, running);
        result
    }

    fn is_only_abandoned(&self) -> bool {
        self.held.abandoned.get() && !self.held.cancelled.get()
    }

    fn returned(&self, output: &Payload) -> Verdict {
        let len = output.encoded_len();
        if len > MAX_PAYLOAD {
            let text = format!("the output of {len} bytes is larger than {MAX_PAYLOAD}");
            return self.failed(JoinError::codec(self.held.task, text, true), false);
        }
        Verdict::Returned(Body::Inline(output.to_bytes().into()))
    }
}

impl<B: Broker> Drop for Job<B> {
    fn drop(&mut self) {
        self.stop_waiting();
        self.shared.forget(&self.held);
        self.shared.lives.set(self.shared.lives.get() - 1);
        self.shared.settled.notify_one();
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::is_id;

    #[test]
    fn an_id_is_one_token_or_more_that_dots_join() {
        for good in ["abc-1", "who.abc-1", "A_b=2E"] {
            assert!(is_id(good), "{good}");
        }
        for bad in [
            "",
            ".",
            "a.",
            "a..b",
            "a b",
            "a*",
            ">",
            "ä",
            &"x".repeat(300),
        ] {
            assert!(!is_id(bad), "{bad}");
        }
    }
}
