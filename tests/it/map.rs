//! `map` and `map_unordered`: lazy, in chunks, with a buffer, with a timeout, on full and closed
//! pools.

use std::any::Any;
use std::future::{Future, IntoFuture};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{
    Blocked, CountingWaker, Gate, LONG, block_workers, bounded_pool, child, eventually,
    noop_context, poll_once, spawn_until_asleep, within,
};
use futurepool::{
    Executor, ExecutorExt, InlineExecutor, Job, JoinError, JoinHandle, Map, MapIter, MapJoin,
    MapUnordered, MapUnorderedIter, MapUnorderedJoin, ThreadPool, block_on,
};
use futures::StreamExt;
use futures::stream::{FusedStream, Stream};

/// Generates each test for `map` and for `map_unordered`.
macro_rules! both {
    ($name:ident, |$map:ident| $body:block) => {
        #[allow(unused_macros)]
        mod $name {
            use super::*;

            #[test]
            fn in_order() {
                macro_rules! $map {
                    ($pool:expr, $items:expr, $f:expr) => {
                        $pool.map($items, $f)
                    };
                }
                within(LONG, stringify!($name), || $body);
            }

            #[test]
            fn unordered() {
                macro_rules! $map {
                    ($pool:expr, $items:expr, $f:expr) => {
                        $pool.map_unordered($items, $f)
                    };
                }
                within(LONG, stringify!($name), || $body);
            }
        }
    };
}

pub(crate) use both;

/// Returns an input that counts how many items were taken.
pub(crate) fn counted<I: IntoIterator>(
    items: I,
) -> (Arc<AtomicUsize>, impl Iterator<Item = I::Item>) {
    let pulls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&pulls);
    let items = items.into_iter().inspect(move |_| {
        count.fetch_add(1, SeqCst);
    });
    (pulls, items)
}

/// Returns a pool whose only worker is blocked and whose queue is full.
fn full_pool() -> (ThreadPool, Blocked, JoinHandle<()>) {
    let pool = bounded_pool(1, 1);
    let blocked = block_workers(&pool, 1);
    let queued = pool.submit(|| ());
    (pool, blocked, queued)
}

fn sorted(results: impl IntoIterator<Item = Result<usize, JoinError>>) -> Vec<usize> {
    let mut values: Vec<_> = results.into_iter().map(Result::unwrap).collect();
    values.sort_unstable();
    values
}

fn poll_next<S: Stream + Unpin>(stream: &mut S) -> Poll<Option<S::Item>> {
    poll_once(&mut stream.next())
}

/// Returns the message of a panic in `f`.
fn panic_message<R>(f: impl FnOnce() -> R) -> String {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(_) => panic!("it does not panic"),
        Err(payload) => message_of(&*payload),
    }
}

fn message_of(payload: &dyn Any) -> String {
    let text = payload.downcast_ref::<String>().cloned();
    let literal = payload.downcast_ref::<&str>().copied();
    text.or(literal.map(str::to_owned)).expect("a text")
}

both!(it_is_lazy_until_started_polled_or_iterated, |map| {
    let pool = ThreadPool::new(1);
    let untouched = |pulls: &AtomicUsize, before: u64| {
        assert_eq!(pulls.load(SeqCst), 0, "the input was touched");
        assert_eq!(pool.metrics().submitted, before, "a job was submitted");
    };
    let mut before = 0;

    let (pulls, items) = counted(0..3);
    let lazy = map!(pool, items, |n: usize| n).chunk_size(1).timeout(LONG);
    untouched(&pulls, before);
    drop(lazy);
    untouched(&pulls, before);

    let (pulls, items) = counted(0..3);
    let lazy = map!(pool, items, |n: usize| n);
    untouched(&pulls, before);
    let started = lazy.start();
    assert_eq!((pulls.load(SeqCst), pool.metrics().submitted), (3, 3));
    assert_eq!(sorted(started), [0, 1, 2]);
    before += 3;

    let (pulls, items) = counted(0..3);
    let lazy = map!(pool, items, |n: usize| n);
    untouched(&pulls, before);
    let iterator = lazy.into_iter();
    assert_eq!(
        (pulls.load(SeqCst), pool.metrics().submitted),
        (3, before + 3)
    );
    assert_eq!(sorted(iterator), [0, 1, 2]);
    before += 3;

    let (pulls, items) = counted(0..3);
    let mut lazy = map!(pool, items, |n: usize| n);
    untouched(&pulls, before);
    assert!(lazy.wait_next().is_some());
    assert_eq!(
        (pulls.load(SeqCst), pool.metrics().submitted),
        (3, before + 3)
    );
    before += 3;

    let (pulls, items) = counted(0..3);
    let mut lazy = map!(pool, items, |n: usize| n);
    untouched(&pulls, before);
    let _ = poll_next(&mut lazy);
    assert_eq!(
        (pulls.load(SeqCst), pool.metrics().submitted),
        (3, before + 3)
    );
});

both!(options_after_the_start_panic_with_a_clear_message, |map| {
    let pool = ThreadPool::new(1);
    let begun = || map!(pool, 0..3, |n: usize| n).start();
    for (option, message) in [
        ("buffer_size", panic_message(|| begun().buffer_size(1))),
        ("chunk_size", panic_message(|| begun().chunk_size(1))),
        ("timeout", panic_message(|| begun().timeout(LONG))),
    ] {
        assert!(
            message.contains(option) && message.contains("must be set before the map is started"),
            "{message}"
        );
    }
    let mut polled = map!(pool, 0..3, |n: usize| n);
    polled.wait_next().unwrap().unwrap();
    assert!(panic_message(|| polled.buffer_size(9)).contains("before the map is started"));
});

both!(
    a_buffer_or_a_chunk_of_0_panics_with_a_clear_message,
    |map| {
        let pool = ThreadPool::new(1);
        let lazy = || map!(pool, 0..3, |n: usize| n);
        assert!(panic_message(|| lazy().buffer_size(0)).contains("buffer_size"));
        assert!(panic_message(|| lazy().chunk_size(0)).contains("chunk_size"));
    }
);

#[test]
fn panics_of_options_name_the_line_of_the_caller() {
    child::alone("map::panics_of_options_name_the_line_of_the_caller", || {
        check_lines_of_panics();
    });
}

fn check_lines_of_panics() {
    use std::panic;
    let lines = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&lines);
    panic::set_hook(Box::new(move |info| {
        let location = info.location().unwrap();
        seen.lock()
            .unwrap()
            .push((location.file().to_owned(), location.line()));
    }));
    let pool = ThreadPool::new(1);
    let check = |f: &dyn Fn(), lines_of_f: std::ops::RangeInclusive<u32>| {
        assert!(catch_unwind(AssertUnwindSafe(f)).is_err());
        let (file, line) = lines.lock().unwrap().pop().unwrap();
        assert_eq!(file, file!());
        assert!(
            lines_of_f.contains(&line),
            "{line} is not in {lines_of_f:?}"
        );
    };
    let start = line!();
    let zero_buffer = || drop(pool.map([1], |n| n).buffer_size(0));
    let zero_chunk = || drop(pool.map_unordered([1], |n| n).chunk_size(0));
    let late_timeout = || drop(pool.map([1], |n| n).start().timeout(LONG));
    let late_chunk = || drop(pool.map_unordered([1], |n| n).start().chunk_size(1));
    let end = line!();
    check(&zero_buffer, start..=end);
    check(&zero_chunk, start..=end);
    check(&late_timeout, start..=end);
    check(&late_chunk, start..=end);
    let _ = panic::take_hook();
}

