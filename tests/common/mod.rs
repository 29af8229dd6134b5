//! Helpers that several test modules use: a watchdog, ways to block workers, and wakers that count.

pub(crate) mod child;
pub(crate) mod event_log;

use std::fs;
use std::future::Future;
use std::panic::{self, resume_unwind};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use futurepool::{Executor, Job, JoinHandle, ThreadPool};

/// Longer than anything here takes unless it hangs, even on a slow and busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// Runs `f` in a new thread and returns its result; resumes a panic of `f` in the caller.
///
/// If `f` does not return within `limit`, panics with `what` in the message and leaves the thread
/// running.
#[track_caller]
pub(crate) fn within<R: Send + 'static>(
    limit: Duration,
    what: &str,
    f: impl FnOnce() -> R + Send + 'static,
) -> R {
    let (send, receive) = mpsc::channel();
    let thread = thread::Builder::new()
        .name(what.to_owned())
        .spawn(move || {
            let result = f();
            // The receiver is gone if `f` took too long.
            let _ = send.send(result);
        })
        .expect("a thread for the test");
    match receive.recv_timeout(limit) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => panic!("{what}: did not return within {limit:?}"),
        Err(RecvTimeoutError::Disconnected) => match thread.join() {
            Err(payload) => resume_unwind(payload),
            Ok(()) => unreachable!("it sends before it ends"),
        },
    }
}

/// Polls `fact` until it returns `true`; panics after [`LONG`] with `what` in the message.
///
/// Only for state that cannot be observed in another way, such as metrics.
#[track_caller]
pub(crate) fn eventually(what: &str, mut fact: impl FnMut() -> bool) {
    let start = Instant::now();
    let mut turns = 0_u32;
    while !fact() {
        assert!(start.elapsed() < LONG, "{what}: not true after {LONG:?}");
        turns += 1;
        if turns < 100 {
            thread::yield_now();
        } else {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Runs `f` in a new thread and returns when that thread sleeps, which it does once `f` blocks, or
/// has ended.
///
/// Waits for half a second where the system does not report the state of a thread.
pub(crate) fn spawn_until_asleep<R: Send + 'static>(
    f: impl FnOnce() -> R + Send + 'static,
) -> thread::JoinHandle<R> {
    let (tell, told) = mpsc::channel();
    let thread = thread::spawn(move || {
        tell.send(ThreadState::of_this_thread())
            .expect("the test waits for this");
        f()
    });
    let state = told.recv_timeout(LONG).expect("the thread starts");
    eventually("the thread sleeps", || {
        thread.is_finished() || state.sleeps()
    });
    thread
}

/// Reports whether a thread sleeps, as the system sees it.
#[derive(Debug)]
pub(crate) struct ThreadState {
    /// The path in `/proc`; `None` on systems without it.
    stat: Option<PathBuf>,
    since: Instant,
}

impl ThreadState {
    pub(crate) fn of_this_thread() -> Self {
        let link = fs::read_link("/proc/thread-self").ok();
        Self {
            stat: link.map(|link| Path::new("/proc").join(link).join("stat")),
            since: Instant::now(),
        }
    }

    pub(crate) fn sleeps(&self) -> bool {
        match &self.stat {
            Some(stat) => fs::read_to_string(stat).is_ok_and(|line| {
                // The state follows the thread name, which may contain anything.
                line.rsplit_once(") ")
                    .is_some_and(|(_, rest)| rest.starts_with('S'))
            }),
            None => self.since.elapsed() > Duration::from_millis(500),
        }
    }

    /// Returns how often the thread has gone to sleep so far; 0 where the system does not report
    /// it.
    pub(crate) fn voluntary_switches(&self) -> u64 {
        let status = self.stat.as_ref().map(|stat| stat.with_file_name("status"));
        let status = status.and_then(|status| fs::read_to_string(status).ok());
        let status = status.unwrap_or_default();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.map_or(0, |count| count.trim().parse().expect("a number"))
    }
}

/// Returns how many threads of this process have a name that starts with `prefix`; 0 where the
/// system does not report it.
pub(crate) fn threads_named(prefix: &str) -> usize {
    if !cfg!(target_os = "linux") {
        return 0;
    }
    let tasks = fs::read_dir("/proc/self/task").expect("the threads of this process");
    // A thread may end between the two reads.
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.starts_with(prefix)).count()
}

/// A gate that blocks threads until it is opened. Clones share the gate; it stays open.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn open(&self) {
        let (open, changed) = &*self.0;
        *open.lock().unwrap_or_else(PoisonError::into_inner) = true;
        changed.notify_all();
    }

    /// Blocks until the gate is open; panics after [`LONG`], so that a failed test does not hold
    /// its workers forever.
    pub(crate) fn wait(&self) {
        let (open, changed) = &*self.0;
        let guard = open.lock().unwrap_or_else(PoisonError::into_inner);
        let (guard, _) = changed
            .wait_timeout_while(guard, LONG, |open| !*open)
            .unwrap_or_else(PoisonError::into_inner);
        let is_open = *guard;
        drop(guard);
        assert!(is_open, "the gate was not opened within {LONG:?}");
    }
}

