//! `first_ok` and `first_ok_results`: the first success wins, and the other jobs are cancelled.
//! Also: which line of code a panic of these combinators names.

use std::future::Future;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::task::Poll;

use crate::common::{
    CountingWaker, Gate, Held, LONG, block_workers, child, eventually, poll_once, poll_with,
    spawn_until_asleep, within,
};
use futurepool::{
    CancelOnDrop, Executor, ExecutorExt, FirstOk, InlineExecutor, Job, JoinError, JoinHandle,
    ReturnWhen, Tagged, ThreadPool, block_on, first_ok, first_ok_results, wait,
};
use futures::future::FusedFuture;

type Handle = JoinHandle<usize>;
/// Runs the wait to its end: the blocking and the async way.
type End = fn(FirstOk<Handle>) -> Result<usize, JoinError>;

const ENDS: [End; 2] = [FirstOk::join, block_on];

/// A handle that was refused by its executor.
fn refused() -> Handle {
    struct Refuses;
    impl Executor for Refuses {
        fn execute(&self, job: Job) {
            job.refuse(JoinError::shutdown());
        }
    }
    Refuses.submit(|| 0)
}

fn panicked() -> Handle {
    InlineExecutor.submit(|| panic!("expected"))
}

fn cancelled() -> Handle {
    let handle = Held::new().submit(|| 0);
    assert!(handle.cancel());
    handle
}

#[test]
fn the_first_job_that_returns_wins_and_the_rest_is_cancelled() {
    for end in ENDS {
        within(LONG, "first", move || {
            let pool = ThreadPool::new(2);
            let gates = [Gate::new(), Gate::new()];
            let requested = Arc::new(AtomicUsize::new(0));
            let (started, starts) = mpsc::channel();
            let mut handles: Vec<_> = (0..2)
                .map(|n| {
                    let (gate, started) = (gates[n].clone(), started.clone());
                    let requested = Arc::clone(&requested);
                    pool.submit(move || {
                        started.send(()).unwrap();
                        gate.wait();
                        requested.fetch_add(usize::from(futurepool::cancel_requested()), SeqCst);
                        n
                    })
                })
                .collect();
            // This job waits in the queue.
            handles.push(pool.submit(|| 2));
            for _ in 0..2 {
                starts.recv_timeout(LONG).unwrap();
            }
            let waiter = spawn_until_asleep(move || end(first_ok(handles)));
            assert!(!waiter.is_finished(), "no job has returned");
            // Only job 1 returns now, and its worker might take the queued job.
            gates[1].open();
            assert_eq!(waiter.join().unwrap().unwrap(), 1);
            gates[0].open();
            pool.shutdown().join();
            assert_eq!(requested.load(SeqCst), 1, "job 0 saw the request");
        });
    }
}

#[test]
fn the_rest_is_cancelled_before_the_output_is_returned() {
    for end in ENDS {
        within(LONG, "cancelled", move || {
            let held = Held::new();
            let captured = Arc::new(());
            let (tell, told) = mpsc::channel();
            let mut handles: Vec<_> = (0..3)
                .map(|n| {
                    let (captured, tell) = (Arc::clone(&captured), tell.clone());
                    let handle = held.submit(move || {
                        drop(captured);
                        n
                    });
                    handle.add_done_callback(move |outcome| {
                        tell.send((n, outcome.unwrap_err().is_cancelled())).unwrap();
                    });
                    handle
                })
                .collect();
            handles.insert(1, InlineExecutor.submit(|| 7));
            assert_eq!(end(first_ok(handles)).unwrap(), 7);
            assert_eq!(Arc::strong_count(&captured), 1, "the closures are dropped");
            let cancels: Vec<_> = told.try_iter().collect();
            assert_eq!(cancels, [(2, true), (1, true), (0, true)], "the last first");
        });
    }
}

#[test]
fn failures_are_skipped_and_a_cancelled_job_is_one() {
    for end in ENDS {
        for failed in [refused, panicked, cancelled] {
            within(LONG, "skipped", move || {
                let gate = Gate::new();
                let opened = gate.clone();
                let pool = ThreadPool::new(1);
                let good = pool.submit(move || {
                    opened.wait();
                    5
                });
                let handles = [failed(), good, failed()];
                let waiter = spawn_until_asleep(move || end(first_ok(handles)));
                assert!(!waiter.is_finished(), "a failure does not end it");
                gate.open();
                assert_eq!(waiter.join().unwrap().unwrap(), 5);
            });
        }
    }
}

