//! No process outlives its pool, or the process of the pool.

use std::env;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use futurepool::{Bytes, JoinHandle, ProcessPool, ProcessPoolBuilder, task};

use crate::common::{LONG, eventually, within};
use crate::procs::{Mark, is_alive};

/// Says what the process does that a test starts and kills.
const SCENARIO: &str = "FUTUREPOOL_TEST_SCENARIO";

fn sleep_on() -> ! {
    loop {
        thread::sleep(LONG);
    }
}

/// Tells the test that its process has come to the point where it is killed.
fn tell(text: &str) {
    println!("ready {text}");
}

#[task]
fn tell_and_sleep() {
    tell("");
    sleep_on();
}

#[task]
fn nothing() {}

/// Starts a process that sleeps, and one that does so in the background of a third.
#[allow(clippy::zombie_processes, reason = "they end with their worker")]
fn start_children() -> u32 {
    let script = "sleep 1000 & exec sleep 1000";
    let child = Command::new("sh").args(["-c", script]).spawn().unwrap();
    child.id()
}

#[task]
fn with_children() {
    start_children();
    tell("");
    sleep_on();
}

#[task]
fn nest(depth: u32) {
    if depth == 0 {
        tell("");
        sleep_on();
    }
    let pool = ProcessPool::builder().build().unwrap();
    pool.submit(nest::call(depth - 1)).join().unwrap();
}

#[task]
fn take(data: Bytes) -> u64 {
    data.len() as u64
}

#[task]
fn give(size: u64) -> Bytes {
    tell("");
    Bytes::from(vec![1; size as usize])
}

const LARGE: u64 = 200 << 20;

/// The process that is killed. As a test it does nothing.
#[test]
fn parent() {
    let Ok(scenario) = env::var(SCENARIO) else {
        return;
    };
    let builder = ProcessPool::builder().max_workers(2);
    let pool = match scenario.as_str() {
        "start" => builder.prestart(2).build().unwrap(),
        "initializer" => {
            let builder = builder.initializer(tell_and_sleep::call());
            builder.prestart(1).build().unwrap()
        }
        _ => builder.build().unwrap(),
    };
    let _jobs: Vec<JoinHandle<()>> = match scenario.as_str() {
        "running" => vec![pool.submit(tell_and_sleep::call())],
        "idle" => {
            pool.submit(nothing::call()).join().unwrap();
            tell("");
            vec![]
        }
        "children" => vec![pool.submit(with_children::call())],
        "nested" => vec![pool.submit(nest::call(3))],
        "arguments" => {
            tell("");
            loop {
                pool.submit(take::call(vec![1; LARGE as usize].into()))
                    .join()
                    .unwrap();
            }
        }
        "result" => loop {
            pool.submit(give::call(LARGE)).join().unwrap();
        },
        _ => vec![],
    };
    sleep_on();
}

/// Starts the process with the pool, kills it after it was ready and `delay` has passed, and asserts that
/// nothing is left.
fn kill_parent(scenario: &str, is_told: bool, delay: Duration) {
    let mark = Mark::new();
    let (name, value) = mark.variable();
    let mut parent = Command::new(env::current_exe().unwrap())
        .args(["orphans::parent", "--exact", "--nocapture"])
        .env(name, value)
        .env(SCENARIO, scenario)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    if is_told {
        let lines = BufReader::new(parent.stdout.take().unwrap()).lines();
        let mut lines = lines.map(Result::unwrap);
        assert!(lines.any(|line| line.starts_with("ready")), "{scenario}");
    }
    thread::sleep(delay);
    parent.kill().unwrap();
    parent.wait().unwrap();
    mark.assert_all_end(&format!("{scenario}, {delay:?}"));
}

fn promise_8(scenario: &'static str) {
    within(LONG, scenario, move || {
        kill_parent(scenario, true, Duration::ZERO)
    });
}

#[test]
fn promise_8_a_running_worker_ends_with_its_parent() {
    promise_8("running");
}

#[test]
fn promise_8_an_idle_worker_ends_with_its_parent() {
    promise_8("idle");
}

#[test]
fn promise_8_a_worker_that_runs_its_initializer_ends_with_its_parent() {
    promise_8("initializer");
}

#[test]
fn promise_8_grandchildren_end_with_the_parent() {
    promise_8("children");
}

