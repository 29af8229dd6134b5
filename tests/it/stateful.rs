//! `StatefulPool`: whose state a job gets, when it is made and dropped, and which waits in a worker
//! end.

use std::cell::Cell;
use std::collections::HashSet;
use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::iter;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Barrier, Mutex, OnceLock};
use std::task::Poll;
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use crate::common::{Gate, LONG, ThreadState, eventually, within};
use futurepool::{
    AsCompleted, JoinError, JoinHandle, Priority, ReturnWhen, StatefulPool, StatefulPoolBuilder,
    ThreadPool, as_completed, block_on, first_ok, promise, wait,
};
use futures::future::join_all;
use futures::{FutureExt, StreamExt};

/// What became of the states of a pool.
#[derive(Clone, Default)]
struct Log {
    made: Arc<Mutex<Vec<ThreadId>>>,
    dropped: Arc<Mutex<Vec<(usize, ThreadId)>>>,
}

impl Log {
    fn make(&self) -> State {
        let mut made = self.made.lock().unwrap();
        made.push(thread::current().id());
        State {
            number: made.len() - 1,
            jobs: Rc::new(Cell::new(0)),
            log: self.clone(),
        }
    }

    fn made(&self) -> usize {
        self.made.lock().unwrap().len()
    }

    fn dropped(&self) -> usize {
        self.dropped.lock().unwrap().len()
    }

    fn builder(&self) -> StatefulPoolBuilder<State> {
        let log = self.clone();
        StatefulPool::builder_with(move || log.make())
    }

    fn pool(&self, workers: usize) -> StatefulPool<State> {
        self.builder().max_workers(workers).build().unwrap()
    }
}

/// Not `Send`.
struct State {
    number: usize,
    jobs: Rc<Cell<u32>>,
    log: Log,
}

impl State {
    fn use_it(&mut self) -> (usize, u32) {
        let alias = Rc::clone(&self.jobs);
        alias.set(alias.get() + 1);
        (self.number, self.jobs.get())
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let dropped = (self.number, thread::current().id());
        self.log.dropped.lock().unwrap().push(dropped);
    }
}

type Pool = Arc<StatefulPool<State>>;

/// Runs `f` in a job of a pool with `workers` workers, and returns its result.
#[track_caller]
fn in_a_job<R: Send + 'static>(
    what: &str,
    workers: usize,
    f: impl FnOnce(&Pool) -> R + Send + 'static,
) -> R {
    within(LONG, what, move || {
        let pool = Arc::new(Log::default().pool(workers));
        let inner = Arc::clone(&pool);
        let result = pool.submit(move |_| f(&inner)).join().unwrap();
        // Jobs that were not waited for run now.
        pool.wait_idle().join();
        let metrics = pool.metrics();
        let ended = metrics.completed + metrics.panicked + metrics.cancelled;
        assert_eq!(metrics.submitted, ended, "{metrics:?}");
        result
    })
}

/// Keeps `n` workers busy, each with one job, until the gate is opened.
fn hold<S: 'static>(pool: &StatefulPool<S>, n: usize) -> (Gate, Vec<JoinHandle<()>>) {
    let gate = Gate::new();
    let (running, runs) = channel();
    let jobs = (0..n).map(|_| {
        let (gate, running) = (gate.clone(), running.clone());
        pool.submit(move |_| {
            running.send(()).unwrap();
            gate.wait();
        })
    });
    let jobs = jobs.collect();
    (0..n).for_each(|_| runs.recv_timeout(LONG).expect("a free worker"));
    (gate, jobs)
}

// The state of a job.

#[test]
fn closures_need_no_types_and_may_have_them() {
    let pool = StatefulPool::builder(|| Ok::<_, io::Error>(Cell::new(7)))
        .build()
        .unwrap();
    assert_eq!(pool.submit(|cell| cell.get()).join().unwrap(), 7);
    assert_eq!(
        pool.submit(|cell: &mut Cell<i32>| cell.get())
            .join()
            .unwrap(),
        7
    );
    assert_eq!(
        pool.try_submit(|cell| cell.get()).unwrap().join().unwrap(),
        7
    );
    let handle = block_on(pool.submit_async(|cell| cell.get())).unwrap();
    assert_eq!(handle.join().unwrap(), 7);
    let sums = pool.map([1, 2], |cell, n| cell.get() + n);
    assert_eq!(sums.join().unwrap(), [8, 9]);
    let sums = pool.map_unordered([1], |cell: &mut Cell<i32>, n| cell.get() + n);
    assert_eq!(sums.join().unwrap(), [8]);
}

#[test]
fn makers_fail_with_any_error_type() {
    fn cause<S, E>(make: impl Fn() -> Result<S, E> + Send + Sync + 'static) -> String
    where
        S: 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let pool = StatefulPool::builder(make).build().unwrap();
        pool.submit(|_| ()).join().unwrap_err().to_string()
    }
    assert_eq!(cause(|| Err::<(), _>("text")), "the pool is broken: text");
    let io = || Err::<Rc<()>, _>(io::Error::other("io"));
    assert_eq!(cause(io), "the pool is broken: io");
    let boxed = || Err::<(), Box<dyn Error + Send + Sync>>("boxed".into());
    assert_eq!(cause(boxed), "the pool is broken: boxed");
}

#[test]
fn each_worker_makes_uses_and_drops_its_own_state() {
    within(LONG, "three workers", || {
        let log = Log::default();
        let pool = log.pool(3);
        assert_eq!(log.made(), 0, "workers start on demand");
        let all_run = Arc::new(Barrier::new(3));
        let jobs = [(); 3].map(|()| {
            let all_run = Arc::clone(&all_run);
            pool.submit(move |state| {
                all_run.wait();
                (state.use_it(), thread::current().id())
            })
        });
        let jobs = jobs.map(|job| job.join().unwrap());
        let numbers: HashSet<_> = jobs.iter().map(|((number, _), _)| *number).collect();
        assert_eq!(numbers.len(), 3);
        for ((number, uses), thread) in jobs {
            assert_eq!((uses, log.made.lock().unwrap()[number]), (1, thread));
        }
        assert_eq!(log.dropped(), 0);
        drop(pool);
        let made = log.made.lock().unwrap().clone();
        let dropped = log.dropped.lock().unwrap().clone();
        assert_eq!(dropped.len(), 3);
        for (number, thread) in dropped {
            assert_eq!(made[number], thread);
        }
    });
}

#[test]
fn the_next_job_finds_what_the_last_one_left() {
    let log = Log::default();
    let pool = log.pool(1);
    for uses in 1..=10 {
        assert_eq!(pool.submit(State::use_it).join().unwrap(), (0, uses));
    }
    assert_eq!(log.made(), 1);
}

