//! Detached jobs: what is kept under their keys, and handles that are attached to one.
//!
//! The kept message is written first, so that a key means one job. A worker writes the outcome into
//! it before it sends the outcome to the submitter, and the first outcome stays.

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use bytes::Bytes;
use futurepool::{ErrorReport, JoinError, Payload};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::Span;

use crate::broker::{Broker, PublishError, Store, Stored, Watch as _};
use crate::protocol::job::{Body, JobMessage};
use crate::protocol::live::Judgement;
use crate::protocol::names;
use crate::protocol::outcome::{Kept, Outcome, Verdict};
use crate::submitter::core::{Backoff, Ctx, sleep_or_wait};
use crate::submitter::fence::{Forbid, GONE};
use crate::submitter::resolver::{End, Resolve, Target};

/// Why the kept message of a job could not be written.
#[derive(Debug)]
pub(crate) enum KeptError {
    /// The job is resolved.
    Gone,
    /// Another job has the key.
    Foreign,
    /// The job has ended.
    Ended(Box<Outcome>),
}

/// A handle of a detached job, not resolved.
pub(crate) struct Attached {
    pub(crate) key: u64,
    /// The key of the detached job.
    pub(crate) name: String,
    pub(crate) task: &'static str,
    pub(crate) version: u32,
    pub(crate) signature: u64,
    pub(crate) is_once: bool,
    pub(crate) resolve: Box<dyn FnOnce(Result<Payload, JoinError>) + Send>,
}

impl fmt::Debug for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attached")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// An attached handle that waits. Dropping it resolves it.
#[derive(Debug)]
struct Waiting {
    attached: Option<Attached>,
    resolver: Rc<dyn Resolve>,
    since: Instant,
    next_look: Instant,
    /// A look is under way.
    looking: bool,
    /// The id, once the key was found.
    id: Option<String>,
    /// At so many looks in a row, nothing was left of the job. What was kept had this sequence.
    gone: (u32, u64),
}

impl Waiting {
    fn end(&mut self, result: Result<Bytes, JoinError>) {
        if let Some(attached) = self.attached.take() {
            self.resolver.resolve(End {
                target: Target::Attached(attached.resolve),
                result,
                booked: None,
                span: Span::none(),
            });
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.end(Err(JoinError::lost(
            "",
            None,
            "the submitter has stopped working",
            true,
        )));
    }
}

/// All attached handles.
#[derive(Debug, Default)]
pub(crate) struct Attaching {
    waiting: BTreeMap<u64, Waiting>,
    changed: Rc<Notify>,
}

impl Attaching {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn next_look(&self) -> Option<Instant> {
        let idle = self.waiting.values().filter(|waiting| !waiting.looking);
        idle.map(|waiting| waiting.next_look).min()
    }
}

/// What is kept under a key, for one that asks.
enum Found {
    Nothing,
    /// Of another task, version or signature.
    Other(String),
    Pending {
        id: String,
        client: String,
        seq: Option<u64>,
    },
    Ended(Outcome),
}

fn read_kept(stored: Option<&Stored>, attached: &Attached) -> Found {
    let Some(stored) = stored.filter(|stored| !stored.is_deletion()) else {
        return Found::Nothing;
    };
    let kept = match Kept::from_stored(stored) {
        Ok(kept) => kept,
        Err(what) => {
            return Found::Other(format!("what is kept under the key is malformed: {what}"));
        }
    };
    let (Kept::Pending {
        task,
        version,
        signature,
        ..
    }
    | Kept::Ended {
        task,
        version,
        signature,
        ..
    }) = &kept;
    if task != attached.task || *version != attached.version {
        return Found::Other(format!("the key is that of task {task}, version {version}"));
    }
    if *signature != 0 && attached.signature != 0 && *signature != attached.signature {
        return Found::Other("the task has another signature".to_owned());
    }
    match kept {
        Kept::Pending {
            id, client, seq, ..
        } => Found::Pending { id, client, seq },
        Kept::Ended { outcome, .. } => Found::Ended(outcome),
    }
}

impl<B: Broker> Ctx<B> {
    pub(crate) fn on_attach(self: &Rc<Self>, attached: Attached) {
        let now = Instant::now();
        let mut waiting = Waiting {
            resolver: Rc::clone(&self.resolver),
            since: now,
            next_look: now,
            looking: false,
            id: None,
            gone: (0, 0),
            attached: Some(attached),
        };
        if self.is_closing() {
            waiting.end(Err(JoinError::shutdown()));
            return;
        }
        let key = waiting.attached.as_ref().map_or(0, |attached| attached.key);
        let mut attaching = self.attached.borrow_mut();
        attaching.waiting.insert(key, waiting);
        attaching.changed.notify_one();
    }

