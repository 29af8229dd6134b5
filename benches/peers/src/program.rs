//! What the programs that compare pools have in common.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use crate::arguments::{Action, Comparison, Suite, parse};
use crate::machine::Machine;
use crate::result::Run;
use crate::{chart, child, parent, table};

/// Does what the command line says: compares the pools of `suite`, or is a child of that.
pub fn run(suite: &Suite) -> ExitCode {
    let outcome = match parse(suite, lexopt::Parser::from_env()) {
        Ok(Action::RunChild(workload, options)) => child::run(workload, &options),
        Ok(Action::Compare(comparison)) => compare(suite, &comparison),
        Ok(Action::Help) => {
            print!("{}", suite.help());
            Ok(())
        }
        Ok(Action::List) => {
            list(suite);
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

fn compare(suite: &Suite, comparison: &Comparison) -> Result<(), String> {
    (suite.prepare)()?;
    let mut machine = Machine::detect(suite.peers);
    println!("{}, {} cores", machine.processor, machine.cores);
    let versions = machine.versions.iter();
    let versions: Vec<_> = versions
        .map(|(name, version)| format!("{name} {version}"))
        .collect();
    println!("{}", versions.join(", "));
    println!("at the start: {}", machine.measure_floor());
    let mut outcomes = Vec::new();
    for workload in &comparison.workloads {
        let outcome = parent::run_workload(workload, comparison);
        table::print(workload, &outcome);
        outcomes.push(outcome);
    }
    println!("\nat the end: {}", machine.measure_floor());
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
    if let Some(file) = &comparison.svg_short {
        write(file, &chart::draw_short(&run))?;
    }
    Ok(())
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
}

fn list(suite: &Suite) {
    println!("workloads:");
    for workload in suite.workloads {
        println!("  {:<24}{}", workload.name, workload.about);
    }
    println!("peers:\n  {}", suite.peers.join(", "));
}
