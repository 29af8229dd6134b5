//! A `tracing` subscriber that records the times of jobs, and of worker processes.
//!
//! Each job is a span, which is entered twice: around its submit, and then by a worker.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use tracing_core::span::Current;

/// The target of the spans that are jobs.
pub(crate) const TARGET: &str = "job";

/// The target of the pool's events that tell when a worker process is ready, and why it goes.
const LIFE: &str = "futurepool::process";

/// The target of events that a job emits in its worker process.
const REMOTE: &str = "futurepool::worker";

/// The record of a job. Times count from the creation of the recorder.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    metadata: &'static Metadata<'static>,
    words: Words,
    /// The job that submitted this one.
    pub(crate) parent: Option<usize>,
    pub(crate) submitted: Duration,
    submit_seen: bool,
    pub(crate) run: Option<Run>,
    pub(crate) ended: Option<Duration>,
}

#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// The name of the pool's thread.
    pub(crate) worker: String,
    /// The process that ran it, if it was not this one.
    pub(crate) pid: Option<u32>,
    pub(crate) start: Duration,
    pub(crate) end: Duration,
}

/// The record of a worker process.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// The name of the pool's thread that uses it.
    pub(crate) worker: String,
    pub(crate) ready: Duration,
    /// When it went, and why.
    pub(crate) gone: Option<(Duration, String)>,
}

/// The fields of a span or an event.
#[derive(Clone, Debug, Default)]
struct Words(BTreeMap<&'static str, String>);

impl Visit for Words {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

impl Job {
    /// Returns a field of its span, such as `kind`, or an empty string if it was not recorded.
    pub(crate) fn get(&self, field: &str) -> &str {
        self.words.0.get(field).map_or("", String::as_str)
    }

    /// Returns when it left the queue.
    pub(crate) fn unqueued(&self) -> Duration {
        let started = self.run.as_ref().map(|run| run.start);
        started.or(self.ended).unwrap_or(self.submitted)
    }
}

/// A `tracing` subscriber for the spans of jobs, and for events of worker processes. A span's id is the
/// number of its job, from 1.
pub(crate) struct Recorder {
    epoch: Instant,
    jobs: Mutex<Vec<Job>>,
    processes: Mutex<Vec<Process>>,
}

thread_local! {
    /// The spans that this thread has entered: the index of the job, and whether the thread runs
    /// the job (or submits it).
    static ENTERED: RefCell<Vec<(usize, bool)>> = const { RefCell::new(Vec::new()) };
}

impl Recorder {
    pub(crate) fn new() -> Self {
        Self {
            epoch: Instant::now(),
            jobs: Mutex::default(),
            processes: Mutex::default(),
        }
    }

    pub(crate) fn jobs(&self) -> Vec<Job> {
        self.lock().clone()
    }

    /// Returns the processes in the order in which they were ready.
    pub(crate) fn processes(&self) -> Vec<Process> {
        lock(&self.processes).clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Job>> {
        lock(&self.jobs)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn thread_name() -> String {
    thread::current().name().unwrap_or("?").to_owned()
}

fn index_of(id: &Id) -> usize {
    id.into_u64() as usize - 1
}

impl Subscriber for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        if metadata.is_span() {
            target == TARGET
        } else {
            [LIFE, REMOTE].contains(&target)
        }
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut words = Words::default();
        attributes.record(&mut words);
        let mut jobs = self.lock();
        jobs.push(Job {
            metadata: attributes.metadata(),
            words,
            parent: ENTERED.with_borrow(|entered| entered.last().map(|(job, _)| *job)),
            submitted: self.epoch.elapsed(),
            submit_seen: false,
            run: None,
            ended: None,
        });
        Id::from_u64(jobs.len() as u64)
    }

    fn enter(&self, id: &Id) {
        let index = index_of(id);
        let job = &mut self.lock()[index];
        // The first enter is around the submit, the second is in the worker.
        let runs = mem::replace(&mut job.submit_seen, true);
        if runs {
            let start = self.epoch.elapsed();
            job.run = Some(Run {
                worker: thread_name(),
                pid: None, // until its first event
                start,
                end: start, // until the exit
            });
        }
        ENTERED.with_borrow_mut(|entered| entered.push((index, runs)));
    }

    fn exit(&self, _: &Id) {
        let now = self.epoch.elapsed();
        let left = ENTERED.with_borrow_mut(Vec::pop);
        if let Some((index, true)) = left {
            let job = &mut self.lock()[index];
            job.ended = Some(now);
            if let Some(run) = &mut job.run {
                run.end = now;
            }
        }
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        let job = &mut self.lock()[index_of(id)];
        values.record(&mut job.words);
        // For a job that never ran, this is the end.
        job.ended.get_or_insert_with(|| self.epoch.elapsed());
    }

    /// Called by a submit, to capture the span.
    fn current_span(&self) -> Current {
        let current = ENTERED.with_borrow(|entered| entered.last().copied());
        current.map_or_else(Current::none, |(index, _)| {
            let id = Id::from_u64(index as u64 + 1);
            Current::new(id, self.lock()[index].metadata)
        })
    }

    fn event(&self, event: &Event<'_>) {
        let now = self.epoch.elapsed();
        let mut words = Words::default();
        event.record(&mut words);
        let pid = words.0.get("worker").and_then(|pid| pid.parse().ok());
        let (Some(pid), reason) = (pid, words.0.remove("reason")) else {
            return;
        };
        if event.metadata().target() == REMOTE {
            // The pool passes it on inside the span of the job.
            if let Some((index, true)) = ENTERED.with_borrow(|entered| entered.last().copied()) {
                if let Some(run) = &mut self.lock()[index].run {
                    if run.pid.replace(pid).is_none() {
                        // Until here it was on its way to the process, which may have been starting.
                        run.start = now;
                    }
                }
            }
            return;
        }
        let mut processes = lock(&self.processes);
        if let Some(reason) = reason {
            let process = processes.iter_mut().rfind(|process| process.pid == pid);
            if let Some(process) = process {
                process.gone = Some((now, reason));
            }
        } else {
            processes.push(Process {
                pid,
                worker: thread_name(),
                ready: now,
                gone: None,
            });
        }
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}
}
