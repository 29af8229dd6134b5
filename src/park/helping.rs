//! Which job a worker that waits may run on its own stack.
//!
//! A worker that waits for **one** known job of its pool, or for all of a set, runs a queued one of
//! them at once: [`help`].
//!
//! A worker in `block_on` waits for any of several, and only its future knows for which. Each
//! handle that such a poll finds queued in the worker's own pool becomes a *candidate* of that pool
//! ([`offer`]). When all workers are blocked, the pool *probes*: it wakes the future that waits for
//! the oldest candidate (`pool/blocked.rs`). The worker polls, the poll meets the job that the
//! probe has marked, and right after it `block_on` runs that job ([`help_if_probed`]).
//!
//! A broadcast job can run on one worker only. If that worker's own `block_on` has polled its
//! handle, it runs the job right after the poll: no probe is needed, as no other worker will take
//! the job.
//!
//! Invariant: `block_on` runs a job only if its last poll has polled the job's handle. A job
//! that runs on the stack of a thread which does not wait for it could take the locks that this
//! thread holds.
//!
//! # Workers of stateful pools
//!
//! They run no jobs while they wait. A job of its own pool that such a worker polls in `block_on`
//! becomes *awaited* ([`note_awaited`]). While the worker parks, the wait graph knows the awaited
//! jobs. If no worker can reach those that are queued, the `block_on` [rejects](reject) them: it
//! wakes their futures, and its next poll finds them unreachable.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::mem;
use std::sync::Weak;

use crate::error::Deadlock;
use crate::task::cell::{RawTask, Role, Runner};
use crate::task::context::{Context, current_mailbox, current_pool};
use crate::task::state::Polled;
use crate::util::fault::fault_or;
use crate::util::sync::Arc;
use crate::util::unwind::{drop_catching, wake_all};

/// Runs `task` on this thread, if this is a worker of the pool that it is queued in. Returns
/// whether it did.
pub(crate) fn help(task: &Arc<dyn RawTask>) -> bool {
    let may_run = task.scheduler().role() == Role::Worker;
    fault_or!("a_join_in_a_worker_runs_nothing": false; may_run)
        && Arc::clone(task).run(Runner::Waiter)
}

/// Runs a job that the last poll has met, if the probe is still open: no other worker has answered
/// it, or was able to take a job.
pub(crate) fn help_if_probed(task: Arc<dyn RawTask>) {
    if current_pool().is_some_and(|pool| pool.blocked().take_probe()) {
        help(&task);
    }
    // It may be the last reference, and drop what the user gave to the job.
    drop_catching("a destructor", task);
}

/// What the innermost `block_on` of this thread knows of the poll that it makes.
pub(crate) struct BlockOnFrame {
    frame: Cell<Frame>,
    offers: RefCell<Offers>,
    /// The jobs of its own stateful pool that this worker's current job has polled in `block_on`.
    /// Some may have ended since, or lost their handles.
    awaited: RefCell<Awaited>,
    /// Set for one poll, if no worker can reach such jobs.
    unreachable: RefCell<Option<Box<Deadlock>>>,
}

/// The wait graph has no more awaited jobs of a thread. One would do, since all are queued in one
/// pool, as long as it does not start.
const MAX_AWAITED: usize = 16;

struct Awaited {
    jobs: VecDeque<Weak<dyn RawTask>>,
    /// The length at which those that are there twice, or gone, are removed.
    prune_at: usize,
}

/// The list is not pruned below this length.
const MIN_PRUNE: usize = 64;

impl Awaited {
    const fn new() -> Self {
        Self {
            jobs: VecDeque::new(),
            prune_at: MIN_PRUNE,
        }
    }

    /// A job can be added again, after a wait for it was given up.
    fn push(&mut self, job: Weak<dyn RawTask>) {
        self.jobs.push_back(job);
        if self.jobs.len() >= self.prune_at {
            let mut seen = BTreeSet::new();
            self.jobs.retain(|job| {
                job.strong_count() > 0 && seen.insert(job.as_ptr().cast::<()>().addr())
            });
            self.prune_at = MIN_PRUNE.max(2 * self.jobs.len());
        }
    }
}

/// The queued jobs that a poll has met and that this worker may run.
#[derive(Default)]
pub(crate) struct Offers {
    /// The oldest of those that a probe has marked.
    probed: Option<Offer>,
    /// Those that only this worker can run.
    assigned: Vec<Arc<dyn RawTask>>,
}

impl Offers {
    const fn new() -> Self {
        Self {
            probed: None,
            assigned: Vec::new(),
        }
    }

