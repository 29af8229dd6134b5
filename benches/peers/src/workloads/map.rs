use rayon::iter::{IntoParallelIterator, ParallelIterator};

use super::{DEFAULT, Unit, WORKERS, Workload, figure, nanos_each, timed};
use crate::participant::Participant;
use crate::peers::{Futurepool, Peer, Rayon, start_workers};
use crate::result::Sample;
use crate::targets::{Goal, Test};

pub(super) const WORKLOAD: Workload = Workload {
    name: "map",
    about: "multiplies 1,000,000 items: `map` with `chunk_size(1024)`, and rayon's `into_par_iter`",
    figures: &[figure("an item", Unit::Nanos)],
    goals: &[Goal("≤ 1.5× rayon", Test::OfPeer("rayon", 1.5))],
    participants: |scale| {
        let items = scale.of(1_000_000);
        let ours = Futurepool::new(WORKERS);
        start_workers(&ours, WORKERS);
        let theirs = Rayon::new(WORKERS);
        vec![
            Participant::new(Futurepool::NAME, move || {
                measure(items, || {
                    let results = ours.pool().map(0..items, multiply).chunk_size(1024);
                    let results = results.into_iter();
                    results.fold(0, |sum, result| {
                        sum ^ result.expect("the function returned")
                    })
                })
            }),
            Participant::new(Rayon::NAME, move || {
                measure(items, || {
                    let results = || (0..items).into_par_iter().map(multiply).collect();
                    let results: Vec<_> = theirs.pool().install(results);
                    results.into_iter().fold(0, |sum, result| sum ^ result)
                })
            }),
        ]
    },
    ..DEFAULT
};

fn multiply(item: u64) -> u64 {
    item.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn measure(items: u64, map: impl FnOnce() -> u64) -> Sample {
    let (elapsed, result) = timed(map);
    assert_eq!(result, (0..items).fold(0, |sum, item| sum ^ multiply(item)));
    vec![nanos_each(elapsed, items)]
}
