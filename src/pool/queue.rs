//! A FIFO of jobs with two locks.
//!
//! Submitters lock the tail, workers the head. When the head is empty, it takes over all jobs of the
//! tail in one exchange. So submitters and workers seldom meet, and jobs keep their order. A thread
//! that holds both locks has the queue for itself.
//!
//! A job that is cancelled, or run by a worker that waits for it, leaves a *tombstone*: its empty
//! task. When there are more tombstones than jobs, they are compacted away.
//!
//! Invariant: once the queue is closed no job is added, so a closed and empty queue stays empty.

use std::collections::VecDeque;
use std::mem;
use std::task::Waker;

use crossbeam_utils::CachePadded;

use crate::error::Closed;
use crate::task::job::Job;
use crate::util::sync::{AtomicIsize, AtomicUsize, Mutex, MutexGuard, Ordering};

/// This many tombstones are tolerated regardless of the number of jobs.
const MIN_TOMBSTONES: usize = 64;

/// The capacity that an empty side keeps. Capacity beyond this is freed.
const RETAINED_CAPACITY: usize = 1024;

#[derive(Debug)]
pub(crate) struct Queue {
    /// Lock order: the head before the tail.
    head: CachePadded<Side<VecDeque<Job>>>,
    tail: CachePadded<Side<Tail>>,
    /// How many of the jobs are tombstones. For a moment less than zero, if a tombstone is popped, or
    /// compacted away, before it is counted.
    tombstones: AtomicIsize,
}

/// One end of the queue.
#[derive(Debug, Default)]
struct Side<T> {
    inner: Mutex<T>,
    /// The number of jobs in `inner`. Written under the lock, read without it.
    len: AtomicUsize,
}

#[derive(Default)]
struct Tail {
    jobs: VecDeque<Job>,
    /// Why the queue accepts no more jobs.
    closed: Option<Closed>,
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
            head: CachePadded::default(),
            tail: CachePadded::default(),
            tombstones: AtomicIsize::new(0),
        }
    }

    fn lock_both(&self) -> (MutexGuard<'_, VecDeque<Job>>, MutexGuard<'_, Tail>) {
        // Lock order: the head before the tail.
        let head = self.head.inner.lock();
        (head, self.tail.inner.lock())
    }

    /// Adds a job at the tail. The job comes back if the queue is closed.
    ///
    /// `accept` is called just before, under the lock, to count the job. It may decline a job that was
    /// made for any executor and cancelled before it got here.
    pub(crate) fn push(
        &self,
        job: Job,
        accept: impl FnOnce(&Job) -> bool,
    ) -> Result<Push, (Job, Closed)> {
        let mut tail = self.tail.inner.lock();
        if let Some(closed) = &tail.closed {
            let closed = closed.clone();
            drop(tail);
            return Err((job, closed));
        }
        if !accept(&job) {
            drop(tail);
            job.disarm();
            return Ok(Push::AlreadyCancelled);
        }
        tail.jobs.push_back(job);
        self.tail.set_len(tail.jobs.len());
        Ok(Push::Accepted)
    }

    /// Takes the job at the head out, which may be a tombstone.
    pub(crate) fn pop(&self) -> Option<Job> {
        // While the head has jobs, no submitter is disturbed by a look at the tail.
        if self.head.is_empty_hint() && self.is_empty_hint() {
            return None;
        }
        let mut spent = VecDeque::new();
        let mut jobs = self.head.inner.lock();
        if jobs.is_empty() {
            let mut tail = self.tail.inner.lock();
            mem::swap(&mut *jobs, &mut tail.jobs);
            // Ordering: the head's length is published before the tail's is cleared: see
            // `is_empty_hint`.
            self.head.set_len(jobs.len());
            self.tail.set_len(0);
        }
        let job = jobs.pop_front();
        self.head.set_len(jobs.len());
        if jobs.is_empty() && jobs.capacity() > RETAINED_CAPACITY {
            mem::swap(&mut *jobs, &mut spent);
        }
        // Freed outside the lock.
        drop(jobs);
        drop(spent);
        job
    }

    /// Returns whether no job can be seen, at the cost of two loads.
    pub(crate) fn is_empty_hint(&self) -> bool {
        // Ordering: jobs that move from the tail to the head are counted at the head before the tail
        // ceases to count them. The tail is read first, so they are seen in one of the two.
        self.tail.is_empty_hint() && self.head.is_empty_hint()
    }

    /// Returns how many jobs can be seen, at the cost of two loads. A job that moves to the head
    /// meanwhile may be counted twice.
    pub(crate) fn len_hint(&self) -> usize {
        self.tail.len_hint() + self.head.len_hint()
    }

    /// Returns whether there is no job, nor one that is just being added.
    pub(crate) fn is_empty(&self) -> bool {
        let (head, tail) = self.lock_both();
        head.is_empty() && tail.jobs.is_empty()
    }

    /// Returns why the queue is closed, if it is.
    pub(crate) fn closed(&self) -> Option<Closed> {
        self.tail.inner.lock().closed.clone()
    }

    /// Returns whether no job will ever come out again.
    pub(crate) fn is_closed_and_empty(&self) -> bool {
        let (head, tail) = self.lock_both();
        tail.closed.is_some() && head.is_empty() && tail.jobs.is_empty()
    }

    /// Accepts no more jobs. A queue that was shut down can still break.
    pub(crate) fn close(&self, reason: Closed) {
        let mut tail = self.tail.inner.lock();
        let old = match (&tail.closed, &reason) {
            (None, _) | (Some(Closed::Shutdown), Closed::Broken(_)) => tail.closed.replace(reason),
            _ => None,
        };
        drop(tail);
        drop(old);
    }

    /// Takes all jobs out, oldest first, tombstones included.
    pub(crate) fn drain(&self) -> Vec<Job> {
        let (mut head, mut tail) = self.lock_both();
        // No state is touched under the locks: the caller marks the jobs.
        let drained = [mem::take(&mut *head), mem::take(&mut tail.jobs)];
        self.head.set_len(0);
        self.tail.set_len(0);
        drop((head, tail));
        drained.into_iter().flatten().collect()
    }

    /// Takes the wakers of the futures that wait for the oldest queued jobs, up to `batch` of them.
    pub(crate) fn oldest_wakers(&self, batch: usize) -> Vec<Waker> {
        let (head, tail) = self.lock_both();
        let jobs = head.iter().chain(&tail.jobs);
        jobs.filter_map(Job::take_future_waker)
            .take(batch)
            .collect()
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
        let (mut head, mut tail) = self.lock_both();
        let sides = [&mut *head, &mut tail.jobs];
        let len = sides.iter().map(|side| side.len()).sum();
        // Another thread may have compacted while this one waited for the locks.
        if !self.should_compact(|| len) {
            return;
        }
        let mut tombstones = Vec::with_capacity(len);
        let spent = sides.map(|side| {
            let mut kept = VecDeque::with_capacity(side.len());
            for job in side.drain(..) {
                if job.is_tombstone() {
                    tombstones.push(job);
                } else {
                    kept.push_back(job);
                }
            }
            kept.shrink_to_fit();
            mem::replace(side, kept)
        });
        self.head.set_len(head.len());
        self.tail.set_len(tail.jobs.len());
        self.tombstones
            .fetch_sub(tombstones.len() as isize, Ordering::Relaxed);
        drop((head, tail));
        // The drop of a `Job` cancels it; of a tombstone it only frees the memory.
        drop((tombstones, spent));
    }
}