/// Returns a pool whose queue holds at most `capacity` jobs.
pub(crate) fn bounded_pool(workers: usize, capacity: usize) -> ThreadPool {
    let builder = ThreadPool::builder().max_workers(workers);
    builder.queue_capacity(capacity).build().unwrap()
}

/// Workers held by jobs that only wait: see [`block_workers`]. Dropping this releases the workers.
#[derive(Debug)]
pub(crate) struct Blocked {
    gate: Gate,
    handles: Vec<JoinHandle<()>>,
}

/// Blocks `n` workers of `pool`, which must be free; returns when all of them are blocked. Submits
/// one job at a time, so a queue capacity of 1 is enough.
pub(crate) fn block_workers(pool: &ThreadPool, n: usize) -> Blocked {
    let gate = Gate::new();
    let (running, runs) = mpsc::channel();
    let hold = |_| {
        let (gate, running) = (gate.clone(), running.clone());
        let handle = pool.submit(move || {
            running.send(()).expect("the test waits for this");
            gate.wait();
        });
        runs.recv_timeout(LONG).expect("a free worker");
        handle
    };
    let handles = (0..n).map(hold).collect();
    Blocked { gate, handles }
}

impl Blocked {
    /// Releases the workers and waits until their jobs have finished. (Dropping `Blocked` does not
    /// wait.)
    pub(crate) fn release(mut self) {
        self.gate.open();
        for handle in self.handles.drain(..) {
            handle.join().expect("the job only waited");
        }
    }

    /// Returns the gate that the workers wait for, for tests that open it elsewhere.
    pub(crate) fn gate(&self) -> Gate {
        self.gate.clone()
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        self.gate.open();
    }
}

/// An executor whose jobs wait until the test runs them on its own thread.
#[derive(Default)]
pub(crate) struct Held(Mutex<Vec<Job>>);

impl Held {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Runs the jobs in the order in which they were submitted. Their wakers have returned when
    /// this returns.
    pub(crate) fn run_all(&self) {
        let jobs = std::mem::take(&mut *self.0.lock().unwrap());
        jobs.into_iter().for_each(Job::run);
    }
}

impl Executor for Held {
    fn execute(&self, job: Job) {
        self.0.lock().unwrap().push(job);
    }
}

/// A waker that counts how often it is called, for tests that poll by hand.
#[derive(Debug, Default)]
pub(crate) struct CountingWaker {
    wakes: AtomicUsize,
}

impl CountingWaker {
    /// Returns the counter and the waker.
    pub(crate) fn new() -> (Arc<Self>, Waker) {
        let counter = Arc::new(Self::default());
        let waker = Waker::from(Arc::clone(&counter));
        (counter, waker)
    }

    pub(crate) fn count(&self) -> usize {
        self.wakes.load(Ordering::SeqCst)
    }
}

impl Wake for CountingWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wakes.fetch_add(1, Ordering::SeqCst);
    }
}

/// Returns the file and the line that the panic of `f` names.
///
/// Replaces the panic hook for a moment, so the test needs a process of its own: see [`child`].
#[track_caller]
pub(crate) fn panic_location(f: impl FnOnce()) -> (String, u32) {
    let (tell, told) = mpsc::channel();
    let hook = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let location = info.location().expect("a panic has a location");
        let _ = tell.send((location.file().to_owned(), location.line()));
    }));
    let result = panic::catch_unwind(panic::AssertUnwindSafe(f));
    panic::set_hook(hook);
    assert!(result.is_err(), "it should panic");
    told.recv().expect("the hook ran")
}

/// Returns the message of a panic of `f`.
#[track_caller]
pub(crate) fn message_of(f: impl FnOnce()) -> String {
    let payload = panic::catch_unwind(panic::AssertUnwindSafe(f)).expect_err("it panics");
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => (*payload.downcast::<&str>().expect("a text")).to_owned(),
    }
}

/// Returns a context whose waker does nothing.
pub(crate) fn noop_context() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// Polls `future` once with `waker`.
pub(crate) fn poll_with<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

/// Polls `future` once with a waker that does nothing.
pub(crate) fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut noop_context())
}

/// Splitmix64: a small generator, good enough to choose test operations.
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}
