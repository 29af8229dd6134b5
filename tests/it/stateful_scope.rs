//! `StatefulPool::scope`: jobs that borrow and get a state, and the end of a scope in a worker.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use crate::common::{Gate, LONG, ThreadState, eventually, message_of, within};
use futurepool::{StatefulPool, StatefulPoolBuilder, StatefulScope, ThreadPool, block_on};
use futures::StreamExt;

/// Asserts that this is the message of a scope whose jobs no worker could reach.
#[track_caller]
fn assert_unreachable(message: &str) {
    for part in [
        "deadlock",
        "end of a scope",
        "stateful_scope.rs",
        "did not run",
        "more workers",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

/// Not `Send`. Counts its uses, and its drop.
struct State {
    uses: Rc<Cell<usize>>,
    dropped: Arc<AtomicUsize>,
}

impl State {
    fn use_it(&mut self) -> usize {
        self.uses.set(self.uses.get() + 1);
        self.uses.get()
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, SeqCst);
    }
}

fn builder(dropped: &Arc<AtomicUsize>) -> StatefulPoolBuilder<State> {
    let dropped = Arc::clone(dropped);
    StatefulPool::builder_with(move || State {
        uses: Rc::default(),
        dropped: Arc::clone(&dropped),
    })
}

type Pool = Arc<StatefulPool<State>>;

fn pool(workers: usize) -> Pool {
    let builder = builder(&Arc::default()).max_workers(workers);
    Arc::new(builder.build().unwrap())
}

/// Runs `f` in a job of a pool with `workers` workers, and returns its result.
#[track_caller]
fn in_a_job<R: Send + 'static>(
    what: &str,
    workers: usize,
    f: impl FnOnce(&Pool) -> R + Send + 'static,
) -> R {
    within(LONG, what, move || {
        let pool = pool(workers);
        let inner = Arc::clone(&pool);
        let result = pool.submit(move |_| f(&inner)).join().unwrap();
        pool.wait_idle().join();
        let metrics = pool.metrics();
        let ended = metrics.completed + metrics.panicked + metrics.cancelled;
        assert_eq!(metrics.submitted, ended, "{metrics:?}");
        result
    })
}

/// Keeps the only worker busy until the gate is opened.
fn hold(pool: &StatefulPool<State>) -> Gate {
    let gate = Gate::new();
    let (runs, running) = mpsc::channel();
    let held = gate.clone();
    drop(pool.submit(move |_| {
        runs.send(()).unwrap();
        held.wait();
    }));
    running.recv_timeout(LONG).expect("a free worker");
    gate
}

// Borrows, states and failures.

#[test]
fn jobs_borrow_and_get_the_state() {
    within(LONG, "borrow", || {
        let pool = pool(1);
        let mut numbers: Vec<usize> = (0..100).collect();
        let factor = 3;
        let uses: Vec<usize> = pool.scope(|scope| {
            let jobs = numbers.chunks_mut(10).map(|chunk| {
                scope.submit(|state| {
                    let chunk: &mut [usize] = chunk;
                    chunk.iter_mut().for_each(|n| *n *= factor);
                    state.use_it()
                })
            });
            let jobs: Vec<_> = jobs.collect();
            jobs.into_iter().map(|job| job.join().unwrap()).collect()
        });
        assert!(numbers.iter().copied().eq((0..100).map(|n| 3 * n)));
        assert!(uses.into_iter().eq(1..=10), "one worker has one state");
        // A closure in a variable has the type of its parameter; a result may borrow.
        let text = String::from("spam eggs");
        let first = |_: &mut State| text.split(' ').next();
        let awaited = pool.scope(|scope| block_on(scope.submit(first)).unwrap());
        assert_eq!(awaited, Some("spam"));
    });
}

