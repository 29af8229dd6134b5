//! What the submitter knows of a job that is not resolved, and what the job needs next.
//!
//! ```text
//!             publish                    confirmed, or a claim is seen
//!   Unsent ───────────► Unconfirmed ──────────────────────────────────► Queued ──► an outcome
//!     ▲ ▲                  │   │ ▲                                        │
//!     │ └── refused: full ─┘   │ └────────── the store was rolled back ───┘
//!     └─ a new id ─────────────┘ unknown: the old id is fenced first
//! ```
//!
//! A job is a record in a table. One task of the core at a time works for it, and only while there
//! is something to do ([`Step`]): a job that waits for its outcome costs a record and no future.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futurepool::{JoinError, TaskJob};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::Span;

use crate::broker::Outgoing;
use crate::protocol::job::{Body, JobMessage, Mode};
use crate::submitter::core::Times;
use crate::submitter::metrics::Counters;
use crate::submitter::resolver::{End, Resolve, Target};
use crate::submitter::window::Permit;

/// An accepted job. Dropping it resolves its handle on this thread: nothing waits for a core that
/// is gone.
#[derive(Debug)]
pub(crate) struct Booked {
    /// `None` once the handle is resolved, or was given to what resolves it.
    parts: Option<(TaskJob, Permit)>,
    counters: Arc<Counters>,
    span: Span,
}

impl Booked {
    /// Counts the job as submitted.
    pub(crate) fn new(job: TaskJob, permit: Permit, counters: Arc<Counters>, span: Span) -> Self {
        counters.on_submit();
        Self {
            parts: Some((job, permit)),
            counters,
            span,
        }
    }

    fn job(&self) -> &TaskJob {
        let parts = self.parts.as_ref();
        &parts.expect("only methods that end the value take them").0
    }

    /// Resolves the handle on this thread.
    pub(crate) fn resolve_here(mut self, error: JoinError) {
        if let Some(end) = self.end(Err(error)) {
            end.deliver();
        }
    }

    fn end(&mut self, result: Result<Bytes, JoinError>) -> Option<End> {
        let (job, permit) = self.parts.take()?;
        Some(End {
            target: Target::Job(job),
            result,
            booked: Some((permit, Arc::clone(&self.counters))),
            span: mem::replace(&mut self.span, Span::none()),
        })
    }
}

impl Drop for Booked {
    fn drop(&mut self) {
        if let Some(end) = self.end(Err(JoinError::broken(STOPPED))) {
            end.deliver();
        }
    }
}

const STOPPED: &str = "the submitter has stopped working";

/// A handle that is not resolved. Dropping it resolves the handle.
#[derive(Debug)]
pub(crate) struct Unresolved {
    booked: Booked,
    resolver: Rc<dyn Resolve>,
    /// A copy of the job was handed to the broker, which is not certainly fenced.
    pub(crate) may_have_run: bool,
}

impl Unresolved {
    pub(crate) fn new(booked: Booked, resolver: Rc<dyn Resolve>) -> Self {
        Self {
            booked,
            resolver,
            may_have_run: false,
        }
    }

    pub(crate) fn task(&self) -> &'static str {
        self.booked.job().name()
    }

    pub(crate) fn set_running(&self) -> bool {
        self.booked.job().set_running()
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.booked.job().is_cancelled()
    }

    pub(crate) fn resolve(mut self, result: Result<Bytes, JoinError>) {
        self.end(result);
    }

    fn end(&mut self, result: Result<Bytes, JoinError>) {
        if let Some(end) = self.booked.end(result) {
            self.resolver.resolve(end);
        }
    }

    /// Gives the job back, as if it had never been submitted. `None`: its handle has resolved.
    pub(crate) fn into_job(mut self) -> Option<TaskJob> {
        let (job, _permit) = self.booked.parts.take()?;
        self.booked.counters.on_give_back();
        Some(job)
    }
}

