//! What is measured.

use serde::{Serialize, Serializer};

/// What is measured of each participant. Not every participant has every row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Row {
    Trip,
    Burst,
    HundredThousand,
    Sleeps,
    Idle,
    Memory,
}

pub(crate) const ALL: [Row; 6] = [
    Row::Trip,
    Row::Burst,
    Row::HundredThousand,
    Row::Sleeps,
    Row::Idle,
    Row::Memory,
];

/// The rows that the peers have, too.
pub(crate) const SHARED: [Row; 3] = [Row::Trip, Row::Burst, Row::Sleeps];

pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) unit: Unit,
}

/// How a figure is shown. Smaller figures are better, also where a larger value is shown.
#[derive(Clone, Copy)]
pub(crate) enum Unit {
    /// Nanoseconds.
    Time,
    /// Nanoseconds each, shown as a rate.
    Rate,
    /// Seconds.
    Seconds,
    /// A multiple of the ideal time, shown as the share of the ideal rate.
    OfIdeal,
    /// A share of one core.
    OfCore,
    Bytes,
    Count,
}

const fn figure(name: &'static str, unit: Unit) -> Figure {
    Figure { name, unit }
}

impl Row {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Trip => "trip",
            Self::Burst => "burst",
            Self::HundredThousand => "hundred-thousand",
            Self::Sleeps => "sleeps",
            Self::Idle => "idle",
            Self::Memory => "memory",
        }
    }

    pub(crate) fn about(self) -> &'static str {
        match self {
            Self::Trip => "submit and join of an empty task, one after the other",
            Self::Burst => "a burst of tasks that return their number, until all results are there",
            Self::HundredThousand => "100,000 such tasks",
            Self::Sleeps => "sleeps of 10 ms on 16 slots: the share of the ideal",
            Self::Idle => "CPU time of processes that have nothing to do, as a share of one core",
            Self::Memory => {
                "10,000 jobs that wait for a worker: what the submitter and the server hold"
            }
        }
    }

    pub(crate) fn figures(self) -> &'static [Figure] {
        match self {
            Self::Trip => const { &[figure("p50", Unit::Time), figure("p99", Unit::Time)] },
            Self::Burst => {
                const {
                    &[
                        figure("jobs", Unit::Rate),
                        figure("messages to the server, a job", Unit::Count),
                        figure("messages from the server, a job", Unit::Count),
                        figure("CPU time of the server, a job", Unit::Time),
                        figure("CPU time of the workers, a job", Unit::Time),
                        figure("CPU time of the submitter, a job", Unit::Time),
                    ]
                }
            }
            Self::HundredThousand => const { &[figure("all results", Unit::Seconds)] },
            Self::Sleeps => const { &[figure("of the ideal", Unit::OfIdeal)] },
            Self::Idle => {
                const {
                    &[
                        figure("a worker", Unit::OfCore),
                        figure("the submitter", Unit::OfCore),
                        figure("the server", Unit::OfCore),
                    ]
                }
            }
            Self::Memory => {
                const {
                    &[
                        figure("the submitter, a job", Unit::Bytes),
                        figure("the submitter", Unit::Bytes),
                        figure("the server", Unit::Bytes),
                    ]
                }
            }
        }
    }
}

impl Unit {
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::Time if value >= 1e6 => format!("{:.2} ms", value / 1e6),
            Self::Time => format!("{:.0} µs", value / 1e3),
            Self::Rate => format!("{}/s", thousands(1e9 / value)),
            Self::Seconds => format!("{value:.1} s"),
            Self::OfIdeal => format!("{:.1} %", 100.0 / value),
            Self::OfCore => format!("{:.2} %", 100.0 * value),
            Self::Bytes if value >= 1e6 => format!("{:.1} MB", value / 1e6),
            Self::Bytes => format!("{value:.0} B"),
            Self::Count => format!("{value:.1}"),
        }
    }
}

/// Formats a number that is below a million, with a comma before the last three digits.
fn thousands(value: f64) -> String {
    let value = value.round() as u64;
    match value / 1_000 {
        0 => value.to_string(),
        thousands => format!("{thousands},{:03}", value % 1_000),
    }
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_shown_in_its_unit() {
        assert_eq!(Unit::Time.show(1.5e6), "1.50 ms");
        assert_eq!(Unit::Time.show(400_000.0), "400 µs");
        assert_eq!(Unit::Rate.show(125_000.0), "8,000/s");
        assert_eq!(Unit::Rate.show(2e6), "500/s");
        assert_eq!(Unit::OfIdeal.show(1.25), "80.0 %");
        assert_eq!(Unit::OfCore.show(0.0049), "0.49 %");
        assert_eq!(Unit::Bytes.show(1_840.0), "1840 B");
        assert_eq!(Unit::Bytes.show(18.4e6), "18.4 MB");
    }
}
