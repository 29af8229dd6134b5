//! Measures each operation of futurepool by itself, to show which of them a change makes slower.
//!
//! `benches/peers` compares futurepool with other pools.
//!
//! ```sh
//! # All benchmarks, in less than a minute on two cores after the build:
//! cargo bench --manifest-path benches/micro/Cargo.toml
//! # Runs each benchmark once, unmeasured:
//! cargo bench --manifest-path benches/micro/Cargo.toml -- --test
//! # Runs the benchmarks with `submit` in their name:
//! cargo bench --manifest-path benches/micro/Cargo.toml -- submit
//! # Compares two versions: the first command before the change, the second after it.
//! … -- --save-baseline before
//! … -- --baseline before
//! ```
//!
//! # How to read the results
//!
//! Some benchmarks run in one thread, or with all workers blocked: `submit`, `try_submit`,
//! `cancel`, `in_worker` and those named `done`. These vary least. On two virtual cores under
//! other load, runs of the same code differed by up to 30 %.
//!
//! The other benchmarks pass work between threads, so they also measure the wake-ups of the
//! machine. Criterion's `change` and its `p` do not account for this variation. Trust a
//! difference only if:
//!
//! - it is larger than this variation, and
//! - it recurs when both versions run alternately.
//!
//! Every benchmark checks the results of its calls, inside the measured part where that is cheap.

mod blocked;
mod in_worker;
mod many;
mod options;
mod queue;
mod scope;
mod timed;
mod trip;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

/// The number of workers of a pool, unless a benchmark says otherwise.
const WORKERS: usize = 2;

criterion_group! {
    name = micro;
    config = Criterion::default()
        .sample_size(40)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = queue::all, trip::all, in_worker::all, many::all, options::all, scope::all
}
criterion_main!(micro);
