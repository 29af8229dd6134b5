//! Hours of everything at once, on several pools, with faults put in on purpose and every promise checked all along.
//!
//! ```text
//! cargo run --release --example soak -- --seconds 3600 [--seed S]
//!
//! --seconds N    how long it runs (default: 10)
//! --seed S       what the drivers draw their choices from (default: the clock; it is printed)
//! ```
//!
//! Driver threads submit jobs and wait for them in most ways there are. Again and again they all
//! stop, until nothing is under way: at such a quiet moment all counts have to add up.
//!
//! Meanwhile threads are unparked for nothing.
//!
//! It prints a line each second, and a verdict. The exit status is 1 as soon as a promise is broken, or if a driver gets
//! nowhere for 30 seconds; wrong arguments are status 2.

// From what uses all the others to what uses none.
mod cargo;
mod collect;
mod count;
mod drivers;
mod heap;
mod memory;
mod random;
mod site;
mod steps;
mod trace;
mod unparks;

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::SystemTime;
use std::{panic, process};

use cargo::Fault;
use count::totals;
use drivers::Soak;
use memory::judge;
use random::mix;

/// Of the names of all threads of our pools. Those of others begin by that of the program, if they have none of their own.
const PREFIX: &str = "job-";

static SEED: AtomicU64 = AtomicU64::new(0);

fn main() {
    let (seconds, seed) = options().unwrap_or_else(|error| {
        eprintln!("soak: {error}\nUsage: soak [--seconds N] [--seed S]");
        process::exit(2)
    });
    SEED.store(seed, SeqCst);
    println!("seed {seed}, {seconds} seconds");
    exit_at_foreign_panics();
    judge(&Soak::new().run(seconds, seed));
    println!("totals: {}, seed {seed}", totals());
    println!("verdict: every promise was kept");
}

fn options() -> Result<(u64, u64), lexopt::Error> {
    use lexopt::prelude::*;

    let clock = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let (mut seconds, mut seed) = (10, mix(clock.as_nanos() as u64));
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("seconds") => seconds = arguments.value()?.parse()?,
            Long("seed") => seed = arguments.value()?.parse()?,
            _ => return Err(argument.unexpected()),
        }
    }
    Ok((seconds, seed))
}

/// Any other panic, in whatever thread, is a broken promise: this program checks by `assert!`.
fn exit_at_foreign_panics() {
    let default = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !info.payload().is::<Fault>() {
            default(info);
            println!("totals: {}", totals());
            println!("verdict: FAILED (seed {}): {info}", SEED.load(SeqCst));
            process::exit(1);
        }
    }));
}
