//! `wait` and `wait_results`: which handles are done; results stay in the handles.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{
    CountingWaker, Gate, Held, LONG, block_workers, eventually, poll_once, poll_with,
    spawn_until_asleep, within,
};
use futurepool::{
    CancelOnDrop, Executor, ExecutorExt, InlineExecutor, Job, JoinError, JoinHandle, ReturnWhen,
    Tagged, ThreadPool, Wait, WaitHandle, Waited, block_on, wait, wait_results,
};
use futures::future::FusedFuture;

const ALL_MODES: [ReturnWhen; 3] = [
    ReturnWhen::AllCompleted,
    ReturnWhen::FirstCompleted,
    ReturnWhen::FirstException,
];

type Handle = JoinHandle<usize>;
/// Runs the wait to its end: the blocking and the async way.
type End<H> = fn(Wait<H>) -> Waited<H>;

fn ends<H: WaitHandle>() -> [End<H>; 2] {
    [Wait::join, block_on]
}

/// Submits `n` jobs; each waits for its own gate and then returns `then` of its number. The pool
/// needs `n` free workers.
fn gated<T: Send + 'static>(
    pool: &ThreadPool,
    n: usize,
    then: fn(usize) -> T,
) -> (Vec<Gate>, Vec<JoinHandle<T>>) {
    (0..n)
        .map(|number| {
            let gate = Gate::new();
            let opened = gate.clone();
            let wait = move || {
                opened.wait();
                then(number)
            };
            (gate, pool.submit(wait))
        })
        .unzip()
}

fn same(number: usize) -> usize {
    number
}

fn finished<T: Send + 'static>(handle: &JoinHandle<T>) {
    eventually("the job is done", || handle.is_finished());
}

/// Returns the results of jobs that returned.
fn values(handles: Vec<Handle>) -> Vec<usize> {
    let join = |handle: Handle| handle.join().unwrap();
    handles.into_iter().map(join).collect()
}

/// An executor that never runs a job.
struct Refuses(fn() -> JoinError);

impl Executor for Refuses {
    fn execute(&self, job: Job) {
        job.refuse((self.0)());
    }
}

#[test]
fn all_completed_waits_for_all_and_keeps_the_order_given() {
    for end in ends() {
        within(LONG, "all", move || {
            let pool = ThreadPool::new(3);
            let (gates, handles) = gated(&pool, 3, same);
            let waiter = spawn_until_asleep(move || end(wait(handles, ReturnWhen::AllCompleted)));
            for number in [2, 0, 1] {
                assert!(!waiter.is_finished(), "it does not wait for all");
                gates[number].open();
            }
            let waited = waiter.join().unwrap();
            assert!(waited.not_done.is_empty());
            assert_eq!(values(waited.done), [0, 1, 2]);
        });
    }
}

#[test]
fn first_completed_ends_with_the_first_handle_in_any_position() {
    for end in ends() {
        within(LONG, "first", move || {
            let pool = ThreadPool::new(3);
            let (gates, handles) = gated(&pool, 3, same);
            let waiter = spawn_until_asleep(move || end(wait(handles, ReturnWhen::FirstCompleted)));
            gates[1].open();
            let waited = waiter.join().unwrap();
            gates.iter().for_each(Gate::open);
            assert_eq!(values(waited.done), [1]);
            assert_eq!(values(waited.not_done), [0, 2]);
        });
    }
}

#[test]
fn all_handles_done_at_the_end_are_in_done_in_the_order_given() {
    for end in ends() {
        for mode in [ReturnWhen::FirstCompleted, ReturnWhen::FirstException] {
            within(LONG, "several done", move || {
                let pool = ThreadPool::new(5);
                let (gates, mut handles) = gated(&pool, 5, same);
                for number in [3, 1] {
                    gates[number].open();
                    finished(&handles[number]);
                }
                handles.insert(0, Refuses(JoinError::shutdown).submit(|| 9));
                let mut waited = end(wait(handles, mode));
                gates.iter().for_each(Gate::open);
                assert!(waited.done.remove(0).join().unwrap_err().is_shutdown());
                assert_eq!(values(waited.done), [1, 3]);
                assert_eq!(values(waited.not_done), [0, 2, 4]);
            });
        }
    }
}

