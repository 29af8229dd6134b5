//! One timer thread for all timeouts of the process: for futures in any runtime, or in none.
//!
//! A [`Deadline`] that is polled registers the waker of its task with the [`Timer`]. The first
//! registration spawns the timer thread. The thread calls each waker once its deadline has elapsed,
//! and exits after [`KEEP_ALIVE`] without a registration. Blocking waits do not use the timer: they
//! park with a timeout.
//!
//! A pool that the system refused a thread registers a [retry](retry_at). If the system refuses the
//! timer thread, too, deadlines elapse at once, and retries are *unserved*: they stay in the queue.
//! So do the deadlines of waits that must not end early ([`Deadline::at`]). Every thread that comes
//! by then [runs those that are due](run_due_retries) and tries to spawn the timer thread for the
//! others. These are a submitter, a worker that takes a job, and a thread that waits in
//! [`Parker`](crate::park::parker::Parker).
//!
//! A child process made by `fork` has no timer thread. The timer makes no promise there.

use std::collections::BTreeMap;
use std::mem;
// Not the model checker's: in a model the system refuses no thread.
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crossbeam_utils::CachePadded;

use crate::util::sync::{Condvar, Instant, Mutex, process_wide, thread, wait_on_for};
use crate::util::unwind::{drop_waker, emit, wake_all};

/// How long the timer thread waits for another registration before it exits.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How long a refused timer thread is not tried again by a thread that comes by. A retry that fails
/// has tried it just before.
const SPAWN_BACKOFF: Duration = Duration::from_millis(10);

/// The point in time at which a wait ends. Dropping it removes its waker from the timer.
#[derive(Debug)]
pub(crate) struct Deadline {
    /// Never changes. `None` if the clock cannot represent the deadline, which then never elapses.
    instant: Option<Instant>,
    /// Names the entry of this deadline in the [`TimerQueue`]. The timer assigns the id at the
    /// first poll; [`deregister`](Self::deregister) clears it.
    timer_id: Option<u64>,
    /// What happens if no thread serves the timer.
    kind: EntryKind,
}

impl Deadline {
    /// Returns the deadline that elapses `timeout` from now.
    pub(crate) fn after(timeout: Duration) -> Self {
        Self {
            instant: Instant::now().checked_add(timeout),
            timer_id: None,
            kind: EntryKind::Deadline,
        }
    }

    /// Returns the deadline of a wait that must not end early. If the timer thread cannot be
    /// spawned, it elapses when a thread [comes by](run_due_retries).
    pub(crate) fn at(instant: Instant) -> Self {
        Self {
            instant: Some(instant),
            timer_id: None,
            kind: EntryKind::Retry,
        }
    }

    pub(crate) fn instant(&self) -> Option<Instant> {
        self.instant
    }

    pub(crate) fn is_elapsed(&self) -> bool {
        self.instant
            .is_some_and(|instant| Instant::now() >= instant)
    }

    /// Returns `Ready` once the deadline has elapsed; otherwise registers the waker.
    ///
    /// For a deadline made by [`after`](Self::after), also returns `Ready` if the timer thread
    /// cannot be spawned: a wait that ends early is better than one that never ends.
    pub(crate) fn poll(&mut self, context: &Context<'_>) -> Poll<()> {
        let Some(instant) = self.instant else {
            return Poll::Pending;
        };
        if Instant::now() >= instant {
            self.deregister();
            return Poll::Ready(());
        }
        // Cloning a waker is user code, so it happens outside the lock.
        let entry = Entry {
            waker: context.waker().clone(),
            kind: self.kind,
        };
        let is_served = TIMER.register(instant, &mut self.timer_id, entry);
        match is_served || self.kind == EntryKind::Retry {
            true => Poll::Pending,
            false => Poll::Ready(()),
        }
    }

    fn deregister(&mut self) {
        if let (Some(instant), Some(id)) = (self.instant, self.timer_id.take()) {
            TIMER.deregister(instant, id);
        }
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        self.deregister();
    }
}

/// Ensures that `waker` is called at `at`, if need be by a thread that [comes by](run_due_retries).
pub(crate) fn retry_at(at: Instant, waker: Waker) {
    let kind = EntryKind::Retry;
    // Without a thread the retry stays in the queue.
    let _ = TIMER.register(at, &mut None, Entry { waker, kind });
}

