//! Chunks that burst or are split while they run: order, results, rescue and the end of the map.

use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{Gate, LONG, Random, block_workers, bounded_pool, eventually, within};
use futurepool::{ThreadPool, block_on};
use futures::StreamExt;

/// Takes long enough for its chunk to burst.
fn take_long() {
    thread::sleep(Duration::from_micros(500));
}

#[test]
fn the_order_is_kept_when_a_burst_finds_few_permits() {
    within(LONG, "order", || {
        for capacity in [1, 4, 8, 64] {
            for round in 0..4 {
                let pool = bounded_pool(2, capacity);
                let f = |n| {
                    if n >= 300 {
                        take_long();
                    }
                    n
                };
                let results = pool.map(0..600, f).join().unwrap();
                assert!(results.into_iter().eq(0..600), "{capacity}, {round}");
            }
        }
    });
}

#[test]
fn random_maps_keep_the_order() {
    within(LONG, "random order", || {
        for seed in 0..40 {
            let mut random = Random(seed);
            let workers = 1 + random.below(4);
            let pool = match random.below(4) {
                0 => ThreadPool::new(workers),
                capacity => bounded_pool(workers, [1, 5, 50][capacity - 1]),
            };
            let items = 200 + random.below(800);
            let tiny = random.below(200);
            let f = move |n| {
                if n % 200 >= tiny {
                    take_long();
                }
                n
            };
            let mut map = pool.map(0..items, f);
            if random.one_in(2) {
                map = map.buffer_size(1 + random.below(900));
            }
            let results: Vec<_> = match random.one_in(2) {
                true => map.into_iter().map(Result::unwrap).collect(),
                false => block_on(map.map(Result::unwrap).collect()),
            };
            assert!(results.into_iter().eq(0..items), "seed {seed}");
        }
    });
}

#[test]
fn panics_of_scoped_items_are_in_their_places() {
    within(LONG, "panics", || {
        for pool in [ThreadPool::new(3), bounded_pool(3, 4)] {
            let f = |n: usize| {
                if n % 100 > 90 {
                    take_long();
                }
                match n % 3 {
                    0 => panic_any(n),
                    _ => n,
                }
            };
            pool.scope(|scope| {
                for (place, result) in scope.map(0..1_500, f).into_iter().enumerate() {
                    let number = result
                        .unwrap_or_else(|error| *error.into_panic().downcast().expect("a number"));
                    assert_eq!(number, place);
                }
            });
        }
    });
}