#[test]
fn jobs_submit_more_jobs_to_the_same_scope() {
    fn add<'scope>(
        scope: &'scope StatefulScope<'scope, '_, State>,
        ran: &'scope AtomicUsize,
        depth: u32,
    ) {
        for _ in 0..3 {
            scope.submit(move |state| {
                state.use_it();
                ran.fetch_add(1, SeqCst);
                if depth > 1 {
                    add(scope, ran, depth - 1);
                }
            });
        }
    }
    within(LONG, "more", || {
        for workers in [1, 3] {
            let ran = AtomicUsize::new(0);
            pool(workers).scope(|scope| add(scope, &ran, 3));
            assert_eq!(ran.load(SeqCst), 3 + 9 + 27);
        }
    });
}

#[test]
fn a_panic_costs_the_state_and_comes_out_of_the_scope_unless_it_is_joined() {
    within(LONG, "panic", || {
        let dropped = Arc::default();
        let pool = builder(&dropped).max_workers(1).build().unwrap();
        let boo = |state: &mut State| {
            state.use_it();
            panic!("boo");
        };
        let message = message_of(|| pool.scope(|scope| drop(scope.submit(boo))));
        assert_eq!(message, "boo");
        assert_eq!(dropped.load(SeqCst), 1, "before the panic is visible");
        pool.scope(|scope| {
            assert_eq!(
                scope.submit(State::use_it).join().unwrap(),
                1,
                "a new state"
            );
            let error = scope.submit(boo).join().unwrap_err();
            assert_eq!(error.panic_message(), Some("boo"));
        });
        let message = message_of(|| {
            pool.scope(|scope| {
                drop(scope.submit(boo));
                panic!("the body");
            });
        });
        assert_eq!(message, "the body");
        assert_eq!(pool.submit(State::use_it).join().unwrap(), 1);
    });
}

#[test]
fn a_job_that_does_not_run_comes_out_of_the_scope_unless_it_is_joined() {
    within(LONG, "shut down, broken, expired, cancelled", || {
        let shut_down = pool(1);
        shut_down.shutdown();
        let drop_a_job = |pool: &StatefulPool<State>| {
            message_of(|| pool.scope(|scope| drop(scope.submit(State::use_it))))
        };
        assert!(drop_a_job(&shut_down).contains("did not run"));
        shut_down.scope(|scope| {
            let error = scope.submit(State::use_it).join().unwrap_err();
            assert!(error.is_shutdown(), "{error}");
        });

        let broken = StatefulPool::<State>::builder(|| Err("no state"))
            .build()
            .unwrap();
        assert!(drop_a_job(&broken).contains("did not run"));
        broken.scope(|scope| {
            let error = scope.submit(State::use_it).join().unwrap_err();
            assert!(error.is_broken(), "{error}");
        });

        let expiring = builder(&Arc::default()).max_workers(1);
        let expiring = expiring
            .queue_timeout(Duration::from_millis(1))
            .build()
            .unwrap();
        // A job that keeps the only worker must not expire itself.
        let gate = loop {
            let (runs, running) = mpsc::channel();
            let gate = Gate::new();
            let held = gate.clone();
            let job = expiring.submit(move |_| {
                runs.send(()).unwrap();
                held.wait();
            });
            match running.recv() {
                Ok(()) => break gate,
                Err(_) => drop(job.join()),
            }
        };
        assert!(drop_a_job(&expiring).contains("did not run"));
        expiring.scope(|scope| {
            let error = scope.submit(State::use_it).join().unwrap_err();
            assert!(error.is_expired(), "{error}");
        });
        gate.open();

        let pool = pool(1);
        let gate = hold(&pool);
        pool.scope(|scope| {
            let job = scope.submit(State::use_it);
            assert!(job.cancel());
            assert!(job.join().unwrap_err().is_cancelled());
            assert!(
                scope.submit(State::use_it).cancel(),
                "through its own handle"
            );
        });
        let message = message_of(|| {
            pool.scope(|scope| {
                drop(scope.submit(State::use_it));
                assert_eq!(pool.cancel_queued(), 1);
            });
        });
        assert!(message.contains("did not run"), "{message}");
        gate.open();
    });
}

