//! The flag of [`TaskCell`](super::cell::TaskCell), in all schedules.

use std::panic::Location;

use loom::thread;

use crate::error::JoinError;
use crate::task::cell::{JoinTask, RawTask, Role, Runner, Scheduler, Taken, TaskCell, refuse};
use crate::util::sync::Arc;

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
