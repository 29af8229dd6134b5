//! The worker's loop: take a job, run it, repeat.

use crate::error::JoinError;
use crate::park::wait_graph::recheck;
use crate::pool::auto_size::{self, Probe};
use crate::pool::control::{Inbox, Instruction};
use crate::pool::idle::{SleepSlot, WakeReason};
use crate::pool::inner::{PoolInner, refuse_mail};
use crate::pool::metrics::current_shard;
use crate::pool::queue::PopOrder;
use crate::pool::registry::{WorkerSlot, join_all};
use crate::pool::spawn::notify_work;
use crate::pool::worker_state::drop_state;
use crate::task::context::{
    Context, WorkerId, WorkerPhase, set_current_pool, set_current_worker, set_worker_index,
};
use crate::task::job::Job;
use crate::util::fault::fault_or;
use crate::util::spin::AdaptiveSpin;
use crate::util::sync::{Arc, Instant, Ordering, fence};
use crate::util::timer;
use crate::util::unwind::{catch_panic, emit};

/// What the workers of a pool do besides running jobs: each may own something that the jobs use.
#[cfg(feature = "process")]
pub(crate) trait WorkerHooks: Send + Sync {
    /// Runs before the first job.
    fn started(&self, pool: &Arc<PoolInner>);
    /// Runs after each job. The worker counts as idle.
    fn between_jobs(&self, pool: &Arc<PoolInner>);
    /// Runs after the last job, while the worker still counts.
    fn ending(&self, pool: &Arc<PoolInner>);
}

#[cfg(feature = "process")]
fn call_hook(pool: &PoolInner, hook: impl FnOnce(&dyn WorkerHooks)) {
    if let Some(hooks) = &pool.config().hooks {
        catch_panic("a hook of a worker", || hook(&**hooks));
    }
}

/// The life of a worker.
pub(crate) fn worker_main(pool: &Arc<PoolInner>, slot: WorkerSlot) {
    let mailbox = Arc::clone(&slot.mailbox);
    mailbox.set_thread();
    let inbox = Inbox::new(slot.worker, Arc::clone(&mailbox));
    let index = slot.name_index;
    let name = &pool.config().thread_name_prefix;
    let guard = ExitGuard { pool, slot };
    set_worker_index(index);
    pool.set_phase(WorkerPhase::Initializing);
    set_current_pool(Some((Arc::clone(pool), mailbox)));
    #[cfg(feature = "console")]
    pool.watch().attach(index);
    emit(|| tracing::debug!(pool = %name, worker = index, "a worker starts"));
    #[cfg(feature = "tokio")]
    let _runtime = pool.config().runtime.as_ref().map(|handle| handle.enter());
    let initialized = pool.config().initialize();
    pool.registry().ready();
    let mut on_exit = None;
    match initialized {
        Ok(()) => {
            pool.set_phase(WorkerPhase::InLoop);
            #[cfg(feature = "console")]
            pool.watch().in_loop(index);
            #[cfg(feature = "process")]
            call_hook(pool, |hooks| hooks.started(pool));
            worker_loop(pool, inbox);
            #[cfg(feature = "process")]
            call_hook(pool, |hooks| hooks.ending(pool));
            on_exit = pool.config().on_exit.as_ref();
        }
        // Not in its loop: destructors of refused jobs must not run other jobs on this thread.
        Err(cause) => pool.mark_broken(Arc::new(cause)),
    }
    // Before the hook and the event, which are user code: while that runs, nothing may count on
    // this worker.
    drop(guard);
    if let Some(on_exit) = on_exit {
        catch_panic("the exit hook of a worker", on_exit);
    }
    emit(|| tracing::debug!(pool = %name, worker = index, "a worker ends"));
}

impl PoolInner {
    /// Sets what this worker does.
    pub(crate) fn set_phase(&self, phase: WorkerPhase) {
        let pool = self.id();
        set_current_worker(WorkerId { pool, phase });
    }
}