both!(no_input_gives_no_result, |map| {
    let pool = ThreadPool::new(1);
    let nothing = || map!(pool, std::iter::empty::<usize>(), |n: usize| n);
    assert!(nothing().into_iter().next().is_none());
    assert!(block_on(nothing().start().next()).is_none());
    assert!(nothing().chunk_size(3).buffer_size(2).wait_next().is_none());
    assert_eq!(pool.metrics().submitted, 0);
});

both!(every_form_gives_every_result, |map| {
    let pool = ThreadPool::new(3);
    let all: Vec<_> = (0..100).collect();
    for (chunk, buffer) in [(1, 1000), (7, 1000), (1, 1), (7, 10), (10, 3), (1000, 1000)] {
        let new = || {
            let map = map!(pool, 0..100, |n: usize| n);
            map.chunk_size(chunk).buffer_size(buffer)
        };
        assert_eq!(sorted(new()), all);
        assert_eq!(sorted(new().start()), all);
        assert_eq!(sorted(block_on(new().collect::<Vec<_>>())), all);
        let mut blocking = new();
        assert_eq!(sorted(std::iter::from_fn(|| blocking.wait_next())), all);
        assert!(blocking.wait_next().is_none(), "the end is final");
        assert!(blocking.is_terminated());
    }
});

#[test]
fn map_keeps_the_order_of_the_items() {
    within(LONG, "order", || {
        let pool = ThreadPool::new(3);
        let gates: [Gate; 3] = Default::default();
        let opened = gates.clone();
        let mut results = pool.map(0..3, move |n: usize| {
            opened[n].wait();
            n
        });
        assert!(poll_next(&mut results).is_pending());
        for n in [2, 1] {
            gates[n].open();
            eventually("it is done", || pool.metrics().completed == 3 - n as u64);
            assert!(poll_next(&mut results).is_pending(), "0 comes first");
        }
        gates[0].open();
        assert!(results.into_iter().map(Result::unwrap).eq(0..3));
    });
}

#[test]
fn map_unordered_yields_results_in_completion_order() {
    within(LONG, "order of completion", || {
        let pool = ThreadPool::new(3);
        let gates: [Gate; 3] = Default::default();
        let opened = gates.clone();
        let mut results = pool
            .map_unordered(0..3, move |n: usize| {
                opened[n].wait();
                n
            })
            .start();
        for (turn, n) in [2, 0, 1].into_iter().enumerate() {
            gates[n].open();
            let result = match turn {
                0 => results.wait_next(),
                _ => block_on(results.next()),
            };
            assert_eq!(result.unwrap().unwrap(), n);
        }
        assert!(results.wait_next().is_none());
    });
}

both!(
    a_buffer_takes_exactly_its_size_ahead_of_the_consumed_items,
    |map| {
        let pool = ThreadPool::new(2);
        for buffer in [1, 2, 5] {
            for blocking in [true, false] {
                let (pulls, items) = counted(0..);
                let lazy = map!(pool, items, |n: usize| n);
                let mut results = lazy.buffer_size(buffer).start();
                assert_eq!(pulls.load(SeqCst), buffer, "after the start");
                for consumed in 1..50 {
                    let result = match blocking {
                        true => results.wait_next(),
                        false => block_on(results.next()),
                    };
                    result.unwrap().unwrap();
                    let pulls = pulls.load(SeqCst);
                    assert_eq!(pulls, consumed + buffer, "after {consumed}");
                }
            }
        }
    }
);

both!(polls_that_are_pending_take_no_items, |map| {
    let pool = ThreadPool::new(1);
    let blocked = block_workers(&pool, 1);
    let (pulls, items) = counted(0..);
    let mut results = map!(pool, items, |n: usize| n).buffer_size(3).start();
    for _ in 0..10 {
        assert!(poll_next(&mut results).is_pending());
    }
    assert_eq!(pulls.load(SeqCst), 3);
    drop(blocked);
});

both!(chunks_in_a_buffer_never_take_more_than_the_buffer, |map| {
    let pool = ThreadPool::new(2);
    for (chunk, buffer) in [(2, 2), (2, 5), (3, 4), (9, 4), (usize::MAX, 4)] {
        let (pulls, items) = counted(0..);
        let lazy = map!(pool, items, |n: usize| n);
        let mut results = lazy.chunk_size(chunk).buffer_size(buffer).start();
        let at_most = pulls.load(SeqCst);
        assert!(
            at_most <= buffer && at_most > 0,
            "{at_most} of {buffer} taken"
        );
        for consumed in 1..50 {
            results.wait_next().unwrap().unwrap();
            let ahead = pulls.load(SeqCst) - consumed;
            assert!(ahead <= buffer, "{ahead} of {buffer} ahead");
        }
    }
});

both!(a_chunk_is_one_job_and_never_larger_than_the_buffer, |map| {
    let pool = ThreadPool::new(1);
    assert_eq!(
        sorted(map!(pool, 0..10, |n: usize| n).chunk_size(4)).len(),
        10
    );
    assert_eq!(pool.metrics().submitted, 3);
    let lazy = map!(pool, 0..10, |n: usize| n)
        .chunk_size(100)
        .buffer_size(5);
    assert_eq!(sorted(lazy).len(), 10);
    assert_eq!(pool.metrics().submitted, 3 + 2);
    let lazy = map!(pool, 0..10, |n: usize| n)
        .buffer_size(5)
        .chunk_size(usize::MAX);
    assert_eq!(sorted(lazy).len(), 10);
    assert_eq!(pool.metrics().submitted, 3 + 2 + 2);
    assert_eq!(
        sorted(map!(pool, 0..10, |n: usize| n).chunk_size(usize::MAX)).len(),
        10
    );
    assert_eq!(pool.metrics().submitted, 3 + 2 + 2 + 1);
});

#[test]
fn a_bad_item_loses_no_other_item_of_its_chunk_and_iteration_continues() {
    within(LONG, "bad items", || {
        let pool = ThreadPool::new(2);
        for chunk in [1, 2, 3, 10] {
            let bad = |n: usize| assert!(n % 3 != 1, "bad {n}");
            let results = pool.map(0..9, move |n| {
                bad(n);
                n
            });
            for (n, result) in results.chunk_size(chunk).into_iter().enumerate() {
                match n % 3 {
                    1 => {
                        let message = result.unwrap_err().to_string();
                        assert!(message.contains(&format!("bad {n}")), "{message}");
                    }
                    _ => assert_eq!(result.unwrap(), n),
                }
            }
            let results = pool.map_unordered(0..9, move |n| {
                bad(n);
                n
            });
            let results: Vec<_> = results.chunk_size(chunk).into_iter().collect();
            let bad = results.iter().flat_map(|result| result.as_ref().err());
            assert_eq!(bad.filter(|error| error.is_panic()).count(), 3);
            assert_eq!(
                sorted(results.into_iter().filter(Result::is_ok)),
                [0, 2, 3, 5, 6, 8]
            );
        }
    });
}

