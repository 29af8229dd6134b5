use super::round_trip::{cold, hot};
use super::{USUAL, Unit, WORKERS, Workload, figure};
use crate::contest::{Measure, Scale, all_peers};
use crate::peers::{Blocking, Peer, start_workers};
use crate::result::Sample;
use crate::targets::{Goal, Test};

pub(super) const WORKLOAD: Workload = Workload {
    name: "many-idle",
    about: "round trips with 512 idle workers over those with 2 (not blocking, which has one size a process)",
    workers: MANY,
    figures: &[
        figure("hot", Unit::Times),
        figure("cold", Unit::Times),
        figure("hot with 512", Unit::Micros),
        figure("cold with 512", Unit::Micros),
    ],
    // The least of several ratios would be the luckiest of them, not the truest.
    goals: &[
        Goal("hot ≤ 1.2×", Test::MedianAtMost(0, 1.2)),
        Goal("cold ≤ 1.2×", Test::MedianAtMost(1, 1.2)),
    ],
    contestants: |scale| {
        let mut all = all_peers(MANY, ManyIdle { scale });
        all.retain(|contestant| contestant.name != Blocking::NAME);
        all
    },
    ..USUAL
};

const MANY: usize = 512;
/// So often the two pools take turns within a round, and the best turn of each counts.
const TURNS: usize = 3;

#[derive(Clone)]
struct ManyIdle {
    scale: Scale,
}

impl Measure for ManyIdle {
    const AFRESH: bool = true;

    fn take<P: Peer>(&self, many: &P) -> Sample {
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

fn best(turn: impl Fn() -> (f64, f64)) -> (f64, f64) {
    (0..TURNS).fold((f64::MAX, f64::MAX), |least, _| {
        let (few, many) = turn();
        (least.0.min(few), least.1.min(many))
    })
}
