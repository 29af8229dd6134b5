//! Removes what peers that died have left behind: claims, blobs, kept outcomes, consumers.
//!
//! Nothing of the protocol waits for it. It must not remove what anything may still need:
//!
//! - A claim guards a message. It goes only if the message was gone in two passes that are further
//!   apart than any message can be under way, and if its writer will not need it: it is dead, or is
//!   this worker and does not know the job. What a submitter wrote about a message that is gone
//!   guards nothing.
//! - A claim without a sequence guards a message that may have been stored, or still be under way.
//!   It goes only once all messages have left that were there some time after its writer was first
//!   seen dead.
//! - Everything that was seen before a reconnect is forgotten: the server may have lost messages,
//!   and may use sequences again.

use std::collections::BTreeMap;
use std::time::Duration;

use futurepool::{ErrorReport, JoinError};
use tokio::time::Instant;

use crate::broker::{Broker, BrokerError, Consumer, OPERATION, ServerTime, Store, Stored};
use crate::protocol::claim::{Claim, ClaimState};
use crate::protocol::job::{self, Body, JobMessage};
use crate::protocol::live::Judgement;
use crate::protocol::names;
use crate::protocol::outcome::{Kept, Outcome, Verdict};
use crate::protocol::settings::Settings;

/// A pass looks at no more claims and at no more kept outcomes than this.
const BATCH: usize = 4096;

/// A walk over all jobs, for the blobs that they name, ends after so many.
const MAX_WALK: usize = 10_000;

const HOUR: Duration = Duration::from_secs(60 * 60);

/// For how long outcomes of detached jobs are kept.
const KEEP: Duration = Duration::from_secs(24 * 60 * 60);

/// What the janitor knows from its worker.
pub(crate) trait View {
    /// The key of the worker in the store of the living.
    fn key(&self) -> &str;

    /// Returns whether the worker has this job.
    fn holds(&self, job: &str) -> bool;

    fn judge(&self, key: &str) -> Judgement;

    /// Returns how old something is, at least.
    fn age(&self, time: ServerTime) -> Duration;

    /// Counts the connections.
    fn generation(&self) -> u64;
}

/// What passes remember from one to the next.
pub(crate) struct Janitor<B: Broker> {
    broker: B,
    /// How far apart two looks must be.
    apart: Duration,
    /// The connection of the last pass.
    generation: u64,
    claims: Walk,
    kept: Walk,
    /// Consumers that nothing uses, and since when.
    unused: BTreeMap<Consumer, Instant>,
}

/// A walk over a store that goes on in the next pass.
#[derive(Default)]
struct Walk {
    /// The next sequence.
    next: u64,
    /// What seems to be left behind, by its sequence, since it was first seen so.
    seen: BTreeMap<u64, Seen>,
}

#[derive(Clone, Copy)]
struct Seen {
    at: Instant,
    /// The last sequence of a job, as it was when no message could still be under way.
    last_job: Option<u64>,
    /// The walk in which it was last seen so.
    confirmed: Instant,
}

impl<B: Broker> Janitor<B> {
    pub(crate) fn new(broker: B, settings: &Settings) -> Self {
        Self {
            broker,
            apart: (settings.lease * 2)
                .max(Duration::from_secs(60))
                .max(settings.claim_grace()),
            generation: 0,
            claims: Walk::default(),
            kept: Walk::default(),
            unused: BTreeMap::new(),
        }
    }

    /// Looks once. Returns the first error, after which the next pass goes on.
    pub(crate) async fn pass(&mut self, view: &impl View) -> Result<(), BrokerError> {
        if self.generation != view.generation() {
            self.generation = view.generation();
            self.claims = Walk::default();
            self.kept = Walk::default();
        }
        // A worker may have the rights for some of it only.
        let claims = self.pass_claims(view).await;
        let kept = self.pass_kept(view).await;
        let blobs = self.pass_blobs(view).await;
        let consumers = self.pass_consumers().await;
        claims.and(kept).and(blobs).and(consumers)
    }

