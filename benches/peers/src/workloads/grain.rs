use std::hint::black_box;
use std::time::Duration;

use pollster::block_on;

use super::{DEFAULT, Unit, WORKERS, Workload, figure, timed};
use crate::participant::{Benchmark, all_peers};
use crate::peers::Peer;
use crate::result::Sample;
use crate::targets::{Goal, Test};

pub(super) const ONE_MICRO: Workload = Workload {
    name: "grain-1us",
    about: "100,000 jobs that compute for 1 µs: wall time over ideal time",
    participants: |scale| all_peers(WORKERS, Grain::new(scale.of(100_000), 1e-6)),
    ..COMMON
};

pub(super) const TEN_MICROS: Workload = Workload {
    name: "grain-10us",
    about: "20,000 jobs that compute for 10 µs: wall time over ideal time",
    participants: |scale| all_peers(WORKERS, Grain::new(scale.of(20_000), 10e-6)),
    ..COMMON
};

const COMMON: Workload = Workload {
    figures: &[figure("wall over ideal", Unit::Times)],
    goals: &[Goal("the lowest of all", Test::Ahead)],
    ..DEFAULT
};

#[derive(Clone)]
struct Grain {
    jobs: u64,
    iterations: u64,
    /// The time of one job without a pool.
    seconds: f64,
}

impl Grain {
    fn new(jobs: u64, seconds: f64) -> Self {
        let iterations = (seconds / seconds_of(1_000_000) * 1e6) as u64;
        let seconds = seconds_of(iterations * 1_000) / 1e3;
        Self {
            jobs,
            iterations,
            seconds,
        }
    }
}

impl Benchmark for Grain {
    fn run<P: Peer>(&self, pool: &P) -> Sample {
        let iterations = self.iterations;
        let (wall, ()) = timed(|| {
            let handles: Vec<_> = (0..self.jobs)
                .map(|i| pool.submit(move || compute(iterations, i + 1)))
                .collect();
            block_on(async {
                for handle in handles {
                    // The state of a xorshift generator is never 0.
                    assert_ne!(handle.await, 0);
                }
            });
        });
        let ideal = self.seconds * self.jobs as f64 / WORKERS as f64;
        vec![Some(wall.as_secs_f64() / ideal)]
    }
}

/// Runs `iterations` steps of a xorshift generator.
///
/// The clock is too coarse to end a job after a microsecond. So `Grain::new` measures the number of
/// iterations beforehand.
fn compute(iterations: u64, seed: u64) -> u64 {
    let mut state = black_box(seed);
    for _ in 0..iterations {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
    }
    state
}

/// Returns the minimum time of several tries.
fn seconds_of(iterations: u64) -> f64 {
    let tries = (0..20).map(|_| timed(|| black_box(compute(iterations, 1))).0);
    tries.min().unwrap_or(Duration::ZERO).as_secs_f64()
}