#[test]
fn a_scope_waits_for_running_jobs_and_a_shutdown_lets_queued_ones_run() {
    within(LONG, "shutdown", || {
        let pool = pool(1);
        let (gate, ran) = (hold(&pool), AtomicUsize::new(0));
        thread::scope(|threads| {
            let scope = threads.spawn(|| {
                pool.scope(|scope| {
                    for _ in 0..3 {
                        scope.submit(|_| ran.fetch_add(1, SeqCst));
                    }
                });
                assert_eq!(ran.load(SeqCst), 3);
            });
            eventually("three are queued", || pool.metrics().queued == 3);
            let shutdown = pool.shutdown();
            gate.open();
            scope.join().unwrap();
            shutdown.join();
        });
    });
}

// Maps.

#[test]
fn items_functions_and_results_of_maps_borrow() {
    within(LONG, "maps", || {
        let pool = pool(2);
        let text = String::from("spam ham eggs");
        let e = String::from("e");
        let words = pool.scope(|scope| scope.map(text.split(' '), |_, word| word).join().unwrap());
        assert_eq!(words, ["spam", "ham", "eggs"]);
        let begins = pool.scope(|scope| {
            let begins = |state: &mut State, word: &str| {
                state.use_it();
                word.starts_with(&e)
            };
            let begins = scope.map_unordered(text.split(' '), begins).chunk_size(2);
            block_on(begins.map(Result::unwrap).collect::<Vec<_>>())
        });
        assert_eq!(begins.into_iter().filter(|begins| *begins).count(), 1);
        let mut numbers: Vec<usize> = (0..1_000).collect();
        pool.scope(|scope| {
            let double = |state: &mut State, n: &mut usize| {
                state.use_it();
                *n *= 2;
            };
            scope.map(&mut numbers, double).detach();
        });
        assert!(numbers.into_iter().eq((0..1_000).map(|n| 2 * n)));
    });
}

#[test]
fn the_panic_of_an_item_comes_out_of_the_scope_unless_the_map_yields_it() {
    within(LONG, "items that panic", || {
        for chunk_size in [None, Some(1), Some(3)] {
            let dropped = Arc::default();
            let pool = builder(&dropped).max_workers(1).build().unwrap();
            let item = |state: &mut State, n: usize| match n {
                1 => panic!("item {n}"),
                _ => state.use_it(),
            };
            pool.scope(|scope| {
                let mut map = scope.map(0..3, item);
                if let Some(items) = chunk_size {
                    map = map.chunk_size(items);
                }
                let results: Vec<_> = map.into_iter().collect();
                let error = results[1].as_ref().unwrap_err();
                assert_eq!(error.panic_message(), Some("item 1"), "{chunk_size:?}");
                assert_eq!(results[2].as_ref().unwrap(), &1, "a new state");
            });
            assert_eq!(dropped.load(SeqCst), 1);
            let message = message_of(|| {
                pool.scope(|scope| {
                    let mut map = scope.map(0..3, item);
                    if let Some(items) = chunk_size {
                        map = map.chunk_size(items);
                    }
                    map.detach();
                });
            });
            assert_eq!(message, "item 1", "{chunk_size:?}");
        }
    });
}

#[test]
fn the_panic_of_an_item_that_a_job_of_the_map_submits_comes_out_of_the_scope() {
    within(LONG, "a full queue", || {
        for chunk_size in [None, Some(2)] {
            let pool = builder(&Arc::default()).max_workers(1).queue_capacity(1);
            let pool = pool.build().unwrap();
            let ran = AtomicUsize::new(0);
            let message = message_of(|| {
                pool.scope(|scope| {
                    let item = |state: &mut State, n: usize| {
                        state.use_it();
                        ran.fetch_add(1, SeqCst);
                        assert!(n != 7, "item {n}");
                    };
                    let mut map = scope.map(0..10, item);
                    if let Some(items) = chunk_size {
                        map = map.chunk_size(items);
                    }
                    map.detach();
                });
            });
            assert_eq!(message, "item 7", "{chunk_size:?}");
            assert_eq!(ran.into_inner(), 10);
        }
    });
}

