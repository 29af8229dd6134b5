//! Events that tell why a worker process went. What the pool itself wants is no warning.

use std::time::Duration;

use tracing::Level;

use crate::common::event_log::EventLog;
use crate::common::{child, eventually};
use crate::jobs::{self, kill, quiet, worker_of};

/// Runs `f` in a process of its own, where all events are kept.
fn alone(test: &str, f: impl FnOnce() + Send + 'static) {
    child::alone(&format!("events_of_workers::{test}"), || {
        EventLog::install();
        f();
        EventLog::assert_distinct_field_names();
    });
}

/// Waits for an event of `level` that has each of `words` in its fields.
#[track_caller]
fn heard(level: Level, words: &[&str]) {
    eventually(&format!("{level} {words:?}"), || {
        EventLog::contains_at(level, words)
    });
}

/// The events say of `pid` that it was ready, and once why it went.
#[track_caller]
fn heard_of(pid: u32, level: Level, words: &[&str]) {
    let worker = format!("worker={pid} ");
    heard(Level::DEBUG, &[&worker, "is ready"]);
    heard(level, &[&[&worker[..]], words].concat());
    assert_eq!(EventLog::count(&worker), 2, "it goes once");
}

#[track_caller]
fn no_warnings() {
    assert!(!EventLog::contains_at(Level::WARN, &[]));
    assert!(!EventLog::contains_at(Level::ERROR, &[]));
}

#[test]
fn a_worker_that_leaves_with_its_pool_is_no_warning() {
    alone("a_worker_that_leaves_with_its_pool_is_no_warning", || {
        let pool = quiet(1).build().unwrap();
        let pid = pool.submit(jobs::own_pid::call()).join().unwrap();
        pool.shutdown().join();
        heard_of(pid, Level::DEBUG, &["leaves", "shut down"]);
        no_warnings();
    });
}

#[test]
fn a_recycled_worker_is_no_warning() {
    alone("a_recycled_worker_is_no_warning", || {
        let pool = quiet(1).max_jobs_per_worker(2).build().unwrap();
        let pids = [(); 4].map(|()| pool.submit(jobs::own_pid::call()).join().unwrap());
        heard_of(pids[0], Level::DEBUG, &["leaves", "it has run 2 jobs"]);
        assert_ne!(pids[0], pids[3]);
        drop(pool);
        no_warnings();
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_worker_that_has_grown_is_no_warning() {
    alone("a_worker_that_has_grown_is_no_warning", || {
        let pool = quiet(1).recycle_above(1).build().unwrap();
        let pid = pool.submit(jobs::own_pid::call()).join().unwrap();
        heard_of(pid, Level::DEBUG, &["leaves", "grown too large", "bytes"]);
        no_warnings();
    });
}

#[test]
fn a_worker_that_was_idle_for_too_long_is_no_warning() {
    alone("a_worker_that_was_idle_for_too_long_is_no_warning", || {
        let pool = quiet(1).keep_alive(Duration::from_millis(1));
        let pool = pool.build().unwrap();
        let pid = pool.submit(jobs::own_pid::call()).join().unwrap();
        heard_of(pid, Level::DEBUG, &["leaves", "idle for too long"]);
        no_warnings();
    });
}

#[test]
fn a_worker_that_its_pool_kills_is_no_warning() {
    alone("a_worker_that_its_pool_kills_is_no_warning", || {
        let pool = quiet(1).build().unwrap();
        let slow = pool.submit(jobs::never_ends::call().label("slow"));
        let pid = worker_of(&pool, "slow");
        assert!(slow.cancel());
        heard_of(
            pid,
            Level::DEBUG,
            &["was killed", "cancelled", "never_ends"],
        );

        let limit = Duration::from_millis(200);
        let slow = pool.submit(jobs::never_ends::call().label("limited").time_limit(limit));
        let pid = worker_of(&pool, "limited");
        assert!(slow.join().unwrap_err().is_time_limit());
        heard_of(pid, Level::DEBUG, &["was killed", "time limit of 200ms"]);

        let slow = pool.submit(jobs::never_ends::call().label("stopped"));
        let pid = worker_of(&pool, "stopped");
        pool.shutdown_now().join();
        assert!(slow.join().unwrap_err().is_cancelled());
        heard_of(pid, Level::DEBUG, &["was killed", "cancelled"]);
        no_warnings();
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_worker_that_exceeds_the_memory_limit_is_no_warning() {
    alone(
        "a_worker_that_exceeds_the_memory_limit_is_no_warning",
        || {
            let pool = quiet(1).memory_limit(1).build().unwrap();
            let slow = pool.submit(jobs::never_ends::call());
            assert!(slow.join().unwrap_err().is_memory_limit());
            heard(Level::DEBUG, &["was killed", "memory limit", "of 1 bytes"]);
            no_warnings();
        },
    );
}

#[test]
fn a_job_that_ends_in_its_grace_is_no_warning() {
    alone("a_job_that_ends_in_its_grace_is_no_warning", || {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lines");
        let file = path.to_str().unwrap().to_owned();
        let pool = quiet(1).cancel_grace(Duration::from_secs(600));
        let pool = pool.build().unwrap();
        let pid = pool.submit(jobs::own_pid::call()).join().unwrap();
        let job = pool.submit(jobs::end_when_asked::call(file));
        eventually("the job runs", || !jobs::lines(&path).is_empty());
        assert!(job.cancel());
        pool.submit(jobs::nothing::call()).join().unwrap();
        heard_of(pid, Level::DEBUG, &["leaves", "ended in its grace"]);
        no_warnings();
    });
}

#[test]
fn a_crash_is_a_warning_that_says_how() {
    alone("a_crash_is_a_warning_that_says_how", || {
        let pool = quiet(1).build().unwrap();
        let pid = pool.submit(jobs::own_pid::call()).join().unwrap();
        assert!(pool.submit(jobs::abort::call()).join().is_err());
        let words = [
            "killed by signal 6 (SIGABRT)",
            "during a job",
            "jobs::abort",
        ];
        heard_of(pid, Level::WARN, &words);
    });
}

#[test]
fn an_end_of_an_idle_worker_is_a_warning_that_says_how() {
    alone(
        "an_end_of_an_idle_worker_is_a_warning_that_says_how",
        || {
            let pool = quiet(1).build().unwrap();
            let pid = pool.submit(jobs::own_pid::call()).join().unwrap();
            eventually("it is idle", || pool.metrics().idle == 1);
            // Nothing but the end itself leads to the event.
            kill(pid);
            let words = ["signal 9 (SIGKILL)", "out-of-memory", "while it was idle"];
            heard_of(pid, Level::WARN, &words);
            let next = pool.submit(jobs::own_pid::call()).join().unwrap();
            assert_ne!(next, pid);
            heard(Level::DEBUG, &[&format!("worker={next} "), "is ready"]);
            assert_eq!(EventLog::count(&format!("worker={pid} ")), 2);
        },
    );
}

#[test]
fn a_failed_start_is_a_warning() {
    alone("a_failed_start_is_a_warning", || {
        let pool = quiet(1).program("/no/such/program").build().unwrap();
        assert!(pool.submit(jobs::nothing::call()).join().is_err());
        let words = ["failed to start a worker process", "/no/such/program"];
        heard(Level::WARN, &words);
    });
}
