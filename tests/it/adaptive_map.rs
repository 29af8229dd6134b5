//! Maps without a `chunk_size`: tiny items are put together, and an item that takes long holds back no
//! other.

use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

use crate::common::{Gate, LONG, Random, block_workers, bounded_pool, eventually, within};
use crate::map::{both, counted};
use futurepool::{JoinError, ThreadPool, block_on};
use futures::StreamExt;

/// More than the map submits as single jobs, so that it forms chunks.
const MANY: usize = 5_000;

/// Waits until the pool is quiet, and checks that each job ended in one way.
#[track_caller]
fn check_metrics(pool: &ThreadPool) {
    pool.shutdown().join();
    let metrics = pool.metrics();
    let ended = metrics.completed + metrics.panicked + metrics.cancelled;
    assert_eq!(metrics.submitted, ended, "{metrics:?}");
}

fn sorted(results: impl IntoIterator<Item = Result<usize, JoinError>>) -> Vec<usize> {
    let mut values: Vec<_> = results.into_iter().map(Result::unwrap).collect();
    values.sort_unstable();
    values
}

/// Counts the items that ran. The item `long` waits for a gate.
#[derive(Clone)]
struct OneLong {
    long: usize,
    gate: Gate,
    ran: Arc<AtomicUsize>,
}

impl OneLong {
    fn new(long: usize) -> Self {
        let (gate, ran) = (Gate::new(), Arc::default());
        Self { long, gate, ran }
    }

    fn function(&self) -> impl Fn(usize) -> usize + Send + Sync + 'static {
        let own = self.clone();
        move |n| {
            if n == own.long {
                own.gate.wait();
            }
            own.ran.fetch_add(1, SeqCst);
            n
        }
    }

    #[track_caller]
    fn wait_for_others(&self, items: usize) {
        eventually("all other items ran", || self.ran.load(SeqCst) == items - 1);
    }
}

both!(tiny_items_are_put_together, |map| {
    let pool = ThreadPool::new(2);
    let items = 200_000;
    for buffer in [usize::MAX, 50_000] {
        let before = pool.metrics().submitted;
        let lazy = map!(pool, 0..items, |n: usize| n);
        let lazy = match buffer {
            usize::MAX => lazy,
            buffer => lazy.buffer_size(buffer),
        };
        assert!(sorted(lazy).into_iter().eq(0..items));
        let jobs = pool.metrics().submitted - before;
        assert!(jobs < items as u64 / 4, "{jobs} jobs");
    }
    check_metrics(&pool);
});

both!(few_items_are_one_job_each, |map| {
    let pool = ThreadPool::new(2);
    for _ in 0..10 {
        assert_eq!(sorted(map!(pool, 0..64, |n: usize| n)).len(), 64);
    }
    assert_eq!(pool.metrics().submitted, 640);
});

both!(items_that_take_long_are_jobs_of_their_own, |map| {
    let pool = ThreadPool::new(8);
    let slowly = |n: usize| {
        thread::sleep(Duration::from_millis(2));
        n
    };
    assert!(sorted(map!(pool, 0..300, slowly)).into_iter().eq(0..300));
    let jobs = pool.metrics().submitted;
    assert!(jobs >= 300, "{jobs} jobs");
    check_metrics(&pool);
});

both!(a_long_item_holds_back_no_other, |map| {
    for workers in [2, 4] {
        for long in [150, MANY / 2, MANY - 2] {
            let pool = ThreadPool::new(workers);
            let one = OneLong::new(long);
            let started = map!(pool, 0..MANY, one.function()).start();
            one.wait_for_others(MANY);
            one.gate.open();
            assert!(sorted(started).into_iter().eq(0..MANY));
            check_metrics(&pool);
            // The same while a thread waits for the results.
            let pool = Arc::new(ThreadPool::new(workers));
            let one = OneLong::new(long);
            let (own, function) = (Arc::clone(&pool), one.function());
            let waits = thread::spawn(move || map!(own, 0..MANY, function).join().unwrap());
            one.wait_for_others(MANY);
            one.gate.open();
            assert_eq!(waits.join().unwrap().len(), MANY);
            check_metrics(&pool);
        }
    }
});

