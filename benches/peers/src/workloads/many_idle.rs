use super::round_trip::{cold, hot};
use super::{DEFAULT, Unit, WORKERS, Workload, figure};
use crate::participant::{Benchmark, Scale, all_peers};
use crate::peers::{Blocking, Peer, start_workers};
use crate::result::Sample;
use crate::targets::{Goal, Test};

pub(super) const WORKLOAD: Workload = Workload {
    name: "many-idle",
    about: "time of a round trip with 512 idle workers over that with 2 (without blocking: one pool per process)",
    workers: MANY,
    figures: &[
        figure("hot", Unit::Times),
        figure("cold", Unit::Times),
        figure("hot with 512", Unit::Micros),
        figure("cold with 512", Unit::Micros),
    ],
    // The minimum of several ratios would be the luckiest value, so the goals use the median.
    goals: &[
        Goal("hot ≤ 1.2×", Test::MedianAtMost(0, 1.2)),
        Goal("cold ≤ 1.2×", Test::MedianAtMost(1, 1.2)),
    ],
    participants: |scale| {
        let mut all = all_peers(MANY, ManyIdle { scale });
        all.retain(|participant| participant.name != Blocking::NAME);
        all
    },
    ..DEFAULT
};

const MANY: usize = 512;
/// How often the two pools alternate within a round. The minimum of each pool counts.
const REPETITIONS: usize = 3;

#[derive(Clone)]
struct ManyIdle {
    scale: Scale,
}

impl Benchmark for ManyIdle {
    const NEW_POOL_EACH_ROUND: bool = true;

    fn run<P: Peer>(&self, many: &P) -> Sample {
        let few = P::new(WORKERS);
        start_workers(&few, WORKERS);
        let trips = self.scale.of(1_000);
        let hot = best(|| (hot(&few, trips), hot(many, trips)));
        let trips = self.scale.of(60);
        let cold = best(|| (cold(&few, trips), cold(many, trips)));
        vec![
            Some(hot.1 / hot.0),
            Some(cold.1 / cold.0),
            Some(hot.1),
            Some(cold.1),
        ]
    }
}

fn best(pair: impl Fn() -> (f64, f64)) -> (f64, f64) {
    (0..REPETITIONS).fold((f64::MAX, f64::MAX), |minimum, _| {
        let (few, many) = pair();
        (minimum.0.min(few), minimum.1.min(many))
    })
}