    async fn pass_claims(&mut self, view: &impl View) -> Result<(), BrokerError> {
        for _ in 0..BATCH {
            let Some(stored) = self.claims.step(&self.broker, Store::Claims).await? else {
                return Ok(());
            };
            let Some(claim) = Claim::from_stored(&stored) else {
                continue;
            };
            let id = &stored.subject;
            let is_left = match claim.state {
                // It counts deliveries of a message, so its writer does not matter.
                ClaimState::Returns => !view.holds(id),
                // Its confirmation came too late, or the server has brought it back.
                _ if claim.by == view.key() => !view.holds(id),
                // It kept the message from a worker. A copy of it may have come late.
                ClaimState::Never | ClaimState::Lost if claim.seq != 0 => true,
                _ => view.judge(&claim.by) == Judgement::Dead,
            };
            let is_left = is_left && self.is_job_gone(id, claim.seq).await?;
            let is_due = self
                .is_due(Of::Claims, &stored, is_left, claim.seq == 0)
                .await?;
            if is_due && view.generation() == self.generation {
                tracing::info!(
                    job = id,
                    by = claim.by,
                    "deleting a claim that was left behind"
                );
                self.broker.delete(Store::Claims, stored.seq).await?;
                self.claims.seen.remove(&stored.seq);
            }
        }
        Ok(())
    }

    /// Returns whether a job's message is not at this sequence. 0: that cannot be told so.
    async fn is_job_gone(&self, id: &str, seq: u64) -> Result<bool, BrokerError> {
        if seq == 0 {
            return Ok(true);
        }
        let found = self.broker.get(Store::Jobs, seq).await?;
        Ok(found.is_none_or(|found| JobMessage::id_of(&found) != Some(id)))
    }

    /// Notes whether something is left behind. Returns whether it was before, for long enough.
    ///
    /// `unknown`: the sequence of its job is not known.
    async fn is_due(
        &mut self,
        of: Of,
        stored: &Stored,
        is_left: bool,
        unknown: bool,
    ) -> Result<bool, BrokerError> {
        let now = Instant::now();
        let walk = match of {
            Of::Claims => &mut self.claims,
            Of::Kept => &mut self.kept,
        };
        if !is_left {
            walk.seen.remove(&stored.seq);
            return Ok(false);
        }
        let Some(seen) = walk.seen.get_mut(&stored.seq) else {
            let seen = Seen {
                at: now,
                last_job: None,
                confirmed: now,
            };
            walk.seen.insert(stored.seq, seen);
            return Ok(false);
        };
        seen.confirmed = now;
        if now - seen.at < self.apart {
            return Ok(false);
        }
        if !unknown {
            return Ok(true);
        }
        let jobs = self.broker.info(Store::Jobs).await?;
        let last_job = *seen.last_job.get_or_insert(jobs.last);
        Ok(jobs.first > last_job)
    }

    async fn pass_kept(&mut self, view: &impl View) -> Result<(), BrokerError> {
        for _ in 0..BATCH {
            let Some(stored) = self.kept.step(&self.broker, Store::Kept).await? else {
                return Ok(());
            };
            match Kept::from_stored(&stored) {
                Ok(Kept::Ended { outcome, .. }) => {
                    if view.age(stored.time) >= KEEP {
                        if let Verdict::Returned(Body::Blob(name)) = &outcome.verdict {
                            self.broker.delete_blob(name).await?;
                        }
                        self.broker.delete(Store::Kept, stored.seq).await?;
                    }
                }
                Ok(Kept::Pending {
                    id,
                    client,
                    task,
                    version,
                    signature,
                    seq,
                }) => {
                    let key = names::live_client(&client);
                    let seq = seq.unwrap_or(0);
                    let is_left = view.judge(&key) == Judgement::Dead
                        && !view.holds(&id)
                        && self.is_job_gone(&id, seq).await?
                        && self.broker.last(Store::Claims, &id).await?.is_none();
                    if !self.is_due(Of::Kept, &stored, is_left, seq == 0).await? {
                        continue;
                    }
                    tracing::warn!(job = id, "a detached job is lost, and so is its submitter");
                    let text = "it is neither queued nor running, and has no outcome";
                    let error = JoinError::lost(&task, None, text, true);
                    let ended = Kept::Ended {
                        outcome: Outcome {
                            id,
                            by: view.key().to_owned(),
                            verdict: Verdict::Failed(ErrorReport::new(&task, &error)),
                        },
                        task,
                        version,
                        signature,
                    };
                    let Some(name) = names::text(&stored.subject) else {
                        continue;
                    };
                    // If it has changed meanwhile, it is not lost.
                    let message = ended.to_outgoing(&name, stored.seq);
                    let _ = self.broker.publish(Store::Kept, message).await;
                    self.kept.seen.remove(&stored.seq);
                }
                Err(_) => {}
            }
        }
        Ok(())
    }

