//! The page `/metrics`, in the text format of Prometheus.

use std::fmt::{self, Display, Write};
use std::time::Duration;

use futurepool::process::WorkerState;
use futurepool::{Histogram, LabelMetrics, Metrics};

use crate::App;
use crate::counts::Totals;
use crate::workers::Pools;

pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Name, type and help of a metric, and the function that reads it.
type Family = (
    &'static str,
    &'static str,
    &'static str,
    fn(&Metrics) -> u64,
);

// The names are those that the feature `metrics` of futurepool gives to the same figures.
#[rustfmt::skip] // a table
const OF_A_POOL: [Family; 8] = [
    ("workers", "gauge", "Worker threads, or worker processes.", |m| m.workers),
    ("peak_workers", "gauge", "The highest number of workers since the start.", |m| m.peak_workers),
    ("idle_workers", "gauge", "Workers without a job.", |m| m.idle),
    ("queued_jobs", "gauge", "Jobs in the queue.", |m| m.queued),
    ("running_jobs", "gauge", "Jobs that are running.", |m| m.running),
    ("submitted_jobs_total", "counter", "Jobs accepted.", |m| m.submitted),
    ("rejected_jobs_total", "counter", "Jobs rejected.", |m| m.rejected),
    ("spawn_failures_total", "counter", "Threads or processes that could not be started.", |m| m.spawn_failures),
];

/// How the jobs of a route ended, and the function that reads it. The outcomes exclude each other.
type Outcome = (&'static str, fn(&LabelMetrics) -> u64);

const OUTCOMES: [Outcome; 5] = [
    ("completed", |m| m.completed),
    ("panicked", |m| m.panicked),
    ("cancelled", |m| m.cancelled.saturating_sub(m.expired)),
    ("expired", |m| m.expired),
    ("failed", |m| m.failed),
];

/// Name and help of a histogram, and the function that reads it.
type Times = (&'static str, &'static str, fn(&LabelMetrics) -> &Histogram);

const TIMES: [Times; 2] = [
    (
        "queue_wait",
        "From the submit of a job to its start.",
        |m| &m.queue_wait,
    ),
    ("run_time", "From the start of a job to its end.", |m| {
        &m.run_time
    }),
];

/// The upper bounds of the buckets of histograms, in milliseconds.
const BOUNDS: [u64; 12] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000];

pub(crate) fn text(app: &App) -> String {
    let mut text = String::new();
    write(app, &mut text).expect("writing to a string cannot fail");
    text
}

fn write(app: &App, out: &mut String) -> fmt::Result {
    if let Some(pools) = app.workers.pools() {
        write_pools(pools, out)?;
        write_processes(pools, out)?;
    }
    write_requests(&app.counts.totals(), out)
}

fn write_pools(pools: &Pools, out: &mut String) -> fmt::Result {
    let pools = pools.metrics();
    for (name, kind, help, figure) in OF_A_POOL {
        let name = head(out, &format!("futurepool_{name}"), kind, help)?;
        for (pool, metrics) in &pools {
            writeln!(out, "{name}{{pool=\"{pool}\"}} {}", figure(metrics))?;
        }
    }
    let routes = pools.iter().flat_map(|(pool, metrics)| {
        let routes = metrics.by_label().iter();
        routes.map(move |(route, metrics)| (pool, route, metrics))
    });
    let name = head(
        out,
        "futurepool_jobs_total",
        "counter",
        "Jobs that have ended.",
    )?;
    for (pool, route, metrics) in routes.clone() {
        for (outcome, figure) in OUTCOMES {
            let labels = format!("pool=\"{pool}\",label=\"{route}\",outcome=\"{outcome}\"");
            writeln!(out, "{name}{{{labels}}} {}", figure(metrics))?;
        }
    }
    for (name, help, histogram) in TIMES {
        let name = head(
            out,
            &format!("futurepool_{name}_seconds"),
            "histogram",
            help,
        )?;
        for (pool, route, metrics) in routes.clone() {
            let labels = format!("pool=\"{pool}\",label=\"{route}\"");
            write_histogram(out, &name, &labels, histogram(metrics))?;
        }
    }
    Ok(())
}

fn write_histogram(
    out: &mut String,
    name: impl Display,
    labels: &str,
    histogram: &Histogram,
) -> fmt::Result {
    for bound in BOUNDS.map(Duration::from_millis) {
        let (le, count) = (bound.as_secs_f64(), histogram.count_up_to(bound));
        writeln!(out, "{name}_bucket{{{labels},le=\"{le}\"}} {count}")?;
    }
    let (count, sum) = (histogram.count(), histogram.sum().as_secs_f64());
    writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}")?;
    writeln!(out, "{name}_sum{{{labels}}} {sum}")?;
    writeln!(out, "{name}_count{{{labels}}} {count}")
}

/// Only live processes have lines. The jobs of processes that ended count in the pool's figures.
fn write_processes(pools: &Pools, out: &mut String) -> fmt::Result {
    let processes = pools.images.workers();
    let help = "Memory of a worker process.";
    let name = head(out, "futurepool_process_resident_bytes", "gauge", help)?;
    for process in &processes {
        let (pid, bytes) = (process.pid, process.resident_memory);
        writeln!(out, "{name}{{pool=\"images\",pid=\"{pid}\"}} {bytes}")?;
    }
    let help = "1 for the state that a worker process is in.";
    let name = head(out, "futurepool_process_state", "gauge", help)?;
    for process in &processes {
        let labels = format!("pool=\"images\",pid=\"{}\"", process.pid);
        let state = state(process.state);
        writeln!(out, "{name}{{{labels},state=\"{state}\"}} 1")?;
    }
    Ok(())
}

fn write_requests(totals: &Totals, out: &mut String) -> fmt::Result {
    let abandoned = "Requests whose client disconnected before the answer.";
    #[rustfmt::skip] // a table
    let families = [
        ("http_requests_total", "counter", "Requests begun.", totals.requests),
        ("http_requests_in_flight", "gauge", "Requests not yet answered.", totals.in_flight()),
        ("http_abandoned_total", "counter", abandoned, totals.abandoned),
    ];
    for (name, kind, help, figure) in families {
        let name = head(out, name, kind, help)?;
        writeln!(out, "{name} {figure}")?;
    }
    let name = head(out, "http_answers_total", "counter", "Answers by status.")?;
    for (status, answers) in &totals.answers {
        writeln!(out, "{name}{{status=\"{status}\"}} {answers}")?;
    }
    Ok(())
}

/// Writes the head of a family, and returns its name.
fn head(out: &mut String, name: &str, kind: &str, help: &str) -> Result<String, fmt::Error> {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")?;
    Ok(name.to_owned())
}

fn state(state: WorkerState) -> &'static str {
    match state {
        WorkerState::Idle => "idle",
        WorkerState::Running => "running",
        WorkerState::Leaving => "leaving",
        _ => "unknown",
    }
}
