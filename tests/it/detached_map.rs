//! Maps that run without their owner: detached, or started and dropped before they were asked for a
//! result.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use crate::common::event_log::EventLog;
use crate::common::{
    Gate, LONG, block_workers, bounded_pool, child, eventually, noop_context, within,
};
use crate::map::{both, counted};
use futurepool::{Executor, ExecutorExt, InlineExecutor, Job, ThreadPool};
use futures::StreamExt;
use tracing::Level;

/// Counts how often each of some items was processed.
#[derive(Clone)]
struct Ran(Arc<Vec<AtomicUsize>>);

impl Ran {
    fn new(items: usize) -> Self {
        Self(Arc::new((0..items).map(|_| AtomicUsize::new(0)).collect()))
    }

    fn function(&self) -> impl Fn(usize) + Send + Sync + 'static {
        let own = self.clone();
        move |n| {
            own.0[n].fetch_add(1, SeqCst);
        }
    }

    fn total(&self) -> usize {
        self.0.iter().map(|times| times.load(SeqCst)).sum()
    }

    #[track_caller]
    fn assert_each_once(&self, what: &str) {
        let times: Vec<_> = self.0.iter().map(|times| times.load(SeqCst)).collect();
        assert!(times.iter().all(|times| *times == 1), "{what}: {times:?}");
    }
}

/// The pools on which nothing may be lost, each with its description.
fn pools() -> Vec<(String, ThreadPool)> {
    let mut pools = Vec::new();
    for workers in [1, 3] {
        pools.push((format!("{workers} workers"), ThreadPool::new(workers)));
        for capacity in [1, 4] {
            let what = format!("{workers} workers, capacity {capacity}");
            pools.push((what, bounded_pool(workers, capacity)));
        }
    }
    pools
}

/// Pairs of `chunk_size` and `buffer_size`.
const OPTIONS: [(usize, Option<usize>); 6] = [
    (1, None),
    (4, None),
    (1, Some(1)),
    (1, Some(3)),
    (2, Some(5)),
    (7, Some(3)),
];

const ITEMS: usize = 25;

both!(
    a_started_map_loses_nothing_even_if_the_pool_is_dropped_next,
    |map| {
        for (chunk, buffer) in OPTIONS {
            for way in 0..5 {
                for (what, pool) in pools() {
                    let what = format!("{what}, chunk {chunk}, buffer {buffer:?}, way {way}");
                    let ran = Ran::new(ITEMS);
                    let mut lazy = map!(pool, 0..ITEMS, ran.function()).chunk_size(chunk);
                    if let Some(buffer) = buffer {
                        lazy = lazy.buffer_size(buffer);
                    }
                    match way {
                        0 => {
                            let _ = lazy.start();
                        }
                        1 => lazy.detach(),
                        2 => drop(lazy.into_iter()),
                        3 => drop(std::future::IntoFuture::into_future(lazy.start())),
                        // A timeout has no effect.
                        _ => lazy.timeout(Duration::ZERO).detach(),
                    }
                    drop(pool);
                    ran.assert_each_once(&what);
                }
            }
        }
    }
);

both!(
    nothing_is_lost_if_the_pool_is_shut_down_while_items_are_left,
    |map| {
        for (chunk, buffer) in OPTIONS {
            let pool = bounded_pool(2, 2);
            let blocked = block_workers(&pool, 2);
            let ran = Ran::new(ITEMS);
            let mut lazy = map!(pool, 0..ITEMS, ran.function()).chunk_size(chunk);
            if let Some(buffer) = buffer {
                lazy = lazy.buffer_size(buffer);
            }
            lazy.detach();
            // From here on the pool accepts no job, so the running ones process what is left.
            let shutdown = pool.shutdown();
            assert_eq!(ran.total(), 0);
            blocked.release();
            shutdown.join();
            ran.assert_each_once(&format!("chunk {chunk}, buffer {buffer:?}"));
            assert_eq!(pool.metrics().rejected, 0);
        }
    }
);

both!(a_map_that_was_never_started_runs_nothing, |map| {
    let pool = bounded_pool(1, 1);
    let (pulls, items) = counted(0..3);
    drop(map!(pool, items, |n: usize| n).buffer_size(1));
    pool.shutdown().join();
    assert_eq!((pulls.load(SeqCst), pool.metrics().submitted), (0, 0));
});

