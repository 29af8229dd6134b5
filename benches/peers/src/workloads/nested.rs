use pollster::block_on;

use super::{DEFAULT, Workload, nanos_each, sum, timed};
use crate::participant::{Benchmark, all_peers};
use crate::peers::Peer;
use crate::result::Sample;

pub(super) const WORKLOAD: Workload = Workload {
    name: "nested",
    about: "10,000 jobs submit 10 no-op jobs each, and return the handles; the main thread awaits them",
    participants: |scale| {
        let outer = scale.of(10_000);
        all_peers(super::WORKERS, Nested { outer })
    },
    ..DEFAULT
};

const INNER: u64 = 10;

#[derive(Clone)]
struct Nested {
    outer: u64,
}

impl Benchmark for Nested {
    fn run<P: Peer>(&self, pool: &P) -> Sample {
        // The handle type may borrow the pool, so a job can return a handle only if the pool is
        // `'static`. The pool lives as long as the process anyway, so the leak costs one clone.
        let pool: &'static P = Box::leak(Box::new(pool.clone()));
        let (elapsed, total) = timed(|| {
            let outer: Vec<_> = (0..self.outer)
                .map(|_| {
                    pool.submit(move || {
                        (0..INNER)
                            .map(|i| pool.submit(move || i))
                            .collect::<Vec<_>>()
                    })
                })
                .collect();
            block_on(async {
                let mut total = 0;
                for handle in outer {
                    total += sum(handle.await).await;
                }
                total
            })
        });
        assert_eq!(total, self.outer * super::sum_below(INNER));
        vec![nanos_each(elapsed, self.outer * (INNER + 1))]
    }
}
