//! Pools that find the number of their workers. The decisions themselves are tested without
//! threads, in `src/pool/auto_size/simulation.rs`.

use std::hint::black_box;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::event_log::EventLog;
use crate::common::{Gate, LONG, child, eventually, threads_named, within};
use futurepool::{AutoSizeReason, Metrics, ThreadPool};
use tracing::Level;

fn processors() -> usize {
    thread::available_parallelism().unwrap().get()
}

fn pool_of(bounds: RangeInclusive<usize>) -> ThreadPool {
    let builder = ThreadPool::builder().auto_size(bounds);
    builder.queue_capacity(100).build().unwrap()
}

fn limit_of(metrics: &Metrics) -> usize {
    metrics.auto_size().unwrap().limit as usize
}

/// A thread that keeps the queue of a pool full.
struct Feeder {
    stops: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Feeder {
    fn of(pool: &Arc<ThreadPool>, job: fn()) -> Self {
        let (pool, stops) = (Arc::clone(pool), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stops);
        let feed = move || {
            while !stopped.load(SeqCst) {
                drop(pool.submit(job));
            }
            pool.cancel_queued();
        };
        let thread = Some(thread::spawn(feed));
        Self { stops, thread }
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        self.stops.store(true, SeqCst);
        let _ = self.thread.take().unwrap().join();
    }
}

fn compute_for_long() {
    for i in 0..2_000_000_u64 {
        black_box(i);
    }
}

#[test]
#[ignore = "takes 9 s, so only `.ci/check` runs it"]
fn a_pool_of_jobs_that_wait_grows() {
    within(2 * LONG, "grows", || {
        let start = processors();
        let pool = Arc::new(pool_of(1..=8 * start));
        assert_eq!(pool.max_workers(), start);
        let _feeder = Feeder::of(&pool, || thread::sleep(Duration::from_millis(10)));
        eventually("four times the workers", || {
            let metrics = pool.metrics();
            let limit = limit_of(&metrics);
            // On a busy machine the workers are late.
            limit >= 4 * start && metrics.workers >= 3 * start as u64
        });
        assert!(pool.max_workers() <= 8 * start);
        assert!(pool.metrics().auto_size().unwrap().changes > 0);
    });
}

#[test]
#[ignore = "computes for 10 s, so only `.ci/check` runs it"]
fn a_pool_of_jobs_that_compute_stays_near_the_processors() {
    within(2 * LONG, "stays", || {
        let most = 2 * processors();
        let pool = Arc::new(pool_of(1..=16 * processors()));
        // Beside as many other threads that compute.
        let stops = Arc::new(AtomicBool::new(false));
        let others: Vec<_> = (0..processors())
            .map(|_| {
                let stops = Arc::clone(&stops);
                thread::spawn(move || {
                    while !stops.load(SeqCst) {
                        compute_for_long();
                    }
                })
            })
            .collect();
        let feeder = Feeder::of(&pool, compute_for_long);
        let start = Instant::now();
        let mut peak = 0;
        while start.elapsed() < Duration::from_secs(10) {
            peak = peak.max(pool.metrics().workers as usize);
            thread::sleep(Duration::from_millis(20));
        }
        drop(feeder);
        stops.store(true, SeqCst);
        for other in others {
            other.join().unwrap();
        }
        let metrics = pool.metrics();
        let size = metrics.auto_size().unwrap();
        if cfg!(target_os = "linux") {
            assert!(peak <= most, "{peak} workers: {size:?}");
        }
        assert!(limit_of(&metrics) <= 2 * most, "{size:?}");
    });
}

#[test]
#[ignore = "takes 8 s, so only `.ci/check` runs it"]
fn workers_that_are_too_many_exit_when_jobs_no_longer_wait() {
    // Elsewhere it needs several trials, and a machine that is not busy.
    if !cfg!(target_os = "linux") {
        return;
    }
    within(3 * LONG, "shrinks", || {
        let start = processors();
        let pool = Arc::new(pool_of(1..=8 * start));
        let feeder = Feeder::of(&pool, || thread::sleep(Duration::from_millis(10)));
        eventually("many workers", || {
            pool.metrics().workers >= 4 * start as u64
        });
        drop(feeder);
        let _feeder = Feeder::of(&pool, compute_for_long);
        let mut seen = None;
        eventually("few workers", || {
            // The limit and its reason belong together.
            let metrics = pool.metrics();
            seen = metrics.auto_size().cloned();
            limit_of(&metrics) <= 2 * start && metrics.workers <= 2 * start as u64
        });
        assert_eq!(seen.unwrap().reason, AutoSizeReason::Saturated);
    });
}

/// Elsewhere the CPU time of the whole process counts, and other tests compute.
#[cfg(target_os = "linux")]
#[test]
fn long_jobs_are_seen_while_they_run() {
    within(2 * LONG, "seen", || {
        let start = processors();
        let pool = pool_of(1..=8 * start);
        let submitted = Instant::now();
        let gate = Gate::new();
        let jobs: Vec<_> = (0..8 * start)
            .map(|_| {
                let gate = gate.clone();
                pool.submit(move || gate.wait())
            })
            .collect();
        eventually("growth though no job has ended", || {
            pool.metrics().running >= 4 * start as u64
        });
        let metrics = pool.metrics();
        let size = metrics.auto_size().unwrap();
        assert!(size.since > submitted && size.since <= Instant::now());
        gate.open();
        for job in jobs {
            job.join().unwrap();
        }
    });
}

#[test]
fn equal_bounds_are_a_fixed_number() {
    within(LONG, "fixed", || {
        let pool = Arc::new(pool_of(3..=3));
        let _feeder = Feeder::of(&pool, || thread::sleep(Duration::from_millis(1)));
        eventually("three workers", || pool.metrics().workers == 3);
        thread::sleep(Duration::from_secs(2));
        let metrics = pool.metrics();
        let size = metrics.auto_size().unwrap();
        assert_eq!((size.limit, size.changes), (3, 0));
        assert_eq!(size.reason, AutoSizeReason::Start);
    });
}

#[test]
fn the_bounds_are_kept_from_the_start() {
    let many = processors() + 5;
    assert_eq!(pool_of(many..=2 * many).max_workers(), many);
    assert_eq!(pool_of(1..=1).max_workers(), 1);
    let before = Instant::now();
    let pool = pool_of(1..=many);
    let metrics = pool.metrics();
    let size = metrics.auto_size().unwrap();
    assert!(before <= size.since && size.since <= Instant::now());
    assert_eq!((size.min, size.max), (1, many as u64));
    assert_eq!(size.processors, processors() as u64);
    assert_eq!(size.limit, processors() as u64);
}

#[test]
fn the_number_is_not_for_others_to_set() {
    let pool = pool_of(2..=4);
    let before = pool.max_workers();
    let error = pool.set_max_workers(3).unwrap_err();
    assert!(error.to_string().contains("auto_size"), "{error}");
    assert_eq!(pool.max_workers(), before);
}

#[test]
fn the_last_of_both_options_wins() {
    let fixed = ThreadPool::builder().auto_size(7..=9).max_workers(5);
    let fixed = fixed.build().unwrap();
    assert_eq!(fixed.max_workers(), 5);
    assert_eq!(fixed.metrics().auto_size(), None);
    assert_eq!(fixed.set_max_workers(6), Ok(()));
    let sized = ThreadPool::builder().max_workers(0).auto_size(7..=7);
    let sized = sized.build().unwrap();
    assert_eq!(sized.max_workers(), 7);
    assert!(sized.metrics().auto_size().is_some());
}

#[test]
#[expect(clippy::reversed_empty_ranges, reason = "it is what is tested")]
fn wrong_bounds_are_refused() {
    for (bounds, problem) in [
        (0..=4, "at least 1 worker"),
        (0..=0, "at least 1 worker"),
        (5..=4, "5..=4"),
    ] {
        let error = ThreadPool::builder().auto_size(bounds).build().unwrap_err();
        assert_eq!(error.field(), "auto_size");
        assert!(error.to_string().contains(problem), "{error}");
    }
}

#[test]
fn a_change_is_reported_with_its_reason() {
    child::alone("auto_size::a_change_is_reported_with_its_reason", || {
        EventLog::install();
        let builder = ThreadPool::builder().thread_name_prefix("sized");
        let pool = builder.auto_size(1..=64 * processors()).queue_capacity(100);
        let pool = Arc::new(pool.build().unwrap());
        let _feeder = Feeder::of(&pool, || thread::sleep(Duration::from_millis(10)));
        eventually("the event", || {
            let from = format!("from={}", processors());
            EventLog::contains_at(
                Level::INFO,
                &[
                    "pool=sized",
                    &from,
                    "to=",
                    "reason=the jobs wait",
                    "auto_size: from",
                ],
            )
        });
        EventLog::assert_distinct_field_names();
    });
}

/// The timer's thread exits when nothing needs it for ten seconds.
#[cfg(target_os = "linux")]
#[test]
#[ignore = "waits until the timer thread exits: 22 s, so only `.ci/check` runs it"]
fn a_pool_without_jobs_needs_no_timer() {
    child::alone("auto_size::a_pool_without_jobs_needs_no_timer", || {
        let pool = pool_of(1..=4);
        assert_eq!(
            threads_named("futurepool-time"),
            0,
            "none before the first job"
        );
        for _ in 0..2 {
            pool.submit(|| ()).join().unwrap();
            // A thread sets its name itself.
            eventually("the timer's thread starts", || {
                threads_named("futurepool-time") == 1
            });
            eventually("the timer's thread exits", || {
                thread::sleep(Duration::from_millis(100));
                threads_named("futurepool-time") == 0
            });
            let metrics = pool.metrics();
            assert_eq!((metrics.workers, metrics.idle), (1, 1));
        }
    });
}

#[test]
fn a_pool_that_is_dropped_is_forgotten_by_the_timer() {
    within(LONG, "dropped", || {
        let kept = Arc::new(());
        for _ in 0..50 {
            let of_pool = Arc::clone(&kept);
            let builder = ThreadPool::builder().auto_size(1..=4);
            let builder = builder.initializer(move || assert!(Arc::strong_count(&of_pool) > 1));
            let pool = builder.build().unwrap();
            pool.submit(|| thread::sleep(Duration::from_millis(1)))
                .join()
                .unwrap();
            drop(pool);
        }
        eventually("nothing of them is kept", || Arc::strong_count(&kept) == 1);
        // Their ticks are due.
        thread::sleep(Duration::from_secs(1));
        let pool = pool_of(1..=4);
        assert_eq!(pool.submit(|| 7).join().unwrap(), 7);
        pool.shutdown_now().join();
    });
}
