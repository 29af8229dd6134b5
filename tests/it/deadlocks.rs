//! Waits of pools for jobs that are queued in each other: the last wait that closes a deadlock is
//! found, and a wait that can end is never taken for one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use crate::common::{Gate, LONG, Random, ThreadState, eventually, within};
use futurepool::{JoinError, ReturnWhen, StatefulPool, ThreadPool, block_on, promise, wait};

type Pool = Arc<ThreadPool>;

fn pools<const N: usize>(workers: usize) -> [Pool; N] {
    [(); N].map(|()| Arc::new(ThreadPool::new(workers)))
}

/// Returns how many are errors. All of these must be deadlocks.
#[track_caller]
fn deadlocks<T>(outcomes: &[Result<T, JoinError>]) -> usize {
    let errors = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
    errors
        .filter(|error| error.is_deadlock() || panic!("{error}"))
        .count()
}

/// In each of `pools`, all workers run a job, and each of these joins one that is queued in the
/// next pool.
fn ring(pools: &[Pool], workers: usize) -> Vec<Result<usize, JoinError>> {
    let all_run = Arc::new(Barrier::new(pools.len() * workers));
    let jobs = (0..pools.len() * workers).map(|n| {
        let (own, next) = (n % pools.len(), (n + 1) % pools.len());
        let (next, all_run) = (Arc::clone(&pools[next]), Arc::clone(&all_run));
        pools[own].submit(move || {
            all_run.wait();
            next.submit(move || n).join()
        })
    });
    let jobs: Vec<_> = jobs.collect();
    jobs.into_iter().map(|job| job.join().unwrap()).collect()
}

// Deadlocks that are found.

#[test]
fn guarantee_6_of_pools_that_wait_for_each_others_queues_one_join_gets_the_error() {
    within(LONG, "rings", || {
        for _ in 0..20 {
            for workers in [1, 2, 3] {
                let (two, three) = (pools::<2>(workers), pools::<3>(workers));
                for ring_of in [&two[..], &three[..]] {
                    let outcomes = ring(ring_of, workers);
                    assert_eq!(deadlocks(&outcomes), 1, "{outcomes:?}");
                }
            }
        }
    });
}

#[test]
fn the_error_names_the_jobs_and_the_queued_one_runs_later() {
    within(LONG, "two pools", || {
        let pools = pools::<2>(1);
        let both_run = Arc::new(Barrier::new(2));
        let ran = Arc::new(AtomicUsize::new(0));
        let jobs = [0, 1].map(|own| {
            let (other, both_run, ran) = (
                Arc::clone(&pools[1 - own]),
                Arc::clone(&both_run),
                Arc::clone(&ran),
            );
            pools[own].submit(move || {
                both_run.wait();
                other.submit(move || ran.fetch_add(1, SeqCst)).join()
            })
        });
        let outcomes = jobs.map(|job| job.join().unwrap());
        assert_eq!(deadlocks(&outcomes), 1, "{outcomes:?}");
        let text = outcomes.iter().find_map(|outcome| outcome.as_ref().err());
        let text = text.unwrap().to_string();
        assert_eq!(text.matches("submitted at tests").count(), 2, "{text}");
        assert!(
            text.contains("queued while all workers of its pool wait"),
            "{text}"
        );
        pools.iter().for_each(|pool| pool.wait_idle().join());
        assert_eq!(ran.load(SeqCst), 2);
    });
}

/// Runs `scope` and returns the message if it panics.
fn message_of(scope: impl FnOnce()) -> Option<String> {
    let panicked = catch_unwind(AssertUnwindSafe(scope));
    panicked.err().map(|payload| *payload.downcast().unwrap())
}

