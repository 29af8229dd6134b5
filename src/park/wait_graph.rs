//! The wait-for graph of jobs and threads: joins that wait for each other in a cycle are found when
//! the last of them is about to park.
//!
//! An edge leads from a job to the thread that runs it, and from a thread to the jobs that it waits
//! for. An edge also leads from a queued job that only one worker may run to that worker's thread:
//! the job waits for all jobs that the thread runs. Blocking would deadlock if a path leads back to
//! the thread that is about to block: everything on the path waits, and nothing else can end it.
//!
//! A thread is in the graph only while it is parked, and runs no user code then: so it is there at
//! most once. All changes and searches are made under one lock. So of the threads that close a
//! cycle one is the last, and sees the others. An entry may be out of date, because what its thread
//! waited for has just ended: no thread runs that job, so the path ends there.
//!
//! # Queued jobs
//!
//! A queued job waits for any of its pool's workers, which is no single edge. A worker that is
//! parked in the graph takes no job out of the queue before its wait ends. So threads that can
//! never go on are searched for ([`Search`]) whenever that may have become true:
//!
//! - A thread is about to park. The last one that does sees the others.
//! - A pool has lost a worker, the system has refused one, or fewer are allowed ([`recheck`]).
//!
//! The search errs on one side: what it does not know counts as able to go on.
//!
//! - A worker that is not in the graph will come back to its loop. That is true of one that has
//!   just been notified, that starts, or that is about to exit, which then calls [`recheck`]. It is
//!   also true of a worker of a plain pool that waits for any of several jobs, and of each wait
//!   with a timeout.
//! - A worker of a plain pool runs a queued job of its own pool itself, if it waits for it. The job
//!   may have reached the pool just now; then the worker is about to be woken.
//! - A pool has more workers to come while it may start one now, or may find by itself that it
//!   needs more.
//! - A plain pool also has them after the back-off that follows a failed spawn. A stateful pool is
//!   not given that time: its workers cannot run the job that they wait for, so the user hears of
//!   it at once.
//! - A queued job of a plain pool ends by itself if it has a deadline.

use std::collections::BTreeSet;
use std::mem;
use std::task::Waker;

use crate::error::Deadlock;
use crate::pool::PoolInner;
use crate::task::cell::RawTask;
use crate::task::context::{
    PoolWorker, StackFrame, ThreadId, address, current_pool_worker, running_stack,
};
use crate::task::state::Origin;
use crate::util::id_map::{IdHasher, IdMap};
use crate::util::sync::{Arc, Instant, Mutex, process_wide};
use crate::util::unwind::wake_all;

/// Where the jobs of a cycle were submitted: each waits for the next one, and the last for the
/// first.
pub(crate) type Cycle = Vec<Origin>;

type Graph = IdMap<ThreadId, BlockedThread>;

process_wide! {
    static WAIT_GRAPH: Mutex<Graph> = Mutex::new(IdMap::with_hasher(IdHasher::new()));
}

/// A thread that is parked.
struct BlockedThread {
    /// It waits for all of these, or for any.
    jobs: Vec<Arc<dyn RawTask>>,
    wait: Wait,
    /// The jobs that it runs, outermost first: each waits for the next one, and the last for
    /// `jobs`.
    stack: Vec<StackFrame>,
    /// The pool that it is a worker of, if it is one.
    worker: Option<PoolWorker>,
    /// Gives it the error. `None` once that was done.
    waker: Option<Waker>,
    /// Set by the thread that closed the cycle, or took the last worker, and chose this one to get
    /// the error.
    deadlock: Option<Deadlock>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// For one job, until the thread gets the error.
    Join,
    /// For any of several jobs. The thread may wait for other things, too, which the graph does not
    /// know.
    Any,
    /// For all jobs of a scope. With the error the thread cancels those that are queued, and waits
    /// for the others.
    Scope,
}

