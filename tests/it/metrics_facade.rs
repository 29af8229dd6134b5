//! What pools report through the facade of the crate `metrics`. Each test installs a recorder, so
//! it needs a process of its own.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use crate::common::{block_workers, child};
use futurepool::{StatefulPool, ThreadPool};
use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};

/// A recorder as an exporter has it: each metric is found by its key.
#[derive(Default)]
struct Exporter {
    counters: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
    gauges: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
    histograms: Mutex<BTreeMap<String, Arc<Values>>>,
    described: Mutex<Vec<String>>,
    /// How often a metric was looked up by its key.
    registered: AtomicU64,
}

#[derive(Default)]
struct Values(Mutex<Vec<f64>>);

impl HistogramFn for Values {
    fn record(&self, value: f64) {
        self.0.lock().unwrap().push(value);
        if let Some(record) = ON_RECORD.get() {
            record();
        }
    }
}

/// Called for each value of a histogram, after it is recorded.
static ON_RECORD: OnceLock<Box<dyn Fn() + Send + Sync>> = OnceLock::new();

/// Formats a key as Prometheus does.
fn text(key: &Key) -> String {
    let labels = key.labels();
    let labels: Vec<_> = labels
        .map(|label| format!("{}={:?}", label.key(), label.value()))
        .collect();
    format!("{}{{{}}}", key.name(), labels.join(","))
}

impl Exporter {
    fn install() -> Arc<Self> {
        let exporter = Arc::new(Self::default());
        metrics::set_global_recorder(Arc::clone(&exporter))
            .unwrap_or_else(|_| panic!("the process is this test's own"));
        exporter
    }

    fn find<T: Default>(&self, metrics: &Mutex<BTreeMap<String, Arc<T>>>, key: &Key) -> Arc<T> {
        self.registered.fetch_add(1, Ordering::Relaxed);
        let mut metrics = metrics.lock().unwrap();
        Arc::clone(metrics.entry(text(key)).or_default())
    }

    fn describe(&self, name: &KeyName) {
        self.described
            .lock()
            .unwrap()
            .push(name.as_str().to_owned());
    }

    fn counter(&self, key: &str) -> u64 {
        let counters = self.counters.lock().unwrap();
        counters
            .get(key)
            .map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    fn gauge(&self, key: &str) -> Option<f64> {
        let gauges = self.gauges.lock().unwrap();
        let gauge = gauges.get(key)?;
        Some(f64::from_bits(gauge.load(Ordering::Relaxed)))
    }

    fn values(&self, key: &str) -> Vec<f64> {
        let histograms = self.histograms.lock().unwrap();
        let values = histograms
            .get(key)
            .map(|values| values.0.lock().unwrap().clone());
        values.unwrap_or_default()
    }
}

impl Recorder for Exporter {
    fn describe_counter(&self, key: KeyName, _: Option<Unit>, _: SharedString) {
        self.describe(&key);
    }
    fn describe_gauge(&self, key: KeyName, _: Option<Unit>, _: SharedString) {
        self.describe(&key);
    }
    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, _: SharedString) {
        assert_eq!(unit, Some(Unit::Seconds));
        self.describe(&key);
    }
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.find(&self.counters, key))
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.find(&self.gauges, key))
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.find(&self.histograms, key))
    }
}

fn pool(name: &str) -> ThreadPool {
    let builder = ThreadPool::builder().max_workers(1).timings(true);
    builder.thread_name_prefix(name).build().unwrap()
}

#[test]
fn jobs_are_reported_by_pool_label_and_outcome() {
    child::alone(
        "metrics_facade::jobs_are_reported_by_pool_label_and_outcome",
        || {
            let exporter = Exporter::install();
            let pool = pool("served");
            let job = |job: fn()| pool.job(job).label("resize");
            job(|| ()).submit().join().unwrap();
            job(|| ()).submit().join().unwrap();
            job(|| panic!("on purpose")).submit().join().unwrap_err();
            let blocked = block_workers(&pool, 1);
            assert!(job(|| ()).submit().cancel());
            let expired = job(|| ()).expires_in(Duration::from_millis(20)).submit();
            assert!(expired.join().unwrap_err().is_expired());
            blocked.release();
            pool.wait_idle().join();

            let jobs = |label, outcome| {
                exporter.counter(&format!(
                    "futurepool_jobs_total{{pool=\"served\",label={label:?},outcome={outcome:?}}}"
                ))
            };
            assert_eq!(jobs("resize", "completed"), 2);
            assert_eq!(jobs("resize", "panicked"), 1);
            assert_eq!(jobs("resize", "cancelled"), 1);
            assert_eq!(jobs("resize", "expired"), 1);
            // The blocking job has no label.
            assert_eq!(jobs("", "completed"), 1);

            let of_resize = "{pool=\"served\",label=\"resize\"}";
            let waits = exporter.values(&format!("futurepool_queue_wait_seconds{of_resize}"));
            let runs = exporter.values(&format!("futurepool_run_time_seconds{of_resize}"));
            assert_eq!((waits.len(), runs.len()), (3, 3));
            let measured = pool.metrics().by_label()["resize"]
                .run_time
                .sum()
                .as_secs_f64();
            assert!((runs.iter().sum::<f64>() - measured).abs() < 1e-6);

            let described = exporter.described.lock().unwrap();
            for name in [
                "futurepool_jobs_total",
                "futurepool_queue_wait_seconds",
                "futurepool_run_time_seconds",
                "futurepool_workers",
            ] {
                let count = described
                    .iter()
                    .filter(|described| *described == name)
                    .count();
                assert_eq!(count, 1, "{name}");
            }
        },
    );
}

