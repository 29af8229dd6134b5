//! The threads of a pool: how many there are, their names, and its termination.
//!
//! A worker is counted from [`Registry::reserve`] to [`Registry::exited`]. It is a *member* until
//! it decides to exit, which may be a little earlier: see `control.rs`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::mem;
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::pool::control::Mailbox;
use crate::util::fault::fault_or;
use crate::util::id_map::IdMap;
use crate::util::sync::thread::JoinHandle;
use crate::util::sync::{Arc, AtomicBool, AtomicUsize, Condvar, Instant, Mutex, Ordering, wait_on};
use crate::util::unwind::{drop_waker, wake_all};

/// The back-off after a failed spawn while a worker is alive. Without it every submit would retry.
const RETRY_AFTER: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(crate) struct Registry {
    /// Written under the lock of `inner`.
    max_workers: AtomicUsize,
    /// `Inner::workers`, to be read without the lock.
    workers: AtomicUsize,
    /// Those of the workers that have not reached their loop. Each counts itself out.
    starting: AtomicUsize,
    inner: Mutex<Inner>,
    /// Notified when `joined` becomes `Done`.
    all_joined: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    /// Threads in their loop, on their way to it, or about to be spawned.
    workers: usize,
    /// The highest value that `workers` ever had.
    peak: usize,
    /// The workers that have not decided to exit, by their numbers.
    members: BTreeMap<u64, Arc<Mailbox>>,
    /// Numbers of workers. Each is used once.
    next_worker: u64,
    /// Numbers in names. The lowest free one is used first, so they stay below `peak`.
    next_name: usize,
    free_names: BinaryHeap<Reverse<usize>>,
    /// Threads by their worker's number.
    threads: IdMap<u64, ThreadState>,
    /// Threads that have left their loop, to be joined by a worker that exits later, or at the end.
    exited_threads: Vec<WorkerThread>,
    /// The last spawn failed; when to try again.
    ///
    /// Invariant: while this is set, `retry_registered` is set, too. So a spawn that the back-off
    /// prevents is made up for.
    retry_at: Option<Instant>,
    /// The timer will retry, at `retry_at` or earlier.
    retry_registered: bool,
    /// The last worker has left, and no other will come.
    terminated: bool,
    joined: Joined,
    /// What waits for the termination.
    waiters: BTreeMap<u64, Waker>,
    next_waiter: u64,
}

#[derive(Debug)]
enum ThreadState {
    /// Until the thread that spawns it comes back with its handle.
    Starting,
    Running(WorkerThread),
    /// It left its loop before the thread that spawned it came back.
    ExitedEarly,
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
    /// Set when its thread-locals are dropped: joining it then takes no time. (Their destructors
    /// are user code, and may wait for each other.)
    pub(crate) tls_dropped: Arc<AtomicBool>,
}

/// A worker that is counted already; its thread must be spawned next.
#[derive(Debug, Clone)]
pub(crate) struct WorkerSlot {
    pub(crate) worker: u64,
    /// The number in the thread's name.
    pub(crate) name_index: usize,
    pub(crate) mailbox: Arc<Mailbox>,
}

/// What follows from a failed spawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum SpawnFailed {
    /// The pool has no worker now: the caller refuses what is queued.
    NoWorker,
    /// The caller registers a retry with the timer.
    RegisterRetry(Instant),
    /// The timer will retry already.
    RetryIsRegistered,
}

impl Registry {
    pub(crate) fn new(max_workers: usize) -> Self {
        Self {
            max_workers: AtomicUsize::new(max_workers),
            workers: AtomicUsize::new(0),
            starting: AtomicUsize::new(0),
            inner: Mutex::default(),
            all_joined: Condvar::new(),
        }
    }

    pub(crate) fn max_workers(&self) -> usize {
        // Ordering: a submitter has passed a fence since it wrote the queue: see
        // `PoolInner::resize`.
        self.max_workers.load(Ordering::SeqCst)
    }

    /// Sets the maximum. Returns how many workers must exit. `on_surplus` is called under the lock
    /// if there are any.
    pub(crate) fn set_max_workers(&self, max_workers: usize, on_surplus: impl FnOnce()) -> usize {
        let inner = self.inner.lock();
        self.max_workers.store(max_workers, Ordering::SeqCst);
        let surplus = inner.members.len().saturating_sub(max_workers);
        if surplus > 0 {
            on_surplus();
        }
        surplus
    }

