//! FIFO of jobs, with or without a capacity.
//!
//! A lock-free injector holds the jobs. A job that is cancelled, or run by a worker that waits for it, leaves its empty
//! cell behind, a *husk*; when there are more husks than jobs, they are swept out. So that jobs keep their order, the sweep needs the queue for itself for a
//! moment; that is what the gate is for, and pushing and popping hold it shared. The gate's other use: once it was shut
//! nobody is half-way in, so a shut and empty queue stays empty.

use std::io;
use std::sync::PoisonError;
use std::task::Waker;

use crossbeam_deque::{Injector, Steal};
use crossbeam_utils::sync::{ShardedLock, ShardedLockReadGuard, ShardedLockWriteGuard};

use crate::error::{Cause, Closed, JoinError};
use crate::pool::room::Room;
use crate::sync::{Arc, AtomicIsize, Ordering};
use crate::task::cell::Sentence;
use crate::task::job::Job;

/// So many husks may stay, however few jobs there are.
const HUSKS_AT_LEAST: usize = 64;

#[derive(Debug)]
pub(crate) struct Queue {
    /// Shared by who pushes or pops, exclusive to who sweeps or shuts. `Some` says why it is shut.
    gate: ShardedLock<Gate>,
    /// Where jobs come in.
    jobs: Injector<Job>,
    /// Those that are to be refused and that nobody has got to yet. No worker takes them.
    condemned: Injector<Job>,
    /// How many of the jobs in here are husks. For a moment less than zero, when a husk is popped before it is counted.
    husks: AtomicIsize,
    /// The places, if they are counted.
    pub(crate) room: Option<Room>,
}

struct Gate {
    closed: Option<Closed>,
    /// What the condemned are refused with, if it is this.
    broken: Option<Cause>,
    refused: Option<Arc<io::Error>>,
}

