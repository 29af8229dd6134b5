//! Worker processes in a program with `panic = "abort"`. It checks itself: a panic of it is an abort.

use std::env;
use std::os::unix::process::ExitStatusExt;
use std::process;
use std::thread;
use std::time::Duration;

use futurepool::process::WorkerStdio;
use futurepool::{JoinHandle, ProcessPool, as_completed, process as workers, task};

#[task]
fn add(a: u32, b: u32) -> u32 {
    a.checked_add(b)
        .expect(concat!("no overflow in line ", line!()))
}

#[task]
fn pid() -> u32 {
    process::id()
}

#[task]
fn exit(code: i32) {
    process::exit(code);
}

#[task]
fn sleep() {
    thread::sleep(Duration::from_secs(3600));
}

/// Panics on a thread of its own, which ends the process, too.
#[task]
fn panic_on_a_thread() {
    let _ = thread::spawn(|| panic!("on a thread")).join();
}

#[task]
fn setup(fails: bool) {
    assert!(!fails, "no setup");
}

/// Set in workers that do what a program must not do.
const EARLY: &str = "FUTUREPOOL_TEST_EARLY_POOL";

fn main() {
    if env::var_os(EARLY).is_some() {
        build_a_pool_too_early();
    }
    workers::init();
    let builder = ProcessPool::builder()
        .max_workers(2)
        .stderr(WorkerStdio::lines(|_| {}));
    let pool = builder.build().expect("valid options");

    promise_11_a_panic_carries_message_and_location(&pool);
    all_kinds_of_errors_are_told_to_the_handles(&pool);
    a_panic_in_the_initializer_breaks_the_pool();
    promise_19_a_program_that_builds_its_pool_before_init_is_no_fork_bomb();

    let metrics = pool.metrics();
    let ended = metrics.completed + metrics.panicked + metrics.cancelled + metrics.failed;
    assert_eq!(metrics.submitted, ended, "{metrics:?}");
    println!("ok");
}

fn promise_11_a_panic_carries_message_and_location(pool: &ProcessPool) {
    for _ in 0..20 {
        let error = pool
            .submit(add::call(u32::MAX, 1))
            .join()
            .expect_err("an overflow");
        assert!(error.is_panic() && !error.is_crashed(), "{error}");
        let message = error.panic_message().expect("a message");
        let line = message.strip_prefix("no overflow in line ").expect(message);
        let place = format!("src/main.rs:{line}:");
        let location = error.panic_location().expect("a location");
        assert!(location.starts_with(&place), "{location} is not {place}");
        let status = error.exit_status().expect("the process has ended");
        assert_eq!(status.signal(), Some(6), "it was aborted: {status}");
        assert!(
            error
                .location()
                .is_some_and(|place| place.file() == file!())
        );
        // The worker is replaced.
        assert_eq!(pool.submit(add::call(1, 2)).join().expect("a sum"), 3);
    }
    let error = pool
        .submit(panic_on_a_thread::call())
        .join()
        .expect_err("a panic");
    assert!(error.is_panic(), "{error}");
    assert_eq!(error.panic_message(), Some("on a thread"));
}

fn all_kinds_of_errors_are_told_to_the_handles(pool: &ProcessPool) {
    let error = pool.submit(exit::call(3)).join().expect_err("an exit");
    assert!(
        error.is_crashed() && error.exit_status().and_then(|s| s.code()) == Some(3),
        "{error}"
    );
    let limit = Duration::from_millis(100);
    let error = pool
        .submit(sleep::call().time_limit(limit))
        .join()
        .expect_err("a limit");
    assert!(error.is_time_limit(), "{error}");
    let sleeping = pool.submit(sleep::call());
    while !sleeping.is_running() {
        thread::yield_now();
    }
    assert!(sleeping.cancel());
    assert!(sleeping.join().expect_err("a cancel").is_cancelled());
    // Many at once, and the jobs between them are not harmed.
    let mut jobs: Vec<JoinHandle<u32>> = Vec::new();
    for n in 0..60 {
        jobs.push(pool.submit(add::call(n, if n % 3 == 0 { u32::MAX } else { 1 })));
    }
    let results: Vec<_> = as_completed(jobs).into_iter().collect();
    // 0 + MAX is a sum.
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 41);
    let missing = pool.submit(pid::call()).join().expect("a number");
    assert_ne!(missing, process::id());
}

fn a_panic_in_the_initializer_breaks_the_pool() {
    let builder = ProcessPool::builder()
        .max_workers(2)
        .stderr(WorkerStdio::null());
    let pool = builder
        .initializer(setup::call(true))
        .build()
        .expect("valid options");
    let error = pool.submit(pid::call()).join().expect_err("no setup");
    assert!(
        error.is_broken() && error.to_string().contains("no setup"),
        "{error}"
    );
    let pool = ProcessPool::builder()
        .max_workers(1)
        .initializer(setup::call(false));
    let pool = pool.build().expect("valid options");
    pool.submit(pid::call()).join().expect("a number");
}

/// In a worker, before `init`.
fn build_a_pool_too_early() {
    let own = env::current_exe().expect("a path");
    for builder in [ProcessPool::builder(), ProcessPool::builder().program(own)] {
        let error = builder
            .max_workers(4)
            .prestart(4)
            .build()
            .expect_err("no pool yet");
        eprintln!("too early: {error}");
    }
    process::exit(17);
}

fn promise_19_a_program_that_builds_its_pool_before_init_is_no_fork_bomb() {
    let builder = ProcessPool::builder().max_workers(4).env(EARLY, "1");
    let pool = builder
        .stderr(WorkerStdio::lines(|_| {}))
        .build()
        .expect("valid options");
    let jobs: Vec<_> = (0..20).map(|_| pool.submit(pid::call())).collect();
    for job in jobs {
        let error = job.join().expect_err("no worker");
        assert!(error.is_spawn_failed() || error.is_broken(), "{error}");
        let text = error.to_string();
        for part in [
            "exited with code 17",
            "too early: ",
            "this process is a worker",
        ] {
            assert!(text.contains(part), "{part} is not in: {text}");
        }
    }
}
