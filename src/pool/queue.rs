//! FIFO of jobs, with or without a capacity.
//!
//! A lock-free injector holds the jobs. A job that is cancelled leaves its empty cell behind, a *husk*; when there are
//! more husks than jobs, they are swept out. So that jobs keep their order, the sweep needs the queue for itself for a
//! moment; that is what the gate is for, and pushing and popping hold it shared. The gate's other use: once it was shut
//! nobody is half-way in, so a shut and empty queue stays empty.

use std::sync::PoisonError;

use crossbeam_deque::{Injector, Steal};
use crossbeam_utils::sync::{ShardedLock, ShardedLockReadGuard, ShardedLockWriteGuard};

use crate::error::Closed;
use crate::pool::room::Room;
use crate::sync::{AtomicIsize, Ordering};
use crate::task::job::Job;

/// So many husks may stay, however few jobs there are.
const HUSKS_AT_LEAST: usize = 64;

#[derive(Debug)]
pub(crate) struct Queue {
    /// Shared by who pushes or pops, exclusive to who sweeps or shuts. `Some` says why it is shut.
    gate: ShardedLock<Gate>,
    /// Where jobs come in.
    newer: Injector<Job>,
    /// Those that were in when all were to be refused, and that nobody has got to yet: all are older than all in
    /// `newer`.
    older: Injector<Job>,
    /// How many of the jobs in here are husks. For a moment less than zero, when a husk is popped before it is counted.
    husks: AtomicIsize,
    /// The places, if they are counted.
    pub(crate) room: Option<Room>,
}

struct Gate(Option<Closed>);

impl Queue {
    pub(crate) fn new(capacity: Option<usize>) -> Self {
        Self {
            gate: ShardedLock::new(Gate(None)),
            newer: Injector::new(),
            older: Injector::new(),
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

    /// Puts a job at the end; `accepted` is called just before, to count it. The job comes back if the gate is shut.
    pub(crate) fn push(&self, job: Job, accepted: impl FnOnce()) -> Result<(), (Job, Closed)> {
        let gate = self.shared();
        if let Gate(Some(closed)) = &*gate {
            let closed = closed.clone();
            drop(gate);
            return Err((job, closed));
        }
        accepted();
        self.newer.push(job);
        Ok(())
    }

    /// Takes the first job out.
    pub(crate) fn pop(&self) -> Option<Job> {
        if self.seems_empty() {
            return None;
        }
        let _gate = self.shared();
        take(&self.older).or_else(|| take(&self.newer))
    }

    /// A hint, at no cost: during a sweep it may say so of jobs that come back at once. The sweeper calls a worker for
    /// them after it.
    pub(crate) fn seems_empty(&self) -> bool {
        self.newer.is_empty() && self.older.is_empty()
    }

    /// No hint: it waits for a sweep to end.
    pub(crate) fn is_empty(&self) -> bool {
        let _gate = self.shared();
        self.seems_empty()
    }

    pub(crate) fn closed(&self) -> Option<Closed> {
        self.shared().0.clone()
    }

    /// Shut and empty: no job will ever come out again.
    pub(crate) fn is_finished(&self) -> bool {
        self.shared().0.is_some() && self.seems_empty()
    }

    /// Shuts the gate; says whether it was open. A queue that was shut can still break.
    pub(crate) fn close(&self, why: Closed) -> bool {
        let mut gate = self.exclusive();
        let was_open = gate.0.is_none();
        let old = match (&gate.0, &why) {
            (None, _) | (Some(Closed::Shutdown), Closed::Broken(_)) => gate.0.replace(why),
            _ => None,
        };
        drop(gate);
        drop(old);
        was_open
    }

    /// Puts a mark behind the last job: those before it can be had by [`pop_marked`](Self::pop_marked). Jobs are moved,
    /// so a worker has to be called.
    pub(crate) fn mark(&self) {
        let _gate = self.exclusive();
        while let Some(job) = take(&self.newer) {
            self.older.push(job);
        }
    }

    /// Takes the first job out, if it is before the mark. Workers may take them, too.
    pub(crate) fn pop_marked(&self) -> Option<Job> {
        let _gate = self.shared();
        take(&self.older)
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
            let jobs = (self.older.len() + self.newer.len()).saturating_sub(husks);
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
        let room = self.older.len() + self.newer.len();
        let (mut jobs, mut husks) = (Vec::with_capacity(room), Vec::with_capacity(room));
        let gate = self.exclusive();
        // Somebody else may have swept while this thread waited for the gate.
        if !self.has_too_many_husks() {
            return false;
        }
        for lane in [&self.older, &self.newer] {
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
        f.write_str(match self.0 {
            None => "Open",
            Some(Closed::Shutdown) => "Shutdown",
            Some(Closed::Broken(_)) => "Broken",
        })
    }
}
