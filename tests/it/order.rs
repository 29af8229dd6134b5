//! Which job starts next: jobs from outside in the order of acceptance, those of each worker too,
//! and none waits for ever behind later ones.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use futurepool::{JoinHandle, ThreadPool, as_completed, block_on};
use futures::StreamExt;
use futures::stream::FuturesUnordered;

use crate::common::{Gate, LONG, block_workers, bounded_pool, eventually, poll_once, within};

pub(crate) type Pool = Arc<ThreadPool>;

/// What has started, in this order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<(&'static str, usize)>>>);

impl Log {
    fn submit(&self, pool: &ThreadPool, who: &'static str, n: usize) -> JoinHandle<()> {
        let log = Arc::clone(&self.0);
        pool.submit(move || log.lock().unwrap().push((who, n)))
    }

    fn take(&self) -> Vec<(&'static str, usize)> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    /// Returns the numbers that one submitter gave its jobs.
    fn of(started: &[(&'static str, usize)], who: &str) -> Vec<usize> {
        let own = started.iter().filter(|(other, _)| *other == who);
        own.map(|(_, n)| *n).collect()
    }
}

type Act = Box<dyn FnOnce(&Pool) + Send>;

/// A job that does in its worker what the test tells it to.
pub(crate) struct Inside {
    acts: Sender<Act>,
    ends: JoinHandle<()>,
}

impl Inside {
    pub(crate) fn new(pool: &Pool) -> Self {
        let (acts, to_do) = channel::<Act>();
        let inner = Arc::clone(pool);
        let ends = pool.submit(move || {
            while let Ok(act) = to_do.recv_timeout(LONG) {
                act(&inner);
            }
        });
        Self { acts, ends }
    }

    /// Runs `act` in the job and returns its result.
    pub(crate) fn run<R: Send + 'static>(
        &self,
        act: impl FnOnce(&Pool) -> R + Send + 'static,
    ) -> R {
        let (done, result) = channel();
        let act = move |pool: &Pool| done.send(act(pool)).unwrap();
        self.acts.send(Box::new(act)).unwrap();
        result.recv_timeout(LONG).expect("the job runs")
    }

    fn submit(&self, log: &Log, n: usize) -> JoinHandle<()> {
        let log = log.clone();
        self.run(move |pool| log.submit(pool, "inside", n))
    }

    pub(crate) fn end(self) {
        drop(self.acts);
        self.ends.join().unwrap();
    }
}

#[test]
fn jobs_from_outside_and_those_of_a_worker_start_in_order_each() {
    within(LONG, "order", || {
        let pool = Arc::new(ThreadPool::new(1));
        let (inside, log) = (Inside::new(&pool), Log::default());
        let handles: Vec<_> = (0..100)
            .flat_map(|n| [log.submit(&pool, "outside", n), inside.submit(&log, n)])
            .collect();
        inside.end();
        for handle in handles {
            handle.join().unwrap();
        }
        let started = log.take();
        for who in ["inside", "outside"] {
            assert!(Log::of(&started, who).into_iter().eq(0..100), "{who}");
        }
    });
}

#[test]
fn a_job_from_outside_waits_for_few_later_jobs_of_a_worker() {
    within(LONG, "a bound", || {
        let pool = Arc::new(ThreadPool::new(1));
        let (inside, log) = (Inside::new(&pool), Log::default());
        let mut handles: Vec<_> = (0..100).map(|n| inside.submit(&log, n)).collect();
        handles.push(log.submit(&pool, "outside", 0));
        inside.end();
        for handle in handles {
            handle.join().unwrap();
        }
        let started = log.take();
        let position = started.iter().position(|(who, _)| *who == "outside");
        assert!(position.unwrap() < 10, "{position:?}");
    });
}

/// Submits a job that submits itself again and again, until `stop` is set.
fn feed(pool: &Weak<ThreadPool>, stop: &Arc<AtomicBool>, runs: &Arc<AtomicUsize>) {
    runs.fetch_add(1, SeqCst);
    let Some(strong) = pool.upgrade().filter(|_| !stop.load(SeqCst)) else {
        return;
    };
    let (pool, stop, runs) = (Weak::clone(pool), Arc::clone(stop), Arc::clone(runs));
    drop(strong.submit(move || feed(&pool, &stop, &runs)));
}

#[test]
fn a_job_from_outside_starts_although_every_worker_feeds_itself() {
    for workers in [1, 2] {
        within(LONG, "the job starts", move || {
            let pool = Arc::new(ThreadPool::new(workers));
            let (stop, runs) = (Arc::default(), Arc::default());
            for _ in 0..2 * workers {
                let (weak, stop, runs) =
                    (Arc::downgrade(&pool), Arc::clone(&stop), Arc::clone(&runs));
                drop(pool.submit(move || feed(&weak, &stop, &runs)));
            }
            for n in 0..100 {
                let runs_before = runs.load(SeqCst);
                eventually("it feeds itself", || {
                    runs.load(SeqCst) > runs_before + workers
                });
                assert_eq!(pool.submit(move || n).join().unwrap(), n);
            }
            stop.store(true, SeqCst);
            pool.wait_idle().join();
        });
    }
}

#[test]
fn the_job_of_a_busy_worker_waits_for_few_jobs_from_outside() {
    within(LONG, "a bound", || {
        let pool = Arc::new(ThreadPool::new(2));
        let (inside, log) = (Inside::new(&pool), Log::default());
        let blocked = block_workers(&pool, 1);
        let outside: Vec<_> = (0..1000).map(|n| log.submit(&pool, "outside", n)).collect();
        let own = inside.submit(&log, 0);
        blocked.release();
        // Its worker is still busy.
        own.join().unwrap();
        let started = log.take();
        let position = started.iter().position(|(who, _)| *who == "inside");
        assert!(position.unwrap() < 100, "{position:?}");
        inside.end();
        for handle in outside {
            handle.join().unwrap();
        }
    });
}

#[test]
fn the_job_of_a_busy_worker_starts_although_the_other_worker_feeds_itself() {
    within(LONG, "the job starts", || {
        let pool = Arc::new(ThreadPool::new(2));
        let inside = Inside::new(&pool);
        let (stop, runs) = (Arc::default(), Arc::default());
        let weak = Arc::downgrade(&pool);
        let feeds = pool.submit({
            let (stop, runs) = (Arc::clone(&stop), Arc::clone(&runs));
            move || feed(&weak, &stop, &runs)
        });
        feeds.join().unwrap();
        for n in 0..20 {
            let own = inside.run(move |pool| pool.submit(move || n));
            assert_eq!(own.join().unwrap(), n);
        }
        stop.store(true, SeqCst);
        inside.end();
    });
}

#[test]
fn a_job_of_a_busy_worker_starts_a_thread() {
    within(LONG, "a thread", || {
        let pool = Arc::new(ThreadPool::new(2));
        let inside = Inside::new(&pool);
        assert_eq!(pool.metrics().workers, 1);
        let own = inside.run(|pool| pool.submit(|| 7));
        assert_eq!(own.join().unwrap(), 7);
        assert_eq!(pool.metrics().workers, 2);
        inside.end();
    });
}

#[test]
fn a_job_that_an_exiting_worker_submits_runs_in_another_one() {
    within(LONG, "the exit", || {
        let (give, take) = channel::<Weak<ThreadPool>>();
        let (ran, runs) = channel();
        let take = Mutex::new(take);
        let pool = ThreadPool::builder()
            .max_workers(1)
            .keep_alive(Duration::from_millis(1))
            .on_exit(move || {
                // For the first worker only.
                if let Ok(pool) = take.lock().unwrap().try_recv() {
                    let (ran, pool) = (ran.clone(), pool.upgrade().unwrap());
                    drop(pool.submit(move || ran.send(7).unwrap()));
                }
            })
            .build()
            .unwrap();
        let pool = Arc::new(pool);
        give.send(Arc::downgrade(&pool)).unwrap();
        pool.submit(|| ()).join().unwrap();
        assert_eq!(runs.recv_timeout(LONG), Ok(7));
    });
}

/// Submits jobs from outside and in a worker in turn; returns what happens to them, in order.
fn four_queued(pool: &Pool, inside: &Inside) -> (Vec<JoinHandle<()>>, Arc<Mutex<Vec<usize>>>) {
    let log = Log::default();
    let ended = Arc::new(Mutex::new(Vec::new()));
    let handles: Vec<_> = (0..4)
        .map(|n| match n % 2 {
            0 => log.submit(pool, "outside", n),
            _ => inside.submit(&log, n),
        })
        .collect();
    for (n, handle) in handles.iter().enumerate() {
        let ended = Arc::clone(&ended);
        handle.add_done_callback(move |_| ended.lock().unwrap().push(n));
    }
    (handles, ended)
}

#[test]
fn all_queued_jobs_are_counted_and_cancelled_in_the_order_of_submission() {
    within(LONG, "cancel", || {
        for now in [false, true] {
            // In a worker the capacity is exceeded.
            let pool = Arc::new(bounded_pool(1, 3));
            let inside = Inside::new(&pool);
            let (handles, ended) = four_queued(&pool, &inside);
            assert_eq!(pool.metrics().queued, 4);
            if now {
                drop(pool.shutdown_now());
                let late = inside.run(|pool| pool.submit(|| ()));
                assert!(late.join().unwrap_err().is_shutdown());
            } else {
                assert_eq!(pool.cancel_queued(), 4);
                assert_eq!(pool.metrics().queued, 0);
            }
            assert!(handles.iter().all(JoinHandle::is_cancelled));
            assert_eq!(*ended.lock().unwrap(), [0, 1, 2, 3]);
            inside.end();
            assert_eq!(pool.metrics().cancelled, 4);
        }
    });
}

#[test]
fn a_shutdown_runs_what_workers_have_submitted_before() {
    within(LONG, "shutdown", || {
        let pool = Arc::new(ThreadPool::new(1));
        let inside = Inside::new(&pool);
        let (handles, _) = four_queued(&pool, &inside);
        let shutdown = pool.shutdown();
        let late = inside.run(|pool| pool.submit(|| ()));
        assert!(late.join().unwrap_err().is_shutdown());
        inside.end();
        for handle in handles {
            handle.join().unwrap();
        }
        shutdown.join();
        let metrics = pool.metrics();
        assert_eq!((metrics.completed, metrics.rejected), (5, 1));
    });
}

#[test]
fn a_worker_that_waits_for_any_of_several_jobs_runs_the_one_submitted_first() {
    within(LONG, "any of", || {
        let pool = Arc::new(ThreadPool::new(2));
        // Jobs of both workers, and from outside.
        let (first, second) = (Inside::new(&pool), Inside::new(&pool));
        let log = Log::default();
        let mut handles = Vec::new();
        for n in (0..30).step_by(3) {
            handles.push(first.submit(&log, n));
            handles.push(log.submit(&pool, "inside", n + 1));
            handles.push(second.submit(&log, n + 2));
        }
        handles.reverse();
        // Both workers wait: one for the jobs, the other for a job of another pool.
        let gate = Gate::new();
        let other = ThreadPool::new(1);
        let slow = other.submit({
            let gate = gate.clone();
            move || gate.wait()
        });
        let (waits, until) = channel();
        let act = move |_: &Pool| {
            waits.send(()).unwrap();
            slow.join().unwrap();
        };
        second.acts.send(Box::new(act)).unwrap();
        until.recv_timeout(LONG).unwrap();
        first.run(|_| {
            as_completed(handles)
                .into_iter()
                .for_each(|ended| ended.unwrap())
        });
        let started = Log::of(&log.take(), "inside");
        assert!(started.iter().copied().eq(0..30), "{started:?}");
        gate.open();
        first.end();
        second.end();
    });
}

#[test]
fn a_worker_that_gets_a_set_polled_elsewhere_runs_the_job_submitted_first() {
    within(LONG, "polled elsewhere", || {
        let pool = Arc::new(ThreadPool::new(1));
        let inside = Inside::new(&pool);
        let log = Log::default();
        let handles = (0..2).map(|n| match n {
            0 => inside.submit(&log, n),
            _ => log.submit(&pool, "inside", n),
        });
        let mut set: FuturesUnordered<_> = handles.collect();
        // The worker polls none of the handles before it is woken.
        assert!(poll_once(&mut set.next()).is_pending());
        inside.run(|_| block_on(set.for_each(|ended| async { ended.unwrap() })));
        assert_eq!(log.take(), [("inside", 0), ("inside", 1)]);
        inside.end();
    });
}
