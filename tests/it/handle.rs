//! `JoinHandle`, method by method.

use std::cell::Cell;
use std::error::Error;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{
    CountingWaker, Gate, LONG, block_workers, child, eventually, noop_context, panic_location,
    poll_once, poll_with, within,
};
use futurepool::{
    BuildError, CancelOnDrop, JoinError, JoinHandle, Metrics, Shutdown, SubmitAsync, SubmitError,
    Tagged, ThreadPool, ThreadPoolBuilder, TimeoutError, block_on, cancel_requested,
};

fn text_of_panic(f: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(f)).expect_err("it should panic");
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => (*payload.downcast_ref::<&str>().expect("text")).to_owned(),
    }
}

/// A value that reports when it is dropped.
struct Told(mpsc::Sender<&'static str>, &'static str);

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.0.send(self.1);
    }
}

#[test]
fn auto_traits_are_as_promised() {
    fn send_sync_unpin<T: Send + Sync + Unpin>() {}
    fn send_unpin_static<T: Send + Unpin + 'static>() {}
    fn error<T: Error + Send + Sync + 'static>() {}
    fn unwind_safe<T: std::panic::UnwindSafe + std::panic::RefUnwindSafe>() {}
    // The handle is `Sync` even if the result is not.
    send_sync_unpin::<JoinHandle<Cell<u8>>>();
    send_sync_unpin::<CancelOnDrop<Cell<u8>>>();
    send_sync_unpin::<Tagged<String, JoinHandle<Cell<u8>>>>();
    send_sync_unpin::<ThreadPool>();
    send_sync_unpin::<Metrics>();
    send_unpin_static::<Shutdown>();
    send_unpin_static::<ThreadPoolBuilder>();
    send_unpin_static::<SubmitAsync<fn() -> u8, Cell<u8>>>();
    error::<JoinError>();
    error::<BuildError>();
    error::<TimeoutError>();
    error::<SubmitError<Cell<u8>>>();
    unwind_safe::<JoinHandle<Cell<u8>>>();
}

#[test]
fn a_result_is_awaited_or_joined() {
    within(LONG, "a result", || {
        let pool = ThreadPool::new(2);
        assert_eq!(pool.submit(|| 2_u64.pow(8)).join().unwrap(), 256);
        assert_eq!(block_on(pool.submit(|| 2_u64.pow(8))).unwrap(), 256);
        let mut handle = pool.submit(|| 2_u64.pow(8));
        assert_eq!(handle.join_timeout(LONG).unwrap(), 256);
        let mut handle = pool.submit(|| 2_u64.pow(8));
        eventually("the job is done", || handle.is_finished());
        assert_eq!(handle.try_join().unwrap().unwrap(), 256);
    });
}

#[test]
fn a_dropped_handle_detaches_its_job() {
    within(LONG, "detached", || {
        let pool = ThreadPool::new(1);
        let (send, receive) = mpsc::channel();
        drop(pool.submit(move || send.send("ran")));
        assert_eq!(receive.recv_timeout(LONG), Ok("ran"));
    });
}

#[test]
fn join_inside_a_runtime_does_not_panic() {
    within(LONG, "join in tokio", || {
        let pool = ThreadPool::new(1);
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(async {
            assert_eq!(pool.submit(|| 1).join().unwrap(), 1);
            assert_eq!(block_on(pool.submit(|| 2)).unwrap(), 2);
        });
    });
}

#[test]
fn after_a_timeout_the_handle_is_unchanged() {
    within(LONG, "timeouts", || {
        let pool = ThreadPool::new(1);
        let gate = Gate::new();
        let opener = gate.clone();
        let mut handle = pool.submit(move || {
            gate.wait();
            (cancel_requested(), "late")
        });
        for limit in [Duration::ZERO, Duration::from_millis(2)] {
            let error = handle.join_timeout(limit).unwrap_err();
            assert!(error.is_timeout() && !error.is_cancelled() && !error.is_panic());
            assert!(!handle.is_finished());
        }
        let started = Instant::now();
        let limit = Duration::from_millis(30);
        assert!(handle.join_timeout(limit).unwrap_err().is_timeout());
        assert!(started.elapsed() >= limit, "it timed out early");
        // A timeout does not cancel a job that is still queued either.
        let mut queued = pool.submit(|| "later");
        let error = queued.join_timeout(Duration::from_millis(2)).unwrap_err();
        assert!(error.is_timeout() && !queued.is_cancelled());
        opener.open();
        // A timeout too long for the clock is no timeout.
        assert_eq!(handle.join_timeout(Duration::MAX).unwrap(), (false, "late"));
        assert_eq!(queued.join().unwrap(), "later");
    });
}

