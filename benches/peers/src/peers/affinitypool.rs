use std::pin::Pin;
use std::sync::Arc;

use super::{Cancels, Peer};

#[derive(Clone)]
pub struct Affinitypool(Arc<affinitypool::Threadpool>);

impl Peer for Affinitypool {
    const NAME: &'static str = "affinitypool";
    const MAX_WORKERS: usize = affinitypool::MAX_THREADS;

    fn new(workers: usize) -> Self {
        Self(Arc::new(affinitypool::Threadpool::new(workers)))
    }

    fn submit<T, F>(&self, job: F) -> impl Future<Output = T> + Send + 'static
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.0.spawn(job)
    }
}

impl Cancels for Affinitypool {
    // Boxed because the type has no name. The workload does not time queueing.
    type Handle = Option<Pin<Box<dyn Future<Output = ()> + Send>>>;

    fn queue(&self, job: impl FnOnce() + Send + 'static) -> Self::Handle {
        Some(Box::pin(self.0.spawn(job)))
    }

    /// Drops the future, which cancels the job.
    fn cancel(handle: &mut Self::Handle) {
        *handle = None;
    }
}
