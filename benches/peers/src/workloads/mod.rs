//! The workloads, one a file, each with what it measures and what is wanted of us.

mod as_completed;
mod burst;
mod cancel;
mod crowd;
mod grain;
mod heap;
mod idle;
mod many_idle;
mod map;
mod nested;
mod producers;
mod python;
mod round_trip;
mod round_trip_async;
mod sleepers;
mod ten_thousand;

use std::time::{Duration, Instant};

use crate::contest::{Contestant, Scale};
use crate::targets::Goal;

/// Most have two workers.
const WORKERS: usize = 2;

pub struct Workload {
    pub name: &'static str,
    pub about: &'static str,
    pub workers: usize,
    /// The first one is what peers are compared by.
    pub figures: &'static [Figure],
    pub goals: &'static [Goal],
    pub contestants: fn(Scale) -> Vec<Contestant>,
    /// So many rounds, each peer each time in a process of its own. Else all share one.
    pub apart: Option<usize>,
    /// The binary that takes it.
    pub program: &'static str,
}

#[derive(Clone, Copy)]
pub struct Figure {
    pub name: &'static str,
    pub unit: Unit,
}

#[derive(Clone, Copy)]
pub enum Unit {
    Nanos,
    Micros,
    Millis,
    Seconds,
    /// How many times something else.
    Times,
    Count,
    Bytes,
    Kibibytes,
    YesNo,
}

const fn figure(name: &'static str, unit: Unit) -> Figure {
    Figure { name, unit }
}

/// What most are like.
const USUAL: Workload = Workload {
    name: "",
    about: "",
    workers: WORKERS,
    figures: &[figure("a job", Unit::Nanos)],
    goals: &[],
    contestants: |_| Vec::new(),
    apart: None,
    program: "peers",
};

pub const ALL: [&Workload; 18] = [
    &burst::WORKLOAD,
    &producers::WORKLOAD,
    &nested::WORKLOAD,
    &as_completed::WORKLOAD,
    &round_trip::HOT,
    &round_trip::COLD,
    &round_trip_async::WORKLOAD,
    &grain::ONE_MICRO,
    &grain::TEN_MICROS,
    &crowd::WORKLOAD,
    &sleepers::WORKLOAD,
    &many_idle::WORKLOAD,
    &ten_thousand::WORKLOAD,
    &heap::WORKLOAD,
    &cancel::WORKLOAD,
    &idle::WORKLOAD,
    &map::WORKLOAD,
    &python::WORKLOAD,
];

pub fn named(name: &str) -> Option<&'static Workload> {
    ALL.into_iter().find(|workload| workload.name == name)
}

/// The nanoseconds of one of so many.
fn nanos_each(elapsed: Duration, count: u64) -> Option<f64> {
    Some(elapsed.as_secs_f64() * 1e9 / count as f64)
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let output = work();
    (start.elapsed(), output)
}

/// The sum of all outputs. Everybody is awaited in this way, so that nobody's results are optimised away.
async fn sum<H: Future<Output = u64>>(handles: Vec<H>) -> u64 {
    let mut sum = 0;
    for handle in handles {
        sum += handle.await;
    }
    sum
}

/// What the sum of `0..count` must be.
fn sum_below(count: u64) -> u64 {
    count * (count - 1) / 2
}
