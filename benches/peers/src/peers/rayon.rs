use std::sync::Arc;

use super::{Peer, Unwrapped};

/// Calls `spawn_fifo`, and returns the result through a `oneshot` channel.
#[derive(Clone)]
pub struct Rayon(Arc<rayon::ThreadPool>);

impl Rayon {
    pub fn pool(&self) -> &rayon::ThreadPool {
        &self.0
    }

    fn send<T, F>(&self, job: F, sender: oneshot::Sender<T>)
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.0.spawn_fifo(move || {
            let _ = sender.send(job());
        });
    }
}

impl Peer for Rayon {
    const NAME: &'static str = "rayon";

    fn new(workers: usize) -> Self {
        let builder = rayon::ThreadPoolBuilder::new().num_threads(workers);
        Self(Arc::new(builder.build().expect("rayon builds the pool")))
    }

    fn submit<T, F>(&self, job: F) -> impl Future<Output = T> + Send + 'static
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (sender, receiver) = oneshot::async_channel();
        self.send(job, sender);
        Unwrapped(receiver)
    }

    fn call<T, F>(&self, job: F) -> T
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        self.send(job, sender);
        receiver.recv().expect("the job returned")
    }
}
