//! Evaluates whether futurepool met its targets in a run.

use serde::Serialize;

use crate::peers::{Futurepool, NAMES, Peer};
use crate::result::{Outcome, PeerResult};

/// A target of futurepool, as a text and as a test.
pub struct Goal(pub &'static str, pub Test);

/// The condition of a target.
///
/// A test reads the minimum over the rounds, except `MedianAtMost` and `Works`. A test without the
/// index of a figure reads the first figure.
pub enum Test {
    /// The figure is at most that of the best other pool.
    Ahead,
    /// The figure is at most this multiple of the named peer's.
    OfPeer(&'static str, f64),
    /// The same for the figure with this index.
    OfPeerIn(usize, &'static str, f64),
    /// The figure with this index is at most this value.
    AtMost(usize, f64),
    /// The median of the figure with this index is at most this value.
    MedianAtMost(usize, f64),
    /// The figure with this index is "yes" in every round.
    Yes(usize),
    /// The workload completes without a failure.
    Works,
}

#[derive(Serialize, Debug, PartialEq)]
pub struct Verdict {
    pub goal: &'static str,
    /// `None` if a peer that the test reads is missing from the run.
    pub met: Option<bool>,
    /// The figure that decided the outcome.
    pub because: String,
}

pub fn evaluate(goal: &Goal, outcome: &Outcome) -> Verdict {
    let tested = outcome.of(Futurepool::NAME);
    let tested = tested.and_then(|ours| measure(&goal.1, ours, outcome));
    let (met, because) = match tested {
        Some((met, because)) => (Some(met), because),
        None => (
            None,
            "a participant that the target needs is missing".to_owned(),
        ),
    };
    Verdict {
        goal: goal.0,
        met,
        because,
    }
}

fn measure(test: &Test, ours: &PeerResult, outcome: &Outcome) -> Option<(bool, String)> {
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
            Some((failed.is_none(), failed.unwrap_or("no failure".to_owned())))
        }
    }
}

/// Returns the fastest pool except futurepool. The floor is not a pool.
fn best(outcome: &Outcome) -> Option<&str> {
    let others = outcome
        .peers
        .iter()
        .filter(|result| result.peer != Futurepool::NAME && NAMES.contains(&result.peer.as_str()));
    others
        .filter_map(|result| Some((result.min(0)?, result.peer.as_str())))
        .min_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(peers: &[(&str, &[f64])]) -> Outcome {
        let result = |(name, rounds): &(&str, &[f64])| PeerResult {
            peer: (*name).to_owned(),
            rounds: rounds.iter().map(|&value| vec![Some(value)]).collect(),
            ..PeerResult::default()
        };
        Outcome {
            workload: "burst",
            about: "",
            workers: 2,
            figures: vec!["a job"],
            seconds: 1.0,
            peers: peers.iter().map(result).collect(),
            verdicts: Vec::new(),
        }
    }

    fn met(test: Test, outcome: &Outcome) -> Option<bool> {
        evaluate(&Goal("", test), outcome).met
    }

    #[test]
    fn the_minimum_over_the_rounds_decides() {
        let outcome = outcome(&[("futurepool", &[300.0, 100.0]), ("tokio", &[310.0, 900.0])]);
        assert_eq!(met(Test::OfPeer("tokio", 1.0 / 3.0), &outcome), Some(true));
        assert_eq!(met(Test::OfPeer("tokio", 1.0 / 4.0), &outcome), Some(false));
        assert_eq!(met(Test::MedianAtMost(0, 200.0), &outcome), Some(false));
    }

    #[test]
    fn the_floor_is_not_a_peer() {
        let outcome = outcome(&[
            ("futurepool", &[2.0]),
            ("floor", &[1.0]),
            ("rayon", &[3.0]),
            ("tokio", &[4.0]),
        ]);
        let verdict = evaluate(&Goal("", Test::Ahead), &outcome);
        assert_eq!(verdict.met, Some(true));
        assert_eq!(verdict.because, "1.50× faster than rayon");
    }

    #[test]
    fn a_target_with_a_missing_peer_is_not_evaluated() {
        let alone = outcome(&[("futurepool", &[1.0])]);
        assert_eq!(met(Test::Ahead, &alone), None);
        assert_eq!(met(Test::OfPeer("tokio", 1.0), &alone), None);
        assert_eq!(met(Test::AtMost(0, 2.0), &outcome(&[])), None);
    }
}
