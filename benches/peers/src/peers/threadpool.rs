use super::{Peer, Unwrapped};

/// Calls `execute`, and returns the result through a `oneshot` channel.
#[derive(Clone)]
pub struct Threadpool(threadpool::ThreadPool);

impl Threadpool {
    fn send<T, F>(&self, job: F, sender: oneshot::Sender<T>)
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.0.execute(move || {
            let _ = sender.send(job());
        });
    }
}

impl Peer for Threadpool {
    const NAME: &'static str = "threadpool";

    fn new(workers: usize) -> Self {
        Self(threadpool::ThreadPool::new(workers))
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