#[test]
fn guarantee_6_of_scopes_whose_ends_wait_for_each_others_queues_one_panics() {
    within(LONG, "two scopes", || {
        for _ in 0..20 {
            let pools = pools::<2>(1);
            let both_run = Arc::new(Barrier::new(2));
            let jobs = [0, 1].map(|own| {
                let (other, both_run) = (Arc::clone(&pools[1 - own]), Arc::clone(&both_run));
                pools[own].submit(move || {
                    both_run.wait();
                    let ran = AtomicBool::new(false);
                    let scope =
                        || other.scope(|scope| drop(scope.submit(|| ran.store(true, SeqCst))));
                    (message_of(scope), ran.into_inner())
                })
            });
            let ends = jobs.map(|job| job.join().unwrap());
            let messages: Vec<_> = ends
                .iter()
                .filter_map(|(message, _)| message.as_ref())
                .collect();
            assert!(messages.len() == 1, "{ends:?}");
            for part in ["deadlock", "end of a scope", "deadlocks.rs", "did not run"] {
                assert!(messages[0].contains(part), "{part}: {}", messages[0]);
            }
            assert!(
                ends.iter().all(|(message, ran)| message.is_none() == *ran),
                "{ends:?}"
            );
        }
    });
}

#[test]
fn guarantee_6_of_a_join_and_the_end_of_a_scope_the_join_gets_the_error() {
    within(LONG, "a scope and a join", || {
        for _ in 0..20 {
            let [one, two] = pools::<2>(1);
            let both_run = Arc::new(Barrier::new(2));
            let (other, barrier) = (Arc::clone(&two), Arc::clone(&both_run));
            let scopes = one.submit(move || {
                barrier.wait();
                message_of(|| other.scope(|scope| drop(scope.submit(|| ()))))
            });
            let other = Arc::clone(&one);
            let joins = two.submit(move || {
                both_run.wait();
                other.submit(|| ()).join()
            });
            assert_eq!(scopes.join().unwrap(), None);
            assert_eq!(deadlocks(&[joins.join().unwrap()]), 1);
        }
    });
}

#[test]
fn guarantee_6_a_join_of_the_job_that_is_at_the_end_of_a_scope_gets_the_error() {
    within(LONG, "a scope and a join of its job", || {
        for _ in 0..20 {
            let [one, two] = pools::<2>(1);
            let both_run = Arc::new(Barrier::new(2));
            let (other, barrier) = (Arc::clone(&two), Arc::clone(&both_run));
            let (tell, told) = channel();
            let scopes = one.submit(move || {
                barrier.wait();
                let ran = AtomicBool::new(false);
                let job = || ran.store(true, SeqCst);
                let message = message_of(|| other.scope(|scope| drop(scope.submit(job))));
                tell.send((message, ran.into_inner())).unwrap();
            });
            let joins = two.submit(move || {
                both_run.wait();
                scopes.join()
            });
            assert_eq!(deadlocks(&[joins.join().unwrap()]), 1);
            assert_eq!(told.recv_timeout(LONG).unwrap(), (None, true));
        }
    });
}

#[test]
fn a_scope_in_a_deadlock_keeps_the_queued_jobs_that_a_worker_can_reach() {
    within(LONG, "a running job and queued ones", || {
        for _ in 0..10 {
            // One worker of the second pool comes back, and could run what is queued there.
            let [one, two] = [Arc::new(ThreadPool::new(1)), Arc::new(ThreadPool::new(2))];
            let gate = Gate::new();
            let held = gate.clone();
            let busy = two.submit(move || held.wait());
            eventually("it runs", || busy.is_running());
            let (own, other) = (Arc::clone(&one), Arc::clone(&two));
            let outer = one.submit(move || {
                let (ran, mut message) = (AtomicUsize::new(0), None);
                let (tell, told) = channel();
                other.scope(|scope| {
                    let message = &mut message;
                    scope.submit(move || {
                        tell.send(ThreadState::of_this_thread()).unwrap();
                        // The worker of the first pool waits for this job.
                        let inner = || own.scope(|scope| drop(scope.submit(|| ())));
                        *message = message_of(inner);
                    });
                    let waits = told.recv_timeout(LONG).unwrap();
                    eventually("the end of the inner scope waits", || waits.sleeps());
                    for _ in 0..3 {
                        scope.submit(|| ran.fetch_add(1, SeqCst));
                    }
                });
                (ran.into_inner(), message)
            });
            let (ran, message) = outer.join().unwrap();
            assert_eq!(ran, 3);
            assert!(message.unwrap().contains("deadlock"));
            gate.open();
            busy.join().unwrap();
        }
    });
}

