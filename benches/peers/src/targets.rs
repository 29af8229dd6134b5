//! The goals of futurepool, and whether it met them in a run.

use serde::Serialize;

use self::Test::{AtMost, OfBest, OfPeer, Works, Yes};
use crate::peers::{self, Futurepool, Peer};
use crate::placement::NOT_PINNED;
use crate::result::{Outcome, PeerResult};
use crate::table::shown;
use crate::workloads;

/// A goal, as a text and as a test.
pub struct Goal {
    text: &'static str,
    /// The participant that has to meet the goal.
    subject: &'static str,
    /// The index of the figure that the test reads.
    figure: usize,
    test: Test,
}

/// The condition of a goal.
///
/// A test of a value reads the median over the rounds. A test of a ratio reads
/// [`Outcome::ratio`], the median of the ratios within each round.
enum Test {
    /// The figure is at most this value.
    AtMost(f64),
    /// The figure is at most this multiple of the named participant's.
    OfPeer(&'static str, f64),
    /// The figure is at most this multiple of that of the best other pool.
    OfBest(f64),
    /// The figure is "yes" in every round.
    Yes,
    /// The workload completes without a failure.
    Works,
}

/// The goals of each workload.
///
/// A difference below 15 % is noise, so a goal of "level with" allows for it.
const GOALS: &[(&str, &[Goal])] = &[
    (
        "burst",
        &[
            goal("≥ 2× every peer", OfBest(1.0 / 2.0)),
            goal("≥ 4× tokio", OfPeer("tokio", 1.0 / 4.0)),
        ],
    ),
    (
        "producers",
        &[
            goal("ahead of every peer", OfBest(1.0)),
            goal("≥ 2.5× tokio", OfPeer("tokio", 1.0 / 2.5)),
        ],
    ),
    ("nested", &[goal("ahead of every peer", OfBest(1.0))]),
    (
        "as_completed",
        &[
            goal("≥ 1.3× every peer", OfBest(1.0 / 1.3)),
            goal("≥ 4× tokio", OfPeer("tokio", 1.0 / 4.0)),
        ],
    ),
    (
        "round-trip-hot-apart",
        &[
            goal("≤ 500 ns", AtMost(500.0)),
            goal("≥ 2× every peer", OfBest(1.0 / 2.0)),
            goal("≥ 20× tokio", OfPeer("tokio", 1.0 / 20.0)),
        ],
    ),
    (
        "round-trip-hot-same",
        &[goal("level with the best peer (within 15 %)", OfBest(1.15))],
    ),
    (
        "round-trip-cold-apart",
        &[goal(
            "≤ 1.1× the spinning floor",
            OfPeer("spinning floor", 1.1),
        )],
    ),
    (
        "round-trip-cold-same",
        &[goal("≤ 1.2× the floor", OfPeer("floor", 1.2))],
    ),
    (
        "round-trip-async-apart",
        &[
            goal("≤ 2,000 ns", AtMost(2_000.0)),
            goal("≥ 6× every peer", OfBest(1.0 / 6.0)),
        ],
    ),
    (
        "round-trip-async-same",
        &[goal("level with the best peer (within 15 %)", OfBest(1.15))],
    ),
    (
        "round-trip-async-8",
        &[goal("not slower than any peer", OfBest(1.0))],
    ),
    (
        "round-trip-async-64",
        &[goal("not slower than any peer", OfBest(1.0))],
    ),
    (
        "round-trip-async-smol",
        &[goal("≥ 6× every peer", OfBest(1.0 / 6.0))],
    ),
    (
        "grain-1us",
        &[goal("≤ 1.25× the floor", OfPeer("floor", 1.25))],
    ),
    (
        "grain-10us",
        &[goal("≤ 1.25× the floor", OfPeer("floor", 1.25))],
    ),
    (
        "crowd",
        &[goal(
            "≤ 1.2× ours with 2 workers",
            OfPeer("futurepool (2)", 1.2),
        )],
    ),
    (
        "sleepers",
        &[goal("level with the best peer (within 15 %)", OfBest(1.15))],
    ),
    (
        "many-idle",
        &[
            goal("hot ≤ 1.1×", AtMost(1.1)).of_figure(2),
            goal("cold ≤ 1.1×", AtMost(1.1)).of_figure(3),
        ],
    ),
    ("ten-thousand", &[goal("works", Works)]),
    (
        "heap",
        &[
            goal("1.00 allocations", AtMost(1.0049)).of_figure(1),
            goal("≤ 96 bytes", AtMost(96.0)),
        ],
    ),
    (
        "cancel",
        &[
            goal("≤ 100 ns", AtMost(100.0)),
            goal("captures freed at once", Yes).of_figure(1),
        ],
    ),
    // The clock and the thread that reads it use some microseconds.
    ("idle", &[goal("0 (below 0.5 ms)", AtMost(0.5))]),
    (
        "map-1ns",
        &[
            goal("≤ 3× rayon", OfPeer("rayon", 3.0)),
            goal(
                "ahead of rayon's par_bridge",
                OfPeer("rayon par_bridge", 1.0),
            ),
            goal("with chunks ≤ 12 ns", AtMost(12.0)).of("chunk_size(1024)"),
            goal("with a buffer ≤ 12 ns", AtMost(12.0)).of("buffer_size(100k)"),
        ],
    ),
    ("map-100ns", &[goal("≤ 1.2× rayon", OfPeer("rayon", 1.2))]),
    ("map-1us", &[goal("≤ 1.1× rayon", OfPeer("rayon", 1.1))]),
    ("map-10us", &[goal("≤ 1.1× rayon", OfPeer("rayon", 1.1))]),
    ("map-1ms", &[goal("≤ 1.02× rayon", OfPeer("rayon", 1.02))]),
    (
        "map-10-million",
        &[
            goal("≤ 0.3 s", AtMost(0.3)),
            goal("≤ 200 MB", AtMost(200.0)).of_figure(1),
        ],
    ),
    (
        "languages",
        &[
            goal("burst ≥ 50× Python", OfPeer("python", 1.0 / 50.0)),
            goal("burst ahead of C++", OfPeer("c++", 1.0)),
            goal("round trip ≥ 50× Python", OfPeer("python", 1.0 / 50.0)).of_figure(1),
            goal("round trip ahead of Java", OfPeer("java", 1.0)).of_figure(1),
            goal("round trip ahead of C++", OfPeer("c++", 1.0)).of_figure(1),
            goal("as_completed ≥ 25× Python", OfPeer("python", 1.0 / 25.0)).of_figure(2),
        ],
    ),
];

/// The goals of the workloads with worker processes. A test reads a time, also where the table shows
/// a rate.
const PROCESS_GOALS: &[(&str, &[Goal])] = &[
    ("process-trip-same", PROCESS_TRIP),
    ("process-trip-apart", PROCESS_TRIP),
    (
        "process-burst",
        &[
            goal("≥ 50,000 a second", AtMost(1e9 / 50e3)),
            goal("≥ 3× every peer", OfBest(1.0 / 3.0)),
        ],
    ),
    (
        "process-map",
        &[
            goal("≥ 1,000,000 a second", AtMost(1e9 / 1e6)),
            goal("≥ 3× every peer", OfBest(1.0 / 3.0)),
        ],
    ),
    (
        "process-bytes",
        &[
            goal("≥ 1.5 GB/s each way", AtMost(1.0 / 1.5)),
            goal("≥ 0.6× the bare socket", OfPeer("bare socket", 1.0 / 0.6)),
            goal("≥ 1.2× every peer", OfBest(1.0 / 1.2)),
        ],
    ),
    (
        "process-cold",
        &[
            goal("≤ 3 ms", AtMost(3e6)),
            goal(
                "≤ 4× spawn and wait of an empty program",
                OfPeer("empty program", 4.0),
            ),
        ],
    ),
    (
        "process-end",
        &[
            goal("cancel ≤ 2 ms", AtMost(2e6)),
            goal("overshoot ≤ 5 ms", AtMost(5e6)).of_figure(2),
            goal("crash ≤ 5 ms", AtMost(5e6)).of_figure(3),
        ],
    ),
];

/// The goals of submit and join, each against the floor of the same placement.
const PROCESS_TRIP: &[Goal] = &[
    goal("p50 ≤ 2.5× the floor", OfPeer("floor", 2.5)),
    goal("p99 ≤ 3× the floor's p99", OfPeer("floor", 3.0)).of_figure(1),
    goal("≥ 3× every peer", OfBest(1.0 / 3.0)),
];

const fn goal(text: &'static str, test: Test) -> Goal {
    Goal {
        text,
        subject: Futurepool::NAME,
        figure: 0,
        test,
    }
}

impl Goal {
    const fn of(mut self, subject: &'static str) -> Self {
        self.subject = subject;
        self
    }

