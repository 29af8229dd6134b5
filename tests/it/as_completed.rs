//! `as_completed`: outputs in completion order, as a stream and as a blocking iterator.

use std::future::{Future, poll_fn, ready};
use std::marker::PhantomPinned;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc;
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{
    CountingWaker, Gate, Held, LONG, block_workers, eventually, poll_once, poll_with, within,
};
use futurepool::{
    AsCompleted, Executor, ExecutorExt, InlineExecutor, Job, JoinError, JoinHandle, ThreadPool,
    TimedAsCompleted, TimeoutError, as_completed, block_on,
};
use futures::StreamExt;
use futures::channel::oneshot;
use futures::future::join;
use futures::stream::{FusedStream, Stream};

type Handles = AsCompleted<JoinHandle<usize>>;
type TimedHandles = TimedAsCompleted<JoinHandle<usize>>;
type Output = Option<Result<usize, JoinError>>;
type TimedOutput = Option<Result<Result<usize, JoinError>, TimeoutError>>;

/// The blocking and the async way to get the next output.
const NEXT: [fn(&mut Handles) -> Output; 2] =
    [Handles::wait_next, |stream| block_on(stream.next())];
const NEXT_TIMED: [fn(&mut TimedHandles) -> TimedOutput; 2] =
    [TimedAsCompleted::wait_next, |stream| {
        block_on(stream.next())
    }];

/// Submits `n` jobs; each waits for its own gate and then returns its number. The pool needs `n`
/// free workers.
fn gated(pool: &ThreadPool, n: usize) -> (Vec<Gate>, Vec<JoinHandle<usize>>) {
    (0..n)
        .map(|number| {
            let gate = Gate::new();
            let opened = gate.clone();
            let wait = move || {
                opened.wait();
                number
            };
            (gate, pool.submit(wait))
        })
        .unzip()
}

fn finished<T: Send + 'static>(handle: &JoinHandle<T>) {
    eventually("the job is done", || handle.is_finished());
}

#[test]
fn outputs_are_yielded_in_completion_order() {
    for next in NEXT {
        within(LONG, "outputs in order", move || {
            let pool = ThreadPool::new(3);
            let (gates, handles) = gated(&pool, 3);
            let mut outputs = as_completed(handles);
            for number in [2, 0, 1] {
                gates[number].open();
                assert_eq!(next(&mut outputs).unwrap().unwrap(), number);
            }
            assert!(next(&mut outputs).is_none());
        });
    }
}

#[test]
fn a_for_loop_takes_all() {
    within(LONG, "for loop", || {
        let pool = ThreadPool::new(2);
        let mut sum = 0;
        for output in as_completed((0..100).map(|n| pool.submit(move || n))) {
            sum += output.unwrap();
        }
        assert_eq!(sum, 99 * 50);
    });
}

#[test]
fn an_empty_set_ends_at_once_and_stays_ended() {
    for next in NEXT {
        let mut outputs: Handles = as_completed([]);
        assert!(outputs.is_terminated());
        assert!(next(&mut outputs).is_none());
        assert!(next(&mut outputs).is_none());
    }
    let mut iterator = as_completed(Vec::<JoinHandle<()>>::new()).into_iter();
    assert!(iterator.next().is_none());
    assert!(iterator.next().is_none());
}

#[test]
fn the_size_hint_is_always_exact() {
    for next in NEXT {
        within(LONG, "size hint", move || {
            let pool = ThreadPool::new(2);
            let mut outputs = as_completed((0..5).map(|n| pool.submit(move || n)));
            for left in (0..5).rev() {
                assert!(next(&mut outputs).is_some());
                assert_eq!(outputs.size_hint(), (left, Some(left)));
            }
            outputs.push(pool.submit(|| 7));
            assert_eq!(outputs.size_hint(), (1, Some(1)));
            // A finished job does not change the hint; only yielding its output does.
            finished(&pool.submit(|| ()));
            assert_eq!(outputs.size_hint(), (1, Some(1)));
        });
    }
}

#[test]
fn the_blocking_iterator_knows_its_length() {
    within(LONG, "length", || {
        let pool = ThreadPool::new(2);
        let mut iterator = as_completed((0..3).map(|n| pool.submit(move || n))).into_iter();
        for left in [2, 1, 0] {
            iterator.next().unwrap().unwrap();
            assert_eq!(iterator.len(), left);
        }
    });
}

