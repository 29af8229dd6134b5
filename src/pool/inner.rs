//! What a pool, its workers and its jobs share.
//!
//! The parts (queue, semaphore, registry, …) know nothing of each other. What concerns several of
//! them is a method here. When threads are notified or spawned is in `spawn.rs`, what they do in
//! `worker.rs`.

use std::array;
use std::collections::VecDeque;
use std::process;
use std::task::Waker;
use std::time::Duration;

use crossbeam_utils::CachePadded;

use crate::error::{Cause, Closed, JoinError};
use crate::pool::auto_size::AutoSizer;
use crate::pool::blocked::BlockedWorkers;
use crate::pool::builder::Config;
use crate::pool::control::Control;
use crate::pool::idle::Idle;
use crate::pool::job::Priority;
use crate::pool::metrics::{Counters, Metrics, SHARDS, current_shard};
use crate::pool::observer::Observer;
use crate::pool::queue::{Place, PopOrder, Push, Queue};
use crate::pool::registry::{Registry, WorkerSlot};
use crate::pool::semaphore::Semaphore;
use crate::pool::spawn::notify_work;
use crate::pool::wait_idle::IdleWaiters;
use crate::task::cell::{JobPlace, RawTask, Role, Runner, Scheduler, refuse_marked};
use crate::task::context::{
    CancellingFrame, Context, WorkerId, WorkerPhase, current_worker, running_jobs,
};
use crate::task::job::Job;
use crate::task::state::OutcomeKind;
use crate::util::fault::fault_or;
use crate::util::sync::{Arc, AtomicBool, Ordering, fence};
use crate::util::unwind::{drop_catching, emit, wake, wake_all};

#[derive(Debug)]
pub(crate) struct PoolInner {
    /// Unique in the process.
    id: u64,
    /// The process that created the pool, and has its threads.
    process: u32,
    config: Config,
    /// `None` if nothing observes the jobs.
    observer: Option<Box<Observer>>,
    /// How long a job can be queued.
    queue_timeout: Option<Duration>,
    queue: Queue,
    /// The permits of a bounded queue.
    semaphore: Option<Semaphore>,
    idle: Idle,
    blocked: BlockedWorkers,
    registry: Registry,
    counters: Counters,
    /// Each worker reads it for each job, and it is seldom written.
    control: CachePadded<Control>,
    /// Each job reads it, and it is seldom written: so it has a cache line of its own.
    idle_waiters: CachePadded<IdleWaiters>,
    /// Set by `shutdown` and `shutdown_now`, of a broken pool too.
    shut_down: AtomicBool,
    /// Set by `shutdown_now`: running jobs are asked to end.
    stopping: AtomicBool,
    /// The latest `Shutdown::join_timeout` returned an error, so dropping the pool does not wait.
    given_up: AtomicBool,
    /// What the workers tell the console.
    #[cfg(feature = "console")]
    watch: crate::console::watch::PoolWatch,
}