both!(long_items_among_tiny_ones_run_at_the_same_time, |map| {
    // Each of the long items waits for the other three.
    let pool = ThreadPool::new(4);
    let barrier = Arc::new(Barrier::new(4));
    let own = Arc::clone(&barrier);
    let meet = move |n: usize| {
        if n % 1_000 == 500 {
            own.wait();
        }
        n
    };
    let results = map!(pool, 0..4_000, meet).join().unwrap();
    assert_eq!(results.len(), 4_000);
});

both!(
    all_items_run_at_the_same_time_in_a_pool_that_is_wide_enough,
    |map| {
        for pool in [ThreadPool::new(300), bounded_pool(300, 10)] {
            let barrier = Barrier::new(300);
            let meet = move |_: usize| barrier.wait().is_leader();
            let results = map!(pool, 0..300, meet).join().unwrap();
            assert_eq!(results.into_iter().filter(|leads| *leads).count(), 1);
        }
    }
);

#[test]
fn the_results_before_a_long_item_are_yielded_while_it_runs() {
    within(LONG, "ordered", || {
        for workers in [1, 2] {
            for blocking in [true, false] {
                let pool = ThreadPool::new(workers);
                let one = OneLong::new(MANY / 2);
                let mut results = pool.map(0..MANY, one.function());
                let mut next = || match blocking {
                    true => results.wait_next(),
                    false => futures::executor::block_on(results.next()),
                };
                for n in 0..MANY / 2 {
                    assert_eq!(next().unwrap().unwrap(), n);
                }
                one.gate.open();
                for n in MANY / 2..MANY {
                    assert_eq!(next().unwrap().unwrap(), n);
                }
                assert!(next().is_none());
            }
        }
    });
}

#[test]
fn an_unordered_map_yields_all_other_results_while_a_long_item_runs() {
    within(LONG, "unordered", || {
        for blocking in [true, false] {
            let pool = ThreadPool::new(2);
            let one = OneLong::new(MANY / 2);
            let mut results = pool.map_unordered(0..MANY, one.function());
            let mut next = || match blocking {
                true => results.wait_next(),
                false => futures::executor::block_on(results.next()),
            };
            for _ in 1..MANY {
                assert_ne!(next().unwrap().unwrap(), MANY / 2);
            }
            one.gate.open();
            assert_eq!(next().unwrap().unwrap(), MANY / 2);
            assert!(next().is_none());
        }
    });
}

both!(an_item_that_panics_costs_no_other_item, |map| {
    for pause in [0, 200] {
        let pool = ThreadPool::new(3);
        let items = if pause == 0 { MANY } else { 600 };
        let results = map!(pool, 0..items, move |n: usize| {
            if pause > 0 {
                thread::sleep(Duration::from_micros(pause));
            }
            if n % 5 == 3 {
                panic_any(n);
            }
            n
        });
        let value = |result: Result<usize, JoinError>| match result {
            Ok(n) => (n, true),
            Err(error) => (*error.into_panic().downcast().unwrap(), false),
        };
        let mut all: Vec<_> = results.into_iter().map(value).collect();
        all.sort_unstable();
        assert!(all.into_iter().eq((0..items).map(|n| (n, n % 5 != 3))));
        check_metrics(&pool);
    }
});

#[test]
fn the_order_is_kept_whatever_the_items_take() {
    within(LONG, "order", || {
        for workers in [1, 3] {
            let pool = ThreadPool::new(workers);
            let mixed = |n: usize| {
                if n % 211 == 0 {
                    thread::sleep(Duration::from_micros(300));
                }
                assert!(n % 97 != 5, "bad {n}");
                n
            };
            for buffer in [64, 1_000, usize::MAX] {
                let lazy = pool.map(0..MANY, mixed).buffer_size(buffer);
                for (n, result) in lazy.into_iter().enumerate() {
                    match n % 97 {
                        5 => assert!(result.unwrap_err().to_string().contains("bad")),
                        _ => assert_eq!(result.unwrap(), n),
                    }
                }
            }
            check_metrics(&pool);
        }
    });
}