    /// Follows the kept outcomes, while there are attached handles.
    pub(crate) async fn watch_kept(self: Rc<Self>) {
        let changed = Rc::clone(&self.attached.borrow().changed);
        loop {
            while self.attached.borrow().is_empty() {
                changed.notified().await;
            }
            self.until_ready().await;
            let mut watch = self.retry(|| self.broker.watch(Store::Kept, false)).await;
            // What ended before the watch began is found by a look.
            for waiting in self.attached.borrow_mut().waiting.values_mut() {
                waiting.next_look = Instant::now();
            }
            loop {
                self.start_looks();
                let next = self.attached.borrow().next_look();
                if self.attached.borrow().is_empty() {
                    break;
                }
                tokio::select! { biased;
                    message = watch.next() => match message {
                        Some(message) => self.on_kept(&message),
                        None => {
                            self.back_off(&mut Backoff::default()).await;
                            break;
                        }
                    },
                    () = changed.notified() => {}
                    () = sleep_or_wait(next) => {}
                }
            }
        }
    }

    fn start_looks(self: &Rc<Self>) {
        let now = Instant::now();
        let mut due = Vec::new();
        for (key, waiting) in &mut self.attached.borrow_mut().waiting {
            if !waiting.looking && waiting.next_look <= now {
                waiting.looking = true;
                due.push(*key);
            }
        }
        for key in due {
            self.spawn_short(Rc::clone(self).look_attached(key));
        }
    }

    /// A kept message was written: the handles that wait for its key look at it.
    fn on_kept(&self, message: &Stored) {
        let now = Instant::now();
        for waiting in self.attached.borrow_mut().waiting.values_mut() {
            let name = waiting.attached.as_ref().map(|attached| &attached.name);
            if name.is_some_and(|name| names::token(name) == message.subject) {
                waiting.next_look = now;
            }
        }
    }

    async fn look_attached(self: Rc<Self>, key: u64) {
        self.until_ready().await;
        if let Some(next) = self.look_once(key).await
            && let Some(waiting) = self.attached.borrow_mut().waiting.get_mut(&key)
        {
            waiting.looking = false;
            waiting.next_look = waiting.next_look.max(next);
        }
        self.attached.borrow().changed.notify_one();
    }

    /// Looks at what is kept. Returns when to look again, if the handle still waits.
    async fn look_once(self: &Rc<Self>, key: u64) -> Option<Instant> {
        let begun = Instant::now();
        let (name, task) = self.with_attached(key, |attached| {
            (names::token(&attached.name), attached.task)
        })?;
        let stored = self.retry(|| self.broker.last(Store::Kept, &name)).await;
        let found = self.with_attached(key, |attached| read_kept(stored.as_ref(), attached))?;
        match found {
            Found::Nothing => {
                let was_found = self.attached.borrow().waiting.get(&key)?.id.is_some();
                let error = match was_found {
                    false => JoinError::refused(task, "no detached job has the key"),
                    true => JoinError::lost(task, None, "its outcome is no longer kept", true),
                };
                self.end_attached(key, Err(error));
                None
            }
            Found::Other(text) => {
                self.end_attached(key, Err(JoinError::refused(task, text)));
                None
            }
            Found::Ended(outcome) => {
                let result = self.output_of(task, outcome).await;
                self.end_attached(key, result);
                None
            }
            Found::Pending { id, client, seq } => {
                if let Some(waiting) = self.attached.borrow_mut().waiting.get_mut(&key) {
                    waiting.id = Some(id.clone());
                }
                let owner = names::live_client(&client);
                let judgement = self.live.borrow_mut().judge(&owner, Instant::now());
                let kept = stored.map_or(0, |stored| stored.seq);
                match (judgement, seq) {
                    (Judgement::Dead, _) => self.look_for_orphan(key, &id, seq, kept, 2).await,
                    // It may have stopped to follow the job: it was disconnected for long.
                    (_, Some(_)) => self.look_for_orphan(key, &id, seq, kept, 3).await,
                    // This submitter does not know the job: the server has lost how it ended.
                    (_, None) if client == self.config.client && !self.knows(&id) => {
                        self.look_for_orphan(key, &id, seq, kept, 3).await;
                    }
                    // It may be in its outbox.
                    (_, None) => {}
                }
                Some(begun + self.times.look_period)
            }
        }
    }