/// Returns a number for a new pool.
pub(crate) fn next_id() -> u64 {
    // Numbers tell pools apart, and order nothing.
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl PoolInner {
    pub(crate) fn new(
        id: u64,
        config: Config,
        max_workers: usize,
        capacity: Option<usize>,
        observer: Option<Observer>,
        queue_timeout: Option<Duration>,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            process: process::id(),
            config,
            observer: observer.map(Box::new),
            queue_timeout,
            queue: Queue::new(),
            semaphore: capacity.map(Semaphore::new),
            idle: Idle::default(),
            blocked: BlockedWorkers::default(),
            registry: Registry::new(max_workers),
            counters: Counters::default(),
            control: CachePadded::default(),
            idle_waiters: CachePadded::default(),
            shut_down: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
            #[cfg(feature = "console")]
            watch: Default::default(),
        })
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Returns what observes the jobs, if anything does.
    pub(crate) fn observer(&self) -> Option<&Observer> {
        self.observer.as_deref()
    }

    /// Returns what finds the number of workers, if the user does not set it.
    pub(crate) fn auto_sizer(&self) -> Option<&AutoSizer> {
        self.config.auto_sizer.as_deref()
    }

    /// Returns how long a job can be queued, if that is limited.
    pub(crate) fn queue_timeout(&self) -> Option<Duration> {
        self.queue_timeout
    }

    /// Returns whether a submitter must not wait for room forever.
    pub(crate) fn limits_wait(&self) -> bool {
        self.queue_timeout.is_some() && self.semaphore.is_some()
    }

    /// Returns whether nothing is done for a job that has no options and this place in the order of
    /// submission.
    pub(crate) fn is_plain(&self, order: u32) -> bool {
        self.queue_timeout.is_none() && !self.samples(order)
    }

    /// Returns whether the job with this place in the order of submission gets a stamp.
    pub(crate) fn samples(&self, order: u32) -> bool {
        self.observer.is_some() || self.console_samples(order)
    }

    /// Returns whether each job gets a stamp.
    pub(crate) fn observes_all(&self) -> bool {
        #[cfg(feature = "console")]
        let all = self.watch.wants_all_stamps();
        #[cfg(not(feature = "console"))]
        let all = false;
        self.observer.is_some() || all
    }

    #[inline]
    #[cfg(feature = "console")]
    fn console_samples(&self, order: u32) -> bool {
        self.watch.wants_stamp(order)
    }

    #[cfg(not(feature = "console"))]
    fn console_samples(&self, _: u32) -> bool {
        false
    }

    pub(crate) fn semaphore(&self) -> Option<&Semaphore> {
        self.semaphore.as_ref()
    }

    pub(crate) fn idle(&self) -> &Idle {
        &self.idle
    }

    pub(crate) fn blocked(&self) -> &BlockedWorkers {
        &self.blocked
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(crate) fn control(&self) -> &Control {
        &self.control
    }

    pub(crate) fn idle_waiters(&self) -> &IdleWaiters {
        &self.idle_waiters
    }

    #[cfg(feature = "console")]
    pub(crate) fn watch(&self) -> &crate::console::watch::PoolWatch {
        &self.watch
    }

    /// Returns whether `shutdown` or `shutdown_now` was called.
    pub(crate) fn is_shut_down(&self) -> bool {
        // Ordering: pairs with the store in `shut_down`.
        self.shut_down.load(Ordering::Acquire)
    }

    /// Returns whether the latest wait for the shutdown was given up.
    pub(crate) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }

    pub(crate) fn set_given_up(&self, given_up: bool) {
        // Ordering: a thread that drops the pool after it heard of the timeout sees this.
        self.given_up.store(given_up, Ordering::Release);
    }

    /// Returns whether this process is a copy, made by `fork`, of the one that has the threads.
    pub(crate) fn is_forked(&self) -> bool {
        self.process != process::id()
    }

    /// Returns what this thread is to the pool, if it is one of its workers.
    pub(crate) fn current_worker(&self) -> Option<WorkerId> {
        current_worker().filter(|worker| worker.pool == self.id)
    }

    pub(crate) fn metrics(&self) -> Metrics {
        let mut metrics = self.read_counters();
        // Read last, so it is no lower than what was read before.
        metrics.peak_workers = self.registry.counts().1 as u64;
        if let Some(timings) = self.observer().and_then(Observer::timings) {
            timings.read(&mut metrics);
        }
        metrics.auto_size = self.auto_sizer().map(AutoSizer::metrics);
        metrics
    }

    fn read_counters(&self) -> Metrics {
        let queued = self.semaphore.as_ref().map(Semaphore::queued);
        let (workers, starting) = (self.registry.workers(), self.registry.starting());
        self.counters.read(workers, starting, queued)
    }

    /// Returns how many jobs are queued, at the cost of reading all counters.
    pub(crate) fn queued_jobs(&self) -> u64 {
        self.read_counters().queued
    }

    /// Returns the metrics without those that need a lock: the queued jobs of a bounded pool are
    /// counted as those of any other.
    #[cfg(feature = "console")]
    pub(crate) fn metrics_without_lock(&self) -> Metrics {
        self.counters
            .read(self.registry.workers(), self.registry.starting(), None)
    }

    /// Returns how many workers would have something to do, if there were enough of them. Even a
    /// tombstone must be taken out by a worker.
    pub(crate) fn demand(&self) -> u64 {
        let at_least = u64::from(self.has_queued_hint());
        self.counters.demand().max(at_least)
    }

    /// Returns whether a job can be seen in the queue, at the cost of a few loads.
    pub(crate) fn has_queued_hint(&self) -> bool {
        !self.queue.is_empty_hint()
    }

    /// Returns whether more than one job can be seen in the queue, at the cost of a few loads.
    pub(crate) fn has_backlog(&self) -> bool {
        self.queue.len_hint() > 1
    }

    /// Returns whether a job is in the queue, or is just being added.
    pub(crate) fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Returns whether the queue is closed, at the cost of one load.
    pub(crate) fn is_closed_hint(&self) -> bool {
        self.queue.is_closed_hint()
    }

    /// Returns whether no job will ever come out of the queue again.
    pub(crate) fn is_closed_and_empty(&self) -> bool {
        self.queue.is_closed_and_empty()
    }

    /// Returns why the pool accepts no more jobs, if it does not.
    pub(crate) fn closed(&self) -> Option<Closed> {
        self.queue.closed()
    }

    /// Adds a job that has its permit. `added` is called once it is in the queue, before any user
    /// code.
    pub(crate) fn push(
        self: &Arc<Self>,
        job: Job,
        priority: Priority,
        accept: impl FnOnce(&Job) -> bool,
        added: impl FnOnce(),
    ) -> Result<Push, (Job, Closed)> {
        let mut idle_wakers = None;
        let place = self.place(priority);
        let push = self.queue.push(job, place, |job| {
            let accepted = accept(job);
            if accepted {
                // Before the job is counted: see `wait_idle.rs`.
                if fault_or!(
                    "a_submit_overlooks_an_idle_moment": false; self.idle_waiters.is_any())
                {
                    idle_wakers = Some(self.take_idle_wakers());
                }
                self.counters.submitted(place.number());
            }
            accepted
        });
        if matches!(push, Ok(Push::Accepted)) {
            added();
        }
        if let Some(wakers) = idle_wakers {
            // First, as a waker is user code, and may wait for this job.
            notify_work(self);
            wake_all(wakers);
        }
        match &push {
            Ok(Push::Accepted) => {}
            Ok(Push::AlreadyCancelled) => self.release_permit(),
            Err(_) => {
                self.release_permit();
                self.counters.rejected();
            }
        }
        push
    }

    /// A job with a deadline is about to be added.
    pub(crate) fn note_deadline(&self) {
        self.queue.note_deadline();
    }

    /// Returns where a job goes that this thread submits.
    fn place(&self, priority: Priority) -> Place {
        match priority {
            Priority::High => Place::HIGH,
            // Also in its initializer, and when it exits: so its jobs are in order from the first
            // to the last. Lanes are for any thread, and the other workers look at all of them.
            Priority::Normal => self
                .current_worker()
                .map_or(Place::OUTSIDE, |_| Place::lane(current_shard())),
            Priority::Low => Place::LOW,
        }
    }

    /// Takes the next job out of the queue, which may be a tombstone.
    pub(crate) fn pop(&self, order: &mut PopOrder) -> Option<Job> {
        let job = self.queue.pop(order)?;
        self.blocked.cancel_probe();
        self.queue.compact_if_due();
        Some(job)
    }

    /// A job that was popped turned out to be a tombstone.
    pub(crate) fn popped_tombstone(&self) {
        self.queue.remove_tombstone();
    }

    /// Takes the wakers of the futures that wait for the oldest queued jobs, up to `batch` of them.
    pub(crate) fn queued_wakers(&self, batch: usize) -> Vec<Waker> {
        (self.queue).oldest_wakers(batch, || self.counters.next_order())
    }

    /// A job has left the queue: its permit goes to the submitter that has waited longest.
    pub(crate) fn release_permit(&self) {
        let granted = self.semaphore.as_ref().and_then(Semaphore::release);
        if let Some(waker) = granted {
            wake(waker);
        }
    }

    /// Accepts no more jobs.
    pub(crate) fn close(&self, reason: Closed) {
        self.queue.close(reason);
        self.idle.close();
        if let Some(semaphore) = &self.semaphore {
            wake_all(semaphore.close());
        }
        self.check_termination();
    }

    /// Accepts no more jobs.
    pub(crate) fn shut_down(&self) {
        // Ordering: before the queue is closed. A submitter that is refused finds the pool shut
        // down.
        self.shut_down.store(true, Ordering::Release);
        self.close(Closed::Shutdown);
    }

    /// Accepts no more jobs, asks the running ones to end, and cancels the queued ones. Returns how
    /// many those were.
    pub(crate) fn stop(&self) -> usize {
        self.shut_down.store(true, Ordering::Release);
        self.close_and_refuse(Closed::Shutdown, &JoinError::cancelled(), || {
            // Ordering: a job that sees the request sees what the caller did before. It may end at
            // once, and its worker finds no job that was queued.
            self.stopping.store(true, Ordering::Release);
        })
    }

    /// Returns whether running jobs are asked to end.
    pub(crate) fn is_stopping(&self) -> bool {
        // Ordering: pairs with the store in `stop`.
        self.stopping.load(Ordering::Acquire)
    }

    /// An initializer has failed.
    pub(crate) fn mark_broken(&self, cause: Cause) {
        let error = JoinError::broken_by(Arc::clone(&cause));
        self.close_and_refuse(Closed::Broken(Arc::clone(&cause)), &error, || ());
        // Last, since no handle should wait for a subscriber.
        let pool = &self.config.thread_name_prefix;
        emit(|| tracing::error!(%pool, %cause, "the pool is broken: {cause}"));
        #[cfg(feature = "console")]
        {
            self.watch.set_broken();
            crate::console::registry::pool_broken(&cause);
        }
        drop_catching("the destructor of an error", (error, cause));
    }

    /// Accepts no more jobs, and resolves the queued ones with `error`. Calls `on_marked` once
    /// these can no longer start. Returns how many there were.
    fn close_and_refuse(
        &self,
        reason: Closed,
        error: &JoinError,
        on_marked: impl FnOnce(),
    ) -> usize {
        // The queue first, so that no job is added behind those that are drained. Then the jobs,
        // before any user code runs: a waker may take its time, and no worker may start a job
        // meanwhile. (`close` closes it once more, which changes nothing.)
        let _frame = CancellingFrame::enter();
        self.queue.close(reason.clone());
        let marked = self.mark_queued(error);
        on_marked();
        self.close(reason);
        refuse_marked(&marked, error);
        self.check_termination();
        marked.len()
    }

    /// Resolves all jobs that are queued now with `error`. Returns how many there were.
    pub(crate) fn refuse_queued(&self, error: &JoinError) -> usize {
        let _frame = CancellingFrame::enter();
        let marked = self.mark_queued(error);
        refuse_marked(&marked, error);
        self.check_termination();
        marked.len()
    }

    /// A worker exits: takes all jobs out of its mailbox, into which no job comes any longer. The
    /// caller [refuses](refuse_mail) them.
    pub(crate) fn take_mail(&self, slot: &WorkerSlot) -> VecDeque<Job> {
        self.registry.remove_member(slot.worker);
        slot.mailbox.drain()
    }

    /// Takes all jobs out of the queue, and out of the mailboxes. From here on they cannot start;
    /// the caller [refuses](refuse_marked) them.
    fn mark_queued(&self, error: &JoinError) -> Vec<Arc<dyn RawTask>> {
        // Broadcast jobs come first, since they are ahead of the queue.
        let mut marked = self.mark_mail(error);
        let drained = self.queue.drain(|| self.counters.next_order());
        let len = drained.len();
        let mark = |job: Job| job.mark_refused(error);
        let queued: Vec<_> = drained.into_iter().filter_map(mark).collect();
        for _ in queued.len()..len {
            self.queue.remove_tombstone();
        }
        marked.extend(queued);
        marked
    }

    /// Calls `f` on a worker that has ended a job, or does not run the job that it took. Meanwhile
    /// nothing may count on this worker.
    pub(crate) fn while_unavailable(self: &Arc<Self>, f: impl FnOnce()) {
        let unavailable = &self.counters.current().unavailable;
        unavailable.increment();
        if Context::with(|context| context.searching.take()).unwrap_or(false) {
            self.idle.stop_searching();
        }
        // A job that came since the last one was counted as ended may have been left to this
        // worker.
        fence(Ordering::SeqCst);
        if self.has_queued_hint() {
            notify_work(self);
        }
        f();
        unavailable.decrement();
    }

    /// Wakes what waits for the termination, if that has come.
    pub(crate) fn check_termination(&self) {
        wake_all(self.registry.check_termination(self.is_closed_and_empty()));
    }
}

