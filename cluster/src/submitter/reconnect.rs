//! The connection: what is done before jobs are handed over, what the server may have forgotten,
//! and what is said if it stays away.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::watch;
use futurepool::JoinError;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::broker::{Broker, BrokerError, Consumer, PublishError, ServerTime, Store};
use crate::protocol::job::JobMessage;
use crate::submitter::core::{Backoff, Ctx};
use crate::submitter::fence::Forbid;
use crate::submitter::job::{Job, Phase};

/// The state of the connection, as the core sees it.
#[derive(Debug)]
pub(crate) struct Link {
    /// The generation for which all preparations are made. `None`: jobs must wait.
    ready: watch::Sender<Option<u64>>,
    /// Something is missing that the preparations make.
    check: Notify,
    /// Since when the server cannot be used.
    away: Cell<Option<Instant>>,
    /// The submitter says farewell: its key must not come again.
    is_leaving: Cell<bool>,
    /// When the server has last confirmed this submitter's key.
    answered: Cell<Option<Instant>>,
    last_error: RefCell<Option<Arc<str>>>,
    /// When the store of jobs was made.
    created: Cell<Option<ServerTime>>,
    /// The highest sequence that the server has confirmed to this submitter.
    confirmed: Cell<u64>,
    /// Jobs that were reported as disconnected after they were sent.
    reported: RefCell<Vec<Reported>>,
}

/// A job whose handle has resolved, and which must not start if that can be prevented.
#[derive(Debug)]
struct Reported {
    id: String,
    task: &'static str,
    is_once: bool,
    seq: Option<u64>,
    /// The key of a detached job, which is not certainly in the queue.
    name: Option<String>,
    may_have_run: bool,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            ready: watch::Sender::new(None),
            check: Notify::new(),
            away: Cell::new(None),
            is_leaving: Cell::new(false),
            answered: Cell::new(None),
            last_error: RefCell::default(),
            created: Cell::new(None),
            confirmed: Cell::new(0),
            reported: RefCell::default(),
        }
    }
}

impl Link {
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.borrow().is_some()
    }

    pub(crate) fn generation(&self) -> Option<u64> {
        *self.ready.borrow()
    }

    /// Asks for the preparations, because a store or a consumer is missing.
    pub(crate) fn check(&self) {
        self.check.notify_one();
    }

    pub(crate) fn on_confirmed(&self, seq: u64) {
        self.confirmed.set(self.confirmed.get().max(seq));
    }

    /// Notes that the server has confirmed something.
    pub(crate) fn on_answer(&self) {
        self.answered.set(Some(Instant::now()));
    }

    /// Returns whether the server has not confirmed this submitter's key for this long.
    pub(crate) fn is_stale(&self, limit: Duration) -> bool {
        let answered = self.answered.get();
        answered.is_none_or(|answered| answered.elapsed() > limit)
    }

    /// Lets jobs wait until the server confirms this submitter's key again.
    pub(crate) fn on_dropped(&self) {
        self.answered.set(None);
    }

    pub(crate) fn say_farewell(&self) {
        self.is_leaving.set(true);
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.is_leaving.get()
    }

    pub(crate) fn answered(&self) -> Option<Instant> {
        self.answered.get()
    }

    fn set_away(&self, since: Instant, error: Option<Arc<str>>) {
        if self.away.get().is_none() {
            self.away.set(Some(since));
        }
        if error.is_some() {
            *self.last_error.borrow_mut() = error;
        }
    }
}

impl<B: Broker> Ctx<B> {
    /// Waits until jobs may be handed over.
    pub(crate) async fn until_ready(&self) {
        if self.link.is_ready() {
            return;
        }
        let mut ready = self.link.ready.subscribe();
        // The sender is a field, so the wait never fails.
        let _ = ready.wait_for(Option::is_some).await;
    }

