use std::thread;
use std::time::Duration;

use pollster::block_on;

use super::{DEFAULT, Unit, Workload, figure, sum, sum_below, timed};
use crate::participant::{Benchmark, all_peers};
use crate::peers::Peer;
use crate::result::Sample;

pub(super) const WORKLOAD: Workload = Workload {
    name: "sleepers",
    about: "1,000 started workers, 50,000 jobs that sleep 5 ms: wall time over ideal time",
    workers: 1_000,
    figures: &[figure("wall over ideal", Unit::Times)],
    participants: |scale| {
        let jobs = scale.of(50_000);
        all_peers(1_000, Sleepers { jobs })
    },
    ..DEFAULT
};

const SLEEP: Duration = Duration::from_millis(5);

#[derive(Clone)]
struct Sleepers {
    jobs: u64,
}

impl Benchmark for Sleepers {
    const NEW_POOL_EACH_ROUND: bool = true;

    fn run<P: Peer>(&self, pool: &P) -> Sample {
        let (wall, result) = timed(|| {
            let sleep_then_return = |i| {
                pool.submit(move || {
                    thread::sleep(SLEEP);
                    i
                })
            };
            block_on(sum((0..self.jobs).map(sleep_then_return).collect()))
        });
        assert_eq!(result, sum_below(self.jobs));
        let ideal = SLEEP.as_secs_f64() * self.jobs as f64 / 1_000.0;
        vec![Some(wall.as_secs_f64() / ideal)]
    }
}
