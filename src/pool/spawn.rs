//! When a worker is notified or spawned, what happens when a spawn fails, and what a worker must do
//! before it blocks.
//!
//! # When the system refuses a thread
//!
//! Without any worker the queued jobs are refused. Otherwise the pool carries on with the workers
//! that it has, and backs off: for 100 ms no spawn is tried. A job that is submitted meanwhile may
//! need a worker of its own, and no later event may come. So each failure registers a *retry* with
//! the timer, which spawns workers until there are enough for the demand, or until the next
//! failure. If the system refuses the timer thread, too, the threads that come by retry: see
//! `util/timer.rs`.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Weak;
use std::task::{Wake, Waker};

use crate::error::JoinError;
use crate::park::parker::{Deferred, Unparker};
use crate::park::wait_graph::recheck;
use crate::pool::auto_size::AutoSizer;
use crate::pool::inner::{PoolInner, refuse_mail};
use crate::pool::registry::{SpawnFailed, WorkerSlot, WorkerThread};
use crate::pool::worker::worker_main;
use crate::task::context::Context;
use crate::util::fault::fault_or;
use crate::util::sync::{Arc, AtomicBool, Instant, Ordering, fence, thread};
use crate::util::timer;
use crate::util::unwind::{emit, wake_all};

/// Ensures that a worker will take a job that is in the queue:
///
/// 1. If there is more to do than workers, and fewer than `max_workers`, it spawns a worker.
/// 2. If no worker searches and one is parked, it notifies that one.
/// 3. If all workers are blocked and none wakes up by itself, it unparks one, which checks again.
pub(crate) fn notify_work(pool: &Arc<PoolInner>) {
    // Ordering: the queue is written before the states of the workers are read: see `idle.rs`.
    fence(fault_or!("a_weak_fence_after_a_submit": Ordering::AcqRel; Ordering::SeqCst));
    let workers = pool.registry().workers();
    if workers < pool.registry().max_workers() && pool.demand() > workers as u64 {
        spawn_worker(pool);
    }
    fault_or!("a_submit_notifies_nobody": (); pool.idle().notify_one());
    pool.blocked().unpark_one(workers);
    timer::run_due_retries();
}

/// Spawns as many workers as are allowed and have something to do.
pub(crate) fn spawn_for_demand(pool: &Arc<PoolInner>) {
    while spawn_worker(pool) {}
}

/// Spawns a worker if one more is allowed and has something to do. It runs the initializer, then
/// checks the queue before it parks, so it needs no notification. Returns whether it spawned one.
fn spawn_worker(pool: &Arc<PoolInner>) -> bool {
    spawn_worker_for(pool, || pool.demand())
}

fn spawn_worker_for(pool: &Arc<PoolInner>, demand: impl FnOnce() -> u64) -> bool {
    let Some(slot) = pool.registry().reserve(demand) else {
        return false;
    };
    let worker = slot.worker;
    match spawn_thread(pool, slot) {
        Ok(thread) => {
            pool.registry().spawned(worker, thread);
            pool.check_termination();
            true
        }
        Err((error, slot)) => {
            spawn_failed(pool, error, &slot);
            false
        }
    }
}

/// Spawns as many workers as are missing now to `workers`, or as are allowed.
pub(crate) fn prestart(pool: &Arc<PoolInner>, workers: usize) {
    // Counted once: with a short `keep_alive`, those that were spawned first may exit meanwhile.
    for _ in pool.registry().workers()..workers {
        if pool.closed().is_some() || !spawn_worker_for(pool, || workers as u64) {
            return;
        }
    }
}

/// Calls [`retry_spawn`] at its time. The timer does not keep the pool alive.
struct RetryWaker(Weak<PoolInner>);

impl Wake for RetryWaker {
    fn wake(self: Arc<Self>) {
        if let Some(pool) = self.0.upgrade() {
            retry_spawn(&pool);
        }
    }
}

fn register_retry(pool: &Arc<PoolInner>, at: Instant) {
    let waker = Waker::from(Arc::new(RetryWaker(Arc::downgrade(pool))));
    timer::retry_at(at, waker);
}

fn retry_spawn(pool: &Arc<PoolInner>) {
    match pool.registry().retry_is_due() {
        Some(later) => register_retry(pool, later),
        // Several jobs may have been left without a worker. A failure registers the next retry.
        None => spawn_for_demand(pool),
    }
}

