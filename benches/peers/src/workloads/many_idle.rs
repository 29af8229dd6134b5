use super::round_trip::{cold, hot};
use super::{DEFAULT, Unit, WORKERS, Workload, figure};
use crate::participant::{Benchmark, Scale, all_peers};
use crate::peers::{Blocking, Peer, start_workers};
use crate::placement::Placement;
use crate::result::Sample;

pub(super) const WORKLOAD: Workload = Workload {
    name: "many-idle",
    about: "round trips with 512 idle workers, and over those with 2; apart (blocking has one pool per process)",
    workers: MANY,
    figures: &[
        figure("hot with 512", Unit::Nanos),
        figure("cold with 512", Unit::Nanos),
        figure("hot, over 2", Unit::Times),
        figure("cold, over 2", Unit::Times),
    ],
    placement: Placement::Apart,
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
            Some(hot.1),
            Some(cold.1),
            Some(hot.1 / hot.0),
            Some(cold.1 / cold.0),
        ]
    }
}

fn best(pair: impl Fn() -> (f64, f64)) -> (f64, f64) {
    (0..REPETITIONS).fold((f64::MAX, f64::MAX), |minimum, _| {
        let (few, many) = pair();
        (minimum.0.min(few), minimum.1.min(many))
    })
}