#[test]
fn a_wait_for_no_handles_ends_at_once() {
    for end in ends::<Handle>() {
        for mode in ALL_MODES {
            let waited = within(LONG, "nothing", move || end(wait([], mode)));
            assert!(waited.done.is_empty() && waited.not_done.is_empty());
        }
    }
}

#[test]
fn handles_done_before_end_it_without_blocking() {
    let pool = ThreadPool::new(1);
    for mode in ALL_MODES {
        let handle = pool.submit(|| 1);
        finished(&handle);
        assert!(poll_once(&mut wait([handle], mode)).is_ready());
    }
}

#[test]
fn first_exception_ends_with_a_panic() {
    for end in ends() {
        within(LONG, "panic", move || {
            let pool = ThreadPool::new(3);
            let panic_if_1 = |number| match number {
                1 => panic!("expected"),
                _ => number,
            };
            let (gates, handles) = gated(&pool, 3, panic_if_1);
            gates[2].open();
            finished(&handles[2]);
            let waiter = spawn_until_asleep(move || end(wait(handles, ReturnWhen::FirstException)));
            assert!(!waiter.is_finished(), "a job that returned is no exception");
            gates[1].open();
            let mut waited = waiter.join().unwrap();
            gates[0].open();
            assert_eq!((waited.done.len(), waited.not_done.len()), (2, 1));
            assert!(waited.done.remove(0).join().unwrap_err().is_panic());
            assert_eq!(values(waited.done), [2]);
        });
    }
}

#[test]
fn first_exception_waits_for_all_if_none_fails() {
    for end in ends() {
        within(LONG, "no exception", move || {
            let pool = ThreadPool::new(2);
            let handles = (0..20).map(|n| pool.submit(move || n));
            let waited = end(wait(handles, ReturnWhen::FirstException));
            assert!(waited.not_done.is_empty());
            assert!(values(waited.done).into_iter().eq(0..20));
        });
    }
}

#[test]
fn first_exception_ends_with_a_refused_job() {
    for refusal in [JoinError::shutdown, || JoinError::broken("no")] {
        let pool = ThreadPool::new(1);
        let blocked = block_workers(&pool, 1);
        let handles = [pool.submit(|| 0), Refuses(refusal).submit(|| 1)];
        assert!(poll_once(&mut wait(handles, ReturnWhen::FirstException)).is_ready());
        drop(blocked);
    }
}

#[test]
fn first_exception_ends_when_the_pool_breaks() {
    for end in ends() {
        within(LONG, "broken", move || {
            let gate = Gate::new();
            let opened = gate.clone();
            let broken = ThreadPool::builder()
                .max_workers(1)
                .initializer(move || {
                    opened.wait();
                    Err::<(), _>("expected")
                })
                .build()
                .unwrap();
            let pool = ThreadPool::new(1);
            let blocked = block_workers(&pool, 1);
            let handles = [pool.submit(|| 0), broken.submit(|| 1)];
            let waiter = spawn_until_asleep(move || end(wait(handles, ReturnWhen::FirstException)));
            gate.open();
            let mut waited = waiter.join().unwrap();
            assert_eq!((waited.done.len(), waited.not_done.len()), (1, 1));
            assert!(waited.done.remove(0).join().unwrap_err().is_broken());
            drop(blocked);
        });
    }
}

#[test]
fn first_exception_and_wait_results_ignore_a_cancel() {
    type Fallible = JoinHandle<Result<(), ()>>;
    let begins: [fn(Vec<Fallible>) -> Wait<Fallible>; 2] = [
        |handles| wait(handles, ReturnWhen::FirstException),
        |handles| wait_results(handles, ReturnWhen::FirstException),
    ];
    for begin in begins {
        let pool = ThreadPool::new(1);
        let blocked = block_workers(&pool, 1);
        let handles: Vec<_> = (0..3).map(|_| pool.submit(|| Ok(()))).collect();
        assert!(handles[0].cancel());
        assert!(handles[2].cancel());
        let mut waiting = begin(handles);
        assert!(poll_once(&mut waiting).is_pending());
        assert!(poll_once(&mut waiting).is_pending());
        blocked.release();
        let waited = within(LONG, "the rest", || waiting.join());
        assert_eq!((waited.done.len(), waited.not_done.len()), (3, 0));
    }
}

