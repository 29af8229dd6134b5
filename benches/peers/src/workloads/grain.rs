use std::hint::black_box;
use std::time::Duration;

use pollster::block_on;

use super::{USUAL, Unit, WORKERS, Workload, figure, timed};
use crate::contest::{Measure, all_peers};
use crate::peers::Peer;
use crate::result::Sample;
use crate::targets::{Goal, Test};

pub(super) const ONE_MICRO: Workload = Workload {
    name: "grain-1us",
    about: "100,000 jobs that compute for 1 µs: wall over ideal",
    contestants: |scale| all_peers(WORKERS, Grain::new(scale.of(100_000), 1e-6)),
    ..EITHER
};

pub(super) const TEN_MICROS: Workload = Workload {
    name: "grain-10us",
    about: "20,000 jobs that compute for 10 µs: wall over ideal",
    contestants: |scale| all_peers(WORKERS, Grain::new(scale.of(20_000), 10e-6)),
    ..EITHER
};

const EITHER: Workload = Workload {
    figures: &[figure("wall over ideal", Unit::Times)],
    goals: &[Goal("the lowest of all", Test::Ahead)],
    ..USUAL
};

#[derive(Clone)]
struct Grain {
    jobs: u64,
    turns: u64,
    /// What a job takes on its own.
    seconds: f64,
}

impl Grain {
    fn new(jobs: u64, seconds: f64) -> Self {
        let turns = (seconds / seconds_of(1_000_000) * 1e6) as u64;
        let seconds = seconds_of(turns * 1_000) / 1e3;
        Self {
            jobs,
            turns,
            seconds,
        }
    }
}

impl Measure for Grain {
    fn take<P: Peer>(&self, pool: &P) -> Sample {
        let turns = self.turns;
        let (wall, ()) = timed(|| {
            let handles: Vec<_> = (0..self.jobs)
                .map(|i| pool.submit(move || spin(turns, i + 1)))
                .collect();
            block_on(async {
                for handle in handles {
                    // A xorshift never gets to 0.
                    assert_ne!(handle.await, 0);
                }
            });
        });
        let ideal = self.seconds * self.jobs as f64 / WORKERS as f64;
        vec![Some(wall.as_secs_f64() / ideal)]
    }
}

/// The clock is too coarse to end a job of a microsecond; so many turns of this are measured beforehand.
fn spin(turns: u64, seed: u64) -> u64 {
    let mut state = black_box(seed);
    for _ in 0..turns {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
    }
    state
}

/// The least of some tries.
fn seconds_of(turns: u64) -> f64 {
    let tries = (0..20).map(|_| timed(|| black_box(spin(turns, 1))).0);
    tries.min().unwrap_or(Duration::ZERO).as_secs_f64()
}