#[test]
fn a_metric_is_looked_up_once() {
    child::alone("metrics_facade::a_metric_is_looked_up_once", || {
        let exporter = Exporter::install();
        let pool = pool("once");
        for _ in 0..100 {
            pool.submit(|| ()).join().unwrap();
        }
        // A counter for each outcome, and two histograms.
        assert_eq!(exporter.registered.load(Ordering::Relaxed), 8);
    });
}

/// Prometheus sees no increase in a counter that begins at 1.
#[test]
fn outcomes_that_have_not_happened_are_counted_as_0() {
    child::alone(
        "metrics_facade::outcomes_that_have_not_happened_are_counted_as_0",
        || {
            let exporter = Exporter::install();
            let pool = pool("zeros");
            pool.job(|| ()).label("page").submit().join().unwrap();
            let counters = exporter.counters.lock().unwrap();
            let counts: Vec<_> = counters
                .iter()
                .filter(|(key, _)| key.contains("label=\"page\""))
                .map(|(_, count)| count.load(Ordering::Relaxed))
                .collect();
            assert_eq!(counts.len(), 6, "{:?}", counters.keys());
            assert_eq!(counts.iter().sum::<u64>(), 1);
            let panicked =
                "futurepool_jobs_total{pool=\"zeros\",label=\"page\",outcome=\"panicked\"}";
            assert_eq!(counters[panicked].load(Ordering::Relaxed), 0);
        },
    );
}

#[test]
fn a_recorder_that_is_installed_later_hears_of_later_jobs() {
    child::alone(
        "metrics_facade::a_recorder_that_is_installed_later_hears_of_later_jobs",
        || {
            let pool = pool("early");
            pool.submit(|| ()).join().unwrap();
            let exporter = Exporter::install();
            pool.submit(|| ()).join().unwrap();
            let jobs = "futurepool_jobs_total{pool=\"early\",label=\"\",outcome=\"completed\"}";
            assert_eq!(exporter.counter(jobs), 1);
        },
    );
}

#[test]
fn a_recorder_of_another_thread_is_not_kept() {
    child::alone(
        "metrics_facade::a_recorder_of_another_thread_is_not_kept",
        || {
            let exporter = Exporter::install();
            let pool = pool("local");
            let blocked = block_workers(&pool, 1);
            let local = Exporter::default();
            metrics::with_local_recorder(&local, || assert!(pool.submit(|| ()).cancel()));
            assert!(pool.submit(|| ()).cancel());
            blocked.release();
            let jobs = "futurepool_jobs_total{pool=\"local\",label=\"\",outcome=\"cancelled\"}";
            assert_eq!((local.counter(jobs), exporter.counter(jobs)), (1, 1));
        },
    );
}

/// A worker runs the job that it waits for, and so with the recorder of the job that waits.
#[test]
fn a_recorder_of_a_waiting_job_is_not_kept() {
    child::alone(
        "metrics_facade::a_recorder_of_a_waiting_job_is_not_kept",
        || {
            let exporter = Exporter::install();
            let pool = Arc::new(pool("nested"));
            let shared = Arc::clone(&pool);
            let outer = pool.job(move || {
                let local = Exporter::default();
                metrics::with_local_recorder(&local, || shared.submit(|| ()).join().unwrap());
            });
            outer.label("outer").submit().join().unwrap();
            pool.submit(|| ()).join().unwrap();
            let jobs = "futurepool_jobs_total{pool=\"nested\",label=\"\",outcome=\"completed\"}";
            assert_eq!(exporter.counter(jobs), 1);
            let runs = exporter.values("futurepool_run_time_seconds{pool=\"nested\",label=\"\"}");
            assert_eq!(runs.len(), 1);
        },
    );
}