both!(dropping_it_cancels_the_items_of_a_chunk_that_runs, |map| {
    for long in [200, MANY / 2] {
        let pool = ThreadPool::new(1);
        let token = Arc::new(());
        let one = OneLong::new(long);
        let (function, held) = (one.function(), Arc::clone(&token));
        let items = (0..MANY).map(move |n| (n, Arc::clone(&held)));
        let mut results = map!(pool, items, move |(n, _token): (usize, Arc<()>)| function(
            n
        ));
        assert!(results.wait_next().unwrap().is_ok());
        eventually("the long item runs", || one.ran.load(SeqCst) == long);
        drop(results);
        // The one that runs has its own; all others are gone.
        eventually("the items are dropped", || Arc::strong_count(&token) <= 2);
        one.gate.open();
        check_metrics(&pool);
        assert_eq!(one.ran.load(SeqCst), long + 1);
        assert_eq!(Arc::strong_count(&token), 1);
    }
});

both!(dropping_it_requests_the_end_of_every_running_item, |map| {
    let pool = ThreadPool::new(4);
    let running = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&running);
    let mut results = map!(pool, 0..MANY, move |n: usize| {
        if n >= 200 {
            count.fetch_add(1, SeqCst);
            while !futurepool::cancel_requested() {
                thread::yield_now();
            }
        }
    });
    assert!(results.wait_next().unwrap().is_ok());
    eventually("all workers run one", || running.load(SeqCst) == 4);
    drop(results);
    check_metrics(&pool);
    assert_eq!(running.load(SeqCst), 4);
});

both!(the_first_error_ends_it, |map| {
    let pool = ThreadPool::new(2);
    let ran = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&ran);
    let results = map!(pool, 0..MANY, move |n: usize| {
        assert!(n != 300, "bad item");
        count.fetch_add(1, SeqCst);
    });
    assert!(results.join().unwrap_err().to_string().contains("bad item"));
    check_metrics(&pool);
});

both!(the_buffer_is_never_exceeded, |map| {
    for workers in [1, 3] {
        let pool = ThreadPool::new(workers);
        for buffer in [1, 8, 64, 1_000, 20_000] {
            for blocking in [true, false] {
                let (pulls, items) = counted(0..);
                let mut results = map!(pool, items, |n: usize| n).buffer_size(buffer);
                for consumed in 1..MANY {
                    let result = match blocking {
                        true => results.wait_next(),
                        false => block_on(results.next()),
                    };
                    result.unwrap().unwrap();
                    let ahead = pulls.load(SeqCst) - consumed;
                    assert!(ahead <= buffer, "{ahead} of {buffer}");
                }
            }
        }
    }
});

both!(a_buffer_is_refilled_before_it_is_empty, |map| {
    let pool = ThreadPool::new(1);
    for (chunk, buffer) in [(1, 100), (10, 100), (10, 105), (50, 120)] {
        let (pulls, items) = counted(0..);
        let lazy = map!(pool, items, |n: usize| n).buffer_size(buffer);
        let mut results = lazy.chunk_size(chunk).start();
        for consumed in 1..500 {
            results.wait_next().unwrap().unwrap();
            let ahead = pulls.load(SeqCst) - consumed;
            assert!(
                ahead > buffer - chunk && ahead <= buffer,
                "{ahead} of {buffer}, {chunk}"
            );
        }
    }
});

