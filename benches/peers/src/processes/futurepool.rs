use std::env;
use std::thread;
use std::time::{Duration, Instant};

use futurepool::Bytes;
use futurepool::process::ProcessPool;

use super::pool::{LONG, Pool, RUN};
use super::tasks;
use crate::peers::{Futurepool, Peer};

impl Pool for ProcessPool {
    const NAME: &'static str = Futurepool::NAME;
    const BURST: u64 = 20_000;
    const ITEMS: u64 = 200_000;
    type Bytes = Bytes;

    fn new(workers: usize) -> Self {
        let builder = ProcessPool::builder().max_workers(workers);
        builder.build().expect("the pool starts")
    }

    fn small() -> Self {
        let own = env::current_exe().expect("this executable has a path");
        let builder = ProcessPool::builder().max_workers(1);
        let builder = builder.program(own.with_file_name("process-worker"));
        builder.build().expect("the pool starts")
    }

    fn pin(&self, processor: usize) {
        let pinned = self.submit(tasks::pin::call(processor));
        pinned.join().expect("the job succeeds");
    }

    fn empty(&self) {
        let handle = self.submit(tasks::empty::call());
        handle.join().expect("the job succeeds");
    }

    fn burst(&self, jobs: u64) -> u64 {
        let submit = |number| self.submit(tasks::identity::call(number));
        let handles: Vec<_> = (0..jobs).map(submit).collect();
        let results = handles.into_iter().map(|handle| handle.join());
        results
            .map(|result| result.expect("the job succeeds"))
            .sum()
    }

    fn map_numbers(&self, items: u64) -> u64 {
        let calls = (0..items).map(tasks::identity::call);
        let results = self.map(calls).chunk_size(64).into_iter();
        results
            .map(|result| result.expect("the job succeeds"))
            .sum()
    }

    fn bytes(len: usize) -> Bytes {
        vec![7; len].into()
    }

    fn echo(&self, bytes: Bytes) -> Bytes {
        let handle = self.submit(tasks::echo::call(bytes));
        handle.join().expect("the job succeeds")
    }

    fn same(one: &Bytes, other: &Bytes) -> bool {
        **one == **other
    }

    fn cancel(&self) -> (Duration, Duration) {
        let handle = self.submit(tasks::sleep::call(LONG));
        while !handle.is_running() {
            thread::yield_now();
        }
        thread::sleep(RUN);
        let start = Instant::now();
        assert!(handle.cancel(), "a running job is killed");
        let error = handle.join().expect_err("it was cancelled");
        let until_error = start.elapsed();
        assert!(error.is_cancelled(), "{error}");
        self.empty();
        (until_error, start.elapsed())
    }

    fn overshoot(&self, limit: Duration) -> Duration {
        let start = Instant::now();
        let handle = self.submit(tasks::sleep::call(LONG).time_limit(limit));
        let error = handle.join().expect_err("it takes longer than the limit");
        let elapsed = start.elapsed();
        assert!(error.is_time_limit(), "{error}");
        self.empty();
        elapsed.saturating_sub(limit)
    }

    fn crash(&self) -> Duration {
        let start = Instant::now();
        let crashed = self.submit(tasks::crash::call());
        let next = self.submit(tasks::empty::call());
        let error = crashed.join().expect_err("its worker aborts");
        assert!(error.is_crashed(), "{error}");
        next.join().expect("the next job succeeds");
        start.elapsed()
    }

    fn start_workers(&self, workers: usize) {
        let sleep = |_| self.submit(tasks::sleep::call(Duration::from_millis(50)));
        let handles: Vec<_> = (0..workers).map(sleep).collect();
        for handle in handles {
            handle.join().expect("the job succeeds");
        }
    }
}