#[test]
fn an_item_without_a_state_comes_out_of_the_scope_unless_the_map_yields_it() {
    within(LONG, "a state that cannot be made again", || {
        for (chunk_size, detached) in [
            (None, false),
            (Some(3), false),
            (None, true),
            (Some(3), true),
        ] {
            let made = AtomicBool::new(false);
            let make = move || match made.swap(true, SeqCst) {
                false => Ok(7),
                true => Err("no other state"),
            };
            let pool = StatefulPool::builder(make).max_workers(1).build().unwrap();
            let function = |_: &mut i32, n: i32| {
                if n == 0 {
                    panic!("item 0");
                }
            };
            let yields = |yielded: usize| {
                pool.scope(|scope| {
                    let mut map = scope.map(0..3, function);
                    if let Some(items) = chunk_size {
                        map = map.chunk_size(items);
                    }
                    if detached {
                        return map.detach();
                    }
                    let results = map.into_iter().take(yielded).collect::<Vec<_>>();
                    assert!(results[0].as_ref().unwrap_err().is_panic());
                    for result in &results[1..] {
                        assert!(result.as_ref().unwrap_err().is_broken(), "{results:?}");
                    }
                });
            };
            match (detached, chunk_size) {
                (true, _) => assert_eq!(message_of(|| yields(0)), "item 0"),
                (false, None) => yields(3),
                (false, Some(_)) => {
                    let message = message_of(|| yields(1));
                    assert!(message.contains("no other state"), "{message}");
                }
            }
        }
    });
}

#[test]
fn a_map_in_its_own_worker_yields_the_deadlock_and_the_scope_does_not_panic() {
    for chunk_size in [None, Some(1), Some(2)] {
        let ran = in_a_job("a map", 1, move |pool| {
            let ran = AtomicUsize::new(0);
            pool.scope(|scope| {
                let item = |_: &mut State, _: i32| {
                    ran.fetch_add(1, SeqCst);
                };
                let mut map = scope.map(0..4, item);
                if let Some(items) = chunk_size {
                    map = map.chunk_size(items);
                }
                let error = map.join().unwrap_err();
                assert!(error.is_deadlock(), "{error}");
            });
            ran.into_inner()
        });
        assert_eq!(ran, 0, "{chunk_size:?}");
    }
}

// The end of a scope in a worker of the same pool.

#[test]
fn scopes_nest_in_jobs_while_a_worker_is_left() {
    fn count(pool: &StatefulPool<State>, depth: u32) -> usize {
        if depth == 0 {
            return 1;
        }
        let (mut left, mut right) = (0, 0);
        pool.scope(|scope| {
            scope.submit(|_| left = count(pool, depth - 1));
            scope.submit(|_| right = count(pool, depth - 1));
        });
        left + right
    }
    // One worker waits at the end of the outer scope, and two at the ends of the inner ones.
    for _ in 0..50 {
        assert_eq!(in_a_job("nest", 4, |pool| count(pool, 2)), 4);
    }
}

#[test]
fn the_end_of_a_scope_in_the_only_worker_cancels_what_no_worker_can_reach() {
    let (message, ran, tokens) = in_a_job("one worker", 1, |pool| {
        let (ran, token) = (AtomicUsize::new(0), Arc::new(()));
        let message = message_of(|| {
            pool.scope(|scope| {
                for _ in 0..3 {
                    let token = Arc::clone(&token);
                    let ran = &ran;
                    scope.submit(move |_| {
                        let _token = token;
                        ran.fetch_add(1, SeqCst);
                    });
                }
            });
        });
        (message, ran.into_inner(), Arc::strong_count(&token))
    });
    assert_unreachable(&message);
    assert!(message.contains("the job submitted at"), "{message}");
    assert_eq!((ran, tokens), (0, 1), "the closures are dropped");
}

