//! How a default job is kept from starting, and what is certain then.
//!
//! The submitter creates the job's claim as "never". A worker runs a default job only after it has
//! created the same claim, so one of both wins. But a claim that can be created proves less than it
//! seems: a worker that has *finished* the job has deleted its claim, too. Its order is: the
//! outcome is stored, the message deleted, the claim deleted. So "it never ran" needs one of two
//! further proofs, each read after the claim was created:
//!
//! - The message is still there. Then no worker has finished the job.
//! - No outcome of the job is stored that this submitter has not seen ([`sweep`]).
//!
//! [`sweep`]: crate::submitter::outcomes

use std::rc::Rc;
use std::time::Duration;

use futurepool::JoinError;
use tokio::time::{Instant, sleep};

use crate::broker::{Broker, BrokerError, PublishError, Store};
use crate::protocol::claim::{Claim, ClaimState};
use crate::protocol::job::JobMessage;
use crate::protocol::names;
use crate::protocol::notice::{self, Control};
use crate::submitter::core::{Backoff, Ctx};
use crate::submitter::job::{Phase, Stop};

/// The server keeps outcomes for an hour. What is older than this may be gone.
const OUTCOMES_LAST: Duration = Duration::from_secs(50 * 60);

/// How long after a reconnect a message can still arrive that was handed over before.
const LATE_ARRIVAL: Duration = Duration::from_secs(60);

/// A claim that must outlive a message which may still arrive.
#[derive(Debug)]
pub(crate) struct Retired {
    /// The sequence of the claim.
    claim: u64,
    /// Since when nothing can be handed over under the id.
    since: Instant,
    generation: Option<u64>,
    /// No message of the id can come with a higher sequence. Known after a while.
    last: Option<u64>,
    /// Since when no such message is stored.
    gone: Option<Instant>,
}

/// What became of the attempt to forbid a job.
#[derive(Debug)]
pub(crate) enum Forbid {
    /// The claim says never, and has this sequence.
    Never(u64),
    /// A worker has it.
    Held(Claim),
    /// This submitter has judged that its holder is dead.
    Lost(Claim, u64),
}

/// The name of the blob with the arguments of a job.
pub(crate) fn blob_of(id: &str) -> String {
    format!("a.{id}")
}

impl<B: Broker> Ctx<B> {
    /// Creates the claim of a job as "never", or finds out what it is.
    pub(crate) async fn forbid(&self, id: &str, seq: u64) -> Forbid {
        let nonce = self.random();
        let never = Claim {
            state: ClaimState::Never,
            by: self.me.clone(),
            nonce,
            seq,
            returns: 0,
        };
        let mut backoff = Backoff::default();
        loop {
            let error = match self
                .broker
                .publish(Store::Claims, never.to_outgoing(id, 0))
                .await
            {
                Ok(claim) => return Forbid::Never(claim),
                Err(PublishError::Conflict) => {
                    let Some(stored) = self.retry(|| self.broker.last(Store::Claims, id)).await
                    else {
                        continue;
                    };
                    match Claim::from_stored(&stored) {
                        Some(claim) => match claim.state {
                            // Of this attempt, or of an earlier one.
                            ClaimState::Never => return Forbid::Never(stored.seq),
                            ClaimState::Held | ClaimState::Returns => return Forbid::Held(claim),
                            ClaimState::Lost => return Forbid::Lost(claim, stored.seq),
                        },
                        None => {
                            tracing::error!("the claim of job {id} is malformed");
                            BrokerError::Unreachable("a malformed claim".into())
                        }
                    }
                }
                Err(PublishError::Other(error)) => error,
                Err(error @ (PublishError::Full | PublishError::TooLarge)) => {
                    BrokerError::Refused(error.to_string().into())
                }
            };
            self.pause(&mut backoff, &error).await;
        }
    }

    /// Finds out what became of a default job whose publish was not confirmed. If it never ran, it
    /// is submitted again under another id.
    pub(crate) async fn fence(self: &Rc<Self>, key: u64) {
        let Some((number, sent_at)) = self.with_job(key, |job| (job.number, job.sent_at)) else {
            return;
        };
        let Some(number) = number else {
            // It has no id, so nothing was sent.
            return self.jobs.borrow_mut().put_back(key);
        };
        let id = self.id(number);
        match self.forbid(&id, 0).await {
            Forbid::Held(claim) => self.on_held(key, number, &claim),
            Forbid::Lost(claim, at) => self.end_lost(key, number, &claim, at).await,
            Forbid::Never(claim) => {
                self.outcomes_until_now().await;
                self.retire(claim);
                if !self.is_open(key, number) {
                    return;
                }
                if sent_at.elapsed() > OUTCOMES_LAST {
                    let text = "its outcome, if there was one, is no longer kept";
                    let error = JoinError::lost(self.task_of(key), None, text, true);
                    return self.end_with(key, error).await;
                }
                self.delete_blob_later(blob_of(&id));
                self.jobs.borrow_mut().reissue(key);
            }
        }
    }

