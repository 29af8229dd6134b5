//! Compares futurepool with other thread pools, on the same work.
//!
//! ```sh
//! cargo run --release --manifest-path benches/peers/Cargo.toml              # all: at most ten minutes on two cores
//! cargo run --release --manifest-path benches/peers/Cargo.toml -- --quick   # at most a minute; shows that it runs
//! … -- --workload burst,producers --peer tokio,rayon --json peers.json --svg peers.svg
//! ```
//!
//! # How it measures
//!
//! Each workload has a process of its own, in which all pools take turns, round after round (A B C A B C …): what
//! disturbs the machine for a while disturbs all of them. Of each figure it prints the least and the median of the
//! rounds, and how many times ours the least is; and whether what is wanted of ours was met **in this run**. Only ratios
//! of one run mean anything, and a single run proves nothing. The head and the end tell the mood of the machine by a trip
//! of `park` and `unpark`: on a quiet one waking a core is dear, and whoever looks before it sleeps wins much.
//!
//! A peer that panics, hangs or brings its process down has failed in that workload, and the rest goes on.
//!
//! # What is the same for all
//!
//! - Each pool is called through the same trait, with static dispatch, and without a box that it does not need itself.
//! - Handles are awaited in one `pollster::block_on`; a round trip is joined in the best way that the pool has.
//! - All workers have started, and are idle, before the clock starts.
//! - The results of all jobs are checked.
//!
//! `rayon`, `threadpool` and `crossbeam` (threads round a channel of closures, written by hand) have no handles, and get
//! them from a `oneshot` channel. `affinitypool` starts 512 threads at most, and the table says so where that matters.
//! `blocking` has one pool for the process, whose size is set from outside.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use futurepool_peers::arguments::{Comparison, HELP, Wish, parse};
use futurepool_peers::machine::Machine;
use futurepool_peers::result::Run;
use futurepool_peers::{chart, child, parent, peers, table, workloads};

fn main() -> ExitCode {
    let outcome = match parse(lexopt::Parser::from_env()) {
        Ok(Wish::BeChild(workload, orders)) => child::run(workload, &orders),
        Ok(Wish::Compare(comparison)) => compare(&comparison),
        Ok(Wish::Help) => {
            print!("{HELP}");
            Ok(())
        }
        Ok(Wish::List) => {
            list();
            Ok(())
        }
        Err(error) => Err(error.to_string()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn compare(comparison: &Comparison) -> Result<(), String> {
    let mut machine = Machine::look();
    println!("{}, {} cores", machine.processor, machine.cores);
    let versions = machine.versions.iter();
    let versions: Vec<_> = versions.map(|(name, of)| format!("{name} {of}")).collect();
    println!("{}", versions.join(", "));
    println!("at the start: {}", machine.feel());
    let mut outcomes = Vec::new();
    for workload in &comparison.workloads {
        let outcome = parent::take(workload, comparison);
        table::print(workload, &outcome);
        outcomes.push(outcome);
    }
    println!("\nat the end: {}", machine.feel());
    let run = Run {
        machine,
        quick: comparison.scale.quick,
        workloads: outcomes,
    };
    if let Some(file) = &comparison.json {
        let json = serde_json::to_string_pretty(&run).map_err(|error| error.to_string())?;
        write(file, &json)?;
    }
    if let Some(file) = &comparison.svg {
        write(file, &chart::draw(&run))?;
    }
    Ok(())
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
}

fn list() {
    println!("workloads:");
    for workload in workloads::ALL {
        println!("  {:<18}{}", workload.name, workload.about);
    }
    println!("peers:\n  {}", peers::NAMES.join(", "));
}
