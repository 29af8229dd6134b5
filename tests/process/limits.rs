//! Time limits.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use crate::common::{LONG, eventually, within};
use crate::jobs::{self, is_alive, lines, quiet, worker_of};

const SHORT: Duration = Duration::from_millis(100);

#[test]
fn promise_5_a_time_limit_kills_the_job_and_not_the_pool() {
    within(LONG, "time limits", || {
        let limit = Duration::from_secs(1);
        let pool = quiet(2).time_limit(limit).build().unwrap();
        let first = pool.submit(jobs::never_ends::call().label("first"));
        let second = pool.submit(jobs::uses_the_processor_for_ever::call().label("second"));
        let pids = [worker_of(&pool, "first"), worker_of(&pool, "second")];
        for handle in [first, second] {
            let error = handle.join().unwrap_err();
            assert!(error.is_time_limit() && error.may_have_run(), "{error}");
            assert!(!error.is_crashed() && !error.is_timeout(), "{error}");
        }
        assert!(!pids.into_iter().any(is_alive));
        assert_eq!(pool.submit(jobs::add::call(1, 1)).join().unwrap(), 2);
        let now = jobs::assert_balanced(&pool);
        assert_eq!((now.completed, now.failed), (1, 2));
    });
}

#[test]
fn promise_5_the_clock_starts_when_the_job_starts() {
    within(LONG, "the clock", || {
        let pool = quiet(1).build().unwrap();
        let limit = Duration::from_secs(2);
        // One after the other, they take longer than the limit.
        let handles: Vec<_> = (0..8)
            .map(|_| pool.submit(jobs::sleep::call(400).time_limit(limit)))
            .collect();
        for handle in handles {
            assert_eq!(handle.join().unwrap(), 400);
        }
        // An idle worker is not limited.
        let pid = pool.submit(jobs::own_pid::call().time_limit(SHORT)).join();
        std::thread::sleep(2 * SHORT);
        assert_eq!(
            pool.submit(jobs::own_pid::call()).join().unwrap(),
            pid.unwrap()
        );
    });
}

#[test]
fn promise_5_a_job_that_ignores_signals_is_killed_too() {
    within(LONG, "ignored signals", || {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        let file = path.to_str().unwrap().to_owned();
        // The worker ignores signals, as it inherits that, and so does a child of the job.
        let program = directory.path().join("worker");
        let binary = std::env::current_exe().unwrap();
        let script = format!(
            "#!/bin/sh\ntrap '' HUP INT QUIT TERM USR1 USR2 ALRM PIPE\n\
             exec '{}' --exact futurepool_worker --nocapture\n",
            binary.display()
        );
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        let pool = quiet(1).program(program).build().unwrap();
        let call = jobs::wait_for_a_child_that_ignores_signals::call(file).label("job");
        let handle = pool.submit(call.time_limit(Duration::from_secs(1)));
        let worker = worker_of(&pool, "job");
        let error = handle.join().unwrap_err();
        assert!(error.is_time_limit(), "{error}");
        assert!(!is_alive(worker));
        let pid: u32 = lines(&path)[0].parse().unwrap();
        eventually("the child of the job is gone", || !is_alive(pid));
    });
}

#[test]
fn promise_5_the_shorter_limit_counts() {
    within(LONG, "two limits", || {
        let pool = quiet(1).time_limit(SHORT).build().unwrap();
        let start = Instant::now();
        let call = jobs::never_ends::call().time_limit(Duration::from_secs(600));
        assert!(pool.submit(call).join().unwrap_err().is_time_limit());
        let pool = quiet(1)
            .time_limit(Duration::from_secs(600))
            .build()
            .unwrap();
        let call = jobs::never_ends::call().time_limit(SHORT);
        let error = pool.submit(call).join().unwrap_err();
        assert!(error.is_time_limit(), "{error}");
        assert!(error.to_string().contains("100ms"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(60));
    });
}

#[test]
fn promise_5_a_limit_that_is_over_does_not_hit_the_next_job() {
    within(LONG, "limits at the end of a job", || {
        let pool = quiet(1).build().unwrap();
        let mut ended = [0; 2];
        for n in 0..100_u64 {
            // About as long as the limit.
            let call = jobs::sleep::call(10).time_limit(Duration::from_micros(9_000 + n * 40));
            let close = pool.submit(call);
            let next = pool.submit(jobs::sleep::call(3));
            match close.join() {
                Ok(_) => ended[0] += 1,
                Err(error) => {
                    assert!(error.is_time_limit(), "{error}");
                    ended[1] += 1;
                }
            }
            assert_eq!(next.join().unwrap(), 3);
        }
        assert_eq!(ended[0] + ended[1], 100);
    });
}

/// The worker reads slowly, or not at all: that is not the job's time, but it must end.
#[test]
fn promise_5_a_stopped_worker_is_killed_at_the_limit() {
    within(LONG, "a stopped worker", || {
        let pool = quiet(1).build().unwrap();
        let pid = pool.submit(jobs::own_pid::call()).join().unwrap();
        jobs::stop(pid);
        // Larger than what a socket keeps, so that the write cannot end.
        let call = jobs::echo::call(vec![7; 8 << 20]).time_limit(SHORT);
        let error = pool.submit(call).join().unwrap_err();
        assert!(error.is_time_limit() && !error.may_have_run(), "{error}");
        assert_eq!(pool.submit(jobs::add::call(1, 1)).join().unwrap(), 2);
    });
}