impl<T> Side<T> {
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

impl std::fmt::Debug for Tail {
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
    use crate::task::join_handle::JoinHandle;

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

    fn push(queue: &Queue, value: u32) -> JoinHandle<u32> {
        let (handle, job) = job(value);
        assert_eq!(queue.push(job, |_| true).ok(), Some(Push::Accepted));
        handle
    }

    #[test]
    fn jobs_come_out_in_the_order_they_went_in_across_both_sides() {
        let queue = Queue::new();
        let first = [push(&queue, 0), push(&queue, 1)];
        queue.pop().unwrap().run();
        // From here on the head holds one job, and the tail gets more.
        let second = [push(&queue, 2), push(&queue, 3)];
        let order: Vec<_> = first
            .into_iter()
            .chain(second)
            .map(|mut handle| {
                if !handle.is_finished() {
                    queue.pop().unwrap().run();
                }
                handle.try_join().unwrap().unwrap()
            })
            .collect();
        assert_eq!(order, [0, 1, 2, 3]);
        assert!(queue.pop().is_none() && queue.is_empty() && queue.is_empty_hint());
    }

    #[test]
    fn a_closed_queue_gives_the_job_back_and_keeps_what_it_has() {
        let queue = Queue::new();
        let _handle = push(&queue, 0);
        queue.close(Closed::Shutdown);
        let (_handle, late) = job(1);
        assert!(queue.push(late, |_| true).is_err());
        assert!(!queue.is_closed_and_empty());
        assert!(queue.pop().is_some());
        assert!(queue.is_closed_and_empty());
    }

    #[test]
    fn a_declined_job_is_not_added() {
        let queue = Queue::new();
        let (_handle, declined) = job(0);
        assert_eq!(
            queue.push(declined, |_| false).ok(),
            Some(Push::AlreadyCancelled)
        );
        assert!(queue.is_empty());
    }

    #[test]
    fn drain_takes_all_oldest_first() {
        let queue = Queue::new();
        let handles: Vec<_> = (0..4).map(|value| push(&queue, value)).collect();
        drop(queue.pop());
        let drained = queue.drain();
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
        let len = || queue.len_hint();
        for handle in handles.iter().skip(10) {
            assert!(handle.cancel());
            queue.add_tombstone();
            assert!(len() <= 1000);
        }
        assert!(len() <= 10 + 2 * MIN_TOMBSTONES + 1, "{}", len());
        for (value, mut handle) in handles.into_iter().take(10).enumerate() {
            queue.pop().unwrap().run();
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
        assert_eq!(queue.oldest_wakers(8).len(), 0, "nothing waits");
        for handle in &mut handles[1..4] {
            let poll = Pin::new(handle).poll(&mut Context::from_waker(Waker::noop()));
            assert!(poll.is_pending());
        }
        assert_eq!(queue.oldest_wakers(2).len(), 2);
        assert_eq!(
            queue.oldest_wakers(2).len(),
            1,
            "the others were woken already"
        );
    }
}