#[test]
fn a_timeout_leaves_the_waker_of_a_task_in_place() {
    within(LONG, "waker stays", || {
        let pool = ThreadPool::new(1);
        let gate = Gate::new();
        let opener = gate.clone();
        let mut handle = pool.submit(move || gate.wait());
        let (task, waker) = CountingWaker::new();
        assert!(poll_with(&mut handle, &waker).is_pending());
        let limit = Duration::from_millis(1);
        assert!(handle.join_timeout(limit).unwrap_err().is_timeout());
        opener.open();
        eventually("the task is woken", || task.count() == 1);
    });
}

#[test]
fn try_join_takes_an_available_result_and_never_panics() {
    within(LONG, "try_join", || {
        let pool = ThreadPool::new(1);
        let blocked = block_workers(&pool, 1);
        let mut handle = pool.submit(|| 3);
        assert!(handle.try_join().is_none());
        blocked.release();
        eventually("the job is done", || handle.is_finished());
        assert_eq!(handle.try_join().unwrap().unwrap(), 3);
        assert!(handle.try_join().is_none());
        assert!(handle.is_finished());
    });
}

#[test]
fn taking_a_result_twice_panics_and_says_so() {
    within(LONG, "taken twice", || {
        let pool = ThreadPool::new(1);
        let taken = || {
            let mut handle = pool.submit(|| 1);
            assert_eq!(handle.join_timeout(LONG).unwrap(), 1);
            handle
        };
        for text in [
            text_of_panic(|| drop(taken().join())),
            text_of_panic(|| drop(taken().join_timeout(LONG))),
            text_of_panic(|| drop(poll_once(&mut taken()))),
            text_of_panic(|| taken().add_done_callback(|_| ())),
        ] {
            assert!(text.contains("taken"), "{text}");
        }
    });
}

#[test]
fn a_panic_is_an_error_with_its_payload_message_and_origin() {
    within(LONG, "a panic", || {
        let pool = ThreadPool::new(1);
        let line = line!() + 1;
        let submitted = pool.submit(|| panic!("the text {}", thread::panicking()));
        let tried = pool.try_submit(|| std::panic::panic_any(17_u8)).unwrap();
        let asynchronous = pool.submit_async(|| panic!("third"));
        let global = futurepool::submit(|| panic!("fourth"));

        let origin = |lines: u32| format!("{}:{}:", file!(), line + lines);
        let error = submitted.join().unwrap_err();
        assert!(error.is_panic() && !error.is_cancelled());
        let text = error.to_string();
        assert!(text.contains("the text false"), "{text}");
        assert!(text.contains(&origin(0)), "{text}");
        let payload = error.into_panic().downcast::<String>().unwrap();
        assert_eq!(*payload, "the text false");

        let error = tried.join().unwrap_err();
        assert!(error.to_string().contains(&origin(1)), "{error}");
        let payload = error.try_into_panic().unwrap().downcast::<u8>();
        assert_eq!(*payload.unwrap(), 17);

        let error = block_on(asynchronous).unwrap().join().unwrap_err();
        assert!(error.to_string().contains(&origin(2)), "{error}");
        let error = global.join().unwrap_err();
        assert!(error.to_string().contains(&origin(3)), "{error}");
    });
}

#[test]
fn every_payload_is_a_panic_and_the_worker_survives() {
    within(LONG, "unusual payloads", || {
        let pool = ThreadPool::new(1);
        let id = pool.submit(|| thread::current().id()).join().unwrap();
        assert!(
            pool.submit(|| std::panic::panic_any(()))
                .join()
                .unwrap_err()
                .is_panic()
        );
        assert!(
            pool.submit(|| std::panic::panic_any(0))
                .join()
                .unwrap_err()
                .is_panic()
        );
        let resumed = pool.submit(|| std::panic::resume_unwind(Box::new("exit")));
        assert!(resumed.join().unwrap_err().is_panic());
        // An error returned by a job is a result.
        assert_eq!(pool.submit(|| Err::<(), ()>(())).join().unwrap(), Err(()));
        assert_eq!(pool.submit(|| thread::current().id()).join().unwrap(), id);
        assert_eq!(pool.metrics().panicked, 3);
        assert_eq!(pool.metrics().workers, 1);
    });
}

