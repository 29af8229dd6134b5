//! What a claim that is already there means for a worker that has the job's message.
//!
//! | claim | its writer | then |
//! |---|---|---|
//! | none | | create it again |
//! | held, mine, this nonce | me | go on: only the confirmation was lost |
//! | held, mine, another nonce | me | lost: an earlier delivery that this worker no longer knows |
//! | held by another | alive, unknown | ask it |
//! | held by another | dead | lost |
//! | never | alive, unknown | remove the message, unless its writer may have to end its key first |
//! | never | dead | cancelled if it is detached; remove the message and the claim |
//! | lost | alive, unknown | leave it to the writer; lost once the message is old |
//! | lost | dead | lost |
//! | returns, malformed | | of a newer peer: look again later; lost once the message is old |

use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit as Slot;
use tokio::time::sleep;

use super::core::{Backoff, Shared};
use super::held::Held;
use super::job::Job;
use crate::broker::{Broker, BrokerError, PublishError, Store};
use crate::protocol::claim::{Claim, ClaimState};
use crate::protocol::live::Judgement;
use crate::protocol::names;
use crate::protocol::notice::{Control, decode, encode};

/// What a worker does about a claim that it did not get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// Create the claim again.
    Create,
    /// The claim, of this sequence, is this worker's.
    Mine(u64),
    /// The job must never run. The outcome was told by the writer, which is dead if `abandoned`.
    Never { abandoned: bool },
    /// The message stays: give it back, and look again later.
    Later,
    /// The writer holds the job, or no longer knows it.
    Ask { nonce: u64 },
    /// The job is lost, with its holder.
    Lost,
}

/// Decides about `found`: its sequence, and the claim unless it is malformed.
///
/// `me` is the key of this worker, `nonce` that of the claim which it wanted. `writer` is judged
/// only if `found` is the claim of another peer. `is_young`: the message was stored lately.
pub(super) fn decide(
    me: &str,
    nonce: u64,
    found: Option<(u64, Option<&Claim>)>,
    writer: Judgement,
    is_young: bool,
) -> Decision {
    let unreadable = match is_young {
        true => Decision::Later,
        false => Decision::Lost,
    };
    let Some((seq, claim)) = found else {
        return Decision::Create;
    };
    let Some(claim) = claim else {
        return unreadable;
    };
    let dead = writer == Judgement::Dead;
    match claim.state {
        ClaimState::Held if claim.by == me && claim.nonce == nonce => Decision::Mine(seq),
        ClaimState::Held if claim.by == me || dead => Decision::Lost,
        ClaimState::Held => Decision::Ask { nonce: claim.nonce },
        ClaimState::Never => Decision::Never { abandoned: dead },
        // A writer that lives removes it, unless it has lost track, too.
        ClaimState::Lost if dead || !is_young => Decision::Lost,
        ClaimState::Lost => Decision::Later,
        ClaimState::Returns => unreadable,
    }
}

/// A claim as it was read: its sequence, and the claim unless it is malformed.
pub(super) type Found = Option<(u64, Option<Claim>)>;

