//! The figures of a run.

use serde::Serialize;

use crate::machine::Machine;
use crate::participants::About;
use crate::rows::Row;

/// The figures of one round, in the order of [`Row::figures`]. A missing figure is `None`.
pub(crate) type Sample = Vec<Option<f64>>;

/// A run, as the JSON file holds it.
#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    /// `true` for a run with `--quick`, whose figures mean little.
    pub(crate) quick: bool,
    pub(crate) rounds: usize,
    pub(crate) participants: Vec<About>,
    pub(crate) outcomes: Vec<Outcome>,
}

/// The figures of one row.
#[derive(Serialize)]
pub(crate) struct Outcome {
    pub(crate) row: Row,
    pub(crate) figures: Vec<&'static str>,
    pub(crate) results: Vec<Measured>,
    pub(crate) verdicts: Vec<Verdict>,
}

/// The figures of one participant in one row.
#[derive(Serialize)]
pub(crate) struct Measured {
    pub(crate) name: &'static str,
    /// The error of the last round that failed.
    pub(crate) failed: Option<String>,
    /// A round that failed has no figures.
    pub(crate) rounds: Vec<Sample>,
}

/// A goal, and whether it is met.
#[derive(Serialize, Debug, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) goal: String,
    /// `None` if a figure is missing.
    pub(crate) met: Option<bool>,
    /// The figure that decided.
    pub(crate) because: String,
}

/// The best, the median and the worst round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) best: f64,
    pub(crate) median: f64,
    pub(crate) worst: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<_> = values.collect();
        values.sort_unstable_by(f64::total_cmp);
        Some(Self {
            best: *values.first()?,
            median: values[values.len() / 2],
            worst: *values.last()?,
        })
    }
}

impl Measured {
    pub(crate) fn spread(&self, figure: usize) -> Option<Spread> {
        Spread::of(self.rounds.iter().filter_map(|round| round[figure]))
    }

    pub(crate) fn median(&self, figure: usize) -> Option<f64> {
        self.spread(figure).map(|spread| spread.median)
    }
}

impl Outcome {
    pub(crate) fn of(&self, name: &str) -> Option<&Measured> {
        self.results.iter().find(|result| result.name == name)
    }

    /// Returns how many times the figure of `other` the figure of `name` is: the median of the ratios
    /// within each round.
    ///
    /// Participants take turns, so a machine that is slow for some rounds does not change the ratio.
    pub(crate) fn ratio(&self, name: &str, other: &str, figure: usize) -> Option<f64> {
        let rounds = self.of(name)?.rounds.iter().zip(&self.of(other)?.rounds);
        let ratios = rounds.filter_map(|(one, other)| Some(one[figure]? / other[figure]?));
        Spread::of(ratios).map(|spread| spread.median)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_without_a_figure_is_left_out() {
        let rounds = [Some(3.0), None, Some(1.0), Some(2.0)];
        let measured = Measured {
            name: "one",
            failed: None,
            rounds: rounds.map(|figure| vec![figure]).into(),
        };
        let spread = Spread {
            best: 1.0,
            median: 2.0,
            worst: 3.0,
        };
        assert_eq!(measured.spread(0), Some(spread));
        assert_eq!(Spread::of([].into_iter()), None);
    }
}
