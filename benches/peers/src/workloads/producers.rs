use std::thread;

use super::{DEFAULT, Workload, burst::burst, nanos_each, timed};
use crate::participant::{Benchmark, all_peers};
use crate::peers::Peer;
use crate::result::Sample;

pub(super) const WORKLOAD: Workload = Workload {
    name: "producers",
    about: "4 threads submit 50,000 no-op jobs each; each thread awaits its own jobs",
    participants: |scale| {
        let each = scale.of(50_000);
        all_peers(super::WORKERS, Producers { each })
    },
    ..DEFAULT
};

const THREADS: u64 = 4;

#[derive(Clone)]
struct Producers {
    each: u64,
}

impl Benchmark for Producers {
    fn run<P: Peer>(&self, pool: &P) -> Sample {
        let (elapsed, ()) = timed(|| {
            thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(|| burst(pool, self.each));
                }
            });
        });
        vec![nanos_each(elapsed, THREADS * self.each)]
    }
}