#[test]
fn if_all_fail_it_returns_the_last_error() {
    for end in ENDS {
        within(LONG, "all failed", move || {
            // All have failed before: the last one in the order given.
            assert!(
                end(first_ok([panicked(), cancelled(), refused()]))
                    .unwrap_err()
                    .is_shutdown()
            );
            assert!(
                end(first_ok([panicked(), refused(), cancelled()]))
                    .unwrap_err()
                    .is_cancelled()
            );
            assert!(end(first_ok([cancelled()])).unwrap_err().is_cancelled());
            // The first one fails last.
            let pool = ThreadPool::new(1);
            let gate = Gate::new();
            let opened = gate.clone();
            let late = pool.submit(move || {
                opened.wait();
                panic!("expected")
            });
            let waiter = spawn_until_asleep(move || end(first_ok([late, refused()])));
            gate.open();
            assert!(waiter.join().unwrap().unwrap_err().is_panic());
        });
    }
}

#[test]
fn an_err_is_a_failure_for_first_ok_results_only() {
    let job = |value: Result<i32, i32>| InlineExecutor.submit(move || value);
    let handles = || [job(Err(1)), job(Ok(2)), job(Err(3))];
    assert_eq!(first_ok(handles()).join().unwrap(), Err(1));
    assert_eq!(first_ok_results(handles()).join().unwrap(), Ok(2));
    assert_eq!(block_on(first_ok_results(handles())).unwrap(), Ok(2));
    let all_failed = first_ok_results([job(Err(1)), job(Err(3))]).join();
    assert_eq!(all_failed.unwrap(), Err(3));
    let panics = InlineExecutor.submit(|| -> Result<i32, i32> { panic!("expected") });
    let last = first_ok_results([job(Err(1)), panics]).join();
    assert!(last.unwrap_err().is_panic());
}

#[test]
fn an_err_of_first_ok_results_cancels_nothing() {
    let held = Held::new();
    let other = held.submit(|| Ok(2));
    let mut first = first_ok_results([InlineExecutor.submit(|| Err(1)), other]);
    for _ in 0..2 {
        assert!(poll_once(&mut first).is_pending());
    }
    held.run_all();
    assert_eq!(first.join().unwrap(), Ok(2));
}

#[test]
fn every_kind_of_handle_is_accepted_and_gives_its_own_output() {
    let held = Held::new();
    let (one, two) = (InlineExecutor.submit(|| 1), held.submit(|| 2));
    let (key, value) = first_ok([two.tag("two"), one.tag("one")]).join();
    assert_eq!((key, value.unwrap()), ("one", 1));

    let handles = [InlineExecutor.submit(|| 1), held.submit(|| 2)].map(JoinHandle::cancel_on_drop);
    assert_eq!(first_ok(handles).join().unwrap(), 1);
    let handles = [
        held.submit(|| Err(2)),
        InlineExecutor.submit(|| Ok::<_, i32>(1)),
    ];
    let handles = handles.map(|handle| handle.cancel_on_drop().tag(()));
    assert_eq!(first_ok_results(handles).join().1.unwrap(), Ok(1));

    // The caller keeps borrowed handles, and the results that were not returned.
    let mut handles = [panicked(), InlineExecutor.submit(|| 1), held.submit(|| 2)];
    assert_eq!(first_ok(&mut handles).join().unwrap(), 1);
    let [mut failed, won, lost] = handles;
    assert!(failed.try_join().unwrap().unwrap_err().is_panic());
    assert!(won.is_finished());
    assert!(lost.join().unwrap_err().is_cancelled());
    let mut tagged = InlineExecutor.submit(|| 1).tag("one");
    assert_eq!(first_ok([&mut tagged]).join().0, "one");
}

#[test]
fn dropping_it_cancels_the_rest() {
    for polled in [false, true] {
        let held = Held::new();
        let mut handles = [1, 2].map(|n| held.submit(move || n));
        let (count, waker) = CountingWaker::new();
        let mut first = first_ok(&mut handles);
        if polled {
            // The first poll may cause a spurious wake-up; then the second has nothing to do.
            for _ in 0..2 {
                assert!(poll_with(&mut first, &waker).is_pending());
            }
        }
        let before = count.count();
        drop(first);
        assert!(handles.iter().all(JoinHandle::is_cancelled));
        assert_eq!(count.count(), before, "the dropped wait is not woken");

        let pool = ThreadPool::new(1);
        let blocked = block_workers(&pool, 1);
        drop(first_ok([pool.submit(|| 1), pool.submit(|| 2)]));
        assert_eq!(pool.metrics().cancelled, 2);
        drop(blocked);
    }
}