both!(the_payload_of_a_panic_comes_through_in_a_chunk_too, |map| {
    let pool = ThreadPool::new(1);
    for chunk in [1, 2] {
        let panics = |n: usize| std::panic::panic_any(n);
        let results = map!(pool, 0..2, panics).chunk_size(chunk);
        let payload = |result: Result<(), JoinError>| result.unwrap_err().into_panic();
        let payloads = results.into_iter().map(payload);
        let mut payloads: Vec<_> = payloads
            .map(|payload| *payload.downcast::<usize>().unwrap())
            .collect();
        payloads.sort_unstable();
        assert_eq!(payloads, [0, 1]);
    }
});

both!(a_cancelled_chunk_is_an_error_for_each_of_its_items, |map| {
    let pool = ThreadPool::new(1);
    let blocked = block_workers(&pool, 1);
    let results = map!(pool, 0..5, |n: usize| n).chunk_size(3).start();
    assert_eq!(pool.cancel_pending(), 2);
    blocked.release();
    let results: Vec<_> = results.into_iter().collect();
    assert_eq!(results.len(), 5);
    for result in results {
        assert!(result.unwrap_err().is_cancelled());
    }
});

#[test]
fn a_panic_names_the_location_of_the_map_call() {
    within(LONG, "origin", || {
        let pool = ThreadPool::new(1);
        let executor: &dyn Executor = &pool;
        let panics = |_: u32| panic!("expected");
        let check = |result: Option<Result<(), JoinError>>, line: u32| {
            let message = result.unwrap().unwrap_err().to_string();
            assert!(message.contains("expected"), "{message}");
            assert!(
                message.contains(&format!("{}:{line}", file!())),
                "{message}"
            );
        };
        check(pool.map([1], panics).wait_next(), line!());
        check(pool.map_unordered([1], panics).wait_next(), line!());
        check(pool.map([1, 2], panics).chunk_size(2).wait_next(), line!());
        check(ExecutorExt::map(&pool, [1], panics).wait_next(), line!());
        check(executor.map_unordered([1], panics).wait_next(), line!());
        check(InlineExecutor.map([1], panics).wait_next(), line!());
        let pool = futurepool::global();
        check(pool.map([1], panics).wait_next(), line!());
        check(pool.map_unordered([1], panics).wait_next(), line!());
    });
}

#[test]
fn a_timeout_yields_done_results_then_one_error_and_cancels_the_rest() {
    for limit in [100, 300].map(Duration::from_millis) {
        for blocking in [true, false] {
            within(LONG, "timed", move || {
                let pool = ThreadPool::new(1);
                let gate = Gate::new();
                let opened = gate.clone();
                let runs = Arc::new(AtomicUsize::new(0));
                let count = Arc::clone(&runs);
                let start = Instant::now();
                let lazy = pool.map(0..10, move |n: usize| {
                    if n == 2 {
                        opened.wait();
                    }
                    count.fetch_add(1, SeqCst);
                    n
                });
                let mut results = lazy.timeout(limit).start();
                eventually("two are done", || runs.load(SeqCst) == 2);
                // The results stay available, however late they are requested.
                thread::sleep(limit);
                let mut next = || match blocking {
                    true => results.wait_next(),
                    false => block_on(results.next()),
                };
                assert_eq!(next().unwrap().unwrap(), 0);
                assert_eq!(next().unwrap().unwrap(), 1);
                assert!(next().unwrap().unwrap_err().is_timeout());
                assert!(start.elapsed() >= limit, "it ends too early");
                assert_eq!(pool.metrics().cancelled, 7);
                gate.open();
                pool.shutdown().join();
                assert!(next().is_none() && next().is_none());
                assert_eq!(runs.load(SeqCst), 3, "what was running, and no other");
            });
        }
    }
}

both!(a_timeout_ends_a_wait_for_a_result, |map| {
    let pool = ThreadPool::new(1);
    let blocked = block_workers(&pool, 1);
    let limit = Duration::from_millis(30);
    let start = Instant::now();
    let mut results = map!(pool, 0..2, |n: usize| n).timeout(limit);
    assert!(results.wait_next().unwrap().unwrap_err().is_timeout());
    assert!(start.elapsed() >= limit);
    assert!(results.wait_next().is_none());
    let mut results = map!(pool, 0..2, |n: usize| n).timeout(limit);
    assert!(block_on(results.next()).unwrap().unwrap_err().is_timeout());
    assert!(block_on(results.next()).is_none());
    assert!(results.is_terminated());
    let results: Vec<_> = map!(pool, 0..2, |n: usize| n)
        .timeout(limit)
        .into_iter()
        .collect();
    assert_eq!(results.len(), 1);
    assert_eq!(pool.metrics().cancelled, 6);
    drop(blocked);
});

both!(the_timeout_counts_from_the_start_of_the_map, |map| {
    let pool = ThreadPool::new(1);
    let blocked = block_workers(&pool, 1);
    let limit = Duration::from_millis(20);
    // A map that is not started has all the time in the world.
    let mut first = map!(pool, 0..2, |n: usize| n).timeout(limit);
    let started = map!(pool, 0..2, |n: usize| n).timeout(limit).start();
    let iterator = map!(pool, 0..2, |n: usize| n).timeout(limit).into_iter();
    thread::sleep(2 * limit);
    assert!(poll_next(&mut first).is_pending(), "the clock starts here");
    for mut late in [started.into_iter(), iterator] {
        let begin = Instant::now();
        assert!(late.next().unwrap().unwrap_err().is_timeout());
        assert!(begin.elapsed() < LONG / 2, "it has elapsed before");
    }
    assert!(first.wait_next().unwrap().unwrap_err().is_timeout());
    let begin = Instant::now();
    let joined = map!(pool, 0..2, |n: usize| n).timeout(limit).join();
    assert!(joined.unwrap_err().is_timeout());
    assert!(begin.elapsed() >= limit);
    drop(blocked);
});

both!(
    a_timeout_ends_a_map_whose_next_result_is_always_there,
    |map| {
        for blocking in [true, false] {
            let pool = ThreadPool::new(1);
            let (pulls, items) = counted(0..);
            let limit = Duration::from_millis(20);
            let lazy = map!(pool, items, |n: usize| n);
            let mut results = lazy.buffer_size(3).timeout(limit).start();
            let all_done = || {
                let taken = pulls.load(SeqCst) as u64;
                eventually("what was taken is done", || {
                    pool.metrics().completed == taken
                });
            };
            all_done();
            thread::sleep(2 * limit);
            for _ in 0..3 {
                let result = match blocking {
                    true => results.wait_next(),
                    false => block_on(results.next()),
                };
                result.unwrap().expect("it was done in time");
                all_done();
            }
            // What had finished by then has been yielded.
            let result = match blocking {
                true => results.wait_next(),
                false => block_on(results.next()),
            };
            assert!(result.unwrap().is_err_and(|error| error.is_timeout()));
            assert!(results.wait_next().is_none());
        }
    }
);

