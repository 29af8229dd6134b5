//! The wait-for graph of jobs and threads: joins that wait for each other in a cycle are found when
//! the last of them is about to park.
//!
//! An edge leads from a job to the thread that runs it, and from a thread to the jobs that it waits
//! for. An edge also leads from a queued job that only one worker may run to that worker's thread: the
//! job waits for all jobs that the thread runs. Blocking would deadlock if a path leads back to the thread that is about to block:
//! everything on the path waits, and nothing else can end it.
//!
//! A thread is in the graph only while it is parked, and runs no user code then: so it is there at
//! most once. All changes and searches are made under one lock. So of the threads that close a
//! cycle one is the last, and sees the others. An entry may be out of date, because what its thread
//! waited for has just ended: no thread runs that job, so the path ends there.

use std::mem;
use std::task::Waker;

use crate::task::cell::RawTask;
use crate::task::context::{StackFrame, ThreadId, address, running_stack};
use crate::task::state::Origin;
use crate::util::fault::fault_or;
use crate::util::id_map::{IdHasher, IdMap};
use crate::util::sync::{Arc, Mutex, process_wide};
use crate::util::unwind::wake_all;

/// Where the jobs of a cycle were submitted: each waits for the next one, and the last for the
/// first.
pub(crate) type Cycle = Vec<Origin>;

process_wide! {
    static WAIT_GRAPH: Mutex<IdMap<ThreadId, BlockedThread>> =
        Mutex::new(IdMap::with_hasher(IdHasher::new()));
}

/// A thread that is parked.
struct BlockedThread {
    /// It waits for all of these.
    jobs: Vec<Arc<dyn RawTask>>,
    /// The jobs that it runs, outermost first: each waits for the next one, and the last for `jobs`.
    stack: Vec<StackFrame>,
    /// Ends its wait with the error. `None` if that is impossible, or was done.
    waker: Option<Waker>,
    /// Set by the thread that closed the cycle and chose this one to get the error.
    cycle: Option<Cycle>,
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
/// Returns the cycle that the wait would close.
pub(crate) fn enter_wait(job: Arc<dyn RawTask>, waker: &Waker) -> Result<BlockedGuard, Cycle> {
    let own = BlockedThread {
        jobs: vec![job],
        stack: running_stack(),
        waker: Some(waker.clone()),
        cycle: None,
    };
    let thread = ThreadId::current();
    let mut graph = WAIT_GRAPH.lock();
    if let Some(path) = find_cycle(&graph, thread, &own) {
        drop(graph);
        return Err(path.into_cycle());
    }
    // Under the lock that has found no cycle, or another thread could close one in between.
    let old = graph.insert(thread, own);
    drop(graph);
    debug_assert!(old.is_none(), "a thread is parked in one wait only");
    Ok(BlockedGuard { thread })
}

/// This thread is about to wait for all of `jobs`, and nothing can end that wait early: for each
/// cycle that it closes, another thread on the cycle gets the error.
pub(crate) fn enter_wait_for_all(jobs: Vec<Arc<dyn RawTask>>) -> BlockedGuard {
    let own = BlockedThread {
        jobs,
        stack: running_stack(),
        waker: None,
        cycle: None,
    };
    let thread = ThreadId::current();
    let mut wakers = Vec::new();
    let mut graph = WAIT_GRAPH.lock();
    while let Some(path) = find_cycle(&graph, thread, &own) {
        let can_be_woken =
            |thread: &&ThreadId| graph.get(thread).is_some_and(|t| t.waker.is_some());
        let chosen = path.threads.iter().find(can_be_woken).copied();
        let Some(blocked) = chosen.and_then(|thread| graph.get_mut(&thread)) else {
            break;
        };
        wakers.extend(blocked.waker.take());
        blocked.cycle = Some(path.into_cycle());
    }
    let old = graph.insert(thread, own);
    drop(graph);
    debug_assert!(old.is_none(), "a thread is parked in one wait only");
    wake_all(wakers);
    BlockedGuard { thread }
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

/// Returns the thread that must go on for `job` to end, and whether it runs or cancels the job.
fn thread_of(job: &dyn RawTask) -> Option<(ThreadId, bool)> {
    let assigned = job.scheduler().assigned_thread();
    // Lock order: the graph, then a task.
    job.state(|state| match state.running_thread() {
        Some(thread) => Some((thread, true)),
        None => assigned
            .filter(|_| fault_or!("a_queued_job_waits_for_no_thread": false; state.is_queued()))
            .map(|thread| (thread, false)),
    })
}

/// Returns `job` and the jobs above it on the stack of its thread. A job that is not running is below
/// all of them.
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

/// Searches depth first, with a stack of its own: a chain of waits may be long.
fn find_cycle(
    graph: &IdMap<ThreadId, BlockedThread>,
    own: ThreadId,
    wait: &BlockedThread,
) -> Option<Path> {
    // (depth, job): `path` holds what is known of the way up to `depth`.
    let mut open: Vec<(usize, &dyn RawTask)> = wait.jobs.iter().map(|job| (0, &**job)).collect();
    // Sorted.
    let mut seen = Vec::new();
    let mut path = Path::default();
    while let Some((depth, job)) = open.pop() {
        path.jobs.truncate(depth);
        path.threads.truncate(depth);
        let Some((thread, is_running)) = thread_of(job) else {
            continue;
        };
        if thread == own {
            path.jobs.push(jobs_from(job, is_running, &wait.stack));
            return Some(path);
        }
        let Some(next) = graph.get(&thread) else {
            continue;
        };
        // A thread that has its error is about to leave.
        if next.cycle.is_some() {
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
    None
}

impl BlockedGuard {
    /// This thread is awake. Returns the cycle that another thread has closed, if this wait must
    /// end because of it.
    pub(crate) fn leave(self) -> Option<Cycle> {
        let blocked = self.remove();
        mem::forget(self);
        blocked.and_then(|mut blocked| blocked.cycle.take())
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