both!(bounded_pools_are_not_overfilled, |map| {
    for (workers, capacity) in [(1, 1), (2, 1), (2, 4)] {
        let pool = Arc::new(bounded_pool(workers, capacity));
        let (own, peak) = (Arc::clone(&pool), Arc::new(AtomicUsize::new(0)));
        let highest = Arc::clone(&peak);
        let f = move |n: usize| {
            if n % 16 == 0 {
                highest.fetch_max(own.metrics().queued as usize, SeqCst);
            }
            n
        };
        let results = map!(pool, 0..MANY, f);
        assert!(sorted(results).into_iter().eq(0..MANY));
        // A helper may be one more.
        assert!(peak.load(SeqCst) <= capacity + 1);
    }
});

both!(the_only_worker_can_wait_for_many_items, |map| {
    for pool in [ThreadPool::new(1), bounded_pool(1, 1)] {
        let pool = Arc::new(pool);
        let own = Arc::clone(&pool);
        let nested = pool.submit(move || {
            for buffer in [100, usize::MAX] {
                let new = || map!(own, 0..MANY, |n: usize| n).buffer_size(buffer);
                assert!(sorted(new()).into_iter().eq(0..MANY));
                assert_eq!(new().join().unwrap().len(), MANY);
                assert_eq!(block_on(new()).unwrap().len(), MANY);
                let streamed = block_on(new().collect::<Vec<_>>());
                assert_eq!(sorted(streamed).len(), MANY);
                let slowly = |n: usize| {
                    thread::sleep(Duration::from_micros(150));
                    n
                };
                assert_eq!(map!(own, 0..300, slowly).join().unwrap().len(), 300);
            }
        });
        nested.join().unwrap();
        check_metrics(&pool);
    }
});

both!(nothing_is_lost_without_an_owner, |map| {
    for workers in [1, 3] {
        for capacity in [0, 1, 4] {
            for buffer in [5, 1_000, usize::MAX] {
                for way in 0..3 {
                    let pool = match capacity {
                        0 => ThreadPool::new(workers),
                        _ => bounded_pool(workers, capacity),
                    };
                    let ran = Arc::new(AtomicUsize::new(0));
                    let count = Arc::clone(&ran);
                    let lazy = map!(pool, 0..MANY, move |_: usize| count.fetch_add(1, SeqCst));
                    let lazy = match buffer {
                        usize::MAX => lazy,
                        buffer => lazy.buffer_size(buffer),
                    };
                    match way {
                        0 => lazy.detach(),
                        1 => drop(lazy.start()),
                        _ => drop(lazy.into_iter()),
                    }
                    if workers == 1 {
                        drop(pool);
                    } else {
                        check_metrics(&pool);
                    }
                    assert_eq!(
                        ran.load(SeqCst),
                        MANY,
                        "{workers} {capacity} {buffer} {way}"
                    );
                }
            }
        }
    }
});

both!(a_long_item_of_a_detached_map_holds_back_no_other, |map| {
    for pool in [ThreadPool::new(2), bounded_pool(2, 1)] {
        for long in [200, MANY - 2] {
            let one = OneLong::new(long);
            map!(pool, 0..MANY, one.function()).detach();
            one.wait_for_others(MANY);
            one.gate.open();
            pool.wait_idle().join();
        }
        check_metrics(&pool);
    }
});

both!(a_shutdown_loses_no_item_that_was_submitted, |map| {
    for workers in [1, 2] {
        let pool = ThreadPool::new(workers);
        let blocked = block_workers(&pool, workers);
        let results = map!(pool, 0..MANY, |n: usize| n).start();
        let shutdown = pool.shutdown();
        blocked.release();
        shutdown.join();
        assert!(sorted(results).into_iter().eq(0..MANY));
        check_metrics(&pool);
    }
});

