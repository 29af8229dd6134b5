//! Cancels of running jobs, and cancels that come too late or too early.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use futurepool::process::WorkerInfo;
use futurepool::{ProcessPool, first_ok, task};

use serde::de::{Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

use crate::common::{Gate, LONG, eventually, within};
use crate::jobs::{self, is_alive, kill, lines, quiet, worker_of};

#[test]
fn promise_6_cancel_kills_a_running_job() {
    within(LONG, "cancel", || {
        let pool = quiet(2).build().unwrap();
        let neighbor = pool.submit(jobs::sleep::call(500));
        for n in 0..10 {
            let label = n.to_string();
            let handle = pool.submit(jobs::never_ends::call().label(label.clone()));
            let pid = worker_of(&pool, &label);
            let (tell, told) = mpsc::channel();
            handle.add_done_callback(move |outcome| {
                let is_cancelled = outcome.is_err_and(|error| error.is_cancelled());
                tell.send((is_cancelled, is_alive(pid))).unwrap();
            });
            assert!(handle.cancel());
            // Once more, while it is killed or after that.
            assert!(handle.cancel());
            let error = handle.join().unwrap_err();
            assert!(error.is_cancelled() && !error.is_crashed(), "{error}");
            // The callback ran when the process was dead.
            assert_eq!(told.recv_timeout(LONG), Ok((true, false)));
        }
        assert_eq!(neighbor.join().unwrap(), 500);
        let now = jobs::assert_balanced(&pool);
        assert_eq!((now.completed, now.cancelled, now.failed), (1, 10, 0));
    });
}

#[test]
fn promise_6_a_job_can_end_by_itself_in_its_grace() {
    within(LONG, "grace", || {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lines");
        let file = path.to_str().unwrap().to_owned();
        let grace = Duration::from_secs(600);
        let pool = quiet(1).cancel_grace(grace).build().unwrap();
        let handle = pool.submit(jobs::end_when_asked::call(file));
        eventually("the job runs", || !lines(&path).is_empty());
        assert!(handle.cancel());
        let error = handle.join().unwrap_err();
        assert!(error.is_cancelled() && error.may_have_run(), "{error}");
        assert!(!error.to_string().contains("killed"), "{error}");
        assert_eq!(lines(&path), ["started", "asked"]);
        // The worker is replaced: the old one was told that its pool wants nothing more.
        assert_eq!(pool.submit(jobs::add::call(1, 1)).join().unwrap(), 2);
        let now = jobs::assert_balanced(&pool);
        assert_eq!((now.completed, now.cancelled), (1, 1));
    });
}

#[test]
fn promise_6_a_job_that_does_not_end_in_its_grace_is_killed() {
    within(LONG, "grace", || {
        let grace = Duration::from_millis(300);
        // The time limit is extended by no cancel, and a grace by no limit.
        for limit in [None, Some(Duration::from_secs(600))] {
            let mut builder = quiet(1).cancel_grace(grace);
            if let Some(limit) = limit {
                builder = builder.time_limit(limit);
            }
            let pool = builder.build().unwrap();
            let handle = pool.submit(jobs::never_ends::call().label("job"));
            let pid = worker_of(&pool, "job");
            let start = Instant::now();
            assert!(handle.cancel());
            // `cancel` returns before the grace period ends.
            assert!(start.elapsed() < grace);
            assert!(!handle.is_finished());
            assert!(handle.join().unwrap_err().is_cancelled());
            assert!(start.elapsed() >= grace);
            assert!(!is_alive(pid));
        }
    });
}

#[test]
fn promise_6_whatever_cancels_a_job_kills_it() {
    within(LONG, "other cancels", || {
        let pool = quiet(2).build().unwrap();
        let dropped = pool.submit(jobs::never_ends::call().label("dropped"));
        let pid = worker_of(&pool, "dropped");
        drop(dropped.cancel_on_drop());
        eventually("the worker is gone", || !is_alive(pid));

        let slow = pool.submit(jobs::sleep::call(1_000_000).label("loser"));
        let pid = worker_of(&pool, "loser");
        let fast = pool.submit(jobs::sleep::call(1));
        assert_eq!(first_ok([slow, fast]).join().unwrap(), 1);
        eventually("the worker is gone", || !is_alive(pid));

        let running = pool.submit(jobs::never_ends::call().label("running"));
        let pid = worker_of(&pool, "running");
        assert_eq!(pool.cancel_queued(), 0);
        assert!(is_alive(pid));
        let shutdown = pool.shutdown_now();
        assert!(running.join().unwrap_err().is_cancelled());
        shutdown.join();
        assert!(!is_alive(pid));
    });
}

#[test]
fn promise_6_a_worker_that_does_not_leave_after_its_grace_is_killed() {
    within(LONG, "a worker that hangs at its exit", || {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lines");
        let file = path.to_str().unwrap().to_owned();
        let grace = Duration::from_secs(1);
        let pool = quiet(1).cancel_grace(grace).build().unwrap();
        let handle = pool.submit(jobs::end_when_asked_and_hang::call(file).label("job"));
        let pid = worker_of(&pool, "job");
        eventually("the job runs", || !lines(&path).is_empty());
        assert!(handle.cancel());
        assert!(handle.join().unwrap_err().is_cancelled());
        // The pool goes on meanwhile.
        assert_eq!(pool.submit(jobs::add::call(1, 1)).join().unwrap(), 2);
        eventually("the worker is gone", || !is_alive(pid));
    });
}

#[test]
fn promise_3_a_worker_that_does_not_leave_is_killed() {
    within(LONG, "stopped workers", || {
        // Idle for too long.
        let keep_alive = Duration::from_millis(300);
        let pool = quiet(1).keep_alive(keep_alive).build().unwrap();
        let pid = pool.submit(jobs::own_pid::call()).join().unwrap();
        jobs::stop(pid);
        eventually("the worker is gone", || !is_alive(pid));

        // Replaced: the end of the pool waits for it, too.
        let pool = quiet(1).max_jobs_per_worker(1).build().unwrap();
        let replaced = pool.submit(jobs::hang_at_exit::call()).join().unwrap();
        pool.shutdown().join();
        assert!(!is_alive(replaced));

        // At the end of its pool.
        let pool = quiet(1).build().unwrap();
        let pid = pool.submit(jobs::own_pid::call()).join().unwrap();
        jobs::stop(pid);
        pool.shutdown().join();
        assert!(!is_alive(pid));
    });
}

/// Arguments whose encoding waits: the job is with a thread, and with no worker.
struct Blocks(Option<(mpsc::SyncSender<()>, Gate)>);

impl Serialize for Blocks {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Some((tell, gate)) = &self.0 {
            tell.send(()).unwrap();
            gate.wait();
        }
        serializer.serialize_unit()
    }
}

