//! How long jobs waited and ran, for all of a pool and by label.

use std::collections::BTreeSet;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::common::event_log::EventLog;
use crate::common::{LONG, block_workers, child, eventually};
use futurepool::{LabelMetrics, Metrics, ThreadPool};
use tracing::Level;

fn timed_pool(workers: usize) -> ThreadPool {
    let builder = ThreadPool::builder().max_workers(workers);
    builder.timings(true).build().unwrap()
}

fn of_label(metrics: &Metrics, label: &str) -> LabelMetrics {
    metrics.by_label().get(label).cloned().unwrap_or_default()
}

/// Returns a label at another address than the literal of the same text.
fn leaked(label: &str) -> &'static str {
    Box::leak(label.to_owned().into_boxed_str())
}

#[test]
fn a_pool_without_timings_measures_nothing() {
    let pool = ThreadPool::new(1);
    pool.job(|| ()).label("labelled").submit().join().unwrap();
    let metrics = pool.metrics();
    assert_eq!(metrics.completed, 1);
    assert_eq!(metrics.queue_wait.count(), 0);
    assert_eq!(metrics.run_time.count(), 0);
    assert!(metrics.by_label().is_empty());
}

#[test]
fn the_wait_in_the_queue_and_the_run_are_told_apart() {
    const LONG_RUN: Duration = Duration::from_secs(1);
    let pool = timed_pool(1);
    let (started, starts) = mpsc::channel();
    let first = pool.submit(move || {
        started.send(()).unwrap();
        thread::sleep(LONG_RUN);
    });
    starts.recv_timeout(LONG).unwrap();
    let second = pool.submit(|| ());
    first.join().unwrap();
    second.join().unwrap();
    let Metrics {
        queue_wait,
        run_time,
        ..
    } = pool.metrics();
    assert_eq!((queue_wait.count(), run_time.count()), (2, 2));
    assert!(run_time.max() >= LONG_RUN, "{run_time:?}");
    assert!(run_time.quantile(0.5) < LONG_RUN, "{run_time:?}");
    // The second job was submitted when the first had just started.
    assert!(queue_wait.max() >= LONG_RUN / 2, "{queue_wait:?}");
    assert!(queue_wait.quantile(0.5) < LONG_RUN, "{queue_wait:?}");
    assert!(queue_wait.sum() >= queue_wait.max());
}

/// The time in which a job waits for others is part of its run time; callbacks are not.
#[test]
fn the_run_time_is_that_of_the_closure() {
    const SLOW: Duration = Duration::from_secs(1);
    let pool = timed_pool(1);
    let blocked = block_workers(&pool, 1);
    let job = pool.job(|| ()).label("with a callback").submit();
    job.add_done_callback(|_| thread::sleep(SLOW));
    blocked.release();
    job.join().unwrap();
    let measured = of_label(&pool.metrics(), "with a callback");
    assert_eq!(measured.run_time.count(), 1);
    assert!(measured.run_time.max() < SLOW, "{:?}", measured.run_time);
}

#[test]
fn a_job_is_measured_before_its_outcome_is_visible() {
    let pool = timed_pool(2);
    for count in 1..=1000 {
        pool.job(|| ()).label("counted").submit().join().unwrap();
        let measured = of_label(&pool.metrics(), "counted");
        assert_eq!(measured.completed, count);
        assert_eq!(measured.queue_wait.count(), count);
        assert_eq!(measured.run_time.count(), count);
    }
}

