//! Which worker has which job, as far as it is known, and what follows from a worker's death.
//!
//! A job's holder is known from a notice, which can be lost, or from its claim. So the death of a
//! worker is a reason to read the claims of all default jobs whose holder is not known to live.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use futurepool::JoinError;
use tokio::time::{Instant, sleep};

use crate::broker::{Broker, BrokerError, Consumer, Inbox as _, PublishError, Store, Watch as _};
use crate::protocol::claim::{Claim, ClaimState};
use crate::protocol::live::{ClientValue, Judgement, LiveValue};
use crate::protocol::names;
use crate::protocol::notice::{self, Control, Event};
use crate::submitter::core::{Backoff, Ctx};
use crate::submitter::fence::GONE;
use crate::submitter::job::{Job, Phase};

/// The workers that this submitter judges, and the jobs that wait for each task.
#[derive(Debug, Default)]
pub(crate) struct Holders {
    /// Workers that are not known to be dead, by their keys: their names for people.
    workers: BTreeMap<Arc<str>, String>,
    /// Names of workers that may be dead.
    names: BTreeMap<Arc<str>, String>,
    groups: BTreeMap<Arc<str>, Group>,
}

/// The jobs of one queue, task and version.
#[derive(Debug)]
struct Group {
    queue: String,
    task: String,
    version: u32,
    unresolved: usize,
    /// Since when no live worker takes them.
    unserved: Option<Instant>,
    warned: bool,
}

/// So many names of dead workers are kept, for the errors of their jobs.
const NAMES: usize = 1_000;

impl Holders {
    pub(crate) fn on_submit(&mut self, job: &Job) {
        let subject = &job.call.subject;
        if let Some(group) = self.groups.get_mut(subject) {
            group.unresolved += 1;
            return;
        }
        let Some((queue, task, version)) = names::parse_job_subject(subject) else {
            return;
        };
        let group = Group {
            queue,
            task,
            version,
            unresolved: 1,
            unserved: None,
            warned: false,
        };
        self.groups.insert(Arc::clone(subject), group);
    }

    pub(crate) fn on_end(&mut self, job: &Job) {
        if let Some(group) = self.groups.get_mut(&job.call.subject) {
            group.unresolved -= 1;
        }
    }

    /// Returns the subjects of unresolved jobs.
    pub(crate) fn subjects(&self) -> Vec<Arc<str>> {
        let busy = self.groups.iter().filter(|(_, group)| group.unresolved > 0);
        busy.map(|(subject, _)| Arc::clone(subject)).collect()
    }

    fn on_worker(&mut self, key: &str, name: Option<&str>) {
        if let Some(name) = name {
            match self.workers.get_mut(key) {
                Some(known) if known == name => {}
                Some(known) => name.clone_into(known),
                None => drop(self.workers.insert(key.into(), name.to_owned())),
            }
        } else if !self.workers.contains_key(key) {
            self.workers.insert(key.into(), String::new());
        }
    }

    fn on_death(&mut self, key: &str) {
        if let Some((key, name)) = self.workers.remove_entry(key) {
            if self.names.len() >= NAMES {
                self.names.pop_first();
            }
            self.names.insert(key, name);
        }
    }
}

impl<B: Broker> Ctx<B> {
    /// Returns what people call the worker with this key.
    pub(crate) fn name_of(&self, key: &str) -> String {
        let holders = self.holders.borrow();
        let name = holders.workers.get(key).or_else(|| holders.names.get(key));
        match name {
            Some(name) if !name.is_empty() => name.clone(),
            _ => key.strip_prefix("w.").unwrap_or(key).to_owned(),
        }
    }

    /// Notes that the worker with this key has a job.
    pub(crate) fn note_holder(&self, key: u64, number: u64, holder: &str) {
        let mut holders = self.holders.borrow_mut();
        holders.on_worker(holder, None);
        let shared = holders.workers.get_key_value(holder);
        let holder = shared.map(|(key, _)| Arc::clone(key));
        drop(holders);
        self.with_job(key, |job| {
            if job.number == Some(number) {
                job.holder = holder;
            }
        });
    }

