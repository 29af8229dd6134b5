use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use futurepool::{ExecutorExt, Job};
use futurepool::{JoinError, JoinHandle, ThreadPool};

use super::{LONG, States, in_every_runtime, told_job, with_watchdog};
use crate::common::child;
use crate::common::event_log::EventLog;
use crate::common::{CountingWaker, block_workers, eventually, poll_with, spawn_until_asleep};

/// What a callback received: the result, or the kind of error; and the thread it ran in.
type Seen = (Result<u32, &'static str>, thread::ThreadId);

fn kind(error: &JoinError) -> &'static str {
    match error {
        error if error.is_panic() => "panic",
        error if error.is_cancelled() => "cancelled",
        error if error.is_timeout() => "timeout",
        _ => "other",
    }
}

/// Returns a channel with what a callback on this handle receives.
fn watch(handle: &JoinHandle<u32>) -> mpsc::Receiver<Seen> {
    let (tell, told) = mpsc::channel();
    handle.add_done_callback(move |outcome| {
        let outcome = outcome.copied().map_err(kind);
        tell.send((outcome, thread::current().id())).unwrap();
    });
    told
}

#[test]
fn test_done_callback_with_result() {
    with_watchdog(|| {
        let pool = ThreadPool::new(1);
        let (go, handle) = told_job(&pool);
        let seen = watch(&handle);
        go.send(Ok(5)).unwrap();
        assert_eq!(handle.join().unwrap(), 5);
        assert_eq!(seen.try_recv().unwrap().0, Ok(5));
    });
}

#[test]
fn test_done_callback_with_exception() {
    with_watchdog(|| {
        let pool = ThreadPool::new(1);
        let (go, handle) = told_job(&pool);
        let (tell, told) = mpsc::channel();
        handle.add_done_callback(move |outcome| {
            tell.send(outcome.unwrap_err().to_string()).unwrap();
        });
        go.send(Err("as it should".into())).unwrap();
        assert!(handle.join().unwrap_err().is_panic());
        let text = told.try_recv().unwrap();
        assert!(text.contains("as it should"), "{text}");
    });
}

#[test]
fn test_done_callback_with_cancel() {
    with_watchdog(|| {
        let states = States::new();
        let seen = watch(&states.pending);
        assert!(states.pending.cancel());
        let this_thread = thread::current().id();
        assert_eq!(seen.try_recv().unwrap(), (Err("cancelled"), this_thread));
    });
}

#[test]
fn test_done_callback_raises() {
    child::alone("python::future::test_done_callback_raises", || {
        EventLog::install();
        let pool = ThreadPool::new(1);
        let (go, handle) = told_job(&pool);
        let order = Arc::new(Mutex::new(Vec::new()));
        for i in 0..3 {
            let order = Arc::clone(&order);
            handle.add_done_callback(move |outcome| {
                order.lock().unwrap().push((i, *outcome.unwrap()));
                assert_ne!(i, 0, "the first callback fails");
            });
        }
        go.send(Ok(5)).unwrap();
        assert_eq!(handle.join().unwrap(), 5);
        assert_eq!(*order.lock().unwrap(), [(0, 5), (1, 5), (2, 5)]);
        assert!(EventLog::contains("the first callback fails"));
        pool.submit(|| ()).join().unwrap();
        assert_eq!(pool.metrics().panicked, 0);
    });
}

#[test]
fn test_done_callback_already_successful() {
    with_watchdog(|| {
        let seen = watch(&States::new().returned);
        let this_thread = thread::current().id();
        assert_eq!(seen.try_recv().unwrap(), (Ok(42), this_thread));
    });
}

#[test]
fn test_done_callback_already_failed() {
    with_watchdog(|| {
        let seen = watch(&States::new().panicked);
        let this_thread = thread::current().id();
        assert_eq!(seen.try_recv().unwrap(), (Err("panic"), this_thread));
    });
}

#[test]
fn test_done_callback_already_cancelled() {
    with_watchdog(|| {
        let seen = watch(&States::new().cancelled);
        let this_thread = thread::current().id();
        assert_eq!(seen.try_recv().unwrap(), (Err("cancelled"), this_thread));
    });
}

