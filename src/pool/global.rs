//! The process-wide pool.

use std::panic::Location;
use std::sync::OnceLock;

use crate::pool::{Metrics, ThreadPool};
use crate::task::join_handle::JoinHandle;
use crate::task::span;

/// The process-wide pool: see [`global`].
#[derive(Debug)]
pub struct GlobalPool {
    pub(crate) pool: ThreadPool,
}

/// A pool of default size for the whole process, made at the first use.
///
/// It cannot be shut down, is never dropped, and captures no runtime. **Jobs that are unfinished at the end of `main`
/// are lost**: wait for your handles.
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

/// Submits a job to the [process-wide pool](global).
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
    /// As [`ThreadPool::submit`]; the queue has no limit.
    #[track_caller]
    pub fn submit<F, T>(&self, closure: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.pool
            .submit_from(closure, Location::caller(), span::current())
    }

    /// As [`ThreadPool::metrics`].
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.pool.metrics()
    }
}
