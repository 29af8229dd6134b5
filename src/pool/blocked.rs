//! Workers that are blocked in a wait, and which of them must run a job meanwhile.
//!
//! A worker that waits without a timeout is in a list here while it is parked. When all workers are
//! in it and no more may be spawned, no thread is left to run what is queued. A blocked worker may
//! wait for one of the queued jobs, but only its future knows which one.
//!
//! So each queued job whose handle a worker's `block_on` polls becomes a *candidate*. The last
//! worker to block *probes*: it wakes the future that waits for the oldest candidate. If the future
//! is in a blocked worker, the worker polls it, finds the job, and runs it
//! ([`helping`](crate::park::helping)). A probe is answered once, so one worker runs one job. A
//! handle may have left the worker since; then nothing answers. After a moment the next two
//! candidates are probed, then four, and so on.
//!
//! A set of futures may have been polled elsewhere and then moved into a worker: nothing polls its
//! handles there before they are woken, so they are no candidates. So without candidates the queue
//! itself is probed, from its oldest job on, after the same moment and with the same doubling.
//!
//! In a stateful pool a waiting worker runs no job, and there are no candidates. The probes of the
//! queue only make a worker poll what was polled elsewhere. Then the wait graph knows that the
//! worker waits.
//!
//! # Why no job is left behind
//!
//! The pool becomes stalled in three ways: a worker blocks, a job is submitted while all are
//! blocked, or the number of workers that can run jobs drops (a failed spawn, or an exit with jobs
//! in the queue). After each of these the list is checked. The entry in the list and the check are
//! separated by a fence from the submitter's write to the queue and its read of the count. So the
//! last of several workers that block at once sees all the others, and either it sees a new job or
//! the submitter sees all workers blocked and unparks one, which checks again.
//!
//! While all workers are blocked and jobs are queued, one worker parks only until the next probe is
//! due. A probe that nothing answers is repeated less and less often: what is queued then waits for
//! a task elsewhere, which the blocked workers cannot help.

use std::collections::BTreeMap;
use std::mem;
use std::sync::Weak;
use std::task::Waker;
use std::time::Duration;

use crate::park::parker::Unparker;
use crate::task::cell::RawTask;
use crate::util::sync::{Arc, AtomicBool, AtomicUsize, Instant, Mutex, Ordering, fence};

#[derive(Default)]
pub(crate) struct BlockedWorkers {
    list: Mutex<Vec<BlockedWorker>>,
    /// The number of workers in the list, and of those that park only until something is due.
    /// Written under the lock of the list.
    count: AtomicUsize,
    timed: AtomicUsize,
    candidates: Mutex<Candidates>,
    probe: Mutex<Probe>,
    /// A probe was made, nothing has answered it, and all workers are still blocked as far as is
    /// known. Set by the prober; reset by the worker that answers, or that takes a job.
    open: AtomicBool,
}

struct BlockedWorker {
    unparker: Arc<Unparker>,
    /// It wakes up by itself when something is due.
    timed: bool,
}

/// Jobs that a worker's `block_on` has found queued. Some may have started since.
#[derive(Default)]
struct Candidates {
    /// By the order of submission; the second number tells jobs apart that were submitted at once.
    tasks: BTreeMap<(u64, u32), Weak<dyn RawTask>>,
    /// The length at which those that are no longer queued are removed.
    prune_at: usize,
}

/// The candidates are not pruned below this length.
const MIN_PRUNE: usize = 64;

/// When the next probe is due, and how many jobs it is for.
#[derive(Default)]
struct Probe {
    /// How many probes in a row were made without progress.
    attempts: u32,
    /// The current back-off: it doubles while probes of the whole queue make no progress.
    pause: Duration,
    next_at: Option<Instant>,
    /// How many jobs had started when the queue was last looked at.
    started: u64,
    /// When the last probe began.
    last_at: Option<Instant>,
    /// A candidate came since the last probe began.
    has_new_candidate: bool,
}

/// How long a probed future has to answer before more are probed.
const STALL_DELAY: Duration = Duration::from_millis(10);
/// The upper bound of all pauses between two probes.
const MAX_BACKOFF: Duration = Duration::from_secs(1);
/// The least time between a probe and the next one that a new candidate asks for.
const MIN_PAUSE: Duration = Duration::from_millis(1);
/// A pause is at least this many times as long as the probe took.
const BACKOFF_RATIO: u32 = 50;

