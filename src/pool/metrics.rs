//! What a pool counts.

use std::collections::BTreeMap;

use crossbeam_utils::CachePadded;

use crate::pool::auto_size::AutoSize;
use crate::pool::histogram::Histogram;
use crate::task::context::ThreadId;
use crate::util::fault::fault_or;
use crate::util::sync::{AtomicBool, AtomicU64, Ordering, fence};

/// The metrics of a pool: see [`ThreadPool::metrics`](crate::ThreadPool::metrics).
///
/// The pool keeps working while the fields are read one after the other, so they can be slightly
/// out of step. At any quiet moment `submitted == completed + panicked + cancelled + failed`.
///
/// The metrics count jobs. A job of a [`map`](crate::ThreadPool::map) can have many
/// items, and counts as completed even if some of them panicked.
#[doc(alias = "RuntimeMetrics")]
#[doc(alias = "stats")]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Current number of worker threads, including threads that are starting.
    pub workers: u64,
    /// The highest number of `workers` that there ever was.
    pub peak_workers: u64,
    /// Workers without a job.
    pub idle: u64,
    /// Jobs that are accepted and have not started.
    #[doc(alias = "qsize")]
    pub queued: u64,
    /// Jobs that are running. There can be more than `workers` of them, because a worker that waits
    /// for a job may run it: see [`ThreadPool`](crate::ThreadPool#waits-in-a-worker).
    pub running: u64,
    /// Jobs that the pool has accepted.
    pub submitted: u64,
    /// Jobs that returned.
    pub completed: u64,
    /// Jobs that panicked.
    pub panicked: u64,
    /// Accepted jobs that never ran for any reason: a cancellation, a deadline, a broken pool or a
    /// spawn failure. Running jobs that a cancel has killed count, too: see `ProcessPool`.
    pub cancelled: u64,
    /// Accepted jobs that did not start before their deadline, also if that passed while `submit`
    /// waited for room. They count in `cancelled`, too.
    pub expired: u64,
    /// Jobs of worker processes that have no result for any other reason: a crash, a limit, or
    /// arguments that could not be encoded. Always 0 for a pool of threads.
    pub failed: u64,
    /// Submissions that were refused because the pool was full, shut down or broken. A `try_submit`
    /// or `submit_async` that fails because the deadline of the job has passed counts here, too,
    /// and not in `expired`.
    pub rejected: u64,
    /// Failed attempts to spawn a worker thread. For a `ProcessPool`, the jobs that got no worker
    /// process.
    pub spawn_failures: u64,
    /// How long the jobs waited, from the moment when they were accepted until they started. Empty
    /// unless the pool has [`timings`](crate::ThreadPoolBuilder::timings).
    ///
    /// Jobs that never started are not in it. If most jobs expire, look at `expired`: this
    /// histogram then has only the few that started in time.
    pub queue_wait: Histogram,
    /// How long the closures of the jobs ran, panics included. Empty unless the pool has
    /// [`timings`](crate::ThreadPoolBuilder::timings).
    pub run_time: Histogram,
    pub(crate) by_label: BTreeMap<&'static str, LabelMetrics>,
    pub(crate) auto_size: Option<AutoSize>,
}

impl Metrics {
    /// Returns the metrics of the jobs with each label, in the order of the labels. Jobs without a
    /// label are not among them.
    ///
    /// A label is there from its first job on, even if that job is still queued. Before that,
    /// indexing with it panics, and [`get`](BTreeMap::get) returns `None`. The map is empty unless
    /// the pool has [`timings`](crate::ThreadPoolBuilder::timings).
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = futurepool::ThreadPool::builder().timings(true).build()?;
    /// pool.job(|| 6 * 7).label("answer").submit().join()?;
    /// for (label, metrics) in pool.metrics().by_label() {
    ///     println!("{label}: {} of {}", metrics.completed, metrics.submitted);
    /// }
    /// assert!(pool.metrics().by_label().get("question").is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "by_name")]
    #[doc(alias = "tags")]
    #[must_use]
    pub fn by_label(&self) -> &BTreeMap<&'static str, LabelMetrics> {
        &self.by_label
    }

    /// Returns what the pool has decided about the number of its workers. `None` unless the pool
    /// was built with [`auto_size`](crate::ThreadPoolBuilder::auto_size).
    #[must_use]
    pub fn auto_size(&self) -> Option<&AutoSize> {
        self.auto_size.as_ref()
    }
}

