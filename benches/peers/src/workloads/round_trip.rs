use std::thread;
use std::time::Duration;

use super::{DEFAULT, Unit, WORKERS, Workload, figure, timed};
use crate::floor::{self, Wait};
use crate::participant::{Benchmark, Participant, Scale, all_peers};
use crate::peers::Peer;
use crate::placement::Placement;
use crate::result::Sample;

pub(super) const HOT_APART: Workload = Workload {
    name: "round-trip-hot-apart",
    about: "2,000 times submit and join in a tight loop; caller and workers on a processor each",
    participants: |scale| {
        let mut all = hot_with_floor(scale);
        all.push(spinning_floor(scale.of(TRIPS), None, Wait::Spin));
        all
    },
    placement: Placement::Apart,
    ..COMMON
};

pub(super) const HOT_SAME: Workload = Workload {
    name: "round-trip-hot-same",
    about: "the same, with all threads on one processor",
    // Without a spinning floor: on one processor each trip would last a time slice.
    participants: hot_with_floor,
    placement: Placement::Same,
    ..COMMON
};

pub(super) const COLD_APART: Workload = Workload {
    name: "round-trip-cold-apart",
    about: "submit and join after a pause of 1 ms, median of 100; caller and workers on a processor each",
    participants: cold_with_floors,
    placement: Placement::Apart,
    ..COMMON
};

pub(super) const COLD_SAME: Workload = Workload {
    name: "round-trip-cold-same",
    about: "the same, with all threads on one processor",
    participants: cold_with_floors,
    placement: Placement::Same,
    ..COMMON
};

const COMMON: Workload = Workload {
    figures: &[figure("a trip", Unit::Nanos)],
    ..DEFAULT
};

const TRIPS: usize = 2_000;
const COLD_TRIPS: usize = 100;
const PAUSE: Duration = Duration::from_millis(1);

fn hot_with_floor(scale: Scale) -> Vec<Participant> {
    let trips = scale.of(TRIPS);
    let mut all = all_peers(WORKERS, Hot { trips });
    all.push(Participant::new("floor", move || {
        let times = floor::trips(trips, None, Wait::Park, Wait::Park);
        vec![Some(mean(&times))]
    }));
    all
}

fn cold_with_floors(scale: Scale) -> Vec<Participant> {
    let trips = scale.of(COLD_TRIPS);
    let mut all = all_peers(WORKERS, Cold { trips });
    all.push(Participant::new("floor", move || {
        let times = floor::trips(trips, Some(PAUSE), Wait::Park, Wait::Park);
        vec![Some(median(times))]
    }));
    // The worker of a pool has parked after the pause, so that of this floor parks, too.
    all.push(spinning_floor(trips, Some(PAUSE), Wait::Park));
    all
}

/// Returns a floor whose caller spins until the flag is back.
fn spinning_floor(trips: usize, pause: Option<Duration>, worker: Wait) -> Participant {
    Participant::new("spinning floor", move || {
        let times = floor::trips(trips, pause, Wait::Spin, worker);
        vec![Some(match pause {
            None => mean(&times),
            Some(_) => median(times),
        })]
    })
}

#[derive(Clone)]
struct Hot {
    trips: usize,
}

impl Benchmark for Hot {
    fn run<P: Peer>(&self, pool: &P) -> Sample {
        vec![Some(hot(pool, self.trips))]
    }
}

#[derive(Clone)]
struct Cold {
    trips: usize,
}

impl Benchmark for Cold {
    fn run<P: Peer>(&self, pool: &P) -> Sample {
        vec![Some(cold(pool, self.trips))]
    }
}

/// Returns the nanoseconds per round trip over `trips` consecutive round trips.
pub(super) fn hot<P: Peer>(pool: &P, trips: usize) -> f64 {
    let (elapsed, ()) = timed(|| {
        for i in 0..trips {
            assert_eq!(pool.call(move || i), i);
        }
    });
    elapsed.as_secs_f64() * 1e9 / trips as f64
}

/// Returns the median nanoseconds of `trips` round trips, each after a pause.
///
/// The median ignores single round trips that other processes distort.
pub(super) fn cold<P: Peer>(pool: &P, trips: usize) -> f64 {
    let times = (0..trips).map(|i| {
        thread::sleep(PAUSE);
        let (time, answer) = timed(|| pool.call(move || i));
        assert_eq!(answer, i);
        time
    });
    median(times.collect())
}

fn mean(times: &[Duration]) -> f64 {
    times.iter().sum::<Duration>().as_secs_f64() * 1e9 / times.len() as f64
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e9
}