impl<B: Broker> Job<B> {
    /// Claims a default job: from then on no other worker starts it. Returns the sequence of the
    /// claim. `None`: the job is not this worker's, and everything about that is done.
    pub(super) async fn claim(&self, slot: Slot) -> Option<(u64, Slot)> {
        let mut slot = Some(slot);
        // The claim which its writer says that it does not hold.
        let mut denied = None;
        let seq = loop {
            if let Some(seq) = self.create_claim().await {
                break seq;
            }
            let found = self.shared.read_claim(&self.held.id).await;
            let by = found
                .as_ref()
                .and_then(|(_, claim)| Some(claim.as_ref()?.by.clone()));
            let writer = by
                .as_ref()
                .map_or(Judgement::Unknown, |by| self.shared.judge(by));
            let (key, nonce) = (&self.shared.key, self.held.nonce);
            let seen = found.as_ref().map(|(seq, claim)| (*seq, claim.as_ref()));
            match decide(key, nonce, seen, writer, self.is_young()) {
                Decision::Create => continue,
                Decision::Mine(seq) => break seq,
                Decision::Never { abandoned } => {
                    drop(slot);
                    let seq = found.map_or(0, |(seq, _)| seq);
                    self.remove_never(abandoned.then_some(seq)).await;
                    return None;
                }
                Decision::Later => {
                    drop(slot);
                    self.give_back(self.shared.lease() / 3).await;
                    return None;
                }
                Decision::Ask { nonce } => {
                    // This takes a while, and another job may use the slot.
                    slot = None;
                    let by = by.unwrap_or_default();
                    match self.ask(&by, nonce).await {
                        Some(false) if denied == Some(nonce) => {
                            self.lose(found, Some(&by)).await;
                            return None;
                        }
                        // It may have told its outcome, or be about to. Asking again proves that
                        // the claim outlived that.
                        Some(false) => denied = Some(nonce),
                        Some(true) | None => {
                            self.give_back(self.shared.lease() / 3).await;
                            return None;
                        }
                    }
                    if !self.sleep_or_end(self.shared.lease() / 10).await {
                        self.give_back(self.shared.lease() / 3).await;
                        return None;
                    }
                }
                Decision::Lost => {
                    drop(slot);
                    self.lose(found, by.as_deref()).await;
                    return None;
                }
            }
        };
        self.claimed.set(Some(seq));
        match slot {
            Some(slot) => Some((seq, slot)),
            None => match self.slot().await {
                Some(slot) => Some((seq, slot)),
                None => {
                    self.give_back(Duration::ZERO).await;
                    None
                }
            },
        }
    }

    /// Creates the claim, unless there is one. Ends only when that is known.
    async fn create_claim(&self) -> Option<u64> {
        let claim = Claim {
            state: ClaimState::Held,
            by: self.shared.key.clone(),
            nonce: self.held.nonce,
            seq: self.held.seq,
            returns: 0,
        };
        let mut backoff = Backoff::default();
        loop {
            let message = claim.to_outgoing(&self.held.id, 0);
            match self.shared.broker.publish(Store::Claims, message).await {
                Ok(seq) => return Some(seq),
                // Perhaps with the claim itself, if its confirmation was lost.
                Err(PublishError::Conflict) => return None,
                Err(error) => {
                    let what = "claim a job";
                    self.shared
                        .after_publish_error(what, error, &mut backoff)
                        .await;
                }
            }
        }
    }

    /// Asks a worker whether it holds the job under the claim with this nonce. `None`: no answer.
    async fn ask(&self, by: &str, nonce: u64) -> Option<bool> {
        let worker = by.strip_prefix("w.")?;
        let job = self.held.id.clone();
        let question = encode(&Control::Holds { job, nonce });
        let subject = names::control(worker);
        let answer = self.shared.broker.ask(&subject, question).await;
        decode(&answer.ok()??)
    }

    /// Waits. Returns `false` if the worker ends meanwhile.
    async fn sleep_or_end(&self, duration: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.shared.ending() => false,
            () = sleep(duration) => true,
        }
    }

    /// Removes a job that must never run. `abandoned`: its writer is dead and has left this claim.
    async fn remove_never(&self, abandoned: Option<u64>) {
        if self.held.detached {
            match abandoned {
                Some(_) => self.keep_cancelled().await,
                // It is about to end the key, or to submit the job under another id. Without the
                // message nothing would look at the key again if it died before.
                None if self.is_kept_pending().await => {
                    return self.give_back(self.shared.lease() / 3).await;
                }
                None => {}
            }
        }
        self.remove_message().await;
        self.shared.forget(&self.held);
        if let Some(seq) = abandoned {
            self.release(seq).await;
            self.delete_arguments().await;
        }
    }
}

impl<B: Broker> Shared<B> {
    /// Reads the claim of a job.
    pub(super) async fn read_claim(&self, id: &str) -> Found {
        let last = async || self.broker.last(Store::Claims, id).await;
        let stored = self.until_known("read a claim", last).await?;
        (!stored.is_deletion()).then(|| (stored.seq, Claim::from_stored(&stored)))
    }

