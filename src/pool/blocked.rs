//! Workers that wait, and who of them has to run a job meanwhile.
//!
//! A worker that waits without a time limit is in a list here while it sleeps. When all workers are in it, and no more
//! can be started, nobody is left to run what is queued; then one of the sleepers that has an offer, a queued job that
//! its own wait is for, is asked to run that.
//!
//! # Why nobody is forgotten
//!
//! Whether all wait changes for the worse only by a worker that falls asleep, or by one less that was counted on: a
//! thread that the system refused, or a worker that leaves its loop with jobs in the queue. After each of these the list
//! is reviewed, and an entry is made under the same lock, so the last one sees all the others. If a job comes when all
//! sleep, one of them gets up and lies down again, which is a review, too. An offer comes only from
//! a poll in its own thread, before that falls asleep; whoever awaits a job that comes to the pool later than its
//! handle is woken for that.
//!
//! Only what this thread polled in the job that it runs is an offer of that job's waits. A future may have been polled
//! elsewhere, and then been moved here: what is in it may not be polled again before it is woken. So if all wait, jobs
//! are queued and nobody has an offer, and that lasts, everybody is woken who awaits a queued job; if it is one of the
//! sleepers, its next poll makes the offer. That takes its time with a long queue, so it is done ever more seldom while
//! no job comes, and never for more than a small part of the time.
//!
//! One who is asked is out of the list, as if awake. Whether it finds something to do or not, it comes by here before it
//! sleeps again.

use std::time::Duration;

use crate::park::helping::Offering;
use crate::park::parker::Bell;
use crate::util::sync::{Arc, AtomicUsize, Instant, Mutex, Ordering, fence};

#[derive(Default)]
pub(crate) struct Dozing {
    asleep: Mutex<Vec<Sleeping>>,
    /// How many are in there, and how many of them sleep only until it is time for a chore. Changed under its lock.
    count: AtomicUsize,
    planned: AtomicUsize,
    nudges: Mutex<Nudges>,
}

struct Sleeping {
    bell: Arc<Bell>,
    /// What it may be asked to run, if anything.
    offers: Option<Offering>,
    planned: bool,
}

/// When the queue may be looked through again.
#[derive(Default)]
struct Nudges {
    /// Not before this.
    next: Option<Instant>,
    /// Longer each time, as long as no job came.
    pause: Duration,
    /// How many jobs had come by the last time.
    submitted: u64,
}

/// So long it may be that all workers wait and nobody has an offer, before the queue is looked through.
const STALL: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// So much longer the pause is than the look took, at least.
const REST: u32 = 50;

impl Dozing {
    pub(crate) fn enter(&self, bell: &Arc<Bell>, offers: Option<Offering>) {
        let bell = Arc::clone(bell);
        let planned = false;
        let mut asleep = self.asleep.lock();
        asleep.push(Sleeping {
            bell,
            offers,
            planned,
        });
        self.count.store(asleep.len(), Ordering::SeqCst);
        drop(asleep);
        // Who submits a job writes the queue and then reads the count; here it is the other way round.
        fence(Ordering::SeqCst);
    }

    /// It will be awake when it is time for a chore.
    pub(crate) fn plan(&self, bell: &Arc<Bell>) {
        let mut asleep = self.asleep.lock();
        let place = asleep
            .iter()
            .rposition(|sleeping| Arc::ptr_eq(&sleeping.bell, bell));
        if let Some(place) = place {
            asleep[place].planned = true;
            self.planned.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn remove(&self, asleep: &mut Vec<Sleeping>, place: usize) -> Sleeping {
        let awake = asleep.swap_remove(place);
        self.count.store(asleep.len(), Ordering::SeqCst);
        if awake.planned {
            self.planned.fetch_sub(1, Ordering::SeqCst);
        }
        awake
    }

    pub(crate) fn leave(&self, bell: &Arc<Bell>) {
        let mut asleep = self.asleep.lock();
        // From the end: short waits lie there.
        let is_it = |sleeping: &Sleeping| Arc::ptr_eq(&sleeping.bell, bell);
        let awake = asleep.iter().rposition(is_it);
        let awake = awake.map(|place| self.remove(&mut asleep, place));
        drop(asleep);
        drop(awake);
    }

    /// Whether so many workers sleep.
    pub(crate) fn has(&self, workers: usize) -> bool {
        workers > 0 && self.count.load(Ordering::SeqCst) >= workers
    }

    /// A job has come, or a chore that nobody will do: if all workers sleep, and none has planned to be awake soon, one
    /// gets up to see to it.
    pub(crate) fn ring_one(&self, workers: usize) {
        if !self.has(workers) || self.planned.load(Ordering::SeqCst) > 0 {
            return;
        }
        let bell = self
            .asleep
            .lock()
            .last()
            .map(|sleeping| Arc::clone(&sleeping.bell));
        if let Some(bell) = bell {
            bell.ring();
        }
    }

    /// When the queue may be looked through for somebody who waits for a job in it, after so many jobs have come.
    pub(crate) fn nudge_at(&self, submitted: u64) -> Instant {
        let soon = Instant::now() + STALL;
        let mut nudges = self.nudges.lock();
        if nudges.submitted != submitted {
            nudges.pause = Duration::ZERO;
        }
        nudges
            .next
            .map_or(soon, |next| soon.max(next + nudges.pause))
    }

    /// That was done.
    pub(crate) fn nudged(&self, start: Instant, submitted: u64) {
        let now = Instant::now();
        let mut nudges = self.nudges.lock();
        nudges.pause = (2 * nudges.pause).clamp(STALL, LONGEST_PAUSE);
        nudges.next = Some(now + REST * (now - start));
        nudges.submitted = submitted;
    }

    /// If all workers sleep: the one that is asked to run a job. Its bell is to be rung, outside locks.
    #[must_use]
    pub(crate) fn ask_one(&self, workers: impl FnOnce() -> usize) -> Option<Arc<Bell>> {
        let mut spent = Vec::new();
        let mut asleep = self.asleep.lock();
        if asleep.len() < workers() {
            return None;
        }
        // From the end: the one that just falls asleep need not be woken.
        let place = asleep.iter().rposition(|sleeping| {
            let offers = sleeping.offers.as_ref();
            offers.is_some_and(|offers| offers.any(&mut spent))
        })?;
        let asked = self.remove(&mut asleep, place);
        asked.bell.ask();
        drop(asleep);
        drop(spent);
        Some(asked.bell)
    }
}

impl std::fmt::Debug for Dozing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dozing").finish_non_exhaustive()
    }
}
