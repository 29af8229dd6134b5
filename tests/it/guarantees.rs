//! The guarantees of the README, each by its number. Number 4 is in `reentrancy.rs`, number 6 in
//! `nested.rs`, number 7 in `refused_threads.rs`, number 9 in `spans.rs`, number 11 in `scope.rs`;
//! the allocation count of number 5 is in `allocations.rs`.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex, Weak, mpsc};
use std::task::{Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{
    CountingWaker, Gate, LONG, block_workers, eventually, poll_once, poll_with, within,
};
use futurepool::{JoinError, JoinHandle, ThreadPool, block_on};

#[test]
fn guarantee_1_every_handle_resolves_whatever_happens() {
    within(LONG, "every handle resolves", || {
        type Ending = fn(&JoinError) -> bool;
        let resolves = |pool: ThreadPool, end: &dyn Fn(ThreadPool), ending: Ending| {
            let blocked = block_workers(&pool, 1);
            let mut polled: Vec<_> = (0..10).map(|_| pool.submit(|| ())).collect();
            let joined: Vec<_> = (0..10).map(|_| pool.submit(|| ())).collect();
            let (task, waker) = CountingWaker::new();
            for handle in &mut polled {
                assert!(poll_with(handle, &waker).is_pending());
            }
            let joiner = thread::spawn(move || joined.into_iter().map(JoinHandle::join).collect());
            blocked.gate().open();
            end(pool);
            eventually("all are woken", || task.count() == 10);
            let mut outcomes: Vec<_> = joiner.join().unwrap();
            outcomes.extend(polled.into_iter().map(block_on));
            for outcome in outcomes {
                // Jobs that had started by then returned normally.
                assert!(outcome.as_ref().is_ok_and(|()| true) || ending(&outcome.unwrap_err()));
            }
        };
        let cancelled = JoinError::is_cancelled;
        resolves(ThreadPool::new(1), &drop, |_| false);
        resolves(ThreadPool::new(1), &|pool| pool.shutdown().join(), |_| {
            false
        });
        resolves(
            ThreadPool::new(1),
            &|pool| pool.shutdown_now().join(),
            cancelled,
        );
        resolves(
            ThreadPool::new(1),
            &|pool| assert!(pool.cancel_pending() <= 20),
            cancelled,
        );
        // The second worker is spawned for the queued jobs, and its initializer fails.
        let (gate, starts) = (Gate::new(), AtomicUsize::new(0));
        let wait = gate.clone();
        let fails = move || {
            if starts.fetch_add(1, SeqCst) == 0 {
                return Ok(());
            }
            wait.wait();
            Err("no second connection")
        };
        let pool = ThreadPool::builder()
            .max_workers(2)
            .initializer(fails)
            .build();
        resolves(pool.unwrap(), &|_| gate.open(), JoinError::is_broken);
        // A panic in the job, and in the destructor of its result.
        struct Panics;
        impl Drop for Panics {
            fn drop(&mut self) {
                panic!("in a destructor");
            }
        }
        let pool = ThreadPool::new(1);
        assert!(
            pool.submit(|| panic!("in the job"))
                .join()
                .unwrap_err()
                .is_panic()
        );
        assert!(pool.submit(|| drop(Panics)).join().unwrap_err().is_panic());
        let captured = Panics;
        let blocked = block_workers(&pool, 1);
        let handle = pool.submit(move || drop(captured));
        assert!(handle.cancel(), "it stays cancelled");
        assert!(handle.join().unwrap_err().is_cancelled());
        drop(pool.submit(|| Panics));
        blocked.release();
        let handle = pool.submit(|| Panics);
        eventually("it is done", || handle.is_finished());
        drop(handle); // the panic of the destructor is caught as well
        assert_eq!(pool.submit(|| 1).join().unwrap(), 1);
    });
}

#[test]
fn guarantee_2_a_job_runs_once_or_is_reported_as_not_run() {
    within(2 * LONG, "once or not at all", || {
        const JOBS: usize = 2_000;
        for round in 0..20 {
            let pool = ThreadPool::new(3);
            let runs: Arc<Vec<AtomicUsize>> = Arc::new((0..JOBS).map(|_| 0.into()).collect());
            let handles: Vec<_> = (0..JOBS)
                .map(|i| {
                    let runs = Arc::clone(&runs);
                    pool.submit(move || {
                        runs[i].fetch_add(1, SeqCst);
                        assert_ne!(i % 10, 9, "every tenth panics");
                    })
                })
                .collect();
            let barrier = Barrier::new(3);
            thread::scope(|scope| {
                for offset in 0..2 {
                    let (handles, barrier) = (&handles, &barrier);
                    scope.spawn(move || {
                        barrier.wait();
                        for handle in handles.iter().rev().skip(offset).step_by(2) {
                            handle.cancel();
                        }
                    });
                }
                barrier.wait();
                match round % 3 {
                    0 => drop(pool.shutdown()),
                    1 => drop(pool.shutdown_now()),
                    _ => drop(pool.cancel_pending()),
                }
            });
            let mut seen = [0_u64; 3];
            for (i, handle) in handles.into_iter().enumerate() {
                let (runs, outcome) = (&runs[i], handle.join());
                let runs = runs.load(SeqCst);
                match outcome {
                    Ok(()) => assert_eq!(runs, 1),
                    Err(error) if error.is_panic() => assert_eq!(runs, 1),
                    Err(error) => assert!(error.is_cancelled() && runs == 0, "{error}, ran {runs}"),
                }
                seen[0] += u64::from(runs == 1 && i % 10 != 9);
                seen[1] += u64::from(runs == 1 && i % 10 == 9);
                seen[2] += u64::from(runs == 0);
            }
            let metrics = pool.metrics();
            let counted = [metrics.completed, metrics.panicked, metrics.cancelled];
            assert_eq!((counted, metrics.submitted), (seen, JOBS as u64));
            assert_eq!((metrics.queued, metrics.running), (0, 0));
        }
    });
}

/// A waker that reports when it is woken and when it is dropped.
struct Tells(mpsc::Sender<&'static str>, [&'static str; 2]);

