//! `tracing` events of the life of worker processes, so that a user sees why a worker went.
//!
//! A worker that its pool wants to go is no failure, and no warning. Each worker that was ready
//! gets one event when it goes. No lock may be held here: a subscriber is user code.

use std::fmt::Display;
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::thread;

use rustix::process::Signal;
use tracing::level_filters::LevelFilter;

use crate::call::CallInfo;
use crate::process::exchange::describe_end;
use crate::process::spawn::StartError;
use crate::process::worker::{Ended, KillReason, Worker};
use crate::util::unwind::emit;

/// The target of the events: a module that users see.
const TARGET: &str = "futurepool::process";

/// The worker can take jobs.
pub(crate) fn ready(worker: &Worker) {
    worker.set_ready();
    let worker = worker.pid();
    emit(|| tracing::debug!(target: TARGET, worker, "worker process {worker} is ready"));
}

/// No worker could be started.
pub(crate) fn start_failed(error: &StartError) {
    let error = &error.text;
    emit(|| tracing::warn!(target: TARGET, %error, "failed to start a worker process: {error}"));
}

/// The pool asks the worker to leave.
pub(crate) fn leaves(worker: &Worker, reason: impl Display) {
    if worker.claim_report() {
        let worker = worker.pid();
        emit(
            || tracing::debug!(target: TARGET, worker, %reason, "worker process {worker} leaves: {reason}"),
        );
    }
}

/// The worker is gone, or can no longer be used. `call`: what it ran.
pub(crate) fn gone(worker: &Worker, call: Option<&CallInfo>) {
    if !worker.claim_report() {
        return;
    }
    let pid = worker.pid();
    let (task, label) = (
        call.map(|call| call.name),
        call.and_then(|call| call.label.as_deref()),
    );
    let killed = |reason: &str| {
        // A worker without a job is replaced, which harms nothing.
        #[cfg(feature = "console")]
        if task.is_some() {
            crate::console::registry::process_gone(pid, true, task, reason);
        }
        emit(|| {
            tracing::debug!(
                target: TARGET,
                worker = pid,
                task,
                label,
                reason,
                "worker process {pid} was killed: {reason}"
            )
        });
    };
    let failed = |reason: &str| {
        let when = if call.is_some() {
            "during a job"
        } else {
            "while it was idle"
        };
        #[cfg(feature = "console")]
        crate::console::registry::process_gone(pid, false, task, &format!("{reason}, {when}"));
        emit(|| {
            tracing::warn!(
                target: TARGET,
                worker = pid,
                task,
                label,
                reason,
                "worker process {pid} {reason}, {when}"
            )
        });
    };
    let end = worker.try_end();
    let other_end = end.filter(|end| !is_kill(*end)).map(describe_end);
    match (worker.kill_reason(), other_end) {
        (Some(KillReason::Cancelled), _) => killed("its job was cancelled"),
        (Some(KillReason::TimeLimit(limit)), _) => {
            killed(&format!("its job exceeded the time limit of {limit:?}"));
        }
        (Some(KillReason::MemoryLimit { limit, seen }), _) => {
            killed(&format!(
                "its job exceeded the memory limit: {seen} of {limit} bytes"
            ));
        }
        (Some(KillReason::Protocol(problem)), _) => failed(&format!("was killed: {problem}")),
        // It had ended before the kill.
        (Some(KillReason::Leaving), Some(other)) => failed(&other),
        (Some(KillReason::Leaving), None) => killed("its pool no longer wants it"),
        (None, _) if worker.is_leaving() => {
            let reason = "its job was cancelled, and ended in its grace";
            emit(|| {
                tracing::debug!(
                    target: TARGET,
                    worker = pid,
                    reason,
                    "worker process {pid} leaves: {reason}"
                )
            });
        }
        (None, _) => failed(&end.map_or_else(|| "closed its connection".to_owned(), describe_end)),
    }
}

/// Reports those of `ended` that have ended by themselves while they were idle. The thread that
/// watches workers must not wait for a subscriber, so another one does.
pub(crate) fn ended_idle(ended: &[Arc<Worker>]) {
    let idle = ended.iter().filter(|worker| worker.has_ended_idle());
    let idle: Vec<_> = idle.map(Arc::clone).collect();
    if idle.is_empty() || LevelFilter::current() < LevelFilter::WARN {
        return;
    }
    let report = move || idle.iter().for_each(|worker| gone(worker, None));
    let name = "futurepool-report".to_owned();
    // Without a thread, the next job that finds its worker gone reports it.
    let _ = thread::Builder::new().name(name).spawn(report);
}

fn is_kill(ended: Ended) -> bool {
    let signal = ended.status.and_then(|status| status.signal());
    signal == Some(Signal::KILL.as_raw())
}
