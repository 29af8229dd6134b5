//! From version 1 of a task to version 2, with submitters and workers of both.

use std::time::Duration;

use crate::common::TestServer;
use crate::outcomes;
use crate::programs::Mode;
use crate::space::{Space, eventually};
use crate::tasks::What;

#[test]
fn c5_workers_and_submitters_are_replaced_one_after_the_other() {
    let server = TestServer::start();
    let space = Space::new(server.url(), "upgrade", Duration::from_secs(3));
    let worker = |version: u32| {
        let mut plan = space.plan(2);
        plan.versions = vec![version];
        space.start(plan)
    };
    let limit = Duration::from_secs(60);
    let old = worker(1);
    let first = space.submitter(vec![(0, 100, Mode::V1, What::Nothing)], 100);
    // The new submitter comes before the new worker: its jobs wait for one.
    let second = space.submitter(vec![(1000, 100, Mode::V2, What::Nothing)], 100);
    let (of_first, _) = first.outcomes(100, limit);
    outcomes::all_ok(&of_first);
    eventually("the jobs of the second wait", || space.jobs() == 100);
    // No worker has received a version that it does not have.
    assert_eq!(space.judge().runs().range(1000..).count(), 0);
    let new = worker(2);
    let third = space.submitter(vec![(200, 100, Mode::V1, What::Nothing)], 100);
    let (of_second, _) = second.outcomes(100, limit);
    let (of_third, _) = third.outcomes(100, limit);
    outcomes::all_ok(&of_second);
    outcomes::all_ok(&of_third);
    let (old_pid, new_pid) = (old.pid(), new.pid());
    old.drain();
    // What the old version has left waits, and is not misunderstood.
    let late = space.submitter(vec![(300, 10, Mode::V1, What::Nothing)], 100);
    let fourth = space.submitter(vec![(1200, 100, Mode::V2, What::Nothing)], 100);
    outcomes::all_ok(&fourth.outcomes(100, limit).0);
    assert_eq!(space.jobs(), 10);
    let old = worker(1);
    outcomes::all_ok(&late.outcomes(10, limit).0);
    for (job, runs) in space.judge().runs() {
        let expected = match job {
            0..300 => old_pid,
            300..1000 => old.pid(),
            _ => new_pid,
        };
        assert_eq!(runs.len(), 1, "job {job}");
        assert_eq!(runs[0].process, expected, "C5: job {job}");
    }
    old.drain();
    new.drain();
}
