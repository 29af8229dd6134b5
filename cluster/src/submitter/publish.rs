//! How jobs get into the queue: in order, many at a time, and only while the server is there.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use futurepool::JoinError;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::broker::{Broker, BrokerError, PublishError, Store};
use crate::protocol::outcome::{Kept, Outcome, Verdict};
use crate::protocol::{BLOB_FROM, names};
use crate::submitter::attach::KeptError;
use crate::submitter::core::{Backoff, Ctx, sleep_or_wait};
use crate::submitter::fence::blob_of;
use crate::submitter::job::{Phase, Stop};

/// At most so many jobs are handed over and not confirmed.
const SENDING: usize = 256;

/// Room for the headers of a job beside its arguments in one message.
const HEADERS: usize = 8 << 10;

/// What holds back the jobs that are not sent.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Jobs that are handed over and not confirmed.
    sending: Cell<usize>,
    /// The queue is full, or refuses for now: when to try again. `None`: it takes jobs.
    refused: RefCell<Option<Refused>>,
    /// How long jobs wait after workers have dropped some.
    pub(crate) dropped: RefCell<Backoff>,
    /// There is another job, another answer or another connection.
    pub(crate) changed: Notify,
}

#[derive(Debug)]
struct Refused {
    /// `None` while one job tries.
    again: Option<Instant>,
    backoff: Backoff,
}

impl Outbox {
    pub(crate) fn on_sent(&self) {
        self.sending.set(self.sending.get() - 1);
        self.changed.notify_one();
    }

    /// Returns whether a job may be sent now, or when the next try is.
    fn room(&self, now: Instant) -> Result<(), Option<Instant>> {
        match &mut *self.refused.borrow_mut() {
            None if self.sending.get() < SENDING => Ok(()),
            None => Err(None),
            Some(Refused { again, .. }) => match *again {
                // One job tries for all.
                Some(at) if at <= now => {
                    *again = None;
                    Ok(())
                }
                other => Err(other),
            },
        }
    }

    fn on_stored(&self) {
        self.refused.take();
    }

    pub(crate) fn on_end(&self) {
        if self.refused.borrow().is_some() {
            self.changed.notify_one();
        }
    }

    /// No job is left that could find out whether the queue takes jobs again: the next one does.
    fn on_empty(&self) -> bool {
        self.sending.get() == 0 && self.refused.take().is_some()
    }

    fn on_refused<B: Broker>(&self, ctx: &Ctx<B>) {
        let mut refused = self.refused.borrow_mut();
        let refused = refused.get_or_insert_with(|| Refused {
            again: None,
            backoff: Backoff::default(),
        });
        // Of many that were sent at once, the first sets the time.
        if refused.again.is_none() {
            refused.again = Some(Instant::now() + ctx.next_wait(&mut refused.backoff));
        }
    }

    /// The one job that tried has no answer, or needs none: another one tries.
    fn on_unknown(&self) {
        if let Some(refused) = &mut *self.refused.borrow_mut()
            && refused.again.is_none()
        {
            refused.again = Some(Instant::now());
        }
    }
}

impl<B: Broker> Ctx<B> {
    /// Sends what is in the outbox, while there is room.
    pub(crate) async fn pump_outbox(self: Rc<Self>) {
        loop {
            self.until_ready().await;
            // Workers drop the jobs of a submitter that seems to be gone.
            if self.link.is_stale(self.times.live_period * 2) {
                let wait = self.next_wait(&mut self.outbox.dropped.borrow_mut());
                self.link.check();
                sleep(wait).await;
                continue;
            }
            let has_jobs = self.jobs.borrow().has_outbox();
            let next = match has_jobs {
                false => {
                    if self.outbox.on_empty() {
                        self.shared.window.set_queue_full(false);
                    }
                    None
                }
                true => match self.outbox.room(Instant::now()) {
                    Ok(()) => {
                        self.send_next();
                        continue;
                    }
                    Err(next) => next,
                },
            };
            tokio::select! { biased;
                () = self.outbox.changed.notified() => {}
                () = sleep_or_wait(next) => {}
            }
        }
    }

