//! Backpressure, and what becomes of the arguments of jobs that do not run.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use futurepool::{Bytes, Call, JoinHandle, ProcessPool, TaskExecutorExt, block_on, task};

use crate::common::{LONG, eventually, poll_once, spawn_until_asleep, within};

#[task]
fn hold() {
    loop {
        thread::sleep(LONG);
    }
}

#[task]
fn length(data: Bytes) -> usize {
    data.len()
}

/// Returns a pool of one worker, which runs a job that does not end by itself.
fn held(capacity: usize) -> (ProcessPool, JoinHandle<()>) {
    let builder = ProcessPool::builder()
        .max_workers(1)
        .queue_capacity(capacity);
    let pool = builder.build().unwrap();
    let running = pool.submit(hold::call());
    eventually("it runs", || {
        pool.workers().iter().any(|worker| worker.task.is_some())
    });
    (pool, running)
}

fn call(len: usize) -> Call<length> {
    length::call(vec![0; len].into())
}

#[test]
fn promise_15_a_full_queue_refuses_and_gives_the_call_back() {
    within(LONG, "full", || {
        let (pool, running) = held(2);
        let queued = [pool.submit(call(1)), pool.try_submit(call(2)).unwrap()];
        let error = pool.try_submit(call(3)).unwrap_err();
        assert!(error.is_full());
        assert_eq!(error.into_inner().run(), 3, "the call comes back");
        assert_eq!(pool.metrics().queued, 2);
        assert!(running.cancel());
        for (job, len) in queued.into_iter().zip(1..) {
            assert_eq!(job.join().unwrap(), len);
        }
    });
}

#[test]
fn promise_15_submit_blocks_and_submit_async_waits_until_there_is_room() {
    within(LONG, "room", || {
        let (pool, running) = held(1);
        let queued = pool.submit(call(1));
        let mut waiting = pool.submit_async(call(2));
        assert!(poll_once(&mut waiting).is_pending());
        let (told, tells) = mpsc::channel();
        thread::scope(|scope| {
            let submits = scope.spawn(|| {
                let state = crate::common::ThreadState::of_this_thread();
                told.send(state).unwrap();
                pool.submit(call(3))
            });
            let state = tells.recv_timeout(LONG).unwrap();
            eventually("it blocks", || state.sleeps());
            assert!(!submits.is_finished());
            assert_eq!(pool.metrics().submitted, 2);
            // The room of the cancelled one goes to the one that waited first.
            assert!(queued.cancel());
            let second = futurepool::block_on(waiting).unwrap();
            assert!(!submits.is_finished());
            assert!(running.cancel());
            assert_eq!(second.join().unwrap(), 2);
            assert_eq!(submits.join().unwrap().join().unwrap(), 3);
        });
    });
}

#[test]
fn promise_15_a_shutdown_releases_submitters() {
    within(LONG, "shutdown", || {
        let (pool, running) = held(1);
        let queued = pool.submit(call(1));
        let pool = std::sync::Arc::new(pool);
        let of_thread = std::sync::Arc::clone(&pool);
        let submits = spawn_until_asleep(move || of_thread.submit(call(2)));
        let shutdown = pool.shutdown_now();
        assert!(submits.join().unwrap().join().unwrap_err().is_shutdown());
        assert!(running.join().unwrap_err().is_cancelled());
        assert!(queued.join().unwrap_err().is_cancelled());
        shutdown.join();
    });
}

#[test]
fn promise_15_a_call_that_is_too_late_counts_as_rejected_whichever_function_refuses_it() {
    within(LONG, "too late", || {
        let pool = ProcessPool::builder().max_workers(1).build().unwrap();
        let late = || call(1).deadline(Instant::now());
        for error in [
            pool.try_submit(late()).unwrap_err(),
            pool.try_submit_task(late()).unwrap_err(),
            block_on(pool.submit_async(late())).unwrap_err(),
        ] {
            assert!(error.is_expired());
            assert_eq!(error.into_inner().run(), 1, "the call comes back");
        }
        let metrics = pool.metrics();
        assert_eq!((metrics.rejected, metrics.submitted), (3, 0));
    });
}

/// Returns whether `data` is the only reference to its bytes: then they are not copied.
fn is_only(data: Bytes) -> bool {
    let place = data.as_ptr();
    let bytes = data.into_vec();
    bytes.as_ptr() == place
}

#[test]
fn promise_15_arguments_of_a_cancelled_queued_job_are_freed_at_once() {
    within(LONG, "freed", || {
        let (pool, running) = held(10);
        for how in 0..4 {
            let data = Bytes::from(vec![0; 100_000]);
            let job = pool.submit(length::call(data.clone()));
            match how {
                0 => assert!(job.cancel()),
                1 => assert!(job.cancel_handle().cancel()),
                2 => drop(job.cancel_on_drop()),
                _ => assert_eq!(pool.cancel_queued(), 1),
            }
            assert!(is_only(data), "{how}");
        }
        let late = Bytes::from(vec![0; 100_000]);
        let soon = std::time::Instant::now() + Duration::from_millis(20);
        let job = pool.submit(length::call(late.clone()).deadline(soon));
        assert!(job.join().unwrap_err().is_expired());
        assert!(is_only(late), "expired");
        let refused = Bytes::from(vec![0; 100_000]);
        pool.shutdown();
        let job = pool.submit(length::call(refused.clone()));
        assert!(job.join().unwrap_err().is_shutdown());
        assert!(is_only(refused), "refused");
        assert!(running.cancel());
    });
}

#[test]
fn a_queue_timeout_ends_calls_that_no_worker_has_taken_and_submits_that_wait() {
    within(LONG, "timeout", || {
        let builder = ProcessPool::builder()
            .max_workers(1)
            .queue_capacity(1)
            .queue_timeout(Duration::from_secs(2));
        let pool = builder.build().unwrap();
        let running = pool.submit(hold::call());
        eventually("it runs", || {
            pool.workers().iter().any(|worker| worker.task.is_some())
        });
        let soon = || std::time::Instant::now() + Duration::from_millis(20);
        let start = std::time::Instant::now();
        // This one has no deadline of its own.
        let queued = pool.submit(call(1));
        // No room before its own deadline.
        let late = pool.submit(call(2).deadline(soon()));
        assert!(late.join().unwrap_err().is_expired());
        let waiting = pool.submit_async(call(3).deadline(soon()));
        let error = futurepool::block_on(waiting).unwrap_err();
        assert!(error.is_expired());
        assert_eq!(error.into_inner().run(), 3, "the call comes back");
        let error = pool.try_submit(call(4).deadline(start)).unwrap_err();
        assert!(error.is_expired() && !error.is_full());
        let error = queued.join().unwrap_err();
        assert!(error.is_expired(), "{error}");
        assert!(start.elapsed() >= Duration::from_secs(2));
        let metrics = pool.metrics();
        assert_eq!((metrics.expired, metrics.cancelled), (2, 2));
        assert_eq!((metrics.rejected, metrics.failed), (2, 0));
        assert!(running.cancel());
    });
}