/// The metrics of the jobs with the same label: see [`Metrics::by_label`].
///
/// The fields mean what those of [`Metrics`] mean. Refused submissions are counted only for the
/// whole pool, in [`Metrics::rejected`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LabelMetrics {
    /// Jobs that the pool has accepted.
    pub submitted: u64,
    /// Jobs that returned.
    pub completed: u64,
    /// Jobs that panicked.
    pub panicked: u64,
    /// Accepted jobs that never ran, and running jobs that a cancel has killed.
    pub cancelled: u64,
    /// Jobs that had not started by their deadline. They count in `cancelled`, too.
    pub expired: u64,
    /// Jobs of worker processes that have no result for any other reason.
    pub failed: u64,
    /// How long the jobs waited, from the moment when they were accepted until they started.
    pub queue_wait: Histogram,
    /// How long the closures of the jobs ran.
    pub run_time: Histogram,
}

/// Each thread counts in one of this many shards, so that threads seldom write the same cache line.
/// (A model needs the same shards in every run.)
pub(crate) const SHARDS: usize = if cfg!(loom) { 1 } else { 8 };

/// How many sides the queue has besides head and tail: the lanes, and one for each priority other
/// than the normal one.
pub(crate) const PLACES: usize = SHARDS + 2;

/// What a pool counts.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    shards: [CachePadded<Shard>; SHARDS],
    submitted_outside: CachePadded<SubmittedOutside>,
    /// One for each other side of the queue, written under its lock before the job is visible
    /// there.
    submitted_elsewhere: [CachePadded<Counter>; PLACES],
    submitted_by_broadcast: Counter,
    /// Broadcast jobs that have neither started nor been cancelled: see [`Counters::demand`].
    in_mailboxes: Counter,
    rejected: Counter,
    spawn_failures: Counter,
}

#[derive(Debug, Default)]
struct SubmittedOutside {
    /// Written before the job is visible in the queue, under the lock of the queue's tail.
    jobs: Counter,
    /// Whether a job was ever added to another side, or a broadcast was made. Written before that
    /// is counted.
    others_used: AtomicBool,
}