    /// Returns whether the worker must exit because there are too many. It is no longer a member
    /// then.
    pub(crate) fn leave_if_surplus(&self, worker: u64) -> bool {
        // Without the lock, as there are at least as many workers as members.
        if self.workers() <= self.max_workers() {
            return false;
        }
        let mut inner = self.inner.lock();
        // Invariant: of several workers that look at the same time no more leave than must.
        let is_surplus = inner.members.len() > self.max_workers();
        is_surplus && inner.members.remove(&worker).is_some()
    }

    /// The worker has nothing to do, and is about to exit. Returns false if its mailbox has a job;
    /// otherwise it is no longer a member.
    pub(crate) fn leave(&self, worker: u64) -> bool {
        let mut inner = self.inner.lock();
        // Invariant: mailboxes of members are filled under this lock.
        let has_mail = |mailbox: &Arc<Mailbox>| fault_or!("an_exiting_worker_overlooks_its_mail": false; !mailbox.is_empty());
        if inner.members.get(&worker).is_some_and(has_mail) {
            return false;
        }
        inner.members.remove(&worker);
        true
    }

    /// Calls `f` with the mailboxes of all members, in the order in which the workers were started.
    /// No user code may run in `f`.
    pub(crate) fn with_members<R>(&self, f: impl FnOnce(&BTreeMap<u64, Arc<Mailbox>>) -> R) -> R {
        f(&self.inner.lock().members)
    }

    pub(crate) fn workers(&self) -> usize {
        // Ordering: as for the counts of `idle.rs`.
        self.workers.load(Ordering::SeqCst)
    }

    pub(crate) fn starting(&self) -> usize {
        // Ordering: for the metrics only. A worker counted here has not run a job yet.
        self.starting.load(Ordering::Acquire)
    }

    fn set_workers(&self, inner: &mut Inner, workers: usize) {
        inner.workers = workers;
        inner.peak = inner.peak.max(workers);
        // Ordering: a worker that exits is uncounted before it reads the queue: see `ExitGuard`.
        self.workers.store(workers, Ordering::SeqCst);
    }

    /// Returns from when on [`reserve`](Self::reserve) would allow a spawn; `None` if it would not.
    pub(crate) fn spawn_allowed_at(&self, demand: impl FnOnce() -> u64) -> Option<Instant> {
        if self.workers() >= self.max_workers() {
            return None;
        }
        let now = Instant::now();
        self.allowed_at(&self.inner.lock(), now, demand)
    }

    /// Returns whether there are more than `stuck` workers, or [`reserve`](Self::reserve) allows a
    /// spawn at the time `by`, or at any time if that is `None`.
    pub(crate) fn has_more_workers(
        &self,
        stuck: usize,
        now: Instant,
        by: Option<Instant>,
        demand: impl FnOnce() -> u64,
    ) -> bool {
        let inner = self.inner.lock();
        // Invariant: both are read under the lock. A worker that has exited may just be replaced.
        stuck < inner.workers
            || self
                .allowed_at(&inner, now, demand)
                .is_some_and(|at| by.is_none_or(|by| at <= by))
    }

    fn allowed_at(
        &self,
        inner: &Inner,
        now: Instant,
        demand: impl FnOnce() -> u64,
    ) -> Option<Instant> {
        let workers = inner.workers;
        if workers >= self.max_workers() || demand() <= workers as u64 || inner.terminated {
            return None;
        }
        let retry_at = inner.retry_at.filter(|_| workers > 0);
        Some(retry_at.map_or(now, |at| at.max(now)))
    }

    /// Counts one more worker, unless there are enough for `demand`. The caller then spawns its
    /// thread, outside the lock.
    pub(crate) fn reserve(&self, demand: impl FnOnce() -> u64) -> Option<WorkerSlot> {
        let now = Instant::now();
        let mut inner = self.inner.lock();
        if self.allowed_at(&inner, now, demand) != Some(now) {
            return None;
        }
        // Counted before the thread exists: `max_workers` bounds threads that are being spawned,
        // too.
        let workers = inner.workers;
        self.set_workers(&mut inner, workers + 1);
        self.starting.fetch_add(1, Ordering::Release);
        inner.next_worker += 1;
        let worker = inner.next_worker;
        inner.threads.insert(worker, ThreadState::Starting);
        let mailbox = Mailbox::new();
        inner.members.insert(worker, Arc::clone(&mailbox));
        let name = match inner.free_names.pop() {
            Some(Reverse(name)) => name,
            None => {
                inner.next_name += 1;
                inner.next_name - 1
            }
        };
        Some(WorkerSlot {
            worker,
            name_index: name,
            mailbox,
        })
    }

