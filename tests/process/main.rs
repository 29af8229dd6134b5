//! Worker processes: each test starts real ones, and kills some for real.

#![cfg(unix)]

#[allow(dead_code, reason = "this binary needs a part of the helpers")]
#[path = "../common/mod.rs"]
mod common;

mod bounded;
mod cancel;
mod codec;
mod crashes;
#[cfg(target_os = "linux")]
mod descriptors;
mod encoded;
mod events;
mod events_of_workers;
#[cfg(target_os = "linux")]
mod forked;
#[path = "../common/forking.rs"]
mod forking;
mod garbage;
mod hosts;
#[cfg(target_os = "linux")]
mod idle;
mod jobs;
mod limits;
#[cfg(target_os = "linux")]
mod map;
#[cfg(target_os = "linux")]
mod memory;
mod nested;
mod no_unsafe;
#[cfg(target_os = "linux")]
mod orphans;
mod output;
mod panicking;
#[cfg(target_os = "linux")]
mod payload;
#[cfg(target_os = "linux")]
mod procs;
#[cfg(target_os = "linux")]
mod random;
#[cfg(target_os = "linux")]
mod recycle;
mod slow;
#[cfg(target_os = "linux")]
mod start;
mod timings;

use std::time::Duration;

use futurepool::{ProcessPool, task};

futurepool::process::test_init!();

#[task]
fn add(a: u32, b: u32) -> u32 {
    a + b
}

#[task]
fn abort() {
    std::process::abort();
}

#[task]
fn sleep(millis: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(millis));
    millis
}

#[task]
fn panics() -> u32 {
    panic!("no such luck")
}

#[test]
fn a_task_runs_in_another_process() {
    let pool = ProcessPool::builder().max_workers(2).build().unwrap();
    assert_eq!(pool.submit(add::call(1, 2)).join().unwrap(), 3);
    let error = pool.submit(abort::call()).join().unwrap_err();
    println!("{error}");
    assert!(error.is_crashed());
    let error = pool.submit(panics::call()).join().unwrap_err();
    println!("{error}");
    assert!(error.is_panic());
    let error = pool
        .submit(sleep::call(10_000).time_limit(Duration::from_millis(100)))
        .join()
        .unwrap_err();
    println!("{error}");
    assert!(error.is_time_limit());
    let slow = pool.submit(sleep::call(10_000));
    while !slow.is_running() {
        std::thread::yield_now();
    }
    assert!(slow.cancel());
    let error = slow.join().unwrap_err();
    println!("{error}");
    assert!(error.is_cancelled());
    println!("{:?} {:?}", pool.metrics(), pool.workers());
    assert_eq!(pool.submit(add::call(1, 2)).join().unwrap(), 3);
}
