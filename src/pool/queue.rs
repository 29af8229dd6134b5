//! FIFO of jobs, with or without a capacity.
//!
//! It has two ends, each with a lock of its own: who submits locks the entrance, who takes locks the exit. When the exit
//! has no more jobs it gets all of those at the entrance in exchange. So who submits and who takes seldom meet, jobs keep
//! their order, and who holds both locks has the queue for itself.
//!
//! A job that is cancelled, or run by a worker that waits for it, leaves its empty cell behind, a *husk*; when there are
//! more husks than jobs, they are swept out. Once the entrance was shut nobody is half-way in, so a shut and empty queue
//! stays empty.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::task::Waker;

use crossbeam_utils::CachePadded;

use crate::error::{Cause, Closed, JoinError};
use crate::pool::semaphore::Room;
use crate::task::cell::Sentence;
use crate::task::job::Job;
use crate::util::sync::{Arc, AtomicIsize, AtomicUsize, Mutex, MutexGuard, Ordering};

/// So many husks may stay, however few jobs there are.
const HUSKS_AT_LEAST: usize = 64;

/// Room for so many jobs is kept at an end that is empty. What a burst has needed above that is given back.
const ROOM_KEPT: usize = 1024;

#[derive(Debug)]
pub(crate) struct Queue {
    /// Locked before `entrance` by who needs both.
    exit: CachePadded<End<VecDeque<Job>>>,
    entrance: CachePadded<End<Entrance>>,
    /// Those that are to be refused and that nobody has got to yet. No worker takes them. Locked after the others.
    condemned: Mutex<VecDeque<Job>>,
    /// How many of the jobs in here are husks. For a moment less than zero, when a husk is popped before it is counted.
    husks: AtomicIsize,
    /// The places, if they are counted.
    pub(crate) room: Option<Room>,
}

#[derive(Debug, Default)]
struct End<T> {
    inner: Mutex<T>,
    /// How many jobs are in there. Changed under the lock, to be read without it.
    jobs: AtomicUsize,
}

