//! The queue of a pool: a FIFO of jobs with two locks, a FIFO for the jobs of each worker, and one
//! for each priority other than the normal one.
//!
//! Submitters outside of the workers lock the tail, workers the head. When the head is empty, it
//! takes over all jobs of the tail in one exchange. So submitters and workers seldom meet, and jobs
//! keep their order.
//!
//! A job that is submitted in a worker goes to that worker's *lane*, which has a lock of its own.
//! Workers that submit jobs for themselves seldom meet either. Lanes belong to the queue: a lane
//! outlives its worker, and with many workers several share one.
//!
//! # Which job is next
//!
//! A worker takes the first job of its own lane, else of the head, else of another lane. So the
//! jobs of a busy worker do not wait for it.
//!
//! A worker's own lane may never become empty. So once in [`TURNS`] times the worker looks at the
//! head first, and once at one of the lanes, each lane in turn. A job at the head starts after at
//! most `TURNS` starts of any worker that is free, a job at the front of a lane after at most
//! `TURNS * LANES`.
//!
//! No job moves from one FIFO to another. Until a worker submits a job, no lane is looked at.
//!
//! # Priorities
//!
//! All jobs of high priority are in one FIFO, whatever thread submits them, and all jobs of low
//! priority in another one. So each of the two starts in the order of acceptance. The other FIFOs
//! have the jobs of normal priority, and the rules above are about these.
//!
//! High goes first, then Normal, then Low, unless it is the *turn* of Normal or Low. Each of these
//! two has a *debt*:
//!
//! - A start of another priority adds 1 if jobs of this one wait. If none wait, the debt becomes 0.
//! - A start of its own takes off `P - 1`, down to 0 at least. `P` is [`NORMAL_PERIOD`] or
//!   [`LOW_PERIOD`].
//! - At `P` it is its turn. If it is the turn of both, Normal goes first.
//!
//! So the first three jobs of high priority go before all others. If there is no end of them,
//! Normal gets a start in 3, Low a start in 7, and High the rest.
//!
//! **What is promised**: over any 16 starts by workers Normal gets at least 4 and Low at least 1,
//! while they wait. Let one of them have `n` of 16 starts. They add `16 - n` to its debt, and take
//! off at most `(P - 1) * n`. So the debt grows by `16 - P * n` at least. It is never less than 0,
//! nor more than `P + e` (see below), so `16 - P * n <= P + e`, and `n >= (16 - P - e) / P`:
//!
//! - Normal is never kept from its turn: `e = 0`, and `n >= 13 / 3`, which makes 5.
//! - Low has to wait if it is the turn of Normal, too. After that start the debt of Normal is 1, so
//!   Low is next: `e = 1`, and `n >= 8 / 7`, which makes 2.
//!
//! That is one start more than promised. A worker can be delayed after it has taken a job out, and
//! start it later than others that were taken out after it.
//!
//! The argument needs that a start is chosen and counted in one step. So a worker holds the lock of
//! the turns until its job is out. What it finds may be a tombstone, or a job whose deadline has
//! passed: that uses up no turn, the worker comes back for the next job. What a worker runs because
//! it waits for it does not count, nor does a broadcast job, which is in no queue. A job that is
//! cancelled or expires after it was taken out, and before it starts, has used up a turn.
//!
//! Until a job of another priority is submitted, no worker reads the turns. What workers are taking
//! out at that moment does not count.
//!
//! # Tombstones, and the end
//!
//! A job that is cancelled, or run by a worker that waits for it, leaves a *tombstone*: its empty
//! task. When there are more tombstones than jobs, they are compacted away.
//!
//! A thread that holds all locks has the queue for itself.
//!
//! Invariant: once the queue is closed no job is added, so a closed and empty queue stays empty.

use std::array;
use std::borrow::Borrow;
use std::cmp::Reverse;
use std::collections::VecDeque;
use std::mem;
use std::task::Waker;

use crossbeam_utils::CachePadded;

use crate::error::Closed;
use crate::pool::job::Priority;
use crate::pool::metrics::{PLACES, SHARDS};
use crate::task::job::Job;
use crate::util::fault::fault_or;
use crate::util::sync::{
    AtomicBool, AtomicIsize, AtomicUsize, Instant, Mutex, MutexGuard, Ordering,
};

/// This many tombstones are tolerated regardless of the number of jobs.
const MIN_TOMBSTONES: usize = 64;

/// The capacity that an empty side keeps. Capacity beyond this is freed.
const RETAINED_CAPACITY: usize = 1024;

/// A thread that counts in the shard `n` has the lane `n`.
const LANES: usize = SHARDS;

/// The sides other than head and tail have these numbers: first the lanes, then a side for each
/// priority other than the normal one.
const HIGH_SIDE: usize = LANES;
const LOW_SIDE: usize = LANES + 1;
const OTHERS: usize = PLACES;

/// All sides: the head, the tail and the others.
const SIDES: usize = 2 + OTHERS;

/// The bits of the lanes in [`Flags::used`].
const LANE_BITS: usize = (1 << LANES) - 1;

/// Once in this many times a worker looks at the head first, and once at a lane that need not be
/// its own.
const TURNS: usize = 8;

/// Normal gets at least one start in this many, if it waits.
const NORMAL_PERIOD: u32 = 3;

/// Low gets at least one start in this many, if it waits.
const LOW_PERIOD: u32 = 7;