impl Wake for Tells {
    fn wake(self: Arc<Self>) {
        self.0.send(self.1[0]).unwrap();
    }
}

impl Drop for Tells {
    fn drop(&mut self) {
        let _ = self.0.send(self.1[1]);
    }
}

#[test]
fn guarantee_3_the_last_waker_wins_and_a_dropped_handle_wakes_no_task() {
    within(LONG, "wakers", || {
        let pool = ThreadPool::new(1);
        let (tell, told) = mpsc::channel();
        let waker = |names| Waker::from(Arc::new(Tells(tell.clone(), names)));

        let blocked = block_workers(&pool, 1);
        let mut handle = pool.submit(|| ());
        let first = waker(["first woken", "first dropped"]);
        assert!(poll_with(&mut handle, &first).is_pending());
        drop(first);
        assert_eq!(told.try_recv().ok(), None, "the handle keeps it");
        let second = waker(["second woken", "second dropped"]);
        assert!(poll_with(&mut handle, &second).is_pending());
        assert_eq!(told.try_recv(), Ok("first dropped"), "at that poll");
        drop(second);
        blocked.release();
        assert_eq!(told.recv_timeout(LONG), Ok("second woken"));
        assert_eq!(told.recv_timeout(LONG), Ok("second dropped"));

        let blocked = block_workers(&pool, 1);
        let mut handle = pool.submit(|| ());
        assert!(poll_with(&mut handle, &waker(["third woken", "third dropped"])).is_pending());
        drop(handle);
        assert_eq!(told.try_recv(), Ok("third dropped"), "nothing is kept");
        blocked.release();
        pool.submit(|| ()).join().unwrap();
        assert_eq!(told.try_recv().ok(), None, "and no task is woken");

        // The same while the job runs.
        let (gate, (started, starts)) = (Gate::new(), mpsc::channel());
        let wait = gate.clone();
        let mut handle = pool.submit(move || {
            started.send(()).unwrap();
            wait.wait();
        });
        starts.recv_timeout(LONG).unwrap();
        assert!(poll_with(&mut handle, &waker(["fourth woken", "fourth dropped"])).is_pending());
        drop(handle);
        assert_eq!(told.try_recv(), Ok("fourth dropped"));
        gate.open();
        pool.submit(|| ()).join().unwrap();
        assert_eq!(told.try_recv().ok(), None);
    });
}

#[test]
fn guarantee_3_no_wakeup_is_lost_between_poll_and_end() {
    within(2 * LONG, "poll against end", || {
        let pool = ThreadPool::new(2);
        for _ in 0..20_000 {
            // This poll comes at about the moment when the job ends.
            assert!(block_on(pool.submit(|| ())).is_ok());
        }
        for _ in 0..5_000 {
            let mut handle = pool.submit(|| ());
            if poll_once(&mut handle).is_pending() {
                // The first waker does nothing; the waker of this poll must be woken.
                assert!(block_on(handle).is_ok());
            }
        }
    });
}

