//! Jobs that wait for one another in a circle: found when the last of them is about to sleep.
//!
//! Every thread that runs a job and is about to sleep in a `join` (or at the end of a `scope`) says here what it waits
//! for. From a job one gets to the thread that runs it, from the thread to the jobs that it waits for, and so on. Who
//! gets back to the own thread that way would close a circle: everything on the way waits, and nothing else can end it.
//!
//! No foreign code runs in a thread while it is in the list, so it is there once at most. The list is changed and
//! searched under one lock, so of all who close a circle one is the last, and sees the others.
//! An entry may be out of date, if what its thread waited for has just ended; but then that job is run by nobody, and
//! the way ends there.

use std::collections::{BTreeMap, BTreeSet};
use std::task::Waker;

use crate::task::context::{OnStack, Origin, stack, thread_number};
use crate::util::fork::PerProcess;
use crate::util::sync::{Arc, Mutex, process_wide};

/// A job, as far as it can be waited for.
pub(crate) trait Node: Send + Sync {
    /// The number of the thread that runs it, while one does, callbacks included.
    fn runner(&self) -> Option<u64>;
    /// Whether it is not resolved yet.
    fn is_unfinished(&self) -> bool;
}

/// Where the jobs of a circle were submitted: each waits for the next one, and the last for the first.
pub(crate) type Circle = Vec<Origin>;

process_wide! {
    static SLEEPING: PerProcess<Mutex<BTreeMap<u64, Wait>>> = PerProcess::new(Mutex::default);
}

/// What a sleeping thread waits for.
struct Wait {
    /// All of these.
    jobs: Vec<Arc<dyn Node>>,
    /// The jobs that the thread runs, outermost first: each waits for the next one, and the last one for `jobs`.
    stack: Vec<OnStack>,
    /// How to tell it that it waits in a circle; `None` if there is no way to tell, or it was told.
    waker: Option<Waker>,
    verdict: Option<Circle>,
}

/// This thread is in the list, until this is dropped.
pub(crate) struct Entry {
    thread: u64,
}

/// If this thread runs `job` already, the circle in which that waits for itself.
pub(crate) fn of_own_thread(job: &dyn Node) -> Option<Circle> {
    (job.runner() == Some(thread_number())).then(|| from(job, &stack()))
}

/// This thread is about to wait for `job`, and can be told by `waker` that it does so in a circle.
///
/// # Errors
///
/// It would close a circle.
pub(crate) fn wait_for(job: Arc<dyn Node>, waker: &Waker) -> Result<Entry, Circle> {
    let own = Wait {
        jobs: vec![job],
        stack: stack(),
        waker: Some(waker.clone()),
        verdict: None,
    };
    let thread = thread_number();
    let mut sleeping = SLEEPING.get().lock();
    if let Some(way) = way_back(&sleeping, thread, &own) {
        drop(sleeping);
        return Err(way.circle());
    }
    let old = sleeping.insert(thread, own);
    drop(sleeping);
    debug_assert!(old.is_none(), "a thread sleeps in one wait only");
    Ok(Entry { thread })
}

/// This thread is about to wait for all of `jobs`, and nobody can tell it anything: in each circle that it closes
/// somebody else is told.
pub(crate) fn wait_for_all(jobs: Vec<Arc<dyn Node>>) -> Entry {
    let own = Wait {
        jobs,
        stack: stack(),
        waker: None,
        verdict: None,
    };
    let thread = thread_number();
    let mut wakers = Vec::new();
    let mut sleeping = SLEEPING.get().lock();
    while let Some(way) = way_back(&sleeping, thread, &own) {
        let can_be_told = |thread: &&u64| sleeping.get(thread).is_some_and(|w| w.waker.is_some());
        let told = way.threads.iter().find(can_be_told).copied();
        let Some(wait) = told.and_then(|thread| sleeping.get_mut(&thread)) else {
            break;
        };
        wakers.extend(wait.waker.take());
        wait.verdict = Some(way.circle());
    }
    let old = sleeping.insert(thread, own);
    drop(sleeping);
    debug_assert!(old.is_none(), "a thread sleeps in one wait only");
    // They are our own: they only unpark.
    wakers.into_iter().for_each(Waker::wake);
    Entry { thread }
}

/// The way from a job that somebody is about to wait for back to its own thread.
#[derive(Default)]
struct Way {
    /// For each thread on it, the jobs that wait for one another there. The last thread is the one that asks.
    jobs: Vec<Vec<Origin>>,
    /// The threads, but the last.
    threads: Vec<u64>,
}

impl Way {
    fn circle(mut self) -> Circle {
        // It begins with the one that closes it.
        self.jobs.rotate_right(1);
        self.jobs.concat()
    }
}

/// `job` and what waits above it, on the stack of its thread.
fn from(job: &dyn Node, stack: &[OnStack]) -> Vec<Origin> {
    let cell = std::ptr::from_ref(job).cast::<()>().addr();
    let above = stack.iter().skip_while(|on_stack| on_stack.cell != cell);
    above.map(|on_stack| on_stack.origin).collect()
}

/// Depth first, with a stack of our own: a chain may be long.
fn way_back(sleeping: &BTreeMap<u64, Wait>, own: u64, wait: &Wait) -> Option<Way> {
    // (depth, job): what is known of the way up to `depth` is in `way`.
    let mut open: Vec<(usize, &dyn Node)> = wait.jobs.iter().map(|job| (0, &**job)).collect();
    let mut seen = BTreeSet::new();
    let mut way = Way::default();
    while let Some((depth, job)) = open.pop() {
        way.jobs.truncate(depth);
        way.threads.truncate(depth);
        let Some(runner) = job.runner() else {
            continue;
        };
        if runner == own {
            way.jobs.push(from(job, &wait.stack));
            return Some(way);
        }
        let Some(next) = sleeping.get(&runner) else {
            continue;
        };
        // Told, so it is about to leave.
        if next.verdict.is_some() || !seen.insert(runner) {
            continue;
        }
        way.jobs.push(from(job, &next.stack));
        way.threads.push(runner);
        open.extend(next.jobs.iter().map(|job| (depth + 1, &**job)));
    }
    None
}

impl Entry {
    /// This thread is awake. A circle, if somebody has closed one and this wait is to end.
    pub(crate) fn leave(self) -> Option<Circle> {
        self.remove().and_then(|wait| wait.verdict)
    }

    fn remove(&self) -> Option<Wait> {
        SLEEPING.get().lock().remove(&self.thread)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.remove();
    }
}