    /// Waits for connections, and prepares each of them.
    pub(crate) async fn supervise(self: Rc<Self>) {
        let mut connection = self.broker.connection();
        let mut backoff = Backoff::default();
        self.link.set_away(Instant::now(), None);
        loop {
            let state = connection.borrow_and_update().clone();
            if !state.connected {
                self.link.set_away(Instant::now(), state.error);
                changed(&mut connection).await;
                continue;
            }
            let prepared = tokio::select! { biased;
                () = changed(&mut connection) => continue,
                prepared = self.prepare() => prepared,
            };
            if let Err(error) = prepared {
                self.link
                    .set_away(Instant::now(), Some(error.to_string().into()));
                tokio::select! { biased;
                    () = changed(&mut connection) => {}
                    () = self.back_off(&mut backoff) => {}
                }
                continue;
            }
            backoff = Backoff::default();
            self.link.away.set(None);
            self.link.ready.send_replace(Some(state.generation));
            self.on_ready();
            let away = loop {
                tokio::select! { biased;
                    () = changed(&mut connection) => {}
                    // Connected, and no answer: it counts from the last one.
                    () = self.link.check.notified() => {
                        break self.link.answered().unwrap_or_else(Instant::now);
                    }
                }
                let now = connection.borrow_and_update().clone();
                if now.generation != state.generation || !now.connected {
                    self.live.borrow_mut().on_break();
                    break Instant::now();
                }
            };
            self.link.ready.send_replace(None);
            self.link.set_away(away, None);
        }
    }

    /// Makes what jobs need: stores, the consumer, this submitter's key.
    async fn prepare(self: &Rc<Self>) -> Result<(), BrokerError> {
        let Self { broker, config, .. } = &**self;
        broker
            .ensure_stores(&config.settings, config.create)
            .await?;
        broker.ensure_consumer(&self.results).await?;
        // Consumers that are ahead of a store that was rolled back would skip the next jobs.
        let subjects = match self.link.created.get() {
            None => Vec::new(),
            Some(_) => self.holders.borrow().subjects(),
        };
        for subject in subjects {
            match broker.ensure_consumer(&Consumer::Jobs(subject)).await {
                // Workers make them, too. A submitter may lack the permission.
                Ok(()) | Err(BrokerError::Refused(_)) => {}
                Err(error) => return Err(error),
            }
        }
        self.announce().await.map_err(|error| match error {
            PublishError::Other(error) => error,
            error => BrokerError::Refused(error.to_string().into()),
        })?;
        if self.is_rolled_back().await? {
            self.on_roll_back();
        }
        Ok(())
    }

    /// Returns whether the store of jobs has lost what it had confirmed.
    async fn is_rolled_back(&self) -> Result<bool, BrokerError> {
        let info = self.broker.info(Store::Jobs).await?;
        let created = self.link.created.replace(Some(info.created));
        let highest = self.link.confirmed.get();
        if created.is_some_and(|created| created != info.created) || info.last < highest {
            self.link.confirmed.set(info.last);
            return Ok(true);
        }
        // The sequence may have been given to another message since.
        let newest = {
            let jobs = self.jobs.borrow();
            let queued = jobs
                .iter()
                .filter_map(|(_, job)| match (job.phase, job.number) {
                    (Phase::Queued { seq }, Some(number)) => Some((seq, number)),
                    _ => None,
                });
            queued.max()
        };
        let Some((seq, number)) = newest else {
            return Ok(false);
        };
        let stored = match self.broker.get(Store::Jobs, seq).await {
            Ok(stored) => stored,
            Err(error) => {
                // The next attempt must see the old state.
                self.link.created.set(created);
                return Err(error);
            }
        };
        let id = self.id(number);
        let is_other = |stored: &_| JobMessage::id_of(stored) != Some(id.as_str());
        Ok(stored.as_ref().is_some_and(is_other))
    }

    fn on_roll_back(self: &Rc<Self>) {
        tracing::error!(
            "the server has lost jobs that it had confirmed: unresolved ones are submitted again"
        );
        self.shared.counters.on_rollback();
        for (_, job) in self.jobs.borrow_mut().iter_mut() {
            if let Phase::Queued { .. } = job.phase {
                job.phase = Phase::Unconfirmed;
                job.is_rolled_back = true;
                job.holder = None;
                if !job.call.is_once() {
                    job.republished += 1;
                }
            }
        }
    }

    fn on_ready(self: &Rc<Self>) {
        self.outbox.changed.notify_one();
        for (_, job) in self.jobs.borrow_mut().iter_mut() {
            // The server may have forgotten a delivery, which it counts a moment late.
            job.started_earlier |= !job.call.is_once() && job.handle.may_have_run;
        }
        let keys: Vec<u64> = {
            let jobs = self.jobs.borrow();
            let unsure = |job: &Job| job.phase == Phase::Unconfirmed;
            let unsure = jobs.iter().filter(|(_, job)| unsure(job));
            unsure.map(|(key, _)| key).collect()
        };
        for key in keys {
            self.poke(key);
        }
        for reported in self.link.reported.take() {
            let this = Rc::clone(self);
            self.spawn_short(async move { this.forbid_reported(reported).await });
        }
    }