#[test]
fn test_done_callback_raises_already_succeeded() {
    child::alone(
        "python::future::test_done_callback_raises_already_succeeded",
        || {
            EventLog::install();
            let states = States::new();
            // The panic does not unwind into this thread.
            states.returned.add_done_callback(|_| panic!("a late one"));
            assert!(EventLog::contains("a late one"));
            assert_eq!(states.returned.join().unwrap(), 42);
        },
    );
}

#[test]
fn test_repr() {
    with_watchdog(|| {
        let states = States::new();
        let [pending, running, cancelled, panicked, returned] =
            states.all().map(|handle| format!("{handle:?}"));
        assert!(pending.contains("Queued"), "{pending}");
        assert!(running.contains("Running"), "{running}");
        assert!(cancelled.contains("Cancelled"), "{cancelled}");
        assert!(panicked.contains("Finished: Panicked"), "{panicked}");
        assert!(returned.contains("Finished: Returned"), "{returned}");

        struct NoDebug;
        let handle = states.pool.submit(|| NoDebug);
        assert!(format!("{handle:?}").contains("Queued"));
    });
}

#[test]
fn test_cancel() {
    with_watchdog(|| {
        let states = States::new();
        let kinds = states.all().map(|handle| handle.cancel());
        assert_eq!(kinds, [true, false, true, false, false]);
        let again = states.all().map(|handle| handle.cancel());
        assert_eq!(again, kinds);
        let States { go, running, .. } = states;
        assert!(running.is_running());
        drop(go);
        assert_eq!(running.join().unwrap(), 43);
        assert_eq!(
            states.pending.join().map_err(|e| kind(&e)),
            Err("cancelled")
        );
        assert_eq!(states.panicked.join().map_err(|e| kind(&e)), Err("panic"));
        assert_eq!(states.returned.join().unwrap(), 42);
    });
}

#[test]
fn test_cancelled() {
    with_watchdog(|| {
        let states = States::new();
        let kinds = states.all().map(JoinHandle::is_cancelled);
        assert_eq!(kinds, [false, false, true, false, false]);
    });
}

#[test]
fn test_done() {
    with_watchdog(|| {
        let states = States::new();
        let kinds = states.all().map(JoinHandle::is_finished);
        assert_eq!(kinds, [false, false, true, true, true]);
    });
}

#[test]
fn test_running() {
    with_watchdog(|| {
        let states = States::new();
        let kinds = states.all().map(JoinHandle::is_running);
        assert_eq!(kinds, [false, true, false, false, false]);
    });
}

#[test]
fn test_result_with_timeout() {
    with_watchdog(|| {
        let mut states = States::new();
        for handle in [&mut states.pending, &mut states.running] {
            let error = handle.join_timeout(Duration::ZERO).unwrap_err();
            assert_eq!(kind(&error), "timeout");
        }
        let error = states.cancelled.join_timeout(Duration::ZERO).unwrap_err();
        assert_eq!(kind(&error), "cancelled");
        let error = states.panicked.join_timeout(Duration::ZERO).unwrap_err();
        assert_eq!(kind(&error), "panic");
        assert_eq!(states.returned.join_timeout(Duration::ZERO).unwrap(), 42);
        drop(states.go);
        assert_eq!(states.pending.join_timeout(LONG).unwrap(), 44);
        assert_eq!(states.running.join().unwrap(), 43);
    });
}

#[test]
fn test_result_with_success() {
    with_watchdog(|| {
        let pool = ThreadPool::new(1);
        let (go, handle) = told_job(&pool);
        let waiter = spawn_until_asleep(move || handle.join());
        go.send(Ok(42)).unwrap();
        assert_eq!(waiter.join().unwrap().unwrap(), 42);

        let (go, mut handle) = told_job(&pool);
        let (task, waker) = CountingWaker::new();
        assert!(poll_with(&mut handle, &waker).is_pending());
        go.send(Ok(42)).unwrap();
        eventually("the task is woken", || task.count() == 1);
        assert_eq!(handle.try_join().unwrap().unwrap(), 42);

        let results = in_every_runtime(|| {
            let (go, mut handle) = told_job(&pool);
            async move {
                assert!(futures::poll!(&mut handle).is_pending());
                go.send(Ok(42)).unwrap();
                handle.await.unwrap()
            }
        });
        assert!(results.into_iter().all(|result| result == 42));
    });
}

