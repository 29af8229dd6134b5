//! Which worker searches for a job and which ones are parked. Of the two subtle protocols this is
//! the first; the other one is in `blocked.rs`.
//!
//! # The states of a worker without a job
//!
//! - **Searching**: the worker checks the queue again and again for a moment. At most one worker
//!   searches; `searching` is set. A worker that was notified is searching from that moment on,
//!   since it is on its way and will check the queue. So a burst of jobs does not wake a crowd for
//!   what one worker may do alone.
//! - **Parked**: its sleep slot is in `sleepers`. `parked` counts the slots.
//! - Neither: the worker is on its way from a job to the queue, or from searching to its slot. It
//!   will check the queue before it parks.
//!
//! # The rules
//!
//! 1. A submitter that has added a job *notifies*: if no worker is searching and one is parked, it
//!    takes the slot that was parked last, sets `searching` on behalf of its worker, and unparks
//!    it.
//! 2. A worker that stops searching because it found a job resets `searching`. If there still is a
//!    job in the queue after that, the worker notifies, as if it had added that job. So workers
//!    wake up one after the other while there is work.
//! 3. A worker that parks adds its slot, resets `searching` if it was searching, and **then**
//!    checks the queue once more. If there is a job, it removes its slot and is searching, as if it
//!    had been notified, unless another worker searches at that point.
//! 4. A worker that ends a job and sees an empty queue starts searching *before* the job's result
//!    is visible. So a thread that submits a job because of that result finds a worker searching,
//!    and wakes none. (Not if the worker must run a user's waker next: it may take its time, and a
//!    worker that counts as searching must really check the queue. Nor if the job came right after
//!    another one: then more are likely, and the search would cost more than it saves. No wake-up
//!    depends on this rule.)
//!
//! # Why no wake-up is lost
//!
//! A notifier writes the queue, then reads `searching` and `parked`. A worker that parks writes
//! `parked` and `searching`, then reads the queue; a worker that stops searching writes
//! `searching`, then reads the queue. Each of them has a sequentially consistent fence between its
//! write and its reads, so two of them cannot both miss the other's write:
//!
//! - The notifier misses nothing: it sees a parked worker and none that searches, and notifies.
//! - Or it sees a worker that searches. That worker resets `searching` later, reads the queue after
//!   that, and sees the job (rule 2 or 3).
//! - Or it sees no worker parked. Then each worker that parks does so later, reads the queue after
//!   that (rule 3), and sees the job.
//!
//! "The queue" is one of several FIFOs, and its reader looks at one after the other. Jobs move from
//! the tail to the head and nowhere else, and those that do are seen in one of the two: see
//! `queue.rs`. So a job that was written before is seen wherever it is.
//!
//! That is one job. Any number of notifiers may have seen the same worker searching and left their
//! jobs to it. It takes one job and notifies the next worker for the rest, which does the same:
//! whenever `searching` is reset and a job is seen after that, a worker is notified or searches
//! from then on. This is why rule 3 says *and is searching*: a worker that removed its slot, took a
//! job and notified none would leave the others behind.
//!
//! Two notifiers that see the same parked worker settle it under the lock of `sleepers`. The second
//! sees `searching` set by the first and leaves it at that; the worker on its way does the rest
//! (rule 2). A notifier that finds no slot left leaves its job to the workers that removed theirs.
//!
//! A worker that exits (its `keep_alive` has elapsed) removes its slot, is no longer counted as a
//! worker, and then reads the queue, too. If there is a job, it notifies, or spawns another worker:
//! see `ExitGuard` in `worker.rs`.
//!
//! # Workers that are woken for another reason
//!
//! A change of the number of workers, or a broadcast, wakes workers without making them search
//! ([`Idle::wake`]; `control.rs` argues why none sleeps through it). Such a worker is on its way:
//! it checks the queue before it parks, or it exits. A notifier that finds no slot may have left
//! its job to this worker. If the worker must run another job first, that job counts as demand
//! before the queue is checked. If it exits, `ExitGuard` checks the queue.

use std::mem;

use crossbeam_utils::CachePadded;

use crate::util::fault::fault_or;
use crate::util::sync::thread::{self, Thread};
use crate::util::sync::{Arc, AtomicBool, AtomicUsize, Instant, Mutex, Ordering, fence};

#[derive(Debug, Default)]
pub(crate) struct Idle {
    /// Whether a worker searches, or was notified and is on its way.
    searching: CachePadded<AtomicBool>,
    /// The number of parked workers. Written under the lock of `sleepers`.
    parked: CachePadded<AtomicUsize>,
    sleepers: Mutex<Sleepers>,
}

#[derive(Debug, Default)]
struct Sleepers {
    /// The worker parked last is notified first: its caches are warm, and those parked longest
    /// reach their `keep_alive`.
    slots: Vec<Arc<SleepSlot>>,
    /// The pool accepts no more jobs: no worker parks any longer.
    closed: bool,
}

