//! The goals, and whether a run met them.

use self::Test::{AtMost, Below, OfFamily, OfFloor};
use crate::participants::{self, DEFAULT, FLOOR, Family, IDEMPOTENT};
use crate::result::{Outcome, Verdict};
use crate::rows::Row;

struct Goal {
    row: Row,
    subject: &'static str,
    /// The index of the figure that the test reads.
    figure: usize,
    text: &'static str,
    test: Test,
}

/// A test of a value reads the median of the rounds. A test of a ratio reads the median of the ratios
/// within each round.
#[derive(Clone, Copy)]
enum Test {
    AtMost(f64),
    Below(f64),
    /// At most this multiple of the floor's figure.
    OfFloor(f64),
    /// At most this multiple of the figure of the best one of the family.
    OfFamily(Family, f64),
}

/// Nanoseconds of a millisecond.
const MILLI: f64 = 1e6;
const SECOND: f64 = 1e9;
const BOTH: [&str; 2] = [DEFAULT, IDEMPOTENT];

fn all() -> Vec<Goal> {
    let mut goals = Vec::new();
    let mut add = |row, subject, figure, text, test| {
        goals.push(Goal {
            row,
            subject,
            figure,
            text,
            test,
        });
    };
    add(Row::Trip, DEFAULT, 0, "p50 ≤ 0.65 ms", AtMost(0.65 * MILLI));
    add(
        Row::Trip,
        IDEMPOTENT,
        0,
        "p50 ≤ 0.4 ms",
        AtMost(0.4 * MILLI),
    );
    add(Row::Trip, DEFAULT, 0, "p50 ≤ 4 × the floor", OfFloor(4.0));
    add(
        Row::Trip,
        IDEMPOTENT,
        0,
        "p50 ≤ 2.5 × the floor",
        OfFloor(2.5),
    );
    for subject in BOTH {
        add(Row::Trip, subject, 1, "p99 ≤ 3 ms", AtMost(3.0 * MILLI));
    }
    let rate = |rate: f64| AtMost(SECOND / rate);
    add(Row::Burst, DEFAULT, 0, "≥ 3,000 a second", rate(3_000.0));
    add(Row::Burst, IDEMPOTENT, 0, "≥ 8,000 a second", rate(8_000.0));
    add(Row::HundredThousand, DEFAULT, 0, "≤ 35 s", AtMost(35.0));
    add(Row::HundredThousand, IDEMPOTENT, 0, "≤ 15 s", AtMost(15.0));
    add(Row::Sleeps, DEFAULT, 0, "≥ 90 %", AtMost(1.0 / 0.9));
    add(Row::Sleeps, IDEMPOTENT, 0, "≥ 95 %", AtMost(1.0 / 0.95));
    for subject in BOTH {
        add(Row::Idle, subject, 0, "a worker < 0.5 %", Below(0.005));
        for row in [Row::Trip, Row::Burst] {
            add(
                row,
                subject,
                0,
                "≥ 2 × Celery",
                OfFamily(Family::Celery, 0.5),
            );
            add(row, subject, 0, "≥ 2 × Dask", OfFamily(Family::Dask, 0.5));
            add(row, subject, 0, "ahead of Ray", OfFamily(Family::Ray, 1.0));
        }
        let ahead = [
            (Family::Celery, "ahead of Celery"),
            (Family::Dask, "ahead of Dask"),
            (Family::Ray, "ahead of Ray"),
        ];
        for (family, text) in ahead {
            add(Row::Sleeps, subject, 0, text, OfFamily(family, 1.0));
        }
    }
    goals
}

/// Evaluates all goals of a row. A goal whose peer is left out has no verdict.
pub(crate) fn evaluate(outcome: &Outcome) -> Vec<Verdict> {
    let goals = all().into_iter().filter(|goal| goal.row == outcome.row);
    goals.filter_map(|goal| verdict(&goal, outcome)).collect()
}

