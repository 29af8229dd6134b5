use std::time::Duration;

use super::{Peer, Unwrapped};

#[derive(Clone)]
pub struct RustyPool(rusty_pool::ThreadPool);

impl Peer for RustyPool {
    const NAME: &'static str = "rusty_pool";

    /// Makes all workers core workers, so an idle worker never exits.
    fn new(workers: usize) -> Self {
        let idle = Duration::from_secs(60);
        Self(rusty_pool::ThreadPool::new(workers, workers, idle))
    }

    fn submit<T, F>(&self, job: F) -> impl Future<Output = T> + Send + 'static
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        Unwrapped(self.0.evaluate(job).receiver)
    }

    fn call<T, F>(&self, job: F) -> T
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.0.evaluate(job).await_complete()
    }
}
