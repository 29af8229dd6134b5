//! What a worker is told besides the jobs in the queue: that there are too many workers, or that
//! its mailbox has jobs, which only this worker may run.
//!
//! A change of either kind writes the *version*, which each worker compares with the one that it
//! has seen last: once for each job, and before it parks. So a pool that never resizes nor
//! broadcasts reads one word a job, which nothing writes.
//!
//! # Why no change is overlooked
//!
//! The writer changes the maximum or fills mailboxes, then the version, all under the registry's
//! lock. After that it takes slots of parked workers out of their list, and unparks these workers.
//!
//! - A worker that is parked at that moment is among them. (Of surplus workers only as many are
//!   woken as must exit. If others exit first, those that were woken stay.)
//! - A worker that parks later adds its slot under the same lock as the writer removes slots. So
//!   its last check, which follows, sees the new version.
//! - A worker that runs a job compares the versions when the job has ended.
//!
//! A worker that sees a new version reads it *before* it looks at what has changed. It remembers
//! the version only if it found nothing to do. So what is written during the look is looked at
//! again.
//!
//! # What happens to a job in a mailbox
//!
//! A worker is a *member* of the pool from the moment in which it is counted until it decides to
//! exit. Both are decided under the registry's lock, and mailboxes of members are filled under it.
//! A worker whose `keep_alive` has elapsed, or whose pool has closed, does not exit while its
//! mailbox has a job. A surplus worker exits in any case; it cancels what is in its mailbox.
//!
//! A job in a mailbox does not count as demand for workers, since one more worker could not run it.
//! From its start on it occupies its worker. A submitter may have left a job to that worker
//! meanwhile. So a job that starts counts first, and then the queue is checked: see `broadcast.rs`.

use std::collections::VecDeque;
use std::mem;
use std::task::Waker;
// Not the model checker's: the number of a thread orders nothing.
use std::sync::atomic::AtomicU32;

use crate::error::{JoinError, ResizeError};
use crate::park::wait_graph::recheck;
use crate::pool::inner::PoolInner;
use crate::pool::spawn::spawn_for_demand;
use crate::task::cell::RawTask;
use crate::task::context::ThreadId;
use crate::task::job::Job;
use crate::util::fault::fault_or;
use crate::util::sync::{Arc, AtomicU64, Mutex, Ordering, fence};

#[derive(Debug, Default)]
pub(crate) struct Control {
    /// Differs from the one that a worker has seen if there may be something to do for the worker.
    version: AtomicU64,
}

impl Control {
    pub(crate) fn version(&self) -> u64 {
        // Ordering: a worker that sees the version sees what was changed before.
        self.version.load(Ordering::Acquire)
    }

    /// The caller holds the registry's lock, and has made a change.
    pub(crate) fn change(&self) {
        self.version.fetch_add(1, Ordering::Release);
    }
}

/// The jobs that only one worker may run.
#[derive(Debug)]
pub(crate) struct Mailbox {
    /// 0 until the thread has started.
    thread: AtomicU32,
    /// Lock order: the registry, a mailbox, a task.
    mail: Mutex<Mail>,
}

#[derive(Debug, Default)]
struct Mail {
    jobs: VecDeque<Job>,
    /// The length at which tombstones are removed.
    prune_at: usize,
    /// How many jobs have ever been added.
    pushed: u64,
}

/// The mail is not pruned below this length.
const MIN_PRUNE: usize = 64;

impl Mailbox {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            thread: AtomicU32::new(ThreadId::UNKNOWN.0),
            mail: Mutex::default(),
        })
    }

    /// The worker has started on this thread.
    pub(crate) fn set_thread(&self) {
        self.thread.store(ThreadId::current().0, Ordering::Relaxed);
    }

    /// Returns the worker's thread, once it has started.
    pub(crate) fn thread(&self) -> Option<ThreadId> {
        let thread = ThreadId(self.thread.load(Ordering::Relaxed));
        Some(thread).filter(|thread| *thread != ThreadId::UNKNOWN)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.mail.lock().jobs.is_empty()
    }

    /// Adds a job at the end. The caller holds the registry's lock, and drops `spent` outside
    /// locks.
    pub(crate) fn push(&self, job: Job, spent: &mut Vec<Job>) {
        let mut mail = self.mail.lock();
        mail.jobs.push_back(job);
        mail.pushed += 1;
        if mail.jobs.len() >= mail.prune_at {
            // As many were added since the last time, so each pays for a step or two.
            let (tombstones, jobs): (VecDeque<_>, _) = mem::take(&mut mail.jobs)
                .into_iter()
                .partition(Job::is_tombstone);
            mail.jobs = jobs;
            mail.prune_at = MIN_PRUNE.max(2 * mail.jobs.len());
            drop(mail);
            spent.extend(tombstones);
        }
    }

    /// Takes the wakers of the futures that wait for these jobs, if jobs have come since the last
    /// call: see [`wake_own_mail`](crate::park::helping::wake_own_mail).
    pub(crate) fn take_wakers(&self, seen: &mut u64) -> Vec<Waker> {
        let mail = self.mail.lock();
        if mem::replace(seen, mail.pushed) == mail.pushed {
            return Vec::new();
        }
        mail.jobs
            .iter()
            .filter_map(Job::take_future_waker)
            .collect()
    }

    /// Takes the first job out, which may be a tombstone.
    fn pop(&self) -> Option<Job> {
        self.mail.lock().jobs.pop_front()
    }

    /// Takes all jobs out, tombstones included.
    pub(crate) fn drain(&self) -> VecDeque<Job> {
        mem::take(&mut self.mail.lock().jobs)
    }
}

