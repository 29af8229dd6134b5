//! What happened to each job, from the events of its pool; and to each worker process, from
//! `tracing`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use futurepool::{JobEvent, JobOutcome};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// The target of the pool's events that tell when a worker process is ready, and why it goes.
const LIFE: &str = "futurepool::process";

/// The target of events that a job emits in its worker process.
const REMOTE: &str = "futurepool::worker";

/// The record of a job. Times count from the creation of the recorder.
#[derive(Clone, Debug, Default)]
pub(crate) struct Job {
    pub(crate) label: &'static str,
    /// The job that submitted this job.
    pub(crate) parent: Option<u64>,
    pub(crate) submitted: Duration,
    /// `None` if it never ran.
    pub(crate) run: Option<Run>,
    pub(crate) ended: Duration,
    pub(crate) outcome: Option<JobOutcome>,
}

#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// The number of the worker.
    pub(crate) worker: usize,
    /// The worker process that ran it, if there was one.
    pub(crate) pid: Option<u32>,
    pub(crate) start: Duration,
}

/// The record of a worker process.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// The number of the worker that uses it.
    pub(crate) worker: usize,
    pub(crate) ready: Duration,
    /// When it went, and why.
    pub(crate) gone: Option<(Duration, String)>,
}

impl Job {
    /// Returns when it left the queue.
    pub(crate) fn unqueued(&self) -> Duration {
        self.run.as_ref().map_or(self.ended, |run| run.start)
    }
}

/// The jobs by their numbers.
pub(crate) type Jobs = BTreeMap<u64, Job>;

pub(crate) struct Recorder {
    epoch: Instant,
    jobs: Mutex<Jobs>,
    processes: Mutex<Vec<Process>>,
}

thread_local! {
    /// The jobs that this thread runs, each in a wait of the one before.
    static RUNNING: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

fn running() -> Option<u64> {
    RUNNING.with_borrow(|running| running.last().copied())
}

impl Recorder {
    pub(crate) fn new() -> Self {
        Self {
            epoch: Instant::now(),
            jobs: Mutex::default(),
            processes: Mutex::default(),
        }
    }

    /// The function that a pool calls: see [`futurepool::ThreadPoolBuilder::on_job`].
    ///
    /// A pool calls it on the thread that submits, runs or cancels the job.
    pub(crate) fn on_job(&self, event: &JobEvent) {
        let at = event.at().saturating_duration_since(self.epoch);
        let mut jobs = lock(&self.jobs);
        // That a job was submitted may be told after its start.
        let job = jobs.entry(event.id()).or_default();
        job.label = event.label().unwrap_or_default();
        match event {
            JobEvent::Submitted { .. } => {
                job.submitted = at;
                job.parent = running();
            }
            JobEvent::Started { id, worker, .. } => {
                job.run = Some(Run {
                    worker: *worker,
                    pid: None, // until its first event
                    start: at,
                });
                RUNNING.with_borrow_mut(|running| running.push(*id));
            }
            JobEvent::Finished {
                worker, outcome, ..
            } => {
                job.ended = at;
                job.outcome = Some(*outcome);
                if worker.is_some() {
                    RUNNING.with_borrow_mut(|running| running.pop());
                }
            }
            _ => {}
        }
    }

    pub(crate) fn jobs(&self) -> Jobs {
        lock(&self.jobs).clone()
    }

    /// Returns the processes in the order in which they were ready.
    pub(crate) fn processes(&self) -> Vec<Process> {
        lock(&self.processes).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the number of the worker that this thread is, from its name.
fn worker_number() -> usize {
    let thread = thread::current();
    let number = thread.name().and_then(|name| name.rsplit_once('-'));
    number.map_or(0, |(_, number)| number.parse().unwrap_or_default())
}

/// The fields of an event.
#[derive(Default)]
struct Words(BTreeMap<&'static str, String>);

impl Visit for Words {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

/// Receives what is told of worker processes, on the threads of the pool.
impl Subscriber for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && [LIFE, REMOTE].contains(&metadata.target())
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
            let mut jobs = lock(&self.jobs);
            let job = running().and_then(|job| jobs.get_mut(&job));
            if let Some(run) = job.and_then(|job| job.run.as_mut()) {
                if run.pid.replace(pid).is_none() {
                    // Until here it was on its way to the process, which may have been starting.
                    run.start = now;
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
                worker: worker_number(),
                ready: now,
                gone: None,
            });
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
}