#[test]
fn a_smaller_maximum_closes_a_deadlock_which_is_found() {
    within(LONG, "a smaller maximum", || {
        for _ in 0..10 {
            let [one, two] = [Arc::new(ThreadPool::new(1)), Arc::new(ThreadPool::new(2))];
            let gate = Gate::new();
            let held = gate.clone();
            let busy = two.submit(move || held.wait());
            let both_run = Arc::new(Barrier::new(2));
            let jobs = [(&one, &two), (&two, &one)].map(|(own, other)| {
                let (other, both_run) = (Arc::clone(other), Arc::clone(&both_run));
                own.submit(move || {
                    both_run.wait();
                    other.submit(|| ()).join()
                })
            });
            eventually("both wait", || {
                one.metrics().queued == 1 && two.metrics().queued == 1
            });
            // The busy worker exits after its job.
            two.set_max_workers(1).unwrap();
            gate.open();
            let outcomes = jobs.map(|job| job.join().unwrap());
            assert_eq!(deadlocks(&outcomes), 1, "{outcomes:?}");
            busy.join().unwrap();
        }
    });
}

#[test]
fn an_initializer_in_a_deadlock_with_another_pool_gets_the_error() {
    within(LONG, "an initializer", || {
        let [other] = pools::<1>(1);
        let (give, take) = channel::<Pool>();
        let take = std::sync::Mutex::new(take);
        let (joins, joined) = channel();
        let inner = Arc::clone(&other);
        let pool = ThreadPool::builder().max_workers(1).initializer(move || {
            // The other pool's worker waits for a job that is queued here.
            let own = take.lock().unwrap().recv().unwrap();
            let waits = inner.submit(move || own.submit(|| ()).join());
            let queued = inner.submit(|| ());
            joins.send(waits).unwrap();
            queued.join().map_err(|error| error.to_string())
        });
        let pool = Arc::new(pool.build().unwrap());
        let first = pool.submit(|| ());
        give.send(Arc::clone(&pool)).unwrap();
        let waits = joined.recv_timeout(LONG).unwrap();
        // One of the two joins gets the error: that of the initializer breaks the pool.
        let in_initializer = first.join().err();
        let outside = waits.join().unwrap().err();
        match (in_initializer, outside) {
            (Some(broken), Some(also)) => {
                assert!(
                    broken.is_broken() && broken.to_string().contains("deadlock"),
                    "{broken}"
                );
                assert!(also.is_broken(), "{also}");
            }
            (None, Some(error)) => assert!(error.is_deadlock(), "{error}"),
            other => panic!("{other:?}"),
        }
    });
}

// Waits that can end.

#[test]
fn a_pool_that_may_start_a_worker_is_in_no_deadlock() {
    within(LONG, "one more worker", || {
        for _ in 0..50 {
            let pools = pools::<2>(2);
            let both_run = Arc::new(Barrier::new(2));
            let jobs = [0, 1].map(|own| {
                let (other, both_run) = (Arc::clone(&pools[1 - own]), Arc::clone(&both_run));
                pools[own].submit(move || {
                    both_run.wait();
                    other.submit(|| ()).join()
                })
            });
            jobs.into_iter()
                .for_each(|job| job.join().unwrap().unwrap());
        }
    });
}

#[test]
fn a_worker_that_comes_back_is_in_no_deadlock() {
    within(LONG, "waits that end from outside", || {
        // The second pool's worker joins a promise, awaits one, or waits with a timeout.
        for kind in 0..3 {
            let [one, two] = pools::<2>(1);
            let (resolve, mut promised) = promise::<u32>();
            let (runs, running) = channel();
            let inner = Arc::clone(&one);
            let comes_back = two.submit(move || {
                let mut other = inner.submit(|| 1_u32);
                runs.send(()).unwrap();
                match kind {
                    0 => promised.join(),
                    1 => block_on(async {
                        let _ = wait([&mut other, &mut promised], ReturnWhen::FirstCompleted).await;
                        promised.await
                    }),
                    _ => promised.join_timeout(LONG),
                }
            });
            let inner = Arc::clone(&two);
            let joins = one.submit(move || {
                running.recv_timeout(LONG).unwrap();
                inner.submit(|| 2).join()
            });
            eventually("it is queued", || two.metrics().queued == 1);
            // Time for a wrong verdict.
            thread::sleep(Duration::from_millis(20));
            assert!(!joins.is_finished() && !comes_back.is_finished());
            resolve.complete(7).unwrap();
            assert_eq!(comes_back.join().unwrap().unwrap(), 7);
            assert_eq!(joins.join().unwrap().unwrap(), 2);
        }
    });
}