#[test]
fn a_done_callback_runs_when_the_state_is_back() {
    let pool = Arc::new(Log::default().pool(1));
    let (send, receive) = channel();
    let gate = Gate::new();
    let held = gate.clone();
    let job = pool.submit(move |state| {
        held.wait();
        state.use_it()
    });
    let inner = Arc::clone(&pool);
    job.add_done_callback(move |_| send.send(inner.submit(State::use_it)).unwrap());
    gate.open();
    assert_eq!(job.join().unwrap(), (0, 1));
    let second = receive.recv_timeout(LONG).unwrap();
    assert_eq!(second.join().unwrap(), (0, 2));
}

// Panics.

#[test]
fn a_panic_costs_the_state_and_no_more() {
    within(LONG, "a panic", || {
        let log = Log::default();
        let pool = log.pool(1);
        assert_eq!(pool.submit(State::use_it).join().unwrap(), (0, 1));
        let worker = log.made.lock().unwrap()[0];
        let error = pool.submit(|_| panic!("half done")).join().unwrap_err();
        assert!(error.is_panic());
        assert_eq!(
            *log.dropped.lock().unwrap(),
            [(0, worker)],
            "before the panic is visible"
        );
        assert_eq!(log.made(), 1, "the next one is made when a job needs it");
        assert_eq!(pool.submit(State::use_it).join().unwrap(), (1, 1));
        assert_eq!(*log.made.lock().unwrap(), [worker, worker]);
        let metrics = pool.metrics();
        assert_eq!(
            (metrics.completed, metrics.panicked, metrics.workers),
            (2, 1, 1)
        );
        drop(pool);
        assert_eq!(log.dropped(), 2);
    });
}

#[test]
fn a_lost_state_is_not_made_for_the_end_of_the_pool() {
    let log = Log::default();
    let pool = log.pool(1);
    assert!(pool.submit(|_| panic!()).join().unwrap_err().is_panic());
    drop(pool);
    assert_eq!((log.made(), log.dropped()), (1, 1));
}

#[test]
fn a_destructor_that_panics_is_contained() {
    struct Bomb(Arc<AtomicUsize>);
    impl Drop for Bomb {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
            panic!("a destructor");
        }
    }
    let dropped = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&dropped);
    let exited = Arc::new(AtomicBool::new(false));
    let exit = Arc::clone(&exited);
    let pool = StatefulPool::builder_with(move || Bomb(Arc::clone(&count)))
        .max_workers(1)
        .on_exit(move || exit.store(true, SeqCst))
        .build()
        .unwrap();
    let error = pool.submit(|_| panic!("a job")).join().unwrap_err();
    assert!(
        error.is_panic() && error.to_string().contains("a job"),
        "{error}"
    );
    assert_eq!(dropped.load(SeqCst), 1);
    assert!(pool.submit(|_| ()).join().is_ok());
    drop(pool);
    assert_eq!(dropped.load(SeqCst), 2);
    assert!(exited.load(SeqCst), "the exit hook runs after it");
}

#[test]
fn a_maker_that_fails_or_panics_breaks_the_pool() {
    within(LONG, "a broken pool", || {
        for panics in [false, true] {
            let pool = StatefulPool::builder(move || match panics {
                true => panic!("no disk"),
                false => Err::<(), _>("no database"),
            });
            let exited = Arc::new(AtomicBool::new(false));
            let exit = Arc::clone(&exited);
            let pool = pool
                .max_workers(1)
                .on_exit(move || exit.store(true, SeqCst));
            let pool = pool.build().unwrap();
            let error = pool.submit(|_| ()).join().unwrap_err();
            assert!(error.is_broken());
            let text = match panics {
                true => "the pool is broken: the function that makes the state panicked: no disk",
                false => "the pool is broken: no database",
            };
            assert_eq!(error.to_string(), text);
            let refused = pool.try_submit(|_| 7).unwrap_err();
            assert!(refused.is_broken());
            assert_eq!(refused.into_inner()(&mut ()), 7, "the closure comes back");
            drop(pool);
            assert!(!exited.load(SeqCst));
        }
    });
}

/// Returns a pool of one worker whose state can be made once.
fn made_once() -> StatefulPoolBuilder<usize> {
    let made = AtomicUsize::new(0);
    let make = move || match made.fetch_add(1, SeqCst) {
        0 => Ok(7),
        _ => Err("the database is gone"),
    };
    StatefulPool::builder(make).max_workers(1)
}

#[test]
fn a_lost_state_that_cannot_be_made_again_breaks_the_pool() {
    within(LONG, "a broken pool", || {
        let exited = Arc::new(AtomicBool::new(false));
        let exit = Arc::clone(&exited);
        let pool = made_once()
            .on_exit(move || exit.store(true, SeqCst))
            .build()
            .unwrap();
        assert_eq!(pool.submit(|seven| *seven).join().unwrap(), 7);
        assert!(pool.submit(|_| panic!()).join().unwrap_err().is_panic());
        assert!(
            pool.try_submit(|_| ())
                .unwrap()
                .join()
                .unwrap_err()
                .is_broken()
        );
        let error = pool.submit(|_| ()).join().unwrap_err();
        assert_eq!(
            error.to_string(),
            "the pool is broken: the database is gone"
        );
        let metrics = pool.metrics();
        assert_eq!(
            (metrics.completed, metrics.panicked, metrics.cancelled),
            (1, 1, 1)
        );
        drop(pool);
        assert!(
            exited.load(SeqCst),
            "the initializer has succeeded on that worker"
        );
    });
}

#[test]
fn jobs_behind_a_lost_state_that_cannot_be_made_again_are_refused_unrun() {
    within(LONG, "refused jobs", || {
        let pool = made_once().build().unwrap();
        let (gate, held) = hold(&pool, 1);
        let panics = pool.submit(|_| panic!());
        let behind = [(); 3].map(|()| pool.submit(|_| ()));
        gate.open();
        assert!(panics.join().unwrap_err().is_panic());
        for job in behind {
            let error = job.join().unwrap_err();
            assert!(error.is_broken() && !error.may_have_run());
        }
        held.into_iter().for_each(|job| job.join().unwrap());
    });
}

#[test]
fn a_queued_job_is_cancelled_while_the_state_is_made_anew() {
    let (making, is_making) = channel();
    let gate = Gate::new();
    let (made, held) = (AtomicUsize::new(0), gate.clone());
    let pool = StatefulPool::builder_with(move || {
        if made.fetch_add(1, SeqCst) > 0 {
            making.send(()).unwrap();
            held.wait();
        }
    });
    let pool = pool.max_workers(1).build().unwrap();
    assert!(pool.submit(|()| panic!()).join().unwrap_err().is_panic());
    let job = pool.submit(|()| ());
    is_making.recv_timeout(LONG).unwrap();
    assert_eq!(pool.metrics().queued, 1);
    assert_eq!(pool.cancel_queued(), 1);
    assert!(job.join().unwrap_err().is_cancelled());
    gate.open();
    assert!(pool.submit(|()| ()).join().is_ok());
}

