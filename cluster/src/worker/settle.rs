//! How an outcome is stored.

use std::cell::Cell;

use bytes::Bytes;
use futurepool::{ErrorReport, JoinError};

use super::core::Backoff;
use super::job::Job;
use crate::broker::{Broker, BrokerError, PublishError, Store};
use crate::protocol::BLOB_FROM;
use crate::protocol::job::Body;
use crate::protocol::names;
use crate::protocol::outcome::{Kept, Outcome, Verdict};

/// After so many refusals an output is given up for an error that says so.
const MAX_REFUSALS: u32 = 20;

/// Headers of an outcome take less than this.
const HEADERS: usize = 4096;

impl<B: Broker> Job<B> {
    /// Stores the outcome, and returns when that is certain. It tries for ever.
    ///
    /// Of a detached job it is kept first. If one is kept already, that one counts.
    pub(super) async fn settle(&self, verdict: Verdict) {
        self.count_verdict(&verdict);
        let verdict = self.place(verdict).await;
        let mut outcome = self.outcome(verdict);
        if self.held.detached
            && let Some(first) = self.keep(&mut outcome).await
        {
            if blob_of(&first) != blob_of(&outcome) {
                self.delete_blob_of(&outcome).await;
            }
            outcome = first;
        }
        let mut backoff = Backoff::default();
        let mut refusals = 0;
        loop {
            let message = outcome.to_outgoing(&self.held.client);
            match self.shared.broker.publish(Store::Results, message).await {
                Ok(_) => return,
                Err(PublishError::TooLarge) => {
                    self.shrink(&mut outcome).await;
                    self.shared.pause(&mut backoff).await;
                }
                Err(error) => {
                    if let PublishError::Other(BrokerError::Refused(text)) = &error {
                        refusals += 1;
                        if refusals == MAX_REFUSALS {
                            outcome.verdict = self.refused_output(text);
                        }
                    }
                    let what = "store an outcome";
                    self.shared
                        .after_publish_error(what, error, &mut backoff)
                        .await;
                }
            }
        }
    }

    /// Keeps that a detached job was cancelled, and so never ran.
    pub(super) async fn keep_cancelled(&self) {
        let report = ErrorReport::new(self.held.task, &JoinError::cancelled());
        let mut outcome = self.outcome(Verdict::Failed(report));
        let _ = self.keep(&mut outcome).await;
    }

    /// Returns whether the key of a detached job has no outcome, and is this job's.
    pub(super) async fn is_kept_pending(&self) -> bool {
        let Some(key) = self.message.key.as_deref() else {
            return false;
        };
        let subject = names::token(key);
        let last = async || self.shared.broker.last(Store::Kept, &subject).await;
        let stored = self.shared.until_known("read a kept outcome", last).await;
        let stored = stored.filter(|stored| !stored.is_deletion());
        let kept = stored.and_then(|stored| Kept::from_stored(&stored).ok());
        matches!(kept, Some(Kept::Pending { id, .. }) if id == self.held.id)
    }

    fn outcome(&self, verdict: Verdict) -> Outcome {
        Outcome {
            id: self.held.id.clone(),
            by: self.shared.key.clone(),
            verdict,
        }
    }

    fn count_verdict(&self, verdict: &Verdict) {
        match verdict {
            Verdict::Returned(_) => self.shared.count(|counters| &counters.done),
            Verdict::Failed(_) if self.is_lost.get() => {
                self.shared.count(|counters| &counters.lost)
            }
            Verdict::Failed(_) => self.shared.count(|counters| &counters.failed),
            Verdict::Dropped => {}
        }
    }

    /// Stores a large output as a blob.
    async fn place(&self, verdict: Verdict) -> Verdict {
        match verdict {
            Verdict::Returned(Body::Inline(bytes)) if !self.fits(&bytes) => {
                self.put_blob(bytes).await
            }
            other => other,
        }
    }

    fn fits(&self, output: &Bytes) -> bool {
        output.len() < BLOB_FROM && output.len() + HEADERS <= self.shared.broker.max_payload()
    }

