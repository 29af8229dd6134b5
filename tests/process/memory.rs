//! Memory limits.

use std::env;
use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use futurepool::process::WorkerStdio;
use futurepool::{ProcessPool, task};

use crate::common::{LONG, within};

/// Returns the resident memory of a process in bytes; 0 if it is gone.
pub(crate) fn resident(pid: u32) -> u64 {
    let sizes = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let pages = sizes
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}

const STEP: usize = 8 << 20;

/// Allocates in steps, up to `bytes`.
fn grow(bytes: u64) -> u64 {
    let mut all = Vec::new();
    while (all.len() * STEP) < bytes as usize {
        // Zeros would take no memory.
        all.push(vec![1_u8; STEP]);
        thread::sleep(Duration::from_millis(5));
    }
    all.iter().map(|step| step.len() as u64).sum()
}

#[task]
fn allocate(bytes: u64) -> u64 {
    grow(bytes)
}

/// Has a child of its own do that.
#[task]
fn allocate_in_child(bytes: u64) {
    let mut child = Command::new(env::current_exe().unwrap());
    child.args(["memory::grows", "--exact", "--nocapture"]);
    let status = child
        .env(GROW, bytes.to_string())
        .stdout(std::process::Stdio::null())
        .status();
    assert!(status.unwrap().success());
}

const GROW: &str = "FUTUREPOOL_TEST_GROW";

/// A process that grows. As a test it does nothing.
#[test]
fn grows() {
    if let Ok(bytes) = env::var(GROW) {
        grow(bytes.parse().unwrap());
        thread::sleep(2 * LONG);
    }
}

#[task]
fn add_up(count: u64) -> u64 {
    let sum = (0..count).sum();
    thread::sleep(Duration::from_millis(count));
    sum
}

const LIMIT: u64 = 200 << 20;

/// A neighbour works on while `call` exceeds the limit.
fn exceed(call: impl FnOnce(&ProcessPool) -> futurepool::JoinError + Send + 'static) {
    within(LONG, "memory", move || {
        let builder = ProcessPool::builder().max_workers(2).memory_limit(LIMIT);
        let pool = builder.build().unwrap();
        let is_over = AtomicBool::new(false);
        let error = thread::scope(|scope| {
            let neighbour = scope.spawn(|| {
                let mut jobs = 0;
                while !is_over.load(Ordering::Relaxed) {
                    assert_eq!(pool.submit(add_up::call(10)).join().unwrap(), 45);
                    jobs += 1;
                }
                jobs
            });
            let error = call(&pool);
            is_over.store(true, Ordering::Relaxed);
            assert!(neighbour.join().unwrap() > 0);
            error
        });
        assert!(error.is_memory_limit(), "{error}");
        assert!(!error.is_crashed() && !error.is_time_limit());
        assert!(error.may_have_run());
        let text = error.to_string();
        assert!(text.contains(&LIMIT.to_string()), "{text}");
        let numbers = text.split(|c: char| !c.is_ascii_digit());
        let numbers = numbers.filter_map(|number| number.parse::<u64>().ok());
        let size = numbers.filter(|number| *number > LIMIT).max();
        assert!(size.is_some_and(|size| size < 4 * LIMIT), "{text}");
        // Up to the limit is no reason.
        let small = 10 * STEP as u64;
        assert_eq!(pool.submit(allocate::call(small)).join().unwrap(), small);
        assert_eq!(pool.metrics().failed, 1);
    });
}

#[test]
fn promise_16_a_memory_limit_kills_during_the_job_and_its_neighbours_go_on() {
    exceed(|pool| pool.submit(allocate::call(8 << 30)).join().unwrap_err());
}

#[test]
fn promise_16_a_memory_limit_counts_the_processes_that_a_job_starts() {
    exceed(|pool| {
        pool.submit(allocate_in_child::call(400 << 20))
            .join()
            .unwrap_err()
    });
}

#[test]
fn promise_16_an_address_space_limit_is_one_of_the_system() {
    within(LONG, "address space", || {
        let builder = ProcessPool::builder()
            .max_workers(1)
            .address_space_limit(600 << 20);
        let pool = builder.stderr(WorkerStdio::null()).build().unwrap();
        let error = pool.submit(allocate::call(4 << 30)).join().unwrap_err();
        assert!(error.is_crashed() && !error.is_memory_limit(), "{error}");
        assert_eq!(pool.submit(add_up::call(3)).join().unwrap(), 3);
    });
}
