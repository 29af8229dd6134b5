use std::thread;
use std::time::Duration;

use pollster::block_on;

use super::{USUAL, Unit, Workload, figure, sum, sum_below, timed};
use crate::contest::{Measure, all_peers};
use crate::peers::Peer;
use crate::result::Sample;
use crate::targets::{Goal, Test};

pub(super) const WORKLOAD: Workload = Workload {
    name: "sleepers",
    about: "1,000 workers that have started, 100,000 jobs that sleep 5 ms: wall over ideal",
    workers: 1_000,
    figures: &[figure("wall over ideal", Unit::Times)],
    goals: &[Goal("≤ 1.05", Test::AtMost(0, 1.05))],
    contestants: |scale| {
        let jobs = scale.of(100_000);
        all_peers(1_000, Sleepers { jobs })
    },
    ..USUAL
};

const NAP: Duration = Duration::from_millis(5);

#[derive(Clone)]
struct Sleepers {
    jobs: u64,
}

impl Measure for Sleepers {
    const AFRESH: bool = true;

    fn take<P: Peer>(&self, pool: &P) -> Sample {
        let (wall, result) = timed(|| {
            let nap = |i| {
                pool.submit(move || {
                    thread::sleep(NAP);
                    i
                })
            };
            block_on(sum((0..self.jobs).map(nap).collect()))
        });
        assert_eq!(result, sum_below(self.jobs));
        let ideal = NAP.as_secs_f64() * self.jobs as f64 / 1_000.0;
        vec![Some(wall.as_secs_f64() / ideal)]
    }
}