    /// A worker has the job.
    pub(crate) fn on_held(self: &Rc<Self>, key: u64, number: u64, claim: &Claim) {
        self.note_holder(key, number, &claim.by);
        self.with_job(key, |job| {
            if job.number != Some(number) {
                return;
            }
            job.news = Instant::now();
            if job.phase == Phase::Unconfirmed {
                job.phase = Phase::Queued { seq: claim.seq };
            }
        });
        let is_detached = self.with_job(key, |job| job.call.key.is_some());
        if is_detached == Some(true) {
            self.spawn_short(Rc::clone(self).keep_sequence(key, number, claim.seq));
        }
    }

    /// Stops a job that is in the queue, or with a worker.
    pub(crate) async fn stop(self: &Rc<Self>, key: u64, stop: Stop) {
        let Some((number, phase, is_once, task)) = self.with_job(key, |job| {
            (job.number, job.phase, job.call.is_once(), job.call.task)
        }) else {
            return;
        };
        let (Some(number), Phase::Queued { seq }) = (number, phase) else {
            return;
        };
        let id = self.id(number);
        if !is_once {
            return self.stop_idempotent(key, number, seq, stop).await;
        }
        match self.forbid(&id, seq).await {
            Forbid::Lost(claim, at) => self.end_lost(key, number, &claim, at).await,
            Forbid::Held(claim) => {
                self.on_held(key, number, &claim);
                let again = match stop {
                    Stop::Cancelled => {
                        self.ask_to_cancel(&id, Some(&claim.by)).await;
                        // Its holder may give it back, and another one start it.
                        let tries = self.with_job(key, |job| {
                            job.stopped = job.stopped.saturating_add(1);
                            job.stopped
                        });
                        let factor = 1 << tries.unwrap_or(0).saturating_sub(5).min(16);
                        (self.times.stop_again * factor).min(self.times.look_period)
                    }
                    // It runs, so its deadline means nothing, unless its holder gives it back.
                    Stop::Expired | Stop::NoWorker => self.times.look_period,
                };
                self.with_job(key, |job| {
                    job.no_worker = false;
                    job.stop_again = Some(Instant::now() + again);
                });
            }
            Forbid::Never(claim) => {
                let is_there = self.has_message(seq, &id).await;
                if !is_there {
                    self.outcomes_until_now().await;
                }
                if self.is_open(key, number) {
                    let facts = self.with_job(key, |job| {
                        let is_recent = job.sent_at.elapsed() < OUTCOMES_LAST;
                        (job.is_rolled_back, is_recent)
                    });
                    let error = match facts {
                        // An earlier copy may have run, and its outcome been lost.
                        Some((true, _)) => stop.error(task).with_earlier_start(task),
                        Some((false, is_recent)) if is_there || is_recent => stop.error(task),
                        _ => JoinError::lost(task, None, GONE, true),
                    };
                    self.end_with(key, error).await;
                }
                self.remove(&id, seq, claim).await;
            }
        }
    }

    async fn stop_idempotent(self: &Rc<Self>, key: u64, number: u64, seq: u64, stop: Stop) {
        let id = self.id(number);
        let is_running = self.with_job(key, |job| job.holder.is_some());
        if stop != Stop::Cancelled && is_running == Some(true) {
            self.with_job(key, |job| {
                job.no_worker = false;
                job.stop_again = Some(Instant::now() + self.times.look_period);
            });
            return;
        }
        let Some(error) = self.with_job(key, |job| {
            let error = stop.error(job.call.task);
            error.with_earlier_start(job.call.task)
        }) else {
            return;
        };
        // What is kept of a detached job ends before its message goes.
        let found = self.keep_error(key, &error).await;
        self.delete_message(&id, seq).await;
        self.ask_to_cancel(&id, None).await;
        if self.is_open(key, number) {
            self.delete_blob_later(blob_of(&id));
            self.end_as_kept(key, error, found).await;
        }
    }

    /// Asks the worker with this key, or all, to stop a job.
    pub(crate) async fn ask_to_cancel(&self, id: &str, holder: Option<&str>) {
        let subject = match holder.and_then(|key| key.strip_prefix("w.")) {
            Some(worker) => names::control(worker),
            None => names::CONTROL_ALL.to_owned(),
        };
        let cancel = Control::Cancel { job: id.to_owned() };
        // It can be lost: a default job is stopped again after a moment.
        let _ = self.broker.notify(&subject, notice::encode(&cancel)).await;
    }

