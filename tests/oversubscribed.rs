//! A machine with more runnable threads than processors. A binary of its own, since the test
//! creates that load.

#[allow(dead_code, reason = "this binary needs a part of the helpers")]
mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use common::{LONG, within};
use futurepool::{ThreadPool, block_on};

/// Returns the median of many trips, with a pause before each.
fn usual(mut trip: impl FnMut()) -> Duration {
    let mut times: Vec<_> = (0..101)
        .map(|_| {
            thread::sleep(Duration::from_millis(1));
            let start = Instant::now();
            trip();
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}

/// A thread that spins for the result must not pay for it by losing its processor to other threads
/// for milliseconds.
#[test]
fn a_join_takes_no_longer_than_one_that_parks_at_once() {
    within(LONG, "busy", || {
        let over = Arc::new(AtomicBool::new(false));
        let processors = thread::available_parallelism().map_or(1, |n| n.get());
        let busy: Vec<_> = (0..2 * processors)
            .map(|_| {
                let over = Arc::clone(&over);
                thread::spawn(move || while !over.load(SeqCst) {})
            })
            .collect();

        let pool = ThreadPool::new(2);
        let joined = usual(|| pool.submit(|| ()).join().unwrap());
        let awaited = usual(|| block_on(async { pool.submit(|| ()).await.unwrap() }));
        // Two threads that pass a flag back and forth, and park at once.
        let flag = Arc::new(AtomicBool::new(false));
        let (theirs, this, done) = (Arc::clone(&flag), thread::current(), Arc::clone(&over));
        let other = thread::spawn(move || {
            while !done.load(SeqCst) {
                if theirs.swap(false, SeqCst) {
                    this.unpark();
                }
                thread::park();
            }
        });
        let parked = usual(|| {
            flag.store(true, SeqCst);
            other.thread().unpark();
            while flag.load(SeqCst) {
                thread::park();
            }
        });
        over.store(true, SeqCst);
        other.thread().unpark();
        other.join().unwrap();
        busy.into_iter().for_each(|thread| thread.join().unwrap());
        println!("joined {joined:?}, awaited {awaited:?}, parked {parked:?}");
        let most = 3 * parked + Duration::from_millis(1);
        assert!(
            joined < most && awaited < most,
            "{joined:?}, {awaited:?}, {parked:?}"
        );
    });
}
