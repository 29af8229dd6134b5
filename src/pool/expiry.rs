//! Jobs with a deadline: one that has not started by then is refused at that moment.
//!
//! One thread for the process refuses them. It is not the timer thread, because the destructors and
//! callbacks of a refused job are user code, and a slow one must delay no timeout. If the system
//! refuses the thread, a job expires when a worker reaches it.

use std::collections::BTreeMap;
use std::sync::Weak;
use std::time::Duration;

use crate::error::JoinError;
use crate::task::cell::{RawTask, expire};
use crate::util::sync::{Condvar, Instant, Mutex, thread, wait_on_for};

/// How long the thread waits for another deadline before it exits.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

static EXPIRY: Expiry = Expiry {
    state: Mutex::new(State {
        entries: BTreeMap::new(),
        next_id: 0,
        has_thread: false,
        sleeps_until: None,
    }),
    changed: Condvar::new(),
};

struct Expiry {
    // Lock order: no other lock is taken under this one. No user code runs under it.
    state: Mutex<State>,
    /// Notified when there is a deadline before [`State::sleeps_until`].
    changed: Condvar,
}

struct State {
    entries: BTreeMap<(Instant, u64), Entry>,
    next_id: u64,
    has_thread: bool,
    /// When the thread wakes up by itself. `None` while it works.
    sleeps_until: Option<Instant>,
}

struct Entry {
    /// `None` until the job is queued.
    task: Option<Weak<dyn RawTask>>,
    error: JoinError,
}

/// The deadline of a job. The job's closure owns it, so it is dropped when the job starts or is
/// cancelled. Then the job can no longer expire.
#[derive(Debug)]
pub(crate) struct ExpiryGuard {
    key: (Instant, u64),
}

impl ExpiryGuard {
    /// A job that will be queued expires at `at`, with `error`.
    pub(crate) fn new(at: Instant, error: JoinError) -> Self {
        let mut state = EXPIRY.state.lock();
        let key = (at, state.next_id);
        state.next_id += 1;
        state.entries.insert(key, Entry { task: None, error });
        Self { key }
    }

    /// Returns what names the deadline.
    pub(crate) fn key(&self) -> (Instant, u64) {
        self.key
    }
}

impl Drop for ExpiryGuard {
    fn drop(&mut self) {
        let entry = EXPIRY.state.lock().entries.remove(&self.key);
        // Outside the lock: it may hold the last reference to the memory block of a job.
        drop(entry);
    }
}

/// The job of a deadline is queued now. From here on it expires, unless it has started already.
pub(crate) fn queued(key: (Instant, u64), task: Weak<dyn RawTask>) {
    let mut state = EXPIRY.state.lock();
    let Some(entry) = state.entries.get_mut(&key) else {
        return;
    };
    entry.task = Some(task);
    if !state.has_thread {
        state.has_thread = true;
        drop(state);
        let builder = thread::Builder::new().name("futurepool-expiry".to_owned());
        if builder.spawn(run).is_err() {
            EXPIRY.state.lock().has_thread = false;
        }
        return;
    }
    // Not whether it is the earliest deadline: an earlier one may not be queued yet, and never be.
    let wakes = state.sleeps_until.is_some_and(|until| key.0 < until);
    drop(state);
    if wakes {
        EXPIRY.changed.notify_one();
    }
}

fn run() {
    let mut state = EXPIRY.state.lock();
    loop {
        let now = Instant::now();
        let mut due = state.entries.range(..=(now, u64::MAX));
        // One that is not queued yet must not be lost: it stays until it is.
        if let Some(key) = due.find_map(|(key, entry)| entry.task.is_some().then_some(*key)) {
            let entry = state.entries.remove(&key);
            drop(state);
            if let Some(Entry {
                task: Some(task),
                error,
            }) = entry
            {
                if let Some(task) = task.upgrade() {
                    expire(&*task, &error);
                }
            }
            state = EXPIRY.state.lock();
            continue;
        }
        let mut later = state.entries.range((now, u64::MAX)..);
        let first = later.find(|(key, _)| key.0 > now).map(|(key, _)| key.0);
        let until = first.unwrap_or(now + KEEP_ALIVE);
        state.sleeps_until = Some(until);
        let timeout = until.saturating_duration_since(now);
        let timed_out;
        (state, timed_out) = wait_on_for(&EXPIRY.changed, state, timeout);
        state.sleeps_until = None;
        if first.is_none() && timed_out && state.entries.is_empty() {
            state.has_thread = false;
            return;
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::panic::Location;
    use std::sync::Arc;

    use super::*;
    use crate::task::cell::{Scheduler, TaskCell};
    use crate::task::join_handle::JoinHandle;

    const SOON: Duration = Duration::from_millis(50);

    struct NoPool;

    impl Scheduler for NoPool {}

    struct Job {
        guard: ExpiryGuard,
        task: Arc<dyn RawTask>,
        handle: JoinHandle<()>,
    }

    impl Job {
        fn new(after: Duration) -> Self {
            let guard = ExpiryGuard::new(Instant::now() + after, JoinError::expired("test"));
            let task = TaskCell::queued(|| (), Location::caller(), None, 0, NoPool);
            let task = Arc::new(task);
            Self {
                guard,
                task: task.clone(),
                handle: JoinHandle::new(task),
            }
        }

        fn queue(&self) {
            queued(self.guard.key(), Arc::downgrade(&self.task));
        }

        #[track_caller]
        fn expires(mut self) {
            let error = self
                .handle
                .join_timeout(Duration::from_secs(60))
                .unwrap_err();
            assert!(error.is_expired(), "{error}");
        }
    }

    #[test]
    fn a_deadline_of_a_job_that_is_never_queued_hides_no_later_one() {
        let far = Job::new(Duration::from_secs(3600));
        far.queue();
        let start = Instant::now();
        while EXPIRY.state.lock().sleeps_until.is_none() {
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "the thread never sleeps"
            );
            std::thread::yield_now();
        }
        let (first, second) = (Job::new(2 * SOON), Job::new(3 * SOON));
        second.queue();
        drop(first);
        second.expires();
    }

    #[test]
    fn a_deadline_that_passes_before_its_job_is_queued_is_not_lost() {
        let (slow, other) = (Job::new(SOON), Job::new(2 * SOON));
        other.queue();
        other.expires();
        slow.queue();
        slow.expires();
    }
}
