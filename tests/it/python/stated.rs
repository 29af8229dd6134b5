//! Promises that CPython's documentation makes, or its tracker asks for, and its suite does not
//! test.

use std::cell::Cell;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use futurepool::{ExecutorExt, JoinError, ReturnWhen, as_completed, wait};
use futurepool::{JoinHandle, ThreadPool, block_on};
use futures::StreamExt;

use super::{Kept, all};
use super::{told_job, with_watchdog};
use crate::common::poll_once;
use crate::common::{Gate, block_workers, eventually};

#[test]
fn the_timeout_of_a_map_counts_from_its_call() {
    with_watchdog(|| {
        let pool = ThreadPool::new(1);
        let gate = Gate::new();
        let wait = gate.clone();
        let job = move |i: u32| {
            if i > 0 {
                wait.wait();
            }
        };
        let limit = Duration::from_millis(100);
        let mut map = pool.map(0..3, job).timeout(limit).start();
        eventually("the first is done", || pool.metrics().completed == 1);
        thread::sleep(limit);
        assert!(
            poll_once(&mut map.next())
                .map(Option::unwrap)
                .map(Result::unwrap)
                .is_ready()
        );
        // The timeout has elapsed, and the second map has none.
        let std::task::Poll::Ready(Some(Err(error))) = poll_once(&mut map.next()) else {
            panic!("the time is over");
        };
        assert!(error.is_timeout());
        gate.open();
    });
}

#[test]
fn callbacks_run_in_the_order_added_in_the_thread_that_completes() {
    with_watchdog(|| {
        let pool = ThreadPool::new(1);
        let worker = pool.submit(|| thread::current().id()).join().unwrap();
        let (go, handle) = told_job(&pool);
        let order = Arc::new(Mutex::new(Vec::new()));
        for i in 0..10 {
            let order = Arc::clone(&order);
            handle.add_done_callback(move |_| {
                order.lock().unwrap().push((i, thread::current().id()));
            });
        }
        go.send(Ok(1)).unwrap();
        handle.join().unwrap();
        let wanted: Vec<_> = (0..10).map(|i| (i, worker)).collect();
        assert_eq!(*order.lock().unwrap(), wanted);
    });
}

// DIFFERENCE: in CPython a worker that waits for the shutdown gets an error, as it would join
// itself. Here the wait ends when all other workers have ended.
#[test]
fn shutdown_may_be_called_twice_and_by_a_worker() {
    with_watchdog(|| {
        let pool = Arc::new(ThreadPool::new(2));
        let inner = Arc::clone(&pool);
        let handle = pool.submit(move || inner.shutdown().join());
        let queued = pool.submit(|| ());
        handle.join().unwrap();
        // The job was accepted or rejected; it does not hang.
        let accepted = queued.join().is_ok();
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| pool.shutdown().join());
            }
        });
        pool.shutdown().join();
        let metrics = pool.metrics();
        assert_eq!(
            (metrics.workers, metrics.completed),
            (0, 1 + u64::from(accepted))
        );
    });
}

// DIFFERENCE: in CPython a future is done before its worker counts as idle.
#[test]
fn a_worker_is_idle_before_its_result_is_seen() {
    with_watchdog(|| {
        let pool = ThreadPool::new(4);
        for done in 1..=200 {
            pool.submit(|| ()).join().unwrap();
            let metrics = pool.metrics();
            let counts = (metrics.idle, metrics.running, metrics.completed);
            assert_eq!(counts, (1, 0, done));
        }
    });
}

// DIFFERENCE: CPython's documentation has these waits as its examples of deadlocks.
#[test]
fn a_worker_that_joins_a_job_of_its_own_pool_does_not_hang() {
    with_watchdog(|| {
        fn nested(pool: &Arc<ThreadPool>, depth: u32) -> u32 {
            if depth == 0 {
                return 0;
            }
            let inner = Arc::clone(pool);
            let handle = pool.submit(move || nested(&inner, depth - 1));
            match depth % 2 {
                0 => handle.join().unwrap() + 1,
                _ => block_on(handle).unwrap() + 1,
            }
        }
        let pool = Arc::new(ThreadPool::new(1));
        let inner = Arc::clone(&pool);
        assert_eq!(pool.submit(move || nested(&inner, 20)).join().unwrap(), 20);
    });
}