#[test]
fn a_future_can_be_pushed_during_the_iteration_and_after_its_end() {
    for next in NEXT {
        within(LONG, "push", move || {
            let pool = ThreadPool::new(2);
            let (gates, handles) = gated(&pool, 1);
            let mut outputs = as_completed(handles);
            outputs.push(pool.submit(|| 10));
            assert_eq!(next(&mut outputs).unwrap().unwrap(), 10);
            gates[0].open();
            assert_eq!(next(&mut outputs).unwrap().unwrap(), 0);
            assert!(next(&mut outputs).is_none());
            outputs.push(pool.submit(|| 11));
            assert_eq!(next(&mut outputs).unwrap().unwrap(), 11);
            assert!(next(&mut outputs).is_none());
        });
    }
}

#[test]
fn a_blocking_loop_can_push_follow_up_jobs() {
    within(LONG, "crawl", || {
        let pool = ThreadPool::new(2);
        let visit = |n: u32| pool.submit(move || n);
        let mut outputs = as_completed([visit(1)]);
        let mut seen = Vec::new();
        while let Some(output) = outputs.wait_next() {
            let n = output.unwrap();
            seen.push(n);
            for child in [2 * n, 2 * n + 1] {
                if child < 64 {
                    outputs.push(visit(child));
                }
            }
        }
        seen.sort_unstable();
        assert!(seen.into_iter().eq(1..64));
    });
}

#[test]
fn a_push_between_two_polls_is_polled_without_a_wake_up() {
    let mut outputs = as_completed([]);
    outputs.push(ready(1));
    assert_eq!(poll_once(&mut outputs.next()), Poll::Ready(Some(1)));
    outputs.push(ready(2));
    assert_eq!(poll_once(&mut outputs.next()), Poll::Ready(Some(2)));
}

#[test]
fn one_wake_up_tells_of_all_jobs_that_end_before_the_next_poll() {
    let held = Held::new();
    let mut outputs = as_completed((0..3).map(|n| held.submit(move || n)));
    let (count, waker) = CountingWaker::new();
    for round in 0..2 {
        assert!(poll_with(&mut outputs.next(), &waker).is_pending());
        assert_eq!(count.count(), round);
        held.run_all();
        assert_eq!(count.count(), round + 1);
        for n in 0..3 {
            let output = poll_with(&mut outputs.next(), &waker);
            assert!(matches!(output, Poll::Ready(Some(Ok(number))) if number == n));
        }
        outputs.extend((0..3).map(|n| held.submit(move || n)));
    }
}

#[test]
fn a_pushed_future_comes_after_those_that_were_complete_before() {
    let held = Held::new();
    let mut outputs = as_completed([held.submit(|| 1), held.submit(|| 2)]);
    assert!(poll_once(&mut outputs.next()).is_pending());
    held.run_all();
    outputs.push(InlineExecutor.submit(|| 3));
    assert!(outputs.into_iter().map(Result::unwrap).eq([1, 2, 3]));
}

#[test]
fn a_handle_that_leaves_the_set_wakes_the_task_that_awaits_it_then() {
    let held = Held::new();
    let mut outputs = as_completed([held.submit(|| 1), held.submit(|| 2)]);
    let (before, waker) = CountingWaker::new();
    assert!(poll_with(&mut outputs.next(), &waker).is_pending());
    let mut pending = outputs.into_pending();
    drop(waker);
    assert_eq!(Arc::strong_count(&before), 1, "the set's waker is kept");
    let (after, waker) = CountingWaker::new();
    assert!(poll_with(&mut pending[1], &waker).is_pending());
    held.run_all();
    assert_eq!((before.count(), after.count()), (0, 1));
    assert!(matches!(poll_once(&mut pending[1]), Poll::Ready(Ok(2))));
    // It can be in a set again.
    let mut outputs = as_completed(pending.drain(..1));
    assert!(matches!(
        poll_once(&mut outputs.next()),
        Poll::Ready(Some(Ok(1)))
    ));
}