#[test]
fn promise_8_nested_workers_end_with_the_parent() {
    promise_8("nested");
}

#[test]
fn promise_8_a_worker_that_starts_ends_with_its_parent() {
    within(2 * LONG, "start", || {
        for delay in 0..25 {
            kill_parent("start", false, Duration::from_millis(2 * delay));
        }
    });
}

#[test]
fn promise_13_a_parent_that_is_killed_in_the_middle_of_a_payload_leaves_no_process() {
    within(2 * LONG, "payload", || {
        for scenario in ["arguments", "result"] {
            for delay in [20, 60, 100, 150, 230] {
                kill_parent(scenario, true, Duration::from_millis(delay));
            }
        }
    });
}

// ---- Grandchildren ------------------------------------------------------------------------------

#[task]
fn children_and_abort() {
    start_children();
    std::process::abort();
}

#[task]
fn children_and_exit() {
    start_children();
    std::process::exit(0);
}

#[task]
fn children_and_sleep() {
    start_children();
    sleep_on();
}

/// Leaves them behind.
#[task]
fn children_and_return() -> u32 {
    start_children()
}

fn pool(mark: &Mark, workers: usize) -> ProcessPoolBuilder {
    let (name, value) = mark.variable();
    ProcessPool::builder().max_workers(workers).env(name, value)
}

/// The worker, `sh`, and its child.
fn assert_all_run(mark: &Mark) {
    eventually("they run", || mark.processes().len() >= 3);
}

#[test]
fn promise_9_grandchildren_end_with_a_worker_that_crashes() {
    within(LONG, "crashes", || {
        let mark = Mark::new();
        let pool = pool(&mark, 1).build().unwrap();
        let abort = pool.submit(children_and_abort::call());
        assert!(abort.join().unwrap_err().is_crashed());
        let exit = pool.submit(children_and_exit::call());
        assert!(exit.join().unwrap_err().is_crashed());
        eventually("only the replacement is left", || {
            mark.processes().len() <= 1
        });
    });
}

#[test]
fn promise_9_grandchildren_end_with_a_worker_that_is_killed() {
    within(LONG, "kills", || {
        let mark = Mark::new();
        let pool = pool(&mark, 1).build().unwrap();
        let cancelled = pool.submit(children_and_sleep::call());
        assert_all_run(&mark);
        assert!(cancelled.cancel());
        assert!(cancelled.join().unwrap_err().is_cancelled());
        eventually("a cancel", || mark.processes().len() <= 1);

        let limit = Duration::from_millis(500);
        let limited = pool.submit(children_and_sleep::call().time_limit(limit));
        assert!(limited.join().unwrap_err().is_time_limit());
        eventually("a limit", || mark.processes().len() <= 1);

        let killed = pool.submit(children_and_sleep::call());
        assert_all_run(&mark);
        let pid = pool
            .workers()
            .iter()
            .find(|worker| worker.task.is_some())
            .unwrap()
            .pid;
        let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        assert!(killed.join().unwrap_err().is_crashed());
        eventually("a kill from outside", || mark.processes().len() <= 1);

        let stopped = pool.submit(children_and_sleep::call());
        assert_all_run(&mark);
        pool.shutdown_now().join();
        assert!(stopped.join().unwrap_err().is_cancelled());
        mark.assert_all_end("shutdown_now");
    });
}

#[test]
fn promise_9_grandchildren_end_with_a_worker_that_is_no_longer_needed() {
    within(LONG, "leaves", || {
        let mark = Mark::new();
        let dropped = pool(&mark, 1).build().unwrap();
        let child = dropped.submit(children_and_return::call()).join().unwrap();
        assert!(is_alive(child), "it lives as long as its worker");
        drop(dropped);
        mark.assert_all_end("the pool is dropped");

        let recycled = pool(&mark, 1).max_jobs_per_worker(1).build().unwrap();
        let child = recycled.submit(children_and_return::call()).join().unwrap();
        eventually("the worker is replaced", || !is_alive(child));
        drop(recycled);

        let unused = pool(&mark, 1)
            .keep_alive(Duration::from_millis(200))
            .build()
            .unwrap();
        unused.submit(children_and_return::call()).join().unwrap();
        mark.assert_all_end("its time has come");
    });
}