#[test]
fn a_recorder_may_panic_and_may_use_the_pool() {
    child::alone(
        "metrics_facade::a_recorder_may_panic_and_may_use_the_pool",
        || {
            let exporter = Exporter::install();
            let pool = Arc::new(pool("used"));
            let weak = Arc::downgrade(&pool);
            let calls = AtomicU64::new(0);
            let on_record = move || {
                if let Some(pool) = weak.upgrade() {
                    assert!(pool.metrics().workers > 0);
                    pool.report_metrics();
                }
                if calls.fetch_add(1, Ordering::Relaxed) % 3 == 0 {
                    panic!("on purpose");
                }
            };
            assert!(ON_RECORD.set(Box::new(on_record)).is_ok());
            for n in 0..30 {
                assert_eq!(pool.submit(move || n).join().unwrap(), n);
            }
            assert_eq!(pool.metrics().completed, 30);
            assert_eq!(pool.metrics().run_time.count(), 30);
            let waits = "futurepool_queue_wait_seconds{pool=\"used\",label=\"\"}";
            assert_eq!(exporter.values(waits).len(), 30);
        },
    );
}

#[test]
fn a_pool_reports_its_workers_and_its_queue_when_asked_to() {
    child::alone(
        "metrics_facade::a_pool_reports_its_workers_and_its_queue_when_asked_to",
        || {
            let exporter = Exporter::install();
            // Timings are not needed for that.
            let pool = ThreadPool::builder()
                .max_workers(1)
                .thread_name_prefix("asked")
                .build()
                .unwrap();
            let blocked = block_workers(&pool, 1);
            let queued = [(); 2].map(|()| pool.submit(|| ()));
            let gauge = |name| exporter.gauge(&format!("futurepool_{name}{{pool=\"asked\"}}"));
            assert_eq!(gauge("workers"), None);
            pool.report_metrics();
            assert_eq!(gauge("workers"), Some(1.0));
            assert_eq!(gauge("peak_workers"), Some(1.0));
            assert_eq!(gauge("idle_workers"), Some(0.0));
            assert_eq!(gauge("queued_jobs"), Some(2.0));
            assert_eq!(gauge("running_jobs"), Some(1.0));
            blocked.release();
            for job in queued {
                job.join().unwrap();
            }
            pool.report_metrics();
            assert_eq!(gauge("queued_jobs"), Some(0.0));
            let submitted = "futurepool_submitted_jobs_total{pool=\"asked\"}";
            assert_eq!(exporter.counter(submitted), 3);
        },
    );
}

#[test]
fn a_stateful_pool_reports_under_its_own_name() {
    child::alone(
        "metrics_facade::a_stateful_pool_reports_under_its_own_name",
        || {
            let exporter = Exporter::install();
            let builder = StatefulPool::builder_with(|| 7)
                .max_workers(1)
                .timings(true);
            let pool = builder.thread_name_prefix("db").build().unwrap();
            assert_eq!(pool.submit(|state: &mut i32| *state).join().unwrap(), 7);
            pool.report_metrics();
            let jobs = "futurepool_jobs_total{pool=\"db\",label=\"\",outcome=\"completed\"}";
            assert_eq!(exporter.counter(jobs), 1);
            let workers = "futurepool_workers{pool=\"db\"}";
            assert_eq!(exporter.gauge(workers), Some(1.0));
        },
    );
}

#[test]
fn a_pool_without_timings_reports_its_jobs_when_asked_to() {
    child::alone(
        "metrics_facade::a_pool_without_timings_reports_its_jobs_when_asked_to",
        || {
            let exporter = Exporter::install();
            let pool = ThreadPool::builder().max_workers(1);
            let pool = pool.thread_name_prefix("plain").build().unwrap();
            let blocked = block_workers(&pool, 1);
            let cancelled = pool.job(|| ()).label("a").submit();
            assert!(cancelled.cancel());
            let late = pool.job(|| ()).expires_in(Duration::ZERO).submit();
            assert!(late.join().unwrap_err().is_expired());
            blocked.release();
            let failed = pool.submit(|| panic!("no such luck")).join();
            assert!(failed.unwrap_err().is_panic());
            assert_eq!(exporter.registered.load(Ordering::Relaxed), 0);
            let outcomes = ["completed", "panicked", "cancelled", "expired", "failed"];
            let counted = || {
                outcomes.map(|outcome| {
                    let labels = format!("pool=\"plain\",label=\"\",outcome=\"{outcome}\"");
                    exporter.counter(&format!("futurepool_jobs_total{{{labels}}}"))
                })
            };
            // A counter never falls, and reporting it twice counts nothing twice.
            for _ in 0..2 {
                pool.report_metrics();
                assert_eq!(counted(), [1, 1, 1, 1, 0]);
            }
            pool.submit(|| ()).join().unwrap();
            pool.report_metrics();
            assert_eq!(counted(), [2, 1, 1, 1, 0]);
        },
    );
}