#[test]
fn a_future_that_awaits_one_thing_after_another_is_polled_for_each() {
    let held = Held::new();
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..2).map(|_| oneshot::channel()).unzip();
    let steps = receivers.into_iter().enumerate().map(|(n, receiver)| {
        let (first, second) = (held.submit(move || n), held.submit(|| 10));
        async move {
            // Both handles are polled, in whichever order they end.
            let (first, second) = join(first, second).await;
            let third: usize = receiver.await.unwrap();
            first.unwrap() + second.unwrap() + third
        }
    });
    let mut outputs = as_completed(steps);
    let (count, waker) = CountingWaker::new();
    let mut wakes = 0;
    let mut poll = |outputs: &mut AsCompleted<_>, woken: bool| {
        assert_eq!(count.count() > wakes, woken);
        wakes = count.count();
        poll_with(&mut outputs.next(), &waker)
    };
    assert!(poll(&mut outputs, false).is_pending());
    held.run_all();
    assert!(poll(&mut outputs, true).is_pending());
    for (n, sender) in senders.into_iter().enumerate().rev() {
        sender.send(100).unwrap();
        assert_eq!(poll(&mut outputs, true), Poll::Ready(Some(n + 110)));
        let rest = poll(&mut outputs, false);
        assert_eq!(
            rest,
            if n == 0 {
                Poll::Ready(None)
            } else {
                Poll::Pending
            }
        );
    }
}

#[test]
fn sets_inside_a_set_and_two_sets_of_one_task_yield_everything() {
    within(LONG, "sets inside a set", || {
        let pool = Arc::new(ThreadPool::new(2));
        let sum = |n: usize| {
            let pool = Arc::clone(&pool);
            async move {
                let squares = as_completed((0..n).map(|n| pool.submit(move || n * n)));
                squares
                    .map(Result::unwrap)
                    .fold(0, async |a, b| a + b)
                    .await
            }
        };
        let sums = || as_completed((0..20).map(sum)).fold(0, async |a, b| a + b);
        let expected: usize = (0..20).flat_map(|n| 0..n).map(|n| n * n).sum();
        // Also in the only other worker of the pool, which may have to run the jobs itself.
        assert_eq!(block_on(join(sums(), sums())), (expected, expected));
        let one = ThreadPool::new(1);
        let inner = Arc::new(one);
        let outer = Arc::clone(&inner);
        let total = outer.submit(move || {
            let jobs = |from: u32| {
                let pool = &inner;
                as_completed((from..from + 10).map(move |n| pool.submit(move || n)))
            };
            let sum = |set: AsCompleted<JoinHandle<u32>>| {
                set.map(Result::unwrap).fold(0, async |a, b| a + b)
            };
            let (a, b) = block_on(join(sum(jobs(0)), sum(jobs(10))));
            a + b
        });
        assert_eq!(total.join().unwrap(), 190);
    });
}

#[test]
fn into_pending_returns_the_unyielded_futures_in_insertion_order() {
    for next in NEXT {
        within(LONG, "into_pending", move || {
            let pool = ThreadPool::new(6);
            let (gates, mut handles) = gated(&pool, 7);
            let queued = handles.pop().unwrap();
            let mut outputs = as_completed(handles);
            outputs.push(queued);
            gates[3].open();
            assert_eq!(next(&mut outputs).unwrap().unwrap(), 3);
            gates[1].open();
            // That job is finished, or will be, but its output has not been asked for.
            gates.iter().for_each(Gate::open);
            let pending = outputs.into_pending();
            let outputs = pending.into_iter().map(|handle| handle.join().unwrap());
            assert!(outputs.eq([0, 1, 2, 4, 5, 6]));
        });
    }
}

#[test]
fn after_a_timeout_into_pending_returns_the_rest_in_order_done_or_not() {
    for next in NEXT_TIMED {
        within(LONG, "into_pending after a timeout", move || {
            let pool = ThreadPool::new(5);
            let (gates, handles) = gated(&pool, 5);
            gates[2].open();
            finished(&handles[2]);
            let mut outputs = as_completed(handles).timeout(Duration::ZERO);
            assert_eq!(next(&mut outputs).unwrap().unwrap().unwrap(), 2);
            let error = next(&mut outputs).unwrap().unwrap_err();
            assert_eq!((error.pending(), error.total()), (4, 5));
            gates[4].open();
            gates[1].open();
            let pending = outputs.into_pending();
            finished(&pending[1]);
            finished(&pending[3]);
            gates.iter().for_each(Gate::open);
            let outputs = pending.into_iter().map(|handle| handle.join().unwrap());
            assert!(outputs.eq([0, 1, 3, 4]));
        });
    }
}

#[test]
fn into_pending_before_the_error_includes_done_but_unyielded_futures() {
    let pool = ThreadPool::new(3);
    let (gates, handles) = gated(&pool, 3);
    for gate in &gates[..2] {
        gate.open();
    }
    finished(&handles[0]);
    finished(&handles[1]);
    let mut outputs = as_completed(handles).timeout(Duration::ZERO);
    let first = outputs.wait_next().unwrap().unwrap().unwrap();
    gates[2].open();
    let rest = outputs.into_pending().into_iter().map(|one| one.join());
    assert!(rest.map(Result::unwrap).eq((0..3).filter(|n| *n != first)));
}