impl<'de> Deserialize<'de> for Blocks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <()>::deserialize(deserializer).map(|()| Self(None))
    }
}

#[task]
fn never_ends_with(blocks: Blocks) -> bool {
    while blocks.0.is_none() {
        thread::sleep(Duration::from_secs(1));
    }
    true
}

/// Nothing but its thread knows of a job that is just being sent.
#[test]
fn promise_3_a_job_that_is_just_being_sent_is_cancelled() {
    within(LONG, "a cancel before the sending", || {
        for n in 0..4 {
            let pool = quiet(1).build().unwrap();
            // With a worker that is ready, and with one that is not.
            if n % 2 == 0 {
                pool.submit(jobs::nothing::call()).join().unwrap();
            }
            let (tell, told) = mpsc::sync_channel(1);
            let gate = Gate::new();
            let call = never_ends_with::call(Blocks(Some((tell, gate.clone()))));
            let handle = pool.submit(call);
            told.recv_timeout(LONG).unwrap();
            let shutdown = if n < 2 {
                pool.shutdown_now()
            } else {
                assert!(handle.cancel());
                pool.shutdown()
            };
            gate.open();
            let error = handle.join().unwrap_err();
            assert!(error.is_cancelled() && !error.may_have_run(), "{error}");
            shutdown.join();
        }
    });
}

