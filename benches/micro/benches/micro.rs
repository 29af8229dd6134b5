//! What each operation of futurepool costs by itself, to see what a change in the crate makes slower.
//! `benches/peers` is another thing: it compares with other pools.
//!
//! ```sh
//! cargo bench --manifest-path benches/micro/Cargo.toml               # all: under a minute on two cores, once built
//! cargo bench --manifest-path benches/micro/Cargo.toml -- --test     # each once, unmeasured: shows that they run
//! cargo bench --manifest-path benches/micro/Cargo.toml -- submit     # those that have `submit` in their name
//! … -- --save-baseline before                                        # once before the change,
//! … -- --baseline before                                             # and then after it: prints the differences
//! ```
//!
//! # How to read it
//!
//! Some run in one thread, or with all workers blocked: `submit`, `try_submit`, `cancel`, `in_worker`, and those of
//! handles that are `done`. They vary least: between runs of the same code, on two virtual cores that had other work to
//! do, by up to 30 %. The others hand work from thread to thread, and so measure the machine's wake-ups as well. The
//! `change` that criterion prints, and its `p`, know nothing of that: believe a difference that is larger, and that
//! comes again when both sides are run in turn.
//!
//! Every one checks the results of what it calls, inside the measured part where that is cheap.

mod blocked;
mod in_worker;
mod many;
mod queue;
mod scope;
mod timed;
mod trip;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

/// How many threads the pools have, where it says nothing else.
const WORKERS: usize = 2;

criterion_group! {
    name = micro;
    config = Criterion::default()
        .sample_size(40)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = queue::all, trip::all, in_worker::all, many::all, scope::all
}
criterion_main!(micro);