both!(a_timeout_too_long_for_the_clock_is_no_timeout, |map| {
    let pool = ThreadPool::new(2);
    let all = || map!(pool, 0..20, |n: usize| n).timeout(Duration::MAX);
    assert_eq!(sorted(all()).len(), 20);
    assert_eq!(sorted(block_on(all().collect::<Vec<_>>())).len(), 20);
});

both!(
    dropping_it_after_a_poll_cancels_what_has_not_started,
    |map| {
        let pool = ThreadPool::new(1);
        let blocked = block_workers(&pool, 1);
        let mut started = map!(pool, 0..3, |n: usize| n).start();
        assert!(poll_next(&mut started).is_pending());
        drop(started);
        assert_eq!(pool.metrics().cancelled, 3);
        let mut chunks = map!(pool, 0..3, |n: usize| n).chunk_size(2);
        assert!(poll_next(&mut chunks).is_pending());
        drop(chunks);
        assert_eq!(pool.metrics().cancelled, 5);
        let mut polled = map!(pool, 0.., |n: usize| n).buffer_size(4);
        assert!(poll_next(&mut polled).is_pending());
        drop(polled);
        assert_eq!(pool.metrics().cancelled, 9);
        drop(blocked);
    }
);

both!(
    dropping_it_cancels_though_the_destructor_of_the_input_panics,
    |map| {
        struct Bad(std::ops::RangeFrom<usize>);
        impl Iterator for Bad {
            type Item = usize;
            fn next(&mut self) -> Option<usize> {
                self.0.next()
            }
        }
        impl Drop for Bad {
            fn drop(&mut self) {
                panic!("expected");
            }
        }
        let pool = ThreadPool::new(1);
        let blocked = block_workers(&pool, 1);
        let mut results = map!(pool, Bad(0..), |n: usize| n).buffer_size(3);
        assert!(poll_next(&mut results).is_pending());
        // The panic may reach the caller or not.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(results)));
        assert_eq!(pool.metrics().cancelled, 3);
        drop(blocked);
    }
);

both!(
    dropping_it_stops_a_chunk_that_runs_before_its_next_item,
    |map| {
        let pool = ThreadPool::new(1);
        let gate = Gate::new();
        let opened = gate.clone();
        let (ran, runs) = mpsc::channel();
        let job = move |n: usize| {
            ran.send(n).unwrap();
            opened.wait();
        };
        let mut results = map!(pool, 0..10, job).chunk_size(5);
        assert!(poll_next(&mut results).is_pending());
        assert_eq!(runs.recv_timeout(LONG), Ok(0));
        drop(results);
        gate.open();
        assert!(runs.iter().next().is_none(), "no other item runs");
        pool.shutdown().join();
        let metrics = pool.metrics();
        assert_eq!((metrics.completed, metrics.cancelled), (1, 1));
    }
);

/// A job that is running when the map is dropped, or when its timeout elapses, runs to its end.
#[test]
fn a_job_that_runs_when_the_map_is_dropped_runs_to_its_end() {
    within(LONG, "runs on", || {
        let pool = ThreadPool::new(1);
        let gate = Gate::new();
        let opened = gate.clone();
        let (tell, told) = mpsc::channel();
        let results = pool.map([tell], move |tell| {
            tell.send("begun").unwrap();
            opened.wait();
            tell.send("ended").unwrap();
        });
        let mut results = results.start();
        assert!(poll_next(&mut results).is_pending());
        assert_eq!(told.recv_timeout(LONG), Ok("begun"));
        drop(results);
        gate.open();
        assert_eq!(told.recv_timeout(LONG), Ok("ended"));
    });
}

both!(on_a_full_pool_start_and_into_iter_do_not_block, |map| {
    let (pool, blocked, queued) = full_pool();
    let (pulls, items) = counted(0..5);
    let started = map!(pool, items, |n: usize| n).start();
    let iterator = map!(pool, 0..5, |n: usize| n).into_iter();
    assert!(pulls.load(SeqCst) <= 5);
    assert_eq!(pool.metrics().submitted, 2, "no permit was free");
    blocked.release();
    queued.join().unwrap();
    assert_eq!(sorted(started), [0, 1, 2, 3, 4]);
    assert_eq!(sorted(iterator), [0, 1, 2, 3, 4]);
});

both!(on_a_full_pool_the_stream_waits_without_blocking, |map| {
    let (pool, blocked, queued) = full_pool();
    let mut results = map!(pool, 0..5, |n: usize| n);
    let (count, waker) = CountingWaker::new();
    let mut context = Context::from_waker(&waker);
    for _ in 0..2 {
        assert!(results.poll_next_unpin(&mut context).is_pending());
    }
    assert_eq!(pool.metrics().submitted, 2);
    let before = count.count();
    blocked.release();
    queued.join().unwrap();
    eventually("it is woken when a permit is free", || {
        count.count() > before
    });
    assert_eq!(
        sorted(block_on(results.collect::<Vec<_>>())),
        [0, 1, 2, 3, 4]
    );
});

both!(
    on_a_full_pool_a_blocking_wait_blocks_until_a_permit_is_free,
    |map| {
        let (pool, blocked, queued) = full_pool();
        let pool = Arc::new(pool);
        let own = Arc::clone(&pool);
        let waiter = spawn_until_asleep(move || sorted(map!(own, 0..5, |n: usize| n)));
        assert!(!waiter.is_finished());
        assert_eq!(pool.metrics().submitted, 2);
        blocked.release();
        queued.join().unwrap();
        assert_eq!(waiter.join().unwrap(), [0, 1, 2, 3, 4]);
    }
);

both!(
    a_last_chunk_that_is_not_full_waits_for_a_permit_too,
    |map| {
        for (items, chunk) in [(1, 2), (5, 3), (100, 64)] {
            let (pool, blocked, queued) = full_pool();
            let results = map!(pool, 0..items, |n: usize| n);
            let results = results.chunk_size(chunk).start();
            blocked.release();
            queued.join().unwrap();
            assert_eq!(sorted(results), (0..items).collect::<Vec<_>>());
        }
    }
);

both!(a_timeout_ends_the_wait_for_a_permit, |map| {
    let (pool, blocked, _queued) = full_pool();
    let limit = Duration::from_millis(20);
    let mut results = map!(pool, 0..5, |n: usize| n).timeout(limit);
    assert!(results.wait_next().unwrap().unwrap_err().is_timeout());
    assert!(results.wait_next().is_none());
    let mut results = map!(pool, 0..5, |n: usize| n).timeout(limit);
    assert!(block_on(results.next()).unwrap().unwrap_err().is_timeout());
    assert_eq!(pool.metrics().submitted, 2);
    // Nor does the map stay queued for a permit.
    drop(blocked);
    pool.submit(|| ()).join().unwrap();
    assert!(block_on(results.next()).is_none());
    eventually("a permit is free", || pool.try_submit(|| ()).is_ok());
});

