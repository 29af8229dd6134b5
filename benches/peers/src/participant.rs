//! The participants of a workload, and how the program measures each.

use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use crate::peers::{
    Affinitypool, Blocking, Crossbeam, Futurepool, Peer, Rayon, RustyPool, Threadfin, Threadpool,
    Tokio, start_workers,
};
use crate::placement::pin_caller;
use crate::result::Sample;

/// The amount of work: all of it, or a tenth.
#[derive(Clone, Copy)]
pub struct Scale {
    pub quick: bool,
}

impl Scale {
    pub fn of<N: std::ops::Div<Output = N> + From<u8>>(self, full: N) -> N {
        match self.quick {
            true => full / N::from(10),
            false => full,
        }
    }
}

/// A pool or a baseline that a workload measures, with its name.
pub struct Participant {
    pub name: String,
    pub note: Option<String>,
    /// The dynamic call happens once per round, not once per job.
    pub measure: Arc<dyn Fn() -> Sample + Send + Sync>,
}

impl Participant {
    pub fn new(name: &str, measure: impl Fn() -> Sample + Send + Sync + 'static) -> Self {
        Self {
            name: name.to_owned(),
            note: None,
            measure: Arc::new(measure),
        }
    }

    pub fn note(mut self, note: &str) -> Self {
        self.note = Some(note.to_owned());
        self
    }
}

/// A measurement that works with any pool.
pub trait Benchmark: Clone + Send + Sync + 'static {
    /// If `true`, each round starts a new pool. Otherwise all rounds share one.
    const NEW_POOL_EACH_ROUND: bool = false;

    fn build<P: Peer>(&self, workers: usize) -> P {
        P::new(workers)
    }

    /// Runs one round. All workers of `pool` have started and are idle.
    fn run<P: Peer>(&self, pool: &P) -> Sample;
}

/// Returns a participant for every pool, each with `workers` workers.
pub fn all_peers<M: Benchmark>(workers: usize, benchmark: M) -> Vec<Participant> {
    vec![
        one_peer::<Futurepool, M>(workers, &benchmark),
        one_peer::<Tokio, M>(workers, &benchmark),
        one_peer::<Blocking, M>(workers, &benchmark),
        one_peer::<Affinitypool, M>(workers, &benchmark),
        one_peer::<Rayon, M>(workers, &benchmark),
        one_peer::<Threadpool, M>(workers, &benchmark),
        one_peer::<RustyPool, M>(workers, &benchmark),
        one_peer::<Threadfin, M>(workers, &benchmark),
        one_peer::<Crossbeam, M>(workers, &benchmark),
    ]
}

/// Returns a participant for pool `P`, which starts its workers before each measurement.
pub fn one_peer<P: Peer, M: Benchmark>(workers: usize, benchmark: &M) -> Participant {
    let started = workers.min(P::MAX_WORKERS);
    let (benchmark, shared) = (benchmark.clone(), OnceLock::new());
    let participant = Participant::new(P::NAME, move || {
        let mut own = None;
        let pool: &P = match M::NEW_POOL_EACH_ROUND {
            true => own.insert(benchmark.build(started)),
            false => shared.get_or_init(|| benchmark.build(started)),
        };
        start_workers(pool, started);
        // Waits until the last worker has parked.
        thread::sleep(Duration::from_millis(20) + Duration::from_micros(50) * started as u32);
        pin_caller();
        benchmark.run(pool)
    });
    Participant {
        note: (started < workers).then(|| format!("at most {started} workers")),
        ..participant
    }
}
