//! Crashes harm one job; and a job runs at most once.

use std::collections::{HashMap, HashSet};
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use futurepool::process::{WorkerInfo, WorkerState};
use futurepool::{JoinError, ProcessPool};
use rustix::process::Signal;

use crate::common::{LONG, Random, eventually, within};
use crate::jobs::{self, kill, kill_worker_of, lines, piped, quiet};

#[test]
fn promise_1_a_crash_harms_only_its_job() {
    within(LONG, "crashes", || {
        let pool = quiet(2).build().unwrap();
        let mut good = Vec::new();
        let mut bad = Vec::new();
        let mut victims = Vec::new();
        for n in 0..100_u64 {
            match n % 40 {
                0 => bad.push(pool.submit(jobs::abort::call())),
                10 => bad.push(pool.submit(jobs::segfault::call())),
                20 => bad.push(pool.submit(jobs::exit::call(3))),
                30 => {
                    let label = format!("victim {n}");
                    let call = jobs::never_ends::call().label(label.clone());
                    victims.push((label, pool.submit(call)));
                }
                _ => good.push((n, pool.submit(jobs::add::call(n, 1)))),
            }
        }
        for (label, victim) in victims {
            kill_worker_of(&pool, &label, &victim);
            bad.push(victim);
        }
        for (n, handle) in good {
            assert_eq!(handle.join().unwrap(), n + 1);
        }
        let errors: Vec<_> = bad.into_iter().map(|bad| bad.join().unwrap_err()).collect();
        assert_eq!(errors.len(), 10);
        for error in &errors {
            assert!(error.is_crashed() && error.may_have_run(), "{error}");
        }
        let now = jobs::assert_balanced(&pool);
        assert_eq!((now.submitted, now.completed, now.failed), (100, 90, 10));
        assert_eq!(pool.submit(jobs::add::call(1, 1)).join().unwrap(), 2);
    });
}

#[test]
fn promise_1_a_stack_overflow_is_a_crash() {
    within(LONG, "stack overflow", || {
        let pool = quiet(1).build().unwrap();
        let error = pool
            .submit(jobs::overflow_the_stack::call(0))
            .join()
            .unwrap_err();
        assert!(error.is_crashed(), "{error}");
        assert!(error.exit_status().unwrap().signal().is_some(), "{error}");
        assert_eq!(pool.submit(jobs::add::call(1, 1)).join().unwrap(), 2);
    });
}

fn assert_says(error: &JoinError, words: &[&str]) {
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text:?}");
    }
}

#[test]
fn promise_2_the_error_says_how_the_worker_ended() {
    within(LONG, "errors", || {
        let pool = piped(1).build().unwrap();
        let pid = pool.submit(jobs::own_pid::call()).join().unwrap();
        let pid_text = format!("worker {pid} ");

        let error = pool.submit(jobs::segfault::call()).join().unwrap_err();
        assert_says(&error, &["segfault", &pid_text, "signal 11", "SIGSEGV"]);
        let status = error.exit_status().unwrap();
        assert_eq!(status.signal(), Some(Signal::SEGV.as_raw()));
        let dumped = error.to_string().contains("core dumped");
        assert_eq!(dumped, status.core_dumped());
        assert!(!error.to_string().contains("memory"), "{error}");

        let error = pool.submit(jobs::abort::call()).join().unwrap_err();
        assert_says(&error, &["abort", "SIGABRT"]);
        // The worker is a new one.
        assert!(!error.to_string().contains(&pid_text));

        let error = pool.submit(jobs::exit::call(7)).join().unwrap_err();
        assert_says(&error, &["exit", "exited with code 7"]);
        assert_eq!(error.exit_status().unwrap().code(), Some(7));
        // A process that leaves a job with success has not done it.
        let error = pool.submit(jobs::exit::call(0)).join().unwrap_err();
        assert!(error.is_crashed());
        assert_says(&error, &["exited with code 0"]);

        let handle = pool.submit(jobs::never_ends::call().label("victim"));
        kill_worker_of(&pool, "victim", &handle);
        let error = handle.join().unwrap_err();
        assert!(error.is_crashed());
        assert_says(&error, &["SIGKILL", "out-of-memory"]);
    });
}

#[test]
fn promise_2_the_error_has_the_last_lines_of_stderr() {
    within(LONG, "stderr", || {
        let pool = piped(1).build().unwrap();
        // Far more than is kept.
        let call = jobs::complain_and_abort::call(2_000);
        let error = pool.submit(call).join().unwrap_err();
        let output = error.worker_output().unwrap();
        assert!(output.contains("complaint 1999"), "{output:?}");
        assert!(!output.contains("complaint 0\n"));
        assert!(output.len() <= 4096);
        assert_says(&error, &["complaint 1999"]);
        // The next worker has said nothing.
        let error = pool.submit(jobs::exit::call(1)).join().unwrap_err();
        let output = error.worker_output();
        assert!(!output.is_some_and(|output| output.contains("complaint")));
    });
}

fn file_in(directory: &tempfile::TempDir) -> (std::path::PathBuf, String) {
    let path = directory.path().join("lines");
    let text = path.to_str().unwrap().to_owned();
    (path, text)
}

#[test]
fn promise_4_a_job_that_has_begun_is_not_run_again() {
    within(LONG, "at most once", || {
        let directory = tempfile::tempdir().unwrap();
        let (path, file) = file_in(&directory);
        let pool = quiet(2).retry_on_crash(5).build().unwrap();
        let handles: Vec<_> = (0..5)
            .map(|n| pool.submit(jobs::append_and_abort::call(file.clone(), n.to_string())))
            .collect();
        for handle in handles {
            let error = handle.join().unwrap_err();
            assert!(error.is_crashed() && error.may_have_run());
        }
        let mut lines = lines(&path);
        lines.sort();
        assert_eq!(lines, ["0", "1", "2", "3", "4"]);
    });
}

