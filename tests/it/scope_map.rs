//! Maps in a scope: items, functions and results that borrow.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use crate::common::{
    Gate, LONG, block_workers, bounded_pool, eventually, message_of, noop_context, within,
};
use crate::map::both;
use futurepool::{ThreadPool, block_on};
use futures::StreamExt;

both!(items_functions_and_results_borrow, |map| {
    for pool in [ThreadPool::new(2), bounded_pool(1, 1)] {
        let text = String::from("spam ham eggs");
        let prefix = String::from("e");
        let mut words: Vec<&str> = pool.scope(|scope| {
            let words = map!(scope, text.split(' '), |word: &'_ str| word);
            words.chunk_size(2).join().unwrap()
        });
        words.sort_unstable();
        assert_eq!(words, ["eggs", "ham", "spam"]);
        pool.scope(|scope| {
            let begins = |word: &str| word.starts_with(&prefix);
            let awaited = block_on(async { map!(scope, text.split(' '), begins).await });
            assert_eq!(
                awaited
                    .unwrap()
                    .into_iter()
                    .filter(|begins| *begins)
                    .count(),
                1
            );
            let stream = map!(scope, text.split(' '), str::len).buffer_size(1);
            let lengths = block_on(stream.map(Result::unwrap).collect::<Vec<_>>());
            assert_eq!(lengths.iter().sum::<usize>(), 11);
            let lengths = map!(scope, text.split(' '), str::len).start();
            assert_eq!(lengths.into_iter().map(Result::unwrap).sum::<usize>(), 11);
            assert!(map!(scope, [""; 0], str::len).join().unwrap().is_empty());
        });
        let mut numbers: Vec<usize> = (0..100).collect();
        pool.scope(|scope| {
            let parts = numbers.chunks_mut(7);
            map!(scope, parts, |part: &mut [usize]| part
                .iter_mut()
                .for_each(|n| *n *= 2))
            .detach();
        });
        assert!(numbers.into_iter().eq((0..100).map(|n| 2 * n)));
    }
});

both!(
    a_scoped_map_that_was_never_started_runs_nothing_and_is_no_failure,
    |map| {
        for closed in [false, true] {
            let pool = ThreadPool::new(1);
            if closed {
                pool.shutdown();
            }
            let ran = AtomicUsize::new(0);
            pool.scope(|scope| {
                drop(map!(scope, 0..3, |_: usize| ran.fetch_add(1, SeqCst)));
                mem::forget(map!(scope, 0..3, |_: usize| ran.fetch_add(1, SeqCst)));
            });
            assert_eq!((ran.into_inner(), pool.metrics().submitted), (0, 0));
        }
    }
);

both!(
    guarantee_11_everything_has_run_and_is_gone_when_the_scope_returns,
    |map| {
        struct Counted<'a>(&'a AtomicUsize);
        impl Drop for Counted<'_> {
            fn drop(&mut self) {
                self.0.fetch_add(1, SeqCst);
            }
        }
        for (workers, capacity) in [(1, 1), (2, 3), (3, 100)] {
            for (chunk, buffer) in [(1, 1), (1, 3), (4, 9), (1, 100)] {
                for leak in [false, true] {
                    let pool = bounded_pool(workers, capacity);
                    let (ran, drops) = (AtomicUsize::new(0), AtomicUsize::new(0));
                    pool.scope(|scope| {
                        let items = (0..20).map(|_| Counted(&drops));
                        let results = map!(scope, items, |item: Counted<'_>| {
                            thread::yield_now();
                            ran.fetch_add(1, SeqCst);
                            item
                        });
                        let results = results.chunk_size(chunk).buffer_size(buffer);
                        match leak {
                            false => {
                                let _ = results.start();
                            }
                            true => mem::forget(results.start()),
                        }
                    });
                    if leak {
                        assert!(ran.into_inner() > 0);
                    } else {
                        assert_eq!((ran.into_inner(), drops.into_inner()), (20, 20));
                    }
                    assert_eq!(pool.metrics().queued, 0);
                }
            }
        }
    }
);

both!(guarantee_6_a_scope_with_maps_in_the_only_worker, |map| {
    for pool in [ThreadPool::new(1), bounded_pool(1, 1)] {
        let pool = Arc::new(pool);
        let own = Arc::clone(&pool);
        let nested = pool.submit(move || {
            let numbers: Vec<usize> = (0..20).collect();
            let sum = AtomicUsize::new(0);
            let add = |n: &usize| sum.fetch_add(*n, SeqCst);
            own.scope(|scope| {
                map!(scope, &numbers, add).buffer_size(2).detach();
                drop(map!(scope, &numbers, add).start());
                assert_eq!(
                    map!(scope, &numbers, add)
                        .chunk_size(3)
                        .join()
                        .unwrap()
                        .len(),
                    20
                );
                // From a job of the scope.
                scope.submit(|| map!(scope, &numbers, add).detach());
            });
            sum.into_inner()
        });
        assert_eq!(nested.join().unwrap(), 4 * 190);
    }
});

