//! The floor: two threads hand one flag back and forth with `park` and `unpark`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

/// Returns the times of `count` round trips. The thread sleeps for `pause` before each, unmeasured.
pub fn trips(count: usize, pause: Option<Duration>) -> Vec<Duration> {
    let flag = Arc::new(AtomicBool::new(false));
    let other_flag = Arc::clone(&flag);
    let here = thread::current();
    let other = thread::spawn(move || {
        for _ in 0..count {
            park_until(&other_flag, true);
            other_flag.store(false, SeqCst);
            here.unpark();
        }
    });
    let times = (0..count)
        .map(|_| {
            pause.into_iter().for_each(thread::sleep);
            let start = Instant::now();
            flag.store(true, SeqCst);
            other.thread().unpark();
            park_until(&flag, false);
            start.elapsed()
        })
        .collect();
    other.join().expect("the other thread does not panic");
    times
}

fn park_until(flag: &AtomicBool, value: bool) {
    while flag.load(SeqCst) != value {
        thread::park();
    }
}
