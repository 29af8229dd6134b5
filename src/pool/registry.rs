//! How many threads there are, who they are, and who waits until they are gone.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::mem;
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::task::context::Badge;
use crate::util::sync::thread::JoinHandle;
use crate::util::sync::{Arc, AtomicBool, AtomicUsize, Condvar, Instant, Mutex, Ordering, wait_on};
use crate::util::unwind::{catch_panic, drop_catching};

/// After a refusal, and while there are workers, the system is left alone for so long: every submit would ask again.
const RETRY_AFTER: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(crate) struct Roster {
    max_workers: usize,
    /// `Staff::workers`, to be read without the lock.
    workers: AtomicUsize,
    /// Of them, those that have not come to their loop yet. Each counts itself out.
    starting: AtomicUsize,
    staff: Mutex<Staff>,
    /// Told when `joined` becomes `Done`.
    all_joined: Condvar,
}

#[derive(Debug, Default)]
struct Staff {
    /// Threads in their loop, on their way to it, or about to be started.
    workers: usize,
    /// The most there ever were.
    peak: usize,
    /// Numbers of workers, each used once.
    next_worker: u64,
    /// Numbers for names: the lowest that is free is used first, so they stay below `max_workers`.
    next_name: usize,
    free_names: BinaryHeap<Reverse<usize>>,
    /// Threads by their worker's number; `Starting` until who has started it comes back with it.
    threads: BTreeMap<u64, Member>,
    /// Threads that have left their loop and are to be joined: by one that leaves later, or at the end.
    gone: Vec<WorkerThread>,
    /// The system refused a thread; when to ask it again.
    retry_at: Option<Instant>,
    /// The last worker has left, and none will come.
    ended: bool,
    joined: Joined,
    waiting: BTreeMap<u64, Waiting>,
    next_waiting: u64,
}

#[derive(Debug)]
enum Member {
    Starting,
    Here(WorkerThread),
    /// Left its loop before who has started it came back.
    LeftEarly,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Joined {
    #[default]
    No,
    /// By one thread, outside the lock.
    Underway,
    Done,
}

#[derive(Debug)]
pub(crate) struct WorkerThread {
    pub(crate) thread: JoinHandle<()>,
    /// Its thread-locals are dropped, so that joining it takes no time. (Their destructors are foreign code, and may
    /// wait for one another.)
    pub(crate) emptied: Arc<AtomicBool>,
}

/// Someone who waits for the end.
#[derive(Debug)]
struct Waiting {
    waker: Waker,
    place: Place,
    /// The wait is over, although the end has not come: all workers wait.
    released: bool,
}

/// Where someone waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Outside,
    /// In a thread of this pool: in its loop, or (`None`) after it.
    Inside(Option<u64>),
}

/// What a wait has seen the end of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The last worker has left its loop.
    All,
    /// Every worker but those that wait, too: good enough inside.
    AllOthers,
}

/// A thread that may be started.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) worker: u64,
    pub(crate) name: usize,
}

impl Roster {
    pub(crate) fn new(max_workers: usize) -> Self {
        Self {
            max_workers,
            workers: AtomicUsize::new(0),
            starting: AtomicUsize::new(0),
            staff: Mutex::default(),
            all_joined: Condvar::new(),
        }
    }

    pub(crate) fn max_workers(&self) -> usize {
        self.max_workers
    }

    pub(crate) fn workers(&self) -> usize {
        self.workers.load(Ordering::SeqCst)
    }

    pub(crate) fn starting(&self) -> usize {
        self.starting.load(Ordering::Acquire)
    }

    fn set_workers(&self, staff: &mut Staff, workers: usize) {
        staff.workers = workers;
        staff.peak = staff.peak.max(workers);
        self.workers.store(workers, Ordering::SeqCst);
    }

    /// From when on [`open`](Self::open) would, if it would.
    pub(crate) fn may_open(&self, demand: impl FnOnce() -> u64) -> Option<Instant> {
        if self.workers() >= self.max_workers {
            return None;
        }
        let now = Instant::now();
        self.has_opening(&self.staff.lock(), now, demand)
    }

