//! Prints the tables.

use crate::peers::{Futurepool, Peer};
use crate::result::{Outcome, PeerResult};
use crate::workloads::{Unit, Workload};

pub fn print(workload: &Workload, outcome: &Outcome) {
    println!("\n{}: {}", workload.name, workload.about);
    for (index, figure) in workload.figures.iter().enumerate() {
        print!(
            "  {:<20}{:>12}{:>12}{:>12}",
            figure.name, "best", "median", "worst"
        );
        println!("{:>9}{:>8}", "× ours", "rounds");
        for result in &outcome.peers {
            print_row(outcome, result, index, figure.unit);
        }
    }
    for result in &outcome.peers {
        let failed = result.failed.as_ref().map(|why| format!("failed: {why}"));
        for remark in failed.iter().chain(&result.note) {
            println!("  {}: {remark}", result.peer);
        }
    }
    for verdict in &outcome.verdicts {
        let met = match verdict.met {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "not evaluated",
        };
        println!("  goal: {}: {met} ({})", verdict.goal, verdict.because);
    }
}

fn print_row(outcome: &Outcome, result: &PeerResult, figure: usize, unit: Unit) {
    let cell =
        |value: Option<f64>, unit| value.map_or("–".to_owned(), |value| shown(value, unit));
    print!("  {:<20}", result.peer);
    print!("{:>12}", cell(result.min(figure), unit));
    print!("{:>12}", cell(result.median(figure), unit));
    print!("{:>12}", cell(result.max(figure), unit));
    let ratio = outcome.ratio(&result.peer, Futurepool::NAME, figure);
    println!("{:>9}{:>8}", cell(ratio, Unit::Times), result.rounds.len());
}

/// Formats a figure with its unit.
pub fn shown(value: f64, unit: Unit) -> String {
    let (value, unit) = match unit {
        Unit::EachSecond => (1e9 / value, unit),
        Unit::GigabytesEachSecond => (1.0 / value, unit),
        Unit::Nanos if value >= 1e6 => (value / 1e6, Unit::Millis),
        Unit::Nanos if value >= 1e4 => (value / 1e3, Unit::Micros),
        unit => (value, unit),
    };
    let (digits, suffix) = match unit {
        Unit::Nanos => (0, " ns"),
        Unit::Micros => (1, " µs"),
        Unit::Millis => (2, " ms"),
        Unit::Seconds => (3, " s"),
        Unit::Times if value < 0.1 => (3, "×"),
        Unit::Times => (2, "×"),
        Unit::Count => (2, ""),
        Unit::Bytes => (0, " B"),
        Unit::Kibibytes => (1, " KiB"),
        Unit::Megabytes => (0, " MB"),
        Unit::YesNo if value == 1.0 => return "yes".to_owned(),
        Unit::YesNo => return "no".to_owned(),
        Unit::EachSecond => return format!("{}/s", with_commas(value)),
        Unit::GigabytesEachSecond => (2, " GB/s"),
    };
    // A small value gets one decimal.
    let digits = if digits == 0 && value < 10.0 {
        1
    } else {
        digits
    };
    format!("{value:.digits$}{suffix}")
}

/// Formats a whole number with a comma after each three digits.
fn with_commas(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_as_a_rate() {
        assert_eq!(shown(20_000.0, Unit::EachSecond), "50,000/s");
        assert_eq!(shown(812.0, Unit::EachSecond), "1,231,527/s");
        assert_eq!(shown(2e6, Unit::EachSecond), "500/s");
        assert_eq!(shown(0.5, Unit::GigabytesEachSecond), "2.00 GB/s");
    }

    #[test]
    fn a_long_time_gets_a_larger_unit() {
        assert_eq!(shown(9.4, Unit::Nanos), "9.4 ns");
        assert_eq!(shown(12_340.0, Unit::Nanos), "12.3 µs");
        assert_eq!(shown(2_500_000.0, Unit::Nanos), "2.50 ms");
    }
}