impl BlockedThread {
    /// What this thread is about to wait for.
    fn current(jobs: Vec<Arc<dyn RawTask>>, wait: Wait, waker: &Waker) -> (ThreadId, Self) {
        let own = Self {
            jobs,
            wait,
            stack: running_stack(),
            worker: current_pool_worker(),
            waker: Some(waker.clone()),
            deadlock: None,
        };
        (ThreadId::current(), own)
    }

    fn is_worker_of(&self, pool: &PoolInner) -> bool {
        let worker = self.worker.as_ref();
        worker.is_some_and(|worker| worker.pool == pool.id())
    }

    /// Returns whether it runs a queued job of `pool` itself, if it waits for it.
    fn helps(&self, pool: &PoolInner) -> bool {
        let worker = self.worker.as_ref();
        worker.is_some_and(|worker| worker.pool == pool.id() && worker.helps)
    }

    /// Returns whether the error would end its wait.
    fn is_join(&self) -> bool {
        self.wait == Wait::Join && self.waker.is_some()
    }

    /// Returns the error of a `join` that is part of a cycle in which other threads wait for any of
    /// several jobs.
    fn cycle(&self) -> Option<Deadlock> {
        let [job] = &self.jobs[..] else {
            return None;
        };
        if !self.is_join() {
            return None;
        }
        let waiting = self.stack.last().map(|frame| frame.origin);
        let joined = job.state(|state| state.origin());
        Some(Deadlock::Cycle(
            waiting.into_iter().chain([joined]).collect(),
        ))
    }

    /// Returns the error of a wait that no worker will end.
    fn no_worker(&self, queued: &dyn RawTask) -> Deadlock {
        Deadlock::NoWorker {
            waiting: self.stack.last().map(|frame| frame.origin),
            queued: queued.state(|state| state.origin()),
        }
    }
}

/// Keeps this thread in the graph until it [leaves](Self::leave) or drops this.
#[must_use]
pub(crate) struct BlockedGuard {
    thread: ThreadId,
}

/// Returns the cycle in which `job` waits for itself, if this thread runs it already.
pub(crate) fn self_cycle(job: &dyn RawTask) -> Option<Cycle> {
    let runs_here = job.state(|state| state.running_thread()) == Some(ThreadId::current());
    runs_here.then(|| jobs_from(job, true, &running_stack()))
}

/// This thread is about to wait for `job`; `waker` can end that wait.
///
/// # Errors
///
/// Returns why the wait could never end.
pub(crate) fn enter_wait(job: Arc<dyn RawTask>, waker: &Waker) -> Result<BlockedGuard, Deadlock> {
    let entered = enter(BlockedThread::current(vec![job], Wait::Join, waker));
    entered.map_err(|(deadlock, _)| deadlock)
}

/// This worker of a stateful pool is about to wait for the first of some jobs of its pool, or for
/// something else; `waker` can end that wait.
///
/// # Errors
///
/// Returns why the wait could end only by something else.
pub(crate) fn enter_wait_for_any(
    jobs: Vec<Arc<dyn RawTask>>,
    waker: &Waker,
) -> Result<BlockedGuard, Deadlock> {
    let entered = enter(BlockedThread::current(jobs, Wait::Any, waker));
    entered.map_err(|(deadlock, _)| deadlock)
}

/// This thread is about to wait for all of `jobs`, which are those of a scope; `waker` wakes it.
///
/// # Errors
///
/// Returns the jobs, and why no worker can reach those of them that are queued.
pub(crate) fn enter_wait_for_scope(
    jobs: Vec<Arc<dyn RawTask>>,
    waker: &Waker,
) -> Result<BlockedGuard, Unreachable> {
    enter(BlockedThread::current(jobs, Wait::Scope, waker))
}

/// A deadlock, and the jobs that its thread waits for.
pub(crate) type Unreachable = (Deadlock, Vec<Arc<dyn RawTask>>);