    const fn of_figure(mut self, figure: usize) -> Self {
        self.figure = figure;
        self
    }
}

#[derive(Serialize, Debug, PartialEq)]
pub struct Verdict {
    pub goal: &'static str,
    /// `None` if a participant that the test reads is missing from the run, or is not pinned.
    pub met: Option<bool>,
    /// The figure that decided the outcome.
    pub because: String,
}

/// Evaluates all goals of the workload.
pub fn evaluate(outcome: &Outcome) -> Vec<Verdict> {
    let mut all = GOALS.iter().chain(PROCESS_GOALS);
    let goals = all.find(|(name, _)| *name == outcome.workload);
    let goals = goals.map_or(&[][..], |(_, goals)| goals);
    goals.iter().map(|goal| verdict(goal, outcome)).collect()
}

fn verdict(goal: &Goal, outcome: &Outcome) -> Verdict {
    let subject = outcome.of(goal.subject);
    let note = subject.and_then(|subject| subject.note.as_deref());
    let not_pinned = note.filter(|note| note.starts_with(NOT_PINNED));
    let tested = match not_pinned {
        Some(reason) => Err(reason),
        None => subject
            .and_then(|subject| measure(goal, subject, outcome))
            .ok_or("a participant that the goal needs is missing"),
    };
    let (met, because) = match tested {
        Ok((met, because)) => (Some(met), because),
        Err(reason) => (None, reason.to_owned()),
    };
    Verdict {
        goal: goal.text,
        met,
        because,
    }
}

fn measure(goal: &Goal, subject: &PeerResult, outcome: &Outcome) -> Option<(bool, String)> {
    let unit = workloads::named(outcome.workload)?.figures[goal.figure].unit;
    let of_peer = |name: &str, limit| {
        let ratio = 1.0 / outcome.ratio(name, goal.subject, goal.figure)?;
        let times = match ratio < 1.0 {
            _ if unit.is_rate() => format!("{:.2}× the rate of {name}", 1.0 / ratio),
            true => format!("{:.2}× faster than {name}", 1.0 / ratio),
            false => format!("{ratio:.2}× {name}"),
        };
        Some((ratio <= limit, times))
    };
    match goal.test {
        AtMost(limit) => {
            let value = subject.median(goal.figure)?;
            Some((value <= limit, shown(value, unit)))
        }
        OfPeer(name, limit) => of_peer(name, limit),
        OfBest(limit) => of_peer(best(outcome, goal.figure)?, limit),
        Yes => {
            let yes = subject.min(goal.figure)? == 1.0;
            Some((yes, if yes { "yes" } else { "no" }.to_owned()))
        }
        Works => {
            let failed = subject.failed.clone();
            Some((failed.is_none(), failed.unwrap_or("no failure".to_owned())))
        }
    }
}

/// Returns the fastest pool except futurepool. A floor is not a pool.
fn best(outcome: &Outcome, figure: usize) -> Option<&str> {
    let others = outcome
        .peers
        .iter()
        .filter(|result| result.peer != Futurepool::NAME && peers::is_pool(&result.peer));
    others
        .filter_map(|result| Some((result.median(figure)?, result.peer.as_str())))
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
        verdict(&goal("", test), outcome).met
    }

