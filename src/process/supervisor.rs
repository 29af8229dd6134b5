//! The thread that watches the workers of a pool: it kills those that exceed a limit, and reaps
//! those that have ended.
//!
//! It sleeps in `poll` until a process ends, until the next limit, or until it is notified. So an
//! idle pool uses no CPU time.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::process::lifecycle;
use crate::process::socket::{self, NoSigpipe};
use crate::process::worker::{Activity, KillReason, Worker, earlier};

/// Watches the workers of a pool. Dropping it waits until all of them have ended.
#[derive(Debug)]
pub(crate) struct Supervisor {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// The process that has the thread.
    owner: u32,
    /// In bytes of resident memory.
    memory_limit: Option<u64>,
    state: Mutex<State>,
    /// Notified when the thread has ended.
    thread_ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// All workers that have not ended, as far as the supervisor knows.
    workers: Vec<Arc<Worker>>,
    /// Wakes the thread. `None` while there is no thread.
    wake: Option<Arc<UnixStream>>,
    sleep: Sleep,
    /// The pool is gone: the thread ends with the last worker.
    closing: bool,
}

/// When the supervisor looks at the workers next.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Sleep {
    /// It looks at them now. `again`: something has changed since.
    Looking {
        again: bool,
    },
    Until(Instant),
    #[default]
    Endless,
}

impl Supervisor {
    pub(crate) fn new(memory_limit: Option<u64>) -> Self {
        Self {
            shared: Arc::new(Shared {
                owner: std::process::id(),
                memory_limit,
                state: Mutex::default(),
                thread_ended: Condvar::new(),
            }),
        }
    }

    /// Watches `worker` until it has ended.
    pub(crate) fn add(&self, worker: &Arc<Worker>) -> io::Result<()> {
        if worker.pidfd().is_none() {
            // Nothing can be polled, so a thread waits.
            let (shared, worker) = (Arc::clone(&self.shared), Arc::clone(worker));
            let wait = move || {
                worker.wait_without_reaping();
                drop(worker);
                shared.notify(None);
            };
            let name = "futurepool-wait".to_owned();
            thread::Builder::new().name(name).spawn(wait)?;
        }
        let mut state = self.shared.lock();
        state.workers.push(Arc::clone(worker));
        if state.wake.is_some() {
            drop(state);
            self.shared.notify(None);
            return Ok(());
        }
        drop(state);
        self.start_thread().inspect_err(|_| {
            let mut state = self.shared.lock();
            let place = state
                .workers
                .iter()
                .position(|own| Arc::ptr_eq(own, worker));
            let removed = place.map(|place| state.workers.swap_remove(place));
            drop(state);
            drop(removed);
        })
    }

    fn start_thread(&self) -> io::Result<()> {
        // A pair of sockets, for `pipe2` is not there on every system.
        let (read, write) = socket::pair()?;
        read.set_nonblocking(true)?;
        write.set_nonblocking(true)?;
        let mut state = self.shared.lock();
        if state.wake.is_some() {
            // Another thread was faster.
            drop(state);
            self.shared.notify(None);
            return Ok(());
        }
        state.wake = Some(Arc::new(write));
        drop(state);
        let shared = Arc::clone(&self.shared);
        let main = move || {
            shared.watch(&read);
            let mut state = shared.lock();
            let wake = state.wake.take();
            shared.thread_ended.notify_all();
            drop(state);
            drop(wake);
        };
        let name = "futurepool-supervisor".to_owned();
        let spawned = thread::Builder::new().name(name).spawn(main);
        spawned.map(drop).inspect_err(|_| {
            let mut state = self.shared.lock();
            let wake = state.wake.take();
            // Those that were added meanwhile count on this thread.
            let unwatched = std::mem::take(&mut state.workers);
            drop(state);
            drop(wake);
            for worker in unwatched {
                worker.kill(KillReason::Leaving);
            }
        })
    }

    /// Ensures that the supervisor looks at the workers at `at` or earlier.
    pub(crate) fn look_at(&self, at: Instant) {
        self.shared.notify(Some(at));
    }

    /// Returns a view of the workers, which keeps neither the supervisor nor the workers.
    #[cfg(feature = "console")]
    pub(crate) fn list(&self) -> WorkerList {
        WorkerList(Arc::downgrade(&self.shared))
    }

    /// Returns the workers that have not ended, as far as the supervisor knows.
    pub(crate) fn workers(&self) -> Vec<Arc<Worker>> {
        self.shared.lock().workers.clone()
    }
}

