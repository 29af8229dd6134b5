//! The tasks that `worker` runs and `submitter` submits. In a project of your own, this is a library
//! that both programs use.

#![allow(unreachable_pub, reason = "it would be a library")]

use std::thread;
use std::time::Duration;

use futurepool::{Tasks, task, tasks};

/// Runs at most once, whatever happens to its worker: charging twice is worse than asking.
#[task(name = "charge")]
pub fn charge(customer: String, cents: u64) -> Result<String, String> {
    match cents {
        0 => Err(format!("there is nothing to charge {customer}")),
        _ => Ok(format!("charged {customer} {cents} cents")),
    }
}

/// Runs again elsewhere if its worker dies: a second run does no harm.
#[task(name = "checksum", idempotent, attempts = 3)]
pub fn checksum(data: Vec<u8>) -> u32 {
    thread::sleep(Duration::from_millis(20)); // some work
    data.iter().map(|&byte| u32::from(byte)).sum()
}

/// The tasks of the worker.
#[allow(dead_code, reason = "the submitter has no use for it")]
pub fn all() -> Tasks {
    tasks![charge, checksum]
}
