//! The compared pools, one adapter per file, behind one trait.
//!
//! The trait adds no overhead: no boxes, no dynamic calls, no conversions of results.

mod affinitypool;
mod blocking;
mod crossbeam;
mod futurepool;
mod rayon;
mod rusty_pool;
mod threadfin;
mod threadpool;
mod tokio;

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::{Arc, Barrier, mpsc};
use std::task::{Context, Poll, ready};

use futures::stream::{FuturesUnordered, Stream};

use crate::placement::pin_worker;

pub use self::affinitypool::Affinitypool;
pub use self::blocking::Blocking;
pub use self::crossbeam::Crossbeam;
pub use self::futurepool::Futurepool;
pub use self::rayon::Rayon;
pub use self::rusty_pool::RustyPool;
pub use self::threadfin::Threadfin;
pub use self::threadpool::Threadpool;
pub use self::tokio::{Tokio, runtime};

/// The names that `--peer` accepts, futurepool first. The last ones are programs, not adapters.
pub const NAMES: [&str; 14] = [
    Futurepool::NAME,
    Tokio::NAME,
    Blocking::NAME,
    Affinitypool::NAME,
    Rayon::NAME,
    Threadpool::NAME,
    RustyPool::NAME,
    Threadfin::NAME,
    Crossbeam::NAME,
    "python",
    "java",
    "go",
    "c++",
    "bs_thread_pool",
];

/// The pools of worker processes, futurepool first. The last ones are programs, not adapters.
pub const PROCESS_NAMES: [&str; 5] = [
    Futurepool::NAME,
    "procspawn",
    "ProcessPoolExecutor",
    "loky",
    "pebble",
];

/// Returns whether a participant of this name is a pool. A floor is none, nor is a variant of a pool.
pub fn is_pool(name: &str) -> bool {
    NAMES.contains(&name) || PROCESS_NAMES.contains(&name)
}

/// A pool that accepts jobs from any thread, including its own workers.
pub trait Peer: Clone + Send + Sync + 'static {
    const NAME: &'static str;
    /// The maximum number of workers. The pool silently caps a larger number.
    const MAX_WORKERS: usize = usize::MAX;

    fn new(workers: usize) -> Self;

    fn submit<T, F>(&self, job: F) -> impl Future<Output = T> + Send + 'static
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static;

    /// Submits `job` and blocks until it returns, in the fastest way that the pool offers.
    fn call<T, F>(&self, job: F) -> T
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        pollster::block_on(self.submit(job))
    }

    /// Returns the results in completion order, in the fastest way that the pool offers.
    fn as_completed<H: Future>(handles: impl Iterator<Item = H>) -> impl Stream<Item = H::Output> {
        handles.collect::<FuturesUnordered<H>>()
    }
}

/// A pool whose queued jobs can be cancelled.
pub trait Cancels: Peer {
    type Handle: Send;

    fn queue(&self, job: impl FnOnce() + Send + 'static) -> Self::Handle;
    fn cancel(handle: &mut Self::Handle);
}

/// A future that unwraps the `Ok` of another future without overhead.
struct Unwrapped<F>(F);

impl<T, E: Debug, F: Future<Output = Result<T, E>> + Unpin> Future for Unwrapped<F> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let outcome = ready!(Pin::new(&mut self.0).poll(context));
        Poll::Ready(outcome.expect("the job returned"))
    }
}

/// Starts and pins all workers by running `workers` jobs at once.
///
/// The workers are about to become idle when this function returns.
///
/// # Panics
///
/// Panics if the pool drops a job without running it.
pub fn start_workers<P: Peer>(pool: &P, workers: usize) {
    let (arrived, arrivals) = mpsc::channel();
    let gate = Arc::new(Barrier::new(workers + 1));
    let handles: Vec<_> = (0..workers)
        .map(|_| {
            let (arrived, gate) = (arrived.clone(), Arc::clone(&gate));
            pool.submit(move || {
                pin_worker();
                arrived.send(()).expect("the caller receives");
                gate.wait();
            })
        })
        .collect();
    drop(arrived); // a lost job makes `recv` below fail
    for _ in 0..workers {
        arrivals.recv().expect("every job starts");
    }
    gate.wait();
    pollster::block_on(async {
        for handle in handles {
            handle.await;
        }
    });
}
