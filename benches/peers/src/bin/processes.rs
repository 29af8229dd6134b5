//! Compares futurepool's pool of worker processes with others on the same workloads.
//!
//! ```sh
//! cargo run --release --manifest-path benches/peers/Cargo.toml --features processes --bin processes
//! … -- --quick              # a smoke test of at most a minute
//! … -- --install            # installs loky and pebble beside the program, with pip, and ends
//! PYTHON=python3.13 … -- --install
//! ```
//!
//! It measures as `peers` does: each workload in a process of its own, the participants in
//! alternating rounds, ratios within a round. A figure is the best, the median and the worst round.
//!
//! The peers are `procspawn` and three pools of Python: the standard `ProcessPoolExecutor`, `loky`
//! and `pebble`. The pools of Python are measured by a program of their own, which keeps its pool
//! from round to round. A row whose pool is missing says so, and stays empty.
//!
//! # Floors
//!
//! - *floor*: one byte there and back between two processes over a socket pair, in the trips.
//! - *bare socket*: the bytes there and back in the same way, with buffers that exist already.
//! - *empty program*: spawn and wait of a program that does nothing, beside the cold start.
//!
//! The trips are pinned on Linux. *same*: all processes on one processor. *apart*: the worker, or the
//! other end of the floor, on one processor, and all threads of its parent on another.

use std::process::ExitCode;

use futurepool_peers::processes;

fn main() -> ExitCode {
    // A worker of either pool runs its jobs there, and does not return.
    procspawn::init();
    futurepool::process::init_tasks(processes::tasks::all());
    processes::main()
}