#[test]
fn the_end_of_a_job_that_ran_on_wakes_nothing_of_it() {
    within(LONG, "no wake", || {
        let (pool, held) = (ThreadPool::new(1), Held::new());
        // A running job is not cancelled, so it ends later.
        let go = Gate::new();
        let opened = go.clone();
        let mut handles = [
            pool.submit(move || {
                opened.wait();
                1
            }),
            held.submit(|| 2),
        ];
        eventually("it runs", || handles[0].is_running());
        let (count, waker) = CountingWaker::new();
        let mut first = first_ok(&mut handles);
        for _ in 0..2 {
            assert!(poll_with(&mut first, &waker).is_pending());
        }
        held.run_all();
        let Poll::Ready(Ok(2)) = poll_with(&mut first, &waker) else {
            panic!("job 2 has returned");
        };
        drop(first);
        let before = count.count();
        go.open();
        pool.shutdown().join();
        assert_eq!(count.count(), before);
        let [late, _] = handles;
        assert_eq!(late.join().unwrap(), 1);
    });
}

#[test]
fn an_unwinding_key_does_not_lose_the_output() {
    struct PanicsOnDrop;
    impl Drop for PanicsOnDrop {
        fn drop(&mut self) {
            panic!("expected");
        }
    }
    let held = Held::new();
    let mut first = first_ok([
        held.submit(|| 1).tag(Some(PanicsOnDrop)),
        panicked().tag(Some(PanicsOnDrop)),
        InlineExecutor.submit(|| 2).tag(None),
    ]);
    let Poll::Ready((None, Ok(2))) = poll_once(&mut first) else {
        panic!("job 2 has returned");
    };
}

#[test]
fn it_is_an_any_of_wait_in_the_only_worker() {
    within(LONG, "one worker", || {
        let pool = Arc::new(ThreadPool::new(1));
        for asynchronous in [false, true] {
            let inner = Arc::clone(&pool);
            let outer = pool.submit(move || {
                let unrelated = inner.submit(|| ());
                let first = first_ok([1, 2].map(|n| inner.submit(move || n)));
                let result = if asynchronous {
                    block_on(first)
                } else {
                    first.join()
                };
                assert!(!unrelated.is_finished(), "an unrelated job was run");
                result.unwrap()
            });
            assert_eq!(outer.join().unwrap(), 1, "the job submitted first");
        }
    });
}

/// Covers a win and a failure of all.
async fn story() {
    let pool = ThreadPool::new(2);
    let win = first_ok((0..50).map(|n| pool.submit(move || n)));
    assert!(win.await.unwrap() < 50);
    let none = first_ok_results((0..50).map(|n| pool.submit(move || Err::<(), _>(n))));
    assert!(none.await.unwrap().is_err());
}

#[test]
fn it_works_in_every_runtime_and_in_none() {
    within(LONG, "tokio", || {
        let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
        runtime.block_on(async { tokio::spawn(story()).await.unwrap() });
    });
    within(LONG, "smol", || smol::block_on(smol::spawn(story())));
    within(LONG, "futures", || futures::executor::block_on(story()));
    within(LONG, "pollster", || pollster::block_on(story()));
    within(LONG, "its own block_on", || block_on(story()));
}

#[test]
fn it_reports_that_it_has_ended_and_panics_afterwards() {
    let mut first = first_ok([InlineExecutor.submit(|| 1)]);
    assert!(!first.is_terminated());
    assert!(poll_once(&mut first).is_ready());
    assert!(first.is_terminated());
    assert!(catch_unwind(AssertUnwindSafe(|| poll_once(&mut first).is_ready())).is_err());
    assert!(catch_unwind(AssertUnwindSafe(|| first.join().is_ok())).is_err());
}

#[test]
fn a_result_that_was_taken_before_cannot_be_returned_again() {
    let held = Held::new();
    let mut taken = InlineExecutor.submit(|| 1);
    assert!(taken.try_join().is_some());
    let mut handles = [taken, held.submit(|| 2)];
    let payload = catch_unwind(AssertUnwindSafe(|| first_ok(&mut handles).join())).unwrap_err();
    let message = payload.downcast_ref::<String>().unwrap();
    assert!(message.contains("already taken"), "{message}");
    assert!(handles[1].is_cancelled());
}

#[test]
fn no_handles_are_refused_at_the_call() {
    let none = || first_ok(Vec::<Handle>::new());
    let payload = catch_unwind(|| drop(none())).unwrap_err();
    let message = payload.downcast_ref::<&str>().unwrap();
    assert!(message.contains("no handles"), "{message}");
    let none = || first_ok_results(Vec::<JoinHandle<Result<(), ()>>>::new());
    assert!(catch_unwind(|| drop(none())).is_err());
}

