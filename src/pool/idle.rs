//! Who sleeps and who is woken: the one subtle protocol.
//!
//! # The states of a worker that has no job
//!
//! - **Looking**: it looks at the queue again and again, for a moment. At most one worker looks; `looking` is set. A
//!   worker that was called out of its sleep is *looking* from the moment it is called, since it is on its way and will
//!   look at the queue. So a burst of jobs does not wake a crowd for what one worker may do alone.
//! - **Asleep**: it is in `beds`, and parks. `sleeping` counts the beds.
//! - Neither: it is on its way from a job to the queue, or from looking to bed. It will look at the queue before it
//!   sleeps.
//!
//! # The rules
//!
//! 1. Who has put a job into the queue *calls*: if nobody is looking and somebody sleeps, it takes the sleeper that lay
//!    down last out of its bed, sets `looking` in its name, and unparks it.
//! 2. Who stops looking because it found a job resets `looking` and then, if there is still a job in the queue, calls,
//!    as if it had put that job there. So workers come awake one after the other for as long as there is work.
//! 3. Who goes to sleep gets into bed, resets `looking` if it was looking, and **then** looks at the queue once more. If
//!    there is a job it gets up again and is looking, as if it had been called, unless somebody else is looking by then.
//! 4. A worker that ends a job and sees an empty queue starts looking *before* the job's result can be seen. So
//!    whoever submits a job because of that result finds a worker that looks, and wakes nobody. (Not if it has foreign
//!    code to wake: that may take its time, and a worker that looks must really look. Nor if the job came right after
//!    another one: then there are likely more, and the look would cost more than it saves. No wake-up depends on this
//!    rule.)
//!
//! # Why no wake-up is lost
//!
//! A caller writes the queue, then reads `looking` and `sleeping`. Who goes to sleep writes `sleeping` and `looking`,
//! then reads the queue; who stops looking writes `looking`, then reads the queue. Between the write and the reads each
//! of them has a sequentially consistent fence, so they cannot both miss the other's write:
//!
//! - The caller misses nothing: it sees a sleeper and nobody looking, and calls.
//! - Or it sees somebody looking. That worker has not reset `looking` yet as the caller saw it, so it reads the queue
//!   after it and sees the job (rule 2 or 3).
//! - Or it sees nobody asleep. Then each worker that goes to bed does it later, reads the queue after that (rule 3), and
//!   sees the job.
//!
//! That is one job. Any number of callers may have seen the same worker looking, and leave their jobs to it. It takes
//! one, and for the rest it calls the next worker, which does the same: whenever `looking` is reset and a job is seen
//! after it, somebody is called or looks from then on. This is why rule 3 says *and is looking*: one that got up, took a
//! job and said nothing would leave the others behind.
//!
//! Two callers that see the same sleeper settle it under the lock of `beds`: the second sees `looking` set by the first
//! and leaves it at that, and the worker on its way does the rest (rule 2). One that finds no bed taken any more leaves
//! its job to those who got up.
//!
//! Who leaves for good (its time is up) gets out of bed, is no longer counted as a worker, and then reads the queue,
//! too; if there is a job, it calls or has a new worker hired: see [`roster`](super::registry).

use std::mem;

use crossbeam_utils::CachePadded;

use crate::util::sync::thread::{self, Thread};
use crate::util::sync::{Arc, AtomicBool, AtomicUsize, Instant, Mutex, Ordering, fence};

#[derive(Debug, Default)]
pub(crate) struct Idle {
    /// Whether a worker looks, or was called and is on its way.
    looking: CachePadded<AtomicBool>,
    /// How many beds are taken. Changed under the lock of `beds`.
    sleeping: CachePadded<AtomicUsize>,
    beds: Mutex<Beds>,
}

#[derive(Debug, Default)]
struct Beds {
    /// Who lay down last is called first: its caches are warm, and those who lie long may leave.
    taken: Vec<Arc<Bed>>,
    /// Nobody goes to bed any more: the pool takes no more jobs.
    closed: bool,
}

/// A worker's own.
#[derive(Debug)]
pub(crate) struct Bed {
    owner: Thread,
    /// Set by who takes the bed out of `taken`, and why is `looking`.
    called: AtomicBool,
    /// Whether the call made its owner the one who looks.
    looking: AtomicBool,
}