#[test]
fn a_queued_job_with_a_deadline_expires_instead() {
    within(LONG, "deadlines", || {
        for of_pool in [false, true] {
            let timeout = Duration::from_millis(30);
            let limit = |builder: futurepool::ThreadPoolBuilder| match of_pool {
                true => builder.queue_timeout(timeout),
                false => builder,
            };
            let pools = [(); 2].map(|()| {
                let builder = limit(ThreadPool::builder().max_workers(1));
                Arc::new(builder.build().unwrap())
            });
            let both_run = Arc::new(Barrier::new(2));
            // With a long time in the queue, both jobs start.
            let start = |own: usize| loop {
                let (other, both_run) = (Arc::clone(&pools[1 - own]), Arc::clone(&both_run));
                let (runs, running) = channel();
                let job = pools[own].submit(move || {
                    runs.send(()).unwrap();
                    both_run.wait();
                    match of_pool {
                        true => other.submit(|| ()).join(),
                        false => other.job(|| ()).expires_in(timeout).submit().join(),
                    }
                });
                match running.recv() {
                    Ok(()) => return job,
                    Err(_) => drop(job.join()),
                }
            };
            let jobs = [start(0), start(1)];
            let outcomes = jobs.map(|job| job.join().unwrap());
            let errors: Vec<_> = outcomes.iter().filter_map(|o| o.as_ref().err()).collect();
            assert!(!errors.is_empty(), "{outcomes:?}");
            assert!(
                errors.iter().all(|error| error.is_expired()),
                "{outcomes:?}"
            );
        }
    });
}

// At random.

/// The pools of a world, and what they are asked to do.
struct World {
    pools: Vec<Pool>,
    /// Jobs wait for pools behind their own only, so that nothing is a deadlock.
    downwards: bool,
    jobs: AtomicUsize,
    deadlocks: AtomicUsize,
}

impl World {
    fn new(random: &mut Random, downwards: bool) -> Arc<Self> {
        let pool = |_| {
            let workers = 1 + random.below(2);
            let builder = ThreadPool::builder().max_workers(workers);
            let keep_alive = Duration::from_micros(random.below(200) as u64);
            Arc::new(builder.keep_alive(keep_alive).build().unwrap())
        };
        Arc::new(Self {
            pools: (0..4).map(pool).collect(),
            downwards,
            jobs: AtomicUsize::new(0),
            deadlocks: AtomicUsize::new(0),
        })
    }

    /// Returns the pool of a job that a job of pool `own` waits for.
    fn next(&self, own: usize, random: &mut Random) -> usize {
        match self.downwards {
            // Its own pool, too: the worker helps.
            true => own + random.below(self.pools.len() - own),
            false => random.below(self.pools.len()),
        }
    }

    fn see<T>(&self, outcome: Result<T, JoinError>) {
        if let Err(error) = outcome {
            assert!(error.is_deadlock(), "{error}");
            self.deadlocks.fetch_add(1, SeqCst);
        }
    }
}

/// A job of pool `own`, which waits for others.
fn work(world: &Arc<World>, own: usize, depth: usize, seed: u64) {
    world.jobs.fetch_add(1, SeqCst);
    let mut random = Random(seed);
    if depth == 0 {
        return thread::yield_now();
    }
    for _ in 0..=random.below(2) {
        let next = world.next(own, &mut random);
        let pool = &world.pools[next];
        let job = |random: &mut Random| {
            let (world, seed) = (Arc::clone(world), random.next());
            move || work(&world, next, depth - 1, seed)
        };
        match random.below(4) {
            0 | 1 => world.see(pool.submit(job(&mut random)).join()),
            2 => {
                let first = pool.submit(job(&mut random));
                let second = pool.submit(job(&mut random));
                world.see(second.join());
                world.see(first.join());
            }
            _ => {
                let jobs = [job(&mut random), job(&mut random)];
                let scope = || {
                    pool.scope(|scope| jobs.map(|job| scope.submit(job)).map(drop));
                };
                if let Some(message) = message_of(scope) {
                    assert!(message.contains("deadlock"), "{message}");
                    world.deadlocks.fetch_add(1, SeqCst);
                }
            }
        }
    }
}