    /// Follows the keys of the living.
    pub(crate) async fn watch_live(self: Rc<Self>) {
        loop {
            self.until_ready().await;
            let mut watch = self.retry(|| self.broker.watch(Store::Live, true)).await;
            let mut echo = Instant::now();
            loop {
                let message = tokio::select! { biased;
                    message = watch.next() => message,
                    () = sleep(self.times.live_period) => {
                        // Its key was confirmed and did not come: the watch has stalled.
                        let limit = echo + self.times.live_period * 3;
                        if self.link.answered().is_some_and(|answered| answered > limit) {
                            break;
                        }
                        continue;
                    }
                };
                let Some(message) = message else {
                    break;
                };
                let now = Instant::now();
                if message.subject == self.me {
                    echo = now;
                }
                self.live.borrow_mut().on_message(&message, now);
                if message.subject.starts_with("w.") && !message.is_deletion() {
                    let value = serde_json::from_slice::<LiveValue>(&message.payload).ok();
                    let name = value.as_ref().map_or("", |value| value.name.as_str());
                    let mut holders = self.holders.borrow_mut();
                    holders.on_worker(&message.subject, Some(name));
                } else if message.is_deletion() {
                    // It left, which is as good as dead.
                    self.judge_all(now);
                }
            }
            self.live.borrow_mut().on_break();
            self.back_off(&mut Backoff::default()).await;
        }
    }

    /// Judges all workers each tick.
    pub(crate) async fn judge_holders(self: Rc<Self>) {
        let mut ticks = 0_u32;
        loop {
            sleep(self.times.tick).await;
            let now = Instant::now();
            self.judge_all(now);
            ticks = ticks.wrapping_add(1);
            if ticks.is_multiple_of(5) {
                self.look_for_workers(now);
                self.live.borrow_mut().forget_old(now);
            }
        }
    }

    fn judge_all(self: &Rc<Self>, now: Instant) {
        let dead: Vec<Arc<str>> = {
            let mut live = self.live.borrow_mut();
            let holders = self.holders.borrow();
            let keys = holders.workers.keys();
            let dead = keys.filter(|key| live.judge(key, now) == Judgement::Dead);
            dead.cloned().collect()
        };
        if dead.is_empty() {
            return;
        }
        let mut holders = self.holders.borrow_mut();
        for key in &dead {
            holders.on_death(key);
        }
        drop(holders);
        let mut suspects = Vec::new();
        for (key, job) in self.jobs.borrow_mut().iter_mut() {
            let is_suspect = match &job.holder {
                Some(holder) => dead.contains(holder),
                None => true,
            };
            if is_suspect && job.call.is_once() && job.phase != Phase::Unsent {
                job.check_claim = true;
                suspects.push(key);
            } else if is_suspect {
                // It is delivered to another one.
                job.holder = None;
            }
        }
        for key in suspects {
            self.poke(key);
        }
    }

    /// Reads a default job's claim, because its holder is dead, or a worker that may hold it.
    pub(crate) async fn check_claim(self: &Rc<Self>, key: u64) {
        let Some(Some(number)) = self.with_job(key, |job| {
            job.check_claim = false;
            job.number
        }) else {
            return;
        };
        let id = self.id(number);
        loop {
            let Some(stored) = self.retry(|| self.broker.last(Store::Claims, &id)).await else {
                // It is not started, or its outcome is under way, or it was given back.
                self.with_job(key, |job| job.holder = None);
                return;
            };
            let Some(claim) = Claim::from_stored(&stored) else {
                return;
            };
            match claim.state {
                ClaimState::Held if !self.is_open(key, number) => return,
                ClaimState::Held => {}
                // Of this submitter. It is removed even if an outcome came first.
                ClaimState::Lost => return self.end_lost(key, number, &claim, stored.seq).await,
                ClaimState::Never | ClaimState::Returns => return,
            }
            let judgement = self.live.borrow_mut().judge(&claim.by, Instant::now());
            if judgement != Judgement::Dead {
                self.note_holder(key, number, &claim.by);
                self.with_job(key, |job| job.news = Instant::now());
                return;
            }
            self.with_job(key, |job| job.holder = Some(claim.by.as_str().into()));
            if self.end_if_held(key, number, claim, stored.seq).await {
                return;
            }
        }
    }