    /// Returns what a kept outcome means for a handle.
    pub(crate) async fn output_of(&self, task: &str, outcome: Outcome) -> Result<Bytes, JoinError> {
        match outcome.verdict {
            Verdict::Returned(Body::Inline(output)) => Ok(output),
            Verdict::Returned(Body::Blob(blob)) => self.get_output(task, &blob).await,
            Verdict::Failed(report) => Err(JoinError::from(report)),
            Verdict::Dropped => Err(JoinError::lost(task, None, GONE, true)),
        }
    }

    /// Returns whether a job of this submitter is unresolved.
    fn knows(&self, id: &str) -> bool {
        let number = self.number_of(id);
        number.is_some_and(|number| self.jobs.borrow().key_of(number).is_some())
    }

    /// Looks whether anything is left of a job. If not, at so many looks in a row, it is lost.
    async fn look_for_orphan(
        self: &Rc<Self>,
        key: u64,
        id: &str,
        seq: Option<u64>,
        kept: u64,
        looks: u32,
    ) {
        let is_there = match seq {
            Some(seq) => self.has_message(seq, id).await,
            // Its submitter died at about the publish. So it may be there or not.
            None => self.is_in_queue(id).await,
        };
        let has_claim = {
            let claim = self.retry(|| self.broker.last(Store::Claims, id)).await;
            claim.is_some_and(|claim| !claim.is_deletion())
        };
        let is_gone = !is_there && !has_claim;
        let gone = match self.attached.borrow_mut().waiting.get_mut(&key) {
            Some(waiting) => {
                let before = match waiting.gone {
                    (count, seq) if seq == kept => count,
                    _ => 0,
                };
                waiting.gone = (if is_gone { before + 1 } else { 0 }, kept);
                waiting.gone.0
            }
            None => return,
        };
        if gone < looks {
            return;
        }
        let is_once = self.with_attached(key, |attached| attached.is_once) == Some(true);
        if seq.is_none() && is_once {
            // It must not start after its loss was reported.
            match self.forbid(id, 0).await {
                Forbid::Never(claim) => self.retire(claim),
                Forbid::Held(_) | Forbid::Lost(..) => return,
            }
        }
        let Some((name, task)) =
            self.with_attached(key, |attached| (attached.name.clone(), attached.task))
        else {
            return;
        };
        let error = JoinError::lost(task, None, GONE, true);
        self.write_error(&name, task, |kept| kept == id, &error)
            .await;
    }

    /// Looks through the whole queue for a job.
    async fn is_in_queue(&self, id: &str) -> bool {
        let last = self.retry(|| self.broker.info(Store::Jobs)).await.last;
        let mut seq = 0;
        while seq <= last {
            let Some(stored) = self.retry(|| self.broker.next(Store::Jobs, seq)).await else {
                return false;
            };
            if JobMessage::id_of(&stored) == Some(id) {
                return true;
            }
            seq = stored.seq + 1;
        }
        false
    }

    /// A handle of a detached job was cancelled: the job is stopped for all.
    pub(crate) fn on_cancel_attached(self: &Rc<Self>, key: u64) {
        self.spawn_short(Rc::clone(self).cancel_attached(key));
    }

    async fn cancel_attached(self: Rc<Self>, key: u64) {
        self.until_ready().await;
        let Some((name, task, is_once)) = self.with_attached(key, |attached| {
            (attached.name.clone(), attached.task, attached.is_once)
        }) else {
            return;
        };
        let subject = names::token(&name);
        let stored = self.retry(|| self.broker.last(Store::Kept, &subject)).await;
        let found = self.with_attached(key, |attached| read_kept(stored.as_ref(), attached));
        let Some(Found::Pending { id, seq, .. }) = found else {
            return;
        };
        if !is_once {
            if let Some(seq) = seq {
                self.delete_message(&id, seq).await;
            }
            self.ask_to_cancel(&id, None).await;
            let error = JoinError::cancelled_running(task);
            self.write_error(&name, task, |kept| kept == id, &error)
                .await;
            return;
        }
        match self.forbid(&id, seq.unwrap_or(0)).await {
            Forbid::Held(claim) => self.ask_to_cancel(&id, Some(&claim.by)).await,
            Forbid::Lost(..) => {}
            Forbid::Never(claim) => {
                // A worker that ran it has written the outcome before its claim was gone.
                let error = JoinError::cancelled();
                self.write_error(&name, task, |kept| kept == id, &error)
                    .await;
                match seq {
                    Some(seq) => self.remove(&id, seq, claim).await,
                    None => self.retire(claim),
                }
            }
        }
    }

