//! The process-wide pool.

use std::panic::Location;
use std::sync::OnceLock;

use crate::pool::{Metrics, ThreadPool};
use crate::task::join_handle::JoinHandle;
use crate::task::span;

/// The type of the process-wide pool: see [`global`].
///
/// The pool is never dropped, and it cannot be shut down.
#[derive(Debug)]
pub struct GlobalPool {
    pub(crate) pool: ThreadPool,
}

/// Returns the process-wide pool, which is created at the first call.
///
/// The pool has the default size. It cannot be shut down, is never dropped, and captures no
/// runtime. **Jobs that are unfinished at the end of `main` are lost**: wait for your handles.
///
/// # Examples
///
/// ```
/// let handle = futurepool::global().submit(|| 2 + 2);
/// assert_eq!(handle.join().unwrap(), 4);
/// ```
pub fn global() -> &'static GlobalPool {
    static GLOBAL: OnceLock<GlobalPool> = OnceLock::new();
    GLOBAL.get_or_init(|| {
        let builder = ThreadPool::builder().thread_name_prefix("global");
        let pool = builder.without_runtime().build();
        GlobalPool {
            pool: pool.expect("the options are in order"),
        }
    })
}

/// Queues a job on the [process-wide pool](global) and returns its handle.
///
/// Dropping the handle detaches the job, which still runs unless `main` ends before.
///
/// # Examples
///
/// ```
/// # futures::executor::block_on(async {
/// let sum = futurepool::submit(|| (1..=100).sum::<u32>()).await;
/// assert_eq!(sum.unwrap(), 5050);
/// # });
/// ```
#[doc(alias = "to_thread")]
#[track_caller]
pub fn submit<F, T>(closure: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    global().submit(closure)
}

impl GlobalPool {
    /// Queues a job and returns its handle: see [`ThreadPool::submit`].
    ///
    /// The queue is unbounded, so this never blocks.
    #[track_caller]
    pub fn submit<F, T>(&self, closure: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.pool
            .submit_from(closure, Location::caller(), span::current())
    }

    /// Returns the current metrics of the pool: see [`ThreadPool::metrics`].
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.pool.metrics()
    }
}
