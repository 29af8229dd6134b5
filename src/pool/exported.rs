//! What a pool reports through the facade of the crate `metrics`, to the recorder that the program
//! has installed. The names are in the documentation of [`ThreadPool::report_metrics`].
//!
//! The recorder is user code, so no lock is held while it is called, and its panics are caught.
//!
//! [`ThreadPool::report_metrics`]: crate::ThreadPool::report_metrics

use std::mem;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::metrics::{
    Counter, Histogram, Key, Label, Level, Metadata, Recorder, Unit, counter, gauge, with_recorder,
};

use crate::pool::metrics::Metrics;
use crate::task::context::running_jobs;
use crate::task::state::OutcomeKind;
use crate::util::unwind::{catch_panic, drop_catching};

const JOBS: &str = "futurepool_jobs_total";
const QUEUE_WAIT: &str = "futurepool_queue_wait_seconds";
const RUN_TIME: &str = "futurepool_run_time_seconds";

const METADATA: Metadata<'static> = Metadata::new("futurepool", Level::INFO, Some(module_path!()));

/// What user code is called in the event of its panic.
const RECORDER: &str = "the recorder of metrics";

/// The metrics of the jobs of a label. Each metric is made when it is first reported.
#[derive(Debug, Default)]
pub(crate) struct ExportedLabel {
    completed: Exported<Counter>,
    panicked: Exported<Counter>,
    cancelled: Exported<Counter>,
    expired: Exported<Counter>,
    failed: Exported<Counter>,
    not_run: Exported<Counter>,
    queue_wait: Exported<Histogram>,
    run_time: Exported<Histogram>,
}

/// A metric with its key. Making a key allocates, so that is done once.
#[derive(Debug)]
struct Exported<H>(OnceLock<(Key, OnceLock<H>)>);

impl<H> Default for Exported<H> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

impl<H> Drop for Exported<H> {
    fn drop(&mut self) {
        drop_catching("the destructor of a metric", self.0.take());
    }
}

impl ExportedLabel {
    /// Reports a job that will not run. To be called on any thread.
    pub(crate) fn not_run(&self, pool: &str, label: Option<&str>, kind: OutcomeKind) {
        catch_panic(RECORDER, || {
            let (jobs, key) = self.jobs(pool, label, kind);
            // The thread may have a recorder of its own: see `metrics::with_local_recorder`. That
            // must not be kept for the pool.
            jobs.with(key, register_counter, false, |jobs| jobs.increment(1));
        });
    }

    /// Reports a job that has run. To be called on its worker.
    pub(crate) fn finished(
        &self,
        pool: &str,
        label: Option<&str>,
        kind: OutcomeKind,
        queue_wait: Duration,
        run_time: Duration,
    ) {
        // In the wait of a job, this may be the recorder of that job.
        let keep = running_jobs() <= 1;
        catch_panic(RECORDER, || {
            let record = |histogram: &Exported<Histogram>, name, time: Duration| {
                let key = || key(name, pool, label, None);
                let record = |histogram: &Histogram| histogram.record(time.as_secs_f64());
                histogram.with(key, register_histogram, keep, record);
            };
            record(&self.queue_wait, QUEUE_WAIT, queue_wait);
            record(&self.run_time, RUN_TIME, run_time);
            let (jobs, key) = self.jobs(pool, label, kind);
            if jobs.with(key, register_counter, keep, |jobs| jobs.increment(1)) {
                // The others begin at 0. A counter that begins at 1 hides its first job from what
                // looks for an increase.
                for kind in OutcomeKind::ALL {
                    let (jobs, key) = self.jobs(pool, label, kind);
                    jobs.with(key, register_counter, true, |_| ());
                }
            }
        });
    }

    fn jobs<'a>(
        &'a self,
        pool: &'a str,
        label: Option<&'a str>,
        kind: OutcomeKind,
    ) -> (&'a Exported<Counter>, impl FnOnce() -> Key + 'a) {
        let jobs = match kind {
            OutcomeKind::Returned => &self.completed,
            OutcomeKind::Panicked => &self.panicked,
            OutcomeKind::Cancelled => &self.cancelled,
            OutcomeKind::Expired => &self.expired,
            OutcomeKind::Failed => &self.failed,
            OutcomeKind::NotRun => &self.not_run,
        };
        (jobs, move || key(JOBS, pool, label, Some(kind.as_str())))
    }
}