/// A worker's parking slot.
#[derive(Debug)]
pub(crate) struct SleepSlot {
    thread: Thread,
    /// Set by the thread that takes the slot out of `sleepers`, after `searching`.
    notified: AtomicBool,
    /// Whether the notification made this worker the one that searches.
    searching: AtomicBool,
}

/// Why a worker is awake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum WakeReason {
    /// It was notified, and is the one that searches.
    Notified,
    /// It woke up without being made the one that searches: a job was seen, the pool was closed, or
    /// `control.rs` may have something for it.
    Retry,
    TimedOut,
}

impl SleepSlot {
    /// Creates the slot of this thread.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            thread: thread::current(),
            notified: AtomicBool::new(false),
            searching: AtomicBool::new(false),
        })
    }
}

impl Idle {
    /// Makes this worker the one that searches, unless there is one.
    pub(crate) fn try_start_searching(&self) -> bool {
        // Ordering: the first load only saves a compare-exchange that would fail.
        !self.searching.load(Ordering::Relaxed) && self.set_searching()
    }

    fn set_searching(&self) -> bool {
        // Invariant: a failed compare-exchange does not store. So while `searching` is set, only
        // its owner writes it.
        let (set, seen) = (Ordering::SeqCst, Ordering::SeqCst);
        self.searching
            .compare_exchange(false, true, set, seen)
            .is_ok()
    }

    /// Returns the number of parked workers.
    #[cfg(all(test, loom))]
    pub(crate) fn parked(&self) -> usize {
        self.parked.load(Ordering::SeqCst)
    }