/// All but `unavailable` and `inlined` only grow.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    /// Written before the job is visible as running.
    pub(crate) started: Counter,
    /// Jobs that will never start. Written before that is visible.
    pub(crate) never_started: Counter,
    /// These and `killed` are written before the outcome is visible.
    pub(crate) completed: Counter,
    pub(crate) panicked: Counter,
    pub(crate) cancelled: Counter,
    /// Those of `cancelled` and `killed` that have expired. Written before these.
    pub(crate) expired: Counter,
    /// Jobs that started, and have no result: see [`Metrics::failed`].
    pub(crate) failed: Counter,
    /// Jobs that a worker took, and that were killed by a cancel, or not run after all.
    pub(crate) killed: Counter,
    /// Workers that have ended a job and now run a user's waker. The same thread increments and
    /// decrements.
    pub(crate) unavailable: Counter,
    /// Jobs that run inside of a job that waits for them. Incremented after `started`, decremented
    /// before the counter of its end, by the same thread.
    pub(crate) inlined: Counter,
}

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn increment(&self) {
        // Ordering: with the Acquire of `get`, a thread that sees this sees what was counted
        // before.
        self.0.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn decrement(&self) {
        // Ordering: as in `increment`.
        self.0.fetch_sub(1, Ordering::Release);
    }

    /// Counts the end of a job. The caller then looks for what waits for an idle pool.
    pub(crate) fn increment_end(&self) {
        // Ordering: before `IdleWaiters` and the other counters are read: see `wait_idle.rs`.
        self.0.fetch_add(1, Ordering::SeqCst);
        // The model checker takes no access for sequentially consistent, only a fence.
        if cfg!(loom) {
            fence(fault_or!("a_weak_fence_after_an_end": Ordering::AcqRel; Ordering::SeqCst));
        }
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

impl Counters {
    /// Returns the shard of this thread.
    pub(crate) fn current(&self) -> &Shard {
        &self.shards[current_shard()]
    }

    /// Counts a job that goes to the queue's tail, or to the side with this number. The caller
    /// holds the lock of that, so no two threads count at once, and no read-modify-write is needed.
    pub(crate) fn submitted(&self, side: Option<usize>) {
        let outside = &self.submitted_outside;
        let counter = match side {
            None => &outside.jobs,
            Some(side) => {
                self.note_others();
                &self.submitted_elsewhere[side]
            }
        };
        let submitted = counter.0.load(Ordering::Relaxed);
        counter.0.store(submitted + 1, Ordering::Release);
    }

    fn note_others(&self) {
        let others = &self.submitted_outside.others_used;
        if !others.load(Ordering::Relaxed) {
            // Ordering: before the job is counted. A thread that must see the count sees this.
            others.store(true, Ordering::Release);
        }
    }

    /// Counts jobs that are about to be put into mailboxes.
    pub(crate) fn broadcast(&self, jobs: usize) {
        self.note_others();
        let jobs = jobs as u64;
        self.submitted_by_broadcast
            .0
            .fetch_add(jobs, Ordering::Release);
        // Ordering: after they are counted as submitted: see `demand`.
        self.in_mailboxes.0.fetch_add(jobs, Ordering::Release);
    }

    /// A job in a mailbox starts, or is cancelled. Called before that is counted.
    pub(crate) fn left_mailbox(&self) {
        self.in_mailboxes.decrement();
    }

    /// Returns how many jobs were submitted.
    ///
    /// Each counter only grows. So if a job is submitted before another one, this is larger for the
    /// second one, whichever threads submit them.
    fn all_submitted(&self, order: Ordering) -> u64 {
        let outside = self.submitted_outside.jobs.0.load(order);
        // As long as all jobs go to the tail, their submitters read one cache line here.
        if !self.submitted_outside.others_used.load(order) {
            return outside;
        }
        let elsewhere = self.submitted_elsewhere.iter();
        let broadcast = self.submitted_by_broadcast.0.load(order);
        outside + broadcast + elsewhere.map(|side| side.0.load(order)).sum::<u64>()
    }

    pub(crate) fn rejected(&self) {
        self.rejected.increment();
    }

    pub(crate) fn spawn_failed(&self) {
        self.spawn_failures.increment();
    }

    /// Returns the place of the next job in the order of submission, modulo 2³². Jobs that are
    /// submitted at the same time may get the same one.
    pub(crate) fn next_order(&self) -> u32 {
        self.all_submitted(Ordering::Acquire) as u32
    }

    /// Returns the place in the order of submission without the modulo, if fewer than 2³² jobs were
    /// submitted since.
    pub(crate) fn full_order(&self, order: u32) -> u64 {
        let next = self.all_submitted(Ordering::Acquire);
        next.saturating_sub(u64::from((next as u32).wrapping_sub(order)))
    }

    /// Returns how many jobs have started.
    pub(crate) fn started(&self) -> u64 {
        self.sum(|shard| &shard.started)
    }

    /// Returns how many workers would have something to do, if there were enough of them: for the
    /// queued jobs, for the running jobs that are not inlined, and for the wakers. A job in a
    /// mailbox counts from its start on, since only the worker that there is can run it.
    pub(crate) fn demand(&self) -> u64 {
        // Ordering: the jobs that ended are read first, and those submitted last. So a job that is
        // counted as ended or inlined was counted as submitted, none is counted as both, and the
        // difference can only be too large. What is in the mailboxes is read between the two: a job
        // that is counted as ended has left its mailbox, and one in a mailbox was submitted.
        let ended = self.sum(|shard| &shard.completed)
            + self.sum(|shard| &shard.panicked)
            + self.sum(|shard| &shard.failed)
            + self.sum(|shard| &shard.killed)
            + self.sum(|shard| &shard.never_started);
        let unavailable = self.sum(|shard| &shard.unavailable);
        let inlined = self.sum(|shard| &shard.inlined);
        let in_mailboxes = self.in_mailboxes.get();
        let submitted = self.all_submitted(Ordering::Acquire);
        submitted.saturating_sub(ended + inlined + in_mailboxes) + unavailable
    }

    /// Reads all counters. The caller knows the other figures: the workers, those of them that have
    /// not reached their loop, and the queued jobs, if they are counted. What this knows nothing of
    /// is left empty.
    ///
    /// A job may start or end between two of these reads. What is read late is then too large, so
    /// what can be bounded is.
    pub(crate) fn read(&self, workers: usize, starting: usize, queued: Option<usize>) -> Metrics {
        let completed = self.sum(|shard| &shard.completed);
        let panicked = self.sum(|shard| &shard.panicked);
        let failed = self.sum(|shard| &shard.failed);
        let killed = self.sum(|shard| &shard.killed);
        let cancelled = self.sum(|shard| &shard.cancelled);
        let never_started = self.sum(|shard| &shard.never_started);
        let expired = self.sum(|shard| &shard.expired);
        let inlined = self.sum(|shard| &shard.inlined);
        let started = self.sum(|shard| &shard.started);
        let submitted = self.all_submitted(Ordering::Acquire);
        let workers = workers as u64;
        let running = started.saturating_sub(completed + panicked + failed + killed);
        let running = running.min(workers + inlined);
        let waiting = submitted.saturating_sub(started + never_started);
        Metrics {
            workers,
            idle: workers.saturating_sub(starting as u64 + running.saturating_sub(inlined)),
            queued: queued.map_or(waiting, |jobs| jobs as u64),
            running,
            submitted,
            completed,
            panicked,
            cancelled: cancelled + killed,
            // Read after these, so it can be too large.
            expired: expired.min(cancelled + killed),
            failed,
            rejected: self.rejected.get(),
            spawn_failures: self.spawn_failures.get(),
            ..Metrics::default()
        }
    }

    /// Returns how many jobs have ended, and how many were submitted.
    pub(crate) fn ended_and_submitted(&self) -> (u64, u64) {
        // Ordering: after `increment_end`, or after the registration of a waiter. The jobs that
        // ended are read first, so a job that is counted as ended is counted as submitted.
        let read = |counter: &Counter| counter.0.load(Ordering::SeqCst);
        let ended_here = |shard: &CachePadded<Shard>| {
            read(&shard.completed)
                + read(&shard.panicked)
                + read(&shard.cancelled)
                + read(&shard.failed)
                + read(&shard.killed)
        };
        let ended = self.shards.iter().map(ended_here).sum();
        (ended, self.all_submitted(Ordering::SeqCst))
    }

    /// Returns whether no accepted job was unresolved at a moment of this call.
    pub(crate) fn is_idle(&self) -> bool {
        let (ended, submitted) = self.ended_and_submitted();
        ended == submitted
    }

    fn sum(&self, counter: impl Fn(&Shard) -> &Counter) -> u64 {
        self.shards.iter().map(|shard| counter(shard).get()).sum()
    }
}

/// Returns which shard this thread counts in.
#[cfg_attr(loom, allow(clippy::modulo_one))]
pub(crate) fn current_shard() -> usize {
    ThreadId::current().0 as usize % SHARDS
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn demand_counts_what_a_worker_would_have_to_do() {
        let counters = Counters::default();
        let shard = counters.current();
        for _ in 0..4 {
            counters.submitted(None);
        }
        assert_eq!(counters.demand(), 4);
        shard.started.increment();
        assert_eq!(counters.demand(), 4, "a running job occupies its worker");
        shard.started.increment();
        shard.inlined.increment();
        assert_eq!(counters.demand(), 3, "two jobs on one worker");
        shard.inlined.decrement();
        shard.completed.increment();
        shard.never_started.increment();
        assert_eq!(counters.demand(), 2);
        shard.unavailable.increment();
        assert_eq!(counters.demand(), 3);
    }

    #[test]
    fn the_order_of_submission_survives_the_modulo() {
        let counters = Counters::default();
        let base = (1_u64 << 32) - 2;
        counters
            .submitted_outside
            .jobs
            .0
            .store(base, Ordering::Relaxed);
        let orders: Vec<_> = (0..4)
            .map(|_| {
                let order = counters.next_order();
                counters.submitted(None);
                order
            })
            .collect();
        let full = orders.iter().map(|&order| counters.full_order(order));
        assert!(full.eq(base..base + 4));
    }

    #[test]
    fn figures_stay_in_bounds_and_add_up() {
        let counters = Counters::default();
        let shard = counters.current();
        for _ in 0..3 {
            counters.submitted(None);
        }
        shard.started.increment();
        let metrics = counters.read(2, 1, None);
        assert_eq!((metrics.queued, metrics.running, metrics.idle), (2, 1, 0));
        shard.panicked.increment();
        for _ in 0..2 {
            shard.never_started.increment();
            shard.cancelled.increment();
        }
        let metrics = counters.read(2, 0, None);
        assert_eq!((metrics.queued, metrics.running, metrics.idle), (0, 0, 2));
        let resolved = metrics.completed + metrics.panicked + metrics.cancelled;
        assert_eq!(metrics.submitted, resolved);
    }
}