fn enter((thread, own): (ThreadId, BlockedThread)) -> Result<BlockedGuard, Unreachable> {
    let mut wakers = Vec::new();
    let mut now = None;
    let mut graph = WAIT_GRAPH.lock();
    let deadlock = loop {
        let found = match own.wait {
            Wait::Join | Wait::Scope => find_cycle(&graph, thread, &own),
            Wait::Any => Found::QueuedJob,
        };
        let (chosen, deadlock) = match (found, now) {
            (Found::Nothing, _) => break None,
            (Found::Cycle(path), _) => {
                let is_join =
                    |thread: &&ThreadId| graph.get(thread).is_some_and(BlockedThread::is_join);
                // In each cycle a thread is in a `join`: the jobs of a scope start after the job
                // that waits at its end.
                let chosen = match own.is_join() {
                    true => Some(thread),
                    false => path.threads.iter().find(is_join).copied(),
                };
                (chosen, Deadlock::Cycle(path.into_cycle()))
            }
            (Found::QueuedJob, None) => {
                // Asking for the time is a system call.
                drop(graph);
                now = Some(Instant::now());
                graph = WAIT_GRAPH.lock();
                continue;
            }
            (Found::QueuedJob, Some(now)) => {
                let search = Search {
                    graph: &graph,
                    own: (thread, &own),
                    now,
                };
                let stuck = search.stuck();
                match stuck.and_then(|stuck| search.choose(&stuck)) {
                    Some((chosen, deadlock)) => (Some(chosen), deadlock),
                    None => break None,
                }
            }
        };
        match chosen {
            Some(chosen) if chosen == thread => break Some(deadlock),
            Some(chosen) => wakers.extend(end_with_error(&mut graph, chosen, deadlock)),
            None => break None,
        }
    };
    let entered = match deadlock {
        Some(deadlock) => Err((deadlock, own.jobs)),
        None => {
            // Under the lock that has found no deadlock, or another thread could close one in
            // between.
            let old = graph.insert(thread, own);
            debug_assert!(old.is_none(), "a thread is parked in one wait only");
            Ok(BlockedGuard { thread })
        }
    };
    drop(graph);
    wake_all(wakers);
    entered
}

/// Gives the error to a thread that is blocked. Returns its waker, to be woken outside the lock.
fn end_with_error(graph: &mut Graph, thread: ThreadId, deadlock: Deadlock) -> Option<Waker> {
    let blocked = graph.get_mut(&thread)?;
    blocked.deadlock = Some(deadlock);
    blocked.waker.take()
}

/// A pool has lost a worker, or could not spawn one: threads that wait for its queued jobs may now
/// wait without end. If so, one of them gets the error after the other.
pub(crate) fn recheck() {
    // A thread that enters the graph from here on looks itself. Asking for the time is a system
    // call.
    if WAIT_GRAPH.lock().is_empty() {
        return;
    }
    let now = Instant::now();
    let mut wakers = Vec::new();
    let mut graph = WAIT_GRAPH.lock();
    // In each deadlock that this could find, a thread waits for a queued job.
    let may_be_stuck = |blocked: &BlockedThread| {
        let mut jobs = blocked.jobs.iter();
        jobs.any(|job| {
            matches!(needs(&**job), Needs::WorkerOf(pool) if all_are_parked(pool, &graph, None))
        })
    };
    let threads: Vec<_> = graph
        .iter()
        .filter(|(_, blocked)| may_be_stuck(blocked))
        .map(|(thread, _)| *thread)
        .collect();
    for thread in threads {
        let Some(own) = graph.get(&thread).filter(|own| own.deadlock.is_none()) else {
            continue;
        };
        let search = Search {
            graph: &graph,
            own: (thread, own),
            now,
        };
        let chosen = search.stuck().and_then(|stuck| search.choose(&stuck));
        if let Some((chosen, deadlock)) = chosen {
            wakers.extend(end_with_error(&mut graph, chosen, deadlock));
        }
    }
    drop(graph);
    wake_all(wakers);
}

