use std::sync::Arc;

use futurepool::{JoinHandle, ThreadPool};
use futures::stream::Stream;

use super::{Cancels, Peer, Unwrapped};

#[derive(Clone)]
pub struct Futurepool(Arc<ThreadPool>);

impl Futurepool {
    pub fn pool(&self) -> &ThreadPool {
        &self.0
    }
}

impl Peer for Futurepool {
    const NAME: &'static str = "futurepool";

    fn new(workers: usize) -> Self {
        Self(Arc::new(ThreadPool::new(workers)))
    }

    fn submit<T, F>(&self, job: F) -> impl Future<Output = T> + Send + 'static
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        Unwrapped(self.0.submit(job))
    }

    fn call<T, F>(&self, job: F) -> T
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.0.submit(job).join().expect("the job returned")
    }

    fn as_completed<H: Future>(handles: impl Iterator<Item = H>) -> impl Stream<Item = H::Output> {
        futurepool::as_completed(handles)
    }
}

impl Cancels for Futurepool {
    type Handle = JoinHandle<()>;

    fn queue(&self, job: impl FnOnce() + Send + 'static) -> Self::Handle {
        self.0.submit(job)
    }

    fn cancel(handle: &mut Self::Handle) {
        handle.cancel();
    }
}