#[test]
fn it_is_send_and_unpin() {
    fn check<T: Send + Unpin>() {}
    fn check_unpin<T: Unpin>() {}
    check::<FirstOk<Handle>>();
    check::<FirstOk<&mut Handle>>();
    check::<FirstOk<CancelOnDrop<usize>>>();
    check_unpin::<FirstOk<Tagged<std::marker::PhantomPinned, Handle>>>();
}

/// Runs `f`, which panics, and returns the file and line that the panic names.
fn place_of_panic(f: impl FnOnce()) -> (String, u32) {
    let place = Arc::new(Mutex::new(None));
    let told = Arc::clone(&place);
    panic::set_hook(Box::new(move |info| {
        let location = info.location().unwrap();
        *told.lock().unwrap() = Some((location.file().to_owned(), location.line()));
    }));
    let result = catch_unwind(AssertUnwindSafe(f));
    drop(panic::take_hook());
    assert!(result.is_err(), "it panics");
    let mut place = place.lock().unwrap();
    place.take().expect("the hook was called")
}

#[test]
fn panics_name_the_callers_line() {
    // The panic hook is that of the process.
    child::alone("first_ok::panics_name_the_callers_line", || {
        let here = |line| (file!().to_owned(), line);
        let none = Vec::<Handle>::new;
        let job = || [InlineExecutor.submit(|| 1)];
        let place = place_of_panic(|| drop(first_ok(none())));
        assert_eq!(place, here(line!() - 1));
        let none = Vec::<JoinHandle<Result<(), ()>>>::new;
        let place = place_of_panic(|| drop(first_ok_results(none())));
        assert_eq!(place, here(line!() - 1));

        let mut context = crate::common::noop_context();
        let mut first = first_ok(job());
        assert!(poll_once(&mut first).is_ready());
        let place = place_of_panic(|| drop(Pin::new(&mut first).poll(&mut context)));
        assert_eq!(place, here(line!() - 1));
        let place = place_of_panic(|| drop(first.join()));
        assert_eq!(place, here(line!() - 1));

        for mode in [ReturnWhen::AllCompleted, ReturnWhen::FirstCompleted] {
            let mut waiting = wait(job(), mode);
            assert!(poll_once(&mut waiting).is_ready());
            let place = place_of_panic(|| drop(Pin::new(&mut waiting).poll(&mut context)));
            assert_eq!(place, here(line!() - 1));
            let place = place_of_panic(|| drop(waiting.join()));
            assert_eq!(place, here(line!() - 1));
        }

        let [mut taken] = job();
        assert!(taken.try_join().is_some());
        let mut first = first_ok([taken]);
        let place = place_of_panic(|| drop(Pin::new(&mut first).poll(&mut context)));
        assert_eq!(place, here(line!() - 1));

        let [mut tagged] = job().map(|handle| handle.tag("key"));
        assert!(tagged.try_join().is_some());
        let place = place_of_panic(|| drop(Pin::new(&mut tagged).poll(&mut context)));
        assert_eq!(place, here(line!() - 1));
        let place = place_of_panic(|| drop(tagged.join_timeout(LONG)));
        assert_eq!(place, here(line!() - 1));
        let place = place_of_panic(|| drop(tagged.join()));
        assert_eq!(place, here(line!() - 1));
    });
}

#[test]
fn keys_whose_destructors_panic_do_not_abort_the_process() {
    /// Panics also while the thread is panicking, which aborts the process.
    struct Key;
    impl Drop for Key {
        fn drop(&mut self) {
            panic!("a destructor");
        }
    }
    child::alone(
        "first_ok::keys_whose_destructors_panic_do_not_abort_the_process",
        || {
            let held = Held::new();
            drop(first_ok([
                held.submit(|| 1).tag(Key),
                held.submit(|| 2).tag(Key),
            ]));
            let failed = InlineExecutor.submit(|| -> i32 { panic!("expected") });
            let mut wait = first_ok([failed.tag(Key), held.submit(|| 3).tag(Key)]);
            assert!(poll_once(&mut wait).is_pending());
            drop(wait);
        },
    );
}

#[test]
fn a_tagged_handle_is_terminated_once_its_result_is_gone() {
    let mut handle = InlineExecutor.submit(|| 1).tag("key");
    assert!(!handle.is_terminated());
    assert_eq!(handle.try_join().unwrap().unwrap(), 1);
    assert!(handle.is_terminated());
}
