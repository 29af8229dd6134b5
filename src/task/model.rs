//! The flag of [`TaskCell`](super::cell::TaskCell), and its deadline, in all schedules.

use std::panic::Location;
use std::time::Duration;

use loom::thread;

use crate::error::JoinError;
use crate::pool::expiry::testing;
use crate::task::cell::{
    JoinTask, RawTask, Role, Runner, Scheduler, Taken, TaskCell, cancel, expire, refuse,
};
use crate::task::state::Cancel;
use crate::util::sync::{Arc, Instant};

/// The scheduler of a task that no pool counts.
struct NoPool;

impl Scheduler for NoPool {
    fn is_stopping(&self) -> bool {
        false
    }
    fn role(&self) -> Role {
        Role::Outside
    }
}

/// Ends a task in another thread, while this one looks at the flag.
fn check(end: fn(Arc<dyn RawTask>)) {
    loom::model(move || {
        let closure: fn() -> i32 = || 7;
        let task = TaskCell::queued(closure, Location::caller(), None, 0, NoPool);
        let task: Arc<TaskCell<_, i32, _>> = Arc::new(task);
        let raw: Arc<dyn RawTask> = Arc::clone(&task) as _;
        let other = thread::spawn(move || end(raw));
        let seen = task.is_resolved();
        if seen {
            assert!(matches!(task.take(), Taken::Outcome { .. }));
        }
        other.join().unwrap();
        assert!(
            task.is_resolved(),
            "a thread that spins would never see the end"
        );
        assert_eq!(matches!(task.take(), Taken::Nothing), seen);
    });
}

#[test]
fn a_resolved_task_that_ran_has_its_outcome() {
    check(|task| assert!(task.run(Runner::Executor)));
}

#[test]
fn a_resolved_task_that_was_refused_has_its_outcome() {
    check(|task| assert!(refuse(&*task, &JoinError::cancelled())));
}

/// A job that has a deadline, while other threads start it and cancel it.
#[test]
fn a_job_that_starts_expires_and_is_cancelled_at_the_same_time_ends_once() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(3));
    builder.check(|| {
        let closure: fn() -> i32 = || 7;
        let task = TaskCell::queued(closure, Location::caller(), None, 0, NoPool);
        let task: Arc<TaskCell<_, i32, _>> = Arc::new(task);
        let raw = || Arc::clone(&task) as Arc<dyn RawTask>;
        let deadline = Instant::now() + Duration::from_secs(1);
        let (starts, expires) = (raw(), raw());
        let starts = thread::spawn(move || starts.run(Runner::Executor));
        let expires = thread::spawn(move || {
            // As the submitter does after the push, and an expiry thread later.
            expires.set_expiry(&mut || testing::guard(&expires, deadline));
            expire(&*expires)
        });
        let cancelled = cancel(&*task) == Cancel::DropClosure;
        let (started, expired) = (starts.join().unwrap(), expires.join().unwrap());
        let ends = [started, expired, cancelled];
        assert_eq!(ends.iter().filter(|end| **end).count(), 1, "{ends:?}");
        assert!(!testing::has(deadline), "the job left its deadline");
        let Taken::Outcome { outcome, .. } = task.take() else {
            panic!("it has ended");
        };
        assert_eq!(outcome.is_ok(), started);
        assert_eq!(outcome.is_err_and(|error| error.is_expired()), expired);
    });
}