#[test]
fn an_err_ends_wait_results_and_not_wait() {
    for end in ends() {
        within(LONG, "an Err", move || {
            let pool = ThreadPool::new(3);
            let err_if_1 = |number| match number {
                1 => Err("expected"),
                _ => Ok(number),
            };
            let (gates, handles) = gated(&pool, 3, err_if_1);
            gates[1].open();
            gates[2].open();
            finished(&handles[1]);
            finished(&handles[2]);
            let mut plain = wait(handles, ReturnWhen::FirstException);
            for _ in 0..2 {
                assert!(poll_once(&mut plain).is_pending(), "an Err is no JoinError");
            }
            let handles = plain.into_handles();
            let waited = end(wait_results(handles, ReturnWhen::FirstException));
            gates[0].open();
            assert_eq!((waited.done.len(), waited.not_done.len()), (2, 1));
            let results = waited.done.into_iter().map(|handle| handle.join().unwrap());
            assert!(results.eq([Err("expected"), Ok(2)]));
        });
    }
}

#[test]
fn a_join_error_ends_wait_results_too() {
    let pool = ThreadPool::new(1);
    let blocked = block_workers(&pool, 1);
    let panics = InlineExecutor.submit(|| -> Result<(), ()> { panic!("expected") });
    let handles = [pool.submit(|| Ok::<(), ()>(())), panics];
    assert!(poll_once(&mut wait_results(handles, ReturnWhen::FirstException)).is_ready());
    drop(blocked);
}

#[test]
fn the_other_modes_of_wait_results_do_not_inspect_the_result() {
    let pool = ThreadPool::new(1);
    let blocked = block_workers(&pool, 1);
    let handles = || {
        let done = InlineExecutor.submit(|| Err::<(), ()>(()));
        [pool.submit(|| Ok(())), done]
    };
    assert!(poll_once(&mut wait_results(handles(), ReturnWhen::AllCompleted)).is_pending());
    let handles = [
        pool.submit(|| Ok(())),
        InlineExecutor.submit(|| Ok::<(), ()>(())),
    ];
    assert!(poll_once(&mut wait_results(handles, ReturnWhen::FirstCompleted)).is_ready());
    drop(blocked);
}

#[test]
fn a_cancelled_job_counts_as_done_at_once() {
    for mode in [ReturnWhen::AllCompleted, ReturnWhen::FirstCompleted] {
        let pool = ThreadPool::new(1);
        let blocked = block_workers(&pool, 1);
        let (count, waker) = CountingWaker::new();
        let mut waiting = wait([pool.submit(|| 1)], mode);
        // The first poll may cause a spurious wake-up; then the second has nothing to do.
        for _ in 0..2 {
            assert!(poll_with(&mut waiting, &waker).is_pending());
        }
        let before = count.count();
        assert_eq!(pool.cancel_pending(), 1);
        assert!(count.count() > before, "{mode:?}: the cancel wakes");
        let std::task::Poll::Ready(mut waited) = poll_with(&mut waiting, &waker) else {
            panic!("{mode:?}: a cancelled job is not done");
        };
        assert!(waited.done.remove(0).is_cancelled());
        drop(blocked);
    }
}

#[test]
fn a_running_job_that_was_asked_to_stop_is_not_done() {
    within(LONG, "asked to stop", || {
        let pool = ThreadPool::new(1);
        let (gates, handles) = gated(&pool, 1, same);
        eventually("it runs", || handles[0].is_running());
        assert!(!handles[0].cancel());
        let mut waiting = wait(handles, ReturnWhen::FirstCompleted);
        assert!(poll_once(&mut waiting).is_pending());
        gates[0].open();
        assert_eq!(values(waiting.join().done), [0]);
    });
}

