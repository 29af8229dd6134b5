use std::process::Command;

use super::as_completed::as_completed;
use super::{DEFAULT, Unit, WORKERS, Workload, burst::burst, figure, nanos_each, round_trip::hot};
use crate::participant::{Benchmark, Participant, one_peer};
use crate::peers::{Futurepool, Peer};
use crate::result::Sample;
use crate::targets::{Goal, Test};

pub(super) const WORKLOAD: Workload = Workload {
    name: "python",
    about: "burst, round trip and as_completed of 20,000 jobs, against CPython's ThreadPoolExecutor",
    figures: &[
        figure("burst", Unit::Nanos),
        figure("round trip", Unit::Nanos),
        figure("as_completed", Unit::Nanos),
    ],
    goals: &[
        Goal("burst ≥ 50×", Test::OfPeerIn(0, "python", 1.0 / 50.0)),
        Goal("round trip ≥ 50×", Test::OfPeerIn(1, "python", 1.0 / 50.0)),
        Goal(
            "as_completed ≥ 50×",
            Test::OfPeerIn(2, "python", 1.0 / 50.0),
        ),
    ],
    participants: |scale| {
        let jobs = scale.of(20_000);
        vec![
            one_peer::<Futurepool, _>(WORKERS, &LikePython { jobs }),
            Participant::new("python", move || script(jobs)),
        ]
    },
    ..DEFAULT
};

#[derive(Clone)]
struct LikePython {
    jobs: u64,
}

impl Benchmark for LikePython {
    fn run<P: Peer>(&self, pool: &P) -> Sample {
        let burst = burst(pool, self.jobs)[0];
        let trip = hot(pool, self.jobs as usize) * 1e3;
        let completed = nanos_each(as_completed(pool, self.jobs), self.jobs);
        vec![burst, Some(trip), completed]
    }
}

/// Runs the same workloads in CPython.
///
/// Panics if `python3` is missing, so the table reports a failure.
fn script(jobs: u64) -> Sample {
    let mut python = Command::new("python3");
    python.args(["-c", include_str!("../../python/thread_pool.py")]);
    python.args([jobs.to_string(), WORKERS.to_string()]);
    let output = python.output();
    let output = output.unwrap_or_else(|error| panic!("failed to run python3: {error}"));
    assert!(output.status.success(), "python3: {}", output.status);
    serde_json::from_slice(&output.stdout).expect("the script prints a list of numbers")
}