pub(crate) fn worker_loop(pool: &Arc<PoolInner>, mut inbox: Inbox) {
    let slot = SleepSlot::new();
    let spin = AdaptiveSpin::new();
    let mut order = PopOrder::new(current_shard());
    let mut after_pause = false;
    let mut probe = pool.auto_sizer().map(|sizer| sizer.enter());
    loop {
        let next = next_job(pool, &slot, &spin, &mut order, &mut inbox, &mut after_pause);
        match next {
            // It may have been cancelled, or run by a waiter, while it was queued.
            Next::Queued(job) => {
                if !run(pool, job, &mut probe, after_pause) {
                    pool.popped_tombstone();
                }
            }
            // Its tombstones are not counted.
            Next::Mailed(job) => {
                run(pool, job, &mut probe, after_pause);
            }
            Next::Exit => return,
        }
        #[cfg(feature = "process")]
        call_hook(pool, |hooks| hooks.between_jobs(pool));
    }
}

/// Runs a job. Returns false if it was not queued any longer. `probe` measures it, if there is one.
fn run(pool: &Arc<PoolInner>, job: Job, probe: &mut Option<Probe>, after_pause: bool) -> bool {
    let Some(probe) = probe else {
        return job.run_if_queued();
    };
    auto_size::job_starts(pool, probe, after_pause);
    let ran = job.run_if_queued();
    probe.end();
    ran
}

/// What a worker does next.
enum Next {
    /// Runs a job from the queue.
    Queued(Job),
    /// Runs a job from its mailbox.
    Mailed(Job),
    /// Leaves its loop. It is no longer a member of the pool.
    Exit,
}

/// Returns the next job, waiting for it if need be. Returns `Exit` if there will be none, if none
/// came for `keep_alive`, or if there are too many workers.
///
/// `after_pause`: whether the worker had to wait for the job. It is in the worker's [`Context`],
/// too, as is whether the worker searches: the end of a job reads the one and sets the other.
fn next_job(
    pool: &Arc<PoolInner>,
    slot: &Arc<SleepSlot>,
    spin: &AdaptiveSpin,
    order: &mut PopOrder,
    inbox: &mut Inbox,
    after_pause: &mut bool,
) -> Next {
    let until = |keep_alive| Instant::now().checked_add(keep_alive);
    let mut exit_at = None;
    let mut timed_out = false;
    // While jobs come without a pause, this function leaves the context alone.
    let mut searching = *after_pause && take_searching();
    // If the end of the last job found the queue empty, that is a pause, too.
    let mut paused = searching;
    loop {
        if inbox.has_news(pool) {
            let next = match inbox.read(pool) {
                Instruction::Exit => Some(Next::Exit),
                Instruction::Run(job) => Some(Next::Mailed(job)),
                Instruction::Nothing => None,
            };
            if let Some(next) = next {
                before_next(pool, searching, paused, after_pause);
                return next;
            }
        }
        let job = match pool.is_stateful() {
            true => {
                let (job, still_searching) = pool.pop_with_state(order, searching);
                searching = still_searching;
                job
            }
            false => pool.pop(order),
        };
        if let Some(job) = job {
            before_next(pool, searching, paused, after_pause);
            return Next::Queued(job);
        }
        paused = true;
        // `pop` found nothing, but a job may be on its way into the queue: only a closed queue,
        // checked under all locks, stays empty.
        if timed_out || pool.is_closed_and_empty() {
            if searching {
                pool.idle().stop_searching();
                searching = false;
            }
            if pool.registry().leave(inbox.worker()) {
                return Next::Exit;
            }
            // A job has come into the mailbox.
            timed_out = false;
            continue;
        }
        // One worker of the pool spins; the others park at once.
        searching = searching || pool.idle().try_start_searching();
        // What `control.rs` may have for this worker can wait until the spin is over.
        if searching && spin.spin(pool.config().spins_shortly(), || pool.has_queued_hint()) {
            continue;
        }
        pool.blocked().forget_candidates(|| !pool.has_queued_hint());
        if exit_at.is_none() {
            exit_at = pool.config().keep_alive.and_then(until);
        }
        let is_empty = || {
            let has_news = fault_or!(
                "a_parking_worker_overlooks_a_change": false; inbox.has_news(pool));
            !pool.has_queued_hint() && !has_news
        };
        let reason = pool.idle().park(slot, searching, exit_at, is_empty);
        searching = false;
        match reason {
            WakeReason::Notified => {
                searching = fault_or!("a_notified_worker_does_not_search": false; true);
            }
            // Rule 3 of `idle.rs`: as if it was notified, unless another worker searches, which
            // then sees the job.
            WakeReason::Retry => {
                let idle = pool.idle();
                searching = fault_or!(
                    "a_worker_that_retries_does_not_search": false; idle.try_start_searching());
            }
            // One last look, since a job may have come while it was removed from the list.
            WakeReason::TimedOut => timed_out = true,
        }
    }
}