impl<H> Exported<H> {
    /// Calls `report` with the metric. With `keep`, later calls use the same metric. Returns
    /// whether this was the first call that does.
    fn with(
        &self,
        key: impl FnOnce() -> Key,
        register: fn(&dyn Recorder, &Key) -> H,
        keep: bool,
        report: impl FnOnce(&H),
    ) -> bool {
        let (key, kept) = self.0.get_or_init(|| (key(), OnceLock::new()));
        if let Some(metric) = kept.get() {
            report(metric);
            return false;
        }
        with_recorder(|recorder| {
            // The program may install its recorder later. Until then the recorder has no state.
            let keep = keep && mem::size_of_val(recorder) > 0;
            if keep {
                describe_once(recorder);
            }
            let metric = register(recorder, key);
            report(&metric);
            // If another worker was faster, its metric is the same.
            keep && kept.set(metric).is_ok()
        })
    }
}

fn register_counter(recorder: &dyn Recorder, key: &Key) -> Counter {
    recorder.register_counter(key, &METADATA)
}

fn register_histogram(recorder: &dyn Recorder, key: &Key) -> Histogram {
    recorder.register_histogram(key, &METADATA)
}

/// An empty label is the same as none for most exporters, and all metrics of a name have the same
/// labels.
fn key(name: &'static str, pool: &str, label: Option<&str>, outcome: Option<&'static str>) -> Key {
    let label = label.unwrap_or_default();
    let mut labels = vec![
        Label::new("pool", pool.to_owned()),
        Label::new("label", label.to_owned()),
    ];
    labels.extend(outcome.map(|outcome| Label::from_static_parts("outcome", outcome)));
    Key::from_parts(name, labels)
}

/// Tells the recorder what the metrics mean, unless it has no state and so is probably none.
fn describe_once(recorder: &dyn Recorder) {
    static DESCRIBED: AtomicBool = AtomicBool::new(false);
    if mem::size_of_val(recorder) == 0 || DESCRIBED.swap(true, Ordering::Relaxed) {
        return;
    }
    let count = |name: &'static str, text: &'static str| {
        recorder.describe_counter(name.into(), Some(Unit::Count), text.into());
    };
    let gauge = |name: &'static str, text: &'static str| {
        recorder.describe_gauge(name.into(), Some(Unit::Count), text.into());
    };
    let seconds = |name: &'static str, text: &'static str| {
        recorder.describe_histogram(name.into(), Some(Unit::Seconds), text.into());
    };
    count(JOBS, "Jobs by their outcome.");
    seconds(QUEUE_WAIT, "How long jobs waited until they started.");
    seconds(RUN_TIME, "How long the closures of jobs ran.");
    for (name, text, _) in GAUGES {
        gauge(name, text);
    }
    for (name, text, _) in COUNTERS {
        count(name, text);
    }
}

type Field = fn(&Metrics) -> u64;

/// The name, the meaning and the value of what is reported of a pool.
const GAUGES: [(&str, &str, Field); 5] = [
    ("futurepool_workers", "Worker threads.", |it| it.workers),
    (
        "futurepool_peak_workers",
        "The highest number of worker threads so far.",
        |it| it.peak_workers,
    ),
    ("futurepool_idle_workers", "Workers without a job.", |it| {
        it.idle
    }),
    (
        "futurepool_queued_jobs",
        "Jobs that have not started.",
        |it| it.queued,
    ),
    ("futurepool_running_jobs", "Jobs that are running.", |it| {
        it.running
    }),
];
const COUNTERS: [(&str, &str, Field); 3] = [
    (
        "futurepool_submitted_jobs_total",
        "Jobs that the pool accepted.",
        |it| it.submitted,
    ),
    (
        "futurepool_rejected_jobs_total",
        "Submissions that were refused.",
        |it| it.rejected,
    ),
    (
        "futurepool_spawn_failures_total",
        "Failed attempts to spawn a worker.",
        |it| it.spawn_failures,
    ),
];

/// The outcomes of jobs, as far as a pool without timings counts them. They exclude each other.
const OUTCOMES: [(OutcomeKind, Field); 5] = [
    (OutcomeKind::Returned, |it| it.completed),
    (OutcomeKind::Panicked, |it| it.panicked),
    (OutcomeKind::Cancelled, |it| {
        it.cancelled.saturating_sub(it.expired)
    }),
    (OutcomeKind::Expired, |it| it.expired),
    (OutcomeKind::Failed, |it| it.failed),
];

/// Reports the metrics of a whole pool. `has_timings`: each job is reported when it ends.
pub(crate) fn report(pool: &str, metrics: &Metrics, has_timings: bool) {
    catch_panic(RECORDER, || {
        with_recorder(describe_once);
        for (name, _, value) in GAUGES {
            gauge!(name, "pool" => pool.to_owned()).set(value(metrics) as f64);
        }
        for (name, _, value) in COUNTERS {
            counter!(name, "pool" => pool.to_owned()).absolute(value(metrics));
        }
        if has_timings {
            return;
        }
        for (kind, value) in OUTCOMES {
            let key = key(JOBS, pool, None, Some(kind.as_str()));
            with_recorder(|recorder| register_counter(recorder, &key).absolute(value(metrics)));
        }
    });
}
