use blocking::{Task, unblock};

use super::{Cancels, Peer};

/// The one pool of the process. Its size is what `BLOCKING_MAX_THREADS` said when it was first used, which whoever
/// started this process has set.
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

    /// Dropping the task cancels it.
    fn cancel(handle: &mut Self::Handle) {
        *handle = None;
    }
}