/// What a job that is waited for needs in order to end, as far as the graph can tell.
enum Needs<'a> {
    Nothing,
    /// The thread must go on. `is_running`: it runs or cancels the job, which otherwise is queued
    /// for it.
    Thread {
        thread: ThreadId,
        is_running: bool,
    },
    /// It is queued, and only a worker of the pool that does not wait can run it.
    WorkerOf(&'a PoolInner),
}

fn needs(job: &dyn RawTask) -> Needs<'_> {
    let scheduler = job.scheduler();
    let assigned = scheduler.assigned_thread();
    // Lock order: the graph, then a task.
    let (running, is_queued) = job.state(|state| (state.running_thread(), state.is_queued()));
    match (running, assigned) {
        (Some(thread), _) => Needs::Thread {
            thread,
            is_running: true,
        },
        (None, Some(thread)) if is_queued => Needs::Thread {
            thread,
            is_running: false,
        },
        (None, None) if is_queued => {
            let pool = scheduler.pool();
            pool.map_or(Needs::Nothing, Needs::WorkerOf)
        }
        (None, _) => Needs::Nothing,
    }
}

/// Returns whether all workers of `pool` are parked, with `own` if that is one. If not, a worker
/// will come back to its loop. One that has just exited may count as a worker, and then calls
/// [`recheck`].
fn all_are_parked(pool: &PoolInner, graph: &Graph, own: Option<&BlockedThread>) -> bool {
    let workers = pool.registry().workers();
    let parked = || {
        graph
            .values()
            .chain(own)
            .filter(|thread| thread.is_worker_of(pool))
    };
    workers <= graph.len() + 1 && workers <= parked().count()
}

/// Searches for threads that can never go on, where queued jobs are among what they wait for. Such
/// a job needs *any* worker, so a cycle alone is no deadlock: all workers of the pool must be
/// stuck, and no more may be spawned.
struct Search<'a> {
    graph: &'a Graph,
    /// The thread that the search is about, which may not be in the graph yet.
    own: (ThreadId, &'a BlockedThread),
    now: Instant,
}