#[test]
fn a_worker_that_waits_for_many_jobs_of_its_own_pool_does_not_hang() {
    with_watchdog(|| {
        let pool = Arc::new(ThreadPool::new(1));
        let inner = Arc::clone(&pool);
        let outer = pool.submit(move || {
            let jobs = || (0..4).map(|i| inner.submit(move || i)).collect::<Vec<_>>();
            for when in [
                ReturnWhen::AllCompleted,
                ReturnWhen::FirstCompleted,
                ReturnWhen::FirstException,
            ] {
                assert!(!wait(jobs(), when).join().done.is_empty());
            }
            assert_eq!(all(as_completed(jobs())).len(), 4);
            assert_eq!(all(inner.map(0..4, |i| i)), [0, 1, 2, 3]);
            assert_eq!(all(inner.map_unordered(0..4, |i| i)).len(), 4);
        });
        outer.join().unwrap();
    });
}

#[test]
fn a_worker_that_waits_for_a_scope_of_its_own_pool_does_not_hang() {
    with_watchdog(|| {
        let pool = Arc::new(ThreadPool::new(1));
        let inner = Arc::clone(&pool);
        let outer = pool.submit(move || {
            let numbers = [1, 2, 3];
            inner.scope(|scope| {
                let handles = numbers.each_ref().map(|i| scope.submit(move || i * 2));
                let _detached = scope.submit(|| numbers.len());
                handles.map(|handle| handle.join().unwrap())
            })
        });
        assert_eq!(outer.join().unwrap(), [2, 4, 6]);
    });
}

// DIFFERENCE: CPython hangs; its documentation says so.
#[test]
fn two_jobs_that_join_each_other_get_an_error() {
    with_watchdog(|| {
        let pool = ThreadPool::new(2);
        let (tell, told) = mpsc::channel();
        let joins_what_it_gets = || {
            let (give, take) = mpsc::channel::<JoinHandle<()>>();
            let tell = tell.clone();
            let handle = pool.submit(move || {
                let outcome = take.recv().unwrap().join();
                tell.send(outcome.is_err_and(|error| error.is_deadlock()))
                    .unwrap();
            });
            (give, handle)
        };
        let (to_one, one) = joins_what_it_gets();
        let (to_other, other) = joins_what_it_gets();
        to_one.send(other).unwrap();
        to_other.send(one).unwrap();
        // The job whose join fails ends, and so the other join returns.
        assert_eq!((told.recv(), told.recv()), (Ok(true), Ok(false)));
    });
}

#[test]
fn handles_of_several_executors_are_waited_for_together() {
    with_watchdog(|| {
        let (one, other) = (ThreadPool::new(1), ThreadPool::new(1));
        let handles = || {
            let inline = futurepool::InlineExecutor.submit(|| 4);
            let global = futurepool::submit(|| 3);
            vec![one.submit(|| 1), other.submit(|| 2), global, inline]
        };
        let waited = wait(handles(), ReturnWhen::AllCompleted).join();
        assert_eq!(
            all(waited.done.into_iter().map(JoinHandle::join)),
            [1, 2, 3, 4]
        );
        let mut results = all(as_completed(handles()));
        results.sort();
        assert_eq!(results, [1, 2, 3, 4]);
    });
}