#[test]
fn a_timeout_separates_done_from_not_done_in_every_mode() {
    for end in ends() {
        for limit in [0, 30].map(Duration::from_millis) {
            within(LONG, "timeout", move || {
                let pool = ThreadPool::new(4);
                let (gates, handles) = gated(&pool, 4, same);
                for number in [2, 1] {
                    gates[number].open();
                    finished(&handles[number]);
                }
                let mut handles = Some(handles);
                for mode in [ReturnWhen::AllCompleted, ReturnWhen::FirstException] {
                    let start = Instant::now();
                    let given = handles.take().unwrap();
                    let waited = end(wait(given, mode).timeout(limit));
                    assert!(start.elapsed() >= limit, "{mode:?}: it ends too early");
                    assert!(waited.done.iter().all(JoinHandle::is_finished));
                    assert_eq!((waited.done.len(), waited.not_done.len()), (2, 2));
                    // Back in their order: 0, 1, 2, 3.
                    let [mut done, mut not_done] =
                        [waited.done, waited.not_done].map(Vec::into_iter);
                    let (one, two) = (done.next().unwrap(), done.next().unwrap());
                    let (zero, three) = (not_done.next().unwrap(), not_done.next().unwrap());
                    handles = Some(vec![zero, one, two, three]);
                }
                gates.iter().for_each(Gate::open);
                assert_eq!(values(handles.unwrap()), [0, 1, 2, 3]);
            });
        }
    }
}

#[test]
fn a_timeout_that_is_not_reached_changes_nothing() {
    for end in ends() {
        for mode in ALL_MODES {
            for limit in [LONG, Duration::MAX] {
                within(LONG, "not reached", move || {
                    let pool = ThreadPool::new(1);
                    let (gates, handles) = gated(&pool, 1, same);
                    let mut waiting = wait(handles, mode).timeout(limit);
                    assert!(poll_once(&mut waiting).is_pending());
                    gates[0].open();
                    assert_eq!(values(end(waiting).done), [0], "{mode:?}");
                });
            }
        }
    }
}

#[test]
fn the_timeout_counts_from_the_call_of_timeout() {
    for mode in ALL_MODES {
        let pool = ThreadPool::new(1);
        let blocked = block_workers(&pool, 1);
        let limit = Duration::from_millis(20);
        let mut waiting = wait([pool.submit(|| ())], mode).timeout(limit);
        thread::sleep(2 * limit);
        // This is the very first poll, and the timeout has already elapsed.
        assert!(poll_once(&mut waiting).is_ready(), "{mode:?}");
        drop(blocked);
    }
}

#[test]
fn into_handles_returns_all_in_the_order_given() {
    for mode in ALL_MODES {
        within(LONG, "into_handles", move || {
            let pool = ThreadPool::new(4);
            let (gates, handles) = gated(&pool, 4, same);
            let untouched = wait(handles, mode);
            let handles = untouched.into_handles();
            gates[2].open();
            finished(&handles[2]);
            if mode == ReturnWhen::FirstCompleted {
                gates.iter().for_each(Gate::open);
                assert_eq!(values(handles), [0, 1, 2, 3]);
                return;
            }
            let mut waiting = wait(handles, mode).timeout(LONG);
            assert!(poll_once(&mut waiting).is_pending());
            let handles = waiting.into_handles();
            gates.iter().for_each(Gate::open);
            assert_eq!(values(handles), [0, 1, 2, 3], "{mode:?}");
        });
    }
}

#[test]
fn results_stay_in_the_handles_for_another_wait_and_a_join() {
    for end in ends() {
        within(LONG, "again", move || {
            let pool = ThreadPool::new(2);
            let mut handles: Vec<Handle> = (0..3).map(|n| pool.submit(move || n)).collect();
            for mode in [ReturnWhen::AllCompleted, ReturnWhen::FirstCompleted] {
                handles = end(wait(handles, mode)).done;
                assert_eq!(handles.len(), 3);
            }
            assert_eq!(values(handles), [0, 1, 2]);
        });
    }
}

#[test]
fn a_handle_whose_result_was_taken_counts_as_done() {
    let pool = ThreadPool::new(1);
    for mode in ALL_MODES {
        let mut handle = pool.submit(|| 3);
        finished(&handle);
        assert_eq!(handle.try_join().unwrap().unwrap(), 3);
        let mut waiting = wait([handle], mode).timeout(LONG);
        let std::task::Poll::Ready(waited) = poll_once(&mut waiting) else {
            panic!("{mode:?}: it is not done");
        };
        assert_eq!(waited.done.len(), 1);
        let waited = wait(waited.done, mode).join();
        assert_eq!(waited.done.len(), 1);
        let tagged = waited.done.into_iter().map(|handle| handle.tag("three"));
        assert_eq!(wait(tagged, mode).join().done.len(), 1);
    }
}