impl<'a> Search<'a> {
    /// Returns what a thread waits for, if it is blocked. One that has its error is about to leave.
    fn get(&self, thread: ThreadId) -> Option<&'a BlockedThread> {
        let (own, blocked) = self.own;
        let blocked = match thread == own {
            true => Some(blocked),
            false => self.graph.get(&thread),
        };
        blocked.filter(|blocked| blocked.deadlock.is_none())
    }

    fn is_worker_of(&self, thread: ThreadId, pool: &PoolInner) -> bool {
        let blocked = self.get(thread);
        blocked.is_some_and(|blocked| blocked.is_worker_of(pool))
    }

    /// Returns the threads that can never go on, if the thread of this search is one of them.
    fn stuck(&self) -> Option<BTreeSet<ThreadId>> {
        let (own, _) = self.own;
        let mut stuck = self.reachable();
        // What remains is the largest set in which each thread waits for others of the set only.
        loop {
            let can_go_on: Vec<_> = stuck
                .iter()
                .copied()
                .filter(|thread| self.can_go_on(*thread, &stuck))
                .collect();
            if can_go_on.is_empty() {
                return Some(stuck);
            }
            for thread in can_go_on {
                stuck.remove(&thread);
            }
            if !stuck.contains(&own) {
                return None;
            }
        }
    }

    /// Returns the blocked threads that the thread of this search may depend on, itself included.
    fn reachable(&self) -> BTreeSet<ThreadId> {
        let (own, _) = self.own;
        let mut reachable = BTreeSet::from([own]);
        let mut open = vec![own];
        while let Some(blocked) = open.pop().and_then(|thread| self.get(thread)) {
            for job in &blocked.jobs {
                let mut add = |thread: ThreadId| {
                    if self.get(thread).is_some() && reachable.insert(thread) {
                        open.push(thread);
                    }
                };
                match needs(&**job) {
                    Needs::Nothing => {}
                    Needs::Thread { thread, .. } => add(thread),
                    Needs::WorkerOf(pool) => {
                        let threads = self.graph.keys().copied();
                        threads
                            .filter(|thread| self.is_worker_of(*thread, pool))
                            .for_each(add);
                    }
                }
            }
        }
        reachable
    }

    fn can_go_on(&self, thread: ThreadId, stuck: &BTreeSet<ThreadId>) -> bool {
        let Some(blocked) = self.get(thread) else {
            return true;
        };
        let mut jobs = blocked.jobs.iter();
        match blocked.wait {
            Wait::Join | Wait::Scope => jobs.all(|job| self.can_end(blocked, &**job, stuck)),
            Wait::Any => jobs.any(|job| self.can_end(blocked, &**job, stuck)),
        }
    }

    /// Returns whether `job` may end, for which the thread of `blocked` waits.
    fn can_end(
        &self,
        blocked: &BlockedThread,
        job: &dyn RawTask,
        stuck: &BTreeSet<ThreadId>,
    ) -> bool {
        match needs(job) {
            Needs::Nothing => true,
            Needs::Thread { thread, .. } => !stuck.contains(&thread),
            Needs::WorkerOf(pool) if blocked.helps(pool) => true,
            Needs::WorkerOf(pool) if !pool.is_stateful() && job.has_deadline() => true,
            Needs::WorkerOf(pool) => {
                let workers = stuck
                    .iter()
                    .filter(|thread| self.is_worker_of(**thread, pool));
                // Those that are not stuck come back to their loop, or are replaced.
                // Lock order: the graph, then a registry.
                pool.can_take_job(workers.count(), self.now)
                    // Invariant: it is still queued, and so was queued all the time. Otherwise a
                    // worker may have run it and exited in between.
                    || !job.state(|state| state.is_queued())
            }
        }
    }

    /// Chooses the thread that gets the error: in a `join` of a queued job if there is one, else in
    /// another `join`, and the thread of this search before the others.
    ///
    /// But a wait for any of several comes before the others: if that no longer waits for the job,
    /// it leaves the graph. The end of a scope comes last, since its jobs are lost.
    fn choose(&self, stuck: &BTreeSet<ThreadId>) -> Option<(ThreadId, Deadlock)> {
        let (own, _) = self.own;
        let threads = || {
            let threads = [own].into_iter().chain(stuck.iter().copied());
            threads.filter_map(|thread| Some((thread, self.get(thread)?)))
        };
        let with_queued_job = |(thread, blocked): (ThreadId, &BlockedThread)| {
            // Not each queued job of a scope is one that no worker can reach.
            let is_unreachable = |job: &&Arc<dyn RawTask>| {
                job.state(|state| state.is_queued()) && !self.can_end(blocked, &***job, stuck)
            };
            let queued = blocked.jobs.iter().find(is_unreachable)?;
            blocked.waker.as_ref()?;
            Some((thread, blocked.no_worker(&**queued)))
        };
        let for_queued_job = |wait| {
            let mut in_wait = threads().filter(move |(_, blocked)| blocked.wait == wait);
            in_wait.find_map(with_queued_job)
        };
        for_queued_job(Wait::Any)
            .or_else(|| for_queued_job(Wait::Join))
            .or_else(|| threads().find_map(|(thread, blocked)| Some((thread, blocked.cycle()?))))
            .or_else(|| for_queued_job(Wait::Scope))
    }
}

/// The path from a job that a thread is about to wait for back to that thread.
#[derive(Default)]
struct Path {
    /// For each thread on the path, the jobs that wait for each other there. The last thread is the
    /// one that asks.
    jobs: Vec<Vec<Origin>>,
    /// The threads, except the last.
    threads: Vec<ThreadId>,
}

