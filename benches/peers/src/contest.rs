//! Who takes part in a workload, and how each takes its measure.

use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use crate::peers::{
    Affinitypool, Blocking, Crossbeam, Futurepool, Peer, Rayon, RustyPool, Threadfin, Threadpool,
    Tokio, start_workers,
};
use crate::result::Sample;

/// How much work there is: all of it, or a tenth.
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

/// One that takes part, under a name.
pub struct Contestant {
    pub name: String,
    pub note: Option<String>,
    /// The box is round all jobs of a round, not round each.
    pub measure: Arc<dyn Fn() -> Sample + Send + Sync>,
}

impl Contestant {
    pub fn new(name: &str, measure: impl Fn() -> Sample + Send + Sync + 'static) -> Self {
        Self {
            name: name.to_owned(),
            note: None,
            measure: Arc::new(measure),
        }
    }
}

/// A measure that can be taken of any pool.
pub trait Measure: Clone + Send + Sync + 'static {
    /// Whether each round has a new pool. Else one serves all rounds.
    const AFRESH: bool = false;

    fn build<P: Peer>(&self, workers: usize) -> P {
        P::new(workers)
    }

    /// All workers of the pool have started, and are idle.
    fn take<P: Peer>(&self, pool: &P) -> Sample;
}

/// All pools, each with so many workers.
pub fn all_peers<M: Measure>(workers: usize, measure: M) -> Vec<Contestant> {
    vec![
        one_peer::<Futurepool, M>(workers, &measure),
        one_peer::<Tokio, M>(workers, &measure),
        one_peer::<Blocking, M>(workers, &measure),
        one_peer::<Affinitypool, M>(workers, &measure),
        one_peer::<Rayon, M>(workers, &measure),
        one_peer::<Threadpool, M>(workers, &measure),
        one_peer::<RustyPool, M>(workers, &measure),
        one_peer::<Threadfin, M>(workers, &measure),
        one_peer::<Crossbeam, M>(workers, &measure),
    ]
}

pub fn one_peer<P: Peer, M: Measure>(workers: usize, measure: &M) -> Contestant {
    let started = workers.min(P::MAX_WORKERS);
    let (measure, kept) = (measure.clone(), OnceLock::new());
    let contestant = Contestant::new(P::NAME, move || {
        let mut own = None;
        let pool: &P = match M::AFRESH {
            true => own.insert(measure.build(started)),
            false => kept.get_or_init(|| measure.build(started)),
        };
        start_workers(pool, started);
        // Until the last of them sleeps.
        thread::sleep(Duration::from_millis(20) + Duration::from_micros(50) * started as u32);
        measure.take(pool)
    });
    Contestant {
        note: (started < workers).then(|| format!("{started} workers at most")),
        ..contestant
    }
}