/// The worker has found something to do, after a pause or not.
#[inline]
fn before_next(pool: &Arc<PoolInner>, searching: bool, paused: bool, after_pause: &mut bool) {
    if searching {
        pool.idle().stop_searching();
        // Rule 2 of `idle.rs`.
        let more = fault_or!(
            "a_searcher_that_finds_a_job_notifies_nobody": false; pool.has_queued_hint());
        if more {
            notify_work(pool);
        }
    }
    if paused != *after_pause {
        *after_pause = paused;
        Context::with(|context| context.after_pause.set(paused));
    }
    // Not while it counts as searching: this may run user code.
    timer::run_due_retries();
}

/// Takes over whether the end of the last job has made this worker the one that searches.
fn take_searching() -> bool {
    Context::with(|context| context.searching.take()).unwrap_or(false)
}

/// What must happen when a worker exits, however it does.
struct ExitGuard<'a> {
    pool: &'a Arc<PoolInner>,
    slot: WorkerSlot,
}

impl Drop for ExitGuard<'_> {
    fn drop(&mut self) {
        let Self { pool, slot } = self;
        let mail = pool.take_mail(slot);
        if !mail.is_empty() || pool.is_stateful() {
            // This runs user code on a worker that counts, since there must be no more states than
            // workers are allowed. In its loop, as far as joins can tell: no other worker may come
            // for the jobs that they wait for.
            pool.while_unavailable(|| {
                refuse_mail(mail, &JoinError::cancelled());
                drop_state();
            });
        }
        pool.set_phase(WorkerPhase::Exited);
        set_current_pool(None);
        // Before the number is free for another worker.
        #[cfg(feature = "console")]
        pool.watch().detach(slot.name_index);
        let _early = fault_or!("an_exiting_worker_checks_too_early": pool.has_queued(); true);
        let exited = pool.registry().exited(slot);
        // Ordering: the worker is no longer counted before the queue is read: see `idle.rs`. A job
        // may have come while it still was.
        fence(Ordering::SeqCst);
        let has_queued = fault_or!(
            "an_exiting_worker_checks_too_early": _early,
            "an_exiting_worker_does_not_check": false;
            pool.has_queued()
        );
        if has_queued {
            notify_work(pool);
            recheck();
        }
        fault_or!("an_exiting_worker_tells_nobody": (); pool.check_termination());
        join_all(exited);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::any::Any;
    use std::task::Waker;
    use std::thread;

    use super::*;
    use crate::ThreadPool;
    use crate::error::Deadlock;
    use crate::park::wait_graph::enter_wait;

    /// Without the look at the wait graph, the blocked worker would learn of it only when it wakes
    /// up for another reason.
    #[test]
    fn a_worker_that_exits_ends_a_wait_that_has_counted_on_it() {
        let make_state = || Ok(Box::new(()) as Box<dyn Any>);
        let builder = ThreadPool::builder().make_state(Box::new(make_state));
        let pool = builder.max_workers(2).build().unwrap();
        let inner = pool.inner();
        // This thread is the first worker.
        let [own, other] = [(); 2].map(|()| inner.registry().reserve(|| 2).unwrap());
        inner.registry().set_max_workers(1, || ());
        set_current_pool(Some((Arc::clone(&inner), Arc::clone(&own.mailbox))));
        inner.set_phase(WorkerPhase::InLoop);
        let queued = pool.submit(|| ());
        let blocked = enter_wait(queued.raw(), Waker::noop()).expect("there is another worker");
        thread::scope(|threads| {
            let exit = || {
                drop(ExitGuard {
                    pool: &inner,
                    slot: other,
                })
            };
            threads.spawn(exit).join().unwrap();
        });
        let deadlock = blocked.leave();
        assert!(
            matches!(deadlock, Some(Deadlock::NoWorker { .. })),
            "{deadlock:?}"
        );
        // Its successor runs the job.
        drop(ExitGuard {
            pool: &inner,
            slot: own,
        });
        queued.join().unwrap();
    }
}
