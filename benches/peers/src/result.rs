//! What a run found, as it goes from child to parent and into the JSON file.

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::targets::Verdict;

/// The figures of one measure, as many as the workload has; `None` where a peer has no such thing.
pub type Sample = Vec<Option<f64>>;

/// A line that a child prints.
#[derive(Serialize, Deserialize)]
pub enum Event {
    /// So that the parent knows whose fault it is if there is no next line.
    Starts {
        peer: String,
        note: Option<String>,
    },
    Took {
        peer: String,
        sample: Sample,
    },
    Failed {
        peer: String,
        reason: String,
    },
}

#[derive(Serialize)]
pub struct Run {
    pub machine: Machine,
    /// Whether it was a quick one, whose figures mean little.
    pub quick: bool,
    pub workloads: Vec<Outcome>,
}

/// What one workload found.
#[derive(Serialize)]
pub struct Outcome {
    pub workload: &'static str,
    pub about: &'static str,
    pub workers: usize,
    pub figures: Vec<&'static str>,
    pub seconds: f64,
    pub peers: Vec<Standing>,
    pub verdicts: Vec<Verdict>,
}

/// What one peer did in one workload.
#[derive(Serialize, Default)]
pub struct Standing {
    pub peer: String,
    pub note: Option<String>,
    pub failed: Option<String>,
    pub rounds: Vec<Sample>,
}

impl Standing {
    pub fn min(&self, figure: usize) -> Option<f64> {
        self.sorted(figure).first().copied()
    }

    pub fn median(&self, figure: usize) -> Option<f64> {
        let sorted = self.sorted(figure);
        sorted.get(sorted.len() / 2).copied()
    }

    fn sorted(&self, figure: usize) -> Vec<f64> {
        let mut values: Vec<_> = self.rounds.iter().filter_map(|r| r[figure]).collect();
        values.sort_unstable_by(f64::total_cmp);
        values
    }
}

impl Outcome {
    pub fn of(&self, peer: &str) -> Option<&Standing> {
        self.peers.iter().find(|standing| standing.peer == peer)
    }
}
