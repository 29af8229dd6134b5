//! Submitters die, or do not read.

use std::thread;
use std::time::Duration;

use crate::common::TestServer;
use crate::outcomes::{self, Kind, collect};
use crate::programs::Mode;
use crate::space::{Space, eventually};
use crate::tasks::{What, again, once};

const LEASE: Duration = Duration::from_secs(3);

#[test]
fn c2_a_submitter_is_killed_and_its_detached_jobs_go_on() {
    let server = TestServer::start();
    let space = Space::new(server.url(), "killed", LEASE);
    let worker = space.worker(2);
    let gate = space.gate("gate");
    let blocked = What::Gate(gate.clone());
    let mut submitter = space.submitter(
        vec![
            // One slot is free until the submitter is gone.
            (0, 2, Mode::Detached, blocked.clone()),
            (10, 10, Mode::Detached, What::Nothing),
            (100, 200, Mode::Once, What::Nothing),
            (300, 200, Mode::Again, What::Nothing),
        ],
        1000,
    );
    submitter.line("submitted");
    eventually("both slots are taken", || space.judge().starts() == 2);
    eventually("all jobs are in the queue", || space.jobs() == 412);
    submitter.kill();
    let cluster = space.cluster().build().unwrap();
    // Two thirds of a lease, and some.
    thread::sleep(LEASE);
    std::fs::write(gate, "").unwrap();
    let attached = (0..2)
        .chain(10..20)
        .map(|job| (job, cluster.attach::<once>(&job.to_string())));
    let outcomes = collect(attached.collect(), Duration::from_secs(60));
    outcomes::all_ok(&outcomes);
    space.wait_until_empty();
    space.judge().check_once(&outcomes);
    let started: Vec<_> = space.judge().runs().into_keys().collect();
    assert!(
        started.iter().all(|job| *job < 100),
        "dropped jobs ran: {started:?}"
    );
    // Another process attaches, too, and the key is taken.
    let copies = (10..20).map(|job| (job, cluster.attach::<once>(&job.to_string())));
    assert_eq!(
        collect(copies.collect(), Duration::from_secs(60)),
        outcomes[2..]
    );
    let error = cluster
        .submit_detached("10", once::call(10, What::Nothing))
        .unwrap_err();
    assert!(error.is_duplicate_key(), "{error}");
    let unknown = outcomes::outcome(cluster.attach::<once>("no such key"), 0);
    assert_eq!(
        (unknown.kind, unknown.may_have_run),
        (Kind::Refused, false),
        "{unknown:?}"
    );
    let other_task = outcomes::outcome(cluster.attach::<again>("10"), 0);
    assert_eq!(other_task.kind, Kind::Refused, "{other_task:?}");
    worker.drain();
}

#[test]
#[ignore = "waits for the limit of a submitter that is gone, 5 minutes"]
fn c2_running_jobs_of_a_dead_submitter_are_asked_to_stop() {
    let server = TestServer::start();
    let space = Space::new(server.url(), "stopped", LEASE);
    let worker = space.worker(1);
    let mut submitter = space.submitter(vec![(0, 1, Mode::Once, What::UntilCancelled)], 10);
    eventually("it runs", || space.judge().starts() == 1);
    submitter.kill();
    crate::space::eventually_within("it ends", Duration::from_secs(400), || {
        space.judge().runs_of(0)[0].ended
    });
    space.wait_until_empty();
    worker.drain();
}

/// A submitter is stopped while thousands of outcomes arrive.
fn does_not_read(jobs: u64, pause: Duration) {
    let server = TestServer::start();
    let space = Space::new(server.url(), "silent", LEASE);
    let workers = [space.worker(4), space.worker(4)];
    let half = jobs / 2;
    let submitter = space.submitter(
        vec![
            (0, half, Mode::Once, What::Bytes(1000)),
            (half, half, Mode::Again, What::Bytes(1000)),
        ],
        100_000,
    );
    submitter.line("submitted");
    eventually("some have run", || space.judge().runs().len() > 50);
    submitter.stop();
    // The time is the subject: it seems dead to all others meanwhile.
    thread::sleep(pause);
    submitter.resume();
    let (outcomes, _) = submitter.outcomes(jobs as usize, Duration::from_secs(180));
    outcomes::all_ok(&outcomes);
    space.judge().check_once(&outcomes[..half as usize]);
    space.judge().check(&outcomes);
    space.wait_until_empty();
    for worker in workers {
        worker.drain();
    }
}

#[test]
fn c1_c4_a_submitter_does_not_read_for_a_while() {
    does_not_read(3000, LEASE * 2);
}

#[test]
#[ignore = "takes a minute"]
fn c1_c4_a_submitter_does_not_read_for_half_a_minute() {
    does_not_read(20_000, Duration::from_secs(30));
}