/// Why all queued jobs are refused.
pub(crate) enum Verdict {
    Cancelled,
    Broken(Cause),
    SpawnFailed(Arc<io::Error>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Pushed {
    Yes,
    /// It was cancelled before.
    Not,
}

impl Queue {
    pub(crate) fn new(capacity: Option<usize>) -> Self {
        Self {
            gate: ShardedLock::new(Gate {
                closed: None,
                broken: None,
                refused: None,
            }),
            jobs: Injector::new(),
            condemned: Injector::new(),
            husks: AtomicIsize::new(0),
            room: capacity.map(Room::new),
        }
    }

    fn shared(&self) -> ShardedLockReadGuard<'_, Gate> {
        self.gate.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn exclusive(&self) -> ShardedLockWriteGuard<'_, Gate> {
        self.gate.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a job at the end; `accept` is called just before, to count it, and may still say no. The job comes back if
    /// the gate is shut.
    pub(crate) fn push(
        &self,
        job: Job,
        accept: impl FnOnce(&Job) -> bool,
    ) -> Result<Pushed, (Job, Closed)> {
        let gate = self.shared();
        if let Some(closed) = &gate.closed {
            let closed = closed.clone();
            drop(gate);
            return Err((job, closed));
        }
        if !accept(&job) {
            drop(gate);
            job.disarm();
            return Ok(Pushed::Not);
        }
        self.jobs.push(job);
        Ok(Pushed::Yes)
    }

    /// Takes the first job out that may run.
    pub(crate) fn pop(&self) -> Option<Job> {
        if self.seems_empty() {
            return None;
        }
        let _gate = self.shared();
        take(&self.jobs)
    }

    /// A hint, at no cost: during a sweep it may say so of jobs that come back at once. The sweeper calls a worker for
    /// them after it.
    pub(crate) fn seems_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// No hint: it waits for a sweep to end.
    pub(crate) fn is_empty(&self) -> bool {
        let _gate = self.shared();
        self.seems_empty()
    }

    pub(crate) fn closed(&self) -> Option<Closed> {
        self.shared().closed.clone()
    }

    /// Shut and empty: no job will ever come out again.
    pub(crate) fn is_finished(&self) -> bool {
        self.shared().closed.is_some() && self.seems_empty()
    }

    /// Shuts the gate. A queue that was shut can still break.
    pub(crate) fn close(&self, why: Closed) {
        let mut gate = self.exclusive();
        let old = match (&gate.closed, &why) {
            (None, _) | (Some(Closed::Shutdown), Closed::Broken(_)) => gate.closed.replace(why),
            _ => None,
        };
        drop(gate);
        drop(old);
    }

    /// Sentences all jobs that are in at this moment: no worker will get them, they are to be had by
    /// [`pop_condemned`](Self::pop_condemned). Says how many there were.
    pub(crate) fn condemn(&self, verdict: Verdict) -> usize {
        let mut condemned = 0;
        let mut gate = self.exclusive();
        let (sentence, old) = match verdict {
            Verdict::Cancelled => (Sentence::Cancelled, (None, None)),
            Verdict::Broken(cause) => (Sentence::Broken, (gate.broken.replace(cause), None)),
            Verdict::SpawnFailed(error) => {
                (Sentence::SpawnFailed, (None, gate.refused.replace(error)))
            }
        };
        while let Some(job) = take(&self.jobs) {
            condemned += usize::from(job.condemn(sentence));
            self.condemned.push(job);
        }
        drop(gate);
        drop(old);
        condemned
    }

    /// The wakers of all those who await a queued job, but for threads that join one. They poll again when they are woken,
    /// and so register again.
    pub(crate) fn take_wakers(&self) -> Vec<Waker> {
        self.collect(&self.jobs, Job::take_waker)
    }

    /// The wakers of all those who wait for a condemned job.
    pub(crate) fn condemned_wakers(&self) -> Vec<Waker> {
        self.collect(&self.condemned, Job::waker)
    }

    fn collect<R>(&self, lane: &Injector<Job>, of_job: fn(&Job) -> Option<R>) -> Vec<R> {
        let mut found = Vec::new();
        let gate = self.exclusive();
        let mut jobs = Vec::with_capacity(lane.len());
        while let Some(job) = take(lane) {
            found.extend(of_job(&job));
            jobs.push(job);
        }
        jobs.into_iter().for_each(|job| lane.push(job));
        drop(gate);
        found
    }

    /// Takes the first condemned job out.
    pub(crate) fn pop_condemned(&self) -> Option<Job> {
        let _gate = self.shared();
        take(&self.condemned)
    }

    pub(crate) fn error_of(&self, sentence: Sentence) -> JoinError {
        let gate = self.shared();
        match (sentence, &gate.broken, &gate.refused) {
            (Sentence::Broken, Some(cause), _) => JoinError::broken_by(Arc::clone(cause)),
            (Sentence::SpawnFailed, _, Some(error)) => JoinError::spawn_failed(Arc::clone(error)),
            _ => JoinError::cancelled(),
        }
    }

    /// A job in here became a husk.
    pub(crate) fn husk_made(&self) {
        self.husks.fetch_add(1, Ordering::Relaxed);
    }

    /// A husk was taken out.
    pub(crate) fn husk_gone(&self) {
        self.husks.fetch_sub(1, Ordering::Relaxed);
    }

    fn has_too_many_husks(&self) -> bool {
        let husks = usize::try_from(self.husks.load(Ordering::Relaxed)).unwrap_or(0);
        // The first is all that is looked at, nearly always.
        husks > HUSKS_AT_LEAST && {
            let jobs = (self.condemned.len() + self.jobs.len()).saturating_sub(husks);
            husks > HUSKS_AT_LEAST + jobs
        }
    }

    /// If there are too many husks, throws them out and keeps the jobs, in order; says whether jobs were moved, so that
    /// a worker has to be called. To be called when a husk was made or a job taken out.
    ///
    /// It costs as much as there are husks and jobs, and comes only after as many cancels, so each cancel pays for a
    /// step or two.
    #[must_use]
    pub(crate) fn sweep(&self) -> bool {
        if !self.has_too_many_husks() {
            return false;
        }
        let room = self.condemned.len() + self.jobs.len();
        let (mut jobs, mut husks) = (Vec::with_capacity(room), Vec::with_capacity(room));
        let gate = self.exclusive();
        // Somebody else may have swept while this thread waited for the gate.
        if !self.has_too_many_husks() {
            return false;
        }
        for lane in [&self.condemned, &self.jobs] {
            while let Some(job) = take(lane) {
                match job.is_husk() {
                    true => husks.push(job),
                    false => jobs.push(job),
                }
            }
            jobs.drain(..).for_each(|job| lane.push(job));
        }
        let moved = !self.seems_empty();
        self.husks
            .fetch_sub(husks.len() as isize, Ordering::Relaxed);
        drop(gate);
        drop(husks);
        moved
    }
}

fn take(injector: &Injector<Job>) -> Option<Job> {
    loop {
        match injector.steal() {
            Steal::Success(job) => return Some(job),
            Steal::Empty => return None,
            Steal::Retry => std::hint::spin_loop(),
        }
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.closed {
            None => "Open",
            Some(Closed::Shutdown) => "Shutdown",
            Some(Closed::Broken(_)) => "Broken",
        })
    }
}
