//! Work of a known duration.

use std::hint::black_box;
use std::sync::LazyLock;
use std::time::Instant;

/// A computation that takes as long as it was asked for.
///
/// The clock is too coarse to end it after a microsecond. So the number of iterations is measured
/// beforehand, once in a process.
#[derive(Clone, Copy)]
pub struct Work {
    iterations: u64,
}

/// The minimum time of one iteration over several tries.
static SECONDS_PER_ITERATION: LazyLock<f64> = LazyLock::new(|| {
    let work = Work {
        iterations: 1_000_000,
    };
    let tries = (0..20).map(|_| {
        let start = Instant::now();
        black_box(work.run(1));
        start.elapsed()
    });
    let best = tries.min().expect("there is a try");
    best.as_secs_f64() / work.iterations as f64
});

impl Work {
    pub fn lasting(seconds: f64) -> Self {
        let iterations = seconds / *SECONDS_PER_ITERATION;
        Self {
            iterations: iterations as u64,
        }
    }

    /// Runs the steps of a xorshift generator, whose state is never 0.
    pub fn run(self, seed: u64) -> u64 {
        let mut state = black_box(seed);
        for _ in 0..self.iterations {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
        }
        state
    }
}
