//! A pool whose workers are blocked, so submitted jobs stay in the queue.

use std::sync::mpsc::{Sender, channel};

use futurepool::{ThreadPool, ThreadPoolBuilder};

pub(crate) struct BlockedPool {
    // Must be dropped before `pool`: it releases the workers, which the drop of the pool joins.
    _release: Vec<Sender<()>>,
    pub(crate) pool: ThreadPool,
}

impl BlockedPool {
    pub(crate) fn new(options: ThreadPoolBuilder) -> Self {
        let pool = options.build().expect("the options are valid");
        let block = |_| {
            let (started, has_started) = channel();
            let (release, wait) = channel();
            let job = pool.submit(move || {
                started.send(()).expect("`new` waits for the job to start");
                wait.recv()
            });
            has_started.recv().expect("a worker is free");
            drop(job);
            release
        };
        Self {
            _release: (0..pool.max_workers()).map(block).collect(),
            pool,
        }
    }
}