/// Resolves the jobs of a mailbox with `error`.
pub(crate) fn refuse_mail(jobs: VecDeque<Job>, error: &JoinError) {
    let _frame = CancellingFrame::enter();
    let marked: Vec<_> = jobs
        .into_iter()
        .filter_map(|job| job.mark_refused(error))
        .collect();
    refuse_marked(&marked, error);
}

/// A job's reference to its pool. A job clones the outer `Arc`, whose count shares its cache line
/// with nothing else; the inner one is the pool itself.
#[derive(Clone)]
pub(crate) struct PoolRef(Arc<CachePadded<Arc<PoolInner>>>);

/// The references that jobs clone. Each thread uses one of a few. Otherwise all threads that submit
/// at the same time would write the same reference count.
pub(crate) struct PoolRefs([PoolRef; SHARDS]);

impl PoolRefs {
    pub(crate) fn new(pool: &Arc<PoolInner>) -> Self {
        let pool_ref = |_| PoolRef(Arc::new(CachePadded::new(Arc::clone(pool))));
        Self(array::from_fn(pool_ref))
    }

    pub(crate) fn get(&self) -> PoolRef {
        self.0[current_shard()].clone()
    }
}

impl PoolRef {
    pub(crate) fn pool(&self) -> &Arc<PoolInner> {
        &self.0
    }
}

