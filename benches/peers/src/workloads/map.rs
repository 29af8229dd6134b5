use std::hint::black_box;
use std::sync::OnceLock;
use std::time::Duration;

use futurepool::Map;
use rayon::iter::{IntoParallelIterator, ParallelBridge, ParallelIterator};

use super::{DEFAULT, Unit, WORKERS, Workload, figure, nanos_each, sum_below, timed};
use crate::machine::status;
use crate::participant::Participant;
use crate::peers::{Futurepool, Peer, Rayon, start_workers};
use crate::result::Sample;
use crate::work::Work;

pub(super) const ONE_NANO: Workload = Workload {
    name: "map-1ns",
    about: "multiplies 1,000,000 items, nothing set; rayon: `into_par_iter().map().collect()`",
    participants: |scale| variants(scale.of(1_000_000), || multiply, an_item),
    ..COMMON
};

pub(super) const HUNDRED_NANOS: Workload = Workload {
    name: "map-100ns",
    about: "200,000 items that take 100 ns each; nothing set",
    participants: |scale| pair(scale.of(200_000), || lasting(100e-9)),
    ..COMMON
};

pub(super) const ONE_MICRO: Workload = Workload {
    name: "map-1us",
    about: "100,000 items that take 1 µs each; nothing set",
    participants: |scale| pair(scale.of(100_000), || lasting(1e-6)),
    ..COMMON
};

pub(super) const TEN_MICROS: Workload = Workload {
    name: "map-10us",
    about: "20,000 items that take 10 µs each; nothing set",
    participants: |scale| pair(scale.of(20_000), || lasting(10e-6)),
    ..COMMON
};

pub(super) const ONE_MILLI: Workload = Workload {
    name: "map-1ms",
    about: "300 items that take 1 ms each; nothing set",
    participants: |scale| pair(scale.of(300), || lasting(1e-3)),
    ..COMMON
};

pub(super) const TEN_MILLION: Workload = Workload {
    name: "map-10-million",
    about: "multiplies 10,000,000 items, in a process of its own",
    figures: &[
        figure("all items", Unit::Seconds),
        figure("peak memory", Unit::Megabytes),
    ],
    participants: |scale| variants(scale.of(10_000_000), || multiply, seconds_and_peak),
    own_process_rounds: Some(3),
    ..DEFAULT
};

const COMMON: Workload = Workload {
    figures: &[figure("an item", Unit::Nanos)],
    ..DEFAULT
};

/// Turns the time of a round with that many items into figures.
type Figures = fn(Duration, u64) -> Sample;

fn an_item(elapsed: Duration, items: u64) -> Sample {
    vec![nanos_each(elapsed, items)]
}

fn seconds_and_peak(elapsed: Duration, _items: u64) -> Sample {
    let peak = status("VmHWM").map(|kibibytes| kibibytes * 1024.0 / 1e6);
    vec![Some(elapsed.as_secs_f64()), peak]
}

const BRIDGE: &str = "rayon par_bridge";
const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;

/// Takes about a nanosecond, because the compiler must not work on several items at once.
fn multiply(item: u64) -> u64 {
    black_box(item).wrapping_mul(FACTOR)
}

fn lasting(seconds: f64) -> impl Fn(u64) -> u64 + Send + Sync {
    let work = Work::lasting(seconds);
    move |item| {
        assert_ne!(work.run(item + 1), 0);
        multiply(item)
    }
}

/// Returns futurepool with nothing set, and rayon.
fn pair<F>(items: u64, function: fn() -> F) -> Vec<Participant>
where
    F: Fn(u64) -> u64 + Send + Sync + 'static,
{
    vec![
        ours(Futurepool::NAME, items, function, an_item, |map| map),
        rayon(items, function, an_item),
    ]
}

/// Returns the pair, rayon with any iterator, and futurepool with a fixed chunk or a buffer.
fn variants<F>(items: u64, function: fn() -> F, figures: Figures) -> Vec<Participant>
where
    F: Fn(u64) -> u64 + Send + Sync + 'static,
{
    vec![
        ours(Futurepool::NAME, items, function, figures, |map| map),
        rayon(items, function, figures),
        bridge(items, function, figures),
        ours("chunk_size(1024)", items, function, figures, |map| {
            map.chunk_size(1024)
        }),
        ours("buffer_size(100k)", items, function, figures, |map| {
            map.buffer_size(100_000).chunk_size(5000)
        }),
    ]
}

fn ours<F>(
    name: &str,
    items: u64,
    function: fn() -> F,
    figures: Figures,
    options: fn(Map<'static, u64>) -> Map<'static, u64>,
) -> Participant
where
    F: Fn(u64) -> u64 + Send + Sync + 'static,
{
    participant::<Futurepool, F>(name, items, function, figures, move |pool, function| {
        let results = options(pool.pool().map(0..items, function)).into_iter();
        results.fold(0, |sum: u64, result| {
            sum.wrapping_add(result.expect("the function returned"))
        })
    })
}

fn rayon<F>(items: u64, function: fn() -> F, figures: Figures) -> Participant
where
    F: Fn(u64) -> u64 + Send + Sync + 'static,
{
    participant::<Rayon, F>(
        Rayon::NAME,
        items,
        function,
        figures,
        move |pool, function| {
            let results = || (0..items).into_par_iter().map(function).collect();
            let results: Vec<u64> = pool.pool().install(results);
            results.into_iter().fold(0, u64::wrapping_add)
        },
    )
}

/// Rayon as it takes any iterator, which `map` does, instead of a range that it can split.
fn bridge<F>(items: u64, function: fn() -> F, figures: Figures) -> Participant
where
    F: Fn(u64) -> u64 + Send + Sync + 'static,
{
    participant::<Rayon, F>(BRIDGE, items, function, figures, move |pool, function| {
        let results = || (0..items).par_bridge().map(function).collect();
        let results: Vec<u64> = pool.pool().install(results);
        results.into_iter().fold(0, u64::wrapping_add)
    })
}

/// Returns a participant whose `map` yields the sum of all results.
fn participant<P: Peer, F: 'static>(
    name: &str,
    items: u64,
    function: fn() -> F,
    figures: Figures,
    map: impl Fn(&P, F) -> u64 + Send + Sync + 'static,
) -> Participant {
    let pool = OnceLock::new();
    Participant::new(name, move || {
        let pool = pool.get_or_init(|| {
            let pool = P::new(WORKERS);
            start_workers(&pool, WORKERS);
            pool
        });
        let function = function();
        let (elapsed, sum) = timed(|| map(pool, function));
        assert_eq!(sum, sum_below(items).wrapping_mul(FACTOR));
        figures(elapsed, items)
    })
}