#[derive(Debug)]
pub(crate) struct Queue {
    /// Lock order: the turns, the head, the tail, then the others from the first on.
    turns: CachePadded<Mutex<Turns>>,
    head: CachePadded<Side>,
    tail: CachePadded<Side>,
    /// The lanes, then the sides of high and of low priority.
    others: [CachePadded<Side>; OTHERS],
    /// Seldom written, and read for each job.
    flags: CachePadded<Flags>,
    /// How many of the jobs are tombstones. For a moment less than zero, if a tombstone is popped,
    /// or compacted away, before it is counted.
    tombstones: AtomicIsize,
}

/// One end of the FIFO with two locks, a lane, or the FIFO of a priority.
#[derive(Debug, Default)]
struct Side {
    inner: Mutex<Jobs>,
    /// The number of jobs in `inner`. Written under the lock, read without it.
    len: AtomicUsize,
}

#[derive(Default)]
struct Jobs {
    jobs: VecDeque<Job>,
    /// Why the queue accepts no more jobs. Written under the locks of all sides.
    closed: Option<Closed>,
}

#[derive(Debug, Default)]
struct Flags {
    /// One bit for each side other than head and tail that has ever held a job. Set under the lock
    /// of that side.
    used: AtomicUsize,
    /// Whether the sides are closed. Written under all locks, read without.
    closed: AtomicBool,
    /// Whether a job with a deadline was ever added.
    has_deadlines: AtomicBool,
}

/// Where a job is added: at the tail, or at the end of the side with this number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place(Option<usize>);

impl Place {
    /// The jobs of normal priority from outside of the workers.
    pub(crate) const OUTSIDE: Self = Self(None);
    pub(crate) const HIGH: Self = Self(Some(HIGH_SIDE));
    pub(crate) const LOW: Self = Self(Some(LOW_SIDE));

    /// The jobs of normal priority that workers submit.
    pub(crate) fn lane(lane: usize) -> Self {
        Self(Some(lane))
    }

    /// Returns the number of the side, if it is not the tail.
    pub(crate) fn number(self) -> Option<usize> {
        self.0
    }
}

/// Which priority is next: see the [module](self#priorities).
#[derive(Debug, Default)]
struct Turns {
    /// The debt of Normal.
    normal: u32,
    /// The debt of Low.
    low: u32,
}

impl Turns {
    /// Returns the priorities in the order in which a worker looks for a job.
    fn order(&self) -> [Priority; 3] {
        use Priority::{High, Low, Normal};

        match (self.normal >= NORMAL_PERIOD, self.low >= LOW_PERIOD) {
            (false, false) => [High, Normal, Low],
            (true, false) => [Normal, High, Low],
            (false, true) => [Low, High, Normal],
            (true, true) => [Normal, Low, High],
        }
    }

    /// Counts a start.
    fn count(&mut self, started: Priority, waits: impl Fn(Priority) -> bool) {
        let debts = [
            (Priority::Normal, &mut self.normal, NORMAL_PERIOD),
            (Priority::Low, &mut self.low, LOW_PERIOD),
        ];
        for (priority, debt, period) in debts {
            *debt = if priority == started {
                debt.saturating_sub(period - 1)
            } else if waits(priority) {
                *debt + 1
            } else {
                0
            };
        }
    }

    /// Nothing of this priority waits.
    fn forget(&mut self, priority: Priority) {
        match priority {
            Priority::High => {}
            Priority::Normal => self.normal = 0,
            Priority::Low => self.low = 0,
        }
    }
}

/// Where a worker looks for its next job.
#[derive(Debug)]
pub(crate) struct PopOrder {
    /// The worker's own lane.
    lane: usize,
    /// How often the worker has looked.
    turn: usize,
}