    fn send_next(self: &Rc<Self>) {
        let mut jobs = self.jobs.borrow_mut();
        let Some(key) = jobs.take_from_outbox() else {
            return;
        };
        jobs.set_timer(key, None);
        if let Some(job) = jobs.get_mut(key) {
            job.busy = true;
            drop(jobs);
            self.outbox.sending.set(self.outbox.sending.get() + 1);
            self.send(key);
        }
    }

    /// Hands a job to the broker.
    pub(crate) async fn publish(self: &Rc<Self>, key: u64) {
        let known = self.jobs.borrow_mut().number(key);
        let Some(number) = known else {
            return self.outbox.on_unknown();
        };
        let id = self.id(number);
        let Some(call) = self.with_job(key, |job| Rc::clone(&job.call)) else {
            return self.outbox.on_unknown();
        };

        // What is kept comes first: a key that exists means that nothing is submitted.
        if call.key.is_some() && !self.keep_pending(key, number).await {
            return self.outbox.on_unknown();
        }

        let is_running = self.with_job(key, |job| {
            job.is_running |= job.handle.set_running();
            job.is_running
        });
        match is_running {
            Some(true) => {}
            Some(false) => {
                self.outbox.on_unknown();
                return self.end_unsent(key, Stop::Cancelled).await;
            }
            None => return self.outbox.on_unknown(),
        }

        let max = self.broker.max_payload().saturating_sub(HEADERS);
        let blob = match call.body.len() >= BLOB_FROM.min(max / 2) {
            false => None,
            true => {
                let name = blob_of(&id);
                let put = || self.broker.put_blob(&name, call.body.clone());
                self.retry(put).await;
                Some(name)
            }
        };

        // A cancel may have come meanwhile. It is not in the queue yet, so that is exact.
        let now = Instant::now();
        let ready = self.with_job(key, |job| {
            let is_stopped = job.phase == Phase::Unsent && job.stop(now, &self.times).is_some();
            if is_stopped || job.number != Some(number) {
                return None;
            }
            let before = job.handle.may_have_run;
            job.started_earlier |= before && !job.call.is_once();
            job.phase = Phase::Unconfirmed;
            job.handle.may_have_run = true;
            job.sent_at = now;
            Some((job.republished, before))
        });
        let Some(Some((republished, before))) = ready else {
            self.outbox.on_unknown();
            if blob.is_some() {
                self.delete_blob_later(blob_of(&id));
            }
            return;
        };
        let mut message = call.to_outgoing(&id, &self.config.client, blob, now);
        if republished > 0 {
            // The server must not take it for the one that is gone.
            message.id = Some(format!("{id}.{republished}"));
        }
        match self.broker.publish(Store::Jobs, message).await {
            Ok(seq) => self.on_stored(key, number, seq),
            Err(PublishError::Full) => {
                self.outbox.on_refused(self);
                self.shared.window.set_queue_full(true);
                self.on_not_stored(key, number, before);
            }
            Err(PublishError::Other(BrokerError::Missing(_))) => {
                self.outbox.on_refused(self);
                self.on_not_stored(key, number, before);
                self.link.check();
            }
            Err(PublishError::Other(BrokerError::Unreachable(_))) => {
                self.outbox.on_unknown();
                // The state of the connection may not show it yet. And a server that never answers
                // must not get a fence for each try without a pause.
                let unknown = self.with_job(key, |job| {
                    job.unknown = job.unknown.saturating_add(1);
                    job.unknown
                });
                let wait = self.next_wait(&mut Backoff::default());
                let factor = 1 << unknown.unwrap_or(0).saturating_sub(1).min(16);
                sleep((wait * factor).min(self.times.lease / 3)).await;
            }
            Err(
                error @ (PublishError::TooLarge
                | PublishError::Conflict
                | PublishError::Other(BrokerError::Refused(_))),
            ) => {
                self.outbox.on_unknown();
                self.on_not_stored(key, number, before);
                self.on_refused(key, number, &error).await;
            }
        }
    }