impl Probe {
    /// Forgets the attempts so far if a job has started since. Returns whether one has.
    fn start_over_after_progress(&mut self, started: u64) -> bool {
        let progressed = self.started != started;
        if progressed {
            self.started = started;
            (self.attempts, self.pause) = (0, Duration::ZERO);
        }
        progressed
    }
}

impl BlockedWorkers {
    pub(crate) fn enter(&self, unparker: &Arc<Unparker>) {
        let unparker = Arc::clone(unparker);
        let mut list = self.list.lock();
        list.push(BlockedWorker {
            unparker,
            timed: false,
        });
        // Ordering: before the fence below, which the submitter's side pairs with.
        self.count.store(list.len(), Ordering::SeqCst);
        drop(list);
        // Ordering: a submitter writes the queue and then reads the count; here it is the reverse.
        fence(Ordering::SeqCst);
    }

    /// The worker will be awake when something is due.
    pub(crate) fn mark_timed(&self, unparker: &Arc<Unparker>) {
        let mut list = self.list.lock();
        let position = position_of(&list, unparker);
        if let Some(worker) = position.and_then(|position| list.get_mut(position)) {
            worker.timed = true;
            // Ordering: as for `count`. A submitter that still sees 0 only unparks a worker too
            // many.
            self.timed.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// The worker is awake. Returns whether all of `workers` were blocked until now.
    pub(crate) fn leave(&self, unparker: &Arc<Unparker>, workers: usize) -> bool {
        let mut list = self.list.lock();
        let all_blocked = list.len() >= workers;
        let Some(position) = position_of(&list, unparker) else {
            return false;
        };
        let worker = list.swap_remove(position);
        // Ordering: none is needed here: a submitter that sees the old count unparks a worker too
        // many.
        self.count.store(list.len(), Ordering::SeqCst);
        if worker.timed {
            self.timed.fetch_sub(1, Ordering::SeqCst);
        }
        // The reference to the thread goes after the lock.
        drop(list);
        drop(worker);
        all_blocked
    }

    /// Returns whether all of `workers` are blocked.
    pub(crate) fn all_blocked(&self, workers: usize) -> bool {
        // Ordering: after the fence of `enter`, or that of the submitter.
        workers > 0 && self.count.load(Ordering::SeqCst) >= workers
    }

    /// A job was added, or a worker lost: if all workers are blocked, and none wakes up by itself,
    /// one is unparked to check.
    pub(crate) fn unpark_one(&self, workers: usize) {
        if !self.all_blocked(workers) || self.timed.load(Ordering::SeqCst) > 0 {
            return;
        }
        let list = self.list.lock();
        // Unparking is a system call, so it follows the unlock.
        let unparker = list.last().map(|worker| Arc::clone(&worker.unparker));
        drop(list);
        if let Some(unparker) = unparker {
            unparker.unpark();
        }
    }

    /// Adds a job that a worker's `block_on` has found queued, with its place in the order of
    /// submission. `is_first`: for the first time, so the next probe need not wait.
    pub(crate) fn add_candidate(&self, order: u64, task: &Arc<dyn RawTask>, is_first: bool) {
        let mut spent = Vec::new();
        let mut candidates = self.candidates.lock();
        let weak = Arc::downgrade(task);
        let mut next = 0;
        for (&(_, number), other) in candidates.tasks.range((order, 0)..=(order, u32::MAX)) {
            if Weak::ptr_eq(other, &weak) {
                return;
            }
            next = number + 1;
        }
        candidates.tasks.insert((order, next), weak);
        if candidates.tasks.len() >= candidates.prune_at {
            // As many were added since the last time, so each pays for a step or two.
            candidates.tasks.retain(|_, task| {
                let task = task.upgrade();
                let queued = task
                    .as_ref()
                    .is_some_and(|task| task.state(|state| state.is_queued()));
                spent.extend(task);
                queued
            });
            candidates.prune_at = MIN_PRUNE.max(2 * candidates.tasks.len());
        }
        drop(candidates);
        // Each may be the last reference, whose drop runs user code.
        drop(spent);
        if is_first {
            // Not for each poll, and not at once after a probe: a future that only looks, or that
            // gives its handle away and takes it back, must not keep its worker busy.
            let now = Instant::now();
            let mut probe = self.probe.lock();
            let at = probe.last_at.map_or(now, |last_at| last_at + MIN_PAUSE);
            probe.attempts = 0;
            probe.next_at = Some(probe.next_at.map_or(at, |next_at| next_at.min(at)));
            probe.has_new_candidate = true;
        }
    }

    /// Drops what is left of the candidates if no job is queued: each has started or was cancelled,
    /// and a `Weak` keeps the memory of its task.
    pub(crate) fn forget_candidates(&self, queue_is_empty: impl FnOnce() -> bool) {
        let mut candidates = self.candidates.lock();
        // A job is queued before it becomes a candidate, under this lock. (One that was made for
        // any executor may come first, but its waiter is woken again once it is queued.)
        if candidates.tasks.is_empty() || !queue_is_empty() {
            return;
        }
        // Freed after the unlock: there may be many.
        let forgotten = mem::take(&mut *candidates);
        drop(candidates);
        drop(forgotten);
    }

    /// Takes the wakers of the futures that wait for the oldest candidates, up to `batch` of them.
    /// They are no candidates any longer, until they are polled again.
    pub(crate) fn candidate_wakers(&self, batch: usize) -> Vec<Waker> {
        let (mut wakers, mut spent) = (Vec::new(), Vec::new());
        let mut candidates = self.candidates.lock();
        while wakers.len() < batch {
            let Some((_, task)) = candidates.tasks.pop_first() else {
                break;
            };
            // Lock order: the candidates, then a task.
            let task = task.upgrade();
            wakers.extend(
                task.as_ref()
                    .and_then(|task| task.state(|state| state.take_future_waker())),
            );
            spent.extend(task);
        }
        drop(candidates);
        drop(spent);
        wakers
    }

    /// Returns when the next probe is due, given how many jobs have started so far.
    pub(crate) fn probe_due(&self, started: u64) -> Instant {
        let now = Instant::now();
        let has_candidates = !self.candidates.lock().tasks.is_empty();
        let mut probe = self.probe.lock();
        let progressed = probe.start_over_after_progress(started);
        let due = match probe.next_at {
            // What was waited for may be queued now.
            Some(next_at) if progressed => next_at.min(now + STALL_DELAY),
            Some(next_at) => next_at,
            None => now + STALL_DELAY,
        };
        // Invariant: a due time is stored, and never put off. Otherwise a worker that is woken
        // again and again would never probe.
        let due = if has_candidates && (progressed || probe.next_at.is_none()) {
            now
        } else {
            due.max(now)
        };
        probe.next_at = Some(due);
        due
    }

    /// Begins a probe. Returns how many futures to wake; `None` if it is not due.
    pub(crate) fn begin_probe(&self, started: u64) -> Option<usize> {
        let now = Instant::now();
        let mut probe = self.probe.lock();
        let progressed = probe.start_over_after_progress(started);
        if !progressed && probe.next_at.is_some_and(|next_at| now < next_at) {
            return None;
        }
        let batch = 1_usize << probe.attempts.min(usize::BITS - 2);
        probe.attempts += 1;
        probe.next_at = Some(now + STALL_DELAY);
        probe.last_at = Some(now);
        probe.has_new_candidate = false;
        drop(probe);
        // Ordering: before any waker is called, since its poll may come at once.
        self.open.store(true, Ordering::SeqCst);
        Some(batch)
    }

    /// The probe has ended, which took so long without the wakers. `whole_queue`: it reached every
    /// queued job that a future waits for.
    pub(crate) fn end_probe(&self, took: Duration, whole_queue: bool) {
        let now = Instant::now();
        let mut probe = self.probe.lock();
        probe.pause = if whole_queue {
            (2 * probe.pause).clamp(STALL_DELAY, MAX_BACKOFF)
        } else {
            STALL_DELAY
        };
        // A candidate that came meanwhile does not wait for the back-off.
        if !probe.has_new_candidate {
            let rest = (BACKOFF_RATIO * took).min(MAX_BACKOFF);
            probe.next_at = Some(now + probe.pause.max(rest));
        }
    }

    pub(crate) fn has_open_probe(&self) -> bool {
        // Ordering: the prober sets the flag before it wakes the future that is polled now.
        self.open.load(Ordering::SeqCst)
    }

    /// Answers the open probe. Returns false if there is none, or another worker was faster.
    pub(crate) fn take_probe(&self) -> bool {
        self.open.swap(false, Ordering::SeqCst)
    }

    /// A worker takes a job from the queue, so not all are blocked.
    pub(crate) fn cancel_probe(&self) {
        // Ordering: none is needed, and nearly always there is nothing to reset. If the load misses
        // a probe, a blocked worker may run a job that it waits for although another worker is
        // free.
        if self.open.load(Ordering::Relaxed) {
            self.open.store(false, Ordering::SeqCst);
        }
    }
}

fn position_of(list: &[BlockedWorker], unparker: &Arc<Unparker>) -> Option<usize> {
    // From the end: short waits are there.
    list.iter()
        .rposition(|worker| Arc::ptr_eq(&worker.unparker, unparker))
}

impl std::fmt::Debug for BlockedWorkers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockedWorkers").finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn all_are_blocked_when_each_has_entered() {
        let blocked = BlockedWorkers::default();
        let [a, b] = [(); 2].map(|()| Unparker::of_this_thread());
        assert!(!blocked.all_blocked(0));
        blocked.enter(&a);
        assert!(!blocked.all_blocked(2));
        blocked.enter(&b);
        assert!(blocked.all_blocked(2) && blocked.all_blocked(1));
        assert!(blocked.leave(&a, 2), "all were blocked");
        assert!(!blocked.all_blocked(2));
        assert!(!blocked.leave(&b, 2), "one is awake");
    }

