//! The results of a run, as the child sends them to the parent and as the JSON file holds them.

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::targets::Verdict;

/// The figures of one round, in the order of `Workload::figures`. A missing figure is `None`.
pub type Sample = Vec<Option<f64>>;

/// A line that a child prints.
#[derive(Serialize, Deserialize)]
pub enum Event {
    /// A round of this peer starts. If no further line follows, the parent blames this peer.
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
    /// `true` for a run with `--quick`, whose figures mean little.
    pub quick: bool,
    pub workloads: Vec<Outcome>,
}

/// The result of one workload.
#[derive(Serialize)]
pub struct Outcome {
    pub workload: &'static str,
    pub about: &'static str,
    pub workers: usize,
    pub figures: Vec<&'static str>,
    pub seconds: f64,
    pub peers: Vec<PeerResult>,
    pub verdicts: Vec<Verdict>,
}

/// The result of one peer in one workload.
#[derive(Serialize, Default)]
pub struct PeerResult {
    pub peer: String,
    pub note: Option<String>,
    pub failed: Option<String>,
    pub rounds: Vec<Sample>,
}

impl PeerResult {
    pub fn min(&self, figure: usize) -> Option<f64> {
        sorted(self.values(figure)).first().copied()
    }

    pub fn max(&self, figure: usize) -> Option<f64> {
        sorted(self.values(figure)).last().copied()
    }

    pub fn median(&self, figure: usize) -> Option<f64> {
        median(sorted(self.values(figure)))
    }

    fn values(&self, figure: usize) -> impl Iterator<Item = f64> {
        self.rounds.iter().filter_map(move |round| round[figure])
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values
}

fn median(sorted: Vec<f64>) -> Option<f64> {
    sorted.get(sorted.len() / 2).copied()
}

impl Outcome {
    pub fn of(&self, peer: &str) -> Option<&PeerResult> {
        self.peers.iter().find(|result| result.peer == peer)
    }

    /// Returns how often the figure of `base` goes into that of `peer`.
    ///
    /// This is the median of the ratios within each round. The participants alternate, so a machine
    /// that changes its speed between two rounds does not change the ratio.
    pub fn ratio(&self, peer: &str, base: &str, figure: usize) -> Option<f64> {
        let rounds = self.of(peer)?.rounds.iter().zip(&self.of(base)?.rounds);
        let ratio = |(peer, base): (&Sample, &Sample)| Some(peer[figure]? / base[figure]?);
        let ratios = rounds.filter_map(ratio).filter(|ratio| ratio.is_finite());
        median(sorted(ratios))
    }
}
