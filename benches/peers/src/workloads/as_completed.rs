use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use pollster::block_on;

use super::{DEFAULT, Unit, Workload, figure, nanos_each, sum_below, timed};
use crate::participant::{Benchmark, all_peers};
use crate::peers::Peer;
use crate::result::Sample;

pub(super) const WORKLOAD: Workload = Workload {
    name: "as_completed",
    about: "200,000 no-op jobs; one stream yields the results in completion order",
    figures: &[figure("a handle", Unit::Nanos)],
    participants: |scale| {
        let jobs = scale.of(200_000);
        all_peers(super::WORKERS, AsCompleted { jobs })
    },
    ..DEFAULT
};

#[derive(Clone)]
struct AsCompleted {
    jobs: u64,
}

impl Benchmark for AsCompleted {
    fn run<P: Peer>(&self, pool: &P) -> Sample {
        vec![nanos_each(as_completed(pool, self.jobs), self.jobs)]
    }
}

pub(super) fn as_completed<P: Peer>(pool: &P, jobs: u64) -> Duration {
    let (elapsed, sum) = timed(|| {
        block_on(async {
            let handles = (0..jobs).map(|i| pool.submit(move || i));
            let mut results = pin!(P::as_completed(handles));
            let mut sum = 0;
            while let Some(result) = results.next().await {
                sum += result;
            }
            sum
        })
    });
    assert_eq!(sum, sum_below(jobs));
    elapsed
}