/// The workers of a pool, as long as the pool lives.
#[cfg(feature = "console")]
#[derive(Debug, Clone)]
pub(crate) struct WorkerList(std::sync::Weak<Shared>);

#[cfg(feature = "console")]
impl WorkerList {
    /// Returns the workers that have not ended, in the order of their start.
    pub(crate) fn workers(&self) -> Vec<Arc<Worker>> {
        let shared = self.0.upgrade();
        let mut workers = shared.map_or_else(Vec::new, |shared| shared.lock().workers.clone());
        workers.sort_by_key(|worker| worker.generation());
        workers
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        if self.shared.owner != std::process::id() {
            // In a child of this process, made by `fork`: it has no copy of the thread, which may
            // have held the lock.
            return;
        }
        let mut state = self.shared.lock();
        state.closing = true;
        let left = state.workers.clone();
        drop(state);
        for worker in &left {
            // Most are gone. Nothing sends further jobs to the others.
            if !matches!(worker.activity(), Activity::Ended) {
                worker.leave(Duration::from_millis(500));
            }
        }
        drop(left);
        self.shared.notify(None);
        // Each worker leaves or is killed, so this takes a moment.
        let patience = Duration::from_secs(5);
        let state = self.shared.lock();
        let ended = self
            .shared
            .thread_ended
            .wait_timeout_while(state, patience, |state| state.wake.is_some());
        drop(ended.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the thread if it would sleep past `at`, or at all.
    fn notify(&self, at: Option<Instant>) {
        let mut state = self.lock();
        let wakes = match (&mut state.sleep, at) {
            (Sleep::Looking { again }, _) => {
                *again = true;
                false
            }
            (Sleep::Until(planned), Some(at)) => at < *planned,
            (Sleep::Until(_), None) | (Sleep::Endless, _) => true,
        };
        let wake = if wakes { state.wake.clone() } else { None };
        drop(state);
        if let Some(wake) = wake {
            // If the buffer is full, the thread is about to wake up.
            let _ = NoSigpipe(&wake).write(&[0]);
        }
    }

    fn watch(&self, wake: &UnixStream) {
        loop {
            let mut state = self.lock();
            state.sleep = Sleep::Looking { again: false };
            let workers = state.workers.clone();
            drop(state);

            let now = Instant::now();
            let mut next = None;
            for worker in &workers {
                if worker.try_end().is_some() {
                    // Ends a read that a descendant of the worker keeps waiting.
                    let _ = worker.socket().shutdown(std::net::Shutdown::Both);
                }
                next = earlier(next, worker.supervise(now, self.memory_limit));
            }

            let mut state = self.lock();
            let is_gone = |worker: &Arc<Worker>| matches!(worker.activity(), Activity::Ended);
            let all = std::mem::take(&mut state.workers);
            let (gone, left): (Vec<_>, Vec<_>) = all.into_iter().partition(is_gone);
            state.workers = left;
            let is_last = state.closing && state.workers.is_empty();
            let again = state.sleep == (Sleep::Looking { again: true });
            if !is_last && !again {
                state.sleep = next.map_or(Sleep::Endless, Sleep::Until);
            }
            let left = state.workers.clone();
            drop(state);
            lifecycle::ended_idle(&gone);
            drop((gone, workers));
            if is_last {
                return;
            }
            if again {
                continue;
            }
            sleep(&left, wake, next);
        }
    }
}

/// Sleeps until a worker has ended, `until` is reached, or the thread is notified.
fn sleep(workers: &[Arc<Worker>], wake: &UnixStream, until: Option<Instant>) {
    let mut fds = vec![PollFd::new(wake, PollFlags::IN)];
    // If another thread has reaped one meanwhile, its descriptor says so, and this does not sleep.
    let pidfds = workers.iter().filter_map(|worker| worker.pidfd());
    fds.extend(pidfds.map(|pidfd| PollFd::from_borrowed_fd(pidfd, PollFlags::IN)));
    let timeout = until.map(|at| at.saturating_duration_since(Instant::now()));
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    if poll(&mut fds, timeout.as_ref()).is_err() {
        // A signal, or a lack of memory: look again, but do not spin.
        thread::sleep(Duration::from_millis(1));
    }
    let mut buffer = [0; 64];
    while matches!((&mut &*wake).read(&mut buffer), Ok(read) if read == buffer.len()) {}
}