    fn on_stored(self: &Rc<Self>, key: u64, number: u64, seq: u64) {
        self.outbox.on_stored();
        self.shared.window.set_queue_full(false);
        self.link.on_confirmed(seq);
        let now = Instant::now();
        let detached = self.with_job(key, |job| {
            if job.number == Some(number) && job.phase == Phase::Unconfirmed {
                job.phase = Phase::Queued { seq };
                job.news = now;
            }
            job.call.key.is_some()
        });
        if detached == Some(true) {
            self.spawn_short(Rc::clone(self).keep_sequence(key, number, seq));
        }
        self.reached("published", &self.id(number));
    }

    /// The server has certainly not stored this copy. `before`: an earlier one may have run.
    fn on_not_stored(&self, key: u64, number: u64, before: bool) {
        self.with_job(key, |job| {
            if job.phase == Phase::Unconfirmed && job.number == Some(number) {
                job.phase = Phase::Unsent;
                job.handle.may_have_run = before;
            }
        });
    }

    /// The server does not take the job, now or later.
    async fn on_refused(self: &Rc<Self>, key: u64, number: u64, error: &PublishError) {
        if !self.is_open(key, number) {
            return;
        }
        let refused = self.with_job(key, |job| {
            let refused = JoinError::refused(job.call.task, error.to_string());
            match job.handle.may_have_run {
                true => refused.with_earlier_start(job.call.task),
                false => refused,
            }
        });
        if let Some(refused) = refused {
            self.end_with(key, refused).await;
        }
    }

    /// Ends a job that is certainly not in the queue.
    pub(crate) async fn end_unsent(self: &Rc<Self>, key: u64, stop: Stop) {
        if let Some(error) = self.error_of_unsent(key, stop) {
            self.end_with(key, error).await;
        }
    }

    /// The same for a job of which nothing is kept.
    pub(crate) fn end_unsent_now(&self, key: u64, stop: Stop) {
        if let Some(error) = self.error_of_unsent(key, stop)
            && let Some(job) = self.take_job(key)
        {
            job.handle.resolve(Err(error));
        }
    }

    fn error_of_unsent(&self, key: u64, stop: Stop) -> Option<JoinError> {
        self.with_job(key, |job| {
            let error = stop.error(job.call.task);
            match job.handle.may_have_run {
                true => error.with_earlier_start(job.call.task),
                false => error,
            }
        })
    }

    /// Ends a job with an error of the submitter. For a detached job it is kept first.
    pub(crate) async fn end_with(self: &Rc<Self>, key: u64, error: JoinError) {
        let found = self.keep_error(key, &error).await;
        self.end_as_kept(key, error, found).await;
    }

    /// Ends a job with an error, or with the outcome that was kept of it already.
    pub(crate) async fn end_as_kept(
        self: &Rc<Self>,
        key: u64,
        error: JoinError,
        found: Option<Outcome>,
    ) {
        let Some(job) = self.take_job(key) else {
            return;
        };
        let result = match found {
            None => Err(error),
            Some(outcome) => self.output_of(job.call.task, outcome).await,
        };
        let number = job.number;
        job.handle.resolve(result);
        if let Some(number) = number {
            self.reached("resolved", &self.id(number));
        }
    }

    /// Creates what is kept of a detached job, or updates it to the present id. Returns `false` if
    /// the job has ended thereby.
    async fn keep_pending(self: &Rc<Self>, key: u64, number: u64) -> bool {
        let expect = self.with_job(key, |job| job.kept.unwrap_or(0));
        let Some(expect) = expect else {
            return false;
        };
        match self.write_pending(key, number, None, expect).await {
            Ok(seq) => self.with_job(key, |job| job.kept = Some(seq)).is_some(),
            Err(KeptError::Gone) => false,
            Err(KeptError::Foreign) => {
                self.refuse_duplicate(key);
                false
            }
            Err(KeptError::Ended(outcome)) => {
                match outcome.verdict {
                    // That of another id, which was never stored.
                    Verdict::Dropped => self.refuse_duplicate(key),
                    _ => self.take_outcome(key, number, *outcome, None),
                }
                false
            }
        }
    }