#[test]
fn a_join_whose_error_was_a_deadlock_is_no_outcome_of_the_job() {
    let message = in_a_job("join", 1, |pool| {
        message_of(|| {
            pool.scope(|scope| {
                let error = scope.submit(State::use_it).join().unwrap_err();
                assert!(error.is_deadlock(), "{error}");
            });
        })
    });
    assert_unreachable(&message);
}

#[test]
fn of_two_workers_at_the_ends_of_scopes_one_panics() {
    for _ in 0..20 {
        within(LONG, "two scopes", || {
            let pool = pool(2);
            let both_run = Arc::new(Barrier::new(2));
            let jobs = [(); 2].map(|()| {
                let (inner, both_run) = (Arc::clone(&pool), Arc::clone(&both_run));
                pool.submit(move |_| {
                    let ran = AtomicBool::new(false);
                    let scope = || {
                        inner.scope(|scope| {
                            both_run.wait();
                            scope.submit(|_| ran.store(true, SeqCst));
                        });
                    };
                    let panicked = catch_unwind(AssertUnwindSafe(scope));
                    let message = panicked
                        .err()
                        .map(|payload| *payload.downcast::<String>().unwrap());
                    (ran.into_inner(), message)
                })
            });
            let ends: [(bool, Option<String>); 2] = jobs.map(|job| job.join().unwrap());
            let (ran, panicked): (Vec<_>, Vec<_>) = ends.into_iter().partition(|(ran, _)| *ran);
            assert!(matches!(&ran[..], [(true, None)]), "{ran:?}, {panicked:?}");
            let [(false, Some(message))] = &panicked[..] else {
                panic!("{panicked:?}");
            };
            assert_unreachable(message);
        });
    }
}

#[test]
fn scopes_that_nest_too_deep_end() {
    for workers in [1, 2, 3] {
        let message = in_a_job("too deep", workers, move |pool| {
            fn nest(pool: &StatefulPool<State>, depth: usize) {
                if depth > 0 {
                    pool.scope(|scope| drop(scope.submit(|_| nest(pool, depth - 1))));
                }
            }
            message_of(|| nest(pool, workers))
        });
        assert_unreachable(&message);
        in_a_job("not too deep", workers, move |pool| {
            fn nest(pool: &StatefulPool<State>, depth: usize) {
                if depth > 0 {
                    pool.scope(|scope| drop(scope.submit(|_| nest(pool, depth - 1))));
                }
            }
            nest(pool, workers - 1);
        });
    }
}

#[test]
fn a_join_gets_the_error_before_the_end_of_a_scope() {
    for _ in 0..20 {
        in_a_job("a join in a job of the scope", 2, |pool| {
            let joined = Mutex::new(None);
            let ran = AtomicBool::new(false);
            pool.scope(|scope| {
                let (joined, (give, take)) = (&joined, mpsc::channel());
                scope.submit(move |_| {
                    let queued: futurepool::ScopedJoinHandle<'_, ()> = take.recv().unwrap();
                    *joined.lock().unwrap() = Some(queued.join());
                });
                give.send(scope.submit(|_| ran.store(true, SeqCst)))
                    .unwrap();
            });
            let error = joined.into_inner().unwrap().unwrap().unwrap_err();
            assert!(error.is_deadlock(), "{error}");
            assert!(ran.into_inner(), "the other worker was free again");
        });
    }
}