    fn has_opening(
        &self,
        staff: &Staff,
        now: Instant,
        demand: impl FnOnce() -> u64,
    ) -> Option<Instant> {
        let workers = staff.workers;
        if workers >= self.max_workers || demand() <= workers as u64 || staff.ended {
            return None;
        }
        let retry_at = staff.retry_at.filter(|_| workers > 0);
        Some(retry_at.map_or(now, |at| at.max(now)))
    }

    /// Counts one more worker, whose thread the caller then starts, outside the lock; unless there are enough for
    /// `demand`.
    pub(crate) fn open(&self, demand: impl FnOnce() -> u64) -> Option<Opening> {
        let now = Instant::now();
        let mut staff = self.staff.lock();
        if self.has_opening(&staff, now, demand) != Some(now) {
            return None;
        }
        let workers = staff.workers;
        self.set_workers(&mut staff, workers + 1);
        self.starting.fetch_add(1, Ordering::Release);
        staff.next_worker += 1;
        let worker = staff.next_worker;
        staff.threads.insert(worker, Member::Starting);
        let name = match staff.free_names.pop() {
            Some(Reverse(name)) => name,
            None => {
                staff.next_name += 1;
                staff.next_name - 1
            }
        };
        Some(Opening { worker, name })
    }

    /// The thread runs, or has left by now: to be followed by a review.
    pub(crate) fn opened(&self, worker: u64, thread: WorkerThread) {
        let mut staff = self.staff.lock();
        staff.retry_at = None;
        match staff.threads.remove(&worker) {
            Some(Member::LeftEarly) => staff.gone.push(thread),
            _ => {
                staff.threads.insert(worker, Member::Here(thread));
            }
        }
    }

    /// The system refused the thread: undoes [`open`](Self::open). Says whether there is no worker at all now.
    pub(crate) fn refused(&self, opening: &Opening) -> bool {
        let retry_at = Instant::now() + RETRY_AFTER;
        let mut staff = self.staff.lock();
        let workers = staff.workers - 1;
        self.set_workers(&mut staff, workers);
        self.starting.fetch_sub(1, Ordering::Release);
        staff.threads.remove(&opening.worker);
        staff.free_names.push(Reverse(opening.name));
        staff.retry_at = Some(retry_at);
        workers == 0
    }

    /// A worker has come to its loop, or to the end of its start.
    pub(crate) fn started(&self) {
        self.starting.fetch_sub(1, Ordering::Release);
    }

    /// A worker leaves its loop. Gives threads that left before it and are at their very end: they are to be joined,
    /// outside the lock.
    #[must_use]
    pub(crate) fn left(&self, opening: &Opening) -> Vec<WorkerThread> {
        let mut staff = self.staff.lock();
        let workers = staff.workers - 1;
        self.set_workers(&mut staff, workers);
        staff.free_names.push(Reverse(opening.name));
        let gone = mem::take(&mut staff.gone).into_iter();
        let (over, not_yet) = gone.partition(|gone| gone.emptied.load(Ordering::Acquire));
        staff.gone = not_yet;
        match staff.threads.remove(&opening.worker) {
            Some(Member::Here(thread)) => staff.gone.push(thread),
            _ => {
                staff.threads.insert(opening.worker, Member::LeftEarly);
            }
        }
        over
    }

    /// Whether those who wait can be told that they wait for nothing any more; `finished` says that the queue is shut
    /// and empty, and is to be asked *after* whatever may have been the last thing that they wait for. The wakers are to be called outside the lock.
    #[must_use]
    pub(crate) fn review_now(&self, finished: bool) -> Vec<Waker> {
        self.review(&mut self.staff.lock(), finished)
    }

    fn review(&self, staff: &mut Staff, finished: bool) -> Vec<Waker> {
        let unborn = |member: &Member| matches!(member, Member::Starting | Member::LeftEarly);
        if finished && staff.workers == 0 && !staff.threads.values().any(unborn) {
            staff.ended = true;
            return release(staff, |_| true);
        }
        let in_loop = |worker: &u64| {
            matches!(
                staff.threads.get(worker),
                Some(Member::Starting | Member::Here(_))
            )
        };
        let inside: BTreeSet<u64> = staff
            .waiting
            .values()
            .filter_map(|waiting| match waiting.place {
                Place::Inside(worker) => worker.filter(in_loop),
                Place::Outside => None,
            })
            .collect();
        if inside.len() == staff.workers {
            return release(staff, |place| place != Place::Outside);
        }
        Vec::new()
    }

