use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use pollster::block_on;

use super::{USUAL, Unit, Workload, figure, sum, sum_below, timed};
use crate::contest::{Contestant, Scale};
use crate::machine::status;
use crate::peers::{
    Affinitypool, Blocking, Crossbeam, Futurepool, Peer, Rayon, RustyPool, Threadfin, Threadpool,
    Tokio,
};
use crate::result::Sample;
use crate::targets::{Goal, Test};

pub(super) const WORKLOAD: Workload = Workload {
    name: "ten-thousand",
    about: "10,000 workers (1,000 if quick) start, block all at once, are released, and end",
    workers: 10_000,
    figures: &[
        figure("start, all block", Unit::Seconds),
        figure("release, end", Unit::Seconds),
        figure("resident a worker", Unit::Kibibytes),
    ],
    goals: &[Goal("works", Test::Works)],
    contestants: |scale| {
        vec![
            contestant::<Futurepool>(scale),
            contestant::<Tokio>(scale),
            contestant::<Blocking>(scale),
            contestant::<Affinitypool>(scale),
            contestant::<Rayon>(scale),
            contestant::<Threadpool>(scale),
            contestant::<RustyPool>(scale),
            contestant::<Threadfin>(scale),
            contestant::<Crossbeam>(scale),
        ]
    },
    apart: Some(3),
    ..USUAL
};

fn contestant<P: Peer>(scale: Scale) -> Contestant {
    Contestant::new(P::NAME, move || measure::<P>(scale.of(10_000)))
}

fn measure<P: Peer>(workers: usize) -> Sample {
    assert!(
        workers <= P::MAX_WORKERS,
        "{} workers at most",
        P::MAX_WORKERS
    );
    let (memory, threads) = (status("VmRSS"), status("Threads"));
    let gate = Arc::new(Barrier::new(workers + 1));
    let start = Instant::now();
    let pool = P::new(workers);
    let (arrived, arrivals) = mpsc::channel();
    let handles: Vec<_> = (0..workers as u64)
        .map(|i| {
            let (arrived, gate) = (arrived.clone(), Arc::clone(&gate));
            pool.submit(move || {
                arrived.send(()).expect("somebody counts");
                gate.wait();
                i
            })
        })
        .collect();
    drop(arrived); // so that a job that is lost is an error below
    for _ in 0..workers {
        arrivals.recv().expect("every job arrives");
    }
    let started = start.elapsed();
    let resident = status("VmRSS").zip(memory);
    let resident = resident.map(|(after, before)| (after - before) / workers as f64);

    let (ended, gone) = timed(|| {
        gate.wait();
        assert_eq!(block_on(sum(handles)), sum_below(workers as u64));
        drop(pool);
        threads.is_some_and(threads_are)
    });
    vec![
        Some(started.as_secs_f64()),
        gone.then_some(ended.as_secs_f64()),
        resident,
    ]
}

/// Waits until there are so few threads as before: not every pool waits for its own.
fn threads_are(before: f64) -> bool {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(2) {
        if status("Threads").is_some_and(|now| now <= before) {
            return true;
        }
        thread::sleep(Duration::from_millis(1));
    }
    false
}
