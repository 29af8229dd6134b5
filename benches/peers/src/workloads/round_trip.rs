use std::thread;
use std::time::Duration;

use super::{DEFAULT, Unit, Workload, figure, timed};
use crate::floor;
use crate::participant::{Benchmark, Participant, all_peers};
use crate::peers::Peer;
use crate::result::Sample;
use crate::targets::{Goal, Test};

pub(super) const HOT: Workload = Workload {
    name: "round-trip-hot",
    about: "submit and join in a tight loop; the mean of 5,000 round trips",
    figures: &[figure("a trip", Unit::Micros)],
    goals: &[Goal("≤ 0.5× the floor", Test::OfPeer("floor", 0.5))],
    participants: |scale| {
        let trips = scale.of(5_000);
        let mut all = all_peers(super::WORKERS, Hot { trips });
        let floor = move || vec![Some(mean(floor::trips(trips, None)))];
        all.push(Participant::new("floor", floor));
        all
    },
    ..DEFAULT
};

pub(super) const COLD: Workload = Workload {
    name: "round-trip-cold",
    about: "the same with a pause of 1 ms before each; the median of 300 round trips",
    figures: &[figure("a trip", Unit::Micros)],
    goals: &[Goal("≤ 1.1× the floor", Test::OfPeer("floor", 1.1))],
    participants: |scale| {
        let trips = scale.of(300);
        let mut all = all_peers(super::WORKERS, Cold { trips });
        let floor = move || vec![Some(median(floor::trips(trips, Some(PAUSE))))];
        all.push(Participant::new("floor", floor));
        all
    },
    ..DEFAULT
};

const PAUSE: Duration = Duration::from_millis(1);

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

/// Returns the microseconds per round trip over `trips` consecutive round trips.
pub(super) fn hot<P: Peer>(pool: &P, trips: usize) -> f64 {
    let (elapsed, ()) = timed(|| {
        for i in 0..trips {
            assert_eq!(pool.call(move || i), i);
        }
    });
    elapsed.as_secs_f64() * 1e6 / trips as f64
}

/// Returns the median microseconds of `trips` round trips, each after a pause.
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

fn mean(times: Vec<Duration>) -> f64 {
    times.iter().sum::<Duration>().as_secs_f64() * 1e6 / times.len() as f64
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
}