#[test]
fn a_timeout_yields_done_outputs_then_one_error_then_the_end() {
    for limit in [0, 50].map(Duration::from_millis) {
        for next in NEXT_TIMED {
            within(LONG, "timed", move || {
                let pool = ThreadPool::new(4);
                let (gates, handles) = gated(&pool, 4);
                gates[1].open();
                gates[3].open();
                finished(&handles[1]);
                finished(&handles[3]);
                let start = Instant::now();
                let mut outputs = as_completed(handles).timeout(limit);
                let mut done = [0; 2].map(|_| next(&mut outputs).unwrap().unwrap().unwrap());
                done.sort_unstable();
                assert_eq!(done, [1, 3]);
                let error = next(&mut outputs).unwrap().unwrap_err();
                assert!(start.elapsed() >= limit, "the error comes too early");
                assert_eq!((error.pending(), error.total()), (2, 4));
                assert_eq!(error.to_string(), "2 (of 4) futures unfinished");
                for gate in gates {
                    gate.open();
                }
                assert!(next(&mut outputs).is_none());
                pool.shutdown().join();
                assert!(next(&mut outputs).is_none());
                assert!(outputs.is_terminated());
            });
        }
    }
}

#[test]
fn the_timed_iterator_ends_after_its_error() {
    within(LONG, "timed iterator", || {
        let pool = ThreadPool::new(1);
        let (gates, handles) = gated(&pool, 1);
        let outputs = as_completed(handles).timeout(Duration::from_millis(10));
        let outputs: Vec<_> = outputs.into_iter().take(3).collect();
        assert_eq!(outputs.len(), 1);
        assert_eq!(outputs[0].as_ref().unwrap_err().pending(), 1);
        gates[0].open();
    });
}

#[test]
fn a_timed_form_whose_futures_are_all_done_ends_without_an_error() {
    for next in NEXT_TIMED {
        within(LONG, "no error", move || {
            let pool = ThreadPool::new(1);
            let handle = pool.submit(|| 5);
            finished(&handle);
            let mut outputs = as_completed([handle]).timeout(Duration::ZERO);
            assert_eq!(next(&mut outputs).unwrap().unwrap().unwrap(), 5);
            assert!(next(&mut outputs).is_none());
            let mut nothing = as_completed([]).timeout(Duration::ZERO);
            assert!(next(&mut nothing).is_none());
        });
    }
}

#[test]
fn the_timeout_counts_from_the_call_of_timeout() {
    let pool = ThreadPool::new(1);
    let blocked = block_workers(&pool, 1);
    let limit = Duration::from_millis(20);
    let mut outputs = as_completed([pool.submit(|| ())]).timeout(limit);
    thread::sleep(2 * limit);
    // This is the very first poll, and the timeout has already elapsed.
    let Poll::Ready(Some(Err(error))) = poll_once(&mut outputs.next()) else {
        panic!("the timeout counts from the first poll");
    };
    assert_eq!((error.pending(), error.total()), (1, 1));
    drop(blocked);
}

#[test]
fn a_timeout_too_long_for_the_clock_is_no_timeout() {
    for next in NEXT_TIMED {
        within(LONG, "no timeout", move || {
            let pool = ThreadPool::new(1);
            let (gates, handles) = gated(&pool, 1);
            let mut outputs = as_completed(handles).timeout(Duration::MAX);
            assert!(poll_once(&mut outputs.next()).is_pending());
            gates[0].open();
            assert_eq!(next(&mut outputs).unwrap().unwrap().unwrap(), 0);
            assert!(next(&mut outputs).is_none());
        });
    }
}

type Boxed = Pin<Box<dyn Future<Output = usize> + Send>>;

type NextBoxed = fn(&mut TimedAsCompleted<Boxed>) -> Option<Result<usize, TimeoutError>>;

const NEXT_BOXED: [NextBoxed; 2] = [TimedAsCompleted::wait_next, |stream| {
    block_on(stream.next())
}];

/// Returns a future that never completes and wakes itself at each poll, as a future does that
/// yields.
fn busy() -> Boxed {
    let start = Instant::now();
    Box::pin(poll_fn(move |context| {
        assert!(
            start.elapsed() < LONG / 6,
            "it is polled long after the timeout"
        );
        context.waker().wake_by_ref();
        Poll::Pending
    }))
}