#[test]
fn guarantee_5_the_pool_keeps_nothing_of_a_resolved_job() {
    within(LONG, "nothing is kept", || {
        let pool = ThreadPool::new(1);
        let gone = |value: &Weak<()>| value.strong_count() == 0;
        let pair = || {
            let value = Arc::new(());
            (Arc::downgrade(&value), value)
        };
        // The closure is dropped once the result is there; the handle is still alive.
        let (weak, value) = pair();
        let mut handle = pool.submit(move || drop(value));
        handle.join_timeout(LONG).unwrap();
        assert!(gone(&weak));
        // Unused captures are dropped before the job ends, too.
        let (weak, value) = pair();
        let mut handle = pool.submit(move || {
            let _kept = &value;
        });
        handle.join_timeout(LONG).unwrap();
        assert!(gone(&weak));
        // The result, after it was taken.
        let (weak, value) = pair();
        let mut handle = pool.submit(move || value);
        drop(handle.join_timeout(LONG).unwrap());
        assert!(gone(&weak));
        // Closure and result of a handle that was dropped at once.
        let (weak, value) = pair();
        drop(pool.submit(move || value));
        pool.submit(|| ()).join().unwrap();
        assert!(gone(&weak));
        // A cancelled job, while its tombstone is still in the queue.
        let blocked = block_workers(&pool, 1);
        let (weak, value) = pair();
        let handle = pool.submit(move || value);
        assert!(handle.cancel());
        assert!(gone(&weak));
        blocked.release();
        // Callbacks.
        let (weak, value) = pair();
        let mut handle = pool.submit(|| ());
        handle.add_done_callback(move |_| drop(value));
        handle.join_timeout(LONG).unwrap();
        assert!(gone(&weak));
    });
}

#[test]
fn cancelling_every_second_of_a_hundred_thousand_frees_them_at_once() {
    within(2 * LONG, "50,000 cancels", || {
        const JOBS: usize = 100_000;
        let pool = ThreadPool::new(1);
        let blocked = block_workers(&pool, 1);
        let live = Arc::new(());
        let handles: Vec<_> = (0..JOBS)
            .map(|i| {
                let live = Arc::clone(&live);
                pool.submit(move || {
                    drop(live);
                    i
                })
            })
            .collect();
        let (cancelled, kept): (Vec<_>, Vec<_>) = handles
            .into_iter()
            .enumerate()
            .partition(|(i, _)| i % 2 == 1);
        let before = Instant::now();
        for (n, (_, handle)) in cancelled.iter().enumerate() {
            assert!(handle.cancel());
            // The last reference is that of this test.
            assert_eq!(Arc::strong_count(&live), JOBS - n);
        }
        println!("a cancel took {:?}", before.elapsed() / 50_000);
        // The only worker is still blocked, and all waiters of these jobs were woken.
        for (_, handle) in cancelled {
            assert!(block_on(handle).unwrap_err().is_cancelled());
        }
        assert_eq!(pool.metrics().completed, 0);
        blocked.release();
        for (i, handle) in kept {
            assert_eq!(handle.join().unwrap(), i);
        }
    });
}

#[test]
fn guarantee_8_an_initializer_that_fails_breaks_the_pool() {
    fn broken(error: &JoinError, cause: &str) -> bool {
        let source = std::error::Error::source(error)
            .expect("the cause")
            .to_string();
        error.is_broken() && error.to_string().contains(cause) && source.contains(cause)
    }
    within(LONG, "broken pools", || {
        let fails = ThreadPool::builder()
            .max_workers(1)
            .initializer(|| Err::<(), _>(io::Error::other("no such database")));
        let panics = ThreadPool::builder()
            .max_workers(1)
            .initializer(|| panic!("no such luck"));
        for (builder, cause) in [(fails, "no such database"), (panics, "no such luck")] {
            let pool = builder.build().unwrap();
            // Queued jobs.
            let handles: Vec<_> = (0..20).map(|_| pool.submit(|| ())).collect();
            for handle in handles {
                let error = handle.join().unwrap_err();
                assert!(broken(&error, cause), "{error}");
            }
            // Jobs submitted later.
            assert!(broken(&pool.submit(|| ()).join().unwrap_err(), cause));
            let error = pool.try_submit(|| 6).unwrap_err();
            assert!(error.is_broken() && error.to_string().contains(cause));
            assert_eq!(error.into_inner()(), 6);
            let error = block_on(pool.submit_async(|| 7)).unwrap_err();
            assert_eq!((error.is_broken(), error.into_inner()()), (true, 7));
            eventually("its worker has exited", || pool.metrics().workers == 0);
            // The pool shuts down as any other, and stays broken.
            pool.shutdown_now().join();
            assert!(broken(&pool.submit(|| ()).join().unwrap_err(), cause));
        }
    });
}