    /// Runs what may be run. `may_answer`: the poll may be the answer to a probe.
    pub(crate) fn run(self, may_answer: bool) {
        for task in self.assigned {
            help(&task);
            // It may be the last reference, and drop what the user gave to the job.
            drop_catching("a destructor", task);
        }
        if let Some(Offer { task, .. }) = self.probed.filter(|_| may_answer) {
            help_if_probed(task);
        }
    }
}

struct Offer {
    /// The place in the order of submission.
    order: u64,
    task: Arc<dyn RawTask>,
}

/// What polls on this thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Frame {
    /// No `block_on` of this crate, as far as the innermost job is concerned.
    None,
    /// A `block_on` with a timeout, which never runs a job. The address is that of its parker.
    Timed(usize),
    /// A `block_on` without a timeout.
    Untimed(usize),
}

impl BlockOnFrame {
    pub(crate) const fn new() -> Self {
        Self {
            frame: Cell::new(Frame::None),
            offers: RefCell::new(Offers::new()),
            awaited: RefCell::new(Awaited::new()),
            unreachable: RefCell::new(None),
        }
    }

    /// A job of a stateful pool has ended on this thread.
    pub(crate) fn forget_awaited(&self) {
        self.awaited.borrow_mut().jobs.clear();
    }

    /// A job begins on this thread. Returns what to [restore](Self::restore) when it ends.
    pub(crate) fn enter_job(&self) -> Frame {
        // An offer of the outer poll stays where it is: polls that the job makes outside of
        // `block_on` offer nothing, and those inside keep it aside.
        self.frame.replace(Frame::None)
    }

    pub(crate) fn restore(&self, outer: Frame) {
        self.frame.set(outer);
    }
}

/// The poll of a `block_on`, until this is dropped.
pub(crate) struct PollGuard {
    outer: Frame,
    outer_offers: Offers,
    outer_unreachable: Option<Box<Deadlock>>,
}

impl PollGuard {
    /// `unreachable`: why no worker can reach the awaited jobs, if that was found.
    pub(crate) fn enter(frame: Frame, unreachable: Option<Box<Deadlock>>) -> Self {
        let outer = Context::with(|context| {
            let this = &context.block_on;
            let outer_unreachable = this.unreachable.replace(unreachable);
            let outer = this.frame.replace(frame);
            (outer, this.offers.take(), outer_unreachable)
        });
        let (outer, outer_offers, outer_unreachable) =
            outer.unwrap_or((Frame::None, Offers::new(), None));
        Self {
            outer,
            outer_offers,
            outer_unreachable,
        }
    }

    /// The poll has ended. Returns the jobs that it offers.
    pub(crate) fn leave(self) -> Offers {
        Context::with(|context| context.block_on.offers.take()).unwrap_or_default()
    }
}

impl Drop for PollGuard {
    fn drop(&mut self) {
        let outer_offers = mem::take(&mut self.outer_offers);
        let outer_unreachable = self.outer_unreachable.take();
        let unused = Context::with(|context| {
            context.block_on.unreachable.replace(outer_unreachable);
            context.block_on.frame.set(self.outer);
            context.block_on.offers.replace(outer_offers)
        });
        // It holds jobs only if the poll panicked.
        if let Some(Offers { probed, assigned }) = unused {
            let probed = probed.map(|offer| offer.task);
            for task in assigned.into_iter().chain(probed) {
                drop_catching("a destructor", task);
            }
        }
    }
}

/// A `block_on` without a timeout has polled the handle of a job of this worker's own pool: if the
/// job is queued, this worker could run it.
pub(crate) fn offer(task: &Arc<dyn RawTask>, polled: Polled) {
    let (Some(order), Some(pool)) = (polled.order, current_pool()) else {
        return;
    };
    if task.scheduler().assigned_thread().is_some() {
        let task = Arc::clone(task);
        Context::with(|context| context.block_on.offers.borrow_mut().assigned.push(task));
        return;
    }
    let order = pool.counters().full_order(order);
    pool.blocked().add_candidate(order, task, polled.is_first);
    // Only a poll that a probe has caused may answer it: others may come at any time, also when not
    // all workers are blocked, and for a future that is not what this thread waits for in the end.
    if !polled.is_probed || !pool.blocked().has_open_probe() {
        return;
    }
    let replaced = Context::with(|context| {
        let probed = &mut context.block_on.offers.borrow_mut().probed;
        match probed {
            Some(offer) if offer.order <= order => None,
            _ => probed.replace(Offer {
                order,
                task: Arc::clone(task),
            }),
        }
    });
    // The handle that was polled still holds it.
    drop(replaced);
}