    /// Changes the claim of a dead holder to lost, and ends the job. Returns `false` if the claim
    /// may have changed meanwhile.
    async fn end_if_held(self: &Rc<Self>, key: u64, number: u64, claim: Claim, at: u64) -> bool {
        let id = &self.id(number);
        let lost = Claim {
            state: ClaimState::Lost,
            by: self.me.clone(),
            nonce: self.random(),
            ..claim
        };
        let error = match self
            .broker
            .publish(Store::Claims, lost.to_outgoing(id, at))
            .await
        {
            Ok(at) => {
                self.end_lost(key, number, &lost, at).await;
                return true;
            }
            Err(PublishError::Conflict) => return false,
            Err(PublishError::Other(error)) => error,
            Err(error) => BrokerError::Refused(error.to_string().into()),
        };
        self.pause(&mut Backoff::default(), &error).await;
        false
    }

    /// Asks the holder of a job whose message is gone whether it has the job. A holder that says no
    /// twice has lost track of it.
    async fn ask_holder(self: &Rc<Self>, key: u64, number: u64) {
        let id = self.id(number);
        for round in 0..2 {
            let stored = self.retry(|| self.broker.last(Store::Claims, &id)).await;
            let Some((stored, claim)) =
                stored.and_then(|stored| Claim::from_stored(&stored).map(|claim| (stored, claim)))
            else {
                return;
            };
            let (ClaimState::Held, Some(worker)) = (claim.state, claim.by.strip_prefix("w."))
            else {
                return;
            };
            let question = Control::Holds {
                job: id.clone(),
                nonce: claim.nonce,
            };
            let subject = names::control(worker);
            let answer = self.broker.ask(&subject, notice::encode(&question)).await;
            let answer = answer.ok().flatten();
            if answer.and_then(|answer| notice::decode(&answer)) != Some(false) {
                return;
            }
            match round {
                0 => sleep(self.times.lease / 10).await,
                _ => {
                    if self.is_open(key, number) {
                        self.end_if_held(key, number, claim, stored.seq).await;
                    }
                }
            }
        }
    }

    /// Makes the consumer anew that has skipped a job: it was ahead of a store that was rolled back.
    async fn check_consumer(self: &Rc<Self>, key: u64) {
        let Some(subject) = self.with_job(key, |job| Arc::clone(&job.call.subject)) else {
            return;
        };
        let Ok(consumers) = self.broker.consumers().await else {
            return;
        };
        let consumer = Consumer::Jobs(subject);
        let skips = consumers
            .iter()
            .any(|info| info.consumer == consumer && info.waiting == 0 && info.delivered == 0);
        if skips {
            tracing::warn!("the consumer of {} has skipped a job", consumer.subject());
            // Without the permission, a worker has to do it.
            let _ = self.broker.delete_consumer(&consumer).await;
            let _ = self.broker.ensure_consumer(&consumer).await;
        }
    }

    /// Looks after a job without news.
    pub(crate) async fn look(self: &Rc<Self>, key: u64) {
        let Some((Some(number), Phase::Queued { seq })) =
            self.with_job(key, |job| (job.number, job.phase))
        else {
            return;
        };
        let id = self.id(number);
        let is_once = self.with_job(key, |job| job.call.is_once()) == Some(true);
        let is_there = self.has_message(seq, &id).await;
        let has_claim = match is_once {
            true => {
                self.check_claim(key).await;
                self.with_job(key, |job| job.holder.is_some()) == Some(true)
            }
            false => false,
        };
        if is_there && !has_claim {
            let was_waiting = self.with_job(key, |job| {
                std::mem::replace(&mut job.was_waiting, true) && job.holder.is_none()
            });
            if was_waiting == Some(true) {
                self.check_consumer(key).await;
            }
        } else {
            self.with_job(key, |job| job.was_waiting = false);
        }
        if !is_there && has_claim {
            self.ask_holder(key, number).await;
        }
        if !is_there && !has_claim {
            // Both are gone, in this order: so an outcome was stored before, if there ever was one.
            self.outcomes_until_now().await;
            if !self.is_open(key, number) {
                return;
            }
            if is_once {
                let error = JoinError::lost(self.task_of(key), None, GONE, true);
                return self.end_with(key, error).await;
            }
            tracing::warn!("job {id} was no longer in the queue, and is submitted again");
            self.with_job(key, |job| {
                job.republished += 1;
                job.phase = Phase::Unconfirmed;
            });
        }
        self.with_job(key, |job| job.news = Instant::now());
    }

