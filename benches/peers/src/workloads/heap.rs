use pollster::block_on;
use stats_alloc::INSTRUMENTED_SYSTEM;

use super::{DEFAULT, Unit, Workload, figure};
use crate::participant::{Benchmark, all_peers};
use crate::peers::Peer;
use crate::result::Sample;

/// The binary `heap` provides the counting allocator.
pub(super) const WORKLOAD: Workload = Workload {
    name: "heap",
    about: "allocations and bytes per job, including its handle; closure and result have 8 bytes",
    figures: &[
        figure("bytes", Unit::Bytes),
        figure("allocations", Unit::Count),
    ],
    participants: |_| all_peers(super::WORKERS, Heap),
    program: "heap",
    ..DEFAULT
};

const JOBS: u64 = 10_000;

#[derive(Clone)]
struct Heap;

impl Benchmark for Heap {
    fn run<P: Peer>(&self, pool: &P) -> Sample {
        let one_by_one = || {
            block_on(async {
                for i in 0..JOBS {
                    assert_eq!(pool.submit(move || i).await, i);
                }
            });
        };
        one_by_one(); // performs the one-time allocations
        let before = INSTRUMENTED_SYSTEM.stats();
        one_by_one();
        let used = INSTRUMENTED_SYSTEM.stats() - before;
        let per_job = |count| Some(count as f64 / JOBS as f64);
        vec![
            per_job(used.bytes_allocated),
            per_job(used.allocations + used.reallocations),
        ]
    }
}