/// The chunk of the items 256 to 259 is split while the map waits for 256.
fn a_result_comes_after_a_split(next: fn(&mut futurepool::Map<'static, usize>) -> Option<usize>) {
    let pool = ThreadPool::new(2);
    let [first, second] = [(); 2].map(|()| block_workers(&pool, 1));
    let gates: Arc<Vec<Gate>> = Arc::new((0..4).map(|_| Gate::new()).collect());
    let started = Arc::new(Mutex::new(Vec::new()));
    let (own, log) = (Arc::clone(&gates), Arc::clone(&started));
    let f = move |n: usize| {
        log.lock().unwrap().push(n);
        if n >= 256 {
            own[n - 256].wait();
        }
        n
    };
    let mut map = pool.map(0..260, f).start();
    let has_started = |n: usize| {
        eventually("the item starts", || started.lock().unwrap().contains(&n));
    };
    first.release();
    let (tell, told) = mpsc::channel::<usize>();
    let consumer = thread::spawn(move || {
        while let Some(result) = next(&mut map) {
            tell.send(result).unwrap();
        }
    });
    for n in 0..256 {
        assert_eq!(told.recv_timeout(LONG), Ok(n));
    }
    has_started(256);
    // Time is the subject: after a millisecond without a result the map asks for each one.
    thread::sleep(Duration::from_millis(50));
    second.release();
    has_started(258);
    gates[0].open();
    has_started(257);
    assert_eq!(told.recv_timeout(LONG), Ok(256), "257 has not ended");
    gates.iter().for_each(Gate::open);
    consumer.join().unwrap();
}

#[test]
fn a_result_that_is_there_is_yielded_after_a_split() {
    within(LONG, "blocking", || {
        a_result_comes_after_a_split(|map| map.wait_next().map(Result::unwrap));
    });
    within(LONG, "async", || {
        a_result_comes_after_a_split(|map| {
            futures::executor::block_on(map.next()).map(Result::unwrap)
        });
    });
}

/// Counts the items of a map that have ended, except the item 256, which waits for a gate.
fn all_but_one(
    input: impl Iterator<Item = usize> + Send + 'static,
    pool: &ThreadPool,
) -> (futurepool::Map<'static, usize>, Arc<AtomicUsize>, Gate) {
    let (gate, ended) = (Gate::new(), Arc::new(AtomicUsize::new(0)));
    let (own, count) = (gate.clone(), Arc::clone(&ended));
    let map = pool.map(input, move |n| {
        if n == 256 {
            own.wait();
        } else {
            count.fetch_add(1, SeqCst);
        }
        n
    });
    (map, ended, gate)
}

#[test]
fn an_input_that_waits_keeps_no_item_of_a_chunk() {
    within(LONG, "an input that waits", || {
        let pool = ThreadPool::new(2);
        let (send, more) = mpsc::channel();
        let (map, ended, gate) = all_but_one((0..260).chain(more), &pool);
        let consumer = thread::spawn(move || map.join().unwrap().len());
        eventually("the others end", || ended.load(SeqCst) == 259);
        gate.open();
        drop(send);
        assert_eq!(consumer.join().unwrap(), 260);
    });
}

#[test]
fn an_input_that_panics_keeps_no_item_of_a_chunk() {
    within(LONG, "an input that panics", || {
        let pool = ThreadPool::new(2);
        let input = (0..400).inspect(|n| assert!(*n != 300, "on purpose"));
        let (mut map, ended, gate) = all_but_one(input, &pool);
        let blocked = block_workers(&pool, 2);
        let next = catch_unwind(AssertUnwindSafe(|| map.wait_next().is_some()));
        assert!(next.is_err());
        blocked.release();
        eventually("the others end", || ended.load(SeqCst) == 299);
        gate.open();
        drop(map);
    });
}

#[test]
fn a_map_that_has_ended_leaves_no_job_behind() {
    within(LONG, "left behind", || {
        let pool = Arc::new(ThreadPool::new(1));
        let (own, ended) = (Arc::clone(&pool), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&ended);
        let token = Arc::new(());
        let held = Arc::clone(&token);
        // The last item that is a job of its own queues many jobs before the map can ask for help.
        let f = move |n| {
            let _held = &held;
            if n == 127 {
                for _ in 0..1_000 {
                    let count = Arc::clone(&count);
                    drop(own.submit(move || {
                        thread::sleep(Duration::from_millis(1));
                        count.fetch_add(1, SeqCst);
                    }));
                }
            }
            n
        };
        let blocked = block_workers(&pool, 1);
        let map = pool.map(0..130, f).start();
        blocked.release();
        assert_eq!(map.join().unwrap().len(), 130);
        eventually("the function is gone", || Arc::strong_count(&token) == 1);
        assert!(ended.load(SeqCst) < 1_000, "only after all other jobs");
        pool.cancel_queued();
        pool.wait_idle().join();
        let metrics = pool.metrics();
        let ended = metrics.completed + metrics.panicked + metrics.cancelled;
        assert_eq!(metrics.submitted, ended);
    });
}

#[test]
fn a_shutdown_during_a_burst_loses_no_item_of_a_detached_map() {
    within(LONG, "shutdown", || {
        for round in 0..20 {
            let pool = ThreadPool::new(2);
            let (ran, is_slow) = (
                Arc::new(AtomicUsize::new(0)),
                Arc::new(AtomicBool::new(true)),
            );
            let (count, slow) = (Arc::clone(&ran), Arc::clone(&is_slow));
            let f = move |n| {
                if n >= 9_000 && slow.load(SeqCst) {
                    take_long();
                }
                count.fetch_add(1, SeqCst);
            };
            pool.map(0..30_000, f).buffer_size(16_000).detach();
            eventually("the slow items start", || ran.load(SeqCst) >= 9_000);
            // A burst submits many jobs. If there is none, the round proves nothing.
            let before = pool.metrics().submitted;
            let start = Instant::now();
            while pool.metrics().submitted < before + 20 + round
                && start.elapsed() < Duration::from_millis(100)
            {}
            drop(pool.shutdown());
            is_slow.store(false, SeqCst);
            pool.shutdown().join();
            assert_eq!(ran.load(SeqCst), 30_000, "{round}: {:?}", pool.metrics());
        }
    });
}
