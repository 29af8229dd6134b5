//! Whether a run shows what is wanted of us.

use serde::Serialize;

use crate::peers::{Futurepool, NAMES, Peer};
use crate::result::{Outcome, Standing};

/// What is wanted, in words and as a test.
pub struct Goal(pub &'static str, pub Test);

/// All but the last ones compare the least figures of the rounds; the first figure, if they do not say which.
pub enum Test {
    /// At most what the best of all other pools has.
    Ahead,
    /// At most so many times what another one has.
    OfPeer(&'static str, f64),
    /// The same, in some figure.
    OfPeerIn(usize, &'static str, f64),
    /// At most so much, in some figure.
    AtMost(usize, f64),
    /// The median is at most so much, in some figure.
    MedianAtMost(usize, f64),
    /// That figure is never "no".
    Yes(usize),
    /// It ends, and does not fail.
    Works,
}

#[derive(Serialize, Debug, PartialEq)]
pub struct Verdict {
    pub goal: &'static str,
    /// `None` if somebody whom it needs did not take part.
    pub met: Option<bool>,
    /// What it was judged by.
    pub because: String,
}

pub fn judge(goal: &Goal, outcome: &Outcome) -> Verdict {
    let found = outcome.of(Futurepool::NAME);
    let found = found.and_then(|ours| measure(&goal.1, ours, outcome));
    let (met, because) = match found {
        Some((met, because)) => (Some(met), because),
        None => (None, "not all that it needs took part".to_owned()),
    };
    Verdict {
        goal: goal.0,
        met,
        because,
    }
}

fn measure(test: &Test, ours: &Standing, outcome: &Outcome) -> Option<(bool, String)> {
    let of_peer = |figure, name: &str, limit| {
        let ratio = ours.min(figure)? / outcome.of(name)?.min(figure)?;
        let times = match ratio < 1.0 {
            true => format!("{:.2}× faster than {name}", 1.0 / ratio),
            false => format!("{ratio:.2}× {name}"),
        };
        Some((ratio <= limit, times))
    };
    match *test {
        Test::Ahead => of_peer(0, best(outcome)?, 1.0),
        Test::OfPeer(name, limit) => of_peer(0, name, limit),
        Test::OfPeerIn(figure, name, limit) => of_peer(figure, name, limit),
        Test::AtMost(figure, limit) => {
            let value = ours.min(figure)?;
            Some((value <= limit, format!("{value:.2}")))
        }
        Test::MedianAtMost(figure, limit) => {
            let value = ours.median(figure)?;
            Some((value <= limit, format!("median {value:.2}")))
        }
        Test::Yes(figure) => {
            let yes = ours.min(figure)? == 1.0;
            Some((yes, if yes { "yes" } else { "no" }.to_owned()))
        }
        Test::Works => {
            let failed = ours.failed.clone();
            Some((failed.is_none(), failed.unwrap_or("it does".to_owned())))
        }
    }
}

/// The best of all pools but ours; the floor is none.
fn best(outcome: &Outcome) -> Option<&str> {
    let others = outcome.peers.iter().filter(|standing| {
        standing.peer != Futurepool::NAME && NAMES.contains(&standing.peer.as_str())
    });
    others
        .filter_map(|standing| Some((standing.min(0)?, standing.peer.as_str())))
        .min_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(of: &[(&str, &[f64])]) -> Outcome {
        let standing = |(name, rounds): &(&str, &[f64])| Standing {
            peer: (*name).to_owned(),
            rounds: rounds.iter().map(|&value| vec![Some(value)]).collect(),
            ..Standing::default()
        };
        Outcome {
            workload: "burst",
            about: "",
            workers: 2,
            figures: vec!["a job"],
            seconds: 1.0,
            peers: of.iter().map(standing).collect(),
            verdicts: Vec::new(),
        }
    }

    fn met(test: Test, outcome: &Outcome) -> Option<bool> {
        judge(&Goal("", test), outcome).met
    }

    #[test]
    fn the_least_of_the_rounds_counts() {
        let outcome = outcome(&[("futurepool", &[300.0, 100.0]), ("tokio", &[310.0, 900.0])]);
        assert_eq!(met(Test::OfPeer("tokio", 1.0 / 3.0), &outcome), Some(true));
        assert_eq!(met(Test::OfPeer("tokio", 1.0 / 4.0), &outcome), Some(false));
        assert_eq!(met(Test::MedianAtMost(0, 200.0), &outcome), Some(false));
    }

    #[test]
    fn the_floor_is_no_peer_to_be_ahead_of() {
        let outcome = outcome(&[
            ("futurepool", &[2.0]),
            ("floor", &[1.0]),
            ("rayon", &[3.0]),
            ("tokio", &[4.0]),
        ]);
        let verdict = judge(&Goal("", Test::Ahead), &outcome);
        assert_eq!(verdict.met, Some(true));
        assert_eq!(verdict.because, "1.50× faster than rayon");
    }

    #[test]
    fn who_is_missing_is_not_judged_by() {
        let alone = outcome(&[("futurepool", &[1.0])]);
        assert_eq!(met(Test::Ahead, &alone), None);
        assert_eq!(met(Test::OfPeer("tokio", 1.0), &alone), None);
        assert_eq!(met(Test::AtMost(0, 2.0), &outcome(&[])), None);
    }
}