    /// Receives the notices of workers that have started a job.
    pub(crate) async fn receive_events(self: Rc<Self>) {
        let subjects = [names::events(&self.config.client)];
        self.until_ready().await;
        let mut inbox = self.retry(|| self.broker.inbox(&subjects)).await;
        loop {
            let notice = inbox.next().await;
            let Some(Event::Started { job, worker }) = notice::decode(&notice.payload) else {
                continue;
            };
            let Some(number) = self.number_of(&job) else {
                continue;
            };
            let key = self.jobs.borrow().key_of(number);
            if let Some(key) = key {
                self.note_holder(key, number, &names::live_worker(&worker));
                self.with_job(key, |job| job.news = Instant::now());
            }
        }
    }

    /// Writes this submitter's key each period.
    pub(crate) async fn write_live(self: Rc<Self>) {
        loop {
            sleep(self.times.live_period).await;
            self.until_ready().await;
            // A failed one is tried again a little earlier than the next.
            let mut is_written = false;
            for _ in 0..3 {
                is_written = self.announce().await.is_ok();
                if is_written {
                    break;
                }
                sleep(self.times.live_period / 8).await;
            }
            if !is_written {
                self.link.check();
            }
        }
    }

    /// Writes this submitter's key.
    pub(crate) async fn announce(&self) -> Result<(), PublishError> {
        if self.link.is_leaving() {
            // The task that asks is stopped with the core.
            return std::future::pending().await;
        }
        let counts = self.shared.counters.snapshot();
        let limit = self.config.disconnect_limit;
        let value = LiveValue {
            name: self.config.name.clone(),
            worker: None,
            client: Some(ClientValue {
                pending: usize::try_from(counts.pending).unwrap_or(usize::MAX),
                window: self.shared.window.size(),
                submitted: counts.submitted,
                lost: counts.lost,
                disconnect_limit_ms: limit
                    .map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)),
            }),
        };
        let message = value.to_outgoing(&self.me);
        self.broker.publish(Store::Live, message).await?;
        self.link.on_answer();
        Ok(())
    }

    /// Warns of jobs that no live worker takes, and ends them if that was asked for.
    fn look_for_workers(self: &Rc<Self>, now: Instant) {
        let mut ended = Vec::new();
        {
            let live = self.live.borrow();
            let mut holders = self.holders.borrow_mut();
            for (subject, group) in &mut holders.groups {
                let serves = |value: &LiveValue| {
                    value.worker.as_ref().is_some_and(|worker| {
                        let mut tasks = worker.tasks.iter();
                        worker.queue == group.queue
                            && worker.state == "running"
                            && tasks.any(|(task, version)| {
                                *task == group.task && *version == group.version
                            })
                    })
                };
                let is_served = live.alive(now).any(|(_, value)| serves(value));
                if is_served || group.unresolved == 0 || !self.link.is_ready() {
                    group.unserved = None;
                    continue;
                }
                let since = now.saturating_duration_since(*group.unserved.get_or_insert(now));
                if since >= self.times.live_period * 3 && !group.warned {
                    group.warned = true;
                    tracing::warn!(
                        "no live worker of queue {:?} has the task {:?}, version {}",
                        group.queue,
                        group.task,
                        group.version
                    );
                }
                let limit = self.config.no_worker_timeout;
                if limit.is_some_and(|limit| since >= limit) {
                    ended.push(Arc::clone(subject));
                }
            }
        }
        if ended.is_empty() {
            return;
        }
        let limit = self.config.no_worker_timeout.unwrap_or_default();
        let mut keys = Vec::new();
        for (key, job) in self.jobs.borrow_mut().iter_mut() {
            let waited = now.saturating_duration_since(job.submitted_at);
            if ended.contains(&job.call.subject) && waited >= limit && job.holder.is_none() {
                job.no_worker = true;
                keys.push(key);
            }
        }
        for key in keys {
            self.poke(key);
        }
    }
}