// DIFFERENCE: CPython's executors learn at run time that a future runs or was cancelled already.
// Here running, refusing or dropping a job consumes it, and no handle hangs.
#[test]
fn a_job_in_any_executor_runs_once_or_is_reported() {
    with_watchdog(|| {
        let jobs = Kept::default();
        let captured = Arc::new(());
        let submit = || {
            let captured = Arc::clone(&captured);
            jobs.submit(move || Arc::strong_count(&captured))
        };
        let handle = submit();
        assert!(!handle.is_running() && !handle.is_finished());
        jobs.next().run();
        assert_eq!(handle.join().unwrap(), 2);

        let handle = submit();
        drop(jobs.next());
        assert!(handle.join().unwrap_err().is_cancelled());

        let handle = submit();
        jobs.next().refuse(JoinError::shutdown());
        assert!(handle.join().unwrap_err().is_shutdown());

        let handle = submit();
        assert!(handle.cancel());
        assert_eq!(Arc::strong_count(&captured), 1, "the closure is gone");
        jobs.next().run();
        assert!(handle.join().unwrap_err().is_cancelled());

        let handle = jobs.submit(|| panic!("as it should"));
        jobs.next().run();
        assert!(handle.join().unwrap_err().is_panic());

        let handle = submit();
        drop(jobs);
        assert!(handle.join().unwrap_err().is_cancelled());
    });
}

// DIFFERENCE: CPython's workers may each have an interpreter. Here they are threads, and the state
// of a worker is thread-local, created by the initializer.
#[test]
fn each_worker_may_have_a_state_of_its_own() {
    with_watchdog(|| {
        thread_local! {
            static JOBS: Cell<u32> = const { Cell::new(0) };
        }
        let builder = ThreadPool::builder().max_workers(2);
        let pool = builder.initializer(|| JOBS.set(100)).build().unwrap();
        let job = || JOBS.replace(JOBS.get() + 1);
        // One worker is blocked while the other one counts.
        let blocked = block_workers(&pool, 1);
        let counts = [(); 3].map(|()| pool.submit(job).join().unwrap());
        assert_eq!(counts, [100, 101, 102]);
        blocked.release();
        assert_eq!(JOBS.get(), 0, "nor has this thread anything of it");
    });
}

// DIFFERENCE: CPython can kill its processes. A thread can only be asked to end; `join_timeout`
// reports the workers that are left.
#[test]
fn a_shutdown_with_a_timeout_reports_what_is_left() {
    with_watchdog(|| {
        let pool = ThreadPool::new(3);
        let blocked = block_workers(&pool, 2);
        let queued = pool.submit(|| ());
        let queued_too = [(); 3].map(|()| pool.submit(|| ()));
        queued.join().unwrap();
        let mut end = pool.shutdown_now();
        let error = loop {
            let error = end.join_timeout(Duration::from_millis(5)).unwrap_err();
            if error.pending() == 2 {
                break error;
            }
        };
        assert_eq!((error.pending(), error.total()), (2, 3));
        assert_eq!(error.to_string(), "2 (of 3) workers unfinished");
        for handle in queued_too {
            assert!(
                handle
                    .join()
                    .map_or_else(|error| error.is_cancelled(), |()| true)
            );
        }
        blocked.release();
        end.join_timeout(Duration::MAX).unwrap();
    });
}

#[test]
fn a_queue_may_have_a_capacity() {
    with_watchdog(|| {
        let builder = ThreadPool::builder().max_workers(1).queue_capacity(2);
        let pool = builder.build().unwrap();
        let blocked = block_workers(&pool, 1);
        let handles = [1, 2].map(|i| pool.try_submit(move || i).unwrap());
        let full = pool.try_submit(|| 3).unwrap_err();
        assert!(full.is_full() && !full.is_shutdown());
        let job = full.into_inner();
        blocked.release();
        assert_eq!(handles.map(|handle| handle.join().unwrap()), [1, 2]);
        assert_eq!(pool.submit(job).join().unwrap(), 3);
    });
}

// Python's tracker asks for a `with` block that does not wait when an error leaves it.
#[test]
fn a_panic_that_leaves_the_block_is_not_delayed_by_the_pool() {
    with_watchdog(|| {
        let gate = Gate::new();
        let (wait, (tell, told)) = (gate.clone(), mpsc::channel());
        let block = thread::spawn(move || {
            let pool = ThreadPool::new(1);
            let running = pool.submit(move || {
                wait.wait();
                tell.send(()).unwrap();
            });
            eventually("it runs", || running.is_running());
            panic!("as it should");
        });
        assert!(block.join().is_err());
        assert!(told.try_recv().is_err(), "the block did not wait for it");
        gate.open();
        told.recv().unwrap();
    });
}