/// What a worker knows of its mailbox and of the number of workers.
#[derive(Debug)]
pub(crate) struct Inbox {
    /// The worker's number.
    worker: u64,
    mailbox: Arc<Mailbox>,
    /// The version at which there was nothing to do.
    seen: u64,
}

/// What a worker must do before it takes a job out of the queue.
#[derive(Debug)]
#[must_use]
pub(crate) enum Instruction {
    Nothing,
    /// A job of the mailbox, which may be a tombstone.
    Run(Job),
    /// There are too many workers, and this one is no longer a member of the pool.
    Exit,
}

impl Inbox {
    pub(crate) fn new(worker: u64, mailbox: Arc<Mailbox>) -> Self {
        Self {
            worker,
            mailbox,
            seen: 0,
        }
    }

    pub(crate) fn worker(&self) -> u64 {
        self.worker
    }

    /// Returns whether there may be something to do, at the cost of one load.
    pub(crate) fn has_news(&self, pool: &PoolInner) -> bool {
        pool.control().version() != self.seen
    }

    /// Looks for something to do.
    #[cold]
    pub(crate) fn read(&mut self, pool: &PoolInner) -> Instruction {
        // Ordering: before the look. See the module's documentation.
        let version = pool.control().version();
        if pool.registry().leave_if_surplus(self.worker) {
            return Instruction::Exit;
        }
        match self.mailbox.pop() {
            Some(job) => Instruction::Run(job),
            None => {
                self.seen = version;
                Instruction::Nothing
            }
        }
    }
}

impl PoolInner {
    /// Returns why the maximum of workers is not for the user to set, if it is not.
    pub(crate) fn check_resizable(&self) -> Result<(), ResizeError> {
        match self.auto_sizer() {
            Some(_) => Err(ResizeError::auto_sized()),
            None => Ok(()),
        }
    }

    /// Takes all jobs out of the mailboxes. From here on they cannot start; the caller refuses
    /// them.
    pub(crate) fn mark_mail(&self, error: &JoinError) -> Vec<Arc<dyn RawTask>> {
        // Ordering: if the pool was closed before, no job comes into a mailbox after this.
        let jobs: Vec<_> = self.registry().with_members(|members| {
            members
                .values()
                .flat_map(|mailbox| mailbox.drain())
                .collect()
        });
        jobs.into_iter()
            .filter_map(|job| job.mark_refused(error))
            .collect()
    }

    /// Sets the maximum of workers, which is at least 1. Surplus workers exit after their job, idle
    /// ones at once. Spawns workers for what is queued, if more are allowed now.
    pub(crate) fn resize(self: &Arc<Self>, max_workers: usize) {
        let surplus = self
            .registry()
            .set_max_workers(max_workers, || self.control().change());
        if surplus > 0 {
            self.idle().wake(surplus);
        }
        // Ordering: the maximum is written before the demand is read. A submitter writes the queue,
        // and then reads the maximum.
        fence(fault_or!("a_weak_fence_after_a_resize": Ordering::AcqRel; Ordering::SeqCst));
        spawn_for_demand(self);
        // A worker that has just begun to wait may have counted on one more.
        recheck();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::executor::Executor;
    use crate::executor::ext::ExecutorExt;
    use crate::task::join_handle::JoinHandle;

    /// Puts its jobs into a mailbox.
    struct Filled<'a>(&'a Mailbox);

    impl Executor for Filled<'_> {
        fn execute(&self, job: Job) {
            self.0.push(job, &mut Vec::new());
        }
    }

    #[test]
    fn mail_comes_out_in_the_order_it_went_in() {
        let mailbox = Mailbox::new();
        assert!(mailbox.is_empty() && mailbox.pop().is_none());
        let handles = [1, 2, 3].map(|n| Filled(&mailbox).submit(move || n));
        mailbox.pop().unwrap().run();
        assert!(handles[0].is_finished() && !handles[1].is_finished());
        assert_eq!(mailbox.drain().len(), 2, "dropped, which cancels them");
        assert!(mailbox.is_empty() && handles[2].is_cancelled());
    }

    #[test]
    fn tombstones_do_not_pile_up_in_a_mailbox() {
        let mailbox = Mailbox::new();
        let kept = Filled(&mailbox).submit(|| 7);
        for _ in 0..1000 {
            assert!(Filled(&mailbox).submit(|| ()).cancel());
        }
        let len = mailbox.mail.lock().jobs.len();
        assert!(len <= MIN_PRUNE, "{len}");
        mailbox.pop().unwrap().run();
        assert_eq!(kept.join().unwrap(), 7);
    }

    #[test]
    fn the_wakers_of_mail_are_taken_once_unless_more_comes() {
        use std::future::Future;
        use std::pin::Pin;
        use std::task::Context;

        let poll = |handle: &mut JoinHandle<()>| {
            let poll = Pin::new(handle).poll(&mut Context::from_waker(Waker::noop()));
            assert!(poll.is_pending());
        };
        let mailbox = Mailbox::new();
        let mut seen = 0;
        let mut first = Filled(&mailbox).submit(|| ());
        poll(&mut first);
        assert_eq!(mailbox.take_wakers(&mut seen).len(), 1);
        poll(&mut first);
        assert_eq!(mailbox.take_wakers(&mut seen).len(), 0);
        let _second = Filled(&mailbox).submit(|| ());
        assert_eq!(mailbox.take_wakers(&mut seen).len(), 1);
    }
}
