//! Outcomes of jobs as data, which a submitter can print.

use std::time::{Duration, Instant};

use futurepool::{JoinError, JoinHandle};
use futurepool_cluster::Metrics;
use serde::{Deserialize, Serialize};

use crate::tasks::Done;

/// What a handle said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) job: u64,
    pub(crate) kind: Kind,
    pub(crate) may_have_run: bool,
    pub(crate) text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// The output is that of this run.
    Ok(u64),
    Lost,
    Disconnected,
    Cancelled,
    Refused,
    Expired,
    Panicked,
    Codec,
    Other,
}

impl Outcome {
    pub(crate) fn of(job: u64, result: Result<Done, JoinError>) -> Self {
        match result {
            Ok(done) => {
                assert_eq!(done.job, job, "the output of another job");
                let text = format!("{} bytes", done.bytes.len());
                Self {
                    job,
                    kind: Kind::Ok(done.run),
                    may_have_run: true,
                    text,
                }
            }
            Err(error) => Self {
                job,
                kind: Kind::of(&error),
                may_have_run: error.may_have_run(),
                text: error.to_string(),
            },
        }
    }

    pub(crate) fn is_ok(&self) -> bool {
        matches!(self.kind, Kind::Ok(_))
    }
}

impl Kind {
    fn of(error: &JoinError) -> Self {
        if error.is_lost() {
            Self::Lost
        } else if error.is_disconnected() {
            Self::Disconnected
        } else if error.is_cancelled() {
            Self::Cancelled
        } else if error.is_refused() {
            Self::Refused
        } else if error.is_expired() {
            Self::Expired
        } else if error.is_panic() {
            Self::Panicked
        } else if error.is_codec() {
            Self::Codec
        } else {
            Self::Other
        }
    }
}

/// A job and its handle.
pub(crate) type Submitted = (u64, JoinHandle<Done>);

/// Waits for the outcomes of all jobs (C1).
pub(crate) fn collect(handles: Vec<Submitted>, limit: Duration) -> Vec<Outcome> {
    let end = Instant::now() + limit;
    let count = handles.len();
    let mut outcomes = Vec::with_capacity(count);
    for (job, mut handle) in handles {
        let result = handle.join_timeout(end.saturating_duration_since(Instant::now()));
        if result.as_ref().is_err_and(JoinError::is_timeout) {
            panic!(
                "C1: job {job} has no outcome after {limit:?}; {} of {count} have one",
                outcomes.len()
            );
        }
        outcomes.push(Outcome::of(job, result));
    }
    outcomes
}

/// Waits for the outcome of one job.
pub(crate) fn outcome(handle: JoinHandle<Done>, job: u64) -> Outcome {
    collect(vec![(job, handle)], Duration::from_secs(120)).remove(0)
}

/// Fails unless all have returned.
#[track_caller]
pub(crate) fn all_ok(outcomes: &[Outcome]) {
    let bad: Vec<_> = outcomes.iter().filter(|outcome| !outcome.is_ok()).collect();
    assert!(
        bad.is_empty(),
        "{} of {} did not return, such as {:?}",
        bad.len(),
        outcomes.len(),
        &bad[..bad.len().min(3)]
    );
}

pub(crate) fn count(outcomes: &[Outcome], kind: Kind) -> usize {
    outcomes
        .iter()
        .filter(|outcome| outcome.kind == kind)
        .count()
}

/// Checks the books of a cluster whose jobs have all resolved, with exactly these outcomes.
#[track_caller]
pub(crate) fn check_books(metrics: &Metrics, outcomes: &[Outcome]) {
    let ok = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    let of = |kinds: &[Kind]| {
        kinds
            .iter()
            .map(|kind| count(outcomes, *kind))
            .sum::<usize>() as u64
    };
    assert_eq!(metrics.submitted, outcomes.len() as u64, "{metrics:?}");
    assert_eq!(metrics.completed, ok as u64, "{metrics:?}");
    assert_eq!(metrics.panicked, of(&[Kind::Panicked]), "{metrics:?}");
    assert_eq!(metrics.cancelled, of(&[Kind::Cancelled]), "{metrics:?}");
    assert_eq!(
        metrics.lost,
        of(&[Kind::Lost, Kind::Disconnected]),
        "{metrics:?}"
    );
    let failed = of(&[Kind::Refused, Kind::Expired, Kind::Codec, Kind::Other]);
    assert_eq!(metrics.failed, failed, "{metrics:?}");
    assert_eq!(metrics.pending, 0, "{metrics:?}");
}
