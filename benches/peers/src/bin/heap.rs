//! The child process of the workload `heap`, with a counting allocator.

use std::alloc::System;
use std::process::ExitCode;

use futurepool_peers::arguments::{Action, THREADS, parse};
use futurepool_peers::child;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() -> ExitCode {
    match parse(&THREADS, lexopt::Parser::from_env()) {
        Ok(Action::RunChild(workload, options)) => child::run(workload, &options),
        _ => {
            eprintln!("`peers` starts this program; do not run it directly.");
            ExitCode::from(2)
        }
    }
}