both!(shutdown_now_ends_a_chunk_before_its_next_item, |map| {
    let pool = ThreadPool::new(1);
    let one = OneLong::new(MANY / 2);
    let results = map!(pool, 0..MANY, one.function()).start();
    eventually("the long item runs", || one.ran.load(SeqCst) == MANY / 2);
    let shutdown = pool.shutdown_now();
    one.gate.open();
    shutdown.join();
    assert_eq!(one.ran.load(SeqCst), MANY / 2 + 1);
    let results: Vec<_> = results.into_iter().collect();
    assert_eq!(results.len(), MANY);
    let (ok, bad): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!(ok.len(), MANY / 2 + 1);
    assert!(bad.into_iter().all(|bad| bad.unwrap_err().is_cancelled()));
    check_metrics(&pool);
});

both!(cancelling_the_queue_cancels_chunks, |map| {
    let pool = ThreadPool::new(1);
    let blocked = block_workers(&pool, 1);
    let token = Arc::new(());
    let items = std::iter::repeat_n(Arc::clone(&token), MANY);
    let results = map!(pool, items, drop::<Arc<()>>).start();
    assert!(pool.cancel_pending() > 128);
    assert_eq!(
        Arc::strong_count(&token),
        1,
        "the items are dropped at once"
    );
    let results: Vec<_> = results.into_iter().collect();
    assert_eq!(results.len(), MANY);
    for result in results {
        assert!(result.unwrap_err().is_cancelled());
    }
    drop(blocked);
    check_metrics(&pool);
});

both!(a_timeout_ends_a_map_with_chunks, |map| {
    for blocking in [true, false] {
        let pool = ThreadPool::new(1);
        let one = OneLong::new(MANY / 2);
        let limit = Duration::from_millis(300);
        let mut results = map!(pool, 0..MANY, one.function()).timeout(limit).start();
        let mut next = || match blocking {
            true => results.wait_next(),
            false => block_on(results.next()),
        };
        eventually("the long item runs", || one.ran.load(SeqCst) == MANY / 2);
        let mut yielded = 0;
        let error = loop {
            match next().unwrap() {
                Ok(_) => yielded += 1,
                Err(error) => break error,
            }
        };
        assert!(error.is_timeout());
        assert_eq!(yielded, MANY / 2, "what was complete is yielded");
        assert!(next().is_none());
        drop(results);
        one.gate.open();
        check_metrics(&pool);
        assert_eq!(one.ran.load(SeqCst), MANY / 2 + 1);
    }
});

both!(
    an_input_that_waits_for_results_of_earlier_items_does_not_hang,
    |map| {
        // Each item sends the next input.
        let pool = ThreadPool::new(2);
        let (sender, receiver) = mpsc::channel();
        sender.send(0).unwrap();
        let inputs = std::iter::from_fn(move || receiver.recv().ok().filter(|n| *n < MANY));
        let results = map!(pool, inputs, move |n: usize| {
            sender.send(n + 1).unwrap();
            n
        });
        assert!(sorted(results).into_iter().eq(0..MANY));
    }
);

#[test]
fn maps_can_be_chained() {
    within(LONG, "chain", || {
        for pool in [ThreadPool::new(2), bounded_pool(2, 1)] {
            let first = pool.map(0..MANY, |n| n + 1).into_iter().map(Result::unwrap);
            let second = pool.map(first, |n| n * 2).join().unwrap();
            assert!(second.into_iter().eq((0..MANY).map(|n| 2 * (n + 1))));
        }
    });
}

both!(scoped_items_borrow_and_panics_come_out, |map| {
    let pool = ThreadPool::new(2);
    let numbers: Vec<usize> = (0..MANY).collect();
    let sum = AtomicUsize::new(0);
    let all = pool.scope(|scope| {
        map!(scope, &numbers, |n: &usize| sum.fetch_add(*n, SeqCst)).detach();
        map!(scope, &numbers, |n: &usize| *n).join().unwrap().len()
    });
    assert_eq!((all, sum.into_inner()), (MANY, MANY * (MANY - 1) / 2));
    // A panic that the map yields is no failure of the scope.
    let errors = pool.scope(|scope| {
        let results = map!(scope, &numbers, |n: &usize| assert!(n % 1_000 != 999));
        results.into_iter().filter(Result::is_err).count()
    });
    assert_eq!(errors, MANY / 1_000);
    // One that it does not yield is.
    let payload = catch_unwind(AssertUnwindSafe(|| {
        pool.scope(|scope| {
            let bad = |n: &usize| {
                if *n == 1_000 {
                    panic_any(*n);
                }
            };
            map!(scope, &numbers, bad).detach();
        });
    }));
    assert_eq!(payload.unwrap_err().downcast_ref(), Some(&1_000_usize));
});

