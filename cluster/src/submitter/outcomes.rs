//! Outcomes: the first one for a job wins, later ones are acknowledged and dropped.
//!
//! They come through a consumer. But the consumer cannot tell that there is *no* outcome: one that
//! was delivered to a connection that broke comes again only after its lease. So where the absence
//! of an outcome proves something, a *sweep* reads the store itself.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use crate::watch;
use bytes::Bytes;
use futurepool::JoinError;
use tokio::time::timeout;

use crate::broker::{Ack, Broker, BrokerError, Pulled, Puller as _, Store, Stored, Token};
use crate::protocol::MAX_PAYLOAD;
use crate::protocol::job::Body;
use crate::protocol::outcome::{Outcome, Verdict};
use crate::submitter::core::{Backoff, Ctx};
use crate::submitter::job::Unresolved;

/// So many outcomes are asked for at a time.
const BATCH: usize = 512;

/// The largest blob of an output: the framing comes on top of the payload.
pub(crate) const MAX_BLOB: usize = MAX_PAYLOAD + (1 << 20);

/// The sweeps, and the tasks that wait for them. A sweep answers all tasks that wait when it begins.
#[derive(Debug)]
pub(crate) struct Sweeps {
    /// How many sweeps were asked for.
    wanted: watch::Sender<u64>,
    /// All that were asked for up to this number are done.
    done: watch::Sender<u64>,
    /// Blobs of outputs that are being fetched.
    fetching: RefCell<BTreeSet<String>>,
}

impl Default for Sweeps {
    fn default() -> Self {
        Self {
            wanted: watch::Sender::new(0),
            done: watch::Sender::new(0),
            fetching: RefCell::default(),
        }
    }
}

impl<B: Broker> Ctx<B> {
    /// Takes over outcomes as they come.
    pub(crate) async fn consume_outcomes(self: Rc<Self>) {
        loop {
            self.until_ready().await;
            let mut puller = self.retry(|| self.broker.puller()).await;
            let mut asked = 0;
            loop {
                if asked <= BATCH / 2 {
                    puller.request(&self.results, BATCH - asked, self.times.lease);
                    asked = BATCH;
                }
                // The end of a request can be lost, too.
                let limit = self.times.lease + self.times.request_timeout * 2;
                let Ok(pulled) = timeout(limit, puller.next()).await else {
                    break;
                };
                match pulled {
                    Pulled::Delivery(delivery) => {
                        asked = asked.saturating_sub(1);
                        self.on_outcome(&delivery.message, Some(delivery.token));
                    }
                    Pulled::Ended { wanted, .. } => asked = asked.saturating_sub(wanted),
                    Pulled::Gone(_) => {
                        // With the same puller: outcomes that came before are still in it.
                        self.back_off(&mut Backoff::default()).await;
                        let ensure = || self.broker.ensure_consumer(&self.results);
                        self.retry(ensure).await;
                        asked = 0;
                    }
                    Pulled::Broken => break,
                }
            }
            // A request that fails at once must not keep this thread busy.
            self.back_off(&mut Backoff::default()).await;
        }
    }

    /// Takes over an outcome. `token` names its delivery, if it was delivered.
    pub(crate) fn on_outcome(self: &Rc<Self>, stored: &Stored, token: Option<Token>) {
        let id = Outcome::id_of(stored);
        let number = id.and_then(|id| self.number_of(id));
        let key = number.and_then(|number| self.jobs.borrow().key_of(number));
        let outcome = Outcome::from_stored(stored);
        match (key, number, outcome) {
            (Some(key), Some(number), Ok(outcome)) => {
                self.take_outcome(key, number, outcome, token);
            }
            (Some(key), _, Err(what)) => {
                let text = format!("the outcome is malformed: {what}");
                let error = JoinError::codec(self.task_of(key), text, true);
                if let Some(job) = self.take_job(key) {
                    job.handle.resolve(Err(error));
                }
                self.acknowledge(token);
            }
            // It has an outcome already, or was submitted again under another id.
            (_, _, Ok(outcome)) => {
                self.acknowledge(token);
                if let Verdict::Returned(Body::Blob(name)) = outcome.verdict {
                    self.delete_result(name);
                }
            }
            (None, _, Err(what)) => {
                tracing::warn!("an outcome is malformed: {what}");
                self.acknowledge(token);
            }
        }
    }

