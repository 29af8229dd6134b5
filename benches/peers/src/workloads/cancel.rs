use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Barrier};

use pollster::block_on;

use super::{DEFAULT, Unit, WORKERS, Workload, figure, nanos_each, timed};
use crate::participant::Participant;
use crate::peers::{Affinitypool, Blocking, Cancels, Futurepool, Tokio, start_workers};
use crate::result::Sample;

pub(super) const WORKLOAD: Workload = Workload {
    name: "cancel",
    about: "cancels half of 100,000 queued jobs",
    figures: &[
        figure("a cancel", Unit::Nanos),
        figure("captures freed at once", Unit::YesNo),
    ],
    participants: |scale| {
        let jobs = scale.of(100_000);
        vec![
            participant::<Futurepool>(jobs),
            participant::<Tokio>(jobs),
            participant::<Blocking>(jobs),
            participant::<Affinitypool>(jobs),
        ]
    },
    ..DEFAULT
};

fn participant<P: Cancels>(jobs: u64) -> Participant {
    Participant::new(P::NAME, move || measure::<P>(jobs))
}

fn measure<P: Cancels>(jobs: u64) -> Sample {
    let pool = P::new(WORKERS);
    let gate = Arc::new(Barrier::new(WORKERS + 1));
    let blocked: Vec<_> = (0..WORKERS)
        .map(|_| {
            let gate = Arc::clone(&gate);
            pool.submit(move || {
                gate.wait(); // the worker has started the job
                gate.wait(); // blocks the worker
            })
        })
        .collect();
    gate.wait();

    let ran = Arc::new(AtomicU64::new(0));
    let queue_one = |_| {
        let ran = Arc::clone(&ran);
        pool.queue(move || {
            ran.fetch_add(1, SeqCst);
        })
    };
    let mut handles: Vec<_> = (0..jobs).map(queue_one).collect();
    let (elapsed, ()) = timed(|| handles.iter_mut().step_by(2).for_each(P::cancel));
    let captured = Arc::strong_count(&ran) as u64 - 1;

    gate.wait();
    block_on(async {
        for handle in blocked {
            handle.await;
        }
    });
    // These pools run jobs in FIFO order. So all queued jobs have finished once further jobs
    // occupy all workers.
    start_workers(&pool, WORKERS);
    assert_eq!(
        ran.load(SeqCst),
        jobs / 2,
        "exactly half of the jobs must run"
    );
    let freed = f64::from(captured == jobs / 2);
    vec![nanos_each(elapsed, jobs / 2), Some(freed)]
}
