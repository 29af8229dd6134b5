//! Measures all rows of all participants, in alternating rounds.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::arguments::Comparison;
use crate::machine::Machine;
use crate::participants::{self, Environment, Participant, Scale, Session};
use crate::result::{Measured, Outcome, Report, Sample};
use crate::rows::Row;
use crate::{goals, python, report, server};

const DEFAULT_ROUNDS: usize = 3;

/// Runs a comparison. Returns an error if a participant of futurepool failed.
pub fn compare(comparison: &Comparison) -> Result<(), String> {
    let environment = environment(comparison)?;
    let mut machine = Machine::detect();
    let nats = server::version(&environment.nats)?;
    machine.versions.push(("nats-server".to_owned(), nats));
    let participants = chosen(comparison, &environment, &mut machine);
    let scale = Scale {
        quick: comparison.quick,
    };
    let rounds = comparison.rounds.unwrap_or(match comparison.quick {
        true => 1,
        false => DEFAULT_ROUNDS,
    });
    let mut rows = comparison.rows.clone();
    if comparison.quick {
        // This row exists for its size.
        rows.retain(|row| *row != Row::HundredThousand);
    }
    println!("{machine}");
    let mut outcomes: Vec<_> = rows
        .iter()
        .map(|row| outcome(*row, &participants))
        .filter(|outcome| !outcome.results.is_empty())
        .collect();
    for round in 1..=rounds {
        for participant in &participants {
            println!("round {round}: {}", participant.about.name);
            measure(participant, &environment, scale, &mut outcomes);
        }
    }
    for outcome in &mut outcomes {
        outcome.verdicts = goals::evaluate(outcome);
    }
    let report = Report {
        machine,
        quick: comparison.quick,
        rounds,
        participants: participants.iter().map(|one| one.about).collect(),
        outcomes,
    };
    print!("{}", report::text(&report));
    if let Some(path) = &comparison.markdown {
        write(path, report::markdown(&report))?;
    }
    if let Some(path) = &comparison.json {
        let json = serde_json::to_string_pretty(&report).map_err(|error| error.to_string())?;
        write(path, json)?;
    }
    check(&report, &participants)
}

/// A run in which futurepool or the floor failed is no success; one without a peer is.
fn check(report: &Report, participants: &[Participant]) -> Result<(), String> {
    for outcome in &report.outcomes {
        for participant in participants {
            let name = participant.about.name;
            let failed = outcome.of(name).and_then(|result| result.failed.as_ref());
            if let Some(error) = failed
                && participant.family.package().is_none()
            {
                return Err(format!("{}: {name}: {error}", outcome.row.name()));
            }
        }
    }
    Ok(())
}

fn write(path: &Path, text: String) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

fn environment(comparison: &Comparison) -> Result<Environment, String> {
    let python = match &comparison.python {
        Some(python) => python.clone(),
        None => python::default_environment()?,
    };
    Ok(Environment {
        nats: comparison.nats.clone(),
        redis: comparison.redis.clone(),
        python,
    })
}

/// Returns the participants that were asked for and that are installed.
fn chosen(
    comparison: &Comparison,
    environment: &Environment,
    machine: &mut Machine,
) -> Vec<Participant> {
    let mut all = participants::all();
    let names = &comparison.participants;
    all.retain(|one| names.is_empty() || names.iter().any(|name| one.about.name.starts_with(name)));
    let installed = python::versions(&environment.python);
    let missing = |package: &str| match &installed {
        Ok(versions) if versions.contains_key(package) => None,
        Ok(_) => Some("not installed".to_owned()),
        Err(error) => Some(error.clone()),
    };
    all.retain(|one| match one.family.package().and_then(missing) {
        None => true,
        Some(why) => {
            println!(
                "{} is left out: {why}. `--install` installs it.",
                one.about.name
            );
            false
        }
    });
    machine.versions.extend(installed.unwrap_or_default());
    if let Ok(redis) = server::version(&environment.redis) {
        machine.versions.push(("redis-server".to_owned(), redis));
    }
    all
}

fn outcome(row: Row, participants: &[Participant]) -> Outcome {
    let takes_part = |one: &&Participant| one.rows.contains(&row);
    let result = |one: &Participant| Measured {
        name: one.about.name,
        failed: None,
        rounds: Vec::new(),
    };
    Outcome {
        row,
        figures: row.figures().iter().map(|figure| figure.name).collect(),
        results: participants.iter().filter(takes_part).map(result).collect(),
        verdicts: Vec::new(),
    }
}

/// Runs a round of a participant, with processes of its own: what rests of one does not disturb the
/// next.
fn measure(
    participant: &Participant,
    environment: &Environment,
    scale: Scale,
    outcomes: &mut [Outcome],
) {
    let start = Instant::now();
    let mut session = (participant.start)(environment);
    println!("  started in {:.1} s", start.elapsed().as_secs_f64());
    for outcome in outcomes {
        let row = outcome.row;
        let mut results = outcome.results.iter_mut();
        let Some(result) = results.find(|result| result.name == participant.about.name) else {
            continue;
        };
        let start = Instant::now();
        let sample = measured(&mut session, row, scale);
        let elapsed = start.elapsed();
        result.rounds.push(match sample {
            Ok(sample) => {
                progress(row, &sample, elapsed);
                sample
            }
            Err(error) => {
                println!("  {} failed: {error}", row.name());
                result.failed = Some(error);
                vec![None; row.figures().len()]
            }
        });
    }
}

fn measured(
    session: &mut Result<Box<dyn Session>, String>,
    row: Row,
    scale: Scale,
) -> Result<Sample, String> {
    let session = session.as_mut().map_err(|error| error.clone())?;
    session.measure(row, scale)
}

fn progress(row: Row, sample: &Sample, elapsed: Duration) {
    let figures = row.figures().iter().zip(sample);
    let shown: Vec<_> = figures
        .filter_map(|(figure, value)| Some(figure.unit.show((*value)?)))
        .collect();
    let seconds = elapsed.as_secs_f64();
    println!("  {} {} ({seconds:.1} s)", row.name(), shown.join(", "));
}
