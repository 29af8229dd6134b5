//! The page `/metrics`, in the text format of Prometheus.

use std::fmt::{self, Write};

use futurepool::Metrics;
use futurepool::process::WorkerState;

use crate::App;

pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Name, type and help of a metric, and the function that reads it.
type Family = (
    &'static str,
    &'static str,
    &'static str,
    fn(&Metrics) -> u64,
);

const OF_A_POOL: [Family; 11] = [
    (
        "workers",
        "gauge",
        "Worker threads, or worker processes.",
        |m| m.workers,
    ),
    ("idle_workers", "gauge", "Workers without a job.", |m| {
        m.idle
    }),
    ("queued_jobs", "gauge", "Jobs in the queue.", |m| m.queued),
    ("running_jobs", "gauge", "Jobs that are running.", |m| {
        m.running
    }),
    ("submitted_total", "counter", "Jobs accepted.", |m| {
        m.submitted
    }),
    ("completed_total", "counter", "Jobs that returned.", |m| {
        m.completed
    }),
    ("panicked_total", "counter", "Jobs that panicked.", |m| {
        m.panicked
    }),
    (
        "cancelled_total",
        "counter",
        "Jobs accepted that never ran, or were killed by a cancel.",
        |m| m.cancelled,
    ),
    (
        "failed_total",
        "counter",
        "Jobs that crashed, or were killed at a limit.",
        |m| m.failed,
    ),
    ("rejected_total", "counter", "Jobs rejected.", |m| {
        m.rejected
    }),
    (
        "spawn_failures_total",
        "counter",
        "Threads that could not be started.",
        |m| m.spawn_failures,
    ),
];

pub(crate) fn text(app: &App) -> String {
    let mut text = String::new();
    write(app, &mut text).expect("writing to a string cannot fail");
    text
}

fn write(app: &App, out: &mut String) -> fmt::Result {
    let pools = [
        ("cpu", app.cpu.metrics()),
        ("db", app.db.metrics()),
        ("images", app.images.metrics()),
    ];
    for (name, kind, help, figure) in OF_A_POOL {
        let name = format!("futurepool_{name}");
        head(out, &name, kind, help)?;
        for (pool, metrics) in &pools {
            writeln!(out, "{name}{{pool=\"{pool}\"}} {}", figure(metrics))?;
        }
    }

    // Only live processes have lines. The jobs of processes that ended count in the pool's figures.
    let processes = app.images.workers();
    let name = "futurepool_process_resident_bytes";
    head(out, name, "gauge", "Memory of a worker process.")?;
    for process in &processes {
        let (pid, bytes) = (process.pid, process.resident_memory);
        writeln!(out, "{name}{{pool=\"images\",pid=\"{pid}\"}} {bytes}")?;
    }
    let name = "futurepool_process_state";
    let help = "1 for the state that a worker process is in.";
    head(out, name, "gauge", help)?;
    for process in &processes {
        let (pid, state) = (process.pid, state(process.state));
        writeln!(
            out,
            "{name}{{pool=\"images\",pid=\"{pid}\",state=\"{state}\"}} 1"
        )?;
    }

    let totals = app.counts.totals();
    let one = |out: &mut String, name, kind, help, figure| {
        head(out, name, kind, help)?;
        writeln!(out, "{name} {figure}")
    };
    one(
        out,
        "http_requests_total",
        "counter",
        "Requests begun.",
        totals.requests,
    )?;
    one(
        out,
        "http_requests_in_flight",
        "gauge",
        "Requests not yet answered.",
        totals.in_flight(),
    )?;
    let help = "Requests whose client disconnected before the answer.";
    one(
        out,
        "http_abandoned_total",
        "counter",
        help,
        totals.abandoned,
    )?;
    head(out, "http_answers_total", "counter", "Answers by status.")?;
    for (status, answers) in &totals.answers {
        writeln!(out, "http_answers_total{{status=\"{status}\"}} {answers}")?;
    }
    Ok(())
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

fn state(state: WorkerState) -> &'static str {
    match state {
        WorkerState::Idle => "idle",
        WorkerState::Running => "running",
        WorkerState::Leaving => "leaving",
        _ => "unknown",
    }
}