impl PopOrder {
    pub(crate) fn new(lane: usize) -> Self {
        Self { lane, turn: 0 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Push {
    Accepted,
    /// The job was cancelled before.
    AlreadyCancelled,
}

impl Queue {
    pub(crate) fn new() -> Self {
        Self {
            turns: CachePadded::default(),
            head: CachePadded::default(),
            tail: CachePadded::default(),
            others: array::from_fn(|_| CachePadded::default()),
            flags: CachePadded::default(),
            tombstones: AtomicIsize::new(0),
        }
    }

    /// Returns the sides, in the order in which they are locked.
    fn sides(&self) -> [&Side; SIDES] {
        array::from_fn(|side| match side {
            0 => &*self.head,
            1 => &*self.tail,
            other => &*self.others[other - 2],
        })
    }

    fn lock_all(&self) -> [MutexGuard<'_, Jobs>; SIDES] {
        // Lock order: `map` goes from the first to the last.
        self.sides().map(|side| side.inner.lock())
    }

    /// Adds a job at the end of the side that `place` names. The job comes back if the queue is
    /// closed.
    ///
    /// `accept` is called just before, under the lock, to count the job. It may decline a job that
    /// was made for any executor and cancelled before it got here.
    pub(crate) fn push(
        &self,
        job: Job,
        place: Place,
        accept: impl FnOnce(&Job) -> bool,
    ) -> Result<Push, (Job, Closed)> {
        let number = place.number();
        let side = number.map_or(&self.tail, |number| &self.others[number]);
        let mut inner = side.inner.lock();
        if let Some(closed) = &inner.closed {
            let closed = closed.clone();
            drop(inner);
            return Err((job, closed));
        }
        if !accept(&job) {
            drop(inner);
            job.disarm();
            return Ok(Push::AlreadyCancelled);
        }
        inner.jobs.push_back(job);
        side.set_len(inner.jobs.len());
        if let Some(number) = number {
            self.flags.mark_used(number);
        }
        Ok(Push::Accepted)
    }

    /// A job with a deadline is about to be added.
    pub(crate) fn note_deadline(&self) {
        // Ordering: none is needed. A worker that misses it may count a job that does not start.
        if !self.flags.has_deadlines() {
            self.flags.has_deadlines.store(true, Ordering::Relaxed);
        }
    }

    /// Takes the next job of a worker out, which may be a tombstone.
    #[inline]
    pub(crate) fn pop(&self, order: &mut PopOrder) -> Option<Job> {
        match self.flags.used() {
            0 => self.pop_head(),
            used if used & !LANE_BITS == 0 => self.pop_normal(used, order),
            used => self.pop_in_turn(used, order),
        }
    }

    /// Takes the next job of the priority whose turn it is.
    ///
    /// Not inlined: [`pop`](Self::pop) has to stay small for pools without priorities.
    #[inline(never)]
    fn pop_in_turn(&self, used: usize, order: &mut PopOrder) -> Option<Job> {
        // Before the lock, as asking for the time is a system call.
        let now = self.flags.has_deadlines().then(Instant::now);
        let turns = self.turns.lock();
        let priorities = turns.order();
        let mut turns = fault_or!(
            "a_turn_is_chosen_before_the_lock": { drop(turns); self.turns.lock() };
            turns
        );
        // The lock is held until the job is out: see the module's documentation.
        priorities.into_iter().find_map(|priority| {
            let job = match priority {
                Priority::High => self.pop_other(HIGH_SIDE),
                Priority::Normal => self.pop_normal(used, order),
                Priority::Low => self.pop_other(LOW_SIDE),
            };
            match &job {
                None => turns.forget(priority),
                // Lock order: the turns, then a task.
                Some(job) if !job.can_start(now) => {}
                Some(_) => turns.count(priority, |priority| self.waits_hint(priority)),
            }
            job
        })
    }

    /// Returns whether a job of this priority can be seen.
    pub(crate) fn waits_hint(&self, priority: Priority) -> bool {
        match priority {
            Priority::High => !self.others[HIGH_SIDE].is_empty_hint(),
            Priority::Normal => {
                !self.is_head_and_tail_empty_hint() || self.is_any_used_hint(LANE_BITS)
            }
            Priority::Low => !self.others[LOW_SIDE].is_empty_hint(),
        }
    }

    /// Takes the next job of normal priority out. `used`: the sides that have ever held a job.
    #[allow(clippy::modulo_one, reason = "the model checker has one lane")]
    #[inline]
    fn pop_normal(&self, used: usize, order: &mut PopOrder) -> Option<Job> {
        if used & LANE_BITS == 0 {
            return self.pop_head();
        }
        order.turn = order.turn.wrapping_add(1);
        let first = match order.turn % TURNS {
            0 => self.pop_head(),
            1 => self.pop_other(order.turn / TURNS % LANES),
            _ => None,
        };
        let mut others = (1..LANES).map(|distance| (order.lane + distance) % LANES);
        first
            .or_else(|| self.pop_other(order.lane))
            .or_else(|| self.pop_head())
            .or_else(|| others.find_map(|lane| self.pop_other(lane)))
    }

    // The way of each job of a pool whose workers submit none.
    #[inline]
    fn pop_head(&self) -> Option<Job> {
        // While the head has jobs, no submitter is disturbed by a look at the tail.
        if self.head.is_empty_hint() && self.is_head_and_tail_empty_hint() {
            return None;
        }
        let mut inner = self.head.inner.lock();
        if inner.jobs.is_empty() {
            let mut tail = self.tail.inner.lock();
            mem::swap(&mut inner.jobs, &mut tail.jobs);
            // Ordering: the head's length is published before the tail's is cleared: see
            // `is_head_and_tail_empty_hint`.
            self.head.set_len(inner.jobs.len());
            self.tail.set_len(0);
        }
        self.head.pop_locked(inner)
    }

    fn pop_other(&self, number: usize) -> Option<Job> {
        let side = &self.others[number];
        if side.is_empty_hint() {
            return None;
        }
        side.pop_locked(side.inner.lock())
    }

    /// Returns whether no job can be seen, at the cost of three loads and one for each used lane or
    /// priority.
    pub(crate) fn is_empty_hint(&self) -> bool {
        // Ordering: jobs move from the tail to the head and nowhere else, so the other sides can be
        // read one after the other. A side is marked as used before its first job is published to a
        // thread that must not miss it.
        let sides = fault_or!(
            "lanes_are_overlooked": !LANE_BITS,
            "priorities_are_overlooked": LANE_BITS;
            usize::MAX
        );
        self.is_head_and_tail_empty_hint() && !self.is_any_used_hint(sides)
    }

    fn is_head_and_tail_empty_hint(&self) -> bool {
        // Ordering: jobs that move from the tail to the head are counted at the head before the
        // tail ceases to count them. The tail is read first, so they are seen in one of the two.
        self.tail.is_empty_hint() && self.head.is_empty_hint()
    }

    /// Returns how many jobs can be seen, at the cost of three loads and one for each used lane or
    /// priority. A job that moves to the head meanwhile may be counted twice.
    pub(crate) fn len_hint(&self) -> usize {
        let others = self.used_others(usize::MAX).map(Side::len_hint);
        self.tail.len_hint() + self.head.len_hint() + others.sum::<usize>()
    }

    /// Returns whether a job can be seen in one of `sides`, which has a bit for each.
    fn is_any_used_hint(&self, sides: usize) -> bool {
        self.used_others(sides).any(|side| !side.is_empty_hint())
    }

    /// Returns those of `sides` that have ever held a job.
    fn used_others(&self, sides: usize) -> impl Iterator<Item = &Side> {
        let mut used = self.flags.used() & sides;
        std::iter::from_fn(move || {
            let number = used.trailing_zeros();
            // Removes the lowest bit.
            used &= used.checked_sub(1)?;
            Some(&*self.others[number as usize])
        })
    }

    /// Returns whether there is no job, nor one that is just being added.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock_all().iter().all(|side| side.jobs.is_empty())
    }

    /// Returns why the queue is closed, if it is.
    pub(crate) fn closed(&self) -> Option<Closed> {
        self.tail.inner.lock().closed.clone()
    }

    /// Returns whether the queue is closed, at the cost of one load.
    pub(crate) fn is_closed_hint(&self) -> bool {
        // Ordering: pairs with the store in `close`.
        self.flags.closed.load(Ordering::Acquire)
    }

    /// Returns whether no job will ever come out again.
    pub(crate) fn is_closed_and_empty(&self) -> bool {
        // Ordering: a worker that reads the old value parks, and sees there that the pool is
        // closed: see `idle.rs`. All locks are taken only if the flag is set.
        self.flags.closed.load(Ordering::Acquire) && self.is_empty()
    }

    /// Accepts no more jobs. A queue that was shut down can still break.
    pub(crate) fn close(&self, reason: Closed) {
        let mut sides = self.lock_all();
        let closed = fault_or!(
            "lanes_stay_open": &mut sides[..2],
            "priorities_stay_open": &mut sides[..2 + LANES];
            &mut sides[..]
        );
        for side in closed {
            // What is replaced is no user data.
            match (&side.closed, &reason) {
                (None, _) | (Some(Closed::Shutdown), Closed::Broken(_)) => {
                    side.closed = Some(reason.clone());
                }
                _ => {}
            }
        }
        // Ordering: pairs with `is_closed_and_empty`.
        self.flags.closed.store(true, Ordering::Release);
        drop(sides);
    }

    /// Takes all jobs out, tombstones included, oldest first, whatever their priority. `next_order`
    /// returns the place that the next job would get in the order of submission.
    pub(crate) fn drain(&self, next_order: impl FnOnce() -> u32) -> Vec<Job> {
        let mut sides = self.lock_all();
        // No state is touched under the locks: the caller marks the jobs.
        let drained = sides.each_mut().map(|side| mem::take(&mut side.jobs));
        for side in self.sides() {
            side.set_len(0);
        }
        drop(sides);
        let drained = drained.into_iter().flatten();
        self.oldest_first(drained, next_order)
    }

    /// Takes the wakers of the futures that wait for the oldest queued jobs, up to `batch` of them.
    /// `next_order` is as in [`drain`](Self::drain).
    pub(crate) fn oldest_wakers(
        &self,
        batch: usize,
        next_order: impl FnOnce() -> u32,
    ) -> Vec<Waker> {
        let sides = self.lock_all();
        let jobs = self.oldest_first(sides.iter().flat_map(|side| &side.jobs), next_order);
        jobs.into_iter()
            .filter_map(Job::take_future_waker)
            .take(batch)
            .collect()
    }

    /// Brings jobs of all sides, side after side, into the order of submission.
    fn oldest_first<J: Borrow<Job>>(
        &self,
        jobs: impl Iterator<Item = J>,
        next_order: impl FnOnce() -> u32,
    ) -> Vec<J> {
        let mut jobs: Vec<_> = jobs.collect();
        // Head and tail are in the order of acceptance already.
        if self.flags.used() != 0 {
            let next = next_order();
            // A tombstone has no place any longer, and needs none.
            let age = |job: &J| job.borrow().order().map(|order| next.wrapping_sub(order));
            jobs.sort_by_cached_key(|job| Reverse(age(job)));
        }
        jobs
    }

    /// Counts a job that became a tombstone, and compacts the queue if there are too many.
    pub(crate) fn add_tombstone(&self) {
        // Ordering: none is needed, the counter guards no data.
        self.tombstones.fetch_add(1, Ordering::Relaxed);
        self.compact_if_due();
    }

    /// Uncounts a tombstone that was taken out.
    pub(crate) fn remove_tombstone(&self) {
        self.tombstones.fetch_sub(1, Ordering::Relaxed);
    }

    /// `len` returns the number of jobs, tombstones included.
    fn should_compact(&self, len: impl FnOnce() -> usize) -> bool {
        let tombstones = usize::try_from(self.tombstones.load(Ordering::Relaxed)).unwrap_or(0);
        // Nearly always only the first is evaluated.
        tombstones > MIN_TOMBSTONES
            && tombstones > MIN_TOMBSTONES + len().saturating_sub(tombstones)
    }

    /// Drops the tombstones, if there are too many, and keeps the jobs in order. To be called when
    /// their share may have grown: a tombstone was added, or a job taken out.
    ///
    /// It costs as much as there are tombstones and jobs, and only after as many cancels: so each
    /// cancel pays for a step or two.
    pub(crate) fn compact_if_due(&self) {
        if !self.should_compact(|| self.len_hint()) {
            return;
        }
        let mut sides = self.lock_all();
        let len = sides.iter().map(|side| side.jobs.len()).sum();
        // Another thread may have compacted while this one waited for the locks.
        if !self.should_compact(|| len) {
            return;
        }
        let mut tombstones = Vec::with_capacity(len);
        let spent = sides.each_mut().map(|side| {
            let mut kept = VecDeque::with_capacity(side.jobs.len());
            for job in side.jobs.drain(..) {
                if job.is_tombstone() {
                    tombstones.push(job);
                } else {
                    kept.push_back(job);
                }
            }
            kept.shrink_to_fit();
            mem::replace(&mut side.jobs, kept)
        });
        for (side, inner) in self.sides().iter().zip(&sides) {
            side.set_len(inner.jobs.len());
        }
        self.tombstones
            .fetch_sub(tombstones.len() as isize, Ordering::Relaxed);
        drop(sides);
        // The drop of a `Job` cancels it; of a tombstone it only frees the memory.
        drop((tombstones, spent));
    }
}

impl Side {
    /// Takes the first job out, which may be a tombstone.
    #[inline]
    fn pop_locked(&self, mut inner: MutexGuard<'_, Jobs>) -> Option<Job> {
        let jobs = &mut inner.jobs;
        let job = jobs.pop_front();
        self.set_len(jobs.len());
        let is_spent = jobs.is_empty() && jobs.capacity() > RETAINED_CAPACITY;
        let spent = is_spent.then(|| mem::take(jobs));
        // Freed outside the lock.
        drop(inner);
        drop(spent);
        job
    }

    fn set_len(&self, len: usize) {
        // Ordering: pairs with `len_hint`.
        self.len.store(len, Ordering::Release);
    }

    fn len_hint(&self) -> usize {
        // Ordering: pairs with `set_len`. A thread that must not miss a job puts a fence between
        // this and its own write: see `pool/idle.rs`.
        self.len.load(Ordering::Acquire)
    }

    fn is_empty_hint(&self) -> bool {
        self.len_hint() == 0
    }
}

impl Flags {
    fn used(&self) -> usize {
        // Ordering: as in `len_hint`.
        self.used.load(Ordering::Acquire)
    }

    fn has_deadlines(&self) -> bool {
        self.has_deadlines.load(Ordering::Relaxed)
    }

    /// The caller holds the lock of the side with this number.
    fn mark_used(&self, number: usize) {
        let bit = 1 << number;
        // Ordering: only threads that hold the lock set this bit.
        if self.used.load(Ordering::Relaxed) & bit == 0 {
            // Ordering: pairs with `used`.
            self.used.fetch_or(bit, Ordering::Release);
        }
    }
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.closed {
            None => "Open",
            Some(Closed::Shutdown) => "Shutdown",
            Some(Closed::Broken(_)) => "Broken",
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Mutex as StdMutex;

    use super::*;
    use crate::executor::Executor;
    use crate::executor::ext::ExecutorExt;
    use crate::task::cell::Details;
    use crate::task::join_handle::JoinHandle;
    use crate::task::stamp::Stamp;

    const OUTSIDE: Place = Place::OUTSIDE;
    const HIGH: Place = Place::HIGH;
    const LOW: Place = Place::LOW;

    fn lane(lane: usize) -> Place {
        Place::lane(lane)
    }

    /// Keeps the last job that it was given.
    #[derive(Default)]
    struct Kept(StdMutex<Option<Job>>);

    impl Executor for Kept {
        fn execute(&self, job: Job) {
            *self.0.lock().unwrap() = Some(job);
        }
    }

    fn job(value: u32) -> (JoinHandle<u32>, Job) {
        let kept = Kept::default();
        let handle = kept.submit(move || value);
        let job = kept.0.lock().unwrap().take().unwrap();
        (handle, job)
    }

    fn push_to(queue: &Queue, place: Place, value: u32) -> JoinHandle<u32> {
        let (handle, job) = job(value);
        assert_eq!(queue.push(job, place, |_| true).ok(), Some(Push::Accepted));
        handle
    }

    fn push(queue: &Queue, value: u32) -> JoinHandle<u32> {
        push_to(queue, OUTSIDE, value)
    }

    /// Takes a job out as a worker does that has just started.
    fn pop(queue: &Queue) -> Option<Job> {
        queue.pop(&mut PopOrder::new(0))
    }

    fn drain(queue: &Queue) -> Vec<Job> {
        queue.drain(|| 0)
    }

    /// Runs the next job of a worker and returns which one it was.
    fn run_next(queue: &Queue, order: &mut PopOrder, handles: &mut Vec<JoinHandle<u32>>) -> u32 {
        queue.pop(order).unwrap().run();
        let position = handles.iter().position(JoinHandle::is_finished).unwrap();
        handles.remove(position).join().unwrap()
    }

    #[test]
    fn jobs_come_out_in_the_order_they_went_in_across_both_sides() {
        let queue = Queue::new();
        let first = [push(&queue, 0), push(&queue, 1)];
        pop(&queue).unwrap().run();
        // From here on the head holds one job, and the tail gets more.
        let second = [push(&queue, 2), push(&queue, 3)];
        let order: Vec<_> = first
            .into_iter()
            .chain(second)
            .map(|mut handle| {
                if !handle.is_finished() {
                    pop(&queue).unwrap().run();
                }
                handle.try_join().unwrap().unwrap()
            })
            .collect();
        assert_eq!(order, [0, 1, 2, 3]);
        assert!(pop(&queue).is_none() && queue.is_empty() && queue.is_empty_hint());
    }

    #[test]
    fn a_closed_queue_gives_the_job_back_and_keeps_what_it_has() {
        let queue = Queue::new();
        let _handle = push(&queue, 0);
        queue.close(Closed::Shutdown);
        let (_handle, late) = job(1);
        assert!(queue.push(late, OUTSIDE, |_| true).is_err());
        assert!(!queue.is_closed_and_empty());
        assert!(pop(&queue).is_some());
        assert!(queue.is_closed_and_empty());
    }

    #[test]
    fn a_declined_job_is_not_added() {
        let queue = Queue::new();
        let (_handle, declined) = job(0);
        assert_eq!(
            queue.push(declined, OUTSIDE, |_| false).ok(),
            Some(Push::AlreadyCancelled)
        );
        assert!(queue.is_empty());
    }

    #[test]
    fn drain_takes_all_oldest_first() {
        let queue = Queue::new();
        let handles: Vec<_> = (0..4).map(|value| push(&queue, value)).collect();
        drop(pop(&queue));
        let drained = drain(&queue);
        assert_eq!(drained.len(), 3);
        assert!(queue.is_empty());
        drained.into_iter().for_each(Job::run);
        let finished = |handle: &JoinHandle<u32>| handle.is_finished() && !handle.is_cancelled();
        assert!(handles[1..].iter().all(finished));
    }

    #[test]
    fn tombstones_are_compacted_when_they_outnumber_the_jobs() {
        let queue = Queue::new();
        let handles: Vec<_> = (0..1000).map(|value| push(&queue, value)).collect();
        for handle in handles.iter().skip(10) {
            assert!(handle.cancel());
            queue.add_tombstone();
            assert!(queue.len_hint() <= 1000);
        }
        assert!(
            queue.len_hint() <= 10 + 2 * MIN_TOMBSTONES + 1,
            "{}",
            queue.len_hint()
        );
        for (value, mut handle) in handles.into_iter().take(10).enumerate() {
            pop(&queue).unwrap().run();
            assert_eq!(handle.try_join().unwrap().unwrap(), value as u32);
        }
    }

    #[test]
    fn the_wakers_of_the_oldest_jobs_are_taken_once() {
        use std::future::Future;
        use std::pin::Pin;
        use std::task::Context;

        let queue = Queue::new();
        let mut handles: Vec<_> = (0..5).map(|value| push(&queue, value)).collect();
        assert_eq!(queue.oldest_wakers(8, || 0).len(), 0, "nothing waits");
        for handle in &mut handles[1..4] {
            let poll = Pin::new(handle).poll(&mut Context::from_waker(Waker::noop()));
            assert!(poll.is_pending());
        }
        assert_eq!(queue.oldest_wakers(2, || 0).len(), 2);
        assert_eq!(
            queue.oldest_wakers(2, || 0).len(),
            1,
            "the others were woken already"
        );
    }

    #[test]
    fn a_worker_takes_its_own_jobs_then_those_from_outside_then_those_of_other_workers() {
        let queue = Queue::new();
        let sides = [lane(2), OUTSIDE, lane(1), lane(2), OUTSIDE, lane(1)];
        let values = 0..;
        let mut handles: Vec<_> = sides
            .into_iter()
            .zip(values)
            .map(|(lane, value)| push_to(&queue, lane, value))
            .collect();
        // Its first turn is for lane 0, which is empty.
        let mut order = PopOrder::new(1);
        let taken = [(); 6].map(|()| run_next(&queue, &mut order, &mut handles));
        assert_eq!(taken, [2, 5, 1, 4, 0, 3]);
        assert!(queue.is_empty() && queue.is_empty_hint() && queue.pop(&mut order).is_none());
    }

    #[test]
    fn no_side_waits_for_ever_behind_the_own_lane_of_a_worker() {
        // Another lane is looked at first each time that all lanes had their turn.
        for (side, bound) in [(OUTSIDE, TURNS), (lane(5), TURNS * LANES)] {
            let queue = Queue::new();
            let mut order = PopOrder::new(0);
            for round in 0..3 {
                let waits = push_to(&queue, side, 1);
                let mut starts = 0;
                while !waits.is_finished() {
                    starts += 1;
                    assert!(starts <= bound, "{side:?} in round {round}");
                    // The own lane never becomes empty.
                    drop([(); 2].map(|()| push_to(&queue, lane(0), 0)));
                    queue.pop(&mut order).unwrap().run();
                }
            }
        }
    }

    #[test]
    fn closing_and_draining_reach_all_sides() {
        let queue = Queue::new();
        let sides = [OUTSIDE, lane(0), lane(7), HIGH, LOW];
        let handles = sides.map(|lane| push_to(&queue, lane, 0));
        queue.close(Closed::Shutdown);
        for lane in sides {
            let (_handle, late) = job(1);
            assert!(queue.push(late, lane, |_| true).is_err());
        }
        assert!(!queue.is_closed_and_empty());
        assert_eq!(drain(&queue).len(), 5);
        assert!(queue.is_closed_and_empty() && queue.is_empty_hint());
        assert!(handles.iter().all(JoinHandle::is_cancelled), "dropped");
    }

    #[test]
    fn tombstones_in_lanes_are_compacted_and_the_order_is_kept() {
        let queue = Queue::new();
        let lane = |value| lane(value as usize % LANES);
        let mut handles: Vec<_> = (0..1000)
            .map(|value| push_to(&queue, lane(value), value))
            .collect();
        for handle in handles.drain(..960) {
            assert!(handle.cancel());
            queue.add_tombstone();
        }
        assert!(queue.len_hint() <= 40 + 2 * MIN_TOMBSTONES + 1);
        let mut last = [None; LANES];
        let mut order = PopOrder::new(3);
        while let Some(job) = queue.pop(&mut order) {
            if !job.run_if_queued() {
                queue.remove_tombstone();
                continue;
            }
            let position = handles.iter().position(JoinHandle::is_finished).unwrap();
            let value = handles.remove(position).join().unwrap();
            let last = &mut last[value as usize % LANES];
            assert!(last.replace(value) < Some(value));
        }
        assert!(handles.is_empty());
    }

    const PRIORITIES: [Place; 3] = [HIGH, OUTSIDE, LOW];

    /// Runs all jobs and returns their values in the order in which they started.
    fn run_all(queue: &Queue, mut handles: Vec<JoinHandle<u32>>) -> Vec<u32> {
        let mut order = PopOrder::new(0);
        let jobs = 0..handles.len();
        jobs.map(|_| run_next(queue, &mut order, &mut handles))
            .collect()
    }

    #[test]
    fn the_higher_priority_goes_first_and_each_is_a_fifo() {
        let queue = Queue::new();
        let places = [LOW, lane(0), HIGH, OUTSIDE].repeat(2).into_iter();
        let handles = places.zip(0..).map(|(at, n)| push_to(&queue, at, n));
        // The worker's own lane goes before what comes from outside.
        assert_eq!(run_all(&queue, handles.collect()), [2, 6, 1, 5, 3, 7, 0, 4]);
        assert!(pop(&queue).is_none() && queue.is_empty() && queue.is_empty_hint());
    }

    #[test]
    fn three_jobs_of_each_priority_are_in_order() {
        let queue = Queue::new();
        let places = [LOW, HIGH, OUTSIDE].repeat(3).into_iter();
        let handles = places.map(|at| {
            push_to(
                &queue,
                at,
                PRIORITIES.iter().position(|p| *p == at).unwrap() as u32,
            )
        });
        assert_eq!(
            run_all(&queue, handles.collect()),
            [0, 0, 0, 1, 1, 1, 2, 2, 2]
        );
    }

    /// Asserts that in each 16 starts 5 are of normal and 2 of low priority, if those waited. A
    /// start: the priority, and which of them waited before.
    fn assert_starts(starts: &[(u32, [bool; 3])]) {
        for window in starts.windows(16) {
            for (priority, least) in [(1, 5), (2, 2)] {
                let own = window.iter().filter(|(started, _)| *started == priority);
                let waits = window.iter().all(|(_, waits)| waits[priority as usize]);
                assert!(!waits || own.count() >= least, "{priority}: {window:?}");
            }
        }
    }

    #[test]
    fn over_any_16_starts_normal_gets_5_and_low_2() {
        for normal in [OUTSIDE, lane(0), lane(5)] {
            let queue = Queue::new();
            let mut order = PopOrder::new(0);
            let add = |started| push_to(&queue, [HIGH, normal, LOW][started as usize], started);
            let mut handles: Vec<_> = (0..3).map(add).collect();
            let starts = (0..1000).map(|_| {
                let started = run_next(&queue, &mut order, &mut handles);
                handles.push(add(started));
                (started, [true; 3])
            });
            let starts: Vec<_> = starts.collect();
            assert_starts(&starts);
            let of = |priority| {
                starts
                    .iter()
                    .filter(|(started, _)| *started == priority)
                    .count()
            };
            assert_eq!(
                [of(0), of(1), of(2)].map(|n| n / 10),
                [52, 33, 14],
                "in percent"
            );
        }
    }

    #[test]
    fn no_supply_of_jobs_starves_a_priority_that_waits() {
        for seed in 1..200_u64 {
            let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let mut below = |n: u64| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                (random >> 33) % n
            };
            let queue = Queue::new();
            let mut orders = [0, 3].map(PopOrder::new);
            let mut handles = Vec::new();
            let mut waiting = [0_u32; 3];
            let mut starts = Vec::new();
            // Each priority is scarce for some time.
            while starts.len() < 300 {
                let phase = starts.len() as u64 / 40 + seed;
                for priority in 0..3_u64 {
                    let places = [[HIGH; 2], [OUTSIDE, lane(3)], [LOW; 2]][priority as usize];
                    if below(4) <= (phase >> priority) % 4 && waiting[priority as usize] < 20 {
                        handles.push(push_to(&queue, places[below(2) as usize], priority as u32));
                        waiting[priority as usize] += 1;
                    }
                }
                if waiting != [0; 3] {
                    let order = &mut orders[below(2) as usize];
                    let waits = waiting.map(|jobs| jobs > 0);
                    let started = run_next(&queue, order, &mut handles);
                    waiting[started as usize] -= 1;
                    starts.push((started, waits));
                }
            }
            assert_starts(&starts);
        }
    }

    #[test]
    fn a_tombstone_uses_up_no_turn() {
        let queue = Queue::new();
        let mut order = PopOrder::new(0);
        let mut high: Vec<_> = (0..8).map(|n| push_to(&queue, HIGH, n)).collect();
        let normal: Vec<_> = (0..5).map(|n| push_to(&queue, OUTSIDE, n)).collect();
        for n in 0..3 {
            assert_eq!(run_next(&queue, &mut order, &mut high), n);
        }
        // It is the turn of Normal, and stays it until a job starts.
        assert!(normal[..4].iter().all(JoinHandle::cancel));
        for _ in 0..4 {
            assert!(!queue.pop(&mut order).unwrap().run_if_queued());
        }
        queue.pop(&mut order).unwrap().run();
        assert!(normal[4].is_finished());
    }

    #[test]
    fn a_job_that_is_late_uses_up_no_turn() {
        let queue = Queue::new();
        queue.note_deadline();
        let mut order = PopOrder::new(0);
        let mut high: Vec<_> = (0..8).map(|n| push_to(&queue, HIGH, n)).collect();
        let late = [0, 1, 2, 3].map(|n| {
            let (handle, job) = job(n);
            let details = Details {
                deadline: Some(Instant::now()),
                ..Details::default()
            };
            assert!(job.prepare(details, Stamp::NONE));
            assert!(queue.push(job, OUTSIDE, |_| true).is_ok());
            handle
        });
        let normal = push(&queue, 4);
        for n in 0..3 {
            assert_eq!(run_next(&queue, &mut order, &mut high), n);
        }
        // It is the turn of Normal, and stays it until a job starts.
        for handle in late {
            queue.pop(&mut order).unwrap().run();
            assert!(handle.join().unwrap_err().is_expired());
        }
        queue.pop(&mut order).unwrap().run();
        assert!(normal.is_finished());
    }

    #[test]
    fn a_priority_of_which_nothing_waits_has_no_debt() {
        let queue = Queue::new();
        let mut order = PopOrder::new(0);
        let mut high: Vec<_> = (0..40).map(|n| push_to(&queue, HIGH, n)).collect();
        for _ in 0..20 {
            run_next(&queue, &mut order, &mut high);
        }
        let late = [push_to(&queue, LOW, 0), push_to(&queue, OUTSIDE, 0)];
        for _ in 0..3 {
            run_next(&queue, &mut order, &mut high);
        }
        queue.pop(&mut order).unwrap().run();
        assert!(late[1].is_finished() && !late[0].is_finished());
    }

    #[test]
    fn if_it_is_the_turn_of_both_normal_goes_first_and_low_is_next() {
        for cancelled in [false, true] {
            let queue = Queue::new();
            let mut order = PopOrder::new(0);
            let high = (0..20).map(|_| push_to(&queue, HIGH, 0));
            let mut handles: Vec<_> = high.chain([push_to(&queue, LOW, 2)]).collect();
            let mut starts = |handles: &mut _, n| -> Vec<_> {
                let starts = (0..n).map(|_| run_next(&queue, &mut order, handles));
                starts.collect()
            };
            assert_eq!(starts(&mut handles, 4), [0; 4]);
            let normal = push_to(&queue, OUTSIDE, 1);
            assert_eq!(starts(&mut handles, 3), [0; 3]);
            if cancelled {
                assert!(normal.cancel());
                assert!(!pop(&queue).unwrap().run_if_queued());
                assert_eq!(starts(&mut handles, 2), [2, 0]);
            } else {
                handles.push(normal);
                assert_eq!(starts(&mut handles, 3), [1, 2, 0]);
            }
        }
    }

    #[test]
    fn a_turn_that_was_not_used_is_forgotten() {
        let queue = Queue::new();
        let mut order = PopOrder::new(0);
        let mut high: Vec<_> = (0..3).map(|n| push_to(&queue, HIGH, n)).collect();
        let _normal = push_to(&queue, OUTSIDE, 0);
        for _ in 0..3 {
            run_next(&queue, &mut order, &mut high);
        }
        // It is the turn of Normal.
        drop(drain(&queue));
        assert!(queue.pop(&mut order).is_none());
        let late = [push_to(&queue, OUTSIDE, 0), push_to(&queue, HIGH, 0)];
        queue.pop(&mut order).unwrap().run();
        assert!(late[1].is_finished());
    }

    #[test]
    fn tombstones_of_all_priorities_are_compacted_and_the_order_is_kept() {
        let queue = Queue::new();
        let places = PRIORITIES.into_iter().cycle();
        let mut handles: Vec<_> = places
            .zip(0..999)
            .map(|(at, n)| push_to(&queue, at, n))
            .collect();
        for handle in handles.drain(..960) {
            assert!(handle.cancel());
            queue.add_tombstone();
        }
        assert!(queue.len_hint() <= 39 + 2 * MIN_TOMBSTONES + 1);
        let mut last = [None; 3];
        let mut order = PopOrder::new(3);
        while let Some(job) = queue.pop(&mut order) {
            if !job.run_if_queued() {
                queue.remove_tombstone();
                continue;
            }
            let position = handles.iter().position(JoinHandle::is_finished).unwrap();
            let value = handles.remove(position).join().unwrap();
            assert!(last[value as usize % 3].replace(value) < Some(value));
        }
        assert!(handles.is_empty() && queue.is_empty_hint());
    }
}
