//! The protocol against a network and peers that fail, in virtual time.
//!
//! ```text
//!   world ── submits, cancels, kills, stops, cuts off, restarts, rolls back: all from a seed
//!     ├─ Pausable(submitter core) ─┐
//!     ├─ Pausable(worker core)    ─┼─► Memory with faults
//!     │     └─ SimulatedRunner     ┘
//!     └─ judge   what starts, ends and resolves; what must hold of it
//! ```
//!
//! The cores are the real ones. A seed replays exactly. `FUTUREPOOL_SEEDS=n` runs so many seeds,
//! `FUTUREPOOL_SEED=x` one of them, with its trace.

mod client;
mod judge;
mod pausable;
mod runner;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use self::judge::Counts;
use crate::broker::memory::faults::{start_trace, take_trace};

/// Histories of a run without a wish.
const SEEDS: u64 = if cfg!(debug_assertions) { 500 } else { 5000 };

/// Lines of the trace of a violation.
const TAIL: usize = 400;

/// Runs the history of a seed. Returns what happened, or what was violated.
fn history(seed: u64) -> Result<Counts, Vec<String>> {
    let result = catch_unwind(AssertUnwindSafe(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime of this thread needs nothing");
        let local = tokio::task::LocalSet::new();
        let result = local.block_on(&runtime, world::run(seed));
        let _context = runtime.enter();
        drop(local);
        result
    }));
    runner::set_judge(None);
    match result {
        Ok((counts, violations)) if violations.is_empty() => Ok(counts),
        Ok((_, violations)) => Err(violations),
        Err(payload) => {
            let text = payload.downcast_ref::<String>().cloned();
            let text = text.or_else(|| payload.downcast_ref::<&str>().map(|&text| text.to_owned()));
            Err(vec![format!("panic: {}", text.unwrap_or_default())])
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs a seed again and prints the end of its trace.
fn show(seed: u64, tail: usize) -> Result<Counts, Vec<String>> {
    start_trace(tail);
    let result = history(seed);
    for line in take_trace() {
        eprintln!("{line}");
    }
    result
}

#[test]
fn c1_to_c8_hold_in_random_histories() {
    if let Some(seed) = number("FUTUREPOOL_SEED") {
        let result = show(seed, 1_000_000);
        panic!("seed {seed}: {result:#?}");
    }
    let seeds = number("FUTUREPOOL_SEEDS").unwrap_or(SEEDS);
    let first = number("FUTUREPOOL_FIRST").unwrap_or(0);
    let next = AtomicU64::new(first);
    let failed = AtomicBool::new(false);
    let go_on = std::env::var_os("FUTUREPOOL_ALL").is_some();
    let (counts, failures) = (Mutex::new(Counts::default()), Mutex::new(Vec::new()));
    let start = std::time::Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds || failed.load(Ordering::Relaxed) {
                        return;
                    }
                    match history(seed) {
                        Ok(some) => {
                            counts
                                .lock()
                                .unwrap_or_else(PoisonError::into_inner)
                                .add(&some);
                        }
                        Err(violations) => {
                            failed.store(!go_on, Ordering::Relaxed);
                            let mut failures =
                                failures.lock().unwrap_or_else(PoisonError::into_inner);
                            failures.push((seed, violations));
                        }
                    }
                }
            });
        }
    });
    let counts = counts.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut failures = failures
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    eprintln!("{seeds} histories in {:?}: {counts:?}", start.elapsed());
    failures.sort_unstable();
    if go_on {
        for (seed, violations) in &failures {
            eprintln!("seed {seed}: {}", violations[0]);
        }
    } else if let Some((seed, _)) = failures.first() {
        let again = show(*seed, TAIL);
        eprintln!(
            "seed {seed} again: {:?}",
            again.map(|_| "no violation: not deterministic")
        );
    }
    assert!(
        failures.is_empty(),
        "{} seeds fail, the first: {:#?}",
        failures.len(),
        failures[0]
    );
}