    /// Keeps a job that was reported as disconnected from starting.
    async fn forbid_reported(self: &Rc<Self>, job: Reported) {
        let Reported {
            id,
            task,
            is_once,
            seq,
            name,
            may_have_run,
        } = job;
        let _permit = self.rare().await;
        self.until_ready().await;
        if let Some(name) = name {
            if is_once && may_have_run {
                match self.forbid(&id, 0).await {
                    Forbid::Never(claim) => self.retire(claim),
                    // It goes on without its submitter.
                    Forbid::Held(_) | Forbid::Lost(..) => return,
                }
            }
            let text = "its submitter was disconnected while it was submitted";
            let error = JoinError::lost(task, None, text, may_have_run);
            self.write_error(&name, task, |kept| kept == id, &error)
                .await;
            return;
        }
        if !is_once {
            if let Some(seq) = seq {
                self.delete_message(&id, seq).await;
            }
            return self.ask_to_cancel(&id, None).await;
        }
        match self.forbid(&id, seq.unwrap_or(0)).await {
            Forbid::Never(claim) => match seq {
                Some(seq) => self.remove(&id, seq, claim).await,
                None => self.retire(claim),
            },
            Forbid::Held(claim) => self.ask_to_cancel(&id, Some(&claim.by)).await,
            Forbid::Lost(claim, at) => self.remove(&id, claim.seq, at).await,
        }
    }

    /// Reports jobs as disconnected if the server is away for too long.
    pub(crate) async fn report_disconnected(self: Rc<Self>) {
        let Some(limit) = self.config.disconnect_limit else {
            return;
        };
        let period = (limit / 20).clamp(Duration::from_millis(10), Duration::from_secs(1));
        loop {
            sleep(period).await;
            let Some(away) = self.link.away.get() else {
                continue;
            };
            let now = Instant::now();
            let is_due = |since: Instant| now.saturating_duration_since(since) >= limit;
            if !is_due(away) {
                continue;
            }
            let due: Vec<u64> = {
                let jobs = self.jobs.borrow();
                let due = jobs.iter().filter(|(_, job)| is_due(job.submitted_at));
                due.map(|(key, _)| key).collect()
            };
            let error = self.link.last_error.borrow().clone();
            let error = error.as_deref().unwrap_or("the connection is closed");
            let text = format!("no connection for {:?}: {error}", limit);
            for key in due {
                self.report(key, &text);
            }
            self.report_attached(&text, is_due);
        }
    }

    /// Returns whether the server is away for longer than the limit.
    pub(crate) fn is_away_for_too_long(&self) -> bool {
        let away = self.link.away.get();
        let away = away.map(|since| since.elapsed()).unwrap_or_default();
        self.config
            .disconnect_limit
            .is_some_and(|limit| away >= limit)
    }

    fn report(self: &Rc<Self>, key: u64, text: &str) {
        let Some(job) = self.take_job(key) else {
            return;
        };
        let may_have_run = job.handle.may_have_run;
        let is_queued = matches!(job.phase, Phase::Queued { .. });
        let is_unfinished = match job.call.key {
            None => may_have_run,
            // In the queue, it goes on without its handle.
            Some(_) => (job.kept.is_some() || job.busy) && !is_queued,
        };
        if is_unfinished && let Some(number) = job.number {
            self.link.reported.borrow_mut().push(Reported {
                id: self.id(number),
                task: job.call.task,
                name: job.call.key.clone(),
                may_have_run,
                is_once: job.call.is_once(),
                seq: match job.phase {
                    Phase::Queued { seq } => Some(seq),
                    Phase::Unsent | Phase::Unconfirmed => None,
                },
            });
        }
        let error = JoinError::disconnected(job.call.task, text, may_have_run);
        job.handle.resolve(Err(error));
    }
}

/// Waits for a change of the connection. For ever if the broker is closed.
async fn changed(connection: &mut watch::Receiver<crate::broker::Connection>) {
    if connection.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