#[test]
fn a_worker_that_makes_its_state_anew_holds_back_no_job() {
    within(LONG, "the other worker", || {
        let (making, is_making) = channel();
        let gate = Gate::new();
        let (made, held) = (AtomicUsize::new(0), gate.clone());
        let pool = StatefulPool::builder_with(move || {
            if made.fetch_add(1, SeqCst) >= 2 {
                making.send(()).unwrap();
                held.wait();
            }
        });
        let pool = pool.max_workers(2).build().unwrap();
        // Both have a state. One loses it while the other is busy.
        let (both, jobs) = hold(&pool, 2);
        both.open();
        jobs.into_iter().for_each(|job| job.join().unwrap());
        let (busy, jobs) = hold(&pool, 1);
        assert!(pool.submit(|()| panic!()).join().unwrap_err().is_panic());
        let job = pool.submit(|()| ());
        is_making.recv_timeout(LONG).unwrap();
        busy.open();
        job.join().unwrap();
        gate.open();
        jobs.into_iter().for_each(|job| job.join().unwrap());
    });
}

#[test]
fn an_idle_worker_takes_the_job_of_one_that_makes_its_state_anew() {
    within(LONG, "the idle worker", || {
        let gate = Gate::new();
        let (made, held) = (AtomicUsize::new(0), gate.clone());
        let pool = StatefulPool::builder_with(move || {
            if made.fetch_add(1, SeqCst) >= 2 {
                held.wait();
            }
        });
        let pool = pool.max_workers(2).build().unwrap();
        let (both, jobs) = hold(&pool, 2);
        both.open();
        jobs.into_iter().for_each(|job| job.join().unwrap());
        assert!(pool.submit(|()| panic!()).join().unwrap_err().is_panic());
        // Whichever of the two workers is woken.
        for _ in 0..10 {
            thread::sleep(Duration::from_millis(1));
            pool.submit(|()| ()).join().unwrap();
        }
        gate.open();
    });
}

// The life of a worker.

