use super::{USUAL, WORKERS, Workload, burst::Burst};
use crate::contest::{Contestant, Measure, all_peers, one_peer};
use crate::peers::{Futurepool, Peer};
use crate::result::Sample;
use crate::targets::{Goal, Test};

pub(super) const WORKLOAD: Workload = Workload {
    name: "crowd",
    about: "the burst, of 50,000 jobs, with 1,000 workers that are all idle before",
    workers: 1_000,
    goals: &[Goal(
        "≤ 1.2× ours with 2 workers",
        Test::OfPeer("futurepool (2)", 1.2),
    )],
    contestants: |scale| {
        let jobs = scale.of(50_000);
        let mut all = all_peers(1_000, Crowd { jobs });
        let few = one_peer::<Futurepool, _>(WORKERS, &Burst { jobs });
        all.push(Contestant {
            name: "futurepool (2)".to_owned(),
            ..few
        });
        all
    },
    ..USUAL
};

#[derive(Clone)]
struct Crowd {
    jobs: u64,
}

impl Measure for Crowd {
    const AFRESH: bool = true;

    fn take<P: Peer>(&self, pool: &P) -> Sample {
        Burst { jobs: self.jobs }.take(pool)
    }
}