#[test]
fn guarantee_8_jobs_that_run_when_the_pool_breaks_end_normally() {
    within(LONG, "broken beside a job", || {
        let starts = AtomicUsize::new(0);
        let pool = ThreadPool::builder()
            .max_workers(2)
            .initializer(move || match starts.fetch_add(1, SeqCst) {
                0 => Ok(()),
                _ => Err("only one"),
            })
            .build()
            .unwrap();
        let gate = Gate::new();
        let (wait, (tell, told)) = (gate.clone(), mpsc::channel());
        let running = pool.submit(move || {
            tell.send(()).unwrap();
            wait.wait();
            "well"
        });
        told.recv_timeout(LONG).unwrap();
        let queued = pool.submit(|| "not");
        assert!(queued.join().unwrap_err().is_broken());
        gate.open();
        assert_eq!(running.join().unwrap(), "well");
        let metrics = pool.metrics();
        assert_eq!((metrics.completed, metrics.cancelled), (1, 1));
    });
}

/// Returns what the threads with this name prefix have used so far: CPU time in nanoseconds, and
/// the number of voluntary context switches.
///
/// Not every kernel counts nanoseconds. The fallback is hundredths of a second, from `stat`: on a
/// busy machine each of many threads that never sleep uses less than one.
#[cfg(target_os = "linux")]
fn used_by(prefix: &str) -> (u64, u64) {
    let used = |task: std::path::PathBuf| {
        let name = std::fs::read_to_string(task.join("comm")).ok()?;
        let time = match std::fs::read_to_string(task.join("schedstat")) {
            Ok(schedstat) => schedstat.split(' ').next()?.parse::<u64>().ok()?,
            Err(_) => {
                let stat = std::fs::read_to_string(task.join("stat")).ok()?;
                let (_, rest) = stat.rsplit_once(") ")?;
                let field = |n: usize| rest.split(' ').nth(n)?.parse::<u64>().ok();
                // The state is field 3; user and system time are 14 and 15.
                (field(11)? + field(12)?) * 10_000_000
            }
        };
        let status = std::fs::read_to_string(task.join("status")).ok()?;
        let mut lines = status.lines();
        let switches = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        let used = (time, switches.trim().parse().ok()?);
        name.starts_with(prefix).then_some(used)
    };
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let each: Vec<_> = tasks.filter_map(|task| used(task.ok()?.path())).collect();
    assert!(!each.is_empty(), "no thread is called {prefix}");
    let add = |sum: (u64, u64), one: (u64, u64)| (sum.0 + one.0, sum.1 + one.1);
    each.into_iter().fold((0, 0), add)
}

#[cfg(target_os = "linux")]
#[test]
fn guarantee_10_an_idle_pool_uses_no_cpu_time() {
    within(LONG, "idle", || {
        let builder = ThreadPool::builder().max_workers(64);
        let pool = builder.thread_name_prefix("dormant").build().unwrap();
        block_workers(&pool, 64).release();
        let mut before = (0, 0);
        eventually("all sleep", || {
            thread::sleep(Duration::from_millis(50));
            let now = used_by("dormant");
            std::mem::replace(&mut before, now) == now
        });
        thread::sleep(Duration::from_secs(1));
        assert_eq!(used_by("dormant"), before);
    });
}

#[test]
fn jobs_that_all_end_at_the_same_moment_wake_all_waiters() {
    within(2 * LONG, "one moment", || {
        let pool = Arc::new(ThreadPool::new(8));
        for _ in 0..300 {
            let gate = Gate::new();
            let handles: Vec<_> = (0..32)
                .map(|i| {
                    let gate = gate.clone();
                    pool.submit(move || {
                        gate.wait();
                        i
                    })
                })
                .collect();
            let sum = Arc::new(Mutex::new(0));
            thread::scope(|scope| {
                let mut handles = handles.into_iter();
                for _ in 0..4 {
                    let mine: Vec<_> = handles.by_ref().take(8).collect();
                    let sum = Arc::clone(&sum);
                    scope.spawn(move || {
                        for handle in mine {
                            *sum.lock().unwrap() += block_on(handle).unwrap();
                        }
                    });
                }
                gate.open();
            });
            assert_eq!(*sum.lock().unwrap(), (0..32).sum::<i32>());
        }
    });
}