    /// The thread is spawned, and may have exited by now. The caller must check for termination.
    pub(crate) fn spawned(&self, worker: u64, thread: WorkerThread) {
        let mut inner = self.inner.lock();
        // The system has threads again.
        inner.retry_at = None;
        match inner.threads.remove(&worker) {
            Some(ThreadState::ExitedEarly) => inner.exited_threads.push(thread),
            _ => {
                inner.threads.insert(worker, ThreadState::Running(thread));
            }
        }
    }

    /// The thread could not be spawned: undoes [`reserve`](Self::reserve).
    pub(crate) fn spawn_failed(&self, slot: &WorkerSlot) -> SpawnFailed {
        let retry_at = Instant::now() + RETRY_AFTER;
        let mut inner = self.inner.lock();
        let workers = inner.workers - 1;
        self.set_workers(&mut inner, workers);
        self.starting.fetch_sub(1, Ordering::Release);
        inner.threads.remove(&slot.worker);
        inner.members.remove(&slot.worker);
        inner.free_names.push(Reverse(slot.name_index));
        if workers == 0 {
            // The next submit tries at once.
            inner.retry_at = None;
            return SpawnFailed::NoWorker;
        }
        inner.retry_at = Some(retry_at);
        match mem::replace(&mut inner.retry_registered, true) {
            true => SpawnFailed::RetryIsRegistered,
            false => SpawnFailed::RegisterRetry(retry_at),
        }
    }

    /// The time of the registered retry has come. Returns when to retry instead, if another spawn
    /// has failed since the registration.
    pub(crate) fn retry_is_due(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut inner = self.inner.lock();
        let later = inner.retry_at.filter(|at| *at > now);
        // Invariant: whatever happens from here on is seen by the caller, or the back-off is over.
        inner.retry_registered = later.is_some();
        if later.is_none() {
            inner.retry_at = None;
        }
        later
    }

    /// A worker has reached its loop, or the end of its initializer.
    pub(crate) fn ready(&self) {
        self.starting.fetch_sub(1, Ordering::Release);
    }

    /// The worker exits, for whatever reason: its mailbox gets no more jobs.
    pub(crate) fn remove_member(&self, worker: u64) {
        self.inner.lock().members.remove(&worker);
    }

    /// A worker leaves its loop, and is no longer a member. Returns threads that left before it and
    /// whose thread-locals are dropped: the caller joins them, outside the lock.
    #[must_use]
    pub(crate) fn exited(&self, slot: &WorkerSlot) -> Vec<WorkerThread> {
        let mut inner = self.inner.lock();
        let workers = inner.workers - 1;
        self.set_workers(&mut inner, workers);
        inner.free_names.push(Reverse(slot.name_index));
        let exited = mem::take(&mut inner.exited_threads).into_iter();
        // Ordering: pairs with the store of the flag's destructor.
        let (done, not_yet) = exited.partition(|thread| thread.tls_dropped.load(Ordering::Acquire));
        // The others are joined by a worker that exits later, or at the end.
        inner.exited_threads = not_yet;
        match inner.threads.remove(&slot.worker) {
            Some(ThreadState::Running(thread)) => inner.exited_threads.push(thread),
            _ => {
                let early = ThreadState::ExitedEarly;
                inner.threads.insert(slot.worker, early);
            }
        }
        done
    }

    /// Terminates the pool if its last worker has left. `closed_and_empty` is read by the caller
    /// *after* whatever may have been the last thing to wait for. The caller wakes the wakers,
    /// outside the lock.
    #[must_use]
    pub(crate) fn check_termination(&self, closed_and_empty: bool) -> Vec<Waker> {
        let mut inner = self.inner.lock();
        inner.check_termination(closed_and_empty);
        if !inner.terminated {
            return Vec::new();
        }
        let waiters = mem::take(&mut inner.waiters);
        // Wakers are user code: the caller wakes them.
        drop(inner);
        waiters.into_values().collect()
    }