impl Drop for Unresolved {
    fn drop(&mut self) {
        if self.booked.parts.is_none() {
            return;
        }
        let error = match self.may_have_run {
            false => JoinError::broken(STOPPED),
            true => JoinError::lost(self.task(), None, STOPPED, true),
        };
        self.end(Err(error));
    }
}

/// Where a job's message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Certainly not in the queue under its present id. It is in the outbox.
    Unsent,
    /// It was handed to the broker, and there was no answer.
    Unconfirmed,
    /// The server has stored it, or a worker has it.
    Queued { seq: u64 },
}

/// Why a job must not start, or must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    Cancelled,
    /// Its deadline has passed.
    Expired,
    /// No live worker has the task.
    NoWorker,
}

impl Stop {
    /// Makes the error of a job that certainly never started.
    pub(crate) fn error(self, task: &str) -> JoinError {
        match self {
            Self::Cancelled => JoinError::cancelled(),
            Self::Expired => JoinError::expired(task),
            Self::NoWorker => JoinError::refused(task, "no live worker has the task"),
        }
    }
}

/// What a job needs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The outbox sends it when it is its turn.
    WaitInOutbox,
    /// Nothing before this time, unless there is news.
    Wait(Instant),
    Publish,
    Fence,
    /// It is certainly not in the queue, and ends.
    End(Stop),
    Stop(Stop),
    /// Its holder is dead, or a worker is that may hold it.
    CheckClaim,
    /// There was no news for long.
    Look,
}

/// An unresolved job.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) handle: Unresolved,
    pub(crate) call: Rc<CallParts>,
    /// The number of its present id. It has none before it is sent.
    pub(crate) number: Option<u64>,
    pub(crate) phase: Phase,
    /// Its message was published again after it was gone, so often.
    pub(crate) republished: u32,
    /// Of an idempotent job: another copy may have started than the one of which is spoken.
    pub(crate) started_earlier: bool,
    /// So many publishes under one id or another had no answer.
    pub(crate) unknown: u32,
    /// The submitter was shut down: the handle of this detached job ends once it is in the queue.
    pub(crate) is_leaving: bool,
    /// Its message was in the queue and unclaimed at the last look.
    pub(crate) was_waiting: bool,
    /// It was handed to the broker: `cancel` of the handle returns false.
    pub(crate) is_running: bool,
    /// The store was rolled back: what is known of earlier copies is not certain.
    pub(crate) is_rolled_back: bool,
    /// A task of the core works for the job. Only that one changes the phase.
    pub(crate) busy: bool,
    pub(crate) cancel: bool,
    pub(crate) no_worker: bool,
    /// When to stop it again, because a worker has it.
    pub(crate) stop_again: Option<Instant>,
    /// How often a request to stop it had no effect.
    pub(crate) stopped: u32,
    /// The key of the worker that has it, as far as it is known.
    pub(crate) holder: Option<Arc<str>>,
    pub(crate) check_claim: bool,
    /// When its message was last handed over.
    pub(crate) sent_at: Instant,
    pub(crate) submitted_at: Instant,
    /// When something was last heard of it.
    pub(crate) news: Instant,
    /// Its entry in the table's timers.
    timer: Option<Instant>,
    /// Of a detached job: the numbers of all its ids.
    pub(crate) ids: Vec<u64>,
    /// Of a detached job: the sequence of what is kept under its key.
    pub(crate) kept: Option<u64>,
    /// Of a detached job: answers `submit_detached`.
    pub(crate) accepted: Option<oneshot::Sender<Result<(), (JoinError, TaskJob)>>>,
}

/// What never changes in a job.
#[derive(Debug)]
pub(crate) struct CallParts {
    pub(crate) subject: Arc<str>,
    pub(crate) task: &'static str,
    pub(crate) version: u32,
    pub(crate) signature: u64,
    pub(crate) mode: Mode,
    pub(crate) deadline: Option<Instant>,
    pub(crate) time_limit: Option<Duration>,
    pub(crate) label: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) traceparent: Option<String>,
    /// The encoded arguments.
    pub(crate) body: Bytes,
}

