//! One timer thread for all timeouts of the process: for futures in any runtime, or in none.
//!
//! A [`Deadline`] that is polled registers the waker of its task with the [`Timer`]. The first
//! registration spawns the timer thread. The thread calls each waker once its deadline has elapsed,
//! and exits after [`KEEP_ALIVE`] without a registration. Blocking waits do not use the timer: they
//! park with a timeout.
//!
//! A child process made by `fork` has no timer thread. The timer makes no promise there.

use std::collections::BTreeMap;
use std::mem;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::util::sync::{Condvar, Instant, Mutex, process_wide, thread, wait_on_for};
use crate::util::unwind::{drop_waker, emit, wake_all};

/// How long the timer thread waits for another registration before it exits.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// The point in time at which a wait ends. Dropping it removes its waker from the timer.
#[derive(Debug)]
pub(crate) struct Deadline {
    /// Never changes. `None` if the clock cannot represent the deadline, which then never elapses.
    instant: Option<Instant>,
    /// Names the entry of this deadline in the [`TimerQueue`]. The timer assigns the id at the
    /// first poll; [`deregister`](Self::deregister) clears it.
    timer_id: Option<u64>,
}

impl Deadline {
    /// Returns the deadline that elapses `timeout` from now.
    pub(crate) fn after(timeout: Duration) -> Self {
        Self {
            instant: Instant::now().checked_add(timeout),
            timer_id: None,
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
    /// Also returns `Ready` if the timer thread cannot be spawned: a wait that ends early is better
    /// than one that never ends.
    pub(crate) fn poll(&mut self, context: &Context<'_>) -> Poll<()> {
        let Some(instant) = self.instant else {
            return Poll::Pending;
        };
        if Instant::now() >= instant {
            self.deregister();
            return Poll::Ready(());
        }
        match TIMER.register(instant, &mut self.timer_id, context.waker()) {
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

process_wide! {
    static TIMER: Timer = Timer::new();
}

struct Timer {
    /// Lock order: innermost. No other lock is taken and no user code runs while it is held.
    queue: Mutex<TimerQueue>,
    /// Wakes the timer thread. Notified when the earliest deadline of the queue becomes earlier.
    changed: Condvar,
}

/// The registered wakers, and whether a thread serves them.
struct TimerQueue {
    /// Wakers by deadline. The id tells apart equal deadlines. A [`Deadline`] inserts and removes
    /// its own entry; the timer thread removes the elapsed ones.
    wakers: BTreeMap<(Instant, u64), Waker>,
    /// The last id that was assigned.
    last_id: u64,
    /// Whether the timer thread runs or is about to be spawned. Set by the registration that spawns
    /// the thread; cleared by the thread before it exits, or after a spawn failure.
    has_thread: bool,
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

    /// Ensures that `waker` is called at `deadline`, in place of the waker that has the same id.
    /// Returns `false` if the timer thread cannot be spawned.
    fn register(
        &'static self,
        deadline: Instant,
        timer_id: &mut Option<u64>,
        waker: &Waker,
    ) -> bool {
        // Cloning and dropping a waker is user code, so both happen outside the lock.
        let waker = waker.clone();
        let mut queue = self.queue.lock();
        let id = *timer_id.get_or_insert_with(|| queue.assign_id());
        let replaced = queue.wakers.insert((deadline, id), waker);
        let is_earliest = queue.earliest() == Some((deadline, id));
        // Invariant: while the queue has entries, `has_thread` is set. Only the registration that
        // sets it spawns, so there is one timer thread at most.
        let has_thread = mem::replace(&mut queue.has_thread, true);
        drop(queue);
        drop_waker(replaced);
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
        // The guard is dropped within this statement, so the waker is dropped outside the lock.
        let waker = self.queue.lock().wakers.remove(&(deadline, id));
        drop_waker(waker);
    }

    fn spawn_thread(&'static self) -> bool {
        let builder = thread::Builder::new().name("futurepool-timer".to_owned());
        let Err(error) = builder.spawn(|| self.run()) else {
            return true;
        };
        let mut queue = self.queue.lock();
        queue.has_thread = false;
        let wakers = mem::take(&mut queue.wakers);
        drop(queue);
        // Other deadlines may have been registered in the meantime and count on the thread. Their
        // tasks poll again, and each tries to spawn the thread itself.
        wake_all(wakers.into_values());
        emit(|| tracing::warn!(%error, "failed to spawn the timer thread: {error}"));
        false
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
                wake_all(elapsed.into_values());
                queue = self.queue.lock();
                continue;
            }
            let next = queue.earliest().map(|(deadline, _)| deadline);
            let timeout = next.map_or(KEEP_ALIVE, |next| next.saturating_duration_since(now));
            let timed_out;
            (queue, timed_out) = wait_on_for(&self.changed, queue, timeout);
            // Invariant: the check and the change of `has_thread` share one critical section, so a
            // registration either is seen here or spawns another thread.
            if next.is_none() && timed_out && queue.wakers.is_empty() {
                queue.has_thread = false;
                return;
            }
        }
    }
}

impl TimerQueue {
    const fn new() -> Self {
        Self {
            wakers: BTreeMap::new(),
            last_id: 0,
            has_thread: false,
        }
    }

    fn assign_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn earliest(&self) -> Option<(Instant, u64)> {
        self.wakers.first_key_value().map(|(key, _)| *key)
    }

    /// Removes and returns the entries whose deadline is `now` or earlier.
    fn take_elapsed(&mut self, now: Instant) -> BTreeMap<(Instant, u64), Waker> {
        // No id reaches `u64::MAX`, so entries at `now` itself are among the elapsed ones.
        let later = self.wakers.split_off(&(now, u64::MAX));
        mem::replace(&mut self.wakers, later)
    }
}