    /// The caller must check the queue after this (rule 2).
    pub(crate) fn stop_searching(&self) {
        // Ordering: the flag is reset before the queue is read.
        self.searching.store(false, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Rule 1. The caller has written the queue and passed a fence.
    pub(crate) fn notify_one(&self) {
        // Ordering: the caller's fence stands before these reads.
        if self.searching.load(Ordering::SeqCst) || self.parked.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut sleepers = self.sleepers.lock();
        if sleepers.slots.is_empty() || !self.set_searching() {
            return;
        }
        let slot = sleepers.slots.pop().expect("it is not empty");
        // Invariant: `parked` is the length of `slots`, and changes under the same lock.
        self.parked.fetch_sub(1, Ordering::SeqCst);
        slot.searching.store(true, Ordering::Relaxed);
        // Ordering: publishes `searching` to the worker.
        slot.notified.store(true, Ordering::Release);
        drop(sleepers);
        slot.thread.unpark();
    }

    /// Rule 3: parks until this worker is notified, or `until` has passed. `searching`: it was the
    /// one that searches, and no longer is. `is_empty` checks the queue, and what `control.rs` has
    /// for this worker.
    pub(crate) fn park(
        &self,
        slot: &Arc<SleepSlot>,
        searching: bool,
        until: Option<Instant>,
        is_empty: impl Fn() -> bool,
    ) -> WakeReason {
        let _early = fault_or!("the_queue_is_checked_before_the_slot_is_added": is_empty(); true);
        let mut sleepers = self.sleepers.lock();
        if fault_or!("a_worker_parks_in_a_closed_pool": false; sleepers.closed) {
            drop(sleepers);
            if searching {
                self.stop_searching();
            }
            return WakeReason::Retry;
        }
        slot.notified.store(false, Ordering::Relaxed);
        slot.searching.store(false, Ordering::Relaxed);
        sleepers.slots.push(Arc::clone(slot));
        // Ordering: the slot is counted before the queue is read; the fence is below.
        self.parked.fetch_add(1, Ordering::SeqCst);
        drop(sleepers);
        if searching {
            // Ordering: as for `parked`. The order of the two does not matter to a notifier: see
            // above.
            self.searching.store(false, Ordering::SeqCst);
        }
        // Ordering: the slot and the flag are written before the queue is read.
        fence(fault_or!("a_weak_fence_before_the_last_check": Ordering::AcqRel; Ordering::SeqCst));
        let is_empty = fault_or!(
            "the_queue_is_checked_before_the_slot_is_added": _early,
            "no_last_check_of_the_queue": true;
            is_empty()
        );
        if !is_empty && self.remove(slot) {
            return WakeReason::Retry;
        }
        // Ordering: pairs with the store in `notify_one` and `close`.
        while !slot.notified.load(Ordering::Acquire) {
            let Some(until) = until else {
                thread::park();
                continue;
            };
            let left = until.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                thread::park_timeout(left);
            } else if self.remove(slot) {
                return WakeReason::TimedOut;
            }
        }
        if slot.searching.load(Ordering::Relaxed) {
            WakeReason::Notified
        } else {
            WakeReason::Retry
        }
    }

    /// Removes the worker's own slot. Returns false if it was notified in the meantime.
    fn remove(&self, slot: &Arc<SleepSlot>) -> bool {
        let mut sleepers = self.sleepers.lock();
        // From the front: those whose time is up are there.
        let position = sleepers
            .slots
            .iter()
            .position(|other| Arc::ptr_eq(other, slot));
        let Some(position) = position else {
            return false;
        };
        sleepers.slots.remove(position);
        self.parked.fetch_sub(1, Ordering::SeqCst);
        true
    }

    /// Wakes up to `n` workers, those first that have been parked longest. None of them becomes the
    /// one that searches: each looks for what `control.rs` has for it, and then checks the queue.
    pub(crate) fn wake(&self, n: usize) {
        let mut sleepers = self.sleepers.lock();
        let n = n.min(sleepers.slots.len());
        let slots = sleepers.slots.drain(..n).collect();
        self.parked.fetch_sub(n, Ordering::SeqCst);
        notify_all(&slots);
        drop(sleepers);
        fault_or!("a_change_wakes_nobody": (); unpark_all(&slots));
    }

    /// Wakes all workers; none parks any longer.
    pub(crate) fn close(&self) {
        let mut sleepers = self.sleepers.lock();
        sleepers.closed = true;
        let slots = mem::take(&mut sleepers.slots);
        self.parked.store(0, Ordering::SeqCst);
        notify_all(&slots);
        drop(sleepers);
        fault_or!("a_shutdown_wakes_nobody": (); unpark_all(&slots));
    }
}

/// The caller has removed the slots from the list, and holds its lock.
fn notify_all(slots: &Vec<Arc<SleepSlot>>) {
    for slot in slots {
        // Ordering: pairs with the load in `park`.
        slot.notified.store(true, Ordering::Release);
    }
}

/// Unparking is a system call, so no lock is held.
fn unpark_all(slots: &Vec<Arc<SleepSlot>>) {
    for slot in slots {
        slot.thread.unpark();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::time::Duration;

    use super::*;

    fn past() -> Option<Instant> {
        Some(Instant::now())
    }

    #[test]
    fn at_most_one_worker_searches() {
        let idle = Idle::default();
        assert!(idle.try_start_searching());
        assert!(!idle.try_start_searching());
        idle.stop_searching();
        assert!(idle.try_start_searching());
    }

    #[test]
    fn a_worker_that_sees_a_job_does_not_park() {
        let idle = Idle::default();
        assert!(idle.try_start_searching());
        let reason = idle.park(&SleepSlot::new(), true, None, || false);
        assert_eq!(reason, WakeReason::Retry);
        assert!(idle.try_start_searching(), "it no longer searches");
        assert!(idle.sleepers.lock().slots.is_empty());
    }

    #[test]
    fn a_worker_that_nothing_notifies_times_out() {
        let idle = Idle::default();
        let reason = idle.park(&SleepSlot::new(), false, past(), || true);
        assert_eq!(reason, WakeReason::TimedOut);
        assert!(idle.sleepers.lock().slots.is_empty());
    }

    #[test]
    fn a_notification_is_for_one_worker_which_then_searches() {
        let idle = Idle::default();
        std::thread::scope(|scope| {
            let workers = [(); 2].map(|()| {
                scope.spawn(|| {
                    let until = Instant::now().checked_add(Duration::from_secs(60));
                    idle.park(&SleepSlot::new(), false, until, || true)
                })
            });
            while idle.parked.load(Ordering::SeqCst) < 2 {
                std::thread::yield_now();
            }
            idle.notify_one();
            idle.notify_one();
            assert_eq!(
                idle.parked.load(Ordering::SeqCst),
                1,
                "one searches already"
            );
            assert!(!idle.try_start_searching());
            idle.close();
            let mut reasons = workers.map(|worker| worker.join().unwrap() == WakeReason::Notified);
            reasons.sort_unstable();
            assert_eq!(reasons, [false, true]);
        });
    }

    #[test]
    fn a_worker_that_is_woken_does_not_count_as_searching() {
        let idle = Idle::default();
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                let until = Instant::now().checked_add(Duration::from_secs(60));
                idle.park(&SleepSlot::new(), false, until, || true)
            });
            while idle.parked.load(Ordering::SeqCst) < 1 {
                std::thread::yield_now();
            }
            idle.wake(usize::MAX);
            assert_eq!(idle.parked.load(Ordering::SeqCst), 0);
            assert_eq!(worker.join().unwrap(), WakeReason::Retry);
            assert!(idle.try_start_searching());
        });
    }

    #[test]
    fn in_a_closed_pool_no_worker_parks() {
        let idle = Idle::default();
        idle.close();
        let reason = idle.park(&SleepSlot::new(), false, None, || true);
        assert_eq!(reason, WakeReason::Retry);
    }
}