#[test]
fn a_timeout_ends_the_wait_for_a_future_that_always_wakes_itself() {
    for next in NEXT_BOXED {
        within(LONG, "busy future", move || {
            let mut outputs = as_completed([busy()]).timeout(Duration::from_millis(20));
            assert_eq!(next(&mut outputs).unwrap().unwrap_err().pending(), 1);
            assert!(next(&mut outputs).is_none());
        });
    }
}

/// Puts completed futures behind so many busy ones that one poll does not reach all of them.
fn done_behind_busy_ones(next: NextBoxed) {
    let pool = ThreadPool::new(1);
    let handle = pool.submit(|| 1);
    finished(&handle);
    let mut futures: Vec<Boxed> = (0..9).map(|_| busy()).collect();
    futures.push(Box::pin(async { handle.await.unwrap() }));
    let mut outputs = as_completed(futures).timeout(Duration::ZERO);
    assert_eq!(next(&mut outputs).unwrap().ok(), Some(1));
    assert_eq!(next(&mut outputs).unwrap().unwrap_err().pending(), 9);
    assert!(next(&mut outputs).is_none());
}

#[test]
fn done_outputs_precede_the_error_despite_busy_futures_blocking() {
    within(LONG, "busy neighbours", || {
        done_behind_busy_ones(NEXT_BOXED[0])
    });
}

#[test]
fn done_outputs_precede_the_error_despite_busy_futures_async() {
    within(LONG, "busy neighbours", || {
        done_behind_busy_ones(NEXT_BOXED[1])
    });
}

#[test]
fn the_timed_form_has_push_and_counts_pushed_futures() {
    for next in NEXT_TIMED {
        within(LONG, "timed push", move || {
            let pool = ThreadPool::new(2);
            let (gates, handles) = gated(&pool, 1);
            let limit = Duration::from_millis(300);
            let mut outputs = as_completed(handles).timeout(limit);
            let pushed = pool.submit(|| 8);
            finished(&pushed);
            outputs.push(pushed);
            assert_eq!(next(&mut outputs).unwrap().unwrap().unwrap(), 8);
            let error = next(&mut outputs).unwrap().unwrap_err();
            assert_eq!((error.pending(), error.total()), (1, 2));
            // After the end, a pushed future is kept but not polled.
            outputs.push(pool.submit(|| 9));
            assert!(next(&mut outputs).is_none());
            gates[0].open();
            let pending = outputs.into_pending().into_iter();
            assert!(pending.map(|one| one.join().unwrap()).eq([0, 9]));
        });
    }
}

#[test]
fn the_timeout_wakes_the_last_waker() {
    let pool = ThreadPool::new(1);
    let blocked = block_workers(&pool, 1);
    let mut outputs = as_completed([pool.submit(|| ())]).timeout(Duration::from_millis(500));
    let (first_count, first) = CountingWaker::new();
    let (last_count, last) = CountingWaker::new();
    assert!(poll_with(&mut outputs.next(), &first).is_pending());
    assert!(poll_with(&mut outputs.next(), &last).is_pending());
    // One spurious wake-up of a poll is allowed.
    let before = [first_count.count(), last_count.count()];
    eventually("the timeout wakes", || last_count.count() > before[1]);
    assert_eq!(first_count.count(), before[0]);
    assert!(poll_with(&mut outputs.next(), &last).is_ready());
    drop(blocked);
}

#[test]
fn a_timed_stream_that_is_dropped_keeps_no_waker() {
    let pool = ThreadPool::new(1);
    let blocked = block_workers(&pool, 1);
    let (count, waker) = CountingWaker::new();
    let mut outputs = as_completed([pool.submit(|| ())]).timeout(LONG);
    assert!(poll_with(&mut outputs.next(), &waker).is_pending());
    drop((outputs, waker));
    assert_eq!(Arc::strong_count(&count), 1);
    drop(blocked);
}

/// Reads outputs of two pools, with and without a timeout.
async fn story() {
    let (one, two) = (ThreadPool::new(1), ThreadPool::new(2));
    let pools = [&one, &two];
    let handles = (0..200).map(|n| pools[n % 2].submit(move || n));
    let mut outputs = as_completed(handles);
    let mut sum = 0;
    while let Some(output) = outputs.next().await {
        sum += output.unwrap();
    }
    assert_eq!(sum, 199 * 100);

    let (go, wait) = mpsc::channel::<()>();
    let slow = one.submit(move || assert!(wait.recv().is_err()));
    let late = one.submit(|| ());
    let mut outputs = as_completed([slow, late]).timeout(Duration::from_millis(20));
    let error = outputs.next().await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "2 (of 2) futures unfinished");
    assert!(outputs.next().await.is_none());
    drop(go);
    for handle in outputs.into_pending() {
        handle.await.unwrap();
    }
}

