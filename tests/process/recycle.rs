//! Workers that are replaced.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use futurepool::{JoinHandle, ProcessPool, task};

use crate::common::{LONG, child, eventually, within};
use crate::jobs;
use crate::procs::{children, is_alive};

#[task]
fn pid() -> u32 {
    process::id()
}

/// Returns once the file exists.
#[task]
fn pid_after(path: PathBuf) -> u32 {
    while !path.exists() {
        thread::sleep(Duration::from_millis(1));
    }
    process::id()
}

#[task]
fn leak(bytes: usize) -> u32 {
    vec![1_u8; bytes].leak();
    process::id()
}

#[task]
fn note(path: PathBuf) {
    let file = fs::OpenOptions::new().create(true).append(true).open(path);
    writeln!(file.unwrap(), "{}", process::id()).unwrap();
}

#[test]
fn promise_17_workers_are_replaced_on_schedule() {
    within(LONG, "schedule", || {
        let builder = ProcessPool::builder().max_workers(1).max_jobs_per_worker(3);
        let pool = builder.build().unwrap();
        let one_by_one = (0..12).map(|_| pool.submit(pid::call()).join().unwrap());
        let one_by_one: Vec<_> = one_by_one.collect();
        let at_once: Vec<_> = (0..12).map(|_| pool.submit(pid::call())).collect();
        let at_once: Vec<_> = at_once.into_iter().map(|job| job.join().unwrap()).collect();
        for pids in [&one_by_one, &at_once] {
            for of_one in pids.chunks(3) {
                assert!(of_one.iter().all(|pid| *pid == of_one[0]), "{pids:?}");
            }
            assert_eq!(pids.iter().collect::<BTreeSet<_>>().len(), 4, "{pids:?}");
        }
    });
}

#[test]
fn promise_17_the_replacement_is_ready_before_the_last_job_ends() {
    within(LONG, "replacement", || {
        let directory = tempfile::tempdir().unwrap();
        let (go, log) = (directory.path().join("go"), directory.path().join("log"));
        let builder = ProcessPool::builder().max_workers(1).max_jobs_per_worker(2);
        let pool = builder
            .initializer(note::call(log.clone()))
            .build()
            .unwrap();
        let first = pool.submit(pid::call()).join().unwrap();
        assert_eq!(pool.workers().len(), 1);
        let last = pool.submit(pid_after::call(go.clone()));
        let next = pool.submit(pid::call());
        // Its initializer runs while the last job still does.
        let initialized = || -> Vec<u32> {
            let lines = fs::read_to_string(&log).unwrap();
            lines.lines().map(|pid| pid.parse().unwrap()).collect()
        };
        eventually("the replacement is initialized", || {
            initialized().len() == 2
        });
        let second = initialized()[1];
        assert!(!last.is_finished() && second != first);
        assert_eq!(pool.workers().len(), 2);
        fs::write(go, "").unwrap();
        assert_eq!(last.join().unwrap(), first);
        assert_eq!(next.join().unwrap(), second);
        eventually("the old one is gone", || !is_alive(first));
    });
}

/// Does not end, except in the first worker.
#[task]
fn hang_in_the_second(path: PathBuf) {
    let is_first = !path.exists();
    note(path);
    if !is_first {
        thread::sleep(LONG);
    }
}

#[test]
fn promise_17_a_replacement_that_is_not_used_ends_with_the_pool() {
    within(LONG / 2, "unused", || {
        let directory = tempfile::tempdir().unwrap();
        let (go, log) = (directory.path().join("go"), directory.path().join("log"));
        let pool = ProcessPool::builder().max_workers(1).max_jobs_per_worker(1);
        let pool = pool
            .initializer(hang_in_the_second::call(log))
            .build()
            .unwrap();
        let last = pool.submit(pid_after::call(go.clone()));
        eventually("the replacement starts", || pool.workers().len() == 2);
        let pids: Vec<_> = pool.workers().iter().map(|worker| worker.pid).collect();
        fs::write(go, "").unwrap();
        last.join().unwrap();
        drop(pool);
        assert!(pids.iter().all(|pid| !is_alive(*pid)));
    });
}