    /// Keeps an error of the submitter as the outcome of its detached job. Returns the outcome that
    /// came first, if there is one.
    pub(crate) async fn keep_error(
        self: &Rc<Self>,
        key: u64,
        error: &JoinError,
    ) -> Option<Outcome> {
        let (call, ids) = self.with_job(key, |job| {
            let is_kept = job.kept.is_some();
            (is_kept.then(|| Rc::clone(&job.call)), job.ids.clone())
        })?;
        let call = call?;
        let name = call.key.as_deref().unwrap_or_default();
        let is_mine = |id: &str| {
            let number = self.number_of(id);
            number.is_some_and(|number| ids.contains(&number))
        };
        self.write_error(name, call.task, is_mine, error).await
    }

    /// Replaces what is kept under a key by an error, if the job has no outcome. Returns the outcome
    /// that the job has.
    pub(crate) async fn write_error(
        &self,
        name: &str,
        task: &str,
        is_expected: impl Fn(&str) -> bool,
        error: &JoinError,
    ) -> Option<Outcome> {
        let subject = names::token(name);
        let mut backoff = Backoff::default();
        loop {
            let stored = self.retry(|| self.broker.last(Store::Kept, &subject)).await;
            let stored = stored.filter(|stored| !stored.is_deletion())?;
            let (id, kept_task, version, signature) = match Kept::from_stored(&stored).ok()? {
                Kept::Pending {
                    id,
                    task,
                    version,
                    signature,
                    ..
                } => (id, task, version, signature),
                Kept::Ended { outcome, .. } => {
                    return Some(outcome).filter(|outcome| is_expected(&outcome.id));
                }
            };
            if !is_expected(&id) {
                return None;
            }
            let ended = Kept::Ended {
                task: kept_task,
                version,
                signature,
                outcome: Outcome {
                    id,
                    by: self.config.client.clone(),
                    verdict: Verdict::Failed(ErrorReport::new(task, error)),
                },
            };
            match self
                .broker
                .publish(Store::Kept, ended.to_outgoing(name, stored.seq))
                .await
            {
                Ok(_) => return None,
                Err(PublishError::Conflict) => {}
                Err(error) => {
                    let error = match error {
                        PublishError::Other(error) => error,
                        error => crate::broker::BrokerError::Refused(error.to_string().into()),
                    };
                    self.pause(&mut backoff, &error).await;
                }
            }
        }
    }

    fn with_attached<R>(&self, key: u64, read: impl FnOnce(&Attached) -> R) -> Option<R> {
        let attaching = self.attached.borrow();
        attaching.waiting.get(&key)?.attached.as_ref().map(read)
    }

    fn end_attached(&self, key: u64, result: Result<Bytes, JoinError>) {
        let waiting = self.attached.borrow_mut().waiting.remove(&key);
        // Not in the borrow: it may run user code.
        if let Some(mut waiting) = waiting {
            waiting.end(result);
            self.progress.notify_waiters();
        }
    }

    /// Reports attached handles as disconnected, those that have waited since a time that is due.
    pub(crate) fn report_attached(&self, text: &str, is_due: impl Fn(Instant) -> bool) {
        let due: Vec<(u64, &'static str)> = {
            let attaching = self.attached.borrow();
            let due = attaching
                .waiting
                .iter()
                .filter(|(_, waiting)| is_due(waiting.since));
            due.map(|(key, waiting)| {
                let task = waiting
                    .attached
                    .as_ref()
                    .map_or("", |attached| attached.task);
                (*key, task)
            })
            .collect()
        };
        for (key, task) in due {
            self.end_attached(key, Err(JoinError::disconnected(task, text, true)));
        }
    }
}