/// Returns whether there are retries that no thread serves, at the cost of one load.
pub(crate) fn has_unserved_retries() -> bool {
    // Ordering: the lock of the queue guards the entries. A thread that misses the flag leaves the
    // retry to the next one.
    HAS_UNSERVED_RETRIES.load(Ordering::Relaxed)
}

/// Runs the unserved retries that are due. If there are any, it then tries to spawn the timer
/// thread for the others. It spawns threads and emits events, so no lock may be held.
pub(crate) fn run_due_retries() {
    if has_unserved_retries() {
        TIMER.run_due_retries();
    }
}

/// Whether the queue has entries and no thread. Written under the lock of the queue.
///
/// Each job reads it, and it is hardly ever written: so it has a cache line of its own.
static HAS_UNSERVED_RETRIES: CachePadded<AtomicBool> = CachePadded::new(AtomicBool::new(false));

process_wide! {
    static TIMER: Timer = Timer::new();
}

struct Timer {
    /// Lock order: innermost. No other lock is taken and no user code runs while it is held.
    queue: Mutex<TimerQueue>,
    /// Wakes the timer thread. Notified when the earliest deadline of the queue becomes earlier.
    changed: Condvar,
}

/// What is called at its time.
struct Entry {
    waker: Waker,
    kind: EntryKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EntryKind {
    /// Of a wait that may end early. It is woken at once if no thread serves the queue.
    Deadline,
    /// A pool's, or of a wait that must not end early. It stays in the queue if no thread serves
    /// it.
    Retry,
}

/// The registered wakers, and whether a thread serves them.
struct TimerQueue {
    /// Entries by deadline. The id tells apart equal deadlines. A [`Deadline`] inserts and removes
    /// its own entry; the timer thread, or a thread that comes by, removes the elapsed ones.
    entries: BTreeMap<(Instant, u64), Entry>,
    /// The last id that was assigned.
    last_id: u64,
    /// Whether the timer thread runs or is about to be spawned. Set by the registration that spawns
    /// the thread; cleared by the thread before it exits, or after a spawn failure.
    has_thread: bool,
    /// After a spawn failure: when to try again, unless a deadline needs the thread.
    next_spawn: Option<Instant>,
}

impl Timer {
    #[cfg(not(loom))]
    const fn new() -> Self {
        Self {
            queue: Mutex::new(TimerQueue::new()),
            changed: Condvar::new(),
        }
    }

    #[cfg(loom)]
    fn new() -> Self {
        Self {
            queue: Mutex::new(TimerQueue::new()),
            changed: Condvar::new(),
        }
    }

    /// Ensures that the waker of `entry` is called at `deadline`, in place of the waker that has
    /// the same id. Returns `false` if the timer thread cannot be spawned.
    fn register(
        &'static self,
        deadline: Instant,
        timer_id: &mut Option<u64>,
        entry: Entry,
    ) -> bool {
        let mut queue = self.queue.lock();
        let id = *timer_id.get_or_insert_with(|| queue.assign_id());
        let replaced = queue.entries.insert((deadline, id), entry);
        let is_earliest = queue.earliest() == Some((deadline, id));
        // Invariant: while the queue has deadlines, `has_thread` is set. Only the registration that
        // sets it spawns, so there is one timer thread at most.
        let has_thread = queue.set_has_thread(true);
        drop(queue);
        // Dropping a waker is user code, so it happens outside the lock.
        drop_waker(replaced.map(|entry| entry.waker));
        if !has_thread {
            return self.spawn_thread();
        }
        // Behind another entry no wake-up is needed: the thread wakes for that one, and then looks
        // for the next.
        if is_earliest {
            self.changed.notify_one();
        }
        true
    }

    /// Removes an entry, if the timer thread has not done so. The thread is not notified: at worst
    /// it wakes once with nothing to do.
    fn deregister(&self, deadline: Instant, id: u64) {
        let mut queue = self.queue.lock();
        let entry = queue.entries.remove(&(deadline, id));
        // It may have been the last one that no thread serves.
        let has_thread = queue.has_thread;
        queue.set_has_thread(has_thread);
        // Dropping a waker is user code, so it happens outside the lock.
        drop(queue);
        drop_waker(entry.map(|entry| entry.waker));
    }

