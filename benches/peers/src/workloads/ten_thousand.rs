use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use pollster::block_on;

use super::{DEFAULT, Unit, Workload, figure, sum, sum_below, timed};
use crate::machine::status;
use crate::participant::{Participant, Scale};
use crate::peers::{
    Affinitypool, Blocking, Crossbeam, Futurepool, Peer, Rayon, RustyPool, Threadfin, Threadpool,
    Tokio,
};
use crate::result::Sample;

pub(super) const WORKLOAD: Workload = Workload {
    name: "ten-thousand",
    about: "10,000 workers (1,000 if quick) start, all block at once, are released, and exit",
    workers: 10_000,
    figures: &[
        figure("start, all block", Unit::Seconds),
        figure("release, end", Unit::Seconds),
        figure("resident a worker", Unit::Kibibytes),
    ],
    participants: |scale| {
        vec![
            participant::<Futurepool>(scale),
            participant::<Tokio>(scale),
            participant::<Blocking>(scale),
            participant::<Affinitypool>(scale),
            participant::<Rayon>(scale),
            participant::<Threadpool>(scale),
            participant::<RustyPool>(scale),
            participant::<Threadfin>(scale),
            participant::<Crossbeam>(scale),
        ]
    },
    own_process_rounds: Some(3),
    ..DEFAULT
};

fn participant<P: Peer>(scale: Scale) -> Participant {
    Participant::new(P::NAME, move || measure::<P>(scale.of(10_000)))
}

fn measure<P: Peer>(workers: usize) -> Sample {
    assert!(
        workers <= P::MAX_WORKERS,
        "at most {} workers",
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
                arrived.send(()).expect("the main thread receives");
                gate.wait();
                i
            })
        })
        .collect();
    drop(arrived); // a lost job makes `recv` below fail
    for _ in 0..workers {
        arrivals.recv().expect("every job starts");
    }
    let started = start.elapsed();
    let resident = status("VmRSS").zip(memory);
    let resident = resident.map(|(after, before)| (after - before) / workers as f64);

    let (ended, gone) = timed(|| {
        gate.wait();
        assert_eq!(block_on(sum(handles)), sum_below(workers as u64));
        drop(pool);
        threads.is_some_and(wait_for_thread_count)
    });
    vec![
        Some(started.as_secs_f64()),
        gone.then_some(ended.as_secs_f64()),
        resident,
    ]
}

/// Waits until the process has at most `before` threads, and returns whether it got there in time.
///
/// Some pools do not wait for their threads when they are dropped.
fn wait_for_thread_count(before: f64) -> bool {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(2) {
        if status("Threads").is_some_and(|now| now <= before) {
            return true;
        }
        thread::sleep(Duration::from_millis(1));
    }
    false
}