both!(what_the_map_cancels_itself_is_no_failure, |map| {
    for chunk in [1, 2] {
        let pool = ThreadPool::new(1);
        let blocked = block_workers(&pool, 1);
        let ran = AtomicUsize::new(0);
        let function = |_: usize| ran.fetch_add(1, SeqCst);
        pool.scope(|scope| {
            // Dropped after it was asked.
            let mut polled = map!(scope, 0..4, function).chunk_size(chunk);
            assert!(polled.poll_next_unpin(&mut noop_context()).is_pending());
            drop(polled);
            // Its timeout has elapsed.
            let limit = Duration::from_millis(5);
            let timed = map!(scope, 0..4, function).chunk_size(chunk).timeout(limit);
            assert!(timed.join().unwrap_err().is_timeout());
        });
        assert_eq!(ran.load(SeqCst), 0);
        assert_eq!(pool.metrics().cancelled as usize, 8 / chunk);
        blocked.release();
        // The first error.
        let gate = Gate::new();
        pool.scope(|scope| {
            let results = map!(scope, 0..6, |n: usize| {
                assert!(n != 0, "first");
                if n >= chunk {
                    gate.wait();
                }
            });
            let error = results.chunk_size(chunk).join().unwrap_err();
            assert!(error.to_string().contains("first"), "{error}");
            gate.open();
        });
    }
});

both!(panics_of_items_that_were_not_yielded_come_out, |map| {
    for chunk in [1, 3] {
        let pool = ThreadPool::new(1);
        // Yielded: an error with the payload of the item.
        pool.scope(|scope| {
            let results = map!(scope, 0..3_usize, |n: usize| panic_any(n)).chunk_size(chunk);
            let payload = |result: Result<(), futurepool::JoinError>| {
                *result
                    .unwrap_err()
                    .into_panic()
                    .downcast::<usize>()
                    .unwrap()
            };
            let mut payloads: Vec<_> = results.into_iter().map(payload).collect();
            payloads.sort_unstable();
            assert_eq!(payloads, [0, 1, 2]);
        });
        // Detached, or leaked: the first panics out of the scope.
        for leak in [false, true] {
            let payload = catch_unwind(AssertUnwindSafe(|| {
                pool.scope(|scope| {
                    let results = map!(scope, 7..10_usize, |n: usize| panic_any(n));
                    let results = results.chunk_size(chunk).start();
                    match leak {
                        true => mem::forget(results),
                        false => results.detach(),
                    }
                });
            }));
            assert_eq!(payload.unwrap_err().downcast_ref(), Some(&7_usize));
        }
        // Some were yielded, and the rest was done when the map was dropped.
        let pool = ThreadPool::new(1);
        let text = message_of(|| {
            pool.scope(|scope| {
                let lazy = map!(scope, 0..3_usize, |n: usize| panic!("boo {n}"));
                let mut results = lazy.chunk_size(chunk).start();
                eventually("all are done", || {
                    let metrics = pool.metrics();
                    (metrics.completed + metrics.panicked) as usize == 3 / chunk
                });
                let first: Result<(), _> = results.wait_next().unwrap();
                assert!(first.unwrap_err().to_string().contains("boo 0"));
            });
        });
        assert_eq!(text, "boo 1");
    }
    // An item of the rest, in a job whose own item panics, too.
    let pool = bounded_pool(1, 1);
    let blocked = block_workers(&pool, 1);
    let gate = blocked.gate();
    let payload = catch_unwind(AssertUnwindSafe(|| {
        pool.scope(|scope| {
            map!(scope, 0..5_usize, |n: usize| panic_any(n)).detach();
            pool.shutdown();
            gate.open();
        });
    }));
    assert_eq!(payload.unwrap_err().downcast_ref(), Some(&0_usize));
});

both!(
    jobs_that_the_pool_refuses_or_cancels_are_failures_unless_yielded,
    |map| {
        let closed = ThreadPool::new(1);
        closed.shutdown();
        closed.scope(|scope| {
            let error = map!(scope, 0..3, |n: usize| n).join().unwrap_err();
            assert!(error.is_shutdown());
            let mut results = map!(scope, 0..3, |n: usize| n).into_iter();
            assert!(results.next().unwrap().unwrap_err().is_shutdown());
            assert!(results.next().is_none());
        });
        let text = message_of(|| closed.scope(|scope| map!(scope, 0..3, |n: usize| n).detach()));
        assert!(
            text.contains("did not run") && text.contains("scope_map.rs"),
            "{text}"
        );
        for buffer in [1, 10] {
            for chunk in [1, 2] {
                let pool = bounded_pool(1, 4);
                let blocked = block_workers(&pool, 1);
                let text = message_of(|| {
                    pool.scope(|scope| {
                        let lazy = map!(scope, 0..6, |n: usize| n);
                        lazy.chunk_size(chunk).buffer_size(buffer).detach();
                        assert!(pool.cancel_pending() > 0);
                    });
                });
                assert!(text.contains("did not run"), "{text}");
                pool.scope(|scope| {
                    let results = map!(scope, 0..3, |n: usize| n).chunk_size(chunk).start();
                    assert!(pool.cancel_pending() > 0);
                    for result in results {
                        assert!(result.unwrap_err().is_cancelled());
                    }
                });
                drop(blocked);
            }
        }
    }
);

both!(a_detached_scoped_map_survives_a_shutdown, |map| {
    for buffer in [1, 3, 100] {
        let pool = bounded_pool(1, 1);
        let blocked = block_workers(&pool, 1);
        let gate = blocked.gate();
        let ran = AtomicUsize::new(0);
        pool.scope(|scope| {
            let lazy = map!(scope, 0..10, |_: usize| ran.fetch_add(1, SeqCst));
            lazy.buffer_size(buffer).detach();
            pool.shutdown();
            gate.open();
        });
        assert_eq!(ran.into_inner(), 10);
    }
});