#[test]
fn the_initializer_comes_first_and_the_exit_hook_last() {
    struct Noisy(Arc<Mutex<Vec<&'static str>>>);
    impl Drop for Noisy {
        fn drop(&mut self) {
            self.0.lock().unwrap().push("dropped");
        }
    }
    let log = Arc::new(Mutex::new(Vec::new()));
    let logs = [(); 3].map(|()| Arc::clone(&log));
    let [make, init, exit] = logs;
    let pool = StatefulPool::builder_with(move || {
        make.lock().unwrap().push("made");
        Noisy(Arc::clone(&make))
    });
    let pool = pool
        .initializer(move || init.lock().unwrap().push("initializer"))
        .on_exit(move || exit.lock().unwrap().push("exit"))
        .max_workers(1)
        .build()
        .unwrap();
    pool.submit(|state| state.0.lock().unwrap().push("job"))
        .join()
        .unwrap();
    drop(pool);
    let log = log.lock().unwrap();
    assert_eq!(*log, ["initializer", "made", "job", "dropped", "exit"]);
}

#[test]
fn an_idle_worker_that_exits_drops_its_state() {
    let log = Log::default();
    let pool = log
        .builder()
        .max_workers(1)
        .keep_alive(Duration::from_millis(1));
    let pool = pool.build().unwrap();
    assert_eq!(pool.submit(State::use_it).join().unwrap(), (0, 1));
    eventually("the state is dropped", || log.dropped() == 1);
    assert_eq!(pool.submit(State::use_it).join().unwrap(), (1, 1));
}

#[test]
fn shutdown_now_cancels_and_drops_the_states() {
    let log = Log::default();
    let pool = log.pool(1);
    let (gate, held) = hold(&pool, 1);
    let queued = pool.submit(State::use_it);
    let shutdown = pool.shutdown_now();
    assert_eq!(shutdown.cancelled(), 1);
    assert!(pool.is_shutdown());
    assert!(queued.join().unwrap_err().is_cancelled());
    gate.open();
    shutdown.join();
    assert_eq!((log.made(), log.dropped()), (1, 1));
    held.into_iter().for_each(|job| job.join().unwrap());
    assert!(pool.submit(State::use_it).join().unwrap_err().is_shutdown());
}

#[test]
fn prestart_makes_states() {
    let log = Log::default();
    let pool = log.pool(4);
    pool.prestart(3);
    assert_eq!((pool.metrics().workers, pool.max_workers()), (3, 4));
    eventually("the states are made", || log.made() == 3);
}

/// A state whose destructor waits until the gate is opened.
struct Slow(Option<Gate>);

impl Drop for Slow {
    fn drop(&mut self) {
        if let Some(gate) = &self.0 {
            gate.wait();
        }
    }
}

#[test]
fn a_destructor_that_blocks_holds_back_no_job_if_another_worker_is_allowed() {
    within(LONG, "a destructor that blocks", || {
        let gate = Gate::new();
        let (made, held) = (AtomicUsize::new(0), gate.clone());
        let pool = StatefulPool::builder_with(move || match made.fetch_add(1, SeqCst) {
            0 => Slow(Some(held.clone())),
            _ => Slow(None),
        });
        let pool = pool.max_workers(2).keep_alive(Duration::from_millis(1));
        let pool = pool.build().unwrap();
        pool.submit(|_| ()).join().unwrap();
        // The first worker exits at some point of this.
        for _ in 0..20 {
            thread::sleep(Duration::from_millis(2));
            pool.submit(|_| ()).join().expect("another worker runs it");
        }
        eventually("the other worker leaves", || pool.metrics().workers == 1);
        pool.submit(|_| ()).join().expect("another worker runs it");
        gate.open();
        eventually("all workers leave", || pool.metrics().workers == 0);
    });
}

#[test]
fn there_are_never_more_states_than_workers_allowed() {
    struct Counted(Arc<AtomicUsize>);
    impl Drop for Counted {
        fn drop(&mut self) {
            thread::sleep(Duration::from_millis(1));
            self.0.fetch_sub(1, SeqCst);
        }
    }
    let (live, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let highest = Arc::clone(&peak);
    let pool = StatefulPool::builder_with(move || {
        highest.fetch_max(live.fetch_add(1, SeqCst) + 1, SeqCst);
        Counted(Arc::clone(&live))
    });
    let pool = pool.max_workers(1).keep_alive(Duration::ZERO);
    let pool = pool.build().unwrap();
    for _ in 0..200 {
        pool.submit(|_| ()).join().unwrap();
    }
    assert_eq!(peak.load(SeqCst), 1);
}

#[test]
fn an_awaited_shutdown_has_dropped_the_states() {
    within(LONG, "a shutdown", || {
        let gate = Gate::new();
        let held = gate.clone();
        let pool = StatefulPool::builder_with(move || Slow(Some(held.clone())));
        let pool = pool.max_workers(2).build().unwrap();
        pool.submit(|_| ()).join().unwrap();
        let mut shutdown = pool.shutdown();
        assert!(shutdown.join_timeout(Duration::from_millis(20)).is_err());
        gate.open();
        block_on(shutdown);
        assert_eq!(pool.metrics().workers, 0);
    });
}

#[test]
fn a_destructor_can_wait_for_jobs_of_its_own_pool() {
    /// Joins a job when it is dropped.
    struct Joins(
        Arc<OnceLock<Arc<StatefulPool<Self>>>>,
        Sender<Result<u32, JoinError>>,
    );
    impl Drop for Joins {
        fn drop(&mut self) {
            let joined = self.0.get().unwrap().submit(|_| 7).join();
            let _ = self.1.send(joined);
        }
    }
    within(LONG, "a destructor that waits", || {
        for workers in [1, 2] {
            let (send, joined) = channel();
            let cell = Arc::new(OnceLock::new());
            let to_make = Arc::clone(&cell);
            let pool =
                StatefulPool::builder_with(move || Joins(Arc::clone(&to_make), send.clone()));
            let pool = pool
                .max_workers(workers)
                .keep_alive(Duration::from_millis(1));
            let pool = cell.get_or_init(|| Arc::new(pool.build().unwrap()));
            pool.submit(|_| ()).join().unwrap();
            match (workers, joined.recv_timeout(LONG).unwrap()) {
                (1, joined) => assert!(joined.unwrap_err().is_deadlock()),
                (_, joined) => assert_eq!(joined.unwrap(), 7),
            }
            pool.shutdown().join();
        }
    });
}

// Bounded queues.

#[test]
fn a_full_queue_gives_the_closure_back() {
    let pool = Log::default()
        .builder()
        .max_workers(1)
        .queue_capacity(1)
        .build()
        .unwrap();
    let (gate, held) = hold(&pool, 1);
    let queued = pool.submit(State::use_it);
    let refused = pool.try_submit(State::use_it).unwrap_err();
    assert!(refused.is_full());
    let closure = refused.into_inner();
    assert_eq!(closure(&mut Log::default().make()), (0, 1));
    let mut waiting = pool.submit_async(State::use_it);
    assert!((&mut waiting).now_or_never().is_none());
    gate.open();
    assert_eq!(queued.join().unwrap(), (0, 1));
    assert_eq!(block_on(waiting).unwrap().join().unwrap(), (0, 2));
    held.into_iter().for_each(|job| job.join().unwrap());
    pool.shutdown();
    let refused = block_on(pool.submit_async(State::use_it)).unwrap_err();
    assert!(refused.is_shutdown());
}

// Options.

#[test]
fn a_job_with_options_gets_the_state() {
    let pool = Log::default().builder().max_workers(1).queue_capacity(2);
    let pool = pool.timings(true).build().unwrap();
    let (gate, held) = hold(&pool, 1);
    let soon = Duration::from_millis(1);
    let expires = pool.job(State::use_it).expires_in(soon).submit();
    assert!(
        expires.join().unwrap_err().is_expired(),
        "while the worker is busy"
    );
    let job = pool
        .job(State::use_it)
        .label("use")
        .priority(Priority::High);
    let first = job.submit();
    let second = pool
        .job(|state| state.use_it())
        .deadline(Instant::now() + LONG);
    let second = second.try_submit().unwrap();
    let refused = pool.job(State::use_it).try_submit().unwrap_err();
    assert!(refused.is_full());
    let _closure = refused.into_inner();
    let third = pool.job(|state: &mut State| state.use_it()).submit_async();
    gate.open();
    assert_eq!(first.join().unwrap(), (0, 1));
    assert_eq!(second.join().unwrap(), (0, 2));
    assert_eq!(block_on(third).unwrap().join().unwrap(), (0, 3));
    held.into_iter().for_each(|job| job.join().unwrap());
    assert_eq!(pool.metrics().by_label()["use"].completed, 1);
}

#[test]
fn the_queue_timeout_holds_for_jobs_with_a_state() {
    let pool = Log::default().builder().max_workers(1);
    // The job that keeps the worker busy must start within this time.
    let pool = pool.queue_timeout(Duration::from_secs(1)).build().unwrap();
    pool.prestart(1);
    let (gate, held) = hold(&pool, 1);
    assert!(pool.submit(State::use_it).join().unwrap_err().is_expired());
    gate.open();
    held.into_iter().for_each(|job| job.join().unwrap());
}

// The number of workers.

#[test]
fn a_broadcast_reaches_each_state() {
    let log = Log::default();
    let pool = log.pool(3);
    let (gate, held) = hold(&pool, 3);
    gate.open();
    held.into_iter().for_each(|job| job.join().unwrap());
    let numbers = pool.broadcast(|state| state.use_it().0);
    let numbers: HashSet<_> = numbers.into_iter().map(|job| job.join().unwrap()).collect();
    assert_eq!(numbers, HashSet::from([0, 1, 2]));
}

#[test]
fn a_broadcast_to_a_worker_without_its_state_makes_another_one() {
    within(LONG, "a broadcast", || {
        let log = Log::default();
        let pool = log.pool(1);
        assert!(pool.submit(|_| panic!()).join().unwrap_err().is_panic());
        let mut jobs = pool.broadcast(State::use_it);
        assert_eq!(jobs.len(), 1);
        assert_eq!(jobs.remove(0).join().unwrap(), (1, 1));

        let pool = made_once().build().unwrap();
        assert!(pool.submit(|_| panic!()).join().unwrap_err().is_panic());
        let error = pool.broadcast(|seven| *seven).remove(0).join().unwrap_err();
        assert_eq!(
            error.to_string(),
            "the pool is broken: the database is gone"
        );
        assert!(pool.submit(|seven| *seven).join().unwrap_err().is_broken());
    });
}

#[test]
fn a_broadcast_to_the_own_worker_is_a_deadlock() {
    in_a_job("join", 1, |pool| {
        let mut jobs = pool.broadcast(State::use_it);
        assert!(jobs.remove(0).join().unwrap_err().is_deadlock());
    });
    in_a_job("block_on", 1, |pool| {
        let mut jobs = pool.broadcast(State::use_it);
        assert!(block_on(jobs.remove(0)).unwrap_err().is_deadlock());
    });
}

#[test]
fn a_smaller_maximum_drops_states_and_ends_waits() {
    within(LONG, "a smaller maximum", || {
        let log = Log::default();
        let pool = Arc::new(log.pool(2));
        let gate = Gate::new();
        let (joins, joining) = channel();
        let held = gate.clone();
        let busy = pool.submit(move |_| held.wait());
        let inner = Arc::clone(&pool);
        let job = pool.submit(move |_| {
            let queued = inner.submit(State::use_it);
            joins.send(()).unwrap();
            queued.join().is_err_and(|error| error.is_deadlock())
        });
        joining.recv_timeout(LONG).unwrap();
        pool.set_max_workers(1).unwrap();
        assert!(!job.is_finished());
        // The worker that could run the queued job exits instead.
        gate.open();
        assert!(job.join().unwrap());
        busy.join().unwrap();
        eventually("its state is dropped", || log.dropped() == 1);
        pool.set_max_workers(2).unwrap();
        assert_eq!(pool.max_workers(), 2);
    });
}

// Maps.

#[test]
fn a_map_uses_the_states_and_an_item_that_panics_costs_one() {
    for chunk_size in [None, Some(1), Some(7)] {
        let log = Log::default();
        let pool = log.pool(1);
        let mut map = pool.map(0..1_000, |state, n| {
            state.use_it();
            assert_ne!(n, 500, "an unlucky item");
            n
        });
        if let Some(items) = chunk_size {
            map = map.chunk_size(items);
        }
        let results: Vec<_> = map.into_iter().collect();
        assert_eq!(results.len(), 1_000);
        for (n, result) in results.into_iter().enumerate() {
            match n {
                500 => assert!(result.unwrap_err().is_panic()),
                _ => assert_eq!(result.unwrap(), n),
            }
        }
        assert_eq!((log.made(), log.dropped()), (2, 1), "{chunk_size:?}");
    }
}

#[test]
fn the_items_behind_a_state_that_cannot_be_made_again_get_the_cause() {
    within(LONG, "a map", || {
        for chunk_size in [None, Some(1), Some(7)] {
            let pool = made_once().build().unwrap();
            let mut map = pool.map(0..300, |_, n| assert_ne!(n, 200));
            if let Some(items) = chunk_size {
                map = map.chunk_size(items);
            }
            let results: Vec<_> = map.into_iter().collect();
            // A map that finds the pool broken ends with one error for the items it has not
            // submitted.
            assert!((202..=300).contains(&results.len()), "{}", results.len());
            for (n, result) in results.into_iter().enumerate() {
                match n {
                    ..200 => result.unwrap(),
                    200 => assert!(result.unwrap_err().is_panic()),
                    _ => assert!(result.unwrap_err().is_broken()),
                }
            }
        }
    });
}

#[test]
fn a_detached_map_runs_all_items() {
    let log = Log::default();
    let pool = log
        .builder()
        .max_workers(2)
        .queue_capacity(1)
        .build()
        .unwrap();
    let sum = Arc::new(AtomicUsize::new(0));
    let total = Arc::clone(&sum);
    let add = move |state: &mut State, n| {
        state.use_it();
        assert_ne!(n, 50, "an unlucky item");
        total.fetch_add(n, SeqCst);
    };
    pool.map(1..=100, add).detach();
    pool.shutdown().join();
    assert_eq!(sum.load(SeqCst), 5_000);
    assert_eq!(log.made(), log.dropped());
}

// Waits in a worker.

#[test]
fn a_join_of_a_queued_job_is_a_deadlock_with_one_worker() {
    let (error, text) = in_a_job("join", 1, |pool| {
        let error = pool.submit(State::use_it).join().unwrap_err();
        (error.is_deadlock(), error.to_string())
    });
    assert!(error, "{text}");
    assert!(text.contains("stateful.rs"), "{text}");
    assert!(
        text.contains("queued while all workers of its pool wait"),
        "{text}"
    );
}

#[test]
fn a_join_waits_while_another_worker_is_free() {
    let joined = in_a_job("join", 2, |pool| pool.submit(State::use_it).join().unwrap());
    assert_eq!(joined, (1, 1), "the other worker has run it");
}

#[test]
fn a_job_whose_join_was_a_deadlock_runs_later() {
    let pool = Arc::new(Log::default().pool(1));
    let inner = Arc::clone(&pool);
    let (send, receive) = channel();
    let job = pool.submit(move |_| {
        let queued = inner.submit(move |_| send.send("runs").unwrap());
        queued.join().unwrap_err().is_deadlock()
    });
    assert!(within(LONG, "join", || job.join().unwrap()));
    assert_eq!(receive.recv_timeout(LONG).unwrap(), "runs");
}

/// Each of `workers` jobs waits until all run, then for a job that it submits. Returns how many
/// waits were deadlocks.
fn all_wait(
    workers: usize,
    join: impl Fn(JoinHandle<(usize, u32)>) -> Result<(usize, u32), JoinError> + Send + Sync + 'static,
) -> usize {
    within(LONG, "all workers wait", move || {
        let pool = Arc::new(Log::default().pool(workers));
        let (all_run, join) = (Arc::new(Barrier::new(workers)), Arc::new(join));
        let jobs: Vec<_> = (0..workers)
            .map(|_| {
                let (all_run, join, inner) =
                    (Arc::clone(&all_run), Arc::clone(&join), Arc::clone(&pool));
                pool.submit(move |_| {
                    all_run.wait();
                    join(inner.submit(State::use_it))
                })
            })
            .collect();
        let ends = jobs.into_iter().map(|job| job.join().unwrap());
        ends.filter(|end| match end {
            Ok(_) => false,
            Err(error) => error.is_deadlock() || panic!("{error}"),
        })
        .count()
    })
}

#[test]
fn of_many_workers_that_all_join_queued_jobs_one_gets_the_error() {
    for workers in [1, 2, 3, 8] {
        let deadlocks = all_wait(workers, JoinHandle::join);
        assert_eq!(deadlocks, 1, "{workers} workers");
    }
}

#[test]
fn of_many_workers_that_all_await_queued_jobs_one_gets_the_error() {
    for workers in [1, 2, 3, 8] {
        let deadlocks = all_wait(workers, block_on);
        assert!(deadlocks >= 1, "{workers} workers");
    }
}

#[test]
fn a_future_that_has_awaited_a_finished_job_is_found_stuck() {
    within(LONG, "a finished job and a queued one", || {
        let pool = Arc::new(Log::default().pool(2));
        let both_wait = Arc::new(Barrier::new(2));
        let (inner, barrier) = (Arc::clone(&pool), Arc::clone(&both_wait));
        let (tell, told) = channel();
        let awaits = pool.submit(move |_| {
            block_on(async {
                let mut finished = inner.submit(State::use_it);
                wait([&mut finished], ReturnWhen::AllCompleted).await;
                assert!(finished.is_finished());
                tell.send(()).unwrap();
                barrier.wait();
                inner.submit(State::use_it).await
            })
        });
        told.recv_timeout(LONG).unwrap();
        let inner = Arc::clone(&pool);
        let joins = pool.submit(move |_| {
            both_wait.wait();
            inner.submit(State::use_it).join()
        });
        let ends = [awaits, joins].map(|job| job.join().unwrap());
        let errors: Vec<_> = ends.iter().filter_map(|end| end.as_ref().err()).collect();
        assert!(errors.len() == 1 && errors[0].is_deadlock(), "{ends:?}");
    });
}

#[test]
fn a_future_that_waits_for_a_running_job_is_found_stuck() {
    within(LONG, "a running job", || {
        let pool = Arc::new(Log::default().pool(2));
        let inner = Arc::clone(&pool);
        let (go, held) = channel::<()>();
        let running = pool.submit(move |_| {
            held.recv().unwrap();
            // Nothing else can run it: the other worker waits for this job.
            inner
                .submit(State::use_it)
                .join()
                .is_err_and(|error| error.is_deadlock())
        });
        eventually("it runs", || running.is_running());
        let awaits = pool.submit(move |_| {
            let mut running = running;
            block_on(poll_fn(|context| {
                let poll = running.poll_unpin(context);
                let _ = go.send(());
                poll
            }))
        });
        assert!(awaits.join().unwrap().unwrap());
    });
}

#[test]
fn joins_of_each_other_and_of_queued_jobs_end() {
    within(LONG, "mutual joins", || {
        let pool = Arc::new(Log::default().pool(2));
        let (give, take) = channel::<JoinHandle<bool>>();
        let inner = Arc::clone(&pool);
        // The first job waits for a queued one, and the second for the first.
        let waits = Gate::new();
        let wait = waits.clone();
        let first = pool.submit(move |_| {
            wait.wait();
            inner
                .submit(State::use_it)
                .join()
                .is_err_and(|error| error.is_deadlock())
        });
        let second = pool.submit(move |_| take.recv().unwrap().join().unwrap());
        eventually("both run", || pool.metrics().running == 2);
        give.send(first).unwrap();
        waits.open();
        assert!(
            second.join().unwrap(),
            "the wait for the queued job gets the error"
        );
    });
}

#[test]
fn a_cycle_of_running_jobs_is_found_as_on_any_pool() {
    within(LONG, "a cycle", || {
        let pool = Log::default().pool(1);
        let (give, take) = channel::<JoinHandle<bool>>();
        let (tell, told) = channel();
        let handle = pool.submit(move |_| {
            let own: JoinHandle<bool> = take.recv().unwrap();
            tell.send(own.join().unwrap_err().is_deadlock()).unwrap();
            true
        });
        give.send(handle).unwrap();
        assert!(told.recv().unwrap());
    });
}

#[test]
fn a_deadlock_across_two_pools_is_found() {
    within(LONG, "two pools", || {
        let pools = [(); 2].map(|()| Arc::new(Log::default().pool(1)));
        let both_run = Arc::new(Barrier::new(2));
        let jobs = [0, 1].map(|own| {
            let (other, both_run) = (Arc::clone(&pools[1 - own]), Arc::clone(&both_run));
            pools[own].submit(move |_| {
                both_run.wait();
                other
                    .submit(State::use_it)
                    .join()
                    .map_err(|error| error.is_deadlock())
            })
        });
        let ends = jobs.map(|job| job.join().unwrap());
        let deadlocks = ends.iter().filter(|end| **end == Err(true)).count();
        assert_eq!(
            (deadlocks, ends.iter().filter(|end| end.is_ok()).count()),
            (1, 1)
        );
    });
}

#[test]
fn a_deadlock_through_a_thread_pool_is_found() {
    within(LONG, "two kinds of pools", || {
        let pool = Arc::new(Log::default().pool(1));
        let inner = Arc::clone(&pool);
        let job = pool.submit(move |_| {
            let threads = ThreadPool::new(1);
            // A job elsewhere waits for a queued job of this pool, and this one for that.
            let elsewhere = threads.submit(move || {
                let queued = inner.submit(State::use_it);
                queued.join().is_err_and(|error| error.is_deadlock())
            });
            elsewhere.join()
        });
        assert!(job.join().unwrap().unwrap());
    });
}

/// A job of each pool waits for one that is queued in the other pool.
#[test]
fn a_deadlock_through_the_queue_of_a_thread_pool_is_found() {
    within(LONG, "two queues", || {
        for stateful_first in [true, false] {
            let stateful = Arc::new(Log::default().pool(1));
            let threads = Arc::new(ThreadPool::new(1));
            let (both, first_waits) = (Arc::new(Barrier::new(2)), Arc::default());
            let wait_in_turn = move |first: bool| {
                let first_waits: &Mutex<Option<ThreadState>> = &first_waits;
                both.wait();
                if first {
                    *first_waits.lock().unwrap() = Some(ThreadState::of_this_thread());
                } else {
                    eventually("the first one waits", || {
                        let first = first_waits.lock().unwrap();
                        first.as_ref().is_some_and(ThreadState::sleeps)
                    });
                }
            };
            let (wait, inner) = (wait_in_turn.clone(), Arc::clone(&threads));
            let one = stateful.submit(move |_| {
                wait(stateful_first);
                inner.submit(|| 1).join()
            });
            let (wait, inner) = (wait_in_turn, Arc::clone(&stateful));
            let two = threads.submit(move || {
                wait(!stateful_first);
                inner.submit(|_| 2).join()
            });
            let outcomes = [one.join().unwrap(), two.join().unwrap()];
            let is_deadlock =
                |joined: &Result<_, JoinError>| joined.as_ref().is_err_and(JoinError::is_deadlock);
            let deadlocks = outcomes.iter().filter(|joined| is_deadlock(joined));
            assert_eq!(deadlocks.count(), 1, "{outcomes:?}");
        }
    });
}

#[test]
fn a_wait_for_the_queue_of_a_thread_pool_whose_worker_comes_back_is_no_deadlock() {
    within(LONG, "another queue", || {
        let stateful = Log::default().pool(1);
        let threads = Arc::new(ThreadPool::new(1));
        let (resolve, promised) = promise::<u32>();
        let busy = threads.submit(move || promised.join().unwrap());
        let inner = Arc::clone(&threads);
        let (joins, joining) = channel();
        let waits = stateful.submit(move |_| {
            let queued = inner.submit(|| 2);
            joins.send(()).unwrap();
            queued.join()
        });
        joining.recv_timeout(LONG).unwrap();
        // Time for a wrong verdict.
        thread::sleep(Duration::from_millis(20));
        resolve.complete(1).unwrap();
        assert_eq!(waits.join().unwrap().unwrap(), 2);
        assert_eq!(busy.join().unwrap(), 1);
    });
}

/// Each job waits for one other, and there always is, or may be, another worker.
#[test]
fn no_join_is_a_deadlock_while_workers_exit_and_start() {
    within(LONG, "workers that come and go", || {
        let rounds = |seed: u64| {
            for round in 0..120 {
                let keep_alive = Duration::from_micros((seed * 61 + round * 37) % 200);
                let pool = StatefulPool::builder_with(|| ()).max_workers(2);
                let pool = Arc::new(pool.keep_alive(keep_alive).build().unwrap());
                let stop = AtomicBool::new(false);
                thread::scope(|scope| {
                    scope.spawn(|| {
                        for n in (0..3).cycle().take_while(|_| !stop.load(SeqCst)) {
                            pool.set_max_workers(2 + n).unwrap();
                            drop(pool.broadcast(|()| ()));
                            thread::yield_now();
                        }
                    });
                    for n in 0..40 {
                        let inner = Arc::clone(&pool);
                        let job = pool.submit(move |()| match n % 3 {
                            0 => inner.submit(|()| ()).join(),
                            1 => block_on(inner.submit(|()| ())),
                            _ => inner.map(0..3, |(), _| ()).join().map(drop),
                        });
                        let joined = job.join().unwrap();
                        stop.fetch_or(joined.is_err(), SeqCst);
                        joined.expect("another worker runs it");
                    }
                    stop.store(true, SeqCst);
                });
            }
        };
        thread::scope(|scope| (0..4).for_each(|seed| drop(scope.spawn(move || rounds(seed)))));
    });
}

#[test]
fn a_worker_that_waits_for_something_else_is_no_deadlock() {
    within(LONG, "a promise", || {
        let pool = Arc::new(Log::default().pool(2));
        let (resolve, promised) = promise::<u32>();
        let (joins, joining) = channel();
        // One worker waits for a promise, by a join or by a future.
        let outside = pool.submit(move |_| promised.join().unwrap());
        let inner = Arc::clone(&pool);
        let inside = pool.submit(move |_| {
            let queued = inner.submit(State::use_it);
            joins.send(()).unwrap();
            queued.join()
        });
        joining.recv().unwrap();
        // Time for a wrong verdict.
        thread::sleep(Duration::from_millis(50));
        assert!(!inside.is_finished());
        resolve.complete(7).unwrap();
        assert_eq!(outside.join().unwrap(), 7);
        inside.join().unwrap().expect("the other worker came back");
    });
}

#[test]
fn a_worker_in_a_future_of_something_else_is_no_deadlock() {
    within(LONG, "a promise that is awaited", || {
        let pool = Arc::new(Log::default().pool(2));
        let (resolve, promised) = promise::<u32>();
        let (joins, joining) = channel();
        let inner = Arc::clone(&pool);
        let outside = pool.submit(move |_| {
            block_on(async {
                // Its own job has ended before, and so is no reason.
                inner.submit(State::use_it).await.unwrap();
                promised.await.unwrap()
            })
        });
        eventually("it awaits the promise", || pool.metrics().completed == 1);
        let inner = Arc::clone(&pool);
        let inside = pool.submit(move |_| {
            let queued = inner.submit(State::use_it);
            joins.send(()).unwrap();
            queued.join()
        });
        joining.recv().unwrap();
        // Time for a wrong verdict.
        thread::sleep(Duration::from_millis(50));
        assert!(!inside.is_finished());
        resolve.complete(7).unwrap();
        assert_eq!(outside.join().unwrap(), 7);
        inside.join().unwrap().expect("the other worker came back");
    });
}

#[test]
fn a_handle_that_a_worker_keeps_but_does_not_await_is_no_deadlock() {
    within(LONG, "a handle that is kept", || {
        let pool = Arc::new(Log::default().pool(2));
        let (resolve, promised) = promise::<u32>();
        let (polled, is_polled) = channel();
        let (joins, joining) = channel();
        let inner = Arc::clone(&pool);
        let inside = pool.submit(move |_| {
            is_polled.recv_timeout(LONG).unwrap();
            let queued = inner.submit(State::use_it);
            joins.send(()).unwrap();
            queued.join()
        });
        let inner = Arc::clone(&pool);
        let outside = pool.submit(move |_| {
            // Both workers are busy.
            let mut queued = inner.submit(State::use_it);
            block_on(poll_fn(|context| {
                assert!(queued.poll_unpin(context).is_pending());
                Poll::Ready(())
            }));
            polled.send(()).unwrap();
            (block_on(promised).unwrap(), queued)
        });
        joining.recv_timeout(LONG).unwrap();
        // Time for a wrong verdict.
        thread::sleep(Duration::from_millis(50));
        assert!(!inside.is_finished());
        resolve.complete(7).unwrap();
        let (seven, queued) = outside.join().unwrap();
        assert_eq!(seven, 7);
        queued.join().unwrap();
        inside.join().unwrap().expect("the other worker came back");
    });
}

#[test]
fn a_wait_with_a_timeout_ends_by_the_timeout() {
    let is_timeout = in_a_job("timeout", 1, |pool| {
        let mut queued = pool.submit(State::use_it);
        let timed_out = queued.join_timeout(Duration::from_millis(10)).unwrap_err();
        let waited = wait([queued], ReturnWhen::AllCompleted);
        let waited = waited.timeout(Duration::from_millis(10)).join();
        timed_out.is_timeout() && waited.not_done.len() == 1
    });
    assert!(is_timeout);
}

#[test]
fn a_join_waits_for_a_worker_in_a_wait_with_a_timeout() {
    within(LONG, "a timeout elsewhere", || {
        let pool = Arc::new(Log::default().pool(2));
        let (never, promised) = promise::<u32>();
        let timed = pool.submit(move |_| {
            let mut promised = promised;
            promised
                .join_timeout(Duration::from_millis(50))
                .unwrap_err()
                .is_timeout()
        });
        let inner = Arc::clone(&pool);
        let joins = pool.submit(move |_| inner.submit(State::use_it).join());
        joins
            .join()
            .unwrap()
            .expect("after the timeout there is a worker");
        assert!(timed.join().unwrap());
        drop(never);
    });
}

#[test]
fn waits_for_several_queued_jobs_end_with_one_worker() {
    in_a_job("block_on", 1, |pool| {
        let jobs = [(); 3].map(|()| pool.submit(State::use_it));
        let ends = block_on(join_all(jobs));
        assert!(
            ends.iter()
                .all(|end| end.as_ref().unwrap_err().is_deadlock())
        );
    });
    in_a_job("wait for all", 1, |pool| {
        let jobs = [(); 3].map(|()| pool.submit(State::use_it));
        let waited = wait(jobs, ReturnWhen::AllCompleted).join();
        assert_eq!((waited.done.len(), waited.not_done.len()), (0, 3));
    });
    in_a_job("wait for the first", 1, |pool| {
        let jobs = [(); 3].map(|()| pool.submit(State::use_it));
        let waited = wait(jobs, ReturnWhen::FirstCompleted).join();
        assert_eq!((waited.done.len(), waited.not_done.len()), (0, 3));
    });
    in_a_job("as_completed", 1, |pool| {
        let ends = as_completed([(); 3].map(|()| pool.submit(State::use_it)));
        let ends: Vec<_> = ends.into_iter().collect();
        assert_eq!(ends.len(), 3);
        assert!(
            ends.iter()
                .all(|end| end.as_ref().unwrap_err().is_deadlock())
        );
    });
    in_a_job("first_ok", 1, |pool| {
        let jobs = [(); 3].map(|()| pool.submit(State::use_it));
        assert!(first_ok(jobs).join().unwrap_err().is_deadlock());
    });
}

/// Waits for jobs of its own pool in one of many ways, each again in its jobs.
fn wait_somehow(pool: &Pool, depth: u32, mut choice: u32) {
    if depth == 0 {
        return;
    }
    let mut submit = || {
        choice = choice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (inner, choice) = (Arc::clone(pool), choice >> 8);
        pool.submit(move |_| wait_somehow(&inner, depth - 1, choice))
    };
    let mut jobs = [submit(), submit()];
    let [first, second] = &mut jobs;
    let check = |end: Result<(), JoinError>| match end {
        Ok(()) => {}
        Err(error) => assert!(error.is_deadlock() || error.is_timeout(), "{error}"),
    };
    match choice % 7 {
        0 => jobs.into_iter().for_each(|job| check(job.join())),
        1 => jobs.into_iter().for_each(|job| check(block_on(job))),
        2 => check(first.join_timeout(Duration::from_micros(100))),
        3 => block_on(join_all(jobs)).into_iter().for_each(check),
        4 => as_completed(jobs).into_iter().for_each(check),
        5 => drop(wait(jobs, ReturnWhen::AllCompleted).join()),
        _ => {
            second.cancel();
            let map = pool.map(0..3, move |_, _| ());
            map.into_iter().for_each(check);
        }
    }
}

#[test]
fn nested_waits_of_all_kinds_end() {
    for round in 0..30 {
        let workers = 1 + round % 4;
        in_a_job("nested waits", workers, move |pool| {
            let jobs = (0..8).map(|n| {
                let inner = Arc::clone(pool);
                pool.submit(move |_| wait_somehow(&inner, 4, 8 * round as u32 + n))
            });
            let jobs: Vec<_> = jobs.collect();
            wait_somehow(pool, 3, round as u32);
            drop(jobs);
        });
    }
}

/// Of a set that was polled elsewhere, a worker polls no handle before that is woken.
#[test]
fn a_set_that_was_polled_elsewhere_is_found_stuck() {
    within(LONG, "a set that was polled elsewhere", || {
        let pool = Log::default().pool(1);
        let (sets, set) = channel::<AsCompleted<JoinHandle<u32>>>();
        let waits = pool.submit(move |_| {
            let mut set = set.recv_timeout(LONG).unwrap();
            iter::from_fn(|| set.wait_next()).collect::<Vec<_>>()
        });
        let mut set = as_completed([1, 2].map(|n| pool.submit(move |_| n)));
        assert!(set.next().now_or_never().is_none());
        sets.send(set).unwrap();
        let outcomes = waits.join().unwrap();
        assert_eq!(outcomes.len(), 2);
        assert!(
            outcomes
                .iter()
                .all(|job| job.as_ref().is_err_and(JoinError::is_deadlock))
        );
    });
}

#[test]
fn a_map_in_its_own_worker_ends() {
    for chunk_size in [None, Some(1), Some(7)] {
        in_a_job("map", 1, move |pool| {
            let mut map = pool.map(0..300, |_, n| n);
            let mut unordered = pool.map_unordered(0..300, |_, n| n);
            if let Some(items) = chunk_size {
                map = map.chunk_size(items);
                unordered = unordered.chunk_size(items);
            }
            let ends: Vec<_> = map.into_iter().collect();
            assert_eq!(ends.len(), 300);
            assert!(
                ends.iter()
                    .all(|end| end.as_ref().unwrap_err().is_deadlock())
            );
            assert!(unordered.join().unwrap_err().is_deadlock());
        });
    }
}

#[test]
fn jobs_await_their_jobs_while_a_worker_is_free() {
    let sum = in_a_job("block_on", 2, |pool| {
        let jobs = (0..100).map(|n| pool.submit(move |_| n));
        let ends = block_on(join_all(jobs));
        let sum: u32 = ends.into_iter().map(Result::unwrap).sum();
        let map = pool.map(0..100, |_, n| n).into_iter();
        sum + map.map(Result::unwrap).sum::<u32>()
    });
    assert_eq!(sum, 9_900);
}

#[test]
fn a_maker_cannot_wait_for_its_own_pool() {
    let pool: Arc<Mutex<Option<StatefulPool<bool>>>> = Arc::default();
    let own = Arc::clone(&pool);
    let made = move || {
        let job = own.lock().unwrap().as_ref().unwrap().submit(|_| ());
        job.join().unwrap_err().is_deadlock()
    };
    let built = StatefulPool::builder_with(made)
        .max_workers(1)
        .build()
        .unwrap();
    *pool.lock().unwrap() = Some(built);
    let mut job = pool
        .lock()
        .unwrap()
        .as_ref()
        .unwrap()
        .submit(|is_deadlock| *is_deadlock);
    assert!(job.join_timeout(LONG).unwrap());
    let built = pool.lock().unwrap().take();
    drop(built);
}

#[test]
fn debug_texts_name_the_types() {
    let builder = StatefulPool::builder_with(|| 7);
    assert!(format!("{builder:?}").starts_with("StatefulPoolBuilder(ThreadPoolBuilder"));
    let pool = builder.build().unwrap();
    assert!(format!("{pool:?}").starts_with("StatefulPool"));
    let future = pool.submit_async(|seven| *seven);
    assert!(format!("{future:?}").starts_with("StatefulSubmitAsync"));
}

#[test]
fn a_pool_can_be_shared_whatever_its_state_is() {
    fn is_shared<T: Send + Sync + std::panic::UnwindSafe + 'static>(_: &T) {}
    is_shared(&StatefulPool::builder_with(|| Rc::new(7)).build().unwrap());
}
