use super::{DEFAULT, WORKERS, Workload, burst::Burst};
use crate::participant::{Benchmark, Participant, all_peers, one_peer};
use crate::peers::{Futurepool, Peer};
use crate::result::Sample;

pub(super) const WORKLOAD: Workload = Workload {
    name: "crowd",
    about: "a burst of 50,000 jobs, with 1,000 workers that are idle at the start",
    workers: 1_000,
    participants: |scale| {
        let jobs = scale.of(50_000);
        let mut all = all_peers(1_000, Crowd { jobs });
        let few = one_peer::<Futurepool, _>(WORKERS, &Burst { jobs });
        all.push(Participant {
            name: "futurepool (2)".to_owned(),
            ..few
        });
        all
    },
    ..DEFAULT
};

#[derive(Clone)]
struct Crowd {
    jobs: u64,
}

impl Benchmark for Crowd {
    const NEW_POOL_EACH_ROUND: bool = true;

    fn run<P: Peer>(&self, pool: &P) -> Sample {
        Burst { jobs: self.jobs }.run(pool)
    }
}
