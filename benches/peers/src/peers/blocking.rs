use blocking::{Task, unblock};

use super::{Cancels, Peer};

/// The only pool of the process.
///
/// The crate reads the size from `BLOCKING_MAX_THREADS` on first use. The parent process sets this
/// variable.
#[derive(Clone)]
pub struct Blocking;

impl Peer for Blocking {
    const NAME: &'static str = "blocking";

    fn new(_workers: usize) -> Self {
        Self
    }

    fn submit<T, F>(&self, job: F) -> impl Future<Output = T> + Send + 'static
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        unblock(job)
    }
}

impl Cancels for Blocking {
    type Handle = Option<Task<()>>;

    fn queue(&self, job: impl FnOnce() + Send + 'static) -> Self::Handle {
        Some(unblock(job))
    }

    /// Drops the task, which cancels it.
    fn cancel(handle: &mut Self::Handle) {
        *handle = None;
    }
}