/// How a night ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Morning {
    /// Called: it is the one who is looking.
    Called,
    /// Not called, but there is something to be seen: it should start looking.
    Up,
    /// The time is up.
    Expired,
}

impl Bed {
    /// For this thread.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            owner: thread::current(),
            called: AtomicBool::new(false),
            looking: AtomicBool::new(false),
        })
    }
}

impl Idle {
    /// Makes this worker the one who looks, unless there is one.
    pub(crate) fn start_looking(&self) -> bool {
        !self.looking.load(Ordering::Relaxed) && self.set_looking()
    }

    /// Who comes too late writes nothing: so only the one who looks, or for whom it was set, writes it while it is set.
    fn set_looking(&self) -> bool {
        let (set, seen) = (Ordering::SeqCst, Ordering::SeqCst);
        self.looking
            .compare_exchange(false, true, set, seen)
            .is_ok()
    }

    /// How many sleep.
    #[cfg(all(test, loom))]
    pub(crate) fn sleeping(&self) -> usize {
        self.sleeping.load(Ordering::SeqCst)
    }

    /// To be followed by a look at the queue (rule 2).
    pub(crate) fn stop_looking(&self) {
        self.looking.store(false, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// There is a job in the queue (rule 1). The queue was written, and a fence passed, before this.
    pub(crate) fn call_one(&self) {
        if self.looking.load(Ordering::SeqCst) || self.sleeping.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut beds = self.beds.lock();
        if beds.taken.is_empty() || !self.set_looking() {
            return;
        }
        let bed = beds.taken.pop().expect("it is not empty");
        self.sleeping.fetch_sub(1, Ordering::SeqCst);
        bed.looking.store(true, Ordering::Relaxed);
        bed.called.store(true, Ordering::Release);
        drop(beds);
        bed.owner.unpark();
    }

    /// Sleeps until it is called, or `until` has passed (rule 3). `looking`: it was the one who looks, and is not any
    /// more. `is_empty` looks at the queue.
    pub(crate) fn sleep(
        &self,
        bed: &Arc<Bed>,
        looking: bool,
        until: Option<Instant>,
        is_empty: impl FnOnce() -> bool,
    ) -> Morning {
        let mut beds = self.beds.lock();
        if beds.closed {
            drop(beds);
            if looking {
                self.stop_looking();
            }
            return Morning::Up;
        }
        bed.called.store(false, Ordering::Relaxed);
        bed.looking.store(false, Ordering::Relaxed);
        beds.taken.push(Arc::clone(bed));
        self.sleeping.fetch_add(1, Ordering::SeqCst);
        drop(beds);
        if looking {
            self.looking.store(false, Ordering::SeqCst);
        }
        fence(Ordering::SeqCst);
        if !is_empty() && self.get_up(bed) {
            return Morning::Up;
        }
        while !bed.called.load(Ordering::Acquire) {
            let Some(until) = until else {
                thread::park();
                continue;
            };
            let left = until.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                thread::park_timeout(left);
            } else if self.get_up(bed) {
                return Morning::Expired;
            }
        }
        match bed.looking.load(Ordering::Relaxed) {
            true => Morning::Called,
            false => Morning::Up,
        }
    }

    /// Leaves the bed by oneself; false if one was called in the meantime.
    fn get_up(&self, bed: &Arc<Bed>) -> bool {
        let mut beds = self.beds.lock();
        // From the front: those whose time is up lie there.
        let Some(place) = beds.taken.iter().position(|other| Arc::ptr_eq(other, bed)) else {
            return false;
        };
        beds.taken.remove(place);
        self.sleeping.fetch_sub(1, Ordering::SeqCst);
        true
    }

    /// Wakes all, and nobody sleeps any more.
    pub(crate) fn close(&self) {
        let mut beds = self.beds.lock();
        beds.closed = true;
        let sleepers = mem::take(&mut beds.taken);
        self.sleeping.store(0, Ordering::SeqCst);
        for bed in &sleepers {
            bed.called.store(true, Ordering::Release);
        }
        drop(beds);
        for bed in &sleepers {
            bed.owner.unpark();
        }
    }
}