fn verdict(goal: &Goal, outcome: &Outcome) -> Option<Verdict> {
    let subject = outcome.of(goal.subject)?;
    let value = subject.median(goal.figure);
    let unit = goal.row.figures()[goal.figure].unit;
    let mode = match goal.subject {
        DEFAULT => "default",
        _ => "idempotent",
    };
    let tested = match goal.test {
        AtMost(limit) => value.map(|value| (value <= limit, unit.show(value))),
        Below(limit) => value.map(|value| (value < limit, unit.show(value))),
        OfFloor(limit) => {
            outcome.of(FLOOR)?;
            of_other(outcome, goal, FLOOR, limit)
        }
        OfFamily(family, limit) => {
            let best = best(outcome, family, goal.figure)?;
            of_other(outcome, goal, best, limit)
        }
    };
    let (met, because) = match tested {
        Some((met, because)) => (Some(met), because),
        None => (None, "no figure".to_owned()),
    };
    Some(Verdict {
        goal: format!("{mode}: {}", goal.text),
        met,
        because,
    })
}

fn of_other(outcome: &Outcome, goal: &Goal, other: &str, limit: f64) -> Option<(bool, String)> {
    let ratio = outcome.ratio(goal.subject, other, goal.figure)?;
    let text = match ratio < 1.0 {
        true => format!("{:.1} × better than {other}", 1.0 / ratio),
        false => format!("{ratio:.2} × {other}"),
    };
    Some((ratio <= limit, text))
}

/// Returns the best one of a family, if it takes part.
fn best(outcome: &Outcome, family: Family, figure: usize) -> Option<&'static str> {
    let members = participants::all().into_iter();
    let members = members.filter(|one| one.family == family);
    members
        .filter_map(|one| {
            let value = outcome.of(one.about.name)?.median(figure)?;
            Some((value, one.about.name))
        })
        .min_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::Measured;

    fn outcome(row: Row, results: &[(&'static str, &[f64])]) -> Outcome {
        let result = |(name, rounds): &(&'static str, &[f64])| Measured {
            name,
            failed: None,
            rounds: rounds.iter().map(|&value| vec![Some(value); 2]).collect(),
        };
        Outcome {
            row,
            figures: Vec::new(),
            results: results.iter().map(result).collect(),
            verdicts: Vec::new(),
        }
    }

    fn verdict(goal: &str, met: bool, because: &str) -> Verdict {
        Verdict {
            goal: goal.to_owned(),
            met: Some(met),
            because: because.to_owned(),
        }
    }

    #[test]
    fn a_goal_reads_a_figure_of_its_row() {
        for goal in all() {
            assert!(goal.figure < goal.row.figures().len(), "{}", goal.text);
        }
    }

    #[test]
    fn a_ratio_is_one_within_a_round() {
        // The machine is slow in the second round, and becomes slow within the third.
        let trips: [(_, &[f64]); 2] = [
            (IDEMPOTENT, &[240_000.0, 960_000.0, 260_000.0]),
            (FLOOR, &[100_000.0, 400_000.0, 400_000.0]),
        ];
        let found = evaluate(&outcome(Row::Trip, &trips));
        let of_floor = "idempotent: p50 ≤ 2.5 × the floor";
        assert!(found.contains(&verdict(of_floor, true, "2.40 × floor")));
        assert!(found.contains(&verdict("idempotent: p50 ≤ 0.4 ms", true, "260 µs")));
    }

    #[test]
    fn a_peer_that_is_left_out_has_no_goal_and_the_best_of_a_family_counts() {
        let bursts: [(_, &[f64]); 3] = [
            (DEFAULT, &[400_000.0]),
            ("Celery, prefork", &[1_000_000.0]),
            ("Celery, threads", &[700_000.0]),
        ];
        let found = evaluate(&outcome(Row::Burst, &bursts));
        let celery = "1.8 × better than Celery, threads";
        let expected = [
            verdict("default: ≥ 3,000 a second", false, "2,500/s"),
            verdict("default: ≥ 2 × Celery", false, celery),
        ];
        assert_eq!(found, expected);
    }
}