#[test]
fn into_panic_of_other_errors_panics_and_try_into_panic_returns_them() {
    within(LONG, "into_panic", || {
        let pool = ThreadPool::new(1);
        pool.shutdown();
        let error = || pool.submit(|| ()).join().unwrap_err();
        let text = text_of_panic(|| drop(error().into_panic()));
        assert!(text.contains("shut down"), "{text}");
        assert!(error().try_into_panic().unwrap_err().is_shutdown());
    });
}

#[test]
fn errors_turn_into_io_errors_that_contain_them() {
    within(LONG, "io errors", || {
        let pool = ThreadPool::new(1);
        let blocked = block_workers(&pool, 1);
        let mut handle = pool.submit(|| ());
        let timeout: io::Error = handle.join_timeout(Duration::ZERO).unwrap_err().into();
        assert_eq!(timeout.kind(), io::ErrorKind::TimedOut);
        assert!(handle.cancel());
        let cancelled: io::Error = handle.join().unwrap_err().into();
        assert_ne!(cancelled.kind(), io::ErrorKind::TimedOut);
        let inner = cancelled.get_ref().unwrap().downcast_ref::<JoinError>();
        assert!(inner.unwrap().is_cancelled());
        blocked.release();
    });
}

#[test]
fn a_cancelled_job_never_runs_and_is_cancelled_again_and_again() {
    within(LONG, "cancel", || {
        let pool = ThreadPool::new(1);
        let blocked = block_workers(&pool, 1);
        let ran = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&ran);
        let handle = pool.submit(move || seen.store(true, SeqCst));
        assert!(!handle.is_cancelled() && !handle.is_finished() && !handle.is_running());
        assert!(handle.cancel());
        assert!(handle.cancel());
        assert!(handle.is_cancelled() && handle.is_finished() && !handle.is_running());
        blocked.release();
        pool.submit(|| ()).join().unwrap();
        assert!(!ran.load(SeqCst));
        assert!(handle.join().unwrap_err().is_cancelled());
    });
}

#[test]
fn cancel_of_a_running_job_is_a_request_and_of_a_finished_job_a_no_op() {
    within(LONG, "cancel late", || {
        let pool = ThreadPool::new(1);
        assert!(!cancel_requested());
        let (send, receive) = mpsc::channel();
        let handle = pool.submit(move || {
            assert!(!cancel_requested());
            send.send(()).unwrap();
            eventually("the request", cancel_requested);
            "ended early"
        });
        receive.recv_timeout(LONG).unwrap();
        assert!(handle.is_running());
        assert!(!handle.cancel());
        assert!(!handle.is_cancelled());
        eventually("it ends", || handle.is_finished());
        assert!(!handle.cancel());
        assert!(!handle.is_cancelled());
        assert_eq!(handle.join().unwrap(), "ended early");
        // The next job of this worker sees no cancel request.
        assert!(!pool.submit(cancel_requested).join().unwrap());
    });
}

#[test]
fn a_cancel_drops_captures_then_wakes_then_runs_callbacks_then_returns() {
    within(LONG, "the order of a cancel", || {
        let pool = Arc::new(ThreadPool::new(1));
        let blocked = block_workers(&pool, 1);
        let (tell, told) = mpsc::channel();
        let captured = Told(tell.clone(), "captures dropped");
        let mut handle = pool.submit(move || drop(captured));
        for name in ["first callback", "second callback"] {
            let tell = tell.clone();
            handle.add_done_callback(move |outcome| {
                assert!(outcome.unwrap_err().is_cancelled());
                tell.send(name).unwrap();
            });
        }
        let metrics = Arc::clone(&pool);
        let woken = waker_that(move || {
            assert_eq!(metrics.metrics().cancelled, 1, "counted before");
            tell.send("woken").unwrap();
        });
        assert!(poll_with(&mut handle, &woken).is_pending());
        assert!(handle.cancel());
        let order: Vec<_> = told.try_iter().collect();
        let wanted = [
            "captures dropped",
            "woken",
            "first callback",
            "second callback",
        ];
        assert_eq!(order, wanted);
        blocked.release();
    });
}

