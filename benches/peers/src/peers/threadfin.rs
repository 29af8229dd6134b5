use std::sync::Arc;

use super::Peer;

#[derive(Clone)]
pub struct Threadfin(Arc<threadfin::ThreadPool>);

impl Peer for Threadfin {
    const NAME: &'static str = "threadfin";

    fn new(workers: usize) -> Self {
        Self(Arc::new(threadfin::builder().size(workers).build()))
    }

    fn submit<T, F>(&self, job: F) -> impl Future<Output = T> + Send + 'static
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.0.execute(job)
    }

    fn call<T, F>(&self, job: F) -> T
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.0.execute(job).join()
    }
}