#[test]
fn jobs_are_counted_by_label_and_outcome() {
    let pool = timed_pool(1);
    let submit = |job: fn()| pool.job(job).label("mixed");
    submit(|| ()).submit().join().unwrap();
    submit(|| ()).submit().join().unwrap();
    submit(|| panic!("counted")).submit().join().unwrap_err();
    let blocked = block_workers(&pool, 1);
    assert!(submit(|| ()).submit().cancel());
    let expired = submit(|| ()).expires_in(Duration::from_millis(20)).submit();
    assert!(expired.join().unwrap_err().is_expired());
    pool.job(|| ()).label("cancelled").submit().cancel();
    blocked.release();
    pool.wait_idle().join();

    let metrics = pool.metrics();
    let mixed = of_label(&metrics, "mixed");
    assert_eq!(mixed.submitted, 5);
    assert_eq!((mixed.completed, mixed.panicked, mixed.failed), (2, 1, 0));
    assert_eq!((mixed.cancelled, mixed.expired), (2, 1));
    // Only jobs that started have waited and run.
    assert_eq!((mixed.queue_wait.count(), mixed.run_time.count()), (3, 3));
    let cancelled = of_label(&metrics, "cancelled");
    assert_eq!((cancelled.submitted, cancelled.cancelled), (1, 1));
    assert_eq!(cancelled.run_time.count(), 0);
    let labels: Vec<_> = metrics.by_label().keys().copied().collect();
    assert_eq!(labels, ["cancelled", "mixed"], "in order, and no others");
    // The job that blocks has no label. It counts in these.
    assert_eq!((metrics.expired, metrics.cancelled), (1, 3));
    let ran = metrics.completed + metrics.panicked;
    assert_eq!((ran, metrics.run_time.count()), (4, 4));
}

#[test]
fn a_queue_that_is_cancelled_is_counted_by_label() {
    let pool = timed_pool(1);
    let blocked = block_workers(&pool, 1);
    let jobs: Vec<_> = (0..10)
        .map(|_| pool.job(|| ()).label("drained").submit())
        .collect();
    let queued = of_label(&pool.metrics(), "drained");
    assert_eq!((queued.submitted, queued.cancelled), (10, 0));
    assert_eq!(pool.cancel_queued(), 10);
    blocked.release();
    drop(jobs);
    let drained = of_label(&pool.metrics(), "drained");
    assert_eq!((drained.submitted, drained.cancelled), (10, 10));
}

#[test]
fn labels_of_the_same_text_are_the_same_label() {
    let pool = timed_pool(1);
    for label in ["same", leaked("same"), leaked("same"), "other"] {
        pool.job(|| ()).label(label).submit().join().unwrap();
    }
    let metrics = pool.metrics();
    assert_eq!(metrics.by_label().len(), 2);
    assert_eq!(of_label(&metrics, "same").completed, 3);
}

#[test]
fn there_may_be_any_number_of_labels() {
    let pool = timed_pool(2);
    for n in 0..2000 {
        let label = leaked(&format!("GET /items/{n}"));
        drop(pool.job(|| ()).label(label).submit());
    }
    pool.wait_idle().join();
    let metrics = pool.metrics();
    assert_eq!(metrics.by_label().len(), 2000);
    let mut labels = metrics.by_label().values();
    assert!(labels.all(|label| label.completed == 1 && label.run_time.count() == 1));
    assert_eq!(metrics.run_time.count(), 2000);
}

#[test]
fn submitters_at_the_same_time_lose_no_job() {
    const LABELS: [&str; 4] = ["a", "b", "c", "d"];
    let pool = timed_pool(3);
    thread::scope(|scope| {
        for label in LABELS {
            let pool = &pool;
            scope.spawn(move || {
                for n in 0..2000 {
                    drop(pool.job(move || n).label(label).submit());
                    drop(pool.submit(|| ()));
                }
            });
        }
        // A reader meanwhile sees figures that fit together.
        for _ in 0..50 {
            let metrics = pool.metrics();
            for label in metrics.by_label().values() {
                assert!(label.completed <= label.submitted, "{label:?}");
                assert!(label.run_time.mean() <= label.run_time.max());
            }
        }
    });
    pool.wait_idle().join();
    let metrics = pool.metrics();
    for label in LABELS {
        let measured = of_label(&metrics, label);
        assert_eq!((measured.submitted, measured.completed), (2000, 2000));
        assert_eq!(measured.queue_wait.count(), 2000);
    }
    assert_eq!(metrics.run_time.count(), 16_000);
    assert_eq!(metrics.queue_wait.count(), 16_000);
}

#[test]
fn jobs_of_maps_and_scopes_and_waiting_jobs_are_measured() {
    let pool = timed_pool(1);
    let squares = pool.map(0..10, |n| n * n).chunk_size(1);
    assert_eq!(squares.into_iter().map(Result::unwrap).sum::<i32>(), 285);
    pool.scope(|scope| scope.submit(|| ()).join().unwrap());
    pool.wait_idle().join();
    let metrics = pool.metrics();
    assert_eq!(metrics.run_time.count(), metrics.completed);
    assert_eq!(metrics.queue_wait.count(), metrics.completed);
}