both!(
    a_map_that_waits_for_a_permit_is_served_in_turn_with_submit_async,
    |map| {
        let (pool, blocked, _queued) = full_pool();
        let (ran, runs) = mpsc::channel();
        let job = |name: &'static str| {
            let ran = ran.clone();
            move || ran.send(name).unwrap()
        };
        let mut before = pin!(pool.submit_async(job("before")));
        let own = ran.clone();
        let mut results = map!(pool, [()], move |()| own.send("map").unwrap());
        let mut after = pin!(pool.submit_async(job("after")));
        let mut context = noop_context();
        assert!(before.as_mut().poll(&mut context).is_pending());
        assert!(results.poll_next_unpin(&mut context).is_pending());
        assert!(after.as_mut().poll(&mut context).is_pending());
        assert!(pool.try_submit(|| ()).unwrap_err().is_full());
        drop(blocked);
        drop(ran);
        let mut open = [true; 3];
        eventually("all are done", || {
            open[0] = open[0] && before.as_mut().poll(&mut context).is_pending();
            open[1] = open[1] && results.poll_next_unpin(&mut context).is_pending();
            open[2] = open[2] && after.as_mut().poll(&mut context).is_pending();
            open == [false; 3]
        });
        pool.shutdown().join();
        drop(results);
        assert_eq!(
            runs.try_iter().collect::<Vec<_>>(),
            ["before", "map", "after"]
        );
    }
);

both!(a_map_lets_other_submitters_in_between_its_items, |map| {
    let (pool, blocked, _queued) = full_pool();
    let order = Arc::new(Mutex::new(Vec::new()));
    let own = Arc::clone(&order);
    let mut results = map!(pool, 0..3_u32, move |n| own.lock().unwrap().push(n));
    let own = Arc::clone(&order);
    let mut other = pin!(pool.submit_async(move || own.lock().unwrap().push(100)));
    let mut context = noop_context();
    assert!(results.poll_next_unpin(&mut context).is_pending());
    assert!(other.as_mut().poll(&mut context).is_pending());
    drop(blocked);
    let mut served = false;
    let mut left = 3;
    eventually("all are done", || {
        if left > 0 && results.poll_next_unpin(&mut context).is_ready() {
            left -= 1;
        }
        served = served || other.as_mut().poll(&mut context).is_ready();
        served && left == 0
    });
    pool.shutdown().join();
    assert_eq!(*order.lock().unwrap(), [0, 100, 1, 2]);
});

both!(
    a_map_dropped_while_it_waits_for_a_permit_passes_its_turn_on,
    |map| {
        let (pool, blocked, queued) = full_pool();
        let mut results = map!(pool, 0..3, |n: usize| n);
        assert!(poll_next(&mut results).is_pending());
        blocked.release();
        queued.join().unwrap();
        // The map may have been granted the permit without having been polled since.
        let mut next = pin!(pool.submit_async(|| 7));
        let _ = next.as_mut().poll(&mut noop_context());
        drop(results);
        assert_eq!(block_on(next).unwrap().join().unwrap(), 7);
        assert_eq!(pool.metrics().submitted, 3);
    }
);

both!(
    a_shutdown_half_way_yields_the_rest_then_one_error_then_the_end,
    |map| {
        for chunk in [1, 2] {
            let pool = ThreadPool::new(1);
            let lazy = map!(pool, 0.., |n: usize| n);
            let mut results = lazy.chunk_size(chunk).buffer_size(4).start();
            pool.shutdown().join();
            let first: Vec<_> = (0..4).map(|_| results.wait_next().unwrap()).collect();
            assert_eq!(sorted(first), [0, 1, 2, 3]);
            assert!(results.wait_next().unwrap().unwrap_err().is_shutdown());
            assert!(results.wait_next().is_none() && results.wait_next().is_none());
            assert_eq!(pool.metrics().rejected, 1);
        }
    }
);

both!(
    a_pool_that_is_shut_down_after_all_was_submitted_gives_no_error,
    |map| {
        let pool = ThreadPool::new(1);
        let results = map!(pool, 0..4, |n: usize| n).start();
        pool.shutdown().join();
        assert_eq!(sorted(results), [0, 1, 2, 3]);
    }
);

both!(
    on_a_pool_that_was_already_shut_down_it_yields_one_error,
    |map| {
        let pool = ThreadPool::new(1);
        pool.shutdown().join();
        let mut results = map!(pool, 0.., |n: usize| n).start();
        assert!(block_on(results.next()).unwrap().unwrap_err().is_shutdown());
        assert!(block_on(results.next()).is_none());
    }
);

both!(shutdown_now_cancels_submitted_items, |map| {
    let pool = ThreadPool::new(1);
    let blocked = block_workers(&pool, 1);
    let mut results = map!(pool, 0.., |n: usize| n).buffer_size(3).start();
    drop(pool.shutdown_now());
    for _ in 0..3 {
        assert!(results.wait_next().unwrap().unwrap_err().is_cancelled());
    }
    assert!(results.wait_next().unwrap().unwrap_err().is_shutdown());
    assert!(results.wait_next().is_none());
    drop(blocked);
});

both!(a_shutdown_releases_a_map_that_waits_for_a_permit, |map| {
    let (pool, blocked, _queued) = full_pool();
    let pool = Arc::new(pool);
    let own = Arc::clone(&pool);
    let waiter = spawn_until_asleep(move || {
        let mut results = map!(own, 0..5, |n: usize| n);
        assert!(results.wait_next().unwrap().unwrap_err().is_shutdown());
        assert!(results.wait_next().is_none());
    });
    let mut polled = map!(pool, 0..5, |n: usize| n);
    assert!(poll_next(&mut polled).is_pending());
    drop(pool.shutdown());
    waiter.join().unwrap();
    let Poll::Ready(Some(Err(error))) = poll_next(&mut polled) else {
        panic!("it still waits");
    };
    assert!(error.is_shutdown());
    drop(blocked);
});

both!(
    a_pool_that_breaks_gives_errors_with_the_cause_then_the_end,
    |map| {
        let gate = Gate::new();
        let opened = gate.clone();
        let initializer = move || {
            opened.wait();
            Err::<(), _>("no connection")
        };
        let builder = ThreadPool::builder()
            .max_workers(1)
            .initializer(initializer);
        let pool = builder.build().unwrap();
        let mut results = map!(pool, 0.., |n: usize| n).buffer_size(2).start();
        gate.open();
        // Two items that were submitted, and one that was not.
        for _ in 0..3 {
            let error = results.wait_next().unwrap().unwrap_err();
            assert!(error.is_broken());
            assert!(error.to_string().contains("no connection"), "{error}");
        }
        assert!(results.wait_next().is_none() && results.wait_next().is_none());
    }
);