    /// Counts a delivery of an idempotent job that led to no start.
    ///
    /// The claim counts for the message of its sequence: another copy counts anew.
    pub(super) async fn count_return(&self, held: &Held) {
        let mut backoff = Backoff::default();
        // Tells this count apart, so that it is counted once if its confirmation is lost.
        let nonce = self.random();
        let mut expect = 0;
        let mut returns = 0;
        // The first return of a job finds no claim.
        let mut is_known = held.count == 1 && !held.counted.get();
        held.counted.set(true);
        loop {
            if !is_known {
                let found = self.read_claim(&held.id).await;
                expect = found.as_ref().map_or(0, |(seq, _)| *seq);
                returns = 0;
                if let Some((_, Some(claim))) = &found {
                    if claim.nonce == nonce {
                        return;
                    }
                    if claim.state == ClaimState::Returns && claim.seq == held.seq {
                        returns = claim.returns;
                    }
                }
            }
            let claim = Claim {
                state: ClaimState::Returns,
                by: self.key.clone(),
                nonce,
                seq: held.seq,
                returns: returns.saturating_add(1),
            };
            let message = claim.to_outgoing(&held.id, expect);
            is_known = false;
            match self.broker.publish(Store::Claims, message).await {
                Ok(_) => return,
                Err(PublishError::Conflict) => {}
                Err(error) => {
                    let what = "count a return";
                    self.after_publish_error(what, error, &mut backoff).await;
                }
            }
        }
    }

    /// Returns how many deliveries of this message led to no start.
    pub(super) async fn returns(&self, held: &Held) -> u64 {
        match self.read_claim(&held.id).await {
            Some((_, Some(claim)))
                if claim.state == ClaimState::Returns && claim.seq == held.seq =>
            {
                claim.returns
            }
            _ => 0,
        }
    }

    /// Waits before a message is published again that was not stored, or perhaps not.
    pub(super) async fn after_publish_error(
        &self,
        what: &'static str,
        error: PublishError,
        backoff: &mut Backoff,
    ) {
        let error = match error {
            PublishError::Other(error) => error,
            other => BrokerError::Refused(other.to_string().into()),
        };
        self.after_error(what, &error, backoff).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(state: ClaimState, by: &str, nonce: u64) -> Claim {
        Claim {
            state,
            by: by.to_owned(),
            nonce,
            seq: 1,
            returns: 0,
        }
    }

    #[test]
    fn each_row_of_the_table() {
        use ClaimState::{Held, Lost, Never, Returns};
        use Judgement::{Alive, Dead, Unknown};
        let row = |state, by: &str, writer| {
            let claim = claim(state, by, 9);
            decide("w.me", 7, Some((5, Some(&claim))), writer, false)
        };
        assert_eq!(decide("w.me", 7, None, Unknown, false), Decision::Create);
        let mine = claim(Held, "w.me", 7);
        let found = Some((5, Some(&mine)));
        assert_eq!(decide("w.me", 7, found, Unknown, false), Decision::Mine(5));
        assert_eq!(row(Held, "w.me", Alive), Decision::Lost);
        for writer in [Alive, Unknown] {
            let ask = Decision::Ask { nonce: 9 };
            assert_eq!(row(Held, "w.other", writer), ask);
            let never = Decision::Never { abandoned: false };
            assert_eq!(row(Never, "c.x", writer), never);
            let claim = claim(Lost, "c.x", 9);
            for (is_young, decision) in [(true, Decision::Later), (false, Decision::Lost)] {
                let found = Some((5, Some(&claim)));
                let decided = decide("w.me", 7, found, writer, is_young);
                assert_eq!(decided, decision);
            }
        }
        assert_eq!(row(Held, "w.other", Dead), Decision::Lost);
        let never = Decision::Never { abandoned: true };
        assert_eq!(row(Never, "c.x", Dead), never);
        assert_eq!(row(Lost, "c.x", Dead), Decision::Lost);
        assert_eq!(row(Returns, "w.x", Alive), Decision::Lost);
        for (is_young, decision) in [(true, Decision::Later), (false, Decision::Lost)] {
            let malformed = decide("w.me", 7, Some((5, None)), Unknown, is_young);
            assert_eq!(malformed, decision);
        }
    }
}