impl Path {
    fn into_cycle(mut self) -> Cycle {
        // The cycle begins with the job that closes it.
        self.jobs.rotate_right(1);
        self.jobs.concat()
    }
}

/// Returns `job` and the jobs above it on the stack of its thread. A job that is not running is
/// below all of them.
fn jobs_from(job: &dyn RawTask, is_running: bool, stack: &[StackFrame]) -> Vec<Origin> {
    if !is_running {
        let origin = job.state(|state| state.origin());
        return [origin]
            .into_iter()
            .chain(stack.iter().map(|frame| frame.origin))
            .collect();
    }
    let task = address(job);
    let above = stack.iter().skip_while(|frame| frame.task != task);
    let jobs: Vec<_> = above.map(|frame| frame.origin).collect();
    match jobs.is_empty() {
        // The thread does not run the job but cancels it.
        true => vec![job.state(|state| state.origin())],
        false => jobs,
    }
}

/// What [`find_cycle`] has found.
enum Found {
    Nothing,
    Cycle(Path),
    /// No cycle. But a queued job is among what is waited for, and all workers of its pool are
    /// parked: see [`Search`].
    QueuedJob,
}

/// Searches depth first, with a stack of its own: a chain of waits may be long.
fn find_cycle(graph: &Graph, own: ThreadId, wait: &BlockedThread) -> Found {
    // (depth, job): `path` holds what is known of the way up to `depth`.
    let mut open: Vec<(usize, &dyn RawTask)> = wait.jobs.iter().map(|job| (0, &**job)).collect();
    // Sorted.
    let mut seen = Vec::new();
    let mut path = Path::default();
    let mut found = Found::Nothing;
    // The last pool, and whether all of its workers are parked: most jobs of a scope are in one
    // pool.
    let mut known = None;
    while let Some((depth, job)) = open.pop() {
        path.jobs.truncate(depth);
        path.threads.truncate(depth);
        let (thread, is_running) = match needs(job) {
            Needs::Thread { thread, is_running } => (thread, is_running),
            Needs::WorkerOf(pool) => {
                let all_parked = match known {
                    Some((id, all_parked)) if id == pool.id() => all_parked,
                    _ => all_are_parked(pool, graph, Some(wait)),
                };
                known = Some((pool.id(), all_parked));
                if all_parked {
                    found = Found::QueuedJob;
                }
                continue;
            }
            Needs::Nothing => continue,
        };
        if thread == own {
            path.jobs.push(jobs_from(job, is_running, &wait.stack));
            return Found::Cycle(path);
        }
        let Some(next) = graph.get(&thread) else {
            continue;
        };
        // A thread that has its error is about to leave.
        if next.deadlock.is_some() {
            continue;
        }
        if next.wait == Wait::Any {
            found = Found::QueuedJob;
            continue;
        }
        let Err(place) = seen.binary_search(&thread) else {
            continue;
        };
        seen.insert(place, thread);
        path.jobs.push(jobs_from(job, is_running, &next.stack));
        path.threads.push(thread);
        open.extend(next.jobs.iter().map(|job| (depth + 1, &**job)));
    }
    found
}

impl BlockedGuard {
    /// This thread is awake. Returns why its wait could never have ended, if it must end because of
    /// that.
    pub(crate) fn leave(self) -> Option<Deadlock> {
        let (deadlock, _) = self.leave_scope()?;
        Some(deadlock)
    }

    /// This thread is awake. Returns the jobs that it has waited for, and why no worker can reach
    /// those that are queued, if that was found.
    pub(crate) fn leave_scope(self) -> Option<Unreachable> {
        let blocked = self.remove();
        mem::forget(self);
        let BlockedThread { deadlock, jobs, .. } = blocked?;
        Some((deadlock?, jobs))
    }

    fn remove(&self) -> Option<BlockedThread> {
        WAIT_GRAPH.lock().remove(&self.thread)
    }
}

