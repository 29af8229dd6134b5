//! A stress test: random jobs on several pools, with injected faults and every outcome checked.
//!
//! ```text
//! cargo run --release --manifest-path tests/soak/Cargo.toml -- --seconds 3600
//! ```
//!
//! Driver threads submit jobs and wait for them in most ways that the crate has, while another
//! thread causes spurious unparks. A round takes less than a second. At its end all drivers wait
//! until no job exists; at such a quiet moment all counts must add up.
//!
//! The program prints a line each second, and the result. The exit status is 1 as soon as a check
//! fails, or if a driver makes no progress for 30 seconds. Wrong arguments are status 2.

mod count;
mod drivers;
mod heap;
mod join;
mod memory;
mod random;
mod record;
mod steps;
mod tested_pool;
mod tracked;
mod unparks;

use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::SystemTime;
use std::{panic, process};

use count::totals;
use drivers::Soak;
use memory::check_memory;
use random::mix;
use tracked::InjectedPanic;

const USAGE: &str = "\
Usage: soak [--seconds N] [--seed S]

--seconds N    how long it runs (default: 10)
--seed S       seed of the random choices (default: from the clock; it is printed)
--help         print this text
";

/// The prefix of the names of all worker threads.
const THREAD_PREFIX: &str = "job-";

static SEED: AtomicU64 = AtomicU64::new(0);

fn main() {
    let Options { seconds, seed } = Options::parse().unwrap_or_else(|error| {
        eprint!("soak: {error}\n{USAGE}");
        process::exit(2)
    });
    SEED.store(seed, SeqCst);
    println!("seed {seed}, {seconds} seconds");
    exit_on_unexpected_panic();
    check_memory(&Soak::new().run(seconds.get(), seed));
    println!("totals: {}, seed {seed}", totals());
    println!("result: passed");
}

struct Options {
    seconds: NonZero<u64>,
    seed: u64,
}

impl Options {
    fn parse() -> Result<Self, lexopt::Error> {
        use lexopt::prelude::*;

        let clock = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let mut options = Self {
            seconds: NonZero::new(10).expect("10 is not 0"),
            seed: mix(clock.as_nanos() as u64),
        };
        let mut arguments = lexopt::Parser::from_env();
        while let Some(argument) = arguments.next()? {
            match argument {
                Short('h') | Long("help") => {
                    print!("{USAGE}");
                    process::exit(0);
                }
                Long("seconds") => {
                    let value = arguments.value()?;
                    options.seconds = value
                        .parse()
                        .map_err(|_| "--seconds takes a number of seconds, at least 1")?;
                }
                Long("seed") => options.seed = arguments.value()?.parse()?,
                _ => return Err(argument.unexpected()),
            }
        }
        Ok(options)
    }
}

/// Ends the process with status 1 at any panic that was not injected.
///
/// The program checks by `assert!`, so such a panic, in whatever thread, is a failed check.
fn exit_on_unexpected_panic() {
    let default = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !info.payload().is::<InjectedPanic>() {
            default(info);
            println!("totals: {}", totals());
            println!("result: FAILED (seed {}): {info}", SEED.load(SeqCst));
            process::exit(1);
        }
    }));
}