impl CallParts {
    pub(crate) fn is_once(&self) -> bool {
        self.mode == Mode::Once
    }

    /// Makes the message of the job under this id. `blob`: the arguments are in this blob.
    pub(crate) fn to_outgoing(
        &self,
        id: &str,
        client: &str,
        blob: Option<String>,
        now: Instant,
    ) -> Outgoing {
        let message = JobMessage {
            id: id.to_owned(),
            client: client.to_owned(),
            mode: self.mode,
            signature: self.signature,
            deadline: self.deadline.map(|at| at.saturating_duration_since(now)),
            time_limit: self.time_limit,
            label: self.label.clone(),
            key: self.key.clone(),
            traceparent: self.traceparent.clone(),
            body: match blob {
                None => Body::Inline(self.body.clone()),
                Some(name) => Body::Blob(name),
            },
        };
        message.to_outgoing(&self.subject)
    }
}

impl Job {
    pub(crate) fn new(handle: Unresolved, call: CallParts, now: Instant) -> Self {
        Self {
            handle,
            call: Rc::new(call),
            number: None,
            phase: Phase::Unsent,
            republished: 0,
            started_earlier: false,
            unknown: 0,
            is_leaving: false,
            was_waiting: false,
            is_running: false,
            is_rolled_back: false,
            busy: false,
            cancel: false,
            no_worker: false,
            stop_again: None,
            stopped: 0,
            holder: None,
            check_claim: false,
            sent_at: now,
            submitted_at: now,
            news: now,
            timer: None,
            ids: Vec::new(),
            kept: None,
            accepted: None,
        }
    }

    /// Decides what the job needs next.
    pub(crate) fn next_step(&self, now: Instant, times: &Times) -> Step {
        let stop = self.stop(now, times);
        match self.phase {
            // An earlier copy may be stored or run: it is stopped like one in the queue.
            Phase::Unsent => match stop {
                Some(stop) => Step::End(stop),
                None => Step::WaitInOutbox,
            },
            Phase::Unconfirmed => match self.call.mode {
                Mode::Once => Step::Fence,
                Mode::Idempotent { .. } => Step::Publish,
            },
            Phase::Queued { .. } => {
                if self.check_claim && self.call.is_once() {
                    return Step::CheckClaim;
                }
                if let Some(stop) = stop
                    && self.stop_again.is_none_or(|again| again <= now)
                {
                    return Step::Stop(stop);
                }
                let look = self.news + times.look_period;
                if look <= now {
                    return Step::Look;
                }
                let other = match stop {
                    None => self.deadline(times),
                    Some(_) => self.stop_again,
                };
                Step::Wait(other.map_or(look, |other| other.min(look)))
            }
        }
    }

    /// Returns why the job must not start, or must end.
    pub(crate) fn stop(&self, now: Instant, times: &Times) -> Option<Stop> {
        if self.cancel {
            Some(Stop::Cancelled)
        } else if self.deadline(times).is_some_and(|at| at <= now) {
            Some(Stop::Expired)
        } else if self.no_worker {
            Some(Stop::NoWorker)
        } else {
            None
        }
    }

    /// Returns when the job expires.
    fn deadline(&self, times: &Times) -> Option<Instant> {
        let deadline = self.call.deadline?;
        // An idempotent job that has just started says so, if it runs for a moment. A default job
        // has a claim.
        let is_sent = !self.call.is_once() && self.phase != Phase::Unsent;
        Some(match is_sent {
            true => deadline + times.news_of_start,
            false => deadline,
        })
    }
}

/// All unresolved jobs.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    /// By the number of their submission, which never changes.
    map: BTreeMap<u64, Job>,
    /// From the number of the present id to that of the submission.
    numbers: HashMap<u64, u64>,
    next_number: u64,
    /// Jobs that wait to be sent, the oldest first.
    outbox: BTreeSet<u64>,
    /// When a job needs something. At most one entry for each job.
    timers: BTreeSet<(Instant, u64)>,
}