#[test]
fn the_peak_of_the_workers_stays_when_they_exit() {
    let pool = ThreadPool::builder()
        .max_workers(3)
        .keep_alive(Duration::from_millis(1))
        .build()
        .unwrap();
    assert_eq!(pool.metrics().peak_workers, 0);
    block_workers(&pool, 3).release();
    eventually("the workers exit", || pool.metrics().workers == 0);
    assert_eq!(pool.metrics().peak_workers, 3);
}

#[test]
fn the_end_of_a_job_is_an_event_with_its_times() {
    child::alone(
        "timings::the_end_of_a_job_is_an_event_with_its_times",
        || {
            EventLog::install();
            let builder = ThreadPool::builder().max_workers(1).timings(true);
            let pool = builder.thread_name_prefix("timed").build().unwrap();
            pool.job(|| ()).label("told").submit().join().unwrap();
            let blocked = block_workers(&pool, 1);
            assert!(pool.job(|| ()).label("never").submit().cancel());
            blocked.release();
            pool.job(|| panic!("on purpose"))
                .label("panics")
                .submit()
                .join()
                .unwrap_err();
            let heard = |words: &[&str]| {
                assert!(
                    EventLog::contains_at(Level::TRACE, words),
                    "no event with {words:?}"
                );
            };
            heard(&["pool=timed", "label=\"told\"", "outcome=\"completed\""]);
            heard(&["label=\"told\"", "worker=0", "queue_wait=", "run_time="]);
            heard(&["label=\"never\"", "outcome=\"cancelled\""]);
            heard(&["label=\"panics\"", "outcome=\"panicked\""]);
            EventLog::assert_distinct_field_names();
        },
    );
}

#[test]
fn a_pool_without_timings_emits_no_event_at_the_end_of_a_job() {
    child::alone(
        "timings::a_pool_without_timings_emits_no_event_at_the_end_of_a_job",
        || {
            EventLog::install();
            let pool = ThreadPool::new(1);
            pool.job(|| ()).label("quiet").submit().join().unwrap();
            assert!(!EventLog::contains_at(Level::TRACE, &["label=\"quiet\""]));
        },
    );
}

#[test]
fn the_event_of_a_panic_has_the_label_of_the_job() {
    child::alone(
        "timings::the_event_of_a_panic_has_the_label_of_the_job",
        || {
            EventLog::install();
            // With or without timings.
            let pool = ThreadPool::new(1);
            let job = pool.job(|| panic!("on purpose")).label("resize");
            job.submit().join().unwrap_err();
            let words = ["panicked", "on purpose", "label=\"resize\""];
            assert!(EventLog::contains_at(Level::ERROR, &words));
            EventLog::assert_distinct_field_names();
        },
    );
}

/// What a histogram says of durations that are known, from outside.
#[test]
fn quantiles_are_near_the_durations_that_jobs_took() {
    const SLEEP: Duration = Duration::from_millis(20);
    let pool = timed_pool(4);
    let jobs: Vec<_> = (0..40)
        .map(|_| pool.job(|| thread::sleep(SLEEP)).label("sleeps").submit())
        .collect();
    for job in jobs {
        job.join().unwrap();
    }
    let run_time = of_label(&pool.metrics(), "sleeps").run_time;
    let least = SLEEP.mul_f64(0.95);
    assert!(run_time.quantile(0.0) >= least, "{run_time:?}");
    let quantiles = [0.0, 0.25, 0.5, 0.75, 0.99, 1.0].map(|q| run_time.quantile(q));
    assert!(quantiles.is_sorted(), "{quantiles:?}");
    assert_eq!(quantiles[5], run_time.max());
    assert!(run_time.sum() >= 40 * SLEEP);
    assert_eq!(run_time.count_up_to(SLEEP / 2), 0);
    assert_eq!(run_time.count_up_to(run_time.max()), 40);
    let distinct: BTreeSet<_> = quantiles.into_iter().collect();
    assert!(!distinct.contains(&Duration::ZERO));
}