    /// A detached job has the key already: this one goes back.
    fn refuse_duplicate(self: &Rc<Self>, key: u64) {
        let Some(mut job) = self.take_job(key) else {
            return;
        };
        let detached = job.call.key.clone().unwrap_or_default();
        let error = JoinError::duplicate_key(job.call.task, &detached);
        match job.accepted.take() {
            Some(accepted) if !job.is_running => {
                let Some(job) = job.handle.into_job() else {
                    return;
                };
                // If the submitter has stopped waiting, its handle tells.
                if let Err(Err((error, job))) = accepted.send(Err((error, job))) {
                    job.fail(error);
                }
            }
            _ => job.handle.resolve(Err(error)),
        }
    }

    /// Writes that the detached job has this id, and this sequence if it is known.
    async fn write_pending(
        self: &Rc<Self>,
        key: u64,
        number: u64,
        seq: Option<u64>,
        mut expect: u64,
    ) -> Result<u64, KeptError> {
        let Some(call) = self.with_job(key, |job| Rc::clone(&job.call)) else {
            return Err(KeptError::Gone);
        };
        let name = call.key.clone().unwrap_or_default();
        let pending = Kept::Pending {
            id: self.id(number),
            client: self.config.client.clone(),
            task: call.task.to_owned(),
            version: call.version,
            signature: call.signature,
            seq,
        };
        let mut backoff = Backoff::default();
        loop {
            // Under another id, it has written something newer.
            if !self.is_open(key, number) {
                return Err(KeptError::Gone);
            }
            let message = pending.to_outgoing(&name, expect);
            let error = match self.broker.publish(Store::Kept, message).await {
                Ok(seq) => return Ok(seq),
                Err(PublishError::Conflict) => {
                    let subject = names::token(&name);
                    let kept = self.retry(|| self.broker.last(Store::Kept, &subject)).await;
                    let Some(kept) = kept else {
                        expect = 0;
                        continue;
                    };
                    expect = kept.seq;
                    if kept.is_deletion() {
                        continue;
                    }
                    match Kept::from_stored(&kept) {
                        // The confirmation was lost.
                        Ok(Kept::Pending { id, .. }) if self.had_id(key, &id) => continue,
                        Ok(Kept::Ended { outcome, .. }) if self.had_id(key, &outcome.id) => {
                            return Err(KeptError::Ended(Box::new(outcome)));
                        }
                        _ => return Err(KeptError::Foreign),
                    }
                }
                Err(PublishError::Other(error)) => error,
                Err(error) => BrokerError::Unreachable(error.to_string().into()),
            };
            self.pause(&mut backoff, &error).await;
        }
    }

    /// Returns whether the detached job has this id, or has had it.
    fn had_id(&self, key: u64, id: &str) -> bool {
        let number = self.number_of(id);
        let had = self.with_job(key, |job| number.is_some_and(|n| job.ids.contains(&n)));
        had == Some(true)
    }

    /// Notes the sequence of a detached job's message, so that others can look for it.
    pub(crate) async fn keep_sequence(self: Rc<Self>, key: u64, number: u64, seq: u64) {
        let expect = self.with_job(key, |job| job.kept.unwrap_or(0));
        let Some(expect) = expect else {
            return;
        };
        let written = self.write_pending(key, number, Some(seq), expect).await;
        self.with_job(key, |job| {
            if let Ok(kept) = written {
                job.kept = Some(kept);
            }
            // Under another id, it is handed over once more.
            if job.number == Some(number)
                // Only now: a submitter that exits after the answer leaves a job that is found.
                && let Some(accepted) = job.accepted.take()
            {
                let _ = accepted.send(Ok(()));
            }
        });
        self.leave(key);
    }
}
