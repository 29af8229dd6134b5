use pollster::block_on;

use super::{DEFAULT, Unit, Workload, figure, nanos_each, sum, sum_below, timed};
use crate::participant::{Benchmark, all_peers};
use crate::peers::Peer;
use crate::result::Sample;

pub(super) const WORKLOAD: Workload = Workload {
    name: "burst",
    about: "one thread submits 200,000 no-op jobs, then awaits all of them",
    figures: &[
        figure("a job", Unit::Nanos),
        figure("of it submitting", Unit::Nanos),
    ],
    participants: |scale| {
        let jobs = scale.of(200_000);
        all_peers(super::WORKERS, Burst { jobs })
    },
    ..DEFAULT
};

#[derive(Clone)]
pub(super) struct Burst {
    pub(super) jobs: u64,
}

impl Benchmark for Burst {
    fn run<P: Peer>(&self, pool: &P) -> Sample {
        burst(pool, self.jobs)
    }
}

pub(super) fn burst<P: Peer>(pool: &P, jobs: u64) -> Sample {
    let (all, submitting) = timed(|| {
        let (submitting, handles) = timed(|| {
            (0..jobs)
                .map(|i| pool.submit(move || i))
                .collect::<Vec<_>>()
        });
        assert_eq!(block_on(sum(handles)), sum_below(jobs));
        submitting
    });
    vec![nanos_each(all, jobs), nanos_each(submitting, jobs)]
}
