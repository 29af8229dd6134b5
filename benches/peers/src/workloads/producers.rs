use std::thread;

use super::{USUAL, Workload, burst::burst, nanos_each, timed};
use crate::contest::{Measure, all_peers};
use crate::peers::Peer;
use crate::result::Sample;
use crate::targets::{Goal, Test};

pub(super) const WORKLOAD: Workload = Workload {
    name: "producers",
    about: "4 threads submit 50,000 no-op jobs each, and each awaits its own",
    goals: &[
        Goal("≥ 2× tokio", Test::OfPeer("tokio", 1.0 / 2.0)),
        Goal("ahead of every peer", Test::Ahead),
    ],
    contestants: |scale| {
        let each = scale.of(50_000);
        all_peers(super::WORKERS, Producers { each })
    },
    ..USUAL
};

const THREADS: u64 = 4;

#[derive(Clone)]
struct Producers {
    each: u64,
}

impl Measure for Producers {
    fn take<P: Peer>(&self, pool: &P) -> Sample {
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
