//! When a worker is notified or spawned, what happens when a spawn fails, and what a worker must do
//! before it blocks.

use std::io;

use crate::error::JoinError;
use crate::park::parker::{Deferred, Unparker};
use crate::pool::inner::PoolInner;
use crate::pool::registry::{WorkerSlot, WorkerThread};
use crate::pool::worker::worker_main;
use crate::task::context::Context;
use crate::util::fault::fault;
use crate::util::sync::{Arc, AtomicBool, Instant, Ordering, fence, thread};
use crate::util::unwind::{emit, wake_all};

/// Ensures that a worker will take a job that is in the queue: spawns one if the others have enough
/// to do, and notifies one if it is parked and none searches.
pub(crate) fn notify_work(pool: &Arc<PoolInner>) {
    // Ordering: the queue is written before the states of the workers are read: see `idle.rs`.
    fence(match fault!("a_weak_fence_after_a_submit") {
        true => Ordering::AcqRel,
        false => Ordering::SeqCst,
    });
    let workers = pool.registry().workers();
    if workers < pool.registry().max_workers() && pool.demand() > workers as u64 {
        spawn_worker(pool);
    }
    if !fault!("a_submit_notifies_nobody") {
        pool.idle().notify_one();
    }
    pool.blocked().unpark_one(workers);
}

/// Spawns a worker if one more is allowed and has something to do. It checks the queue first of all.
fn spawn_worker(pool: &Arc<PoolInner>) {
    let Some(slot) = pool.registry().reserve(|| pool.demand()) else {
        return;
    };
    let worker = slot.worker;
    match spawn_thread(pool, slot) {
        Ok(thread) => {
            pool.registry().spawned(worker, thread);
            pool.check_termination();
        }
        Err((error, slot)) => spawn_failed(pool, error, &slot),
    }
}

fn spawn_thread(
    pool: &Arc<PoolInner>,
    slot: WorkerSlot,
) -> Result<WorkerThread, (io::Error, WorkerSlot)> {
    let config = pool.config();
    let name = format!("{}-{}", config.thread_name_prefix, slot.name);
    let mut builder = thread::Builder::new().name(name);
    if let Some(size) = config.stack_size {
        builder = builder.stack_size(size);
    }
    let WorkerSlot { worker, name } = slot;
    let pool = Arc::clone(pool);
    let tls_dropped = Arc::new(AtomicBool::new(false));
    let flag = TlsDropFlag(Arc::clone(&tls_dropped));
    let main = move || {
        // The context is the first thread-local of this thread with a destructor, and so the last
        // one that is dropped.
        Context::with(|context| context.tls_drop_flag.set(Some(flag)));
        worker_main(&pool, WorkerSlot { worker, name });
    };
    match builder.spawn(main) {
        Ok(thread) => Ok(WorkerThread {
            thread,
            tls_dropped,
        }),
        Err(error) => Err((error, WorkerSlot { worker, name })),
    }
}

/// Tells that the thread-locals of a worker are dropped.
pub(crate) struct TlsDropFlag(Arc<AtomicBool>);

impl Drop for TlsDropFlag {
    fn drop(&mut self) {
        // Ordering: pairs with the load in the registry.
        self.0.store(true, Ordering::Release);
    }
}

/// While a worker lives, the jobs wait for that one. Without any, no thread would ever come.
fn spawn_failed(pool: &Arc<PoolInner>, error: io::Error, slot: &WorkerSlot) {
    pool.counters().spawn_failed();
    let error = Arc::new(error);
    if pool.registry().spawn_failed(slot) {
        // A job that is submitted from now on tries to spawn a worker itself.
        pool.refuse_queued(&JoinError::spawn_failed(Arc::clone(&error)));
    }
    worker_lost(pool);
    pool.check_termination();
    let name = &pool.config().thread_name_prefix;
    emit(|| {
        tracing::warn!(pool = %name, error = %error, "failed to spawn a worker thread: {error}");
    });
}

/// All workers may be blocked: returns what one that is awake must do about it, and when.
fn check_stall(pool: &Arc<PoolInner>) -> Option<Deferred> {
    if !pool.blocked().all_blocked(pool.registry().workers()) {
        return None;
    }
    if let Some(at) = pool.registry().spawn_allowed_at(|| pool.demand()) {
        return Some(Deferred::SpawnWorker(at));
    }
    if !pool.has_queued() || fault!("a_stall_is_not_probed") {
        return None;
    }
    Some(Deferred::Probe(pool.blocked().probe_due(pool.progress())))
}

/// A worker can no longer be counted on.
pub(crate) fn worker_lost(pool: &Arc<PoolInner>) {
    if check_stall(pool).is_some() {
        // No other event may come in time, so one of the blocked workers must check again.
        pool.blocked().unpark_one(pool.registry().workers());
    }
}

impl PoolInner {
    /// A worker of this pool is about to park for as long as it takes. Returns what it must be awake
    /// for, and when.
    pub(crate) fn before_block(self: &Arc<Self>, unparker: &Arc<Unparker>) -> Option<Deferred> {
        self.blocked().enter(unparker);
        let deferred = check_stall(self);
        if deferred.is_some() {
            self.blocked().mark_timed(unparker);
        }
        deferred
    }

    /// The worker is awake.
    pub(crate) fn after_block(&self, unparker: &Arc<Unparker>) {
        self.blocked().leave(unparker);
    }

    /// Does what was due. User code may run in it, so the worker does it while it is awake.
    pub(crate) fn run_deferred(self: &Arc<Self>, deferred: Deferred) {
        match deferred {
            Deferred::SpawnWorker(_) => spawn_worker(self),
            Deferred::Probe(_) => self.probe(),
        }
    }

    /// Looks for a blocked worker that waits for a queued job: see `blocked.rs`.
    fn probe(&self) {
        let start = Instant::now();
        let Some(batch) = self.blocked().begin_probe(self.progress()) else {
            return;
        };
        let mut wakers = self.blocked().candidate_wakers(batch);
        let mut whole_queue = false;
        if wakers.is_empty() {
            wakers = self.queued_wakers(batch);
            whole_queue = wakers.len() < batch;
        }
        wake_all(wakers);
        self.blocked().end_probe(start, whole_queue);
    }
}