#[test]
fn promise_3_shutdown_now_kills_a_job_at_any_moment() {
    within(LONG, "shutdown_now", || {
        for n in 0..100_u32 {
            let pool = quiet(1).build().unwrap();
            if n % 2 == 0 {
                pool.submit(jobs::nothing::call()).join().unwrap();
            }
            let handle = pool.submit(jobs::never_ends::call());
            let start = Instant::now();
            while start.elapsed() < Duration::from_micros(u64::from(n) * 10) {
                std::hint::spin_loop();
            }
            pool.shutdown_now().join();
            let error = handle.join().unwrap_err();
            assert!(error.is_cancelled(), "{error}");
        }
    });
}

/// Leaves a process behind that has a copy of the socket, and is in no group of the pool.
#[task]
fn leave_a_copy_of_the_socket(file: String, aborts: bool) {
    match fork::fork().unwrap() {
        fork::Fork::Parent(child) => {
            while lines(Path::new(&file)).is_empty() {
                thread::sleep(Duration::from_millis(1));
            }
            assert!(child > 0);
        }
        fork::Fork::Child => {
            rustix::process::setsid().unwrap();
            jobs::write_line(&file, &std::process::id().to_string());
            thread::sleep(2 * LONG);
            std::process::exit(0);
        }
    }
    if aborts {
        std::process::abort();
    }
    loop {
        thread::sleep(Duration::from_secs(1));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn promise_3_a_descendant_that_keeps_the_socket_keeps_no_handle() {
    within(LONG, "a copy of the socket", || {
        let directory = tempfile::tempdir().unwrap();
        for aborts in [true, false] {
            let path = directory.path().join(aborts.to_string());
            let file = path.to_str().unwrap().to_owned();
            let pool = quiet(1).build().unwrap();
            let handle = pool.submit(leave_a_copy_of_the_socket::call(file, aborts));
            eventually("the descendant is there", || !lines(&path).is_empty());
            let cancelled = !aborts && handle.cancel();
            let error = handle.join().unwrap_err();
            assert_eq!(error.is_cancelled(), cancelled, "{error}");
            assert_eq!(error.is_crashed(), aborts, "{error}");
            assert_eq!(pool.submit(jobs::add::call(1, 1)).join().unwrap(), 2);
            drop(pool);
            kill(lines(&path)[0].parse().unwrap());
        }
    });
}

/// Makes a program that never becomes a worker, and never ends.
fn stuck_program(directory: &tempfile::TempDir) -> PathBuf {
    let path = directory.path().join("stuck");
    fs::write(&path, "#!/bin/sh\nexec sleep 1000\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn promise_3_a_cancel_does_not_wait_for_the_start_of_a_worker() {
    within(LONG, "cancel at a start", || {
        let directory = tempfile::tempdir().unwrap();
        let builder = quiet(2).program(stuck_program(&directory));
        let builder = builder.start_timeout(Duration::from_secs(600));
        let pool = builder.build().unwrap();
        let [first, second] = [0, 1].map(|_| pool.submit(jobs::nothing::call()));
        eventually("a worker starts", || !pool.workers().is_empty());
        assert!(first.cancel());
        let error = first.join().unwrap_err();
        assert!(error.is_cancelled() && !error.may_have_run(), "{error}");
        // Until it is known that the program can be a worker, there is one process.
        assert_eq!(pool.workers().len(), 1);
        pool.shutdown_now().join();
        assert!(second.join().unwrap_err().is_cancelled());
    });
}

/// Does not end while the file exists.
#[task]
fn wait_while_it_exists(file: String) {
    while Path::new(&file).exists() {
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn promise_3_a_cancel_does_not_wait_for_an_initializer() {
    within(LONG, "cancel in an initializer", || {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("exists");
        let file = path.to_str().unwrap().to_owned();
        for stops in [false, true] {
            let builder = quiet(1).initializer(wait_while_it_exists::call(file.clone()));
            let builder = builder.start_timeout(Duration::from_secs(600));
            let pool = builder.build().unwrap();
            let pid = pool.submit(jobs::own_pid::call()).join().unwrap();
            fs::write(&path, "").unwrap();
            kill(pid);
            eventually("the worker is gone", || !is_alive(pid));
            // A thread has the job, and its worker does not become ready.
            let handle = pool.submit(jobs::nothing::call());
            eventually("the job is with a thread", || handle.is_running());
            // Not on the old worker, which may not have ended altogether.
            let is_initializer = |task: &str| task.ends_with("wait_while_it_exists");
            let initializes =
                |worker: &WorkerInfo| worker.task.as_deref().is_some_and(is_initializer);
            eventually("a worker is initialized", || {
                pool.workers().iter().any(initializes)
            });
            if stops {
                pool.shutdown_now().join();
            } else {
                assert!(handle.cancel());
            }
            let error = handle.join().unwrap_err();
            assert!(error.is_cancelled() && !error.may_have_run(), "{error}");
            fs::remove_file(&path).unwrap();
            if !stops {
                // The pool is not broken.
                pool.submit(jobs::nothing::call()).join().unwrap();
            }
        }
    });
}

#[test]
fn promise_18_many_jobs_do_not_wait_for_one_failing_start_after_the_other() {
    within(LONG, "failing starts", || {
        let directory = tempfile::tempdir().unwrap();
        let timeout = Duration::from_secs(4);
        let builder = quiet(16).program(stuck_program(&directory));
        let pool = builder.start_timeout(timeout).build().unwrap();
        let start = Instant::now();
        let handles: Vec<_> = (0..16)
            .map(|_| pool.submit(jobs::nothing::call()))
            .collect();
        for handle in handles {
            let error = handle.join().unwrap_err();
            assert!(error.is_spawn_failed() || error.is_broken(), "{error}");
            assert!(!error.may_have_run());
        }
        // One start, not one after the other.
        assert!(start.elapsed() < 2 * timeout, "{:?}", start.elapsed());
        jobs::assert_balanced(&pool);
    });
}

#[test]
fn promise_7_a_kill_never_hits_the_next_job() {
    let threads: Vec<_> = (0..2)
        .map(|n| {
            thread::spawn(move || {
                let pool = quiet(1).build().unwrap();
                let (hits, misses) = cancel_at_the_end_of_jobs(&pool, 5_000);
                println!("thread {n}: {hits} jobs were killed, {misses} had ended");
                // The moment was right.
                assert!(hits > 50 && misses > 50, "{hits} hits, {misses} misses");
            })
        })
        .collect();
    for thread in threads {
        within(10 * LONG, "kills at the end of a job", || {
            thread.join().unwrap()
        });
    }
}

/// Cancels jobs at the moment at which they end, each with a next one behind it, and checks the next one.
fn cancel_at_the_end_of_jobs(pool: &ProcessPool, times: u64) -> (u64, u64) {
    let (mut hits, mut misses) = (0, 0);
    // A kill costs a new process, so most cancels come a little too late.
    let mut delay = Duration::from_micros(100);
    for n in 0..times {
        pool.submit(jobs::nothing::call()).join().unwrap();
        let job = pool.submit(jobs::nothing::call());
        let next = pool.submit(jobs::add::call(n, 1));
        let start = Instant::now();
        while start.elapsed() < delay {
            std::hint::spin_loop();
        }
        let cancelled = job.cancel();
        match job.join() {
            Ok(()) => assert!(!cancelled),
            Err(error) => assert!(error.is_cancelled() && cancelled, "{error}"),
        }
        assert_eq!(next.join().unwrap(), n + 1);
        if cancelled {
            hits += 1;
            delay += Duration::from_micros(4);
        } else {
            misses += 1;
            delay = delay.saturating_sub(Duration::from_micros(1));
        }
    }
    let now = jobs::assert_balanced(pool);
    assert_eq!((now.completed, now.cancelled), (3 * times - hits, hits));
    (hits, misses)
}
