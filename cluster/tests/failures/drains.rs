//! Workers are drained, and jobs take long.

use std::thread;
use std::time::Duration;

use crate::common::TestServer;
use crate::outcomes::{self, Submitted, collect};
use crate::space::{Space, eventually};
use crate::tasks::{What, again, once};

#[test]
fn c2_workers_are_drained_under_load() {
    let server = TestServer::start();
    let space = Space::new(server.url(), "drained", Duration::from_secs(10));
    let cluster = space.cluster().build().unwrap();
    let mut workers: Vec<_> = (0..3).map(|_| space.worker(4)).collect();
    let mut handles: Vec<Submitted> = Vec::new();
    for job in 0..600 {
        handles.push(match job % 2 {
            0 => (job, cluster.submit(once::call(job, What::Sleep(10)))),
            _ => (job, cluster.submit(again::call(job, What::Sleep(10)))),
        });
    }
    for round in 1..=5 {
        eventually("some more have run", || {
            space.judge().runs().len() > round * 60
        });
        let worker = workers.remove(0);
        worker.ask_to_drain();
        workers.push(space.worker(4));
        worker.drain();
    }
    let outcomes = collect(handles, Duration::from_secs(120));
    // An orderly drain loses nothing, and starts nothing twice: not even what could be repeated.
    outcomes::all_ok(&outcomes);
    space.judge().check_once(&outcomes);
    outcomes::check_books(&cluster.metrics(), &outcomes);
    for worker in workers {
        worker.drain();
    }
    // A clean exit leaves nothing behind.
    eventually("no job and no claim is left", || {
        space.jobs() == 0 && space.claims() == 0
    });
}

#[test]
fn c2_a_job_takes_ten_times_as_long_as_the_lease() {
    let server = TestServer::start();
    let lease = Duration::from_secs(2);
    let space = Space::new(server.url(), "long", lease);
    let cluster = space.cluster().build().unwrap();
    let workers = [space.worker(2), space.worker(2)];
    let what = || What::Sleep(20_000);
    let handles = vec![
        (0, cluster.submit(once::call(0, what()))),
        (1, cluster.submit(again::call(1, what()))),
    ];
    let outcomes = collect(handles, Duration::from_secs(90));
    outcomes::all_ok(&outcomes);
    // Neither is run again as long as its worker lives.
    space.judge().check_once(&outcomes);
    for worker in workers {
        worker.drain();
    }
    space.wait_until_empty();
}

#[test]
fn c2_a_drain_ends_when_its_grace_does() {
    let server = TestServer::start();
    let space = Space::new(server.url(), "grace", Duration::from_secs(3));
    let cluster = space.cluster().build().unwrap();
    let mut plan = space.plan(2);
    plan.grace = Duration::from_millis(200);
    let worker = space.start(plan);
    let handle = cluster.submit(once::call(0, What::UntilCancelled));
    eventually("it runs", || space.judge().starts() == 1);
    // Jobs that run are asked to stop, and this one does.
    worker.drain();
    let outcome = outcomes::outcome(handle, 0);
    assert!(outcome.may_have_run, "{outcome:?}");
    thread::sleep(Duration::from_millis(100));
    space.judge().check_once(&[outcome]);
    space.wait_until_empty();
}