// DIFFERENCE: a handle that is joined, or moved into a task, cannot be cancelled elsewhere; the
// pool can cancel the job.
#[test]
fn test_result_with_cancel() {
    with_watchdog(|| {
        let pool = Arc::new(ThreadPool::new(1));
        let blocked = block_workers(&pool, 1);
        let handle = pool.submit(|| ());
        let waiter = spawn_until_asleep(move || handle.join());
        assert_eq!(pool.cancel_pending(), 1);
        assert!(waiter.join().unwrap().unwrap_err().is_cancelled());

        let results = in_every_runtime(|| {
            let mut handle = pool.submit(|| ());
            let pool = Arc::clone(&pool);
            async move {
                assert!(futures::poll!(&mut handle).is_pending());
                let canceller = thread::spawn(move || pool.cancel_pending());
                let result = handle.await;
                assert_eq!(canceller.join().unwrap(), 1);
                result
            }
        });
        assert!(results.into_iter().all(|r| r.unwrap_err().is_cancelled()));
        drop(blocked);
    });
}

// DIFFERENCE: there is no `exception()`; a callback inspects the error without taking it.
#[test]
fn test_exception_with_timeout() {
    with_watchdog(|| {
        let states = States::new();
        let seen = states.all().map(|handle| watch(handle).try_recv());
        let outcomes = seen.map(|seen| seen.ok().map(|(outcome, _)| outcome));
        let wanted = [
            None,
            None,
            Some(Err("cancelled")),
            Some(Err("panic")),
            Some(Ok(42)),
        ];
        assert_eq!(outcomes, wanted);
        // All outcomes can still be taken.
        assert!(states.cancelled.join().unwrap_err().is_cancelled());
        assert!(states.panicked.join().unwrap_err().is_panic());
        assert_eq!(states.returned.join().unwrap(), 42);
    });
}

#[test]
fn test_exception_with_success() {
    with_watchdog(|| {
        let pool = ThreadPool::new(1);
        let (go, handle) = told_job(&pool);
        let waiter = spawn_until_asleep(move || handle.join());
        go.send(Err("as it should".into())).unwrap();
        let error = waiter.join().unwrap().unwrap_err();
        assert!(error.is_panic() && error.to_string().contains("as it should"));
    });
}

// DIFFERENCE: a result is not set but returned by the job, which running consumes: code that sets
// it twice does not compile. Afterwards the result does not change.
#[test]
fn test_multiple_set_result() {
    with_watchdog(|| {
        let jobs = super::Kept::default();
        let handle = jobs.submit(|| 5);
        let by_value: fn(Job) = Job::run;
        by_value(jobs.next());
        assert!(!handle.cancel() && handle.is_finished());
        assert_eq!(handle.join().unwrap(), 5);
    });
}

// DIFFERENCE: as for the result.
#[test]
fn test_multiple_set_exception() {
    with_watchdog(|| {
        let jobs = super::Kept::default();
        let by_value: fn(Job, JoinError) = Job::refuse;
        let handle = jobs.submit(|| 5);
        by_value(jobs.next(), JoinError::broken("the first"));
        assert!(!handle.cancel() && !handle.is_cancelled());
        let error = handle.join().unwrap_err();
        assert!(error.is_broken() && error.to_string().contains("the first"));
    });
}

// DIFFERENCE: there is no snapshot; each query reads the state once, and a state never goes back.
// `Debug` shows state and outcome in one read.
#[test]
fn test_get_snapshot() {
    with_watchdog(|| {
        let pool = ThreadPool::new(1);
        for _ in 0..200 {
            let (go, handle) = told_job(&pool);
            let stages = ["Queued", "Running", "Finished: Returned"];
            thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        let mut last = 0;
                        while last < 2 {
                            let text = format!("{handle:?}");
                            let now = stages.iter().position(|stage| text.contains(stage));
                            let now = now.expect("it is one of these");
                            assert!(now >= last, "{text} after {}", stages[last]);
                            last = now;
                        }
                        assert!(handle.is_finished() && !handle.is_running());
                        // The outcome is available.
                        assert_eq!(watch(&handle).recv().unwrap().0, Ok(1));
                    });
                }
                go.send(Ok(1)).unwrap();
            });
        }
    });
}