#[test]
fn promise_17_there_is_at_most_one_process_more_than_the_maximum() {
    child::alone(
        "recycle::promise_17_there_is_at_most_one_process_more_than_the_maximum",
        || {
            let builder = ProcessPool::builder().max_workers(3).max_jobs_per_worker(2);
            let pool = builder.build().unwrap();
            let done = AtomicBool::new(false);
            let most = thread::scope(|scope| {
                let counts = scope.spawn(|| {
                    let mut most = 0;
                    while !done.load(Ordering::Relaxed) {
                        let alive = children(process::id())
                            .into_iter()
                            .filter(|pid| is_alive(*pid));
                        most = most.max(alive.count());
                    }
                    most
                });
                let jobs: Vec<_> = (0..300).map(|_| pool.submit(pid::call())).collect();
                let pids: Vec<_> = jobs.into_iter().map(|job| job.join().unwrap()).collect();
                done.store(true, Ordering::Relaxed);
                let distinct: BTreeSet<_> = pids.iter().collect();
                assert!(distinct.len() >= 150);
                for pid in distinct {
                    assert!(pids.iter().filter(|other| *other == pid).count() <= 2);
                }
                counts.join().unwrap()
            });
            assert!(most <= 4, "{most}");
        },
    );
}

#[test]
fn promise_17_a_worker_that_does_not_leave_counts_as_one() {
    let test = "recycle::promise_17_a_worker_that_does_not_leave_counts_as_one";
    child::alone(test, || {
        let pool = ProcessPool::builder()
            .max_workers(2)
            .prestart(2)
            .max_jobs_per_worker(1);
        let pool = pool.build().unwrap();
        eventually("both are there", || pool.workers().len() == 2);
        let hang = [(); 2].map(|()| pool.submit(jobs::hang_at_exit::call()));
        let after: Vec<_> = (0..6).map(|_| pool.submit(pid::call())).collect();
        let mut most = 0;
        while !after.iter().all(JoinHandle::is_finished) {
            let alive = children(process::id())
                .into_iter()
                .filter(|pid| is_alive(*pid));
            most = most.max(alive.count());
        }
        assert!(hang.into_iter().chain(after).all(|job| job.join().is_ok()));
        assert!(most <= 3, "{most}");
    });
}

#[test]
fn promise_17_a_worker_that_has_grown_is_replaced() {
    within(LONG, "grown", || {
        let pool = ProcessPool::builder()
            .max_workers(1)
            .recycle_above(60 << 20);
        let pool = pool.build().unwrap();
        let first = pool.submit(leak::call(20 << 20)).join().unwrap();
        assert_eq!(pool.submit(leak::call(20 << 20)).join().unwrap(), first);
        assert_eq!(pool.submit(leak::call(40 << 20)).join().unwrap(), first);
        let second = pool.submit(leak::call(0)).join().unwrap();
        assert_ne!(second, first);
        assert_eq!(pool.submit(leak::call(0)).join().unwrap(), second);
    });
}

/// Its second run returns. The first one waits for the file, and aborts.
#[task(idempotent)]
fn abort_once(marks: PathBuf) {
    if fs::create_dir(marks.join("begun")).is_err() {
        return;
    }
    while !marks.join("go").exists() {
        thread::sleep(Duration::from_millis(1));
    }
    process::abort();
}

/// The initializer of all workers but the first waits for the file.
#[task]
fn start_slowly(marks: PathBuf) {
    if fs::create_dir(marks.join("first")).is_ok() {
        return;
    }
    fs::write(marks.join("second"), "").unwrap();
    while !marks.join("go").exists() {
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn promise_3_a_retry_gets_a_worker_although_its_pool_needs_no_replacement() {
    within(LONG, "retry", || {
        let directory = tempfile::tempdir().unwrap();
        let marks = directory.path().to_owned();
        let pool = ProcessPool::builder()
            .max_workers(1)
            .max_jobs_per_worker(1)
            .retry_on_crash(1)
            // The replacement is given up once its initializer has taken so long.
            .start_timeout(Duration::from_secs(3))
            .initializer(start_slowly::call(marks.clone()))
            .build()
            .unwrap();
        let job = pool.submit(abort_once::call(marks.clone()));
        eventually("the job and the replacement have begun", || {
            marks.join("begun").exists() && marks.join("second").exists()
        });
        // From here on the pool needs no replacement, as no job is queued.
        let shutdown = pool.shutdown();
        let replacement = || pool.workers().len() > 1;
        eventually("the replacement is given up", || !replacement());
        fs::write(marks.join("go"), "").unwrap();
        job.join().unwrap();
        shutdown.join();
    });
}
