//! The ways to wait for jobs.

use std::sync::Arc;

use futurepool::{JoinError, ReturnWhen, as_completed, wait};
use futures::executor::block_on; // a foreign one; this crate's is called by its full name
use futures::{StreamExt, future::join_all};

use crate::count::{Count, count};
use crate::random::Random;
use crate::trace::{Task, Trace, join};

/// Waits for jobs in one of many ways.
pub(crate) fn collect(tasks: Vec<Task>, random: &mut Random, in_worker: bool) {
    let settle = |(trace, outcome): (Arc<Trace>, _)| trace.settle(outcome);
    match random.below(8) {
        0 => tasks.into_iter().for_each(join),
        1 => as_completed(tasks).into_iter().for_each(settle),
        2 => tasks.into_iter().map(futurepool::block_on).for_each(settle),
        // In a worker only this crate's waits see to it that the jobs run.
        3 if in_worker => (futurepool::block_on(join_all(tasks)).into_iter()).for_each(settle),
        3 => block_on(join_all(tasks)).into_iter().for_each(settle),
        4 if !in_worker => block_on(as_completed(tasks).map(settle).collect()),
        5 => wait_for_some(tasks, random),
        6 => {
            for task in tasks {
                let (trace, mut handle) = task.into_inner();
                let mut outcome = handle.join_timeout(random.micros(500));
                if outcome.as_ref().is_err_and(JoinError::is_timeout) {
                    count(Count::Timeouts);
                    outcome = handle.join();
                }
                trace.settle(outcome);
            }
        }
        _ => {
            let mut timed = as_completed(tasks).timeout(random.micros(2_000));
            while let Some(item) = timed.wait_next() {
                item.map_or_else(|_| count(Count::Timeouts), settle);
            }
            timed.into_pending().into_iter().for_each(join);
        }
    }
}

fn wait_for_some(tasks: Vec<Task>, random: &mut Random) {
    let until = match random.below(3) {
        0 => ReturnWhen::AllCompleted,
        1 => ReturnWhen::FirstCompleted,
        _ => ReturnWhen::FirstException,
    };
    let waited = wait(tasks, until).join();
    assert!(until != ReturnWhen::AllCompleted || waited.not_done.is_empty());
    assert!(!waited.done.is_empty() || waited.not_done.is_empty());
    for task in waited.done {
        let (trace, mut handle) = task.into_inner();
        trace.settle(handle.try_join().expect("it is done"));
    }
    waited.not_done.into_iter().for_each(join);
}
