//! Large arguments and results.

use std::process;
use std::thread;
use std::time::{Duration, Instant};

use futurepool::{Bytes, ProcessPool, Task, task};
use rustix::process::{Pid, Signal, getpid, kill_process};

use crate::common::{LONG, eventually, within};

const LARGE: usize = 256 << 20;

/// Each byte is told by its place.
fn pattern(len: usize, seed: u8) -> Vec<u8> {
    let page: Vec<_> = (0..4099_u32).map(|n| (n % 251) as u8 ^ seed).collect();
    let mut all = page.repeat(len / page.len() + 1);
    all.truncate(len);
    all
}

/// Gives it back as it came.
#[task]
fn echo(data: Bytes) -> Bytes {
    data
}

#[task]
fn length(data: Bytes) -> usize {
    data.len()
}

#[task]
fn many(data: Vec<u8>, parts: usize) -> Vec<Bytes> {
    let size = data.len().div_ceil(parts);
    data.chunks(size).map(Bytes::from).collect()
}

/// Kills its process while the result is written: when it has lost some of its memory again.
#[task]
fn give_and_crash(size: usize) -> Bytes {
    thread::spawn(|| {
        // The pool reads what is written into memory of its own, so that is what tells.
        let parent = std::os::unix::process::parent_id();
        let before = crate::memory::resident(parent);
        loop {
            if crate::memory::resident(parent) > before + (40 << 20) {
                kill_process(getpid(), Signal::KILL).unwrap();
            }
        }
    });
    Bytes::from(vec![7; size])
}

#[test]
fn promise_13_a_quarter_of_a_gigabyte_goes_there_and_back() {
    within(2 * LONG, "large", || {
        let pool = ProcessPool::builder().max_workers(1).build().unwrap();
        let data = Bytes::from(pattern(LARGE, 3));
        let back = pool.submit(echo::call(data.clone())).join().unwrap();
        assert!(back == data);
        drop((data, back));
        let parts = pool
            .submit(many::call(pattern(64 << 20, 5), 1000))
            .join()
            .unwrap();
        assert_eq!(parts.len(), 1000);
        let parts: Vec<_> = parts.iter().map(|part| &**part).collect();
        assert!(parts.concat() == pattern(64 << 20, 5));
    });
}

#[test]
fn promise_13_large_payloads_of_several_jobs_at_once() {
    within(2 * LONG, "several", || {
        let pool = ProcessPool::builder().max_workers(3).build().unwrap();
        let jobs: Vec<_> = (0..12_u8)
            .map(|seed| (seed, pool.submit(echo::call(pattern(8 << 20, seed).into()))))
            .collect();
        for (seed, job) in jobs {
            assert!(*job.join().unwrap() == *pattern(8 << 20, seed));
        }
    });
}

#[test]
fn promise_13_a_crash_in_the_middle_of_the_arguments_is_an_error() {
    within(2 * LONG, "arguments", || {
        let pool = ProcessPool::builder().max_workers(1).build().unwrap();
        assert_eq!(
            pool.submit(length::call(vec![1; 10].into()))
                .join()
                .unwrap(),
            10
        );
        let worker = pool.workers()[0].pid;
        let data = Bytes::from(vec![1; LARGE]);
        let job = pool.submit(length::call(data.clone()));
        // It has read some of it, and has not begun.
        eventually("it reads", || crate::memory::resident(worker) > 40 << 20);
        let pid = Pid::from_raw(worker as i32).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
        // It was not begun, so it goes to another worker; unless it was read before the kill.
        match job.join() {
            Ok(len) => assert_eq!(len, LARGE),
            Err(error) => assert!(error.is_crashed(), "{error}"),
        }
        assert_eq!(pool.submit(length::call(data)).join().unwrap(), LARGE);
        assert_ne!(pool.workers()[0].pid, worker);
    });
}

#[test]
fn promise_13_a_crash_in_the_middle_of_the_result_is_an_error() {
    // In a process of its own, whose memory tells how far it is.
    let test = "payload::promise_13_a_crash_in_the_middle_of_the_result_is_an_error";
    crate::common::child::alone(test, || {
        let pool = ProcessPool::builder().max_workers(1).build().unwrap();
        for _ in 0..3 {
            let error = pool.submit(give_and_crash::call(LARGE)).join().unwrap_err();
            assert!(error.is_crashed() && error.may_have_run(), "{error}");
        }
        assert_eq!(
            pool.submit(length::call(vec![1; 10].into()))
                .join()
                .unwrap(),
            10
        );
    });
}

/// Stops reading, and does not end.
#[test]
fn stopped() {
    if crate::garbage::is_worker("payload::stopped") {
        crate::garbage::greet_and_read_nothing(unread::NAME);
    }
}

#[task]
fn unread(data: Bytes) {
    drop(data);
    process::abort();
}

#[test]
fn promise_13_a_worker_that_reads_nothing_is_killed_by_the_limit_and_by_a_cancel() {
    within(2 * LONG, "unread", || {
        let pool = ProcessPool::builder().max_workers(1);
        let pool = crate::garbage::program(pool, "payload::stopped")
            .build()
            .unwrap();
        let data = Bytes::from(vec![1; LARGE]);
        let start = Instant::now();
        let limit = Duration::from_millis(300);
        let limited = pool.submit(unread::call(data.clone()).time_limit(limit));
        let error = limited.join().unwrap_err();
        assert!(error.is_time_limit(), "{error}");
        let endless = pool.submit(unread::call(data));
        eventually("it is sent", || {
            pool.workers().iter().any(|worker| worker.task.is_some())
        });
        assert!(endless.cancel());
        assert!(endless.join().unwrap_err().is_cancelled());
        assert!(start.elapsed() < LONG);
    });
}
