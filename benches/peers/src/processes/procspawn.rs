use std::thread;
use std::time::{Duration, Instant};

use procspawn::JoinHandle;
use serde_bytes::ByteBuf;

use super::pool::{LONG, Pool, RUN};
use crate::placement;

impl Pool for procspawn::Pool {
    const NAME: &'static str = "procspawn";
    // A queued job holds four descriptors.
    const BURST: u64 = 1_000;
    const ITEMS: u64 = 12_800;
    type Bytes = ByteBuf;

    fn new(workers: usize) -> Self {
        procspawn::Pool::new(workers).expect("the pool starts")
    }

    // A worker is always of the program itself.
    fn small() -> Self {
        <Self as Pool>::new(1)
    }

    fn pin(&self, processor: usize) {
        join(self.spawn(processor, placement::pin_to));
    }

    fn empty(&self) {
        join(self.spawn((), |()| ()));
    }

    fn burst(&self, jobs: u64) -> u64 {
        let spawn = |number: u64| self.spawn(number, |number| number);
        let handles: Vec<_> = (0..jobs).map(spawn).collect();
        handles.into_iter().map(join).sum()
    }

    // It has no `map`: the chunks are made by hand.
    fn map_numbers(&self, items: u64) -> u64 {
        let numbers: Vec<_> = (0..items).collect();
        let spawn = |chunk: &[u64]| self.spawn(chunk.to_vec(), |chunk| chunk);
        let handles: Vec<_> = numbers.chunks(64).map(spawn).collect();
        handles.into_iter().flat_map(join).sum()
    }

    fn bytes(len: usize) -> ByteBuf {
        ByteBuf::from(vec![7; len])
    }

    fn echo(&self, bytes: ByteBuf) -> ByteBuf {
        join(self.spawn(bytes, |bytes| bytes))
    }

    fn same(one: &ByteBuf, other: &ByteBuf) -> bool {
        one == other
    }

    fn cancel(&self) -> (Duration, Duration) {
        let mut handle = self.spawn(LONG, thread::sleep);
        while handle.pid().is_none() {
            thread::yield_now();
        }
        thread::sleep(RUN);
        let start = Instant::now();
        handle.kill().expect("its worker is killed");
        handle.join().expect_err("its worker was killed");
        let until_error = start.elapsed();
        self.empty();
        (until_error, start.elapsed())
    }

    fn overshoot(&self, limit: Duration) -> Duration {
        let mut handle = self.spawn(LONG, thread::sleep);
        let start = Instant::now();
        let error = handle.join_timeout(limit).expect_err("it takes longer");
        // A timeout alone does not stop the job.
        handle.kill().expect("its worker is killed");
        handle.join().expect_err("its worker was killed");
        let elapsed = start.elapsed();
        assert!(error.is_timeout(), "{error}");
        self.empty();
        elapsed.saturating_sub(limit)
    }

    fn crash(&self) -> Duration {
        let start = Instant::now();
        let crashed: JoinHandle<()> = self.spawn((), |()| std::process::abort());
        let next = self.spawn((), |()| ());
        crashed.join().expect_err("its worker aborts");
        join(next);
        start.elapsed()
    }

    fn start_workers(&self, workers: usize) {
        let sleep = |_| self.spawn(Duration::from_millis(50), thread::sleep);
        let handles: Vec<_> = (0..workers).map(sleep).collect();
        handles.into_iter().for_each(join);
    }
}

fn join<T>(handle: JoinHandle<T>) -> T
where
    T: serde::Serialize + serde::de::DeserializeOwned,
{
    handle.join().expect("the job succeeds")
}
