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
    }),
    changed: Condvar::new(),
};

struct Expiry {
    // Lock order: no other lock is taken under this one. No user code runs under it.
    state: Mutex<State>,
    /// Notified when the earliest deadline becomes earlier.
    changed: Condvar,
}

struct State {
    entries: BTreeMap<(Instant, u64), Entry>,
    next_id: u64,
    has_thread: bool,
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
    let is_earliest = state.entries.keys().next() == Some(&key);
    drop(state);
    if is_earliest {
        EXPIRY.changed.notify_one();
    }
}

fn run() {
    let mut state = EXPIRY.state.lock();
    loop {
        let now = Instant::now();
        let first = state.entries.first_key_value().map(|(key, _)| *key);
        if let Some(key) = first.filter(|(at, _)| *at <= now) {
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
        let timeout = first.map_or(KEEP_ALIVE, |(at, _)| at.saturating_duration_since(now));
        let timed_out;
        (state, timed_out) = wait_on_for(&EXPIRY.changed, state, timeout);
        if first.is_none() && timed_out && state.entries.is_empty() {
            state.has_thread = false;
            return;
        }
    }
}