#[test]
fn it_works_in_every_runtime_and_in_none() {
    within(LONG, "tokio, one thread", || {
        let runtime = tokio::runtime::Builder::new_current_thread();
        with_tokio(runtime);
    });
    within(LONG, "tokio, several threads", || {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        runtime.worker_threads(2);
        with_tokio(runtime);
    });
    within(LONG, "smol", || smol::block_on(smol::spawn(story())));
    within(LONG, "futures", || futures::executor::block_on(story()));
    within(LONG, "pollster", || pollster::block_on(story()));
    within(LONG, "its own block_on", || block_on(story()));
}

/// Runs the story in a task of a runtime whose own timer is disabled.
fn with_tokio(mut builder: tokio::runtime::Builder) {
    let runtime = builder.build().unwrap();
    runtime.block_on(async { tokio::spawn(story()).await.unwrap() });
}

#[test]
fn a_timeout_needs_no_timer_of_the_runtime() {
    within(LONG, "no timer", || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let pool = ThreadPool::new(1);
            let blocked = block_workers(&pool, 1);
            let limit = Duration::from_millis(20);
            let mut outputs = as_completed([pool.submit(|| ())]).timeout(limit);
            assert_eq!(
                outputs.next().await.unwrap().unwrap_err().pending(),
                1,
                "the timeout ends it"
            );
            drop(blocked);
        });
    });
}

#[test]
fn handles_of_several_pools_and_executors_can_be_mixed() {
    within(LONG, "several pools", || {
        let (one, two) = (ThreadPool::new(1), ThreadPool::new(1));
        let handles = [
            one.submit(|| 1),
            two.submit(|| 2),
            InlineExecutor.submit(|| 3),
            futurepool::submit(|| 4),
        ];
        let mut outputs: Vec<_> = as_completed(handles).into_iter().collect();
        outputs.sort_unstable_by_key(|output| *output.as_ref().unwrap());
        assert!(outputs.into_iter().map(Result::unwrap).eq(1..=4));
    });
}

#[test]
fn tagged_handles_are_yielded_with_their_keys() {
    within(LONG, "tagged", || {
        let pool = ThreadPool::new(2);
        let words = ["spam", "eggs", "", "ham"];
        let tagged = words.map(|word| pool.submit(move || word.len()).tag(word));
        let mut seen = Vec::new();
        for (word, length) in as_completed(tagged) {
            assert_eq!(length.unwrap(), word.len());
            seen.push(word);
        }
        seen.sort_unstable();
        assert_eq!(seen, ["", "eggs", "ham", "spam"]);
    });
}

#[test]
fn cancel_on_drop_handles_cancel_when_dropped_but_not_when_yielded() {
    within(LONG, "cancel_on_drop", || {
        let pool = ThreadPool::new(1);
        let blocked = block_workers(&pool, 1);
        let (ran, runs) = mpsc::channel();
        let job = |number: u32| {
            let ran = ran.clone();
            let job = move || ran.send(number).unwrap();
            pool.submit(job).cancel_on_drop()
        };
        let outputs = as_completed([job(1), job(2)]);
        let mut others = as_completed([job(3)]);
        drop(outputs);
        assert_eq!(pool.metrics().cancelled, 2);
        blocked.release();
        others.wait_next().unwrap().unwrap();
        drop((others, pool, ran));
        assert!(runs.iter().eq([3]));
    });
}

#[test]
fn other_futures_are_accepted_even_if_not_unpin() {
    within(LONG, "other futures", || {
        let pool = ThreadPool::new(2);
        let ask = |number: usize| {
            let handle = pool.submit(move || number);
            async move {
                let pinned = PhantomPinned;
                let number = handle.await.unwrap();
                let _pinned = &pinned;
                number
            }
        };
        let mut outputs = as_completed([ask(1), ask(2)]);
        outputs.push(ask(3));
        let mut outputs: Vec<_> = outputs.into_iter().collect();
        outputs.sort_unstable();
        assert_eq!(outputs, [1, 2, 3]);

        let outputs = block_on(as_completed([ask(4), ask(5)]).collect::<Vec<_>>());
        assert_eq!(outputs.iter().sum::<usize>(), 9);

        let limited = as_completed([ask(6)]).timeout(LONG);
        assert!(limited.into_iter().map(Result::unwrap).eq([6]));
    });
}

