//! The workloads, each with its figures. `targets` holds the goals.

mod as_completed;
mod burst;
mod cancel;
mod crowd;
mod grain;
mod heap;
mod idle;
mod languages;
mod many_idle;
mod map;
mod nested;
mod producers;
mod round_trip;
mod round_trip_async;
mod sleepers;
mod ten_thousand;

use std::time::{Duration, Instant};

use crate::participant::{Participant, Scale};
use crate::placement::Placement;

/// The number of workers in most workloads.
const WORKERS: usize = 2;

pub struct Workload {
    pub name: &'static str,
    pub about: &'static str,
    pub workers: usize,
    /// The first figure is the one that ranks the peers.
    pub figures: &'static [Figure],
    /// Returns the participants. Building a pool is left to the first round of each.
    pub participants: fn(Scale) -> Vec<Participant>,
    pub placement: Placement,
    /// If `Some(rounds)`, each peer runs each of its rounds in its own process. Otherwise all
    /// peers share one process.
    pub own_process_rounds: Option<usize>,
    /// The binary that runs the workload.
    pub program: &'static str,
}

#[derive(Clone, Copy, Debug)]
pub struct Figure {
    pub name: &'static str,
    pub unit: Unit,
}

#[derive(Clone, Copy, Debug)]
pub enum Unit {
    Nanos,
    Micros,
    Millis,
    Seconds,
    /// A ratio.
    Times,
    Count,
    Bytes,
    Kibibytes,
    Megabytes,
    YesNo,
    /// Nanoseconds each, shown as a rate.
    EachSecond,
    /// Nanoseconds a byte, shown as a rate.
    GigabytesEachSecond,
}

impl Unit {
    /// Returns whether a smaller value is shown as a larger one.
    pub fn is_rate(self) -> bool {
        matches!(self, Unit::EachSecond | Unit::GigabytesEachSecond)
    }
}

pub(crate) const fn figure(name: &'static str, unit: Unit) -> Figure {
    Figure { name, unit }
}

/// The values that most workloads share.
pub(crate) const DEFAULT: Workload = Workload {
    name: "",
    about: "",
    workers: WORKERS,
    figures: &[figure("a job", Unit::Nanos)],
    participants: |_| Vec::new(),
    placement: Placement::Free,
    own_process_rounds: None,
    program: "peers",
};

pub const ALL: [&Workload; 29] = [
    &burst::WORKLOAD,
    &producers::WORKLOAD,
    &nested::WORKLOAD,
    &as_completed::WORKLOAD,
    &round_trip::HOT_APART,
    &round_trip::HOT_SAME,
    &round_trip::COLD_APART,
    &round_trip::COLD_SAME,
    &round_trip_async::APART,
    &round_trip_async::SAME,
    &round_trip_async::EIGHT_TASKS,
    &round_trip_async::MANY_TASKS,
    &round_trip_async::SMOL,
    &grain::ONE_MICRO,
    &grain::TEN_MICROS,
    &map::ONE_NANO,
    &map::HUNDRED_NANOS,
    &map::ONE_MICRO,
    &map::TEN_MICROS,
    &map::ONE_MILLI,
    &map::TEN_MILLION,
    &crowd::WORKLOAD,
    &sleepers::WORKLOAD,
    &many_idle::WORKLOAD,
    &ten_thousand::WORKLOAD,
    &heap::WORKLOAD,
    &cancel::WORKLOAD,
    &idle::WORKLOAD,
    &languages::WORKLOAD,
];

pub fn named(name: &str) -> Option<&'static Workload> {
    let all = ALL.into_iter();
    #[cfg(feature = "processes")]
    let all = all.chain(crate::processes::ALL);
    all.into_iter().find(|workload| workload.name == name)
}

/// Returns the nanoseconds per job.
pub(crate) fn nanos_each(elapsed: Duration, count: u64) -> Option<f64> {
    Some(elapsed.as_secs_f64() * 1e9 / count as f64)
}

/// Runs `work`. Returns its duration and its output.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let output = work();
    (start.elapsed(), output)
}

/// Returns the sum of all outputs.
///
/// Every pool is awaited in this way, so the compiler cannot remove any result.
async fn sum<H: Future<Output = u64>>(handles: Vec<H>) -> u64 {
    let mut sum = 0;
    for handle in handles {
        sum += handle.await;
    }
    sum
}

/// Returns the sum of `0..count`.
pub(crate) fn sum_below(count: u64) -> u64 {
    count * (count - 1) / 2
}