#[test]
fn a_failure_that_was_taken_still_is_a_failure() {
    let pool = ThreadPool::new(1);
    let blocked = block_workers(&pool, 1);
    let mut failed = InlineExecutor.submit(|| panic!("expected"));
    assert!(failed.try_join().unwrap().is_err());
    let handles = [failed, pool.submit(|| ())];
    assert!(poll_once(&mut wait(handles, ReturnWhen::FirstException)).is_ready());
    drop(blocked);
}

#[test]
fn tagged_handles_are_returned_with_their_keys() {
    for end in ends() {
        within(LONG, "tagged", move || {
            let pool = ThreadPool::new(2);
            let handles = ["a", "bc"].map(|word| pool.submit(move || word.len()).tag(word));
            let waited: Waited<Tagged<_, Handle>> = end(wait(handles, ReturnWhen::AllCompleted));
            for (tagged, word) in waited.done.into_iter().zip(["a", "bc"]) {
                let (key, handle) = tagged.into_inner();
                assert_eq!((key, handle.join().unwrap()), (word, word.len()));
            }
        });
    }
}

#[test]
fn tagged_and_cancel_on_drop_handles_fail_as_plain_ones_do() {
    let err = || InlineExecutor.submit(|| Err::<(), ()>(()));
    let panics = || InlineExecutor.submit(|| -> Result<(), ()> { panic!("expected") });
    let pool = ThreadPool::new(1);
    let blocked = block_workers(&pool, 1);
    let open = || pool.submit(|| Ok::<(), ()>(()));
    let mode = ReturnWhen::FirstException;
    assert!(poll_once(&mut wait([open().tag(1), panics().tag(2)], mode)).is_ready());
    assert!(poll_once(&mut wait_results([open().tag(1), err().tag(2)], mode)).is_ready());
    let handles = [open(), panics()].map(JoinHandle::cancel_on_drop);
    assert!(poll_once(&mut wait(handles, mode)).is_ready());
    let handles = [open(), err()].map(JoinHandle::cancel_on_drop);
    assert!(poll_once(&mut wait_results(handles, mode)).is_ready());
    let handles = [open(), err()].map(|handle| handle.cancel_on_drop().tag(()));
    assert!(poll_once(&mut wait_results(handles, mode)).is_ready());
    drop(blocked);
}

#[test]
fn borrowed_handles_stay_with_the_caller() {
    for mode in ALL_MODES {
        within(LONG, "borrowed", move || {
            let pool = ThreadPool::new(2);
            let mut handles: Vec<Handle> = (0..3).map(|n| pool.submit(move || n)).collect();
            let waited = wait(&mut handles, mode).join();
            assert!(!waited.done.is_empty());
            let waited = block_on(wait(handles.iter_mut(), ReturnWhen::AllCompleted));
            assert_eq!((waited.done.len(), waited.not_done.len()), (3, 0));
            for (number, handle) in waited.done.into_iter().enumerate() {
                assert_eq!(handle.try_join().unwrap().unwrap(), number);
            }

            let mut tagged = pool.submit(|| 1).tag("one");
            let mut on_drop = pool.submit(|| 2).cancel_on_drop();
            let mut both = pool
                .submit(|| Err::<(), _>(3))
                .cancel_on_drop()
                .tag("three");
            assert_eq!(*wait([&mut tagged], mode).join().done[0].key(), "one");
            assert_eq!(wait([&mut on_drop], mode).join().done.len(), 1);
            assert_eq!(wait_results([&mut both], mode).join().done.len(), 1);
            assert_eq!(tagged.join().1.unwrap(), 1);
            assert_eq!(on_drop.join().unwrap(), 2);
            assert_eq!(both.join().1.unwrap(), Err(3));
        });
    }
}

#[test]
fn dropping_a_wait_on_borrowed_handles_neither_cancels_nor_detaches() {
    for mode in ALL_MODES {
        let held = Held::new();
        let mut handle = held.submit(|| 1).cancel_on_drop();
        let mut waiting = wait([&mut handle], mode);
        assert!(poll_once(&mut waiting).is_pending());
        drop(waiting);
        held.run_all();
        assert_eq!(handle.join().unwrap(), 1, "{mode:?}");
    }
}