    /// Waits for the last worker to leave its loop. `waiter` is the caller's number in the list.
    pub(crate) fn poll_termination(
        &self,
        waiter: &mut Option<u64>,
        waker: &Waker,
        closed_and_empty: bool,
    ) -> Poll<()> {
        // Cloning a waker runs user code, so it happens outside the lock.
        let waker = waker.clone();
        let mut inner = self.inner.lock();
        inner.check_termination(closed_and_empty);
        if inner.terminated {
            let own = waiter
                .take()
                .and_then(|number| inner.waiters.remove(&number));
            let others = mem::take(&mut inner.waiters);
            drop(inner);
            drop_waker(own);
            drop_waker(Some(waker));
            wake_all(others.into_values());
            return Poll::Ready(());
        }
        let number = *waiter.get_or_insert_with(|| {
            inner.next_waiter += 1;
            inner.next_waiter
        });
        let replaced = inner.waiters.insert(number, waker);
        drop(inner);
        drop_waker(replaced);
        Poll::Pending
    }

    pub(crate) fn remove_waiter(&self, waiter: u64) {
        let removed = self.inner.lock().waiters.remove(&waiter);
        drop_waker(removed);
    }

    /// Returns the number of workers, and the highest there ever was.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let inner = self.inner.lock();
        (inner.workers, inner.peak)
    }

    /// Blocks until every thread has ended, thread-locals included. To be called after the
    /// termination, and not on a worker.
    pub(crate) fn join_threads(&self) {
        let mut inner = self.inner.lock();
        debug_assert!(inner.terminated, "threads are joined after the termination");
        while inner.joined == Joined::Underway {
            inner = wait_on(&self.all_joined, inner);
        }
        if inner.joined == Joined::Done {
            return;
        }
        // Joining a thread may take long: destructors of its thread-locals are user code.
        inner.joined = Joined::Underway;
        let threads = mem::take(&mut inner.threads);
        let exited = mem::take(&mut inner.exited_threads);
        drop(inner);
        let running = threads.into_values().filter_map(|thread| match thread {
            ThreadState::Running(thread) => Some(thread),
            ThreadState::Starting | ThreadState::ExitedEarly => None,
        });
        join_all(exited.into_iter().chain(running));
        self.inner.lock().joined = Joined::Done;
        self.all_joined.notify_all();
    }
}

impl Inner {
    fn check_termination(&mut self, closed_and_empty: bool) {
        // Their spawning thread has not come back yet, and still holds what belongs to the pool.
        let unregistered = |thread: &ThreadState| {
            matches!(thread, ThreadState::Starting | ThreadState::ExitedEarly)
        };
        if closed_and_empty && self.workers == 0 && !self.threads.values().any(unregistered) {
            self.terminated = true;
        }
    }
}