#[test]
fn what_the_end_of_a_scope_cancels_is_cancelled_for_its_handle() {
    let error = in_a_job("a handle in a job that waits", 2, |pool| {
        let joined = Mutex::new(None);
        pool.scope(|scope| {
            let (joined, (tell, told)) = (&joined, mpsc::channel());
            let (give, take) = mpsc::channel();
            scope.submit(move |_| {
                let queued: futurepool::ScopedJoinHandle<'_, usize> = take.recv().unwrap();
                tell.send(ThreadState::of_this_thread()).unwrap();
                // Both workers wait at the ends of scopes.
                let inner = || pool.scope(|scope| drop(scope.submit(State::use_it)));
                assert_unreachable(&message_of(inner));
                *joined.lock().unwrap() = Some(queued.join());
            });
            give.send(scope.submit(State::use_it)).unwrap();
            let other = told.recv_timeout(LONG).unwrap();
            eventually("the other worker waits", || other.sleeps());
        });
        joined.into_inner().unwrap().unwrap().unwrap_err()
    });
    // The other worker may have been asleep for another reason. Then its scope is found first.
    assert!(error.is_cancelled() || error.is_deadlock(), "{error}");
}

#[test]
fn a_scope_waits_for_a_worker_that_comes_back() {
    let ran = in_a_job("a worker that comes back", 2, |pool| {
        let (inner, ran) = (Arc::clone(pool), AtomicBool::new(false));
        let (gate, (runs, running)) = (Gate::new(), mpsc::channel());
        let held = gate.clone();
        drop(inner.submit(move |_| {
            runs.send(()).unwrap();
            held.wait();
        }));
        running.recv_timeout(LONG).unwrap();
        let opens = thread::spawn(move || {
            // Time for a wrong verdict.
            thread::sleep(Duration::from_millis(50));
            gate.open();
        });
        pool.scope(|scope| drop(scope.submit(|_| ran.store(true, SeqCst))));
        opens.join().unwrap();
        ran.into_inner()
    });
    assert!(ran);
}

#[test]
fn a_larger_maximum_ends_the_wait_at_the_end_of_a_scope() {
    // The second worker waits for something else until the end, so only a third one can run the
    // job.
    let ran = in_a_job("a resize", 2, |pool| {
        let gate = hold(pool);
        let (ran, own) = (AtomicBool::new(false), Arc::clone(pool));
        let grows = thread::spawn(move || {
            eventually("the job is queued", || own.metrics().queued == 1);
            own.set_max_workers(3).unwrap();
        });
        pool.scope(|scope| drop(scope.submit(|_| ran.store(true, SeqCst))));
        grows.join().unwrap();
        gate.open();
        ran.into_inner()
    });
    assert!(ran);
}

#[test]
fn a_smaller_maximum_ends_the_wait_at_the_end_of_a_scope() {
    within(LONG, "a smaller maximum", || {
        let pool = pool(2);
        let gate = hold(&pool);
        let inner = Arc::clone(&pool);
        let waits = pool
            .submit(move |_| message_of(|| inner.scope(|scope| drop(scope.submit(State::use_it)))));
        eventually("it waits", || pool.metrics().queued == 1);
        // The other worker exits after its job.
        pool.set_max_workers(1).unwrap();
        gate.open();
        assert_unreachable(&waits.join().unwrap());
    });
}

#[test]
fn no_scope_panics_while_workers_exit_and_start() {
    within(LONG, "workers that come and go", || {
        let rounds = |seed: u64| {
            for round in 0..60 {
                let keep_alive = Duration::from_micros((seed * 61 + round * 37) % 200);
                let pool = StatefulPool::builder_with(|| ()).max_workers(2);
                let pool = Arc::new(pool.keep_alive(keep_alive).build().unwrap());
                let stop = AtomicBool::new(false);
                thread::scope(|threads| {
                    threads.spawn(|| {
                        for n in (0..3).cycle().take_while(|_| !stop.load(SeqCst)) {
                            pool.set_max_workers(2 + n).unwrap();
                            thread::yield_now();
                        }
                    });
                    for _ in 0..40 {
                        let inner = Arc::clone(&pool);
                        let job = pool.submit(move |()| {
                            inner.scope(|scope| (0..3).for_each(|_| drop(scope.submit(|()| ()))));
                        });
                        let joined = job.join();
                        stop.fetch_or(joined.is_err(), SeqCst);
                        joined.expect("another worker runs the jobs");
                    }
                    stop.store(true, SeqCst);
                });
            }
        };
        thread::scope(|threads| (0..4).for_each(|seed| drop(threads.spawn(move || rounds(seed)))));
    });
}