    /// Waits for the last worker to leave its loop; inside, for every other one to leave or to wait, too.
    pub(crate) fn poll_end(
        &self,
        id: &mut Option<u64>,
        badge: Option<Badge>,
        waker: &Waker,
        finished: bool,
    ) -> Poll<End> {
        let place = badge.map_or(Place::Outside, |badge| Place::Inside(badge.worker));
        let waker = waker.clone();
        let mut staff = self.staff.lock();
        let number = *id.get_or_insert_with(|| {
            staff.next_waiting += 1;
            staff.next_waiting
        });
        // What ends a wait inside does not end it when it goes on outside.
        let released =
            place != Place::Outside && staff.waiting.get(&number).is_some_and(|w| w.released);
        // Without its waker, or the review would call that, too.
        let waiting = Waiting {
            waker: Waker::noop().clone(),
            place,
            released,
        };
        let replaced = staff.waiting.insert(number, waiting);
        let others = self.review(&mut staff, finished);
        let end = match staff.waiting[&number].released {
            _ if staff.ended => Some(End::All),
            true => Some(End::AllOthers),
            false => None,
        };
        let Some(end) = end else {
            if let Some(waiting) = staff.waiting.get_mut(&number) {
                waiting.waker = waker;
            }
            drop(staff);
            wake_all(others);
            drop_catching("a waker's destructor", replaced);
            return Poll::Pending;
        };
        staff.waiting.remove(&number);
        drop(staff);
        *id = None;
        wake_all(others);
        drop_catching("a waker's destructor", (waker, replaced));
        Poll::Ready(end)
    }

    /// Waits no more.
    pub(crate) fn forget(&self, id: u64) {
        let forgotten = self.staff.lock().waiting.remove(&id);
        if forgotten.is_some() {
            drop_catching("a waker's destructor", forgotten);
        }
    }

    /// How many workers there are, and how many there were at the most.
    pub(crate) fn head_count(&self) -> (usize, usize) {
        let staff = self.staff.lock();
        (staff.workers, staff.peak)
    }

    /// Waits until every thread is gone, thread-locals and all. To be called after the end, and not in a worker.
    pub(crate) fn join_threads(&self) {
        let mut staff = self.staff.lock();
        debug_assert!(staff.ended, "threads are joined before the end");
        while staff.joined == Joined::Underway {
            staff = wait_on(&self.all_joined, staff);
        }
        if staff.joined == Joined::Done {
            return;
        }
        staff.joined = Joined::Underway;
        let threads = mem::take(&mut staff.threads);
        let gone = mem::take(&mut staff.gone);
        drop(staff);
        let here = threads.into_values().filter_map(|member| match member {
            Member::Here(thread) => Some(thread),
            Member::Starting | Member::LeftEarly => None,
        });
        join_all(gone.into_iter().chain(here));
        self.staff.lock().joined = Joined::Done;
        self.all_joined.notify_all();
    }
}

fn release(staff: &mut Staff, whom: impl Fn(Place) -> bool) -> Vec<Waker> {
    let mut wakers = Vec::new();
    for waiting in staff.waiting.values_mut() {
        if whom(waiting.place) && !waiting.released {
            waiting.released = true;
            wakers.push(mem::replace(&mut waiting.waker, Waker::noop().clone()));
        }
    }
    wakers
}

/// A worker never unwinds, so there is no panic to be found in here.
pub(crate) fn join_all(threads: impl IntoIterator<Item = WorkerThread>) {
    for WorkerThread { thread, .. } in threads {
        let _ = thread.join();
    }
}

/// Calls wakers, outside locks.
pub(crate) fn wake_all(wakers: impl IntoIterator<Item = Waker>) {
    for waker in wakers {
        catch_panic("a waker", || waker.wake());
    }
}