both!(a_map_that_was_asked_and_is_then_detached_runs_on, |map| {
    for pool in [bounded_pool(1, 1), ThreadPool::new(1)] {
        let blocked = block_workers(&pool, 1);
        let ran = Ran::new(ITEMS);
        let mut results = map!(pool, 0..ITEMS, ran.function()).buffer_size(2);
        assert!(results.poll_next_unpin(&mut noop_context()).is_pending());
        results.detach();
        blocked.release();
        drop(pool);
        ran.assert_each_once("asked, then detached");
    }
});

both!(the_buffer_limits_the_jobs_in_flight, |map| {
    for (chunk, buffer, jobs) in [(1, 1, 1), (1, 2, 2), (2, 5, 2), (3, 3, 1)] {
        for pool in [ThreadPool::new(4), bounded_pool(4, 8)] {
            let gate = Gate::new();
            let (opened, ran) = (gate.clone(), Ran::new(40));
            let (now, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let (function, highest) = (ran.function(), Arc::clone(&peak));
            let results = map!(pool, 0..40, move |n: usize| {
                highest.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                opened.wait();
                // The others get the chance to run at the same time.
                (0..50).for_each(|_| thread::yield_now());
                function(n);
                now.fetch_sub(1, SeqCst);
            });
            results.chunk_size(chunk).buffer_size(buffer).detach();
            eventually("they run", || pool.metrics().running == jobs);
            assert_eq!(pool.metrics().submitted, jobs);
            gate.open();
            pool.shutdown().join();
            ran.assert_each_once("in a buffer");
            let peak = peak.load(SeqCst) as u64;
            assert!(peak <= jobs, "{peak} at once, with {chunk} in {buffer}");
        }
    }
});

both!(jobs_of_before_the_drop_count_in_the_buffer, |map| {
    let pool = ThreadPool::new(4);
    let gate = Gate::new();
    let opened = gate.clone();
    let ran = Ran::new(10);
    let function = ran.function();
    let results = map!(pool, 0..10, move |n: usize| {
        opened.wait();
        function(n);
    });
    let results = results.buffer_size(3).start();
    eventually("three run", || pool.metrics().running == 3);
    drop(results);
    assert_eq!(pool.metrics().submitted, 3);
    gate.open();
    pool.shutdown().join();
    ran.assert_each_once("before the drop");
});

both!(the_capacity_is_kept_unless_no_job_is_in_flight, |map| {
    // The map has jobs in flight, so it waits for room.
    let pool = bounded_pool(1, 2);
    let blocked = block_workers(&pool, 1);
    map!(pool, 0..ITEMS, |n: usize| n).detach();
    assert_eq!(pool.metrics().queued, 2);
    assert!(pool.try_submit(|| ()).unwrap_err().is_full());
    blocked.release();
    eventually("all have run", || {
        pool.metrics().completed as usize == ITEMS + 1
    });
    // The queue is full of other jobs: one of the map's is added.
    let pool = Arc::new(bounded_pool(1, 2));
    let blocked = block_workers(&pool, 1);
    let others = [(); 2].map(|()| pool.submit(|| ()));
    let (own, peak) = (Arc::clone(&pool), Arc::new(AtomicUsize::new(0)));
    let highest = Arc::clone(&peak);
    let results = map!(pool, 0..ITEMS, move |n: usize| {
        highest.fetch_max(own.metrics().queued as usize, SeqCst);
        n
    });
    results.detach();
    assert_eq!(pool.metrics().queued, 3);
    blocked.release();
    for other in others {
        other.join().unwrap();
    }
    eventually("all have run", || {
        pool.metrics().completed as usize == ITEMS + 3
    });
    assert!(peak.load(SeqCst) <= 2);
});

/// Items that hold a token, so that a test sees when they are dropped.
fn tokens(token: &Arc<()>) -> impl Iterator<Item = (usize, Arc<()>)> + use<> {
    let token = Arc::clone(token);
    (0..ITEMS).map(move |n| (n, Arc::clone(&token)))
}

both!(shutdown_now_cancels_what_is_left, |map| {
    for buffer in [1, 2] {
        let pool = bounded_pool(1, 1);
        let (gate, ran) = (Gate::new(), Ran::new(ITEMS));
        let (token, opened, function) = (Arc::new(()), gate.clone(), ran.function());
        let (begun, begins) = mpsc::channel();
        let results = map!(pool, tokens(&token), move |(n, _token): (
            usize,
            Arc<()>
        )| {
            begun.send(()).unwrap();
            opened.wait();
            function(n);
        });
        results.buffer_size(buffer).detach();
        begins.recv_timeout(LONG).unwrap();
        let shutdown = pool.shutdown_now();
        gate.open();
        shutdown.join();
        assert_eq!(ran.total(), 1);
        eventually("the items are dropped", || Arc::strong_count(&token) == 1);
    }
});

both!(
    cancelling_a_queued_job_of_the_map_cancels_what_is_left,
    |map| {
        let pool = bounded_pool(1, 1);
        let (gate, ran) = (Gate::new(), Ran::new(ITEMS));
        let (token, opened, function) = (Arc::new(()), gate.clone(), ran.function());
        let (begun, begins) = mpsc::channel();
        let results = map!(pool, tokens(&token), move |(n, _token): (
            usize,
            Arc<()>
        )| {
            begun.send(()).unwrap();
            opened.wait();
            function(n);
        });
        let results = results.start();
        begins.recv_timeout(LONG).unwrap();
        results.detach();
        eventually("the next one is queued", || pool.metrics().queued == 1);
        assert_eq!(pool.cancel_pending(), 1);
        eventually("the rest is dropped", || Arc::strong_count(&token) == 2);
        gate.open();
        eventually("the first ends", || pool.metrics().completed == 1);
        pool.submit(|| ()).join().unwrap();
        assert_eq!(ran.total(), 1);
        eventually("the items are dropped", || Arc::strong_count(&token) == 1);
    }
);

both!(a_ticket_that_is_cancelled_takes_the_rest_along, |map| {
    // The only job of the map is one that was submitted by the drop.
    let pool = bounded_pool(1, 1);
    let blocked = block_workers(&pool, 1);
    let other = pool.submit(|| ());
    let token = Arc::new(());
    map!(pool, tokens(&token), |_: (usize, Arc<()>)| ()).detach();
    assert_eq!(pool.metrics().queued, 2);
    assert!(Arc::strong_count(&token) > 1);
    assert_eq!(pool.cancel_pending(), 2);
    assert_eq!(Arc::strong_count(&token), 1);
    assert!(other.join().unwrap_err().is_cancelled());
    blocked.release();
});

both!(a_pool_that_breaks_drops_what_is_left, |map| {
    let gate = Gate::new();
    let opened = gate.clone();
    let initializer = move || {
        opened.wait();
        Err::<(), _>("no connection")
    };
    let builder = ThreadPool::builder().max_workers(1).queue_capacity(1);
    let pool = builder.initializer(initializer).build().unwrap();
    let token = Arc::new(());
    map!(pool, tokens(&token), |_: (usize, Arc<()>)| unreachable!()).detach();
    gate.open();
    eventually("the items are dropped", || Arc::strong_count(&token) == 1);
});

both!(an_endless_input_is_not_taken_any_further, |map| {
    for started in [true, false] {
        let pool = bounded_pool(1, 2);
        let blocked = block_workers(&pool, 1);
        let (pulls, items) = counted(0..);
        let ran = Ran::new(5);
        let results = map!(pool, items, ran.function()).buffer_size(5);
        match started {
            true => drop(results.start()),
            false => results.detach(),
        }
        let taken = pulls.load(SeqCst);
        assert!(taken <= 5, "{taken} taken");
        blocked.release();
        pool.shutdown().join();
        // What was taken has run, though the pool had no room for all of it.
        assert_eq!(pulls.load(SeqCst), taken);
        assert_eq!(ran.total(), taken);
    }
});

both!(an_input_that_panics_loses_no_item_before_the_panic, |map| {
    let input = || {
        (0..).inspect(|n| {
            assert!(*n < 5, "bad input");
        })
    };
    // `usize::MAX` as the lower bound would stop it before the panic.
    let input = || input().take(1_000);
    for (chunk, buffer) in OPTIONS {
        for (what, pool) in pools() {
            for detached in [true, false] {
                let ran = Ran::new(5);
                let mut lazy = map!(pool, input(), ran.function()).chunk_size(chunk);
                if let Some(buffer) = buffer {
                    lazy = lazy.buffer_size(buffer);
                }
                match detached {
                    true => lazy.detach(),
                    // `start` passes the panic on, and the drop contains it.
                    false => {
                        let _ = catch_unwind(AssertUnwindSafe(|| drop(lazy.start())));
                    }
                }
                let what = format!("{what}, {chunk} in {buffer:?}, detached: {detached}");
                eventually(&what, || ran.total() == 5);
                ran.assert_each_once(&what);
            }
        }
    }
});

both!(
    items_that_panic_and_destructors_that_panic_lose_no_other_item,
    |map| {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                if !thread::panicking() {
                    panic!("a destructor");
                }
            }
        }
        for (chunk, buffer) in OPTIONS {
            let pool = bounded_pool(2, 1);
            let ran = Ran::new(ITEMS);
            let (function, bomb) = (ran.function(), Bomb);
            let items = (0..ITEMS).map(|n| (n, Bomb));
            let mut lazy = map!(pool, items, move |(n, item): (usize, Bomb)| {
                let _ = &bomb;
                function(n);
                assert!(n % 3 != 0, "an item");
                item
            });
            lazy = lazy.chunk_size(chunk);
            if let Some(buffer) = buffer {
                lazy = lazy.buffer_size(buffer);
            }
            lazy.detach();
            pool.shutdown().join();
            ran.assert_each_once(&format!("{chunk} in {buffer:?}"));
        }
    }
);

