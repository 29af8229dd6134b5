//! What `peers` starts for the workload `heap`: the same, with an allocator that counts.

use std::alloc::System;
use std::process::ExitCode;

use futurepool_peers::arguments::{Wish, parse};
use futurepool_peers::child;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() -> ExitCode {
    match parse(lexopt::Parser::from_env()) {
        Ok(Wish::BeChild(workload, orders)) => child::run(workload, &orders),
        _ => {
            eprintln!("This is a part of the program `peers`, which starts it.");
            ExitCode::from(2)
        }
    }
}