#[test]
fn promise_4_an_idempotent_task_is_started_as_often_as_allowed() {
    within(LONG, "retries", || {
        // The task allows 3 starts; the pool can only lower that.
        for (retries, starts) in [(0, 1), (1, 2), (2, 3), (9, 3)] {
            let directory = tempfile::tempdir().unwrap();
            let (path, file) = file_in(&directory);
            let pool = quiet(1).retry_on_crash(retries).build().unwrap();
            let call = jobs::append_and_abort_again::call(file, "x".to_owned());
            let error = pool.submit(call).join().unwrap_err();
            assert!(error.is_crashed() && error.may_have_run(), "{error}");
            assert_eq!(lines(&path).len(), starts, "with {retries} retries");
            let now = jobs::assert_balanced(&pool);
            assert_eq!((now.submitted, now.failed), (1, 1));
        }
        let directory = tempfile::tempdir().unwrap();
        let (_, file) = file_in(&directory);
        let pool = quiet(1).retry_on_crash(1).build().unwrap();
        let starts = pool
            .submit(jobs::succeed_at_second_start::call(file))
            .join();
        assert_eq!(starts.unwrap(), 2);
    });
}

#[test]
fn promise_4_an_idempotent_job_that_was_cancelled_is_not_retried() {
    within(LONG, "a cancel instead of a retry", || {
        let directory = tempfile::tempdir().unwrap();
        let (path, file) = file_in(&directory);
        let pool = quiet(1).retry_on_crash(2).build().unwrap();
        for n in 0..20 {
            let line = n.to_string();
            let call = jobs::append_and_abort_again::call(file.clone(), line.clone());
            let handle = pool.submit(call);
            eventually("the job runs", || lines(&path).contains(&line));
            let cancelled = handle.cancel();
            let error = handle.join().unwrap_err();
            assert_eq!(error.is_cancelled(), cancelled, "{error}");
            let now = lines(&path).len();
            assert_eq!(pool.submit(jobs::add::call(1, 1)).join().unwrap(), 2);
            assert_eq!(lines(&path).len(), now);
        }
    });
}

#[test]
fn promise_4_a_job_whose_worker_died_while_idle_runs_on_another_one() {
    within(LONG, "idle deaths", || {
        let directory = tempfile::tempdir().unwrap();
        let (path, file) = file_in(&directory);
        let pool = quiet(1).build().unwrap();
        for n in 0..50 {
            let pid = pool.submit(jobs::own_pid::call()).join().unwrap();
            kill(pid);
            if n % 2 == 0 {
                // Otherwise the kill and the next job are a race.
                eventually("the worker is gone", || {
                    pool.workers().iter().all(|worker| worker.pid != pid)
                });
            }
            let call = jobs::append::call(file.clone(), n.to_string());
            pool.submit(call).join().unwrap();
        }
        let lines = lines(&path);
        assert_eq!(lines, (0..50).map(|n| n.to_string()).collect::<Vec<_>>());
        let now = jobs::assert_balanced(&pool);
        assert_eq!((now.submitted, now.completed), (100, 100));
    });
}

#[test]
fn promise_4_no_job_runs_twice_while_workers_are_killed_at_random() {
    within(LONG, "random kills", || {
        let directory = tempfile::tempdir().unwrap();
        let (path, file) = file_in(&directory);
        let pool = quiet(3).build().unwrap();
        let done = AtomicBool::new(false);
        let outcomes: HashMap<_, _> = thread::scope(|scope| {
            scope.spawn(|| kill_at_random(&pool, &done));
            let submit = |n: u64| {
                let line = n.to_string();
                let call = jobs::append_and_sleep::call(file.clone(), line.clone(), n % 3);
                (line, pool.submit(call))
            };
            let handles: Vec<_> = (0..600).map(submit).collect();
            let outcomes = handles
                .into_iter()
                .map(|(line, handle)| (line, handle.join()))
                .collect();
            done.store(true, Ordering::Release);
            outcomes
        });
        let all = lines(&path);
        let once: HashSet<_> = all.iter().collect();
        assert_eq!(once.len(), all.len(), "a job ran twice");
        for (line, outcome) in &outcomes {
            match outcome {
                Ok(()) => assert!(once.contains(line)),
                Err(error) => {
                    assert!(error.is_crashed(), "{error}");
                    assert!(error.may_have_run() || !once.contains(line), "{error}");
                }
            }
        }
        let failed = outcomes.values().filter(|outcome| outcome.is_err()).count();
        assert_ne!(failed, 0, "no kill has hit a job");
        let now = jobs::assert_balanced(&pool);
        assert_eq!((now.submitted, now.failed), (600, failed as u64));
    });
}

fn kill_at_random(pool: &ProcessPool, done: &AtomicBool) {
    let mut random = Random(7);
    while !done.load(Ordering::Acquire) {
        thread::sleep(Duration::from_micros(random.below(20_000) as u64));
        // Several starts in a row that are killed would be an error of a job, which is another promise.
        let mut workers = pool.workers();
        workers.retain(|worker| worker.state != WorkerState::Starting);
        // On a busy machine, kills of workers that start could come faster than the starts.
        let has_started = |worker: &WorkerInfo| worker.task.is_some() || worker.jobs_done > 0;
        let workers: Vec<_> = pool.workers().into_iter().filter(has_started).collect();
        if !workers.is_empty() {
            kill(workers[random.below(workers.len())].pid);
        }
    }
}