impl Drop for BlockedGuard {
    fn drop(&mut self) {
        let blocked = self.remove();
        drop(blocked);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::any::Any;
    use std::thread;

    use super::*;
    use crate::task::context::{WorkerPhase, set_current_pool};
    use crate::task::join_handle::JoinHandle;
    use crate::{ThreadPool, ThreadPoolBuilder};

    fn stateful() -> ThreadPoolBuilder {
        let make_state = || Ok(Box::new(()) as Box<dyn Any>);
        ThreadPool::builder().make_state(Box::new(make_state))
    }

    /// Makes this thread a worker of `pool`, which is counted already.
    fn become_worker(pool: &ThreadPool) {
        let inner = pool.inner();
        inner.set_phase(WorkerPhase::InLoop);
        let mailbox = crate::pool::control::Mailbox::new();
        set_current_pool(Some((inner, mailbox)));
    }

    /// Drops a pool whose workers exist in its count alone.
    fn give_up(pool: ThreadPool) {
        pool.shutdown_now();
        // A worker does not wait for the others.
        become_worker(&pool);
        drop(pool);
        set_current_pool(None);
    }

    /// Returns the error that a wait for `job` would get now.
    fn error(job: &JoinHandle<()>) -> Option<Deadlock> {
        enter_wait(job.raw(), Waker::noop()).map(drop).err()
    }

    #[test]
    fn a_worker_of_a_plain_pool_that_waits_for_a_queued_job_of_its_own_is_about_to_run_it() {
        for (builder, phase, is_deadlock) in [
            (ThreadPool::builder(), WorkerPhase::InLoop, false),
            (ThreadPool::builder(), WorkerPhase::Initializing, true),
            (stateful(), WorkerPhase::InLoop, true),
        ] {
            let pool = builder.max_workers(1).build().unwrap();
            let _this = pool.inner().registry().reserve(|| 1).unwrap();
            let queued = pool.submit(|| ());
            become_worker(&pool);
            pool.inner().set_phase(phase);
            assert_eq!(error(&queued).is_some(), is_deadlock);
            give_up(pool);
        }
    }

    #[test]
    fn a_plain_pool_waits_for_the_end_of_a_back_off_and_a_stateful_one_does_not() {
        for (builder, is_stateful) in [(ThreadPool::builder(), false), (stateful(), true)] {
            let (own, other) = (ThreadPool::new(1), builder.max_workers(2).build().unwrap());
            let (own_pool, other_pool) = (own.inner(), other.inner());
            let registry = other_pool.registry();
            // This thread is the worker of one pool. That of the other one waits for a job that is
            // queued here, and the system has refused another one.
            let _this = own_pool.registry().reserve(|| 9).unwrap();
            let [_blocked, refused] = [(); 2].map(|()| registry.reserve(|| 9).unwrap());
            let here = own.submit(|| ());
            // As many as the pool would have workers for.
            let [there, _other] = [(); 2].map(|()| other.submit(|| ()));
            let _ = registry.spawn_failed(&refused);
            become_worker(&own);
            let blocked = thread::scope(|threads| {
                let enter = || {
                    become_worker(&other);
                    let entered = enter_wait(here.raw(), Waker::noop());
                    set_current_pool(None);
                    entered.expect("the worker of the first pool is awake")
                };
                threads.spawn(enter).join().unwrap()
            });
            assert_eq!(error(&there).is_some(), is_stateful);
            let allowed_at = registry.spawn_allowed_at(|| 9).unwrap();
            thread::sleep(allowed_at.saturating_duration_since(Instant::now()));
            assert_eq!(error(&there), None, "another worker may be spawned");
            registry.set_max_workers(1, || ());
            assert!(error(&there).is_some());
            drop(blocked);
            assert_eq!(error(&there), None, "the worker is awake");
            give_up(own);
            give_up(other);
        }
    }
}