    /// Resolves a job with an outcome.
    pub(crate) fn take_outcome(
        self: &Rc<Self>,
        key: u64,
        number: u64,
        outcome: Outcome,
        token: Option<Token>,
    ) {
        let result = match outcome.verdict {
            Verdict::Dropped => {
                // This submitter seemed to be gone, and is not.
                // Its key is written before the next job is handed over.
                self.link.on_dropped();
                self.jobs.borrow_mut().reissue(key);
                self.poke(key);
                return self.acknowledge(token);
            }
            Verdict::Returned(Body::Blob(name)) => {
                self.outbox.dropped.take();
                let Some(job) = self.take_job(key) else {
                    return self.acknowledge(token);
                };
                // Before anything is awaited: the blob must outlive a second copy of the outcome.
                self.sweeps.fetching.borrow_mut().insert(name.clone());
                let fetch = Rc::clone(self).fetch(job.handle, number, name, token);
                return self.spawn_short(fetch);
            }
            Verdict::Returned(Body::Inline(output)) => Ok(output),
            Verdict::Failed(report) => Err(JoinError::from(report)),
        };
        self.outbox.dropped.take();
        if let Some(job) = self.take_job(key) {
            let result = result.map_err(|error| match job.started_earlier {
                true => error.with_earlier_start(job.call.task),
                false => error,
            });
            job.handle.resolve(result);
            self.reached("resolved", &self.id(number));
        }
        self.acknowledge(token);
    }

    /// Resolves a job with an output that is in a blob.
    async fn fetch(
        self: Rc<Self>,
        handle: Unresolved,
        number: u64,
        name: String,
        token: Option<Token>,
    ) {
        let result = self.get_output(handle.task(), &name).await;
        handle.resolve(result);
        self.reached("resolved", &self.id(number));
        self.acknowledge(token);
        self.sweeps.fetching.borrow_mut().remove(&name);
        self.delete_result(name);
    }

    /// Returns an output that is in a blob.
    pub(crate) async fn get_output(&self, task: &str, name: &str) -> Result<Bytes, JoinError> {
        let codec = |text: String| JoinError::codec(task, text, true);
        let mut backoff = Backoff::default();
        loop {
            match self.broker.get_blob(name, MAX_BLOB).await {
                Ok(Some(output)) => return Ok(output),
                Ok(None) => return Err(codec("the output is gone".to_owned())),
                Err(BrokerError::Refused(text)) => {
                    return Err(codec(format!("the output cannot be fetched: {text}")));
                }
                Err(error) => {
                    if self.is_away_for_too_long() {
                        let text = error.to_string();
                        return Err(JoinError::disconnected(task, text, true));
                    }
                    self.back_off(&mut backoff).await;
                }
            }
        }
    }

    /// Deletes the blob of an output that only this submitter needs.
    fn delete_result(self: &Rc<Self>, name: String) {
        let is_mine = name.starts_with("r.");
        if is_mine && !self.sweeps.fetching.borrow().contains(&name) {
            self.delete_blob_later(name);
        }
    }

    fn acknowledge(self: &Rc<Self>, token: Option<Token>) {
        let Some(token) = token else {
            return;
        };
        let this = Rc::clone(self);
        // One that is lost is delivered again, and acknowledged then.
        self.spawn_short(async move {
            let _ = this.broker.ack(&token, Ack::Seen).await;
        });
    }

    /// Returns once every outcome that is stored now is taken over.
    pub(crate) async fn outcomes_until_now(&self) {
        let mut done = self.sweeps.done.subscribe();
        let mut mine = 0;
        self.sweeps.wanted.send_modify(|wanted| {
            *wanted += 1;
            mine = *wanted;
        });
        // The sender is a field, so the wait never fails.
        let _ = done.wait_for(|done| *done >= mine).await;
    }

    /// Takes over the outcomes in the store, each time that this is asked for.
    pub(crate) async fn sweep(self: Rc<Self>) {
        let mut wanted = self.sweeps.wanted.subscribe();
        let mut done = 0;
        loop {
            let _ = wanted.wait_for(|wanted| *wanted > done).await;
            let begun = *wanted.borrow_and_update();
            self.sweep_once().await;
            done = begun;
            self.sweeps.done.send_replace(done);
        }
    }

    async fn sweep_once(self: &Rc<Self>) {
        let client = &self.config.client;
        // Usually there is none: what is taken over leaves the store.
        let last = self
            .retry(|| self.broker.last(Store::Results, client))
            .await;
        let Some(last) = last else {
            return;
        };
        let mut seq = 0;
        while seq <= last.seq {
            let Some(stored) = self.retry(|| self.broker.next(Store::Results, seq)).await else {
                return;
            };
            if stored.seq > last.seq {
                return;
            }
            if stored.subject == *client {
                // Its delivery is acknowledged when it comes.
                self.on_outcome(&stored, None);
            }
            seq = stored.seq + 1;
        }
    }
}