both!(
    an_input_that_panics_reaches_the_caller_and_loses_no_result,
    |map| {
        let pool = ThreadPool::new(1);
        let input = |bad: usize| {
            (0..).inspect(move |n| {
                assert!(*n < bad, "bad input");
            })
        };
        for chunk in [1, 2, 3] {
            let lazy = map!(pool, input(5), |n: usize| n);
            let mut results = lazy.chunk_size(chunk).buffer_size(3);
            let (mut values, mut panics) = (Vec::new(), 0);
            loop {
                match catch_unwind(AssertUnwindSafe(|| results.wait_next())) {
                    Ok(Some(result)) => values.push(result.unwrap()),
                    Ok(None) => break,
                    Err(payload) => {
                        assert_eq!(message_of(&*payload), "bad input");
                        panics += 1;
                    }
                }
                assert!(values.len() <= 5 && panics <= 1);
            }
            assert_eq!(panics, 1, "the panic reaches the caller once");
            values.sort_unstable();
            assert_eq!(values, [0, 1, 2, 3, 4]);
        }
        // The same when the map starts.
        let message = panic_message(|| map!(pool, input(0), |n: usize| n).start());
        assert_eq!(message, "bad input");
    }
);

both!(
    in_a_worker_of_the_pool_it_exceeds_the_capacity_instead_of_waiting,
    |map| {
        let pool = Arc::new(bounded_pool(1, 1));
        for limited in [false, true] {
            let own = Arc::clone(&pool);
            let queued = pool.submit(move || {
                // The queue is full, and only this worker could release a permit.
                let queued = own.submit(|| 100);
                let blocking = map!(own, 0..5, |n: usize| n);
                let polled = map!(own, 0..5, |n: usize| n);
                let before = own.metrics().submitted;
                if limited {
                    let limit = Duration::from_millis(20);
                    let mut blocking = blocking.timeout(limit);
                    // The only worker is blocked here, so no job finishes; but all of them were
                    // submitted.
                    assert!(blocking.wait_next().unwrap().unwrap_err().is_timeout());
                    assert_eq!(own.metrics().submitted - before, 5);
                } else {
                    assert_eq!(sorted(blocking), [0, 1, 2, 3, 4]);
                    let all = block_on(polled.collect::<Vec<_>>());
                    assert_eq!(sorted(all), [0, 1, 2, 3, 4]);
                }
                queued
            });
            assert_eq!(queued.join().unwrap().join().unwrap(), 100);
        }
    }
);

both!(items_and_functions_are_freed, |map| {
    let pool = ThreadPool::new(1);
    let token = Arc::new(());
    let new = || {
        let (item, function) = (Arc::clone(&token), Arc::clone(&token));
        let items = std::iter::repeat_n(item, 6);
        map!(pool, items, move |item: Arc<()>| {
            let _ = &function;
            item
        })
    };
    let free = |when: &str| {
        let free = || Arc::strong_count(&token) == 1;
        eventually(when, free);
    };
    drop(new());
    free("never begun");
    for chunk in [1, 4] {
        for buffer in [2, 100] {
            let new = || new().chunk_size(chunk).buffer_size(buffer);
            for result in new() {
                drop(result.unwrap());
            }
            free("all consumed");
            let blocked = block_workers(&pool, 1);
            let mut polled = new();
            assert!(poll_next(&mut polled).is_pending());
            drop(polled);
            assert_eq!(Arc::strong_count(&token), 1, "dropped, and all was queued");
            let mut timed = new().timeout(Duration::ZERO);
            assert!(timed.wait_next().unwrap().is_err());
            assert_eq!(
                Arc::strong_count(&token),
                1,
                "timed out, and all was queued"
            );
            blocked.release();
            let mut some = new();
            drop(some.wait_next().unwrap().unwrap());
            drop(some);
            free("some consumed");
        }
    }
    pool.shutdown().join();
    let mut refused = new();
    assert!(refused.wait_next().unwrap().is_err());
    assert_eq!(Arc::strong_count(&token), 1, "refused");
});

both!(
    the_function_and_the_results_are_gone_with_the_map_not_with_the_pool,
    |map| {
        let pool = ThreadPool::new(2);
        let token = Arc::new(());
        let function = Arc::clone(&token);
        let mut results = map!(pool, 0..8, move |_: usize| Arc::clone(&function)).start();
        eventually("all are done", || pool.metrics().completed == 8);
        drop(results.wait_next());
        drop(results);
        eventually("all are gone", || Arc::strong_count(&token) == 1);
    }
);

#[test]
fn the_input_may_borrow() {
    within(LONG, "borrowed", || {
        let pool = ThreadPool::new(2);
        let words = [String::from("spam"), String::from("ham")];
        let mut read = Vec::new();
        let lengths = words.iter().map(|word| {
            read.push(word.len());
            word.clone()
        });
        let results = pool.map(lengths, |word| word.len());
        assert!(results.into_iter().map(Result::unwrap).eq([4, 3]));
        assert_eq!(read, [4, 3]);
        let executor: &dyn Executor = &InlineExecutor;
        let results = executor.map_unordered(words.iter().map(String::len), |n| n);
        assert_eq!(sorted(results), [3, 4]);
    });
}

both!(items_and_results_need_not_be_sync, |map| {
    let pool = ThreadPool::new(1);
    let items = [1, 2].map(std::cell::Cell::new);
    let results = map!(pool, items, |item: std::cell::Cell<usize>| item);
    let values = results
        .into_iter()
        .map(|result| result.map(|cell| cell.get()));
    assert_eq!(sorted(values), [1, 2]);
});

#[test]
fn the_global_pool_maps() {
    within(LONG, "global", || {
        let pool = futurepool::global();
        let results: Map<'static, _> = pool.map(0..10, |n: usize| n).chunk_size(3);
        assert!(results.into_iter().map(Result::unwrap).eq(0..10));
        let results = pool.map_unordered(0..10, |n: usize| n).buffer_size(2);
        assert_eq!(sorted(results), (0..10).collect::<Vec<_>>());
    });
}

#[test]
fn an_executor_that_drops_or_refuses_jobs_gives_an_error_for_each_item() {
    struct Drops;
    impl Executor for Drops {
        fn execute(&self, job: Job) {
            drop(job);
        }
    }
    struct Refuses;
    impl Executor for Refuses {
        fn execute(&self, job: Job) {
            job.refuse(JoinError::broken("no"));
        }
    }
    within(LONG, "no results", || {
        for chunk in [1, 2] {
            let results: Vec<_> = Drops
                .map(0..3, |n: u32| n)
                .chunk_size(chunk)
                .into_iter()
                .collect();
            assert_eq!(results.len(), 3);
            assert!(
                results
                    .iter()
                    .all(|one| one.as_ref().is_err_and(JoinError::is_cancelled))
            );
            let results = Refuses.map_unordered(0..3, |n: u32| n).chunk_size(chunk);
            let results: Vec<_> = results.into_iter().collect();
            assert_eq!(results.len(), 3);
            for result in results {
                let error = result.unwrap_err();
                assert!(error.is_broken());
                assert!(error.to_string().contains("no"), "{error}");
            }
        }
    });
}