fn spawn_thread(
    pool: &Arc<PoolInner>,
    slot: WorkerSlot,
) -> Result<WorkerThread, (io::Error, WorkerSlot)> {
    let config = pool.config();
    let mut builder = thread::Builder::new().name(config.thread_name(slot.name_index));
    if let Some(size) = config.stack_size {
        builder = builder.stack_size(size);
    }
    let for_worker = slot.clone();
    let pool = Arc::clone(pool);
    let tls_dropped = Arc::new(AtomicBool::new(false));
    let flag = TlsDropFlag(Arc::clone(&tls_dropped));
    let main = move || {
        // The context is the first thread-local of this thread with a destructor, and so the last
        // one that is dropped where std drops them in reverse order. Elsewhere a worker that exits
        // may wait a little longer for the threads that it joins.
        Context::with(|context| context.tls_drop_flag.set(Some(flag)));
        worker_main(&pool, for_worker);
    };
    match builder.spawn(main) {
        Ok(thread) => Ok(WorkerThread {
            thread,
            tls_dropped,
        }),
        Err(error) => Err((error, slot)),
    }
}

/// Signals that the thread-locals of a worker are dropped.
pub(crate) struct TlsDropFlag(Arc<AtomicBool>);

impl Drop for TlsDropFlag {
    fn drop(&mut self) {
        // Ordering: pairs with the load in the registry.
        self.0.store(true, Ordering::Release);
    }
}

/// If another worker exists, it will run the jobs. Otherwise nothing will, so they are refused.
fn spawn_failed(pool: &Arc<PoolInner>, error: io::Error, slot: &WorkerSlot) {
    pool.counters().spawn_failed();
    let error = Arc::new(match pool.config().stack_size {
        Some(size) => with_stack_size(error, size),
        None => error,
    });
    let refusal = JoinError::spawn_failed(Arc::clone(&error));
    match pool.registry().spawn_failed(slot) {
        SpawnFailed::NoWorker => {
            // A job that is submitted from now on tries to spawn a worker itself.
            pool.refuse_queued(&refusal);
        }
        SpawnFailed::RegisterRetry(at) => register_retry(pool, at),
        SpawnFailed::RetryIsRegistered => {}
    }
    refuse_mail(pool.take_mail(slot), &refusal);
    worker_lost(pool);
    recheck();
    pool.check_termination();
    let name = &pool.config().thread_name_prefix;
    emit(|| {
        tracing::warn!(pool = %name, error = %error, "failed to spawn a worker thread: {error}");
    });
    #[cfg(feature = "console")]
    crate::console::registry::spawn_failed(pool, &error);
}

/// The system's error does not say that it is the stack which is too large.
fn with_stack_size(error: io::Error, size: usize) -> io::Error {
    io::Error::new(error.kind(), StackSizeError { error, size })
}

#[derive(Debug)]
struct StackSizeError {
    error: io::Error,
    size: usize,
}

impl fmt::Display for StackSizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { error, size } = self;
        write!(f, "{error} (with a stack size of {size} bytes)")
    }
}

impl Error for StackSizeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.error)
    }
}

/// If all workers are blocked: returns what one of them must wake up for, and when.
fn check_stall(pool: &Arc<PoolInner>) -> Option<Deferred> {
    if !pool.blocked().all_blocked(pool.registry().workers()) {
        return None;
    }
    let spawn_at = pool.registry().spawn_allowed_at(|| pool.demand());
    if let Some(at) = spawn_at.filter(|at| *at <= Instant::now()) {
        return Some(Deferred::SpawnWorker(at));
    }
    // While a failed spawn backs off no worker can be added, so a blocked one may have to help. A
    // worker of a stateful pool does not. But if its `block_on` waits for a queued job that was
    // polled elsewhere, the wait graph knows that only after another poll, which the probe causes.
    let is_probed = fault_or!("a_stall_is_not_probed": false; pool.has_queued_hint());
    let probe_at = is_probed.then(|| pool.blocked().probe_due(pool.counters().started()));
    match (spawn_at, probe_at) {
        (Some(at), None) => Some(Deferred::SpawnWorker(at)),
        (Some(at), Some(probe_at)) if at < probe_at => Some(Deferred::SpawnWorker(at)),
        (_, probe_at) => probe_at.map(Deferred::Probe),
    }
}