both!(a_helper_that_does_not_run_is_no_failure_of_a_scope, |map| {
    let pool = ThreadPool::new(2);
    let blocked = block_workers(&pool, 1);
    // The item is in the last chunk, so a helper is queued behind it.
    let one = OneLong::new(MANY - 3);
    pool.scope(|scope| {
        let results = map!(scope, 0..MANY, one.function()).start();
        eventually("the long item runs", || one.ran.load(SeqCst) == MANY - 3);
        drop(pool.shutdown_now());
        one.gate.open();
        let ok = results.into_iter().filter(Result::is_ok).count();
        assert_eq!(ok, MANY - 2);
    });
    drop(blocked);
    check_metrics(&pool);
});

#[test]
fn a_task_is_woken_for_each_part_of_a_map() {
    within(LONG, "task", || {
        let pool = ThreadPool::new(2);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let sum = runtime.block_on(async {
            let mut results = pool
                .map_unordered(0..20 * MANY, |n: usize| n)
                .buffer_size(3_000);
            let mut sum = 0;
            while let Some(result) = results.next().await {
                sum += result.unwrap();
            }
            sum
        });
        assert_eq!(sum, 20 * MANY * (20 * MANY - 1) / 2);
    });
}

both!(random_maps_lose_no_item, |map| {
    for seed in 0..60 {
        let mut random = Random(seed);
        let workers = 1 + random.below(4);
        let pool = match random.below(3) {
            0 => ThreadPool::new(workers),
            1 => bounded_pool(workers, 1),
            _ => bounded_pool(workers, 5),
        };
        let items = random.below(3_000);
        let ran: Arc<Vec<AtomicUsize>> =
            Arc::new((0..items).map(|_| AtomicUsize::new(0)).collect());
        let (count, long, bad) = (
            Arc::clone(&ran),
            10 + random.below(500),
            10 + random.below(500),
        );
        let mut lazy = map!(pool, 0..items, move |n: usize| {
            count[n].fetch_add(1, SeqCst);
            if n % long == 9 {
                thread::sleep(Duration::from_micros(200));
            }
            assert!(n % bad != 9, "bad item");
            n
        });
        if random.below(2) == 0 {
            lazy = lazy.buffer_size(1 + random.below(2_000));
        }
        let is_complete = match random.below(5) {
            0 => {
                lazy.detach();
                true
            }
            1 => {
                drop(lazy.start());
                true
            }
            2 => {
                let some = random.below(items + 1);
                lazy.into_iter().take(some).for_each(drop);
                some == 0
            }
            way => {
                let results = match way {
                    3 => lazy.into_iter().collect(),
                    _ => block_on(lazy.collect::<Vec<_>>()),
                };
                let (ok, errors): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
                let good = (0..items).filter(|n| n % bad != 9);
                assert!(sorted(ok).into_iter().eq(good), "seed {seed}");
                assert!(
                    errors
                        .into_iter()
                        .all(|error| error.unwrap_err().is_panic())
                );
                true
            }
        };
        check_metrics(&pool);
        let most = ran.iter().map(|times| times.load(SeqCst)).max();
        assert!(most.unwrap_or(1) <= 1, "seed {seed}: an item ran twice");
        let total: usize = ran.iter().map(|times| times.load(SeqCst)).sum();
        assert!(
            !is_complete || total == items,
            "seed {seed}: {total} of {items} ran"
        );
    }
});