both!(the_size_hint_never_promises_too_much, |map| {
    let pool = ThreadPool::new(1);
    for (chunk, buffer) in [(1, 100), (3, 100), (2, 4)] {
        let lazy = map!(pool, 0..10, |n: usize| n);
        let mut results = lazy.chunk_size(chunk).buffer_size(buffer);
        assert_eq!(results.size_hint().1, Some(10));
        for left in (0..10).rev() {
            results.wait_next().unwrap().unwrap();
            let (low, high) = results.size_hint();
            assert!(low <= left && high.is_some_and(|high| high >= left));
        }
        assert!(results.wait_next().is_none());
        assert_eq!(results.size_hint(), (0, Some(0)));
    }
});

/// Drives several kinds of maps, and a timeout.
async fn story() {
    let pool = bounded_pool(2, 3);
    let results = pool.map(0..100, |n: usize| n).chunk_size(3);
    let values = results.map(Result::unwrap).collect::<Vec<_>>().await;
    assert!(values.into_iter().eq(0..100));
    let results = pool
        .map_unordered(0.., |n: usize| n)
        .buffer_size(5)
        .take(50);
    assert_eq!(
        results
            .filter(|one| std::future::ready(one.is_ok()))
            .count()
            .await,
        50
    );
    let gate = Gate::new();
    let opened = gate.clone();
    let results = pool.map([1], move |_| opened.wait());
    let mut results = results.timeout(Duration::from_millis(10));
    assert!(results.next().await.unwrap().unwrap_err().is_timeout());
    assert!(results.next().await.is_none());
    gate.open();
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
fn all_forms_are_send_and_unpin() {
    fn check<T: Send + Unpin>() {}
    check::<Map<'_, String>>();
    check::<MapUnordered<'_, String>>();
    check::<MapIter<'_, String>>();
    check::<MapUnorderedIter<'_, String>>();
    check::<MapJoin<'_, String>>();
    check::<MapUnorderedJoin<'_, String>>();
    // For any result type.
    check::<Map<'_, (std::cell::Cell<u8>, std::marker::PhantomPinned)>>();
    check::<MapUnordered<'_, (std::cell::Cell<u8>, std::marker::PhantomPinned)>>();
}

both!(join_and_await_gather_all_results, |map| {
    let pool = ThreadPool::new(3);
    let all: Vec<_> = (0..3_000).collect();
    for chunk in [1, 7] {
        let new = || map!(pool, 0..3_000, |n: usize| n).chunk_size(chunk);
        for mut gathered in [
            new().join().unwrap(),
            new().start().join().unwrap(),
            new().buffer_size(10).join().unwrap(),
            block_on(async { new().await.unwrap() }),
            block_on(new()).unwrap(),
            block_on(async { new().start().passed_on().await.unwrap() }),
        ] {
            gathered.sort_unstable();
            assert_eq!(gathered, all);
        }
    }
    let nothing = || map!(pool, std::iter::empty::<usize>(), |n: usize| n);
    assert_eq!(nothing().join().unwrap(), []);
    assert_eq!(block_on(nothing()).unwrap(), []);
});

/// Does nothing; stands for a map that is passed through a function before it is awaited.
trait PassedOn: Sized {
    fn passed_on(self) -> Self {
        self
    }
}
impl<U> PassedOn for Map<'_, U> {}
impl<U> PassedOn for MapUnordered<'_, U> {}

#[test]
fn awaiting_keeps_the_order_of_the_items_or_of_completion() {
    within(LONG, "orders", || {
        let pool = ThreadPool::new(2);
        let gates: [Gate; 2] = Default::default();
        let wait = |gates: &[Gate; 2]| {
            let gates = gates.clone();
            move |n: usize| {
                gates[n].wait();
                n
            }
        };
        let mut future = IntoFuture::into_future(pool.map_unordered(0..2, wait(&gates)));
        assert!(poll_once(&mut future).is_pending());
        for n in [1, 0] {
            gates[n].open();
            eventually("it is done", || pool.metrics().completed == 2 - n as u64);
        }
        assert_eq!(block_on(future).unwrap(), [1, 0]);
        let gates: [Gate; 2] = Default::default();
        let mut future = IntoFuture::into_future(pool.map(0..2, wait(&gates)));
        assert!(poll_once(&mut future).is_pending());
        for n in [1, 0] {
            gates[n].open();
            eventually("it is done", || pool.metrics().completed == 4 - n as u64);
        }
        assert_eq!(block_on(future).unwrap(), [0, 1]);
    });
}

both!(
    join_and_await_end_with_the_first_error_and_cancel_the_rest,
    |map| {
        for blocking in [true, false] {
            let pool = ThreadPool::new(1);
            let gate = Gate::new();
            let opened = gate.clone();
            let ran = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&ran);
            let (tell, told) = mpsc::channel();
            let results = map!(pool, 0..100, move |n: usize| {
                assert!(n != 1, "bad item");
                if n == 2 {
                    tell.send(()).unwrap();
                    opened.wait();
                }
                count.fetch_add(1, SeqCst);
                n
            });
            let results = results.start();
            told.recv_timeout(LONG).unwrap();
            let error = match blocking {
                true => results.join().unwrap_err(),
                false => block_on(results).unwrap_err(),
            };
            assert!(error.to_string().contains("bad item"), "{error}");
            assert_eq!(pool.metrics().cancelled, 97);
            gate.open();
            pool.shutdown().join();
            assert_eq!(ran.load(SeqCst), 2);
        }
    }
);

both!(a_join_future_dropped_half_way_cancels_the_rest, |map| {
    let pool = ThreadPool::new(1);
    let blocked = block_workers(&pool, 1);
    let mut future = IntoFuture::into_future(map!(pool, 0..5, |n: usize| n));
    assert_eq!(pool.metrics().submitted, 1, "it is lazy");
    assert!(poll_once(&mut future).is_pending());
    assert_eq!(pool.metrics().submitted, 6);
    drop(future);
    assert_eq!(pool.metrics().cancelled, 5);
    // Never polled: nothing runs.
    drop(IntoFuture::into_future(map!(pool, 0..5, |n: usize| n)));
    assert_eq!(pool.metrics().submitted, 6);
    blocked.release();
    let mut future = IntoFuture::into_future(map!(pool, 0..5, |n: usize| n));
    block_on(&mut future).unwrap();
    let again = panic_message(|| poll_once(&mut future));
    assert!(again.contains("polled after it was ready"), "{again}");
});

both!(a_join_lets_other_tasks_run_now_and_then, |map| {
    let pool = ThreadPool::new(1);
    let lazy = map!(pool, 0..10_000, |n: usize| n).chunk_size(1);
    let mut future = IntoFuture::into_future(lazy.start());
    eventually("all are done", || pool.metrics().completed == 10_000);
    let (count, waker) = CountingWaker::new();
    let mut context = Context::from_waker(&waker);
    let first = std::pin::Pin::new(&mut future).poll(&mut context);
    assert!(first.is_pending());
    assert!(count.count() > 0, "it will be polled again");
    assert_eq!(block_on(future).unwrap().len(), 10_000);
});

