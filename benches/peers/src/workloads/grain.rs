use std::thread;

use pollster::block_on;

use super::{DEFAULT, Unit, WORKERS, Workload, figure, timed};
use crate::participant::{Benchmark, Participant, all_peers};
use crate::peers::Peer;
use crate::result::Sample;
use crate::work::Work;

pub(super) const ONE_MICRO: Workload = Workload {
    name: "grain-1us",
    about: "100,000 jobs of 1 µs: wall over ideal time; floor: 2 bare threads, a third takes 0.1 µs a job",
    participants: |scale| participants(scale.of(100_000), 1e-6),
    ..COMMON
};

pub(super) const TEN_MICROS: Workload = Workload {
    name: "grain-10us",
    about: "20,000 jobs of 10 µs: the same",
    participants: |scale| participants(scale.of(20_000), 10e-6),
    ..COMMON
};

const COMMON: Workload = Workload {
    figures: &[figure("wall over ideal", Unit::Times)],
    ..DEFAULT
};

/// The time that the floor allows the awaiting thread for each job.
const AWAITING: f64 = 0.1e-6;

fn participants(jobs: u64, seconds: f64) -> Vec<Participant> {
    let grain = Grain { jobs, seconds };
    let mut all = all_peers(WORKERS, grain);
    all.push(Participant::new("floor", move || grain.floor()));
    all
}

#[derive(Clone, Copy)]
struct Grain {
    jobs: u64,
    /// The time of one job without a pool.
    seconds: f64,
}

impl Grain {
    fn over_ideal(&self, run: impl FnOnce()) -> Sample {
        let (wall, ()) = timed(run);
        let ideal = self.seconds * self.jobs as f64 / WORKERS as f64;
        vec![Some(wall.as_secs_f64() / ideal)]
    }

    /// Runs bare threads that compute what the workers and the awaiting thread would.
    fn floor(&self) -> Sample {
        let work = Work::lasting(self.seconds);
        let awaiting = Work::lasting(AWAITING);
        self.over_ideal(|| {
            let each = self.jobs / WORKERS as u64;
            thread::scope(|scope| {
                for _ in 0..WORKERS {
                    scope.spawn(|| repeat(each, work));
                }
                repeat(self.jobs, awaiting);
            });
        })
    }
}

fn repeat(times: u64, work: Work) {
    for i in 0..times {
        assert_ne!(work.run(i + 1), 0);
    }
}

impl Benchmark for Grain {
    fn run<P: Peer>(&self, pool: &P) -> Sample {
        let work = Work::lasting(self.seconds);
        self.over_ideal(|| {
            let handles: Vec<_> = (0..self.jobs)
                .map(|i| pool.submit(move || work.run(i + 1)))
                .collect();
            block_on(async {
                for handle in handles {
                    assert_ne!(handle.await, 0);
                }
            });
        })
    }
}