    /// Returns whether the message with this sequence is that of this job.
    pub(crate) async fn has_message(&self, seq: u64, id: &str) -> bool {
        let stored = self.retry(|| self.broker.get(Store::Jobs, seq)).await;
        stored.is_some_and(|stored| JobMessage::id_of(&stored) == Some(id))
    }

    /// Deletes the message with this sequence, if it is that of this job.
    ///
    /// Invariant: between the look and the delete there is one connection. So the store was not
    /// rolled back, and the sequence still means the same message.
    pub(crate) async fn delete_message(&self, id: &str, seq: u64) {
        loop {
            let generation = self.link.generation();
            if !self.has_message(seq, id).await {
                return;
            }
            if generation != self.link.generation() {
                continue;
            }
            match self.broker.delete(Store::Jobs, seq).await {
                Ok(_) => return,
                Err(error) => self.pause(&mut Backoff::default(), &error).await,
            }
        }
    }

    /// Removes what is left of a job that must not run: its message, then its claim, then its
    /// arguments.
    pub(crate) async fn remove(self: &Rc<Self>, id: &str, seq: u64, claim: u64) {
        self.delete_message(id, seq).await;
        let grace = self.config.settings.claim_grace();
        let this = Rc::clone(self);
        let job = id.to_owned();
        let release = async move {
            loop {
                let generation = this.link.generation();
                sleep(grace).await;
                let is_same = generation.is_some() && generation == this.link.generation();
                if grace.is_zero() || is_same {
                    break;
                }
                // A server that was restarted may have the message again.
                this.delete_message(&job, seq).await;
            }
            this.retry(|| this.broker.delete(Store::Claims, claim))
                .await;
        };
        match grace.is_zero() {
            true => self.spawn_short(release),
            // A shutdown does not wait for it: the janitor removes it, too.
            false => self.spawn(release),
        }
        self.delete_blob_later(blob_of(id));
    }

    pub(crate) fn delete_blob_later(self: &Rc<Self>, name: String) {
        let this = Rc::clone(self);
        self.spawn_short(async move {
            let _ = this.broker.delete_blob(&name).await;
        });
    }

    /// Ends a job whose claim says that its holder is dead.
    pub(crate) async fn end_lost(self: &Rc<Self>, key: u64, number: u64, claim: &Claim, at: u64) {
        let id = &self.id(number);
        // The holder may have stored an outcome before it died.
        self.outcomes_until_now().await;
        let holder = self.with_job(key, |job| job.holder.clone()).flatten();
        let worker = holder.as_deref().map(|key| self.name_of(key));
        if self.is_open(key, number) {
            let text = "its worker is dead or cannot be reached";
            let error = JoinError::lost(self.task_of(key), worker.as_deref(), text, true);
            self.end_with(key, error).await;
        }
        self.remove(id, claim.seq, at).await;
    }

    pub(crate) fn task_of(&self, key: u64) -> &'static str {
        self.with_job(key, |job| job.call.task).unwrap_or_default()
    }

    /// Keeps a claim until no message of its job can arrive.
    pub(crate) fn retire(&self, claim: u64) {
        self.retired.borrow_mut().push(Retired {
            claim,
            since: Instant::now(),
            generation: self.link.generation(),
            last: None,
            gone: None,
        });
    }

    /// Deletes the claims of jobs whose messages can no longer arrive.
    pub(crate) async fn release_retired(self: Rc<Self>) {
        loop {
            sleep(LATE_ARRIVAL / 4).await;
            if self.retired.borrow().is_empty() {
                continue;
            }
            self.until_ready().await;
            let Ok(info) = self.broker.info(Store::Jobs).await else {
                continue;
            };
            let now = Instant::now();
            let generation = self.link.generation();
            let grace = self.config.settings.claim_grace();
            let mut retired = self.retired.take();
            for claim in &mut retired {
                // What was buffered came with this connection.
                if claim.generation != generation {
                    claim.generation = generation;
                    claim.since = now;
                    claim.last = None;
                    claim.gone = None;
                }
            }
            let mut released = Vec::new();
            retired.retain_mut(|claim| match claim.last {
                // What came before is out of the queue.
                Some(last) if info.first > last => {
                    let gone = *claim.gone.get_or_insert(now);
                    let is_certain = now.saturating_duration_since(gone) >= grace;
                    if is_certain {
                        released.push(claim.claim);
                    }
                    !is_certain
                }
                Some(_) => {
                    claim.gone = None;
                    true
                }
                None => {
                    if now.saturating_duration_since(claim.since) >= LATE_ARRIVAL {
                        claim.last = Some(info.last);
                    }
                    true
                }
            });
            self.retired.borrow_mut().extend(retired);
            for claim in released {
                self.retry(|| self.broker.delete(Store::Claims, claim))
                    .await;
            }
        }
    }
}

/// Why a job is lost of which nothing is left.
pub(crate) const GONE: &str = "its message is gone, and there is no outcome";