#[test]
fn guarantee_6_a_join_of_a_map_in_the_only_worker_runs_its_items() {
    within(LONG, "one worker", || {
        for pool in [ThreadPool::new(1), bounded_pool(1, 1)] {
            let pool = Arc::new(pool);
            let own = Arc::clone(&pool);
            let nested = pool.submit(move || {
                let here = thread::current().id();
                let ran = own.map(0..5, move |n: usize| (n, thread::current().id() == here));
                let ordered = ran.join().unwrap();
                assert!(ordered.into_iter().eq((0..5).map(|n| (n, true))));
                let ran = own.map(0..5, |n: usize| n).chunk_size(2).buffer_size(2);
                assert_eq!(ran.join().unwrap(), [0, 1, 2, 3, 4]);
                let mut unordered = own.map_unordered(0..5, |n: usize| n).join().unwrap();
                unordered.sort_unstable();
                assert_eq!(unordered, [0, 1, 2, 3, 4]);
                assert_eq!(block_on(own.map(0..3, |n: usize| n)).unwrap(), [0, 1, 2]);
            });
            nested.join().unwrap();
        }
    });
}

both!(a_map_borrows_only_its_items, |map| {
    fn check_static<T: Send + 'static>(value: T) -> T {
        value
    }
    let results = {
        let pool = ThreadPool::new(1);
        check_static(map!(pool, 0.., |n: usize| n).buffer_size(2).start())
    };
    let mut results = results.into_iter();
    let first: Vec<_> = results.by_ref().take(2).collect();
    assert_eq!(sorted(first), [0, 1]);
    assert!(results.next().unwrap().unwrap_err().is_shutdown());
    assert!(results.next().is_none());
    // Not started while its pool lived.
    let mut late = {
        let pool = ThreadPool::new(1);
        map!(pool, 0..3, |n: usize| n)
    };
    assert!(late.wait_next().unwrap().unwrap_err().is_shutdown());
    assert!(late.wait_next().is_none());
    // The lifetime is that of the items.
    let words = [String::from("spam")];
    let lengths = {
        let pool = ThreadPool::new(1);
        map!(pool, words.iter().map(String::len), |n: usize| n).start()
    };
    assert_eq!(sorted(lengths), [4]);
});

#[test]
fn a_map_is_moved_into_a_task() {
    within(LONG, "spawn", || {
        let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
        runtime.block_on(async {
            let pool = ThreadPool::new(2);
            let stream = pool.map(0..100, |n: usize| n).buffer_size(3);
            let streamed = tokio::spawn(stream.map(Result::unwrap).collect::<Vec<_>>());
            let gathered = tokio::spawn(IntoFuture::into_future(pool.map(0..100, |n: usize| n)));
            assert!(streamed.await.unwrap().into_iter().eq(0..100));
            assert!(gathered.await.unwrap().unwrap().into_iter().eq(0..100));
        });
    });
}

/// Maps stay covariant in the lifetime of their items.
#[test]
fn a_map_with_static_items_is_one_with_shorter_lived_items() {
    fn shorter<'a>(map: Map<'static, usize>, _: &'a str) -> Map<'a, usize> {
        map
    }
    let pool = ThreadPool::new(1);
    let text = String::from("spam");
    let map = shorter(pool.map([1], |n: usize| n), &text);
    assert_eq!(map.join().unwrap(), [1]);
}

/// An item that takes a moment, so that the map waits for its results and for room.
fn slowly(n: u32) -> u32 {
    thread::sleep(Duration::from_millis(1));
    n
}

#[test]
fn while_a_result_is_handled_the_map_keeps_no_room_from_other_submitters() {
    within(LONG, "submits in the loop", || {
        let pool = bounded_pool(1, 1);
        let mut sum = 0;
        for result in pool.map(0..20, slowly) {
            let n = result.unwrap();
            sum += pool.submit(move || n).join().unwrap();
        }
        assert_eq!(sum, 190);
    });
    within(LONG, "submits in the loop of a stream", || {
        block_on(async {
            let pool = bounded_pool(1, 1);
            let mut results = pool.map_unordered(0..20, slowly);
            let mut sum = 0;
            while let Some(result) = results.next().await {
                let n = result.unwrap();
                let handle = pool.submit_async(move || n).await;
                sum += handle.expect("the pool is open").await.unwrap();
            }
            assert_eq!(sum, 190);
        });
    });
    within(LONG, "another thread submits while the loop pauses", || {
        let pool = bounded_pool(1, 1);
        let mut results = pool.map(0..20, slowly);
        assert_eq!(results.wait_next().unwrap().unwrap(), 0);
        thread::scope(|threads| {
            // The join returns only if the map lets it.
            threads.spawn(|| pool.submit(|| ()).join().unwrap());
        });
        assert_eq!(results.join().unwrap().len(), 19);
    });
}

#[test]
fn two_maps_of_one_full_pool_do_not_wait_for_each_other() {
    within(LONG, "zip", || {
        let pool = bounded_pool(1, 1);
        let both = std::iter::zip(pool.map(0..50, slowly), pool.map(0..50, slowly));
        assert!(
            both.map(|(a, b)| (a.unwrap(), b.unwrap()))
                .all(|(a, b)| a == b)
        );
    });
    within(LONG, "pipeline", || {
        let pool = bounded_pool(1, 1);
        let first = pool.map(0..50, slowly).into_iter().map(Result::unwrap);
        assert_eq!(pool.map(first, slowly).join().unwrap().len(), 50);
    });
}

#[test]
fn an_executor_that_panics_does_not_abort_the_process() {
    struct Broken;
    impl Executor for Broken {
        fn execute(&self, _: Job) {
            panic!("its thread is gone");
        }
    }
    child::alone(
        "map::an_executor_that_panics_does_not_abort_the_process",
        || {
            let map = || Broken.map(0..3, |n: u32| n);
            let started = catch_unwind(AssertUnwindSafe(|| drop(map().start())));
            assert!(started.is_err());
            let iterated = catch_unwind(AssertUnwindSafe(|| map().into_iter().count()));
            assert!(iterated.is_err());
            map().detach();
            map().buffer_size(2).detach();
        },
    );
}

#[test]
fn destructors_that_panic_in_one_chunk_do_not_abort_the_process() {
    /// Panics also while the thread is panicking, which aborts the process.
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("a destructor");
        }
    }
    let name = "map::destructors_that_panic_in_one_chunk_do_not_abort_the_process";
    child::alone(name, || {
        let pool = ThreadPool::new(1);
        let bombs = || (0..4).map(|_| Bomb);
        // Items of a chunk that is cancelled.
        let blocked = block_workers(&pool, 1);
        let mut map = pool.map(bombs(), std::mem::forget).chunk_size(2);
        assert!(map.poll_next_unpin(&mut noop_context()).is_pending());
        drop(map);
        // Results of a chunk that nothing takes.
        drop(pool.map(0..4, |_| Bomb).chunk_size(2).start());
        blocked.release();
        pool.wait_idle().join();
        // Items that were taken from the input and not submitted.
        let full = bounded_pool(1, 1);
        let blocked = block_workers(&full, 1);
        let queued = full.submit(|| ());
        let mut map = full.map(bombs(), std::mem::forget).chunk_size(2);
        assert!(map.poll_next_unpin(&mut noop_context()).is_pending());
        drop(map);
        blocked.release();
        queued.join().unwrap();
    });
}
