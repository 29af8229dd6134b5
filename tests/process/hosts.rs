//! Programs that do unusual things around a pool.

use std::env;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use futurepool::process::WorkerStdio;
use futurepool::{ProcessPool, task};
use rustix::process::{WaitOptions, waitpid};

use crate::common::{LONG, child, within};
use crate::jobs::{self, assert_balanced, quiet};

const IGNORES: &str = "FUTUREPOOL_TEST_IGNORES_CHILDREN";

/// All that can end a worker, and what is told of it.
fn all_ends() {
    let pool = quiet(2)
        .time_limit(Duration::from_secs(30))
        .build()
        .unwrap();
    for round in 0..5 {
        assert_eq!(
            pool.submit(jobs::add::call(1, round)).join().unwrap(),
            1 + round
        );
        let error = pool.submit(jobs::abort::call()).join().unwrap_err();
        assert!(error.is_crashed(), "{error}");
        let limit = Duration::from_millis(100);
        let error = pool
            .submit(jobs::never_ends::call().time_limit(limit))
            .join();
        assert!(
            error.as_ref().is_err_and(|error| error.is_time_limit()),
            "{error:?}"
        );
        let job = pool.submit(jobs::never_ends::call().label("cancelled"));
        jobs::worker_of(&pool, "cancelled");
        assert!(job.cancel());
        assert!(job.join().unwrap_err().is_cancelled());
    }
    let job = pool.submit(jobs::never_ends::call().label("last"));
    jobs::worker_of(&pool, "last");
    let start = Instant::now();
    pool.shutdown_now().join();
    assert!(job.join().unwrap_err().is_cancelled());
    assert!(start.elapsed() < LONG / 6, "{:?}", start.elapsed());
    assert!(pool.workers().is_empty());
    assert_balanced(&pool);
}

#[test]
fn promise_3_a_host_that_ignores_the_end_of_its_children_has_all_outcomes() {
    let test = "hosts::promise_3_a_host_that_ignores_the_end_of_its_children_has_all_outcomes";
    if env::var_os(IGNORES).is_some() {
        return within(LONG, test, all_ends);
    }
    let me = env::current_exe().unwrap();
    let script = format!(
        "trap '' CHLD; exec '{}' --exact {test} --nocapture",
        me.display()
    );
    let output = std::process::Command::new("sh")
        .args(["-c", &script])
        .env(IGNORES, "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn promise_3_a_host_that_reaps_all_children_has_all_outcomes() {
    child::alone(
        "hosts::promise_3_a_host_that_reaps_all_children_has_all_outcomes",
        || {
            let over = Arc::new(AtomicBool::new(false));
            let reaps = Arc::clone(&over);
            let reaper = thread::spawn(move || {
                while !reaps.load(Ordering::Relaxed) {
                    if !matches!(waitpid(None, WaitOptions::NOHANG), Ok(Some(_))) {
                        thread::yield_now();
                    }
                }
            });
            all_ends();
            over.store(true, Ordering::Relaxed);
            reaper.join().unwrap();
        },
    );
}

#[test]
fn promise_3_a_pool_can_be_dropped_in_a_callback_of_its_own() {
    within(LONG, "drop", || {
        for builder in [quiet(1), quiet(1).max_jobs_per_worker(1), quiet(2)] {
            let pool = Arc::new(Mutex::new(Some(builder.build().unwrap())));
            let slot = Arc::clone(&pool);
            let (send, ended) = mpsc::channel();
            let guard = pool.lock().unwrap();
            let own = guard.as_ref().unwrap();
            let first = own.submit(jobs::sleep::call(100));
            first.add_done_callback(move |_| {
                let pool = slot.lock().unwrap().take();
                drop(pool);
                send.send(()).unwrap();
            });
            let later = own.submit(jobs::add::call(1, 2));
            let endless = own.submit(jobs::never_ends::call());
            drop(guard);
            ended.recv().unwrap();
            first.join().unwrap();
            assert_eq!(later.join().unwrap(), 3);
            endless.cancel();
            assert!(endless.join().unwrap_err().is_cancelled());
        }
    });
}

#[test]
fn promise_3_a_pool_can_be_shut_down_in_a_callback_of_its_own() {
    within(LONG, "shutdown", || {
        let pool = Arc::new(quiet(2).build().unwrap());
        let own = Arc::clone(&pool);
        let first = pool.submit(jobs::sleep::call(300));
        let (send, ended) = mpsc::channel();
        first.add_done_callback(move |_| {
            let shutdown = own.shutdown_now();
            shutdown.join();
            own.shutdown().join();
            send.send(()).unwrap();
        });
        let others: Vec<_> = (0..5)
            .map(|_| pool.submit(jobs::never_ends::call()))
            .collect();
        ended.recv().unwrap();
        for job in others {
            assert!(job.join().unwrap_err().is_cancelled());
        }
        pool.shutdown().join();
        assert!(pool.workers().is_empty());
        assert_balanced(&pool);
    });
}

#[test]
fn promise_3_a_callback_can_wait_for_another_job() {
    within(LONG, "callback", || {
        let pool = Arc::new(quiet(1).build().unwrap());
        let own = Arc::clone(&pool);
        let (send, result) = mpsc::channel();
        let first = pool.submit(jobs::sleep::call(100));
        first.add_done_callback(move |_| {
            let second = own.submit(jobs::add::call(1, 2)).join();
            let crash = own.submit(jobs::abort::call()).join();
            let third = own.submit(jobs::add::call(1, 3)).join();
            send.send((second.unwrap(), crash.unwrap_err(), third.unwrap()))
                .unwrap();
        });
        let (second, crash, third) = result.recv().unwrap();
        assert_eq!((second, third), (3, 4));
        assert!(crash.is_crashed());
        first.join().unwrap();
        assert_balanced(&pool);
    });
}

#[test]
fn promise_3_a_pool_can_be_shut_down_where_its_output_is_read() {
    within(LONG, "output", || {
        let pool = Arc::new(std::sync::OnceLock::<ProcessPool>::new());
        let own = Arc::downgrade(&pool);
        let (send, ended) = mpsc::channel();
        let send = Mutex::new(send);
        let lines = WorkerStdio::lines(move |_| {
            if let Some(pool) = own.upgrade() {
                if let Some(pool) = pool.get() {
                    pool.shutdown_now().join();
                    let _ = send.lock().unwrap().send(());
                }
            }
        });
        let new = ProcessPool::builder()
            .max_workers(2)
            .stderr(lines)
            .build()
            .unwrap();
        pool.set(new).unwrap();
        let job = pool.get().unwrap().submit(print_and_wait::call());
        ended.recv().unwrap();
        let error = job.join().unwrap_err();
        assert!(error.is_cancelled(), "{error}");
        drop(pool);
    });
}

#[task]
fn print_and_wait() {
    eprintln!("a line");
    thread::sleep(2 * LONG);
}

#[test]
fn promise_3_a_drop_while_the_thread_panics_waits_for_nothing() {
    within(LONG, "panic", || {
        let (send, handles) = mpsc::channel();
        let panicked = thread::spawn(move || {
            let pool = quiet(1).build().unwrap();
            let endless = pool.submit(jobs::never_ends::call().label("endless"));
            jobs::worker_of(&pool, "endless");
            let queued = pool.submit(jobs::add::call(1, 2));
            send.send((endless, queued)).unwrap();
            panic!("expected");
        });
        assert!(panicked.join().is_err());
        let (endless, queued) = handles.recv().unwrap();
        assert!(endless.cancel());
        assert!(endless.join().unwrap_err().is_cancelled());
        assert_eq!(queued.join().unwrap(), 3);
    });
}
