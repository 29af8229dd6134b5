//! Promises where CPython's suite pins a known defect, or where its tracker has an open issue.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use futurepool::ThreadPool;
use futurepool::{ReturnWhen, as_completed, block_on, wait};
use futures::StreamExt;

use super::with_watchdog;
use crate::common::child;
use crate::common::event_log::EventLog;
use crate::common::{CountingWaker, poll_once, poll_with, spawn_until_asleep};
use crate::common::{Gate, block_workers, eventually};

// DIFFERENCE: in CPython a cancelled future is not done until a worker has seen it; a wait for it
// may hang. Here it is done when `cancel` returns, and all its waiters are woken, even if every
// worker is busy.
#[test]
fn a_cancelled_job_is_done_at_once() {
    with_watchdog(|| {
        let cancels: [fn(&ThreadPool); 2] = [
            |pool| assert_eq!(pool.cancel_pending(), 5),
            |pool| drop(pool.shutdown_now()),
        ];
        for cancel in cancels {
            let pool = ThreadPool::new(1);
            let blocked = block_workers(&pool, 1);
            let job = || pool.submit(|| ());
            let (joined, waited, listed) = (job(), vec![job()], [job()]);
            let joiner = spawn_until_asleep(move || joined.join());
            let waiter = spawn_until_asleep(move || wait(waited, ReturnWhen::AllCompleted).join());
            let lister = spawn_until_asleep(move || as_completed(listed).wait_next());
            let (mut streamed, mut awaited) = (as_completed([job()]), job());
            let tasks = [(); 2].map(|()| CountingWaker::new());
            assert!(poll_with(&mut awaited, &tasks[0].1).is_pending());
            // Polled twice: a stream may request one more poll at first.
            assert!(poll_with(&mut streamed.next(), &tasks[1].1).is_pending());
            assert!(poll_with(&mut streamed.next(), &tasks[1].1).is_pending());
            let calls = || tasks.each_ref().map(|(task, _)| task.count());
            let before = calls();
            let (tell, told) = mpsc::channel();
            awaited.add_done_callback(move |outcome| {
                tell.send(outcome.unwrap_err().is_cancelled()).unwrap();
            });

            cancel(&pool);
            assert!(joiner.join().unwrap().unwrap_err().is_cancelled());
            assert_eq!(waiter.join().unwrap().done.len(), 1);
            assert!(lister.join().unwrap().unwrap().unwrap_err().is_cancelled());
            assert!(told.recv().unwrap());
            eventually("both tasks are woken", || {
                calls()[0] > before[0] && calls()[1] > before[1]
            });
            assert!(awaited.try_join().unwrap().unwrap_err().is_cancelled());
            assert!(poll_once(&mut streamed.next()).is_ready());
            assert_eq!(pool.metrics().running, 1);
            drop(blocked);
        }
    });
}

#[test]
fn a_cancel_through_the_handle_ends_each_later_wait() {
    with_watchdog(|| {
        let pool = ThreadPool::new(1);
        let _blocked = block_workers(&pool, 1);
        let cancelled = || {
            let handle = pool.submit(|| ());
            assert!(handle.cancel());
            handle
        };
        let first = wait(
            vec![cancelled(), pool.submit(|| ())],
            ReturnWhen::FirstCompleted,
        );
        assert_eq!(first.join().done.len(), 1);
        let all = wait(vec![cancelled(), cancelled()], ReturnWhen::AllCompleted);
        assert_eq!(block_on(all).done.len(), 2);
        let results = as_completed([cancelled(), cancelled()]).into_iter();
        assert!(results.into_iter().all(|r| r.unwrap_err().is_cancelled()));
    });
}

// DIFFERENCE: CPython's waiter does not count the failures that end it. Here each wait counts for
// itself, and another wait can take the unfinished handles.
#[test]
fn a_wait_that_a_failure_ended_can_be_repeated() {
    with_watchdog(|| {
        let pool = ThreadPool::new(3);
        let (jobs, handles): (Vec<_>, Vec<_>) = (0..3).map(|_| super::told_job(&pool)).unzip();
        let mut left = handles;
        for go in jobs {
            let waiter = spawn_until_asleep(move || wait(left, ReturnWhen::FirstException).join());
            go.send(Err("one after the other".into())).unwrap();
            let waited = waiter.join().unwrap();
            assert_eq!(waited.done.len(), 1);
            left = waited.not_done;
        }
        assert!(left.is_empty());
    });
}

// As in CPython, dropping a map cancels only if the iteration had begun. A map that was never
// started has nothing to cancel.
#[test]
fn dropping_a_map_cancels_if_the_iteration_had_begun() {
    with_watchdog(|| {
        let pool = ThreadPool::new(1);
        let blocked = block_workers(&pool, 1);
        let map = || pool.map(0..3, |i: u32| i);
        let cancelled = || pool.metrics().cancelled;
        drop(map());
        assert_eq!((cancelled(), pool.metrics().submitted), (0, 1));
        drop(map().start());
        drop(map().into_iter());
        assert_eq!((cancelled(), pool.metrics().submitted), (0, 7));
        assert!(poll_once(&mut map().next()).is_pending());
        assert_eq!(cancelled(), 3);
        assert!(poll_once(&mut map().chunk_size(2).start().next()).is_pending());
        assert_eq!(cancelled(), 5, "two jobs of two and one");
        blocked.release();
        pool.shutdown().join();
        assert_eq!(pool.metrics().completed, 7);
    });
}

