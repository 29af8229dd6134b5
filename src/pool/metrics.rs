//! What a pool counts.

use std::cell::Cell;
use std::sync::atomic::AtomicUsize;

use crossbeam_utils::CachePadded;

use crate::util::sync::{AtomicU64, Ordering, local};

/// What a pool has done so far, and what it does at present: see [`ThreadPool::metrics`](crate::ThreadPool::metrics).
///
/// The figures are read one by one while the pool works. At a quiet moment they add up:
/// `submitted == completed + panicked + cancelled`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Threads that serve the pool at present, those that just start included.
    pub workers: u64,
    /// Those of them that have no job.
    pub idle: u64,
    /// Jobs that wait for a worker.
    #[doc(alias = "qsize")]
    pub queued: u64,
    /// Jobs that run at present. More than `workers` if jobs wait for jobs and run them themselves: see
    /// [`JoinHandle::join`](crate::JoinHandle::join).
    pub running: u64,
    /// Jobs accepted so far.
    pub submitted: u64,
    /// Jobs that returned.
    pub completed: u64,
    /// Jobs that panicked.
    pub panicked: u64,
    /// Accepted jobs that never ran, for whatever reason: cancelled, or refused because the pool broke or no thread
    /// could be started.
    pub cancelled: u64,
    /// Calls that submitted nothing: the pool was full, shut down or broken.
    pub rejected: u64,
    /// Threads that the system refused to start.
    pub spawn_failures: u64,
}

/// Every thread counts in one of these, so that threads seldom write to the same cache line. (Where threads are only
/// modelled, numbers that differ from one run to the next would be no help.)
pub(crate) const SHARDS: usize = if cfg!(loom) { 1 } else { 8 };

#[derive(Debug, Default)]
pub(crate) struct Counters {
    shards: [CachePadded<Shard>; SHARDS],
    /// Before the job can be seen in the queue, under the lock of its entrance.
    submitted: CachePadded<AtomicU64>,
    rejected: AtomicU64,
    spawn_failures: AtomicU64,
}

/// Only ever go up, but for `kept` and `helped`.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    /// Before the job can be seen as running.
    pub(crate) started: AtomicU64,
    /// Before it can be seen that a job will never start.
    pub(crate) withdrawn: AtomicU64,
    /// These three before the job can be seen as resolved.
    pub(crate) completed: AtomicU64,
    pub(crate) panicked: AtomicU64,
    pub(crate) cancelled: AtomicU64,
    /// Workers that something else than a job keeps from the queue: they have ended one and are in a foreign waker now,
    /// or they wait for jobs in their initializer. The same thread goes up and down.
    pub(crate) kept: AtomicU64,
    /// Jobs that run in a worker which waits for them, on top of the job, or the initializer, that waits. Up after
    /// `started`, down before `completed` and `panicked`, by the same thread.
    pub(crate) helped: AtomicU64,
}

impl Counters {
    /// This thread's shard.
    pub(crate) fn mine(&self) -> &Shard {
        &self.shards[shard_of_this_thread()]
    }

    /// To be called under the lock of the queue's entrance: so one thread at a time counts here, and it costs less.
    pub(crate) fn submitted(&self) {
        let so_far = self.submitted.load(Ordering::Relaxed);
        self.submitted.store(so_far + 1, Ordering::Release);
    }

    pub(crate) fn rejected(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn spawn_failed(&self) {
        self.spawn_failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn all_submitted(&self) -> u64 {
        self.submitted.load(Ordering::Acquire)
    }

    /// How many workers would have something to do if there were enough of them: the jobs that wait, those that run and
    /// are not helped, and those workers that something else keeps.
    ///
    /// What has ended is read first, and what is submitted last. So a job that is counted as ended or helped was counted
    /// as submitted, none is counted as both, and the difference errs on the high side only.
    pub(crate) fn demand(&self) -> u64 {
        let ended = self.sum(|shard| &shard.completed)
            + self.sum(|shard| &shard.panicked)
            + self.sum(|shard| &shard.withdrawn);
        let kept = self.sum(|shard| &shard.kept);
        let helped = self.sum(|shard| &shard.helped);
        let submitted = self.all_submitted();
        submitted.saturating_sub(ended + helped) + kept
    }

    /// With the figures that only the caller knows: threads, those of them that have not come to their loop yet, and
    /// the jobs in the queue, if they are counted there.
    ///
    /// A job may start or end between two of these reads. What is read late is then too large, so what can be bounded
    /// is.
    pub(crate) fn read(&self, workers: usize, starting: usize, queued: Option<usize>) -> Metrics {
        let completed = self.sum(|shard| &shard.completed);
        let panicked = self.sum(|shard| &shard.panicked);
        let cancelled = self.sum(|shard| &shard.cancelled);
        let withdrawn = self.sum(|shard| &shard.withdrawn);
        let helped = self.sum(|shard| &shard.helped);
        let started = self.sum(|shard| &shard.started);
        let submitted = self.all_submitted();
        let workers = workers as u64;
        let running = started.saturating_sub(completed + panicked);
        let running = running.min(workers + helped);
        let waiting = submitted.saturating_sub(started + withdrawn);
        Metrics {
            workers,
            idle: workers.saturating_sub(starting as u64 + running.saturating_sub(helped)),
            queued: queued.map_or(waiting, |jobs| jobs as u64),
            running,
            submitted,
            completed,
            panicked,
            cancelled,
            rejected: self.rejected.load(Ordering::Relaxed),
            spawn_failures: self.spawn_failures.load(Ordering::Relaxed),
        }
    }

    fn sum(&self, counter: impl Fn(&Shard) -> &AtomicU64) -> u64 {
        let of_shard = |shard: &CachePadded<Shard>| counter(shard).load(Ordering::Acquire);
        self.shards.iter().map(of_shard).sum()
    }
}

impl Shard {
    pub(crate) fn up(counter: &AtomicU64) {
        // Release, with the Acquire of `sum`: whoever sees this sees what was counted before.
        counter.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn down(counter: &AtomicU64) {
        counter.fetch_sub(1, Ordering::Release);
    }
}

#[cfg_attr(loom, allow(clippy::modulo_one))]
pub(crate) fn shard_of_this_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    local! {
        static MINE: Cell<Option<usize>> = const { Cell::new(None) };
    }
    MINE.try_with(|mine| {
        mine.get().unwrap_or_else(|| {
            let shard = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
            mine.set(Some(shard));
            shard
        })
    })
    .unwrap_or(0)
}