    #[test]
    fn each_goal_is_one_of_a_workload_and_of_a_figure_that_exists() {
        let processes = PROCESS_GOALS.iter().filter(|_| cfg!(feature = "processes"));
        for (name, goals) in GOALS.iter().chain(processes) {
            let workload = workloads::named(name).expect("the workload exists");
            assert!(goals.iter().all(|g| g.figure < workload.figures.len()));
        }
        assert_eq!(GOALS.len(), workloads::ALL.len());
        #[cfg(feature = "processes")]
        assert_eq!(PROCESS_GOALS.len(), crate::processes::ALL.len());
    }

    #[test]
    fn a_ratio_is_one_within_a_round() {
        // The machine is slow in the second round, and becomes slow within the third.
        let outcome = outcome(&[
            ("futurepool", &[90.0, 400.0, 100.0]),
            ("tokio", &[300.0, 1_200.0, 1_200.0]),
        ]);
        assert_eq!(met(OfPeer("tokio", 1.0 / 3.3), &outcome), Some(true));
        assert_eq!(met(OfPeer("tokio", 1.0 / 3.4), &outcome), Some(false));
        assert_eq!(met(AtMost(99.0), &outcome), Some(false));
        assert_eq!(met(AtMost(100.0), &outcome), Some(true));
    }

    #[test]
    #[cfg(feature = "processes")]
    fn a_goal_of_a_rate_tells_a_rate() {
        let mut outcome = outcome(&[("futurepool", &[10_000.0]), ("loky", &[40_000.0])]);
        outcome.workload = "process-burst";
        let verdicts = evaluate(&outcome);
        assert_eq!(verdicts[0].because, "100,000/s");
        assert_eq!(verdicts[1].because, "4.00× the rate of loky");
        assert!(verdicts.iter().all(|verdict| verdict.met == Some(true)));
    }

    #[test]
    fn a_floor_is_not_a_peer() {
        let outcome = outcome(&[
            ("futurepool", &[2.0]),
            ("floor", &[1.0]),
            ("rayon", &[3.0]),
            ("tokio", &[4.0]),
        ]);
        let verdict = verdict(&goal("", OfBest(1.0)), &outcome);
        assert_eq!(verdict.met, Some(true));
        assert_eq!(verdict.because, "1.50× faster than rayon");
    }

    #[test]
    fn a_goal_with_a_missing_peer_is_not_evaluated() {
        let alone = outcome(&[("futurepool", &[1.0])]);
        assert_eq!(met(OfBest(1.0), &alone), None);
        assert_eq!(met(OfPeer("tokio", 1.0), &alone), None);
        assert_eq!(met(AtMost(2.0), &outcome(&[])), None);
    }

    #[test]
    fn a_goal_of_an_unpinned_workload_is_not_evaluated() {
        let mut outcome = outcome(&[("futurepool", &[1.0])]);
        outcome.peers[0].note = Some(format!("{NOT_PINNED}: too few processors"));
        assert_eq!(met(AtMost(2.0), &outcome), None);
    }
}