    /// Returns the verdict of a job whose output the server does not take.
    fn refused_output(&self, text: &str) -> Verdict {
        let text = format!("the server does not take the output: {text}");
        let error = JoinError::codec(self.held.task, text, true);
        Verdict::Failed(ErrorReport::new(self.held.task, &error))
    }

    async fn put_blob(&self, data: Bytes) -> Verdict {
        // A blob of a detached job is read more than once, so its reader does not delete it.
        let kind = match self.held.detached {
            true => 'k',
            false => 'r',
        };
        let name = format!("{kind}.{}.{}", self.held.id, self.held.nonce);
        let refusals = Cell::new(0);
        let put = async || match self.shared.broker.put_blob(&name, data.clone()).await {
            Err(BrokerError::Refused(text)) => {
                refusals.set(refusals.get() + 1);
                match refusals.get() {
                    MAX_REFUSALS => Ok(Some(text)),
                    _ => Err(BrokerError::Refused(text)),
                }
            }
            result => result.map(|()| None),
        };
        match self.shared.until_known("store a large output", put).await {
            None => Verdict::Returned(Body::Blob(name)),
            Some(text) => self.refused_output(&text),
        }
    }

    async fn delete_blob_of(&self, outcome: &Outcome) {
        if let Some(name) = blob_of(outcome) {
            // The janitor deletes what this misses.
            let _ = self.shared.broker.delete_blob(name).await;
        }
    }

    /// Makes an outcome smaller that the server does not take.
    async fn shrink(&self, outcome: &mut Outcome) {
        outcome.verdict = match std::mem::replace(&mut outcome.verdict, Verdict::Dropped) {
            Verdict::Returned(Body::Inline(bytes)) => self.put_blob(bytes).await,
            Verdict::Failed(report) => {
                let text = "its error is larger than the server takes";
                let error = JoinError::codec(self.held.task, text, report.may_have_run());
                Verdict::Failed(ErrorReport::new(self.held.task, &error))
            }
            other => other,
        };
    }

    /// Keeps the outcome under the key of a detached job, unless one is kept: then that is
    /// returned.
    async fn keep(&self, outcome: &mut Outcome) -> Option<Outcome> {
        let key = self.message.key.as_deref()?;
        let subject = names::token(key);
        let mut backoff = Backoff::default();
        loop {
            let last = async || self.shared.broker.last(Store::Kept, &subject).await;
            let stored = self.shared.until_known("read a kept outcome", last).await;
            let expect = stored.as_ref().map_or(0, |stored| stored.seq);
            let stored = stored.filter(|stored| !stored.is_deletion());
            let kept = stored.and_then(|stored| Kept::from_stored(&stored).ok());
            let signature = match kept {
                Some(Kept::Ended { outcome: first, .. }) => {
                    return (first.id == self.held.id).then_some(first);
                }
                // Its submitter goes on with the job under another id.
                Some(Kept::Pending { id, .. }) if id != self.held.id => return None,
                Some(Kept::Pending { signature, .. }) => signature,
                None => self.message.signature,
            };
            let ended = Kept::Ended {
                task: self.held.task.to_owned(),
                version: self.entry.version(),
                signature,
                outcome: outcome.clone(),
            };
            let message = ended.to_outgoing(key, expect);
            match self.shared.broker.publish(Store::Kept, message).await {
                Ok(_) => return None,
                Err(PublishError::Conflict) => {}
                Err(PublishError::TooLarge) => {
                    self.shrink(outcome).await;
                    self.shared.pause(&mut backoff).await;
                }
                Err(error) => {
                    let what = "keep an outcome";
                    self.shared
                        .after_publish_error(what, error, &mut backoff)
                        .await;
                }
            }
        }
    }
}

fn blob_of(outcome: &Outcome) -> Option<&str> {
    match &outcome.verdict {
        Verdict::Returned(Body::Blob(name)) => Some(name),
        _ => None,
    }
}
