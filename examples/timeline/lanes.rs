//! The lanes of the picture: which worker ran which jobs.

use std::collections::BTreeMap;

use crate::recorder::{Job, Run};

/// Each worker's name, and the jobs that it ran in order of their start.
pub(crate) type Lanes<'a> = Vec<(&'a str, Vec<OnLane<'a>>)>;

/// A job in the lane of its worker.
pub(crate) struct OnLane<'a> {
    pub(crate) number: usize,
    pub(crate) job: &'a Job,
    pub(crate) run: &'a Run,
    /// How many jobs below it on the worker's stack wait for it.
    pub(crate) depth: usize,
}

pub(crate) fn lanes(jobs: &[Job]) -> Lanes<'_> {
    let mut lanes = BTreeMap::<_, Vec<_>>::new();
    for (number, job) in (1..).zip(jobs) {
        if let Some(run) = &job.run {
            lanes.entry(&run.worker[..]).or_default().push(OnLane {
                number,
                job,
                run,
                depth: 0, // set below
            });
        }
    }
    for lane in lanes.values_mut() {
        lane.sort_by_key(|on_lane| on_lane.run.start);
        let mut ends = Vec::new();
        for on_lane in lane {
            ends.retain(|end| *end > on_lane.run.start);
            on_lane.depth = ends.len();
            ends.push(on_lane.run.end);
        }
    }
    let mut lanes: Lanes<'_> = lanes.into_iter().collect();
    lanes.sort_by_key(|(worker, _)| worker.len()); // so that worker-2 comes before worker-10
    lanes
}
