use std::thread;
use std::time::Duration;

use super::{USUAL, Unit, Workload, figure, timed};
use crate::contest::{Contestant, Measure, all_peers};
use crate::floor;
use crate::peers::Peer;
use crate::result::Sample;
use crate::targets::{Goal, Test};

pub(super) const HOT: Workload = Workload {
    name: "round-trip-hot",
    about: "submit and join, in a tight loop; the mean of 5,000",
    figures: &[figure("a trip", Unit::Micros)],
    goals: &[Goal("≤ 0.5× the floor", Test::OfPeer("floor", 0.5))],
    contestants: |scale| {
        let trips = scale.of(5_000);
        let mut all = all_peers(super::WORKERS, Hot { trips });
        let floor = move || vec![Some(mean(floor::trips(trips, None)))];
        all.push(Contestant::new("floor", floor));
        all
    },
    ..USUAL
};

pub(super) const COLD: Workload = Workload {
    name: "round-trip-cold",
    about: "the same after a rest of 1 ms before each; the median of 300",
    figures: &[figure("a trip", Unit::Micros)],
    goals: &[Goal("≤ 1.1× the floor", Test::OfPeer("floor", 1.1))],
    contestants: |scale| {
        let trips = scale.of(300);
        let mut all = all_peers(super::WORKERS, Cold { trips });
        let floor = move || vec![Some(median(floor::trips(trips, Some(REST))))];
        all.push(Contestant::new("floor", floor));
        all
    },
    ..USUAL
};

const REST: Duration = Duration::from_millis(1);

#[derive(Clone)]
struct Hot {
    trips: usize,
}

impl Measure for Hot {
    fn take<P: Peer>(&self, pool: &P) -> Sample {
        vec![Some(hot(pool, self.trips))]
    }
}

#[derive(Clone)]
struct Cold {
    trips: usize,
}

impl Measure for Cold {
    fn take<P: Peer>(&self, pool: &P) -> Sample {
        vec![Some(cold(pool, self.trips))]
    }
}

/// The microseconds of one of so many trips without a rest.
pub(super) fn hot<P: Peer>(pool: &P, trips: usize) -> f64 {
    let (elapsed, ()) = timed(|| {
        for i in 0..trips {
            assert_eq!(pool.call(move || i), i);
        }
    });
    elapsed.as_secs_f64() * 1e6 / trips as f64
}

/// The microseconds of one of so many trips, each after a rest. The median, because a rest invites everybody else.
pub(super) fn cold<P: Peer>(pool: &P, trips: usize) -> f64 {
    let times = (0..trips).map(|i| {
        thread::sleep(REST);
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