// DIFFERENCE: in CPython a shutdown ends a buffered map early without an error, or raises,
// depending on whether the iteration had begun.
#[test]
fn a_map_cut_short_by_a_shutdown_says_so_once() {
    with_watchdog(|| {
        for consumed in 0..3_usize {
            let pool = ThreadPool::new(1);
            let mut map = pool.map(0_usize.., |i| i).buffer_size(2).start();
            for i in 0..consumed {
                assert_eq!(map.wait_next().unwrap().unwrap(), i);
            }
            pool.shutdown();
            let mut results: Vec<_> = map.into_iter().collect();
            assert!(results.pop().unwrap().unwrap_err().is_shutdown());
            // Two jobs are ahead, or one if the last step did not submit the next.
            assert!([1, 2].contains(&results.len()));
            let rest = results.into_iter().map(Result::unwrap);
            assert!(rest.enumerate().all(|(i, result)| result == consumed + i));
        }
        let pool = ThreadPool::new(1);
        let mut map = pool.map(0.., |i: u32| i).buffer_size(2);
        pool.shutdown();
        assert!(map.wait_next().unwrap().unwrap_err().is_shutdown());
        assert!(map.wait_next().is_none());
    });
}

// DIFFERENCE: in CPython a shutdown in a signal handler may find its own lock held. Safe Rust has
// no such handlers; but callbacks and destructors may run at any point, and may shut the pool down.
#[test]
fn a_shutdown_from_callbacks_and_destructors_does_not_hang() {
    with_watchdog(|| {
        struct ShutsDown(Arc<ThreadPool>);
        impl Drop for ShutsDown {
            fn drop(&mut self) {
                drop(self.0.shutdown());
                self.0.shutdown_now().join_timeout(Duration::ZERO).ok();
            }
        }
        let places: [fn(&Arc<ThreadPool>, ShutsDown); 4] = [
            // A closure dropped by a cancel, or never accepted.
            |pool, shuts| {
                pool.submit(move || drop(shuts)).cancel();
            },
            // A result that no handle takes.
            |pool, shuts| drop(pool.submit(move || shuts)),
            // A callback in a worker, or in this thread.
            |pool, shuts| pool.submit(|| ()).add_done_callback(move |_| drop(shuts)),
            // The unwinding of a job.
            |pool, shuts| {
                drop(pool.submit(move || {
                    let _shuts = shuts;
                    panic!("as it should");
                }));
            },
        ];
        for place in places {
            for busy in [true, false] {
                let pool = Arc::new(ThreadPool::new(1));
                let blocked = busy.then(|| block_workers(&pool, 1));
                place(&pool, ShutsDown(Arc::clone(&pool)));
                drop(blocked);
                eventually("it is shut down", || pool.try_submit(|| ()).is_err());
                pool.shutdown().join();
            }
        }
    });
}

// DIFFERENCE: in CPython a failed thread spawn loses the future: the job is queued, and the caller
// only gets the exception. Here the caller gets the handle, which resolves with the error.
#[cfg(all(unix, target_pointer_width = "64"))]
#[test]
fn a_failed_thread_spawn_loses_no_handle() {
    with_watchdog(|| {
        let pool = ThreadPool::builder().stack_size(1 << 60).build().unwrap();
        let captured = Arc::new(());
        let weak = Arc::downgrade(&captured);
        let handle = pool.try_submit(move || drop(captured)).unwrap();
        assert!(handle.join().unwrap_err().is_spawn_failed());
        assert!(weak.upgrade().is_none());
        let metrics = pool.metrics();
        assert_eq!(
            (metrics.submitted, metrics.cancelled, metrics.queued),
            (1, 1, 0)
        );
    });
}

// DIFFERENCE: CPython wakes the waiters first, so `result()` may return before the callbacks have
// run.
#[test]
fn callbacks_have_run_when_the_result_is_seen() {
    with_watchdog(|| {
        let pool = ThreadPool::new(1);
        let blocked = block_workers(&pool, 1);
        let mut handle = pool.submit(|| 5);
        let (gate, (tell, told)) = (Gate::new(), mpsc::channel());
        let wait = gate.clone();
        handle.add_done_callback(move |_| {
            tell.send(()).unwrap();
            wait.wait();
        });
        blocked.release();
        told.recv().unwrap();
        assert!(handle.is_running() && handle.try_join().is_none());
        let error = handle.join_timeout(Duration::from_millis(5)).unwrap_err();
        assert!(error.is_timeout());
        gate.open();
        assert_eq!(handle.join().unwrap(), 5);
    });
}

// DIFFERENCE: in CPython a failure whose future was dropped is lost. Here it is counted, and
// reported through `tracing`.
#[test]
fn a_failure_of_a_dropped_handle_is_reported() {
    child::alone(
        "python::deviations::a_failure_of_a_dropped_handle_is_reported",
        || {
            EventLog::install();
            let pool = ThreadPool::new(1);
            drop(pool.submit(|| panic!("a dropped handle")));
            pool.shutdown().join();
            assert!(EventLog::contains("a dropped handle"));
            assert_eq!(pool.metrics().panicked, 1);
        },
    );
}