/// A `block_on` without a timeout is about to park. A set of handles may have been polled
/// elsewhere, and then moved into this worker: nothing polls its handles here before they are
/// woken. So the futures that wait for jobs of this worker's mailbox are woken once. One that this
/// thread waits for is polled, and offers its job.
///
/// `seen`: what the same wait has looked at before.
pub(crate) fn wake_own_mail(seen: &mut u64) {
    if let Some(mailbox) = current_mailbox() {
        wake_all(mailbox.take_wakers(seen));
    }
}

/// A `block_on` without a timeout, in a worker of a stateful pool, has polled the handle of a job
/// of that pool, which is not finished.
pub(crate) fn note_awaited(task: &Arc<dyn RawTask>, polled: Polled) {
    // Others are in the list already.
    if !polled.will_wake || polled.is_first || polled.is_probed {
        let task = Arc::downgrade(task);
        Context::with(|context| context.block_on.awaited.borrow_mut().push(task));
    }
}

/// Takes some of the awaited jobs that have not ended, and whose handles still exist. The caller
/// [puts them back](put_back), or [rejects](reject) them.
pub(crate) fn take_awaited() -> Vec<Arc<dyn RawTask>> {
    let (mut awaited, mut spent) = (Vec::new(), Vec::new());
    Context::with(|context| {
        let list = &mut context.block_on.awaited.borrow_mut().jobs;
        while awaited.len() < MAX_AWAITED {
            let Some(task) = list.pop_front() else {
                break;
            };
            let Some(task) = task.upgrade() else {
                continue;
            };
            match task.state(|state| state.is_unfinished() && state.has_join_interest()) {
                true => awaited.push(task),
                false => spent.push(task),
            }
        }
    });
    if !spent.is_empty() {
        // Each may be the last reference.
        drop_catching("a destructor", spent);
    }
    awaited
}

/// The thread is awake, and may still wait for these jobs.
pub(crate) fn put_back(awaited: Vec<Arc<dyn RawTask>>) {
    Context::with(|context| {
        let list = &mut context.block_on.awaited.borrow_mut().jobs;
        for task in awaited.iter().rev() {
            list.push_front(Arc::downgrade(task));
        }
    });
    drop_catching("a destructor", awaited);
}

/// No worker can reach those of these jobs that are queued: the next poll must meet them. If it
/// does not, the thread does not wait for them.
pub(crate) fn reject(awaited: Vec<Arc<dyn RawTask>>) {
    let is_queued = |task: &Arc<dyn RawTask>| task.state(|state| state.is_queued());
    let (awaited, running): (Vec<_>, Vec<_>) = awaited.into_iter().partition(is_queued);
    put_back(running);
    let take_waker = |task: &Arc<dyn RawTask>| task.state(|state| state.take_future_waker());
    let wakers: Vec<_> = awaited.iter().filter_map(take_waker).collect();
    wake_all(wakers);
    drop_catching("a destructor", awaited);
}

/// Returns why no worker can reach the awaited jobs, if the current poll must end the waits for
/// them.
pub(crate) fn unreachable() -> Option<Deadlock> {
    Context::with(|context| context.block_on.unreachable.borrow().as_deref().cloned()).flatten()
}

/// Returns whether the innermost `block_on` of this thread waits without a timeout.
pub(crate) fn in_untimed_block_on() -> bool {
    let untimed = |context: &Context| matches!(context.block_on.frame.get(), Frame::Untimed(_));
    Context::with(untimed).unwrap_or(false)
}

/// Returns whether this thread is in `block_on`: a future that is not ready blocks the thread,
/// whatever waker it is polled with.
pub(crate) fn in_block_on() -> bool {
    Context::with(|context| context.block_on.frame.get() != Frame::None).unwrap_or(false)
}

/// Returns whether `waker` is that of the innermost `block_on` of this thread.
pub(crate) fn is_block_on_waker(waker: &std::task::Waker) -> bool {
    let parker = waker.data().addr();
    Context::with(|context| {
        matches!(context.block_on.frame.get(), Frame::Timed(own) | Frame::Untimed(own) if own == parker)
    })
    .unwrap_or(false)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::task::promise::promise;

    #[test]
    fn an_awaited_job_that_is_added_again_and_again_takes_no_more_room() {
        let mut awaited = Awaited::new();
        let (_promises, handles): (Vec<_>, Vec<_>) = (0..3).map(|_| promise::<()>()).unzip();
        for handle in handles.iter().cycle().take(10_000) {
            awaited.push(Arc::downgrade(&handle.raw()));
        }
        assert!(awaited.jobs.len() <= MIN_PRUNE);
        drop((_promises, handles));
        let (_promise, handle) = promise::<()>();
        (0..MIN_PRUNE).for_each(|_| awaited.push(Arc::downgrade(&handle.raw())));
        let is_live = |job: &Weak<dyn RawTask>| job.strong_count() > 0;
        assert!(awaited.jobs.iter().all(is_live));
    }
}
