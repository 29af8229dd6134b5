//! Which worker ran what.

use std::collections::BTreeMap;

use crate::recorder::{Job, Run};

/// The workers, by their names, and what each of them ran, by when it started.
pub(crate) type Lanes<'a> = Vec<(&'a str, Vec<OnLane<'a>>)>;

/// A job as its worker's lane shows it.
pub(crate) struct OnLane<'a> {
    pub(crate) number: usize,
    pub(crate) job: &'a Job,
    pub(crate) run: &'a Run,
    /// How many jobs it runs inside of, which wait for it on the same stack.
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
                depth: 0, // until they are sorted
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
    lanes.sort_by_key(|(worker, _)| worker.len()); // else worker-10 would be before worker-2
    lanes
}
