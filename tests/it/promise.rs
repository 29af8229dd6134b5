//! Jobs that are resolved by hand.

use std::panic::panic_any;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;

use crate::common::{CountingWaker, LONG, poll_once, poll_with, spawn_until_asleep, within};
use futurepool::{
    JoinError, JoinHandle, Promise, ReturnWhen, ThreadPool, as_completed, block_on, promise, wait,
};

/// Sets a flag when it is dropped.
struct DropFlag(Arc<AtomicBool>);

impl Drop for DropFlag {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn auto_traits_are_as_promised() {
    fn send_sync<T: Send + Sync + 'static>() {}
    send_sync::<Promise<std::cell::Cell<u8>>>();
    send_sync::<futurepool::CancelHandle>();
    send_sync::<futurepool::JobContext>();
}

#[test]
fn a_value_reaches_the_thread_that_joins_and_the_task_that_awaits() {
    let (first, joined) = promise();
    let joiner = spawn_until_asleep(move || joined.join());
    assert_eq!(first.complete("joined"), Ok(()));
    assert_eq!(joiner.join().unwrap().unwrap(), "joined");

    let (second, mut awaited) = promise();
    let (counter, waker) = CountingWaker::new();
    assert!(poll_with(&mut awaited, &waker).is_pending());
    assert_eq!(second.complete("awaited"), Ok(()));
    assert_eq!(counter.count(), 1);
    assert_eq!(block_on(awaited).unwrap(), "awaited");
}

#[test]
fn the_states_are_those_of_a_job() {
    let (promise, handle) = promise::<u8>();
    assert!(!handle.is_running() && !handle.is_finished());
    assert!(promise.set_running() && promise.set_running());
    assert!(handle.is_running());
    let seen = Arc::new(AtomicBool::new(false));
    let is_seen = Arc::clone(&seen);
    handle.add_done_callback(move |outcome| {
        is_seen.store(*outcome.unwrap() == 7, Ordering::SeqCst);
    });
    promise.complete(7).unwrap();
    assert!(seen.load(Ordering::SeqCst));
    assert!(handle.is_finished() && !handle.is_cancelled());
}

#[test]
fn callbacks_of_a_completed_promise_run_before_the_value_is_visible() {
    let (promise, handle) = promise::<u8>();
    let handle = Arc::new(handle);
    let (tell, told) = mpsc::channel();
    let own = Arc::clone(&handle);
    handle.add_done_callback(move |_| tell.send((own.is_running(), own.is_finished())).unwrap());
    promise.complete(1).unwrap();
    assert_eq!(told.recv_timeout(LONG), Ok((true, false)));
    assert!(handle.is_finished());
}

#[test]
fn a_cancelled_promise_cannot_be_completed_and_gives_the_value_back() {
    let (promise, handle) = promise();
    assert!(!promise.is_cancelled() && !promise.cancel_requested());
    assert!(handle.cancel() && handle.cancel());
    assert!(promise.is_cancelled() && promise.cancel_requested());
    assert!(!promise.set_running());
    assert_eq!(promise.complete(String::from("late")), Err("late".into()));
    assert!(handle.join().unwrap_err().is_cancelled());
}

#[test]
fn a_running_promise_is_not_cancelled_but_sees_the_request() {
    let (promise, handle) = promise();
    assert!(promise.set_running());
    assert!(!handle.cancel());
    assert!(!promise.is_cancelled() && promise.cancel_requested());
    assert_eq!(promise.complete(7), Ok(()));
    assert!(!handle.cancel(), "it is finished");
    assert_eq!(handle.join().unwrap(), 7);
}

#[test]
fn a_failure_reaches_the_handle_whether_the_job_was_queued_or_running() {
    for running in [false, true] {
        let fail = |error| {
            let (promise, handle) = promise::<u8>();
            assert_eq!(promise.set_running() && running, running);
            assert!(promise.fail(error));
            handle.join().unwrap_err()
        };
        assert!(fail(JoinError::cancelled()).is_cancelled());
        assert!(fail(JoinError::shutdown()).is_shutdown());
        assert_eq!(
            fail(JoinError::broken("no disk")).to_string(),
            "the pool is broken: no disk"
        );
    }
    let (promise, handle) = promise::<u8>();
    assert!(handle.cancel());
    assert!(!promise.fail(JoinError::shutdown()), "it is cancelled");
    assert!(handle.join().unwrap_err().is_cancelled());
}

#[test]
fn callbacks_of_a_failure_run_after_the_error_is_visible_if_the_job_was_queued() {
    for running in [false, true] {
        let (promise, handle) = promise::<u8>();
        if running {
            promise.set_running();
        }
        let handle = Arc::new(handle);
        let (tell, told) = mpsc::channel();
        let own = Arc::clone(&handle);
        handle.add_done_callback(move |outcome| {
            tell.send((outcome.unwrap_err().is_shutdown(), own.is_finished()))
                .unwrap();
        });
        assert!(promise.fail(JoinError::shutdown()));
        assert_eq!(told.recv_timeout(LONG), Ok((true, !running)));
    }
}

#[test]
fn the_panic_of_another_job_is_passed_on_with_its_payload() {
    let pool = ThreadPool::new(1);
    for running in [false, true] {
        let (promise, handle) = promise::<u8>();
        if running {
            promise.set_running();
        }
        let error = pool.submit(|| panic_any(7_u16)).join().unwrap_err();
        assert!(promise.fail(error));
        let error = handle.join().unwrap_err();
        assert_eq!(error.into_panic().downcast_ref(), Some(&7_u16));
    }
}

#[test]
fn guarantee_1_a_promise_that_is_dropped_cancels_its_job() {
    for running in [false, true] {
        let (promise, handle) = promise::<u8>();
        if running {
            promise.set_running();
        }
        let joiner = spawn_until_asleep(move || handle.join());
        drop(promise);
        let outcome = within(LONG, "the joiner returns", move || joiner.join().unwrap());
        assert!(outcome.unwrap_err().is_cancelled());
    }
}

#[test]
fn a_value_for_a_handle_that_is_gone_is_dropped() {
    let dropped = Arc::new(AtomicBool::new(false));
    let (promise, handle) = promise();
    drop(handle);
    assert!(promise.complete(DropFlag(Arc::clone(&dropped))).is_ok());
    assert!(dropped.load(Ordering::SeqCst));
}

#[test]
fn a_hook_runs_after_the_queued_job_is_visible_as_cancelled() {
    let (promise, handle) = promise::<u8>();
    let handle = Arc::new(handle);
    let (tell, told) = mpsc::channel();
    let own = Arc::clone(&handle);
    promise.on_cancel(move || {
        tell.send((own.is_cancelled(), thread::current().id()))
            .unwrap();
        false
    });
    assert!(handle.cancel(), "the answer of the hook does not matter");
    assert_eq!(told.recv_timeout(LONG), Ok((true, thread::current().id())));
    assert!(handle.cancel());
    assert!(told.recv().is_err(), "it runs once, and is dropped");
}

#[test]
fn a_hook_answers_for_the_running_job() {
    for answer in [false, true] {
        let (promise, handle) = promise::<u8>();
        assert!(promise.set_running());
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        promise.on_cancel(move || {
            counted.fetch_add(1, Ordering::SeqCst);
            answer
        });
        assert_eq!((handle.cancel(), handle.cancel()), (answer, answer));
        assert_eq!(handle.cancel_handle().cancel(), answer);
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        assert!(!handle.is_finished(), "the executor resolves it");
        assert!(promise.fail(JoinError::cancelled()));
        assert!(handle.join().unwrap_err().is_cancelled());
    }
}

#[test]
fn a_cancel_on_drop_of_a_running_promise_calls_its_hook() {
    let (promise, handle) = promise::<u8>();
    promise.set_running();
    let (tell, told) = mpsc::channel();
    promise.on_cancel(move || tell.send(()).is_ok());
    drop(handle.cancel_on_drop());
    assert_eq!(told.recv_timeout(LONG), Ok(()));
}

#[test]
fn a_hook_that_comes_after_the_cancel_runs_at_once() {
    for running in [false, true] {
        let (promise, handle) = promise::<u8>();
        if running {
            promise.set_running();
        }
        assert_eq!(handle.cancel(), !running);
        let (tell, told) = mpsc::channel();
        promise.on_cancel(move || tell.send(thread::current().id()).is_ok());
        assert_eq!(told.try_recv(), Ok(thread::current().id()));
        assert!(handle.cancel(), "the late hook stops the running job");
    }
}

#[test]
fn hooks_run_in_the_order_added_and_a_panic_in_one_harms_nothing() {
    let (promise, handle) = promise::<u8>();
    promise.set_running();
    let (tell, told) = mpsc::channel();
    for n in 0..3 {
        let tell = tell.clone();
        promise.on_cancel(move || {
            tell.send(n).unwrap();
            assert_ne!(n, 1, "the second hook panics");
            n == 2
        });
    }
    assert!(handle.cancel());
    assert!(told.try_iter().eq(0..3));
    promise.complete(3).unwrap();
    assert_eq!(handle.join().unwrap(), 3);

    let (promise, handle) = crate::promise::promise::<u8>();
    promise.set_running();
    promise.on_cancel(|| panic!("no answer"));
    assert!(!handle.cancel());
}

#[test]
fn hooks_that_were_not_called_are_dropped_before_the_job_is_finished() {
    let finished_at_drop = Arc::new(AtomicBool::new(true));
    struct AtDrop(JoinHandle<u8>, Arc<AtomicBool>);
    impl Drop for AtDrop {
        fn drop(&mut self) {
            self.1.store(self.0.is_finished(), Ordering::SeqCst);
            panic!("a panic in here is contained");
        }
    }
    let (promise, handle) = promise::<u8>();
    let cancel = handle.cancel_handle();
    let captured = AtDrop(handle, Arc::clone(&finished_at_drop));
    promise.on_cancel(move || {
        let _captured = &captured;
        true
    });
    promise.complete(1).unwrap();
    assert!(!finished_at_drop.load(Ordering::SeqCst));
    assert!(cancel.is_finished() && !cancel.cancel());
}

#[test]
fn a_thread_that_starts_a_promise_may_join_it() {
    // The thread that marks the job as running does not resolve it, so no cycle is found here.
    let pool = ThreadPool::new(1);
    let (give, take) = mpsc::channel::<Promise<u8>>();
    let resolver = thread::spawn(move || take.recv().unwrap().complete(7));
    let joined = pool.submit(move || {
        let (promise, handle) = promise::<u8>();
        assert!(promise.set_running());
        give.send(promise).unwrap();
        handle.join()
    });
    let joined = within(LONG, "the join ends", move || joined.join());
    assert_eq!(joined.unwrap().unwrap(), 7);
    resolver.join().unwrap().unwrap();
}

#[test]
fn promises_and_jobs_are_awaited_together() {
    let pool = ThreadPool::new(1);
    let (first, handle) = promise();
    let mut results = as_completed([handle, pool.submit(|| 2)]);
    assert_eq!(results.wait_next().unwrap().unwrap(), 2);
    first.complete(1).unwrap();
    assert_eq!(results.wait_next().unwrap().unwrap(), 1);

    let (second, handle) = promise::<u8>();
    let waited = wait([handle, pool.submit(|| 4)], ReturnWhen::FirstCompleted).join();
    assert_eq!((waited.done.len(), waited.not_done.len()), (1, 1));
    drop(second);
}

#[test]
fn a_cancel_and_a_complete_that_race_agree() {
    let rounds = 2_000;
    let barrier = Arc::new(Barrier::new(2));
    let (give, take) = mpsc::channel::<Promise<u32>>();
    let (answer, answers) = mpsc::channel();
    let start = Arc::clone(&barrier);
    let completer = thread::spawn(move || {
        for promise in take {
            start.wait();
            answer.send(promise.complete(7).is_ok()).unwrap();
        }
    });
    for _ in 0..rounds {
        let (promise, mut handle) = promise();
        give.send(promise).unwrap();
        barrier.wait();
        let cancelled = handle.cancel();
        let completed = answers.recv_timeout(LONG).unwrap();
        assert_ne!(cancelled, completed);
        let outcome = handle.try_join().expect("it is finished");
        assert_eq!(outcome.is_ok(), completed);
    }
    drop(give);
    completer.join().unwrap();
}

#[test]
fn a_promise_names_where_it_was_made() {
    let (promise, mut handle) = promise::<u8>();
    let line = line!() - 1;
    assert!(poll_once(&mut handle).is_pending());
    drop(promise);
    let location = handle.join().unwrap_err().location().unwrap();
    assert_eq!((location.file(), location.line()), (file!(), line));
}
