//! Prints the tables.

use crate::peers::{Futurepool, Peer};
use crate::result::{Outcome, PeerResult};
use crate::workloads::{Unit, Workload};

pub fn print(workload: &Workload, outcome: &Outcome) {
    println!("\n{}: {}", workload.name, workload.about);
    let (first, more) = workload
        .figures
        .split_first()
        .expect("a workload has a figure");
    print!("  {:<16}{:>11}{:>11}", first.name, "min", "median");
    print!("{:>9}{:>8}", "× ours", "rounds");
    more.iter()
        .for_each(|figure| print!("  {:>width$}", figure.name, width = width(figure.name)));
    println!();
    let ours = outcome.of(Futurepool::NAME).and_then(|ours| ours.min(0));
    for result in &outcome.peers {
        print_one(workload, result, ours);
    }
    for verdict in &outcome.verdicts {
        let met = match verdict.met {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "not evaluated",
        };
        println!("  target: {}: {met} ({})", verdict.goal, verdict.because);
    }
}

fn print_one(workload: &Workload, result: &PeerResult, ours: Option<f64>) {
    let cell =
        |value: Option<f64>, unit| value.map_or("–".to_owned(), |value| shown(value, unit));
    print!("  {:<16}", result.peer);
    if !result.rounds.is_empty() {
        let unit = workload.figures[0].unit;
        let (min, median) = (result.min(0), result.median(0));
        let ratio = min.zip(ours).map(|(min, ours)| min / ours);
        let ratio = ratio.filter(|ratio| ratio.is_finite());
        print!("{:>11}{:>11}", cell(min, unit), cell(median, unit));
        print!("{:>9}{:>8}", cell(ratio, Unit::Times), result.rounds.len());
        for (index, figure) in workload.figures.iter().enumerate().skip(1) {
            let value = cell(result.min(index), figure.unit);
            print!("  {value:>width$}", width = width(figure.name));
        }
    }
    if let Some(reason) = &result.failed {
        print!("  failed: {reason}");
    }
    if let Some(note) = &result.note {
        print!("  ({note})");
    }
    println!();
}

fn width(name: &str) -> usize {
    name.chars().count().max(10)
}

/// Formats a figure with its unit.
pub fn shown(value: f64, unit: Unit) -> String {
    let (digits, suffix) = match unit {
        Unit::Nanos => (0, " ns"),
        Unit::Micros => (2, " µs"),
        Unit::Millis => (2, " ms"),
        Unit::Seconds => (3, " s"),
        Unit::Times => (2, "×"),
        Unit::Count => (2, ""),
        Unit::Bytes => (0, " B"),
        Unit::Kibibytes => (1, " KiB"),
        Unit::YesNo if value == 1.0 => return "yes".to_owned(),
        Unit::YesNo => return "no".to_owned(),
    };
    // A small value gets one decimal.
    let digits = if digits == 0 && value < 10.0 {
        1
    } else {
        digits
    };
    format!("{value:.digits$}{suffix}")
}