both!(the_only_worker_of_a_full_pool_can_detach_a_map, |map| {
    for buffer in [1, 100] {
        let pool = Arc::new(bounded_pool(1, 1));
        let ran = Ran::new(ITEMS);
        let (own, function) = (Arc::clone(&pool), ran.function());
        let detach = pool.submit(move || {
            let other = own.submit(|| ());
            map!(own, 0..ITEMS, function).buffer_size(buffer).detach();
            other
        });
        detach.join().unwrap().join().unwrap();
        pool.shutdown().join();
        ran.assert_each_once("in a worker");
    }
});

both!(
    a_map_that_is_detached_after_the_shutdown_runs_what_was_accepted,
    |map| {
        let pool = bounded_pool(1, 1);
        let ran = Ran::new(ITEMS);
        let results = map!(pool, 0..ITEMS, ran.function()).buffer_size(1).start();
        pool.shutdown().join();
        assert_eq!(ran.total(), 1);
        drop(results);
        assert_eq!(
            ran.total(),
            1,
            "nothing runs on the thread that drops the map"
        );
    }
);

#[test]
fn items_that_a_closed_pool_does_not_run_are_reported() {
    child::alone(
        "detached_map::items_that_a_closed_pool_does_not_run_are_reported",
        || {
            EventLog::install();
            let pool = bounded_pool(1, 1);
            let line = line!() + 1;
            let results = pool.map(0..ITEMS, |n| n).buffer_size(1).start();
            pool.shutdown().join();
            drop(results);
            let place = format!("detached_map.rs:{line}");
            let items = format!("items={}", ITEMS - 1);
            assert!(EventLog::contains_at(
                Level::WARN,
                &["did not run", &items, &place]
            ));
            let line = line!() + 1;
            pool.map(0..ITEMS, |n| n).detach();
            let place = format!("detached_map.rs:{line}");
            let words = ["did not run", "shut down", &place];
            assert!(EventLog::contains_at(Level::WARN, &words));
        },
    );
}

