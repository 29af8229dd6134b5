use std::thread;
use std::time::Duration;

use cpu_time::ProcessTime;

use super::{USUAL, Unit, Workload, figure};
use crate::contest::{Measure, all_peers};
use crate::peers::Peer;
use crate::result::Sample;
use crate::targets::{Goal, Test};

pub(super) const WORKLOAD: Workload = Workload {
    name: "idle",
    about: "processor time that 64 idle workers take within 5 s (1 s if quick)",
    workers: 64,
    figures: &[figure("processor time", Unit::Millis)],
    // The clock itself, and the thread that looks at it, take some microseconds.
    goals: &[Goal("0 (below 0.5 ms)", Test::AtMost(0, 0.5))],
    contestants: |scale| {
        let seconds = if scale.quick { 1 } else { 5 };
        let watch = Duration::from_secs(seconds);
        all_peers(64, Idle { watch })
    },
    apart: Some(1),
    ..USUAL
};

#[derive(Clone)]
struct Idle {
    watch: Duration,
}

impl Measure for Idle {
    fn take<P: Peer>(&self, _pool: &P) -> Sample {
        // What is done once after the last job is not what idling costs.
        thread::sleep(Duration::from_millis(200));
        let before = ProcessTime::now();
        thread::sleep(self.watch);
        vec![Some(before.elapsed().as_secs_f64() * 1e3)]
    }
}