/// Returns a waker that runs a closure.
fn waker_that(f: impl Fn() + Send + Sync + 'static) -> std::task::Waker {
    struct Calls<F>(F);
    impl<F: Fn() + Send + Sync + 'static> std::task::Wake for Calls<F> {
        fn wake(self: Arc<Self>) {
            (self.0)();
        }
    }
    Arc::new(Calls(f)).into()
}

#[test]
fn a_cancel_is_visible_once_the_captures_are_dropped_and_before_callbacks() {
    /// Reports what the handle says when this is dropped.
    struct Looks(Look, mpsc::Receiver<Arc<JoinHandle<()>>>);
    type Look = mpsc::Sender<(&'static str, [bool; 3], bool)>;
    fn look(tell: &Look, from: &'static str, handle: &JoinHandle<()>) {
        let states = [
            handle.is_cancelled(),
            handle.is_finished(),
            handle.is_running(),
        ];
        // To cancel it once more is no error, and does not wait.
        tell.send((from, states, handle.cancel())).unwrap();
    }
    impl Drop for Looks {
        fn drop(&mut self) {
            look(&self.0, "destructor", &self.1.recv().unwrap());
        }
    }
    within(LONG, "a cancel in the making", || {
        let pool = ThreadPool::new(1);
        let blocked = block_workers(&pool, 1);
        let (tell, told) = mpsc::channel();
        let (give, take) = mpsc::channel();
        let captured = Looks(tell.clone(), take);
        let handle = Arc::new(pool.submit(move || drop(captured)));
        give.send(Arc::clone(&handle)).unwrap();
        let seen = Arc::clone(&handle);
        handle.add_done_callback(move |_| look(&tell, "callback", &seen));
        assert!(handle.cancel());
        let wanted = [
            ("destructor", [false, false, false], true),
            ("callback", [true, true, false], true),
        ];
        assert_eq!(told.try_iter().collect::<Vec<_>>(), wanted);
        assert!(handle.is_cancelled() && handle.is_finished());
        blocked.release();
    });
}

#[test]
fn a_job_ends_in_the_promised_order() {
    within(LONG, "the order of an end", || {
        let pool = Arc::new(ThreadPool::new(1));
        let gate = Gate::new();
        let (tell, told) = mpsc::channel();
        let captured = Told(tell.clone(), "closure gone");
        let wait = gate.clone();
        let mut handle = pool.submit(move || {
            wait.wait();
            drop(captured);
        });
        let (tell_callback, metrics) = (tell.clone(), Arc::clone(&pool));
        handle.add_done_callback(move |_| {
            assert_eq!(metrics.metrics().running, 1);
            tell_callback.send("callback").unwrap();
        });
        let metrics = Arc::clone(&pool);
        let woken = waker_that(move || {
            let metrics = metrics.metrics();
            assert_eq!(
                (metrics.running, metrics.completed, metrics.idle),
                (0, 1, 1)
            );
            tell.send("woken").unwrap();
        });
        assert!(poll_with(&mut handle, &woken).is_pending());
        gate.open();
        for wanted in ["closure gone", "callback", "woken"] {
            assert_eq!(told.recv_timeout(LONG), Ok(wanted));
        }
        assert!(handle.is_finished());
        drop(woken);
    });
}

#[test]
fn a_slow_callback_delays_the_join_and_the_job_runs_until_then() {
    within(LONG, "slow callback", || {
        let pool = ThreadPool::new(1);
        let blocked = block_workers(&pool, 1);
        let mut handle = pool.submit(|| 1);
        let gate = Gate::new();
        let (wait, (tell, told)) = (gate.clone(), mpsc::channel());
        handle.add_done_callback(move |_| {
            tell.send(()).unwrap();
            wait.wait();
        });
        blocked.release();
        told.recv_timeout(LONG).unwrap();
        assert!(handle.is_running() && !handle.is_finished());
        assert!(
            handle
                .join_timeout(Duration::from_millis(5))
                .unwrap_err()
                .is_timeout()
        );
        gate.open();
        assert_eq!(handle.join().unwrap(), 1);
    });
}

#[test]
fn a_detached_result_is_dropped_by_the_worker_before_the_worker_is_free() {
    within(LONG, "unwanted", || {
        let pool = Arc::new(ThreadPool::new(1));
        let blocked = block_workers(&pool, 1);
        let (tell, told) = mpsc::channel();
        struct Asks(Arc<ThreadPool>, mpsc::Sender<(u64, u64)>);
        impl Drop for Asks {
            fn drop(&mut self) {
                let metrics = self.0.metrics();
                let _ = self.1.send((metrics.running, metrics.completed));
            }
        }
        let result = Asks(Arc::clone(&pool), tell);
        drop(pool.submit(move || result));
        blocked.release();
        assert_eq!(told.recv_timeout(LONG), Ok((1, 1)));
        eventually("it is counted", || pool.metrics().completed == 2);
    });
}

#[test]
fn callbacks_run_in_the_order_added_and_a_panic_in_one_harms_nothing() {
    within(LONG, "callbacks", || {
        let pool = ThreadPool::new(1);
        let blocked = block_workers(&pool, 1);
        let handle = pool.submit(|| 5);
        let order = Arc::new(Mutex::new(Vec::new()));
        for i in 0..10 {
            let order = Arc::clone(&order);
            handle.add_done_callback(move |outcome| {
                order.lock().unwrap().push((i, *outcome.unwrap()));
                assert_ne!(i, 4, "a callback that panics");
            });
        }
        blocked.release();
        assert_eq!(handle.join().unwrap(), 5);
        let wanted: Vec<_> = (0..10).map(|i| (i, 5)).collect();
        assert_eq!(*order.lock().unwrap(), wanted);
        pool.submit(|| ()).join().unwrap();
    });
}

#[test]
fn a_callback_on_a_finished_job_runs_at_once_in_this_thread() {
    within(LONG, "late callbacks", || {
        let pool = ThreadPool::new(1);
        let blocked = block_workers(&pool, 1);
        let cancelled = pool.submit(|| 0);
        assert!(cancelled.cancel());
        blocked.release();
        let returned = pool.submit(|| 0);
        let panicked = pool.submit(|| if true { panic!("failed") } else { 0 });
        eventually("all done", || {
            panicked.is_finished() && returned.is_finished()
        });
        for (handle, is_ok) in [(returned, true), (panicked, false), (cancelled, false)] {
            let (tell, told) = mpsc::channel();
            handle.add_done_callback(move |outcome| {
                tell.send((thread::current().id(), outcome.is_ok()))
                    .unwrap();
            });
            assert_eq!(told.try_recv(), Ok((thread::current().id(), is_ok)));
            // The panic does not unwind into the caller, and the result is still there.
            handle.add_done_callback(|_| panic!("late"));
            assert_eq!(handle.join().is_ok(), is_ok);
        }
    });
}

#[test]
fn a_callback_added_by_a_callback_runs_after_it() {
    within(LONG, "nested callbacks", || {
        let pool = ThreadPool::new(1);
        for late in [false, true] {
            let blocked = block_workers(&pool, 1);
            let handle = Arc::new(pool.submit(|| ()));
            if late {
                blocked.gate().open();
                eventually("done", || handle.is_finished());
            }
            let order = Arc::new(Mutex::new(Vec::new()));
            let (inner, inner_order) = (Arc::clone(&handle), Arc::clone(&order));
            handle.add_done_callback(move |_| {
                let innermost_order = Arc::clone(&inner_order);
                inner.add_done_callback(move |_| innermost_order.lock().unwrap().push("second"));
                inner_order.lock().unwrap().push("first");
            });
            blocked.gate().open();
            eventually("done", || handle.is_finished());
            assert_eq!(*order.lock().unwrap(), ["first", "second"]);
        }
    });
}

#[test]
fn callbacks_run_for_a_handle_that_was_dropped() {
    within(LONG, "callback of a dropped handle", || {
        let pool = ThreadPool::new(1);
        let blocked = block_workers(&pool, 1);
        let (tell, told) = mpsc::channel();
        let handle = pool.submit(|| 8);
        handle.add_done_callback(move |outcome| tell.send(*outcome.unwrap()).unwrap());
        drop(handle);
        blocked.release();
        assert_eq!(told.recv_timeout(LONG), Ok(8));
    });
}

#[test]
fn a_tag_comes_out_with_the_result() {
    within(LONG, "tags", || {
        let pool = ThreadPool::new(1);
        let mut tagged = pool.submit(|| 1).tag("key");
        assert_eq!(*tagged.key(), "key");
        eventually("done", || tagged.get_ref().is_finished());
        assert_eq!(tagged.get_mut().try_join().unwrap().unwrap(), 1);
        let (key, handle) = tagged.into_inner();
        assert_eq!((key, handle.is_finished()), ("key", true));
        let (key, result) = block_on(pool.submit(|| 2).tag(String::from("other")));
        assert_eq!((key.as_str(), result.unwrap()), ("other", 2));
        let (key, result) = pool.submit(|| 3).tag("joined").join();
        assert_eq!((key, result.unwrap()), ("joined", 3));
        let (key, result) = pool.submit(|| 4).cancel_on_drop().tag("too").join();
        assert_eq!((key, result.unwrap()), ("too", 4));
        // A pending poll leaves the key in place.
        let blocked = block_workers(&pool, 1);
        let mut tagged = pool.submit(|| 3).tag("third");
        assert!(poll_once(&mut tagged).is_pending());
        assert_eq!(*tagged.key(), "third");
        blocked.release();
        let (key, result) = block_on(&mut tagged);
        assert_eq!((key, result.unwrap()), ("third", 3));
    });
}

#[test]
fn a_tagged_handle_has_the_methods_of_a_handle() {
    within(LONG, "tagged methods", || {
        let pool = ThreadPool::new(1);
        let blocked = block_workers(&pool, 1);
        let short = Duration::from_millis(1);
        let mut plain = pool.submit(|| 1).tag("plain");
        let mut on_drop = pool.submit(|| 2).cancel_on_drop().tag("on drop");
        assert!(plain.join_timeout(short).unwrap_err().is_timeout());
        assert!(on_drop.join_timeout(short).unwrap_err().is_timeout());
        assert!(plain.try_join().is_none() && on_drop.try_join().is_none());
        assert!(!plain.is_finished() && !on_drop.is_finished());
        let cancelled = pool.submit(|| ()).tag(1);
        let cancelled_on_drop = pool.submit(|| ()).cancel_on_drop().tag(2);
        assert!(cancelled.cancel() && cancelled_on_drop.cancel());
        assert!(cancelled.is_finished() && cancelled_on_drop.is_finished());
        assert!(cancelled.join().1.unwrap_err().is_cancelled());
        assert!(cancelled_on_drop.join().1.unwrap_err().is_cancelled());

        blocked.release();
        assert_eq!(plain.join_timeout(LONG).unwrap(), 1);
        eventually("done", || on_drop.is_finished());
        assert_eq!(on_drop.try_join().unwrap().unwrap(), 2);
        // The keys are still there, the results are not.
        assert!(plain.try_join().is_none() && on_drop.try_join().is_none());
        assert!(!plain.cancel() && !on_drop.cancel());
        assert_eq!((*plain.key(), *on_drop.key()), ("plain", "on drop"));
    });
}

#[test]
fn a_tagged_handle_becomes_one_that_cancels_when_dropped() {
    within(LONG, "tagged cancel_on_drop", || {
        let pool = ThreadPool::new(1);
        let blocked = block_workers(&pool, 1);
        drop(pool.submit(|| ()).tag("dropped").cancel_on_drop());
        assert_eq!(pool.metrics().cancelled, 1);
        let kept = pool.submit(|| 1).tag("kept").cancel_on_drop();
        assert_eq!(*kept.key(), "kept");
        blocked.release();
        let (key, result) = block_on(kept);
        assert_eq!((key, result.unwrap()), ("kept", 1));
    });
}

#[test]
fn cancel_on_drop_cancels_unless_joined_or_disarmed() {
    within(LONG, "cancel_on_drop", || {
        let pool = ThreadPool::new(1);
        let blocked = block_workers(&pool, 1);
        drop(pool.submit(|| ()).cancel_on_drop());
        assert_eq!(pool.metrics().cancelled, 1);
        drop(pool.submit(|| ()).cancel_on_drop().tag("key"));
        assert_eq!(pool.metrics().cancelled, 2);
        let disarmed = pool.submit(|| 1).cancel_on_drop().disarm();
        let mut awaited = pool.submit(|| 2).cancel_on_drop();
        let joined = pool.submit(|| 3).cancel_on_drop();
        assert!(poll_once(&mut awaited).is_pending());
        assert!(!awaited.is_finished(), "it derefs to the handle");
        blocked.release();
        assert_eq!(block_on(&mut awaited).unwrap(), 2);
        assert_eq!(joined.join().unwrap(), 3);
        assert_eq!(disarmed.join().unwrap(), 1);
        drop(awaited);
        assert_eq!(pool.metrics().cancelled, 2);
    });
}

#[test]
fn debug_names_the_state_and_the_kind_of_outcome() {
    within(LONG, "debug", || {
        struct NoDebug;
        let pool = ThreadPool::new(1);
        let blocked = block_workers(&pool, 1);
        let mut handle = pool.submit(|| NoDebug);
        assert!(format!("{handle:?}").contains("Queued"));
        let cancelled = pool.submit(|| NoDebug);
        cancelled.cancel();
        assert!(format!("{cancelled:?}").contains("Cancelled"));
        blocked.release();
        let (gate, (tell, told)) = (Gate::new(), mpsc::channel());
        let wait = gate.clone();
        let running = pool.submit(move || {
            tell.send(()).unwrap();
            wait.wait();
        });
        told.recv_timeout(LONG).unwrap();
        assert!(format!("{running:?}").contains("Running"));
        gate.open();
        assert!(handle.join_timeout(LONG).is_ok());
        assert!(format!("{handle:?}").contains("Returned, taken"));
        let panicked = pool.submit(|| if true { panic!("p") } else { NoDebug });
        eventually("done", || panicked.is_finished());
        assert!(format!("{panicked:?}").contains("Finished: Panicked"));
        let tagged = panicked.tag(1);
        assert!(format!("{tagged:?}").contains("Panicked"));
    });
}

#[test]
fn a_handle_works_in_select_and_is_fused() {
    within(LONG, "select", || {
        use futures::FutureExt;
        let pool = ThreadPool::new(1);
        block_on(async {
            let mut handle = pool.submit(|| 4);
            let mut ready = futures::future::ready(()).fuse();
            let mut both = (false, false);
            while both != (true, true) {
                futures::select! {
                    result = handle => both.0 = result.unwrap() == 4,
                    () = ready => both.1 = true,
                }
            }
        });
    });
}

#[test]
fn a_job_that_joins_itself_gets_an_error() {
    within(LONG, "self join", || {
        let pool = ThreadPool::new(1);
        let (give, take) = mpsc::channel::<JoinHandle<bool>>();
        let (tell, told) = mpsc::channel();
        let handle = pool.submit(move || {
            let error = take.recv().unwrap().join().unwrap_err();
            tell.send(error.is_deadlock()).unwrap();
            true
        });
        give.send(handle).unwrap();
        assert_eq!(told.recv_timeout(LONG), Ok(true));
    });
}

#[test]
fn a_callback_that_joins_its_own_job_gets_an_error() {
    within(LONG, "join in a callback", || {
        for cancelled in [false, true] {
            let pool = ThreadPool::new(1);
            let blocked = block_workers(&pool, 1);
            let (give, take) = mpsc::channel::<JoinHandle<()>>();
            let (tell, told) = mpsc::channel();
            let handle = pool.submit(|| ());
            handle.add_done_callback(move |_| {
                let error = take.recv().unwrap().join().unwrap_err();
                // The job that ran still runs. The cancelled one has ended.
                let states = (error.is_deadlock(), error.is_cancelled());
                tell.send(states).unwrap();
            });
            give.send(handle).unwrap();
            assert!(!cancelled || pool.cancel_pending() == 1);
            blocked.release();
            assert_eq!(told.recv_timeout(LONG), Ok((!cancelled, cancelled)));
        }
    });
}

#[test]
fn nested_waits_do_not_consume_each_others_wake_ups() {
    within(LONG, "nested block_on", || {
        let pool = ThreadPool::new(2);
        for _ in 0..200 {
            let (first, second) = (pool.submit(|| 1), pool.submit(|| 2));
            let mut first = first;
            let mut second = Some(second);
            let sum = block_on(std::future::poll_fn(|context| {
                // Polls the first handle, and blocks on the second inside that poll, in the same
                // thread.
                match std::pin::Pin::new(&mut first).poll(context) {
                    Poll::Ready(one) => Poll::Ready(one.unwrap()),
                    Poll::Pending => {
                        if let Some(second) = second.take() {
                            assert_eq!(block_on(second).unwrap(), 2);
                        }
                        Poll::Pending
                    }
                }
            }));
            assert_eq!(sum, 1);
        }
    });
}

#[test]
fn many_threads_query_one_handle_and_see_it_end_once() {
    within(LONG, "many queries", || {
        let pool = ThreadPool::new(2);
        for round in 0..200 {
            let handle = pool.submit(move || round);
            let calls = Arc::new(AtomicUsize::new(0));
            thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| {
                        for _ in 0..20 {
                            // A finished job stays finished.
                            if handle.is_finished() {
                                assert!(handle.is_finished() && !handle.is_running());
                            }
                            let calls = Arc::clone(&calls);
                            handle.add_done_callback(move |outcome| {
                                calls.fetch_add(1, SeqCst);
                                assert_eq!(*outcome.unwrap(), round);
                            });
                        }
                    });
                }
            });
            assert_eq!(handle.join().unwrap(), round);
            assert_eq!(calls.load(SeqCst), 60);
        }
    });
}