/// Joins threads. A worker never unwinds, so there is no panic to be found.
pub(crate) fn join_all(threads: impl IntoIterator<Item = WorkerThread>) {
    for WorkerThread { thread, .. } in threads {
        let _ = thread.join();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn thread(tls_dropped: bool) -> WorkerThread {
        WorkerThread {
            thread: std::thread::spawn(|| ()),
            tls_dropped: Arc::new(AtomicBool::new(tls_dropped)),
        }
    }

    #[test]
    fn workers_are_reserved_up_to_the_demand_and_the_maximum() {
        let registry = Registry::new(2);
        assert!(registry.reserve(|| 0).is_none());
        assert!(registry.reserve(|| 1).is_some());
        assert!(registry.reserve(|| 1).is_none());
        assert!(registry.reserve(|| 9).is_some());
        assert!(registry.reserve(|| 9).is_none());
        assert_eq!((registry.workers(), registry.starting()), (2, 2));
    }

    #[test]
    fn as_many_workers_leave_as_are_too_many() {
        let registry = Registry::new(4);
        let slots = [(); 4].map(|()| registry.reserve(|| 9).unwrap());
        assert!(!registry.leave_if_surplus(slots[0].worker));
        assert_eq!(registry.set_max_workers(2, || ()), 2);
        let leave = |slot: &WorkerSlot| registry.leave_if_surplus(slot.worker);
        assert!(leave(&slots[0]) && !leave(&slots[0]), "it is gone already");
        // This one exits for another reason, so only three members are left for two places.
        assert!(registry.leave(slots[1].worker));
        assert!(!leave(&slots[2]) && !leave(&slots[3]));
        assert!(registry.reserve(|| 9).is_none(), "all four are counted");
        assert_eq!(registry.set_max_workers(9, || panic!("none is surplus")), 0);
        assert!(registry.reserve(|| 9).is_some());
    }

    #[test]
    fn the_lowest_free_name_is_used_again() {
        let registry = Registry::new(3);
        let slots = [(); 3].map(|()| registry.reserve(|| 9).unwrap());
        assert_eq!(slots.each_ref().map(|slot| slot.name_index), [0, 1, 2]);
        for slot in [&slots[2], &slots[0]] {
            registry.spawned(slot.worker, thread(true));
            join_all(registry.exited(slot));
        }
        assert_eq!(registry.reserve(|| 9).unwrap().name_index, 0);
    }

    #[test]
    fn after_a_failed_spawn_the_next_one_waits_unless_there_is_no_worker() {
        let registry = Registry::new(2);
        let first = registry.reserve(|| 9).unwrap();
        assert_eq!(registry.spawn_failed(&first), SpawnFailed::NoWorker);
        let _live = registry.reserve(|| 9).expect("it tries at once");
        let second = registry.reserve(|| 9).expect("no back-off is left over");
        let failed = registry.spawn_failed(&second);
        assert!(matches!(failed, SpawnFailed::RegisterRetry(_)));
        assert!(registry.reserve(|| 9).is_none(), "the back-off");
        assert!(registry.spawn_allowed_at(|| 9).unwrap() > Instant::now());
    }

    #[test]
    fn a_spawn_that_backs_off_is_one_more_worker_once_it_is_allowed() {
        let registry = Registry::new(2);
        let [_live, refused] = [(); 2].map(|()| registry.reserve(|| 9).unwrap());
        let failed = registry.spawn_failed(&refused);
        let SpawnFailed::RegisterRetry(at) = failed else {
            panic!("{failed:?}");
        };
        let before = at - Duration::from_millis(1);
        let has_more = |now, by| registry.has_more_workers(1, now, by, || 9);
        assert!(!has_more(before, Some(before)));
        assert!(has_more(at, Some(at)));
        assert!(has_more(before, None), "it may come later");
        assert!(registry.has_more_workers(0, before, Some(before), || 9));
        assert!(!registry.has_more_workers(1, at, None, || 1), "no demand");
    }

    #[test]
    fn one_retry_is_registered_and_put_off_while_the_back_off_lasts() {
        let registry = Registry::new(3);
        let slots = [(); 3].map(|()| registry.reserve(|| 9).unwrap());
        let failed = registry.spawn_failed(&slots[2]);
        let SpawnFailed::RegisterRetry(first) = failed else {
            panic!("{failed:?}");
        };
        let failed = registry.spawn_failed(&slots[1]);
        assert_eq!(failed, SpawnFailed::RetryIsRegistered);
        let later = registry.retry_is_due().expect("it is too early");
        assert!(later >= first);
        std::thread::sleep(RETRY_AFTER);
        assert_eq!(registry.retry_is_due(), None);
        let again = registry.reserve(|| 9).expect("the back-off is over");
        let failed = registry.spawn_failed(&again);
        assert!(matches!(failed, SpawnFailed::RegisterRetry(_)));
    }

    #[test]
    fn the_pool_terminates_when_it_is_closed_and_its_last_worker_has_left() {
        let registry = Registry::new(1);
        let slot = registry.reserve(|| 1).unwrap();
        let mut waiter = None;
        let mut poll = |closed| registry.poll_termination(&mut waiter, Waker::noop(), closed);
        assert!(poll(true).is_pending());
        registry.ready();
        let exited = registry.exited(&slot);
        assert!(exited.is_empty());
        assert!(poll(true).is_pending(), "its thread is not registered yet");
        registry.spawned(slot.worker, thread(false));
        assert!(registry.check_termination(false).is_empty());
        assert_eq!(registry.check_termination(true).len(), 1);
        assert!(poll(true).is_ready());
        registry.join_threads();
        assert!(registry.reserve(|| 9).is_none(), "none will come");
    }

    #[test]
    fn a_removed_waiter_is_not_woken() {
        let registry = Registry::new(1);
        let mut waiter = None;
        let poll = registry.poll_termination(&mut waiter, Waker::noop(), false);
        assert!(poll.is_pending());
        registry.remove_waiter(waiter.unwrap());
        assert!(registry.check_termination(true).is_empty());
    }

    #[test]
    fn a_thread_is_joined_by_a_later_one_once_its_thread_locals_are_gone() {
        let registry = Registry::new(3);
        let slots = [(); 3].map(|()| registry.reserve(|| 9).unwrap());
        for (slot, tls_dropped) in slots.iter().zip([true, false, true]) {
            registry.spawned(slot.worker, thread(tls_dropped));
        }
        assert_eq!(registry.exited(&slots[0]).len(), 0);
        let joined = registry.exited(&slots[1]);
        assert_eq!(joined.len(), 1);
        join_all(joined);
        assert_eq!(registry.exited(&slots[2]).len(), 0);
    }
}
