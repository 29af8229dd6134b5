use std::thread;

use crossbeam_channel::{Sender, unbounded};

use super::{Peer, Unwrapped};

type Job = Box<dyn FnOnce() + Send>;

/// A hand-written pool: threads around a channel of boxed closures.
///
/// Each result comes back through a `oneshot` channel. The threads exit when the last sender is
/// dropped.
#[derive(Clone)]
pub struct Crossbeam(Sender<Job>);

impl Crossbeam {
    fn send<T, F>(&self, job: F, sender: oneshot::Sender<T>)
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let job = move || {
            let _ = sender.send(job());
        };
        self.0.send(Box::new(job)).expect("the workers are alive");
    }
}

impl Peer for Crossbeam {
    const NAME: &'static str = "crossbeam";

    fn new(workers: usize) -> Self {
        let (sender, jobs) = unbounded::<Job>();
        for _ in 0..workers {
            let jobs = jobs.clone();
            thread::spawn(move || jobs.iter().for_each(|job| job()));
        }
        Self(sender)
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