    #[test]
    fn one_is_unparked_unless_one_wakes_up_by_itself() {
        let blocked = BlockedWorkers::default();
        let [a, b] = [(); 2].map(|()| Unparker::of_this_thread());
        blocked.enter(&a);
        blocked.enter(&b);
        blocked.mark_timed(&a);
        blocked.unpark_one(2);
        assert!(!a.is_notified() && !b.is_notified());
        assert!(blocked.leave(&a, 2));
        blocked.enter(&a);
        blocked.unpark_one(3);
        assert!(!a.is_notified() && !b.is_notified());
        blocked.unpark_one(2);
        assert!(a.is_notified() != b.is_notified());
    }

    #[test]
    fn probes_double_while_nothing_progresses_and_start_over_when_something_does() {
        let blocked = BlockedWorkers::default();
        assert_eq!(blocked.begin_probe(7), Some(1));
        assert_eq!(blocked.begin_probe(7), None, "not due yet");
        assert!(blocked.probe_due(7) > Instant::now());
        let mut batches = Vec::new();
        while batches.len() < 3 {
            batches.extend(blocked.begin_probe(7));
        }
        assert_eq!(batches, [2, 4, 8]);
        let due = blocked
            .probe_due(8)
            .saturating_duration_since(Instant::now());
        assert!(due <= STALL_DELAY, "{due:?}");
        let mut batch = None;
        while batch.is_none() {
            batch = blocked.begin_probe(8);
        }
        assert_eq!(batch, Some(1));
    }

    #[test]
    fn a_probe_of_the_whole_queue_is_repeated_less_and_less_often() {
        let blocked = BlockedWorkers::default();
        let mut last = Duration::ZERO;
        for progress in [7; 4] {
            let start = Instant::now();
            let _ = blocked.begin_probe(progress);
            blocked.end_probe(Duration::ZERO, true);
            let pause = blocked.probe_due(progress).saturating_duration_since(start);
            assert!(pause > last, "{pause:?} after {last:?}");
            last = pause;
        }
    }

    #[test]
    fn a_due_probe_is_not_put_off_by_workers_that_check_again() {
        let blocked = BlockedWorkers::default();
        let due = blocked.probe_due(7);
        assert_eq!(blocked.probe_due(7), due);
        assert!(blocked.probe_due(8) <= due, "nor by jobs that start");
    }

    #[test]
    fn a_probe_is_answered_once() {
        let blocked = BlockedWorkers::default();
        assert!(!blocked.take_probe());
        let _ = blocked.begin_probe(7);
        assert!(blocked.take_probe() && !blocked.take_probe());
        let _ = blocked.begin_probe(8);
        blocked.cancel_probe();
        assert!(!blocked.take_probe());
    }
}
