use std::sync::{Arc, OnceLock};

use super::{DEFAULT, Unit, WORKERS, Workload, figure, nanos_each, sum_below, timed};
use crate::floor::{Answerer, Wait};
use crate::participant::{Benchmark, Participant, Scale, all_peers};
use crate::peers::Peer;
use crate::placement::Placement;
use crate::result::Sample;
use crate::runtime::{Runtime, Smol, TokioRuntime};

pub(super) const APART: Workload = Workload {
    name: "round-trip-async-apart",
    about: "a task on a tokio runtime of 2 threads submits and awaits, 2,000 times; workers apart from it",
    participants: |scale| {
        let mut all = with_floor::<TokioRuntime>(scale);
        all.push(floor::<TokioRuntime>("spinning floor", scale, Wait::Spin));
        all
    },
    ..COMMON
};

pub(super) const SAME: Workload = Workload {
    name: "round-trip-async-same",
    about: "the same, with all threads on one processor",
    // Without a spinning floor: on one processor each trip would last a time slice.
    participants: with_floor::<TokioRuntime>,
    placement: Placement::Same,
    ..COMMON
};

pub(super) const EIGHT_TASKS: Workload = Workload {
    name: "round-trip-async-8",
    about: "8 tasks at the same time: wall time over all of their 20,000 round trips; workers apart",
    participants: |scale| many_tasks(8, scale),
    ..COMMON
};

pub(super) const MANY_TASKS: Workload = Workload {
    name: "round-trip-async-64",
    about: "the same with 64 tasks",
    participants: |scale| many_tasks(64, scale),
    ..COMMON
};

pub(super) const SMOL: Workload = Workload {
    name: "round-trip-async-smol",
    about: "one task on an executor of smol with 2 threads, 2,000 times; workers apart",
    participants: with_floor::<Smol>,
    ..COMMON
};

const COMMON: Workload = Workload {
    figures: &[figure("a trip", Unit::Nanos)],
    placement: Placement::Apart,
    ..DEFAULT
};

const TRIPS: u64 = 2_000;

fn with_floor<R: Runtime>(scale: Scale) -> Vec<Participant> {
    let trips = scale.of(TRIPS);
    let mut all = all_peers(WORKERS, InTasks::<R>::new(1, trips));
    all.push(floor::<R>("floor", scale, Wait::Park));
    all
}

fn many_tasks(tasks: u64, scale: Scale) -> Vec<Participant> {
    let trips = scale.of(20_000) / tasks;
    all_peers(WORKERS, InTasks::<TokioRuntime>::new(tasks, trips))
}

/// Returns a floor: a bare thread calls the waker of the task.
fn floor<R: Runtime>(name: &str, scale: Scale, wait: Wait) -> Participant {
    let (trips, runtime) = (scale.of(TRIPS), OnceLock::new());
    Participant::new(name, move || {
        let runtime: &R = runtime.get_or_init(R::start);
        let answerer = Answerer::start(wait);
        let (elapsed, answerer) = timed(|| {
            let task = async move {
                for i in 1..=trips {
                    answerer.ask(i).await;
                }
                answerer
            };
            pollster::block_on(runtime.spawn(task))
        });
        answerer.stop();
        vec![nanos_each(elapsed, trips)]
    })
}

/// Tasks that run on `R` at the same time, with `trips` round trips each.
#[derive(Clone)]
struct InTasks<R> {
    tasks: u64,
    trips: u64,
    runtime: Arc<OnceLock<R>>,
}

impl<R: Runtime> InTasks<R> {
    fn new(tasks: u64, trips: u64) -> Self {
        Self {
            tasks,
            trips,
            runtime: Arc::default(),
        }
    }

    fn runtime(&self) -> &R {
        self.runtime.get_or_init(R::start)
    }
}

impl<R: Runtime> Benchmark for InTasks<R> {
    /// Creates the pool inside the runtime, as an application would.
    ///
    /// Then futurepool's jobs run inside the runtime context. Tokio's jobs run on the blocking
    /// threads of this runtime.
    fn build<P: Peer>(&self, workers: usize) -> P {
        self.runtime().enter(|| P::new(workers))
    }

    fn run<P: Peer>(&self, pool: &P) -> Sample {
        let trips = self.trips;
        let (elapsed, ()) = timed(|| {
            let task = |_| {
                let pool = pool.clone();
                self.runtime().spawn(async move {
                    let mut sum = 0;
                    for i in 0..trips {
                        sum += pool.submit(move || i).await;
                    }
                    sum
                })
            };
            let tasks: Vec<_> = (0..self.tasks).map(task).collect();
            pollster::block_on(async {
                for task in tasks {
                    assert_eq!(task.await, sum_below(trips));
                }
            });
        });
        vec![nanos_each(elapsed, self.tasks * trips)]
    }
}