/// Returns how many deadlocks were reported, of how many jobs.
fn play(seed: u64, downwards: bool) -> (usize, usize) {
    let mut random = Random(seed);
    let world = World::new(&mut random, downwards);
    let stop = AtomicBool::new(false);
    thread::scope(|threads| {
        let mut changes = Random(random.next());
        let (world, stop) = (&world, &stop);
        threads.spawn(move || {
            while !stop.load(SeqCst) {
                let pool = &world.pools[changes.below(4)];
                pool.set_max_workers(1 + changes.below(3)).unwrap();
                // The processors are for the pools.
                thread::sleep(Duration::from_micros(50));
            }
        });
        let jobs = (0..12).map(|_| {
            let (world, own, seed) = (Arc::clone(world), random.below(4), random.next());
            let pool = Arc::clone(&world.pools[own]);
            pool.submit(move || work(&world, own, 3, seed))
        });
        let jobs: Vec<_> = jobs.collect();
        let outcomes: Vec<_> = jobs.into_iter().map(|job| job.join()).collect();
        stop.store(true, SeqCst);
        outcomes.into_iter().for_each(|outcome| outcome.unwrap());
    });
    world.pools.iter().for_each(|pool| pool.wait_idle().join());
    (world.deadlocks.load(SeqCst), world.jobs.load(SeqCst))
}

#[test]
fn waits_that_lead_downwards_are_never_a_deadlock() {
    within(LONG, "downwards", || {
        for seed in 0..50 {
            let (deadlocks, jobs) = play(seed, true);
            assert_eq!(deadlocks, 0, "seed {seed}, {jobs} jobs");
        }
    });
}

#[test]
fn waits_that_lead_anywhere_end() {
    within(LONG, "anywhere", || {
        let found: usize = (0..50).map(|seed| play(seed, false).0).sum();
        assert!(found > 0, "a test without a deadlock tests nothing");
    });
}

/// The waits lead from a stateful pool to a plain one and back.
#[test]
fn waits_that_lead_anywhere_end_with_stateful_pools_among_them() {
    fn work(
        stateful: &Arc<StatefulPool<()>>,
        threads: &Pool,
        found: &Arc<AtomicUsize>,
        depth: usize,
        seed: u64,
    ) {
        let mut random = Random(seed);
        if depth == 0 {
            return;
        }
        let (to_stateful, scope) = (random.one_in(2), random.one_in(2));
        let job = {
            let (stateful, threads) = (Arc::clone(stateful), Arc::clone(threads));
            let (found, seed) = (Arc::clone(found), random.next());
            move || work(&stateful, &threads, &found, depth - 1, seed)
        };
        let is_deadlock = match (to_stateful, scope) {
            (true, true) => {
                message_of(|| stateful.scope(|scope| drop(scope.submit(|()| job())))).is_some()
            }
            (false, true) => {
                message_of(|| threads.scope(|scope| drop(scope.submit(job)))).is_some()
            }
            (true, false) => stateful.submit(move |()| job()).join().is_err(),
            (false, false) => threads.submit(job).join().is_err(),
        };
        found.fetch_add(usize::from(is_deadlock), SeqCst);
    }
    within(LONG, "two kinds of pools", || {
        let found = Arc::new(AtomicUsize::new(0));
        for seed in 0..50 {
            let mut random = Random(seed);
            let stateful = StatefulPool::builder_with(|| ());
            let stateful = stateful.max_workers(1 + random.below(3)).build().unwrap();
            let stateful = Arc::new(stateful);
            let threads = Arc::new(ThreadPool::new(1 + random.below(2)));
            let jobs = (0..6).map(|_| {
                let (stateful, threads) = (Arc::clone(&stateful), Arc::clone(&threads));
                let (found, seed) = (Arc::clone(&found), random.next());
                let job = move || work(&stateful, &threads, &found, 4, seed);
                (random.one_in(2), job)
            });
            let jobs: Vec<_> = jobs
                .map(|(in_stateful, job)| match in_stateful {
                    true => stateful.submit(move |()| job()),
                    false => threads.submit(job),
                })
                .collect();
            jobs.into_iter().for_each(|job| job.join().unwrap());
        }
        assert!(found.load(SeqCst) > 0);
    });
}