#[test]
fn items_that_are_lost_with_a_job_that_expired_are_reported() {
    child::alone(
        "detached_map::items_that_are_lost_with_a_job_that_expired_are_reported",
        || {
            EventLog::install();
            let builder = ThreadPool::builder().max_workers(1).queue_capacity(1);
            let timeout = Duration::from_millis(200);
            let pool = builder.queue_timeout(timeout).build().unwrap();
            let blocked = block_workers(&pool, 1);
            let line = line!() + 1;
            pool.map(0..ITEMS, |n| n).chunk_size(1).detach();
            let place = format!("detached_map.rs:{line}");
            let words = ["did not run", "has expired", "items=", &place];
            eventually("the report", || EventLog::contains_at(Level::WARN, &words));
            blocked.release();
            pool.wait_idle().join();
            let metrics = pool.metrics();
            assert_eq!((metrics.completed, metrics.expired), (1, 1));
        },
    );
}

/// Keeps the jobs that it is given.
#[derive(Default)]
struct Held(Mutex<Vec<Job>>);

impl Executor for Held {
    fn execute(&self, job: Job) {
        self.0.lock().unwrap().push(job);
    }
}

impl Held {
    fn take(&self) -> Vec<Job> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

both!(
    on_another_executor_the_running_jobs_process_what_is_left,
    |map| {
        let executor = Held::default();
        let ran = Ran::new(ITEMS);
        map!(executor, 0..ITEMS, ran.function())
            .buffer_size(2)
            .detach();
        let jobs = executor.take();
        assert_eq!(jobs.len(), 2);
        drop(executor);
        // The first job goes on until nothing is left that it can take; the other has an item of
        // its own.
        jobs.into_iter().for_each(Job::run);
        ran.assert_each_once("held");
    }
);

both!(on_another_executor_the_drop_submits_if_no_job_runs, |map| {
    let executor = Held::default();
    let ran = Ran::new(ITEMS);
    let results = map!(executor, 0..ITEMS, ran.function())
        .buffer_size(2)
        .start();
    executor.take().into_iter().for_each(Job::run);
    assert_eq!(ran.total(), 2);
    drop(results);
    let jobs = executor.take();
    assert!((1..=2).contains(&jobs.len()), "{} jobs", jobs.len());
    jobs.into_iter().for_each(Job::run);
    ran.assert_each_once("dropped");
    // One that runs jobs at once.
    let ran = Ran::new(ITEMS);
    map!(InlineExecutor, 0..ITEMS, ran.function())
        .buffer_size(3)
        .detach();
    ran.assert_each_once("inline");
    let ran = Ran::new(ITEMS);
    let _ = map!(InlineExecutor, 0..ITEMS, ran.function()).start();
    ran.assert_each_once("inline, without a buffer");
});

both!(
    an_executor_that_drops_a_job_of_a_detached_map_drops_what_is_left,
    |map| {
        let executor = Held::default();
        let token = Arc::new(());
        map!(executor, tokens(&token), |_: (usize, Arc<()>)| ())
            .buffer_size(2)
            .detach();
        assert!(Arc::strong_count(&token) > ITEMS);
        drop(executor.take());
        assert_eq!(Arc::strong_count(&token), 1);
        /// Drops each job at once.
        struct Drops;
        impl Executor for Drops {
            fn execute(&self, job: Job) {
                drop(job);
            }
        }
        map!(Drops, tokens(&token), |_: (usize, Arc<()>)| ())
            .buffer_size(2)
            .detach();
        assert_eq!(Arc::strong_count(&token), 1);
    }
);

both!(many_maps_are_detached_while_the_pool_is_shut_down, |map| {
    for round in 0..20 {
        let pool = bounded_pool(3, 2);
        let all: Vec<_> = (0..4).map(|_| Ran::new(ITEMS)).collect();
        thread::scope(|threads| {
            for (n, ran) in all.iter().enumerate() {
                let pool = &pool;
                threads.spawn(move || {
                    let results = map!(pool, 0..ITEMS, ran.function());
                    results
                        .chunk_size(1 + n % 2)
                        .buffer_size(2 + round % 3)
                        .detach();
                });
            }
        });
        // Some of the items are being processed, and some are left.
        drop(pool);
        for ran in all {
            ran.assert_each_once("at the shutdown");
        }
    }
});

#[test]
fn the_rest_does_not_wait_for_a_slow_item_while_workers_are_free() {
    within(LONG, "a slow first item", || {
        let pool = bounded_pool(4, 1);
        let blocked = block_workers(&pool, 4);
        let slow = Gate::new();
        let held = slow.clone();
        let (tell, told) = mpsc::channel();
        let f = move |n: usize| {
            if n == 0 {
                held.wait();
            }
            tell.send(n).unwrap();
        };
        pool.map(0..100, f).detach();
        blocked.release();
        // All other items come while the first one still runs.
        for _ in 1..100 {
            assert_ne!(told.recv_timeout(LONG).unwrap(), 0);
        }
        slow.open();
        assert_eq!(told.recv_timeout(LONG), Ok(0));
    });
}

#[test]
fn items_of_a_detached_map_may_wait_for_each_other() {
    within(LONG, "a barrier of two items", || {
        let pool = bounded_pool(2, 1);
        let barrier = Arc::new(std::sync::Barrier::new(2));
        pool.map(0..4, move |_| barrier.wait().is_leader()).detach();
        pool.wait_idle().join();
        assert_eq!(pool.metrics().completed, 4);
    });
}
