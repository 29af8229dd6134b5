//! The ways to wait for jobs.

use std::sync::Arc;

use futurepool::{JoinError, ReturnWhen, as_completed, wait};
use futures::executor::block_on; // of another crate; this crate's is called by its full path
use futures::{StreamExt, future};

use crate::count::{Count, count};
use crate::random::Random;
use crate::record::{JobRecord, Task, join};

/// Waits for all jobs in a random way and checks each outcome.
pub(crate) fn join_all(tasks: Vec<Task>, random: &mut Random, in_worker: bool) {
    let check = |(record, outcome): (Arc<JobRecord>, _)| record.check_outcome(outcome);
    match random.below(8) {
        0 => tasks.into_iter().for_each(join),
        1 => as_completed(tasks).into_iter().for_each(check),
        2 => tasks.into_iter().map(futurepool::block_on).for_each(check),
        // In a worker, only the waits of this crate ensure that the jobs run.
        3 if in_worker => {
            let outcomes = futurepool::block_on(future::join_all(tasks));
            outcomes.into_iter().for_each(check);
        }
        3 => block_on(future::join_all(tasks))
            .into_iter()
            .for_each(check),
        4 if !in_worker => block_on(as_completed(tasks).map(check).collect()),
        5 => wait_for_some(tasks, random),
        6 => {
            for task in tasks {
                let (record, mut handle) = task.into_inner();
                let mut outcome = handle.join_timeout(random.micros(500));
                if outcome.as_ref().is_err_and(JoinError::is_timeout) {
                    count(Count::Timeouts);
                    outcome = handle.join();
                }
                record.check_outcome(outcome);
            }
        }
        _ => {
            let mut timed = as_completed(tasks).timeout(random.micros(2_000));
            while let Some(item) = timed.wait_next() {
                item.map_or_else(|_| count(Count::Timeouts), check);
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
        let (record, mut handle) = task.into_inner();
        record.check_outcome(handle.try_join().expect("the job is done"));
    }
    waited.not_done.into_iter().for_each(join);
}