impl Scheduler for PoolRef {
    fn on_start(&self, runner: Runner) {
        let shard = self.0.counters.current();
        shard.started.increment();
        // A job inside a job that waits for it: together they occupy one worker. This job's own
        // frame is not there yet.
        if runner == Runner::Waiter && running_jobs() > 0 {
            shard.inlined.increment();
        }
    }

    fn on_dequeue(&self, runner: Runner) {
        fault_or!("a_started_job_keeps_its_permit": (); self.0.release_permit());
        if runner == Runner::Waiter {
            self.0.queue.add_tombstone();
        }
    }

    fn on_finish(&self, runner: Runner, kind: OutcomeKind, wakes: bool) {
        let pool = &**self.0;
        let shard = pool.counters.current();
        match runner {
            // A waiter stays busy with the job that waits, whatever this job's waker does.
            Runner::Waiter => {
                // The job itself is still on the stack.
                if running_jobs() > 1 {
                    shard.inlined.decrement();
                }
            }
            // First, or for a moment this worker would seem to be idle.
            Runner::Executor if wakes => shard.unavailable.increment(),
            Runner::Executor => {}
        }
        match kind {
            OutcomeKind::Returned => shard.completed.increment_end(),
            OutcomeKind::Panicked => shard.panicked.increment_end(),
            OutcomeKind::Failed => shard.failed.increment_end(),
            OutcomeKind::Cancelled | OutcomeKind::NotRun => shard.killed.increment_end(),
            OutcomeKind::Expired => {
                shard.expired.increment();
                shard.killed.increment_end();
            }
        }
        // A thread that sees the result and submits the next job finds this worker searching: rule
        // 4 of `idle.rs`.
        if runner == Runner::Executor && !wakes {
            Context::with(|context| {
                // In this order: while jobs come without a pause, the worker must not read what the
                // submitters write.
                if context.after_pause.get() && !pool.has_queued_hint() {
                    context.searching.set(pool.idle.try_start_searching());
                }
            });
        }
    }