    async fn pass_blobs(&self, view: &impl View) -> Result<(), BrokerError> {
        let mut arguments = Vec::new();
        for blob in self.broker.blobs().await? {
            let age = view.age(blob.time);
            match blob.name.as_bytes().first() {
                // Its outcome was dropped by the server an hour after it was stored.
                Some(b'r') if age >= 2 * HOUR => self.broker.delete_blob(&blob.name).await?,
                // It goes with its kept outcome, unless it has none.
                Some(b'k') if age >= 2 * KEEP => self.broker.delete_blob(&blob.name).await?,
                Some(b'r' | b'k') => {}
                _ if age >= HOUR => arguments.push(blob.name),
                _ => {}
            }
        }
        if arguments.is_empty() {
            return Ok(());
        }
        let mut next = 1;
        for _ in 0..MAX_WALK {
            let Some(stored) = self.broker.next(Store::Jobs, next).await? else {
                for name in arguments {
                    self.broker.delete_blob(&name).await?;
                }
                return Ok(());
            };
            next = stored.seq + 1;
            if let Body::Blob(name) = job::body(&stored) {
                arguments.retain(|unneeded| *unneeded != name);
            }
        }
        Ok(())
    }

    async fn pass_consumers(&mut self) -> Result<(), BrokerError> {
        let now = Instant::now();
        let all = self.broker.consumers().await?;
        let unused = all
            .into_iter()
            .filter(|info| info.waiting == 0 && info.delivered == 0 && info.pulls == 0);
        let mut still = BTreeMap::new();
        for info in unused {
            let since = self.unused.get(&info.consumer).copied().unwrap_or(now);
            if now - since >= KEEP {
                tracing::info!(
                    subject = info.consumer.subject(),
                    "deleting an unused consumer"
                );
                self.broker.delete_consumer(&info.consumer).await?;
            } else {
                still.insert(info.consumer, since);
            }
        }
        self.unused = still;
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Of {
    Claims,
    Kept,
}

impl Walk {
    /// Returns the next message. `None` once at the end, after which the walk begins again.
    async fn step<B: Broker>(
        &mut self,
        broker: &B,
        store: Store,
    ) -> Result<Option<Stored>, BrokerError> {
        loop {
            let Some(stored) = broker.next(store, self.next.max(1)).await? else {
                self.next = 0;
                // What was not seen in a whole walk is gone.
                let now = Instant::now();
                self.seen.retain(|_, seen| now - seen.confirmed < HOUR);
                return Ok(None);
            };
            self.next = stored.seq + 1;
            let is_deletion = stored.headers.iter().any(|(name, _)| name == OPERATION);
            if !is_deletion {
                return Ok(Some(stored));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;
    use crate::broker::Outgoing;
    use crate::broker::memory::{Memory, MemoryBroker};
    use crate::protocol::job::Mode;

    struct Fixed {
        dead: RefCell<Vec<&'static str>>,
        held: Vec<&'static str>,
        generation: Cell<u64>,
        age: Cell<Duration>,
    }

    impl View for Fixed {
        fn key(&self) -> &str {
            "w.me"
        }

        fn holds(&self, job: &str) -> bool {
            self.held.contains(&job)
        }

        fn judge(&self, key: &str) -> Judgement {
            match self.dead.borrow().contains(&key) {
                true => Judgement::Dead,
                false => Judgement::Unknown,
            }
        }

        fn age(&self, _: ServerTime) -> Duration {
            self.age.get()
        }

        fn generation(&self) -> u64 {
            self.generation.get()
        }
    }

    async fn bench() -> (Memory, Fixed, Janitor<Memory>) {
        let broker = MemoryBroker::new().connect("test");
        let settings = Settings::default();
        broker.ensure_stores(&settings, true).await.unwrap();
        let view = Fixed {
            dead: RefCell::new(vec!["w.dead", "c.dead"]),
            held: vec!["held-1"],
            generation: Cell::new(1),
            age: Cell::new(Duration::ZERO),
        };
        let janitor = Janitor::new(broker.clone(), &settings);
        (broker, view, janitor)
    }

    async fn job(broker: &Memory, id: &str, body: Body) -> u64 {
        let job = JobMessage {
            id: id.into(),
            client: "dead".into(),
            mode: Mode::Once,
            signature: 0,
            deadline: None,
            time_limit: None,
            label: None,
            key: None,
            traceparent: None,
            body,
        };
        let message = job.to_outgoing("default.t.1");
        broker.publish(Store::Jobs, message).await.unwrap()
    }

    async fn claim(broker: &Memory, id: &str, state: ClaimState, by: &str, seq: u64) {
        let claim = Claim {
            state,
            by: by.into(),
            nonce: 1,
            seq,
            returns: 1,
        };
        let message = claim.to_outgoing(id, 0);
        broker.publish(Store::Claims, message).await.unwrap();
    }

    async fn claims(broker: &Memory) -> Vec<String> {
        let (mut all, mut next) = (Vec::new(), 1);
        while let Some(stored) = broker.next(Store::Claims, next).await.unwrap() {
            next = stored.seq + 1;
            all.push(stored.subject);
        }
        all
    }

    async fn pass_twice(janitor: &mut Janitor<Memory>, view: &Fixed) {
        janitor.pass(view).await.unwrap();
        tokio::time::advance(Duration::from_secs(61)).await;
        janitor.pass(view).await.unwrap();
    }

    fn inline() -> Body {
        Body::Inline("x".into())
    }

    #[tokio::test(start_paused = true)]
    async fn claims_go_whose_message_is_gone_and_whose_writer_is_dead() {
        use ClaimState::{Held, Lost, Never, Returns};
        let (broker, view, mut janitor) = bench().await;
        let there = job(&broker, "there-1", inline()).await;
        claim(&broker, "there-1", Held, "w.dead", there).await;
        claim(&broker, "other-1", Held, "w.dead", there).await;
        claim(&broker, "gone-1", Held, "w.dead", 77).await;
        claim(&broker, "gone-2", Held, "w.alive", 77).await;
        claim(&broker, "gone-3", Never, "c.dead", 77).await;
        claim(&broker, "gone-4", Returns, "w.alive", 77).await;
        claim(&broker, "gone-5", Never, "c.alive", 77).await;
        claim(&broker, "gone-6", Lost, "c.alive", 77).await;
        claim(&broker, "mine-1", Held, "w.me", 77).await;
        claim(&broker, "held-1", Held, "w.me", 77).await;
        janitor.pass(&view).await.unwrap();
        janitor.pass(&view).await.unwrap();
        assert_eq!(claims(&broker).await.len(), 10);
        pass_twice(&mut janitor, &view).await;
        assert_eq!(claims(&broker).await, ["there-1", "gone-2", "held-1"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_claim_for_a_message_that_may_exist_stays_until_all_older_ones_have_left() {
        let (broker, view, mut janitor) = bench().await;
        let older = job(&broker, "x-1", inline()).await;
        claim(&broker, "x-2", ClaimState::Never, "c.dead", 0).await;
        pass_twice(&mut janitor, &view).await;
        assert_eq!(claims(&broker).await.len(), 1);
        broker.delete(Store::Jobs, older).await.unwrap();
        job(&broker, "x-3", inline()).await;
        janitor.pass(&view).await.unwrap();
        assert!(claims(&broker).await.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_seen_before_a_reconnect_does_not_count() {
        let (broker, view, mut janitor) = bench().await;
        claim(&broker, "gone-1", ClaimState::Held, "w.dead", 77).await;
        janitor.pass(&view).await.unwrap();
        view.generation.set(2);
        tokio::time::advance(Duration::from_secs(61)).await;
        janitor.pass(&view).await.unwrap();
        assert_eq!(claims(&broker).await.len(), 1);
        // The writer came back in between.
        view.dead.borrow_mut().clear();
        janitor.pass(&view).await.unwrap();
        view.dead.borrow_mut().push("w.dead");
        tokio::time::advance(Duration::from_secs(61)).await;
        janitor.pass(&view).await.unwrap();
        assert_eq!(claims(&broker).await.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_detached_job_that_is_nowhere_is_lost_if_its_submitter_is_dead() {
        let (broker, view, mut janitor) = bench().await;
        let there = job(&broker, "dead-1", inline()).await;
        for (key, id, client, seq) in [
            ("there", "dead-1", "dead", there),
            ("gone", "dead-2", "dead", 77),
            ("alive", "alive-1", "alive", 77),
        ] {
            let kept = Kept::Pending {
                id: id.into(),
                client: client.into(),
                task: "t".into(),
                version: 1,
                signature: 0,
                seq: Some(seq),
            };
            let message = kept.to_outgoing(key, 0);
            broker.publish(Store::Kept, message).await.unwrap();
        }
        pass_twice(&mut janitor, &view).await;
        for (key, ended) in [("there", false), ("gone", true), ("alive", false)] {
            let stored = broker.last(Store::Kept, key).await.unwrap().unwrap();
            let kept = Kept::from_stored(&stored).unwrap();
            assert_eq!(matches!(kept, Kept::Ended { .. }), ended, "{key}");
        }
        view.age.set(KEEP);
        janitor.pass(&view).await.unwrap();
        assert!(broker.last(Store::Kept, "gone").await.unwrap().is_none());
        assert!(broker.last(Store::Kept, "there").await.unwrap().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn old_blobs_go_that_nothing_needs() {
        let (broker, view, mut janitor) = bench().await;
        for name in ["a.1", "a.2", "r.1", "k.1"] {
            broker.put_blob(name, "x".into()).await.unwrap();
        }
        job(&broker, "x-1", Body::Blob("a.1".into())).await;
        let names = async || {
            let blobs = broker.blobs().await.unwrap();
            let mut names: Vec<_> = blobs.into_iter().map(|blob| blob.name).collect();
            names.sort();
            names
        };
        janitor.pass(&view).await.unwrap();
        assert_eq!(names().await.len(), 4);
        view.age.set(HOUR);
        janitor.pass(&view).await.unwrap();
        assert_eq!(names().await, ["a.1", "k.1", "r.1"]);
        view.age.set(2 * HOUR);
        janitor.pass(&view).await.unwrap();
        assert_eq!(names().await, ["a.1", "k.1"]);
        view.age.set(2 * KEEP);
        janitor.pass(&view).await.unwrap();
        assert_eq!(names().await, ["a.1"]);
    }

    #[tokio::test(start_paused = true)]
    async fn consumers_go_that_nothing_uses_for_a_day() {
        let (broker, view, mut janitor) = bench().await;
        for subject in ["default.t.1", "default.t.2"] {
            let consumer = Consumer::Jobs(subject.into());
            broker.ensure_consumer(&consumer).await.unwrap();
        }
        let message = Outgoing {
            subject: "default.t.1".into(),
            ..Outgoing::default()
        };
        broker.publish(Store::Jobs, message).await.unwrap();
        janitor.pass(&view).await.unwrap();
        tokio::time::advance(KEEP / 2).await;
        janitor.pass(&view).await.unwrap();
        assert_eq!(broker.consumers().await.unwrap().len(), 2);
        tokio::time::advance(KEEP / 2).await;
        janitor.pass(&view).await.unwrap();
        let left = broker.consumers().await.unwrap();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].consumer.subject(), "default.t.1");
    }
}
