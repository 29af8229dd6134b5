//! The least that two threads can do to wait for each other: they hand one flag back and forth.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

/// The time of each of so many trips there and back, with a rest before each that is not part of it.
pub fn trips(count: usize, rest: Option<Duration>) -> Vec<Duration> {
    let flag = Arc::new(AtomicBool::new(false));
    let theirs = Arc::clone(&flag);
    let here = thread::current();
    let other = thread::spawn(move || {
        for _ in 0..count {
            park_until(&theirs, true);
            theirs.store(false, SeqCst);
            here.unpark();
        }
    });
    let times = (0..count)
        .map(|_| {
            rest.into_iter().for_each(thread::sleep);
            let start = Instant::now();
            flag.store(true, SeqCst);
            other.thread().unpark();
            park_until(&flag, false);
            start.elapsed()
        })
        .collect();
    other.join().expect("no panic");
    times
}

fn park_until(flag: &AtomicBool, value: bool) {
    while flag.load(SeqCst) != value {
        thread::park();
    }
}
