//! What Python's test suite of `concurrent.futures` asserts, asserted of this crate. Each test has
//! the name of the CPython test whose promise it covers, in a module named after CPython's file. No
//! code is taken from CPython.
//!
//! Where this crate promises something else on purpose, a comment that begins with `DIFFERENCE`
//! says what and why. Two more modules: `deviations` has the promises that replace known defects of
//! CPython, `stated` those that its documentation makes and its suite does not test.

// Python's class names are part of the names.
#![allow(non_snake_case)]

mod as_completed;
mod asyncio;
mod deadlock;
mod deviations;
mod executor;
mod future;
mod init;
mod interpreter_pool;
mod process_pool;
mod shutdown;
mod stated;
mod thread_pool;
mod wait;

use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, mpsc};
use std::thread;

use crate::common::{LONG, within};
use futurepool::{Executor, Job};
use futurepool::{JoinError, JoinHandle, Tagged, ThreadPool};

/// Runs a test under the watchdog.
#[track_caller]
fn with_watchdog(f: impl FnOnce() + Send + 'static) {
    let name = thread::current().name().unwrap_or("test").to_owned();
    within(LONG, &name, f);
}

/// Drives the futures that `make` returns in every runtime, and without one.
fn in_every_runtime<F>(make: impl Fn() -> F) -> Vec<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let one_thread = tokio::runtime::Builder::new_current_thread().build();
    let one_thread = one_thread.unwrap();
    let mut threads = tokio::runtime::Builder::new_multi_thread();
    let threads = threads.worker_threads(1).build().unwrap();
    vec![
        futurepool::block_on(make()),
        futures::executor::block_on(make()),
        pollster::block_on(make()),
        smol::block_on(smol::spawn(make())),
        one_thread.block_on(make()),
        threads.block_on(threads.spawn(make())).unwrap(),
    ]
}

/// Returns all results; none of them may be an error.
fn all<U>(results: impl IntoIterator<Item = Result<U, JoinError>>) -> Vec<U> {
    results.into_iter().map(Result::unwrap).collect()
}

/// A job in each state. The running job ends when `go` is dropped or sends; then the pending job
/// runs.
struct States {
    // Declared first, so that the drop of the pool does not block.
    go: mpsc::Sender<()>,
    pending: JoinHandle<u32>,
    running: JoinHandle<u32>,
    cancelled: JoinHandle<u32>,
    panicked: JoinHandle<u32>,
    returned: JoinHandle<u32>,
    pool: ThreadPool,
}

impl States {
    fn new() -> Self {
        let pool = ThreadPool::new(1);
        let panicked = pool.submit(|| panic!("as it should"));
        let returned = pool.submit(|| 42);
        let (go, wait) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        let running = pool.submit(move || {
            tell.send(()).unwrap();
            let _ = wait.recv();
            43
        });
        // There is one worker, so the first two jobs have finished now.
        told.recv().unwrap();
        let cancelled = pool.submit(|| 0);
        assert!(cancelled.cancel());
        Self {
            go,
            pending: pool.submit(|| 44),
            running,
            cancelled,
            panicked,
            returned,
            pool,
        }
    }

    /// Returns the handles in declaration order.
    fn all(&self) -> [&JoinHandle<u32>; 5] {
        [
            &self.pending,
            &self.running,
            &self.cancelled,
            &self.panicked,
            &self.returned,
        ]
    }
}

/// Submits a job that ends when the sender says so: with `Ok`, or with a panic with that message.
fn told_job(pool: &ThreadPool) -> (mpsc::Sender<Result<u32, String>>, JoinHandle<u32>) {
    let (go, wait) = mpsc::channel::<Result<u32, String>>();
    let handle = pool.submit(move || match wait.recv() {
        Ok(Err(text)) => panic!("{text}"),
        Ok(Ok(result)) => result,
        Err(_) => 0,
    });
    (go, handle)
}

fn keys<K: Copy, T>(handles: &[Tagged<K, JoinHandle<T>>]) -> Vec<K> {
    handles.iter().map(|handle| *handle.key()).collect()
}

/// Returns the message of a panic of `f`.
fn text_of_panic(f: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(f)).expect_err("it should panic");
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => (*payload.downcast_ref::<&str>().expect("text")).to_owned(),
    }
}

/// An executor that keeps its jobs until the test takes them.
#[derive(Default)]
struct Kept(Mutex<VecDeque<Job>>);

impl Kept {
    fn next(&self) -> Job {
        self.0.lock().unwrap().pop_front().expect("a job")
    }
}

impl Executor for Kept {
    fn execute(&self, job: Job) {
        self.0.lock().unwrap().push_back(job);
    }
}