#[test]
fn dropping_it_detaches() {
    within(LONG, "detach", || {
        let pool = ThreadPool::new(1);
        let blocked = block_workers(&pool, 1);
        let (ran, runs) = mpsc::channel();
        let job = |number: u32| {
            let ran = ran.clone();
            pool.submit(move || ran.send(number).unwrap())
        };
        drop(as_completed([job(1), job(2)]));
        drop(as_completed([job(3)]).timeout(LONG));
        drop(as_completed([job(4)]).into_iter());
        drop((blocked, pool, ran));
        assert!(runs.iter().eq(1..=4));
    });
}

#[test]
fn cancelled_panicked_and_refused_jobs_are_outputs_like_others() {
    within(LONG, "failures", || {
        struct Refuses;
        impl Executor for Refuses {
            fn execute(&self, job: Job) {
                job.refuse(JoinError::broken("no"));
            }
        }
        let pool = ThreadPool::new(1);
        let blocked = block_workers(&pool, 1);
        let cancelled = pool.submit(|| 0);
        let late = pool.submit(|| 1);
        let closed = ThreadPool::new(1);
        closed.shutdown().join();
        let mut outputs = as_completed([
            late,
            pool.submit(|| panic!("expected")),
            closed.submit(|| 2),
            Refuses.submit(|| 3),
        ]);
        cancelled.cancel();
        outputs.push(cancelled);
        let early = [(); 3].map(|()| outputs.wait_next().unwrap().unwrap_err());
        assert!(early.iter().any(JoinError::is_cancelled));
        assert!(early.iter().any(JoinError::is_shutdown));
        assert!(early.iter().any(JoinError::is_broken));
        blocked.release();
        assert_eq!(outputs.wait_next().unwrap().unwrap(), 1);
        assert!(outputs.wait_next().unwrap().unwrap_err().is_panic());
        assert!(outputs.wait_next().is_none());
    });
}

#[test]
fn a_cancel_during_the_wait_is_yielded_at_once() {
    let pool = ThreadPool::new(1);
    let blocked = block_workers(&pool, 1);
    let (count, waker) = CountingWaker::new();
    let mut outputs = as_completed([pool.submit(|| 1), pool.submit(|| 2)]);
    // The first poll may cause a spurious wake-up; then the second has nothing to do.
    for _ in 0..2 {
        assert!(poll_with(&mut outputs.next(), &waker).is_pending());
    }
    let before = count.count();
    assert_eq!(pool.cancel_pending(), 2);
    assert!(count.count() > before, "the cancel wakes");
    for _ in 0..2 {
        let Poll::Ready(Some(output)) = poll_once(&mut outputs.next()) else {
            panic!("a cancelled job is not done");
        };
        assert!(output.unwrap_err().is_cancelled());
    }
    drop(blocked);
}

#[test]
fn sets_are_made_empty_and_from_iterators() {
    within(LONG, "made", || {
        let pool = ThreadPool::new(1);
        let mut outputs = AsCompleted::new();
        assert!(outputs.is_empty());
        outputs.extend((0..3).map(|n| pool.submit(move || n)));
        assert_eq!(outputs.len(), 3);
        assert_eq!(outputs.into_iter().map(Result::unwrap).sum::<i32>(), 3);
        let collected: Handles = (0..3).map(|n| pool.submit(move || n)).collect();
        assert_eq!(collected.into_iter().map(Result::unwrap).sum::<usize>(), 3);
        assert!(Handles::default().wait_next().is_none());
    });
}

#[test]
fn cancel_all_cancels_the_last_first_and_all_are_still_yielded() {
    within(LONG, "cancel_all", || {
        let held = Held::new();
        let (tell, told) = mpsc::channel();
        let mut outputs = as_completed((0..6).map(|n| {
            let handle = held.submit(move || n);
            let tell = tell.clone();
            handle.add_done_callback(move |outcome| tell.send((n, outcome.is_ok())).unwrap());
            handle
        }));
        let finished = InlineExecutor.submit(|| 6);
        outputs.push(finished);
        assert_eq!(outputs.wait_next().unwrap().unwrap(), 6);
        outputs.push(InlineExecutor.submit(|| 7));
        // 7 is finished, so it is not cancelled.
        assert_eq!(outputs.cancel_all(), 6);
        drop(tell);
        assert!(told.iter().eq((0..6).rev().map(|n| (n, false))));
        assert_eq!(outputs.len(), 7);
        assert_eq!(outputs.cancel_all(), 6, "cancelled before counts too");
        held.run_all();
        let outputs: Vec<_> = outputs.into_iter().collect();
        let cancelled =
            |output: &&Result<_, JoinError>| (output.as_ref()).is_err_and(JoinError::is_cancelled);
        assert_eq!(outputs.iter().filter(cancelled).count(), 6);
        assert_eq!(outputs.into_iter().find_map(Result::ok), Some(7));
    });
}

