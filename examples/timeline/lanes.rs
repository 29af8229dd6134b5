//! The lanes of the picture: which worker ran which jobs.

use std::collections::BTreeMap;
use std::time::Duration;

use futurepool::JobOutcome;

use crate::recorder::{Job, Jobs, Process, Run};

/// A worker. If it is a process, it is replaced now and then, and the lane goes on.
#[derive(Default)]
pub(crate) struct Lane<'a> {
    pub(crate) name: String,
    /// In order of their start.
    pub(crate) jobs: Vec<OnLane<'a>>,
    /// One after the other.
    pub(crate) processes: Vec<Life<'a>>,
}

/// A job in the lane of its worker.
pub(crate) struct OnLane<'a> {
    pub(crate) number: u64,
    pub(crate) job: &'a Job,
    pub(crate) run: &'a Run,
    /// How many jobs below it on the worker's stack wait for it.
    pub(crate) depth: usize,
}

/// A worker process in its lane.
pub(crate) struct Life<'a> {
    pub(crate) process: &'a Process,
    /// Not before its predecessor went.
    pub(crate) start: Duration,
    /// Not before its last job has ended.
    pub(crate) end: Duration,
    /// It did not survive its last job.
    pub(crate) was_killed: bool,
}

impl Life<'_> {
    pub(crate) fn reason(&self) -> &str {
        let gone = self.process.gone.as_ref();
        gone.map_or("", |(_, reason)| reason)
    }
}

pub(crate) fn lanes<'a>(jobs: &'a Jobs, processes: &'a [Process]) -> Vec<Lane<'a>> {
    let mut lanes = BTreeMap::<usize, Lane<'a>>::new();
    for (&number, job) in jobs {
        if let Some(run) = &job.run {
            lanes.entry(run.worker).or_default().jobs.push(OnLane {
                number,
                job,
                run,
                depth: 0, // set below
            });
        }
    }
    for lane in lanes.values_mut() {
        lane.jobs.sort_by_key(|on_lane| on_lane.run.start);
        let mut ends = Vec::new();
        for on_lane in &mut lane.jobs {
            ends.retain(|end| *end > on_lane.run.start);
            on_lane.depth = ends.len();
            ends.push(on_lane.job.ended);
        }
    }
    for process in processes {
        lanes.entry(process.worker).or_default().add(process);
    }
    let named = lanes.into_iter().map(|(worker, lane)| Lane {
        name: format!("worker-{worker}"),
        ..lane
    });
    named.collect()
}

impl<'a> Lane<'a> {
    fn add(&mut self, process: &'a Process) {
        let own = |on_lane: &&OnLane<'_>| on_lane.run.pid == Some(process.pid);
        let last_job = self.jobs.iter().rfind(own).map(|on_lane| on_lane.job);
        let gone = process.gone.as_ref().map(|(at, _)| *at);
        let last_end = last_job.map(|job| job.ended);
        let before = self.processes.last().map(|life| life.end);
        let start = before.map_or(process.ready, |before| before.max(process.ready));
        let outcome = last_job.and_then(|job| job.outcome);
        self.processes.push(Life {
            process,
            start,
            end: start.max(gone.max(last_end).unwrap_or_default()),
            was_killed: matches!(outcome, Some(JobOutcome::Cancelled | JobOutcome::Failed)),
        });
    }
}
