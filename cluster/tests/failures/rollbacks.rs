//! The server comes back without what it had confirmed.

use std::thread;
use std::time::Duration;

use crate::common::TestServer;
use crate::outcomes::{self, Submitted, collect};
use crate::space::{Space, eventually};
use crate::tasks::{What, again, once};

const LEASE: Duration = Duration::from_secs(3);

/// After this C2 and C6 cannot hold: the judge checks C1, C3, C4, and that it is reported.
fn rolled_back(deleted: bool) {
    let mut server = TestServer::start();
    let space = Space::new(server.url(), "rolled", LEASE);
    let cluster = space.cluster().build().unwrap();
    let worker = space.worker(2);
    let submit = |jobs: std::ops::Range<u64>| -> Vec<Submitted> {
        let pairs = jobs.map(|job| match job % 2 {
            0 => (job, cluster.submit(once::call(job, What::Nothing))),
            _ => (job, cluster.submit(again::call(job, What::Nothing))),
        });
        pairs.collect()
    };
    let mut all = collect(submit(0..40), Duration::from_secs(60));
    outcomes::all_ok(&all);
    worker.drain();
    // The copy has some jobs that wait.
    let mut handles = submit(40..60);
    eventually("they are in the queue", || space.jobs() == 20);
    server.kill();
    let copy = server.copy_store();
    server.restart();
    // These are in the queue, which comes back without them.
    handles.extend(submit(60..160));
    eventually("they are in the queue", || space.jobs() == 120);
    server.kill();
    match deleted {
        true => server.delete_store(),
        false => server.put_back(&copy),
    }
    server.restart();
    eventually("the submitter reports it", || {
        cluster.metrics().rollbacks == 1
    });
    // Others use the sequences again.
    handles.extend(submit(160..200));
    let workers = [space.worker(2), space.worker(2)];
    let outcomes = collect(handles, Duration::from_secs(120));
    all.extend(outcomes);
    // None of them had started, so none is lost.
    outcomes::all_ok(&all);
    space.judge().check(&all);
    outcomes::check_books(&cluster.metrics(), &all);
    thread::sleep(LEASE);
    space.wait_until_empty();
    for worker in workers {
        worker.drain();
    }
    assert_eq!(cluster.metrics().rollbacks, 1);
}

#[test]
fn c1_c3_c4_the_store_is_put_back_to_an_older_copy() {
    rolled_back(false);
}

#[test]
fn c1_c3_c4_the_store_is_deleted() {
    rolled_back(true);
}

#[test]
fn c1_c3_c4_the_store_is_put_back_while_jobs_run() {
    let mut server = TestServer::start();
    let space = Space::new(server.url(), "busy", LEASE);
    let cluster = space.cluster().window(400).build().unwrap();
    let workers = [space.worker(4), space.worker(4)];
    let (copy, outcomes) = thread::scope(|scope| {
        let work = scope.spawn(|| {
            let mut handles: Vec<Submitted> = Vec::new();
            for job in 0..1500 {
                handles.push(match job % 2 {
                    0 => (job, cluster.submit(once::call(job, What::Sleep(2)))),
                    _ => (job, cluster.submit(again::call(job, What::Sleep(2)))),
                });
            }
            collect(handles, Duration::from_secs(180))
        });
        eventually("some have run", || space.judge().runs().len() > 100);
        server.kill();
        let copy = server.copy_store();
        server.restart();
        eventually("more have run", || space.judge().runs().len() > 400);
        server.kill();
        server.put_back(&copy);
        server.restart();
        (copy, work.join().unwrap())
    });
    drop(copy);
    space.judge().check(&outcomes);
    outcomes::check_books(&cluster.metrics(), &outcomes);
    assert_eq!(cluster.metrics().rollbacks, 1);
    drop(workers);
}