#[test]
fn an_error_names_where_the_job_was_submitted() {
    let pool = ThreadPool::new(1);
    let line = line!() + 1;
    let submit = || pool.submit(|| -> u8 { panic!("no such luck") });
    let here = |error: JoinError| {
        let location = error.location().expect("the error knows it");
        assert_eq!(
            (location.file(), location.line()),
            (file!(), line),
            "{error}"
        );
    };
    here(submit().join().unwrap_err());
    let blocked = block_workers(&pool, 1);
    let mut cancelled = submit();
    here(
        cancelled
            .join_timeout(Duration::from_millis(1))
            .unwrap_err(),
    );
    assert!(cancelled.cancel());
    here(cancelled.join().unwrap_err());
    let cancelled = submit();
    assert_eq!(pool.cancel_pending(), 1);
    here(cancelled.join().unwrap_err());
    blocked.release();
    pool.shutdown();
    here(submit().join().unwrap_err());
    assert!(JoinError::cancelled().location().is_none());
    assert!(JoinError::broken("no disk").location().is_none());
}

#[test]
fn a_panic_can_be_resumed_with_its_payload_and_other_errors_come_back() {
    let pool = ThreadPool::new(1);
    let error = pool.submit(|| std::panic::panic_any(7)).join().unwrap_err();
    assert_eq!(error.panic_message(), None);
    let resumed = catch_unwind(AssertUnwindSafe(|| error.resume_panic()));
    assert_eq!(resumed.unwrap_err().downcast_ref(), Some(&7));
    let error = pool.submit(|| panic!("number {}", 7)).join().unwrap_err();
    assert_eq!(error.panic_message(), Some("number 7"));
    assert_eq!(JoinError::cancelled().panic_message(), None);
    assert!(JoinError::shutdown().resume_panic().is_shutdown());
}

#[test]
fn panics_about_a_taken_result_name_the_caller() {
    // In a process of its own, since it replaces the panic hook.
    child::alone(
        "handle::panics_about_a_taken_result_name_the_caller",
        || {
            let pool = ThreadPool::new(1);
            let mut handle = pool.submit(|| 7);
            block_on(&mut handle).unwrap();
            let polled = panic_location(|| drop(Pin::new(&mut handle).poll(&mut noop_context())));
            assert_eq!(polled, (file!().to_owned(), line!() - 1));
            let added = panic_location(|| handle.add_done_callback(|_| ()));
            assert_eq!(added, (file!().to_owned(), line!() - 1));
            let joined = panic_location(|| drop(handle.join()));
            assert_eq!(joined, (file!().to_owned(), line!() - 1));
        },
    );
}
