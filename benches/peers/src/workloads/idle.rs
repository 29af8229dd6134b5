use std::thread;
use std::time::Duration;

use cpu_time::ProcessTime;

use super::{DEFAULT, Unit, Workload, figure};
use crate::participant::{Benchmark, all_peers};
use crate::peers::Peer;
use crate::result::Sample;

pub(super) const WORKLOAD: Workload = Workload {
    name: "idle",
    about: "CPU time that 64 idle workers use within 2 s (1 s if quick)",
    workers: 64,
    figures: &[figure("processor time", Unit::Millis)],
    participants: |scale| {
        let seconds = if scale.quick { 1 } else { 2 };
        let duration = Duration::from_secs(seconds);
        all_peers(64, Idle { duration })
    },
    own_process_rounds: Some(3),
    ..DEFAULT
};

#[derive(Clone)]
struct Idle {
    duration: Duration,
}

impl Benchmark for Idle {
    fn run<P: Peer>(&self, _pool: &P) -> Sample {
        // Excludes the work that follows the last job once.
        thread::sleep(Duration::from_millis(200));
        let before = ProcessTime::now();
        thread::sleep(self.duration);
        vec![Some(before.elapsed().as_secs_f64() * 1e3)]
    }
}