    fn on_woken(&self, runner: Runner) {
        if runner == Runner::Executor {
            self.0.counters.current().unavailable.decrement();
        }
    }

    fn on_cancelling(&self) {
        self.0.counters.current().never_started.increment();
    }

    fn on_closure_dropped(&self, place: JobPlace) {
        fault_or!("a_cancelled_job_keeps_its_permit": (); self.0.release_permit());
        if place == JobPlace::InQueue {
            self.0.queue.add_tombstone();
        }
    }

    fn on_not_run(&self, kind: OutcomeKind) {
        let shard = self.0.counters.current();
        if kind == OutcomeKind::Expired {
            shard.expired.increment();
        }
        shard.cancelled.increment_end();
    }

    fn observer(&self) -> Option<&Observer> {
        PoolInner::observer(&self.0)
    }

    fn on_published(&self, runner: Option<Runner>) {
        let pool = &**self.0;
        if !fault_or!(
            "a_finisher_overlooks_a_wait_for_idle": false; pool.idle_waiters().is_any())
        {
            return;
        }
        let wakers = pool.take_idle_wakers();
        if wakers.is_empty() {
            return;
        }
        if runner != Some(Runner::Executor) {
            return wake_all(wakers);
        }
        // The wakers are user code and may take their time.
        pool.while_unavailable(|| wake_all(wakers));
    }

    fn while_unavailable(&self, f: &mut dyn FnMut()) {
        self.0.while_unavailable(f);
    }

    fn is_stopping(&self) -> bool {
        PoolInner::is_stopping(&self.0)
    }

    fn pool(&self) -> Option<&PoolInner> {
        Some(&**self.0)
    }

    fn has_backlog(&self) -> bool {
        PoolInner::has_backlog(&self.0)
    }

    fn role(&self) -> Role {
        match self.0.current_worker().map(|worker| worker.phase) {
            Some(WorkerPhase::InLoop) if self.0.is_stateful() => Role::StatefulWorker,
            Some(WorkerPhase::InLoop) => Role::Worker,
            Some(WorkerPhase::Initializing) => Role::Initializing,
            Some(WorkerPhase::Exited) | None => Role::Outside,
        }
    }
}
