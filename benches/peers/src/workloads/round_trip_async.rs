use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::Runtime;

use super::{DEFAULT, Unit, Workload, figure};
use crate::participant::{Benchmark, all_peers};
use crate::peers::{self, Peer};
use crate::result::Sample;
use crate::targets::{Goal, Test};

pub(super) const WORKLOAD: Workload = Workload {
    name: "round-trip-async",
    about: "a task on a tokio runtime of 2 threads submits and awaits in a loop; the mean of 5,000 round trips",
    figures: &[figure("a trip", Unit::Micros)],
    goals: &[Goal("≤ 1.0× the best of them", Test::Ahead)],
    participants: |scale| {
        let task = InTask {
            trips: scale.of(5_000),
            runtime: Arc::new(peers::runtime(super::WORKERS)),
        };
        all_peers(super::WORKERS, task)
    },
    ..DEFAULT
};

#[derive(Clone)]
struct InTask {
    trips: u64,
    runtime: Arc<Runtime>,
}

impl Benchmark for InTask {
    /// Creates the pool inside the runtime, as an application would.
    ///
    /// Then futurepool's jobs run inside the runtime context. Tokio's jobs run on the blocking
    /// threads of this runtime.
    fn build<P: Peer>(&self, workers: usize) -> P {
        let _inside = self.runtime.enter();
        P::new(workers)
    }

    fn run<P: Peer>(&self, pool: &P) -> Sample {
        let (pool, trips) = (pool.clone(), self.trips);
        let task = self.runtime.spawn(async move {
            let start = Instant::now();
            let mut sum = 0;
            for i in 0..trips {
                sum += pool.submit(move || i).await;
            }
            let elapsed = start.elapsed();
            assert_eq!(sum, super::sum_below(trips));
            elapsed.as_secs_f64() * 1e6 / trips as f64
        });
        vec![Some(
            pollster::block_on(task).expect("the task does not panic"),
        )]
    }
}