    fn spawn_thread(&'static self) -> bool {
        let builder = thread::Builder::new().name("futurepool-timer".to_owned());
        let Err(error) = builder.spawn(|| self.run()) else {
            return true;
        };
        let mut queue = self.queue.lock();
        let deadlines = queue.take_deadlines();
        queue.set_has_thread(false);
        queue.next_spawn = Some(Instant::now() + SPAWN_BACKOFF);
        drop(queue);
        // Other deadlines may have been registered in the meantime and count on the thread. Their
        // tasks poll again, and each tries to spawn the thread itself.
        wake_all(deadlines);
        emit(|| tracing::warn!(%error, "failed to spawn the timer thread: {error}"));
        false
    }

    /// See [`run_due_retries`].
    #[cold]
    fn run_due_retries(&'static self) {
        let now = Instant::now();
        let mut queue = self.queue.lock();
        if queue.has_thread {
            return;
        }
        let due = queue.take_elapsed(now);
        if due.is_empty() {
            return;
        }
        queue.set_has_thread(false);
        drop(queue);
        // Before the timer thread, which could take the only thread that the system has. A retry
        // that fails registers the next one, which tries to spawn the timer thread.
        wake_all(due);
        let mut queue = self.queue.lock();
        let may_spawn = !queue.entries.is_empty() && queue.next_spawn.is_none_or(|at| at <= now);
        if may_spawn && !queue.set_has_thread(true) {
            drop(queue);
            self.spawn_thread();
        }
    }

    /// The timer thread.
    fn run(&self) {
        let mut queue = self.queue.lock();
        loop {
            let now = Instant::now();
            let elapsed = queue.take_elapsed(now);
            if !elapsed.is_empty() {
                // Wakers are user code, and may register deadlines.
                drop(queue);
                wake_all(elapsed);
                queue = self.queue.lock();
                continue;
            }
            let next = queue.earliest().map(|(deadline, _)| deadline);
            let timeout = next.map_or(KEEP_ALIVE, |next| next.saturating_duration_since(now));
            let timed_out;
            (queue, timed_out) = wait_on_for(&self.changed, queue, timeout);
            // Invariant: the check and the change of `has_thread` share one critical section, so a
            // registration either is seen here or spawns another thread.
            if next.is_none() && timed_out && queue.entries.is_empty() {
                queue.set_has_thread(false);
                return;
            }
        }
    }
}

impl TimerQueue {
    const fn new() -> Self {
        Self {
            entries: BTreeMap::new(),
            last_id: 0,
            has_thread: false,
            next_spawn: None,
        }
    }

    fn assign_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn earliest(&self) -> Option<(Instant, u64)> {
        self.entries.first_key_value().map(|(key, _)| *key)
    }

    /// Removes and returns the entries whose deadline is `now` or earlier.
    fn take_elapsed(&mut self, now: Instant) -> Vec<Waker> {
        // No id reaches `u64::MAX`, so entries at `now` itself are among the elapsed ones.
        let mut elapsed = Vec::new();
        while self.earliest().is_some_and(|(deadline, _)| deadline <= now) {
            elapsed.extend(self.entries.pop_first().map(|(_, entry)| entry.waker));
        }
        elapsed
    }

    /// Removes and returns the entries of futures.
    fn take_deadlines(&mut self) -> Vec<Waker> {
        let mut deadlines = Vec::new();
        for (key, entry) in mem::take(&mut self.entries) {
            match entry.kind {
                EntryKind::Deadline => deadlines.push(entry.waker),
                EntryKind::Retry => {
                    self.entries.insert(key, entry);
                }
            }
        }
        deadlines
    }

    /// Returns the old value.
    fn set_has_thread(&mut self, has_thread: bool) -> bool {
        // Invariant: both change under the lock of the queue.
        let unserved = !has_thread && !self.entries.is_empty();
        if unserved != HAS_UNSERVED_RETRIES.load(Ordering::Relaxed) {
            HAS_UNSERVED_RETRIES.store(unserved, Ordering::Relaxed);
        }
        mem::replace(&mut self.has_thread, has_thread)
    }
}