// Scopes and other pools.

/// A job of each pool waits for one that is queued in the other pool: the first at the end of a
/// scope.
#[test]
fn a_join_elsewhere_gets_the_error_of_a_scope_in_a_stateful_worker() {
    for _ in 0..20 {
        within(LONG, "a scope of a thread pool", || {
            let (stateful, threads) = (pool(1), Arc::new(ThreadPool::new(1)));
            let both_run = Arc::new(Barrier::new(2));
            let (barrier, other) = (Arc::clone(&both_run), Arc::clone(&threads));
            let scopes = stateful.submit(move |_| {
                barrier.wait();
                let mut ran = false;
                other.scope(|scope| drop(scope.submit(|| ran = true)));
                ran
            });
            let other = Arc::clone(&stateful);
            let joins = threads.submit(move || {
                both_run.wait();
                other.submit(State::use_it).join()
            });
            assert!(scopes.join().unwrap(), "the scope has no failure");
            let error = joins.join().unwrap().unwrap_err();
            assert!(error.is_deadlock(), "{error}");
        });
    }
}

#[test]
fn of_two_scopes_that_wait_for_each_others_pools_one_panics() {
    for _ in 0..20 {
        within(LONG, "two scopes", || {
            let (stateful, threads) = (pool(1), Arc::new(ThreadPool::new(1)));
            let both_run = Arc::new(Barrier::new(2));
            let (barrier, other) = (Arc::clone(&both_run), Arc::clone(&threads));
            let end = |scope: &dyn Fn()| {
                catch_unwind(AssertUnwindSafe(scope))
                    .err()
                    .map(|payload| *payload.downcast::<String>().unwrap())
            };
            let one = stateful.submit(move |_| {
                barrier.wait();
                end(&|| other.scope(|scope| drop(scope.submit(|| ()))))
            });
            let other = Arc::clone(&stateful);
            let two = threads.submit(move || {
                both_run.wait();
                end(&|| other.scope(|scope| drop(scope.submit(|_| ()))))
            });
            let ends = [one.join().unwrap(), two.join().unwrap()];
            let messages: Vec<_> = ends.iter().flatten().collect();
            assert!(messages.len() == 1, "{ends:?}");
            assert_unreachable(messages[0]);
        });
    }
}

#[test]
fn a_scope_in_a_maker_or_an_initializer_of_its_own_pool_breaks_the_pool() {
    for in_maker in [true, false] {
        within(LONG, "a scope in a maker", move || {
            let pool: Arc<Mutex<Option<Arc<StatefulPool<()>>>>> = Arc::default();
            let own = Arc::clone(&pool);
            let scope = move || {
                let own = own.lock().unwrap().clone().unwrap();
                own.scope(|scope| drop(scope.submit(|()| ())));
            };
            let builder = match in_maker {
                true => StatefulPool::builder_with(scope),
                false => StatefulPool::builder_with(|| ()).initializer(scope),
            };
            let built = Arc::new(builder.max_workers(1).build().unwrap());
            *pool.lock().unwrap() = Some(Arc::clone(&built));
            let error = built.submit(|()| ()).join().unwrap_err();
            assert!(error.is_broken(), "{error}");
            assert_unreachable(&error.to_string());
            drop(pool.lock().unwrap().take());
        });
    }
}

#[test]
fn debug_texts_name_the_types() {
    let pool = pool(1);
    pool.scope(|scope| {
        let text = format!("{scope:?}");
        assert!(text.starts_with("StatefulScope(Scope"), "{text}");
    });
}