/// How a wait on borrowed handles ends before their jobs do, having been polled with `waker`.
type GiveUp = fn(ReturnWhen, &mut [Handle], &std::task::Waker);

const GIVE_UP: [GiveUp; 3] = [
    |mode, handles, waker| {
        let mut waiting = wait(handles, mode).timeout(Duration::ZERO);
        let std::task::Poll::Ready(waited) = poll_with(&mut waiting, waker) else {
            panic!("{mode:?}: the timeout has elapsed");
        };
        assert!(waited.done.is_empty());
    },
    |mode, handles, waker| {
        let mut waiting = wait(handles, mode).timeout(LONG);
        assert!(poll_with(&mut waiting, waker).is_pending());
        drop(waiting);
    },
    |mode, handles, waker| {
        let mut waiting = wait(handles, mode);
        assert!(poll_with(&mut waiting, waker).is_pending());
        drop(waiting.into_handles());
    },
];

#[test]
fn after_the_wait_the_end_of_a_job_wakes_nothing_of_it() {
    for give_up in GIVE_UP {
        for mode in ALL_MODES {
            let held = Held::new();
            let mut handles = [1, 2].map(|n| held.submit(move || n));
            let (count, waker) = CountingWaker::new();
            give_up(mode, &mut handles, &waker);
            let before = count.count();
            // The first handle is awaited again, the second is not.
            let (later, later_waker) = CountingWaker::new();
            assert!(poll_with(&mut handles[0], &later_waker).is_pending());
            held.run_all();
            assert_eq!(later.count(), 1, "{mode:?}: the later poll is woken");
            assert_eq!(count.count(), before, "{mode:?}: the wait has ended");

            let held = Held::new();
            let mut handles = [held.submit(|| 1)];
            give_up(mode, &mut handles, &waker);
            assert_eq!(
                std::sync::Arc::strong_count(&count),
                2,
                "{mode:?}: a handle keeps the waker"
            );
            let before = count.count();
            held.run_all();
            assert_eq!(count.count(), before, "{mode:?}: the wait has ended");
            assert_eq!(handles.map(|handle| handle.join().unwrap()), [1]);
        }
    }
}

#[test]
fn after_a_blocking_wait_the_end_of_a_job_does_not_unpark_its_thread() {
    const SHORT: Duration = Duration::from_millis(50);
    for mode in ALL_MODES {
        within(LONG, "no unpark", move || {
            let held = Held::new();
            let mut handle = held.submit(|| 1);
            let waited = wait([&mut handle], mode).timeout(SHORT).join();
            assert_eq!(waited.not_done.len(), 1);
            // Whatever has unparked this thread so far is consumed here.
            thread::park_timeout(Duration::ZERO);
            held.run_all();
            let start = Instant::now();
            thread::park_timeout(SHORT);
            assert!(start.elapsed() >= SHORT, "{mode:?}: it was unparked");
            assert_eq!(handle.join().unwrap(), 1);
        });
    }
}

#[test]
fn a_handle_that_the_wait_has_not_polled_keeps_its_older_waker() {
    // A wait for all polls the first handle only; a wait that is not polled polls none.
    for (mode, polled) in [
        (ReturnWhen::AllCompleted, true),
        (ReturnWhen::AllCompleted, false),
        (ReturnWhen::FirstCompleted, false),
    ] {
        let held = Held::new();
        let mut handles = [1, 2].map(|n| held.submit(move || n));
        let (older, older_waker) = CountingWaker::new();
        let first_kept = usize::from(polled);
        for handle in &mut handles[first_kept..] {
            assert!(poll_with(handle, &older_waker).is_pending());
        }
        let (count, waker) = CountingWaker::new();
        let mut waiting = wait(&mut handles, mode);
        if polled {
            assert!(poll_with(&mut waiting, &waker).is_pending());
        }
        drop(waiting);
        held.run_all();
        assert_eq!(
            (older.count(), count.count()),
            (2 - first_kept, 0),
            "{mode:?}"
        );
        assert_eq!(handles.map(|handle| handle.join().unwrap()), [1, 2]);
    }
}