/// A worker can no longer be counted on.
fn worker_lost(pool: &Arc<PoolInner>) {
    if check_stall(pool).is_some() {
        // No other event may come in time, so one of the blocked workers must check again.
        pool.blocked().unpark_one(pool.registry().workers());
    }
}

impl PoolInner {
    /// Returns whether a worker may take a queued job although `stuck` of them never will: another
    /// one, or one that may be spawned now, or that a pool which sizes itself may add. A plain pool
    /// may also spawn one after a back-off.
    pub(crate) fn can_take_job(&self, stuck: usize, now: Instant) -> bool {
        let registry = self.registry();
        let allowed = registry.max_workers() as u64;
        // While there are more workers than it allows, it waits until some have exited, and these
        // never will.
        let may_grow =
            |sizer: &AutoSizer| registry.workers() as u64 <= allowed && allowed < sizer.max();
        // Lock order: the graph, then the state of the sizer.
        if self.auto_sizer().is_some_and(may_grow) {
            return true;
        }
        // After a back-off the system may have threads again.
        let by = self.is_stateful().then_some(now);
        let has_more = || registry.has_more_workers(stuck, now, by, || self.demand());
        has_more() || {
            // A job that was made for any executor is visible a moment before it is counted. The
            // thread that adds it holds a lock of the queue until then.
            let _ = self.has_queued();
            has_more()
        }
    }

    /// A worker of this pool is about to park for as long as it takes. Returns what it must wake
    /// up for, and when.
    pub(crate) fn before_block(self: &Arc<Self>, unparker: &Arc<Unparker>) -> Option<Deferred> {
        self.blocked().enter(unparker);
        let deferred = check_stall(self);
        if deferred.is_some() {
            self.blocked().mark_timed(unparker);
        }
        deferred
    }

    /// The worker is awake. Returns whether all workers were blocked until now.
    pub(crate) fn after_block(&self, unparker: &Arc<Unparker>) -> bool {
        self.blocked().leave(unparker, self.registry().workers())
    }

    /// Does what is due. This may run user code, so the worker is not in the list of blocked
    /// workers.
    pub(crate) fn run_deferred(self: &Arc<Self>, deferred: Deferred) {
        match deferred {
            Deferred::SpawnWorker(_) => {
                spawn_worker(self);
            }
            Deferred::Probe(_) => self.probe(),
        }
    }

    /// Looks for a blocked worker that waits for a queued job: see `blocked.rs`.
    fn probe(&self) {
        let start = Instant::now();
        let Some(batch) = self.blocked().begin_probe(self.counters().started()) else {
            return;
        };
        let mut wakers = self.blocked().candidate_wakers(batch);
        let mut whole_queue = false;
        if wakers.is_empty() {
            wakers = self.queued_wakers(batch);
            whole_queue = wakers.len() < batch;
        }
        // A slow waker is no reason to probe less often.
        let took = Instant::now().saturating_duration_since(start);
        wake_all(wakers);
        self.blocked().end_probe(took, whole_queue);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::any::Any;
    use std::mem;

    use super::*;
    use crate::ThreadPool;

    #[test]
    fn a_pool_that_sizes_itself_may_have_more_workers_up_to_its_bound() {
        let make_state = || Ok(Box::new(()) as Box<dyn Any>);
        let stateful = ThreadPool::builder().make_state(Box::new(make_state));
        for builder in [ThreadPool::builder(), stateful] {
            let Ok(pool) = builder.auto_size(1..=5_000).build() else {
                // The system does not tell the CPU time of a thread.
                return;
            };
            let (pool, owner) = (pool.inner(), pool);
            let allowed = pool.registry().max_workers();
            let can_take_job = || pool.can_take_job(allowed, Instant::now());
            assert!(allowed < 5_000 && can_take_job());
            pool.registry().set_max_workers(5_000, || ());
            assert!(!can_take_job(), "no demand");
            // While there are too many workers, it does not grow.
            let _workers = [(); 2].map(|()| pool.registry().reserve(|| 9).unwrap());
            pool.registry().set_max_workers(1, || ());
            assert!(!pool.can_take_job(2, Instant::now()));
            // Dropping it would wait for workers that exist in its count alone.
            mem::forget(owner);
        }
    }
}
