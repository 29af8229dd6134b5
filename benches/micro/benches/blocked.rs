//! A pool whose workers do nothing, so that what is submitted stays in the queue.

use std::sync::mpsc::{Sender, channel};

use futurepool::{ThreadPool, ThreadPoolBuilder};

pub(crate) struct BlockedPool {
    // Dropped first: it lets the workers go, for whose end the drop of the pool waits.
    _until: Vec<Sender<()>>,
    pub(crate) pool: ThreadPool,
}

impl BlockedPool {
    pub(crate) fn new(options: ThreadPoolBuilder) -> Self {
        let pool = options.build().expect("good options");
        let block = |_| {
            let (started, has_started) = channel();
            let (until, wait) = channel();
            let job = pool.submit(move || {
                started.send(()).expect("somebody waits for it");
                wait.recv()
            });
            has_started.recv().expect("a worker is free");
            drop(job);
            until
        };
        Self {
            _until: (0..pool.max_workers()).map(block).collect(),
            pool,
        }
    }
}