#[test]
fn cancel_all_asks_running_jobs_to_end_and_wakes_the_set() {
    within(LONG, "asked", || {
        let pool = ThreadPool::new(1);
        let (tell, told) = mpsc::channel();
        let running = pool.submit(move || {
            tell.send(()).unwrap();
            while !futurepool::cancel_requested() {
                thread::yield_now();
            }
            0
        });
        told.recv_timeout(LONG).unwrap();
        let mut outputs = as_completed([running, pool.submit(|| 1)]);
        let (count, waker) = CountingWaker::new();
        for _ in 0..2 {
            assert!(poll_with(&mut outputs.next(), &waker).is_pending());
        }
        let before = count.count();
        assert_eq!(outputs.cancel_all(), 1);
        assert!(count.count() > before, "a cancelled job wakes the set");
        let mut values: Vec<_> = outputs.into_iter().map(Result::ok).collect();
        values.sort_unstable();
        assert_eq!(values, [None, Some(0)]);
    });
}

#[test]
fn cancel_all_accepts_every_kind_of_handle_and_the_timed_form() {
    let held = Held::new();
    let job = || held.submit(|| 1);
    assert_eq!(
        as_completed([job().tag("a"), job().tag("b")]).cancel_all(),
        2
    );
    assert_eq!(as_completed([job().cancel_on_drop()]).cancel_all(), 1);
    assert_eq!(
        as_completed([job().cancel_on_drop().tag(1)]).cancel_all(),
        1
    );
    let (mut plain, mut tagged, mut on_drop) = (job(), job().tag(1), job().cancel_on_drop());
    assert_eq!(as_completed([&mut plain]).cancel_all(), 1);
    assert_eq!(as_completed([&mut tagged]).cancel_all(), 1);
    assert_eq!(as_completed([&mut on_drop]).cancel_all(), 1);
    assert!(plain.is_cancelled() && tagged.get_ref().is_cancelled() && on_drop.is_cancelled());

    // The cancelled ones are still yielded, before the error.
    let timed = as_completed([job(), job()]).timeout(Duration::ZERO);
    assert_eq!(timed.cancel_all(), 2);
    let outputs: Vec<_> = timed.into_iter().map(Result::unwrap).collect();
    assert!(outputs.iter().all(Result::is_err) && outputs.len() == 2);

    // After the error they are in `into_pending`.
    let mut timed = as_completed([job(), job()]).timeout(Duration::ZERO);
    assert!(timed.wait_next().unwrap().is_err());
    assert_eq!(timed.cancel_all(), 2);
    assert!(timed.wait_next().is_none());
    assert!(timed.into_pending().iter().all(JoinHandle::is_cancelled));
}

#[test]
fn a_future_that_panics_in_its_poll_loses_no_other_future() {
    within(LONG, "panicking future", || {
        let pool = ThreadPool::new(1);
        let good = pool.submit(|| 1);
        let futures: [Pin<Box<dyn Future<Output = usize> + Send>>; 2] = [
            Box::pin(async { panic!("expected") }),
            Box::pin(async { good.await.unwrap() }),
        ];
        let mut outputs = as_completed(futures);
        let mut taken = Vec::new();
        for _ in 0..2 {
            let next = std::panic::AssertUnwindSafe(|| outputs.wait_next());
            taken.push(std::panic::catch_unwind(next).ok());
        }
        assert!(taken.contains(&None), "the panic reaches the caller");
        assert!(taken.contains(&Some(Some(1))));
    });
}

#[test]
fn all_forms_are_send_and_unpin_if_the_futures_are() {
    fn check<T: Send + Unpin>() {}
    fn check_unpin<T: Unpin>() {}
    check::<Handles>();
    check::<TimedHandles>();
    check::<futurepool::AsCompletedIter<JoinHandle<usize>>>();
    check::<futurepool::TimedAsCompletedIter<JoinHandle<usize>>>();
    // They are `Unpin` even if the futures are not.
    check_unpin::<AsCompleted<PhantomPinned>>();
    check_unpin::<TimedAsCompleted<PhantomPinned>>();
}