#[test]
fn a_worker_waits_again_for_a_borrowed_handle() {
    // The second wait makes the queued job a candidate anew, so the only worker runs it soon.
    within(LONG, "again", || {
        let pool = std::sync::Arc::new(ThreadPool::new(1));
        let inner = std::sync::Arc::clone(&pool);
        let outer = pool.submit(move || {
            let mut handle = inner.submit(|| 1);
            let given_up = block_on(async {
                let first = wait([&mut handle], ReturnWhen::FirstCompleted);
                futures::future::select(first, std::future::ready(())).await
            });
            drop(given_up);
            let waited = block_on(wait([&mut handle], ReturnWhen::FirstCompleted));
            assert_eq!(waited.done.len(), 1);
            handle.join().unwrap()
        });
        assert_eq!(outer.join().unwrap(), 1);
    });
}

#[test]
fn dropping_it_detaches_and_cancels_cancel_on_drop_handles() {
    for mode in ALL_MODES {
        within(LONG, "drop", move || {
            let pool = ThreadPool::new(1);
            let blocked = block_workers(&pool, 1);
            let (ran, runs) = mpsc::channel();
            let job = |number: u32| {
                let ran = ran.clone();
                pool.submit(move || ran.send(number).unwrap())
            };
            drop(wait([job(1)], mode));
            let mut polled = wait([job(2)], mode).timeout(LONG);
            assert!(poll_once(&mut polled).is_pending());
            drop(polled);
            drop(wait([job(3).cancel_on_drop()], mode));
            assert_eq!(pool.metrics().cancelled, 1);
            drop((blocked, pool, ran));
            assert!(runs.iter().eq([1, 2]), "{mode:?}");
        });
    }
}

#[test]
fn handles_of_several_pools_can_be_mixed() {
    for end in ends() {
        for mode in [ReturnWhen::AllCompleted, ReturnWhen::FirstException] {
            within(LONG, "pools", move || {
                let (one, two) = (ThreadPool::new(1), ThreadPool::new(1));
                let handles = [
                    one.submit(|| 1),
                    InlineExecutor.submit(|| 2),
                    two.submit(|| 3),
                ];
                assert_eq!(values(end(wait(handles, mode)).done), [1, 2, 3]);
            });
        }
    }
}

/// Covers all modes, and a timeout.
async fn story() {
    let pool = ThreadPool::new(2);
    for mode in ALL_MODES {
        let handles = (0..50).map(|n| pool.submit(move || n));
        let waited = wait(handles, mode).await;
        assert!(!waited.done.is_empty());
        let waited = wait(waited.not_done, ReturnWhen::AllCompleted).await;
        assert!(waited.not_done.is_empty());

        let gate = Gate::new();
        let opened = gate.clone();
        let slow = pool.submit(move || opened.wait());
        let waited = wait([slow], mode).timeout(Duration::from_millis(10)).await;
        assert_eq!((waited.done.len(), waited.not_done.len()), (0, 1));
        gate.open();
    }
}

#[test]
fn it_works_in_every_runtime_and_in_none() {
    within(LONG, "tokio", || {
        // The timer of the runtime is disabled.
        let one = tokio::runtime::Builder::new_current_thread();
        let mut two = tokio::runtime::Builder::new_multi_thread();
        two.worker_threads(2);
        for mut builder in [one, two] {
            let runtime = builder.build().unwrap();
            runtime.block_on(async { tokio::spawn(story()).await.unwrap() });
        }
    });
    within(LONG, "smol", || smol::block_on(smol::spawn(story())));
    within(LONG, "futures", || futures::executor::block_on(story()));
    within(LONG, "pollster", || pollster::block_on(story()));
    within(LONG, "its own block_on", || block_on(story()));
}

#[test]
fn it_reports_that_it_has_ended() {
    let handle = InlineExecutor.submit(|| 1);
    let mut waiting = wait([handle], ReturnWhen::AllCompleted);
    assert!(!waiting.is_terminated());
    assert!(poll_once(&mut waiting).is_ready());
    assert!(waiting.is_terminated());
}

#[test]
fn it_is_send_and_unpin() {
    fn check<T: Send + Unpin>() {}
    fn check_unpin<T: Unpin>() {}
    check::<Wait<Handle>>();
    check::<Wait<CancelOnDrop<usize>>>();
    check::<Wait<&mut Handle>>();
    check_unpin::<Wait<Tagged<std::marker::PhantomPinned, Handle>>>();
}