#[derive(Default)]
struct Entrance {
    jobs: VecDeque<Job>,
    /// Why it is shut.
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
            exit: CachePadded::default(),
            entrance: CachePadded::default(),
            condemned: Mutex::default(),
            husks: AtomicIsize::new(0),
            room: capacity.map(Room::new),
        }
    }

    /// The whole queue, for who holds these.
    fn lock_both(&self) -> (MutexGuard<'_, VecDeque<Job>>, MutexGuard<'_, Entrance>) {
        let exit = self.exit.inner.lock();
        (exit, self.entrance.inner.lock())
    }

    /// Puts a job at the end; `accept` is called just before, to count it, and may still say no. The job comes back if
    /// the queue is shut.
    pub(crate) fn push(
        &self,
        job: Job,
        accept: impl FnOnce(&Job) -> bool,
    ) -> Result<Pushed, (Job, Closed)> {
        let mut entrance = self.entrance.inner.lock();
        if let Some(closed) = &entrance.closed {
            let closed = closed.clone();
            drop(entrance);
            return Err((job, closed));
        }
        if !accept(&job) {
            drop(entrance);
            job.disarm();
            return Ok(Pushed::Not);
        }
        entrance.jobs.push_back(job);
        self.entrance.set(entrance.jobs.len());
        Ok(Pushed::Yes)
    }

    /// Takes the first job out that may run.
    pub(crate) fn pop(&self) -> Option<Job> {
        // While there are jobs at the exit, nobody who submits is disturbed by a look at the entrance.
        if self.exit.is_empty() && self.seems_empty() {
            return None;
        }
        let mut spent = VecDeque::new();
        let mut jobs = self.exit.inner.lock();
        if jobs.is_empty() {
            let mut entrance = self.entrance.inner.lock();
            mem::swap(&mut *jobs, &mut entrance.jobs);
            // In this order: see `seems_empty`.
            self.exit.set(jobs.len());
            self.entrance.set(0);
        }
        let job = jobs.pop_front();
        self.exit.set(jobs.len());
        if jobs.is_empty() && jobs.capacity() > ROOM_KEPT {
            mem::swap(&mut *jobs, &mut spent);
        }
        drop(jobs);
        drop(spent);
        job
    }

    /// Whether no job can be seen, at the cost of two reads. Jobs that go from the entrance to the exit meanwhile are
    /// seen: they are counted there before they cease to be counted here, and here is looked first.
    pub(crate) fn seems_empty(&self) -> bool {
        self.entrance.is_empty() && self.exit.is_empty()
    }

    /// Whether there is none, nor was one half-way in.
    pub(crate) fn is_empty(&self) -> bool {
        let (exit, entrance) = self.lock_both();
        exit.is_empty() && entrance.jobs.is_empty()
    }

    pub(crate) fn closed(&self) -> Option<Closed> {
        self.entrance.inner.lock().closed.clone()
    }

    /// Shut and empty: no job will ever come out again.
    pub(crate) fn is_finished(&self) -> bool {
        let (exit, entrance) = self.lock_both();
        entrance.closed.is_some() && exit.is_empty() && entrance.jobs.is_empty()
    }

    /// Shuts the entrance. A queue that was shut can still break.
    pub(crate) fn close(&self, why: Closed) {
        let mut entrance = self.entrance.inner.lock();
        let old = match (&entrance.closed, &why) {
            (None, _) | (Some(Closed::Shutdown), Closed::Broken(_)) => entrance.closed.replace(why),
            _ => None,
        };
        drop(entrance);
        drop(old);
    }

    /// Sentences all jobs that are in at this moment: no worker will get them, they are to be had by
    /// [`pop_condemned`](Self::pop_condemned). Says how many there were. They take nobody's place any more; the wakers
    /// are of those who have the places now, to be called outside locks.
    pub(crate) fn condemn(&self, verdict: Verdict) -> (usize, Vec<Waker>) {
        let (mut exit, mut entrance) = self.lock_both();
        let (sentence, old) = match verdict {
            Verdict::Cancelled => (Sentence::Cancelled, (None, None)),
            Verdict::Broken(cause) => (Sentence::Broken, (entrance.broken.replace(cause), None)),
            Verdict::SpawnFailed(error) => {
                let old = entrance.refused.replace(error);
                (Sentence::SpawnFailed, (None, old))
            }
        };
        let jobs = exit.iter().chain(&entrance.jobs);
        let sentenced = jobs.filter(|job| job.condemn(sentence)).count();
        // Under these locks, which who ends a condemned job waits for: so none is seen as resolved while its place is
        // still taken.
        let give_back = |_| self.room.as_ref()?.give_back();
        let granted = (0..sentenced).filter_map(give_back).collect();
        let mut condemned = self.condemned.lock();
        condemned.append(&mut exit);
        condemned.append(&mut entrance.jobs);
        let spent = [mem::take(&mut *exit), mem::take(&mut entrance.jobs)];
        self.exit.set(0);
        self.entrance.set(0);
        drop(condemned);
        drop((exit, entrance));
        drop((old, spent));
        (sentenced, granted)
    }

    /// Returns when whoever sentences jobs at this moment has given back their places.
    pub(crate) fn await_sentences(&self) {
        drop(self.entrance.inner.lock());
    }

    /// The wakers of all those who await a queued job, but for threads that join one. They poll again when they are woken,
    /// and so register again.
    pub(crate) fn take_wakers(&self) -> Vec<Waker> {
        let (exit, entrance) = self.lock_both();
        let jobs = exit.iter().chain(&entrance.jobs);
        jobs.filter_map(Job::take_waker).collect()
    }

    /// The wakers of all those who wait for a condemned job.
    pub(crate) fn condemned_wakers(&self) -> Vec<Waker> {
        let condemned = self.condemned.lock();
        condemned.iter().filter_map(Job::waker).collect()
    }

    /// Takes the first condemned job out.
    pub(crate) fn pop_condemned(&self) -> Option<Job> {
        let mut spent = VecDeque::new();
        let mut condemned = self.condemned.lock();
        let job = condemned.pop_front();
        if condemned.is_empty() {
            mem::swap(&mut *condemned, &mut spent);
        }
        drop(condemned);
        drop(spent);
        job
    }

    pub(crate) fn error_of(&self, sentence: Sentence) -> JoinError {
        let entrance = self.entrance.inner.lock();
        match (sentence, &entrance.broken, &entrance.refused) {
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

    /// `jobs`: how many are in here, husks included.
    fn has_too_many_husks(&self, jobs: impl FnOnce() -> usize) -> bool {
        let husks = usize::try_from(self.husks.load(Ordering::Relaxed)).unwrap_or(0);
        // The first is all that is looked at, nearly always.
        husks > HUSKS_AT_LEAST && husks > HUSKS_AT_LEAST + jobs().saturating_sub(husks)
    }

    /// If there are too many husks, throws them out and keeps the jobs, in order. To be called when a husk was made or a
    /// job taken out.
    ///
    /// It costs as much as there are husks and jobs, and comes only after as many cancels, so each cancel pays for a
    /// step or two.
    pub(crate) fn sweep(&self) {
        let seen = || self.exit.len() + self.entrance.len() + self.condemned.lock().len();
        if !self.has_too_many_husks(seen) {
            return;
        }
        let (mut exit, mut entrance) = self.lock_both();
        let mut condemned = self.condemned.lock();
        let lanes = [&mut *exit, &mut entrance.jobs, &mut *condemned];
        let jobs = lanes.iter().map(|lane| lane.len()).sum();
        // Somebody else may have swept while this thread waited for the locks.
        if !self.has_too_many_husks(|| jobs) {
            return;
        }
        let mut husks = Vec::with_capacity(jobs);
        let spent = lanes.map(|lane| {
            let mut kept = VecDeque::with_capacity(lane.len());
            for job in lane.drain(..) {
                match job.is_husk() {
                    true => husks.push(job),
                    false => kept.push_back(job),
                }
            }
            kept.shrink_to_fit();
            mem::replace(lane, kept)
        });
        self.exit.set(exit.len());
        self.entrance.set(entrance.jobs.len());
        self.husks
            .fetch_sub(husks.len() as isize, Ordering::Relaxed);
        drop(condemned);
        drop((exit, entrance));
        drop((husks, spent));
    }
}

impl<T> End<T> {
    fn set(&self, jobs: usize) {
        self.jobs.store(jobs, Ordering::Release);
    }

    fn len(&self) -> usize {
        self.jobs.load(Ordering::Acquire)
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl std::fmt::Debug for Entrance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.closed {
            None => "Open",
            Some(Closed::Shutdown) => "Shutdown",
            Some(Closed::Broken(_)) => "Broken",
        })
    }
}