impl Jobs {
    pub(crate) fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    pub(crate) fn get(&self, key: u64) -> Option<&Job> {
        self.map.get(&key)
    }

    pub(crate) fn get_mut(&mut self, key: u64) -> Option<&mut Job> {
        self.map.get_mut(&key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &Job)> {
        self.map.iter().map(|(key, job)| (*key, job))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut Job)> {
        self.map.iter_mut().map(|(key, job)| (*key, job))
    }

    /// Takes in a job, which waits in the outbox.
    pub(crate) fn insert(&mut self, key: u64, job: Job) {
        let deadline = job.call.deadline;
        self.map.insert(key, job);
        self.outbox.insert(key);
        if let Some(deadline) = deadline {
            self.set_timer(key, Some(deadline));
        }
    }

    pub(crate) fn remove(&mut self, key: u64) -> Option<Job> {
        self.set_timer(key, None);
        self.outbox.remove(&key);
        let job = self.map.remove(&key)?;
        if let Some(number) = job.number {
            self.numbers.remove(&number);
        }
        Some(job)
    }

    /// Returns the job that has an id with this number now.
    pub(crate) fn key_of(&self, number: u64) -> Option<u64> {
        self.numbers.get(&number).copied()
    }

    /// Returns the number of the job's id, a new one if it has none.
    pub(crate) fn number(&mut self, key: u64) -> Option<u64> {
        let job = self.map.get_mut(&key)?;
        if job.number.is_none() {
            let number = self.next_number;
            self.next_number += 1;
            job.number = Some(number);
            if job.call.key.is_some() {
                job.ids.push(number);
            }
            self.numbers.insert(number, key);
        }
        job.number
    }

    /// Puts a job into the outbox, because it is certainly not stored under its present id.
    pub(crate) fn put_back(&mut self, key: u64) {
        let Some(job) = self.map.get_mut(&key) else {
            return;
        };
        job.phase = Phase::Unsent;
        // A task that works for it puts it there in the end.
        if !job.busy {
            self.outbox.insert(key);
            let deadline = job.call.deadline;
            self.set_timer(key, deadline);
        }
    }

    /// Takes the job's id away and puts the job into the outbox.
    pub(crate) fn reissue(&mut self, key: u64) {
        let Some(job) = self.map.get_mut(&key) else {
            return;
        };
        if let Some(number) = job.number.take() {
            self.numbers.remove(&number);
        }
        // An earlier start of an idempotent job may have been the end of its worker.
        if job.call.is_once() && !job.is_rolled_back {
            job.handle.may_have_run = false;
        }
        // An earlier delivery of an idempotent job may have started.
        job.started_earlier |= !job.call.is_once();
        job.holder = None;
        job.check_claim = false;
        job.stop_again = None;
        job.stopped = 0;
        job.republished = 0;
        self.put_back(key);
    }

    /// Takes the oldest job out of the outbox.
    pub(crate) fn take_from_outbox(&mut self) -> Option<u64> {
        self.outbox.pop_first()
    }

    pub(crate) fn leave_outbox(&mut self, key: u64) {
        self.outbox.remove(&key);
    }

    pub(crate) fn has_outbox(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Sets when the job needs something.
    pub(crate) fn set_timer(&mut self, key: u64, at: Option<Instant>) {
        let Some(job) = self.map.get_mut(&key) else {
            return;
        };
        if job.timer == at {
            return;
        }
        if let Some(old) = job.timer {
            self.timers.remove(&(old, key));
        }
        job.timer = at;
        if let Some(at) = at {
            self.timers.insert((at, key));
        }
    }

    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Returns the jobs that need something now.
    pub(crate) fn take_due(&mut self, now: Instant) -> Vec<u64> {
        let mut due = Vec::new();
        while let Some(&(at, key)) = self.timers.first()
            && at <= now
        {
            self.timers.pop_first();
            if let Some(job) = self.map.get_mut(&key) {
                job.timer = None;
            }
            due.push(key);
        }
        due
    }
}
